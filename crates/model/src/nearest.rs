//! The nearest known name to one that is not known, for "did you mean".
//!
//! Promises to stay silent rather than to suggest something far-fetched; never decides anything.

use super::name::TableName;

/// Finds the candidate that the writer of `name` most likely meant.
///
/// Case and `-` against `_` do not count. A name may be off by one letter in three of the longer one, at most three (`ur`
/// may be `url`, but `a` is not `b`); a last part alone (`weekly` for `keep_weekly`) is enough where only one candidate
/// ends in it. `None` where nothing is near.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = fold(name);
    // A distance costs the product of the lengths, and nobody misspells a name of more than 100 letters.
    if name.is_empty() || name.len() > 100 {
        return None;
    }
    let limit = (name.chars().count() / 3).clamp(1, 3);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    candidates
        .iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&name, &fold(candidate)),
                *candidate,
            )
        })
        .filter(|(distance, candidate)| {
            let longer = name.chars().count().max(candidate.chars().count());
            *distance <= limit && distance * 3 <= longer
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| only_with_last_part(&name, &candidates))
}

/// Finds the table that the writer of `name` most likely meant, among known schemas and names.
///
/// The same name in another case or another schema comes first. Otherwise only the names are compared, within the
/// schema: with its letters in front, any two short names would look alike.
pub fn nearest_table<'a>(
    name: &TableName,
    known: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<TableName> {
    let schema = name.schema_or_public();
    let known: Vec<(&str, &str)> = known.into_iter().collect();
    let wanted = fold(&name.name);
    let mut same_name = known.iter().filter(|(_, name)| fold(name) == wanted);
    let in_schema = |(other, _): &&(&str, &str)| *other == schema;
    let same = same_name.clone().find(in_schema).or(same_name.next());
    if let Some((schema, name)) = same {
        return Some(TableName::new(*schema, *name));
    }
    let names = known.iter().filter(in_schema).map(|(_, name)| *name);
    nearest(&name.name, names).map(|near| TableName::new(schema, near))
}

/// Returns `; did you mean ...?`, or nothing where no candidate is near, to end a message with.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates)
        .map(|candidate| format!("; did you mean `{candidate}`?"))
        .unwrap_or_default()
}

fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

fn only_with_last_part<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let ending = format!("_{name}");
    let mut matching = candidates.iter().filter(|c| fold(c).ends_with(&ending));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 6] = [
        "retention",
        "keep_daily",
        "keep_weekly",
        "url",
        "read_timeout",
        "connect_timeout",
    ];

    #[test]
    fn finds_what_was_meant() {
        for (name, expected) in [
            ("retension", Some("retention")),
            ("keep_dayly", Some("keep_daily")),
            ("keep-daily", Some("keep_daily")),
            ("KEEP_WEEKLY", Some("keep_weekly")),
            ("weekly", Some("keep_weekly")),
            ("ulr", Some("url")),
            ("timeout", None),
            ("notify", None),
            ("x", None),
            ("ur", Some("url")),
            ("", None),
        ] {
            assert_eq!(nearest(name, KEYS), expected, "{name:?}");
        }
        // Two short names look alike by their length alone.
        for name in ["a", "b", "ac"] {
            assert_eq!(nearest(name, ["c", "ab"]), None, "{name:?}");
        }
    }

    #[test]
    fn tables_are_compared_by_name_and_not_by_schema() {
        let known = [("public", "Users"), ("app", "orders"), ("public", "b")];
        for (name, expected) in [
            ("users", Some("public.\"Users\"")),
            ("app.users", Some("public.\"Users\"")),
            ("orders", Some("app.orders")),
            ("app.oders", Some("app.orders")),
            ("oders", None),
            ("a", None),
            ("app.b", Some("public.b")),
        ] {
            let near = nearest_table(&name.parse().unwrap(), known).map(|near| near.to_string());
            assert_eq!(near.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn ends_a_message() {
        assert_eq!(
            did_you_mean("retension", KEYS),
            "; did you mean `retention`?"
        );
        assert_eq!(did_you_mean("notify", KEYS), "");
    }

    #[test]
    fn a_huge_name_costs_nothing() {
        assert_eq!(nearest(&"x".repeat(1 << 20), KEYS), None);
    }
}

//! The nearest known name to one that is not known, for "did you mean".
//!
//! Promises to stay silent rather than to suggest something far-fetched; never decides anything.

/// Finds the candidate that the writer of `name` most likely meant.
///
/// Case and `-` against `_` do not count. A name may be off by one letter in three, at most three; a last part
/// alone (`weekly` for `keep_weekly`) is enough where only one candidate ends in it. `None` where nothing is near.
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
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| only_with_last_part(&name, &candidates))
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
            ("", None),
        ] {
            assert_eq!(nearest(name, KEYS), expected, "{name:?}");
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

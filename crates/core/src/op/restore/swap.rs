//! Names and ways around a swap: the fresh database beside, the old one kept, the way back.

use jiff::Timestamp;

use super::Replaced;
use pgkeep_model::name::quote;

/// Longest name that PostgreSQL keeps; it cuts longer ones in silence.
const MAX_NAME: usize = 63;

/// Returns the name of a database beside `name`.
pub(crate) fn beside(name: &str, suffix: &str) -> String {
    let most = MAX_NAME - suffix.len();
    format!("{}{suffix}", &name[..name.floor_char_boundary(most)])
}

/// Returns the name that the old database is kept under.
pub(super) fn kept_name(name: &str, now: Timestamp) -> String {
    beside(name, &format!("_before_{}", now.strftime("%Y%m%dT%H%M%SZ")))
}

/// Says how to put the old database back.
pub(super) fn replaced(name: &str, kept: &str) -> Replaced {
    let restored = beside(name, "_restored");
    Replaced {
        kept_as: kept.to_owned(),
        go_back: vec![
            format!(
                "ALTER DATABASE {} RENAME TO {};",
                quote(name),
                quote(&restored)
            ),
            format!("ALTER DATABASE {} RENAME TO {};", quote(kept), quote(name)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_tell_the_time() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(kept_name("shop", now), "shop_before_20260102T030405Z");
        let long = "ä".repeat(40);
        assert!(kept_name(&long, now).len() <= MAX_NAME);
        assert!(kept_name(&long, now).ends_with("_before_20260102T030405Z"));
        let back = replaced("a\"b", "old").go_back;
        assert_eq!(back[1], "ALTER DATABASE \"old\" RENAME TO \"a\"\"b\";");
    }
}

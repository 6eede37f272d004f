//! The grammar of keys, checked by every backend before a key touches a path or a URL.
//!
//! A key that passes can neither leave the storage's root nor be taken for a hidden or unfinished file.

use super::{Error, Result};

/// Longest segment: what file systems take as one name.
const MAX_SEGMENT: usize = 255;

/// Longest key. S3 stops at 1,024 bytes and the storage's own prefix comes on top.
const MAX_KEY: usize = 800;

/// Checks a key: segments of `[A-Za-z0-9._-]` parted by `/`, none empty, none starting with a dot.
pub fn check(key: &str) -> Result<()> {
    if is_key(key) {
        Ok(())
    } else {
        Err(refused(key))
    }
}

/// Checks a key that is to be read: one outside the grammar cannot be there.
pub(super) fn check_readable(key: &str) -> Result<()> {
    if is_key(key) {
        Ok(())
    } else {
        Err(Error::NotFound(key.to_owned()))
    }
}

/// Checks the beginning of keys: empty, or a key whose last segment may be cut off anywhere.
pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    let is_fine = prefix.len() <= MAX_KEY
        && match prefix.rsplit_once('/') {
            Some((folder, rest)) => is_key(folder) && (rest.is_empty() || is_segment(rest)),
            None => prefix.is_empty() || is_segment(prefix),
        };
    if is_fine {
        Ok(())
    } else {
        Err(refused(prefix))
    }
}

/// Tells whether a name is one segment of a key.
pub(super) fn is_segment(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_SEGMENT
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Tells whether a text is a key.
pub(super) fn is_key(text: &str) -> bool {
    text.len() <= MAX_KEY && text.split('/').all(is_segment)
}

/// Splits a key or prefix at its last slash: the folder (empty for the root), and the rest.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

fn refused(key: &str) -> Error {
    Error::Setup {
        message: format!("`{}` is not a storage key", key.escape_debug()),
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_could_leave_the_root() {
        for key in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.b", ".a", "a b", "a\\b",
            "a\0", "ä", "a%2e", "~",
        ] {
            assert!(check(key).is_err(), "{key:?}");
            assert!(matches!(check_readable(key), Err(Error::NotFound(_))));
        }
        assert!(check(&"a".repeat(256)).is_err());
        assert!(check(&"a/".repeat(500)).is_err());
    }

    #[test]
    fn takes_what_backups_are_called() {
        for key in ["a", "shop/runs/shop-20260102T030405Z-7f3a.json", "-/_/a..b"] {
            check(key).unwrap();
            check_readable(key).unwrap();
        }
        for prefix in ["", "sh", "shop/", "shop/runs/sh"] {
            check_prefix(prefix).unwrap();
        }
        for prefix in ["/", "//", "a//", ".", "a/.", "../"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_stays_below_its_root(key in "[a-z./_-]{0,20}") {
            if is_key(&key) {
                let path = std::path::Path::new(&key);
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}

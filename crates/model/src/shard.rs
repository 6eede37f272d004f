//! One of several parts of all databases, for workers that share them out beforehand.

use std::fmt;
use std::num::NonZeroU32;

use xxhash_rust::xxh3::xxh3_64;

use super::id::DatabaseName;

/// The part with this number, of so many: each database is in one of them, the same on every host.
///
/// A database that is added moves no other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Counted from 0.
    index: u32,
    count: NonZeroU32,
}

impl Shard {
    /// Reads `2/8`, the second of eight parts, or `8` where `index`, counted from 0, says which one.
    ///
    /// The error is to stand behind a name for the text.
    pub fn read(text: &str, index: Option<&str>) -> Result<Self, String> {
        let number = |text: &str| {
            let read = text.parse::<NonZeroU32>().ok();
            read.ok_or_else(|| format!("`{text}` is not a number from 1 on"))
        };
        let (index, count) = match text.split_once('/') {
            Some((part, count)) => (number(part)?.get() - 1, number(count)?),
            None => {
                let text_of_index = index.ok_or(
                    "a count alone, such as 8, needs JOB_COMPLETION_INDEX in the environment; \
                     elsewhere it is 2/8, the second of eight parts",
                )?;
                let bad = |_| "JOB_COMPLETION_INDEX is not a number";
                let index = text_of_index.trim().parse().map_err(bad)?;
                (index, number(text)?)
            }
        };
        if index >= count.get() {
            let part = u64::from(index) + 1;
            return Err(format!("there is no part {part} of {count}"));
        }
        Ok(Self { index, count })
    }

    /// Tells whether a database is in this part.
    pub fn has(self, database: &DatabaseName) -> bool {
        let place = xxh3_64(database.as_str().as_bytes()) % u64::from(self.count.get());
        place == u64::from(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", u64::from(self.index) + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_part_or_a_count() {
        let read = |text, index| Shard::read(text, index).map(|shard| shard.to_string());
        assert_eq!(read("2/8", None).as_deref(), Ok("2/8"));
        // What stands in the flag counts more than what a cluster says.
        assert_eq!(read("2/8", Some("5")).as_deref(), Ok("2/8"));
        assert_eq!(read("8", Some("0")).as_deref(), Ok("1/8"));
        assert_eq!(read("8", Some("7")).as_deref(), Ok("8/8"));
        for (text, index) in [
            ("0/8", None),
            ("9/8", None),
            ("1/0", None),
            ("8", None),
            ("8", Some("8")),
            ("8", Some("x")),
            ("8", Some("-1")),
            ("", Some("0")),
            ("/", None),
            ("1/2/3", None),
        ] {
            assert!(read(text, index).is_err(), "{text} {index:?}");
        }
    }

    proptest! {
        #[test]
        fn each_database_is_in_one_part(name in "[a-z_]{1,20}", count in 1u32..40) {
            let name: DatabaseName = name.parse().unwrap();
            let parts = (1..=count).filter(|part| {
                Shard::read(&format!("{part}/{count}"), None).unwrap().has(&name)
            });
            prop_assert_eq!(parts.count(), 1);
        }
    }
}

//! Ids of backups and names of databases: the grammar of every key in storage.
//!
//! A key is always built from these checked parts and read back by them, never taken from a manifest or a server.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name of a database in a key. Ids add 22 characters and suffixes up to 20 more, and file systems stop at 255.
const MAX_DATABASE_NAME: usize = 128;

/// Names one database of the configuration: letters, digits, `_` and `-`, not starting with `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseName(Arc<str>);

/// Identifies a backup: `<database>-<UTC start>-<4 hex>`, such as `shop-20260102T030405Z-7f3a`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId {
    database: DatabaseName,
    started_at: Timestamp,
    suffix: u16,
}

/// Tells that a text is not of the grammar.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not a database name.
    #[error(
        "`{0}` is not a database name: letters, digits, `_` and `-`, at most 128, not starting with `-`"
    )]
    Database(String),
    /// Not a backup id.
    #[error("`{0}` is not a backup id such as `shop-20260102T030405Z-7f3a`")]
    Backup(String),
}

impl DatabaseName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = !text.is_empty()
            && text.len() <= MAX_DATABASE_NAME
            && !text.starts_with('-')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Database(text.to_owned()))
        }
    }
}

impl TryFrom<String> for DatabaseName {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<DatabaseName> for String {
    fn from(name: DatabaseName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BackupId {
    /// Makes the id of a backup that started at `started_at` (cut to whole seconds).
    ///
    /// The suffix begins with the millisecond and ends with six bits of `dice`, so that ids of one second are in order,
    /// and two runs of the same moment have different ones.
    pub fn new(database: DatabaseName, started_at: Timestamp, dice: u16) -> Self {
        let whole = Timestamp::from_second(started_at.as_second())
            .expect("a timestamp's own seconds are in range");
        let millisecond = u16::try_from(started_at.as_millisecond().rem_euclid(1000)).unwrap_or(0);
        let suffix = millisecond << 6 | dice & 0x3f;
        Self {
            database,
            started_at: whole,
            suffix,
        }
    }

    /// Returns the database that was backed up.
    pub fn database(&self) -> &DatabaseName {
        &self.database
    }

    /// Shares the text of an equal name with another id: thousands of ids have few names.
    pub fn share_name(&mut self, name: &mut Option<DatabaseName>) {
        match name {
            Some(known) if *known == self.database => self.database = known.clone(),
            other => *other = Some(self.database.clone()),
        }
    }

    /// Returns when the backup started, in whole seconds.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }
}

impl FromStr for BackupId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::Backup(text.to_owned());
        let (rest, suffix) = text.rsplit_once('-').ok_or_else(error)?;
        let (database, time) = rest.rsplit_once('-').ok_or_else(error)?;
        let is_hex = suffix.len() == 4
            && suffix
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Err(error());
        }
        let id = Self {
            database: database.parse().map_err(|_| error())?,
            started_at: parse_time(time).ok_or_else(error)?,
            suffix: u16::from_str_radix(suffix, 16).map_err(|_| error())?,
        };
        // A leap second reads as the second before it, and two texts must never be one id.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(error())
        }
    }
}

impl TryFrom<String> for BackupId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.started_at.strftime("%Y%m%dT%H%M%SZ");
        write!(f, "{}-{}-{:04x}", self.database, time, self.suffix)
    }
}

/// Orders by time first, so that sorted ids are sorted by start.
impl Ord for BackupId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.started_at, &self.database, self.suffix).cmp(&(
            other.started_at,
            &other.database,
            other.suffix,
        ))
    }
}

impl PartialOrd for BackupId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let well_formed = text.len() == 16
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 => b == b'T',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        });
    if !well_formed {
        return None;
    }
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    time.to_zoned(TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn id_has_the_documented_form() {
        let at: Timestamp = "2026-01-02T03:04:05.999Z".parse().unwrap();
        let id = BackupId::new("shop".parse().unwrap(), at, 0x7f3a);
        assert_eq!(id.to_string(), "shop-20260102T030405Z-f9fa");
        assert_eq!(id.to_string().parse::<BackupId>().unwrap(), id);
    }

    #[test]
    fn ids_of_one_second_are_in_order() {
        let id = |time: &str, dice| {
            let at = time.parse().unwrap();
            BackupId::new("shop".parse().unwrap(), at, dice)
        };
        let older = id("2026-01-02T03:04:05.000Z", u16::MAX);
        let newer = id("2026-01-02T03:04:05.001Z", 0);
        assert!(older < newer && older.to_string() < newer.to_string());
        assert!(id("2026-01-02T03:04:05.999Z", u16::MAX) < id("2026-01-02T03:04:06Z", 0));
        assert_ne!(id("2026-01-02T03:04:05Z", 1), id("2026-01-02T03:04:05Z", 2));
    }

    #[test]
    fn refuses_foreign_ids() {
        for text in [
            "",
            "shop",
            "shop-20260102T030405Z",
            "shop-20260102T030405Z-7F3A",
            "shop-20260102T030405Z-7f3a0",
            "shop-20261302T030405Z-7f3a",
            "shop-20260102T030460Z-7f3a",
            "shop-2026-102T030405Z-7f3a",
            "../x-20260102T030405Z-7f3a",
            "-x-20260102T030405Z-7f3a",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_read_back(name in "[A-Za-z0-9_][A-Za-z0-9_-]{0,40}", at in 0i64..4_000_000_000, suffix: u16) {
            let at = Timestamp::from_second(at).unwrap();
            let id = BackupId::new(name.parse().unwrap(), at, suffix);
            prop_assert_eq!(id.to_string().parse::<BackupId>().unwrap(), id);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<BackupId>();
        }
    }
}

//! What the gate found: the verdict on one backup, with every sign and its figures, as manifest, reports and notices tell it.

use serde::{Deserialize, Serialize};

use crate::id::BackupId;
use crate::name::printable;
use crate::words::{bytes, count, number, took};

/// Most signs that are kept of one backup: a thousand names would not help anyone who reads them.
pub const MAX_SIGNS: usize = 100;

/// What the gate says of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is amiss.
    Passed,
    /// There are too few backups before it to judge by.
    Learning,
    /// Its history could not be read.
    NotJudged,
    /// Something is amiss: it counts for nothing until it is accepted.
    Held,
    /// A verdict of a newer version.
    #[serde(other)]
    Unknown,
}

/// How much a sign weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The backup is held.
    Fail,
    /// It is a warning of the run.
    Warn,
    /// It is worth knowing, and no more.
    #[serde(other)]
    Note,
}

/// What was seen. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// A table is no longer in the dump.
    TableGone,
    /// A table has no row any more.
    TableEmpty,
    /// A table lost rows.
    RowsLost,
    /// All tables together lost rows.
    AllRowsLost,
    /// A table's rows hold much less than before.
    BytesLost,
    /// The run took much longer.
    Slow,
    /// The dump is much larger.
    Large,
    /// A table was not there before.
    NewTable,
    /// A table has other columns.
    ColumnsChanged,
    /// A table has many more rows.
    Grown,
    /// Tables have as many rows as before, and other ones.
    OtherRows,
    /// A sign of a newer version.
    #[serde(other)]
    Unknown,
}

/// One thing that the gate saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What.
    pub sign: Sign,
    /// How much it weighs.
    pub severity: Severity,
    /// The table, with its schema; none where it is about the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The median before: rows, bytes of rows, bytes of the dump or milliseconds, as the sign says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<u64>,
    /// What it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<u64>,
    /// The bar that was passed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar: Option<String>,
    /// The new table that has exactly the rows of one that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// The verdict on one backup and what led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnomalyRecord {
    /// The verdict.
    pub verdict: Verdict,
    /// The backups that it was compared with, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baseline: Vec<BackupId>,
    /// What was seen, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Seen>,
    /// How many signs more there were than are kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// Why the run went on all the same, where someone said so. The backup is held nevertheless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// Why it was not judged, or what of its history could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl AnomalyRecord {
    /// Makes the record of a backup that nothing was seen of.
    pub fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            baseline: Vec::new(),
            seen: Vec::new(),
            more: 0,
            allowed: None,
            why: None,
        }
    }

    /// Tells whether the backup is held.
    pub fn is_held(&self) -> bool {
        self.verdict == Verdict::Held
    }

    /// Returns what of a kind was seen.
    pub fn of(&self, severity: Severity) -> impl Iterator<Item = &Seen> {
        self.seen
            .iter()
            .filter(move |seen| seen.severity == severity)
    }

    /// Says why the backup is held, one line for each sign, the worst first.
    pub fn reasons(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.of(Severity::Fail).map(Seen::in_words).collect();
        if self.more > 0 {
            lines.push(format!("and {} more", number(self.more)));
        }
        lines
    }

    /// Says in one line why the backup is held: the worst sign, and how many more there are.
    pub fn in_a_line(&self) -> String {
        let mut failed = self.of(Severity::Fail);
        let first = failed.next().map(Seen::in_words).unwrap_or_default();
        match failed.count() as u64 + self.more {
            0 => first,
            more => format!("{first}, and {} more", number(more)),
        }
    }
}

impl Seen {
    /// Says it in words, with the figures.
    pub fn in_words(&self) -> String {
        let table = self.table.as_deref().map_or_else(
            || "a table".to_owned(),
            |name| format!("`{}`", printable(name)),
        );
        let (before, now) = (self.median.unwrap_or(0), self.found.unwrap_or(0));
        let rows = |amount| count(amount, "row");
        let words = match self.sign {
            Sign::TableGone => format!("{table} is gone; it had {}", rows(before)),
            Sign::TableEmpty => format!("{table} is empty; it had {}", rows(before)),
            Sign::RowsLost => format!(
                "{table} has {}, {} fewer than its {}",
                rows(now),
                share(before, now),
                number(before)
            ),
            Sign::AllRowsLost => format!(
                "all tables together have {}, {} fewer than the {} before",
                rows(now),
                share(before, now),
                number(before)
            ),
            Sign::BytesLost => format!(
                "the rows of {table} hold {}, {} less than the {} before",
                bytes(now),
                share(before, now),
                bytes(before)
            ),
            Sign::Slow => format!("the run took {}; usual are {}", took(now), took(before)),
            Sign::Large => format!("the dump has {}; usual are {}", bytes(now), bytes(before)),
            Sign::NewTable => format!("{table} is new, with {}", rows(now)),
            Sign::ColumnsChanged => format!("{table} has other columns"),
            Sign::Grown => format!("{table} grew from {} to {}", number(before), rows(now)),
            Sign::OtherRows => format!(
                "{} with as many rows as before and other ones",
                count(now, "table")
            ),
            Sign::Unknown => format!("{table} shows what a newer pgkeep can tell"),
        };
        match &self.instead {
            Some(other) => format!("{words}; `{}` has exactly these rows", printable(other)),
            None => words,
        }
    }
}

/// Says how much of `before` is lost, in percent, rounded down: all of it is 100 % and nothing else is.
fn share(before: u64, now: u64) -> String {
    let lost = u128::from(before.saturating_sub(now)) * 100;
    format!("{}%", lost / u128::from(before.max(1)))
}

//! What is normal: the last good backups, folded into one table of figures, so that only one of them is in memory at once.

use std::collections::{HashMap, HashSet};

use super::read::{Alike, Earlier};
use super::record::Severity;
use super::rules::bars;
use super::sample::is_large_objects;
use crate::config::Anomaly;
use crate::id::BackupId;
use crate::name::TableName;
use crate::scan::RowDigest;

/// How many backups make what is normal.
pub const BACKUPS: usize = 7;

/// How many there must be before anything is judged: of fewer no median tells what is usual.
pub const LEARNING: usize = 3;

/// What is normal for one database.
#[derive(Debug)]
pub struct Baseline<'r> {
    pub(super) rules: &'r Anomaly,
    alike: Alike,
    pub(super) ids: Vec<BackupId>,
    pub(super) took_ms: Vec<u64>,
    pub(super) dump_bytes: Vec<u64>,
    /// Rows of all tables that are not ignored.
    pub(super) rows: Vec<u64>,
    pub(super) tables: HashMap<TableName, Past>,
    /// Tables whose older figures count no more, because someone accepted newer ones.
    settled: HashSet<TableName>,
    is_all_settled: bool,
    has_accepted: bool,
}

/// What a table was.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Its rows and bytes in each backup that has it, newest first.
    pub points: Vec<(u64, u64)>,
    /// Whether the newest backup has it.
    pub is_in_newest: bool,
    pub columns: Option<u64>,
    pub digest: Option<RowDigest>,
}

impl<'r> Baseline<'r> {
    /// Starts without any backup. Only those that are alike in this will count.
    pub fn new(rules: &'r Anomaly, alike: Alike) -> Self {
        Self {
            rules,
            alike,
            ids: Vec::new(),
            took_ms: Vec::new(),
            dump_bytes: Vec::new(),
            rows: Vec::new(),
            tables: HashMap::new(),
            settled: HashSet::new(),
            is_all_settled: false,
            has_accepted: false,
        }
    }

    /// Tells whether no further backup counts.
    pub fn is_full(&self) -> bool {
        self.ids.len() >= BACKUPS
    }

    /// Tells whether there are too few backups to judge by. One that someone accepted is enough: it was looked at.
    pub fn is_learning(&self) -> bool {
        self.ids.len() < LEARNING && !self.has_accepted
    }

    /// Adds the next older backup, and tells whether it counts. One that was held counts only where someone accepted it,
    /// and then nothing older counts for the tables that it was held for.
    pub fn add(&mut self, id: &BackupId, earlier: Earlier, is_accepted: bool) -> bool {
        let was_held = earlier.was_held();
        if self.is_full() || earlier.alike != self.alike || (was_held && !is_accepted) {
            return false;
        }
        let is_newest = self.ids.is_empty();
        let mut rows: u64 = 0;
        for (table, amounts) in earlier.sample.tables {
            if bars(self.rules, &table).is_none() {
                continue;
            }
            if !is_large_objects(&table) {
                rows = rows.saturating_add(amounts.rows);
            }
            if self.is_all_settled || self.settled.contains(&table) {
                continue;
            }
            let past = self.tables.entry(table).or_default();
            past.points.push((amounts.rows, amounts.bytes));
            if is_newest {
                past.is_in_newest = true;
                (past.columns, past.digest) = (amounts.columns, amounts.digest);
            }
        }
        // What was accepted as a whole makes a new whole.
        if !self.has_accepted {
            self.rows.push(rows);
        }
        self.took_ms.push(earlier.sample.took_ms);
        self.dump_bytes.push(earlier.sample.dump_bytes);
        self.ids.push(id.clone());
        if was_held {
            self.has_accepted = true;
            let record = earlier.anomaly.as_ref();
            self.is_all_settled |= record.is_none_or(|record| record.more > 0);
            let failed = record.into_iter().flat_map(|one| one.of(Severity::Fail));
            let tables = failed.filter_map(|seen| seen.table.as_ref()?.parse().ok());
            self.settled.extend(tables);
        }
        true
    }

    /// Tells whether there are enough figures of a table to judge it by.
    pub(super) fn knows(&self, table: &TableName, past: &Past) -> bool {
        let is_settled = self.is_all_settled || self.settled.contains(table);
        past.points.len() >= LEARNING || is_settled
    }

    /// Tells whether all tables together can be judged.
    pub(super) fn knows_all(&self) -> bool {
        self.rows.len() >= LEARNING || self.has_accepted
    }
}

/// Returns the one in the middle, of an even number the lower one: what is only half usual is not expected. None of none.
pub(super) fn median(values: impl IntoIterator<Item = u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = values.into_iter().collect();
    sorted.sort_unstable();
    let middle = sorted.len().checked_sub(1)? / 2;
    Some(sorted[middle])
}

//! `restore --upsert` and `--data-only`: rows of single tables out of a backup into tables that are there.
//!
//! All is one transaction, and what came in is compared with what was dumped before its COMMIT: a merge that fails, or
//! that only shows what it would do, leaves the target as it was. Of the backup only these tables' bytes are read.

mod run;

pub(super) use run::{Run, no_backup};

use jiff::Timestamp;
use serde::Serialize;

use crate::notify::Delivery;
use pgkeep_model::failure::Failure;

/// How a merge ended. The exit code, the summary and the text come from this value.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup.
    pub backup_id: Option<String>,
    /// The storage that it was read from.
    pub storage: Option<String>,
    /// The target, without secrets.
    pub target: String,
    /// `upsert` or `data-only`.
    pub mode: &'static str,
    /// Whether all was rolled back, as it was asked for.
    pub dry_run: bool,
    /// Whether the rows are in the target.
    pub merged: bool,
    /// Whether the rows were compared with what was dumped.
    pub compared: bool,
    /// Each table, in the order in which they were filled.
    pub tables: Vec<Merged>,
    /// Stored bytes of rows that were read.
    pub read_bytes: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub took_ms: u64,
    /// What was odd.
    pub warnings: Vec<String>,
    /// Who was told, and whether it arrived.
    pub notices: Vec<Delivery>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether it cannot be seen what became of the rows.
    #[serde(skip)]
    pub is_unsure: bool,
}

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct Merged {
    /// Its name in the backup.
    pub table: String,
    /// Its name in the target.
    pub into: String,
    /// Rows that were dumped.
    pub rows: u64,
    /// How many were new, changed and as they were.
    #[serde(flatten)]
    pub counts: pgkeep_model::merge::Counts,
    /// Columns of its key, to read the sample by.
    pub key: Vec<String>,
}

//! `restore --table`: single tables with structure and rows, into a database that may hold others.
//!
//! Structure and rows are one transaction: the rows are compared with what was dumped before its COMMIT, and a failure
//! leaves the target as it was. Where a plain role restores for a superuser, owners and rights follow in a second one,
//! and what the first brought is taken back should that fail. Of a backup only the structure and these tables' rows are read.

mod input;
mod run;

pub(super) use run::{Run, pipe_is_read_once};

use jiff::Timestamp;
use serde::Serialize;

use crate::notify::Delivery;
use pgkeep_model::failure::Failure;
use pgkeep_model::restore::compare::TableOutcome;
use pgkeep_model::single::LeftOut;

/// How it ended. The exit code, the summary and the text come from this value.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup; none for a file.
    pub backup_id: Option<String>,
    /// What was asked for: `latest`, an id, or a file.
    pub source: String,
    /// The storage whose copy was read; none for a file.
    pub storage: Option<String>,
    /// The target, without secrets.
    pub target: String,
    /// Whether all was rolled back, as it was asked for.
    pub dry_run: bool,
    /// Whether the tables are in the target.
    pub restored: bool,
    /// Whether the database was created.
    pub created: bool,
    /// Whether every table with rows was compared with what was dumped.
    pub compared: bool,
    /// Each table, partitions among them.
    pub tables: Vec<Restored>,
    /// Rows of all tables.
    pub rows: u64,
    /// What was made besides, because the tables need it and the target lacked it.
    pub besides: Vec<String>,
    /// What of the tables did not come back.
    pub left_out: Vec<LeftOut>,
    /// Roles that were made.
    pub created_roles: Vec<String>,
    /// Stored bytes that were read, manifest and listing apart.
    pub read_bytes: u64,
    /// The server's version.
    pub server_version: Option<String>,
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
    /// Whether it cannot be seen what became of the tables.
    #[serde(skip)]
    pub is_unsure: bool,
}

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// Its name in the target.
    pub into: String,
    /// How it compares.
    #[serde(flatten)]
    pub outcome: TableOutcome,
}

//! `restore --table`: single tables with structure and rows, into a database that may hold others.
//!
//! All is one transaction: the rows are compared with what was dumped before its COMMIT, and a failure leaves the target
//! as it was. Of a backup only the structure and these tables' rows are read.

mod input;
mod notice;
mod run;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::{Ended, Limits, keep_record};
use crate::context::Context;
use crate::notify::Delivery;
use crate::op::event::Observer;
use crate::op::notices;
use crate::op::stored::{NamedStorage, Wanted};
use crate::postgres::environment::Environment;
use crate::postgres::programs::Search;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::Failure;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::compare::TableOutcome;
use pgkeep_model::single::LeftOut;

/// What to restore, and where to.
pub struct Request {
    /// Where the dump comes from.
    pub source: Source,
    /// Which tables; a partitioned one means its partitions, too.
    pub tables: Vec<TableName>,
    /// Schemas that are called otherwise in the target.
    pub schema_map: Vec<(String, String)>,
    /// The target.
    pub into: Connection,
    /// Where to look for client programs.
    pub search: Search,
    /// What programs may see of the environment.
    pub environment: Environment,
    /// How.
    pub options: Options,
}

/// Where a dump comes from. A pipe can be read only once, which is not enough.
pub enum Source {
    /// A backup.
    Stored {
        /// Where to look.
        storages: Vec<NamedStorage>,
        /// Only this database.
        database: Option<DatabaseName>,
        /// Which backup.
        wanted: Wanted,
    },
    /// A plain dump.
    File(PathBuf),
}

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Roll all back at the end.
    pub dry_run: bool,
    /// Leave owners out.
    pub no_owner: bool,
    /// Leave rights out.
    pub no_privileges: bool,
    /// Create roles that the tables refer to and the server lacks, without login.
    pub create_missing_roles: bool,
    /// Restore as a superuser, with whose powers the dump's SQL then runs.
    pub allow_superuser: bool,
    /// Restore into a server that is older than the dump's.
    pub force_version: bool,
    /// Create the database in locale `C` where the server lacks that of the dump.
    pub force_locale: bool,
    /// Accept a file without an end marker.
    pub accept_no_end_marker: bool,
    /// Do not compare.
    pub no_compare: bool,
    /// How long it may stand still, and wait for somebody else's lock.
    pub limits: Limits,
    /// Time zone that a plain dump was written in.
    pub dump_time_zone: Option<String>,
}

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

/// Restores, and leaves a record of it beside a stored backup.
pub async fn run(request: &Request, context: &Context, observer: &dyn Observer) -> Report {
    let mut report = run::Run::new(request, context, observer).run().await;
    if !report.dry_run {
        let notice = notice::of(&report, context.clock.now());
        report.notices = notices::tell(&notice, context).await;
        let undelivered = notices::undelivered(&report.notices);
        report.warnings.extend(undelivered);
        let good = "the tables are restored";
        notices::settle(&mut report.failure, &report.notices, good, context);
    }
    if let (Source::Stored { storages, .. }, false) = (&request.source, report.dry_run) {
        let ended = Ended {
            backup_id: report.backup_id.as_deref(),
            started_at: report.started_at,
            rows: Some(report.rows),
            target: &report.target,
            notices: &report.notices,
            failure: report.failure.as_ref(),
        };
        keep_record("restore", storages, ended, context).await;
    }
    report
}

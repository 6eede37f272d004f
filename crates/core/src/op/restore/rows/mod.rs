//! `restore --upsert` and `--data-only`: rows of single tables out of a backup into tables that are there.
//!
//! All is one transaction, and what came in is compared with what was dumped before its COMMIT: a merge that fails, or
//! that only shows what it would do, leaves the target as it was. Of the backup only these tables' bytes are read.

mod notice;
mod run;

use jiff::Timestamp;
use serde::Serialize;

use super::{Ended, Limits, keep_record};
use crate::context::Context;
use crate::notify::Delivery;
use crate::op::event::{Event, Observer};
use crate::op::notices;
use crate::op::stored::{NamedStorage, Wanted};
use crate::postgres::environment::Environment;
use crate::postgres::programs::Search;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::Failure;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::merge::Mode;
use pgkeep_model::name::TableName;

/// What to merge, and where to.
pub struct Request {
    /// Where to look for the backup.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// Which backup.
    pub wanted: Wanted,
    /// Which tables; none means every table with rows that has a primary key.
    pub tables: Vec<TableName>,
    /// Schemas that are called otherwise in the target.
    pub schema_map: Vec<(String, String)>,
    /// How rows come in.
    pub mode: Mode,
    /// Whether all is rolled back at the end.
    pub dry_run: bool,
    /// How long it may stand still, and wait for somebody else's lock.
    pub limits: Limits,
    /// The target.
    pub into: Connection,
    /// Where to look for client programs.
    pub search: Search,
    /// What programs may see of the environment.
    pub environment: Environment,
}

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

/// Merges, and tells of it unless it only shows what it would do.
pub async fn run(request: &Request, context: &Context, observer: &dyn Observer) -> Report {
    let mut report = run::Run::new(request, context, observer).run().await;
    observer.note(Event::Ended);
    if request.dry_run {
        return report;
    }
    let notice = notice::of(request, &report, context.clock.now());
    report.notices = notices::tell(&notice, context).await;
    report
        .warnings
        .extend(notices::undelivered(&report.notices));
    notices::settle(
        &mut report.failure,
        &report.notices,
        "the rows are in their tables",
        context,
    );
    let ended = Ended {
        backup_id: report.backup_id.as_deref(),
        started_at: report.started_at,
        rows: Some(report.tables.iter().map(|table| table.rows).sum()),
        target: &report.target,
        notices: &report.notices,
        failure: report.failure.as_ref(),
    };
    keep_record("restore", &request.storages, ended, context).await;
    report
}

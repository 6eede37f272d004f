//! `restore`: puts a dump into a database, and compares what is there then with what was dumped.
//!
//! Exit 0 means that every table is there with its rows. `psql` sees no end of its input before the whole dump was
//! proven, and a restore that fails leaves the target as it was: a database that was made is dropped, a transaction is
//! rolled back, a database that should have been replaced is still in its place.

pub(crate) mod check;
mod create;
pub(crate) mod extensions;
pub(crate) mod feed;
pub(crate) mod leftover;
mod notice;
mod platform;
pub(crate) mod preflight;
mod refusal;
mod restorer;
pub mod rows;
mod run;
mod session;
mod sink;
pub(crate) mod source;
pub(crate) mod stall;
pub(crate) mod swap;
pub mod tables;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::stored::{NamedStorage, Wanted};
use super::{history, notices};
use crate::context::Context;
use crate::encryption::Identities;
use crate::notify::Delivery;
use crate::op::event::{Event, Observer, Silent};
use crate::postgres::environment::Environment;
use crate::postgres::programs::Search;
use pgkeep_model::config::Preset;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Result};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::merge::Mode;
use pgkeep_model::name::TableName;
use pgkeep_model::notice::Notice;
use pgkeep_model::origin::Origin;
use pgkeep_model::restore::compare::TableOutcome;

pub(crate) use restorer::drop_role;
pub use stall::Limits;

/// Id of the failure of a statement that the server refused.
pub(crate) const SQL_FAILED: &str = "restore_sql_failed";

/// Id of a failure in which the server refused a statement of the dump for want of a right, or because of somebody else.
pub(crate) const HINDERED: &str = "restore_hindered";

/// What to restore, and where to.
pub struct Request {
    /// Where the dump comes from.
    pub source: Source,
    /// The database to restore into.
    pub into: Connection,
    /// Where to look for client programs.
    pub search: Search,
    /// What programs may see of the environment.
    pub environment: Environment,
    /// What opens an encrypted file; backups have those of their storages.
    pub identities: Arc<Identities>,
    /// What of the dump.
    pub goal: Goal,
    /// How.
    pub options: Options,
}

/// What of a dump is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// All of it, into a database of its own.
    #[default]
    Whole,
    /// Single tables with their structure.
    Tables(Chosen),
    /// Rows of single tables, into tables that are there.
    Rows(Mode, Chosen),
}

impl Goal {
    /// Refuses a source that this cannot come out of.
    pub fn takes(&self, source: &Source) -> Result<()> {
        match (self, source) {
            (Self::Tables(_), Source::Stdin) => Err(tables::pipe_is_read_once()),
            (Self::Rows(..), Source::File(_) | Source::Stdin) => Err(rows::no_backup()),
            _ => Ok(()),
        }
    }
}

/// Which tables, and what they are called in the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The tables; a partitioned one means its partitions, too. Of rows, none means every table with rows that has a
    /// primary key.
    pub tables: Vec<TableName>,
    /// Schemas that are called otherwise in the target.
    pub schema_map: Vec<(String, String)>,
}

/// Where a dump comes from.
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
    /// A plain dump on standard input.
    Stdin,
}

impl Source {
    /// Says what was asked for: `latest`, an id, a file, or `-`.
    fn words(&self) -> String {
        match self {
            Self::Stored { wanted, .. } => match wanted {
                Wanted::Latest => "latest".to_owned(),
                Wanted::Id(id) => id.to_string(),
            },
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
        }
    }
}

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Roll all back at the end: single tables and rows only.
    pub dry_run: bool,
    /// Restore beside the database and put the copy into its place.
    pub replace: bool,
    /// Replace a database by a backup that holds only some rows of it.
    pub accept_limited: bool,
    /// Accept a dump without an end marker.
    pub accept_no_end_marker: bool,
    /// Restore into a server that is older than the dump's.
    pub force_version: bool,
    /// Create the database in locale `C` where the server lacks that of the dump.
    pub force_locale: bool,
    /// Run the dump's SQL with a superuser's powers.
    pub allow_superuser: bool,
    /// Leave owners out.
    pub no_owner: bool,
    /// Leave rights out.
    pub no_privileges: bool,
    /// Create roles that the dump refers to and the server lacks, without login.
    pub create_missing_roles: bool,
    /// Leave the database's own properties as they are.
    pub no_database_settings: bool,
    /// Whether the database is thrown away again: what its roles may do does not matter.
    pub is_scratch: bool,
    /// Do not compare afterwards.
    pub no_compare: bool,
    /// Time zone that a plain dump was written in; UTC where none is named, as in our own.
    pub dump_time_zone: Option<String>,
    /// Rules of a hosting platform for a dump that does not come with a manifest that tells them.
    pub preset: Option<Preset>,
    /// Extensions that are left out, with the rows of their own tables.
    pub skip_extensions: Vec<String>,
    /// Extensions that are left out where the server lacks them: a hosting platform's own.
    pub dispensable_extensions: Vec<String>,
    /// Put everything into the database's own tablespace.
    pub no_tablespaces: bool,
    /// How long it may stand still.
    pub limits: Limits,
    /// Sessions that restore at once into a fresh database; as many as there are cores where none is given.
    pub jobs: Option<usize>,
    /// Comment of a database that is made, by which it is known later.
    pub tag: Option<String>,
    /// Database to work from first while others are made or renamed.
    pub home: Option<String>,
    /// Where the run comes from.
    pub origin: Origin,
}

impl Options {
    /// Tells whether an extension is left out, whatever the server has.
    fn leaves_out(&self, extension: &str) -> bool {
        self.skip_extensions.iter().any(|name| name == extension)
    }

    /// The time zone of the dump's rows.
    fn time_zone(&self) -> &str {
        self.dump_time_zone.as_deref().unwrap_or("UTC")
    }
}

/// How a restore ended. The exit code, the summary and the text come from this value.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup; none for a file.
    pub backup_id: Option<String>,
    /// What was asked for: `latest`, an id, a file, or `-`.
    pub source: String,
    /// The storage whose copy was restored; none for a file.
    pub storage: Option<String>,
    /// The target, without secrets.
    pub target: String,
    /// Name of the database on the server.
    pub database: Option<String>,
    /// Whether the dump is in its place, proven as far as it was asked for.
    pub restored: bool,
    /// Whether the database was created.
    pub created: bool,
    /// What the restored database took the place of.
    pub replaced: Option<Replaced>,
    /// Statements by which the database got its own properties: owner, rights, comment, settings.
    pub properties_set: Vec<String>,
    /// Whether every table was compared with what was dumped.
    pub compared: bool,
    /// Each table.
    pub tables: Vec<TableOutcome>,
    /// Sessions that restored at once.
    pub jobs: usize,
    /// Rows of all tables.
    pub rows: u64,
    /// Length of the uncompressed dump.
    pub dump_bytes: u64,
    /// The server's version.
    pub server_version: Option<String>,
    /// Extensions that were left out because the server lacks them.
    pub skipped_extensions: Vec<String>,
    /// What was made in the place of a hosting platform's own, because the dump does not hold it.
    pub stand_ins: Vec<String>,
    /// What of a hosting platform's dump was left out and the target does not have.
    pub left_out: Vec<String>,
    /// Materialized views that could not be filled, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unfilled_views: Vec<String>,
    /// Roles that were made.
    pub created_roles: Vec<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took as a whole.
    pub took_ms: u64,
    /// How long until the data was there with its indexes: the recovery time.
    pub restore_ms: u64,
    /// How long the comparison took.
    pub compare_ms: u64,
    /// What was odd.
    pub warnings: Vec<String>,
    /// Who was told, and whether it arrived.
    pub notices: Vec<Delivery>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether it cannot be seen what became of the target.
    #[serde(skip)]
    pub is_unsure: bool,
    /// The plain role that restored a database which is thrown away again, and is dropped with it.
    #[serde(skip)]
    pub(crate) restorer: Option<String>,
    /// Its connection to that database.
    #[serde(skip)]
    pub(crate) reader: Option<Connection>,
}

/// A database that another took the place of.
#[derive(Clone, Debug, Serialize)]
pub struct Replaced {
    /// What it is called now.
    pub kept_as: String,
    /// SQL that puts it back, in order, from another database.
    pub go_back: Vec<String>,
}

impl Report {
    fn new(source: &Source, into: &Connection, started_at: Timestamp) -> Self {
        Self {
            storage: None,
            backup_id: None,
            source: source.words(),
            target: into.label(),
            database: None,
            restored: false,
            created: false,
            replaced: None,
            properties_set: Vec::new(),
            compared: false,
            tables: Vec::new(),
            jobs: 1,
            rows: 0,
            dump_bytes: 0,
            server_version: None,
            skipped_extensions: Vec::new(),
            stand_ins: Vec::new(),
            left_out: Vec::new(),
            unfilled_views: Vec::new(),
            created_roles: Vec::new(),
            started_at,
            took_ms: 0,
            restore_ms: 0,
            compare_ms: 0,
            warnings: Vec::new(),
            notices: Vec::new(),
            failure: None,
            is_unsure: false,
            restorer: None,
            reader: None,
        }
    }
}

/// How a restore ended, whichever kind it was.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Of a whole dump.
    Whole(Box<Report>),
    /// Of single tables.
    Tables(Box<tables::Report>),
    /// Of rows.
    Rows(Box<rows::Report>),
}

/// What the reports of all kinds tell.
struct Told<'a> {
    backup_id: Option<&'a str>,
    target: &'a str,
    started_at: Timestamp,
    took_ms: u64,
    rows: u64,
    tables: usize,
    /// Whether what was asked for is in the target.
    is_there: bool,
    /// Whether that cannot be seen.
    is_unsure: bool,
    /// What is good, in words.
    good: String,
    warnings: &'a mut Vec<String>,
    notices: &'a mut Vec<Delivery>,
    failure: &'a mut Option<Failure>,
}

impl Outcome {
    /// Returns what was odd.
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Whole(report) => &report.warnings,
            Self::Tables(report) => &report.warnings,
            Self::Rows(report) => &report.warnings,
        }
    }

    /// Returns why it failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Whole(report) => report.failure.as_ref(),
            Self::Tables(report) => report.failure.as_ref(),
            Self::Rows(report) => report.failure.as_ref(),
        }
    }
}

impl<'a> From<&'a mut Report> for Told<'a> {
    fn from(report: &'a mut Report) -> Self {
        Self {
            backup_id: report.backup_id.as_deref(),
            target: &report.target,
            started_at: report.started_at,
            took_ms: report.took_ms,
            rows: report.rows,
            tables: report.tables.len(),
            is_there: report.restored,
            is_unsure: report.is_unsure,
            good: format!("{} is restored", report.source),
            warnings: &mut report.warnings,
            notices: &mut report.notices,
            failure: &mut report.failure,
        }
    }
}

impl<'a> From<&'a mut tables::Report> for Told<'a> {
    fn from(report: &'a mut tables::Report) -> Self {
        Self {
            backup_id: report.backup_id.as_deref(),
            target: &report.target,
            started_at: report.started_at,
            took_ms: report.took_ms,
            rows: report.rows,
            tables: report.tables.len(),
            is_there: report.restored,
            is_unsure: report.is_unsure,
            good: "the tables are restored".to_owned(),
            warnings: &mut report.warnings,
            notices: &mut report.notices,
            failure: &mut report.failure,
        }
    }
}

impl<'a> From<&'a mut rows::Report> for Told<'a> {
    fn from(report: &'a mut rows::Report) -> Self {
        Self {
            backup_id: report.backup_id.as_deref(),
            target: &report.target,
            started_at: report.started_at,
            took_ms: report.took_ms,
            rows: report.tables.iter().map(|table| table.rows).sum(),
            tables: report.tables.len(),
            is_there: report.merged,
            is_unsure: report.is_unsure,
            good: "the rows are in their tables".to_owned(),
            warnings: &mut report.warnings,
            notices: &mut report.notices,
            failure: &mut report.failure,
        }
    }
}

/// Restores, sends a notice of it, and leaves a record of it beside a stored backup. A dry run does neither.
pub async fn run(request: &Request, context: &Context, observer: &dyn Observer) -> Outcome {
    match &request.goal {
        Goal::Whole => Outcome::Whole(Box::new(run_whole(request, context, observer).await)),
        Goal::Tables(chosen) => {
            let run = tables::Run::new(request, chosen, context, observer);
            let mut report = run.run().await;
            observer.note(Event::Ended);
            tell_parts(request, Told::from(&mut report), context).await;
            Outcome::Tables(Box::new(report))
        }
        Goal::Rows(mode, chosen) => {
            let run = rows::Run::new(request, *mode, chosen, context, observer);
            let mut report = run.run().await;
            observer.note(Event::Ended);
            tell_parts(request, Told::from(&mut report), context).await;
            Outcome::Rows(Box::new(report))
        }
    }
}

/// Restores a whole dump, whatever the goal says.
pub(crate) async fn run_whole(
    request: &Request,
    context: &Context,
    observer: &dyn Observer,
) -> Report {
    let mut report = carry_out(request, context, observer).await;
    let notice = notice::of_whole(request, &report, context.clock.now());
    tell(request, &notice, Told::from(&mut report), context).await;
    report
}

/// Sends the notice of single tables, or of their rows, and keeps its record.
async fn tell_parts(request: &Request, told: Told<'_>, context: &Context) {
    let notice = notice::of_parts(request, &told, context.clock.now());
    tell(request, &notice, told, context).await;
}

/// Sends the notice of a restore and keeps its record.
async fn tell(request: &Request, notice: &Notice, told: Told<'_>, context: &Context) {
    if request.options.dry_run {
        return;
    }
    *told.notices = notices::tell(notice, context).await;
    told.warnings.extend(notices::undelivered(told.notices));
    notices::settle(told.failure, told.notices, &told.good, context);
    if let Source::Stored { storages, .. } = &request.source {
        let ended = Ended {
            backup_id: told.backup_id,
            started_at: told.started_at,
            rows: Some(told.rows),
            target: told.target,
            notices: told.notices,
            failure: told.failure.as_ref(),
            origin: Some(&request.options.origin),
            recovery_ms: None,
        };
        keep_record("restore", storages, ended, context).await;
    }
}

/// Restores without a record, for a run that leaves one of its own.
pub(crate) async fn carry_out(
    request: &Request,
    context: &Context,
    observer: &dyn Observer,
) -> Report {
    run::Run::new(request, context, observer).run().await
}

/// Tells everything that stands against a restore, and touches nothing. A source that is standard input is not read, and
/// only what holds for any dump is told.
pub(crate) async fn preflight(request: &Request, context: &Context) -> Result<()> {
    run::Run::new(request, context, &Silent).preflight().await
}

/// How a run ended that read one backup.
pub(crate) struct Ended<'a> {
    /// The backup; none where none was found.
    pub backup_id: Option<&'a str>,
    /// When it began.
    pub started_at: Timestamp,
    /// Rows that came back.
    pub rows: Option<u64>,
    /// How long a drill took until the data was there again.
    pub recovery_ms: Option<u64>,
    /// Where they were restored to, without secrets.
    pub target: &'a str,
    /// Who was told, and whether it arrived.
    pub notices: &'a [Delivery],
    /// Why it failed.
    pub failure: Option<&'a Failure>,
    /// Where the run comes from, where it says.
    pub origin: Option<&'a Origin>,
}

impl<'a> From<&'a Report> for Ended<'a> {
    fn from(report: &'a Report) -> Self {
        Self {
            backup_id: report.backup_id.as_deref(),
            started_at: report.started_at,
            rows: Some(report.rows),
            target: &report.target,
            origin: None,
            recovery_ms: None,
            notices: &report.notices,
            failure: report.failure.as_ref(),
        }
    }
}

/// Leaves the record of a run that read one backup. One that found none has no database to leave it with.
pub(crate) async fn keep_record(
    verb: &str,
    storages: &[NamedStorage],
    ended: Ended<'_>,
    context: &Context,
) {
    let backup = ended.backup_id.and_then(|id| id.parse::<BackupId>().ok());
    let new = |id: &BackupId| history::run_id(id.database(), ended.started_at, context);
    let asked = ended.origin.and_then(|origin| origin.run.clone());
    let Some(run) = asked.or_else(|| backup.as_ref().map(new)) else {
        return;
    };
    let mut record = history::record(run, verb, ended.started_at, ended.failure, context);
    if let Some(origin) = ended.origin {
        record = record.from(origin);
    }
    record.backup_id = backup.map(|id| id.to_string());
    record.rows = ended.rows;
    record.recovery_ms = ended.recovery_ms;
    record.undelivered = notices::undelivered(ended.notices);
    record.reason = Some(format!("into {}", ended.target));
    history::keep_record(storages, record, context).await;
}

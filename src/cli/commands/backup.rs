//! `pgkeep backup` on the terminal.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::fleet::{self, DueArgs, Ended as Turned, Worker};
use crate::cli::args::{PresetArg, StorageArgs};
use crate::cli::log::{self, Ended};
use crate::cli::output::{Output, bytes, counted, took};
use crate::cli::progress::Shown;
use crate::cli::screen::Screen;
use crate::cli::steps;
use pgkeep_core::context::Context;
use pgkeep_core::op::backup::{Report, not_started, overall, run as backup};
use pgkeep_core::op::slot;
use pgkeep_core::setup::backup::{Overrides, request_of_one, requests};
use pgkeep_core::setup::{Setup, StorageOverrides};
use pgkeep_core::tracker::Tracked;
use pgkeep_model::anomaly::{AnomalyRecord, Verdict};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Trigger;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep backup                          every database of the configuration
  pgkeep -d shop backup --trigger pre-deploy
  pgkeep backup --storage ./backups --require users --compression zstd
  pgkeep backup --url postgresql:///shop --storage s3://acme-backups/pg

Nothing counts as a backup until all of it is proven: pg_dump exited with 0, the dump has its end marker, required \
tables are in it, and every byte reached the storage.

Without --url and without a configuration, DATABASE_URL or libpq's variables (such as PGHOST and PGSERVICE) name the \
database. Keep passwords out of --url, because other users can read the list of processes. libpq also takes them from \
~/.pgpass or a service file.

A backup made with flags that leave out tables or rows is stored under partial/. It is never chosen as the latest, and \
does not count as fresh.";

/// Flags of `backup`.
#[derive(Debug, Default, Args)]
pub struct BackupArgs {
    /// URL of the database [default: from the configuration, DATABASE_URL or libpq's variables]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub url: Option<String>,
    /// Name of the database in the storages [default: the one in the URL]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// File that holds the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where to store.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// How many storages must take the backup [default: 1]
    #[arg(long, value_name = "N")]
    pub copies: Option<usize>,
    /// Table that must be in the dump, such as users, or users=100 for at least 100 rows (repeatable)
    ///
    /// Other examples: sales.orders, billing."Invoice Lines".
    #[arg(long = "require", value_name = "TABLE")]
    pub required: Vec<String>,
    /// Rules of a hosting service: dump what is the project's own, and leave out what is the platform's
    #[arg(long, value_enum, value_name = "SERVICE", help_heading = "Selection")]
    pub preset: Option<PresetArg>,
    /// Dump only this table (repeatable); names are never patterns
    #[arg(long = "table", value_name = "TABLE", help_heading = "Selection")]
    pub tables: Vec<String>,
    /// Leave this table out (repeatable)
    #[arg(
        long = "exclude-table",
        value_name = "TABLE",
        help_heading = "Selection"
    )]
    pub exclude_tables: Vec<String>,
    /// Dump only this schema (repeatable)
    #[arg(long = "schema", value_name = "SCHEMA", help_heading = "Selection")]
    pub schemas: Vec<String>,
    /// Leave this schema out (repeatable)
    #[arg(
        long = "exclude-schema",
        value_name = "SCHEMA",
        help_heading = "Selection"
    )]
    pub exclude_schemas: Vec<String>,
    /// Dump this table without its rows (repeatable)
    #[arg(
        long = "structure-only",
        value_name = "TABLE",
        help_heading = "Selection"
    )]
    pub structure_only: Vec<String>,
    /// Dump only some rows of a table, and those that others refer to (repeatable)
    ///
    /// Such as events=newest:10000:created_at, images=last:30d:created_at or audit=where:'tenant = 7'.
    #[arg(long = "limit", value_name = "TABLE=LIMIT", help_heading = "Selection")]
    pub limits: Vec<String>,
    /// How many sessions read large tables at once, or auto: one for each core, at most four [default: 1]
    ///
    /// They share one snapshot, and the stored dump is the same. It takes load on the server, and pays where one
    /// connection is slower than the rest.
    #[arg(long, value_name = "N")]
    pub jobs: Option<String>,
    /// gzip, zstd or none, with or without a level, such as zstd:6 [default: gzip]
    ///
    /// Without a level, gzip takes one from 3 to 5 that suits each chunk.
    #[arg(long, value_name = "METHOD[:LEVEL]")]
    pub compression: Option<String>,
    /// Encrypt to this public key of age, such as age1... (repeatable) [default: `encryption` of the configuration]
    #[arg(long = "recipient", value_name = "KEY")]
    pub recipients: Vec<String>,
    /// Also store roles and tablespaces
    #[arg(long)]
    pub globals: bool,
    /// Accept a database without any table
    #[arg(long)]
    pub allow_empty: bool,
    /// Exit with code 3 when pg_dump printed a warning
    #[arg(long)]
    pub strict_warnings: bool,
    /// How long pg_dump waits for a lock [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub lock_wait_timeout: Option<String>,
    /// How long to wait for another run of the same database [default: 0, which exits with code 11]
    #[arg(long, value_name = "TIME")]
    pub lock_timeout: Option<String>,
    /// Stop a dump that has sent nothing for this long; 0 means never [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub stall_timeout: Option<String>,
    /// How often to try, when the cause may pass, such as a lost connection [default: 3]
    #[arg(long, value_name = "N")]
    pub attempts: Option<u32>,
    /// Folder of the PostgreSQL programs
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
    /// Why this run happens [default: manual; with guard: pre-deploy]
    #[arg(long, value_enum)]
    pub trigger: Option<TriggerArg>,
    /// Pin the backup, for this reason: it is kept until it is unpinned
    ///
    /// A backup with the trigger pre-deploy is pinned without this flag, unless the configuration says how many of them
    /// to keep.
    #[arg(long, value_name = "REASON")]
    pub pin: Option<String>,
    /// Go on where the backup is held for what it lost, for this reason, which is recorded; it stays held
    ///
    /// A backup is held when a table is gone or empty, or lost too many rows, against the backups before it. Without this
    /// flag the exit code is then 21.
    #[arg(long, value_name = "REASON")]
    pub allow_anomaly: Option<String>,
    /// Do not prune after the backup
    #[arg(long)]
    pub no_prune: bool,
}

/// Flags of `backup` itself: those of a backup, and what a worker of a fleet is told.
#[derive(Debug, Default, Args)]
pub struct BackupCommand {
    /// How the backup is made.
    #[command(flatten)]
    pub backup: BackupArgs,
    /// What is taken.
    #[command(flatten)]
    pub due: DueArgs,
}

/// Why a run happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TriggerArg {
    /// Someone asked for it
    Manual,
    /// A schedule
    Schedule,
    /// A deployment is about to start
    PreDeploy,
}

impl From<&BackupArgs> for Overrides {
    fn from(args: &BackupArgs) -> Self {
        Self {
            url: args.url.clone(),
            name: args.name.clone(),
            password_file: args.password_file.clone(),
            storage: (&args.storage).into(),
            copies: args.copies,
            required: args.required.clone(),
            preset: args.preset.map(Into::into),
            tables: args.tables.clone(),
            exclude_tables: args.exclude_tables.clone(),
            schemas: args.schemas.clone(),
            exclude_schemas: args.exclude_schemas.clone(),
            structure_only: args.structure_only.clone(),
            limits: args.limits.clone(),
            jobs: args.jobs.clone(),
            compression: args.compression.clone(),
            recipients: args.recipients.clone(),
            globals: args.globals,
            allow_empty: args.allow_empty,
            strict_warnings: args.strict_warnings,
            lock_wait_timeout: args.lock_wait_timeout.clone(),
            lock_timeout: args.lock_timeout.clone(),
            stall_timeout: args.stall_timeout.clone(),
            attempts: args.attempts,
            bin_dir: args.bin_dir.clone(),
            trigger: args.trigger.map(Into::into),
            pin: args.pin.clone(),
            allow_anomaly: args.allow_anomaly.clone(),
            no_prune: args.no_prune,
        }
    }
}

impl From<TriggerArg> for Trigger {
    fn from(trigger: TriggerArg) -> Self {
        match trigger {
            TriggerArg::Manual => Self::Manual,
            TriggerArg::Schedule => Self::Schedule,
            TriggerArg::PreDeploy => Self::PreDeploy,
        }
    }
}

pub(super) async fn run(
    args: &BackupCommand,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    if args.due.due {
        return run_due(args, setup, output, context).await;
    }
    let args = &args.backup;
    let (requests, is_configured) = requests(&args.into(), setup)?;
    let context = &if is_configured {
        setup.telling(context, &StorageOverrides::default())?
    } else {
        context.clone()
    };
    #[cfg(debug_assertions)]
    crate::cli::panic::provoke(setup.var("PGKEEP_TEST_PANIC")).await;
    let mut reports = Vec::new();
    for request in &requests {
        if context.stop.is_requested() {
            reports.push(not_started(request, context).await);
            continue;
        }
        let shown = Shown::new(request.name.as_str(), output);
        let mut tracked = Tracked {
            verb: "backup",
            database: Some(request.name.as_str()),
            backup_id: None,
            is_scheduled: request.trigger == Trigger::Schedule,
            slot: request.origin.slot,
        };
        // A run for a slot begins when nobody else can have it; without one it begins now.
        if tracked.is_scheduled && tracked.slot.is_none() {
            context.tracker.begun(&tracked);
        }
        let report = backup(request, context, &shown).await;
        shown.finish();
        tracked.backup_id = report.backup_id.as_deref();
        slot::tell_end(&tracked, report.failure.as_ref(), context).await;
        print(&report, output, requests.len() > 1);
        log_end(&report);
        reports.push(report);
    }
    tell(&reports, output);
    match overall(&reports) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn tell(reports: &[Report], output: &Output) {
    output.step_summary(|| steps::of_backups(reports));
    output.step_outputs(&steps::outputs_of_backups(reports));
    if output.json {
        output.json_line(&Summary {
            message_type: "summary",
            backups: reports,
        });
    }
}

/// Makes the backups that are due, each with the settings of its database alone.
async fn run_due(
    args: &BackupCommand,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let limit = fleet::limit(&args.backup.limits)?;
    let overrides = Overrides {
        limits: Vec::new(),
        trigger: Some(args.backup.trigger.map_or(Trigger::Schedule, Into::into)),
        ..(&args.backup).into()
    };
    if let Some(flag) = one_off(&overrides) {
        let message =
            format!("`{flag}` is of one backup, and `--due` makes those of the schedules");
        return Err(Failure::new(Kind::Usage, "flags_with_due", message)
            .hint("what a database's backups are like stands in its configuration"));
    }
    let context = &setup.telling(context, &StorageOverrides::default())?;
    let shard = args.due.shard.as_deref();
    let worker = Worker::new("backup", shard, limit, setup, output, context)?;
    let mut reports = Vec::new();
    let work = worker.take_due(async |setup, origin| {
        let mut request = request_of_one(&overrides, setup)?;
        request.origin = origin;
        let shown = Shown::new(request.name.as_str(), output);
        let report = backup(&request, context, &shown).await;
        shown.finish();
        let (id, failure) = (report.backup_id.as_deref(), report.failure.as_ref());
        let ended = Turned::of(&request.origin, id, failure);
        if matches!(ended, Turned::Run { .. }) {
            print(&report, output, false);
            log_end(&report);
            reports.push(report);
        }
        Ok(ended)
    });
    let done = work.await;
    tell(&reports, output);
    done
}

/// Names a flag that makes a backup another one than the schedule means.
fn one_off(overrides: &Overrides) -> Option<&'static str> {
    let others = [
        ("--url", overrides.url.is_some()),
        ("--name", overrides.name.is_some()),
        ("--preset", overrides.preset.is_some()),
        ("--storage", !overrides.storage.storages.is_empty()),
        ("--pin", overrides.pin.is_some()),
    ];
    let mut given = others.into_iter().filter(|(_, is_given)| *is_given);
    overrides
        .gap()
        .or_else(|| given.next().map(|(flag, _)| flag))
}

fn log_end(report: &Report) {
    log::ended(&Ended {
        stage: "backup",
        database: Some(&report.database),
        backup_id: report.backup_id.as_deref().filter(|_| report.stored),
        duration_ms: report.took_ms,
        size_bytes: report.stored.then_some(report.size_bytes),
        failure: report.failure.as_ref(),
    });
}

#[derive(Serialize)]
struct Summary<'a> {
    message_type: &'static str,
    backups: &'a [Report],
}

fn print(report: &Report, output: &Output, is_one_of_many: bool) {
    if output.json {
        return;
    }
    for warning in &report.warnings {
        output.warning(&format!("{}: {}", report.database, warning.message));
    }
    if report.stored && !output.quiet {
        output.data(&text(report, output.screen));
    }
    if is_one_of_many && let Some(failure) = &report.failure {
        output.error(failure);
    }
}

/// Says what the anomaly gate made of the backup, where that is more than that it passed.
fn gate(record: &AnomalyRecord) -> String {
    match record.verdict {
        Verdict::Held => {
            let reasons = record.reasons().into_iter();
            let seen: String = reasons.map(|seen| format!("    {seen}\n")).collect();
            format!("  HELD: it counts for nothing until it is accepted\n{seen}")
        }
        Verdict::NotJudged => {
            let why = record.why.as_deref().unwrap_or_default();
            format!("  not compared with earlier backups: {why}\n")
        }
        Verdict::Passed | Verdict::Learning | Verdict::Unknown => String::new(),
    }
}

pub(super) fn text(report: &Report, screen: Screen) -> String {
    let id = report.backup_id.as_deref().unwrap_or_default();
    let mut out = format!(
        "{id}: {} in {}\n  {}, {}, {} of SQL\n",
        bytes(report.stored_bytes),
        took(report.took_ms),
        counted(report.tables as u64, "table", "tables"),
        counted(report.rows, "row", "rows"),
        bytes(report.dump_bytes),
    );
    for storage in &report.storages {
        let state = if storage.stored {
            "stored"
        } else {
            "NOT stored"
        };
        out += &format!("  {state} in {}\n", storage.url);
    }
    for limit in &report.limits {
        out += &format!("  limited {}\n", limit.in_words());
    }
    if let Some(record) = &report.anomaly {
        out += &gate(record);
    }
    for account in report.prune.iter().flat_map(|prune| &prune.storages) {
        let removed = account
            .remove
            .iter()
            .filter(|line| line.removed == Some(true));
        for line in removed {
            out += &format!(
                "  pruned {} in {}: {}\n",
                line.id,
                account.url,
                line.reasons.join(", ")
            );
        }
        for note in &account.notes {
            out += &format!("  retention in {}: {note}\n", account.url);
        }
    }
    let required = match report.required_tables.len() {
        0 => String::new(),
        1 => ", the required table found".to_owned(),
        count => format!(", all {count} required tables found"),
    };
    let proven = if report.is_findable() {
        "proven"
    } else {
        "stored, but not found again"
    };
    let sha256 = report.sha256.as_deref().unwrap_or_default();
    out += &format!("  {proven}: pg_dump exited with 0, end marker seen{required}\n");
    out += &format!("  SHA-256 {sha256}\n");
    if !report.recipients.is_empty() {
        out += &format!("  encrypted for {}\n", report.recipients.join(", "));
    }
    let restore = report.restore.as_deref().unwrap_or_default();
    screen.fitted(&out)
        + "  restore without pgkeep, in the folder of the file:\n"
        + &screen.command(restore, 4)
}

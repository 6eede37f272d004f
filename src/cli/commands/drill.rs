//! `pgkeep drill` on the terminal.

mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::fleet::{Ended as Turned, OldestArgs, Worker};
use super::restore::text::left_to_the_platform;
use crate::cli::args::StorageArgs;
use crate::cli::log::{self, Ended};
use crate::cli::output::{Output, bytes, counted, took};
use crate::cli::progress::Shown;
use crate::cli::steps;
use page::page;
use pgkeep_core::context::Context;
use pgkeep_core::op::drill::{Report, Request, overall, run as drill};
use pgkeep_core::op::slot;
use pgkeep_core::setup::drill::{Overrides, request, requests};
use pgkeep_core::setup::{Setup, StorageOverrides};
use pgkeep_core::tracker::Tracked;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::BackupId;
use pgkeep_model::name::printable;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep drill                           the latest backup, on a throw-away server
  pgkeep drill latest --html report.html
  pgkeep drill --drill-url postgresql://drill@localhost/postgres

drill restores a backup into a scratch database, compares every table, and checks the assertions of the configuration. \
Then it drops everything that it created, roles included.

Exit code 0: every table has the rows that were dumped, and every assertion holds. 23: one does not.";

/// Flags of `drill`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: String,
    /// Drill the latest backup of every database, one after another
    #[arg(long, conflicts_with_all = ["id", "html"])]
    pub all: bool,
    /// Server to restore into [default: `drill.url` of the configuration, else a throw-away server]
    #[arg(
        long,
        value_name = "URL",
        env = "PGKEEP_DRILL_URL",
        hide_env_values = true
    )]
    pub drill_url: Option<String>,
    /// Also leave out this extension, with the rows of its own tables (repeatable)
    #[arg(long = "skip-extension", value_name = "NAME")]
    pub skip_extensions: Vec<String>,
    /// Run the SQL of the dump as a superuser [default: with a new role without such rights]
    #[arg(long)]
    pub allow_superuser: bool,
    /// Also write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Folder of the PostgreSQL programs
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Which of many.
    #[command(flatten)]
    pub oldest: OldestArgs,
}

impl From<&DrillArgs> for Overrides {
    fn from(args: &DrillArgs) -> Self {
        Self {
            id: Some(args.id.clone()),
            all: args.all,
            drill_url: args.drill_url.clone(),
            skip_extensions: args.skip_extensions.clone(),
            allow_superuser: args.allow_superuser,
            bin_dir: args.bin_dir.clone(),
            storage: (&args.storage).into(),
        }
    }
}

pub(super) async fn run(
    args: &DrillArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    if args.oldest.oldest {
        return run_oldest(args, setup, output, context).await;
    }
    let requests = requests(&args.into(), setup, context.clock.now()).await?;
    let context = &setup.telling(context, &(&args.storage).into())?;
    let mut reports = Vec::new();
    for request in &requests {
        let report = one(request, output, context).await;
        if let Some(failure) = report.failure.as_ref().filter(|_| requests.len() > 1)
            && !output.json
        {
            output.error(failure);
        }
        reports.push(report);
        if context.stop.is_requested() {
            break;
        }
    }
    let written = match (args.html.as_deref(), reports.first()) {
        (Some(file), Some(report)) => write_page(file, report),
        _ => Ok(()),
    };
    match overall(&reports) {
        Some(failure) => Err(failure),
        None => written,
    }
}

/// Drills those that were drilled longest ago, each with the settings of its database alone.
async fn run_oldest(
    args: &DrillArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let context = &setup.telling(context, &StorageOverrides::default())?;
    let limit = args.oldest.limit.unwrap_or(1) as usize;
    let shard = args.oldest.shard.as_deref();
    let worker = Worker::new("drill", shard, Some(limit), setup, output, context)?;
    let drilled = worker.take_oldest(async |setup, origin| {
        let mut request = request(&args.into(), setup)?;
        request.lock = Some(setup.lock(Duration::ZERO)?);
        request.origin = origin;
        let report = carry_out(&request, output, context).await;
        let (id, failure) = (report.backup_id.as_deref(), report.failure.as_ref());
        Ok(Turned::of(&request.origin, id, failure))
    });
    drilled.await
}

async fn one(request: &Request, output: &Output, context: &Context) -> Report {
    let report = carry_out(request, output, context).await;
    let backup = report.backup_id.as_deref();
    let of_backup = backup.and_then(|id| Some(id.parse::<BackupId>().ok()?.database().clone()));
    // Where nothing names the database, the end of the command knows more.
    if let Some(database) = request.database.as_ref().or(of_backup.as_ref()) {
        let tracked = Tracked {
            verb: "drill",
            database: Some(database.as_str()),
            backup_id: backup,
            is_scheduled: false,
            slot: None,
        };
        slot::tell_end(&tracked, report.failure.as_ref(), context).await;
    }
    report
}

async fn carry_out(request: &Request, output: &Output, context: &Context) -> Report {
    let shown = Shown::new("drill", output);
    let report = drill(request, context, &shown).await;
    shown.finish();
    log::ended(&Ended {
        stage: "drill",
        backup_id: report.backup_id.as_deref(),
        duration_ms: report.took_ms,
        failure: report.failure.as_ref(),
        ..Ended::default()
    });
    output.step_summary(|| steps::of_drill(&report));
    output.summary(&report, &report.warnings, || {
        report.backup_id.is_some().then(|| text(&report))
    });
    report
}

fn write_page(file: &Path, report: &Report) -> Result<()> {
    fs::write(file, page(report)).map_err(|error| {
        let message = format!("cannot write the report to `{}`: {error}", file.display());
        Failure::new(Kind::AfterGood, "cannot_write", message)
    })
}

pub(super) fn text(report: &Report) -> String {
    let id = report.backup_id.as_deref().unwrap_or_default();
    let verdict = if report.passed {
        "drill passed"
    } else {
        "drill FAILED"
    };
    let mut out = format!("{id}: {verdict}\n");
    if let Some(restore) = &report.restore {
        out += &left_to_the_platform(restore);
    }
    let version = report
        .server_version
        .as_deref()
        .unwrap_or("an unknown version");
    out += &format!("  restored into {}, PostgreSQL {version}\n", report.server);
    if let Some(restore) = report.restore.as_ref().filter(|restore| restore.compared) {
        let different = restore
            .tables
            .iter()
            .filter(|table| table.problem.is_some())
            .count();
        out += &format!(
            "  recovery time {}: {} of {}, {} of SQL\n",
            took(report.recovery_ms()),
            counted(restore.rows, "row", "rows"),
            counted(restore.tables.len() as u64, "table", "tables"),
            bytes(restore.dump_bytes)
        );
        out += &match different {
            0 => "  compared: every table is as dumped\n".to_owned(),
            1 => "  compared: 1 table is NOT as dumped\n".to_owned(),
            many => format!("  compared: {many} tables are NOT as dumped\n"),
        };
    }
    for assertion in &report.assertions {
        let verdict = if assertion.passed { "holds" } else { "FAILS" };
        out += &format!(
            "  {verdict}: {} ({}; {})\n",
            printable(&assertion.name),
            printable(&assertion.expected),
            assertion.found
        );
    }
    if !report.noted_in.is_empty() {
        out += &format!("  recorded in {}\n", report.noted_in.join(", "));
    }
    out + &format!("  took {} in all\n", took(report.took_ms))
}

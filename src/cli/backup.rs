//! `pgkeep backup` on the terminal.

use serde::Serialize;

use super::args::{BackupArgs, TriggerArg};
use super::log::{self, Ended};
use super::output::{Output, bytes, number};
use super::progress::Shown;
use super::steps;
use pgkeep_core::context::Context;
use pgkeep_core::op::backup::{Report, not_started, overall, run as backup};
use pgkeep_core::setup::backup::{Overrides, requests};
use pgkeep_core::setup::{Setup, StorageOverrides};
use pgkeep_model::failure::Result;
use pgkeep_model::manifest::Trigger;

pub(super) async fn run(
    args: &BackupArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let (requests, is_configured) = requests(&args.into(), setup)?;
    let context = &if is_configured {
        setup.telling(context, &StorageOverrides::default())?
    } else {
        context.clone()
    };
    #[cfg(debug_assertions)]
    super::panic::provoke(setup.var("PGKEEP_TEST_PANIC")).await;
    let mut reports = Vec::new();
    for request in &requests {
        if context.stop.is_requested() {
            reports.push(not_started(request, context).await);
            continue;
        }
        let shown = Shown::new(request.name.as_str(), output);
        let report = backup(request, context, &shown).await;
        shown.finish();
        print(&report, output, requests.len() > 1);
        log_end(&report);
        reports.push(report);
    }
    output.step_summary(|| steps::of_backups(&reports));
    output.step_outputs(&steps::outputs_of_backups(&reports));
    if output.json {
        output.json_line(&Summary {
            message_type: "summary",
            backups: &reports,
        });
    }
    match overall(&reports) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
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

impl From<TriggerArg> for Trigger {
    fn from(trigger: TriggerArg) -> Self {
        match trigger {
            TriggerArg::Manual => Self::Manual,
            TriggerArg::Schedule => Self::Schedule,
            TriggerArg::PreDeploy => Self::PreDeploy,
        }
    }
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
            compression: args.compression.clone(),
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
            no_prune: args.no_prune,
        }
    }
}

fn print(report: &Report, output: &Output, is_one_of_many: bool) {
    if output.json {
        return;
    }
    for warning in &report.warnings {
        output.warning(&format!("{}: {}", report.database, warning.message));
    }
    if report.stored && !output.quiet {
        output.data(&text(report));
    }
    if is_one_of_many && let Some(failure) = &report.failure {
        output.error(failure);
    }
}

pub(super) fn text(report: &Report) -> String {
    let id = report.backup_id.as_deref().unwrap_or_default();
    let seconds = report.took_ms as f64 / 1000.0;
    let mut out = format!(
        "{id}: {} tables, {} rows, {} of SQL stored as {} in {seconds:.1} s\n",
        number(report.tables as u64),
        number(report.rows),
        bytes(report.dump_bytes),
        bytes(report.size_bytes),
    );
    for storage in &report.storages {
        let state = if storage.stored { "stored" } else { "FAILED" };
        out += &format!("  {state} in {}\n", storage.url);
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
    }
    let required = report.required_tables.len();
    let required = match required {
        0 => String::new(),
        1 => ", the required table found".to_owned(),
        _ => format!(", all {required} required tables found"),
    };
    let sha256 = report.sha256.as_deref().unwrap_or_default();
    out +=
        &format!("  proven: pg_dump exited with 0, end marker seen{required}, SHA-256 {sha256}\n");
    out += &format!(
        "  restore: {}\n",
        report.restore.as_deref().unwrap_or_default()
    );
    out
}

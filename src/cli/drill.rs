//! `pgkeep drill` on the terminal.

use std::fs;
use std::path::Path;

use super::args::DrillArgs;
use super::drill_page::page;
use super::log::{self, Ended};
use super::output::{Output, bytes, number};
use super::progress::Shown;
use super::restored::left_to_the_platform;
use super::steps;
use pgkeep_core::context::Context;
use pgkeep_core::op::drill::{Report, run as drill};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::drill::{Overrides, request};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::printable;

pub(super) async fn run(
    args: &DrillArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup)?;
    let context = &setup.telling(context, &(&args.storage).into())?;
    let shown = Shown::new("drill", output);
    let report = drill(&request, context, &shown).await;
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
    let written = args
        .html
        .as_deref()
        .map_or(Ok(()), |file| write_page(file, &report));
    match report.failure {
        Some(failure) => Err(failure),
        None => written,
    }
}

impl From<&DrillArgs> for Overrides {
    fn from(args: &DrillArgs) -> Self {
        Self {
            id: Some(args.id.clone()),
            drill_url: args.drill_url.clone(),
            skip_extensions: args.skip_extensions.clone(),
            allow_superuser: args.allow_superuser,
            bin_dir: args.bin_dir.clone(),
            storage: (&args.storage).into(),
        }
    }
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
    let seconds = |ms: u64| ms as f64 / 1000.0;
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
            "  recovery time {:.1} s: {} rows of {} tables, {} of SQL\n",
            seconds(report.recovery_ms()),
            number(restore.rows),
            number(restore.tables.len() as u64),
            bytes(restore.dump_bytes)
        );
        out += &match different {
            0 => "  compared: every table is as it was dumped\n".to_owned(),
            _ => format!("  compared: {different} tables are NOT as they were dumped\n"),
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
        out += &format!("  noted in {}\n", report.noted_in.join(", "));
    }
    out + &format!("  took {:.1} s as a whole\n", seconds(report.took_ms))
}

//! `pgkeep sync` on the terminal.

use clap::Args;
use serde::Serialize;

use super::prune::not_begun;
use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes, counted, number};
use crate::cli::progress::Shown;
use pgkeep_core::context::Context;
use pgkeep_core::op::prune::worst;
use pgkeep_core::op::sync::{CopyLine, Report, Swept, run as sync};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::sync::{Overrides, lock, requests};
use pgkeep_model::failure::Result;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep sync --dry-run                  what is missing where, and how many bytes that is
  pgkeep sync
  pgkeep sync --verify                   read every copy first, and replace what is damaged
  pgkeep sync --storage ./backups --storage s3://acme-backups/pg

sync brings every backup that retention keeps to each storage of the database that lacks it, or has it damaged. Each copy \
comes from a storage whose bytes have the SHA-256 of the manifest. Then sync removes what dead runs left behind, older \
than a day. A run that was stopped is completed by the next one.

Without --verify a copy counts as damaged when `verify` marked it, or when the listing shows that an object is missing or \
has another size.

Exit code 23: no storage has a good copy of some backup. 22: a storage failed.";

/// Flags of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Show what would be copied and removed, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Read every copy, and not only the listings
    #[arg(long)]
    pub verify: bool,
    /// How long to wait for another run of the same database [default: 0, which exits with code 11]
    #[arg(long, value_name = "TIME")]
    pub lock_timeout: Option<String>,
    /// The storages.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&SyncArgs> for Overrides {
    fn from(args: &SyncArgs) -> Self {
        Self {
            dry_run: args.dry_run,
            verify: args.verify,
            lock_timeout: args.lock_timeout.clone(),
            storage: (&args.storage).into(),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    dry_run: bool,
    databases: &'a [Report],
}

pub(super) async fn run(
    args: &SyncArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let overrides = args.into();
    let lock = lock(&overrides, setup)?;
    let mut reports = Vec::new();
    for opened in requests(&overrides, setup).await? {
        let report = match opened {
            Ok(request) if context.stop.is_requested() => {
                let failure = not_begun("sync", &request.database, context);
                Report::failed(&request.database, args.dry_run, failure)
            }
            Ok(request) => {
                // One document follows on standard output.
                let shown = Shown::new(request.database.as_str(), output).beside_data();
                let report = sync(&request, &lock, context, &shown).await;
                shown.finish();
                report
            }
            Err((database, failure)) => Report::failed(&database, args.dry_run, failure),
        };
        for warning in &report.warnings {
            output.warning(&format!("{}: {}", report.database, warning.message));
        }
        reports.push(report);
    }
    let document = Document {
        dry_run: args.dry_run,
        databases: &reports,
    };
    output.report(&document, || reports.iter().map(text).collect());
    let failures = reports.into_iter().filter_map(|report| report.failure);
    worst(failures.collect()).map_or(Ok(()), Err)
}

fn text(report: &Report) -> String {
    let storages = report.storages.iter();
    let swept: String = storages.map(|swept| storage_text(swept, report)).collect();
    copies_text(report) + &swept
}

fn copies_text(report: &Report) -> String {
    let kept = counted(report.kept, "backup is kept", "backups are kept");
    let mut out = format!("{}: {kept}", report.database);
    let lines = &report.copies;
    let lacking = counted(lines.len() as u64, "copy", "copies");
    out += &match (lines.is_empty(), report.dry_run) {
        (true, _) if report.lost.is_empty() && report.failure.is_none() => {
            ", in every storage\n".to_owned()
        }
        (true, _) => "\n".to_owned(),
        (false, true) => format!("; would bring {lacking}, {}\n", bytes(report.copied_bytes)),
        (false, false) => {
            let brought = lines.iter().filter(|line| line.copied).count();
            let size = bytes(report.copied_bytes);
            format!(
                "; brought {} of {lacking}, {size}\n",
                number(brought as u64)
            )
        }
    };
    lines
        .iter()
        .for_each(|line| out += &copy_line(line, report.dry_run));
    for lost in &report.lost {
        out += &format!("  NO GOOD COPY: {}\n", lost.id);
        lost.copies
            .iter()
            .for_each(|why| out += &format!("    {why}\n"));
    }
    out
}

fn copy_line(line: &CopyLine, is_dry_run: bool) -> String {
    let state = match (&line.error, is_dry_run) {
        (_, true) => "would bring",
        (Some(_), false) => "NOT brought",
        (None, false) if line.copied => "brought",
        (None, false) => "NOT brought (the run ended before)",
    };
    let from = line
        .from
        .as_ref()
        .map_or_else(String::new, |from| format!(" from {from}"));
    let (size, why) = (bytes(line.size_bytes), &line.why);
    let error = match &line.error {
        Some(error) => format!("\n    {error}"),
        None => String::new(),
    };
    format!(
        "  {state}: {} to {}{from}, {size}: {why}{error}\n",
        line.id, line.storage
    )
}

fn storage_text(swept: &Swept, report: &Report) -> String {
    let mut out = format!("{} in {}\n", report.database, swept.url);
    for orphan in &swept.orphans {
        let state = match (&orphan.error, report.dry_run) {
            (_, true) => "would remove".to_owned(),
            (Some(error), false) => format!("NOT removed ({error})"),
            (None, false) if orphan.removed => "removed".to_owned(),
            (None, false) => "NOT removed (the run ended before)".to_owned(),
        };
        let size = bytes(orphan.size_bytes);
        out += &format!("  {state}: {}, {size}, no manifest\n", orphan.id);
    }
    for id in &swept.young {
        out += &format!("  kept for a day: {id}, which has no manifest yet\n");
    }
    for warning in &swept.warnings {
        out += &format!("  warning: {warning}\n");
    }
    if swept.unfinished > 0 {
        let uploads = counted(swept.unfinished, "unfinished upload", "unfinished uploads");
        out += &format!("  removed {uploads}\n");
    }
    if swept.orphans.is_empty() && swept.unfinished == 0 && swept.error.is_none() {
        out += "  nothing to remove\n";
    }
    out
}

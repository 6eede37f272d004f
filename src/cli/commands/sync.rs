//! `pgkeep sync` on the terminal.

use clap::Args;
use serde::Serialize;

use super::prune::not_begun;
use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes, counted};
use pgkeep_core::context::Context;
use pgkeep_core::op::prune::worst;
use pgkeep_core::op::sync::{Report, Swept, run as sync};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::sync::{Overrides, lock, requests};
use pgkeep_model::failure::Result;

/// Flags of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for another run of the same database [default: 0, which exits with code 11]
    #[arg(long, value_name = "TIME")]
    pub lock_timeout: Option<String>,
    /// Where to sweep.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&SyncArgs> for Overrides {
    fn from(args: &SyncArgs) -> Self {
        Self {
            dry_run: args.dry_run,
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
            Ok(request) => sync(&request, &lock, context).await,
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
    storages.map(|swept| storage_text(swept, report)).collect()
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

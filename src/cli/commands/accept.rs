//! `pgkeep accept` on the terminal.

use clap::Args;

use crate::cli::args::StorageArgs;
use crate::cli::output::Output;
use pgkeep_core::context::Context;
use pgkeep_core::op::accept::{Report, run as accept};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::accept::{Overrides, request};
use pgkeep_model::failure::Result;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep accept shop-20260102T030405Z-7f3a 'the orders before 2020 were archived'
  pgkeep accept latest 'the table of sessions was emptied' --table sessions
  pgkeep accept latest 'looked at, and the rows are back' --older

A backup is held when a table is gone or empty, or lost too many rows, against the backups before it. Accepting it makes it \
the new normal: retention counts it, prune no longer waits for it, and the next backups are compared with it. Who accepted \
it, when and why is stored beside the backup.

Backups that were held before it stay as they are, unless --older accepts them, too: then retention decides about them.

With --table, every table that the backup is held for must be named; otherwise nothing is accepted, and the exit code is 25.";

/// Flags of `accept`.
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why it is as it should be, for anyone who finds it later
    #[arg(value_name = "REASON")]
    pub reason: String,
    /// Accept it only if it is held for this table and no other that is not named (repeatable)
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Also accept every older backup of the database that is held
    #[arg(long = "older")]
    pub and_older: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&AcceptArgs> for Overrides {
    fn from(args: &AcceptArgs) -> Self {
        Self {
            id: args.id.clone(),
            reason: args.reason.clone(),
            tables: args.tables.clone(),
            and_older: args.and_older,
            storage: (&args.storage).into(),
        }
    }
}

pub(super) async fn run(
    args: &AcceptArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let report = accept(request(&args.into(), setup)?, context).await?;
    output.document(&report, || output.screen.fitted(&text(&report)));
    for warning in &report.warnings {
        output.warning(warning);
    }
    if let Some(first) = report.still_held.first() {
        let count = report.still_held.len();
        let (noun, verb) = if count == 1 {
            ("backup", "is")
        } else {
            ("backups", "are")
        };
        output.note(&format!(
            "{count} more {noun} of the database {verb} still held, such as `{first}`; `--older` accepts those before it, too"
        ));
    }
    report.failure.map_or(Ok(()), Err)
}

fn text(report: &Report) -> String {
    let id = &report.id;
    let by = report.by.as_deref().unwrap_or("someone");
    let reason = report.reason.as_deref().unwrap_or_default();
    let older: String = report
        .older
        .iter()
        .map(|older| format!("{older} is accepted, too\n"))
        .collect();
    let own = match (report.is_own_new && report.changed, &report.by) {
        (true, _) => {
            let lines = report.seen.iter().map(|seen| format!("  {seen}\n"));
            let seen: String = lines.collect();
            format!("{id} is accepted and the new normal: {reason}\n{seen}")
        }
        (false, Some(_)) => format!("{id} was accepted by {by} before: {reason}\n"),
        (false, None) => format!("{id} is not held\n"),
    };
    own + &older
}

//! `pgkeep pin` and `pgkeep unpin` on the terminal.

use clap::Args;

use crate::cli::args::StorageArgs;
use crate::cli::output::Output;
use pgkeep_core::context::Context;
use pgkeep_core::op::pin::{Request, run as pin};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::pin::{Overrides, request, request_to_unpin};
use pgkeep_model::failure::Result;

/// Flags of `pin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why it is kept, for anyone who finds it later
    #[arg(value_name = "REASON")]
    pub reason: String,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `unpin`.
#[derive(Debug, Args)]
pub struct UnpinArgs {
    /// Id of the backup
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&PinArgs> for Overrides {
    fn from(args: &PinArgs) -> Self {
        Self {
            id: Some(args.id.clone()),
            storage: (&args.storage).into(),
        }
    }
}

impl From<&UnpinArgs> for Overrides {
    fn from(args: &UnpinArgs) -> Self {
        Self {
            id: Some(args.id.clone()),
            storage: (&args.storage).into(),
        }
    }
}

pub(super) async fn run(
    args: &PinArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), &args.reason, setup)?;
    pin_or_unpin(request, output, context).await
}

pub(super) async fn run_unpin(
    args: &UnpinArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request_to_unpin(&args.into(), setup)?;
    pin_or_unpin(request, output, context).await
}

async fn pin_or_unpin(request: Request, output: &Output, context: &Context) -> Result<()> {
    let reason = request.reason.clone();
    let report = pin(request, context).await?;
    output.document(&report, || {
        let id = &report.id;
        let why = report.reason.as_deref().unwrap_or_default();
        match (report.pinned, report.changed) {
            (true, true) => format!("{id} is pinned: {why}\n"),
            (true, false) => format!("{id} was already pinned: {why}\n"),
            (false, true) => {
                format!("{id} is no longer pinned; the retention policy decides about it\n")
            }
            (false, false) => format!("{id} was not pinned\n"),
        }
    });
    for warning in &report.warnings {
        output.warning(warning);
    }
    if !report.changed && report.pinned && report.reason != reason {
        output.note(&format!(
            "the earlier reason is kept; to give another one, run `pgkeep unpin {}` first",
            report.id
        ));
    }
    report.failure.map_or(Ok(()), Err)
}

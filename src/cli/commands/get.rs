//! `pgkeep get` on the terminal.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes};
use pgkeep_core::context::Context;
use pgkeep_core::op::get::{Output as Place, run as get};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::stored::{Overrides, get as request};
use pgkeep_model::failure::Result;

/// Flags of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: String,
    /// File to write; - is standard output [default: the object's name, in the current folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Download roles and tablespaces instead of the dump
    #[arg(long)]
    pub globals: bool,
    /// Decrypt it; the file stays compressed
    #[arg(long)]
    pub decrypt: bool,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&GetArgs> for Overrides {
    fn from(args: &GetArgs) -> Self {
        Self {
            id: Some(args.id.clone()),
            storage: (&args.storage).into(),
            output: args.output.clone(),
            globals: args.globals,
            force: args.force,
            decrypt: args.decrypt,
        }
    }
}

pub(super) async fn run(
    args: &GetArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup)?;
    let is_stdout = matches!(request.output, Place::Stdout);
    let report = get(request, context).await?;
    report
        .warnings
        .iter()
        .for_each(|warning| output.warning(warning));
    if !is_stdout {
        output.report(&report, || {
            let file = report.file.as_deref().unwrap_or_default();
            let (size, sha256) = (bytes(report.size_bytes), &report.sha256);
            if report.decrypted {
                format!(
                    "{file}: decrypted\n  stored as {size}, SHA-256 {sha256}, as in the manifest\n"
                )
            } else {
                format!("{file}: {size}, as in the manifest\n  SHA-256 {sha256}\n")
            }
        });
    }
    report.failure.map_or(Ok(()), Err)
}

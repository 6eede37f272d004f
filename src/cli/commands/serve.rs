//! `serve`: schedules, the page and the HTTP API.

use clap::Args;

use crate::cli::output::Output;
use pgkeep_core::context::Context;
use pgkeep_core::setup::Setup;
use pgkeep_model::failure::Result;
use pgkeep_serve::Options;

pub(super) const AFTER_HELP: &str = "\
Runs what the configuration schedules, and shows whether you could restore now. Nothing is stored beside the backups: two
servers on the same storages share the work, and one that was killed is told by its lease.

Examples:
  pgkeep serve                                  on http://127.0.0.1:8080/, for this machine alone
  pgkeep serve --listen 0.0.0.0:8080            for others, who need a token of `server.tokens`
  pgkeep serve --base-path /backups             behind a proxy that passes /backups on
  pgkeep serve --watch                          only looks: for a key that may read the storages and no more

The API is described by /api/v1/openapi.json; /healthz, /readyz and /metrics are for monitors.";

/// Run the schedules, with a page and an HTTP API
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address and port to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Path that the page begins at, behind a proxy
    #[arg(long, value_name = "PATH")]
    pub base_path: Option<String>,
    /// Only look: start nothing, change nothing
    #[arg(long)]
    pub watch: bool,
}

impl From<&ServeArgs> for Options {
    fn from(args: &ServeArgs) -> Self {
        Self {
            listen: args.listen.clone(),
            base_path: args.base_path.clone(),
            is_watch_only: args.watch,
        }
    }
}

pub(super) async fn run(
    args: &ServeArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let told = |address: &str| output.say(&format!("listening on {address}"));
    pgkeep_serve::run(&args.into(), setup, context, told).await
}

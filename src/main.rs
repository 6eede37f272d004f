//! The `pgkeep` program.

use std::process::ExitCode;
use std::sync::Arc;

use pgkeep::cli;
use pgkeep::clock::SystemClock;
use pgkeep::context::Context;

fn main() -> ExitCode {
    let context = Context::new(Arc::new(SystemClock));
    cli::run(std::env::args_os().collect::<Vec<_>>(), context)
}

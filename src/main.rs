//! The `pgkeep` program.

use std::process::ExitCode;
use std::sync::Arc;

use pgkeep::cli;
use pgkeep_core::clock::SystemClock;
use pgkeep_core::context::Context;

fn main() -> ExitCode {
    let context = Context::new(Arc::new(SystemClock));
    cli::run(std::env::args_os().collect::<Vec<_>>(), context)
}

//! The `pgkeep` program.

use std::process::ExitCode;
use std::sync::Arc;

use pgkeep::cli;
use pgkeep::clock::SystemClock;
use pgkeep::context::{Context, Stop};

fn main() -> ExitCode {
    let context = Context {
        clock: Arc::new(SystemClock),
        stop: Stop::default(),
    };
    cli::run(std::env::args_os().collect::<Vec<_>>(), context)
}

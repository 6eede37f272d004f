//! The terminal's front door: reads the command line, calls one operation, prints its report.
//!
//! Standard output carries data only, everything else goes to standard error; with `--json` the data is JSON and an
//! error ends standard error as one object.

pub mod args;
mod inspect;
mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::context::Context;
use crate::failure::{Failure, Kind};
use args::{Cli, Command};
use output::Output;

/// Parses the command line, carries it out and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString> + Clone, context: Context) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments.clone()) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, arguments),
    };
    output::start_log(&cli.global);
    let output = Output::new(&cli.global);
    let result = dispatch(&cli, &context, &output);
    output.exit(result)
}

fn dispatch(cli: &Cli, _context: &Context, output: &Output) -> Result<(), Failure> {
    match &cli.command {
        Command::Inspect(args) => inspect::run(args, output),
        _ => Err(Failure::new(Kind::Usage, "todo", "x")),
    }
}

/// Prints what clap has to say; with `--json` an error is one object.
fn refuse(error: &clap::Error, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let wants_json = arguments.into_iter().any(|argument| argument == "--json");
    if is_help || !wants_json {
        let _ = error.print(); // a closed terminal changes no exit code
        let code = if is_help { 0 } else { Kind::Usage.exit_code() };
        return ExitCode::from(code);
    }
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    output::print_error_json(&Failure::new(Kind::Usage, "usage", message));
    ExitCode::from(Kind::Usage.exit_code())
}

//! The terminal's front door: reads the command line, calls one operation, prints its report.
//!
//! Standard output carries data only, everything else goes to standard error; with `--json` the data is JSON and an
//! error ends standard error as one object.

pub mod args;
mod backup;
mod calendar;
mod config;
mod credentials;
mod demo;
mod inspect;
mod output;
mod progress;
mod retention;
mod settings;
mod stored;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};

use crate::context::{Context, Stop};
use crate::failure::{Failure, Kind};
use args::{Cli, Command};
use output::Output;
use settings::Settings;

/// How long background work may still take when a command is done.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

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

fn dispatch(cli: &Cli, context: &Context, output: &Output) -> Result<(), Failure> {
    let settings = Settings::new(&cli.global, output);
    // Reading a file needs no runtime.
    match &cli.command {
        Command::Inspect(args) => return inspect::run(args, output),
        Command::Retention(args) => return retention::run(args, &settings, output, context),
        Command::Config(command) => return config::run(command, &settings, output),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Kind::Unexpected,
                "no_runtime",
                format!("cannot start: {error}"),
            )
        })?;
    let result = runtime.block_on(async {
        listen_for_signals(context.stop.clone())?;
        let run = async { match &cli.command {
            Command::Backup(args) => backup::run(args, &settings, output, context).await,
            Command::List(args) => stored::run_list(args, &settings, output, context).await,
            Command::Show(args) => stored::run_show(args, &settings, output).await,
            Command::Get(args) => stored::run_get(args, &settings, output, context).await,
            Command::Demo(args) => demo::run(args, &settings, output, context).await,
            Command::Inspect(_) | Command::Retention(_) | Command::Config(_) => Ok(()),
        } };
        // A backup and a demo clean up after themselves; the others have nothing to lose.
        let cleans_up = matches!(cli.command, Command::Backup(_) | Command::Demo(_));
        tokio::select! {
            result = run => result,
            () = context.stop.token().cancelled(), if !cleans_up => Err(context.stop.failure_of_reading()),
        }
    });
    if context.stop.is_requested() {
        await_background(&runtime);
    }
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    result
}

/// Gives what is still under way a moment to end: uploads that are being given up.
fn await_background(runtime: &tokio::runtime::Runtime) {
    let deadline = Instant::now() + SHUTDOWN_GRACE;
    // One task is left for good: the one that listens for signals.
    while runtime.metrics().num_alive_tasks() > 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Turns SIGINT and SIGTERM into a wish to stop. A second one ends the program at once.
fn listen_for_signals(stop: Stop) -> Result<(), Failure> {
    let unexpected =
        |error: std::io::Error| Failure::new(Kind::Unexpected, "no_signals", error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unexpected)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unexpected)?;
    // Once it is listened for, a write beyond `ulimit -f` is an error of that write, which says so and is cleaned up
    // after; by default it kills the program.
    let xfsz = rustix::process::Signal::XFSZ.as_raw();
    drop(signal(SignalKind::from_raw(xfsz)).map_err(unexpected)?);
    // It ends with the runtime.
    tokio::spawn(async move {
        loop {
            let kind = tokio::select! {
                _ = interrupt.recv() => Kind::Interrupted,
                _ = terminate.recv() => Kind::Terminated,
            };
            if stop.is_requested() {
                std::process::exit(kind.exit_code().into());
            }
            stop.request(kind);
        }
    });
    Ok(())
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

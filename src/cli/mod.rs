//! The terminal's front door: reads the command line, calls one operation, prints its report.
//!
//! Standard output carries data only, everything else goes to standard error; with `--json` the data is JSON and an
//! error ends standard error as one object.

mod actions;
pub mod args;
mod backup;
mod calendar;
mod check;
mod config;
mod demo;
mod drill;
mod drill_page;
mod extract;
mod global;
mod guard;
mod inspect;
mod log;
mod output;
mod pages;
mod panic;
mod progress;
mod prune;
mod restore;
mod restored;
mod retention;
mod settings;
mod status;
mod steps;
mod stored;
mod sync;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tokio::signal::unix::{SignalKind, signal};

use args::{Cli, Command};
use log::Log;
use output::Output;
use pgkeep_core::context::{Context, Signalled, Stop};
use pgkeep_core::log::Secrets;
use pgkeep_core::postgres::process::kill_all;
use pgkeep_core::setup::Setup;
use pgkeep_model::failure::{Failure, Kind};

/// How long background work may still take when a command is done.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// How long after a signal uploads that are being given up are still waited for. With what the operation takes before it
/// and the shutdown behind it, ten seconds are not reached.
const BACKGROUND_GRACE: Duration = Duration::from_secs(7);

/// How long they are waited for at most.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(2);

/// Parses the command line, carries it out and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString> + Clone, context: Context) -> ExitCode {
    let secrets = Secrets::default();
    panic::install(secrets.clone());
    let actions = settings::actions();
    let cli = match Cli::try_parse_from(arguments.clone()) {
        Ok(cli) => cli,
        Err(error) => {
            let log = Log::of_usage(actions.is_some(), secrets);
            return refuse(&error, arguments, &log);
        }
    };
    let log = Log::start(&cli.global, actions.is_some(), secrets);
    let mut output = Output::new(&cli.global, actions, log.clone());
    // Standard output belongs to the command that is guarded.
    output.stdout_is_taken = matches!(cli.command, Command::Guard(_));
    let result = log.around(|| panic::caught(|| dispatch(&cli, &context, &output)));
    output.exit(result)
}

fn dispatch(cli: &Cli, context: &Context, output: &Output) -> Result<(), Failure> {
    let setup = settings::setup(
        &cli.global,
        matches!(cli.command, Command::Check(_)),
        &output.log,
    );
    // Reading a file needs no runtime.
    match &cli.command {
        Command::Inspect(args) => return inspect::run(args, output),
        Command::Retention(args) => return retention::run(args, &setup, output, context),
        Command::Config(command) => return config::run(command, &setup, output),
        Command::Completions(args) => {
            pages::completions(args, Cli::command(), output);
            return Ok(());
        }
        Command::Man(args) => return pages::man(args, Cli::command(), output),
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
    let result = panic::caught(|| runtime.block_on(carry_out(cli, &setup, output, context)));
    if let Some(since) = context.stop.since() {
        let left = BACKGROUND_GRACE.saturating_sub(since);
        await_background(&runtime, left.min(BACKGROUND_TIMEOUT));
    }
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    result
}

async fn carry_out(
    cli: &Cli,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<(), Failure> {
    listen_for_signals(context.stop.clone())?;
    let run = async {
        match &cli.command {
            Command::Backup(args) => backup::run(args, setup, output, context).await,
            Command::List(args) => stored::run_list(args, setup, output, context).await,
            Command::Show(args) => stored::run_show(args, setup, output).await,
            Command::Get(args) => stored::run_get(args, setup, output, context).await,
            Command::Extract(args) => extract::run(args, setup, output, context).await,
            Command::Drill(args) => drill::run(args, setup, output, context).await,
            Command::Restore(args) => restore::run(args, setup, output, context).await,
            Command::Check(args) => check::run(args, setup, output, context).await,
            Command::Guard(args) => guard::run(args, setup, output, context).await,
            Command::Verify(args) => verify::run(args, setup, output, context).await,
            Command::Status(args) => status::run(args, setup, output, context).await,
            Command::Prune(args) => prune::run(args, setup, output, context).await,
            Command::Sync(args) => sync::run(args, setup, output, context).await,
            Command::Pin(args) => stored::run_pin(args, setup, output, context).await,
            Command::Unpin(args) => stored::run_unpin(args, setup, output, context).await,
            Command::Demo(args) => demo::run(args, setup, output, context).await,
            Command::Inspect(_)
            | Command::Retention(_)
            | Command::Config(_)
            | Command::Completions(_)
            | Command::Man(_) => Ok(()),
        }
    };
    // These clean up after themselves; the others have nothing to lose.
    let cleans_up = match &cli.command {
        Command::Prune(args) => !args.dry_run,
        Command::Sync(args) => !args.dry_run,
        Command::Backup(_)
        | Command::Check(_)
        | Command::Guard(_)
        | Command::Restore(_)
        | Command::Drill(_)
        | Command::Demo(_) => true,
        _ => false,
    };
    let stopped = context.stop.token().cancelled();
    tokio::select! {
        result = run => result,
        () = stopped, if !cleans_up => Err(context.stop.failure_of_reading()),
    }
}

/// Gives what is still under way a moment to end: uploads that are being given up.
fn await_background(runtime: &tokio::runtime::Runtime, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    // One task is left for good: the one that listens for signals.
    while runtime.metrics().num_alive_tasks() > 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Turns SIGINT and SIGTERM into a wish to stop. A second one ends the program at once, and its children with it: one that
/// ignores a polite signal would outlive it.
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
            if stop.signal(kind) == Signalled::Again {
                kill_all();
                std::process::exit(kind.exit_code().into());
            }
        }
    });
    Ok(())
}

/// Prints what clap has to say; with `--json` an error is one object, and a runner of GitHub marks its run with it.
fn refuse(
    error: &clap::Error,
    arguments: impl IntoIterator<Item = OsString>,
    log: &Log,
) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let wants_json = arguments
        .into_iter()
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json");
    if is_help {
        let _ = error.print(); // a closed terminal changes no exit code
        return ExitCode::SUCCESS;
    }
    if !wants_json {
        let shown = error.render().ansi().to_string();
        log.say_usage(&shown, &usage_failure(error));
    } else {
        log.fail_in_json(&usage_failure(error));
    }
    ExitCode::from(Kind::Usage.exit_code())
}

/// Takes clap's text apart: what is wrong, which arguments it is about, its tips. The usage line is for people.
fn usage_failure(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new(Kind::Usage, "usage", "the command line names no command")
            .hint("`pgkeep --help` lists the commands");
    }
    let text = error.render().to_string();
    let mut lines = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let (tips, details): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("tip: "));
    let failure = Failure::new(Kind::Usage, "usage", message.trim_end_matches(':'));
    let tips = tips.into_iter().filter_map(|tip| tip.strip_prefix("tip: "));
    tips.fold(failure.with_details(details), Failure::hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(arguments: &[&str]) -> Failure {
        let all = ["pgkeep"].iter().chain(arguments);
        usage_failure(&Cli::try_parse_from(all).unwrap_err())
    }

    #[test]
    fn a_wrong_command_line_is_taken_apart() {
        let missing = failure(&["inspect"]);
        assert!(missing.message.ends_with("were not provided"), "{missing}");
        assert_eq!(missing.details, ["<FILE>"]);
        let misspelt = failure(&["inspect", "--requir", "x", "-"]);
        assert!(misspelt.message.contains("'--requir'"), "{misspelt}");
        assert!(misspelt.hints[0].contains("'--require'"), "{misspelt}");
        let none = failure(&["--json"]);
        assert!(none.message.contains("requires a subcommand"), "{none}");
        let none = failure(&["--json", "config"]);
        assert!(none.message.contains("no command"), "{none}");
    }
}

//! The terminal's front door: reads the command line, calls one operation, prints its report.
//!
//! Standard output carries data only, everything else goes to standard error; with `--json` the data is JSON and an
//! error ends standard error as one object.

mod actions;
mod args;
mod commands;
mod log;
mod output;
mod pages;
mod panic;
mod progress;
mod settings;
mod steps;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::builder::styling::{AnsiColor, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use tokio::signal::unix::{SignalKind, signal};

use args::Global;
use commands::Command;
use log::Log;
use output::Output;
use pgkeep_core::context::{Context, Signalled, Stop};
use pgkeep_core::log::Secrets;
use pgkeep_core::postgres::process::kill_all;
use pgkeep_core::setup::Setup;
use pgkeep_model::failure::{Failure, Kind};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Start here:
  pgkeep demo                                              everything once, on a throw-away server
  pgkeep backup --storage ./backups --require users        with DATABASE_URL set
  pgkeep list --storage ./backups
  pgkeep drill --storage ./backups                         restores the latest one for a test
  pgkeep inspect dump.sql.gz
  pgkeep retention --keep-daily 7 --keep-weekly 4 --simulate '0 3 * * *'

Exit codes: 0 done and proven, 2 usage or config, 3 the backup is good but something after it is not, \
10 no such backup, 11 busy, 12 login refused, 20 the source failed, 21 the dump failed its proof, 22 storage failed, \
23 stored data is damaged or a restore did not match, 24 stale, 25 refused by a safety rule, 26 a needed program is \
missing, 130 or 143 stopped by a \
signal; any other one means failure too.";

/// Logical PostgreSQL backups that come with proof.
#[derive(Debug, Parser)]
#[command(name = "pgkeep", version = env!("PGKEEP_VERSION"), about, after_help = AFTER_HELP, styles = STYLES, max_term_width = 110)]
#[command(propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    /// What every command understands.
    #[command(flatten)]
    global: Global,
    /// The command.
    #[command(subcommand)]
    command: Command,
}

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
    output.exit(result.and_then(|()| answered(&cli.command, &output)))
}

/// What a run of these does counts whether somebody reads of it or not; what others do is their answer.
fn answered(command: &Command, output: &Output) -> Result<(), Failure> {
    let is_work = matches!(
        command,
        Command::Backup(_)
            | Command::Guard(_)
            | Command::Restore(_)
            | Command::Drill(_)
            | Command::Demo(_)
    );
    if is_work { Ok(()) } else { output.answered() }
}

fn dispatch(cli: &Cli, context: &Context, output: &Output) -> Result<(), Failure> {
    let setup = settings::setup(
        &cli.global,
        matches!(cli.command, Command::Check(_)),
        &output.log,
        &context.stop,
    );
    if let Some(result) = cli.command.run_at_once(&setup, output, context) {
        return result;
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
    let result =
        panic::caught(|| runtime.block_on(carry_out(&cli.command, &setup, output, context)));
    if let Some(since) = context.stop.since() {
        let left = BACKGROUND_GRACE.saturating_sub(since);
        await_background(&runtime, left.min(BACKGROUND_TIMEOUT));
    }
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    result
}

async fn carry_out(
    command: &Command,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<(), Failure> {
    listen_for_signals(context.stop.clone())?;
    let stopped = context.stop.token().cancelled();
    tokio::select! {
        result = command.run(setup, output, context) => result,
        () = stopped, if !command.cleans_up() => Err(context.stop.failure_of_reading()),
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
        let mut shown = error.render().ansi().to_string();
        if let Some(hint) = hint(error) {
            shown += &format!("\nhint: {hint}\n");
        }
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
    let hints = hint(error).into_iter().chain(tips);
    hints.fold(failure.with_details(details), Failure::hint)
}

/// What other programs call what pgkeep has, such as restic, borgmatic, pgBackRest and WAL-G.
const OTHER_WORDS: &[(&[&str], &str)] = &[
    (
        &["init", "rcreate", "repo-create", "stanza-create"],
        "`pgkeep config init` writes a configuration; a storage needs no making",
    ),
    (
        &["snapshots", "rlist", "info", "ls", "backup-list"],
        "`pgkeep list` lists what is stored, `pgkeep show` one backup",
    ),
    (
        &["forget", "expire", "delete", "compact", "purge", "retain"],
        "`pgkeep prune` removes what the retention does not keep",
    ),
    (
        &["create", "dump", "backup-push", "export"],
        "`pgkeep backup` makes a backup",
    ),
    (
        &["export-tar", "download", "backup-fetch", "cat"],
        "`pgkeep get` downloads a backup, `pgkeep extract` one table's rows",
    ),
    (
        &["copy", "mirror", "replicate"],
        "`pgkeep sync` copies what a storage lacks",
    ),
    (
        &["unlock", "break-lock"],
        "nothing has to be unlocked: the next run takes over from one that died",
    ),
    (&["tag", "hold"], "`pgkeep pin ID REASON` keeps a backup"),
    (
        &["stats"],
        "`pgkeep status` tells sizes, ages and how runs went",
    ),
    (
        &["test", "doctor", "diagnose"],
        "`pgkeep check` looks at the set-up, `pgkeep drill` tries a restore",
    ),
];

/// Returns the next move where clap knows none.
fn hint(error: &clap::Error) -> Option<&'static str> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    if error.kind() == ErrorKind::InvalidSubcommand {
        let word = text(ContextKind::InvalidSubcommand).concat();
        let mut others = OTHER_WORDS.iter();
        let known = others.find(|(words, _)| words.contains(&word.as_str()));
        return known.map(|(_, hint)| *hint);
    }
    let lacks_target = error.kind() == ErrorKind::MissingRequiredArgument
        && text(ContextKind::InvalidArg)
            .iter()
            .any(|argument| argument.starts_with("--into"));
    lacks_target.then_some(
        "`--into shop_restored` makes a database beside the old one, `--into shop --replace` puts it into its place; a URL \
         names another server",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(arguments: &[&str]) -> Failure {
        let all = ["pgkeep"].iter().chain(arguments);
        usage_failure(&Cli::try_parse_from(all).unwrap_err())
    }

    #[test]
    fn words_of_other_programs_have_a_hint() {
        for (words, expected) in [
            (&["init"][..], "pgkeep config init"),
            (&["snapshots"], "pgkeep list"),
            (&["forget", "--keep-daily", "7"], "pgkeep prune"),
            (&["restore", "latest"], "--into shop --replace"),
        ] {
            let hints = failure(words).hints.join(" ");
            assert!(hints.contains(expected), "{words:?}: {hints}");
        }
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

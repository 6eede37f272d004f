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
mod screen;
mod settings;
mod steps;
mod table;
mod tracking;

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
use screen::Screen;
use tracking::Tracking;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Below `-h`.
const START_HERE: &str = "\
Start here:
  pgkeep demo                        shows everything once, on a throw-away server
  pgkeep config init                 writes a configuration file
  pgkeep check                       tests the set-up
  pgkeep backup                      makes a backup of every database

`pgkeep COMMAND --help` explains a command, with examples.";

/// Below `--help`.
const AFTER_HELP: &str = "\
Start here:
  pgkeep demo                        shows everything once, on a throw-away server

With a configuration:
  pgkeep config init                 writes pgkeep.yaml, with a comment for every key
  pgkeep check                       tests the set-up
  pgkeep backup                      makes a backup of every database
  pgkeep drill                       proves that the latest backup can be restored

Without a configuration, when DATABASE_URL is set:
  pgkeep backup --storage ./backups --require users
  pgkeep list --storage ./backups
  pgkeep drill --storage ./backups

`pgkeep COMMAND --help` explains a command, with examples.

Exit codes:
    0  done and proven
    1  unexpected: a defect of pgkeep, or something that it does not know
    2  wrong command line or configuration
    3  the backup is good, but something after it is not
   10  no such backup, database, storage, table or file
   11  another run holds the lock
   12  the server or a storage refused the login
   20  the source failed: the connection, pg_dump, or a statement of a restore
   21  the dump failed its proof; nothing was stored
   22  a storage failed
   23  stored data is damaged, or a restore did not match
   24  stale: no good backup that is young enough
   25  refused by a safety rule; nothing was changed
   26  a needed program is missing or too old
  126  guard: the command cannot be started
  127  guard: there is no such command
  130  stopped by SIGINT
  143  stopped by SIGTERM
Treat every other code as a failure.

Environment: PGKEEP_CONFIG names the configuration, PGKEEP_LOG sets the log level. NO_COLOR turns colours off, \
CLICOLOR_FORCE and FORCE_COLOR turn them on. COLUMNS sets the width of tables on a terminal.";

/// Logical PostgreSQL backups that come with proof.
#[derive(Debug, Parser)]
#[command(name = "pgkeep", version = env!("PGKEEP_VERSION"), about, after_help = START_HERE, after_long_help = AFTER_HELP, styles = STYLES, max_term_width = 110)]
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
    settings::force_colours();
    let actions = settings::actions();
    let cli = match Cli::try_parse_from(arguments.clone()) {
        Ok(cli) => cli,
        Err(error) => {
            let screen = settings::screen(true);
            let log = Log::of_usage(actions.is_some(), screen.is_utf8, secrets);
            return refuse(error, arguments, screen, &log);
        }
    };
    // Standard output belongs to the command that is guarded.
    let stdout_is_taken = matches!(cli.command, Command::Guard(_));
    let screen = settings::screen(stdout_is_taken);
    let tracking = settings::tracking(secrets.clone(), &context.clock);
    let context = context.tracked_by(tracking.tracker());
    let log = Log::start(&cli.global, actions.is_some(), screen.is_utf8, secrets);
    let mut output = Output::new(&cli.global, screen, actions, log.clone());
    output.stdout_is_taken = stdout_is_taken;
    let result = log.around(|| panic::caught(|| dispatch(&cli, &context, &output, &tracking)));
    output.exit(result.and_then(|()| answered(&cli.command, &output)))
}

/// These count by what they do, whether anyone reads about it or not; the others count by their answer.
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

fn dispatch(
    cli: &Cli,
    context: &Context,
    output: &Output,
    tracking: &Tracking,
) -> Result<(), Failure> {
    let setup = settings::setup(
        &cli.global,
        matches!(cli.command, Command::Check(_)),
        &output.log,
        &context.stop,
        tracking,
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
    if let Err(failure) = &result {
        let telling = tracking::tell_rest(&cli.command, failure, &setup, context);
        runtime.block_on(telling);
    }
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
    mut error: clap::Error,
    arguments: impl IntoIterator<Item = OsString>,
    screen: Screen,
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
    let failure = usage_failure(&error);
    if wants_json {
        log.fail_in_json(&failure);
    } else {
        let hint = hint(&error);
        let values = long_list_of_values(&mut error, screen);
        let mut shown = error.render().ansi().to_string();
        let end = shown.find("\nFor more information").unwrap_or(shown.len());
        shown.insert_str(end, &values);
        if let Some(hint) = hint {
            shown += &format!("\nhint: {hint}\n");
        }
        log.say_usage(&shown, &failure);
    }
    ExitCode::from(Kind::Usage.exit_code())
}

/// Takes the possible values out of an error where they do not fit on its line, and returns them with a line for each.
fn long_list_of_values(error: &mut clap::Error, screen: Screen) -> String {
    let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue) else {
        return String::new();
    };
    let length: usize = values.iter().map(|value| value.len() + 2).sum();
    if length + "  [possible values: ]".len() <= screen.width.unwrap_or(USUAL_WIDTH) {
        return String::new();
    }
    let lines: String = values.iter().map(|value| format!("  {value}\n")).collect();
    error.remove(ContextKind::ValidValue);
    format!("\nPossible values:\n{lines}")
}

/// Columns of a terminal that does not say how many it has.
const USUAL_WIDTH: usize = 80;

/// Takes clap's text apart: what is wrong, which arguments it is about, its tips. The usage line is for people.
fn usage_failure(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new(Kind::Usage, "usage", "no command is given")
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
        "`pgkeep config init` writes a configuration file; a storage needs no set-up",
    ),
    (
        &["snapshots", "rlist", "info", "ls", "backup-list"],
        "`pgkeep list` lists the stored backups, `pgkeep show` shows one of them",
    ),
    (
        &["forget", "expire", "delete", "compact", "purge", "retain"],
        "`pgkeep prune` removes the backups that the retention policy does not keep",
    ),
    (
        &["create", "dump", "backup-push", "export"],
        "`pgkeep backup` makes a backup",
    ),
    (
        &["export-tar", "download", "backup-fetch", "cat"],
        "`pgkeep get` downloads a backup, `pgkeep extract` prints one table's rows",
    ),
    (
        &["copy", "mirror", "replicate"],
        "a backup goes to every storage of the configuration at once; no command copies it later",
    ),
    (
        &["unlock", "break-lock"],
        "nothing has to be unlocked: the next run takes over the lock of a run that died",
    ),
    (&["tag", "hold"], "`pgkeep pin ID REASON` keeps a backup"),
    (
        &["stats"],
        "`pgkeep status` reports sizes, ages and the last runs",
    ),
    (
        &["test", "doctor", "diagnose"],
        "`pgkeep check` tests the set-up, `pgkeep drill` tests a restore",
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
    let lacks = |name: &str| {
        error.kind() == ErrorKind::MissingRequiredArgument
            && text(ContextKind::InvalidArg)
                .iter()
                .any(|argument| argument.starts_with(name))
    };
    if lacks("<B>") {
        return Some(
            "`pgkeep list` shows the ids of backups; `--live` compares with what the database holds now",
        );
    }
    lacks("--into").then_some(
        "`--into shop_restored` restores into a new database beside the old one, `--into shop --replace` replaces the \
         old one; a URL names another server",
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
            (&["diff", "latest"], "--live"),
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

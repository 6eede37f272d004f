//! `pgkeep guard` on the terminal: standard output is the command's, so every word goes to standard error.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

use super::backup::{BackupArgs, text as backup_text};
use super::restore::text as restored;
use crate::cli::output::Output;
use crate::cli::progress::Shown;
use crate::cli::steps;
use pgkeep_core::context::Context;
use pgkeep_core::op::event::{Event, Observer};
use pgkeep_core::op::guard::{CommandOutcome, Report, Request, run as guard};
use pgkeep_core::op::restore;
use pgkeep_core::setup::guard::{Overrides, holds_password, request};
use pgkeep_core::setup::{Setup, StorageOverrides};
use pgkeep_model::failure::Result;
use pgkeep_model::freshness::age;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep guard -- npm run migrate
  pgkeep guard --max-age 10m --on-failure restore -- ./manage.py migrate
  pgkeep guard --storage ./backups -- sh -c 'migrate && seed'

guard makes a backup as `pgkeep backup` does. With --max-age it also accepts a good backup of this very database that is \
young enough. It pins the backup, with the git commit if there is one. Without a proven backup, COMMAND does not run.

COMMAND gets the standard input, output, error and environment of pgkeep, and its SIGINT and SIGTERM. pgkeep itself prints \
to standard error only. COMMAND is not read by a shell.

The exit code is that of COMMAND, or 128 plus the number of the signal that ended it. A code of pgkeep means that COMMAND \
did not run (127: there is no such command, 126: it cannot be started), or that the rollback failed. With --json, the last \
line of standard error tells them apart: `exit_error` for a code of pgkeep, `summary` for that of COMMAND.

After a signal, no rollback is started. Its command is printed instead.";

/// Flags of `guard`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Accept a good backup that is not older than this, such as 10m [default: make a new one]
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<String>,
    /// What to do when COMMAND fails
    #[arg(long, value_enum, default_value_t = OnFailureArg::Print, value_name = "WHAT")]
    pub on_failure: OnFailureArg,
    /// Run the SQL of the dump as a superuser [default: with a new role without such rights]
    #[arg(long)]
    pub allow_superuser: bool,
    /// How the backup is made.
    #[command(flatten)]
    pub backup: BackupArgs,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What is done when the guarded command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailureArg {
    /// Print the command that restores the backup
    Print,
    /// Roll back: restore the backup in place of the database, which is kept under another name
    Restore,
}

/// A guard refuses the flags that leave something out, so its help does not list them. A preset leaves out nothing of the
/// project.
pub(super) fn without_selection(argument: clap::Arg) -> clap::Arg {
    let is_selection = argument.get_help_heading() == Some("Selection");
    let is_taken = argument.get_id() == "preset";
    argument.hide(is_selection && !is_taken)
}

impl From<&GuardArgs> for Overrides {
    fn from(args: &GuardArgs) -> Self {
        Self {
            max_age: args.max_age.clone(),
            restores: args.on_failure == OnFailureArg::Restore,
            allow_superuser: args.allow_superuser,
            backup: (&args.backup).into(),
            command: args.command.clone(),
        }
    }
}

pub(super) async fn run(
    args: &GuardArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let (request, is_configured) = request(&args.into(), setup, context).await?;
    let context = &if is_configured {
        setup.telling(context, &StorageOverrides::default())?
    } else {
        context.clone()
    };
    let watching = Watching::new(&request, output);
    let report = guard(&request, context, &watching).await;
    watching.finish();
    output.step_summary(|| steps::of_guard(&report));
    output.step_outputs(&steps::outputs_of_guard(&report));
    // The others were printed before the command ran.
    output.summary(&report, &report.warnings[report.told_before..], || None);
    if let Some(failure) = report.failure {
        return Err(failure);
    }
    if let Some(command) = &report.command {
        if !output.json {
            tell_end(&report, command, output);
            if !command.is_success() && args.backup.url.as_deref().is_some_and(holds_password) {
                output.say("hint: for that, set DATABASE_URL to the URL of `--url`");
            }
        }
        output.end_with(command.code);
    }
    Ok(())
}

/// Shows a guard: each database's progress, and what is said between.
struct Watching<'a> {
    output: &'a Output,
    shown: Vec<(String, Shown)>,
}

impl<'a> Watching<'a> {
    fn new(request: &Request, output: &'a Output) -> Self {
        let names = request
            .guarded
            .iter()
            .map(|one| one.backup.name.to_string());
        let shown = names.map(|name| {
            let shown = Shown::new(&name, output);
            (name, shown)
        });
        Self {
            shown: shown.collect(),
            output,
        }
    }

    fn finish(&self) {
        self.shown.iter().for_each(|(_, shown)| shown.finish());
    }

    fn of(&self, database: &str) -> &Shown {
        let found = self.shown.iter().find(|(name, _)| name == database);
        &found.expect("every guarded database is shown").1
    }
}

impl Observer for Watching<'_> {
    fn note(&self, event: Event<'_>) {
        if let Event::Of { database, event } = event {
            return self.of(database).note(*event);
        }
        self.finish();
        if self.output.json {
            return;
        }
        match event {
            Event::Making { database, why } => {
                self.output
                    .note(&format!("{database}: making a new backup: {why}"));
            }
            Event::Ready { .. } => tell_ready(event, self.output),
            Event::Warned { warning } => self.output.warning(warning),
            Event::Running { command } => self.output.note(&format!("running `{command}`")),
            Event::RollingBack { why, id } => self.output.say(&format!("{why}; restoring `{id}`")),
            _ => {}
        }
    }
}

fn tell_ready(event: Event<'_>, output: &Output) {
    let Event::Ready {
        database,
        id,
        made,
        accepted_age_seconds,
        pin,
    } = event
    else {
        return;
    };
    for warning in made.iter().flat_map(|made| &made.warnings) {
        output.warning(&format!("{database}: {}", warning.message));
    }
    let kept = match pin {
        Some(pin) => format!("pinned: {pin}"),
        None => "kept by `keep_pre_deploy`".to_owned(),
    };
    let made = match (made, accepted_age_seconds) {
        (_, Some(seconds)) => format!(
            "{id}: a good backup of this database, {} old\n",
            age(seconds)
        ),
        (Some(made), None) => backup_text(made, output.screen),
        (None, None) => String::new(),
    };
    output.note(&format!("{made}  {kept}"));
}

/// Says how the command ended, and how to roll back.
fn tell_end(report: &Report, command: &CommandOutcome, output: &Output) {
    if command.is_success() {
        return output.note(&command.words());
    }
    let restored: Vec<&restore::Report> = report
        .databases
        .iter()
        .filter_map(|one| one.restored.as_ref())
        .collect();
    if !restored.is_empty() {
        restored.iter().for_each(|report| {
            output.say(output.screen.fitted(&restored::of_whole(report)).trim_end())
        });
        return output.say(&format!(
            "error: {}; the database was restored from the backup",
            command.words()
        ));
    }
    output.say(&format!(
        "error: {}; the database is as the command left it; the backup from before it is good",
        command.words()
    ));
    for one in &report.databases {
        let line = one.restore.as_deref().unwrap_or_default();
        output.say(&format!(
            "hint: to restore `{}` from it:\n{line}",
            one.database
        ));
    }
}

//! `pgkeep guard` on the terminal: standard output is the command's, so every word goes to standard error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{GuardArgs, OnFailureArg, TriggerArg};
use super::backup::{duration, requests, text as backup_text};
use super::output::Output;
use super::progress::Shown;
use super::restored;
use super::steps;
use pgkeep_core::context::Context;
use pgkeep_core::op::event::{Event, Observer};
use pgkeep_core::op::guard::{CommandOutcome, Guarded, Report, Request, RestoreLine, run as guard};
use pgkeep_core::op::restore;
use pgkeep_core::postgres::attended::{Attended, Unfit};
use pgkeep_core::postgres::process::Program;
use pgkeep_core::setup::{Setup, StorageOverrides};
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::freshness::age;
use pgkeep_model::manifest::Trigger;
use pgkeep_model::pin::PRE_DEPLOY;
use pgkeep_model::shell;

/// git reads one file; where its folder hangs, the commit is not worth the wait.
const GIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Variables by which CI services tell the commit.
const COMMIT_VARIABLES: [&str; 2] = ["GITHUB_SHA", "CI_COMMIT_SHA"];

/// Where the line takes the connection from that nobody may print.
const FROM_ENVIRONMENT: &str = "\"$DATABASE_URL\"";

pub(super) async fn run(
    args: &GuardArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let (request, is_configured) = request(args, setup, context).await?;
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
    output.summary(&report, &report.warnings, || None);
    if let Some(failure) = report.failure {
        return Err(failure);
    }
    if let Some(command) = &report.command {
        if !output.json {
            tell_end(&report, command, output);
            if !command.is_success() && args.backup.url.as_deref().is_some_and(holds_password) {
                output.say("hint: DATABASE_URL has to hold the URL behind `--url` then");
            }
        }
        output.end_with(command.code);
    }
    Ok(())
}

/// Returns what to guard, and whether the configuration has a part in it.
async fn request(args: &GuardArgs, setup: &Setup, context: &Context) -> Result<(Request, bool)> {
    // Before anything that takes time.
    let command = command(args, setup)?;
    refuse_gaps(args)?;
    let max_age = duration("--max-age", args.max_age.as_deref())?;
    let restores = args.on_failure == OnFailureArg::Restore;
    let (mut backups, is_configured) = requests(&args.backup, TriggerArg::PreDeploy, setup)?;
    if restores && backups.len() > 1 {
        let message = "`--on-failure restore` puts one database back, and several are meant";
        return Err(
            Failure::new(Kind::Usage, "database_needed", message).hint("say which with `-d NAME`")
        );
    }
    let commit = commit(setup, context).await;
    for request in &mut backups {
        if request.pin.is_none() && request.trigger != Trigger::PreDeploy {
            // `keep_pre_deploy` keeps what has that trigger, and nothing else.
            request.pin = Some(PRE_DEPLOY.to_owned());
        }
        if let (Some(commit), Some(PRE_DEPLOY)) = (&commit, request.pin.as_deref()) {
            request.pin = Some(format!("{PRE_DEPLOY} of commit {commit}"));
        }
    }
    let guarded = backups.into_iter().map(|backup| {
        let line = restore_line(args, setup)?;
        Ok(Guarded { backup, line })
    });
    let request = Request {
        guarded: guarded.collect::<Result<_>>()?,
        max_age,
        commit,
        command,
        restores,
        allow_superuser: args.allow_superuser,
    };
    Ok((request, is_configured))
}

fn command(args: &GuardArgs, setup: &Setup) -> Result<Attended> {
    Attended::find(&args.command, setup.path().as_deref()).map_err(|unfit| {
        let name = args.command.first().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default();
        let (kind, id, why) = match unfit {
            Unfit::Missing => (
                Kind::NoCommand,
                "command_not_found",
                "there is no such command",
            ),
            Unfit::NotExecutable => (
                Kind::NotRunnable,
                "command_not_executable",
                "it may not be executed",
            ),
        };
        Failure::new(
            kind,
            id,
            format!("cannot guard `{name}`: {why}; no backup was made"),
        )
        .hint("behind `--` stand a program and its arguments; what needs a shell is `sh -c '…'`")
    })
}

/// A backup that leaves something out is no way back.
fn refuse_gaps(args: &GuardArgs) -> Result<()> {
    let backup = &args.backup;
    let gaps = [
        ("--table", &backup.tables),
        ("--exclude-table", &backup.exclude_tables),
        ("--schema", &backup.schemas),
        ("--exclude-schema", &backup.exclude_schemas),
        ("--structure-only", &backup.structure_only),
    ];
    match gaps.iter().find(|(_, names)| !names.is_empty()) {
        None => Ok(()),
        Some((flag, _)) => {
            let message = format!(
                "`guard` takes no `{flag}`: a backup that leaves something out is no way back"
            );
            Err(Failure::new(Kind::Usage, "partial_guard", message))
        }
    }
}

/// Asks git for the commit of the work tree that we are in, or takes what a CI service says.
async fn commit(setup: &Setup, context: &Context) -> Option<String> {
    let git = Program::new("git", &setup.program_environment());
    let asked = git.args(["rev-parse", "--verify", "--quiet", "HEAD"]).run(
        context.stop.token(),
        GIT_TIMEOUT,
        4096,
    );
    let said = asked.await.ok();
    let said = said.and_then(|said| String::from_utf8(said.stdout).ok());
    let from_ci = COMMIT_VARIABLES.iter().filter_map(|name| setup.var(name));
    let is_commit = |text: &String| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let mut found = said.into_iter().chain(from_ci);
    found.find_map(|text| Some(text.trim().to_owned()).filter(is_commit))
}

/// Builds the line that restores, to be pasted anywhere on this host: paths are absolute, and no secret is in it.
fn restore_line(args: &GuardArgs, setup: &Setup) -> Result<RestoreLine> {
    let backup = &args.backup;
    let needs_config = backup.url.is_none() || backup.storage.storages.is_empty();
    let config_path = setup.config_path().filter(|_| needs_config);
    let mut program = "pgkeep".to_owned();
    if let Some(path) = config_path {
        // Its relative paths are meant from here.
        let here = absolute(Path::new("."));
        program = format!("cd {here} && pgkeep -c {}", absolute(path));
    }
    let is_configured = backup.url.is_none()
        && config_path.is_some()
        && setup
            .config()?
            .is_some_and(|config| !config.databases.is_empty());
    let has_url = setup.var("DATABASE_URL").is_some();
    let into = match &backup.url {
        Some(url) if holds_password(url) => Some(FROM_ENVIRONMENT.to_owned()),
        Some(url) => Some(shell::word(url)),
        None if has_url && !is_configured => Some(FROM_ENVIRONMENT.to_owned()),
        None => None,
    };
    let mut flags = String::new();
    let mut flag = |name: &str, word: String| flags += &format!(" {name} {word}");
    if let Some(path) = &backup.password_file {
        flag("--password-file", absolute(path));
    }
    for url in &backup.storage.storages {
        flag("--storage", storage_word(url));
    }
    if let Some(endpoint) = &backup.storage.s3_endpoint {
        // A login does not belong there, and is not printed where it stands there all the same.
        let word = if endpoint.contains('@') {
            "\"$PGKEEP_S3_ENDPOINT\"".to_owned()
        } else {
            shell::word(endpoint)
        };
        flag("--s3-endpoint", word);
    }
    if let Some(region) = &backup.storage.s3_region {
        flag("--s3-region", shell::word(region));
    }
    if let Some(folder) = &backup.bin_dir {
        flag("--bin-dir", absolute(folder));
    }
    if args.allow_superuser {
        flags += " --allow-superuser";
    }
    Ok(RestoreLine {
        program,
        into,
        flags,
    })
}

fn holds_password(url: &str) -> bool {
    let connection = url.parse::<Connection>();
    connection.is_ok_and(|connection| connection.password().is_some())
}

fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    shell::word(&path.to_string_lossy())
}

/// A folder's path means the same elsewhere when it is absolute; a home is expanded by pgkeep itself.
fn storage_word(url: &str) -> String {
    if url.contains("://") || url.starts_with('~') {
        shell::word(url)
    } else {
        absolute(&PathBuf::from(url))
    }
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
                    .note(&format!("{database}: a new backup is made: {why}"));
            }
            Event::Ready { .. } => tell_ready(event, self.output),
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
        (_, Some(seconds)) => format!("{id}: {}, good, of this database\n", age(seconds)),
        (Some(made), None) => backup_text(made),
        (None, None) => String::new(),
    };
    output.note(&format!("{made}  {kept}"));
}

/// Says how the command ended, and the way back.
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
        restored
            .iter()
            .for_each(|report| output.say(restored::of_whole(report).trim_end()));
        return output.say(&format!(
            "error: {}; the database was put back",
            command.words()
        ));
    }
    output.say(&format!(
        "error: {}; the database is as it left it, and the backup from before is good",
        command.words()
    ));
    for one in &report.databases {
        let line = one.restore.as_deref().unwrap_or_default();
        output.say(&format!(
            "hint: to put `{}` back as it was:\n{line}",
            one.database
        ));
    }
}

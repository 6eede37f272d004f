//! What `guard` is to do: the backups behind which a command runs, and the lines that restore them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Setup;
use super::backup::{self, requests};
use super::flags::duration;
use crate::context::Context;
use crate::op::guard::{Guarded, Request, RestoreLine};
use crate::postgres::attended::{Attended, Unfit};
use crate::postgres::process::Program;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Trigger;
use pgkeep_model::pin::PRE_DEPLOY;
use pgkeep_model::shell;

/// git reads one file; where its folder hangs, the commit is not worth the wait.
const GIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Variables by which CI services tell the commit.
const COMMIT_VARIABLES: [&str; 2] = ["GITHUB_SHA", "CI_COMMIT_SHA"];

/// Where the line takes the connection from that nobody may print.
const FROM_ENVIRONMENT: &str = "\"$DATABASE_URL\"";

/// Which command is guarded, and how.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// A good backup that is not older is taken.
    pub max_age: Option<String>,
    /// Whether the backup is restored when the command fails.
    pub restores: bool,
    /// Let a superuser restore.
    pub allow_superuser: bool,
    /// How the backup is made.
    pub backup: backup::Overrides,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Returns what to guard, and whether the configuration has a part in it.
pub async fn request(
    overrides: &Overrides,
    setup: &Setup,
    context: &Context,
) -> Result<(Request, bool)> {
    // Before anything that takes time.
    let command = command(overrides, setup)?;
    refuse_gaps(overrides)?;
    let max_age = duration("--max-age", overrides.max_age.as_deref())?;
    let restores = overrides.restores;
    let mut wanted = overrides.backup.clone();
    wanted.trigger.get_or_insert(Trigger::PreDeploy);
    let (mut backups, is_configured) = requests(&wanted, setup)?;
    if restores && backups.len() > 1 {
        let message = "`--on-failure restore` restores one database, and several are selected";
        return Err(
            Failure::new(Kind::Usage, "database_needed", message).hint("choose one with `-d NAME`")
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
        let line = restore_line(overrides, setup)?;
        Ok(Guarded { backup, line })
    });
    let request = Request {
        guarded: guarded.collect::<Result<_>>()?,
        max_age,
        commit,
        command,
        restores,
        allow_superuser: overrides.allow_superuser,
    };
    Ok((request, is_configured))
}

fn command(overrides: &Overrides, setup: &Setup) -> Result<Attended> {
    Attended::find(&overrides.command, setup.path().as_deref()).map_err(|unfit| {
        let name = overrides
            .command
            .first()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
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
        .hint("after `--` come a program and its arguments; for a shell command, use `sh -c '…'`")
    })
}

/// A backup that leaves something out is no rollback.
fn refuse_gaps(overrides: &Overrides) -> Result<()> {
    match overrides.backup.gap() {
        None => Ok(()),
        Some(flag) => {
            let message = format!(
                "`guard` does not take `{flag}`: a backup that leaves something out is no rollback"
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
    let said = asked
        .await
        .ok()
        .and_then(|said| String::from_utf8(said.stdout).ok());
    let from_ci = COMMIT_VARIABLES.iter().filter_map(|name| setup.var(name));
    let is_commit = |text: &String| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let mut found = said.into_iter().chain(from_ci);
    found.find_map(|text| Some(text.trim().to_owned()).filter(is_commit))
}

/// Builds the line that restores, to be pasted anywhere on this host: paths are absolute, and no secret is in it.
fn restore_line(overrides: &Overrides, setup: &Setup) -> Result<RestoreLine> {
    let backup = &overrides.backup;
    let needs_config = backup.url.is_none() || backup.storage.storages.is_empty();
    let config_path = setup.config_path().filter(|_| needs_config);
    let own = setup.program.as_deref();
    let mut program = own.map_or_else(|| "pgkeep".to_owned(), absolute);
    if let Some(path) = config_path {
        // Programs that it names by relative paths are meant from here.
        let here = absolute(Path::new("."));
        program = format!("cd {here} && {program} -c {}", absolute(path));
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
    if overrides.allow_superuser {
        flags += " --allow-superuser";
    }
    Ok(RestoreLine {
        program,
        into,
        flags,
    })
}

/// Tells whether a URL holds a password, so that nobody may print it.
pub fn holds_password(url: &str) -> bool {
    let connection = url.parse::<Connection>();
    connection.is_ok_and(|connection| connection.password().is_some())
}

fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    shell::word(&path.to_string_lossy())
}

/// A folder's path means the same elsewhere when it is absolute; a home is expanded by pgkeep itself.
fn storage_word(url: &str) -> String {
    if url.contains("://") || url.starts_with("rclone:") || url.starts_with('~') {
        shell::word(url)
    } else {
        absolute(&PathBuf::from(url))
    }
}

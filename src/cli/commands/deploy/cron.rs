//! `pgkeep deploy install cron`: entries in the user's crontab, the scripts that they run, and one try in cron's environment.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::crontab::{self, Unpaired, entry, is_times};
use super::files::of_folder;
use super::{State, line_of, own_program, remove, state, write};
use crate::cli::output::Output;
use pgkeep_core::context::Context;
use pgkeep_core::postgres::environment::Environment;
use pgkeep_core::postgres::error::{Error, Reason};
use pgkeep_core::postgres::process::Program;
use pgkeep_core::setup::Setup;
use pgkeep_model::failure::{Failure, Kind, Result};

/// Flags of `deploy install cron`.
#[derive(Debug, Args)]
pub struct CronArgs {
    /// When to back up: minute, hour, day, month and weekday as in a crontab, or `none`
    #[arg(long, value_name = "TIMES", default_value = "15 3 * * *")]
    pub backup: String,
    /// When to verify
    #[arg(long, value_name = "TIMES", default_value = "15 5 * * 0")]
    pub verify: String,
    /// When to drill every database
    #[arg(long, value_name = "TIMES", default_value = "41 4 1 * *")]
    pub drill: String,
    /// File with variables for the configuration, one NAME=value per line
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// What both directions have.
    #[command(flatten)]
    pub removal: CronRemoval,
}

/// Flags of `deploy uninstall cron`.
#[derive(Debug, Args)]
pub struct CronRemoval {
    /// Folder of the scripts that cron runs [default: ~/.local/share/pgkeep/deploy]
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// Print what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Folder of the scripts below the repository's `deploy/`.
const SCRIPTS: &str = "cron";

/// What is in that folder for people, and no script of ours.
const EXAMPLE: &str = "crontab.example";

/// A crontab is read and written in milliseconds; one that uses a directory service in the network may take longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// `pgkeep check` gives up by itself what hangs.
const TRY_TIMEOUT: Duration = Duration::from_secs(300);

/// Most of a crontab that is read: Debian's cron takes no more lines than fit into it.
const LIMIT: usize = 4 * 1024 * 1024;

/// Shown where the crontab cannot be understood.
const UNCHANGED: &str = "the crontab was not changed";

fn scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
    of_folder(SCRIPTS).filter(|(name, _)| *name != EXAMPLE)
}

pub(super) async fn install(
    args: &CronArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let jobs = [
        ("--backup", &args.backup, "weekly-backup.sh"),
        ("--verify", &args.verify, "weekly-verify.sh"),
        ("--drill", &args.drill, "monthly-drill.sh"),
    ];
    for (flag, times, _) in jobs {
        check_times(flag, times)?;
    }
    if setup.database.is_some() {
        let message = "the entries are for every database of the configuration, so `-d` is not possible here; nothing was changed";
        return Err(Failure::new(Kind::Usage, "database_not_taken", message)
            .hint("use a configuration with only that database (`-c FILE`)"));
    }
    let variables = variables(args, setup)?;
    let folder = folder(&args.removal, setup)?;
    let place = line_of(&folder)?;
    let lines: String = jobs
        .iter()
        .filter(|(_, times, _)| *times != "none")
        .map(|(_, times, script)| entry(times, &variables, &format!("{place}/{script}")))
        .collect();
    let due = due(&folder)?;
    let old = read(setup, context).await?;
    let new = crontab::with_block(&old, Some(&lines)).map_err(|Unpaired| unpaired())?;
    let is_dry = args.removal.dry_run;
    if !is_dry {
        for (path, text) in &due {
            write(path, text, 0o755)?;
        }
        if new != old {
            replace(new.clone(), setup, context).await?;
        }
    }
    let tried = if is_dry || args.backup == "none" {
        None
    } else {
        Some(try_once(&folder, &variables, setup, context).await)
    };
    tell(
        output,
        &lines,
        &folder,
        is_dry,
        due.len(),
        new != old,
        tried,
    );
    Ok(())
}

/// Prints what was done, or what would be.
fn tell(
    output: &Output,
    lines: &str,
    folder: &Path,
    is_dry: bool,
    scripts: usize,
    is_changed: bool,
    tried: Option<Tried>,
) {
    let document = json!({
        "dry_run": is_dry,
        "folder": folder.display().to_string(),
        "scripts_written": scripts,
        "crontab_changed": is_changed,
        "entries": lines.lines().collect::<Vec<_>>(),
        "would_work": tried.as_ref().map(|tried| tried.is_good),
        "said": tried.as_ref().map(|tried| tried.said.lines().collect::<Vec<_>>()),
    });
    output.document(&document, || crontab::block(lines));
    if output.json {
        return;
    }
    let folder = folder.display();
    let words = match (is_dry, is_changed || scripts > 0) {
        (true, true) => format!(
            "this would be in your crontab, and its scripts in `{folder}`; nothing was changed"
        ),
        (true, false) => "this is already in your crontab; nothing would change".to_owned(),
        (false, true) => format!("this is in your crontab now, and its scripts are in `{folder}`"),
        (false, false) => "this was already in your crontab; nothing was changed".to_owned(),
    };
    output.note(&words);
    match tried {
        None => {}
        Some(Tried { is_good: true, .. }) => {
            output.note("tried in cron's environment: a backup would work");
        }
        Some(Tried { said, .. }) => {
            output.warning("tried in cron's environment: a backup would fail");
            let said: Vec<String> = said.lines().map(|line| format!("  {line}")).collect();
            output.say(&said.join("\n"));
            output.say(
                "hint: cron does not have the variables of this terminal: put them in a file and install again with \
                 `--env-file FILE`, or let the configuration read secrets from files (`url_file`, `password_file`)",
            );
        }
    }
    if !is_dry {
        output.note("`pgkeep deploy uninstall cron` removes it");
    }
}

pub(super) async fn uninstall(
    args: &CronRemoval,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let folder = folder(args, setup)?;
    let old = read(setup, context).await?;
    let new = crontab::with_block(&old, None).map_err(|Unpaired| unpaired())?;
    let is_changed = new != old;
    let mut removed = 0;
    if !args.dry_run {
        if is_changed {
            replace(new, setup, context).await?;
        }
        for (name, text) in scripts() {
            removed += usize::from(remove(&folder.join(name), text)?);
        }
        // It goes when nothing else is in it.
        let _ = fs::remove_dir(&folder);
    }
    let document = json!({
        "dry_run": args.dry_run,
        "folder": folder.display().to_string(),
        "scripts_removed": removed,
        "crontab_changed": is_changed,
    });
    output.document(&document, || {
        let words = match (is_changed, args.dry_run) {
            (false, _) => "the crontab has no entries of pgkeep",
            (true, true) => {
                "the entries of pgkeep would be removed from your crontab; nothing was changed"
            }
            (true, false) => {
                "the entries of pgkeep were removed from your crontab; configuration and backups stay"
            }
        };
        format!("{words}\n")
    });
    Ok(())
}

fn check_times(flag: &str, times: &str) -> Result<()> {
    if times == "none" || is_times(times) {
        return Ok(());
    }
    let message =
        format!("`{flag} {times}`: not the five fields minute, hour, day, month, weekday");
    Err(Failure::new(Kind::Usage, "bad_times", message)
        .hint("`15 3 * * *` is every night at 3:15, `none` is never"))
}

/// What the scripts have to know, which cron does not tell them.
fn variables(args: &CronArgs, setup: &Setup) -> Result<Vec<(&'static str, String)>> {
    let mut variables = vec![("PGKEEP", line_of(&own_program()?)?)];
    match setup.config_path() {
        Some(path) => variables.push(("PGKEEP_CONFIG", line_of(path)?)),
        // The file of variables may name the configuration; without one there is nothing to run.
        None if args.env_file.is_some() => {}
        None => drop(setup.config_or_fail()?),
    }
    if let Some(path) = &args.env_file {
        File::open(path).map_err(|error| {
            let message = format!(
                "cannot read `{}`: {error}; nothing was changed",
                path.display()
            );
            Failure::new(Kind::Usage, "cannot_read", message)
        })?;
        variables.push(("PGKEEP_ENV_FILE", line_of(path)?));
    }
    Ok(variables)
}

fn folder(args: &CronRemoval, setup: &Setup) -> Result<PathBuf> {
    if let Some(folder) = &args.dir {
        return Ok(std::path::absolute(folder).unwrap_or_else(|_| folder.clone()));
    }
    let absolute = |name| {
        let path = setup.var(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    data.map(|data| data.join("pgkeep/deploy")).ok_or_else(|| {
        let message = "there is no HOME to put the scripts for cron into; nothing was changed";
        Failure::new(Kind::Usage, "no_home", message).hint("`--dir FOLDER` names a folder")
    })
}

/// Returns the scripts that are not there yet, or not as they are now.
fn due(folder: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut due = Vec::new();
    for (name, text) in scripts() {
        let path = folder.join(name);
        if state(&path, text)? == State::Due {
            due.push((path, text));
        }
    }
    Ok(due)
}

/// Reads the crontab byte for byte. None at all is an empty one; one that cannot be read is left alone.
async fn read(setup: &Setup, context: &Context) -> Result<Vec<u8>> {
    let program = Program::new("crontab", &setup.program_environment().without_connection());
    let read = program
        .args(["-l"])
        .run(context.stop.token(), TIMEOUT, LIMIT)
        .await;
    match read {
        Ok(captured) => Ok(captured.stdout),
        Err(error) if is_none_yet(&error) => Ok(Vec::new()),
        Err(error) => Err(failure_of(error, "read")),
    }
}

/// How every cron says that a user has no crontab yet.
fn is_none_yet(error: &Error) -> bool {
    let mut lines = error.stderr.iter();
    lines.any(|line| line.to_ascii_lowercase().contains("no crontab for"))
}

async fn replace(new: Vec<u8>, setup: &Setup, context: &Context) -> Result<()> {
    let program = Program::new("crontab", &setup.program_environment().without_connection());
    let written = program
        .args(["-"])
        .input(new)
        .run(context.stop.token(), TIMEOUT, LIMIT)
        .await;
    written
        .map(drop)
        .map_err(|error| failure_of(error, "write"))
}

fn failure_of(error: Error, verb: &str) -> Failure {
    if matches!(error.reason, Reason::NotStarted { .. }) {
        return no_cron();
    }
    let message = format!("cannot {verb} the crontab; {UNCHANGED}");
    Failure::new(Kind::Unexpected, "system_program_failed", message).with_details(error.stderr)
}

fn no_cron() -> Failure {
    let message = "cron is not installed: there is no `crontab` program; nothing was changed";
    Failure::new(Kind::Program, "no_cron", message)
        .hint("`sudo apt-get install cron`, or `sudo pgkeep deploy install systemd`")
}

fn unpaired() -> Failure {
    let message = format!("the marks of pgkeep in the crontab do not pair; {UNCHANGED}");
    Failure::new(Kind::Refused, "crontab_marks", message).hint(format!(
        "repair it with `crontab -e`: one line `{}`, and one line `{}` after it",
        crontab::BEGIN,
        crontab::END
    ))
}

/// What a run in cron's environment came to.
struct Tried {
    is_good: bool,
    /// What was printed.
    said: String,
}

/// cron starts in the home folder with few variables: what works in this terminal may not work there.
async fn try_once(
    folder: &Path,
    variables: &[(&str, String)],
    setup: &Setup,
    context: &Context,
) -> Tried {
    let failed = |said: String| Tried {
        is_good: false,
        said,
    };
    let mut environment = Environment::new([]);
    for (name, value) in [
        ("PATH", "/usr/bin:/bin"),
        ("SHELL", "/bin/sh"),
        ("PGKEEP_TRY", "1"),
    ] {
        environment.set(name, value);
    }
    let home = setup.var("HOME").unwrap_or_else(|| "/".to_owned());
    environment.set("HOME", home);
    if let Some(user) = setup.var("LOGNAME").or_else(|| setup.var("USER")) {
        environment.set("LOGNAME", user);
    }
    for (name, value) in variables {
        environment.set(name, value.clone());
    }
    let opened = tempfile::tempfile().and_then(|file| Ok((file.try_clone()?, file)));
    let (mut log, file) = match opened {
        Ok(files) => files,
        Err(error) => return failed(error.to_string()),
    };
    let shell = Program::new("/bin/sh", &environment)
        .args([Path::new("-c"), Path::new("cd \"$HOME\" && exec \"$0\"")])
        .args([folder.join("weekly-backup.sh")])
        .log_to(file);
    let ended = shell.run(context.stop.token(), TRY_TIMEOUT, LIMIT).await;
    let mut said = Vec::new();
    // What cannot be read is not shown; the end of the program counts.
    let _ = log.rewind().and_then(|()| log.read_to_end(&mut said));
    Tried {
        is_good: ended.is_ok(),
        said: String::from_utf8_lossy(&said).into_owned(),
    }
}

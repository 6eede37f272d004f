//! `pgkeep deploy`: what runs pgkeep by itself, out of the binary alone.
//!
//! The files of the repository's `deploy/` are part of the program. `install` plans first and prints the plan, `--dry-run` prints
//! the same plan and stops there; running it again changes nothing more.

mod cron;
mod crontab;
mod files;
mod systemd;

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::output::Output;
use crate::cli::table::Table;
use cron::{CronArgs, CronRemoval};
use files::FILES;
use pgkeep_core::context::Context;
use pgkeep_core::setup::Setup;
use pgkeep_model::failure::{Failure, Kind, Result};
use systemd::{SystemdArgs, SystemdRemoval};

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep deploy install cron --dry-run   shows what it would do
  pgkeep deploy install cron             backup nightly, verify weekly, drill monthly
  sudo pgkeep deploy install systemd     the same, with timers of systemd
  pgkeep deploy list
  pgkeep deploy print kubernetes/cronjob.yaml > cronjob.yaml

First write a configuration (`pgkeep config init`), and make one backup by hand.";

const AFTER_INSTALL_CRON: &str = "\
Examples:
  pgkeep deploy install cron
  pgkeep -c /srv/pgkeep.yaml deploy install cron --backup '0 * * * *' --drill none
  pgkeep deploy install cron --env-file /etc/pgkeep/pgkeep.env

The entries are between two marks in your crontab, and nothing else in it changes. Running this again replaces them. \
Then `pgkeep check` runs once with the few variables that cron sets, so that a missing password or program shows now and \
not at night. cron mails what a run prints, and a run prints only what went wrong.

--env-file names a file with NAME=value lines, such as DATABASE_URL=postgresql:///shop; `pgkeep deploy print pgkeep.env.example` shows one. \
A drill needs PostgreSQL's server programs on this machine, or `drill.url` in the configuration.";

const AFTER_INSTALL_SYSTEMD: &str = "\
Examples:
  sudo pgkeep deploy install systemd --dry-run
  sudo pgkeep deploy install systemd

The services read /etc/pgkeep/pgkeep.yaml, and variables from /etc/pgkeep/pgkeep.env where it exists. They run as a user of \
their own that sees no home folder and no /tmp, so the program must be elsewhere, such as /usr/local/bin. They \
need systemd 247. Units that a package installed for /usr/bin/pgkeep are used as they are.";

/// Commands about running by itself.
#[derive(Debug, Subcommand)]
pub enum DeployCommand {
    /// List the files for cron, systemd, Docker, Kubernetes and others
    List,
    /// Print one of the files
    Print(PrintArgs),
    /// Run backups, verify and drills on a schedule from now on
    #[command(subcommand)]
    Install(InstallCommand),
    /// Remove what `install` added; configuration and backups stay
    #[command(subcommand)]
    Uninstall(UninstallCommand),
}

/// Flags of `deploy print`.
#[derive(Debug, Args)]
pub struct PrintArgs {
    /// Name of the file, as `pgkeep deploy list` lists it
    #[arg(value_name = "NAME", value_parser = names(), hide_possible_values = true)]
    pub name: String,
}

/// What can be installed.
#[derive(Debug, Subcommand)]
pub enum InstallCommand {
    /// Write entries into your crontab, and try them once
    #[command(after_long_help = AFTER_INSTALL_CRON)]
    Cron(CronArgs),
    /// Write services and timers, and start the timers
    #[command(after_long_help = AFTER_INSTALL_SYSTEMD)]
    Systemd(SystemdArgs),
}

/// What can be removed again.
#[derive(Debug, Subcommand)]
pub enum UninstallCommand {
    /// Remove the entries from your crontab, and the scripts that they ran
    Cron(CronRemoval),
    /// Stop the timers and remove the units that `install` wrote
    Systemd(SystemdRemoval),
}

fn names() -> PossibleValuesParser {
    FILES
        .iter()
        .map(|file| file.name)
        .collect::<Vec<_>>()
        .into()
}

pub(super) async fn run(
    command: &DeployCommand,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    match command {
        DeployCommand::List => list(output),
        DeployCommand::Print(args) => return print(&args.name, output),
        DeployCommand::Install(InstallCommand::Cron(args)) => {
            return cron::install(args, setup, output, context).await;
        }
        DeployCommand::Install(InstallCommand::Systemd(args)) => {
            return systemd::install(args, setup, output, context).await;
        }
        DeployCommand::Uninstall(UninstallCommand::Cron(args)) => {
            return cron::uninstall(args, setup, output, context).await;
        }
        DeployCommand::Uninstall(UninstallCommand::Systemd(args)) => {
            return systemd::uninstall(args, setup, output, context).await;
        }
    }
    Ok(())
}

fn list(output: &Output) {
    let files: Vec<_> = FILES
        .iter()
        .map(|file| json!({ "name": file.name, "about": file.about }))
        .collect();
    output.document(&json!({ "files": files }), || {
        let mut out = Table::new(&["name", "about"]).texts(&[1]);
        for file in FILES {
            out.add_row([file.name, file.about]);
        }
        out.shown(output.screen)
    });
}

fn print(name: &str, output: &Output) -> Result<()> {
    let mut files = FILES.iter();
    let file = files.find(|file| file.name == name).ok_or_else(|| {
        let message = format!("there is no file `{name}`");
        Failure::new(Kind::Usage, "no_such_file", message).hint("`pgkeep deploy list` lists them")
    })?;
    output.document(&json!({ "name": file.name, "text": file.text }), || {
        file.text.to_owned()
    });
    Ok(())
}

/// What became of a file that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is there with these very bytes.
    Same,
    /// It is missing, or an older one of ours.
    Due,
}

/// Tells whether a file is of an older pgkeep: units say where they are described, scripts share their environment. That
/// somebody's own file runs pgkeep makes it none of ours.
fn is_ours(text: &str) -> bool {
    let marks = [
        "Documentation=man:pgkeep",
        "/environment.sh\"",
        "pgkeep_fail()",
    ];
    marks.iter().any(|mark| text.contains(mark))
}

/// Looks at the place of one of our files; another file of the same name is refused.
fn state(path: &Path, text: &str) -> Result<State> {
    let found = match fs::read(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::Due),
        Err(error) => return Err(unwritten("read", path, &error)),
    };
    if found == text.as_bytes() {
        return Ok(State::Same);
    }
    if is_ours(&String::from_utf8_lossy(&found)) {
        return Ok(State::Due);
    }
    let message = format!(
        "will not replace `{}`, which is not a file of pgkeep; nothing was changed",
        path.display()
    );
    Err(Failure::new(Kind::Refused, "file_exists", message)
        .hint("`--dir FOLDER` names another folder"))
}

/// Writes a file as a whole or not at all, with its folder.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(folder).and_then(|()| {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))?;
        file.persist(path)?;
        Ok(())
    });
    written.map_err(|error| unwritten("write", path, &error))
}

fn unwritten(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot {verb} `{}`: {error}", path.display());
    let failure = Failure::new(Kind::Usage, "cannot_write", message);
    if error.kind() == ErrorKind::PermissionDenied {
        return failure
            .hint("run it with `sudo`, or choose a folder of your own with `--dir FOLDER`");
    }
    failure
}

/// Removes a file that still holds what we wrote; an edited one stays.
fn remove(path: &Path, text: &str) -> Result<bool> {
    if !fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(false);
    }
    fs::remove_file(path).map_err(|error| unwritten("remove", path, &error))?;
    Ok(true)
}

/// Returns the program that is running, which is what the schedule starts.
fn own_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| {
        let message = format!("cannot find out where this program is: {error}");
        Failure::new(Kind::Unexpected, "no_own_path", message)
    })
}

/// Returns an absolute path as text: in a crontab or a unit it must be one line.
fn line_of(path: &Path) -> Result<String> {
    let bad = |why: &str| {
        let message = format!("`{}` {why}; nothing was changed", path.display());
        Failure::new(Kind::Usage, "bad_path", message)
    };
    let path =
        std::path::absolute(path).map_err(|error| bad(&format!("cannot be used: {error}")))?;
    match path.to_str() {
        Some(text) if !text.contains(['\n', '\r']) => Ok(text.to_owned()),
        _ => Err(bad("has a line break or is not UTF-8")),
    }
}

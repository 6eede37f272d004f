//! `pgkeep deploy install systemd`: services and timers of the system, and their start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::files::of_folder;
use super::{State, line_of, own_program, remove, state, write};
use crate::cli::output::Output;
use pgkeep_core::context::Context;
use pgkeep_core::postgres::error::{Error, Reason};
use pgkeep_core::postgres::process::Program;
use pgkeep_core::setup::Setup;
use pgkeep_model::failure::{Failure, Kind, Result};

/// Flags of `deploy install systemd`.
#[derive(Debug, Args)]
pub struct SystemdArgs {
    /// Program that the services start [default: this one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// What both directions have.
    #[command(flatten)]
    pub removal: SystemdRemoval,
}

/// Flags of `deploy uninstall systemd`.
#[derive(Debug, Args)]
pub struct SystemdRemoval {
    /// Folder of the units
    #[arg(long, value_name = "FOLDER", default_value = "/etc/systemd/system")]
    pub dir: PathBuf,
    /// Print what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Folder of the units below the repository's `deploy/`.
const UNITS: &str = "systemd";

/// The server's unit: it is for those who want it in place of the timers.
const SERVER: &str = "pgkeep-serve.service";

/// The program that the units name as they are, which is where packages put it.
const PACKAGED: &str = "/usr/bin/pgkeep";

/// Where packages put units.
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// Folders that the services do not see (`ProtectHome=`, `PrivateTmp=`).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Where the services find the configuration.
const CONFIG: &str = "/etc/pgkeep/pgkeep.yaml";

/// systemd reads its units in a second or two; a busy machine takes longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Most that `systemctl` may print.
const LIMIT: usize = 1024 * 1024;

/// Returns the units that run pgkeep by timers.
fn units() -> impl Iterator<Item = (&'static str, &'static str)> {
    of_folder(UNITS).filter(|(name, _)| *name != SERVER)
}

fn timers() -> Vec<&'static str> {
    let names = units().map(|(name, _)| name);
    names.filter(|name| name.ends_with(".timer")).collect()
}

pub(super) async fn install(
    args: &SystemdArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let program = match &args.program {
        Some(program) => line_of(program)?,
        None => line_of(&own_program()?)?,
    };
    check_program(Path::new(&program))?;
    let folder = &args.removal.dir;
    let due = due(folder, &program)?;
    let is_dry = args.removal.dry_run;
    let timers = timers();
    if !is_dry {
        ask(setup, context).await?;
        for (path, text) in &due {
            write(path, text, 0o644)?;
        }
        systemctl(&["daemon-reload"], setup, context).await?;
        systemctl(
            &[&["enable", "--now"], &timers[..]].concat(),
            setup,
            context,
        )
        .await?;
    }
    let units: Vec<String> = due
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    let document = json!({
        "dry_run": is_dry,
        "program": program,
        "units_written": units,
        "timers": timers,
    });
    output.document(&document, || words(&units, &timers, &program, is_dry));
    if !Path::new(CONFIG).exists() {
        output.warning(&format!(
            "there is no `{CONFIG}`, without which the services fail: `sudo pgkeep config init {CONFIG}` writes one"
        ));
    }
    if !is_dry && !output.json {
        output.note(
            "try it now: `systemctl start pgkeep-backup.service`, then `journalctl -u pgkeep-backup.service`\n\
             `sudo pgkeep deploy uninstall systemd` removes it",
        );
    }
    Ok(())
}

fn words(units: &[String], timers: &[&str], program: &str, is_dry: bool) -> String {
    let (write, start) = if is_dry {
        ("would write", "would start")
    } else {
        ("wrote", "started")
    };
    let mut out = String::new();
    for unit in units {
        out += &format!("{write} {unit}\n");
    }
    if units.is_empty() {
        out += "the units are there already\n";
    }
    for timer in timers {
        out += &format!("{start} {timer}\n");
    }
    out + &format!("the services run {program}\n")
}

pub(super) async fn uninstall(
    args: &SystemdRemoval,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let timers = timers();
    let found: Vec<(PathBuf, String)> = units()
        .filter_map(|(name, _)| {
            let path = args.dir.join(name);
            let text = std::fs::read_to_string(&path).ok()?;
            // Our units say where they are described; another unit of this name does not.
            text.contains("Documentation=man:pgkeep")
                .then_some((path, text))
        })
        .collect();
    if !args.dry_run {
        ask(setup, context).await?;
        // Timers that a package installed are switched off as well; missing ones are no failure.
        let disabled = systemctl(
            &[&["disable", "--now"], &timers[..]].concat(),
            setup,
            context,
        )
        .await;
        if !found.is_empty() {
            disabled?;
        }
        for (path, text) in &found {
            remove(path, text)?;
        }
        systemctl(&["daemon-reload"], setup, context).await?;
    }
    let units: Vec<String> = found
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    let document = json!({ "dry_run": args.dry_run, "units_removed": units, "timers": timers });
    output.document(&document, || {
        let (remove, stop) = if args.dry_run {
            ("would remove", "would stop")
        } else {
            ("removed", "stopped")
        };
        let stopped = timers.iter().map(|timer| format!("{stop} {timer}\n"));
        let removed = units.iter().map(|unit| format!("{remove} {unit}\n"));
        stopped.chain(removed).collect()
    });
    output.note("configuration, backups and /var/lib/pgkeep stay");
    Ok(())
}

/// Refuses a program that the services could not start, which would show at night only.
fn check_program(program: &Path) -> Result<()> {
    let refused = |why: &str| {
        let message = format!(
            "the services cannot start `{}`: {why}; nothing was changed",
            program.display()
        );
        Failure::new(Kind::Refused, "program_out_of_reach", message).hint(format!(
            "`sudo install -m 755 {} /usr/local/bin/pgkeep`, then `sudo /usr/local/bin/pgkeep deploy install systemd`",
            program.display()
        ))
    };
    if !program.is_file() {
        return Err(refused("there is no such file"));
    }
    match HIDDEN.iter().find(|folder| program.starts_with(folder)) {
        Some(folder) => Err(refused(&format!("they do not see {folder}"))),
        None => Ok(()),
    }
}

/// Returns the units that are not there yet, or not as they are now.
fn due(folder: &Path, program: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut due = Vec::new();
    for (name, text) in units() {
        let is_packaged = || {
            let mut folders = PACKAGED_UNITS.iter();
            folders.any(|packaged| Path::new(packaged).join(name).is_file())
        };
        let path = folder.join(name);
        // One in /etc would hide the package's from every later update.
        if program == PACKAGED && !path.exists() && is_packaged() {
            continue;
        }
        // systemd reads `%` as the start of a specifier, and splits at blanks.
        let named = format!(
            "\"{}\"",
            program
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('%', "%%")
        );
        let command = if program == PACKAGED {
            PACKAGED.to_owned()
        } else {
            named
        };
        let text = text.replace(
            &format!("ExecStart={PACKAGED} "),
            &format!("ExecStart={command} "),
        );
        if state(&path, &text)? == State::Due {
            due.push((path, text));
        }
    }
    Ok(due)
}

/// Asks whether a systemd runs here at all, before anything is changed.
async fn ask(setup: &Setup, context: &Context) -> Result<()> {
    let asked = run(&["show", "--property=Version"], setup, context).await;
    asked.map_err(|error| {
        let why = match error.reason {
            Reason::NotStarted { .. } => "there is no systemd here: no program `systemctl`",
            _ => "systemd does not answer",
        };
        let message = format!("{why}; nothing was changed");
        Failure::new(Kind::Program, "no_systemd", message)
            .with_details(error.stderr)
            .hint("`pgkeep deploy install cron`")
    })
}

async fn systemctl(arguments: &[&str], setup: &Setup, context: &Context) -> Result<()> {
    let done = run(arguments, setup, context).await;
    done.map_err(|error| {
        let message = format!(
            "`systemctl {}` failed; running this again is safe",
            arguments.join(" ")
        );
        Failure::new(Kind::Unexpected, "system_program_failed", message).with_details(error.stderr)
    })
}

async fn run(
    arguments: &[&str],
    setup: &Setup,
    context: &Context,
) -> std::result::Result<(), Error> {
    let environment = setup.program_environment().without_connection();
    let program = Program::new("systemctl", &environment).args(arguments.iter().copied());
    program
        .run(context.stop.token(), TIMEOUT, LIMIT)
        .await
        .map(drop)
}

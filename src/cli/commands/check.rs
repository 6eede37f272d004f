//! `pgkeep check` on the terminal.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::{PresetArg, StorageArgs};
use crate::cli::output::Output;
use crate::cli::screen::Screen;
use crate::cli::table::Table;
use pgkeep_core::context::Context;
use pgkeep_core::op::check::{Report, Verdict, run as check};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::check::{Overrides, request};
use pgkeep_model::failure::{Failure, Result};

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep check                           every database and storage of the configuration
  pgkeep -d shop check --json
  pgkeep check --storage ./backups       when DATABASE_URL is set
  pgkeep check --send-test               also sends a test notice

Each line is ok, WARN, FAIL or skipped, with the reason and what to do. What hangs is given up after some seconds. Each \
storage gets one small object, which no command takes for a backup and which is removed again; where a lock would keep \
it, that is done only with --write. Nothing else is changed.

The exit code is that of the worst failed line: 2 configuration, 12 login, 20 database, 21 required tables, 22 storage, \
24 stale, 26 programs. Warnings do not change it, but with --strict they make it 3.";

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Exit with code 3 when there are warnings
    #[arg(long)]
    pub strict: bool,
    /// Send a test notice to every notifier of the configuration
    #[arg(long)]
    pub send_test: bool,
    /// Write the small object also where it has to stay: in a locked bucket or an append-only storage
    #[arg(long)]
    pub write: bool,
    /// URL of the database [default: from the configuration, DATABASE_URL or libpq's variables]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub url: Option<String>,
    /// Name of the database in the storages [default: the one in the URL]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// File that holds the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Rules of a hosting service
    #[arg(long, value_enum, value_name = "SERVICE")]
    pub preset: Option<PresetArg>,
    /// Table that must be in the database, such as users or billing."Invoice Lines" (repeatable)
    #[arg(long = "require", value_name = "TABLE")]
    pub required: Vec<String>,
    /// Folder of the PostgreSQL programs
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
    /// Where backups go.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&CheckArgs> for Overrides {
    fn from(args: &CheckArgs) -> Self {
        Self {
            strict: args.strict,
            send_test: args.send_test,
            write: args.write,
            url: args.url.clone(),
            name: args.name.clone(),
            password_file: args.password_file.clone(),
            preset: args.preset.map(Into::into),
            required: args.required.clone(),
            bin_dir: args.bin_dir.clone(),
            storage: (&args.storage).into(),
        }
    }
}

pub(super) async fn run(
    args: &CheckArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    // Opening a folder makes it; one that was not there is taken away again, if nothing is in it.
    let missing = setup.missing_folders(&(&args.storage).into())?;
    let report = check(&request(&args.into(), setup, context)?, context).await;
    for folder in missing {
        let _ = fs::remove_dir(folder); // one that is not empty stays
    }
    output.document(&report, || text(&report, output.screen));
    report
        .failure
        .map_or(Ok(()), |failure| Err(in_short(failure, output)))
}

/// People have read everything in the lines; a script reads it from the error.
fn in_short(mut failure: Failure, output: &Output) -> Failure {
    if !output.json {
        failure.details.clear();
    }
    failure
}

fn text(report: &Report, screen: Screen) -> String {
    let mut out = String::new();
    let mut subjects: Vec<&str> = Vec::new();
    for line in &report.checks {
        if !subjects.contains(&line.subject.as_str()) {
            subjects.push(&line.subject);
        }
    }
    for subject in subjects {
        let mut shown = Table::new(&["result", "check", "about"])
            .texts(&[2])
            .lead(2);
        let lines = report.checks.iter().filter(|line| line.subject == subject);
        for line in lines {
            let details = line.details.iter().map(|detail| format!("\n  {detail}"));
            let hints = line.hints.iter().map(|hint| format!("\nhint: {hint}"));
            let below: String = details.chain(hints).collect();
            shown.add_row([
                word(line.verdict).to_owned(),
                line.check.replace('_', " "),
                format!("{}{below}", line.message),
            ]);
        }
        out += &format!("{subject}\n{}\n", shown.without_header().shown(screen));
    }
    out += &format!(
        "{} ok, {} with warnings, {} failed, {} skipped\n",
        report.ok, report.warned, report.failed, report.skipped
    );
    out
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
        Verdict::Skipped => "skipped",
    }
}

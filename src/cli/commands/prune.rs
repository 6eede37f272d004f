//! `pgkeep prune` on the terminal: each verdict with its reason, and what came of it.

use clap::Args;
use serde::Serialize;

use crate::cli::args::{PolicyArgs, StorageArgs};
use crate::cli::output::{Output, bytes, number};
use crate::cli::screen::Screen;
use crate::cli::table::Table;
use pgkeep_core::context::Context;
use pgkeep_core::op::prune::{Account, Line, Report, run as prune, worst};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::prune::{Overrides, requests};
use pgkeep_model::failure::{Failure, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::lease::whole_seconds;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep prune --dry-run                 shows what would be removed, and why
  pgkeep -d shop prune
  pgkeep prune --storage ./backups --keep-daily 7 --keep-weekly 4

prune never removes the newest good backup, the newest backup that passed a drill, pinned backups, and objects that pgkeep \
did not write or cannot read. Each storage is judged by itself. `backup` prunes by itself when the configuration has a \
policy.

While the newest backup is held (see accept), prune waits: it removes nothing, says so, and exits with 0.

Exit code 25: refused, and nothing was removed there. 3: some removals failed.";

/// Flags of `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Allow a run that removes more than half of more than ten backups
    #[arg(long)]
    pub allow_mass_delete: bool,
    /// How long to wait for another run of the same database [default: 0, which exits with code 11]
    #[arg(long, value_name = "TIME")]
    pub lock_timeout: Option<String>,
    /// The rules; none at all means the policy of the configuration.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Where to prune.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Most objects of others that are named one by one.
const MAX_LEFT: usize = 10;

impl From<&PruneArgs> for Overrides {
    fn from(args: &PruneArgs) -> Self {
        Self {
            dry_run: args.dry_run,
            allow_mass_delete: args.allow_mass_delete,
            lock_timeout: args.lock_timeout.clone(),
            policy: (&args.policy).into(),
            storage: (&args.storage).into(),
        }
    }
}

/// The document of the whole command.
#[derive(Serialize)]
struct Document<'a> {
    dry_run: bool,
    databases: &'a [Report],
}

pub(super) async fn run(
    args: &PruneArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let planned = requests(&args.into(), setup).await?;
    planned.notes.iter().for_each(|note| output.note(note));
    let mut reports = Vec::new();
    for opened in planned.requests {
        let report = match opened {
            Ok((request, _)) if context.stop.is_requested() => {
                let failure = not_begun("prune", &request.database, context);
                Report::failed(&request.database, args.dry_run, failure)
            }
            Ok((request, lock)) => prune(&request, &lock, context).await,
            Err((database, failure)) => Report::failed(&database, args.dry_run, failure),
        };
        for warning in &report.warnings {
            output.warning(&format!("{}: {}", report.database, warning.message));
        }
        reports.push(report);
    }
    let document = Document {
        dry_run: args.dry_run,
        databases: &reports,
    };
    output.document(&document, || {
        let reports = reports.iter();
        reports.map(|report| text(report, output.screen)).collect()
    });
    let failures = reports.into_iter().filter_map(|report| report.failure);
    worst(failures.collect()).map_or(Ok(()), Err)
}

/// The failure of a database that a stop came before.
pub(super) fn not_begun(verb: &str, database: &DatabaseName, context: &Context) -> Failure {
    let what = format!("{verb} of `{database}` was not started");
    context.stop.failure(&what).and_safe("nothing was removed")
}

pub(super) fn text(report: &Report, screen: Screen) -> String {
    let mut out = String::new();
    if let Some(held) = &report.waits_for {
        out += &screen.fitted(&format!(
            "{}: waits, nothing was removed: `{held}` is held\n",
            report.database
        ));
    }
    for account in &report.storages {
        out += &screen.fitted(&format!("{} in {}\n", report.database, account.url));
        out += &account_text(account, report.dry_run, screen);
        out.push('\n');
    }
    out
}

fn account_text(account: &Account, is_dry: bool, screen: Screen) -> String {
    let mut out = String::new();
    let mut lines: Vec<(&Line, bool)> = account.keep.iter().map(|line| (line, true)).collect();
    lines.extend(account.remove.iter().map(|line| (line, false)));
    lines.sort_by(|(one, _), (other, _)| {
        (other.started_at, &other.id).cmp(&(one.started_at, &one.id))
    });
    if !lines.is_empty() {
        let mut shown = Table::new(&["verdict", "id", "size", "because"])
            .right(&[2])
            .texts(&[3])
            .lead(2);
        for (line, is_kept) in &lines {
            let reasons = line.reasons.join(", ");
            let because = match (&line.error, line.retained_until) {
                (Some(error), _) => format!("{reasons}; not removed: {error}"),
                (None, Some(until)) => {
                    format!("{reasons}; retained until {}", whole_seconds(until))
                }
                (None, None) if line.retained => format!("{reasons}; retained by the storage"),
                (None, None) => reasons,
            };
            let mark = match (is_kept, line.removed, is_dry) {
                (true, ..) => "keep",
                (false, ..) if account.append_only => "stays",
                (false, _, true) => "would remove",
                (false, Some(true), _) if line.hidden => "hidden",
                (false, Some(true), _) => "removed",
                (false, ..) if line.retained => "retained",
                (false, ..) => "NOT removed",
            };
            shown.add_row([
                mark.to_owned(),
                line.id.clone(),
                bytes(line.size_bytes),
                because,
            ]);
        }
        out += &shown.shown(screen);
    }
    for left in account.left.iter().take(MAX_LEFT) {
        out += &screen.fitted(&format!("skipped: {} ({})\n", left.key, left.why));
    }
    if account.left.len() > MAX_LEFT {
        let more = (account.left.len() - MAX_LEFT) as u64;
        out += &format!("skipped: {} more objects\n", number(more));
    }
    let is_dry = is_dry && !account.append_only;
    let gone = account
        .remove
        .iter()
        .filter(|line| is_dry || line.removed == Some(true));
    let freed: u64 = (gone.clone())
        .filter(|line| !line.hidden)
        .map(|line| line.size_bytes)
        .sum();
    out += &format!(
        "{} kept, {} {}{}\n",
        number(account.keep.len() as u64),
        number(gone.count() as u64),
        if is_dry {
            "would be removed"
        } else {
            "removed"
        },
        match freed {
            0 => String::new(),
            freed => format!(" ({})", bytes(freed)),
        }
    );
    for note in &account.notes {
        out += &screen.fitted(&format!("note: {note}\n"));
    }
    out
}

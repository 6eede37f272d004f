//! `pgkeep status` on the terminal, as JSON, and as the one line that Nagios reads.

use std::time::Duration;

use clap::Args;

use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes, counted, number, took};
use crate::cli::screen::Screen;
use crate::cli::table::Table;
use pgkeep_core::context::Context;
use pgkeep_core::op::notices::undelivered;
use pgkeep_core::op::status::{Report, Status, run as status, run_and_tell, tell_unknown};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::status::{Overrides, names, request, telling};
use pgkeep_model::failure::{Kind, Result};
use pgkeep_model::freshness::{Freshness, age};

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep status                          every database of the configuration, by its `max_age`
  pgkeep status --storage ./backups --max-age 26h
  pgkeep -d shop status --nagios

status reads storages only, so it works on any host that can read them. Exit code 24: a database has no good backup that \
is young enough. 21: the newest backup is held, because it lost what the ones before it had (see accept). A held backup is \
never fresh.

With --nagios the exit codes are 0 fresh, 1 fresh with a warning, 2 stale or held, 3 unknown.";

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How old the newest good backup may be, such as 26h [default: `max_age` of the configuration]
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<String>,
    /// Print one line for Nagios, and exit with its codes
    #[arg(long, conflicts_with = "json")]
    pub nagios: bool,
    /// Also notify about each database that needs attention, where a notifier asks for `stale`
    #[arg(long)]
    pub notify: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&StatusArgs> for Overrides {
    fn from(args: &StatusArgs) -> Self {
        Self {
            max_age: args.max_age.clone(),
            storage: (&args.storage).into(),
        }
    }
}

/// Nagios' own codes. <https://nagios-plugins.org/doc/guidelines.html#AEN78>
const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

pub(super) async fn run(
    args: &StatusArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let report = if args.notify {
        status_and_tell(args, setup, context).await
    } else {
        match request(&args.into(), setup, context.clock.now()) {
            Ok(request) => status(request).await,
            Err(failure) => Err(failure),
        }
    };
    if args.nagios {
        nagios(report, output);
        return Ok(());
    }
    let report = report?;
    output.document(&report, || {
        let databases = report.databases.iter();
        databases.map(|one| text(one, output.screen)).collect()
    });
    for state in &report.storages {
        if let Some(error) = &state.error {
            output.warning(&format!("`{}` did not answer: {error}", state.url));
        }
    }
    for warning in undelivered(&report.notices) {
        output.warning(&warning);
    }
    report.failure.map_or(Ok(()), Err)
}

/// Judges and notifies. What keeps the watch from looking at all is a notice as well: no one would notice a blind watch.
async fn status_and_tell(args: &StatusArgs, setup: &Setup, context: &Context) -> Result<Report> {
    let context = &telling(&args.into(), setup, context)?;
    let failure = match request(&args.into(), setup, context.clock.now()) {
        Ok(request) => return run_and_tell(request, context).await,
        Err(failure) => failure,
    };
    Err(tell_unknown(&names(setup)?, failure, context.clock.now(), context).await)
}

fn text(status: &Status, screen: Screen) -> String {
    let rows = [newest(status), amounts(status), history(status)].concat();
    let lines: String = rows
        .iter()
        .map(|(name, value)| format!("  {name:<16}{value}\n"))
        .collect();
    let facts = format!("{}: {}\n{lines}", status.database, verdict(status));
    let warnings = screen.fitted(&warnings(status));
    screen.fitted(&facts) + &runs(status, screen) + &warnings + "\n"
}

type Row = (&'static str, String);

fn newest(status: &Status) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let newest = match &status.newest_good {
        Some(newest) => format!(
            "{}, {}, {}",
            newest.id,
            old(newest.age_seconds),
            bytes(newest.size_bytes)
        ),
        None => "none".to_owned(),
    };
    rows.push(("newest good", newest));
    if let Some(newest) = &status.newest_drilled {
        rows.push((
            "newest drilled",
            format!("{}, {}", newest.id, old(newest.age_seconds)),
        ));
    }
    if let Some(drill) = &status.drill {
        let passed = match drill.age_seconds {
            Some(seconds) => format!("passed {} ago", age(seconds)),
            None => "none".to_owned(),
        };
        let verdict = match drill.freshness {
            Freshness::Stale => ", STALE",
            Freshness::Fresh | Freshness::NotJudged => "",
        };
        let failed = drill.failed.as_ref().map_or_else(String::new, |failed| {
            format!(", then FAILED {} ago", age(failed.age_seconds.max(0)))
        });
        rows.push(("last drill", format!("{passed}{verdict}{failed}")));
    }
    rows
}

fn old(seconds: i64) -> String {
    match seconds {
        ..0 => age(seconds),
        _ => format!("{} old", age(seconds)),
    }
}

fn amounts(status: &Status) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let held = status.held.len() as u64;
    let marks: String = [
        (status.pinned, "pinned"),
        (held, "HELD"),
        (status.damaged, "DAMAGED"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, mark)| format!(", {} {mark}", number(count)))
    .collect();
    rows.push((
        "backups",
        format!(
            "{}, {}{marks}",
            number(status.backups),
            bytes(status.size_bytes)
        ),
    ));
    let tiers: Vec<String> = status
        .tiers
        .iter()
        .map(|(tier, share)| {
            format!(
                "{} {tier} ({})",
                number(share.backups),
                bytes(share.size_bytes)
            )
        })
        .collect();
    if !tiers.is_empty() {
        rows.push(("kept as", tiers.join(", ")));
    }
    for set in &status.keys {
        let proven = match set.proven_at {
            Some(at) => format!("proven {}", at.strftime("%Y-%m-%d")),
            None => "never proven".to_owned(),
        };
        let backups = counted(set.backups, "backup", "backups");
        rows.push((
            "encrypted for",
            format!("{}: {backups}, {proven}", set.in_words()),
        ));
    }
    for copies in &status.storages {
        let count = number(copies.backups);
        let missing = if copies.missing > 0 {
            let (missing, kept) = (number(copies.missing), number(status.kept));
            format!("; lacks {missing} of {kept} kept backups: `pgkeep sync`")
        } else {
            String::new()
        };
        rows.push((
            "in",
            format!(
                "{}: {count}, {}{missing}",
                copies.name,
                bytes(copies.size_bytes)
            ),
        ));
    }
    rows
}

fn history(status: &Status) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // Backups of one day say nothing of growth.
    if let Some(growth) = status.growth.as_ref().filter(|growth| growth.days >= 1.0) {
        let (from, to) = (bytes(growth.from_bytes), bytes(growth.to_bytes));
        rows.push((
            "growth",
            format!("{from} to {to} in {}", age((growth.days * 86_400.0) as i64)),
        ));
    }
    if status.success.all > 0 {
        let success = status.success;
        rows.push((
            "success",
            format!(
                "{} of {} since {}",
                number(success.good),
                counted(success.all, "run", "runs"),
                status.success_since.strftime("%Y-%m-%d")
            ),
        ));
    }
    rows
}

fn verdict(status: &Status) -> String {
    let allowed = status
        .max_age_seconds
        .map(|age| format!(" (allowed: {})", plain(Duration::from_secs(age))))
        .unwrap_or_default();
    match status.freshness {
        Freshness::Fresh => format!("fresh{allowed}"),
        Freshness::Stale => format!("STALE{allowed}"),
        Freshness::NotJudged => "not judged; `max_age` or `--max-age 26h` sets a limit".to_owned(),
    }
}

fn plain(duration: Duration) -> String {
    age(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

fn runs(status: &Status, screen: Screen) -> String {
    if status.last_runs.is_empty() {
        return String::new();
    }
    let headers = [
        "last runs (UTC)",
        "command",
        "took",
        "code",
        "backup or failure",
    ];
    let mut shown = Table::new(&headers).right(&[2, 3]).texts(&[4]).lead(4);
    for run in &status.last_runs {
        let what = run.failure.clone().or_else(|| run.reason.clone());
        shown.add_row([
            run.started_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            run.verb.clone(),
            took(run.took_ms),
            run.exit_code.to_string(),
            what.or_else(|| run.backup_id.clone()).unwrap_or_default(),
        ]);
    }
    shown.shown(screen)
}

fn warnings(status: &Status) -> String {
    let lines = status.warnings.iter();
    lines
        .map(|warning| format!("  warning: {warning}\n"))
        .collect()
}

/// One line on standard output, and the code that Nagios expects. Nothing on standard error: Nagios does not read it.
fn nagios(report: Result<Report>, output: &Output) {
    let (code, line) = match &report {
        Ok(report) => nagios_line(report),
        Err(failure) => (UNKNOWN, format!("UNKNOWN - {}", failure.message)),
    };
    output.data(&format!("{line}\n"));
    output.end_with(code);
}

fn nagios_line(report: &Report) -> (u8, String) {
    let is_stale = |status: &&Status| status.freshness == Freshness::Stale;
    let is_any_stale =
        report.databases.is_empty() || report.databases.iter().any(|one| is_stale(&one));
    // A backup that could not be restored is none.
    let is_any_useless = report.databases.iter().any(|status| {
        let failed = status
            .drill
            .iter()
            .filter_map(|drill| drill.failed.as_ref());
        failed
            .into_iter()
            .any(|failed| failed.exit_code == Kind::Damaged.exit_code())
    });
    let is_odd =
        report.failure.is_some() || report.databases.iter().any(|one| !one.warnings.is_empty());
    // Rows that are gone wait for nobody.
    let is_any_held = report.databases.iter().any(Status::is_newest_held);
    let is_bad = is_any_stale || is_any_useless || is_any_held;
    let (code, word) = match (is_bad, is_odd) {
        (true, _) => (CRITICAL, "CRITICAL"),
        (false, true) => (WARNING, "WARNING"),
        (false, false) => (OK, "OK"),
    };
    let databases = report.databases.iter().map(|status| {
        let newest = match &status.newest_good {
            Some(newest) => format!("newest good backup {}", age(newest.age_seconds)),
            None => "no good backup".to_owned(),
        };
        let odd: String = status
            .warnings
            .iter()
            .map(|warning| format!(", {warning}"))
            .collect();
        let stale = if is_stale(&status) { "stale, " } else { "" };
        format!("{}: {stale}{newest}{odd}", status.database)
    });
    let unanswered = report
        .storages
        .iter()
        .filter_map(|state| Some(format!("{}: {}", state.url, state.error.as_ref()?)));
    let parts: Vec<String> = databases.chain(unanswered).collect();
    let words = if parts.is_empty() {
        "no backup".to_owned()
    } else {
        parts.join("; ")
    };
    let data: Vec<String> = report.databases.iter().filter_map(performance).collect();
    // A bar ends the text, and a line break the whole.
    let line = words.replace(['|', '\n'], " ");
    (code, format!("{word} - {line} | {}", data.join(" ")))
}

/// `'label'=value[unit];warn;crit`.
fn performance(status: &Status) -> Option<String> {
    let newest = status.newest_good.as_ref()?;
    let limit = status
        .max_age_seconds
        .map(|age| age.to_string())
        .unwrap_or_default();
    Some(format!(
        "'{0}_age'={1}s;;{limit} '{0}_size'={2}B '{0}_backups'={3}",
        status.database, newest.age_seconds, newest.size_bytes, status.backups
    ))
}

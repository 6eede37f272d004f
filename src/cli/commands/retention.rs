//! `pgkeep retention` on the terminal: a calendar of what is kept, and each kept time with its reasons.

mod calendar;

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::args::PolicyArgs;
use crate::cli::output::{Output, counted, number};
use crate::cli::screen::Screen;
use crate::cli::table::Table;
use calendar::Entry;
use pgkeep_core::context::Context;
use pgkeep_core::op::retention::{Judged, Report, run as judge};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::retention::{Overrides, request};
use pgkeep_model::config::Retention;
use pgkeep_model::failure::Result;
use pgkeep_model::retention::Reason;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep retention --keep-daily 7 --keep-weekly 4 --simulate '0 3 * * *' --for 2y
  pgkeep retention --keep-last 3 --keep-within 30d --from times.txt
  pgkeep -d shop retention --simulate '@hourly' --for 30d

Without --keep flags, the policy of the configuration is used.

Each rule goes through the backups from the newest to the oldest. It keeps the newest backup of each period that has one, \
until its count is used up. If the backups run out first, it also keeps the oldest one. A backup that any rule keeps is \
kept. Weeks are ISO weeks. A backup that starts more than 10 minutes after now is kept and not counted. restic has the same \
rules since 0.16.

Pruning after every backup keeps the same backups as pruning once, so a simulated schedule is judged once, at its end.

The calendar marks each day with the tier that is kept longest; a calendar of a few days marks each hour.

Exit code 25: the policy has no rule, so it would keep nothing.";

/// Flags of `retention`.
#[derive(Debug, Args)]
pub struct RetentionArgs {
    /// The rules; none at all means the policy of the configuration.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// File with one RFC 3339 time per line, blank lines and # comments; - is standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "simulate",
        help_heading = "Times"
    )]
    pub from: Option<PathBuf>,
    /// Judge the times of this cron expression: minute, hour, day, month, weekday
    #[arg(long, value_name = "CRON", help_heading = "Times")]
    pub simulate: Option<String>,
    /// How long the simulated schedule has been running until now
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "2y",
        help_heading = "Times"
    )]
    pub length: String,
    /// Judge as if it were this RFC 3339 time [default: now]
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    pub now: Option<String>,
}

/// Most kept times that are listed for people: more scroll past unread.
const MAX_LISTED: usize = 100;

impl From<&RetentionArgs> for Overrides {
    fn from(args: &RetentionArgs) -> Self {
        Self {
            policy: (&args.policy).into(),
            from: args.from.clone(),
            simulate: args.simulate.clone(),
            length: args.length.clone(),
            now: args.now.clone(),
        }
    }
}

pub(super) fn run(
    args: &RetentionArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup, context.clock.now())?;
    let report = judge(&request)?;
    let is_future = |one: &&Judged| one.reasons.contains(&Reason::Future);
    let future = report.keep.iter().filter(is_future).count();
    if future > 0 {
        output.warning(&format!(
            "{} after {} and not counted; `--now TIME` judges as of another day",
            counted(future as u64, "time is", "times are"),
            request.now
        ));
    }
    output.document(&report, || text(&report, &request.policy, output.screen));
    Ok(())
}

/// Names the rules that are given.
fn rules(policy: &Retention) -> Vec<String> {
    let counts = [
        ("last", policy.keep_last),
        ("hourly", policy.keep_hourly),
        ("daily", policy.keep_daily),
        ("weekly", policy.keep_weekly),
        ("monthly", policy.keep_monthly),
        ("yearly", policy.keep_yearly),
    ];
    let mut rules: Vec<String> = counts
        .into_iter()
        .filter_map(|(tier, count)| Some(format!("{} {tier}", count?)))
        .collect();
    rules.extend(policy.keep_within.map(|age| format!("all within {age:#}")));
    rules
}

fn text(report: &Report, policy: &Retention, screen: Screen) -> String {
    let zone = &policy.timezone;
    let name = zone.iana_name().unwrap_or("UTC");
    let mut out = format!(
        "keep {}; days are counted in {name}\n",
        rules(policy).join(", ")
    );
    out = screen.fitted(&out);
    let (kept, removed) = (report.keep.len(), report.remove.len());
    if kept + removed == 0 {
        return out + "\nthere are no times to judge\n";
    }
    let entry = |one: &Judged, is_kept| Entry {
        start: one.time.to_zoned(zone.clone()),
        is_kept,
        tiers: one.tiers.clone(),
    };
    let keep = report.keep.iter().map(|one| entry(one, true));
    let remove = report.remove.iter().map(|one| entry(one, false));
    out += &format!(
        "\n{}\n",
        screen.fitted(&calendar::draw(keep.chain(remove).collect()))
    );
    out += &list(&report.keep, zone).shown(screen);
    if kept > MAX_LISTED {
        let more = number((kept - MAX_LISTED) as u64);
        out += &format!("and {more} older ones; `--json` lists all\n");
    }
    let (kept, removed) = (number(kept as u64), number(removed as u64));
    out + &format!("\n{kept} kept, {removed} removed\n")
}

/// Lists the kept times, newest first, on the clock of the policy.
fn list(keep: &[Judged], zone: &TimeZone) -> Table {
    let mut newest: Vec<&Judged> = keep.iter().collect();
    newest.sort_by_key(|one| std::cmp::Reverse(one.time));
    let mut out = Table::new(&["day", "kept", "because"]).texts(&[2]).lead(2);
    for one in newest.into_iter().take(MAX_LISTED) {
        let reasons: Vec<String> = one.reasons.iter().map(ToString::to_string).collect();
        out.add_row([
            one.time.to_zoned(zone.clone()).strftime("%a").to_string(),
            local(one.time, zone),
            reasons.join(", "),
        ]);
    }
    out
}

fn local(time: Timestamp, zone: &TimeZone) -> String {
    let offset = zone.to_offset(time);
    time.display_with_offset(offset).to_string()
}

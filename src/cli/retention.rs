//! `pgkeep retention` on the terminal: a calendar of what is kept, and each kept time with its reasons.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::args::{PolicyArgs, RetentionArgs};
use super::calendar::{self, Entry};
use super::output::{Output, number, table};
use pgkeep_core::context::Context;
use pgkeep_core::op::retention::{Judged, Report, run as judge};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::retention::{Overrides, PolicyOverrides, request};
use pgkeep_model::config::Retention;
use pgkeep_model::failure::Result;
use pgkeep_model::retention::Reason;

/// Most kept times that are listed for people: more scroll past unread.
const MAX_LISTED: usize = 100;

pub(super) fn run(
    args: &RetentionArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let overrides = Overrides {
        policy: (&args.policy).into(),
        from: args.from.clone(),
        simulate: args.simulate.clone(),
        length: args.length.clone(),
        now: args.now.clone(),
    };
    let request = request(&overrides, setup, context.clock.now())?;
    let report = judge(&request)?;
    let is_future = |one: &&Judged| one.reasons.contains(&Reason::Future);
    let future = report.keep.iter().filter(is_future).count();
    if future > 0 {
        output.warning(&format!(
            "{} of the times lie ahead of {} and are not counted; `--now TIME` looks from another day",
            number(future as u64),
            request.now
        ));
    }
    output.document(&report, || text(&report, &request.policy));
    Ok(())
}

impl From<&PolicyArgs> for PolicyOverrides {
    fn from(args: &PolicyArgs) -> Self {
        Self {
            keep_last: args.keep_last,
            keep_hourly: args.keep_hourly,
            keep_daily: args.keep_daily,
            keep_weekly: args.keep_weekly,
            keep_monthly: args.keep_monthly,
            keep_yearly: args.keep_yearly,
            keep_within: args.keep_within.clone(),
            timezone: args.timezone.clone(),
        }
    }
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
    let counts = counts
        .into_iter()
        .filter_map(|(tier, count)| Some((tier, count?)));
    let mut rules: Vec<String> = counts
        .map(|(tier, count)| format!("{count} {tier}"))
        .collect();
    rules.extend(policy.keep_within.map(|age| format!("all within {age:#}")));
    rules
}

fn text(report: &Report, policy: &Retention) -> String {
    let zone = &policy.timezone;
    let name = zone.iana_name().unwrap_or("UTC");
    let mut out = format!(
        "keep {}; the calendar is that of {name}\n",
        rules(policy).join(", ")
    );
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
    out += &format!("\n{}", calendar::draw(keep.chain(remove).collect()));
    out.push('\n');
    for line in list(&report.keep, zone).lines() {
        out += line.trim_end();
        out.push('\n');
    }
    if kept > MAX_LISTED {
        let more = number((kept - MAX_LISTED) as u64);
        out += &format!("… and {more} older ones; `--json` lists all\n");
    }
    let (kept, removed) = (number(kept as u64), number(removed as u64));
    out + &format!("\n{kept} kept, {removed} removed\n")
}

/// Lists the kept times, newest first, on the clock of the policy.
fn list(keep: &[Judged], zone: &TimeZone) -> comfy_table::Table {
    let mut newest: Vec<&Judged> = keep.iter().collect();
    newest.sort_by_key(|one| std::cmp::Reverse(one.time));
    let mut out = table(&["", "kept", "because"]);
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

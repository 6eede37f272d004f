//! What `retention` is to do, and the policy that overrides or the configuration give.

use std::path::PathBuf;

use jiff::Timestamp;

use super::Setup;
use crate::op::retention::{Request, Times};
use pgkeep_model::config::{Retention, parse_span, parse_timezone};
use pgkeep_model::failure::{Failure, Kind, Result};

/// A policy for one run.
#[derive(Clone, Debug, Default)]
pub struct PolicyOverrides {
    /// Keep the newest N.
    pub keep_last: Option<u32>,
    /// Keep the newest of each of N hours.
    pub keep_hourly: Option<u32>,
    /// Of each of N days.
    pub keep_daily: Option<u32>,
    /// Of each of N ISO weeks.
    pub keep_weekly: Option<u32>,
    /// Of each of N months.
    pub keep_monthly: Option<u32>,
    /// Of each of N years.
    pub keep_yearly: Option<u32>,
    /// Keep all that are younger.
    pub keep_within: Option<String>,
    /// Zone that days, weeks, months and years are counted in.
    pub timezone: Option<String>,
}

/// Which times are judged, and by what.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The rules; none at all means the policy of the configuration.
    pub policy: PolicyOverrides,
    /// File with one time per line; `-` is standard input.
    pub from: Option<PathBuf>,
    /// Cron expression whose times are judged.
    pub simulate: Option<String>,
    /// How long that schedule has been running.
    pub length: String,
    /// Look from this time.
    pub now: Option<String>,
}

/// Returns the request to judge times; `now` is the present.
pub fn request(overrides: &Overrides, setup: &Setup, now: Timestamp) -> Result<Request> {
    Ok(Request {
        now: match &overrides.now {
            Some(text) => text.parse().map_err(|_| no_time(text))?,
            None => now,
        },
        times: times(overrides)?,
        policy: policy(&overrides.policy, setup)?,
    })
}

fn no_time(text: &str) -> Failure {
    let message = format!(
        "cannot read `--now {text}`: it is not an RFC 3339 time such as `2026-01-16T03:00:00+01:00`"
    );
    Failure::new(Kind::Usage, "bad_time", message)
}

fn times(overrides: &Overrides) -> Result<Times> {
    let bad = |flag, text: &str, why: String| {
        let message = format!("cannot read `{flag} {text}`: {why}");
        Failure::new(Kind::Usage, "bad_schedule", message)
    };
    if let Some(path) = &overrides.from {
        return Ok(if path.as_os_str() == "-" {
            Times::Stdin
        } else {
            Times::File(path.clone())
        });
    }
    let Some(cron) = &overrides.simulate else {
        let message = "no times were given to judge";
        return Err(Failure::new(Kind::Usage, "no_times", message)
            .hint("`--simulate '0 3 * * *' --for 2y` judges the backups that a schedule would make")
            .hint("`--from FILE` judges times from a file, one per line; `--from -` reads standard input"));
    };
    let schedule = cron.parse().map(Box::new);
    let length = parse_span(&overrides.length)
        .map_err(|why| bad("--for", &overrides.length, format!("it {why}")));
    Ok(Times::Schedule {
        schedule: schedule.map_err(|why| bad("--simulate", cron, why))?,
        length: length?,
    })
}

/// Returns the policy of the flags, or the configuration's where no flag has a rule.
fn policy(overrides: &PolicyOverrides, setup: &Setup) -> Result<Retention> {
    let mut policy = match flags(overrides)? {
        Some(policy) => policy,
        None => setup.retention()?.unwrap_or_default(),
    };
    set_zone(&mut policy, overrides)?;
    Ok(policy)
}

/// Sets the zone that a flag names.
pub(super) fn set_zone(policy: &mut Retention, overrides: &PolicyOverrides) -> Result<()> {
    if let Some(text) = &overrides.timezone {
        policy.timezone = parse_timezone(text).map_err(|why| bad("--timezone", text, why))?;
    }
    Ok(())
}

fn bad(flag: &str, text: &str, why: String) -> Failure {
    let message = format!("cannot read `{flag} {text}`: it {why}");
    Failure::new(Kind::Usage, "bad_policy", message)
}

/// Returns the policy of the flags; none where no flag has a rule.
pub(super) fn flags(overrides: &PolicyOverrides) -> Result<Option<Retention>> {
    let within = overrides
        .keep_within
        .as_deref()
        .map(|text| parse_span(text).map_err(|why| bad("--keep-within", text, why)));
    let flags = Retention {
        keep_last: overrides.keep_last,
        keep_hourly: overrides.keep_hourly,
        keep_daily: overrides.keep_daily,
        keep_weekly: overrides.keep_weekly,
        keep_monthly: overrides.keep_monthly,
        keep_yearly: overrides.keep_yearly,
        keep_within: within.transpose()?,
        ..Retention::default()
    };
    Ok(has_rule(&flags).then_some(flags))
}

fn has_rule(policy: &Retention) -> bool {
    let counts = [
        policy.keep_last,
        policy.keep_hourly,
        policy.keep_daily,
        policy.keep_weekly,
        policy.keep_monthly,
        policy.keep_yearly,
    ];
    counts.iter().any(Option::is_some) || policy.keep_within.is_some()
}

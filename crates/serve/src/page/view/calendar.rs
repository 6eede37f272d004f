//! The retention calendar: why each backup is kept, and when it goes.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::known::marks;
use crate::snapshot::{Snapshot, Verb};
use pgkeep_core::op::stored::StoredBackup;
use pgkeep_model::config::Retention;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::retention::{Candidate, forward, plan};
use pgkeep_model::schedule::Schedule;

/// How many days ahead is looked.
const DAYS: u16 = 400;

/// What the calendar shows.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// The database.
    pub name: String,
    /// The policy in words; none where everything is kept.
    pub policy: Option<String>,
    /// The zone of the policy.
    pub zone: String,
    /// The schedule that is looked ahead with, and its zone.
    pub schedule: Option<(String, String)>,
    /// The last day that was looked at.
    pub until: Option<Date>,
    /// The backups, newest first.
    pub rows: Vec<CalendarRow>,
    /// How many backups a prune removes now, and how many bytes that frees in one storage.
    pub next_prune: (usize, u64),
    /// Whether it would refuse to, because that is more than half of them.
    pub is_too_much: bool,
}

/// One backup.
#[derive(Clone, Debug)]
pub struct CalendarRow {
    /// Its id.
    pub id: String,
    /// When its run began.
    pub at: Timestamp,
    /// Its size in one storage.
    pub size_bytes: u64,
    /// What holds it now, in words.
    pub reasons: Vec<String>,
    /// The rules that hold it, by name.
    pub tiers: Vec<String>,
    /// What it is marked as.
    pub marks: Vec<&'static str>,
    /// Whether the policy lets it go now.
    pub goes_now: bool,
    /// The day on which it goes; none for one that stays as long as was looked.
    pub goes: Option<Date>,
}

/// Makes the calendar of a database; none where there is none of this name.
pub fn calendar(snapshot: &Snapshot, name: &DatabaseName, now: Timestamp) -> Option<Calendar> {
    super::status(snapshot, name)?;
    let backups: Vec<&StoredBackup> = snapshot
        .listing
        .backups
        .iter()
        .filter(|backup| {
            let place = &backup.place;
            place.id.database() == name && !place.is_partial && backup.is_committed()
        })
        .collect();
    let policy = snapshot
        .config
        .database(name.as_str())
        .and_then(|database| database.retention.clone());
    let planned = snapshot
        .plans
        .iter()
        .find(|plan| &plan.database == name && plan.verb == Verb::Backup);
    let slots = planned.and_then(|plan| {
        let schedule: Schedule = plan.schedule.parse().ok()?;
        let zone = TimeZone::get(&plan.zone).ok()?;
        let end = now + SignedDuration::from_hours(24 * i64::from(DAYS));
        Some((schedule, zone, plan.offset, end))
    });
    let candidates: Vec<Candidate> = backups
        .iter()
        .map(|backup| Candidate::stored(backup.place.id.started_at(), backup.marks()))
        .collect();
    let judged = policy.as_ref().and_then(|policy| {
        let decided = plan(policy, &candidates, now).ok()?;
        let ahead = match &slots {
            Some((schedule, zone, offset, end)) => {
                let slots = schedule.between(now - *offset, *end, zone);
                forward(
                    policy,
                    &candidates,
                    slots.map(|slot| slot + *offset),
                    now,
                    DAYS,
                )
            }
            None => forward(policy, &candidates, std::iter::empty(), now, DAYS),
        };
        Some((decided, ahead.ok()?))
    });
    let mut rows: Vec<CalendarRow> = backups
        .iter()
        .enumerate()
        .map(|(at, backup)| {
            let verdict = judged.as_ref().map(|(decided, _)| &decided.verdicts[at]);
            let ahead = judged.as_ref().map(|(_, ahead)| ahead);
            CalendarRow {
                id: backup.place.id.to_string(),
                at: backup.place.id.started_at(),
                size_bytes: backup.size_bytes(),
                reasons: verdict.map_or_else(
                    || vec!["no policy: everything is kept".to_owned()],
                    |verdict| verdict.reasons.iter().map(ToString::to_string).collect(),
                ),
                tiers: verdict
                    .map(|verdict| verdict.tiers().iter().map(ToString::to_string).collect())
                    .unwrap_or_default(),
                marks: marks(backup),
                goes_now: ahead.is_some_and(|ahead| ahead.gone_now[at]),
                goes: ahead.and_then(|ahead| ahead.goes[at]),
            }
        })
        .collect();
    rows.reverse();
    let next_prune = rows
        .iter()
        .filter(|row| row.goes_now)
        .fold((0, 0), |(count, size), row| {
            (count + 1, size + row.size_bytes)
        });
    Some(Calendar {
        name: name.to_string(),
        zone: policy
            .as_ref()
            .map_or("UTC", |policy| zone_name(&policy.timezone))
            .to_owned(),
        policy: policy.as_ref().map(in_words),
        schedule: planned.map(|plan| (plan.schedule.clone(), plan.zone.clone())),
        is_too_much: judged
            .as_ref()
            .is_some_and(|(decided, _)| decided.removes_too_much()),
        until: judged.map(|(_, ahead)| ahead.until),
        rows,
        next_prune,
    })
}

fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

fn in_words(policy: &Retention) -> String {
    let counts = [
        (policy.keep_last, "last"),
        (policy.keep_hourly, "hourly"),
        (policy.keep_daily, "daily"),
        (policy.keep_weekly, "weekly"),
        (policy.keep_monthly, "monthly"),
        (policy.keep_yearly, "yearly"),
    ];
    let mut words: Vec<String> = counts
        .into_iter()
        .filter_map(|(count, word)| Some(format!("{} {word}", count.filter(|count| *count > 0)?)))
        .collect();
    words.extend(
        policy
            .keep_within
            .map(|span| format!("all within {span:#}")),
    );
    if policy.keep_pre_deploy.is_some() {
        words.push("pre-deploy ones by their own rule".to_owned());
    }
    if words.is_empty() {
        return "no rule, so nothing is ever removed".to_owned();
    }
    format!("keep {}", words.join(", "))
}

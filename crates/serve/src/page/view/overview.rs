//! All databases at a glance, worst first.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::fate::{Light, light};
use super::known::{DrillCell, Newest, drill};
use super::run::{RunRow, of_record};
use super::{copies, stored};
use crate::runs::{RunView, State};
use crate::snapshot::{Snapshot, Verb};
use pgkeep_core::op::status::Status;

/// What the overview shows.
#[derive(Clone, Debug)]
pub struct Overview {
    /// When the storages were listed; none where they never were.
    pub at: Option<Timestamp>,
    /// Why what is known of them may no longer be so.
    pub doubt: Option<String>,
    /// All databases together.
    pub totals: Totals,
    /// The storages.
    pub storages: Vec<StorageLine>,
    /// The databases, worst first.
    pub rows: Vec<DatabaseRow>,
}

/// Sums over all databases.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Databases by their light: good, not judged, attention, bad.
    pub lights: [usize; 4],
    /// Backups.
    pub backups: u64,
    /// Runs of `backup` of 30 days that went well, and all of them.
    pub success: (u64, u64),
    /// Runs of any kind that failed within 7 days.
    pub failed_lately: u64,
    /// Slots of 7 days that nobody ran.
    pub missed_lately: u64,
    /// What runs now.
    pub running: usize,
}

/// One storage.
#[derive(Clone, Debug)]
pub struct StorageLine {
    /// Its name.
    pub name: String,
    /// Why it did not answer.
    pub error: Option<String>,
    /// How many backups it has.
    pub backups: u64,
    /// How many bytes.
    pub size_bytes: u64,
    /// How many copies it lacks.
    pub missing: u64,
}

/// A run that is under way, here or elsewhere.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its id, where it is known.
    pub id: Option<String>,
    /// The command.
    pub verb: String,
    /// When it began.
    pub since: Timestamp,
    /// Where it runs, where that is not here: host and process.
    pub place: Option<String>,
    /// Who started it.
    pub by: Option<String>,
    /// What it does, in words.
    pub phase: String,
    /// How far it is, in percent.
    pub percent: Option<u8>,
    /// Whether it waits for its turn.
    pub is_queued: bool,
    /// Whether it gave no sign of life for too long.
    pub is_dead: bool,
    /// When it was last seen alive; none for a run of this process.
    pub last_sign: Option<Timestamp>,
}

/// One database.
#[derive(Clone, Debug)]
pub struct DatabaseRow {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub light: Light,
    /// Why, in words.
    pub reason: String,
    /// The newest good backup.
    pub newest: Option<Newest>,
    /// How many rows it has, where its run is on record.
    pub rows: Option<u64>,
    /// The drills.
    pub drill: DrillCell,
    /// Good copies of the newest good backup, and how many there should be.
    pub copies: Option<(usize, usize)>,
    /// What runs next, when, and the zone of its schedule.
    pub next: Option<(Verb, Timestamp, String)>,
    /// The last run of a backup.
    pub last: Option<RunRow>,
    /// What runs now.
    pub running: Vec<Running>,
}

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Looks at all databases.
pub fn overview(snapshot: &Snapshot, live: &[RunView], now: Timestamp) -> Overview {
    let mut running: HashMap<&str, Vec<Running>> = HashMap::new();
    for (name, one) in all_running(snapshot, live) {
        running.entry(name).or_default().push(one);
    }
    let mut next: HashMap<&str, (Verb, Timestamp, String)> = HashMap::new();
    for plan in &snapshot.plans {
        let Some(&at) = plan.next.iter().find(|at| **at > now) else {
            continue;
        };
        let name = plan.database.as_str();
        if next.get(name).is_none_or(|(_, known, _)| at < *known) {
            next.insert(name, (plan.verb, at, plan.zone.clone()));
        }
    }
    let mut totals = Totals::default();
    let mut rows: Vec<DatabaseRow> = Vec::with_capacity(snapshot.report.databases.len());
    for status in &snapshot.report.databases {
        let running = running.remove(status.database.as_str()).unwrap_or_default();
        let row = row(
            snapshot,
            status,
            running,
            next.remove(status.database.as_str()),
            now,
        );
        totals.lights[row.light as usize] += 1;
        totals.backups += status.backups;
        totals.success.0 += status.success.good;
        totals.success.1 += status.success.all;
        totals.running += row.running.iter().filter(|one| !one.is_dead).count();
        rows.push(row);
    }
    for record in snapshot.records.values().flat_map(|records| {
        records
            .iter()
            .take_while(|record| now.duration_since(record.started_at) <= WEEK)
    }) {
        totals.failed_lately += u64::from(!record.is_success() && !record.gave_way());
    }
    let lately = |slot: &&crate::snapshot::Missed| now.duration_since(slot.slot) <= WEEK;
    totals.missed_lately = snapshot.missed.iter().filter(lately).count() as u64;
    // The order of the report holds where lights are alike.
    rows.sort_by_key(|row| std::cmp::Reverse(row.light));
    Overview {
        at: snapshot.looked_at(),
        doubt: snapshot.doubt(now),
        totals,
        storages: storages(snapshot),
        rows,
    }
}

fn row(
    snapshot: &Snapshot,
    status: &Status,
    running: Vec<Running>,
    next: Option<(Verb, Timestamp, String)>,
    now: Timestamp,
) -> DatabaseRow {
    let (light, reason) = light(snapshot, status, now);
    let newest = status.newest_good.as_ref();
    let found = newest.and_then(|newest| stored(snapshot, &newest.id));
    let last = status.last_runs.iter().find(|run| run.verb == "backup");
    let of_newest = newest.and_then(|newest| {
        let mut runs = status.last_runs.iter();
        runs.find(|run| run.backup_id.as_ref() == Some(&newest.id))
    });
    DatabaseRow {
        name: status.database.clone(),
        light,
        reason,
        rows: of_newest.and_then(|run| run.rows),
        drill: drill(snapshot, status),
        copies: found.map(|backup| copies(snapshot, &status.database, backup)),
        newest: newest.map(Newest::from),
        next,
        last: last.map(|run| of_record(run)),
        running,
    }
}

/// What runs now: in this process by its own account, elsewhere by its lease.
pub(super) fn all_running<'s>(
    snapshot: &'s Snapshot,
    live: &'s [RunView],
) -> impl Iterator<Item = (&'s str, Running)> {
    let here = live
        .iter()
        .filter(|run| matches!(run.state, State::Queued | State::Running))
        .map(|run| (run.database.as_str(), of_here(run)));
    let is_here = |held: &&crate::snapshot::Held| {
        held.run
            .as_ref()
            .is_some_and(|id| live.iter().any(|run| &run.id == id))
    };
    let elsewhere = snapshot
        .held
        .iter()
        .filter(move |held| !is_here(held))
        .map(|held| {
            let running = Running {
                id: held.run.as_ref().map(ToString::to_string),
                verb: held.verb.clone(),
                since: held.since,
                place: Some(format!("{}, process {}", held.host, held.pid)),
                by: held.by.clone(),
                phase: String::new(),
                percent: None,
                is_queued: false,
                is_dead: held.is_dead,
                last_sign: Some(held.last_sign),
            };
            (held.database.as_str(), running)
        });
    here.chain(elsewhere)
}

fn of_here(run: &RunView) -> Running {
    let is_queued = run.state == State::Queued;
    Running {
        id: Some(run.id.to_string()),
        verb: run.verb.clone(),
        since: run.started_at.unwrap_or(run.queued_at),
        place: None,
        by: run.by.clone(),
        phase: if is_queued {
            "waits for its turn".to_owned()
        } else {
            run.phase.clone()
        },
        percent: percent(run.done_bytes, run.total_bytes).filter(|_| !is_queued),
        is_queued,
        is_dead: false,
        last_sign: None,
    }
}

/// How far a run is; an estimate that was too low never says that it is through.
pub(super) fn percent(done: u64, total: u64) -> Option<u8> {
    let percent = done.saturating_mul(100).checked_div(total)?;
    Some(u8::try_from(percent.min(99)).unwrap_or(99))
}

fn storages(snapshot: &Snapshot) -> Vec<StorageLine> {
    let mut sums: HashMap<&str, (u64, u64, u64)> = HashMap::new();
    for copies in snapshot
        .report
        .databases
        .iter()
        .flat_map(|status| &status.storages)
    {
        let sum = sums.entry(copies.name.as_str()).or_default();
        sum.0 += copies.backups;
        sum.1 += copies.size_bytes;
        sum.2 += copies.missing;
    }
    let line = |state: &pgkeep_core::op::stored::StorageState| {
        let (backups, size_bytes, missing) =
            sums.get(state.name.as_str()).copied().unwrap_or_default();
        StorageLine {
            name: state.name.clone(),
            error: state.error.clone(),
            backups,
            size_bytes,
            missing,
        }
    };
    snapshot.listing.states.iter().map(line).collect()
}

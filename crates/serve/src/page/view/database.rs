//! One database: how it stands, whether it could be restored, what ran and what will.

use jiff::Timestamp;

use super::fate::{Answer, Light, answer, light};
use super::history::newest;
use super::known::{DrillCell, Newest, drill, marks, target};
use super::overview::{Running, all_running};
use super::run::RunRow;
use super::{copies, stored};
use crate::page::chart::{Chart, MAX_POINTS, Point, Unit};
use crate::page::words::took_at_most;
use crate::runs::RunView;
use crate::snapshot::{Snapshot, Verb};
use pgkeep_core::op::status::Status;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::runs::RunRecord;

/// How many of the newest runs and backups stand on the page.
const SHOWN: usize = 12;

/// What the page of a database shows.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub light: Light,
    /// Why, in words.
    pub reason: String,
    /// Whether it could be restored now.
    pub answer: Answer,
    /// What somebody should know, the worst first.
    pub alerts: Vec<String>,
    /// What is odd.
    pub warnings: Vec<String>,
    /// The newest good backup.
    pub newest: Option<Newest>,
    /// Good copies of it, and how many there should be.
    pub copies: Option<(usize, usize)>,
    /// The drills.
    pub drill: DrillCell,
    /// How many backups there are, how many bytes, how many of them pinned, damaged.
    pub backups: u64,
    /// Size of all of them in one storage each.
    pub size_bytes: u64,
    /// How many are pinned.
    pub pinned: u64,
    /// How many are damaged.
    pub damaged: u64,
    /// Backups that are held: id, when, and what for.
    pub held: Vec<(String, Timestamp, Vec<String>)>,
    /// The newest backups.
    pub stored: Vec<StoredRow>,
    /// What runs now.
    pub running: Vec<Running>,
    /// What is scheduled.
    pub next: Vec<Next>,
    /// Slots that nobody ran, newest first.
    pub missed: Vec<(Verb, Timestamp)>,
    /// The newest runs.
    pub runs: Vec<RunRow>,
    /// Its charts.
    pub charts: Vec<Chart>,
    /// Whether it is in the configuration, so that runs can be started.
    pub is_configured: bool,
}

/// One stored backup in short.
#[derive(Clone, Debug)]
pub struct StoredRow {
    /// Its id.
    pub id: String,
    /// When its run began.
    pub at: Timestamp,
    /// Its size in one storage.
    pub size_bytes: u64,
    /// Good copies, and how many there should be.
    pub copies: (usize, usize),
    /// What it is marked as: pinned, drilled, held, damaged, encrypted.
    pub marks: Vec<&'static str>,
}

/// A schedule and its next instants.
#[derive(Clone, Debug)]
pub struct Next {
    /// What is started.
    pub verb: Verb,
    /// The cron expression.
    pub schedule: String,
    /// The zone that it is read in.
    pub zone: String,
    /// How many seconds later this database's turn is.
    pub offset_seconds: i64,
    /// The next instants, the offset included.
    pub at: Vec<Timestamp>,
}

/// Looks at one database; none where there is none of this name.
pub fn database(
    snapshot: &Snapshot,
    live: &[RunView],
    name: &DatabaseName,
    now: Timestamp,
) -> Option<Database> {
    let status = super::status(snapshot, name)?;
    let (light, reason) = light(snapshot, status, now);
    let newest_good = status.newest_good.as_ref();
    let found = newest_good.and_then(|newest| stored(snapshot, &newest.id));
    let running = all_running(snapshot, live).filter(|(of, _)| *of == name.as_str());
    let next = snapshot
        .plans
        .iter()
        .filter(|plan| &plan.database == name)
        .map(|plan| Next {
            verb: plan.verb,
            schedule: plan.schedule.clone(),
            zone: plan.zone.clone(),
            offset_seconds: plan.offset.as_secs(),
            at: plan
                .next
                .iter()
                .copied()
                .filter(|at| *at > now)
                .take(5)
                .collect(),
        });
    let missed = snapshot
        .missed
        .iter()
        .filter(|missed| &missed.database == name);
    Some(Database {
        name: name.to_string(),
        light,
        reason,
        answer: answer(snapshot, status, now),
        alerts: alerts(status),
        warnings: status
            .warnings
            .iter()
            .filter(|warning| !status.alerts.contains(warning))
            .cloned()
            .collect(),
        newest: newest_good.map(Newest::from),
        copies: found.map(|backup| copies(snapshot, name.as_str(), backup)),
        drill: drill(snapshot, status),
        backups: status.backups,
        size_bytes: status.size_bytes,
        pinned: status.pinned,
        damaged: status.damaged,
        held: status
            .held
            .iter()
            .map(|held| (held.id.clone(), held.started_at, held.seen.clone()))
            .collect(),
        stored: stored_rows(snapshot, name),
        running: running.map(|(_, one)| one).collect(),
        next: next.collect(),
        missed: missed
            .map(|missed| (missed.verb, missed.slot))
            .take(SHOWN)
            .collect(),
        runs: newest(snapshot, live, name, SHOWN),
        charts: charts(snapshot, name),
        is_configured: snapshot.config.database(name.as_str()).is_some(),
    })
}

/// What somebody should know, besides what stands with each held backup.
fn alerts(status: &Status) -> Vec<String> {
    let is_told = |alert: &String| {
        let mut held = status.held.iter();
        held.any(|held| !held.seen.is_empty() && alert.contains(&held.id))
    };
    status
        .alerts
        .iter()
        .filter(|alert| !is_told(alert))
        .cloned()
        .collect()
}

fn stored_rows(snapshot: &Snapshot, name: &DatabaseName) -> Vec<StoredRow> {
    let backups = snapshot.listing.backups.iter().rev();
    let of_name =
        backups.filter(|backup| backup.place.id.database() == name && backup.is_committed());
    of_name
        .take(SHOWN)
        .map(|backup| StoredRow {
            id: backup.place.id.to_string(),
            at: backup.place.id.started_at(),
            size_bytes: backup.size_bytes(),
            copies: copies(snapshot, name.as_str(), backup),
            marks: marks(backup),
        })
        .collect()
}

fn charts(snapshot: &Snapshot, name: &DatabaseName) -> Vec<Chart> {
    let records = snapshot
        .records
        .get(name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut runs: Vec<&RunRecord> = records
        .iter()
        .map(AsRef::as_ref)
        .filter(|record| record.verb == "backup" && !record.gave_way())
        .take(MAX_POINTS)
        .collect();
    runs.reverse();
    let points = |value: &dyn Fn(&RunRecord) -> Option<u64>| -> Vec<Point> {
        let point = |record: &&RunRecord| Point {
            at: record.started_at,
            value: value(record).filter(|_| record.backup_id.is_some() || record.exit_code == 0),
            label: match &record.failure {
                Some(failure) => failure.clone(),
                None => record.id.to_string(),
            },
        };
        runs.iter().map(point).collect()
    };
    let chart = |id, title, unit, points| Chart {
        id,
        title,
        unit,
        points,
        target: None,
    };
    let drills = snapshot
        .drills
        .get(name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let recovery = drills.iter().map(|drill| Point {
        at: drill.passed_at,
        value: Some(drill.recovery_ms),
        label: drill.backup.to_string(),
    });
    let target = target(snapshot, name.as_str())
        .map(|target| (target, format!("target {}", took_at_most(target))));
    vec![
        Chart {
            target,
            ..chart(
                "recovery",
                "Recovery time of drills",
                Unit::Milliseconds,
                recovery.collect(),
            )
        },
        chart(
            "size",
            "Size of a backup",
            Unit::Bytes,
            points(&|record| record.size_bytes),
        ),
        chart(
            "duration",
            "Duration of a backup",
            Unit::Milliseconds,
            points(&|record| Some(record.took_ms)),
        ),
        chart("rows", "Rows", Unit::Count, points(&|record| record.rows)),
    ]
}

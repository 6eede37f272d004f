//! Metrics for Prometheus, made of what is known: a restart loses none, and a scrape asks no storage.
//!
//! No series carries the id of a backup or a version, but the one that is about the version: a new backup or a new
//! pgkeep makes no new series.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::app::{App, Reader};
use crate::snapshot::{Missed, Snapshot};
use pgkeep_core::op::status::Status;
use pgkeep_model::freshness::Freshness;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::runs::RunRecord;

/// What OpenMetrics is sent as. <https://prometheus.io/docs/specs/om/open_metrics_spec/>
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDatabase {
    database: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStorage {
    storage: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBoth {
    database: String,
    storage: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSchedule {
    database: String,
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBuild {
    version: &'static str,
}

/// Numbers with a fraction, as seconds are.
type Number<L> = Family<L, Gauge<f64, std::sync::atomic::AtomicU64>>;

/// Metrics in the OpenMetrics format, of the last look at the storages.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, content_type = "application/openmetrics-text", body = String),
        (status = 401, body = crate::problem::Body, content_type = "application/problem+json")))]
pub(crate) async fn metrics(_: Reader, State(app): State<App>) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let text = text(&app.known(), app.context.clock.now(), version);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// All families of metrics, and what they are registered in.
struct Families {
    registry: Registry,
    last_success: Number<OfDatabase>,
    last_attempt: Number<OfDatabase>,
    last_code: Number<OfDatabase>,
    size: Number<OfDatabase>,
    rows: Number<OfDatabase>,
    duration: Number<OfDatabase>,
    drilled: Number<OfDatabase>,
    restore: Number<OfDatabase>,
    fresh: Number<OfDatabase>,
    held: Number<OfDatabase>,
    damaged: Number<OfDatabase>,
    proven: Number<OfDatabase>,
    backups: Number<OfBoth>,
    bytes: Number<OfStorage>,
    up: Number<OfStorage>,
    next: Number<OfSchedule>,
    missed: Number<OfSchedule>,
    looked: Gauge<f64, std::sync::atomic::AtomicU64>,
    build: Number<OfBuild>,
}

/// Registers a family under its name, with what it says.
fn family<L>(registry: &mut Registry, name: &str, help: &str) -> Number<L>
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Number::<L>::default();
    registry.register(name, help, family.clone());
    family
}

impl Families {
    #[rustfmt::skip] // a table of names and what they say
    fn new() -> Self {
        let mut registry = Registry::with_prefix("pgkeep");
        let all = &mut registry;
        let looked = Gauge::default();
        all.register("looked_timestamp_seconds", "When the storages were last listed", looked.clone());
        Self {
            last_success: family(all, "backup_last_success_timestamp_seconds", "Start of the newest good backup"),
            last_attempt: family(all, "backup_last_attempt_timestamp_seconds", "Start of the last backup run"),
            last_code: family(all, "backup_last_exit_code", "Exit code of the last backup run"),
            size: family(all, "backup_size_bytes", "Size of the newest good backup in one storage"),
            rows: family(all, "backup_rows", "Rows in the last good backup"),
            duration: family(all, "backup_duration_seconds", "How long the last good backup run took"),
            drilled: family(all, "drill_last_success_timestamp_seconds", "Start of the last drill that passed"),
            restore: family(all, "drill_restore_seconds", "How long the last drill that passed took to restore"),
            fresh: family(all, "fresh", "1 where the newest good backup is young enough, 0 where it is not"),
            held: family(all, "backups_held", "Backups that are held until they are accepted"),
            damaged: family(all, "backups_damaged", "Backups that are damaged in every storage"),
            proven: family(all, "key_proven_timestamp_seconds", "When a key last opened a backup as the newest one is encrypted"),
            backups: family(all, "backups", "Backups in a storage"),
            bytes: family(all, "storage_bytes", "Bytes of all backups in a storage"),
            up: family(all, "storage_up", "1 where the storage answered at the last look"),
            next: family(all, "schedule_next_timestamp_seconds", "When a schedule runs next"),
            missed: family(all, "schedule_missed", "Slots of the last 30 days that nothing ran; goes down as they age"),
            build: family(all, "build_info", "The version that runs"),
            looked,
            registry,
        }
    }

    /// Tells of one database, by its state and its runs, newest first.
    fn tell_database(&self, known: &Snapshot, status: &Status, runs: &[Arc<RunRecord>]) {
        let of = OfDatabase {
            database: status.database.clone(),
        };
        let set = |family: &Number<OfDatabase>, value: Option<f64>| {
            if let Some(value) = value {
                family.get_or_create(&of).set(value);
            }
        };
        let newest = status.newest_good.as_ref();
        let began = newest.map(|newest| seconds(newest.started_at));
        set(&self.last_success, began);
        set(&self.size, newest.map(|newest| newest.size_bytes as f64));
        // One that gave way to another run says nothing: the other one tells how it ends.
        let last = run(runs, "backup", |run| !run.gave_way());
        set(&self.last_attempt, last.map(|run| seconds(run.started_at)));
        set(&self.last_code, last.map(|run| f64::from(run.exit_code)));
        let good = run(runs, "backup", RunRecord::is_success);
        let rows = good.and_then(|run| run.rows);
        set(&self.rows, rows.map(|rows| rows as f64));
        set(&self.duration, good.map(|run| run.took_ms as f64 / 1000.0));
        let drill = status.drill.as_ref().and_then(|drill| drill.passed_at);
        set(&self.drilled, drill.map(seconds));
        let passed = run(runs, "drill", RunRecord::is_success);
        // Where its record is not among the newest ones any more, the note beside the backup still tells it.
        let recovery = passed
            .and_then(|run| run.recovery_ms)
            .or_else(|| noted_recovery(known, status));
        set(&self.restore, recovery.map(|millis| millis as f64 / 1000.0));
        let fresh = match status.freshness {
            Freshness::Fresh => Some(1.0),
            Freshness::Stale => Some(0.0),
            Freshness::NotJudged => None,
        };
        set(&self.fresh, fresh);
        set(&self.held, Some(status.held.len() as f64));
        set(&self.damaged, Some(status.damaged as f64));
        let key = status.keys.first().and_then(|keys| keys.proven_at);
        set(&self.proven, key.map(seconds));
        for copies in &status.storages {
            let (database, storage) = (status.database.clone(), copies.name.clone());
            let place = OfBoth { database, storage };
            let backups = self.backups.get_or_create(&place);
            backups.set(copies.backups as f64);
            let storage = copies.name.clone();
            let bytes = self.bytes.get_or_create(&OfStorage { storage });
            bytes.inc_by(copies.size_bytes as f64);
        }
    }

    /// Tells which storages answered at the last look.
    fn tell_storages(&self, known: &Snapshot) {
        for state in &known.report.storages {
            let of = OfStorage {
                storage: state.name.clone(),
            };
            let is_up = state.error.is_none() && known.failure.is_none();
            let up = self.up.get_or_create(&of);
            up.set(f64::from(u8::from(is_up)));
        }
    }

    /// Tells of the schedules: when they run next, and what they missed.
    fn tell_schedules(&self, known: &Snapshot, now: Timestamp) {
        for plan in &known.plans {
            let of = OfSchedule {
                database: plan.database.to_string(),
                verb: plan.verb.as_str(),
            };
            if let Some(at) = plan.next.iter().find(|at| **at > now) {
                self.next.get_or_create(&of).set(seconds(*at));
            }
            let is_its =
                |missed: &&Missed| missed.database == plan.database && missed.verb == plan.verb;
            let slots = known.missed.iter().filter(is_its);
            self.missed.get_or_create(&of).set(slots.count() as f64);
        }
    }
}

/// Writes all metrics.
fn text(known: &Snapshot, now: Timestamp, version: &'static str) -> String {
    let families = Families::new();
    families.looked.set(seconds(known.at));
    let build = families.build.get_or_create(&OfBuild { version });
    build.set(1.0);
    drop(build);
    for status in &known.report.databases {
        let name = status.database.parse::<DatabaseName>().ok();
        let runs = name.and_then(|name| known.records.get(&name));
        families.tell_database(known, status, runs.map_or(&[], Vec::as_slice));
    }
    families.tell_storages(known);
    families.tell_schedules(known, now);
    let mut text = String::new();
    // Writing into a text fails nowhere.
    let _ = encode(&mut text, &families.registry);
    text
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

/// Finds the newest run of a command that is such a one.
fn run<'r>(
    runs: &'r [Arc<RunRecord>],
    verb: &str,
    is_such: impl Fn(&RunRecord) -> bool,
) -> Option<&'r RunRecord> {
    let mut of_verb = runs.iter().filter(|record| record.verb == verb);
    of_verb.find(|record| is_such(record)).map(AsRef::as_ref)
}

/// Finds how long the last drill that passed took, by the notes beside the backups.
fn noted_recovery(known: &Snapshot, status: &Status) -> Option<u64> {
    let name = status.database.parse().ok()?;
    known
        .drills
        .get(&name)?
        .last()
        .map(|drill| drill.recovery_ms)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::page::tests::fixture::{Fixture, now};
    use pgkeep_model::runs::BUSY;

    /// Returns the names of all series with their labels.
    fn series(known: &Snapshot, version: &'static str) -> BTreeSet<String> {
        let text = text(known, now(), version);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let names = lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
        names.collect()
    }

    #[test]
    fn a_new_version_makes_one_new_series() {
        let known = Fixture::new().snapshot;
        let (before, after) = (series(&known, "1.2.3"), series(&known, "9.8.7"));
        let gone: Vec<&String> = before.difference(&after).collect();
        assert_eq!(gone, [r#"pgkeep_build_info{version="1.2.3"}"#]);
        let new: Vec<&String> = after.difference(&before).collect();
        assert_eq!(new, [r#"pgkeep_build_info{version="9.8.7"}"#]);
        assert!(before.len() > 40, "{before:#?}");
    }

    #[test]
    fn a_drill_is_measured_when_its_record_is_out_of_sight() {
        let known = Fixture::new().snapshot;
        let later = known.but(|next| {
            let mut records = (*next.records).clone();
            for all in records.values_mut() {
                all.retain(|record| record.verb != "drill");
            }
            next.records = Arc::new(records);
        });
        let all = series(&later, "1.2.3");
        let of = |name: &str| all.iter().filter(|one| one.starts_with(name)).count();
        let passed = of("pgkeep_drill_last_success_timestamp_seconds");
        assert!(passed > 1, "{all:#?}");
        assert_eq!(of("pgkeep_drill_restore_seconds"), passed, "{all:#?}");
    }

    #[test]
    fn a_run_that_gave_way_is_no_last_attempt() {
        let record = |id: &str, code: u8, failure: &str| {
            let id: pgkeep_model::id::BackupId = id.parse().unwrap();
            let record = RunRecord::new(id.clone(), "backup", id.started_at(), 5);
            Arc::new(record.failed(code, failure, "why"))
        };
        let gave_way = record("shop-20260102T040000Z-0002", 11, BUSY);
        let failed = record("shop-20260102T030000Z-0001", 20, "dump_failed");
        let runs = [gave_way, failed];
        let last = |runs: &[Arc<RunRecord>]| {
            run(runs, "backup", |run| !run.gave_way()).map(|run| run.exit_code)
        };
        assert_eq!(last(&runs), Some(20));
        assert_eq!(last(&runs[..1]), None);
    }
}

//! Metrics for Prometheus, made of what is known: a restart loses none, and a scrape asks no storage.
//!
//! No series carries the id of a backup or a version, but the one that is about the version: a new backup or a new
//! pgkeep makes no new series.

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
use crate::snapshot::Snapshot;
use pgkeep_core::op::status::Status;
use pgkeep_model::freshness::Freshness;
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

/// Writes all metrics.
fn text(known: &Snapshot, now: Timestamp, version: &'static str) -> String {
    let mut registry = Registry::with_prefix("pgkeep");
    let mut add = |name: &str, help: &str| {
        let family = Number::<OfDatabase>::default();
        registry.register(name, help, family.clone());
        family
    };
    let last_success = add(
        "backup_last_success_timestamp_seconds",
        "Start of the newest good backup",
    );
    let last_attempt = add(
        "backup_last_attempt_timestamp_seconds",
        "Start of the last backup run",
    );
    let last_code = add("backup_last_exit_code", "Exit code of the last backup run");
    let size = add(
        "backup_size_bytes",
        "Size of the newest good backup in one storage",
    );
    let rows = add("backup_rows", "Rows in the last good backup");
    let duration = add(
        "backup_duration_seconds",
        "How long the last good backup run took",
    );
    let drilled = add(
        "drill_last_success_timestamp_seconds",
        "Start of the last drill that passed",
    );
    let restore = add(
        "drill_restore_seconds",
        "How long the last drill that passed took to restore",
    );
    let fresh = add(
        "fresh",
        "1 where the newest good backup is young enough, 0 where it is not",
    );
    let held = add(
        "backups_held",
        "Backups that are held until somebody accepts them",
    );
    let damaged = add(
        "backups_damaged",
        "Backups that are damaged in every storage",
    );
    let proven = add(
        "key_proven_timestamp_seconds",
        "When a key last opened a backup as the newest one is encrypted",
    );
    let backups = Number::<OfBoth>::default();
    registry.register("backups", "Backups in a storage", backups.clone());
    let bytes = Number::<OfStorage>::default();
    registry.register(
        "storage_bytes",
        "Bytes of all backups in a storage",
        bytes.clone(),
    );
    let up = Number::<OfStorage>::default();
    registry.register(
        "storage_up",
        "1 where the storage answered at the last look",
        up.clone(),
    );
    let next = Number::<OfSchedule>::default();
    registry.register(
        "schedule_next_timestamp_seconds",
        "When a schedule runs next",
        next.clone(),
    );
    let missed = Number::<OfSchedule>::default();
    registry.register(
        "schedule_missed",
        "Slots of the last 30 days that nobody ran; goes down as they age",
        missed.clone(),
    );
    let looked = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    registry.register(
        "looked_timestamp_seconds",
        "When the storages were last listed",
        looked.clone(),
    );
    looked.set(seconds(known.at));
    let build = Number::<OfBuild>::default();
    registry.register("build_info", "The version that runs", build.clone());
    build.get_or_create(&OfBuild { version }).set(1.0);

    for status in &known.report.databases {
        let of = OfDatabase {
            database: status.database.clone(),
        };
        let set = |family: &Number<OfDatabase>, value: Option<f64>| {
            if let Some(value) = value {
                family.get_or_create(&of).set(value);
            }
        };
        let newest = status.newest_good.as_ref();
        set(
            &last_success,
            newest.map(|newest| seconds(newest.started_at)),
        );
        set(&size, newest.map(|newest| newest.size_bytes as f64));
        let last = run(known, status, "backup", |_| true);
        set(&last_attempt, last.map(|run| seconds(run.started_at)));
        set(&last_code, last.map(|run| f64::from(run.exit_code)));
        let good = run(known, status, "backup", RunRecord::is_success);
        set(&rows, good.and_then(|run| run.rows).map(|rows| rows as f64));
        set(&duration, good.map(|run| run.took_ms as f64 / 1000.0));
        let drill = status.drill.as_ref().and_then(|drill| drill.passed_at);
        set(&drilled, drill.map(seconds));
        let passed = run(known, status, "drill", RunRecord::is_success);
        // Where its record is not among the newest ones any more, the note beside the backup still tells it.
        let recovery = passed
            .and_then(|run| run.recovery_ms)
            .or_else(|| noted_recovery(known, status));
        set(&restore, recovery.map(|millis| millis as f64 / 1000.0));
        set(
            &fresh,
            match status.freshness {
                Freshness::Fresh => Some(1.0),
                Freshness::Stale => Some(0.0),
                Freshness::NotJudged => None,
            },
        );
        set(&held, Some(status.held.len() as f64));
        set(&damaged, Some(status.damaged as f64));
        let key = status.keys.first().and_then(|keys| keys.proven_at);
        set(&proven, key.map(seconds));
        for copies in &status.storages {
            let place = OfBoth {
                database: status.database.clone(),
                storage: copies.name.clone(),
            };
            backups.get_or_create(&place).set(copies.backups as f64);
            let all = OfStorage {
                storage: copies.name.clone(),
            };
            bytes.get_or_create(&all).inc_by(copies.size_bytes as f64);
        }
    }
    for state in &known.report.storages {
        let of = OfStorage {
            storage: state.name.clone(),
        };
        let is_up = state.error.is_none() && known.failure.is_none();
        up.get_or_create(&of).set(f64::from(u8::from(is_up)));
    }
    for plan in &known.plans {
        let of = OfSchedule {
            database: plan.database.to_string(),
            verb: plan.verb.as_str(),
        };
        if let Some(at) = plan.next.iter().find(|at| **at > now) {
            next.get_or_create(&of).set(seconds(*at));
        }
        let slots = known
            .missed
            .iter()
            .filter(|missed| missed.database == plan.database && missed.verb == plan.verb);
        missed.get_or_create(&of).set(slots.count() as f64);
    }
    let mut text = String::new();
    // Writing into a text fails nowhere.
    let _ = encode(&mut text, &registry);
    text
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

/// Finds the newest run of a database that is such a one.
fn run<'s>(
    known: &'s Snapshot,
    status: &Status,
    verb: &str,
    is_such: impl Fn(&RunRecord) -> bool,
) -> Option<&'s RunRecord> {
    let name = status.database.parse().ok()?;
    let mut records = known.records.get(&name)?.iter();
    let found = records.find(|record| record.verb == verb && is_such(record));
    found.map(AsRef::as_ref)
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
}

//! `backup`: dump, prove while it streams, store in every storage, commit with the manifest.
//!
//! Nothing is visible as a backup before the manifest is there, and the manifest is written only when the whole
//! promise holds: `pg_dump` exited with 0, the end marker was seen, every required table was found, every byte
//! reached storage.

mod after;
mod anomaly;
mod attempt;
mod commit;
pub(crate) mod encryption;
mod fan_out;
mod limited;
mod notice;
mod programs;
mod record;
pub(crate) mod report;
pub(crate) mod selected;
mod source;
mod stage;
mod start;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::event::{Event, Observer};
use super::lock::{Hold, LockRequest, LockSettings};
use super::slot;
use super::stored::NamedStorage;
use crate::context::Context;
use crate::encryption::Identities;
use crate::postgres::dump::Selection;
use crate::postgres::environment::Environment;
use crate::postgres::programs::Search;
use crate::stream::pipeline::Form;
use pgkeep_model::anomaly::ANOMALY;
use pgkeep_model::config::{Anomaly, Preset, Retention, Retries};
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::Leased;
use pgkeep_model::limits::Limit;
use pgkeep_model::manifest::{SelectionRecord, Trigger};
use pgkeep_model::name::TableName;
use pgkeep_model::origin::Origin;
use pgkeep_model::required::RequiredTable;

use attempt::{Attempt, NO_EQUIVALENT, SAFE};
pub use programs::Reading;
pub(crate) use record::server as server_record;
pub use report::{Report, StorageOutcome};
use stage::Stages;

/// What the run is called in leases and records.
const VERB: &str = "backup";

/// One database to back up.
pub struct Request {
    /// Its name in storage.
    pub name: DatabaseName,
    /// Where it is.
    pub connection: Connection,
    /// Where to look for client programs.
    pub search: Search,
    /// What programs may see of the environment.
    pub environment: Environment,
    /// Where to store.
    pub storages: Vec<NamedStorage>,
    /// How many storages must take the backup for it to count.
    pub copies: NonZeroUsize,
    /// How the dump is compressed and encrypted.
    pub form: Form,
    /// Keys that must open what is written, where there are any: those that were named for this database.
    pub probe_keys: Arc<Identities>,
    /// Why it cannot begin, as where nobody knows whom it is to be encrypted for; the other databases can.
    pub refused: Option<Failure>,
    /// Tables that must be in the dump.
    pub required: Vec<RequiredTable>,
    /// What is left out.
    pub selection: Selection,
    /// Which rows of tables are kept, for those that are not dumped whole.
    pub limits: Vec<Limit>,
    /// Whether flags of this run, and not the configuration, left something out.
    pub is_partial: bool,
    /// Rules of a hosting service.
    pub preset: Option<Preset>,
    /// Whether roles and tablespaces are stored beside the dump.
    pub globals: bool,
    /// Whether a database without tables is accepted.
    pub allow_empty: bool,
    /// Whether warnings of `pg_dump` change the exit code.
    pub strict_warnings: bool,
    /// How long `pg_dump` waits for a lock.
    pub lock_wait_timeout: Duration,
    /// Ends a dump that moves no byte for so long.
    pub stall_timeout: Option<Duration>,
    /// When and how often a run is tried again.
    pub retries: Retries,
    /// Why the run happens.
    pub trigger: Trigger,
    /// Why the backup is pinned; none when it is not.
    pub pin: Option<String>,
    /// What makes the backup held; none judges nothing.
    pub anomaly: Option<Anomaly>,
    /// Why the run goes on where the backup is held; none where that is a failure.
    pub allow_anomaly: Option<String>,
    /// The policy by which the storages are pruned behind a good backup; none keeps all.
    pub retention: Option<Retention>,
    /// How old a run's record becomes.
    pub keep_runs: Duration,
    /// Compressing threads.
    pub threads: usize,
    /// How rows are read.
    pub reading: Reading,
    /// How the run keeps others of the same database away.
    pub lock: LockSettings,
    /// Where the run comes from.
    pub origin: Origin,
}

/// Makes a backup, alone on its database in its storages, trying again where the cause of a failure may pass.
pub async fn run(request: &Request, context: &Context, observer: &dyn Observer) -> Report {
    let started_at = context.clock.now();
    let started = context.clock.monotonic();
    // A run for a slot begins when it is known that nobody else had it.
    let has_slot = request.origin.slot.is_some();
    let mut starting = (!has_slot).then(|| after::tell_start(request, context));
    let stages = Stages::new(observer);
    let observer: &dyn Observer = &stages;
    let lock = LockRequest {
        database: &request.name,
        storages: &request.storages,
        verb: VERB,
        leased: Leased::Backups,
        origin: &request.origin,
        safe: SAFE,
        settings: &request.lock,
        on_wait: &|text| observer.note(Event::Waiting { text }),
    };
    let acquired = match encryption::prove(request, &context.stop).await {
        Ok(()) => slot::acquire(&lock, context).await,
        Err(failure) => Err(failure),
    };
    if has_slot && acquired.is_ok() {
        starting = Some(after::tell_start(request, context));
    }
    let mut report = match acquired {
        Ok(hold) => {
            let mut report = attempts(request, context, observer, &hold).await;
            report.stage = report.failure.as_ref().map(|why| stages.reached(why));
            after::prune_behind(request, &mut report, &hold, context).await;
            encryption::warn_of_keys(request, &mut report, context).await;
            report.warnings.extend(hold.warnings.iter().cloned());
            report.warnings.extend(hold.release().await);
            report
        }
        Err(failure) => {
            let mut report = Report::new(request, started_at);
            report.stage = Some(stages.reached(&failure));
            report.failure = Some(failure);
            report
        }
    };
    report.warnings.extend(encryption::missing_keys(request));
    report.started_at = started_at;
    report.took_ms = context.clock.millis_since(started);
    if let Some(starting) = starting
        && !context.stop.is_requested()
    {
        starting.settle().await;
    }
    if slot::is_left_to_others(&request.origin, report.failure.as_ref()) {
        return report;
    }
    after::tell(request, &mut report, context).await;
    after::keep_record(request, &report, started_at, context).await;
    report
}

/// Tries until it works, or until another attempt makes no sense. The lock is held all the time.
async fn attempts(
    request: &Request,
    context: &Context,
    observer: &dyn Observer,
    hold: &Hold,
) -> Report {
    let (mut attempts, mut own_encoding, mut is_first) = (0, false, true);
    loop {
        attempts += 1;
        let id = request.origin.run.clone().filter(|_| is_first);
        is_first = false;
        let attempt = Attempt::new(request, context, observer, hold, own_encoding, id);
        let mut report = attempt.run().await;
        let has_no_equivalent =
            |failure: &Failure| failure.id == NO_EQUIVALENT && !context.stop.is_requested();
        if !own_encoding && report.failure.as_ref().is_some_and(has_no_equivalent) {
            own_encoding = true;
            attempts -= 1;
            continue;
        }
        report.attempts = attempts;
        let chance = context.clock.chance();
        let Some((failure, delay)) = again(request.retries, &report, attempts, chance) else {
            return report;
        };
        if context.stop.is_requested() {
            return report;
        }
        observer.note(Event::Retrying {
            attempt: attempts,
            failure,
            delay,
        });
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = hold.ended().cancelled() => {
                report.failure = Some(ended(request, context, hold));
                return report;
            }
        }
    }
}

/// Says why a run that was made to end did so.
fn ended(request: &Request, context: &Context, hold: &Hold) -> Failure {
    hold.loss().unwrap_or_else(|| {
        let what = format!("backup of `{}`", request.name);
        context.stop.failure(&what).and_safe(SAFE)
    })
}

/// Decides whether a failed attempt is worth another, and after which delay.
fn again(
    retries: Retries,
    report: &Report,
    attempts: u32,
    chance: f64,
) -> Option<(&Failure, Duration)> {
    let failure = report.failure.as_ref()?;
    let may_pass = !report.stored && failure.may_pass && attempts < retries.attempts;
    may_pass.then(|| (failure, delay(retries, attempts, chance)))
}

/// The delay doubles from one attempt to the next; up to a tenth more, by `chance` (0 to 1), keeps two runs apart.
fn delay(retries: Retries, attempts: u32, chance: f64) -> Duration {
    let doubled = retries
        .delay
        .saturating_mul(1u32.checked_shl(attempts - 1).unwrap_or(u32::MAX));
    doubled.min(retries.max_delay).mul_f64(1.0 + chance / 10.0)
}

impl Report {
    /// Starts a report of a run that has stored nothing.
    fn new(request: &Request, started_at: Timestamp) -> Self {
        Self {
            database: request.name.to_string(),
            backup_id: None,
            stored: false,
            started_at,
            took_ms: 0,
            attempts: 0,
            rows: 0,
            tables: 0,
            dump_bytes: 0,
            size_bytes: 0,
            stored_bytes: 0,
            sha256: None,
            recipients: Vec::new(),
            manifest_key: None,
            storages: request.storages.iter().map(not_stored).collect(),
            prune: None,
            required_tables: Vec::new(),
            limits: Vec::new(),
            warnings: Vec::new(),
            anomaly: None,
            restore: None,
            stage: None,
            notices: Vec::new(),
            failure: None,
            manifest: None,
        }
    }
}

fn not_stored(named: &NamedStorage) -> StorageOutcome {
    StorageOutcome {
        name: named.name.clone(),
        url: named.storage.label().to_owned(),
        stored: false,
        error: None,
        doubt: None,
    }
}

impl Selection {
    /// Returns what the manifest says of the selection; none when nothing was left out.
    pub fn record(&self) -> Option<SelectionRecord> {
        let names = |names: &[TableName]| names.iter().map(ToString::to_string).collect();
        let schemas = |names: &[String]| {
            names
                .iter()
                .map(|name| pgkeep_model::name::quote_if_needed(name))
                .collect()
        };
        let record = SelectionRecord {
            tables: names(&self.tables),
            exclude_tables: names(&self.exclude_tables),
            schemas: schemas(&self.schemas),
            exclude_schemas: schemas(&self.exclude_schemas),
            structure_only: names(&self.structure_only),
        };
        (record != SelectionRecord::default()).then_some(record)
    }
}

/// Reports a database that was not begun because a stop came before.
pub async fn not_started(request: &Request, context: &Context) -> Report {
    let mut report = Report::new(request, context.clock.now());
    report.failure = Some(
        context
            .stop
            .failure(&format!("backup of `{}` was not started", request.name))
            .and_safe(SAFE),
    );
    after::tell(request, &mut report, context).await;
    report
}

/// Sums up several runs: one that failed never hides the others, and all that failed make the whole fail.
pub fn overall(reports: &[Report]) -> Option<Failure> {
    let failed: Vec<&Report> = reports
        .iter()
        .filter(|report| report.failure.is_some())
        .collect();
    let first = failed.first()?.failure.clone()?;
    let is_stop = |failure: &&Failure| matches!(failure.kind, Kind::Interrupted | Kind::Terminated);
    if let Some(stopped) = failed
        .iter()
        .filter_map(|report| report.failure.as_ref())
        .find(is_stop)
    {
        return Some(stopped.clone());
    }
    if reports.len() == 1 || reports.iter().all(|report| !report.stored) {
        return Some(first);
    }
    // A database without a backup is no backup with something amiss.
    let lost: Vec<&Failure> = failed
        .iter()
        .filter(|report| !report.stored)
        .filter_map(|report| report.failure.as_ref())
        .collect();
    let names: Vec<String> = failed
        .iter()
        .map(|report| format!("`{}`", report.database))
        .collect();
    let (count, all) = (failed.len(), reports.len());
    let mut message = format!(
        "{count} of {all} databases had failures: {}",
        names.join(", ")
    );
    if !lost.is_empty() {
        message += &format!("; {} got no backup in this run", lost.len());
    }
    let mut all = failed.iter().filter_map(|report| report.failure.as_ref());
    let kind = lost
        .first()
        .copied()
        .or_else(|| all.find(|failure| failure.id == ANOMALY))
        .map_or(Kind::AfterGood, |failure| failure.kind);
    let details = failed
        .iter()
        .filter_map(|report| report.failure.as_ref())
        .map(|failure| failure.message.clone());
    Some(Failure::new(kind, "some_databases_failed", message).with_details(details))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(database: &str, stored: bool, kind: Option<Kind>) -> Report {
        Report {
            database: database.to_owned(),
            stored,
            failure: kind.map(|kind| Failure::new(kind, "x", "it broke")),
            ..Report::default()
        }
    }

    #[test]
    fn a_database_without_a_backup_is_a_failure_of_its_own() {
        let code = |reports: &[Report]| overall(reports).map(|failure| failure.kind.exit_code());
        let good = || report("a", true, None);
        let odd = || report("b", true, Some(Kind::AfterGood));
        let lost = || report("c", false, Some(Kind::Source));
        assert_eq!(code(&[good(), good()]), None);
        assert_eq!(code(&[good(), odd()]), Some(3));
        assert_eq!(code(&[good(), odd(), lost()]), Some(20));
        assert_eq!(code(&[lost(), good()]), Some(20));
        let mut held = report("e", true, Some(Kind::Proof));
        held.failure = held.failure.map(|failure| Failure {
            id: ANOMALY,
            ..failure
        });
        assert_eq!(code(&[odd(), held, good()]), Some(21));
        let stopped = report("d", false, Some(Kind::Terminated));
        assert_eq!(code(&[lost(), good(), stopped]), Some(143));
    }

    #[test]
    fn a_delay_doubles_up_to_its_limit_and_leaves_room_for_chance() {
        let retries = Retries {
            attempts: 9,
            delay: Duration::from_secs(10),
            max_delay: Duration::from_secs(60),
        };
        let delays = [1, 2, 3, 4, 40].map(|attempts| delay(retries, attempts, 0.0).as_secs());
        assert_eq!(delays, [10, 20, 40, 60, 60]);
        assert_eq!(delay(retries, 2, 1.0), Duration::from_secs(22));
    }
}

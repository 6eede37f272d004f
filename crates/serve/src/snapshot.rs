//! What is known of all databases at one moment: made by the watcher from the storages, read by pages, API and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use pgkeep_core::op::status;
use pgkeep_core::op::stored::Listing;
use pgkeep_model::config::Config;
use pgkeep_model::failure::Failure;
use pgkeep_model::freshness::age;
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::lease::{Lease, shown};
use pgkeep_model::runs::RunRecord;

/// What was seen longer ago is doubted, and starts nothing: three listings of a large storage fit in between.
pub(crate) const MAX_AGE: SignedDuration = SignedDuration::from_mins(15);

/// All of it, never changed once it is made.
#[derive(Clone)]
pub struct Snapshot {
    /// When the storages were listed; the beginning of all time before the first listing.
    pub at: Timestamp,
    /// How each database stands, worst first. A database without any backup is in it where it is configured.
    pub report: Arc<status::Report>,
    /// What is stored.
    pub listing: Arc<Listing>,
    /// Run records by database, newest first.
    pub records: Arc<BTreeMap<DatabaseName, Vec<Arc<RunRecord>>>>,
    /// Runs of other processes that hold a lease, and such that died with one.
    pub held: Vec<Held>,
    /// What is scheduled.
    pub plans: Vec<Planned>,
    /// Slots that nobody ran and nobody will, newest first, of the last 30 days.
    pub missed: Vec<Missed>,
    /// Why the storages could not be asked the last time; what stands here is older then.
    pub failure: Option<Failure>,
    /// Drills that passed, as the notes beside the backups tell it, oldest first.
    pub drills: Arc<BTreeMap<DatabaseName, Vec<Drilled>>>,
    /// How long a restore of a database may take, where its configuration says so.
    pub recovery_targets: Arc<BTreeMap<DatabaseName, Duration>>,
    /// The client programs of this host; empty where nobody looked.
    pub programs: Arc<Vec<Program>>,
    /// Whether a private key is at hand that opens encrypted backups.
    pub can_open: bool,
    /// The configuration.
    pub config: Arc<Config>,
}

impl Snapshot {
    /// Returns when the storages were listed; none where they never were.
    pub fn looked_at(&self) -> Option<Timestamp> {
        (self.at > Timestamp::UNIX_EPOCH).then_some(self.at)
    }

    /// Says why what stands here may no longer be so, for people; none where the storages were listed lately.
    pub fn doubt(&self, now: Timestamp) -> Option<String> {
        let since = self.looked_at().map(|at| {
            let seconds = now.duration_since(at).as_secs();
            (format!("{} ago", age(seconds)), seconds)
        });
        match (&self.failure, since) {
            (Some(failure), Some((ago, _))) => Some(format!(
                "no storage answers; what is known is from {ago}: {}",
                failure.message
            )),
            (Some(failure), None) => Some(format!(
                "no storage has answered since the server was started: {}",
                failure.message
            )),
            (None, None) => Some("the storages were never listed".to_owned()),
            (None, Some((ago, seconds))) => (seconds > MAX_AGE.as_secs())
                .then(|| format!("the storages were last listed {ago}")),
        }
    }

    /// Judges the databases anew: backups grow old though nothing is listed.
    pub(crate) fn judge(&mut self, now: Timestamp) {
        self.report = Arc::new(status::later(&self.report, &self.listing, now));
    }

    /// Returns the same with one thing changed.
    pub(crate) fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }
}

/// A drill that passed.
#[derive(Clone, Debug)]
pub struct Drilled {
    /// The backup.
    pub backup: BackupId,
    /// When it passed.
    pub passed_at: Timestamp,
    /// How long it took until the data was there, in milliseconds.
    pub recovery_ms: u64,
    /// Version of the server that it was restored into.
    pub server_version: Option<String>,
}

impl Drilled {
    /// Reads the note that stands beside a backup.
    pub(crate) fn read(backup: &BackupId, note: &Value) -> Option<Self> {
        Some(Self {
            backup: backup.clone(),
            passed_at: note.get("passed_at")?.as_str()?.parse().ok()?,
            recovery_ms: note.get("recovery_ms")?.as_u64()?,
            server_version: note
                .get("server_version")
                .and_then(Value::as_str)
                .map(str::to_owned),
        })
    }
}

/// A client program of this host.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name: `psql`.
    pub name: String,
    /// Its version; none where it is not there.
    pub version: Option<String>,
}

/// What a schedule starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// A backup.
    Backup,
    /// A restore of the latest backup for a test.
    Drill,
    /// The reading of stored copies.
    Verify,
    /// A table's rows put back, which no schedule does.
    Restore,
}

impl Verb {
    /// Returns the command's name, as in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Drill => "drill",
            Self::Verify => "verify",
            Self::Restore => "restore",
        }
    }
}

/// A run that is known by its lease alone.
#[derive(Clone, Debug)]
pub struct Held {
    /// The database.
    pub database: DatabaseName,
    /// The command.
    pub verb: String,
    /// The run's id, where the lease says it.
    pub run: Option<BackupId>,
    /// Which host holds it.
    pub host: String,
    /// Which process there.
    pub pid: u32,
    /// When it took the lease, by its own clock.
    pub since: Timestamp,
    /// When it was last seen to be alive.
    pub last_sign: Timestamp,
    /// The slot that it runs for.
    pub slot: Option<Timestamp>,
    /// Who started it.
    pub by: Option<String>,
    /// What its client called the request.
    pub request_key: Option<String>,
    /// Whether it gave no sign of life for longer than its lease lives: it was interrupted, and nothing was stored.
    pub is_dead: bool,
}

impl Held {
    /// Tells what a lease says of its run.
    pub(crate) fn of(
        lease: &Lease,
        database: DatabaseName,
        last_sign: Timestamp,
        is_dead: bool,
    ) -> Self {
        Self {
            database,
            verb: shown(&lease.verb),
            run: lease.run.clone(),
            host: shown(&lease.host_name),
            pid: lease.pid,
            since: lease.taken_at,
            last_sign,
            slot: lease.slot,
            by: lease.by.as_deref().map(shown),
            request_key: lease.request_key.clone(),
            is_dead,
        }
    }

    /// Tells whether it gave a sign of life so lately that it can be joined.
    pub(crate) fn is_alive(&self, now: Timestamp) -> bool {
        const LATELY: SignedDuration = SignedDuration::from_secs(60);
        !self.is_dead && now.duration_since(self.last_sign) < LATELY
    }

    /// Tells whether both are leases of one run.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let key = |held: &Self| {
            (
                held.verb.clone(),
                held.host.clone(),
                held.pid,
                held.run.clone(),
            )
        };
        key(self) == key(other)
    }
}

/// A schedule of a database.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The database.
    pub database: DatabaseName,
    /// What is started.
    pub verb: Verb,
    /// The cron expression.
    pub schedule: String,
    /// The zone that it is read in.
    pub zone: String,
    /// How much later the database's turn is.
    pub offset: SignedDuration,
    /// When it runs next, at most five.
    pub next: Vec<Timestamp>,
}

/// A slot that nobody ran.
#[derive(Clone, Debug)]
pub struct Missed {
    /// The database.
    pub database: DatabaseName,
    /// What should have run.
    pub verb: Verb,
    /// When.
    pub slot: Timestamp,
}

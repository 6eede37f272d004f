//! Whoever hears of runs as a whole, from their begin to their end: a service that tracks errors and missed schedules.
//!
//! Notices are for people and are made by operations; this is told by the front doors, which also know of the runs that
//! failed before there was an operation. Promises of an implementation: it never fails a run, and costs its end two seconds
//! at most.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::stop::Stop;
use pgkeep_model::failure::Failure;

/// A run, as it is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked<'a> {
    /// The command: `backup`, `drill`, `verify`, `restore`, `guard`.
    pub verb: &'a str,
    /// The database, where the run is about one.
    pub database: Option<&'a str>,
    /// The backup that it made or was about.
    pub backup_id: Option<&'a str>,
    /// Whether a schedule wanted it.
    pub is_scheduled: bool,
    /// The slot of the schedule, where it is known. Runs for one slot, on whichever host, are one run.
    pub slot: Option<Timestamp>,
}

/// Where errors and the runs of schedules go, and whether they can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This program was built without it.
    NotBuilt,
    /// Nothing says where to.
    Nowhere,
    /// What says where to cannot be understood: why.
    Bad(String),
    /// There, in words without a secret.
    At(String),
}

/// Tracks runs.
#[async_trait]
pub trait Tracker: Send + Sync {
    /// Hears that a run begins, without making it wait.
    fn begun(&self, run: &Tracked<'_>);

    /// Hears how a run ended, and makes it wait until that is told or given up.
    async fn ended(&self, run: &Tracked<'_>, failure: Option<&Failure>, stop: &Stop);

    /// Tells whether it heard of a failure.
    fn heard_of_failure(&self) -> bool;

    /// Says where it tells of runs.
    fn place(&self) -> Place;

    /// Sends a test. The error says why it did not arrive.
    async fn test(&self) -> Result<(), String>;
}

/// Tracks nothing.
#[derive(Debug, Default)]
pub struct Untracked;

#[async_trait]
impl Tracker for Untracked {
    fn begun(&self, _: &Tracked<'_>) {}

    async fn ended(&self, _: &Tracked<'_>, _: Option<&Failure>, _: &Stop) {}

    fn heard_of_failure(&self) -> bool {
        false
    }

    fn place(&self) -> Place {
        Place::NotBuilt
    }

    async fn test(&self) -> Result<(), String> {
        Err("this program was built without it".to_owned())
    }
}

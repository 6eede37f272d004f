//! `sync`: brings every backup that is kept to each storage that lacks it, and sweeps what dead runs left behind.
//!
//! First the copies, because a copy that lost its manifest is no leftover where another storage has the backup. Only
//! what a manifest proves is copied, from a storage whose bytes have its SHA-256, and the manifest comes last.

mod carry_out;
mod examine;
mod plan;
mod repair;
mod sweep;
mod transfer;

use serde::Serialize;

use super::event::{Event, Observer};
use super::history::{self, keep_record};
use super::lock::{self, Hold, LockRequest, LockSettings};
use super::prune::worst;
use super::stored::NamedStorage;
use crate::context::Context;
use pgkeep_model::config::Retention;
use pgkeep_model::failure::Failure;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::Leased;
use pgkeep_model::origin::Origin;
use pgkeep_model::scan::Finding;

pub use repair::{CopyLine, Lost, State};
pub use sweep::{Orphan, Swept};

/// What is safe to say of a run that did not begin.
const SAFE: &str = "nothing was removed";

/// What to sync.
pub struct Request {
    /// The database.
    pub database: DatabaseName,
    /// The storages.
    pub storages: Vec<NamedStorage>,
    /// Which backups are kept; none keeps all.
    pub policy: Option<Retention>,
    /// Whether every copy is read, and not only listed.
    pub verify: bool,
    /// Whether the configuration knows further storages of the database, which are not looked at.
    pub is_partial: bool,
    /// Whether what would be done is only told.
    pub dry_run: bool,
}

/// What was copied and swept.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The database.
    pub database: String,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// How many backups are kept, and so belong into every storage.
    pub kept: u64,
    /// Every copy that is missing or damaged, newest backup first.
    pub copies: Vec<CopyLine>,
    /// Backups of which no storage has everything.
    pub lost: Vec<Lost>,
    /// Bytes of the copies that were brought; in a dry run of those that would be.
    pub copied_bytes: u64,
    /// What was swept in each storage.
    pub storages: Vec<Swept>,
    /// What was odd.
    pub warnings: Vec<Finding>,
    /// How it failed.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// Copies and sweeps under a lock of its own; a dry run takes none.
pub async fn run(
    request: &Request,
    settings: &LockSettings,
    context: &Context,
    observer: &dyn Observer,
) -> Report {
    if request.dry_run {
        return sync(request, None, context, observer).await;
    }
    let started_at = context.clock.now();
    let lock = LockRequest {
        database: &request.database,
        storages: &request.storages,
        verb: "sync",
        leased: Leased::Backups,
        origin: &Origin::default(),
        safe: SAFE,
        settings,
        on_wait: &|text| tracing::warn!("{text}"),
    };
    let report = match lock::acquire(&lock, context).await {
        Ok(hold) => {
            let mut report = sync(request, Some(&hold), context, observer).await;
            report.warnings.extend(hold.warnings.iter().cloned());
            report.warnings.extend(hold.release().await);
            report
        }
        Err(failure) => Report::failed(&request.database, request.dry_run, failure),
    };
    let run = history::run_id(&request.database, started_at, context);
    let mut record = history::record(run, "sync", started_at, report.failure.as_ref(), context);
    record.removed = Some(report.removed());
    record.copied = Some(report.copied());
    keep_record(&request.storages, record, context).await;
    report
}

async fn sync(
    request: &Request,
    hold: Option<&Hold>,
    context: &Context,
    observer: &dyn Observer,
) -> Report {
    let repaired = repair::repair(request, hold, context, observer).await;
    observer.note(Event::Ended);
    let mut failures = repaired.failures;
    let mut swept = Vec::new();
    // Anyone who wants to stop has been told so once.
    if !context.stop.is_requested() {
        let unseen = match repaired.unlisted.first() {
            Some((name, _)) => Some(format!("`{name}` did not answer, and may have its manifest")),
            None if request.is_partial => Some(
                "not every storage of the configuration was named, and another may have its manifest"
                    .to_owned(),
            ),
            None => None,
        };
        let sweep = sweep::Sweep {
            request,
            spared: &repaired.spared,
            unseen: unseen.as_deref(),
        };
        swept = sweep.all(hold, context).await;
    }
    failures.extend(swept.iter_mut().filter_map(|swept| swept.failure.take()));
    // A storage that cannot be listed is told of once.
    let is_told = |name: &String| {
        swept
            .iter()
            .any(|swept| &swept.name == name && swept.error.is_some())
    };
    let unlisted = repaired.unlisted.into_iter();
    failures.extend(
        unlisted
            .filter(|(name, _)| !is_told(name))
            .map(|(_, failure)| failure),
    );
    Report {
        kept: repaired.kept,
        copied_bytes: repaired.copied_bytes,
        copies: repaired.copies,
        lost: repaired.lost,
        storages: swept,
        warnings: repaired.warnings,
        failure: worst(failures),
        ..Report::new(&request.database, request.dry_run)
    }
}

impl Report {
    /// Reports a run that did not begin.
    pub fn failed(database: &DatabaseName, dry_run: bool, failure: Failure) -> Self {
        Self {
            failure: Some(failure),
            ..Self::new(database, dry_run)
        }
    }

    fn new(database: &DatabaseName, dry_run: bool) -> Self {
        Self {
            database: database.to_string(),
            dry_run,
            kept: 0,
            copies: Vec::new(),
            lost: Vec::new(),
            copied_bytes: 0,
            storages: Vec::new(),
            warnings: Vec::new(),
            failure: None,
        }
    }

    fn removed(&self) -> u64 {
        let orphans = self.storages.iter().flat_map(|swept| &swept.orphans);
        orphans.filter(|orphan| orphan.removed).count() as u64
    }

    fn copied(&self) -> u64 {
        self.copies.iter().filter(|line| line.copied).count() as u64
    }
}

//! `pin` and `unpin`: keep a backup until somebody says otherwise.
//!
//! Takes no lock, so that a backup can be saved while a run is under way: whatever removes one looks for its pin first.

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Serialize;

use super::history;
use super::stored::{Listing, NamedStorage, StoredBackup, Wanted, storage_failure};
use crate::context::Context;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::keys::{Listed, Part};
use pgkeep_model::lease::whole_seconds;
use pgkeep_model::pin::{MAX_PIN_BYTES, Pin};
use pgkeep_storage::Error;

/// What to pin or unpin.
pub struct Request {
    /// Where to look.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// Which backup.
    pub wanted: Wanted,
    /// Why it is pinned; none to unpin it.
    pub reason: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup.
    pub id: String,
    /// Whether it is pinned now.
    pub pinned: bool,
    /// Why, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether anything changed.
    pub changed: bool,
    /// The storages whose copies were looked at.
    pub storages: Vec<String>,
    /// What is odd of the choice of this backup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Storages where it failed while it went well in others.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// What happened to one copy.
enum Change {
    Made,
    /// It was so already; with the reason that stands there.
    None(Option<String>),
}

/// Pins every copy of a backup, or unpins it.
pub async fn run(request: Request, context: &Context) -> Result<Report> {
    let started_at = context.clock.now();
    let database = match &request.wanted {
        Wanted::Id(id) => Some(id.database().clone()),
        Wanted::Latest => request.database.clone(),
    };
    let listing = Listing::read(request.storages, database.as_ref(), started_at).await?;
    let backup = listing.find(&request.wanted)?;
    let at = backup.readable_from();
    let pin = request
        .reason
        .as_ref()
        .map(|reason| Pin::new(backup.place.id.clone(), started_at, reason));
    let change = |&at: &usize| {
        change(
            &listing.storages[at],
            backup,
            &backup.copies[&at],
            pin.as_ref(),
        )
    };
    let changes = join_all(at.iter().map(change)).await;

    let mut report = Report {
        id: backup.place.id.to_string(),
        pinned: pin.is_some(),
        reason: pin.as_ref().map(|pin| pin.reason.clone()),
        changed: false,
        storages: at
            .iter()
            .map(|&at| listing.storages[at].name.clone())
            .collect(),
        warnings: listing.passed_over(&request.wanted),
        failure: listing.partial_failure(),
    };
    let copies = changes.len();
    let mut failures = Vec::new();
    for change in changes {
        match change {
            Ok(Change::Made) => report.changed = true,
            Ok(Change::None(reason)) => report.reason = reason.or(report.reason),
            Err(failure) => failures.push(failure),
        }
    }
    let all_failed = failures.len() == copies;
    if let Some(failure) = failures.into_iter().next() {
        let kind = if all_failed {
            failure.kind
        } else {
            Kind::AfterGood
        };
        report.failure = Some(Failure { kind, ..failure });
    }
    if report.changed || report.failure.is_some() {
        let verb = if pin.is_some() { "pin" } else { "unpin" };
        let run = history::run_id(backup.place.id.database(), started_at, context);
        let mut record = history::record(run, verb, started_at, report.failure.as_ref(), context);
        record.backup_id = Some(report.id.clone());
        record.reason.clone_from(&report.reason);
        history::keep_record(&listing.storages, record, context).await;
    }
    match report.failure.take_if(|_| all_failed) {
        Some(failure) => Err(failure),
        None => Ok(report),
    }
}

async fn change(
    named: &NamedStorage,
    backup: &StoredBackup,
    copy: &Listed,
    pin: Option<&Pin>,
) -> Result<Change> {
    let key = backup.place.key(Part::Pin, "");
    let id = &backup.place.id;
    let storage = named.storage.as_ref();
    let Some(pin) = pin else {
        storage
            .remove(&key)
            .await
            .map_err(|error| still_pinned(named, id, &error))?;
        return Ok(if copy.is_pinned() {
            Change::Made
        } else {
            Change::None(None)
        });
    };
    let failed = |error| {
        storage_failure(&format!("cannot pin `{id}` in `{}`", named.name), &error)
            .and_safe("it is not pinned there")
    };
    match storage.put(&key, Bytes::from(pin.to_json())).await {
        Ok(()) => {}
        Err(Error::Exists(_)) => {
            return Ok(Change::None(Some(reason(named, &key).await)));
        }
        Err(error) => return Err(failed(error)),
    }
    // A prune looks for the pin behind the manifest, as this looks for the manifest behind the pin: one of both sees
    // the other.
    match storage.head(&backup.place.key(Part::Manifest, "")).await {
        Ok(_) => Ok(Change::Made),
        Err(Error::NotFound(_)) => {
            storage.remove(&key).await.map_err(failed)?;
            let message = format!(
                "`{id}` is not pinned in `{}`: it was just removed there",
                named.name
            );
            let failure = Failure::new(Kind::NotFound, "no_such_backup", message);
            Err(failure.hint("`pgkeep list` shows the backups"))
        }
        Err(error) => Err(storage_failure(
            &format!(
                "`{id}` may be pinned in `{}`: cannot tell whether it is still there",
                named.name
            ),
            &error,
        )),
    }
}

/// A pin is an object like any other: what may not be removed stays, and so does the backup.
fn still_pinned(named: &NamedStorage, id: &BackupId, error: &Error) -> Failure {
    let what = format!("cannot unpin `{id}` in `{}`", named.name);
    let failure = storage_failure(&what, error).and_safe("it is still pinned there");
    match error {
        Error::Retained { .. } if named.storage.is_append_only() => failure.hint(
            "the pin is an object there, and `append_only` removes none: unpin with `--storage` and a key that may delete",
        ),
        Error::Retained { until: Some(until), .. } => {
            failure.hint(format!("unpin it after {}", whole_seconds(*until)))
        }
        Error::Denied { .. } => {
            failure.hint("unpin with a key that may delete: the pin is an object like any other")
        }
        _ => failure,
    }
}

/// Reads why a backup is pinned; empty when that cannot be read, for it is pinned all the same.
pub(super) async fn reason(named: &NamedStorage, key: &str) -> String {
    match named.storage.get(key, MAX_PIN_BYTES).await {
        Ok(bytes) => Pin::reason_in(&bytes),
        Err(_) => String::new(),
    }
}

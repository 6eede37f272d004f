//! `list`: what is stored, from one LIST per storage.

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use serde::Serialize;

use super::pin;
use super::stored::{Listing, NamedStorage, StorageState, StoredBackup};
use pgkeep_model::failure::{Failure, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::{Listed, Part};

/// How many pins are asked for at once.
const READS_AT_ONCE: usize = 16;

/// What to list.
pub struct Request {
    /// Where to look.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// The present moment, for ages.
    pub now: Timestamp,
}

/// What there is.
#[derive(Debug, Serialize)]
pub struct Report {
    /// All committed backups, newest first.
    pub backups: Vec<Entry>,
    /// Dumps without a manifest: runs that are under way or were cut off. They are no backups.
    pub unfinished: Vec<String>,
    /// Where was looked.
    pub storages: Vec<StorageState>,
    /// A storage that did not answer while others did.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// One backup.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// Its database.
    pub database: String,
    /// When its run started.
    pub started_at: Timestamp,
    /// How old it is.
    pub age_seconds: i64,
    /// Size of all its objects in one storage.
    pub size_bytes: u64,
    /// Storages that have it.
    pub storages: Vec<String>,
    /// Whether it is whole and not known to be damaged.
    pub good: bool,
    /// Whether it is kept until unpinned.
    pub pinned: bool,
    /// Why, where it is and says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_reason: Option<String>,
    /// Whether a drill of it passed.
    pub drilled: bool,
    /// Whether it is held: it lost what the ones before it had, and nobody has accepted it.
    pub held: bool,
    /// Whether it was held, and somebody accepted it.
    pub accepted: bool,
    /// Whether stored bytes contradict its manifest in some storage.
    pub damaged: bool,
    /// Whether it is a one-off that left something out.
    pub partial: bool,
}

/// Lists what is stored.
pub async fn run(request: Request) -> Result<Report> {
    let listing = Listing::read(request.storages, request.database.as_ref(), request.now).await?;
    Ok(of(&listing, request.database.as_ref(), request.now).await)
}

/// Tells what a listing that is there already has of a database, or of all.
pub async fn of(listing: &Listing, database: Option<&DatabaseName>, now: Timestamp) -> Report {
    let is_meant =
        |backup: &&StoredBackup| database.is_none_or(|name| backup.place.id.database() == name);
    let (committed, unfinished): (Vec<_>, Vec<_>) = listing
        .backups
        .iter()
        .filter(is_meant)
        .partition(|backup| backup.is_committed());
    let pending = committed.iter().rev().map(|backup| async {
        let reason = pin_reason(listing, backup).await;
        entry(listing, backup, reason, now)
    });
    // Only pins are read; each of the others is ready at once.
    let entries: Vec<_> = pending.collect();
    Report {
        backups: stream::iter(entries)
            .buffered(READS_AT_ONCE)
            .collect()
            .await,
        unfinished: unfinished
            .iter()
            .map(|backup| backup.place.id.to_string())
            .collect(),
        failure: listing.partial_failure(),
        storages: listing.states.clone(),
    }
}

/// Reads why a backup is pinned, from the first copy that is; none where none is.
pub async fn pin_reason(listing: &Listing, backup: &StoredBackup) -> Option<String> {
    let (&at, _) = backup.copies.iter().find(|(_, copy)| copy.is_pinned())?;
    let key = backup.place.key(Part::Pin, "");
    Some(pin::reason(&listing.storages[at], &key).await)
}

fn entry(
    listing: &Listing,
    backup: &StoredBackup,
    pin_reason: Option<String>,
    now: Timestamp,
) -> Entry {
    let id = &backup.place.id;
    Entry {
        id: id.to_string(),
        database: id.database().to_string(),
        started_at: id.started_at(),
        age_seconds: now.as_second() - id.started_at().as_second(),
        size_bytes: backup.size_bytes(),
        storages: backup
            .readable_from()
            .iter()
            .map(|&at| listing.storages[at].name.clone())
            .collect(),
        good: backup.is_good(),
        pinned: backup.is_pinned(),
        pin_reason,
        drilled: backup.is_drilled(),
        held: backup.is_held(),
        accepted: backup.is_accepted(),
        damaged: backup.copies.values().any(Listed::is_damaged),
        partial: backup.place.is_partial,
    }
}

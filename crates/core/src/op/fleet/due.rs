//! What is due by the schedules, as the storages tell it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;

use super::{CLOCKS_APART, READS_AT_ONCE, Scheduled, records_since, runs_since};
use crate::copies::listing::{Listing, NamedStorage};
use pgkeep_model::due::{self, ATTEMPTS_OF_WORKERS, Due, Outcome, SlotRun, due_within};
use pgkeep_model::failure::Result;
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::keys::{Leased, lease_key};
use pgkeep_model::lease::{Lease, MAX_LEASE_BYTES};

/// A database whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The database.
    pub database: DatabaseName,
    /// Its slot, and which attempt this is.
    pub due: Due,
}

/// Returns what is due of a verb at `at`, the oldest slot first.
///
/// It takes one listing of the storages, and for each database that may be due a few small reads. A run that goes on is
/// told by its lease as far as the clocks of two hosts allow: who takes such a turn all the same is told that it is busy.
pub async fn due(
    verb: &str,
    scheduled: &[Scheduled],
    storages: &[NamedStorage],
    at: Timestamp,
    now: Timestamp,
) -> Result<Vec<Turn>> {
    let may_be: Vec<(&Scheduled, Due)> = scheduled
        .iter()
        .filter_map(|one| Some((one, due::due(&one.plan, &[], at)?)))
        .collect();
    let Some(oldest) = may_be.iter().map(|(_, due)| due.slot).min() else {
        return Ok(Vec::new());
    };
    let listing = &Listing::read(storages.to_vec(), None, now).await?;
    let runs = &runs_since(listing, oldest - CLOCKS_APART);
    let mut questions = Vec::new();
    for (one, due) in &may_be {
        questions.push(judge(verb, one, due.slot, listing, runs, (at, now)));
    }
    let judged = stream::iter(questions).buffered(READS_AT_ONCE);
    let mut turns: Vec<Turn> = judged.filter_map(|turn| async { turn }).collect().await;
    turns.sort_by_key(|turn| turn.due.slot);
    Ok(turns)
}

/// Judges one database at `at`, by what is known `now`.
async fn judge(
    verb: &str,
    one: &Scheduled,
    slot: Timestamp,
    listing: &Listing,
    runs: &BTreeMap<&DatabaseName, Vec<&BackupId>>,
    (at, now): (Timestamp, Timestamp),
) -> Option<Turn> {
    let known = known(verb, &one.database, slot, listing, runs, now).await;
    Some(Turn {
        due: due_within(&one.plan, &known, at, ATTEMPTS_OF_WORKERS)?,
        database: one.database.clone(),
    })
}

/// Collects what is known of a slot: by records, and by the lease.
async fn known(
    verb: &str,
    database: &DatabaseName,
    slot: Timestamp,
    listing: &Listing,
    runs: &BTreeMap<&DatabaseName, Vec<&BackupId>>,
    now: Timestamp,
) -> Vec<SlotRun> {
    let mut known = Vec::new();
    let mut told: Vec<BackupId> = Vec::new();
    for record in records_since(listing, runs, database, slot - CLOCKS_APART).await {
        if record.verb != verb || record.slot != Some(slot) {
            continue;
        }
        let outcome = if record.is_interrupted() {
            Outcome::Interrupted
        } else {
            Outcome::Ended
        };
        known.push(SlotRun { slot, outcome });
        told.push(record.run.unwrap_or(record.id));
    }
    let lease = lease(verb, database, listing).await;
    let of_slot = lease.filter(|lease| lease.verb == verb && lease.slot == Some(slot));
    // Whoever took a dead one over has told of it already.
    if let Some(lease) = of_slot.filter(|lease| !lease.run.iter().any(|run| told.contains(run))) {
        let outcome = if is_silent(&lease, now) {
            Outcome::Interrupted
        } else {
            Outcome::Running
        };
        known.push(SlotRun { slot, outcome });
    }
    known
}

/// Tells whether a lease gave no sign of life for as long as it lives, by the clocks of two hosts.
fn is_silent(lease: &Lease, now: Timestamp) -> bool {
    let silent = now.duration_since(lease.renewed_at);
    Duration::try_from(silent).is_ok_and(|silent| silent >= lease.ttl())
}

/// Reads the lease that a run of the verb holds; none where nobody has it.
async fn lease(verb: &str, database: &DatabaseName, listing: &Listing) -> Option<Lease> {
    let leased = match verb {
        "drill" => Leased::Drill,
        "verify" => Leased::Verification,
        _ => Leased::Backups,
    };
    let key = lease_key(database, leased);
    for &at in listing.leases.get(&key).into_iter().flatten() {
        let storage = &listing.storages[at].storage;
        if let Ok((bytes, _)) = storage.get_versioned(&key, MAX_LEASE_BYTES).await
            && let Ok(lease) = Lease::read(&bytes)
            && lease.released_at.is_none()
        {
            return Some(lease);
        }
    }
    None
}

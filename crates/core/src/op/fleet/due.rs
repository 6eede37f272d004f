//! What is due by the schedules, as the storages tell it.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;

use super::{READS_AT_ONCE, Scheduled, records_since, runs_since};
use crate::copies::listing::{Listing, NamedStorage};
use pgkeep_model::due::{
    self, ATTEMPTS_OF_WORKERS, CLOCKS_APART, Due, Outcome, SlotRun, due_within,
};
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

/// Returns what is due of a verb at `at`.
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
    Ok(judged.filter_map(|turn| async { turn }).collect().await)
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
        if let Some(run) = SlotRun::of(&record, verb).filter(|run| run.slot == slot) {
            known.push(run);
            told.push(record.run.unwrap_or(record.id));
        }
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

/// Tells whether a lease gave no sign of life for as long as it lives, by the clocks of two hosts. A sign from further in
/// the future is none: its clock is or was wrong, and a run that died must not count until that time has come.
fn is_silent(lease: &Lease, now: Timestamp) -> bool {
    now.duration_since(lease.renewed_at).unsigned_abs() >= lease.ttl()
}

/// Reads the lease that a run of the verb holds; none where nobody has it.
async fn lease(verb: &str, database: &DatabaseName, listing: &Listing) -> Option<Lease> {
    let key = lease_key(database, Leased::of_verb(verb)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_with_a_wrong_clock_hides_no_dead_run() {
        let text = r#"{"format": 1, "holder": "x", "host": "h", "lock": "l", "host_name": "elsewhere", "pid": 7,
            "verb": "backup", "taken_at": "2026-11-30T09:00:00Z", "renewed_at": "2026-11-30T09:01:00Z", "generation": 1,
            "renewals": 3, "ttl_ms": 60000}"#;
        let lease = Lease::read(text.as_bytes()).unwrap();
        for (now, expected) in [
            ("2026-11-30T09:01:59Z", false),
            ("2026-11-30T09:02:00Z", true),
            ("2026-11-30T09:00:01Z", false),
            ("2026-11-30T07:00:00Z", true),
        ] {
            assert_eq!(is_silent(&lease, now.parse().unwrap()), expected, "{now}");
        }
    }
}

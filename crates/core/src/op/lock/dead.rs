//! The record of a run that died: whoever takes its lease over writes it, for it could not do so itself.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::LockRequest;
use crate::context::Context;
use crate::copies::listing::Listing;
use crate::op::history::{keep_record, read_records};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::lease::{Lease, whole_seconds};
use pgkeep_model::runs::RunRecord;

/// How far apart the clock readings of one run may be.
const SLACK: SignedDuration = SignedDuration::from_secs(2);

/// How long a run may have waited for its lease whose id nobody knows.
const MAX_WAIT: SignedDuration = SignedDuration::from_hours(24);

/// Leaves a record for each run among these that left none. It is written under an id that everybody finds alike, so that
/// several who do this leave one.
pub(super) async fn leave_records(request: &LockRequest<'_>, dead: Vec<Lease>, context: &Context) {
    let Some(since) = dead.iter().map(since).min() else {
        return;
    };
    let (storages, now) = (request.storages, context.clock.now());
    let listing = Listing::read(storages.to_vec(), Some(request.database), now).await;
    let Ok(listing) = listing else {
        return; // history is no part of any promise
    };
    let lately = listing.runs.keys().filter(|run| run.started_at() >= since);
    let records = read_records(&listing, lately).await;
    let mut told: Vec<String> = Vec::new();
    for lease in dead {
        let id = id_of(&lease, request.database);
        let is_ours = id.database() == request.database;
        if !is_ours
            || told.contains(&lease.holder)
            || records.iter().any(|record| is_of(record, &lease, &id))
        {
            continue;
        }
        let mut record = RunRecord::interrupted(id.clone(), &lease);
        record.backup_id = made(&listing, &lease, &id);
        keep_record(storages, record, context).await;
        told.push(lease.holder);
    }
}

/// Returns the id of the run that had a lease. Where it names none, one that its leases in all storages lead to: they were
/// taken within moments, by one holder.
fn id_of(lease: &Lease, database: &DatabaseName) -> BackupId {
    let unnamed = || {
        let dice = Sha256::digest(lease.holder.as_bytes())[0];
        let began = whole_seconds(lease.taken_at);
        BackupId::new(database.clone(), began, u16::from(dice))
    };
    lease.run.clone().unwrap_or_else(unnamed)
}

/// Returns from when on the record of a lease's run may be.
fn since(lease: &Lease) -> Timestamp {
    let asked = lease.run.as_ref().map(BackupId::started_at);
    let since = asked.unwrap_or(lease.taken_at - MAX_WAIT);
    since.min(lease.taken_at) - SLACK
}

/// Tells whether a record is that of the run that had a lease: it could not give the lease back, but ended well.
fn is_of(record: &RunRecord, lease: &Lease, id: &BackupId) -> bool {
    let took = i64::try_from(record.took_ms).unwrap_or(i64::MAX);
    let end: Timestamp = record
        .started_at
        .saturating_add(SignedDuration::from_millis(took))
        .unwrap_or(record.started_at);
    let is_alike = record.verb == lease.verb
        && record.started_at <= lease.taken_at + SLACK
        && end + SLACK >= lease.renewed_at;
    &record.id == id || record.run.as_ref() == Some(id) || is_alike
}

/// Finds the backup that a run made before it died: it was committed, and only its record is not there.
fn made(listing: &Listing, lease: &Lease, id: &BackupId) -> Option<String> {
    let mut backups = listing.backups.iter();
    let found = backups.find(|backup| {
        let of = &backup.place.id;
        let is_in_time =
            of.started_at() >= lease.taken_at - SLACK && of.started_at() <= lease.renewed_at;
        backup.is_committed() && (of == id || (lease.run.is_none() && is_in_time))
    })?;
    (lease.verb == "backup").then(|| found.place.id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::lease::{Claim, TTL};
    use pgkeep_model::origin::Origin;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn lease(run: Option<&str>) -> Lease {
        let claim = Claim {
            holder: "a".to_owned(),
            host: "b".to_owned(),
            lock: "c".to_owned(),
            host_name: "db1".to_owned(),
            pid: 1,
            verb: "backup".to_owned(),
            ttl: TTL,
            origin: Origin {
                run: run.map(|id| id.parse().unwrap()),
                ..Origin::default()
            },
        };
        let mut lease = Lease::new(&claim, 1, at("2026-01-02T03:10:00Z"));
        lease.renew(at("2026-01-02T03:12:00Z"));
        lease
    }

    #[test]
    fn the_record_of_a_run_is_looked_for_since_it_was_asked_for() {
        let queued = lease(Some("shop-20260102T030405Z-7f3a"));
        assert_eq!(since(&queued), at("2026-01-02T03:04:03Z"));
        assert_eq!(since(&lease(None)), at("2026-01-01T03:09:58Z"));
    }

    #[test]
    fn a_run_that_ended_well_but_kept_its_lease_is_known_by_its_record() {
        let id: BackupId = "shop-20260102T031000Z-0000".parse().unwrap();
        let record = |verb: &str, from: &str, took_ms| {
            let run = "shop-20260102T031001Z-aaaa".parse().unwrap();
            RunRecord::new(run, verb, at(from), took_ms)
        };
        let lease = lease(None);
        for (verb, from, took_ms, expected) in [
            ("backup", "2026-01-02T03:09:00Z", 200_000, true),
            ("backup", "2026-01-02T03:09:00Z", 60_000, false),
            ("backup", "2026-01-02T03:11:00Z", 200_000, false),
            ("prune", "2026-01-02T03:09:00Z", 200_000, false),
        ] {
            let record = record(verb, from, took_ms);
            assert_eq!(
                is_of(&record, &lease, &id),
                expected,
                "{verb} {from} {took_ms}"
            );
        }
    }
}

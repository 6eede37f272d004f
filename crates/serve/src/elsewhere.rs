//! Runs of other processes, by the leases that they hold.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::snapshot::{Held, Snapshot, Verb};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::{Leased, lease_key};
use pgkeep_model::lease::{Lease, MAX_LEASE_BYTES};
use pgkeep_storage::Error;

/// How long a storage may take to answer; what the last look saw stands in for one that does not.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Returns the runs among these that hold the lock which a run of `verb` would need: of a backup also a prune.
pub(crate) fn of_lock<'h>(
    held: &'h [Held],
    database: &'h DatabaseName,
    verb: Verb,
) -> impl Iterator<Item = &'h Held> {
    let needed = Leased::of_verb(verb.as_str());
    held.iter().filter(move |held| {
        &held.database == database && needed.is_some() && Leased::of_verb(&held.verb) == needed
    })
}

/// Reads the leases that a run of `verb` would need, as they are now: the last look may be some seconds old.
pub(crate) async fn read(
    known: &Snapshot,
    database: &DatabaseName,
    verb: Verb,
    now: Timestamp,
) -> Vec<Held> {
    let Some(needed) = Leased::of_verb(verb.as_str()) else {
        return Vec::new();
    };
    let key = lease_key(database, needed);
    let storages = known.listing.storages.iter();
    let asked = storages.map(|named| {
        let answer = named.storage.get_versioned(&key, MAX_LEASE_BYTES);
        tokio::time::timeout(ANSWER_LIMIT, answer)
    });
    let mut held: Vec<Held> = Vec::new();
    let mut add = |one: Held| match held.iter_mut().find(|other| other.is_same(&one)) {
        Some(other) => other.is_dead &= one.is_dead,
        None => held.push(one),
    };
    for answer in join_all(asked).await {
        match answer {
            Ok(Ok((bytes, _))) => {
                if let Ok(lease) = Lease::read(&bytes)
                    && lease.released_at.is_none()
                {
                    add(judged(&lease, known, database, now));
                }
            }
            Ok(Err(Error::NotFound(_))) => {}
            Ok(Err(_)) | Err(_) => {
                of_lock(&known.held, database, verb).for_each(|one| add(one.clone()));
            }
        }
    }
    held
}

/// Tells whether a lease lives: as the looks saw it, or by its own clock where it is newer than they are.
fn judged(lease: &Lease, known: &Snapshot, database: &DatabaseName, now: Timestamp) -> Held {
    let ttl = SignedDuration::try_from(lease.ttl()).unwrap_or(SignedDuration::MAX);
    let is_silent = now.duration_since(lease.renewed_at) >= ttl;
    let mut one = Held::of(
        lease,
        database.clone(),
        lease.renewed_at.min(now),
        is_silent,
    );
    let seen = known
        .held
        .iter()
        .find(|held| &held.database == database && held.is_same(&one));
    if let Some(seen) = seen {
        one.is_dead = seen.is_dead;
        one.last_sign = one.last_sign.max(seen.last_sign);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_keeps_only_those_away_that_need_it() {
        let database: DatabaseName = "shop".parse().unwrap();
        let held = |verb: &str| Held {
            database: database.clone(),
            verb: verb.to_owned(),
            run: None,
            host: "db1".to_owned(),
            pid: 1,
            since: Timestamp::UNIX_EPOCH,
            last_sign: Timestamp::UNIX_EPOCH,
            slot: None,
            by: None,
            request_key: None,
            is_dead: false,
        };
        for (verb, expected) in [
            ("backup", &[Verb::Backup][..]),
            ("prune", &[Verb::Backup]),
            ("sync", &[Verb::Backup]),
            ("drill", &[Verb::Drill]),
            ("verify", &[Verb::Verify]),
        ] {
            let held = [held(verb)];
            let all = [Verb::Backup, Verb::Drill, Verb::Verify, Verb::Restore];
            let is_away = |of: &Verb| of_lock(&held, &database, *of).next().is_some();
            let away: Vec<Verb> = all.into_iter().filter(is_away).collect();
            assert_eq!(away, expected, "{verb}");
        }
        let blog = "blog".parse().unwrap();
        let of_other = [held("backup")];
        assert!(of_lock(&of_other, &blog, Verb::Backup).next().is_none());
    }
}

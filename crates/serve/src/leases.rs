//! What other processes do, by the leases that they hold.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use crate::snapshot::{Held, Planned, Snapshot};
use pgkeep_core::lock::host_name;
use pgkeep_core::op::stored::Listing;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::{Leased, lease_key};
use pgkeep_model::lease::{Lease, MAX_LEASE_BYTES};
use pgkeep_storage::{Error, Storage};

/// Of so few databases every lease is asked for at each look. Of more, 60 requests in ten seconds would become thousands.
const MAX_ASKED: usize = 20;

/// How many are asked for at once, and how long one may take: the next look is soon.
const READS_AT_ONCE: usize = 16;
const READ_LIMIT: Duration = Duration::from_secs(5);

/// A lease by its key and the position of its storage.
type Place = (String, usize);

/// The leases that were seen.
#[derive(Default)]
pub struct Leases(HashMap<Place, Seen>);

/// A lease as it was last seen, and since when it has been the same.
struct Seen {
    bytes: Bytes,
    since: Instant,
    last_sign: Timestamp,
    is_dead: bool,
}

/// What a storage said of a lease.
enum Answer {
    Found(Bytes),
    Nothing,
    /// It did not answer, so that what was seen before is all that is known.
    Silence,
}

/// Returns the keys of leases that may be there though no listing has told of them: of few databases all, and of many
/// those whose slot has come since the last listing.
pub fn unlisted(known: &Snapshot, now: Timestamp) -> BTreeSet<String> {
    let databases = &known.config.databases;
    if databases.len() <= MAX_ASKED {
        let all = [Leased::Backups, Leased::Drill, Leased::Verification];
        let of = |(name, _): &(DatabaseName, _)| all.map(|leased| lease_key(name, leased));
        return databases.iter().flat_map(of).collect();
    }
    let has_begun = known
        .plans
        .iter()
        .filter(|plan| plan.next.iter().any(|at| *at <= now));
    let key = |plan: &Planned| {
        let leased = Leased::of_verb(plan.verb.as_str())?;
        Some(lease_key(&plan.database, leased))
    };
    has_begun.filter_map(key).collect()
}

impl Leases {
    /// Reads the leases that are listed, those that were seen before, and those under `unlisted` keys, and tells which of
    /// them live.
    pub async fn held(
        &mut self,
        listing: &Listing,
        unlisted: BTreeSet<String>,
        now: Timestamp,
    ) -> Vec<Held> {
        let everywhere = 0..listing.storages.len();
        let listed = listing
            .leases
            .iter()
            .flat_map(|(key, places)| places.iter().map(|&at| (key.clone(), at)));
        let others = unlisted
            .iter()
            .flat_map(|key| everywhere.clone().map(|at| (key.clone(), at)));
        let places: BTreeSet<Place> = listed
            .chain(others)
            .chain(self.0.keys().cloned())
            .filter(|(_, at)| everywhere.contains(at))
            .collect();
        let reads: Vec<_> = places
            .into_iter()
            .map(|place| {
                let storage = listing.storages[place.1].storage.clone();
                async move { (read(storage, &place.0).await, place) }
            })
            .collect();
        let mut answers = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut held: Vec<Held> = Vec::new();
        while let Some((answer, place)) = answers.next().await {
            let Some((lease, last_sign, is_dead)) = self.note(&place, answer, now) else {
                continue;
            };
            let database = place.0.split('/').next().unwrap_or_default();
            let Ok(database) = database.parse::<DatabaseName>() else {
                continue;
            };
            let one = Held::of(&lease, database, last_sign, is_dead);
            // The same run in another storage: one sign of life is enough.
            let same = held
                .iter_mut()
                .find(|other| other.database == one.database && other.is_same(&one));
            match same {
                Some(other) => {
                    other.is_dead &= one.is_dead;
                    other.last_sign = other.last_sign.max(one.last_sign);
                }
                None => held.push(one),
            }
        }
        held
    }

    /// Notes an answer. Returns the lease that is held there, its last sign of life, and whether it is dead.
    fn note(
        &mut self,
        place: &Place,
        answer: Answer,
        now: Timestamp,
    ) -> Option<(Lease, Timestamp, bool)> {
        let known = self.0.remove(place);
        let (known, is_answered) = match (answer, known) {
            (Answer::Nothing, _) | (Answer::Silence, None) => return None,
            (Answer::Silence, Some(known)) => (known, false),
            (Answer::Found(bytes), Some(known)) if known.bytes == bytes => (known, true),
            (Answer::Found(bytes), known) => {
                let lease = Lease::read(&bytes).ok()?;
                // Its own clock may be wrong: until it was watched, that is all that is known.
                let last_sign = known.map_or_else(|| lease.renewed_at.min(now), |_| now);
                let seen = Seen {
                    bytes,
                    since: Instant::now(),
                    last_sign,
                    is_dead: false,
                };
                (seen, true)
            }
        };
        let lease = Lease::read(&known.bytes).ok()?;
        if lease.released_at.is_some() {
            return None;
        }
        let silent = SignedDuration::try_from(lease.ttl()).unwrap_or(SignedDuration::MAX);
        // A run of this very host has our clock.
        let is_ours = lease.host_name == host_name();
        let is_overdue = known.since.elapsed() >= lease.ttl()
            || (is_ours && now.duration_since(known.last_sign) >= silent);
        // A storage that does not answer hides signs of life.
        let is_dead = if is_answered {
            is_overdue
        } else {
            known.is_dead
        };
        let last_sign = known.last_sign;
        self.0.insert(place.clone(), Seen { is_dead, ..known });
        Some((lease, last_sign, is_dead))
    }
}

async fn read(storage: Arc<dyn Storage>, key: &str) -> Answer {
    match timeout(READ_LIMIT, storage.get_versioned(key, MAX_LEASE_BYTES)).await {
        Ok(Ok((bytes, _))) => Answer::Found(bytes),
        Ok(Err(Error::NotFound(_))) => Answer::Nothing,
        Ok(Err(_)) | Err(_) => Answer::Silence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::fixture::{Fixture, at};

    const LEASE: &[u8] = br#"{"format": 1, "holder": "x", "host": "h", "lock": "l", "host_name": "elsewhere", "pid": 7,
        "verb": "backup", "taken_at": "2026-11-30T09:00:00Z", "renewed_at": "2026-11-30T09:01:00Z", "generation": 1,
        "renewals": 3, "ttl_ms": 60000}"#;

    #[test]
    fn of_few_databases_every_lease_is_asked_for() {
        let fixture = Fixture::new();
        let now = at("2026-11-30T09:12:31Z");
        let keys = unlisted(&fixture.snapshot, now);
        assert_eq!(keys.len(), 18, "{keys:?}");
        assert!(keys.contains("blog/drill.lease.json"));
    }

    #[test]
    fn a_silent_storage_neither_kills_a_lease_nor_makes_it_be_forgotten() {
        let now = at("2026-11-30T09:01:10Z");
        let place = ("shop/lease.json".to_owned(), 0);
        let mut leases = Leases::default();
        let found = || Answer::Found(Bytes::from_static(LEASE));
        let (_, sign, is_dead) = leases.note(&place, found(), now).unwrap();
        assert_eq!((sign, is_dead), (at("2026-11-30T09:01:00Z"), false));
        // For longer than a lease lives.
        let seen = leases.0.get_mut(&place).unwrap();
        seen.since = Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
        let (_, _, is_dead) = leases.note(&place, Answer::Silence, now).unwrap();
        assert!(!is_dead, "nothing was seen");
        let (_, _, is_dead) = leases.note(&place, found(), now).unwrap();
        assert!(is_dead, "it is the same as it was a minute ago");
        let (_, _, is_dead) = leases.note(&place, Answer::Silence, now).unwrap();
        assert!(is_dead);
        assert!(leases.note(&place, Answer::Nothing, now).is_none());
        assert!(leases.note(&place, Answer::Silence, now).is_none());
    }
}

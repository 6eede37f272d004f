//! Takes the leases of all storages, one after the other in an order that all runs share, so that of two runs one wins.
//!
//! A lease of somebody else is watched until it changes or has lived its life. What was taken is written into the hold
//! at once, so that a run that is stopped gives it back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::keeper::{Keeper, Owned, give_back};
use super::{ANSWER_LIMIT, Hold, LockRequest, Place, RELEASE_LIMIT, busy, lock_name};
use pgkeep_model::failure::Result;
use pgkeep_model::lease::{Claim, Decision, Lease, MAX_LEASE_BYTES, Watched, Why, decide};
use pgkeep_model::scan::Finding;
use pgkeep_storage::{Error, Storage, Version};

/// A lease is looked at so often while it lives.
const LOOKS_PER_TTL: u32 = 12;

/// Pause before a lease that was there and is gone is asked for again.
const GONE_PAUSE: Duration = Duration::from_millis(100);

/// How often a storage may say that a lease is there, and then that it is not.
const MAX_GONE: usize = 20;

/// The leases of one run being taken.
pub(super) struct Taking<'a> {
    request: &'a LockRequest<'a>,
    hold: &'a mut Hold,
    /// When the run began to wait for anything.
    started: Instant,
    /// What was seen of others' leases, by the storage's position.
    watches: Vec<Option<Watch>>,
    is_told: bool,
}

/// A lease of somebody else, as far as it was watched.
struct Watch {
    version: Version,
    since: Instant,
    has_changed: bool,
}

/// How asking for a lease ended.
enum Won {
    Ours(Box<Lease>, Version),
    /// We hold it already, for the storage at this position, which is the same under another name.
    Shared(usize),
    /// There is none: what to warn of, and whether one of ours may be there all the same.
    Without {
        warning: Finding,
        is_unsure: bool,
    },
}

impl Watch {
    fn new(version: Version) -> Self {
        Self {
            version,
            since: Instant::now(),
            has_changed: false,
        }
    }

    fn see(&mut self, version: &Version) -> Watched {
        if &self.version != version {
            *self = Self {
                has_changed: true,
                ..Self::new(version.clone())
            };
        }
        Watched {
            has_changed: self.has_changed,
            unchanged_for: self.since.elapsed(),
        }
    }
}

impl<'a> Taking<'a> {
    pub(super) fn new(request: &'a LockRequest<'a>, hold: &'a mut Hold, started: Instant) -> Self {
        Self {
            watches: hold.storages.iter().map(|_| None).collect(),
            request,
            hold,
            started,
            is_told: false,
        }
    }

    /// Takes every lease that can be had; fails only where a run that is alive has one.
    pub(super) async fn take_all(mut self) -> Result<()> {
        let mut order: Vec<usize> = (0..self.hold.storages.len()).collect();
        order.sort_by_cached_key(|&at| self.hold.storages[at].storage.identity());
        for at in order {
            self.take(at).await?;
        }
        Ok(())
    }

    async fn take(&mut self, at: usize) -> Result<()> {
        let claim = Claim {
            lock: lock_name(
                self.request.database,
                self.request.leased,
                &self.hold.storages[at],
            ),
            ..self.hold.claim.clone()
        };
        let won = self
            .win(at, &claim)
            .await
            .inspect_err(|_| self.hold.places[at] = Place::Without)?;
        let (place, warning) = match won {
            Won::Shared(with) => (Place::Shared(with), None),
            Won::Without { warning, is_unsure } => {
                // What may still come about is looked for in the end.
                let asked = std::mem::replace(&mut self.hold.places[at], Place::Without);
                (
                    if is_unsure { asked } else { Place::Without },
                    Some(warning),
                )
            }
            Won::Ours(lease, version) => match self.probe(at, &lease, &version).await {
                Ok(version) => (self.keep(at, *lease, version), None),
                Err(warning) => {
                    self.discard(at, *lease).await;
                    (Place::Without, Some(warning))
                }
            },
        };
        self.hold.places[at] = place;
        self.hold.warnings.extend(warning);
        Ok(())
    }

    fn storage(&self, at: usize) -> Arc<dyn Storage> {
        Arc::clone(&self.hold.storages[at].storage)
    }

    fn keep(&self, at: usize, lease: Lease, version: Version) -> Place {
        let owned = Owned {
            storage: self.storage(at),
            key: self.hold.key.clone(),
            lease,
            version,
            clock: Arc::clone(&self.hold.context.clock),
        };
        let (lost, ended) = (self.hold.lost.clone(), self.hold.ended.clone());
        Place::Kept(Keeper::start(owned, lost, ended))
    }

    /// Asks for one lease until it is ours, or cannot be had.
    async fn win(&mut self, at: usize, claim: &Claim) -> Result<Won> {
        let storage = self.storage(at);
        let key = self.hold.key.clone();
        let mut gone = 0;
        loop {
            let lease = Lease::new(claim, 1, self.hold.context.clock.now());
            self.hold.places[at] = Place::Asked(Box::new(lease.clone()));
            match answer(storage.create(&key, text(&lease))).await {
                Ok(version) => return Ok(Won::Ours(Box::new(lease), version)),
                Err(Error::Exists(_)) => {}
                Err(error) => return Ok(self.without(at, error)),
            }
            loop {
                match answer(storage.get_versioned(&key, MAX_LEASE_BYTES)).await {
                    Ok((bytes, version)) => {
                        let found = Lease::read(&bytes).ok();
                        if let Some(won) = self.judge(at, claim, found.as_ref(), version).await? {
                            return Ok(won);
                        }
                    }
                    // Given back meanwhile.
                    Err(Error::NotFound(_)) if gone < MAX_GONE => break,
                    Err(error) => return Ok(self.without(at, error)),
                }
            }
            gone += 1;
            sleep(GONE_PAUSE).await;
        }
    }

    /// Takes over a lease that is dead, or waits a moment; fails where it is alive and nobody wants to wait.
    async fn judge(
        &mut self,
        at: usize,
        claim: &Claim,
        found: Option<&Lease>,
        version: Version,
    ) -> Result<Option<Won>> {
        let watch = self.watches[at].get_or_insert_with(|| Watch::new(version.clone()));
        let watched = watch.see(&version);
        let who = found.map_or_else(
            || "a run whose lease cannot be read".to_owned(),
            ToString::to_string,
        );
        let name = &self.hold.storages[at].name;
        let pause = self.request.settings.ttl / LOOKS_PER_TTL;
        match decide(found, claim, watched) {
            Decision::Own => return Ok(Some(Won::Shared(self.taken_for(found, at)))),
            Decision::TakeOver(why) => {
                return Ok(self.take_over(at, claim, found, &version, why).await);
            }
            Decision::Busy if self.started.elapsed() >= self.request.settings.wait => {
                let who = format!("{who}, says its lease in `{name}`");
                return Err(busy(&self.hold.what, self.request.safe, &who));
            }
            Decision::Busy => {
                self.tell(&format!(
                    "waiting for another run: {who}, says its lease in `{name}`"
                ));
                sleep(pause).await;
            }
            Decision::Wait(left) => {
                let seconds = left.as_secs_f64().ceil();
                self.tell(&format!(
                    "{who} has the lease in `{name}`; waiting for up to {seconds} s to see whether it is alive"
                ));
                self.look_ahead(at).await;
                sleep(left.min(pause)).await;
            }
        }
        Ok(None)
    }

    /// Finds the storage for which we took a lease.
    fn taken_for(&self, lease: Option<&Lease>, otherwise: usize) -> usize {
        let (database, leased) = (self.request.database, self.request.leased);
        let storages = self.hold.storages.iter();
        let mut names = storages.map(|named| lock_name(database, leased, named));
        let is_it = |name: String| lease.is_some_and(|lease| lease.lock == name);
        names.position(is_it).unwrap_or(otherwise)
    }

    async fn take_over(
        &mut self,
        at: usize,
        claim: &Claim,
        found: Option<&Lease>,
        version: &Version,
        why: Why,
    ) -> Option<Won> {
        let generation = found.map_or(1, |found| found.generation.saturating_add(1));
        let lease = Lease::new(claim, generation, self.hold.context.clock.now());
        self.hold.places[at] = Place::Asked(Box::new(lease.clone()));
        let storage = self.storage(at);
        match answer(storage.replace(&self.hold.key, text(&lease), version)).await {
            Ok(version) => {
                self.note_taken(at, found, why);
                Some(Won::Ours(Box::new(lease), version))
            }
            // Another one was faster, or the holder is alive after all.
            Err(Error::Changed(_)) => None,
            Err(error @ (Error::Denied { .. } | Error::Retained { .. })) => Some(Won::Without {
                warning: warn_of_renewal(&self.hold.storages[at].name, &error),
                is_unsure: false,
            }),
            Err(error) => Some(self.without(at, error)),
        }
    }

    fn note_taken(&mut self, at: usize, found: Option<&Lease>, why: Why) {
        let name = &self.hold.storages[at].name;
        let who = found.map(|lease| format!(": {lease}")).unwrap_or_default();
        if why != Why::Released {
            self.hold.dead.extend(found.cloned());
        }
        match why {
            Why::Expired => {
                let text = format!(
                    "the lease in `{name}` was taken over from a run that gave no sign of life{who}"
                );
                let finding = Finding::new("lease_taken_over", text, None);
                self.hold.warnings.push(finding);
            }
            Why::DeadHere | Why::Released => {
                tracing::info!(
                    storage = name,
                    ?why,
                    "took over the lease of an earlier run{who}"
                );
            }
        }
    }

    /// Begins to watch the leases that come next, so that several dead ones take no longer than one.
    async fn look_ahead(&mut self, at: usize) {
        let is_next = |other: &usize| {
            *other != at
                && self.watches[*other].is_none()
                && matches!(self.hold.places[*other], Place::Without)
        };
        let next: Vec<usize> = (0..self.watches.len()).filter(is_next).collect();
        let key = &self.hold.key;
        let look = |at: usize| {
            let storage = self.storage(at);
            async move { answer(storage.get_versioned(key, MAX_LEASE_BYTES)).await }
        };
        let seen = join_all(next.iter().map(|&at| look(at))).await;
        for (at, seen) in next.into_iter().zip(seen) {
            if let Ok((_, version)) = seen {
                self.watches[at] = Some(Watch::new(version));
            }
        }
    }

    fn tell(&mut self, text: &str) {
        if !std::mem::replace(&mut self.is_told, true) {
            (self.request.on_wait)(text);
        }
    }

    /// Sees whether the storage refuses what it must refuse and takes a sign of life, with the lease that is ours at stake
    /// and nothing else.
    async fn probe(
        &self,
        at: usize,
        lease: &Lease,
        version: &Version,
    ) -> std::result::Result<Version, Finding> {
        let (storage, key) = (self.storage(at), &self.hold.key);
        let name = &self.hold.storages[at].name;
        // The same lease to every reader, and other bytes to the storage.
        let mut other = lease.to_json();
        other.push(b'\n');
        let other = Bytes::from(other);
        match answer(storage.create(key, other.clone())).await {
            Err(Error::Exists(_)) => {}
            Err(error) => return Err(warn(name, &error)),
            Ok(_) => {
                return Err(not_exclusive(
                    name,
                    "it overwrites objects although the condition forbids it",
                ));
            }
        }
        match answer(storage.replace(key, other, &Version::never())).await {
            Err(Error::Changed(_)) => {}
            Err(error) => return Err(warn(name, &error)),
            Ok(_) => return Err(not_exclusive(name, "it overwrites what has changed")),
        }
        // A bucket that forbids overwriting takes the first lease and no sign of life.
        let renewed = answer(storage.replace(key, text(lease), version)).await;
        renewed.map_err(|error| warn_of_renewal(name, &error))
    }

    /// Takes a lease away that keeps nobody out.
    async fn discard(&self, at: usize, lease: Lease) {
        let storage = self.storage(at);
        let gone = give_back(storage.as_ref(), &self.hold.key, lease, None);
        if !matches!(timeout(RELEASE_LIMIT, gone).await, Ok(Ok(()))) {
            let name = &self.hold.storages[at].name;
            tracing::warn!(storage = name, "a lease that has no effect was left behind");
        }
    }

    fn without(&self, at: usize, error: Error) -> Won {
        let is_unsure = matches!(error, Error::Failed { .. });
        Won::Without {
            warning: warn(&self.hold.storages[at].name, &error),
            is_unsure,
        }
    }
}

fn text(lease: &Lease) -> Bytes {
    Bytes::from(lease.to_json())
}

/// Waits for a storage, but not for ever.
async fn answer<T>(
    asked: impl Future<Output = pgkeep_storage::Result<T>>,
) -> pgkeep_storage::Result<T> {
    let silent = || Error::failed(format!("no answer for {} s", ANSWER_LIMIT.as_secs()));
    timeout(ANSWER_LIMIT, asked)
        .await
        .unwrap_or_else(|_| Err(silent()))
}

fn warn(name: &str, error: &Error) -> Finding {
    match error {
        Error::Unconditional(why) => return not_exclusive(name, why),
        Error::Retained { .. } => return not_overwritten(name, "the storage forbids overwriting"),
        _ => {}
    }
    let text =
        format!("there is no lease in `{name}`, so other hosts are not kept away from it: {error}");
    Finding::new("lease_failed", text, None)
}

fn not_exclusive(name: &str, why: &str) -> Finding {
    let text = format!(
        "the storage `{name}` cannot hold a lease ({why}): only runs on this host wait for each other"
    );
    Finding::new("lease_not_exclusive", text, None)
}

/// A key may be one that writes new objects and replaces none: on GCS that takes the right to delete.
fn warn_of_renewal(name: &str, error: &Error) -> Finding {
    match error {
        Error::Denied { .. } => not_overwritten(name, "its key may not overwrite"),
        _ => warn(name, error),
    }
}

/// Says the next move, too: a finding has no hint of its own.
fn not_overwritten(name: &str, why: &str) -> Finding {
    let text = format!(
        "`{name}` cannot hold a lease ({why}): only runs on this host wait for each other; set \
         `lock: {{storage: NAME}}` to a storage that can hold it, or `lock: {{storage: local}}` if no other host works \
         on these storages"
    );
    Finding::new("lease_not_overwritten", text, None)
}

//! The storages' part of an attempt: room before the dump, small objects and the manifest behind it, and nothing left
//! where no manifest came about.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::StorageOutcome;
use super::attempt::{Attempt, SAFE};
use super::fan_out::GIVEN_UP;
use crate::clock::{ahead, off_in_words};
use crate::op::stored::{NamedStorage, room_behind, storage_failure};
use pgkeep_model::encryption::Fingerprint;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::keys::{Part, gather};
use pgkeep_model::manifest::{MAX_MANIFEST_BYTES, Manifest};
use pgkeep_model::scan::Finding;
use pgkeep_storage::Storage;

/// How long leftovers of dead runs are looked for before a backup starts.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a storage may take in all before the dump starts without knowing its free space.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(20);

/// Unfinished uploads that are older than this belong to no run that is still alive.
const LEFTOVER_AGE: SignedDuration = SignedDuration::from_hours(24);

/// How long one look at a storage, or one removal, may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long writing the commit may go on after a stop was asked for. This and the next two are counted from the wish to
/// stop, because a run must end within ten seconds of it whatever its storages do, and `cli` needs a part of them.
const COMMIT_GRACE: Duration = Duration::from_secs(3);

/// How long after a stop it is looked up whether a manifest of unknown fate is there.
const LOOK_GRACE: Duration = Duration::from_secs(4);

/// How long after a stop orphans are removed.
const REMOVE_GRACE: Duration = Duration::from_secs(5);

/// How often a manifest that was just put is looked for, and with what pause: some stores show a new object late.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Id of the failure of an object that may or may not be there.
const UNDECIDED: &str = "commit_undecided";

/// A manifest that a storage took, as it shows it again.
#[derive(Clone, Default)]
struct Kept {
    /// When it was written, by the storage's clock.
    modified_at: Option<Timestamp>,
    /// Why it could not be read or listed; none where it was.
    doubt: Option<String>,
}

impl Kept {
    fn in_doubt(doubt: String) -> Self {
        Self {
            modified_at: None,
            doubt: Some(doubt),
        }
    }
}

impl Attempt<'_> {
    /// Sweeps what dead runs left behind, and refuses to begin when too few storages can hold the backup.
    pub(super) async fn prepare_storages(&mut self) -> Result<()> {
        let this = &*self;
        let prepare = |named| async move {
            let prepared = async {
                this.sweep(named).await;
                this.lack_of_room(named).await
            };
            // A storage that does not answer says so again, and louder, when the upload begins.
            tokio::time::timeout(PREPARE_TIMEOUT, prepared)
                .await
                .unwrap_or_default()
        };
        let prepared = tokio::select! {
            prepared = join_all(self.request.storages.iter().map(prepare)) => prepared,
            () = self.stop().cancelled() => return Err(self.ended()),
        };
        let full: Vec<String> = prepared.into_iter().flatten().collect();
        if self.request.storages.len() - full.len() >= self.request.copies.get() {
            let warnings = full
                .into_iter()
                .map(|text| Finding::new("storage_full", text, None));
            self.report.warnings.extend(warnings);
            return Ok(());
        }
        let message = format!("{} failed: {}; {SAFE}", self.what(), full.join(", "));
        let hint = "make room there, or use another folder";
        Err(Failure::new(Kind::Storage, "storage_full", message).hint(hint))
    }

    async fn sweep(&self, named: &NamedStorage) {
        let prefix = format!("{}/", self.request.name);
        let older_than = self.context.clock.now() - LEFTOVER_AGE;
        let sweep = tokio::time::timeout(SWEEP_TIMEOUT, named.storage.sweep(&prefix, older_than));
        match sweep.await {
            Ok(Ok(swept)) if swept.removed > 0 => {
                tracing::info!(storage = %named.name, removed = swept.removed, "removed leftovers of dead runs");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::info!(storage = %named.name, %error, "leftovers were not looked for")
            }
            Err(_) => tracing::info!(storage = %named.name, "looking for leftovers took too long"),
        }
    }

    /// A storage that knows its free space must have room for a dump as large as the last one. Says what it lacks.
    async fn lack_of_room(&self, named: &NamedStorage) -> Option<String> {
        let free = named.storage.free_bytes().await?;
        let needed = self.room_needed(named).await?;
        (free < needed).then(|| {
            let show = |bytes| bytesize::ByteSize(bytes).display().iec().to_string();
            format!(
                "`{}` has {} free, and about {} are needed",
                named.storage.label(),
                show(free),
                show(needed)
            )
        })
    }

    /// What the newest backup there says of the next one.
    async fn room_needed(&self, named: &NamedStorage) -> Option<u64> {
        let objects = named
            .storage
            .list(&format!("{}/", self.request.name))
            .await
            .ok()?;
        let listed = gather(objects.iter().map(|o| (o.key.as_str(), o.size_bytes)));
        let last = listed
            .iter()
            .rfind(|backup| backup.is_good() && backup.place.is_partial == self.place.is_partial)?;
        Some(room_behind(last.size_bytes()))
    }

    /// Writes small objects to every storage that took the dump; returns how each storage stands.
    pub(super) async fn put_beside(
        &self,
        taken: Vec<Result<()>>,
        objects: &[(String, Bytes)],
    ) -> Vec<Result<()>> {
        let put_all = |(named, taken): (_, Result<()>)| async move {
            taken?;
            for (key, bytes) in objects {
                self.put(named, key, bytes.clone()).await?;
            }
            Ok(())
        };
        join_all(self.request.storages.iter().zip(taken).map(put_all)).await
    }

    /// Puts a small object. A stop that comes meanwhile leaves it a few seconds.
    async fn put(&self, named: &NamedStorage, key: &str, bytes: Bytes) -> Result<()> {
        let what = format!("cannot store `{key}` in `{}`", named.name);
        tokio::select! {
            put = named.storage.put(key, bytes) => put.map_err(|error| storage_failure(&what, &error)),
            () = self.context.stop.overdue(COMMIT_GRACE) => Err(Failure::new(Kind::Storage, UNDECIDED, format!("{what}: it took too long after a stop"))),
        }
    }

    /// Puts the manifest, reads it back and lists it: a store may answer well and keep nothing or other bytes, and what
    /// no listing shows no command finds.
    async fn put_manifest(&self, named: &NamedStorage, key: &str, bytes: &Bytes) -> Result<Kept> {
        self.put_whole(named, key, bytes).await?;
        let proven = async {
            if let Some(doubt) = self.read_back(named, key, bytes).await? {
                return Ok(Kept::in_doubt(doubt));
            }
            self.list_back(named, key).await
        };
        tokio::select! {
            kept = proven => kept,
            // It was put: a stop takes nothing back.
            () = self.context.stop.overdue(COMMIT_GRACE) => Ok(Kept::default()),
        }
    }

    /// Reads the manifest once more. Returns why it could not be read; other bytes, or none, are a failure.
    async fn read_back(
        &self,
        named: &NamedStorage,
        key: &str,
        bytes: &Bytes,
    ) -> Result<Option<String>> {
        let name = &named.name;
        for look in 1.. {
            let found = match named.storage.get(key, MAX_MANIFEST_BYTES).await {
                Ok(shown) if shown == bytes => return Ok(None),
                Err(pgkeep_storage::Error::NotFound(_)) if look < LOOKS => {
                    tokio::time::sleep(BETWEEN_LOOKS).await;
                    continue;
                }
                Err(pgkeep_storage::Error::NotFound(_)) => "does not have it".to_owned(),
                Ok(shown) => format!(
                    "returns other bytes ({} of them; {} were written)",
                    shown.len(),
                    bytes.len()
                ),
                Err(error @ pgkeep_storage::Error::TooLarge { .. }) => error.to_string(),
                // Who may only write makes good backups all the same.
                Err(pgkeep_storage::Error::Denied { .. }) => return Ok(None),
                Err(error) => {
                    let doubt = format!("`{name}` does not return the manifest: {error}");
                    return Ok(Some(doubt));
                }
            };
            let message =
                format!("`{name}` reported that it stored the manifest `{key}`, but {found}");
            let hint = "the storage does not keep what it accepts: `pgkeep check` tests it";
            let failure = Failure::new(Kind::Storage, "manifest_not_kept", message);
            return Err(failure.hint(hint));
        }
        Ok(None)
    }

    /// Lists the manifest, as every command does that looks for a backup. A listing that lacks it is a failure that
    /// leaves it where it is; one that cannot be had is a doubt.
    async fn list_back(&self, named: &NamedStorage, key: &str) -> Result<Kept> {
        let name = &named.name;
        for _ in 0..LOOKS {
            match named.storage.list(key).await {
                Ok(listed) => {
                    let ours = listed.into_iter().find(|object| object.key == key);
                    if let Some(object) = ours {
                        return Ok(Kept {
                            modified_at: Some(object.modified_at),
                            doubt: None,
                        });
                    }
                }
                Err(pgkeep_storage::Error::Denied { .. }) => return Ok(Kept::default()),
                Err(error) => {
                    let doubt =
                        format!("`{name}` cannot be listed, so no command finds it: {error}");
                    return Ok(Kept::in_doubt(doubt));
                }
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        let message = format!(
            "`{name}` stored the manifest `{key}` but does not list it, so no command would find the backup"
        );
        let hint = "does the endpoint's address contain the bucket's name? The name belongs only in the storage's URL";
        Err(Failure::new(Kind::Storage, UNDECIDED, message).hint(hint))
    }

    /// Puts the manifest. One whose answer was lost may be there all the same: what the storage shows decides.
    async fn put_whole(&self, named: &NamedStorage, key: &str, bytes: &Bytes) -> Result<()> {
        let Err(failure) = self.put(named, key, bytes.clone()).await else {
            return Ok(());
        };
        let look = tokio::time::timeout(LOOK_TIMEOUT, named.storage.get(key, bytes.len() as u64));
        let shown = tokio::select! {
            shown = look => shown.ok(),
            () = self.context.stop.overdue(LOOK_GRACE) => None,
        };
        match shown {
            Some(Ok(shown)) if shown == bytes => Ok(()),
            Some(Err(pgkeep_storage::Error::NotFound(_))) if failure.id == UNDECIDED => {
                Err(Failure {
                    id: "manifest_not_stored",
                    ..failure
                })
            }
            // Another run's under our id, or it is not known.
            _ => Err(failure),
        }
    }

    /// Writes the manifest to every storage that is ready, if they are enough. From the first one on the backup exists.
    pub(super) async fn put_manifests(
        &mut self,
        ready: Vec<Result<()>>,
        manifest: &Manifest,
    ) -> Result<()> {
        let bytes = Bytes::from(manifest.to_json());
        let is_small_enough = bytes.len() as u64 <= MAX_MANIFEST_BYTES;
        let fenced = self.fence(&ready).await;
        let states = ready.iter().zip(&fenced);
        let able = states.filter(|(state, fenced)| state.is_ok() && fenced.is_ok());
        let is_enough = able.count() >= self.request.copies.get()
            && !self.stop().is_cancelled()
            && is_small_enough;
        let key = self.place.key(Part::Manifest, "");
        let (key, bytes, this) = (&key, &bytes, &*self);
        let put_one = |(named, (state, fenced)): (_, (Result<()>, Result<()>))| async move {
            let is_ours = state.is_ok();
            let outcome = match state.and(fenced) {
                Ok(()) if is_enough => this.put_manifest(named, key, bytes).await,
                state => state.map(|()| Kept::default()),
            };
            (is_ours, outcome)
        };
        let ready = ready.into_iter().zip(fenced);
        let before = self.context.clock.now();
        let put: Vec<(bool, Result<Kept>)> =
            join_all(self.request.storages.iter().zip(ready).map(put_one)).await;
        let after = self.context.clock.now();
        let kept: Vec<Option<Kept>> = put
            .iter()
            .map(|(_, outcome)| outcome.as_ref().ok().cloned())
            .collect();
        let ends: Vec<(bool, Result<()>)> = put
            .into_iter()
            .map(|(is_ours, outcome)| (is_ours, outcome.map(drop)))
            .collect();
        let holding = if is_enough {
            ends.iter().filter(|(_, outcome)| outcome.is_ok()).count()
        } else {
            0
        };
        let is_stored = is_enough && holding >= self.request.copies.get();
        let left = self.remove_orphans(&ends, is_stored, is_enough).await;
        let undecided = ends
            .iter()
            .filter(|(_, outcome)| is_enough && is_undecided(outcome))
            .filter_map(|(_, outcome)| outcome.as_ref().err());
        let in_doubt: Vec<String> = undecided
            .map(|failure| failure.message.clone())
            .chain(left)
            .collect();
        self.is_undecided = !in_doubt.is_empty();
        self.report.stored = is_stored;
        self.note_outcomes(&ends, is_stored);
        if is_stored {
            self.note_kept(&kept, before, after);
            Ok(())
        } else {
            Err(self.not_committed(ends, holding, is_small_enough, in_doubt))
        }
    }

    /// Proves that no other run has taken over meanwhile, in every storage that has the dump, before any manifest is
    /// put: one lock that is lost means that another run is at work, and nothing may come of this one.
    async fn fence(&self, ready: &[Result<()>]) -> Vec<Result<()>> {
        let fence = |(at, state): (usize, &Result<()>)| {
            let has_dump = state.is_ok();
            async move {
                if has_dump && !self.stop().is_cancelled() {
                    self.hold.fence(at).await
                } else {
                    Ok(())
                }
            }
        };
        join_all(ready.iter().enumerate().map(fence)).await
    }

    fn not_committed(
        &self,
        ends: Vec<(bool, Result<()>)>,
        holding: usize,
        is_small_enough: bool,
        in_doubt: Vec<String>,
    ) -> Failure {
        let failures: Vec<Failure> = ends
            .into_iter()
            .filter_map(|(_, outcome)| outcome.err())
            .collect();
        if self.stop().is_cancelled() {
            return self.in_doubt(self.ended(), in_doubt);
        }
        if !is_small_enough {
            let message = format!(
                "{} failed: its manifest would be larger than {MAX_MANIFEST_BYTES} bytes; {SAFE}",
                self.what()
            );
            return Failure::new(Kind::Proof, "manifest_too_large", message)
                .hint("dump the database in several selections of schemas");
        }
        let first = failures
            .into_iter()
            .next()
            .unwrap_or_else(|| Failure::new(Kind::Storage, "storage_failed", "no storage took it"));
        let failure = self.nothing_stored(self.count_copies(first, holding));
        self.in_doubt(failure, in_doubt)
    }

    /// Takes back that nothing was stored, where a manifest may be there.
    fn in_doubt(&self, mut failure: Failure, in_doubt: Vec<String>) -> Failure {
        if in_doubt.is_empty() {
            return failure;
        }
        let instead = format!("it may be stored as `{}`: see `pgkeep list`", self.place.id);
        failure.message = failure.message.replace(SAFE, &instead);
        failure.with_details(in_doubt)
    }

    pub(super) fn count_copies(&self, mut failure: Failure, holding: usize) -> Failure {
        let wanted = self.request.copies;
        if wanted > NonZeroUsize::MIN {
            failure.message = format!(
                "only {holding} of {wanted} copies were stored: {}",
                failure.message
            );
        }
        failure
    }

    fn note_outcomes(&mut self, ends: &[(bool, Result<()>)], is_stored: bool) {
        let storages = self.request.storages.iter().zip(ends);
        self.report.storages = storages
            .map(|(named, (_, outcome))| StorageOutcome {
                name: named.name.clone(),
                url: named.storage.label().to_owned(),
                stored: is_stored && outcome.is_ok(),
                error: outcome
                    .as_ref()
                    .err()
                    .map(|failure| failure.message.clone()),
                doubt: None,
            })
            .collect();
    }

    /// Notes which storages do not show again what they took, and whose clock is another than ours.
    fn note_kept(&mut self, kept: &[Option<Kept>], before: Timestamp, after: Timestamp) {
        let report = &mut self.report;
        for (outcome, kept) in report.storages.iter_mut().zip(kept) {
            let Some(kept) = kept else { continue };
            outcome.doubt.clone_from(&kept.doubt);
            let theirs = kept.modified_at.map(|at| ahead(before, after, at));
            let off = theirs.and_then(off_in_words);
            report.warnings.extend(off.map(|words| {
                let text = format!("the clock of `{}` {words}", outcome.name);
                Finding::new("clock", text, None)
            }));
        }
    }

    /// Says of each storage that the dump was given up there, and why where it was the storage's own fault.
    pub(super) fn note_given_up(&mut self, taken: &[Result<()>]) {
        if self.context.stop.is_requested() {
            return;
        }
        for (outcome, taken) in self.report.storages.iter_mut().zip(taken) {
            let failure = taken.as_ref().err();
            outcome.error = failure
                .filter(|failure| failure.id != GIVEN_UP)
                .map(|failure| failure.message.clone());
        }
    }

    /// Removes what this run wrote where the backup does not count: nothing under a key that somebody else wrote, and
    /// nothing where the manifest may still come about. Says where a manifest may be left.
    async fn remove_orphans(
        &self,
        ends: &[(bool, Result<()>)],
        is_stored: bool,
        is_enough: bool,
    ) -> Vec<String> {
        let remove = |(named, (is_ours, outcome)): (&NamedStorage, &(bool, Result<()>))| {
            let is_kept = !is_ours || is_undecided(outcome) || (is_stored && outcome.is_ok());
            let has_manifest = is_enough && outcome.is_ok();
            let (name, storage) = (named.name.clone(), Arc::clone(&named.storage));
            async move {
                if is_kept {
                    return None;
                }
                let is_gone = tokio::select! {
                    is_gone = self.remove_all(storage.as_ref()) => is_gone,
                    () = self.context.stop.overdue(REMOVE_GRACE) => false,
                };
                (has_manifest && !is_gone)
                    .then(|| format!("its manifest could not be removed from `{name}` again"))
            }
        };
        let left = join_all(self.request.storages.iter().zip(ends).map(remove)).await;
        left.into_iter().flatten().collect()
    }

    /// The manifest goes first, so that none ever points at nothing, and whether it is gone is returned. What cannot be
    /// removed behind it is an orphan, which no listing counts.
    async fn remove_all(&self, storage: &dyn Storage) -> bool {
        let form = &self.request.form;
        let extension = &form.extension();
        let texts = form.recipients.as_ref().map_or(&[][..], |all| all.texts());
        let recipients = Fingerprint::of(texts).to_string();
        let parts = [
            (Part::Manifest, ""),
            (Part::Dump, extension),
            (Part::Globals, extension),
            (Part::Index, ""),
            (Part::Recipients, &recipients),
            (Part::Pin, ""),
            (Part::PreDeploy, ""),
            (Part::Held, ""),
        ];
        for (part, extension) in parts {
            let key = self.place.key(part, extension);
            let removed = tokio::time::timeout(LOOK_TIMEOUT, storage.remove(&key)).await;
            if !matches!(removed, Ok(Ok(_))) {
                tracing::warn!(
                    storage = storage.label(),
                    key,
                    "an object of a backup that does not count was left behind"
                );
                return part != Part::Manifest;
            }
        }
        true
    }
}

fn is_undecided(outcome: &Result<()>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|failure| failure.id == UNDECIDED)
}

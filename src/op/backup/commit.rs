//! The storages' part of an attempt: room before the dump, small objects and the manifest behind it, and nothing left
//! where no manifest came about.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;

use super::StorageOutcome;
use super::attempt::{Attempt, SAFE};
use crate::failure::{Failure, Kind, Result};
use crate::model::keys::{Part, gather};
use crate::model::manifest::Manifest;
use crate::model::scan::Finding;
use crate::op::stored::{NamedStorage, storage_failure};

/// How long leftovers of dead runs are looked for before a backup starts.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Unfinished uploads that are older than this belong to no run that is still alive.
const LEFTOVER_AGE: SignedDuration = SignedDuration::from_hours(24);

/// How long writing the commit may go on after a stop was asked for.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

impl Attempt<'_> {
    /// Sweeps what dead runs left behind, and refuses to begin when too few storages can hold the backup.
    pub(super) async fn prepare_storages(&mut self) -> Result<()> {
        let mut full = Vec::new();
        for named in &self.request.storages {
            self.sweep(named).await;
            full.extend(self.lack_of_room(named).await);
        }
        if self.request.storages.len() - full.len() >= self.request.copies.get() {
            let warnings = full
                .into_iter()
                .map(|text| Finding::new("storage_full", text, None));
            self.report.warnings.extend(warnings);
            return Ok(());
        }
        let message = format!("{} failed: {}; {SAFE}", self.what(), full.join(", "));
        let hint = "remove what is not needed there, or name another folder";
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
        let needed = self.last_size(named).await?;
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

    /// Size of the newest backup there and a fifth more.
    async fn last_size(&self, named: &NamedStorage) -> Option<u64> {
        let objects = named
            .storage
            .list(&format!("{}/", self.request.name))
            .await
            .ok()?;
        let listed = gather(objects.iter().map(|o| (o.key.as_str(), o.size_bytes)));
        let last = listed
            .iter()
            .rfind(|backup| backup.is_good() && backup.place.is_partial == self.place.is_partial)?;
        Some(last.size_bytes() + last.size_bytes() / 5)
    }

    /// Writes small objects to every storage that took the dump; returns how each storage stands.
    pub(super) async fn put_beside(
        &self,
        taken: Vec<Result<()>>,
        objects: &[(String, Bytes)],
    ) -> Vec<Result<()>> {
        let mut ready = Vec::new();
        for (named, taken) in self.request.storages.iter().zip(taken) {
            let mut state = taken;
            for (key, bytes) in objects {
                if state.is_ok() {
                    state = self.put(named, key, bytes.clone()).await;
                }
            }
            ready.push(state);
        }
        ready
    }

    /// Puts a small object. A stop that comes meanwhile leaves it a few seconds.
    async fn put(&self, named: &NamedStorage, key: &str, bytes: Bytes) -> Result<()> {
        let what = format!("cannot store `{key}` in `{}`", named.name);
        let too_late = async {
            self.stop().cancelled().await;
            tokio::time::sleep(COMMIT_GRACE).await;
        };
        tokio::select! {
            put = named.storage.put(key, bytes) => put.map_err(|error| storage_failure(&what, &error)),
            () = too_late => Err(self.context.stop.failure(&what)),
        }
    }

    /// Writes the manifest to every storage that is ready, if they are enough.
    pub(super) async fn put_manifests(
        &mut self,
        ready: Vec<Result<()>>,
        manifest: &Manifest,
    ) -> Result<()> {
        let able = ready.iter().filter(|state| state.is_ok()).count();
        let mut outcomes = ready;
        let is_enough = able >= self.request.copies.get() && !self.context.stop.is_requested();
        if is_enough {
            let bytes = Bytes::from(manifest.to_json());
            let key = self.place.key(Part::Manifest, "");
            for (named, state) in self.request.storages.iter().zip(&mut outcomes) {
                if state.is_ok() {
                    *state = self.put(named, &key, bytes.clone()).await;
                }
            }
        }
        self.report.stored = is_enough && outcomes.iter().any(Result::is_ok);
        self.note_outcomes(&outcomes, is_enough);
        self.remove_orphans(&outcomes, is_enough).await;
        if self.report.stored {
            return Ok(());
        }
        if self.context.stop.is_requested() {
            return Err(self.context.stop.failure(&self.what()));
        }
        let failure = outcomes.into_iter().find_map(Result::err);
        let failure = failure
            .unwrap_or_else(|| Failure::new(Kind::Storage, "storage_failed", "no storage took it"));
        Err(self.nothing_stored(self.count_copies(failure, able)))
    }

    fn count_copies(&self, mut failure: Failure, able: usize) -> Failure {
        let wanted = self.request.copies;
        if wanted > NonZeroUsize::MIN {
            failure.message = format!(
                "only {able} of {wanted} copies came about: {}",
                failure.message
            );
        }
        failure
    }

    fn note_outcomes(&mut self, outcomes: &[Result<()>], is_committed: bool) {
        let storages = self.request.storages.iter().zip(outcomes);
        self.report.storages = storages
            .map(|(named, outcome)| StorageOutcome {
                name: named.name.clone(),
                url: named.storage.label().to_owned(),
                stored: is_committed && outcome.is_ok(),
                error: outcome
                    .as_ref()
                    .err()
                    .map(|failure| failure.message.clone()),
            })
            .collect();
    }

    /// Removes the dump where no manifest came about. What cannot be removed is an orphan, invisible and swept later.
    async fn remove_orphans(&self, outcomes: &[Result<()>], is_committed: bool) {
        let keys = [
            self.place.key(Part::Dump, self.request.codec.extension()),
            self.place
                .key(Part::Globals, self.request.codec.extension()),
            self.place.key(Part::Index, ""),
        ];
        for (named, outcome) in self.request.storages.iter().zip(outcomes) {
            if is_committed && outcome.is_ok() {
                continue;
            }
            for key in &keys {
                let removed = tokio::time::timeout(COMMIT_GRACE, named.storage.remove(key)).await;
                if !matches!(removed, Ok(Ok(()))) {
                    tracing::warn!(storage = %named.name, key, "an object without manifest was left behind");
                    break;
                }
            }
        }
    }
}

//! A stored backup, ready to be read: its manifest, the storages that have it, and one copy after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use super::bridge::{ObjectReader, Pieces, Stream, reader, with_pieces};
use super::dump::key_of;
use super::listing::{
    Listing, NamedStorage, StoredBackup, Wanted, database_of, doubtful, read_manifest,
    storage_failure, unless_removed,
};
use crate::encryption::Identities;
use pgkeep_model::failure::{Failure, Kind, Origin, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::Part;
use pgkeep_model::manifest::Manifest;

/// A backup, and the storages that have it.
pub(crate) struct Stored {
    pub manifest: Manifest,
    pub listing: Listing,
    pub backup: StoredBackup,
    /// A storage that did not answer while others did: the newest backup there may be another.
    doubt: Option<Failure>,
    /// Newer backups that count for nothing, because they are damaged.
    passed_over: Vec<String>,
    /// Says which backups would be newer, and are stamped in the future.
    ahead: Vec<String>,
    /// Headers of encrypted copies, by the position of the storage.
    fronts: Mutex<BTreeMap<usize, Bytes>>,
}

impl Stored {
    /// Finds the backup and reads its manifest.
    pub(crate) async fn open(
        storages: &[NamedStorage],
        database: Option<DatabaseName>,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<Self> {
        let database = database_of(wanted, database);
        let listing = Listing::read(storages.to_vec(), database.as_ref(), now).await?;
        let backup = listing.find(wanted)?.clone();
        let (manifest, _) = read_manifest(&listing, &backup).await?;
        let doubt = doubtful(wanted, &listing);
        let passed_over = match wanted {
            Wanted::Latest => listing.damaged_behind(&backup),
            Wanted::Id(_) => Vec::new(),
        };
        Ok(Self {
            ahead: listing.passed_over(wanted),
            passed_over,
            manifest,
            listing,
            backup,
            doubt,
            fronts: Mutex::default(),
        })
    }

    /// Returns what opens encrypted backups in the storage at a position.
    pub(crate) fn identities(&self, at: usize) -> &Arc<Identities> {
        &self.listing.storages[at].identities
    }

    pub(super) fn known_front(&self, at: usize) -> Option<Bytes> {
        let fronts = self.fronts.lock().unwrap_or_else(PoisonError::into_inner);
        fronts.get(&at).cloned()
    }

    pub(super) fn keep_front(&self, at: usize, front: &Bytes) {
        let mut fronts = self.fronts.lock().unwrap_or_else(PoisonError::into_inner);
        fronts.insert(at, front.clone());
    }

    /// Returns what is not good of what is stored, behind a run that is: a storage that did not answer, newer backups
    /// that are damaged, copies that were found bad. `what` says what is good.
    pub(crate) fn after_good(&self, what: &str, bad_copies: &[String]) -> Result<()> {
        if let Some(doubt) = &self.doubt {
            return Err(doubt.clone());
        }
        let newer = self
            .passed_over
            .iter()
            .map(|id| format!("`{id}` is newer, but marked as damaged"));
        let told: Vec<String> = newer.chain(bad_copies.iter().cloned()).collect();
        let Some((first, more)) = told.split_first() else {
            return Ok(());
        };
        let message = format!("{what}, but some of what is stored is damaged: {first}");
        Err(Failure::new(Kind::AfterGood, "stored_not_good", message)
            .with_details(more.iter().cloned())
            .hint("`pgkeep verify --all` reads everything that is stored and marks the damaged copies"))
    }

    /// Says what is odd of the choice of this backup and makes it no worse.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.ahead.clone()
    }

    /// Makes an attempt with one storage's copy after the other, until one is not at fault for what failed. Those that
    /// were are added to `bad`. Which failure is a copy's says [`Failure::origin`], set where the copy is read.
    pub(crate) async fn try_copies<T>(
        &self,
        what: &str,
        bad: &mut Vec<String>,
        mut attempt: impl AsyncFnMut(usize) -> Result<T>,
    ) -> Result<T> {
        let mut last: Option<Failure> = None;
        for at in self.backup.readable_from() {
            bad.extend(last.take().map(|failure| failure.message));
            match attempt(at).await {
                Err(failure) if failure.origin == Origin::Copy => last = Some(failure),
                done => return done,
            }
        }
        let message = format!("{what}: no storage has the backup");
        Err(last.unwrap_or_else(|| Failure::new(Kind::NotFound, "no_such_backup", message)))
    }

    /// Returns why `latest` may not be the latest: a storage that did not answer.
    pub(crate) fn doubt(&self) -> Option<Failure> {
        self.doubt.clone()
    }

    /// Says of a failure that the backup was removed meanwhile, where that is so.
    pub(crate) async fn unless_removed(&self, what: &str, failure: Failure) -> Failure {
        unless_removed(&self.listing, &self.backup, what, failure).await
    }

    /// Returns the name of the storage at a position.
    pub(crate) fn storage_name(&self, at: usize) -> &str {
        &self.listing.storages[at].name
    }

    /// Returns the key of a part, which must be the one that the manifest names.
    pub(crate) fn key(&self, part: Part, named: &str, what: &str) -> Result<String> {
        let key = key_of(&self.backup, &self.manifest, part, named);
        key.map_err(|why| {
            let message = format!("{what}: {why}");
            Failure::new(Kind::Damaged, "manifest_contradicts", message)
                .of_copy()
                .hint("`pgkeep list` shows other backups")
        })
    }

    /// Starts reading one copy of the dump.
    pub(crate) async fn read(&self, at: usize) -> Result<ObjectReader> {
        let what = format!(
            "cannot read `{}` in `{}`",
            self.manifest.id,
            self.storage_name(at)
        );
        let object = &self.manifest.object;
        // What the key does not open although it should is this copy's fault.
        self.front(at, &what).await?;
        let stream = self.stream(at, Part::Dump, &object.key, &what).await?;
        Ok(reader(stream))
    }

    /// Reads one copy of the dump: `work` gets its pieces, on a thread of its own.
    pub(crate) async fn read_pieces<T: Send + 'static>(
        &self,
        at: usize,
        what: &str,
        work: impl FnOnce(Pieces) -> T + Send + 'static,
    ) -> Result<T> {
        let object = &self.manifest.object;
        self.front(at, what).await?;
        let stream = self.stream(at, Part::Dump, &object.key, what).await?;
        with_pieces(stream, work).await
    }

    /// Starts reading one copy of a part, whose key must be the one that the manifest names.
    pub(crate) async fn stream(
        &self,
        at: usize,
        part: Part,
        named: &str,
        what: &str,
    ) -> Result<Stream> {
        let key = self.key(part, named, what)?;
        let stream = self.listing.storages[at].storage.stream(&key, None).await;
        stream.map_err(|error| storage_failure(what, &error))
    }
}

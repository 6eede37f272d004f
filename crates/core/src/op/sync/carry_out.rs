//! Brings one copy to one storage: what is wrong there goes, what is missing comes, the manifest last.
//!
//! Nothing is removed before its replacement was read whole from another storage and found to be what the manifest
//! says. The manifest goes first and comes last, so that a crash leaves objects that are no backup, which the next run
//! completes. The only manifest that there is stays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::plan::{Aside, Beside, Described, Examined, Held, Holding};
use super::transfer::{Broken, copy, prove};
use crate::context::Context;
use crate::op::lock::Hold;
use crate::op::stored::{Listing, NamedStorage, manifest_failure, storage_failure};
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::keys::Part;
use pgkeep_model::manifest::{MAX_MANIFEST_BYTES, Manifest};
use pgkeep_storage::{Error, Storage};

/// Largest pin, mark or note of a drill that is copied: they have some hundred bytes, a note a line for each table.
const MAX_BESIDE_BYTES: u64 = 8 * 1024 * 1024;

/// How long a small write that was begun may still take after a stop.
const SMALL_GRACE: Duration = Duration::from_secs(3);

/// How often a manifest that was just put is looked for, and with what pause: some stores show a new object late.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Why a copy was not brought.
pub(super) enum End {
    /// The run is to end: nothing more is begun.
    Stopped,
    /// The storage that it was to be brought to: it is not tried again.
    Target(Failure),
    /// Nothing good to copy was found, or it could not be read.
    Source(Failure),
}

/// Carries copies.
pub(super) struct Carrier<'a> {
    pub listing: &'a Listing,
    pub hold: &'a Hold,
    pub context: &'a Context,
    pub ended: &'a CancellationToken,
    pub progress: &'a Arc<Progress>,
    /// What was found on the way.
    pub warnings: Vec<String>,
}

/// One copy to bring.
struct Job<'e> {
    examined: &'e mut Examined,
    /// Position among what is held.
    index: usize,
    what: String,
}

impl Job<'_> {
    fn held(&self) -> &Held {
        &self.examined.held[self.index]
    }
}

impl Carrier<'_> {
    /// Brings the copy of the storage at `index` of what is held. Returns how many bytes were written.
    pub(super) async fn bring(
        &mut self,
        examined: &mut Examined,
        index: usize,
    ) -> std::result::Result<u64, End> {
        let at = examined.held[index].at;
        let what = format!(
            "cannot bring `{}` to `{}`",
            examined.place.id,
            self.name(at)
        );
        let mut job = Job {
            examined,
            index,
            what,
        };
        let held = job.held().clone();
        let is_removing = held.has_wrong() || held.is_marked;
        if is_removing && !self.hold.is_leased(at) {
            return Err(End::Target(no_lease(&job.what)));
        }
        let needs_manifest = job.examined.needs_manifest(&held);
        let manifest = if needs_manifest {
            Some(self.manifest(&job).await?)
        } else {
            None
        };
        let lacking: Vec<usize> = (0..held.objects.len())
            .filter(|object| !held.objects[*object].is_there())
            .collect();
        if held.has_wrong() {
            for &object in &lacking {
                self.prove_source(&mut job, object).await?;
            }
            self.remove_wrong(&job, &held, needs_manifest).await?;
        }
        let mut written = 0;
        for &object in &lacking {
            written += self.copy(&mut job, object).await?;
        }
        let beside: Vec<Beside> = job.examined.lacking_beside(&held).cloned().collect();
        for one in &beside {
            written += self.copy_beside(&job, one).await?;
        }
        self.prove_right(&job).await?;
        if held.is_marked {
            self.remove(&job, &job.examined.place.key(Part::Damaged, ""))
                .await?;
        }
        if let Some(manifest) = manifest {
            self.put_manifest(&job, &manifest).await?;
            written += manifest.len() as u64;
        }
        let done = &mut job.examined.held[index];
        done.manifest = Holding::Proven;
        done.is_marked = false;
        Ok(written)
    }

    fn name(&self, at: usize) -> &str {
        &self.listing.storages[at].name
    }

    fn target(&self, job: &Job<'_>) -> &NamedStorage {
        &self.listing.storages[job.held().at]
    }

    fn failed(&self, job: &Job<'_>, error: &Error) -> End {
        if self.ended.is_cancelled() {
            return End::Stopped;
        }
        End::Target(storage_failure(&job.what, error))
    }

    /// Proves that nobody else has taken the target over meanwhile.
    async fn prove_right(&self, job: &Job<'_>) -> std::result::Result<(), End> {
        if self.ended.is_cancelled() {
            return Err(End::Stopped);
        }
        match self.hold.fence(job.held().at).await {
            Ok(()) => Ok(()),
            Err(_) if self.ended.is_cancelled() => Err(End::Stopped),
            Err(failure) => Err(End::Target(failure)),
        }
    }

    /// Reads the manifest that speaks for the backup once more, before anything is touched.
    async fn manifest(&self, job: &Job<'_>) -> std::result::Result<Bytes, End> {
        let examined = &job.examined;
        let named = &self.listing.storages[examined.manifest_at];
        let key = examined.place.key(Part::Manifest, "");
        let read = tokio::select! {
            read = named.storage.get(&key, MAX_MANIFEST_BYTES) => read,
            () = self.ended.cancelled() => return Err(End::Stopped),
        };
        let what = format!("{}: cannot read its manifest in `{}`", job.what, named.name);
        let bytes = read.map_err(|error| End::Source(storage_failure(&what, &error)))?;
        match Manifest::read(&bytes, &examined.place.id) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(End::Source(manifest_failure(&what, &error))),
        }
    }

    /// Reads an object in one storage after the other until one has it as the manifest says.
    async fn prove_source(
        &mut self,
        job: &mut Job<'_>,
        object: usize,
    ) -> std::result::Result<(), End> {
        let wanted = job.examined.objects[object].clone();
        let mut last = None;
        for at in job.examined.holders(object) {
            let is_proven = |held: &Held| held.at == at && held.objects[object] == Holding::Proven;
            if job.examined.held.iter().any(is_proven) {
                return Ok(());
            }
            self.judge(job, object, at, &wanted, &mut last).await?;
            if job.examined.held.iter().any(is_proven) {
                return Ok(());
            }
        }
        Err(self.no_source(job, &wanted, last))
    }

    /// Reads an object in one storage, and takes note of what it is.
    async fn judge(
        &mut self,
        job: &mut Job<'_>,
        object: usize,
        at: usize,
        wanted: &Described,
        last: &mut Option<Failure>,
    ) -> std::result::Result<(), End> {
        let named = &self.listing.storages[at];
        let found = prove(named.storage.as_ref(), wanted, self.ended, self.progress).await;
        let (id, name) = (job.examined.place.id.clone(), named.name.clone());
        let mut held = job.examined.held.iter_mut();
        let source = held
            .find(|held| held.at == at)
            .expect("a holder is one of those that hold");
        match found {
            Err(Broken::Stopped) => return Err(End::Stopped),
            Err(Broken::Source(error) | Broken::Target(error)) => {
                let what = format!("cannot read `{id}` in `{name}`");
                let failure = storage_failure(&what, &error);
                source.set_aside = Some(Aside::Unread(failure.clone()));
                *last = Some(failure);
            }
            Err(Broken::Differs(why)) => source.objects[object] = Holding::Wrong(why),
            Ok(holding) => {
                if let Holding::Wrong(why) = &holding {
                    self.warnings
                        .push(format!("the copy of `{id}` in `{name}` is damaged: {why}"));
                }
                source.objects[object] = holding;
            }
        }
        Ok(())
    }

    fn no_source(&self, job: &Job<'_>, wanted: &Described, last: Option<Failure>) -> End {
        if let Some(failure) = last {
            return End::Source(failure);
        }
        let message = format!(
            "{}: no storage has `{}` as the manifest says",
            job.what, wanted.key
        );
        End::Source(Failure::new(Kind::Damaged, "object_damaged", message))
    }

    /// Removes the manifest, and then what is wrong behind it.
    async fn remove_wrong(
        &self,
        job: &Job<'_>,
        held: &Held,
        is_manifest_too: bool,
    ) -> std::result::Result<(), End> {
        self.prove_right(job).await?;
        if is_manifest_too && held.manifest != Holding::Missing {
            self.remove(job, &job.examined.place.key(Part::Manifest, ""))
                .await?;
        }
        for (holding, object) in held.objects.iter().zip(&job.examined.objects) {
            if matches!(holding, Holding::Wrong(_)) {
                self.remove(job, &object.key).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, job: &Job<'_>, key: &str) -> std::result::Result<(), End> {
        let storage = self.target(job).storage.as_ref();
        match self.soon(storage.remove(key)).await {
            Ok(..) => Ok(()),
            Err(error) => Err(self.failed(job, &error)),
        }
    }

    /// Copies an object from the first storage whose bytes are those of the manifest.
    async fn copy(&mut self, job: &mut Job<'_>, object: usize) -> std::result::Result<u64, End> {
        let wanted = job.examined.objects[object].clone();
        let to = Arc::clone(&self.target(job).storage);
        let mut last = None;
        for at in job.examined.holders(object) {
            let from = Arc::clone(&self.listing.storages[at].storage);
            let copied = copy(
                from.as_ref(),
                to.as_ref(),
                &wanted,
                self.ended,
                self.progress,
            )
            .await;
            match copied {
                Ok(size_bytes) => {
                    job.examined.held[job.index].objects[object] = Holding::Proven;
                    return Ok(size_bytes);
                }
                Err(Broken::Stopped) => return Err(End::Stopped),
                Err(Broken::Target(error)) => return Err(self.failed(job, &error)),
                // What it is, and whether it is that each time, is for a reading of its own.
                Err(Broken::Differs(_) | Broken::Source(_)) => {
                    self.judge(job, object, at, &wanted, &mut last).await?;
                }
            }
        }
        Err(self.no_source(job, &wanted, last))
    }

    /// Copies what lies beside a backup. A pin that was taken away meanwhile does not come.
    async fn copy_beside(&self, job: &Job<'_>, beside: &Beside) -> std::result::Result<u64, End> {
        let (key, from) = (&beside.key, beside.at);
        let source = self.listing.storages[from].storage.as_ref();
        let target = self.target(job).storage.as_ref();
        let bytes = match self.soon(source.get(key, MAX_BESIDE_BYTES)).await {
            Ok(bytes) => bytes,
            Err(Error::NotFound(_)) => return Ok(0),
            Err(error) => {
                let what = format!("{}: cannot read `{key}` in `{}`", job.what, self.name(from));
                return Err(End::Source(storage_failure(&what, &error)));
            }
        };
        let size_bytes = bytes.len() as u64;
        match self.soon(target.put(key, bytes)).await {
            Ok(()) => {}
            Err(Error::Exists(_)) => return Ok(0),
            Err(error) => return Err(self.failed(job, &error)),
        }
        // Nobody waits for our lock to unpin.
        if let Err(Error::NotFound(_)) = self.soon(source.head(key)).await {
            self.remove(job, key).await?;
            return Ok(0);
        }
        Ok(size_bytes)
    }

    /// Puts the manifest and reads it back: a store may answer well and keep nothing.
    async fn put_manifest(&self, job: &Job<'_>, bytes: &Bytes) -> std::result::Result<(), End> {
        let named = self.target(job);
        let (storage, key) = (
            named.storage.as_ref(),
            job.examined.place.key(Part::Manifest, ""),
        );
        let put = self.soon(storage.put(&key, bytes.clone())).await;
        match (put, self.shown(storage, &key, bytes).await) {
            (_, Ok(true)) | (Ok(()), Err(Error::Denied { .. })) => Ok(()),
            (Err(error), _) => Err(self.failed(job, &error)),
            (Ok(()), Ok(false)) => {
                let message = format!(
                    "{}: `{}` reported that it stored the manifest `{key}`, but does not return it",
                    job.what, named.name
                );
                let failure = Failure::new(Kind::Storage, "manifest_not_kept", message);
                Err(End::Target(failure.hint(
                    "the storage does not keep what it accepts: `pgkeep check` tests it",
                )))
            }
            (Ok(()), Err(error)) => Err(self.failed(job, &error)),
        }
    }

    /// Tells whether a storage returns these bytes.
    async fn shown(
        &self,
        storage: &dyn Storage,
        key: &str,
        bytes: &Bytes,
    ) -> pgkeep_storage::Result<bool> {
        for look in 1.. {
            match self.soon(storage.get(key, bytes.len() as u64)).await {
                Ok(shown) => return Ok(shown == bytes),
                Err(Error::TooLarge { .. }) => return Ok(false),
                Err(Error::NotFound(_)) if look < LOOKS => tokio::time::sleep(BETWEEN_LOOKS).await,
                Err(Error::NotFound(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Carries out something small; after a stop it has a moment.
    async fn soon<T>(
        &self,
        work: impl Future<Output = pgkeep_storage::Result<T>>,
    ) -> pgkeep_storage::Result<T> {
        tokio::select! {
            done = work => done,
            () = self.context.stop.overdue(SMALL_GRACE) => {
                Err(Error::failed("it took too long after a stop"))
            }
        }
    }
}

/// Without a lease nobody knows whether another host reads, or mends, what looks damaged.
fn no_lease(what: &str) -> Failure {
    let message = format!(
        "{what}: something there has to be removed first, and the storage holds no lease, so a run of another host \
         cannot be seen; nothing was changed there"
    );
    Failure::new(Kind::Refused, "no_lease", message)
        .hint("remove the objects of that copy by hand; `pgkeep sync` brings it then")
}

/// Says that the run ended before its end.
pub(super) fn ended(what: &str, hold: Option<&Hold>, context: &Context) -> Failure {
    const SAFE: &str = "copies that were brought stay, and the next run brings the others";
    match hold {
        Some(hold) if !context.stop.is_requested() => {
            let failure = hold.lost_failure();
            let told = failure.message.strip_suffix(hold.safe());
            let lost = told.unwrap_or(&failure.message).trim_end_matches("; ");
            let message = format!("{lost}; {SAFE}");
            Failure { message, ..failure }
        }
        _ => context.stop.failure(what).and_safe(SAFE),
    }
}

//! Opens what is restored: a stored backup with its manifest, a file that is proven before it is used, or a pipe.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{Receiver, channel};

use crate::op::show::{database_of, doubtful};
use crate::op::stored::{
    Listing, NamedStorage, StoredBackup, Wanted, read_manifest, storage_failure, unless_removed,
};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::Part;
use pgkeep_model::manifest::Manifest;
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::scan::Scan;

/// Pieces of a stored object on their way to the decompressor.
const PIECES_IN_FLIGHT: usize = 16;

/// What is restored, opened as far as it can be without reading it.
pub(crate) enum Opened {
    /// A backup.
    Stored(Box<Stored>),
    /// A file, read once already.
    File {
        path: std::path::PathBuf,
        scan: Box<Scan>,
        /// Schemas that it makes, where a preset wants to know.
        schemas: Vec<String>,
    },
    /// A pipe, of which nothing is known before it was read.
    Pipe,
}

/// Tells whether another copy of the backup may be better.
pub(crate) fn is_of_copy(failure: &Failure) -> bool {
    matches!(failure.kind, Kind::Damaged | Kind::Storage) && failure.id != "restore_differs"
}

/// A backup, and the storages that have it.
pub(crate) struct Stored {
    pub manifest: Manifest,
    pub listing: Listing,
    pub backup: StoredBackup,
    /// A storage that did not answer while others did: the newest backup there may be another.
    doubt: Option<Failure>,
    /// Newer backups that count for nothing, because they are damaged.
    passed_over: Vec<String>,
}

impl Stored {
    /// Finds the backup and reads its manifest.
    pub(crate) async fn open(
        storages: &[NamedStorage],
        database: Option<DatabaseName>,
        wanted: &Wanted,
    ) -> Result<Self> {
        let database = database_of(wanted, database);
        let listing = Listing::read(storages.to_vec(), database.as_ref()).await?;
        let backup = listing.find(wanted)?.clone();
        let (manifest, _) = read_manifest(&listing, &backup).await?;
        let doubt = doubtful(wanted, &listing);
        let passed_over = match wanted {
            Wanted::Latest => listing.damaged_behind(&backup),
            Wanted::Id(_) => Vec::new(),
        };
        Ok(Self {
            passed_over,
            manifest,
            listing,
            backup,
            doubt,
        })
    }

    /// Returns what is not good of what is stored, behind a run that is: a storage that did not answer, newer backups
    /// that are damaged, copies that were found bad. `what` says what is good.
    pub(crate) fn after_good(&self, what: &str, bad_copies: &[String]) -> Result<()> {
        if let Some(doubt) = &self.doubt {
            return Err(doubt.clone());
        }
        let newer = self.passed_over.iter();
        let newer = newer.map(|id| format!("`{id}` is newer, and marked as damaged"));
        let told: Vec<String> = newer.chain(bad_copies.iter().cloned()).collect();
        let Some((first, more)) = told.split_first() else {
            return Ok(());
        };
        let message = format!("{what}, but not all that is stored is good: {first}");
        Err(Failure::new(Kind::AfterGood, "stored_not_good", message)
            .with_details(more.iter().cloned())
            .hint("`pgkeep verify --all` reads all that is stored, and marks what is damaged"))
    }

    /// Makes an attempt with one storage's copy after the other, until one is not at fault for what failed. Those that
    /// were are added to `bad`.
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
                Err(failure) if is_of_copy(&failure) => last = Some(failure),
                done => return done,
            }
        }
        let message = format!("{what}: no storage has the backup");
        Err(last.unwrap_or_else(|| Failure::new(Kind::NotFound, "no_such_backup", message)))
    }

    /// Says of a failure that the backup was removed meanwhile, where that is so.
    pub(crate) async fn unless_removed(&self, what: &str, failure: Failure) -> Failure {
        unless_removed(&self.listing, &self.backup, what, failure).await
    }

    /// Returns the name of the storage at a position.
    pub(crate) fn storage_name(&self, at: usize) -> &str {
        &self.listing.storages[at].name
    }

    /// Starts reading one copy of the dump.
    pub(crate) async fn read(&self, at: usize) -> Result<ObjectReader> {
        let id = &self.manifest.id;
        let named = &self.listing.storages[at];
        let what = format!("cannot read `{id}` in `{}`", named.name);
        let key = self.key(at, &what)?;
        let mut stream = named
            .storage
            .stream(&key, None)
            .await
            .map_err(|error| storage_failure(&what, &error))?;
        let (sender, receiver) = channel(PIECES_IN_FLIGHT);
        // It ends with the stream, or with the reader.
        tokio::spawn(async move {
            loop {
                let piece = tokio::select! {
                    piece = stream.next() => piece,
                    () = sender.closed() => return,
                };
                let is_end = piece.is_none();
                if sender.send(piece.transpose()).await.is_err() || is_end {
                    return;
                }
            }
        });
        Ok(ObjectReader {
            receiver,
            current: Bytes::new(),
            is_ended: false,
        })
    }

    /// The key, built from the id and the compression that the manifest names; it must be in the listing.
    fn key(&self, at: usize, what: &str) -> Result<String> {
        let extension = match self.manifest.object.key.rsplit('.').next() {
            Some("gz") => ".gz",
            Some("zst") => ".zst",
            _ => "",
        };
        let key = self.backup.place.key(Part::Dump, extension);
        if self
            .backup
            .copies
            .get(&at)
            .is_some_and(|copy| copy.has(&key))
        {
            Ok(key)
        } else {
            let message = format!("{what}: `{key}`, which the manifest names, is not there");
            Err(Failure::new(Kind::Damaged, "object_missing", message))
        }
    }
}

impl Opened {
    /// Returns what must be there in the end, as far as it is known before the dump was read.
    pub(crate) fn expected(&self) -> Option<Vec<Expected>> {
        match self {
            Self::Stored(stored) => {
                Some(stored.manifest.tables.iter().map(Expected::from).collect())
            }
            Self::File { scan, .. } => Some(scan.tables.iter().map(Expected::from).collect()),
            Self::Pipe => None,
        }
    }

    /// Returns the manifest of a backup.
    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Stored(stored) => Some(&stored.manifest),
            _ => None,
        }
    }
}

/// Opens a plain dump.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let fail = |why: String| {
        let message = format!(
            "cannot restore `{}`: {why}; nothing was changed",
            path.display()
        );
        Failure::new(Kind::Usage, "cannot_open", message)
    };
    if path.is_dir() {
        return Err(fail("it is a folder".to_owned()));
    }
    File::open(path).map_err(|error| fail(error.to_string()))
}

/// Reads a stored object on a thread that may block. Its end is the object's end.
pub(crate) struct ObjectReader {
    receiver: Receiver<pgkeep_storage::Result<Option<Bytes>>>,
    current: Bytes,
    is_ended: bool,
}

impl ObjectReader {
    fn next(&mut self) -> io::Result<()> {
        match self.receiver.blocking_recv() {
            Some(Ok(Some(piece))) => self.current = piece,
            Some(Ok(None)) => self.is_ended = true,
            Some(Err(error)) => return Err(io::Error::other(error.to_string())),
            None => return Err(io::Error::other("the storage's reader is gone")),
        }
        Ok(())
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.is_ended {
            self.next()?;
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Counts and hashes what is read, and ends the reading when it is told to.
pub(crate) struct Tap<R> {
    inner: R,
    hash: Option<Sha256>,
    seen: Arc<Seen>,
}

/// What a [`Tap`] saw, and the wish that it ends.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    bytes: AtomicU64,
    is_given_up: AtomicBool,
    sha256: OnceLock<String>,
    failed: OnceLock<String>,
}

impl Seen {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the SHA-256 of an object that was read to its end.
    pub(crate) fn sha256(&self) -> Option<&str> {
        self.sha256.get().map(String::as_str)
    }

    /// Returns why the bytes could not be read, where it was not for what they are.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Lets the next read fail.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}

impl<R: Read> Tap<R> {
    pub(crate) fn new(inner: R, is_hashed: bool) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let tap = Self {
            inner,
            hash: is_hashed.then(Sha256::new),
            seen: Arc::clone(&seen),
        };
        (tap, seen)
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.seen.is_given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was given up"));
        }
        let count = self.inner.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                let _ = self.seen.failed.set(error.to_string()); // the first reason is the one to tell
            }
        })?;
        self.seen.bytes.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        if count == 0
            && !buffer.is_empty()
            && let Some(hash) = self.hash.take()
        {
            let text = hash
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let _ = self.seen.sha256.set(text); // read past the end once more, nothing changes
        }
        Ok(count)
    }
}

//! `get`: downloads a stored object and checks it on the way.

mod part;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt, DuplexStream};

use crate::context::Context;
use crate::copies::listing::{NamedStorage, Wanted, storage_failure};
use crate::copies::{Stored, with_pieces};
use crate::stream::beside::Beside;
use crate::stream::inlet::Access;
use crate::stream::pipeline::{Closed, Progress};
use crate::stream::stored::{Outcome, read_file};
use pgkeep_model::encryption::EXTENSION;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::Part;
use pgkeep_model::manifest::{Manifest, StoredObject};
use pgkeep_model::words::hex;

pub use part::part;

/// What to download.
pub struct Request {
    /// Where to look.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// Which backup.
    pub wanted: Wanted,
    /// Roles and tablespaces instead of the dump.
    pub globals: bool,
    /// Whether what is encrypted is written as it was before; it stays compressed.
    pub decrypt: bool,
    /// Where to write.
    pub output: Output,
}

/// Where to write.
pub enum Output {
    /// A file; none means the object's own name in the current folder.
    File {
        /// The file.
        path: Option<PathBuf>,
        /// Whether one that is there may be replaced.
        replace: bool,
    },
    /// Standard output.
    Stdout,
    /// Into a pipe, as it is stored. The last piece is handed on only behind the proof.
    Pipe(tokio::sync::Mutex<DuplexStream>),
}

/// What was downloaded.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup.
    pub id: String,
    /// The file; none for standard output.
    pub file: Option<String>,
    /// Size of the stored object.
    pub size_bytes: u64,
    /// SHA-256 of the stored object, the one of the manifest.
    pub sha256: String,
    /// Whether it was decrypted, so that the file is not the stored object.
    pub decrypted: bool,
    /// The storage it came from.
    pub storage: String,
    /// Copies that were tried before and found bad.
    pub warnings: Vec<String>,
    /// A storage that did not answer while others did: the newest backup there may be another.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// Downloads an object, from the next storage when one has a bad copy.
pub async fn run(request: Request, context: &Context) -> Result<Report> {
    let (database, now) = (request.database.clone(), context.clock.now());
    let stored = Stored::open(&request.storages, database, &request.wanted, now).await?;
    let what = format!("cannot get `{}`", stored.manifest.id);
    let (object, part) = wanted_object(&stored.manifest, request.globals)?;
    let mut warnings = stored.warnings();
    let decrypt = request.decrypt && stored.manifest.encryption.is_some();
    if decrypt {
        let unlocked = stored.unlock(&what, &context.stop).await;
        unlocked.map_err(|failure| failure.and_safe("nothing was written"))?;
    }
    let fetched = stored
        .try_copies(&what, &mut warnings, async |at| {
            let copy = Copy {
                stored: &stored,
                at,
                part,
                object,
                decrypt,
            };
            let file = copy.fetch(&request.output, context).await?;
            Ok(copy.report(file))
        })
        .await;
    match fetched {
        Ok(report) => Ok(Report {
            warnings,
            failure: stored.doubt(),
            ..report
        }),
        Err(failure) => Err(stored.unless_removed(&what, failure).await),
    }
}

fn wanted_object(manifest: &Manifest, globals: bool) -> Result<(&StoredObject, Part)> {
    if !globals {
        return Ok((&manifest.object, Part::Dump));
    }
    match &manifest.globals {
        Some(globals) => Ok((&globals.object, Part::Globals)),
        None => {
            let message = format!("backup `{}` has no roles and tablespaces", manifest.id);
            Err(Failure::new(Kind::NotFound, "no_globals", message)
                .hint("`globals: true` stores them with the next backup"))
        }
    }
}

/// One storage's copy of an object.
struct Copy<'a> {
    stored: &'a Stored,
    at: usize,
    part: Part,
    object: &'a StoredObject,
    decrypt: bool,
}

impl Copy<'_> {
    fn named(&self) -> &NamedStorage {
        &self.stored.listing.storages[self.at]
    }

    fn what(&self) -> String {
        format!(
            "cannot get `{}` from `{}`",
            self.stored.manifest.id,
            self.named().name
        )
    }

    fn key(&self) -> Result<String> {
        self.stored.key(self.part, &self.object.key, &self.what())
    }

    async fn fetch(&self, output: &Output, context: &Context) -> Result<Option<PathBuf>> {
        match output {
            Output::Stdout if self.decrypt => {
                let begun = Arc::new(AtomicBool::new(false));
                let copied = self.decrypt_to(std::io::stdout(), &begun, context).await;
                // What was printed cannot be taken back.
                let is_begun = begun.load(Ordering::Relaxed);
                copied.map_err(|failure| {
                    if is_begun {
                        failure.handed_on()
                    } else {
                        failure
                    }
                })?;
                Ok(None)
            }
            Output::Stdout => {
                self.hand_on(&mut tokio::io::stdout(), context).await?;
                Ok(None)
            }
            Output::Pipe(pipe) => {
                let mut out = pipe.lock().await;
                self.hand_on(&mut *out, context).await?;
                Ok(None)
            }
            Output::File { path, replace } => {
                let key = self.key()?;
                let own = key.rsplit('/').next().unwrap_or_default();
                let name = match own.strip_suffix(EXTENSION) {
                    Some(name) if self.decrypt => name,
                    _ => own,
                };
                let path = path.clone().unwrap_or_else(|| PathBuf::from(name));
                self.write_file(&path, *replace, context).await?;
                Ok(Some(path))
            }
        }
    }

    /// Copies the object to where nothing can be taken back.
    async fn hand_on(&self, out: &mut (impl AsyncWrite + Unpin), context: &Context) -> Result<()> {
        let mut is_begun = false;
        let copied = self.copy_to(out, &mut is_begun, context).await;
        copied.map_err(|failure| {
            if is_begun {
                failure.handed_on()
            } else {
                failure
            }
        })
    }

    async fn write_file(&self, path: &Path, replace: bool, context: &Context) -> Result<()> {
        Beside::check(path, replace)?;
        let beside = Beside::start(path, replace, "get")?;
        let cloned = beside.file().try_clone();
        let file = cloned.map_err(|error| beside.cannot_write(&error))?;
        if self.decrypt {
            self.decrypt_to(file, &Arc::default(), context).await?;
        } else {
            let mut out = tokio::fs::File::from_std(file);
            self.copy_to(&mut out, &mut false, context).await?;
        }
        let finish = tokio::task::spawn_blocking(|| beside.finish());
        finish.await.expect("renaming does not panic").map(drop)
    }

    /// Writes what was encrypted; `is_begun` says whether any byte went out.
    async fn decrypt_to(
        &self,
        mut out: impl Write + Send + 'static,
        is_begun: &Arc<AtomicBool>,
        context: &Context,
    ) -> Result<()> {
        let what = self.what();
        let stream = self
            .stored
            .stream(self.at, self.part, &self.object.key, &what)
            .await?;
        let access = Access::Whole(Arc::clone(self.stored.identities(self.at)));
        let (stop, begun, object) = (
            context.stop.clone(),
            Arc::clone(is_begun),
            self.object.clone(),
        );
        let said = what.clone();
        let work = move |pieces| -> Result<Option<Outcome>> {
            let io =
                |error| Failure::new(Kind::Storage, "cannot_write", format!("{said}: {error}"));
            let (mut held, mut written) = (Bytes::new(), Ok(()));
            let mut take = |piece: Bytes| {
                begun.fetch_or(!held.is_empty(), Ordering::Relaxed);
                written = out.write_all(&std::mem::replace(&mut held, piece));
                match written {
                    Ok(()) if !stop.is_requested() => Ok(()),
                    _ => Err(Closed),
                }
            };
            let read = read_file(pieces, access, &Progress::default(), &mut take);
            written.map_err(io)?;
            let outcome = read.map_err(|error| storage_failure(&said, &error))?;
            let is_same =
                outcome.stored_bytes == object.size_bytes && outcome.sha256 == object.sha256;
            if outcome.is_left || outcome.fault.is_some() || !is_same {
                return Ok(Some(outcome));
            }
            out.write_all(&held)
                .and_then(|()| out.flush())
                .map_err(io)?;
            Ok(None)
        };
        match with_pieces(stream, work).await?? {
            None => Ok(()),
            Some(outcome) if outcome.is_left => {
                let failure = context.stop.failure(&what);
                Err(failure.and_safe("nothing was written"))
            }
            Some(outcome) => Err(match outcome.fault {
                Some(fault) if outcome.sha256 == self.object.sha256 => {
                    let message =
                        format!("{what}: the stored object is damaged: {}", fault.message);
                    Failure::new(Kind::Damaged, "object_damaged", message).of_copy()
                }
                _ => self.damaged(outcome.stored_bytes, &outcome.sha256),
            }),
        }
    }

    fn damaged(&self, size: u64, sha256: &str) -> Failure {
        let message = format!(
            "{}: the stored object is damaged: it has {size} bytes and SHA-256 {sha256}, but the manifest says {} and {}",
            self.what(),
            self.object.size_bytes,
            self.object.sha256
        );
        Failure::new(Kind::Damaged, "object_damaged", message)
            .of_copy()
            .hint("`pgkeep list` shows other backups")
    }

    /// Copies the object; `is_begun` says whether any byte went out.
    async fn copy_to(
        &self,
        out: &mut (impl AsyncWrite + Unpin),
        is_begun: &mut bool,
        context: &Context,
    ) -> Result<()> {
        let what = self.what();
        let stopped = || {
            let failure = context.stop.failure(&what);
            failure.and_safe("nothing was written")
        };
        let (stored, named) = (self.stored, &self.object.key);
        let mut stream = stored.stream(self.at, self.part, named, &what).await?;
        let mut hash = Sha256::new();
        let mut size = 0u64;
        // The last piece is held back, so that anyone who reads standard output meets no end before the proof.
        let mut held = Bytes::new();
        loop {
            let piece = tokio::select! {
                piece = stream.next() => piece,
                () = context.stop.token().cancelled() => return Err(stopped()),
            };
            let Some(piece) = piece else { break };
            let piece = piece.map_err(|error| storage_failure(&what, &error))?;
            hash.update(&piece);
            size += piece.len() as u64;
            let io =
                |error| Failure::new(Kind::Storage, "cannot_write", format!("{what}: {error}"));
            *is_begun |= !held.is_empty();
            out.write_all(&std::mem::replace(&mut held, piece))
                .await
                .map_err(io)?;
        }
        let sha256 = hex(&hash.finalize());
        if size == self.object.size_bytes && sha256 == self.object.sha256 {
            let io =
                |error| Failure::new(Kind::Storage, "cannot_write", format!("{what}: {error}"));
            out.write_all(&held).await.map_err(io)?;
            return out.flush().await.map_err(io);
        }
        Err(self.damaged(size, &sha256))
    }

    fn report(&self, file: Option<PathBuf>) -> Report {
        Report {
            id: self.stored.manifest.id.to_string(),
            file: file.map(|path| path.display().to_string()),
            size_bytes: self.object.size_bytes,
            sha256: self.object.sha256.clone(),
            decrypted: self.decrypt,
            storage: self.named().name.clone(),
            warnings: Vec::new(),
            failure: None,
        }
    }
}

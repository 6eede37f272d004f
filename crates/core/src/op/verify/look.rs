//! One reading of one copy: manifest, index, dump and globals, each from the storage in question.

use std::sync::Arc;

use crate::context::Context;
use crate::copies::listing::{
    NamedStorage, StoredBackup, manifest_failure, manifest_of_copy, storage_failure,
};
use crate::copies::{Front, chunk_index, dump_key, extension, threads, with_pieces};
use crate::op::event::{Event, Observer};
use crate::stream::compress::Codec;
use crate::stream::digest::sha256;
use crate::stream::inlet::Access;
use crate::stream::pipeline::Progress;
use crate::stream::stored::{Layout, Outcome, read_chunks, read_file, read_serially};
use pgkeep_model::chunks::ChunkIndex;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::keys::Part;
use pgkeep_model::manifest::{Manifest, ManifestError};
use pgkeep_model::proof::{Problem, contradictions};
use pgkeep_model::scan::{NOT_UTF8, Scan, Scanner};
use pgkeep_model::words::number;
use pgkeep_storage::{Error, Object};

/// Id of the failure of a copy that was removed while it was read.
pub(super) const BACKUP_GONE: &str = "backup_gone";

/// A copy to look at.
pub(super) struct Look<'a> {
    pub named: &'a NamedStorage,
    pub backup: &'a StoredBackup,
    pub context: &'a Context,
    pub observer: &'a dyn Observer,
}

/// What one reading saw.
#[derive(Default)]
pub(super) struct Seen {
    /// Key of the dump.
    pub key: String,
    /// Length of what was read; none where there was nothing.
    pub stored_bytes: Option<u64>,
    /// Its SHA-256.
    pub sha256: Option<String>,
    /// Tables found.
    pub tables: u64,
    /// Rows found.
    pub rows: u64,
    /// What contradicts the manifest.
    pub problems: Vec<Problem>,
    /// What is wrong with what lies beside the dump.
    pub minor: Vec<String>,
    /// What is odd.
    pub warnings: Vec<String>,
    /// Whether what the bytes hold was read, and not the bytes alone.
    pub opened: bool,
    /// Why a key that was given does not open it.
    pub locked: Option<Failure>,
}

/// Problems between a manifest and a dump whose bytes are the stored ones.
const OF_CONTENT: [&str; 7] = [
    "columns_differ",
    "digest_differs",
    "dump_differs",
    "place_differs",
    "rows_differ",
    "table_missing",
    "table_unknown",
];

impl Seen {
    fn wrong(id: &'static str, message: String) -> Self {
        Self {
            problems: vec![Problem::new(id, message)],
            ..Self::default()
        }
    }

    fn missing(key: String) -> Self {
        let message = format!("the dump `{key}` is missing");
        Self {
            key,
            ..Self::wrong("object_missing", message)
        }
    }

    /// Tells whether the stored bytes themselves are wrong, and not only what a manifest says of their content.
    pub(super) fn is_wrong_in_bytes(&self) -> bool {
        let is_of_content = |problem: &Problem| OF_CONTENT.contains(&problem.id);
        !self.problems.iter().all(is_of_content)
    }

    /// Tells whether two readings saw the same bytes.
    pub(super) fn is_same_bytes(&self, other: &Self) -> bool {
        (self.stored_bytes, &self.sha256) == (other.stored_bytes, &other.sha256)
    }
}

/// How the stored bytes can be read.
enum Opening {
    With(Access),
    /// The key is the right one, and the header does not open; it says why.
    Broken(Access, String),
    /// There is no key, or none that opens it, which the failure says.
    Locked(Option<Failure>),
}

/// A dump to be read.
struct ToRead<'a> {
    manifest: &'a Manifest,
    codec: Codec,
    key: &'a str,
    access: Access,
}

/// A dump that was read: what the reader and the scanner say.
type Read = Result<(Outcome, Option<Scan>), Error>;

impl Look<'_> {
    pub(super) fn what(&self) -> String {
        format!(
            "cannot verify `{}` in `{}`",
            self.backup.place.id, self.named.name
        )
    }

    fn failed(&self, error: &Error) -> Failure {
        storage_failure(&self.what(), error)
    }

    /// Reads everything once. An error is a storage that cannot be read.
    pub(super) async fn once(&self, is_again: bool) -> Result<Seen, Failure> {
        let manifest = match self.manifest().await? {
            Ok(manifest) => manifest,
            Err(seen) => return Ok(seen),
        };
        let (codec, key) = match dump_key(self.backup, &manifest) {
            Ok(found) => found,
            Err(why) => return Ok(Seen::wrong("manifest_contradicts", why)),
        };
        let mut seen = self.dump(&manifest, codec, key, is_again).await?;
        self.globals(&manifest, &mut seen).await?;
        Ok(seen)
    }

    async fn manifest(&self) -> Result<Result<Manifest, Seen>, Failure> {
        let (storage, place) = (self.named.storage.as_ref(), &self.backup.place);
        let (bytes, manifest) = match manifest_of_copy(storage, place).await {
            Ok(found) => found,
            Err(error @ Error::TooLarge { .. }) => {
                return Ok(Err(Seen::wrong("manifest_damaged", error.to_string())));
            }
            Err(error @ Error::NotFound(_)) => {
                self.listed().await?;
                let message = format!(
                    "{}: its manifest is listed and cannot be read: {error}",
                    self.what()
                );
                return Err(Failure::new(Kind::Storage, "manifest_unreadable", message).of_copy());
            }
            Err(error) => return Err(self.failed(&error)),
        };
        match manifest {
            Ok(manifest) => Ok(Ok(manifest)),
            Err(error @ ManifestError::Newer { .. }) => Err(manifest_failure(&self.what(), &error)),
            Err(error) => Ok(Err(Seen {
                key: place.key(Part::Manifest, ""),
                stored_bytes: Some(bytes.len() as u64),
                sha256: Some(sha256(&bytes)),
                ..Seen::wrong("manifest_damaged", format!("its manifest: {error}"))
            })),
        }
    }

    /// Lists the copy's objects anew; one without a manifest was removed meanwhile, which is a failure.
    async fn listed(&self) -> Result<Vec<Object>, Failure> {
        let manifest = self.backup.place.key(Part::Manifest, "");
        let id = self.backup.place.id.to_string();
        let folder = manifest.rsplit_once('/').map_or("", |(folder, _)| folder);
        let prefix = format!("{folder}/{id}");
        let listed = self
            .named
            .storage
            .list(&prefix)
            .await
            .map_err(|error| self.failed(&error))?;
        if listed.iter().any(|object| object.key == manifest) {
            return Ok(listed);
        }
        let message = format!(
            "{}: its manifest is gone: it was removed meanwhile",
            self.what()
        );
        Err(Failure::new(Kind::Storage, BACKUP_GONE, message).of_copy())
    }

    /// Tells whether the storage lists what was read as it was read: so long, or not at all. An answer that did not
    /// come from the storage would hardly be as long as what is there.
    pub(super) async fn listed_as(&self, seen: &Seen) -> Result<bool, Failure> {
        let listed = self.listed().await?;
        if seen.key.is_empty() {
            return Ok(true);
        }
        let object = listed.iter().find(|object| object.key == seen.key);
        Ok(object.map(|object| object.size_bytes) == seen.stored_bytes)
    }

    async fn dump(
        &self,
        manifest: &Manifest,
        codec: Codec,
        key: String,
        is_again: bool,
    ) -> Result<Seen, Failure> {
        let mut warnings = Vec::new();
        let found = chunk_index(self.named, self.backup, manifest, codec).await;
        let mut index = match found.map_err(|error| self.failed(&error))? {
            Ok(index) => Some(index),
            Err(why) => {
                warnings.push(no_index(&why));
                None
            }
        };
        let (access, header) = match self.access(manifest, &key).await? {
            Opening::With(access) => (access, None),
            Opening::Broken(access, why) => (access, Some(why)),
            Opening::Locked(failure) => {
                let seen = self.bytes_alone(manifest, key, is_again).await?;
                return Ok(Seen {
                    locked: failure,
                    ..seen
                });
            }
        };
        let to_read = ToRead {
            manifest,
            codec,
            key: &key,
            access,
        };
        let mut read = self.read(&to_read, index.take(), is_again).await;
        if let Ok((outcome, _)) = &read
            && let Some(fault) = &outcome.fault
            && is_what_was_stored(manifest, outcome)
        {
            // The bytes are the ones that were stored, so it must be the index that is wrong.
            let found = Problem::new("", &fault.message).message;
            warnings.push(no_index(&found));
            read = self.read(&to_read, None, is_again).await;
        }
        let (outcome, scan) = match read {
            Ok(found) => found,
            Err(Error::NotFound(_)) => return Ok(Seen::missing(key)),
            Err(error) => return Err(self.failed(&error)),
        };
        warnings.extend(
            scan.iter()
                .flat_map(|scan| &scan.warnings)
                .filter(|finding| finding.id == NOT_UTF8)
                .map(|finding| finding.message.clone()),
        );
        Ok(Seen {
            key,
            stored_bytes: Some(outcome.stored_bytes),
            tables: scan.as_ref().map_or(0, |scan| scan.tables.len() as u64),
            rows: scan.as_ref().map_or(0, Scan::rows),
            problems: header
                .into_iter()
                .map(|why| Problem::new("header_damaged", &why))
                .chain(problems(manifest, &outcome, scan.as_ref()))
                .collect(),
            sha256: Some(outcome.sha256),
            minor: Vec::new(),
            warnings,
            opened: true,
            locked: None,
        })
    }

    /// Returns how the dump is read.
    async fn access(&self, manifest: &Manifest, key: &str) -> Result<Opening, Failure> {
        let Some(encryption) = &manifest.encryption else {
            return Ok(Opening::With(Access::Plain));
        };
        let identities = &self.named.identities;
        if identities.is_empty() {
            return Ok(Opening::Locked(None));
        }
        let front = Front {
            named: self.named,
            key,
            encryption,
            object_bytes: manifest.object.size_bytes,
            what: &self.what(),
        };
        let whole = Access::Whole(Arc::clone(identities));
        match front.open().await {
            Ok(_) => Ok(Opening::With(whole)),
            Err(failure) if failure.kind == Kind::Login => Ok(Opening::Locked(Some(failure))),
            // It is read all the same, and told with its place where it has one.
            Err(failure) => Ok(Opening::Broken(whole, failure.message)),
        }
    }

    /// Compares the stored bytes alone, which no key is needed for.
    async fn bytes_alone(
        &self,
        manifest: &Manifest,
        key: String,
        is_again: bool,
    ) -> Result<Seen, Failure> {
        let progress = self.announce(manifest, is_again);
        let stream = match self.named.storage.stream(&key, None).await {
            Ok(stream) => stream,
            Err(Error::NotFound(_)) => return Ok(Seen::missing(key)),
            Err(error) => return Err(self.failed(&error)),
        };
        let work = move |pieces| read_file(pieces, Access::Plain, &progress, &mut |_| Ok(()));
        let read = with_pieces(stream, work).await?;
        let outcome = read.map_err(|error| self.failed(&error))?;
        Ok(Seen {
            key,
            stored_bytes: Some(outcome.stored_bytes),
            problems: problems(manifest, &outcome, None),
            sha256: Some(outcome.sha256),
            ..Seen::default()
        })
    }

    fn announce(&self, manifest: &Manifest, is_again: bool) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.observer.note(Event::Verifying {
            id: &self.backup.place.id,
            storage: &self.named.name,
            size_bytes: manifest.object.size_bytes,
            progress: &progress,
            is_again,
        });
        progress
    }

    /// Reads the dump through the scanner, in parallel where there is an index.
    async fn read(
        &self,
        to_read: &ToRead<'_>,
        index: Option<Arc<ChunkIndex>>,
        is_again: bool,
    ) -> Read {
        let ToRead {
            manifest,
            codec,
            key,
            access,
        } = to_read;
        let (codec, access) = (*codec, access.clone());
        let identities = Arc::clone(&self.named.identities);
        let progress = self.announce(manifest, is_again);
        let stream = self.named.storage.stream(key, None).await?;
        let limit = manifest.dump.bytes;
        let work = move |pieces| {
            let mut scanner = Scanner::new();
            let mut take = |piece: &[u8]| {
                scanner.push(piece);
                scanner.take_found();
                progress.note_scan(&scanner);
                Ok(())
            };
            let outcome = match &index {
                Some(index) => read_chunks(
                    pieces,
                    access,
                    &Layout::whole(codec, index),
                    threads(),
                    &progress,
                    &mut take,
                ),
                None => read_serially(pieces, &identities, limit, &progress, &mut take),
            }?;
            // With all of its text there, the scanner knows more than that a checksum is wrong.
            let is_all = outcome.fault.is_none() || outcome.raw_bytes == limit;
            let scan = is_all.then(|| scanner.finish());
            Ok((outcome, scan))
        };
        // A thread that died is a defect, which the error says; it proves nothing of the copy.
        let read = with_pieces(stream, work).await;
        read.unwrap_or_else(|failure| Err(Error::failed(failure.message)))
    }

    async fn globals(&self, manifest: &Manifest, seen: &mut Seen) -> Result<(), Failure> {
        let (Some(record), Ok(extension)) = (&manifest.globals, extension(manifest)) else {
            return Ok(());
        };
        let key = self.backup.place.key(Part::Globals, &extension);
        let object = &record.object;
        let read = self.named.storage.get(&key, object.size_bytes).await;
        let why = match read {
            Ok(bytes)
                if bytes.len() as u64 == object.size_bytes && sha256(&bytes) == object.sha256 =>
            {
                return Ok(());
            }
            Ok(_) | Err(Error::TooLarge { .. }) => "do not match the manifest",
            Err(Error::NotFound(_)) => "are missing",
            Err(error) => return Err(self.failed(&error)),
        };
        seen.minor
            .push(format!("roles and tablespaces (`{key}`) {why}"));
        Ok(())
    }
}

fn no_index(why: &str) -> String {
    format!("the chunk index cannot be used ({why}): the dump was read without it, on one core")
}

fn is_what_was_stored(manifest: &Manifest, outcome: &Outcome) -> bool {
    outcome.stored_bytes == manifest.object.size_bytes && outcome.sha256 == manifest.object.sha256
}

/// Puts the first bad place first, and behind it what has none.
fn problems(manifest: &Manifest, outcome: &Outcome, scan: Option<&Scan>) -> Vec<Problem> {
    let fault = outcome.fault.as_ref().map(|fault| {
        Problem::new("stream_damaged", &fault.message).at(
            manifest,
            fault.stored_offset,
            fault.dump_offset,
        )
    });
    let mut problems: Vec<Problem> = fault.into_iter().collect();
    problems.extend(
        scan.into_iter()
            .flat_map(|scan| contradictions(manifest, scan)),
    );
    problems.sort_by_key(|problem| (problem.stored_offset.is_none(), problem.stored_offset));
    let (size, wanted) = (outcome.stored_bytes, manifest.object.size_bytes);
    if size != wanted {
        let (size, wanted) = (number(size), number(wanted));
        let message = format!("the stored file has {size} bytes, but the manifest says {wanted}");
        problems.push(Problem::new("size_differs", message));
    } else if !is_what_was_stored(manifest, outcome) {
        let message = format!(
            "the stored file has SHA-256 {}, but the manifest says {}",
            outcome.sha256, manifest.object.sha256
        );
        problems.push(Problem::new("sha256_differs", message));
    }
    problems
}

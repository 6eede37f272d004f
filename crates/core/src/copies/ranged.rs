//! Reads parts of a stored dump by ranged requests, each piece of text in order on a thread that may block.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::bridge::{Pieces, threads, with_pieces};
use super::dump::{chunk_index, dump_key};
use super::listing::{NamedStorage, storage_failure};
use super::stored::Stored;
use crate::context::Stop;
use crate::encryption::Identities;
use crate::stream::compress::Codec;
use crate::stream::inlet::Access;
use crate::stream::pipeline::{Closed, Progress};
use crate::stream::stored::{Layout, read_chunks};
use pgkeep_model::chunks::ChunkIndex;
use pgkeep_model::encryption::{EncryptionRecord, Places};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::scan::Block;

/// One storage's copy of a backup, ready to be read.
pub(crate) struct Ranged<'a> {
    named: &'a NamedStorage,
    codec: Codec,
    /// How the dump is encrypted, and what opens it; none where it is not.
    sealed: Option<Sealed>,
    key: String,
    index: Arc<ChunkIndex>,
    what: String,
    stop: Stop,
    /// How many stored bytes of the block under way were read.
    progress: Arc<Progress>,
}

/// What it takes to read parts of an encrypted dump.
struct Sealed {
    places: Places,
    front: Bytes,
    identities: Arc<Identities>,
    object_bytes: u64,
}

impl Sealed {
    /// Returns which bytes of the object hold a part of the compressed dump, and how they are read.
    fn part(&self, wanted: Range<u64>) -> (Range<u64>, Access) {
        let part = self.places.part(wanted.clone(), self.object_bytes);
        let access = Access::Part {
            identities: Arc::clone(&self.identities),
            front: self.front.clone(),
            start: part.range.start,
            wanted,
        };
        (part.range, access)
    }
}

impl<'a> Ranged<'a> {
    pub(crate) async fn open(
        stored: &'a Stored,
        at: usize,
        what: &str,
        stop: Stop,
    ) -> Result<Self> {
        let opened = Self::open_if_indexed(stored, at, what, stop).await?;
        opened.map_err(|why| contradicts(&of_copy(stored, at, what), &why))
    }

    /// Opens a copy; the inner error says why its chunk index cannot be used. All of such a copy can be read all the
    /// same.
    pub(crate) async fn open_if_indexed(
        stored: &'a Stored,
        at: usize,
        what: &str,
        stop: Stop,
    ) -> Result<std::result::Result<Self, String>> {
        let (named, manifest) = (&stored.listing.storages[at], &stored.manifest);
        let what = of_copy(stored, at, what);
        let found = dump_key(&stored.backup, manifest);
        let (codec, key) = found.map_err(|why| contradicts(&what, &why))?;
        let found = chunk_index(named, &stored.backup, manifest, codec).await;
        let index = match found.map_err(|error| storage_failure(&what, &error))? {
            Ok(index) => index,
            Err(why) => return Ok(Err(why)),
        };
        let front = stored.front(at, &what).await?;
        let to_sealed = |(front, encryption): (_, &EncryptionRecord)| Sealed {
            places: encryption.places(),
            front,
            identities: Arc::clone(stored.identities(at)),
            object_bytes: manifest.object.size_bytes,
        };
        Ok(Ok(Self {
            named,
            codec,
            sealed: front.zip(manifest.encryption.as_ref()).map(to_sealed),
            key,
            index,
            what,
            stop,
            progress: Arc::default(),
        }))
    }

    /// Tells `progress` the stored bytes that are read, for a reader that takes one block after the other.
    pub(crate) fn telling(self, progress: &Arc<Progress>) -> Self {
        let progress = Arc::clone(progress);
        Self { progress, ..self }
    }

    /// Says what is being done.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Returns the failure of a manifest that cannot be right.
    pub(crate) fn contradicts(&self, why: &str) -> Failure {
        contradicts(&self.what, why)
    }

    /// Returns the failure of what is not as it was stored; `of` names it.
    pub(crate) fn damaged(&self, of: &str, why: &str) -> Failure {
        let message = format!("{}: {of}: {why}", self.what);
        Failure::new(Kind::Damaged, "rows_damaged", message)
            .of_copy()
            .hint("`pgkeep verify` reports what is damaged")
    }

    /// Tells whether a block is inside of the dump.
    pub(crate) fn holds(&self, block: Block) -> bool {
        self.index.offsets().chunks_of(block).is_some()
    }

    /// Tells whether the text of a block is known, so that reading it proves it.
    pub(crate) fn is_known(&self, block: Block) -> bool {
        let found = self.index.offsets().chunks_of(block);
        found.is_some_and(|(mut chunks, _)| {
            chunks.all(|chunk| self.index.sha256_of(chunk).is_some())
        })
    }

    /// Hands the text of a block to `take` together with `state`, which comes back with the number of stored bytes
    /// that were read. `take` ends the reading by an error, which is none here.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        of: &str,
        block: Block,
        state: T,
        take: impl FnMut(&mut T, &[u8]) -> std::result::Result<(), Closed> + Send + 'static,
    ) -> Result<(T, u64)> {
        let (state, count, read) = self.hand(block, threads(), state, take).await;
        match read {
            Ok(()) | Err(Fault::Left) => Ok((state, count)),
            Err(Fault::Storage(error)) => Err(storage_failure(&self.what, &error)),
            Err(Fault::Damaged(why)) => Err(self.damaged(of, &why)),
        }
    }

    /// Hands the text of a block to `take` together with `state`, which comes back in any case, with the number of
    /// stored bytes that were read. So many `threads` decompress.
    pub(crate) async fn hand<T: Send + 'static>(
        &self,
        block: Block,
        threads: usize,
        mut state: T,
        mut take: impl FnMut(&mut T, &[u8]) -> std::result::Result<(), Closed> + Send + 'static,
    ) -> (T, u64, std::result::Result<(), Fault>) {
        let Some((chunks, skipped)) = self.index.offsets().chunks_of(block) else {
            let why = "it starts after the end of the dump".to_owned();
            return (state, 0, Err(Fault::Damaged(why)));
        };
        let wanted = self.index.start_of(chunks.start).0..self.index.start_of(chunks.end).0;
        let (range, access) = match &self.sealed {
            None => (wanted, Access::Plain),
            Some(sealed) => sealed.part(wanted),
        };
        let read_bytes = range.end - range.start;
        let stream = match self.named.storage.stream(&self.key, Some(range)).await {
            Ok(stream) => stream,
            Err(error) => return (state, 0, Err(Fault::Storage(error))),
        };
        let (codec, index, stop) = (self.codec, Arc::clone(&self.index), self.stop.clone());
        let progress = Arc::clone(&self.progress);
        let work = move |pieces: Pieces| {
            let layout = Layout::part(codec, &index, chunks);
            let (mut skip, mut left) = (skipped, block.length);
            let mut cut = |text: &[u8]| -> std::result::Result<(), Closed> {
                let start = text.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                skip -= start as u64;
                let end = (text.len() - start).min(usize::try_from(left).unwrap_or(usize::MAX));
                left -= end as u64;
                take(&mut state, &text[start..start + end])?;
                if stop.is_requested() {
                    Err(Closed)
                } else {
                    Ok(())
                }
            };
            let read = read_chunks(pieces, access, &layout, threads, &progress, &mut cut);
            let ended = match read {
                Err(error) => Err(Fault::Storage(error)),
                Ok(outcome) => match outcome.fault {
                    Some(fault) => Err(Fault::Damaged(fault.in_words())),
                    None if outcome.is_left => Err(Fault::Left),
                    None if left > 0 => Err(Fault::Damaged(
                        "it is shorter than the manifest says".to_owned(),
                    )),
                    None => Ok(()),
                },
            };
            (state, ended)
        };
        let handed = with_pieces(stream, work).await;
        let (state, ended) = handed.expect("reading does not panic");
        (state, read_bytes, ended)
    }
}

/// Why a block was not handed on to its end.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Anyone who takes it took no more, or somebody wants to stop.
    Left,
    Storage(pgkeep_storage::Error),
    Damaged(String),
}

/// Says which copy is read for `what`.
fn of_copy(stored: &Stored, at: usize, what: &str) -> String {
    let (id, storage) = (&stored.manifest.id, stored.storage_name(at));
    format!("{what}: reading `{id}` from `{storage}`")
}

fn contradicts(what: &str, why: &str) -> Failure {
    Failure::new(
        Kind::Damaged,
        "manifest_contradicts",
        format!("{what}: {why}"),
    )
    .of_copy()
    .hint("restore the whole backup into a new database: that needs no index")
}

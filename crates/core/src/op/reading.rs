//! Reading stored objects in threads: the bridge from a storage's stream to those who block, and the chunk index.

use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::stored::{NamedStorage, StoredBackup};
use crate::stream::compress::Codec;
use pgkeep_model::chunks::ChunkIndex;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::keys::Part;
use pgkeep_model::manifest::{Chunks, Manifest};
use pgkeep_storage::Error;

/// Pieces between a storage and the threads that take them: enough to keep both busy.
const PIECES_IN_FLIGHT: usize = 8;

/// Largest index that is read: the one of a dump of about 3 TB.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// What comes through the bridge. The end is told, so that a broken bridge is never taken for one.
enum Item {
    Piece(pgkeep_storage::Result<Bytes>),
    End,
}

/// Pieces of an object, for a thread.
pub(super) struct Pieces {
    receiver: mpsc::Receiver<Item>,
    is_over: bool,
}

impl Iterator for Pieces {
    type Item = pgkeep_storage::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let item = self.receiver.blocking_recv();
        self.is_over = !matches!(item, Some(Item::Piece(Ok(_))));
        match item {
            Some(Item::Piece(piece)) => Some(piece),
            Some(Item::End) => None,
            None => Some(Err(Error::failed("reading was stopped"))),
        }
    }
}

/// Runs `work` on a thread of its own, with the pieces of `stream`. Dropping the future ends the stream with an error.
pub(super) async fn with_pieces<T: Send + 'static>(
    mut stream: BoxStream<'static, pgkeep_storage::Result<Bytes>>,
    work: impl FnOnce(Pieces) -> T + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let pieces = Pieces {
        receiver,
        is_over: false,
    };
    // Awaited below; it ends with its pieces, or when this future and so `sender` is dropped.
    let thread = tokio::task::spawn_blocking(move || work(pieces));
    loop {
        let item = stream.next().await.map_or(Item::End, Item::Piece);
        let is_last = matches!(item, Item::End);
        // A thread that has left needs no more.
        if sender.send(item).await.is_err() || is_last {
            break;
        }
    }
    thread.await.map_err(|error| {
        let message = format!("a reading thread ended: {error}");
        Failure::new(Kind::Unexpected, "thread_ended", message)
    })
}

/// Returns how many threads decompress.
pub(super) fn threads() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Returns the codec of a backup and the key of its dump, built from its id and the compression that the manifest
/// names, never taken from it.
pub(super) fn dump_key(
    backup: &StoredBackup,
    manifest: &Manifest,
) -> Result<(Codec, String), String> {
    let method = &manifest.compression.method;
    let codec = Codec::of_method(method).ok_or_else(|| {
        format!("the manifest names `{method}`, which is no compression known here")
    })?;
    let key = backup.place.key(Part::Dump, codec.extension());
    if manifest.object.key == key {
        return Ok((codec, key));
    }
    Err(format!(
        "the manifest names the key `{}`, and its own is `{key}`",
        manifest.object.key
    ))
}

/// Reads the chunk index of a backup; says why there is none that fits.
///
/// The outer error is a storage that failed, the inner one an index that cannot be used.
pub(super) async fn chunk_index(
    named: &NamedStorage,
    backup: &StoredBackup,
    manifest: &Manifest,
    codec: Codec,
) -> Result<Result<Arc<ChunkIndex>, String>, Error> {
    let index = match &manifest.chunks {
        Chunks::Inline(index) => index.clone(),
        Chunks::Beside { sha256, .. } => {
            let key = backup.place.key(Part::Index, "");
            let bytes = match named.storage.get(&key, MAX_INDEX_BYTES).await {
                Ok(bytes) => bytes,
                Err(Error::NotFound(_)) => return Ok(Err(format!("`{key}` is missing"))),
                Err(error @ Error::TooLarge { .. }) => return Ok(Err(error.to_string())),
                Err(error) => return Err(error),
            };
            if &sha256_of(&bytes) != sha256 {
                return Ok(Err(format!(
                    "`{key}` is not the one that the manifest names"
                )));
            }
            match serde_json::from_slice(&bytes) {
                Ok(index) => index,
                Err(error) => return Ok(Err(format!("`{key}` cannot be read: {error}"))),
            }
        }
    };
    let (raw, stored) = (manifest.dump.bytes, manifest.object.size_bytes);
    Ok(
        match index.contradiction(raw, stored, codec.trailer_bytes()) {
            Some(why) => Err(why),
            None => Ok(Arc::new(index)),
        },
    )
}

/// Returns the SHA-256 of bytes in hex.
pub(super) fn sha256_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! One object on its way: read and hashed, and from one storage into another in bounded memory.
//!
//! The upload is finished only when the bytes that passed are those of the manifest; on anything else it is given up,
//! and nothing of it becomes visible.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::plan::{Described, Holding, Passed};
use crate::stream::pipeline::Progress;
use pgkeep_model::words::hex;
use pgkeep_storage::{Error, Storage, Upload};

/// How long an upload may take to be given up: a run must end within ten seconds of the wish to stop.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// Why an object was not read to its end, or not copied.
#[derive(Debug)]
pub(super) enum Broken {
    /// The run is to end.
    Stopped,
    /// The storage that is read from.
    Source(Error),
    /// It was read, and it is not the object; how it differs.
    Differs(String),
    /// The storage that is written to.
    Target(Error),
}

/// Reads an object and returns what it is.
pub(super) async fn hash(
    storage: &dyn Storage,
    key: &str,
    ended: &CancellationToken,
    progress: &Progress,
) -> Result<Passed, Broken> {
    let mut stream = open(storage, key, ended).await?;
    let (mut hash, mut size_bytes) = (Sha256::new(), 0);
    while let Some(piece) = next(&mut stream, ended).await? {
        hash.update(&piece);
        size_bytes += piece.len() as u64;
        progress.note_more(piece.len() as u64, 0);
    }
    Ok(Passed {
        size_bytes,
        sha256: hex(&hash.finalize()),
    })
}

/// Reads an object and says what a storage has in its place. What differs is read once more, because it may be the way
/// that changes bytes: two readings that differ prove nothing, and are the storage's failure.
pub(super) async fn prove(
    storage: &dyn Storage,
    wanted: &Described,
    ended: &CancellationToken,
    progress: &Progress,
) -> Result<Holding, Broken> {
    let first = match hash(storage, &wanted.key, ended, progress).await {
        Err(Broken::Source(Error::NotFound(_))) => return Ok(Holding::Missing),
        read => read?,
    };
    if wanted.difference(&first).is_none() {
        return Ok(Holding::Proven);
    }
    let second = hash(storage, &wanted.key, ended, progress).await?;
    match wanted.difference(&second) {
        None => Ok(Holding::Proven),
        Some(why) if first == second => Ok(Holding::Wrong(why)),
        Some(_) => Err(Broken::Source(Error::failed(
            "two readings gave different bytes, so it is not known what is stored",
        ))),
    }
}

/// Copies an object, which must not be there, and returns its size. While a piece is written the next one is read.
pub(super) async fn copy(
    from: &dyn Storage,
    to: &dyn Storage,
    wanted: &Described,
    ended: &CancellationToken,
    progress: &Progress,
) -> Result<u64, Broken> {
    let mut stream = open(from, &wanted.key, ended).await?;
    let mut upload = tokio::select! {
        started = to.start_upload(&wanted.key, wanted.size_bytes) => started.map_err(Broken::Target)?,
        () = ended.cancelled() => return Err(Broken::Stopped),
    };
    match pump(&mut stream, upload.as_mut(), wanted, ended, progress).await {
        Ok(size_bytes) => finish(upload, size_bytes, ended).await,
        Err(broken) => {
            if let Ok(Err(error)) = tokio::time::timeout(ABORT_GRACE, upload.abort()).await {
                tracing::warn!(%error, "an unfinished upload was left behind");
            }
            Err(broken)
        }
    }
}

async fn pump(
    stream: &mut Stream,
    upload: &mut dyn Upload,
    wanted: &Described,
    ended: &CancellationToken,
    progress: &Progress,
) -> Result<u64, Broken> {
    let (mut hash, mut size_bytes) = (Sha256::new(), 0);
    let mut piece = next(stream, ended).await?;
    while let Some(bytes) = piece {
        hash.update(&bytes);
        let count = bytes.len() as u64;
        size_bytes += count;
        // What is longer than it may be is never written to its end.
        if wanted.size_bytes.is_some_and(|size| size_bytes > size) {
            break;
        }
        let write = async {
            tokio::select! {
                written = upload.write(bytes) => written.map_err(Broken::Target),
                () = ended.cancelled() => Err(Broken::Stopped),
            }
        };
        let (written, following) = tokio::join!(write, next(stream, ended));
        written?;
        progress.note_more(count, 0);
        piece = following?;
    }
    let passed = Passed {
        size_bytes,
        sha256: hex(&hash.finalize()),
    };
    match wanted.difference(&passed) {
        None => Ok(size_bytes),
        Some(why) => Err(Broken::Differs(why)),
    }
}

async fn finish(
    upload: Box<dyn Upload>,
    size_bytes: u64,
    ended: &CancellationToken,
) -> Result<u64, Broken> {
    tokio::select! {
        finished = upload.finish() => match finished {
            Ok(stored) if stored == size_bytes => Ok(size_bytes),
            Ok(stored) => Err(Broken::Target(Error::failed(format!(
                "it has {stored} bytes, but {size_bytes} were written"
            )))),
            Err(error) => Err(Broken::Target(error)),
        },
        // Dropping the upload leaves nothing visible, or an object without manifest, which is no backup.
        () = ended.cancelled() => Err(Broken::Stopped),
    }
}

type Stream = BoxStream<'static, pgkeep_storage::Result<Bytes>>;

async fn open(
    storage: &dyn Storage,
    key: &str,
    ended: &CancellationToken,
) -> Result<Stream, Broken> {
    tokio::select! {
        stream = storage.stream(key, None) => stream.map_err(Broken::Source),
        () = ended.cancelled() => Err(Broken::Stopped),
    }
}

async fn next(stream: &mut Stream, ended: &CancellationToken) -> Result<Option<Bytes>, Broken> {
    tokio::select! {
        piece = stream.next() => piece.transpose().map_err(Broken::Source),
        () = ended.cancelled() => Err(Broken::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::digest::sha256;
    use pgkeep_storage::{Memory, Verb};

    fn described(bytes: &[u8]) -> Described {
        Described {
            key: "shop/x".to_owned(),
            size_bytes: Some(bytes.len() as u64),
            sha256: sha256(bytes),
        }
    }

    async fn copied(from: &Memory, to: &Memory, wanted: &Described) -> Result<u64, Broken> {
        let (ended, progress) = (CancellationToken::new(), Progress::default());
        copy(from, to, wanted, &ended, &progress).await
    }

    #[tokio::test]
    async fn only_the_bytes_of_the_manifest_become_visible() {
        let whole = vec![7u8; 300_000];
        let mut flipped = whole.clone();
        flipped[200_000] ^= 1;
        let longer = [&whole[..], b"x"].concat();
        for (stored, is_good) in [
            (&whole[..], true),
            (&flipped, false),
            (&whole[..299_999], false),
            (&longer, false),
            (&[], false),
        ] {
            let (from, to) = (Memory::new(), Memory::new());
            from.put("shop/x", Bytes::copy_from_slice(stored))
                .await
                .unwrap();
            let ended = copied(&from, &to, &described(&whole)).await;
            assert_eq!(ended.is_ok(), is_good, "{ended:?}");
            assert!(
                is_good || matches!(ended, Err(Broken::Differs(_))),
                "{ended:?}"
            );
            let there = to.get("shop/x", 1 << 20).await.ok();
            assert_eq!(there.is_some_and(|there| there == whole), is_good);
            assert_eq!(to.unfinished(), 0);
        }
    }

    #[tokio::test]
    async fn whose_fault_it_was_is_told() {
        let whole = vec![7u8; 300_000];
        let (from, to) = (Memory::new(), Memory::new());
        let wanted = described(&whole);
        let missing = copied(&from, &to, &wanted).await;
        assert!(
            matches!(missing, Err(Broken::Source(Error::NotFound(_)))),
            "{missing:?}"
        );
        from.put("shop/x", whole.into()).await.unwrap();
        to.fail(Verb::Write, || Error::failed("disk full"));
        let full = copied(&from, &to, &wanted).await;
        assert!(matches!(full, Err(Broken::Target(_))), "{full:?}");
        to.heal(Verb::Write);
        let (ended, progress) = (CancellationToken::new(), Progress::default());
        ended.cancel();
        let stopped = copy(&from, &to, &wanted, &ended, &progress).await;
        assert!(matches!(stopped, Err(Broken::Stopped)), "{stopped:?}");
        assert!(to.keys().is_empty());
        assert_eq!(to.unfinished(), 0);
        assert_eq!(copied(&from, &to, &wanted).await.unwrap(), 300_000);
    }
}

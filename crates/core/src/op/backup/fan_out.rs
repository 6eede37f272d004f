//! Writes one stream to every storage at once; a storage that fails drops out and the others go on.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::op::stored::{NamedStorage, storage_failure};
use crate::stream::pipeline::Closed;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_storage::{Error, Upload};

/// Pieces that wait for a slow storage. Each has at most about a mebibyte.
const PIECES_WAITING: usize = 2;

/// How long an upload may take to be given up. When the run is stopped this begins with the wish to stop, and the run
/// must end within ten seconds of it.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// Id of the failure of a storage that did nothing wrong: the stream was given up.
pub(super) const GIVEN_UP: &str = "given_up";

enum Message {
    Bytes(Bytes),
    /// The stream is whole. A channel that closes without it means that the stream is not.
    End {
        /// Its length.
        size_bytes: u64,
    },
}

/// A stream on its way to all storages.
pub(super) struct FanOut {
    senders: Vec<Option<mpsc::Sender<Message>>>,
    writers: Vec<Writer>,
    lost: CancellationToken,
}

/// One storage's end of the stream.
enum Writer {
    /// It writes.
    Open(JoinHandle<std::result::Result<(), Failure>>),
    /// It could not begin.
    Failed(Failure),
}

impl FanOut {
    /// Starts an upload and a writer for each storage. They end when the `FanOut` is finished, given up or dropped.
    pub(super) async fn start(
        storages: &[NamedStorage],
        key: &str,
        expected_bytes: Option<u64>,
        copies: usize,
        stop: &CancellationToken,
    ) -> Self {
        let start = |named: NamedStorage| async move {
            let what = format!("cannot store `{key}` in `{}`", named.name);
            let upload = tokio::select! {
                upload = named.storage.start_upload(key, expected_bytes) => upload,
                () = stop.cancelled() => Err(Error::failed("the run was stopped")),
            };
            (what, upload)
        };
        let started = join_all(storages.iter().cloned().map(start)).await;
        let (mut senders, mut writers) = (Vec::new(), Vec::new());
        let lost = CancellationToken::new();
        let open = started.iter().filter(|(_, upload)| upload.is_ok()).count();
        let spare = Arc::new(AtomicUsize::new(open.saturating_sub(copies)));
        for (what, upload) in started {
            let (sender, writer) = match upload {
                Ok(upload) => {
                    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
                    let write = write(upload, receiver, stop.clone());
                    let (spare, lost) = (Arc::clone(&spare), lost.clone());
                    let task = async move {
                        let end = write.await;
                        if end.is_err()
                            && spare
                                .fetch_update(SeqCst, SeqCst, |spare| spare.checked_sub(1))
                                .is_err()
                        {
                            lost.cancel();
                        }
                        end.map_err(|end| end.explain(&what))
                    };
                    (
                        Some(sender),
                        Writer::Open(tokio::spawn(task.in_current_span())),
                    )
                }
                Err(error) => (None, Writer::Failed(storage_failure(&what, &error))),
            };
            senders.push(sender);
            writers.push(writer);
        }
        Self {
            senders,
            writers,
            lost,
        }
    }

    /// Returns how many storages take the stream.
    pub(super) fn open(&self) -> usize {
        self.senders.iter().flatten().count()
    }

    /// Returns a token that is cancelled when too few storages are left.
    pub(super) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Hands a piece to every storage that is still there; blocks until each has room.
    pub(super) fn send(&mut self, bytes: &Bytes) -> std::result::Result<(), Closed> {
        for slot in &mut self.senders {
            let is_gone = slot.as_ref().is_some_and(|sender| {
                sender.blocking_send(Message::Bytes(bytes.clone())).is_err() // the writer has failed and says why
            });
            if is_gone {
                *slot = None;
            }
        }
        if self.senders.iter().all(Option::is_none) {
            Err(Closed)
        } else {
            Ok(())
        }
    }

    /// Ends the stream of `size_bytes` as whole and waits for every storage. `Ok` means that the object is there.
    pub(super) async fn finish(mut self, size_bytes: u64) -> Vec<std::result::Result<(), Failure>> {
        for sender in self.senders.drain(..).flatten() {
            let _ = sender.send(Message::End { size_bytes }).await; // a writer that has failed says why
        }
        self.wait().await
    }

    /// Gives the stream up: every storage forgets it. Returns how each ended.
    pub(super) async fn give_up(mut self) -> Vec<std::result::Result<(), Failure>> {
        self.senders.clear();
        self.wait().await
    }

    async fn wait(self) -> Vec<std::result::Result<(), Failure>> {
        let mut ends = Vec::new();
        for writer in self.writers {
            ends.push(match writer {
                Writer::Failed(failure) => Err(failure),
                // The panic was reported where it happened; its text may hold a secret and stays out of here.
                Writer::Open(task) => task.await.unwrap_or_else(|_| {
                    let message = "a storage's writer panicked";
                    Err(Failure::new(Kind::Unexpected, "writer_panicked", message))
                }),
            });
        }
        ends
    }
}

/// Why a storage does not have the object.
enum NotThere {
    /// The stream was given up, here or by its source.
    GivenUp,
    /// The storage failed.
    Failed(Error),
}

impl NotThere {
    fn explain(self, what: &str) -> Failure {
        match self {
            Self::GivenUp => {
                Failure::new(Kind::Storage, GIVEN_UP, format!("{what}: it was given up"))
            }
            Self::Failed(error) => storage_failure(what, &error),
        }
    }
}

async fn write(
    mut upload: Box<dyn Upload>,
    mut pieces: mpsc::Receiver<Message>,
    stop: CancellationToken,
) -> std::result::Result<(), NotThere> {
    loop {
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            () = stop.cancelled() => None,
        };
        let written = match piece {
            Some(Message::Bytes(bytes)) => tokio::select! {
                written = upload.write(bytes) => written,
                () = stop.cancelled() => return Err(abort(upload).await),
            },
            Some(Message::End { size_bytes }) => return finish(upload, size_bytes, &stop).await,
            None => return Err(abort(upload).await),
        };
        if let Err(error) = written {
            abort(upload).await; // the first error is the one that counts; `sweep` finds what is left
            return Err(NotThere::Failed(error));
        }
    }
}

async fn finish(
    upload: Box<dyn Upload>,
    size_bytes: u64,
    stop: &CancellationToken,
) -> std::result::Result<(), NotThere> {
    tokio::select! {
        finished = upload.finish() => match finished {
            Ok(stored) if stored == size_bytes => Ok(()),
            Ok(stored) => {
                let message = format!("it has {stored} bytes, but {size_bytes} were written");
                Err(NotThere::Failed(Error::failed(message)))
            }
            Err(error) => Err(NotThere::Failed(error)),
        },
        // Dropping the upload leaves nothing visible, or an object without manifest, which is no backup.
        () = stop.cancelled() => Err(NotThere::GivenUp),
    }
}

async fn abort(upload: Box<dyn Upload>) -> NotThere {
    if let Ok(Err(error)) = tokio::time::timeout(ABORT_GRACE, upload.abort()).await {
        tracing::warn!(%error, "an unfinished upload was left behind");
    }
    NotThere::GivenUp
}

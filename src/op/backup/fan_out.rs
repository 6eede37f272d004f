//! Writes one stream to every storage at once; a storage that fails drops out and the others go on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::op::stored::{NamedStorage, storage_failure};
use crate::storage::{Result, Storage, Upload};
use crate::stream::pipeline::Closed;

/// Pieces that wait for a slow storage. Each has at most about a mebibyte.
const PIECES_WAITING: usize = 2;

/// How long an upload may take to be given up when the run is stopped: the run must end within ten seconds.
const ABORT_GRACE: Duration = Duration::from_secs(5);

enum Message {
    Bytes(Bytes),
    /// The stream is whole. A channel that closes without it means that the stream is not.
    End,
}

/// A stream on its way to all storages.
pub(super) struct FanOut {
    senders: Vec<Option<mpsc::Sender<Message>>>,
    writers: Vec<JoinHandle<std::result::Result<(), Failure>>>,
}

impl FanOut {
    /// Starts one writer for each storage. They end when the `FanOut` is finished or dropped.
    pub(super) fn start(
        storages: &[NamedStorage],
        key: &str,
        expected_bytes: Option<u64>,
        stop: &CancellationToken,
    ) -> Self {
        let (mut senders, mut writers) = (Vec::new(), Vec::new());
        for named in storages {
            let (sender, receiver) = mpsc::channel(PIECES_WAITING);
            let what = format!("cannot store `{key}` in `{}`", named.name);
            let write = write(
                Arc::clone(&named.storage),
                key.to_owned(),
                expected_bytes,
                receiver,
                stop.clone(),
            );
            senders.push(Some(sender));
            writers.push(tokio::spawn(async move {
                write.await.map_err(|error| storage_failure(&what, &error))
            }));
        }
        Self { senders, writers }
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

    /// Ends the stream as whole and waits for every storage; returns how each ended.
    pub(super) async fn finish(mut self) -> Vec<std::result::Result<(), Failure>> {
        for sender in self.senders.drain(..).flatten() {
            let _ = sender.send(Message::End).await; // a writer that has failed says why
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
            ends.push(writer.await.unwrap_or_else(|error| {
                Err(Failure::new(
                    crate::failure::Kind::Unexpected,
                    "writer_panicked",
                    error.to_string(),
                ))
            }));
        }
        ends
    }
}

async fn write(
    storage: Arc<dyn Storage>,
    key: String,
    expected_bytes: Option<u64>,
    mut pieces: mpsc::Receiver<Message>,
    stop: CancellationToken,
) -> Result<()> {
    let mut upload = storage.start_upload(&key, expected_bytes).await?;
    loop {
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            () = stop.cancelled() => None,
        };
        let written = match piece {
            Some(Message::Bytes(bytes)) => tokio::select! {
                written = upload.write(bytes) => written,
                () = stop.cancelled() => return abort(upload).await,
            },
            Some(Message::End) => return finish(upload, &stop).await,
            None => return abort(upload).await,
        };
        if let Err(error) = written {
            let _ = abort(upload).await; // the first error is the one that counts; `sweep` finds what is left
            return Err(error);
        }
    }
}

async fn finish(upload: Box<dyn Upload>, stop: &CancellationToken) -> Result<()> {
    tokio::select! {
        finished = upload.finish() => finished.map(drop),
        // Dropping the upload leaves nothing visible, or an object without manifest, which is no backup.
        () = stop.cancelled() => Ok(()),
    }
}

async fn abort(upload: Box<dyn Upload>) -> Result<()> {
    tokio::time::timeout(ABORT_GRACE, upload.abort())
        .await
        .unwrap_or(Ok(()))
}

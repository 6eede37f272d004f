//! The bridge from a storage's stream to threads that may block. Its end is the object's end: a bridge that broke is an error.

use std::io::{self, Read};
use std::thread::available_parallelism;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use pgkeep_model::failure::{Failure, Kind};
use pgkeep_storage::Error;

/// Pieces between a storage and the threads that take them: enough to keep both busy.
const PIECES_IN_FLIGHT: usize = 8;

/// The bytes of an object as a storage hands them out.
pub(crate) type Stream = BoxStream<'static, pgkeep_storage::Result<Bytes>>;

/// What comes through the bridge. The end is told, so that a broken bridge is never taken for one.
enum Item {
    Piece(pgkeep_storage::Result<Bytes>),
    End,
}

/// Pieces of an object, for a thread.
pub(crate) struct Pieces {
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
pub(crate) async fn with_pieces<T: Send + 'static>(
    mut stream: Stream,
    work: impl FnOnce(Pieces) -> T + Send + 'static,
) -> Result<T, Failure> {
    let (sender, pieces) = bridge();
    // Awaited below; it ends with its pieces, or when this future and so `sender` is dropped.
    let thread = tokio::task::spawn_blocking(move || work(pieces));
    carry(&mut stream, &sender).await;
    thread.await.map_err(|error| {
        let message = format!("a reading thread ended: {error}");
        Failure::new(Kind::Unexpected, "thread_ended", message)
    })
}

/// Starts a bridge for a thread that is there already. It ends with the stream, or when the reader is dropped.
pub(crate) fn reader(mut stream: Stream) -> ObjectReader {
    let (sender, pieces) = bridge();
    // It ends with the stream, or with the reader.
    tokio::spawn(
        async move {
            tokio::select! {
                () = carry(&mut stream, &sender) => {}
                () = sender.closed() => {}
            }
        }
        .in_current_span(),
    );
    ObjectReader {
        pieces,
        current: Bytes::new(),
    }
}

fn bridge() -> (mpsc::Sender<Item>, Pieces) {
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let pieces = Pieces {
        receiver,
        is_over: false,
    };
    (sender, pieces)
}

/// Sends all of a stream and then its end. A thread that has left needs no more.
async fn carry(stream: &mut Stream, sender: &mpsc::Sender<Item>) {
    while let Some(piece) = stream.next().await {
        if sender.send(Item::Piece(piece)).await.is_err() {
            return;
        }
    }
    let _ = sender.send(Item::End).await; // a thread that has left needs no end
}

/// Reads a stored object on a thread that may block. Its end is the object's end.
pub(crate) struct ObjectReader {
    pieces: Pieces,
    current: Bytes,
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.next() {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => return Err(io::Error::other(error.to_string())),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Returns how many threads decompress.
pub(crate) fn threads() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

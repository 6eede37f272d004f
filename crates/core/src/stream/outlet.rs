//! The end of the way out: encryption where it is asked for, the hash over what is stored, and whoever takes the bytes.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::progress::{Closed, Progress};
use crate::encryption::{Recipients, Sealed};
use pgkeep_model::encryption::NONCE_BYTES;
use pgkeep_model::words::hex;

/// Encrypted bytes come 64 KiB at a time; so many are handed over at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Why bytes did not go out.
pub(super) enum NotOut {
    /// Whoever takes them has left.
    Closed,
    /// Encryption failed.
    Encrypt(io::Error),
}

/// Takes the bytes of a file in order. Without [`Outlet::finish`] the file is not whole.
pub(super) enum Outlet<'a> {
    Plain(Taker<'a>),
    Sealed {
        writer: Box<Sealed<Taker<'a>>>,
        header_bytes: u64,
    },
}

/// What went out.
pub(super) struct Ended {
    /// Length of the header of encryption.
    pub header_bytes: Option<u64>,
    pub stored_bytes: u64,
    /// SHA-256 in hex of what went out.
    pub sha256: String,
}

impl<'a> Outlet<'a> {
    /// Begins a file.
    pub(super) fn open(
        recipients: Option<&Recipients>,
        progress: &'a Progress,
        hand_over: &'a mut dyn FnMut(Bytes) -> Result<(), Closed>,
    ) -> Result<Self, NotOut> {
        let written_bytes = Rc::new(Cell::new(0));
        let taker = Taker {
            hash: Sha256::new(),
            written_bytes: Rc::clone(&written_bytes),
            gathered: BytesMut::new(),
            progress,
            hand_over,
        };
        Ok(match recipients {
            None => Self::Plain(taker),
            Some(recipients) => Self::Sealed {
                writer: Box::new(recipients.seal(taker).map_err(failed)?),
                // Header and nonce are written at once.
                header_bytes: written_bytes.get() - NONCE_BYTES,
            },
        })
    }

    /// Takes the next bytes.
    pub(super) fn pass(&mut self, bytes: Bytes) -> Result<(), NotOut> {
        match self {
            Self::Plain(taker) => taker.take(bytes).map_err(|Closed| NotOut::Closed),
            Self::Sealed { writer, .. } => writer.write_all(&bytes).map_err(failed),
        }
    }

    /// Ends the file.
    pub(super) fn finish(self) -> Result<Ended, NotOut> {
        let (mut taker, header_bytes) = match self {
            Self::Plain(taker) => (taker, None),
            Self::Sealed {
                writer,
                header_bytes,
            } => (writer.finish().map_err(failed)?, Some(header_bytes)),
        };
        taker.hand_gathered().map_err(|Closed| NotOut::Closed)?;
        Ok(Ended {
            header_bytes,
            stored_bytes: taker.written_bytes.get(),
            sha256: hex(&taker.hash.finalize()),
        })
    }
}

/// Whoever takes the bytes may have left, which is no fault of encryption.
fn failed(error: io::Error) -> NotOut {
    if error.get_ref().is_some_and(|inner| inner.is::<Closed>()) {
        NotOut::Closed
    } else {
        NotOut::Encrypt(error)
    }
}

/// Hashes, counts and hands over.
pub(super) struct Taker<'a> {
    hash: Sha256,
    /// Shared with whoever wants to know it while this is deep inside of a writer.
    written_bytes: Rc<Cell<u64>>,
    /// What was written and not handed over.
    gathered: BytesMut,
    progress: &'a Progress,
    hand_over: &'a mut dyn FnMut(Bytes) -> Result<(), Closed>,
}

impl Taker<'_> {
    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        let written = self.written_bytes.get() + bytes.len() as u64;
        self.written_bytes.set(written);
        self.progress.note_stored(written);
    }

    fn take(&mut self, bytes: Bytes) -> Result<(), Closed> {
        self.count(&bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        (self.hand_over)(bytes)
    }

    fn hand_gathered(&mut self) -> Result<(), Closed> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        (self.hand_over)(gathered.freeze())
    }
}

impl Write for Taker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.count(bytes);
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(PIECE_BYTES + 64 * 1024);
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES {
            self.hand_gathered().map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    /// What was gathered goes out with the rest: nobody flushes in the middle of a file.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

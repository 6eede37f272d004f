//! The beginning of the way in: the bytes of a stored object, hashed and counted as they are stored, and decrypted where
//! they are encrypted.

use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};

use super::progress::Progress;
use crate::encryption::{CannotOpen, Identities, Opened, PartReader, begin_at};
use pgkeep_model::words::hex;

/// Size of the pieces that are decrypted at once.
const PIECE_BYTES: usize = 256 * 1024;

/// How stored bytes become the file that was encrypted.
#[derive(Clone, Debug)]
pub enum Access {
    /// They are that file.
    Plain,
    /// They are all of an age file.
    Whole(Arc<Identities>),
    /// They are some chunks of one.
    Part {
        /// What opens it.
        identities: Arc<Identities>,
        /// Its header and nonce.
        front: Bytes,
        /// Where in the object the bytes begin.
        start: u64,
        /// Which part of the file is wanted.
        wanted: Range<u64>,
    },
}

/// Hands pieces out in order. What cannot be decrypted ends them; [`Inlet::damage`] then says why.
pub(super) struct Inlet<'a, P, E> {
    raw: Shared<'a, P, E>,
    state: State<'a, P, E>,
    damage: Option<String>,
}

enum State<'a, P, E> {
    Plain,
    Closed(Access),
    Whole(Box<Opened<BufReader<Shared<'a, P, E>>>>),
    Part(Box<Opened<PartReader<Shared<'a, P, E>>>>, u64),
    Over,
}

/// The bytes as they are stored.
struct Raw<'a, P, E> {
    pieces: P,
    piece: Bytes,
    hash: Sha256,
    stored_bytes: u64,
    progress: &'a Progress,
    /// Why the pieces ended; a reader's own error says only that they did.
    error: Option<E>,
}

/// The same, as a reader that others hold too.
struct Shared<'a, P, E>(Arc<Mutex<Raw<'a, P, E>>>);

impl<'a, E, P: Iterator<Item = Result<Bytes, E>>> Inlet<'a, P, E> {
    pub(super) fn new(pieces: P, access: Access, progress: &'a Progress) -> Self {
        let raw = Raw {
            pieces,
            piece: Bytes::new(),
            hash: Sha256::new(),
            stored_bytes: 0,
            progress,
            error: None,
        };
        Self {
            raw: Shared(Arc::new(Mutex::new(raw))),
            state: match access {
                Access::Plain => State::Plain,
                access => State::Closed(access),
            },
            damage: None,
        }
    }

    /// Returns the next piece; none at the end, or where it cannot be decrypted.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, E> {
        if let State::Closed(access) = &self.state {
            let opened = self.open(access.clone());
            self.state = match opened {
                Ok(state) => state,
                Err(why) => return self.broken(why),
            };
        }
        let read = match &mut self.state {
            State::Plain => return self.raw.with(Raw::next),
            State::Whole(opened) => read_piece(opened, u64::MAX),
            State::Part(opened, left) => read_piece(opened, *left).inspect(|piece| {
                *left -= piece.len() as u64;
            }),
            State::Closed(_) | State::Over => return Ok(None),
        };
        match read {
            Ok(piece) if piece.is_empty() => {
                self.state = State::Over;
                Ok(None)
            }
            Ok(piece) => Ok(Some(piece)),
            Err(error) => self.broken(format!("it cannot be decrypted: {error}")),
        }
    }

    /// Returns why decrypting ended before its end.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Returns how many stored bytes came.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.raw.with(|raw| raw.stored_bytes)
    }

    /// Reads on to the end of the object, for its hash, while `is_wanted`.
    pub(super) fn drain(&mut self, is_wanted: impl Fn() -> bool) -> Result<(), E> {
        while is_wanted() && self.raw.with(Raw::next)?.is_some() {}
        Ok(())
    }

    /// Returns length and SHA-256 in hex of what came.
    pub(super) fn finish(self) -> (u64, String) {
        let hash = self.raw.with(|raw| std::mem::take(&mut raw.hash));
        (self.stored_bytes(), hex(&hash.finalize()))
    }

    fn open(&self, access: Access) -> Result<State<'a, P, E>, String> {
        let raw = Shared(Arc::clone(&self.raw.0));
        match access {
            Access::Plain => Ok(State::Plain),
            Access::Whole(identities) => {
                let buffered = BufReader::with_capacity(PIECE_BYTES, raw);
                let opened = identities.open_buffered(buffered);
                opened
                    .map(|opened| State::Whole(Box::new(opened)))
                    .map_err(in_words)
            }
            Access::Part {
                identities,
                front,
                start,
                wanted,
            } => {
                let part = PartReader::new(front, start, raw);
                let mut opened = identities.open(part).map_err(in_words)?;
                begin_at(&mut opened, wanted.start)
                    .map_err(|error| format!("it cannot be decrypted: {error}"))?;
                Ok(State::Part(Box::new(opened), wanted.end - wanted.start))
            }
        }
    }

    /// Ends the pieces: by the storage's own error where there is one, by damage otherwise.
    fn broken(&mut self, why: String) -> Result<Option<Bytes>, E> {
        self.state = State::Over;
        if let Some(error) = self.raw.with(|raw| raw.error.take()) {
            return Err(error);
        }
        self.damage = Some(why);
        Ok(None)
    }
}

/// Whoever reads has seen before that the keys are the right ones.
fn in_words(error: CannotOpen) -> String {
    match error {
        CannotOpen::WrongIdentity => {
            "its header was changed, or is that of another file".to_owned()
        }
        error => error.to_string(),
    }
}

/// Reads until a piece is full or `left` is reached; empty at the end.
fn read_piece(opened: &mut impl Read, left: u64) -> io::Result<Bytes> {
    let room = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
    let mut piece = vec![0; room];
    let mut count = 0;
    while count < room {
        match opened.read(&mut piece[count..])? {
            0 => break,
            more => count += more,
        }
    }
    piece.truncate(count);
    Ok(piece.into())
}

impl<E, P: Iterator<Item = Result<Bytes, E>>> Raw<'_, P, E> {
    /// What an earlier reader left of a piece, or the next one.
    fn next(&mut self) -> Result<Option<Bytes>, E> {
        if !self.piece.is_empty() {
            return Ok(Some(std::mem::take(&mut self.piece)));
        }
        let Some(piece) = self.pieces.next() else {
            return Ok(None);
        };
        let piece = piece?;
        self.hash.update(&piece);
        self.stored_bytes += piece.len() as u64;
        self.progress.note_stored(self.stored_bytes);
        Ok(Some(piece))
    }
}

impl<'a, P, E> Shared<'a, P, E> {
    fn with<T>(&self, work: impl FnOnce(&mut Raw<'a, P, E>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<E, P: Iterator<Item = Result<Bytes, E>>> Read for Shared<'_, P, E> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|raw| {
            while raw.piece.is_empty() {
                match raw.next() {
                    Ok(Some(piece)) => raw.piece = piece,
                    Ok(None) => return Ok(0),
                    Err(error) => {
                        raw.error = Some(error);
                        return Err(io::Error::other("the storage failed"));
                    }
                }
            }
            let count = raw.piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&raw.piece[..count]);
            raw.piece.advance(count);
            Ok(count)
        })
    }
}

//! Reads a stored dump back: hashes every byte, decrypts it, decompresses its chunks on all cores, and hands the text over in order.
//!
//! What contradicts the chunk index is reported with its place, never skipped; the rest is still hashed, so that
//! anyone who asks knows what the object is now. Memory is bounded by the number of chunks under way.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::digest;
use bytes::{Buf, Bytes};
use pgkeep_model::words::{bytes as bytes_in_words, hex, number};
use sha2::{Digest, Sha256};

use super::compress::{Codec, Frame};
use super::decompress::Decoder;
use super::inlet::{Access, Inlet};
use super::pipeline::{CHUNKS_WAITING, Closed, MAX_THREADS, Progress};
use super::read::{ReadError, read_dump};
use crate::encryption::Identities;
use pgkeep_model::chunks::ChunkIndex;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Length of what was read.
    pub stored_bytes: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// Length of the text that was handed over.
    pub raw_bytes: u64,
    /// The first thing that contradicts the index or the format; none when all is as it must be.
    pub fault: Option<Fault>,
    /// Whether the consumer left before the end.
    pub is_left: bool,
}

/// Where stored bytes are not what they must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, in words.
    pub message: String,
    /// Offset in the stored object of the chunk, where it is known.
    pub stored_offset: Option<u64>,
    /// Offset in the dump of the chunk's first byte.
    pub dump_offset: u64,
    /// Id of the failure, where it is the key that is missing or wrong.
    pub locked: Option<&'static str>,
}

impl Fault {
    /// Says what is wrong, and where.
    pub(crate) fn in_words(&self) -> String {
        let message = &self.message;
        match self.stored_offset {
            Some(offset) => format!(
                "{message} (from byte {} of the stored file on)",
                number(offset)
            ),
            None => message.clone(),
        }
    }
}

/// Which chunks the bytes are made of.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    codec: Codec,
    index: &'a ChunkIndex,
    chunks: Range<usize>,
    /// Whether header and trailer stand around the chunks.
    is_whole: bool,
}

impl<'a> Layout<'a> {
    /// Describes the whole object.
    pub fn whole(codec: Codec, index: &'a ChunkIndex) -> Self {
        Self {
            codec,
            index,
            chunks: 0..index.len(),
            is_whole: true,
        }
    }

    /// Describes only these chunks, which must be in the index.
    pub fn part(codec: Codec, index: &'a ChunkIndex, chunks: Range<usize>) -> Self {
        Self {
            codec,
            index,
            chunks,
            is_whole: false,
        }
    }
}

/// Reads chunks, decrypted by `access`, on `threads` decompressing threads (at most eight), and hands their text to `take` in order.
///
/// An error of `pieces` ends the reading; nothing else does, but a consumer that leaves. It blocks.
pub fn read_chunks<E: Send>(
    pieces: impl Iterator<Item = Result<Bytes, E>> + Send,
    access: Access,
    layout: &Layout<'_>,
    threads: usize,
    progress: &Progress,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Closed>,
) -> Result<Outcome, E> {
    let threads = threads.clamp(1, MAX_THREADS);
    let flags = &Flags::default();
    let (work, jobs) = sync_channel::<Job<'_>>(CHUNKS_WAITING);
    let (in_order, ordered) = sync_channel::<Ordered<E>>(threads + CHUNKS_WAITING);
    let (give_back, empty) = sync_channel::<Buffers>(threads + 2 * CHUNKS_WAITING);
    let jobs = Mutex::new(jobs);
    // The scope waits for every thread: the splitter ends with its pieces or when the consumer left, the workers end
    // when the splitter drops `work`.
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| decode_jobs(layout.codec, &jobs));
        }
        let splitter = Splitter {
            layout,
            inlet: Inlet::new(pieces, access, progress),
            piece: Bytes::new(),
            work,
            in_order,
            empty,
            flags,
        };
        scope.spawn(move || splitter.run());
        let collector = Collector {
            layout,
            give_back,
            flags,
            take,
            frame: Frame::new(layout.codec),
            dump_offset: layout.index.start_of(layout.chunks.start).1,
            fault: None,
            is_left: false,
        };
        collector.run(ordered)
    })
}

/// What the collector tells the splitter.
#[derive(Default)]
struct Flags {
    /// Something contradicts: there is no text to be had any more, only a hash.
    is_broken: AtomicBool,
    /// The consumer left.
    is_left: AtomicBool,
}

impl Flags {
    fn is_set(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }
}

/// Room of one chunk, used again and again.
#[derive(Default)]
struct Buffers {
    stored: Vec<u8>,
    raw: Vec<u8>,
}

struct Job<'a> {
    buffers: Buffers,
    raw_bytes: usize,
    /// SHA-256 in hex that its text must have, where that is known.
    sha256: Option<&'a str>,
    done: SyncSender<Decoded>,
}

struct Decoded {
    buffers: Buffers,
    raw_bytes: usize,
    result: Result<Option<crc32fast::Hasher>, String>,
}

/// What the collector gets, in the order of the dump.
enum Ordered<E> {
    Chunk {
        stored_offset: u64,
        decoded: Receiver<Decoded>,
    },
    /// The stored bytes themselves are not as the index tells.
    Broken(Fault),
    /// What stands behind the last chunk.
    Trailer(Vec<u8>),
    End(Result<(u64, String), E>),
}

fn decode_jobs(codec: Codec, jobs: &Mutex<Receiver<Job<'_>>>) {
    let mut decoder = Decoder::new(codec);
    loop {
        let job = match jobs.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return, // another worker panicked; the collector sees its chunk missing
        };
        let Ok(Job {
            mut buffers,
            raw_bytes,
            sha256,
            done,
        }) = job
        else {
            return;
        };
        if buffers.raw.len() < raw_bytes {
            buffers.raw.resize(raw_bytes, 0);
        }
        let decoded = match &mut decoder {
            Ok(decoder) => decoder.decode(&buffers.stored, &mut buffers.raw[..raw_bytes]),
            Err(error) => Err(error.clone()),
        };
        let result = decoded.and_then(|crc| {
            let is_it = |sum| digest::sha256(&buffers.raw[..raw_bytes]) == sum;
            if sha256.is_none_or(is_it) {
                Ok(crc)
            } else {
                Err("its text differs from what was dumped".to_owned())
            }
        });
        // The collector listens until the end; should it be gone, there is nobody to tell.
        let _ = done.send(Decoded {
            buffers,
            raw_bytes,
            result,
        });
    }
}

/// Hashes the object and cuts it into chunks.
struct Splitter<'a, P, E> {
    layout: &'a Layout<'a>,
    inlet: Inlet<'a, P, E>,
    /// What is left of the piece under way.
    piece: Bytes,
    work: SyncSender<Job<'a>>,
    in_order: SyncSender<Ordered<E>>,
    empty: Receiver<Buffers>,
    flags: &'a Flags,
}

impl<E, P: Iterator<Item = Result<Bytes, E>>> Splitter<'_, P, E> {
    fn run(mut self) {
        let read = self.read_all();
        let end = read.map(|()| self.inlet.finish());
        let _ = self.in_order.send(Ordered::End(end)); // a collector that is gone has told why
    }

    fn read_all(&mut self) -> Result<(), E> {
        if let Some(fault) = self.read_layout()? {
            self.send(Ordered::Broken(fault));
        }
        let is_left = &self.flags.is_left;
        self.inlet.drain(|| !Flags::is_set(is_left))
    }

    /// Reads what the layout tells, and returns the first place where there is something else.
    fn read_layout(&mut self) -> Result<Option<Fault>, E> {
        let Layout {
            index,
            chunks,
            is_whole,
            codec,
        } = self.layout.clone();
        let mut bytes = Vec::new();
        let (mut stored_offset, mut dump_offset) = index.start_of(chunks.start);
        if is_whole {
            let header = Frame::new(codec).header();
            self.fill_to(&mut bytes, index.header_bytes.min(64) as usize)?;
            if bytes != header {
                let damage = self.inlet.damage();
                let why = damage.unwrap_or("it does not begin as pgkeep's files do");
                return Ok(Some(fault(why, 0, 0)));
            }
        }
        for chunk in chunks {
            let (raw, stored) = (index.raw[chunk], index.stored[chunk]);
            let mut buffers = self.empty.try_recv().unwrap_or_default();
            buffers.stored.clear();
            if !self.fill_to(&mut buffers.stored, stored as usize)? {
                let message = self.inlet.damage().map_or_else(
                    || {
                        let stored = bytes_in_words(self.inlet.stored_bytes());
                        format!("it ends too early, after {stored}")
                    },
                    str::to_owned,
                );
                return Ok(Some(fault(message, stored_offset, dump_offset)));
            }
            if !self.dispatch(buffers, chunk, stored_offset) {
                return Ok(None);
            }
            stored_offset += u64::from(stored);
            dump_offset += u64::from(raw);
        }
        // One byte more than there may be shows that there is more.
        let expected = if is_whole { codec.trailer_bytes() } else { 0 };
        bytes.clear();
        self.fill_to(&mut bytes, expected as usize + 1)?;
        if let Some(damage) = self.inlet.damage() {
            return Ok(Some(fault(damage, stored_offset, dump_offset)));
        }
        self.send(Ordered::Trailer(bytes));
        Ok(None)
    }

    /// Takes bytes until there are `count`; false when the object ends before.
    fn fill_to(&mut self, bytes: &mut Vec<u8>, count: usize) -> Result<bool, E> {
        while bytes.len() < count {
            let left = count - bytes.len();
            if !self.fill(bytes, left)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes at most `limit` bytes more; false at the end of the object.
    fn fill(&mut self, bytes: &mut Vec<u8>, limit: usize) -> Result<bool, E> {
        while self.piece.is_empty() {
            let Some(piece) = self.inlet.next()? else {
                return Ok(false);
            };
            self.piece = piece;
        }
        let count = self.piece.len().min(limit);
        bytes.extend_from_slice(&self.piece[..count]);
        self.piece.advance(count);
        Ok(true)
    }

    /// Gives a chunk to the workers; false when nobody wants it any more.
    fn dispatch(&self, buffers: Buffers, chunk: usize, stored_offset: u64) -> bool {
        if Flags::is_set(&self.flags.is_broken) || Flags::is_set(&self.flags.is_left) {
            return false;
        }
        let (done, decoded) = sync_channel(1);
        let index = self.layout.index;
        let job = Job {
            buffers,
            raw_bytes: index.raw[chunk] as usize,
            sha256: index.sha256_of(chunk),
            done,
        };
        self.send(Ordered::Chunk {
            stored_offset,
            decoded,
        }) && self.work.send(job).is_ok()
    }

    fn send(&self, item: Ordered<E>) -> bool {
        self.in_order.send(item).is_ok()
    }
}

fn fault(message: impl Into<String>, stored_offset: u64, dump_offset: u64) -> Fault {
    Fault {
        message: message.into(),
        stored_offset: Some(stored_offset),
        dump_offset,
        locked: None,
    }
}

/// Puts chunks back in order and hands them over.
struct Collector<'a> {
    layout: &'a Layout<'a>,
    give_back: SyncSender<Buffers>,
    flags: &'a Flags,
    take: &'a mut dyn FnMut(&[u8]) -> Result<(), Closed>,
    frame: Frame,
    /// Offset in the dump of what comes next.
    dump_offset: u64,
    fault: Option<Fault>,
    is_left: bool,
}

impl Collector<'_> {
    fn run<E>(mut self, ordered: Receiver<Ordered<E>>) -> Result<Outcome, E> {
        let (end_offset, start) = (
            self.layout.index.start_of(self.layout.chunks.end).0,
            self.dump_offset,
        );
        let mut end = (0, String::new());
        for item in ordered {
            match item {
                // The splitter hashes on; the text behind a fault is of no use.
                Ordered::Chunk { .. } | Ordered::Trailer(_)
                    if self.fault.is_some() || self.is_left => {}
                Ordered::Chunk {
                    stored_offset,
                    decoded,
                } => self.hand_over(decoded.recv().ok(), stored_offset),
                Ordered::Trailer(found) => self.check_trailer(&found, end_offset),
                Ordered::Broken(fault) => self.note(fault),
                Ordered::End(result) => end = result?,
            }
        }
        let (stored_bytes, sha256) = end;
        Ok(Outcome {
            stored_bytes,
            sha256,
            raw_bytes: self.dump_offset - start,
            fault: self.fault,
            is_left: self.is_left,
        })
    }

    fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.flags.is_broken.store(true, Ordering::Relaxed);
    }

    fn hand_over(&mut self, decoded: Option<Decoded>, stored_offset: u64) {
        let at = self.dump_offset;
        let Some(decoded) = decoded else {
            return self.note(fault("a decompressing thread ended", stored_offset, at));
        };
        match decoded.result {
            Ok(crc) => {
                self.frame.add_chunk(decoded.raw_bytes, crc.as_ref());
                self.dump_offset += decoded.raw_bytes as u64;
                self.is_left = (self.take)(&decoded.buffers.raw[..decoded.raw_bytes]).is_err();
                self.flags.is_left.store(self.is_left, Ordering::Relaxed);
                let _ = self.give_back.try_send(decoded.buffers); // a full return path only costs an allocation
            }
            Err(why) => {
                let message = format!("a chunk is damaged: {why}");
                self.note(fault(message, stored_offset, at));
            }
        }
    }

    fn check_trailer(&mut self, found: &[u8], end_offset: u64) {
        let frame = std::mem::replace(&mut self.frame, Frame::new(self.layout.codec));
        let expected = if self.layout.is_whole {
            frame.trailer()
        } else {
            Bytes::new()
        };
        let message = match found.len().cmp(&expected.len()) {
            _ if found == expected => return,
            std::cmp::Ordering::Greater => "bytes follow after its end",
            std::cmp::Ordering::Less => "its last bytes are missing",
            std::cmp::Ordering::Equal => "the checksum at its end does not match its content",
        };
        self.note(fault(message, end_offset, self.dump_offset));
    }
}

/// Reads a whole object without an index, on one decompressing thread; its text may have `limit` bytes.
///
/// It recognises gzip and zstd by content, and age, which `identities` open. An error of `pieces` ends the reading. It blocks.
pub fn read_serially<E: Send>(
    pieces: impl Iterator<Item = Result<Bytes, E>> + Send,
    identities: &Identities,
    limit: u64,
    progress: &Progress,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Closed>,
) -> Result<Outcome, E> {
    let flags = Flags::default();
    let mut source = Source {
        pieces,
        piece: Bytes::new(),
        hash: Sha256::new(),
        stored_bytes: 0,
        error: None,
        flags: &flags,
        progress,
    };
    let mut raw_bytes = 0;
    let read = read_dump(&mut source, identities, &mut |piece| {
        if Flags::is_set(&flags.is_broken) || Flags::is_set(&flags.is_left) {
            return;
        }
        if raw_bytes + piece.len() as u64 > limit {
            flags.is_broken.store(true, Ordering::Relaxed);
            return;
        }
        raw_bytes += piece.len() as u64;
        flags.is_left.store(take(piece).is_err(), Ordering::Relaxed);
    });
    let is_left = Flags::is_set(&flags.is_left);
    let is_too_long = flags.is_broken.swap(false, Ordering::Relaxed);
    let drained = if is_left {
        Ok(0)
    } else {
        io::copy(&mut source, &mut io::sink())
    };
    if let Some(error) = source.error {
        return Err(error);
    }
    let locked = match &read {
        Err(ReadError::Locked(error)) => error.id(),
        _ => None,
    };
    let message = match read {
        _ if is_left => None,
        _ if is_too_long => Some(format!("it holds more than {limit} bytes")),
        Err(ReadError::Foreign(foreign)) => Some(foreign.description().to_owned()),
        Err(error) => Some(error.to_string()),
        Ok(_) => drained.err().map(|error| error.to_string()),
    };
    Ok(Outcome {
        stored_bytes: source.stored_bytes,
        sha256: hex(&source.hash.finalize()),
        raw_bytes,
        fault: message.map(|message| Fault {
            message,
            stored_offset: None,
            dump_offset: raw_bytes,
            locked,
        }),
        is_left,
    })
}

/// Reads a whole object, and hands what was encrypted to `take`, still compressed. It blocks.
///
/// Only the hash tells whether the last pieces are good: `take` keeps them back until then.
pub fn read_file<E>(
    pieces: impl Iterator<Item = Result<Bytes, E>>,
    access: Access,
    progress: &Progress,
    take: &mut dyn FnMut(Bytes) -> Result<(), Closed>,
) -> Result<Outcome, E> {
    let mut inlet = Inlet::new(pieces, access, progress);
    let (mut raw_bytes, mut is_left) = (0, false);
    while let Some(piece) = inlet.next()? {
        raw_bytes += piece.len() as u64;
        is_left = take(piece).is_err();
        if is_left {
            break;
        }
    }
    inlet.drain(|| !is_left)?;
    let fault = inlet.damage().map(|why| fault(why, 0, raw_bytes));
    let (stored_bytes, sha256) = inlet.finish();
    Ok(Outcome {
        stored_bytes,
        sha256,
        raw_bytes,
        fault,
        is_left,
    })
}

/// Pieces as a reader that hashes them.
struct Source<'a, P, E> {
    pieces: P,
    piece: Bytes,
    hash: Sha256,
    stored_bytes: u64,
    /// Why the pieces ended; the reader's own error says only that they did.
    error: Option<E>,
    flags: &'a Flags,
    progress: &'a Progress,
}

impl<E, P: Iterator<Item = Result<Bytes, E>>> Read for Source<'_, P, E> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Flags::is_set(&self.flags.is_broken) || Flags::is_set(&self.flags.is_left) {
            return Err(io::Error::other("nobody takes the dump any more"));
        }
        while self.piece.is_empty() {
            match self.pieces.next() {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    self.error = Some(error);
                    return Err(io::Error::other("the storage failed"));
                }
            }
            self.hash.update(&self.piece);
            self.stored_bytes += self.piece.len() as u64;
            self.progress.note_stored(self.stored_bytes);
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece[..count]);
        self.piece.advance(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;

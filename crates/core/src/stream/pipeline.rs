//! Drives a dump from its source to its last consumer: read, scan, cut, compress on all cores, encrypt, hash, hand over.
//!
//! The consumer hears of the end only after the source was found good. Memory is bounded by the number of chunks
//! under way; a consumer that is slow slows the source down.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use super::digest::sha256;
use super::outlet::{NotOut, Outlet};
use crate::encryption::Recipients;
use bytes::Bytes;
use thiserror::Error;

use super::compress::{Codec, Encoded, Encoder, Frame};
pub use super::progress::{Closed, Progress};
use pgkeep_model::chunks::ChunkIndex;
use pgkeep_model::encryption::EXTENSION;
use pgkeep_model::scan::{Scan, Scanner};

/// Uncompressed size at which a chunk is cut: small enough that one table's rows can be read without much beside
/// them, large enough that losing the window at each chunk costs less than one percent.
const CHUNK_BYTES: usize = 1024 * 1024;

/// How much of a statement is held back so that a chunk can begin with it. A COPY with the 1,600 columns that a table
/// can have fits; a longer statement is never a COPY and is cut anywhere.
const HELD_BYTES: usize = 256 * 1024;

/// Room of a chunk buffer.
const BUFFER_BYTES: usize = CHUNK_BYTES + HELD_BYTES;

/// Most compressing threads. `pg_dump` gives 200 to 300 MB/s, which six keep up with at every usual level; each has
/// buffers of its own, and memory must not grow with the machine.
pub(super) const MAX_THREADS: usize = 8;

/// Chunks that wait for a thread, so that none is idle while `pg_dump` catches its breath.
pub(super) const CHUNKS_WAITING: usize = 4;

/// What passed through.
#[derive(Debug)]
pub struct Passed {
    /// What the scanner found.
    pub scan: Scan,
    /// Where each chunk lies, in the file that was encrypted where it was.
    pub chunks: ChunkIndex,
    /// Length of the header that encryption put in front; none where nothing was encrypted.
    pub header_bytes: Option<u64>,
    /// Bytes handed over.
    pub stored_bytes: u64,
    /// SHA-256 of the bytes handed over, in hex.
    pub sha256: String,
}

/// Why a dump did not pass.
#[derive(Debug, Error)]
pub enum PipelineError<E> {
    /// The source failed or was found bad at its end.
    #[error("the source was found bad")]
    Refused(E),
    /// Reading the source failed.
    #[error("cannot read the dump: {0}")]
    Read(io::Error),
    /// A codec failed.
    #[error("cannot compress the dump: {0}")]
    Compress(io::Error),
    /// Encryption failed.
    #[error("cannot encrypt the dump: {0}")]
    Encrypt(io::Error),
    /// Nobody takes the bytes any more.
    #[error("nobody takes the dump any more")]
    Closed,
}

impl<E> From<NotOut> for PipelineError<E> {
    fn from(why: NotOut) -> Self {
        match why {
            NotOut::Closed => Self::Closed,
            NotOut::Encrypt(error) => Self::Encrypt(error),
        }
    }
}

/// What a dump becomes on its way.
#[derive(Clone, Debug)]
pub struct Form {
    /// How it is compressed.
    pub codec: Codec,
    /// Who can open it; none where it is not encrypted.
    pub recipients: Option<Arc<Recipients>>,
}

impl Form {
    /// Returns what is added to `.sql` in keys.
    pub fn extension(&self) -> String {
        let sealed = self.recipients.as_ref().map_or("", |_| EXTENSION);
        format!("{}{sealed}", self.codec.extension())
    }
}

/// Passes `source` through scanner, codec, encryption and hash to `hand_over`, on `threads` compressing threads (at most
/// eight).
///
/// When `source` ends, `judge` sees what was found and decides; only when it agrees are the last bytes handed over
/// and the end reported. It blocks: call it on a thread that may.
pub fn run<E: Send>(
    source: impl Read + Send,
    form: &Form,
    threads: usize,
    progress: &Progress,
    judge: impl FnOnce(&Scan) -> Result<(), E> + Send,
    hand_over: &mut dyn FnMut(Bytes) -> Result<(), Closed>,
) -> Result<Passed, PipelineError<E>> {
    let codec = form.codec;
    let threads = threads.clamp(1, MAX_THREADS);
    let (work, jobs) = sync_channel::<Job>(CHUNKS_WAITING);
    let (in_order, ordered) = sync_channel::<Ordered<E>>(threads + CHUNKS_WAITING);
    let (give_back, empty) = sync_channel::<Vec<u8>>(threads + 2 * CHUNKS_WAITING);
    let jobs = Mutex::new(jobs);
    // The scope waits for every thread: the reader ends with its source or when `ordered` is dropped, the workers end
    // when the reader drops `work`.
    thread::scope(|scope| {
        for _ in 0..threads {
            let give_back = give_back.clone();
            scope.spawn(|| compress_jobs(codec, &jobs, give_back));
        }
        let cutter = Cutter {
            work,
            in_order,
            empty,
            buffer: vec![0; BUFFER_BYTES],
            unsent: 0..0,
            start: 0,
            is_inside: false,
        };
        scope.spawn(move || cutter.run(source, progress, judge));
        collect(form, ordered, progress, hand_over)
    })
}

/// A chunk on its way to a compressing thread.
struct Job {
    raw: Vec<u8>,
    range: Range<usize>,
    has_rows: bool,
    done: SyncSender<io::Result<Compressed>>,
}

/// A chunk that was compressed.
struct Compressed {
    encoded: Encoded,
    /// SHA-256 in hex of its text, unless it holds rows, which have digests.
    sha256: Option<String>,
}

/// What the collector gets, in the order of the dump.
enum Ordered<E> {
    Chunk(Receiver<io::Result<Compressed>>),
    End(Box<Result<Scan, PipelineError<E>>>),
}

fn compress_jobs(codec: Codec, jobs: &Mutex<Receiver<Job>>, give_back: SyncSender<Vec<u8>>) {
    let mut encoder = Encoder::new(codec);
    loop {
        let job = match jobs.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return, // another worker panicked; the collector sees its chunk missing
        };
        let Ok(Job {
            raw,
            range,
            has_rows,
            done,
        }) = job
        else {
            return;
        };
        let sha256 = (!has_rows).then(|| sha256(&raw[range.clone()]));
        let encoded = match &mut encoder {
            Ok(encoder) => encoder.encode(&raw[range]),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // The collector stops listening only after a failure; the return path may be full or closed.
        let _ = done.send(encoded.map(|encoded| Compressed { encoded, sha256 }));
        if raw.len() == BUFFER_BYTES {
            let _ = give_back.try_send(raw);
        }
    }
}

/// Reads, scans and cuts.
struct Cutter<E> {
    work: SyncSender<Job>,
    in_order: SyncSender<Ordered<E>>,
    empty: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    /// The part of the buffer that was read and not sent.
    unsent: Range<usize>,
    /// Offset in the dump of the first unsent byte.
    start: u64,
    /// Whether that byte is one of a COPY block.
    is_inside: bool,
}

impl<E> Cutter<E> {
    fn run(
        mut self,
        source: impl Read,
        progress: &Progress,
        judge: impl FnOnce(&Scan) -> Result<(), E>,
    ) {
        let end = self
            .read_all(source, progress)
            .and_then(|scan| match judge(&scan) {
                Ok(()) => Ok(scan),
                Err(error) => Err(PipelineError::Refused(error)),
            });
        let _ = self.in_order.send(Ordered::End(Box::new(end))); // a collector that is gone knows why
    }

    fn read_all(
        &mut self,
        mut source: impl Read,
        progress: &Progress,
    ) -> Result<Scan, PipelineError<E>> {
        let mut scanner = Scanner::new();
        loop {
            self.make_room();
            progress.note_waiting(true);
            let read = source.read(&mut self.buffer[self.unsent.end..]);
            progress.note_waiting(false);
            let count = match read {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(PipelineError::Read(error)),
            };
            scanner.push(&self.buffer[self.unsent.end..self.unsent.end + count]);
            self.unsent.end += count;
            for cut in scanner.take_found().cuts {
                self.send(self.place(cut))?;
                self.is_inside = !self.is_inside;
            }
            if self.unsent.len() >= CHUNK_BYTES {
                let settled = self.place(scanner.settled_until());
                let held = self.unsent.len() - settled;
                self.send(if held <= HELD_BYTES {
                    settled
                } else {
                    self.unsent.len()
                })?;
            }
            progress.note_scan(&scanner);
        }
        self.send(self.unsent.len())?;
        Ok(scanner.finish())
    }

    /// Moves what is unsent to the front of the buffer.
    fn make_room(&mut self) {
        if self.unsent.start > 0 {
            self.buffer.copy_within(self.unsent.clone(), 0);
            self.unsent = 0..self.unsent.len();
        }
    }

    /// Turns an offset in the dump into a count of unsent bytes; one that was sent already is none.
    fn place(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.start))
            .map_or(self.unsent.len(), |at| at.min(self.unsent.len()))
    }

    /// Sends the next `length` bytes as a chunk. The buffer itself goes when it holds little else, so that large
    /// chunks are not copied and thousands of small tables cost no more than their own bytes.
    fn send(&mut self, length: usize) -> Result<(), PipelineError<E>> {
        if length == 0 {
            return Ok(());
        }
        let chunk = self.unsent.start..self.unsent.start + length;
        let rest = chunk.end..self.unsent.end;
        let (raw, range) = if length * 2 >= self.buffer.len() {
            let mut next = self
                .empty
                .try_recv()
                .unwrap_or_else(|_| vec![0; BUFFER_BYTES]);
            next[..rest.len()].copy_from_slice(&self.buffer[rest.clone()]);
            self.unsent = 0..rest.len();
            (std::mem::replace(&mut self.buffer, next), chunk)
        } else {
            self.unsent = rest;
            (self.buffer[chunk].to_vec(), 0..length)
        };
        self.start += length as u64;
        let (done, encoded) = sync_channel(1);
        self.in_order
            .send(Ordered::Chunk(encoded))
            .map_err(|_| PipelineError::Closed)?;
        self.work
            .send(Job {
                raw,
                range,
                has_rows: self.is_inside,
                done,
            })
            .map_err(|_| PipelineError::Closed)
    }
}

fn collect<E>(
    form: &Form,
    ordered: Receiver<Ordered<E>>,
    progress: &Progress,
    hand_over: &mut dyn FnMut(Bytes) -> Result<(), Closed>,
) -> Result<Passed, PipelineError<E>> {
    let mut frame = Frame::new(form.codec);
    let mut chunks = ChunkIndex {
        header_bytes: frame.header().len() as u64,
        ..ChunkIndex::default()
    };
    let mut sums = Vec::new();
    let mut outlet = Outlet::open(form.recipients.as_deref(), progress, hand_over)?;
    outlet.pass(frame.header())?;
    for item in ordered {
        match item {
            Ordered::Chunk(encoded) => {
                let lost = |_| io::Error::other("a compressing thread ended");
                let Compressed { encoded, sha256 } = encoded
                    .recv()
                    .map_err(lost)
                    .flatten()
                    .map_err(PipelineError::Compress)?;
                frame.add(&encoded);
                sums.push(sha256);
                chunks.push(encoded.raw_bytes as u32, encoded.bytes.len() as u32);
                outlet.pass(encoded.bytes.into())?;
            }
            Ordered::End(end) => {
                let scan = (*end)?;
                outlet.pass(frame.trailer())?;
                chunks.set_around_rows(sums);
                let ended = outlet.finish()?;
                return Ok(Passed {
                    scan,
                    chunks,
                    header_bytes: ended.header_bytes,
                    stored_bytes: ended.stored_bytes,
                    sha256: ended.sha256,
                });
            }
        }
    }
    Err(PipelineError::Read(io::Error::other(
        "the reading thread ended",
    )))
}

#[cfg(test)]
mod tests {
    use super::super::drip::Drip;
    use super::*;
    use crate::encryption::Identities;
    use pgkeep_model::scan::Block;

    fn form(codec: Codec) -> Form {
        Form {
            codec,
            recipients: None,
        }
    }

    const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\nSET x = 1;\n";
    const END: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n";

    fn dump(rows: usize) -> String {
        let mut text = HEAD.to_owned();
        for table in ["a", "b", "c"] {
            text += &format!("CREATE TABLE public.{table} (n int);\n\n");
        }
        for table in ["a", "b", "c"] {
            text += &format!("COPY public.{table} (n) FROM stdin;\n");
            (0..rows).for_each(|n| text += &format!("{n}\t{}\n", n * 7919));
            text += "\\.\n\n\n";
        }
        text + END
    }

    fn pass(
        source: impl Read + Send,
        codec: Codec,
    ) -> (Vec<u8>, Result<Passed, PipelineError<String>>) {
        let mut out = Vec::new();
        let judge = |scan: &Scan| {
            if scan.complete {
                Ok(())
            } else {
                Err("not complete".to_owned())
            }
        };
        let result = run(
            source,
            &form(codec),
            2,
            &Progress::default(),
            judge,
            &mut |bytes| {
                out.extend_from_slice(&bytes);
                Ok(())
            },
        );
        (out, result)
    }

    #[test]
    fn every_codec_stores_the_dump_as_it_was() {
        let text = dump(200_000);
        for (codec, step) in [
            (Codec::Gzip { level: Some(2) }, 65_536),
            (Codec::Zstd { level: 1 }, 7_777),
            (Codec::None, 1_000_000),
        ] {
            let (out, result) = pass(Drip(text.as_bytes(), step), codec);
            let passed = result.unwrap();
            assert_eq!(passed.stored_bytes, out.len() as u64);
            assert_eq!(passed.scan.bytes, text.len() as u64);
            assert_eq!(passed.sha256, sha256(&out));
            let mut back = Vec::new();
            crate::stream::read::read_dump(&out[..], &Identities::default(), &mut |piece| {
                back.extend_from_slice(piece)
            })
            .unwrap();
            assert!(back == text.as_bytes());
        }
    }

    #[test]
    fn each_block_begins_and_ends_with_a_chunk() {
        let text = dump(100_000);
        let (out, result) = pass(Drip(text.as_bytes(), 33_333), Codec::None);
        let passed = result.unwrap();
        for table in &passed.scan.tables {
            let block: Block = table.blocks[0];
            let (range, skip) = passed.chunks.offsets().stored_range(block).unwrap();
            assert_eq!(skip, 0);
            assert_eq!(range, block.offset..block.offset + block.length);
            let bytes = &out[range.start as usize..range.end as usize];
            assert!(bytes.starts_with(b"COPY public.") && bytes.ends_with(b"\\.\n"));
        }
        let around = passed.chunks.around_rows.unwrap();
        let (first, last) = (text.find("COPY").unwrap(), text.rfind("\\.\n").unwrap() + 3);
        let sum = |text: &str| vec![sha256(text.as_bytes())];
        assert_eq!(around.front, sum(&text[..first]));
        assert_eq!(around.behind, sum(&text[last..]));
    }

    #[test]
    fn a_refused_dump_never_ends() {
        let text = dump(1000);
        let (out, result) = pass(
            &text.as_bytes()[..text.len() - 60],
            Codec::Gzip { level: Some(2) },
        );
        assert!(matches!(result, Err(PipelineError::Refused(_))));
        let mut back = Vec::new();
        assert!(
            flate2::read::GzDecoder::new(&out[..])
                .read_to_end(&mut back)
                .is_err(),
            "the trailer was handed over"
        );
    }

    #[test]
    fn a_consumer_that_leaves_ends_the_run() {
        let text = dump(300_000);
        let mut count = 0;
        let judge = |_: &Scan| Ok::<(), String>(());
        let result = run(
            text.as_bytes(),
            &form(Codec::None),
            2,
            &Progress::default(),
            judge,
            &mut |_| {
                count += 1;
                if count > 2 { Err(Closed) } else { Ok(()) }
            },
        );
        assert!(matches!(result, Err(PipelineError::Closed)));
    }

    #[test]
    fn statements_longer_than_a_chunk_pass() {
        let text = format!(
            "{HEAD}INSERT INTO t VALUES ('{}');\n{END}",
            "x".repeat(5_000_000)
        );
        let (out, result) = pass(text.as_bytes(), Codec::None);
        assert!(out == text.as_bytes());
        assert!(
            result
                .unwrap()
                .chunks
                .raw
                .iter()
                .all(|&raw| raw as usize <= BUFFER_BYTES)
        );
    }
}

//! Text of a dump that is held back until it is scanned, for stages that put something in between.

use std::io::{self, Read};

use pgkeep_model::scan::{Listed, Notes, Scanner};

/// How much of the dump is looked at at once.
const LOOK_BYTES: usize = 64 * 1024;

/// A dump, and what of it was read and not passed on.
pub(super) struct Held<D> {
    pub(super) dump: D,
    pub(super) scanner: Scanner,
    pub(super) bytes: Vec<u8>,
    /// What is to be taken from an offset in the dump to find its place among the bytes.
    start: i64,
    pub(super) is_over: bool,
}

impl<D: Read> Held<D> {
    pub(super) fn new(dump: D) -> Self {
        Self {
            dump,
            scanner: Scanner::noting(Notes::Statements),
            bytes: Vec::new(),
            start: 0,
            is_over: false,
        }
    }

    /// Reads on, and returns the statements that ended.
    pub(super) fn look(&mut self) -> io::Result<Vec<Listed>> {
        let kept = self.bytes.len();
        self.bytes.resize(kept + LOOK_BYTES, 0);
        let read = self.dump.read(&mut self.bytes[kept..]);
        self.bytes.truncate(kept + *read.as_ref().unwrap_or(&0));
        self.is_over = read? == 0;
        self.scanner.push(&self.bytes[kept..]);
        Ok(self.scanner.take_found().statements)
    }

    /// Returns where an offset of the dump is among the bytes; one that was passed on is at the front.
    pub(super) fn at(&self, offset: u64) -> usize {
        let behind = i64::try_from(offset).unwrap_or(i64::MAX) - self.start;
        usize::try_from(behind.max(0)).map_or(self.bytes.len(), |at| at.min(self.bytes.len()))
    }

    /// Puts text in between. Offsets in front of it are not asked for any more.
    pub(super) fn insert(&mut self, at: usize, text: &[u8]) {
        self.bytes.splice(at..at, text.iter().copied());
        self.start -= text.len() as i64;
    }

    /// Passes on what stands in front of `end`, as much as there is room for.
    pub(super) fn pass_on(&mut self, end: usize, buffer: &mut [u8]) -> usize {
        let count = end.min(buffer.len());
        buffer[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        self.start += count as i64;
        count
    }
}

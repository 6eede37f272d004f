//! The chunk index: which bytes of the dump lie where in the stored object.
//!
//! A stored dump is a row of chunks that can each be decompressed alone; a table's COPY block begins and ends with
//! one, so its rows can be read with one ranged request.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::scan::Block;

/// Longest chunk that an index may speak of, stored or not. Writers cut at about 1 MiB; what claims to be more is
/// damaged, and is never given memory.
const MAX_CHUNK_BYTES: u32 = 16 * 1024 * 1024;

/// Lengths of all chunks, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkIndex {
    /// Bytes of the object in front of the first chunk: the gzip header.
    pub header_bytes: u64,
    /// Uncompressed length of each chunk.
    pub raw: Vec<u32>,
    /// Stored length of each chunk.
    pub stored: Vec<u32>,
}

impl ChunkIndex {
    /// Adds a chunk.
    pub fn push(&mut self, raw_bytes: u32, stored_bytes: u32) {
        self.raw.push(raw_bytes);
        self.stored.push(stored_bytes);
    }

    /// Returns the number of chunks.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Tells why the index cannot be the one of a dump of `raw_bytes` that lies in `stored_bytes`, with `trailer_bytes`
    /// behind its last chunk; none when it fits.
    pub fn contradiction(
        &self,
        raw_bytes: u64,
        stored_bytes: u64,
        trailer_bytes: u64,
    ) -> Option<String> {
        let (raw, stored) = (self.raw.len(), self.stored.len());
        if raw != stored {
            return Some(format!(
                "it has {raw} lengths before and {stored} after compression"
            ));
        }
        let longest = self.raw.iter().chain(&self.stored).copied().max();
        if longest.is_some_and(|longest| longest > MAX_CHUNK_BYTES) {
            return Some(format!(
                "a chunk of it is longer than {MAX_CHUNK_BYTES} bytes"
            ));
        }
        let sum = |lengths: &[u32]| lengths.iter().map(|&length| u64::from(length)).sum::<u64>();
        let raw = sum(&self.raw);
        let stored = self
            .header_bytes
            .saturating_add(sum(&self.stored))
            .saturating_add(trailer_bytes);
        if (raw, stored) != (raw_bytes, stored_bytes) {
            return Some(format!(
                "its chunks are {raw} bytes in {stored}, and the dump is {raw_bytes} bytes in {stored_bytes}"
            ));
        }
        None
    }

    /// Returns where a chunk begins, in the stored object and in the dump; behind the last one, where it ends.
    pub fn start_of(&self, chunk: usize) -> (u64, u64) {
        let sum = |lengths: &[u32]| {
            lengths
                .iter()
                .take(chunk)
                .map(|&length| u64::from(length))
                .sum::<u64>()
        };
        (self.header_bytes + sum(&self.stored), sum(&self.raw))
    }

    /// Works out where each chunk begins, for looking up many blocks.
    pub fn offsets(&self) -> ChunkOffsets {
        let (mut raw_at, mut stored_at) = (0, self.header_bytes);
        let mut offsets = ChunkOffsets {
            raw: vec![raw_at],
            stored: vec![stored_at],
        };
        for (&raw, &stored) in self.raw.iter().zip(&self.stored) {
            raw_at += u64::from(raw);
            stored_at += u64::from(stored);
            offsets.raw.push(raw_at);
            offsets.stored.push(stored_at);
        }
        offsets
    }
}

/// Where each chunk begins, and where the last one ends.
pub struct ChunkOffsets {
    raw: Vec<u64>,
    stored: Vec<u64>,
}

impl ChunkOffsets {
    /// Returns the chunks that hold `block`, and how many uncompressed bytes stand in front of it there.
    ///
    /// None when the block reaches behind the last chunk.
    pub fn chunks_of(&self, block: Block) -> Option<(Range<usize>, u64)> {
        let end = block.offset.checked_add(block.length)?;
        let last = self.raw.partition_point(|&at| at < end);
        let first = self
            .raw
            .partition_point(|&at| at <= block.offset)
            .checked_sub(1)?;
        (last < self.raw.len()).then(|| (first..last.max(first), block.offset - self.raw[first]))
    }

    /// Returns the stored bytes of the chunks that hold `block`, and how many uncompressed bytes stand in front of
    /// it there.
    ///
    /// None when the block reaches behind the last chunk.
    pub fn stored_range(&self, block: Block) -> Option<(Range<u64>, u64)> {
        let (chunks, skipped) = self.chunks_of(block)?;
        Some((self.stored[chunks.start]..self.stored[chunks.end], skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_stored_bytes_of_a_block() {
        let mut index = ChunkIndex {
            header_bytes: 10,
            ..ChunkIndex::default()
        };
        for (raw, stored) in [(100, 20), (50, 10), (200, 30)] {
            index.push(raw, stored);
        }
        let offsets = index.offsets();
        let range = |offset, length| offsets.stored_range(Block { offset, length });
        assert_eq!(range(100, 50), Some((30..40, 0)));
        assert_eq!(range(0, 350), Some((10..70, 0)));
        assert_eq!(range(120, 100), Some((30..70, 20)));
        assert_eq!(range(340, 11), None);
        assert_eq!(range(u64::MAX, 2), None);
    }

    #[test]
    fn an_index_fits_its_dump_or_says_why_not() {
        let index = |raw: &[u32], stored: &[u32]| ChunkIndex {
            header_bytes: 10,
            raw: raw.to_vec(),
            stored: stored.to_vec(),
        };
        let fits = index(&[100, 50], &[20, 10]);
        assert_eq!(fits.contradiction(150, 50, 10), None);
        for (index, raw, stored, says) in [
            (&fits, 151, 50, "150 bytes in 50"),
            (&fits, 150, 51, "150 bytes in 50"),
            (&index(&[100], &[20, 10]), 100, 50, "1 lengths before and 2"),
            (
                &index(&[u32::MAX], &[20]),
                u64::from(u32::MAX),
                40,
                "longer than",
            ),
        ] {
            let found = index.contradiction(raw, stored, 10).unwrap();
            assert!(found.contains(says), "{found}");
        }
        let endless = ChunkIndex {
            header_bytes: u64::MAX,
            ..fits
        };
        assert!(endless.contradiction(150, 50, 10).is_some());
    }
}

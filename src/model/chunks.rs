//! The chunk index: which bytes of the dump lie where in the stored object.
//!
//! A stored dump is a row of chunks that can each be decompressed alone; a table's COPY block begins and ends with
//! one, so its rows can be read with one ranged request.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::scan::Block;

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
    /// Returns the stored bytes of the chunks that hold `block`, and how many uncompressed bytes stand in front of
    /// it there.
    ///
    /// None when the block reaches behind the last chunk.
    pub fn stored_range(&self, block: Block) -> Option<(Range<u64>, u64)> {
        let end = block.offset.checked_add(block.length)?;
        let last = self.raw.partition_point(|&at| at < end);
        let first = self
            .raw
            .partition_point(|&at| at <= block.offset)
            .checked_sub(1)?;
        let stored_end = *self.stored.get(last)?;
        Some((
            self.stored[first]..stored_end,
            block.offset - self.raw[first],
        ))
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
}

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

    /// Returns the stored bytes of the chunks that hold `block`, and how many uncompressed bytes stand in front of
    /// it there.
    ///
    /// None when the block reaches behind the last chunk.
    pub fn stored_range(&self, block: Block) -> Option<(Range<u64>, u64)> {
        let end = block.offset.checked_add(block.length)?;
        let (mut raw_at, mut stored_at) = (0u64, self.header_bytes);
        let mut start = None;
        for (&raw, &stored) in self.raw.iter().zip(&self.stored) {
            let (raw_end, stored_end) = (raw_at + u64::from(raw), stored_at + u64::from(stored));
            if start.is_none() && block.offset < raw_end {
                start = Some((stored_at, block.offset - raw_at));
            }
            if let Some((stored_start, skip)) = start.filter(|_| end <= raw_end) {
                return Some((stored_start..stored_end, skip));
            }
            (raw_at, stored_at) = (raw_end, stored_end);
        }
        None
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
        let range = |offset, length| index.stored_range(Block { offset, length });
        assert_eq!(range(100, 50), Some((30..40, 0)));
        assert_eq!(range(0, 350), Some((10..70, 0)));
        assert_eq!(range(120, 100), Some((30..70, 20)));
        assert_eq!(range(340, 11), None);
        assert_eq!(range(u64::MAX, 2), None);
    }
}

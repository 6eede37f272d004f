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
    /// What the text around the rows is; none in backups of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around_rows: Option<AroundRows>,
}

/// SHA-256 in hex of the uncompressed chunks that stand around all rows: structure and sequence values.
///
/// Rows have digests; this text has nothing else that proves a part of it. gzip has one checksum for the whole object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AroundRows {
    /// The first chunks, up to the first that holds rows.
    pub front: Vec<String>,
    /// The last chunks, behind the last that holds rows.
    pub behind: Vec<String>,
}

impl ChunkIndex {
    /// Adds a chunk.
    pub fn push(&mut self, raw_bytes: u32, stored_bytes: u32) {
        self.raw.push(raw_bytes);
        self.stored.push(stored_bytes);
    }

    /// Takes the SHA-256 of every chunk, none for one of rows, and keeps those around all rows.
    pub fn set_around_rows(&mut self, mut sums: Vec<Option<String>>) {
        let last = sums.iter().rposition(Option::is_none);
        let behind = sums.split_off(last.map_or(sums.len(), |last| last + 1));
        let front = sums.into_iter().map_while(|sum| sum);
        self.around_rows = Some(AroundRows {
            front: front.collect(),
            behind: behind.into_iter().flatten().collect(),
        });
    }

    /// Returns the SHA-256 in hex of a chunk's text, where it is known.
    pub fn sha256_of(&self, chunk: usize) -> Option<&str> {
        let AroundRows { front, behind } = self.around_rows.as_ref()?;
        let begin = self.len().checked_sub(behind.len())?;
        let found = match chunk.checked_sub(begin) {
            Some(at) => behind.get(at),
            None => front.get(chunk),
        };
        found.map(String::as_str)
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
        if let Some(AroundRows { front, behind }) = &self.around_rows {
            if front.len().saturating_add(behind.len()) > raw {
                return Some(format!("it has more checksums than its {raw} chunks"));
            }
            if !front.iter().chain(behind).all(|sum| is_sha256(sum)) {
                return Some("a checksum of it is not 64 hex digits".to_owned());
            }
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

/// Tells whether a text is a SHA-256 as it is stored.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn what_stands_around_the_rows_is_known(are_rows in prop::collection::vec(any::<bool>(), 0..12)) {
            let mut index = ChunkIndex::default();
            are_rows.iter().for_each(|_| index.push(1, 1));
            let sum = |(at, is_rows): (usize, &bool)| (!is_rows).then(|| at.to_string());
            let sums: Vec<Option<String>> = are_rows.iter().enumerate().map(sum).collect();
            index.set_around_rows(sums.clone());
            for (at, sum) in sums.iter().enumerate() {
                let is_around = !are_rows[..=at].contains(&true) || !are_rows[at..].contains(&true);
                let known = sum.as_deref().filter(|_| is_around);
                prop_assert_eq!(index.sha256_of(at), known);
            }
            prop_assert_eq!(index.sha256_of(are_rows.len()), None);
            let text = serde_json::to_string(&index).unwrap();
            prop_assert_eq!(serde_json::from_str::<ChunkIndex>(&text).unwrap(), index);
        }
    }

    #[test]
    fn an_index_fits_its_dump_or_says_why_not() {
        let index = |raw: &[u32], stored: &[u32]| ChunkIndex {
            header_bytes: 10,
            raw: raw.to_vec(),
            stored: stored.to_vec(),
            around_rows: None,
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
        let summed = |front: &[&str], behind: &[&str]| {
            let owned = |sums: &[&str]| sums.iter().map(|&sum| sum.to_owned()).collect();
            ChunkIndex {
                around_rows: Some(AroundRows {
                    front: owned(front),
                    behind: owned(behind),
                }),
                ..fits.clone()
            }
        };
        let sum = "0a".repeat(32);
        let says = |index: ChunkIndex| index.contradiction(150, 50, 10);
        assert_eq!(says(summed(&[&sum], &[&sum])), None);
        let found = says(summed(&[&sum, &sum], &[&sum])).unwrap();
        assert!(found.contains("more checksums"), "{found}");
        for bad in [&sum[1..], &sum.replace('a', "A"), &"\u{e4}".repeat(32)] {
            let found = says(summed(&[&sum], &[bad])).unwrap();
            assert!(found.contains("64 hex digits"), "{found}");
        }
        let endless = ChunkIndex {
            header_bytes: u64::MAX,
            ..fits
        };
        assert!(endless.contradiction(150, 50, 10).is_some());
    }
}

//! The text of a stored dump in front of its first row and behind its last one, by ranged reads: no row is fetched.

use super::ranged::Ranged;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::scan::{Block, SectionName};
use pgkeep_model::single::Structure;

/// Most text outside of rows that is held in memory. 100,000 tables have about 150 MiB.
pub(crate) const MAX_STRUCTURE: u64 = 256 << 20;

/// Id of the failure of a structure that does not fit into memory.
pub(crate) const STRUCTURE_TOO_LONG: &str = "structure_too_long";

/// How much text behind the last row is read at once while large objects may follow, which are not to be read.
const STEP_BYTES: u64 = 1 << 20;

/// A dump's text without its rows and large objects.
pub(crate) struct StructureText {
    pub text: Vec<u8>,
    /// Where the text begins that stands behind the rows.
    pub behind: usize,
    /// Stored bytes that were read for it.
    pub read_bytes: u64,
    /// Whether its text has proven to be the one that was dumped.
    pub is_proven: bool,
}

impl Ranged<'_> {
    /// Reads the text of the dump in front of the first block and behind the last one, large objects apart.
    ///
    /// Sequence values are among it: pg_dump puts them behind the rows of all tables (`dbObjectTypePriority` in
    /// `pg_dump_sort.c`), so that nothing between two blocks is of any table. A chunk of this text whose SHA-256 is not
    /// the recorded one is damage.
    pub(crate) async fn structure(&self, manifest: &Manifest) -> Result<StructureText> {
        let records = manifest.tables.iter().flat_map(|table| &table.blocks);
        let blocks: Vec<Block> = records.map(|record| record.block).collect();
        let end = |block: &Block| block.offset.saturating_add(block.length);
        let bytes = manifest.dump.bytes;
        let data = manifest
            .sections
            .iter()
            .find(|section| section.name == SectionName::Data);
        // Without any row, large objects may be all that the section holds.
        let data_start = data.map_or(bytes, |section| section.block.offset.min(bytes));
        let starts = blocks.iter().map(|block| block.offset);
        let first = starts.min().unwrap_or(data_start);
        let last = blocks.iter().map(end).max().unwrap_or(data_start);
        if last > bytes || first > last {
            return Err(self.contradicts("its rows start after its end"));
        }
        let data_end = data
            .map_or(last, |section| end(&section.block))
            .clamp(last, bytes);
        let (before, behind) =
            tokio::join!(self.text(0, first), self.text_behind(last, data_end, bytes));
        let ((mut text, read), (behind, more)) = (before?, behind?);
        let is_known = |offset, end| {
            let length = end - offset;
            length == 0 || self.is_known(Block { offset, length })
        };
        let is_proven = is_known(0, first) && is_known(last, bytes);
        let boundary = text.len();
        text.extend_from_slice(&behind);
        Ok(StructureText {
            text,
            behind: boundary,
            read_bytes: read + more,
            is_proven,
        })
    }

    /// Reads on behind the last row. Sequence values stand there, then large objects, then what makes indexes and keys.
    async fn text_behind(&self, start: u64, data_end: u64, end: u64) -> Result<(Vec<u8>, u64)> {
        if data_end - start <= STEP_BYTES {
            return self.text(start, end).await;
        }
        let (mut found, mut read, mut at) = (Vec::new(), 0, start);
        while at < data_end {
            let step = data_end.min(at + STEP_BYTES);
            let (more, count) = self.text(at, step).await?;
            found.extend_from_slice(&more);
            (read, at) = (read + count, step);
            if let Some(begin) = Structure::large_objects_begin(&found) {
                found.truncate(begin);
                break;
            }
            if found.len() as u64 > MAX_STRUCTURE {
                return Err(too_long(self.what()));
            }
        }
        let (rest, count) = self.text(data_end, end).await?;
        found.extend_from_slice(&rest);
        Ok((found, read + count))
    }

    async fn text(&self, start: u64, end: u64) -> Result<(Vec<u8>, u64)> {
        let length = end - start;
        if length == 0 {
            return Ok((Vec::new(), 0));
        }
        if length > MAX_STRUCTURE {
            return Err(too_long(self.what()));
        }
        let block = Block {
            offset: start,
            length,
        };
        let take = |text: &mut Vec<u8>, piece: &[u8]| {
            text.extend_from_slice(piece);
            Ok(())
        };
        let of = "its structure";
        let (text, read) = self.read(of, block, Vec::new(), take).await?;
        if text.len() as u64 == length {
            Ok((text, read))
        } else {
            // Anyone who wished to stop is told so by the caller.
            Err(self.damaged(of, "it is shorter than the manifest says"))
        }
    }
}

/// Returns the failure of a structure that does not fit into memory.
pub(crate) fn too_long(what: &str) -> Failure {
    let message = format!("{what}: it has more text outside of rows than is held in memory");
    Failure::new(Kind::Refused, STRUCTURE_TOO_LONG, message)
}

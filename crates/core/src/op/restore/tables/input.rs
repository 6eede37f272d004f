//! Reads what single tables come from: the structure in front of and behind the rows, and then these tables' rows.
//!
//! Out of a stored backup both come by ranged reads. A file is read twice: once to prove it and to keep its structure,
//! once for the rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context::Stop;
use crate::copies::{Ranged, Tap};
use crate::encryption::Identities;
use crate::op::restore::feed::{judge_file, refused, unreadable};
use crate::op::restore::source::open_file;
use crate::stream::pipeline::Progress;
use crate::stream::read::read_dump;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::filter::{Filter, Rules};
use pgkeep_model::scan::{Block, Scan, Scanner, SectionName, TextEncoding};
use pgkeep_model::single::Structure;

/// Most text outside of rows that is held in memory. 100,000 tables have about 150 MiB.
const MAX_STRUCTURE: u64 = 256 << 20;

/// How much text behind the last row is read at once while large objects may follow, which are not to be read.
const STEP_BYTES: u64 = 1 << 20;

/// One table's rows, and where they lie.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub expected: Expected,
    pub blocks: Vec<Block>,
}

/// A file that was proven.
pub(super) struct Proven {
    pub path: PathBuf,
    pub scan: Scan,
    pub structure: Structure,
}

/// The tables of a dump. There may be tens of thousands, of which few are wanted.
pub(super) enum Tables<'a> {
    Backup(&'a Manifest),
    File(&'a Scan),
}

impl Tables<'_> {
    /// Tells whether it has the table.
    pub(super) fn has(&self, name: &TableName) -> bool {
        match self {
            Self::Backup(manifest) => {
                let mut tables = manifest.tables.iter();
                tables.any(|record| record.full_name() == *name)
            }
            Self::File(scan) => {
                let mut tables = scan.tables.iter();
                tables.any(|table| table.full_name() == *name)
            }
        }
    }

    /// Returns those that are wanted, in the dump's order.
    pub(super) fn entries(&self, is_wanted: impl Fn(&TableName) -> bool) -> Vec<Entry> {
        match self {
            Self::Backup(manifest) => {
                let wanted = manifest.tables.iter();
                wanted
                    .filter(|record| is_wanted(&record.full_name()))
                    .map(|record| Entry {
                        expected: Expected::from(record),
                        blocks: record.blocks.iter().map(|record| record.block).collect(),
                    })
                    .collect()
            }
            Self::File(scan) => {
                let wanted = scan.tables.iter();
                wanted
                    .filter(|table| is_wanted(&table.full_name()))
                    .map(|table| Entry {
                        expected: Expected::from(table),
                        blocks: table.blocks.clone(),
                    })
                    .collect()
            }
        }
    }
}

/// Returns the encoding of a dump's text.
pub(super) fn encoding(name: Option<&str>) -> TextEncoding {
    TextEncoding::named(name.unwrap_or("UTF8"))
}

/// The structure of a stored dump.
pub(super) struct Read {
    pub structure: Structure,
    /// Stored bytes that were read for it.
    pub read_bytes: u64,
    /// Whether its text has proven to be the one that was dumped.
    pub is_proven: bool,
}

/// Reads the structure of a stored dump: all in front of the first block and behind the last one, large objects apart.
///
/// Sequence values are among it: pg_dump puts them behind the rows of all tables (`dbObjectTypePriority` in
/// `pg_dump_sort.c`), so that nothing between two blocks is of any table. A chunk of this text whose SHA-256 is not the
/// recorded one is damage.
pub(super) async fn structure(ranged: &Ranged<'_>, manifest: &Manifest) -> Result<Read> {
    let records = manifest.tables.iter().flat_map(|table| &table.blocks);
    let blocks: Vec<Block> = records.map(|record| record.block).collect();
    let end = |block: &Block| block.offset.saturating_add(block.length);
    let bytes = manifest.dump.bytes;
    let starts = blocks.iter().map(|block| block.offset);
    let first = starts.min().unwrap_or(bytes);
    let last = blocks.iter().map(end).max().unwrap_or(bytes);
    if last > bytes || first > last {
        return Err(ranged.contradicts("its rows start after its end"));
    }
    let data = manifest
        .sections
        .iter()
        .find(|section| section.name == SectionName::Data);
    let data_end = data
        .map_or(last, |section| end(&section.block))
        .clamp(last, bytes);
    let (before, behind) = tokio::join!(
        text(ranged, 0, first),
        text_behind(ranged, last, data_end, bytes)
    );
    let ((mut text, read), (behind, more)) = (before?, behind?);
    let is_known = |offset, end| {
        let length = end - offset;
        length == 0 || ranged.is_known(Block { offset, length })
    };
    let is_proven = is_known(0, first) && is_known(last, bytes);
    let boundary = text.len();
    text.extend_from_slice(&behind);
    let read_structure = tokio::task::spawn_blocking(move || Structure::read(text, boundary));
    Ok(Read {
        structure: read_structure.await.expect("reading does not panic"),
        read_bytes: read + more,
        is_proven,
    })
}

/// Reads on behind the last row. Sequence values stand there, then large objects, then what makes indexes and keys.
async fn text_behind(
    ranged: &Ranged<'_>,
    start: u64,
    data_end: u64,
    end: u64,
) -> Result<(Vec<u8>, u64)> {
    if data_end - start <= STEP_BYTES {
        return text(ranged, start, end).await;
    }
    let (mut found, mut read, mut at) = (Vec::new(), 0, start);
    while at < data_end {
        let step = data_end.min(at + STEP_BYTES);
        let (more, count) = text(ranged, at, step).await?;
        found.extend_from_slice(&more);
        (read, at) = (read + count, step);
        if let Some(begin) = Structure::large_objects_begin(&found) {
            found.truncate(begin);
            break;
        }
        if found.len() as u64 > MAX_STRUCTURE {
            return Err(too_long(ranged.what()));
        }
    }
    let (rest, count) = text(ranged, data_end, end).await?;
    found.extend_from_slice(&rest);
    Ok((found, read + count))
}

async fn text(ranged: &Ranged<'_>, start: u64, end: u64) -> Result<(Vec<u8>, u64)> {
    let length = end - start;
    if length == 0 {
        return Ok((Vec::new(), 0));
    }
    if length > MAX_STRUCTURE {
        return Err(too_long(ranged.what()));
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
    let (text, read) = ranged.read(of, block, Vec::new(), take).await?;
    if text.len() as u64 == length {
        Ok((text, read))
    } else {
        // Anyone who wished to stop is told so by the caller.
        Err(ranged.damaged(of, "it is shorter than the manifest says"))
    }
}

fn too_long(what: &str) -> Failure {
    let message = format!("{what}: it has more text outside of rows than is held in memory");
    Failure::new(Kind::Refused, "structure_too_long", message)
        .hint("restore the whole dump into a new database, and copy the table from there")
}

/// Reads a file to its end, proves it and keeps what stands outside of its rows. It blocks.
pub(super) fn prove(
    path: &Path,
    identities: &Identities,
    accept_no_end_marker: bool,
    stop: &Stop,
    progress: &Arc<Progress>,
) -> Result<Proven> {
    let what = format!("cannot restore out of `{}`", path.display());
    let (tap, seen) = Tap::new(open_file(path)?, false);
    let rules = Rules {
        notes_form: true,
        ..Rules::default()
    };
    let (mut filter, mut refusal) = (Filter::new(rules), None);
    let mut outside = Outside::default();
    let read = read_dump(tap, identities, &mut |piece| {
        if refusal.is_some() || stop.is_requested() {
            return seen.give_up();
        }
        refusal = filter.push(piece, &mut |_| {}).err();
        outside.push(piece);
        progress.note_scan(filter.scanner());
        if refusal.is_some() || outside.is_too_long() {
            seen.give_up();
        }
    });
    if let Some(refusal) = refusal {
        return Err(refused(&what, &refusal));
    }
    if outside.is_too_long() {
        return Err(too_long(&what));
    }
    read.map_err(|error| unreadable(&what, &error, &seen))?;
    let scan = filter.finish().map_err(|error| refused(&what, &error))?;
    judge_file(&what, &scan, accept_no_end_marker)?;
    let boundary = outside.behind.unwrap_or(outside.text.len());
    Ok(Proven {
        path: path.to_owned(),
        scan,
        structure: Structure::read(outside.text, boundary),
    })
}

/// Keeps the text of a dump that is in no block of rows.
#[derive(Default)]
struct Outside {
    scanner: Scanner,
    text: Vec<u8>,
    /// Where the text begins that stands behind the first block.
    behind: Option<usize>,
    is_inside: bool,
}

impl Outside {
    fn push(&mut self, piece: &[u8]) {
        let from = self.scanner.position();
        self.scanner.push(piece);
        let mut at = 0;
        for cut in self.scanner.take_found().cuts {
            let place = cut.saturating_sub(from) as usize;
            if self.is_inside {
                at = place;
            } else {
                self.text.extend_from_slice(&piece[at..place.max(at)]);
                // A statement turns out to be a COPY at its end, and may have begun in an earlier piece.
                let early = from.saturating_sub(cut) as usize;
                self.text.truncate(self.text.len().saturating_sub(early));
                self.behind.get_or_insert(self.text.len());
            }
            self.is_inside = !self.is_inside;
        }
        if !self.is_inside {
            self.text.extend_from_slice(&piece[at..]);
        }
    }

    fn is_too_long(&self) -> bool {
        self.text.len() as u64 > MAX_STRUCTURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DUMP: &str = "CREATE TABLE t (a int);\nCOPY t (a) FROM stdin;\n1\nCOPY x\n\\.\n\nCOPY u (a) FROM stdin;\n\\.\n\
        SELECT 'COPY t (a) FROM stdin;';\nCREATE INDEX i ON t (a);\n";

    proptest! {
        #[test]
        fn rows_are_left_out_wherever_the_text_is_cut(cuts in prop::collection::vec(0..DUMP.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, DUMP.len()]);
            cuts.sort_unstable();
            let mut outside = Outside::default();
            for pair in cuts.windows(2) {
                outside.push(&DUMP.as_bytes()[pair[0]..pair[1]]);
            }
            let text = String::from_utf8(outside.text).unwrap();
            prop_assert_eq!(text, "CREATE TABLE t (a int);\n\nSELECT 'COPY t (a) FROM stdin;';\nCREATE INDEX i ON t (a);\n");
            prop_assert_eq!(outside.behind, Some(24));
        }
    }
}

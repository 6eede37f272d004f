//! Reads what single tables come from: the structure in front of and behind the rows, and then these tables' rows.
//!
//! Out of a stored backup both come by ranged reads. A file is read twice: once to prove it and to keep its structure,
//! once for the rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context::Stop;
use crate::copies::{MAX_STRUCTURE, Ranged, STRUCTURE_TOO_LONG, StructureText, Tap, too_long};
use crate::encryption::Identities;
use crate::op::restore::feed::{judge_file, refused, unreadable};
use crate::op::restore::source::open_file;
use crate::stream::pipeline::Progress;
use crate::stream::read::read_dump;
use pgkeep_model::failure::Result;
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::filter::{Filter, Rules};
use pgkeep_model::scan::{Block, Scan, Scanner, TextEncoding};
use pgkeep_model::single::Structure;

/// What to do where single tables need more memory than there is.
const WHOLE_INSTEAD: &str =
    "restore the whole dump into a new database, and copy the table from there";

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

/// Reads the structure of a stored dump, without its large objects.
pub(super) async fn structure(ranged: &Ranged<'_>, manifest: &Manifest) -> Result<Read> {
    let read = ranged.structure(manifest).await;
    let StructureText {
        text,
        behind,
        read_bytes,
        is_proven,
    } = read.map_err(|failure| match failure.id {
        STRUCTURE_TOO_LONG => failure.hint(WHOLE_INSTEAD),
        _ => failure,
    })?;
    let read_structure = tokio::task::spawn_blocking(move || Structure::read(text, behind));
    Ok(Read {
        structure: read_structure.await.expect("reading does not panic"),
        read_bytes,
        is_proven,
    })
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
        return Err(too_long(&what).hint(WHOLE_INSTEAD));
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

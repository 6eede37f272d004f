//! Compares what stands in a stored dump now with what its manifest says.
//!
//! It looks at everything that a restore relies on: the end of the dump, each table's rows and digest, where they lie.

use std::collections::HashMap;

use serde::Serialize;

use super::manifest::{Manifest, TableRecord};
use super::name::{TableName, printable};
use super::scan::{Scan, Table};
use super::words;

/// Most problems that are reported of one copy: the first shows where to look, a thousand help nobody.
const MAX_PROBLEMS: usize = 20;

/// One thing that contradicts a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable name, such as `rows_differ`.
    pub id: &'static str,
    /// What it is, in words.
    pub message: String,
    /// The table it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Offset in the stored object of the first chunk that it may come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_offset: Option<u64>,
    /// Offset in the uncompressed dump, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump_offset: Option<u64>,
}

impl Problem {
    /// Makes a problem that has no place.
    pub fn new(id: &'static str, message: impl AsRef<str>) -> Self {
        Self {
            id,
            message: printable(message.as_ref()),
            table: None,
            stored_offset: None,
            dump_offset: None,
        }
    }

    /// Gives it the place of a table's first rows.
    fn of_table(mut self, record: &TableRecord) -> Self {
        let first = record.blocks.first();
        self.table = Some(record.full_name().to_string());
        self.stored_offset = first.map(|block| block.stored_offset);
        self.dump_offset = first.map(|block| block.block.offset);
        self
    }

    /// Gives it a place, and the table whose rows lie there.
    pub fn at(mut self, manifest: &Manifest, stored_offset: Option<u64>, dump_offset: u64) -> Self {
        self.stored_offset = stored_offset;
        self.dump_offset = Some(dump_offset);
        self.table = table_at(manifest, dump_offset).map(|table| table.full_name().to_string());
        self
    }
}

/// Returns the table in whose COPY block an offset of the dump lies.
fn table_at(manifest: &Manifest, offset: u64) -> Option<&TableRecord> {
    let holds = |table: &&TableRecord| {
        let mut blocks = table.blocks.iter().map(|record| record.block);
        blocks.any(|block| {
            (block.offset..block.offset.saturating_add(block.length)).contains(&offset)
        })
    };
    manifest.tables.iter().find(holds)
}

/// Tells what in a dump contradicts its manifest, in the order of the dump.
pub fn contradictions(manifest: &Manifest, scan: &Scan) -> Vec<Problem> {
    let mut problems: Vec<Problem> = scan
        .problems
        .iter()
        .map(|finding| Problem {
            dump_offset: finding.offset,
            ..Problem::new("dump_incomplete", &finding.message)
        })
        .collect();
    let mut differ = |what: &str, is: u64, was: u64| {
        if is != was {
            let message = format!("the dump has {is} {what}, but the manifest says {was}");
            problems.push(Problem::new("dump_differs", message));
        }
    };
    differ("bytes", scan.bytes, manifest.dump.bytes);
    differ("rows", scan.rows(), manifest.dump.rows);
    differ("large objects", scan.large_objects, manifest.large_objects);
    problems.extend(tables(manifest, scan));
    problems.truncate(MAX_PROBLEMS);
    problems
}

fn tables(manifest: &Manifest, scan: &Scan) -> Vec<Problem> {
    let mut found: HashMap<(&str, &str), &Table> = scan
        .tables
        .iter()
        .map(|table| ((table.schema.as_str(), table.name.as_str()), table))
        .collect();
    let mut problems = Vec::new();
    for record in &manifest.tables {
        match found.remove(&(record.schema.as_str(), record.name.as_str())) {
            Some(table) => problems.extend(table_differs(record, table)),
            None => {
                let message = format!("table `{}` is not in the dump", record.full_name());
                problems.push(Problem::new("table_missing", message).of_table(record));
            }
        }
    }
    let mut unknown: Vec<&Table> = found.into_values().collect();
    unknown.sort_by_key(|table| (&table.schema, &table.name));
    problems.extend(unknown.into_iter().map(|table| {
        let message = format!("table `{}` is not in the manifest", table.full_name());
        Problem::new("table_unknown", message)
    }));
    problems
}

/// Compares one table. Its kind is left out: a later version may know kinds better without any byte having changed.
fn table_differs(record: &TableRecord, table: &Table) -> Option<Problem> {
    let name = record.full_name();
    let count = |rows: Option<u64>| {
        rows.map_or_else(|| "no rows".to_owned(), |rows| words::count(rows, "row"))
    };
    let blocks = record.blocks.iter().map(|record| record.block);
    let (id, message) = if record.rows != table.rows {
        let (is, was) = (count(table.rows), count(record.rows));
        (
            "rows_differ",
            format!("table `{name}` has {is}, but the manifest says {was}"),
        )
    } else if record.digest != table.digest || record.bytes != table.bytes {
        (
            "digest_differs",
            format!("the rows of table `{name}` do not match the manifest"),
        )
    } else if record.columns != table.columns {
        (
            "columns_differ",
            format!("the columns of table `{name}` do not match the manifest"),
        )
    } else if !blocks.eq(table.blocks.iter().copied()) {
        (
            "place_differs",
            format!("the rows of table `{name}` lie elsewhere than the manifest says"),
        )
    } else {
        return None;
    };
    Some(Problem::new(id, message).of_table(record))
}

impl TableRecord {
    /// Returns its name with schema.
    pub fn full_name(&self) -> TableName {
        TableName::new(self.schema.clone(), self.name.clone())
    }
}

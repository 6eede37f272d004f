//! What the judge knows of one backup: rows and raw bytes of its tables, with partitions summed up under their root.
//!
//! Nothing here depends on how a dump is compressed or encrypted.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::LimitRecord;
use crate::manifest::Manifest;
use crate::name::TableName;
use crate::scan::{Columns, Parent, RowDigest};

/// Stands for the large objects of a database among its tables.
const LARGE_OBJECTS: (&str, &str) = ("pg_catalog", "pg_largeobject");

/// Tells whether this stands for the large objects, which are in no table of the dump.
pub(super) fn is_large_objects(table: &TableName) -> bool {
    (table.schema_or_public(), table.name.as_str()) == LARGE_OBJECTS
}

/// One backup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Length of the uncompressed dump.
    pub dump_bytes: u64,
    /// How long the run took.
    pub took_ms: u64,
    /// Its tables; partitions count as their root alone.
    pub tables: HashMap<TableName, Amounts>,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Its rows.
    pub rows: u64,
    /// Raw bytes of its rows.
    pub bytes: u64,
    /// Stands for its columns; none where they are not known.
    pub columns: Option<u64>,
    /// Digest of its rows; none where there is none of some.
    pub digest: Option<RowDigest>,
}

/// One table, as a manifest has it.
pub(super) struct Part {
    pub table: TableName,
    pub parent: Option<TableName>,
    pub amounts: Amounts,
}

impl Sample {
    /// Makes the sample of a backup that was dumped just now.
    pub fn of(manifest: &Manifest) -> Self {
        let parts = manifest.tables.iter().map(|record| Part {
            table: record.full_name(),
            parent: record.parent.as_ref().map(name_of),
            amounts: Amounts {
                rows: record.rows.unwrap_or(0),
                bytes: record.bytes,
                columns: record.columns.as_ref().map(hash_of),
                digest: record.digest,
            },
        });
        let sample = Self {
            dump_bytes: manifest.dump.bytes,
            took_ms: took_ms(manifest.started_at, manifest.finished_at),
            tables: under_roots(parts.collect(), manifest.large_objects),
        };
        sample.with_limits(&manifest.limits)
    }

    /// Judges limited tables by the rows that were there, and not by those that were dumped.
    pub(super) fn with_limits(mut self, limits: &[LimitRecord]) -> Self {
        for limit in limits {
            let name = TableName::new(&limit.schema, &limit.name);
            if let Some(amounts) = self.tables.get_mut(&name) {
                let per_row = amounts.bytes / amounts.rows.max(1);
                *amounts = Amounts {
                    rows: limit.rows_total,
                    // About as many as all of them would have.
                    bytes: per_row.saturating_mul(limit.rows_total),
                    digest: None,
                    ..*amounts
                };
            }
        }
        self
    }
}

/// How long a run took.
pub(super) fn took_ms(started_at: Timestamp, finished_at: Timestamp) -> u64 {
    u64::try_from(finished_at.duration_since(started_at).as_millis()).unwrap_or(0)
}

pub(super) fn name_of(parent: &Parent) -> TableName {
    TableName::new(parent.schema.clone(), parent.name.clone())
}

/// Makes one number of a table's columns, in their order.
pub(super) fn hash_of(columns: &Columns) -> u64 {
    let mut text = Vec::new();
    for name in columns.iter() {
        text.extend_from_slice(name.as_bytes());
        text.push(0);
    }
    xxh3_64(&text)
}

/// Sums partitions up under their root, so that old ones may go and new ones come.
pub(super) fn under_roots(parts: Vec<Part>, large_objects: u64) -> HashMap<TableName, Amounts> {
    let parents: HashMap<TableName, TableName> = parts
        .iter()
        .filter_map(|part| Some((part.table.clone(), part.parent.clone()?)))
        .collect();
    let mut tables: HashMap<TableName, Amounts> = HashMap::with_capacity(parts.len() + 1);
    let mut summed: HashSet<TableName> = HashSet::new();
    for part in parts {
        let is_root = part.parent.is_none();
        let root = match part.parent {
            None => part.table,
            Some(parent) => root_of(parent, &parents),
        };
        let sum = tables.entry(root.clone()).or_default();
        sum.rows = sum.rows.saturating_add(part.amounts.rows);
        sum.bytes = sum.bytes.saturating_add(part.amounts.bytes);
        if is_root {
            sum.columns = part.amounts.columns;
            sum.digest = part.amounts.digest;
        } else {
            summed.insert(root);
        }
    }
    for root in summed {
        if let Some(sum) = tables.get_mut(&root) {
            // The rows of a root are in no one place, and its partitions change.
            (sum.columns, sum.digest) = (None, None);
        }
    }
    let (schema, name) = LARGE_OBJECTS;
    let objects = Amounts {
        rows: large_objects,
        ..Amounts::default()
    };
    tables.insert(TableName::new(schema, name), objects);
    tables
}

/// Follows parents upwards. A circle, which no dump has, ends where it began.
fn root_of(mut table: TableName, parents: &HashMap<TableName, TableName>) -> TableName {
    let mut steps = 0;
    while let Some(parent) = parents.get(&table).filter(|_| steps <= parents.len()) {
        table = parent.clone();
        steps += 1;
    }
    table
}

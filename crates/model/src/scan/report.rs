//! What a scan found out about a dump.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::digest::RowDigest;
use crate::name::{TableName, printable};
use crate::text_form::TextForm;

/// Id of the warning about rows that are no UTF-8 in a dump that says that it is.
pub const NOT_UTF8: &str = "rows_not_utf8";

/// Everything a scan found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scan {
    /// Length of the dump in bytes.
    pub bytes: u64,
    /// Whether every dump in the file is whole and nothing cut follows; the same as no problems.
    pub complete: bool,
    /// Whether every dump in the file reached its end marker, and there is one.
    pub end_marker: bool,
    /// Whether it was written by `pg_dumpall`.
    pub cluster: bool,
    /// The version of `pg_dump` in its own words.
    pub pg_dump_version: Option<String>,
    /// The server's version in its own words.
    pub server_version: Option<String>,
    /// The dump's `client_encoding`.
    pub client_encoding: Option<String>,
    /// The text form of its values, where somebody asked for it.
    #[serde(skip)]
    pub text_form: Option<TextForm>,
    /// All tables in the order in which they were met.
    pub tables: Vec<Table>,
    /// Where structure and data lie; empty in a cluster dump.
    pub sections: Vec<Section>,
    /// How many statements there are.
    #[serde(skip)]
    pub statements: u64,
    /// How many large objects are made.
    pub large_objects: u64,
    /// The values that sequences are set to, by name.
    #[serde(skip)]
    pub sequences: Vec<SequenceValue>,
    /// Extensions that the dump creates.
    pub extensions: Vec<String>,
    /// Roles that the dump names as owners or grantees, sorted.
    pub roles: Vec<String>,
    /// Tablespaces that the dump puts things into, sorted.
    #[serde(skip)]
    pub tablespaces: Vec<String>,
    /// Why the dump is not whole.
    pub problems: Vec<Finding>,
    /// What is odd and does no harm to completeness.
    pub warnings: Vec<Finding>,
}

/// One table of the dump.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// The database, where the file connects to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The schema's real name.
    pub schema: String,
    /// The table's real name.
    pub name: String,
    /// How the table is made; none where the dump holds only rows of it.
    pub kind: Option<TableKind>,
    /// What it is a partition of, in the same database; a table that merely inherits has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Rows in the dump; none where the dump holds no data of it.
    pub rows: Option<u64>,
    /// Bytes of its rows, line ends included.
    pub bytes: u64,
    /// Digest of its COPY rows; none without data and for INSERT statements, whose text is another.
    pub digest: Option<RowDigest>,
    /// Columns in the order of the COPY lines, where the dump names them.
    #[serde(skip)]
    pub columns: Option<Columns>,
    /// Where its COPY blocks lie, statement and closing line included.
    #[serde(skip)]
    pub blocks: Vec<Block>,
}

/// Names of a table's columns, in the order of its COPY lines.
///
/// Clones share them: of tens of thousands of tables they are most of what is known, and manifest, plan and comparison
/// each have a list of the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Arc<[String]>);

impl Deref for Columns {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl FromIterator<String> for Columns {
    fn from_iter<T: IntoIterator<Item = String>>(names: T) -> Self {
        Self(names.into_iter().collect())
    }
}

impl Serialize for Columns {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|names| Self(names.into()))
    }
}

/// What a sequence is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceValue {
    /// Its name, with schema.
    pub name: TableName,
    /// Its last value.
    pub value: i64,
    /// Whether that value was given out.
    pub is_called: bool,
}

/// The partitioned table that a partition belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parent {
    /// The schema's real name.
    pub schema: String,
    /// The table's real name.
    pub name: String,
}

/// How a table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// An ordinary table.
    Table,
    /// A partitioned table, which may itself be a partition.
    Partitioned,
    /// A leaf of a partitioned table.
    Partition,
    /// A foreign table.
    Foreign,
    /// An unlogged table, which may be a partition.
    Unlogged,
}

/// A run of bytes in the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Offset of its first byte in the uncompressed dump.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// A section of the dump, in `pg_dump`'s own terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// `pre-data`, `data` or `post-data`.
    pub name: SectionName,
    /// Where it lies.
    #[serde(flatten)]
    pub block: Block,
}

/// Names of sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SectionName {
    /// Schemas, types, tables.
    PreData,
    /// Rows, sequence values, large objects.
    Data,
    /// Indexes, constraints, triggers.
    PostData,
}

/// Something found on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name, such as `end_marker_missing`.
    pub id: String,
    /// What it is, in words.
    pub message: String,
    /// Offset in the uncompressed dump, where it has a place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset: Option<u64>,
}

impl Finding {
    /// Makes a finding. A message may hold names and text of the dump; control characters are escaped.
    pub fn new(id: &str, message: impl Into<String>, offset: Option<u64>) -> Self {
        Self {
            id: id.to_owned(),
            message: printable(&message.into()),
            offset,
        }
    }
}

/// Most findings of one kind that are worth reading. A file that is no dump may give one for each of its lines, and
/// memory must not grow with it.
const MAX_OF_A_KIND: usize = 5;

/// Adds a finding unless there are enough of its kind.
pub(super) fn note(findings: &mut Vec<Finding>, finding: Finding) {
    let of_its_kind = findings.iter().filter(|other| other.id == finding.id);
    if of_its_kind.count() < MAX_OF_A_KIND {
        findings.push(finding);
    }
}

impl TableKind {
    /// Tells whether such a table has rows of its own that a dump may hold.
    pub fn has_rows(self) -> bool {
        matches!(self, Self::Table | Self::Partition | Self::Unlogged)
    }

    /// Returns the kind as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Partitioned => "partitioned",
            Self::Partition => "partition",
            Self::Foreign => "foreign",
            Self::Unlogged => "unlogged",
        }
    }
}

impl Table {
    /// Makes a table of which nothing is known but its name.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            database: None,
            schema: schema.into(),
            name: name.into(),
            kind: None,
            parent: None,
            rows: None,
            bytes: 0,
            digest: None,
            columns: None,
            blocks: Vec::new(),
        }
    }

    /// Tells whether the dump creates it and it is the one that `name` means.
    pub fn is_made_as(&self, name: &TableName) -> bool {
        self.kind.is_some() && self.name == name.name && self.schema == name.schema_or_public()
    }

    /// Returns its name with schema.
    pub fn full_name(&self) -> TableName {
        TableName::new(self.schema.clone(), self.name.clone())
    }
}

impl Scan {
    /// Returns the table that the dump creates under `name`.
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.tables.iter().find(|table| table.is_made_as(name))
    }

    /// Returns the rows of a table and of all its partitions, their partitions included; none where the dump holds no
    /// data of any of them.
    ///
    /// `pg_dump` writes rows under the leaf that holds them or, loading through the root, under the root: each row
    /// stands in the dump once, so nothing is counted twice. A parent chain that runs in a circle, as only a forged
    /// file has one, ends where it began.
    pub fn rows_with_partitions(&self, table: &Table) -> Option<u64> {
        let mut partitions: HashMap<(&str, &str), Vec<&Table>> = HashMap::new();
        for other in &self.tables {
            if let Some(parent) = &other.parent
                && other.database == table.database
            {
                let key = (parent.schema.as_str(), parent.name.as_str());
                partitions.entry(key).or_default().push(other);
            }
        }
        let mut rows = None;
        let mut seen = HashSet::new();
        let mut next = vec![table];
        while let Some(table) = next.pop() {
            let key = (table.schema.as_str(), table.name.as_str());
            if seen.insert(key) {
                rows = add_some(rows, table.rows);
                next.extend(partitions.get(&key).into_iter().flatten());
            }
        }
        rows
    }

    /// Returns the sum of all rows.
    pub fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows).sum()
    }
}

fn add_some(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

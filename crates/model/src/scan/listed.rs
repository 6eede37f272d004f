//! Every statement of a dump with its place, and what it works on, for whoever carries statements out side by side.

use super::encoding::NameEncoding;
use crate::name::TableName;

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its semicolon.
    pub end: u64,
    /// What it works on.
    pub work: Work,
    /// How it is read.
    pub spoken: Spoken,
}

/// The settings of the session that a statement's text depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Whether plain literals know no backslash.
    pub standard_strings: bool,
    /// The encoding of its names.
    pub encoding: NameEncoding,
    /// Whether names without a schema are looked up anywhere.
    pub has_search_path: bool,
    /// The schema of a name that has none.
    pub schema: String,
}

/// What a statement works on, as far as it tells what may run beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Changes this setting of the session: `SET x = …`, `SELECT set_config(…)` of the search path.
    Setting(String),
    /// Builds an index of a table: `CREATE INDEX`, or a constraint that has one.
    Index {
        /// The table.
        table: TableName,
        /// Whether its partitions are left alone.
        is_only: bool,
    },
    /// Adds a foreign key, which locks both tables.
    ForeignKey {
        /// The table that refers.
        table: TableName,
        /// The table that is referred to.
        other: TableName,
    },
    /// Anything else: what stands in front of it may be needed by it, and it by what follows.
    Other,
}

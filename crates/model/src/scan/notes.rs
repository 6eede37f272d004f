//! What a scan notes besides what every scan tells, and how it hands that over.

use std::ops::Range;

use super::judged::Judged;
use super::listed::Listed;
use super::watch::Watch;
use crate::name::TableName;

/// What a scan notes besides.
#[derive(Debug, Default)]
pub enum Notes {
    /// Nothing.
    #[default]
    Nothing,
    /// What a restore has to judge.
    Judged {
        /// Also what statements are about.
        with_about: bool,
    },
    /// Every statement and what it works on.
    Statements,
    /// Where the rows of one table lie, and what its columns are.
    Rows(Box<Watch>),
}

impl Notes {
    /// Asks for the rows of one table. With `takes_any`, all rows are known to be its own, whatever name stands in
    /// front of them.
    pub fn rows_of(table: TableName, takes_any: bool) -> Self {
        Self::Rows(Box::new(Watch::new(table, takes_any)))
    }

    pub(super) fn is_judged(&self) -> bool {
        matches!(self, Self::Judged { .. })
    }

    pub(super) fn has_about(&self) -> bool {
        matches!(self, Self::Judged { with_about: true })
    }
}

/// What was found since it was last handed over, each in order.
#[derive(Debug, Default)]
pub struct Found {
    /// Offsets at which a table's COPY block begins or ends.
    pub cuts: Vec<u64>,
    /// What a restore has to judge.
    pub judged: Vec<Judged>,
    /// Where statements began that are judged, and whether plain literals know no backslash there.
    pub begun: Vec<(u64, bool)>,
    /// The statements that ended.
    pub statements: Vec<Listed>,
    /// Where rows of the table lie among the bytes taken; lines that close a block among them.
    pub rows: Vec<Range<u64>>,
}

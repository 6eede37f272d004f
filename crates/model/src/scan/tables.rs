//! The tables that a dump named so far, with the rows of each.

use std::collections::HashMap;

use super::report::{Block, Finding, NOT_UTF8, Parent, Table, TableKind};
use super::rows::Rows;
use super::statement::Made;

/// All tables met so far, found by database, schema and name.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) list: Vec<Met>,
    index: HashMap<(Option<String>, String, String), usize>,
    /// The one met last: the next INSERT is most likely of the same table, and needs no key made to look it up.
    last: usize,
    pub(super) with_rows: usize,
}

pub(super) struct Met {
    pub(super) table: Table,
    /// Dropped, or turned into a view, and not made again.
    pub(super) is_dropped: bool,
    /// Some rows came by INSERT, whose text has no digest.
    has_inserts: bool,
    /// Rows that are no UTF-8 where the dump says that they are, and the number of the first among all rows.
    bad_rows: u64,
    first_bad_row: Option<u64>,
}

/// A COPY block whose rows are being read.
pub(super) struct CopyBlock {
    pub(super) table: usize,
    pub(super) start: u64,
    pub(super) rows: Rows,
}

impl Tables {
    pub(super) fn find_or_add(
        &mut self,
        database: Option<&str>,
        schema: &str,
        name: &str,
    ) -> usize {
        let is_it = |met: &Met| met.table.name == name && met.table.schema == schema;
        if let Some(last) = self.list.get(self.last)
            && is_it(last)
            && last.table.database.as_deref() == database
        {
            return self.last;
        }
        let key = (
            database.map(str::to_owned),
            schema.to_owned(),
            name.to_owned(),
        );
        self.last = *self.index.entry(key).or_insert_with_key(|key| {
            let (database, schema, name) = key.clone();
            self.list.push(Met::new(database, schema, name));
            self.list.len() - 1
        });
        self.last
    }

    pub(super) fn add_block(&mut self, block: CopyBlock, end: u64) {
        let met = &mut self.list[block.table];
        self.with_rows += usize::from(met.table.rows.is_none());
        met.add_copied(&block, end);
    }

    pub(super) fn add_inserted(&mut self, at: usize, rows: u64, bytes: u64) {
        let met = &mut self.list[at];
        self.with_rows += usize::from(met.table.rows.is_none());
        met.add_inserted(rows, bytes);
    }

    /// Tells whether a table of the database itself was made, and not dropped again.
    pub(super) fn has_made(&self, schema: &str, name: &str) -> bool {
        let key = (None, schema.to_owned(), name.to_owned());
        let met = self.index.get(&key).map(|at| &self.list[*at]);
        met.is_some_and(|met| met.table.kind.is_some() && !met.is_dropped)
    }

    /// Names the tables with rows that the dump calls UTF-8 and that are not.
    pub(super) fn not_utf8(&self) -> Vec<Finding> {
        self.list
            .iter()
            .filter(|met| met.bad_rows > 0 && !met.is_dropped)
            .map(Met::not_utf8)
            .collect()
    }

    /// A table that was only dropped, or only named by a statement about it, is not in the dump.
    pub(super) fn into_list(self) -> Vec<Table> {
        let is_there =
            |met: &Met| !met.is_dropped && (met.table.kind.is_some() || met.table.rows.is_some());
        self.list
            .into_iter()
            .filter(is_there)
            .map(|met| met.table)
            .collect()
    }
}

impl Met {
    fn new(database: Option<String>, schema: String, name: String) -> Self {
        Self {
            table: Table {
                database,
                ..Table::new(schema, name)
            },
            is_dropped: false,
            has_inserts: false,
            bad_rows: 0,
            first_bad_row: None,
        }
    }

    /// A statement makes it, maybe anew.
    pub(super) fn create(&mut self, made: Made, parent: Option<Parent>) {
        if self.is_dropped {
            let table = &self.table;
            *self = Self::new(
                table.database.clone(),
                table.schema.clone(),
                table.name.clone(),
            );
        }
        self.table.kind.get_or_insert(match made {
            Made::Ordinary => TableKind::Table,
            Made::Unlogged => TableKind::Unlogged,
            Made::Foreign => TableKind::Foreign,
            Made::Partitioned => TableKind::Partitioned,
            Made::Partition => TableKind::Partition,
        });
        self.table.parent = parent.or(self.table.parent.take());
    }

    pub(super) fn attach(&mut self, parent: Parent) {
        if self.table.kind == Some(TableKind::Table) {
            self.table.kind = Some(TableKind::Partition);
        }
        self.table.parent = Some(parent);
    }

    fn not_utf8(&self) -> Finding {
        let rows = match self.bad_rows {
            1 => "1 row".to_owned(),
            rows => format!("{rows} rows"),
        };
        let message = format!(
            "{rows} of `{}` {} bytes that are not UTF-8 (the first is row {} of the dump): PostgreSQL refuses such \
             rows, so a restore fails until they are corrected in the database",
            self.table.full_name(),
            if self.bad_rows == 1 { "holds" } else { "hold" },
            self.first_bad_row.unwrap_or_default(),
        );
        Finding::new(NOT_UTF8, message, None)
    }

    fn add_copied(&mut self, block: &CopyBlock, end: u64) {
        let table = &mut self.table;
        let before = table.rows.unwrap_or(0);
        self.bad_rows += block.rows.bad_rows;
        let first = block.rows.first_bad_row.map(|row| before + row);
        self.first_bad_row = self.first_bad_row.or(first);
        table.rows = Some(before + block.rows.rows);
        table.bytes += block.rows.bytes;
        table.blocks.push(Block {
            offset: block.start,
            length: end - block.start,
        });
        if !self.has_inserts {
            table.digest.get_or_insert_default().add(block.rows.digest);
        }
    }

    fn add_inserted(&mut self, rows: u64, bytes: u64) {
        self.has_inserts = true;
        self.table.digest = None;
        self.table.rows = Some(self.table.rows.unwrap_or(0) + rows);
        self.table.bytes += bytes;
    }
}

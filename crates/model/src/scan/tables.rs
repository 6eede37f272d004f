//! The tables that a dump named so far, with the rows of each.

use std::collections::HashMap;

use super::report::{Block, Parent, Table, TableKind};
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

    fn add_copied(&mut self, block: &CopyBlock, end: u64) {
        let table = &mut self.table;
        table.rows = Some(table.rows.unwrap_or(0) + block.rows.rows);
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

//! Which tables a backup leaves out by choice, so that one that is not there is not taken for one that was dropped.

use std::collections::{HashMap, HashSet};

use crate::manifest::SelectionRecord;
use crate::name::{TableName, parse_schema};

/// What a selection takes.
pub struct Taken {
    tables: HashSet<TableName>,
    schemas: HashSet<String>,
    exclude_tables: HashSet<TableName>,
    exclude_schemas: HashSet<String>,
}

impl Taken {
    /// Reads a selection as the manifest records it; none takes all.
    pub fn new(selection: Option<&SelectionRecord>) -> Self {
        let nothing = SelectionRecord::default();
        let selection = selection.unwrap_or(&nothing);
        Self {
            tables: tables(&selection.tables),
            schemas: schemas(&selection.schemas),
            exclude_tables: tables(&selection.exclude_tables),
            exclude_schemas: schemas(&selection.exclude_schemas),
        }
    }

    /// Tells whether a table is left out, by its own name or by that of a table that it is a partition of.
    pub fn leaves_out(&self, table: &TableName, parents: &HashMap<TableName, TableName>) -> bool {
        let is_any = |names: &HashSet<TableName>| {
            let (mut at, mut seen) = (Some(table), HashSet::new());
            // What is no manifest of ours may go in a circle.
            while let Some(name) = at.filter(|name| seen.insert(*name)) {
                if names.contains(name) {
                    return true;
                }
                at = parents.get(name);
            }
            false
        };
        let schema = table.schema_or_public();
        let is_chosen = self.tables.is_empty() && self.schemas.is_empty()
            || is_any(&self.tables)
            || self.schemas.contains(schema);
        !is_chosen || self.exclude_schemas.contains(schema) || is_any(&self.exclude_tables)
    }
}

fn tables(texts: &[String]) -> HashSet<TableName> {
    let names = texts.iter().filter_map(|text| text.parse().ok());
    names
        .map(|name: TableName| TableName::new(name.schema_or_public(), name.name.clone()))
        .collect()
}

fn schemas(texts: &[String]) -> HashSet<String> {
    let names = texts.iter().filter_map(|text| parse_schema(text).ok());
    names.collect()
}

//! Compares the tables of two sides: rows, bytes, columns.

use std::collections::{BTreeMap, HashMap};

use super::selected::Taken;
use super::{Change, Column, ColumnChange, Held, NotCompared, Pair, RowsAre, Side, TableChange};
use crate::name::TableName;

/// Returns the tables that differ, and those that were not compared, each in the order of names.
pub(super) fn compare(from: &Side, to: &Side) -> (Vec<TableChange>, Vec<NotCompared>) {
    let tables = Tables {
        from,
        to,
        takes_from: Taken::new(from.selection.as_ref()),
        takes_to: Taken::new(to.selection.as_ref()),
        parents: parents(from).chain(parents(to)).collect(),
        is_same_form: from.form() == to.form(),
        changes: Vec::new(),
        not_compared: Vec::new(),
    };
    tables.compared()
}

fn parents(side: &Side) -> impl Iterator<Item = (TableName, TableName)> {
    let tables = side.tables.iter();
    tables.filter_map(|table| Some((table.name.clone(), table.parent.clone()?)))
}

struct Tables<'a> {
    from: &'a Side,
    to: &'a Side,
    takes_from: Taken,
    takes_to: Taken,
    parents: HashMap<TableName, TableName>,
    /// Whether digests of the two sides can be compared.
    is_same_form: bool,
    changes: Vec<TableChange>,
    not_compared: Vec<NotCompared>,
}

impl Tables<'_> {
    fn compared(mut self) -> (Vec<TableChange>, Vec<NotCompared>) {
        let mut both: BTreeMap<&TableName, (Option<&Held>, Option<&Held>)> = BTreeMap::new();
        for table in &self.from.tables {
            both.entry(&table.name).or_default().0 = Some(table);
        }
        for table in &self.to.tables {
            both.entry(&table.name).or_default().1 = Some(table);
        }
        for pair in both.into_values() {
            match pair {
                (Some(before), Some(now)) => self.both(before, now),
                (Some(before), None) => {
                    let is_left = self.takes_to.leaves_out(&before.name, &self.parents);
                    self.one(before, Change::Removed, is_left);
                }
                (None, Some(now)) => {
                    let is_left = self.takes_from.leaves_out(&now.name, &self.parents);
                    self.one(now, Change::Added, is_left);
                }
                (None, None) => {}
            }
        }
        (self.changes, self.not_compared)
    }

    fn one(&mut self, table: &Held, change: Change, is_left_out: bool) {
        // An extension's rows: what makes the table is no part of a dump.
        if table.kind.is_none() && (self.from.is_counted || self.to.is_counted) {
            return self.skip(
                &table.name,
                "it belongs to an extension, whose rows are not counted".to_owned(),
            );
        }
        if is_left_out {
            let of = if change == Change::Removed {
                "newer"
            } else {
                "older"
            };
            return self.skip(
                &table.name,
                format!("the selection of the {of} one leaves it out"),
            );
        }
        let pair = |value: Option<u64>| match change {
            Change::Removed => Pair::new(value, None),
            _ => Pair::new(None, value),
        };
        self.changes.push(TableChange {
            table: table.name.to_string(),
            change,
            kind: table.kind,
            rows: pair(table.rows),
            bytes: pair(table.bytes),
            rows_are: RowsAre::Unknown,
            columns: Vec::new(),
            notes: Vec::new(),
        });
    }

    fn both(&mut self, before: &Held, now: &Held) {
        let columns = self.columns(before, now);
        let mut notes = Vec::new();
        if let (Some(a), Some(b)) = (before.kind, now.kind)
            && a != b
        {
            notes.push(format!(
                "it was made as {}, and is now {}",
                a.as_str(),
                b.as_str()
            ));
        }
        if before.parent != now.parent && before.kind.is_some() && now.kind.is_some() {
            let words = |parent: &Option<TableName>| {
                let parent = parent.as_ref();
                parent.map_or("no table".to_owned(), |parent| format!("`{parent}`"))
            };
            notes.push(format!(
                "it was a partition of {}, and is now one of {}",
                words(&before.parent),
                words(&now.parent)
            ));
        }
        // No rows on one side are rows that nobody dumped or counted.
        if let (Some(_), None) | (None, Some(_)) = (before.rows, now.rows) {
            let side = if before.rows.is_none() {
                "older"
            } else {
                "newer"
            };
            self.skip(
                &before.name,
                format!("the {side} one does not have its rows"),
            );
        }
        let is_known = before.rows.is_some() && now.rows.is_some();
        let rows_are = self.rows(before, now);
        let is_other = is_known && (before.rows != now.rows || rows_are == RowsAre::Other);
        if !is_other && columns.is_empty() && notes.is_empty() {
            return;
        }
        self.changes.push(TableChange {
            table: before.name.to_string(),
            change: Change::Changed,
            kind: now.kind.or(before.kind),
            rows: Pair::new(before.rows, now.rows),
            bytes: Pair::new(before.bytes, now.bytes),
            rows_are,
            columns,
            notes,
        });
    }

    /// Only whether rows are the same can be told: a digest is a sum over all of them.
    fn rows(&self, before: &Held, now: &Held) -> RowsAre {
        if let (Some(a), Some(b)) = (before.rows, now.rows)
            && a != b
        {
            return RowsAre::Other;
        }
        match (before.digest, now.digest) {
            (Some(a), Some(b)) if before.columns == now.columns => {
                match (a == b, self.is_same_form) {
                    (true, _) => RowsAre::Same,
                    (false, true) => RowsAre::Other,
                    (false, false) => RowsAre::Unknown,
                }
            }
            _ => RowsAre::Unknown,
        }
    }

    fn skip(&mut self, table: &TableName, why: String) {
        self.not_compared.push(NotCompared {
            table: table.to_string(),
            why,
        });
    }

    /// Compares columns by their definitions, or by their names alone where only those are known.
    fn columns(&self, before: &Held, now: &Held) -> Vec<ColumnChange> {
        let defined = |side: &'_ Side, table: &Held| -> Option<Vec<Column>> {
            let structure = side.structure.as_ref()?;
            structure.columns_of(&table.name).map(<[Column]>::to_vec)
        };
        if let (Some(a), Some(b)) = (defined(self.from, before), defined(self.to, now)) {
            return changed(&a, &b, true);
        }
        let named = |table: &Held| -> Option<Vec<Column>> {
            let column = |name: &String| Column {
                name: name.clone(),
                definition: String::new(),
            };
            let columns = table.columns.as_ref()?;
            Some(columns.iter().map(column).collect())
        };
        match (named(before), named(now)) {
            (Some(a), Some(b)) => changed(&a, &b, false),
            _ => Vec::new(),
        }
    }
}

fn changed(before: &[Column], now: &[Column], is_defined: bool) -> Vec<ColumnChange> {
    let by_name = |columns: &[Column]| -> HashMap<String, String> {
        let pairs = columns.iter();
        pairs
            .map(|column| (column.name.clone(), column.definition.clone()))
            .collect()
    };
    if before == now {
        return Vec::new();
    }
    let (old, new) = (by_name(before), by_name(now));
    let text = |definition: &String| is_defined.then(|| definition.clone());
    let mut changes = Vec::new();
    for column in before {
        let (change, to) = match new.get(&column.name) {
            None => (Change::Removed, None),
            Some(definition) if *definition != column.definition => {
                (Change::Changed, text(definition))
            }
            Some(_) => continue,
        };
        changes.push(ColumnChange {
            column: column.name.clone(),
            change,
            from: text(&column.definition),
            to,
        });
    }
    let added = now.iter().filter(|column| !old.contains_key(&column.name));
    changes.extend(added.map(|column| ColumnChange {
        column: column.name.clone(),
        change: Change::Added,
        from: None,
        to: text(&column.definition),
    }));
    changes
}

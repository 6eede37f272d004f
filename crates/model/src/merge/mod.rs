//! How a table's dumped rows are merged into a table that is there: what prevents it, in which order, by which SQL.
//!
//! Everything here is pure. Names go into SQL quoted; what is compared is compared bit by bit, so that a value that is
//! equal and yet another (`1.0` and `1.00`, `a` and `A` in citext) counts as a change.

mod order;
pub mod script;
mod sql;

use serde::{Deserialize, Serialize};

use crate::name::{TableName, quote};

pub use order::parents_first;
pub use sql::{Mode, Plan};

/// A table of the target as its catalog tells it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct TargetTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `pg_class.relkind`; none when there is no such table.
    pub kind: Option<String>,
    /// Its columns.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// Its primary key.
    #[serde(default)]
    pub key: Option<Key>,
    /// Sequences that its columns take values from.
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    /// Triggers that would fire.
    #[serde(default)]
    pub triggers: Vec<Trigger>,
    /// Rules that would run for rows that are written.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Whether row-level security hides rows of it from us.
    #[serde(default)]
    pub hides_rows: bool,
    /// Whether it has row-level security, which only its owner and a superuser are free of.
    #[serde(default)]
    pub has_row_security: bool,
    /// Tables that its foreign keys refer to, as schema and name, but for keys that can wait for the end.
    #[serde(default)]
    pub references: Vec<(String, String)>,
}

/// One column.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether its values are computed.
    #[serde(default)]
    pub is_generated: bool,
    /// Whether it is GENERATED ALWAYS AS IDENTITY.
    #[serde(default)]
    pub is_identity_always: bool,
}

/// A primary key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Key {
    /// Whether it is checked at once, as ON CONFLICT wants it.
    pub is_immediate: bool,
    /// Its columns in order.
    pub columns: Vec<KeyColumn>,
}

/// One column of a key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// The key's own equality as `OPERATOR(schema.=)`; none where the index is no B-tree.
    pub equals: Option<String>,
}

/// A sequence behind a column.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Sequence {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The column.
    pub column: String,
    /// Its step.
    pub increment: i64,
}

/// A trigger.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Whether it fires on replicas, too.
    pub is_always: bool,
}

/// How many rows of a table are new, changed and as they were, with some of their keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that are not there.
    pub insert: u64,
    /// Rows that are there with other values.
    pub update: u64,
    /// Rows that are there as they were dumped.
    pub unchanged: u64,
    /// Keys of the first new rows, as text.
    #[serde(default)]
    pub insert_keys: Vec<Vec<String>>,
    /// Keys of the first changed rows.
    #[serde(default)]
    pub update_keys: Vec<Vec<String>>,
}

impl TargetTable {
    /// Returns its name.
    pub fn table_name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }

    /// Returns its name as SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// Its own rows only: children of an inheritance have COPY blocks of their own.
    fn only(&self) -> String {
        match self.kind.as_deref() {
            Some("p") => self.quoted(),
            _ => format!("ONLY {}", self.quoted()),
        }
    }

    /// Says why only its owner can merge rows into it, in the middle of a sentence; none where rights on it are enough.
    pub fn owner_needed(&self) -> Option<String> {
        let is_key = |column: &Column| {
            let key = self.key.iter().flat_map(|key| &key.columns);
            key.map(|key| &key.name).any(|name| *name == column.name)
        };
        let opened = |column: &&Column| column.is_identity_always && !is_key(column);
        if let Some(trigger) = self.triggers.first() {
            return Some(format!("to switch its trigger `{}` off", trigger.name));
        }
        if self.has_row_security {
            return Some("to see all its rows in spite of row-level security".to_owned());
        }
        let column = self.columns.iter().find(opened)?;
        Some(format!("to set its identity column `{}`", column.name))
    }

    /// Says why rows with these columns cannot be merged, in the middle of a sentence; nothing prevents it when
    /// there is none.
    pub fn problem(&self, columns: &[String], mode: Mode) -> Option<String> {
        match self.kind.as_deref() {
            None => return Some("it is not there".to_owned()),
            Some("r" | "p") => {}
            Some(_) => return Some("it is not an ordinary table there".to_owned()),
        }
        if columns.is_empty() {
            return Some("it has no columns".to_owned());
        }
        for name in columns {
            match self.columns.iter().find(|column| column.name == *name) {
                None => return Some(format!("it has no column `{name}` there")),
                Some(column) if column.is_generated => {
                    return Some(format!("its column `{name}` is generated there"));
                }
                Some(_) => {}
            }
        }
        if let Some(rule) = self.rules.first() {
            return Some(format!(
                "its rule `{rule}` would run for each row that is written"
            ));
        }
        if self.hides_rows {
            return Some(
                "row-level security hides some of its rows from the restoring role, so nothing can be merged or \
                 compared"
                    .to_owned(),
            );
        }
        match mode {
            Mode::Append => None,
            Mode::Upsert => self.key_problem(columns),
        }
    }

    /// Says why rows cannot be told apart by its primary key; nothing prevents it when there is none.
    pub fn key_problem(&self, columns: &[String]) -> Option<String> {
        let Some(key) = self.key.as_ref().filter(|key| !key.columns.is_empty()) else {
            return Some("it has no primary key".to_owned());
        };
        if !key.is_immediate {
            return Some(
                "its primary key is deferrable, so rows cannot be merged by it".to_owned(),
            );
        }
        if key.columns.iter().any(|column| column.equals.is_none()) {
            return Some("rows cannot be merged by its primary key".to_owned());
        }
        let missing = key
            .columns
            .iter()
            .find(|column| !columns.contains(&column.name));
        missing.map(|column| {
            format!(
                "the dump lacks the column `{}` of its primary key",
                column.name
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TargetTable {
        let column = |name: &str| Column {
            name: name.to_owned(),
            ..Column::default()
        };
        TargetTable {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            kind: Some("r".to_owned()),
            columns: vec![
                column("id"),
                Column {
                    is_generated: true,
                    ..column("g")
                },
                column("v"),
            ],
            key: Some(Key {
                is_immediate: true,
                columns: vec![KeyColumn {
                    name: "id".to_owned(),
                    equals: Some("OPERATOR(pg_catalog.=)".to_owned()),
                }],
            }),
            ..TargetTable::default()
        }
    }

    #[test]
    fn what_stands_against_a_merge_is_told() {
        let says = |change: &dyn Fn(&mut TargetTable), columns: &[&str], mode| {
            let mut table = table();
            change(&mut table);
            let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
            table.problem(&columns, mode).unwrap_or_default()
        };
        let (upsert, append) = (Mode::Upsert, Mode::Append);
        assert_eq!(says(&|_| {}, &["v", "id"], upsert), "");
        assert_eq!(says(&|t| t.key = None, &["id"], append), "");
        assert_eq!(
            says(&|t| t.key = None, &["id"], upsert),
            "it has no primary key"
        );
        assert_eq!(says(&|t| t.kind = None, &["id"], append), "it is not there");
        assert_eq!(
            says(&|t| t.kind = Some("v".into()), &["id"], append),
            "it is not an ordinary table there"
        );
        assert_eq!(
            says(&|_| {}, &["id", "x"], append),
            "it has no column `x` there"
        );
        assert_eq!(
            says(&|_| {}, &["id", "g"], append),
            "its column `g` is generated there"
        );
        assert_eq!(says(&|_| {}, &[], append), "it has no columns");
        assert_eq!(
            says(&|_| {}, &["v"], upsert),
            "the dump lacks the column `id` of its primary key"
        );
        let ruled = says(&|t| t.rules = vec!["r".into()], &["id"], append);
        assert!(ruled.contains("its rule `r` would run"), "{ruled}");
        let hidden = says(&|t| t.hides_rows = true, &["id"], upsert);
        assert!(hidden.contains("row-level security"), "{hidden}");
        let deferred = says(
            &|t| t.key.as_mut().unwrap().is_immediate = false,
            &["id"],
            upsert,
        );
        assert!(deferred.contains("deferrable"), "{deferred}");
        let odd = says(
            &|t| t.key.as_mut().unwrap().columns[0].equals = None,
            &["id"],
            upsert,
        );
        assert!(
            odd.contains("rows cannot be merged by its primary key"),
            "{odd}"
        );
    }
}

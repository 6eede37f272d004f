//! What differs between two backups of a database, or between a backup and what the database holds now.
//!
//! It compares values: manifests, structures that were read, rows that were counted. What cannot be compared is named and
//! never counted as a difference.

mod columns;
mod objects;
mod selected;
mod settings;
mod tables;
mod unified;

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use crate::manifest::{Manifest, SelectionRecord, Server, TableRecord};
use crate::name::TableName;
use crate::scan::{Columns, RowDigest, SequenceValue, Table, TableKind};
use crate::text_form::TextForm;

pub use columns::Column;
pub use objects::{Key, Object, Objects};
pub use selected::Taken;
pub use unified::unified;

/// One side of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// What the database is.
    pub server: Server,
    /// What is left out of it by choice.
    pub selection: Option<SelectionRecord>,
    /// Tables that it does not have whole, each in words.
    pub limits: Vec<String>,
    /// Rules of a hosting platform by which it was read.
    pub preset: Option<String>,
    /// Encoding of the text.
    pub encoding: Option<String>,
    /// Version of `pg_dump`.
    pub pg_dump: String,
    /// Its tables.
    pub tables: Vec<Held>,
    /// How many large objects it has; none where nobody counted them.
    pub large_objects: Option<u64>,
    /// Roles that it names; none where they are not known.
    pub roles: Option<Vec<String>>,
    /// Whether its rows were only counted, so that nobody knows their bytes.
    pub is_counted: bool,
    /// Its structure; none where it was not read.
    pub structure: Option<Objects>,
    /// What its sequences are set to; none where they were not read.
    pub sequences: Option<Vec<SequenceValue>>,
}

/// A table of one side.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Its name.
    pub name: TableName,
    /// How it is made; none where only its rows are known.
    pub kind: Option<TableKind>,
    /// What it is a partition of.
    pub parent: Option<TableName>,
    /// Columns that rows have.
    pub columns: Option<Columns>,
    /// Its rows; none where none are known.
    pub rows: Option<u64>,
    /// Bytes of its rows; none where they were only counted.
    pub bytes: Option<u64>,
    /// Digest of its rows.
    pub digest: Option<RowDigest>,
}

impl Held {
    /// Makes a table of which nothing is known but its name.
    pub fn new(name: TableName) -> Self {
        Self {
            name,
            kind: None,
            parent: None,
            columns: None,
            rows: None,
            bytes: None,
            digest: None,
        }
    }
}

impl From<Table> for Held {
    fn from(table: Table) -> Self {
        let parent = table.parent.as_ref();
        Self {
            name: table.full_name(),
            kind: table.kind,
            parent: parent.map(|parent| TableName::new(&parent.schema, &parent.name)),
            bytes: table.rows.map(|_| table.bytes),
            columns: table.columns,
            rows: table.rows,
            digest: table.digest,
        }
    }
}

impl From<&TableRecord> for Held {
    fn from(record: &TableRecord) -> Self {
        let parent = record.parent.as_ref();
        Self {
            name: record.full_name(),
            kind: record.kind,
            parent: parent.map(|parent| TableName::new(&parent.schema, &parent.name)),
            columns: record.columns.clone(),
            rows: record.rows,
            bytes: record.rows.map(|_| record.bytes),
            digest: record.digest,
        }
    }
}

impl From<&Manifest> for Side {
    fn from(manifest: &Manifest) -> Self {
        Self {
            server: manifest.server.clone(),
            selection: manifest.selection.clone(),
            limits: manifest
                .limits
                .iter()
                .map(crate::limits::LimitRecord::in_words)
                .collect(),
            preset: manifest.preset.clone(),
            encoding: manifest.dump.client_encoding.clone(),
            pg_dump: manifest.tools.pg_dump.clone(),
            tables: manifest.tables.iter().map(Held::from).collect(),
            large_objects: Some(manifest.large_objects),
            roles: Some(manifest.roles.clone()),
            is_counted: false,
            structure: None,
            sequences: None,
        }
    }
}

impl Side {
    /// Adds the structure that was read of a backup, the values of sequences among it.
    pub fn with_structure(mut self, mut structure: Objects) -> Self {
        self.sequences = Some(std::mem::take(&mut structure.sequences));
        // The side has its own, with their rows.
        structure.tables = Vec::new();
        self.structure = Some(structure);
        self
    }

    /// Tells in which form its rows were digested: digests of two forms say nothing about each other.
    fn form(&self) -> (TextForm, bool, Option<&str>) {
        let server = &self.server;
        (
            server.text_form(),
            server.fixed_text_form,
            self.encoding.as_deref(),
        )
    }

    fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows).sum()
    }
}

/// What became of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Only the newer side has it.
    Added,
    /// Only the older side has it.
    Removed,
    /// Both have it, and it is another.
    Changed,
}

/// A value on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// On the older side; none where nobody knows.
    pub from: Option<u64>,
    /// On the newer side.
    pub to: Option<u64>,
}

impl Pair {
    fn new(from: impl Into<Option<u64>>, to: impl Into<Option<u64>>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
        }
    }
}

/// Whether the rows of a table are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowsAre {
    /// The same rows, in whatever order.
    Same,
    /// Other rows; how many of them cannot be told.
    Other,
    /// Nobody knows: there are no digests of both, or they were made in different forms.
    Unknown,
}

/// A table that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableChange {
    /// Its name, as people write it.
    pub table: String,
    /// What became of it.
    pub change: Change,
    /// How it is made on the newer side that has it.
    pub kind: Option<TableKind>,
    /// Its rows.
    pub rows: Pair,
    /// Bytes of its rows.
    pub bytes: Pair,
    /// Whether the rows are the same.
    pub rows_are: RowsAre,
    /// Columns that differ.
    pub columns: Vec<ColumnChange>,
    /// What else is different, in words.
    pub notes: Vec<String>,
}

/// A column that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnChange {
    /// Its name.
    pub column: String,
    /// What became of it.
    pub change: Change,
    /// Its definition on the older side, where the structure tells it.
    pub from: Option<String>,
    /// On the newer side.
    pub to: Option<String>,
}

/// An object of the structure that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectChange {
    /// Its type in `pg_dump`'s words.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its schema; none for what lies in none.
    pub schema: Option<String>,
    /// Its name in `pg_dump`'s words.
    pub name: String,
    /// What became of it.
    pub change: Change,
}

/// A sequence whose value differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SequenceChange {
    /// Its name, as people write it.
    pub sequence: String,
    /// What it says on the older side.
    pub from: SequencePoint,
    /// On the newer side.
    pub to: SequencePoint,
}

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SequencePoint {
    /// Its last value.
    pub value: i64,
    /// Whether that value was given out; otherwise it is the next one.
    pub is_called: bool,
}

impl From<&SequenceValue> for SequencePoint {
    fn from(value: &SequenceValue) -> Self {
        Self {
            value: value.value,
            is_called: value.is_called,
        }
    }
}

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValueChange {
    /// Its name.
    pub name: String,
    /// On the older side; none where it is not set.
    pub from: Option<String>,
    /// On the newer side.
    pub to: Option<String>,
}

/// A name that only one side has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameChange {
    /// The name.
    pub name: String,
    /// Which side has it.
    pub change: Change,
}

/// A table that was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    /// Its name.
    pub table: String,
    /// Why not.
    pub why: String,
}

/// What was compared, and how large it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Tables.
    pub tables: Pair,
    /// Rows of all tables.
    pub rows: Pair,
    /// Bytes of all rows, as the dump has them.
    pub bytes: Pair,
    /// Size of the database on the server. It is no difference: vacuum changes it, too.
    pub database_bytes: Pair,
    /// Large objects.
    pub large_objects: Pair,
    /// Objects of the structure.
    pub objects: Pair,
}

/// Everything that differs. Lists are in the order of names, and empty where nothing does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Whether anything does.
    pub different: bool,
    /// What makes the two sides differ although the database may not: selections, versions, presets.
    pub remarks: Vec<String>,
    /// What was compared.
    pub totals: Totals,
    /// Tables.
    pub tables: Vec<TableChange>,
    /// Objects of the structure, tables among them.
    pub objects: Vec<ObjectChange>,
    /// Values of sequences.
    pub sequences: Vec<SequenceChange>,
    /// Extensions, by their versions.
    pub extensions: Vec<ValueChange>,
    /// What a plain dump leaves out: owner, locale, rights, settings of the database.
    pub settings: Vec<ValueChange>,
    /// Roles that the structure names.
    pub roles: Vec<NameChange>,
    /// Tables that were not compared.
    pub not_compared: Vec<NotCompared>,
}

impl fmt::Display for Key {
    /// Writes `TABLE public.users`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{} {schema}.{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Tells whether an object of one side alone is a difference: what a selection left out may be there all the same.
pub fn counts(key: &Key, from: &Side, to: &Side) -> bool {
    let has = |side: &Side| {
        let structure = side.structure.as_ref();
        structure.is_some_and(|structure| structure.by_key.contains_key(key))
    };
    from.selection == to.selection || has(from) && has(to)
}

/// Compares two sides, `from` being the older one.
pub fn compare(from: &Side, to: &Side) -> Difference {
    let mut remarks = remarks(from, to);
    let (tables, not_compared) = tables::compare(from, to);
    let (objects, left) = objects_of(from, to);
    if left > 0 {
        let objects = crate::words::count(left, "object");
        remarks.push(format!(
            "{objects} of one side alone {} not compared, because the selections differ",
            if left == 1 { "was" } else { "were" }
        ));
    }
    let totals = totals(from, to);
    let roles = match (&from.roles, &to.roles) {
        (Some(from), Some(to)) => settings::roles(from, to),
        _ => Vec::new(),
    };
    let difference = Difference {
        different: false,
        remarks,
        totals,
        tables,
        objects,
        sequences: sequences(from, to),
        extensions: settings::extensions(&from.server.extensions, &to.server.extensions),
        settings: settings::settings(&from.server, &to.server),
        roles,
        not_compared,
    };
    let large_objects = totals.large_objects;
    let is_other = matches!((large_objects.from, large_objects.to), (Some(a), Some(b)) if a != b);
    Difference {
        different: is_other || !difference.is_empty(),
        ..difference
    }
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.tables.is_empty()
            && self.objects.is_empty()
            && self.sequences.is_empty()
            && self.extensions.is_empty()
            && self.settings.is_empty()
            && self.roles.is_empty()
    }
}

fn totals(from: &Side, to: &Side) -> Totals {
    let tables = |side: &Side| side.tables.len() as u64;
    let bytes = |side: &Side| {
        let bytes = side.tables.iter().filter_map(|table| table.bytes);
        (!side.is_counted).then(|| bytes.sum())
    };
    let objects = |side: &Side| {
        let structure = side.structure.as_ref();
        structure.map(|structure| structure.by_key.len() as u64)
    };
    Totals {
        tables: Pair::new(tables(from), tables(to)),
        rows: Pair::new(from.rows(), to.rows()),
        bytes: Pair::new(bytes(from), bytes(to)),
        database_bytes: Pair::new(from.server.size_bytes, to.server.size_bytes),
        large_objects: Pair::new(from.large_objects, to.large_objects),
        objects: Pair::new(objects(from), objects(to)),
    }
}

/// Says what makes the sides differ although the database may be the same.
fn remarks(from: &Side, to: &Side) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut note = |what: &str, from: &str, to: &str| {
        if from != to {
            remarks.push(format!("{what}: {from} → {to}"));
        }
    };
    let all = |side: &Side| match &side.selection {
        Some(selection) => selection.in_words(),
        None => "the whole database".to_owned(),
    };
    note("the selections differ", &all(from), &all(to));
    let limits = |side: &Side| match side.limits.as_slice() {
        [] => "none".to_owned(),
        limits => limits.join("; "),
    };
    note("the row limits differ", &limits(from), &limits(to));
    let preset = |side: &Side| side.preset.clone().unwrap_or_else(|| "none".to_owned());
    note("the presets differ", &preset(from), &preset(to));
    note(
        "the server was updated",
        &from.server.version,
        &to.server.version,
    );
    let major = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
    if major(&from.pg_dump) != major(&to.pg_dump) {
        note(
            "the major versions of `pg_dump` differ, which may write the same structure in another form",
            &from.pg_dump,
            &to.pg_dump,
        );
    }
    let database = |side: &Side| format!("`{}`", side.server.database);
    note("the databases differ", &database(from), &database(to));
    let encoding = |side: &Side| side.encoding.clone().unwrap_or_default();
    note(
        "the encodings of the dumps differ, so rows are compared by their number",
        &encoding(from),
        &encoding(to),
    );
    let is_same_form = from.is_counted
        || to.is_counted
        || (from.form().0, from.form().1) == (to.form().0, to.form().1);
    if !is_same_form {
        remarks.push(
            "the text forms of the dumps differ, so rows are compared by their number".to_owned(),
        );
    }
    remarks
}

/// Compares the objects of both structures. Returns the changes, and how many were not compared.
fn objects_of(from: &Side, to: &Side) -> (Vec<ObjectChange>, u64) {
    let (Some(before), Some(after)) = (&from.structure, &to.structure) else {
        return (Vec::new(), 0);
    };
    let mut changes = Vec::new();
    let mut left = 0;
    let mut note = |key: &Key, change: Change| {
        if !counts(key, from, to) {
            left += 1;
            return;
        }
        changes.push(ObjectChange {
            kind: key.kind.clone(),
            schema: key.schema.clone(),
            name: key.name.clone(),
            change,
        });
    };
    for (key, object) in &before.by_key {
        match after.by_key.get(key) {
            None => note(key, Change::Removed),
            Some(now) if now.sql != object.sql => note(key, Change::Changed),
            Some(_) => {}
        }
    }
    let added = after.by_key.keys();
    for key in added.filter(|key| !before.by_key.contains_key(key)) {
        note(key, Change::Added);
    }
    changes.sort_by(|a, b| (&a.schema, &a.name, &a.kind).cmp(&(&b.schema, &b.name, &b.kind)));
    (changes, left)
}

/// Compares the values of the sequences that both sides have; the others are objects of the structure.
fn sequences(from: &Side, to: &Side) -> Vec<SequenceChange> {
    let (Some(before), Some(after)) = (&from.sequences, &to.sequences) else {
        return Vec::new();
    };
    let after: HashMap<&TableName, &SequenceValue> =
        after.iter().map(|value| (&value.name, value)).collect();
    let mut changes: Vec<SequenceChange> = before
        .iter()
        .filter_map(|value| Some((value, *after.get(&value.name)?)))
        .filter(|(value, now)| value != now)
        .map(|(value, now)| SequenceChange {
            sequence: value.name.to_string(),
            from: value.into(),
            to: now.into(),
        })
        .collect();
    changes.sort_by(|a, b| a.sequence.cmp(&b.sequence));
    changes
}

#[cfg(test)]
mod tests;

//! Says what a statement works on: the session, a table's indexes, two tables and the key between them.

use super::Statement;
use super::meaning::{Cursor, RawName};
use crate::name::TableName;
use crate::scan::listed::Work;

/// Looks at a whole statement. What is not known for sure is [`Work::Other`].
pub(super) fn work(statement: &Statement, table: &dyn Fn(RawName<'_>) -> TableName) -> Work {
    let mut cursor = Cursor::new(statement);
    let found = match cursor.next_word() {
        Some(b"set") => setting(cursor),
        Some(b"select") => search_path(cursor),
        Some(b"create") => index(cursor, table),
        Some(b"alter") => constraint(cursor, table),
        _ => None,
    };
    found.unwrap_or(Work::Other)
}

fn setting(mut cursor: Cursor<'_>) -> Option<Work> {
    if cursor.words(&["session", "authorization"]) {
        return Some(Work::Setting("session authorization".to_owned()));
    }
    while cursor.word("session") {}
    let name = String::from_utf8_lossy(cursor.next_word()?).into_owned();
    // `SET LOCAL`, `SET CONSTRAINTS` and `SET TRANSACTION` end with their transaction.
    let is_lasting = !matches!(name.as_str(), "local" | "constraints" | "transaction");
    is_lasting.then_some(Work::Setting(name))
}

/// `SELECT pg_catalog.set_config('search_path', '', false)`, the one call that pg_dump writes.
fn search_path(mut cursor: Cursor<'_>) -> Option<Work> {
    let is_set_config = cursor.name()?.name == b"set_config";
    is_set_config.then(|| Work::Setting("search_path".to_owned()))
}

/// `CREATE [UNIQUE] INDEX name ON [ONLY] table …`.
fn index(mut cursor: Cursor<'_>, table: &dyn Fn(RawName<'_>) -> TableName) -> Option<Work> {
    cursor.word("unique");
    if !cursor.word("index") || cursor.word("concurrently") || !cursor.seek(&["on"]) {
        return None;
    }
    let is_only = cursor.word("only");
    let table = table(cursor.name()?);
    Some(Work::Index { table, is_only })
}

/// `ALTER TABLE [ONLY] table ADD CONSTRAINT name PRIMARY KEY | UNIQUE | EXCLUDE | FOREIGN KEY …`.
fn constraint(mut cursor: Cursor<'_>, table: &dyn Fn(RawName<'_>) -> TableName) -> Option<Work> {
    cursor.word("table").then_some(())?;
    let is_only = cursor.word("only");
    let name = table(cursor.name()?);
    cursor.words(&["add", "constraint"]).then_some(())?;
    cursor.identifier()?;
    let is_key = cursor.words(&["foreign", "key"]);
    let has_index = !is_key
        && (cursor.words(&["primary", "key"]) || cursor.word("unique") || cursor.word("exclude"));
    let mut more = Cursor::new(cursor.statement());
    // A second clause in the same statement may do anything.
    if more.seek(&["add"]) && more.seek(&["add"]) {
        return None;
    }
    if has_index {
        return Some(Work::Index {
            table: name,
            is_only,
        });
    }
    if !is_key || !cursor.seek(&["references"]) {
        return None;
    }
    let other = table(cursor.name()?);
    Some(Work::ForeignKey { table: name, other })
}

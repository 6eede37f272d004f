//! Says what a statement is about: the schema it works in, and what else decides whether a hosting platform has it
//! already.

use super::Statement;
use super::meaning::Cursor;
use crate::scan::judged::{About, What};

/// Words between `CREATE` or `ALTER` and the kind.
const MODIFIERS: &[&str] = &["foreign", "materialized", "recursive", "unique", "unlogged"];

/// Tells whether a statement under way may be one that is about something: it is held until its end.
pub(super) fn may_be_about(statement: &Statement) -> bool {
    let first = Cursor::new(statement).next_word();
    matches!(first, Some(b"create" | b"comment"))
}

/// Looks at a whole statement.
pub(super) fn about(statement: &Statement) -> Option<About> {
    let mut cursor = Cursor::new(statement);
    let what = match cursor.next_word()? {
        b"create" => create(&mut cursor),
        b"alter" => alter(&mut cursor),
        b"comment" => cursor.word("on").then(|| described(&mut cursor)).flatten(),
        b"grant" | b"revoke" => cursor.seek(&["on"]).then(|| right(&mut cursor)).flatten(),
        b"set" | b"reset" => cursor
            .words(&["session", "authorization"])
            .then_some(What::Authorization),
        _ => None,
    }?;
    Some(About {
        what,
        owner: owner(statement),
        object: object(statement),
    })
}

fn owner(statement: &Statement) -> Option<String> {
    let mut cursor = Cursor::new(statement);
    (cursor.word("alter") && cursor.seek(&["owner", "to"])).then_some(())?;
    text(cursor.identifier()?)
}

fn create(cursor: &mut Cursor<'_>) -> Option<What> {
    cursor.words(&["or", "replace"]);
    cursor.word("constraint");
    pass_modifiers(cursor);
    let start = cursor.position();
    match cursor.next_word()? {
        b"schema" => {
            cursor.words(&["if", "not", "exists"]);
            schema(cursor, true)
        }
        b"index" => {
            cursor.word("concurrently");
            cursor.words(&["if", "not", "exists"]);
            cursor.identifier()?;
            object_behind(cursor, &["on"])
        }
        b"trigger" => {
            cursor.seek(&["on"]).then_some(())?;
            let table = path(cursor)?;
            let called = called(cursor);
            Some(What::Trigger {
                schema: table.schema(1)?,
                routine: called
                    .as_ref()
                    .and_then(|path| path.schema(1))
                    .unwrap_or_default(),
                on: table.whole(),
                calls: called.map(|path| path.whole()).unwrap_or_default(),
            })
        }
        b"policy" => Some(What::Policy),
        b"rule" => object_behind(cursor, &["to"]),
        b"event" => {
            cursor.word("trigger").then_some(())?;
            let name = text(cursor.identifier()?)?;
            let routine = routine(cursor);
            Some(What::EventTrigger { name, routine })
        }
        b"extension" => None,
        _ => {
            cursor.move_to(start);
            described(cursor)
        }
    }
}

fn alter(cursor: &mut Cursor<'_>) -> Option<What> {
    if cursor.words(&["default", "privileges"]) {
        let mut role = String::new();
        let mut schema = String::new();
        if cursor.words(&["for", "role"]) {
            role = text(cursor.identifier()?)?;
        }
        if cursor.words(&["in", "schema"]) {
            schema = text(cursor.identifier()?)?;
        }
        return Some(What::DefaultPrivileges { role, schema });
    }
    pass_modifiers(cursor);
    if !cursor.word("table") {
        return described(cursor);
    }
    cursor.words(&["if", "exists"]);
    let is_only = cursor.word("only");
    let schema = path(cursor)?.schema(1)?;
    if !cursor.words(&["add", "constraint"]) {
        return Some(What::Object { schema });
    }
    cursor.identifier()?;
    if !cursor.words(&["foreign", "key"]) {
        return Some(What::Object { schema });
    }
    cursor.seek(&["references"]).then_some(())?;
    let to = path(cursor)?.schema(1)?;
    Some(What::ForeignKey {
        schema,
        to,
        is_only,
    })
}

fn right(cursor: &mut Cursor<'_>) -> Option<What> {
    match described(cursor)? {
        What::Object { schema } | What::Schema { name: schema, .. } => Some(What::Right { schema }),
        other => Some(other),
    }
}

/// What stands behind `COMMENT ON`, `GRANT … ON` and most of `CREATE` and `ALTER`.
fn described(cursor: &mut Cursor<'_>) -> Option<What> {
    pass_modifiers(cursor);
    match cursor.next_word()? {
        b"schema" => schema(cursor, false),
        b"table" | b"view" | b"sequence" | b"index" | b"type" | b"domain" | b"function"
        | b"procedure" | b"aggregate" | b"routine" | b"collation" | b"conversion"
        | b"statistics" => {
            cursor.words(&["if", "not", "exists"]);
            let schema = path(cursor)?.schema(1)?;
            Some(What::Object { schema })
        }
        b"text" => {
            cursor.word("search").then_some(())?;
            cursor.next_word()?;
            let schema = path(cursor)?.schema(1)?;
            Some(What::Object { schema })
        }
        b"column" => {
            let schema = path(cursor)?.schema(2)?;
            Some(What::Object { schema })
        }
        b"trigger" | b"rule" | b"constraint" => {
            cursor.identifier()?;
            object_behind(cursor, &["on"])
        }
        b"policy" => Some(What::Policy),
        b"extension" => Some(What::Extension),
        b"event" => {
            cursor.word("trigger").then_some(())?;
            let name = text(cursor.identifier()?)?;
            Some(What::EventTrigger {
                name,
                routine: None,
            })
        }
        b"publication" => {
            let name = text(cursor.identifier()?)?;
            let is_about_tables = cursor.word("add");
            Some(What::Publication {
                name,
                is_about_tables,
            })
        }
        _ => None,
    }
}

fn pass_modifiers(cursor: &mut Cursor<'_>) {
    while MODIFIERS.iter().any(|word| cursor.word(word)) {}
}

fn schema(cursor: &mut Cursor<'_>, is_made: bool) -> Option<What> {
    let name = text(cursor.identifier()?)?;
    Some(What::Schema { name, is_made })
}

fn object_behind(cursor: &mut Cursor<'_>, words: &[&str]) -> Option<What> {
    cursor.seek(words).then_some(())?;
    let _ = cursor.word("only") || cursor.word("domain");
    let schema = path(cursor)?.schema(1)?;
    Some(What::Object { schema })
}

/// The schema of the routine that a trigger calls.
fn routine(cursor: &mut Cursor<'_>) -> Option<String> {
    called(cursor)?.schema(1)
}

fn called<'a>(cursor: &mut Cursor<'a>) -> Option<Path<'a>> {
    cursor.seek(&["execute"]).then_some(())?;
    (cursor.word("function") || cursor.word("procedure")).then_some(())?;
    path(cursor)
}

/// Names what a statement makes, as the facts about a target name what is there.
fn object(statement: &Statement) -> Option<String> {
    let mut cursor = Cursor::new(statement);
    match cursor.next_word()? {
        b"create" => created(&mut cursor),
        b"alter" => {
            pass_modifiers(&mut cursor);
            cursor.word("table").then_some(())?;
            cursor.words(&["if", "exists"]);
            cursor.word("only");
            let table = path(&mut cursor)?;
            cursor.words(&["add", "constraint"]).then_some(())?;
            let name = text(cursor.identifier()?)?;
            Some(format!("constraint {name} on {}", table.whole()))
        }
        b"grant" => {
            cursor.seek(&["on"]).then_some(())?;
            cursor.next_word()?;
            let on = path(&mut cursor)?;
            cursor.seek(&["to"]).then_some(())?;
            let role = text(cursor.identifier()?)?;
            Some(format!("right of {role} on {}", on.whole()))
        }
        _ => None,
    }
}

fn created(cursor: &mut Cursor<'_>) -> Option<String> {
    cursor.words(&["or", "replace"]);
    cursor.word("constraint");
    pass_modifiers(cursor);
    let kind = cursor.next_word()?;
    cursor.word("concurrently");
    cursor.words(&["if", "not", "exists"]);
    let kind = match kind {
        b"trigger" | b"index" | b"rule" => {
            let name = text(cursor.identifier()?)?;
            let to = if kind == b"rule" { "to" } else { "on" };
            cursor.seek(&[to]).then_some(())?;
            cursor.word("only");
            let kind = String::from_utf8_lossy(kind);
            return Some(format!("{kind} {name} on {}", path(cursor)?.whole()));
        }
        b"function" | b"procedure" => "function",
        b"table" => "table",
        b"view" => "view",
        b"sequence" => "sequence",
        b"type" | b"domain" => "type",
        _ => return None,
    };
    Some(format!("{kind} {}", path(cursor)?.whole()))
}

/// A name's parts.
struct Path<'a>(Vec<&'a [u8]>);

impl Path<'_> {
    /// Returns all of it.
    fn whole(&self) -> String {
        let parts: Vec<_> = self
            .0
            .iter()
            .map(|part| String::from_utf8_lossy(part))
            .collect();
        parts.join(".")
    }

    /// Returns the part that is the schema where so many follow; empty where none is written.
    fn schema(&self, following: usize) -> Option<String> {
        match self.0.len().checked_sub(following + 1) {
            Some(at) => text(self.0[at]),
            None => Some(String::new()),
        }
    }
}

fn path<'a>(cursor: &mut Cursor<'a>) -> Option<Path<'a>> {
    let mut parts = vec![cursor.identifier()?];
    while cursor.punct(b'.') {
        parts.push(cursor.identifier()?);
    }
    Some(Path(parts))
}

/// Names that decide here are ASCII in any encoding.
fn text(name: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(name).into_owned())
}

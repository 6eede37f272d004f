//! The columns of a `CREATE TABLE` as `pg_dump` writes it, each with the text that defines it.

use serde::Serialize;

use crate::scan::{Lexeme, LexemeKind, TextEncoding};

/// Words that begin a constraint of the table where a column could stand. As names of columns they are quoted.
const CONSTRAINTS: [&[u8]; 7] = [
    b"constraint",
    b"check",
    b"primary",
    b"unique",
    b"foreign",
    b"exclude",
    b"like",
];

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, with what stands behind that: `integer DEFAULT 0 NOT NULL`.
    pub definition: String,
}

/// Reads the columns of a statement out of its tokens; none where it has no list of them.
pub(super) fn read(sql: &[u8], tokens: &[Lexeme], encoding: TextEncoding) -> Vec<Column> {
    let Some(open) = tokens
        .iter()
        .position(|token| token.kind == LexemeKind::Punct(b'('))
    else {
        return Vec::new();
    };
    let (mut depth, mut items) = (0, Vec::new());
    let mut start = open + 1;
    for (at, token) in tokens.iter().enumerate().skip(open + 1) {
        match token.kind {
            LexemeKind::Punct(b'(' | b'[') => depth += 1,
            LexemeKind::Punct(b')') if depth == 0 => {
                items.push(&tokens[start..at]);
                break;
            }
            LexemeKind::Punct(b')' | b']') => depth -= 1,
            LexemeKind::Punct(b',') if depth == 0 => {
                items.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    let items = items.into_iter();
    items
        .filter_map(|item| column(sql, item, encoding))
        .collect()
}

fn column(sql: &[u8], item: &[Lexeme], encoding: TextEncoding) -> Option<Column> {
    let (name, rest) = item.split_first()?;
    let is_name = match name.kind {
        LexemeKind::Quoted => true,
        LexemeKind::Word => !CONSTRAINTS.contains(&name.text.as_slice()),
        _ => false,
    };
    let definition = match (rest.first(), rest.last()) {
        (Some(first), Some(last)) => sql.get(first.start..last.end).unwrap_or_default(),
        _ => b"",
    };
    is_name.then(|| Column {
        name: encoding.decode(&name.text).into_owned(),
        definition: encoding.decode(definition).into_owned(),
    })
}

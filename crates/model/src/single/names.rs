//! Names inside a statement: which others it speaks of, and the same statement with tables under another schema.
//!
//! A name is two tokens and a dot, at the places where pg_dump writes one, or a literal that is cast to `regclass`. Only
//! names of tables and sequences that move are changed; types, functions and all else stay where they are.

use std::collections::HashMap;

use crate::name::{TableName, quote};
use crate::restore::properties::literal;
use crate::scan::{Lexeme, LexemeKind, Spoken};

use super::subject::relation_literal;

/// The schema that each relation moves to.
pub type Moved = HashMap<TableName, String>;

/// A name with its schema, somewhere in a statement.
pub(super) struct Mention {
    pub name: TableName,
    /// Whether a parenthesis follows, as behind a function.
    pub is_call: bool,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// The schema is this token.
    Identifier(usize),
    /// All of it is this token.
    Literal(usize),
}

/// Words behind which a name with a parenthesis is a table and no function: `CREATE TABLE t (`, `REFERENCES t(id)`.
const BEFORE_TABLES: &[&str] = &[
    "copy",
    "exists",
    "into",
    "name",
    "of",
    "on",
    "only",
    "references",
    "statistics",
    "table",
];

/// Finds all names with a schema, those of the system apart.
pub(super) fn mentions(lexemes: &[Lexeme], spoken: &Spoken) -> Vec<Mention> {
    let decode = |lexeme: &Lexeme| spoken.encoding.decode(&lexeme.text).into_owned();
    let mut found = Vec::new();
    for (at, lexeme) in lexemes.iter().enumerate() {
        if lexeme.kind == LexemeKind::Literal {
            let name = relation_literal(&lexeme.text, spoken).filter(|_| is_relation(lexemes, at));
            found.extend(name.map(|name| Mention {
                name,
                is_call: false,
                place: Place::Literal(at),
            }));
            continue;
        }
        let is_behind_dot = at > 0 && lexemes[at - 1].kind == LexemeKind::Punct(b'.');
        let (Some(dot), Some(name)) = (lexemes.get(at + 1), lexemes.get(at + 2)) else {
            continue;
        };
        let is_name = is_identifier(lexeme)
            && !is_behind_dot
            && dot.kind == LexemeKind::Punct(b'.')
            && is_identifier(name);
        if !is_name || lexeme.text == b"pg_catalog" {
            continue;
        }
        let next = lexemes.get(at + 3).map(|next| next.kind);
        found.push(Mention {
            name: TableName::new(decode(lexeme), decode(name)),
            is_call: next == Some(LexemeKind::Punct(b'(')),
            place: Place::Identifier(at),
        });
    }
    found
}

fn is_identifier(lexeme: &Lexeme) -> bool {
    matches!(lexeme.kind, LexemeKind::Word | LexemeKind::Quoted)
}

/// Tells whether a literal names a relation: `'…'::regclass`, `('…'::text)::regclass`, `setval('…'`.
fn is_relation(lexemes: &[Lexeme], at: usize) -> bool {
    let is_word = |at: usize, word: &str| {
        lexemes
            .get(at)
            .is_some_and(|lexeme| lexeme.kind == LexemeKind::Word && lexeme.text == word.as_bytes())
    };
    let is_punct = |at: usize, byte: u8| {
        lexemes
            .get(at)
            .is_some_and(|lexeme| lexeme.kind == LexemeKind::Punct(byte))
    };
    let is_cast =
        |at: usize, to: &str| is_punct(at, b':') && is_punct(at + 1, b':') && is_word(at + 2, to);
    let is_set = at >= 2 && is_punct(at - 1, b'(') && is_word(at - 2, "setval");
    is_set
        || is_cast(at + 1, "regclass")
        || (is_cast(at + 1, "text") && is_punct(at + 4, b')') && is_cast(at + 5, "regclass"))
}

/// Returns a statement with the names of what moved changed, and nothing else.
pub fn rewritten(sql: &[u8], lexemes: &[Lexeme], spoken: &Spoken, moved: &Moved) -> Vec<u8> {
    let mut out = Vec::with_capacity(sql.len());
    let mut at = 0;
    for mention in mentions(lexemes, spoken) {
        let Some(schema) = moved.get(&mention.name) else {
            continue;
        };
        let (lexeme, text) = match mention.place {
            Place::Identifier(place) => {
                if mention.is_call && !is_table_behind(lexemes, place) {
                    continue;
                }
                (&lexemes[place], quote(schema))
            }
            Place::Literal(place) => {
                let name = format!("{}.{}", quote(schema), quote(&mention.name.name));
                (&lexemes[place], literal(&name))
            }
        };
        out.extend_from_slice(&sql[at..lexeme.start]);
        out.extend_from_slice(&spoken.encoding.encode(&text));
        at = lexeme.end;
    }
    out.extend_from_slice(&sql[at..]);
    out
}

fn is_table_behind(lexemes: &[Lexeme], place: usize) -> bool {
    let before = place.checked_sub(1).map(|before| &lexemes[before]);
    before.is_some_and(|before| {
        let word = std::str::from_utf8(&before.text).unwrap_or_default();
        before.kind == LexemeKind::Word && BEFORE_TABLES.binary_search(&word).is_ok()
    })
}

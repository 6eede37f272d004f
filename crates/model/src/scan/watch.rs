//! Watches one table while a dump is scanned: what types its columns have, and where its rows lie in each piece.

use std::collections::HashMap;

use super::encoding::NameEncoding;
use super::lexer::Token;
use super::report::{Columns, Table};
use crate::name::TableName;

/// Most columns that a table can have.
const MAX_COLUMNS: usize = 1600;

/// Words that begin a table's constraint; all are reserved, so a column of that name is quoted.
const CONSTRAINTS: [&[u8]; 6] = [
    b"constraint",
    b"check",
    b"like",
    b"primary",
    b"unique",
    b"foreign",
];

/// What a column's values are in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// JSON itself.
    Json,
    /// Text, and everything that JSON has no form for.
    Text,
}

impl ColumnKind {
    /// Tells by the first word of the type, as pg_dump writes it.
    fn of_type(word: &[u8]) -> Self {
        match word {
            b"smallint" | b"integer" | b"bigint" | b"numeric" | b"real" | b"double" | b"oid" => {
                Self::Number
            }
            b"boolean" => Self::Boolean,
            b"json" | b"jsonb" => Self::Json,
            _ => Self::Text,
        }
    }
}

/// What is known of the watched table.
#[derive(Debug)]
pub struct Watch {
    name: TableName,
    /// Rows count whatever their table is called: the bytes are known to be of the watched one.
    takes_any: bool,
    definition: Definition,
    kinds: HashMap<String, ColumnKind>,
    columns: Option<Columns>,
    tables: Vec<usize>,
    is_inside: bool,
}

impl Watch {
    pub(super) fn new(name: TableName, takes_any: bool) -> Self {
        Self {
            name,
            takes_any,
            definition: Definition::default(),
            kinds: HashMap::new(),
            columns: None,
            tables: Vec::new(),
            is_inside: false,
        }
    }

    /// Returns the columns in the order of the rows, once rows have begun.
    pub fn columns(&self) -> Option<&[String]> {
        self.columns.as_deref()
    }

    /// Returns what a column's values are in JSON, as far as the table's definition was met.
    pub fn kind(&self, column: &str) -> ColumnKind {
        self.kinds.get(column).copied().unwrap_or(ColumnKind::Text)
    }

    /// Tells whether tables of several databases have the name.
    pub fn is_ambiguous(&self) -> bool {
        self.tables.len() > 1
    }

    /// Returns the position of the table in the scan's list of everything that it met.
    pub(super) fn table(&self) -> Option<usize> {
        self.tables.first().copied()
    }

    pub(super) fn token(&mut self, token: Token<'_>, encoding: NameEncoding) {
        self.definition.take(token, encoding);
    }

    /// A statement ended; `made` names the table that it made.
    pub(super) fn statement_ends(&mut self, made: Option<(&str, &str)>) {
        let columns = std::mem::take(&mut self.definition).columns;
        if made.is_some_and(|(schema, name)| self.is_it(schema, name)) {
            self.kinds = columns.into_iter().collect();
        }
    }

    pub(super) fn copy_starts(&mut self, at: usize, table: &Table) {
        self.is_inside = self.takes_any || self.is_it(&table.schema, &table.name);
        if self.is_inside {
            let columns = || table.columns.clone().unwrap_or_default();
            self.columns.get_or_insert_with(columns);
            if !self.tables.contains(&at) {
                self.tables.push(at);
            }
        }
    }

    /// Tells whether the rows being read are its own.
    pub(super) fn is_inside(&self) -> bool {
        self.is_inside
    }

    fn is_it(&self, schema: &str, name: &str) -> bool {
        self.name.name == name && self.name.schema_or_public() == schema
    }
}

/// The statement under way, as far as it may make a table.
#[derive(Debug, Default)]
struct Definition {
    is_begun: bool,
    is_other: bool,
    /// `table` came.
    is_table: bool,
    depth: u32,
    /// The list of columns was closed.
    is_over: bool,
    item: Item,
    columns: Vec<(String, ColumnKind)>,
}

/// Where a column's definition stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Item {
    /// Its name comes next.
    #[default]
    Name,
    /// Its type comes next.
    Type,
    /// Behind the first word of its type, where a point or a bracket makes it another.
    Modifiers,
    /// What follows says nothing of its type.
    Rest,
}

impl Definition {
    fn take(&mut self, token: Token<'_>, encoding: NameEncoding) {
        if self.is_other || self.is_over || matches!(token, Token::Comment(_) | Token::Meta(_)) {
            return;
        }
        if !self.is_begun {
            self.is_begun = true;
            self.is_other = token != Token::Word(b"create");
            return;
        }
        match (self.depth, token) {
            (0, Token::Word(b"table")) => self.is_table = true,
            (0, Token::Punct(b'(')) if !self.is_table => self.is_other = true,
            (_, Token::Punct(b'(')) => self.depth += 1,
            (1, Token::Punct(b')')) => self.is_over = true,
            (_, Token::Punct(b')')) => self.depth = self.depth.saturating_sub(1),
            (1, token) => self.take_item(token, encoding),
            _ => {}
        }
    }

    fn take_item(&mut self, token: Token<'_>, encoding: NameEncoding) {
        if token == Token::Punct(b',') {
            self.item = Item::Name;
            return;
        }
        self.item = match (self.item, token) {
            (Item::Name, Token::Word(word)) if CONSTRAINTS.contains(&word) => Item::Rest,
            (Item::Name, Token::Word(name) | Token::Quoted(name))
                if self.columns.len() < MAX_COLUMNS =>
            {
                let name = encoding.decode(name).into_owned();
                self.columns.push((name, ColumnKind::Text));
                Item::Type
            }
            (Item::Type, Token::Word(word)) => {
                self.set_kind(ColumnKind::of_type(word));
                Item::Modifiers
            }
            (Item::Modifiers, Token::Punct(b'.' | b'[')) => {
                self.set_kind(ColumnKind::Text);
                Item::Rest
            }
            (Item::Modifiers, Token::Word(b"precision")) => Item::Modifiers,
            // `numeric(12,2)[]`: the numbers lie deeper, the bracket does not.
            _ => Item::Rest,
        };
    }

    fn set_kind(&mut self, kind: ColumnKind) {
        if let Some(column) = self.columns.last_mut() {
            column.1 = kind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Notes, Scanner};
    use super::*;

    fn scan(text: &str, name: &str, step: usize) -> (Scanner, Vec<u8>) {
        let mut scanner = Scanner::noting(Notes::rows_of(name.parse().unwrap(), false));
        let (mut rows, mut at) = (Vec::new(), 0);
        for piece in text.as_bytes().chunks(step) {
            scanner.push(piece);
            for range in scanner.take_found().rows {
                rows.extend_from_slice(
                    &piece[(range.start - at) as usize..(range.end - at) as usize],
                );
            }
            at += piece.len() as u64;
        }
        (scanner, rows)
    }

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n
CREATE TABLE public.other (id text, n text);
CREATE UNLOGGED TABLE public.\"My T\" (
    id integer DEFAULT nextval('public.s'::regclass) NOT NULL,
    \"check\" bigint,
    price numeric(12,2)[],
    total numeric(12,2) DEFAULT 0.0,
    ratio double precision,
    flag boolean DEFAULT false NOT NULL,
    body jsonb,
    tags integer[],
    kind public.json,
    name character varying(20) COLLATE \"C\",
    CONSTRAINT c CHECK ((id > 0))
);
CREATE INDEX i ON public.\"My T\" (id);
COPY public.other (id, n) FROM stdin;
1\tx
\\.
COPY public.\"My T\" (id, \"check\") FROM stdin;
1\t2
3\t4
\\.
";

    #[test]
    fn finds_rows_and_types_however_the_text_is_cut() {
        for step in [1, 2, 7, 100, 10_000] {
            let (scanner, rows) = scan(DUMP, "\"My T\"", step);
            assert_eq!(
                String::from_utf8(rows).unwrap(),
                "1\t2\n3\t4\n\\.\n",
                "{step}"
            );
            let watch = scanner.watch().unwrap();
            assert_eq!(watch.columns().unwrap(), ["id", "check"]);
            let kinds: Vec<ColumnKind> = [
                "id", "check", "price", "total", "ratio", "flag", "body", "tags", "kind", "name",
            ]
            .map(|column| watch.kind(column))
            .to_vec();
            let (number, text) = (ColumnKind::Number, ColumnKind::Text);
            let (flag, json) = (ColumnKind::Boolean, ColumnKind::Json);
            assert_eq!(
                kinds,
                [
                    number, number, text, number, number, flag, json, text, text, text
                ]
            );
        }
    }

    #[test]
    fn a_table_that_is_not_there_has_no_rows() {
        let (scanner, rows) = scan(DUMP, "absent", 50);
        assert!(rows.is_empty() && scanner.watch().unwrap().columns().is_none());
    }
}

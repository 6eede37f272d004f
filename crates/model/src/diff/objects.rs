//! The objects of a dump's structure, each with its SQL, whatever their order.
//!
//! `pg_dump` writes a comment in front of each object that says its type, schema and name. A comment counts only between two
//! statements, as the scanner tells them apart, so that one inside a function's body is none.

use std::collections::BTreeMap;

use super::columns::{self, Column};
use crate::name::TableName;
use crate::scan::{Listed, Notes, Scanner, SequenceValue, Table, TextEncoding, Work, lexemes};

/// What an object's comment begins with.
const NAME: &[u8] = b"-- Name: ";

/// What the comment in front of data begins with.
const DATA: &[u8] = b"-- Data for Name: ";

/// How much of a statement without a comment is its name.
const MAX_NAME: usize = 80;

/// The access method of a table that says nothing else.
const HEAP: &str = "heap";

/// Names an object as the dump's comment does. Objects sort by schema and name, so that what belongs together stands together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its schema; none for what lies in none.
    pub schema: Option<String>,
    /// Its name, with the table in front of it for parts of tables: `users users_pkey`.
    pub name: String,
    /// Its type in `pg_dump`'s words: `TABLE`, `FK CONSTRAINT`.
    pub kind: String,
}

impl Key {
    /// Names a statement that no comment announces, by its first line.
    fn of_statement(sql: &str) -> Self {
        let line = sql.lines().next().unwrap_or_default();
        Self {
            schema: None,
            name: line.chars().take(MAX_NAME).collect(),
            kind: "STATEMENT".to_owned(),
        }
    }

    fn of_data() -> Self {
        Self {
            schema: None,
            name: String::new(),
            kind: "TABLE DATA".to_owned(),
        }
    }

    /// Tells whether it is a table, which has columns.
    pub fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "TABLE" | "FOREIGN TABLE")
    }
}

/// One object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Its SQL, one statement behind the other, each with its line feed.
    pub sql: String,
    /// Its columns, where it is a table.
    pub columns: Vec<Column>,
}

/// All of a structure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// The objects.
    pub by_key: BTreeMap<Key, Object>,
    /// What sequences are set to; empty where the text has no values.
    pub sequences: Vec<SequenceValue>,
    /// Tables as the text makes them, without their rows.
    pub tables: Vec<Table>,
    /// Roles that the text names as owners or grantees, sorted.
    pub roles: Vec<String>,
}

impl Objects {
    /// Reads the text of a dump without its rows. Any bytes are read: what is no object is passed over.
    pub fn read(text: &[u8], encoding: TextEncoding) -> Self {
        let mut scanner = Scanner::noting(Notes::Statements);
        scanner.push(text);
        let statements = scanner.take_found().statements;
        let scan = scanner.finish();
        let mut reader = Reader {
            text,
            encoding,
            by_key: BTreeMap::new(),
            open: None,
            access_method: HEAP.to_owned(),
        };
        let mut behind = 0;
        for listed in &statements {
            let (start, end) = (place(text, listed.start), place(text, listed.end));
            reader.comments(behind, start);
            reader.statement(listed, start, end);
            behind = end.max(behind);
        }
        reader.comments(behind, text.len());
        reader.close();
        let by_key = reader.by_key.into_iter();
        Self {
            by_key: by_key.map(|(key, parts)| (key, parts.joined())).collect(),
            sequences: scan.sequences,
            tables: scan.tables,
            roles: scan.roles,
        }
    }

    /// Returns the columns of a table; none where the structure does not make it.
    pub fn columns_of(&self, table: &TableName) -> Option<&[Column]> {
        let found = ["TABLE", "FOREIGN TABLE"].into_iter().find_map(|kind| {
            self.by_key.get(&Key {
                schema: Some(table.schema_or_public().to_owned()),
                name: table.name.clone(),
                kind: kind.to_owned(),
            })
        });
        found.map(|object| object.columns.as_slice())
    }
}

fn place(text: &[u8], offset: u64) -> usize {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    offset.min(text.len())
}

struct Reader<'a> {
    text: &'a [u8],
    encoding: TextEncoding,
    by_key: BTreeMap<Key, Parts>,
    open: Option<Open>,
    /// The access method that tables get from here on.
    access_method: String,
}

/// An object whose statements are being read.
struct Open {
    key: Key,
    /// What its comment says besides.
    tablespace: Option<String>,
    statements: Vec<String>,
    columns: Vec<Column>,
}

impl Open {
    fn new(key: Key) -> Self {
        Self {
            key,
            tablespace: None,
            statements: Vec::new(),
            columns: Vec::new(),
        }
    }
}

impl Reader<'_> {
    /// Opens an object for each comment between two statements that names one.
    fn comments(&mut self, start: usize, end: usize) {
        let gap = self.text.get(start..end).unwrap_or_default();
        for line in gap.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            // What follows is data, large objects among it, up to the next object.
            if line.starts_with(DATA) {
                self.turn_to(Open::new(Key::of_data()));
                continue;
            }
            let Some(header) = line.strip_prefix(NAME) else {
                continue;
            };
            let header = self.encoding.decode(header).into_owned();
            if let Some((key, tablespace)) = header_of(&header) {
                self.turn_to(Open {
                    tablespace,
                    ..Open::new(key)
                });
            }
        }
    }

    fn turn_to(&mut self, open: Open) {
        self.close();
        self.open = Some(open);
    }

    fn statement(&mut self, listed: &Listed, start: usize, end: usize) {
        let sql = self.text.get(start..end).unwrap_or_default();
        // These hold for what follows, in whatever order that is; tablespaces stand in the comments, too.
        match &listed.work {
            Work::Setting(name) if name == "default_table_access_method" => {
                self.access_method = value_of(&listed.spoken.encoding.decode(sql));
                return;
            }
            Work::Setting(name) if name == "default_tablespace" => return,
            _ => {}
        }
        let spoken = &listed.spoken;
        if self.open.is_none() {
            if matches!(listed.work, Work::Setting(_)) {
                return;
            }
            // No object is announced: the statement is one by itself.
            let sql = spoken.encoding.decode(sql);
            self.turn_to(Open::new(Key::of_statement(&sql)));
            self.add(sql.into_owned());
            return self.close();
        }
        let Some(open) = &mut self.open else { return };
        if open.key.is_table() && open.statements.is_empty() {
            let tokens = lexemes(sql, spoken.standard_strings, spoken.encoding);
            open.columns = columns::read(sql, &tokens, spoken.encoding);
        }
        self.add(spoken.encoding.decode(sql).into_owned());
    }

    fn add(&mut self, statement: String) {
        if let Some(open) = &mut self.open {
            open.statements.push(statement);
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if !is_structure(&open.key) {
            return;
        }
        let mut sql = String::new();
        let has_storage = matches!(
            open.key.kind.as_str(),
            "TABLE" | "MATERIALIZED VIEW" | "INDEX" | "CONSTRAINT"
        );
        if let Some(tablespace) = open.tablespace.filter(|_| has_storage) {
            sql += &format!("SET default_tablespace = {tablespace};\n");
        }
        let has_method = matches!(open.key.kind.as_str(), "TABLE" | "MATERIALIZED VIEW");
        if has_method && self.access_method != HEAP {
            sql += &format!(
                "SET default_table_access_method = {};\n",
                self.access_method
            );
        }
        let mut statements = open.statements;
        if open.key.kind.ends_with("ACL") {
            sort_grants(&mut statements);
        }
        for statement in statements {
            sql += &statement;
            sql.push('\n');
        }
        let parts = self.by_key.entry(open.key).or_default();
        parts.sql.push(sql);
        if parts.columns.is_empty() {
            parts.columns = open.columns;
        }
    }
}

/// The texts under one name: mostly one, and several for default rights of several owners, whose order says nothing.
#[derive(Default)]
struct Parts {
    sql: Vec<String>,
    columns: Vec<Column>,
}

impl Parts {
    fn joined(mut self) -> Object {
        self.sql.sort();
        Object {
            sql: self.sql.concat(),
            columns: self.columns,
        }
    }
}

/// The server keeps rights in the order in which they were given, which changes nothing. Behind a change of the session's
/// user, what stands where does matter.
fn sort_grants(statements: &mut [String]) {
    let is_right = |statement: &String| {
        let begins = ["GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES "];
        begins.iter().any(|words| statement.starts_with(words))
    };
    if !statements.iter().all(is_right) {
        return;
    }
    statements.sort_by(|a, b| {
        // What is taken away comes first, as in a dump.
        let is_grant = |statement: &str| !statement.contains("REVOKE ");
        (is_grant(a), a).cmp(&(is_grant(b), b))
    });
}

/// Tells whether an object is structure: values of sequences, filled views and large objects are compared in other ways.
fn is_structure(key: &Key) -> bool {
    let is_large_object = key.name.starts_with("LARGE OBJECT");
    !is_large_object
        && !matches!(
            key.kind.as_str(),
            "SEQUENCE SET"
                | "TABLE DATA"
                | "MATERIALIZED VIEW DATA"
                | "STATISTICS DATA"
                | "BLOB"
                | "BLOBS"
                | "BLOB COMMENTS"
                | "BLOB METADATA"
        )
}

/// Reads `users; Type: TABLE; Schema: public; Owner: app; Tablespace: fast`. A name may hold any of these words, so they are
/// looked for from the end.
fn header_of(text: &str) -> Option<(Key, Option<String>)> {
    let (rest, owner) = text.rsplit_once("; Owner: ")?;
    let tablespace = owner.split_once("; Tablespace: ").map(|(_, name)| name);
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    let key = Key {
        schema: (schema != "-").then(|| schema.to_owned()),
        name: name.to_owned(),
        kind: kind.to_owned(),
    };
    Some((key, tablespace.map(str::to_owned)))
}

/// Returns what a `SET x = y;` sets.
fn value_of(sql: &str) -> String {
    let value = sql.split_once('=').map_or("", |(_, value)| value);
    value.trim().trim_end_matches(';').trim_end().to_owned()
}

//! Says what an ended statement means, from the tokens that were kept of it.
//!
//! Names stay where the statement keeps them: a dump in INSERT mode has a statement per row, and an allocation for each
//! would cost more than reading it.

use super::{Kind, RowCount, Statement, Stored};

/// A table's name as the statement wrote it: real bytes, unquoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct RawName<'a> {
    pub schema: Option<&'a [u8]>,
    pub name: &'a [u8],
}

/// How a CREATE TABLE makes its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) enum Made {
    Ordinary,
    Unlogged,
    Foreign,
    Partitioned,
    Partition,
}

/// What an ended statement means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scan) enum Meaning<'a> {
    CreateTable {
        name: RawName<'a>,
        made: Made,
        /// What it is a partition of.
        parent: Option<RawName<'a>>,
    },
    DropTables(Vec<RawName<'a>>),
    AttachPartition {
        name: RawName<'a>,
        parent: RawName<'a>,
    },
    /// `CREATE RULE "_RETURN" … ON SELECT TO x`: what was made as a table is a view (dumps of 9.6 and before).
    BecomesView(RawName<'a>),
    CopyFromStdin(RawName<'a>, Vec<&'a [u8]>),
    Insert(RawName<'a>, u64),
    /// The schemas of `search_path`, in order.
    SearchPath(Vec<Vec<u8>>),
    StandardStrings(bool),
    ClientEncoding(&'a [u8]),
    /// Sequence values and large objects: data that is no table.
    OtherData {
        large_object: bool,
    },
    /// `SELECT setval('name', value, is_called)` as pg_dump writes it; the name is quoted as SQL wants it.
    SequenceValue {
        name: &'a [u8],
        value: i64,
        is_called: bool,
    },
    Extension(&'a [u8]),
    /// Owners and grantees.
    Roles(Vec<&'a [u8]>),
    /// Indexes, constraints, triggers: what pg_dump writes behind the data.
    PostData,
    Other,
}

/// Tells whether what came so far is `CREATE [OR REPLACE] FUNCTION | PROCEDURE`.
pub(super) fn begins_routine(statement: &Statement) -> bool {
    let mut cursor = Cursor::new(statement);
    if !cursor.word("create") {
        return false;
    }
    cursor.words(&["or", "replace"]);
    cursor.word("function") || cursor.word("procedure")
}

/// Looks at a whole statement.
pub(super) fn meaning(statement: &Statement) -> Meaning<'_> {
    let mut cursor = Cursor::new(statement);
    let found = match cursor.next_word() {
        Some(b"create") => create(cursor),
        Some(b"alter") => alter(cursor),
        Some(b"drop") => drop_tables(cursor),
        Some(b"copy") => copy(cursor),
        Some(b"insert") => insert(cursor, statement.rows),
        Some(b"set") => set(cursor),
        Some(b"select") => select(cursor),
        Some(b"grant") => roles_behind(cursor, "to"),
        Some(b"revoke") => roles_behind(cursor, "from"),
        _ => None,
    };
    found.unwrap_or(Meaning::Other)
}

/// Walks over the kept tokens that stand outside parentheses.
pub(super) struct Cursor<'a> {
    statement: &'a Statement,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts in front of the first token.
    pub(super) fn new(statement: &'a Statement) -> Self {
        Self { statement, at: 0 }
    }

    /// Returns the statement that it walks over.
    pub(super) fn statement(&self) -> &'a Statement {
        self.statement
    }

    /// Returns how many kept tokens lie behind it.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Goes back to where it was.
    pub(super) fn move_to(&mut self, position: usize) {
        self.at = position;
    }

    /// Tells whether nothing follows.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.statement.stored.len()
    }

    fn peek(&self) -> Option<(Kind, &'a [u8])> {
        let stored = self.statement.stored.get(self.at)?;
        Some((stored.kind, &self.statement.text[stored.start..stored.end]))
    }

    fn next(&mut self) -> Option<(Kind, &'a [u8])> {
        let found = self.peek()?;
        self.at += 1;
        Some(found)
    }

    pub(super) fn next_word(&mut self) -> Option<&'a [u8]> {
        match self.peek()? {
            (Kind::Word, word) => {
                self.at += 1;
                Some(word)
            }
            _ => None,
        }
    }

    /// Takes `word` if it comes next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some((Kind::Word, word.as_bytes()));
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes all of `words` or none.
    pub(super) fn words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        let all = words.iter().all(|word| self.word(word));
        if !all {
            self.at = start;
        }
        all
    }

    pub(super) fn punct(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some((Kind::Punct(byte), b""));
        self.at += usize::from(is_next);
        is_next
    }

    pub(super) fn identifier(&mut self) -> Option<&'a [u8]> {
        match self.peek()? {
            (Kind::Word | Kind::Quoted, name) => {
                self.at += 1;
                Some(name)
            }
            _ => None,
        }
    }

    /// Takes `name`, `schema.name` or `database.schema.name`.
    pub(super) fn name(&mut self) -> Option<RawName<'a>> {
        let mut schema = None;
        let mut name = self.identifier()?;
        while self.punct(b'.') {
            schema = Some(name);
            name = self.identifier()?;
        }
        Some(RawName { schema, name })
    }

    /// Moves behind the next run of `words` outside parentheses.
    pub(super) fn seek(&mut self, words: &[&str]) -> bool {
        while let Some(stored) = self.statement.stored.get(self.at) {
            if stored.depth == 0 && self.words(words) {
                return true;
            }
            self.at += 1;
        }
        false
    }

    /// Takes the tokens inside the parentheses that open next.
    fn inside(&mut self) -> &'a [Stored] {
        if !self.punct(b'(') {
            return &[];
        }
        let rest = &self.statement.stored[self.at..];
        let length = rest
            .iter()
            .position(|stored| stored.depth == 0)
            .unwrap_or(rest.len());
        self.at += length;
        self.punct(b')');
        &rest[..length]
    }

    fn text(&self, stored: &Stored) -> &'a [u8] {
        &self.statement.text[stored.start..stored.end]
    }
}

fn create(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    let start = cursor.at;
    if let Some(meaning) = create_table(&mut cursor) {
        return Some(meaning);
    }
    cursor.at = start;
    cursor.words(&["or", "replace"]);
    match cursor.next_word()? {
        b"rule" => Some(create_rule(cursor).unwrap_or(Meaning::PostData)),
        b"extension" => {
            cursor.words(&["if", "not", "exists"]);
            cursor.identifier().map(Meaning::Extension)
        }
        b"policy" => Some(roles_behind(cursor, "to").unwrap_or(Meaning::PostData)),
        b"index" | b"unique" | b"trigger" | b"constraint" | b"publication" | b"subscription"
        | b"event" => Some(Meaning::PostData),
        _ => None,
    }
}

/// `CREATE [UNLOGGED | FOREIGN] TABLE [IF NOT EXISTS] name … [PARTITION OF … | PARTITION BY …]`; a temporary one is no
/// table of the dump.
fn create_table<'a>(cursor: &mut Cursor<'a>) -> Option<Meaning<'a>> {
    let mut made = Made::Ordinary;
    loop {
        match cursor.next_word()? {
            b"unlogged" => made = Made::Unlogged,
            b"foreign" => made = Made::Foreign,
            b"table" => break,
            _ => return None,
        }
    }
    cursor.words(&["if", "not", "exists"]);
    let name = cursor.name()?;
    let parent = if cursor.words(&["partition", "of"]) {
        Some(cursor.name()?)
    } else {
        None
    };
    if cursor.seek(&["partition", "by"]) {
        made = Made::Partitioned;
    } else if made == Made::Ordinary && parent.is_some() {
        made = Made::Partition;
    }
    Some(Meaning::CreateTable { name, made, parent })
}

fn create_rule(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    let is_view_rule = cursor.identifier()? == b"_RETURN";
    (is_view_rule && cursor.seek(&["on", "select", "to"])).then_some(())?;
    cursor.name().map(Meaning::BecomesView)
}

fn alter(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    let start = cursor.at;
    if cursor.words(&["default", "privileges"]) {
        return default_privileges(cursor);
    }
    cursor.words(&["foreign"]);
    if cursor.word("table") {
        cursor.words(&["if", "exists"]);
        cursor.word("only");
        let parent = cursor.name()?;
        if cursor.words(&["attach", "partition"]) {
            let name = cursor.name()?;
            return Some(Meaning::AttachPartition { name, parent });
        }
        if cursor.words(&["add", "constraint"]) {
            return Some(Meaning::PostData);
        }
    }
    cursor.at = start;
    cursor
        .seek(&["owner", "to"])
        .then(|| Meaning::Roles(role_list(&mut cursor)))
}

fn default_privileges(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    let mut roles = Vec::new();
    if cursor.words(&["for", "role"]) {
        roles = role_list(&mut cursor);
    }
    let verb = if cursor.seek(&["grant"]) {
        "to"
    } else {
        "from"
    };
    if let Some(Meaning::Roles(more)) = roles_behind(cursor, verb) {
        roles.extend(more);
    }
    Some(Meaning::Roles(roles))
}

fn roles_behind<'a>(mut cursor: Cursor<'a>, word: &str) -> Option<Meaning<'a>> {
    cursor
        .seek(&[word])
        .then(|| Meaning::Roles(role_list(&mut cursor)))
}

/// Takes `a, "B", c`; `PUBLIC` and `CURRENT_USER` are no roles.
fn role_list<'a>(cursor: &mut Cursor<'a>) -> Vec<&'a [u8]> {
    let mut roles = Vec::new();
    loop {
        cursor.word("group");
        let is_word = matches!(cursor.peek(), Some((Kind::Word, _)));
        let Some(role) = cursor.identifier() else {
            return roles;
        };
        let is_pseudo = is_word
            && matches!(
                role,
                b"public" | b"current_user" | b"session_user" | b"current_role"
            );
        if !is_pseudo {
            roles.push(role);
        }
        if !cursor.punct(b',') {
            return roles;
        }
    }
}

fn drop_tables(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    cursor.word("foreign");
    cursor.word("table").then_some(())?;
    cursor.words(&["if", "exists"]);
    let mut names = vec![cursor.name()?];
    while cursor.punct(b',') {
        names.push(cursor.name()?);
    }
    Some(Meaning::DropTables(names))
}

fn copy(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    let name = cursor.name()?;
    let inside = cursor.inside();
    let columns = inside
        .iter()
        .filter(|stored| matches!(stored.kind, Kind::Word | Kind::Quoted))
        .map(|stored| cursor.text(stored))
        .collect();
    cursor
        .seek(&["from", "stdin"])
        .then_some(Meaning::CopyFromStdin(name, columns))
}

fn insert(mut cursor: Cursor<'_>, rows: RowCount) -> Option<Meaning<'_>> {
    cursor.word("into").then_some(())?;
    let name = cursor.name()?;
    let rows = match rows {
        RowCount::Counting(0) | RowCount::Done(0) => 1, // DEFAULT VALUES
        RowCount::Counting(rows) | RowCount::Done(rows) => rows,
        RowCount::BeforeValues => return None, // INSERT … SELECT: nobody can tell
    };
    Some(Meaning::Insert(name, rows))
}

fn set(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    while cursor.word("session") || cursor.word("local") {}
    let setting = cursor.next_word()?;
    let assigned = cursor.punct(b'=') || cursor.word("to");
    match setting {
        b"search_path" if assigned => Some(Meaning::SearchPath(path(cursor))),
        b"standard_conforming_strings" if assigned => {
            let (_, value) = cursor.next()?;
            Some(Meaning::StandardStrings(!matches!(
                value,
                b"off" | b"false" | b"no" | b"0"
            )))
        }
        b"client_encoding" if assigned => cursor
            .next()
            .map(|(_, value)| Meaning::ClientEncoding(value)),
        b"names" => cursor
            .next()
            .map(|(_, value)| Meaning::ClientEncoding(value)),
        _ => None,
    }
}

/// The schemas of a `SET search_path = a, "B", 'c'`.
fn path(mut cursor: Cursor<'_>) -> Vec<Vec<u8>> {
    let mut schemas = Vec::new();
    while let Some((kind, text)) = cursor.next() {
        if matches!(kind, Kind::Word | Kind::Quoted | Kind::Literal) && !text.is_empty() {
            schemas.push(text.to_vec());
        }
    }
    schemas
}

fn select(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    let function = cursor.name()?.name;
    match function {
        b"set_config" => {
            let literals: Vec<&[u8]> = cursor
                .inside()
                .iter()
                .filter(|stored| stored.kind == Kind::Literal)
                .map(|stored| cursor.text(stored))
                .collect();
            match literals.as_slice() {
                [b"search_path", value, ..] => Some(Meaning::SearchPath(split_path(value))),
                _ => None,
            }
        }
        b"setval" => Some(sequence_value(cursor).unwrap_or(Meaning::OtherData {
            large_object: false,
        })),
        b"lo_create" | b"lo_creat" => Some(Meaning::OtherData { large_object: true }),
        b"lo_open" | b"lowrite" | b"lo_close" | b"loread" => Some(Meaning::OtherData {
            large_object: false,
        }),
        _ => None,
    }
}

/// `('name', 7, true)`, or without its last part; an expression instead of a value is known to the server alone.
fn sequence_value(mut cursor: Cursor<'_>) -> Option<Meaning<'_>> {
    let inside: Vec<(Kind, &[u8])> = cursor
        .inside()
        .iter()
        .map(|stored| (stored.kind, cursor.text(stored)))
        .collect();
    let (name, rest) = match inside.as_slice() {
        [(Kind::Literal, name), (Kind::Punct(b','), _), rest @ ..] => (*name, rest),
        _ => return None,
    };
    let (sign, rest) = match rest {
        [(Kind::Punct(b'-'), _), rest @ ..] => ("-", rest),
        rest => ("", rest),
    };
    let (number, is_called) = match rest {
        [(Kind::Number, number)] => (number, true),
        [
            (Kind::Number, number),
            (Kind::Punct(b','), _),
            (Kind::Word, word),
        ] => (number, *word == b"true"),
        _ => return None,
    };
    let value = format!("{sign}{}", std::str::from_utf8(number).ok()?);
    let value = value.parse().ok().filter(|_| cursor.is_at_end())?;
    Some(Meaning::SequenceValue {
        name,
        value,
        is_called,
    })
}

/// Splits the text of a search path: `public, "My Schema"`.
fn split_path(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|&b| b == b',')
        .map(|part| part.trim_ascii())
        .filter(|part| !part.is_empty())
        .map(|part| {
            match part
                .strip_prefix(b"\"")
                .and_then(|part| part.strip_suffix(b"\""))
            {
                Some(quoted) => quoted.to_vec(),
                None => part.to_ascii_lowercase(),
            }
        })
        .collect()
}

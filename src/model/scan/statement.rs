//! Understands the few statements of a dump that matter: which tables it makes, whose rows follow, which settings
//! change how names are read.
//!
//! It gathers the tokens outside parentheses (and the column list of a COPY) and looks at them once, when the
//! statement ends. What it does not know it passes over.

use super::lexer::Token;

/// Most tokens kept of a statement outside parentheses: enough for every clause that matters.
const MAX_TOKENS: usize = 256;

/// Most tokens kept inside parentheses: names and commas of the 1,600 columns that a table can have.
const MAX_COPY_TOKENS: usize = 4096;

/// Words that can begin a statement. A line that begins with any other is no SQL: a program's warning, a prompt.
const COMMANDS: &[&str] = &[
    "abort",
    "alter",
    "analyze",
    "begin",
    "call",
    "checkpoint",
    "close",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "deallocate",
    "declare",
    "delete",
    "discard",
    "do",
    "drop",
    "end",
    "execute",
    "explain",
    "fetch",
    "grant",
    "import",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "move",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "select",
    "set",
    "show",
    "start",
    "table",
    "truncate",
    "unlisten",
    "update",
    "vacuum",
    "values",
    "with",
];

/// A table's name as the statement wrote it: real bytes, unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawName {
    pub schema: Option<Vec<u8>>,
    pub name: Vec<u8>,
}

/// How a CREATE TABLE makes its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    Ordinary,
    Unlogged,
    Foreign,
    Partitioned,
    Partition,
}

/// What an ended statement means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    CreateTable(RawName, Made),
    DropTables(Vec<RawName>),
    AttachPartition(RawName),
    /// `CREATE RULE "_RETURN" … ON SELECT TO x`: what was made as a table is a view (dumps of 9.6 and before).
    BecomesView(RawName),
    CopyFromStdin(RawName, Vec<Vec<u8>>),
    Insert(RawName, u64),
    /// The schemas of `search_path`, in order.
    SearchPath(Vec<Vec<u8>>),
    StandardStrings(bool),
    ClientEncoding(Vec<u8>),
    /// Sequence values and large objects: data that is no table.
    OtherData {
        large_object: bool,
    },
    Extension(Vec<u8>),
    /// Owners and grantees.
    Roles(Vec<Vec<u8>>),
    /// Indexes, constraints, triggers: what pg_dump writes behind the data.
    PostData,
    Other,
}

/// What a token did to the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// The line is no SQL.
    Noise,
    /// The statement is whole.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Quoted,
    Literal,
    Number,
    Punct(u8),
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    kind: Kind,
    depth: u32,
    start: usize,
    end: usize,
}

/// One statement under way.
#[derive(Debug, Default)]
pub(super) struct Statement {
    start: u64,
    stored: Vec<Stored>,
    text: Vec<u8>,
    kept_outside: usize,
    kept_inside: usize,
    is_empty: bool,
    depth: u32,
    begin_depth: u32,
    is_routine: bool,
    first: Option<First>,
    rows: RowCount,
}

/// The first word, where it changes what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Copy,
    Insert,
    Select,
    Set,
    Other,
}

/// Counts the rows of an INSERT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RowCount {
    #[default]
    BeforeValues,
    Counting(u64),
    Done(u64),
}

impl Statement {
    pub(super) fn new() -> Self {
        Self {
            is_empty: true,
            ..Self::default()
        }
    }

    /// Tells whether nothing of a statement has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Returns the offset of its first byte.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Tells whether the text of literals is of interest.
    pub(super) fn wants_literals(&self) -> bool {
        matches!(self.first, Some(First::Select | First::Set)) && self.stored.len() < 64
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.stored.clear();
        self.text.clear();
        (self.kept_outside, self.kept_inside) = (0, 0);
        self.is_empty = true;
        (self.depth, self.begin_depth) = (0, 0);
        self.is_routine = false;
        self.first = None;
        self.rows = RowCount::BeforeValues;
    }

    /// Takes a token that starts at `offset`. Comments and backslash commands are not for it.
    pub(super) fn take(&mut self, token: Token<'_>, offset: u64) -> Step {
        if self.is_empty {
            match begin(token) {
                Begin::Nothing => return Step::More,
                Begin::Noise => return Step::Noise,
                Begin::Statement(first) => self.first = Some(first),
            }
            self.is_empty = false;
            self.start = offset;
        }
        match token {
            Token::Word(word) => self.take_word(word),
            Token::Quoted(name) => self.keep(Kind::Quoted, name),
            Token::Literal(text) => self.keep(Kind::Literal, text),
            Token::Number => self.keep(Kind::Number, b""),
            Token::Punct(byte) => return self.take_punct(byte),
            Token::Comment(_) | Token::Meta(_) => {}
        }
        Step::More
    }

    /// Follows `BEGIN ATOMIC … END` of SQL-standard function bodies by the rules of psql.
    fn take_word(&mut self, word: &[u8]) {
        self.keep(Kind::Word, word);
        if self.depth > 0 {
            return;
        }
        if !self.is_routine && self.stored.len() <= 4 && matches!(word, b"function" | b"procedure")
        {
            let mut cursor = self.cursor();
            self.is_routine = cursor.word("create") && {
                cursor.words(&["or", "replace"]);
                cursor.word("function") || cursor.word("procedure")
            };
        }
        match word {
            b"begin" if self.is_routine => self.begin_depth += 1,
            b"case" if self.begin_depth > 0 => self.begin_depth += 1,
            b"end" => self.begin_depth = self.begin_depth.saturating_sub(1),
            b"values" | b"on" if self.first == Some(First::Insert) => self.take_insert_word(word),
            _ => {}
        }
    }

    fn take_insert_word(&mut self, word: &[u8]) {
        self.rows = match (self.rows, word) {
            (RowCount::BeforeValues, b"values") => RowCount::Counting(0),
            (RowCount::Counting(rows), b"on") => RowCount::Done(rows),
            (rows, _) => rows,
        };
    }

    fn take_punct(&mut self, byte: u8) -> Step {
        match byte {
            b'(' => {
                self.keep(Kind::Punct(byte), b"");
                if let (0, RowCount::Counting(rows)) = (self.depth, &mut self.rows) {
                    *rows += 1;
                }
                self.depth += 1;
            }
            b')' => {
                self.depth = self.depth.saturating_sub(1);
                self.keep(Kind::Punct(byte), b"");
            }
            b';' if self.depth == 0 && self.begin_depth == 0 => return Step::Ended,
            _ => self.keep(Kind::Punct(byte), b""),
        }
        Step::More
    }

    fn keep(&mut self, kind: Kind, text: &[u8]) {
        let kept = if self.depth == 0 {
            &mut self.kept_outside
        } else {
            &mut self.kept_inside
        };
        let limit = match (self.depth, self.first) {
            (0, Some(First::Insert)) => 16,
            (0, _) => MAX_TOKENS,
            (1, Some(First::Copy)) => MAX_COPY_TOKENS,
            (1, Some(First::Select)) => 16,
            _ => 0,
        };
        if *kept < limit {
            *kept += 1;
            let start = self.text.len();
            self.text.extend_from_slice(text);
            self.stored.push(Stored {
                kind,
                depth: self.depth,
                start,
                end: self.text.len(),
            });
        }
    }

    fn cursor(&self) -> Cursor<'_> {
        Cursor {
            statement: self,
            at: 0,
        }
    }

    /// Says what the ended statement means.
    pub(super) fn meaning(&self) -> Meaning {
        let mut cursor = self.cursor();
        let found = match cursor.next_word() {
            Some(b"create") => create(cursor),
            Some(b"alter") => alter(cursor),
            Some(b"drop") => drop_tables(cursor),
            Some(b"copy") => copy(cursor),
            Some(b"insert") => self.insert(cursor),
            Some(b"set") => set(cursor),
            Some(b"select") => select(cursor),
            Some(b"grant") => roles_behind(cursor, "to"),
            Some(b"revoke") => roles_behind(cursor, "from"),
            _ => None,
        };
        found.unwrap_or(Meaning::Other)
    }

    fn insert(&self, mut cursor: Cursor<'_>) -> Option<Meaning> {
        cursor.word("into").then_some(())?;
        let name = cursor.name()?;
        let rows = match self.rows {
            RowCount::Counting(0) | RowCount::Done(0) => 1, // DEFAULT VALUES
            RowCount::Counting(rows) | RowCount::Done(rows) => rows,
            RowCount::BeforeValues => return None, // INSERT … SELECT: nobody can tell
        };
        Some(Meaning::Insert(name, rows))
    }
}

enum Begin {
    Nothing,
    Noise,
    Statement(First),
}

fn begin(token: Token<'_>) -> Begin {
    match token {
        Token::Punct(b';') => Begin::Nothing,
        Token::Punct(b'(') => Begin::Statement(First::Other),
        Token::Word(word) => match word {
            b"copy" => Begin::Statement(First::Copy),
            b"insert" => Begin::Statement(First::Insert),
            b"select" => Begin::Statement(First::Select),
            b"set" => Begin::Statement(First::Set),
            _ if is_command(word) => Begin::Statement(First::Other),
            _ => Begin::Noise,
        },
        _ => Begin::Noise,
    }
}

fn is_command(word: &[u8]) -> bool {
    std::str::from_utf8(word).is_ok_and(|word| COMMANDS.binary_search(&word).is_ok())
}

/// Walks over the kept tokens that stand outside parentheses.
struct Cursor<'a> {
    statement: &'a Statement,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<(Kind, &'a [u8])> {
        let stored = self.statement.stored.get(self.at)?;
        Some((stored.kind, &self.statement.text[stored.start..stored.end]))
    }

    fn next(&mut self) -> Option<(Kind, &'a [u8])> {
        let found = self.peek()?;
        self.at += 1;
        Some(found)
    }

    fn next_word(&mut self) -> Option<&'a [u8]> {
        match self.peek()? {
            (Kind::Word, word) => {
                self.at += 1;
                Some(word)
            }
            _ => None,
        }
    }

    /// Takes `word` if it comes next.
    fn word(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some((Kind::Word, word.as_bytes()));
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes all of `words` or none.
    fn words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        let all = words.iter().all(|word| self.word(word));
        if !all {
            self.at = start;
        }
        all
    }

    fn punct(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some((Kind::Punct(byte), b""));
        self.at += usize::from(is_next);
        is_next
    }

    fn identifier(&mut self) -> Option<&'a [u8]> {
        match self.peek()? {
            (Kind::Word | Kind::Quoted, name) => {
                self.at += 1;
                Some(name)
            }
            _ => None,
        }
    }

    /// Takes `name`, `schema.name` or `database.schema.name`.
    fn name(&mut self) -> Option<RawName> {
        let mut schema = None;
        let mut name = self.identifier()?;
        while self.punct(b'.') {
            schema = Some(name.to_vec());
            name = self.identifier()?;
        }
        Some(RawName {
            schema,
            name: name.to_vec(),
        })
    }

    /// Moves behind the next run of `words` outside parentheses.
    fn seek(&mut self, words: &[&str]) -> bool {
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

fn create(mut cursor: Cursor<'_>) -> Option<Meaning> {
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
            cursor
                .identifier()
                .map(|name| Meaning::Extension(name.to_vec()))
        }
        b"policy" => Some(roles_behind(cursor, "to").unwrap_or(Meaning::PostData)),
        b"index" | b"unique" | b"trigger" | b"constraint" | b"publication" | b"subscription"
        | b"event" => Some(Meaning::PostData),
        _ => None,
    }
}

/// `CREATE [UNLOGGED | FOREIGN] TABLE [IF NOT EXISTS] name … [PARTITION OF … | PARTITION BY …]`; a temporary one is no
/// table of the dump.
fn create_table(cursor: &mut Cursor<'_>) -> Option<Meaning> {
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
    let behind_name = cursor.at;
    if cursor.seek(&["partition", "by"]) {
        made = Made::Partitioned;
    } else {
        cursor.at = behind_name;
        if made == Made::Ordinary && cursor.words(&["partition", "of"]) {
            made = Made::Partition;
        }
    }
    Some(Meaning::CreateTable(name, made))
}

fn create_rule(mut cursor: Cursor<'_>) -> Option<Meaning> {
    let is_view_rule = cursor.identifier()? == b"_RETURN";
    (is_view_rule && cursor.seek(&["on", "select", "to"])).then_some(())?;
    cursor.name().map(Meaning::BecomesView)
}

fn alter(mut cursor: Cursor<'_>) -> Option<Meaning> {
    let start = cursor.at;
    if cursor.words(&["default", "privileges"]) {
        return default_privileges(cursor);
    }
    cursor.words(&["foreign"]);
    if cursor.word("table") {
        cursor.words(&["if", "exists"]);
        cursor.word("only");
        cursor.name()?;
        if cursor.words(&["attach", "partition"]) {
            return cursor.name().map(Meaning::AttachPartition);
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

fn default_privileges(mut cursor: Cursor<'_>) -> Option<Meaning> {
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

fn roles_behind(mut cursor: Cursor<'_>, word: &str) -> Option<Meaning> {
    cursor
        .seek(&[word])
        .then(|| Meaning::Roles(role_list(&mut cursor)))
}

/// Takes `a, "B", c`; `PUBLIC` and `CURRENT_USER` are no roles.
fn role_list(cursor: &mut Cursor<'_>) -> Vec<Vec<u8>> {
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
            roles.push(role.to_vec());
        }
        if !cursor.punct(b',') {
            return roles;
        }
    }
}

fn drop_tables(mut cursor: Cursor<'_>) -> Option<Meaning> {
    cursor.word("foreign");
    cursor.word("table").then_some(())?;
    cursor.words(&["if", "exists"]);
    let mut names = vec![cursor.name()?];
    while cursor.punct(b',') {
        names.push(cursor.name()?);
    }
    Some(Meaning::DropTables(names))
}

fn copy(mut cursor: Cursor<'_>) -> Option<Meaning> {
    let name = cursor.name()?;
    let inside = cursor.inside();
    let columns = inside
        .iter()
        .filter(|stored| matches!(stored.kind, Kind::Word | Kind::Quoted))
        .map(|stored| cursor.text(stored).to_vec())
        .collect();
    cursor
        .seek(&["from", "stdin"])
        .then_some(Meaning::CopyFromStdin(name, columns))
}

fn set(mut cursor: Cursor<'_>) -> Option<Meaning> {
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
            .map(|(_, value)| Meaning::ClientEncoding(value.to_vec())),
        b"names" => cursor
            .next()
            .map(|(_, value)| Meaning::ClientEncoding(value.to_vec())),
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

fn select(mut cursor: Cursor<'_>) -> Option<Meaning> {
    let function = cursor.name()?.name;
    match function.as_slice() {
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
        b"setval" => Some(Meaning::OtherData {
            large_object: false,
        }),
        b"lo_create" | b"lo_creat" => Some(Meaning::OtherData { large_object: true }),
        b"lo_open" | b"lowrite" | b"lo_close" | b"loread" => Some(Meaning::OtherData {
            large_object: false,
        }),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::super::lexer::Lexer;
    use super::*;

    fn meaning(sql: &str) -> Meaning {
        let (mut lexer, mut statement) = (Lexer::new(), Statement::new());
        let mut rest = sql.as_bytes();
        while !rest.is_empty() {
            lexer.keep_strings = statement.wants_literals();
            let (taken, token) = lexer.next(rest);
            rest = &rest[taken..];
            if token.is_some_and(|(start, token)| statement.take(token, start) == Step::Ended) {
                assert!(
                    rest.trim_ascii().is_empty(),
                    "ended early in {sql:?}: {:?} is left",
                    String::from_utf8_lossy(rest)
                );
                return statement.meaning();
            }
        }
        panic!("{sql:?} has no end");
    }

    fn raw(schema: &str, name: &str) -> RawName {
        RawName {
            schema: Some(schema.into()),
            name: name.into(),
        }
    }

    #[test]
    fn commands_are_sorted_for_the_search() {
        assert!(COMMANDS.is_sorted());
    }

    #[test]
    fn knows_every_way_to_make_a_table() {
        let t = || raw("public", "t");
        for (sql, made) in [
            ("CREATE TABLE public.t (a int);", Made::Ordinary),
            (
                "CREATE TABLE IF NOT EXISTS \"public\".\"t\" (a int);",
                Made::Ordinary,
            ),
            ("CREATE TABLE public.t ();", Made::Ordinary),
            (
                "CREATE TABLE public.t (a int)\nINHERITS (public.p)\nWITH (fillfactor='70');",
                Made::Ordinary,
            ),
            (
                "CREATE TABLE public.t (c text DEFAULT 'partition by') ;",
                Made::Ordinary,
            ),
            ("CREATE UNLOGGED TABLE public.t (a int);", Made::Unlogged),
            (
                "CREATE FOREIGN TABLE public.t (a int)\nSERVER s;",
                Made::Foreign,
            ),
            (
                "CREATE TABLE public.t (a int)\nPARTITION BY RANGE (lower(a));",
                Made::Partitioned,
            ),
            (
                "CREATE TABLE public.t PARTITION OF public.p FOR VALUES FROM (1) TO (2);",
                Made::Partition,
            ),
            (
                "CREATE TABLE public.t PARTITION OF public.p DEFAULT\nPARTITION BY LIST (b);",
                Made::Partitioned,
            ),
            (
                "CREATE TABLE public.t OF public.pair (PRIMARY KEY (x));",
                Made::Ordinary,
            ),
        ] {
            assert_eq!(meaning(sql), Meaning::CreateTable(t(), made), "{sql}");
        }
    }

    #[test]
    fn takes_no_other_thing_for_a_table() {
        for sql in [
            "CREATE VIEW public.users AS SELECT 1;",
            "CREATE MATERIALIZED VIEW public.users AS SELECT 1;",
            "CREATE TEMPORARY TABLE users (a int);",
            "CREATE TYPE public.users AS (a int);",
            "COMMENT ON TABLE public.users IS 'CREATE TABLE public.users (';",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;",
            "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END;",
            "INSERT INTO t SELECT 1;",
        ] {
            assert_eq!(meaning(sql), Meaning::Other, "{sql}");
        }
        assert_eq!(
            meaning(
                "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2););"
            ),
            Meaning::PostData
        );
    }

    #[test]
    fn reads_copy_with_its_columns() {
        let columns = vec![b"id".to_vec(), b"a b".to_vec()];
        assert_eq!(
            meaning("COPY app.\"X y\" (id, \"a b\") FROM stdin;"),
            Meaning::CopyFromStdin(raw("app", "X y"), columns)
        );
        assert_eq!(
            meaning("COPY public.z  FROM stdin;"),
            Meaning::CopyFromStdin(raw("public", "z"), vec![])
        );
        assert_eq!(meaning("COPY (SELECT 1) TO STDOUT;"), Meaning::Other);
    }

    #[test]
    fn counts_inserted_rows() {
        for (sql, rows) in [
            ("INSERT INTO s.t VALUES (1, 'a)(', f(2));", 1),
            ("INSERT INTO s.t (a, b) VALUES (1, 2), (3, 4),\n(5, 6);", 3),
            ("INSERT INTO s.t DEFAULT VALUES;", 1),
            (
                "INSERT INTO s.t (a) OVERRIDING SYSTEM VALUE VALUES (1), (2);",
                2,
            ),
            (
                "INSERT INTO s.t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = (2);",
                1,
            ),
            ("INSERT INTO s.t (\"values\") VALUES ('on'), ('x');", 2),
        ] {
            assert_eq!(meaning(sql), Meaning::Insert(raw("s", "t"), rows), "{sql}");
        }
    }

    #[test]
    fn follows_settings() {
        let path = |parts: &[&str]| {
            Meaning::SearchPath(parts.iter().map(|p| p.as_bytes().to_vec()).collect())
        };
        assert_eq!(
            meaning("SET search_path = public, pg_catalog;"),
            path(&["public", "pg_catalog"])
        );
        assert_eq!(
            meaning("SET search_path TO \"$user\", \"My Schema\";"),
            path(&["$user", "My Schema"])
        );
        assert_eq!(
            meaning("SELECT pg_catalog.set_config('search_path', '', false);"),
            path(&[])
        );
        assert_eq!(
            meaning("SELECT set_config('search_path', 'a, \"B\"', false);"),
            path(&["a", "B"])
        );
        assert_eq!(
            meaning("SET standard_conforming_strings = off;"),
            Meaning::StandardStrings(false)
        );
        assert_eq!(
            meaning("SET client_encoding = 'LATIN1';"),
            Meaning::ClientEncoding(b"LATIN1".to_vec())
        );
    }

    #[test]
    fn gathers_roles() {
        let roles =
            |names: &[&str]| Meaning::Roles(names.iter().map(|n| n.as_bytes().to_vec()).collect());
        assert_eq!(
            meaning("ALTER TABLE public.t OWNER TO \"A b\";"),
            roles(&["A b"])
        );
        assert_eq!(
            meaning("ALTER FUNCTION f(owner text) OWNER TO bob;"),
            roles(&["bob"])
        );
        assert_eq!(
            meaning("GRANT SELECT(a) ON TABLE t TO PUBLIC, x WITH GRANT OPTION;"),
            roles(&["x"])
        );
        assert_eq!(meaning("REVOKE ALL ON SCHEMA s FROM y;"), roles(&["y"]));
        assert_eq!(
            meaning("ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT ALL ON TABLES TO b;"),
            roles(&["a", "b"])
        );
        assert_eq!(
            meaning("CREATE POLICY p ON t TO c USING (true);"),
            roles(&["c"])
        );
    }

    #[test]
    fn knows_partitions_and_views_made_afterwards() {
        assert_eq!(
            meaning(
                "ALTER TABLE ONLY parts.ev ATTACH PARTITION app.\"E\" FOR VALUES FROM ('a') TO ('b');"
            ),
            Meaning::AttachPartition(raw("app", "E"))
        );
        assert_eq!(
            meaning("CREATE RULE \"_RETURN\" AS\n    ON SELECT TO public.v DO INSTEAD SELECT 1;"),
            Meaning::BecomesView(raw("public", "v"))
        );
        assert_eq!(
            meaning("DROP TABLE IF EXISTS a.b, c.d CASCADE;"),
            Meaning::DropTables(vec![raw("a", "b"), raw("c", "d")])
        );
    }
}

//! Understands the few statements of a dump that matter: which tables it makes, whose rows follow, which settings
//! change how names are read.
//!
//! It gathers the tokens outside parentheses (and the column list of a COPY) and looks at them once, when the
//! statement ends. What it does not know it passes over.

mod about;
mod carrier;
mod grammar;
mod judged;
mod meaning;
mod tokens;
mod work;

pub(super) use grammar::Made;
pub(crate) use grammar::{Action, Alter, Constraint, Said, Target, Thing, read};
pub(super) use meaning::{Meaning, RawName};
pub(crate) use tokens::{Kind, Path, Tokens};

use super::judged::{About, Carrier, JudgedKind};
use super::lexer::Token;
use super::listed::Work;
use crate::name::TableName;

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

/// What a token did to the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// The line is no SQL.
    Noise,
    /// The statement is whole.
    Ended,
}

/// One statement under way.
#[derive(Debug, Default)]
pub(super) struct Statement {
    start: u64,
    tokens: Tokens,
    kept_outside: usize,
    kept_inside: usize,
    is_empty: bool,
    depth: u32,
    begin_depth: u32,
    is_routine: bool,
    /// The last token was the word `begin`.
    is_behind_begin: bool,
    /// How often a routine says `begin` where psql counts it, and how often that opens a body.
    begins: u32,
    bodies: u32,
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
        matches!(self.first, Some(First::Select | First::Set)) && self.tokens.len() < 64
    }

    /// Tells whether what comes next is a value of an INSERT.
    pub(super) fn is_inside_inserted_row(&self) -> bool {
        self.depth > 0 && matches!(self.rows, RowCount::Counting(_))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        (self.kept_outside, self.kept_inside) = (0, 0);
        self.is_empty = true;
        (self.depth, self.begin_depth) = (0, 0);
        (self.is_routine, self.is_behind_begin) = (false, false);
        (self.begins, self.bodies) = (0, 0);
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
        if !matches!(token, Token::Word(_)) {
            self.is_behind_begin = false;
        }
        match token {
            Token::Word(word) => self.take_word(word),
            Token::Quoted(name) => self.keep(Kind::Quoted, name),
            Token::Literal(text) => self.keep(Kind::Literal, text),
            Token::Number(text) => self.keep(Kind::Number, text),
            Token::Punct(byte) => return self.take_punct(byte),
            Token::Comment(_) | Token::Meta(_) => {}
        }
        Step::More
    }

    /// Follows `BEGIN ATOMIC … END` of SQL-standard function bodies.
    ///
    /// psql counts any word `begin`, and so runs past the end of a function that is called `begin`, which pg_dump does
    /// not quote. Only `begin` with `atomic` behind it opens a body; `case` and `end` are reserved, and quoted as names.
    fn take_word(&mut self, word: &[u8]) {
        self.keep(Kind::Word, word);
        if self.depth > 0 {
            return;
        }
        let is_behind_begin = std::mem::replace(&mut self.is_behind_begin, word == b"begin");
        if !self.is_routine && matches!(word, b"function" | b"procedure") {
            self.is_routine = grammar::begins_routine(&self.tokens);
        }
        self.begins += u32::from(self.is_routine && word == b"begin");
        match word {
            b"atomic" if is_behind_begin && self.is_routine && self.begin_depth == 0 => {
                self.begin_depth = 1;
                self.bodies += 1;
            }
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

    /// Reads the ended statement.
    pub(super) fn read(&self) -> Ended<'_> {
        Ended {
            said: grammar::read(&self.tokens),
            tokens: &self.tokens,
            rows: self.rows,
            is_open_routine: self.begins != self.bodies,
        }
    }

    /// Tells whether the statement under way may be one to judge, or with `with_about` one that is about something.
    pub(super) fn is_held(&self, with_about: bool) -> bool {
        judged::may_be_judged(&self.tokens) || with_about && about::may_be_about(&self.tokens)
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
            self.tokens.push(kind, self.depth, text);
        }
    }
}

/// A statement that ended, for all who ask what it is to them.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    said: Said<'a>,
    tokens: &'a Tokens,
    rows: RowCount,
    is_open_routine: bool,
}

impl<'a> Ended<'a> {
    /// Says what a restore has to judge; `with_about` also what it is about, where a platform may have it already, and who
    /// carries it out.
    pub(super) fn judged(&self, with_about: bool) -> Option<(JudgedKind, Option<About>, Carrier)> {
        let about = with_about.then(|| about::about(&self.said)).flatten();
        let carrier = if with_about {
            carrier::carrier(&self.said, self.tokens)
        } else {
            Carrier::Restorer
        };
        let is_told = about.is_some() || carrier != Carrier::Restorer;
        let other = is_told.then_some(JudgedKind::Other);
        let kind = judged::judged(&self.said, self.is_open_routine).or(other)?;
        Some((kind, about, carrier))
    }

    /// Says what it works on; `table` completes a table's name.
    pub(super) fn work(&self, table: &dyn Fn(RawName<'_>) -> TableName) -> Work {
        work::work(&self.said, table)
    }

    /// Says what it means for the scan.
    pub(super) fn meaning(self) -> Meaning<'a> {
        meaning::meaning(self.said, self.rows)
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

#[cfg(test)]
mod tests;

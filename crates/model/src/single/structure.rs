//! A dump without its rows: every statement with what it makes and belongs to.

use std::collections::HashSet;

use super::subject::{Deed, Object, Subject, subject};
use crate::name::{TableName, quote};
use crate::scan::{Lexeme, LexemeKind, Listed, Notes, Scanner, Spoken, lexemes};

/// One statement.
pub(super) struct Statement {
    start: usize,
    end: usize,
    pub spoken: Spoken,
    pub subject: Subject,
}

/// The text of a dump in front of its first row and behind its last one.
pub struct Structure {
    text: Vec<u8>,
    /// Where the text begins that stands behind the rows.
    behind: usize,
    pub(super) statements: Vec<Statement>,
}

/// Lists the statements of a text. The scanner goes with what it knows of tens of thousands of tables.
fn listed(text: &[u8]) -> Vec<Listed> {
    let mut scanner = Scanner::noting(Notes::Statements);
    scanner.push(text);
    scanner.take_found().statements
}

impl Structure {
    /// Reads a text of which the part from `behind` on stands behind the rows.
    pub fn read(text: Vec<u8>, behind: usize) -> Self {
        let place = |offset: u64| {
            usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(text.len())
        };
        let statements = listed(&text)
            .into_iter()
            .map(|listed| {
                let (start, end) = (place(listed.start), place(listed.end));
                let spoken = listed.spoken;
                let tokens = lexemes(&text[start..end], spoken.standard_strings, spoken.encoding);
                let subject = subject(&tokens, &spoken);
                Statement {
                    start,
                    end,
                    spoken,
                    subject,
                }
            })
            .collect();
        Self {
            text,
            behind,
            statements,
        }
    }

    /// Returns where the content of large objects begins in a text; none where it has none.
    pub fn large_objects_begin(text: &[u8]) -> Option<usize> {
        let mut all = listed(text).into_iter();
        let found = all.find(|listed| {
            let sql = &text[listed.start as usize..listed.end as usize];
            let spoken = &listed.spoken;
            // Any other statement would be read for nothing, and functions are long.
            sql.get(..6)
                .is_some_and(|word| word.eq_ignore_ascii_case(b"select"))
                && subject(
                    &lexemes(sql, spoken.standard_strings, spoken.encoding),
                    spoken,
                )
                .deed
                    == Deed::LargeObject
        });
        found.map(|listed| listed.start as usize)
    }

    /// Tells whether a statement stands behind the rows.
    pub(super) fn is_behind(&self, statement: &Statement) -> bool {
        statement.start >= self.behind
    }

    pub(super) fn sql(&self, statement: &Statement) -> &[u8] {
        &self.text[statement.start..statement.end]
    }

    pub(super) fn lexemes(&self, statement: &Statement) -> Vec<Lexeme> {
        let spoken = &statement.spoken;
        lexemes(
            self.sql(statement),
            spoken.standard_strings,
            spoken.encoding,
        )
    }

    /// Returns what the dump says of a schema's owner and rights, each with the owner that it names, said of another schema.
    pub(super) fn about_schema(&self, from: &str, to: &str) -> Vec<(Option<String>, String)> {
        let object = Object::Schema(from.to_owned());
        let about = self
            .statements
            .iter()
            .filter(|statement| statement.subject.on == [object.clone()]);
        let said = about.filter_map(|statement| {
            let (found, encoding) = (self.lexemes(statement), statement.spoken.encoding);
            let first = found.first().map(|first| first.text.as_slice());
            matches!(first, Some(b"alter" | b"grant" | b"revoke")).then_some(())?;
            let at = found.windows(2).position(|two| {
                two[0].text == b"schema" && encoding.decode(&two[1].text) == from
            })?;
            let (sql, name) = (self.sql(statement), &found[at + 1]);
            let renamed = format!(
                "{}{}{}",
                encoding.decode(&sql[..name.start]),
                quote(to),
                encoding.decode(&sql[name.end..])
            );
            Some((self.owner_in(statement), renamed))
        });
        said.collect()
    }

    /// Returns the language of the function that a statement makes.
    pub(super) fn language_of(&self, statement: &Statement) -> Option<String> {
        let found = self.lexemes(statement);
        let mut pairs = found.windows(2);
        let two =
            pairs.find(|two| two[0].kind == LexemeKind::Word && two[0].text == b"language")?;
        let is_name = matches!(two[1].kind, LexemeKind::Word | LexemeKind::Quoted);
        is_name.then(|| statement.spoken.encoding.decode(&two[1].text).into_owned())
    }

    /// Returns whom a statement gives its object to.
    pub(super) fn owner_in(&self, statement: &Statement) -> Option<String> {
        let found = self.lexemes(statement);
        let is_word =
            |lexeme: &Lexeme, word: &[u8]| lexeme.kind == LexemeKind::Word && lexeme.text == word;
        let at = found.windows(3).rposition(|three| {
            let is_name = matches!(three[2].kind, LexemeKind::Word | LexemeKind::Quoted);
            is_word(&three[0], b"owner") && is_word(&three[1], b"to") && is_name
        })?;
        let is_alter = found.first().is_some_and(|first| is_word(first, b"alter"));
        let name = &found[at + 2].text;
        is_alter.then(|| statement.spoken.encoding.decode(name).into_owned())
    }

    /// Returns every table that it makes.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        self.statements
            .iter()
            .filter_map(|statement| match &statement.subject {
                Subject {
                    deed: Deed::Table { .. },
                    makes: Some(Object::Relation(name)),
                    ..
                } => Some(name),
                _ => None,
            })
    }

    /// Returns the tables that a partition is one of, up to the root.
    pub(super) fn ancestors(&self, partition: &TableName) -> HashSet<&TableName> {
        let mut found = HashSet::new();
        let mut below = partition;
        while let Some(parent) = self.parent(below) {
            // What is no dump of PostgreSQL may go in a circle.
            if !found.insert(parent) {
                break;
            }
            below = parent;
        }
        found
    }

    fn parent(&self, partition: &TableName) -> Option<&TableName> {
        let mut statements = self.statements.iter();
        statements.find_map(|statement| match &statement.subject.deed {
            Deed::Attach { parent, child } if child == partition => Some(parent),
            _ => None,
        })
    }

    /// Adds all partitions of `named` tables, down to the leaves.
    pub(super) fn with_partitions(&self, named: &[TableName]) -> HashSet<TableName> {
        let mut tables: HashSet<TableName> = named.iter().cloned().collect();
        loop {
            let before = tables.len();
            for statement in &self.statements {
                let subject = &statement.subject;
                match (&subject.deed, &subject.makes) {
                    (Deed::Attach { parent, child }, _) if tables.contains(parent) => {
                        tables.insert(child.clone());
                    }
                    (
                        Deed::Table {
                            partition_of: Some(parent),
                            ..
                        },
                        Some(Object::Relation(child)),
                    ) if tables.contains(parent) => {
                        tables.insert(child.clone());
                    }
                    _ => {}
                }
            }
            if tables.len() == before {
                return tables;
            }
        }
    }
}

//! Which rows of a table a backup keeps, where it does not keep all of them.

mod closure;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::durations::{parse_duration, show_duration};
use super::name::{NameError, TableName};
use super::scan::{Lexeme, LexemeKind, TextEncoding, lexemes};
use super::words::{count, number};
pub use closure::{Column, Held, Key, Plan, Refused, Tree, plan};

/// Most rows that `newest` keeps; more is a slip of the pen.
pub const MAX_NEWEST: usize = 1_000_000_000_000;

/// Longest age that `last` keeps: a century.
pub const MAX_LAST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// What of one table is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The table, with its partitions and children.
    pub table: TableName,
    /// Which rows.
    pub keep: Keep,
    /// What becomes of rows that others refer to.
    pub references: References,
}

/// Which rows are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So many, the largest first by this column; rows where it is null come last, and ties are broken by the primary key.
    Newest {
        /// How many.
        rows: usize,
        /// By which column.
        by: String,
    },
    /// Those that are not older, by this column; none where it is null.
    Last {
        /// How old at most, when the snapshot is taken.
        age: Duration,
        /// By which column.
        by: String,
    },
    /// Those for which this condition holds, as SQL has it.
    Where(String),
}

/// What becomes of rows that rows of other tables refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum References {
    /// They are kept as well.
    #[default]
    Keep,
    /// They are not; foreign keys that refer to the table come back as NOT VALID.
    Drop,
}

/// What is wrong with the text of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// It has another form.
    #[error(
        "it looks like `events=newest:10000:created_at`, `images=last:30d:created_at` or `audit=where:tenant = 7`"
    )]
    Form,
    /// The table's name cannot be read.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A value is out of its range.
    #[error("`{name}` {why}")]
    Value {
        /// Of what.
        name: &'static str,
        /// Why.
        why: String,
    },
}

/// Reads `TABLE=newest:N:COLUMN`, `TABLE=last:AGE:COLUMN` or `TABLE=where:CONDITION`.
impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let ways = ["=newest:", "=last:", "=where:"];
        let found = ways
            .into_iter()
            .filter_map(|way| Some((text.find(way)?, way)));
        let (at, way) = found.min().ok_or(LimitError::Form)?;
        let table = text[..at].parse()?;
        let rest = &text[at + way.len()..];
        let keep = if way == "=where:" {
            Keep::Where(condition(rest)?)
        } else {
            let (amount, by) = rest.split_once(':').ok_or(LimitError::Form)?;
            let by = column(by)?;
            if way == "=newest:" {
                let rows = newest(amount)?;
                Keep::Newest { rows, by }
            } else {
                let age = last(amount)?;
                Keep::Last { age, by }
            }
        };
        Ok(Self {
            table,
            keep,
            references: References::Keep,
        })
    }
}

/// Reads how many rows are kept.
pub fn newest(text: &str) -> Result<usize, LimitError> {
    let rows = text.parse().ok();
    rows.filter(|rows| (1..=MAX_NEWEST).contains(rows))
        .ok_or_else(|| LimitError::Value {
            name: "newest",
            why: format!("must be a whole number from 1 to {MAX_NEWEST}"),
        })
}

/// Reads how old rows may be.
pub fn last(text: &str) -> Result<Duration, LimitError> {
    parse_duration(text, &(Duration::from_secs(1)..=MAX_LAST))
        .map_err(|why| LimitError::Value { name: "last", why })
}

/// Reads the name of a column, which may be quoted as in SQL.
pub fn column(text: &str) -> Result<String, LimitError> {
    // The error's own words hold the text, which may come from the environment.
    match text.parse() {
        Ok(TableName { schema: None, name }) => Ok(name),
        _ => Err(LimitError::Value {
            name: "by",
            why: "must be the name of one column".to_owned(),
        }),
    }
}

/// Reads a condition: one expression of SQL, which ends nothing but itself and holds no command of `psql`.
pub fn condition(text: &str) -> Result<String, LimitError> {
    let text = text.trim();
    let wrong = |why: &str| LimitError::Value {
        name: "where",
        why: why.to_owned(),
    };
    if text.is_empty() {
        return Err(wrong("must be a condition, such as `tenant = 7`"));
    }
    if text.contains('\0') {
        return Err(wrong("holds a NUL byte"));
    }
    if !is_one_expression(text) {
        return Err(wrong(
            "must be one condition: its parentheses, quotes and comments must be closed, and `;`, `\\` and `:name` stand only within \
             quotes",
        ));
    }
    Ok(text.to_owned())
}

/// Tells whether a text stays within the parentheses that it is put into.
fn is_one_expression(text: &str) -> bool {
    // What is open would swallow the last parenthesis.
    let whole = format!("(\n{text}\n)");
    let found = lexemes(whole.as_bytes(), true, TextEncoding::Utf8);
    let mut depth = 0_usize;
    for (at, lexeme) in found.iter().enumerate() {
        match lexeme.kind {
            LexemeKind::Punct(b'(') => depth += 1,
            LexemeKind::Punct(b')') => {
                depth -= 1;
                if depth == 0 {
                    return at + 1 == found.len()
                        && lexeme.end == whole.len()
                        && backslashes_are_quoted(&whole, &found);
                }
            }
            LexemeKind::Punct(b';' | b'\\') => return false,
            LexemeKind::Punct(b':') if is_variable(&found, at) => return false,
            _ => {}
        }
    }
    false
}

/// Returns the names of the functions that a condition may call: words in front of a parenthesis.
pub fn called(condition: &str) -> Vec<String> {
    let found = lexemes(condition.as_bytes(), true, TextEncoding::Utf8);
    let pairs = found.iter().zip(found.iter().skip(1));
    pairs
        .filter(|(name, next)| {
            let is_name = matches!(name.kind, LexemeKind::Word | LexemeKind::Quoted);
            is_name && next.kind == LexemeKind::Punct(b'(')
        })
        .map(|(name, _)| String::from_utf8_lossy(&name.text).into_owned())
        .collect()
}

/// Tells whether `psql` would put a variable of its own here: a colon with a name behind it, and no other colon around.
fn is_variable(lexemes: &[Lexeme], at: usize) -> bool {
    let colon = &lexemes[at];
    let is_colon = |other: &Lexeme| other.kind == LexemeKind::Punct(b':');
    let before = at.checked_sub(1).map(|at| &lexemes[at]);
    let is_second = before.is_some_and(|before| before.end == colon.start && is_colon(before));
    let is_name = |next: &Lexeme| {
        let kinds = [LexemeKind::Word, LexemeKind::Literal, LexemeKind::Quoted];
        next.start == colon.end && kinds.contains(&next.kind)
    };
    !is_second && lexemes.get(at + 1).is_some_and(is_name)
}

fn backslashes_are_quoted(text: &str, lexemes: &[Lexeme]) -> bool {
    let is_quoted = |at: usize| {
        let mut quoted = lexemes
            .iter()
            .filter(|lexeme| matches!(lexeme.kind, LexemeKind::Literal | LexemeKind::Quoted));
        quoted.any(|lexeme| (lexeme.start..lexeme.end).contains(&at))
    };
    text.match_indices('\\').all(|(at, _)| is_quoted(at))
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest { rows, by } => write!(f, "newest {rows} by {by}"),
            Self::Last { age, by } => write!(f, "last {} by {by}", show_duration(*age)),
            Self::Where(condition) => write!(f, "where {condition}"),
        }
    }
}

/// A limit, and what it came to, as a manifest records it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitRecord {
    /// Schema of the table.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Which rows were to be kept, in words: `newest 10000 by created_at`.
    pub keep: String,
    /// The value of the last row that the limit itself keeps, or the moment from which on rows were kept; none with `where`,
    /// and where all rows are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutoff: Option<String>,
    /// What became of rows that others refer to.
    pub references: References,
    /// How many rows were kept, those that others refer to among them.
    pub rows: u64,
    /// How many rows the table had.
    pub rows_total: u64,
}

impl LimitRecord {
    /// Says what it came to, such as "`public.events`: 10,000 of 50,000 rows (newest 10000 by created_at)".
    pub fn in_words(&self) -> String {
        let table = TableName::new(&self.schema, &self.name);
        let dropped = match self.references {
            References::Keep => "",
            References::Drop => ", and foreign keys that refer to it are not valid",
        };
        format!(
            "`{table}`: {} of {} ({}){dropped}",
            number(self.rows),
            count(self.rows_total, "row"),
            self.keep
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_condition_stays_within_its_parentheses() {
        for good in [
            "tenant = 7",
            "note LIKE 'a;b)' OR note ~ E'\\\\d' OR \"od)d;\" IS NULL -- why (",
            "(a + b) > 3 AND c IN (1, 2) /* ) ; */",
            "body::text = $$ ; ) \\! $$",
            "at >= now() - interval '3 days'",
            "a[1:2] = b::int[] AND c::text = ':x'",
        ] {
            assert_eq!(condition(good).as_deref(), Ok(good));
        }
        for bad in [
            "true) OR (true",
            "true; DROP TABLE t",
            "true)",
            "(true",
            "a = 'b",
            "a = \"b",
            "a /* b",
            "true\n\\! touch x",
            "true \\! touch x",
            "a = $$ b",
            "true -- \\! touch x",
            "name = :USER",
            "name = :'USER'",
        ] {
            assert!(condition(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z '\"$;()\\\\/*:\n-]{0,30}") {
            let _ = condition(&text);
            let _ = format!("t=where:{text}").parse::<Limit>();
        }
    }

    #[test]
    fn limits_are_read() {
        let read = |text: &str| {
            let limit: Limit = text.parse().unwrap();
            (limit.table.to_string(), limit.keep.to_string())
        };
        for (text, table, keep) in [
            (
                "events=newest:10000:created_at",
                "events",
                "newest 10000 by created_at",
            ),
            (
                "sales.\"Odd=newest:\"=last:30d:\"At\"",
                "sales.\"Odd=newest:\"",
                "last 30d by At",
            ),
            (
                "audit=where:tenant = 7 AND x LIKE 'a:b'",
                "audit",
                "where tenant = 7 AND x LIKE 'a:b'",
            ),
        ] {
            if text.starts_with("sales") {
                // A name that looks like a limit is for the configuration.
                assert!(text.parse::<Limit>().is_err(), "{text}");
                continue;
            }
            assert_eq!(read(text), (table.to_owned(), keep.to_owned()));
        }
        for text in [
            "",
            "events",
            "events=newest",
            "events=newest:10",
            "events=newest:0:at",
            "events=newest:-1:at",
            "events=last:0s:at",
            "events=last:x:at",
            "events=where:",
            "events=where:  ",
            "events=oldest:3:at",
            "a.b.c=newest:1:at",
            "events=newest:1:a.b",
        ] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}

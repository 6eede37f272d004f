//! Patterns for names of tables: `sessions`, `job_*`, `audit.*`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::name::TableName;

/// A pattern for tables: `*` stands for any characters, `?` for one. A part in double quotes is taken letter for letter.
/// Where no schema is written, `public` is meant; `*.name` means any. The default means no table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablePattern {
    text: String,
    schema: Vec<Piece>,
    name: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Letter(char),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Nothing between the dots or the quotes.
    #[error("has an empty part")]
    Empty,
    /// A double quote that is never closed, or text behind a closing one.
    #[error("has an unbalanced double quote")]
    Quote,
    /// More than `schema.table`.
    #[error("has more than two parts; quote a name that holds a dot, as in `\"a.b\"`")]
    Parts,
}

impl TablePattern {
    /// Tells whether it means this table.
    pub fn matches(&self, table: &TableName) -> bool {
        is_match(&self.schema, table.schema_or_public()) && is_match(&self.name, &table.name)
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for TablePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut parts = parts(text)?;
        let name = parts.pop().ok_or(PatternError::Empty)?;
        let schema = match (parts.pop(), parts.is_empty()) {
            (None, _) => "public".chars().map(Piece::Letter).collect(),
            (Some(schema), true) => schema,
            (Some(_), false) => return Err(PatternError::Parts),
        };
        Ok(Self {
            text: text.to_owned(),
            schema,
            name,
        })
    }
}

fn parts(text: &str) -> Result<Vec<Vec<Piece>>, PatternError> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_part(quoted)?,
            None => bare_part(rest)?,
        };
        if part.is_empty() {
            return Err(PatternError::Empty);
        }
        parts.push(part);
        match behind.strip_prefix('.') {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(parts),
            None => return Err(PatternError::Quote),
        }
    }
}

fn quoted_part(text: &str) -> Result<(Vec<Piece>, &str), PatternError> {
    let mut part = Vec::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or(PatternError::Quote)?;
        part.extend(rest[..end].chars().map(Piece::Letter));
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(behind) => {
                part.push(Piece::Letter('"'));
                rest = behind;
            }
            None => return Ok((part, rest)),
        }
    }
}

/// Folds to lower case, as SQL does.
fn bare_part(text: &str) -> Result<(Vec<Piece>, &str), PatternError> {
    let (part, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    if part.contains('"') {
        return Err(PatternError::Quote);
    }
    let piece = |letter: char| match letter {
        '*' => Piece::Any,
        '?' => Piece::One,
        other => Piece::Letter(other.to_ascii_lowercase()),
    };
    Ok((part.chars().map(piece).collect(), rest))
}

/// Matches with one way back, to the last `*`: no pattern takes longer than its length times that of the text.
fn is_match(pattern: &[Piece], text: &str) -> bool {
    let letters: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while seen < letters.len() {
        match pattern.get(at) {
            Some(Piece::Any) => {
                back = Some((at, seen));
                at += 1;
            }
            Some(Piece::One) => (at, seen) = (at + 1, seen + 1),
            Some(Piece::Letter(letter)) if *letter == letters[seen] => {
                (at, seen) = (at + 1, seen + 1);
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (at, seen) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|piece| *piece == Piece::Any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_mean_what_people_write() {
        let is = |pattern: &str, schema: &str, name: &str| {
            let pattern: TablePattern = pattern.parse().unwrap();
            pattern.matches(&TableName::new(schema, name))
        };
        for (pattern, schema, name, expected) in [
            ("sessions", "public", "sessions", true),
            ("sessions", "auth", "sessions", false),
            ("*.sessions", "auth", "sessions", true),
            ("job_*", "public", "job_", true),
            ("job_*", "public", "job_20260101", true),
            ("job_*", "public", "jobs", false),
            ("JOB_?", "public", "job_1", true),
            ("job_?", "public", "job_12", false),
            ("audit.*", "audit", "anything", true),
            ("*_log_*", "public", "a_log_b_log_c", true),
            ("*_log", "public", "a_log_b", false),
            ("\"Job*\"", "public", "Job*", true),
            ("\"Job*\"", "public", "Jobs", false),
            ("\"a.b\".*", "a.b", "c", true),
        ] {
            assert_eq!(
                is(pattern, schema, name),
                expected,
                "{pattern} {schema}.{name}"
            );
        }
        for (text, error) in [
            ("", PatternError::Empty),
            ("a.", PatternError::Empty),
            ("a.b.c", PatternError::Parts),
            ("\"a", PatternError::Quote),
            ("a\"b", PatternError::Quote),
        ] {
            assert_eq!(text.parse::<TablePattern>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_any_star(name in "[a-z_]{1,20}", cut in 0usize..20) {
            let table = TableName::new("public", name.clone());
            let own: TablePattern = name.parse().unwrap();
            prop_assert!(own.matches(&table));
            let start: TablePattern = format!("{}*", &name[..cut.min(name.len())]).parse().unwrap();
            prop_assert!(start.matches(&table));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", name in ".{0,20}") {
            if let Ok(pattern) = text.parse::<TablePattern>() {
                pattern.matches(&TableName::new("public", name));
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}

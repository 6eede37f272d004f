//! Patterns for names of tables: `sessions`, `job_*`, `audit.*`.

use std::fmt;
use std::str::FromStr;

use wildmatch::WildMatch;

use super::name::{NameError, Part, TableName, schema_and_name};

/// A pattern for tables: `*` stands for any characters, `?` for one. A part in double quotes is taken letter for letter.
/// Where no schema is written, `public` is meant; `*.name` means any. The default means no table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TablePattern {
    text: String,
    schema: Matcher,
    name: Matcher,
}

#[derive(Clone, Debug, PartialEq)]
enum Matcher {
    Exactly(String),
    Like(WildMatch),
}

impl Default for Matcher {
    fn default() -> Self {
        Self::Exactly(String::new())
    }
}

impl Matcher {
    /// Folds what is not quoted to lower case, as SQL does.
    fn new(part: Part) -> Self {
        match part {
            Part::Quoted(name) => Self::Exactly(name),
            Part::Bare(pattern) => Self::Like(WildMatch::new(&pattern.to_ascii_lowercase())),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exactly(expected) => expected == name,
            Self::Like(pattern) => pattern.matches(name),
        }
    }
}

impl TablePattern {
    /// Tells whether it means this table.
    pub fn matches(&self, table: &TableName) -> bool {
        self.schema.matches(table.schema_or_public()) && self.name.matches(&table.name)
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for TablePattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (schema, name) = schema_and_name(text)?;
        Ok(Self {
            text: text.to_owned(),
            schema: schema.map_or_else(|| Matcher::Exactly("public".to_owned()), Matcher::new),
            name: Matcher::new(name),
        })
    }
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
            ("", NameError::Empty as fn(String) -> NameError),
            ("a.", NameError::Empty as fn(String) -> NameError),
            ("a.b.c", NameError::Parts as fn(String) -> NameError),
            ("\"a", NameError::Quote as fn(String) -> NameError),
            ("a\"b", NameError::Quote as fn(String) -> NameError),
        ] {
            assert_eq!(
                text.parse::<TablePattern>(),
                Err(error(text.to_owned())),
                "{text}"
            );
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

//! Names of tables and schemas as people write them and as SQL quotes them.
//!
//! A name is compared by its parts, never by its text: `users` and `public."users"` are one table. Nothing here
//! ever treats a character as a wildcard.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Names a table, with its schema where one was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The schema; `None` where the writer left it out, which means `public`.
    pub schema: Option<String>,
    /// The table's real name, unquoted.
    pub name: String,
}

/// Tells why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing between the dots or the quotes.
    #[error("`{0}` has an empty part")]
    Empty(String),
    /// A double quote that is opened and never closed, or text behind a closing one.
    #[error("`{0}` has an unbalanced double quote")]
    Quote(String),
    /// More than `schema.table`.
    #[error("`{0}` has more than two parts; quote a name that holds a dot, as in `\"a.b\"`")]
    Parts(String),
    /// PostgreSQL cannot hold such a name.
    #[error("`{0}` holds a NUL character")]
    Nul(String),
}

impl TableName {
    /// Makes a name from its real parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: Some(schema.into()),
            name: name.into(),
        }
    }

    /// Returns the schema that the name means: `public` where none was written.
    pub fn schema_or_public(&self) -> &str {
        self.schema.as_deref().unwrap_or("public")
    }

    /// Returns the name as SQL has it, both parts quoted.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(self.schema_or_public()), quote(&self.name))
    }
}

/// Reads `users`, `public.users`, `"AutoBook"` or `billing."Invoice Lines"`.
///
/// Unquoted parts made of identifier characters fold to lower case, as in SQL; any other unquoted part is taken
/// letter for letter (`a*` is the table `a*`, not a pattern).
impl FromStr for TableName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (schema, name) = schema_and_name(text)?;
        Ok(Self {
            schema: schema.map(Part::folded),
            name: name.folded(),
        })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quote_if_needed(schema))?;
        }
        f.write_str(&quote_if_needed(&self.name))
    }
}

/// Reads the name of a schema, by the same rules as a table's.
pub fn parse_schema(text: &str) -> Result<String, NameError> {
    let mut parts = split_parts(text)?;
    match (parts.pop(), parts.is_empty()) {
        (Some(name), true) => Ok(name.folded()),
        _ => Err(NameError::Parts(text.into())),
    }
}

/// Quotes an identifier whatever it holds, doubling the quotes inside it.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes an identifier only where SQL would read it differently without quotes.
///
/// Key words are not known here; the result is for people and for names read back by [`TableName::from_str`].
pub fn quote_if_needed(name: &str) -> String {
    let mut chars = name.chars();
    let starts_well = chars
        .next()
        .is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    if starts_well && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        name.to_owned()
    } else {
        quote(name)
    }
}

/// Escapes control characters, for people: a name is anybody's text and must neither move a terminal's cursor nor turn the
/// order of what stands around it.
pub fn printable(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c.is_control() || is_deceptive(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

/// Tells whether a character turns the order of others, or breaks a line where no line break is seen: `U+202E` makes
/// `gpj.exe` of `exe.jpg`.
pub fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes what deceives in whole lines, whose control characters are ours.
pub fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.escape_default().to_string())
}

/// The same in JSON, whose strings stay what they are.
pub fn harmless_json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| format!("\\u{:04x}", u32::from(c)))
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(is_deceptive) {
        return Cow::Borrowed(text);
    }
    let piece = |c: char| {
        if is_deceptive(c) {
            escape(c)
        } else {
            c.to_string()
        }
    };
    Cow::Owned(text.chars().map(piece).collect())
}

/// A part of a name as it is written, without its quotes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Letter for letter.
    Quoted(String),
    /// Without quotes around it.
    Bare(String),
}

impl Part {
    /// Returns the real name: identifiers without quotes fold to lower case.
    fn folded(self) -> String {
        let is_identifier = |part: &str| {
            part.chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii())
        };
        match self {
            Self::Bare(part) if is_identifier(&part) => part.to_ascii_lowercase(),
            Self::Quoted(part) | Self::Bare(part) => part,
        }
    }

    fn is_empty(&self) -> bool {
        let (Self::Quoted(part) | Self::Bare(part)) = self;
        part.is_empty()
    }
}

/// Splits `table` or `schema.table`.
pub(super) fn schema_and_name(text: &str) -> Result<(Option<Part>, Part), NameError> {
    let mut parts = split_parts(text)?;
    match (parts.pop(), parts.pop(), parts.is_empty()) {
        (Some(name), schema, true) => Ok((schema, name)),
        _ => Err(NameError::Parts(text.into())),
    }
}

fn split_parts(text: &str) -> Result<Vec<Part>, NameError> {
    if text.contains('\0') {
        return Err(NameError::Nul(text.into()));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, behind) = match rest.strip_prefix('"') {
            Some(quoted) => split_quoted(quoted).ok_or_else(|| NameError::Quote(text.into()))?,
            None => split_bare(rest).ok_or_else(|| NameError::Quote(text.into()))?,
        };
        if part.is_empty() {
            return Err(NameError::Empty(text.into()));
        }
        parts.push(part);
        match behind.strip_prefix('.') {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(parts),
            None => return Err(NameError::Quote(text.into())),
        }
    }
}

fn split_quoted(text: &str) -> Option<(Part, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(behind) => {
                part.push('"');
                rest = behind;
            }
            None => return Some((Part::Quoted(part), rest)),
        }
    }
}

fn split_bare(text: &str) -> Option<(Part, &str)> {
    let (part, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    (!part.contains('"')).then(|| (Part::Bare(part.to_owned()), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, String) {
        let name: TableName = text.parse().unwrap();
        (name.schema, name.name)
    }

    /// Names that read otherwise than they are, as in Trojan Source (CVE-2021-42574).
    #[test]
    fn what_turns_the_order_of_letters_is_escaped() {
        let name = "users\u{202e}drop\u{2066}x";
        assert_eq!(printable(name), "users\\u{202e}drop\\u{2066}x");
        assert_eq!(harmless(name), printable(name));
        assert_eq!(harmless("a\n\u{1b}[1mb"), "a\n\u{1b}[1mb");
        let json = serde_json::to_string(name).unwrap();
        let shown = harmless_json(&json);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), name);
    }

    #[test]
    fn reads_names_as_sql_does() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(parts("users"), (None, "users".into()));
        assert_eq!(parts("Public.USERS"), (some("public"), "users".into()));
        assert_eq!(parts("\"AutoBook\""), (None, "AutoBook".into()));
        assert_eq!(
            parts("billing.\"Invoice Lines\""),
            (some("billing"), "Invoice Lines".into())
        );
        assert_eq!(
            parts("\"sch.ema\".\"a\"\"b\""),
            (some("sch.ema"), "a\"b".into())
        );
        assert_eq!(parts("Größe"), (None, "größe".into()));
    }

    #[test]
    fn takes_odd_unquoted_names_letter_for_letter() {
        assert_eq!(parts("A*").1, "A*");
        assert_eq!(parts("-Fc").1, "-Fc");
        assert_eq!(parts("x;--").1, "x;--");
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        for (text, error) in [
            ("", NameError::Empty(String::new())),
            ("a.", NameError::Empty("a.".into())),
            ("\"\"", NameError::Empty("\"\"".into())),
            ("\"a", NameError::Quote("\"a".into())),
            ("a\"b", NameError::Quote("a\"b".into())),
            ("\"a\"b", NameError::Quote("\"a\"b".into())),
            ("a.b.c", NameError::Parts("a.b.c".into())),
            ("a\0", NameError::Nul("a\0".into())),
        ] {
            assert_eq!(text.parse::<TableName>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable("a\nb\u{1b}[2Jé"), "a\\nb\\u{1b}[2Jé");
    }

    #[test]
    fn prints_what_it_reads_back() {
        for text in [
            "users",
            "public.users",
            "\"A b\".\"c\"\"d\"",
            "\"2019\"",
            "\"a.b\".c",
            "\"größe\"",
        ] {
            let name: TableName = text.parse().unwrap();
            assert_eq!(name.to_string().parse::<TableName>().unwrap(), name);
        }
    }
}

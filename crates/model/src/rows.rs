//! Rows for other programs: CSV as RFC 4180 has it, JSON Lines, and which rows are wanted.
//!
//! A value is never changed on the way: a number keeps all its digits, and what JSON has no form for is text.

use std::io::{self, Write};

use serde::de::IgnoredAny;

use super::copy::{Row, is_value};
use super::nearest::did_you_mean;
use super::scan::{ColumnKind, TextEncoding};

/// A column of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its real name.
    pub name: String,
    /// What its values are in JSON.
    pub kind: ColumnKind,
}

/// Which rows are wanted: those for which all of it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Columns and the text that they must have.
    pub equals: Vec<(String, String)>,
    /// Columns that must be null.
    pub nulls: Vec<String>,
}

/// A filter over the columns of a table that is known.
#[derive(Clone, Debug, Default)]
pub struct BoundFilter {
    equals: Vec<(usize, String)>,
    nulls: Vec<usize>,
}

impl Filter {
    /// Finds the columns; says which one there is not.
    pub fn bind(&self, columns: &[Column]) -> Result<BoundFilter, String> {
        let find = |name: &str| {
            let found = columns.iter().position(|column| column.name == name);
            found.ok_or_else(|| {
                let known = columns.iter().map(|column| column.name.as_str());
                format!("there is no column `{name}`{}", did_you_mean(name, known))
            })
        };
        let equals = self
            .equals
            .iter()
            .map(|(name, value)| Ok((find(name)?, value.clone())));
        Ok(BoundFilter {
            equals: equals.collect::<Result<_, String>>()?,
            nulls: self
                .nulls
                .iter()
                .map(|name| find(name))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl BoundFilter {
    /// Tells whether every row is wanted.
    pub fn is_empty(&self) -> bool {
        self.equals.is_empty() && self.nulls.is_empty()
    }

    /// Tells whether a row is wanted whose escapes stand.
    pub fn wants(&self, row: &Row, encoding: TextEncoding) -> bool {
        let has = |(at, value): &(usize, String)| {
            row.field(*at)
                .is_some_and(|field| is_value(field, value, encoding))
        };
        self.equals.iter().all(has) && self.nulls.iter().all(|&at| row.field(at).is_none())
    }
}

/// Writes the line of a CSV file that names its columns.
pub fn csv_header(columns: &[Column], out: &mut impl Write) -> io::Result<()> {
    for (at, column) in columns.iter().enumerate() {
        csv_field(Some(&column.name), at, out)?;
    }
    out.write_all(b"\r\n")
}

/// Writes a row as CSV: null is an empty field, and an empty text is `""`. A value goes out in pieces and is not copied.
pub fn csv_row(row: &Row, encoding: TextEncoding, out: &mut impl Write) -> io::Result<()> {
    for at in 0..row.len() {
        let text = row.field(at).map(|field| encoding.decode(field));
        csv_field(text.as_deref(), at, out)?;
    }
    out.write_all(b"\r\n")
}

fn csv_field(text: Option<&str>, at: usize, out: &mut impl Write) -> io::Result<()> {
    if at > 0 {
        out.write_all(b",")?;
    }
    let Some(text) = text else { return Ok(()) };
    // PostgreSQL's own reader takes a line of `\.` alone for the end.
    let needs_quotes = text.is_empty() || text == "\\." || text.contains([',', '"', '\r', '\n']);
    if !needs_quotes {
        return out.write_all(text.as_bytes());
    }
    for (at, piece) in text.split('"').enumerate() {
        out.write_all(if at == 0 { b"\"" } else { b"\"\"" })?;
        out.write_all(piece.as_bytes())?;
    }
    out.write_all(b"\"")
}

/// Writes a row as one JSON object on a line of its own. A value goes out in pieces and is not copied.
pub fn json_row(
    columns: &[Column],
    row: &Row,
    encoding: TextEncoding,
    out: &mut impl Write,
) -> io::Result<()> {
    out.write_all(b"{")?;
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        json_text(&column.name, out)?;
        out.write_all(b":")?;
        match row.field(at) {
            None => out.write_all(b"null")?,
            Some(field) => json_value(column.kind, &encoding.decode(field), out)?,
        }
    }
    out.write_all(b"}\n")
}

fn json_value(kind: ColumnKind, text: &str, out: &mut impl Write) -> io::Result<()> {
    match (kind, text) {
        (ColumnKind::Boolean, "t") => out.write_all(b"true"),
        (ColumnKind::Boolean, "f") => out.write_all(b"false"),
        // `NaN` and `Infinity` are no numbers in JSON.
        (ColumnKind::Number, number) if is_json_number(number) => out.write_all(number.as_bytes()),
        (ColumnKind::Json, json) if is_json(json) => {
            // A line break in JSON stands between its tokens only; in a text it is escaped.
            for (at, piece) in json.split(['\n', '\r']).enumerate() {
                out.write_all(if at == 0 { b"" } else { b" " })?;
                out.write_all(piece.as_bytes())?;
            }
            Ok(())
        }
        (_, text) => json_text(text, out),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Tells whether a text is a number by JSON's grammar.
fn is_json_number(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    starts && text.ends_with(|c: char| c.is_ascii_digit()) && is_json(text)
}

fn json_text(text: &str, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::Line;

    const UTF8: TextEncoding = TextEncoding::Utf8;

    fn columns() -> Vec<Column> {
        [
            ("id", ColumnKind::Number),
            ("ok", ColumnKind::Boolean),
            ("body", ColumnKind::Json),
            ("a \"name\"", ColumnKind::Text),
        ]
        .map(|(name, kind)| Column {
            name: name.to_owned(),
            kind,
        })
        .to_vec()
    }

    fn read(line: &str) -> Row {
        let mut row = Row::default();
        row.read(Line::Within(line.as_bytes()), 4, UTF8);
        row
    }

    fn row(line: &str) -> Row {
        let mut row = read(line);
        row.unescape(UTF8);
        row
    }

    fn json(line: &str) -> String {
        let mut out = Vec::new();
        json_row(&columns(), &row(line), UTF8, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn csv(line: &str) -> String {
        let mut out = Vec::new();
        csv_row(&row(line), UTF8, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_keeps_values_exactly() {
        for (line, expected) in [
            (
                "1\tt\t{\"a\": 1.0}\tx",
                r#"{"id":1,"ok":true,"body":{"a": 1.0},"a \"name\"":"x"}"#,
            ),
            (
                "12345678901234567890.12345678901234567890\tf\t[]\t\\N",
                r#"{"id":12345678901234567890.12345678901234567890,"ok":false,"body":[],"a \"name\"":null}"#,
            ),
            (
                "NaN\t\\N\t\\N\t",
                r#"{"id":"NaN","ok":null,"body":null,"a \"name\"":""}"#,
            ),
            (
                "1e+20\t\\N\tnot\t\\\\xff",
                r#"{"id":1e+20,"ok":null,"body":"not","a \"name\"":"\\xff"}"#,
            ),
            (
                "-0.5\t\\N\t{\\n}\ta\\nb\\t",
                r#"{"id":-0.5,"ok":null,"body":{ },"a \"name\"":"a\nb\t"}"#,
            ),
            (
                "-Infinity\t\\N\t1 2\t\u{1}é",
                r#"{"id":"-Infinity","ok":null,"body":"1 2","a \"name\"":"\u0001é"}"#,
            ),
        ] {
            assert_eq!(json(line).trim_end_matches('\n'), expected);
            assert_eq!(json(line).lines().count(), 1);
            assert!(is_json(&json(line)));
        }
        for (text, is) in [
            ("1", true),
            ("01", false),
            (".5", false),
            ("1.", false),
            (" 1", false),
            ("1\n", false),
            ("{}", false),
            ("1e5", true),
        ] {
            assert_eq!(is_json_number(text), is, "{text:?}");
        }
    }

    #[test]
    fn csv_is_that_of_rfc_4180() {
        for (line, expected) in [
            ("1\tx\ty", "1,x,y\r\n"),
            ("\\N\t\t\\N", ",\"\",\r\n"),
            (
                "a,b\t\"q\"\tl\\nm\\r\t ü ",
                "\"a,b\",\"\"\"q\"\"\",\"l\nm\r\", ü \r\n",
            ),
            ("\\\\.", "\"\\.\"\r\n"),
        ] {
            assert_eq!(csv(line), expected);
        }
        let mut out = Vec::new();
        csv_header(&columns(), &mut out).unwrap();
        assert_eq!(out, b"id,ok,body,\"a \"\"name\"\"\"\r\n");
    }

    #[test]
    fn a_filter_wants_what_it_says() {
        let filter = |equals: &[(&str, &str)], nulls: &[&str]| Filter {
            equals: equals
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            nulls: nulls.iter().map(|name| (*name).to_owned()).collect(),
        };
        let wants =
            |filter: Filter, line: &str| filter.bind(&columns()).unwrap().wants(&read(line), UTF8);
        assert!(wants(
            filter(&[("id", "1"), ("ok", "t")], &[]),
            "1\tt\t\\N\tx"
        ));
        assert!(!wants(
            filter(&[("id", "1"), ("ok", "f")], &[]),
            "1\tt\t\\N\tx"
        ));
        assert!(wants(filter(&[], &["body"]), "1\tt\t\\N\tx"));
        assert!(!wants(filter(&[], &["body"]), "1\tt\t\tx"));
        assert!(wants(filter(&[("body", "")], &[]), "1\tt\t\tx"));
        assert!(!wants(filter(&[("body", "")], &[]), "1\tt\t\\N\tx"));
        let error = filter(&[("bodi", "")], &[]).bind(&columns()).unwrap_err();
        assert_eq!(error, "there is no column `bodi`; did you mean `body`?");
    }
}

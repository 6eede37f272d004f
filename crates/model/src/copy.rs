//! Rows of COPY text: cuts them into lines and undoes their escapes, as the server's own COPY FROM does.
//!
//! The rules are those of `CopyReadAttributesText` in PostgreSQL's `copyfromparse.c`. It takes any bytes and never
//! panics; what a row means is for whoever asked.

use std::ops::Range;

use memchr::{memchr, memchr2};

use super::scan::TextEncoding;

/// Cuts the bytes of COPY blocks into rows. Where they were cut before makes no difference.
#[derive(Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes bytes, and hands each whole row to `take`, without its line end and without the closing `\.`.
    ///
    /// The first error of `take` ends it.
    pub fn push<E>(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            if self.begun.is_empty() {
                hand_over(&rest[..end], take)?;
            } else {
                self.begun.extend_from_slice(&rest[..end]);
                hand_over(&self.begun, take)?;
                self.begun.clear();
            }
            rest = &rest[end + 1..];
        }
        self.begun.extend_from_slice(rest);
        Ok(())
    }
}

/// A carriage return that is data is written as `\r`; a raw one came from a terminal on the way.
fn hand_over<E>(line: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    match line.strip_suffix(b"\r").unwrap_or(line) {
        b"\\." => Ok(()),
        row => take(row),
    }
}

/// One decoded row; its memory serves the next.
#[derive(Debug, Default)]
pub struct Row {
    text: Vec<u8>,
    /// Where each field lies in `text`; none for null.
    fields: Vec<Option<Range<usize>>>,
}

impl Row {
    /// Decodes a line of a table with `columns` columns.
    ///
    /// In some encodings the second byte of a character can look like a backslash; `encoding` tells. A table without
    /// columns has empty lines.
    pub fn decode(&mut self, line: &[u8], columns: usize, encoding: TextEncoding) {
        self.text.clear();
        self.fields.clear();
        if columns == 0 && line.is_empty() {
            return;
        }
        let mut rest = Some(line);
        while let Some(field) = rest {
            rest = self.decode_field(field, encoding);
        }
    }

    /// Returns the number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Tells whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Returns the bytes of a field; none for null and for a field that is not there.
    pub fn field(&self, at: usize) -> Option<&[u8]> {
        let range = self.fields.get(at)?.clone()?;
        Some(&self.text[range])
    }

    /// Decodes the field at the start of `bytes`, and returns what stands behind its tab.
    fn decode_field<'a>(&mut self, bytes: &'a [u8], encoding: TextEncoding) -> Option<&'a [u8]> {
        let start = self.text.len();
        let mut at = 0;
        let mut end = None;
        while end.is_none() {
            let found = next_mark(&bytes[at..], encoding);
            self.text.extend_from_slice(&bytes[at..at + found]);
            at += found;
            match bytes.get(at) {
                None | Some(b'\t') => end = Some(at),
                Some(_) => at += 1 + self.unescape(&bytes[at + 1..]),
            }
        }
        let end = end.unwrap_or(bytes.len());
        // The server compares the raw field, before it undoes any escape.
        let is_null = &bytes[..end] == b"\\N";
        if is_null {
            self.text.truncate(start);
        }
        self.fields
            .push((!is_null).then_some(start..self.text.len()));
        bytes.get(end + 1..)
    }

    /// Undoes the escape whose backslash stands in front of `bytes`, and returns how many of them it takes.
    fn unescape(&mut self, bytes: &[u8]) -> usize {
        let Some(&byte) = bytes.first() else {
            return 0; // the server drops a backslash at the end of a line
        };
        let (value, taken) = match byte {
            b'b' => (8, 1),
            b'f' => (12, 1),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            b'v' => (11, 1),
            b'0'..=b'7' => digits(bytes, 8, 3),
            b'x' => match digits(&bytes[1..], 16, 2) {
                (_, 0) => (b'x', 1),
                (value, taken) => (value, taken + 1),
            },
            other => (other, 1),
        };
        self.text.push(value);
        taken
    }
}

/// Reads at most `most` digits; a larger number keeps its last eight bits, as on the server.
fn digits(bytes: &[u8], base: u32, most: usize) -> (u8, usize) {
    let digits = bytes
        .iter()
        .take(most)
        .map_while(|&byte| char::from(byte).to_digit(base));
    digits.fold((0, 0), |(value, taken), digit| {
        ((u32::from(value) * base + digit) as u8, taken + 1)
    })
}

/// Returns how many bytes come before the next tab or backslash that is one.
fn next_mark(bytes: &[u8], encoding: TextEncoding) -> usize {
    if !encoding.has_wide_leads() {
        return memchr2(b'\t', b'\\', bytes).unwrap_or(bytes.len());
    }
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\t' | b'\\' => return at,
            _ if encoding.is_wide_lead(byte) => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UTF8: TextEncoding = TextEncoding::Utf8;

    fn decode(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut row = Row::default();
        row.decode(line, 1, UTF8);
        (0..row.len())
            .map(|at| row.field(at).map(<[u8]>::to_vec))
            .collect()
    }

    fn one(line: &[u8]) -> Vec<u8> {
        decode(line).remove(0).unwrap()
    }

    #[test]
    fn escapes_are_undone_as_on_the_server() {
        for (line, value) in [
            (&b"plain"[..], &b"plain"[..]),
            (b"\\b\\f\\n\\r\\t\\v", b"\x08\x0c\n\r\t\x0b"),
            (b"\\\\", b"\\"),
            (b"\\\\N", b"\\N"),
            (b"x\\N", b"xN"),
            (b"\\.", b"."),
            (b"\\101\\60\\7", b"A0\x07"),
            (b"\\1012", b"A2"),
            (b"\\777", b"\xff"),
            (b"\\x41\\x4g\\xg\\x", b"A\x04gxgx"),
            (b"\\x411", b"A1"),
            (b"\\'\\q", b"'q"),
            (b"end\\", b"end"),
            (b"a\\\tb", b"a\tb"),
            (b"", b""),
        ] {
            assert_eq!(one(line), value, "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn null_is_not_an_empty_text() {
        let some = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(decode(b"\\N\t\t1"), [None, some(""), some("1")]);
        assert_eq!(decode(b"\t\\N"), [some(""), None]);
        let mut row = Row::default();
        row.decode(b"", 0, UTF8);
        assert!(row.is_empty());
        assert_eq!(row.field(0), None);
    }

    #[test]
    fn half_a_character_is_no_backslash() {
        let mut row = Row::default();
        row.decode(b"\x95\x5c\t\x95\x5cn\\n", 2, TextEncoding::named("SJIS"));
        assert_eq!(row.field(0), Some(&b"\x95\x5c"[..]));
        assert_eq!(row.field(1), Some(&b"\x95\x5cn\n"[..]));
        row.decode(b"\x95", 1, TextEncoding::named("SJIS"));
        assert_eq!(row.field(0), Some(&b"\x95"[..]));
    }

    /// Writes a value as the server's COPY TO does.
    fn encode(value: &Option<Vec<u8>>) -> Vec<u8> {
        let Some(value) = value else {
            return b"\\N".to_vec();
        };
        let escaped = value.iter().flat_map(|&byte| match byte {
            8 => b"\\b".to_vec(),
            12 => b"\\f".to_vec(),
            b'\n' => b"\\n".to_vec(),
            b'\r' => b"\\r".to_vec(),
            b'\t' => b"\\t".to_vec(),
            11 => b"\\v".to_vec(),
            b'\\' => b"\\\\".to_vec(),
            other => vec![other],
        });
        escaped.collect()
    }

    fn lines_of(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let (mut lines, mut out, mut at) = (Lines::default(), Vec::new(), 0);
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let mut take = |row: &[u8]| {
                out.push(row.to_vec());
                Ok::<(), ()>(())
            };
            lines.push(&bytes[at..cut], &mut take).unwrap();
            at = cut;
        }
        out
    }

    #[test]
    fn lines_end_as_in_a_dump() {
        assert_eq!(lines_of(b"a\nb\r\n\n\\.\n", &[]), [&b"a"[..], b"b", b""]);
        assert_eq!(
            lines_of(b"a\nb\r\n\n\\.\n", &[1, 3, 4, 8]),
            [&b"a"[..], b"b", b""]
        );
    }

    proptest! {
        #[test]
        fn what_the_server_writes_reads_back(
            row in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 1..6),
        ) {
            let line = row.iter().map(encode).collect::<Vec<_>>().join(&b'\t');
            prop_assert_eq!(decode(&line), row);
        }

        #[test]
        fn any_line_decodes(line in prop::collection::vec(any::<u8>(), 0..60), sjis in any::<bool>()) {
            let encoding = TextEncoding::named(if sjis { "SJIS" } else { "UTF8" });
            let mut row = Row::default();
            row.decode(&line, 3, encoding);
            prop_assert!(!row.is_empty());
        }

        #[test]
        fn cuts_do_not_matter(
            text in "[a\n\r\\\\.]{0,40}",
            seeds in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(lines_of(text.as_bytes(), &cuts), lines_of(text.as_bytes(), &[]));
        }
    }
}

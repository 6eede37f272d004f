//! Rows of COPY text: cuts them into lines and undoes their escapes, as the server's own COPY FROM does.
//!
//! The rules are those of `CopyReadAttributesText` in PostgreSQL's `copyfromparse.c`. It takes any bytes and never
//! panics; what a row means is for whoever asked.

use std::ops::Range;

use memchr::{memchr, memchr2};

use super::scan::TextEncoding;

/// Memory that a long row leaves behind and that is kept for the next; more goes back to the system.
const KEPT_BYTES: usize = 1 << 20;

/// Cuts the bytes of COPY blocks into rows. Where they were cut before makes no difference.
#[derive(Default)]
pub struct Lines {
    begun: Vec<u8>,
}

/// The line of one row, without its line end.
pub enum Line<'a> {
    /// It lies within the bytes that were pushed.
    Within(&'a [u8]),
    /// It was put together; its memory may be taken.
    Joined(&'a mut Vec<u8>),
}

impl Lines {
    /// Takes bytes, and hands each whole row to `take`, without its line end and without the closing `\.`.
    ///
    /// The first error of `take` ends it. A row that is longer than what is pushed at once is held here, once.
    pub fn push<E>(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            if self.begun.is_empty() {
                let line = without_return(&rest[..end]);
                if line != END {
                    take(Line::Within(line))?;
                }
            } else {
                self.begun.extend_from_slice(&rest[..end]);
                let length = without_return(&self.begun).len();
                self.begun.truncate(length);
                if self.begun != END {
                    take(Line::Joined(&mut self.begun))?;
                }
                self.begun.clear();
            }
            rest = &rest[end + 1..];
        }
        self.begun.extend_from_slice(rest);
        Ok(())
    }
}

impl Line<'_> {
    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Within(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }
}

/// The line behind the last row.
const END: &[u8] = b"\\.";

/// A carriage return that is data is written as `\r`; a raw one came from a terminal on the way.
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// One row; its memory serves the next.
///
/// It holds the row once: its line, in whose place the values stand when their escapes are undone.
#[derive(Debug, Default)]
pub struct Row {
    text: Vec<u8>,
    /// Where each field lies in `text`; none for null.
    fields: Vec<Option<Range<usize>>>,
}

impl Row {
    /// Takes a line of a table with `columns` columns, and finds its fields; their escapes stay.
    ///
    /// In some encodings the second byte of a character can look like a backslash; `encoding` tells. A table without
    /// columns has empty lines.
    pub fn read(&mut self, line: Line<'_>, columns: usize, encoding: TextEncoding) {
        self.text.clear();
        self.fields.clear();
        match line {
            Line::Within(bytes) => self.text.extend_from_slice(bytes),
            Line::Joined(bytes) => std::mem::swap(&mut self.text, bytes),
        }
        if columns == 0 && self.text.is_empty() {
            return;
        }
        let mut start = 0;
        loop {
            let end = start + field_length(&self.text[start..], encoding);
            // The server compares the raw field, before it undoes any escape.
            let is_null = &self.text[start..end] == b"\\N";
            self.fields.push((!is_null).then_some(start..end));
            if end == self.text.len() {
                return;
            }
            start = end + 1;
        }
    }

    /// Undoes the escapes of all fields, once.
    pub fn unescape(&mut self, encoding: TextEncoding) {
        for field in self.fields.iter_mut().flatten() {
            field.end = field.start + unescape(&mut self.text[field.clone()], encoding);
        }
    }

    /// Forgets the row, and gives back what a long one took.
    pub fn release(&mut self) {
        if self.text.capacity() > KEPT_BYTES {
            self.text = Vec::new();
        }
        self.text.clear();
        self.fields.clear();
    }

    /// Returns the line that was read; no line any more once escapes were undone.
    pub fn line(&self) -> &[u8] {
        &self.text
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
}

/// Tells whether a field whose escapes stand is this value.
pub fn is_value(field: &[u8], value: &str, encoding: TextEncoding) -> bool {
    // No escape has more than four bytes for one, and no encoding more for a character; the server drops a backslash at
    // the end. So a field that is much longer than the value need not be decoded.
    if field.len() > value.len() * 16 + 1 {
        return false;
    }
    let mut text = field.to_vec();
    let length = unescape(&mut text, encoding);
    encoding.decode(&text[..length]) == value
}

/// Returns how long the field at the start of `bytes` is, up to its tab or to the end.
fn field_length(bytes: &[u8], encoding: TextEncoding) -> usize {
    let mut at = 0;
    loop {
        at += next_mark(&bytes[at..], encoding);
        match bytes.get(at) {
            None | Some(b'\t') => return at,
            // What stands behind a backslash is part of the field, also a tab.
            Some(_) => at = bytes.len().min(at + 2),
        }
    }
}

/// Undoes the escapes of a field in its place, and returns how long it is then: never longer.
fn unescape(field: &mut [u8], encoding: TextEncoding) -> usize {
    let (mut from, mut to) = (0, 0);
    loop {
        let plain = next_mark(&field[from..], encoding);
        if from != to {
            field.copy_within(from..from + plain, to);
        }
        from += plain;
        to += plain;
        if from == field.len() {
            return to;
        }
        let (value, taken) = escape(&field[from + 1..]);
        if let Some(value) = value {
            field[to] = value;
            to += 1;
        }
        from += 1 + taken;
    }
}

/// Returns what an escape stands for whose backslash is in front of `bytes`, and how many of them it takes.
fn escape(bytes: &[u8]) -> (Option<u8>, usize) {
    let Some(&byte) = bytes.first() else {
        return (None, 0); // the server drops a backslash at the end of a line
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
    (Some(value), taken)
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

    fn row(line: &[u8], columns: usize, encoding: TextEncoding) -> Row {
        let mut row = Row::default();
        row.read(Line::Within(line), columns, encoding);
        row.unescape(encoding);
        row
    }

    fn decode(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let row = row(line, 1, UTF8);
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
        let row = row(b"", 0, UTF8);
        assert!(row.is_empty());
        assert_eq!(row.field(0), None);
    }

    #[test]
    fn half_a_character_is_no_backslash() {
        let sjis = TextEncoding::named("SJIS");
        let two = row(b"\x95\x5c\t\x95\x5cn\\n", 2, sjis);
        assert_eq!(two.field(0), Some(&b"\x95\x5c"[..]));
        assert_eq!(two.field(1), Some(&b"\x95\x5cn\n"[..]));
        let half = row(b"\x95", 1, sjis);
        assert_eq!(half.field(0), Some(&b"\x95"[..]));
    }

    #[test]
    fn a_long_row_is_held_once() {
        let (mut lines, mut row) = (Lines::default(), Row::default());
        let piece = vec![b'a'; KEPT_BYTES];
        let mut seen = 0;
        for _ in 0..2 {
            for _ in 0..3 {
                let mut take = |_: Line<'_>| Err("no row is whole");
                lines.push(&piece, &mut take).unwrap();
            }
            let held = lines.begun.as_ptr();
            let mut take = |line: Line<'_>| {
                row.read(line, 1, UTF8);
                row.unescape(UTF8);
                assert_eq!(
                    row.field(0).map(<[u8]>::as_ptr),
                    Some(held),
                    "it was copied"
                );
                seen += row.line().len();
                row.release();
                Ok::<(), ()>(())
            };
            lines.push(b"\n", &mut take).unwrap();
            assert!(row.text.capacity() + lines.begun.capacity() <= KEPT_BYTES);
        }
        assert_eq!(seen, 6 * KEPT_BYTES);
    }

    #[test]
    fn a_value_is_found_without_decoding_what_is_longer() {
        for (field, value, is) in [
            (&b"a\\tb"[..], "a\tb", true),
            (b"\\\\x61", "\\x61", true),
            (b"\\101", "A", true),
            (b"", "", true),
            (b"\\", "", true),
            (b"a", "", false),
            (b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a", false),
        ] {
            assert_eq!(is_value(field, value, UTF8), is, "{value:?}");
        }
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
            let mut take = |line: Line<'_>| {
                out.push(line.bytes().to_vec());
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
            prop_assert!(!row(&line, 3, encoding).is_empty());
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

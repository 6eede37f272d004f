//! Reads the rows of one COPY block: counts and digests them, and finds the line that ends them.

use memchr::{memchr, memchr_iter};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::digest::RowDigest;

/// Rows of one COPY block so far. A row may be cut anywhere between two calls, and is never held in memory.
pub(super) struct Rows {
    /// Whole rows.
    pub rows: u64,
    /// Bytes of whole and begun rows, newlines included.
    pub bytes: u64,
    /// Digest of the whole rows.
    pub digest: RowDigest,
    /// A line that began in an earlier piece of the stream.
    begun: Option<Begun>,
}

/// A line whose end has not come yet.
struct Begun {
    hash: Box<Xxh3>,
    /// Its length, with a carriage return that may turn out to belong to the line end.
    length: u64,
    /// Whether its last byte is a carriage return that `hash` has not seen.
    held_return: bool,
    /// Its first bytes, enough to recognise the closing `\.`.
    head: [u8; 2],
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            bytes: 0,
            digest: RowDigest::default(),
            begun: None,
        }
    }

    /// Tells whether the stream stands inside a line.
    pub(super) fn is_inside_line(&self) -> bool {
        self.begun.is_some()
    }

    /// Takes bytes up to the block's end, and returns how many when the closing line was among them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut start = 0;
        if self.begun.is_some() {
            let newline = memchr(b'\n', bytes);
            let part = &bytes[..newline.unwrap_or(bytes.len())];
            self.extend_begun(part);
            let end = newline?;
            start = end + 1;
            if self.end_begun() {
                return Some(start);
            }
        }
        let rest = &bytes[start..];
        let mut from = 0;
        for newline in memchr_iter(b'\n', rest) {
            let line = trim_return(&rest[from..newline]);
            if line == b"\\." {
                self.bytes += from as u64;
                return Some(start + newline + 1);
            }
            self.digest.add_hash(xxh3_128(line));
            self.rows += 1;
            from = newline + 1;
        }
        self.bytes += from as u64;
        if from < rest.len() {
            self.begun = Some(Begun::new());
            self.extend_begun(&rest[from..]);
        }
        None
    }

    fn extend_begun(&mut self, part: &[u8]) {
        if let Some(begun) = &mut self.begun {
            begun.extend(part);
            self.bytes += part.len() as u64;
        }
    }

    /// Ends the begun line; true when it was the closing line.
    fn end_begun(&mut self) -> bool {
        let Some(begun) = self.begun.take() else {
            return false;
        };
        if begun.is_terminator() {
            self.bytes -= begun.length;
            return true;
        }
        self.digest.add_hash(begun.hash.digest128());
        self.rows += 1;
        self.bytes += 1;
        false
    }
}

impl Begun {
    fn new() -> Self {
        Self {
            hash: Box::new(Xxh3::new()),
            length: 0,
            held_return: false,
            head: [0; 2],
        }
    }

    fn extend(&mut self, part: &[u8]) {
        let Some((&last, front)) = part.split_last() else {
            return;
        };
        if self.held_return {
            self.hash.update(b"\r");
        }
        for (at, &byte) in part.iter().enumerate().take(2) {
            let index = self.length as usize + at;
            if self.length < 2 && index < 2 {
                self.head[index] = byte;
            }
        }
        self.held_return = last == b'\r';
        self.hash
            .update(if self.held_return { front } else { part });
        self.length += part.len() as u64;
    }

    fn is_terminator(&self) -> bool {
        &self.head == b"\\." && self.length == 2 + u64::from(self.held_return)
    }
}

/// COPY text writes a carriage return in data as `\r`: a raw one at the end of a line came from a terminal or an
/// editor on the way, and is no part of the row.
fn trim_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(text: &[u8], cuts: &[usize]) -> (u64, u64, RowDigest, Option<usize>) {
        let mut rows = Rows::new();
        let mut at = 0;
        for &cut in cuts.iter().chain([&text.len()]) {
            if let Some(end) = rows.push(&text[at..cut]) {
                return (rows.rows, rows.bytes, rows.digest, Some(at + end));
            }
            at = cut;
        }
        (rows.rows, rows.bytes, rows.digest, None)
    }

    #[test]
    fn counts_rows_and_finds_the_end() {
        let (rows, bytes, _, end) = feed(b"1\ta\n\n\\.x\n\\.\nrest", &[]);
        assert_eq!((rows, bytes, end), (3, 9, Some(12)));
    }

    #[test]
    fn line_ends_of_a_terminal_change_no_digest() {
        let unix = feed(b"1\ta\n2\tb\n\\.\n", &[]);
        let dos = feed(b"1\ta\r\n2\tb\r\n\\.\r\n", &[]);
        assert_eq!((unix.0, unix.2), (dos.0, dos.2));
        assert_eq!(dos.3, Some(14));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            lines in prop::collection::vec("(\\\\|\\.|\r|a|\\\\\\.){0,4}", 0..20),
            seeds in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text = format!("{}\n\\.\ntail", lines.join("\n"));
            let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(feed(text.as_bytes(), &[]), feed(text.as_bytes(), &cuts));
        }
    }
}

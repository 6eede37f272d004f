//! Reads the rows of one COPY block: counts and digests them, and finds the line that ends them.

use memchr::{memchr, memchr_iter, memrchr};
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
    /// Whole rows that are no UTF-8, and the number of the first.
    pub bad_rows: u64,
    pub first_bad_row: Option<u64>,
    /// Whether rows have to be UTF-8.
    is_utf8: bool,
    /// Looks for a value of type `bytea` in hex, where somebody asked for it.
    hex: Option<HexBytea>,
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
    /// Whether it is UTF-8 so far.
    utf8: Utf8,
}

impl Rows {
    /// Starts a block. `is_utf8` looks whether rows are UTF-8, `notes_form` in which form values of type `bytea` are.
    pub(super) fn new(is_utf8: bool, notes_form: bool) -> Self {
        Self {
            rows: 0,
            bytes: 0,
            digest: RowDigest::default(),
            bad_rows: 0,
            first_bad_row: None,
            is_utf8,
            hex: notes_form.then(HexBytea::default),
            begun: None,
        }
    }

    /// Tells whether a value in hex was seen.
    pub(super) fn has_hex_bytea(&self) -> bool {
        self.hex.as_ref().is_some_and(HexBytea::is_seen)
    }

    fn note_bad(&mut self) {
        self.bad_rows += 1;
        self.first_bad_row.get_or_insert(self.rows + 1);
    }

    /// Tells whether the stream stands inside a line.
    pub(super) fn is_inside_line(&self) -> bool {
        self.begun.is_some()
    }

    /// Takes bytes up to the block's end, and returns how many when the closing line was among them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let end = self.take(bytes);
        if let Some(hex) = &mut self.hex {
            hex.push(&bytes[..end.unwrap_or(bytes.len())]);
        }
        end
    }

    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
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
        // Most pieces are good, and a piece is checked much faster than each of its lines.
        let whole = memrchr(b'\n', rest).map_or(0, |newline| newline + 1);
        let is_good = !self.is_utf8 || std::str::from_utf8(&rest[..whole]).is_ok();
        let mut from = 0;
        for newline in memchr_iter(b'\n', rest) {
            let line = trim_return(&rest[from..newline]);
            if line == b"\\." {
                self.bytes += from as u64;
                return Some(start + newline + 1);
            }
            self.digest.add_hash(xxh3_128(line));
            if !is_good && std::str::from_utf8(line).is_err() {
                self.note_bad();
            }
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
            if self.is_utf8 {
                begun.utf8.push(part);
            }
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
        if self.is_utf8 && !begun.utf8.is_good() {
            self.note_bad();
        }
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
            utf8: Utf8::default(),
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

/// Text that comes in pieces: whether it is UTF-8.
#[derive(Default)]
struct Utf8 {
    /// A character whose end has not come yet.
    cut: [u8; 4],
    length: usize,
    is_wrong: bool,
}

impl Utf8 {
    fn push(&mut self, mut part: &[u8]) {
        while self.length > 0 && !self.is_wrong {
            let Some((&byte, rest)) = part.split_first() else {
                return;
            };
            part = rest;
            self.cut[self.length] = byte;
            self.length += 1;
            match std::str::from_utf8(&self.cut[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) => self.is_wrong = error.error_len().is_some(),
            }
        }
        if self.is_wrong {
            return;
        }
        if let Err(error) = std::str::from_utf8(part) {
            let cut = &part[error.valid_up_to()..];
            self.is_wrong = error.error_len().is_some();
            if !self.is_wrong {
                self.cut[..cut.len()].copy_from_slice(cut);
                self.length = cut.len();
            }
        }
    }

    fn is_good(&self) -> bool {
        !self.is_wrong && self.length == 0
    }
}

/// Looks for a value that begins with `\x`, as bytes in hex do; COPY doubles its backslash, and once more inside the
/// quotes of an array or a row.
#[derive(Default)]
struct HexBytea {
    /// How much of a field's beginning is the first pattern; far more where it is something else.
    at_start: usize,
    /// How much of the second was just seen.
    quoted: usize,
    is_seen: bool,
}

const HEX_BYTEA: &[u8] = br"\\x";
const QUOTED_HEX_BYTEA: &[u8] = br#""\\\\x"#;

impl HexBytea {
    fn is_seen(&self) -> bool {
        self.is_seen
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.is_seen {
            return;
        }
        for &byte in bytes {
            self.at_start = match byte {
                b'\t' | b'\n' => 0,
                byte if HEX_BYTEA.get(self.at_start) == Some(&byte) => self.at_start + 1,
                _ => usize::MAX,
            };
            // Its first byte comes once in it, so what does not go on can only begin anew.
            self.quoted = match byte {
                byte if QUOTED_HEX_BYTEA.get(self.quoted) == Some(&byte) => self.quoted + 1,
                byte => usize::from(QUOTED_HEX_BYTEA.first() == Some(&byte)),
            };
            if self.at_start == HEX_BYTEA.len() || self.quoted == QUOTED_HEX_BYTEA.len() {
                self.is_seen = true;
                return;
            }
        }
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
        let (rows, end) = read(text, cuts);
        (rows.rows, rows.bytes, rows.digest, end)
    }

    fn read(text: &[u8], cuts: &[usize]) -> (Rows, Option<usize>) {
        let mut rows = Rows::new(true, true);
        let mut at = 0;
        for &cut in cuts.iter().chain([&text.len()]) {
            if let Some(end) = rows.push(&text[at..cut]) {
                return (rows, Some(at + end));
            }
            at = cut;
        }
        (rows, None)
    }

    #[test]
    fn rows_that_are_no_utf8_are_counted() {
        let text = b"1\tok \xc3\xa9\n2\tcaf\xe9\n3\t\xf0\x9f\x98\x80\n4\t\xed\xa0\x80\n\\.\n";
        for cut in 0..text.len() {
            let (rows, _) = read(text, &[cut]);
            assert_eq!((rows.bad_rows, rows.first_bad_row), (2, Some(2)), "{cut}");
        }
    }

    #[test]
    fn a_value_in_hex_is_seen_at_the_start_of_a_field() {
        for (text, is_seen) in [
            (r"1\t\\x00ff", true),
            (r"\\x", true),
            (r"1\ta\\x00", false),
            (r"1\t\\\\x41", false),
            (r"1\t\\000ff", false),
            (r#"1\t{"\\\\x00"}"#, true),
            (r#"1\t{"\\\\000"}"#, false),
            (r#"1\t{"\\\\\\\\x00"}"#, false),
        ] {
            let text = format!("{}\n\\.\n", text.replace(r"\t", "\t"));
            for cut in 0..text.len() {
                let (rows, _) = read(text.as_bytes(), &[cut]);
                assert_eq!(rows.has_hex_bytea(), is_seen, "{text} cut at {cut}");
            }
        }
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

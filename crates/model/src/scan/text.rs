//! What is known of a dump's text as such: its line ends, a byte order mark, a NUL byte.

use memchr::memchr;

use super::report::Finding;

/// UTF-8 byte order mark; psql passes over it, and so does the scanner.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is known of the text as such.
#[derive(Default)]
pub(super) struct TextFacts {
    pub(super) last_byte: Option<u8>,
    has_newline: bool,
    is_crlf: bool,
    mark_bytes: usize,
    pub(super) first_nul: Option<u64>,
}

impl TextFacts {
    pub(super) fn look_at(&mut self, bytes: &[u8], position: u64) {
        if self.first_nul.is_none() {
            self.first_nul = memchr(0, bytes).map(|at| position + at as u64);
        }
        if self.has_newline {
            return;
        }
        if let Some(at) = memchr(b'\n', bytes) {
            self.has_newline = true;
            let before = if at > 0 {
                Some(bytes[at - 1])
            } else {
                self.last_byte
            };
            self.is_crlf = before == Some(b'\r');
        }
    }

    /// Asked once for each token. Returns 1 when `byte` continues a byte order mark at the start of the file.
    #[inline]
    pub(super) fn skip_mark(&mut self, byte: u8, position: u64) -> usize {
        let is_mark = position == self.mark_bytes as u64
            && BYTE_ORDER_MARK.get(self.mark_bytes) == Some(&byte);
        self.mark_bytes += usize::from(is_mark);
        usize::from(is_mark)
    }

    pub(super) fn nul_problem(&self) -> Option<Finding> {
        let message = "a NUL byte, which no plain dump holds: the file was damaged";
        self.first_nul
            .map(|offset| Finding::new("nul_byte", message, Some(offset)))
    }

    pub(super) fn warnings(&self) -> Vec<Finding> {
        let mut warnings = Vec::new();
        if self.mark_bytes == BYTE_ORDER_MARK.len() {
            let message = "it begins with a byte order mark that an editor or a shell put there";
            warnings.push(Finding::new("byte_order_mark", message, Some(0)));
        }
        if self.is_crlf {
            let message =
                "its lines end in CRLF: it passed through a terminal (`docker exec -t`) or Windows";
            warnings.push(Finding::new("crlf", message, None));
        }
        warnings
    }
}

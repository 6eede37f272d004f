//! A program's last words: the last lines of its stderr, without secrets and in bounded memory whatever it prints.

use std::collections::VecDeque;

use pgkeep_model::redact::Redactor;

/// Last lines kept of a program's stderr: what an operator reads, and what errors quote.
pub(super) const TAIL_LINES: usize = 20;

/// Longest line quoted, in bytes.
pub(super) const LINE_SHOWN: usize = 2000;

/// Longest line held: more than is shown, so that a secret across the cut is still found and masked.
pub(super) const LINE_HELD: usize = 2 * LINE_SHOWN;

/// The last lines of a stream, in bounded memory whatever comes.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) lines: VecDeque<Vec<u8>>,
    pub(super) open: Vec<u8>,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, is_whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE_HELD - self.open.len();
            self.open.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                if self.lines.len() == TAIL_LINES {
                    self.lines.pop_front();
                }
                self.lines.push_back(std::mem::take(&mut self.open));
            }
        }
    }

    pub(super) fn lines(&self, redactor: &Redactor) -> Vec<String> {
        let open = Some(&self.open).filter(|open| !open.is_empty());
        let all: Vec<_> = self.lines.iter().chain(open).collect();
        all[all.len().saturating_sub(TAIL_LINES)..]
            .iter()
            .map(|line| shown(line, redactor))
            .collect()
    }
}

fn shown(line: &[u8], redactor: &Redactor) -> String {
    let printed = String::from_utf8_lossy(line);
    let text = redactor.redact(printed.trim_end_matches('\r'));
    if text.len() <= LINE_SHOWN {
        return text.into_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(LINE_SHOWN)])
}

//! Reads times, one per line, as people and scripts write them down.

use std::fmt;

use jiff::Timestamp;

use crate::name::printable;

/// Longest piece of a bad line that is shown.
const SHOWN_CHARS: usize = 60;

/// A line that is no time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub number: usize,
    /// Its text, fit for a terminal and cut where it is long.
    pub text: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, text } = self;
        write!(
            f,
            "line {number}: `{text}` is not an RFC 3339 time such as `2026-01-16T03:00:00+01:00`"
        )
    }
}

/// Reads one RFC 3339 time per line, with any offset, in the order of the lines.
///
/// Empty lines and lines that start with `#` are skipped. All bad lines are reported at once.
pub fn read_times(bytes: &[u8]) -> Result<Vec<Timestamp>, Vec<BadLine>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut times = Vec::new();
    let mut bad = Vec::new();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let time = std::str::from_utf8(line).ok().map(str::parse);
        match time {
            Some(Ok(time)) => times.push(time),
            _ => bad.push(BadLine {
                number: at + 1,
                text: shown(line),
            }),
        }
    }
    if bad.is_empty() { Ok(times) } else { Err(bad) }
}

fn shown(line: &[u8]) -> String {
    // A character takes at most four bytes; the rest need not be looked at.
    let start = &line[..line.len().min(4 * SHOWN_CHARS)];
    let text = String::from_utf8_lossy(start);
    let mut shown = printable(&text.chars().take(SHOWN_CHARS).collect::<String>());
    if text.chars().count() > SHOWN_CHARS {
        shown.push('…');
    }
    shown
}

/// Entry for a fuzzer: reads any bytes and checks what [`read_times`] promises.
///
/// Panics where a promise is broken.
pub fn fuzz(data: &[u8]) {
    match read_times(data) {
        Ok(times) => {
            let written: String = times.iter().map(|time| format!("{time}\n")).collect();
            let again = read_times(written.as_bytes());
            assert_eq!(again.as_ref(), Ok(&times), "what is written can be read");
        }
        Err(bad) => {
            assert!(!bad.is_empty(), "a refusal has a reason");
            assert!(bad.is_sorted_by_key(|line| line.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let text = "\u{feff}# nightly\n2026-01-16T03:00:00+01:00\r\n\n  2026-01-16T02:00:00Z  \n2026-01-15T21:00:00-05:00\n\
                    2026-01-16t02:00:00.5z";
        let times = read_times(text.as_bytes()).unwrap();
        let shown: Vec<String> = times.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "2026-01-16T02:00:00Z",
                "2026-01-16T02:00:00Z",
                "2026-01-16T02:00:00Z",
                "2026-01-16T02:00:00.5Z"
            ]
        );
    }

    #[test]
    fn tells_all_bad_lines_with_number_and_text() {
        let mut text = b"2026-01-16T03:00:00Z\nyesterday\n\n2026-02-30T03:00:00Z\n2026-01-16T03:00:00\n2026-01-16\n".to_vec();
        text.extend(b"\x1b[2J\xff\n");
        text.extend("ü".repeat(100).as_bytes());
        let refused = read_times(&text).unwrap_err();
        let bad: Vec<(usize, &str)> = refused
            .iter()
            .map(|line| (line.number, line.text.as_str()))
            .collect();
        let cut = "ü".repeat(60) + "…";
        assert_eq!(
            bad,
            [
                (2, "yesterday"),
                (4, "2026-02-30T03:00:00Z"),
                (5, "2026-01-16T03:00:00"),
                (6, "2026-01-16"),
                (7, "\\u{1b}[2J\u{fffd}"),
                (8, cut.as_str()),
            ]
        );
    }

    #[test]
    fn nothing_is_no_time() {
        for text in ["", "\n\n", "# only words\n", "\u{feff}"] {
            assert_eq!(read_times(text.as_bytes()), Ok(Vec::new()), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reads_any_bytes(data: Vec<u8>) {
            fuzz(&data);
        }
    }
}

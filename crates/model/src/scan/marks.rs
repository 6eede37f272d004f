//! Follows the marks that tell a whole dump from a cut one: headers, end markers, `\restrict` keys, `\connect`.

use super::encoding::NameEncoding;
use super::report::{Finding, note};

/// The dumps of one file and how far each came.
#[derive(Debug, Default)]
pub(super) struct Marks {
    dumps: Vec<Dump>,
    cluster_start: bool,
    cluster_end: bool,
    restrict_key: Option<Vec<u8>>,
    /// The title of a dump was the last comment; the line that closes its box makes it a header.
    has_title: bool,
    database: Option<String>,
    was_connected: bool,
    pub server_version: Option<String>,
    pub pg_dump_version: Option<String>,
    problems: Vec<Finding>,
    warnings: Vec<Finding>,
    text_behind_end: bool,
}

#[derive(Debug)]
struct Dump {
    has_header: bool,
    has_ended: bool,
}

/// What a backslash command did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MetaEffect {
    None,
    /// The session is another: settings are back at their defaults.
    Connected,
}

impl Marks {
    /// Takes the text of a comment line that stands between statements.
    pub(super) fn comment(&mut self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else {
            return;
        };
        let had_title = std::mem::take(&mut self.has_title);
        match text {
            "" if had_title => self.start_dump(),
            " PostgreSQL database dump" => self.has_title = true,
            " PostgreSQL database dump complete" => self.end_dump(),
            " PostgreSQL database cluster dump" => self.cluster_start = true,
            " PostgreSQL database cluster dump complete" => self.cluster_end = true,
            _ => {
                let version = |prefix| {
                    text.strip_prefix(prefix)
                        .map(|version: &str| version.trim().to_owned())
                };
                if self.server_version.is_none() {
                    self.server_version = version(" Dumped from database version ");
                }
                if self.pg_dump_version.is_none() {
                    self.pg_dump_version = version(" Dumped by pg_dump version ");
                }
            }
        }
    }

    /// Statements in front of the first header belong to its dump.
    fn start_dump(&mut self) {
        match self.dumps.last_mut() {
            Some(dump) if !dump.has_header && !dump.has_ended => {
                dump.has_header = true;
                let message =
                    "there are statements before the dump's header; pg_dump did not write them";
                self.warnings
                    .push(Finding::new("text_before_header", message, None));
            }
            _ => self.dumps.push(Dump {
                has_header: true,
                has_ended: false,
            }),
        }
    }

    fn end_dump(&mut self) {
        match self.dumps.last_mut() {
            Some(dump) => dump.has_ended = true,
            None => self.dumps.push(Dump {
                has_header: false,
                has_ended: true,
            }),
        }
    }

    /// Takes note that a statement begins at `offset`.
    pub(super) fn statement(&mut self, offset: u64) {
        self.has_title = false;
        if self.cluster_start {
            return;
        }
        match self.dumps.last() {
            None => self.dumps.push(Dump {
                has_header: false,
                has_ended: false,
            }),
            Some(dump) if dump.has_ended && !self.text_behind_end => {
                self.text_behind_end = true;
                let message = "there are statements after the end marker; a program that is not pg_dump put them there";
                self.warnings.push(Finding::new(
                    "text_behind_end_marker",
                    message,
                    Some(offset),
                ));
            }
            Some(_) => {}
        }
    }

    /// Takes a backslash command that starts at `offset`.
    pub(super) fn meta(&mut self, line: &[u8], offset: u64) -> MetaEffect {
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        match words.next().unwrap_or_default() {
            b"restrict" => self.restrict_key = Some(words.next().unwrap_or_default().to_vec()),
            b"unrestrict" => self.unrestrict(words.next().unwrap_or_default(), offset),
            b"connect" | b"c" => {
                self.was_connected = true;
                self.database = connected_database(line);
                return MetaEffect::Connected;
            }
            b"encoding" | b"." => {}
            other => {
                let command = String::from_utf8_lossy(other);
                let message =
                    format!("psql would carry out `\\{command}`; pg_dump writes no such command");
                let finding = Finding::new("backslash_command", message, Some(offset));
                note(&mut self.warnings, finding);
            }
        }
        MetaEffect::None
    }

    fn unrestrict(&mut self, key: &[u8], offset: u64) {
        if self
            .restrict_key
            .take()
            .is_none_or(|expected| expected != key)
        {
            let message =
                "the key of `\\unrestrict` is not the one of `\\restrict`; psql refuses the dump";
            let finding = Finding::new("restrict_key_mismatch", message, Some(offset));
            note(&mut self.problems, finding);
        }
    }

    /// Returns the database that the file is connected to.
    pub(super) fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// Tells whether the file is one of `pg_dumpall`.
    pub(super) fn is_cluster(&self) -> bool {
        self.cluster_start || self.cluster_end
    }

    /// Tells whether every dump reached its end marker, and there is one.
    pub(super) fn end_marker(&self) -> bool {
        !self.dumps.is_empty() && self.dumps.iter().all(|dump| dump.has_ended)
    }

    /// Ends the file: what is missing becomes a problem.
    pub(super) fn finish(mut self) -> (Vec<Finding>, Vec<Finding>) {
        if self.has_title {
            self.start_dump();
        }
        if !self.is_cluster() || !self.dumps.is_empty() {
            self.judge_dumps();
        }
        if self.cluster_start && !self.cluster_end {
            let message =
                "the end marker `-- PostgreSQL database cluster dump complete` is missing";
            self.problems
                .push(Finding::new("cluster_end_marker_missing", message, None));
        }
        if self.restrict_key.is_some() {
            let message = "`\\restrict` is never closed by its `\\unrestrict`";
            self.problems
                .push(Finding::new("unrestrict_missing", message, None));
        }
        let whole = self
            .dumps
            .iter()
            .filter(|dump| dump.has_header && dump.has_ended)
            .count();
        if whole > 1 && !self.is_cluster() && !self.was_connected {
            let message = format!("it holds {whole} complete dumps, one after the other");
            self.warnings
                .push(Finding::new("several_dumps", message, None));
        }
        (self.problems, self.warnings)
    }

    fn judge_dumps(&mut self) {
        let cut = self.dumps.iter().filter(|dump| !dump.has_ended).count();
        let message = match (self.dumps.len(), cut) {
            (0, _) => "it holds no statement of a dump".to_owned(),
            (_, 0) => return,
            (1, _) => "the end marker `-- PostgreSQL database dump complete` is missing".to_owned(),
            (all, cut) => format!(
                "{cut} of {all} dumps lack the end marker `-- PostgreSQL database dump complete`"
            ),
        };
        self.problems
            .push(Finding::new("end_marker_missing", message, None));
    }
}

/// Reads the database out of `\connect name`, `\connect "Name"` or
/// `\connect -reuse-previous=on "dbname='odd name'"`, the three forms that pg_dump and pg_dumpall write.
fn connected_database(line: &[u8]) -> Option<String> {
    let line = NameEncoding::Utf8.decode(line);
    let mut rest = line.trim().split_once(char::is_whitespace)?.1.trim_start();
    if rest.starts_with("-reuse-previous") {
        rest = rest.split_once(char::is_whitespace)?.1.trim_start();
    }
    let argument = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted, '"'),
        None => match rest.strip_prefix('\'') {
            Some(quoted) => unquote(quoted, '\''),
            None => rest.split_whitespace().next()?.to_owned(),
        },
    };
    match argument.strip_prefix("dbname=") {
        Some(value) => Some(conninfo_value(value)),
        None => Some(argument),
    }
}

/// Takes a quoted text up to its closing quote; a doubled quote stands for one.
fn unquote(text: &str, quote: char) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == quote && chars.next_if_eq(&quote).is_none() {
            break;
        }
        out.push(c);
    }
    out
}

/// Reads the value of a libpq conninfo pair, quoted or not.
fn conninfo_value(text: &str) -> String {
    let quoted = text.strip_prefix('\'');
    let mut out = String::new();
    let mut chars = quoted.unwrap_or(text).chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            '\'' if quoted.is_some() => break,
            c if quoted.is_none() && c.is_whitespace() => break,
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_database_of_a_connect() {
        for (line, database) in [
            ("connect shop", "shop"),
            ("connect \"My \"\"DB\"\"\"", "My \"DB\""),
            (
                "connect -reuse-previous=on \"dbname='odd =name'\"",
                "odd =name",
            ),
            (
                "connect -reuse-previous=on \"dbname='a\\'b\\\\c'\"",
                "a'b\\c",
            ),
            ("c shop - - 5432", "shop"),
        ] {
            assert_eq!(
                connected_database(line.as_bytes()).as_deref(),
                Some(database),
                "{line}"
            );
        }
        assert_eq!(connected_database(b"connect"), None);
    }
}

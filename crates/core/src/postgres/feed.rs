//! Feeds SQL to `psql`, which takes the end of its input for the end of the script.
//!
//! So nobody lets it see the end before the whole dump was proven: all is one transaction whose COMMIT only
//! [`Feed::commit`] writes, and a feed that is dropped or stopped kills `psql` before its input is closed.

use std::io::{self, PipeWriter, Read, Write};
use std::time::Duration;

use memchr::memmem;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::process::{Ended, Output, Running, Stop};
use super::programs::Version;
use super::psql::{PREAMBLE, Psql, WRITABLE};
use pgkeep_model::restore::properties::literal;
use pgkeep_model::scan::{Scan, Scanner};
use pgkeep_model::text_form::TextForm;

/// The first minor of each major whose `psql` knows `\restrict`; from 18 on all do.
const KNOWS_RESTRICT: &[(u32, u32)] = &[(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];

/// Most that is kept as notes: a kilobyte for each of many thousand tables.
const MAX_NOTES: usize = 64 << 20;

/// A program that does not tell its version in this time is not one that we can use.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// What `pg_dump` sets for its session, and we for its, so that rows read alike. Deferred constraints are checked first.
const AS_PG_DUMP: &str = "\
SET CONSTRAINTS ALL IMMEDIATE;
SET standard_conforming_strings = on;
SET search_path = '';
SET DateStyle = ISO;
SET IntervalStyle = postgres;
SET extra_float_digits = 3;
SET row_security = off;
";

/// How a dump is fed.
#[derive(Clone, Debug)]
pub struct FeedRequest<'a> {
    /// Where to.
    pub psql: &'a Psql,
    /// Name that the session has on the server.
    pub application: &'a str,
    /// Whether all is one transaction.
    pub one_transaction: bool,
    /// Major version of the server.
    pub server_major: u32,
    /// Time zone that the dump was written in.
    pub time_zone: &'a str,
    /// Text form of the dump's values.
    pub form: &'a TextForm,
    /// SQL that is carried out before the dump, inside its transaction.
    pub prelude: &'a str,
    /// SQL that is carried out behind all of it, in front of the transaction's COMMIT.
    pub ending: &'a str,
    /// Random letters and digits that close `psql`'s restricted mode.
    pub key: &'a str,
}

/// What the session answered.
#[derive(Debug)]
pub struct Answers {
    /// Rows that were asked for, as tables of a dump.
    pub scan: Scan,
    /// What was printed between [`FeedRequest::notes`] and the rows; empty where no notes were asked for.
    pub notes: String,
}

/// A `psql` that takes a dump. Dropping it kills the program, which undoes an open transaction.
pub struct Feed {
    // The program is dropped, and so killed, before its input is closed.
    running: Running,
    input: Option<PipeWriter>,
    /// Keeps the input open whatever becomes of the one that was taken.
    kept: Option<PipeWriter>,
    answers: Option<oneshot::Receiver<Answers>>,
    replies: Option<mpsc::UnboundedReceiver<()>>,
    ending: String,
}

impl FeedRequest<'_> {
    /// Starts `psql` and opens the transaction.
    pub async fn start(&self, cancel: &CancellationToken) -> Result<Feed, Error> {
        let psql = self.psql.clone().with_application_name(self.application);
        let version = psql.version(cancel, VERSION_TIMEOUT).await;
        let mut running = psql
            .program()
            .args(["-f", "-"])
            .piped_input()
            .spawn(cancel)?;
        let output = running.take_output();
        let marks = Marks {
            notes: self.notes_mark(),
            rows: self.mark(),
            end: self.end_of_answers(),
            reply: self.reply_mark(),
        };
        let (sender, answers) = oneshot::channel();
        let (reply, replies) = mpsc::unbounded_channel();
        // It ends with the program. What the dump's own SELECTs print is of no interest, but must not fill the pipe.
        tokio::task::spawn_blocking(move || listen(output, &marks, sender, &reply));
        let input = running.take_input();
        // Out of file descriptors, the one that is taken has to do.
        let kept = input.as_ref().and_then(|input| input.try_clone().ok());
        let opening = self.opening(version.is_some_and(knows_restrict));
        // A program that still connects reads nothing, and a long opening fills the pipe.
        let written = tokio::task::spawn_blocking(move || {
            let mut input = input;
            if let Some(input) = &mut input {
                // A program that is gone already says why at its end.
                let _ = input.write_all(opening.as_bytes());
            }
            input
        });
        let input = written.await.expect("writing to a pipe does not panic");
        Ok(Feed {
            running,
            input,
            kept,
            answers: Some(answers),
            replies: Some(replies),
            ending: if self.one_transaction {
                format!("\n{}COMMIT;\n", self.ending)
            } else {
                "\n".to_owned()
            },
        })
    }

    /// Returns SQL that prints these tables' rows in this form as blocks of a dump, each as its name and what to copy.
    ///
    /// What is printed in front of them is passed over; [`Feed::answers`] returns once the last one was read.
    pub fn questions(
        &self,
        tables: &[(String, String)],
        form: &TextForm,
        encoding: &str,
    ) -> String {
        // Names are ours, in UTF-8; a database whose bytes the server converts to nothing else takes all as it is.
        let is_raw = matches!(encoding, "SQL_ASCII" | "MULE_INTERNAL");
        let (ours, rows) = match encoding {
            "UTF8" => ("UTF8", String::new()),
            raw if is_raw => (raw, String::new()),
            other => ("UTF8", format!(" WITH (ENCODING {})", literal(other))),
        };
        let mut sql = format!(
            "\n{AS_PG_DUMP}{}SET TimeZone = {};\nSET client_encoding = '{ours}';\nSELECT '{}';\n",
            form.for_comparing(),
            literal(self.time_zone),
            self.mark()
        );
        for (name, what) in tables {
            let head = literal(&format!("COPY {name} FROM stdin;"));
            sql += &format!("SELECT {head};\nCOPY {what} TO STDOUT{rows};\nSELECT '\\.';\n");
        }
        sql + &format!("SELECT 'COPY \"{}\" FROM stdin;';\n", self.end_of_answers())
    }

    /// Returns SQL behind which everything printed is kept as notes, until the rows of [`FeedRequest::questions`] begin.
    pub fn notes(&self) -> String {
        format!("SELECT '{}';\n", self.notes_mark())
    }

    /// Returns SQL that is replied to once all in front of it was carried out; see [`Feed::take_replies`].
    pub fn reply(&self) -> String {
        format!("\nSELECT '{}';\n", self.reply_mark())
    }

    fn reply_mark(&self) -> String {
        format!("pgkeep-reply-{}", self.key)
    }

    fn notes_mark(&self) -> String {
        format!("pgkeep-notes-{}", self.key)
    }

    fn mark(&self) -> String {
        format!("pgkeep-answers-{}", self.key)
    }

    fn end_of_answers(&self) -> String {
        format!("pgkeep-end-{}", self.key)
    }

    /// In restricted mode `psql` itself refuses commands: a second line behind the filter.
    fn opening(&self, can_restrict: bool) -> String {
        let restrict = if can_restrict {
            format!("\\restrict {}\n", self.key)
        } else {
            String::new()
        };
        let timeout = if self.server_major >= 17 {
            "SET transaction_timeout = 0;\n"
        } else {
            ""
        };
        let begin = if self.one_transaction { "BEGIN;\n" } else { "" };
        let (prelude, form) = (self.prelude, self.form.for_reading());
        format!("{restrict}{PREAMBLE}{WRITABLE}{timeout}{form}{begin}{prelude}")
    }
}

impl Feed {
    /// Returns what takes the SQL, for a thread that may block. It must come back by [`Feed::commit`]; a thread that
    /// fails must keep it until the program was stopped.
    pub fn take_input(&mut self) -> PipeWriter {
        self.input.take().expect("the input is taken once")
    }

    /// Returns what gets the replies to [`FeedRequest::reply`]; it ends with the program.
    pub fn take_replies(&mut self) -> mpsc::UnboundedReceiver<()> {
        self.replies.take().expect("the replies are taken once")
    }

    /// Ends the transaction and the program: all that was fed is there when this returns without an error.
    pub async fn commit(mut self, input: PipeWriter) -> Result<Vec<String>, Error> {
        let ending = std::mem::take(&mut self.ending);
        self.finish(input, ending).await
    }

    /// Ends the program and undoes the one transaction: the server took all that was fed when this returns without an
    /// error.
    pub async fn roll_back(self, input: PipeWriter) -> Result<Vec<String>, Error> {
        self.finish(input, "\nROLLBACK;\n".to_owned()).await
    }

    async fn finish(mut self, mut input: PipeWriter, ending: String) -> Result<Vec<String>, Error> {
        drop(self.kept.take());
        let written = tokio::task::spawn_blocking(move || -> io::Result<()> {
            input.write_all(ending.as_bytes())?;
            drop(input);
            Ok(())
        });
        // Where the program is gone its own words say why.
        let _ = written.await.expect("writing to a pipe does not panic");
        self.running.wait().await.into_result()
    }

    /// Waits for the answers to [`FeedRequest::questions`]; none when the program ended before.
    pub async fn answers(&mut self) -> Option<Answers> {
        match self.answers.take() {
            Some(answers) => answers.await.ok(),
            None => None,
        }
    }

    /// Waits for the program's end, which before [`Feed::commit`] is always a failure.
    pub async fn ended(&self) -> Ended {
        self.running.wait().await
    }

    /// Ends the program, whatever it is doing; returns when it is gone.
    pub async fn stop(&self) -> Ended {
        self.running.stopper().stop(Stop::Interrupted).await;
        self.running.wait().await
    }
}

/// Lines by which what the program prints is divided.
struct Marks {
    notes: String,
    rows: String,
    end: String,
    reply: String,
}

/// What was printed in front of the rows, as far as it is kept.
#[derive(Default)]
struct Heard {
    kept: Vec<u8>,
    /// How much of it was searched: each byte is looked at once, and a mark's length again.
    searched: usize,
    /// Where the notes begin.
    notes_at: Option<usize>,
    /// Replies that came, until somebody takes them.
    replies: usize,
}

impl Heard {
    /// Takes what comes; once the rows begin, returns the notes in front of them, and the rows' first bytes.
    fn push(&mut self, bytes: &[u8], marks: &Marks) -> Option<(String, Vec<u8>)> {
        let (mark, notes_mark) = (marks.rows.as_bytes(), marks.notes.as_bytes());
        self.kept.extend_from_slice(bytes);
        // A mark may be cut by the end of what was read.
        let reply = marks.reply.as_bytes();
        let overlap = mark.len().max(notes_mark.len()).max(reply.len());
        let mut from = self.searched.saturating_sub(overlap);
        while let Some(at) = memmem::find(&self.kept[from..], reply) {
            drop(self.kept.drain(..from + at + reply.len()));
            (self.searched, self.notes_at, from) = (0, None, 0);
            self.replies += 1;
        }
        let find = |wanted: &[u8]| Some(memmem::find(&self.kept[from..], wanted)? + from);
        let rows_at = find(mark);
        if self.notes_at.is_none() {
            self.notes_at = find(notes_mark).map(|at| at + notes_mark.len());
        }
        if let Some(at) = rows_at {
            let noted = self.notes_at.and_then(|from| self.kept.get(from..at));
            let notes = String::from_utf8_lossy(noted.unwrap_or_default()).into_owned();
            let rows = self.kept[at + mark.len()..].trim_ascii_start().to_vec();
            return Some((notes, rows));
        }
        self.searched = self.kept.len();
        // Notes are a line for each table.
        if self.notes_at.is_none() || self.kept.len() >= MAX_NOTES {
            let gone = self.kept.len().saturating_sub(overlap);
            drop(self.kept.drain(..gone));
            self.searched = self.kept.len();
            self.notes_at = None;
        }
        None
    }
}

/// Reads all that the program prints; from the line `rows` on it is scanned as a dump, until the rows of `end` begin.
fn listen(
    mut output: Output,
    marks: &Marks,
    sender: oneshot::Sender<Answers>,
    reply: &mpsc::UnboundedSender<()>,
) {
    let mut sender = Some(sender);
    let mut scanner: Option<Scanner> = None;
    let mut buffer = vec![0; 256 << 10];
    let mut heard = Heard::default();
    let mut notes = String::new();
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let bytes = &buffer[..count];
        match &mut scanner {
            Some(scanner) => scanner.push(bytes),
            None => {
                let heard_rows = heard.push(bytes, marks);
                for _ in 0..std::mem::take(&mut heard.replies) {
                    let _ = reply.send(()); // nobody waits where the restore was stopped
                }
                if let Some((noted, rows)) = heard_rows {
                    notes = noted;
                    let mut fresh = Scanner::new();
                    fresh.push(&rows);
                    scanner = Some(fresh);
                }
            }
        }
        let is_end = |scanner: &Scanner| {
            scanner
                .current_table()
                .is_some_and(|table| table.name == marks.end)
        };
        if scanner.as_ref().is_some_and(is_end)
            && let (Some(sender), Some(scanner)) = (sender.take(), scanner.take())
        {
            let notes = std::mem::take(&mut notes);
            let scan = scanner.finish();
            let _ = sender.send(Answers { scan, notes }); // nobody waits where the restore was stopped
        }
    }
}

fn knows_restrict(version: Version) -> bool {
    version.major >= 18
        || KNOWS_RESTRICT
            .iter()
            .any(|&(major, minor)| version.major == major && version.minor >= minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_and_rows_are_found_however_the_bytes_are_cut() {
        let marks = || Marks {
            reply: "pgkeep-reply-k".into(),
            notes: "pgkeep-notes-k".to_owned(),
            rows: "pgkeep-answers-k".to_owned(),
            end: "pgkeep-end-k".to_owned(),
        };
        let said = "noise\npgkeep-reply-k\nmore\npgkeep-reply-k\npgkeep-notes-k\none\ntwo\npgkeep-answers-k\nCOPY t FROM stdin;\n";
        for size in 1..said.len() {
            let mut heard = Heard::default();
            let mut found = None;
            let mut rest = Vec::new();
            for piece in said.as_bytes().chunks(size) {
                match &found {
                    None => found = heard.push(piece, &marks()),
                    Some(_) => rest.extend_from_slice(piece),
                }
            }
            let (notes, mut rows) = found.unwrap_or_else(|| panic!("{size}"));
            assert_eq!(heard.replies, 2, "{size}");
            rows.extend(rest);
            assert_eq!(notes, "\none\ntwo\n", "{size}");
            assert_eq!(rows.trim_ascii_start(), b"COPY t FROM stdin;\n", "{size}");
        }
        // Without notes what is in front of the rows is not kept.
        let mut heard = Heard::default();
        for _ in 0..100 {
            assert!(heard.push(&[b'x'; 4096], &marks()).is_none());
        }
        assert!(heard.kept.len() < 4096);
    }

    #[test]
    fn only_patched_programs_know_restrict() {
        for (text, knows) in [
            ("15.13", false),
            ("15.14", true),
            ("12.22", false),
            ("17.5", false),
            ("18.0", true),
        ] {
            assert_eq!(
                knows_restrict(Version::parse(text).unwrap()),
                knows,
                "{text}"
            );
        }
    }
}

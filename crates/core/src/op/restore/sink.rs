//! What everything of a dump goes through on its way to `psql`: the filter, and the rows of single tables by name.
//!
//! It blocks. What it refuses it remembers, and hands nothing on from then on.

use std::io::{PipeWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::postgres::error::Error;
use crate::postgres::psql::Psql;
use crate::stream::pipeline::{Closed, Progress};
use pgkeep_model::failure::Failure;
use pgkeep_model::name::{TableName, quote};
use pgkeep_model::restore::filter::{Filter, HeldBack, LateStatement, Passed, Refusal, Rules};
use pgkeep_model::scan::{LexemeKind, Notes, Scan, Scanner, Spoken, TextEncoding, lexemes};
use pgkeep_model::single::{Deed, subject};

/// Longest statement in front of rows: 1,600 columns have a tenth of it.
const MAX_HEAD: usize = 1 << 20;

/// How much of a text is handed on at once: the filter copies what it holds back once for each piece.
const PIECE_BYTES: usize = 1 << 20;

/// Hands SQL on to `psql`.
pub(super) struct Sink {
    input: PipeWriter,
    filter: Filter,
    rules: Rules,
    progress: Arc<Progress>,
    broken: Option<Broken>,
    aside: Option<Aside>,
    late: Vec<LateStatement>,
}

/// A superuser's session beside the one that restores, for single statements at their place among the others.
pub(super) struct Aside {
    /// Asks the database that is restored.
    pub psql: Psql,
    /// The role that restores, to which routines are given.
    pub role: String,
    /// Asks the restoring session for a reply.
    pub reply: String,
    pub replies: UnboundedReceiver<()>,
    /// Whether the restoring session is in a transaction, which has to end first: nobody else sees what it did.
    pub one_transaction: bool,
    pub stop: CancellationToken,
    pub runtime: Handle,
}

/// Making an operator class takes a moment.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(600);

impl Aside {
    /// Carries out a statement once the restoring session did all in front of it. It blocks.
    fn carry_out(&mut self, input: &mut PipeWriter, statement: &str) -> Result<(), Broken> {
        let (end, begin) = if self.one_transaction {
            ("\nCOMMIT;\n", "\nBEGIN;\n")
        } else {
            ("", "")
        };
        let ask = format!("{end}{}", self.reply);
        let written = input.write_all(ask.as_bytes());
        written.map_err(|_| Broken::Gone)?;
        self.replies.blocking_recv().ok_or(Broken::Gone)?;
        let done = self.runtime.block_on(self.run(statement));
        done.map_err(|error| Broken::Aside(Box::new(error)))?;
        input.write_all(begin.as_bytes()).map_err(|_| Broken::Gone)
    }

    /// A routine is given away where it is made: one that belongs to a superuser may run as one.
    async fn run(&self, statement: &str) -> Result<(), Error> {
        let role = quote(&self.role);
        let sql = format!(
            "SET search_path = '';\nSET check_function_bodies = off;\nBEGIN;\n{statement}
SELECT format('ALTER ROUTINE %s OWNER TO {role}', oid::regprocedure) FROM pg_proc
  WHERE xmin::text = (txid_current() % 4294967296)::text \\gexec\nCOMMIT;\n"
        );
        let asked = self.psql.query(&sql, &self.stop, ASIDE_TIMEOUT);
        asked.await.map(drop)
    }
}

/// Why nothing more is handed on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The filter refuses it.
    Refused(Refusal),
    /// What was read is not what it should be.
    Damaged {
        /// What it is of; nothing is the dump.
        of: Option<String>,
        why: String,
    },
    /// It cannot be read.
    Unreadable(Box<Failure>),
    /// It unpacks to more than it may.
    TooLong,
    /// A statement that a superuser carried out beside the session was refused.
    Aside(Box<Error>),
    /// `psql` is gone; its end says why.
    Gone,
}

impl Sink {
    pub(super) fn new(input: PipeWriter, rules: &Rules, progress: &Arc<Progress>) -> Self {
        Self {
            input,
            filter: Filter::new(rules.clone()),
            rules: rules.clone(),
            progress: Arc::clone(progress),
            broken: None,
            aside: None,
            late: Vec::new(),
        }
    }

    /// Lets single statements be carried out beside the session.
    pub(super) fn with_aside(mut self, aside: Option<Aside>) -> Self {
        self.aside = aside;
        self
    }

    /// Hands over what waits for a superuser, of all texts that were whole by themselves.
    pub(super) fn take_late(&mut self) -> Vec<LateStatement> {
        std::mem::take(&mut self.late)
    }

    /// Hands on statements of a dump, or a piece of it.
    pub(super) fn pass(&mut self, text: &[u8]) {
        for piece in text.chunks(PIECE_BYTES) {
            self.pass_piece(piece);
        }
    }

    fn pass_piece(&mut self, text: &[u8]) {
        let Self {
            input,
            filter,
            broken,
            aside,
            ..
        } = self;
        if broken.is_some() {
            return;
        }
        let before = filter.scanner().tables_with_rows();
        let mut written = Ok(());
        let pushed = filter.push_divided(text, &mut |passed| {
            if written.is_err() {
                return;
            }
            written = match (passed, aside.as_mut()) {
                (Passed::Text(text), _) => input.write_all(text).map_err(|_| Broken::Gone),
                (Passed::Between(statement), Some(aside)) => aside.carry_out(input, statement),
                (Passed::Between(_), None) => Err(Broken::Refused(needs_superuser())),
            };
        });
        *broken = match (pushed, written) {
            (Err(refusal), _) => Some(Broken::Refused(refusal)),
            (_, written) => written.err(),
        };
        self.note(text.len(), before);
    }

    fn note(&self, bytes: usize, tables_before: usize) {
        let tables = self.filter.scanner().tables_with_rows() - tables_before;
        self.progress.note_more(bytes as u64, tables as u64);
        self.progress.note_table(self.filter.scanner());
    }

    /// Hands on a piece of rows whose COPY was handed on. What follows behind their end is blank space, or nothing of
    /// the piece is handed on: it would be carried out.
    fn pass_rows(&mut self, of: &TableName, text: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        let (was_over, from) = (self.is_over(), self.position());
        let before = self.filter.scanner().tables_with_rows();
        let mut rows = Vec::with_capacity(text.len());
        let pushed = if was_over {
            Ok(())
        } else {
            self.filter
                .push(text, &mut |bytes| rows.extend_from_slice(bytes))
        };
        self.note(text.len(), before);
        let mut cuts = self.filter.take_cuts().into_iter();
        let behind = match (was_over, cuts.find(|cut| *cut > from)) {
            (true, _) => text,
            (false, Some(end)) => &text[(end - from) as usize..],
            (false, None) => &[],
        };
        if !behind.iter().all(u8::is_ascii_whitespace) {
            let why = "other text follows its rows, where the manifest says that they end";
            self.damaged(of, why);
        } else if let Err(refusal) = pushed {
            self.broken = Some(Broken::Refused(refusal));
        } else if self.input.write_all(&rows).is_err() {
            self.broken = Some(Broken::Gone);
        }
    }

    /// Tells whether no rows are under way.
    fn is_over(&self) -> bool {
        self.filter.scanner().current_table().is_none()
    }

    /// Returns how long the text is that was handed on since the last turn.
    pub(super) fn position(&self) -> u64 {
        self.filter.scanner().position()
    }

    /// Hands on SQL of our own.
    pub(super) fn say(&mut self, sql: &str) {
        if self.broken.is_none() && self.input.write_all(sql.as_bytes()).is_err() {
            self.broken = Some(Broken::Gone);
        }
    }

    /// Hands nothing on from now on; the first reason is the one that counts.
    pub(super) fn break_off(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    fn damaged(&mut self, of: &TableName, why: &str) {
        self.break_off(Broken::Damaged {
            of: Some(format!("`{of}`")),
            why: why.to_owned(),
        });
    }

    /// Ends a text that is whole by itself, and says what it held; what was left out of it and is not there goes to
    /// `lost`, what was held back to `held_back`. The next one begins with the settings of the dump.
    pub(super) fn turn(
        &mut self,
        lost: &mut Vec<String>,
        held_back: &mut HeldBack,
    ) -> Result<Scan, Broken> {
        let mut filter = std::mem::replace(&mut self.filter, Filter::new(self.rules.clone()));
        self.late.extend(filter.take_late());
        lost.extend_from_slice(filter.lost());
        held_back.extend(filter.held_back().clone());
        match self.broken.take() {
            Some(broken) => Err(broken),
            None => filter.finish().map_err(Broken::Refused),
        }
    }

    /// Tells whether nothing more is handed on; [`Sink::take_broken`] says why.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Tells whether `psql` is gone.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.broken, Some(Broken::Gone))
    }

    pub(super) fn take_broken(&mut self) -> Option<Broken> {
        self.broken.take()
    }

    pub(super) fn into_input(self) -> PipeWriter {
        self.input
    }
}

/// Inside the one transaction of a database that stays, nobody else sees what was made.
fn needs_superuser() -> Refusal {
    Refusal {
        id: "superuser_needed",
        why: "it makes something that only a superuser can make, such as an operator class, and that is not \
            possible in the one transaction that fills an existing database"
            .to_owned(),
        hint: Some(
            "restore it into a database that does not exist yet, or with `--replace`; `--allow-superuser` lets all of the \
             dump run with a superuser's powers",
        ),
    }
}

/// One block of rows under way.
pub(super) struct Block {
    sink: Sink,
    table: TableName,
    into: TableName,
    encoding: TextEncoding,
    /// What came in front of the first row, and who finds that row.
    head: Vec<u8>,
    finder: Option<(Scanner, u64)>,
}

impl Block {
    pub(super) fn new(
        sink: Sink,
        table: &TableName,
        into: &TableName,
        encoding: TextEncoding,
    ) -> Self {
        let mut finder = Scanner::noting(Notes::rows_of(TableName::new("", ""), true));
        // Where a character's second byte may be a backslash, the scanner has to know.
        if let TextEncoding::Other(encoding) = encoding {
            finder.push(format!("SET client_encoding = '{}';\n", encoding.name()).as_bytes());
        }
        let begin = finder.position();
        Self {
            sink,
            table: table.clone(),
            into: into.clone(),
            encoding,
            head: Vec::new(),
            finder: Some((finder, begin)),
        }
    }

    /// Takes the next piece of the block.
    pub(super) fn take(&mut self, text: &[u8]) -> Result<(), Closed> {
        let Some((finder, begin)) = &mut self.finder else {
            self.sink.pass_rows(&self.table, text);
            return self.go_on();
        };
        self.head.extend_from_slice(text);
        finder.push(text);
        if let Some(rows) = finder.take_found().rows.first() {
            let first = (rows.start - *begin) as usize;
            self.finder = None;
            let head = std::mem::take(&mut self.head);
            match self.renamed(&head[..first]) {
                Some(copy) => {
                    self.sink.pass(&copy);
                    self.sink.pass_rows(&self.table, &head[first..]);
                }
                None => self.begins_elsewhere(),
            }
        } else if self.head.len() > MAX_HEAD {
            self.begins_elsewhere();
        }
        self.go_on()
    }

    fn begins_elsewhere(&mut self) {
        let why = "its rows do not begin where the manifest says";
        self.sink.damaged(&self.table, why);
    }

    fn go_on(&self) -> Result<(), Closed> {
        if self.sink.is_broken() {
            Err(Closed)
        } else {
            Ok(())
        }
    }

    pub(super) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Ends it where its text broke off.
    pub(super) fn leave(self) -> Sink {
        self.sink
    }

    /// Ends the block: what follows must not be taken for rows.
    pub(super) fn end(mut self) -> Sink {
        if self.finder.is_some() || !self.sink.is_over() {
            let why = "its rows do not end where the manifest says";
            self.sink.damaged(&self.table, why);
        }
        self.sink
    }

    /// Returns the COPY with the name in the target, if it is one of this table.
    fn renamed(&self, head: &[u8]) -> Option<Vec<u8>> {
        let spoken = Spoken {
            standard_strings: true,
            encoding: self.encoding,
            has_search_path: false,
            schema: self.table.schema_or_public().to_owned(),
        };
        let found = lexemes(head, true, self.encoding);
        let is_it = subject(&found, &spoken).deed == Deed::Copy(self.table.clone());
        // Its name is one token, or one with its schema and a dot in front.
        let is_qualified = found.get(2)?.kind == LexemeKind::Punct(b'.');
        let last = found.get(if is_qualified { 3 } else { 1 })?;
        let name = format!(
            "{}.{}",
            quote(self.into.schema_or_public()),
            quote(&self.into.name)
        );
        let mut copy = head[..found[1].start].to_vec();
        copy.extend_from_slice(&self.encoding.encode(&name));
        copy.extend_from_slice(&head[last.end..]);
        is_it.then_some(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    const BLOCK: &str = "COPY public.t (a) FROM stdin;\n1\n2\n\\.\n";
    const OTHER: &str = "\n\nCOPY public.u (a) FROM stdin;\n7\n\\.\n";

    /// Returns what was handed on, and what prevents it.
    fn handed_on(text: &str, cuts: &[usize]) -> (String, Option<String>) {
        let (mut output, input) = std::io::pipe().unwrap();
        let sink = Sink::new(input, &Rules::default(), &Arc::default());
        let (from, to) = (TableName::new("public", "t"), TableName::new("x", "t"));
        let mut rows = Block::new(sink, &from, &to, TextEncoding::Utf8);
        for pair in cuts.windows(2) {
            let _ = rows.take(&text.as_bytes()[pair[0]..pair[1]]);
        }
        let mut sink = rows.end();
        let broken = sink
            .turn(&mut Vec::new(), &mut HeldBack::default())
            .err()
            .map(|broken| format!("{broken:?}"));
        drop(sink);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        (text, broken)
    }

    proptest! {
        #[test]
        fn nothing_behind_a_tables_rows_is_handed_on(
            cuts in prop::collection::vec(0..BLOCK.len() + OTHER.len(), 0..6),
            behind in prop::sample::select(vec!["", "\n\n", OTHER, "SELECT 1;\n", "\\! x\n", "\n\n--\n"]),
        ) {
            let text = format!("{BLOCK}{behind}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (handed_on, broken) = handed_on(&text, &cuts);
            let whole = BLOCK.replace("public.t", "\"x\".\"t\"");
            prop_assert!(handed_on.len() <= whole.len() + 2, "{}", handed_on);
            let is_rows = whole.starts_with(handed_on.trim_end());
            prop_assert!(is_rows, "{}", handed_on);
            if behind.trim().is_empty() {
                prop_assert_eq!(broken, None);
                prop_assert_eq!(handed_on.trim_end(), whole.trim_end());
            } else {
                prop_assert!(broken.unwrap().contains("other text follows its rows"));
            }
        }
    }
}

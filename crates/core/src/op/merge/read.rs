//! Moves single tables' rows out of one stored copy into `psql`, by ranged reads.

use std::io::{PipeWriter, Write};
use std::sync::Arc;

use crate::context::Stop;
use crate::op::ranged::Ranged;
use crate::op::restore::source::Stored;
use crate::stream::pipeline::{Closed, Progress};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::TableRecord;
use pgkeep_model::restore::filter::{Filter, Rules};
use pgkeep_model::scan::{RowDigest, Scanner};

/// One storage's copy, ready to be read.
pub(super) struct Copy<'a> {
    ranged: Ranged<'a>,
    encoding: String,
    /// How far reading has come.
    pub(super) progress: Arc<Progress>,
}

/// Rows of one table on their way.
struct Rows {
    input: PipeWriter,
    /// Finds the rows in the stored text.
    scanner: Scanner,
    position: u64,
    /// Lets only rows through, as in a whole restore.
    filter: Filter,
    refused: Option<String>,
    /// The COPY in front of each block.
    head: String,
}

/// A table's rows that were handed on.
pub(super) struct Handed {
    pub input: PipeWriter,
    pub read_bytes: u64,
}

impl<'a> Copy<'a> {
    pub(super) async fn open(
        stored: &'a Stored,
        at: usize,
        what: &str,
        stop: Stop,
    ) -> Result<Self> {
        let ranged = Ranged::open(stored, at, what, stop).await?;
        let encoding = stored.manifest.dump.client_encoding.as_deref();
        let encoding = encoding.unwrap_or("UTF8").to_owned();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if encoding.bytes().all(is_plain) {
            Ok(Self {
                ranged,
                encoding,
                progress: Arc::default(),
            })
        } else {
            Err(ranged.contradicts("its encoding is no word"))
        }
    }

    /// Hands one table's rows to `psql` as a COPY into `rows`, a name of plain letters, and proves them.
    pub(super) async fn hand_on(
        &self,
        record: &TableRecord,
        rows: &str,
        input: PipeWriter,
    ) -> Result<Handed> {
        let (name, encoding) = (rows.to_owned(), self.encoding.clone());
        // Writing may block for as long as the server waits for a lock.
        let begun = tokio::task::spawn_blocking(move || Rows::begin(&name, &encoding, input));
        let mut moving = begun.await.expect("writing to a pipe does not panic");
        let of = format!("`{}`", record.full_name());
        let mut read_bytes = 0;
        for block in record.blocks.iter().map(|record| record.block) {
            let (mut is_begun, progress) = (false, Arc::clone(&self.progress));
            let take = move |rows: &mut Rows, text: &[u8]| {
                if !std::mem::replace(&mut is_begun, true) {
                    rows.begin_block();
                }
                rows.take(text);
                progress.note_more(text.len() as u64, 0);
                if rows.refused.is_some() {
                    Err(Closed)
                } else {
                    Ok(())
                }
            };
            let (back, count) = self.ranged.read(&of, block, moving, take).await?;
            moving = back;
            moving.end_block();
            self.progress.note_more(0, 1);
            read_bytes += count;
        }
        let what = format!("{}: {of}", self.ranged.what());
        // Writing may block for as long as the server takes its rows.
        let ended = tokio::task::spawn_blocking(move || moving.end(&what));
        let (input, rows, digest) = ended.await.expect("writing to a pipe does not panic")?;
        if (rows, digest) != (record.rows.unwrap_or(0), record.digest) {
            return Err(self
                .ranged
                .damaged(&of, "its rows are not the ones of the manifest"));
        }
        Ok(Handed { input, read_bytes })
    }
}

impl Rows {
    fn begin(rows: &str, encoding: &str, input: PipeWriter) -> Self {
        let mut scanner = Scanner::watching(pgkeep_model::name::TableName::new("", ""), true);
        let encoding = format!("SET client_encoding = '{encoding}';\n");
        scanner.push(encoding.as_bytes());
        let position = scanner.position();
        let filter = Filter::new(Rules::default());
        let mut moving = Self {
            input,
            scanner,
            position,
            filter,
            refused: None,
            head: format!("COPY {rows} FROM stdin;\n"),
        };
        moving.pass(encoding.as_bytes());
        moving
    }

    fn begin_block(&mut self) {
        let head = self.head.clone();
        self.pass(head.as_bytes());
    }

    /// What follows must not be taken for rows.
    fn end_block(&mut self) {
        if self.filter.scanner().current_table().is_some() {
            self.refused
                .get_or_insert("its rows do not end where the manifest says".to_owned());
        }
    }

    fn take(&mut self, text: &[u8]) {
        self.scanner.push(text);
        self.scanner.take_cuts();
        let from = self.position;
        self.position += text.len() as u64;
        for range in self.scanner.take_rows() {
            // Ranges lie in the last piece.
            let rows = (range.start - from) as usize..(range.end - from) as usize;
            self.pass(&text[rows]);
        }
    }

    fn pass(&mut self, text: &[u8]) {
        let Self {
            input,
            filter,
            refused,
            ..
        } = self;
        if refused.is_some() {
            return;
        }
        let mut written = Ok(());
        let pushed = filter.push(text, &mut |bytes| {
            if written.is_ok() {
                written = input.write_all(bytes);
            }
        });
        *refused = match (pushed, written) {
            (Err(refusal), _) => Some(refusal.why),
            // Where the program is gone its own words say why.
            (_, Err(_)) => Some("`psql` is gone".to_owned()),
            _ => None,
        };
    }

    fn end(self, what: &str) -> Result<(PipeWriter, u64, Option<RowDigest>)> {
        let refuse =
            |why: &str| Failure::new(Kind::Damaged, "rows_damaged", format!("{what}: {why}"));
        if let Some(why) = self.refused {
            return Err(refuse(&why));
        }
        let scan = self
            .filter
            .finish()
            .map_err(|refusal| refuse(&refusal.why))?;
        let table = scan.tables.first();
        let rows = table.and_then(|table| table.rows).unwrap_or(0);
        Ok((self.input, rows, table.and_then(|table| table.digest)))
    }
}

//! Moves single tables' rows out of one stored copy into `psql`, by ranged reads.

use std::io::{PipeWriter, Write};
use std::sync::Arc;

use crate::context::Stop;
use crate::failure::{Failure, Kind, Result};
use crate::model::chunks::ChunkIndex;
use crate::model::manifest::TableRecord;
use crate::model::restore::filter::{Filter, Rules};
use crate::model::scan::{Block, RowDigest, Scanner};
use crate::op::reading::{Pieces, chunk_index, dump_key, threads, with_pieces};
use crate::op::restore::source::Stored;
use crate::op::stored::{NamedStorage, storage_failure};
use crate::stream::compress::Codec;
use crate::stream::pipeline::{Closed, Progress};
use crate::stream::stored::{Layout, read_chunks};

/// One storage's copy, ready to be read.
pub(super) struct Copy<'a> {
    named: &'a NamedStorage,
    codec: Codec,
    key: String,
    index: Arc<ChunkIndex>,
    encoding: String,
    what: String,
    stop: Stop,
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
        let (named, manifest) = (&stored.listing.storages[at], &stored.manifest);
        let what = format!("{what}: reading `{}` from `{}`", manifest.id, named.name);
        let damaged = |why: String| {
            Failure::new(
                Kind::Damaged,
                "manifest_contradicts",
                format!("{what}: {why}"),
            )
            .hint("`pgkeep restore` of the whole backup into a database of its own needs no index")
        };
        let (codec, key) = dump_key(&stored.backup, manifest).map_err(&damaged)?;
        let index = chunk_index(named, &stored.backup, manifest, codec)
            .await
            .map_err(|error| storage_failure(&what, &error))?
            .map_err(&damaged)?;
        let encoding = manifest.dump.client_encoding.as_deref().unwrap_or("UTF8");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !encoding.bytes().all(is_plain) {
            return Err(damaged("its encoding is no word".to_owned()));
        }
        let encoding = encoding.to_owned();
        Ok(Self {
            named,
            codec,
            key,
            index,
            encoding,
            what,
            stop,
        })
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
        let mut read_bytes = 0;
        for block in record.blocks.iter().map(|record| record.block) {
            let (chunks, skipped) = self
                .index
                .offsets()
                .chunks_of(block)
                .ok_or_else(|| self.damaged(record, "it lies behind the end of the dump"))?;
            let range = self.index.start_of(chunks.start).0..self.index.start_of(chunks.end).0;
            read_bytes += range.end - range.start;
            let stream = self.named.storage.stream(&self.key, Some(range)).await;
            let stream = stream.map_err(|error| storage_failure(&self.what, &error))?;
            let (codec, index, stop) = (self.codec, Arc::clone(&self.index), self.stop.clone());
            let work = move |pieces: Pieces| {
                let layout = Layout::part(codec, &index, chunks);
                let read = moving.take_block(pieces, &layout, block, skipped, &stop);
                (moving, read)
            };
            let (back, read) = with_pieces(stream, work).await?;
            moving = back;
            let outcome = read.map_err(|error| storage_failure(&self.what, &error))?;
            if let Some(fault) = outcome.fault {
                return Err(self.damaged(record, &fault.message));
            }
        }
        let table = record.full_name();
        let what = format!("{}: `{table}`", self.what);
        // Writing may block for as long as the server takes its rows.
        let ended = tokio::task::spawn_blocking(move || moving.end(&what));
        let (input, rows, digest) = ended.await.expect("writing to a pipe does not panic")?;
        if (rows, digest) != (record.rows.unwrap_or(0), record.digest) {
            return Err(self.damaged(record, "its rows are not the ones of the manifest"));
        }
        Ok(Handed { input, read_bytes })
    }

    fn damaged(&self, record: &TableRecord, why: &str) -> Failure {
        let message = format!("{}: `{}`: {why}", self.what, record.full_name());
        Failure::new(Kind::Damaged, "rows_damaged", message)
            .hint("`pgkeep verify` tells what is damaged")
    }
}

impl Rows {
    fn begin(rows: &str, encoding: &str, input: PipeWriter) -> Self {
        let mut scanner = Scanner::watching(crate::model::name::TableName::new("", ""), true);
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

    fn take_block(
        &mut self,
        pieces: Pieces,
        layout: &Layout<'_>,
        block: Block,
        mut skip: u64,
        stop: &Stop,
    ) -> crate::storage::Result<crate::stream::stored::Outcome> {
        let head = self.head.clone();
        self.pass(head.as_bytes());
        let mut left = block.length;
        let mut take = |text: &[u8]| -> std::result::Result<(), Closed> {
            let start = text.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= start as u64;
            let end = (text.len() - start).min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= end as u64;
            self.take(&text[start..start + end]);
            match self.refused.is_some() || stop.is_requested() {
                true => Err(Closed),
                false => Ok(()),
            }
        };
        let read = read_chunks(pieces, layout, threads(), &Progress::default(), &mut take);
        // What follows must not be taken for rows.
        if self.filter.scanner().current_table().is_some() {
            self.refused
                .get_or_insert("its rows do not end where the manifest says".to_owned());
        }
        read
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

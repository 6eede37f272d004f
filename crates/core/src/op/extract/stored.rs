//! A table out of a stored backup: its own chunks where there is an index, the whole object where there is none.

use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};

use super::table::{End, Extractor, Written};
use super::{Report, Request, RowFormat, no_rows, no_table};
use crate::context::Context;
use crate::copies::listing::{NamedStorage, StoredBackup, Wanted, storage_failure};
use crate::copies::{Pieces, Stored, chunk_index, dump_key, threads, with_pieces};
use crate::stream::compress::Codec;
use crate::stream::pipeline::{Closed, Progress};
use crate::stream::stored::{Fault, Layout, read_chunks, read_serially};
use pgkeep_model::chunks::ChunkIndex;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::manifest::{Manifest, TableRecord};
use pgkeep_model::name::TableName;
use pgkeep_model::scan::{Block, SectionName};
use pgkeep_storage::Error;

/// Reads the table from the first storage that has a good copy of it.
pub(super) async fn run(
    request: &Request,
    storages: &[NamedStorage],
    database: Option<&DatabaseName>,
    wanted: &Wanted,
    context: &Context,
    progress: &Arc<Progress>,
) -> Result<Report> {
    let stored = Stored::open(storages, database.cloned(), wanted).await?;
    let what = format!(
        "cannot extract `{}` from `{}`",
        request.rows.table, stored.manifest.id
    );
    let manifest = Arc::new(stored.manifest.clone());
    let record = record(&manifest, &request.rows.table, &what)?;
    let mut warnings = Vec::new();
    let extracted = stored
        .try_copies(&what, &mut warnings, async |at| {
            let copy = Copy {
                named: &stored.listing.storages[at],
                backup: &stored.backup,
                manifest: &manifest,
                record: &record,
                request,
                context,
                progress,
                what: format!("{what} in `{}`", stored.storage_name(at)),
            };
            copy.extract().await
        })
        .await;
    match extracted {
        Ok(mut report) => {
            warnings.append(&mut report.warnings);
            Ok(Report {
                warnings,
                failure: stored.doubt(),
                ..report
            })
        }
        Err(failure) => Err(stored.unless_removed(&what, failure).await),
    }
}

fn record(manifest: &Manifest, name: &TableName, what: &str) -> Result<TableRecord> {
    if manifest.encryption.is_some() {
        let message = format!("{what}: it is encrypted, and this pgkeep cannot decrypt");
        return Err(Failure::new(Kind::Program, "encrypted", message));
    }
    let is_it = |record: &&TableRecord| {
        record.name == name.name && record.schema == name.schema_or_public()
    };
    let found = manifest.tables.iter().find(is_it);
    let known = manifest.tables.iter().map(TableRecord::full_name);
    let record = found.ok_or_else(|| no_table(what, name, known))?;
    if record.rows.is_none() || record.blocks.is_empty() {
        let is_partitioned = record
            .kind
            .is_some_and(|kind| kind.as_str() == "partitioned");
        return Err(no_rows(what, is_partitioned));
    }
    Ok(record.clone())
}

/// One storage's copy of the backup.
struct Copy<'a> {
    named: &'a NamedStorage,
    backup: &'a StoredBackup,
    manifest: &'a Arc<Manifest>,
    record: &'a TableRecord,
    request: &'a Request,
    context: &'a Context,
    progress: &'a Arc<Progress>,
    what: String,
}

/// What a thread needs to read with.
#[derive(Clone)]
struct Task {
    codec: Codec,
    index: Option<Arc<ChunkIndex>>,
    request: Request,
    record: TableRecord,
    manifest: Arc<Manifest>,
    progress: Arc<Progress>,
    what: String,
}

/// Chunks to read, and what of their text is wanted.
struct Stretch {
    chunks: Range<usize>,
    /// Bytes of text in front of it.
    skipped: u64,
    length: u64,
}

impl Copy<'_> {
    async fn extract(&self) -> Result<Report> {
        let damaged = |why: String| {
            Failure::new(
                Kind::Damaged,
                "manifest_contradicts",
                format!("{}: {why}", self.what),
            )
            .of_copy()
        };
        let (codec, key) = dump_key(self.backup, self.manifest).map_err(damaged)?;
        let failed = |error: Error| storage_failure(&self.what, &error);
        let index = chunk_index(self.named, self.backup, self.manifest, codec)
            .await
            .map_err(failed)?;
        let mut warnings = Vec::new();
        let stretches = match &index {
            Ok(index) => self.stretches(index),
            Err(why) => Err(why.clone()),
        };
        let stretches = match stretches {
            Ok(stretches) => Some(stretches),
            Err(why) => {
                warnings.push(format!(
                    "the chunk index cannot be used ({why}): the whole backup was read"
                ));
                None
            }
        };
        let task = Task {
            codec,
            index: index.ok(),
            request: self.request.clone(),
            record: self.record.clone(),
            manifest: Arc::clone(self.manifest),
            progress: Arc::clone(self.progress),
            what: self.what.clone(),
        };
        let ranged = stretches.is_some();
        let (written, read_bytes) = match stretches {
            Some(stretches) => self.ranged(task, &key, stretches).await?,
            None => self.whole(task, &key).await?,
        };
        let id = self.manifest.id.to_string();
        let mut report = super::report(id, &self.request.rows.table, written, read_bytes);
        report.warnings.append(&mut warnings);
        Ok(Report {
            ranged,
            storage: Some(self.named.name.clone()),
            ..report
        })
    }

    /// Returns what to read: the structure in front of the rows where column types matter, then the table's blocks.
    fn stretches(&self, index: &ChunkIndex) -> std::result::Result<Vec<Stretch>, String> {
        let offsets = index.offsets();
        let sections = self.manifest.sections.iter();
        let structure = sections
            .filter(|section| {
                section.name == SectionName::PreData && self.request.rows.format == RowFormat::Jsonl
            })
            .map(|section| section.block);
        let blocks = self.record.blocks.iter().map(|record| record.block);
        let stretch = |block: Block| {
            let (chunks, skipped) = offsets
                .chunks_of(block)
                .ok_or("the table lies behind its end")?;
            let length = block.length;
            Ok(Stretch {
                chunks,
                skipped,
                length,
            })
        };
        structure.chain(blocks).map(stretch).collect()
    }

    async fn ranged(
        &self,
        task: Task,
        key: &str,
        stretches: Vec<Stretch>,
    ) -> Result<(Written, u64)> {
        let index = task.index.clone().unwrap_or_default();
        let mut streams = Vec::new();
        let mut read_bytes = 0;
        for stretch in &stretches {
            let range =
                index.start_of(stretch.chunks.start).0..index.start_of(stretch.chunks.end).0;
            read_bytes += range.end - range.start;
            streams.push(range);
        }
        // One stream after another, as one: the next is asked for when the last has ended.
        let storage = Arc::clone(&self.named.storage);
        let key = key.to_owned();
        let stream = futures_util::stream::iter(streams).then(move |range| {
            let (storage, key) = (Arc::clone(&storage), key.clone());
            async move { storage.stream(&key, Some(range)).await }
        });
        let stream = Box::pin(stream.try_flatten());
        let stop = self.context.stop.clone();
        let result = with_pieces(stream, move |pieces| {
            task.read_stretches(pieces, &stretches, stop)
        })
        .await?;
        Ok((result?, read_bytes))
    }

    async fn whole(&self, task: Task, key: &str) -> Result<(Written, u64)> {
        let stream = self.named.storage.stream(key, None).await;
        let stream = stream.map_err(|error| storage_failure(&self.what, &error))?;
        let stop = self.context.stop.clone();
        let result = with_pieces(stream, move |pieces| task.read_whole(pieces, stop)).await?;
        Ok((result?, self.manifest.object.size_bytes))
    }
}

impl Task {
    fn read_stretches(
        self,
        pieces: Pieces,
        stretches: &[Stretch],
        stop: crate::context::Stop,
    ) -> Result<Written> {
        let rows = &self.request.rows;
        let mut extractor = Extractor::new(rows, &self.request.output, true, &self.what, stop)?;
        let index = self.index.clone().unwrap_or_default();
        if let Some(encoding) = self.encoding() {
            let _ = extractor.push(format!("SET client_encoding = '{encoding}';\n").as_bytes()); // no row is in it
        }
        let mut pieces = Split::new(pieces);
        for stretch in stretches {
            let (mut skip, mut left) = (stretch.skipped, stretch.length);
            let mut take = |text: &[u8]| -> std::result::Result<(), Closed> {
                let start = text.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                skip -= start as u64;
                let end = (text.len() - start).min(usize::try_from(left).unwrap_or(usize::MAX));
                left -= end as u64;
                self.progress.note_more(end as u64, 0);
                extractor.push(&text[start..start + end])
            };
            let layout = Layout::part(self.codec, &index, stretch.chunks.clone());
            let stored =
                index.start_of(stretch.chunks.end).0 - index.start_of(stretch.chunks.start).0;
            let read = read_chunks(
                pieces.next_bytes(stored),
                &layout,
                threads(),
                &self.progress,
                &mut take,
            );
            let outcome = match read {
                Ok(outcome) => outcome,
                Err(error) => return Err(self.storage_failed(&extractor, &error)),
            };
            if let Some(fault) = &outcome.fault {
                return Err(self.damaged(&fault_in_words(fault), extractor.is_begun()));
            }
            if outcome.is_left {
                break;
            }
        }
        self.finish(extractor, None)
    }

    fn read_whole(self, pieces: Pieces, stop: crate::context::Stop) -> Result<Written> {
        let mut extractor = Extractor::new(
            &self.request.rows,
            &self.request.output,
            false,
            &self.what,
            stop,
        )?;
        let limit = self.manifest.dump.bytes;
        let read = read_serially(pieces, limit, &self.progress, &mut |piece| {
            self.progress.note_more(piece.len() as u64, 0);
            extractor.push(piece)
        });
        let outcome = match read {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.storage_failed(&extractor, &error)),
        };
        let object = &self.manifest.object;
        let is_same = outcome.stored_bytes == object.size_bytes && outcome.sha256 == object.sha256;
        let why = match &outcome.fault {
            Some(fault) => Some(fault_in_words(fault)),
            None if !is_same && !outcome.is_left => {
                Some("the stored file is not the one of the manifest".to_owned())
            }
            None => None,
        };
        self.finish(extractor, why)
    }

    /// Compares what was read with the manifest, and only then lets the last rows go.
    fn finish(&self, extractor: Extractor<'_>, why: Option<String>) -> Result<Written> {
        let is_begun = extractor.is_begun();
        let end = extractor
            .end()
            .map_err(|failure| handed_on(failure, is_begun))?;
        if !end.is_left
            && let Some(why) = why.or_else(|| self.difference(&end))
        {
            return Err(self.damaged(&why, is_begun));
        }
        end.finish()
    }

    fn difference(&self, end: &End<'_>) -> Option<String> {
        let Some(table) = &end.table else {
            return Some("no row of the table is where the manifest says".to_owned());
        };
        if table.rows != self.record.rows {
            let count = |rows: Option<u64>| rows.unwrap_or(0);
            return Some(format!(
                "it has {} rows, and the manifest says {}",
                count(table.rows),
                count(self.record.rows)
            ));
        }
        if table.digest != self.record.digest {
            return Some("its rows are not the ones of the manifest".to_owned());
        }
        (table.columns != self.record.columns)
            .then(|| "its columns are not the ones of the manifest".to_owned())
    }

    fn damaged(&self, why: &str, is_begun: bool) -> Failure {
        let trust = if is_begun {
            "what was printed must not be trusted"
        } else {
            "nothing was written"
        };
        let message = format!("{}: {why}; {trust}", self.what);
        let failure = Failure::new(Kind::Damaged, "rows_damaged", message);
        let id = &self.manifest.id;
        let failure = failure.hint(format!("`pgkeep verify {id}` tells what is damaged"));
        handed_on(failure.of_copy(), is_begun)
    }

    fn storage_failed(&self, extractor: &Extractor<'_>, error: &Error) -> Failure {
        let mut failure = storage_failure(&self.what, error);
        failure.message += &format!("; {}", extractor.trust());
        handed_on(failure, extractor.is_begun())
    }

    /// The dump's encoding, where it is a plain word; a manifest is not to be trusted with SQL.
    fn encoding(&self) -> Option<&str> {
        let encoding = self.manifest.dump.client_encoding.as_deref()?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        encoding.bytes().all(is_plain).then_some(encoding)
    }
}

/// Rows that went out cannot be taken back.
fn handed_on(failure: Failure, is_begun: bool) -> Failure {
    if is_begun {
        failure.handed_on()
    } else {
        failure
    }
}

fn fault_in_words(fault: &Fault) -> String {
    match fault.stored_offset {
        Some(offset) => format!(
            "{} (from byte {offset} of the stored file on)",
            fault.message
        ),
        None => fault.message.clone(),
    }
}

/// Pieces of several ranges, one behind the other, handed out range by range.
struct Split {
    pieces: Pieces,
    left: bytes::Bytes,
}

impl Split {
    fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            left: bytes::Bytes::new(),
        }
    }

    /// Returns the pieces of the next `count` bytes.
    fn next_bytes(
        &mut self,
        mut count: u64,
    ) -> impl Iterator<Item = pgkeep_storage::Result<bytes::Bytes>> + Send + '_ {
        std::iter::from_fn(move || {
            if count == 0 {
                return None;
            }
            if self.left.is_empty() {
                match self.pieces.next()? {
                    Ok(piece) => self.left = piece,
                    Err(error) => return Some(Err(error)),
                }
            }
            let taken = self
                .left
                .len()
                .min(usize::try_from(count).unwrap_or(usize::MAX));
            count -= taken as u64;
            Some(Ok(self.left.split_to(taken)))
        })
    }
}

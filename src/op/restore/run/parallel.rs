//! Restores into a fresh database with several sessions at once: structure, rows, indexes, keys, the rest.
//!
//! The stored object is read twice: once as a whole, for size, SHA-256, end marker and every statement's judgement,
//! before the first session begins; then by ranges. A hash of the whole cannot be had from ranges that are read out of
//! order, and a first reading on all cores takes a fraction of what the server needs for its indexes. The second
//! reading is held against the first: each range goes through a filter of its own, and each table's rows must have the
//! digest that the first reading saw, compared here and again in the database.

use std::collections::HashMap;
use std::io::{PipeWriter, Write};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{Run, Site};
use crate::failure::Result;
use crate::model::chunks::ChunkIndex;
use crate::model::name::TableName;
use crate::model::restore::filter::{Filter, Rules};
use crate::model::restore::order::{Gathering, Sections, Stage, Task, What, take_next};
use crate::model::scan::{Block, RowDigest, Scan};
use crate::op::reading::{Pieces, chunk_index, dump_key, threads, with_pieces};
use crate::op::restore::Event;
use crate::op::restore::feed::{MoveError, Moved};
use crate::op::restore::preflight::Plan;
use crate::op::restore::source::{Opened, Seen, Stored};
use crate::op::stored::storage_failure;
use crate::postgres::databases::free_sessions;
use crate::postgres::feed::FeedRequest;
use crate::storage;
use crate::stream::compress::Codec;
use crate::stream::pipeline::{Closed, Progress};
use crate::stream::stored::{Layout, read_chunks};

/// Without `--jobs`, dumps below this length go through one session: reading them twice and starting a `psql` for each
/// stage costs more than it saves.
const WORTH_IT: u64 = 32 << 20;

/// How much of a text is handed on at once.
const PIECE_BYTES: usize = 1 << 20;

/// Where a stored dump lies, and how it is cut.
struct Copy<'a> {
    stored: &'a Stored,
    at: usize,
    codec: Codec,
    key: String,
    index: Arc<ChunkIndex>,
}

/// What all sessions of one restore share.
struct Crew<'a> {
    opened: &'a Opened,
    copy: Copy<'a>,
    site: &'a Site,
    rules: Rules,
    progress: Arc<Progress>,
    /// Ends all of them.
    halt: CancellationToken,
}

/// Rows and digest of tables, added up over several readings.
type Sums = HashMap<TableName, (u64, Option<RowDigest>)>;

/// Why a thread did not hand on all of its task.
enum Broken {
    Move(MoveError),
    Storage(storage::Error),
    Damaged(String),
}

/// What a thread takes its SQL from.
enum Input {
    Text(Vec<u8>),
    Part(Block, BoxStream<'static, storage::Result<Bytes>>),
}

impl Run<'_> {
    /// Restores with several sessions; none where the dump has to go through one, and nothing was done yet.
    pub(super) async fn feed_side_by_side(
        &mut self,
        opened: &Opened,
        at: usize,
        site: &Site,
    ) -> Result<Option<Moved>> {
        let Opened::Stored(stored) = opened else {
            return Ok(None);
        };
        let sections = Sections::of(&stored.manifest.sections);
        let is_plain = stored.manifest.encryption.is_none() && site.plan != Plan::Fill;
        let (Some(sections), true) = (sections, is_plain) else {
            return Ok(None);
        };
        let jobs = self.jobs(stored.manifest.dump.bytes, site).await;
        if jobs < 2 {
            return Ok(None);
        }
        let Some(copy) = self.copy(stored, at).await? else {
            return Ok(None);
        };
        let (scan, gathering) = self.survey(opened, &copy, sections, site).await?;
        if Sections::of(&scan.sections) != Some(sections) {
            return Ok(None);
        }
        self.report.jobs = jobs;
        let stages = gathering.plan(&scan, jobs);
        self.work(opened, copy, site, stages, &scan, jobs).await?;
        Ok(Some(Moved {
            scan,
            seen: Arc::new(Seen::default()),
            compared: None,
        }))
    }

    /// Returns how many sessions there may be: as many as were asked for and the server has free.
    async fn jobs(&mut self, dump_bytes: u64, site: &Site) -> usize {
        let wanted = match self.request.options.jobs {
            Some(jobs) => jobs,
            None if dump_bytes < WORTH_IT => 1,
            None => threads(),
        };
        if wanted < 2 {
            return 1;
        }
        // Where the server does not tell, it will refuse a session that is too many.
        let free = free_sessions(&site.psql, self.stop()).await.ok().flatten();
        match free.filter(|free| *free < wanted) {
            Some(free) => {
                let jobs = free.max(1);
                self.warn(format!(
                    "the server has room for {free} more sessions, so {jobs} instead of {wanted} restore at once"
                ));
                jobs
            }
            None => wanted,
        }
    }

    async fn copy<'a>(&mut self, stored: &'a Stored, at: usize) -> Result<Option<Copy<'a>>> {
        let (manifest, named) = (&stored.manifest, &stored.listing.storages[at]);
        // What is wrong with the key is told by whoever reads the object as a whole.
        let Ok((codec, key)) = dump_key(&stored.backup, manifest) else {
            return Ok(None);
        };
        let index = chunk_index(named, &stored.backup, manifest, codec).await;
        match index.map_err(|error| storage_failure(&self.what(), &error))? {
            Ok(index) => Ok(Some(Copy {
                stored,
                at,
                codec,
                key,
                index,
            })),
            Err(why) => {
                self.warn(format!(
                    "the chunk index cannot be used ({why}): one session restores the whole dump"
                ));
                Ok(None)
            }
        }
    }

    /// Reads the whole object: proves it, judges every statement, and gathers what stands around the data.
    async fn survey(
        &self,
        opened: &Opened,
        copy: &Copy<'_>,
        sections: Sections,
        site: &Site,
    ) -> Result<(Scan, Gathering)> {
        let progress = Arc::new(Progress::default());
        self.observer.note(Event::Reading {
            progress: &progress,
        });
        let stream = self.stream(copy, None).await?;
        let (codec, index) = (copy.codec, Arc::clone(&copy.index));
        let mut filter = Filter::new(self.rules(site, false));
        let reading = with_pieces(stream, move |pieces| {
            let (mut gathering, mut refusal) = (Gathering::new(sections), None);
            let layout = Layout::whole(codec, &index);
            let outcome = read_chunks(pieces, &layout, threads(), &progress, &mut |text| {
                gathering.push(text);
                let pushed = filter.push(text, &mut |_| {});
                progress.note_scan(filter.scanner());
                pushed.map_err(|error| {
                    refusal = Some(error);
                    Closed
                })
            });
            (outcome, refusal, filter.finish(), gathering)
        });
        let (outcome, refusal, finished, gathering) = tokio::select! {
            read = reading => read?,
            () = self.stop().cancelled() => return Err(self.stopped_inside()),
        };
        self.observer.note(Event::Ended);
        let explain = |refusal| {
            let error = MoveError::Refused(refusal);
            self.explain(opened, copy.at, &error, &Seen::default())
        };
        let outcome = outcome.map_err(|error| storage_failure(&self.what(), &error))?;
        if let Some(refusal) = refusal {
            return Err(explain(refusal));
        }
        if let Some(fault) = outcome.fault {
            return Err(self.damaged(copy.stored, copy.at, &fault.message));
        }
        let scan = finished.map_err(explain)?;
        let (size, sha256) = (outcome.stored_bytes, outcome.sha256.as_str());
        self.prove_stored(copy.stored, copy.at, size, sha256, &scan)?;
        Ok((scan, gathering))
    }

    async fn stream(
        &self,
        copy: &Copy<'_>,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<BoxStream<'static, storage::Result<Bytes>>> {
        let storage = &copy.stored.listing.storages[copy.at].storage;
        let stream = storage.stream(&copy.key, range).await;
        stream.map_err(|error| storage_failure(&self.what(), &error))
    }

    /// Carries out stage after stage; within one, any failure ends all sessions.
    async fn work(
        &self,
        opened: &Opened,
        copy: Copy<'_>,
        site: &Site,
        stages: Vec<Stage>,
        scan: &Scan,
        jobs: usize,
    ) -> Result<()> {
        let progress = Arc::new(Progress::default());
        self.observer.note(Event::Restoring {
            progress: &progress,
            bytes: scan.bytes,
            tables: scan
                .tables
                .iter()
                .filter(|table| table.rows.is_some())
                .count() as u64,
        });
        let crew = Crew {
            opened,
            copy,
            site,
            rules: self.rules(site, false),
            progress,
            halt: self.stop().child_token(),
        };
        let mut sums = Sums::new();
        for stage in stages {
            self.check_stop()?;
            self.carry_out_stage(&crew, stage, jobs, &mut sums).await?;
        }
        let differs = |table: &&crate::model::scan::Table| {
            let now = sums.get(&table.full_name());
            table
                .rows
                .is_some_and(|rows| now != Some(&(rows, table.digest)))
        };
        match scan.tables.iter().find(differs) {
            Some(table) => {
                let why = format!("two readings gave other rows of `{}`", table.full_name());
                Err(self.damaged(crew.copy.stored, crew.copy.at, &why))
            }
            None => Ok(()),
        }
    }

    async fn carry_out_stage(
        &self,
        crew: &Crew<'_>,
        mut stage: Stage,
        jobs: usize,
        sums: &mut Sums,
    ) -> Result<()> {
        let (mut under_way, mut busy) = (FuturesUnordered::new(), Vec::new());
        let mut failed = None;
        loop {
            while failed.is_none()
                && under_way.len() < jobs
                && let Some(task) = take_next(&mut stage, &busy)
            {
                let locks = task.locks.clone();
                busy.extend(locks.iter().cloned());
                under_way.push(async move { (locks, self.carry_out_task(crew, task).await) });
            }
            let Some((locks, done)) = under_way.next().await else {
                break;
            };
            busy.retain(|table| !locks.contains(table));
            match done {
                Ok(scan) => add(sums, scan),
                // The others are waited for: no session may still be at work when the database is dropped.
                Err(failure) => {
                    crew.halt.cancel();
                    failed.get_or_insert(failure);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn carry_out_task(&self, crew: &Crew<'_>, task: Task) -> Result<Scan> {
        let options = &self.request.options;
        let key = self.random_hex(8);
        let request = FeedRequest {
            psql: &crew.site.psql,
            application: &crew.site.application,
            one_transaction: task.one_transaction,
            server_major: crew.site.target.facts.major(),
            is_sql_ascii: crew.site.needs.encoding == "SQL_ASCII",
            time_zone: options.dump_time_zone.as_deref().unwrap_or("UTC"),
            key: &key,
        };
        let source = match task.what {
            What::Text(text) => Input::Text(text),
            What::Part(block) => {
                let stored = crew.copy.index.offsets().stored_range(block);
                let Some((range, _)) = stored else {
                    let why = "a table lies behind the end of its chunk index";
                    return Err(self.damaged(crew.copy.stored, crew.copy.at, why));
                };
                Input::Part(block, self.stream(&crew.copy, Some(range)).await?)
            }
        };
        let mut feed = request
            .start(&crew.halt)
            .await
            .map_err(|error| self.failed(&error))?;
        let input = feed.take_input();
        let hand = Hand {
            rules: Rules {
                one_transaction: task.one_transaction,
                ..crew.rules.clone()
            },
            settings: task.settings,
            codec: crew.copy.codec,
            index: Arc::clone(&crew.copy.index),
            progress: Arc::clone(&crew.progress),
        };
        // Its thread ends with the task, with `psql`, or when it is dropped below.
        let mut moving = pin!(hand.run(source, input));
        let (moved, input) = tokio::select! {
            done = &mut moving => done?,
            _ = feed.ended() => return Err(self.program_failed(&feed).await),
            () = crew.halt.cancelled() => {
                feed.stop().await;
                return Err(self.stopped_inside());
            }
        };
        let failure = match moved {
            Ok(scan) => {
                feed.commit(input)
                    .await
                    .map_err(|error| self.psql_failed(&error))?;
                return Ok(scan);
            }
            Err(Broken::Move(MoveError::Closed)) => return Err(self.program_failed(&feed).await),
            Err(Broken::Move(error)) => {
                self.explain(crew.opened, crew.copy.at, &error, &Seen::default())
            }
            Err(Broken::Storage(error)) => storage_failure(&self.what(), &error),
            Err(Broken::Damaged(why)) => self.damaged(crew.copy.stored, crew.copy.at, &why),
        };
        // `input` lives until `psql` is gone: it must not see the end of a task that is none.
        feed.stop().await;
        drop(input);
        Err(failure)
    }
}

/// Hands one task to `psql`, on a thread that may block.
struct Hand {
    rules: Rules,
    settings: Vec<u8>,
    codec: Codec,
    index: Arc<ChunkIndex>,
    progress: Arc<Progress>,
}

type Handed = (std::result::Result<Scan, Broken>, PipeWriter);

impl Hand {
    async fn run(self, source: Input, mut output: PipeWriter) -> Result<Handed> {
        let (what, stream) = match source {
            Input::Part(block, stream) => (What::Part(block), stream),
            Input::Text(text) => (What::Text(text), futures_util::stream::empty().boxed()),
        };
        with_pieces(stream, move |pieces| {
            let mut sink = Sink {
                filter: Filter::new(self.rules.clone()),
                output: &mut output,
                error: None,
            };
            let handed = self.hand_on(what, pieces, &mut sink);
            let finished = sink.finish(handed);
            (finished, output)
        })
        .await
    }

    fn hand_on(&self, what: What, pieces: Pieces, sink: &mut Sink<'_>) -> Handing {
        sink.take(&self.settings)?;
        match what {
            What::Text(text) => {
                // The filter copies what it holds back once for each piece.
                for piece in text.chunks(PIECE_BYTES) {
                    sink.take(piece)?;
                    self.progress.note_more(piece.len() as u64, 0);
                }
                Ok(())
            }
            What::Part(block) => self.read(block, pieces, sink),
        }
    }

    /// Reads one part of the dump out of its chunks.
    fn read(&self, block: Block, pieces: Pieces, sink: &mut Sink<'_>) -> Handing {
        let Some((chunks, skipped)) = self.index.offsets().chunks_of(block) else {
            return Err(Stopped::Damaged("its chunk index is too short".to_owned()));
        };
        let layout = Layout::part(self.codec, &self.index, chunks);
        let (mut skip, mut left) = (skipped, block.length);
        let mut take = |text: &[u8]| {
            let at = |count: u64, most: usize| usize::try_from(count).unwrap_or(most).min(most);
            let start = at(skip, text.len());
            let end = start + at(left, text.len() - start);
            skip -= start as u64;
            left -= (end - start) as u64;
            let before = sink.filter.scanner().tables_with_rows();
            sink.take(&text[start..end]).map_err(|_| Closed)?;
            let tables = sink.filter.scanner().tables_with_rows() - before;
            self.progress.note_more((end - start) as u64, tables as u64);
            Ok(())
        };
        // Each session has a decompressing thread of its own; the server is what they wait for.
        let read = read_chunks(pieces, &layout, 1, &Progress::default(), &mut take);
        let outcome = read.map_err(Stopped::Storage)?;
        match outcome.fault {
            Some(fault) => Err(Stopped::Damaged(fault.message)),
            None if outcome.is_left => Err(Stopped::Left),
            None if left > 0 => Err(Stopped::Damaged("a part of it is too short".to_owned())),
            None => Ok(()),
        }
    }
}

/// How a task ended before its end.
enum Stopped {
    /// The sink knows why.
    Left,
    Storage(storage::Error),
    Damaged(String),
}

type Handing = std::result::Result<(), Stopped>;

/// Filters what goes to `psql`, and remembers why it takes no more.
struct Sink<'a> {
    filter: Filter,
    output: &'a mut PipeWriter,
    error: Option<MoveError>,
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) -> Handing {
        let mut written = Ok(());
        let pushed = self.filter.push(bytes, &mut |bytes| {
            if written.is_ok() {
                written = self.output.write_all(bytes);
            }
        });
        self.error = match (pushed, written) {
            (Ok(()), Ok(())) => return Ok(()),
            (Err(refusal), _) => Some(MoveError::Refused(refusal)),
            (Ok(()), Err(_)) => Some(MoveError::Closed),
        };
        Err(Stopped::Left)
    }

    fn finish(self, handed: Handing) -> std::result::Result<Scan, Broken> {
        match handed {
            Ok(()) => {
                let finished = self.filter.finish();
                finished.map_err(|refusal| Broken::Move(MoveError::Refused(refusal)))
            }
            Err(Stopped::Storage(error)) => Err(Broken::Storage(error)),
            Err(Stopped::Damaged(why)) => Err(Broken::Damaged(why)),
            Err(Stopped::Left) => Err(Broken::Move(self.error.unwrap_or(MoveError::Closed))),
        }
    }
}

fn add(sums: &mut Sums, scan: Scan) {
    for table in scan.tables {
        let Some(rows) = table.rows else { continue };
        let name = table.full_name();
        match sums.get_mut(&name) {
            None => drop(sums.insert(name, (rows, table.digest))),
            Some((sum, digest)) => {
                *sum += rows;
                *digest = match (*digest, table.digest) {
                    (Some(mut all), Some(more)) => {
                        all.add(more);
                        Some(all)
                    }
                    _ => None,
                };
            }
        }
    }
}

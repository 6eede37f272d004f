//! Restores into a fresh database with several sessions at once: structure, rows, indexes, keys, the rest.
//!
//! The stored object is read by ranges: what stands around the data first, which is judged and planned by, then every
//! table's rows by the session that brings them in. Each range goes through a filter of its own, and each table's rows
//! must have the digest that the manifest tells, compared here and again in the database. Beside that the object is read
//! once as a whole for its size and SHA-256, which cannot be had from ranges that are read out of order: nothing is
//! proven, and the database not handed over, before both are right.

use std::collections::{HashMap, HashSet};
use std::io::{PipeWriter, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, FuturesUnordered};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Run, Site};
use crate::op::reading::{Pieces, chunk_index, dump_key, threads, with_pieces};
use crate::op::restore::feed::{MoveError, Moved};
use crate::op::restore::preflight::Plan;
use crate::op::restore::source::{Opened, Seen, Stored};
use crate::op::restore::{Event, HINDERED, SQL_FAILED};
use crate::op::stored::storage_failure;
use crate::postgres::databases::free_sessions;
use crate::postgres::feed::FeedRequest;
use crate::stream::compress::Codec;
use crate::stream::pipeline::{Closed, Progress, hex};
use crate::stream::stored::{Layout, read_chunks};
use pgkeep_model::chunks::ChunkIndex;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::filter::{Filter, Freeze, Rules};
use pgkeep_model::restore::order::Task;
use pgkeep_model::restore::order::{Gathering, Queue, Sections, Stage, What, can_be_emptied};
use pgkeep_model::scan::{Block, RowDigest, Scan, SequenceValue, Table, TableKind};

/// Without `--jobs`, dumps below this length go through one session: starting a `psql` for each stage costs more than it
/// saves.
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
    /// Tables whose rows are written as frozen.
    emptied: Arc<HashSet<TableName>>,
    progress: Arc<Progress>,
    /// Ends all of them.
    halt: CancellationToken,
}

/// What several sessions brought in, added up.
#[derive(Default)]
struct Sums {
    /// Rows and digest of each table.
    tables: HashMap<TableName, (u64, Option<RowDigest>)>,
    large_objects: u64,
    /// Values that were set, which stand between the rows.
    sequences: Vec<SequenceValue>,
}

/// Sessions beside those that restore: one asks what they do, and one cleans up.
const BESIDES: usize = 2;

/// What is wrong with a chunk index that does not reach as far as the manifest's sections and tables.
const BEHIND_INDEX: &str = "a part of it lies behind the end of its chunk index";

/// Why a thread did not hand on all of its task.
enum Broken {
    Move(MoveError),
    Storage(pgkeep_storage::Error),
    Damaged(String),
}

/// What a thread takes its SQL from.
enum Input {
    Text(Vec<u8>),
    Part(Block, BoxStream<'static, pgkeep_storage::Result<Bytes>>),
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
        let (mut scan, gathering) = self.survey(opened, &copy, sections, site).await?;
        self.report.jobs = jobs;
        let stages = gathering.plan(&scan, jobs);
        let sums = self.work(opened, copy, site, stages, &scan, jobs).await?;
        scan.sequences.extend(sums.sequences);
        Ok(Some(Moved {
            scan,
            seen: Arc::new(Seen::default()),
            compared: None,
        }))
    }

    /// Returns how many sessions there may be: as many as were asked for and the server has free.
    async fn jobs(&mut self, dump_bytes: u64, site: &Site) -> usize {
        let wanted = match self.options.jobs {
            Some(jobs) => jobs,
            None if dump_bytes < WORTH_IT => 1,
            None => threads(),
        };
        if wanted < 2 {
            return 1;
        }
        // Where the server does not tell, it will refuse a session that is too many.
        let free = free_sessions(&site.psql, self.stop()).await.ok().flatten();
        match free.filter(|free| *free < wanted + BESIDES) {
            Some(free) => {
                let jobs = free.saturating_sub(BESIDES).max(1);
                self.warn(format!(
                    "the server has room for {free} more sessions, {BESIDES} of which look after the restore, so {jobs} instead of {wanted} restore at once"
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

    /// Reads what stands around the data, judges it, and gathers it for the plan. The tables' rows are the manifest's.
    async fn survey(
        &self,
        opened: &Opened,
        copy: &Copy<'_>,
        sections: Sections,
        site: &Site,
    ) -> Result<(Scan, Gathering)> {
        let (mut gathering, mut filter) = (
            Gathering::new(sections),
            Filter::new(self.rules(site, false)),
        );
        let refused = |refusal| {
            let error = MoveError::Refused(refusal);
            self.explain(opened, copy.at, &error, &Seen::default())
        };
        for (at, block) in sections.around().into_iter().enumerate() {
            if at > 0 {
                gathering.skip(sections.data_bytes());
            }
            let text = self.read_text(copy, block).await?;
            gathering.push(&text);
            for piece in text.chunks(PIECE_BYTES) {
                filter.push(piece, &mut |_| {}).map_err(refused)?;
            }
        }
        let mut scan = filter.finish().map_err(refused)?;
        let manifest = &copy.stored.manifest;
        let why = match scan.problems.first() {
            Some(problem) => Some(problem.message.clone()),
            None => other_tables(&scan.tables, manifest),
        };
        if let Some(why) = why {
            return Err(self.damaged(copy.stored, copy.at, &why));
        }
        scan.bytes = manifest.dump.bytes;
        scan.sections.clone_from(&manifest.sections);
        scan.large_objects = manifest.large_objects;
        scan.tables = manifest.tables.iter().map(Table::from).collect();
        Ok((scan, gathering))
    }

    /// Reads a part of the dump into memory.
    async fn read_text(&self, copy: &Copy<'_>, block: Block) -> Result<Vec<u8>> {
        let stream = match copy.index.offsets().stored_range(block) {
            _ if block.length == 0 => return Ok(Vec::new()),
            Some((range, _)) => self.stream(copy, Some(range)).await?,
            None => return Err(self.damaged(copy.stored, copy.at, BEHIND_INDEX)),
        };
        let (codec, index) = (copy.codec, Arc::clone(&copy.index));
        let counted = self.counted();
        let reading = with_pieces(stream, move |pieces| {
            let mut text = Vec::new();
            let mut take = |piece: &[u8]| {
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
                text.extend_from_slice(piece);
                Ok(())
            };
            read_block(codec, &index, block, pieces, threads(), &mut take).map(|()| text)
        });
        let read = tokio::select! {
            read = reading => read?,
            () = self.stop().cancelled() => return Err(self.stopped_inside()),
        };
        read.map_err(|stopped| match stopped {
            Stopped::Storage(error) => storage_failure(&self.what(), &error),
            Stopped::Damaged(why) => self.damaged(copy.stored, copy.at, &why),
            Stopped::Left => self.damaged(copy.stored, copy.at, "a part of it cannot be read"),
        })
    }

    /// Reads the object once as a whole, for its size and SHA-256.
    async fn prove_bytes(
        &self,
        copy: &Copy<'_>,
        scan: &Scan,
        halt: &CancellationToken,
    ) -> Result<()> {
        let stream = self.stream(copy, None).await?;
        let counted = self.counted();
        let hashing = with_pieces(stream, move |pieces| {
            let (mut hash, mut size) = (Sha256::new(), 0);
            for piece in pieces {
                let piece = piece?;
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
                hash.update(&piece);
                size += piece.len() as u64;
            }
            Ok((size, hex(&hash.finalize())))
        });
        let (size, sha256) = tokio::select! {
            read = hashing => read?.map_err(|error| storage_failure(&self.what(), &error))?,
            () = halt.cancelled() => return Err(self.stopped_inside()),
        };
        self.prove_stored(copy.stored, copy.at, size, &sha256, scan)
    }

    async fn stream(
        &self,
        copy: &Copy<'_>,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<BoxStream<'static, pgkeep_storage::Result<Bytes>>> {
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
    ) -> Result<Sums> {
        let progress = Arc::new(Progress::default());
        self.follow(&progress);
        self.observer.note(Event::Restoring {
            progress: &progress,
            bytes: scan.bytes,
            tables: scan
                .tables
                .iter()
                .filter(|table| table.rows.is_some())
                .count() as u64,
        });
        let emptied = emptied(&copy.stored.manifest, scan, site);
        let crew = Crew {
            opened,
            copy,
            site,
            rules: self.rules(site, false),
            emptied: Arc::new(emptied),
            progress,
            halt: self.stop().child_token(),
        };
        let proving = async {
            let proven = self.prove_bytes(&crew.copy, scan, &crew.halt).await;
            proven.inspect_err(|_| crew.halt.cancel())
        };
        let working = async {
            let done = self.carry_out_stages(&crew, stages, jobs).await;
            done.inspect_err(|_| crew.halt.cancel())
        };
        // Both are waited for. Whichever ends first in a failure makes the other one say only that it was stopped.
        let (proven, done) = tokio::join!(proving, working);
        let sums = match (proven, done) {
            (Ok(()), done) => done?,
            (Err(failure), Ok(_)) => return Err(failure),
            (Err(proof), Err(work)) => {
                return Err(if proof.kind == Kind::Interrupted {
                    work
                } else {
                    proof
                });
            }
        };
        self.prove_sums(&crew, &sums, scan)?;
        Ok(sums)
    }

    /// Holds what was brought in against the manifest.
    fn prove_sums(&self, crew: &Crew<'_>, sums: &Sums, scan: &Scan) -> Result<()> {
        let differs = |table: &&pgkeep_model::scan::Table| {
            let now = sums.tables.get(&table.full_name());
            table
                .rows
                .is_some_and(|rows| now != Some(&(rows, table.digest)))
        };
        let known: HashSet<TableName> = scan
            .tables
            .iter()
            .filter(|table| table.rows.is_some())
            .map(Table::full_name)
            .collect();
        let objects = crew.copy.stored.manifest.large_objects;
        let why = if let Some(table) = scan.tables.iter().find(differs) {
            format!(
                "the rows of `{}` are not those of its manifest",
                table.full_name()
            )
        } else if let Some(table) = sums.tables.keys().find(|table| !known.contains(table)) {
            format!("it has rows of `{table}`, and its manifest has none")
        } else if sums.large_objects != objects {
            format!(
                "it has {} large objects, and its manifest {objects}",
                sums.large_objects
            )
        } else {
            return Ok(());
        };
        Err(self.damaged(crew.copy.stored, crew.copy.at, &why))
    }

    async fn carry_out_stages(
        &self,
        crew: &Crew<'_>,
        stages: Vec<Stage>,
        jobs: usize,
    ) -> Result<Sums> {
        let mut sums = Sums::default();
        for stage in stages {
            self.check_stop()?;
            self.carry_out_stage(crew, stage, jobs, &mut sums).await?;
        }
        Ok(sums)
    }

    async fn carry_out_stage(
        &self,
        crew: &Crew<'_>,
        stage: Stage,
        jobs: usize,
        sums: &mut Sums,
    ) -> Result<()> {
        let (mut under_way, mut queue) = (FuturesUnordered::new(), Queue::new(stage));
        let mut failed = None;
        loop {
            while failed.is_none()
                && under_way.len() < jobs
                && let Some(task) = queue.take()
            {
                let (locks, fills) = (task.locks.clone(), task.fills.clone());
                under_way
                    .push(async move { (locks, fills, self.carry_out_task(crew, task).await) });
            }
            let Some((locks, fills, done)) = under_way.next().await else {
                break;
            };
            queue.done(&locks, &fills);
            match done {
                Ok(scan) => sums.add(scan),
                // The others are waited for: no session may still be at work when the database is dropped.
                Err(failure) => {
                    crew.halt.cancel();
                    failed.get_or_insert(failure);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn input_of(&self, crew: &Crew<'_>, what: What) -> Result<Input> {
        match what {
            What::Text(text) => Ok(Input::Text(text)),
            What::Part(block) => match crew.copy.index.offsets().stored_range(block) {
                Some((range, _)) => Ok(Input::Part(
                    block,
                    self.stream(&crew.copy, Some(range)).await?,
                )),
                None => Err(self.damaged(crew.copy.stored, crew.copy.at, BEHIND_INDEX)),
            },
        }
    }

    async fn carry_out_task(&self, crew: &Crew<'_>, task: Task) -> Result<Scan> {
        let key = self.random_hex(8);
        let request = FeedRequest {
            psql: &crew.site.psql,
            application: &crew.site.application,
            one_transaction: task.one_transaction,
            server_major: crew.site.target.facts.major(),
            is_sql_ascii: crew.site.needs.encoding == "SQL_ASCII",
            time_zone: self.options.time_zone(),
            key: &key,
            prelude: "",
            ending: "",
        };
        let source = self.input_of(crew, task.what).await?;
        let mut feed = request
            .start(&crew.halt)
            .await
            .map_err(|error| self.failed(&error))?;
        let input = feed.take_input();
        let freeze = if task.one_transaction {
            Freeze::Emptied(Arc::clone(&crew.emptied))
        } else {
            Freeze::Never
        };
        let hand = Hand {
            rules: Rules {
                one_transaction: task.one_transaction,
                freeze,
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
            _ = feed.ended() => return Err(out_of_order(self.program_failed(&feed).await)),
            () = crew.halt.cancelled() => {
                feed.stop().await;
                return Err(self.stopped_inside());
            }
        };
        let failure = match moved {
            Ok(scan) => {
                let done = feed.commit(input).await;
                done.map_err(|error| out_of_order(self.psql_failed(&error)))?;
                return Ok(scan);
            }
            Err(Broken::Move(MoveError::Closed)) => {
                return Err(out_of_order(self.program_failed(&feed).await));
            }
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

/// A check, a default or a generated column may call a function that reads a table whose rows come later here.
fn out_of_order(failure: Failure) -> Failure {
    match failure.id {
        SQL_FAILED | HINDERED => failure.hint(
            "where a function in a check or an index reads another table, `--jobs 1` helps: it keeps to the dump's order",
        ),
        _ => failure,
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
        let mut take = |text: &[u8]| {
            let before = sink.filter.scanner().tables_with_rows();
            sink.take(text).map_err(|_| Closed)?;
            let tables = sink.filter.scanner().tables_with_rows() - before;
            self.progress.note_more(text.len() as u64, tables as u64);
            Ok(())
        };
        // Each session has a decompressing thread of its own; the server is what they wait for.
        read_block(self.codec, &self.index, block, pieces, 1, &mut take)
    }
}

/// Reads one part of a dump out of the chunks that hold it, and hands on just that part.
fn read_block(
    codec: Codec,
    index: &ChunkIndex,
    block: Block,
    pieces: Pieces,
    threads: usize,
    take: &mut dyn FnMut(&[u8]) -> std::result::Result<(), Closed>,
) -> Handing {
    let Some((chunks, mut skip)) = index.offsets().chunks_of(block) else {
        return Err(Stopped::Damaged(BEHIND_INDEX.to_owned()));
    };
    let layout = Layout::part(codec, index, chunks);
    let mut left = block.length;
    let mut cut = |text: &[u8]| {
        let at = |count: u64, most: usize| usize::try_from(count).unwrap_or(most).min(most);
        let start = at(skip, text.len());
        let end = start + at(left, text.len() - start);
        skip -= start as u64;
        left -= (end - start) as u64;
        take(&text[start..end])
    };
    let read = read_chunks(pieces, &layout, threads, &Progress::default(), &mut cut);
    let outcome = read.map_err(Stopped::Storage)?;
    match outcome.fault {
        Some(fault) => Err(Stopped::Damaged(fault.message)),
        None if outcome.is_left => Err(Stopped::Left),
        None if left > 0 => Err(Stopped::Damaged("a part of it is too short".to_owned())),
        None => Ok(()),
    }
}

/// How a task ended before its end.
enum Stopped {
    /// The sink knows why.
    Left,
    Storage(pgkeep_storage::Error),
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

impl Sums {
    fn add(&mut self, scan: Scan) {
        self.large_objects += scan.large_objects;
        self.sequences.extend(scan.sequences);
        for table in scan.tables {
            let Some(rows) = table.rows else { continue };
            let name = table.full_name();
            match self.tables.get_mut(&name) {
                None => drop(self.tables.insert(name, (rows, table.digest))),
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
}

/// Says which table the dump makes otherwise than the manifest tells; none where both agree.
fn other_tables(made: &[Table], manifest: &Manifest) -> Option<String> {
    let found: HashMap<TableName, TableKind> = made
        .iter()
        .filter_map(|table| Some((table.full_name(), table.kind?)))
        .collect();
    let told: HashMap<TableName, TableKind> = manifest
        .tables
        .iter()
        .filter_map(|table| Some((TableName::new(&*table.schema, &*table.name), table.kind?)))
        .collect();
    if let Some(table) = made.iter().find(|table| table.rows.is_some()) {
        let name = table.full_name();
        return Some(format!(
            "rows of `{name}` lie outside of the data section that its manifest tells"
        ));
    }
    let differs = |name: &&TableName| found.get(name) != told.get(name);
    let name = found.keys().chain(told.keys()).filter(differs).min()?;
    Some(format!("it does not make `{name}` as its manifest tells"))
}

/// Tables whose rows are written as frozen.
fn emptied(manifest: &Manifest, scan: &Scan, site: &Site) -> HashSet<TableName> {
    if !manifest.has_plain_storage() {
        return HashSet::new();
    }
    let mut tables = can_be_emptied(&scan.tables);
    // A name of unknown encoding may not be the one that we read.
    if site.needs.encoding == "SQL_ASCII" {
        tables.retain(|table| table.to_string().is_ascii());
    }
    tables
}

//! Restores into a fresh database with several sessions at once: structure, rows, indexes, keys, the rest.
//!
//! The stored object is read by ranges: what stands around the data first, which is judged and planned by, then every
//! table's rows by the session that brings them in. Each range goes through a filter of its own, and each table's rows
//! must have the digest that the manifest tells, compared here and again in the database. Beside that the object is
//! read once as a whole for its size and SHA-256, which cannot be had from ranges that are read out of order: nothing
//! is proven, and the database not handed over, before both are right.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::{Moved, Run, Site};
use crate::copies::listing::storage_failure;
use crate::copies::{Fault, Ranged, Stored, threads};
use crate::op::event::Event;
use crate::op::restore::preflight::Plan;
use crate::op::restore::session::{From, Handed, Judge, Sessions, Supply};
use crate::op::restore::sink::Broken;
use crate::op::restore::source::Opened;
use crate::postgres::databases::free_sessions;
use crate::postgres::error::Error;
use crate::postgres::feed::Answers;
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::filter::{Filter, Freeze, HeldBack, LateStatement, Rules};
use pgkeep_model::restore::order::Task;
use pgkeep_model::restore::order::{Gathering, Queue, Sections, Stage, can_be_emptied};
use pgkeep_model::restore::script::{Asks, Script};
use pgkeep_model::scan::{Block, RowDigest, Scan, SequenceValue, Table, TableKind, TextEncoding};

/// Without `--jobs`, dumps below this length go through one session: starting a `psql` for each stage costs more than
/// it saves.
const WORTH_IT: u64 = 32 << 20;

/// How much of a text is judged at once: the filter copies what it holds back once for each piece.
const PIECE_BYTES: usize = 1 << 20;

/// Where a stored dump lies, and how it is cut.
struct Copy<'a> {
    stored: &'a Stored,
    at: usize,
    ranged: Ranged<'a>,
}

/// What all sessions of one restore share.
struct Crew<'a> {
    opened: &'a Opened,
    copy: Copy<'a>,
    sessions: Sessions<'a>,
    rules: Rules,
    /// Tables whose rows are written as frozen.
    emptied: Arc<HashSet<TableName>>,
    /// Ends all of them.
    halt: CancellationToken,
}

/// What stands around the data.
struct Surveyed {
    scan: Scan,
    gathering: Gathering,
    /// What the rules leave out and the target lacks.
    lost: Vec<String>,
    /// What waits for a superuser.
    late: Vec<LateStatement>,
    /// What was held back.
    held_back: HeldBack,
}

/// What several sessions restored, added up.
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
        let (Some(sections), true) = (sections, site.plan != Plan::Fill) else {
            return Ok(None);
        };
        let jobs = self.jobs(stored.manifest.dump.bytes, site).await;
        if jobs < 2 {
            return Ok(None);
        }
        let Some(copy) = self.copy(stored, at, site).await? else {
            return Ok(None);
        };
        self.report.jobs = jobs;
        let progress = Arc::new(Progress::default());
        let sessions = self.sessions(site, &progress);
        let working = async {
            let surveyed = self.survey(opened, &copy, sections, site).await?;
            let (mut scan, gathering) = (surveyed.scan, surveyed.gathering);
            let stages = gathering.plan(&scan, jobs);
            let sums = self.work(opened, copy, site, stages, &scan, jobs).await?;
            scan.sequences.extend(sums.sequences);
            Ok(Moved {
                scan,
                lost: surveyed.lost,
                late: surveyed.late,
                held_back: surveyed.held_back,
                compared: None,
            })
        };
        sessions.watched(working).await.map(Some)
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
                    "the server has room for {free} more sessions, {BESIDES} of which watch over the restore, so \
                     {jobs} instead of {wanted} restore at once"
                ));
                jobs
            }
            None => wanted,
        }
    }

    async fn copy<'a>(
        &mut self,
        stored: &'a Stored,
        at: usize,
        site: &Site,
    ) -> Result<Option<Copy<'a>>> {
        let what = self.what();
        let opening = Ranged::open(stored, at, &what, self.context.stop.clone());
        let sessions = self.sessions(site, &Arc::default());
        match sessions.watched(opening).await {
            Ok(ranged) => Ok(Some(Copy { stored, at, ranged })),
            Err(failure) if failure.id == "manifest_contradicts" => {
                let why = failure.message.trim_start_matches(&format!("{what}: "));
                self.warn(format!(
                    "the chunk index cannot be used ({why}): one session restores the whole dump"
                ));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Reads what stands around the data, judges it, and gathers it for the plan. The tables' rows are the manifest's.
    async fn survey(
        &self,
        opened: &Opened,
        copy: &Copy<'_>,
        sections: Sections,
        site: &Site,
    ) -> Result<Surveyed> {
        let (mut gathering, mut filter) = (
            Gathering::new(sections),
            Filter::new(self.rules(site, false)),
        );
        let refused = |refusal| self.explain(opened, copy.at, Broken::Refused(refusal));
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
        let (lost, late) = (filter.lost().to_vec(), filter.take_late());
        let held_back = filter.held_back().clone();
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
        // Of tens of thousands of tables, the columns alone are megabytes, and nothing here asks for them.
        let without_columns = |record| Table {
            columns: None,
            ..Table::from(record)
        };
        scan.tables = manifest.tables.iter().map(without_columns).collect();
        Ok(Surveyed {
            scan,
            gathering,
            lost,
            late,
            held_back,
        })
    }

    /// Reads a part of the dump into memory.
    async fn read_text(&self, copy: &Copy<'_>, block: Block) -> Result<Vec<u8>> {
        if block.length == 0 {
            return Ok(Vec::new());
        }
        let counted = self.counted();
        let take = move |text: &mut Vec<u8>, piece: &[u8]| {
            counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            text.extend_from_slice(piece);
            Ok(())
        };
        let reading = copy.ranged.hand(block, threads(), Vec::new(), take);
        let (text, _, read) = tokio::select! {
            read = reading => read,
            () = self.stop().cancelled() => return Err(self.stopped_inside()),
        };
        match read {
            Ok(()) => Ok(text),
            Err(Fault::Storage(error)) => Err(storage_failure(&self.what(), &error)),
            Err(Fault::Damaged(why)) => Err(self.damaged(copy.stored, copy.at, &why)),
            Err(Fault::Left) => Err(self.stopped_inside()),
        }
    }

    /// Reads the object once as a whole, for its size and SHA-256.
    async fn prove_bytes(
        &self,
        copy: &Copy<'_>,
        scan: &Scan,
        halt: &CancellationToken,
    ) -> Result<()> {
        let (size, sha256) = self.read_through(copy.stored, copy.at, halt).await?;
        self.prove_stored(copy.stored, copy.at, size, &sha256, scan)
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
        let counted = Arc::clone(&progress);
        self.pulse.follow(move || counted.raw_bytes());
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
            sessions: self.sessions(site, &progress),
            rules: self.rules(site, false),
            emptied: Arc::new(emptied),
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

    /// Holds what was restored against the manifest.
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
                "the rows of `{}` do not match its manifest",
                table.full_name()
            )
        } else if let Some(table) = sums.tables.keys().find(|table| !known.contains(table)) {
            format!("it has rows of `{table}`, but its manifest has none")
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

    async fn carry_out_task(&self, crew: &Crew<'_>, task: Task) -> Result<Scan> {
        let freeze = if task.one_transaction {
            Freeze::Emptied(Arc::clone(&crew.emptied))
        } else {
            Freeze::Never
        };
        let rules = Rules {
            one_transaction: task.one_transaction,
            freeze,
            ..crew.rules.clone()
        };
        let script = Script::new(task.one_transaction, rules, task.into_steps());
        let copy = &crew.copy;
        let supply = Supply {
            from: From::Copy(copy.stored, copy.at, Some(&copy.ranged)),
            encoding: TextEncoding::Utf8,
            // Each session has a decompressing thread of its own; the server is what they wait for.
            threads: 1,
        };
        let mut judge = Judgement { run: self, crew };
        let mut handed = crew
            .sessions
            .one_of_many(script, &supply, &mut judge, &crew.halt)
            .await?;
        Ok(handed.scans.remove(0))
    }
}

/// What is wrong with one task's part of the dump. What it restored is proven with that of the others.
struct Judgement<'a, 'r> {
    run: &'a Run<'r>,
    crew: &'a Crew<'a>,
}

impl Judge for Judgement<'_, '_> {
    fn prove(&mut self, _: &Handed) -> Result<Option<Asks>> {
        Ok(None)
    }

    fn judge(&mut self, _: Answers) -> Result<()> {
        Ok(())
    }

    fn broken(&self, broken: Broken) -> Failure {
        self.run
            .explain(self.crew.opened, self.crew.copy.at, broken)
    }

    fn refused(&self, error: &Error) -> Failure {
        self.run.psql_failed(error)
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
            "rows of `{name}` lie outside of the data section that its manifest names"
        ));
    }
    let differs = |name: &&TableName| found.get(name) != told.get(name);
    let name = found.keys().chain(told.keys()).filter(differs).min()?;
    Some(format!("it does not make `{name}` as its manifest says"))
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

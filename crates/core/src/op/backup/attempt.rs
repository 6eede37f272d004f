//! One attempt at a backup, from the first question to the server to the last manifest.

use std::sync::Arc;
use std::time::Duration;

use crate::stream::digest::sha256;
use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::after::marks;
use super::fan_out::{FanOut, GIVEN_UP};
use super::limited::Limited;
use super::programs::{Programs, Stoppers};
use super::record::{self, Found, Unplaced};
use super::report::NOT_FOUND_AGAIN;
use super::selected::Source;
use super::start::{NotStarted, Start};
use super::{Report, Request, ended};
use crate::clock::off_in_words;
use crate::context::Context;
use crate::op::event::{Event, Observer};
use crate::op::lock::Hold;
use crate::op::stored::OBJECT_EXISTS;
use crate::postgres::error::{Error, Reason};
use crate::postgres::globals::Globals;
use crate::postgres::process::Stop as Why;
use crate::stream::pipeline::{self, Closed, Passed, PipelineError, Progress};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::BackupId;
use pgkeep_model::keys::{Part, Place};
use pgkeep_model::limits::LimitRecord;
use pgkeep_model::manifest::{Chunks, MAX_INLINE_CHUNKS, Manifest, TableRecord};
use pgkeep_model::required::{RequiredOutcome, RequiredTable};
use pgkeep_model::scan::{Finding, NOT_UTF8, Scan};

/// A dump is taken to compress to a quarter; the guess only sets part sizes.
const GUESSED_RATIO: u64 = 4;

/// What is safe to say of a run that failed before its commit.
pub(super) const SAFE: &str = "nothing was stored";

/// One attempt under way.
pub(super) struct Attempt<'a> {
    pub request: &'a Request,
    pub context: &'a Context,
    observer: &'a dyn Observer,
    pub hold: &'a Hold,
    /// Whether the dump is in the database's own encoding, because some of it has no equivalent in UTF-8.
    pub own_encoding: bool,
    pub place: Place,
    pub report: Report,
    /// Whether a manifest may be there although the backup does not count, which the failure of the commit says.
    pub is_undecided: bool,
}

/// Id of the failure of a dump that the server could not tell in UTF-8.
pub(super) const NO_EQUIVALENT: &str = "no_utf8_equivalent";

/// A dump that its judge refused, and what of it was as required.
#[derive(Debug)]
struct Refusal {
    failure: Failure,
    required: Vec<RequiredOutcome>,
}

/// A dump that passed through every stage and was proven.
struct Proven {
    passed: Passed,
    tables: Vec<TableRecord>,
    required: Vec<RequiredOutcome>,
    warnings: Vec<String>,
    /// What came of the run's limits.
    limits: Vec<LimitRecord>,
    /// How each storage took the object.
    taken: Vec<Result<()>>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        request: &'a Request,
        context: &'a Context,
        observer: &'a dyn Observer,
        hold: &'a Hold,
        own_encoding: bool,
        id: Option<BackupId>,
    ) -> Self {
        let now = context.clock.now();
        let new = || BackupId::new(request.name.clone(), now, context.clock.suffix());
        let id = id.unwrap_or_else(new);
        let place = Place {
            id,
            is_partial: request.is_partial,
        };
        Self {
            request,
            context,
            observer,
            hold,
            own_encoding,
            place,
            report: Report::new(request, now),
            is_undecided: false,
        }
    }

    pub(super) async fn run(mut self) -> Report {
        if let Err(failure) = self.try_run().await {
            // What a program or a storage says while it is made to end is of no interest; a commit in doubt is.
            let is_ended = self.stop().is_cancelled() && !self.report.stored;
            self.report.failure = Some(if is_ended && !self.is_undecided {
                self.ended()
            } else {
                failure
            });
        }
        self.report
    }

    pub(super) fn what(&self) -> String {
        format!("backup of `{}`", self.request.name)
    }

    pub(super) fn failed(&self, error: &Error) -> Failure {
        let mut failure = error.to_failure(&self.what(), SAFE);
        failure.may_pass = error.is_retryable();
        if has_no_equivalent(error) {
            failure.id = NO_EQUIVALENT;
        }
        failure
    }

    /// Says why the attempt was made to end.
    pub(super) fn ended(&self) -> Failure {
        ended(self.request, self.context, self.hold)
    }

    /// Whatever ends an attempt before its commit: a stop that was asked for, or a lock that was lost.
    pub(super) fn stop(&self) -> &CancellationToken {
        self.hold.ended()
    }

    async fn try_run(&mut self) -> Result<()> {
        self.observer.note(Event::Connecting);
        let source = self.connect().await?;
        self.check_source(&source.facts)?;
        self.prepare_storages().await?;
        let globals = self.read_globals(&source).await?;
        let uploads = self.start_uploads(&source).await?;
        let proven = self.dump(&source, uploads).await?;
        self.commit(&source, proven, globals).await
    }

    /// Starts an upload to every storage, before the dump: a storage that takes none is reported at once.
    async fn start_uploads(&mut self, source: &Source) -> Result<FanOut> {
        let key = self.place.key(Part::Dump, &self.request.form.extension());
        let expected = source.facts.database.size_bytes / GUESSED_RATIO;
        let copies = self.request.copies.get();
        let uploads = FanOut::start(
            &self.request.storages,
            &key,
            Some(expected),
            copies,
            self.stop(),
        )
        .await;
        if uploads.open() >= self.request.copies.get() {
            return Ok(uploads);
        }
        let taken = uploads.give_up().await;
        self.note_given_up(&taken);
        let failure = taken
            .into_iter()
            .find_map(std::result::Result::err)
            .unwrap_or_else(|| self.ended());
        Err(self.nothing_stored(failure))
    }

    /// Runs `pg_dump` through the pipeline into all storages. Nothing is visible afterwards as a backup.
    async fn dump(&mut self, source: &Source, uploads: FanOut) -> Result<Proven> {
        let start = Start {
            request: self.request,
            source,
            stop: self.stop(),
        };
        let started = match self.request.stall_timeout {
            // A server that says nothing says nothing for ever.
            Some(limit) => timeout(limit, start.programs())
                .await
                .unwrap_or_else(|_| Err(stalled())),
            None => start.programs().await,
        };
        let mut programs = match started {
            Ok(programs) => programs,
            Err(why) => {
                uploads.give_up().await;
                return Err(match why {
                    NotStarted::Program(error) => self.failed(&error),
                    NotStarted::Refused(failure) => *failure,
                });
            }
        };
        let progress = Arc::new(Progress::default());
        self.announce(source, &progress);
        let done = self.watch(&programs.stoppers(), &uploads, &progress);
        let (ended, uploads) = self.pump(source, &mut programs, uploads, &progress).await;
        done.cancel();
        match ended {
            Ok(passed) => {
                let warnings = programs.wait().await.map_err(|error| self.failed(&error))?;
                let tables = match record::tables(&passed.scan, &passed.chunks) {
                    Ok(tables) => tables,
                    Err(unplaced) => {
                        uploads.give_up().await;
                        return Err(self.unplaced(&unplaced));
                    }
                };
                let required = look_up(&self.request.required, &passed.scan);
                let stored_bytes = passed.stored_bytes;
                let limits = self.limits(programs.take_limited(), &passed.scan);
                self.observer.note(Event::Storing);
                Ok(Proven {
                    passed,
                    tables,
                    required,
                    warnings,
                    limits,
                    taken: uploads.finish(stored_bytes).await,
                })
            }
            Err(error) => {
                programs.stoppers().stop(Why::Interrupted).await;
                let taken = uploads.give_up().await;
                self.note_given_up(&taken);
                if let PipelineError::Refused(refusal) = &error {
                    self.report.required_tables.clone_from(&refusal.required);
                }
                Err(self.explain(error, programs, taken).await)
            }
        }
    }

    /// Says what came of the run's limits, and warns of them.
    fn limits(&mut self, limited: Option<Limited>, scan: &Scan) -> Vec<LimitRecord> {
        let Some(mut limited) = limited else {
            return Vec::new();
        };
        self.report.warnings.append(&mut limited.warnings);
        limited.outcome(scan)
    }

    fn announce(&self, source: &Source, progress: &Arc<Progress>) {
        let with_rows = source
            .facts
            .tables
            .iter()
            .filter(|table| table.is_table() && table.estimated_bytes > 0);
        let estimated_bytes = with_rows.clone().map(|table| table.estimated_bytes).sum();
        let tables = with_rows.count() as u64;
        self.observer.note(Event::Dumping {
            progress,
            estimated_bytes,
            tables,
        });
    }

    /// Ends a dump that moves no byte for too long, or that too few storages take. The returned token ends the watch.
    fn watch(
        &self,
        stoppers: &Stoppers,
        uploads: &FanOut,
        progress: &Arc<Progress>,
    ) -> CancellationToken {
        let done = CancellationToken::new();
        // Both end with the token, at the latest when the dump ends.
        if let Some(timeout) = self.request.stall_timeout {
            tokio::spawn(
                watch_for_stall(
                    stoppers.clone(),
                    Arc::clone(progress),
                    timeout,
                    done.clone(),
                )
                .in_current_span(),
            );
        }
        let (stoppers, lost, ended) = (stoppers.clone(), uploads.lost(), done.clone());
        tokio::spawn(
            async move {
                tokio::select! {
                    () = lost.cancelled() => stoppers.stop(Why::Interrupted).await,
                    () = ended.cancelled() => {}
                }
            }
            .in_current_span(),
        );
        done
    }

    /// Moves the dump on a thread that may block, and gives the fan-out back.
    async fn pump(
        &self,
        source: &Source,
        programs: &mut Programs,
        mut fan_out: FanOut,
        progress: &Arc<Progress>,
    ) -> (
        std::result::Result<Passed, PipelineError<Box<Refusal>>>,
        FanOut,
    ) {
        let (output, counted) = (programs.take_source(), Arc::clone(progress));
        let (form, threads) = (self.request.form.clone(), self.request.threads);
        let judge = self.judge(source);
        let moved = tokio::task::spawn_blocking(move || {
            let mut hand_over =
                |bytes: Bytes| -> std::result::Result<(), Closed> { fan_out.send(&bytes) };
            let result = pipeline::run(output, &form, threads, &counted, judge, &mut hand_over);
            (result, fan_out)
        });
        match moved.await {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Makes the judge of a dump whose program ended well.
    fn judge(
        &self,
        source: &Source,
    ) -> impl FnOnce(&Scan) -> std::result::Result<(), Box<Refusal>> + Send + use<> {
        let what = self.what();
        let allow_empty = self.request.allow_empty || !source.selected().holds_tables();
        let required = self.request.required.clone();
        let selected = source.selected();
        let reasons: Vec<Option<String>> = required
            .iter()
            .map(|required| selected.why_not_dumped(&required.table))
            .collect();
        move |scan| {
            let mut required = look_up(&required, scan);
            for (outcome, reason) in required.iter_mut().zip(&reasons) {
                if let (false, Some(problem), Some(reason)) =
                    (outcome.found, &mut outcome.problem, reason)
                {
                    *problem += &format!(": {reason}");
                }
            }
            match judge(&what, scan, &required, allow_empty) {
                Ok(()) => Ok(()),
                Err(failure) => Err(Box::new(Refusal { failure, required })),
            }
        }
    }

    /// Says why a dump did not pass. A program that failed, or was made to end, has the first word.
    async fn explain(
        &self,
        error: PipelineError<Box<Refusal>>,
        programs: Programs,
        taken: Vec<Result<()>>,
    ) -> Failure {
        let lost = taken
            .iter()
            .filter(|end| end.as_ref().is_err_and(|failure| failure.id != GIVEN_UP))
            .count();
        let is_lost = self.request.storages.len() - lost < self.request.copies.get();
        let storage = taken
            .into_iter()
            .filter_map(Result::err)
            .find(|failure| is_lost && failure.id != GIVEN_UP);
        let program = programs.failure().await;
        match (error, program, storage) {
            (PipelineError::Refused(refusal), _, _) => refusal.failure,
            (PipelineError::Compress(error), _, _) => {
                let message = format!(
                    "{} failed: cannot compress the dump: {error}; {SAFE}",
                    self.what()
                );
                Failure::new(Kind::Unexpected, "pipeline_failed", message)
            }
            (_, _, Some(failure)) => self.nothing_stored(self.count_copies(failure, 0)),
            (_, Some(error), None) => self.failed(&error),
            (error, None, None) => {
                let message = format!("{} failed: {error}; {SAFE}", self.what());
                Failure::new(Kind::Unexpected, "pipeline_failed", message)
            }
        }
    }

    fn unplaced(&self, unplaced: &Unplaced) -> Failure {
        let Unplaced { table, block } = unplaced;
        let message = format!(
            "{} failed: the rows of `{table}` at byte {} are in no stored chunk; {SAFE}",
            self.what(),
            block.offset
        );
        Failure::new(Kind::Proof, "rows_not_placed", message)
    }

    pub(super) fn nothing_stored(&self, mut failure: Failure) -> Failure {
        // The next attempt has another id.
        failure.may_pass |= failure.id == OBJECT_EXISTS;
        failure.message = format!("{} failed: {}; {SAFE}", self.what(), failure.message);
        failure
    }

    /// Writes what stands beside the dump, then the manifests. From the first manifest on the backup exists.
    async fn commit(
        &mut self,
        source: &Source,
        proven: Proven,
        globals: Option<Globals>,
    ) -> Result<()> {
        let finished_at = self.context.clock.now();
        self.take_note(&proven, source);
        let globals = globals
            .map(|globals| record::pack_globals(&self.place, &self.request.form, &globals))
            .transpose()?;
        let (chunks, index) = self.index(&proven.passed);
        let mut manifest = record::manifest(
            self.request,
            Found {
                place: &self.place,
                finished_at,
                server: record::server(&source.facts),
                selection: source.selection.record(),
                pg_dump_version: source.programs.version.to_string(),
                passed: &proven.passed,
                tables: proven.tables,
                limits: proven.limits,
                required: &proven.required,
                globals: globals.as_ref().map(|(record, _)| record.clone()),
                chunks,
                warnings: self.report.warnings.clone(),
            },
        );
        manifest.anomaly = self.judge_history(&manifest).await;
        let mut beside: Vec<(String, Bytes)> = Vec::new();
        beside.extend(self.held_mark(&manifest));
        beside.extend(globals.map(|(record, bytes)| (record.object.key, bytes)));
        beside.extend(index.map(|bytes| (self.place.key(Part::Index, ""), bytes)));
        beside.extend(record::recipients(&self.request.form, &self.place));
        beside.extend(marks(self.request, &self.place, finished_at));
        let ready = self.put_beside(proven.taken, &beside).await;
        self.put_manifests(ready, &manifest).await?;
        let beside: usize = beside.iter().map(|(_, bytes)| bytes.len()).sum();
        self.describe(manifest, beside as u64);
        let stored = self.judge_storages();
        self.settle_anomaly(stored)
    }

    fn take_note(&mut self, proven: &Proven, source: &Source) {
        let finding = |id: &str, text: String| Finding::new(id, text, None);
        let report = &mut self.report;
        report.warnings.extend(
            proven
                .warnings
                .iter()
                .map(|line| finding("pg_dump", line.clone())),
        );
        report
            .warnings
            .extend(proven.passed.scan.warnings.iter().cloned());
        report.warnings.extend(
            source
                .programs
                .advisory()
                .map(|text| finding("pg_dump_outdated", text)),
        );
        if let Some(ahead) = source.clock_ahead
            && let Some(words) = off_in_words(ahead)
        {
            let text = format!("the clock of the server {words}");
            report.warnings.push(finding("clock", text));
        }
        if !source.facts.session_settings_applied {
            let text = "the connection's pooler refuses PGOPTIONS, so the server's own settings decide the text \
                form of rows; the manifest records them, and rows are compared in that form";
            report
                .warnings
                .push(finding("text_form_not_fixed", text.to_owned()));
        }
        let encoding = source.facts.dump_encoding();
        if encoding != "UTF8" && encoding != "SQL_ASCII" {
            let text = format!(
                "some text of the database has no equivalent in UTF-8, so the dump is in the database's own \
                 encoding, {encoding}: it can only be restored into a database of that encoding"
            );
            report.warnings.push(finding("own_encoding", text));
        }
        report.required_tables.clone_from(&proven.required);
    }

    /// Puts a long chunk index beside the manifest.
    fn index(&self, passed: &Passed) -> (Chunks, Option<Bytes>) {
        if passed.chunks.len() <= MAX_INLINE_CHUNKS {
            return (Chunks::Inline(passed.chunks.clone()), None);
        }
        let bytes =
            serde_json::to_vec(&passed.chunks).expect("an index holds only JSON's own types");
        let chunks = Chunks::Beside {
            count: passed.chunks.len() as u64,
            sha256: sha256(&bytes),
        };
        (chunks, Some(bytes.into()))
    }

    /// Reports a stored backup with so many bytes beside its dump and its manifest.
    fn describe(&mut self, manifest: Manifest, beside_bytes: u64) {
        let report = &mut self.report;
        report.backup_id = Some(manifest.id.to_string());
        report.rows = manifest.dump.rows;
        report.tables = manifest.tables.len();
        report.dump_bytes = manifest.dump.bytes;
        report.size_bytes = manifest.object.size_bytes;
        report.stored_bytes =
            manifest.object.size_bytes + manifest.to_json().len() as u64 + beside_bytes;
        report.sha256 = Some(manifest.object.sha256.clone());
        let encryption = manifest.encryption.iter();
        report.recipients = encryption.flat_map(|one| one.recipients.clone()).collect();
        report.manifest_key = Some(self.place.key(Part::Manifest, ""));
        report.limits.clone_from(&manifest.limits);
        report.restore = Some(manifest.restore.clone());
        report.manifest = Some(manifest);
    }

    /// The backup is good; says what else is not.
    fn judge_storages(&self) -> Result<()> {
        let id = &self.place.id;
        let failed: Vec<String> = self
            .report
            .storages
            .iter()
            .filter_map(|outcome| outcome.error.clone())
            .collect();
        let doubts: Vec<String> = self
            .report
            .storages
            .iter()
            .filter_map(|outcome| outcome.doubt.clone())
            .collect();
        if !failed.is_empty() {
            let message = format!(
                "backup `{id}` is stored and good, but {} of {} storages did not take it",
                failed.len(),
                self.report.storages.len()
            );
            let failure = Failure::new(Kind::AfterGood, "some_storages_failed", message);
            return Err(failure.with_details(failed.into_iter().chain(doubts)));
        }
        if !doubts.is_empty() {
            let message = format!("backup `{id}` is stored, but could not be found again");
            return Err(
                Failure::new(Kind::AfterGood, NOT_FOUND_AGAIN, message)
                    .with_details(doubts)
                    .hint("`pgkeep check` tests the storage and reports what is wrong")
                    .hint("an S3 endpoint that has the bucket's name in its path takes objects and lists none"),
            );
        }
        let not_utf8: Vec<String> = self
            .report
            .warnings
            .iter()
            .filter(|warning| warning.id == NOT_UTF8)
            .map(|warning| warning.message.clone())
            .collect();
        if !not_utf8.is_empty() {
            let message = format!(
                "backup `{id}` is stored, but holds rows that cannot be restored as they are"
            );
            return Err(
                Failure::new(Kind::AfterGood, NOT_UTF8, message)
                    .with_details(not_utf8)
                    .hint("correct them in the database and back up again; `pgkeep get` writes the dump to a file, \
                        unchanged"),
            );
        }
        let warned: Vec<String> = self
            .report
            .warnings
            .iter()
            .filter(|warning| warning.id == "pg_dump")
            .map(|warning| warning.message.clone())
            .collect();
        if self.request.strict_warnings && !warned.is_empty() {
            let message = format!("backup `{id}` is stored and good, but `pg_dump` warned");
            return Err(
                Failure::new(Kind::AfterGood, "pg_dump_warned", message).with_details(warned)
            );
        }
        Ok(())
    }
}

fn stalled() -> NotStarted {
    NotStarted::Program(Error {
        program: "psql".to_owned(),
        ..Error::new(Reason::Stopped(Why::Stalled))
    })
}

/// Tells whether the server cannot tell a database in UTF-8.
fn has_no_equivalent(error: &Error) -> bool {
    error.stderr.iter().any(|line| {
        line.contains("has no equivalent in encoding \"UTF8\"")
            || line.contains("UTF8") && line.contains("conversion between")
    })
}

/// Ends a program that keeps its reader waiting for too long. Time in which a slow storage holds the reader up does
/// not count: storages have limits of their own.
async fn watch_for_stall(
    stoppers: Stoppers,
    progress: Arc<Progress>,
    timeout: Duration,
    done: CancellationToken,
) {
    let step = (timeout / 10).max(Duration::from_millis(50));
    let (mut seen, mut waited) = (progress.raw_bytes(), Duration::ZERO);
    while waited < timeout {
        tokio::select! {
            () = tokio::time::sleep(step) => {}
            () = done.cancelled() => return,
        }
        let now = progress.raw_bytes();
        waited = if now == seen && progress.is_waiting() {
            waited + step
        } else {
            Duration::ZERO
        };
        seen = now;
    }
    stoppers.stop(Why::Stalled).await;
}

fn look_up(required: &[RequiredTable], scan: &Scan) -> Vec<RequiredOutcome> {
    required
        .iter()
        .map(|required| required.look_up(scan))
        .collect()
}

/// The proof: the dump is whole, and what is required is in it.
fn judge(what: &str, scan: &Scan, required: &[RequiredOutcome], allow_empty: bool) -> Result<()> {
    if let Some(first) = scan.problems.first() {
        let message = format!(
            "{what} failed: `pg_dump` reported success, but its dump is not complete: {}; {SAFE}",
            first.message
        );
        let more = scan
            .problems
            .iter()
            .skip(1)
            .map(|problem| problem.message.clone());
        return Err(Failure::new(Kind::Proof, "dump_incomplete", message).with_details(more));
    }
    let missing: Vec<String> = required
        .iter()
        .filter_map(|outcome| {
            let problem = outcome.problem.as_ref()?;
            Some(format!("`{}` {problem}", outcome.table))
        })
        .collect();
    if !missing.is_empty() {
        let verbs = match missing.len() {
            1 => "is missing or has",
            _ => "are missing or have",
        };
        let message = format!(
            "{what} failed: {} of {} required tables {verbs} too few rows; {SAFE}",
            missing.len(),
            required.len()
        );
        return Err(
            Failure::new(Kind::Proof, "required_table_missing", message).with_details(missing)
        );
    }
    if !allow_empty && scan.tables.is_empty() {
        let message = format!("{what} failed: the dump holds no table at all; {SAFE}");
        let hint =
            "is it the right database? `allow_empty: true` or `--allow-empty` accepts an empty one";
        return Err(Failure::new(Kind::Proof, "dump_empty", message).hint(hint));
    }
    Ok(())
}

//! One attempt at a backup, from the first question to the server to the last manifest.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::fan_out::FanOut;
use super::record::{self, Found};
use super::{Event, Observer, Report, Request, StorageOutcome};
use crate::context::Context;
use crate::failure::{Failure, Kind, Result};
use crate::model::id::BackupId;
use crate::model::keys::{Part, Place};
use crate::model::manifest::{
    Chunks, Extension, GlobalsRecord, MAX_INLINE_CHUNKS, Manifest, Server, StoredObject,
};
use crate::model::name::TableName;
use crate::model::nearest::nearest;
use crate::model::required::RequiredOutcome;
use crate::model::scan::{Finding, Scan};
use crate::op::stored::{NamedStorage, storage_failure};
use crate::postgres::dump::{Dump, DumpRequest};
use crate::postgres::error::Error;
use crate::postgres::globals::Globals;
use crate::postgres::process::{Stop as Why, Stopper};
use crate::postgres::programs::Programs;
use crate::postgres::server::ServerFacts;
use crate::stream::compress::{Codec, Encoder, Frame};
use crate::stream::pipeline::{self, Closed, Passed, PipelineError, Progress};

/// How long leftovers of dead runs are looked for before a backup starts.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Unfinished uploads that are older than this belong to no run that is still alive.
const LEFTOVER_AGE: SignedDuration = SignedDuration::from_hours(24);

/// How long writing the commit may go on after a stop was asked for.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

/// A dump is taken to compress to a quarter; the guess only sets part sizes and how much room is asked for.
const GUESSED_RATIO: u64 = 4;

/// What is safe to say of a run that failed before its commit.
const SAFE: &str = "nothing was stored";

pub(super) struct Attempt<'a> {
    request: &'a Request,
    context: &'a Context,
    observer: &'a dyn Observer,
    place: Place,
    report: Report,
}

/// What the server said, and the programs that fit it.
struct Source {
    programs: Programs,
    facts: ServerFacts,
}

/// A dump that passed through every stage and was proven.
struct Proven {
    passed: Passed,
    required: Vec<RequiredOutcome>,
    warnings: Vec<String>,
    /// How each storage took the object.
    taken: Vec<Result<()>>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        request: &'a Request,
        context: &'a Context,
        observer: &'a dyn Observer,
    ) -> Self {
        let now = context.clock.now();
        let id = BackupId::new(request.name.clone(), now, context.clock.suffix());
        let place = Place {
            id,
            is_partial: request.is_partial,
        };
        Self {
            request,
            context,
            observer,
            place,
            report: Report::new(request, now),
        }
    }

    pub(super) async fn run(mut self) -> Report {
        if let Err(failure) = self.try_run().await {
            let is_stopped = self.context.stop.is_requested() && !self.report.stored;
            self.report.failure = Some(if is_stopped {
                self.context.stop.failure(&self.what())
            } else {
                failure
            });
        }
        self.report
    }

    fn what(&self) -> String {
        format!("backup of `{}`", self.request.name)
    }

    fn failed(&self, error: &Error) -> Failure {
        let mut failure = error.to_failure(&self.what(), SAFE);
        failure.may_pass = error.is_retryable();
        failure
    }

    fn stop(&self) -> &CancellationToken {
        self.context.stop.token()
    }

    async fn try_run(&mut self) -> Result<()> {
        self.observer.note(Event::Connecting);
        let source = self.connect().await?;
        self.check_source(&source.facts)?;
        self.prepare_storages(&source.facts).await?;
        let globals = self.read_globals(&source).await?;
        let proven = self.dump(&source).await?;
        self.observer.note(Event::Storing);
        self.commit(&source, proven, globals).await
    }

    async fn connect(&self) -> Result<Source> {
        let Request {
            search,
            environment,
            connection,
            ..
        } = self.request;
        let found = search.find(environment, self.stop()).await;
        let newest = found.newest().map_err(|error| self.failed(&error))?;
        let facts = ServerFacts::read(newest, environment, connection, self.stop());
        let facts = facts.await.map_err(|error| self.failed(&error))?;
        let programs = found.choose(Some(facts.major()), connection.minimum_client_major());
        let programs = programs.map_err(|error| self.failed(&error))?.clone();
        Ok(Source { programs, facts })
    }

    /// Refuses what would fail or be incomplete anyway: names that do not exist, rows that would be left out.
    fn check_source(&self, facts: &ServerFacts) -> Result<()> {
        let unknown = self.unknown_names(facts);
        if !unknown.is_empty() {
            let message = format!(
                "{} failed: {} selected names do not exist; {SAFE}",
                self.what(),
                unknown.len()
            );
            return Err(Failure::new(Kind::Proof, "selected_table_missing", message)
                .with_details(unknown)
                .hint("names are literal: quote those with capital letters, as in `'public.\"AutoBook\"'`"));
        }
        Ok(())
    }

    fn unknown_names(&self, facts: &ServerFacts) -> Vec<String> {
        let selection = &self.request.selection;
        let known: Vec<String> = facts
            .tables
            .iter()
            .map(|table| table.table_name().to_string())
            .collect();
        let missing = |name: &&TableName| {
            !facts
                .tables
                .iter()
                .any(|table| table.schema == name.schema_or_public() && table.name == name.name)
        };
        let tables = [
            &selection.tables,
            &selection.exclude_tables,
            &selection.structure_only,
        ];
        let tables = tables.into_iter().flatten().filter(missing).map(|name| {
            let full = TableName::new(name.schema_or_public(), name.name.clone()).to_string();
            (
                format!("table `{name}`"),
                nearest(&full, known.iter().map(String::as_str)).map(str::to_owned),
            )
        });
        let schemas = [&selection.schemas, &selection.exclude_schemas];
        let schemas = schemas
            .into_iter()
            .flatten()
            .filter(|name| !facts.schemas.contains(name))
            .map(|name| {
                let near =
                    nearest(name, facts.schemas.iter().map(String::as_str)).map(str::to_owned);
                (format!("schema `{name}`"), near)
            });
        tables
            .chain(schemas)
            .map(|(name, near)| match near {
                Some(near) => format!("{name} does not exist; did you mean `{near}`?"),
                None => format!("{name} does not exist"),
            })
            .collect()
    }

    /// Sweeps what dead runs left behind, and refuses a storage that cannot hold the backup.
    async fn prepare_storages(&self, facts: &ServerFacts) -> Result<()> {
        let prefix = format!("{}/", self.request.name);
        let older_than = self.context.clock.now() - LEFTOVER_AGE;
        for named in &self.request.storages {
            let sweep =
                tokio::time::timeout(SWEEP_TIMEOUT, named.storage.sweep(&prefix, older_than));
            match sweep.await {
                Ok(Ok(swept)) if swept.removed > 0 => {
                    tracing::info!(storage = %named.name, removed = swept.removed, "removed leftovers of dead runs");
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::info!(storage = %named.name, %error, "leftovers were not looked for")
                }
                Err(_) => {
                    tracing::info!(storage = %named.name, "looking for leftovers took too long")
                }
            }
            self.check_room(named, facts).await?;
        }
        Ok(())
    }

    /// A storage that knows its free space must have room for a dump as large as is to be expected.
    async fn check_room(&self, named: &NamedStorage, facts: &ServerFacts) -> Result<()> {
        let Some(free) = named.storage.free_bytes().await else {
            return Ok(());
        };
        let Some(needed) = self.last_size(named).await else {
            return Ok(());
        };
        if free >= needed {
            return Ok(());
        }
        let message = format!(
            "{} failed: `{}` has {} free, and about {} are needed; {SAFE}",
            self.what(),
            named.storage.label(),
            bytesize::ByteSize(free).display().iec(),
            bytesize::ByteSize(needed).display().iec(),
        );
        tracing::debug!(
            database_bytes = facts.database.size_bytes,
            "size on the server"
        );
        let hint = "remove what is not needed there, or name another folder";
        Err(Failure::new(Kind::Storage, "storage_full", message).hint(hint))
    }

    /// Size of the newest backup there and a fifth more.
    async fn last_size(&self, named: &NamedStorage) -> Option<u64> {
        let objects = named
            .storage
            .list(&format!("{}/", self.request.name))
            .await
            .ok()?;
        let listed =
            crate::model::keys::gather(objects.iter().map(|o| (o.key.as_str(), o.size_bytes)));
        let last = listed
            .iter()
            .rfind(|backup| backup.is_good() && backup.place.is_partial == self.place.is_partial)?;
        Some(last.size_bytes() + last.size_bytes() / 5)
    }

    async fn read_globals(&mut self, source: &Source) -> Result<Option<Globals>> {
        if !self.request.globals {
            return Ok(None);
        }
        let Request {
            environment,
            connection,
            ..
        } = self.request;
        let globals = Globals::read(&source.programs, environment, connection, self.stop()).await;
        let globals = globals.map_err(|error| self.failed(&error))?;
        let warnings = globals
            .warnings
            .iter()
            .map(|text| Finding::new("globals", text.clone(), None));
        self.report.warnings.extend(warnings);
        Ok(Some(globals))
    }

    /// Runs `pg_dump` through the pipeline into all storages. Nothing is visible afterwards as a backup.
    async fn dump(&mut self, source: &Source) -> Result<Proven> {
        let Request {
            environment,
            connection,
            selection,
            codec,
            ..
        } = self.request;
        let request = DumpRequest {
            programs: &source.programs,
            environment,
            connection,
            server: &source.facts,
            selection,
            lock_wait_timeout: self.request.lock_wait_timeout,
            snapshot: None,
            sections: &[],
        };
        // The program ends with its handle, with the stop token, or with the watchdog.
        let mut dump = request
            .start(self.stop())
            .map_err(|error| self.failed(&error))?;
        let progress = Arc::new(Progress::default());
        self.announce(source, &progress);
        let key = self.place.key(Part::Dump, codec.extension());
        let expected = source.facts.database.size_bytes / GUESSED_RATIO;
        let storages = &self.request.storages;
        let fan_out = FanOut::start(storages, &key, Some(expected), self.stop());
        let watchdog = self.watch(dump.stopper(), &progress);
        let result = self.pump(&mut dump, fan_out, &progress).await;
        watchdog.cancel();
        let (ended, fan_out) = result;
        match ended {
            Ok(passed) => {
                let warnings = dump.wait().await.map_err(|error| self.failed(&error))?;
                let required = self.required(&passed.scan);
                Ok(Proven {
                    passed,
                    required,
                    warnings,
                    taken: fan_out.finish().await,
                })
            }
            Err(error) => {
                dump.stopper().stop(Why::Interrupted).await;
                let taken = fan_out.give_up().await;
                Err(self.explain(error, &dump, taken).await)
            }
        }
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

    /// Ends a dump that moves no byte for too long. The returned token ends the watch.
    fn watch(&self, stopper: Stopper, progress: &Arc<Progress>) -> CancellationToken {
        let done = CancellationToken::new();
        if let Some(timeout) = self.request.stall_timeout {
            // It ends with the token, at the latest when the dump has moved no byte for `timeout`.
            tokio::spawn(watch_for_stall(
                stopper,
                Arc::clone(progress),
                timeout,
                done.clone(),
            ));
        }
        done
    }

    /// Moves the dump on a thread that may block, and gives the fan-out back.
    async fn pump(
        &self,
        dump: &mut Dump,
        mut fan_out: FanOut,
        progress: &Arc<Progress>,
    ) -> (std::result::Result<Passed, PipelineError<Failure>>, FanOut) {
        let (output, progress) = (dump.take_output(), Arc::clone(progress));
        let (codec, threads) = (self.request.codec, self.request.threads);
        let judge = self.judge();
        let moved = tokio::task::spawn_blocking(move || {
            let mut hand_over =
                |bytes: Bytes| -> std::result::Result<(), Closed> { fan_out.send(&bytes) };
            let result = pipeline::run(output, codec, threads, &progress, judge, &mut hand_over);
            (result, fan_out)
        });
        match moved.await {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Makes the judge of a dump whose program ended well.
    fn judge(&self) -> impl FnOnce(&Scan) -> Result<()> + Send + use<> {
        let (what, allow_empty) = (self.what(), self.request.allow_empty);
        let required = self.request.required.clone();
        move |scan| judge(&what, scan, &required, allow_empty)
    }

    fn required(&self, scan: &Scan) -> Vec<RequiredOutcome> {
        self.request
            .required
            .iter()
            .map(|required| required.look_up(scan))
            .collect()
    }

    /// Says why a dump did not pass. A program that failed, or was made to end, has the first word.
    async fn explain(
        &self,
        error: PipelineError<Failure>,
        dump: &Dump,
        taken: Vec<Result<()>>,
    ) -> Failure {
        let storage = taken.into_iter().find_map(Result::err);
        let program = dump.wait().await.err();
        match (error, program, storage) {
            (PipelineError::Closed, _, Some(failure)) => self.nothing_stored(failure),
            (PipelineError::Refused(failure), _, _) => failure,
            (_, Some(error), _) => self.failed(&error),
            (error, None, _) => {
                let message = format!("{} failed: {error}; {SAFE}", self.what());
                Failure::new(Kind::Unexpected, "pipeline_failed", message)
            }
        }
    }

    fn nothing_stored(&self, mut failure: Failure) -> Failure {
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
            .map(|globals| pack_globals(&self.place, self.request.codec, &globals))
            .transpose()?;
        let (chunks, index) = self.index(&proven.passed);
        let manifest = record::manifest(
            self.request,
            Found {
                place: &self.place,
                finished_at,
                server: server(&source.facts),
                pg_dump_version: source.programs.version.to_string(),
                passed: &proven.passed,
                required: &proven.required,
                globals: globals.as_ref().map(|(record, _)| record.clone()),
                chunks,
                warnings: self.report.warnings.clone(),
            },
        );
        let mut beside: Vec<(String, Bytes)> = Vec::new();
        beside.extend(globals.map(|(record, bytes)| (record.object.key, bytes)));
        beside.extend(index.map(|bytes| (self.place.key(Part::Index, ""), bytes)));
        let ready = self.put_beside(proven.taken, &beside).await;
        self.put_manifests(ready, &manifest).await?;
        self.describe(manifest);
        self.judge_storages()
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
        if !source.facts.session_settings_applied {
            let text = "the connection's pooler refuses PGOPTIONS, so the text form of rows is the server's own; digests \
                        may differ from those of another connection";
            report
                .warnings
                .push(finding("text_form_not_fixed", text.to_owned()));
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

    /// Writes small objects to every storage that took the dump; returns how each storage stands.
    async fn put_beside(
        &self,
        taken: Vec<Result<()>>,
        objects: &[(String, Bytes)],
    ) -> Vec<Result<()>> {
        let mut ready = Vec::new();
        for (named, taken) in self.request.storages.iter().zip(taken) {
            let mut state = taken;
            for (key, bytes) in objects {
                if state.is_ok() {
                    state = self.put(named, key, bytes.clone()).await;
                }
            }
            ready.push(state);
        }
        ready
    }

    /// Puts a small object. A stop that comes meanwhile leaves it a few seconds.
    async fn put(&self, named: &NamedStorage, key: &str, bytes: Bytes) -> Result<()> {
        let what = format!("cannot store `{key}` in `{}`", named.name);
        let too_late = async {
            self.stop().cancelled().await;
            tokio::time::sleep(COMMIT_GRACE).await;
        };
        tokio::select! {
            put = named.storage.put(key, bytes) => put.map_err(|error| storage_failure(&what, &error)),
            () = too_late => Err(self.context.stop.failure(&what)),
        }
    }

    /// Writes the manifest to every storage that is ready, if they are enough.
    async fn put_manifests(&mut self, ready: Vec<Result<()>>, manifest: &Manifest) -> Result<()> {
        let able = ready.iter().filter(|state| state.is_ok()).count();
        let mut outcomes = ready;
        let is_enough = able >= self.request.copies.get() && !self.context.stop.is_requested();
        if is_enough {
            let bytes = Bytes::from(manifest.to_json());
            let key = self.place.key(Part::Manifest, "");
            for (named, state) in self.request.storages.iter().zip(&mut outcomes) {
                if state.is_ok() {
                    *state = self.put(named, &key, bytes.clone()).await;
                }
            }
        }
        self.report.stored = is_enough && outcomes.iter().any(Result::is_ok);
        self.note_outcomes(&outcomes, is_enough);
        self.remove_orphans(&outcomes, is_enough).await;
        if self.report.stored {
            return Ok(());
        }
        if self.context.stop.is_requested() {
            return Err(self.context.stop.failure(&self.what()));
        }
        let failure = outcomes.into_iter().find_map(Result::err);
        let failure = failure
            .unwrap_or_else(|| Failure::new(Kind::Storage, "storage_failed", "no storage took it"));
        Err(self.nothing_stored(self.count_copies(failure, able)))
    }

    fn count_copies(&self, mut failure: Failure, able: usize) -> Failure {
        let wanted = self.request.copies;
        if wanted > NonZeroUsize::MIN {
            failure.message = format!(
                "only {able} of {wanted} copies came about: {}",
                failure.message
            );
        }
        failure
    }

    fn note_outcomes(&mut self, outcomes: &[Result<()>], is_committed: bool) {
        let storages = self.request.storages.iter().zip(outcomes);
        self.report.storages = storages
            .map(|(named, outcome)| StorageOutcome {
                name: named.name.clone(),
                url: named.storage.label().to_owned(),
                stored: is_committed && outcome.is_ok(),
                error: outcome
                    .as_ref()
                    .err()
                    .map(|failure| failure.message.clone()),
            })
            .collect();
    }

    /// Removes the dump where no manifest came about. What cannot be removed is an orphan, invisible and swept later.
    async fn remove_orphans(&self, outcomes: &[Result<()>], is_committed: bool) {
        let keys = [
            self.place.key(Part::Dump, self.request.codec.extension()),
            self.place
                .key(Part::Globals, self.request.codec.extension()),
            self.place.key(Part::Index, ""),
        ];
        for (named, outcome) in self.request.storages.iter().zip(outcomes) {
            if is_committed && outcome.is_ok() {
                continue;
            }
            for key in &keys {
                let removed = tokio::time::timeout(COMMIT_GRACE, named.storage.remove(key)).await;
                if !matches!(removed, Ok(Ok(()))) {
                    tracing::warn!(storage = %named.name, key, "an object without manifest was left behind");
                    break;
                }
            }
        }
    }

    fn describe(&mut self, manifest: Manifest) {
        let report = &mut self.report;
        report.backup_id = Some(manifest.id.to_string());
        report.rows = manifest.dump.rows;
        report.tables = manifest.tables.len();
        report.dump_bytes = manifest.dump.bytes;
        report.size_bytes = manifest.object.size_bytes;
        report.sha256 = Some(manifest.object.sha256.clone());
        report.manifest_key = Some(self.place.key(Part::Manifest, ""));
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
        if !failed.is_empty() {
            let message = format!(
                "backup `{id}` is stored and good, but {} of {} storages did not take it",
                failed.len(),
                self.report.storages.len()
            );
            return Err(
                Failure::new(Kind::AfterGood, "some_storages_failed", message).with_details(failed),
            );
        }
        let warned = self
            .report
            .warnings
            .iter()
            .filter(|warning| warning.id == "pg_dump");
        let warned: Vec<String> = warned.map(|warning| warning.message.clone()).collect();
        if self.request.strict_warnings && !warned.is_empty() {
            let message = format!("backup `{id}` is stored and good, but `pg_dump` warned");
            return Err(
                Failure::new(Kind::AfterGood, "pg_dump_warned", message).with_details(warned)
            );
        }
        Ok(())
    }
}

async fn watch_for_stall(
    stopper: Stopper,
    progress: Arc<Progress>,
    timeout: Duration,
    done: CancellationToken,
) {
    let mut seen = progress.raw_bytes();
    loop {
        tokio::select! {
            () = tokio::time::sleep(timeout) => {}
            () = done.cancelled() => return,
        }
        let now = progress.raw_bytes();
        if now == seen {
            stopper.stop(Why::Stalled).await;
            return;
        }
        seen = now;
    }
}

/// The proof: the dump is whole, and what is required is in it.
fn judge(
    what: &str,
    scan: &Scan,
    required: &[crate::model::required::RequiredTable],
    allow_empty: bool,
) -> Result<()> {
    if let Some(first) = scan.problems.first() {
        let message = format!(
            "{what} failed: `pg_dump` ended well, but its dump is not whole: {}; {SAFE}",
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
        .map(|table| table.look_up(scan))
        .filter_map(|outcome| Some(format!("`{}` {}", outcome.table, outcome.problem?)))
        .collect();
    if !missing.is_empty() {
        let message = format!(
            "{what} failed: {} of {} required tables are not as required; {SAFE}",
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

fn pack_globals(place: &Place, codec: Codec, globals: &Globals) -> Result<(GlobalsRecord, Bytes)> {
    let pack = || {
        let mut frame = Frame::new(codec);
        let encoded = Encoder::new(codec)?.encode(&globals.sql)?;
        frame.add(&encoded);
        Ok([&frame.header()[..], &encoded.bytes, &frame.trailer()].concat())
    };
    let unexpected = |error: std::io::Error| {
        Failure::new(Kind::Unexpected, "compression_failed", error.to_string())
    };
    let bytes = pack().map_err(unexpected)?;
    let object = StoredObject {
        key: place.key(Part::Globals, codec.extension()),
        size_bytes: bytes.len() as u64,
        sha256: sha256(&bytes),
    };
    Ok((
        GlobalsRecord {
            object,
            role_passwords: globals.has_passwords,
        },
        bytes.into(),
    ))
}

fn server(facts: &ServerFacts) -> Server {
    let database = &facts.database;
    Server {
        version: facts.version.clone(),
        version_num: facts.version_num,
        encoding: database.encoding.clone(),
        database: database.name.clone(),
        size_bytes: database.size_bytes,
        system_identifier: facts.system_identifier.clone(),
        database_oid: Some(u64::from(database.oid)),
        extensions: facts.extensions.iter().map(extension).collect(),
        properties: serde_json::json!({
            "owner": database.owner,
            "collate": database.collate,
            "ctype": database.ctype,
            "locale_provider": database.locale_provider,
            "locale": database.locale,
            "acl": database.acl,
            "settings": database.settings.iter().map(|entry| serde_json::json!({
                "role": entry.role,
                "settings": entry.settings,
            })).collect::<Vec<_>>(),
            "comment": database.comment,
            "connection_limit": database.connection_limit,
            "tablespace": database.tablespace,
        }),
        fixed_text_form: facts.session_settings_applied,
    }
}

fn extension(found: &crate::postgres::server::Extension) -> Extension {
    Extension {
        name: found.name.clone(),
        version: found.version.clone(),
        schema: found.schema.clone(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

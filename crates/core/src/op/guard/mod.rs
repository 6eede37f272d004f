//! `guard`: runs a command only behind a proven backup, and rolls back when it fails.
//!
//! It fails closed: without a backup that is stored, proven and kept, the command is never started. Where the way back
//! is to be gone by itself, what prevents it is reported before the command runs, too.

mod accept;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::backup;
use super::backup::report::EXTENSION_ROWS;
use super::event::{Event, Named, Observer};
use super::history;
use super::restore::{self, Goal, Limits, Options, Source};
use super::stored::Wanted;
use crate::context::Context;
use crate::postgres::attended::{Attended, Left};
use pgkeep_model::anomaly::ANOMALY;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::BackupId;
use pgkeep_model::manifest::{Manifest, SelectionRecord};
use pgkeep_model::scan::NOT_UTF8;
use pgkeep_model::shell;

/// Ids of a stored backup's warnings that anyone who relies on it later has to read, too: something is not in it.
const TOLD_AGAIN: &[&str] = &["preset", EXTENSION_ROWS, NOT_UTF8];

/// What to guard, and how.
pub struct Request {
    /// Every database that must have a backup first.
    pub guarded: Vec<Guarded>,
    /// How old a backup may be that is accepted; none makes a new one.
    pub max_age: Option<Duration>,
    /// The git commit that is about to be deployed.
    pub commit: Option<String>,
    /// The command.
    pub command: Attended,
    /// Whether the backup is restored when the command fails.
    pub restores: bool,
    /// Whether the restore may be done by a superuser.
    pub allow_superuser: bool,
}

/// One database.
pub struct Guarded {
    /// How its backup is made.
    pub backup: backup::Request,
    /// The line that restores it.
    pub line: RestoreLine,
}

/// The shell line that restores a backup in its database's place, but for what only the run knows.
#[derive(Clone, Debug)]
pub struct RestoreLine {
    /// Program and flags in front of `restore`.
    pub program: String,
    /// What stands behind `--into`, as a word of a shell; none means the database's name on its server.
    pub into: Option<String>,
    /// Flags behind it.
    pub flags: String,
}

impl RestoreLine {
    fn of(&self, id: &BackupId, database: &str, is_encrypted: bool) -> String {
        let Self {
            program,
            into,
            flags,
        } = self;
        // A name with one of these would be read as a URL.
        let is_bare = !database.is_empty() && !database.contains([':', '/', '=']);
        let into = match into {
            Some(into) => into.clone(),
            None if is_bare => shell::word(database),
            None => "\"$DATABASE_URL\"".to_owned(),
        };
        let key = if is_encrypted { " --identity KEY" } else { "" };
        format!("{program} restore {id} --into={into} --replace{flags}{key}")
    }
}

/// How a guard ended. The exit code, the summary and the text come from this value.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Each database, in order.
    pub databases: Vec<Outcome>,
    /// The git commit.
    pub commit: Option<String>,
    /// How the command ended; none where it was not run.
    pub command: Option<CommandOutcome>,
    /// When the guard began.
    pub started_at: Timestamp,
    /// How long it took as a whole.
    pub took_ms: u64,
    /// What was odd.
    pub warnings: Vec<String>,
    /// How many of these were reported before the command ran.
    #[serde(skip)]
    pub told_before: usize,
    /// Why the command was not run, or why the rollback failed.
    pub failure: Option<Failure>,
}

/// One database's backup, and what became of it.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// The database.
    pub database: String,
    /// The backup behind which the command ran.
    pub backup_id: Option<String>,
    /// How old it was, where it was there already.
    pub accepted_age_seconds: Option<i64>,
    /// Why it is pinned; none where `keep_pre_deploy` keeps it.
    pub pin: Option<String>,
    /// What of the database it holds; none where it is all.
    pub selection: Option<SelectionRecord>,
    /// Why the command ran although the backup is held; none where it is not.
    pub allowed_anomaly: Option<String>,
    /// The run that made it, or tried to.
    pub backup: Option<backup::Report>,
    /// The line that restores it.
    pub restore: Option<String>,
    /// The restore that followed the command's failure.
    pub restored: Option<restore::Report>,
}

/// How the command ended.
#[derive(Clone, Debug, Serialize)]
pub struct CommandOutcome {
    /// Its name, without its arguments.
    pub program: String,
    /// Its exit code; none where a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What a shell would tell of it, and pgkeep ends with.
    pub code: u8,
    /// Whether pgkeep was signalled meanwhile.
    pub interrupted: bool,
    /// How long it ran.
    pub took_ms: u64,
}

impl CommandOutcome {
    /// Tells whether it went well.
    pub fn is_success(&self) -> bool {
        self.code == 0
    }

    /// Says how it ended.
    pub fn words(&self) -> String {
        match self.signal {
            Some(signal) => format!("`{}` was ended by signal {signal}", self.program),
            None => format!("`{}` exited with status {}", self.program, self.code),
        }
    }
}

/// One guard under way.
struct Guard<'a> {
    request: &'a Request,
    context: &'a Context,
    observer: &'a dyn Observer,
    report: Report,
}

/// Makes or finds the backups, runs the command, and rolls back where that was asked for.
pub async fn run(request: &Request, context: &Context, observer: &dyn Observer) -> Report {
    let started = context.clock.monotonic();
    let mut guard = Guard {
        request,
        context,
        observer,
        report: Report::new(request, context.clock.now()),
    };
    if let Err(failure) = guard.try_run().await {
        guard.report.failure = Some(failure);
    }
    guard.report.took_ms = context.clock.millis_since(started);
    guard.keep_records().await;
    guard.report
}

impl Report {
    fn new(request: &Request, started_at: Timestamp) -> Self {
        let outcome = |guarded: &Guarded| Outcome {
            database: guarded.backup.name.to_string(),
            ..Outcome::default()
        };
        Self {
            databases: request.guarded.iter().map(outcome).collect(),
            commit: request.commit.clone(),
            command: None,
            started_at,
            took_ms: 0,
            warnings: Vec::new(),
            told_before: 0,
            failure: None,
        }
    }
}

impl Guard<'_> {
    async fn try_run(&mut self) -> Result<()> {
        let request = self.request;
        if request.restores {
            // A backup takes long; what no backup could change is reported before it.
            for guarded in &request.guarded {
                // What only the server can tell of a preset is looked at when the backup is there.
                let gaps = guarded.backup.selection.record();
                gaps.map_or(Ok(()), |gaps| Err(self.is_no_way_back(&gaps.in_words())))?;
                if let Some(limit) = guarded.backup.limits.first() {
                    let words = format!("only some rows of `{}`", limit.table);
                    return Err(self.is_no_way_back(&words));
                }
                let looked = self.check_way_back(guarded, Source::Stdin).await;
                looked.map_err(|failure| self.no_way_back(failure))?;
            }
        }
        for (at, guarded) in request.guarded.iter().enumerate() {
            self.secure(at, guarded).await?;
        }
        for (at, guarded) in request.guarded.iter().enumerate() {
            let gaps = self.report.databases[at].selection.as_ref();
            if let Some(gaps) = gaps.filter(|_| request.restores) {
                return Err(self.is_no_way_back(&gaps.in_words()));
            }
            let source = self.source(at, guarded)?;
            match self.check_way_back(guarded, source).await {
                Err(failure) if request.restores || self.context.stop.is_requested() => {
                    return Err(self.no_way_back(failure));
                }
                Err(failure) => self.report.warnings.push(format!(
                    "a rollback would not work at present: {}",
                    failure.message
                )),
                Ok(()) => {}
            }
        }
        self.tell_warnings();
        let command = self.run_command().await?;
        let goes_back = request.restores && !command.is_success() && !command.interrupted;
        let mut failures = Vec::new();
        for (at, guarded) in request.guarded.iter().enumerate().filter(|_| goes_back) {
            failures.extend(self.restore(at, guarded, &command).await.err());
        }
        match all_of(failures) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Tells everything odd while the command can still be kept from running.
    fn tell_warnings(&mut self) {
        for warning in &self.report.warnings {
            self.observer.note(Event::Warned { warning });
        }
        self.report.told_before = self.report.warnings.len();
    }

    /// Says of whatever came before that the command was not run.
    fn not_run(&self, failure: Failure) -> Failure {
        let message = format!(
            "`{}` was not run: {}",
            self.request.command.label(),
            failure.message
        );
        Failure { message, ..failure }
    }

    fn stopped(&self) -> Failure {
        let what = format!("`{}` was not run", self.request.command.label());
        self.context.stop.failure(&what)
    }

    /// Gives a database its backup: one that is there, or a new one.
    async fn secure(&mut self, at: usize, guarded: &Guarded) -> Result<()> {
        if self.context.stop.is_requested() {
            return Err(self.stopped());
        }
        let request = &guarded.backup;
        if let Some(max_age) = self.request.max_age {
            let accepting = accept::accept(request, max_age, self.context);
            let accepted = tokio::select! {
                accepted = accepting => accepted,
                () = self.context.stop.token().cancelled() => return Err(self.stopped()),
            };
            match accepted {
                Ok(accepted) => {
                    self.report.warnings.extend(accepted.warnings);
                    // A new backup tells it itself.
                    let lost = accepted
                        .manifest
                        .warnings
                        .iter()
                        .filter(|finding| TOLD_AGAIN.contains(&finding.id.as_str()))
                        .map(|finding| finding.message.clone());
                    self.report.warnings.extend(lost);
                    let age = Some(accepted.age_seconds);
                    self.report.databases[at].accepted_age_seconds = age;
                    self.take_note(at, guarded, &accepted.manifest);
                    return Ok(());
                }
                Err(why) => self.observer.note(Event::Making {
                    database: request.name.as_str(),
                    why: &why,
                }),
            }
        }
        self.make(at, guarded).await
    }

    async fn make(&mut self, at: usize, guarded: &Guarded) -> Result<()> {
        let request = &guarded.backup;
        let watching = Named::new(request.name.as_str(), self.observer);
        let mut made = backup::run(request, self.context, &watching).await;
        let failure = made.failure.take();
        let manifest = made.manifest.take().filter(|_| made.stored);
        let is_findable = made.is_findable();
        self.report.databases[at].backup = Some(made);
        match (manifest, failure) {
            (Some(_), Some(failure)) if self.context.stop.is_requested() => {
                Err(self.not_run(failure))
            }
            // The command would run on a database that lost its rows, and nobody said that this is as it should be.
            (Some(_), Some(failure)) if failure.id == ANOMALY => Err(self.anomaly(failure)),
            // What is not found again is no rollback, whatever else failed beside it.
            (Some(_), Some(failure)) if !is_findable => Err(self.not_run(failure)),
            (Some(manifest), failure) => {
                // What failed behind a good backup does not make it worse.
                self.report
                    .warnings
                    .extend(failure.map(|failure| failure.message));
                self.take_note(at, guarded, &manifest);
                Ok(())
            }
            (None, Some(failure)) => Err(self.not_run(failure)),
            (None, None) => {
                let message = "the backup ended without a manifest";
                let failure = Failure::new(Kind::Unexpected, "no_manifest", message);
                Err(self.not_run(failure))
            }
        }
    }

    /// Refuses to run the command behind a backup that is held.
    fn anomaly(&self, failure: Failure) -> Failure {
        let hint = "`--allow-anomaly REASON` runs the command all the same; the reason is on record, and the backup stays held";
        self.not_run(failure).hint(hint)
    }

    fn take_note(&mut self, at: usize, guarded: &Guarded, manifest: &Manifest) {
        let id = &manifest.id;
        // What a preset leaves out is the hosting service's own.
        if let Some(gaps) = guarded.backup.selection.record() {
            let what = gaps.in_words();
            self.report.warnings.push(format!(
                "`{id}` holds {what}: a database that is restored from it would lack the rest"
            ));
        }
        let outcome = &mut self.report.databases[at];
        outcome.backup_id = Some(id.to_string());
        outcome.restore = Some({
            let is_encrypted = manifest.encryption.is_some();
            guarded.line.of(id, &manifest.server.database, is_encrypted)
        });
        outcome.pin.clone_from(&guarded.backup.pin);
        let anomaly = manifest.anomaly.as_ref();
        outcome.allowed_anomaly = anomaly.and_then(|record| record.allowed.clone());
        outcome.selection.clone_from(&manifest.selection);
        self.observer.note(Event::Ready {
            database: &outcome.database,
            id: outcome.backup_id.as_deref().unwrap_or_default(),
            made: outcome.backup.as_ref(),
            accepted_age_seconds: outcome.accepted_age_seconds,
            pin: outcome.pin.as_deref(),
        });
    }

    fn source(&self, at: usize, guarded: &Guarded) -> Result<Source> {
        let id = self.report.databases[at].backup_id.as_deref();
        Ok(Source::Stored {
            storages: guarded.backup.storages.clone(),
            database: None,
            wanted: Wanted::parse(id.unwrap_or_default())?,
        })
    }

    fn restoring(&self, guarded: &Guarded, source: Source) -> restore::Request {
        restore::Request {
            source,
            into: guarded.backup.connection.clone(),
            search: guarded.backup.search.clone(),
            environment: guarded.backup.environment.clone(),
            identities: Arc::default(),
            goal: Goal::Whole,
            options: Options {
                replace: true,
                allow_superuser: self.request.allow_superuser,
                limits: Limits {
                    stall: guarded.backup.stall_timeout,
                    lock_wait: guarded.backup.lock_wait_timeout,
                },
                ..Options::default()
            },
        }
    }

    /// Tells whether the backup could be put back in the database's place.
    async fn check_way_back(&self, guarded: &Guarded, source: Source) -> Result<()> {
        let looked = restore::preflight(&self.restoring(guarded, source), self.context).await;
        match looked {
            Err(_) if self.context.stop.is_requested() => Err(self.stopped()),
            other => other,
        }
    }

    /// A database that is put in place of another must have all of it.
    fn is_no_way_back(&self, holds: &str) -> Failure {
        let message = format!("its backup holds {holds}");
        self.no_way_back(
            Failure::new(Kind::Refused, "partial_guard", message)
                .hint("leave `--on-failure restore` out, or guard with a configuration that backs up the whole database"),
        )
    }

    /// Refuses to run the command where it cannot be rolled back.
    fn no_way_back(&self, failure: Failure) -> Failure {
        if self.context.stop.is_requested() {
            return failure;
        }
        let message = format!("a rollback would not work: {}", failure.message);
        self.not_run(Failure {
            kind: Kind::Refused,
            message,
            ..failure
        })
    }

    /// Runs the command. From here on signals are for it.
    async fn run_command(&mut self) -> Result<CommandOutcome> {
        let command = &self.request.command;
        let label = command.label();
        let Some(mut relay) = self.context.stop.relay() else {
            return Err(self.stopped());
        };
        self.observer.note(Event::Running { command: &label });
        let started = self.context.clock.monotonic();
        let left = command.run(relay.signals()).await.map_err(|error| {
            let message = format!("`{label}` cannot be started: {error}");
            let failure = Failure::new(Kind::NotRunnable, "command_not_started", message);
            match self.backup_ids().as_str() {
                "" => failure,
                ids => failure.and_safe(&format!("the backup is good and stays: {ids}")),
            }
        })?;
        let outcome = CommandOutcome::new(label, left, self.context.clock.millis_since(started));
        self.report.command = Some(outcome.clone());
        Ok(outcome)
    }

    fn backup_ids(&self) -> String {
        let ids: Vec<&str> = self
            .report
            .databases
            .iter()
            .filter_map(|one| one.backup_id.as_deref())
            .collect();
        ids.join(", ")
    }

    /// Puts the backup in the place of what the command left.
    async fn restore(
        &mut self,
        at: usize,
        guarded: &Guarded,
        command: &CommandOutcome,
    ) -> Result<()> {
        let outcome = &self.report.databases[at];
        self.observer.note(Event::RollingBack {
            why: &command.words(),
            id: outcome.backup_id.as_deref().unwrap_or_default(),
        });
        let request = self.restoring(guarded, self.source(at, guarded)?);
        let watching = Named::new(&outcome.database, self.observer);
        let mut restored = restore::run_whole(&request, self.context, &watching).await;
        let failure = restored.failure.take();
        let is_restored = restored.restored;
        self.report
            .warnings
            .extend(restored.warnings.iter().cloned());
        let outcome = &mut self.report.databases[at];
        outcome.restored = Some(restored);
        match failure {
            None => Ok(()),
            // The backup is in its place; what failed is beside it.
            Some(failure) if is_restored => {
                self.report.warnings.push(failure.message);
                Ok(())
            }
            Some(mut failure) => {
                failure.message = format!(
                    "{}, and its database was NOT rolled back: {}",
                    command.words(),
                    failure.message
                );
                let line = outcome.restore.clone().unwrap_or_default();
                Err(failure.hint(format!("the backup is good; to try again: {line}")))
            }
        }
    }

    /// Leaves a record of the guard with each database.
    async fn keep_records(&self) {
        for (guarded, outcome) in self.request.guarded.iter().zip(&self.report.databases) {
            let started_at = self.report.started_at;
            let run = history::run_id(&guarded.backup.name, started_at, self.context);
            let failure = self.report.failure.as_ref();
            let mut record = history::record(run, "guard", started_at, failure, self.context);
            let command = self.report.command.as_ref();
            if let Some(command) = command.filter(|one| failure.is_none() && !one.is_success()) {
                record = record.failed(command.code, "command_failed", &command.words());
            }
            record.trigger = Some(guarded.backup.trigger.as_str().to_owned());
            record.backup_id.clone_from(&outcome.backup_id);
            let commit = self.report.commit.iter();
            let allowed = outcome.allowed_anomaly.iter();
            let reasons: Vec<String> = commit
                .map(|commit| format!("commit {commit}"))
                .chain(allowed.map(|reason| format!("anomaly allowed: {reason}")))
                .collect();
            record.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
            history::keep_record(&guarded.backup.storages, record, self.context).await;
        }
    }
}

impl CommandOutcome {
    fn new(program: String, left: Left, took_ms: u64) -> Self {
        Self {
            program,
            exit_code: left.code,
            signal: left.signal,
            code: left.exit_code(),
            interrupted: left.is_interrupted,
            took_ms,
        }
    }
}

/// Makes one failure of those of several databases: the first decides, and each has its words and its next move.
fn all_of(failures: Vec<Failure>) -> Option<Failure> {
    let mut failures = failures.into_iter();
    let first = failures.next()?;
    Some(failures.fold(first, |mut first, other| {
        first.details.push(other.message);
        first.details.extend(other.details);
        first.causes.extend(other.causes);
        first.hints.extend(other.hints);
        first
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_that_was_not_put_back_is_told() {
        let failure = |name: &str| {
            Failure::new(Kind::Source, "x", format!("`{name}` was NOT put back")).hint(name)
        };
        assert!(all_of(Vec::new()).is_none());
        let told = all_of(vec![failure("shop"), failure("blog")]).unwrap();
        assert_eq!(told.message, "`shop` was NOT put back");
        assert_eq!(told.details, ["`blog` was NOT put back"]);
        assert_eq!(told.hints, ["shop", "blog"]);
    }

    #[test]
    fn the_line_can_be_pasted() {
        let id: BackupId = "shop-20260102T030405Z-7f3a".parse().unwrap();
        let line = |into: Option<&str>, database: &str| {
            let line = RestoreLine {
                program: "pgkeep -c /etc/x.yaml".into(),
                into: into.map(str::to_owned),
                flags: " --storage /b".into(),
            }
            .of(&id, database, false);
            let start = format!("pgkeep -c /etc/x.yaml restore {id} --into=");
            let rest = line.strip_prefix(&start).unwrap();
            let into = rest.strip_suffix(" --replace --storage /b").unwrap();
            into.to_owned()
        };
        let url = "\"$DATABASE_URL\"";
        assert_eq!(line(None, "shop"), "shop");
        assert_eq!(line(None, "my shop"), "'my shop'");
        assert_eq!(line(None, "-x"), "-x");
        assert_eq!(line(None, "a=b"), url);
        assert_eq!(line(None, ""), url);
        assert_eq!(line(Some(url), "shop"), url);
    }
}

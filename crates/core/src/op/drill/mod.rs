//! `drill`: restores a backup for real, compares every table, asks what must hold, and drops what it made.
//!
//! A drill that passed is written beside the backup; one that failed is a failure of this run and never by itself a
//! reason to remove the backup.

mod assertions;
mod notice;
mod url;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::event::{Event, Observer};
use super::keys::proof;
use super::lock::{Hold, LockRequest, LockSettings};
use super::notices;
use super::restore::{self, Ended, Goal, Options, SQL_FAILED, Source, extensions, keep_record};
use super::slot;
use super::stored::{NamedStorage, Wanted};
use crate::context::{Context, Late};
use crate::copies::Stored;
use crate::notify::Delivery;
use crate::postgres::databases::Databases;
use crate::postgres::environment::Environment;
use crate::postgres::error::Error;
use crate::postgres::programs::Search;
use crate::postgres::psql::Psql;
use crate::postgres::scratch::{ScratchOptions, ScratchServer};
use pgkeep_model::connection::Connection;
use pgkeep_model::drill::Assertion;
use pgkeep_model::failure::{self, Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::{Leased, Part};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::origin::Origin;

pub use assertions::AssertionOutcome;

/// What the run is called in leases and records.
const VERB: &str = "drill";

/// How scratch databases are called; the sweep touches no others.
const PREFIX: &str = "pgkeep_drill_";

/// How the comment of a scratch database begins; the time stands behind it.
const TAG: &str = "pgkeep drill since ";

/// A scratch database of this age was left behind by a drill that was killed.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(24);

/// Largest note that is read to be replaced.
const MAX_NOTE_BYTES: u64 = 1 << 20;

/// What to drill.
pub struct Request {
    /// Where to look.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// Which backup.
    pub wanted: Wanted,
    /// Server to restore into; a throw-away one of our own where none is named.
    pub server: Option<Connection>,
    /// Run the dump's SQL with a superuser's powers.
    pub allow_superuser: bool,
    /// Where to look for programs, the server's among them.
    pub search: Search,
    /// What programs may see of the environment.
    pub environment: Environment,
    /// How long the restore may stand still.
    pub limits: restore::Limits,
    /// Extensions that the server may lack.
    pub skip_extensions: Vec<String>,
    /// What must hold.
    pub assertions: Vec<Assertion>,
    /// Where the run comes from.
    pub origin: Origin,
    /// How it keeps other drills of the database away; a command lets others drill beside it.
    pub lock: Option<LockSettings>,
}

/// How a drill ended. Text, JSON, page and exit code come from this value.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup.
    pub backup_id: Option<String>,
    /// Whether the backup came back and everything held.
    pub passed: bool,
    /// Where it was restored: `a throw-away server`, or the server's label.
    pub server: String,
    /// The server's version.
    pub server_version: Option<String>,
    /// Extensions that were left out, and with them what depends on their data.
    pub skipped_extensions: Vec<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took as a whole.
    pub took_ms: u64,
    /// The restore itself, with its comparison.
    pub restore: Option<restore::Report>,
    /// What must hold, and whether it does.
    pub assertions: Vec<AssertionOutcome>,
    /// Storages in which the drill was noted.
    pub noted_in: Vec<String>,
    /// What was odd.
    pub warnings: Vec<String>,
    /// Who was notified, and whether it arrived.
    pub notices: Vec<Delivery>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// One drill under way.
struct Drill<'a> {
    request: &'a Request,
    context: Context,
    observer: &'a dyn Observer,
    /// What keeps other drills away, where they are kept away.
    hold: Option<Hold>,
    report: Report,
    no_stop: Late,
    /// What is not good beside the copy that was restored.
    not_good: Option<Failure>,
}

/// Drills.
pub async fn run(request: &Request, context: &Context, observer: &dyn Observer) -> Report {
    let started = context.clock.monotonic();
    let mut drill = Drill {
        request,
        context: context.clone(),
        observer,
        hold: None,
        report: Report::new(request, context.clock.now()),
        no_stop: context.stop.late(),
        not_good: None,
    };
    if let Err(failure) = drill.run_alone().await {
        drill.report.failure = Some(failure);
    }
    let mut report = drill.report;
    report.took_ms = context.clock.millis_since(started);
    if slot::is_left_to_others(&request.origin, report.failure.as_ref()) {
        return report;
    }
    let notice = notice::of(request, &report, context.clock.now());
    report.notices = notices::tell(&notice, context).await;
    report
        .warnings
        .extend(notices::undelivered(&report.notices));
    notices::settle(
        &mut report.failure,
        &report.notices,
        "the drill passed",
        context,
    );
    let ended = Ended {
        backup_id: report.backup_id.as_deref(),
        started_at: report.started_at,
        rows: report.restore.as_ref().map(|restore| restore.rows),
        target: &report.server,
        notices: &report.notices,
        failure: report.failure.as_ref(),
        origin: Some(&request.origin),
        recovery_ms: report.passed.then(|| report.recovery_ms()),
    };
    keep_record(VERB, &request.storages, ended, context).await;
    report
}

impl Report {
    fn new(request: &Request, started_at: Timestamp) -> Self {
        Self {
            backup_id: None,
            passed: false,
            server: request
                .server
                .as_ref()
                .map_or_else(|| "a throw-away server".to_owned(), Connection::label),
            server_version: None,
            skipped_extensions: Vec::new(),
            started_at,
            took_ms: 0,
            restore: None,
            assertions: Vec::new(),
            noted_in: Vec::new(),
            warnings: Vec::new(),
            notices: Vec::new(),
            failure: None,
        }
    }

    /// Returns how long it took until the data was there again: the recovery time.
    pub fn recovery_ms(&self) -> u64 {
        self.restore
            .as_ref()
            .map_or(0, |restore| restore.restore_ms)
    }
}

fn is_stop(failure: &Failure) -> bool {
    matches!(failure.kind, Kind::Interrupted | Kind::Terminated)
}

/// Sums up several drills: one that failed never hides the others, and the first that failed decides.
pub fn overall(reports: &[Report]) -> Option<Failure> {
    let all = reports.len();
    let failed = reports.iter().filter_map(|report| report.failure.as_ref());
    let message = |failed| format!("{failed} of {all} drills failed");
    failure::overall(
        &failed.collect::<Vec<_>>(),
        all,
        "some_drills_failed",
        message,
    )
}

impl Drill<'_> {
    fn stop(&self) -> &CancellationToken {
        self.context.stop.token()
    }

    fn what(&self) -> String {
        let id = self
            .report
            .backup_id
            .as_deref()
            .unwrap_or("the latest backup");
        format!("drill of `{id}`")
    }

    fn failed(&self, error: &Error) -> Failure {
        if self.context.stop.is_requested() {
            self.stopped()
        } else {
            error.to_failure(&self.what(), "the backup was not changed")
        }
    }

    fn stopped(&self) -> Failure {
        let failure = self.context.stop.failure(&self.what());
        failure.and_safe("everything that it made was removed")
    }

    /// Drills while no other drill of a server does, where somebody asks for that.
    async fn run_alone(&mut self) -> Result<()> {
        let (Some(database), Some(settings)) = (&self.request.database, &self.request.lock) else {
            return self.try_run().await;
        };
        let observer = self.observer;
        let lock = LockRequest {
            database,
            storages: &self.request.storages,
            verb: VERB,
            leased: Leased::Drill,
            origin: &self.request.origin,
            safe: "no backup was changed",
            settings,
            on_wait: &|text| observer.note(Event::Waiting { text }),
        };
        let hold = slot::acquire(&lock, &self.context).await?;
        let sooner = self.context.stop.or(&hold.lost());
        let within = self.context.stopped_by(&sooner);
        let whole = std::mem::replace(&mut self.context, within);
        self.hold = Some(hold);
        let mut done = self.try_run().await;
        self.context = whole;
        let Some(hold) = self.hold.take() else {
            return done;
        };
        if done.as_ref().is_err_and(is_stop)
            && let Some(loss) = hold.loss()
        {
            done = Err(loss);
        }
        let mut odd = hold.warnings.clone();
        odd.extend(hold.release().await);
        let words = odd.into_iter().map(|finding| finding.message);
        self.report.warnings.extend(words);
        done
    }

    async fn try_run(&mut self) -> Result<()> {
        let Request {
            storages,
            database,
            wanted,
            ..
        } = self.request;
        let now = self.context.clock.now();
        let opening = Stored::open(storages, database.clone(), wanted, now);
        let stored = tokio::select! {
            stored = opening => stored?,
            () = self.context.stop.token().cancelled() => return Err(self.stopped()),
        };
        self.report.backup_id = Some(stored.manifest.id.to_string());
        self.report.warnings.extend(stored.warnings());
        stored.unlock(&self.what(), &self.context.stop).await?;
        match &self.request.server {
            Some(server) => {
                self.sweep(server).await?;
                let name = self.random_name();
                self.drill(&stored.manifest, server, &name).await?;
            }
            None => self.on_own_server(&stored.manifest).await?,
        }
        if let Some(hold) = &self.hold
            && let Some(loss) = hold.loss_now().await
        {
            return Err(loss);
        }
        self.report.passed = true;
        proof::leave(&stored, "drill", &self.context).await;
        self.note(&stored).await?;
        match self.not_good.take() {
            Some(failure) => Err(failure),
            None => stored.after_good(&format!("{} passed", self.what()), &[]),
        }
    }

    /// The server is gone with the drill, whichever way that ends.
    async fn on_own_server(&mut self, manifest: &Manifest) -> Result<()> {
        let name = self.random_name();
        let server = self
            .start_server(manifest, &name)
            .await
            .map_err(|error| self.failed(&error))?;
        let connection = server.connection().clone();
        let drilled = self.drill(manifest, &connection, &name).await;
        if let Err(error) = server.stop().await {
            self.report.warnings.push(format!(
                "the throw-away server could not be removed: {error}"
            ));
        }
        drilled
    }

    /// Starts a server of the dump's own major version, or else the newest that is newer, for a database of this name.
    async fn start_server(
        &self,
        manifest: &Manifest,
        name: &str,
    ) -> std::result::Result<ScratchServer, Error> {
        let mut options = ScratchOptions::new(self.request.search.clone());
        let names: Vec<String> = manifest
            .server
            .extensions
            .iter()
            .map(|extension| extension.name.clone())
            .collect();
        let preload = extensions::to_preload(&names, &self.request.skip_extensions);
        let settings = settings_for(manifest.tables.len(), &preload, name);
        (options.preload, options.settings) = (preload, settings);
        // What the dump brings runs inside the server, and must not log in as its superuser.
        options.password = Some(SecretString::from(self.context.clock.hex(16)));
        options.major = Some(manifest.server.version_num / 10_000);
        ScratchServer::start(&options, &self.request.environment, self.stop()).await
    }

    /// Sixteen hex digits by chance: two drills at once must not meet.
    fn random_name(&self) -> String {
        format!("{PREFIX}{}", self.context.clock.hex(4))
    }

    async fn drill(&mut self, manifest: &Manifest, server: &Connection, name: &str) -> Result<()> {
        let bad = |error| Error::new(crate::postgres::Reason::Connection(error));
        let scratch = server
            .with_database(name)
            .map_err(|error| self.failed(&bad(error)))?;
        let restored = self.restore(manifest, &scratch, server).await;
        let reader = self
            .report
            .restore
            .as_ref()
            .and_then(|restore| restore.reader.clone());
        let asked = match restored {
            // A view may call what the dump brought.
            Ok(()) => self.ask(&reader.unwrap_or(scratch)).await,
            Err(failure) => Err(failure),
        };
        self.clean_up(server, name).await;
        asked
    }

    async fn restore(
        &mut self,
        manifest: &Manifest,
        scratch: &Connection,
        server: &Connection,
    ) -> Result<()> {
        let request = restore::Request {
            source: Source::Stored {
                storages: self.request.storages.clone(),
                database: None,
                wanted: Wanted::Id(manifest.id.clone()),
            },
            into: scratch.clone(),
            search: self.request.search.clone(),
            environment: self.request.environment.clone(),
            identities: Arc::default(),
            goal: Goal::Whole,
            options: Options {
                create_missing_roles: true,
                allow_superuser: self.request.allow_superuser,
                is_scratch: true,
                limits: self.request.limits,
                force_locale: true,
                no_database_settings: true,
                skip_extensions: self.request.skip_extensions.clone(),
                // It shows that the rows come back, not where they lie.
                no_tablespaces: true,
                tag: Some(format!("{TAG}{}", self.report.started_at)),
                home: server.database_name().map(str::to_owned),
                ..Options::default()
            },
        };
        let mut report = restore::carry_out(&request, &self.context, self.observer).await;
        let failure = report.failure.take();
        self.report.warnings.append(&mut report.warnings);
        self.report
            .server_version
            .clone_from(&report.server_version);
        self.report
            .skipped_extensions
            .clone_from(&report.skipped_extensions);
        self.report.restore = Some(report);
        match failure {
            Some(mut failure) if failure.kind == Kind::AfterGood => {
                failure.message = format!("{} passed: {}", self.what(), failure.message);
                self.not_good = Some(failure);
                Ok(())
            }
            Some(failure) => Err(self.as_drill(failure)),
            None => Ok(()),
        }
    }

    /// Damaged bytes, another content and a statement that the server refuses are a verdict on the backup. Anything
    /// else is trouble with what the drill needs, and keeps its own code.
    fn as_drill(&self, mut failure: Failure) -> Failure {
        if is_stop(&failure) {
            return self.stopped();
        }
        let is_verdict =
            matches!(failure.kind, Kind::Damaged | Kind::Proof) || failure.id == SQL_FAILED;
        failure.message = if is_verdict {
            format!("{} failed: {}", self.what(), failure.message)
        } else {
            format!(
                "{} could not judge the backup: {}",
                self.what(),
                failure.message
            )
        };
        if is_verdict {
            failure.kind = Kind::Damaged;
        }
        for hint in &mut failure.hints {
            let both = "`--allow-superuser` or `drill.allow_superuser: true`";
            *hint = hint.replace("`--allow-superuser`", both);
        }
        for hint in &mut failure.hints {
            *hint = hint.replace("restores without", "drills without");
        }
        if failure.id.starts_with("extension_") || failure.id == "target_not_ready" {
            failure = failure.hint(
                "`drill.skip_extensions` drills without an extension, and the report says so",
            );
        }
        failure
    }

    async fn ask(&mut self, scratch: &Connection) -> Result<()> {
        for assertion in &self.request.assertions {
            let outcome = assertions::ask(assertion, self.request, scratch, self.stop()).await;
            if self.context.stop.is_requested() {
                return Err(self.stopped());
            }
            let outcome = outcome.map_err(|error| {
                let doing = format!("asking `{}`", assertion.name);
                self.as_drill(error.to_failure(&doing, "the backup was not changed"))
            })?;
            self.report.assertions.push(outcome);
        }
        let failed: Vec<String> = self
            .report
            .assertions
            .iter()
            .filter(|outcome| !outcome.passed)
            .map(|outcome| {
                format!(
                    "{}: {} was expected, {}",
                    outcome.name, outcome.expected, outcome.found
                )
            })
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} failed: every table was restored, but {} of {} assertions failed; the backup was not changed",
            self.what(),
            failed.len(),
            self.report.assertions.len()
        );
        Err(Failure::new(Kind::Damaged, "assertion_failed", message).with_details(failed))
    }

    /// Drops database and roles, whatever happened; on a server of our own they go with it.
    async fn clean_up(&mut self, server: &Connection, name: &str) {
        if self.request.server.is_none() {
            return;
        }
        let restore = self.report.restore.as_ref();
        let roles = restore.map_or_else(Vec::new, |restore| {
            let made = restore.created_roles.iter();
            made.chain(&restore.restorer).cloned().collect()
        });
        let Ok(databases) = self.databases(server).await else {
            self.report.warnings.push(format!(
                "the scratch database `{name}` could not be dropped"
            ));
            return;
        };
        if let Err(error) = databases.drop_database(name, &self.no_stop).await {
            let warning = format!("the scratch database `{name}` could not be dropped: {error}");
            self.report.warnings.push(warning);
        }
        for role in roles {
            if let Err(error) = restore::drop_role(&databases, &role, &self.no_stop).await {
                self.report.warnings.push(format!(
                    "the role `{role}` was made and could not be dropped: {error}"
                ));
            }
        }
    }

    async fn databases(&self, server: &Connection) -> std::result::Result<Databases, Error> {
        let Request {
            search,
            environment,
            ..
        } = self.request;
        let found = search.find(environment, &self.no_stop).await;
        Ok(Databases::new(Psql::new(
            found.newest()?,
            environment,
            server,
        )))
    }

    /// Drops scratch databases of drills that were killed.
    async fn sweep(&mut self, server: &Connection) -> Result<()> {
        let databases = self
            .databases(server)
            .await
            .map_err(|error| self.failed(&error))?;
        let found = databases.with_comments(PREFIX, self.stop()).await;
        for (name, comment) in found.map_err(|error| self.failed(&error))? {
            if is_left_behind(&name, &comment, self.report.started_at) {
                match databases.drop_database(&name, self.stop()).await {
                    Ok(()) => self.report.warnings.push(format!(
                        "`{name}`, which a killed drill left behind, was dropped"
                    )),
                    Err(error) => self.report.warnings.push(format!(
                        "`{name}`, which a killed drill left behind, could not be dropped: {error}"
                    )),
                }
            }
        }
        // Their databases are gone first: a role that owns something stays.
        let swept = restore::leftover::sweep_roles(&databases, &*self.context.clock, self.stop())
            .await
            .map_err(|error| self.failed(&error))?;
        self.report.warnings.extend(swept);
        Ok(())
    }

    /// Notes the drill beside the copy that was restored: nothing was proven of the others.
    async fn note(&mut self, stored: &Stored) -> Result<()> {
        let note = self.note_text();
        let key = stored.backup.place.key(Part::Drill, "");
        let mut failed = Vec::new();
        for (&at, copy) in &stored.backup.copies {
            if !copy.is_good() {
                continue;
            }
            let named = &stored.listing.storages[at];
            let restore = self.report.restore.as_ref();
            let restored_from = restore.and_then(|restore| restore.storage.as_ref());
            if restored_from != Some(&named.name) {
                continue;
            }
            match replace(named, &key, &note).await {
                Ok(()) => self.report.noted_in.push(named.name.clone()),
                Err(error) => failed.push(format!("{}: {error}", named.name)),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} passed, but this could not be recorded in every storage",
            self.what()
        );
        Err(Failure::new(Kind::AfterGood, "drill_not_noted", message).with_details(failed))
    }

    fn note_text(&self) -> Bytes {
        let report = &self.report;
        let restore = report.restore.as_ref();
        let note = json!({
            "format": 1,
            "id": report.backup_id,
            "passed_at": self.context.clock.now(),
            "started_at": report.started_at,
            "recovery_ms": report.recovery_ms(),
            "server_version": report.server_version,
            "pgkeep": env!("CARGO_PKG_VERSION"),
            "tables": restore.map_or(0, |restore| restore.tables.len()),
            "rows": restore.map_or(0, |restore| restore.rows),
            "assertions": report.assertions.len(),
            "skipped_extensions": report.skipped_extensions,
        });
        let mut bytes =
            serde_json::to_vec_pretty(&note).expect("a note holds only JSON's own types");
        bytes.push(b'\n');
        bytes.into()
    }
}

/// Settings of a server of our own that takes a dump of so many tables into a database of this name.
///
/// Its table of locks has room for every table of the comparison, which `pg_dump` locks at once; the jobs of `pg_cron`
/// do not run in it.
fn settings_for(tables: usize, preload: &[String], name: &str) -> Vec<String> {
    let locks = LEAST_LOCKS + tables * LOCKS_OF_A_TABLE / SESSIONS;
    let mut settings = vec![format!("max_locks_per_transaction={locks}")];
    if preload.iter().any(|library| library == "pg_cron") {
        settings.extend([
            format!("cron.database_name={name}"),
            "cron.launch_active_jobs=off".to_owned(),
            "cron.max_running_jobs=0".to_owned(),
        ]);
    }
    settings
}

/// The server's own number of locks for each session, of which it has a hundred by default.
const LEAST_LOCKS: usize = 64;
const SESSIONS: usize = 100;

/// A table, its primary key and what holds its long values.
const LOCKS_OF_A_TABLE: usize = 4;

/// The last drill that passed takes the place of the one before.
async fn replace(named: &NamedStorage, key: &str, bytes: &Bytes) -> pgkeep_storage::Result<()> {
    match named.storage.put(key, bytes.clone()).await {
        // The note is never gone in between: retention goes by its being there. One that cannot be replaced stays, and
        // the record of the run tells of the newer drill.
        Err(pgkeep_storage::Error::Exists(_)) => {
            let (_, version) = named.storage.get_versioned(key, MAX_NOTE_BYTES).await?;
            match named.storage.replace(key, bytes.clone(), &version).await {
                Ok(_)
                | Err(
                    pgkeep_storage::Error::Unconditional(_)
                    | pgkeep_storage::Error::Retained { .. },
                ) => Ok(()),
                Err(error) => Err(error),
            }
        }
        other => other,
    }
}

/// Only what carries our name and our comment, and has for a day.
fn is_left_behind(name: &str, comment: &str, now: Timestamp) -> bool {
    let is_ours = name
        .strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit()));
    let since = comment
        .strip_prefix(TAG)
        .and_then(|text| text.parse::<Timestamp>().ok());
    is_ours && since.is_some_and(|since| now.duration_since(since) > LEFT_BEHIND)
}

/// How long one assertion may take.
const ASSERTION_TIMEOUT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_our_own_has_room_for_every_table() {
        let settings = |tables, preload: &[&str]| {
            let preload: Vec<String> = preload.iter().map(|&name| name.to_owned()).collect();
            settings_for(tables, &preload, "pgkeep_drill_1")
        };
        assert_eq!(settings(3, &["pgaudit"]), ["max_locks_per_transaction=64"]);
        assert_eq!(settings(20_000, &[]), ["max_locks_per_transaction=864"]);
        let cron = settings(3, &["pg_cron"]);
        assert!(cron.contains(&"cron.database_name=pgkeep_drill_1".to_owned()));
        assert!(cron.contains(&"cron.launch_active_jobs=off".to_owned()));
    }

    #[test]
    fn sweeps_only_its_own_and_only_old_ones() {
        let now: Timestamp = "2026-01-03T00:00:00Z".parse().unwrap();
        let old = "pgkeep drill since 2026-01-01T00:00:00Z";
        let name = "pgkeep_drill_0123456789abcdef";
        assert!(is_left_behind(name, old, now));
        assert!(!is_left_behind(
            name,
            "pgkeep drill since 2026-01-02T12:00:00Z",
            now
        ));
        assert!(!is_left_behind(name, "", now));
        assert!(!is_left_behind(name, "pgkeep drill since yesterday", now));
        assert!(!is_left_behind("pgkeep_drill_mine", old, now));
        assert!(!is_left_behind("shop", old, now));
    }
}

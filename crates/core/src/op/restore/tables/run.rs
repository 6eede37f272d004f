//! One restore of single tables from the first question to the COMMIT, and how it is undone.

mod carry_out;
mod target;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::target::Site;
use super::input::{Entry, Proven, Tables, encoding, prove, structure};
use super::{Report, Restored};
use crate::context::{Context, Late};
use crate::copies::{Ranged, Stored};
use crate::op::event::{Event, Observer};
use crate::op::keys::proof;
use crate::op::restore::preflight::Needs;
use crate::op::restore::stall::Pulse;
use crate::op::restore::{Chosen, Request, Source};
use crate::postgres::error::Error;
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::TableName;
use pgkeep_model::nearest::did_you_mean;
use pgkeep_model::restore::compare::TableOutcome;
use pgkeep_model::scan::TextEncoding;
use pgkeep_model::single::{Plan, Selection, Structure};

/// What the names of our sessions begin with.
const APPLICATION: &str = "pgkeep-restore-";

/// What is safe where nothing was begun.
const UNTOUCHED: &str = "nothing was changed";

/// One restore of single tables under way.
pub(in crate::op::restore) struct Run<'a> {
    request: &'a Request,
    chosen: &'a Chosen,
    context: &'a Context,
    observer: &'a dyn Observer,
    report: Report,
    /// For what must be done even when the run was stopped.
    no_stop: Late,
    /// What the target needs, where the server refused a statement.
    unknown: Vec<String>,
    extensions: Vec<String>,
    /// Whether a plain role restores for a superuser.
    plain_role_restores: bool,
    /// What moves, for the watchdog.
    pulse: Arc<Pulse>,
}

/// Where the rows come from.
enum Origin<'a> {
    Copy(&'a Stored, usize, Ranged<'a>),
    File(&'a std::path::Path),
}

/// What is restored, decided.
struct Job<'a> {
    origin: Origin<'a>,
    selection: &'a Selection<'a>,
    plan: Plan,
    /// Each table with its name in the target.
    entries: Vec<(Entry, TableName)>,
    encoding: TextEncoding,
    site: Site,
}

impl<'a> Run<'a> {
    pub(in crate::op::restore) fn new(
        request: &'a Request,
        chosen: &'a Chosen,
        context: &'a Context,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            report: Report {
                backup_id: None,
                source: request.source.words(),
                storage: None,
                target: request.into.label(),
                dry_run: request.options.dry_run,
                restored: false,
                created: false,
                compared: false,
                tables: Vec::new(),
                rows: 0,
                besides: Vec::new(),
                left_out: Vec::new(),
                created_roles: Vec::new(),
                read_bytes: 0,
                server_version: None,
                started_at: context.clock.now(),
                took_ms: 0,
                warnings: Vec::new(),
                notices: Vec::new(),
                failure: None,
                is_unsure: false,
            },
            request,
            chosen,
            context,
            observer,
            no_stop: context.stop.late(),
            unknown: Vec::new(),
            extensions: Vec::new(),
            plain_role_restores: false,
            pulse: Arc::new(Pulse::default()),
        }
    }

    pub(in crate::op::restore) async fn run(mut self) -> Report {
        let started = self.context.clock.monotonic();
        let done = match &self.request.source {
            Source::Stored { .. } => self.restore_backup().await,
            Source::File(path) => self.restore_file(path).await,
            Source::Stdin => Err(pipe_is_read_once()),
        };
        self.report.failure = done.err();
        let is_good = |failure: &Failure| failure.kind == Kind::AfterGood;
        if !self.report.restored
            && self
                .report
                .failure
                .as_ref()
                .is_some_and(|failure| !is_good(failure))
        {
            self.report.created_roles.clear();
        }
        self.report.took_ms = self.context.clock.millis_since(started);
        self.report
    }

    fn doing(&self) -> String {
        format!("restoring tables into `{}`", self.report.target)
    }

    fn what(&self) -> String {
        format!("{} failed", self.doing())
    }

    fn stop(&self) -> &CancellationToken {
        self.context.stop.token()
    }

    fn stopped(&self, safe: &str) -> Failure {
        self.stopped_bare().and_safe(safe)
    }

    /// It does not yet say what is safe.
    fn stopped_bare(&self) -> Failure {
        self.context.stop.failure(&self.doing())
    }

    /// A failure in front of the first change.
    fn untouched(&self, failure: Failure) -> Failure {
        if self.context.stop.is_requested() {
            self.stopped(UNTOUCHED)
        } else {
            with_safe(failure, UNTOUCHED)
        }
    }

    fn of_error(&self, error: &Error) -> Failure {
        let mut failure = error.to_failure(&self.doing(), "");
        failure.message = failure.message.trim_end_matches("; ").to_owned();
        failure
    }

    async fn restore_backup(&mut self) -> Result<()> {
        let Source::Stored {
            storages,
            database,
            wanted,
        } = &self.request.source
        else {
            return Ok(());
        };
        let now = self.context.clock.now();
        let stored = tokio::select! {
            stored = Stored::open(storages, database.clone(), wanted, now) => stored?,
            () = self.stop().cancelled() => return Err(self.stopped(UNTOUCHED)),
        };
        self.report.backup_id = Some(stored.manifest.id.to_string());
        self.report.warnings.extend(stored.warnings());
        let unlocked = stored.unlock(&self.what(), &self.context.stop).await;
        unlocked.map_err(|failure| self.untouched(failure))?;
        let (what, mut bad_copies) = (self.what(), Vec::new());
        let restored = stored
            .try_copies(&what, &mut bad_copies, async |at| {
                self.restore_copy(&stored, at).await
            })
            .await;
        for message in &bad_copies {
            let warning = format!("trying another copy: {message}");
            self.report.warnings.push(warning);
        }
        match restored {
            Ok(()) if !self.request.options.dry_run => {
                proof::leave(&stored, "restore", self.context).await;
                stored.after_good("the tables are restored", &bad_copies)
            }
            Ok(()) => stored.after_good("the tables are restored", &bad_copies),
            Err(failure) => Err(stored.unless_removed(&what, failure).await),
        }
    }

    async fn restore_copy(&mut self, stored: &Stored, at: usize) -> Result<()> {
        let manifest = &stored.manifest;
        let stop = self.context.stop.clone();
        self.report.storage = Some(stored.storage_name(at).to_owned());
        let (what, cancelled) = (self.what(), self.stop().clone());
        let reading = async {
            let ranged = Ranged::open(stored, at, &what, stop).await?;
            let read = structure(&ranged, manifest).await?;
            Ok((ranged, read))
        };
        let read = tokio::select! {
            read = reading => read,
            () = cancelled.cancelled() => return Err(self.stopped(UNTOUCHED)),
        };
        let (ranged, read) = read.map_err(|failure| self.untouched(failure))?;
        self.report.read_bytes = read.read_bytes;
        if !read.is_proven {
            self.report.warnings.push(unproven(manifest));
        }
        let needs = Needs::of_manifest(manifest);
        let name = manifest.dump.client_encoding.as_deref();
        self.bring(
            Origin::Copy(stored, at, ranged),
            &read.structure,
            Tables::Backup(manifest),
            encoding(name),
            needs,
        )
        .await
    }

    async fn restore_file(&mut self, path: &std::path::Path) -> Result<()> {
        let progress = Arc::new(Progress::default());
        self.observer.note(Event::Reading {
            progress: &progress,
        });
        let accept = self.request.options.accept_no_end_marker;
        let (stop, path) = (self.context.stop.clone(), path.to_owned());
        let identities = Arc::clone(&self.request.identities);
        // It ends with the file, or with the wish to stop.
        let proving = tokio::task::spawn_blocking(move || {
            prove(&path, &identities, accept, &stop, &progress)
        });
        let proven = tokio::select! {
            proven = proving => proven.expect("reading does not panic"),
            () = self.stop().cancelled() => return Err(self.stopped(UNTOUCHED)),
        };
        self.observer.note(Event::Ended);
        let Proven {
            path,
            scan,
            structure,
        } = proven.map_err(|failure| self.untouched(failure))?;
        let tables = Tables::File(&scan);
        let encoding = encoding(scan.client_encoding.as_deref());
        let needs = Needs::of_scan(&scan);
        self.bring(Origin::File(&path), &structure, tables, encoding, needs)
            .await
    }

    async fn bring(
        &mut self,
        origin: Origin<'_>,
        structure: &Structure,
        tables: Tables<'_>,
        encoding: TextEncoding,
        needs: Needs,
    ) -> Result<()> {
        let named = self.named(structure, &tables)?;
        let selection = Selection::new(structure, &named, &self.chosen.schema_map);
        let entries = self.chosen(&selection, &tables)?;
        let mut site = self
            .site(needs)
            .await
            .map_err(|failure| self.untouched(failure))?;
        let there = self.there(&selection, &site).await?;
        let plan = selection.plan(&there);
        self.look_at_text(&plan, &mut site)?;
        self.refuse(&selection, &there, &site)?;
        self.tell(&plan, &entries);
        self.unknown = plan.unknown.iter().cloned().collect();
        self.extensions = site.extensions();
        let mut job = Job {
            origin,
            selection: &selection,
            plan,
            entries,
            encoding,
            site,
        };
        if job.site.exists || !self.request.options.dry_run {
            self.find_restorer(&mut job.site)
                .await
                .map_err(|failure| self.untouched(failure))?;
            self.plain_role_restores = job.site.restorer.is_some();
            let done = self.carry_out(&job).await;
            self.drop_restorer(&job.site).await;
            done
        } else {
            // What would be made cannot be tried in a database that is not there.

            self.report.created_roles = job.site.missing_roles.clone();
            self.report.warnings.push(
                "the database does not exist and would be created; nothing was tried".to_owned(),
            );
            Ok(())
        }
    }

    /// Takes note of what is planned.
    fn tell(&mut self, plan: &Plan, entries: &[(Entry, TableName)]) {
        self.report.besides.clone_from(&plan.besides);
        self.report.left_out.clone_from(&plan.left_out);
        for left in &plan.left_out {
            let warning = format!("`{}`: {} is left out: {}", left.table, left.what, left.why);
            if !self.report.warnings.contains(&warning) {
                self.report.warnings.push(warning);
            }
        }
        self.report.rows = entries
            .iter()
            .filter_map(|(entry, _)| entry.expected.rows)
            .sum();
        let restored = entries.iter().map(|(entry, into)| Restored {
            into: into.to_string(),
            outcome: TableOutcome::new(&entry.expected),
        });
        self.report.tables = restored.collect();
    }

    /// Finds each table that was named; the dump must make it.
    fn named(&self, structure: &Structure, tables: &Tables<'_>) -> Result<Vec<TableName>> {
        let made: Vec<&TableName> = structure.tables().collect();
        let mut named = Vec::new();
        for name in &self.chosen.tables {
            let full = TableName::new(name.schema_or_public(), name.name.clone());
            if made.contains(&&full) {
                named.push(full);
                continue;
            }
            let what = self.what();
            if tables.has(&full) {
                let message = format!(
                    "{what}: `{}` has rows of `{name}`, but no CREATE TABLE; {UNTOUCHED}",
                    self.report.source
                );
                return Err(Failure::new(Kind::NotFound, "no_structure", message)
                    .hint("`--data-only` fills a table that already exists"));
            }
            let known: Vec<String> = made.iter().map(ToString::to_string).collect();
            let near = did_you_mean(&full.to_string(), known.iter().map(String::as_str));
            let message = format!(
                "{what}: `{}` has no table `{name}`{near}; {UNTOUCHED}",
                self.report.source
            );
            return Err(Failure::new(Kind::NotFound, "no_such_table", message));
        }
        Ok(named)
    }

    /// Pairs the tables that come back with their rows.
    fn chosen(
        &mut self,
        selection: &Selection<'_>,
        tables: &Tables<'_>,
    ) -> Result<Vec<(Entry, TableName)>> {
        let mut chosen = Vec::new();
        for entry in tables.entries(|name| selection.has_table(name)) {
            let name = &entry.expected.name;
            if entry.expected.rows.is_some() && entry.expected.digest.is_none() {
                let message = format!(
                    "{}: the rows of `{name}` are INSERT statements, and single tables can only be restored from \
                     COPY; {UNTOUCHED}",
                    self.what()
                );
                return Err(Failure::new(Kind::Usage, "rows_are_inserts", message).hint(
                    "`pgkeep restore` without `--table` restores the whole dump into a new database",
                ));
            }
            let is_bare = entry.expected.rows.is_none()
                && entry.expected.kind.is_some_and(|kind| kind.has_rows());
            if is_bare {
                let warning = format!("`{name}`: the dump holds no rows of it, only its structure");
                self.report.warnings.push(warning);
            }
            let into = selection.target(name);
            chosen.push((entry, into));
        }
        Ok(chosen)
    }
}

fn unproven(manifest: &Manifest) -> String {
    format!(
        "the backup was made by pgkeep {}, which recorded no checksum of the text around the rows: it is not proven \
         that tables, keys and sequence values match the dump; `pgkeep verify {}` reads the whole backup and proves it",
        manifest.tools.pgkeep, manifest.id
    )
}

fn with_safe(mut failure: Failure, safe: &str) -> Failure {
    if !failure.message.ends_with(safe) {
        failure.message = format!("{}; {safe}", failure.message);
    }
    failure
}

/// What belongs to a table stands behind the rows, too.
pub(crate) fn pipe_is_read_once() -> Failure {
    let message = "single tables cannot be restored from a pipe, because the dump is read twice; nothing was changed";
    Failure::new(Kind::Usage, "pipe_is_read_once", message)
        .hint("write the dump into a file and restore that")
}

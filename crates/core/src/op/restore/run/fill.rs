//! Brings a dump into a database: makes the database, feeds `psql`, proves, compares where it must, commits.

use std::io::{self, PipeWriter, Read, Write};
use std::sync::Arc;

use super::{Made, Run, Site, expected_of};
use crate::op::restore::check::{self, Compared};
use crate::op::restore::feed::{Move, MoveError, Moved, judge_file, refused, unreadable};
use crate::op::restore::preflight::Plan;
use crate::op::restore::source::{Opened, Seen, Stored, Tap, open_file};
use crate::op::restore::stall::Watchdog;
use crate::op::restore::{Event, HINDERED, Limits, SQL_FAILED, swap};
use crate::postgres::databases::{Databases, NotCreated, Why};
use crate::postgres::error::{Error, Reason};
use crate::postgres::feed::{Feed, FeedRequest};
use crate::postgres::process::Stop;
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::quote;
use pgkeep_model::restore::defaults::SetAside;
use pgkeep_model::restore::filter::{Freeze, Rules};
use pgkeep_model::restore::properties::literal;
use pgkeep_model::scan::Scan;

/// Most tables of a dump that goes into a fresh database as one transaction. Each takes a few of the server's locks, of
/// which there are 6,400 by default; a fresh database can also be dropped.
const MAX_TABLES_AT_ONCE: usize = 1000;

impl Run<'_> {
    /// Brings the dump in. Where a storage's copy is bad, the next one is taken, into a database made anew.
    pub(super) async fn fill(
        &mut self,
        opened: &Opened,
        site: &Site,
        made: &mut Made,
    ) -> Result<Moved> {
        let copies = match opened {
            Opened::Stored(stored) => stored.backup.readable_from(),
            _ => vec![0],
        };
        let mut last = None;
        for at in copies {
            if let Some(failure) = last.take() {
                self.clean(site, made)
                    .await
                    .map_err(|error| self.failed(&error))?;
                let Failure { message, .. } = failure;
                self.warn(format!("another copy is taken: {message}"));
                self.bad_copies.push(message);
            }
            self.make_database(site, made).await?;
            self.prepare(site).await?;
            match self.feed_watched(opened, at, site).await {
                Ok(moved) => {
                    if let Opened::Stored(stored) = opened {
                        self.report.storage = Some(stored.storage_name(at).to_owned());
                    }
                    return Ok(moved);
                }
                Err(failure)
                    if matches!(failure.kind, Kind::Damaged | Kind::Storage | Kind::Login) =>
                {
                    last = Some(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(last.unwrap_or_else(|| {
            Failure::new(
                Kind::NotFound,
                "no_such_backup",
                "no storage has the backup",
            )
        }))
    }

    /// Ends it when it stands still; what it started ends with it.
    async fn feed_watched(&mut self, opened: &Opened, at: usize, site: &Site) -> Result<Moved> {
        let (what, pulse, context) = (self.what(), Arc::clone(&self.pulse), self.context);
        let watchdog = Watchdog {
            psql: &site.psql,
            application: &site.application,
            limits: self.options.limits,
            pulse: &pulse,
            clock: &*context.clock,
        };
        tokio::select! {
            moved = self.feed_any(opened, at, site) => moved,
            failure = watchdog.stands_still(&what, context.stop.token()) => Err(failure),
        }
    }

    /// Several sessions where that applies, else one.
    async fn feed_any(&mut self, opened: &Opened, at: usize, site: &Site) -> Result<Moved> {
        match self.feed_side_by_side(opened, at, site).await? {
            Some(moved) => Ok(moved),
            None => self.feed(opened, at, site).await,
        }
    }

    /// Makes in a fresh database what the dump leaves to a hosting platform.
    async fn prepare(&self, site: &Site) -> Result<()> {
        if site.plan == Plan::Fill || site.platform.sql().is_empty() {
            return Ok(());
        }
        Databases::new(site.psql.clone())
            .execute(site.platform.sql(), self.stop())
            .await
            .map_err(|error| self.failed(&error))
    }

    async fn make_database(&mut self, site: &Site, made: &mut Made) -> Result<()> {
        let Some(databases) = site.databases.as_ref().filter(|_| site.plan != Plan::Fill) else {
            return Ok(());
        };
        let (properties, encoding) = (&site.needs.properties, &site.needs.encoding);
        let making = swap::beside(&site.name, &format!("_making_{}", self.random_hex(4)));
        let sql = |any_locale| properties.create(&making, encoding, any_locale);
        let mut created = self.create(site, databases, &making, &sql(false)).await;
        if self.options.force_locale && created.as_ref().is_err_and(lacks_locale) {
            self.warn(
                "the server lacks the dump's locale, so the database sorts text as locale `C` does"
                    .into(),
            );
            created = self.create(site, databases, &making, &sql(true)).await;
        }
        created.map_err(|not_created| self.explain_not_created(not_created))?;
        made.database = true;
        self.report.created = site.plan == Plan::Create;
        self.check_stop()?;
        let tag = match site.plan {
            Plan::Replace => Some(format!(
                "pgkeep restores a backup into this database since {}",
                self.report.started_at
            )),
            _ => self.options.tag.clone(),
        };
        self.let_owners_in(site, databases).await;
        if let Some(tag) = tag {
            let sql = format!(
                "COMMENT ON DATABASE {} IS {}",
                quote(&site.name),
                literal(&tag)
            );
            databases
                .execute(&sql, self.stop())
                .await
                .map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    /// Creates the database; where others stand in its way for too long, or somebody wants to stop, nothing is left.
    async fn create(
        &self,
        site: &Site,
        databases: &Databases,
        making: &str,
        sql: &str,
    ) -> std::result::Result<(), NotCreated<Failure>> {
        let watchdog = Watchdog {
            psql: databases.psql(),
            application: &site.application,
            limits: Limits {
                stall: None,
                ..self.options.limits
            },
            pulse: &self.pulse,
            clock: &*self.context.clock,
        };
        let what = self.what();
        let until = async {
            tokio::select! {
                failure = watchdog.stands_still(&what, &self.no_stop) => failure,
                () = self.stop().cancelled() => self.stopped_inside(),
            }
        };
        databases
            .create(making, sql, &site.name, &site.application, until)
            .await
    }

    fn explain_not_created(&self, not_created: NotCreated<Failure>) -> Failure {
        let failure = match not_created.why {
            Why::GivenUp(failure) => failure,
            Why::Failed(error) => self.not_created(&error),
        };
        match not_created.left {
            None => failure,
            Some((name, error)) => failure
                .with_details([format!("`{name}` may be left behind: {error}")])
                .hint(format!("`DROP DATABASE {}` removes it", quote(&name))),
        }
    }

    fn not_created(&self, error: &Error) -> Failure {
        let failure = self.failed(error);
        if is_about_locale(error) {
            return failure
                .hint("create the locale on the server, or `--force-locale` takes locale `C`");
        }
        if is_timed_out(error) {
            let message = format!("{}: making the database took too long", self.what());
            return Failure { message, ..failure }.hint(
                "the server's disk may be slow, or a checkpoint under way: look at `pg_stat_activity`; an empty database \
                 that you make yourself is filled as well",
            );
        }
        failure
    }

    /// A dump gives things to their owners before it gives the owners their rights, and whoever is to own a table must
    /// be able to create it. A superuser is above that; for anybody else the database's owner, who may create things in
    /// `public`, comes first. What fails here fails again where it is told.
    async fn let_owners_in(&self, site: &Site, databases: &Databases) {
        let (options, facts) = (&self.options, &site.target.facts);
        if facts.is_superuser {
            return;
        }
        let owner = site.needs.properties.owner.as_ref();
        if let Some(owner) = owner.filter(|_| !options.no_owner && !options.no_database_settings) {
            let (name, owner) = (quote(&site.name), quote(owner));
            let sql = format!("ALTER DATABASE {name} OWNER TO {owner}");
            let _ = databases.execute(&sql, self.stop()).await; // `put_back_properties` tries again, and tells
        }
        if options.is_scratch {
            let inside = Databases::new(site.psql.clone());
            let sql = "GRANT CREATE ON SCHEMA public TO PUBLIC";
            let _ = inside.execute(sql, self.stop()).await; // the dump's own statement is refused then, and told
        }
    }

    /// Feeds the dump to `psql`, proves it, and only then commits.
    async fn feed(&mut self, opened: &Opened, at: usize, site: &Site) -> Result<Moved> {
        let manifest = opened.manifest();
        let tables = manifest.map(|manifest| manifest.tables.len());
        let one_transaction =
            site.plan == Plan::Fill || tables.is_some_and(|tables| tables <= MAX_TABLES_AT_ONCE);
        let progress = Arc::new(Progress::default());
        self.follow(&progress);
        self.observer.note(Event::Restoring {
            progress: &progress,
            bytes: manifest.map_or(0, |manifest| manifest.dump.bytes),
            tables: manifest.map_or(0, |manifest| {
                manifest
                    .tables
                    .iter()
                    .filter(|table| table.rows.is_some())
                    .count() as u64
            }),
        });
        let options = &self.options;
        let mut rules = self.rules(site, one_transaction);
        // Only of our own backups it is certain that a table which the dump makes was not there before.
        let has_own_tables = manifest.is_some_and(Manifest::has_plain_storage);
        if one_transaction && has_own_tables && !site.platform.is_project() {
            rules.freeze = Freeze::Made;
        }
        let movement = Move {
            rules,
            length: manifest.map(|manifest| manifest.dump.bytes),
            progress,
        };
        let key = self.random_hex(8);
        let around = self.around(site);
        let request = FeedRequest {
            psql: &site.psql,
            application: &site.application,
            one_transaction,
            server_major: site.target.facts.major(),
            is_sql_ascii: site.needs.encoding == "SQL_ASCII",
            time_zone: options.time_zone(),
            key: &key,
            prelude: &around.before,
            ending: &around.behind,
        };
        let is_fill = site.plan == Plan::Fill && !options.no_compare;
        match opened {
            Opened::Stored(stored) => {
                let (tap, seen) = Tap::new(stored.read(at).await?, true);
                let moved = self
                    .pump(opened, at, &request, movement, tap, seen, is_fill)
                    .await;
                match moved {
                    Err(failure) if failure.id == SQL_FAILED => {
                        Err(self.doubt(stored, at, failure).await)
                    }
                    moved => moved,
                }
            }
            Opened::File { path, .. } => {
                let (tap, seen) = Tap::new(open_file(path)?, false);
                self.pump(opened, at, &request, movement, tap, seen, is_fill)
                    .await
            }
            Opened::Pipe => {
                let (tap, seen) = Tap::new(io::stdin(), false);
                self.pump(opened, at, &request, movement, tap, seen, is_fill)
                    .await
            }
        }
    }

    /// What stands around the dump in its transaction.
    ///
    /// A database that is there may give rights of its own to whatever is made in it. A fresh one does not; and who leaves
    /// the dump's rights out may want those.
    fn around(&self, site: &Site) -> SetAside {
        let mut around = match site.plan {
            Plan::Fill if !self.options.no_privileges => {
                SetAside::new(&site.target.facts.default_rights)
            }
            Plan::Fill | Plan::Create | Plan::Replace => SetAside::default(),
        };
        around.before += site.platform.prelude(site.plan);
        around.behind += site.platform.ending();
        around
    }

    /// What of the dump is left out.
    pub(super) fn rules(&self, site: &Site, one_transaction: bool) -> Rules {
        let options = &self.options;
        Rules {
            no_owner: options.no_owner,
            no_privileges: options.no_privileges,
            one_transaction,
            skip_extensions: site.skipped(options),
            // `template0`, of which fresh databases are made, has it.
            has_public: site.plan != Plan::Fill || site.target.facts.has_public(),
            platform: site.platform.rules(),
            insertions: site.platform.insertions(),
            server_major: site.target.facts.major(),
            freeze: Freeze::Never,
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call with one line for each kind of source"
    )]
    async fn pump(
        &self,
        opened: &Opened,
        at: usize,
        request: &FeedRequest<'_>,
        movement: Move,
        tap: Tap<impl Read + Send + 'static>,
        seen: Arc<Seen>,
        is_last_word: bool,
    ) -> Result<Moved> {
        let mut feed = request
            .start(self.stop())
            .await
            .map_err(|error| self.failed(&error))?;
        let mut input = feed.take_input();
        let watch = Arc::clone(&seen);
        // It ends with the dump, with `psql`, or with the wish to stop; a pipe that never gives another byte is left to
        // the end of the program.
        let moving = tokio::task::spawn_blocking(move || {
            let moved = movement.run(tap, &seen, &mut input);
            (moved, input)
        });
        let (moved, input) = tokio::select! {
            done = moving => done.expect("moving a dump does not panic"),
            _ = feed.ended() => {
                watch.give_up();
                return Err(self.program_failed(&feed).await);
            }
            () = self.stop().cancelled() => {
                watch.give_up();
                feed.stop().await;
                return Err(self.stopped_inside());
            }
        };
        let judged = match moved {
            Ok(moved) => self.prove(opened, at, &moved).map(|()| moved),
            Err(MoveError::Closed) => return Err(self.program_failed(&feed).await),
            Err(error) => Err(self.explain(opened, at, &error, &watch)),
        };
        let (judged, input) = match judged {
            Ok(moved) if request.one_transaction && is_last_word => {
                let (answered, input) = self.ask(opened, &moved, request, &mut feed, input).await;
                (
                    answered.map(|compared| Moved {
                        compared: Some(compared),
                        ..moved
                    }),
                    input,
                )
            }
            judged => (judged, input),
        };
        match judged.and_then(|moved| self.check_stop().map(|()| moved)) {
            Ok(moved) => {
                feed.commit(input)
                    .await
                    .map_err(|error| self.psql_failed(&error))?;
                Ok(moved)
            }
            Err(failure) => {
                // `input` lives until `psql` is gone: it must not see the end of a dump that is none.
                feed.stop().await;
                drop(input);
                Err(failure)
            }
        }
    }

    /// A database that was there already cannot be dropped, so its rows are compared before the COMMIT, by the session
    /// that brought them in.
    async fn ask(
        &self,
        opened: &Opened,
        moved: &Moved,
        request: &FeedRequest<'_>,
        feed: &mut Feed,
        mut input: PipeWriter,
    ) -> (Result<Compared>, PipeWriter) {
        let expected = expected_of(opened, moved);
        let questions = format!(
            "\n{}{}{}",
            request.notes(),
            check::catalog_questions(&moved.scan.sequences),
            request.questions(&check::questions(&expected))
        );
        // It ends with the questions, or with `psql`.
        let asking = tokio::task::spawn_blocking(move || {
            // A program that is gone says why itself.
            let _ = input.write_all(questions.as_bytes());
            input
        });
        let answers = tokio::select! {
            answers = feed.answers() => answers,
            () = self.stop().cancelled() => None,
        };
        let is_answered = answers.is_some();
        let judged = match answers {
            Some(answers) => {
                let (what, scan) = (self.what(), &moved.scan);
                match check::compare_filled(&expected, &scan.sequences, answers) {
                    Some(compared) => check::judge(&what, &compared, Some(scan.large_objects))
                        .map(|()| compared)
                        .map_err(|failure| self.hint_at_text_form(failure)),
                    None => Err(Failure::new(
                        Kind::Unexpected,
                        "catalog_unreadable",
                        format!("{what}: what the server says of its tables cannot be read"),
                    )),
                }
            }
            None if self.context.stop.is_requested() => Err(self.stopped_inside()),
            None => Err(self.program_failed(feed).await),
        };
        if !is_answered {
            feed.stop().await;
        }
        (
            judged,
            asking.await.expect("writing to a pipe does not panic"),
        )
    }

    /// A statement that the server refused may be one that never was in the dump: only the whole object tells.
    async fn doubt(&self, stored: &Stored, at: usize, refused: Failure) -> Failure {
        let Ok(reader) = stored.read(at).await else {
            return refused;
        };
        let (mut tap, seen) = Tap::new(reader, true);
        let (watch, counted) = (Arc::clone(&seen), Arc::clone(&seen));
        self.pulse.follow(move || counted.bytes());
        // It ends with the object, or with the wish to stop.
        let reading =
            tokio::task::spawn_blocking(move || io::copy(&mut tap, &mut io::sink()).is_ok());
        let is_read = tokio::select! {
            read = reading => read.unwrap_or(false),
            () = self.stop().cancelled() => {
                watch.give_up();
                return self.stopped_inside();
            }
        };
        let object = &stored.manifest.object;
        let is_as_stored = seen.sha256() == Some(object.sha256.as_str());
        if !is_read || is_as_stored {
            return refused;
        }
        let why = "its SHA-256 is not the manifest's, and the server refused what came out of it";
        let failure = self.damaged(stored, at, why);
        failure.with_details(refused.details)
    }

    pub(super) async fn program_failed(&self, feed: &Feed) -> Failure {
        match feed.ended().await.into_result() {
            _ if self.context.stop.is_requested() => self.stopped_inside(),
            Err(error) => self.psql_failed(&error),
            Ok(_) => Failure::new(
                Kind::Unexpected,
                "psql_ended",
                format!("{}: `psql` ended early", self.what()),
            ),
        }
    }

    /// An error of the dump's own SQL is the target's answer to it.
    pub(super) fn psql_failed(&self, error: &Error) -> Failure {
        let said = "the server refused a statement of the dump";
        of_statement(self.failed(error), error, &self.what(), said)
    }

    /// The proof behind the last byte, before anything is committed.
    fn prove(&self, opened: &Opened, at: usize, moved: &Moved) -> Result<()> {
        let Opened::Stored(stored) = opened else {
            let accept = self.options.accept_no_end_marker;
            return judge_file(&self.what(), &moved.scan, accept);
        };
        let (size, sha256) = (moved.seen.bytes(), moved.seen.sha256().unwrap_or_default());
        self.prove_stored(stored, at, size, sha256, &moved.scan)
    }

    /// Holds what was read against the manifest.
    pub(super) fn prove_stored(
        &self,
        stored: &Stored,
        at: usize,
        size: u64,
        sha256: &str,
        scan: &Scan,
    ) -> Result<()> {
        let (object, dump) = (&stored.manifest.object, &stored.manifest.dump);
        let why = if size != object.size_bytes || sha256 != object.sha256 {
            format!(
                "it has {size} bytes and SHA-256 {sha256}, and the manifest says {} and {}",
                object.size_bytes, object.sha256
            )
        } else if scan.bytes != dump.bytes {
            format!(
                "it unpacks to {} bytes, and the manifest says {}",
                scan.bytes, dump.bytes
            )
        } else if let Some(problem) = scan.problems.first() {
            problem.message.clone()
        } else {
            return Ok(());
        };
        Err(self.damaged(stored, at, &why))
    }

    pub(super) fn explain(
        &self,
        opened: &Opened,
        at: usize,
        error: &MoveError,
        seen: &Seen,
    ) -> Failure {
        let failure = match error {
            MoveError::Refused(refusal) => refused(&self.what(), refusal),
            MoveError::Read(error) => unreadable(&self.what(), error, seen),
            MoveError::TooLong => {
                let message = format!("{}: it unpacks to more than it may", self.what());
                Failure::new(Kind::Damaged, "dump_too_long", message)
            }
            MoveError::Closed => Failure::new(Kind::Unexpected, "psql_ended", self.what()),
        };
        match opened {
            Opened::Stored(stored)
                if failure.kind == Kind::Damaged || failure.kind == Kind::Proof =>
            {
                let why = failure
                    .message
                    .trim_start_matches(&format!("{}: ", self.what()))
                    .to_owned();
                self.damaged(stored, at, &why)
            }
            _ => failure,
        }
    }

    pub(super) fn damaged(&self, stored: &Stored, at: usize, why: &str) -> Failure {
        let message = format!(
            "{}: the stored object of `{}` in `{}` is damaged: {why}",
            self.what(),
            stored.manifest.id,
            stored.storage_name(at)
        );
        Failure::new(Kind::Damaged, "object_damaged", message)
            .hint("`pgkeep list` shows other backups")
    }
}

/// What the server ran out of: that says nothing of the dump.
fn exhausted(stderr: &[String]) -> Option<(&'static str, &'static str, &'static str)> {
    let says = |text: &str| stderr.iter().any(|line| line.contains(text));
    if says("No space left on device") || says("Disk quota exceeded") {
        let hint = "make room on the server, or restore elsewhere";
        return Some(("target_disk_full", "the server's disk is full", hint));
    }
    if says("out of shared memory") || says("max_locks_per_transaction") {
        let hint =
            "restore into a database that does not exist yet, or raise `max_locks_per_transaction`";
        return Some((
            "target_out_of_locks",
            "the server has no room for more locks",
            hint,
        ));
    }
    None
}

/// Makes the failure of what the server said to a statement: `what` failed, because of what is `said`.
pub(in crate::op) fn of_statement(
    mut failure: Failure,
    error: &Error,
    what: &str,
    said: &str,
) -> Failure {
    let is_statement = matches!(
        error.reason,
        Reason::Other { code: 3 }
            | Reason::PermissionDenied { .. }
            | Reason::RowSecurity { .. }
            | Reason::TooLargeField { .. }
    );
    if is_statement {
        // What is known of these is known of dumping.
        failure.hints.clear();
        failure.id = if is_hindered(&error.stderr) {
            HINDERED
        } else {
            SQL_FAILED
        };
        failure.message = format!("{what}: {said}");
    }
    if let Some((id, why, hint)) = exhausted(&error.stderr) {
        failure.id = id;
        failure.message = format!("{what}: {why}");
        return failure.hint(hint);
    }
    match sql_hint(&error.stderr) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The next move where the server's words tell one.
fn sql_hint(stderr: &[String]) -> Option<&'static str> {
    let says = |text: &str| stderr.iter().any(|line| line.contains(text));
    let lacks_rights = [
        "must be member of role",
        "must be able to SET ROLE",
        "permission denied for ",
        "must be owner of ",
        "must be superuser",
    ];
    if lacks_rights.iter().any(|text| says(text)) {
        Some(
            "make the restoring role a member of the roles that own things, or leave those out with `--no-owner \
             --no-privileges`; a superuser (`--allow-superuser`) may do all but what a role of the dump does itself, such \
             as filling its materialized view",
        )
    } else if says("ERROR:  role \"") {
        Some(
            "`--create-missing-roles` makes the roles; `--no-owner --no-privileges` leaves owners and rights out",
        )
    } else {
        None
    }
}

fn is_timed_out(error: &Error) -> bool {
    error.reason == Reason::Stopped(Stop::TimedOut)
}

/// Tells whether a statement was refused for what the role may not do, or for what others did, and not for what it says.
fn is_hindered(stderr: &[String]) -> bool {
    const SIGNS: [&str; 8] = [
        "permission denied",
        "must be owner of",
        "must be superuser",
        "must be able to SET ROLE",
        "must be member of role",
        "deadlock detected",
        "canceling statement due to",
        "terminating connection",
    ];
    let is_error = |line: &&String| line.contains("ERROR:") || line.contains("FATAL:");
    let mut errors = stderr.iter().filter(is_error);
    errors.any(|line| SIGNS.iter().any(|sign| line.contains(sign)))
}

pub(in crate::op) fn lacks_locale<E>(not_created: &NotCreated<E>) -> bool {
    matches!(&not_created.why, Why::Failed(error) if is_about_locale(error))
}

pub(in crate::op) fn is_about_locale(error: &Error) -> bool {
    let says = |text: &str| error.stderr.iter().any(|line| line.contains(text));
    says("locale") || says("LC_COLLATE") || says("LC_CTYPE")
}

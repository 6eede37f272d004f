//! Brings a dump into a database: makes the database, feeds `psql`, proves, compares where it must, commits.

use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Made, Moved, Run, Site, expected_of, sequences_of};
use crate::copies::{Stored, Tap};
use crate::op::event::Event;
use crate::op::restore::check::{self, Compared};
use crate::op::restore::create::{Creation, OTHER_LOCALE};
use crate::op::restore::feed::{judge_file, refused};
use crate::op::restore::leftover;
use crate::op::restore::preflight::{Plan, is_word};
use crate::op::restore::refusal::{of_statement, with_hint};
use crate::op::restore::session::{From, Handed, Judge, Sessions, Supply};
use crate::op::restore::sink::Broken;
use crate::op::restore::source::Opened;
use crate::op::restore::{HINDERED, SQL_FAILED};
use crate::postgres::databases::Databases;
use crate::postgres::error::Error;
use crate::postgres::feed::Answers;
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::quote;
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::defaults::{SetAside, also_for};
use pgkeep_model::restore::filter::{Freeze, Rules, Without};
use pgkeep_model::restore::properties::literal;
use pgkeep_model::restore::script::{Asks, Script, Step};
use pgkeep_model::scan::{Scan, SequenceValue, TextEncoding};

/// Most tables of a dump that goes into a fresh database as one transaction. Each takes a few of the server's locks, of
/// which there are 6,400 by default; a fresh database can also be dropped.
const MAX_TABLES_AT_ONCE: usize = 1000;

/// Most large objects of such a dump: owner, rights and comment of each take a lock.
const MAX_OBJECTS_AT_ONCE: u64 = 1000;

impl Run<'_> {
    /// Brings the dump in. Where a storage's copy is bad, the next one is taken, into a database made anew.
    pub(super) async fn fill(
        &mut self,
        opened: &Opened,
        site: &Site,
        made: &mut Made,
    ) -> Result<Moved> {
        let Opened::Stored(stored) = opened else {
            return self.fill_from(opened, 0, site, made).await;
        };
        let (what, mut bad_copies) = (self.what(), Vec::new());
        let moved = stored
            .try_copies(&what, &mut bad_copies, async |at| {
                let moved = self.fill_from(opened, at, site, made).await?;
                self.report.storage = Some(stored.storage_name(at).to_owned());
                Ok(moved)
            })
            .await;
        for message in &bad_copies {
            self.warn(format!("trying another copy: {message}"));
        }
        self.bad_copies = bad_copies;
        moved
    }

    async fn fill_from(
        &mut self,
        opened: &Opened,
        at: usize,
        site: &Site,
        made: &mut Made,
    ) -> Result<Moved> {
        self.make_anew(site, made).await?;
        // Several sessions where that applies, else one.
        match self.feed_side_by_side(opened, at, site).await {
            Ok(Some(moved)) => Ok(moved),
            Ok(None) => self.feed(opened, at, site).await,
            Err(failure) if is_about_order(&failure) && self.check_stop().is_ok() => {
                self.warn(in_one_session(&failure));
                self.report.jobs = 1;
                self.make_anew(site, made).await?;
                self.feed(opened, at, site).await
            }
            Err(failure) => Err(failure),
        }
    }

    /// Makes the database; one that an attempt before this one made goes first.
    async fn make_anew(&mut self, site: &Site, made: &mut Made) -> Result<()> {
        if made.database {
            self.clean(site, made)
                .await
                .map_err(|error| self.failed(&error))?;
            made.database = false;
        }
        self.make_database(site, made).await?;
        self.prepare(site).await?;
        self.let_restorer_in(site, made).await
    }

    /// What holds for each session of this restore.
    pub(super) fn sessions<'s>(&'s self, site: &'s Site, progress: &Arc<Progress>) -> Sessions<'s> {
        Sessions {
            doing: self.doing(),
            psql: site.restoring(),
            overseer: &site.psql,
            plain_role: site
                .restorer
                .as_ref()
                .map(|restorer| restorer.role.as_str()),
            application: &site.application,
            server_major: site.target.facts.major(),
            encoding: site.needs.text_encoding(),
            time_zone: self.options.time_zone(),
            form: &site.needs.form,
            is_lasting: site.plan == Plan::Fill,
            limits: self.options.limits,
            pulse: Arc::clone(&self.pulse),
            progress: Arc::clone(progress),
            context: self.context,
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

    /// Lets the plain role work in the database, and makes there what only a superuser may.
    async fn let_restorer_in(&self, site: &Site, made: &mut Made) -> Result<()> {
        let Some(restorer) = &site.restorer else {
            return Ok(());
        };
        let hand_over = site.platform.made_schemas();
        let facts = &site.target.facts;
        // Who leaves the dump's rights out wants those that the database gives by itself.
        let defaults = if site.plan == Plan::Fill && self.options.no_privileges {
            also_for(&facts.default_rights, &facts.user, &restorer.role)
        } else {
            String::new()
        };
        let let_in = restorer.let_in(
            &site.psql,
            &site.extensions,
            hand_over,
            &defaults,
            self.stop(),
        );
        let made_now = let_in.await.map_err(|error| self.psql_failed(&error))?;
        // An attempt before this one may have made some, in a database that stays.
        made.let_in.extensions.extend(made_now.extensions);
        Ok(())
    }

    async fn make_database(&mut self, site: &Site, made: &mut Made) -> Result<()> {
        let Some(databases) = site.databases.as_ref().filter(|_| site.plan != Plan::Fill) else {
            return Ok(());
        };
        let creation = Creation {
            doing: self.doing(),
            databases,
            name: &site.name,
            making: &site.names.making,
            properties: &site.needs.properties,
            encoding: &site.needs.encoding,
            server_major: site.target.facts.major(),
            force_locale: self.options.force_locale,
            application: &site.application,
            limits: self.options.limits,
            pulse: &self.pulse,
            context: self.context,
        };
        let created = creation.carry_out().await;
        made.is_left = created.as_ref().is_err_and(|not_made| not_made.is_left);
        if created.map_err(|not_made| not_made.failure)? {
            self.warn(OTHER_LOCALE.to_owned());
        }
        made.database = true;
        self.report.created = site.plan == Plan::Create;
        self.check_stop()?;
        let is_aside = site.name != site.target.name;
        let own_tag = is_aside.then(|| leftover::tag(self.report.started_at));
        if let Some(tag) = self.options.tag.clone().or(own_tag) {
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
        self.let_owners_in(site, databases).await;
        Ok(())
    }

    /// A dump gives things to their owners before it gives the owners their rights, and anyone who is to own a table
    /// must be able to create it. A superuser is above that; for anybody else the database's owner, who may create
    /// things in `public`, comes first. What fails here fails again where it is reported.
    async fn let_owners_in(&self, site: &Site, databases: &Databases) {
        let (options, facts) = (&self.options, &site.target.facts);
        if facts.is_superuser {
            return;
        }
        let owner = site.needs.properties.owner.as_ref();
        // One whose rights we do not have would not let us go on in it.
        let is_given = |owner: &&String| {
            !options.no_owner && !options.no_database_settings && facts.acts_as.contains(owner)
        };
        if let Some(owner) = owner.filter(is_given) {
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

    /// Brings the dump in by one session.
    async fn feed(&mut self, opened: &Opened, at: usize, site: &Site) -> Result<Moved> {
        let manifest = opened.manifest();
        let progress = Arc::new(Progress::default());
        let with_rows = manifest.map_or(0, |manifest| {
            let tables = manifest.tables.iter();
            tables.filter(|table| table.rows.is_some()).count()
        });
        self.observer.note(Event::Restoring {
            progress: &progress,
            bytes: manifest.map_or(0, |manifest| manifest.dump.bytes),
            tables: with_rows as u64,
        });
        let script = self.script(opened, site);
        let asks = script.one_transaction && site.plan == Plan::Fill;
        let from = match opened {
            Opened::Stored(stored) => From::Copy(stored, at, None),
            Opened::File { path, .. } => From::File(path, &self.request.identities),
            Opened::Pipe => From::Pipe(&self.request.identities),
        };
        let supply = Supply::new(from, TextEncoding::Utf8);
        let mut judge = Judgement {
            run: self,
            opened,
            at,
            asks,
            without: &site.without,
            dumped: None,
            compared: None,
        };
        let done = self
            .sessions(site, &progress)
            .one(script, &supply, &mut judge)
            .await;
        let compared = judge.compared;
        match done {
            Ok(mut handed) => Ok(Moved {
                scan: handed.scans.remove(0),
                lost: handed.lost,
                held_back: handed.held_back,
                late: handed.late,
                compared,
            }),
            Err(failed) => {
                self.fate = Some(failed.fate);
                self.stays = failed.stays;
                let failure = failed.failure;
                match opened {
                    Opened::Stored(stored) if failure.id == SQL_FAILED => {
                        let doubt = async { Err(self.doubt(stored, at, failure).await) };
                        self.sessions(site, &progress).watched(doubt).await
                    }
                    _ => Err(failure),
                }
            }
        }
    }

    /// The whole dump in one session.
    fn script(&self, opened: &Opened, site: &Site) -> Script {
        let manifest = opened.manifest();
        let tables = manifest.map(|manifest| manifest.tables.len());
        let one_transaction = site.plan == Plan::Fill
            || tables.is_some_and(|tables| tables <= MAX_TABLES_AT_ONCE)
                && manifest.is_some_and(|manifest| manifest.large_objects <= MAX_OBJECTS_AT_ONCE);
        let mut rules = self.rules(site, one_transaction);
        // Only of our own backups it is certain that a table which the dump makes was not there before.
        let has_own_tables = manifest.is_some_and(Manifest::has_plain_storage);
        if one_transaction && has_own_tables && !site.platform.is_project() {
            rules.freeze = Freeze::Made;
        }
        let around = self.around(site);
        let mut script = Script::new(one_transaction, rules, vec![Step::Whole, Step::End]);
        (script.before, script.behind) = (around.before, around.behind);
        script
    }

    /// What stands around the dump in its transaction.
    ///
    /// A database that is there may give rights of its own to whatever is made in it. A fresh one does not; and who
    /// leaves the dump's rights out may want those.
    fn around(&self, site: &Site) -> SetAside {
        let mut around = match site.plan {
            // The role that restores for a superuser is new, so nobody gave rights to what it makes.
            Plan::Fill if !self.options.no_privileges && site.restorer.is_none() => {
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
        let mut skip_extensions = site.skipped(options);
        let facts = &site.target.facts;
        if site.plan == Plan::Fill && !facts.is_superuser {
            // It is there already, and its comment is for its owner to change.
            skip_extensions.extend(facts.installed_extensions.iter().cloned());
        }
        Rules {
            no_owner: options.no_owner,
            no_privileges: options.no_privileges,
            one_transaction,
            keeps_limits: site.plan == Plan::Fill,
            skip_extensions,
            // `template0`, of which fresh databases are made, has it.
            has_public: site.plan != Plan::Fill || site.target.facts.has_public(),
            platform: site.platform.rules(),
            is_divided: site.restorer.is_some(),
            made_schemas: site.made_schemas(),
            leaves_beyond: options.is_scratch,
            lists_extensions: false,
            insertions: site.platform.insertions(),
            server_major: site.target.facts.major(),
            freeze: Freeze::Never,
            // A manifest tells it; of a pipe it is known only behind its last row.
            notes_form: !matches!(
                self.request.source,
                crate::op::restore::Source::Stored { .. }
            ),
            no_tablespaces: options.no_tablespaces,
            holds_back: true,
            without: site.without.clone(),
        }
    }

    /// A statement that the server refused may be one that never was in the dump: only the whole object tells.
    async fn doubt(&self, stored: &Stored, at: usize, refused: Failure) -> Failure {
        let stop = self.stop().clone();
        let Ok((_, sha256)) = self.read_through(stored, at, &stop).await else {
            return self.check_stop().err().unwrap_or(refused);
        };
        if sha256 == stored.manifest.object.sha256 {
            return refused;
        }
        let why = "its SHA-256 does not match the manifest, and the server refused its content";
        let failure = self.damaged(stored, at, why);
        failure.with_details(refused.details)
    }

    /// Reads an object once as a whole, for its size and SHA-256.
    pub(super) async fn read_through(
        &self,
        stored: &Stored,
        at: usize,
        halt: &CancellationToken,
    ) -> Result<(u64, String)> {
        let (mut tap, seen) = Tap::new(stored.read(at).await?, true);
        let counted = Arc::clone(&seen);
        self.pulse.follow(move || counted.bytes());
        // It ends with the object, or with the wish to stop.
        let reading = tokio::task::spawn_blocking(move || io::copy(&mut tap, &mut io::sink()));
        let read = tokio::select! {
            read = reading => read.expect("reading does not panic"),
            () = halt.cancelled() => {
                seen.give_up();
                return Err(self.stopped_inside());
            }
        };
        match (read, seen.sha256()) {
            (Ok(_), Some(sha256)) => Ok((seen.bytes(), sha256.to_owned())),
            (read, _) => {
                let why = read
                    .err()
                    .map_or_else(String::new, |error| error.to_string());
                let message = format!("{}: cannot read on: {why}", self.what());
                Err(Failure::new(Kind::Storage, "cannot_read", message).of_copy())
            }
        }
    }

    /// An error of the dump's own SQL is the target's answer to it.
    pub(super) fn psql_failed(&self, error: &Error) -> Failure {
        let said = "the server refused a statement of the dump";
        let failure = of_statement(self.failed(error), error, &self.what(), said);
        with_hint(failure, error)
    }

    /// The proof behind the last byte, before anything is committed.
    fn prove(&self, opened: &Opened, at: usize, handed: &Handed, scan: &Scan) -> Result<()> {
        let Opened::Stored(stored) = opened else {
            let accept = self.options.accept_no_end_marker;
            return judge_file(&self.what(), scan, accept);
        };
        let seen = handed.seen.as_ref();
        let size = seen.map_or(0, |seen| seen.bytes());
        let sha256 = seen.and_then(|seen| seen.sha256()).unwrap_or_default();
        self.prove_stored(stored, at, size, sha256, scan)
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
                "it has {size} bytes and SHA-256 {sha256}, but the manifest says {} and {}",
                object.size_bytes, object.sha256
            )
        } else if scan.bytes != dump.bytes {
            format!(
                "it unpacks to {} bytes, but the manifest says {}",
                scan.bytes, dump.bytes
            )
        } else if let Some(problem) = scan.problems.first() {
            problem.message.clone()
        } else {
            return Ok(());
        };
        Err(self.damaged(stored, at, &why))
    }

    /// Returns the failure of a dump that cannot be handed on.
    pub(super) fn explain(&self, opened: &Opened, at: usize, broken: Broken) -> Failure {
        let failure = match broken {
            Broken::Refused(refusal) => refused(&self.what(), &refusal),
            Broken::Unreadable(failure) => *failure,
            Broken::Damaged { why, .. } => {
                let message = format!("{}: {why}", self.what());
                Failure::new(Kind::Damaged, "object_damaged", message)
            }
            Broken::TooLong => {
                let message = format!("{}: it unpacks to more than it may", self.what());
                Failure::new(Kind::Damaged, "dump_too_long", message)
            }
            Broken::Aside(error) => self.psql_failed(&error),
            Broken::Gone => Failure::new(Kind::Unexpected, "psql_ended", self.what()),
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
            .of_copy()
            .hint("`pgkeep list` shows other backups")
    }
}

/// A check, a default or a generated column may call a function that reads a table whose rows come later where several
/// sessions work at once. Only the dump's own order tells whether the server would refuse the statement there, too.
fn is_about_order(failure: &Failure) -> bool {
    let is_deadlock = |line: &String| line.contains("deadlock detected");
    failure.id == SQL_FAILED || failure.id == HINDERED && failure.details.iter().any(is_deadlock)
}

fn in_one_session(failure: &Failure) -> String {
    let said = failure
        .details
        .iter()
        .map(|line| line.trim())
        .find(|line| line.contains("ERROR:"))
        .map_or_else(String::new, |line| format!(" ({line})"));
    format!(
        "several sessions at once could not restore it{said}, so one session restored it again in the dump's order"
    )
}

/// Holds a whole dump against its manifest, and what is there before the COMMIT against what was dumped.
struct Judgement<'a, 'r> {
    run: &'a Run<'r>,
    opened: &'a Opened,
    at: usize,
    /// A database that was there already cannot be dropped, so it is asked before the COMMIT, by the session that
    /// fills it.
    asks: bool,
    without: &'a Without,
    /// Tables, sequences and large objects that were handed on.
    dumped: Option<(Vec<Expected>, Vec<SequenceValue>, u64)>,
    compared: Option<Compared>,
}

impl Judge for Judgement<'_, '_> {
    fn prove(&mut self, handed: &Handed) -> Result<Option<Asks>> {
        let Some(scan) = handed.scans.first() else {
            return Ok(None);
        };
        self.run.prove(self.opened, self.at, handed, scan)?;
        if !self.asks {
            return Ok(None);
        }
        if self.run.options.no_compare {
            return Ok(Some(Asks::default()));
        }
        let expected = expected_of(self.opened, scan, self.without);
        let sequences = sequences_of(scan, self.without);
        let asks = Asks {
            notes: check::catalog_questions(&sequences),
            tables: check::questions(&expected),
            form: scan.text_form.clone(),
            encoding: scan.client_encoding.clone().filter(|name| is_word(name)),
        };
        self.dumped = Some((expected, sequences, scan.large_objects));
        Ok(Some(asks))
    }

    fn judge(&mut self, answers: Answers) -> Result<()> {
        let Some((expected, sequences, large_objects)) = &self.dumped else {
            return Ok(());
        };
        let what = self.run.what();
        let compared = check::compare_filled(expected, sequences, answers).ok_or_else(|| {
            let message = format!("{what}: the server's list of tables cannot be read");
            Failure::new(Kind::Unexpected, "catalog_unreadable", message)
        })?;
        check::judge(&what, &compared, Some(*large_objects))
            .map_err(|failure| self.run.hint_at_text_form(failure))?;
        self.compared = Some(compared);
        Ok(())
    }

    fn broken(&self, broken: Broken) -> Failure {
        self.run.explain(self.opened, self.at, broken)
    }

    fn refused(&self, error: &Error) -> Failure {
        self.run.psql_failed(error)
    }
}

//! One restore from the first question to the last rename, and how it is undone from each point where it may fail.

mod fill;
mod follow_up;
mod parallel;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::check::{self, Check, Compared};
use super::feed::{judge_file, refused, unreadable};
use super::leftover::{self, Names};
use super::platform;
use super::preflight::{self, Needs, Plan, Target};
use super::refusal::{of_statement, with_hint};
use super::restorer::{LetIn, NoRestorer, Restorer, Waiting, has_always, not_let_in, not_made};
use super::session::Fate;
use super::source::{Opened, open_file};
use super::stall::Pulse;
use super::{Options, Report, Request, Source, swap};
use crate::context::{Context, Late};
use crate::copies::{Stored, Tap};
use crate::op::event::{Event, Observer};
use crate::op::keys::proof;
use crate::postgres::databases::{Databases, is_subscribed};
use crate::postgres::environment::Environment;
use crate::postgres::error::{Error, Reason};
use crate::postgres::place::with_ambient_place;
use crate::postgres::programs::Found;
use crate::postgres::psql::Psql;
use crate::postgres::target::TargetFacts;
use crate::stream::pipeline::Progress;
use crate::stream::read::read_dump;
use pgkeep_model::config::Preset;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::quote;
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::defaults::SetAside;
use pgkeep_model::restore::filter::{Extension, Filter, HeldBack, LateStatement, Rules, Without};
use pgkeep_model::scan::{Scan, SequenceValue};
use pgkeep_model::supabase::{Platform, rights_of_roles};
use pgkeep_model::text_form::TextForm;

/// One restore under way.
pub(super) struct Run<'a> {
    request: &'a Request,
    context: &'a Context,
    observer: &'a dyn Observer,
    /// What was asked for, and what a preset adds once the dump is known.
    options: Options,
    report: Report,
    /// For what must be done even when the run was stopped.
    no_stop: Late,
    /// What moves of the dump, for the watchdog.
    pulse: Arc<Pulse>,
    /// Why copies were skipped.
    bad_copies: Vec<String>,
    /// What became of a transaction, or of the renames, that failed; and why that cannot be seen.
    fate: Option<Fate>,
    stays: Option<Error>,
    /// Name that the old database has where the renames were done, when that cannot be seen.
    kept_as: Option<String>,
    /// Whether it cannot be seen if a fresh database got its name.
    is_name_unseen: bool,
    /// Whether it cannot be seen if what was restored was given to its owners.
    is_end_unseen: bool,
    /// Materialized views that could not be filled, and why.
    unfilled: Vec<String>,
}

/// A dump that was restored whole.
struct Moved {
    scan: Scan,
    /// What of it was left out and is not there.
    lost: Vec<String>,
    /// What of it was held back.
    held_back: HeldBack,
    /// What waits for a superuser until the rows were compared.
    late: Vec<LateStatement>,
    /// What the comparison before the COMMIT said, where there was one.
    compared: Option<Compared>,
}

/// Where the dump goes, decided.
struct Site {
    /// What a hosting platform's dump needs here.
    platform: platform::Landing,
    plan: Plan,
    target: Target,
    needs: Needs,
    /// What goes with the extensions that are left out.
    without: Without,
    /// The database that the dump goes into: the target, or a fresh one beside it.
    name: String,
    names: Names,
    connection: Connection,
    psql: Psql,
    /// The plain role that restores for a superuser, and how it reaches the database.
    restorer: Option<Restorer>,
    restoring: Option<(Connection, Psql)>,
    /// Extensions that are made for the dump before it comes.
    extensions: Vec<Extension>,
    /// Seen from another database; none where no other lets us in.
    databases: Option<Databases>,
    found: Found,
    /// Name of our session on the server.
    application: String,
}

/// What was made and must go again when the restore fails.
#[derive(Default)]
struct Made {
    database: bool,
    /// Whether a database under another name may be left behind, which a failure names.
    is_left: bool,
    roles: Vec<String>,
    /// What was made for the plain role.
    let_in: LetIn,
}

impl Site {
    /// Returns what carries the dump out.
    fn restoring(&self) -> &Psql {
        self.restoring.as_ref().map_or(&self.psql, |(_, psql)| psql)
    }

    /// Returns the connection that reads what was restored.
    fn reading(&self) -> &Connection {
        self.restoring
            .as_ref()
            .map_or(&self.connection, |(connection, _)| connection)
    }

    /// Schemas that are made for extensions, and which the dump must not make again.
    fn made_schemas(&self) -> Vec<String> {
        let schemas = self.extensions.iter().filter_map(|one| one.schema.clone());
        schemas.filter(|name| !has_always(name)).collect()
    }

    /// Extensions of the dump that are left out.
    fn skipped(&self, options: &Options) -> Vec<String> {
        let missing = self.needs.missing_extensions(&self.target.facts);
        let is_skipped = |name: &&String| {
            options.leaves_out(name)
                || missing.contains(name) && options.dispensable_extensions.contains(name)
        };
        let names = self.needs.extensions.iter().filter(is_skipped);
        names.cloned().collect()
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        request: &'a Request,
        context: &'a Context,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            report: Report::new(&request.source, &request.into, context.clock.now()),
            options: request.options.clone(),
            request,
            context,
            observer,
            no_stop: context.stop.late(),
            pulse: Arc::default(),
            bad_copies: Vec::new(),
            fate: None,
            stays: None,
            kept_as: None,
            is_name_unseen: false,
            is_end_unseen: false,
            unfilled: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) -> Report {
        let started = self.context.clock.monotonic();
        if let Err(failure) = self.try_run().await {
            self.report.failure = Some(failure);
        }
        self.observer.note(Event::Ended);
        self.report.took_ms = self.context.clock.millis_since(started);
        self.report
    }

    /// Looks whether the target would take the dump, and touches nothing. Of standard input nothing is read.
    pub(super) async fn preflight(mut self) -> Result<()> {
        let opened = self.open().await?;
        let site = self.site(&opened).await?;
        self.drop_restorer(&site).await;
        Ok(())
    }

    /// So many times four hex digits by chance: two restores at once must not meet.
    fn random_hex(&self, count: usize) -> String {
        self.context.clock.hex(count)
    }

    async fn try_run(&mut self) -> Result<()> {
        if self.options.dry_run {
            let message = "a whole dump cannot be restored on trial; nothing was changed";
            return Err(Failure::new(Kind::Usage, "no_dry_run", message)
                .hint("a drill restores it into a scratch database, compares it, and drops it"));
        }
        platform::refuse_pipe(self.request)?;
        let opened = self.open().await?;
        let site = self.site(&opened).await?;
        let mut made = Made::default();
        let done = self.try_site(&opened, &site, &mut made).await;
        if self.options.is_scratch {
            self.report.reader = site.restoring.as_ref().map(|(reader, _)| reader.clone());
            self.report.restorer = site.restorer.as_ref().map(|restorer| restorer.role.clone());
        } else {
            self.drop_restorer(&site).await;
        }
        done?;
        let what = format!(
            "restore into `{}`: every row is in its place",
            self.report.target
        );
        let is_good = match opened {
            Opened::Stored(stored) => {
                proof::leave(&stored, "restore", self.context).await;
                stored.after_good(&what, &self.bad_copies)
            }
            _ => Ok(()),
        };
        is_good.and_then(|()| self.after_views(&what))
    }

    /// Restores, or leaves the target unchanged.
    async fn try_site(&mut self, opened: &Opened, site: &Site, made: &mut Made) -> Result<()> {
        if let Err(failure) = self.carry_out(opened, site, made).await {
            if self.report.restored {
                return Err(failure);
            }
            // What a program says while it is made to end is of no interest.
            let first = self.check_stop().err().unwrap_or(failure);
            let cause = match opened {
                Opened::Stored(stored) => stored.unless_removed(&self.what(), first).await,
                _ => first,
            };
            return Err(self.undo(cause, site, made).await);
        }
        self.report.restored = true;
        Ok(())
    }

    fn doing(&self) -> String {
        format!("restore into `{}`", self.report.target)
    }

    fn what(&self) -> String {
        format!("{} failed", self.doing())
    }

    /// Returns a count of bytes that the watchdog sees.
    fn counted(&self) -> Arc<AtomicU64> {
        let counted = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&counted);
        self.pulse.follow(move || seen.load(Ordering::Relaxed));
        counted
    }

    fn stop(&self) -> &CancellationToken {
        self.context.stop.token()
    }

    fn failed(&self, error: &Error) -> Failure {
        // What is safe is known only when all was undone, and added there.
        let mut failure = error.to_failure(&self.doing(), "");
        failure.message = failure.message.trim_end_matches("; ").to_owned();
        failure
    }

    fn untouched(&self, error: &Error) -> Failure {
        if self.context.stop.is_requested() {
            return self.stopped("nothing was changed");
        }
        self.failed(error).and_safe("nothing was changed")
    }

    fn stopped(&self, safe: &str) -> Failure {
        self.stopped_inside().and_safe(safe)
    }

    /// Opens the dump. A file is read once to its end, so that its proof comes before anything is touched.
    async fn open(&mut self) -> Result<Opened> {
        match &self.request.source {
            Source::Stored {
                storages,
                database,
                wanted,
            } => {
                let now = self.context.clock.now();
                let opening = Stored::open(storages, database.clone(), wanted, now);
                let stored = tokio::select! {
                    stored = opening => stored?,
                    () = self.stop().cancelled() => return Err(self.stopped("nothing was changed")),
                };
                self.report.backup_id = Some(stored.manifest.id.to_string());
                self.report.warnings.extend(stored.warnings());
                let unlocked = stored.unlock(&self.doing(), &self.context.stop).await;
                unlocked.map_err(|failure| failure.and_safe("nothing was changed"))?;
                Ok(Opened::Stored(Box::new(stored)))
            }
            Source::File(path) => self.prove_file(path).await,
            Source::Stdin => Ok(Opened::Pipe),
        }
    }

    async fn prove_file(&self, path: &Path) -> Result<Opened> {
        let file = open_file(path)?;
        let what = format!("cannot restore `{}`", path.display());
        let progress = Arc::new(Progress::default());
        self.observer.note(Event::Reading {
            progress: &progress,
        });
        let accept = self.options.accept_no_end_marker;
        let rules = Rules {
            platform: self.options.preset.map(|_| Platform::default()),
            notes_form: true,
            lists_extensions: true,
            ..Rules::default()
        };
        let (tap, seen) = Tap::new(file, false);
        let give_up = Arc::clone(&seen);
        let identities = Arc::clone(&self.request.identities);
        let reading = tokio::task::spawn_blocking(move || {
            let mut filter = Filter::new(rules);
            let mut refusal = None;
            let read = read_dump(tap, &identities, &mut |piece| {
                if refusal.is_none()
                    && let Err(error) = filter.push(piece, &mut |_| {})
                {
                    seen.give_up();
                    refusal = Some(error);
                }
                progress.note_scan(filter.scanner());
            });
            match (refusal, read) {
                (Some(refusal), _) => Err(refused(&what, &refusal)),
                (None, Err(error)) => Err(unreadable(&what, &error, &seen)),
                (None, Ok(_)) => {
                    let schemas = filter.schemas().to_vec();
                    let extensions = filter.extensions().to_vec();
                    let scan = filter
                        .finish()
                        .map_err(|refusal| refused(&what, &refusal))?;
                    judge_file(&what, &scan, accept).map(|()| (scan, schemas, extensions))
                }
            }
        });
        let proven = tokio::select! {
            done = reading => done.expect("scanning does not panic"),
            () = self.stop().cancelled() => {
                give_up.give_up();
                return Err(self.stopped("nothing was changed"));
            }
        };
        self.observer.note(Event::Ended);
        let (scan, schemas, extensions) =
            proven.map_err(|failure| failure.and_safe("nothing was changed"))?;
        Ok(Opened::File {
            path: path.to_owned(),
            scan: Box::new(scan),
            schemas,
            extensions,
        })
    }

    /// Finds programs and target, and decides how the target takes the dump.
    async fn site(&mut self, opened: &Opened) -> Result<Site> {
        let Request {
            into,
            search,
            environment,
            ..
        } = self.request;
        platform::widen(&mut self.options, opened);
        let found = search.find(environment, self.stop()).await;
        let programs = found.newest().map_err(|error| self.untouched(&error))?;
        let psql = |connection: &Connection| Psql::new(programs, environment, connection);
        let (name, mut facts, exists, home) = self.look_at_target(&psql).await?;
        platform::narrow(&mut facts, &mut self.options);
        let options = &self.options;
        if !options.no_compare {
            found
                .choose(Some(facts.major()), into.minimum_client_major())
                .map_err(|error| self.untouched(&error))?;
        }
        let mut needs = match opened {
            Opened::Stored(stored) => Needs::of_manifest(&stored.manifest),
            Opened::File { scan, .. } => Needs::of_scan(scan),
            Opened::Pipe => Needs {
                encoding: "UTF8".to_owned(),
                form: TextForm::foreign(),
                ..Needs::default()
            },
        };
        platform::add_roles(&mut needs, &facts, options);
        let free_bytes = free_bytes(into, environment, &facts);
        let target = Target {
            name: name.clone(),
            exists,
            facts,
            free_bytes,
        };
        let divides = is_divided(options, opened, &target.facts);
        // What else prevents it is reported before a role is made.
        let assumed = Options {
            allow_superuser: options.allow_superuser || divides,
            ..options.clone()
        };
        let plan = preflight::plan(&needs, &target, &assumed)
            .map_err(|problems| preflight::failure(into, &name, exists, problems))?;
        if plan == Plan::Replace {
            needs.keep_properties(&target.facts, options);
        }
        let home = match home {
            None => self.home(plan, &target.facts, &psql).await?,
            home => home,
        };
        let names = Names::new(&name, &*self.context.clock);
        let is_bound = needs.extensions.iter().any(|name| name == "pg_cron");
        let work_name = match plan {
            Plan::Replace => names.restoring.clone(),
            // What is thrown away again has a name that nobody waits for; `pg_cron` lives under the wanted one alone.
            Plan::Create if !self.options.is_scratch && !is_bound => names.restoring.clone(),
            Plan::Create | Plan::Fill => name.clone(),
        };
        let connection = into
            .with_database(&work_name)
            .map_err(|error| self.untouched(&Error::new(Reason::Connection(error))))?;
        self.report.database = Some(name.clone());
        self.report.server_version = Some(target.facts.version.clone());
        let platform = platform::Landing::of(&self.options, opened, plan, &target.facts);
        let divides = divides && !platform.is_project();
        let mut site = Site {
            platform,
            plan,
            target,
            without: needs.homes.without(&options.skip_extensions),
            needs,
            name: work_name,
            names,
            psql: psql(&connection),
            connection,
            restorer: None,
            restoring: None,
            extensions: Vec::new(),
            databases: home.as_ref().map(|home| Databases::new(psql(home))),
            found: found.clone(),
            application: format!("pgkeep-restore-{}", self.random_hex(4)),
        };
        if divides {
            let home = home.as_ref().unwrap_or(into);
            self.find_restorer(&mut site, opened, home, &psql).await?;
        } else if let Some(problem) = preflight::powers_of(&site.needs, &site.target, &self.options)
        {
            return Err(preflight::failure(into, &name, exists, vec![problem]));
        }
        self.report.skipped_extensions = site.skipped(&self.options);
        self.tell_without(&site);
        self.report.stand_ins = site.platform.told();
        Ok(site)
    }

    /// Finds a database to work from beside the target. A database that is filled in place can do without.
    async fn home(
        &self,
        plan: Plan,
        facts: &TargetFacts,
        psql: &impl Fn(&Connection) -> Psql,
    ) -> Result<Option<Connection>> {
        let into = &self.request.into;
        let first = self.options.home.as_deref();
        match facts.home(first, into, psql, self.stop()).await {
            Ok(home) => Ok(Some(home)),
            Err(_) if plan == Plan::Fill => Ok(None),
            Err(error) => Err(self.untouched(&error)),
        }
    }

    /// Makes the plain role that restores for a superuser.
    async fn find_restorer(
        &self,
        site: &mut Site,
        opened: &Opened,
        home: &Connection,
        psql: &impl Fn(&Connection) -> Psql,
    ) -> Result<()> {
        let databases = Databases::new(psql(home));
        let tag = leftover::tag(self.report.started_at);
        let made = Restorer::make(
            (&databases, home),
            psql,
            &tag,
            &*self.context.clock,
            self.stop(),
        );
        match made.await {
            Ok(restorer) => {
                let skipped = site.skipped(&self.options);
                site.extensions = opened.extensions();
                site.extensions
                    .retain(|extension| !skipped.contains(&extension.name));
                let connection = restorer
                    .connection(&site.name)
                    .map_err(|error| self.untouched(&error))?;
                site.restoring = Some((connection.clone(), psql(&connection)));
                site.restorer = Some(restorer);
                Ok(())
            }
            Err(_) if self.context.stop.is_requested() => Err(self.stopped("nothing was changed")),
            Err(NoRestorer::Failed(error, left)) => {
                let doing = "making a role without powers that restores";
                let failure = error.to_failure(doing, "the database was not changed");
                Err(not_made(failure, left))
            }
            Err(NoRestorer::NoLogin(error)) => {
                let problem = preflight::powers(&site.needs, &site.target.facts, "", &self.options);
                let exists = site.target.exists;
                let name = &site.target.name;
                let failure = preflight::failure(
                    &self.request.into,
                    name,
                    exists,
                    problem.into_iter().collect(),
                );
                Err(failure.with_details([not_let_in(&error)]))
            }
        }
    }

    /// Asks the target, or where it is not there a database beside it.
    async fn look_at_target(
        &self,
        psql: &impl Fn(&Connection) -> Psql,
    ) -> Result<(String, TargetFacts, bool, Option<Connection>)> {
        let into = &self.request.into;
        match TargetFacts::read(&psql(into), self.stop()).await {
            Ok(facts) => Ok((facts.database.clone(), facts, true, None)),
            Err(error) if error.reason == Reason::DatabaseMissing => {
                let Some(name) = into.database_name() else {
                    return Err(self.untouched(&error));
                };
                let first = self.options.home.as_deref();
                let (home, facts) = TargetFacts::read_beside(name, first, into, psql, self.stop())
                    .await
                    .map_err(|error| self.untouched(&error))?;
                Ok((name.to_owned(), facts, false, Some(home)))
            }
            Err(error) => Err(self.untouched(&error)),
        }
    }

    async fn carry_out(&mut self, opened: &Opened, site: &Site, made: &mut Made) -> Result<()> {
        let started = self.context.clock.monotonic();
        self.sweep(site).await;
        self.make_roles(site, made).await?;
        let mut moved = self.fill(opened, site, made).await?;
        let late = std::mem::take(&mut moved.late);
        let large_objects = usize::try_from(moved.scan.large_objects).unwrap_or(usize::MAX);
        let objects = moved.scan.tables.len().saturating_add(large_objects);
        self.report.left_out = std::mem::take(&mut moved.lost);
        self.report.rows = moved.scan.rows();
        self.report.dump_bytes = moved.scan.bytes;
        if site.plan == Plan::Fill {
            let is_divided = site.restorer.is_some();
            if is_divided {
                self.fill_views(site, &moved.held_back.filling).await;
                self.analyze(site).await;
                self.finish(objects, &late, site).await?;
            }
            // Its COMMIT is done: what follows can fail and be stopped, and takes nothing back.
            self.report.restored = true;
            match moved.compared.take() {
                Some(compared) => self.take_note(compared),
                None => self.warn_not_compared(),
            }
            if !is_divided {
                self.fill_views(site, &moved.held_back.filling).await;
            }
            self.report.restore_ms = self.context.clock.millis_since(started);
            return self.follow_up(site).await;
        }
        self.fill_views(site, &moved.held_back.filling).await;
        self.check_stop()?;
        self.report.restore_ms = self.context.clock.millis_since(started);
        self.analyze(site).await;
        self.check_stop()?;
        let expected = expected_of(opened, &moved.scan, &site.without);
        // What is read again has a list of its own, and there may be tens of thousands of tables.
        moved.scan.tables = Vec::new();
        let started = self.context.clock.monotonic();
        if self.options.no_compare {
            self.warn_not_compared()
        } else {
            moved.scan.sequences = sequences_of(&moved.scan, &site.without);
            self.compare(&expected, &moved.scan, site).await?;
        }
        self.report.compare_ms = self.context.clock.millis_since(started);
        self.carry_out_behind(site, &moved.held_back.behind).await?;
        self.finish(objects, &late, site).await?;
        if site.plan == Plan::Create {
            self.check_stop()?;
            self.put_in_place(site).await?;
            // What follows takes nothing back: it may give the database to an owner who would not let us rename it.
            self.report.restored = true;
            return self.follow_up(site).await;
        }
        self.put_back_properties(site).await;
        self.check_stop()?;
        self.put_in_place(site).await
    }

    /// Does as a superuser what waited until the rows were compared.
    async fn finish(&mut self, objects: usize, late: &[LateStatement], site: &Site) -> Result<()> {
        let Some(restorer) = &site.restorer else {
            return Ok(());
        };
        let waiting = Waiting {
            statements: late,
            heir: &site.target.facts.user,
            plain_roles: &self.report.created_roles,
            is_scratch: self.options.is_scratch,
            is_lasting: site.plan == Plan::Fill,
            lock_wait: self.options.limits.lock_wait,
            around: if site.plan == Plan::Fill && !self.options.no_privileges {
                SetAside::new(&site.target.facts.default_rights)
            } else {
                SetAside::default()
            },
            objects,
            server_major: site.target.facts.major(),
        };
        // In a database that stays, the rows are committed by now, and nothing takes them back.
        let no_stop = CancellationToken::new();
        let stop = if site.plan == Plan::Fill {
            &no_stop
        } else {
            self.stop()
        };
        let application = format!("{}-end", site.application);
        let finished = restorer
            .finish(&site.psql, &application, &waiting, stop)
            .await;
        let Err((error, fate)) = finished else {
            return Ok(());
        };
        match fate {
            Fate::Done => {
                self.warn(format!(
                    "the connection was lost after the last COMMIT, which was done: {error}"
                ));
                return Ok(());
            }
            Fate::Unknown if site.plan == Plan::Fill => {
                (self.fate, self.is_end_unseen) = (Some(Fate::Unknown), true);
            }
            Fate::Unknown | Fate::Undone => {}
        }
        let failure = self.failed(&error);
        let said = "the rows are right, but the server refused to give them to their owners";
        Err(with_hint(
            of_statement(failure, &error, &self.what(), said),
            &error,
        ))
    }

    fn warn_not_compared(&mut self) {
        self.warn("nothing was compared, so it is not proven that the rows match the dump".into());
    }

    /// Drops what killed restores of this name left behind.
    async fn sweep(&mut self, site: &Site) {
        let Some(databases) = site.databases.as_ref().filter(|_| !self.options.is_scratch) else {
            return;
        };
        let (clock, name) = (&*self.context.clock, &site.target.name);
        match leftover::sweep(databases, name, clock, self.stop()).await {
            Ok(said) => self.report.warnings.extend(said),
            Err(error) => self.warn(format!(
                "cannot look for what killed restores may have left behind: {error}"
            )),
        }
    }

    async fn make_roles(&mut self, site: &Site, made: &mut Made) -> Result<()> {
        if !self.options.create_missing_roles {
            return Ok(());
        }
        let home = site
            .databases
            .clone()
            .unwrap_or_else(|| Databases::new(site.psql.clone()));
        let facts = &site.target.facts;
        let rights = if facts.is_superuser {
            String::new()
        } else {
            // Nobody else may give objects to a role that it is no member of.
            format!(" ROLE {}", quote(&facts.user))
        };
        for role in site.needs.missing_roles(&site.target.facts) {
            let sql = format!("CREATE ROLE {} NOLOGIN{rights}", quote(&role));
            home.execute(&sql, self.stop())
                .await
                .map_err(|error| self.failed(&error))?;
            made.roles.push(role);
        }
        self.report.created_roles.clone_from(&made.roles);
        self.give_rights_to_roles(&home, &made.roles).await
    }

    /// Makes of a platform's roles what they are there, as far as the restoring role may.
    async fn give_rights_to_roles(&mut self, home: &Databases, made: &[String]) -> Result<()> {
        if self.options.preset != Some(Preset::Supabase) {
            return Ok(());
        }
        for right in rights_of_roles(made) {
            if home.execute(&right.sql, self.stop()).await.is_err() {
                self.check_stop()?;
                self.report.stand_ins.push(right.lacks);
            }
        }
        Ok(())
    }

    fn stopped_inside(&self) -> Failure {
        self.context.stop.failure(&self.doing())
    }

    fn check_stop(&self) -> Result<()> {
        if self.context.stop.is_requested() {
            Err(self.stopped_inside())
        } else {
            Ok(())
        }
    }

    async fn compare(&mut self, expected: &[Expected], scan: &Scan, site: &Site) -> Result<()> {
        let progress = Arc::new(Progress::default());
        self.observer.note(Event::Comparing {
            progress: &progress,
            bytes: self.report.dump_bytes,
            tables: expected.iter().filter(|table| table.rows.is_some()).count() as u64,
        });
        let mut environment = self.request.environment.clone();
        if let Some(time_zone) = &self.options.dump_time_zone {
            environment.set("PGTZ", time_zone.as_str());
        }
        let check = Check {
            found: &site.found,
            environment: &environment,
            connection: site.reading(),
            ignored_schemas: site.platform.made_schemas(),
            encoding: site.needs.text_encoding(),
            is_platform: self.options.preset.is_some(),
            form: scan.text_form.as_ref().unwrap_or(&site.needs.form),
            progress,
        };
        let compared = check.run(expected, &scan.sequences, self.stop()).await;
        self.check_stop()?;
        let compared = compared.map_err(|error| self.failed(&error))?;
        let judged = check::judge(&self.what(), &compared, Some(scan.large_objects));
        self.take_note(compared);
        judged.map_err(|failure| self.hint_at_text_form(failure))
    }

    /// The text of a plain dump's rows depends on settings of the session that wrote it.
    fn hint_at_text_form(&self, failure: Failure) -> Failure {
        match self.request.source {
            Source::Stored { .. } => failure,
            Source::File(_) | Source::Stdin => failure.hint(
                "a plain dump has times in the time zone of the session that wrote it: `--dump-time-zone NAME` \
                 compares in that zone; amounts of money are read as the server's `lc_monetary` says, and \
                 `PGOPTIONS='-c lc_monetary=C'` in front \
                 reads those that pgkeep dumped; `--no-compare` restores without the proof",
            ),
        }
    }

    fn take_note(&mut self, compared: Compared) {
        self.report.compared = true;
        self.report.warnings.extend(compared.warnings);
        self.report.tables = compared.tables;
    }

    async fn put_in_place(&mut self, site: &Site) -> Result<()> {
        let Some(databases) = site
            .databases
            .as_ref()
            .filter(|_| site.name != site.target.name)
        else {
            return Ok(());
        };
        let name = &site.target.name;
        if site.plan == Plan::Create {
            self.name_it(site, databases).await?;
            // The tag stays until nobody needs it: a restore that is killed in front of the renaming is known by it.
            let sql = format!("COMMENT ON DATABASE {} IS NULL", quote(name));
            if let Err(error) = databases.execute(&sql, &self.no_stop).await {
                self.warn(format!(
                    "the comment of `{name}` is still pgkeep's: {error}"
                ));
            }
            return Ok(());
        }
        if site.needs.properties.comment.is_none() {
            let sql = format!("COMMENT ON DATABASE {} IS NULL", quote(&site.name));
            databases
                .execute(&sql, self.stop())
                .await
                .map_err(|error| self.failed(&error))?;
        }
        let kept = swap::kept_name(name, self.context.clock.now());
        // From here on nobody may stop it half-way; both renames are one transaction.
        let swapped = databases.swap(name, &site.name, &kept, &self.no_stop).await;
        if let Ok(ended @ 1..) = swapped {
            let noun = if ended == 1 { "session" } else { "sessions" };
            self.warn(format!(
                "{ended} {noun} of `{name}` had to be ended, and lost what was not committed"
            ));
        }
        if let Err(error) = swapped {
            // An answer may be lost behind the COMMIT.
            match databases.exists(&kept, &self.no_stop).await {
                Ok(true) => {}
                Ok(false) => return Err(self.failed(&error)),
                Err(_) => {
                    self.fate = Some(Fate::Unknown);
                    self.kept_as = Some(kept);
                    return Err(self.failed(&error));
                }
            }
            self.warn(format!(
                "the connection was lost after the renames, which were done: {error}"
            ));
        }
        for held in &site.target.facts.subscriptions {
            let subscription = &held.name;
            self.warn(format!(
                "the subscription `{subscription}` stays with the old database, `{kept}`: the restored one receives nothing; \
                 drop it there before you enable the one that was restored"
            ));
        }
        for held in &site.target.facts.slots {
            let slot = &held.name;
            self.warn(format!(
                "the replication slot `{slot}` stays with the old database, `{kept}`, and keeps its WAL: \
                 `SELECT pg_drop_replication_slot(...)` there frees it, and subscribers need one of the restored database"
            ));
        }
        self.report.replaced = Some(swap::replaced(name, &kept));
        Ok(())
    }

    /// Gives a fresh database the wanted name. What bears it by now is somebody else's, and stays.
    async fn name_it(&mut self, site: &Site, databases: &Databases) -> Result<()> {
        let name = &site.target.name;
        let Err(error) = databases.rename(&site.name, name, &self.no_stop).await else {
            return Ok(());
        };
        // An answer may be lost behind the renaming.
        match databases.exists(&site.name, &self.no_stop).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.failed(&error)),
            Err(_) => {
                self.fate = Some(Fate::Unknown);
                self.is_name_unseen = true;
                Err(self.failed(&error))
            }
        }
    }

    /// Leaves the target unchanged, and says so in the failure.
    async fn undo(&mut self, failure: Failure, site: &Site, made: &Made) -> Failure {
        if let Some(kept) = self.kept_as.take() {
            return self.unseen(failure, site, &kept);
        }
        if self.is_name_unseen {
            return self.unnamed(failure, site);
        }
        if self.is_end_unseen {
            self.report.is_unsure = true;
            return failure.and_safe(self.safe_words(site, made));
        }
        let cleaned = match self.stays.take() {
            Some(error) => Err(error),
            None => self.clean(site, made).await,
        };
        self.report.created &= cleaned.is_err();
        if site.plan == Plan::Fill && site.restorer.is_some() && cleaned.is_ok() {
            // Whatever became of the COMMIT, what it brought is gone again.
            self.fate = Some(Fate::Undone);
        }
        let failure = match &cleaned {
            Ok(()) => failure.and_safe(self.safe_words(site, made)),
            Err(error) => {
                let mut failure = failure.and_safe(&format!("cleaning up failed, too: {error}"));
                if is_subscribed(error) {
                    failure = failure.hint(
                        "a superuser frees it: in it `ALTER SUBSCRIPTION … DISABLE`, `ALTER SUBSCRIPTION … SET (slot_name = NONE)` \
                         and `DROP SUBSCRIPTION …` come first",
                    );
                }
                if made.database {
                    failure.hint(format!(
                        "`DROP DATABASE {}` removes what is left",
                        quote(&site.name)
                    ))
                } else {
                    failure.hint("look whether the database is still empty before you use it")
                }
            }
        };
        // What was restored, or may have been, needs its roles.
        let may_be_there = matches!(self.fate, Some(Fate::Done | Fate::Unknown));
        if site.plan == Plan::Fill && may_be_there {
            self.report.restored = self.fate == Some(Fate::Done);
            self.report.is_unsure = !self.report.restored;
        } else {
            self.drop_roles(site, made).await;
        }
        failure
    }

    /// The server answered neither the rename nor the question whether it was done, so nothing is dropped.
    fn unnamed(&mut self, failure: Failure, site: &Site) -> Failure {
        self.report.is_unsure = true;
        let name = &site.target.name;
        failure
            .and_safe("the database may or may not have got its name, and nothing was dropped")
            .hint(format!(
                "if `{name}` exists, it is the restored one; else `ALTER DATABASE {} RENAME TO {}` names it, or \
                 `DROP DATABASE` removes it",
                quote(&site.name),
                quote(name)
            ))
    }

    /// The server answered neither the renames nor the question whether they were done, and both may be. So nothing is
    /// dropped: what was restored may be in its place.
    fn unseen(&mut self, failure: Failure, site: &Site, kept: &str) -> Failure {
        self.report.is_unsure = true;
        let name = &site.target.name;
        failure
            .and_safe("the databases may or may not have been renamed, and nothing was dropped")
            .hint(format!(
                "if `{kept}` exists, it is the old database, and `{name}` is the restored one; else `{name}` is \
                 unchanged, and `DROP DATABASE {}` removes what was restored beside it",
                quote(&site.name)
            ))
    }

    /// What is safe depends on what became of the COMMIT.
    fn safe_words(&self, site: &Site, made: &Made) -> &'static str {
        match (site.plan, self.fate) {
            (Plan::Create | Plan::Replace, _) if made.is_left => "a database may be left behind",
            (Plan::Create, _) if !made.database => "nothing was changed",
            (Plan::Create, _) => "the database that was made for it was dropped",
            (Plan::Replace, _) => "the database was not changed",
            (Plan::Fill, Some(Fate::Done)) => {
                "the database was empty and now holds what was restored"
            }
            (Plan::Fill, Some(Fate::Unknown)) => {
                "the database may not be empty any more: look before you use it"
            }
            (Plan::Fill, _) => "the database is still empty",
        }
    }

    /// Drops a database that was made. What was done in one that was there is undone with its session.
    async fn clean(&self, site: &Site, made: &Made) -> std::result::Result<(), Error> {
        let (is_made, let_in) = (made.database, &made.let_in);
        match (&site.databases, &site.restorer) {
            (Some(databases), _) if is_made => {
                databases.drop_database(&site.name, &self.no_stop).await
            }
            (_, Some(restorer)) if site.plan == Plan::Fill => {
                restorer.undo(&site.psql, let_in, &self.no_stop).await
            }
            _ => Ok(()),
        }
    }

    /// Drops the plain role; where it was restored into a database that stays, it has nothing there any more.
    async fn drop_restorer(&mut self, site: &Site) {
        let Some(restorer) = &site.restorer else {
            return;
        };
        let home = site
            .databases
            .clone()
            .unwrap_or_else(|| Databases::new(site.psql.clone()));
        // However long ago the stop was: a role that can log in must not stay.
        if let Err(error) = restorer.drop(&home, &CancellationToken::new()).await {
            self.warn(format!(
                "the role `{}` was made and could not be dropped again: {error}",
                restorer.role
            ));
        }
    }

    async fn drop_roles(&mut self, site: &Site, made: &Made) {
        let home = site
            .databases
            .clone()
            .unwrap_or_else(|| Databases::new(site.psql.clone()));
        for role in &made.roles {
            if home
                .execute(&format!("DROP ROLE {}", quote(role)), &self.no_stop)
                .await
                .is_err()
            {
                self.warn(format!(
                    "the role `{role}` was made and could not be dropped again"
                ));
            }
        }
        self.report.created_roles.clear();
    }

    fn warn(&mut self, warning: String) {
        self.report.warnings.push(warning);
    }
}

/// What must be there again; tables of extensions that are left out are not.
fn expected_of(opened: &Opened, scan: &Scan, without: &Without) -> Vec<Expected> {
    let mut expected = opened
        .expected()
        .unwrap_or_else(|| scan.tables.iter().map(Expected::from).collect());
    expected.retain(|table| !without.tables.contains(&table.name));
    expected
}

/// Tells whether a plain role is to restore. Of a pipe it is not known beforehand what it needs.
fn is_divided(options: &Options, opened: &Opened, facts: &TargetFacts) -> bool {
    facts.is_superuser && !options.allow_superuser && !matches!(opened, Opened::Pipe)
}

/// What sequences must say again; those of extensions that are left out are not there.
fn sequences_of(scan: &Scan, without: &Without) -> Vec<SequenceValue> {
    let is_there = |sequence: &&SequenceValue| {
        let schema = sequence.name.schema_or_public();
        !without.schemas.iter().any(|gone| gone == schema)
    };
    scan.sequences.iter().filter(is_there).cloned().collect()
}

/// Free bytes on the server's disk, where the server runs here and its folder can be seen. A port of this machine may
/// be the end of a tunnel; a socket is not.
fn free_bytes(into: &Connection, environment: &Environment, facts: &TargetFacts) -> Option<u64> {
    let place = with_ambient_place(into, environment);
    let ambient = environment.for_connection(into);
    let is_socket = |host: &str| host.is_empty() || host.starts_with('/');
    let is_here = place.get("service").is_none()
        && ambient.get("PGSERVICE").is_none()
        && place.get("hostaddr").is_none()
        && place.hosts().iter().all(|(host, _)| is_socket(host));
    if !is_here {
        return None;
    }
    let found = rustix::fs::statvfs(facts.data_directory.as_deref()?).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The folder of a server elsewhere may have a namesake here.
    #[test]
    fn the_disk_is_judged_only_where_the_server_is_here() {
        let facts = TargetFacts {
            data_directory: Some("/".to_owned()),
            ..TargetFacts::default()
        };
        for (url, variable, is_judged) in [
            ("postgresql:///d", None, true),
            ("postgresql:///d?host=/run/postgresql", Some("PGHOST"), true),
            ("postgresql:///d", Some("PGHOST"), false),
            ("postgresql:///d", Some("PGHOSTADDR"), false),
            ("postgresql:///d", Some("PGSERVICE"), false),
            ("postgresql://localhost/d", None, false),
            ("postgresql:///d?service=x", None, false),
        ] {
            let variables = variable.map(|name| (name.into(), "192.0.2.1".into()));
            let environment = Environment::new(variables);
            let free = free_bytes(&url.parse().unwrap(), &environment, &facts);
            assert_eq!(free.is_some(), is_judged, "{url} {variable:?}");
        }
    }
}

//! Carries a plan out: one session, compared before its COMMIT, and how it is undone from each point where it may fail.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::target::Site;
use super::{APPLICATION, Job, Origin, Run, with_safe};
use crate::op::event::Event;
use crate::op::restore::check::{self, Compared};
use crate::op::restore::feed::refused;
use crate::op::restore::preflight::list;
use crate::op::restore::refusal::{of_statement, with_hint};
use crate::op::restore::restorer::{LetIn, Waiting};
use crate::op::restore::session::{Failed, Fate, From, Handed, Judge, Sessions, Supply};
use crate::op::restore::sink::Broken;
use crate::postgres::error::Error;
use crate::postgres::feed::Answers;
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::{TableName, quote};
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::defaults::{SetAside, also_for};
use pgkeep_model::restore::filter::LateStatement;
use pgkeep_model::restore::properties::literal;
use pgkeep_model::restore::script::{Asks, Ending, Rows, Script, Step};
use pgkeep_model::scan::{Scan, Table, TableKind};

const UTF8: &str = "\nSET client_encoding = 'UTF8';\n";

impl Run<'_> {
    /// Does it, or leaves the target unchanged.
    pub(super) async fn carry_out(&mut self, job: &Job<'_>) -> Result<()> {
        let application = format!("{APPLICATION}{}", self.context.clock.hex(4));
        self.make_database(&job.site, &application).await?;
        let brought = match self.let_restorer_in(job).await {
            Ok(()) => self.bring_in(job, &application).await,
            Err(failure) => Err(undone(failure)),
        };
        let done = match brought {
            Ok(late) => self.finish(job, &late, &application).await,
            Err(failed) => Err(self.take_back(&job.site, failed).await),
        };
        match done {
            Ok(()) => {
                let site = &job.site;
                // Else they are noted as they are made.
                if site.restorer.is_none() {
                    self.report.created_roles.clone_from(&site.missing_roles);
                }
                self.report.restored = !self.request.options.dry_run;
                if self.request.options.dry_run {
                    self.drop_roles(site).await;
                }
                Ok(())
            }
            Err(failed) => Err(self.undo(failed, job).await),
        }
    }

    /// Lets the plain role make the tables, and makes the roles that it may not make.
    async fn let_restorer_in(&mut self, job: &Job<'_>) -> Result<()> {
        let (site, options) = (&job.site, &self.request.options);
        let Some((restorer, _)) = &site.restorer else {
            return Ok(());
        };
        self.report.created_roles.clear();
        for (role, sql) in site.missing_roles.iter().zip(self.roles(site)) {
            let made = site.home().execute(&sql, self.stop()).await;
            made.map_err(|error| self.of_error(&error))?;
            self.report.created_roles.push(role.clone());
        }
        let targets = job.entries.iter().map(|(_, into)| into);
        let names = job.selection.names_to_ask();
        let all = targets.clone().chain(&names);
        let schemas: BTreeSet<&str> = all.map(TableName::schema_or_public).collect();
        let others = names
            .iter()
            .filter(|name| !targets.clone().any(|into| into == *name));
        let referred: Vec<TableName> = others.cloned().collect();
        // Who leaves the dump's rights out wants those that the database gives by itself.
        let defaults = if site.exists && options.no_privileges {
            also_for(&site.facts.default_rights, &site.facts.user, &restorer.role)
        } else {
            String::new()
        };
        restorer
            .let_make_tables(&site.psql, &schemas, &referred, &defaults, self.stop())
            .await
            .map_err(|error| self.refused_by_server(&error))
    }

    /// Does as a superuser what waited until the rows were compared and committed.
    async fn finish(
        &mut self,
        job: &Job<'_>,
        late: &[LateStatement],
        application: &str,
    ) -> std::result::Result<(), Failed> {
        let (site, options) = (&job.site, &self.request.options);
        let Some((restorer, _)) = site.restorer.as_ref().filter(|_| !options.dry_run) else {
            return Ok(());
        };
        let waiting = Waiting {
            statements: late,
            heir: &site.facts.user,
            plain_roles: &[],
            is_scratch: false,
            is_lasting: true,
            lock_wait: options.limits.lock_wait,
            around: if site.exists && !options.no_privileges {
                SetAside::new(&site.facts.default_rights)
            } else {
                SetAside::default()
            },
            objects: job.entries.len(),
            server_major: site.facts.major(),
        };
        let application = format!("{application}-end");
        // The rows are committed by now, so no stop leaves them half given away.
        let no_stop = CancellationToken::new();
        let finished = restorer
            .finish(&site.psql, &application, &waiting, &no_stop)
            .await;
        let Err((error, fate)) = finished else {
            return Ok(());
        };
        if fate == Fate::Done {
            self.report.warnings.push(format!(
                "the connection was lost after the last COMMIT, which was done: {error}"
            ));
            return Ok(());
        }
        let said = "the rows are right, but the server refused to give them to their owners";
        let told = of_statement(self.of_error(&error), &error, &self.what(), said);
        let mut failed = undone(with_hint(told, &error));
        failed.fate = fate;
        if fate == Fate::Undone {
            // The rows are there, and the role's.
            failed.fate = Fate::Done;
            failed = self.take_back(site, failed).await;
        }
        Err(failed)
    }

    /// Drops what the plain role committed, or may have, in a database that stays: nobody else's is what it owns.
    async fn take_back(&mut self, site: &Site, mut failed: Failed) -> Failed {
        let Some((restorer, _)) = site.restorer.as_ref().filter(|_| site.exists) else {
            return failed;
        };
        if failed.fate == Fate::Undone {
            return failed;
        }
        let made = LetIn::default();
        match restorer.undo(&site.psql, &made, &self.no_stop).await {
            Ok(()) => {
                failed.fate = Fate::Undone;
                failed.stays = None;
            }
            Err(error) => self.report.warnings.push(format!(
                "the restored tables could not be removed again: {error}"
            )),
        }
        failed
    }

    /// Drops the plain role again. However long ago the stop was: a role that can log in must not stay.
    pub(super) async fn drop_restorer(&mut self, site: &Site) {
        let Some((restorer, _)) = &site.restorer else {
            return;
        };
        if let Err(error) = restorer.drop(&site.home(), &CancellationToken::new()).await {
            self.report.warnings.push(format!(
                "the role `{}` was made and could not be dropped again: {error}",
                restorer.role
            ));
        }
    }

    /// Statements that make the roles that the dump speaks of and the server lacks.
    fn roles(&self, site: &Site) -> Vec<String> {
        if !self.request.options.create_missing_roles {
            return Vec::new();
        }
        let roles = site.missing_roles.iter();
        roles
            .map(|role| format!("CREATE ROLE {} NOLOGIN", quote(role)))
            .collect()
    }

    /// Drops the roles that this run made for the plain role, and none that somebody made meanwhile; otherwise they went
    /// with the transaction.
    async fn drop_roles(&mut self, site: &Site) {
        if site.restorer.is_none() {
            return;
        }
        for role in &self.report.created_roles {
            let sql = format!("DROP ROLE IF EXISTS {}", quote(role));
            if site.home().execute(&sql, &self.no_stop).await.is_err() {
                self.report.warnings.push(format!(
                    "the role `{role}` was made and could not be dropped again"
                ));
            }
        }
    }

    async fn undo(&mut self, failed: Failed, job: &Job<'_>) -> Failure {
        let failure = if self.context.stop.is_requested() {
            self.stopped_bare()
        } else {
            failed.failure
        };
        let site = &job.site;
        if let Some(databases) = &site.databases {
            return match databases.drop_database(&site.name, &self.no_stop).await {
                Ok(()) => {
                    self.report.created = false;
                    self.drop_roles(site).await;
                    with_safe(failure, "the database that was made for it was dropped")
                }
                Err(error) => with_safe(failure, &format!("cleaning up failed, too: {error}"))
                    .hint(format!(
                        "`DROP DATABASE {}` removes what is left",
                        quote(&site.name)
                    )),
            };
        }
        if let Some(error) = failed.stays {
            let warning = format!("the session may still be there: {error}");
            self.report.warnings.push(warning);
        }
        self.report.is_unsure = failed.fate == Fate::Unknown;
        if failed.fate == Fate::Done {
            self.report.restored = true;
            self.report.created_roles.clone_from(&site.missing_roles);
        }
        if failed.fate == Fate::Undone {
            self.drop_roles(site).await;
        }
        with_safe(
            failure,
            match failed.fate {
                Fate::Undone => "the target was not changed",
                Fate::Done => "the tables are in the target now: check them before you use them",
                Fate::Unknown => "the target may have been changed: look before you use it",
            },
        )
    }

    async fn bring_in(
        &mut self,
        job: &Job<'_>,
        application: &str,
    ) -> std::result::Result<Vec<LateStatement>, Failed> {
        let site = &job.site;
        let progress = Arc::new(Progress::default());
        let with_rows = job
            .entries
            .iter()
            .filter(|(entry, _)| entry.expected.rows.is_some());
        self.observer.note(Event::Restoring {
            progress: &progress,
            bytes: 0,
            tables: with_rows.count() as u64,
        });
        let time_zone = self.request.options.dump_time_zone.as_deref();
        let sessions = Sessions {
            doing: self.doing(),
            psql: site.restoring(),
            overseer: &site.psql,
            plain_role: site
                .restorer
                .as_ref()
                .map(|(restorer, _)| restorer.role.as_str()),
            application,
            server_major: site.facts.major(),
            encoding: site.needs.text_encoding(),
            time_zone: time_zone.unwrap_or("UTC"),
            form: &site.needs.form,
            is_lasting: site.databases.is_none(),
            limits: self.request.options.limits,
            pulse: Arc::clone(&self.pulse),
            progress,
            context: self.context,
        };
        let from = match &job.origin {
            Origin::Copy(stored, at, ranged) => From::Copy(stored, *at, Some(ranged)),
            Origin::File(path) => From::File(path, &self.request.identities),
        };
        let supply = Supply::new(from, job.encoding);
        let script = self.script(job);
        let mut judge = Judgement {
            run: self,
            job,
            compared: None,
            is_proven: false,
            is_equal: false,
        };
        let done = sessions.one(script, &supply, &mut judge).await;
        let (compared, is_equal) = (judge.compared.take(), judge.is_equal);
        self.take_note(compared, is_equal, done.is_ok());
        self.report.read_bytes += match &done {
            Ok(handed) => handed.read_bytes,
            Err(failed) => failed.read_bytes,
        };
        Ok(done?.late)
    }

    /// What the session carries out. What locks tables in use comes last, behind everything that takes long.
    fn script(&self, job: &Job<'_>) -> Script {
        let (site, options, plan) = (&job.site, &self.request.options, &job.plan);
        // The role that restores for a superuser is new, so nobody gave rights to what it makes.
        let aside = if site.exists && !options.no_privileges && site.restorer.is_none() {
            SetAside::new(&site.facts.default_rights)
        } else {
            SetAside::default()
        };
        let mut roles = UTF8.to_owned();
        if site.restorer.is_none() {
            roles.extend(self.roles(site).into_iter().map(|sql| sql + ";\n"));
        }
        let rows = job.entries.iter().map(|(entry, into)| Rows {
            of: entry.expected.name.clone(),
            into: into.clone(),
            blocks: entry.blocks.clone(),
        });
        Script {
            one_transaction: true,
            rules: self.rules(&site.facts),
            before: aside.before,
            steps: vec![
                Step::Own(format!("{roles}RESET client_encoding;\n")),
                Step::Text(plan.before.clone()),
                Step::Rows(rows.collect()),
                Step::End,
                Step::Text(plan.behind.clone()),
                Step::End,
                Step::Own(format!("{UTF8}{}", analyze(job))),
            ],
            last: vec![
                Step::Text(plan.locking.clone()),
                Step::Text(plan.last.clone()),
                Step::End,
                Step::Own(nothing_is_tied(job, &self.context.clock.hex(8))),
            ],
            behind: aside.behind,
            ending: if options.dry_run {
                Ending::RollBack
            } else {
                Ending::Commit
            },
        }
    }

    /// Takes note of how each table compares.
    fn take_note(&mut self, compared: Option<Compared>, is_equal: bool, is_done: bool) {
        if self.request.options.no_compare && is_done {
            let warning = "nothing was compared, so it is not proven that the rows match the dump";
            self.report.warnings.push(warning.to_owned());
        }
        let Some(compared) = compared else { return };
        self.report.compared = is_equal;
        for outcome in compared.tables {
            let mut restored = self.report.tables.iter_mut();
            if let Some(restored) =
                restored.find(|restored| restored.outcome.table == outcome.table)
            {
                restored.outcome = outcome;
            }
        }
    }

    /// An error of a statement is the target's answer to it.
    fn refused_by_server(&self, error: &Error) -> Failure {
        let says = |text: &str| error.stderr.iter().any(|line| line.contains(text));
        let said = "the server refused a statement";
        let told = of_statement(self.of_error(error), error, &self.what(), said);
        let mut failure = with_hint(told, error);
        let is_plain = self.plain_role_restores;
        if is_plain && (says("must be owner of") || says("permission denied for")) {
            failure = failure.hint(
                "pgkeep restores as a role without powers; if you trust the dump as you trust the server, \
                 `--allow-superuser` restores with all powers",
            );
        }
        if says("violates foreign key constraint") {
            failure = failure.hint(
                "rows that it refers to are gone: `--upsert` restores them, or `--schema-map public=rescued` \
                 restores the table into a schema of its own, without foreign keys to the others",
            );
        }
        if says("ERROR:  server \"") {
            failure = failure
                .hint("the server of a foreign table is not restored with it: create it first");
        }
        if says("does not exist") && !self.unknown.is_empty() {
            let names = list(&self.unknown);
            failure = failure.hint(if self.extensions.is_empty() { format!("neither the dump nor the target makes \
                {names}") } else { format!(
                    "neither the dump nor the target makes {names}: an extension may, and the dump's database had \
                     {}; run `CREATE EXTENSION` in the target first",
                    list(&self.extensions)
                ) });
        }
        failure
    }
}

/// A failure that left nothing behind in the target.
fn undone(failure: Failure) -> Failed {
    Failed {
        failure,
        fate: Fate::Undone,
        stays: None,
        read_bytes: 0,
        is_commit_sent: false,
    }
}

/// Holds single tables against what was dumped.
struct Judgement<'a, 'r> {
    run: &'a Run<'r>,
    job: &'a Job<'a>,
    compared: Option<Compared>,
    /// Whether the rows were proven.
    is_proven: bool,
    /// Whether they are in the target as they were dumped.
    is_equal: bool,
}

impl Judge for Judgement<'_, '_> {
    /// The first text holds the rows, and what stands in front of them.
    fn text_ended(&mut self, scan: &Scan) -> Result<()> {
        if self.is_proven {
            return Ok(());
        }
        self.is_proven = true;
        self.prove_rows(scan)
    }

    fn prove(&mut self, _: &Handed) -> Result<Option<Asks>> {
        let no_compare = self.run.request.options.no_compare;
        Ok(Some(Asks {
            notes: String::new(),
            tables: questions(self.job, no_compare),
            form: None,
            encoding: None,
        }))
    }

    fn judge(&mut self, answers: Answers) -> Result<()> {
        if self.run.request.options.no_compare {
            return Ok(());
        }
        let entries = self.job.entries.iter();
        let expected: Vec<Expected> = entries.map(|(entry, _)| entry.expected.clone()).collect();
        let compared = check::compare_answers(&expected, answers.scan);
        let judged = check::judge(&self.run.what(), &compared, None);
        self.compared = Some(compared);
        self.is_equal = judged.is_ok();
        judged.map_err(|failure| match &self.job.origin {
            Origin::Copy(..) => failure,
            Origin::File(_) => failure.hint(
                "a plain dump has times in the time zone of the session that wrote it: `--dump-time-zone NAME` \
                 compares in that zone; amounts of money are read as the server's `lc_monetary` says, and \
                 `PGOPTIONS='-c lc_monetary=C'` in front \
                 reads those that pgkeep dumped; `--no-compare` restores without the proof",
            ),
        })
    }

    fn broken(&self, broken: Broken) -> Failure {
        match broken {
            Broken::Refused(refusal) if refusal.id == "dump_damaged" => {
                self.damaged("its text", &refusal.why)
            }
            Broken::Refused(refusal) => refused(&self.run.what(), &refusal),
            Broken::Damaged { of, why } => {
                self.damaged(of.as_deref().unwrap_or("its structure"), &why)
            }
            Broken::Unreadable(failure) => *failure,
            Broken::Aside(error) => self.run.refused_by_server(&error),
            Broken::TooLong | Broken::Gone => self.damaged("its rows", "their end is missing"),
        }
    }

    fn refused(&self, error: &Error) -> Failure {
        self.run.refused_by_server(error)
    }
}

impl Judgement<'_, '_> {
    fn damaged(&self, of: &str, why: &str) -> Failure {
        match &self.job.origin {
            Origin::Copy(_, _, ranged) => ranged.damaged(of, why),
            Origin::File(_) => {
                let message = format!("{}: {of}: {why}", self.run.what());
                Failure::new(Kind::Damaged, "rows_damaged", message)
                    .hint("the file changed while it was read")
            }
        }
    }

    /// Holds what was handed on against what is known of the rows.
    fn prove_rows(&self, scan: &Scan) -> Result<()> {
        let job = self.job;
        // Rows of anything else have no digest here, and nobody asked for them.
        let is_known = |name: &TableName| {
            let mut entries = job.entries.iter();
            entries.any(|(entry, into)| into == name && entry.expected.digest.is_some())
        };
        let with_rows = scan.tables.iter().filter(|table| table.rows.is_some());
        let mut names = with_rows.map(Table::full_name);
        if let Some(name) = names.find(|name| !is_known(name)) {
            let why = "its rows are among those of the restored tables";
            return Err(self.damaged(&format!("`{name}`"), why));
        }
        for (entry, into) in &job.entries {
            let (Some(rows), Some(digest)) = (entry.expected.rows, entry.expected.digest) else {
                continue;
            };
            let mut tables = scan.tables.iter();
            let table = tables.find(|table| table.full_name() == *into);
            let found = table.and_then(|table| Some((table.rows?, table.digest?)));
            if found != Some((rows, digest)) {
                let of = format!("`{}`", entry.expected.name);
                let why = "its rows differ from the dump";
                return Err(self.damaged(&of, why));
            }
        }
        Ok(())
    }
}

/// The planner knows nothing of fresh tables; a foreign one may be out of reach.
fn analyze(job: &Job<'_>) -> String {
    let tables = job.entries.iter();
    tables
        .filter(|(entry, _)| entry.expected.kind != Some(TableKind::Foreign))
        .map(|(_, into)| format!("ANALYZE {};\n", into.quoted()))
        .collect()
}

/// Each table with rows, by its name in the dump and what to copy in the target.
fn questions(job: &Job<'_>, no_compare: bool) -> Vec<(String, String)> {
    let with_rows = job
        .entries
        .iter()
        .filter(|(entry, _)| entry.expected.rows.is_some() && !no_compare);
    with_rows
        .map(|(entry, into)| {
            let expected = &entry.expected;
            let columns = expected.columns.as_deref().unwrap_or_default();
            let names = columns.iter().map(|column| quote(column));
            let columns = names.collect::<Vec<_>>().join(", ");
            let (name, into) = (expected.name.quoted(), into.quoted());
            let is_root = expected.kind == Some(TableKind::Partitioned);
            let what = match (is_root, columns.as_str()) {
                (true, "") => format!("(SELECT * FROM {into})"),
                (true, _) => format!("(SELECT {columns} FROM {into})"),
                (false, "") => into,
                (false, _) => format!("{into} ({columns})"),
            };
            (name, what)
        })
        .collect()
}

/// SQL that fails when anything made by this transaction depends on a table or sequence of which it made a copy.
///
/// The catalogue knows what a default, a check, an index, a policy or a rule refers to, whatever its text looks like.
/// Functions stay in their own schema, and so does what they refer to.
fn nothing_is_tied(job: &Job<'_>, key: &str) -> String {
    let mut names: Vec<String> = job
        .selection
        .moved()
        .map(|name| {
            format!(
                "({}, {})",
                literal(name.schema_or_public()),
                literal(&name.name)
            )
        })
        .collect();
    if names.is_empty() {
        return String::new();
    }
    names.sort();
    format!(
        "{UTF8}SET search_path = pg_catalog;
SET standard_conforming_strings = on;
DO $k{key}$ DECLARE tied text; BEGIN
  SELECT string_agg(DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid), ', ') INTO tied
  FROM pg_depend d JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE (n.nspname::text, c.relname::text) IN (VALUES {})
    AND d.classid <> 'pg_proc'::regclass
    AND d.xmin::text = (txid_current() % 4294967296)::text;
  IF tied IS NOT NULL THEN
    RAISE EXCEPTION 'the copy would depend on the table it is a copy of: %', tied;
  END IF;
END $k{key}$;
",
        names.join(", ")
    )
}

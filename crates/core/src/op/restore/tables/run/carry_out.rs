//! Carries a plan out: one session, compared before its COMMIT, and the way back from each point where it may fail.

use std::sync::Arc;

use super::{APPLICATION, Job, Origin, Run, with_safe};
use crate::op::event::Event;
use crate::op::restore::check::{self, Compared};
use crate::op::restore::feed::refused;
use crate::op::restore::preflight::list;
use crate::op::restore::refusal::{of_statement, with_hint};
use crate::op::restore::session::{Failed, Fate, From, Handed, Judge, Sessions, Supply};
use crate::op::restore::sink::Broken;
use crate::postgres::error::Error;
use crate::postgres::feed::Answers;
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::{TableName, quote};
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::defaults::SetAside;
use pgkeep_model::restore::properties::literal;
use pgkeep_model::restore::script::{Asks, Ending, Rows, Script, Step};
use pgkeep_model::scan::{Scan, Table, TableKind};

const UTF8: &str = "\nSET client_encoding = 'UTF8';\n";

impl Run<'_> {
    /// Does it, or leaves the target as it was.
    pub(super) async fn carry_out(&mut self, job: Job<'_>) -> Result<()> {
        let application = format!("{APPLICATION}{}", self.context.clock.hex(4));
        self.make_database(&job.site, &application).await?;
        match self.bring_in(&job, &application).await {
            Ok(()) => Ok(()),
            Err(failed) => Err(self.undo(failed, &job).await),
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
                    with_safe(failure, "the database that was made for it is gone again")
                }
                Err(error) => with_safe(failure, &format!("cleaning up failed, too: {error}"))
                    .hint(format!(
                        "`DROP DATABASE {}` removes what is left",
                        quote(&site.name)
                    )),
            };
        }
        if let Some(error) = failed.stays {
            let warning = format!("whether the session is gone cannot be seen: {error}");
            self.report.warnings.push(warning);
        }
        self.report.is_unsure = failed.fate == Fate::Unknown;
        if failed.fate == Fate::Done {
            self.report.restored = true;
            self.report.created_roles.clone_from(&site.missing_roles);
        }
        with_safe(
            failure,
            match failed.fate {
                Fate::Undone => "the target is as it was",
                Fate::Done => "the tables are in the target now: look at them before you use them",
                Fate::Unknown => {
                    "whether the target is as it was cannot be seen: look before you use it"
                }
            },
        )
    }

    async fn bring_in(
        &mut self,
        job: &Job<'_>,
        application: &str,
    ) -> std::result::Result<(), Failed> {
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
            psql: &site.psql,
            overseer: &site.psql,
            plain_role: None,
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
            Origin::File(path) => From::File(path),
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
        done?;
        self.report
            .created_roles
            .clone_from(&job.site.missing_roles);
        self.report.restored = !self.request.options.dry_run;
        Ok(())
    }

    /// What the session carries out. What locks tables in use comes last, behind everything that takes long.
    fn script(&self, job: &Job<'_>) -> Script {
        let (site, options, plan) = (&job.site, &self.request.options, &job.plan);
        let aside = if site.exists && !options.no_privileges {
            SetAside::new(&site.facts.default_rights)
        } else {
            SetAside::default()
        };
        let mut roles = UTF8.to_owned();
        if options.create_missing_roles {
            for role in &site.missing_roles {
                roles += &format!("CREATE ROLE {} NOLOGIN;\n", quote(role));
            }
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
            let warning =
                "nothing was compared: that its rows are as they were dumped is not proven";
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
        if says("violates foreign key constraint") {
            failure = failure.hint(
                "rows that it refers to are gone: `--upsert` brings them back, or `--schema-map public=rescued` puts the \
                 table beside the others, where foreign keys to them are left out",
            );
        }
        if says("ERROR:  server \"") {
            failure = failure
                .hint("the server of a foreign table does not come back with it: make it first");
        }
        if says("does not exist") && !self.unknown.is_empty() {
            let names = list(&self.unknown);
            failure = failure.hint(if self.extensions.is_empty() { format!("neither the dump nor the target makes {names}") } else { format!(
                    "neither the dump nor the target makes {names}: an extension may, and the dump's database had {}; \
                     `CREATE EXTENSION` in the target comes first",
                    list(&self.extensions)
                ) });
        }
        failure
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
                "a plain dump has times in the time zone of whoever wrote it: `--dump-time-zone NAME` compares in that \
                 one; amounts of money are read as the server's `lc_monetary` says, and `PGOPTIONS='-c lc_monetary=C'` in front \
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
            Broken::TooLong | Broken::Aside(_) | Broken::Gone => {
                self.damaged("its rows", "they do not end")
            }
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
            let why = "its rows are among those of the tables that come back";
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
                let why = "its rows are not the ones that were dumped";
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

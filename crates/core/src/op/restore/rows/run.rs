//! One merge from the first question to the COMMIT.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Merged, Report};
use crate::context::Context;
use crate::copies::{Ranged, Stored};
use crate::op::event::{Event, Observer};
use crate::op::restore::leftover;
use crate::op::restore::preflight::{self, Needs};
use crate::op::restore::refusal::of_statement;
use crate::op::restore::restorer::{NoRestorer, Restorer, not_let_in, not_made};
use crate::op::restore::session::{Fate, From as Origin, Handed, Judge, Sessions, Supply};
use crate::op::restore::sink::Broken;
use crate::op::restore::stall::Pulse;
use crate::op::restore::{Chosen, Request, Source};
use crate::op::restore::{HINDERED, SQL_FAILED, check};
use crate::postgres::databases::Databases;
use crate::postgres::error::Error;
use crate::postgres::feed::Answers;
use crate::postgres::programs::Programs;
use crate::postgres::psql::Psql;
use crate::postgres::tables;
use crate::postgres::target::TargetFacts;
use crate::stream::pipeline::Progress;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::TableRecord;
use pgkeep_model::merge::{Counts, Mode, Plan, TargetTable, parents_first, script};
use pgkeep_model::name::TableName;
use pgkeep_model::nearest::did_you_mean;
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::script::{Asks, Ending, Rows, Script};
use pgkeep_model::scan::{Scan, TextEncoding};

/// The first major whose catalog tells all that is asked: generated columns, partition trees.
const MIN_MAJOR: u32 = 12;

const SAFE: &str = "the target was not changed";

/// One merge under way.
pub(in crate::op::restore) struct Run<'a> {
    request: &'a Request,
    mode: Mode,
    chosen: &'a Chosen,
    context: &'a Context,
    observer: &'a dyn Observer,
    report: Report,
    /// What became of the transaction of the last session, where one failed, and whether its COMMIT was sent.
    fate: Option<(Fate, bool)>,
}

/// A table of the backup and the one that it goes into, decided.
struct Pair {
    record: TableRecord,
    table: TargetTable,
    columns: Vec<String>,
}

impl Pair {
    fn plan(&self, number: usize, mode: Mode) -> Plan<'_> {
        Plan {
            table: &self.table,
            columns: &self.columns,
            mode,
            number,
        }
    }
}

impl<'a> Run<'a> {
    pub(in crate::op::restore) fn new(
        request: &'a Request,
        mode: Mode,
        chosen: &'a Chosen,
        context: &'a Context,
        observer: &'a dyn Observer,
    ) -> Self {
        let report = Report {
            backup_id: None,
            storage: None,
            target: request.into.label(),
            mode: match mode {
                Mode::Upsert => "upsert",
                Mode::Append => "data-only",
            },
            dry_run: request.options.dry_run,
            merged: false,
            compared: false,
            tables: Vec::new(),
            read_bytes: 0,
            started_at: context.clock.now(),
            took_ms: 0,
            warnings: Vec::new(),
            notices: Vec::new(),
            failure: None,
            is_unsure: false,
        };
        Self {
            request,
            mode,
            chosen,
            context,
            observer,
            report,
            fate: None,
        }
    }

    pub(in crate::op::restore) async fn run(mut self) -> Report {
        let started = self.context.clock.monotonic();
        if let Err(failure) = self.try_run().await {
            let is_stopped = self.context.stop.is_requested();
            self.report.failure = Some(match self.fate {
                Some((fate, is_sent)) => in_words(failure, fate, is_sent),
                // What was done is done: the failure is about what is stored.
                None if failure.kind == Kind::AfterGood || self.report.merged => failure,
                None if is_stopped => self.stopped(),
                None => with_safe(failure),
            });
        }
        self.report.took_ms = self.context.clock.millis_since(started);
        self.report
    }

    fn what(&self) -> String {
        format!("{} failed", self.doing())
    }

    fn stopped(&self) -> Failure {
        self.context.stop.failure(&self.doing()).and_safe(SAFE)
    }

    fn doing(&self) -> String {
        format!("merging rows into `{}`", self.report.target)
    }

    fn failed(&self, error: &Error) -> Failure {
        failed(&self.doing(), error)
    }

    async fn try_run(&mut self) -> Result<()> {
        let Source::Stored {
            storages,
            database,
            wanted,
        } = &self.request.source
        else {
            return Err(no_backup());
        };
        let stop = self.context.stop.token();
        let now = self.context.clock.now();
        let stored = tokio::select! {
            stored = Stored::open(storages, database.clone(), wanted, now) => stored?,
            () = stop.cancelled() => return Err(self.stopped()),
        };
        self.report.backup_id = Some(stored.manifest.id.to_string());
        self.report.warnings.extend(stored.warnings());
        let unlocked = stored.unlock(&self.what(), &self.context.stop).await;
        unlocked.map_err(|failure| failure.and_safe(SAFE))?;
        let records = self.records(&stored)?;
        let found = self
            .request
            .search
            .find(&self.request.environment, stop)
            .await;
        let programs = found.newest().map_err(|error| self.failed(&error))?;
        let psql = Psql::new(programs, &self.request.environment, &self.request.into);
        let facts = TargetFacts::read(&psql, stop)
            .await
            .map_err(|error| self.failed(&error))?;
        if facts.major() < MIN_MAJOR {
            return Err(self.refused(
                "server_too_old",
                vec![format!(
                    "the server is PostgreSQL {}, and this needs {MIN_MAJOR} or later",
                    facts.version
                )],
            ));
        }
        let restorer = self.restorer(&records, &psql, programs, &facts).await?;
        let done = match &restorer {
            Some((_, restoring)) => self.carry_out(&stored, records, restoring, &facts).await,
            None => self.carry_out(&stored, records, &psql, &facts).await,
        };
        if let Some((restorer, _)) = restorer {
            let (home, no_stop) = (Databases::new(psql), CancellationToken::new());
            if let Err(error) = restorer.drop(&home, &no_stop).await {
                self.report.warnings.push(format!(
                    "the role `{}` was made and could not be dropped again: {error}",
                    restorer.role
                ));
            }
        }
        done
    }

    /// Makes a plain role that does for a superuser what the tables' owners may: indexes, checks and defaults of the
    /// target call its functions.
    async fn restorer(
        &mut self,
        records: &[TableRecord],
        psql: &Psql,
        programs: &Programs,
        facts: &TargetFacts,
    ) -> Result<Option<(Restorer, Psql)>> {
        let rights = "; `GRANT <the owner of the tables> TO restorer`";
        let options = &self.request.options;
        let Some(problem) = preflight::powers(&Needs::default(), facts, rights, options) else {
            return Ok(None);
        };
        let stop = self.context.stop.token();
        let refused = |details: Vec<String>| {
            let into = &self.request.into;
            preflight::failure(into, &facts.database, true, vec![problem.clone()])
                .with_details(details)
        };
        if !facts.is_superuser {
            let into = &self.request.into;
            return Err(preflight::failure(
                into,
                &facts.database,
                true,
                vec![problem],
            ));
        }
        let (home, of) = (Databases::new(psql.clone()), &self.request.into);
        let environment = &self.request.environment;
        let asks = |connection: &Connection| Psql::new(programs, environment, connection);
        let tag = leftover::tag(self.report.started_at);
        let clock = &*self.context.clock;
        if !options.dry_run {
            let swept = leftover::sweep_roles(&home, clock, stop).await;
            self.report.warnings.extend(leftover::said_of_roles(swept));
        }
        let restorer = match Restorer::make((&home, of), &asks, &tag, clock, stop).await {
            Ok(restorer) => restorer,
            Err(NoRestorer::Failed(error, left)) => {
                let doing = "making a role without powers that merges";
                return Err(not_made(error.to_failure(doing, SAFE), left));
            }
            Err(NoRestorer::NoLogin(error)) => return Err(refused(vec![not_let_in(&error)])),
        };
        let tables: Vec<TableName> = records.iter().map(|record| self.mapped(record)).collect();
        let acting = restorer.act_for_owners(psql, &tables, stop).await;
        let needed = match acting {
            Ok(needed) if needed.is_empty() => {
                let connection = restorer
                    .connection(&facts.database)
                    .map_err(|error| self.failed(&error))?;
                return Ok(Some((restorer, asks(&connection))));
            }
            Ok(needed) => Ok(needed),
            Err(error) => Err(self.failed(&error)),
        };
        if let Err(error) = restorer.drop(&home, &CancellationToken::new()).await {
            self.report.warnings.push(format!(
                "the role `{}` was made and could not be dropped again: {error}",
                restorer.role
            ));
        }
        Err(refused(needed?).hint("or `ALTER TABLE … OWNER TO` a role without such powers"))
    }

    async fn carry_out(
        &mut self,
        stored: &Stored,
        records: Vec<TableRecord>,
        psql: &Psql,
        facts: &TargetFacts,
    ) -> Result<()> {
        let pairs = self.pairs(records, psql).await?;
        let mut bad_copies = Vec::new();
        let what = self.what();
        let merged = stored
            .try_copies(&what, &mut bad_copies, async |at| {
                self.merge(stored, at, psql, facts.major(), &pairs).await
            })
            .await;
        for message in &bad_copies {
            let warning = format!("trying another copy: {message}");
            self.report.warnings.push(warning);
        }
        match merged {
            Ok(()) => stored.after_good("the rows are in their tables", &bad_copies),
            Err(failure) => Err(stored.unless_removed(&what, failure).await),
        }
    }

    /// Returns the tables of the backup that are meant; a partitioned one means its partitions.
    fn records(&self, stored: &Stored) -> Result<Vec<TableRecord>> {
        let all = &stored.manifest.tables;
        let has_rows = |record: &&TableRecord| record.rows.is_some() && !record.blocks.is_empty();
        if self.chosen.tables.is_empty() {
            return Ok(all.iter().filter(has_rows).cloned().collect());
        }
        let mut records: Vec<TableRecord> = Vec::new();
        for name in &self.chosen.tables {
            let full = TableName::new(name.schema_or_public(), name.name.clone());
            let Some(record) = all.iter().find(|record| record.full_name() == full) else {
                let known: Vec<String> = all
                    .iter()
                    .map(|record| record.full_name().to_string())
                    .collect();
                let near = did_you_mean(&full.to_string(), known.iter().map(String::as_str));
                let message = format!(
                    "{}: `{}` has no table `{name}`{near}; {SAFE}",
                    self.what(),
                    stored.manifest.id
                );
                return Err(Failure::new(Kind::NotFound, "no_such_table", message));
            };
            let mut tree = vec![record];
            let mut at = 0;
            while let Some(parent) = tree.get(at).map(|record| record.full_name()) {
                let is_child = |record: &&TableRecord| {
                    let of = record.parent.as_ref();
                    of.is_some_and(|of| TableName::new(&of.schema, &of.name) == parent)
                };
                tree.extend(all.iter().filter(is_child));
                at += 1;
            }
            let with_rows: Vec<&TableRecord> = tree.into_iter().filter(has_rows).collect();
            if with_rows.is_empty() {
                let message = format!(
                    "{}: the backup holds no rows of `{name}`; {SAFE}",
                    self.what()
                );
                return Err(Failure::new(Kind::NotFound, "no_rows", message));
            }
            for record in with_rows {
                if !records.contains(record) {
                    records.push(record.clone());
                }
            }
        }
        Ok(records)
    }

    fn mapped(&self, record: &TableRecord) -> TableName {
        let map = self.chosen.schema_map.iter();
        let to = map
            .rev()
            .find(|(from, _)| *from == record.schema)
            .map_or(&record.schema, |(_, to)| to);
        TableName::new(to, &record.name)
    }

    /// Finds each table in the target and names all that prevents the merge at once, in the order of filling.
    async fn pairs(&mut self, records: Vec<TableRecord>, psql: &Psql) -> Result<Vec<Pair>> {
        let names: Vec<TableName> = records.iter().map(|record| self.mapped(record)).collect();
        let stop = self.context.stop.token();
        let found = tables::read(psql, &names, stop)
            .await
            .map_err(|error| self.failed(&error))?;
        let (mut pairs, mut problems) = (Vec::new(), Vec::new());
        for (record, table) in records.into_iter().zip(found) {
            let columns = record.columns.as_deref().unwrap_or_default().to_vec();
            let problem = match record.digest {
                None => Some("its rows are INSERT statements".to_owned()),
                Some(_) => table.problem(&columns, self.mode),
            };
            // Every table is meant that rows can be merged into, and no other.
            let is_keyless = self.mode == Mode::Upsert
                && table.kind.is_some()
                && problem.is_some()
                && problem == table.key_problem(&columns);
            match problem {
                None => pairs.push(Pair {
                    record,
                    table,
                    columns,
                }),
                Some(why) if is_keyless && self.chosen.tables.is_empty() => {
                    self.report
                        .warnings
                        .push(format!("`{}` is left out: {why}", record.full_name()));
                }
                Some(why) => problems.push(format!("`{}`: {why}", table.table_name())),
            }
        }
        if self.mode == Mode::Append && problems.is_empty() {
            let there: Vec<TargetTable> = pairs.iter().map(|pair| pair.table.clone()).collect();
            let are_filled =
                tables::hold_rows(psql, &there, self.request.options.limits.lock_wait, stop)
                    .await
                    .map_err(|error| self.failed(&error))?;
            let filled = there.iter().zip(are_filled).filter(|(_, filled)| *filled);
            problems.extend(
                filled.map(|(table, _)| format!("`{}`: it already has rows", table.table_name())),
            );
        }
        if !problems.is_empty() {
            return Err(self.refused("merge_refused", problems));
        }
        if pairs.is_empty() {
            return Err(self.refused(
                "merge_refused",
                vec!["no table has rows in the backup and a primary key in the target".to_owned()],
            ));
        }
        for pair in pairs.iter().filter(|pair| !pair.table.triggers.is_empty()) {
            let triggers: Vec<&str> = pair
                .table
                .triggers
                .iter()
                .map(|trigger| trigger.name.as_str())
                .collect();
            self.report.warnings.push(format!(
                "triggers of `{}` do not fire for these rows: {}",
                pair.table.table_name(),
                triggers.join(", ")
            ));
        }
        let tables: Vec<TargetTable> = pairs.iter().map(|pair| pair.table.clone()).collect();
        let mut pairs: Vec<Option<Pair>> = pairs.into_iter().map(Some).collect();
        Ok(parents_first(&tables)
            .into_iter()
            .filter_map(|at| pairs[at].take())
            .collect())
    }

    fn refused(&self, id: &'static str, problems: Vec<String>) -> Failure {
        let message = format!(
            "will not merge rows into `{}`: {}; {SAFE}",
            self.report.target,
            problems.join("; ")
        );
        let failure = Failure::new(Kind::Refused, id, message);
        match self.mode {
            Mode::Append => failure
                .hint("`--upsert` merges rows into a table that holds some, by its primary key"),
            Mode::Upsert if failure.message.contains("row-level security") => {
                failure.hint(
                    "merge as a role with BYPASSRLS, or as a superuser with `--allow-superuser`, where you trust the dump as you \
                     trust the server",
                )
            }
            Mode::Upsert if failure.message.contains("its rule `") => failure.hint(
                "`ALTER TABLE … DISABLE RULE …` for the time of the merge, or leave the table out",
            ),
            Mode::Upsert => failure.hint(
                "`pgkeep extract` writes one table's rows as SQL, CSV or JSON Lines \
                without any server",
            ),
        }
    }

    async fn merge(
        &mut self,
        stored: &Stored,
        at: usize,
        psql: &Psql,
        server_major: u32,
        pairs: &[Pair],
    ) -> Result<()> {
        self.fate = None;
        let what = self.what();
        let opening = Ranged::open(stored, at, &what, self.context.stop.clone());
        let stop = self.context.stop.token().clone();
        let ranged = tokio::select! {
            opened = opening => opened?,
            () = stop.cancelled() => return Err(self.stopped()),
        };
        let dump = &stored.manifest.dump;
        let encoding = dump.client_encoding.as_deref().unwrap_or("UTF8");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !encoding.bytes().all(is_plain) {
            return Err(ranged.contradicts("its encoding is not a plain word"));
        }
        let blocks = pairs.iter().flat_map(|pair| &pair.record.blocks);
        let progress = Arc::new(Progress::default());
        self.observer.note(Event::Restoring {
            progress: &progress,
            bytes: blocks.map(|record| record.block.length).sum(),
            tables: pairs.len() as u64,
        });
        let application = format!("pgkeep-restore-{}", self.context.clock.hex(4));
        let form = stored.manifest.server.text_form();
        let sessions = Sessions {
            doing: self.doing(),
            psql,
            overseer: psql,
            plain_role: None,
            application: &application,
            server_major,
            encoding,
            time_zone: "UTC",
            form: &form,
            is_lasting: true,
            limits: self.request.options.limits,
            pulse: Arc::new(Pulse::default()),
            progress,
            context: self.context,
        };
        let from = Origin::Copy(stored, at, Some(&ranged));
        let supply = Supply::new(from, TextEncoding::named(encoding));
        let plans = self.plans(pairs);
        let mut judge = Judgement {
            doing: self.doing(),
            pairs,
            asks: script::asks(&plans, &names(pairs)),
            ranged: &ranged,
            merged: Vec::new(),
        };
        let script = self.script(&plans, pairs, encoding);
        let done = sessions.one(script, &supply, &mut judge).await;
        if !judge.merged.is_empty() {
            self.report.compared = true;
            self.report.tables = judge.merged;
        }
        match done {
            Ok(handed) => {
                self.report.storage = Some(stored.storage_name(at).to_owned());
                self.report.read_bytes = handed.read_bytes;
                self.report.merged = !self.request.options.dry_run;
                Ok(())
            }
            Err(failed) => {
                if let Some(error) = failed.stays {
                    let warning = format!("the session may still be there: {error}");
                    self.report.warnings.push(warning);
                }
                self.report.merged = failed.fate == Fate::Done;
                self.report.is_unsure = failed.fate == Fate::Unknown;
                if failed.fate != Fate::Undone {
                    self.report.storage = Some(stored.storage_name(at).to_owned());
                    self.report.read_bytes = failed.read_bytes;
                }
                self.fate = Some((failed.fate, failed.is_commit_sent));
                Err(failed.failure)
            }
        }
    }

    fn plans<'p>(&self, pairs: &'p [Pair]) -> Vec<Plan<'p>> {
        let mode = self.mode;
        let numbered = pairs.iter().enumerate();
        numbered
            .map(|(number, pair)| pair.plan(number, mode))
            .collect()
    }

    fn script(&self, plans: &[Plan<'_>], pairs: &[Pair], encoding: &str) -> Script {
        let rows = pairs.iter().zip(plans).map(|(pair, plan)| Rows {
            of: pair.record.full_name(),
            into: plan.rows(),
            blocks: pair
                .record
                .blocks
                .iter()
                .map(|record| record.block)
                .collect(),
        });
        let ending = if self.request.options.dry_run {
            Ending::RollBack
        } else {
            Ending::Commit
        };
        script::of(plans, rows.collect(), encoding, ending)
    }
}

/// The name that each table's rows are read back by.
fn names(pairs: &[Pair]) -> Vec<String> {
    let names = pairs.iter().map(|pair| pair.record.full_name().quoted());
    names.collect()
}

/// Holds one merge against the manifest, and takes note of what it did.
struct Judgement<'a> {
    doing: String,
    pairs: &'a [Pair],
    asks: Asks,
    ranged: &'a Ranged<'a>,
    merged: Vec<Merged>,
}

impl Judgement<'_> {
    fn what(&self) -> String {
        format!("{} failed", self.doing)
    }
}

impl Judge for Judgement<'_> {
    fn text_ended(&mut self, scan: &Scan) -> Result<()> {
        for (number, pair) in self.pairs.iter().enumerate() {
            let plan = pair.plan(number, Mode::Append);
            let mut tables = scan.tables.iter();
            let table = tables.find(|table| table.full_name() == plan.rows());
            let found = table.map(|table| (table.rows.unwrap_or(0), table.digest));
            let dumped = (pair.record.rows.unwrap_or(0), pair.record.digest);
            if found != Some(dumped) {
                let of = format!("`{}`", pair.record.full_name());
                let why = "its rows do not match the manifest";
                return Err(self.ranged.damaged(&of, why));
            }
        }
        Ok(())
    }

    fn prove(&mut self, _: &Handed) -> Result<Option<Asks>> {
        Ok(Some(self.asks.clone()))
    }

    fn judge(&mut self, answers: Answers) -> Result<()> {
        let expected: Vec<Expected> = self
            .pairs
            .iter()
            .map(|pair| Expected::from(&pair.record))
            .collect();
        let counts: Vec<Counts> = answers
            .notes
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if counts.len() != self.pairs.len() {
            let message = format!(
                "{}: the server did not say how many rows there are",
                self.what()
            );
            return Err(Failure::new(Kind::Unexpected, "no_counts", message));
        }
        let compared = check::compare_answers(&expected, answers.scan);
        check::judge(&self.what(), &compared, None).map_err(|failure| {
            failure.hint("a rule, a type or a collation of the target may change what is written")
        })?;
        let merged = self.pairs.iter().zip(counts).map(|(pair, counts)| Merged {
            table: pair.record.full_name().to_string(),
            into: pair.table.table_name().to_string(),
            rows: pair.record.rows.unwrap_or(0),
            counts,
            key: pair
                .table
                .key
                .iter()
                .flat_map(|key| &key.columns)
                .map(|column| column.name.clone())
                .collect(),
        });
        self.merged = merged.collect();
        Ok(())
    }

    fn broken(&self, broken: Broken) -> Failure {
        match broken {
            Broken::Damaged { of, why } => {
                let of = of.as_deref().unwrap_or("its rows");
                self.ranged.damaged(of, &why)
            }
            Broken::Refused(refusal) => self.ranged.damaged("its rows", &refusal.why),
            Broken::Unreadable(failure) => *failure,
            Broken::TooLong | Broken::Aside(_) | Broken::Gone => {
                self.ranged.damaged("its rows", "their end is missing")
            }
        }
    }

    fn refused(&self, error: &Error) -> Failure {
        failed(&self.doing, error)
    }
}

/// Returns the failure of what the server said; it does not yet say what is safe.
fn failed(doing: &str, error: &Error) -> Failure {
    let mut failure = error.to_failure(doing, "");
    failure.message = failure.message.trim_end_matches("; ").to_owned();
    let (what, said) = (format!("{doing} failed"), "the server refused a statement");
    let mut failure = of_statement(failure, error, &what, said);
    if matches!(failure.id, SQL_FAILED | HINDERED) {
        failure.id = "merge_sql_failed";
    }
    let says = |text: &str| error.stderr.iter().any(|line| line.contains(text));
    if says("duplicate key value violates unique constraint") {
        return failure.hint(
            "a unique constraint other than the primary key is checked row by row: if rows have exchanged their \
             values, drop it, merge, and add it again; if a row that is not in the backup has the value, delete \
             that row first",
        );
    }
    if says("violates foreign key constraint") {
        return failure.hint(
            "merge the tables that it refers to as well: `--table` may be repeated, and `--upsert` \
            without it takes all",
        );
    }
    failure
}

/// Says what became of the rows. Sequences are moved right before the COMMIT, and no rollback moves them back.
fn in_words(failure: Failure, fate: Fate, is_commit_sent: bool) -> Failure {
    match fate {
        Fate::Undone if is_commit_sent => {
            failure.and_safe("the rows are unchanged, and sequences may have moved on")
        }
        Fate::Undone => failure.and_safe(SAFE),
        Fate::Done => {
            failure.and_safe("the rows are in their tables now, compared: the COMMIT was done")
        }
        Fate::Unknown => failure
            .and_safe("the rows may or may not be in their tables: look before you merge again")
            .hint("`--dry-run` shows what a merge would still do"),
    }
}

/// Before the session began, the target was not touched.
fn with_safe(mut failure: Failure) -> Failure {
    if !failure.message.contains(SAFE) {
        failure.message += &format!("; {SAFE}");
    }
    failure
}

/// The manifest tells where each table's rows lie.
pub(crate) fn no_backup() -> Failure {
    let message = "rows can only be merged from a stored backup; nothing was changed";
    Failure::new(Kind::Usage, "no_backup", message)
        .hint("`pgkeep extract FILE --table T --format sql` reads one table from a plain dump")
}

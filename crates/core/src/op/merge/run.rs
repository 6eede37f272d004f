//! One merge from the first question to the COMMIT.

use std::io::{PipeWriter, Write};
use std::time::Duration;

use super::read::Copy;
use super::{Merged, Report, Request};
use crate::context::Context;
use crate::op::restore::source::Stored;
use crate::op::restore::source::is_of_copy;
use crate::op::restore::{Event, Observer, check};
use crate::postgres::databases::end_sessions;
use crate::postgres::error::{Error, Reason};
use crate::postgres::feed::{Answers, Feed, FeedRequest};
use crate::postgres::psql::Psql;
use crate::postgres::tables;
use crate::postgres::target::TargetFacts;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::TableRecord;
use pgkeep_model::merge::{Counts, Mode, Plan, TargetTable, parents_first};
use pgkeep_model::name::TableName;
use pgkeep_model::nearest::did_you_mean;
use pgkeep_model::restore::compare::Expected;

/// What pg_dump sets in front of rows, in a session that takes them as they were written.
const SETTINGS: &str = "\
SET standard_conforming_strings = on;
SET search_path = '';
SET DateStyle = ISO;
SET IntervalStyle = postgres;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET CONSTRAINTS ALL DEFERRED;
";

/// The first major whose catalog tells all that is asked: generated columns, partition trees.
const MIN_MAJOR: u32 = 12;

const SAFE: &str = "the target is as it was";

pub(super) struct Run<'a> {
    request: &'a Request,
    context: &'a Context,
    observer: &'a dyn Observer,
    report: Report,
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
    pub(super) fn new(
        request: &'a Request,
        context: &'a Context,
        observer: &'a dyn Observer,
    ) -> Self {
        let report = Report {
            backup_id: None,
            storage: None,
            target: request.into.label(),
            mode: match request.mode {
                Mode::Upsert => "upsert",
                Mode::Append => "data-only",
            },
            dry_run: request.dry_run,
            merged: false,
            compared: false,
            tables: Vec::new(),
            read_bytes: 0,
            started_at: context.clock.now(),
            took_ms: 0,
            warnings: Vec::new(),
            notices: Vec::new(),
            failure: None,
        };
        Self {
            request,
            context,
            observer,
            report,
        }
    }

    pub(super) async fn run(mut self) -> Report {
        let started = self.context.clock.monotonic();
        if let Err(failure) = self.try_run().await {
            self.report.failure = Some(if self.context.stop.is_requested() {
                self.stopped()
            } else {
                with_safe(failure)
            });
        }
        let took = self.context.clock.monotonic().saturating_sub(started);
        self.report.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.report
    }

    fn what(&self) -> String {
        format!("merging rows into `{}` failed", self.report.target)
    }

    fn stopped(&self) -> Failure {
        let doing = format!("merging rows into `{}`", self.report.target);
        self.context.stop.failure(&doing).and_safe(SAFE)
    }

    fn failed(&self, error: &Error) -> Failure {
        let mut failure =
            error.to_failure(&format!("merging rows into `{}`", self.report.target), SAFE);
        if matches!(error.reason, Reason::Other { code: 3 }) {
            failure.id = "merge_sql_failed";
            failure.message = format!("{}: the server refused a statement; {SAFE}", self.what());
            let says = |text: &str| error.stderr.iter().any(|line| line.contains(text));
            if says("violates foreign key constraint") {
                return failure.hint("merge the tables that it refers to as well: `--table` may be repeated, and `--upsert` without it takes all");
            }
        }
        failure
    }

    async fn try_run(&mut self) -> Result<()> {
        let Request {
            storages,
            database,
            wanted,
            ..
        } = self.request;
        let stop = self.context.stop.token();
        let stored = tokio::select! {
            stored = Stored::open(storages, database.clone(), wanted) => stored?,
            () = stop.cancelled() => return Err(self.stopped()),
        };
        self.report.backup_id = Some(stored.manifest.id.to_string());
        if stored.manifest.encryption.is_some() {
            let message = format!(
                "{}: the backup is encrypted, and this pgkeep cannot decrypt; {SAFE}",
                self.what()
            );
            return Err(Failure::new(Kind::Program, "encrypted", message));
        }
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
                    "the server is PostgreSQL {}; {MIN_MAJOR} is the first that this works with",
                    facts.version
                )],
            ));
        }
        let pairs = self.pairs(records, &psql).await?;
        let mut last = None;
        for at in stored.backup.readable_from() {
            if let Some(Failure { message, .. }) = last.take() {
                self.report
                    .warnings
                    .push(format!("another copy is taken: {message}"));
            }
            match self.merge(&stored, at, &psql, facts.major(), &pairs).await {
                Ok(()) => return stored.after_good("the rows are in their tables", &[]),
                Err(failure) if is_of_copy(&failure) => last = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        let none = || {
            Failure::new(
                Kind::NotFound,
                "no_such_backup",
                format!("{}: no storage has the backup", self.what()),
            )
        };
        Err(stored
            .unless_removed(&self.what(), last.unwrap_or_else(none))
            .await)
    }

    /// Returns the tables of the backup that are meant; a partitioned one means its partitions.
    fn records(&self, stored: &Stored) -> Result<Vec<TableRecord>> {
        let all = &stored.manifest.tables;
        let has_rows = |record: &&TableRecord| record.rows.is_some() && !record.blocks.is_empty();
        if self.request.tables.is_empty() {
            return Ok(all.iter().filter(has_rows).cloned().collect());
        }
        let mut records: Vec<TableRecord> = Vec::new();
        for name in &self.request.tables {
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
        let map = self.request.schema_map.iter();
        let to = map
            .rev()
            .find(|(from, _)| *from == record.schema)
            .map_or(&record.schema, |(_, to)| to);
        TableName::new(to, &record.name)
    }

    /// Finds each table in the target and names all that stands against the merge at once, in the order of filling.
    async fn pairs(&mut self, records: Vec<TableRecord>, psql: &Psql) -> Result<Vec<Pair>> {
        let names: Vec<TableName> = records.iter().map(|record| self.mapped(record)).collect();
        let stop = self.context.stop.token();
        let found = tables::read(psql, &names, stop)
            .await
            .map_err(|error| self.failed(&error))?;
        let (mut pairs, mut problems) = (Vec::new(), Vec::new());
        for (record, table) in records.into_iter().zip(found) {
            let columns = record.columns.clone().unwrap_or_default();
            let problem = match record.digest {
                None => Some("its rows are INSERT statements".to_owned()),
                Some(_) => table.problem(&columns, self.request.mode),
            };
            let is_keyless =
                table.kind.is_some() && table.key.is_none() && self.request.mode == Mode::Upsert;
            match problem {
                None => pairs.push(Pair {
                    record,
                    table,
                    columns,
                }),
                Some(why) if is_keyless && self.request.tables.is_empty() => {
                    self.report
                        .warnings
                        .push(format!("`{}` is left out: {why}", record.full_name()));
                }
                Some(why) => problems.push(format!("`{}`: {why}", table.table_name())),
            }
        }
        if self.request.mode == Mode::Append && problems.is_empty() {
            let there: Vec<TargetTable> = pairs.iter().map(|pair| pair.table.clone()).collect();
            let filled = tables::hold_rows(psql, &there, stop)
                .await
                .map_err(|error| self.failed(&error))?;
            let filled = there.iter().zip(filled).filter(|(_, filled)| *filled);
            problems.extend(
                filled.map(|(table, _)| format!("`{}`: it holds rows already", table.table_name())),
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
        match self.request.mode {
            Mode::Append => failure.hint("`--upsert` merges rows into a table that holds some, by its primary key"),
            Mode::Upsert => failure.hint("`pgkeep extract` writes one table's rows as SQL, CSV or JSON Lines without any server"),
        }
    }

    async fn merge(
        &mut self,
        stored: &Stored,
        at: usize,
        psql: &Psql,
        major: u32,
        pairs: &[Pair],
    ) -> Result<()> {
        let clock = &self.context.clock;
        let (application, key) = (format!("pgkeep-restore-{}", clock.hex(4)), clock.hex(8));
        let merged = self
            .merge_as(&application, &key, stored, at, psql, major, pairs)
            .await;
        if !self.report.merged {
            // A server may be busy with a statement of a client that is gone, and hold its locks until then.
            let no_stop = tokio_util::sync::CancellationToken::new();
            if let Err(error) = end_sessions(psql, &application, &no_stop).await {
                self.report.warnings.push(format!(
                    "whether the session is gone cannot be seen: {error}"
                ));
            }
        }
        merged
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, made apart to clean up behind it"
    )]
    async fn merge_as(
        &mut self,
        application: &str,
        key: &str,
        stored: &Stored,
        at: usize,
        psql: &Psql,
        major: u32,
        pairs: &[Pair],
    ) -> Result<()> {
        let request = FeedRequest {
            psql,
            application,
            one_transaction: true,
            server_major: major,
            is_sql_ascii: stored.manifest.server.encoding == "SQL_ASCII",
            time_zone: "UTC",
            key,
            prelude: "",
            ending: "",
        };
        let stop = self.context.stop.token();
        let copy = Copy::open(stored, at, &self.what(), self.context.stop.clone()).await?;
        let blocks = pairs.iter().flat_map(|pair| &pair.record.blocks);
        self.observer.note(Event::Restoring {
            progress: &copy.progress,
            bytes: blocks.map(|record| record.block.length).sum(),
            tables: pairs.len() as u64,
        });
        let mut feed = request
            .start(stop)
            .await
            .map_err(|error| self.failed(&error))?;
        let input = feed.take_input();
        let fed = tokio::select! {
            fed = self.feed(&copy, &request, pairs, input) => fed,
            _ = feed.ended() => Err(self.program_failed(&feed).await),
            () = stop.cancelled() => Err(self.stopped()),
        };
        let (input, read_bytes) = match fed {
            Ok(fed) => fed,
            Err(failure) => return Err(self.end(&feed, failure).await),
        };
        let answers = tokio::select! {
            answers = feed.answers() => answers,
            () = stop.cancelled() => None,
        };
        let Some(answers) = answers else {
            let failure = if self.context.stop.is_requested() {
                self.stopped()
            } else {
                self.program_failed(&feed).await
            };
            return Err(self.end(&feed, failure).await);
        };
        let judged = self.judge(pairs, answers);
        if let Err(failure) = judged {
            return Err(self.end(&feed, failure).await);
        }
        self.report.storage = Some(stored.storage_name(at).to_owned());
        self.report.read_bytes = read_bytes;
        if self.request.dry_run {
            // `psql` is ended before its input is closed, and the transaction with it.
            feed.stop().await;
            drop(input);
            return Ok(());
        }
        self.commit(feed, input, pairs).await
    }

    /// Writes all that is SQL, with the rows in between; returns what takes more of it.
    async fn feed(
        &self,
        copy: &Copy<'_>,
        request: &FeedRequest<'_>,
        pairs: &[Pair],
        input: PipeWriter,
    ) -> Result<(PipeWriter, u64)> {
        let mode = self.request.mode;
        let plans: Vec<Plan<'_>> = pairs
            .iter()
            .enumerate()
            .map(|(number, pair)| pair.plan(number, mode))
            .collect();
        let utf8 = "SET client_encoding = 'UTF8';\n";
        let prepare: String = plans.iter().map(Plan::prepare).collect();
        let mut input = write(input, format!("{utf8}{SETTINGS}{prepare}")).await;
        let mut read_bytes = 0;
        for (pair, plan) in pairs.iter().zip(&plans) {
            let handed = copy.hand_on(&pair.record, &plan.rows(), input).await?;
            (input, read_bytes) = (handed.input, read_bytes + handed.read_bytes);
        }
        let mut sql = utf8.to_owned();
        sql.extend(
            plans
                .iter()
                .map(|plan| format!("ANALYZE {};\n", plan.rows())),
        );
        sql += &request.notes();
        sql.extend(plans.iter().map(Plan::count));
        sql.extend(plans.iter().map(Plan::merge));
        // Constraints that wait are checked now; with events left no trigger can be enabled.
        sql += "SET CONSTRAINTS ALL IMMEDIATE;\n";
        sql.extend(plans.iter().map(Plan::enable_triggers));
        let questions: Vec<(String, String)> = pairs
            .iter()
            .zip(&plans)
            .map(|(pair, plan)| (pair.record.full_name().quoted(), plan.compared()))
            .collect();
        sql += &request.questions(&questions);
        Ok((write(input, sql).await, read_bytes))
    }

    /// Compares what came in with what was dumped, and takes note of the counts.
    fn judge(&mut self, pairs: &[Pair], answers: Answers) -> Result<()> {
        let expected: Vec<Expected> = pairs
            .iter()
            .map(|pair| Expected::from(&pair.record))
            .collect();
        let counts: Vec<Counts> = answers
            .notes
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if counts.len() != pairs.len() {
            let message = format!(
                "{}: the server did not say how many rows there are; {SAFE}",
                self.what()
            );
            return Err(Failure::new(Kind::Unexpected, "no_counts", message));
        }
        let compared = check::compare_answers(&expected, answers.scan);
        check::judge(&self.what(), &compared, None).map_err(|mut failure| {
            failure.message = format!("{}; {SAFE}", failure.message);
            failure.hint("a rule, a type or a collation of the target may change what is written")
        })?;
        self.report.compared = true;
        let merged = pairs.iter().zip(counts).map(|(pair, counts)| Merged {
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
        self.report.tables = merged.collect();
        Ok(())
    }

    async fn commit(&mut self, feed: Feed, input: PipeWriter, pairs: &[Pair]) -> Result<()> {
        let plans = pairs
            .iter()
            .enumerate()
            .map(|(number, pair)| pair.plan(number, self.request.mode).sequences());
        let sql = format!(
            "SET client_encoding = 'UTF8';\nSET search_path = '';\n{}",
            plans.collect::<String>()
        );
        let input = write(input, sql).await;
        if self.context.stop.is_requested() {
            return Err(self.end(&feed, self.stopped()).await);
        }
        feed.commit(input)
            .await
            .map_err(|error| self.failed(&error))?;
        self.report.merged = true;
        Ok(())
    }

    /// Ends `psql`, and the transaction with it. Its own words are better than ours about a pipe that broke.
    async fn end(&self, feed: &Feed, failure: Failure) -> Failure {
        let gone = tokio::time::timeout(Duration::from_millis(500), feed.ended()).await;
        let failure = match gone {
            Ok(ended) if is_of_copy(&failure) => match ended.into_result() {
                Err(error) => self.failed(&error),
                Ok(_) => failure,
            },
            _ => failure,
        };
        feed.stop().await;
        failure
    }

    async fn program_failed(&self, feed: &Feed) -> Failure {
        match feed.ended().await.into_result() {
            _ if self.context.stop.is_requested() => self.stopped(),
            Err(error) => self.failed(&error),
            Ok(_) => Failure::new(
                Kind::Unexpected,
                "psql_ended",
                format!("{}: `psql` ended early; {SAFE}", self.what()),
            ),
        }
    }
}

/// Whoever failed last, the transaction is gone.
fn with_safe(mut failure: Failure) -> Failure {
    if !failure.message.contains(SAFE) {
        failure.message += &format!("; {SAFE}");
    }
    failure
}

/// Writes on a thread that may block; where the program is gone its own end says why.
async fn write(mut input: PipeWriter, sql: String) -> PipeWriter {
    let writing = tokio::task::spawn_blocking(move || {
        let _ = input.write_all(sql.as_bytes()); // the end of the program tells more than the pipe
        input
    });
    writing.await.expect("writing to a pipe does not panic")
}

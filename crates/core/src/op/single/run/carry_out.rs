//! Carries a plan out: one transaction, compared before its COMMIT, and the way back from each point where it may fail.

use std::io::PipeWriter;
use std::sync::Arc;
use std::time::Duration;

use super::{APPLICATION, Job, Origin, Run, with_safe};
use crate::op::restore::check;
use crate::op::restore::feed::refused;
use crate::op::restore::preflight::list;
use crate::op::restore::stall::Watchdog;
use crate::op::restore::{Event, Limits, of_statement};
use crate::op::single::input::{file_rows, stored_rows};
use crate::op::single::sink::{Broken, Sink};
use crate::postgres::databases::end_sessions;
use crate::postgres::error::Error;
use crate::postgres::feed::{Answers, Feed, FeedRequest};
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::{TableName, quote};
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::defaults::SetAside;
use pgkeep_model::restore::properties::literal;
use pgkeep_model::scan::{Scan, Table, TableKind};

/// Id of the failure of a program that is gone; what it said is better.
const GONE: &str = "psql_ended";

/// Longest that a server can be told to wait: 2^31 - 1 milliseconds.
const MAX_LOCK_TIMEOUT_MS: u128 = i32::MAX as u128;

const UTF8: &str = "\nSET client_encoding = 'UTF8';\n";

impl Run<'_> {
    /// Does it, or leaves the target as it was.
    pub(super) async fn carry_out(&mut self, job: Job<'_>) -> Result<()> {
        let clock = &self.context.clock;
        let (application, key) = (format!("{APPLICATION}{}", clock.hex(4)), clock.hex(8));
        self.make_database(&job.site, &application).await?;
        match self.bring_in_watched(&job, &application, &key).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.undo(failure, &job, &application).await),
        }
    }

    async fn undo(&mut self, failure: Failure, job: &Job<'_>, application: &str) -> Failure {
        let failure = if self.context.stop.is_requested() {
            self.stopped_bare()
        } else {
            failure
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
        // A server may be busy with a statement of a client that is gone, and hold its locks until then.
        if let Err(error) = end_sessions(&site.psql, application, &self.no_stop).await {
            let warning = format!("whether the session is gone cannot be seen: {error}");
            self.report.warnings.push(warning);
        }
        // A connection may be lost between a COMMIT and its answer.
        let names = job.selection.names_to_be_free();
        let found = crate::postgres::present::read(&site.psql, &names, &self.no_stop).await;
        let safe = match found {
            Ok(there) if there.relations.is_empty() => "the target is as it was",
            Ok(_) => "the tables are in the target now: look at them before you use them",
            Err(_) => "whether the target is as it was cannot be seen: look before you use it",
        };
        with_safe(failure, safe)
    }

    /// Ends it when it stands still, or when others' locks are in its way: whoever waits for a lock keeps all who come
    /// later from the table, too. `psql` ends with what started it.
    async fn bring_in_watched(
        &mut self,
        job: &Job<'_>,
        application: &str,
        key: &str,
    ) -> Result<()> {
        let (what, pulse, context) = (self.what(), Arc::clone(&self.pulse), self.context);
        let watchdog = Watchdog {
            psql: &job.site.psql,
            application,
            limits: self.request.options.limits,
            pulse: &pulse,
            clock: &*context.clock,
        };
        tokio::select! {
            done = self.bring_in(job, application, key) => done,
            failure = watchdog.stands_still(&what, context.stop.token()) => Err(failure),
        }
    }

    async fn bring_in(&mut self, job: &Job<'_>, application: &str, key: &str) -> Result<()> {
        let (site, options) = (&job.site, &self.request.options);
        let aside = if site.exists && !options.no_privileges {
            SetAside::new(&site.facts.default_rights)
        } else {
            SetAside::default()
        };
        let request = FeedRequest {
            psql: &site.psql,
            application,
            one_transaction: true,
            server_major: site.facts.major(),
            is_sql_ascii: site.needs.encoding == "SQL_ASCII",
            time_zone: options.dump_time_zone.as_deref().unwrap_or("UTC"),
            key,
            prelude: &aside.before,
            ending: &aside.behind,
        };
        let stop = self.stop().clone();
        let mut feed = request
            .start(&stop)
            .await
            .map_err(|error| self.of_error(&error))?;
        let input = feed.take_input();
        let fed = tokio::select! {
            fed = self.feed(job, &request, input) => fed,
            _ = feed.ended() => Err(self.gone()),
            () = stop.cancelled() => Err(self.stopped_bare()),
        };
        let (sink, read_bytes) = match fed {
            Ok(fed) => fed,
            Err(failure) => return Err(self.end(&feed, failure).await),
        };
        let answers = tokio::select! {
            answers = feed.answers() => answers,
            () = stop.cancelled() => None,
        };
        let judged = match answers {
            Some(answers) => self.judge(job, answers),
            None => Err(self.gone()),
        };
        if let Err(failure) = judged {
            return Err(self.end(&feed, failure).await);
        }
        self.report.read_bytes += read_bytes;
        self.report
            .created_roles
            .clone_from(&job.site.missing_roles);
        self.commit(job, feed, sink, key).await
    }

    /// Writes all but what comes behind the comparison; returns what takes that.
    async fn feed(
        &self,
        job: &Job<'_>,
        request: &FeedRequest<'_>,
        input: PipeWriter,
    ) -> Result<(Sink, u64)> {
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
        let sink = Sink::new(input, &self.rules(&job.site.facts), &progress);
        let pulsing = Arc::clone(&progress);
        self.pulse.follow(move || pulsing.raw_bytes());
        let mut roles = lock_timeout(self.request.options.limits) + UTF8;
        for role in &job.site.missing_roles {
            if self.request.options.create_missing_roles {
                roles += &format!("CREATE ROLE {} NOLOGIN;\n", quote(role));
            }
        }
        roles += "RESET client_encoding;\n";
        let before = job.plan.before.clone();
        let sink = blocking(sink, move |sink| {
            sink.say(&roles);
            sink.pass(&before);
        })
        .await;
        let (mut sink, read_bytes) = self.rows(job, sink).await?;
        let scan = sink.turn().map_err(|broken| self.broken(broken))?;
        self.prove(job, &scan)?;
        let behind = job.plan.behind.clone();
        let mut sink = blocking(sink, move |sink| sink.pass(&behind)).await;
        sink.turn().map_err(|broken| self.broken(broken))?;
        let questions = format!(
            "{UTF8}{}{}",
            analyze(job),
            request.questions(&questions(job, self.request.options.no_compare))
        );
        let mut sink = blocking(sink, move |sink| sink.say(&questions)).await;
        sink.turn().map_err(|broken| self.broken(broken))?;
        Ok((sink, read_bytes))
    }

    async fn rows(&self, job: &Job<'_>, mut sink: Sink) -> Result<(Sink, u64)> {
        match &job.origin {
            Origin::Copy(ranged) => {
                let mut read_bytes = 0;
                for (entry, into) in &job.entries {
                    let moved = stored_rows(ranged, entry, into, job.encoding, sink).await?;
                    (sink, read_bytes) = (moved.0, read_bytes + moved.1);
                }
                Ok((sink, read_bytes))
            }
            Origin::File(path) => {
                let (path, entries) = (path.to_path_buf(), job.entries.clone());
                let (encoding, stop) = (job.encoding, self.context.stop.clone());
                // It ends with the file, with `psql`, or with the wish to stop.
                let moving = tokio::task::spawn_blocking(move || {
                    file_rows(&path, &entries, encoding, sink, &stop)
                });
                let sink = moving.await.expect("reading does not panic")?;
                Ok((sink, 0))
            }
        }
    }

    /// Holds what was handed on against what is known of the rows.
    fn prove(&self, job: &Job<'_>, scan: &Scan) -> Result<()> {
        let damaged = |of: &str, why: &str| match &job.origin {
            Origin::Copy(ranged) => ranged.damaged(of, why),
            Origin::File(_) => {
                let message = format!("{}: {of}: {why}", self.what());
                Failure::new(Kind::Damaged, "rows_damaged", message)
                    .hint("the file changed while it was read")
            }
        };
        // Rows of anything else have no digest here, and nobody asked for them.
        let is_known = |name: &TableName| {
            let mut entries = job.entries.iter();
            entries.any(|(entry, into)| into == name && entry.expected.digest.is_some())
        };
        let with_rows = scan.tables.iter().filter(|table| table.rows.is_some());
        let mut names = with_rows.map(Table::full_name);
        if let Some(name) = names.find(|name| !is_known(name)) {
            let why = "its rows are among those of the tables that come back";
            return Err(damaged(&format!("`{name}`"), why));
        }
        for (entry, into) in &job.entries {
            let (Some(rows), Some(digest)) = (entry.expected.rows, entry.expected.digest) else {
                continue;
            };
            let found = scan.tables.iter().find(|table| table.full_name() == *into);
            let found = found.and_then(|table| Some((table.rows?, table.digest?)));
            if found != Some((rows, digest)) {
                let of = format!("`{}`", entry.expected.name);
                let why = "its rows are not the ones that were dumped";
                return Err(damaged(&of, why));
            }
        }
        Ok(())
    }

    /// Compares what is there with what was dumped.
    fn judge(&mut self, job: &Job<'_>, answers: Answers) -> Result<()> {
        if self.request.options.no_compare {
            let warning =
                "nothing was compared: that its rows are as they were dumped is not proven";
            self.report.warnings.push(warning.to_owned());
            return Ok(());
        }
        let entries = job.entries.iter();
        let expected: Vec<Expected> = entries.map(|(entry, _)| entry.expected.clone()).collect();
        let compared = check::compare_answers(&expected, answers.scan);
        let judged = check::judge(&self.what(), &compared, None);
        for outcome in compared.tables {
            let mut restored = self.report.tables.iter_mut();
            if let Some(restored) =
                restored.find(|restored| restored.outcome.table == outcome.table)
            {
                restored.outcome = outcome;
            }
        }
        judged.map_err(|failure| match &job.origin {
            Origin::Copy(_) => failure,
            Origin::File(_) => failure.hint(
                "a plain dump has times in the time zone of whoever wrote it: `--dump-time-zone NAME` compares in that \
                 one; `--no-compare` restores without the proof",
            ),
        })?;
        self.report.compared = true;
        Ok(())
    }

    /// Carries out what locks tables in use, behind everything that takes long, and commits; a dry run rolls back.
    async fn commit(&mut self, job: &Job<'_>, feed: Feed, sink: Sink, key: &str) -> Result<()> {
        let (locking, last) = (job.plan.locking.clone(), job.plan.last.clone());
        let proof = nothing_is_tied(job, key);
        let sink = blocking(sink, move |sink| {
            sink.pass(&locking);
            sink.pass(&last);
            sink.say(&proof);
        })
        .await;
        let mut sink = sink;
        let turned = sink.turn().map_err(|broken| self.broken(broken));
        if let Err(failure) = turned {
            return Err(self.end(&feed, failure).await);
        }
        if self.context.stop.is_requested() {
            return Err(self.end(&feed, self.stopped_bare()).await);
        }
        let is_dry = self.request.options.dry_run;
        let ended = if is_dry {
            feed.roll_back(sink.into_input()).await
        } else {
            feed.commit(sink.into_input()).await
        };
        ended.map_err(|error| self.refused_by_server(&error))?;
        self.report.restored = !is_dry;
        Ok(())
    }

    fn broken(&self, broken: Broken) -> Failure {
        match broken {
            Broken::Refused(refusal) => refused(&self.what(), &refusal),
            Broken::Damaged(why) => Failure::new(
                Kind::Damaged,
                "rows_damaged",
                format!("{}: {why}", self.what()),
            )
            .hint("`pgkeep verify` tells what is damaged"),
            Broken::Gone => self.gone(),
        }
    }

    fn gone(&self) -> Failure {
        let message = format!("{}: `psql` ended early", self.what());
        Failure::new(Kind::Unexpected, GONE, message)
    }

    /// Ends `psql`, and the transaction with it. Its own words are better than ours about a pipe that broke.
    async fn end(&self, feed: &Feed, failure: Failure) -> Failure {
        let patience = if failure.id == GONE && !self.context.stop.is_requested() {
            Duration::from_secs(10)
        } else {
            Duration::from_millis(200)
        };
        let gone = tokio::time::timeout(patience, feed.ended()).await;
        let failure = match gone.map(|ended| ended.into_result()) {
            Ok(Err(error)) => self.refused_by_server(&error),
            _ => failure,
        };
        feed.stop().await;
        failure
    }

    /// An error of a statement is the target's answer to it.
    fn refused_by_server(&self, error: &Error) -> Failure {
        let says = |text: &str| error.stderr.iter().any(|line| line.contains(text));
        if says("canceling statement due to lock timeout") {
            let mut failure = self.of_error(error);
            failure.hints.clear();
            failure.id = "lock_timeout";
            failure.message = format!(
                "{}: a statement waited too long for another session's lock",
                self.what()
            );
            return failure.hint(
                "`pg_locks` and `pg_stat_activity` name who holds it; end that session, or wait longer with \
                 `--lock-wait-timeout` or `lock_wait_timeout`",
            );
        }
        let said = "the server refused a statement";
        let mut failure = of_statement(self.of_error(error), error, &self.what(), said);
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

/// SQL by which the server itself ends a wait for a lock, should nobody of us be there to do it.
///
/// The watchdog comes first, because it can name who holds the lock: it needs two looks more than the limit, each a
/// sixth of it.
fn lock_timeout(limits: Limits) -> String {
    let timeout = limits.lock_wait + limits.lock_wait / 2 + Duration::from_secs(5);
    let timeout_ms = timeout.as_millis().min(MAX_LOCK_TIMEOUT_MS);
    format!("\nSET lock_timeout = {timeout_ms};\n")
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
            let columns = expected
                .columns
                .iter()
                .flatten()
                .map(|column| quote(column));
            let columns = columns.collect::<Vec<_>>().join(", ");
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

/// Works on a thread that may block; where the program is gone its own end says why.
async fn blocking(mut sink: Sink, work: impl FnOnce(&mut Sink) + Send + 'static) -> Sink {
    let working = tokio::task::spawn_blocking(move || {
        work(&mut sink);
        sink
    });
    working.await.expect("writing to a pipe does not panic")
}

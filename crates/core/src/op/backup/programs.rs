//! The programs of one dump: `pg_dump`, and the sessions that read rows beside it in the same snapshot.

use std::collections::HashSet;
use std::io::Read;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use futures_util::future::join_all;

use super::limited::Limited;
use super::start::{NotStarted, Start};
use crate::postgres::dump::{Dump, DumpRequest};
use crate::postgres::error::{Error, Reason};
use crate::postgres::process::{Stop, Stopper};
use crate::postgres::psql::Psql;
use crate::postgres::rows::{Block, Large, OwnRows, ReadRequest, Readers, TableText};
use crate::postgres::snapshot::Snapshot;
use crate::stream::not_valid::NotValid;
use crate::stream::splice::Spliced;
use pgkeep_model::config::Jobs;
use pgkeep_model::name::TableName;

/// Most tables that are read by sessions of ours: each is an argument of `pg_dump`.
const MAX_LARGE: usize = 256;

/// How long `pg_dump` waits for a lock that a session of ours holds already: only somebody who waits for us can be in its
/// way.
const NO_WAIT: Duration = Duration::from_secs(1);

/// How rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How many sessions read large tables at once; with one, `pg_dump` reads all.
    pub jobs: Jobs,
    /// From how many bytes on a table is a large one.
    pub large_bytes: u64,
    /// How many bytes are read at once.
    pub range_bytes: u64,
}

impl Default for Reading {
    /// A range is one megabyte: twice of it, as `bytea` is printed, waits in its window. Longer ones would make sessions wait
    /// for each other, and shorter ones cost more questions.
    fn default() -> Self {
        Self {
            jobs: Jobs::default(),
            large_bytes: 16 << 20,
            range_bytes: 1 << 20,
        }
    }
}

/// Most sessions that `auto` means.
const MAX_AUTO: usize = 4;

/// How many sessions the server has left for roles without privileges.
const FREE_SESSIONS: &str = "SELECT to_jsonb(greatest(0, current_setting('max_connections')::int \
    - current_setting('superuser_reserved_connections')::int - (SELECT count(*) FROM pg_stat_activity)))";

fn most_sessions(jobs: Jobs) -> usize {
    match jobs {
        Jobs::Fixed(count) => count.get(),
        Jobs::Auto => available_parallelism()
            .map_or(1, NonZeroUsize::get)
            .min(MAX_AUTO),
    }
}

/// The programs of a dump. Dropping it kills them.
pub(super) struct Programs {
    dump: Dump,
    own: Option<Own>,
}

/// Sessions of ours.
struct Own {
    snapshot: Snapshot,
    readers: Readers,
    rows: Option<OwnRows>,
    tables: Vec<TableName>,
    limited: Option<Limited>,
}

/// Ends all of them from elsewhere.
#[derive(Clone)]
pub(super) struct Stoppers(Vec<Stopper>);

impl Stoppers {
    /// Ends them side by side, for one reason.
    pub(super) async fn stop(&self, why: Stop) {
        join_all(self.0.iter().map(|stopper| stopper.stop(why))).await;
    }
}

impl Start<'_> {
    /// Starts the programs. They end with their handle, with the stop token, or with the watchdog.
    pub(super) async fn programs(self) -> Result<Programs, NotStarted> {
        let own = self.own().await?;
        let source = self.source;
        let request = DumpRequest {
            programs: &source.programs,
            environment: &self.request.environment,
            connection: &self.request.connection,
            server: &source.facts,
            selection: &source.selection,
            lock_wait_timeout: match own {
                Some(_) => self.request.lock_wait_timeout.min(NO_WAIT),
                None => self.request.lock_wait_timeout,
            },
            snapshot: own.as_ref().map(|own| own.snapshot.id()),
            read_by_others: own.as_ref().map_or(&[], |own| own.tables.as_slice()),
            sections: &[],
        };
        let dump = request.start(self.stop)?;
        Ok(Programs { dump, own })
    }

    /// Takes a snapshot and begins to read; none where `pg_dump` reads all by itself.
    async fn own(&self) -> Result<Option<Own>, NotStarted> {
        let Reading {
            jobs,
            large_bytes,
            range_bytes,
        } = self.request.reading;
        let source = self.source;
        let most = most_sessions(jobs);
        let is_limited = !self.request.limits.is_empty();
        if most == 1 && !is_limited {
            return Ok(None);
        }
        let psql = &self.psql();
        let locked = source.selected().locked();
        let is_unspeakable =
            |table: &TableName| table.quoted().contains(char::REPLACEMENT_CHARACTER);
        if locked.iter().any(is_unspeakable) {
            return if is_limited {
                Err(self.not_said())
            } else {
                Ok(None)
            };
        }
        let wait = self.request.lock_wait_timeout;
        let mut snapshot = Snapshot::take(psql, &locked, wait, self.stop).await?;
        let limited = if is_limited {
            Some(self.limited(&mut snapshot).await?)
        } else {
            None
        };
        let version = source.facts.version_num;
        let encoding = source.facts.dump_encoding();
        let mut blocks: Vec<Block> = limited
            .iter()
            .flat_map(|limited| limited.blocks.clone())
            .collect();
        if let Some(block) = blocks
            .iter()
            .find(|block| encoding != "UTF8" && !block.head.is_ascii())
        {
            return Err(self.not_in_utf8(&block.table));
        }
        if most > 1 {
            let large = Large {
                bytes: large_bytes,
                count: MAX_LARGE,
            };
            let tables: Vec<TableName> = source.selected().names_with_rows().into_iter().collect();
            let found: Vec<TableText> = snapshot.ask(&large.question(&tables, version)).await?;
            let is_limited: HashSet<TableName> =
                blocks.iter().map(|block| block.table.clone()).collect();
            // What we write ourselves is in UTF-8, whatever the dump is in.
            let whole = found
                .iter()
                .map(|table| table.block(version, range_bytes))
                .filter(|block| encoding == "UTF8" || block.head.is_ascii())
                .filter(|block| !is_limited.contains(&block.table));
            blocks.extend(whole);
        }
        if blocks.is_empty() && !is_limited {
            return Ok(None);
        }
        // As `pg_dump` does.
        let name = |block: &Block| (block.table.schema.clone(), block.table.name.clone());
        blocks.sort_by_key(name);
        let tables = blocks.iter().map(|block| block.table.clone()).collect();
        let sessions = match jobs {
            _ if most == 1 => 1,
            Jobs::Fixed(_) => most,
            Jobs::Auto => most.min(snapshot.ask::<usize>(FREE_SESSIONS).await? / 2),
        };
        let request = ReadRequest {
            psql,
            snapshot: &snapshot,
            encoding,
            blocks,
            also_read: limited
                .as_ref()
                .map_or(&[], |limited| limited.reads.as_slice()),
            sessions,
        };
        let (readers, rows) = request.start(self.stop).await?;
        Ok(Some(Own {
            snapshot,
            readers,
            rows: Some(rows),
            tables,
            limited,
        }))
    }

    fn psql(&self) -> Psql {
        let Self {
            request, source, ..
        } = self;
        let psql = Psql::new(&source.programs, &request.environment, &request.connection);
        if source.facts.session_settings_applied {
            psql.with_session_settings()
        } else {
            psql.without_session_settings()
        }
    }
}

impl Programs {
    /// Returns the text of the dump, once, for a plain thread. Its end means that every program did its part.
    pub(super) fn take_source(&mut self) -> Box<dyn Read + Send> {
        let output = self.dump.take_output();
        let Some(own) = &mut self.own else {
            return Box::new(output);
        };
        match own.rows.take() {
            // `pg_dump` writes only when it has locks of its own.
            Some(rows) => {
                let rows = own.snapshot.confirm_before(rows);
                let spliced = Spliced::new(output, rows, own.tables.clone());
                let limited = own.limited.as_ref();
                let not_valid = limited.map_or_else(Vec::new, |limited| limited.not_valid.clone());
                Box::new(NotValid::new(spliced, not_valid))
            }
            None => Box::new(output),
        }
    }

    /// Returns what ends them from elsewhere.
    pub(super) fn stoppers(&self) -> Stoppers {
        let own = self.own.iter().flat_map(|own| {
            let readers = own.readers.stoppers();
            readers.into_iter().chain([own.snapshot.stopper()])
        });
        Stoppers([self.dump.stopper()].into_iter().chain(own).collect())
    }

    /// Returns what the rows were limited to, once.
    pub(super) fn take_limited(&mut self) -> Option<Limited> {
        self.own.as_mut()?.limited.take()
    }

    /// Waits for the end of `pg_dump`, and returns its warnings.
    pub(super) async fn wait(&self) -> Result<Vec<String>, Error> {
        self.dump.wait().await
    }

    /// Ends all of them, and returns why the first one failed that did so by itself.
    pub(super) async fn failure(self) -> Option<Error> {
        self.stoppers().stop(Stop::Interrupted).await;
        let is_ours = |error: &Error| error.reason == Reason::Stopped(Stop::Interrupted);
        // What was ended because of another one has nothing to say.
        let dump = self.dump.wait().await.err().filter(|error| !is_ours(error));
        match (dump, self.own) {
            (None, Some(own)) => match own.readers.end().await {
                Some(error) => Some(error),
                None => own.snapshot.failure().await,
            },
            (error, _) => error,
        }
    }
}

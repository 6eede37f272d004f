//! The sessions that read rows, each a `psql` with a thread that listens to it.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio_util::sync::CancellationToken;

use super::ordered::{Line, line};
use super::{Block, OwnRows};
use crate::postgres::conversation::{Conversation, Talk, Unanswered};
use crate::postgres::error::{Error, Reason};
use crate::postgres::process::{Stop, Stopper};
use crate::postgres::psql::Psql;
use crate::postgres::snapshot::{Snapshot, lock};
use pgkeep_model::name::TableName;

/// What `pg_dump` sets for its session, so that rows read as its own do.
const AS_PG_DUMP: &str = "\
SET LOCAL search_path = '';
SET LOCAL DateStyle = ISO;
SET LOCAL IntervalStyle = postgres;
SET LOCAL extra_float_digits = 3;
SET LOCAL synchronize_seqscans = off;
SET LOCAL row_security = off;
SET LOCAL standard_conforming_strings = on;
";

/// Rows that are about to be read.
pub struct ReadRequest<'a> {
    /// Where.
    pub psql: &'a Psql,
    /// In which state of the database.
    pub snapshot: &'a Snapshot,
    /// In which encoding.
    pub encoding: &'a str,
    /// Which, in the order of the dump.
    pub blocks: Vec<Block>,
    /// Tables that their COPYs read besides, with what is below them.
    pub also_read: &'a [TableName],
    /// By how many sessions at once.
    pub sessions: usize,
}

/// Sessions that read. Dropping it kills their programs.
pub struct Readers {
    sessions: Vec<Conversation>,
}

impl ReadRequest<'_> {
    /// Opens the sessions, all of them in the snapshot, and starts to read.
    ///
    /// The snapshot's own session holds locks on the tables already. A lock that is not free for another session of ours all
    /// the same is one that somebody waits for to have it alone; he waits for us, and we must not wait for him.
    pub async fn start(self, cancel: &CancellationToken) -> Result<(Readers, OwnRows), Error> {
        let mut sessions = Vec::new();
        for _ in 0..self.sessions.max(1) {
            sessions.push(Conversation::start(self.psql, cancel)?);
        }
        let tables: Vec<TableName> = self
            .blocks
            .iter()
            .map(|block| block.table.clone())
            .collect();
        let opening = format!(
            "\\encoding {}\n{}{AS_PG_DUMP}{}",
            self.encoding,
            self.snapshot.begin(),
            lock("ONLY ", &tables, " NOWAIT") + &lock("", self.also_read, " NOWAIT")
        );
        let opened = sessions.iter_mut().map(|session| {
            let asked = session.ask_json::<bool>(opening.clone(), "SELECT 'true'::jsonb");
            async { asked.await.map(drop) }
        });
        futures_util::future::try_join_all(opened).await?;
        let (line, rows) = line(self.blocks, sessions.len());
        for (number, session) in sessions.iter_mut().enumerate() {
            let (line, talk) = (Arc::clone(&line), session.take_talk());
            let started = thread::Builder::new()
                .name("pgkeep-rows".to_owned())
                // It ends with its program, with the line, or when nobody wants the rows.
                .spawn(move || talk.map(|talk| read(&line, number, talk)));
            started.map_err(not_started)?;
        }
        Ok((Readers { sessions }, rows))
    }
}

fn not_started(error: io::Error) -> Error {
    Error::new(Reason::Unreadable(format!(
        "a thread cannot be started: {error}"
    )))
}

fn read(line: &Line, number: usize, mut talk: Talk) {
    while let Some(task) = line.take(number) {
        let asked = talk.ask(&task.copy, &mut |bytes| {
            if task.hand_on(bytes) {
                Ok(())
            } else {
                Err(Unanswered::Closed)
            }
        });
        let is_wanted = match asked {
            Ok(()) => task.end(),
            Err(Unanswered::Closed) => false,
            Err(Unanswered::Ended(error)) => {
                task.fail(error);
                false
            }
        };
        if !is_wanted {
            // Nobody shall wait for what this session alone would read.
            line.close();
            return;
        }
    }
}

impl Readers {
    /// Returns handles that end them from elsewhere.
    pub fn stoppers(&self) -> Vec<Stopper> {
        self.sessions.iter().map(Conversation::stopper).collect()
    }

    /// Ends all of them, and returns why one ended that failed by itself.
    pub async fn end(self) -> Option<Error> {
        let mut first = None;
        for session in &self.sessions {
            session.stopper().stop(Stop::Interrupted).await;
            first = first.or(session.failure().await);
        }
        first
    }
}

//! One state of a database for several sessions: a session that locks the tables, exports its snapshot, and stays.
//!
//! The order is what counts. A TRUNCATE or a rewrite that commits between the snapshot and the first read of a table leaves
//! that table empty for whoever reads by the snapshot, without an error; LOCK TABLE takes no snapshot, so nothing can come
//! between when it stands in front of the export.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::conversation::{Conversation, Talk};
use super::error::Error;
use super::process::Stopper;
use super::psql::{ENCODING, Psql, lock_timeout_ms};
use pgkeep_model::name::TableName;
use pgkeep_model::restore::properties::literal;

/// Tables that one LOCK TABLE names.
const LOCKED_AT_ONCE: usize = 500;

/// Returns what locks tables against being emptied, rewritten or dropped. In front of a snapshot it takes none.
pub(super) fn lock(only: &str, tables: &[TableName], how: &str) -> String {
    let mut sql = String::new();
    for some in tables.chunks(LOCKED_AT_ONCE) {
        let only = some.iter().map(|table| format!("{only}{}", table.quoted()));
        let names = only.collect::<Vec<_>>().join(", ");
        let _ = writeln!(sql, "LOCK TABLE {names} IN ACCESS SHARE MODE{how};");
    }
    sql
}

/// A snapshot that lasts as long as this does. Dropping it ends the session.
pub struct Snapshot {
    session: Conversation,
    id: String,
}

#[derive(Deserialize)]
struct Exported {
    snapshot: String,
}

impl Snapshot {
    /// Locks tables against all that would empty or rewrite them, waiting so long for each lock, and exports a snapshot of
    /// the moment after.
    pub async fn take(
        psql: &Psql,
        tables: &[TableName],
        lock_wait: Duration,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let mut session = Conversation::start(psql, cancel)?;
        let mut sql = format!(
            "{ENCODING}BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;\nSET LOCAL lock_timeout = {};\n",
            lock_timeout_ms(lock_wait)
        );
        sql.push_str(&lock("ONLY ", tables, ""));
        // The questions that follow are ours, whatever path a role or a database has.
        sql.push_str("SET LOCAL lock_timeout = 0;\nSET LOCAL search_path = pg_catalog;\nSET LOCAL row_security = off;\n");
        let query = "SELECT jsonb_build_object('snapshot', pg_export_snapshot())";
        let exported: Exported = session.ask_json(sql, query).await?;
        Ok(Self {
            session,
            id: exported.snapshot,
        })
    }

    /// Returns what other sessions name it by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns how another session begins that sees the same.
    pub(super) fn begin(&self) -> String {
        format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;\nSET TRANSACTION SNAPSHOT {};\n",
            literal(&self.id)
        )
    }

    /// Asks for what a query gives as one JSON value, in this state of the database.
    pub async fn ask<T>(&mut self, query: &str) -> Result<T, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.session.ask_json(String::new(), query).await
    }

    /// Waits for the session's end, and says how it failed, unless it ended well or was made to.
    pub async fn failure(&self) -> Option<Error> {
        self.session.failure().await
    }

    /// Returns a handle that ends the session from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.session.stopper()
    }

    /// Puts the question whether the session still stands in front of what is read: by then whoever else needs the tables
    /// has locks of its own, and none was let go before. It ends the session; the snapshot lives on in those who have it.
    pub fn confirm_before<R: Read>(&mut self, rows: R) -> Confirmed<R> {
        Confirmed {
            session: Some(self.session.take_talk()),
            rows,
        }
    }
}

/// What is read once it is known that the locks were held until then.
pub struct Confirmed<R> {
    session: Option<Option<Talk>>,
    rows: R,
}

impl<R: Read> Read for Confirmed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(session) = self.session.take() {
            let still = session.and_then(|mut talk| {
                let asked = talk.ask("COPY (SELECT true) TO STDOUT", &mut |_| Ok(()));
                asked.ok()
            });
            still.ok_or_else(|| {
                io::Error::other("the session that held the locks ended before `pg_dump` had them")
            })?;
        }
        self.rows.read(buffer)
    }
}

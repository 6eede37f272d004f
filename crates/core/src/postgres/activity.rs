//! What sessions of ours do on the server: working, waiting for us, or for somebody else's lock.

use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::error::{Error, Reason};
use super::psql::Psql;
use pgkeep_model::name::printable;
use pgkeep_model::restore::properties::literal;

/// The view is in memory; a server that does not answer by then cannot tell that anybody works there.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Session {
    /// Its number.
    pub pid: i32,
    /// `active`, `idle in transaction`…
    pub state: Option<String>,
    /// The kind of thing that it waits for: `Lock`, `Client`…
    pub waits_for: Option<String>,
    /// When it began or ended something last: another text for each statement.
    pub changed: String,
    /// The beginning of its statement.
    pub query: String,
    /// Sessions of others whose locks it waits for.
    pub blockers: Vec<String>,
}

impl Session {
    /// Tells whether the server works for it. One that waits for us, or for a lock, does not.
    pub fn is_working(&self) -> bool {
        let waits = self.waits_for.as_deref();
        self.state.as_deref() == Some("active") && !matches!(waits, Some("Client" | "Lock"))
    }
}

/// Reads what the sessions of this name do.
pub async fn sessions(
    psql: &Psql,
    application: &str,
    cancel: &CancellationToken,
) -> Result<Vec<Session>, Error> {
    // A prepared transaction blocks under the number 0. Servers before 9.6 have no such columns; none is supported.
    let sql = format!(
        "SELECT coalesce(jsonb_agg(jsonb_build_object('pid', a.pid, 'state', a.state, 'waits_for', a.wait_event_type,
           'changed', concat(a.state_change, ' ', a.query_start), 'query', left(a.query, 120),
           'blockers', CASE WHEN a.wait_event_type = 'Lock' THEN (
             SELECT coalesce(jsonb_agg(CASE WHEN b.pid IS NULL THEN 'a prepared transaction' ELSE 'pid ' || b.pid || ' (user '
                 || coalesce(b.usename, '?') || ', application ' || left(coalesce(nullif(b.application_name, ''), '?'), 60) || ')' END), '[]')
             FROM unnest(pg_blocking_pids(a.pid)) p LEFT JOIN pg_stat_activity b ON b.pid = p
             WHERE b.application_name IS DISTINCT FROM {0}) ELSE '[]' END)), '[]')::text
         FROM pg_stat_activity a WHERE a.application_name = {0} AND a.pid <> pg_backend_pid();",
        literal(application)
    );
    let answer = psql.query(&sql, cancel, TIMEOUT).await?;
    let text = String::from_utf8_lossy(&answer);
    let mut sessions: Vec<Session> = serde_json::from_str(text.trim()).map_err(|error| Error {
        program: "psql".into(),
        ..Error::new(Reason::Unreadable(error.to_string()))
    })?;
    for session in &mut sessions {
        session.query = printable(&session.query);
        session.blockers = session
            .blockers
            .iter()
            .map(|text| printable(text))
            .collect();
    }
    Ok(sessions)
}

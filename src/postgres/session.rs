//! What a session of ours would meet: the server's clock, and the time limits that role, database or server set for it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::error::{Error, Reason};
use super::psql::Psql;

/// It reads one small view.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What the server says of a session.
#[derive(Clone, Debug, Deserialize)]
pub struct SessionFacts {
    /// The server's clock.
    pub now: Timestamp,
    /// Limits in milliseconds, as the session began with them; 0 and -1 stand for none.
    pub limits: BTreeMap<String, i64>,
}

impl SessionFacts {
    /// Asks the server.
    pub async fn read(psql: &Psql, cancel: &CancellationToken) -> Result<Self, Error> {
        let answer = psql.query(QUERY, cancel, TIMEOUT).await?;
        let text = String::from_utf8_lossy(&answer);
        serde_json::from_str(text.trim()).map_err(|error| Error {
            program: "psql".into(),
            ..Error::new(Reason::Unreadable(error.to_string()))
        })
    }
}

/// `reset_val` is what the session began with: the limits themselves were switched off in front of this.
const QUERY: &str = "SET search_path = pg_catalog;
SELECT jsonb_build_object('now', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),
  'limits', (SELECT jsonb_object_agg(name, reset_val::bigint) FROM pg_settings WHERE unit = 'ms' AND name IN
    ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
     'transaction_timeout', 'max_standby_streaming_delay')))::text AS pgkeep_session;";

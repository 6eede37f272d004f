//! What a session of ours would meet: the server's clock, the time limits that role, database or server set for it, and
//! large objects that it may not read.

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
    /// Large objects that we may not read, whose owner and rights are the same.
    #[serde(default)]
    pub closed_large_objects: Vec<LargeObjects>,
}

/// Large objects with the same owner and the same rights.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LargeObjects {
    /// Their owner.
    pub owner: String,
    /// How many they are.
    pub count: u64,
    /// The number of the first.
    pub first: u32,
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
///
/// There may be millions of large objects, so those with the same owner and rights are judged as one. The server's own
/// word on one is known from 18 on; before, it is what `pg_largeobject_aclmask_snapshot` in `aclchk.c` does.
const QUERY: &str = r#"SELECT to_regprocedure('has_largeobject_privilege(oid, text)') IS NOT NULL AS pgkeep_says \gset
\if :pgkeep_says
\set pgkeep_reads 'has_largeobject_privilege(l.first, \'SELECT\')'
\else
\set pgkeep_reads 'EXISTS (SELECT FROM aclexplode(coalesce(l.lomacl, acldefault(\'L\', l.lomowner))) a WHERE a.privilege_type = \'SELECT\' AND (a.grantee = 0 OR pg_has_role(a.grantee, \'USAGE\')))'
\endif
SELECT jsonb_build_object('now', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'limits', (SELECT jsonb_object_agg(name, reset_val::bigint) FROM pg_settings WHERE unit = 'ms' AND name IN
    ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
     'transaction_timeout', 'max_standby_streaming_delay')),
  'closed_large_objects', (SELECT coalesce(jsonb_agg(jsonb_build_object('owner', pg_get_userbyid(l.lomowner), 'count', l.count,
      'first', l.first::bigint) ORDER BY l.first), '[]')
    FROM (SELECT lomowner, lomacl, count(*) AS count, min(oid) AS first FROM pg_largeobject_metadata GROUP BY lomowner, lomacl) l
    WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
      AND NOT current_setting('lo_compat_privileges')::boolean AND NOT :pgkeep_reads))::text AS pgkeep_session;"#;

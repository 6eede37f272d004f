//! What a target holds of the names that single tables need.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::error::{Error, Reason};
use super::psql::Psql;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::properties::literal;
use pgkeep_model::single::{Found, There};

/// As for the facts of a whole target.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Answer {
    schemas: Vec<String>,
    names: Vec<Found>,
}

/// Asks for names.
pub async fn read(
    psql: &Psql,
    names: &BTreeSet<TableName>,
    cancel: &CancellationToken,
) -> Result<There, Error> {
    let wanted: Vec<Value> = names
        .iter()
        .map(|name| json!({"schema": name.schema_or_public(), "name": name.name}))
        .collect();
    let sql = QUERY
        .replace(":powerful", &is_powerful("c.relowner"))
        .replace(":wanted", &literal(&Value::Array(wanted).to_string()));
    let answer = psql.query(&format!("{sql};"), cancel, TIMEOUT).await?;
    let text = String::from_utf8_lossy(&answer);
    let answer: Answer = serde_json::from_str(text.trim()).map_err(|error| Error {
        program: "psql".into(),
        ..Error::new(Reason::Unreadable(error.to_string()))
    })?;
    Ok(There::new(answer.schemas, answer.names))
}

/// Asks whether a role has powers over the server, or may take them.
pub(crate) fn is_powerful(role: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_roles x WHERE (x.rolsuper OR x.rolcreaterole OR x.rolname IN ({SERVER_ROLES})) AND pg_has_role({role}, x.oid, 'MEMBER'))"
    )
}

/// Roles of the server's own that reach its files and programs.
const SERVER_ROLES: &str =
    "'pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files'";

const QUERY: &str = r"SELECT jsonb_build_object(
  'schemas', (SELECT jsonb_agg(nspname) FROM pg_namespace),
  'names', coalesce((SELECT jsonb_agg(jsonb_build_object('schema', w.value->>'schema', 'name', w.value->>'name',
    'relation', EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = w.value->>'name'),
    'is_powerful', EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = w.value->>'name' AND :powerful),
    'is_type', EXISTS (SELECT FROM pg_type WHERE typnamespace = n.oid AND typname = w.value->>'name'),
    'routine', EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid AND proname = w.value->>'name'),
    'other', EXISTS (SELECT FROM pg_collation WHERE collnamespace = n.oid AND collname = w.value->>'name')
      OR EXISTS (SELECT FROM pg_opclass WHERE opcnamespace = n.oid AND opcname = w.value->>'name')
      OR EXISTS (SELECT FROM pg_opfamily WHERE opfnamespace = n.oid AND opfname = w.value->>'name')
      OR EXISTS (SELECT FROM pg_conversion WHERE connamespace = n.oid AND conname = w.value->>'name')
      OR EXISTS (SELECT FROM pg_ts_config WHERE cfgnamespace = n.oid AND cfgname = w.value->>'name')
      OR EXISTS (SELECT FROM pg_ts_dict WHERE dictnamespace = n.oid AND dictname = w.value->>'name')
      OR EXISTS (SELECT FROM pg_ts_parser WHERE prsnamespace = n.oid AND prsname = w.value->>'name')
      OR EXISTS (SELECT FROM pg_ts_template WHERE tmplnamespace = n.oid AND tmplname = w.value->>'name')))
    FROM jsonb_array_elements(:wanted::jsonb) w JOIN pg_namespace n ON n.nspname = w.value->>'schema'), '[]'))::text";

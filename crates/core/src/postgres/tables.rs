//! What tables of a target are made of, as far as rows that are merged into them have to know.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::error::{Error, Reason};
use super::psql::{Psql, lock_timeout_ms};
use pgkeep_model::merge::TargetTable;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::properties::literal;

/// As for the facts of a whole target.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Asks for tables, in the order in which they are named; one that is not there comes without a kind.
pub async fn read(
    psql: &Psql,
    names: &[TableName],
    cancel: &CancellationToken,
) -> Result<Vec<TargetTable>, Error> {
    let wanted: Vec<Value> = names
        .iter()
        .map(|name| json!({"schema": name.schema_or_public(), "name": name.name}))
        .collect();
    let sql = QUERY.replace(":wanted", &literal(&Value::Array(wanted).to_string()));
    answer(psql, &sql, cancel).await
}

/// Tells of each table whether it holds rows. It waits for somebody's lock for so long at most.
pub async fn hold_rows(
    psql: &Psql,
    tables: &[TargetTable],
    lock_wait: Duration,
    cancel: &CancellationToken,
) -> Result<Vec<bool>, Error> {
    let asked: Vec<String> = tables
        .iter()
        .map(|table| format!("EXISTS (SELECT FROM {})", table.quoted()))
        .collect();
    let sql = format!(
        "SET lock_timeout = {};\nSELECT array_to_json(ARRAY[{}]::bool[])",
        lock_timeout_ms(lock_wait),
        asked.join(", ")
    );
    answer(psql, &sql, cancel).await
}

async fn answer<T: serde::de::DeserializeOwned>(
    psql: &Psql,
    sql: &str,
    cancel: &CancellationToken,
) -> Result<T, Error> {
    let answer = psql.query(&format!("{sql};"), cancel, TIMEOUT).await?;
    let text = String::from_utf8_lossy(&answer);
    serde_json::from_str(text.trim()).map_err(|error| Error {
        program: "psql".into(),
        ..Error::new(Reason::Unreadable(error.to_string()))
    })
}

/// A sequence belongs to a column (`OWNED BY`, identity) or stands in its default; a partition's belongs to the root.
const QUERY: &str = r"SELECT coalesce(jsonb_agg(jsonb_build_object(
  'schema', w.value->>'schema', 'name', w.value->>'name', 'kind', c.relkind,
  'columns', coalesce((SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'is_generated', a.attgenerated <> '',
      'is_identity_always', a.attidentity = 'a') ORDER BY a.attnum)
    FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'),
  'key', (SELECT jsonb_build_object('is_immediate', i.indimmediate, 'columns', (
      SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'equals', (
          SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
          FROM pg_opclass oc
          JOIN pg_am m ON m.oid = oc.opcmethod AND m.amname = 'btree'
          JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype
            AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
          JOIN pg_operator o ON o.oid = ao.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
          WHERE oc.oid = i.indclass[u.i::int - 1])) ORDER BY u.i)
      FROM unnest(i.indkey::int2[]) WITH ORDINALITY u(att, i)
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.att WHERE u.i <= i.indnkeyatts))
    FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
  'sequences', coalesce((SELECT jsonb_agg(DISTINCT jsonb_build_object('schema', n.nspname, 'name', s.relname,
      'column', x.attname, 'increment', q.seqincrement))
    FROM (SELECT d.objid AS seq, a.attname, a.atttypid FROM pg_depend d
        JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
          AND (d.refobjid = c.oid OR d.refobjid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))
      UNION SELECT d.refobjid, a.attname, a.atttypid FROM pg_attrdef f
        JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
        JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
        WHERE f.adrelid = c.oid) x
    JOIN pg_class s ON s.oid = x.seq AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace
    JOIN pg_sequence q ON q.seqrelid = s.oid
    WHERE x.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)), '[]'),
  'triggers', coalesce((SELECT jsonb_agg(jsonb_build_object('name', t.tgname, 'is_always', t.tgenabled = 'A') ORDER BY t.tgname)
    FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')), '[]'),
  'rules', coalesce((SELECT jsonb_agg(w.rulename ORDER BY w.rulename) FROM pg_rewrite w
    WHERE w.ev_class = c.oid AND w.ev_type IN ('2', '3') AND w.ev_enabled <> 'D'), '[]'),
  'hides_rows', coalesce(c.relrowsecurity AND row_security_active(c.oid), false),
  'has_row_security', coalesce(c.relrowsecurity, false),
  'references', coalesce((SELECT jsonb_agg(DISTINCT jsonb_build_array(n.nspname, r.relname))
    FROM pg_constraint k
    CROSS JOIN LATERAL (SELECT k.confrelid AS relid UNION SELECT relid FROM pg_partition_tree(k.confrelid)) p
    JOIN pg_class r ON r.oid = p.relid JOIN pg_namespace n ON n.oid = r.relnamespace
    WHERE k.conrelid = c.oid AND k.contype = 'f' AND NOT k.condeferrable), '[]')
) ORDER BY w.ordinality), '[]')::text
FROM jsonb_array_elements(:wanted::jsonb) WITH ORDINALITY w
LEFT JOIN pg_namespace s ON s.nspname = w.value->>'schema'
LEFT JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = w.value->>'name'";

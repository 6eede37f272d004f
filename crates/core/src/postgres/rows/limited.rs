//! What has to be known of tables whose rows are limited, and of the foreign keys from and to them.

use serde::Deserialize;
use serde_json::{Value, json};

use pgkeep_model::limits::{Column, Keep, Key, Tree, called};
use pgkeep_model::name::{TableName, quote};
use pgkeep_model::restore::properties::literal;

/// What the server says of limited tables.
#[derive(Debug, Deserialize)]
pub struct LimitedFacts {
    /// The moment of the snapshot, as the server writes it.
    pub now: String,
    trees: Vec<TreeFacts>,
    keys: Vec<KeyFacts>,
}

#[derive(Debug, Deserialize)]
struct TreeFacts {
    table: (String, String),
    /// Schema, name and kind of every table of it.
    all: Vec<(String, String, String)>,
    partition_of: Option<(String, String)>,
    #[serde(default)]
    primary_key: Vec<String>,
    columns: Vec<ColumnFacts>,
}

#[derive(Debug, Deserialize)]
struct ColumnFacts {
    name: String,
    is_time: bool,
    is_indexed: bool,
}

#[derive(Debug, Deserialize)]
struct KeyFacts {
    name: String,
    child: (String, String),
    parent: (String, String),
    child_columns: Vec<String>,
    parent_columns: Vec<String>,
    operators: Vec<String>,
    is_of_partitioned: bool,
}

/// What of one limit is known before its rows are read.
#[derive(Debug, Deserialize)]
pub struct Extent {
    /// How many rows the table has.
    pub rows_total: u64,
    /// The last value that the limit itself keeps.
    pub cutoff: Option<String>,
    /// Functions of a condition that may answer otherwise each time.
    pub volatile: Vec<String>,
}

impl LimitedFacts {
    /// Asks for tables, each of which is there, in this order.
    pub fn question(tables: &[TableName]) -> String {
        let wanted: Vec<Value> = tables
            .iter()
            .map(|table| json!([table.schema_or_public(), table.name]))
            .collect();
        QUERY.replace(":wanted", &literal(&Value::Array(wanted).to_string()))
    }

    /// Returns the trees, in the order of the question.
    pub fn trees(&self) -> Vec<Tree> {
        let trees = self.trees.iter().map(|tree| {
            let named = tree.all.iter();
            let leaves = named.filter(|(_, _, kind)| kind == "r");
            Tree {
                table: name(&tree.table),
                leaves: leaves
                    .map(|(schema, name, _)| TableName::new(schema, name))
                    .collect(),
                all: (tree.all.iter())
                    .map(|(schema, name, _)| TableName::new(schema, name))
                    .collect(),
                partition_of: tree.partition_of.as_ref().map(name),
                primary_key: tree.primary_key.clone(),
                columns: (tree.columns.iter())
                    .map(|column| Column {
                        name: column.name.clone(),
                        is_time: column.is_time,
                    })
                    .collect(),
            }
        });
        trees.collect()
    }

    /// Returns the foreign keys.
    pub fn keys(&self) -> Vec<Key> {
        let keys = self.keys.iter().map(|key| Key {
            name: key.name.clone(),
            child: name(&key.child),
            parent: name(&key.parent),
            child_columns: key.child_columns.clone(),
            parent_columns: key.parent_columns.clone(),
            operators: key.operators.clone(),
            is_of_partitioned: key.is_of_partitioned,
        });
        keys.collect()
    }

    /// Returns the statement that makes the index by which a limit would be found faster; none where there is one.
    pub fn missing_index(&self, tree: usize, keep: &Keep) -> Option<String> {
        let (Keep::Newest { by, .. } | Keep::Last { by, .. }) = keep else {
            return None;
        };
        let facts = self.trees.get(tree)?;
        let column = facts.columns.iter().find(|column| column.name == *by)?;
        let table = name(&facts.table).quoted();
        (!column.is_indexed).then(|| {
            format!(
                "CREATE INDEX CONCURRENTLY ON {table} ({} DESC NULLS LAST)",
                quote(by)
            )
        })
    }
}

impl Extent {
    /// Asks how far a limit goes. A condition that the server does not understand is an error here already.
    pub fn question(tree: &Tree, keep: &Keep, now: &str) -> String {
        let quoted = tree.table.quoted();
        let cutoff = tree.cutoff(keep, now).unwrap_or_else(|| "NULL".to_owned());
        let (condition, called) = match keep {
            Keep::Where(condition) => (format!("WHERE (\n{condition}\n)"), called(condition)),
            _ => (String::new(), Vec::new()),
        };
        let name = quote(&tree.table.name);
        let called = literal(&json!(called).to_string());
        format!(
            "SELECT jsonb_build_object('rows_total', (SELECT count(*) FROM {quoted}), 'cutoff', ({cutoff}), \
             'is_understood', (SELECT true FROM {quoted} AS {name} {condition} LIMIT 0), \
             'volatile', (SELECT coalesce(jsonb_agg(DISTINCT p.proname), '[]') FROM pg_proc p \
             WHERE p.provolatile = 'v' AND p.proname IN (SELECT jsonb_array_elements_text({called}::jsonb))))"
        )
    }
}

fn name((schema, name): &(String, String)) -> TableName {
    TableName::new(schema, name)
}

/// Partitions and children of all levels; keys that a partition has from its root are not told again.
const QUERY: &str = r"WITH RECURSIVE w AS (
  SELECT x.at, c.oid FROM jsonb_array_elements(:wanted::jsonb) WITH ORDINALITY x(name, at)
  JOIN pg_namespace n ON n.nspname = x.name->>0 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = x.name->>1),
tree AS (SELECT at, oid FROM w UNION SELECT tree.at, i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid)
SELECT jsonb_build_object('now', now()::text,
  'trees', (SELECT coalesce(jsonb_agg(jsonb_build_object(
      'table', jsonb_build_array(n.nspname, c.relname),
      'all', (SELECT jsonb_agg(jsonb_build_array(tn.nspname, tc.relname, tc.relkind) ORDER BY tn.nspname, tc.relname)
        FROM tree JOIN pg_class tc ON tc.oid = tree.oid JOIN pg_namespace tn ON tn.oid = tc.relnamespace WHERE tree.at = w.at),
      'partition_of', (SELECT jsonb_build_array(pn.nspname, p.relname) FROM pg_inherits i
        JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'p' JOIN pg_namespace pn ON pn.oid = p.relnamespace
        WHERE i.inhrelid = c.oid),
      'primary_key', coalesce((SELECT jsonb_agg(a.attname ORDER BY u.i) FROM pg_index i
        CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY u(att, i)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.att
        WHERE i.indrelid = c.oid AND i.indisprimary AND u.i <= coalesce((to_jsonb(i)->>'indnkeyatts')::int, i.indnatts)), '[]'),
      'columns', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.attname,
          'is_time', a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype),
          'is_indexed', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid)
        ) ORDER BY a.attnum), '[]') FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
    ) ORDER BY w.at), '[]') FROM w JOIN pg_class c ON c.oid = w.oid JOIN pg_namespace n ON n.oid = c.relnamespace),
  'keys', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.conname,
      'child', jsonb_build_array(cn.nspname, cc.relname), 'parent', jsonb_build_array(pn.nspname, pc.relname),
      'is_of_partitioned', cc.relkind = 'p',
      'child_columns', (SELECT jsonb_agg(a.attname ORDER BY u.i) FROM unnest(k.conkey) WITH ORDINALITY u(att, i)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.att),
      'parent_columns', (SELECT jsonb_agg(a.attname ORDER BY u.i) FROM unnest(k.confkey) WITH ORDINALITY u(att, i)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.att),
      'operators', (SELECT jsonb_agg(format('OPERATOR(%I.%s)', o.nspname, p.oprname) ORDER BY u.i)
        FROM unnest(k.conpfeqop) WITH ORDINALITY u(op, i) JOIN pg_operator p ON p.oid = u.op JOIN pg_namespace o ON o.oid = p.oprnamespace)
    ) ORDER BY cn.nspname, cc.relname, k.conname), '[]')
    FROM pg_constraint k
    JOIN pg_class cc ON cc.oid = k.conrelid JOIN pg_namespace cn ON cn.oid = cc.relnamespace
    JOIN pg_class pc ON pc.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = pc.relnamespace
    WHERE k.contype = 'f' AND coalesce((to_jsonb(k)->>'conparentid')::bigint, 0) = 0
      AND (k.confrelid IN (SELECT oid FROM tree) OR k.conrelid IN (SELECT oid FROM tree))))";

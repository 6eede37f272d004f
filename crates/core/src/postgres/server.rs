//! What a server and one of its databases are: read by one `psql`, as JSON that the server itself builds.
//!
//! Works on 9.6 to 18 with one query, and asks nothing per table that would take long with 10,000 of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::catalog::{DATABASE_PROPERTIES, SCHEMA_OWNERS, SYSTEM_IDENTIFIER};
use super::environment::Environment;
use super::error::{Error, Reason};
use super::place::with_ambient_place;
use super::pooler;
use super::programs::Programs;
use super::psql::Psql;
use pgkeep_model::connection::Connection;
use pgkeep_model::name::TableName;
use pgkeep_model::supabase::{Lodger, MANAGED_SCHEMAS, SchemaOwner};
use pgkeep_model::text_form::TextForm;

/// The encoding that no server converts to UTF-8.
const NO_CONVERSION: &str = "MULE_INTERNAL";

/// The catalog of 10,000 tables takes half a second; a slow link and a busy server take longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What we know of a server and a database. Names are as the catalog has them, unquoted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ServerFacts {
    /// `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// 150018.
    pub version_num: u32,
    /// Whether the server is a standby.
    pub is_standby: bool,
    /// Identifies the cluster; `None` where we may not read it.
    pub system_identifier: Option<String>,
    /// The user that we are.
    pub user: String,
    /// Whether the user is a superuser.
    pub is_superuser: bool,
    /// Whether row-level security does not apply to the user.
    pub bypasses_row_security: bool,
    /// The database itself.
    pub database: DatabaseFacts,
    /// Extensions, by name.
    pub extensions: Vec<Extension>,
    /// Schemas, by name, without the system's own.
    pub schemas: Vec<String>,
    /// Whom they belong to.
    #[serde(default)]
    pub schema_owners: Vec<SchemaOwner>,
    /// Tables in those of a hosting platform that are neither an extension's nor the platform's, or that an extension
    /// leaves to its users; and what has policies there.
    #[serde(default)]
    pub lodgers: Vec<Lodger>,
    /// Tables and what else holds rows, by schema and name; neither the system's nor an extension's.
    pub tables: Vec<TableFacts>,
    /// What else can be named beside them: views, and relations of extensions.
    #[serde(default)]
    pub others: Vec<OtherFacts>,
    /// The server's clock, when it was asked.
    #[serde(default)]
    pub now: Option<Timestamp>,
    /// How its values look as the session prints them.
    #[serde(default)]
    pub printed: Option<TextForm>,
    /// Whether anything is of type `money`.
    #[serde(default)]
    pub has_money: bool,
    /// Foreign keys from one table to another.
    #[serde(default)]
    pub foreign_keys: Vec<ForeignKey>,
    /// Whether the server took the settings that make printed values comparable.
    #[serde(skip)]
    pub session_settings_applied: bool,
    /// The encoding in which its rows are wanted, where that is not the usual one.
    #[serde(skip)]
    pub wanted_encoding: Option<String>,
}

/// What a plain dump leaves out of a database, and how large it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// Its number in the catalog; with the system identifier it tells two databases apart.
    pub oid: u32,
    /// Its owner.
    pub owner: String,
    /// `UTF8`, `SQL_ASCII`…
    pub encoding: String,
    /// LC_COLLATE.
    pub collate: Option<String>,
    /// LC_CTYPE.
    pub ctype: Option<String>,
    /// `c`, `i` (ICU) or `b` (built in); `None` before 15.
    pub locale_provider: Option<String>,
    /// The locale of the provider, where it has one.
    pub locale: Option<String>,
    /// Rules that change ICU's order.
    #[serde(default)]
    pub icu_rules: Option<String>,
    /// Access rights as PostgreSQL writes them; `None` for the default ones.
    pub acl: Option<Vec<String>>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<Settings>,
    /// Its comment.
    pub comment: Option<String>,
    /// -1 for none.
    pub connection_limit: i32,
    /// Its tablespace.
    pub tablespace: String,
    /// Size on disk, in bytes.
    pub size_bytes: u64,
}

/// Settings of a database, for everybody or for one role.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Settings {
    /// `None` for everybody.
    pub role: Option<String>,
    /// `name=value` each.
    pub settings: Vec<String>,
}

/// A foreign key from one table to another, as `[schema, table, name, schema, table]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ForeignKey(pub String, pub String, pub String, pub String, pub String);

impl ForeignKey {
    /// Returns the table that has it.
    pub fn table(&self) -> (&str, &str) {
        (&self.0, &self.1)
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.2
    }

    /// Returns the table that it refers to.
    pub fn refers_to(&self) -> (&str, &str) {
        (&self.3, &self.4)
    }
}

/// An extension of the database.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The schema it was installed into.
    pub schema: String,
}

/// What a relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum TableKind {
    /// An ordinary table.
    #[serde(rename = "r")]
    Table,
    /// A partitioned table, which holds no rows itself.
    #[serde(rename = "p")]
    Partitioned,
    /// A foreign table, whose rows are not dumped.
    #[serde(rename = "f")]
    Foreign,
    /// A materialized view, which is filled again at restore.
    #[serde(rename = "m")]
    MaterializedView,
    /// A sequence.
    #[serde(rename = "S")]
    Sequence,
    /// A view.
    #[serde(rename = "v")]
    View,
}

/// What we know of a relation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TableFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: TableKind,
    /// Whether it is unlogged.
    pub is_unlogged: bool,
    /// Rows as last estimated; `None` where nobody has counted yet.
    pub estimated_rows: Option<u64>,
    /// Size of the main part as last estimated, in bytes, without indexes and TOAST.
    pub estimated_bytes: u64,
    /// Whether row-level security is on.
    pub row_security: bool,
    /// Whether it holds for the owner, too.
    pub row_security_forced: bool,
    /// Whether it would leave rows out for us: then `pg_dump` fails.
    pub row_security_applies: bool,
    /// Whether we may read it.
    pub can_read: bool,
    /// Tables that it is a partition of, or inherits from, as `[schema, name]`.
    pub parents: Vec<(String, String)>,
    /// The table that a sequence belongs to: `serial` or an identity.
    #[serde(default)]
    pub owner: Option<SequenceOwner>,
}

/// The table that a sequence belongs to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SequenceOwner {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether the sequence is an identity, which no dump holds without its table.
    pub is_identity: bool,
}

impl SequenceOwner {
    /// Returns the table's name.
    pub fn table_name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }
}

/// What we know of a view, or of a relation that belongs to an extension.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OtherFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: TableKind,
    /// The extension that it belongs to.
    pub extension: Option<String>,
    /// Whether the extension leaves rows of it to its users, which are dumped (`pg_extension_config_dump`).
    pub has_own_rows: bool,
    /// Whether it is an ordinary table, logged, with rows in it; views and the like have none of their own.
    #[serde(default)]
    pub holds_rows: bool,
    /// How many, as last estimated; `None` where nobody has counted yet.
    #[serde(default)]
    pub estimated_rows: Option<u64>,
    /// Whether we may read it.
    #[serde(default)]
    pub can_read: bool,
    /// Whether row-level security would leave rows out for us: then `pg_dump` fails.
    #[serde(default)]
    pub row_security_applies: bool,
}

impl OtherFacts {
    /// Returns its name.
    pub fn table_name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }
}

impl TableFacts {
    /// Returns its name.
    pub fn table_name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }

    /// Tells whether it is made by CREATE TABLE.
    pub fn is_table(&self) -> bool {
        use TableKind::{Foreign, Partitioned, Table};
        matches!(self.kind, Table | Partitioned | Foreign)
    }
}

impl ServerFacts {
    /// Returns the major version: 15 of 15.18, 9 of 9.6.
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// Tells whether the database holds bytes of no known encoding, which cannot be turned into UTF-8.
    pub fn is_sql_ascii(&self) -> bool {
        self.database.encoding == "SQL_ASCII"
    }

    /// Returns the text form that values have in a dump made by such sessions as this was asked by.
    pub fn text_form(&self) -> Option<TextForm> {
        let form = self.printed.clone()?;
        Some(TextForm {
            lc_monetary: form.lc_monetary.filter(|_| self.has_money),
            ..form
        })
    }

    /// Returns the encoding in which the database is dumped: UTF-8 where the server can tell all of it so.
    pub fn dump_encoding(&self) -> &str {
        let own = self.database.encoding.as_str();
        match &self.wanted_encoding {
            Some(wanted) => wanted,
            None if self.is_sql_ascii() || own == NO_CONVERSION => own,
            None => "UTF8",
        }
    }

    /// Returns the relations that `pg_dump` would stumble over, because we may not read them.
    pub fn unreadable(&self) -> impl Iterator<Item = &TableFacts> {
        self.tables
            .iter()
            .filter(|table| !table.can_read || table.row_security_applies)
    }

    /// Returns these tables with all their partitions and inheritance children, each once, given ones first.
    pub fn with_children(&self, names: &[TableName]) -> Vec<TableName> {
        let mut children: HashMap<(&str, &str), Vec<&TableFacts>> = HashMap::new();
        for table in &self.tables {
            for (schema, name) in &table.parents {
                children.entry((schema, name)).or_default().push(table);
            }
        }
        let mut all: Vec<TableName> = Vec::new();
        let mut seen = HashSet::new();
        for name in names {
            let name = TableName::new(name.schema_or_public(), &name.name);
            if seen.insert(name.clone()) {
                all.push(name);
            }
        }
        let mut at = 0;
        while let Some(parent) = all.get(at).cloned() {
            let found = children.get(&(parent.schema_or_public(), parent.name.as_str()));
            for child in found.into_iter().flatten() {
                if seen.insert(child.table_name()) {
                    all.push(child.table_name());
                }
            }
            at += 1;
        }
        all
    }

    /// Asks the server.
    ///
    /// A pooler that refuses session settings is asked again without them, unless it is one in transaction mode.
    pub async fn read(
        programs: &Programs,
        environment: &Environment,
        connection: &Connection,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        if is_transaction_pooler(connection, environment) {
            return Err(Error::new(Reason::TransactionPooler));
        }
        let query = query();
        let psql = Psql::new(programs, environment, connection);
        pooler::refuse(&psql, cancel).await?;
        let with_settings = psql.clone().with_session_settings();
        match with_settings.query(&query, cancel, TIMEOUT).await {
            Ok(answer) => parse(&answer, true),
            Err(error) if error.reason == Reason::SettingsRefused => {
                let psql = psql.without_session_settings();
                parse(&psql.query(&query, cancel, TIMEOUT).await?, false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Tells whether a connection is known by its name to go through a pooler in transaction mode.
///
/// Supabase's port 6543 and Neon's `-pooler` hosts. Such a pooler gives `pg_dump` another session with every
/// statement outside a transaction, and its settings with it: dumps differ in silence. Host and port count as libpq sees
/// them: what the connection leaves open comes from `PGHOST` and `PGPORT`.
pub fn is_transaction_pooler(connection: &Connection, environment: &Environment) -> bool {
    let connection = with_ambient_place(connection, environment);
    connection.hosts().iter().any(|(host, port)| {
        let is_supabase = [".supabase.com", ".supabase.co"]
            .iter()
            .any(|domain| host.ends_with(domain));
        let is_neon = host.ends_with(".neon.tech")
            && host
                .split('.')
                .next()
                .is_some_and(|name| name.ends_with("-pooler"));
        (is_supabase && *port == 6543) || is_neon
    })
}

/// Reads process id, facts, process id. The two numbers differ where a pooler switched the session in between.
fn parse(answer: &[u8], session_settings_applied: bool) -> Result<ServerFacts, Error> {
    // Names in a SQL_ASCII database may be no UTF-8; they can be told, but not selected.
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.lines();
    let (Some(first), Some(json), Some(last)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(unreadable(format!(
            "{} lines instead of 3",
            text.lines().count()
        )));
    };
    if first != last {
        return Err(Error::new(Reason::TransactionPooler));
    }
    let facts: ServerFacts =
        serde_json::from_str(json).map_err(|error| unreadable(error.to_string()))?;
    Ok(ServerFacts {
        session_settings_applied,
        ..facts
    })
}

fn unreadable(what: String) -> Error {
    Error {
        program: "psql".into(),
        ..Error::new(Reason::Unreadable(what))
    }
}

/// An analyzed partitioned table has -1 pages. `row_to_json(d)->>'x'` reads a column that only some versions have, where naming it would be an error on others.
/// `jsonb` prints one line; `json` would not.
fn query() -> String {
    let managed = MANAGED_SCHEMAS.join(",");
    format!(
        r#"\set pgkeep_managed '{{{managed}}}'
SELECT pg_backend_pid();
{SYSTEM_IDENTIFIER}
WITH RECURSIVE money(oid) AS (
  SELECT 790::oid UNION SELECT t.oid FROM money m JOIN pg_type t ON t.typbasetype = m.oid OR t.typelem = m.oid
    OR t.oid IN (SELECT rngtypid FROM pg_range r WHERE r.rngsubtype = m.oid)
), own AS (
  SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.reltuples, c.relpages, c.relrowsecurity, c.relforcerowsecurity
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'f', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.objsubid = 0 AND e.deptype = 'e')
), parents AS (
  SELECT i.inhrelid, jsonb_agg(jsonb_build_array(n.nspname, p.relname) ORDER BY i.inhseqno) AS names
  FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace
  WHERE p.relkind IN ('r', 'p', 'f') GROUP BY i.inhrelid
), owners AS (
  SELECT d.objid, jsonb_build_object('schema', n.nspname, 'name', t.relname, 'is_identity', d.deptype = 'i') AS owner
  FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_class t ON t.oid = d.refobjid
    JOIN pg_namespace n ON n.oid = t.relnamespace
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.objsubid = 0
    AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
), others AS (
  SELECT c.oid, c.relrowsecurity, n.nspname, c.relname, c.relkind, x.extname, coalesce(c.oid = ANY (x.extconfig), false) AS has_own_rows,
    c.relkind = 'r' AND c.relpersistence = 'p' AND coalesce(pg_relation_size(c.oid) > 0, false) AS holds_rows,
    CASE WHEN c.reltuples > 0 THEN c.reltuples::bigint END AS estimated_rows
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_depend e ON e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.objsubid = 0
      AND e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e'
    LEFT JOIN pg_extension x ON x.oid = e.refobjid
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (c.relkind = 'v' OR c.relkind IN ('r', 'p', 'f', 'm', 'S') AND x.oid IS NOT NULL)
), lodgers AS (
  SELECT c.oid, n.nspname, c.relname, r.rolname, c.reltuples, x.extname,
    coalesce((SELECT jsonb_agg(p.polname ORDER BY p.polname) FROM pg_policy p WHERE p.polrelid = c.oid), '[]') AS policies
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
    LEFT JOIN pg_depend e ON e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.objsubid = 0
      AND e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e'
    LEFT JOIN pg_extension x ON x.oid = e.refobjid
  WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY (:'pgkeep_managed'::text[])
    AND (x.oid IS NULL OR coalesce(x.extcondition[array_position(x.extconfig, c.oid)], '-') = '')
)
SELECT jsonb_build_object(
  'version', current_setting('server_version'),
  'version_num', current_setting('server_version_num')::int,
  'is_standby', pg_is_in_recovery(),
  'printed', jsonb_build_object('bytea_output', current_setting('bytea_output'), 'lc_monetary', current_setting('lc_monetary'),
    'quote_all_identifiers', current_setting('quote_all_identifiers')::boolean),
  'has_money', EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped
    AND a.atttypid IN (SELECT oid FROM money)),
  'now', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'system_identifier', nullif(:'pgkeep_system', ''),
  'user', current_user,
  'is_superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'bypasses_row_security', (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user),
  'database', (SELECT jsonb_build_object(
    'name', d.datname, 'oid', d.oid::bigint, 'encoding', pg_encoding_to_char(d.encoding),
    {DATABASE_PROPERTIES},
    'tablespace', (SELECT spcname FROM pg_tablespace WHERE oid = d.dattablespace),
    'size_bytes', pg_database_size(d.oid)) FROM pg_database d WHERE d.datname = current_database()),
  'extensions', coalesce((SELECT jsonb_agg(jsonb_build_object('name', e.extname, 'version', e.extversion, 'schema', n.nspname) ORDER BY e.extname)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace), '[]'),
  'schemas', coalesce((SELECT jsonb_agg(nspname ORDER BY nspname) FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'), '[]'),
  'schema_owners', {SCHEMA_OWNERS},
  'lodgers', coalesce((SELECT jsonb_agg(jsonb_build_object('schema', l.nspname, 'name', l.relname, 'owner', l.rolname,
    'is_of_extension', l.extname IS NOT NULL, 'has_rows', coalesce(pg_relation_size(l.oid) > 0, false),
    'estimated_rows', CASE WHEN l.reltuples > 0 THEN l.reltuples::bigint END, 'policies', l.policies) ORDER BY l.nspname, l.relname)
    FROM lodgers l), '[]'),
  'tables', coalesce((SELECT jsonb_agg(jsonb_build_object(
    'schema', o.nspname, 'name', o.relname, 'kind', o.relkind, 'is_unlogged', o.relpersistence = 'u',
    'estimated_rows', CASE WHEN o.reltuples >= 0 AND NOT (o.reltuples = 0 AND o.relpages = 0) THEN o.reltuples::bigint END,
    'estimated_bytes', greatest(o.relpages, 0)::bigint * current_setting('block_size')::bigint,
    'row_security', o.relrowsecurity, 'row_security_forced', o.relforcerowsecurity,
    'row_security_applies', o.relrowsecurity AND row_security_active(o.oid),
    'can_read', has_schema_privilege(o.nspname, 'USAGE') AND has_table_privilege(o.oid, 'SELECT'),
    'parents', coalesce(p.names, '[]'), 'owner', w.owner) ORDER BY o.nspname, o.relname)
    FROM own o LEFT JOIN parents p ON p.inhrelid = o.oid LEFT JOIN owners w ON w.objid = o.oid), '[]'),
  'foreign_keys', coalesce((SELECT jsonb_agg(jsonb_build_array(o.nspname, o.relname, k.conname, t.nspname, t.relname) ORDER BY o.nspname, o.relname, k.conname)
    FROM pg_constraint k JOIN own o ON o.oid = k.conrelid JOIN own t ON t.oid = k.confrelid
    WHERE k.contype = 'f' AND k.conrelid <> k.confrelid AND coalesce(row_to_json(k)->>'conparentid', '0') = '0'), '[]'),
  'others', coalesce((SELECT jsonb_agg(jsonb_build_object('schema', v.nspname, 'name', v.relname, 'kind', v.relkind,
    'extension', v.extname, 'has_own_rows', v.has_own_rows, 'holds_rows', v.holds_rows, 'estimated_rows', v.estimated_rows,
    'can_read', has_schema_privilege(v.nspname, 'USAGE') AND has_table_privilege(v.oid, 'SELECT'),
    'row_security_applies', v.relrowsecurity AND row_security_active(v.oid)) ORDER BY v.nspname, v.relname) FROM others v), '[]'))::text;
SELECT pg_backend_pid();"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, parents: &[&str]) -> TableFacts {
        TableFacts {
            schema: "public".into(),
            name: name.into(),
            kind: TableKind::Table,
            is_unlogged: false,
            estimated_rows: None,
            estimated_bytes: 0,
            row_security: false,
            row_security_forced: false,
            row_security_applies: false,
            can_read: true,
            parents: parents
                .iter()
                .map(|p| ("public".into(), (*p).into()))
                .collect(),
            owner: None,
        }
    }

    #[test]
    fn brings_children_of_children_once() {
        let facts = ServerFacts {
            tables: vec![
                table("leaf", &["mid", "other"]),
                table("mid", &["root"]),
                table("other", &[]),
                table("root", &[]),
            ],
            ..ServerFacts::default()
        };
        let names = |names: &[&str]| -> Vec<String> {
            let asked: Vec<TableName> = names.iter().map(|name| name.parse().unwrap()).collect();
            facts
                .with_children(&asked)
                .into_iter()
                .map(|name| name.name)
                .collect()
        };
        assert_eq!(names(&["root", "other"]), ["root", "other", "mid", "leaf"]);
        assert_eq!(names(&["leaf", "public.leaf"]), ["leaf"]);
        assert_eq!(names(&[]), [""; 0]);
    }

    #[test]
    fn knows_transaction_poolers_by_name() {
        for (url, is_pooler) in [
            (
                "postgres://u@aws-0-eu.pooler.supabase.com:6543/postgres",
                true,
            ),
            (
                "postgres://u@aws-0-eu.pooler.supabase.com:5432/postgres",
                false,
            ),
            ("postgres://u@db.x.supabase.co:6543/postgres", true),
            (
                "postgres://u@ep-x-1-pooler.eu-central-1.aws.neon.tech/d",
                true,
            ),
            ("postgres://u@ep-x-1.eu-central-1.aws.neon.tech/d", false),
            ("postgres://u@localhost:6543/d", false),
        ] {
            let connection: Connection = url.parse().unwrap();
            let nothing = Environment::new([]);
            let told = is_transaction_pooler(&connection, &nothing);
            assert_eq!(told, is_pooler, "{url}");
        }
    }

    #[test]
    fn knows_transaction_poolers_of_the_environment() {
        const SUPABASE: &str = "aws-0-eu.pooler.supabase.com";
        const NEON: &str = "ep-x-1-pooler.eu-central-1.aws.neon.tech";
        let supabase = [("PGHOST", SUPABASE), ("PGPORT", "6543")];
        let with_service = [("PGHOST", NEON), ("PGSERVICE", "s")];
        type Variables<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Variables<'_>, bool); 10] = [
            ("dbname=d", &[("PGHOST", NEON)], true),
            ("dbname=d", &supabase, true),
            ("dbname=d", &supabase[..1], false),
            ("dbname=d port=5432", &supabase, false),
            (
                "postgres://u@aws-0-eu.pooler.supabase.com/d",
                &[("PGPORT", "6543")],
                true,
            ),
            ("postgres://u@db.example.com/d", &supabase, false),
            ("postgres://u@db.example.com/d", &with_service, false),
            ("dbname=d hostaddr=10.0.0.1", &[("PGHOST", NEON)], false),
            ("dbname=d", &with_service, false),
            ("dbname=d service=s", &[("PGHOST", NEON)], false),
        ];
        for (conninfo, variables, is_pooler) in cases {
            let variables = variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()));
            let environment = Environment::new(variables);
            let connection: Connection = conninfo.parse().unwrap();
            let told = is_transaction_pooler(&connection, &environment);
            assert_eq!(told, is_pooler, "{conninfo}");
        }
    }

    #[test]
    fn a_switched_session_is_a_pooler() {
        assert_eq!(
            parse(b"1\n{}\n2\n", true).unwrap_err().reason,
            Reason::TransactionPooler
        );
        let unreadable = |answer| {
            matches!(
                parse(answer, true).unwrap_err().reason,
                Reason::Unreadable(_)
            )
        };
        assert!(unreadable(b"1\n{}\n1\n"));
        assert!(unreadable(b""));
    }
}

//! What a server and a database are as the target of a restore: read by one `psql`, before anything is touched.

use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::catalog::{DATABASE_PROPERTIES, SCHEMA_OWNERS, SYSTEM_IDENTIFIER};
use super::error::{Error, Reason};
use super::pooler;
use super::psql::Psql;
use pgkeep_model::connection::Connection;
use pgkeep_model::restore::defaults::DefaultRights;
use pgkeep_model::restore::properties::Properties;
use pgkeep_model::supabase::{MANAGED_SCHEMAS, SchemaOwner, is_platform_database};

/// The catalog of 100,000 relations takes a second; a slow link and a busy server take longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What is known of the server, and of the database that was connected to. Names are as the catalog has them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct TargetFacts {
    /// `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// 150018.
    pub version_num: u32,
    /// Whether the server is a standby, which takes no writes.
    pub is_standby: bool,
    /// Identifies the cluster; `None` where we may not read it.
    pub system_identifier: Option<String>,
    /// The user that we are.
    pub user: String,
    /// Whether the user is a superuser.
    pub is_superuser: bool,
    /// Roles by which the user has a superuser's powers, or can take them: itself, a superuser that it may become, the
    /// roles that run programs and reach files on the server. Up to PostgreSQL 15 CREATEROLE is such a power, because it
    /// may grant itself the next ones; Supabase and RDS forbid that.
    #[serde(default)]
    pub powers: Vec<String>,
    /// Whether the user may create databases.
    pub may_create_databases: bool,
    /// Whether the user may create roles.
    pub may_create_roles: bool,
    /// The database that was connected to.
    pub database: String,
    /// Its number in the catalog.
    pub database_oid: u64,
    /// Its encoding: `UTF8`, `SQL_ASCII`…
    pub encoding: String,
    /// Its owner, locale, rights, settings, comment and limit.
    pub properties: Properties,
    /// Whether the user has its owner's rights.
    pub owns_database: bool,
    /// Whether the user may create schemas in it.
    pub may_create_schemas: bool,
    /// Every database of the server.
    pub databases: Vec<String>,
    /// Those that the user may connect to, its own first.
    #[serde(default)]
    pub open_databases: Vec<String>,
    /// Every schema of it.
    #[serde(default)]
    pub schema_names: Vec<String>,
    /// Routines of it without parameters, as `auth.uid`, in schemas where something may stand in for a platform's own.
    #[serde(default)]
    pub platform_routines: Vec<String>,
    /// Its schemas and whom they belong to.
    #[serde(default)]
    pub schema_owners: Vec<SchemaOwner>,
    /// Every role.
    pub roles: Vec<String>,
    /// Extensions whose files the server has.
    pub extensions: Vec<String>,
    /// Those of them that the user may not create, because only a superuser may. Hosting services let their users create
    /// some all the same, so it says nothing there.
    #[serde(default)]
    pub extensions_of_superusers: Vec<String>,
    /// Extensions that the database has.
    #[serde(default)]
    pub installed_extensions: Vec<String>,
    /// Libraries that the server loads at its start; none where we may not know.
    #[serde(default)]
    pub preloaded: Option<Vec<String>>,
    /// The database in which `pg_cron` can be created, where the server has loaded it and we may know.
    #[serde(default)]
    pub cron_database: Option<String>,
    /// Languages in which functions can be made in the database.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Tablespaces that the user may put things into.
    #[serde(default)]
    pub tablespaces: Vec<String>,
    /// Locks that the server has room for, and how many that are for each session.
    #[serde(default)]
    pub locks: Option<u64>,
    /// `max_locks_per_transaction`.
    #[serde(default)]
    pub locks_per_transaction: u64,
    /// The database's subscriptions.
    #[serde(default)]
    pub subscriptions: Vec<Holder>,
    /// Replication slots of the database.
    #[serde(default)]
    pub slots: Vec<Holder>,
    /// What schemas called as a hosting platform's hold, as a dump's statements are named: `trigger t on s.x`,
    /// `function s.f`; and what triggers need: `may call s.f`, `may trigger s.x`.
    #[serde(default)]
    pub there: Vec<String>,
    /// Roles whose rights the user has.
    #[serde(default)]
    pub acts_as: Vec<String>,
    /// What the database holds outside extensions.
    pub schemas: Vec<SchemaFacts>,
    /// Large objects that it holds.
    #[serde(default)]
    pub large_objects: u64,
    /// Rights that the database gives to whatever the user makes; a superuser may make things as anybody.
    #[serde(default)]
    pub default_rights: Vec<DefaultRights>,
    /// Where the server keeps its data, where we may know.
    pub data_directory: Option<String>,
}

/// A subscription or a replication slot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Holder {
    /// Its name.
    pub name: String,
    /// Whether it is at work.
    pub is_active: bool,
}

/// What one schema holds outside extensions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SchemaFacts {
    /// Its name.
    pub name: String,
    /// Tables of any kind.
    pub tables: u64,
    /// Tables, views, sequences.
    pub relations: u64,
}

impl TargetFacts {
    /// Returns the major version: 15 of 15.18, 9 of 9.6.
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// Tells whether the database is a project's of Supabase, whose services hold it.
    pub fn is_supabase(&self) -> bool {
        is_platform_database(&self.schema_owners)
    }

    /// Tells whether the database has a schema `public`.
    pub fn has_public(&self) -> bool {
        self.schema_names.iter().any(|name| name == "public")
    }

    /// Asks the server from a database that is not `name` and lets us in: `first`, where one is named, then the usual ones.
    pub async fn read_beside(
        name: &str,
        first: Option<&str>,
        into: &Connection,
        psql: &impl Fn(&Connection) -> Psql,
        cancel: &CancellationToken,
    ) -> Result<(Connection, Self), Error> {
        // Where the server knows no other, libpq goes to the database that is called as the user.
        let usual = HOMES.iter().copied().chain(into.user());
        let mut refused = Vec::new();
        for home in homes(name, first, usual) {
            match Self::read(&psql(&brief(into, home)?), cancel).await {
                Ok(facts) => return Ok((beside(into, home)?, facts)),
                Err(error) => refused.push((home, error)),
            }
        }
        Err(no_home(refused))
    }

    /// Finds a database other than this one that lets us in: `first`, the usual ones, then any that is open to us.
    pub async fn home(
        &self,
        first: Option<&str>,
        into: &Connection,
        psql: &impl Fn(&Connection) -> Psql,
        cancel: &CancellationToken,
    ) -> Result<Connection, Error> {
        let is_open = |home: &&str| self.open_databases.iter().any(|open| open == home);
        let first = first.filter(|home| is_open(home));
        let usual = HOMES.iter().copied().filter(is_open);
        let others = self.open_databases.iter().map(String::as_str);
        let mut refused = Vec::new();
        for home in homes(&self.database, first, usual.chain(others)) {
            let psql = psql(&brief(into, home)?);
            match psql.query("SELECT 1;", cancel, TIMEOUT).await {
                Ok(_) => return beside(into, home),
                Err(error) => refused.push((home, error)),
            }
        }
        Err(no_home(refused))
    }

    /// Asks the server.
    pub async fn read(psql: &Psql, cancel: &CancellationToken) -> Result<Self, Error> {
        pooler::refuse(psql, cancel).await?;
        let answer = psql.query(&query(), cancel, TIMEOUT).await?;
        let text = String::from_utf8_lossy(&answer);
        serde_json::from_str(text.trim()).map_err(|error| Error {
            program: "psql".into(),
            ..Error::new(Reason::Unreadable(error.to_string()))
        })
    }
}

/// Databases that are there on most servers, to work from while another is made or renamed.
const HOMES: &[&str] = &["postgres", "template1"];

/// How many are tried at most: a server may have thousands.
const MOST_HOMES: usize = 6;

/// How long one may take to let us in, in seconds. A pooler that knows no such database may let us stand there.
const HOME_TIMEOUT: &str = "5";

/// Returns the databases to try, each once, without `name`.
fn homes<'a>(
    name: &str,
    first: Option<&'a str>,
    others: impl Iterator<Item = &'a str>,
) -> Vec<&'a str> {
    let mut homes = Vec::new();
    for home in first.into_iter().chain(others) {
        if home != name && !homes.contains(&home) {
            homes.push(home);
        }
    }
    homes.truncate(MOST_HOMES);
    homes
}

fn beside(into: &Connection, home: &str) -> Result<Connection, Error> {
    into.with_database(home)
        .map_err(|error| Error::new(Reason::Connection(error)))
}

/// The same without much patience: others may let us in.
fn brief(into: &Connection, home: &str) -> Result<Connection, Error> {
    beside(into, home)?
        .with_parameter("connect_timeout", HOME_TIMEOUT.to_owned())
        .map_err(|error| Error::new(Reason::Connection(error)))
}

/// Says why none lets us in. Where the server itself cannot be reached, that is all there is to say.
fn no_home(refused: Vec<(&str, Error)>) -> Error {
    let is_of_database = |error: &Error| {
        let says = |text: &str| error.stderr.iter().any(|line| line.contains(text));
        error.reason == Reason::DatabaseMissing
            || says("permission denied for database")
            || says("pg_hba.conf")
    };
    if let Some((_, first)) = refused.first()
        && !refused.iter().any(|(_, error)| is_of_database(error))
    {
        return first.clone();
    }
    let tried = refused.iter().map(|(home, _)| (*home).to_owned()).collect();
    let said = refused.iter().map(|(home, error)| {
        let first = error.stderr.first();
        let line = first.map_or_else(|| error.to_string(), Clone::clone);
        format!("`{home}`: {line}")
    });
    Error {
        stderr: said.collect(),
        ..Error::new(Reason::NoHome { tried })
    }
}

fn query() -> String {
    let managed = MANAGED_SCHEMAS.join(",");
    format!(
        r"\set pgkeep_managed '{{{managed}}}'
{SYSTEM_IDENTIFIER}
\set pgkeep_subscriptions '[]'
SELECT current_setting('server_version_num')::int >= 100000 AS pgkeep_subscribes \gset
\if :pgkeep_subscribes
SELECT coalesce(jsonb_agg(jsonb_build_object('name', s.subname, 'is_active', s.subenabled) ORDER BY s.subname), '[]')::text
  AS pgkeep_subscriptions FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
  WHERE d.datname = current_database() \gset
\endif
SELECT jsonb_build_object(
  'version', current_setting('server_version'),
  'version_num', current_setting('server_version_num')::int,
  'is_standby', pg_is_in_recovery(),
  'system_identifier', nullif(:'pgkeep_system', ''),
  'user', current_user,
  'is_superuser', r.rolsuper,
  'powers', CASE WHEN r.rolsuper THEN jsonb_build_array(r.rolname) ELSE coalesce((SELECT jsonb_agg(x.rolname ORDER BY x.rolname)
    FROM pg_roles x WHERE (x.rolsuper OR x.rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')
        OR x.rolcreaterole AND current_setting('server_version_num')::int < 160000
          AND coalesce(current_setting('supautils.reserved_memberships', true), '') !~ 'pg_execute_server_program'
          AND current_setting('rds.extensions', true) IS NULL)
      AND pg_has_role(x.oid, 'MEMBER')), '[]') END,
  'may_create_databases', r.rolsuper OR r.rolcreatedb,
  'may_create_roles', r.rolsuper OR r.rolcreaterole,
  'database', d.datname,
  'database_oid', d.oid::bigint,
  'encoding', pg_encoding_to_char(d.encoding),
  'properties', jsonb_build_object({DATABASE_PROPERTIES}),
  'owns_database', pg_has_role(d.datdba, 'USAGE'),
  'may_create_schemas', has_database_privilege(d.oid, 'CREATE'),
  'databases', (SELECT jsonb_agg(datname) FROM pg_database),
  'open_databases', coalesce((SELECT jsonb_agg(x.datname ORDER BY pg_has_role(x.datdba, 'USAGE') DESC, x.datname) FROM pg_database x
    WHERE x.datallowconn AND has_database_privilege(x.oid, 'CONNECT')), '[]'),
  'roles', (SELECT jsonb_agg(rolname) FROM pg_roles),
  'schema_owners', {SCHEMA_OWNERS},
  'there', (SELECT coalesce(jsonb_agg(t.object), '[]') FROM pg_namespace n, LATERAL (
      SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END || ' ' || n.nspname || '.' || c.relname
        FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
      UNION ALL SELECT 'may trigger ' || n.nspname || '.' || c.relname FROM pg_class c
        WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'f') AND has_table_privilege(c.oid, 'TRIGGER')
      UNION ALL SELECT 'index ' || i.relname || ' on ' || n.nspname || '.' || c.relname
        FROM pg_class c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid WHERE c.relnamespace = n.oid
      UNION ALL SELECT 'trigger ' || g.tgname || ' on ' || n.nspname || '.' || c.relname
        FROM pg_class c JOIN pg_trigger g ON g.tgrelid = c.oid WHERE c.relnamespace = n.oid
      UNION ALL SELECT 'rule ' || w.rulename || ' on ' || n.nspname || '.' || c.relname
        FROM pg_class c JOIN pg_rewrite w ON w.ev_class = c.oid WHERE c.relnamespace = n.oid
      UNION ALL SELECT 'constraint ' || k.conname || ' on ' || n.nspname || '.' || c.relname
        FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid WHERE c.relnamespace = n.oid
      UNION ALL SELECT 'function ' || n.nspname || '.' || p.proname FROM pg_proc p WHERE p.pronamespace = n.oid
      UNION ALL SELECT 'may call ' || n.nspname || '.' || p.proname FROM pg_proc p WHERE p.pronamespace = n.oid
        AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
      UNION ALL SELECT 'type ' || n.nspname || '.' || y.typname FROM pg_type y WHERE y.typnamespace = n.oid
    ) t (object) WHERE n.nspname = ANY (:'pgkeep_managed'::text[])),
  'acts_as', (SELECT coalesce(jsonb_agg(x.rolname), '[]') FROM pg_roles x WHERE pg_has_role(x.oid, 'USAGE')),
  'schema_names', (SELECT jsonb_agg(nspname) FROM pg_namespace),
  'platform_routines', coalesce((SELECT jsonb_agg(n.nspname || '.' || p.proname) FROM pg_proc p JOIN pg_namespace n
    ON n.oid = p.pronamespace WHERE p.pronargs = 0 AND n.nspname IN ('auth', 'supabase_functions')), '[]'),
  'extensions', coalesce((SELECT jsonb_agg(name) FROM pg_available_extensions), '[]'),
  'extensions_of_superusers', CASE WHEN r.rolsuper OR EXISTS (SELECT FROM pg_roles WHERE rolname IN ('rds_superuser',
        'cloudsqlsuperuser', 'alloydbsuperuser', 'azure_pg_admin', 'neon_superuser', 'supabase_admin', 'doadmin', 'avnadmin'))
      OR EXISTS (SELECT FROM pg_settings WHERE name IN ('rds.extensions', 'supautils.privileged_extensions', 'azure.extensions'))
    THEN '[]' ELSE coalesce((SELECT jsonb_agg(v.name ORDER BY v.name) FROM pg_available_extension_versions v
      JOIN pg_available_extensions a ON a.name = v.name AND a.default_version = v.version
      WHERE v.superuser AND NOT coalesce((row_to_json(v)->>'trusted')::boolean, false)), '[]') END,
  'installed_extensions', coalesce((SELECT jsonb_agg(extname) FROM pg_extension), '[]'),
  'preloaded', (SELECT to_jsonb(regexp_split_to_array(translate(replace(setting, '$libdir/', ''), chr(34) || ' ', ''), ',')) FROM pg_settings
    WHERE name = 'shared_preload_libraries'),
  'cron_database', (SELECT setting FROM pg_settings WHERE name = 'cron.database_name'),
  'languages', coalesce((SELECT jsonb_agg(lanname) FROM pg_language), '[]'),
  'tablespaces', coalesce((SELECT jsonb_agg(spcname) FROM pg_tablespace WHERE has_tablespace_privilege(oid, 'CREATE')), '[]'),
  'locks', current_setting('max_locks_per_transaction')::bigint
    * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint),
  'locks_per_transaction', current_setting('max_locks_per_transaction')::bigint,
  'subscriptions', :'pgkeep_subscriptions'::jsonb,
  'slots', coalesce((SELECT jsonb_agg(jsonb_build_object('name', slot_name, 'is_active', active) ORDER BY slot_name)
    FROM pg_replication_slots WHERE database = current_database()), '[]'),
  'large_objects', (SELECT count(*) FROM pg_largeobject_metadata),
  'default_rights', coalesce((SELECT jsonb_agg(jsonb_build_object('role', pg_get_userbyid(d.defaclrole), 'schema', n.nspname,
    'kind', d.defaclobjtype::text, 'rights', coalesce((SELECT jsonb_agg(jsonb_build_object(
      'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END, 'name', a.privilege_type,
      'is_grantable', a.is_grantable)) FROM aclexplode(d.defaclacl) a), '[]')) ORDER BY d.oid)
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
    WHERE r.rolsuper OR pg_get_userbyid(d.defaclrole) = r.rolname), '[]'),
  'data_directory', (SELECT nullif(setting, '') FROM pg_settings WHERE name = 'data_directory'),
  'schemas', coalesce((SELECT jsonb_agg(jsonb_build_object('name', s.name, 'tables', s.tables, 'relations', s.relations)
    ORDER BY s.name) FROM (
    SELECT n.nspname AS name, count(*) AS relations, count(*) FILTER (WHERE c.relkind IN ('r', 'p', 'f')) AS tables
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
    GROUP BY n.nspname) s), '[]'))::text
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database();"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_database_is_worked_from_first_and_never_the_one_at_work() {
        let usual = || HOMES.iter().copied();
        assert_eq!(
            homes(
                "shop",
                Some("defaultdb"),
                usual().chain(["shop", "postgres"])
            ),
            ["defaultdb", "postgres", "template1"]
        );
        assert_eq!(homes("postgres", Some("postgres"), usual()), ["template1"]);
        let many: Vec<String> = (0..100).map(|n| format!("d{n}")).collect();
        assert_eq!(
            homes("d0", None, many.iter().map(String::as_str)).len(),
            MOST_HOMES
        );
    }

    #[test]
    fn every_reason_is_told_where_the_databases_are_the_reason() {
        let error = |reason, line: &str| Error {
            stderr: vec![line.to_owned()],
            ..Error::new(reason)
        };
        let denied = || {
            error(
                Reason::LoginRefused,
                "FATAL:  permission denied for database \"postgres\"",
            )
        };
        let missing = || {
            error(
                Reason::DatabaseMissing,
                "FATAL:  database \"app\" does not exist",
            )
        };
        let found = no_home(vec![("postgres", denied()), ("app", missing())]);
        assert_eq!(found.id(), "no_maintenance_database");
        assert_eq!(found.stderr.len(), 2);
        let failure = found.to_failure("restore", "nothing was changed");
        assert!(
            failure.to_string().contains("`postgres` and `app`"),
            "{failure}"
        );
        assert!(failure.to_string().contains("GRANT CONNECT"), "{failure}");
        let away = || error(Reason::Unreachable { is_ipv6: false }, "Connection refused");
        assert_eq!(
            no_home(vec![("postgres", away()), ("app", away())]).id(),
            "server_unreachable"
        );
    }
}

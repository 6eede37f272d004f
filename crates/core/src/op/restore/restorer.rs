//! The plain login role that restores for a superuser.
//!
//! A dump is SQL that anyone who could write to its database may have written: functions of indexes, checks and
//! defaults run while it is restored. So that none of it runs with a superuser's powers, a role without any carries it
//! out, in a session of its own: a function can undo `SET ROLE`, but not another login. What only a superuser may do,
//! and what runs nothing of the dump, the superuser's own sessions do: extensions before it, single statements in
//! between, owners, rights and event triggers behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::postgres::databases::{self, Databases, Fate};
use crate::postgres::error::{Error, Reason};
use crate::postgres::present::is_powerful;
use crate::postgres::psql::{ENCODING, OWN_PATH, PREAMBLE, Psql, WRITABLE, lock_timeout_ms};
use crate::postgres::tables;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::Failure;
use pgkeep_model::merge::TargetTable;
use pgkeep_model::name::{TableName, quote};
use pgkeep_model::restore::defaults::SetAside;
use pgkeep_model::restore::filter::{Extension, LateStatement};
use pgkeep_model::restore::properties::literal;
use pgkeep_model::scan::Late;

/// How the role is called; nothing else is ever dropped by the sweep.
pub(super) const PREFIX: &str = "pgkeep_restorer_";

/// A login takes a moment.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// An extension like PostGIS takes seconds; owners of 20,000 tables a minute.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Two restores on one server must not change the same row of a catalog at once: whoever comes second would fail.
const ALONE: &str = "SELECT pg_catalog.pg_advisory_xact_lock(8098990213);\n";

/// Most that these statements print.
const MAX_ANSWER: usize = 1 << 20;

/// Most objects whose owners and rights are one transaction: each takes a few of the server's locks.
const MAX_OBJECTS_AT_ONCE: usize = 1000;

/// No log shows the password.
const UNLOGGED: &str = "SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET track_activities = off;
";

/// A table and whom it belongs to.
#[derive(Debug, Deserialize)]
struct Owned {
    schema: String,
    name: String,
    owner: String,
    /// Whether that role has powers over the server, or may take them.
    is_powerful: bool,
}

impl Owned {
    fn table_name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }
}

/// A plain login role, and how it reaches the database.
#[derive(Clone, Debug)]
pub(super) struct Restorer {
    pub role: String,
    /// The way of the one who made it, with another name and password.
    way: Connection,
}

/// Why a role of ours cannot restore.
#[derive(Debug)]
pub(super) enum NoRestorer {
    /// It was made, and the server did not let it in.
    NoLogin(Error),
    /// It could not be made. Where it may be there all the same, it is named.
    Failed(Error, Option<String>),
}

impl Restorer {
    /// Makes the role and lets it log in; `home` is a database that lets us in. One that cannot log in is dropped
    /// again.
    pub(super) async fn make(
        home: (&Databases, &Connection),
        psql: &impl Fn(&Connection) -> Psql,
        tag: &str,
        clock: &dyn Clock,
        cancel: &CancellationToken,
    ) -> Result<Self, NoRestorer> {
        let (databases, home) = home;
        let role = format!("{PREFIX}{}", clock.hex(4));
        let password = clock.hex(16);
        let name = quote(&role);
        let sql = format!(
            "{UNLOGGED}BEGIN;
CREATE ROLE {name} LOGIN PASSWORD {} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
COMMENT ON ROLE {name} IS {};
COMMIT",
            literal(&password),
            literal(tag),
        );
        let no_stop = CancellationToken::new();
        if let Err(error) = databases.execute(&sql, cancel).await {
            // An answer may be lost behind the COMMIT.
            let sql = format!("DROP ROLE IF EXISTS {name}");
            let gone = databases.execute(&sql, &no_stop).await;
            return Err(NoRestorer::Failed(error, gone.err().map(|_| role)));
        }
        let mut refused = None;
        let roads = ways(home).into_iter();
        for road in roads.filter_map(|road| with_role(&road, &role, &password).ok()) {
            match psql(&road).query("SELECT 1;", cancel, LOGIN_TIMEOUT).await {
                Ok(_) => return Ok(Self { role, way: road }),
                // Only the maintenance database is closed to it, where it has nothing to do.
                Err(error) if is_closed(&error) => return Ok(Self { role, way: road }),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if let Err(error) = drop_role(databases, &role, &no_stop).await {
            return Err(NoRestorer::Failed(error, Some(role)));
        }
        let refused = refused.unwrap_or_else(|| Error::new(Reason::LoginRefused));
        Err(NoRestorer::NoLogin(refused))
    }

    /// Returns its connection to a database.
    pub(super) fn connection(&self, database: &str) -> Result<Connection, Error> {
        self.way
            .with_database(database)
            .map_err(|error| Error::new(Reason::Connection(error)))
    }

    /// Lets the role work in a database, and makes there what only a superuser may and the dump needs from its start.
    pub(super) async fn let_in(
        &self,
        inside: &Psql,
        extensions: &[Extension],
        hand_over: &[String],
        defaults: &str,
        cancel: &CancellationToken,
    ) -> Result<LetIn, Error> {
        let before = Present::read(inside, cancel).await?;
        let role = quote(&self.role);
        let mut sql = format!(
            "SET lock_timeout = '60s';\nBEGIN;\n{ALONE}SELECT format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO {role}', current_database()) \\gexec
SELECT format('GRANT USAGE, CREATE ON SCHEMA %I TO {role}', nspname) FROM pg_namespace WHERE nspname = 'public' \\gexec
SELECT format('GRANT CREATE ON TABLESPACE %I TO {role}', spcname) FROM pg_tablespace WHERE spcname !~ '^pg_' \\gexec
"
        );
        for extension in in_order(extensions, &before.requires) {
            let name = quote(&extension.name);
            let schema = extension.schema.as_deref().unwrap_or("public");
            if !has_always(schema) {
                sql += &format!("CREATE SCHEMA IF NOT EXISTS {};\n", quote(schema));
            }
            sql += &format!(
                "CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA {};\n",
                quote(schema)
            );
        }
        sql += &self.grants();
        sql += &hand_over
            .iter()
            .map(|schema| self.hand_over(schema))
            .collect::<String>();
        sql += defaults;
        sql += "COMMIT;\n";
        run(inside, sql.into_bytes(), cancel).await?;
        let after = Present::read(inside, cancel).await?;
        let made_for = |name: &String| {
            extensions
                .iter()
                .any(|extension| extension.schema.as_ref() == Some(name))
        };
        let fresh = after.schemas.difference(&before.schemas);
        let mine: String = fresh
            .filter(|name| made_for(name) && !after.members.contains(*name))
            .map(|name| format!("ALTER SCHEMA {} OWNER TO {role};\n", quote(name)))
            .collect();
        run(inside, mine.into_bytes(), cancel).await?;
        Ok(LetIn {
            extensions: after
                .extensions
                .difference(&before.extensions)
                .cloned()
                .collect(),
        })
    }

    /// What the role may do with the things of extensions: fill their tables, and use what reaches other servers as
    /// far as they let a plain role.
    fn grants(&self) -> String {
        let role = quote(&self.role);
        format!(
            "SELECT format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO {role}', fdwname) FROM pg_foreign_data_wrapper \\gexec
SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO {role}', n.nspname) FROM pg_extension e JOIN pg_namespace n
  ON n.oid = e.extnamespace OR n.oid IN (SELECT relnamespace FROM pg_class WHERE oid = ANY (e.extconfig)) WHERE n.nspname <> 'pg_catalog' \\gexec
SELECT format('GRANT SELECT, INSERT, UPDATE ON TABLE %s TO {role}', c.oid::regclass) FROM pg_extension e JOIN pg_class c ON c.oid = ANY (e.extconfig) \\gexec
"
        )
    }

    /// Lets the role make tables, and what they need, in these schemas of a database, as far as they are there.
    /// Foreign keys may refer to these tables.
    ///
    /// Tables of roles with powers are not among those: a key is checked as the owner of the table that it refers to, and may call
    /// what the dump brings.
    pub(super) async fn let_make_tables(
        &self,
        inside: &Psql,
        schemas: &BTreeSet<&str>,
        referred: &[TableName],
        defaults: &str,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let role = quote(&self.role);
        let schemas = serde_json::to_string(schemas).expect("names are texts");
        let names: Vec<[&str; 2]> = referred
            .iter()
            .map(|table| [table.schema_or_public(), table.name.as_str()])
            .collect();
        let referred = serde_json::to_string(&names).expect("names are texts");
        let sql = format!(
            "SET lock_timeout = '60s';\nBEGIN;\n{ALONE}SELECT format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO {role}', current_database()) \\gexec
SELECT format('GRANT USAGE, CREATE ON SCHEMA %I TO {role}', nspname) FROM pg_namespace
  WHERE nspname IN (SELECT jsonb_array_elements_text({}::jsonb)) AND nspname !~ '^pg_' \\gexec
SELECT format('GRANT REFERENCES ON TABLE %s TO {role}', c.oid::regclass)
  FROM jsonb_array_elements({}::jsonb) w JOIN pg_namespace n ON n.nspname = w->>0
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w->>1 WHERE c.relkind IN ('r', 'p') AND nspname !~ '^pg_' AND NOT {} \\gexec
SELECT format('GRANT CREATE ON TABLESPACE %I TO {role}', spcname) FROM pg_tablespace WHERE spcname !~ '^pg_' \\gexec
{defaults}COMMIT;\n",
            literal(&schemas),
            literal(&referred),
            is_powerful("c.relowner"),
        );
        run(inside, sql.into_bytes(), cancel).await
    }

    /// Lets the role merge rows into these tables. It becomes a member of owners without powers over the server; to the
    /// tables of others it gets rights. Tables to which those are not enough are returned, each with the reason, and
    /// nothing is granted.
    pub(super) async fn act_for_owners(
        &self,
        inside: &Psql,
        tables: &[TableName],
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, Error> {
        let names: Vec<[&str; 2]> = tables
            .iter()
            .map(|table| [table.schema_or_public(), table.name.as_str()])
            .collect();
        let wanted = serde_json::to_string(&names).expect("names are texts");
        let sql = format!(
            "SELECT coalesce(jsonb_agg(jsonb_build_object('schema', n.nspname, 'name', c.relname, 'owner', o.rolname, 'is_powerful',
    {})), '[]')
  FROM jsonb_array_elements({}::jsonb) w JOIN pg_namespace n ON n.nspname = w->>0
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w->>1 JOIN pg_roles o ON o.oid = c.relowner;",
            is_powerful("o.oid"),
            literal(&wanted)
        );
        let answer = inside.query(&sql, cancel, TIMEOUT).await?;
        let owned: Vec<Owned> =
            serde_json::from_slice(answer.trim_ascii()).map_err(|error| Error {
                program: "psql".into(),
                ..Error::new(Reason::Unreadable(error.to_string()))
            })?;
        let (powerful, plain): (Vec<Owned>, Vec<Owned>) =
            owned.into_iter().partition(|table| table.is_powerful);
        let names: Vec<TableName> = powerful.iter().map(Owned::table_name).collect();
        let found = if names.is_empty() {
            Vec::new()
        } else {
            tables::read(inside, &names, cancel).await?
        };
        let in_words = |(owned, table): (&Owned, &TargetTable)| {
            let why = table.owner_needed()?;
            Some(format!(
                "`{}` belongs to `{}`, and only its owner may do what is needed {why}",
                owned.table_name(),
                owned.owner
            ))
        };
        let needed: Vec<String> = powerful.iter().zip(&found).filter_map(in_words).collect();
        if needed.is_empty() {
            let owners: BTreeSet<&str> = plain.iter().map(|table| table.owner.as_str()).collect();
            run(inside, self.rights(&owners, &found).into_bytes(), cancel).await?;
        }
        Ok(needed)
    }

    fn rights(&self, owners: &BTreeSet<&str>, tables: &[TargetTable]) -> String {
        let role = quote(&self.role);
        let mut sql = format!(
            "SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO {role}', current_database()) \\gexec\n"
        );
        for owner in owners {
            sql += &format!("GRANT {} TO {role};\n", quote(owner));
        }
        for table in tables {
            sql += &format!(
                "GRANT USAGE ON SCHEMA {} TO {role};\nGRANT SELECT, INSERT, UPDATE ON TABLE {} TO {role};\n",
                quote(&table.schema),
                table.quoted()
            );
            for sequence in &table.sequences {
                sql += &format!(
                    "GRANT USAGE ON SCHEMA {} TO {role};\nGRANT SELECT, UPDATE ON SEQUENCE {}.{} TO {role};\n",
                    quote(&sequence.schema),
                    quote(&sequence.schema),
                    quote(&sequence.name)
                );
            }
        }
        sql
    }

    /// Gives a schema of our own making, with all in it, to the role.
    fn hand_over(&self, schema: &str) -> String {
        let (role, schema) = (quote(&self.role), literal(schema));
        let free = |class: &str, oid: &str| {
            format!(
                "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{class}'::regclass AND d.objid = {oid} AND d.deptype IN ('e', 'i', 'a'))"
            )
        };
        format!(
            "SELECT format('ALTER SCHEMA %I OWNER TO {role}', nspname) FROM pg_namespace n WHERE nspname = {schema} AND {} \\gexec
SELECT format('ALTER TABLE %s OWNER TO {role}', c.oid::regclass) FROM pg_class c
  WHERE c.relnamespace = to_regnamespace(quote_ident({schema})) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {} \\gexec
SELECT format('ALTER ROUTINE %s OWNER TO {role}', p.oid::regprocedure) FROM pg_proc p
  WHERE p.pronamespace = to_regnamespace(quote_ident({schema})) AND {} \\gexec
SELECT format('ALTER TYPE %s OWNER TO {role}', t.oid::regtype) FROM pg_type t
  WHERE t.typnamespace = to_regnamespace(quote_ident({schema})) AND t.typtype IN ('e', 'd', 'r') AND {} \\gexec
",
            free("pg_namespace", "n.oid"),
            free("pg_class", "c.oid"),
            free("pg_proc", "p.oid"),
            free("pg_type", "t.oid"),
        )
    }

    /// Carries out what waited, in the database that was restored and compared, and takes all from the role that it
    /// has.
    pub(super) async fn finish(
        &self,
        inside: &Psql,
        application: &str,
        late: &Waiting<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), (Error, Fate)> {
        let named = inside.clone().with_application_name(application);
        let Err(error) = run(&named, late.sql(&self.role), cancel).await else {
            return Ok(());
        };
        let fate = if late.is_one() {
            self.fate_of_end(inside, application).await
        } else {
            Fate::Undone
        };
        Err((error, fate))
    }

    /// Finds out whether all was taken from the role, which is the last that its one transaction does.
    async fn fate_of_end(&self, inside: &Psql, application: &str) -> Fate {
        let no_stop = CancellationToken::new();
        if databases::end_sessions(inside, application, &no_stop)
            .await
            .is_err()
        {
            return Fate::Unknown;
        }
        let sql = format!(
            "SELECT count(*) FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid WHERE s.refclassid = 'pg_authid'::regclass
  AND r.rolname = {} AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database());",
            literal(&self.role)
        );
        match inside.query(&sql, &no_stop, LOGIN_TIMEOUT).await {
            Ok(answer) if answer.trim_ascii() == b"0" => Fate::Done,
            Ok(_) => Fate::Undone,
            Err(_) => Fate::Unknown,
        }
    }

    /// Undoes all that the role did in a database that stays.
    pub(super) async fn undo(
        &self,
        inside: &Psql,
        made: &LetIn,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        // Nobody waits for long: what is asked here is part of a failure that somebody wants to read.
        let mut sql = format!("SET lock_timeout = '10s';\n{}", end_sessions(&self.role));
        sql += &format!(
            "BEGIN;\n{ALONE}DROP OWNED BY {} CASCADE;\n",
            quote(&self.role)
        );
        // Where something else needs one by now, all stays as it is, and the failure says so.
        for extension in made.extensions.iter().rev() {
            sql += &format!("DROP EXTENSION IF EXISTS {};\n", quote(extension));
        }
        sql += "COMMIT;\n";
        run(inside, sql.into_bytes(), cancel).await
    }

    /// Drops the role, seen from a database in which it has nothing but the right to connect.
    pub(super) async fn drop(
        &self,
        home: &Databases,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        drop_role(home, &self.role, cancel).await
    }
}

/// Ends what the role still does: a server may go on with the statement of a client that is gone, and hold its locks.
fn end_sessions(role: &str) -> String {
    format!(
        "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE usename = {};\n",
        literal(role)
    )
}

/// Says of a role that could not be made that it may be there, and what does without.
pub(super) fn not_made(failure: Failure, left: Option<String>) -> Failure {
    let failure = failure.hint(
        "if you trust the dump as you trust the server, `--allow-superuser` restores without such a role",
    );
    match left {
        Some(role) => failure.with_details([format!("the role `{role}` may be left behind")]),
        None => failure,
    }
}

/// Says why a role of ours does not restore.
pub(super) fn not_let_in(error: &Error) -> String {
    let said = error.stderr.first().cloned();
    format!(
        "a role without such powers was made for it and dropped again, because the server did not let it log in: {}",
        said.unwrap_or_else(|| error.to_string())
    )
}

/// What was made before the dump came.
#[derive(Clone, Debug, Default)]
pub(super) struct LetIn {
    /// Extensions that were not there before.
    pub extensions: Vec<String>,
}

/// Tells whether a fresh database has the schema.
pub(super) fn has_always(schema: &str) -> bool {
    matches!(schema, "public" | "pg_catalog")
}

/// What waits until the rows were compared.
pub(super) struct Waiting<'a> {
    pub statements: &'a [LateStatement],
    /// Whom everything belongs to whose owner the dump does not name.
    pub heir: &'a str,
    /// Roles that were made for the dump, and cannot own what only a superuser may.
    pub plain_roles: &'a [String],
    /// Whether the database is thrown away again: the role reads it until then.
    pub is_scratch: bool,
    /// Whether the database stays when this fails, so that all of it is done or nothing.
    pub is_lasting: bool,
    pub lock_wait: Duration,
    /// What the database gives by itself to what the heir makes, set aside meanwhile.
    pub around: SetAside,
    /// Tables and large objects that have owners.
    pub objects: usize,
    pub server_major: u32,
}

impl Waiting<'_> {
    /// Tells whether all of it is one transaction.
    fn is_one(&self) -> bool {
        self.is_lasting || self.objects <= MAX_OBJECTS_AT_ONCE
    }

    fn sql(&self, role: &str) -> Vec<u8> {
        let is_one = self.is_one();
        let mut sql = format!(
            "SET lock_timeout = {};\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\nSET search_path = '';\nSET check_function_bodies = off;\n",
            lock_timeout_ms(self.lock_wait)
        )
        .into_bytes();
        sql.extend_from_slice(end_sessions(role).as_bytes());
        let mut say = |text: &[u8]| {
            sql.extend_from_slice(text);
            sql.push(b'\n');
        };
        if self.server_major >= 17 {
            say(b"SET event_triggers = off;");
        }
        if is_one {
            say(b"BEGIN;");
            say(ALONE.as_bytes());
        }
        say(self.around.before.as_bytes());
        say(b"SET client_encoding = 'UTF8';");
        let (role, heir) = (quote(role), quote(self.heir));
        for late in [Late::Owner, Late::Rights, Late::EventTrigger] {
            let of_this = self.statements.iter().filter(|one| one.late == late);
            for statement in of_this.filter(|one| !self.is_out_of_reach(one)) {
                say(statement.sql.as_bytes());
            }
            if late == Late::Rights {
                say(self.around.behind.as_bytes());
            }
            match late {
                Late::Rights if self.is_scratch => say(self.to_look(&role).as_bytes()),
                Late::Owner if self.is_scratch => {}
                // Rights are given by owners, so anyone who stays one is one first.
                Late::Owner => say(format!("REASSIGN OWNED BY {role} TO {heir};").as_bytes()),
                // An event trigger would see this.
                Late::Rights => {
                    say(format!("RESET SESSION AUTHORIZATION;\nDROP OWNED BY {role};").as_bytes());
                }
                Late::EventTrigger => {}
            }
        }
        if is_one {
            say(b"COMMIT;");
        }
        sql
    }

    /// What lets the role look at everything, as the ones that own it would.
    fn to_look(&self, role: &str) -> String {
        let mut sql = format!("RESET SESSION AUTHORIZATION;\nALTER ROLE {role} BYPASSRLS;");
        if self.server_major >= 14 {
            sql += &format!("\nGRANT pg_read_all_data, pg_write_all_data TO {role};");
        }
        for owner in self.plain_roles {
            sql += &format!("\nGRANT {} TO {role};", quote(owner));
        }
        sql
    }

    /// An event trigger belongs to a superuser, or to nobody.
    fn is_out_of_reach(&self, statement: &LateStatement) -> bool {
        let behind = statement.sql.split(" OWNER TO ").nth(1);
        let owner = behind.map(|owner| owner.trim_end_matches(';').trim().trim_matches('"'));
        let is_plain = |owner: &str| self.plain_roles.iter().any(|role| role == owner);
        match (statement.late, owner) {
            (Late::EventTrigger, Some(owner)) => is_plain(owner),
            // Where it is thrown away again, nothing is given to roles that have more than this database.
            (_, Some(owner)) => self.is_scratch && !is_plain(owner),
            (_, None) => false,
        }
    }
}

/// What a database has.
struct Present {
    extensions: BTreeSet<String>,
    schemas: BTreeSet<String>,
    /// Schemas that belong to an extension.
    members: BTreeSet<String>,
    /// What each extension needs.
    requires: BTreeMap<String, Vec<String>>,
}

impl Present {
    async fn read(psql: &Psql, cancel: &CancellationToken) -> Result<Self, Error> {
        let sql = "SELECT jsonb_build_array(
  (SELECT coalesce(jsonb_agg(extname), '[]') FROM pg_extension),
  (SELECT coalesce(jsonb_agg(nspname), '[]') FROM pg_namespace),
  (SELECT coalesce(jsonb_agg(n.nspname), '[]') FROM pg_namespace n JOIN pg_depend d
    ON d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e'),
  (SELECT coalesce(jsonb_object_agg(v.name, to_jsonb(v.requires)), '{}') FROM pg_available_extension_versions v
    JOIN pg_available_extensions a ON a.name = v.name AND a.default_version = v.version WHERE v.requires IS NOT NULL));";
        let answer = psql.query(sql, cancel, TIMEOUT).await?;
        let read = serde_json::from_slice(answer.trim_ascii());
        let (extensions, schemas, members, requires) = read.map_err(|error| Error {
            program: "psql".into(),
            ..Error::new(Reason::Unreadable(error.to_string()))
        })?;
        Ok(Self {
            extensions,
            schemas,
            members,
            requires,
        })
    }
}

/// Returns extensions behind those that they need, and otherwise in the order they came.
fn in_order<'a>(
    extensions: &'a [Extension],
    requires: &BTreeMap<String, Vec<String>>,
) -> Vec<&'a Extension> {
    let mut ordered: Vec<&Extension> = Vec::new();
    let mut left: Vec<&Extension> = extensions.iter().collect();
    while !left.is_empty() {
        let needs = |extension: &Extension| requires.get(&extension.name);
        let is_ready = |extension: &&Extension| {
            needs(extension).is_none_or(|needed| {
                let is_left = |name: &String| left.iter().any(|one| one.name == *name);
                !needed
                    .iter()
                    .any(|name| *name != extension.name && is_left(name))
            })
        };
        // A circle cannot be; the server says so, should there be one.
        let at = left.iter().position(is_ready).unwrap_or(0);
        ordered.push(left.remove(at));
    }
    ordered
}

/// The connection itself, and where a socket asks for the account of the operating system, this machine's own address.
fn ways(home: &Connection) -> Vec<Connection> {
    let mut ways = vec![home.clone()];
    let is_socket = home
        .hosts()
        .iter()
        .all(|(host, _)| host.is_empty() || host.starts_with('/'));
    if is_socket && let Ok(by_address) = home.with_parameter("host", "127.0.0.1".to_owned()) {
        ways.push(by_address);
    }
    ways
}

/// The server knows the role and its password, and does not let it into this database.
fn is_closed(error: &Error) -> bool {
    let lines = error.stderr.iter();
    lines
        .into_iter()
        .any(|line| line.contains("permission denied for database"))
}

fn with_role(
    way: &Connection,
    role: &str,
    password: &str,
) -> Result<Connection, pgkeep_model::connection::ConnectionError> {
    way.with_parameter("user", role.to_owned())?
        .with_password(SecretString::from(password.to_owned()))
}

/// Takes all from a role that it has here and what it may in the cluster, and drops it.
pub(crate) async fn drop_role(
    home: &Databases,
    role: &str,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let role = quote(role);
    home.execute(&format!("DROP OWNED BY {role};\nDROP ROLE {role}"), cancel)
        .await
}

/// Carries out statements one after the other, up to the first error.
pub(super) async fn run(
    psql: &Psql,
    sql: Vec<u8>,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let mut input = format!("{OWN_PATH}{PREAMBLE}{ENCODING}{WRITABLE}").into_bytes();
    input.extend_from_slice(&sql);
    let program = psql.program().args(["-f", "-"]).input(input);
    program.run(cancel, TIMEOUT, MAX_ANSWER).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(name: &str) -> Extension {
        Extension {
            name: name.to_owned(),
            schema: None,
        }
    }

    #[test]
    fn extensions_come_behind_what_they_need() {
        let all = ["earthdistance", "a", "cube"].map(extension);
        let requires = BTreeMap::from([
            ("earthdistance".to_owned(), vec!["cube".to_owned()]),
            ("a".to_owned(), vec!["plpgsql".to_owned()]),
            ("cube".to_owned(), vec!["cube".to_owned()]),
        ]);
        let names: Vec<&str> = in_order(&all, &requires)
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["a", "cube", "earthdistance"]);
        let circle = BTreeMap::from([
            ("a".to_owned(), vec!["cube".to_owned()]),
            ("cube".to_owned(), vec!["a".to_owned()]),
        ]);
        assert_eq!(in_order(&all, &circle).len(), 3);
    }

    #[test]
    fn owners_come_first_and_event_triggers_last() {
        let one = |late, sql: &str| LateStatement {
            late,
            sql: sql.to_owned(),
        };
        let statements = [
            one(Late::EventTrigger, "CREATE EVENT TRIGGER e;"),
            one(
                Late::EventTrigger,
                "ALTER EVENT TRIGGER e OWNER TO \"app\";",
            ),
            one(Late::Rights, "GRANT x;"),
            one(Late::Owner, "ALTER TABLE t OWNER TO app;"),
        ];
        let waiting = Waiting {
            statements: &statements,
            heir: "me",
            plain_roles: &["app".to_owned()],
            is_scratch: false,
            is_lasting: false,
            lock_wait: Duration::from_secs(1),
            around: SetAside::default(),
            objects: 1,
            server_major: 17,
        };
        let sql = String::from_utf8(waiting.sql("r")).unwrap();
        let own = |line: &&str| !line.is_empty() && !line.starts_with("SET client_encoding");
        let told: Vec<&str> = sql.lines().skip(6).filter(own).collect();
        assert_eq!(
            told,
            [
                "SET event_triggers = off;",
                "BEGIN;",
                ALONE.trim_end(),
                "ALTER TABLE t OWNER TO app;",
                "REASSIGN OWNED BY \"r\" TO \"me\";",
                "GRANT x;",
                "RESET SESSION AUTHORIZATION;",
                "DROP OWNED BY \"r\";",
                "CREATE EVENT TRIGGER e;",
                "COMMIT;",
            ]
        );
    }

    #[test]
    fn a_socket_has_a_second_way() {
        let socket: Connection = "postgresql:///shop?host=/run/postgresql".parse().unwrap();
        let hosts: Vec<String> = ways(&socket)
            .iter()
            .map(|way| way.hosts()[0].0.to_owned())
            .collect();
        assert_eq!(hosts, ["/run/postgresql", "127.0.0.1"]);
        let far: Connection = "postgresql://db/shop".parse().unwrap();
        assert_eq!(ways(&far).len(), 1);
        let role = with_role(&far, "r", "p").unwrap();
        assert_eq!(role.user(), Some("r"));
    }
}

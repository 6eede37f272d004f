//! Questions to a server, asked through `psql`.
//!
//! SQL goes in by stdin and never by the arguments; a role's own timeouts are switched off first, and an error in
//! any statement is an error of the whole.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::error::Error;
use super::place::is_direct;
use super::process::Program;
use super::programs::{Programs, Version};
use pgkeep_model::connection::{Connection, database_conninfo};

/// Most that one question may answer: the facts of 100,000 tables are 30 MB.
const MAX_ANSWER: usize = 256 << 20;

/// Sent first: names come in UTF-8, or as they are where the server has no way to tell them so. A database of no known
/// encoding may have names that are no UTF-8, which are read as well as can be.
pub(crate) const ENCODING: &str = "\
SELECT CASE WHEN pg_catalog.getdatabaseencoding() IN ('SQL_ASCII', 'MULE_INTERNAL') THEN 'SQL_ASCII' ELSE 'UTF8' END
  AS pgkeep_encoding \\gset
SET client_encoding = :'pgkeep_encoding';
";

/// Sent first: roles of hosted databases carry timeouts of seconds, which `pg_dump` switches off for itself only.
pub(crate) const PREAMBLE: &str = "\
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
";

/// Sent before what changes something: a database or a role may be read-only by its settings.
pub(crate) const WRITABLE: &str = "SET default_transaction_read_only = off;\n";

/// Limits that only some versions know, and that end a session of ours as the ones above would.
pub(super) const MORE_LIMITS: &str = "\
SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false)) AS pgkeep_limits FROM pg_catalog.pg_settings
  WHERE name ~ '^(transaction|idle_session)_timeout$' AND setting <> '0' \\gset
";

/// Names in questions of ours are the server's own, whatever path a role or a database has: in another schema somebody may
/// have made a function of the same name.
pub(crate) const OWN_PATH: &str = "SET search_path = pg_catalog;\n";

/// Returns what a server is told as its `lock_timeout`: milliseconds, at most 2^31 - 1 of them, and never 0, which is none.
pub(crate) fn lock_timeout_ms(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// Asks one server and database.
#[derive(Clone, Debug)]
pub struct Psql {
    programs: Programs,
    environment: Environment,
    conninfo: Option<String>,
    /// Whether it is known that no pooler stands in between.
    is_direct: bool,
}

impl Psql {
    /// Makes a `psql` for a connection.
    pub fn new(programs: &Programs, environment: &Environment, connection: &Connection) -> Self {
        Self {
            programs: programs.clone(),
            environment: environment.for_connection(connection),
            conninfo: connection.conninfo(),
            is_direct: is_direct(connection, environment),
        }
    }

    /// Tells whether it is known that no pooler stands in between.
    pub(super) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Adds the settings that make printed values comparable; see [`Environment::with_session_settings`].
    pub fn with_session_settings(mut self) -> Self {
        self.environment = self.environment.with_session_settings();
        self
    }

    /// Leaves session settings out, for poolers that refuse them.
    pub fn without_session_settings(mut self) -> Self {
        self.environment = self.environment.without_session_settings();
        self
    }

    /// Asks another database of the same server.
    pub fn in_database(mut self, name: &str) -> Self {
        self.environment.set("PGDATABASE", name);
        // What stands last wins.
        self.conninfo = self
            .conninfo
            .map(|conninfo| format!("{conninfo} {}", database_conninfo(name)));
        self
    }

    /// Gives the session a name by which it is found on the server.
    pub fn with_application_name(mut self, name: &str) -> Self {
        self.environment.set("PGAPPNAME", name);
        self
    }

    /// Asks the program for its own version.
    pub async fn version(&self, cancel: &CancellationToken, timeout: Duration) -> Option<Version> {
        let program = Program::new(&self.programs.psql, &self.environment).args(["--version"]);
        let answer = program.run(cancel, timeout, 4096).await.ok()?;
        Version::parse(&String::from_utf8_lossy(&answer.stdout))
    }

    /// Returns the bare program: unaligned, no start-up file, never asks, ends at the first error.
    pub fn program(&self) -> Program {
        let options = ["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"];
        Program::new(&self.programs.psql, &self.environment)
            .args(options)
            .args(
                self.conninfo
                    .iter()
                    .map(|conninfo| format!("--dbname={conninfo}")),
            )
    }

    /// Runs SQL and returns what it printed.
    pub async fn query(
        &self,
        sql: &str,
        cancel: &CancellationToken,
        timeout: Duration,
    ) -> Result<Vec<u8>, Error> {
        let answer = self
            .program()
            .input(format!(
                "{OWN_PATH}{PREAMBLE}{ENCODING}{MORE_LIMITS}{sql}\n"
            ))
            .run(cancel, timeout, MAX_ANSWER)
            .await?;
        Ok(answer.stdout)
    }
}

//! `pg_dumpall --globals-only`: roles and tablespaces of a cluster.
//!
//! Small enough to be held in memory, and limited so that it stays so. Where the role passwords may not be read,
//! the roles come without them, and the answer says so.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::error::{Error, Reason};
use super::process::{Captured, Program};
use super::programs::Programs;
use pgkeep_model::connection::{Connection, database_conninfo};

/// A cluster with 100,000 roles has 20 MB.
const MAX_BYTES: usize = 64 << 20;

/// Catalog reads only; a minute is a long time for them.
const TIMEOUT: Duration = Duration::from_secs(60);

const WITHOUT_PASSWORDS: &str =
    "the login cannot read the roles' passwords, so the roles are stored without them";

/// Roles and tablespaces as SQL.
#[derive(Debug)]
pub struct Globals {
    /// What `pg_dumpall` printed; it exited with 0.
    pub sql: Vec<u8>,
    /// Whether the roles have their password hashes.
    pub has_passwords: bool,
    /// What `pg_dumpall` said besides, and that the passwords are missing.
    pub warnings: Vec<String>,
}

impl Globals {
    /// Asks the server.
    pub async fn read(
        programs: &Programs,
        environment: &Environment,
        connection: &Connection,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let ask = |has_passwords| run(programs, environment, connection, has_passwords, cancel);
        match ask(true).await {
            Ok(answer) => Ok(Self::new(answer, true)),
            Err(error) if needs_authid(&error) => {
                let mut globals = Self::new(ask(false).await?, false);
                globals.warnings.push(WITHOUT_PASSWORDS.to_owned());
                Ok(globals)
            }
            Err(error) => Err(error),
        }
    }

    fn new(answer: Captured, has_passwords: bool) -> Self {
        Self {
            sql: answer.stdout,
            has_passwords,
            warnings: answer.stderr,
        }
    }
}

async fn run(
    programs: &Programs,
    environment: &Environment,
    connection: &Connection,
    has_passwords: bool,
    cancel: &CancellationToken,
) -> Result<Captured, Error> {
    let environment = environment.for_connection(connection);
    Program::new(programs.pg_dumpall(), &environment)
        .args(["--globals-only", "--no-password"])
        .args((!has_passwords).then_some("--no-role-passwords"))
        .args(database_arguments(connection))
        .run(cancel, TIMEOUT, MAX_BYTES)
        .await
}

/// `pg_dumpall` goes to `postgres` or `template1` whatever PGDATABASE says, where the login may not be let in.
fn database_arguments(connection: &Connection) -> Vec<String> {
    let conninfo = connection
        .conninfo()
        .map(|conninfo| format!("--dbname={conninfo}"));
    let database = connection
        .database_name()
        .map(|name| format!("--database={}", database_conninfo(name)));
    conninfo.into_iter().chain(database).collect()
}

fn needs_authid(error: &Error) -> bool {
    matches!(&error.reason, Reason::PermissionDenied { object } if object.contains("pg_authid"))
}

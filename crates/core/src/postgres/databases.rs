//! Makes, drops and renames databases, and carries out single statements around a restore.
//!
//! Names are quoted by this file and never by its callers; sessions in the way are ended before a database is dropped
//! or renamed, because a pool would come back faster than any person could.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::error::{Error, InUse, Reason};
use super::psql::{Psql, WRITABLE};
use pgkeep_model::name::{printable, quote};
use pgkeep_model::restore::properties::literal;

/// Creating a database copies template0's files and waits for a checkpoint; dropping one waits for another.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Reading every table for statistics takes long, but never days.
const ANALYZE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How often a rename or a drop is tried: each time the sessions that came back are ended first, and the server itself
/// waits five seconds for those that are not ours to end.
const ATTEMPTS: u32 = 3;

/// Most sessions that are reported by name.
const MAX_TOLD: usize = 5;

/// Between two tries: sessions that are not ours to end are given time to go.
const RENAME_PAUSE: Duration = Duration::from_secs(1);

/// How long a session that was ended may take to go, in steps of a tenth of a second.
const GONE_STEPS: u32 = 100;

/// The databases of one server, seen from a database that is none of those at work.
#[derive(Clone, Debug)]
pub struct Databases {
    psql: Psql,
}

impl Databases {
    /// Works over a connection to a maintenance database.
    pub fn new(psql: Psql) -> Self {
        Self { psql }
    }

    /// Gives its sessions a name by which they are found on the server.
    pub fn named(self, application: &str) -> Self {
        Self {
            psql: self.psql.with_application_name(application),
        }
    }

    /// Returns what asks the maintenance database.
    pub fn psql(&self) -> &Psql {
        &self.psql
    }

    /// Carries out one statement.
    pub async fn execute(&self, sql: &str, cancel: &CancellationToken) -> Result<(), Error> {
        self.psql
            .query(&format!("{WRITABLE}{sql};"), cancel, TIMEOUT)
            .await
            .map(drop)
    }

    /// Creates a database by `sql`, a statement that names `making`, and gives it `name` when it is there. Where it
    /// takes too long, or `until` is first, our session is ended and what it made is dropped.
    ///
    /// The server does not end with our session, and may make the database when nobody waits for it any more. So it is
    /// made under a name that nobody else has: what bears the wanted name may be somebody else's, made meanwhile.
    pub async fn create<E>(
        &self,
        making: &str,
        sql: &str,
        name: &str,
        application: &str,
        until: impl Future<Output = E>,
    ) -> Result<(), NotCreated<E>> {
        let no_stop = CancellationToken::new();
        let named = self.clone().named(application);
        let rename = format!("ALTER DATABASE {} RENAME TO {}", quote(making), quote(name));
        let number = OnceLock::new();
        let work = async {
            named.execute(sql, &no_stop).await?;
            if let Some(oid) = self.oid_of(making, &no_stop).await? {
                let _ = number.set(oid); // it is set once
            }
            named.execute(&rename, &no_stop).await
        };
        let why = tokio::select! {
            done = work => match done {
                Ok(()) => return Ok(()),
                Err(error) => Why::Failed(error),
            },
            reason = until => Why::GivenUp(reason),
        };
        let cleaned = async {
            end_sessions(&self.psql, application, &no_stop).await?;
            // The answer to the renaming may be lost. Ours is known by its number then, whatever it is called.
            let ours = match number.get() {
                Some(oid) => self.name_of(*oid, &no_stop).await?,
                None => Some(making.to_owned()),
            };
            match ours {
                Some(ours) if ours == name && matches!(why, Why::Failed(_)) => Ok(true),
                // What holds up a CREATE DATABASE may hold up a DROP, too.
                Some(ours) if self.exists(&ours, &no_stop).await? => {
                    self.drop_database(&ours, &no_stop).await.map(|()| false)
                }
                _ => Ok(false),
            }
        };
        let left = match cleaned.await {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(error) => Some((making.to_owned(), error)),
        };
        Err(NotCreated { why, left })
    }

    async fn oid_of(&self, name: &str, cancel: &CancellationToken) -> Result<Option<u32>, Error> {
        let which = format!("datname = {}", literal(name));
        let answer = self.one("oid", &which, cancel).await?;
        Ok(answer.and_then(|text| text.parse().ok()))
    }

    async fn name_of(&self, oid: u32, cancel: &CancellationToken) -> Result<Option<String>, Error> {
        self.one("datname", &format!("oid = {oid}"), cancel).await
    }

    /// Asks for one value of one database.
    async fn one(
        &self,
        what: &str,
        which: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<String>, Error> {
        let sql = format!("SELECT to_jsonb({what}::text) FROM pg_database WHERE {which};");
        let answer = self.psql.query(&sql, cancel, TIMEOUT).await?;
        Ok(serde_json::from_slice(answer.trim_ascii()).ok())
    }

    /// Drops a database that we made, sessions or not; one that is not there is no error. Subscriptions that came with
    /// a dump go with it, and their publisher never hears of them.
    pub async fn drop_database(&self, name: &str, cancel: &CancellationToken) -> Result<(), Error> {
        let sql = format!(
            "{}\n{WRITABLE}DROP DATABASE IF EXISTS {};",
            terminate(name),
            quote(name)
        );
        match self.insist(&sql, &[name], cancel).await {
            Err(error) if is_subscribed(&error) => {
                self.unsubscribe(name, cancel).await?;
                self.insist(&sql, &[name], cancel).await.map(drop)
            }
            done => done.map(drop),
        }
    }

    /// Drops the subscriptions of a database. Without its slot's name, none of them speaks to its publisher.
    async fn unsubscribe(&self, name: &str, cancel: &CancellationToken) -> Result<(), Error> {
        let sql = format!(
            "{WRITABLE}SET search_path = pg_catalog;
             SELECT format('ALTER SUBSCRIPTION %I DISABLE', s.subname), format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', s.subname),
               format('DROP SUBSCRIPTION %I', s.subname)
             FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database() \\gexec"
        );
        let inside = self.psql.clone().in_database(name);
        inside.query(&sql, cancel, TIMEOUT).await.map(drop)
    }

    /// Puts `fresh` into the place of `name`, and `name` under `kept`: both renames in one transaction, or none.
    /// Returns how many sessions of `name` were ended for it.
    pub async fn swap(
        &self,
        name: &str,
        fresh: &str,
        kept: &str,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        let sql = format!(
            "{}{}BEGIN;\nALTER DATABASE {} RENAME TO {};\nALTER DATABASE {} RENAME TO {};\nCOMMIT;",
            terminate(name),
            terminate(fresh),
            quote(name),
            quote(kept),
            quote(fresh),
            quote(name),
        );
        let answer = self.insist(&sql, &[name, fresh], cancel).await?;
        let text = String::from_utf8_lossy(&answer);
        let ended = text
            .lines()
            .next()
            .and_then(|count| count.trim().parse().ok());
        Ok(ended.unwrap_or_default())
    }

    /// Gives a database another name.
    pub async fn rename(
        &self,
        from: &str,
        to: &str,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let sql = format!(
            "{}{WRITABLE}ALTER DATABASE {} RENAME TO {};",
            terminate(from),
            quote(from),
            quote(to)
        );
        self.insist(&sql, &[from], cancel).await.map(drop)
    }

    /// Tells whether somebody works in a database.
    pub async fn has_sessions(
        &self,
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = {};",
            literal(name)
        );
        let answer = self.psql.query(&sql, cancel, TIMEOUT).await?;
        Ok(answer.trim_ascii() != b"0")
    }

    /// Tells whether a role works in any database.
    pub async fn works_somewhere(
        &self,
        role: &str,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = {};",
            literal(role)
        );
        let answer = self.psql.query(&sql, cancel, TIMEOUT).await?;
        Ok(answer.trim_ascii() != b"0")
    }

    /// Returns names and comments of the roles whose name starts with `prefix`.
    pub async fn roles_with_comments(
        &self,
        prefix: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, String)>, Error> {
        let sql = format!(
            "SELECT coalesce(jsonb_agg(jsonb_build_array(rolname, coalesce(shobj_description(oid, 'pg_authid'), ''))), '[]')
             FROM pg_roles WHERE position({} IN rolname::text) = 1;",
            literal(prefix)
        );
        let answer = self.psql.query(&sql, cancel, TIMEOUT).await?;
        read(&answer)
    }

    /// Returns the databases in which a role owns something.
    pub async fn where_it_owns(
        &self,
        role: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, Error> {
        let sql = format!(
            "SELECT coalesce(jsonb_agg(DISTINCT coalesce(d.datname, 'the server itself')), '[]') FROM pg_shdepend s
             JOIN pg_roles r ON r.oid = s.refobjid LEFT JOIN pg_database d ON d.oid = s.dbid
             WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o' AND r.rolname = {};",
            literal(role)
        );
        let answer = self.psql.query(&sql, cancel, TIMEOUT).await?;
        read(&answer)
    }

    /// Carries out what needs databases without sessions, and says in the end who stays in which.
    async fn insist(
        &self,
        sql: &str,
        names: &[&str],
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>, Error> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match self.psql.query(sql, cancel, TIMEOUT).await {
                Err(error) if left > 0 && is_in_use(&error) => {
                    tokio::time::sleep(RENAME_PAUSE).await;
                }
                Err(error) if is_in_use(&error) => {
                    for name in names {
                        let which = format!("datname = {}", literal(name));
                        if let Some(told) = who_stays(&self.psql, name, &which, cancel).await? {
                            return Err(told);
                        }
                    }
                    return Err(error);
                }
                other => return other,
            }
        }
    }

    /// Tells whether there is a database of this name.
    pub async fn exists(&self, name: &str, cancel: &CancellationToken) -> Result<bool, Error> {
        let sql = format!(
            "SELECT count(*) FROM pg_database WHERE datname = {};",
            literal(name)
        );
        let answer = self.psql.query(&sql, cancel, TIMEOUT).await?;
        Ok(answer.trim_ascii() == b"1")
    }

    /// Returns names and comments of the databases whose name starts with `prefix`.
    pub async fn with_comments(
        &self,
        prefix: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, String)>, Error> {
        let sql = format!(
            "SELECT coalesce(jsonb_agg(jsonb_build_array(datname, coalesce(shobj_description(oid, 'pg_database'), ''))), '[]')
             FROM pg_database WHERE position({} IN datname::text) = 1;",
            literal(prefix)
        );
        let answer = self.psql.query(&sql, cancel, TIMEOUT).await?;
        read(&answer)
    }
}

/// Reads an answer. One that cannot be read is an error: it says as little of nothing as of anything.
fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Error> {
    let text = String::from_utf8_lossy(answer);
    serde_json::from_str(text.trim()).map_err(|error| Error {
        program: "psql".into(),
        ..Error::new(Reason::Unreadable(error.to_string()))
    })
}

/// Why there is no new database.
#[derive(Debug)]
pub struct NotCreated<E> {
    /// What happened.
    pub why: Why<E>,
    /// The database that could not be removed again, and why.
    pub left: Option<(String, Error)>,
}

/// What kept a database from being made.
#[derive(Debug)]
pub enum Why<E> {
    /// The server, or the time that it took.
    Failed(Error),
    /// Somebody did not want to wait any longer.
    GivenUp(E),
}

/// Reads every table for the planner's statistics, in several sessions at once.
pub async fn analyze(psql: &Psql, jobs: usize, cancel: &CancellationToken) -> Result<(), Error> {
    if jobs < 2 {
        let done = psql
            .query("RESET search_path;\nANALYZE;", cancel, ANALYZE_TIMEOUT)
            .await;
        return done.map(drop);
    }
    // Each session takes every n-th. The system's own tables grow meanwhile, so they stand behind all others.
    let sessions = (0..jobs).map(|session| async move {
        let sql = format!(
            "SELECT 'RESET search_path' UNION ALL (SELECT format('ANALYZE %I.%I', nspname, relname) FROM (
               SELECT n.nspname, c.relname, row_number() OVER
                 (ORDER BY n.nspname = 'pg_catalog', pg_relation_size(c.oid) DESC, c.oid) AS place
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
             ) tables WHERE place % {jobs} = {session} ORDER BY place) \\gexec"
        );
        psql.query(&sql, cancel, ANALYZE_TIMEOUT).await
    });
    let done = join_all(sessions).await;
    done.into_iter().try_for_each(|done| done.map(drop))
}

/// Carries out a statement that may read every table.
pub async fn fill(psql: &Psql, sql: &str, cancel: &CancellationToken) -> Result<(), Error> {
    let sql = format!("{WRITABLE}{sql}");
    psql.query(&sql, cancel, ANALYZE_TIMEOUT).await.map(drop)
}

/// Returns how many sessions of our role the server has room for; none where it does not report its free space.
pub async fn free_sessions(
    psql: &Psql,
    cancel: &CancellationToken,
) -> Result<Option<usize>, Error> {
    // The session that asks is gone when the answer is used.
    let sql = "SELECT greatest(0, least(
          current_setting('max_connections')::int
            - CASE WHEN rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int
                + coalesce(current_setting('reserved_connections', true)::int, 0) END
            - (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL) + 1,
          CASE WHEN rolconnlimit >= 0
            THEN rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usename = rolname) + 1 END))
        FROM pg_roles WHERE rolname = current_user;";
    let answer = psql.query(sql, cancel, TIMEOUT).await?;
    Ok(String::from_utf8_lossy(&answer).trim().parse().ok())
}

/// Ends our own sessions of this name in the database, and returns when they are gone: what they did is undone then.
/// One that does not go is an error that names it.
pub async fn end_sessions(
    psql: &Psql,
    application: &str,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    end_sessions_in(GONE_STEPS, psql, application, cancel).await
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was undone, or is about to be.
    Undone,
    /// It was committed.
    Done,
    /// The server does not say.
    Unknown,
}

/// Asks what became of a transaction, whose number `txid_current()` told. PostgreSQL 10 is the first that knows.
pub async fn fate_of(psql: &Psql, transaction: &str, cancel: &CancellationToken) -> Fate {
    let Ok(number) = transaction.parse::<u64>() else {
        return Fate::Unknown;
    };
    let sql = format!("SELECT pg_catalog.txid_status({number});");
    match psql.query(&sql, cancel, TIMEOUT).await {
        Ok(answer) => match answer.trim_ascii() {
            b"committed" => Fate::Done,
            b"aborted" => Fate::Undone,
            _ => Fate::Unknown,
        },
        Err(_) => Fate::Unknown,
    }
}

async fn end_sessions_in(
    steps: u32,
    psql: &Psql,
    application: &str,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let which = format!("application_name = {}", literal(application));
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {which} AND pid <> pg_backend_pid();"
    );
    for _ in 0..steps {
        let left = psql.query(&end, cancel, TIMEOUT).await?;
        if left.trim_ascii() == b"0" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    match who_stays(psql, application, &which, cancel).await? {
        Some(told) => Err(told),
        None => Ok(()),
    }
}

/// One session, or a transaction that was prepared and left.
#[derive(Deserialize)]
struct Staying {
    told: String,
    end: String,
}

/// Says who still is in a database; none when nobody is. Text of others is shortened by the server.
async fn who_stays(
    psql: &Psql,
    name: &str,
    which: &str,
    cancel: &CancellationToken,
) -> Result<Option<Error>, Error> {
    let sql = format!(
        "SELECT coalesce(jsonb_agg(jsonb_build_object('told', told, 'end', ending)), '[]')::text FROM (
           SELECT 'pid ' || pid || ' (user ' || coalesce(usename, '?') || ', application '
               || left(coalesce(nullif(application_name, ''), '?'), 60) || coalesce(', from ' || host(client_addr), '') || ')' AS told,
             'SELECT pg_terminate_backend(' || pid || ');' AS ending
           FROM pg_stat_activity WHERE {which} AND pid <> pg_backend_pid()
           UNION ALL SELECT 'the prepared transaction ' || quote_literal(left(gid, 60)) || ' (user ' || owner || ')',
             'ROLLBACK PREPARED ' || quote_literal(gid) || ';'
           FROM (SELECT gid, owner, database AS datname, ''::text AS application_name FROM pg_prepared_xacts) prepared
           WHERE {which}) AS stays;"
    );
    let answer = psql.query(&sql, cancel, TIMEOUT).await?;
    let all: Vec<Staying> = read(&answer)?;
    if all.is_empty() {
        return Ok(None);
    }
    let more = all.len().saturating_sub(MAX_TOLD);
    let first = || all.iter().take(MAX_TOLD);
    let mut sessions: Vec<String> = first().map(|one| printable(&one.told)).collect();
    if more > 0 {
        sessions.push(format!("and {more} more"));
    }
    Ok(Some(Error::new(Reason::InUse(Box::new(InUse {
        database: name.to_owned(),
        sessions,
        ends: first().map(|one| printable(&one.end)).collect(),
    })))))
}

/// Ends the sessions that we may end: one refusal would fail the whole. The server itself waits for its own workers.
///
/// Servers before 10 tell no kind of session and list no others; a kind that we may not see is null.
fn terminate(name: &str) -> String {
    format!(
        "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a
         JOIN pg_roles theirs ON theirs.oid = a.usesysid JOIN pg_roles ours ON ours.rolname = current_user
         WHERE a.datname = {} AND a.pid <> pg_backend_pid()
           AND coalesce(to_jsonb(a)->>'backend_type', 'client backend') = 'client backend'
           AND (ours.rolsuper OR NOT theirs.rolsuper
             AND (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')));\n",
        literal(name)
    )
}

/// Tells whether a subscription keeps a database from being dropped.
pub fn is_subscribed(error: &Error) -> bool {
    let mut lines = error.stderr.iter();
    lines.any(|line| line.contains("is being used by logical replication subscription"))
}

fn is_in_use(error: &Error) -> bool {
    error
        .stderr
        .iter()
        .any(|line| line.contains("is being accessed by other users"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::postgres::environment::Environment;
    use crate::postgres::programs::Search;
    use pgkeep_model::connection::Connection;

    #[test]
    fn an_answer_that_cannot_be_read_is_not_nothing() {
        let nothing: Vec<(String, String)> = read(b"[]\n").unwrap();
        assert!(nothing.is_empty());
        let error = read::<Vec<(String, String)>>(b"").unwrap_err();
        assert_eq!(error.id(), "program_output_unreadable");
    }

    /// A session that no signal ends is named: nobody may take it for gone.
    #[tokio::test]
    async fn a_session_that_stays_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let stays = r#"[{"told": "pid 7 (user a, application x)", "end": "SELECT pg_terminate_backend(7);"}]"#;
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in --version) echo 'psql (PostgreSQL) 15.18'; exit;; esac\n\
             if grep -q jsonb_agg; then echo '{stays}'; else echo 1; fi\n"
        );
        for program in ["psql", "pg_dump"] {
            let path = folder.path().join(program);
            fs::write(&path, &script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let environment = Environment::new([("PATH".into(), "/usr/bin:/bin".into())]);
        let cancel = CancellationToken::new();
        let search = Search::new(Some(folder.path().to_owned()), None);
        let found = search.find(&environment, &cancel).await;
        let psql = Psql::new(
            found.newest().unwrap(),
            &environment,
            &Connection::default(),
        );
        let error = end_sessions_in(2, &psql, "x", &cancel).await.unwrap_err();
        assert_eq!(error.id(), "database_in_use");
        assert!(
            error.to_string().ends_with("pid 7 (user a, application x)"),
            "{error}"
        );
        assert!(error.hints()[0].contains("pg_terminate_backend(7)"));
    }
}

//! What went wrong with PostgreSQL, told apart by exit status and the program's own words.
//!
//! Programs run with C messages, so the words are stable; a server with a translated `lc_messages` ends up as
//! [`Reason::Other`], which is reported unchanged. Nothing here is retried; it only says whether that makes sense.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::ended::{Ended, Stop};
use super::said::{self, Said, without_quoted};
use pgkeep_model::connection::ConnectionError;
use pgkeep_model::failure::{Failure, Kind};

/// A failure of PostgreSQL or of one of its programs.
#[derive(Clone, Debug)]
pub struct Error {
    /// The program that told it, `pg_dump`; empty where none ran.
    pub program: String,
    /// What went wrong.
    pub reason: Reason,
    /// The program's last words, without secrets.
    pub stderr: Vec<String>,
}

/// How a role comes to read large objects, which the rights on tables and `pg_read_all_data` say nothing of.
pub const LARGE_OBJECTS_HINT: &str = "`GRANT SELECT ON LARGE OBJECT … TO …` for each, or make the backup role a member of \
     their owners or dump as a superuser: `pg_read_all_data` does not cover large objects";

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Wrong password, no such role, `pg_hba.conf`.
    LoginRefused,
    /// The database is not there.
    DatabaseMissing,
    /// No database lets us in to work from while another one is made or renamed.
    NoHome {
        /// Those that were tried.
        tried: Vec<String>,
    },
    /// No connection came about: unknown host, refused, timed out, starting up, too many clients.
    Unreachable {
        /// Whether an address of IPv6 was out of reach.
        is_ipv6: bool,
    },
    /// A pooler in transaction mode, which mixes sessions up.
    TransactionPooler,
    /// The server's pooler refused our session settings; the caller may go on without.
    SettingsRefused,
    /// TLS could not be agreed on.
    Tls,
    /// libpq refused a parameter.
    BadParameter,
    /// The connection could not be read.
    Connection(ConnectionError),
    /// The server is newer than the program.
    VersionMismatch,
    /// A right is missing.
    PermissionDenied {
        /// On what, in PostgreSQL's words: `table users`.
        object: String,
    },
    /// Row-level security would leave rows out.
    RowSecurity {
        /// Of which table.
        table: String,
    },
    /// Another session held a lock for too long.
    LockTimeout {
        /// On which relations, as SQL.
        relations: String,
    },
    /// A table was dropped or renamed between two looks at it.
    TableGone {
        /// Which one.
        table: String,
    },
    /// The session ended in the middle.
    ConnectionLost,
    /// A standby had to cancel the query to go on with recovery.
    RecoveryConflict,
    /// A row that is too large to be printed.
    TooLargeField {
        /// Of which table, where it was reported.
        table: Option<String>,
    },
    /// A selected table or schema does not exist.
    NoMatchingTables {
        /// The name, as it was asked for.
        name: String,
    },
    /// The program could not be started.
    NotStarted {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No program fits.
    ProgramMissing {
        /// What is needed: `pg_dump`, `initdb`.
        program: &'static str,
        /// The lowest major version that would do.
        wanted_major: Option<u32>,
        /// Folders that were searched.
        searched: Vec<PathBuf>,
        /// What was found there: path and version, or path and problem.
        found: Vec<String>,
    },
    /// Sessions stay in a database that must be left alone.
    InUse(Box<InUse>),
    /// What the program printed could not be read.
    Unreadable(String),
    /// A throw-away server could not be made.
    Scratch(String),
    /// We ended the program.
    Stopped(Stop),
    /// Somebody else ended the program.
    Killed(i32),
    /// Anything else.
    Other {
        /// The exit code.
        code: i32,
    },
}

/// Who stays in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The database.
    pub database: String,
    /// Who is in it: number, role and program of each session, and prepared transactions.
    pub sessions: Vec<String>,
    /// What ends them, as SQL.
    pub ends: Vec<String>,
}

impl Error {
    /// Tells whether the server lives and has no session left for us.
    pub fn is_out_of_sessions(&self) -> bool {
        let says = |text: &str| self.stderr.iter().any(|line| line.contains(text));
        says("too many connections")
            || says("too many clients")
            || says("remaining connection slots")
    }

    /// Returns what the program and the server said of their own, without the rows, names and SQL that they quote.
    pub fn messages(&self) -> Vec<&str> {
        let said = said::read(self.stderr.iter().map(String::as_str));
        [said.statements, said.session].concat()
    }

    /// Makes an error where no program spoke.
    pub fn new(reason: Reason) -> Self {
        Self {
            program: String::new(),
            reason,
            stderr: Vec::new(),
        }
    }

    /// Makes the error of a program that did not start.
    pub fn not_started(program: String, path: PathBuf, source: io::Error) -> Self {
        let why = source.to_string();
        Self {
            program,
            reason: Reason::NotStarted { path, why },
            stderr: Vec::new(),
        }
    }

    /// Tells what went wrong with a program that did not end well.
    pub fn from_ended(ended: Ended) -> Self {
        let reason = match (ended.stop, ended.signal) {
            (Some(stop), _) => Reason::Stopped(stop),
            (None, Some(signal)) => Reason::Killed(signal),
            (None, None) => classify(&ended.program, &ended.stderr, ended.code.unwrap_or(1)),
        };
        Self {
            program: ended.program,
            reason,
            stderr: ended.stderr,
        }
    }

    /// Tells whether the same run may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match &self.reason {
            Reason::Unreachable { .. }
            | Reason::ConnectionLost
            | Reason::RecoveryConflict
            | Reason::LockTimeout { .. }
            | Reason::TableGone { .. }
            | Reason::Killed(_) => true,
            Reason::Stopped(stop) => matches!(stop, Stop::Stalled | Stop::TimedOut | Stop::Hung),
            _ => false,
        }
    }

    /// Returns the kind of failure, which decides the exit code.
    pub fn kind(&self) -> Kind {
        match &self.reason {
            Reason::LoginRefused | Reason::NoHome { .. } => Kind::Login,
            Reason::Connection(_) => Kind::Usage,
            Reason::VersionMismatch | Reason::ProgramMissing { .. } | Reason::NotStarted { .. } => {
                Kind::Program
            }
            Reason::NoMatchingTables { .. } => Kind::Proof,
            Reason::Stopped(Stop::Interrupted) => Kind::Interrupted,
            _ => Kind::Source,
        }
    }

    /// Returns the stable name for scripts.
    pub fn id(&self) -> &'static str {
        match &self.reason {
            Reason::LoginRefused => "login_refused",
            Reason::DatabaseMissing => "database_missing",
            Reason::NoHome { .. } => "no_maintenance_database",
            Reason::Unreachable { .. } => "server_unreachable",
            Reason::TransactionPooler => "transaction_pooler",
            Reason::SettingsRefused => "session_settings_refused",
            Reason::Tls => "tls_failed",
            Reason::BadParameter => "bad_connection_parameter",
            Reason::Connection(_) => "bad_connection",
            Reason::VersionMismatch => "version_mismatch",
            Reason::PermissionDenied { .. } => "permission_denied",
            Reason::RowSecurity { .. } => "row_security",
            Reason::LockTimeout { .. } => "lock_timeout",
            Reason::TableGone { .. } => "table_gone",
            Reason::ConnectionLost => "connection_lost",
            Reason::RecoveryConflict => "recovery_conflict",
            Reason::TooLargeField { .. } => "field_too_large",
            Reason::NoMatchingTables { .. } => "selected_table_missing",
            Reason::NotStarted { .. } => "program_not_started",
            Reason::ProgramMissing { .. } => "program_missing",
            Reason::InUse(_) => "database_in_use",
            Reason::Unreadable(_) => "program_output_unreadable",
            Reason::Scratch(_) => "scratch_server_failed",
            Reason::Stopped(Stop::Interrupted) => "interrupted",
            Reason::Stopped(Stop::Stalled) => "program_stalled",
            Reason::Stopped(Stop::TimedOut) => "program_timed_out",
            Reason::Stopped(Stop::Hung) => "program_hung",
            Reason::Stopped(Stop::TooMuch) => "program_output_too_large",
            Reason::Killed(_) => "program_killed",
            Reason::Other { .. } => "program_failed",
        }
    }

    /// Returns the next moves.
    pub fn hints(&self) -> Vec<String> {
        let hint: String = match &self.reason {
            Reason::LoginRefused => self.login_hint().into(),
            Reason::NoHome { .. } => {
                "`GRANT CONNECT ON DATABASE postgres TO …`; a drill begins with the database that `drill.url` names".into()
            }
            Reason::Unreachable { is_ipv6: true } => {
                "this host has no IPv6; on Supabase use the session pooler (port 5432 of \
                 `*.pooler.supabase.com`, user `postgres.<project>`), which has IPv4"
                    .into()
            }
            Reason::TransactionPooler => {
                "use the direct connection or the session pooler (port 5432; on Neon the host without `-pooler`)"
                    .into()
            }
            Reason::VersionMismatch => {
                "install client programs of the server's major version, or point `postgres.bin_dir` or `--bin-dir` at them".into()
            }
            Reason::PermissionDenied { object } if object.starts_with("large object") => LARGE_OBJECTS_HINT.into(),
            Reason::PermissionDenied { .. } => {
                "grant the backup role `pg_read_all_data` (PostgreSQL 14 and later), or leave the object out".into()
            }
            Reason::RowSecurity { .. } => {
                "dump as a role with BYPASSRLS, or as the owner where the table does not force row security".into()
            }
            Reason::LockTimeout { .. } => {
                "look for the holder in `pg_stat_activity` and `pg_locks`, or raise `lock_wait_timeout`".into()
            }
            Reason::TooLargeField { .. } => {
                "PostgreSQL prints no field over 1 GB (512 MB of bytea); leave the table's rows out (structure only) \
                 and copy them another way"
                    .into()
            }
            Reason::ProgramMissing { program, wanted_major, .. } => install_hint(program, *wanted_major),
            Reason::InUse(found) => format!("as a superuser: `{}`; then again", found.ends.join(" ")),
            Reason::Connection(error) => return error.hint().into_iter().collect(),
            Reason::Killed(9) => "the system may have run out of memory: look into its log".into(),
            _ => return Vec::new(),
        };
        vec![hint]
    }

    /// Makes the failure that the operator reads: `doing` is "backup of `shop`", `safe` "nothing was stored".
    pub fn to_failure(&self, doing: &str, safe: &str) -> Failure {
        let message = format!("{doing} failed: {self}; {safe}");
        let failure = Failure::new(self.kind(), self.id(), message);
        let details = match &self.reason {
            Reason::ProgramMissing {
                searched, found, ..
            } => found
                .iter()
                .map(|found| format!("found {found}"))
                .chain(
                    searched
                        .iter()
                        .map(|folder| format!("searched {}", folder.display())),
                )
                .collect(),
            _ => self.stderr.clone(),
        };
        self.hints()
            .into_iter()
            .fold(failure.with_details(details), Failure::hint)
    }

    fn login_hint(&self) -> &'static str {
        let said = |text: &str| self.stderr.iter().any(|line| line.contains(text));
        if said("no password supplied") {
            "set the password in the connection, in `password_file` or in `~/.pgpass` (mode 0600)"
        } else if said("pg_hba.conf") {
            "the server's `pg_hba.conf` must let this host and user in (`sslmode=require` may be what it wants)"
        } else if said("Tenant or user not found") {
            "through Supabase's pooler the user is `postgres.<project>` and the host that of the project's region"
        } else {
            "check user and password of the connection"
        }
    }
}

/// Returns how to install a program.
fn install_hint(program: &str, major: Option<u32>) -> String {
    let (package, formula) = match (program, major) {
        ("initdb", Some(major)) => (format!("postgresql-{major}"), format!("postgresql@{major}")),
        ("initdb", None) => ("postgresql".into(), "postgresql".into()),
        (_, Some(major)) => (
            format!("postgresql-client-{major}"),
            format!("postgresql@{major}"),
        ),
        (_, None) => ("postgresql-client".into(), "libpq".into()),
    };
    format!(
        "`apt install {package}` or `brew install {formula}`, or point `postgres.bin_dir` or `--bin-dir` at the programs"
    )
}

/// Says why, in the middle of a sentence: lower case, no full stop, no secret.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        match &self.reason {
            Reason::LoginRefused => f.write_str("the server refused the login"),
            Reason::DatabaseMissing => f.write_str("the database does not exist"),
            Reason::NoHome { tried } if tried.is_empty() => {
                f.write_str("the server has no other database that this role can connect to")
            }
            Reason::NoHome { tried } => {
                let tried: Vec<String> = tried.iter().map(|name| format!("`{name}`")).collect();
                write!(
                    f,
                    "databases are made and renamed from another database, and this role can connect to none: {}",
                    tried.join(" and ")
                )
            }
            Reason::Unreachable { .. } => f.write_str("the server cannot be reached"),
            Reason::TransactionPooler => {
                f.write_str("the connection goes through a pooler in transaction mode, which can mix sessions up in a dump")
            }
            Reason::SettingsRefused => f.write_str("the pooler refused session settings"),
            Reason::Tls => f.write_str("no encrypted connection could be made"),
            Reason::BadParameter => f.write_str("a parameter of the connection was refused"),
            Reason::Connection(error) => error.fmt(f),
            Reason::VersionMismatch => write!(f, "the server is newer than `{program}`"),
            Reason::PermissionDenied { object } => write!(f, "permission denied for {object}"),
            Reason::RowSecurity { table } => {
                write!(f, "row-level security of table {table} would leave rows out")
            }
            Reason::LockTimeout { relations } => {
                write!(f, "another session held a lock on {relations} for too long")
            }
            Reason::TableGone { table } => {
                write!(f, "{table} was dropped or renamed while the dump began")
            }
            Reason::ConnectionLost => f.write_str("the connection to the server was lost"),
            Reason::RecoveryConflict => f.write_str("the standby cancelled the query to go on with recovery"),
            Reason::TooLargeField { table: Some(table) } => {
                write!(f, "a row of table {table} is too large to be dumped")
            }
            Reason::TooLargeField { table: None } => f.write_str("a row is too large to be dumped"),
            Reason::NoMatchingTables { name } => write!(f, "{name} does not exist"),
            Reason::NotStarted { path, why } => {
                write!(f, "`{}` could not be started: {why}", path.display())
            }
            Reason::ProgramMissing { program, wanted_major: Some(major), .. } => {
                write!(f, "no `{program}` of version {major} or newer was found")
            }
            Reason::ProgramMissing { program, .. } => write!(f, "no `{program}` was found"),
            Reason::InUse(found) => write!(f, "others stay in `{}`: {}", found.database, found.sessions.join("; ")),
            Reason::Unreadable(what) => write!(f, "the output of `{program}` could not be read: {what}"),
            Reason::Scratch(what) => write!(f, "no throw-away server could be started: {what}"),
            Reason::Stopped(Stop::Interrupted) => f.write_str("it was interrupted"),
            Reason::Stopped(Stop::Stalled) => write!(f, "`{program}` moved no byte for too long and was ended"),
            Reason::Stopped(Stop::TimedOut) => write!(f, "`{program}` took too long and was ended"),
            Reason::Stopped(Stop::Hung) => {
                write!(f, "`{program}` closed its output, did not end, and was ended")
            }
            Reason::Stopped(Stop::TooMuch) => write!(f, "`{program}` printed more than it should and was ended"),
            Reason::Killed(signal) => write!(f, "`{program}` was ended by signal {signal}"),
            Reason::Other { code } => write!(f, "`{program}` exited with status {code}"),
        }
    }
}

impl std::error::Error for Error {}

/// Tells what a program's last words mean. The first rule that fits wins, so the more certain ones come first.
///
/// Rows, names and SQL that the words quote are looked at for nothing but the name of a table.
fn classify(program: &str, lines: &[String], code: i32) -> Reason {
    let said = said::read(lines.iter().map(String::as_str));
    let all = lines.join("\n");
    let of_statement = || {
        let mut messages = said.statements.iter();
        messages.find_map(|message| classify_statement(message, &all))
    };
    // `psql` ends with 3 where a statement failed and the session stood.
    if program == "psql" && code == FAILED_STATEMENT {
        return of_statement().unwrap_or(Reason::Other { code });
    }
    let lines: Vec<String> = said.session.iter().copied().map(without_quoted).collect();
    let session = lines.join("\n");
    let says = |texts: &[&str]| texts.iter().any(|text| session.contains(text));
    if says(&["aborting because of server version mismatch"]) {
        return Reason::VersionMismatch;
    }
    if says(TRANSACTION_POOLER) {
        return Reason::TransactionPooler;
    }
    if says(&["unsupported startup parameter"]) {
        return Reason::SettingsRefused;
    }
    let found = of_statement()
        .or_else(|| classify_selection(&said))
        .or_else(|| classify_session(&said, says))
        .or_else(|| classify_login(&session, says));
    // What the server said last went with the connection.
    let is_cut = program == "psql" && code == BAD_CONNECTION && said.is_in_script;
    found.unwrap_or(if is_cut {
        Reason::ConnectionLost
    } else {
        Reason::Other { code }
    })
}

/// How `psql` ends when a statement failed in a script with ON_ERROR_STOP, `EXIT_USER` of its `settings.h`.
const FAILED_STATEMENT: i32 = 3;

/// How it ends when there is no connection, or none any more, `EXIT_BADCONN`.
const BAD_CONNECTION: i32 = 2;

/// What a statement failed with: rights, locks, rows. `all` is what its statement and the name of its table are taken
/// from.
fn classify_statement(message: &str, all: &str) -> Option<Reason> {
    if let Some(table) =
        message.strip_prefix("query would be affected by row-level security policy for table \"")
    {
        let table = table.trim_end_matches('"');
        return Some(Reason::RowSecurity {
            table: format!("`{table}`"),
        });
    }
    let begins = |texts: &[&str]| texts.iter().any(|text| message.starts_with(text));
    if begins(&[
        "canceling statement due to lock timeout",
        "canceling statement due to statement timeout",
    ]) && let Some(relations) = between(all, "LOCK TABLE ", " IN ACCESS SHARE MODE")
    {
        return Some(Reason::LockTimeout {
            relations: shorten(relations),
        });
    }
    // Whoever waits for it to himself would wait for us, and we for him.
    if let Some(relation) = message.strip_prefix("could not obtain lock on relation \"") {
        return Some(Reason::LockTimeout {
            relations: format!("`{}`", relation.trim_end_matches('"')),
        });
    }
    if let Some(table) = between(message, "relation \"", "\" does not exist")
        && message.starts_with("relation \"")
        && between(all, "LOCK TABLE ", " IN ACCESS SHARE MODE").is_some()
    {
        return Some(Reason::TableGone {
            table: format!("`{table}`"),
        });
    }
    let is_out_of_memory = message.starts_with("out of memory");
    if begins(TOO_LARGE)
        || is_out_of_memory && TOO_LARGE_DETAIL.iter().any(|text| all.contains(text))
    {
        let table = between(all, "ommand was: COPY ", " (").map(|table| format!("`{table}`"));
        return Some(Reason::TooLargeField { table });
    }
    if begins(&["canceling statement due to conflict with recovery"]) {
        return Some(Reason::RecoveryConflict);
    }
    if begins(&["canceling statement due to user request"]) {
        return Some(Reason::ConnectionLost);
    }
    // A second session's statements on a backend that belongs to somebody else.
    if begins(&["prepared statement \""]) {
        return Some(Reason::TransactionPooler);
    }
    let object = message.strip_prefix("permission denied for ")?;
    Some(Reason::PermissionDenied {
        object: object.into(),
    })
}

/// What `pg_dump` was told to dump, and is not there.
fn classify_selection(said: &Said) -> Option<Reason> {
    let session = said.session.join("\n");
    for (start, kind) in [
        ("no matching tables were found for pattern \"", "table"),
        ("no matching schemas were found for pattern \"", "schema"),
    ] {
        if let Some(name) = between(&session, start, "\"\n") {
            return Some(Reason::NoMatchingTables {
                name: format!("{kind} `{name}`"),
            });
        }
    }
    let is_none = |line: &str| {
        line.ends_with("no matching tables were found")
            || line.ends_with("no matching schemas were found")
    };
    let name = "every selected table".to_owned();
    let mut lines = said.session.iter();
    lines
        .any(|line| is_none(line))
        .then_some(Reason::NoMatchingTables { name })
}

/// What ends a session, or lets none begin for now.
fn classify_session(said: &Said, says: impl Fn(&[&str]) -> bool) -> Option<Reason> {
    if says(&["due to conflict with recovery"]) {
        Some(Reason::RecoveryConflict)
    } else if says(IN_SESSION) {
        Some(Reason::ConnectionLost)
    } else if says(NO_CONNECTION) {
        let is_ipv6 = says(&["Network is unreachable", "No route to host"])
            && said.session.iter().any(|line| names_ipv6(line));
        Some(Reason::Unreachable { is_ipv6 })
    } else if says(CONNECTION_LOST) {
        Some(Reason::ConnectionLost)
    } else {
        None
    }
}

fn classify_login(session: &str, says: impl Fn(&[&str]) -> bool) -> Option<Reason> {
    let names_missing = |kind: &str| {
        session.lines().any(|line| {
            line.contains(&format!(" {kind} \"")) && line.ends_with("\" does not exist")
        })
    };
    if names_missing("FATAL:  database") || says(&["no such database:"]) {
        Some(Reason::DatabaseMissing)
    } else if names_missing("FATAL:  role") || says(LOGIN_REFUSED) {
        Some(Reason::LoginRefused)
    } else if says(TLS) {
        Some(Reason::Tls)
    } else if says(BAD_PARAMETER) {
        Some(Reason::BadParameter)
    } else {
        None
    }
}

const TRANSACTION_POOLER: &[&str] = &[
    // What Supabase's port 6543 answers to an encryption request of libpq before 17.
    "received invalid response to GSSAPI negotiation",
];

const TOO_LARGE: &[&str] = &[
    "invalid memory alloc request size",
    "string buffer exceeds maximum allowed length",
];

/// What stands in the detail of `out of memory` then.
const TOO_LARGE_DETAIL: &[&str] = &["Cannot enlarge string buffer", "Failed on request of size"];

/// Only a session that stood says these, whatever the system's own words behind them (`Connection timed out`).
const IN_SESSION: &[&str] = &[
    "PQgetCopyData() failed",
    "could not receive data from server",
    "connection to server was lost",
];

const NO_CONNECTION: &[&str] = &[
    "could not translate host name",
    "Connection refused",
    "No route to host",
    "Network is unreachable",
    "failed: No such file or directory",
    "timeout expired",
    "Connection timed out",
    "Operation timed out",
    "the database system is ",
    "too many clients already",
    "too many connections for ",
    "remaining connection slots are reserved",
    "query_wait_timeout",
    "max client connections reached",
    "failed: Connection reset by peer",
    "failed: server closed the connection unexpectedly",
];

const CONNECTION_LOST: &[&str] = &[
    "server closed the connection unexpectedly",
    "terminating connection",
    "could not send data to server",
    "SSL connection has been closed unexpectedly",
    "SSL SYSCALL error",
    "canceling statement due to user request",
    "lost synchronization with server",
    "no connection to the server",
];

const LOGIN_REFUSED: &[&str] = &[
    "password authentication failed",
    "authentication failed for user",
    "no password supplied",
    "is not permitted to log in",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "Tenant or user not found",
    "no such user",
    "SASL authentication failed",
    "SCRAM authentication",
    "permission denied for database",
    "requested authentication method",
    "authentication method requirement",
    "certificate authentication failed",
    "channel binding required",
];

const TLS: &[&str] = &[
    "server does not support SSL",
    "SSL error",
    "root certificate file",
    "certificate verify failed",
    "server certificate for",
    "private key file",
    "certificate file",
    "GSSAPI encryption required",
];

const BAD_PARAMETER: &[&str] = &[
    "definition of service",
    "invalid connection option",
    "for connection option",
    "value: \"",
    "unrecognized configuration parameter",
    "syntax error in service file",
];

/// Returns the text between two marks; the end of the text ends it, too, where `end` is a line's end.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let behind = &text[text.find(start)? + start.len()..];
    let at = match behind.find(end) {
        Some(at) => at,
        None if end.ends_with('\n') => behind.trim_end().len().checked_sub(end.len() - 1)?,
        None => return None,
    };
    Some(&behind[..at])
}

/// Keeps a batch of LOCK TABLE names readable: newer versions of `pg_dump` lock many tables at once.
fn shorten(relations: &str) -> String {
    const MOST: usize = 200;
    if relations.len() <= MOST {
        return format!("`{relations}`");
    }
    let cut = relations.floor_char_boundary(MOST);
    format!("`{}…` (one of several)", &relations[..cut])
}

/// Tells whether libpq named an IPv6 address in this line: `connection to server at "h" (2001:db8::1), port …`.
fn names_ipv6(line: &str) -> bool {
    line.split(['(', ')', '"'])
        .any(|piece| piece.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(stderr: &str) -> Error {
        Error::from_ended(Ended {
            program: "pg_dump".into(),
            code: Some(1),
            signal: None,
            stop: None,
            stderr: stderr.lines().map(str::to_owned).collect(),
        })
    }

    fn ipv6(is_ipv6: bool) -> Reason {
        Reason::Unreachable { is_ipv6 }
    }

    /// Real messages of version 15.18 where a line has no other note.
    #[test]
    fn tells_logins_and_connections_apart() {
        let tcp = "pg_dump: error: connection to server at \"127.0.0.1\", port 5432 failed: ";
        for (said, reason) in [
            (
                "FATAL:  password authentication failed for user \"scr\"",
                Reason::LoginRefused,
            ),
            ("fe_sendauth: no password supplied", Reason::LoginRefused),
            (
                "FATAL:  role \"nosuch\" does not exist",
                Reason::LoginRefused,
            ),
            (
                "FATAL:  role \"nologin\" is not permitted to log in",
                Reason::LoginRefused,
            ),
            (
                "FATAL:  pg_hba.conf rejects connection for host \"127.0.0.1\", user \"u\", database \"d\", no encryption",
                Reason::LoginRefused,
            ),
            // Supabase's pooler.
            ("FATAL:  Tenant or user not found", Reason::LoginRefused),
            (
                "FATAL:  database \"missing\" does not exist",
                Reason::DatabaseMissing,
            ),
            (
                "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
                ipv6(false),
            ),
            ("timeout expired", ipv6(false)),
            ("FATAL:  the database system is starting up", ipv6(false)),
            ("FATAL:  sorry, too many clients already", ipv6(false)),
            (
                "server does not support SSL, but SSL was required",
                Reason::Tls,
            ),
            (
                "FATAL:  unrecognized configuration parameter \"nosuch\"",
                Reason::BadParameter,
            ),
            // pgbouncer.
            (
                "FATAL:  unsupported startup parameter: options",
                Reason::SettingsRefused,
            ),
            (
                "received invalid response to GSSAPI negotiation: S",
                Reason::TransactionPooler,
            ),
        ] {
            assert_eq!(error(&format!("{tcp}{said}")).reason, reason, "{said}");
        }
    }

    #[test]
    fn tells_why_a_server_is_out_of_reach() {
        for (said, reason) in [
            (
                "pg_dump: error: could not translate host name \"x.invalid\" to address: Name or service not known",
                ipv6(false),
            ),
            (
                "psql: error: connection to server on socket \"/nosuch/.s.PGSQL.5432\" failed: No such file or directory\n\tIs the server running locally and accepting connections on that socket?",
                ipv6(false),
            ),
            (
                "pg_dump: error: connection to server at \"db.x.supabase.co\" (2a05:d014::1), port 5432 failed: Network is unreachable",
                ipv6(true),
            ),
            (
                "pg_dump: error: connection to server at \"2001:db8::1\", port 5432 failed: No route to host",
                ipv6(true),
            ),
            (
                "pg_dump: error: connection to server at \"h\" (192.0.2.1), port 5432 failed: Network is unreachable",
                ipv6(false),
            ),
        ] {
            let error = error(said);
            assert_eq!(error.reason, reason, "{said}");
            assert!(error.is_retryable());
        }
    }

    #[test]
    fn tells_what_broke_a_dump() {
        let lost = "pg_dump: error: Dumping the contents of table \"big\" failed: PQgetCopyData() failed.\npg_dump: detail: Error message from server: server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.\npg_dump: detail: Command was: COPY public.big (x, y) TO stdout;";
        let large = "pg_dump: error: Dumping the contents of table \"big\" failed: PQgetResult() failed.\npg_dump: detail: Error message from server: ERROR:  invalid memory alloc request size 1174405123\npg_dump: detail: Command was: COPY public.big (x, y) TO stdout;";
        for (said, reason, is_retryable) in [
            (lost, Reason::ConnectionLost, true),
            (
                large,
                Reason::TooLargeField {
                    table: Some("`public.big`".into()),
                },
                false,
            ),
            (
                "pg_dump: detail: Error message from server: ERROR:  canceling statement due to conflict with recovery",
                Reason::RecoveryConflict,
                true,
            ),
            (
                "pg_dump: detail: Error message from server: FATAL:  terminating connection due to administrator command",
                Reason::ConnectionLost,
                true,
            ),
            (
                "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout\npg_dump: detail: Query was: LOCK TABLE public.secret IN ACCESS SHARE MODE",
                Reason::LockTimeout {
                    relations: "`public.secret`".into(),
                },
                true,
            ),
            (
                "pg_dump: error: query failed: ERROR:  relation \"public.gone\" does not exist\npg_dump: detail: Query was: LOCK TABLE public.gone IN ACCESS SHARE MODE",
                Reason::TableGone {
                    table: "`public.gone`".into(),
                },
                true,
            ),
            (
                "psql:<stdin>:9: ERROR:  could not obtain lock on relation \"t\"\npsql:<stdin>:9: STATEMENT:  LOCK TABLE ONLY \"public\".\"t\" IN ACCESS SHARE MODE NOWAIT;",
                Reason::LockTimeout {
                    relations: "`t`".into(),
                },
                true,
            ),
            (
                "pg_dump: error: query failed: ERROR:  permission denied for table a*\npg_dump: detail: Query was: LOCK TABLE public.\"a*\" IN ACCESS SHARE MODE",
                Reason::PermissionDenied {
                    object: "table a*".into(),
                },
                false,
            ),
            (
                "pg_dump: error: query failed: ERROR:  query would be affected by row-level security policy for table \"rls\"\npg_dump: detail: Query was: COPY public.rls (x) TO stdout;",
                Reason::RowSecurity {
                    table: "`rls`".into(),
                },
                false,
            ),
            (
                "pg_dump: error: no matching tables were found for pattern \"\"public\".\"nope\"\"",
                Reason::NoMatchingTables {
                    name: "table `\"public\".\"nope\"`".into(),
                },
                false,
            ),
            (
                "pg_dump: error: no matching schemas were found for pattern \"\"nope*\"\"",
                Reason::NoMatchingTables {
                    name: "schema `\"nope*\"`".into(),
                },
                false,
            ),
            (
                "pg_dump: error: aborting because of server version mismatch\npg_dump: detail: server version: 17.2; pg_dump version: 15.18",
                Reason::VersionMismatch,
                false,
            ),
            (
                "pg_dump: error: something new",
                Reason::Other { code: 1 },
                false,
            ),
            ("", Reason::Other { code: 1 }, false),
        ] {
            let error = error(said);
            assert_eq!(
                (&error.reason, error.is_retryable()),
                (&reason, is_retryable),
                "{said}"
            );
        }
    }

    #[test]
    fn a_table_called_like_an_error_is_not_one() {
        let said =
            "pg_dump: error: query failed: ERROR:  permission denied for table Connection refused";
        let object = "table Connection refused".to_owned();
        assert_eq!(error(said).reason, Reason::PermissionDenied { object });
    }

    fn of_psql(code: i32, stderr: &str) -> Reason {
        let ended = Ended {
            program: "psql".into(),
            code: Some(code),
            signal: None,
            stop: None,
            stderr: stderr.lines().map(str::to_owned).collect(),
        };
        Error::from_ended(ended).reason
    }

    /// Rows, names and what functions say quote each of our words at times.
    #[test]
    fn a_failed_statement_is_never_a_failed_connection_or_login() {
        let words = [
            "Connection refused",
            "FATAL:  password authentication failed for user \"app\"",
            "server closed the connection unexpectedly",
            "SSL error: certificate verify failed",
            "could not translate host name",
            "no matching tables were found",
            "permission denied for table x",
            "x\npsql:<stdin>:1: FATAL:  the database system is starting up",
        ];
        for word in words {
            for said in [
                format!(
                    "psql:<stdin>:9: ERROR:  duplicate key value violates unique constraint \"k\"\nDETAIL:  Key (msg)=({word}) already exists."
                ),
                format!(
                    "ERROR:  invalid input syntax for type integer: \"{word}\"\nCONTEXT:  COPY logs, line 3, column n: \"{word}\""
                ),
                format!(
                    "ERROR:  it broke: {word}\nCONTEXT:  PL/pgSQL function f() line 1 at RAISE"
                ),
                format!(
                    "NOTICE:  {word}\nERROR:  relation \"t\" does not exist\nLINE 1: SELECT '{word}'"
                ),
            ] {
                assert_eq!(of_psql(3, &said), Reason::Other { code: 3 }, "{said}");
            }
        }
        let object = "database shop".to_owned();
        assert_eq!(
            of_psql(3, "ERROR:  permission denied for database shop"),
            Reason::PermissionDenied { object }
        );
        // The same of what `pg_dump` reads.
        for said in [
            "pg_dump: error: Dumping the contents of table \"Connection refused\" failed: PQgetResult() failed.\npg_dump: detail: Error message from server: ERROR:  division by zero\nCONTEXT:  SQL function \"no such user\"\npg_dump: detail: Command was: COPY public.\"Connection refused\" (x) TO stdout;",
            "pg_dump: error: query failed: ERROR:  cache lookup failed\npg_dump: detail: Query was: SELECT 'timeout expired'",
        ] {
            assert_eq!(error(said).reason, Reason::Other { code: 1 }, "{said}");
        }
    }

    #[test]
    fn a_connection_that_goes_within_a_script_is_lost() {
        for said in [
            "FATAL:  terminating connection due to administrator command\nserver closed the connection unexpectedly",
            "psql:<stdin>:4: error: connection to server was lost",
            // PostgreSQL 15, stopped with `pg_ctl -m immediate`.
            "WARNING:  terminating connection due to immediate shutdown command\nserver closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.\nconnection to server was lost",
            "WARNING:  terminating connection because of crash of another server process\nDETAIL:  The postmaster has commanded this server process to roll back.\nHINT:  In a moment you should be able to reconnect.\nserver closed the connection unexpectedly",
            "ERROR:  it broke\nDETAIL:  a row\nSSL connection has been closed unexpectedly",
        ] {
            assert_eq!(of_psql(2, said), Reason::ConnectionLost, "{said}");
        }
        let never = "psql: error: connection to server on socket \"/s\" failed: something new";
        assert_eq!(of_psql(2, never), Reason::Other { code: 2 });
    }

    #[test]
    fn a_right_on_large_objects_is_granted_in_its_own_way() {
        let hints = |object: &str| {
            let said =
                format!("pg_dump: error: query failed: ERROR:  permission denied for {object}");
            error(&said).hints().join(" ")
        };
        assert_eq!(hints("large object 16404"), LARGE_OBJECTS_HINT);
        assert!(hints("table large").contains("grant the backup role `pg_read_all_data`"));
    }

    #[test]
    fn our_own_stop_comes_before_the_programs_words() {
        let ended = Ended {
            program: "pg_dump".into(),
            code: Some(1),
            signal: None,
            stop: Some(Stop::Stalled),
            stderr: vec!["pg_dump: error: terminated by user".into()],
        };
        let error = Error::from_ended(ended.clone());
        assert_eq!(
            (error.reason.clone(), error.is_retryable()),
            (Reason::Stopped(Stop::Stalled), true)
        );
        let killed = Error::from_ended(Ended {
            stop: None,
            code: None,
            signal: Some(9),
            ..ended
        });
        assert_eq!(killed.to_string(), "`pg_dump` was ended by signal 9");
    }

    #[test]
    fn failures_read_as_the_style_asks() {
        let error = error("pg_dump: error: aborting because of server version mismatch");
        let failure = error.to_failure("backup of `shop`", "nothing was stored");
        assert_eq!(
            failure.to_string(),
            "error: backup of `shop` failed: the server is newer than `pg_dump`; nothing was stored\n  \
             pg_dump: error: aborting because of server version mismatch\n\
             hint: install client programs of the server's major version, or point `postgres.bin_dir` or `--bin-dir` at them"
        );
        assert_eq!(failure.kind.exit_code(), 26);
    }
}

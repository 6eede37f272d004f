//! What of a dump has to be judged by whoever passes it on to `psql`: commands, owners, rights, transactions.

use super::TableKind;
use crate::model::name::TableName;

/// A run of bytes that a restore has to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// What it is.
    pub kind: JudgedKind,
}

/// What such a run of bytes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JudgedKind {
    /// A backslash command, without its backslash.
    Meta(String),
    /// A line that is no SQL, which the scanner passes over and `psql` may not.
    Noise,
    /// Text between the semicolon of a COPY and the end of its line: `psql` carries it out behind the rows.
    BehindCopy,
    /// The COPY statement in front of rows, with the table's kind where the dump made it before.
    Rows(TableName, Option<TableKind>),
    /// A COPY whose rows `psql` may end elsewhere than the scanner.
    CopyWithOptions,
    /// A routine that says `begin` outside a body: `psql` waits for an `end` and takes what follows for its text.
    OpenRoutine,
    /// `ALTER … OWNER TO …`, `SET SESSION AUTHORIZATION …`.
    Owner,
    /// `GRANT`, `REVOKE`, `ALTER DEFAULT PRIVILEGES`.
    Privileges,
    /// Makes, changes or describes an extension of this name, lower case where it is not quoted.
    Extension(String),
    /// Makes, changes or drops what belongs to the whole cluster: a database, a role, a tablespace, its settings.
    Cluster,
    /// A COPY that lets the server run a program.
    Program,
    /// Opens a transaction.
    Begin,
    /// Commits one.
    Commit,
    /// Any other command about transactions.
    Transaction,
    /// The schema `public` is made.
    SchemaPublic,
    /// `SET transaction_timeout`, which servers before 17 do not know.
    TransactionTimeout,
}

impl JudgedKind {
    pub(super) fn meta(line: &[u8]) -> Self {
        Self::Meta(String::from_utf8_lossy(line).into_owned())
    }
}

//! What of a dump has to be judged by whoever passes it on to `psql`: commands, owners, rights, transactions.

use super::TableKind;
use crate::name::TableName;

/// A run of bytes that a restore has to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// What it is.
    pub kind: JudgedKind,
    /// What the statement is about, where somebody asked for it.
    pub about: Option<About>,
    /// Who carries it out where a plain role restores, where somebody asked for it.
    pub carrier: Carrier,
}

/// Who carries a statement out where a plain role restores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// The role that restores.
    #[default]
    Restorer,
    /// A superuser, before anything else: an extension.
    Early {
        /// Its name.
        name: String,
        /// The schema that is named for it.
        schema: Option<String>,
    },
    /// A superuser, at its place among the others: it runs nothing of the dump, and what follows may need it.
    Between,
    /// A superuser, behind all others.
    Superuser(Late),
    /// The role that restores; it makes a server of this foreign-data wrapper.
    Server {
        /// The server's name.
        name: String,
        /// The wrapper's.
        wrapper: String,
    },
    /// The role that restores, unless the server reads files; it makes a foreign table of this server.
    OfServer(String),
    /// The role that restores, unless it says what only a superuser may; it maps a user to a foreign server's.
    Mapping,
    /// Nobody: what it would give away is the server's own. It is named.
    Withheld(String),
    /// Nobody: what it would make reaches outside the database. It is named where the target then lacks it.
    Nobody(Option<String>),
}

/// What waits until the data was compared, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Late {
    /// Owners.
    Owner,
    /// Rights, and what hides rows or hands them on.
    Rights,
    /// What is run by later statements.
    EventTrigger,
}

/// What a statement is about, as far as a hosting platform may have it already. Schemas that are not written are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it makes or changes.
    pub what: What,
    /// The role that becomes its owner.
    pub owner: Option<String>,
    /// What it makes, in words: `trigger t on s.x`, `function s.f`, `right of r on s.x`.
    pub object: Option<String>,
}

/// What a statement makes or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A schema itself.
    Schema {
        /// Its name.
        name: String,
        /// Whether it is made.
        is_made: bool,
    },
    /// Something that lies in this schema.
    Object {
        /// The schema.
        schema: String,
    },
    /// Rights on something that lies in this schema, or on the schema.
    Right {
        /// The schema.
        schema: String,
    },
    /// A trigger that is made.
    Trigger {
        /// Its table's schema.
        schema: String,
        /// The schema of what it calls.
        routine: String,
        /// Its table, with the schema.
        on: String,
        /// What it calls, with the schema.
        calls: String,
    },
    /// A policy of a table.
    Policy,
    /// A foreign key.
    ForeignKey {
        /// Its table's schema.
        schema: String,
        /// The schema of the table that it refers to.
        to: String,
        /// Whether its table is no partitioned one.
        is_only: bool,
    },
    /// An event trigger.
    EventTrigger {
        /// Its name.
        name: String,
        /// The schema of what it calls, where it is made.
        routine: Option<String>,
    },
    /// A publication.
    Publication {
        /// Its name.
        name: String,
        /// Whether tables are added to it.
        is_about_tables: bool,
    },
    /// Rights on what will be made.
    DefaultPrivileges {
        /// By whom.
        role: String,
        /// Where.
        schema: String,
    },
    /// The value of a sequence.
    SequenceValue {
        /// Its schema.
        schema: String,
    },
    /// An extension that is there.
    Extension,
    /// Who carries out what follows.
    Authorization,
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
    /// An event trigger is made, changed or described.
    EventTrigger {
        /// It gets an owner.
        is_owner_change: bool,
    },
    /// `DO` or `CALL`: code that says only while it runs what it does.
    Code,
    /// The schema `public` is made.
    SchemaPublic,
    /// Nothing but what it is about.
    Other,
    /// `SET client_encoding` to this one.
    ClientEncoding(String),
    /// `SET transaction_timeout`, which servers before 17 do not know.
    TransactionTimeout,
    /// `SET lock_timeout` or `SET statement_timeout`: how long the session's statements may wait or work.
    Limit,
    /// What follows is put into this tablespace.
    Tablespace(String),
    /// Fills a materialized view, which is named with its schema.
    Refresh,
    /// Row-level security is to hold for the owner of a table, too, which is named with its schema.
    ForceRowSecurity,
}

impl JudgedKind {
    pub(super) fn meta(line: &[u8]) -> Self {
        Self::Meta(String::from_utf8_lossy(line).into_owned())
    }
}

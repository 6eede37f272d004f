//! The sections of the file: what each is called, where it belongs, and which groups of keys it has.
//!
//! The keys themselves are written once, in `types.rs`. The reader takes names and limits from these tables, and the
//! JSON Schema and the tests of `config.example.yaml` are made from them. Holds no logic but look-ups.

use super::section::{Group, join};
use super::types::{
    Compression, DatabaseConfig, DrillConfig, EmailConfig, Hook, LogConfig, PingConfig,
    PostgresConfig, Retention, Retries, StorageConfig, Webhook,
};

/// A group of keys that stand together.
pub(super) struct Section {
    /// Name in the JSON Schema.
    pub name: &'static str,
    /// Where its keys belong, to end "it belongs ...".
    pub place: &'static str,
    pub doc: &'static str,
    pub keys: &'static [Key],
}

/// One key.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// The default as it would stand in the file.
    pub default: Option<&'static str>,
    pub is_required: bool,
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// Text that is never shown.
    Secret,
    /// A connection URL; never shown whole.
    ConnectionUrl,
    StorageUrl,
    /// An `http://` or `https://` address.
    Endpoint,
    Path,
    /// A file whose content is the secret of the key without `_file`.
    SecretFile,
    /// `true` or `false`.
    Flag,
    /// A whole number in a range.
    Count(u64, u64),
    /// A length of time of at least so many and at most so many seconds.
    Duration(u64, u64),
    /// The same, or `0` or `off`.
    DurationOrOff(u64, u64),
    /// A length of time on the calendar.
    Span,
    /// A whole number in a range, or a length of time on the calendar.
    CountOrSpan(u64, u64),
    /// A number of bytes in a range.
    Size(u64, u64),
    /// The name of a time zone.
    TimeZone,
    Choice(&'static [&'static str]),
    /// Names of storages, at least one.
    Storages,
    /// Names of databases.
    Databases,
    /// A program and its arguments.
    Command,
    Tables,
    Schemas,
    /// A list of any texts.
    Texts,
    /// A list of choices.
    Choices(&'static [&'static str]),
    /// Free names, each with a secret text.
    Headers,
    /// An address that is a secret, because whoever has it may write there.
    SecretUrl,
    /// A list of the keys of a section.
    Sections(&'static Section),
    /// Names of tables, or the keys of a section for each.
    RequiredTables(&'static Section),
    Section(&'static Section),
    /// The keys of a section, or one of the choices for the first of them.
    SectionOrChoice(&'static Section, &'static [&'static str]),
    /// Free names, each with the keys of a section.
    Named(&'static Section),
}

impl Key {
    /// Returns the name of the key that gives the same by a file.
    pub fn file(&self) -> String {
        format!("{}_file", self.name)
    }
}

impl Kind {
    /// Tells whether a text switches the key off.
    pub fn is_off(self, text: &str) -> bool {
        matches!(self, Self::DurationOrOff(..)) && matches!(text, "0" | "off")
    }
}

impl Section {
    /// Finds a key by its name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// All sections.
pub(super) const SECTIONS: [&Section; 17] = [
    &ROOT,
    &DATABASE,
    &REQUIRED_TABLE,
    &COMPRESSION,
    &RETRIES,
    &RETENTION,
    &DRILL,
    &ASSERTION,
    &STORAGE,
    &POSTGRES,
    &NOTIFIER,
    &EMAIL,
    &SLACK,
    &DISCORD,
    &WEBHOOK,
    &PING,
    &LOG,
];

/// Finds the section that has a key of exactly this name, where there is only one.
pub(super) fn home_of(name: &str) -> Option<&'static Section> {
    // A drill's section lies in a database's, whose keys are the better known.
    let is_home = |section: &&Section| {
        section.key(name).is_some() && (section.name != DRILL.name || DATABASE.key(name).is_none())
    };
    let mut homes = SECTIONS.into_iter().filter(is_home);
    match (homes.next(), homes.next()) {
        (Some(home), None) => Some(home),
        _ => None,
    }
}

/// `pg_dump` takes its lock timeout as a signed number of milliseconds, which ends at 24.8 days.
pub(super) const MAX_TIMEOUT_S: u64 = 24 * 86_400;

/// A year of waiting between two attempts, or a century without a backup, is a slip of the pen.
pub(super) const MAX_DELAY_S: u64 = 86_400;
pub(super) const MAX_AGE_S: u64 = 100 * 366 * 86_400;

/// More of one tier than this is a slip of the pen: a century of hours.
pub(super) const MAX_KEPT: u64 = 876_600;

/// Smaller log files would be put aside in the middle of a run.
pub(super) const MIN_LOG_SIZE: u64 = 64 * 1024;

pub(super) const SSL_MODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];
pub(super) const METHODS: &[&str] = &["gzip", "zstd", "none"];
pub(super) const PRESETS: &[&str] = &["supabase"];
pub(super) const EVENTS: &[&str] = &["failure", "success", "stale", "restore", "drill"];
pub(super) const MAIL_TLS: &[&str] = &["starttls", "implicit", "none"];
pub(super) const PING_STYLES: &[&str] = &["healthchecks", "plain"];

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        default: None,
        is_required: false,
        doc,
    }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        is_required: true,
        ..key(name, kind, doc)
    }
}

/// What a notifier hears of, which a ping does not choose.
const ON: &[Key] = &[Key {
    default: Some("failure"),
    ..key(
        "on",
        Kind::Choices(EVENTS),
        "What is told: failure, success, stale, restore, drill.",
    )
}];

/// What every notifier has.
const SCOPE: &[Key] = &[
    key(
        "databases",
        Kind::Databases,
        "The databases that it is told of. Default: all.",
    ),
    key(
        "ca_certificate",
        Kind::Path,
        "Certificates to trust for the service, beside the usual ones.",
    ),
];

pub(super) static ROOT: Section = Section {
    name: "config",
    place: "at the top level",
    doc: "Configuration of pgkeep.",
    keys: &[
        key(
            "defaults",
            Kind::Section(&DATABASE),
            "Keys that every database has unless it gives them itself.",
        ),
        required(
            "databases",
            Kind::Named(&DATABASE),
            "The databases to back up, each under a name that its backups carry for ever.",
        ),
        required(
            "storages",
            Kind::Named(&STORAGE),
            "The places that backups are stored in, each under a name.",
        ),
        key(
            "postgres",
            Kind::Section(&POSTGRES),
            "The PostgreSQL client programs.",
        ),
        key(
            "notify",
            Kind::Sections(&NOTIFIER),
            "Who is told how runs ended.",
        ),
        key(
            "log",
            Kind::Section(&LOG),
            "A log file beside what is printed.",
        ),
    ],
};

pub(super) static DATABASE: Section = Section {
    name: "database",
    place: "in a database or under `defaults`",
    doc: "A database: how to reach it, what must be in its dump, where its backups go.",
    keys: DatabaseConfig::KEYS,
};

pub(super) static DRILL: Section = Section {
    name: "drill",
    place: "under `drill`",
    doc: "How a backup is restored for a test.",
    keys: DrillConfig::KEYS,
};

pub(super) static ASSERTION: Section = Section {
    name: "assertion",
    place: "in an entry of `assertions`",
    doc: "Something that must hold in the restored database: a query with what it must answer, or a program.",
    keys: &[
        required("name", Kind::Text, "What the report calls it."),
        key("sql", Kind::Text, "A query."),
        key(
            "expect",
            Kind::Text,
            "What the query must answer: equals X, at_least N, at_most N or no_rows.",
        ),
        key(
            "command",
            Kind::Command,
            "A program and its arguments, which must exit with 0; it finds the database by PGKEEP_SCRATCH_URL and DATABASE_URL.",
        ),
    ],
};

pub(super) static REQUIRED_TABLE: Section = Section {
    name: "required_table",
    place: "in an entry of `required_tables`",
    doc: "A table without which a dump is not stored.",
    keys: &[
        required(
            "name",
            Kind::Text,
            "Name of the table, with its schema where that is not `public`.",
        ),
        key(
            "min_rows",
            Kind::Count(0, u64::MAX),
            "How many rows it must have at least. Default: none are asked for.",
        ),
    ],
};

pub(super) static COMPRESSION: Section = Section {
    name: "compression",
    place: "under `compression`",
    doc: "How the dump is compressed.",
    keys: Compression::KEYS,
};

pub(super) static RETRIES: Section = Section {
    name: "retries",
    place: "under `retries`",
    doc: "When a failed run is tried again.",
    keys: Retries::KEYS,
};

pub(super) static RETENTION: Section = Section {
    name: "retention",
    place: "under `retention`",
    doc: "Which backups are kept. What any rule keeps is kept; the newest good backup and pinned ones always are.",
    keys: Retention::KEYS,
};

pub(super) static STORAGE: Section = Section {
    name: "storage",
    place: "in a storage",
    doc: "A place that backups are stored in. All keys but url are for s3:// alone.",
    keys: StorageConfig::KEYS,
};

pub(super) static POSTGRES: Section = Section {
    name: "postgres",
    place: "under `postgres`",
    doc: "The PostgreSQL client programs.",
    keys: PostgresConfig::KEYS,
};

pub(super) static LOG: Section = Section {
    name: "log",
    place: "under `log`",
    doc: "A log file beside what is printed; `--log-file` goes before it.",
    keys: LogConfig::KEYS,
};

pub(super) static NOTIFIER: Section = Section {
    name: "notifier",
    place: "in an entry of `notify`",
    doc: "Somebody who is told how runs ended: exactly one of the keys.",
    keys: &[
        key("email", Kind::Section(&EMAIL), "Tells by e-mail."),
        key(
            "slack",
            Kind::Section(&SLACK),
            "Tells a channel of Slack, or of what takes its messages.",
        ),
        key(
            "discord",
            Kind::Section(&DISCORD),
            "Tells a channel of Discord.",
        ),
        key(
            "webhook",
            Kind::Section(&WEBHOOK),
            "Sends a JSON document to any address.",
        ),
        key(
            "ping",
            Kind::Section(&PING),
            "Pings a service that alarms when no ping comes.",
        ),
    ],
};

pub(super) static EMAIL: Section = Section {
    name: "email",
    place: "under `email`",
    doc: "A mail server, and who gets mail by it.",
    keys: join!(EmailConfig::KEYS, ON, SCOPE),
};

pub(super) static SLACK: Section = Section {
    name: "slack",
    place: "under `slack`",
    doc: "An incoming webhook of Slack.",
    keys: join!(Hook::KEYS, ON, SCOPE),
};

pub(super) static DISCORD: Section = Section {
    name: "discord",
    place: "under `discord`",
    doc: "A webhook of Discord.",
    keys: join!(Hook::KEYS, ON, SCOPE),
};

pub(super) static WEBHOOK: Section = Section {
    name: "webhook",
    place: "under `webhook`",
    doc: "An address that takes a JSON document.",
    keys: join!(Webhook::KEYS, ON, SCOPE),
};

pub(super) static PING: Section = Section {
    name: "ping",
    place: "under `ping`",
    doc: "A service that alarms when no ping comes. It hears of backups alone.",
    keys: join!(PingConfig::KEYS, SCOPE),
};

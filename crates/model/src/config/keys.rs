//! The one table of all keys: what each is called, takes, means and defaults to.
//!
//! The reader takes names and limits from here, and the JSON Schema and the tests of `config.example.yaml` are
//! made from it, so that none can know a key that the others do not. Holds no logic but look-ups.

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
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// The default as it would stand in the file.
    pub default: Option<&'static str>,
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
const MAX_TIMEOUT_S: u64 = 24 * 86_400;

/// A year of waiting between two attempts, or a century without a backup, is a slip of the pen.
const MAX_DELAY_S: u64 = 86_400;
const MAX_AGE_S: u64 = 100 * 366 * 86_400;

/// More of one tier than this is a slip of the pen: a century of hours.
const MAX_KEPT: u64 = 876_600;

/// S3 takes no smaller parts than this, and several parts are held in memory at once.
const PART_SIZE: Kind = Kind::Size(5 * 1024 * 1024, 1024 * 1024 * 1024);

/// Smaller log files would be put aside in the middle of a run.
const MIN_LOG_SIZE: u64 = 64 * 1024;

pub(super) const SSL_MODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];
const METHODS: &[&str] = &["gzip", "zstd", "none"];
const PRESETS: &[&str] = &["supabase"];
pub(super) const EVENTS: &[&str] = &["failure", "success", "stale", "restore", "drill"];
const MAIL_TLS: &[&str] = &["starttls", "implicit", "none"];
const PING_STYLES: &[&str] = &["healthchecks", "plain"];

const ON: Key = with_default(
    "on",
    Kind::Choices(EVENTS),
    "failure",
    "What is told: failure, success, stale, restore, drill.",
);
const DATABASES: Key = key(
    "databases",
    Kind::Texts,
    "The databases that it is told of. Default: all.",
);
const CA_CERTIFICATE: Key = key(
    "ca_certificate",
    Kind::Path,
    "Certificates to trust for the service, beside the usual ones.",
);

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        default: None,
        doc,
    }
}

const fn with_default(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default: Some(default),
        doc,
    }
}

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
        key(
            "databases",
            Kind::Named(&DATABASE),
            "The databases to back up, each under a name that its backups carry for ever.",
        ),
        key(
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
    keys: &[
        key(
            "url",
            Kind::ConnectionUrl,
            "Connection URL, such as postgres://user@host:5432/database. Not together with host, port, user, database or service.",
        ),
        key(
            "url_file",
            Kind::SecretFile,
            "File that holds the connection URL.",
        ),
        key(
            "host",
            Kind::Text,
            "Host name, address, or folder of a Unix socket.",
        ),
        key(
            "port",
            Kind::Count(1, 65_535),
            "Port of the server; libpq's own default is 5432.",
        ),
        key("user", Kind::Text, "Role to log in as."),
        key("database", Kind::Text, "Database to connect to."),
        key(
            "password",
            Kind::Secret,
            "Password. It reaches the programs by their environment, never by their arguments.",
        ),
        key(
            "password_file",
            Kind::SecretFile,
            "File that holds the password.",
        ),
        key(
            "passfile",
            Kind::Path,
            "Password file in libpq's format; libpq's own default is ~/.pgpass.",
        ),
        key("service", Kind::Text, "Section of libpq's service file."),
        key(
            "sslmode",
            Kind::Choice(SSL_MODES),
            "How TLS is used and checked; libpq's own default is prefer.",
        ),
        key(
            "sslrootcert",
            Kind::Path,
            "Certificates to trust for the server.",
        ),
        key(
            "preset",
            Kind::Choice(PRESETS),
            "Rules of a hosting service that the server belongs to.",
        ),
        key(
            "required_tables",
            Kind::RequiredTables(&REQUIRED_TABLE),
            "Tables without which a dump is not stored; `public` is meant where no schema is written.",
        ),
        key(
            "storages",
            Kind::Storages,
            "Storages that get a copy. Default: all of them.",
        ),
        key(
            "copies",
            Kind::Count(1, 100),
            "How many storages must hold the backup for it to count. Default: one; a failed further one is exit code 3.",
        ),
        key(
            "tables",
            Kind::Tables,
            "The only tables to dump, by exact name. Default: all.",
        ),
        key(
            "exclude_tables",
            Kind::Tables,
            "Tables to leave out, by exact name.",
        ),
        key(
            "schemas",
            Kind::Schemas,
            "The only schemas to dump, by exact name. Default: all.",
        ),
        key(
            "exclude_schemas",
            Kind::Schemas,
            "Schemas to leave out, by exact name.",
        ),
        key(
            "structure_only",
            Kind::Tables,
            "Tables to dump without their rows, by exact name.",
        ),
        key(
            "compression",
            Kind::SectionOrChoice(&COMPRESSION, METHODS),
            "How the dump is compressed: a method, or a method and a level.",
        ),
        with_default(
            "globals",
            Kind::Flag,
            "false",
            "Whether roles and tablespaces are dumped too, beside the database.",
        ),
        with_default(
            "keep_runs",
            Kind::Duration(86_400, MAX_AGE_S),
            "400d",
            "How old the record of a run becomes before `prune` removes it.",
        ),
        with_default(
            "lock_timeout",
            Kind::DurationOrOff(1, MAX_TIMEOUT_S),
            "off",
            "Longest wait for another run of the same database; `off` does not wait.",
        ),
        with_default(
            "lock_wait_timeout",
            Kind::Duration(1, MAX_TIMEOUT_S),
            "60s",
            "Longest wait for a lock on a table.",
        ),
        with_default(
            "stall_timeout",
            Kind::DurationOrOff(1, MAX_TIMEOUT_S),
            "10m",
            "A dump that has moved no byte for so long is ended; `off` waits for ever.",
        ),
        with_default(
            "connect_timeout",
            Kind::Duration(1, MAX_TIMEOUT_S),
            "15s",
            "Longest wait for the server to answer a login.",
        ),
        key(
            "retries",
            Kind::Section(&RETRIES),
            "When a failed run is tried again; only where the cause may pass.",
        ),
        with_default(
            "allow_empty",
            Kind::Flag,
            "false",
            "Whether a dump without any table is a good backup.",
        ),
        with_default(
            "strict_warnings",
            Kind::Flag,
            "false",
            "Whether a warning of pg_dump fails the run.",
        ),
        key(
            "max_age",
            Kind::Duration(60, MAX_AGE_S),
            "Age at which the newest backup counts as stale. Default: never.",
        ),
        key(
            "retention",
            Kind::Section(&RETENTION),
            "Which backups are kept. Default: all.",
        ),
        key(
            "drill",
            Kind::Section(&DRILL),
            "How a backup is restored for a test.",
        ),
    ],
};

pub(super) static DRILL: Section = Section {
    name: "drill",
    place: "under `drill`",
    doc: "How a backup is restored for a test.",
    keys: &[
        key(
            "url",
            Kind::ConnectionUrl,
            "Server to restore into, as a role that may create databases and roles. Default: a throw-away one on this machine.",
        ),
        key(
            "url_file",
            Kind::SecretFile,
            "File that holds the server's URL.",
        ),
        key(
            "allow_superuser",
            Kind::Flag,
            "Whether the role of `url` may be a superuser: whatever the dump's SQL says then runs with those powers. Default: no.",
        ),
        key(
            "skip_extensions",
            Kind::Texts,
            "Extensions that the server may lack; the report says so.",
        ),
        key(
            "max_age",
            Kind::DurationOrOff(60, MAX_AGE_S),
            "Age at which the last drill that passed counts as stale: `status` then exits with 24; where it is not set, it warns after 35 days. `off` never warns.",
        ),
        key(
            "assertions",
            Kind::Sections(&ASSERTION),
            "What must hold in the restored database.",
        ),
    ],
};

pub(super) static ASSERTION: Section = Section {
    name: "assertion",
    place: "in an entry of `assertions`",
    doc: "Something that must hold in the restored database: a query with what it must answer, or a program.",
    keys: &[
        key("name", Kind::Text, "What the report calls it."),
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
        key(
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
    keys: &[
        with_default(
            "method",
            Kind::Choice(METHODS),
            "gzip",
            "Format of the stored dump.",
        ),
        key(
            "level",
            Kind::Count(1, 19),
            "From 1 (fast) to 9 for gzip or 19 for zstd. Default: 6 for gzip, 3 for zstd.",
        ),
    ],
};

pub(super) static RETRIES: Section = Section {
    name: "retries",
    place: "under `retries`",
    doc: "When a failed run is tried again.",
    keys: &[
        with_default(
            "attempts",
            Kind::Count(1, 100),
            "3",
            "How many times in all; 1 never tries again.",
        ),
        with_default(
            "delay",
            Kind::Duration(1, MAX_DELAY_S),
            "10s",
            "Wait before the second attempt; it doubles each time.",
        ),
        with_default(
            "max_delay",
            Kind::Duration(1, MAX_DELAY_S),
            "5m",
            "Longest wait between two attempts.",
        ),
    ],
};

pub(super) static RETENTION: Section = Section {
    name: "retention",
    place: "under `retention`",
    doc: "Which backups are kept. What any rule keeps is kept; the newest good backup and pinned ones always are.",
    keys: &[
        key(
            "keep_last",
            Kind::Count(1, MAX_KEPT),
            "Keeps the newest so many.",
        ),
        key(
            "keep_hourly",
            Kind::Count(1, MAX_KEPT),
            "Keeps the newest of each of so many hours.",
        ),
        key(
            "keep_daily",
            Kind::Count(1, MAX_KEPT),
            "Keeps the newest of each of so many days.",
        ),
        key(
            "keep_weekly",
            Kind::Count(1, MAX_KEPT),
            "Keeps the newest of each of so many ISO weeks.",
        ),
        key(
            "keep_monthly",
            Kind::Count(1, MAX_KEPT),
            "Keeps the newest of each of so many months.",
        ),
        key(
            "keep_yearly",
            Kind::Count(1, MAX_KEPT),
            "Keeps the newest of each of so many years.",
        ),
        key(
            "keep_within",
            Kind::Span,
            "Keeps all that are younger than this, measured to the newest backup.",
        ),
        key(
            "keep_pre_deploy",
            Kind::CountOrSpan(1, MAX_KEPT),
            "Keeps the newest so many of the backups made before deploys, or those younger than an age. Default: they are pinned.",
        ),
        with_default(
            "timezone",
            Kind::TimeZone,
            "UTC",
            "IANA name of the zone that days, weeks, months and years are counted in.",
        ),
    ],
};

pub(super) static STORAGE: Section = Section {
    name: "storage",
    place: "in a storage",
    doc: "A place that backups are stored in. All keys but url are for s3:// alone.",
    keys: &[
        key(
            "url",
            Kind::StorageUrl,
            "A folder, file:///folder, or s3://bucket/prefix.",
        ),
        key(
            "endpoint",
            Kind::Endpoint,
            "Address of an S3 service other than AWS.",
        ),
        key(
            "region",
            Kind::Text,
            "Region of the bucket. Default: what the environment or the service says.",
        ),
        key(
            "path_style",
            Kind::Flag,
            "Whether the bucket stands in the path of a request. Default: true with an endpoint, else false.",
        ),
        key(
            "access_key_id",
            Kind::Secret,
            "Access key. Default: what the environment or the machine offers.",
        ),
        key(
            "access_key_id_file",
            Kind::SecretFile,
            "File that holds the access key.",
        ),
        key(
            "secret_access_key",
            Kind::Secret,
            "Secret of the access key.",
        ),
        key(
            "secret_access_key_file",
            Kind::SecretFile,
            "File that holds the secret of the access key.",
        ),
        key(
            "session_token",
            Kind::Secret,
            "Token of a temporary access key.",
        ),
        key(
            "session_token_file",
            Kind::SecretFile,
            "File that holds the token of a temporary access key.",
        ),
        key(
            "credential_command",
            Kind::Command,
            "Program and arguments that print temporary credentials; no shell reads them.",
        ),
        key(
            "part_size",
            PART_SIZE,
            "Size of every part of an upload. Default: grows with the database, so that no size is a limit.",
        ),
        key(
            "ca_certificate",
            Kind::Path,
            "Certificates to trust for the endpoint, beside the usual ones.",
        ),
    ],
};

pub(super) static POSTGRES: Section = Section {
    name: "postgres",
    place: "under `postgres`",
    doc: "The PostgreSQL client programs.",
    keys: &[key(
        "bin_dir",
        Kind::Path,
        "Folder of pg_dump and psql. Default: PATH and the usual folders are searched.",
    )],
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
    keys: &[
        key("host", Kind::Text, "Host name of the mail server."),
        key(
            "port",
            Kind::Count(1, 65_535),
            "Its port. Default: 587 for starttls, 465 for implicit, 25 for none.",
        ),
        with_default(
            "tls",
            Kind::Choice(MAIL_TLS),
            "starttls",
            "How the connection is protected: starttls, implicit (from the first byte) or none.",
        ),
        key("user", Kind::Text, "Whom to log in as. Default: nobody."),
        key("password", Kind::Secret, "Password of the user."),
        key(
            "password_file",
            Kind::SecretFile,
            "File that holds the password.",
        ),
        key(
            "from",
            Kind::Text,
            "Who sends, such as pgkeep <backup@example.com>.",
        ),
        key("to", Kind::Texts, "Who receives."),
        ON,
        DATABASES,
        CA_CERTIFICATE,
    ],
};

/// Keys of a chat's incoming webhook.
const HOOK: &[Key] = &[
    key("url", Kind::SecretUrl, "Address of the webhook."),
    key(
        "url_file",
        Kind::SecretFile,
        "File that holds the address of the webhook.",
    ),
    ON,
    DATABASES,
    CA_CERTIFICATE,
];

pub(super) static SLACK: Section = Section {
    name: "slack",
    place: "under `slack`",
    doc: "An incoming webhook of Slack.",
    keys: HOOK,
};

pub(super) static DISCORD: Section = Section {
    name: "discord",
    place: "under `discord`",
    doc: "A webhook of Discord.",
    keys: HOOK,
};

pub(super) static WEBHOOK: Section = Section {
    name: "webhook",
    place: "under `webhook`",
    doc: "An address that takes a JSON document.",
    keys: &[
        key("url", Kind::SecretUrl, "The address."),
        key("url_file", Kind::SecretFile, "File that holds the address."),
        key(
            "secret",
            Kind::Secret,
            "Key that the Pgkeep-Signature header is made with. Default: no signature.",
        ),
        key("secret_file", Kind::SecretFile, "File that holds the key."),
        key(
            "headers",
            Kind::Headers,
            "Headers of each request, such as Authorization.",
        ),
        ON,
        DATABASES,
        CA_CERTIFICATE,
    ],
};

pub(super) static PING: Section = Section {
    name: "ping",
    place: "under `ping`",
    doc: "A service that alarms when no ping comes. It hears of backups alone.",
    keys: &[
        key(
            "url",
            Kind::SecretUrl,
            "The address; {database} in it stands for the database's name.",
        ),
        key("url_file", Kind::SecretFile, "File that holds the address."),
        with_default(
            "style",
            Kind::Choice(PING_STYLES),
            "healthchecks",
            "healthchecks adds /start and /fail to the address and sends the report; plain pings the address after a good backup.",
        ),
        key(
            "start_url",
            Kind::SecretUrl,
            "Address for the start of a backup. Default: what the style says.",
        ),
        key(
            "start_url_file",
            Kind::SecretFile,
            "File that holds the address for the start.",
        ),
        key(
            "failure_url",
            Kind::SecretUrl,
            "Address for a backup that failed. Default: what the style says.",
        ),
        key(
            "failure_url_file",
            Kind::SecretFile,
            "File that holds the address for a failure.",
        ),
        DATABASES,
        CA_CERTIFICATE,
    ],
};

pub(super) static LOG: Section = Section {
    name: "log",
    place: "under `log`",
    doc: "A log file beside what is printed; `--log-file` goes before it.",
    keys: &[
        key(
            "file",
            Kind::Path,
            "The file. It is made for its owner alone; several runs may share it.",
        ),
        with_default(
            "max_size",
            Kind::Size(MIN_LOG_SIZE, 1 << 40),
            "10MiB",
            "The size at which the file is put aside as `FILE.1` and a new one begun.",
        ),
        with_default(
            "keep",
            Kind::Count(0, 1000),
            "5",
            "How many files that were put aside are kept.",
        ),
    ],
};

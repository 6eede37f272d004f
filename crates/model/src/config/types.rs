//! The config as typed values: what every other part reads, with the documented defaults.
//!
//! Secrets are wrapped, so that printing a value for debugging never shows one. Nothing here reads YAML.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Span;
use jiff::tz::TimeZone;
use secrecy::SecretString;

use super::url;
pub use super::url::StorageUrl;
pub use crate::drill::DrillConfig;
use crate::id::DatabaseName;
use crate::name::TableName;
use crate::notice::NotifierConfig;
pub use crate::required::RequiredTable;

/// The whole configuration. Databases and storages stand in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What to back up, defaults applied.
    pub databases: Vec<(DatabaseName, DatabaseConfig)>,
    /// Where backups go.
    pub storages: Vec<(String, StorageConfig)>,
    /// The client programs.
    pub postgres: PostgresConfig,
    /// The log file.
    pub log: LogConfig,
    /// What a database has that gives no keys of its own.
    pub defaults: DatabaseConfig,
    /// Who is told how runs ended.
    pub notify: Vec<NotifierConfig>,
}

impl Config {
    /// Finds a database by its name in the config.
    pub fn database(&self, name: &str) -> Option<&DatabaseConfig> {
        let found = self.databases.iter().find(|(n, _)| n.as_str() == name);
        found.map(|(_, database)| database)
    }

    /// Finds a storage by its name in the config.
    pub fn storage(&self, name: &str) -> Option<&StorageConfig> {
        let found = self.storages.iter().find(|(n, _)| n == name);
        found.map(|(_, storage)| storage)
    }
}

/// Where the PostgreSQL client programs are.
#[derive(Clone, Debug, Default)]
pub struct PostgresConfig {
    /// The folder that holds `pg_dump` and `psql`; `None` searches the usual ones.
    pub bin_dir: Option<PathBuf>,
}

/// Where a log is kept beside what is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The file; none writes none.
    pub file: Option<PathBuf>,
    /// Size at which it is put aside.
    pub max_size_bytes: u64,
    /// How many files that were put aside are kept.
    pub keep: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            file: None,
            max_size_bytes: 10 * 1024 * 1024,
            keep: 5,
        }
    }
}

/// One database to back up: how to reach it, what must be in it, where its backups go.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// How to reach the server.
    pub connection: Connection,
    /// Rules of a hosting service that the server belongs to.
    pub preset: Option<Preset>,
    /// Tables that a dump must hold to be stored.
    pub required_tables: Vec<RequiredTable>,
    /// Names of the storages that get a copy. Read from a file it is never empty.
    pub storages: Vec<String>,
    /// How many storages must hold the backup for it to count; `None` means one.
    pub copies: Option<usize>,
    /// The only tables to dump; empty means all.
    pub tables: Vec<TableName>,
    /// Tables to leave out.
    pub exclude_tables: Vec<TableName>,
    /// The only schemas to dump, as real names; empty means all.
    pub schemas: Vec<String>,
    /// Schemas to leave out, as real names.
    pub exclude_schemas: Vec<String>,
    /// Tables to dump without their rows.
    pub structure_only: Vec<TableName>,
    /// How the dump is compressed.
    pub compression: Compression,
    /// Whether roles and tablespaces are dumped beside the database.
    pub globals: bool,
    /// How old the record of a run becomes.
    pub keep_runs: Duration,
    /// Longest wait for another run of the database; `None` does not wait.
    pub lock_timeout: Option<Duration>,
    /// Longest wait for a table lock.
    pub lock_wait_timeout: Duration,
    /// Longest time without a byte from the dump; `None` waits for ever.
    pub stall_timeout: Option<Duration>,
    /// Longest wait for the server to answer a login.
    pub connect_timeout: Duration,
    /// When a failed run is tried again.
    pub retries: Retries,
    /// Whether a dump without any table is a good backup.
    pub allow_empty: bool,
    /// Whether a warning of `pg_dump` fails the run.
    pub strict_warnings: bool,
    /// The age at which the newest backup counts as stale.
    pub max_age: Option<Duration>,
    /// Which backups are kept; `None` keeps all.
    pub retention: Option<Retention>,
    /// How a backup is restored for a test.
    pub drill: DrillConfig,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            connection: Connection::default(),
            preset: None,
            required_tables: Vec::new(),
            storages: Vec::new(),
            copies: None,
            tables: Vec::new(),
            exclude_tables: Vec::new(),
            schemas: Vec::new(),
            exclude_schemas: Vec::new(),
            structure_only: Vec::new(),
            compression: Compression::default(),
            globals: false,
            keep_runs: Duration::from_secs(400 * 86_400),
            lock_timeout: None,
            lock_wait_timeout: Duration::from_secs(60),
            stall_timeout: Some(Duration::from_secs(10 * 60)),
            connect_timeout: Duration::from_secs(15),
            retries: Retries::default(),
            allow_empty: false,
            strict_warnings: false,
            max_age: None,
            retention: None,
            drill: DrillConfig::default(),
        }
    }
}

/// How to reach a server: a URL, or libpq's parameters. What is `None` is left to libpq.
///
/// `url` never stands beside `host`, `port`, `user`, `database` or `service`; the others may stand beside it.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// `postgres://user@host:port/database`; secret because it may hold a password.
    pub url: Option<SecretString>,
    /// Host name, address, or folder of a Unix socket.
    pub host: Option<String>,
    /// Port of the server.
    pub port: Option<u16>,
    /// Role to log in as.
    pub user: Option<String>,
    /// Database to connect to.
    pub database: Option<String>,
    /// Password, given or read from `password_file`.
    pub password: Option<SecretString>,
    /// A password file in libpq's format.
    pub passfile: Option<PathBuf>,
    /// A section of libpq's service file.
    pub service: Option<String>,
    /// One of libpq's modes, such as `verify-full`.
    pub sslmode: Option<String>,
    /// Certificates to trust for the server.
    pub sslrootcert: Option<PathBuf>,
}

impl Connection {
    /// Takes a connection URL, as from the command line.
    ///
    /// The error tells what is wrong, to stand behind a name for the URL; it never shows the URL.
    pub fn from_url(text: String) -> Result<Self, &'static str> {
        url::check_postgres(&text)?;
        Ok(Self {
            url: Some(text.into()),
            ..Self::default()
        })
    }
}

/// Rules for a hosting service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Supabase: managed schemas are left out.
    Supabase,
}

impl Preset {
    /// Returns the name that stands in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supabase => "supabase",
        }
    }
}

/// How a dump is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// The format.
    pub method: CompressionMethod,
    /// From 1 (fast) to 9 for gzip or 19 for zstd; `None` leaves it to the method.
    pub level: Option<u8>,
}

impl Compression {
    /// Returns the level in force; `None` where there is no one level: gzip left to itself takes the one that suits each
    /// chunk.
    pub fn level_in_force(self) -> Option<u8> {
        self.level.or(self.method.default_level())
    }
}

/// A format of compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompressionMethod {
    /// Ordinary gzip, readable everywhere.
    #[default]
    Gzip,
    /// Zstandard: smaller and faster.
    Zstd,
    /// Plain SQL.
    None,
}

impl CompressionMethod {
    /// Returns the name that stands in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "none",
        }
    }

    /// Returns the level where none is given, if it is one: the one that keeps up with `pg_dump` on two cores.
    pub fn default_level(self) -> Option<u8> {
        match self {
            Self::Zstd => Some(1),
            Self::Gzip | Self::None => None,
        }
    }

    /// Returns the highest level, `None` where there are no levels.
    pub fn max_level(self) -> Option<u8> {
        match self {
            Self::Gzip => Some(9),
            // Levels 20 to 22 want more memory to decompress than many readers allow.
            Self::Zstd => Some(19),
            Self::None => None,
        }
    }
}

/// When a failed run is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How many times in all; 1 never tries again.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles each time.
    pub delay: Duration,
    /// Longest wait between two attempts.
    pub max_delay: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 3,
            delay: Duration::from_secs(10),
            max_delay: Duration::from_secs(5 * 60),
        }
    }
}

/// Which backups are kept. At least one of the `keep_` rules other than `keep_pre_deploy` is given.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The newest so many.
    pub keep_last: Option<u32>,
    /// The newest of each of so many hours.
    pub keep_hourly: Option<u32>,
    /// The newest of each of so many days.
    pub keep_daily: Option<u32>,
    /// The newest of each of so many ISO weeks.
    pub keep_weekly: Option<u32>,
    /// The newest of each of so many months.
    pub keep_monthly: Option<u32>,
    /// The newest of each of so many years.
    pub keep_yearly: Option<u32>,
    /// All that are younger than this, measured to the newest; positive and at most 1000 years.
    pub keep_within: Option<Span>,
    /// What is kept of the backups made before deploys; `None` leaves them pinned.
    pub keep_pre_deploy: Option<KeepPreDeploy>,
    /// The zone that days, weeks, months and years are counted in; it always has an IANA name.
    pub timezone: TimeZone,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            keep_last: None,
            keep_hourly: None,
            keep_daily: None,
            keep_weekly: None,
            keep_monthly: None,
            keep_yearly: None,
            keep_within: None,
            keep_pre_deploy: None,
            timezone: TimeZone::UTC,
        }
    }
}

/// What is kept of the backups made before deploys.
#[derive(Clone, Debug)]
pub enum KeepPreDeploy {
    /// The newest so many.
    Last(u32),
    /// All that are younger than this; positive and at most 1000 years.
    Within(Span),
}

/// A place for backups.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The place itself.
    pub url: StorageUrl,
    /// Address of an S3 service other than AWS.
    pub endpoint: Option<String>,
    /// Region of the bucket; `None` leaves it to the environment or the service.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of a request rather than in its host name; `None` means yes where an
    /// endpoint is given.
    pub path_style: Option<bool>,
    /// Access key; `None` together with the two below looks in the usual places.
    pub access_key_id: Option<SecretString>,
    /// Secret of the access key; given exactly when `access_key_id` is.
    pub secret_access_key: Option<SecretString>,
    /// Token of a temporary access key.
    pub session_token: Option<SecretString>,
    /// Program and arguments that print credentials; empty means none. Never goes through a shell. Secret because
    /// an argument may be.
    pub credential_command: Vec<SecretString>,
    /// Size of every part of an upload in parts; `None` lets parts follow the size of the object.
    pub part_size_bytes: Option<u64>,
    /// Certificates to trust for the endpoint, beside the usual ones.
    pub ca_certificate: Option<PathBuf>,
}

impl StorageConfig {
    /// Makes a storage with the documented defaults.
    pub fn new(url: StorageUrl) -> Self {
        Self {
            url,
            endpoint: None,
            region: None,
            path_style: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            credential_command: Vec::new(),
            part_size_bytes: None,
            ca_certificate: None,
        }
    }
}

//! The config as typed values, each key written once: what every other part reads, with the documented defaults.
//!
//! Secrets are wrapped, so that printing a value for debugging never shows one. Nothing here reads YAML.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Span;
use jiff::tz::TimeZone;
use secrecy::SecretString;

use super::callers::{Network, ServerRole};
use super::jobs::Jobs;
use super::keys::{Key, Kind, Section, key, required};
use super::limits::{self, Limits};
use super::section::{group, join};
use super::setting::Group;
use super::url;
pub use super::url::StorageUrl;
use crate::drill::Assertion;
use crate::id::DatabaseName;
use crate::name::TableName;
use crate::notice::{EmailConfig, HookConfig, NotifierConfig, PingConfig, WebhookConfig};
use crate::pattern::TablePattern;
use crate::percent::Percent;
pub use crate::required::RequiredTable;
use crate::schedule::Schedule;

/// `pg_dump` takes its lock timeout as a signed number of milliseconds, which ends at 24.8 days.
const MAX_TIMEOUT_S: u64 = 24 * 86_400;

/// A year of waiting between two attempts, or a century without a backup, is a slip of the pen.
const MAX_DELAY_S: u64 = 86_400;
const MAX_AGE_S: u64 = 100 * 366 * 86_400;

/// Sentry's monitors wait for 28 days at most.
const MAX_CHECK_IN_S: u64 = 28 * 86_400;

/// More of one tier than this is a slip of the pen: a century of hours.
const MAX_KEPT: u64 = 876_600;

/// More rows than this are no bar for anybody.
const MAX_ROWS: u64 = u32::MAX as u64;

/// Smaller log files would be put aside in the middle of a run.
const MIN_LOG_SIZE: u64 = 64 * 1024;

const SSL_MODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];
const METHODS: &[&str] = &["gzip", "zstd", "none"];
const OFF: &[&str] = &["off"];
const PRESETS: &[&str] = &["supabase"];
const MAIL_TLS: &[&str] = &["starttls", "implicit", "none"];
const ROLES: &[&str] = &["read", "operate", "restore"];
const PING_STYLES: &[&str] = &["healthchecks", "plain"];

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
    /// Where the lease of a run lives.
    pub lock: LockConfig,
    /// Who may call the server, and where it listens.
    pub server: ServerConfig,
    /// What a database has that gives no keys of its own.
    pub defaults: DatabaseConfig,
    /// Where notices about runs are sent.
    pub notify: Vec<NotifierConfig>,
    /// Where errors and the runs of schedules are tracked.
    pub sentry: SentryConfig,
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

    /// Returns where the lease of a run lives. A storage that is called `local` is meant before this host is.
    pub fn lease_place(&self) -> LeasePlace {
        match &self.lock.storage {
            None => LeasePlace::EachStorage,
            Some(name) if name == THIS_HOST && self.storage(name).is_none() => LeasePlace::ThisHost,
            Some(name) => LeasePlace::Storage(name.clone()),
        }
    }
}

/// What `lock.storage` says for no storage at all.
pub(super) const THIS_HOST: &str = "local";

/// Where the lease of a run lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeasePlace {
    /// In each storage that the run works on.
    EachStorage,
    /// In this storage alone, whichever the run works on.
    Storage(String),
    /// Nowhere: only runs of this host wait for each other.
    ThisHost,
}

group! {
    /// Where the PostgreSQL client programs are.
    pub struct PostgresConfig {
        /// Folder of pg_dump and psql. Default: PATH and the usual folders are searched.
        bin_dir: Option<PathBuf> = Path;
    }
}

group! {
    /// Where a log is kept beside what is printed.
    pub struct LogConfig: PartialEq, Eq {
        /// The file. It is made for its owner alone; several runs may share it.
        file: Option<PathBuf> = Path;
        /// The size at which the file is put aside as `FILE.1` and a new one begun.
        max_size_bytes: u64 = Size(MIN_LOG_SIZE, 1 << 40), as "max_size", default "10MiB";
        /// How many files that were put aside are kept.
        keep: u32 = Count(0, 1000), default "5";
    }
}

group! {
    /// Where runs of different hosts see each other.
    pub struct LockConfig: PartialEq, Eq {
        /// The one storage that holds the lease, by its name; `local` keeps it on this host alone. Default: each
        /// storage holds one.
        storage: Option<String> = Text;
    }
}

group! {
    /// One database to back up: how to reach it, what must be in it, where its backups go.
    pub struct DatabaseConfig {
        with connection: Connection, "How to reach the server.";
        /// Rules of a hosting service that the server belongs to.
        preset: Option<Preset> = Choice(PRESETS);
        /// Tables without which a dump is not stored; `public` is meant where no schema is written.
        required_tables: Vec<RequiredTable> = RequiredTables(&REQUIRED_TABLE);
        /// Storages that get a copy. Default: all of them.
        storages: Vec<String> = Storages;
        /// How many storages must hold the backup for it to count. Default: one; a failed further one is exit code 3.
        copies: Option<usize> = Count(1, 100);
        /// The only tables to dump, by exact name. Default: all.
        tables: Vec<TableName> = Tables;
        /// Tables to leave out, by exact name.
        exclude_tables: Vec<TableName> = Tables;
        /// The only schemas to dump, by exact name. Default: all.
        schemas: Vec<String> = Schemas;
        /// Schemas to leave out, by exact name.
        exclude_schemas: Vec<String> = Schemas;
        /// Tables to dump without their rows, by exact name.
        structure_only: Vec<TableName> = Tables;
        /// Which rows of a table are dumped, for each table that is not dumped whole.
        limits: Limits = Limits(&LIMIT);
        /// How the dump is compressed: a method, or a method and a level.
        compression: Compression = SectionOrChoice(&COMPRESSION, METHODS);
        /// How many sessions read large tables at once, in one snapshot; `auto` is one for each core, at most four. With
        /// 1, pg_dump reads all tables.
        jobs: Jobs = Jobs, default "1";
        /// Who can open the backups; `off` where the defaults encrypt and this database does not. Default: they are not
        /// encrypted.
        encryption: Option<Encryption> = SectionOrChoice(&ENCRYPTION, OFF);
        /// Whether roles and tablespaces are dumped too, beside the database.
        globals: bool = Flag, default "false";
        /// How old the record of a run becomes before `prune` removes it.
        keep_runs: Duration = Duration(86_400, MAX_AGE_S), default "400d";
        /// Longest wait for another run of the same database; `off` does not wait.
        lock_timeout: Option<Duration> = DurationOrOff(1, MAX_TIMEOUT_S), default "off";
        /// Longest wait for a lock on a table.
        lock_wait_timeout: Duration = Duration(1, MAX_TIMEOUT_S), default "60s";
        /// A dump that has moved no byte for so long is ended; `off` waits for ever.
        stall_timeout: Option<Duration> = DurationOrOff(1, MAX_TIMEOUT_S), default "10m";
        /// Longest wait for the server to answer a login.
        connect_timeout: Duration = Duration(1, MAX_TIMEOUT_S), default "15s";
        /// When a failed run is tried again; only where the cause may pass.
        retries: Retries = Section(&RETRIES);
        /// Whether a dump without any table is a good backup.
        allow_empty: bool = Flag, default "false";
        /// Whether a warning of pg_dump fails the run.
        strict_warnings: bool = Flag, default "false";
        /// Age at which the newest backup counts as stale. Default: never.
        max_age: Option<Duration> = Duration(60, MAX_AGE_S);
        /// Which backups are kept. Default: all.
        retention: Option<Retention> = Section(&RETENTION);
        /// What of a backup that lost rows makes it held; `off` judges nothing.
        anomaly: Option<Anomaly> = SectionOrChoice(&ANOMALY, OFF);
        /// How a backup is restored for a test.
        drill: DrillConfig = Section(&DRILL);
        /// When `pgkeep serve` makes a backup, as a cron expression of five fields. Default: never.
        schedule: Option<Schedule> = Schedule;
        /// IANA name of the zone that the schedules of this database are read in.
        timezone: TimeZone = TimeZone, default "UTC";
        /// Spreads the schedules of many databases over so long a time, each by the same amount every time; `off` runs all
        /// at once.
        spread: Option<Duration> = DurationOrOff(60, MAX_DELAY_S), default "off";
        /// How late a run that was missed is made up for.
        catch_up: Duration = Duration(60, MAX_AGE_S), default "12h";
        /// When stored backups are read again.
        verify: VerifyConfig = Section(&VERIFY);
    }
}

group! {
    /// When stored backups are read again.
    pub struct VerifyConfig {
        /// When `pgkeep serve` reads the latest backup, as a cron expression of five fields. Default: never.
        schedule: Option<Schedule> = Schedule;
    }
}

group! {
    /// The server: where it listens, and who may call it.
    pub struct ServerConfig {
        /// Address and port to listen on. One that others can reach needs tokens.
        listen: String = Text, default "127.0.0.1:8080";
        /// Path that the page begins at, behind a proxy.
        base_path: String = Text, default "/";
        /// Addresses and networks of proxies whose word about the client is taken.
        trusted_proxies: Vec<Network> = Networks;
        /// Who may do what. Without any, the page is for this machine alone, and restores nothing.
        tokens: Vec<TokenConfig> = Sections(&TOKEN);
        /// The address that cron services call.
        cron: CronConfig = Section(&CRON);
        /// Key that opens badges and the wall view, and nothing else. Default: they are closed.
        view_key: Option<SecretString> = Secret;
        /// How many runs there may be at once.
        max_parallel: u32 = Count(1, 64), default "2";
        /// How many of them on one server.
        max_parallel_per_server: u32 = Count(1, 64), default "1";
        /// How long a run may go on when the server is told to end; `off` ends it at once.
        shutdown_grace: Option<Duration> = DurationOrOff(1, MAX_DELAY_S), default "off";
    }
}

group! {
    /// A token, with the name by which records tell who did something.
    pub struct TokenConfig {
        /// What its bearer is called.
        name: String = Text, required: true;
        /// What its bearer may do: read; operate: also back up, drill, verify and pin; restore: also restore, accept and
        /// download.
        role: ServerRole = Choice(ROLES), default "read";
        /// The token, at least 16 characters.
        token: SecretString = Secret, file "File that holds the token.", required: true;
    }
}

group! {
    /// The address that cron services call to start a backup.
    pub struct CronConfig {
        /// Secret of that address alone, as a bearer token. Default: a token of the role operate.
        secret: Option<SecretString> = Secret, file "File that holds the secret.";
        /// Whether the secret may stand in the address, where proxies log it.
        allow_query_secret: bool = Flag, default "false";
        /// Whether it may stand in a JSON body.
        allow_body_secret: bool = Flag, default "false";
        /// A backup that is younger than this is not made again.
        min_interval: Duration = Duration(0, MAX_DELAY_S), default "10m";
    }
}

group! {
    /// How to reach a server: a URL, or libpq's parameters. What is `None` is left to libpq. `url` never stands beside
    /// `host`, `port`, `user`, `database` or `service`; the others may stand beside it.
    pub struct Connection {
        /// Connection URL, such as postgres://user@host:5432/database. Not together with host, port, user, database or
        /// service.
        url: Option<SecretString> = ConnectionUrl, file "File that holds the connection URL.";
        /// Host name, address, or folder of a Unix socket.
        host: Option<String> = Text;
        /// Port of the server; libpq's own default is 5432.
        port: Option<u16> = Count(1, 65_535);
        /// Role to log in as.
        user: Option<String> = Text;
        /// Database to connect to.
        database: Option<String> = Text;
        /// Password. It reaches the programs by their environment, never by their arguments.
        password: Option<SecretString> = Secret, file "File that holds the password.";
        /// Password file in libpq's format; libpq's own default is ~/.pgpass.
        passfile: Option<PathBuf> = Path;
        /// Section of libpq's service file.
        service: Option<String> = Text;
        /// How TLS is used and checked; libpq's own default is prefer.
        sslmode: Option<String> = Choice(SSL_MODES);
        /// Certificates to trust for the server.
        sslrootcert: Option<PathBuf> = Path;
    }
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

group! {
    /// How a dump is compressed.
    pub struct Compression: Copy, PartialEq, Eq {
        /// Format of the stored dump.
        method: CompressionMethod = Choice(METHODS), default "gzip";
        /// From 1 (fast) to 9 for gzip or 19 for zstd. Default: 6 for gzip, 3 for zstd.
        level: Option<u8> = Count(1, 19);
    }
}

impl Compression {
    /// Returns the level in force; `None` where there is no one level: gzip left to itself takes the one that suits
    /// each chunk.
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

group! {
    /// Who can open the backups.
    pub struct Encryption: PartialEq, Eq {
        /// Public keys of age that backups are encrypted to; the private key of any of them opens them.
        recipients: Vec<String> = Texts;
        /// File of such keys, one a line.
        recipients_file: Option<PathBuf> = Path;
        /// Files of private keys, tried in this order, for commands that read backups. A host that only makes backups
        /// needs none.
        identity_file: Vec<PathBuf> = Paths;
    }
}

group! {
    /// When a failed run is tried again.
    pub struct Retries: Copy, PartialEq, Eq {
        /// How many times in all; 1 never tries again.
        attempts: u32 = Count(1, 100), default "3";
        /// Wait before the second attempt; it doubles each time.
        delay: Duration = Duration(1, MAX_DELAY_S), default "10s";
        /// Longest wait between two attempts.
        max_delay: Duration = Duration(1, MAX_DELAY_S), default "5m";
    }
}

group! {
    /// Which backups are kept. At least one of the `keep_` rules other than `keep_pre_deploy` is given.
    pub struct Retention {
        /// Keeps the newest N.
        keep_last: Option<u32> = Count(1, MAX_KEPT);
        /// Keeps the newest of each of N hours.
        keep_hourly: Option<u32> = Count(1, MAX_KEPT);
        /// Keeps the newest of each of N days.
        keep_daily: Option<u32> = Count(1, MAX_KEPT);
        /// Keeps the newest of each of N ISO weeks.
        keep_weekly: Option<u32> = Count(1, MAX_KEPT);
        /// Keeps the newest of each of N months.
        keep_monthly: Option<u32> = Count(1, MAX_KEPT);
        /// Keeps the newest of each of N years.
        keep_yearly: Option<u32> = Count(1, MAX_KEPT);
        /// Keeps all that are younger than this, measured to the newest backup.
        keep_within: Option<Span> = Span;
        /// Keeps the newest N of the backups made before deploys, or those younger than an age. Default: they are
        /// pinned.
        keep_pre_deploy: Option<KeepPreDeploy> = CountOrSpan(1, MAX_KEPT);
        /// IANA name of the zone that days, weeks, months and years are counted in.
        timezone: TimeZone = TimeZone, default "UTC";
    }
}

/// What is kept of the backups made before deploys.
#[derive(Clone, Debug)]
pub enum KeepPreDeploy {
    /// The newest N.
    Last(u32),
    /// All that are younger than this; positive and at most 1000 years.
    Within(Span),
}

group! {
    /// What makes a backup held: a loss that passes both a share and a number of rows, against the median of the last
    /// backups.
    pub struct Anomaly: PartialEq {
        /// Tables that are not judged, by name or by a pattern such as 'job_*'; their rows count for nothing.
        ignore: Vec<TablePattern> = Texts;
        /// A table that is no longer in the dump fails where it had at least so many rows.
        gone_min_rows: u32 = Count(0, MAX_ROWS), default "1";
        /// A table that is empty fails where it had at least so many rows.
        empty_min_rows: u32 = Count(0, MAX_ROWS), default "100";
        /// Share of its rows that a table may not lose.
        max_loss: Percent = Percent, default "50%";
        /// Share of its rows at whose loss a warning is printed.
        warn_loss: Percent = Percent, default "20%";
        /// Loss of fewer rows than this never counts.
        min_lost_rows: u32 = Count(0, MAX_ROWS), default "1000";
        /// Share of the rows of all tables together that may not be lost.
        max_total_loss: Percent = Percent, default "30%";
        /// Other bars for some tables; of the entries that mean a table, the first one counts.
        tables: Vec<TableBars> = Sections(&TABLE_BARS);
    }
}

group! {
    /// Other bars for some tables; what is not given is as for all.
    pub struct TableBars: PartialEq {
        /// Name of the table, or a pattern.
        name: TablePattern = Text, required: true;
        /// Share of its rows that it may not lose.
        max_loss: Option<Percent> = Percent;
        /// Share of its rows at whose loss a warning is printed.
        warn_loss: Option<Percent> = Percent;
        /// Loss of fewer rows than this never counts.
        min_lost_rows: Option<u32> = Count(0, MAX_ROWS);
        /// It fails when it is empty and had at least so many rows.
        empty_min_rows: Option<u32> = Count(0, MAX_ROWS);
        /// It fails when it is gone and had at least so many rows.
        gone_min_rows: Option<u32> = Count(0, MAX_ROWS);
    }
}

group! {
    /// A place for backups.
    pub struct StorageConfig {
        /// A folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix, or az://container/prefix.
        url: StorageUrl = StorageUrl, required: true;
        /// Address of an S3 service other than AWS, of a cloud other than the public one, or of an emulator.
        endpoint: Option<String> = Endpoint;
        /// Region of the bucket. Default: what the environment or the service says.
        region: Option<String> = Text;
        /// Whether the bucket stands in the path of a request. Default: true with an endpoint, else false.
        path_style: Option<bool> = Flag;
        /// Access key. Default: what the environment or the machine offers.
        access_key_id: Option<SecretString> = Secret, file "File that holds the access key.";
        /// Secret of the access key.
        secret_access_key: Option<SecretString> = Secret, file "File that holds the secret of the access key.";
        /// Token of a temporary access key.
        session_token: Option<SecretString> = Secret, file "File that holds the token of a temporary access key.";
        /// JSON key of a service account. Default: what the environment or the machine offers.
        service_account: Option<SecretString> = Secret, file "File that holds the JSON key of a service account.";
        /// Storage account that the container is in. Default: what the environment says.
        account: Option<String> = Text;
        /// Key of the storage account. Default: what the environment or the machine offers.
        account_key: Option<SecretString> = Secret, file "File that holds the key of the storage account.";
        /// Shared access signature of the container or the storage account.
        sas_token: Option<SecretString> = Secret, file "File that holds the shared access signature.";
        /// Bearer token, which ends soon and is not renewed.
        access_token: Option<SecretString> = Secret, file "File that holds the bearer token.";
        /// Application to log in as; alone, a managed identity of this machine.
        client_id: Option<String> = Text;
        /// Secret of the application.
        client_secret: Option<SecretString> = Secret, file "File that holds the secret of the application.";
        /// Tenant that the application belongs to.
        tenant_id: Option<String> = Text;
        /// File with a token that the tenant trusts instead of the application's secret, as AKS makes it.
        federated_token_file: Option<PathBuf> = Path;
        /// Address that hands out tokens in clouds other than the public one.
        authority_host: Option<String> = Endpoint;
        /// Whether the login of the Azure CLI is used, by its program az.
        use_azure_cli: Option<bool> = Flag;
        /// Whether requests are sent without a login, as to an emulator.
        anonymous: Option<bool> = Flag;
        /// Program and arguments that print temporary credentials or a token; no shell reads them.
        credential_command: Vec<SecretString> = Command;
        /// Size of every part of an upload. Default: grows with the database, so that no size is a limit.
        part_size_bytes: Option<u64> = Size(5 << 20, 1 << 30), as "part_size";
        /// Certificates to trust for the endpoint, beside the usual ones.
        ca_certificate: Option<PathBuf> = Path;
        /// Whether nothing is ever removed from it: for a key without the right to delete, or a bucket whose lifecycle
        /// frees the space.
        append_only: bool = Flag, default "false";
    }
}

impl StorageConfig {
    /// Makes a storage with the documented defaults.
    pub fn new(url: StorageUrl) -> Self {
        Self {
            url,
            ..Self::unset()
        }
    }
}

group! {
    /// How a database's backups are drilled.
    pub struct DrillConfig {
        /// Server to restore into, as a role that may create databases and roles. Default: a throw-away one on this
        /// machine.
        url: Option<SecretString> = ConnectionUrl, file "File that holds the server's URL.";
        /// Whether the role of `url` may be a superuser: whatever the dump's SQL says then runs with those powers.
        /// Default: no.
        allow_superuser: bool = Flag;
        /// Extensions that the server may lack; the report says so.
        skip_extensions: Vec<String> = Texts;
        /// Age at which the last drill that passed counts as stale: `status` then exits with 24; where it is not set,
        /// it warns after 35 days. `off` never warns.
        max_age: Option<Option<Duration>> = DurationOrOff(60, MAX_AGE_S);
        /// What must hold in the restored database.
        assertions: Vec<Assertion> = Sections(&ASSERTION);
        /// When `pgkeep serve` drills the latest backup, as a cron expression of five fields. Default: never.
        schedule: Option<Schedule> = Schedule;
        /// How long a restore may take; the page shows drills against it.
        recovery_target: Option<Duration> = Duration(1, MAX_AGE_S);
    }
}

group! {
    keys of EmailConfig {
        /// Host name of the mail server.
        host: String = Text, required: true;
        /// Its port. Default: 587 for starttls, 465 for implicit, 25 for none.
        port: Option<u16> = Count(1, 65_535);
        /// How the connection is protected: starttls, implicit (from the first byte) or none.
        tls: MailTls = Choice(MAIL_TLS), default "starttls";
        /// Whom to log in as. Default: nobody.
        user: Option<String> = Text;
        /// Password of the user.
        password: Option<SecretString> = Secret, file "File that holds the password.";
        /// Who sends, such as pgkeep <backup@example.com>.
        from: String = Text, required: true;
        /// Who receives.
        to: Vec<String> = Texts, required: true;
    }
}

group! {
    keys of PingConfig {
        /// The address; {database} in it stands for the database's name.
        url: SecretString = SecretUrl, file "File that holds the address.", required: true;
        /// healthchecks adds /start and /fail to the address and sends the report; plain pings the address after a good
        /// backup.
        style: PingStyle = Choice(PING_STYLES), default "healthchecks";
        /// Address for the start of a backup. Default: what the style says.
        start_url: Option<SecretString> = SecretUrl, file "File that holds the address for the start.";
        /// Address for a backup that failed. Default: what the style says.
        failure_url: Option<SecretString> = SecretUrl, file "File that holds the address for a failure.";
    }
}

group! {
    keys of WebhookConfig {
        /// The address.
        url: SecretString = SecretUrl, file "File that holds the address.", required: true;
        /// Key that the Pgkeep-Signature header is made with. Default: no signature.
        secret: Option<SecretString> = Secret, file "File that holds the key.";
        /// Headers of each request, such as Authorization.
        headers: Vec<(String, SecretString)> = Headers;
    }
}

group! {
    keys of HookConfig {
        /// Address of the webhook.
        url: SecretString = SecretUrl, file "File that holds the address of the webhook.", required: true;
    }
}

group! {
    /// A project of Sentry, and how long its monitors wait.
    pub struct SentryConfig {
        /// The DSN of the project. Default: the variable SENTRY_DSN.
        dsn: Option<SecretString> = SecretUrl, file "File that holds the DSN.";
        /// What Sentry calls this installation, such as production. Default: the variable SENTRY_ENVIRONMENT.
        environment: Option<String> = Text;
        /// What Sentry calls this version. Default: pgkeep@ and the version of pgkeep.
        release: Option<String> = Text;
        /// How late a run of a schedule may begin before its monitor alarms.
        checkin_margin: Duration = Duration(60, MAX_CHECK_IN_S), default "30m";
        /// How long it may take before its monitor alarms.
        max_runtime: Duration = Duration(60, MAX_CHECK_IN_S), default "6h";
    }
}

group! {
    /// What every notifier has.
    pub struct Scope {
        /// The databases that it reports on. Default: all.
        databases: Vec<String> = Databases;
        /// Certificates to trust for the service, beside the usual ones.
        ca_certificate: Option<PathBuf> = Path;
    }
}

impl DrillConfig {
    /// Tells whether anything was said about drills, so that some are expected.
    pub fn is_set(&self) -> bool {
        self.url.is_some()
            || self.allow_superuser
            || !self.skip_extensions.is_empty()
            || !self.assertions.is_empty()
            || self.max_age.is_some()
            || self.schedule.is_some()
    }
}

macro_rules! defaults {
    ($($group:ident),+) => {$(
        impl Default for $group {
            fn default() -> Self {
                Self::unset()
            }
        }
    )+};
}

defaults!(
    PostgresConfig,
    LogConfig,
    LockConfig,
    DatabaseConfig,
    Connection,
    Compression,
    Retries,
    Retention,
    Anomaly,
    DrillConfig,
    VerifyConfig,
    ServerConfig,
    TokenConfig,
    CronConfig,
    SentryConfig
);

// The sections of the file.

pub(super) const EVENTS: &[&str] = &["failure", "success", "stale", "restore", "drill"];

/// What a notifier hears of, which a ping does not choose.
const ON: &[Key] = &[Key {
    default: Some("failure"),
    ..key(
        "on",
        Kind::Choices(EVENTS),
        "What is reported: failure, success, stale, restore, drill.",
    )
}];

/// Declares all sections, from which the JSON Schema and the tests of `config.example.yaml` are made: the name in the
/// schema, where its keys belong, what it is, and its keys.
macro_rules! sections {
    ($($section:ident: $name:literal, $place:literal, $doc:literal, $keys:expr;)*) => {
        $(pub(super) static $section: Section = Section {
            name: $name,
            place: $place,
            doc: $doc,
            keys: $keys,
        };)*

        /// All sections.
        pub(super) const SECTIONS: &[&Section] = &[$(&$section),*];
    };
}

sections! {
    ROOT: "config", "at the top level", "Configuration of pgkeep.", &[
        key("defaults", Kind::Section(&DATABASE), "Keys that every database has unless it gives them itself."),
        required("databases", Kind::Named(&DATABASE), "The databases to back up, each under a name that its backups carry for ever."),
        required("storages", Kind::Named(&STORAGE), "The places that backups are stored in, each under a name."),
        key("postgres", Kind::Section(&POSTGRES), "The PostgreSQL client programs."),
        key("notify", Kind::Sections(&NOTIFIER), "Where notices about runs are sent."),
        key("sentry", Kind::Section(&SENTRY), "A project of Sentry that hears of runs that fail, and of the runs of schedules."),
        key("log", Kind::Section(&LOG), "A log file in addition to what is printed."),
        key("lock", Kind::Section(&LOCK), "Where runs of different hosts see each other."),
        key("server", Kind::Section(&SERVER), "The server of `pgkeep serve`: where it listens, and who may call it."),
    ];
    DATABASE: "database", "in a database or under `defaults`",
        "A database: how to reach it, what must be in its dump, where its backups go.", DatabaseConfig::KEYS;
    REQUIRED_TABLE: "required_table", "in an entry of `required_tables`", "A table without which a dump is not stored.", &[
        required("name", Kind::Text, "Name of the table, with its schema where that is not `public`."),
        key("min_rows", Kind::Count(0, u64::MAX), "How many rows it must have at least. Default: none are asked for."),
    ];
    LIMIT: "limit", "in an entry of `limits`", "Which rows of a table are dumped.", limits::KEYS;
    COMPRESSION: "compression", "under `compression`", "How the dump is compressed.", Compression::KEYS;
    ENCRYPTION: "encryption", "under `encryption`", "Who can open the backups.", Encryption::KEYS;
    RETRIES: "retries", "under `retries`", "When a failed run is tried again.", Retries::KEYS;
    RETENTION: "retention", "under `retention`",
        "Which backups are kept. What any rule keeps is kept; the newest good backup and pinned ones always are.", Retention::KEYS;
    ANOMALY: "anomaly", "under `anomaly`", "What of a backup that lost rows makes it held.", Anomaly::KEYS;
    TABLE_BARS: "table_bars", "in an entry of `anomaly.tables`", "Other bars for some tables.", TableBars::KEYS;
    DRILL: "drill", "under `drill`", "How a backup is restored for a test.", DrillConfig::KEYS;
    ASSERTION: "assertion", "in an entry of `assertions`",
        "Something that must hold in the restored database: a query with what it must answer, or a program.", &[
        required("name", Kind::Text, "What the report calls it."),
        key("sql", Kind::Text, "A query."),
        key("expect", Kind::Text, "What the query must answer: equals X, at_least N, at_most N or no_rows."),
        key("command", Kind::Command, "A program and its arguments, which must exit with 0; it finds the database by PGKEEP_SCRATCH_URL and DATABASE_URL."),
    ];
    STORAGE: "storage", "in a storage", "A place that backups are stored in. All keys but url and append_only are for buckets alone, and most for one kind of them.", StorageConfig::KEYS;
    POSTGRES: "postgres", "under `postgres`", "The PostgreSQL client programs.", PostgresConfig::KEYS;
    NOTIFIER: "notifier", "in an entry of `notify`", "Where a notice is sent: exactly one of the keys.", &[
        key("email", Kind::Section(&EMAIL), "Sends e-mail."),
        key("slack", Kind::Section(&SLACK), "Posts to a channel of Slack, or of a service that takes Slack's messages."),
        key("discord", Kind::Section(&DISCORD), "Posts to a channel of Discord."),
        key("webhook", Kind::Section(&WEBHOOK), "Sends a JSON document to any address."),
        key("ping", Kind::Section(&PING), "Pings a service that alarms when no ping comes."),
    ];
    EMAIL: "email", "under `email`", "A mail server, and who gets mail by it.", join!(EmailConfig::KEYS, ON, Scope::KEYS);
    SLACK: "slack", "under `slack`", "An incoming webhook of Slack.", join!(HookConfig::KEYS, ON, Scope::KEYS);
    DISCORD: "discord", "under `discord`", "A webhook of Discord.", join!(HookConfig::KEYS, ON, Scope::KEYS);
    WEBHOOK: "webhook", "under `webhook`", "An address that takes a JSON document.", join!(WebhookConfig::KEYS, ON, Scope::KEYS);
    PING: "ping", "under `ping`", "A service that alarms when no ping comes. It gets pings for backups only.", join!(PingConfig::KEYS, Scope::KEYS);
    SENTRY: "sentry", "under `sentry`", "A project of Sentry, for a binary that was built with it, and how long its monitors wait.", SentryConfig::KEYS;
    LOG: "log", "under `log`", "A log file in addition to what is printed; `--log-file` overrides it.", LogConfig::KEYS;
    LOCK: "lock", "under `lock`", "Where runs of different hosts see each other.", LockConfig::KEYS;
    VERIFY: "verify", "under `verify`", "When stored backups are read again.", VerifyConfig::KEYS;
    SERVER: "server", "under `server`", "The server of `pgkeep serve`: where it listens, and who may call it.", ServerConfig::KEYS;
    TOKEN: "token", "in an entry of `server.tokens`", "A token, with the name by which records tell who did something.", TokenConfig::KEYS;
    CRON: "cron", "under `server.cron`", "The address that cron services call to start a backup.", CronConfig::KEYS;
}

//! The command line as clap reads it: every flag with its words of help, nothing else.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use super::global::Global;
pub use super::pages::{CompletionsArgs, ManArgs};
use pgkeep_model::config::Preset;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Start here:
  pgkeep demo                                              everything once, on a throw-away server
  pgkeep backup --storage ./backups --require users        with DATABASE_URL set
  pgkeep list --storage ./backups
  pgkeep drill --storage ./backups                         restores the latest one for a test
  pgkeep inspect dump.sql.gz
  pgkeep retention --keep-daily 7 --keep-weekly 4 --simulate '0 3 * * *'

Exit codes: 0 done and proven, 2 usage or config, 3 the backup is good but something after it is not, \
10 no such backup, 11 busy, 12 login refused, 20 the source failed, 21 the dump failed its proof, 22 storage failed, \
23 stored data is damaged or a restore did not match, 24 stale, 25 refused by a safety rule, 26 a needed program is \
missing, 130 or 143 stopped by a \
signal; any other one means failure too.";

/// Logical PostgreSQL backups that come with proof.
#[derive(Debug, Parser)]
#[command(name = "pgkeep", version = env!("PGKEEP_VERSION"), about, after_help = AFTER_HELP, styles = STYLES, max_term_width = 110)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a backup: dump, prove while it streams, store, commit
    #[command(after_help = BACKUP_HELP)]
    Backup(Box<BackupArgs>),
    /// List what is stored
    List(ListArgs),
    /// Show one backup's manifest, with the line that restores it without pgkeep
    Show(ShowArgs),
    /// Download a backup, checked on the way
    Get(GetArgs),
    /// Tell whether backups are fresh, how large they are and how the last runs went
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Remove what retention does not keep, each with its reason
    #[command(after_help = PRUNE_HELP)]
    Prune(PruneArgs),
    /// Sweep what dead runs left behind, older than a day
    Sync(SyncArgs),
    /// Keep a backup until it is unpinned
    Pin(PinArgs),
    /// Leave a backup to retention again
    Unpin(UnpinArgs),
    /// Read stored backups back and prove that they are still what their manifests say
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Print one table's rows out of a backup or a dump, without a server
    #[command(after_help = EXTRACT_HELP)]
    Extract(ExtractArgs),
    /// Restore a backup or a plain dump, and compare every table with what was dumped
    #[command(after_help = RESTORE_HELP)]
    Restore(Box<RestoreArgs>),
    /// Look for everything that can go wrong before it does: database, storages, this machine; nothing is changed
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Run a command only behind a proven backup, and tell or go the way back when it fails
    #[command(after_help = GUARD_HELP, mut_args(without_selection))]
    Guard(Box<GuardArgs>),
    /// Restore a backup into a scratch database, compare every table, drop it: the proof that a backup can be restored
    #[command(after_help = DRILL_HELP)]
    Drill(DrillArgs),
    /// Prove any plain dump: is it whole, which tables and rows does it hold?
    #[command(after_help = INSPECT_HELP)]
    Inspect(InspectArgs),
    /// Show what a retention policy would keep; no storage is touched
    #[command(after_help = RETENTION_HELP)]
    Retention(RetentionArgs),
    /// Write, show and describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Walk through pgkeep with a throw-away PostgreSQL and a sample database
    Demo(DemoArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual, or write a page for each command
    Man(ManArgs),
}

const BACKUP_HELP: &str = "\
Examples:
  pgkeep backup                                      all databases of the configuration
  pgkeep -d shop backup --trigger pre-deploy
  pgkeep backup --storage ./backups --require users --compression zstd
  pgkeep backup --url 'postgresql:///shop?host=/run/postgresql' --storage s3://acme-backups/pg

Without --url and without a configuration, DATABASE_URL or libpq's own variables (PGHOST, PGSERVICE, …) say where \
the database is. Passwords may also come from ~/.pgpass or a service file; behind --url others can read them in the \
list of processes. A run that leaves out tables or rows by its flags is stored under partial/ and counts for \
nothing else.";

const INSPECT_HELP: &str = "\
Examples:
  pgkeep inspect backup.sql.gz --require users --require 'billing.\"Invoice Lines\"'
  pg_dump shop | pgkeep inspect - --json

Reads .sql, .gz and .zst by content, not by name. Exit code 21: the dump is not complete, or a required table is \
missing.";

const RETENTION_HELP: &str = "\
Examples:
  pgkeep retention --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --simulate '0 3 * * *' --for 2y
  pgkeep retention --keep-last 3 --keep-within 30d --from times.txt
  pgkeep -d shop retention --simulate '@hourly' --for 30d      the policy of the configuration

Each rule goes from the newest backup to the oldest by itself and keeps the newest of each period that has one, until \
its count is used up; where the backups run out first, it keeps the oldest too. What any rule keeps is kept. Weeks are \
ISO weeks. A start more than 10 minutes ahead of now is kept and not counted. It is restic's rule since 0.16. Pruning \
after every backup leaves the same as pruning once, so a simulated schedule is judged once, at its end.

The calendar marks each day, or each hour of a few days, with the tier that stays longest.

Exit code 25: the policy has no rule, so it would keep nothing.";

const STATUS_HELP: &str = "\
Examples:
  pgkeep status                                      every database of the configuration, by its `max_age`
  pgkeep status --storage ./backups --max-age 26h
  pgkeep -d shop status --nagios

Reads storage only, so any host that may read it can watch. Exit code 24: a database has no good backup that is \
young enough. With --nagios: 0 fresh, 1 fresh with a warning, 2 stale, 3 unknown.";

const PRUNE_HELP: &str = "\
Examples:
  pgkeep prune --dry-run                             what would go, and why
  pgkeep -d shop prune
  pgkeep prune --storage ./backups --keep-daily 7 --keep-weekly 4 --keep-monthly 12

Never removed: the newest good backup, the newest one that passed a drill, pinned ones, and whatever pgkeep did not \
write or cannot read. Each storage keeps its own account. `backup` prunes by itself when the configuration has a \
policy. Exit code 25: refused, nothing removed there; 3: some removals failed.";

const RESTORE_HELP: &str = "\
Examples:
  pgkeep restore --into shop_restored                           the latest backup, on the same server
  pgkeep restore shop-20260102T030405Z-7f3a --into postgresql://app@db.example/shop --replace
  pgkeep restore dump.sql.gz --into postgresql:///scratch
  pg_dump shop | pgkeep restore - --into postgresql:///copy
  pgkeep restore latest --into shop --table orders --schema-map public=rescued
  pgkeep restore latest --into shop --upsert --table orders --table order_lines --dry-run

--table brings single tables back into a database that holds others: rows, sequences, keys, indexes, triggers, owner and \
rights, and types and functions that they need and the target lacks. A table that is there already is refused; \
--schema-map puts the copy beside it, without a lock on the one in use. Foreign keys and triggers that want what is \
not there are left out and told. Of a backup only these tables' bytes are read; a file is read twice.

--upsert brings deleted and changed rows back into a database that is in use: new ones are inserted, changed ones \
updated, rows that are not in the backup stay. --data-only fills empty tables. Both are one transaction, compared before \
its COMMIT; other writers of these tables wait for it, triggers do not fire. --dry-run does it all and rolls it back.

A database that is missing is created; one that is there must be empty. A failed restore leaves the target as it was. \
Exit code 0 means that every table is there with the rows that were dumped; 23: the stored dump is damaged, or a table \
differs; 25: something stands against it, and nothing was touched.";

const CHECK_HELP: &str = "\
Examples:
  pgkeep check                                       every database and storage of the configuration
  pgkeep -d shop check --json
  pgkeep check --storage ./backups --require users   with DATABASE_URL set

Each line is ok, warn, fail or skipped, with its reason and the next move. Whatever hangs is given up after some seconds. A \
storage gets one small object that no listing takes for a backup, and loses it again; nothing else is changed.

The exit code is that of the worst failed line: 2 configuration, 26 programs, 12 login, 20 database, 22 storage, 21 required \
tables, 24 stale. Warnings change nothing, or with --strict end with 3.";

/// A guard refuses the flags that leave something out, so its help does not offer them.
fn without_selection(argument: clap::Arg) -> clap::Arg {
    let is_selection = argument.get_help_heading() == Some("Selection");
    argument.hide(is_selection)
}

const GUARD_HELP: &str = "\
Examples:
  pgkeep guard -- npm run migrate
  pgkeep -d shop guard --max-age 10m --on-failure restore -- ./manage.py migrate
  pgkeep guard --storage ./backups --require users -- sh -c 'migrate && seed'

The backup is made as by `pgkeep backup`, or with --max-age a good one is taken that is young enough and was made of this \
very database. It is pinned, with the git commit where there is one. No backup, no COMMAND. COMMAND gets pgkeep's own \
standard input, output, error and environment, and SIGINT and SIGTERM; all that pgkeep says goes to standard error. No shell \
reads COMMAND.

The exit code is COMMAND's (128 and the signal's number where one ended it). pgkeep's own codes mean that COMMAND was not run \
(127: there is no such command, 126: it cannot be started), or that --on-failure restore failed. With --json standard \
error tells them apart: it ends with an `exit_error` object when the code is pgkeep's, and with the `summary` when it is \
COMMAND's.

After a signal no restore is begun: the line that does it is printed.";

const DRILL_HELP: &str = "\
Examples:
  pgkeep drill                                       the latest backup, on a throw-away server started here
  pgkeep drill latest --html report.html
  pgkeep drill --drill-url postgresql://drill@localhost/postgres

Roles that the dump refers to are made; whatever was made is dropped again. Exit code 0 means that every table came \
back with its rows and that every assertion of the configuration holds; 23 that it does not.";

/// Flags of `backup`.
#[derive(Debug, Default, Args)]
pub struct BackupArgs {
    /// The database [default: from the configuration, DATABASE_URL or libpq's variables]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub url: Option<String>,
    /// Name of the database in storage [default: the one in the URL]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// File that holds the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where to store.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// How many storages must take the backup for it to count [default: one]
    #[arg(long, value_name = "N")]
    pub copies: Option<usize>,
    /// Table that must be in the dump: users, billing."Invoice Lines", or users=100 for at least 100 rows (repeatable)
    #[arg(long = "require", value_name = "TABLE")]
    pub required: Vec<String>,
    /// Rules of a hosting service: supabase keeps what is the project's own, users and stored files' index included
    #[arg(long, value_enum, value_name = "SERVICE", help_heading = "Selection")]
    pub preset: Option<PresetArg>,
    /// Dump only this table (repeatable); names are literal, never patterns
    #[arg(long = "table", value_name = "TABLE", help_heading = "Selection")]
    pub tables: Vec<String>,
    /// Leave this table out (repeatable)
    #[arg(
        long = "exclude-table",
        value_name = "TABLE",
        help_heading = "Selection"
    )]
    pub exclude_tables: Vec<String>,
    /// Dump only this schema (repeatable)
    #[arg(long = "schema", value_name = "SCHEMA", help_heading = "Selection")]
    pub schemas: Vec<String>,
    /// Leave this schema out (repeatable)
    #[arg(
        long = "exclude-schema",
        value_name = "SCHEMA",
        help_heading = "Selection"
    )]
    pub exclude_schemas: Vec<String>,
    /// Dump this table without its rows (repeatable)
    #[arg(
        long = "structure-only",
        value_name = "TABLE",
        help_heading = "Selection"
    )]
    pub structure_only: Vec<String>,
    /// Compression: gzip, zstd or none, with a level such as gzip:6 [default: gzip at a level
    /// that suits each chunk, 3 to 5]
    #[arg(long, value_name = "METHOD[:LEVEL]")]
    pub compression: Option<String>,
    /// Store roles and tablespaces beside the dump
    #[arg(long)]
    pub globals: bool,
    /// Accept a database without any table
    #[arg(long)]
    pub allow_empty: bool,
    /// End with code 3 when pg_dump warned of anything
    #[arg(long)]
    pub strict_warnings: bool,
    /// How long pg_dump waits for a lock [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub lock_wait_timeout: Option<String>,
    /// How long to wait for another run of the same database; 0 ends at once with code 11 [default: 0]
    #[arg(long, value_name = "TIME")]
    pub lock_timeout: Option<String>,
    /// End a dump that has moved no byte for so long; 0 means never [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub stall_timeout: Option<String>,
    /// How often a run is tried whose cause may pass, such as a lost connection [default: 3]
    #[arg(long, value_name = "N")]
    pub attempts: Option<u32>,
    /// Folder of the PostgreSQL client programs
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
    /// Why the run happens [default: manual; pre-deploy for a guard]
    #[arg(long, value_enum)]
    pub trigger: Option<TriggerArg>,
    /// Keep the backup until it is unpinned, for this reason [default: pinned where the trigger is pre-deploy]
    #[arg(long, value_name = "REASON")]
    pub pin: Option<String>,
    /// Remove nothing behind the backup, whatever the configuration's retention says
    #[arg(long)]
    pub no_prune: bool,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How old the newest good backup may be, such as 26h [default: `max_age` of the configuration]
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<String>,
    /// Print one line for Nagios and end with its codes: 0 ok, 1 warning, 2 critical, 3 unknown
    #[arg(long, conflicts_with = "json")]
    pub nagios: bool,
    /// Tell the notifiers that asked for `stale` of each database that needs somebody; the exit code stays the same
    #[arg(long)]
    pub notify: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Carry out a plan that removes more than half of more than ten backups
    #[arg(long)]
    pub allow_mass_delete: bool,
    /// How long to wait for another run of the same database; 0 ends at once with code 11 [default: 0]
    #[arg(long, value_name = "TIME")]
    pub lock_timeout: Option<String>,
    /// The rules; none at all means the policy of the configuration.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Where to prune.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for another run of the same database; 0 ends at once with code 11 [default: 0]
    #[arg(long, value_name = "TIME")]
    pub lock_timeout: Option<String>,
    /// Where to sweep.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `pin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why it is kept, for whoever finds it later
    #[arg(value_name = "REASON")]
    pub reason: String,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `unpin`.
#[derive(Debug, Args)]
pub struct UnpinArgs {
    /// Id of the backup
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// End with code 3 when there are warnings
    #[arg(long)]
    pub strict: bool,
    /// Send a test to everyone whom the configuration tells of runs
    #[arg(long)]
    pub send_test: bool,
    /// The database [default: from the configuration, DATABASE_URL or libpq's variables]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub url: Option<String>,
    /// Name of the database in storage [default: the one in the URL]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// File that holds the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Rules of a hosting service
    #[arg(long, value_enum, value_name = "SERVICE")]
    pub preset: Option<PresetArg>,
    /// Table that must be there: users, billing."Invoice Lines" (repeatable)
    #[arg(long = "require", value_name = "TABLE")]
    pub required: Vec<String>,
    /// Folder of the PostgreSQL programs
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
    /// Where backups go.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// A hosting service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PresetArg {
    /// Supabase
    Supabase,
}

impl From<PresetArg> for Preset {
    fn from(preset: PresetArg) -> Self {
        match preset {
            PresetArg::Supabase => Self::Supabase,
        }
    }
}

/// Flags of `guard`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Accept a good backup that is not older, such as 10m [default: a new one is made]
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<String>,
    /// What is done when COMMAND fails
    #[arg(long, value_enum, default_value_t = OnFailureArg::Print, value_name = "WHAT")]
    pub on_failure: OnFailureArg,
    /// Let a superuser restore: whatever the dump's SQL says then runs with those powers
    #[arg(long)]
    pub allow_superuser: bool,
    /// How the backup is made.
    #[command(flatten)]
    pub backup: BackupArgs,
    /// The command and its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What is done when the guarded command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailureArg {
    /// Print the line that restores the backup
    Print,
    /// Restore the backup in the database's place; the one that COMMAND left is kept under another name
    Restore,
}

/// Why a run happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TriggerArg {
    /// Somebody asked for it
    Manual,
    /// A schedule
    Schedule,
    /// A deployment is about to start
    PreDeploy,
}

/// Where backups live.
#[derive(Clone, Debug, Default, Args)]
pub struct StorageArgs {
    /// Storage: a folder or s3://bucket/prefix (repeatable) [default: those of the configuration]
    #[arg(long = "storage", value_name = "URL", help_heading = "Storage")]
    pub storages: Vec<String>,
    /// Endpoint of an S3-compatible service
    #[arg(
        long,
        value_name = "URL",
        help_heading = "Storage",
        env = "PGKEEP_S3_ENDPOINT"
    )]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket [default: AWS_REGION, else us-east-1]
    #[arg(long, value_name = "REGION", help_heading = "Storage")]
    pub s3_region: Option<String>,
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: String,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: String,
    /// File to write; - is standard output [default: the object's own name in the current folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Get roles and tablespaces instead of the dump
    #[arg(long)]
    pub globals: bool,
    /// Replace a file that is there already
    #[arg(long)]
    pub force: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

const VERIFY_HELP: &str = "\
Examples:
  pgkeep verify --storage ./backups              the newest good backup, in each storage that has it
  pgkeep verify --all
  pgkeep verify --sample 3 --json

Every byte is read: size, SHA-256, compression, end marker, each table's rows and digest. What contradicts the \
manifest is read again; when the second reading agrees, the copy is marked as damaged, counts for nothing from then \
on and is never chosen as latest. The mark is final.

Exit code 23: a copy is damaged; the hint names the newest good backup. 22: a storage could not be read; nothing is \
marked then.";

const EXTRACT_HELP: &str = "\
Examples:
  pgkeep extract latest --table orders --format csv -o orders.csv
  pgkeep extract latest --table billing.\"Invoice Lines\" --format jsonl --where-column customer_id=42
  pgkeep extract shop.sql.gz --table users --format sql | psql -X -v ON_ERROR_STOP=1 -d shop

Out of a stored backup only the table's own bytes are read. Values are compared as the dump writes them, letter for \
letter. csv: RFC 4180 in UTF-8; an empty field is null, \"\" an empty text. jsonl: numbers, booleans and json as JSON \
has them, bytea in hex, everything else as text. sql: one transaction that psql can replay. One row is held in memory \
at a time.

Exit code 10: no such backup or table. 23: the rows are not those of the manifest; what was printed must not be \
trusted.";

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Id of the backup, or `latest` [default: latest]
    #[arg(value_name = "ID", conflicts_with_all = ["all", "sample"])]
    pub id: Option<String>,
    /// Verify every backup
    #[arg(long, conflicts_with = "sample")]
    pub all: bool,
    /// Verify so many backups by chance, and the newest of each database besides
    #[arg(long, value_name = "N")]
    pub sample: Option<usize>,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// Id of the backup or `latest`, or a dump: a file that is there, or - for standard input
    #[arg(value_name = "ID|FILE")]
    pub source: String,
    /// The table: users, billing."Invoice Lines"
    #[arg(short, long, value_name = "TABLE")]
    pub table: String,
    /// How rows are written
    #[arg(long, value_enum)]
    pub format: FormatArg,
    /// Only rows in which this column has this value (repeatable: all must hold)
    #[arg(long = "where-column", value_name = "COLUMN=VALUE")]
    pub where_columns: Vec<String>,
    /// Only rows in which this column is null (repeatable)
    #[arg(long = "where-null", value_name = "COLUMN")]
    pub where_nulls: Vec<String>,
    /// File to write; - is standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(long)]
    pub force: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Id of the backup, `latest`, a plain dump (.sql, .gz, .zst), or - for standard input
    #[arg(value_name = "ID|FILE", default_value = "latest")]
    pub what: String,
    /// Database to restore into: a URL, or a name on the server of the configured database
    #[arg(long, value_name = "URL|NAME")]
    pub into: String,
    /// File that holds the password of --into
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Restore beside the database and put the copy into its place; the old one is kept under another name
    #[arg(long)]
    pub replace: bool,
    /// Merge rows into tables that are there, by primary key; without --table into every table that has one
    #[arg(long, conflicts_with_all = ["data_only", "replace", "no_owner", "no_privileges", "create_missing_roles", "no_database_settings", "force_version", "force_locale", "accept_no_end_marker", "no_compare", "dump_time_zone", "jobs"], help_heading = "Single tables")]
    pub upsert: bool,
    /// Bring rows into tables that are there and empty
    #[arg(
        long,
        requires = "tables", conflicts_with_all = ["replace", "no_owner", "no_privileges", "create_missing_roles", "no_database_settings", "force_version", "force_locale", "accept_no_end_marker", "no_compare", "dump_time_zone", "jobs"],
        help_heading = "Single tables"
    )]
    pub data_only: bool,
    /// Table that comes back, with structure and rows, its partitions too; only its rows with --upsert or --data-only
    /// (repeatable): orders, billing."Invoice Lines"
    #[arg(
        short = 't',
        long = "table",
        value_name = "TABLE",
        help_heading = "Single tables"
    )]
    pub tables: Vec<String>,
    /// Schema that is called otherwise in the target; made where it is missing, unless --upsert or --data-only is given
    /// (repeatable)
    #[arg(
        long = "schema-map",
        value_name = "FROM=TO",
        help_heading = "Single tables"
    )]
    pub schema_map: Vec<String>,
    /// With --table, --upsert or --data-only: do all of it, tell what it did, and roll it back
    #[arg(long, help_heading = "Single tables")]
    pub dry_run: bool,
    /// Restore as a superuser: whatever the dump's SQL says then runs with those powers
    #[arg(long)]
    pub allow_superuser: bool,
    /// Leave the dump's owners out: everything belongs to the role that restores
    #[arg(long)]
    pub no_owner: bool,
    /// Leave GRANT and REVOKE out
    #[arg(long)]
    pub no_privileges: bool,
    /// Make roles that the dump refers to and the server lacks, without login
    #[arg(long)]
    pub create_missing_roles: bool,
    /// Leave the database's owner, rights, settings and comment as they are
    #[arg(long)]
    pub no_database_settings: bool,
    /// Restore into a server that is older than the dump's
    #[arg(long)]
    pub force_version: bool,
    /// Create the database in locale C where the server lacks the dump's locale
    #[arg(long)]
    pub force_locale: bool,
    /// Make what a dump of a hosting service leaves to it; a backup made with a preset says so itself
    #[arg(long, value_enum, value_name = "SERVICE", conflicts_with_all = ["tables", "upsert", "data_only"])]
    pub preset: Option<PresetArg>,
    /// Restore a dump without end marker, as `supabase db dump` writes it
    #[arg(long)]
    pub accept_no_end_marker: bool,
    /// Do not compare afterwards: exit code 0 then says less
    #[arg(long)]
    pub no_compare: bool,
    /// Sessions that restore a backup at once into a fresh database [default: one for each core; 1 for small backups]
    #[arg(long, value_name = "N")]
    pub jobs: Option<std::num::NonZeroU8>,
    /// End a restore in which for so long no byte moved, no statement ended and the server did not work; 0 means never
    /// [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub stall_timeout: Option<String>,
    /// End a restore that waits for another session's lock for so long [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub lock_wait_timeout: Option<String>,
    /// Time zone that a plain dump was written in, for the comparison [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub dump_time_zone: Option<String>,
    /// Folder of the PostgreSQL client programs
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// A COPY block that psql can replay
    Sql,
    /// Comma-separated values with a header
    Csv,
    /// One JSON object a line
    Jsonl,
}

/// Flags of `drill`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: String,
    /// Server to restore into [default: `drill.url` of the configuration, else a throw-away one on this machine]
    #[arg(
        long,
        value_name = "URL",
        env = "PGKEEP_DRILL_URL",
        hide_env_values = true
    )]
    pub drill_url: Option<String>,
    /// Extension that the server may lack (repeatable), beside those of the configuration
    #[arg(long = "skip-extension", value_name = "NAME")]
    pub skip_extensions: Vec<String>,
    /// Restore on that server as a superuser: whatever the dump's SQL says then runs with those powers
    #[arg(long)]
    pub allow_superuser: bool,
    /// Write the report as one page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Folder of the PostgreSQL programs
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The dump; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Table that must be in the dump: users, billing."Invoice Lines", or users=100 for at least 100 rows (repeatable)
    #[arg(long = "require", value_name = "TABLE")]
    pub required: Vec<String>,
}

/// Flags of `retention`.
#[derive(Debug, Args)]
pub struct RetentionArgs {
    /// The rules; none at all means the policy of the configuration.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// File with one RFC 3339 time per line, blank lines and # comments aside; - is standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "simulate",
        help_heading = "Times"
    )]
    pub from: Option<PathBuf>,
    /// Cron expression of five fields, minute to weekday, whose times are judged instead
    #[arg(long, value_name = "CRON", help_heading = "Times")]
    pub simulate: Option<String>,
    /// How long the simulated schedule has been running, up to now
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "2y",
        help_heading = "Times"
    )]
    pub length: String,
    /// Look from this RFC 3339 time [default: the present]
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    pub now: Option<String>,
}

/// A retention policy on the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy [default: the one of the configuration]")]
pub struct PolicyArgs {
    /// Keep the newest so many
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the newest of each of so many hours
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Keep the newest of each of so many days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Keep the newest of each of so many ISO weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Keep the newest of each of so many months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// Keep the newest of each of so many years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// Keep all that are younger, measured to the newest backup: 30d, 4 weeks, 1 year
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<String>,
    /// IANA name of the zone that days, weeks, months and years are counted in [default: UTC, or the configuration's]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
}

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Write a commented configuration file
    Init {
        /// File to write; - is standard output
        #[arg(value_name = "FILE", default_value = "pgkeep.yaml")]
        file: PathBuf,
        /// Replace a file that is there already
        #[arg(long)]
        force: bool,
    },
    /// Print the configuration in force, with every default and without secrets
    Show,
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder to leave the demo's backups in [default: a temporary one that is removed]
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
}

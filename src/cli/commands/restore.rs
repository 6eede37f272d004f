//! `pgkeep restore` on the terminal: a whole dump, single tables, or rows of single tables.

pub(super) mod text;

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::{PresetArg, StorageArgs};
use crate::cli::log::{self, Ended};
use crate::cli::output::Output;
use crate::cli::progress::Shown;
use crate::cli::steps;
use pgkeep_core::context::Context;
use pgkeep_core::op::restore::{Outcome, run as restore};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::restore::{Overrides, request};
use pgkeep_model::failure::Result;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep restore --into shop_restored    the latest backup, on the same server
  pgkeep restore shop-20260102T030405Z-7f3a --into shop --replace
  pgkeep restore dump.sql.gz --into postgresql:///scratch
  pg_dump shop | pgkeep restore - --into postgresql:///copy
  pgkeep restore latest --into shop --table orders --schema-map public=rescued
  pgkeep restore latest --into shop --upsert --table orders --dry-run

A missing database is created. An existing one must be empty, unless --replace, --table, --upsert or --data-only is given. \
A restore that fails leaves the target unchanged.

--table restores single tables into a database that has others: rows, sequences, keys, indexes, triggers, owner and rights, \
and the types and functions that they need. A table that exists already is refused; --schema-map puts the copy in another \
schema, without a lock on the existing table. Foreign keys and triggers that need something missing are left out and listed.

--upsert restores deleted and changed rows in a database that is in use: missing rows are inserted, changed rows are \
updated, and rows that are not in the backup stay. --data-only fills empty tables. Both run in one transaction and compare \
before its COMMIT. Other writers of these tables wait for it, and triggers do not fire. --dry-run does all of it, and rolls \
it back.

Exit code 0 means that every table has the rows that were dumped. 23: the stored dump is damaged, or a table differs. 25: \
something blocks the restore, and nothing was changed.";

/// Flags of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Id of a backup, `latest`, the file of a plain dump (.sql, .gz, .zst), or - for standard input
    #[arg(value_name = "ID|FILE", default_value = "latest")]
    pub what: String,
    /// Target: a database on the server of the configured one, or a URL
    #[arg(long, value_name = "URL|NAME")]
    pub into: String,
    /// File that holds the password of --into
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Replace an existing database; the old one is kept under another name
    #[arg(long)]
    pub replace: bool,
    /// Replace it also by a backup that holds only some rows of its tables (see `limits`)
    #[arg(long, requires = "replace")]
    pub accept_limited: bool,
    /// Merge rows into existing tables, by primary key; without --table into every table that has one
    #[arg(long, conflicts_with_all = ["data_only", "replace", "no_owner", "no_privileges", "create_missing_roles", "skip_extensions", "no_tablespaces", "no_database_settings", "force_version", "force_locale", "accept_no_end_marker", "no_compare", "dump_time_zone", "jobs"], help_heading = "Single tables")]
    pub upsert: bool,
    /// Restore rows into existing, empty tables
    #[arg(
        long,
        requires = "tables", conflicts_with_all = ["replace", "no_owner", "no_privileges", "create_missing_roles", "skip_extensions", "no_tablespaces", "no_database_settings", "force_version", "force_locale", "accept_no_end_marker", "no_compare", "dump_time_zone", "jobs"],
        help_heading = "Single tables"
    )]
    pub data_only: bool,
    /// Restore only this table, with its partitions (repeatable)
    ///
    /// With --upsert or --data-only only its rows, else its structure as well. Examples: orders, billing."Invoice Lines".
    #[arg(
        short = 't',
        long = "table",
        value_name = "TABLE",
        help_heading = "Single tables"
    )]
    pub tables: Vec<String>,
    /// Restore the tables of one schema into another one (repeatable)
    ///
    /// A missing schema is created, unless --upsert or --data-only is given.
    #[arg(
        long = "schema-map",
        value_name = "FROM=TO",
        help_heading = "Single tables"
    )]
    pub schema_map: Vec<String>,
    /// Do all of it, report it, and roll it back; needs --table, --upsert or --data-only
    #[arg(long, help_heading = "Single tables")]
    pub dry_run: bool,
    /// Run the SQL of the dump as a superuser [default: with a new role without such rights]
    #[arg(long)]
    pub allow_superuser: bool,
    /// Leave out owners: everything belongs to the role that restores
    #[arg(long)]
    pub no_owner: bool,
    /// Leave out GRANT and REVOKE
    #[arg(long)]
    pub no_privileges: bool,
    /// Create the roles that the dump needs and the server lacks, without login
    #[arg(long)]
    pub create_missing_roles: bool,
    /// Leave out this extension, with the rows of its own tables (repeatable)
    #[arg(long = "skip-extension", value_name = "NAME")]
    pub skip_extensions: Vec<String>,
    /// Use only the tablespace of the database
    #[arg(long)]
    pub no_tablespaces: bool,
    /// Do not change owner, rights, settings and comment of the database
    #[arg(long)]
    pub no_database_settings: bool,
    /// Allow a server that is older than that of the dump
    #[arg(long)]
    pub force_version: bool,
    /// Create the database in locale C if the server lacks the locale of the dump
    #[arg(long)]
    pub force_locale: bool,
    /// Create what a hosting service has and its dump lacks [default: the preset of the backup]
    #[arg(long, value_enum, value_name = "SERVICE", conflicts_with_all = ["tables", "upsert", "data_only"])]
    pub preset: Option<PresetArg>,
    /// Accept a dump without end marker, such as that of `supabase db dump`
    #[arg(long)]
    pub accept_no_end_marker: bool,
    /// Do not compare afterwards: exit code 0 then proves less
    #[arg(long)]
    pub no_compare: bool,
    /// Sessions that restore into a new database at once [default: one for each core; 1 for small backups]
    #[arg(long, value_name = "N")]
    pub jobs: Option<std::num::NonZeroU8>,
    /// Stop a restore that has made no progress for this long; 0 means never [default: 10m]
    ///
    /// A server that works on a statement makes progress.
    #[arg(long, value_name = "TIME")]
    pub stall_timeout: Option<String>,
    /// Stop a restore that waits for the lock of another session for this long [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub lock_wait_timeout: Option<String>,
    /// Time zone of a plain dump, for the comparison [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub dump_time_zone: Option<String>,
    /// Folder of the PostgreSQL programs
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&RestoreArgs> for Overrides {
    fn from(args: &RestoreArgs) -> Self {
        Self {
            what: args.what.clone(),
            into: args.into.clone(),
            password_file: args.password_file.clone(),
            replace: args.replace,
            accept_limited: args.accept_limited,
            upsert: args.upsert,
            data_only: args.data_only,
            tables: args.tables.clone(),
            schema_map: args.schema_map.clone(),
            dry_run: args.dry_run,
            allow_superuser: args.allow_superuser,
            no_owner: args.no_owner,
            no_privileges: args.no_privileges,
            create_missing_roles: args.create_missing_roles,
            skip_extensions: args.skip_extensions.clone(),
            no_tablespaces: args.no_tablespaces,
            no_database_settings: args.no_database_settings,
            force_version: args.force_version,
            force_locale: args.force_locale,
            preset: args.preset.map(Into::into),
            accept_no_end_marker: args.accept_no_end_marker,
            no_compare: args.no_compare,
            jobs: args.jobs,
            stall_timeout: args.stall_timeout.clone(),
            lock_wait_timeout: args.lock_wait_timeout.clone(),
            dump_time_zone: args.dump_time_zone.clone(),
            bin_dir: args.bin_dir.clone(),
            storage: (&args.storage).into(),
        }
    }
}

pub(super) async fn run(
    args: &RestoreArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup)?;
    let context = &setup.telling(context, &(&args.storage).into())?;
    let shown = Shown::new("restore", output);
    let outcome = restore(&request, context, &shown).await;
    let ended = match &outcome {
        Outcome::Whole(report) => Ended {
            database: report.database.as_deref(),
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
        Outcome::Tables(report) => Ended {
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
        Outcome::Rows(report) => Ended {
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
    };
    log::ended(&Ended {
        stage: "restore",
        failure: outcome.failure(),
        ..ended
    });
    output.step_summary(|| steps::of_restored(&outcome));
    output.summary(&outcome, outcome.warnings(), || text::of(&outcome));
    outcome.failure().cloned().map_or(Ok(()), Err)
}

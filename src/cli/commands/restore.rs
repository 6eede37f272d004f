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
    #[arg(long, conflicts_with_all = ["data_only", "replace", "no_owner", "no_privileges", "create_missing_roles", "skip_extensions", "no_tablespaces", "no_database_settings", "force_version", "force_locale", "accept_no_end_marker", "no_compare", "dump_time_zone", "jobs"], help_heading = "Single tables")]
    pub upsert: bool,
    /// Bring rows into tables that are there and empty
    #[arg(
        long,
        requires = "tables", conflicts_with_all = ["replace", "no_owner", "no_privileges", "create_missing_roles", "skip_extensions", "no_tablespaces", "no_database_settings", "force_version", "force_locale", "accept_no_end_marker", "no_compare", "dump_time_zone", "jobs"],
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
    /// Let the dump's SQL run with a superuser's powers; else a role without powers is made for it
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
    /// Extension that is left out, with the rows of its own tables (repeatable)
    #[arg(long = "skip-extension", value_name = "NAME")]
    pub skip_extensions: Vec<String>,
    /// Put everything into the database's own tablespace
    #[arg(long)]
    pub no_tablespaces: bool,
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

impl From<&RestoreArgs> for Overrides {
    fn from(args: &RestoreArgs) -> Self {
        Self {
            what: args.what.clone(),
            into: args.into.clone(),
            password_file: args.password_file.clone(),
            replace: args.replace,
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

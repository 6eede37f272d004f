//! Every command is a file here, with its flags, its call and its words; this one lists them.

mod accept;
mod backup;
mod check;
mod config;
mod demo;
mod deploy;
mod diff;
mod drill;
mod extract;
mod fleet;
mod get;
mod guard;
mod inspect;
mod keys;
mod list;
mod list_databases;
mod pin;
mod prune;
mod restore;
mod retention;
mod serve;
mod show;
mod status;
mod sync;
mod verify;

use clap::{CommandFactory, Subcommand};

use super::Cli;
use super::output::Output;
use super::pages::{self, CompletionsArgs, ManArgs};
use accept::AcceptArgs;
use backup::BackupCommand;
use check::CheckArgs;
use config::ConfigCommand;
use demo::DemoArgs;
use deploy::DeployCommand;
use diff::DiffArgs;
use drill::DrillArgs;
use extract::ExtractArgs;
use get::GetArgs;
use guard::GuardArgs;
use inspect::InspectArgs;
use keys::KeysCommand;
use list::ListArgs;
use list_databases::ListDatabasesArgs;
use pgkeep_core::context::Context;
use pgkeep_core::setup::Setup;
use pgkeep_model::failure::Result;
use pin::{PinArgs, UnpinArgs};
use prune::PruneArgs;
use restore::RestoreArgs;
use retention::RetentionArgs;
use serve::ServeArgs;
use show::ShowArgs;
use status::StatusArgs;
use sync::SyncArgs;
use verify::VerifyArgs;

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a backup, and prove that it is complete
    #[command(after_long_help = backup::AFTER_HELP)]
    Backup(Box<BackupCommand>),
    /// List the stored backups
    List(ListArgs),
    /// List the databases of the configuration, for scripts that share them out
    #[command(after_long_help = list_databases::AFTER_HELP)]
    ListDatabases(ListDatabasesArgs),
    /// Show one backup, and how to restore it without pgkeep
    Show(ShowArgs),
    /// Download a backup, and check its SHA-256 on the way
    Get(GetArgs),
    /// Report whether backups are fresh, their sizes, and the last runs
    #[command(after_long_help = status::AFTER_HELP)]
    Status(StatusArgs),
    /// Remove the backups that the retention policy does not keep
    #[command(after_long_help = prune::AFTER_HELP)]
    Prune(PruneArgs),
    /// Bring every kept backup to each storage, and remove what dead runs left
    #[command(after_long_help = sync::AFTER_HELP)]
    Sync(SyncArgs),
    /// Keep a backup until it is unpinned
    Pin(PinArgs),
    /// Let the retention policy decide about a backup again
    Unpin(UnpinArgs),
    /// Make a backup that is held the new normal
    #[command(after_long_help = accept::AFTER_HELP)]
    Accept(AcceptArgs),
    /// Read stored backups, and prove that every byte is unchanged
    #[command(after_long_help = verify::AFTER_HELP)]
    Verify(VerifyArgs),
    /// Show what changed between two backups, or since a backup
    #[command(after_long_help = diff::AFTER_HELP)]
    Diff(Box<DiffArgs>),
    /// Print the rows of one table of a backup or a dump, without a server
    #[command(after_long_help = extract::AFTER_HELP)]
    Extract(ExtractArgs),
    /// Restore a backup or a plain dump, and compare every table with it
    #[command(after_long_help = restore::AFTER_HELP)]
    Restore(Box<RestoreArgs>),
    /// Test the set-up: database, storages, programs; nothing is changed
    #[command(after_long_help = check::AFTER_HELP)]
    Check(CheckArgs),
    /// Run a command only after a proven backup, with a rollback if it fails
    #[command(after_long_help = guard::AFTER_HELP, mut_args(guard::without_selection))]
    Guard(Box<GuardArgs>),
    /// Prove that a backup can be restored: restore, compare, drop
    #[command(after_long_help = drill::AFTER_HELP)]
    Drill(DrillArgs),
    /// Check any plain dump: is it complete, which tables and rows are in it?
    #[command(after_long_help = inspect::AFTER_HELP)]
    Inspect(InspectArgs),
    /// Show what a retention policy would keep; storages are not read
    #[command(after_long_help = retention::AFTER_HELP)]
    Retention(RetentionArgs),
    /// Keys of encrypted backups: make one, prove one, list which are needed
    #[command(subcommand, after_long_help = keys::AFTER_HELP)]
    Keys(KeysCommand),
    /// Run the schedules, with a page and an HTTP API
    #[command(after_long_help = serve::AFTER_HELP)]
    Serve(ServeArgs),
    /// Write, show and describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Run pgkeep on a schedule: cron, systemd, Kubernetes, GitHub Actions
    #[command(subcommand, after_long_help = deploy::AFTER_HELP)]
    Deploy(DeployCommand),
    /// Show everything once, with a throw-away PostgreSQL and a sample database
    Demo(DemoArgs),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual, or write a page for each command
    Man(ManArgs),
}

impl Command {
    /// Carries out a command that needs no runtime, such as one that reads a file; none for the others.
    pub(super) fn run_at_once(
        &self,
        setup: &Setup,
        output: &Output,
        context: &Context,
    ) -> Option<Result<()>> {
        match self {
            Self::Inspect(args) => Some(inspect::run(args, setup, output)),
            Self::Retention(args) => Some(retention::run(args, setup, output, context)),
            Self::ListDatabases(args) => Some(list_databases::run(args, setup, output)),
            Self::Config(command) => Some(config::run(command, setup, output, context)),
            Self::Completions(args) => {
                pages::completions(args, Cli::command(), output);
                Some(Ok(()))
            }
            Self::Man(args) => Some(pages::man(args, Cli::command(), output)),
            _ => None,
        }
    }

    /// Carries out any of the others.
    pub(super) async fn run(
        &self,
        setup: &Setup,
        output: &Output,
        context: &Context,
    ) -> Result<()> {
        match self {
            Self::Backup(args) => backup::run(args, setup, output, context).await,
            Self::List(args) => list::run(args, setup, output, context).await,
            Self::Show(args) => show::run(args, setup, output, context).await,
            Self::Get(args) => get::run(args, setup, output, context).await,
            Self::Diff(args) => diff::run(args, setup, output, context).await,
            Self::Extract(args) => extract::run(args, setup, output, context).await,
            Self::Drill(args) => drill::run(args, setup, output, context).await,
            Self::Restore(args) => restore::run(args, setup, output, context).await,
            Self::Check(args) => check::run(args, setup, output, context).await,
            Self::Guard(args) => guard::run(args, setup, output, context).await,
            Self::Verify(args) => verify::run(args, setup, output, context).await,
            Self::Status(args) => status::run(args, setup, output, context).await,
            Self::Prune(args) => prune::run(args, setup, output, context).await,
            Self::Sync(args) => sync::run(args, setup, output, context).await,
            Self::Pin(args) => pin::run(args, setup, output, context).await,
            Self::Unpin(args) => pin::run_unpin(args, setup, output, context).await,
            Self::Accept(args) => accept::run(args, setup, output, context).await,
            Self::Keys(command) => keys::run(command, setup, output, context).await,
            Self::Serve(args) => serve::run(args, setup, output, context).await,
            Self::Demo(args) => demo::run(args, setup, output, context).await,
            Self::Deploy(command) => deploy::run(command, setup, output, context).await,
            Self::Inspect(_)
            | Self::Retention(_)
            | Self::ListDatabases(_)
            | Self::Config(_)
            | Self::Completions(_)
            | Self::Man(_) => Ok(()),
        }
    }

    /// Returns the verb of a run that is tracked, and the backup that it is asked to work on.
    pub(super) fn tracked(&self) -> Option<(&'static str, Option<&str>)> {
        match self {
            Self::Backup(_) => Some(("backup", None)),
            Self::Guard(_) => Some(("guard", None)),
            Self::Drill(args) => Some(("drill", Some(&args.id))),
            Self::Verify(args) => Some(("verify", args.id.as_deref())),
            Self::Restore(args) => Some(("restore", Some(&args.what))),
            _ => None,
        }
    }

    /// Whether it cleans up after itself when it is stopped; the others have nothing to lose.
    pub(super) fn cleans_up(&self) -> bool {
        match self {
            Self::Prune(args) => !args.dry_run,
            Self::Sync(args) => !args.dry_run,
            Self::Backup(_)
            | Self::Check(_)
            | Self::Guard(_)
            | Self::Restore(_)
            | Self::Drill(_)
            | Self::Serve(_)
            | Self::Demo(_) => true,
            _ => false,
        }
    }
}

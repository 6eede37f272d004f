//! `pgkeep keys` on the terminal.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, counted};
use pgkeep_core::context::Context;
use pgkeep_core::op::keys::generate::{self, run as generate};
use pgkeep_core::op::keys::list::{Keys, Set, run as list};
use pgkeep_core::op::keys::prove::{Report, run as prove};
use pgkeep_core::op::prune::worst;
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::prove::{
    Overrides, generate as request_to_generate, list as request_to_list, prove as requests_to_prove,
};
use pgkeep_model::failure::{Failure, Result};
use pgkeep_model::freshness::age;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep keys generate --output backup-key.txt
  pgkeep keys prove --identity backup-key.txt --storage s3://acme-backups/pg
  pgkeep keys list

Backups are encrypted with age (https://age-encryption.org). The host that makes them has public keys only, which stand \
under `encryption.recipients` in the configuration. The private keys stay elsewhere: whoever restores needs one of them, \
and without any of them the backups are lost.";

/// Commands about keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key pair: the private key in a new file, the public key on the terminal
    Generate(GenerateArgs),
    /// Show that a private key opens the latest backup, and record it
    Prove(ProveArgs),
    /// List which backups need which key, and when a key was last proven
    List(ListArgs),
}

/// Flags of `keys generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// File for the private key; it must not exist
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Flags of `keys prove`.
///
/// It reads the header and the first chunk of a backup, so a key that may only read the storage is enough. The record \
/// that it leaves is what `status` and `check` ask for.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Id of the backup to open [default: the latest of each database]
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// Only record that another host opened the backup ID, where that host may not write to the storage
    #[arg(long, requires = "id", conflicts_with = "identities")]
    pub told: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// Flags of `keys list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

pub(super) async fn run(
    command: &KeysCommand,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    match command {
        KeysCommand::Generate(args) => run_generate(args, setup, output, context),
        KeysCommand::Prove(args) => run_prove(args, setup, output, context).await,
        KeysCommand::List(args) => run_list(args, setup, output, context).await,
    }
}

fn run_generate(
    args: &GenerateArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request_to_generate(args.output.clone(), setup)?;
    let report = generate(&request, context.clock.now())?;
    output.document(&report, || made(&report));
    Ok(())
}

fn made(report: &generate::Report) -> String {
    let generate::Report { file, recipient } = report;
    format!(
        "{file}: a private key, for you alone\n  public key: {recipient}\n\n\
         In the configuration of the host that makes backups:\n\
         \x20 defaults:\n\
         \x20   encryption:\n\
         \x20     recipients:\n\
         \x20       - {recipient}\n\n\
         Without the private key nobody can restore the backups. Keep a copy of {file} where the\n\
         backups are not, make a second key that somebody else keeps, and remove the file from\n\
         this host if it is the one that makes backups.\n"
    )
}

#[derive(Serialize)]
struct Proven<'a> {
    databases: &'a [Report],
}

async fn run_prove(
    args: &ProveArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let overrides = Overrides {
        id: args.id.clone(),
        is_told: args.told,
        storage: (&args.storage).into(),
    };
    let requests = requests_to_prove(&overrides, setup, context.clock.now()).await?;
    let (mut reports, mut failures): (Vec<Report>, Vec<Failure>) = (Vec::new(), Vec::new());
    for request in requests {
        match prove(request, context).await {
            Ok(mut report) => {
                failures.extend(report.failure.take());
                reports.push(report);
            }
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() || !reports.is_empty() {
        let document = Proven {
            databases: &reports,
        };
        output.report(&document, || reports.iter().map(opened).collect());
    }
    for report in &reports {
        for warning in &report.warnings {
            output.warning(warning);
        }
        for set in &report.others {
            let backups = counted(set.backups, "backup", "backups");
            output.warning(&format!(
                "{}: {backups} with another key, not proven here: {}; `pgkeep keys prove {}` tries the newest of them",
                report.database,
                set.in_words(),
                set.newest
            ));
        }
    }
    worst(failures).map_or(Ok(()), Err)
}

fn opened(report: &Report) -> String {
    let by = match (report.opened_by.as_slice(), &report.storage) {
        (_, None) => "opened by another host".to_owned(),
        ([], Some(storage)) => format!("opened, from {storage}"),
        (keys, Some(storage)) => {
            format!("opened by the key of {}, from {storage}", keys.join(", "))
        }
    };
    let recorded = match report.recorded_in.as_slice() {
        [] => String::new(),
        names => format!("  recorded in {}\n", names.join(", ")),
    };
    format!("{}: {by}\n{recorded}", report.backup_id)
}

async fn run_list(
    args: &ListArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let now = context.clock.now();
    let overrides = Overrides {
        storage: (&args.storage).into(),
        ..Overrides::default()
    };
    let report = list(request_to_list(&overrides, setup, now)?).await?;
    let since = |at: jiff::Timestamp| age(now.as_second() - at.as_second());
    output.document(&report, || {
        let databases = report.databases.iter();
        databases
            .map(|keys| output.screen.fitted(&needed(keys, &since)))
            .collect()
    });
    if !output.json {
        for keys in &report.databases {
            for warning in &keys.warnings {
                output.warning(&format!("{}: {warning}", keys.database));
            }
        }
    }
    report.failure.map_or(Ok(()), Err)
}

fn needed(keys: &Keys, since: &dyn Fn(jiff::Timestamp) -> String) -> String {
    let mut text = format!("{}\n", keys.database);
    for Set { set, opens } in &keys.sets {
        let proven = match set.proven_at {
            Some(at) => format!("proven {} ago", since(at)),
            None => "never proven".to_owned(),
        };
        let opens = match opens {
            Some(true) => ", opened by a key at hand",
            Some(false) => ", no key at hand opens them",
            None => "",
        };
        let backups = counted(set.backups, "backup", "backups");
        text += &format!("  {backups}, newest {}, {proven}{opens}\n", set.newest);
        for recipient in set.recipients.iter().flatten() {
            text += &format!("    {recipient}\n");
        }
    }
    if keys.plain > 0 {
        let backups = counted(keys.plain, "backup is", "backups are");
        text += &format!("  {backups} not encrypted\n");
    }
    text
}

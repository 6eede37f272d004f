//! `pgkeep list-databases`: the databases of the configuration, for scripts that share them out.

use clap::Args;
use serde::Serialize;

use crate::cli::output::Output;
use crate::cli::screen::Screen;
use crate::cli::table::Table;
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::fleet::{Listed, list};
use pgkeep_model::failure::Result;

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep list-databases
  pgkeep list-databases --json | jq -c '[.databases[].name]'   for the matrix of a workflow

Neither a server nor a storage is asked.";

/// Flags of `list-databases`.
#[derive(Debug, Args)]
pub struct ListDatabasesArgs {
    /// Only this part of the databases, such as 2/8, the second of eight parts
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,
}

#[derive(Serialize)]
struct Report {
    databases: Vec<Listed>,
}

pub(super) fn run(args: &ListDatabasesArgs, setup: &Setup, output: &Output) -> Result<()> {
    let report = Report {
        databases: list(args.shard.as_deref(), setup)?,
    };
    output.document(&report, || text(&report, output.screen));
    Ok(())
}

fn text(report: &Report, screen: Screen) -> String {
    if report.databases.is_empty() {
        return "no databases\n".to_owned();
    }
    let mut table = Table::new(&["name", "server", "schedule", "zone"]).texts(&[1]);
    for database in &report.databases {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.add_row([
            database.name.clone(),
            or_dash(&database.server),
            or_dash(&database.schedule),
            database.timezone.clone(),
        ]);
    }
    table.shown(screen)
}

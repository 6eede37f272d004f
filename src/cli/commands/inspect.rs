//! `pgkeep inspect` on the terminal.

use std::path::PathBuf;

use clap::Args;

use crate::cli::output::{Output, bytes, counted, dumped_tables};
use crate::cli::screen::Screen;
use crate::cli::table::Table as Rows;
use pgkeep_core::op::inspect::{Report, run as inspect};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::inspect::{Overrides, request};
use pgkeep_model::failure::{Kind, Result};
use pgkeep_model::scan::{Scan, SectionName, Table};

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep inspect backup.sql.gz --require users
  pgkeep inspect backup.sql.gz --require 'billing.\"Invoice Lines\"'
  pg_dump shop | pgkeep inspect - --json

inspect reads plain, gzip and zstd dumps, whatever the file is called.

Exit code 21: the dump is not complete, or a required table is missing.";

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The dump; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Table that must be in the dump, such as users, or users=100 for at least 100 rows (repeatable)
    #[arg(long = "require", value_name = "TABLE")]
    pub required: Vec<String>,
    /// File of private keys of age that open an encrypted dump (repeatable) [default: PGKEEP_IDENTITY_FILE]
    #[arg(short = 'i', long = "identity", value_name = "FILE")]
    pub identities: Vec<PathBuf>,
}

impl From<&InspectArgs> for Overrides {
    fn from(args: &InspectArgs) -> Self {
        Self {
            file: args.file.clone(),
            required: args.required.clone(),
            identities: args.identities.clone(),
        }
    }
}

pub(super) fn run(args: &InspectArgs, setup: &Setup, output: &Output) -> Result<()> {
    let report = inspect(&request(&args.into(), setup)?);
    output.document(&report, || match &report.failure {
        // A file that cannot be opened is neither complete nor incomplete.
        Some(failure) if failure.kind == Kind::Usage => String::new(),
        _ => text(&report, output.screen),
    });
    if !output.json {
        report
            .scan
            .warnings
            .iter()
            .for_each(|warning| output.warning(&place(&warning.message, warning.offset)));
    }
    match report.failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn place(message: &str, offset: Option<u64>) -> String {
    offset.map_or_else(
        || message.to_owned(),
        |offset| format!("{message} (byte {offset})"),
    )
}

pub(super) fn text(report: &Report, screen: Screen) -> String {
    let scan = &report.scan;
    let verdict = if scan.complete {
        "complete"
    } else {
        "NOT complete"
    };
    let head = format!(
        "{}: {verdict}, {} of SQL{}\n",
        report.file,
        bytes(scan.bytes),
        made_by(scan)
    );
    let mut out = screen.fitted(&head);
    if !scan.tables.is_empty() {
        out += &format!("\n{}", table_of(&scan.tables).shown(screen));
    }
    let mut sums = vec![
        counted(scan.tables.len() as u64, "table", "tables"),
        counted(scan.rows(), "row", "rows"),
    ];
    if scan.large_objects > 0 {
        sums.push(counted(scan.large_objects, "large object", "large objects"));
    }
    let sums = format!("\n{}{}\n", sums.join(", "), sections(scan));
    out += &screen.fitted(&sums);
    for required in &report.required_tables {
        let found = required.problem.as_deref().unwrap_or("found");
        out += &screen.fitted(&format!("required: {} {found}\n", required.table));
    }
    out
}

fn made_by(scan: &Scan) -> String {
    match (&scan.pg_dump_version, &scan.server_version) {
        (Some(dump), Some(server)) => format!(", by pg_dump {dump} from server {server}"),
        (Some(dump), None) => format!(", by pg_dump {dump}"),
        (None, _) => String::new(),
    }
}

fn sections(scan: &Scan) -> String {
    let parts: Vec<String> = scan
        .sections
        .iter()
        .map(|section| {
            let name = match section.name {
                SectionName::PreData => "pre-data",
                SectionName::Data => "data",
                SectionName::PostData => "post-data",
            };
            format!("{name} {}", bytes(section.block.length))
        })
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!("; {}", parts.join(", "))
    }
}

fn table_of(tables: &[Table]) -> Rows {
    dumped_tables(tables.iter().map(|table| {
        let in_database = table.full_name();
        let name = match &table.database {
            Some(database) => format!("{database}: {in_database}"),
            None => in_database.to_string(),
        };
        (name, table.kind, table.rows, table.bytes, table.digest)
    }))
}

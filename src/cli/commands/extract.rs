//! `pgkeep extract` on the terminal.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes, number};
use crate::cli::progress::Shown;
use pgkeep_core::context::Context;
use pgkeep_core::op::extract::{Report, RowFormat, run as extract};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::extract::{Overrides, request};
use pgkeep_core::stream::pipeline::Progress;
use pgkeep_model::failure::Result;

pub(super) const AFTER_HELP: &str = "\
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

/// Flags of `extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// Id of the backup or `latest`, or a dump: a file that is there, or - for standard input
    #[arg(value_name = "ID|FILE")]
    pub source: String,
    /// The table: users, billing."Invoice Lines"
    #[arg(short, long, value_name = "TABLE")]
    pub table: String,
    /// How rows are written [default: as the file's name ends: .sql, .csv, .jsonl]
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
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

impl From<&ExtractArgs> for Overrides {
    fn from(args: &ExtractArgs) -> Self {
        Self {
            source: args.source.clone(),
            table: args.table.clone(),
            format: args.format.map(|format| match format {
                FormatArg::Sql => RowFormat::Sql,
                FormatArg::Csv => RowFormat::Csv,
                FormatArg::Jsonl => RowFormat::Jsonl,
            }),
            where_columns: args.where_columns.clone(),
            where_nulls: args.where_nulls.clone(),
            output: args.output.clone(),
            force: args.force,
            storage: (&args.storage).into(),
        }
    }
}

pub(super) async fn run(
    args: &ExtractArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup)?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::new(&args.source, output).beside_data();
    shown.reading("extract", &progress);
    let report = extract(request, context, &progress).await;
    shown.finish();
    let report = report?;
    for warning in &report.warnings {
        output.warning(warning);
    }
    // Without a file, standard output is the rows.
    if report.file.is_some() {
        output.document(&report, || text(&report));
    }
    report.failure.map_or(Ok(()), Err)
}

fn text(report: &Report) -> String {
    let of = if report.rows == report.table_rows {
        String::new()
    } else {
        format!(" of {}", number(report.table_rows))
    };
    format!(
        "{}: {}{of} rows of {} from {}, {} read\n",
        report.file.as_deref().unwrap_or_default(),
        number(report.rows),
        report.table,
        report.source,
        bytes(report.read_bytes)
    )
}

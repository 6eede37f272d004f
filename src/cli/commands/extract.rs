//! `pgkeep extract` on the terminal.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes, counted, number};
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
  pgkeep extract latest --table orders --where-column customer_id=42 --format jsonl
  pgkeep extract latest --table 'billing.\"Invoice Lines\"' -o lines.csv
  pgkeep extract shop.sql.gz --table users --format sql | psql -X -d shop

Of a stored backup, only the bytes of this table are read. One row is held in memory at a time. --where-column compares \
values exactly as the dump writes them.

csv is RFC 4180 in UTF-8: an empty field is null, and \"\" is an empty text. jsonl has numbers, booleans and json as in \
JSON, bytea in hex, and everything else as text. sql is one transaction for psql.

Exit code 10: no such backup or table. 23: the rows are not those of the manifest; do not use what was printed.";

/// Flags of `extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// Id of a backup, `latest`, the file of a dump, or - for standard input
    #[arg(value_name = "ID|FILE")]
    pub source: String,
    /// The table, such as users or billing."Invoice Lines"
    #[arg(short, long, value_name = "TABLE")]
    pub table: String,
    /// Format of the rows [default: by the ending of the file's name]
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// Only rows with this value in this column (repeatable: all must match)
    #[arg(long = "where-column", value_name = "COLUMN=VALUE")]
    pub where_columns: Vec<String>,
    /// Only rows with null in this column (repeatable)
    #[arg(long = "where-null", value_name = "COLUMN")]
    pub where_nulls: Vec<String>,
    /// File to write; - is standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// A transaction with a COPY block, for psql
    Sql,
    /// Comma-separated values with a header
    Csv,
    /// One JSON object per line
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
        output.report(&report, || text(&report));
    }
    report.failure.map_or(Ok(()), Err)
}

fn text(report: &Report) -> String {
    let rows = if report.rows == report.table_rows {
        counted(report.rows, "row", "rows")
    } else {
        let all = counted(report.table_rows, "row", "rows");
        format!("{} of {all}", number(report.rows))
    };
    format!(
        "{}: {} of {} from {}, {} read\n",
        report.file.as_deref().unwrap_or_default(),
        rows,
        report.table,
        report.source,
        bytes(report.read_bytes)
    )
}

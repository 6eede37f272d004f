//! `pgkeep extract` on the terminal.

use std::sync::Arc;

use super::args::{ExtractArgs, FormatArg};
use super::output::{Output, bytes, number};
use super::progress::Shown;
use pgkeep_core::context::Context;
use pgkeep_core::op::extract::{Report, RowFormat, run as extract};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::extract::{Overrides, request};
use pgkeep_core::stream::pipeline::Progress;
use pgkeep_model::failure::Result;

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

impl From<&ExtractArgs> for Overrides {
    fn from(args: &ExtractArgs) -> Self {
        Self {
            source: args.source.clone(),
            table: args.table.clone(),
            format: Some(match args.format {
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

//! `pgkeep extract` on the terminal.

use std::path::Path;
use std::sync::Arc;

use super::args::{ExtractArgs, FormatArg};
use super::output::{Output, bytes, number};
use super::progress::Shown;
use pgkeep_core::context::Context;
use pgkeep_core::op::extract::{self, Report, Request, RowFormat, Rows, Source, run as extract};
use pgkeep_core::op::stored::Wanted;
use pgkeep_core::setup::Setup;
use pgkeep_core::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::parse_schema;
use pgkeep_model::rows::Filter;

pub(super) async fn run(
    args: &ExtractArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = Request {
        rows: rows(args)?,
        output: target(args),
        source: source(args, setup)?,
    };
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

fn rows(args: &ExtractArgs) -> Result<Rows> {
    let bad = |id: &'static str, what: String| Failure::new(Kind::Usage, id, what);
    let table = args.table.parse().map_err(|error| {
        bad(
            "bad_table_name",
            format!("cannot read `--table {}`: {error}", args.table),
        )
    })?;
    let column = |flag: &str, text: &str| {
        parse_schema(text).map_err(|error| {
            bad(
                "bad_column_name",
                format!("cannot read `{flag} {text}`: {error}"),
            )
        })
    };
    let equal = |text: &String| {
        let at = equals_sign(text).ok_or_else(|| {
            bad(
                "bad_where_column",
                format!("cannot read `--where-column {text}`: it has no `=`"),
            )
            .hint("`--where-null COLUMN` asks for rows without a value")
        })?;
        let name = column("--where-column", &text[..at])?;
        Ok((name, text[at + 1..].to_owned()))
    };
    let equals = args
        .where_columns
        .iter()
        .map(equal)
        .collect::<Result<_>>()?;
    let nulls = args
        .where_nulls
        .iter()
        .map(|text| column("--where-null", text));
    Ok(Rows {
        table,
        format: match args.format {
            FormatArg::Sql => RowFormat::Sql,
            FormatArg::Csv => RowFormat::Csv,
            FormatArg::Jsonl => RowFormat::Jsonl,
        },
        filter: Filter {
            equals,
            nulls: nulls.collect::<Result<_>>()?,
        },
    })
}

/// Finds the equals sign behind a column's name, which may hold one inside quotes.
fn equals_sign(text: &str) -> Option<usize> {
    let mut is_quoted = false;
    text.char_indices().find_map(|(at, c)| {
        is_quoted ^= c == '"';
        (c == '=' && !is_quoted).then_some(at)
    })
}

fn target(args: &ExtractArgs) -> extract::Output {
    match &args.output {
        Some(path) if path.as_os_str() != "-" => extract::Output::File {
            path: path.clone(),
            replace: args.force,
        },
        _ => extract::Output::Stdout,
    }
}

/// A file that is there is meant before a backup of that name.
fn source(args: &ExtractArgs, setup: &Setup) -> Result<Source> {
    let path = Path::new(&args.source);
    if args.source == "-" {
        return Ok(Source::Stdin);
    }
    // A folder of a backup's name is nothing to read.
    if path.exists() && !path.is_dir() {
        return Ok(Source::File(path.to_owned()));
    }
    let looks_like_a_path = args.source.contains(['/', '.']);
    if looks_like_a_path {
        let message = format!("there is no file `{}`", args.source);
        return Err(Failure::new(Kind::NotFound, "no_such_file", message));
    }
    Ok(Source::Backup {
        wanted: Wanted::parse(&args.source)?,
        storages: setup.storages_to_read(&(&args.storage).into())?,
        database: setup.database_name()?,
    })
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

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_in_quotes_may_hold_an_equals_sign() {
        for (text, at) in [
            ("a=b", Some(1)),
            ("a==b", Some(1)),
            ("\"a=b\"=c", Some(5)),
            ("\"a=b", None),
            ("a", None),
        ] {
            assert_eq!(super::equals_sign(text), at, "{text}");
        }
    }
}

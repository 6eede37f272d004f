//! `pgkeep restore --upsert` and `--data-only` on the terminal.

use super::args::RestoreArgs;
use super::log::{self, Ended};
use super::output::{Output, number};
use super::progress::Shown;
use super::restore::{limits, search, source, with_password};
use super::settings::Settings;
use pgkeep_core::context::Context;
use pgkeep_core::op::restore::Source;
use pgkeep_core::op::restore::rows::{Merged, Report, Request, run as merge};
use pgkeep_core::op::stored::Wanted;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::merge::Mode;
use pgkeep_model::name::{TableName, parse_schema, printable};

/// Tells whether rows of single tables are meant.
pub(super) fn is_meant(args: &RestoreArgs) -> Result<bool> {
    if args.upsert || args.data_only {
        return Ok(true);
    }
    let alone = [
        ("--schema-map", !args.schema_map.is_empty()),
        ("--dry-run", args.dry_run),
    ];
    match alone.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(false),
        Some((flag, _)) => {
            let message = format!(
                "`{flag}` wants `--table`, `--upsert` or `--data-only` with it; nothing was changed"
            );
            Err(Failure::new(Kind::Usage, "flag_alone", message).hint(
                "`--table` brings single tables back; `--upsert` merges rows into tables that are there; `--data-only` fills empty ones",
            ))
        }
    }
}

pub(super) async fn run(
    args: &RestoreArgs,
    settings: &Settings<'_>,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(args, settings)?;
    let context = &settings.telling(context, &args.storage)?;
    let shown = Shown::new("restore", output);
    let report = merge(&request, context, &shown).await;
    log::ended(&Ended {
        stage: "restore",
        backup_id: report.backup_id.as_deref(),
        duration_ms: report.took_ms,
        failure: report.failure.as_ref(),
        ..Ended::default()
    });
    output.summary(&report, &report.warnings, || {
        (report.compared && (report.merged || report.dry_run)).then(|| text(&report))
    });
    report.failure.map_or(Ok(()), Err)
}

fn request(args: &RestoreArgs, settings: &Settings<'_>) -> Result<Request> {
    let Source::Stored {
        storages,
        database,
        wanted,
    } = source(args, settings)?
    else {
        let message = "single tables come out of stored backups only; nothing was changed";
        return Err(Failure::new(Kind::Usage, "no_backup", message).hint(
            "`pgkeep extract FILE --table T --format sql` reads one table out of a plain dump",
        ));
    };
    let name = match &wanted {
        Wanted::Id(id) => Some(id.database().to_string()),
        Wanted::Latest => database.as_ref().map(ToString::to_string),
    };
    let into = settings.into(&args.into, name.as_deref())?;
    Ok(Request {
        storages,
        database,
        wanted,
        tables: args
            .tables
            .iter()
            .map(|text| table(text))
            .collect::<Result<_>>()?,
        schema_map: args
            .schema_map
            .iter()
            .map(|text| mapping(text))
            .collect::<Result<_>>()?,
        mode: if args.upsert {
            Mode::Upsert
        } else {
            Mode::Append
        },
        dry_run: args.dry_run,
        limits: limits(args, name.as_deref(), settings)?,
        into: with_password(into, args, settings)?,
        search: search(args, settings)?,
        environment: settings.program_environment(),
    })
}

pub(super) fn table(text: &str) -> Result<TableName> {
    text.parse()
        .map_err(|error| bad("--table", text, &format!("{error}")))
}

/// An equals sign in a schema's name stands in quotes, which no part may leave open.
pub(super) fn mapping(text: &str) -> Result<(String, String)> {
    let places = text.match_indices('=').map(|(at, _)| at);
    let read = |at: usize| {
        Some((
            parse_schema(&text[..at]).ok()?,
            parse_schema(&text[at + 1..]).ok()?,
        ))
    };
    let found = places.filter_map(read).next();
    found.ok_or_else(|| bad("--schema-map", text, "it is not FROM=TO"))
}

fn bad(flag: &str, text: &str, why: &str) -> Failure {
    let message = format!("`{flag} {}`: {why}; nothing was changed", printable(text));
    Failure::new(Kind::Usage, "bad_name", message)
}

fn text(report: &Report) -> String {
    let what = report.backup_id.as_deref().unwrap_or("backup");
    let done = if report.dry_run {
        "would be merged (all was rolled back)"
    } else {
        "merged"
    };
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    let mut out = format!(
        "{what}: {} rows {done} into {}, compared, in {:.1} s\n",
        number(rows),
        report.target,
        report.took_ms as f64 / 1000.0
    );
    for table in &report.tables {
        let counts = &table.counts;
        out += &format!(
            "  {}: {} inserted, {} updated, {} unchanged\n",
            printable(&table.into),
            number(counts.insert),
            number(counts.update),
            number(counts.unchanged)
        );
        if report.dry_run {
            out += &sample("insert", table, &counts.insert_keys, counts.insert);
            out += &sample("update", table, &counts.update_keys, counts.update);
        }
    }
    out
}

fn sample(what: &str, table: &Merged, keys: &[Vec<String>], count: u64) -> String {
    if keys.is_empty() {
        return String::new();
    }
    let keys: Vec<String> = keys.iter().map(|key| printable(&key.join(", "))).collect();
    let more = if count > keys.len() as u64 {
        "; …"
    } else {
        ""
    };
    format!(
        "    {what} ({}): {}{more}\n",
        printable(&table.key.join(", ")),
        keys.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_mapped_by_name() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(mapping("public=Rescued").ok(), pair("public", "rescued"));
        assert_eq!(mapping("\"a=b\"=\"C d\"").ok(), pair("a=b", "C d"));
        for text in ["public", "=x", "a.b=c", "\"a=b"] {
            assert_eq!(mapping(text).unwrap_err().kind, Kind::Usage, "{text}");
        }
    }
}

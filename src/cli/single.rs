//! `pgkeep restore --table` on the terminal: single tables with their structure.

use super::args::RestoreArgs;
use super::log::{self, Ended};
use super::merge::{mapping, table};
use super::output::{Output, number};
use super::progress::Shown;
use super::restore::{limits, search, source, with_password};
use super::settings::Settings;
use pgkeep_core::context::Context;
use pgkeep_core::op::restore::Source as Any;
use pgkeep_core::op::restore::tables::{Options, Report, Request, Source, run as restore};
use pgkeep_core::op::stored::Wanted;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::printable;

/// Tells whether single tables with their structure are meant.
pub(super) fn is_meant(args: &RestoreArgs) -> bool {
    !args.tables.is_empty() && !args.upsert && !args.data_only
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
    let report = restore(&request, context, &shown).await;
    log::ended(&Ended {
        stage: "restore",
        backup_id: report.backup_id.as_deref(),
        duration_ms: report.took_ms,
        failure: report.failure.as_ref(),
        ..Ended::default()
    });
    output.summary(&report, &report.warnings, || {
        report.failure.is_none().then(|| text(&report))
    });
    report.failure.map_or(Ok(()), Err)
}

fn request(args: &RestoreArgs, settings: &Settings<'_>) -> Result<Request> {
    refuse_what_is_of_databases(args)?;
    let (source, name) = match source(args, settings)? {
        Any::Stored {
            storages,
            database,
            wanted,
        } => {
            let name = match &wanted {
                Wanted::Id(id) => Some(id.database().to_string()),
                Wanted::Latest => database.as_ref().map(ToString::to_string),
            };
            let stored = Source::Stored {
                storages,
                database,
                wanted,
            };
            (stored, name)
        }
        Any::File(path) => (
            Source::File(path),
            settings.database_name()?.map(|name| name.to_string()),
        ),
        Any::Stdin => {
            let message = "single tables cannot come out of a pipe: what belongs to a table stands behind the rows, too, so \
                           the dump is read twice; nothing was changed";
            return Err(Failure::new(Kind::Usage, "pipe_is_read_once", message)
                .hint("write the dump into a file and restore out of that"));
        }
    };
    let into = settings.into(&args.into, name.as_deref())?;
    Ok(Request {
        source,
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
        into: with_password(into, args, settings)?,
        search: search(args, settings)?,
        environment: settings.program_environment(),
        options: Options {
            dry_run: args.dry_run,
            no_owner: args.no_owner,
            no_privileges: args.no_privileges,
            create_missing_roles: args.create_missing_roles,
            allow_superuser: args.allow_superuser,
            force_version: args.force_version,
            force_locale: args.force_locale,
            accept_no_end_marker: args.accept_no_end_marker,
            no_compare: args.no_compare,
            limits: limits(args, name.as_deref(), settings)?,
            dump_time_zone: args.dump_time_zone.clone(),
        },
    })
}

/// Flags about a whole database say nothing here, and whoever gives one means something else.
fn refuse_what_is_of_databases(args: &RestoreArgs) -> Result<()> {
    let flags = [
        ("--replace", args.replace),
        ("--no-database-settings", args.no_database_settings),
        ("--jobs", args.jobs.is_some()),
    ];
    match flags.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((flag, _)) => {
            let message = format!("`{flag}` is for a whole database; nothing was changed");
            Err(Failure::new(Kind::Usage, "flag_of_databases", message)
                .hint("leave it out, or leave `--table` out"))
        }
    }
}

fn text(report: &Report) -> String {
    let what = report.backup_id.as_deref().unwrap_or(&report.source);
    let done = match (report.restored, report.compared) {
        (true, _) => "restored",
        (false, true) => "would be restored (all was rolled back)",
        (false, false) => "would be restored",
    };
    let compared = if report.compared {
        "compared"
    } else {
        "NOT compared"
    };
    let mut out = format!(
        "{what}: {} {} with {} rows {done} into {}, {compared}, in {:.1} s\n",
        number(report.tables.len() as u64),
        if report.tables.len() == 1 {
            "table"
        } else {
            "tables"
        },
        number(report.rows),
        report.target,
        report.took_ms as f64 / 1000.0
    );
    for table in &report.tables {
        let rows = match table.outcome.rows {
            Some(rows) => format!("{} rows", number(rows)),
            None => "structure".to_owned(),
        };
        out += &format!("  {}: {rows}\n", printable(&table.into));
    }
    let made = if report.restored {
        "made"
    } else {
        "to be made"
    };
    for (what, names) in [
        ("besides, because they need it", &report.besides),
        ("roles without login", &report.created_roles),
    ] {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| printable(name)).collect();
            out += &format!("  {made}, {what}: {}\n", names.join(", "));
        }
    }
    if report.created {
        out += "  the database was created\n";
    }
    out
}

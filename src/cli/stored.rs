//! `pgkeep list`, `show` and `get` on the terminal.

use comfy_table::CellAlignment;

use super::args::{GetArgs, ListArgs, PinArgs, ShowArgs, UnpinArgs};
use super::output::{Output, bytes, dumped_tables, number, table};
use pgkeep_core::context::Context;
use pgkeep_core::op::{get, list, pin, show};
use pgkeep_core::setup::{self, Setup};
use pgkeep_model::failure::Result;
use pgkeep_model::freshness::age;
use pgkeep_model::manifest::{Manifest, TableRecord};
use pgkeep_model::name::TableName;

pub(super) async fn run_list(
    args: &ListArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let overrides = setup::stored::Overrides {
        storage: (&args.storage).into(),
        ..Default::default()
    };
    let request = setup::stored::list(&overrides, setup, context.clock.now())?;
    let report = list::run(request).await?;
    output.document(&report, || list_text(&report));
    for id in &report.unfinished {
        output.note(&format!(
            "`{id}` has no manifest: its run is under way or was cut off; it is no backup"
        ));
    }
    match report.failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn list_text(report: &list::Report) -> String {
    if report.backups.is_empty() {
        let places: Vec<&str> = report
            .storages
            .iter()
            .map(|state| state.url.as_str())
            .collect();
        return format!("no backups in {}\n", places.join(", "));
    }
    let mut out = table(&["id", "started (UTC)", "age", "size", "storages", ""]);
    if let Some(column) = out.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for backup in &report.backups {
        let marks = [
            (backup.drilled, "drilled"),
            (backup.damaged, "DAMAGED"),
            (backup.partial, "partial"),
        ];
        let mut marks: Vec<String> = marks
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, mark)| mark.to_owned())
            .collect();
        if backup.pinned {
            let reason = backup
                .pin_reason
                .as_deref()
                .filter(|reason| !reason.is_empty());
            marks.push(reason.map_or("pinned".to_owned(), |reason| format!("pinned: {reason}")));
        }
        out.add_row([
            backup.id.clone(),
            backup.started_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            age(backup.age_seconds),
            bytes(backup.size_bytes),
            backup.storages.join(", "),
            marks.join(", "),
        ]);
    }
    format!("{out}\n")
}

pub(super) async fn run_show(args: &ShowArgs, setup: &Setup, output: &Output) -> Result<()> {
    let overrides = setup::stored::Overrides {
        id: Some(args.id.clone()),
        storage: (&args.storage).into(),
        ..Default::default()
    };
    let request = setup::stored::show(&overrides, setup)?;
    let report = show::run(request).await?;
    output.document(&report.manifest, || show_text(&report));
    report.failure.map_or(Ok(()), Err)
}

fn show_text(report: &show::Report) -> String {
    let manifest = &report.manifest;
    let mut out = facts(report);
    out += &format!("\n\n{}\n", tables(&manifest.tables));
    for required in &manifest.required_tables {
        let found = if required.found { "found" } else { "MISSING" };
        let rows = required
            .rows
            .map(|rows| format!(", {} rows", number(rows)))
            .unwrap_or_default();
        out += &format!("required: {} {found}{rows}\n", required.table);
    }
    for warning in &manifest.warnings {
        out += &format!("warning: {}\n", warning.message);
    }
    out += &format!(
        "\nwithout pgkeep, from the folder that holds the file:\n  {}\nthe file is {} in {}\n",
        manifest.restore, manifest.object.key, report.url
    );
    if let Some(globals) = &manifest.globals {
        let without = if globals.role_passwords {
            ""
        } else {
            " (without passwords)"
        };
        out += &format!(
            "roles and tablespaces{without} first: {}\n",
            globals.object.key
        );
    }
    out
}

fn facts(report: &show::Report) -> String {
    let manifest = &report.manifest;
    let took = manifest.finished_at.as_second() - manifest.started_at.as_second();
    let method = &manifest.compression.method;
    let mut rows = vec![
        ("id", manifest.id.to_string()),
        ("trigger", manifest.trigger.as_str().to_owned()),
        ("started", format!("{}, took {took} s", manifest.started_at)),
        ("server", server(manifest)),
        (
            "programs",
            format!(
                "pg_dump {}, pgkeep {}",
                manifest.tools.pg_dump, manifest.tools.pgkeep
            ),
        ),
        (
            "dump",
            format!(
                "{} of SQL, {} rows",
                bytes(manifest.dump.bytes),
                number(manifest.dump.rows)
            ),
        ),
        (
            "stored",
            format!(
                "{} ({method}) in {}",
                bytes(manifest.object.size_bytes),
                report.storages.join(", ")
            ),
        ),
        ("sha256", manifest.object.sha256.clone()),
    ];
    if let Some(selection) = &manifest.selection {
        let selection = serde_json::to_string(selection).unwrap_or_default();
        rows.push(("selection", format!("NOT the whole database: {selection}")));
    }
    if manifest.large_objects > 0 {
        rows.push(("large objects", number(manifest.large_objects)));
    }
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("{name:<14}{value}"))
        .collect();
    lines.join("\n")
}

fn server(manifest: &Manifest) -> String {
    let server = &manifest.server;
    let extensions: Vec<String> = server
        .extensions
        .iter()
        .map(|extension| format!("{} {}", extension.name, extension.version))
        .collect();
    let extensions = if extensions.is_empty() {
        String::new()
    } else {
        format!("; {}", extensions.join(", "))
    };
    format!(
        "{} database `{}`, {}{extensions}",
        server.version, server.database, server.encoding
    )
}

fn tables(tables: &[TableRecord]) -> comfy_table::Table {
    dumped_tables(tables.iter().map(|table| {
        let name = TableName::new(table.schema.clone(), table.name.clone());
        (
            name.to_string(),
            table.kind,
            table.rows,
            table.bytes,
            table.digest,
        )
    }))
}

pub(super) async fn run_get(
    args: &GetArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let overrides = setup::stored::Overrides {
        id: Some(args.id.clone()),
        storage: (&args.storage).into(),
        output: args.output.clone(),
        globals: args.globals,
        force: args.force,
    };
    let request = setup::stored::get(&overrides, setup)?;
    let is_stdout = matches!(request.output, get::Output::Stdout);
    let report = get::run(request, context).await?;
    report
        .warnings
        .iter()
        .for_each(|warning| output.warning(warning));
    if !is_stdout {
        output.document(&report, || {
            let file = report.file.as_deref().unwrap_or_default();
            format!(
                "{file}: {}, SHA-256 {} as in the manifest\n",
                bytes(report.size_bytes),
                report.sha256
            )
        });
    }
    report.failure.map_or(Ok(()), Err)
}

pub(super) async fn run_pin(
    args: &PinArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let overrides = setup::pin::Overrides {
        id: Some(args.id.clone()),
        storage: (&args.storage).into(),
    };
    let request = setup::pin::request(&overrides, &args.reason, setup)?;
    pin_or_unpin(request, output, context).await
}

pub(super) async fn run_unpin(
    args: &UnpinArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let overrides = setup::pin::Overrides {
        id: Some(args.id.clone()),
        storage: (&args.storage).into(),
    };
    let request = setup::pin::request_to_unpin(&overrides, setup)?;
    pin_or_unpin(request, output, context).await
}

async fn pin_or_unpin(request: pin::Request, output: &Output, context: &Context) -> Result<()> {
    let reason = request.reason.clone();
    let report = pin::run(request, context).await?;
    output.document(&report, || {
        let id = &report.id;
        let why = report.reason.as_deref().unwrap_or_default();
        match (report.pinned, report.changed) {
            (true, true) => format!("{id} is pinned: {why}\n"),
            (true, false) => format!("{id} was pinned already: {why}\n"),
            (false, true) => format!("{id} is pinned no more; retention decides about it\n"),
            (false, false) => format!("{id} was not pinned\n"),
        }
    });
    if !report.changed && report.pinned && report.reason != reason {
        output.note(&format!(
            "the earlier reason stays; `pgkeep unpin {}` first, to give another",
            report.id
        ));
    }
    report.failure.map_or(Ok(()), Err)
}

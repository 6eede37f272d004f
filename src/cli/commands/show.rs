//! `pgkeep show` on the terminal.

use clap::Args;

use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes, counted, dumped_tables, number, took};
use crate::cli::screen::Screen;
use crate::cli::table::Table;
use pgkeep_core::context::Context;
use pgkeep_core::op::show::{Report, run as show};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::stored::{Overrides, show as request};
use pgkeep_model::anomaly::{AnomalyRecord, Severity};
use pgkeep_model::failure::Result;
use pgkeep_model::manifest::{Manifest, TableRecord};
use pgkeep_model::name::{TableName, printable};

/// Flags of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Id of the backup, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: String,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&ShowArgs> for Overrides {
    fn from(args: &ShowArgs) -> Self {
        Self {
            id: Some(args.id.clone()),
            storage: (&args.storage).into(),
            ..Self::default()
        }
    }
}

pub(super) async fn run(
    args: &ShowArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup, context.clock.now())?;
    let report = show(request).await?;
    output.document(&report.manifest, || text(&report, output.screen));
    for warning in &report.warnings {
        output.warning(warning);
    }
    report.failure.map_or(Ok(()), Err)
}

fn text(report: &Report, screen: Screen) -> String {
    let manifest = &report.manifest;
    let mut out = screen.fitted(&facts(report));
    out += &format!("\n{}\n", tables(&manifest.tables).shown(screen));
    let mut more = String::new();
    for required in &manifest.required_tables {
        let found = if required.found { "found" } else { "MISSING" };
        let rows = required
            .rows
            .map(|rows| format!(", {}", counted(rows, "row", "rows")))
            .unwrap_or_default();
        more += &format!("required: {} {found}{rows}\n", required.table);
    }
    more += &gate(report);
    for warning in &manifest.warnings {
        more += &format!("warning: {}\n", warning.message);
    }
    if !more.is_empty() {
        out += &(screen.fitted(&more) + "\n");
    }
    out += "to restore it without pgkeep, in the folder of the file:\n";
    out += &screen.command(&manifest.restore, 2);
    let (folder, file) = manifest.object.key.rsplit_once('/').unwrap_or_default();
    let place = report.url.trim_end_matches('/');
    out += &screen.fitted(&format!("file:   {file}\nfolder: {place}/{folder}\n"));
    if let Some(globals) = &manifest.globals {
        let without = if globals.role_passwords {
            ""
        } else {
            " (without passwords)"
        };
        out += &screen.fitted(&format!(
            "before that, restore roles and tablespaces{without}: {}\n",
            globals.object.key
        ));
    }
    out
}

/// Says what the anomaly gate made of the backup, and who accepted it.
fn gate(report: &Report) -> String {
    let mut out = String::new();
    if let Some(accepted) = &report.accepted {
        out += &format!(
            "accepted by {} on {}: {}\n",
            printable(&accepted.accepted_by),
            accepted.accepted_at.strftime("%Y-%m-%d %H:%M UTC"),
            printable(&accepted.reason)
        );
    }
    let record = report.manifest.anomaly.as_ref();
    for reason in record
        .filter(|one| one.is_held())
        .into_iter()
        .flat_map(AnomalyRecord::reasons)
    {
        let state = if report.is_held { "HELD" } else { "was held" };
        out += &format!("{state}: {reason}\n");
    }
    let warned = record.into_iter().flat_map(|one| one.of(Severity::Warn));
    out + &warned
        .map(|seen| format!("warning: {}\n", seen.in_words()))
        .collect::<String>()
}

fn facts(report: &Report) -> String {
    let manifest = &report.manifest;
    let ms = manifest.finished_at.as_millisecond() - manifest.started_at.as_millisecond();
    let lasted = took(u64::try_from(ms).unwrap_or(0));
    let method = &manifest.compression.method;
    let mut rows = vec![
        ("id", manifest.id.to_string()),
        ("trigger", manifest.trigger.as_str().to_owned()),
        ("started", format!("{}, took {lasted}", manifest.started_at)),
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
                "{} of SQL, {}",
                bytes(manifest.dump.bytes),
                counted(manifest.dump.rows, "row", "rows")
            ),
        ),
        (
            "file",
            format!(
                "{} ({method}) in {}",
                bytes(manifest.object.size_bytes),
                report.storages.join(", ")
            ),
        ),
        ("SHA-256", manifest.object.sha256.clone()),
    ];
    if let Some(encryption) = &manifest.encryption {
        rows.push(("encrypted for", encryption.recipients.join(", ")));
    }
    for limit in &manifest.limits {
        rows.push(("limited", limit.in_words()));
    }
    if let Some(selection) = &manifest.selection {
        let selection = serde_json::to_string(selection).unwrap_or_default();
        rows.push(("selection", format!("NOT the whole database: {selection}")));
    }
    if manifest.large_objects > 0 {
        rows.push(("large objects", number(manifest.large_objects)));
    }
    rows.iter()
        .map(|(name, value)| format!("{name:<14}{value}\n"))
        .collect()
}

fn server(manifest: &Manifest) -> String {
    let server = &manifest.server;
    let extensions: Vec<String> = server
        .extensions
        .iter()
        .map(|extension| format!("{} {}", extension.name, extension.version))
        .collect();
    let with = if extensions.is_empty() {
        String::new()
    } else {
        format!("; {}", extensions.join(", "))
    };
    format!(
        "{} database `{}`, {}{with}",
        server.version, server.database, server.encoding
    )
}

fn tables(tables: &[TableRecord]) -> Table {
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

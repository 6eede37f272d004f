//! What the summary of a GitHub step says of each report, and which outputs it sets.
//!
//! Every value comes from the report that also makes the text and the exit code.

use super::actions::{Cell, Table};
use super::output::{bytes, number};
use pgkeep_core::op::restore::Outcome;
use pgkeep_core::op::{backup, drill, guard, restore, verify};
use pgkeep_model::failure::{Failure, Kind};

const BACKUPS: &[&str] = &[
    "database",
    "result",
    "backup",
    "size",
    "tables",
    "rows",
    "took",
    "stored in",
    "why",
];
const COPIES: &[&str] = &[
    "backup", "storage", "result", "size", "tables", "rows", "took", "why",
];
const GUARD: &[&str] = &["database", "backup", "id", "command", "restored", "why"];
const DRILL: &[&str] = &[
    "backup",
    "result",
    "tables",
    "rows",
    "recovery time",
    "server",
    "why",
];
const RESTORE: &[&str] = &["source", "result", "into", "tables", "rows", "took", "why"];

/// One row for each database.
pub(super) fn of_backups(reports: &[backup::Report]) -> Table {
    let mut table = Table::new("Backups", BACKUPS);
    for report in reports {
        let stored = report.storages.iter().filter(|storage| storage.stored);
        let places: Vec<&str> = stored.map(|storage| storage.url.as_str()).collect();
        let proven = |text: String| words(if report.stored { text } else { String::new() });
        table.add([
            foreign(&report.database),
            words(verdict(report.failure.as_ref())),
            foreign(
                report
                    .backup_id
                    .as_deref()
                    .filter(|_| report.stored)
                    .unwrap_or_default(),
            ),
            proven(bytes(report.size_bytes)),
            proven(number(report.tables as u64)),
            proven(number(report.rows)),
            words(seconds(report.took_ms)),
            foreign(&places.join(", ")),
            why(report.failure.as_ref()),
        ]);
    }
    table
}

/// What later steps need of the backups that were stored, one line for each database.
pub(super) fn outputs_of_backups(reports: &[backup::Report]) -> [(&'static str, String); 3] {
    let stored: Vec<&backup::Report> = reports.iter().filter(|report| report.stored).collect();
    let each = |value: fn(&backup::Report) -> String| {
        let values: Vec<String> = stored.iter().map(|report| value(report)).collect();
        values.join("\n")
    };
    [
        (
            "backup_id",
            each(|report| report.backup_id.clone().unwrap_or_default()),
        ),
        ("manifest", each(manifest)),
        ("size_bytes", each(|report| report.size_bytes.to_string())),
    ]
}

/// Returns where the manifest is, in the first storage that has it.
fn manifest(report: &backup::Report) -> String {
    let storage = report.storages.iter().find(|storage| storage.stored);
    match (storage, &report.manifest_key) {
        (Some(storage), Some(key)) => format!("{}/{key}", storage.url.trim_end_matches('/')),
        _ => String::new(),
    }
}

/// One row for each database that the command was guarded by.
pub(super) fn of_guard(report: &guard::Report) -> Table {
    let mut table = Table::new("Guarded command", GUARD);
    let command = match &report.command {
        None => "❌ was not run".to_owned(),
        Some(command) if command.is_success() => "✅ succeeded".to_owned(),
        Some(command) => format!("❌ failed, exit code {}", command.code),
    };
    for one in &report.databases {
        let backup = match (&one.backup_id, one.accepted_age_seconds) {
            (None, _) => "none",
            (_, None) => "made",
            (_, Some(_)) => "young enough",
        };
        let restored = one.restored.as_ref();
        table.add([
            foreign(&one.database),
            words(backup.to_owned()),
            foreign(one.backup_id.as_deref().unwrap_or_default()),
            words(command.clone()),
            words(restored.map_or_else(String::new, |restore| verdict(restore.failure.as_ref()))),
            why(report.failure.as_ref()),
        ]);
    }
    table
}

/// What later steps need of a guard: the backups behind which the command ran, one line for each database.
pub(super) fn outputs_of_guard(report: &guard::Report) -> [(&'static str, String); 1] {
    let ids = report
        .databases
        .iter()
        .filter_map(|one| one.backup_id.clone());
    [("backup_id", ids.collect::<Vec<_>>().join("\n"))]
}

/// One row for each copy that was read.
pub(super) fn of_copies(report: &verify::Report) -> Table {
    let mut table = Table::new("Verified backups", COPIES);
    for copy in &report.copies {
        let result = match (copy.ok, copy.damaged) {
            (true, _) => "✅ good",
            (false, true) => "❌ damaged",
            (false, false) => "❌ not proven",
        };
        let problem = copy.problems.first().map(verify::place_in_words);
        let reason =
            problem.or_else(|| copy.failure.as_ref().map(|failure| failure.message.clone()));
        table.add([
            foreign(&copy.id),
            foreign(&copy.storage),
            words(result.to_owned()),
            words(bytes(copy.bytes)),
            words(number(copy.tables)),
            words(number(copy.rows)),
            words(seconds(copy.took_ms)),
            foreign(&reason.unwrap_or_default()),
        ]);
    }
    table
}

/// The one row of a drill.
pub(super) fn of_drill(report: &drill::Report) -> Table {
    let mut table = Table::new("Restore drill", DRILL);
    let restore = report.restore.as_ref().filter(|restore| restore.compared);
    let of_restore =
        |value: &dyn Fn(&restore::Report) -> String| words(restore.map(value).unwrap_or_default());
    table.add([
        foreign(report.backup_id.as_deref().unwrap_or_default()),
        words(
            if report.passed {
                "✅ passed"
            } else {
                "❌ failed"
            }
            .to_owned(),
        ),
        of_restore(&|restore| number(restore.tables.len() as u64)),
        of_restore(&|restore| number(restore.rows)),
        of_restore(&|_| seconds(report.recovery_ms())),
        foreign(&report.server),
        why(report.failure.as_ref()),
    ]);
    table
}

/// The one row of a restore, whichever kind it was.
pub(super) fn of_restored(outcome: &Outcome) -> Table {
    let (what, target, tables, rows, took_ms) = match outcome {
        Outcome::Whole(report) => (
            report.backup_id.as_ref().unwrap_or(&report.source).as_str(),
            &report.target,
            report.tables.len(),
            report.rows,
            report.took_ms,
        ),
        Outcome::Tables(report) => (
            report.backup_id.as_ref().unwrap_or(&report.source).as_str(),
            &report.target,
            report.tables.len(),
            report.rows,
            report.took_ms,
        ),
        Outcome::Rows(report) => (
            report.backup_id.as_deref().unwrap_or_default(),
            &report.target,
            report.tables.len(),
            report.tables.iter().map(|table| table.rows).sum(),
            report.took_ms,
        ),
    };
    let mut table = Table::new("Restore", RESTORE);
    table.add([
        foreign(what),
        words(verdict(outcome.failure())),
        foreign(target),
        words(number(tables as u64)),
        words(number(rows)),
        words(seconds(took_ms)),
        why(outcome.failure()),
    ]);
    table
}

fn verdict(failure: Option<&Failure>) -> String {
    match failure {
        None => "✅ done and proven".to_owned(),
        Some(failure) if failure.kind == Kind::AfterGood => {
            "⚠️ good, but something after it is not".to_owned()
        }
        Some(failure) => format!("❌ failed, exit code {}", failure.kind.exit_code()),
    }
}

fn why(failure: Option<&Failure>) -> Cell {
    foreign(failure.map_or("", |failure| &failure.message))
}

fn words(text: String) -> Cell {
    Cell::Words(text)
}

fn foreign(text: &str) -> Cell {
    Cell::Foreign(text.to_owned())
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

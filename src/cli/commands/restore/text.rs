//! What a restore says at its end, for people.

use crate::cli::output::{bytes, counted, number, took};
use pgkeep_core::op::restore::rows::{Merged, Report as RowsReport};
use pgkeep_core::op::restore::tables::Report as TablesReport;
use pgkeep_core::op::restore::{Outcome, Report};
use pgkeep_model::name::printable;

/// Returns the words for an outcome that is worth some; a failure has its own.
pub(in crate::cli::commands) fn of(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Whole(report) => report.restored.then(|| of_whole(report)),
        Outcome::Tables(report) => report.failure.is_none().then(|| of_tables(report)),
        Outcome::Rows(report) => {
            let is_done = report.compared && (report.merged || report.dry_run);
            is_done.then(|| of_rows(report))
        }
    }
}

/// Returns the words for a whole dump that was restored.
pub(in crate::cli::commands) fn of_whole(report: &Report) -> String {
    let what = report.backup_id.as_deref().unwrap_or(&report.source);
    let mut out = format!(
        "{what}: restored into {}: {}, {} of SQL in {}\n",
        report.target,
        counted(report.rows, "row", "rows"),
        bytes(report.dump_bytes),
        took(report.restore_ms),
    );
    out += &left_to_the_platform(report);
    if report.created {
        out += "  the database was created\n";
    }
    if !report.created && report.replaced.is_none() && !report.properties_set.is_empty() {
        out += "  set as in the backup, in a database that existed:\n";
        for statement in &report.properties_set {
            out += &format!("    {statement};\n");
        }
    }
    if !report.created_roles.is_empty() {
        out += &format!(
            "  created roles, without login: {}\n",
            report.created_roles.join(", ")
        );
    }
    out += &if report.compared {
        format!(
            "  compared in {}: {}\n",
            took(report.compare_ms),
            match report.tables.len() {
                1 => "the table is as dumped".to_owned(),
                many => format!("all {} tables are as dumped", number(many as u64)),
            }
        )
    } else {
        "  NOT compared\n".to_owned()
    };
    if let Some(replaced) = &report.replaced {
        out += &format!(
            "  the old database is kept as {}\n  to go back, from another database:\n",
            replaced.kept_as
        );
        for statement in &replaced.go_back {
            out += &format!("    {statement}\n");
        }
    }
    out
}

/// What is missing, or differs from where the dump came from: the first thing to know.
pub(in crate::cli::commands) fn left_to_the_platform(report: &Report) -> String {
    let mut out = String::new();
    if !report.skipped_extensions.is_empty() {
        out += &format!(
            "  WITHOUT extensions: {}\n",
            report.skipped_extensions.join(", ")
        );
    }
    for stand_in in &report.stand_ins {
        out += &format!("  stand-in for a part of the platform: {stand_in}\n");
    }
    for left_out in &report.left_out {
        out += &format!("  LEFT OUT: {left_out}\n");
    }
    out
}

fn of_tables(report: &TablesReport) -> String {
    let what = report.backup_id.as_deref().unwrap_or(&report.source);
    let done = match (report.restored, report.compared) {
        (true, _) => "restored",
        (false, true) => "would be restored (everything was rolled back)",
        (false, false) => "would be restored",
    };
    let compared = if report.compared {
        "compared"
    } else {
        "NOT compared"
    };
    let mut out = format!(
        "{what}: {} with {} {done} into {}, {compared}, in {}\n",
        counted(report.tables.len() as u64, "table", "tables"),
        counted(report.rows, "row", "rows"),
        report.target,
        took(report.took_ms)
    );
    for table in &report.tables {
        let rows = match table.outcome.rows {
            Some(rows) => counted(rows, "row", "rows"),
            None => "structure only".to_owned(),
        };
        out += &format!("  {}: {rows}\n", printable(&table.into));
    }
    let made = if report.restored {
        "created"
    } else {
        "to be created"
    };
    for (what, names) in [
        ("because the tables need it", &report.besides),
        ("as roles without login", &report.created_roles),
    ] {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| printable(name)).collect();
            out += &format!("  {made} {what}: {}\n", names.join(", "));
        }
    }
    if report.created {
        out += "  the database was created\n";
    }
    out
}

fn of_rows(report: &RowsReport) -> String {
    let what = report.backup_id.as_deref().unwrap_or("backup");
    let done = if report.dry_run {
        "would be merged (everything was rolled back)"
    } else {
        "merged"
    };
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    let mut out = format!(
        "{what}: {} {done} into {}, compared, in {}\n",
        counted(rows, "row", "rows"),
        report.target,
        took(report.took_ms)
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
        "; ..."
    } else {
        ""
    };
    format!(
        "    {what} ({}): {}{more}\n",
        printable(&table.key.join(", ")),
        keys.join("; ")
    )
}

//! The notice of a restore, made from its report.

use jiff::Timestamp;

use super::{Report, Request, Source, rows, tables};
use crate::op::notices::{
    Brought, UNSURE, database_of, note_failure, outcome, subject_of_restore, verdict,
};
use pgkeep_model::notice::{Event, Notice};

/// Makes the notice of single tables that were restored.
pub(super) fn of_tables(report: &tables::Report, now: Timestamp) -> Notice {
    let brought = Brought {
        database: database_of(report.backup_id.as_deref()),
        backup_id: report.backup_id.as_ref(),
        target: &report.target,
        rows: report.rows,
        tables: report.tables.len(),
        took_ms: report.took_ms,
        is_there: report.restored,
        is_unsure: report.is_unsure,
        warnings: &report.warnings,
        failure: report.failure.as_ref(),
    };
    brought.notice(now)
}

/// Makes the notice of rows that were merged into tables.
pub(super) fn of_rows(request: &Request, report: &rows::Report, now: Timestamp) -> Notice {
    let named = match &request.source {
        Source::Stored { database, .. } => database.as_ref().map(ToString::to_string),
        Source::File(_) | Source::Stdin => None,
    };
    let brought = Brought {
        database: database_of(report.backup_id.as_deref()).or(named),
        backup_id: report.backup_id.as_ref(),
        target: &report.target,
        rows: report.tables.iter().map(|table| table.rows).sum(),
        tables: report.tables.len(),
        took_ms: report.took_ms,
        is_there: report.merged,
        is_unsure: report.is_unsure,
        warnings: &report.warnings,
        failure: report.failure.as_ref(),
    };
    brought.notice(now)
}

/// Makes the notice of a whole dump that was restored.
pub(super) fn of_whole(request: &Request, report: &Report, now: Timestamp) -> Notice {
    let database = match &request.source {
        Source::Stored { database, .. } => {
            let of_id = database_of(report.backup_id.as_deref().or(Some(&report.source)));
            of_id.or_else(|| database.as_ref().map(ToString::to_string))
        }
        Source::File(_) | Source::Stdin => None,
    };
    let database = database
        .or_else(|| report.database.clone())
        .unwrap_or_else(|| report.target.clone());
    let outcome = outcome(report.failure.as_ref(), report.restored);
    let mut notice = Notice::new(Event::Restore, outcome, "restore", database, now);
    notice.backup_id.clone_from(&report.backup_id);
    notice.target = Some(report.target.clone());
    notice.took_ms = Some(report.took_ms);
    notice.warnings.clone_from(&report.warnings);
    if report.restored {
        notice.rows = Some(report.rows);
        notice.dump_bytes = Some(report.dump_bytes);
        notice.tables = report.compared.then_some(report.tables.len() as u64);
        notice.safe = match &report.replaced {
            Some(replaced) => format!("the old database is kept as {}", replaced.kept_as),
            None => "the backup was not changed".to_owned(),
        };
    } else if report.is_unsure {
        notice.safe = UNSURE.to_owned();
    } else {
        notice.safe = "the target is as it was, and so is the backup".to_owned();
    }
    note_failure(&mut notice, report.failure.as_ref());
    let good = if report.compared {
        "every table is as it was dumped"
    } else {
        "restored, not compared"
    };
    notice.verdict = verdict(outcome, good);
    let subject = subject_of_restore(
        outcome,
        &report.target,
        report.rows,
        report.took_ms,
        &notice,
    );
    notice.with_subject(&subject)
}

//! The notice of rows that were merged into tables, made from the report.

use jiff::Timestamp;

use super::{Report, Request};
use crate::op::notices::{Brought, database_of};
use pgkeep_model::notice::Notice;

/// Makes the notice of rows that were merged into tables.
pub(super) fn of(request: &Request, report: &Report, now: Timestamp) -> Notice {
    let named = request.database.as_ref().map(ToString::to_string);
    let database = database_of(report.backup_id.as_deref()).or(named);
    let brought = Brought {
        database,
        backup_id: report.backup_id.as_ref(),
        target: &report.target,
        rows: report.tables.iter().map(|table| table.rows).sum(),
        tables: report.tables.len(),
        took_ms: report.took_ms,
        is_there: report.merged,
        warnings: &report.warnings,
        failure: report.failure.as_ref(),
    };
    brought.notice(now)
}

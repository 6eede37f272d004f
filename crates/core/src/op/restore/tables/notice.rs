//! The notice of tables that were restored with their structure, made from the report.

use jiff::Timestamp;

use super::Report;
use crate::op::notices::{Brought, database_of};
use pgkeep_model::notice::Notice;

/// Makes the notice of tables that were restored with their structure.
pub(super) fn of(report: &Report, now: Timestamp) -> Notice {
    let brought = Brought {
        database: database_of(report.backup_id.as_deref()),
        backup_id: report.backup_id.as_ref(),
        target: &report.target,
        rows: report.rows,
        tables: report.tables.len(),
        took_ms: report.took_ms,
        is_there: report.restored,
        warnings: &report.warnings,
        failure: report.failure.as_ref(),
    };
    brought.notice(now)
}

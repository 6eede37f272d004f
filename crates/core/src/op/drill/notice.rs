//! The notice of a drill, made from its report.

use jiff::Timestamp;

use super::{Report, Request};
use crate::op::notices::{database_of, note_failure, outcome, verdict, why};
use crate::op::stored::Wanted;
use pgkeep_model::notice::{Event, Notice, Outcome};
use pgkeep_model::words::{count, took};

/// Makes the notice of a drill.
pub(super) fn of(request: &Request, report: &Report, now: Timestamp) -> Notice {
    let named = request.database.as_ref().map(ToString::to_string);
    let wanted = match &request.wanted {
        Wanted::Id(id) => Some(id.database().to_string()),
        Wanted::Latest => None,
    };
    let database = database_of(report.backup_id.as_deref())
        .or(wanted)
        .or(named)
        .unwrap_or_else(|| "the latest backup".to_owned());
    let outcome = outcome(report.failure.as_ref(), report.passed);
    let mut notice = Notice::new(Event::Drill, outcome, "drill", database, now);
    notice.backup_id.clone_from(&report.backup_id);
    notice.target = Some(report.server.clone());
    notice.took_ms = Some(report.took_ms);
    notice.warnings.clone_from(&report.warnings);
    if let Some(restore) = &report.restore {
        notice.rows = Some(restore.rows);
        notice.tables = Some(restore.tables.len() as u64);
        notice.dump_bytes = Some(restore.dump_bytes);
    }
    notice.safe =
        "the backup was not changed, and everything that the drill made was removed".to_owned();
    note_failure(&mut notice, report.failure.as_ref());
    notice.verdict = verdict(outcome, "the backup can be restored");
    let back = took(report.recovery_ms());
    let subject = match outcome {
        Outcome::Good => format!(
            "drill passed: {} of {} restored in {back}",
            count(notice.rows.unwrap_or_default(), "row"),
            count(notice.tables.unwrap_or_default(), "table"),
        ),
        Outcome::GoodBut => format!("drill passed, but: {}", why(report.failure.as_ref())),
        Outcome::Failed => format!("drill FAILED: {}", why(report.failure.as_ref())),
    };
    notice.with_subject(&subject)
}

//! The notice of a backup, made from its report.

use jiff::Timestamp;

use super::{Report, Request};
use crate::op::notices::{note_failure, outcome, verdict, why};
use pgkeep_model::notice::{Copy, Event, Notice, Outcome};
use pgkeep_model::words::{bytes, count, took};

/// Makes the notice of a backup.
pub(super) fn of(request: &Request, report: &Report, now: Timestamp) -> Notice {
    let held = report.anomaly.as_ref().filter(|record| record.is_held());
    let is_held = held.is_some();
    // What counts for nothing is not good, though it is stored.
    let outcome = match outcome(report.failure.as_ref(), report.stored && !is_held) {
        Outcome::Good if is_held => Outcome::GoodBut,
        other => other,
    };
    let event = match outcome {
        Outcome::Good => Event::Success,
        Outcome::GoodBut | Outcome::Failed => Event::Failure,
    };
    let mut notice = Notice::new(event, outcome, "backup", request.name.as_str(), now);
    notice.is_partial = request.is_partial;
    notice.trigger = Some(request.trigger.as_str().to_owned());
    notice.stage = report.stage.map(str::to_owned);
    notice.took_ms = Some(report.took_ms);
    notice.backup_id.clone_from(&report.backup_id);
    notice.warnings = report
        .warnings
        .iter()
        .map(|warning| warning.message.clone())
        .collect();
    let copies = report.storages.iter().map(|storage| Copy {
        name: storage.name.clone(),
        url: storage.url.clone(),
        stored: storage.stored,
    });
    notice.storages = copies.collect();
    if report.stored {
        notice.size_bytes = Some(report.size_bytes);
        notice.dump_bytes = Some(report.dump_bytes);
        notice.tables = Some(report.tables as u64);
        notice.rows = Some(report.rows);
        notice.safe = if is_held {
            "the backup is stored and proven, and held; earlier backups are unchanged".to_owned()
        } else {
            "the backup is stored and proven".to_owned()
        };
    } else {
        notice.safe = "nothing was stored; earlier backups are unchanged".to_owned();
    }
    note_failure(&mut notice, report.failure.as_ref());
    let why = why(report.failure.as_ref());
    let subject = match outcome {
        _ if is_held => {
            let line = held.map(|record| record.in_a_line()).unwrap_or_default();
            format!("backup HELD: {line}")
        }
        Outcome::Good => format!(
            "backup good: {}, {}, {} in {}",
            count(report.tables as u64, "table"),
            count(report.rows, "row"),
            bytes(report.size_bytes),
            took(report.took_ms)
        ),
        Outcome::GoodBut => format!("backup good, but: {why}"),
        Outcome::Failed => format!("backup FAILED: {why}"),
    };
    notice.verdict = if is_held {
        "stored and HELD: it lost what the backups before it had".to_owned()
    } else {
        verdict(outcome, "stored and proven")
    };
    notice.with_subject(&subject)
}

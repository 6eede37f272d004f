//! The notice of a restore, made from its report.

use jiff::Timestamp;

use super::{Report, Request, Source, Told};
use crate::op::notices::{database_of, note_failure, outcome, verdict};
use pgkeep_model::notice::{Event, Notice, Outcome};
use pgkeep_model::words::{count, took};

/// What is safe where nobody answered for the target.
const UNSURE: &str = "look at the target before you use it; the backup was not changed";

/// Makes the notice of single tables, or of their rows, that were restored into a database that holds others.
pub(super) fn of_parts(request: &Request, told: &Told<'_>, now: Timestamp) -> Notice {
    let database = database_of(told.backup_id)
        .or_else(|| named(request))
        .unwrap_or_else(|| told.target.to_owned());
    let outcome = outcome(told.failure.as_ref(), told.is_there);
    let mut notice = Notice::new(Event::Restore, outcome, "restore", database, now);
    notice.backup_id = told.backup_id.map(str::to_owned);
    notice.target = Some(told.target.to_owned());
    notice.took_ms = Some(told.took_ms);
    notice.warnings = told.warnings.clone();
    notice.rows = Some(told.rows);
    notice.tables = Some(told.tables as u64);
    notice.safe = if told.is_there {
        "the backup was not changed".to_owned()
    } else {
        safe_where_it_failed(told.is_unsure).to_owned()
    };
    note_failure(&mut notice, told.failure.as_ref());
    notice.verdict = verdict(outcome, "the rows match the dump");
    let subject = subject(outcome, told.target, told.rows, told.took_ms, &notice);
    notice.with_subject(&subject)
}

/// Makes the notice of a whole dump that was restored.
pub(super) fn of_whole(request: &Request, report: &Report, now: Timestamp) -> Notice {
    let of_id = match &request.source {
        Source::Stored { .. } => database_of(report.backup_id.as_deref().or(Some(&report.source))),
        Source::File(_) | Source::Stdin => None,
    };
    let database = of_id
        .or_else(|| named(request))
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
    } else {
        notice.safe = safe_where_it_failed(report.is_unsure).to_owned();
    }
    note_failure(&mut notice, report.failure.as_ref());
    let good = if report.compared {
        "every table matches the dump"
    } else {
        "restored, not compared"
    };
    notice.verdict = verdict(outcome, good);
    let subject = subject(
        outcome,
        &report.target,
        report.rows,
        report.took_ms,
        &notice,
    );
    notice.with_subject(&subject)
}

/// Returns the database whose backups were asked for, where somebody named it.
fn named(request: &Request) -> Option<String> {
    match &request.source {
        Source::Stored { database, .. } => database.as_ref().map(ToString::to_string),
        Source::File(_) | Source::Stdin => None,
    }
}

fn safe_where_it_failed(is_unsure: bool) -> &'static str {
    if is_unsure {
        UNSURE
    } else {
        "neither the target nor the backup was changed"
    }
}

fn subject(outcome: Outcome, target: &str, rows: u64, took_ms: u64, notice: &Notice) -> String {
    let message = notice
        .failure
        .as_ref()
        .map(|failure| failure.message.as_str());
    match outcome {
        Outcome::Good => format!(
            "restore done: {} into {target} in {}",
            count(rows, "row"),
            took(took_ms)
        ),
        Outcome::GoodBut => format!("restore done, but: {}", message.unwrap_or_default()),
        Outcome::Failed => format!("restore FAILED: {}", message.unwrap_or_default()),
    }
}

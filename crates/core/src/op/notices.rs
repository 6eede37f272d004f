//! From reports to notices: what is told of each run, and what becomes of a notice that did not arrive.
//!
//! A notice is made from the report alone, so that it cannot disagree with the exit code. One that did not arrive is a
//! warning and turns exit code 0 into 3; no other code changes.

use jiff::Timestamp;

use super::stored::Wanted;
use super::{backup, drill, restore, status, verify};
use crate::context::Context;
use crate::notify::Delivery;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::freshness::Freshness;
use pgkeep_model::id::BackupId;
use pgkeep_model::notice::{Copy, Event, Notice, Outcome, Trouble};
use pgkeep_model::words::{bytes, number, took};

/// Tells everybody who wants to hear of it.
pub(super) async fn tell(notice: &Notice, context: &Context) -> Vec<Delivery> {
    context.notices.tell(notice, &context.stop).await
}

/// Says what did not arrive.
pub fn undelivered(deliveries: &[Delivery]) -> Vec<String> {
    let words = deliveries.iter().filter_map(|delivery| {
        let notifier = &delivery.notifier;
        match (delivery.delivered, delivery.error.as_deref()) {
            (true, None) => None,
            (true, Some(why)) => Some(format!(
                "the notice to {notifier} was not delivered to all: {why}"
            )),
            (false, why) => Some(format!(
                "the notice to {notifier} was not delivered: {}",
                why.unwrap_or("nobody knows why")
            )),
        }
    });
    words.collect()
}

/// Makes a failure out of notices that did not arrive, where nothing else failed. `good` says what is good. A run that
/// was asked to stop meanwhile ends as one.
pub(super) fn settle(
    failure: &mut Option<Failure>,
    deliveries: &[Delivery],
    good: &str,
    context: &Context,
) {
    let words = undelivered(deliveries);
    let (Some(first), None) = (words.first(), &failure) else {
        return;
    };
    if context.stop.is_requested() {
        *failure = Some(context.stop.failure(good).and_safe(first));
        return;
    }
    let made = Failure::new(
        Kind::AfterGood,
        "notice_failed",
        format!("{good}, but {first}"),
    );
    let made = made.with_details(words[1..].to_vec());
    *failure = Some(made.hint("`notify` in the configuration says where notices go"));
}

/// Says how a run ended; `is_good` tells that what it was for is done, whatever failed behind it.
fn outcome(failure: Option<&Failure>, is_good: bool) -> Outcome {
    match (failure, is_good) {
        (None, _) => Outcome::Good,
        (Some(_), true) => Outcome::GoodBut,
        (Some(_), false) => Outcome::Failed,
    }
}

/// Makes the notice of a backup.
pub(super) fn of_backup(
    request: &backup::Request,
    report: &backup::Report,
    now: Timestamp,
) -> Notice {
    let outcome = outcome(report.failure.as_ref(), report.stored);
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
        notice.safe = "the backup is stored and proven".to_owned();
    } else {
        notice.safe = "nothing was stored; earlier backups are as they were".to_owned();
    }
    note_failure(&mut notice, report.failure.as_ref());
    let why = why(report.failure.as_ref());
    let subject = match outcome {
        Outcome::Good => format!(
            "backup good: {} tables, {} rows, {} in {}",
            number(report.tables as u64),
            number(report.rows),
            bytes(report.size_bytes),
            took(report.took_ms)
        ),
        Outcome::GoodBut => format!("backup good, but: {why}"),
        Outcome::Failed => format!("backup FAILED: {why}"),
    };
    notice.verdict = verdict(outcome, "stored and proven");
    notice.with_subject(&subject)
}

/// Makes the notice of a restore.
pub(super) fn of_restore(
    request: &restore::Request,
    report: &restore::Report,
    now: Timestamp,
) -> Notice {
    let database = match &request.source {
        restore::Source::Stored { database, .. } => {
            let of_id = database_of(report.backup_id.as_deref().or(Some(&report.source)));
            of_id.or_else(|| database.as_ref().map(ToString::to_string))
        }
        restore::Source::File(_) | restore::Source::Stdin => None,
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

/// Makes the notice of rows that were merged into tables.
pub(super) fn of_merge(
    request: &restore::rows::Request,
    report: &restore::rows::Report,
    now: Timestamp,
) -> Notice {
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

/// Makes the notice of tables that were restored with their structure.
pub(super) fn of_tables(report: &restore::tables::Report, now: Timestamp) -> Notice {
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

/// Tables that were brought into a database that holds others.
struct Brought<'a> {
    database: Option<String>,
    backup_id: Option<&'a String>,
    target: &'a str,
    rows: u64,
    tables: usize,
    took_ms: u64,
    is_there: bool,
    warnings: &'a [String],
    failure: Option<&'a Failure>,
}

impl Brought<'_> {
    fn notice(self, now: Timestamp) -> Notice {
        let database = self.database.unwrap_or_else(|| self.target.to_owned());
        let outcome = outcome(self.failure, self.is_there);
        let mut notice = Notice::new(Event::Restore, outcome, "restore", database, now);
        notice.backup_id = self.backup_id.cloned();
        notice.target = Some(self.target.to_owned());
        notice.took_ms = Some(self.took_ms);
        notice.warnings = self.warnings.to_vec();
        notice.rows = Some(self.rows);
        notice.tables = Some(self.tables as u64);
        notice.safe = if self.is_there {
            "the backup was not changed".to_owned()
        } else {
            "the target is as it was, and so is the backup".to_owned()
        };
        note_failure(&mut notice, self.failure);
        notice.verdict = verdict(outcome, "the rows are as they were dumped");
        let subject = subject_of_restore(outcome, self.target, self.rows, self.took_ms, &notice);
        notice.with_subject(&subject)
    }
}

fn subject_of_restore(
    outcome: Outcome,
    target: &str,
    rows: u64,
    took_ms: u64,
    notice: &Notice,
) -> String {
    let message = notice
        .failure
        .as_ref()
        .map(|failure| failure.message.as_str());
    match outcome {
        Outcome::Good => format!(
            "restore done: {} rows into {target} in {}",
            number(rows),
            took(took_ms)
        ),
        Outcome::GoodBut => format!("restore done, but: {}", message.unwrap_or_default()),
        Outcome::Failed => format!("restore FAILED: {}", message.unwrap_or_default()),
    }
}

/// Makes the notice of a drill.
pub(super) fn of_drill(request: &drill::Request, report: &drill::Report, now: Timestamp) -> Notice {
    let named = request.database.as_ref().map(ToString::to_string);
    let wanted = match &request.wanted {
        Wanted::Id(id) => Some(id.database().to_string()),
        Wanted::Latest => None,
    };
    let database = database_of(report.backup_id.as_deref())
        .or(wanted)
        .or(named);
    let database = database.unwrap_or_else(|| "the latest backup".to_owned());
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
    notice.safe = "the backup was not changed, and what the drill made is gone".to_owned();
    note_failure(&mut notice, report.failure.as_ref());
    notice.verdict = verdict(outcome, "the backup can be restored");
    let back = took(report.recovery_ms());
    let subject = match outcome {
        Outcome::Good => format!(
            "drill passed: {} rows of {} tables were back in {back}",
            number(notice.rows.unwrap_or_default()),
            number(notice.tables.unwrap_or_default()),
        ),
        Outcome::GoodBut => format!("drill passed, but: {}", why(report.failure.as_ref())),
        Outcome::Failed => format!("drill FAILED: {}", why(report.failure.as_ref())),
    };
    notice.with_subject(&subject)
}

/// Makes the notice of damage that `verify` found in the backups of one database.
pub(super) fn of_damage(
    database: &str,
    copies: &[&verify::CopyReport],
    failure: &Failure,
    now: Timestamp,
) -> Notice {
    let mut notice = Notice::new(Event::Failure, Outcome::Failed, "verify", database, now);
    notice.backup_id = copies.first().map(|copy| copy.id.clone());
    notice.storages = copies
        .iter()
        .map(|copy| Copy {
            name: copy.storage.clone(),
            url: copy.url.clone(),
            stored: false,
        })
        .collect();
    notice.safe =
        "the damaged bytes were not changed, and no such copy is chosen as the latest".to_owned();
    note_failure(&mut notice, Some(failure));
    notice.verdict = "DAMAGED".to_owned();
    notice.with_subject(&format!("verify found DAMAGE: {}", failure.message))
}

/// Makes the notice of a database whose backups are stale, or lack copies, or were not drilled for long; none where
/// nothing of the kind is the matter.
pub(super) fn of_status(
    status: &status::Status,
    code: Option<&Failure>,
    now: Timestamp,
) -> Option<Notice> {
    let (first, rest) = status.alerts.split_first()?;
    let mut notice = stale(&status.database, first, now);
    notice.exit_code = match (status.freshness, code) {
        (Freshness::Stale, _) => Kind::Stale.exit_code(),
        (_, Some(failure)) if failure.kind != Kind::Stale => failure.kind.exit_code(),
        _ => 0,
    };
    notice.backup_id = status.newest_good.as_ref().map(|newest| newest.id.clone());
    notice.size_bytes = status.newest_good.as_ref().map(|newest| newest.size_bytes);
    if let Some(failure) = &mut notice.failure {
        failure.details = rest.to_vec();
    }
    let is_new = |warning: &&String| !status.alerts.contains(*warning);
    notice.warnings = status.warnings.iter().filter(is_new).cloned().collect();
    notice.safe = match &status.newest_good {
        Some(newest) => format!("the newest good backup is `{}`", newest.id),
        None => "there is no good backup".to_owned(),
    };
    let next = "`pgkeep status` shows the last runs; `pgkeep backup` makes a backup now";
    notice.next = vec![next.to_owned()];
    Some(notice)
}

/// Makes the notice that nobody can tell how a database stands.
pub(super) fn of_no_status(database: &str, failure: &Failure, now: Timestamp) -> Notice {
    let mut notice = stale(database, &failure.message, now);
    note_failure(&mut notice, Some(failure));
    notice.safe = "nobody can tell: no storage answered".to_owned();
    notice
}

fn stale(database: &str, why: &str, now: Timestamp) -> Notice {
    let mut notice = Notice::new(Event::Stale, Outcome::Failed, "status", database, now);
    notice.verdict = "needs attention".to_owned();
    notice.failure = Some(Trouble {
        id: "stale".to_owned(),
        message: why.to_owned(),
        details: Vec::new(),
        causes: Vec::new(),
    });
    notice.with_subject(&format!("backups need attention: {why}"))
}

/// Takes over what a failure says: the same words, code and next moves as on the terminal.
fn note_failure(notice: &mut Notice, failure: Option<&Failure>) {
    let Some(failure) = failure else { return };
    notice.exit_code = failure.kind.exit_code();
    notice.next.clone_from(&failure.hints);
    notice.failure = Some(Trouble {
        id: failure.id.to_owned(),
        message: failure.message.clone(),
        details: failure.details.clone(),
        causes: failure.causes.clone(),
    });
}

fn verdict(outcome: Outcome, good: &str) -> String {
    match outcome {
        Outcome::Good => good.to_owned(),
        Outcome::GoodBut => format!("{good}, but something after it failed"),
        Outcome::Failed => "FAILED".to_owned(),
    }
}

/// Returns a failure's message without its beginning, which the subject says already.
fn why(failure: Option<&Failure>) -> &str {
    let message = failure.map_or("", |failure| failure.message.as_str());
    let is_beginning = |before: &str| {
        let verbs = ["backup of `", "drill of `", "backup `"];
        let is_verb = verbs.iter().any(|verb| before.starts_with(verb));
        is_verb && before.matches('`').count() == 2
    };
    for mark in [" failed: ", " is good, but "] {
        if let Some((before, rest)) = message.split_once(mark)
            && is_beginning(before)
        {
            return rest;
        }
    }
    message
}

fn database_of(id: Option<&str>) -> Option<String> {
    let id: BackupId = id?.parse().ok()?;
    Some(id.database().to_string())
}

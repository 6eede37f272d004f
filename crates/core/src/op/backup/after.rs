//! What follows a run: pruning behind a good backup, and the record of every run.
//!
//! The backup is good whatever happens here; a failure here is [`Kind::AfterGood`].

use bytes::Bytes;
use jiff::Timestamp;

use super::notice;
use super::{Report, Request, VERB};
use crate::context::Context;
use crate::notify::Starting;
use crate::op::lock::Hold;
use crate::op::prune::{self, Made};
use crate::op::{history, notices};
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::id::BackupId;
use pgkeep_model::keys::{Part, Place};
use pgkeep_model::manifest::Trigger;
use pgkeep_model::pin::Pin;
use pgkeep_model::scan::Finding;

/// Returns the objects that are there from the backup's first moment on, so that no prune can come in between.
pub(super) fn marks(request: &Request, place: &Place, now: Timestamp) -> Vec<(String, Bytes)> {
    let mark = |part, reason: &str| {
        let pin = Pin::new(place.id.clone(), now, reason);
        (place.key(part, ""), Bytes::from(pin.to_json()))
    };
    let pin = request.pin.as_ref();
    let is_pre_deploy = request.trigger == Trigger::PreDeploy;
    pin.map(|reason| mark(Part::Pin, reason))
        .into_iter()
        .chain(is_pre_deploy.then(|| mark(Part::PreDeploy, request.trigger.as_str())))
        .collect()
}

/// Prunes the storages that took the backup; a storage that did not keeps all it has.
pub(super) async fn prune_behind(
    request: &Request,
    report: &mut Report,
    hold: &Hold,
    context: &Context,
) {
    let id = report.backup_id.as_ref().and_then(|id| id.parse().ok());
    let (Some(policy), Some(id), true) = (&request.retention, id, report.stored) else {
        return;
    };
    if request.is_partial {
        return;
    }
    let pruning = prune::Request {
        database: request.name.clone(),
        storages: request.storages.clone(),
        policy: policy.clone(),
        keep_runs: request.keep_runs,
        allow_mass_delete: false,
        dry_run: false,
        must_exist: false,
    };
    let stored = report.storages.iter().map(|storage| storage.stored);
    let made = Made {
        id,
        stored: stored.collect(),
    };
    let mut pruned = prune::prune(&pruning, Some(hold), Some(&made), context).await;
    if let Some(failure) = pruned.failure.take() {
        report.stage.get_or_insert("prune");
        add(&mut report.failure, after_good(&made.id, failure));
    }
    report.prune = Some(pruned);
}

fn after_good(id: &BackupId, failure: Failure) -> Failure {
    let kind = match failure.kind {
        Kind::Interrupted | Kind::Terminated => failure.kind,
        _ => Kind::AfterGood,
    };
    let message = format!(
        "backup `{id}` is good, but a follow-up step failed: {}",
        failure.message
    );
    Failure {
        kind,
        message,
        ..failure
    }
}

/// The first failure decides; a further one is reported under it.
fn add(first: &mut Option<Failure>, further: Failure) {
    match first {
        Some(first) => {
            first.details.push(further.message);
            first.details.extend(further.details);
            first.hints.extend(further.hints);
        }
        None => *first = Some(further),
    }
}

/// Tells that a backup begins. A partial one is not what a dead-man ping waits for.
pub(super) fn tell_start(request: &Request, context: &Context) -> Starting {
    if request.is_partial {
        Starting::default()
    } else {
        context.notices.start(request.name.as_str())
    }
}

/// Tells how the run ended. What did not arrive is a warning of its report.
pub(super) async fn tell(request: &Request, report: &mut Report, context: &Context) {
    let notice = notice::of(request, report, context.clock.now());
    report.notices = notices::tell(&notice, context).await;
    let undelivered = notices::undelivered(&report.notices);
    let warning = |words| Finding::new("notice_failed", words, None);
    report.warnings.extend(undelivered.into_iter().map(warning));
    let id = report.backup_id.as_deref().unwrap_or_default();
    let good = format!("backup `{id}` is good");
    notices::settle(&mut report.failure, &report.notices, &good, context);
}

/// Writes the record of a run, however it ended.
pub(super) async fn keep_record(
    request: &Request,
    report: &Report,
    started_at: Timestamp,
    context: &Context,
) {
    let made: Option<BackupId> = report.backup_id.as_ref().and_then(|id| id.parse().ok());
    let run = made
        .or_else(|| request.origin.run.clone())
        .unwrap_or_else(|| history::run_id(&request.name, started_at, context));
    let failure = report.failure.as_ref();
    let mut record = history::record(run, VERB, started_at, failure, context).from(&request.origin);
    record.trigger = Some(request.trigger.as_str().to_owned());
    record.reason.clone_from(&request.pin);
    record.undelivered = notices::undelivered(&report.notices);
    record.anomaly = report.anomaly.clone();
    if report.stored {
        record.backup_id.clone_from(&report.backup_id);
        record.size_bytes = Some(report.size_bytes);
        record.rows = Some(report.rows);
        record.tables = Some(report.tables as u64);
        record.removed = report.prune.as_ref().map(prune::Report::removed);
        record.refused = (report.prune.as_ref())
            .map(prune::Report::refused)
            .unwrap_or_default();
    }
    history::keep_record(&request.storages, record, context).await;
}

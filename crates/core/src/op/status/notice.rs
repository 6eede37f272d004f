//! The notice of a database that needs attention, made from its status.

use jiff::Timestamp;

use super::Status;
use crate::op::notices::note_failure;
use pgkeep_model::anomaly::ANOMALY;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::freshness::Freshness;
use pgkeep_model::notice::{Event, Notice, Outcome, Trouble};

/// Makes the notice of a database whose backups are stale, or lack copies, or were not drilled for long; none where
/// nothing of the kind is the matter.
pub(super) fn of(status: &Status, code: Option<&Failure>, now: Timestamp) -> Option<Notice> {
    let (first, rest) = status.alerts.split_first()?;
    let mut notice = stale(&status.database, first, now);
    notice.exit_code = match (status.freshness, code) {
        (Freshness::Stale, _) => Kind::Stale.exit_code(),
        _ if status.is_newest_held() => Kind::Proof.exit_code(),
        // Another database's.
        (_, Some(failure)) if failure.id == ANOMALY => 0,
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
    let next = "`pgkeep status` shows the last runs; `pgkeep backup` makes a new backup";
    notice.next = vec![next.to_owned()];
    if let Some(held) = status.held.first().filter(|_| status.is_newest_held()) {
        let id = &held.id;
        notice.next = vec![format!(
            "if it is as it should be: `pgkeep accept {id} 'REASON'` makes it the new normal"
        )];
    }
    Some(notice)
}

/// Makes the notice that it is not known how a database stands.
pub(super) fn of_no_status(database: &str, failure: &Failure, now: Timestamp) -> Notice {
    let mut notice = stale(database, &failure.message, now);
    note_failure(&mut notice, Some(failure));
    notice.safe = "not known: no storage answered".to_owned();
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

//! The notice of damage that `verify` found.

use jiff::Timestamp;

use super::place_in_words;
use super::report::CopyReport;
use crate::op::notices::note_failure;
use pgkeep_model::failure::Failure;
use pgkeep_model::notice::{Copy, Event, Notice, Outcome};

/// Makes the notice of damage that `verify` found in the backups of one database.
pub(super) fn of_damage(
    database: &str,
    copies: &[&CopyReport],
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
        "the damaged bytes were not changed, and a damaged copy is never chosen as the latest"
            .to_owned();
    note_failure(&mut notice, Some(failure));
    notice.verdict = "DAMAGED".to_owned();
    let problems = copies.iter().flat_map(|copy| copy.problems.first());
    let why = problems.map(place_in_words).next().unwrap_or_default();
    notice.with_subject(&format!("verify found DAMAGE: {}: {why}", failure.message))
}

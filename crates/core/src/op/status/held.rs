//! What `status` says of backups that are held.

use jiff::Timestamp;

use super::{Held, Status};
use crate::op::accept::held_for;
use crate::op::stored::{Listing, StoredBackup};
use pgkeep_model::anomaly::ANOMALY;
use pgkeep_model::failure::{Failure, Kind};

/// Of how many held backups, the newest first, is read what they are held for: who sees five looks at them.
const HELD_READ: usize = 5;

/// Most signs of one backup that stand in an alert.
const MAX_SIGNS: usize = 5;

/// Finds those that are held, newest first.
pub(super) async fn of(listing: &Listing, backups: &[&StoredBackup], now: Timestamp) -> Vec<Held> {
    let is_told =
        |backup: &StoredBackup| backup.is_held() && backup.is_good() && !listing.is_ahead(backup);
    let mut all = Vec::new();
    for backup in backups.iter().rev().filter(|backup| is_told(backup)) {
        let record = if all.len() < HELD_READ {
            held_for(listing, backup).await
        } else {
            None
        };
        let id = &backup.place.id;
        all.push(Held {
            id: id.to_string(),
            started_at: id.started_at(),
            age_seconds: now.as_second() - id.started_at().as_second(),
            seen: record.map(|record| record.reasons()).unwrap_or_default(),
        });
    }
    all
}

/// Tells whether the newest good backup is held.
pub(super) fn is_newest_held(listing: &Listing, backups: &[&StoredBackup]) -> bool {
    let newest = backups
        .iter()
        .rfind(|backup| backup.is_good() && !listing.is_ahead(backup));
    newest.is_some_and(|backup| backup.is_held())
}

/// Says which tables the newest backup is held for, and by how much.
pub(super) fn alert(status: &Status) -> Option<String> {
    let held = status.held.first().filter(|_| status.is_newest_held)?;
    let mut seen: Vec<&str> = held.seen.iter().map(String::as_str).collect();
    let more = seen.len().saturating_sub(MAX_SIGNS);
    seen.truncate(MAX_SIGNS);
    let rest = match more {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let what = if seen.is_empty() {
        "it lost what the ones before it had".to_owned()
    } else {
        seen.join(", ")
    };
    Some(format!(
        "the newest backup `{}` is held and counts for nothing: {what}{rest}; `prune` waits",
        held.id
    ))
}

/// Says that the newest one is held, or that older ones are and wait for somebody.
pub(super) fn warnings(status: &Status) -> Vec<String> {
    let older = status.held.len() - usize::from(status.is_newest_held);
    let first_older = status.held.get(usize::from(status.is_newest_held));
    let waiting = first_older.map(|held| {
        let (noun, verb) = if older == 1 {
            ("backup", "is")
        } else {
            ("backups", "are")
        };
        format!(
            "{older} older {noun} {verb} held and kept until `pgkeep accept`, such as `{}`",
            held.id
        )
    });
    alert(status).into_iter().chain(waiting).collect()
}

/// Makes the failure of databases whose newest backup is held.
pub(super) fn failure(databases: &[Status]) -> Option<Failure> {
    let held: Vec<&Status> = databases.iter().filter(|one| one.is_newest_held).collect();
    let first = held.first()?.held.first()?;
    let names: Vec<String> = held
        .iter()
        .map(|one| format!("`{}`", one.database))
        .collect();
    let details = held
        .iter()
        .filter_map(|one| Some(format!("{}: {}", one.database, alert(one)?)));
    let message = format!("the newest backup is held: {}", names.join(", "));
    let failure =
        Failure::new(Kind::Proof, ANOMALY, message).with_details(details.collect::<Vec<_>>());
    Some(failure.hint(format!(
        "if it is as it should be: `pgkeep accept {} 'REASON'` makes it the new normal",
        first.id
    )))
}

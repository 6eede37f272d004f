//! When a drill passed last, by the notes beside the backups.

use jiff::Timestamp;
use serde::Deserialize;

use crate::op::stored::{Listing, StoredBackup};
use pgkeep_model::keys::Part;
use pgkeep_model::runs::MAX_RECORD_BYTES;

/// How many notes are read: one a month, and a backup that was drilled is seldom drilled again.
const NOTES_READ: usize = 5;

/// What is of interest of a note.
#[derive(Deserialize)]
struct DrillNote {
    passed_at: Timestamp,
}

/// Reads the notes beside the newest of these backups that have one.
pub(crate) async fn passed_at(listing: &Listing, backups: &[&StoredBackup]) -> Option<Timestamp> {
    let mut passed_at = None;
    let drilled = backups.iter().rev().filter(|backup| backup.is_drilled());
    for backup in drilled.take(NOTES_READ) {
        let key = backup.place.key(Part::Drill, "");
        for (&at, copy) in &backup.copies {
            if copy.is_drilled()
                && let Ok(bytes) = listing.storages[at]
                    .storage
                    .get(&key, MAX_RECORD_BYTES)
                    .await
                && let Ok(note) = serde_json::from_slice::<DrillNote>(&bytes)
            {
                passed_at = passed_at.max(Some(note.passed_at));
            }
        }
    }
    passed_at
}

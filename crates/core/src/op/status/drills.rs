//! When a drill passed last, by the notes beside the backups.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

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
        for &at in backup.copies.keys() {
            let note = note::<DrillNote>(listing, backup, at).await;
            passed_at = passed_at.max(note.map(|note| note.passed_at));
        }
    }
    passed_at
}

/// Reads the note about the last drill of a backup out of the storage at a position; none where it has none that can be
/// read.
pub async fn note<T: DeserializeOwned>(
    listing: &Listing,
    backup: &StoredBackup,
    at: usize,
) -> Option<T> {
    backup.copies.get(&at).filter(|copy| copy.is_drilled())?;
    let storage = &listing.storages[at].storage;
    let key = backup.place.key(Part::Drill, "");
    let bytes = storage.get(&key, MAX_RECORD_BYTES).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}

//! Gathers the backups of a database by whom they are encrypted for.

use serde::Deserialize;

use crate::copies::listing::{Listing, StoredBackup, read_manifest};
use pgkeep_model::encryption::{EncryptionRecord, Fingerprint, are_words};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::key_sets::{KeySet, KeySets};
use pgkeep_model::keys::Listed;

/// Largest note on the recipients that is read.
const MAX_NOTE_BYTES: u64 = 1024 * 1024;

/// The note on the recipients of a backup.
#[derive(Deserialize)]
struct Note {
    recipients: Vec<String>,
}

/// Returns the sets, the newest backup's first. Each takes one small request, for the names of its recipients.
pub(crate) async fn sets(listing: &Listing, database: &DatabaseName) -> KeySets {
    let is_of_it = |backup: &&StoredBackup| {
        let place = &backup.place;
        place.id.database() == database && !place.is_partial && backup.is_good()
    };
    let newest = listing.backups.iter().rfind(is_of_it);
    let is_newest_plain = newest.is_some_and(|backup| !backup.is_encrypted());
    let mut sets: Vec<KeySet> = Vec::new();
    let encrypted = |backup: &&StoredBackup| is_of_it(backup) && backup.is_encrypted();
    for backup in listing.backups.iter().rev().filter(encrypted) {
        let noted = backup.copies.values().find_map(Listed::recipients);
        let record = match noted {
            Some(_) => None,
            None => encryption(listing, backup).await,
        };
        let of_manifest = record.as_ref().map(EncryptionRecord::fingerprint);
        let Some(fingerprint) = noted.map(|(_, fingerprint)| fingerprint).or(of_manifest) else {
            continue;
        };
        match sets.iter_mut().find(|set| set.fingerprint == fingerprint) {
            Some(set) => {
                set.backups += 1;
                set.since = backup.place.id.started_at();
            }
            None => sets.push(KeySet {
                recipients: match record {
                    Some(record) => Some(record.recipients),
                    None => recipients(listing, backup).await,
                },
                backups: 1,
                newest: backup.place.id.to_string(),
                since: backup.place.id.started_at(),
                proven_at: proven(listing, database, &fingerprint).map(BackupId::started_at),
                fingerprint,
            }),
        }
    }
    KeySets {
        sets,
        is_newest_plain,
    }
}

/// Returns the last run in which a key opened a backup for these recipients.
pub(super) fn proven<'a>(
    listing: &'a Listing,
    database: &DatabaseName,
    recipients: &Fingerprint,
) -> Option<&'a BackupId> {
    let of = (database.clone(), *recipients);
    let runs = listing.proofs.get(&of)?;
    // One from the future says nothing: a clock is or was wrong.
    let past = runs.iter().filter(|run| !listing.is_in_the_future(run));
    past.max_by_key(|run| run.started_at())
}

/// Reads whom a backup is encrypted for out of the note beside it, or else out of its manifest.
async fn recipients(listing: &Listing, backup: &StoredBackup) -> Option<Vec<String>> {
    for (&at, copy) in &backup.copies {
        let Some((key, fingerprint)) = copy.recipients() else {
            continue;
        };
        let storage = &listing.storages[at].storage;
        let Ok(bytes) = storage.get(&key, MAX_NOTE_BYTES).await else {
            continue;
        };
        let note: Option<Note> = serde_json::from_slice(&bytes).ok();
        let recipients = note.map(|note| note.recipients);
        // A note that names others than its key is wrong.
        let is_right = |all: &Vec<String>| Fingerprint::of(all) == fingerprint && are_words(all);
        if let Some(recipients) = recipients.filter(is_right) {
            return Some(recipients);
        }
    }
    let record = encryption(listing, backup).await;
    record.map(|record| record.recipients)
}

async fn encryption(listing: &Listing, backup: &StoredBackup) -> Option<EncryptionRecord> {
    let read = read_manifest(listing, backup).await;
    read.ok().and_then(|(manifest, _)| manifest.encryption)
}

//! Which databases were drilled longest ago.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};

use super::{READS_AT_ONCE, records_since, runs_since};
use crate::copies::listing::{Listing, NamedStorage, StoredBackup};
use crate::op::status::drills::passed_at;
use pgkeep_model::failure::Result;
use pgkeep_model::id::DatabaseName;

/// A drill that failed within this time gives way to all others, so that it does not stop them for ever.
const FAILED_WITHIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Returns the databases that have a good backup, the one whose last passed drill is oldest first, and before it those
/// that never passed one. Those whose last drill of this week failed come last.
///
/// It takes one listing, and for each database the note about its last drill.
pub async fn oldest(
    databases: &[DatabaseName],
    storages: &[NamedStorage],
    now: Timestamp,
) -> Result<Vec<DatabaseName>> {
    let listing = &Listing::read(storages.to_vec(), None, now).await?;
    let since = now.saturating_sub(FAILED_WITHIN).unwrap_or(Timestamp::MIN);
    let runs = &runs_since(listing, since);
    let mut backups: BTreeMap<&DatabaseName, Vec<&StoredBackup>> = BTreeMap::new();
    for backup in listing.backups.iter().filter(|one| listing.counts(one)) {
        let of_database = backups.entry(backup.place.id.database()).or_default();
        of_database.push(backup);
    }
    let with_backups = databases
        .iter()
        .filter_map(|name| Some((name, backups.get(name)?)));
    let questions = with_backups.map(|(name, backups)| async move {
        let passed = passed_at(listing, backups).await;
        let lately = records_since(listing, runs, name, since).await;
        let mut drills = lately.iter().filter(|record| record.verb == "drill");
        let failed = drills
            .next()
            .filter(|record| !record.is_success() && Some(record.started_at) > passed)
            .map(|record| record.started_at);
        (failed, passed, name)
    });
    // Collected first: a stream over borrowed items would hold them across awaits.
    let asked: Vec<_> = questions.collect();
    let mut found: Vec<_> = stream::iter(asked).buffered(READS_AT_ONCE).collect().await;
    found.sort();
    Ok(found.into_iter().map(|(.., name)| name.clone()).collect())
}

/// Tells whether a drill of a database began after `since`: another worker's.
pub async fn is_drilled_since(
    database: &DatabaseName,
    storages: &[NamedStorage],
    since: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let listing = Listing::read(storages.to_vec(), Some(database), now).await?;
    let runs = runs_since(&listing, since);
    let lately = records_since(&listing, &runs, database, since).await;
    Ok(lately.iter().any(|record| record.verb == "drill"))
}

//! What the pages show, made out of a snapshot and the runs of this process. Pure.

mod backup;
mod calendar;
mod database;
mod fate;
mod history;
mod known;
mod overview;
mod restore;
mod run;
mod wall;

use jiff::Timestamp;
use pgkeep_model::id::{BackupId, DatabaseName};

pub use backup::{Backup, CopyState, backup};
pub use calendar::{Calendar, CalendarRow, calendar};
pub use database::{Database, Next, StoredRow, database};
pub use fate::{Answer, Check, Light, light};
pub use history::{Filter, History, ROWS, Records, history};
pub use known::{DrillCell, Newest};
pub use overview::{DatabaseRow, Overview, Running, StorageLine, Totals, overview};
pub use restore::{Restore, restore};
pub use run::{RunRow, RunState, of_live, of_record};
pub use wall::badge;

use crate::snapshot::Snapshot;
use pgkeep_core::op::status::Status;
use pgkeep_core::op::stored::StoredBackup;

/// Finds how a database stands.
pub(crate) fn status<'s>(snapshot: &'s Snapshot, name: &DatabaseName) -> Option<&'s Status> {
    let mut all = snapshot.report.databases.iter();
    all.find(|status| status.database == name.as_str())
}

/// Finds a stored backup.
pub(crate) fn stored<'s>(snapshot: &'s Snapshot, id: &str) -> Option<&'s StoredBackup> {
    let id: BackupId = id.parse().ok()?;
    // Sorted by start, oldest first; of one moment there are few.
    let all = &snapshot.listing.backups;
    let from = all.partition_point(|backup| backup.place.id.started_at() < id.started_at());
    all[from..]
        .iter()
        .take_while(|backup| backup.place.id.started_at() == id.started_at())
        .find(|backup| backup.place.id == id)
}

/// Tells whether a storage is to hold the backups of a database.
pub(crate) fn is_meant(snapshot: &Snapshot, name: &str, storage: &str) -> bool {
    let database = snapshot.config.database(name);
    database.is_none_or(|database| {
        database.storages.is_empty() || database.storages.iter().any(|one| one == storage)
    })
}

/// How many good copies a backup has, and in how many storages it should be.
pub(crate) fn copies(snapshot: &Snapshot, name: &str, backup: &StoredBackup) -> (usize, usize) {
    let states = snapshot.listing.states.iter().enumerate();
    let meant = states.filter(|(_, state)| is_meant(snapshot, name, &state.name));
    meant.fold((0, 0), |(good, all), (at, state)| {
        let is_good =
            state.error.is_none() && backup.copies.get(&at).is_some_and(|copy| copy.is_good());
        (good + usize::from(is_good), all + 1)
    })
}

/// How long ago a moment is, in seconds.
pub(crate) fn age_of(at: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - at.as_second()
}

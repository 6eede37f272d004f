//! The work list of workers that share many databases: what is due, and what was drilled longest ago.
//!
//! The storages are the list. Workers know nothing of each other: what one runs is kept from the others by its lease,
//! and what it ran by its record. The list is only where to look; that a slot is run once is seen to under the lease.

mod due;
mod oldest;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::copies::listing::Listing;
use crate::op::history::read_records;
use pgkeep_model::due::Plan;
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::runs::RunRecord;

pub use due::{Turn, due};
pub use oldest::{is_drilled_since, oldest};

/// How many databases are asked about at once.
const READS_AT_ONCE: usize = 16;

/// A schedule of one database.
pub struct Scheduled {
    /// The database.
    pub database: DatabaseName,
    /// When it is due.
    pub plan: Plan,
}

/// Returns the ids of the runs of each database that began at `since` or later, oldest first.
fn runs_since(listing: &Listing, since: Timestamp) -> BTreeMap<&DatabaseName, Vec<&BackupId>> {
    let mut found: BTreeMap<&DatabaseName, Vec<&BackupId>> = BTreeMap::new();
    let newest = listing.runs.keys().rev();
    for run in newest.take_while(|run| run.started_at() >= since) {
        found.entry(run.database()).or_default().push(run);
    }
    found
}

/// Reads the records of a database's runs that began at `since` or later.
async fn records_since(
    listing: &Listing,
    runs: &BTreeMap<&DatabaseName, Vec<&BackupId>>,
    database: &DatabaseName,
    since: Timestamp,
) -> Vec<RunRecord> {
    let all = runs.get(database).into_iter().flatten().copied();
    let lately: Vec<&BackupId> = all.filter(|run| run.started_at() >= since).collect();
    read_records(listing, lately.into_iter()).await
}

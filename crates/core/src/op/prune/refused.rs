//! What the last prunes were refused by a storage, out of their runs' records.
//!
//! A lock that outlives retention leaves backups behind in every run. They were to go before, and were not let go: they
//! must not make tomorrow's plan look like one that removes half of everything at once. Read only where it would.

use std::collections::BTreeSet;

use crate::op::removal::Right;
use crate::op::stored::NamedStorage;
use pgkeep_model::failure::Result;
use pgkeep_model::keys::run_of_key;
use pgkeep_model::runs::{MAX_RECORD_BYTES, RunRecord};
use pgkeep_storage::Object;

/// How many records are read. Pins, drills and restores leave some in between, and so does a prune that refused its plan.
const MAX_READ: usize = 20;

/// Returns the ids of backups that were to go lately and that this storage kept. What another one kept says nothing of it.
pub(super) async fn lately(
    named: &NamedStorage,
    objects: &[Object],
    right: &Right<'_>,
) -> Result<BTreeSet<String>> {
    let mut runs: Vec<_> = objects
        .iter()
        .filter_map(|object| Some((run_of_key(&object.key)?, &object.key)))
        .collect();
    runs.sort_by_key(|(run, _)| std::cmp::Reverse(run.started_at()));
    let mut refused = BTreeSet::new();
    for (run, key) in runs.into_iter().take(MAX_READ) {
        let read = right.ask(named.storage.get(key, MAX_RECORD_BYTES)).await?;
        let record = read.ok().and_then(|bytes| RunRecord::read(&bytes, &run));
        let here = record.and_then(|mut record| record.refused.remove(&named.name));
        refused.extend(here.into_iter().flatten());
    }
    Ok(refused)
}

//! Run records: written at the end of a run that matters, read by `status` and by the server.
//!
//! A record that cannot be written is told in the log and changes nothing else: history is no part of any promise to
//! keep data.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use jiff::Timestamp;

use super::stored::{Listing, NamedStorage};
use crate::context::Context;
use pgkeep_model::failure::Failure;
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::keys::run_key;
use pgkeep_model::runs::{MAX_RECORD_BYTES, RunRecord};

/// How long writing a record may take; a run that is asked to stop has less.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const STOPPED_WRITE_LIMIT: Duration = Duration::from_secs(1);

/// How many records are asked for at once.
const READS_AT_ONCE: usize = 16;

/// Reads the records of these runs, each from the first storage that has it, newest first. One that cannot be read is left
/// out.
pub async fn read_records<'a>(
    listing: &Listing,
    runs: impl Iterator<Item = &'a BackupId>,
) -> Vec<RunRecord> {
    let read = |run: &BackupId| {
        let key = run_key(run);
        let places = listing.runs.get(run).into_iter().flatten();
        let storages: Vec<_> = places
            .map(|&at| listing.storages[at].storage.clone())
            .collect();
        let run = run.clone();
        async move {
            for storage in storages {
                if let Ok(bytes) = storage.get(&key, MAX_RECORD_BYTES).await
                    && let Some(record) = RunRecord::read(&bytes, &run)
                {
                    return Some(record);
                }
            }
            None
        }
    };
    // Collected first: a stream over borrowed items would hold them across awaits.
    let reads: Vec<_> = runs.map(read).collect();
    let mut records: Vec<RunRecord> = stream::iter(reads)
        .buffered(READS_AT_ONCE)
        .filter_map(|record| async { record })
        .collect()
        .await;
    // Ids know whole seconds only.
    records.sort_by_key(|record| std::cmp::Reverse(record.started_at));
    records
}

/// Records that were read, by database: they never change, so a server reads each once.
pub struct Records {
    of_one: usize,
    known: HashMap<BackupId, Arc<RunRecord>>,
    by_database: BTreeMap<DatabaseName, Vec<Arc<RunRecord>>>,
}

impl Records {
    /// Makes an empty memory for the newest `of_one` records of each database.
    pub fn new(of_one: usize) -> Self {
        Self {
            of_one,
            known: HashMap::new(),
            by_database: BTreeMap::new(),
        }
    }

    /// Returns how many records of a database it reads at most.
    pub fn of_one(&self) -> usize {
        self.of_one
    }

    /// Begins a look at a new listing: records that are asked for no more are forgotten.
    pub fn begin(&mut self) {
        let all = std::mem::take(&mut self.by_database)
            .into_values()
            .flatten();
        self.known = all.map(|record| (record.id.clone(), record)).collect();
    }

    /// Returns the newest records of a database, newest first. One that cannot be read is left out.
    pub async fn newest(
        &mut self,
        listing: &Listing,
        database: &DatabaseName,
    ) -> &[Arc<RunRecord>] {
        if !self.by_database.contains_key(database) {
            let runs = listing.runs.keys().rev();
            let newest = runs.filter(|run| run.database() == database);
            let mut found = Vec::new();
            let mut unknown = Vec::new();
            for run in newest.take(self.of_one) {
                match self.known.remove(run) {
                    Some(record) => found.push(record),
                    None => unknown.push(run),
                }
            }
            let read = read_records(listing, unknown.into_iter()).await;
            found.extend(read.into_iter().map(Arc::new));
            found.sort_by_key(|record| std::cmp::Reverse(record.started_at));
            self.by_database.insert(database.clone(), found);
        }
        self.by_database.get(database).map_or(&[], Vec::as_slice)
    }
}

/// Makes the id of a run that makes no backup.
pub(super) fn run_id(
    database: &DatabaseName,
    started_at: Timestamp,
    context: &Context,
) -> BackupId {
    BackupId::new(database.clone(), started_at, context.clock.suffix())
}

/// Makes the record of a run that ends now.
pub(super) fn record(
    run: BackupId,
    verb: &str,
    started_at: Timestamp,
    failure: Option<&Failure>,
    context: &Context,
) -> RunRecord {
    let took = context.clock.now().duration_since(started_at).as_millis();
    let record = RunRecord::new(run, verb, started_at, u64::try_from(took).unwrap_or(0));
    match failure {
        Some(failure) => record.failed(failure.kind.exit_code(), failure.id, &failure.message),
        None => record,
    }
}

/// Writes a record into every storage.
pub(super) async fn keep_record(storages: &[NamedStorage], record: RunRecord, context: &Context) {
    let limit = if context.stop.is_requested() {
        STOPPED_WRITE_LIMIT
    } else {
        WRITE_LIMIT
    };
    let key = run_key(&record.id);
    let bytes = Bytes::from(record.to_json());
    let put = |named: &NamedStorage| {
        let (storage, key, bytes) = (named.storage.clone(), key.clone(), bytes.clone());
        let name = named.name.clone();
        async move {
            let why = match tokio::time::timeout(limit, storage.put(&key, bytes)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it took too long".to_owned(),
            };
            tracing::info!(storage = %name, key, why, "the record of this run was not written");
        }
    };
    join_all(storages.iter().map(put)).await;
}

//! The history of runs: those of this process, those that are known by a lease, and those with a record, as one list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::page::view::{Filter, ROWS, Records};
use crate::runs::{Ask, KeyReused, RunView, Runs, State};
use crate::snapshot::{Held, Snapshot};
use pgkeep_core::op::history::read_records;
use pgkeep_core::op::status;
use pgkeep_core::op::stored::{Listing, StoredBackup};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::runs::{End, RunRecord};

/// How many records are read to find those that are asked for; a filter that finds fewer says where it stopped.
const MAX_READ: usize = 5000;

/// How many are read at once.
const BATCH: usize = 200;

/// What is asked for.
#[derive(Default)]
pub struct Asked<'a> {
    /// Only this database.
    pub database: Option<&'a DatabaseName>,
    /// Only this command.
    pub verb: Option<&'a str>,
    /// Only those that went well, or only those that did not.
    pub is_good: Option<bool>,
    /// Only what is older.
    pub before: Option<&'a BackupId>,
    /// How many.
    pub limit: usize,
}

/// What was found.
pub struct Found {
    /// Runs, newest first.
    pub runs: Vec<RunView>,
    /// Where the next part begins; none at the end.
    pub next: Option<BackupId>,
}

impl Asked<'_> {
    fn wants(&self, view: &RunView) -> bool {
        let is_good = || matches!(view.state, State::Done | State::Running | State::Queued);
        self.database
            .is_none_or(|name| view.database == name.as_str())
            && self.verb.is_none_or(|verb| view.verb == verb)
            && self.is_good.is_none_or(|wanted| is_good() == wanted)
    }

    fn is_before(&self, id: &BackupId) -> bool {
        self.before.is_none_or(|before| order(id) < order(before))
    }
}

/// Ids of several databases by time, and by their text where that is the same.
fn order(id: &BackupId) -> (Timestamp, String) {
    (id.started_at(), id.to_string())
}

/// Finds runs, newest first. Of what goes on, all is in the first part.
pub async fn find(known: &Snapshot, runs: &Runs, asked: &Asked<'_>) -> Found {
    let mut found: Vec<RunView> = Vec::new();
    let mut told: HashSet<BackupId> = HashSet::new();
    if asked.before.is_none() {
        let own = runs.all().into_iter();
        found.extend(own.filter(|view| {
            told.insert(view.id.clone());
            asked.wants(view) && matches!(view.state, State::Queued | State::Running)
        }));
        told = found.iter().map(|view| view.id.clone()).collect();
        let held = known.held.iter().map(of_lease);
        found.extend(held.filter(|view| asked.wants(view) && told.insert(view.id.clone())));
    }
    let mut ids: Vec<&BackupId> = known
        .listing
        .runs
        .keys()
        .filter(|id| asked.database.is_none_or(|name| id.database() == name))
        .filter(|id| asked.is_before(id))
        .collect();
    ids.sort_by_cached_key(|id| std::cmp::Reverse(order(id)));
    let (mut next, mut read) = (None, 0);
    'all: for batch in ids.chunks(BATCH) {
        for record in read_records(&known.listing, batch.iter().copied()).await {
            let id = record.id.clone();
            if found.len() >= asked.limit {
                break 'all;
            }
            let view = of_record(&record);
            if told.contains(&view.id) {
                found.retain(|other| other.id != view.id);
            }
            if asked.wants(&view) {
                found.push(view);
            }
            next = Some(id);
        }
        read += batch.len();
        if read >= MAX_READ {
            break;
        }
    }
    let is_end = next.as_ref() == ids.last().copied();
    Found {
        runs: found,
        next: next.filter(|_| !is_end),
    }
}

/// Finds one run that is not of this process.
pub async fn one(known: &Snapshot, id: &BackupId) -> Option<RunView> {
    if known.listing.runs.contains_key(id) {
        let read = read_records(&known.listing, std::iter::once(id)).await;
        return read.first().map(of_record);
    }
    // A backup whose first attempt failed has the id of a later one.
    let records = known.records.get(id.database()).into_iter().flatten();
    let mut renamed = records.filter(|record| record.run.as_ref() == Some(id));
    if let Some(record) = renamed.next() {
        return Some(of_record(record));
    }
    let mut held = known.held.iter();
    held.find(|held| held.run.as_ref() == Some(id))
        .map(of_lease)
}

/// Finds the run that was asked for under the key of `ask` within the last day: by its record, or by its lease, also
/// where it died and left no record. An error where that was another request.
pub fn by_request_key(
    known: &Snapshot,
    held: &[Held],
    ask: &Ask,
    now: Timestamp,
) -> Option<Result<BackupId, KeyReused>> {
    const REMEMBERED: i64 = 24 * 3600;
    let wanted = ask.request_key.as_deref()?;
    let is_it = |verb: &str, key: Option<&str>, by: Option<&str>, since: Timestamp| {
        verb == ask.verb.as_str()
            && key == Some(wanted)
            && by == ask.by.as_deref()
            && now.as_second() - since.as_second() < REMEMBERED
    };
    let mut records = known.records.values().flatten();
    let recorded = records.find(|record| {
        let (key, by) = (record.request_key.as_deref(), record.by.as_deref());
        is_it(&record.verb, key, by, record.started_at)
    });
    if let Some(record) = recorded {
        // A request that names no backup is for the latest, whose id its record has.
        let asked = ask.backup.as_ref().map(ToString::to_string);
        let is_other = asked.is_some() && record.backup_id.is_some() && asked != record.backup_id;
        let id = record.run.as_ref().unwrap_or(&record.id);
        let is_same = record.database == ask.database && !is_other;
        return Some(is_same.then(|| id.clone()).ok_or(KeyReused));
    }
    let mut same = held.iter().chain(&known.held).filter(|held| {
        let (key, by) = (held.request_key.as_deref(), held.by.as_deref());
        is_it(&held.verb, key, by, held.since)
    });
    let found = same.find(|held| held.run.is_some())?;
    let is_same = found.database == ask.database;
    found
        .run
        .clone()
        .map(|id| is_same.then_some(id).ok_or(KeyReused))
}

/// Tells a run by its lease.
pub fn of_lease(held: &Held) -> RunView {
    let state = if held.is_dead {
        State::Interrupted
    } else {
        State::Running
    };
    let phase = if held.is_dead {
        format!("interrupted: no sign of life since {}", held.last_sign)
    } else {
        format!("under way in process {} on `{}`", held.pid, held.host)
    };
    let unnamed = || BackupId::new(held.database.clone(), held.since, 0);
    RunView {
        id: held.run.clone().unwrap_or_else(unnamed),
        database: held.database.to_string(),
        verb: held.verb.clone(),
        state,
        trigger: trigger(held.slot).to_owned(),
        by: held.by.clone(),
        slot: held.slot,
        queued_at: held.since,
        started_at: Some(held.since),
        ended_at: held.is_dead.then_some(held.last_sign),
        phase,
        done_bytes: 0,
        total_bytes: 0,
        bytes_per_second: 0,
        table: None,
        lines: Vec::new(),
        exit_code: None,
        backup_id: None,
        failure: None,
        message: held
            .is_dead
            .then(|| "it died, and nothing was stored".to_owned()),
        size_bytes: None,
        rows: None,
        report: None,
    }
}

/// Tells a run by its record.
pub fn of_record(record: &RunRecord) -> RunView {
    let state = match record.end() {
        End::Good | End::Warned => State::Done,
        End::Failed => State::Failed,
        End::Interrupted => State::Interrupted,
    };
    let took = jiff::SignedDuration::from_millis(i64::try_from(record.took_ms).unwrap_or(0));
    RunView {
        id: record.run.clone().unwrap_or_else(|| record.id.clone()),
        database: record.database.to_string(),
        verb: record.verb.clone(),
        state,
        trigger: record
            .trigger
            .clone()
            .unwrap_or_else(|| trigger(record.slot).to_owned()),
        by: record.by.clone(),
        slot: record.slot,
        queued_at: record.started_at,
        started_at: Some(record.started_at),
        ended_at: Some(record.started_at + took),
        phase: String::new(),
        done_bytes: 0,
        total_bytes: 0,
        bytes_per_second: 0,
        table: None,
        lines: Vec::new(),
        exit_code: Some(record.exit_code),
        backup_id: record.backup_id.clone(),
        failure: None,
        message: record.failure.clone(),
        size_bytes: record.size_bytes,
        rows: record.rows,
        report: None,
    }
}

fn trigger(slot: Option<Timestamp>) -> &'static str {
    if slot.is_some() { "schedule" } else { "manual" }
}

/// Returns the runs of a database that wait or go on, here or elsewhere.
pub fn under_way(known: &Snapshot, runs: &Runs, database: &DatabaseName) -> Vec<RunView> {
    let is_open = |run: &RunView| matches!(run.state, State::Queued | State::Running);
    let of_it = |run: &RunView| run.database == database.as_str();
    let all = runs.all();
    let elsewhere = known
        .held
        .iter()
        .map(of_lease)
        .filter(|held| all.iter().all(|run| run.id != held.id));
    let mut found: Vec<RunView> = elsewhere.filter(|run| of_it(run) && is_open(run)).collect();
    found.extend(all.iter().filter(|run| of_it(run) && is_open(run)).cloned());
    found
}

/// Reads the records that one page of the history needs: those behind `before`, and no more of them than fill it.
pub async fn page(known: &Snapshot, database: &DatabaseName, filter: &Filter) -> Records {
    let of_it = known.listing.runs.keys().rev();
    let ids: Vec<&BackupId> = of_it.filter(|run| run.database() == database).collect();
    let begin = filter
        .cut()
        .map_or(0, |cut| ids.partition_point(|id| !cut.is_before(id)));
    let held: HashMap<&BackupId, &Arc<RunRecord>> = known
        .records
        .get(database)
        .into_iter()
        .flatten()
        .map(|record| (&record.id, record))
        .collect();
    let is_filtered = filter.verb.is_some() || filter.result.is_some();
    let (batch, limit) = if is_filtered {
        (BATCH, MAX_READ)
    } else {
        // One more than fill a page says whether there is another one.
        (ROWS + 1, ROWS + 1)
    };
    let (mut found, mut wanted, mut read) = (Vec::new(), 0, 0);
    for ids in ids[begin..].chunks(batch) {
        let unknown = ids.iter().copied().filter(|id| !held.contains_key(id));
        let new = read_records(&known.listing, unknown).await;
        let mut all: Vec<Arc<RunRecord>> = new.into_iter().map(Arc::new).collect();
        all.extend(ids.iter().filter_map(|id| held.get(id).copied().cloned()));
        wanted += all.iter().filter(|record| filter.wants(record)).count();
        found.extend(all);
        read += ids.len();
        if wanted > ROWS || read >= limit {
            break;
        }
    }
    let last = ids.get((begin + read).saturating_sub(1));
    Records {
        all: ids.len(),
        read_to: last
            .filter(|_| read > 0 && begin + read < ids.len())
            .map(|id| (*id).clone()),
        found,
    }
}

/// Reads the note about the last drill of a backup.
pub async fn drill_note(known: &Snapshot, id: &BackupId) -> Option<Value> {
    let mut all = known.listing.backups.iter();
    let backup = all.find(|backup| &backup.place.id == id)?;
    note_of(&known.listing, backup).await
}

/// Reads it from the first storage that has it.
pub(crate) async fn note_of(listing: &Listing, backup: &StoredBackup) -> Option<Value> {
    for &at in backup.copies.keys() {
        let note = status::drill_note(listing, backup, at).await;
        if note.is_some() {
            return note;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::fixture::{Fixture, record};
    use crate::page::view;
    use pgkeep_core::op::stored::NamedStorage;
    use pgkeep_model::keys::run_key;
    use pgkeep_storage::Memory;
    use std::collections::BTreeSet;
    use std::time::Instant;

    /// Of ten thousand records, each page reads a hundred, and each run is on one page.
    #[tokio::test]
    async fn a_page_reads_its_own_records_only() {
        let memory = Arc::new(Memory::new());
        let name: DatabaseName = "shop".parse().unwrap();
        let now: Timestamp = "2026-11-30T09:12:31Z".parse().unwrap();
        for number in 0..10_000_u16 {
            let minutes = jiff::SignedDuration::from_mins(i64::from(number / 3));
            let id = BackupId::new(name.clone(), now - minutes, number);
            let mut one = record(&id, 3);
            if number % 50 == 0 {
                one = one.failed(20, "dump_failed", "the server went away");
                one.backup_id = None;
            }
            memory.set(&run_key(&id), one.to_json(), now);
        }
        let storage = NamedStorage {
            name: "local".to_owned(),
            storage: memory,
            identities: Arc::default(),
        };
        let listing = Listing::read(vec![storage], None, now).await.unwrap();
        let fixture = tokio::task::spawn_blocking(Fixture::new).await.unwrap();
        let known = fixture.snapshot.but(|next| {
            next.listing = Arc::new(listing);
            next.records = Arc::default();
            next.missed = Vec::new();
            next.held = Vec::new();
        });
        let began = Instant::now();
        let mut filter = Filter::default();
        let first = page(&known, &name, &filter).await;
        let took = began.elapsed();
        assert_eq!((first.found.len(), first.all), (ROWS + 1, 10_000));
        // A debug build has ten times as long.
        let limit = if cfg!(debug_assertions) { 3000 } else { 300 };
        assert!(took.as_millis() < limit, "{took:?}");
        // The last thousand, to the end.
        let at = known.listing.runs.keys().nth(1000).unwrap();
        filter.before = Some(format!("{}~{at}", at.started_at().as_microsecond()));
        let mut seen = BTreeSet::new();
        loop {
            let read = page(&known, &name, &filter).await;
            assert!(read.found.len() <= ROWS + 1);
            let shown = view::history(&known, &[], &name, filter.clone(), Some(&read));
            assert_eq!(shown.all, Some(10_000));
            for row in shown.rows {
                assert!(seen.insert(row.id.clone()), "{:?} twice", row.id);
            }
            filter.before = shown.before;
            if filter.before.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 1000);
        // A filter that finds little says where it stopped.
        let mut filter = Filter {
            result: Some("bad".to_owned()),
            ..Filter::default()
        };
        let (mut bad, mut pages) = (0, 0);
        loop {
            let read = page(&known, &name, &filter).await;
            let shown = view::history(&known, &[], &name, filter.clone(), Some(&read));
            bad += shown.rows.len();
            pages += 1;
            filter.before = shown.before;
            if filter.before.is_none() {
                break;
            }
        }
        assert_eq!(bad, 200);
        assert!(pages <= 4, "{pages} pages");
    }
}

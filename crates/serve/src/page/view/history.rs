//! The history of a database: what is on record, what is under way, and what never came, as one list in pages.

use std::sync::Arc;

use jiff::Timestamp;

use super::run::{RunRow, RunState, of_held, of_live, of_missed, of_record, state_of};
use crate::runs::{RunView, State};
use crate::snapshot::{Held, Missed, Snapshot};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::runs::RunRecord;

/// How many rows a page has.
pub const ROWS: usize = 100;

/// Which rows are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this command.
    pub verb: Option<String>,
    /// Only this result, as [`RunState::as_str`] writes it; `bad` for all that are not good.
    pub result: Option<String>,
    /// Only what is older: [`History::before`] of the page before.
    pub before: Option<String>,
}

/// Where a page begins: behind a moment and a tag, which tells what is of one moment apart.
pub(crate) struct Cut<'t> {
    micros: i64,
    tag: &'t str,
}

/// The records that were read for a page.
#[derive(Clone, Debug)]
pub struct Records {
    /// How many there are of the database, on all pages.
    pub all: usize,
    /// Those that were read.
    pub found: Vec<Arc<RunRecord>>,
    /// The oldest one that was looked at; none where there is no older one.
    pub read_to: Option<BackupId>,
}

impl Filter {
    /// Returns where the page begins; none where that is not asked for, or not understood.
    pub(crate) fn cut(&self) -> Option<Cut<'_>> {
        let (micros, tag) = self.before.as_deref()?.split_once('~')?;
        let micros = micros.parse().ok()?;
        Some(Cut { micros, tag })
    }

    /// Tells whether a record is of the kind that is asked for.
    pub(crate) fn wants(&self, record: &RunRecord) -> bool {
        Entry::Record(record).fits(self)
    }

    fn is_any(&self) -> bool {
        self.verb.is_none() && self.result.is_none()
    }
}

impl Cut<'_> {
    /// Tells whether the record of a run stands behind the cut.
    pub(crate) fn is_before(&self, id: &BackupId) -> bool {
        self.has_behind(id.started_at(), &id.to_string())
    }

    fn has_behind(&self, at: Timestamp, tag: &str) -> bool {
        let micros = at.as_microsecond();
        micros < self.micros || micros == self.micros && tag < self.tag
    }
}

/// One page of the history.
#[derive(Clone, Debug)]
pub struct History {
    /// The database.
    pub name: String,
    /// What is asked for.
    pub filter: Filter,
    /// The rows, newest first.
    pub rows: Vec<RunRow>,
    /// What the next page begins behind; none on the last one.
    pub before: Option<String>,
    /// How many rows there are in all, on all pages; none where only some of them were read.
    pub all: Option<usize>,
}

/// Something that becomes a row where it is shown.
enum Entry<'s> {
    Record(&'s RunRecord),
    Live(&'s RunView),
    Held(&'s Held),
    Missed(&'s Missed),
}

impl Entry<'_> {
    fn at(&self) -> Timestamp {
        match self {
            // As listings order them: so a page is found without reading all that is newer.
            Self::Record(record) => record.id.started_at(),
            Self::Live(run) => run.started_at.unwrap_or(run.queued_at),
            Self::Held(held) => held.since,
            Self::Missed(missed) => missed.slot,
        }
    }

    fn verb(&self) -> &str {
        match self {
            Self::Record(record) => &record.verb,
            Self::Live(run) => &run.verb,
            Self::Held(held) => &held.verb,
            Self::Missed(missed) => missed.verb.as_str(),
        }
    }

    /// Tells entries of one moment apart.
    fn tag(&self) -> String {
        match self {
            Self::Record(record) => record.id.to_string(),
            Self::Live(run) => run.id.to_string(),
            Self::Held(held) => format!("held-{}", held.verb),
            Self::Missed(missed) => format!("missed-{}", missed.verb.as_str()),
        }
    }

    fn state(&self) -> RunState {
        match self {
            Self::Record(record) => state_of(record),
            Self::Live(run) => of_live(run).state,
            Self::Held(held) if held.is_dead => RunState::Interrupted,
            Self::Held(_) => RunState::Running,
            Self::Missed(_) => RunState::Missed,
        }
    }

    fn row(&self) -> RunRow {
        match self {
            Self::Record(record) => of_record(record),
            Self::Live(run) => of_live(run),
            Self::Held(held) => of_held(held),
            Self::Missed(missed) => of_missed(missed),
        }
    }

    fn fits(&self, filter: &Filter) -> bool {
        let is_of_verb = filter
            .verb
            .as_deref()
            .is_none_or(|verb| verb == self.verb());
        is_of_verb
            && match filter.result.as_deref() {
                None => true,
                Some("bad") => matches!(
                    self.state(),
                    RunState::Failed | RunState::Interrupted | RunState::Missed
                ),
                Some(result) => self.state().as_str() == result,
            }
    }

    fn key(&self) -> String {
        key(self.at(), &self.tag())
    }
}

/// Makes one page of the history, out of the records that were read for it, or else of those in the snapshot. An unknown
/// `before` begins with the newest.
pub fn history(
    snapshot: &Snapshot,
    live: &[RunView],
    name: &DatabaseName,
    filter: Filter,
    read: Option<&Records>,
) -> History {
    let held = snapshot.records.get(name).map(Vec::as_slice);
    let records = read.map_or(held.unwrap_or_default(), |read| read.found.as_slice());
    let mut entries = entries(snapshot, live, name, records);
    let unread = read.map_or(0, |read| read.all - read.found.len().min(read.all));
    let all = entries.len() + unread;
    entries.retain(|entry| entry.fits(&filter));
    entries.sort_by(|one, other| {
        let by_time = other.at().cmp(&one.at());
        by_time.then_with(|| other.tag().cmp(&one.tag()))
    });
    let all = match read {
        None => Some(entries.len()),
        Some(_) => filter.is_any().then_some(all),
    };
    // What is older than all that was read comes with the records of its time.
    let read_to = read.and_then(|read| read.read_to.as_ref());
    if let Some(last) = read_to {
        let end = Cut {
            micros: last.started_at().as_microsecond(),
            tag: &last.to_string(),
        };
        entries.retain(|entry| !end.has_behind(entry.at(), &entry.tag()));
    }
    let from = filter.cut().map_or(0, |cut| {
        entries.partition_point(|entry| !cut.has_behind(entry.at(), &entry.tag()))
    });
    let shown = &entries[from..entries.len().min(from + ROWS)];
    let before = if from + ROWS < entries.len() {
        shown.last().map(Entry::key)
    } else {
        read_to.map(|id| key(id.started_at(), &id.to_string()))
    };
    History {
        name: name.to_string(),
        rows: shown.iter().map(Entry::row).collect(),
        before,
        all,
        filter,
    }
}

/// Where an entry stands: microseconds, then the tag.
fn key(at: Timestamp, tag: &str) -> String {
    format!("{}~{tag}", at.as_microsecond())
}

/// The newest rows of a database, without any filter.
pub(super) fn newest(
    snapshot: &Snapshot,
    live: &[RunView],
    name: &DatabaseName,
    rows: usize,
) -> Vec<RunRow> {
    let held = snapshot.records.get(name).map(Vec::as_slice);
    let mut entries = entries(snapshot, live, name, held.unwrap_or_default());
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at()));
    entries.iter().take(rows).map(Entry::row).collect()
}

fn entries<'s>(
    snapshot: &'s Snapshot,
    live: &'s [RunView],
    name: &DatabaseName,
    records: &'s [Arc<RunRecord>],
) -> Vec<Entry<'s>> {
    let held = snapshot.records.get(name).map(Vec::as_slice);
    let newest = held.unwrap_or_default();
    let is_record_of =
        |record: &RunRecord, id: &BackupId| &record.id == id || record.run.as_ref() == Some(id);
    // The record may stand on another page.
    let has_record = |id: &BackupId| {
        snapshot.listing.runs.contains_key(id)
            || newest.iter().any(|record| is_record_of(record, id))
    };
    let is_recorded = |run: &RunView| has_record(&run.id);
    let is_open = |run: &RunView| matches!(run.state, State::Queued | State::Running);
    let here = live
        .iter()
        .filter(|run| run.database == name.as_str() && (is_open(run) || !is_recorded(run)));
    let held = snapshot.held.iter().filter(|held| {
        let is_here = held
            .run
            .as_ref()
            .is_some_and(|id| live.iter().any(|run| &run.id == id));
        let is_told = held.run.as_ref().is_some_and(has_record);
        &held.database == name && !is_here && !is_told
    });
    let missed = snapshot
        .missed
        .iter()
        .filter(|missed| &missed.database == name);
    records
        .iter()
        .map(|record| Entry::Record(record))
        .chain(here.map(Entry::Live))
        .chain(held.map(Entry::Held))
        .chain(missed.map(Entry::Missed))
        .collect()
}

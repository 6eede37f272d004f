//! The history of a database: what is on record, what is under way, and what never came, as one list in pages.

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
    /// How many rows there are in all, on all pages.
    pub all: usize,
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
            Self::Record(record) => record.started_at,
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

    /// Orders entries and cuts pages: microseconds, then the tag.
    fn key(&self) -> String {
        format!("{}~{}", self.at().as_microsecond(), self.tag())
    }
}

/// Reads one page of the history. An unknown `before` begins with the newest.
pub fn history(
    snapshot: &Snapshot,
    live: &[RunView],
    name: &DatabaseName,
    filter: Filter,
) -> History {
    let mut entries = entries(snapshot, live, name);
    entries.retain(|entry| entry.fits(&filter));
    entries.sort_by(|one, other| {
        let by_time = other.at().cmp(&one.at());
        by_time.then_with(|| other.tag().cmp(&one.tag()))
    });
    let all = entries.len();
    let cut = filter.before.as_deref().and_then(cut);
    let from = cut.map_or(0, |(at, tag)| {
        entries.partition_point(|entry| {
            let micros = entry.at().as_microsecond();
            micros > at || micros == at && entry.tag().as_str() >= tag
        })
    });
    let shown = &entries[from..entries.len().min(from + ROWS)];
    let before = (from + ROWS < entries.len())
        .then(|| shown.last().map(Entry::key))
        .flatten();
    History {
        name: name.to_string(),
        rows: shown.iter().map(Entry::row).collect(),
        before,
        all,
        filter,
    }
}

fn cut(text: &str) -> Option<(i64, &str)> {
    let (at, tag) = text.split_once('~')?;
    Some((at.parse().ok()?, tag))
}

/// The newest rows of a database, without any filter.
pub(super) fn newest(
    snapshot: &Snapshot,
    live: &[RunView],
    name: &DatabaseName,
    rows: usize,
) -> Vec<RunRow> {
    let mut entries = entries(snapshot, live, name);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at()));
    entries.iter().take(rows).map(Entry::row).collect()
}

fn entries<'s>(snapshot: &'s Snapshot, live: &'s [RunView], name: &DatabaseName) -> Vec<Entry<'s>> {
    let records = snapshot
        .records
        .get(name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let is_record_of =
        |record: &RunRecord, id: &BackupId| &record.id == id || record.run.as_ref() == Some(id);
    let is_recorded = |run: &RunView| records.iter().any(|record| is_record_of(record, &run.id));
    let is_open = |run: &RunView| matches!(run.state, State::Queued | State::Running);
    let here = live
        .iter()
        .filter(|run| run.database == name.as_str() && (is_open(run) || !is_recorded(run)));
    let held = snapshot.held.iter().filter(|held| {
        let is_here = held
            .run
            .as_ref()
            .is_some_and(|id| live.iter().any(|run| &run.id == id));
        let is_told = held
            .run
            .as_ref()
            .is_some_and(|id| records.iter().any(|record| is_record_of(record, id)));
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

//! Runs of this process: what waits, what goes on, how it ended. What other processes do is known by leases and records.

mod carry_out;
mod outcome;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, watch as changes};

use crate::apart::apart;
use crate::snapshot::Verb;
use pgkeep_core::context::Context;
use pgkeep_core::op::lock::BUSY;
use pgkeep_core::op::slot;
use pgkeep_core::setup::Setup;
use pgkeep_core::tracker::Tracked;
use pgkeep_model::failure::Failure;
use pgkeep_model::id::{BackupId, DatabaseName};

pub use carry_out::rows_request;
use outcome::Outcome;
use watch::Watched;

/// How many runs that ended are remembered with their reports; older ones are told by their records.
const MAX_ENDED: usize = 100;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// It is under way.
    Running,
    /// It went well.
    Done,
    /// It failed.
    Failed,
    /// It died: its lease is dead, or a record says so.
    Interrupted,
}

/// A run as it is told: to the page, to the API and by events. A run that is known by its record alone has the same shape.
#[derive(Clone, Debug, Serialize)]
pub struct RunView {
    /// Its id.
    pub id: BackupId,
    /// The database.
    pub database: String,
    /// The command: `backup`, `drill`, `verify`, `restore`.
    pub verb: String,
    /// Where it stands.
    pub state: State,
    /// Why it runs: `manual`, `schedule`, `pre-deploy`.
    pub trigger: String,
    /// The name of the token that started it.
    pub by: Option<String>,
    /// The slot that it runs for.
    pub slot: Option<Timestamp>,
    /// When it was asked for.
    pub queued_at: Timestamp,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What it does now, in words: `dumping`, `storing`.
    pub phase: String,
    /// How far it is, in bytes of SQL.
    pub done_bytes: u64,
    /// How many there are, by an estimate; 0 where that is not known.
    pub total_bytes: u64,
    /// How many bytes a second, of the last seconds.
    pub bytes_per_second: u64,
    /// The table whose rows are read.
    pub table: Option<String>,
    /// What happened, newest last; at most 200 lines.
    pub lines: Vec<Line>,
    /// The code that it alone would have ended a process with.
    pub exit_code: Option<u8>,
    /// The backup that it made or was about.
    pub backup_id: Option<String>,
    /// Why it failed, as its process told it.
    pub failure: Option<Failure>,
    /// Why it failed, in words.
    pub message: Option<String>,
    /// Size of the stored dump.
    pub size_bytes: Option<u64>,
    /// Rows of all tables.
    pub rows: Option<u64>,
    /// The report of the operation, as the command prints it with `--json`.
    pub report: Option<Value>,
}

/// A line of a run's own story.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Counts from 1.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub text: String,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is done.
    pub verb: Verb,
    /// To which database.
    pub database: DatabaseName,
    /// Which backup is drilled or verified; the latest where none is named.
    pub backup: Option<BackupId>,
    /// Which rows are put back, of a restore.
    pub rows: Option<Rows>,
    /// Who asks, by the name of the token; none for a schedule.
    pub by: Option<String>,
    /// The slot that it is for; none where it was asked for.
    pub slot: Option<Timestamp>,
    /// What the client calls its request, so that asking twice is asking once.
    pub request_key: Option<String>,
}

impl Ask {
    /// Tells whether both ask for the same to be done.
    fn is_alike(&self, other: &Self) -> bool {
        let what = |ask: &Self| {
            let Self {
                verb,
                database,
                backup,
                rows,
                ..
            } = ask;
            (*verb, database.clone(), backup.clone(), rows.clone())
        };
        what(self) == what(other)
    }

    /// Tells whether both have the same key. A key is known among requests of one token and one command.
    fn is_repeated(&self, other: &Self) -> bool {
        self.request_key.is_some()
            && self.request_key == other.request_key
            && (self.verb, &self.by) == (other.verb, &other.by)
    }
}

/// Tells that a key was given to another request before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyReused;

/// Rows of one table that are put back into the database that they are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The table, with its schema where that is not `public`.
    pub table: String,
    /// Whether they go into an empty table, instead of being merged by their key.
    pub is_append: bool,
}

/// A run that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub id: BackupId,
    /// Whether it was there already.
    pub is_joined: bool,
}

/// How many runs there may be at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// On one server.
    pub per_server: usize,
}

/// All runs of this process; clones are the same.
#[derive(Clone)]
pub struct Runs(Arc<Shared>);

struct Shared {
    setup: Setup,
    context: Context,
    limits: Limits,
    /// Which server a database is on.
    servers: HashMap<DatabaseName, String>,
    entries: Mutex<VecDeque<Arc<Entry>>>,
    /// Whether none begins any more.
    is_closed: AtomicBool,
    /// Told when a run ended, for who waits for all of them.
    ended: Notify,
    /// Holds that a run ended that there is something to see of, until that is looked at.
    news: Notify,
}

/// One run.
pub(crate) struct Entry {
    pub(crate) id: BackupId,
    pub(crate) ask: Ask,
    server: String,
    queued_at: Timestamp,
    now: Mutex<Watched>,
    changes: changes::Sender<u64>,
}

impl Runs {
    /// Makes the registry of runs that `setup` makes requests for.
    pub fn new(
        setup: Setup,
        context: Context,
        limits: Limits,
        servers: HashMap<DatabaseName, String>,
    ) -> Self {
        Self(Arc::new(Shared {
            setup,
            context,
            limits,
            servers,
            entries: Mutex::default(),
            is_closed: AtomicBool::new(false),
            ended: Notify::new(),
            news: Notify::new(),
        }))
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        // Entries are added and removed whole.
        self.0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the run that was asked for under the key of `ask`; an error where that was another request.
    pub fn by_key(&self, ask: &Ask) -> Option<Result<Started, KeyReused>> {
        by_key(&self.entries(), ask)
    }

    /// Starts a run, or joins the one that does the same: of it only one waits or goes on.
    ///
    /// [`KeyReused`] where its key was given to a request for something else.
    pub fn start(&self, ask: Ask) -> Result<Started, KeyReused> {
        let mut entries = self.entries();
        if let Some(known) = by_key(&entries, &ask) {
            return known;
        }
        let is_same = |entry: &&Arc<Entry>| entry.ask.is_alike(&ask) && !entry.is_ended();
        if let Some(entry) = entries.iter().rev().find(is_same) {
            return Ok(Started::joined(entry.id.clone()));
        }
        // A slot is asked for again and again while another run has the lock: the last of these stands for all.
        entries.retain(|entry| {
            let other = &entry.ask;
            let is_of = (other.verb, &other.database) == (ask.verb, &ask.database);
            !(is_of && entry.was_kept_away())
        });
        let clock = &self.0.context.clock;
        let queued_at = clock.now();
        let id = BackupId::new(ask.database.clone(), queued_at, clock.suffix());
        let server = self.0.servers.get(&ask.database);
        let entry = Arc::new(Entry {
            id: id.clone(),
            server: server.cloned().unwrap_or_default(),
            queued_at,
            now: Mutex::new(Watched::new(queued_at)),
            changes: changes::Sender::new(0),
            ask,
        });
        entries.push_back(entry);
        let is_old = |entry: &Arc<Entry>| entry.is_ended() && !entry.was_kept_away();
        let ended = entries.iter().filter(|entry| is_old(entry)).count();
        if ended > MAX_ENDED
            && let Some(at) = entries.iter().position(is_old)
        {
            entries.remove(at);
        }
        drop(entries);
        self.dispatch();
        Ok(Started {
            id,
            is_joined: false,
        })
    }

    /// Lets no run begin any more: those that wait are given up.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
    }

    /// Lets those begin whose turn it is.
    fn dispatch(&self) {
        if self.0.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let entries = self.entries();
        let mut all = 0;
        let mut by_server: HashMap<&str, usize> = HashMap::new();
        // Each has a lock of its own, which a second one would not get. A restore has none.
        let mut locked: HashSet<(Verb, &DatabaseName)> = HashSet::new();
        for entry in entries.iter().filter(|entry| entry.is_running()) {
            all += 1;
            *by_server.entry(&entry.server).or_default() += 1;
            locked.insert((entry.ask.verb, &entry.ask.database));
        }
        for entry in entries.iter().filter(|entry| entry.is_queued()) {
            let here = by_server.entry(&entry.server).or_default();
            let lock = (entry.ask.verb, &entry.ask.database);
            let is_locked = entry.ask.verb != Verb::Restore && locked.contains(&lock);
            if is_locked || all >= self.0.limits.all || *here >= self.0.limits.per_server {
                continue;
            }
            (all, *here) = (all + 1, *here + 1);
            locked.insert(lock);
            entry.begin(self.0.context.clock.now());
            let (runs, entry) = (self.clone(), Arc::clone(entry));
            // It ends with its run, which the wish to stop ends.
            tokio::spawn(async move {
                let (of, shared) = (Arc::clone(&entry), Arc::clone(&runs.0));
                let work = async move || carry_out::run(&of, &shared.setup, &shared.context).await;
                let done = apart(work).await;
                let outcome = done.unwrap_or_else(Outcome::of);
                let ask = &entry.ask;
                let tracked = Tracked {
                    verb: ask.verb.as_str(),
                    database: Some(ask.database.as_str()),
                    backup_id: outcome.backup_id.as_deref(),
                    is_scheduled: ask.slot.is_some(),
                    slot: ask.slot,
                };
                slot::tell_end(&tracked, outcome.failure.as_ref(), &runs.0.context).await;
                entry.end(outcome, runs.0.context.clock.now());
                if !entry.was_kept_away() {
                    runs.0.news.notify_one();
                }
                runs.0.ended.notify_waiters();
                runs.dispatch();
            });
        }
    }

    /// Returns a run by its id.
    pub(crate) fn find(&self, id: &BackupId) -> Option<Arc<Entry>> {
        let entries = self.entries();
        entries.iter().find(|entry| &entry.id == id).cloned()
    }

    /// Returns all runs that are remembered, newest first.
    pub fn all(&self) -> Vec<RunView> {
        let entries: Vec<_> = self.entries().iter().rev().cloned().collect();
        entries.iter().map(|entry| entry.view()).collect()
    }

    /// Returns a run as it is told.
    pub fn view(&self, id: &BackupId) -> Option<RunView> {
        self.find(id).map(|entry| entry.view())
    }

    /// Returns the runs for slots, of one database and verb, and whether each has ended.
    pub fn slots(&self, database: &DatabaseName, verb: Verb) -> Vec<(Timestamp, bool)> {
        let entries = self.entries();
        let of = entries
            .iter()
            .filter(|entry| &entry.ask.database == database && entry.ask.verb == verb);
        // One that another run kept away is asked for again.
        of.filter(|entry| !entry.was_kept_away())
            .filter_map(|entry| Some((entry.ask.slot?, entry.is_ended())))
            .collect()
    }

    /// Waits for the end of a run that left something to see. One that came since the last call is told at once, so one
    /// task alone may wait.
    pub async fn ended(&self) {
        self.0.news.notified().await;
    }

    /// Waits until no run goes on.
    pub async fn drain(&self) {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            // From now on no end is missed.
            ended.as_mut().enable();
            if !self.entries().iter().any(|entry| entry.is_running()) {
                return;
            }
            ended.await;
        }
    }
}

impl Started {
    /// Tells of a run that was there already.
    pub fn joined(id: BackupId) -> Self {
        Self {
            id,
            is_joined: true,
        }
    }
}

fn by_key(entries: &VecDeque<Arc<Entry>>, ask: &Ask) -> Option<Result<Started, KeyReused>> {
    let mut same = entries
        .iter()
        .rev()
        .filter(|entry| entry.ask.is_repeated(ask));
    let entry = same.next()?;
    Some(if entry.ask.is_alike(ask) {
        Ok(Started::joined(entry.id.clone()))
    } else {
        Err(KeyReused)
    })
}

impl Entry {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        // Whatever a panic left behind is still a story of the run.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> State {
        self.watched().state
    }

    fn is_queued(&self) -> bool {
        self.state() == State::Queued
    }

    fn is_running(&self) -> bool {
        self.state() == State::Running
    }

    /// Tells whether another run had the lock at the slot's time: nothing was done, and the slot is asked for again.
    fn was_kept_away(&self) -> bool {
        let watched = self.watched();
        let is_busy = watched
            .failure
            .as_ref()
            .is_some_and(|failure| failure.id == BUSY);
        self.ask.slot.is_some() && is_busy
    }

    pub(crate) fn is_ended(&self) -> bool {
        !matches!(self.state(), State::Queued | State::Running)
    }

    /// Returns what changes with each event of the run.
    pub(crate) fn changes(&self) -> changes::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn begin(&self, now: Timestamp) {
        self.watched().begin(now);
        self.changed();
    }

    fn end(&self, outcome: Outcome, now: Timestamp) {
        self.watched().end(self.ask.verb, outcome, now);
        self.changed();
    }

    /// Returns the run as it is told.
    pub(crate) fn view(&self) -> RunView {
        let trigger = if self.ask.slot.is_some() {
            "schedule"
        } else {
            "manual"
        };
        let mut watched = self.watched();
        watched.sample();
        RunView {
            id: self.id.clone(),
            database: self.ask.database.to_string(),
            verb: self.ask.verb.as_str().to_owned(),
            state: watched.state,
            trigger: trigger.to_owned(),
            by: self.ask.by.clone(),
            slot: self.ask.slot,
            queued_at: self.queued_at,
            started_at: watched.started_at,
            ended_at: watched.ended_at,
            phase: watched.phase.clone(),
            done_bytes: watched.done_bytes,
            total_bytes: watched.total_bytes,
            bytes_per_second: watched.bytes_per_second,
            table: watched.table.clone(),
            lines: watched.lines.iter().cloned().collect(),
            exit_code: watched.exit_code,
            backup_id: watched.backup_id.clone(),
            message: watched
                .failure
                .as_ref()
                .map(|failure| failure.message.clone()),
            failure: watched.failure.clone(),
            size_bytes: watched.size_bytes,
            rows: watched.rows,
            report: watched.report.clone(),
        }
    }
}

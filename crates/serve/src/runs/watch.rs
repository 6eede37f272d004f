//! What a run tells while it goes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::outcome::Outcome;
use super::{Entry, Line, State};
use crate::snapshot::Verb;
use pgkeep_core::clock::Clock;
use pgkeep_core::op::event::{Event, Observer};
use pgkeep_core::stream::pipeline::Progress;
use pgkeep_model::failure::Failure;
use pgkeep_model::runs::{End, end_of};

/// How many lines a run has: enough for all retries and copies of one.
const MAX_LINES: usize = 200;

/// How long a rate is measured over at least.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// How a run stands.
pub(super) struct Watched {
    pub(super) state: State,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) phase: String,
    pub(super) done_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) bytes_per_second: u64,
    pub(super) table: Option<String>,
    pub(super) lines: VecDeque<Line>,
    pub(super) exit_code: Option<u8>,
    pub(super) backup_id: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) size_bytes: Option<u64>,
    pub(super) rows: Option<u64>,
    pub(super) report: Option<Value>,
    progress: Option<Arc<Progress>>,
    sampled: Option<(Instant, u64)>,
    sequence: u64,
}

impl Watched {
    pub(super) fn new(now: Timestamp) -> Self {
        let mut watched = Self {
            state: State::Queued,
            started_at: None,
            ended_at: None,
            phase: "waiting for its turn".to_owned(),
            done_bytes: 0,
            total_bytes: 0,
            bytes_per_second: 0,
            table: None,
            lines: VecDeque::new(),
            exit_code: None,
            backup_id: None,
            failure: None,
            size_bytes: None,
            rows: None,
            report: None,
            progress: None,
            sampled: None,
            sequence: 0,
        };
        watched.line(now, "asked for".to_owned());
        watched
    }

    pub(super) fn begin(&mut self, now: Timestamp) {
        self.state = State::Running;
        self.started_at = Some(now);
        self.phase = "beginning".to_owned();
        self.line(now, "begun".to_owned());
    }

    pub(super) fn end(&mut self, verb: Verb, outcome: Outcome, now: Timestamp) {
        self.sample();
        self.progress = None;
        self.bytes_per_second = 0;
        self.table = None;
        self.ended_at = Some(now);
        let failed = outcome.failure.as_ref();
        let words = failed.map_or_else(|| "done".to_owned(), |failure| failure.message.clone());
        let exit_code = failed.map_or(0, |failure| failure.kind.exit_code());
        let id = failed.map(|failure| failure.id);
        let (state, phase) =
            match end_of(verb.as_str(), exit_code, id, outcome.backup_id.as_deref()) {
                End::Good | End::Warned => (State::Done, "done"),
                End::Failed => (State::Failed, "failed"),
                End::Interrupted => (State::Interrupted, "interrupted"),
            };
        self.state = state;
        phase.clone_into(&mut self.phase);
        self.line(now, words);
        self.exit_code = Some(exit_code);
        self.backup_id = outcome.backup_id;
        self.failure = outcome.failure;
        (self.size_bytes, self.rows) = (outcome.size_bytes, outcome.rows);
        self.report = outcome.report;
    }

    fn line(&mut self, at: Timestamp, text: String) {
        self.sequence += 1;
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(Line {
            sequence: self.sequence,
            at,
            text,
        });
    }

    fn turn_to(&mut self, at: Timestamp, phase: &str, progress: Option<(&Arc<Progress>, u64)>) {
        phase.clone_into(&mut self.phase);
        self.line(at, phase.to_owned());
        self.progress = progress.map(|(progress, _)| Arc::clone(progress));
        if let Some((_, total)) = progress {
            self.total_bytes = total;
            self.done_bytes = 0;
        }
        self.sampled = None;
        self.bytes_per_second = 0;
        self.table = None;
    }

    /// Looks how far it is.
    pub(super) fn sample(&mut self) {
        let Some(progress) = &self.progress else {
            return;
        };
        let (done, now) = (progress.raw_bytes(), Instant::now());
        self.done_bytes = done;
        self.table = progress.current_table();
        let (since, before) = *self.sampled.get_or_insert((now, done));
        let elapsed = now.duration_since(since);
        if elapsed >= RATE_WINDOW {
            let rate = done.saturating_sub(before) as f64 / elapsed.as_secs_f64();
            self.bytes_per_second = rate as u64;
            self.sampled = Some((now, done));
        }
    }
}

/// Tells the run's entry what happens.
pub(super) struct Teller<'a> {
    pub(super) entry: &'a Entry,
    pub(super) clock: &'a dyn Clock,
}

impl Observer for Teller<'_> {
    fn note(&self, event: Event<'_>) {
        let at = self.clock.now();
        let mut watched = self.entry.watched();
        match event {
            Event::Waiting { text } | Event::Warned { warning: text } => {
                watched.line(at, text.to_owned());
            }
            Event::Connecting => watched.turn_to(at, "connecting", None),
            Event::Dumping {
                progress,
                estimated_bytes,
                ..
            } => watched.turn_to(at, "dumping", Some((progress, estimated_bytes))),
            Event::Storing => {
                watched.sample();
                watched.turn_to(at, "storing", None);
            }
            Event::Retrying { failure, delay, .. } => {
                let seconds = delay.as_secs();
                let text = format!("{}; trying again in {seconds} s", failure.message);
                watched.line(at, text);
                "waiting to try again".clone_into(&mut watched.phase);
            }
            Event::Reading { progress } => watched.turn_to(at, "reading", Some((progress, 0))),
            Event::Restoring {
                progress, bytes, ..
            } => watched.turn_to(at, "restoring", Some((progress, bytes))),
            Event::Comparing {
                progress, bytes, ..
            } => watched.turn_to(at, "comparing", Some((progress, bytes))),
            Event::Copying { progress, bytes } => {
                watched.turn_to(at, "copying", Some((progress, bytes)));
            }
            Event::Verifying {
                id,
                storage,
                size_bytes,
                progress,
                ..
            } => {
                let text = format!("reading {id} in {storage}");
                watched.turn_to(at, &text, Some((progress, size_bytes)));
            }
            Event::Verified(report) => {
                let word = if report.ok { "good" } else { "NOT good" };
                let text = format!("{} in {}: {word}", report.id, report.storage);
                watched.line(at, text);
            }
            Event::Of { event, .. } => {
                drop(watched);
                return self.note(*event);
            }
            Event::Ended
            | Event::Making { .. }
            | Event::Ready { .. }
            | Event::Running { .. }
            | Event::RollingBack { .. } => {}
        }
        drop(watched);
        self.entry.changed();
    }
}

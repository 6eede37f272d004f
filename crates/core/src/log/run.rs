//! One run in the log: the fields that each of its lines carries, and the secrets it knows.
//!
//! An event of the code belongs to the run whose span is around it. A task that a run starts takes the span along
//! (`in_current_span`); what is logged outside of any run carries no run's fields, and is searched for every secret.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::line::Line;
use super::secrets::Secrets;
use super::{Fields, Log};

/// The target of the spans around runs, which no filter turns off.
const TARGET: &str = "pgkeep::run";

/// What a run's lines say of it, under names that never change. A process that does one run needs none of it.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// By what the run is found again: `run`.
    pub id: Option<String>,
    /// `backup`, `verify`, …: `verb`.
    pub verb: Option<&'static str>,
    /// The database it is about, where it is one: `database`. A line about another one names that.
    pub database: Option<String>,
}

/// One run in the log; clones are the same run.
#[derive(Clone)]
pub struct Run {
    log: Log,
    known: Arc<Known>,
}

pub(super) struct Known {
    pub(super) fields: Fields,
    number: u64,
    secrets: Secrets,
}

/// The runs of one log that somebody still holds.
#[derive(Default)]
pub(super) struct Runs {
    last: u64,
    held: Vec<Weak<Known>>,
}

impl Run {
    pub(super) fn new(log: Log, runs: &Mutex<Runs>, about: About, secrets: Secrets) -> Self {
        let texts = [
            ("run", about.id),
            ("verb", about.verb.map(str::to_owned)),
            ("database", about.database),
        ];
        let fields = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), json!(text?))));
        let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.last += 1;
        let known = Arc::new(Known {
            fields: fields.collect(),
            number: runs.last,
            secrets,
        });
        runs.held.retain(|held| held.strong_count() > 0);
        runs.held.push(Arc::downgrade(&known));
        Self { log, known }
    }

    /// Returns the log that it writes.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Returns where it hides what it learns.
    pub fn secrets(&self) -> &Secrets {
        &self.known.secrets
    }

    /// Returns the span around it: what the code logs within carries its fields.
    pub fn span(&self) -> Span {
        tracing::error_span!(target: TARGET, parent: None, "run", number = self.known.number)
    }

    /// Begins a line of its own.
    pub fn line(&self, level: Level, message: String) -> Line {
        Line::new(level, message, self.known.fields.clone())
    }

    /// Begins a line with fields of its own.
    pub fn line_with(
        &self,
        level: Level,
        message: String,
        fields: impl IntoIterator<Item = (String, Value)>,
    ) -> Line {
        let mut all = self.known.fields.clone();
        all.extend(fields);
        Line::new(level, message, all)
    }
}

/// Tells whether it is the span around a run.
pub(super) fn is_run(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Ties the span around a run to what is known of it.
pub(super) struct Tie(pub(super) Log);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Tie {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut number = Number(None);
        attributes.record(&mut number);
        let runs = self.0.runs().lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = runs.held.iter().filter_map(Weak::upgrade);
        let known = held.find(|known| Some(known.number) == number.0);
        if let (Some(known), Some(span)) = (known, context.span(id)) {
            span.extensions_mut().insert(known);
        }
    }
}

struct Number(Option<u64>);

impl Visit for Number {
    fn record_u64(&mut self, _: &Field, value: u64) {
        self.0 = Some(value);
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

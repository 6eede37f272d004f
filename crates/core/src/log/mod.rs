//! The log below both front doors: lines in text for people or JSON for machines, a file that is rotated, and runs side
//! by side whose lines do not mix.
//!
//! Whatever is told here passes the known secrets first. A disk that is full stops nothing and changes no exit code:
//! the first line that the file did not take is told by the front door, the rest is lost. One that cannot be rotated
//! is told there, too, and takes on what comes.

mod line;
mod rotated;
mod run;
mod secrets;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

pub use line::Line;
use pgkeep_model::config::LogConfig;
use pgkeep_model::failure::{Failure, Kind};
use rotated::{Rotated, Trouble};
pub use run::{About, Run};
pub use secrets::Secrets;

type Fields = Map<String, Value>;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a front door shows lines; no secret is left in what it gets.
pub trait Sink: Send + Sync {
    /// Shows text for people, which may have colours.
    fn text(&self, text: &str);

    /// Shows one JSON object.
    fn json(&self, text: String);

    /// Shows a warning in a way of its own, and says whether it has one.
    fn warning(&self, _text: &str) -> bool {
        false
    }
}

/// One log of a process; clones are the same log.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    format: Format,
    sink: Arc<dyn Sink>,
    secrets: Secrets,
    runs: Mutex<run::Runs>,
    /// Whether the file was named at first, so that the configuration cannot name another.
    is_file_given: bool,
    file: Mutex<Option<Rotated>>,
    has_file: AtomicBool,
    has_complained: AtomicBool,
}

impl Log {
    /// Makes a log that shows its lines in `sink`, and writes them into a file where one is named.
    pub fn new(
        format: Format,
        file: Option<PathBuf>,
        sink: Arc<dyn Sink>,
        secrets: Secrets,
    ) -> Self {
        let limits = LogConfig::default();
        let file = file.map(|path| Rotated::new(path, limits.max_size_bytes, limits.keep));
        Self(Arc::new(Shared {
            format,
            sink,
            secrets,
            runs: Mutex::default(),
            is_file_given: file.is_some(),
            has_file: AtomicBool::new(file.is_some()),
            file: Mutex::new(file),
            has_complained: AtomicBool::new(false),
        }))
    }

    /// Begins a run, which hides what it learns in `secrets`: those of the process, or a place
    /// [beside](Secrets::beside) them.
    pub fn run(&self, about: About, secrets: Secrets) -> Run {
        Run::new(self.clone(), &self.0.runs, about, secrets)
    }

    /// Returns what takes the events of the code: the sink those that `shown` lets through, the file those that
    /// `written` does.
    pub fn subscriber(&self, shown: EnvFilter, written: EnvFilter) -> impl Subscriber + use<> {
        let runs = || filter_fn(run::is_run).with_max_level_hint(LevelFilter::ERROR);
        let events = |into| Events {
            log: self.clone(),
            into,
        };
        Registry::default()
            .with(run::Tie(self.clone()).with_filter(runs()))
            .with(events(Into::Sink).with_filter(shown.or(runs())))
            .with(events(Into::File).with_filter(written.or(runs())))
    }

    /// Takes up what the configuration says of the file; one that was named at first stays.
    pub fn configure(&self, config: &LogConfig) {
        let log = &self.0;
        let mut file = log.file.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *file, &config.file) {
            (Some(file), named) if log.is_file_given || named.as_deref() == Some(file.path()) => {
                file.limit(config.max_size_bytes, config.keep);
            }
            (slot, Some(path)) => {
                *slot = Some(Rotated::new(
                    path.clone(),
                    config.max_size_bytes,
                    config.keep,
                ));
                log.has_file.store(true, Ordering::Relaxed);
            }
            (_, None) => {}
        }
    }

    /// Shows a line as the format asks, `shown` standing for it where people read, and writes it into the file.
    pub fn tell(&self, shown: &str, line: &Line) {
        match self.0.format {
            Format::Json => self.0.sink.json(line.json(&self.0.secrets)),
            Format::Text => self.0.sink.text(&self.0.secrets.redacted(shown)),
        }
        self.write(line);
    }

    /// Writes a line into the file alone.
    pub fn write(&self, line: &Line) {
        let log = &self.0;
        if !log.has_file.load(Ordering::Relaxed) {
            return;
        }
        let text = match log.format {
            Format::Json => line.json(&log.secrets),
            Format::Text => line.text(false, &log.secrets),
        };
        let failed = {
            let mut file = log.file.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(file) = file.as_mut() else { return };
            file.write(&(text + "\n"))
                .err()
                .map(|trouble| (file.path().to_owned(), trouble))
        };
        if let Some((path, trouble)) = failed {
            self.complain(&path, &trouble);
        }
    }

    /// Says once that the file takes no lines, or is not rotated. It was the place for that, so only the sink is left.
    fn complain(&self, path: &Path, trouble: &Trouble) {
        let log = &self.0;
        let path = path.display();
        let message = match trouble {
            Trouble::NotWritten(_) if log.has_complained.swap(true, Ordering::Relaxed) => return,
            Trouble::NotWritten(error) => {
                format!("cannot write the log file `{path}`: {error}; the run goes on without it")
            }
            Trouble::NotRotated(error) => {
                format!(
                    "cannot rotate the log file `{path}`: {error}; it still takes every line and keeps growing"
                )
            }
        };
        if log.sink.warning(&log.secrets.redacted(&message)) {
            return;
        }
        match log.format {
            Format::Json => {
                let line = Line::new(Level::WARN, message, Fields::new());
                log.sink.json(line.json(&log.secrets));
            }
            Format::Text => {
                let text = format!("warning: {message}");
                log.sink.text(&log.secrets.redacted(&text));
            }
        }
    }

    fn runs(&self) -> &Mutex<run::Runs> {
        &self.0.runs
    }
}

/// Where events of the code go.
#[derive(Clone, Copy)]
enum Into {
    Sink,
    File,
}

struct Events {
    log: Log,
    into: Into,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut around = context.event_scope(event).into_iter().flatten();
        let fields = around.find_map(|span| {
            let extensions = span.extensions();
            let known = extensions.get::<Arc<run::Known>>()?;
            Some(known.fields.clone())
        });
        let line = Line::of_event(event, fields.unwrap_or_default());
        let log = &self.log.0;
        match (self.into, log.format) {
            (Into::File, _) => self.log.write(&line),
            (Into::Sink, Format::Json) => log.sink.json(line.json(&log.secrets)),
            (Into::Sink, Format::Text) => log.sink.text(&line.text(true, &log.secrets)),
        }
    }
}

/// What ended: the fields by which a machine finds it again, under names that never change.
#[derive(Default)]
pub struct Ended<'a> {
    /// `backup`, `verify`, … or a part of one, such as `dump`.
    pub stage: &'a str,
    /// The database, where it is about one.
    pub database: Option<&'a str>,
    /// The backup, where there is one.
    pub backup_id: Option<&'a str>,
    /// How long it took.
    pub duration_ms: u64,
    /// How much was stored.
    pub size_bytes: Option<u64>,
    /// Why it failed; none where it went well.
    pub failure: Option<&'a Failure>,
}

/// Logs the end of a piece of work.
pub fn ended(ended: &Ended<'_>) {
    tracing::info!(
        target: "pgkeep",
        stage = ended.stage,
        database = ended.database,
        backup_id = ended.backup_id,
        duration_ms = ended.duration_ms,
        size_bytes = ended.size_bytes,
        code = ended.failure.map_or(0, |failure| failure.kind.exit_code()),
        id = ended.failure.map(|failure| failure.id),
        "{} {}",
        ended.stage,
        match ended.failure.map(|failure| failure.kind) {
            None => "done",
            Some(Kind::AfterGood) => "done, but a follow-up step failed",
            Some(_) => "failed",
        },
    );
}

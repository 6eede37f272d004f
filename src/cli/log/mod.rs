//! The one way to standard error and into the log file, in text for people or JSON for machines.
//!
//! Whatever is told here passes the known secrets first. A reader that has left and a disk that is full stop nothing
//! and change no exit code: the first line that the log file did not take is told on standard error, the rest is lost. One that cannot be rotated
//! is told there, too, and takes on what comes.

mod line;
mod rotated;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::actions;
use super::global::{Global, LogFormat};
use super::hidden::{hide_guessed, redacted};
use line::Line;
use pgkeep_model::config::LogConfig;
use pgkeep_model::failure::{Failure, Kind};
use rotated::{Rotated, Trouble};

/// Shorter lines of a secret are not masked: the runner would blacken every `a`, and tell the secret by the gaps.
const MIN_MASKED: usize = 4;

/// What the command line says of the log; before it was read, text for people.
struct Log {
    format: LogFormat,
    /// Whether a runner of GitHub reads along.
    is_on_actions: bool,
    /// Whether the command line names the file, so that the configuration cannot.
    is_file_given: bool,
    file: Mutex<Option<Rotated>>,
    has_file: AtomicBool,
    has_complained: AtomicBool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts the log: warnings by default, more with `-v` and `-vv`, or as `PGKEEP_LOG` says. The log file takes what `-v`
/// would say, at least.
pub(super) fn start(global: &Global, is_on_actions: bool) {
    let limits = LogConfig::default();
    let file = global.log_file.clone();
    let file = file.map(|path| Rotated::new(path, limits.max_size_bytes, limits.keep));
    let _ = LOG.set(Log {
        format: global.log_format,
        is_on_actions,
        is_file_given: file.is_some(),
        has_file: AtomicBool::new(file.is_some()),
        file: Mutex::new(file),
        has_complained: AtomicBool::new(false),
    });
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "pgkeep=info,warn",
        (false, 2) => "pgkeep=debug,info",
        (false, _) => "trace",
    };
    let level_of_file = match global.verbose {
        0 | 1 => "pgkeep=info,warn",
        _ => level,
    };
    let filter =
        |level| EnvFilter::try_from_env("PGKEEP_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let _ = tracing_subscriber::registry()
        .with(Sink::StandardError.with_filter(filter(level)))
        .with(Sink::File.with_filter(filter(level_of_file)))
        .try_init();
}

/// Takes up what the configuration says of the log file; what the command line says goes first.
pub(super) fn configure(config: &LogConfig) {
    let Some(log) = LOG.get() else { return };
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

/// Tells whether a runner of GitHub reads along.
pub(super) fn is_on_actions() -> bool {
    LOG.get().is_some_and(|log| log.is_on_actions)
}

/// Tells a person something; nobody may be there to read it.
pub(super) fn say(text: &str) {
    let plain = anstream::adapter::strip_str(text).to_string();
    tell(text, &Line::new(Level::INFO, plain));
}

/// Tells a warning: `shown` to a person, `text` to machines, and to the log file even where a person wants quiet.
pub(super) fn warn(shown: Option<&str>, text: &str) {
    let line = Line::new(Level::WARN, text.to_owned());
    match shown {
        Some(_) if is_on_actions() => {
            let message = redacted(text);
            to_standard_error(&actions::command(
                "warning",
                &[("title", "pgkeep")],
                &message,
            ));
            to_file(&line);
        }
        Some(shown) => tell(shown, &line),
        None => to_file(&line),
    }
}

/// Tells a failure: `shown` to a person, all of its parts to machines.
pub(super) fn fail(shown: &str, failure: &Failure) {
    let line = line_of(failure);
    if is_on_actions() {
        annotate(failure);
        to_file(&line);
    } else {
        tell(shown, &line);
    }
}

/// Tells a failure to a program that reads JSON: as the last object of standard error.
pub(super) fn fail_in_json(failure: &Failure) {
    if is_on_actions() {
        annotate(failure);
    }
    let mut object = failure.to_json();
    super::hidden::redact_json(&mut object);
    to_standard_error(&shielded_json(object.to_string()));
    to_file(&line_of(failure));
}

fn line_of(failure: &Failure) -> Line {
    let level = match failure.kind {
        Kind::AfterGood => Level::WARN,
        _ => Level::ERROR,
    };
    let mut line = Line::new(level, failure.message.clone());
    if let Value::Object(fields) = failure.to_json() {
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        let told = |name: &str| !matches!(name, "message" | "message_type");
        line.fields = fields
            .into_iter()
            .filter(|(name, value)| told(name) && !is_empty(value))
            .collect();
    }
    line
}

/// Marks a run of GitHub with a failure.
pub(super) fn annotate(failure: &Failure) {
    to_standard_error(&annotation(failure));
}

/// Tells a person what is wrong with the command line, in front of any log. An argument may be a URL with a password.
pub(super) fn say_usage(text: &str, is_on_actions: bool) {
    let text = redacted(text.trim_end());
    if is_on_actions {
        to_standard_error(&actions::shielded(&text))
    } else {
        to_standard_error(&text)
    }
}

/// Renders a failure as GitHub's runner marks a run with it.
fn annotation(failure: &Failure) -> String {
    let name = if failure.kind == Kind::AfterGood {
        "warning"
    } else {
        "error"
    };
    let title = format!(
        "pgkeep: {}, exit code {}",
        failure.id,
        failure.kind.exit_code()
    );
    let text = failure.to_string();
    let text = redacted(text.strip_prefix("error: ").unwrap_or(&text)).into_owned();
    actions::command(name, &[("title", &title)], &text)
}

/// Hides secrets from now on. On GitHub's runners the runner is told, too, so that no later program of the job prints them.
pub(super) fn hide<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) {
    let secrets: Vec<&SecretString> = secrets.into_iter().collect();
    hide_guessed(secrets.iter().copied());
    for secret in secrets {
        mask(secret.expose_secret());
    }
}

/// Tells GitHub's runner a secret, so that it hides it in everything that the job prints from then on.
///
/// The runner reads both streams; standard output is left to data. A file in the place of standard error is no runner,
/// and would keep the secret.
fn mask(secret: &str) {
    static MASKED: LazyLock<(RandomState, Mutex<HashSet<u64>>)> = LazyLock::new(Default::default);
    let is_file = || {
        rustix::fs::fstat(std::io::stderr())
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
    };
    if !is_on_actions() || std::io::stderr().is_terminal() || is_file() {
        return;
    }
    let (hasher, known) = &*MASKED;
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    for line in secret
        .lines()
        .filter(|line| line.trim().len() >= MIN_MASKED)
    {
        if known.insert(hasher.hash_one(line)) {
            to_standard_error(&actions::command("add-mask", &[], line));
        }
    }
}

/// Keeps text from being read as a command of GitHub's runner, which also reads what a server called its tables.
pub(super) fn shielded(text: String) -> String {
    if is_on_actions() {
        actions::shielded(&text)
    } else {
        text
    }
}

/// The same for JSON, whose values stay what they are.
pub(super) fn shielded_json(text: String) -> String {
    if is_on_actions() {
        actions::shielded_json(&text)
    } else {
        text
    }
}

/// Tells a line on standard error, as the format asks, and in the log file.
fn tell(shown: &str, line: &Line) {
    match LOG.get().map(|log| log.format) {
        Some(LogFormat::Json) => to_standard_error(&shielded_json(line.json())),
        _ => to_standard_error(&shielded(redacted(shown).into_owned())),
    }
    to_file(line);
}

/// Writes to standard error. Nobody may be there to read it.
fn to_standard_error(text: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = writeln!(stderr, "{text}");
}

fn to_file(line: &Line) {
    let Some(log) = LOG.get().filter(|log| log.has_file.load(Ordering::Relaxed)) else {
        return;
    };
    let text = match log.format {
        LogFormat::Json => line.json(),
        LogFormat::Text => line.text(false),
    };
    let failed = {
        let mut file = log.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file.as_mut() else { return };
        file.write(&(text + "\n"))
            .err()
            .map(|trouble| (file.path().to_owned(), trouble))
    };
    if let Some((path, trouble)) = failed {
        complain(log, &path, &trouble);
    }
}

/// Says once that the log file takes no lines, or is not rotated. It was the place for that, so only standard error is
/// left.
fn complain(log: &Log, path: &Path, trouble: &Trouble) {
    let path = path.display();
    let message = match trouble {
        Trouble::NotWritten(_) if log.has_complained.swap(true, Ordering::Relaxed) => return,
        Trouble::NotWritten(error) => {
            format!("cannot write the log file `{path}`: {error}; the run goes on without it")
        }
        Trouble::NotRotated(error) => {
            format!(
                "cannot rotate the log file `{path}`: {error}; it takes every line and grows on"
            )
        }
    };
    let text = match (log.format, log.is_on_actions) {
        (_, true) => actions::command("warning", &[("title", "pgkeep")], &redacted(&message)),
        (LogFormat::Json, _) => Line::new(Level::WARN, message).json(),
        (LogFormat::Text, _) => redacted(&format!("warning: {message}")).into_owned(),
    };
    to_standard_error(&text);
}

/// Where events of the code go.
#[derive(Clone, Copy)]
enum Sink {
    StandardError,
    File,
}

impl<S: Subscriber> Layer<S> for Sink {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = Line::of_event(event);
        match (self, LOG.get().map(|log| log.format)) {
            (Self::File, _) => to_file(&line),
            (Self::StandardError, Some(LogFormat::Json)) => {
                to_standard_error(&shielded_json(line.json()))
            }
            (Self::StandardError, _) => to_standard_error(&shielded(line.text(true))),
        }
    }
}

/// What ended: the fields by which a machine finds it again, under names that never change.
#[derive(Default)]
pub(super) struct Ended<'a> {
    /// `backup`, `verify`, … or a part of one, such as `dump`.
    pub stage: &'a str,
    pub database: Option<&'a str>,
    pub backup_id: Option<&'a str>,
    pub duration_ms: u64,
    pub size_bytes: Option<u64>,
    /// Why it failed; none where it went well.
    pub failure: Option<&'a Failure>,
}

/// Logs the end of a piece of work.
pub(super) fn ended(ended: &Ended<'_>) {
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
            Some(Kind::AfterGood) => "done, but not all behind it",
            Some(_) => "failed",
        },
    );
}

type Fields = Map<String, Value>;

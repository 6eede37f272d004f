//! The terminal's end of the log: the one way to standard error, for people and for GitHub's runner.
//!
//! Lines, the file and what is secret are of [`pgkeep_core::log`]; nothing gets here with a known secret in it. A reader
//! that has left stops nothing and changes no exit code.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::actions;
use super::args::{Global, LogFormat};
use super::screen::in_ascii;
use pgkeep_core::log as core;
use pgkeep_core::log::{About, Format, Line, Run, Secrets, Sink};
pub(super) use pgkeep_core::log::{Ended, ended};
use pgkeep_model::config::LogConfig;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::name::{harmless, harmless_json};
use pgkeep_model::redact::Redactor;

/// Shorter lines of a secret are not masked: the runner would blacken every `a`, and tell the secret by the gaps.
const MIN_MASKED: usize = 4;

/// What this run prints on standard error and writes to the log file; clones share it.
#[derive(Clone)]
pub(super) struct Log {
    /// The process does one run; its lines carry nothing of it.
    run: Run,
    terminal: Arc<Terminal>,
}

/// Standard error, where a runner of GitHub may read along.
#[derive(Default)]
struct Terminal {
    is_on_actions: bool,
    /// Whether what is not ASCII can be shown.
    is_utf8: bool,
    /// What the runner has to hide, by a hash that means nothing elsewhere.
    masked: (RandomState, Mutex<HashSet<u64>>),
}

impl Log {
    /// Makes the log of a command line that was not understood: text for people.
    pub(super) fn of_usage(is_on_actions: bool, is_utf8: bool, secrets: Secrets) -> Self {
        Self::new(Format::Text, None, is_on_actions, is_utf8, secrets)
    }

    /// Starts the log: warnings by default, more with `-v` and `-vv`, or as `PGKEEP_LOG` says. The log file takes what
    /// `-v` would say, at least.
    pub(super) fn start(
        global: &Global,
        is_on_actions: bool,
        is_utf8: bool,
        secrets: Secrets,
    ) -> Self {
        let format = match global.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let file = global.log_file.clone();
        let log = Self::new(format, file, is_on_actions, is_utf8, secrets);
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
        let events = log.run.log();
        let _ = events
            .subscriber(filter(level), filter(level_of_file))
            .try_init();
        log
    }

    fn new(
        format: Format,
        file: Option<std::path::PathBuf>,
        is_on_actions: bool,
        is_utf8: bool,
        secrets: Secrets,
    ) -> Self {
        let terminal = Arc::new(Terminal {
            is_on_actions,
            is_utf8,
            ..Terminal::default()
        });
        let sink: Arc<dyn Sink> = Arc::<Terminal>::clone(&terminal);
        let log = core::Log::new(format, file, sink, secrets.clone());
        Self {
            run: log.run(About::default(), secrets),
            terminal,
        }
    }

    /// Carries out what the run does: what the code logs within is its own.
    pub(super) fn around<T>(&self, run: impl FnOnce() -> T) -> T {
        self.run.span().in_scope(run)
    }

    /// Takes up what the configuration says of the log file; what the command line says goes first.
    pub(super) fn configure(&self, config: &LogConfig) {
        self.run.log().configure(config);
    }

    /// Prints text for people; there may be no one to read it.
    pub(super) fn say(&self, text: &str) {
        let plain = anstream::adapter::strip_str(text).to_string();
        self.tell(text, &self.run.line(Level::INFO, plain));
    }

    /// Reports a warning: `shown` to people, `text` to programs, and to the log file even with `--quiet`.
    pub(super) fn warn(&self, shown: Option<&str>, text: &str) {
        let line = self.run.line(Level::WARN, text.to_owned());
        match shown {
            Some(shown) if !self.terminal.warning(&self.redacted(text)) => self.tell(shown, &line),
            _ => self.run.log().write(&line),
        }
    }

    /// Reports a failure: `shown` to people, all of its parts to programs.
    pub(super) fn fail(&self, shown: &str, failure: &Failure) {
        let line = self.line_of(failure);
        if self.annotate(failure) {
            self.run.log().write(&line);
        } else {
            self.tell(shown, &line);
        }
    }

    /// Reports a failure in JSON: as the last object of standard error.
    pub(super) fn fail_in_json(&self, failure: &Failure) {
        self.annotate(failure);
        let mut object = failure.to_json();
        self.run.secrets().redact_json(&mut object);
        self.terminal.json(object.to_string());
        self.run.log().write(&self.line_of(failure));
    }

    fn line_of(&self, failure: &Failure) -> Line {
        let level = match failure.kind {
            Kind::AfterGood => Level::WARN,
            _ => Level::ERROR,
        };
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        let told = |name: &str| !matches!(name, "message" | "message_type");
        let all = match failure.to_json() {
            Value::Object(fields) => fields,
            _ => serde_json::Map::new(),
        };
        let fields = all
            .into_iter()
            .filter(|(name, value)| told(name) && !is_empty(value));
        self.run.line_with(level, failure.message.clone(), fields)
    }

    /// Marks a run of GitHub with a failure, where it is one.
    fn annotate(&self, failure: &Failure) -> bool {
        if !self.terminal.is_on_actions {
            return false;
        }
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
        let message = self.redacted(text.strip_prefix("error: ").unwrap_or(&text));
        to_standard_error(&actions::command(name, &[("title", &title)], &message));
        true
    }

    /// Reports what is wrong with the command line: `shown` to people, who may have typed a URL with a password. A run of
    /// GitHub is marked with it, too.
    pub(super) fn say_usage(&self, shown: &str, failure: &Failure) {
        self.annotate(failure);
        self.terminal.text(&self.redacted(shown.trim_end()));
    }

    /// Hides secrets from now on. On GitHub the runner learns them as well, so that no later program of the job prints
    /// them.
    pub(super) fn hide<'a>(&self, secrets: impl IntoIterator<Item = &'a SecretString>) {
        let secrets: Vec<&SecretString> = secrets.into_iter().collect();
        self.hide_guessed(secrets.iter().copied());
        for secret in secrets {
            self.terminal.mask(secret.expose_secret());
        }
    }

    /// Hides values that may be secrets by the names they stand under. No runner learns them: it would blacken a whole job's
    /// log for the sake of a variable called `AUTHOR`.
    pub(super) fn hide_guessed<'a>(&self, secrets: impl IntoIterator<Item = &'a SecretString>) {
        self.run.secrets().hide(secrets);
    }

    /// Returns what takes every secret that is known by now out of a text.
    pub(super) fn redactor(&self) -> Redactor {
        self.run.secrets().redactor()
    }

    fn redacted<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        self.run.secrets().redacted(text)
    }

    /// Keeps text from being read as a command of GitHub's runner, which also reads what a server called its tables.
    pub(super) fn shielded(&self, text: String) -> String {
        self.terminal.shielded(&text)
    }

    /// The same for JSON, whose values stay what they are.
    pub(super) fn shielded_json(&self, text: String) -> String {
        self.terminal.shielded_json(&text)
    }

    /// Writes a line to standard error, in the format asked for, and to the log file.
    fn tell(&self, shown: &str, line: &Line) {
        self.run.log().tell(shown, line);
    }
}

impl Terminal {
    /// Gives a secret to GitHub's runner, so that it hides it in everything that the job prints from then on.
    ///
    /// The runner reads both streams; standard output is left to data. A file in the place of standard error is no
    /// runner, and would keep the secret.
    fn mask(&self, secret: &str) {
        let is_file = || {
            rustix::fs::fstat(std::io::stderr())
                .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
        };
        if !self.is_on_actions || std::io::stderr().is_terminal() || is_file() {
            return;
        }
        let (hasher, known) = &self.masked;
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

    fn shielded(&self, text: &str) -> String {
        let text = harmless(text);
        if self.is_on_actions {
            actions::shielded(&text)
        } else {
            text.into_owned()
        }
    }

    fn shielded_json(&self, text: &str) -> String {
        let text = harmless_json(text);
        if self.is_on_actions {
            actions::shielded_json(&text)
        } else {
            text.into_owned()
        }
    }
}

impl Sink for Terminal {
    fn text(&self, text: &str) {
        let text = self.shielded(text);
        to_standard_error(&if self.is_utf8 { text } else { in_ascii(&text) });
    }

    fn json(&self, text: String) {
        to_standard_error(&self.shielded_json(&text));
    }

    fn warning(&self, text: &str) -> bool {
        if self.is_on_actions {
            let command = actions::command("warning", &[("title", "pgkeep")], text);
            to_standard_error(&command);
        }
        self.is_on_actions
    }
}

/// Writes to standard error. Nobody may be there to read it.
fn to_standard_error(text: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = writeln!(stderr, "{text}");
}

//! Notices: what is reported of a run to those who are not looking, and who wants to hear of it.
//!
//! A [`Notice`] is a plain value made from a report, so that it cannot disagree with the exit code. The modules render
//! it as text, HTML, the messages of Slack and Discord, and JSON, each cut to what its service takes and with foreign
//! names made harmless. Nothing here sends anything.

mod chat;
mod config;
mod cut;
mod ping;
mod text;

use jiff::Timestamp;
use serde::Serialize;

use super::redact::Redactor;
use super::words::{bytes, number, took};

pub use config::{
    Channel, DATABASE_MARK, EmailConfig, HookConfig, MailTls, NotifierConfig, PingConfig,
    PingStyle, WebhookConfig,
};
pub use ping::{PingKind, body as ping_body, url as ping_url};

/// The format of the JSON document; a reader refuses a newer one.
pub const FORMAT: u64 = 1;

/// Longest subject: what a list of mails still shows, and what a mail header takes without folding far.
const MAX_SUBJECT_CHARS: usize = 200;

/// What a notifier can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Any run that failed, or that left something undone behind a good backup.
    Failure,
    /// A backup that is stored and proven.
    Success,
    /// No good backup is young enough, copies are missing, or the last drill is long ago.
    Stale,
    /// A restore, however it ended.
    Restore,
    /// A drill, however it ended.
    Drill,
    /// A message to try the way; it is told to everybody.
    Test,
}

impl Event {
    /// Returns the name that stands in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Success => "success",
            Self::Stale => "stale",
            Self::Restore => "restore",
            Self::Drill => "drill",
            Self::Test => "test",
        }
    }
}

/// How a run ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done and proven.
    Good,
    /// The backup is good, something after it is not.
    GoodBut,
    /// Not done, or done and found bad.
    Failed,
}

/// What is reported of one run, about one database.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    /// Always [`FORMAT`].
    pub format: u64,
    /// One line that tells all.
    pub subject: String,
    /// Why it is reported.
    pub event: Event,
    /// How it ended.
    pub outcome: Outcome,
    /// The command: `backup`, `restore`, `drill`, `verify`, `status`, `check`.
    pub verb: &'static str,
    /// The database's name in the configuration.
    pub database: String,
    /// The machine that ran it.
    pub host: String,
    /// When this was written.
    pub at: Timestamp,
    /// The exit code that the run alone ends with.
    pub exit_code: u8,
    /// Whether flags left tables out of the backup.
    pub is_partial: bool,
    /// How far it came, where it failed.
    pub stage: Option<String>,
    /// What was proven, in words.
    pub verdict: String,
    /// The backup that it made or was about.
    pub backup_id: Option<String>,
    /// Why a backup was made.
    pub trigger: Option<String>,
    /// Where a restore went.
    pub target: Option<String>,
    /// Size of the stored dump.
    pub size_bytes: Option<u64>,
    /// Length of the uncompressed dump.
    pub dump_bytes: Option<u64>,
    /// Number of tables.
    pub tables: Option<u64>,
    /// Rows of all tables.
    pub rows: Option<u64>,
    /// How long it took.
    pub took_ms: Option<u64>,
    /// What each storage made of a backup.
    pub storages: Vec<Copy>,
    /// Why it failed.
    pub failure: Option<Trouble>,
    /// What is safe.
    pub safe: String,
    /// Next moves.
    pub next: Vec<String>,
    /// What was odd.
    pub warnings: Vec<String>,
    /// Version of pgkeep.
    pub pgkeep: &'static str,
}

/// One storage's part in a backup.
#[derive(Clone, Debug, Serialize)]
pub struct Copy {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Whether the backup is there.
    pub stored: bool,
}

/// Why a run failed: the same words as on the terminal.
#[derive(Clone, Debug, Serialize)]
pub struct Trouble {
    /// Stable name.
    pub id: String,
    /// What failed and why.
    pub message: String,
    /// A program's own last words, or a list of problems.
    pub details: Vec<String>,
    /// Deeper causes, outermost first.
    pub causes: Vec<String>,
}

impl Notice {
    /// Starts a notice; the caller fills in what it knows.
    pub fn new(
        event: Event,
        outcome: Outcome,
        verb: &'static str,
        database: impl Into<String>,
        at: Timestamp,
    ) -> Self {
        Self {
            format: FORMAT,
            subject: String::new(),
            event,
            outcome,
            verb,
            database: database.into(),
            host: String::new(),
            at,
            exit_code: 0,
            is_partial: false,
            stage: None,
            verdict: String::new(),
            backup_id: None,
            trigger: None,
            target: None,
            size_bytes: None,
            dump_bytes: None,
            tables: None,
            rows: None,
            took_ms: None,
            storages: Vec::new(),
            failure: None,
            safe: String::new(),
            next: Vec::new(),
            warnings: Vec::new(),
            pgkeep: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Makes the message that tries the way.
    pub fn test(at: Timestamp) -> Self {
        let mut notice = Self::new(Event::Test, Outcome::Good, "check", "test", at);
        notice.verdict = "this notifier works".to_owned();
        notice.safe = "nothing happened: this is only a test message".to_owned();
        notice.with_subject("a test of this notifier")
    }

    /// Puts the subject together: `pgkeep: shop: ` and what it is about.
    pub fn with_subject(mut self, what: &str) -> Self {
        let subject = match self.event {
            Event::Test => format!("pgkeep: {what}"),
            _ => format!("pgkeep: {}: {what}", self.database),
        };
        self.subject = cut::head(&cut::one_line(&subject), MAX_SUBJECT_CHARS);
        self
    }

    /// Tells whether a notifier that asked for `event` is to hear of this.
    fn concerns(&self, event: Event) -> bool {
        let is_failure = self.outcome != Outcome::Good && self.event != Event::Stale;
        match event {
            Event::Failure => is_failure,
            Event::Success => self.verb == "backup" && self.outcome != Outcome::Failed,
            other => self.event == other,
        }
    }

    /// Takes secrets out of everything that came from somewhere else.
    pub fn redacted(mut self, redactor: &Redactor) -> Self {
        let texts = [&mut self.subject, &mut self.verdict, &mut self.safe]
            .into_iter()
            .chain(&mut self.stage)
            .chain(&mut self.target)
            .chain(self.storages.iter_mut().map(|copy| &mut copy.url))
            .chain(&mut self.next)
            .chain(&mut self.warnings);
        let of_failure = self.failure.iter_mut().flat_map(|failure| {
            [&mut failure.message]
                .into_iter()
                .chain(&mut failure.details)
                .chain(&mut failure.causes)
        });
        for text in texts.chain(of_failure) {
            *text = redactor.redact(text).into_owned();
        }
        self
    }

    /// Returns what is known as pairs of a name and a value, the most telling first.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![];
        let mut put = |name, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                facts.push((name, cut::one_line(&value)));
            }
        };
        let code = match self.exit_code {
            0 => String::new(),
            code => format!(" (exit code {code})"),
        };
        put("verdict", Some(format!("{}{code}", self.verdict)));
        if self.event != Event::Test {
            put("database", Some(self.database.clone()));
        }
        put("backup", self.backup_id.clone());
        put("stage", self.stage.clone());
        put("into", self.target.clone());
        put("size", self.size_in_words());
        put("tables", self.tables.map(number));
        put("rows", self.rows.map(number));
        put("took", self.took_ms.map(took));
        for copy in &self.storages {
            let state = if copy.stored { "stored in" } else { "NOT in" };
            put(state, Some(format!("{} ({})", copy.name, copy.url)));
        }
        put("trigger", self.trigger.clone());
        put("host", Some(self.host.clone()));
        put("at", Some(self.at.to_string()));
        facts
    }

    fn size_in_words(&self) -> Option<String> {
        let stored = self.size_bytes.map(bytes);
        match (stored, self.dump_bytes.map(bytes)) {
            (Some(stored), Some(dump)) => Some(format!("{stored} ({dump} of SQL)")),
            (Some(size), None) => Some(size),
            (None, Some(dump)) => Some(format!("{dump} of SQL")),
            (None, None) => None,
        }
    }
}

impl Trouble {
    /// Returns message, details and causes as lines, as they stand on the terminal.
    fn lines(&self) -> Vec<String> {
        let details = self
            .details
            .iter()
            .flat_map(|detail| detail.lines())
            .map(|line| format!("  {}", cut::one_line(line)));
        let causes = self.causes.iter().map(|cause| cut::one_line(cause));
        [cut::one_line(&self.message)]
            .into_iter()
            .chain(details)
            .chain(causes.map(|cause| format!("caused by: {cause}")))
            .collect()
    }
}

#[cfg(test)]
mod tests;

//! Failures as the operator reads them: what was being done, why it failed, what is safe, what to do next.
//!
//! The only place that knows exit codes, stable ids and the wording's shape. Typed errors of the edges become a
//! [`Failure`] where an operation knows what it was doing; nothing here prints.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// Result of an operation.
pub type Result<T> = std::result::Result<T, Failure>;

/// What kind of failure it is; scripts branch on its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A defect of pgkeep or something nobody thought of.
    Unexpected,
    /// Wrong command line or configuration.
    Usage,
    /// The backup is good, something after it is not.
    AfterGood,
    /// No such backup, database or storage.
    NotFound,
    /// Another run holds the lock.
    Busy,
    /// Login refused by the server, a storage or a key.
    Login,
    /// The source failed: connection or `pg_dump`.
    Source,
    /// The dump failed its proof.
    Proof,
    /// Storage failed.
    Storage,
    /// Stored data is damaged or did not match.
    Damaged,
    /// No good backup within `max_age`.
    Stale,
    /// Refused by a safety rule.
    Refused,
    /// A needed program is missing or too old.
    Program,
    /// The command behind `guard` is there and cannot be started, as a shell says it.
    NotRunnable,
    /// There is no such command to guard, as a shell says it.
    NoCommand,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Kind {
    /// Returns the process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::AfterGood => 3,
            Self::NotFound => 10,
            Self::Busy => 11,
            Self::Login => 12,
            Self::Source => 20,
            Self::Proof => 21,
            Self::Storage => 22,
            Self::Damaged => 23,
            Self::Stale => 24,
            Self::Refused => 25,
            Self::Program => 26,
            Self::NotRunnable => 126,
            Self::NoCommand => 127,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// Where a failure comes from, which decides whether another stored copy is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The run, the source, the server or the target: another copy fails alike.
    #[default]
    Elsewhere,
    /// One stored copy, or the storage that has it: another copy may be good.
    Copy,
    /// One stored copy, of which something was handed on that cannot be taken back.
    CopyHandedOn,
}

/// A failed operation in words.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of failure, which decides the exit code.
    pub kind: Kind,
    /// Stable name for scripts, such as `required_table_missing`.
    pub id: &'static str,
    /// `<what was being done to which thing>: <why>; <what is safe>`: lower case, no full stop.
    pub message: String,
    /// Lines printed indented under the message: a program's own last words, or a list of problems.
    pub details: Vec<String>,
    /// Deeper causes, outermost first.
    pub causes: Vec<String>,
    /// Next moves, each a command, a config key or a file.
    pub hints: Vec<String>,
    /// Whether the same run may succeed a little later.
    pub may_pass: bool,
    /// Where it comes from.
    pub origin: Origin,
}

/// Sums up the failures of several runs, of `all` runs in all: a wish to stop decides, and then the first that is worse
/// than something beside good work. None where nothing failed. Of several runs, `id` and `message` say so.
pub fn overall(
    failures: &[&Failure],
    all: usize,
    id: &'static str,
    message: impl FnOnce(usize) -> String,
) -> Option<Failure> {
    let is_stop = |failure: &Failure| matches!(failure.kind, Kind::Interrupted | Kind::Terminated);
    let mut stops = failures.iter().filter(|failure| is_stop(failure));
    let mut bad = failures
        .iter()
        .filter(|failure| failure.kind != Kind::AfterGood);
    let worst = stops.next().or_else(|| bad.next()).or(failures.first())?;
    if all == 1 || is_stop(worst) {
        return Some((*worst).clone());
    }
    let details: Vec<String> = failures.iter().map(|one| one.message.clone()).collect();
    let summed = Failure::new(worst.kind, id, message(failures.len()));
    Some(summed.with_details(details))
}

impl Failure {
    /// Makes a failure with its kind, stable id and message.
    pub fn new(kind: Kind, id: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            id,
            message: message.into(),
            details: Vec::new(),
            causes: Vec::new(),
            hints: Vec::new(),
            may_pass: false,
            origin: Origin::Elsewhere,
        }
    }

    /// Says that one stored copy is at fault, or the storage that has it.
    pub fn of_copy(mut self) -> Self {
        self.origin = Origin::Copy;
        self
    }

    /// Says of the failure of a copy that no other one can be tried, since something of this one was handed on.
    pub fn handed_on(mut self) -> Self {
        if self.origin == Origin::Copy {
            self.origin = Origin::CopyHandedOn;
        }
        self
    }

    /// Tells whether a stored copy is at fault, or the storage that has it.
    pub fn is_of_copy(&self) -> bool {
        self.origin != Origin::Elsewhere
    }

    /// Adds lines that are printed indented under the message.
    pub fn with_details<T: Into<String>>(mut self, details: impl IntoIterator<Item = T>) -> Self {
        self.details.extend(details.into_iter().map(Into::into));
        self
    }

    /// Adds `error` and all that lies behind it as causes.
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Ends the message with what is safe.
    pub fn and_safe(mut self, safe: &str) -> Self {
        self.message = format!("{}; {safe}", self.message);
        self
    }

    /// Adds a next move.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Renders the failure as the last JSON object of stderr.
    pub fn to_json(&self) -> Value {
        json!({
            "message_type": "exit_error",
            "code": self.kind.exit_code(),
            "id": self.id,
            "message": self.message,
            "details": self.details,
            "causes": self.causes,
            "hints": self.hints,
        })
    }
}

/// In a report a failure stands as it would end standard error.
impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// Renders the failure for people: `error:`, details, `caused by:`, `hint:`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for detail in &self.details {
            write!(f, "\n  {}", detail.replace('\n', "\n  "))?;
        }
        for cause in &self.causes {
            write!(f, "\ncaused by: {}", cause.replace('\n', "\n  "))?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_the_style_asks() {
        let io = std::io::Error::other("no such file");
        let failure = Failure::new(
            Kind::Source,
            "dump_failed",
            "backup of `shop` failed: it broke; nothing was stored",
        )
        .with_details(["pg_dump: error: x"])
        .caused_by(&io)
        .hint("install the PostgreSQL 17 client programs");
        assert_eq!(
            failure.to_string(),
            "error: backup of `shop` failed: it broke; nothing was stored\n  pg_dump: error: x\n\
             caused by: no such file\nhint: install the PostgreSQL 17 client programs"
        );
        assert_eq!(failure.to_json()["code"], 20);
    }
}

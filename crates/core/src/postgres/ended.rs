//! How a program ended, and why we ended it where we did.

/// Why we ended a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Asked to by a signal or the caller.
    Interrupted,
    /// It moved no byte for too long.
    Stalled,
    /// It took longer than it may.
    TimedOut,
    /// It closed its output and lived on.
    Hung,
    /// It printed more than it may.
    TooMuch,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The program's name, for messages.
    pub program: String,
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why we ended it, where we did.
    pub stop: Option<Stop>,
    /// Its last lines on stderr, without secrets.
    pub stderr: Vec<String>,
}

impl Ended {
    /// Tells whether the program ended by itself with exit code 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0) && self.stop.is_none()
    }
}

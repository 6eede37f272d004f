//! What every operation gets: the clock, the wish to stop, and who hears how it ended.

use std::sync::Arc;

use crate::clock::Clock;
use crate::notify::{Nobody, Notify};
pub use crate::stop::{Late, Relay, Signalled, Sooner, Stop};
use crate::tracker::{Tracker, Untracked};

/// What `main` builds once and hands to an operation.
#[derive(Clone)]
pub struct Context {
    /// Time and random numbers.
    pub clock: Arc<dyn Clock>,
    /// Whether somebody wants the run to stop.
    pub stop: Stop,
    /// Where notices about runs are sent.
    pub notices: Arc<dyn Notify>,
    /// Who tracks whole runs.
    pub tracker: Arc<dyn Tracker>,
}

impl Context {
    /// Makes the context of a command without notices.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            stop: Stop::default(),
            notices: Arc::new(Nobody),
            tracker: Arc::new(Untracked),
        }
    }

    /// Returns the same context, of whose runs `notices` are told.
    pub fn telling(&self, notices: Arc<dyn Notify>) -> Self {
        Self {
            notices,
            ..self.clone()
        }
    }

    /// Returns the same context for a part of the work that has a wish to stop of its own.
    pub fn stopped_by(&self, stop: &Stop) -> Self {
        Self {
            stop: stop.clone(),
            ..self.clone()
        }
    }

    /// Returns the same context, whose runs `tracker` hears of.
    pub fn tracked_by(&self, tracker: Arc<dyn Tracker>) -> Self {
        Self {
            tracker,
            ..self.clone()
        }
    }
}

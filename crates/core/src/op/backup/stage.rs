//! How far a run came, told by the events that its observer sees.

use std::sync::{Mutex, PoisonError};

use crate::op::event::{Event, Observer};
use pgkeep_model::anomaly::ANOMALY;
use pgkeep_model::failure::{Failure, Kind};

/// Remembers the last stage, and passes every event on.
pub(super) struct Stages<'a> {
    observer: &'a dyn Observer,
    last: Mutex<&'static str>,
}

impl<'a> Stages<'a> {
    pub fn new(observer: &'a dyn Observer) -> Self {
        let last = Mutex::new("lock");
        Self { observer, last }
    }

    /// Returns the stage in which a run failed.
    pub fn reached(&self, failure: &Failure) -> &'static str {
        if failure.id == ANOMALY {
            return "anomaly";
        }
        match failure.kind {
            // The judge speaks at the end of the dump, before the next event.
            Kind::Proof => "proof",
            _ => *self.last.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Observer for Stages<'_> {
    fn note(&self, event: Event<'_>) {
        let stage = match &event {
            Event::Waiting { .. } => Some("lock"),
            Event::Connecting => Some("connect"),
            Event::Dumping { .. } => Some("dump"),
            Event::Storing => Some("store"),
            _ => None,
        };
        if let Some(stage) = stage {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = stage;
        }
        self.observer.note(event);
    }
}

//! What every operation gets: the clock and the wish to stop.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::failure::{Failure, Kind};

/// What `main` builds once and hands to an operation.
#[derive(Clone)]
pub struct Context {
    /// Time and random numbers.
    pub clock: Arc<dyn Clock>,
    /// Whether somebody wants the run to stop.
    pub stop: Stop,
}

/// A wish to stop that many can wait for. The first signal decides the exit code.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    kind: Arc<OnceLock<Kind>>,
}

impl Stop {
    /// Asks everybody to stop because of `kind` ([`Kind::Interrupted`] or [`Kind::Terminated`]).
    pub fn request(&self, kind: Kind) {
        let _ = self.kind.set(kind); // a second signal changes nothing
        self.token.cancel();
    }

    /// Returns the token that is cancelled by a request.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Tells whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns the failure of a command that only reads.
    pub fn failure_of_reading(&self) -> Failure {
        let mut failure = self.failure("reading");
        failure.message = failure
            .message
            .replace("; nothing was stored", "; nothing was changed");
        failure
    }

    /// Returns the failure of a run that stopped because it was asked to.
    pub fn failure(&self, what: &str) -> Failure {
        let kind = self.kind.get().copied().unwrap_or(Kind::Interrupted);
        let (id, signal) = match kind {
            Kind::Terminated => ("terminated", "SIGTERM"),
            _ => ("interrupted", "SIGINT"),
        };
        Failure::new(
            kind,
            id,
            format!("{what}: stopped by {signal}; nothing was stored"),
        )
    }
}

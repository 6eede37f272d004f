//! What every operation gets: the clock and the wish to stop.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
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
    first: Arc<OnceLock<(Kind, Instant)>>,
}

impl Stop {
    /// Asks everybody to stop because of `kind` ([`Kind::Interrupted`] or [`Kind::Terminated`]).
    pub fn request(&self, kind: Kind) {
        let _ = self.first.set((kind, Instant::now())); // a second signal changes nothing
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

    /// Waits until a stop was asked for so long ago; for ever where nobody asks.
    ///
    /// What tidies up measures its time from the wish and not from its own beginning: several steps that each take their
    /// time would add up.
    pub async fn overdue(&self, after: Duration) {
        self.token.cancelled().await;
        // The wish is noted before the token is cancelled.
        if let Some((_, at)) = self.first.get() {
            tokio::time::sleep_until(*at + after).await;
        }
    }

    /// Returns how long ago a stop was asked for.
    pub fn since(&self) -> Option<Duration> {
        self.first.get().map(|(_, at)| at.elapsed())
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
        let kind = self
            .first
            .get()
            .map_or(Kind::Interrupted, |(kind, _)| *kind);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_runs_from_the_first_wish() {
        let stop = Stop::default();
        assert_eq!(stop.since(), None);
        let early = tokio::time::timeout(Duration::from_millis(20), stop.overdue(Duration::ZERO));
        assert!(early.await.is_err(), "nobody asked");
        stop.request(Kind::Terminated);
        stop.overdue(Duration::from_millis(30)).await;
        let since = stop.since().unwrap();
        assert!(since >= Duration::from_millis(30), "{since:?}");
        // A second wish changes nothing, and what is overdue already is not waited for.
        stop.request(Kind::Interrupted);
        assert!(stop.since().unwrap() >= since);
        stop.overdue(Duration::ZERO).await;
        assert_eq!(stop.failure("x").kind, Kind::Terminated);
    }
}

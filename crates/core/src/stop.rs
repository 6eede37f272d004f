//! The wish to stop: many wait for it, the first signal decides the exit code, and a guarded command may take signals over.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use pgkeep_model::failure::{Failure, Kind};

/// A wish to stop that many can wait for. The first signal decides the exit code.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    first: Arc<OnceLock<(Kind, Instant)>>,
    relay: Arc<Mutex<Option<UnboundedSender<Kind>>>>,
}

/// What a signal meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// It is the wish to stop.
    First,
    /// Somebody wished that before, and cannot wait.
    Again,
    /// It is for the command that is being waited for.
    Relayed,
}

/// The signals of a time in which they are for somebody else. Dropping it ends that time.
pub struct Relay {
    stop: Stop,
    signals: UnboundedReceiver<Kind>,
}

impl Relay {
    /// Returns where the signals come out.
    pub fn signals(&mut self) -> &mut UnboundedReceiver<Kind> {
        &mut self.signals
    }
}

/// A signal that nobody took is a wish to stop like any other.
impl Drop for Relay {
    fn drop(&mut self) {
        *self.stop.lock_relay() = None;
        if let Ok(kind) = self.signals.try_recv() {
            self.stop.request(kind);
        }
    }
}

/// A token that outlives the wish to stop by a while: for what tidies up, and may not take for ever.
pub struct Late {
    token: CancellationToken,
    watch: JoinHandle<()>,
}

impl Deref for Late {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.token
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// A wish to stop for a part of the work, which may have to end sooner than the rest. Dropping it ends nothing.
pub struct Sooner {
    stop: Stop,
    watch: JoinHandle<()>,
}

impl Deref for Sooner {
    type Target = Stop;

    fn deref(&self) -> &Stop {
        &self.stop
    }
}

impl Drop for Sooner {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// How long after the wish to stop a run may tidy up on a server: what it leaves behind is named. A run ends within ten
/// seconds.
const TIDY_UP: Duration = Duration::from_secs(8);

impl Stop {
    /// Returns the token of what tidies up, which is cancelled some seconds after a stop was asked for.
    pub fn late(&self) -> Late {
        let token = CancellationToken::new();
        let (stop, late) = (self.clone(), token.clone());
        // It ends with the handle.
        let watch = tokio::spawn(
            async move {
                stop.overdue(TIDY_UP).await;
                late.cancel();
            }
            .in_current_span(),
        );
        Late { token, watch }
    }

    /// Returns a wish to stop that comes with this one, and also where `ended` is cancelled.
    pub fn or(&self, ended: &CancellationToken) -> Sooner {
        let stop = Self::default();
        let (all, part, ended) = (self.clone(), stop.clone(), ended.clone());
        // It ends with the handle.
        let watch = tokio::spawn(
            async move {
                tokio::select! {
                    () = all.token.cancelled() => {}
                    () = ended.cancelled() => {}
                }
                part.request(all.kind().unwrap_or(Kind::Interrupted));
            }
            .in_current_span(),
        );
        Sooner { stop, watch }
    }

    /// Asks everybody to stop because of `kind` ([`Kind::Interrupted`] or [`Kind::Terminated`]).
    pub fn request(&self, kind: Kind) {
        let _ = self.first.set((kind, Instant::now())); // a second signal changes nothing
        self.token.cancel();
    }

    /// Takes note of a signal.
    pub fn signal(&self, kind: Kind) -> Signalled {
        // Held to the end: what `relay` sees is before or behind this signal, never in its middle.
        let relay = self.lock_relay();
        match relay.as_ref() {
            Some(relay) if relay.send(kind).is_ok() => Signalled::Relayed,
            _ if self.is_requested() => Signalled::Again,
            _ => {
                self.request(kind);
                Signalled::First
            }
        }
    }

    /// Lets every later signal come out of the returned relay; none where a stop was asked for already.
    pub fn relay(&self) -> Option<Relay> {
        let mut relay = self.lock_relay();
        if self.is_requested() {
            return None;
        }
        let (sender, signals) = mpsc::unbounded_channel();
        *relay = Some(sender);
        Some(Relay {
            stop: self.clone(),
            signals,
        })
    }

    fn lock_relay(&self) -> MutexGuard<'_, Option<UnboundedSender<Kind>>> {
        // An option is whole at every moment.
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Returns which signal asked for it; none where nobody did.
    pub fn kind(&self) -> Option<Kind> {
        self.first.get().map(|(kind, _)| *kind)
    }

    /// Returns how long ago a stop was asked for.
    pub fn since(&self) -> Option<Duration> {
        self.first.get().map(|(_, at)| at.elapsed())
    }

    /// Returns the failure of a command that only reads.
    pub fn failure_of_reading(&self) -> Failure {
        self.failure("reading").and_safe("nothing was changed")
    }

    /// Returns the failure of a run that stopped because it was asked to. It does not yet say what is safe.
    pub fn failure(&self, what: &str) -> Failure {
        let kind = self
            .first
            .get()
            .map_or(Kind::Interrupted, |(kind, _)| *kind);
        let (id, signal) = match kind {
            Kind::Terminated => ("terminated", "SIGTERM"),
            _ => ("interrupted", "SIGINT"),
        };
        Failure::new(kind, id, format!("{what}: stopped by {signal}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_signal_is_no_wish_to_stop() {
        let stop = Stop::default();
        let mut relay = stop.relay().unwrap();
        for kind in [Kind::Interrupted, Kind::Interrupted, Kind::Terminated] {
            assert_eq!(stop.signal(kind), Signalled::Relayed);
            assert_eq!(relay.signals().try_recv(), Ok(kind));
        }
        drop(relay);
        assert!(!stop.is_requested());
        assert_eq!(stop.signal(Kind::Interrupted), Signalled::First);
        assert_eq!(stop.signal(Kind::Interrupted), Signalled::Again);
        assert!(stop.relay().is_none());
        // One that came too late for the command.
        let stop = Stop::default();
        let relay = stop.relay().unwrap();
        stop.signal(Kind::Terminated);
        drop(relay);
        assert_eq!(stop.failure("x").kind, Kind::Terminated);
    }

    #[tokio::test(start_paused = true)]
    async fn what_tidies_up_has_some_seconds() {
        let stop = Stop::default();
        let late = stop.late();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!late.is_cancelled(), "nobody asked");
        let started = Instant::now();
        stop.request(Kind::Interrupted);
        late.cancelled().await;
        assert_eq!(started.elapsed(), TIDY_UP);
    }

    #[tokio::test]
    async fn a_part_of_the_work_may_end_sooner() {
        let (stop, ended) = (Stop::default(), CancellationToken::new());
        let part = stop.or(&ended);
        ended.cancel();
        part.token().cancelled().await;
        assert_eq!(part.kind(), Some(Kind::Interrupted));
        assert!(!stop.is_requested(), "the rest goes on");
        let part = stop.or(&CancellationToken::new());
        stop.request(Kind::Terminated);
        part.token().cancelled().await;
        assert_eq!(part.kind(), Some(Kind::Terminated));
    }

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

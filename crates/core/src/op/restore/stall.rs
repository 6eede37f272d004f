//! Ends a restore that stands still: nothing moves and nobody works, or a lock is somebody else's for too long.
//!
//! A long CREATE INDEX takes no byte and ends no statement, and still is work: the server says so. What it cannot tell
//! is life on a connection that is dead, so silence counts for nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::postgres::activity::{Session, sessions};
use crate::postgres::error::Error;
use crate::postgres::psql::Psql;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::words::span;

/// How long a restore may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Without a byte, the end of a statement, or work on the server; none waits for ever.
    pub stall: Option<Duration>,
    /// For somebody else's lock.
    pub lock_wait: Duration,
}

/// As a backup has them.
impl Default for Limits {
    fn default() -> Self {
        Self {
            stall: Some(Duration::from_secs(600)),
            lock_wait: Duration::from_secs(60),
        }
    }
}

/// So often is looked within the shorter limit, and at least so often. Asking takes the server a few milliseconds.
const LOOKS: u32 = 6;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// So many times the limit a restore goes on while no session is left to ask what it does.
const BLIND: u32 = 6;

impl Limits {
    fn pause(&self) -> Duration {
        let shorter = self.stall.unwrap_or(self.lock_wait).min(self.lock_wait);
        (shorter / LOOKS).clamp(Duration::from_millis(50), LONGEST_PAUSE)
    }
}

/// Counts what moves, wherever that is.
#[derive(Default)]
pub(crate) struct Pulse(Mutex<Vec<Box<dyn Fn() -> u64 + Send + Sync>>>);

impl Pulse {
    /// Counts this, too: a number that grows.
    pub(crate) fn follow(&self, counter: impl Fn() -> u64 + Send + Sync + 'static) {
        if let Ok(mut counters) = self.0.lock() {
            counters.push(Box::new(counter));
        }
    }

    fn count(&self) -> u64 {
        let counters = self.0.lock();
        counters.map_or(0, |counters| counters.iter().map(|counter| counter()).sum())
    }
}

/// Why a restore is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Stalled(Duration),
    Locked {
        query: String,
        blockers: Vec<String>,
    },
}

/// Decides, look by look.
struct Judge {
    limits: Limits,
    count: u64,
    alive_at: Duration,
    changed: Vec<(i32, String)>,
    /// Since when a session waits for others with the same statement.
    waiting: HashMap<(i32, String), Duration>,
    /// Since when nobody could ask, because all sessions were taken.
    refused_at: Option<Duration>,
}

impl Judge {
    fn new(limits: Limits, now: Duration, count: u64) -> Self {
        Self {
            limits,
            count,
            alive_at: now,
            changed: Vec::new(),
            waiting: HashMap::new(),
            refused_at: None,
        }
    }

    /// Who is refused because all sessions are taken has heard that the server lives. Our own may have taken the last, so
    /// that says nothing of them for ever.
    fn refused(&mut self, now: Duration, is_refused: bool) {
        if !is_refused {
            self.refused_at = None;
            return;
        }
        let since = *self.refused_at.get_or_insert(now);
        let longest = self.limits.stall.unwrap_or_default() * BLIND;
        if now.saturating_sub(since) < longest {
            self.alive_at = now;
        }
    }

    /// Takes what moved so far and, where the server answered, what the sessions do.
    fn look(&mut self, now: Duration, count: u64, sessions: Option<&[Session]>) -> Option<Verdict> {
        if std::mem::replace(&mut self.count, count) != count {
            self.alive_at = now;
        }
        if let Some(sessions) = sessions {
            let key = |session: &Session| (session.pid, session.changed.clone());
            let changed: Vec<_> = sessions.iter().map(key).collect();
            let is_changed = std::mem::replace(&mut self.changed, changed) != self.changed;
            if is_changed || sessions.iter().any(Session::is_working) {
                self.alive_at = now;
            }
            let waits = |session: &&Session| !session.blockers.is_empty();
            let waiting = sessions.iter().filter(waits).map(|session| {
                let since = self.waiting.get(&key(session)).copied();
                (key(session), since.unwrap_or(now))
            });
            self.waiting = waiting.collect();
            let locked = sessions.iter().filter(waits).find(|session| {
                let since = self.waiting.get(&key(session)).copied();
                since.is_some_and(|since| now.saturating_sub(since) > self.limits.lock_wait)
            });
            if let Some(session) = locked {
                return Some(Verdict::Locked {
                    query: session.query.clone(),
                    blockers: session.blockers.clone(),
                });
            }
        }
        let stall = self.limits.stall?;
        (now.saturating_sub(self.alive_at) > stall).then_some(Verdict::Stalled(stall))
    }
}

/// The sessions of one restore, and what they may not do.
pub(crate) struct Watchdog<'a> {
    /// Asks the server, in a session of another name.
    pub psql: &'a Psql,
    pub application: &'a str,
    pub limits: Limits,
    pub pulse: &'a Pulse,
    pub clock: &'a dyn Clock,
}

impl Watchdog<'_> {
    /// Returns when the restore stands still, and says why; `what` names what failed. Else it never does.
    pub(crate) async fn stands_still(&self, what: &str, cancel: &CancellationToken) -> Failure {
        let now = || self.clock.monotonic();
        let mut judge = Judge::new(self.limits, now(), self.pulse.count());
        loop {
            tokio::time::sleep(self.limits.pause()).await;
            let count = self.pulse.count();
            // While bytes move nobody has to be asked, and no session of the server is taken for it.
            let found = if count == judge.count {
                sessions(self.psql, self.application, cancel).await
            } else {
                Ok(Vec::new())
            };
            judge.refused(now(), found.as_ref().is_err_and(Error::is_out_of_sessions));
            let found = found.ok().filter(|_| count == judge.count);
            if let Some(verdict) = judge.look(now(), count, found.as_deref()) {
                return verdict.to_failure(what, self.limits);
            }
        }
    }
}

impl Verdict {
    fn to_failure(&self, what: &str, limits: Limits) -> Failure {
        match self {
            Self::Stalled(stall) => Failure::new(
                Kind::Source,
                "restore_stalled",
                format!(
                    "{what}: it made no progress for {}: no byte was taken, no statement ended, and the server did not work",
                    span(stall.as_secs())
                ),
            )
            .hint("look at what feeds it, at the network and at `pg_stat_activity`; `--stall-timeout` or `stall_timeout` waits longer"),
            Self::Locked { query, blockers } => Failure::new(
                Kind::Source,
                "lock_timeout",
                format!(
                    "{what}: a statement waited {} for a lock of {}",
                    span(limits.lock_wait.as_secs()),
                    blockers.join(", ")
                ),
            )
            .with_details([query.as_str()])
            .hint("end that session, or wait longer with `--lock-wait-timeout` or `lock_wait_timeout`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(state: &str, waits_for: &str, changed: &str, blockers: &[&str]) -> Session {
        Session {
            pid: 7,
            state: Some(state.to_owned()),
            waits_for: (!waits_for.is_empty()).then(|| waits_for.to_owned()),
            changed: changed.to_owned(),
            query: "CREATE INDEX".to_owned(),
            blockers: blockers.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    /// Looks every ten seconds, up to so many; returns after how many a verdict came.
    fn looks(look: impl Fn(u64) -> (u64, Option<Vec<Session>>)) -> Option<(u64, Verdict)> {
        let limits = Limits {
            stall: Some(Duration::from_secs(100)),
            lock_wait: Duration::from_secs(50),
        };
        let mut judge = Judge::new(limits, Duration::ZERO, 0);
        (1..=40).find_map(|at| {
            let (count, sessions) = look(at);
            let verdict = judge.look(Duration::from_secs(at * 10), count, sessions.as_deref())?;
            Some((at, verdict))
        })
    }

    #[test]
    fn work_is_no_standstill() {
        let working = session("active", "", "a", &[]);
        assert_eq!(looks(|_| (0, Some(vec![working.clone()]))), None);
        let asleep = session("active", "Timeout", "a", &[]);
        assert_eq!(looks(|_| (0, Some(vec![asleep.clone()]))), None);
        let fed = session("active", "Client", "a", &[]);
        assert_eq!(looks(|at| (at, Some(vec![fed.clone()]))), None);
        let next = |at: u64| session("idle in transaction", "Client", &at.to_string(), &[]);
        assert_eq!(looks(|at| (0, Some(vec![next(at)]))), None);
        // One works, and another waits for it.
        let own = session("active", "Lock", "b", &[]);
        assert_eq!(
            looks(|_| (0, Some(vec![working.clone(), own.clone()]))),
            None
        );
    }

    /// A long index build may go on while all sessions are taken, a standstill may not for ever.
    #[test]
    fn who_cannot_ask_waits_longer() {
        let limits = Limits {
            stall: Some(Duration::from_secs(100)),
            lock_wait: Duration::from_secs(50),
        };
        let ended = |refusals: u64| {
            let mut judge = Judge::new(limits, Duration::ZERO, 0);
            (1..=100).find(|at| {
                let now = Duration::from_secs(at * 10);
                judge.refused(now, *at <= refusals);
                judge.look(now, 0, None).is_some()
            })
        };
        assert_eq!(ended(0), Some(11));
        assert_eq!(ended(20), Some(31));
        assert_eq!(ended(100), Some(71));
    }

    #[test]
    fn silence_starving_and_locks_are() {
        let stalled = Verdict::Stalled(Duration::from_secs(100));
        assert_eq!(looks(|_| (0, None)), Some((11, stalled.clone())));
        assert_eq!(
            looks(|_| (0, Some(Vec::new()))),
            Some((11, stalled.clone()))
        );
        let starving = session("active", "Client", "a", &[]);
        let found = looks(|_| (5, Some(vec![starving.clone()])));
        assert_eq!(found, Some((12, stalled)));
        let locked = session("active", "Lock", "a", &["pid 9"]);
        let (at, verdict) = looks(|at| (at, Some(vec![locked.clone()]))).unwrap();
        assert_eq!(at, 7);
        assert!(matches!(verdict, Verdict::Locked { .. }));
        // Another statement waits anew.
        let anew = |at: u64| session("active", "Lock", &(at / 4).to_string(), &["pid 9"]);
        assert_eq!(looks(|at| (at, Some(vec![anew(at)]))), None);
    }
}

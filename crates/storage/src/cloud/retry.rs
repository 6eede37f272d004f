//! Patience with a store: which request is sent again, after how long, and when to stop.
//!
//! Waits grow with jitter, a store's `Retry-After` is honoured, and the whole is bounded by a budget.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::fault::{Outage, OutageKind, Trouble};
use crate::haste;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Tries that a request has whatever the budget: over a slow link one try alone can use it up.
const LEAST_TRIES: u32 = 3;

/// How long a name that nobody knows is looked up again: a resolver hiccups for seconds, a wrong name stays wrong.
const UNKNOWN_HOST_BUDGET: Duration = Duration::from_secs(5);

/// How long somebody waits without a word.
const SILENCE: Duration = Duration::from_secs(3);

/// How long to go on.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    budget: Duration,
    /// Whose requests they are.
    label: Arc<str>,
}

impl Patience {
    /// Goes on until `budget` after the first failure.
    pub(crate) fn new(budget: Duration, label: &str) -> Self {
        Self {
            budget,
            label: label.into(),
        }
    }

    /// Returns the patience for tidying up: anyone who waits for it has failed already.
    pub(crate) fn brief(&self) -> Self {
        Self {
            budget: self.budget / 6,
            label: Arc::clone(&self.label),
        }
    }

    /// [Persists](Self::persist_with) with a request that a store answers at once.
    pub(crate) async fn persist<T, F>(
        &self,
        attempt: impl FnMut() -> F,
    ) -> std::result::Result<T, Trouble>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        self.persist_with(attempt, SILENCE).await
    }

    /// [Persists](Self::persist_with) with one that takes its time: bytes move, or the store works.
    pub(crate) async fn persist_slowly<T, F>(
        &self,
        attempt: impl FnMut() -> F,
    ) -> std::result::Result<T, Trouble>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        self.persist_with(attempt, Duration::MAX).await
    }

    /// Sends until it works, until it is clear that it will not, until patience ends, or until haste begins.
    ///
    /// `attempt` makes a whole new request each time, so that its signature is fresh. After `silence` without an
    /// answer a warning says so.
    async fn persist_with<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
        silence: Duration,
    ) -> std::result::Result<T, Trouble>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let started = Instant::now();
        let (mut tries, mut first_failure, mut is_told) = (0, None, false);
        loop {
            let quiet = silence.saturating_sub(started.elapsed());
            let sent = async {
                let answer = attempt();
                tokio::pin!(answer);
                tokio::select! {
                    answer = &mut answer => return answer,
                    () = tokio::time::sleep(quiet), if !is_told && silence < Duration::MAX => {}
                }
                is_told = true;
                let (label, seconds) = (&self.label, SILENCE.as_secs());
                tracing::warn!("`{label}` has not answered for {seconds} s");
                answer.await
            };
            let trouble = tokio::select! {
                answer = sent => match answer {
                    Ok(done) => return Ok(done),
                    Err(error) => Trouble::from(error),
                },
                () = given_up(started) => return Err(no_answer(started.elapsed())),
            };
            tries += 1;
            let since = first_failure.get_or_insert_with(Instant::now).elapsed();
            let jitter = rand::random_range(0.5..1.0);
            let Some(wait) = self.wait(&trouble, tries, since, jitter) else {
                return Err(trouble);
            };
            if !is_told && started.elapsed() + wait >= SILENCE {
                is_told = true;
                let (label, left) = (&self.label, self.budget_of(&trouble).saturating_sub(since));
                let seconds = left.as_secs();
                tracing::warn!(
                    "`{label}` does not answer: {trouble}; pgkeep tries again for up to {seconds} s"
                );
            } else {
                tracing::info!(%trouble, tries, ?wait, "trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = haste::begun() => return Err(trouble),
            }
        }
    }

    /// Returns how long after the first failure it makes sense to go on.
    fn budget_of(&self, trouble: &Trouble) -> Duration {
        if trouble.is_unknown_host() {
            self.budget.min(UNKNOWN_HOST_BUDGET)
        } else {
            self.budget
        }
    }

    /// Returns how long to wait before the next try, or `None` to give up.
    pub(crate) fn wait(
        &self,
        trouble: &Trouble,
        tries: u32,
        since_first: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        if !trouble.is_passing() {
            return None;
        }
        let doubled = FIRST_WAIT.saturating_mul(1 << (tries - 1).min(16));
        let wait = doubled.min(LONGEST_WAIT).mul_f64(jitter);
        let asked = trouble.retry_after().unwrap_or_default();
        let wait = wait.max(asked);
        let budget = self.budget_of(trouble);
        let is_in_budget = since_first + wait <= budget;
        let is_short = tries < LEAST_TRIES && asked <= budget;
        (is_in_budget || is_short).then_some(wait)
    }
}

/// Waits until a request that began then has had its time, in haste.
async fn given_up(started: Instant) {
    haste::begun().await;
    sleep_until(started + haste::ANSWER_LIMIT).await;
}

/// The trouble of a request that was given up in its middle.
fn no_answer(since: Duration) -> Trouble {
    Trouble::Outage(Outage {
        kind: OutageKind::Stalled,
        why: format!("no answer for {} s", since.as_secs()),
        is_metadata: false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Outage, OutageKind, Refusal};
    use super::*;

    fn busy(retry_after: Option<u64>) -> Trouble {
        Trouble::Refused(Refusal {
            status: 503,
            code: "SlowDown".to_owned(),
            message: String::new(),
            region: None,
            retry_after: retry_after.map(Duration::from_secs),
            clock_ahead: None,
        })
    }

    fn wait(trouble: &Trouble, tries: u32, since_s: u64) -> Option<Duration> {
        let patience = Patience::new(Duration::from_secs(60), "s3://b");
        patience.wait(trouble, tries, Duration::from_secs(since_s), 1.0)
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        assert_eq!(wait(&busy(None), 1, 0), Some(FIRST_WAIT));
        assert_eq!(wait(&busy(None), 3, 0), Some(FIRST_WAIT * 4));
        assert_eq!(wait(&busy(None), 40, 0), Some(LONGEST_WAIT));
    }

    #[test]
    fn a_store_that_asks_for_time_gets_it() {
        assert_eq!(wait(&busy(Some(7)), 1, 0), Some(Duration::from_secs(7)));
        assert_eq!(wait(&busy(Some(3600)), 1, 0), None);
    }

    #[test]
    fn patience_ends_but_not_before_the_third_try() {
        assert!(wait(&busy(None), 3, 59).is_some());
        assert!(wait(&busy(None), 3, 60).is_none());
        assert!(wait(&busy(None), 2, 600).is_some());
    }

    fn outage(kind: OutageKind) -> Trouble {
        Trouble::Outage(Outage {
            kind,
            why: String::new(),
            is_metadata: false,
        })
    }

    #[test]
    fn a_bad_certificate_is_not_tried_twice() {
        assert_eq!(wait(&outage(OutageKind::Tls), 1, 0), None);
    }

    #[test]
    fn a_name_that_nobody_knows_is_not_looked_up_for_minutes() {
        let unknown = outage(OutageKind::UnknownHost);
        assert!(wait(&unknown, 3, 1).is_some());
        assert_eq!(wait(&unknown, 4, 5), None);
        assert!(wait(&outage(OutageKind::Unreachable), 4, 5).is_some());
    }

    fn refused() -> object_store::Error {
        object_store::Error::Generic {
            store: "s3",
            source: Box::new(Outage {
                kind: OutageKind::Unreachable,
                why: "connection refused".to_owned(),
                is_metadata: false,
            }),
        }
    }

    /// The cause is that of the last try, or that there was no answer at all.
    #[tokio::test(start_paused = true)]
    async fn haste_ends_waiting_and_tells_why() {
        let patience = Patience::new(Duration::from_secs(60), "s3://b");
        for (is_silent, expected) in [(false, "connection refused"), (true, "no answer for 10 s")] {
            let haste = crate::Haste::default();
            let request = patience.persist(|| async {
                if is_silent {
                    std::future::pending::<()>().await;
                }
                Err::<(), _>(refused())
            });
            let asking = haste.within(request);
            let hurrying = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                haste.begin();
            };
            let (asked, ()) = tokio::join!(asking, hurrying);
            assert_eq!(asked.unwrap_err().to_string(), expected);
        }
    }
}

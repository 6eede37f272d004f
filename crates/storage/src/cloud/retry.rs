//! Patience with a store: which request is sent again, after how long, and when to stop.
//!
//! Waits grow with jitter, a store's `Retry-After` is honoured, and the whole is bounded by a budget.

use std::time::{Duration, Instant};

use super::fault::Trouble;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Tries that a request has whatever the budget: over a slow link one try alone can use it up.
const LEAST_TRIES: u32 = 3;

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    budget: Duration,
}

impl Patience {
    /// Goes on until `budget` after the first failure.
    pub(crate) fn new(budget: Duration) -> Self {
        Self { budget }
    }

    /// Returns the patience for tidying up: whoever waits for it has failed already.
    pub(crate) fn brief(self) -> Self {
        Self {
            budget: self.budget / 6,
        }
    }

    /// Sends until it works, until it is clear that it will not, or until patience ends.
    ///
    /// `attempt` makes a whole new request each time, so that its signature is fresh.
    pub(crate) async fn persist<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> std::result::Result<T, Trouble>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let (mut tries, mut first_failure) = (0, None);
        loop {
            let trouble = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => Trouble::from(error),
            };
            tries += 1;
            let since = first_failure.get_or_insert_with(Instant::now).elapsed();
            let jitter = rand::random_range(0.5..1.0);
            let Some(wait) = self.wait(&trouble, tries, since, jitter) else {
                return Err(trouble);
            };
            tracing::info!(%trouble, tries, ?wait, "trying again");
            tokio::time::sleep(wait).await;
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
        let is_in_budget = since_first + wait <= self.budget;
        let is_short = tries < LEAST_TRIES && asked <= self.budget;
        (is_in_budget || is_short).then_some(wait)
    }
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
        let patience = Patience::new(Duration::from_secs(60));
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

    #[test]
    fn a_bad_certificate_is_not_tried_twice() {
        let tls = Trouble::Outage(Outage {
            kind: OutageKind::Tls,
            why: String::new(),
            is_metadata: false,
        });
        assert_eq!(wait(&tls, 1, 0), None);
    }
}

//! The clock and the dice: the two things that operations may not take from anywhere else.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Tells the time and rolls the suffix of ids.
pub trait Clock: Send + Sync {
    /// Returns the present moment, to the millisecond: that is what stands in every document.
    fn now(&self) -> Timestamp;

    /// Returns how long it is since some fixed moment. Setting the machine's clock changes nothing about it.
    fn monotonic(&self) -> Duration;

    /// Returns how many milliseconds have passed since a moment of [`Clock::monotonic`].
    fn millis_since(&self, started: Duration) -> u64 {
        let took = self.monotonic().saturating_sub(started);
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns a random number for the suffix of an id.
    fn suffix(&self) -> u16;

    /// Returns so many times four random hex digits, for names that must not meet.
    fn hex(&self, count: usize) -> String {
        (0..count)
            .map(|_| format!("{:04x}", self.suffix()))
            .collect()
    }

    /// Returns a random number from 0 to 1, to keep apart what should not happen at once.
    fn chance(&self) -> f64 {
        f64::from(self.suffix()) / f64::from(u16::MAX)
    }
}

/// The machine's own clock and random numbers.
#[derive(Debug, Default)]
pub struct SystemClock;

/// The moment that monotonic time is counted from: when somebody first asked.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_millisecond(now.as_millisecond())
            .expect("a moment with fewer digits is one, too")
    }

    fn monotonic(&self) -> Duration {
        START.elapsed()
    }

    fn suffix(&self) -> u16 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_milliseconds() {
        let now = SystemClock.now();
        assert_eq!(now.subsec_nanosecond() % 1_000_000, 0, "{now}");
    }
}

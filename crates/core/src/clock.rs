//! The clock and the dice: the two things that operations may not take from anywhere else.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use pgkeep_model::words::span;

/// How far a clock may be from ours: S3 refuses requests a quarter of an hour off, and a minute is odd already.
pub(crate) const MAX_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Returns how far a clock is ahead of ours, that was asked between two looks at ours: by at most the time in between
/// it is not known, and that is on its side.
pub(crate) fn ahead(before: Timestamp, after: Timestamp, theirs: Timestamp) -> SignedDuration {
    if theirs < before {
        theirs.duration_since(before)
    } else if theirs > after {
        theirs.duration_since(after)
    } else {
        SignedDuration::ZERO
    }
}

/// Says how far a clock is from this machine's, by which backups are stamped; nothing where that is little.
pub(crate) fn off_in_words(ahead: SignedDuration) -> Option<String> {
    if ahead.abs() <= MAX_SKEW {
        return None;
    }
    let far = span(ahead.as_secs().unsigned_abs());
    let side = if ahead.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    Some(format!(
        "is {far} {side} this machine's: correct the wrong one (NTP); backups carry this machine's time, and \
         ages and retention are counted from it"
    ))
}

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

    /// Returns as many times four random hex digits, for names that must not meet.
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
    fn a_clock_is_judged_with_the_doubt_on_its_side() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (before, after) = (at("2026-01-01T00:00:10Z"), at("2026-01-01T00:00:14Z"));
        for (theirs, seconds) in [
            ("2026-01-01T00:00:12Z", 0),
            ("2026-01-01T00:00:00Z", -10),
            ("2026-01-01T00:01:14Z", 60),
        ] {
            assert_eq!(ahead(before, after, at(theirs)).as_secs(), seconds);
        }
    }

    #[test]
    fn moments_have_milliseconds() {
        let now = SystemClock.now();
        assert_eq!(now.subsec_nanosecond() % 1_000_000, 0, "{now}");
    }
}

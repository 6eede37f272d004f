//! The clock and the dice: the two things that operations may not take from anywhere else.

use jiff::Timestamp;

/// Tells the time and rolls the suffix of ids.
pub trait Clock: Send + Sync {
    /// Returns the present moment, to the millisecond: that is what stands in every document.
    fn now(&self) -> Timestamp;

    /// Returns a random number for the suffix of an id.
    fn suffix(&self) -> u16;
}

/// The machine's own clock and random numbers.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_millisecond(now.as_millisecond())
            .expect("a moment with less digits is one, too")
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

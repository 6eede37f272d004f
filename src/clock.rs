//! The clock and the dice: the two things that operations may not take from anywhere else.

use jiff::Timestamp;

/// Tells the time and rolls the suffix of ids.
pub trait Clock: Send + Sync {
    /// Returns the present moment.
    fn now(&self) -> Timestamp;

    /// Returns a random number for the suffix of an id.
    fn suffix(&self) -> u16;
}

/// The machine's own clock and random numbers.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn suffix(&self) -> u16 {
        rand::random()
    }
}

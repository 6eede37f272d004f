//! What keeps stored objects from whoever has the key: versions and locks, as a bucket tells of them.

use std::fmt;

/// What a bucket says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Whether what is removed or overwritten is kept as an older version.
    pub versions: Answer<Versions>,
    /// Whether objects can be locked, and are.
    pub lock: Answer<Lock>,
}

/// What was found out, or why it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The storage told.
    Is(T),
    /// It did not, for this reason.
    Unknown(String),
}

impl<T> Answer<T> {
    /// Returns what the storage told.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// Whether older versions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// They are not, and never were.
    Off,
    /// They are.
    On,
    /// They are not any more; those from before are still there.
    Suspended,
    /// They are not, but what is removed or overwritten can be brought back this long (Google's and Azure's soft delete).
    Restorable(Period),
}

/// Whether objects are locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    /// They cannot be.
    Off,
    /// Whoever writes one may lock it; none is locked by itself.
    NoDefault,
    /// Each new one is locked.
    Default {
        /// For how long.
        period: Period,
        /// Whether somebody with a further right may lift it (AWS's governance mode).
        can_be_lifted: bool,
    },
    /// Each is kept by a policy, whose length the storage does not tell.
    Policy,
}

/// A length of time as buckets count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Hours.
    Hours(u64),
    /// Days.
    Days(u64),
    /// Years.
    Years(u64),
}

impl Period {
    /// Makes one of seconds: whole days, or else the hours that are full.
    pub fn of_seconds(seconds: u64) -> Self {
        const DAY: u64 = 24 * 60 * 60;
        if seconds > 0 && seconds.is_multiple_of(DAY) {
            Self::Days(seconds / DAY)
        } else {
            Self::Hours(seconds / (60 * 60))
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self {
            Self::Hours(count) => (count, "hour"),
            Self::Days(count) => (count, "day"),
            Self::Years(count) => (count, "year"),
        };
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {unit}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_agrees_with_its_number() {
        assert_eq!(Period::of_seconds(604_800).to_string(), "7 days");
        assert_eq!(Period::of_seconds(90_000).to_string(), "25 hours");
        assert_eq!(Period::Days(30).to_string(), "30 days");
        assert_eq!(Period::Years(1).to_string(), "1 year");
    }
}

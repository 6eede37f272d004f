//! A share in whole percent, as the configuration and reports write it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A share from 1 % to 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// Makes a share; none where it is not from 1 to 100.
    pub const fn new(percent: u8) -> Option<Self> {
        match percent {
            1..=100 => Some(Self(percent)),
            _ => None,
        }
    }

    /// Tells whether `part` is at least this share of `whole`.
    pub fn is_reached(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 100 >= u128::from(whole) * u128::from(self.0)
    }
}

/// Reads `50%`, or `50`.
impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_suffix('%').unwrap_or(text).trim_end();
        let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| is_plain);
        number
            .and_then(Self::new)
            .ok_or("must be a share from 1% to 100%")
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Stands in JSON as it is written.
impl Serialize for Percent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_reads_back_and_nothing_else_is_one() {
        for (text, shown) in [("50%", "50%"), ("1", "1%"), ("100 %", "100%")] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), shown);
        }
        for text in ["", "%", "0", "101%", "-1%", "5.5%", "+5%", "half"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_of_any_size_is_compared_exactly() {
        let half = Percent::new(50).unwrap();
        assert!(half.is_reached(500, 1000) && !half.is_reached(499, 1000));
        assert!(half.is_reached(u64::MAX, u64::MAX) && !half.is_reached(1, u64::MAX));
    }
}

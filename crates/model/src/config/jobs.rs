//! How many sessions read rows at once.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use super::keys::Kind;
use super::setting::{Blank, Scalar};
use super::shown::Shown;

/// Most sessions that may read at once: each takes a connection of the server.
const MAX_JOBS: usize = 32;

/// How many sessions read rows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// As many as there are cores, at most four, and at most half of the connections that the server has free.
    Auto,
    /// So many.
    Fixed(NonZeroUsize),
}

impl Default for Jobs {
    fn default() -> Self {
        Self::Fixed(NonZeroUsize::MIN)
    }
}

/// Reads `auto`, or a number.
impl FromStr for Jobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = || {
            let count = text.parse().ok().and_then(NonZeroUsize::new);
            count.filter(|count| count.get() <= MAX_JOBS)
        };
        match text {
            "auto" => Ok(Self::Auto),
            _ => count()
                .map(Self::Fixed)
                .ok_or_else(|| format!("must be `auto` or a whole number from 1 to {MAX_JOBS}")),
        }
    }
}

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(count) => count.fmt(f),
        }
    }
}

impl Scalar for Jobs {
    fn parse(text: &str, _: Kind) -> Result<Self, String> {
        text.parse()
    }

    fn show(&self, _: Kind) -> Shown {
        self.to_string().into()
    }
}

impl Blank for Jobs {
    fn blank() -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_a_number_or_left_to_us() {
        for text in ["auto", "1", "4", "32"] {
            assert_eq!(text.parse::<Jobs>().unwrap().to_string(), text);
        }
        for text in ["", "0", "33", "-1", "Auto", "2.5"] {
            assert!(text.parse::<Jobs>().is_err(), "{text}");
        }
    }
}

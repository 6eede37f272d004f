//! What a drill asks of a restored database besides its rows, and how the answers are judged.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

/// A drill a month, and some days to notice that one did not come.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(35 * 86_400);

/// One thing that must hold.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// What the report calls it.
    pub name: String,
    /// How it is asked.
    pub question: Question,
}

/// How an assertion is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// A query, whose answer is judged.
    Sql {
        /// The query.
        sql: String,
        /// What it must answer.
        expect: Expect,
    },
    /// A program with its arguments, which must exit with 0; an argument may be a secret.
    Command(Vec<SecretString>),
}

/// What a query must answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// This text.
    Equals(String),
    /// This number or more.
    AtLeast(f64),
    /// This number or less.
    AtMost(f64),
    /// Nothing.
    NoRows,
}

impl FromStr for Expect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        let number = || rest.parse::<f64>().ok().filter(|number| number.is_finite());
        match (word, rest.is_empty()) {
            ("no_rows", true) => Ok(Self::NoRows),
            ("equals", false) => Ok(Self::Equals(rest.to_owned())),
            ("at_least", false) => number()
                .map(Self::AtLeast)
                .ok_or_else(|| "needs a number after `at_least`".to_owned()),
            ("at_most", false) => number()
                .map(Self::AtMost)
                .ok_or_else(|| "needs a number after `at_most`".to_owned()),
            _ => Err("must be `equals X`, `at_least N`, `at_most N` or `no_rows`".to_owned()),
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(text) => write!(f, "equals {text}"),
            Self::AtLeast(number) => write!(f, "at_least {number}"),
            Self::AtMost(number) => write!(f, "at_most {number}"),
            Self::NoRows => f.write_str("no_rows"),
        }
    }
}

impl Expect {
    /// Tells whether an answer, as `psql` prints it without alignment, is what it must be.
    pub fn is_met(&self, answer: &str) -> bool {
        let answer = answer.trim_end_matches('\n');
        let number = || answer.trim().parse::<f64>().ok();
        match self {
            Self::Equals(text) => answer.trim() == text,
            Self::AtLeast(least) => number().is_some_and(|number| number >= *least),
            Self::AtMost(most) => number().is_some_and(|number| number <= *most),
            Self::NoRows => answer.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        for text in [
            "equals 7",
            "equals a b",
            "at_least 10",
            "at_most 1.5",
            "no_rows",
        ] {
            assert_eq!(text.parse::<Expect>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "equals",
            "at_least",
            "at_least many",
            "at_most inf",
            "no_rows 3",
            "more than 3",
        ] {
            assert!(text.parse::<Expect>().is_err(), "{text}");
        }
    }

    #[test]
    fn judges_answers() {
        for (expect, answer, is_met) in [
            ("equals 7", "7\n", true),
            ("equals 7", "70\n", false),
            ("at_least 10", "10\n", true),
            ("at_least 10", "9\n", false),
            ("at_least 10", "", false),
            ("at_least 10", "many\n", false),
            ("at_most 3", "3.5\n", false),
            ("at_most 3", "-1\n", true),
            ("no_rows", "", true),
            ("no_rows", "1\n", false),
        ] {
            assert_eq!(
                expect.parse::<Expect>().unwrap().is_met(answer),
                is_met,
                "{expect}: {answer}"
            );
        }
    }
}

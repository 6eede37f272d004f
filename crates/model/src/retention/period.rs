//! What backups are counted by: the tiers, and the hours, days, weeks, months and years on the clock of a zone.

use std::fmt;

use jiff::Zoned;
use jiff::civil::Date;
use serde::{Serialize, Serializer};

/// What retention counts a backup as: the rule that keeps it. Computed, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Kept by `keep_last`.
    Last,
    /// Kept by `keep_hourly`.
    Hourly,
    /// Kept by `keep_daily`.
    Daily,
    /// Kept by `keep_weekly`.
    Weekly,
    /// Kept by `keep_monthly`.
    Monthly,
    /// Kept by `keep_yearly`.
    Yearly,
    /// Kept by `keep_within`.
    Within,
    /// Kept by `keep_pre_deploy`.
    PreDeploy,
}

impl Tier {
    /// Returns the stable name for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Within => "within",
            Self::PreDeploy => "pre_deploy",
        }
    }

    /// Returns the period of this tier that a start falls into; none where every backup counts for itself.
    pub fn period(self, start: &Zoned) -> Option<Period> {
        let date = start.date();
        Some(match self {
            Self::Last | Self::Within | Self::PreDeploy => return None,
            Self::Hourly => Period::Hour(date, start.hour()),
            Self::Daily => Period::Day(date),
            Self::Weekly => {
                let week = date.iso_week_date();
                Period::Week(week.year(), week.week())
            }
            Self::Monthly => Period::Month(date.year(), date.month()),
            Self::Yearly => Period::Year(date.year()),
        })
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Tier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A period as a clock on the wall shows it: an hour that the clock shows twice is one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// An hour of a day.
    Hour(Date, i8),
    /// A day.
    Day(Date),
    /// An ISO week: its year, which is not always that of the date, and its number.
    Week(i16, i8),
    /// A month: year and number.
    Month(i16, i8),
    /// A year.
    Year(i16),
}

/// Shows `2026-01-16T03`, `2026-01-16`, `2026-W03`, `2026-01` or `2026`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour(date, hour) => write!(f, "{date}T{hour:02}"),
            Self::Day(date) => write!(f, "{date}"),
            Self::Week(year, week) => write!(f, "{year:04}-W{week:02}"),
            Self::Month(year, month) => write!(f, "{year:04}-{month:02}"),
            Self::Year(year) => write!(f, "{year:04}"),
        }
    }
}

//! Why a backup is kept or removed: one value per rule that has something to say, with its words.

use std::fmt;

use jiff::civil::Date;
use jiff::{Span, SpanFieldwise};
use serde::{Serialize, Serializer};

use super::period::{Period, Tier};
use crate::name::printable;

/// One reason of a verdict. Its words are for people and may change; [`Reason::id`] is stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A rule that counts keeps it as the newest of a period, or as one of the last.
    Counted {
        /// The rule.
        tier: Tier,
        /// The period; none where every backup counts for itself.
        period: Option<Period>,
        /// Its number, 1 for the newest.
        number: u32,
        /// How many the rule keeps.
        of: u32,
    },
    /// The backups ran out before the rule's count did, so the oldest is kept too.
    Oldest(Tier),
    /// It is younger than an age.
    Younger {
        /// The rule.
        tier: Tier,
        /// The age.
        than: SpanFieldwise,
    },
    /// Somebody pinned it, and why; empty when that is not known.
    Pinned(String),
    /// It is the newest good one.
    NewestGood,
    /// It is the newest good one that passed a drill.
    NewestDrilled,
    /// The run that asks made it.
    MadeByThisRun,
    /// It is held until somebody accepts it.
    Held,
    /// It is stamped later than the present.
    Future,
    /// Its state cannot be read, and why.
    Unreadable(String),
    /// Its bytes are damaged, and it stays until this day; none as long as there is no newer good one.
    DamagedKept(Option<Date>),
    /// Its bytes are damaged, and a newer good one has been there for long enough.
    DamagedRemoved,
    /// No rule keeps it.
    NoRule,
}

impl Reason {
    /// Makes the reason for a backup that is younger than `than`.
    pub(super) fn younger(tier: Tier, than: Span) -> Self {
        let than = than.fieldwise();
        Self::Younger { tier, than }
    }

    /// Tells whether this alone is enough to keep a backup.
    pub fn keeps(&self) -> bool {
        !matches!(self, Self::DamagedRemoved | Self::NoRule)
    }

    /// Returns the rule that speaks; none where the reason is no rule of the policy.
    pub fn tier(&self) -> Option<Tier> {
        match self {
            Self::Counted { tier, .. } | Self::Oldest(tier) | Self::Younger { tier, .. } => {
                Some(*tier)
            }
            _ => None,
        }
    }

    /// Returns the stable name: that of the tier, or what else the reason is.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Counted { tier, .. } | Self::Oldest(tier) | Self::Younger { tier, .. } => {
                tier.as_str()
            }
            Self::Pinned(_) => "pinned",
            Self::NewestGood => "newest_good",
            Self::NewestDrilled => "newest_drilled",
            Self::MadeByThisRun => "made_by_this_run",
            Self::Held => "held",
            Self::Future => "future",
            Self::Unreadable(_) => "unreadable",
            Self::DamagedKept(_) | Self::DamagedRemoved => "damaged",
            Self::NoRule => "no_rule",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counted {
                tier,
                period,
                number,
                of,
            } => {
                if let Some(period) = period {
                    write!(f, "newest of {period}: ")?;
                }
                write!(f, "{} {number} of {of}", words(*tier))
            }
            Self::Oldest(tier) => write!(f, "oldest {}", words(*tier)),
            Self::Younger {
                tier: Tier::PreDeploy,
                than,
            } => write!(f, "pre-deploy within {:#}", than.0),
            Self::Younger { than, .. } => write!(f, "within {:#}", than.0),
            Self::Pinned(why) => labelled(f, "pinned", why),
            Self::NewestGood => f.write_str("newest good"),
            Self::NewestDrilled => f.write_str("newest drilled"),
            Self::MadeByThisRun => f.write_str("made by this run"),
            Self::Held => f.write_str("held, not counted"),
            Self::Future => f.write_str("future start, not counted"),
            Self::Unreadable(why) => labelled(f, "state cannot be read", why),
            Self::DamagedKept(Some(until)) => write!(f, "damaged, kept until {until}"),
            Self::DamagedKept(None) => f.write_str("damaged, no newer good one"),
            Self::DamagedRemoved => f.write_str("damaged, a newer good one is 30 days old"),
            Self::NoRule => f.write_str("no rule keeps it"),
        }
    }
}

/// Shows a tier as the trigger is spelt.
fn words(tier: Tier) -> &'static str {
    match tier {
        Tier::PreDeploy => "pre-deploy",
        other => other.as_str(),
    }
}

/// Shows somebody's own words, which must not move a terminal's cursor.
fn labelled(f: &mut fmt::Formatter<'_>, label: &str, why: &str) -> fmt::Result {
    match why {
        "" => f.write_str(label),
        why => write!(f, "{label}: {}", printable(why)),
    }
}

/// Stands in JSON as its words.
impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

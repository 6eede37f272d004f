//! Freshness: whether the newest good backup is young enough, and how the runs before it went.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::runs::RunRecord;

/// What the age of the newest good backup means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// Younger than the allowed age.
    Fresh,
    /// Older, or there is none.
    Stale,
    /// There is one, and nobody said how old it may become.
    NotJudged,
}

/// Judges the newest good backup by its start. A start in the future is as fresh as one of this moment.
pub fn judge(newest: Option<Timestamp>, max_age: Option<Duration>, now: Timestamp) -> Freshness {
    match (newest, max_age) {
        (None, _) => Freshness::Stale,
        (Some(_), None) => Freshness::NotJudged,
        (Some(started_at), Some(max_age)) => {
            let max_age = SignedDuration::try_from(max_age).unwrap_or(SignedDuration::MAX);
            if now.duration_since(started_at) > max_age {
                Freshness::Stale
            } else {
                Freshness::Fresh
            }
        }
    }
}

/// Says an age in one unit, the one that tells most.
pub fn age(seconds: i64) -> String {
    match seconds {
        ..0 => "in the future".to_owned(),
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How many of the runs of `backup` ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Success {
    /// Runs that ended well.
    pub good: u64,
    /// All runs, those aside that gave way to another one.
    pub all: u64,
}

/// Counts the runs of `backup` that began at `since` or later.
pub fn success<'r>(runs: impl IntoIterator<Item = &'r RunRecord>, since: Timestamp) -> Success {
    let counted = runs
        .into_iter()
        .filter(|run| run.verb == "backup" && run.started_at >= since && !run.gave_way());
    counted.fold(Success::default(), |sum, run| Success {
        good: sum.good + u64::from(run.is_success()),
        all: sum.all + 1,
    })
}

/// Sizes of two backups, some time apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Growth {
    /// Size of the older one.
    pub from_bytes: u64,
    /// Size of the newest one.
    pub to_bytes: u64,
    /// How many days lie between them.
    pub days: f64,
}

/// Compares the newest of `sizes` (oldest first) with the youngest that is at least `apart` older, or with the oldest.
pub fn growth(sizes: &[(Timestamp, u64)], apart: SignedDuration) -> Option<Growth> {
    let (&(newest, to_bytes), before) = sizes.split_last()?;
    let old_enough = |(at, _): &&(Timestamp, u64)| newest.duration_since(*at) >= apart;
    let &(at, from_bytes) = before.iter().rfind(old_enough).or(before.first())?;
    let days = newest.duration_since(at).as_secs_f64() / 86_400.0;
    Some(Growth {
        from_bytes,
        to_bytes,
        days: (days * 10.0).round() / 10.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BackupId;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn judges_by_the_start() {
        let now = at("2026-03-02T00:00:00Z");
        let day = Some(Duration::from_secs(86_400));
        for (newest, max_age, expected) in [
            (None, None, Freshness::Stale),
            (None, day, Freshness::Stale),
            (Some("2026-03-01T00:00:00Z"), day, Freshness::Fresh),
            (Some("2026-02-28T23:59:59Z"), day, Freshness::Stale),
            (Some("2026-04-01T00:00:00Z"), day, Freshness::Fresh),
            (Some("2000-01-01T00:00:00Z"), None, Freshness::NotJudged),
            (
                Some("2000-01-01T00:00:00Z"),
                Some(Duration::MAX),
                Freshness::Fresh,
            ),
        ] {
            assert_eq!(judge(newest.map(at), max_age, now), expected, "{newest:?}");
        }
    }

    #[test]
    fn ages_read_well() {
        for (seconds, text) in [
            (-1, "in the future"),
            (59, "59 s"),
            (3599, "59 min"),
            (7200, "2 h"),
            (172_799, "47 h"),
            (35 * 86_400, "35 d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn counts_runs_that_had_a_chance() {
        let id: BackupId = "shop-20260301T000000Z-0001".parse().unwrap();
        let good = RunRecord::new(id.clone(), "backup", id.started_at(), 5);
        let warned = good.clone().failed(3, "prune_incomplete", "x");
        let failed = good.clone().failed(20, "dump_failed", "x");
        let busy = good.clone().failed(11, "busy", "x");
        let prune = RunRecord::new(id.clone(), "prune", id.started_at(), 5);
        let mut old = failed.clone();
        old.started_at = at("2025-01-01T00:00:00Z");
        let runs = [good, warned, failed, busy, prune, old];
        assert_eq!(
            success(&runs, at("2026-02-01T00:00:00Z")),
            Success { good: 2, all: 3 }
        );
    }

    #[test]
    fn growth_looks_back_far_enough() {
        let sizes = [
            (at("2026-01-01T00:00:00Z"), 100),
            (at("2026-02-01T00:00:00Z"), 200),
            (at("2026-03-01T00:00:00Z"), 300),
            (at("2026-03-08T00:00:00Z"), 330),
        ];
        let month = SignedDuration::from_hours(30 * 24);
        let grown = growth(&sizes, month).unwrap();
        assert_eq!(
            (grown.from_bytes, grown.to_bytes, grown.days),
            (200, 330, 35.0)
        );
        let grown = growth(&sizes[2..], month).unwrap();
        assert_eq!((grown.from_bytes, grown.days), (300, 7.0));
        assert_eq!(growth(&sizes[3..], month), None);
    }
}

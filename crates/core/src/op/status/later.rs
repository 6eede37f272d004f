//! A report as it is at a later moment, without a question to any storage.

use std::time::Duration;

use jiff::Timestamp;

use super::{Report, Status, sum_up};
use crate::op::stored::Listing;
use pgkeep_model::freshness::{Freshness, judge};

/// Judges the databases of a report again at a later moment, by what was read for it: a backup grows old, too, while no
/// storage answers. No storage is asked.
pub fn later(report: &Report, listing: &Listing, now: Timestamp) -> Report {
    let all = report.databases.iter();
    let databases: Vec<Status> = all.map(|status| status.later(now)).collect();
    Report {
        failure: sum_up(&databases, listing),
        databases,
        notices: Vec::new(),
        storages: report.storages.clone(),
    }
}

impl Status {
    /// Returns the same as it is at a later moment.
    fn later(&self, now: Timestamp) -> Self {
        let age_of = |at: Timestamp| now.as_second() - at.as_second();
        let judged = |before: Freshness, at, limit: Option<u64>| match before {
            // What decided that is not a matter of time.
            Freshness::NotJudged => before,
            _ => judge(at, limit.map(Duration::from_secs), now),
        };
        let mut next = self.clone();
        let newest = [&mut next.newest_good, &mut next.newest_drilled];
        for newest in newest.into_iter().flatten() {
            newest.age_seconds = age_of(newest.started_at);
        }
        for held in &mut next.held {
            held.age_seconds = age_of(held.started_at);
        }
        let newest = next.newest_good.as_ref().map(|newest| newest.started_at);
        next.freshness = judged(next.freshness, newest, next.max_age_seconds);
        if let Some(drill) = &mut next.drill {
            drill.freshness = judged(drill.freshness, drill.passed_at, drill.max_age_seconds);
            drill.age_seconds = drill.passed_at.map(age_of);
            if let Some(failed) = &mut drill.failed {
                failed.age_seconds = age_of(failed.at);
            }
        }
        next.put_into_words(now);
        next
    }
}

//! Tells by itself of databases without a fresh backup, as `status --notify` does, and of storages that do not answer.
//!
//! Nothing is remembered beyond the process: after a restart what is still to be told is told once more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::snapshot::Snapshot;
use pgkeep_core::context::Context;
use pgkeep_core::op::status::{self, Report};
use pgkeep_model::id::DatabaseName;

/// How long it is silent about what was told.
const SILENCE: SignedDuration = SignedDuration::from_hours(24);

/// How long no storage may answer before that is told: a link that is down for a minute is no news.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// How often it judges, though nothing new is known: backups grow old all the same.
const INTERVAL: Duration = Duration::from_secs(60);

/// Tells until a stop is asked for.
pub async fn run(mut snapshot: watch::Receiver<Arc<Snapshot>>, context: Context) {
    let mut told = Told::new(context.clock.now());
    loop {
        let known = Arc::clone(&snapshot.borrow_and_update());
        let now = context.clock.now();
        let report = status::later(&known.report, &known.listing, now);
        let due = told.due(&known, &report, now);
        for name in &due.alarming {
            let mut all = report.databases.iter();
            if let Some(status) = all.find(|status| &status.database == name) {
                status::tell(status, &report, now, &context).await;
            }
        }
        if let Some(failure) = known.failure.clone().filter(|_| !due.unknown.is_empty()) {
            status::tell_unknown(&due.unknown, failure, now, &context).await;
        }
        tokio::select! {
            () = context.stop.token().cancelled() => return,
            changed = snapshot.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// What was told, and when.
struct Told {
    began: Timestamp,
    alarming: HashMap<String, Timestamp>,
    unknown: HashMap<String, Timestamp>,
}

/// What is to be told now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    /// Databases that need somebody.
    alarming: Vec<String>,
    /// Databases of which nothing can be said, because no storage answers.
    unknown: Vec<DatabaseName>,
}

impl Told {
    fn new(began: Timestamp) -> Self {
        Self {
            began,
            alarming: HashMap::new(),
            unknown: HashMap::new(),
        }
    }

    /// Returns what is to be told at `now`, and takes it as told.
    fn due(&mut self, known: &Snapshot, report: &Report, now: Timestamp) -> Due {
        let mut due = Due::default();
        // Before the first listing an alarm would say no more than that nothing is known.
        if known.looked_at().is_some() {
            let databases = report.databases.iter();
            let bad = databases.filter(|status| !status.alerts.is_empty());
            due.alarming = unheard(&mut self.alarming, bad.map(|one| one.database.clone()), now);
        }
        let since = known.looked_at().unwrap_or(self.began);
        let is_silent = known.failure.is_some() && now.duration_since(since) >= PATIENCE;
        let all = report.databases.iter().filter(|_| is_silent);
        let names = unheard(&mut self.unknown, all.map(|one| one.database.clone()), now);
        due.unknown = names.iter().filter_map(|name| name.parse().ok()).collect();
        due
    }
}

/// Returns which of these were not told lately, and takes them as told. Those that need nobody any more are forgotten.
fn unheard(
    told: &mut HashMap<String, Timestamp>,
    all: impl Iterator<Item = String>,
    now: Timestamp,
) -> Vec<String> {
    let before = std::mem::take(told);
    let mut new = Vec::new();
    for name in all {
        let lately = before
            .get(&name)
            .filter(|at| now.duration_since(**at) < SILENCE);
        if lately.is_none() {
            new.push(name.clone());
        }
        told.insert(name, lately.copied().unwrap_or(now));
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::fixture::{Fixture, now};
    use pgkeep_model::failure::{Failure, Kind};

    fn due(told: &mut Told, known: &Snapshot, now: Timestamp) -> Due {
        let report = status::later(&known.report, &known.listing, now);
        told.due(known, &report, now)
    }

    #[test]
    fn what_grows_stale_while_no_storage_answers_is_told_once_a_day() {
        let fixture = Fixture::new();
        let hours = SignedDuration::from_hours;
        let mut told = Told::new(now());
        let known = fixture.snapshot;
        let first = due(&mut told, &known, now());
        assert!(first.alarming.contains(&"crm".to_owned()), "{first:?}");
        assert!(!first.alarming.contains(&"shop".to_owned()), "{first:?}");
        assert_eq!(due(&mut told, &known, now()), Due::default());
        let failure = Failure::new(Kind::Storage, "storage_unreachable", "no route to host");
        let silent = known.but(|next| next.failure = Some(failure));
        let at = now() + SignedDuration::from_mins(2);
        assert_eq!(due(&mut told, &silent, at), Due::default(), "too early");
        let at = now() + SignedDuration::from_mins(6);
        let second = due(&mut told, &silent, at);
        assert_eq!(second.unknown.len(), 6, "{second:?}");
        assert_eq!(due(&mut told, &silent, at), Due::default());
        // The newest backup of `shop` is six hours old, and may have 26.
        let third = due(&mut told, &silent, now() + hours(21));
        assert_eq!(third.unknown, []);
        assert!(third.alarming.contains(&"shop".to_owned()), "{third:?}");
        assert!(!third.alarming.contains(&"crm".to_owned()), "{third:?}");
        let fourth = due(&mut told, &silent, now() + hours(25));
        assert_eq!(fourth.unknown.len(), 6);
        assert!(fourth.alarming.contains(&"crm".to_owned()), "{fourth:?}");
        assert_eq!(due(&mut told, &known, now() + hours(26)).unknown, []);
        let again = due(&mut told, &silent, now() + hours(27));
        assert_eq!(again.unknown.len(), 6, "it had ended in between");
    }
}

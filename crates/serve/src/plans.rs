//! The schedules of the configuration, and what is due by them.

use jiff::Timestamp;

use crate::elsewhere;
use crate::runs::Runs;
use crate::snapshot::{Missed, Planned, Snapshot, Verb};
use pgkeep_model::config::Config;
use pgkeep_model::due::{self, Due, Outcome, Plan, SlotRun};
use pgkeep_model::id::{BackupId, DatabaseName};

/// How many of the next instants are told.
const NEXT_TOLD: usize = 5;

/// All schedules.
#[derive(Default)]
pub struct Plans(Vec<(DatabaseName, Verb, Plan)>);

impl Plans {
    /// Takes the schedules of a configuration.
    pub fn new(config: &Config) -> Self {
        let mut plans = Vec::new();
        for (name, database) in &config.databases {
            let schedules = [
                (Verb::Backup, &database.schedule),
                (Verb::Drill, &database.drill.schedule),
                (Verb::Verify, &database.verify.schedule),
            ];
            for (verb, schedule) in schedules {
                if let Some(schedule) = schedule {
                    plans.push((name.clone(), verb, Plan::of(name, database, schedule)));
                }
            }
        }
        Self(plans)
    }

    /// Tells each with its next instants.
    pub(crate) fn told(&self, now: Timestamp) -> Vec<Planned> {
        let told = |(database, verb, plan): &(DatabaseName, Verb, Plan)| Planned {
            database: database.clone(),
            verb: *verb,
            schedule: plan.schedule.to_string(),
            zone: plan.zone.iana_name().unwrap_or("UTC").to_owned(),
            offset: plan.offset,
            next: due::next(plan, now).take(NEXT_TOLD).collect(),
        };
        self.0.iter().map(told).collect()
    }

    /// Returns what is to be run now.
    pub fn due(
        &self,
        snapshot: &Snapshot,
        runs: &Runs,
        now: Timestamp,
    ) -> Vec<(DatabaseName, Verb, Due)> {
        let due = |(database, verb, plan): &(DatabaseName, Verb, Plan)| {
            let known = known(snapshot, runs, database, *verb);
            let due = due::due(plan, &known, now)?;
            // Another run has the lock, be it for this slot or not: it would only be told so.
            let is_kept_away =
                elsewhere::of_lock(&snapshot.held, database, *verb).any(|held| held.is_alive(now));
            (!is_kept_away).then(|| (database.clone(), *verb, due))
        };
        self.0.iter().filter_map(due).collect()
    }

    /// Returns the slots that were not run and will not be any more, newest first.
    pub(crate) fn missed(
        &self,
        snapshot: &Snapshot,
        runs: &Runs,
        from: Timestamp,
        now: Timestamp,
    ) -> Vec<Missed> {
        let mut missed = Vec::new();
        for (database, verb, plan) in &self.0 {
            let records = snapshot.records.get(database);
            // Before the oldest record that is held, nothing is known; before the first, nothing was expected.
            let Some(oldest) = records.and_then(|all| all.last()) else {
                continue;
            };
            let known = known(snapshot, runs, database, *verb);
            let since = from.max(oldest.started_at);
            let slots = due::missed(plan, &known, since, now);
            missed.extend(slots.into_iter().map(|slot| Missed {
                database: database.clone(),
                verb: *verb,
                slot,
            }));
        }
        missed.sort_by_key(|missed| std::cmp::Reverse(missed.slot));
        missed
    }
}

/// Collects what is known of the runs for slots: by records, by leases of others, and by our own runs.
fn known(snapshot: &Snapshot, runs: &Runs, database: &DatabaseName, verb: Verb) -> Vec<SlotRun> {
    let mut known = Vec::new();
    let mut seen: Vec<&BackupId> = Vec::new();
    let records = snapshot.records.get(database).into_iter().flatten();
    for record in records {
        let Some(run) = SlotRun::of(record, verb.as_str()) else {
            continue;
        };
        if run.outcome == Outcome::Interrupted {
            seen.push(record.run.as_ref().unwrap_or(&record.id));
        }
        known.push(run);
    }
    let held = snapshot
        .held
        .iter()
        .filter(|held| &held.database == database);
    for held in held.filter(|held| held.verb == verb.as_str()) {
        // A record of it was left by the run that took its lease over.
        let is_told = held.run.as_ref().is_some_and(|run| seen.contains(&run));
        if let Some(slot) = held.slot.filter(|_| !is_told) {
            let outcome = if held.is_dead {
                Outcome::Interrupted
            } else {
                Outcome::Running
            };
            known.push(SlotRun { slot, outcome });
        }
    }
    for (slot, is_ended) in runs.slots(database, verb) {
        let outcome = if is_ended {
            Outcome::Ended
        } else {
            Outcome::Running
        };
        known.push(SlotRun { slot, outcome });
    }
    known
}

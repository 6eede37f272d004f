//! What is due by a schedule: a pure function of the schedule, what is known of its runs, and the present moment.
//!
//! Nothing is remembered between two questions. A question after a restart, on another host, after a sleep or with
//! a clock that was set gets the answer that follows from the runs themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use super::config::DatabaseConfig;
use super::id::DatabaseName;
use super::runs::RunRecord;
use super::schedule::Schedule;

/// How often a slot's run is begun: once, and once more if that died.
const MAX_ATTEMPTS: u32 = 2;

/// How often workers begin it that come and go, and may be ended at any moment for reasons of their own, such as a node
/// that is drained. What a run dies of each time is given up all the same.
pub const ATTEMPTS_OF_WORKERS: u32 = 5;

/// How much sooner than its slot a run may have begun, by the clock of its own host.
pub const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(10);

/// How far back the newest slot is looked for: a schedule such as `0 3 29 2 *` has gaps of up to eight years.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24 * 366 * 8);

/// How many missed slots are told.
const MAX_MISSED: usize = 1000;

/// A schedule of one database.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When it runs.
    pub schedule: Schedule,
    /// The zone whose clock that means.
    pub zone: TimeZone,
    /// How much later than the schedule's instants it runs: always the same for one database, so that many do not run at
    /// once.
    pub offset: SignedDuration,
    /// How late a missed run is made up for.
    pub catch_up: SignedDuration,
}

/// What became of a run for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits or goes on.
    Running,
    /// It died.
    Interrupted,
    /// It ended, well or not.
    Ended,
}

/// A run for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRun {
    /// The slot: an instant of the schedule, without the offset.
    pub slot: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
}

impl SlotRun {
    /// Reads it out of the record of a run of `verb`; none where that was for no slot, or of another verb.
    pub fn of(record: &RunRecord, verb: &str) -> Option<Self> {
        let outcome = if record.is_interrupted() {
            Outcome::Interrupted
        } else {
            Outcome::Ended
        };
        let slot = record.slot.filter(|_| record.verb == verb)?;
        Some(Self { slot, outcome })
    }
}

/// A slot that is to be run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The slot.
    pub slot: Timestamp,
    /// Which attempt it is, from 1.
    pub attempt: u32,
}

impl Plan {
    /// Makes the plan of one of a database's schedules.
    pub fn of(name: &DatabaseName, database: &DatabaseConfig, schedule: &Schedule) -> Self {
        Self {
            schedule: schedule.clone(),
            zone: database.timezone.clone(),
            offset: Self::offset_of(name.as_str(), database.spread),
            catch_up: database.catch_up.try_into().unwrap_or(LOOK_BACK),
        }
    }

    /// Returns by how much the runs of a database are moved within `spread`: the same on every host, in whole seconds.
    pub fn offset_of(database: &str, spread: Option<Duration>) -> SignedDuration {
        let seconds = spread.map_or(0, |spread| spread.as_secs());
        if seconds == 0 {
            return SignedDuration::ZERO;
        }
        let place = xxh3_64(database.as_bytes()) % seconds;
        SignedDuration::from_secs(i64::try_from(place).unwrap_or(0))
    }

    /// Returns the slots whose time comes after `from` and not after `until`, oldest first.
    fn slots(&self, from: Timestamp, until: Timestamp) -> impl Iterator<Item = Timestamp> {
        let (from, until) = (from - self.offset, until - self.offset);
        self.schedule.between(from, until, &self.zone)
    }

    /// Returns the newest slot whose time has come.
    fn newest(&self, now: Timestamp) -> Option<Timestamp> {
        // A slot that is far away is found with few steps, and one that is near with few, too.
        let mut span = SignedDuration::from_mins(10);
        loop {
            let from = now.saturating_sub(span).unwrap_or(Timestamp::MIN);
            if let Some(slot) = self.slots(from, now).last() {
                return Some(slot);
            }
            if span >= LOOK_BACK {
                return None;
            }
            span = (span * 4).min(LOOK_BACK);
        }
    }
}

/// Returns what is to be run now: the newest slot, unless it was run, is being run, or its time is over. Older ones are
/// missed, and never made up for.
pub fn due(plan: &Plan, runs: &[SlotRun], now: Timestamp) -> Option<Due> {
    due_within(plan, runs, now, MAX_ATTEMPTS)
}

/// The same for a caller that begins a slot's run up to `attempts` times, where those before died.
pub fn due_within(plan: &Plan, runs: &[SlotRun], now: Timestamp, attempts: u32) -> Option<Due> {
    let slot = plan.newest(now)?;
    let began = slot + plan.offset;
    if now.duration_since(began) > plan.catch_up {
        return None;
    }
    let of_slot = || runs.iter().filter(|run| run.slot == slot);
    if of_slot().any(|run| run.outcome != Outcome::Interrupted) {
        return None;
    }
    let died = u32::try_from(of_slot().count()).unwrap_or(u32::MAX);
    (died < attempts).then_some(Due {
        slot,
        attempt: died + 1,
    })
}

/// Returns the instants at which it runs next, with the offset, soonest first.
pub fn next(plan: &Plan, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    let until = Timestamp::MAX - plan.offset - SignedDuration::from_hours(48);
    plan.slots(now, until).map(|slot| slot + plan.offset)
}

/// Returns the slots after `from` that were not run and will not be any more, newest first; at most a thousand.
pub fn missed(plan: &Plan, runs: &[SlotRun], from: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    let newest = plan.newest(now);
    let is_over = |slot: Timestamp| {
        let late = now.duration_since(slot + plan.offset);
        late > plan.catch_up || newest.is_some_and(|newest| slot < newest)
    };
    let run: BTreeSet<Timestamp> = runs.iter().map(|run| run.slot).collect();
    let mut missed: Vec<Timestamp> = Vec::new();
    for slot in plan.slots(from, now) {
        if is_over(slot) && !run.contains(&slot) {
            missed.push(slot);
        }
        if missed.len() > 2 * MAX_MISSED {
            missed.drain(..MAX_MISSED);
        }
    }
    missed.reverse();
    missed.truncate(MAX_MISSED);
    missed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::tz::TimeZoneDatabase;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn plan(schedule: &str, zone: &str) -> Plan {
        Plan {
            schedule: schedule.parse().unwrap(),
            zone: TimeZoneDatabase::bundled().get(zone).unwrap(),
            offset: SignedDuration::ZERO,
            catch_up: SignedDuration::from_hours(12),
        }
    }

    fn run(slot: &str, outcome: Outcome) -> SlotRun {
        SlotRun {
            slot: at(slot),
            outcome,
        }
    }

    #[test]
    fn the_newest_slot_is_run_once_and_made_up_for_within_its_time() {
        let nightly = plan("15 3 * * *", "UTC");
        let slot = "2026-03-10T03:15:00Z";
        let first = Some(Due {
            slot: at(slot),
            attempt: 1,
        });
        let again = Some(Due {
            slot: at(slot),
            attempt: 2,
        });
        use Outcome::{Ended, Interrupted, Running};
        for (now, runs, expected) in [
            (
                "2026-03-10T03:14:59Z",
                vec![run("2026-03-09T03:15:00Z", Ended)],
                None,
            ),
            ("2026-03-10T03:15:00Z", vec![], first),
            ("2026-03-10T15:15:00Z", vec![], first),
            ("2026-03-10T15:15:01Z", vec![], None),
            ("2026-03-10T03:20:00Z", vec![run(slot, Ended)], None),
            ("2026-03-10T03:20:00Z", vec![run(slot, Running)], None),
            ("2026-03-10T03:20:00Z", vec![run(slot, Interrupted)], again),
            (
                "2026-03-10T03:20:00Z",
                vec![run(slot, Interrupted), run(slot, Running)],
                None,
            ),
            (
                "2026-03-10T03:20:00Z",
                vec![run(slot, Interrupted), run(slot, Ended)],
                None,
            ),
            (
                "2026-03-10T03:20:00Z",
                vec![run(slot, Interrupted); 2],
                None,
            ),
            // Three days asleep: the newest alone. An hour back: what ran has run.
            (
                "2026-03-10T04:00:00Z",
                vec![run("2026-03-07T03:15:00Z", Ended)],
                first,
            ),
            (
                "2026-03-10T02:30:00Z",
                vec![run(slot, Ended), run("2026-03-09T03:15:00Z", Ended)],
                None,
            ),
        ] {
            assert_eq!(due(&nightly, &runs, at(now)), expected, "{now} {runs:?}");
        }
    }

    #[test]
    fn two_hundred_missed_minutes_are_one_run() {
        let minutely = plan("* * * * *", "UTC");
        let (from, now) = (at("2026-03-10T00:00:00Z"), at("2026-03-10T03:20:30Z"));
        let found = due(&minutely, &[], now).unwrap();
        assert_eq!(found.slot, at("2026-03-10T03:20:00Z"));
        let ran = [SlotRun {
            slot: found.slot,
            outcome: Outcome::Ended,
        }];
        assert_eq!(due(&minutely, &ran, now), None);
        assert_eq!(missed(&minutely, &ran, from, now).len(), 199);
        let years = missed(
            &minutely,
            &[],
            from - SignedDuration::from_hours(24 * 30),
            now,
        );
        assert_eq!(years.len(), MAX_MISSED);
        assert_eq!(years[0], at("2026-03-10T03:19:00Z"));
    }

    #[test]
    fn a_day_on_which_the_clock_changes_has_one_slot() {
        for (zone, from) in [
            ("Europe/Berlin", "2026-03-28T12:00:00Z"),
            ("Europe/Berlin", "2026-10-24T12:00:00Z"),
            ("America/New_York", "2026-03-07T12:00:00Z"),
            ("America/New_York", "2026-10-31T12:00:00Z"),
        ] {
            let plan = plan("30 2 * * *", zone);
            let mut now = at(from);
            let mut runs = Vec::new();
            for _ in 0..2 * 24 * 60 {
                now += SignedDuration::from_mins(1);
                if let Some(due) = due(&plan, &runs, now) {
                    runs.push(SlotRun {
                        slot: due.slot,
                        outcome: Outcome::Ended,
                    });
                }
            }
            // The slot of the first day was missed for fewer than twelve hours.
            let after = runs.iter().filter(|run| run.slot > at(from)).count();
            assert_eq!(after, 2, "{zone} {from}: {runs:?}");
        }
    }

    #[test]
    fn an_offset_is_the_same_everywhere_and_moves_the_time_alone() {
        let spread = Some(Duration::from_secs(3600));
        let offset = Plan::offset_of("shop", spread);
        assert_eq!(offset, Plan::offset_of("shop", spread));
        assert_ne!(offset, Plan::offset_of("blog", spread));
        assert_eq!(Plan::offset_of("shop", None), SignedDuration::ZERO);
        let plan = Plan {
            offset: SignedDuration::from_mins(7),
            ..plan("15 3 * * *", "UTC")
        };
        let slot = at("2026-03-10T03:15:00Z");
        assert!(due(&plan, &[], at("2026-03-10T03:21:59Z")).is_none_or(|due| due.slot < slot));
        let found = due(&plan, &[], at("2026-03-10T03:22:00Z")).unwrap();
        assert_eq!(found.slot, slot);
        let mut next = next(&plan, at("2026-03-10T03:22:00Z"));
        assert_eq!(next.next(), Some(at("2026-03-11T03:22:00Z")));
    }

    proptest! {
        /// Ticks, sleeps, clocks that are set, runs that die: no slot ends twice, and none is begun more than twice.
        #[test]
        fn no_slot_is_run_twice(
            steps in proptest::collection::vec((-7200i64..200_000, 0u8..4), 1..60),
            minutes in prop::sample::select(vec!["*/10 * * * *", "15 3 * * *", "0 */6 * * *"]),
        ) {
            let plan = plan(minutes, "Europe/Berlin");
            let mut now = at("2026-03-27T00:00:00Z");
            let mut runs: Vec<SlotRun> = Vec::new();
            for (step, fate) in steps {
                now += SignedDuration::from_secs(step);
                // What went on ends now, one way or the other.
                for run in runs.iter_mut().filter(|run| run.outcome == Outcome::Running) {
                    run.outcome = if fate == 0 { Outcome::Interrupted } else { Outcome::Ended };
                }
                if let Some(due) = due(&plan, &runs, now) {
                    prop_assert!(due.slot <= now && now.duration_since(due.slot) <= plan.catch_up);
                    runs.push(SlotRun { slot: due.slot, outcome: Outcome::Running });
                }
            }
            let mut begun: BTreeMap<Timestamp, (u32, u32)> = BTreeMap::new();
            for run in &runs {
                let counts = begun.entry(run.slot).or_default();
                counts.0 += 1;
                counts.1 += u32::from(run.outcome == Outcome::Ended);
            }
            for (slot, (all, ended)) in begun {
                prop_assert!(all <= 2 && ended <= 1, "{slot}: {all} {ended}");
            }
        }

        /// Whoever asks in time is told of the slot, and nobody else: each slot at whose time somebody asked is run, one
        /// whose run died is run again where somebody asks in time, and all others are missed.
        #[test]
        fn every_slot_that_somebody_asks_about_in_time_is_run(
            steps in proptest::collection::vec((1i64..90_000, 0u8..4), 1..20),
            minutes in prop::sample::select(vec!["0 * * * *", "15 3 * * *", "0 */6 * * *", "30 2 * * 0"]),
            offset in 0i64..1800,
            catch_up in prop::sample::select(vec![60i64, 900, 12 * 3600, 20 * 24 * 3600]),
        ) {
            let plan = Plan {
                offset: SignedDuration::from_secs(offset),
                catch_up: SignedDuration::from_secs(catch_up),
                ..plan(minutes, "Europe/Berlin")
            };
            let from = at("2026-03-22T00:00:00Z");
            let mut now = from;
            let mut runs: Vec<SlotRun> = Vec::new();
            let mut ticks: Vec<(Timestamp, Option<Due>)> = Vec::new();
            for (step, fate) in steps {
                now += SignedDuration::from_secs(step);
                let due = due(&plan, &runs, now);
                ticks.push((now, due));
                if let Some(due) = due {
                    let outcome = if fate == 0 { Outcome::Interrupted } else { Outcome::Ended };
                    runs.push(SlotRun { slot: due.slot, outcome });
                }
            }
            // Said once more, by going through the slots instead of the ticks.
            let all: Vec<Timestamp> = plan.schedule.between(from - plan.offset, now - plan.offset, &plan.zone).collect();
            let mut told = 0;
            let mut missed_slots = Vec::new();
            for (at, &slot) in all.iter().enumerate() {
                let begin = slot + plan.offset;
                let next = all.get(at + 1).map_or(Timestamp::MAX, |next| *next + plan.offset);
                let in_time = ticks.iter().filter(|(tick, _)| begin <= *tick && *tick <= begin + plan.catch_up && *tick < next);
                let mut outcomes = runs.iter().filter(|run| run.slot == slot).map(|run| run.outcome);
                let mut attempt = 1;
                let mut is_over = false;
                for (tick, due) in in_time {
                    let expected = (!is_over).then_some(Due { slot, attempt });
                    prop_assert_eq!(*due, expected, "{} at {}", slot, tick);
                    if !is_over {
                        told += 1;
                        attempt += 1;
                        is_over = outcomes.next() == Some(Outcome::Ended) || attempt > MAX_ATTEMPTS;
                    }
                }
                let has_time = now <= begin + plan.catch_up && now < next;
                if attempt == 1 && !has_time {
                    missed_slots.push(slot);
                }
            }
            let early = ticks.iter().filter(|(_, due)| due.is_some_and(|due| due.slot + plan.offset <= from)).count();
            prop_assert_eq!(told + early, runs.len(), "nothing is run but in its time");
            missed_slots.reverse();
            prop_assert_eq!(missed(&plan, &runs, from, now), missed_slots[..missed_slots.len().min(MAX_MISSED)].to_vec());
        }
    }
}

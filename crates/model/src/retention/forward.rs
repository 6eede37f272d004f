//! Retention run forward: on which day each backup goes, if the schedule holds and every backup of it is good.

use std::iter::Peekable;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use super::{Candidate, Refusal, plan};
use crate::config::Retention;

/// Most backups that a look ahead makes up; it ends before the day that would need more.
const MAX_MADE: usize = 50_000;

/// What becomes of backups in the time to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The day on which each candidate goes, in the order of the candidates and on the clock of the policy; none for those
    /// that are still there at the end. What is to go already has the day of `now`.
    pub goes: Vec<Option<Date>>,
    /// Which candidates the policy lets go at `now`, before anything is made.
    pub gone_now: Vec<bool>,
    /// The last day that was looked at.
    pub until: Date,
}

/// Looks ahead from `now` until a day: on each day the backups of `slots` (oldest first, each later than `now`) are made,
/// all of them good, and then the policy is carried out at the start of the last of them. A day without a slot prunes
/// nothing. Neither a pin nor a mark comes or goes.
///
/// What goes on a day is what [`plan`] removes on that day of all that was there before and has been made since; whether
/// it is asked once a day or after each backup makes no difference.
pub fn forward(
    policy: &Retention,
    candidates: &[Candidate],
    slots: impl Iterator<Item = Timestamp>,
    now: Timestamp,
    days: u16,
) -> Result<Forward, Refusal> {
    let day_of = |at: Timestamp| at.to_zoned(policy.timezone.clone()).date();
    let today = day_of(now);
    let end = now + SignedDuration::from_hours(24 * i64::from(days));
    let mut state = State::new(candidates);
    let planned = plan(policy, candidates, now)?;
    let gone_now: Vec<bool> = planned
        .verdicts
        .iter()
        .map(|verdict| !verdict.keep)
        .collect();
    state.remove(&gone_now, today);
    let mut until = today;
    let mut slots = slots.take_while(|slot| *slot <= end).peekable();
    let mut made = 0;
    while let Some((day, of_day)) = next_day(&mut slots, day_of) {
        made += of_day.len();
        if made > MAX_MADE {
            break;
        }
        let at = *of_day.last().expect("a day has a slot");
        state
            .members
            .extend(of_day.into_iter().map(|slot| (None, Candidate::new(slot))));
        let all: Vec<Candidate> = state.members.iter().map(|(_, one)| one.clone()).collect();
        let decided = plan(policy, &all, at)?;
        let gone: Vec<bool> = decided
            .verdicts
            .iter()
            .map(|verdict| !verdict.keep)
            .collect();
        state.remove(&gone, day);
        until = day;
        if state.is_empty() {
            until = day_of(end);
            break;
        }
    }
    if made == 0 {
        until = day_of(end);
    }
    Ok(Forward {
        goes: state.goes,
        gone_now,
        until,
    })
}

/// Takes the slots of the next day that has any.
fn next_day(
    slots: &mut Peekable<impl Iterator<Item = Timestamp>>,
    day_of: impl Fn(Timestamp) -> Date,
) -> Option<(Date, Vec<Timestamp>)> {
    let day = day_of(*slots.peek()?);
    let mut of_day = Vec::new();
    while let Some(slot) = slots.next_if(|slot| day_of(*slot) == day) {
        of_day.push(slot);
        if of_day.len() > MAX_MADE {
            break;
        }
    }
    Some((day, of_day))
}

/// What is there, and what went when.
struct State {
    /// What is there, with its place among the candidates; none for what was made on the way.
    members: Vec<(Option<usize>, Candidate)>,
    goes: Vec<Option<Date>>,
}

impl State {
    fn new(candidates: &[Candidate]) -> Self {
        Self {
            members: candidates
                .iter()
                .cloned()
                .enumerate()
                .map(|(at, one)| (Some(at), one))
                .collect(),
            goes: vec![None; candidates.len()],
        }
    }

    fn remove(&mut self, gone: &[bool], day: Date) {
        let mut at = 0;
        self.members.retain(|(place, _)| {
            let is_gone = gone[at];
            at += 1;
            if let Some(place) = place.filter(|_| is_gone) {
                self.goes[place] = Some(day);
            }
            !is_gone
        });
    }

    /// Tells whether nothing is left of what was there at first.
    fn is_empty(&self) -> bool {
        self.members.iter().all(|(place, _)| place.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeepPreDeploy;
    use crate::schedule::Schedule;
    use jiff::tz::{TimeZone, TimeZoneDatabase};
    use jiff::{Span, ToSpan};
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn slots(cron: &str, zone: &TimeZone, now: Timestamp) -> Vec<Timestamp> {
        let schedule: Schedule = cron.parse().unwrap();
        let end = now + SignedDuration::from_hours(24 * 420);
        schedule.between(now, end, zone).collect()
    }

    #[test]
    fn the_last_three_of_a_daily_schedule_go_one_a_day() {
        let policy = Retention {
            keep_last: Some(3),
            ..Retention::default()
        };
        let candidates: Vec<Candidate> = [
            "2026-01-01T03:00:00Z",
            "2026-01-02T03:00:00Z",
            "2026-01-03T03:00:00Z",
        ]
        .map(|text| Candidate::new(at(text)))
        .to_vec();
        let now = at("2026-01-03T12:00:00Z");
        let slots = slots("0 3 * * *", &TimeZone::UTC, now);
        let ahead = forward(&policy, &candidates, slots.into_iter(), now, 30).unwrap();
        let days: Vec<String> = ahead
            .goes
            .iter()
            .map(|day| day.unwrap().to_string())
            .collect();
        assert_eq!(days, ["2026-01-04", "2026-01-05", "2026-01-06"]);
        assert_eq!(ahead.gone_now, [false; 3]);
        // Without a schedule nothing is made, and nothing grows older than the newest.
        let still = forward(&policy, &candidates, std::iter::empty(), now, 30).unwrap();
        assert_eq!(still.goes, [None; 3]);
    }

    #[test]
    fn an_empty_policy_is_refused() {
        let policy = Retention::default();
        let now = at("2026-01-03T12:00:00Z");
        assert_eq!(
            forward(&policy, &[], std::iter::empty(), now, 30),
            Err(Refusal::EmptyPolicy)
        );
    }

    fn policy() -> impl Strategy<Value = Retention> {
        let count = || prop::option::of(0u32..6);
        let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]);
        let within = prop::option::of(0i32..60);
        let own = prop::option::of(0u32..4);
        (
            count(),
            count(),
            count(),
            count(),
            count(),
            within,
            own,
            zone,
        )
            .prop_map(
                |(last, daily, weekly, monthly, yearly, within, own, zone)| Retention {
                    keep_last: Some(last.unwrap_or(0) + 1),
                    keep_daily: daily,
                    keep_weekly: weekly,
                    keep_monthly: monthly,
                    keep_yearly: yearly,
                    keep_within: within.map(|days| Span::new().days(days)),
                    keep_pre_deploy: own.map(KeepPreDeploy::Last),
                    timezone: TimeZoneDatabase::bundled().get(zone).unwrap(),
                    ..Retention::default()
                },
            )
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0i64..(120 * 86_400), 0u8..12).prop_map(|(ago, mark)| Candidate {
            pinned: (mark == 1).then(String::new),
            is_held: mark == 2,
            is_drilled: mark == 3,
            is_pre_deploy: mark == 4,
            is_guarded: mark == 5,
            ..Candidate::new(at("2026-03-01T12:00:00Z") - SignedDuration::from_secs(ago))
        });
        prop::collection::vec(one, 0..40)
    }

    proptest! {
        /// What the calendar says for a day is what one plan removes when the clock is moved there.
        #[test]
        fn a_day_of_the_calendar_is_what_a_plan_removes_there(
            policy in policy(),
            candidates in candidates(),
            cron in prop::sample::select(vec!["15 3 * * *", "0 */6 * * *", "30 2 * * 0", "0 1 1 * *"]),
            day in 0usize..200,
        ) {
            let now = at("2026-03-01T12:00:00Z");
            let slots = slots(cron, &policy.timezone, now);
            let ahead = forward(&policy, &candidates, slots.iter().copied(), now, 250).unwrap();
            let day_of = |at: Timestamp| at.to_zoned(policy.timezone.clone()).date();
            let moved = now + SignedDuration::from_hours(24 * day as i64);
            let until = day_of(moved);
            let made: Vec<Timestamp> = slots.into_iter().filter(|slot| day_of(*slot) <= until).collect();
            let clock = made.last().copied().unwrap_or(now);
            let mut all = candidates.clone();
            all.extend(made.into_iter().map(Candidate::new));
            let decided = plan(&policy, &all, clock).unwrap();
            for (place, goes) in ahead.goes.iter().enumerate() {
                let is_gone = goes.is_some_and(|goes| goes <= until);
                prop_assert_eq!(is_gone, !decided.verdicts[place].keep, "{:?} {:?}", candidates[place], goes);
            }
            let before = plan(&policy, &candidates, now).unwrap();
            for (gone, verdict) in ahead.gone_now.iter().zip(before.verdicts) {
                prop_assert_eq!(*gone, !verdict.keep);
            }
        }

        /// One that is damaged goes on the day on which pruning every day would remove it.
        #[test]
        fn a_damaged_one_goes_when_daily_pruning_removes_it(policy in policy(), candidates in candidates(), which in 0usize..40) {
            let now = at("2026-03-01T12:00:00Z");
            let mut candidates = candidates;
            if let Some(one) = candidates.get_mut(which) {
                one.is_damaged = true;
            }
            let slots = slots("15 3 * * *", &policy.timezone, now);
            let ahead = forward(&policy, &candidates, slots.iter().copied(), now, 90).unwrap();
            let mut there: Vec<(Option<usize>, Candidate)> = candidates.iter().cloned().enumerate().map(|(at, one)| (Some(at), one)).collect();
            let mut gone = vec![None; candidates.len()];
            let end = now + SignedDuration::from_hours(24 * 90);
            for clock in std::iter::once(now).chain(slots.into_iter().take_while(|slot| *slot <= end)) {
                if clock != now {
                    there.push((None, Candidate::new(clock)));
                }
                let all: Vec<Candidate> = there.iter().map(|(_, one)| one.clone()).collect();
                let decided = plan(&policy, &all, clock).unwrap();
                let mut verdicts = decided.verdicts.into_iter();
                there.retain(|(place, _)| {
                    let keep = verdicts.next().unwrap().keep;
                    if let Some(place) = place.filter(|_| !keep) {
                        gone[place] = Some(clock.to_zoned(policy.timezone.clone()).date());
                    }
                    keep
                });
            }
            prop_assert_eq!(ahead.goes, gone);
        }
    }

    #[test]
    fn a_schedule_of_every_minute_ends_in_time() {
        let policy = Retention {
            keep_daily: Some(7),
            keep_within: Some(2.days()),
            ..Retention::default()
        };
        let now = at("2026-03-01T12:00:00Z");
        let candidates: Vec<Candidate> = (0..60)
            .map(|hours| Candidate::new(now - SignedDuration::from_hours(hours)))
            .collect();
        let minutes = (1..).map(|minute| now + SignedDuration::from_mins(minute));
        let ahead = forward(&policy, &candidates, minutes, now, 400).unwrap();
        assert!(ahead.until > now.to_zoned(TimeZone::UTC).date());
    }
}

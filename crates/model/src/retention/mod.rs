//! Retention: which backups a policy keeps, as a plan with every reason for every backup.
//!
//! The rule is restic's since 0.16. Each rule walks the eligible backups from newest to oldest by itself and keeps the
//! newest of each period that has one, until its count is used up; if the backups run out first, it keeps the oldest
//! too. The union is kept. Removes nothing by itself, and asks neither the clock nor a storage.
//!
//! What is worth knowing:
//! - Pinned, held, future and unreadable backups are kept and use nothing up: no count, no "newest good", no "newest drilled",
//!   and they are no newer good one that a damaged one would wait for. So none of them changes another one's fate.
//! - An age is measured to the newest eligible backup, not to the present: when backups stop, removing stops too.
//!   Whether a backup is younger than `1 month` is asked by adding the month to its start, so it grows too old once and
//!   for all. (Taking the month away from the newest would move backwards where months differ in length: 23:00 on the
//!   28th of March and 01:00 on the 31st both lead to the 28th of February, the later one to an earlier hour.)
//! - Pruning after every backup leaves what pruning once at the end leaves, damaged ones aside. Those are removed when
//!   the oldest newer good one that is *still there* is 30 days old, and pruning often may have removed that one already:
//!   a policy that keeps no good backup for 30 days keeps a damaged one for as long.
//! - Periods are what a clock on the wall shows in the policy's zone. The hour that it shows twice in autumn is one.

mod forward;
mod period;
mod reason;
#[cfg(test)]
mod tests;
mod times;

use std::cmp::Reverse;
use std::collections::HashSet;

use jiff::{SignedDuration, Span, Timestamp, Zoned};
use thiserror::Error;

use super::config::{KeepPreDeploy, Retention};
use crate::keys::Marks;
pub use forward::{Forward, forward};
pub use period::{Period, Tier};
pub use reason::Reason;
pub use times::{BadLine, fuzz as fuzz_times, read_times};

/// How far ahead of the present a start may be stamped and still count: hosts that make backups and hosts that prune
/// them disagree by seconds, and by minutes where nobody sets the clock.
pub const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(10);

/// Tells whether a start is stamped so far ahead of the present that a clock must be wrong. Such a backup is kept and
/// counts for nothing: retention, freshness and `latest` all ask here.
pub fn is_ahead(started_at: Timestamp, now: Timestamp) -> bool {
    started_at.duration_since(now) > MAX_AHEAD
}

/// How long a damaged backup stays after a newer good one: its whole tables may be the only copy of something that was
/// deleted since.
const DAMAGED_STAYS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A plan smaller than this may remove whatever share it likes.
const SMALL_PLAN: usize = 10;

/// One backup as retention sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// When its run started.
    pub started_at: Timestamp,
    /// Why it is pinned; empty when that is not known, none when it is not pinned.
    pub pinned: Option<String>,
    /// Whether it was made before a deploy. Means nothing without `keep_pre_deploy`.
    pub is_pre_deploy: bool,
    /// Whether a deploy relied on it, though it was made for another reason: `keep_pre_deploy` counts it, too.
    pub is_guarded: bool,
    /// Whether stored bytes contradict its manifest.
    pub is_damaged: bool,
    /// Whether a drill of it passed.
    pub is_drilled: bool,
    /// Whether it is held: it lost what the backups before it had, and nobody has accepted it.
    pub is_held: bool,
    /// Whether the run that asks made it.
    pub is_made_by_this_run: bool,
    /// Why its state cannot be read; none when it can.
    pub unreadable: Option<String>,
}

impl Candidate {
    /// Makes a good backup that nothing else is known of.
    pub fn new(started_at: Timestamp) -> Self {
        Self {
            started_at,
            ..Self::default()
        }
    }

    /// Makes a stored backup. Why it is pinned stands in an object of its own, which nobody reads for a plan.
    pub fn stored(started_at: Timestamp, marks: Marks) -> Self {
        Self {
            pinned: marks.is_pinned.then(String::new),
            is_pre_deploy: marks.is_pre_deploy,
            is_guarded: marks.is_guarded,
            is_damaged: marks.is_damaged,
            is_drilled: marks.is_drilled,
            is_held: marks.is_held,
            ..Self::new(started_at)
        }
    }
}

/// What happens to one backup, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is kept.
    pub keep: bool,
    /// Every reason there is, at least one: what sets it apart, then the rules, then what is never removed.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    fn new(mut reasons: Vec<Reason>) -> Self {
        if reasons.is_empty() {
            reasons.push(Reason::NoRule);
        }
        Self {
            keep: reasons.iter().any(Reason::keeps),
            reasons,
        }
    }

    /// Returns what the backup counts as, each tier once.
    pub fn tiers(&self) -> Vec<Tier> {
        let mut tiers: Vec<Tier> = self.reasons.iter().filter_map(Reason::tier).collect();
        tiers.dedup();
        tiers
    }
}

/// What a policy would do with a set of backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One for each candidate, in the order of the candidates.
    pub verdicts: Vec<Verdict>,
}

impl Plan {
    /// Tells whether it removes more than half of more than ten: rather a slip in the policy than a wish.
    pub fn removes_too_much(&self) -> bool {
        self.removes_too_much_besides(0)
    }

    /// Tells the same of what it removes besides so many that were to go before and are still there.
    pub fn removes_too_much_besides(&self, known: usize) -> bool {
        let all = self.verdicts.len().saturating_sub(known);
        all > SMALL_PLAN && 2 * self.removed().saturating_sub(known) > all
    }

    /// Returns how many backups it removes.
    pub fn removed(&self) -> usize {
        self.verdicts.iter().filter(|verdict| !verdict.keep).count()
    }
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No rule keeps anything; `keep_pre_deploy` alone is none.
    #[error("the retention policy is empty: it has no rule that keeps a backup")]
    EmptyPolicy,
}

/// Decides the fate of each backup. The order of the candidates means nothing.
pub fn plan(policy: &Retention, candidates: &[Candidate], now: Timestamp) -> Result<Plan, Refusal> {
    if is_empty(policy) {
        return Err(Refusal::EmptyPolicy);
    }
    let mut reasons: Vec<Vec<Reason>> = candidates.iter().map(|one| set_apart(one, now)).collect();
    let (damaged, mut good): (Vec<Member>, Vec<Member>) = candidates
        .iter()
        .enumerate()
        .filter(|(at, _)| reasons[*at].is_empty())
        .map(|(at, candidate)| Member::new(at, candidate, policy))
        .partition(|member| member.candidate.is_damaged);
    good.sort_by_key(|member| Reverse(member.rank()));
    let has_own_set = policy.keep_pre_deploy.is_some();
    let is_of = |one: &&Member| has_own_set && one.candidate.is_pre_deploy;
    let is_in = |one: &&Member| is_of(one) || (has_own_set && one.candidate.is_guarded);
    let eligible: Vec<&Member> = good.iter().filter(|one| !is_of(one)).collect();
    let pre_deploy: Vec<&Member> = good.iter().filter(is_in).collect();

    for (tier, count) in counts(policy) {
        keep_counted(tier, count, &eligible, &mut reasons);
    }
    if let Some(age) = policy.keep_within {
        keep_younger(Tier::Within, age, &eligible, &mut reasons);
    }
    match policy.keep_pre_deploy {
        Some(KeepPreDeploy::Last(count)) => {
            keep_counted(Tier::PreDeploy, count, &pre_deploy, &mut reasons);
        }
        Some(KeepPreDeploy::Within(age)) => {
            keep_younger(Tier::PreDeploy, age, &pre_deploy, &mut reasons);
        }
        None => {}
    }
    keep_always(candidates, &good, &mut reasons);
    for member in damaged {
        reasons[member.at].push(judge_damaged(&member, &good, now));
    }
    let verdicts = reasons.into_iter().map(Verdict::new).collect();
    Ok(Plan { verdicts })
}

/// Tells whether a policy has no rule that keeps anything. `keep_pre_deploy` is none: it says nothing of other backups.
pub fn is_empty(policy: &Retention) -> bool {
    let counts_none = counts(policy).iter().all(|(_, count)| *count == 0);
    counts_none && !policy.keep_within.is_some_and(Span::is_positive)
}

/// The rules that count; one that is not given counts to 0.
fn counts(policy: &Retention) -> [(Tier, u32); 6] {
    [
        (Tier::Last, policy.keep_last),
        (Tier::Hourly, policy.keep_hourly),
        (Tier::Daily, policy.keep_daily),
        (Tier::Weekly, policy.keep_weekly),
        (Tier::Monthly, policy.keep_monthly),
        (Tier::Yearly, policy.keep_yearly),
    ]
    .map(|(tier, count)| (tier, count.unwrap_or(0)))
}

/// Returns what keeps a backup without looking at the others; such a one is neither counted nor judged further.
fn set_apart(candidate: &Candidate, now: Timestamp) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(why) = &candidate.unreadable {
        reasons.push(Reason::Unreadable(why.clone()));
    }
    if let Some(why) = &candidate.pinned {
        reasons.push(Reason::Pinned(why.clone()));
    }
    if candidate.is_held {
        reasons.push(Reason::Held);
    }
    if is_ahead(candidate.started_at, now) {
        reasons.push(Reason::Future);
    }
    reasons
}

/// A backup that the rules look at.
struct Member<'c> {
    /// Its place among the candidates.
    at: usize,
    candidate: &'c Candidate,
    /// Its start on the clock of the policy.
    start: Zoned,
}

impl<'c> Member<'c> {
    fn new(at: usize, candidate: &'c Candidate, policy: &Retention) -> Self {
        let start = candidate.started_at.to_zoned(policy.timezone.clone());
        Self {
            at,
            candidate,
            start,
        }
    }

    /// Orders by start. Of backups with the same start the drilled one counts as the newer; whatever is alike in all of
    /// this is interchangeable.
    fn rank(&self) -> (Timestamp, bool, bool, bool, bool) {
        let one = self.candidate;
        let started_at = one.started_at;
        (
            started_at,
            one.is_drilled,
            one.is_pre_deploy,
            one.is_guarded,
            one.is_made_by_this_run,
        )
    }
}

/// Keeps the newest of each period of `tier` until `count` is used up, and the oldest of all where it is not.
fn keep_counted(tier: Tier, count: u32, members: &[&Member], reasons: &mut [Vec<Reason>]) {
    let mut seen = HashSet::new();
    let mut number = 0;
    for (position, member) in members.iter().enumerate() {
        if number == count {
            return;
        }
        let period = tier.period(&member.start);
        let reason = if period.is_none_or(|period| seen.insert(period)) {
            number += 1;
            Reason::Counted {
                tier,
                period,
                number,
                of: count,
            }
        } else if position + 1 == members.len() {
            Reason::Oldest(tier)
        } else {
            continue;
        };
        reasons[member.at].push(reason);
    }
}

/// Keeps what is younger than `age`, seen from the newest. An age beyond the calendar keeps everything.
fn keep_younger(tier: Tier, age: Span, members: &[&Member], reasons: &mut [Vec<Reason>]) {
    let Some(newest) = members.first() else {
        return;
    };
    for member in members {
        let is_younger = member
            .start
            .checked_add(age)
            .map_or(true, |end| end > newest.start);
        if is_younger {
            reasons[member.at].push(Reason::younger(tier, age));
        }
    }
}

/// Keeps what no policy removes: the newest good one, the newest drilled one, what this run made.
fn keep_always(candidates: &[Candidate], good: &[Member], reasons: &mut [Vec<Reason>]) {
    if let Some(newest) = good.first() {
        reasons[newest.at].push(Reason::NewestGood);
    }
    if let Some(newest) = good.iter().find(|member| member.candidate.is_drilled) {
        reasons[newest.at].push(Reason::NewestDrilled);
    }
    for (at, candidate) in candidates.iter().enumerate() {
        if candidate.is_made_by_this_run {
            reasons[at].push(Reason::MadeByThisRun);
        }
    }
}

/// Judges a damaged backup by the oldest good one that is newer. `good` has the newest first.
fn judge_damaged(damaged: &Member, good: &[Member], now: Timestamp) -> Reason {
    let newer = good.partition_point(|member| member.start > damaged.start);
    let Some(oldest) = good[..newer].last() else {
        return Reason::DamagedKept(None);
    };
    // Beyond the end of the calendar nothing is ever removed.
    match oldest.start.checked_add(DAMAGED_STAYS) {
        Ok(until) if until.timestamp() <= now => Reason::DamagedRemoved,
        Ok(until) => Reason::DamagedKept(Some(until.date())),
        Err(_) => Reason::DamagedKept(None),
    }
}

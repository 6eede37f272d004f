//! The two judgements that everything begins with: how a database stands, and whether it could be restored now.

use jiff::Timestamp;

use super::known::{last_recovery, target};
use super::{age_of, copies, stored};
use crate::page::words::took_at_most;
use crate::snapshot::Snapshot;
use pgkeep_core::op::status::Status;
use pgkeep_model::freshness::{Freshness, age};
use pgkeep_model::key_sets::PROOF_AGE;
use pgkeep_model::words::took;

/// How something stands, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Light {
    /// All is well.
    Good,
    /// Nobody said what would be well.
    Unknown,
    /// Somebody should look at it.
    Warn,
    /// It is not as it must be.
    Bad,
}

/// One thing that a restore needs.
#[derive(Clone, Debug)]
pub struct Check {
    /// How it stands.
    pub light: Light,
    /// What it is: `A good backup`.
    pub what: &'static str,
    /// How it stands in words.
    pub words: String,
}

/// Whether a database could be restored now.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Good for yes, warn for yes with a doubt, bad for no.
    pub light: Light,
    /// The answer in a sentence.
    pub words: String,
    /// What it rests on.
    pub checks: Vec<Check>,
}

/// Judges a database, and says why in words. Where the storages do not answer it is at best a matter for somebody.
pub fn light(snapshot: &Snapshot, status: &Status, now: Timestamp) -> (Light, String) {
    let Some(doubt) = snapshot.doubt(now) else {
        return as_known(status, now);
    };
    if snapshot.looked_at().is_none() {
        return (Light::Bad, format!("not known: {doubt}"));
    }
    match as_known(status, now) {
        known @ (Light::Warn | Light::Bad, _) => known,
        (_, words) => (Light::Warn, format!("{words}, but {doubt}")),
    }
}

/// Judges it by what is known, however old that is.
fn as_known(status: &Status, now: Timestamp) -> (Light, String) {
    let age_words = status.newest_good.as_ref().map_or_else(
        || "no good backup".to_owned(),
        |newest| {
            format!(
                "newest good backup is {} old",
                age(age_of(newest.started_at, now))
            )
        },
    );
    let first = status.alerts.first().or(status.warnings.first());
    if status.freshness == Freshness::Stale {
        let age_words = match status.held.len() {
            0 => age_words,
            1 => format!("{age_words}, and a backup is held"),
            held => format!("{age_words}, and {held} backups are held"),
        };
        let limit = status.max_age_seconds.map(|limit| {
            format!(
                "{age_words}; the limit is {}",
                age(i64::try_from(limit).unwrap_or(i64::MAX))
            )
        });
        return (Light::Bad, limit.unwrap_or(age_words));
    }
    if status.is_newest_held() {
        let why = first
            .cloned()
            .unwrap_or_else(|| "the newest backup is held".to_owned());
        return (Light::Bad, why);
    }
    if let Some(alert) = status.alerts.first() {
        return (Light::Warn, alert.clone());
    }
    if status.freshness == Freshness::NotJudged {
        let why = status.warnings.first().cloned();
        return (
            Light::Unknown,
            why.unwrap_or_else(|| format!("{age_words}; no `max_age` says how old it may be")),
        );
    }
    match status.warnings.first() {
        Some(warning) => (Light::Warn, warning.clone()),
        None => (Light::Good, age_words),
    }
}

/// Says whether a database could be restored now, and what that rests on.
pub(crate) fn answer(snapshot: &Snapshot, status: &Status, now: Timestamp) -> Answer {
    let checks = vec![
        good(snapshot, status, now),
        readable(snapshot, status, now),
        drilled(status, now),
        key(snapshot, status, now),
        programs(snapshot),
        recovery(snapshot, status),
    ];
    // Without a backup, a copy, or the programs there is no restore; the rest is a doubt.
    let is_out = |at: usize| checks[at].light == Light::Bad;
    let no = status.newest_good.is_none() || is_out(1) || is_out(4);
    let worst = checks
        .iter()
        .map(|check| check.light)
        .max()
        .unwrap_or(Light::Bad);
    let state_of = status
        .newest_good
        .as_ref()
        .map(|newest| age(age_of(newest.started_at, now)));
    let (light, words) = match (no, worst, state_of) {
        _ if snapshot.looked_at().is_none() => (Light::Bad, "It is not known.".to_owned()),
        (true, _, Some(_)) if snapshot.failure.is_some() => {
            (Light::Bad, "Not now: no storage answers.".to_owned())
        }
        (true, _, _) | (_, _, None) => (Light::Bad, "No.".to_owned()),
        (false, Light::Good, Some(age)) => (Light::Good, format!("Yes, as of {age} ago.")),
        (false, _, Some(age)) => {
            let doubts = checks
                .iter()
                .filter(|check| check.light > Light::Good)
                .count();
            let noun = if doubts == 1 { "doubt" } else { "doubts" };
            (
                Light::Warn,
                format!("Probably, as of {age} ago, with {doubts} {noun}."),
            )
        }
    };
    Answer {
        light,
        words,
        checks,
    }
}

fn check(light: Light, what: &'static str, words: impl Into<String>) -> Check {
    Check {
        light,
        what,
        words: words.into(),
    }
}

fn good(snapshot: &Snapshot, status: &Status, now: Timestamp) -> Check {
    let what = "A good backup";
    if snapshot.looked_at().is_none() {
        return check(Light::Bad, what, "it is not known whether there is one");
    }
    let Some(newest) = &status.newest_good else {
        return check(Light::Bad, what, "there is none");
    };
    let words = format!("the newest is {} old", age(age_of(newest.started_at, now)));
    match (status.freshness, status.max_age_seconds) {
        (Freshness::Stale, Some(limit)) => {
            let limit = age(i64::try_from(limit).unwrap_or(i64::MAX));
            check(
                Light::Warn,
                what,
                format!("{words}, which is more than the limit of {limit}"),
            )
        }
        (Freshness::NotJudged, _) => check(
            Light::Good,
            what,
            format!("{words}; nobody said how old it may be"),
        ),
        _ => check(Light::Good, what, words),
    }
}

fn readable(snapshot: &Snapshot, status: &Status, now: Timestamp) -> Check {
    let what = "Its copies";
    if snapshot.looked_at().is_none() {
        return check(Light::Bad, what, "no storage has answered yet");
    }
    let newest = status
        .newest_good
        .as_ref()
        .and_then(|newest| stored(snapshot, &newest.id));
    let Some(newest) = newest else {
        return check(Light::Bad, what, "there is none to read");
    };
    let (good, all) = copies(snapshot, &status.database, newest);
    if let Some(doubt) = snapshot.doubt(now) {
        let is_silent = snapshot.failure.is_some();
        let light = if is_silent { Light::Bad } else { Light::Warn };
        return check(
            light,
            what,
            format!("{good} of {all} storages had it whole, but {doubt}"),
        );
    }
    let words = format!("{good} of {all} storages have it whole");
    let light = match good {
        0 => Light::Bad,
        some if some < all => Light::Warn,
        _ => Light::Good,
    };
    check(light, what, words)
}

fn drilled(status: &Status, now: Timestamp) -> Check {
    let what = "A restore that was tried";
    let failed = status
        .drill
        .as_ref()
        .and_then(|drill| drill.failed.as_ref());
    if let Some(failed) = failed {
        let ago = age(age_of(failed.at, now));
        return check(
            Light::Warn,
            what,
            format!("the last drill failed {ago} ago: {}", failed.why),
        );
    }
    let passed = status.drill.as_ref().and_then(|drill| drill.passed_at);
    let is_stale = status
        .drill
        .as_ref()
        .is_some_and(|drill| drill.freshness == Freshness::Stale);
    match passed {
        Some(at) => {
            let words = format!("the last drill passed {} ago", age(age_of(at, now)));
            check(
                if is_stale { Light::Warn } else { Light::Good },
                what,
                words,
            )
        }
        None => check(Light::Warn, what, "no drill has passed yet"),
    }
}

fn key(snapshot: &Snapshot, status: &Status, now: Timestamp) -> Check {
    let what = "The key";
    let newest = status
        .newest_good
        .as_ref()
        .and_then(|newest| stored(snapshot, &newest.id));
    let Some(newest) = newest.filter(|newest| newest.is_encrypted()) else {
        return check(
            Light::Good,
            what,
            "the backup is not encrypted, so none is needed",
        );
    };
    // Recipients may have changed since; what opens an older backup proves nothing of this one.
    let noted = newest.copies.values().find_map(|copy| copy.recipients());
    let set = match noted {
        Some((_, fingerprint)) => status
            .keys
            .iter()
            .find(|set| set.fingerprint == fingerprint),
        None => status.keys.first(),
    };
    match set.and_then(|set| set.proven_at) {
        Some(at) if now.duration_since(at) <= PROOF_AGE => {
            let ago = age(age_of(at, now));
            check(
                Light::Good,
                what,
                format!("a private key was seen to open a backup {ago} ago"),
            )
        }
        Some(at) => {
            let ago = age(age_of(at, now));
            check(
                Light::Warn,
                what,
                format!(
                    "a private key was last seen to open a backup {ago} ago; `pgkeep keys prove` tries it"
                ),
            )
        }
        None => check(
            Light::Warn,
            what,
            "no private key was ever seen to open one; `pgkeep keys prove` tries it",
        ),
    }
}

fn programs(snapshot: &Snapshot) -> Check {
    let what = "Client programs";
    let missing: Vec<&str> = snapshot
        .programs
        .iter()
        .filter(|program| program.version.is_none())
        .map(|program| program.name.as_str())
        .collect();
    if snapshot.programs.is_empty() {
        return check(Light::Good, what, "not looked for on this host");
    }
    if missing.is_empty() {
        let all = snapshot.programs.iter().map(|program| {
            format!(
                "{} {}",
                program.name,
                program.version.as_deref().unwrap_or("")
            )
        });
        return check(
            Light::Good,
            what,
            format!("{} are here", all.collect::<Vec<_>>().join(", ")),
        );
    }
    check(
        Light::Bad,
        what,
        format!("missing on this host: {}", missing.join(", ")),
    )
}

fn recovery(snapshot: &Snapshot, status: &Status) -> Check {
    let what = "Recovery time";
    let name = status.database.as_str();
    let last = last_recovery(snapshot, name);
    let target = target(snapshot, name);
    match (last, target) {
        (None, _) => check(Light::Warn, what, "not measured; a drill measures it"),
        (Some(ms), Some(target)) if ms > target => check(
            Light::Warn,
            what,
            format!(
                "{} in the last drill, more than the target of {}",
                took(ms),
                took_at_most(target)
            ),
        ),
        (Some(ms), Some(target)) => check(
            Light::Good,
            what,
            format!(
                "{} in the last drill; the target is {}",
                took(ms),
                took_at_most(target)
            ),
        ),
        (Some(ms), None) => check(Light::Good, what, format!("{} in the last drill", took(ms))),
    }
}

//! What a thief with the key of a storage could do there, judged by its versions, its lock and its rights.

use super::{Line, Verdict};
use pgkeep_storage::{Answer, Lock, Protection, Versions};

/// What is known of a storage.
pub(super) struct Seen<'a> {
    /// What it says of itself.
    pub found: &'a Protection,
    /// Whether the configuration removes nothing there.
    pub is_append_only: bool,
    /// Whether it refused to remove what was just written.
    pub is_refused: bool,
}

/// Says in one line what is protected and what is not.
pub(super) fn judge(subject: &str, seen: &Seen<'_>) -> Line {
    let (verdict, message) = verdict(seen);
    let line = Line::new(subject, "protection", verdict, message);
    match verdict {
        Verdict::Warn => line.hint(
            "object lock, versions with a lifecycle, or a key without the right to delete: see the chapter on immutable \
             storages",
        ),
        _ => line,
    }
}

fn verdict(seen: &Seen<'_>) -> (Verdict, String) {
    let (versions, lock) = (seen.found.versions.known(), seen.found.lock.known());
    if let Some(Lock::Default {
        period,
        can_be_lifted,
    }) = lock
    {
        let lifted = if *can_be_lifted {
            ", unless that key may lift the lock (governance mode, or a policy that is not locked)"
        } else {
            ""
        };
        return (
            Verdict::Ok,
            format!(
                "locked for {period} from being written: a thief with this key can hide backups, not destroy them{lifted}"
            ),
        );
    }
    if lock == Some(&Lock::Policy) {
        return (
            Verdict::Ok,
            "locked by an immutability policy or a legal hold: a thief with this key can destroy nothing while it lasts"
                .to_owned(),
        );
    }
    if seen.is_refused {
        let message = match versions {
            Some(Versions::On) => {
                "this key may not delete, and the bucket keeps what is overwritten"
            }
            _ => "this key may not delete; a thief with it could still overwrite backups",
        };
        return (Verdict::Ok, message.to_owned());
    }
    match (versions, lock) {
        (Some(Versions::On), Some(Lock::NoDefault)) => (
            Verdict::Warn,
            "versions are kept and object lock is on, but without a default retention nothing is locked: whoever may \
             delete versions could delete every backup here"
                .to_owned(),
        ),
        (Some(Versions::On), _) => (
            Verdict::Ok,
            "versions are kept, so a delete only hides; whoever may delete versions could delete every backup here"
                .to_owned(),
        ),
        (Some(versions), Some(_)) => {
            let versions = match versions {
                Versions::Suspended => "versioning suspended".to_owned(),
                Versions::Restorable(period) => {
                    format!("what is removed can be brought back for {period}, and is gone then")
                }
                _ => "versioning off".to_owned(),
            };
            (Verdict::Warn, open(seen, &format!("no object lock, {versions}")))
        }
        _ => {
            let unread = [unknown(&seen.found.versions), unknown(&seen.found.lock)];
            let why = unread.into_iter().flatten().next().unwrap_or_default();
            (
                Verdict::Skipped,
                format!("versions and object lock cannot be read: {why}"),
            )
        }
    }
}

fn open(seen: &Seen<'_>, why: &str) -> String {
    if seen.is_append_only {
        // The configuration says what pgkeep does, not what the key may.
        format!("pgkeep removes nothing here; a thief with this key could, if it may delete: {why}")
    } else {
        format!("a thief with this key could delete every backup here: {why}")
    }
}

fn unknown<T>(answer: &Answer<T>) -> Option<&str> {
    match answer {
        Answer::Is(_) => None,
        Answer::Unknown(why) => Some(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_storage::Period;

    fn judged(
        versions: Answer<Versions>,
        lock: Answer<Lock>,
        is_refused: bool,
    ) -> (Verdict, String) {
        let found = Protection { versions, lock };
        let line = judge(
            "offsite",
            &Seen {
                found: &found,
                is_append_only: false,
                is_refused,
            },
        );
        (line.verdict, line.message)
    }

    #[test]
    fn what_a_thief_could_do_is_said() {
        fn unknown<T>() -> Answer<T> {
            Answer::Unknown("403 AccessDenied".to_owned())
        }
        let locked = |can_be_lifted| {
            Answer::Is(Lock::Default {
                period: Period::Days(30),
                can_be_lifted,
            })
        };
        for (versions, lock, is_refused, verdict, words) in [
            (
                Answer::Is(Versions::Off),
                Answer::Is(Lock::Off),
                false,
                Verdict::Warn,
                "versioning off",
            ),
            (
                Answer::Is(Versions::Suspended),
                Answer::Is(Lock::Off),
                false,
                Verdict::Warn,
                "versioning suspended",
            ),
            (
                Answer::Is(Versions::On),
                Answer::Is(Lock::Off),
                false,
                Verdict::Ok,
                "only hides",
            ),
            (
                Answer::Is(Versions::On),
                unknown(),
                false,
                Verdict::Ok,
                "only hides",
            ),
            (
                Answer::Is(Versions::On),
                Answer::Is(Lock::NoDefault),
                false,
                Verdict::Warn,
                "nothing is locked",
            ),
            (
                unknown(),
                locked(false),
                false,
                Verdict::Ok,
                "locked for 30 days",
            ),
            (unknown(), locked(true), false, Verdict::Ok, "governance"),
            (
                unknown(),
                Answer::Is(Lock::Policy),
                false,
                Verdict::Ok,
                "immutability policy",
            ),
            (
                Answer::Is(Versions::Restorable(Period::Days(7))),
                Answer::Is(Lock::Off),
                false,
                Verdict::Warn,
                "brought back for 7 days",
            ),
            (
                Answer::Is(Versions::Off),
                Answer::Is(Lock::Off),
                true,
                Verdict::Ok,
                "still overwrite",
            ),
            (
                Answer::Is(Versions::On),
                unknown(),
                true,
                Verdict::Ok,
                "keeps what is overwritten",
            ),
            (
                unknown(),
                unknown(),
                false,
                Verdict::Skipped,
                "cannot be read: 403 AccessDenied",
            ),
            (
                Answer::Is(Versions::Off),
                unknown(),
                false,
                Verdict::Skipped,
                "403",
            ),
        ] {
            let (found, message) = judged(versions, lock, is_refused);
            assert_eq!(found, verdict, "{message}");
            assert!(message.contains(words), "{message}");
        }
    }
}

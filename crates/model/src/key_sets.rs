//! Which private keys the backups of a database need, whether such a key has ever opened one, and what to warn of.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::encryption::Fingerprint;
use super::freshness::age;
use super::words::count;

/// How old the last proof of a key may be before it is asked for again, as for drills.
pub const PROOF_AGE: SignedDuration = SignedDuration::from_hours(35 * 24);

/// What to say of a single recipient.
pub const ONLY_ONE: &str = "only one key opens the backups: where that is lost, all of them are; add a second recipient, whose \
                            private key is kept elsewhere";

/// Longest piece of a recipient in a sentence: enough to tell it from the others.
const SHOWN_CHARS: usize = 16;

/// Most recipients in a sentence.
const SHOWN: usize = 3;

/// Backups that are encrypted for the same recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeySet {
    /// Tells these recipients from others.
    pub fingerprint: Fingerprint,
    /// The recipients; none where nothing that can be read names them.
    pub recipients: Option<Vec<String>>,
    /// How many backups are encrypted for them.
    pub backups: u64,
    /// Id of the newest of these.
    pub newest: String,
    /// When the run of the oldest of these began.
    pub since: Timestamp,
    /// When a private key was last seen to open one of these; none where never.
    pub proven_at: Option<Timestamp>,
}

/// All the sets of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySets {
    /// Those of the newest encrypted backup first.
    pub sets: Vec<KeySet>,
    /// Whether the newest good backup is not encrypted.
    pub is_newest_plain: bool,
}

impl KeySet {
    /// Tells whether some key opens the backups of both; what is not known is no shared one.
    fn shares_a_key_with(&self, other: &Self) -> bool {
        let (Some(own), Some(others)) = (&self.recipients, &other.recipients) else {
            return false;
        };
        own.iter().any(|recipient| others.contains(recipient))
    }

    /// Names the recipients, shortened.
    pub fn in_words(&self) -> String {
        let Some(recipients) = &self.recipients else {
            return format!("recipients {}", self.fingerprint);
        };
        let short = |text: &String| match text.char_indices().nth(SHOWN_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.clone(),
        };
        let mut shown: Vec<String> = recipients.iter().take(SHOWN).map(short).collect();
        let more = recipients.len().saturating_sub(SHOWN);
        shown.extend((more > 0).then(|| format!("{more} more")));
        shown.join(", ")
    }
}

/// Says what is to be warned of.
pub fn warnings(all: &KeySets, now: Timestamp) -> Vec<String> {
    let Some((newest, older)) = all.sets.split_first() else {
        return Vec::new();
    };
    if all.is_newest_plain {
        let count: u64 = all.sets.iter().map(|set| set.backups).sum();
        return vec![format!(
            "the newest backup is not encrypted, and {count} older ones are: `encryption` in the configuration encrypts \
             the next ones"
        )];
    }
    let mut warnings: Vec<String> = unproven(newest, older, now).into_iter().collect();
    if newest.recipients.as_ref().is_some_and(|all| all.len() < 2) {
        warnings.push(ONLY_ONE.to_owned());
    }
    let lost = older.iter().filter(|set| !newest.shares_a_key_with(set));
    warnings.extend(lost.map(|set| {
        format!(
            "{} still {} another key: {}; keep its private key as long",
            count(set.backups, "backup"),
            if set.backups == 1 { "needs" } else { "need" },
            set.in_words()
        )
    }));
    warnings
}

/// Says that somebody should be told: for long no key was seen to open what is stored, or ever.
pub fn alert(all: &KeySets, now: Timestamp) -> Option<String> {
    let (newest, older) = all.sets.split_first().filter(|_| !all.is_newest_plain)?;
    let last = newest.proven_at.unwrap_or(newest.since);
    (now.duration_since(last) > PROOF_AGE)
        .then(|| unproven(newest, older, now))
        .flatten()
}

fn unproven(newest: &KeySet, older: &[KeySet], now: Timestamp) -> Option<String> {
    const NEXT: &str =
        "`pgkeep keys prove --identity FILE`, where the private key is, shows that one does";
    let Some(proven_at) = newest.proven_at else {
        let is_changed = older.iter().any(|set| set.proven_at.is_some());
        let changed = if is_changed {
            "the recipients have changed, and "
        } else {
            ""
        };
        return Some(format!(
            "{changed}no key has ever opened a backup for {}: {NEXT}",
            newest.in_words()
        ));
    };
    let old = now.duration_since(proven_at);
    (old > PROOF_AGE).then(|| {
        format!(
            "no key has opened a backup for {}: {NEXT}",
            age(old.as_secs())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(recipients: &[&str], backups: u64, proven_at: Option<&str>) -> KeySet {
        let recipients: Vec<String> = recipients.iter().map(|one| (*one).to_owned()).collect();
        KeySet {
            fingerprint: Fingerprint::of(&recipients),
            recipients: Some(recipients),
            backups,
            newest: "shop-20260102T030405Z-7f3a".to_owned(),
            since: "2026-02-10T00:00:00Z".parse().unwrap(),
            proven_at: proven_at.map(|at| at.parse().unwrap()),
        }
    }

    fn of<const N: usize>(sets: [KeySet; N]) -> KeySets {
        KeySets {
            sets: sets.into(),
            is_newest_plain: false,
        }
    }

    #[test]
    fn plain_backups_behind_encrypted_ones_are_told() {
        let mut all = of([set(&["age1a"], 3, None)]);
        all.is_newest_plain = true;
        let told = warnings(&all, now());
        assert!(
            told.len() == 1 && told[0].contains("is not encrypted, and 3 older"),
            "{told:?}"
        );
        assert_eq!(alert(&all, "2027-01-01T00:00:00Z".parse().unwrap()), None);
    }

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_key_that_was_never_used_is_warned_of_until_it_is() {
        let never = warnings(&of([set(&["age1a", "age1b"], 3, None)]), now());
        assert!(
            never.len() == 1 && never[0].starts_with("no key has ever opened"),
            "{never:?}"
        );
        assert!(never[0].contains("age1a, age1b"), "{never:?}");
        let lately = set(&["age1a", "age1b"], 3, Some("2026-02-20T00:00:00Z"));
        assert_eq!(warnings(&of([lately.clone()]), now()), [""; 0]);
        let long_ago = set(&["age1a", "age1b"], 3, Some("2026-01-20T00:00:00Z"));
        assert!(warnings(&of([long_ago]), now())[0].contains("for 40 d"));
        assert_eq!(warnings(&of([]), now()), [""; 0]);
        // After a change nobody knows whether the new keys open anything.
        let changed = warnings(&of([set(&["age1c", "age1d"], 1, None), lately]), now());
        assert!(
            changed[0].starts_with("the recipients have changed"),
            "{changed:?}"
        );
        assert!(
            changed[1].starts_with("3 backups still need another key: age1a"),
            "{changed:?}"
        );
        // Whoever has the key that stayed opens both.
        let stayed = set(&["age1a", "age1d"], 1, Some("2026-02-20T00:00:00Z"));
        let before = set(&["age1a", "age1b"], 3, None);
        assert_eq!(warnings(&of([stayed, before]), now()), [""; 0]);
    }

    #[test]
    fn somebody_is_told_when_no_key_was_tried_for_long() {
        let later: Timestamp = "2026-04-01T00:00:00Z".parse().unwrap();
        let never = of([set(&["age1a", "age1b"], 3, None)]);
        assert_eq!(alert(&never, now()), None);
        assert_eq!(
            alert(&never, later).as_ref(),
            warnings(&never, later).first()
        );
        let tried = of([set(&["age1a"], 3, Some("2026-03-20T00:00:00Z"))]);
        assert_eq!(alert(&tried, later), None);
        let long_ago = of([set(&["age1a"], 3, Some("2026-02-20T00:00:00Z"))]);
        assert!(alert(&long_ago, later).is_some());
        assert_eq!(alert(&of([]), later), None);
    }

    #[test]
    fn a_single_key_is_warned_of() {
        let one = warnings(
            &of([set(&["age1a"], 1, Some("2026-02-20T00:00:00Z"))]),
            now(),
        );
        assert!(one.len() == 1 && one[0].contains("only one key"), "{one:?}");
    }
}

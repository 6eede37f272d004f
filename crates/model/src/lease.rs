//! The lease on a database in one storage: its text, and what a reader may make of one that it finds.
//!
//! A lease is judged by whether it changes, never by the times in it: clocks of two hosts need not agree, and nobody
//! who can be seen to live loses his. What stands in a lease was written by anybody, so its texts are cut and cleaned.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::id::BackupId;
use super::name::printable;
use super::origin::Origin;

/// Format of the lease's JSON.
const FORMAT: u32 = 1;

/// How long a lease lives after its last sign of life.
pub const TTL: Duration = Duration::from_secs(60);

/// A lease is renewed so often while it lives: two renewals may fail before anybody may take it.
pub const RENEWALS_PER_TTL: u32 = 3;

/// Longest life that a lease may claim for itself: what it says was written by anybody.
const MAX_TTL: Duration = Duration::from_secs(600);

/// Largest lease that is read; a real one has some 400 bytes.
pub const MAX_LEASE_BYTES: u64 = 16 * 1024;

/// Longest text of a lease that is passed on, in characters.
const MAX_TEXT: usize = 120;

/// A lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Version of this format.
    pub format: u32,
    /// Random; who knows it is the run that holds the lease.
    pub holder: String,
    /// Random identity of the lock folder that the holder uses on its host.
    pub host: String,
    /// Name of the lock that the holder has on its host.
    pub lock: String,
    /// The host's own name.
    pub host_name: String,
    /// The holder's process.
    pub pid: u32,
    /// What it does.
    pub verb: String,
    /// When it took the lease, by its own clock: for people only.
    pub taken_at: Timestamp,
    /// When it last gave a sign of life, by its own clock: for people only.
    pub renewed_at: Timestamp,
    /// Counts the holders since the object was made.
    pub generation: u64,
    /// Signs of life so far, so that no two texts of a lease are equal.
    pub renewals: u64,
    /// How long the lease lives after a sign of life.
    pub ttl_ms: u64,
    /// The run's id, where its caller knew it before.
    #[serde(
        default,
        deserialize_with = "if_good",
        skip_serializing_if = "Option::is_none"
    )]
    pub run: Option<BackupId>,
    /// The slot of a schedule that it is for.
    #[serde(
        default,
        deserialize_with = "if_good",
        skip_serializing_if = "Option::is_none"
    )]
    pub slot: Option<Timestamp>,
    /// Why it runs.
    #[serde(
        default,
        deserialize_with = "if_good",
        skip_serializing_if = "Option::is_none"
    )]
    pub trigger: Option<String>,
    /// The name of the token that started it.
    #[serde(
        default,
        deserialize_with = "if_good",
        skip_serializing_if = "Option::is_none"
    )]
    pub by: Option<String>,
    /// What the client called its request.
    #[serde(
        default,
        deserialize_with = "if_good",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_key: Option<String>,
    /// Set where the holder gave the lease back but may not remove objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Timestamp>,
}

/// Reads what a lease can do without: a bad value of it is none.
fn if_good<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: serde::de::DeserializeOwned,
    D: serde::Deserializer<'de>,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// Tells that stored bytes are no lease of a known format.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// Not the JSON of a lease.
    #[error("it is not a lease: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer pgkeep.
    #[error("its format is {0}, and this pgkeep knows {FORMAT}")]
    Newer(u32),
}

/// Who asks for a lease, as far as a lease can tell it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Random; this run's own.
    pub holder: String,
    /// Identity of this host's lock folder.
    pub host: String,
    /// Name of the lock that this run has on this host.
    pub lock: String,
    /// This host's own name.
    pub host_name: String,
    /// This process.
    pub pid: u32,
    /// What it does.
    pub verb: String,
    /// How long a lease of this run lives after a sign of life.
    pub ttl: Duration,
    /// Where it comes from.
    pub origin: Origin,
}

/// What a reader has seen of a lease, by its own monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Whether it changed while it was watched.
    pub has_changed: bool,
    /// For how long it has been the same.
    pub unchanged_for: Duration,
}

/// What a reader may do about a lease that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is this run's own.
    Own,
    /// Nobody holds it any more.
    TakeOver(Why),
    /// Its holder lives.
    Busy,
    /// It is not known yet; it is dead if it stays the same for so long.
    Wait(Duration),
}

/// Why a lease may be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its holder gave it back.
    Released,
    /// Its holder was a run of this host, and the lock that died with it is ours.
    DeadHere,
    /// It gave no sign of life for as long as it lives.
    Expired,
}

/// Decides about a lease that is there; `lease` is none where its text could not be read.
///
/// The caller holds the lock of its own host that `us` names. Only that makes [`Why::DeadHere`] true, and only for a
/// holder that had the very same lock: the same folder, on a host of the same name, for the same storage.
pub fn decide(lease: Option<&Lease>, us: &Claim, watched: Watched) -> Decision {
    if let Some(lease) = lease {
        if lease.holder == us.holder {
            return Decision::Own;
        }
        if lease.released_at.is_some() {
            return Decision::TakeOver(Why::Released);
        }
        if lease.host == us.host && lease.lock == us.lock && lease.host_name == us.host_name {
            return Decision::TakeOver(Why::DeadHere);
        }
    }
    // An unreadable lease may be a newer pgkeep's, which lives by rules that nobody here knows but the limit.
    let ttl = lease.map_or(us.ttl.max(TTL), |lease| lease.ttl().max(us.ttl));
    if watched.unchanged_for >= ttl {
        Decision::TakeOver(Why::Expired)
    } else if watched.has_changed {
        Decision::Busy
    } else {
        Decision::Wait(ttl - watched.unchanged_for)
    }
}

impl Lease {
    /// Makes the lease that `claim` asks for, with its holder's number.
    pub fn new(claim: &Claim, generation: u64, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            holder: claim.holder.clone(),
            host: claim.host.clone(),
            lock: claim.lock.clone(),
            host_name: claim.host_name.clone(),
            pid: claim.pid,
            verb: claim.verb.clone(),
            taken_at: now,
            renewed_at: now,
            generation,
            renewals: 0,
            ttl_ms: u64::try_from(claim.ttl.as_millis()).unwrap_or(u64::MAX),
            run: claim.origin.run.clone(),
            slot: claim.origin.slot,
            trigger: claim.origin.trigger().map(str::to_owned),
            by: claim.origin.by.clone(),
            request_key: claim.origin.request_key.clone(),
            released_at: None,
        }
    }

    /// Reads stored bytes; unknown fields are left alone.
    pub fn read(bytes: &[u8]) -> Result<Self, LeaseError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        // A newer format need not have the fields of this one.
        let Format { format } = serde_json::from_slice(bytes)?;
        if format > FORMAT {
            return Err(LeaseError::Newer(format));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Renders the lease for storage.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a lease holds only JSON's own types")
    }

    /// Gives a sign of life.
    pub fn renew(&mut self, now: Timestamp) {
        self.renewed_at = now;
        self.renewals += 1;
    }

    /// Returns how long it lives after a sign of life.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms).min(MAX_TTL)
    }
}

/// Says who holds it: `` `backup` in process 4711 on `db1` since 2026-01-02T03:04:05Z ``.
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, host) = (shown(&self.verb), shown(&self.host_name));
        let since = whole_seconds(self.taken_at);
        write!(
            f,
            "`{verb}` in process {} on `{host}` since {since}",
            self.pid
        )
    }
}

/// Cuts a moment to whole seconds, which is what people want to read.
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Cleans and cuts a text that anybody may have written.
pub fn shown(text: &str) -> String {
    printable(text).chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(holder: &str, host: &str) -> Claim {
        Claim {
            holder: holder.to_owned(),
            host: host.to_owned(),
            lock: "shop-in-s3".to_owned(),
            host_name: "db1".to_owned(),
            pid: 4711,
            verb: "backup".to_owned(),
            ttl: TTL,
            origin: Origin::default(),
        }
    }

    fn lease(holder: &str, host: &str) -> Lease {
        let now = "2026-01-02T03:04:05.6Z".parse().unwrap();
        Lease::new(&claim(holder, host), 1, now)
    }

    fn watched(has_changed: bool, seconds: u64) -> Watched {
        Watched {
            has_changed,
            unchanged_for: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn who_may_do_what() {
        let us = claim("us", "here");
        let far = lease("them", "there");
        let wait = |seconds| Decision::Wait(Duration::from_secs(seconds));
        let changed = |change: fn(&mut Lease)| {
            let mut lease = lease("them", "here");
            change(&mut lease);
            lease
        };
        let released = changed(|lease| lease.released_at = Some(lease.taken_at));
        let slow = changed(|lease| (lease.host, lease.ttl_ms) = (String::new(), 90_000));
        let endless = changed(|lease| (lease.host, lease.ttl_ms) = (String::new(), u64::MAX));
        let cases = [
            (
                "our own",
                Some(lease("us", "there")),
                watched(true, 0),
                Decision::Own,
            ),
            (
                "given back",
                Some(released),
                watched(true, 0),
                Decision::TakeOver(Why::Released),
            ),
            (
                "dead here",
                Some(lease("them", "here")),
                watched(false, 0),
                Decision::TakeOver(Why::DeadHere),
            ),
            (
                "other lock",
                Some(changed(|lease| lease.lock.push('x'))),
                watched(false, 0),
                wait(60),
            ),
            (
                "a folder on two hosts",
                Some(changed(|lease| lease.host_name.push('2'))),
                watched(false, 0),
                wait(60),
            ),
            (
                "first sight",
                Some(far.clone()),
                watched(false, 0),
                wait(60),
            ),
            (
                "nearly dead",
                Some(far.clone()),
                watched(false, 59),
                wait(1),
            ),
            (
                "dead",
                Some(far.clone()),
                watched(false, 60),
                Decision::TakeOver(Why::Expired),
            ),
            (
                "alive",
                Some(far.clone()),
                watched(true, 59),
                Decision::Busy,
            ),
            (
                "died while watched",
                Some(far),
                watched(true, 60),
                Decision::TakeOver(Why::Expired),
            ),
            ("lives longer", Some(slow), watched(false, 60), wait(30)),
            (
                "claims to live for ever",
                Some(endless),
                watched(false, 600),
                Decision::TakeOver(Why::Expired),
            ),
            ("unreadable", None, watched(false, 10), wait(50)),
            (
                "unreadable and alive",
                None,
                watched(true, 10),
                Decision::Busy,
            ),
        ];
        for (what, lease, watched, decision) in cases {
            assert_eq!(decide(lease.as_ref(), &us, watched), decision, "{what}");
        }
    }

    #[test]
    fn reads_back_and_forgives_more_but_not_less() {
        let mut lease = lease("them", "there");
        let first = lease.to_json();
        assert_eq!(Lease::read(&first).unwrap(), lease);
        lease.renew(lease.taken_at);
        assert_ne!(lease.to_json(), first, "even within one tick of the clock");
        let text = String::from_utf8(first).unwrap();
        let more = text.replacen('{', r#"{"from_the_future":[1],"#, 1);
        assert_eq!(Lease::read(more.as_bytes()).unwrap().holder, "them");
        let badly = text.replacen(
            '{',
            r#"{"run":7,"slot":"soon","by":["x"],"request_key":1,"#,
            1,
        );
        let odd = Lease::read(badly.as_bytes()).unwrap();
        assert_eq!((odd.run, odd.slot, odd.by), (None, None, None));
        assert_eq!(odd.request_key, None);
        assert!(matches!(
            Lease::read(br#"{"format":2}"#),
            Err(LeaseError::Newer(2))
        ));
        for bad in ["", "{}", "[]", "null", &text[..40], r#"{"format":1}"#] {
            assert!(
                matches!(Lease::read(bad.as_bytes()), Err(LeaseError::Malformed(_))),
                "{bad}"
            );
        }
        assert!((text.len() as u64) < MAX_LEASE_BYTES / 8);
    }

    #[test]
    fn foreign_text_moves_no_cursor() {
        let mut lease = lease("them", "there");
        lease.host_name = format!("db\u{1b}[2J{}", "x".repeat(500));
        let text = lease.to_string();
        assert!(
            text.starts_with("`backup` in process 4711 on `db\\u{1b}[2Jx"),
            "{text}"
        );
        assert!(
            text.ends_with("` since 2026-01-02T03:04:05Z") && text.len() < 250,
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn a_living_lease_of_another_host_is_never_taken(ttl_ms in 0u64..700_000, watched_ms in 0u64..700_000, has_changed: bool) {
            let mut theirs = lease("them", "there");
            theirs.ttl_ms = ttl_ms;
            let unchanged_for = Duration::from_millis(watched_ms);
            let decision = decide(Some(&theirs), &claim("us", "here"), Watched { has_changed, unchanged_for });
            let promised = Duration::from_millis(ttl_ms).min(MAX_TTL);
            if unchanged_for < promised {
                prop_assert!(!matches!(decision, Decision::TakeOver(_)), "{decision:?}");
            }
            if let Decision::Wait(more) = decision {
                let then = Watched { has_changed: false, unchanged_for: unchanged_for + more };
                let end = decide(Some(&theirs), &claim("us", "here"), then);
                prop_assert_eq!(end, Decision::TakeOver(Why::Expired), "waiting comes to an end");
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Lease::read(&bytes);
        }
    }
}

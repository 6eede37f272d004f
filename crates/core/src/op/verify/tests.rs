//! Which backups are read, and what is said of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::clock::SystemClock;
use crate::lock::StateFolder;
use crate::op::event::Silent;
use crate::op::lock::Leases;
use pgkeep_storage::{Error, Memory, Storage, Verb};

/// Rolls one number after another.
#[derive(Default)]
struct Dice(AtomicU16);

impl Clock for Dice {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn suffix(&self) -> u16 {
        let roll = self.0.fetch_add(1, Ordering::Relaxed);
        roll.wrapping_mul(roll).wrapping_mul(40_503).rotate_left(9)
    }
}

const IDS: [&str; 4] = [
    "blog-20260101T000000Z-0001",
    "shop-20260102T000000Z-0002",
    "shop-20260103T000000Z-0003",
    "shop-20260104T000000Z-0004",
];

async fn listing() -> Listing {
    let memory = Memory::new();
    for id in IDS {
        let database = id.split('-').next().unwrap();
        for end in ["sql.gz", "manifest.json"] {
            memory
                .put(&format!("{database}/{id}.{end}"), "x".into())
                .await
                .unwrap();
        }
    }
    let named = NamedStorage {
        name: "here".to_owned(),
        storage: Arc::new(memory),
        identities: Arc::default(),
    };
    let now = "2026-01-05T00:00:00Z".parse().unwrap();
    Listing::read(vec![named], None, now).await.unwrap()
}

fn copy(id: &str, is_ok: bool) -> CopyReport {
    CopyReport {
        id: id.to_owned(),
        database: id.split('-').next().unwrap().to_owned(),
        storage: "here".to_owned(),
        url: "memory".to_owned(),
        ok: is_ok,
        damaged: !is_ok,
        marked: !is_ok,
        removed: false,
        opened: is_ok,
        locked: None,
        bytes: 0,
        tables: 0,
        rows: 0,
        took_ms: 0,
        problems: if is_ok {
            Vec::new()
        } else {
            vec![Problem::new("x", "it is odd")]
        },
        warnings: Vec::new(),
        failure: None,
    }
}

#[tokio::test]
async fn a_sample_always_holds_the_newest_of_each_database() {
    let listing = listing().await;
    let dice = Dice::default();
    for count in [1, 2, 3, 50] {
        let chosen = choose(&listing, &Which::Sample(count), &dice).unwrap();
        let ids: Vec<String> = chosen
            .iter()
            .map(|backup| backup.place.id.to_string())
            .collect();
        assert_eq!(ids.len(), 2 + count.min(2));
        assert!(
            ids[0] == IDS[3] && ids.contains(&IDS[0].to_owned()),
            "{ids:?}"
        );
    }
    assert_eq!(choose(&listing, &Which::All, &dice).unwrap().len(), 4);
}

#[tokio::test]
async fn each_backup_comes_up_some_time() {
    let (listing, dice) = (listing().await, Dice::default());
    let drawn: BTreeSet<String> = (0..50)
        .flat_map(|_| choose(&listing, &Which::Sample(1), &dice).unwrap())
        .map(|backup| backup.place.id.to_string())
        .collect();
    assert_eq!(drawn.len(), 4);
}

#[tokio::test]
async fn damage_goes_first_and_names_the_newest_good_backup() {
    let listing = listing().await;
    let mut unread = copy(IDS[2], true);
    (unread.ok, unread.failure) = (
        false,
        Some(Failure::new(Kind::Storage, "storage_failed", "it is away")),
    );
    let failure = judge(
        &listing,
        &[unread.clone(), copy(IDS[3], false), copy(IDS[1], true)],
    )
    .unwrap();
    assert_eq!(failure.kind, Kind::Damaged);
    assert!(failure.message.ends_with("is damaged"), "{failure}");
    // It was not read, but nobody knows anything against it.
    assert!(
        failure.hints[0].contains(IDS[2]) && failure.hints[0].contains("pgkeep verify"),
        "{failure}"
    );
    let all: Vec<_> = [copy(IDS[3], false), copy(IDS[2], false), copy(IDS[1], true)].into();
    let failure = judge(&listing, &all).unwrap();
    assert!(
        failure.message.starts_with("2 of 3 copies are damaged"),
        "{failure}"
    );
    assert!(
        failure.hints[0].contains(IDS[1]) && failure.hints[0].contains("proven just now"),
        "{failure}"
    );
    let failure = judge(&listing, &[copy(IDS[0], false)]).unwrap();
    assert!(
        failure.hints[0].contains("no good backup of `blog` is left"),
        "{failure}"
    );
    assert_eq!(judge(&listing, &[unread]).unwrap().kind, Kind::Storage);
    assert!(judge(&listing, &[copy(IDS[3], true)]).is_none());
}

#[test]
fn places_read_well() {
    let mut problem = Problem::new("stream_damaged", "a chunk is damaged");
    assert_eq!(place_in_words(&problem), "a chunk is damaged");
    (problem.stored_offset, problem.dump_offset) = (Some(10), Some(0));
    problem.table = Some("public.t".to_owned());
    assert_eq!(
        place_in_words(&problem),
        "a chunk is damaged (from byte 10 of the stored file on, byte 0 of the dump, in the rows of `public.t`)"
    );
}

/// Takes the lease away behind the first copy. Leases are in a storage of their own, which answers at any time.
struct Thief {
    leases: Memory,
    backups: Memory,
}

const LEASE: &str = "shop/verify.lease.json";

impl Observer for Thief {
    fn note(&self, event: Event<'_>) {
        if matches!(event, Event::Verified(_)) {
            let theirs = r#"{"format":2,"holder":"another"}"#;
            self.backups.heal(Verb::Get);
            self.leases.set(LEASE, theirs, Timestamp::now());
        }
    }
}

#[tokio::test]
async fn a_verification_that_loses_its_lease_ends() {
    let (memory, leases) = (Memory::new(), Memory::new());
    let named = |name: &str, storage: &Memory| NamedStorage {
        name: name.to_owned(),
        storage: Arc::new(storage.clone()),
        identities: Arc::default(),
    };
    for end in ["sql.gz", "manifest.json"] {
        let key = format!("shop/{}.{end}", IDS[3]);
        memory.put(&key, "x".into()).await.unwrap();
    }
    let state = tempfile::tempdir().unwrap();
    let request = || Request {
        storages: vec![named("here", &memory)],
        database: Some("shop".parse().unwrap()),
        which: Which::All,
        origin: Origin::default(),
        lock: Some(LockSettings {
            folders: vec![StateFolder {
                path: state.path().to_owned(),
                is_shared: false,
            }],
            ttl: Duration::from_secs(60),
            wait: Duration::ZERO,
            leases: Leases::In(named("locks", &leases)),
        }),
    };
    let context = Context::new(Arc::new(SystemClock));
    let thief = Thief {
        leases: leases.clone(),
        backups: memory.clone(),
    };
    memory.fail(Verb::Get, || Error::failed("it is away"));
    let undisturbed = run(request(), &context, &Silent).await.unwrap();
    assert_eq!(undisturbed.failure.unwrap().kind, Kind::Storage);
    let failure = run(request(), &context, &thief).await.unwrap_err();
    assert_eq!((failure.kind, failure.id), (Kind::Busy, "lock_lost"));
    assert!(!context.stop.is_requested(), "the process goes on");
    // Damage that was found is certain.
    leases.remove(LEASE).await.unwrap();
    let damaged = run(request(), &context, &thief).await.unwrap();
    assert_eq!(damaged.failure.unwrap().id, "backup_damaged");
}

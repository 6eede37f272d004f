//! Runs of several hosts over storages in memory, on a clock that tests move.

use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;
use pgkeep_model::lease::TTL;
use pgkeep_storage::{Error, Memory, Storage, Verb};

const KEY: &str = "shop/lease.json";

/// A host with lock folder, and one process on it.
struct Host {
    state: TempDir,
    context: Context,
    settings: LockSettings,
    said: Mutex<Vec<String>>,
}

impl Host {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        Self {
            context: Context::new(Arc::new(SystemClock)),
            settings: LockSettings {
                folders: vec![state_folder(state.path())],
                ttl: TTL,
                wait: Duration::ZERO,
                leases: Leases::Each,
            },
            said: Mutex::default(),
            state,
        }
    }

    fn waiting(mut self, wait: Duration) -> Self {
        self.settings.wait = wait;
        self
    }

    async fn acquire<const N: usize>(&self, storages: [&Memory; N]) -> Result<Hold> {
        let database = "shop".parse().unwrap();
        let storages: Vec<NamedStorage> = (1..)
            .zip(storages)
            .map(|(number, memory)| NamedStorage {
                identities: Arc::default(),
                name: format!("m{number}"),
                storage: Arc::new(memory.clone()),
            })
            .collect();
        let request = LockRequest {
            database: &database,
            storages: &storages,
            verb: "backup",
            leased: Leased::Backups,
            origin: &Origin::default(),
            safe: "nothing was stored",
            settings: &self.settings,
            on_wait: &|text| self.said.lock().unwrap().push(text.to_owned()),
        };
        acquire(&request, &self.context).await
    }

    /// Acquires, and returns how long that took on the clock of the tests.
    async fn timed<const N: usize>(&self, storages: [&Memory; N]) -> (Result<Hold>, Duration) {
        let started = Instant::now();
        (self.acquire(storages).await, started.elapsed())
    }

    async fn hold<const N: usize>(&self, storages: [&Memory; N]) -> Hold {
        self.acquire(storages).await.unwrap()
    }
}

fn state_folder(path: &Path) -> StateFolder {
    StateFolder {
        path: path.to_owned(),
        is_shared: false,
    }
}

async fn lease(memory: &Memory) -> Lease {
    let (bytes, _) = memory.get_versioned(KEY, 10_000).await.unwrap();
    Lease::read(&bytes).unwrap()
}

/// Writes somebody else's lease over whatever is there.
fn overwrite(memory: &Memory) -> Lease {
    let stranger = Claim {
        holder: "stranger".to_owned(),
        host: "elsewhere".to_owned(),
        lock: "other".to_owned(),
        host_name: "db9".to_owned(),
        pid: 99,
        verb: "prune".to_owned(),
        ttl: TTL,
        origin: Origin::default(),
    };
    let lease = Lease::new(&stranger, 7, Timestamp::now());
    memory.set(KEY, lease.to_json(), Timestamp::now());
    lease
}

fn ids(warnings: &[Finding]) -> Vec<&str> {
    warnings.iter().map(|warning| warning.id.as_str()).collect()
}

#[track_caller]
fn refused(taken: Result<Hold>) -> Failure {
    taken.err().expect("somebody else has the lock")
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time_on_a_host() {
    let (host, memory, other) = (Host::new(), Memory::new(), Memory::new());
    let hold = host.hold([&memory]).await;
    assert!(hold.is_leased(0) && hold.warnings.is_empty());
    let (second, took) = host.timed([&other, &memory]).await;
    let failure = refused(second);
    assert_eq!(
        (failure.kind, failure.id, took),
        (Kind::Busy, "busy", Duration::ZERO)
    );
    let us = format!(
        "`backup` in process {} on this host since 2",
        std::process::id()
    );
    assert!(failure.message.contains(&us), "{}", failure.message);
    assert!(
        failure.message.ends_with("; nothing was stored"),
        "{}",
        failure.message
    );
    // Other storages are another matter.
    host.hold([&other]).await.release().await;
    hold.release().await;
    assert_eq!(memory.keys().concat() + &other.keys().concat(), "");
    host.hold([&memory]).await.release().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_this_host_gets_its_turn() {
    let (first, memory) = (Host::new(), Memory::new());
    let hold = first.hold([&memory]).await;
    let mut second = Host::new().waiting(Duration::from_secs(600));
    second.settings.folders = vec![state_folder(first.state.path())];
    let give_back = async {
        sleep(Duration::from_secs(400)).await;
        hold.release().await
    };
    let (taken, left) = tokio::join!(second.acquire([&memory]), give_back);
    assert!(taken.is_ok() && left.is_empty());
    let said = second.said.lock().unwrap();
    assert!(
        said.len() == 1 && said[0].starts_with("waiting for another run: `backup`"),
        "{said:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time_on_two_hosts() {
    let (first, second, memory) = (Host::new(), Host::new(), Memory::new());
    let hold = first.hold([&memory]).await;
    for _ in 0..3 {
        // However long it runs: the lease is alive.
        sleep(Duration::from_secs(1000)).await;
        let (taken, took) = second.timed([&memory]).await;
        let failure = refused(taken);
        assert_eq!((failure.kind, failure.id), (Kind::Busy, "busy"));
        assert!(
            failure.message.contains("says its lease in `m1`"),
            "{}",
            failure.message
        );
        assert!(took < TTL, "{took:?}: a renewal is a sign of life");
        hold.fence(0).await.unwrap();
    }
    assert!(!hold.lost().is_cancelled());
    hold.release().await;
    assert_eq!(memory.keys(), [""; 0]);
    let (taken, took) = second.timed([&memory]).await;
    assert_eq!((taken.is_ok(), took), (true, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_another_host_gets_its_turn() {
    let (first, memory) = (Host::new(), Memory::new());
    let second = Host::new().waiting(Duration::from_secs(600));
    let hold = first.hold([&memory]).await;
    let give_back = async {
        sleep(Duration::from_secs(400)).await;
        hold.release().await
    };
    let (taken, _) = tokio::join!(second.acquire([&memory]), give_back);
    assert!(taken.unwrap().warnings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dead_run_of_this_host_is_followed_at_once() {
    let (host, memory) = (Host::new(), Memory::new());
    drop(host.hold([&memory]).await);
    assert_eq!(memory.keys(), [KEY], "nobody gave it back");
    let (taken, took) = host.timed([&memory]).await;
    let hold = taken.unwrap();
    assert_eq!((took, ids(&hold.warnings)), (Duration::ZERO, vec![]));
    assert_eq!(lease(&memory).await.generation, 2);
    hold.release().await;
    let keys = memory.keys();
    assert!(
        keys.len() == 1 && keys[0].starts_with("shop/runs/"),
        "its record alone: {keys:?}"
    );
}

/// Whoever takes the leases of a dead run over leaves its record, one in each storage, under one id. A run that gave its
/// lease back is none.
#[tokio::test(start_paused = true)]
async fn a_dead_run_has_a_record_in_each_storage() {
    let (host, one, other) = (Host::new(), Memory::new(), Memory::new());
    drop(host.hold([&one, &other]).await);
    for _ in 0..2 {
        host.hold([&one, &other]).await.release().await;
    }
    let keys = one.keys();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(keys, other.keys());
    let bytes = one.get(&keys[0], 10_000).await.unwrap();
    let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(record["failure_id"], "run_interrupted");
    assert_eq!(
        (&record["verb"], &record["exit_code"]),
        (&"backup".into(), &137.into())
    );
}

#[tokio::test(start_paused = true)]
async fn dead_runs_of_another_host_are_followed_after_one_life() {
    let (first, second) = (Host::new(), Host::new());
    let (one, two) = (Memory::new(), Memory::new());
    drop(first.hold([&one, &two]).await);
    let (taken, took) = second.timed([&two, &one]).await;
    let hold = taken.unwrap();
    assert!(took >= TTL && took < TTL * 3 / 2, "{took:?}: both at once");
    assert_eq!(ids(&hold.warnings), ["lease_taken_over"; 2]);
    hold.fence(0).await.unwrap();
    hold.fence(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_read_is_somebodys() {
    for bytes in ["", "garbage", r#"{"format":2}"#] {
        let (host, memory) = (Host::new(), Memory::new());
        memory.set(KEY, bytes, Timestamp::now());
        let (taken, took) = host.timed([&memory]).await;
        assert!(taken.is_ok() && took >= TTL, "{bytes}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_that_see_a_dead_lease_one_wins() {
    let memory = Memory::new();
    drop(Host::new().hold([&memory]).await);
    let hosts: Vec<Host> = (0..8).map(|_| Host::new()).collect();
    let taken = join_all(hosts.iter().map(|host| host.acquire([&memory]))).await;
    let (held, busy): (Vec<_>, Vec<_>) = taken.into_iter().partition(|taken| taken.is_ok());
    assert_eq!((held.len(), busy.len()), (1, 7));
    for failure in busy.into_iter().map(refused) {
        assert_eq!(failure.id, "busy");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_run_took_is_lost() {
    for is_removed in [false, true] {
        let (host, memory) = (Host::new(), Memory::new());
        let hold = host.hold([&memory]).await;
        let theirs = overwrite(&memory);
        if is_removed {
            memory.remove(KEY).await.unwrap();
        }
        let failure = hold.fence(0).await.unwrap_err();
        assert_eq!((failure.kind, failure.id), (Kind::Busy, "lock_lost"));
        let who = if is_removed {
            "another program removed the lease".to_owned()
        } else {
            theirs.to_string()
        };
        assert!(failure.message.contains(&who), "{}", failure.message);
        assert!(hold.lost().is_cancelled() && hold.ended().is_cancelled());
        assert!(!host.context.stop.is_requested());
        assert_eq!(hold.fence(0).await.unwrap_err().id, "lock_lost", "for good");
        assert!(hold.release().await.is_empty());
        if !is_removed {
            assert_eq!(lease(&memory).await, theirs, "it is not ours to take away");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_found_out_without_asking() {
    let (host, one, two) = (Host::new(), Memory::new(), Memory::new());
    let hold = host.hold([&one, &two]).await;
    overwrite(&two);
    tokio::time::timeout(TTL, hold.lost().cancelled())
        .await
        .unwrap();
    // One lost is all lost.
    assert_eq!(hold.fence(0).await.unwrap_err().id, "lock_lost");
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_is_away_for_a_while_has_lost_nothing() {
    let (host, memory) = (Host::new(), Memory::new());
    let hold = host.hold([&memory]).await;
    memory.fail(Verb::Replace, || Error::failed("unreachable"));
    sleep(TTL * 3).await;
    let failure = hold.fence(0).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.id),
        (Kind::Storage, "storage_failed")
    );
    assert!(!hold.lost().is_cancelled());
    memory.heal(Verb::Replace);
    hold.fence(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_got_lost_is_no_loss() {
    let (host, memory) = (Host::new(), Memory::new());
    let hold = host.hold([&memory]).await;
    // A renewal of ours that was written, and of which we never heard.
    let mut ours = lease(&memory).await;
    ours.renew(Timestamp::now());
    memory.set(KEY, ours.to_json(), Timestamp::now());
    hold.fence(0).await.unwrap();
    assert!(lease(&memory).await.renewals > ours.renewals);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_ignores_conditions_keeps_this_host_apart_only() {
    let (host, memory) = (Host::new(), Memory::new());
    memory.ignore_conditions();
    let hold = host.hold([&memory]).await;
    assert_eq!(ids(&hold.warnings), ["lease_not_exclusive"]);
    let text = &hold.warnings[0].message;
    assert!(
        text.ends_with("only runs on this host wait for each other"),
        "{text}"
    );
    assert!(!hold.is_leased(0));
    hold.fence(0).await.unwrap();
    assert_eq!(memory.keys(), [""; 0], "a lease without effect is none");
    assert_eq!(refused(host.acquire([&memory]).await).id, "busy");
    assert!(hold.release().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_storage_without_conditions_is_said_to_be_one() {
    for verb in [Verb::Create, Verb::Replace] {
        let (host, memory) = (Host::new(), Memory::new());
        memory.fail(verb, || Error::Unconditional("it answers 501".to_owned()));
        let hold = host.hold([&memory]).await;
        assert_eq!(ids(&hold.warnings), ["lease_not_exclusive"], "{verb:?}");
        assert_eq!(memory.keys(), [""; 0], "{verb:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_forbids_overwriting_holds_no_lease_and_stops_no_run() {
    let (host, memory) = (Host::new(), Memory::new());
    memory.lock_objects(None);
    // The first run finds out; the lease that it made is there to stay, and the next one knows whose it was.
    for _ in 0..2 {
        let hold = host.hold([&memory]).await;
        assert_eq!(ids(&hold.warnings), ["lease_not_overwritten"]);
        let text = &hold.warnings[0].message;
        assert!(text.contains("`lock: {storage: local}`"), "{text}");
        assert!(!hold.is_leased(0));
        hold.fence(0).await.unwrap();
        assert!(hold.release().await.is_empty());
        assert_eq!(memory.keys(), [KEY]);
    }
    // Another host has to wait until it knows that nobody renews it.
    let other = Host::new().waiting(TTL * 2);
    let (taken, took) = other.timed([&memory]).await;
    let hold = taken.unwrap();
    assert_eq!(ids(&hold.warnings), ["lease_not_overwritten"]);
    assert!(took >= TTL && took < TTL * 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_may_not_overwrite_is_told_with_the_same_way_out() {
    let denied = || Error::Denied {
        message: "refused".to_owned(),
        hint: None,
    };
    let (host, memory) = (Host::new(), Memory::new());
    host.hold([&memory]).await.release().await;
    overwrite(&memory);
    memory.fail(Verb::Replace, denied);
    let later = host.waiting(TTL * 2);
    let hold = later.hold([&memory]).await;
    assert_eq!(ids(&hold.warnings), ["lease_not_overwritten"]);
    assert!(!hold.is_leased(0));
}

#[tokio::test(start_paused = true)]
async fn one_storage_holds_the_lease_for_all() {
    let (locked, open) = (Memory::new(), Memory::new());
    locked.lock_objects(None);
    let with = |mut host: Host| {
        host.settings.leases = Leases::In(NamedStorage {
            name: "mirror".to_owned(),
            storage: Arc::new(open.clone()),
            identities: Arc::default(),
        });
        host
    };
    let (first, second) = (with(Host::new()), with(Host::new()));
    let hold = first.hold([&locked]).await;
    assert_eq!(ids(&hold.warnings), ["lease_elsewhere"]);
    assert!(hold.is_leased(0));
    hold.fence(0).await.unwrap();
    assert_eq!(locked.keys(), [""; 0], "nothing is written there");
    assert_eq!(open.keys(), [KEY]);
    assert_eq!(refused(second.acquire([&locked]).await).id, "busy");
    // Its loss is the loss of the lock on all.
    overwrite(&open);
    assert_eq!(hold.fence(0).await.unwrap_err().id, "lock_lost");
    drop(hold);
    // A run that died here is known to be dead at once, though it worked on another storage.
    open.remove(KEY).await.unwrap();
    drop(first.hold([&locked]).await);
    let (taken, took) = first.timed([&locked]).await;
    assert_eq!((taken.is_ok(), took), (true, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_this_host_alone_is_told() {
    let (mut host, memory) = (Host::new(), Memory::new());
    host.settings.leases = Leases::ThisHost;
    let hold = host.hold([&memory, &Memory::new()]).await;
    assert_eq!(ids(&hold.warnings), ["lock_local"]);
    assert!(hold.is_leased(0) && hold.is_leased(1), "as it was told");
    hold.fence(1).await.unwrap();
    assert_eq!(memory.keys(), [""; 0]);
    assert_eq!(refused(host.acquire([&memory]).await).id, "busy");
    assert!(hold.release().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_fails_is_left_to_the_run() {
    let denied = || Error::Denied {
        message: "refused".to_owned(),
        hint: None,
    };
    let broken = || Error::failed("broken");
    for fault in [denied as fn() -> Error, broken] {
        let (host, bad, good) = (Host::new(), Memory::new(), Memory::new());
        bad.fail(Verb::Create, fault);
        let hold = host.hold([&bad, &good]).await;
        assert_eq!(ids(&hold.warnings), ["lease_failed"]);
        assert_eq!((hold.is_leased(0), hold.is_leased(1)), (false, true));
        hold.fence(0).await.unwrap();
        assert!(hold.release().await.is_empty());
        assert_eq!(good.keys(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_remove_leaves_word_that_the_lease_is_free() {
    let denied = || Error::Denied {
        message: "refused".to_owned(),
        hint: None,
    };
    for verbs in [&[Verb::Remove][..], &[Verb::Remove, Verb::Get]] {
        let (first, second, memory) = (Host::new(), Host::new(), Memory::new());
        verbs.iter().for_each(|&verb| memory.fail(verb, denied));
        let hold = first.hold([&memory]).await;
        assert!(hold.release().await.is_empty(), "{verbs:?}");
        memory.heal(Verb::Get);
        assert!(lease(&memory).await.released_at.is_some());
        let (taken, took) = second.timed([&memory]).await;
        assert_eq!((taken.unwrap().warnings.len(), took), (0, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_given_back_is_told() {
    let (host, memory) = (Host::new(), Memory::new());
    let hold = host.hold([&memory]).await;
    memory.fail(Verb::Remove, || Error::failed("broken"));
    let left = hold.release().await;
    assert_eq!(ids(&left), ["lease_left"]);
    assert!(
        left[0].message.contains("after 60 s"),
        "{}",
        left[0].message
    );
}

#[tokio::test(start_paused = true)]
async fn two_names_for_one_storage_are_one() {
    let (host, memory) = (Host::new(), Memory::new());
    let hold = host.hold([&memory, &memory]).await;
    assert!(hold.is_leased(0) && hold.is_leased(1) && hold.warnings.is_empty());
    hold.fence(0).await.unwrap();
    hold.fence(1).await.unwrap();
    assert!(hold.release().await.is_empty());
    assert_eq!(memory.keys(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_waiting_leaves_nothing() {
    let (first, one, two) = (Host::new(), Memory::new(), Memory::new());
    let second = Host::new().waiting(Duration::from_secs(6000));
    let hold = first.hold([&one]).await;
    let interrupt = async {
        sleep(Duration::from_secs(90)).await;
        second.context.stop.request(Kind::Interrupted);
    };
    let (taken, ()) = tokio::join!(second.acquire([&one, &two]), interrupt);
    assert_eq!(refused(taken).kind, Kind::Interrupted);
    hold.release().await;
    assert_eq!(one.keys().concat() + &two.keys().concat(), "");
}

#[tokio::test(start_paused = true)]
async fn without_a_folder_for_locks_no_run_begins() {
    let (mut host, memory) = (Host::new(), Memory::new());
    let file = host.state.path().join("file");
    std::fs::write(&file, Bytes::new()).unwrap();
    host.settings.folders = vec![state_folder(&file)];
    let failure = refused(host.acquire([&memory]).await);
    assert_eq!((failure.kind, failure.id), (Kind::Usage, "state_folder"));
    assert_eq!(memory.keys(), [""; 0]);
}

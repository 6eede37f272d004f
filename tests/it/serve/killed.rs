//! A server that is killed in the middle of a run for a slot: the run is told as interrupted, and made once more.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{LIMIT, Serving, Shop, TOKENS};

/// By then the scheduler has asked again.
const SETTLED: Duration = Duration::from_secs(11);

/// Makes a schedule whose last slot is some minutes ago.
fn lately() -> String {
    let slot = Timestamp::now() - SignedDuration::from_mins(3);
    let time = slot.to_zoned(TimeZone::UTC);
    format!("    schedule: '{} {} * * *'\n", time.minute(), time.hour())
}

fn runs(serving: &Serving<'_>) -> Vec<Value> {
    let told = serving.get("/api/v1/runs?limit=100").expect(200).json();
    told["runs"].as_array().unwrap().clone()
}

/// Waits for a run of the schedule that dumps, and returns its id.
fn dumping(serving: &Serving<'_>) -> String {
    let began = Instant::now();
    loop {
        let all = runs(serving);
        let is_it = |run: &&Value| run["trigger"] == "schedule" && run["phase"] == "dumping";
        if let Some(run) = all.iter().find(is_it) {
            return run["id"].as_str().unwrap().to_owned();
        }
        assert!(began.elapsed() < LIMIT, "it never began: {all:#?}");
        sleep(Duration::from_millis(50));
    }
}

/// Returns the exit codes of the runs for slots, oldest first.
fn codes(shop: &Shop) -> Vec<i64> {
    let mut records = shop.records("shop", "backup");
    records.retain(|record| record["slot"].is_string());
    records.sort_by_key(|record| record["started_at"].as_str().unwrap().to_owned());
    let slots = records.iter().map(|record| &record["slot"]);
    assert!(slots.clone().all(|slot| slot == &records[0]["slot"]));
    let codes = records.iter().map(|record| record["exit_code"].as_i64());
    codes.map(Option::unwrap).collect()
}

#[track_caller]
fn assert_none_runs(serving: &Serving<'_>) {
    let all = runs(serving);
    let is_ended = |run: &Value| !matches!(run["state"].as_str(), Some("running" | "queued"));
    assert!(all.iter().all(is_ended), "{all:#?}");
    let page = serving.get("/databases/shop").expect(200).text();
    assert!(!page.contains("under way in process"), "{page}");
}

/// The first attempt dies and the second one ends well: there is no third, and a run by hand that dies has no second.
#[test]
fn a_slot_whose_run_was_killed_is_run_once_more() {
    let Some(shop) = Shop::new(&lately()) else {
        return;
    };
    let held = shop.hold_table();
    let serving = shop.serve(&[]);
    let first = dumping(&serving);
    serving.kill();
    let killed = Instant::now();

    let serving = shop.serve(&[]);
    serving.wait_until(&first, |run| run["state"] == "interrupted");
    assert!(killed.elapsed() < Duration::from_secs(90));
    let page = serving.get(&format!("/runs/{first}")).expect(200).text();
    assert!(page.contains("interrupted"), "{page}");
    let second = dumping(&serving);
    assert_ne!(second, first);
    drop(held);
    let run = serving.wait_for(&second);
    assert_eq!(run["state"], "done", "{run:#}");
    assert_eq!(codes(&shop), [137, 0]);

    let held = shop.hold_table();
    let by_hand = serving.start("backups");
    serving.wait_until(&by_hand, |run| run["phase"] == "dumping");
    serving.kill();
    drop(held);
    let serving = shop.serve(&[]);
    serving.wait_until(&by_hand, |run| run["state"] == "interrupted");
    sleep(SETTLED);
    assert_none_runs(&serving);
    assert_eq!(codes(&shop), [137, 0]);
    // What nobody repeats has no record before somebody takes its lease.
    assert_eq!(shop.records("shop", "backup").len(), 2);
    serving.end().expect(0);
}

/// Both attempts die: it is given up, and told so.
#[test]
fn a_slot_whose_run_was_killed_twice_is_given_up() {
    let Some(shop) = Shop::with(&lately(), TOKENS) else {
        return;
    };
    let held = shop.hold_table();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let serving = shop.serve(&[]);
        ids.push(dumping(&serving));
        serving.kill();
    }
    drop(held);
    assert_ne!(ids[0], ids[1]);
    let serving = shop.serve(&[]);
    for id in &ids {
        serving.wait_until(id, |run| run["state"] == "interrupted");
    }
    sleep(SETTLED);
    assert_none_runs(&serving);
    assert_eq!(codes(&shop), [137]);
    // A run by hand is one of its own, and leaves the record of the one that died before it.
    let by_hand = serving.start("backups");
    assert_eq!(serving.wait_for(&by_hand)["state"], "done");
    assert_eq!(codes(&shop), [137, 137]);
    serving.end().expect(0);
}

/// A run of a schedule that the end of its server stopped is begun once more, as one that was killed is.
#[test]
fn a_slot_that_a_stop_ended_is_begun_once_more() {
    let slot = (Timestamp::now() - SignedDuration::from_mins(1)).to_zoned(TimeZone::UTC);
    let (minute, hour) = (slot.minute(), slot.hour());
    let keys = format!("    schedule: '{minute} {hour} * * *'\n");
    let Some(shop) = Shop::new(&keys) else { return };
    let held = shop.hold_table();
    let serving = shop.serve(&[]);
    let began = Instant::now();
    let is_dumping = |run: &Value| run["phase"] == "dumping" || run["phase"] == "connecting";
    let runs = || serving.get("/api/v1/runs").json()["runs"].clone();
    while !runs().as_array().unwrap().iter().any(is_dumping) {
        assert!(began.elapsed() < LIMIT, "{:#}", runs());
        sleep(Duration::from_millis(50));
    }
    serving.end().expect(0);
    let stopped = shop.records("shop", "backup");
    assert_eq!(stopped.len(), 1, "{stopped:#?}");
    assert_eq!(stopped[0]["exit_code"], 143);
    drop(held);
    let serving = shop.serve(&[]);
    let id = stopped[0]["id"].as_str().unwrap();
    let run = serving.get(&format!("/api/v1/runs/{id}")).json();
    assert_eq!(run["state"], "interrupted", "{run:#}");
    while shop.records("shop", "backup").len() < 2 {
        assert!(began.elapsed() < LIMIT, "it was never begun again");
        sleep(Duration::from_millis(50));
    }
    serving.end().expect(0);
    let both = shop.records("shop", "backup");
    assert_eq!(both[0]["slot"], both[1]["slot"]);
    let codes: BTreeSet<u64> = both
        .iter()
        .filter_map(|run| run["exit_code"].as_u64())
        .collect();
    assert_eq!(codes, BTreeSet::from([0, 143]));
}

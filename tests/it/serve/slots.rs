//! Schedules: each slot is run once, by whichever server is first; a run that died is tried once more.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{LIMIT, Shop, end_both};
use crate::support::postgres::free_port;

/// Two servers on one storage share the work: no slot is run twice, and none fails because of the other one.
#[test]
fn two_servers_run_each_slot_once() {
    let keys = "    schedule: '* * * * *'\n    drill: {schedule: '* * * * *'}\n    verify: {schedule: '* * * * *'}\n    retention: {keep_last: 3}\n";
    let Some(shop) = Shop::new(keys) else { return };
    let one = shop.serve(&[]);
    let other = shop.serve_on(free_port(), &[]);
    let began = Instant::now();
    // The newest slot at the start, and the one of the next minute.
    while shop.records("shop", "backup").len() < 2 {
        assert!(
            began.elapsed() < LIMIT * 2,
            "{:#?}",
            shop.records("shop", "backup")
        );
        sleep(Duration::from_millis(200));
    }
    sleep(Duration::from_secs(3));
    end_both(one, other);
    let mut slots: BTreeMap<(String, String), u32> = BTreeMap::new();
    for verb in ["backup", "drill", "verify"] {
        for record in shop.records("shop", verb) {
            assert_eq!(record["trigger"], "schedule", "{record:#}");
            // The first drill and verification may come before the first backup.
            let is_early = verb != "backup" && record["failure_id"] == "no_such_backup";
            assert!(record["exit_code"] == 0 || is_early, "{record:#}");
            let slot = record["slot"].as_str().unwrap().to_owned();
            *slots.entry((verb.to_owned(), slot)).or_default() += 1;
        }
    }
    assert!(slots.values().all(|count| *count == 1), "{slots:#?}");
    assert!(slots.keys().filter(|(verb, _)| verb == "backup").count() >= 2);
}

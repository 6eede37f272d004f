//! Schedules: each slot is run once, by whichever server is first, whatever else is started meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{CRON, LIMIT, Shop, end_both};
use crate::support::Sandbox;
use crate::support::clock::Clock;
use crate::support::postgres::free_port;
use crate::support::web::send;

/// How many times the clock is moved to the next slots, unless `PGKEEP_TEST_SLOTS` says otherwise; six slots each.
const TIMES: u32 = 2;

/// Two, which are one in truth.
const DATABASES: [&str; 2] = ["shop", "blog"];

/// What is scheduled of each.
const VERBS: [&str; 3] = ["backup", "drill", "verify"];

/// How far apart slots are.
const PERIOD: SignedDuration = SignedDuration::from_mins(10);

/// Counts how often each slot was run, by database and verb.
fn count(shop: &Shop) -> BTreeMap<(String, String, String), u32> {
    let mut slots = BTreeMap::new();
    for (database, verb) in DATABASES
        .into_iter()
        .flat_map(|name| VERBS.map(|verb| (name, verb)))
    {
        for record in shop.records(database, verb) {
            // Runs by hand have none.
            let Some(slot) = record["slot"].as_str() else {
                assert_ne!(record["trigger"], "schedule", "{record:#}");
                continue;
            };
            // The first drill and verification may come before the first backup.
            let is_early = verb != "backup" && record["failure_id"] == "no_such_backup";
            assert!(record["exit_code"] == 0 || is_early, "{record:#}");
            let key = (database.to_owned(), verb.to_owned(), slot.to_owned());
            *slots.entry(key).or_default() += 1;
        }
    }
    slots
}

/// Two servers on one storage, a service that calls the address for cron, and a cron job that runs the command: no slot is
/// run twice, none is left out, and none fails because of the others.
#[test]
fn two_servers_and_cron_run_each_slot_once() {
    let of_server = "  tokens:\n    - {name: wall, role: read, token: read-read-read-read}\n  cron: {secret: cron-secret-cron-secret, min_interval: 0s}\n";
    let Some(mut shop) = Shop::with("", of_server) else {
        return;
    };
    let times = std::env::var("PGKEEP_TEST_SLOTS").map_or(TIMES, |text| text.parse().unwrap());
    let first: Timestamp = "2027-01-11T06:00:00Z".parse().unwrap();
    let Some(clock) = Clock::showing(first + SignedDuration::from_secs(5)) else {
        return;
    };
    clock.give(&mut shop.sandbox);
    let url = shop.database.socket_url();
    let every = "    schedule: '*/10 * * * *'\n    drill: {schedule: '*/10 * * * *'}\n    verify: {schedule: '*/10 * * * *'}\n";
    let keys = format!("{every}  blog:\n    url: {url}\n    retries: {{attempts: 1}}\n{every}");
    shop.configure(&keys, of_server);
    // The command has a home of its own, as on another host: leases alone keep it apart.
    let mut elsewhere = Sandbox::new();
    clock.give(&mut elsewhere);
    let storage = shop.sandbox.path("backups");
    let text = std::fs::read_to_string(shop.sandbox.path("pgkeep.yaml")).unwrap();
    let config = text.replace("./backups", &format!("file://{}", storage.display()));
    elsewhere.write_secret("pgkeep.yaml", config);

    let one = shop.serve(&[]);
    let other = shop.serve_on(free_port(), &[]);
    let ports = [one.port, other.port];
    let (is_over, by_hand) = (AtomicBool::new(false), AtomicU32::new(0));
    scope(|scope| {
        scope.spawn(|| {
            let bearer = format!("Bearer {CRON}");
            let headers = [("authorization", bearer.as_str())];
            for (port, name) in ports.iter().zip(DATABASES).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let target = format!("/api/v1/cron/{name}");
                let answer = send(*port, "POST", &target, &headers, "");
                assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
                sleep(Duration::from_millis(2500));
            }
        });
        let (is_over, by_hand) = (&is_over, &by_hand);
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let run = elsewhere.pgkeep(["backup", "--database", "shop"]).run();
                match run.code() {
                    0 => drop(by_hand.fetch_add(1, Ordering::Relaxed)),
                    code => assert_eq!(code, 11, "{run}"),
                }
                sleep(Duration::from_millis(2500));
            }
        });
        // The threads end with this one, also where it panics.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(is_over);
        for step in 0..times {
            let slot = first + PERIOD * i32::try_from(step).unwrap();
            clock.set(slot + SignedDuration::from_secs(5));
            let began = Instant::now();
            let ran = || {
                count(&shop)
                    .keys()
                    .filter(|key| key.2 == slot.to_string())
                    .count()
            };
            while ran() < VERBS.len() * DATABASES.len() {
                assert!(began.elapsed() < LIMIT * 2, "{slot}: {:#?}", count(&shop));
                sleep(Duration::from_millis(200));
            }
        }
    });
    // Nobody runs any of them again.
    sleep(Duration::from_secs(11));
    let slots = count(&shop);
    end_both(one, other);
    assert!(slots.values().all(|count| *count == 1), "{slots:#?}");
    let expected = times as usize * VERBS.len() * DATABASES.len();
    assert_eq!(slots.len(), expected, "{slots:#?}");
    assert!(by_hand.into_inner() > 0, "the command made no backup");
}

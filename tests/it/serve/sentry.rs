//! What Sentry hears of the server's schedules.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{LIMIT, Shop, end_both};
use crate::support::envelope::{dsn, items};
use crate::support::postgres::free_port;
use crate::support::receiver::Receiver;

/// Waits until a check-in of a verb says that it ended, and returns all of that verb's.
#[track_caller]
fn check_ins(receiver: &Receiver, verb: &str) -> Vec<Value> {
    let slug = format!("pgkeep-shop-{verb}");
    let began = Instant::now();
    loop {
        let mut all = items(receiver, "check_in");
        all.retain(|one| one["monitor_slug"] == slug.as_str());
        if all.iter().any(|one| one["status"] != "in_progress") {
            return all;
        }
        assert!(began.elapsed() < LIMIT, "{all:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two servers try one slot of each schedule: for Sentry it is one check-in, whoever carries it out.
#[test]
fn a_slot_is_one_check_in_of_two_servers() {
    let receiver = Receiver::start();
    let keys = "    schedule: '@yearly'\n    catch_up: 400d\n    verify: {schedule: '@yearly'}\n    spread: 1h\n";
    let Some(shop) = Shop::new(keys) else { return };
    let path = shop.sandbox.path("pgkeep.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let sentry = format!("sentry: {{dsn: '{}'}}\n", dsn(&receiver));
    std::fs::write(&path, text + &sentry).unwrap();
    let one = shop.serve(&[]);
    let other = shop.serve_on(free_port(), &[]);
    let backups = check_ins(&receiver, "backup");
    let verified = check_ins(&receiver, "verify");
    end_both(one, other);
    for (all, verb) in [(&backups, "backup"), (&verified, "verify")] {
        let statuses: Vec<&str> = all
            .iter()
            .map(|one| one["status"].as_str().unwrap())
            .collect();
        assert_eq!(statuses[0], "in_progress", "{verb}");
        assert_eq!(statuses.len(), 2, "{verb}: {statuses:?}");
        assert_eq!(all[0]["check_in_id"], all[1]["check_in_id"], "{verb}");
        let monitor = &all[0]["monitor_config"];
        assert_eq!(monitor["schedule"]["value"], "0 0 1 1 *", "{monitor}");
        assert_eq!(monitor["timezone"], "UTC");
        assert!(
            monitor["checkin_margin"].as_u64().unwrap() > 30,
            "{monitor}"
        );
    }
    assert_eq!(backups[1]["status"], "ok");
}

/// A run that somebody asked for is an event where it fails, and no business of a schedule's monitor.
#[test]
fn a_run_by_hand_that_fails_is_an_event() {
    let receiver = Receiver::start();
    let Some(mut shop) =
        Shop::new("    required_tables: [lost]\n    schedule: '0 3 29 2 *'\n    catch_up: 1m\n")
    else {
        return;
    };
    shop.sandbox.set("SENTRY_DSN", dsn(&receiver));
    let serving = shop.serve(&[]);
    let id = serving.start("backups");
    let run = serving.wait_for(&id);
    serving.end().expect(0);
    let events = items(&receiver, "event");
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(events[0]["tags"]["failure"], run["failure"]["id"]);
    assert_eq!(events[0]["tags"]["database"], "shop");
    assert_eq!(events[0]["tags"]["verb"], "backup");
    assert!(items(&receiver, "check_in").is_empty());
}

//! Schedules and a clock that is set, a machine that sleeps, and the days on which the clock changes.
//!
//! The server's clock is another one than the machine's (`support::clock`), and is set while it runs.

use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use rustix::process::Signal;

use super::{LIMIT, Serving, Shop, TOKENS};
use crate::support::clock::Clock;

/// The scheduler asks every ten seconds.
const TICK: Duration = Duration::from_secs(11);

fn utc(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn moment(at: DateTime) -> Timestamp {
    TimeZone::UTC.to_timestamp(at).unwrap()
}

/// Returns the slots whose backups were made, oldest first: each by a schedule, with success, and once.
#[track_caller]
fn slots(shop: &Shop, database: &str) -> Vec<Timestamp> {
    let records = shop.records(database, "backup");
    let mut slots: Vec<Timestamp> = Vec::new();
    for record in &records {
        assert_eq!(record["exit_code"], 0, "{record:#}");
        slots.push(utc(record["slot"].as_str().unwrap()));
    }
    slots.sort();
    let all = slots.len();
    slots.dedup();
    assert_eq!(slots.len(), all, "a slot was run twice: {records:#?}");
    slots
}

#[track_caller]
fn wait_for(shop: &Shop, database: &str, expected: &[Timestamp]) {
    let began = Instant::now();
    while slots(shop, database).len() < expected.len() {
        assert!(
            began.elapsed() < LIMIT,
            "{database}: {expected:?} of {:?}",
            slots(shop, database)
        );
        sleep(Duration::from_millis(100));
    }
    assert_eq!(slots(shop, database), expected, "{database}");
}

/// Makes the server look at its storages, as it does within a minute by itself: nothing is started by what is old.
fn look(serving: &Serving<'_>) {
    let id = serving.start("verifications");
    assert_eq!(serving.wait_for(&id)["state"], "done");
}

/// Three days forward, an hour back, a machine that sleeps, and two hundred minutes in which nothing ran: what was missed
/// is made up for once, and nothing is repeated.
#[test]
fn a_clock_that_is_set_makes_up_once_and_repeats_nothing() {
    let Some(mut shop) = Shop::new("") else {
        return;
    };
    let at = |day: i8, hour: i8, minute: i8| moment(date(2027, 1, day).at(hour, minute, 0, 0));
    let Some(clock) = Clock::showing(at(11, 6, 30)) else {
        return;
    };
    clock.give(&mut shop.sandbox);
    let url = shop.database.socket_url();
    let keys = format!(
        "    schedule: '0 6 * * *'\n  minutely:\n    url: {url}\n    schedule: '* * * * *'\n"
    );
    shop.configure(&keys, TOKENS);
    let serving = shop.serve(&[]);
    let mut daily = vec![at(11, 6, 0)];
    wait_for(&shop, "shop", &daily);

    clock.set(at(14, 7, 5));
    look(&serving);
    daily.push(at(14, 6, 0));
    wait_for(&shop, "shop", &daily);

    clock.set(at(14, 6, 5));
    look(&serving);
    sleep(TICK);
    wait_for(&shop, "shop", &daily);

    serving.running.signal(Signal::STOP);
    clock.set(at(16, 9, 20));
    sleep(Duration::from_secs(2));
    serving.running.signal(Signal::CONT);
    look(&serving);
    daily.push(at(16, 6, 0));
    wait_for(&shop, "shop", &daily);

    let until = |end: Timestamp| {
        let began = Instant::now();
        while slots(&shop, "minutely").last() < Some(&end) {
            assert!(began.elapsed() < LIMIT, "{:?}", slots(&shop, "minutely"));
            sleep(Duration::from_millis(100));
        }
    };
    until(at(16, 9, 20));
    clock.set(at(16, 12, 40));
    look(&serving);
    until(at(16, 12, 40));
    // It goes on with the minutes after it.
    clock.set(at(16, 12, 45));
    until(at(16, 12, 45));
    let skipped = slots(&shop, "minutely");
    let in_between = |slot: &&Timestamp| **slot > at(16, 9, 25) && **slot < at(16, 12, 40);
    assert_eq!(skipped.iter().filter(in_between).count(), 0, "{skipped:?}");
    wait_for(&shop, "shop", &daily);
    serving.end().expect(0);
}

/// At 02:30 in Berlin: that time is there twice on one day, and on another one it is not there at all.
#[test]
fn a_day_on_which_the_clock_changes_has_one_run() {
    let keys = "    schedule: '30 2 * * *'\n    timezone: Europe/Berlin\n";
    let Some(mut shop) = Shop::new(keys) else {
        return;
    };
    let Some(clock) = Clock::showing(utc("2026-10-25T00:31:00Z")) else {
        return;
    };
    clock.give(&mut shop.sandbox);
    let serving = shop.serve(&[]);
    let mut expected = vec![utc("2026-10-25T00:30:00Z")];
    wait_for(&shop, "shop", &expected);
    clock.set(utc("2026-10-25T01:31:00Z"));
    look(&serving);
    sleep(TICK);
    wait_for(&shop, "shop", &expected);

    clock.set(utc("2027-03-28T01:31:00Z"));
    look(&serving);
    expected.push(utc("2027-03-28T01:00:00Z"));
    wait_for(&shop, "shop", &expected);
    clock.set(utc("2027-03-29T00:31:00Z"));
    look(&serving);
    expected.push(utc("2027-03-29T00:30:00Z"));
    wait_for(&shop, "shop", &expected);
    serving.end().expect(0);
}

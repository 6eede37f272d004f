//! A year of nightly backups of a shop with growth, weekends, noise, rotating partitions and job queues: one table is
//! wiped once, and that night alone alarms.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::*;
use crate::config::{Anomaly, Retention};
use crate::id::BackupId;
use crate::keys::Marks;
use crate::retention::{Candidate, plan};

/// What one night left in the storage.
struct Night {
    id: BackupId,
    manifest: Vec<u8>,
    is_held: bool,
    is_accepted: bool,
}

/// Numbers that look like chance and are the same in every run: an LCG of Numerical Recipes.
struct Dice(u32);

impl Dice {
    /// Returns a number from 0 up to `below`.
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u64::from(self.0 >> 8) % below
    }
}

struct Shop {
    nights: Vec<Night>,
    dice: Dice,
    rules: Anomaly,
    policy: Retention,
    start: Timestamp,
}

impl Shop {
    fn new(seed: u32) -> Self {
        let rules = Anomaly {
            ignore: vec!["job_*".parse().unwrap()],
            ..Anomaly::default()
        };
        let policy = Retention {
            keep_daily: Some(7),
            keep_weekly: Some(4),
            keep_monthly: Some(12),
            ..Retention::default()
        };
        Self {
            nights: Vec::new(),
            dice: Dice(seed),
            rules,
            policy,
            start: "2025-01-01T03:00:00Z".parse().unwrap(),
        }
    }

    fn at(&self, day: u64) -> Timestamp {
        self.start + SignedDuration::from_hours(24 * day as i64)
    }

    /// The tables of a night. `wiped` is the table that somebody emptied.
    fn tables(&mut self, day: u64, wiped: Option<&str>) -> Value {
        let is_weekend = day % 7 >= 5;
        let noise = |dice: &mut Dice, rows: u64| rows - rows / 20 + dice.roll(rows / 10 + 1);
        // Carts are a third fewer at weekends, sessions come and go, a settings table has a few rows.
        let carts = if is_weekend { 20_000 } else { 30_000 };
        let mut rows = BTreeMap::from([
            ("orders".to_owned(), 50_000 + 150 * day),
            ("users".to_owned(), 9_000 + 20 * day),
            ("carts".to_owned(), noise(&mut self.dice, carts)),
            ("sessions".to_owned(), noise(&mut self.dice, 900)),
            ("settings".to_owned(), 12 + self.dice.roll(8)),
            ("stock".to_owned(), noise(&mut self.dice, 4_000)),
            // Queues are full, empty, or there is none.
            ("job_mail".to_owned(), self.dice.roll(2) * 80_000),
            ("job_queue".to_owned(), self.dice.roll(100_000)),
        ]);
        if self.dice.roll(2) == 1 {
            rows.insert(format!("job_{day}"), 5_000);
        }
        // A table that a migration adds in spring.
        if day > 100 {
            rows.insert("coupons".to_owned(), 3_000 + 10 * day);
        }
        if let Some(wiped) = wiped {
            rows.insert(wiped.to_owned(), 0);
        }
        let table = |(name, rows): (&String, &u64)| {
            json!({"schema": "public", "name": name, "kind": "table", "rows": rows, "bytes": rows * 90,
                "digest": format!("{:032x}", self.dice.roll(u64::MAX))})
        };
        let mut tables: Vec<Value> = rows.iter().map(table).collect();
        // Thirteen weeks of events, a partition each; the oldest goes on Mondays.
        tables.push(json!({"schema": "public", "name": "events", "kind": "partitioned", "rows": null, "bytes": 0,
            "digest": null}));
        let week = day / 7;
        for part in week..week + 13 {
            let rows = if part == week + 12 {
                7_000 * (day % 7 + 1)
            } else {
                49_000
            };
            tables.push(json!({"schema": "public", "name": format!("events_{part}"), "kind": "table", "rows": rows,
                "bytes": rows * 70, "digest": null, "parent": {"schema": "public", "name": "events"}}));
        }
        json!(tables)
    }

    /// Makes the backup of a night as `backup` does: judged by the last seven that are good and not held.
    fn back_up(&mut self, day: u64, wiped: Option<&str>) -> AnomalyRecord {
        let at = self.at(day);
        let id: BackupId = format!("shop-{}-{day:04x}", at.strftime("%Y%m%dT%H%M%SZ"))
            .parse()
            .unwrap();
        let tables = self.tables(day, wiped);
        let took = SignedDuration::from_secs(60 + self.dice.roll(120) as i64);
        // Compression and encryption change in the middle of the year.
        let mut manifest = json!({
            "format": 1, "id": id.to_string(), "started_at": at, "finished_at": at + took,
            "server": {"version_num": 170_004}, "dump": {"bytes": 50_000_000 + day * 20_000}, "tables": tables,
            "compression": {"method": if day < 150 { "gzip" } else { "zstd" }},
            "encryption": if day < 200 { json!(null) } else { json!({"method": "age"}) },
            "object": {"size_bytes": if day < 150 { 9_000_000 } else { 3_000_000 }},
        });
        let current = Earlier::read(manifest.to_string().as_bytes(), &id).unwrap();
        let mut baseline = Baseline::new(&self.rules, current.alike.clone());
        for night in self.nights.iter().rev() {
            if baseline.is_full() {
                break;
            }
            if night.is_held && !night.is_accepted {
                continue;
            }
            let earlier = Earlier::read(&night.manifest, &night.id).unwrap();
            baseline.add(&night.id, earlier, night.is_accepted);
        }
        let record = judge(&current.sample, &baseline);
        manifest["anomaly"] = serde_json::to_value(&record).unwrap();
        self.nights.push(Night {
            id,
            manifest: manifest.to_string().into_bytes(),
            is_held: record.is_held(),
            is_accepted: false,
        });
        record
    }

    /// Prunes as `prune` does: not at all while the newest backup is held.
    fn prune(&mut self, day: u64) -> usize {
        let is_waiting = |night: &Night| night.is_held && !night.is_accepted;
        if self.nights.last().is_some_and(is_waiting) {
            return 0;
        }
        let candidates: Vec<Candidate> = self
            .nights
            .iter()
            .map(|night| {
                let marks = Marks {
                    is_held: is_waiting(night),
                    ..Marks::default()
                };
                Candidate::stored(night.id.started_at(), marks)
            })
            .collect();
        let plan = plan(&self.policy, &candidates, self.at(day)).unwrap();
        let mut verdicts = plan.verdicts.iter();
        self.nights.retain(|_| verdicts.next().unwrap().keep);
        plan.removed()
    }
}

#[test]
fn a_wiped_table_is_caught_the_same_night_and_nothing_else_alarms() {
    const WIPED: u64 = 233;
    const FOUND: u64 = 238;
    for seed in [1, 2, 3] {
        let mut shop = Shop::new(seed);
        for day in 0..365 {
            // Somebody empties `orders`, and it takes five days until they are back.
            let is_wiped = (WIPED..FOUND).contains(&day);
            let record = shop.back_up(day, is_wiped.then_some("orders"));
            let expected = match day {
                0..3 => Verdict::Learning,
                _ if is_wiped => Verdict::Held,
                _ => Verdict::Passed,
            };
            assert_eq!(
                record.verdict, expected,
                "seed {seed}, day {day}: {record:?}"
            );
            // A third fewer carts at weekends is a warning, as the bars say, and no alarm.
            let mut warned = record.of(Severity::Warn);
            let is_weekend = day % 7 >= 5;
            assert!(
                warned.all(|seen| is_weekend && seen.table.as_deref() == Some("public.carts")),
                "seed {seed}, day {day}: {record:?}"
            );
            if is_wiped {
                let median = 50_000 + 150 * (WIPED - 4);
                let expected = format!(
                    "`public.orders` is empty; it had {} rows",
                    crate::words::number(median)
                );
                assert_eq!(record.reasons(), [expected], "seed {seed}, day {day}");
            }
            let before = shop.nights.len();
            let removed = shop.prune(day);
            if is_wiped {
                assert_eq!((removed, shop.nights.len()), (0, before), "prune waits");
            }
        }
        // The held ones stay and keep no slot: the others are those that the policy keeps without them.
        let (held, others): (Vec<&Night>, _) = shop.nights.iter().partition(|night| night.is_held);
        assert_eq!(held.len() as u64, FOUND - WIPED, "seed {seed}");
        let days = (0..365).filter(|day| !(WIPED..FOUND).contains(day));
        let times: Vec<Timestamp> = days.map(|day| shop.at(day)).collect();
        let candidates: Vec<Candidate> = times.iter().copied().map(Candidate::new).collect();
        let plan = plan(&shop.policy, &candidates, shop.at(364)).unwrap();
        let kept: Vec<Timestamp> = times
            .iter()
            .zip(&plan.verdicts)
            .filter(|(_, one)| one.keep)
            .map(|(at, _)| *at)
            .collect();
        let left: Vec<Timestamp> = others.iter().map(|night| night.id.started_at()).collect();
        assert_eq!(left, kept, "seed {seed}");
    }
}

#[test]
fn a_table_that_was_emptied_on_purpose_alarms_once_where_it_is_accepted() {
    let mut shop = Shop::new(7);
    let mut held = Vec::new();
    for day in 0..60 {
        let wiped = (day >= 20).then_some("carts");
        if shop.back_up(day, wiped).is_held() {
            held.push(day);
            shop.nights.last_mut().unwrap().is_accepted = true;
        }
        shop.prune(day);
    }
    assert_eq!(held, [20]);
}

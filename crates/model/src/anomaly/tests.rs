//! Tables of backups and verdicts, and what holds for every one of them.

mod year;

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::{Anomaly, TableBars};
use crate::id::BackupId;
use crate::manifest::Manifest;
use crate::name::TableName;
use crate::percent::Percent;

fn id(day: u32) -> BackupId {
    format!("shop-202601{day:02}T030000Z-{day:04x}")
        .parse()
        .unwrap()
}

fn sample(tables: &[(&str, u64)]) -> Sample {
    let table = |(name, rows): &(&str, u64)| {
        let amounts = Amounts {
            rows: *rows,
            bytes: rows * 100,
            ..Amounts::default()
        };
        (TableName::new("public", *name), amounts)
    };
    Sample {
        dump_bytes: tables.iter().map(|(_, rows)| rows * 100).sum(),
        took_ms: 1000,
        tables: tables.iter().map(table).collect(),
    }
}

fn earlier(tables: &[(&str, u64)]) -> Earlier {
    Earlier {
        alike: Alike::default(),
        sample: sample(tables),
        anomaly: None,
    }
}

fn baseline<'r>(rules: &'r Anomaly, days: &[&[(&str, u64)]]) -> Baseline<'r> {
    let mut baseline = Baseline::new(rules, Alike::default());
    for (day, tables) in days.iter().enumerate() {
        baseline.add(&id(30 - day as u32), earlier(tables), false);
    }
    baseline
}

fn signs(record: &AnomalyRecord, severity: Severity) -> Vec<(Sign, Option<&str>)> {
    let seen = record.of(severity);
    seen.map(|seen| (seen.sign, seen.table.as_deref()))
        .collect()
}

/// Judges one table by three backups that had so many rows of it.
fn judged(rules: &Anomaly, before: u64, now: Option<u64>) -> (Verdict, Vec<Sign>) {
    let steady = ("steady", 1_000_000);
    let day = [("t", before), steady];
    let baseline = baseline(rules, &[&day, &day, &day]);
    let now: Vec<(&str, u64)> = now
        .map(|rows| ("t", rows))
        .into_iter()
        .chain([steady])
        .collect();
    let record = judge(&sample(&now), &baseline);
    let signs = record.seen.iter().map(|seen| seen.sign).collect();
    (record.verdict, signs)
}

#[test]
fn the_bars_are_those_that_are_documented() {
    use Sign::*;
    use Verdict::*;
    for (before, now, verdict, sign) in [
        // Gone: from one row on.
        (1, None, Held, Some(TableGone)),
        (0, None, Passed, None),
        // Empty: from 100 rows on.
        (100, Some(0), Held, Some(TableEmpty)),
        (99, Some(0), Passed, None),
        // Lost: the share and the rows.
        (2000, Some(1000), Held, Some(RowsLost)),
        (2000, Some(1001), Passed, None),
        (1999, Some(999), Held, Some(RowsLost)),
        (999, Some(1), Passed, None),
        (10_000, Some(5001), Passed, Some(RowsLost)),
        (10_000, Some(8000), Passed, Some(RowsLost)),
        (10_000, Some(8001), Passed, None),
        (20, Some(22), Passed, None),
        (20, Some(20), Passed, None),
    ] {
        let found = judged(&Anomaly::default(), before, now);
        assert_eq!(
            found,
            (verdict, sign.into_iter().collect()),
            "{before} {now:?}"
        );
    }
}

#[test]
fn all_rows_together_are_judged_where_no_table_alone_fails() {
    let rules = Anomaly::default();
    let day: Vec<(String, u64)> = (0..10).map(|at| (format!("t{at}"), 2000)).collect();
    let now: Vec<(String, u64)> = (0..10).map(|at| (format!("t{at}"), 1400)).collect();
    let of = |tables: &[(String, u64)]| -> Vec<(&'static str, u64)> {
        let names = tables.iter().map(|(name, rows)| (name.clone(), *rows));
        names.map(|(name, rows)| (&*name.leak(), rows)).collect()
    };
    let (day, now) = (of(&day), of(&now));
    let baseline = baseline(&rules, &[&day, &day, &day]);
    let record = judge(&sample(&now), &baseline);
    assert_eq!(record.verdict, Verdict::Held);
    assert_eq!(signs(&record, Severity::Fail), [(Sign::AllRowsLost, None)]);
    assert_eq!(
        record.in_a_line(),
        "all tables together have 14,000 rows, 30% fewer than the 20,000 before"
    );
}

#[test]
fn the_first_three_only_learn() {
    let rules = Anomaly::default();
    let full = [("t", 10_000)];
    for days in 0..3 {
        let baseline = baseline(&rules, &vec![&full[..]; days]);
        assert_eq!(
            judge(&sample(&[]), &baseline).verdict,
            Verdict::Learning,
            "{days}"
        );
    }
    let after_three = baseline(&rules, &[&full, &full, &full]);
    assert_eq!(judge(&sample(&[]), &after_three).verdict, Verdict::Held);
    // A new table learns by itself.
    let old = [("other", 10)];
    let young = [("t", 10_000), ("other", 10)];
    let baseline = baseline(&rules, &[&young, &young, &old, &old]);
    assert_eq!(
        judge(&sample(&[("other", 10)]), &baseline).verdict,
        Verdict::Passed
    );
}

#[test]
fn seven_alike_count_and_no_more() {
    let rules = Anomaly::default();
    let mut baseline = Baseline::new(&rules, Alike::default());
    let mut other = earlier(&[("t", 5)]);
    other.alike.server_major = 17;
    assert!(!baseline.add(&id(30), other, false));
    for day in 0..7 {
        assert!(baseline.add(&id(29 - day), earlier(&[("t", 10_000)]), false));
    }
    assert!(baseline.is_full());
    assert!(!baseline.add(&id(1), earlier(&[("t", 10_000)]), false));
    let record = judge(&sample(&[("t", 10_000)]), &baseline);
    assert_eq!(
        (record.baseline.len(), record.verdict),
        (7, Verdict::Passed)
    );
    assert_eq!(record.baseline[0], id(29));
}

/// A backup as the next night finds it: judged, and held or not.
fn judged_earlier(tables: &[(&str, u64)], baseline: &Baseline<'_>) -> Earlier {
    let record = judge(&sample(tables), baseline);
    Earlier {
        anomaly: Some(record),
        ..earlier(tables)
    }
}

#[test]
fn a_held_backup_is_no_baseline_until_it_is_accepted_and_then_it_is_the_new_normal() {
    let rules = Anomaly::default();
    let full = [("t", 10_000), ("u", 10_000), ("v", 50)];
    let wiped = [("t", 10_000), ("u", 0)];
    let days = [&full[..], &full, &full, &full];
    let held = judged_earlier(&wiped, &baseline(&rules, &days));
    assert!(held.was_held());
    let history = |is_accepted| {
        let mut baseline = Baseline::new(&rules, Alike::default());
        baseline.add(&id(31), held.clone(), is_accepted);
        for day in 0..4 {
            baseline.add(&id(29 - day), earlier(&full), false);
        }
        baseline
    };
    let unaccepted = history(false);
    let record = judge(&sample(&wiped), &unaccepted);
    assert!(record.is_held() && !record.baseline.contains(&id(31)));
    // `u` may be empty and `v` gone now; `t` is judged by all that is known.
    let accepted = history(true);
    let record = judge(&sample(&wiped), &accepted);
    assert_eq!(
        (record.verdict, record.baseline.len()),
        (Verdict::Passed, 5)
    );
    let record = judge(&sample(&[("t", 100), ("u", 0)]), &accepted);
    assert_eq!(
        signs(&record, Severity::Fail)[0],
        (Sign::RowsLost, Some("public.t"))
    );
    // The first that was accepted is enough to judge by.
    let mut alone = Baseline::new(&rules, Alike::default());
    let mut before = held.clone();
    let failed = before.anomaly.as_mut().unwrap();
    failed
        .seen
        .iter_mut()
        .for_each(|seen| seen.table = Some("public.t".to_owned()));
    alone.add(&id(31), before, true);
    assert!(!alone.is_learning());
    assert!(judge(&sample(&[("t", 1), ("u", 0)]), &alone).is_held());
}

#[test]
fn partitions_come_and_go_under_their_root() {
    let day = |first: u32| {
        let parts = (first..first + 12).map(|month| {
            json!({"schema": "public", "name": format!("events_{month}"), "kind": "table", "rows": 1000, "bytes": 9000,
                "digest": null, "parent": {"schema": "public", "name": "events_eu"}})
        });
        let roots = [
            json!({"schema": "public", "name": "events", "kind": "partitioned", "rows": null, "bytes": 0, "digest": null}),
            json!({"schema": "public", "name": "events_eu", "kind": "partitioned", "rows": null, "bytes": 0,
                "digest": null, "parent": {"schema": "public", "name": "events"}}),
        ];
        let tables: Vec<_> = roots.into_iter().chain(parts).collect();
        read(&json!(tables))
    };
    let rules = Anomaly::default();
    let mut baseline = Baseline::new(&rules, day(1).alike);
    for at in 0..7 {
        assert!(baseline.add(&id(29 - at), day(7 - at), false));
    }
    let record = judge(&day(8).sample, &baseline);
    assert_eq!(
        (record.verdict, record.seen.len()),
        (Verdict::Passed, 0),
        "{record:?}"
    );
    let events = &day(8).sample.tables[&TableName::new("public", "events")];
    assert_eq!(events.rows, 12_000);
    // All partitions gone is a root without rows.
    let mut none = day(8).sample;
    none.tables
        .get_mut(&TableName::new("public", "events"))
        .unwrap()
        .rows = 0;
    assert!(judge(&none, &baseline).is_held());
}

/// Reads a manifest with these tables.
fn read(tables: &serde_json::Value) -> Earlier {
    let id = id(30);
    let manifest = json!({
        "format": 1, "id": id.to_string(), "started_at": "2026-01-30T03:00:00Z", "finished_at": "2026-01-30T03:00:09Z",
        "server": {"version_num": 170_004}, "dump": {"bytes": 5}, "tables": tables, "compression": {"method": "none"},
    });
    let earlier = Earlier::read(manifest.to_string().as_bytes(), &id).unwrap();
    assert_eq!(
        (earlier.sample.took_ms, earlier.alike.server_major),
        (9000, 17)
    );
    earlier
}

/// The present backup and one that is read back are seen with the same eyes.
#[test]
fn a_backup_is_the_same_sample_now_and_when_it_is_read_back() {
    let id = id(30);
    let value = json!({
        "format": 1, "id": id.to_string(), "database": "shop", "trigger": "manual",
        "started_at": id.started_at(), "finished_at": "2026-01-30T03:00:09Z",
        "server": {"version": "15.18", "version_num": 150_018, "encoding": "UTF8", "database": "shop",
            "size_bytes": 1, "fixed_text_form": true},
        "tools": {"pgkeep": "0.1.0", "pg_dump": "15.18"},
        "selection": {"exclude_tables": ["public.logs"]}, "preset": "supabase",
        "compression": {"method": "gzip"},
        "dump": {"bytes": 1000, "rows": 14, "client_encoding": "UTF8", "pg_dump_version": null, "server_version": null},
        "object": {"key": format!("shop/{id}.sql.gz"), "size_bytes": 5, "sha256": "a".repeat(64)},
        "sections": [], "large_objects": 3,
        "limits": [{"schema": "public", "name": "events", "keep": "newest 5 by at", "references": "keep", "rows": 5, "rows_total": 700}],
        "tables": [
            {"schema": "public", "name": "users", "kind": "table", "columns": ["id", "name"], "rows": 9, "bytes": 90,
                "digest": "0123456789abcdef0123456789abcdef"},
            {"schema": "public", "name": "events", "kind": "partitioned", "rows": null, "bytes": 0, "digest": null},
            {"schema": "public", "name": "events_1", "kind": "table", "columns": ["id"], "rows": 5, "bytes": 50,
                "digest": "0123456789abcdef0123456789abcdef", "parent": {"schema": "public", "name": "events"}},
        ],
        "chunks": {"inline": {"header_bytes": 10, "raw": [1], "stored": [2]}}, "restore": "x",
    });
    let mut manifest = Manifest::read(value.to_string().as_bytes(), &id).unwrap();
    manifest.anomaly = Some(AnomalyRecord::new(Verdict::Held));
    let now = Sample::of(&manifest);
    let events = now.tables[&TableName::new("public", "events")];
    assert_eq!((events.rows, events.bytes), (700, 7000));
    let back = Earlier::read(&manifest.to_json(), &id).unwrap();
    assert_eq!(back.sample, now);
    assert_eq!(now.tables.len(), 3, "users, events and large objects");
    assert!(back.was_held());
    let alike = Alike {
        selection: manifest.selection,
        preset: manifest.preset,
        server_major: 15,
    };
    assert_eq!(back.alike, alike);
}

#[test]
fn what_is_ignored_counts_for_nothing_and_bars_of_its_own_win() {
    let rules = Anomaly {
        ignore: vec!["job_*".parse().unwrap()],
        tables: vec![TableBars {
            name: "audit_*".parse().unwrap(),
            max_loss: Percent::new(90),
            warn_loss: None,
            min_lost_rows: None,
            empty_min_rows: None,
            gone_min_rows: Some(1_000_000),
        }],
        ..Anomaly::default()
    };
    let day = [
        ("job_a", 90_000),
        ("audit_x", 9000),
        ("audit_y", 5000),
        ("t", 9000),
    ];
    let baseline = baseline(&rules, &[&day, &day, &day]);
    let record = judge(&sample(&[("audit_x", 4000), ("t", 9000)]), &baseline);
    // 23,000 rows are judged, and 10,000 of them are lost.
    assert_eq!(signs(&record, Severity::Fail), [(Sign::AllRowsLost, None)]);
    assert_eq!(
        signs(&record, Severity::Warn),
        [(Sign::RowsLost, Some("public.audit_x"))]
    );
}

#[test]
fn a_renamed_table_is_gone_and_its_new_name_is_told() {
    let rules = Anomaly::default();
    let table = |name: &str| {
        json!([{"schema": "public", "name": name, "kind": "table", "columns": ["id"], "rows": 5000, "bytes": 9000,
            "digest": "0123456789abcdef0123456789abcdef"}])
    };
    let mut baseline = Baseline::new(&rules, read(&table("orders")).alike);
    for day in 0..3 {
        baseline.add(&id(29 - day), read(&table("orders")), false);
    }
    let record = judge(&read(&table("orders_v2")).sample, &baseline);
    assert_eq!(
        record.reasons(),
        ["`public.orders` is gone; it had 5,000 rows; `public.orders_v2` has exactly these rows"]
    );
    assert_eq!(
        signs(&record, Severity::Note),
        [(Sign::NewTable, Some("public.orders_v2"))]
    );
}

#[test]
fn what_is_no_loss_is_a_warning_or_a_note() {
    let rules = Anomaly::default();
    let day = |rows: u64, bytes: u64, columns: &[&str], digest: &str| {
        read(
            &json!([{"schema": "public", "name": "t", "kind": "table", "columns": columns, "rows": rows,
            "bytes": bytes, "digest": digest.repeat(32)}]),
        )
    };
    let mut baseline = Baseline::new(&rules, day(1, 1, &[], "0").alike);
    for at in 0..3 {
        baseline.add(&id(29 - at), day(9000, 9_000_000, &["id", "a"], "0"), false);
    }
    let record = judge(&day(9000, 1_000_000, &["id", "a"], "1").sample, &baseline);
    assert_eq!(
        signs(&record, Severity::Warn),
        [(Sign::BytesLost, Some("public.t"))]
    );
    assert_eq!(signs(&record, Severity::Note), [(Sign::OtherRows, None)]);
    let mut grown = day(90_000, 90_000_000, &["id", "a", "b"], "1").sample;
    grown.took_ms = 9_000_000;
    grown.dump_bytes = 1 << 30;
    let record = judge(&grown, &baseline);
    assert_eq!(record.verdict, Verdict::Passed);
    let warned = signs(&record, Severity::Warn);
    assert_eq!(warned, [(Sign::Slow, None), (Sign::Large, None)]);
    let noted: Vec<Sign> = record.of(Severity::Note).map(|seen| seen.sign).collect();
    assert_eq!(noted.len(), 2);
    assert!(noted.contains(&Sign::ColumnsChanged) && noted.contains(&Sign::Grown));
}

#[test]
fn lost_large_objects_are_lost_rows() {
    let rules = Anomaly::default();
    let with = |objects: u64| {
        let mut one = earlier(&[("t", 10)]);
        let table = TableName::new("pg_catalog", "pg_largeobject");
        let amounts = Amounts {
            rows: objects,
            ..Amounts::default()
        };
        one.sample.tables.insert(table, amounts);
        one
    };
    let mut baseline = Baseline::new(&rules, Alike::default());
    for day in 0..3 {
        baseline.add(&id(29 - day), with(500), false);
    }
    let record = judge(&with(0).sample, &baseline);
    assert_eq!(
        signs(&record, Severity::Fail),
        [(Sign::TableEmpty, Some("pg_catalog.pg_largeobject"))]
    );
}

#[test]
fn thousands_of_signs_are_counted_and_a_few_kept() {
    let rules = Anomaly::default();
    let names: Vec<String> = (0..5000).map(|at| format!("t{at}")).collect();
    let day: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 10)).collect();
    let baseline = baseline(&rules, &[&day, &day, &day]);
    let record = judge(&sample(&[]), &baseline);
    assert_eq!(
        (record.seen.len() as u64 + record.more, record.seen.len()),
        (5001, 100)
    );
    let mark = HeldMark::new(id(1), id(1).started_at(), record.clone());
    assert!((mark.to_json().len() as u64) < MAX_MARK_BYTES);
    assert_eq!(HeldMark::record_in(&mark.to_json()), Some(record.clone()));
    assert_eq!(record.reasons().last().unwrap(), "and 4,901 more");
    // What was cut off may be any table: all of them begin anew.
    let mut accepted = Baseline::new(&rules, Alike::default());
    let mut held = earlier(&[]);
    held.anomaly = Some(record);
    accepted.add(&id(31), held, true);
    for at in 0..3 {
        accepted.add(&id(29 - at), earlier(&day), false);
    }
    assert_eq!(judge(&sample(&[]), &accepted).verdict, Verdict::Passed);
}

#[test]
fn what_a_newer_version_writes_is_read() {
    let record: AnomalyRecord = serde_json::from_value(json!({
        "verdict": "pondered", "new": 1, "seen": [{"sign": "odd", "severity": "shrug", "table": "a"}],
    }))
    .unwrap();
    assert_eq!(
        (record.verdict, record.is_held()),
        (Verdict::Unknown, false)
    );
    assert_eq!(record.seen[0].severity, Severity::Note);
    assert_eq!(Acceptance::read(b"{}"), None);
    let accepted = Acceptance::new(id(1), id(1).started_at(), "eva@web1\n", "moved\tto v2");
    assert_eq!(
        Acceptance::read(&accepted.to_json()),
        Some(accepted.clone())
    );
    assert_eq!(
        (&*accepted.accepted_by, &*accepted.reason),
        ("eva@web1", "moved to v2")
    );
}

type Tables = HashMap<String, u64>;

fn tables() -> impl Strategy<Value = Tables> {
    prop::collection::hash_map("[a-f]", 0u64..5000, 0..6)
}

fn as_sample(tables: &Tables) -> Sample {
    let pairs: Vec<(&str, u64)> = tables
        .iter()
        .map(|(name, rows)| (name.as_str(), *rows))
        .collect();
    sample(&pairs)
}

fn learned<'r>(rules: &'r Anomaly, days: &[Tables]) -> Baseline<'r> {
    let mut baseline = Baseline::new(rules, Alike::default());
    for (at, tables) in days.iter().enumerate() {
        let one = Earlier {
            sample: as_sample(tables),
            ..earlier(&[])
        };
        baseline.add(&id(30 - at as u32), one, false);
    }
    baseline
}

proptest! {
    #[test]
    fn growth_never_fails(
        days in prop::collection::vec(tables(), 0..8),
        more in prop::collection::vec(0u64..10_000, 6),
        new in tables(),
    ) {
        let rules = Anomaly::default();
        let baseline = learned(&rules, &days);
        // Every table that ever was, with as many rows as it ever had, or more.
        let mut now = new;
        for (name, rows) in days.iter().flatten() {
            let most = now.entry(name.clone()).or_default();
            *most = (*most).max(*rows);
        }
        for (rows, more) in now.values_mut().zip(more) {
            *rows += more;
        }
        let record = judge(&as_sample(&now), &baseline);
        prop_assert!(!record.is_held(), "{record:?}");
        prop_assert_eq!(record.of(Severity::Warn).count(), 0);
    }

    #[test]
    fn below_the_absolute_bars_nothing_fails(
        days in prop::collection::vec(prop::collection::vec(0u64..100, 6), 3..8),
        now in prop::collection::vec(0u64..100, 6),
    ) {
        let named = |rows: &Vec<u64>| -> Tables {
            let names = ["a", "b", "c", "d", "e", "f"].map(str::to_owned);
            names.into_iter().zip(rows.iter().copied()).collect()
        };
        let (days, now) = (days.iter().map(named).collect::<Vec<_>>(), named(&now));
        // Six tables of less than 100 rows each are never gone, and lose less than 1,000 rows together.
        let record = judge(&as_sample(&now), &learned(&Anomaly::default(), &days));
        prop_assert!(!record.is_held(), "{record:?}");
    }

    #[test]
    fn the_order_of_older_backups_and_of_tables_means_nothing_for_losses(
        mut days in prop::collection::vec(tables(), 3..8),
        now in tables(),
    ) {
        let rules = Anomaly::default();
        let lost = |days: &[Tables]| {
            let record = judge(&as_sample(&now), &learned(&rules, days));
            let mut seen = record.seen;
            seen.retain(|seen| seen.severity != Severity::Note);
            (record.verdict, seen)
        };
        let before = lost(&days);
        // The newest one alone has a place: it says which tables are still there.
        days[1..].reverse();
        prop_assert_eq!(before, lost(&days));
    }

    #[test]
    fn how_it_is_stored_means_nothing(
        rows in prop::collection::vec(0u64..5000, 1..5),
        stored in 1u64..1_000_000_000,
        method in "gzip|zstd|none",
        is_encrypted in any::<bool>(),
    ) {
        let id = id(30);
        let tables: Vec<_> = rows.iter().enumerate().map(|(at, rows)| json!({"schema": "public",
            "name": format!("t{at}"), "kind": "table", "rows": rows, "bytes": rows * 9, "digest": null})).collect();
        let manifest = |stored: u64, method: &str, encryption: serde_json::Value| json!({
            "format": 1, "id": id.to_string(), "started_at": "2026-01-30T03:00:00Z",
            "finished_at": "2026-01-30T03:00:09Z", "server": {"version_num": 170_004}, "dump": {"bytes": 5},
            "tables": tables, "compression": {"method": method}, "encryption": encryption,
            "object": {"size_bytes": stored}, "chunks": {"inline": {"stored": [stored]}},
        }).to_string();
        let encryption = if is_encrypted { json!({"method": "age"}) } else { json!(null) };
        let one = Earlier::read(manifest(stored, &method, encryption).as_bytes(), &id);
        let other = Earlier::read(manifest(1, "none", json!(null)).as_bytes(), &id);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Earlier::read(&bytes, &id(1)).is_err());
        HeldMark::record_in(&bytes);
        Acceptance::read(&bytes);
    }
}

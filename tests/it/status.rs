//! `status`, `pin` and `unpin` over a folder: what is fresh, what counts, and what stands in the history.

use std::fs;

use serde_json::json;

use crate::backup::Shop;
use crate::prune::{nights, stocked};

#[test]
fn a_pin_says_why_and_goes_again() {
    let shop = Shop::new();
    let outcome = shop.backup(&[]).expect(0);
    let id = outcome.summary()["backups"][0]["backup_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let pin = |command: &[&str]| shop.over(&[&["--json"], command].concat()).run();
    let first = pin(&["pin", &id, "audit 2026"]).expect(0).json();
    assert_eq!(
        (&first["pinned"], &first["changed"], &first["reason"]),
        (&json!(true), &json!(true), &json!("audit 2026"))
    );
    let again = pin(&["pin", &id, "another"]).expect(0).json();
    assert_eq!(
        (&again["changed"], &again["reason"]),
        (&json!(false), &json!("audit 2026"))
    );
    let gone = pin(&["unpin", &id]).expect(0).json();
    assert_eq!(
        (&gone["pinned"], &gone["changed"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(pin(&["unpin", &id]).expect(0).json()["changed"], false);
    assert_eq!(
        pin(&["pin", "shop-20200101T000000Z-0000", "x"])
            .expect(10)
            .exit_error()["id"],
        "no_such_backup"
    );
    assert_eq!(
        pin(&["pin", &id, "  "]).expect(2).exit_error()["id"],
        "reason_needed"
    );
    let status = pin(&["status"]).expect(0).json();
    let verbs: Vec<&str> = status["databases"][0]["last_runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["verb"].as_str().unwrap())
        .collect();
    let mut sorted = verbs.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["backup", "pin", "unpin"], "{verbs:?}");
}

#[test]
fn status_tells_fresh_from_stale() {
    let shop = Shop::new();
    let status = |more: &[&str]| shop.over(&[&["--json", "status"], more].concat()).run();
    fs::create_dir_all(shop.folder()).unwrap();
    assert_eq!(status(&[]).expect(24).exit_error()["id"], "stale");
    shop.backup(&[]).expect(0);
    let fresh = status(&["--max-age", "1h"]).expect(0).json();
    let database = &fresh["databases"][0];
    assert_eq!(database["freshness"], "fresh");
    assert_eq!(
        (&database["backups"], &database["success"]),
        (&json!(1), &json!({"good": 1, "all": 1}))
    );
    assert_eq!(
        status(&[]).expect(0).json()["databases"][0]["freshness"],
        "not_judged"
    );

    // A failed run leaves a record, and the newest good backup is as fresh as before.
    let mut shop = shop;
    shop.dumps(json!({ "exit_code": 1 }));
    shop.run(&shop.oracle(), &[]).run().expect(20);
    let status = |more: &[&str]| shop.over(&[&["--json", "status"], more].concat()).run();
    let after = status(&["--max-age", "1h"]).expect(0).json();
    let database = &after["databases"][0];
    assert_eq!(database["success"], json!({"good": 1, "all": 2}));
    let last = &database["last_runs"][0];
    assert_eq!(
        (&last["verb"], &last["exit_code"]),
        (&json!("backup"), &json!(20)),
        "{after}"
    );
    assert!(
        database["warnings"][0]
            .as_str()
            .unwrap()
            .contains("the last backup run failed")
    );

    let old = stocked(&nights());
    let status = |more: &[&str]| old.over(&[&["status"], more].concat()).run();
    let outcome = status(&["--json", "--max-age", "26h"]).expect(24);
    assert_eq!(outcome.json()["databases"][0]["freshness"], "stale");
    assert!(
        outcome.exit_error()["details"][0]
            .as_str()
            .unwrap()
            .contains("shop-20260116T210000Z-0002")
    );
    for (flags, code, word) in [
        (
            &["--nagios", "--max-age", "26h"] as &[&str],
            2,
            "CRITICAL - shop: stale, newest good backup",
        ),
        (&["--nagios"], 0, "OK - shop: newest good backup"),
    ] {
        let outcome = status(flags).expect(code);
        assert!(outcome.stdout().starts_with(word), "{outcome}");
        assert!(outcome.stdout().contains("'shop_age'="), "{outcome}");
        assert_eq!(outcome.stderr(), "", "Nagios reads standard output only");
    }
    let nowhere = old.sandbox.path("nowhere").display().to_string();
    let unknown = old
        .sandbox
        .pgkeep(["status", "--nagios", "--storage", &nowhere])
        .run()
        .expect(3);
    assert!(unknown.stdout().starts_with("UNKNOWN - "), "{unknown}");
}

/// A backup from the future, or one that cannot be read, is not what freshness is judged by.
#[test]
fn status_passes_over_what_does_not_count() {
    let mut ids = nights();
    ids.insert(0, "shop-20990101T000000Z-0001".to_owned());
    let shop = stocked(&ids);
    let unreadable = shop.folder().join(format!("shop/{}.manifest.json", ids[1]));
    fs::write(unreadable, "garbage").unwrap();
    let outcome = shop
        .over(&["--json", "status", "--max-age", "26h"])
        .run()
        .expect(24);
    let database = outcome.json()["databases"][0].clone();
    assert_eq!(database["newest_good"]["id"], ids[2].as_str(), "{outcome}");
    let warnings = database["warnings"].to_string();
    assert!(
        warnings.contains("a start time in the future") && warnings.contains("manifest"),
        "{warnings}"
    );
}

/// One rule for all: a backup from the future counts for nothing, is `latest` for no command, and hides no copy.
#[test]
fn a_backup_from_the_future_is_the_latest_for_nobody() {
    const AHEAD: &str = "shop-20990101T000000Z-0001";
    let mut ids = nights();
    ids.insert(0, AHEAD.to_owned());
    let shop = stocked(&ids);
    let newest = ids[1].as_str();
    for (command, field) in [
        (&["show"][..], "id"),
        (&["get", "-o", "dump.sql.gz"], "id"),
        (&["pin", "latest", "audit"], "id"),
    ] {
        let outcome = shop.over(&[&["--json"], command].concat()).run().expect(0);
        assert_eq!(outcome.json()[field], newest, "{command:?}");
        let said = format!("{}{}", outcome.stdout(), outcome.stderr());
        assert!(said.contains(AHEAD), "{command:?}: {outcome}");
    }
    let outcome = shop.over(&["--json", "verify"]).run().expect(0);
    assert_eq!(outcome.summary()["copies"][0]["id"], newest);
    let status = shop.over(&["--json", "status"]).run().expect(0).json();
    let database = &status["databases"][0];
    assert_eq!(database["newest_good"]["id"], newest);
    assert_eq!(database["storages"][0]["newest_good"], newest);
    assert_eq!(database["alerts"], json!([]), "{status}");
    // By its id it is read all the same.
    let named = shop.over(&["--json", "show", AHEAD]).run().expect(0);
    assert_eq!(named.json()["id"], AHEAD);
    let alone = stocked(&[AHEAD.to_owned()]);
    let outcome = alone.over(&["--json", "show"]).run().expect(10);
    let error = outcome.exit_error();
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("this machine's clock"),
        "{error}"
    );
    assert!(error["details"].to_string().contains(AHEAD), "{error}");
}

/// R13: a drill that has not passed for more than 35 days is an alert of its own, and a failure where it was asked for.
#[test]
fn a_drill_that_did_not_come_is_told() {
    let ids = nights();
    let shop = stocked(&ids);
    let configure = |drill: serde_json::Value| {
        let config = json!({
            "databases": {"shop": {"url": "postgres://db/shop", "drill": drill}},
            "storages": {"local": {"url": shop.folder()}},
        });
        shop.sandbox.write("pgkeep.yaml", config.to_string());
    };
    let status = |code: i32| shop.sandbox.pgkeep(["--json", "status"]).run().expect(code);
    let drill = |outcome: &crate::support::sandbox::Outcome| {
        outcome.json()["databases"][0]["drill"].clone()
    };
    // Nobody said anything about drills, and none ever passed.
    let outcome = shop.over(&["--json", "status"]).run().expect(0);
    assert_eq!(drill(&outcome), json!(null));
    configure(json!({"skip_extensions": ["pg_cron"]}));
    let outcome = status(0);
    assert_eq!(drill(&outcome)["freshness"], "stale");
    let warnings = |outcome: &crate::support::sandbox::Outcome| {
        outcome.json()["databases"][0]["warnings"].to_string()
    };
    assert!(
        warnings(&outcome).contains("no drill has ever passed"),
        "{outcome}"
    );
    let passed = |ago: jiff::SignedDuration| {
        let at = jiff::Timestamp::now() - ago;
        let note = shop.folder().join(format!("shop/{}.drill.json", ids[3]));
        fs::write(note, json!({"format": 1, "passed_at": at}).to_string()).unwrap();
    };
    let days = |days: i64| jiff::SignedDuration::from_hours(24 * days);
    passed(days(34));
    let outcome = status(0);
    assert_eq!(drill(&outcome)["freshness"], "fresh", "{outcome}");
    passed(days(36));
    let outcome = status(0);
    assert!(
        warnings(&outcome).contains("is 36 d old; the limit is 35 d"),
        "{outcome}"
    );
    let nagios = shop.sandbox.pgkeep(["status", "--nagios"]).run().expect(1);
    assert!(
        nagios
            .stdout()
            .contains("the last drill that passed is 36 d old"),
        "{nagios}"
    );
    let outcome = shop.over(&["--json", "status"]).run().expect(0);
    assert_eq!(
        drill(&outcome)["freshness"],
        "stale",
        "one that passed once is expected again"
    );
    configure(json!({"max_age": "30d"}));
    let outcome = status(24);
    assert_eq!(outcome.exit_error()["id"], "drill_stale", "{outcome}");
    configure(json!({"max_age": "off"}));
    assert_eq!(drill(&status(0))["freshness"], "not_judged");
}

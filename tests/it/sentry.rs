//! What Sentry hears of commands: a real receiver takes the envelopes of the real binary.

use std::time::Duration;

use serde_json::{Value, json};

use crate::backup::Shop;
use crate::support::CANARY;
use crate::support::envelope::{KEY, dsn, items};
use crate::support::receiver::{Receiver, Reply};
use crate::support::sandbox::{Outcome, Run};

/// A shop whose configuration names a project at the receiver, and schedules backups.
fn tracked(receiver: &Receiver) -> Shop {
    let mut shop = Shop::new();
    shop.sandbox.set("PROJECT", dsn(receiver));
    configure(
        &shop,
        &json!({"dsn": "${PROJECT}", "environment": "staging"}),
    );
    shop
}

fn configure(shop: &Shop, sentry: &Value) {
    let config = json!({
        "databases": {"shop": {
            "url": "${DATABASE_URL}", "schedule": "15 3 * * *", "timezone": "Europe/Berlin",
        }},
        "storages": {"local": {"url": "backups"}},
        "sentry": sentry,
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
}

fn backup<'a>(shop: &'a Shop, more: &[&str]) -> Run<'a> {
    let bin = shop.fake.bin().display().to_string();
    let fixed = ["--json", "backup", "--attempts", "1", "--bin-dir", &bin];
    shop.sandbox.pgkeep([&fixed, more].concat())
}

/// Returns the only event that came.
#[track_caller]
fn only_event(receiver: &Receiver) -> Value {
    let mut events = items(receiver, "event");
    assert_eq!(events.len(), 1, "{events:#?}");
    events.remove(0)
}

fn message_of(event: &Value) -> &str {
    event["exception"]["values"][0]["value"].as_str().unwrap()
}

/// What an event says must be what the terminal said.
#[track_caller]
fn assert_told(event: &Value, verb: &str, database: Option<&str>, outcome: &Outcome) {
    let error = outcome.exit_error();
    assert_eq!(
        event["exception"]["values"][0]["type"], error["id"],
        "{event:#}"
    );
    assert_eq!(message_of(event), error["message"]);
    assert_eq!(event["tags"]["verb"], verb);
    assert_eq!(event["tags"]["database"].as_str(), database);
    assert_eq!(event["tags"]["failure"], error["id"]);
    assert_eq!(event["tags"]["exit_code"], error["code"].to_string());
    let parts = [
        "pgkeep",
        verb,
        error["id"].as_str().unwrap(),
        database.unwrap_or_default(),
    ];
    assert_eq!(event["fingerprint"], json!(parts));
    // An error is what an event without a level is.
    assert_eq!(event.get("level"), None, "{event:#}");
    assert_eq!(event["transaction"], format!("pgkeep {verb}"));
    assert_eq!(
        event["release"],
        format!("pgkeep@{}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_run_that_fails_is_one_event_without_a_secret() {
    let receiver = Receiver::start();
    let mut shop = tracked(&receiver);
    shop.sandbox
        .may_hold_secret(&shop.fake.bin().join("fake.json"));
    let words = format!("pg_dump: error: it said {CANARY} and {KEY}");
    shop.dumps(json!({ "exit_code": 1, "last_stderr": words }));
    let outcome = backup(&shop, &[]).run().expect(20);
    let event = only_event(&receiver);
    assert_told(&event, "backup", Some("shop"), &outcome);
    assert_eq!(event["environment"], "staging");
    assert_eq!(event["tags"]["trigger"], "manual");
    let details = event["contexts"]["run"]["details"].to_string();
    assert!(details.contains("it said *** and ***"), "{event:#}");
    // Nobody scheduled it.
    assert!(items(&receiver, "check_in").is_empty());
}

/// The two check-ins of a scheduled run: one id, one monitor, and the schedule that makes it.
#[test]
fn a_scheduled_backup_checks_in_and_out() {
    let receiver = Receiver::start();
    let mut shop = tracked(&receiver);
    for (code, status) in [(0, "ok"), (20, "error")] {
        receiver.forget();
        if code != 0 {
            shop.dumps(json!({ "exit_code": 1 }));
        }
        backup(&shop, &["--trigger", "schedule"]).run().expect(code);
        let pair = items(&receiver, "check_in");
        assert_eq!(pair.len(), 2, "{pair:#?}");
        assert_eq!(pair[0]["status"], "in_progress");
        assert_eq!(pair[1]["status"], status);
        assert_eq!(pair[0]["check_in_id"], pair[1]["check_in_id"]);
        for one in &pair {
            assert_eq!(one["monitor_slug"], "pgkeep-shop-backup");
            assert_eq!(one["environment"], "staging");
            let monitor = json!({
                "schedule": {"type": "crontab", "value": "15 3 * * *"},
                "timezone": "Europe/Berlin", "checkin_margin": 30, "max_runtime": 360,
            });
            assert_eq!(one["monitor_config"], monitor);
        }
        let events = items(&receiver, "event");
        assert_eq!(events.len(), usize::from(code != 0), "{events:#?}");
        assert!(
            events
                .iter()
                .all(|event| event["tags"]["trigger"] == "schedule")
        );
    }
}

/// Commands that fail before they have a run, and those that no report is about, are told all the same, once.
#[test]
fn every_verb_that_fails_is_told() {
    let receiver = Receiver::start();
    let shop = tracked(&receiver);
    let lost = "shop-20260102T030405Z-7f3a";
    for (verb, arguments) in [
        ("verify", vec!["verify"]),
        ("verify", vec!["verify", lost]),
        (
            "drill",
            vec!["drill", "--drill-url", "postgresql://127.0.0.1:1/x"],
        ),
        ("restore", vec!["restore", lost, "--into", "shop_restored"]),
        (
            "guard",
            vec!["guard", "--bin-dir", "/nowhere", "--", "true"],
        ),
        ("backup", vec!["backup", "--bin-dir", "/nowhere"]),
        (
            "backup",
            vec!["-d", "shop", "backup", "--compression", "rar"],
        ),
    ] {
        receiver.forget();
        let all = [&["--json"], arguments.as_slice()].concat();
        let outcome = shop.sandbox.pgkeep(&all).run();
        assert_ne!(outcome.code(), 0, "{outcome}");
        assert_told(&only_event(&receiver), verb, Some("shop"), &outcome);
    }

    // What is no run is nobody's concern.
    receiver.forget();
    shop.sandbox.pgkeep(["show", lost]).run().expect(10);
    assert!(items(&receiver, "event").is_empty());
}

/// The environment counts where the configuration says nothing, also where that cannot be read.
#[test]
fn the_environment_may_name_the_project() {
    let receiver = Receiver::start();
    let shop = Shop::new();
    let tracked = |run: Run<'_>| {
        let run = run.env("SENTRY_DSN", dsn(&receiver));
        run.env("SENTRY_ENVIRONMENT", "production").run()
    };
    shop.sandbox.write("pgkeep.yaml", "databases: {}\n");
    let outcome = tracked(backup(&shop, &[])).expect(2);
    let event = only_event(&receiver);
    assert_told(&event, "backup", None, &outcome);
    assert_eq!(event["environment"], "production");

    // The configuration goes first.
    let other = Receiver::start();
    shop.sandbox.write_secret("dsn", dsn(&other) + "\n");
    configure(
        &shop,
        &json!({"dsn_file": "dsn", "release": "shop-backups@7"}),
    );
    receiver.forget();
    let run = shop.sandbox.pgkeep(["backup", "--bin-dir", "/nowhere"]);
    run.env("SENTRY_DSN", dsn(&receiver)).run().expect(26);
    assert!(items(&receiver, "event").is_empty());
    assert_eq!(only_event(&other)["release"], "shop-backups@7");
}

#[test]
fn a_panic_is_told_without_a_secret() {
    let receiver = Receiver::start();
    let shop = tracked(&receiver);
    let words = format!("it broke at {CANARY}");
    let run = backup(&shop, &[]).env("PGKEEP_TEST_PANIC", words);
    run.run().expect(1);
    let event = only_event(&receiver);
    assert_eq!(event["level"], "fatal");
    assert_eq!(event["tags"]["failure"], "panicked");
    assert!(message_of(&event).contains("it broke at ***"), "{event:#}");
}

/// Whatever Sentry does, a run ends as it would without, and soon.
#[test]
fn a_sentry_that_is_down_fails_no_run() {
    for (reply, words) in [
        (
            Some(Reply::Status(429, "slow `down`")),
            "429 Too Many Requests and said `slow 'down'`",
        ),
        (
            Some(Reply::Redirect("http://127.0.0.1:1/stolen".into())),
            "307 Temporary Redirect",
        ),
        (Some(Reply::Hang), "did not answer within 2000 ms"),
        (None, "cannot be reached"),
    ] {
        let receiver = Receiver::start();
        let shop = tracked(&receiver);
        match reply {
            Some(reply) => receiver.on("/envelope/", usize::MAX, reply),
            None => configure(
                &shop,
                &json!({"dsn": format!("http://{KEY}@127.0.0.1:1/42")}),
            ),
        }
        let outcome = backup(&shop, &["--trigger", "schedule"]).run().expect(0);
        let said = outcome.stderr();
        assert!(said.contains(words), "{words}: {outcome}");
        assert!(!said.contains(KEY), "{outcome}");
        assert!(outcome.took < Duration::from_secs(12), "{:?}", outcome.took);
        let backups = outcome.summary();
        assert_eq!(backups["backups"][0]["warnings"], json!([]), "{backups:#}");
    }
}

#[test]
fn check_says_where_errors_go() {
    let receiver = Receiver::start();
    let shop = tracked(&receiver);
    let bin = shop.fake.bin().display().to_string();
    let line = |more: &[&str]| {
        let all = [&["--json", "check", "--bin-dir", &bin], more].concat();
        let outcome = shop.sandbox.pgkeep(all).run();
        let document: Value = serde_json::from_str(outcome.stdout()).unwrap();
        let lines = document["checks"].as_array().unwrap();
        let found = lines.iter().find(|line| line["subject"] == "sentry");
        found.cloned().unwrap_or_default()
    };
    let shown = line(&[]);
    assert_eq!(shown["verdict"], "skipped");
    assert_eq!(shown["message"], "not tried: project 42 at 127.0.0.1");
    assert!(items(&receiver, "event").is_empty());
    let shown = line(&["--send-test"]);
    assert_eq!(
        shown["message"],
        "project 42 at 127.0.0.1 accepted a test event"
    );
    assert_eq!(only_event(&receiver)["level"], "info");

    receiver.on("/envelope/", 1, Reply::Status(403, ""));
    let shown = line(&["--send-test"]);
    assert_eq!(shown["verdict"], "warn");
    assert!(
        shown["message"].as_str().unwrap().contains("403 Forbidden"),
        "{shown}"
    );

    configure(&shop, &json!({"dsn": "https://sentry.example/sesame"}));
    let shown = line(&[]);
    assert_eq!(shown["verdict"], "warn");
    assert!(!shown.to_string().contains("sesame"), "{shown}");
    let outcome = backup(&shop, &[]).run().expect(0);
    assert!(
        outcome
            .stderr()
            .contains("`sentry.dsn` is not a DSN of Sentry"),
        "{outcome}"
    );
}

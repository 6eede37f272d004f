//! A binary that was built without Sentry says so where the configuration wants it, and does everything else.

use serde_json::{Value, json};

use crate::backup::Shop;

#[test]
fn what_cannot_be_tracked_is_warned_of() {
    let shop = Shop::new();
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}"}},
        "storages": {"local": {"url": "backups"}},
        "sentry": {"dsn": "https://0123456789abcdef@sentry.example/42"},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let bin = shop.fake.bin().display().to_string();
    let backup = ["backup", "--attempts", "1", "--bin-dir", &bin];
    let outcome = shop.sandbox.pgkeep(backup).run().expect(0);
    let words = "`sentry` in the configuration has no effect";
    assert!(outcome.stderr().contains(words), "{outcome}");
    let check = ["--json", "check", "--bin-dir", &bin];
    let outcome = shop.sandbox.pgkeep(check).run();
    let document: Value = serde_json::from_str(outcome.stdout()).unwrap();
    let lines = document["checks"].as_array().unwrap();
    let line = lines
        .iter()
        .find(|line| line["subject"] == "sentry")
        .unwrap();
    assert_eq!(line["verdict"], "warn");
    assert!(line["message"].as_str().unwrap().contains(words), "{line}");
}

//! Metrics of a server whose backups are in a bucket: a scrape asks it nothing, and a restart makes no other series.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use super::{Serving, Shop, TOKENS};
use crate::support::scripted_s3::ScriptedS3;

/// Returns the names of all series with their labels.
fn series(serving: &Serving<'_>) -> BTreeSet<String> {
    let text = serving.get("/metrics").expect(200).text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names = lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
    names.collect()
}

#[test]
fn a_scrape_asks_no_storage_and_a_restart_keeps_all_series() {
    let Some(mut shop) = Shop::new("") else {
        return;
    };
    let s3 = ScriptedS3::start();
    for (key, value) in s3.environment() {
        shop.sandbox.set(key, value);
    }
    let keys = "    schedule: '0 3 29 2 *'\n    drill: {schedule: '0 3 29 2 *'}\n    max_age: 26h\n    storages: [bucket]\n";
    shop.configure(keys, TOKENS);
    let path = shop.sandbox.path("pgkeep.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let bucket = format!(
        "storages:\n  bucket: {{url: 's3://{}/backups', endpoint: {}, region: us-east-1}}\n",
        s3.bucket, s3.endpoint
    );
    let text = text.replace("storages:\n  local: {url: ./backups}\n", &bucket);
    shop.sandbox.write_secret("pgkeep.yaml", text);

    let serving = shop.serve(&[]);
    for kind in ["backups", "drills", "verifications"] {
        let id = serving.start(kind);
        assert_eq!(serving.wait_for(&id)["state"], "done");
    }
    // The storages are listed after a run, and once a minute; one of several short whiles is between two looks.
    let is_silent = (0..5).any(|_| {
        sleep(Duration::from_secs(1));
        let before = s3.log().len();
        for _ in 0..20 {
            serving.get("/metrics").expect(200);
        }
        s3.log().len() == before
    });
    assert!(is_silent, "a scrape asks the bucket");
    let before = series(&serving);
    assert!(before.len() >= 18, "{before:#?}");
    assert!(
        before.contains(r#"pgkeep_drill_restore_seconds{database="shop"}"#),
        "{before:#?}"
    );
    serving.end().expect(0);
    let serving = shop.serve(&[]);
    assert_eq!(series(&serving), before);
    serving.end().expect(0);
}

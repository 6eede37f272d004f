//! What the sweep behind a repair leaves alone: the last good part of a backup, and what it cannot judge.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Both, flip, gone, report};
use crate::prune::nights;
use crate::support::sandbox::Outcome;
use crate::support::scripted_s3::{Fault, Rule};

/// Makes an object older than what a sweep takes for a live run's.
fn age(path: &Path) {
    let status = Command::new("touch")
        .args(["-d", "2 days ago"])
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

/// A configuration with the folder as `main` and the bucket as `offsite`.
fn configure(both: &Both, more: &str) {
    let text = format!(
        "databases: {{shop: {{url: \"postgresql://h/shop\"}}}}\nstorages:\n  main: {{url: {}}}\n  offsite:\n    \
         url: s3://{}/pg\n    endpoint: {}\n    access_key_id: {}\n    secret_access_key: ${{AWS_SECRET_ACCESS_KEY}}\n{more}",
        both.shop.folder().display(),
        both.bucket.bucket,
        both.bucket.endpoint,
        both.bucket.access_key,
    );
    both.shop.sandbox.write("pgkeep.yaml", text);
}

/// `sync` over the folder alone, by flags.
fn sync_folder(both: &Both) -> Outcome {
    both.shop.over(&["--json", "sync"]).run()
}

fn orphans(outcome: &Outcome) -> Value {
    report(outcome)["storages"][0]["orphans"].clone()
}

/// The folder's dump is damaged and marked so, the bucket lost its manifest: together they are whole. A marked backup
/// counts for nothing by the rule after a month, and the bucket's dump would be an orphan.
#[test]
fn halves_of_an_old_backup_are_joined_and_not_swept() {
    let both = Both::stocked(&nights()[..3]);
    let whole = both.held();
    let id = &nights()[1];
    flip(&both.folder(id, "sql.gz"));
    both.shop.over(&["verify", "--all"]).run().expect(23);
    assert!(both.folder(id, "damaged.json").exists());
    gone(&both.bucket(id, "manifest.json"));
    age(&both.bucket(id, "sql.gz"));
    both.sync(&[]).expect(0);
    assert_eq!(both.held(), whole);
    both.assert_same();
}

/// A part is removed only where all storages that could have its manifest were seen.
#[test]
fn an_orphan_stays_where_another_storage_may_have_its_manifest() {
    let both = Both::stocked(&nights()[..3]);
    configure(&both, "");
    let id = &nights()[1];
    let dump = both.folder(id, "sql.gz");
    gone(&both.folder(id, "manifest.json"));
    age(&dump);

    // Only one of the two storages of the configuration is named.
    let left = orphans(&sync_folder(&both).expect(0));
    assert_eq!(
        (&left[0]["id"], &left[0]["removed"]),
        (&json!(id), &json!(false))
    );
    let why = left[0]["error"].as_str().unwrap();
    assert!(why.contains("not every storage"), "{why}");

    // The other one does not answer.
    let denied = Rule::new("GET", Fault::status(403, "AccessDenied")).query("list-type=2");
    both.bucket.on(denied);
    let left = orphans(&both.sync(&[]).expect(12));
    let why = left[0]["error"].as_str().unwrap();
    assert!(why.contains("did not answer"), "{why}");
    assert!(dump.exists());

    // It answers, and has the manifest.
    both.bucket.behave();
    both.sync(&[]).expect(0);
    both.assert_same();
    assert_eq!(both.held()[0].len(), 6);

    // No other storage is known, and none has it: now it goes.
    gone(&both.folder(id, "manifest.json"));
    age(&dump);
    fs::remove_file(both.shop.sandbox.path("pgkeep.yaml")).unwrap();
    assert_eq!(orphans(&sync_folder(&both).expect(0))[0]["removed"], true);
    assert!(!dump.exists());
}

/// The lease lies where `lock.storage` says, also for a run whose storages are named by flags.
#[test]
fn a_sync_by_flags_locks_as_the_configuration_says() {
    let both = Both::stocked(&nights()[..3]);
    let leases = || {
        let log = both.bucket.log();
        log.iter()
            .filter(|seen| seen.method == "PUT" && seen.path.ends_with("lease.json"))
            .count()
    };
    for (command, flags) in [("sync", &[] as &[&str]), ("prune", &["--keep-last", "9"])] {
        configure(&both, "lock: {storage: main}\n");
        let run = || both.run(&[&[command], flags].concat()).run().expect(0);
        let before = leases();
        run();
        assert_eq!(leases(), before, "{command}");
        configure(&both, "");
        run();
        assert!(leases() > before, "{command}");
    }
}

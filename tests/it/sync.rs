//! `sync` as a repair: what a storage lost comes back from another one, and nothing that is damaged spreads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pgkeep_model::words::hex;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::backup::Shop;
use crate::prune::{nights, stock};
use crate::support::sandbox::{Outcome, Run};
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3, Seen};
use crate::support::{Oracle, Place, skip};

mod sweep;

/// A folder and a bucket that should hold the same.
struct Both {
    shop: Shop,
    bucket: ScriptedS3,
}

impl Both {
    fn new() -> Self {
        let bucket = ScriptedS3::start();
        let shop = Shop::with_key(&bucket);
        Self { shop, bucket }
    }

    /// The same backups in both.
    fn stocked(ids: &[String]) -> Self {
        let both = Self::new();
        let [folder, bucket] = both.roots();
        stock(&both.shop, &folder, ids);
        duplicate(&folder, &bucket);
        both
    }

    /// One backup with globals in both.
    fn with_globals(more: &[&str]) -> (Self, String) {
        let both = Self::new();
        let globals = [&["--globals"], more].concat();
        let outcome = both.shop.run(&both.oracle(), &globals).run().expect(0);
        let id = outcome.summary()["backups"][0]["backup_id"].clone();
        (both, id.as_str().unwrap().to_owned())
    }

    fn places(&self) -> [Place<'_>; 2] {
        [
            Place::Folder(self.shop.folder()),
            Place::Bucket(&self.bucket),
        ]
    }

    fn oracle(&self) -> Oracle<'_> {
        Oracle::new(&self.shop.sandbox, self.places().into())
    }

    fn roots(&self) -> [PathBuf; 2] {
        self.places().map(|place| place.file(""))
    }

    fn run(&self, command: &[&str]) -> Run<'_> {
        let command = ["--json"]
            .iter()
            .chain(command)
            .map(|word| (*word).to_owned());
        self.shop
            .sandbox
            .pgkeep(command.chain(self.oracle().flags()))
    }

    /// `sync` over both, and a third one behind them.
    fn sync_with(&self, third: &Path) -> Outcome {
        let flags = self.oracle().flags().into_iter();
        let more = ["--storage".to_owned(), third.display().to_string()];
        let command = ["--json", "sync"].map(str::to_owned).into_iter();
        self.shop
            .sandbox
            .pgkeep(command.chain(flags).chain(more))
            .run()
    }

    fn sync(&self, more: &[&str]) -> Outcome {
        self.run(&[&["sync"], more].concat()).run()
    }

    /// What each storage holds of backups, by key.
    fn held(&self) -> [BTreeMap<String, String>; 2] {
        self.places().map(|place| held(&place))
    }

    #[track_caller]
    fn assert_same(&self) {
        let [folder, bucket] = self.held();
        assert_eq!(folder, bucket);
        self.oracle().assert_tidy();
    }

    fn folder(&self, id: &str, end: &str) -> PathBuf {
        self.roots()[0].join(format!("shop/{id}.{end}"))
    }

    fn bucket(&self, id: &str, end: &str) -> PathBuf {
        self.roots()[1].join(format!("shop/{id}.{end}"))
    }
}

fn held(place: &Place<'_>) -> BTreeMap<String, String> {
    let keys = place.keys().into_iter();
    let kept = keys.filter(|key| !key.contains("/runs/") && !key.contains("lease.json"));
    kept.map(|key| {
        let bytes = fs::read(place.file(&key)).unwrap();
        (key, hex(&Sha256::digest(bytes)))
    })
    .collect()
}

/// Copies what one storage has of backups.
fn duplicate(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("shop")).unwrap();
    for entry in fs::read_dir(from.join("shop")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join("shop").join(entry.file_name())).unwrap();
        }
    }
}

fn report(outcome: &Outcome) -> Value {
    outcome.json()["databases"][0].clone()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

fn gone(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// Half of a storage's objects are lost, whichever they are: dumps, manifests, both.
#[test]
fn a_storage_that_lost_half_of_its_objects_is_repaired() {
    let both = Both::stocked(&nights());
    let whole = both.held();
    for (at, first) in [(1, 0), (1, 1), (0, 0), (0, 1)] {
        let lost: Vec<String> = whole[at].keys().skip(first).step_by(2).cloned().collect();
        // Each first object is a manifest, so every third one is a mixture.
        let mixed = whole[at].keys().skip(first).step_by(3).cloned();
        for key in lost.iter().cloned().chain(mixed) {
            let _ = fs::remove_file(both.roots()[at].join(key)); // it may be among both
        }
        let after = both.held();
        let dry = report(&both.sync(&["--dry-run"]).expect(0));
        assert_eq!(both.held(), after, "a dry run changed something");
        let real = report(&both.sync(&[]).expect(0));
        assert_eq!(dry["copied_bytes"], real["copied_bytes"], "{dry}\n{real}");
        assert!(real["copied_bytes"].as_u64().unwrap() > 0);
        assert_eq!(real["kept"], 17);
        let copies = |report: &Value| report["copies"].as_array().unwrap().len();
        assert_eq!(copies(&dry), copies(&real));
        assert!(
            real["copies"]
                .as_array()
                .unwrap()
                .iter()
                .all(|line| line["copied"] == true)
        );
        assert_eq!(both.held(), whole);
        both.assert_same();
        let again = report(&both.sync(&[]).expect(0));
        assert_eq!(
            (&again["copies"], &again["copied_bytes"]),
            (&json!([]), &json!(0))
        );
    }
    let all = both.run(&["verify", "--all"]).run().expect(0);
    assert_eq!(all.summary()["copies"].as_array().unwrap().len(), 34);
}

/// What is wrong in one storage, and whether a listing shows it.
#[test]
fn a_damaged_copy_is_replaced_by_the_good_one() {
    type Spoil = fn(&Path);
    let garbage: Spoil = |path| fs::write(path, "garbage").unwrap();
    for (end, spoil, is_listed, state) in [
        ("sql.gz", flip as Spoil, false, "damaged"),
        ("sql.gz", cut, true, "damaged"),
        ("sql.gz", gone, true, "damaged"),
        ("globals.sql.gz", flip, false, "damaged"),
        ("globals.sql.gz", cut, true, "damaged"),
        ("globals.sql.gz", gone, true, "damaged"),
        ("manifest.json", garbage, true, "damaged"),
        ("manifest.json", gone, true, "missing"),
    ] {
        for at in [0, 1] {
            let (both, id) = Both::with_globals(&[]);
            let whole = both.held();
            spoil(&both.roots()[at].join(format!("shop/{id}.{end}")));
            let first = report(&both.sync(&[]).expect(0));
            if is_listed {
                assert_eq!(first["copies"][0]["state"], state, "{end}: {first}");
            } else {
                assert_eq!(first["copies"], json!([]), "a listing cannot show it");
                let dry = report(&both.sync(&["--verify", "--dry-run"]).expect(0));
                let real = report(&both.sync(&["--verify"]).expect(0));
                assert_eq!(dry["copied_bytes"], real["copied_bytes"]);
                assert_eq!(real["copies"][0]["state"], state, "{real}");
            }
            assert_eq!(both.held(), whole, "{end} in {at}");
            both.assert_same();
        }
    }
}

/// A long index lies beside the manifest, which knows its hash and not its size.
#[test]
fn a_long_index_comes_along() {
    let both = Both::new();
    let id =
        both.shop.run(&both.oracle(), &[]).run().expect(0).summary()["backups"][0]["backup_id"]
            .as_str()
            .unwrap()
            .to_owned();
    for root in both.roots() {
        let path = root.join(format!("shop/{id}.manifest.json"));
        let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let index = serde_json::to_vec(&manifest["chunks"]["inline"]).unwrap();
        let sha256 = hex(&Sha256::digest(&index));
        manifest["chunks"] = json!({"beside": {"count": 1, "sha256": sha256}});
        fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
        fs::write(root.join(format!("shop/{id}.index")), index).unwrap();
    }
    let whole = both.held();
    both.run(&["verify", "--all"]).run().expect(0);
    for spoil in [gone as fn(&Path), flip] {
        spoil(&both.bucket(&id, "index"));
        let dry = report(&both.sync(&["--verify", "--dry-run"]).expect(0));
        let real = report(&both.sync(&["--verify"]).expect(0));
        assert_eq!(dry["copied_bytes"], real["copied_bytes"], "{real}");
        assert_eq!(both.held(), whole);
    }
}

/// Encrypted bytes are copied as they are, with what a listing tells of their recipients, and no key is asked for.
#[test]
fn an_encrypted_backup_comes_with_its_recipients() {
    let both = Both::new();
    let key = both.shop.sandbox.path("key.txt");
    let generate = ["keys", "generate", "--output", key.to_str().unwrap()];
    both.shop.sandbox.pgkeep(generate).run().expect(0);
    let text = fs::read_to_string(&key).unwrap();
    let public = text
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    both.shop
        .run(&both.oracle(), &["--globals", "--recipient", public])
        .run()
        .expect(0);
    let whole = both.held();
    assert!(
        whole[0].keys().any(|key| key.contains(".recipients.")),
        "{whole:?}"
    );
    for key in whole[1].keys() {
        fs::remove_file(both.roots()[1].join(key)).unwrap();
        let real = report(&both.sync(&["--verify"]).expect(0));
        let state = &real["copies"][0]["state"];
        assert_eq!(
            *state == "unmarked",
            key.contains(".recipients."),
            "{key}: {real}"
        );
        assert_eq!(both.held(), whole, "{key}");
    }
    fs::remove_dir_all(both.roots()[1].join("shop")).unwrap();
    both.sync(&[]).expect(0);
    both.assert_same();
}

/// Moving house: the new storage gets everything, pins and marks too, and nothing that the policy drops.
#[test]
fn an_empty_storage_is_filled_with_what_is_kept() {
    let both = Both::new();
    let ids = nights();
    stock(&both.shop, &both.roots()[0], &ids);
    // The oldest two would go, and one of them is pinned.
    let pinned = ids.last().unwrap();
    both.shop.over(&["pin", pinned, "audit"]).run().expect(0);
    let guarded = both.folder(&ids[0], "pre-deploy.json");
    fs::write(guarded, "{}").unwrap();
    let file = both.shop.sandbox.path("pgkeep.yaml");
    let text = format!(
        "databases:\n  shop:\n    url: ${{DATABASE_URL}}\n    retention: {{keep_last: 15}}\nstorages:\n  \
         local: {{url: {}}}\n  s3: {{url: {}, endpoint: {}}}\n",
        both.shop.folder().display(),
        both.places()[1].url(),
        both.bucket.endpoint,
    );
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let run = |more: &[&str]| {
        let all = [&["--json", "-c", &file, "sync"], more].concat();
        report(&both.shop.sandbox.pgkeep(all).run().expect(0))
    };
    let dry = run(&["--dry-run"]);
    assert!(both.held()[1].is_empty());
    let real = run(&[]);
    assert_eq!(
        (&real["kept"], &dry["copied_bytes"]),
        (&json!(16), &real["copied_bytes"])
    );
    let first = &real["copies"][0];
    assert_eq!(
        (&first["id"], &first["from"]),
        (&json!(ids[0]), &json!("local")),
        "newest first"
    );
    let [mut folder, bucket] = both.held();
    folder.retain(|key, _| !key.contains(&ids[15]));
    assert_eq!(folder, bucket, "all but the one that goes");
    let prune = ["-c", &file, "prune"].map(str::to_owned);
    both.shop.sandbox.pgkeep(prune).run().expect(0);
    both.assert_same();
    let runs = both.places()[1].keys().into_iter();
    let record = runs
        .filter(|key| key.contains("/runs/"))
        .map(|key| fs::read(both.places()[1].file(&key)).unwrap())
        .map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap())
        .find(|record| record["verb"] == "sync")
        .unwrap();
    assert_eq!(
        (&record["copied"], &record["exit_code"]),
        (&json!(16), &json!(0))
    );
}

/// A pin that only one storage has would let the other one's copy go.
#[test]
fn a_pin_reaches_the_copies_that_are_there() {
    let both = Both::stocked(&nights()[..2]);
    let id = &nights()[1];
    both.shop.over(&["pin", id, "audit"]).run().expect(0);
    let real = report(&both.sync(&[]).expect(0));
    assert_eq!(real["copies"][0]["state"], "unmarked", "{real}");
    both.assert_same();
    both.run(&["unpin", id]).run().expect(0);
    assert_eq!(report(&both.sync(&[]).expect(0))["copies"], json!([]));
    assert!(both.held()[1].keys().all(|key| !key.ends_with(".pin.json")));
}

/// Bytes that are not those of the manifest are stored nowhere, and what is nowhere good is left as it is.
#[test]
fn a_source_that_is_damaged_is_copied_nowhere() {
    let id = &nights()[0];
    let both = Both::stocked(&nights()[..1]);
    let third = both.shop.sandbox.path("third");
    duplicate(&both.roots()[0], &third);
    flip(&both.folder(id, "sql.gz"));
    gone(&both.bucket(id, "sql.gz"));
    gone(&both.bucket(id, "manifest.json"));
    let before = both.held();
    let outcome = both.sync(&[]).expect(23);
    assert_eq!(outcome.exit_error()["id"], "backup_damaged", "{outcome}");
    assert_eq!(report(&outcome)["lost"][0]["id"], *id, "{outcome}");
    assert_eq!(both.held(), before, "{outcome}");
    both.oracle().assert_tidy();

    // A third storage has it: both are repaired from there, the damaged one though no listing shows it.
    let good = held(&Place::Folder(third.clone()));
    let outcome = both.sync_with(&third).expect(0);
    let report = report(&outcome);
    assert_eq!(report["copies"].as_array().unwrap().len(), 2, "{outcome}");
    assert!(
        report["warnings"].to_string().contains("is damaged"),
        "{outcome}"
    );
    assert_eq!(both.held(), [good.clone(), good]);
}

#[test]
fn where_every_copy_is_damaged_all_stay_as_they_are() {
    let id = &nights()[0];
    for (spoil, flags) in [
        (cut as fn(&Path), &[] as &[&str]),
        (gone, &[]),
        (flip, &["--verify"]),
    ] {
        let both = Both::stocked(&nights()[..3]);
        spoil(&both.folder(id, "sql.gz"));
        spoil(&both.bucket(id, "sql.gz"));
        gone(&both.bucket(&nights()[1], "sql.gz"));
        let before = both.held();
        let outcome = both.sync(&[flags, &["--dry-run"]].concat()).expect(23);
        assert_eq!(both.held(), before, "{outcome}");
        let outcome = both.sync(flags).expect(23);
        let details = outcome.exit_error()["details"].as_array().unwrap().len();
        assert_eq!(details, 2, "one for each copy: {outcome}");
        // The other one is repaired all the same.
        let mut after = both.held();
        assert!(
            after[1]
                .remove(&format!("shop/{}.sql.gz", nights()[1]))
                .is_some()
        );
        assert_eq!(after, before);
    }
}

/// What one storage lost another has, and the other way round: both are whole again.
#[test]
fn each_object_comes_from_the_storage_that_has_it() {
    let (both, id) = Both::with_globals(&["--pin", "audit"]);
    let whole = both.held();
    cut(&both.folder(&id, "sql.gz"));
    gone(&both.folder(&id, "globals.sql.gz"));
    gone(&both.bucket(&id, "manifest.json"));
    let real = report(&both.sync(&[]).expect(0));
    assert_eq!(real["copies"].as_array().unwrap().len(), 2, "{real}");
    assert_eq!(both.held(), whole);
    both.assert_same();
}

/// A copy that `verify` marked is replaced; one whose mark is wrong only loses the mark.
#[test]
fn a_mark_of_damage_goes_with_the_damage() {
    let both = Both::stocked(&nights()[..1]);
    let id = &nights()[0];
    let whole = both.held();
    flip(&both.folder(id, "sql.gz"));
    both.shop.over(&["verify", "--all"]).run().expect(23);
    let real = report(&both.sync(&[]).expect(0));
    assert_eq!(real["copies"][0]["state"], "damaged", "{real}");
    assert_eq!(both.held(), whole);
    fs::write(both.bucket(id, "damaged.json"), "{}").unwrap();
    let real = report(&both.sync(&[]).expect(0));
    assert_eq!(
        (&real["copies"][0]["copied"], &real["copied_bytes"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(both.held(), whole);
    // The mark may be about the manifest, whose size says nothing.
    let manifest = both.bucket(id, "manifest.json");
    let bytes = fs::read(&manifest).unwrap();
    fs::write(&manifest, [b"[", &bytes[1..]].concat()).unwrap();
    fs::write(both.bucket(id, "damaged.json"), "{}").unwrap();
    let real = report(&both.sync(&[]).expect(0));
    assert!(real["copied_bytes"].as_u64().unwrap() > 0, "{real}");
    assert_eq!(both.held(), whole);
}

/// Killed in the middle: nothing half is visible, and the next run goes on where it was.
#[test]
fn a_sync_that_is_killed_is_resumed() {
    let both = Both::new();
    stock(&both.shop, &both.roots()[0], &nights()[..5]);
    both.bucket.on(Rule::new("PUT", Fault::Hang)
        .path(".sql.gz")
        .skip(2)
        .times(1));
    let puts = |end: &str| {
        let log = both.bucket.log();
        log.iter()
            .filter(|seen| seen.method == "PUT" && seen.path.ends_with(end))
            .count()
    };
    let running = both.run(&["sync"]).start();
    while puts(".sql.gz") < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal(Signal::KILL);
    running.wait();
    let [_, bucket] = both.held();
    assert_eq!(bucket.len(), 4, "two whole backups: {bucket:?}");
    let real = report(&both.sync(&[]).expect(0));
    assert_eq!(real["copies"].as_array().unwrap().len(), 3, "{real}");
    both.assert_same();
    assert_eq!(
        (puts(".sql.gz"), puts(".manifest.json")),
        (6, 5),
        "nothing is copied twice"
    );
}

/// A kill between the dump and its manifest leaves what the next run completes without sending it again.
#[test]
fn what_was_stored_without_its_manifest_is_completed() {
    let both = Both::new();
    stock(&both.shop, &both.roots()[0], &nights()[..1]);
    both.bucket.on(Rule::new("PUT", Fault::Hang)
        .path(".manifest.json")
        .times(1));
    let running = both.run(&["sync"]).start();
    let is_manifest = |seen: &Seen| seen.method == "PUT" && seen.path.ends_with(".manifest.json");
    while !both.bucket.log().iter().any(is_manifest) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let asked = Instant::now();
    running.signal(Signal::TERM);
    let outcome = running.wait().expect(143);
    assert!(asked.elapsed() < Duration::from_secs(10), "{outcome}");
    let [folder, bucket] = both.held();
    assert_eq!(
        bucket.keys().collect::<Vec<_>>(),
        [&format!("shop/{}.sql.gz", nights()[0])]
    );
    let real = report(&both.sync(&[]).expect(0));
    let manifest = fs::metadata(both.folder(&nights()[0], "manifest.json"))
        .unwrap()
        .len();
    assert_eq!(
        (&real["copied_bytes"], &real["copies"][0]["state"]),
        (&json!(manifest), &json!("missing"))
    );
    assert_eq!(both.held()[1], folder);
}

/// Stopped while a dump is on its way: within ten seconds, and nothing of it is there.
#[test]
fn a_stop_in_the_middle_leaves_nothing_half() {
    for (hanging, place) in [("PUT", 0), ("GET", 1)] {
        let both = Both::new();
        stock(&both.shop, &both.roots()[place], &nights()[..3]);
        both.bucket.on(Rule::new(hanging, Fault::Hang)
            .path(".sql.gz")
            .skip(1)
            .times(1));
        let running = both.run(&["sync"]).start();
        let seen = || {
            let log = both.bucket.log();
            log.iter()
                .filter(|seen| seen.method == hanging && seen.path.ends_with(".sql.gz"))
                .count()
        };
        while seen() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let asked = Instant::now();
        running.signal(Signal::INT);
        let outcome = running.wait().expect(130);
        assert!(asked.elapsed() < Duration::from_secs(10), "{outcome}");
        assert_eq!(
            both.held()[1 - place].len(),
            2,
            "one whole backup: {outcome}"
        );
        both.oracle().assert_tidy();
        both.sync(&[]).expect(0);
        both.assert_same();
    }
}

/// A storage that denies is tried once, the others get theirs, and the exit code is its own.
#[test]
fn a_storage_that_denies_does_not_stop_the_others() {
    let both = Both::new();
    let third = both.shop.sandbox.path("third");
    stock(&both.shop, &third, &nights()[..4]);
    let rule = Rule::new("PUT", Fault::status(403, "AccessDenied")).path(".sql.gz");
    both.bucket.on(rule);
    let outcome = both.sync_with(&third).expect(12);
    assert_eq!(outcome.exit_error()["id"], "storage_denied", "{outcome}");
    assert_eq!(both.held()[0].len(), 8, "{outcome}");
    assert!(both.held()[1].is_empty(), "{outcome}");
    let lines = report(&outcome)["copies"].clone();
    let errors = lines
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["error"].is_string());
    assert_eq!(errors.count(), 4, "{outcome}");
    let log = both.bucket.log();
    let tried = log
        .iter()
        .filter(|seen| seen.method == "PUT" && seen.path.ends_with(".sql.gz"));
    assert_eq!(tried.count(), 1, "{outcome}");
    // One that cannot be read from is no source; nothing good is lost by that.
    both.bucket.behave();
    both.sync(&[]).expect(0);
    both.bucket
        .on(Rule::new("GET", Fault::status(403, "AccessDenied")).path(".sql.gz"));
    gone(&both.folder(&nights()[0], "sql.gz"));
    let outcome = both.sync(&[]).expect(12);
    assert_eq!(report(&outcome)["lost"], json!([]), "{outcome}");
}

/// Where no lease can be held, another host is not seen: what is missing comes, and nothing is removed.
#[test]
fn without_a_lease_nothing_is_replaced() {
    let both = Both::new();
    both.bucket.ignore_conditions();
    stock(&both.shop, &both.roots()[0], &nights()[..3]);
    both.sync(&[]).expect(0);
    both.assert_same();
    cut(&both.bucket(&nights()[0], "sql.gz"));
    gone(&both.bucket(&nights()[1], "sql.gz"));
    let before = both.held();
    let outcome = both.sync(&[]).expect(25);
    assert_eq!(outcome.exit_error()["id"], "no_lease", "{outcome}");
    let mut after = both.held();
    assert!(
        after[1]
            .remove(&format!("shop/{}.sql.gz", nights()[1]))
            .is_some(),
        "{outcome}"
    );
    assert_eq!(after, before, "{outcome}");
}

/// Two names of one storage are one storage: what was just repaired is not replaced once more.
#[test]
fn a_storage_with_two_names_is_repaired_once() {
    let both = Both::stocked(&nights()[..1]);
    cut(&both.folder(&nights()[0], "sql.gz"));
    let again = both.shop.folder().join("..").join("backups");
    let outcome = both.sync_with(&again).expect(0);
    assert_eq!(
        report(&outcome)["copies"].as_array().unwrap().len(),
        1,
        "{outcome}"
    );
    both.assert_same();
}

#[test]
fn status_tells_what_is_missing_where() {
    let both = Both::stocked(&nights());
    let whole = report(&both.run(&["status"]).run().expect(0));
    assert_eq!(whole["storages"][1]["missing"], 0, "{whole}");
    gone(&both.bucket(&nights()[0], "manifest.json"));
    gone(&both.bucket(&nights()[3], "sql.gz"));
    let outcome = both.run(&["status"]).run().expect(0);
    let missing = report(&outcome)["storages"].clone();
    assert_eq!(
        (&missing[0]["missing"], &missing[1]["missing"]),
        (&json!(0), &json!(2)),
        "{outcome}"
    );
    let text = both.run(&["status"]).run();
    assert_eq!(text.code(), 0);
    let file = both.shop.sandbox.path("pgkeep.yaml");
    let text = format!(
        "databases:\n  shop:\n    url: ${{DATABASE_URL}}\n    copies: 2\n    retention: {{keep_last: 3}}\n\
         storages:\n  local: {{url: {}}}\n  s3: {{url: {}, endpoint: {}}}\n",
        both.shop.folder().display(),
        both.places()[1].url(),
        both.bucket.endpoint,
    );
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let outcome = both
        .shop
        .sandbox
        .pgkeep(["-c", &file, "status"])
        .run()
        .expect(0);
    let stdout = outcome.stdout();
    assert!(
        stdout.contains("lacks 1 of 3 kept backups: `pgkeep sync`"),
        "{outcome}"
    );
    assert!(
        stdout.contains("1 of 3 kept backups has fewer than 2 good copies"),
        "{outcome}"
    );
    both.shop
        .sandbox
        .pgkeep(["-c", &file, "sync"])
        .run()
        .expect(0);
    let outcome = both
        .shop
        .sandbox
        .pgkeep(["-c", &file, "status"])
        .run()
        .expect(0);
    assert!(
        !outcome.stdout().contains("lacks") && !outcome.stdout().contains("fewer"),
        "{outcome}"
    );
}

/// A kill at any step of a replacement leaves the good copy as it is, and no manifest that points at nothing; the next
/// run ends where the first one would have.
#[test]
fn a_replacement_that_is_killed_is_completed() {
    let traced = Command::new("strace").args(["-qq", "true"]).output();
    if !traced.is_ok_and(|output| output.status.success()) {
        return skip("`strace` is not installed, or may not trace");
    }
    let id = &nights()[0];
    for (call, last) in [("unlinkat", 5), ("linkat,renameat2", 4)] {
        for when in 1..=last {
            let shop = Shop::new();
            stock(&shop, &shop.folder(), &nights()[..1]);
            let good = shop.sandbox.path("good");
            duplicate(&shop.folder(), &good);
            let whole = held(&Place::Folder(good.clone()));
            flip(&shop.folder().join(format!("shop/{id}.sql.gz")));
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            let trace = format!("trace={call}");
            let fixed = ["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let good = good.display().to_string();
            let folder = shop.folder().display().to_string();
            let pgkeep = env!("CARGO_BIN_EXE_pgkeep");
            let sync = [
                "--json",
                "sync",
                "--verify",
                "--storage",
                &folder,
                "--storage",
                &good,
            ];
            let all = [&fixed[..], &[pgkeep], &sync].concat();
            shop.sandbox.program("strace", all).run();
            assert_eq!(held_whole(Path::new(&good)), whole, "{call} {when}");
            let mended = held_whole(&shop.folder());
            let manifest = format!("shop/{id}.manifest.json");
            let dump = format!("shop/{id}.sql.gz");
            assert!(
                !mended.contains_key(&manifest) || mended.contains_key(&dump),
                "{call} {when}: {mended:?}"
            );
            shop.sandbox.pgkeep(sync).run().expect(0);
            assert_eq!(held_whole(&shop.folder()), whole, "{call} {when}");
        }
    }
}

/// What a folder holds of backups; what a dead run staged is none.
fn held_whole(folder: &Path) -> BTreeMap<String, String> {
    let mut held = held(&Place::Folder(folder.to_owned()));
    held.retain(|key, _| !key.rsplit('/').next().unwrap().starts_with('.'));
    held
}

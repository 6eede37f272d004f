//! Buckets that give nothing up: rights without delete, versions, object lock, and stores that forbid overwriting.
//!
//! Versions, locks and rights are those of a real server (`moto`); what no server at hand does, such as R2's bucket locks
//! and their words, is scripted request by request.

use std::fs;

use serde_json::{Value, json};

use crate::backup::{Shop, facts};
use crate::prune::{bucket, nights, stock};
use crate::support::CANARY;
use crate::support::moto::{ALL, Keeps, Moto, WITHOUT_DELETE};
use crate::support::sandbox::Outcome;
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};

/// A shop whose configuration has these storages, and a retention that keeps one backup.
fn shop_with(storages: &str, more: &str) -> Shop {
    let mut shop = Shop::new();
    shop.sandbox.set("S3_SECRET", CANARY);
    configure(&shop, storages, more);
    shop
}

fn configure(shop: &Shop, storages: &str, more: &str) {
    let bin = shop.fake.bin();
    let text = format!(
        "databases:\n  shop:\n    url: ${{DATABASE_URL}}\n    retention: {{keep_last: 1}}\n    retries: {{attempts: 1}}\n\
         {storages}postgres:\n  bin_dir: {}\n{more}",
        bin.display()
    );
    shop.sandbox.write("pgkeep.yaml", text);
}

/// The section `storages` for a scripted bucket.
fn storages_of(server: &ScriptedS3, more: &str) -> String {
    format!(
        "storages:\n  offsite:\n    url: s3://{}/pg\n    endpoint: {}\n    access_key_id: {}\n    \
         secret_access_key: ${{S3_SECRET}}\n{more}",
        server.bucket, server.endpoint, server.access_key
    )
}

fn run(shop: &Shop, command: &[&str]) -> Outcome {
    shop.sandbox.pgkeep(command).run()
}

fn listed(shop: &Shop) -> usize {
    let list = run(shop, &["--json", "list"]).expect(0).json();
    list["backups"].as_array().unwrap().len()
}

fn account(outcome: &Outcome) -> Value {
    outcome.json()["databases"][0]["storages"][0].clone()
}

fn warnings(outcome: &Outcome) -> Vec<String> {
    let report = &outcome.summary()["backups"][0];
    let ids = report["warnings"].as_array().unwrap().iter();
    ids.map(|warning| warning["id"].as_str().unwrap().to_owned())
        .collect()
}

fn status_is_fine(shop: &Shop) {
    let status = run(shop, &["--json", "status"]).expect(0).json();
    assert_eq!(status["databases"][0]["alerts"], json!([]), "{status}");
}

/// Lines of `check` about the storage `offsite`, by the name of the check.
fn checked(outcome: &Outcome, check: &str) -> (String, String) {
    let lines = outcome.json()["checks"].clone();
    let line = (lines.as_array().unwrap().iter())
        .find(|line| line["check"] == check && line["subject"] == "offsite")
        .unwrap_or_else(|| panic!("no line `{check}`: {outcome}"));
    let text = |key: &str| line[key].as_str().unwrap().to_owned();
    (text("verdict"), text("message"))
}

/// P12, with a key that may write and not delete: the backups are good, retention is not carried out, and that is said
/// each time alike.
#[test]
fn p12_a_key_without_delete_leaves_everything_whole() {
    let Some(server) = Moto::start(Keeps::Nothing, WITHOUT_DELETE) else {
        return;
    };
    let shop = shop_with(&server.storages(""), "");
    run(&shop, &["--json", "backup"]).expect(0);
    for made in 2..=5 {
        let outcome = run(&shop, &["--json", "backup"]).expect(3);
        assert_eq!(outcome.exit_error()["id"], "prune_incomplete", "{outcome}");
        assert_eq!(listed(&shop), made);
    }
    let keys = server.keys();
    for _ in 0..2 {
        let outcome = run(&shop, &["--json", "prune"]).expect(3);
        let account = account(&outcome);
        let lines = account["remove"].as_array().unwrap();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line["removed"] == false));
        let told = |at: usize| lines[at]["error"].as_str().unwrap().to_owned();
        assert!(
            told(0).contains("the store refuses deletes (a writer without that right, or a lock)"),
            "{outcome}"
        );
        assert_eq!(told(3), "not tried: the storage refuses deletes");
        let hint = outcome.exit_error()["hints"].to_string();
        assert!(hint.contains("append_only: true"), "{hint}");
        assert_eq!(listed(&shop), 5);
    }
    let said = run(&shop, &["prune"]).expect(3);
    assert!(said.stdout().contains("NOT removed"), "{said}");
    assert!(
        said.stderr().contains(
            "the storage refuses deletes, so 4 of 4 removals did not come about; what could not be removed is still there"
        ),
        "{said}"
    );
    // Records of the runs, and the lease with the word that it is free.
    let same = |key: &&String| !key.contains("/runs/");
    assert_eq!(
        server.keys().iter().filter(same).collect::<Vec<_>>(),
        keys.iter().filter(same).collect::<Vec<_>>()
    );
    // Whoever wants it so says so, and is told what the lifecycle is to free.
    configure(&shop, &server.storages("    append_only: true\n"), "");
    let outcome = run(&shop, &["--json", "prune"]).expect(0);
    let account = account(&outcome);
    assert_eq!(account["append_only"], true);
    assert_eq!(account["remove"].as_array().unwrap().len(), 4);
    let note = account["notes"][0].as_str().unwrap();
    assert!(
        note.starts_with("`append_only`: pgkeep removes nothing here; 4 backups ("),
        "{note}"
    );
    let said = run(&shop, &["prune"]).expect(0);
    assert!(said.stdout().contains("stays"), "{said}");
    assert!(said.stdout().contains("the bucket's lifecycle"), "{said}");
    let outcome = run(&shop, &["--json", "backup"]).expect(0);
    assert_eq!(warnings(&outcome), [""; 0]);
    assert_eq!(listed(&shop), 6);
    status_is_fine(&shop);
}

#[test]
fn what_versions_only_hide_is_told_with_its_bytes() {
    let Some(server) = Moto::start(Keeps::Versions, ALL) else {
        return;
    };
    let shop = shop_with(&server.storages(""), "");
    let first = run(&shop, &["--json", "backup"]).expect(0);
    let outcome = run(&shop, &["--json", "backup"]).expect(0);
    let id = &first.summary()["backups"][0]["backup_id"];
    let account = &outcome.summary()["backups"][0]["prune"]["storages"][0];
    let line = &account["remove"][0];
    assert_eq!(&line["id"], id);
    assert_eq!(
        (&line["removed"], &line["hidden"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(account["hidden_bytes"], line["size_bytes"]);
    let note = account["notes"][0].as_str().unwrap();
    assert!(note.starts_with("1 backup hidden, not freed: "), "{note}");
    assert_eq!(listed(&shop), 1);
    let kept = server.versions();
    let of_first = kept
        .iter()
        .filter(|one| one["key"].as_str().unwrap().contains(id.as_str().unwrap()))
        .filter(|one| one["is_marker"] != true && one["size_bytes"].as_u64().unwrap() > 0);
    assert!(
        of_first.count() >= 2,
        "dump and manifest are still there: {kept:?}"
    );
    // The text of a prune says the same.
    run(&shop, &["--json", "backup", "--no-prune"]).expect(0);
    let said = run(&shop, &["prune"]).expect(0);
    assert!(said.stdout().contains("hidden  "), "{said}");
    assert!(
        said.stdout()
            .contains("are freed only by the bucket's lifecycle"),
        "{said}"
    );
    assert!(said.stdout().contains("1 kept, 1 removed\n"), "{said}");
    status_is_fine(&shop);
}

/// Object lock of S3: deletes hide, and no version goes.
#[test]
fn an_object_locked_bucket_is_backed_up_to_and_pruned_day_by_day() {
    let Some(server) = Moto::start(Keeps::Locked(30), ALL) else {
        return;
    };
    let shop = shop_with(&server.storages(""), "");
    for _ in 0..3 {
        let outcome = run(&shop, &["--json", "backup"]).expect(0);
        assert_eq!(warnings(&outcome), [""; 0], "the lease works: {outcome}");
        run(&shop, &["--json", "prune"]).expect(0);
        assert_eq!(listed(&shop), 1);
        status_is_fine(&shop);
    }
    let manifests = server
        .versions()
        .iter()
        .filter(|one| one["is_marker"] != true)
        .filter(|one| one["key"].as_str().unwrap().ends_with(".manifest.json"))
        .count();
    assert_eq!(manifests, 3, "nothing was freed");
}

/// A locked bucket takes no part without a checksum, either.
#[test]
fn a_large_dump_goes_into_a_locked_bucket_in_parts() {
    let Some(server) = Moto::start(Keeps::Locked(30), ALL) else {
        return;
    };
    let mut shop = shop_with(&server.storages("    part_size: 5MiB\n"), "");
    shop.dumps(json!({ "one_line_bytes": 12 << 20 }));
    let config = std::fs::read_to_string(shop.sandbox.path("pgkeep.yaml")).unwrap();
    let plain = config.replace("retries:", "compression: none\n    retries:");
    shop.sandbox.write("pgkeep.yaml", plain);
    let outcome = run(&shop, &["--json", "backup"]).expect(0);
    assert_eq!(warnings(&outcome), [""; 0]);
    let stored = outcome.summary()["backups"][0]["size_bytes"].as_u64();
    assert!(stored > Some(10 << 20), "more than two parts: {stored:?}");
    run(&shop, &["--json", "verify", "--all"]).expect(0);
}

/// R2's bucket locks and GCS's retention: an object is neither replaced nor removed. R2 answers before it looks at the
/// condition of a write.
fn forbids_overwriting() -> ScriptedS3 {
    let server = ScriptedS3::start();
    let locked = || Fault::status(409, "ObjectLockedByBucketPolicy");
    server.on(Rule::new("DELETE", locked()));
    server.on(Rule::new("PUT", locked()).path("lease.json").skip(1));
    server
}

#[test]
fn a_lease_that_cannot_be_renewed_is_told_with_the_way_out() {
    let server = forbids_overwriting();
    let shop = shop_with(&storages_of(&server, ""), "");
    for made in 1..=3 {
        let outcome = run(&shop, &["--json", "backup"]).expect(0);
        assert_eq!(warnings(&outcome), ["lease_not_overwritten"], "{outcome}");
        assert!(outcome.to_string().contains("`lock: {storage: local}`"));
        assert_eq!(listed(&shop), made, "what is retained stays listed");
    }
    let outcome = run(&shop, &["--json", "prune"]).expect(0);
    let account = account(&outcome);
    let line = &account["remove"][0];
    assert_eq!(
        (&line["removed"], &line["retained"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(line["error"], Value::Null);
    assert_eq!(
        account["notes"],
        json!([
            "2 backups beyond retention stay whole and listed: retained by the storage's lock; prune tries again in its next run"
        ])
    );
    let said = run(&shop, &["prune"]).expect(0);
    assert!(said.stdout().contains("retained  "), "{said}");
    status_is_fine(&shop);
}

#[test]
fn a_lease_lives_elsewhere_or_on_this_host_alone() {
    let leases = |server: &ScriptedS3| {
        let log = server.log();
        log.iter()
            .filter(|seen| seen.path.ends_with("/lease.json"))
            .count()
    };
    let server = forbids_overwriting();
    let mirror = "  mirror: {url: ./mirror}\n";
    let local = "lock: {storage: local}\n";
    let shop = shop_with(&storages_of(&server, ""), local);
    for _ in 0..2 {
        let outcome = run(&shop, &["--json", "backup"]).expect(0);
        assert_eq!(warnings(&outcome), ["lock_local"], "{outcome}");
    }
    assert_eq!(leases(&server), 0, "none was tried");
    let storages = storages_of(&server, mirror);
    configure(&shop, &storages, "lock: {storage: mirror}\n");
    let outcome = run(&shop, &["--json", "backup"]).expect(0);
    assert_eq!(warnings(&outcome), ["lease_elsewhere"], "{outcome}");
    assert_eq!(leases(&server), 0);
    assert!(!shop.sandbox.path("mirror/shop/lease.json").exists());
    // Said by a prune, too, and no failure.
    let said = run(&shop, &["prune"]).expect(0);
    assert!(
        said.stderr().contains("in the storage `mirror` alone"),
        "{said}"
    );
}

/// A lock that outlives retention fills a bucket with backups that are to go: that is no slip of a policy.
#[test]
fn what_a_lock_kept_last_time_is_no_mass_delete() {
    let server = forbids_overwriting();
    let local = "lock: {storage: local}\n";
    let shop = shop_with(&storages_of(&server, ""), local);
    stock(&shop, &bucket(&server), &nights());
    let before = run(&shop, &["--json", "prune"]).expect(25);
    assert_eq!(before.exit_error()["id"], "mass_delete", "{before}");
    run(&shop, &["--json", "prune", "--allow-mass-delete"]).expect(0);
    // What the bucket kept says nothing of another storage, also where the records came along.
    let mirror = shop.sandbox.path("mirror");
    stock(&shop, &mirror, &nights());
    let runs = bucket(&server).join("shop/runs");
    let into = mirror.join("shop/runs");
    fs::create_dir_all(&into).unwrap();
    for record in fs::read_dir(runs).unwrap() {
        let record = record.unwrap();
        fs::copy(record.path(), into.join(record.file_name())).unwrap();
    }
    let both = storages_of(&server, "  mirror:\n    url: ./mirror\n");
    configure(&shop, &both, local);
    let outcome = run(&shop, &["--json", "prune"]).expect(25);
    let storages = outcome.json()["databases"][0]["storages"].clone();
    assert!(storages[0]["error"].is_null(), "{outcome}");
    assert!(storages[1]["error"].is_string(), "{outcome}");
    configure(&shop, &storages_of(&server, ""), local);
    for kept in [16, 17] {
        let outcome = run(&shop, &["--json", "prune"]).expect(0);
        assert_eq!(account(&outcome)["remove"].as_array().unwrap().len(), kept);
        // The backup behind it is one more, and what it retires is news.
        run(&shop, &["--json", "backup", "--no-prune"]).expect(0);
    }
    // The lock ends: the rule is about what the storage would now give up, which it knew of before.
    server.behave();
    let outcome = run(&shop, &["--json", "prune"]).expect(0);
    let account = account(&outcome);
    let lines = account["remove"].as_array().unwrap();
    assert!(
        lines.iter().all(|line| line["removed"] == true),
        "{outcome}"
    );
    assert_eq!(listed(&shop), 1);
}

#[test]
fn a_pin_under_a_lock_stays_with_clear_words() {
    let server = forbids_overwriting();
    let local = "lock: {storage: local}\n";
    let shop = shop_with(&storages_of(&server, ""), local);
    let outcome = run(&shop, &["--json", "backup"]).expect(0);
    let summary = outcome.summary();
    let id = summary["backups"][0]["backup_id"].as_str().unwrap();
    run(&shop, &["--json", "pin", id, "audit"]).expect(0);
    let refused = run(&shop, &["--json", "unpin", id]).expect(25);
    let error = refused.exit_error();
    assert_eq!(error["id"], "object_retained");
    let message = error["message"].as_str().unwrap();
    assert!(message.ends_with("; it is still pinned there"), "{message}");
    assert!(
        error["hints"]
            .to_string()
            .contains("retention or hold ends"),
        "{error}"
    );
    let shown = run(&shop, &["--json", "list"]).expect(0).json();
    assert_eq!(shown["backups"][0]["pin_reason"], "audit", "{shown}");
    // A pinned backup is none that retention lets go.
    run(&shop, &["--json", "backup"]).expect(0);
    let outcome = run(&shop, &["--json", "prune"]).expect(0);
    assert_eq!(account(&outcome)["remove"], json!([]));
}

/// S3 says `AccessDenied` for a lock and for a missing right; the object's retention tells them apart.
#[test]
fn a_lock_is_told_from_a_missing_right_by_the_objects_retention() {
    let server = ScriptedS3::start();
    let shop = shop_with(&storages_of(&server, ""), "");
    run(&shop, &["--json", "backup"]).expect(0);
    run(&shop, &["--json", "backup", "--no-prune"]).expect(0);
    server.on(Rule::new("DELETE", Fault::status(403, "AccessDenied")).path("manifest.json"));
    let until = "2099-01-02T03:04:05Z";
    server.on(
        Rule::new(
            "GET",
            Fault::body(format!(
                "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
            )),
        )
        .query("retention"),
    );
    let outcome = run(&shop, &["--json", "prune"]).expect(0);
    let account_with = account(&outcome);
    assert_eq!(account_with["remove"][0]["retained_until"], until);
    let note = account_with["notes"][0].as_str().unwrap();
    assert_eq!(
        note,
        format!(
            "1 backup beyond retention stays whole and listed: retained until {until}; prune tries again in its next run"
        )
    );
    server.behave();
    server.on(Rule::new("DELETE", Fault::status(403, "AccessDenied")).path("manifest.json"));
    server.on(
        Rule::new("GET", Fault::status(404, "NoSuchObjectLockConfiguration")).query("retention"),
    );
    let outcome = run(&shop, &["--json", "prune"]).expect(3);
    let error = account(&outcome)["remove"][0]["error"].clone();
    assert!(
        error
            .as_str()
            .unwrap()
            .ends_with("no lock is on it, so this key may not delete"),
        "{error}"
    );
}

/// What `check` says of a storage, by what it is and what its key may.
#[test]
fn check_says_what_a_thief_could_do() {
    for (keeps, rights, verdict, words) in [
        (
            Keeps::Nothing,
            ALL,
            "warn",
            "a thief with this key could delete every backup here: no object lock, versioning off",
        ),
        (
            Keeps::Versions,
            ALL,
            "ok",
            "versions are kept, so a delete only hides",
        ),
        (
            Keeps::Locked(30),
            ALL,
            "ok",
            "locked for 30 days from being written: a thief with this key can hide backups, not destroy them",
        ),
        (
            Keeps::Nothing,
            WITHOUT_DELETE,
            "ok",
            "this key may not delete; a thief with it could still overwrite backups",
        ),
    ] {
        let Some(server) = Moto::start(keeps, rights) else {
            return;
        };
        let shop = shop_with(&server.storages(""), "");
        let outcome = run(&shop, &["--json", "check"]);
        let (found, message) = checked(&outcome, "protection");
        assert_eq!(found, verdict, "{outcome}");
        assert!(message.starts_with(words), "{message}");
    }
}

/// A probe would stay as long as the lock does.
#[test]
fn check_writes_into_a_locked_bucket_only_if_asked_to() {
    let Some(server) = Moto::start(Keeps::Locked(30), ALL) else {
        return;
    };
    let mut shop = shop_with(&server.storages(""), "");
    shop.answer(&facts());
    let outcome = run(&shop, &["--json", "check"]);
    for check in ["round_trip", "conditional_writes", "remove"] {
        let (verdict, message) = checked(&outcome, check);
        assert_eq!(verdict, "skipped", "{outcome}");
        assert_eq!(
            message,
            "not tried: the bucket locks what is written for 30 days"
        );
    }
    assert_eq!(server.versions(), [json!(null); 0], "nothing was written");
    let outcome = run(&shop, &["--json", "check", "--write"]);
    assert_eq!(checked(&outcome, "round_trip").0, "ok", "{outcome}");
    assert_eq!(checked(&outcome, "conditional_writes").0, "ok", "{outcome}");
    assert!(
        checked(&outcome, "remove")
            .1
            .starts_with("hidden, not freed"),
        "{outcome}"
    );
    assert!(!server.versions().is_empty() && server.keys().is_empty());
    // The same for a storage that is only written to.
    configure(&shop, &server.storages("    append_only: true\n"), "");
    let outcome = run(&shop, &["--json", "check"]);
    let said = checked(&outcome, "round_trip");
    assert_eq!(
        said,
        (
            "skipped".into(),
            "not tried: the storage is `append_only`".into()
        )
    );
}

#[test]
fn check_tells_a_bucket_that_forbids_overwriting() {
    let server = ScriptedS3::start();
    let locked = || Fault::status(409, "ObjectLockedByBucketPolicy");
    server.on(Rule::new("DELETE", locked()));
    server.on(Rule::new("PUT", locked()).path(".probe").skip(1));
    server.on(Rule::new("GET", Fault::status(403, "AccessDenied")).query("versioning"));
    let shop = shop_with(&storages_of(&server, ""), "");
    let outcome = run(&shop, &["--json", "check"]);
    let (verdict, message) = checked(&outcome, "conditional_writes");
    assert_eq!(verdict, "warn", "{outcome}");
    assert!(
        message.starts_with("it forbids overwriting, so it cannot hold a lease"),
        "{message}"
    );
    let (verdict, message) = checked(&outcome, "remove");
    assert_eq!(verdict, "warn", "{outcome}");
    assert!(
        message.contains("stays, and so will old backups"),
        "{message}"
    );
    // Where the lease lives elsewhere, nothing is missing.
    server.behave();
    server.on(Rule::new("DELETE", locked()));
    configure(&shop, &storages_of(&server, ""), "lock: {storage: local}\n");
    let outcome = run(&shop, &["--json", "check"]);
    let (verdict, message) = checked(&outcome, "conditional_writes");
    assert_eq!(verdict, "skipped", "{outcome}");
    assert!(message.contains("no lease is kept here"), "{message}");
}

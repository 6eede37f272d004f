//! `prune` and `sync` over real storages: what goes, what stays, and what is said of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use serde_json::{Value, json};

use crate::backup::Shop;
use crate::support::sandbox::Outcome;
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};
use crate::support::{Oracle, Place, skip};

/// Sixteen nights and an evening, newest first.
pub fn nights() -> Vec<String> {
    let mut ids = vec!["shop-20260116T210000Z-0002".to_owned()];
    ids.extend(
        (1..=16)
            .rev()
            .map(|day| format!("shop-202601{day:02}T030000Z-0001")),
    );
    ids
}

/// Makes one real backup with the fakes and returns its objects, which are then taken away.
fn template(shop: &Shop) -> (String, Vec<(String, Vec<u8>)>) {
    let outcome = shop.backup(&[]).expect(0);
    let id = outcome.summary()["backups"][0]["backup_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let folder = shop.folder().join("shop");
    let suffixes = ["manifest.json", "sql.gz"];
    let objects = suffixes.map(|suffix| {
        let path = folder.join(format!("{id}.{suffix}"));
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        (suffix.to_owned(), bytes)
    });
    fs::remove_dir_all(folder.join("runs")).unwrap();
    (id, objects.to_vec())
}

/// Puts copies of one backup under other ids, below `root`.
pub fn stock(shop: &Shop, root: &Path, ids: &[String]) {
    let (id, objects) = template(shop);
    let started = |id: &str| {
        let time = &id[5..21];
        let (date, clock) = time.split_once('T').unwrap();
        format!(
            "{}-{}-{}T{}:{}:{}Z",
            &date[..4],
            &date[4..6],
            &date[6..],
            &clock[..2],
            &clock[2..4],
            &clock[4..6]
        )
    };
    fs::create_dir_all(root.join("shop")).unwrap();
    for new in ids {
        for (suffix, bytes) in &objects {
            let bytes = match suffix.as_str() {
                "manifest.json" => {
                    let mut manifest: Value = serde_json::from_slice(bytes).unwrap();
                    manifest["started_at"] = json!(started(new));
                    manifest.to_string().replace(&id, new).into_bytes()
                }
                _ => bytes.clone(),
            };
            fs::write(root.join("shop").join(format!("{new}.{suffix}")), bytes).unwrap();
        }
    }
}

pub fn stocked(ids: &[String]) -> Shop {
    let shop = Shop::new();
    stock(&shop, &shop.folder(), ids);
    shop
}

fn keys(shop: &Shop) -> Vec<String> {
    let mut keys = Place::Folder(shop.folder()).keys();
    keys.retain(|key| !key.contains("/runs/"));
    keys
}

fn ids_with(shop: &Shop, suffix: &str) -> Vec<String> {
    let keys = keys(shop);
    let names = keys
        .iter()
        .filter_map(|key| key.strip_prefix("shop/")?.strip_suffix(suffix));
    let mut ids: Vec<String> = names.map(str::to_owned).collect();
    ids.sort();
    ids
}

fn names(lines: &Value) -> Vec<String> {
    let lines = lines.as_array().unwrap().iter();
    lines
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect()
}

const POLICY: &[&str] = &[
    "--keep-daily",
    "3",
    "--keep-weekly",
    "2",
    "--allow-mass-delete",
];

fn prune(shop: &Shop, more: &[&str]) -> Outcome {
    shop.over(&[&["--json", "prune"], more].concat()).run()
}

fn account(outcome: &Outcome) -> Value {
    outcome.json()["databases"][0]["storages"][0].clone()
}

#[test]
fn a_dry_run_tells_what_the_real_run_does() {
    let shop = stocked(&nights());
    let before = keys(&shop);
    let dry = prune(&shop, &[POLICY, &["--dry-run"]].concat()).expect(0);
    assert_eq!(keys(&shop), before, "a dry run removed something");
    assert_eq!(dry.json()["dry_run"], true);
    let dry = account(&dry);
    let kept = [
        "shop-20260116T210000Z-0002",
        "shop-20260115T030000Z-0001",
        "shop-20260114T030000Z-0001",
        "shop-20260111T030000Z-0001",
    ];
    assert_eq!(names(&dry["keep"]), kept);
    assert_eq!(
        dry["keep"][0]["reasons"],
        json!([
            "newest of 2026-01-16: daily 1 of 3",
            "newest of 2026-W03: weekly 1 of 2",
            "newest good"
        ])
    );
    assert_eq!(names(&dry["remove"]).len(), 13);
    assert_eq!(
        names(&dry["remove"])[0],
        "shop-20260116T030000Z-0001",
        "newest removal first"
    );

    let real = account(&prune(&shop, POLICY).expect(0));
    assert_eq!(
        (names(&real["keep"]), names(&real["remove"])),
        (names(&dry["keep"]), names(&dry["remove"]))
    );
    assert!(
        real["remove"]
            .as_array()
            .unwrap()
            .iter()
            .all(|line| line["removed"] == true)
    );
    let mut kept = kept.map(str::to_owned);
    kept.sort();
    assert_eq!(ids_with(&shop, ".manifest.json"), kept);
    assert_eq!(ids_with(&shop, ".sql.gz"), kept);
    // Again: nothing more to do.
    let again = account(&prune(&shop, POLICY).expect(0));
    assert_eq!(names(&again["remove"]), [""; 0]);
    Oracle::new(&shop.sandbox, vec![Place::Folder(shop.folder())]).assert_tidy();
}

#[test]
fn what_pgkeep_did_not_write_stays() {
    let shop = stocked(&nights());
    let root = shop.folder();
    let others = [
        "shop/notes.txt",
        "shop/shop-20260101T030000Z-0001.sql.gz.bak",
        "shop/other-20260101T030000Z-0001.manifest.json",
        "shop/shop-20261301T030000Z-0001.manifest.json",
        "shop_staging/shop_staging-20260101T030000Z-0001.manifest.json",
        "shop_staging/shop_staging-20260101T030000Z-0001.sql.gz",
        "shopping/shopping-20260101T030000Z-0001.manifest.json",
    ];
    for other in others {
        let path = root.join(other);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }
    let outcome = prune(&shop, &[POLICY, &["-d", "shop"]].concat()).expect(0);
    let left: Vec<String> = account(&outcome)["left"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| left["key"].as_str().unwrap().to_owned())
        .collect();
    let mut expected: Vec<&str> = others[..4].to_vec();
    expected.sort_unstable();
    assert_eq!(left, expected);
    let keys = keys(&shop);
    assert!(
        others
            .iter()
            .all(|other| keys.iter().any(|key| key == other)),
        "{keys:?}"
    );
    assert_eq!(
        ids_with(&shop, ".manifest.json").len(),
        6,
        "four kept and two of others"
    );
}

#[test]
fn pinned_drilled_and_unreadable_ones_stay() {
    let shop = stocked(&nights());
    let folder = shop.folder().join("shop");
    let pinned = "shop-20260102T030000Z-0001";
    shop.over(&["pin", pinned, "before v2.3"]).run().expect(0);
    let drilled = "shop-20260103T030000Z-0001";
    fs::write(folder.join(format!("{drilled}.drill.json")), "{}").unwrap();
    let unreadable = "shop-20260104T030000Z-0001";
    fs::write(folder.join(format!("{unreadable}.manifest.json")), "{").unwrap();
    let damaged = "shop-20260105T030000Z-0001";
    fs::write(folder.join(format!("{damaged}.damaged.json")), "{}").unwrap();
    // The newest one cannot be read: it stays, and does not count as the newest good one.
    let newest = "shop-20260116T210000Z-0002";
    fs::write(
        folder.join(format!("{newest}.manifest.json")),
        "no manifest",
    )
    .unwrap();

    let outcome = prune(&shop, &["--keep-last", "1", "--allow-mass-delete"]).expect(0);
    let account = account(&outcome);
    let kept = names(&account["keep"]);
    assert_eq!(
        kept,
        [newest, "shop-20260116T030000Z-0001", drilled, pinned]
    );
    assert!(
        account["keep"][0]["reasons"][0]
            .as_str()
            .unwrap()
            .contains("manifest")
    );
    assert_eq!(account["keep"][2]["reasons"], json!(["newest drilled"]));
    let removed = account["remove"].as_array().unwrap();
    let line = |id: &str| removed.iter().find(|line| line["id"] == id).unwrap();
    assert_eq!(line(unreadable)["removed"], false);
    assert!(
        line(unreadable)["error"]
            .as_str()
            .unwrap()
            .contains("cannot be read")
    );
    assert_eq!(
        line(damaged)["removed"],
        true,
        "a newer good one is older than 30 days"
    );
    assert!(!folder.join(format!("{damaged}.damaged.json")).exists());
    assert!(ids_with(&shop, ".manifest.json").contains(&unreadable.to_owned()));

    shop.over(&["unpin", pinned]).run().expect(0);
    let outcome = prune(&shop, &["--keep-last", "1", "--allow-mass-delete"]).expect(0);
    assert!(
        !ids_with(&shop, ".sql.gz").contains(&pinned.to_owned()),
        "{outcome}"
    );
}

#[test]
fn refusals_remove_nothing() {
    let shop = stocked(&nights());
    let before = keys(&shop);
    for (flags, id) in [
        (&["--keep-daily", "3"] as &[&str], "mass_delete"),
        (&[], "empty_policy"),
        (&["--keep-daily", "0"], "empty_policy"),
    ] {
        let outcome = prune(&shop, flags).expect(25);
        assert_eq!(outcome.exit_error()["id"], id, "{outcome}");
        assert!(
            outcome.exit_error()["message"]
                .as_str()
                .unwrap()
                .contains("nothing was removed")
        );
        assert_eq!(keys(&shop), before);
    }
    prune(&shop, &["--keep-daily", "3", "--allow-mass-delete"]).expect(0);
}

/// The folder in which the server keeps what lies under the tests' prefix.
pub fn bucket(server: &ScriptedS3) -> PathBuf {
    Place::Bucket(server).file("")
}

/// Twelve hundred objects, which are two pages.
fn two_pages() -> Vec<String> {
    let id = |at: usize| {
        let (month, day, hour) = (at % 12 + 1, at % 28 + 1, at % 24);
        format!("shop-2025{month:02}{day:02}T{hour:02}0000Z-{at:04x}")
    };
    (0..600).map(id).collect()
}

/// P13: a listing that is cut short is no listing.
#[test]
fn p13_a_listing_that_fails_on_its_second_page_removes_nothing() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    stock(&shop, &bucket(&server), &two_pages());
    let before = server.keys();
    server.on(Rule::new("GET", Fault::status(403, "AccessDenied")).query("continuation-token"));
    let url = Place::Bucket(&server).url();
    let flags = Oracle::new(&shop.sandbox, vec![Place::Bucket(&server)]).flags();
    let command: Vec<String> = ["--json", "-d", "shop", "prune", "--keep-daily", "3"]
        .into_iter()
        .map(str::to_owned)
        .chain(flags)
        .collect();
    let outcome = shop.sandbox.pgkeep(&command).run().expect(25);
    assert_eq!(
        outcome.exit_error()["id"],
        "listing_failed",
        "{url}: {outcome}"
    );
    server.behave();
    let kept: Vec<String> = server
        .keys()
        .into_iter()
        .filter(|key| !key.contains("/runs/"))
        .collect();
    assert_eq!(kept, before);
}

/// P12: a delete that is refused is counted, and the others go on.
#[test]
fn p12_a_refused_delete_is_counted_and_the_rest_goes_on() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    stock(&shop, &bucket(&server), &nights());
    server.on(Rule::new("DELETE", Fault::status(403, "AccessDenied"))
        .path("20260110T030000Z-0001.manifest"));
    server.on(Rule::new("DELETE", Fault::status(403, "AccessDenied"))
        .path("20260109T030000Z-0001.sql.gz"));
    let flags = Oracle::new(&shop.sandbox, vec![Place::Bucket(&server)]).flags();
    let command: Vec<String> = ["--json", "-d", "shop", "prune"]
        .into_iter()
        .chain(POLICY.iter().copied())
        .map(str::to_owned)
        .chain(flags)
        .collect();
    let outcome = shop.sandbox.pgkeep(&command).run().expect(3);
    assert_eq!(outcome.exit_error()["id"], "prune_incomplete");
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("2 of 13"),
        "{outcome}"
    );
    let removed = account(&outcome)["remove"].as_array().unwrap().clone();
    let failed: Vec<&Value> = removed
        .iter()
        .filter(|line| line["removed"] == false)
        .collect();
    assert_eq!(failed.len(), 2, "{outcome}");
    let keys = server.keys();
    let is_there = |part: &str| keys.iter().any(|key| key.contains(part));
    assert!(is_there("20260110T030000Z-0001.manifest") && is_there("20260110T030000Z-0001.sql"));
    assert!(
        !is_there("20260109T030000Z-0001.manifest"),
        "the manifest goes first"
    );
    assert!(
        is_there("20260109T030000Z-0001.sql"),
        "an orphan, which counts for nothing"
    );
    assert!(!is_there("20260101T030000Z"), "the rest went on");
}

/// One LIST per thousand keys, and nothing else.
#[test]
fn a_plan_needs_only_lists() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    let ids = two_pages();
    stock(&shop, &bucket(&server), &ids);
    let flags = Oracle::new(&shop.sandbox, vec![Place::Bucket(&server)]).flags();
    for command in [
        &["-d", "shop", "prune", "--dry-run", "--keep-monthly", "12"] as &[&str],
        &["list"],
    ] {
        let before = server.log().len();
        let command = command.iter().map(|&word| word.to_owned());
        let all = ["--json".to_owned()]
            .into_iter()
            .chain(command)
            .chain(flags.clone());
        let code = shop.sandbox.pgkeep(all).run().code();
        assert!(matches!(code, 0 | 25), "{code}");
        let log = server.log().split_off(before);
        assert_eq!(log.len(), 2, "1,200 keys are two pages: {log:?}");
        assert!(
            log.iter()
                .all(|seen| seen.method == "GET" && seen.query.contains("list-type=2"))
        );
    }
}

fn config(shop: &Shop, more: &str) -> String {
    let url = shop.sandbox.path("pgkeep.yaml");
    let text = format!(
        "databases:\n  shop:\n    url: ${{DATABASE_URL}}\n{more}storages:\n  local: {{url: {}}}\npostgres: {{bin_dir: {}}}\n",
        shop.folder().display(),
        shop.fake.bin().display()
    );
    fs::write(&url, text).unwrap();
    url.display().to_string()
}

#[test]
fn a_backup_prunes_behind_itself() {
    let shop = stocked(&nights());
    let config = config(&shop, "    retention: {keep_daily: 10}\n");
    let outcome = shop
        .sandbox
        .pgkeep(["--json", "-c", &config, "backup", "--no-prune"])
        .run()
        .expect(0);
    assert!(outcome.summary()["backups"][0]["prune"].is_null());
    assert_eq!(ids_with(&shop, ".manifest.json").len(), 18);
    let outcome = shop
        .sandbox
        .pgkeep(["--json", "-c", &config, "backup"])
        .run()
        .expect(0);
    let summary = outcome.summary();
    let account = &summary["backups"][0]["prune"]["storages"][0];
    assert_eq!(account["keep"][0]["id"], summary["backups"][0]["backup_id"]);
    let reasons = account["keep"][0]["reasons"].to_string();
    assert!(reasons.contains("made by this run"), "{reasons}");
    assert_eq!(ids_with(&shop, ".manifest.json").len(), 10, "{outcome}");

    // A policy that removes too much holds prune off; the backup is good all the same.
    let strict = config.replace("pgkeep.yaml", "strict.yaml");
    fs::write(
        &strict,
        fs::read_to_string(&config)
            .unwrap()
            .replace("keep_daily: 10", "keep_daily: 10\n      , keep_last: 1")
            .replace("keep_daily: 10\n      , ", ""),
    )
    .unwrap();
    stock_more(&shop);
    let outcome = shop
        .sandbox
        .pgkeep(["--json", "-c", &strict, "backup"])
        .run()
        .expect(3);
    assert_eq!(outcome.exit_error()["id"], "mass_delete", "{outcome}");
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("is good")
    );
    assert_eq!(outcome.summary()["backups"][0]["stored"], true);
}

/// Some more nights, long ago.
fn stock_more(shop: &Shop) {
    let folder = shop.folder().join("shop");
    let id = ids_with(shop, ".manifest.json").remove(0);
    for day in 10..20 {
        let new = format!("shop-202501{day}T030000Z-0001");
        for suffix in ["manifest.json", "sql.gz"] {
            let bytes = fs::read(folder.join(format!("{id}.{suffix}"))).unwrap();
            fs::write(folder.join(format!("{new}.{suffix}")), bytes).unwrap();
        }
    }
}

#[test]
fn before_a_deploy_a_backup_is_pinned() {
    let shop = Shop::new();
    let config_file = config(&shop, "    retention: {keep_last: 1}\n");
    let backup = |more: &[&str]| {
        let all = [&["--json", "-c", &config_file, "backup"], more].concat();
        let summary = shop.sandbox.pgkeep(all).run().expect(0).summary();
        summary["backups"][0]["backup_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let pre_deploy = backup(&["--trigger", "pre-deploy"]);
    let pinned = backup(&["--pin", "before the move"]);
    backup(&[]);
    let last = backup(&[]);
    let list = shop.over(&["--json", "list"]).run().expect(0).json();
    let backups = list["backups"].as_array().unwrap();
    let reason = |id: &str| {
        let found = backups.iter().find(|backup| backup["id"] == id).unwrap();
        found["pin_reason"].as_str().map(str::to_owned)
    };
    assert_eq!(reason(&pre_deploy).as_deref(), Some("pre-deploy"));
    assert_eq!(reason(&pinned).as_deref(), Some("before the move"));
    assert_eq!(reason(&last), None);
    assert_eq!(backups.len(), 3, "{list}");

    // With `keep_pre_deploy` they are not pinned, but a set of their own.
    let shop = Shop::new();
    let config_file = config(&shop, "    retention: {keep_last: 1, keep_pre_deploy: 2}\n");
    for trigger in ["pre-deploy", "pre-deploy", "pre-deploy", "manual", "manual"] {
        let all = ["--json", "-c", &config_file, "backup", "--trigger", trigger];
        shop.sandbox.pgkeep(all).run().expect(0);
    }
    assert_eq!(ids_with(&shop, ".manifest.json").len(), 3);
    assert_eq!(ids_with(&shop, ".pre-deploy.json").len(), 2);
    assert_eq!(ids_with(&shop, ".pin.json"), [""; 0]);
}

/// An orphan is swept after a day; a young one, and what a live run has stored, stay.
#[test]
fn sync_sweeps_what_no_manifest_speaks_for() {
    let shop = stocked(&nights());
    let folder = shop.folder().join("shop");
    let old = "shop-20260105T030000Z-0001";
    fs::remove_file(folder.join(format!("{old}.manifest.json"))).unwrap();
    let touched = Command::new("touch")
        .args(["-d", "2 days ago"])
        .arg(folder.join(format!("{old}.sql.gz")))
        .status();
    assert!(touched.unwrap().success());
    // Written just now.
    let young = "shop-20260106T030000Z-0001";
    fs::remove_file(folder.join(format!("{young}.manifest.json"))).unwrap();
    let before = keys(&shop);
    let sync = |more: &[&str]| shop.over(&[&["--json", "sync"], more].concat()).run();
    let dry = sync(&["--dry-run"]).expect(0).json();
    assert_eq!(keys(&shop), before);
    let swept = &dry["databases"][0]["storages"][0];
    assert_eq!(
        (&swept["orphans"][0]["id"], &swept["orphans"][0]["removed"]),
        (&json!(old), &json!(false))
    );
    assert_eq!(swept["young"], json!([young]));
    let real = sync(&[]).expect(0).json();
    assert_eq!(
        real["databases"][0]["storages"][0]["orphans"][0]["removed"],
        true
    );
    let mut expected = before;
    expected.retain(|key| !key.contains(old));
    assert_eq!(keys(&shop), expected);
    shop.oracle().assert_tidy();
}

/// What removes or sweeps waits for a live run, or says that it is there.
#[test]
fn prune_and_sync_give_way_to_a_backup() {
    let mut shop = stocked(&nights());
    let mark = shop.sandbox.path("at-it");
    let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": 6000, "resumes": true });
    shop.dumps(json!({ "stops_after": stop }));
    let before = keys(&shop);
    // Another host, which sees the lease only. Leases that live briefly are renewed often.
    let other = Shop::new();
    let folder = shop.folder().display().to_string();
    let ttl = ("PGKEEP_TEST_LEASE_TTL_MS", "3000");
    let oracle = shop.oracle();
    let running = shop.run(&oracle, &[]).env(ttl.0, ttl.1).start();
    running.wait_for_file(&mark);
    for command in [
        &["prune", "--keep-last", "1", "--allow-mass-delete"] as &[&str],
        &["sync"],
    ] {
        let all = [&["--json"], command, &["--storage", &folder]].concat();
        let outcome = other.sandbox.pgkeep(all).env(ttl.0, ttl.1).run().expect(11);
        assert_eq!(outcome.exit_error()["id"], "busy", "{outcome}");
    }
    let now = keys(&shop);
    assert!(before.iter().all(|key| now.contains(key)));
    running.wait().expect(0);
}

/// A newest backup that is cut off, pinned or garbage is nothing that older ones may go for.
#[test]
fn older_backups_go_only_for_the_sake_of_whole_ones() {
    let ids = nights();
    let newest = &ids[0];
    let path =
        |shop: &Shop, id: &str, suffix: &str| shop.folder().join(format!("shop/{id}.{suffix}"));
    type Spoil = fn(&Path, &Path);
    let cut: Spoil = |dump, _| fs::write(dump, "cut").unwrap();
    let emptied: Spoil = |dump, _| fs::write(dump, "").unwrap();
    let gone: Spoil = |dump, _| fs::remove_file(dump).unwrap();
    let garbage: Spoil = |_, manifest| fs::write(manifest, "garbage").unwrap();
    for spoil in [cut, emptied, gone, garbage] {
        let shop = stocked(&ids);
        spoil(
            &path(&shop, newest, "sql.gz"),
            &path(&shop, newest, "manifest.json"),
        );
        let outcome = prune(&shop, &["--keep-last", "1", "--allow-mass-delete"]).expect(0);
        let kept = names(&account(&outcome)["keep"]);
        assert_eq!(
            kept,
            ids[..2],
            "the spoilt one, and the newest whole one: {outcome}"
        );
    }
    // A pinned one uses nothing up, and the garbage behind it counts for nothing.
    let shop = stocked(&ids);
    shop.over(&["pin", newest, "audit"]).run().expect(0);
    fs::write(path(&shop, &ids[1], "manifest.json"), "garbage").unwrap();
    let outcome = prune(&shop, &["--keep-last", "1", "--allow-mass-delete"]).expect(0);
    assert_eq!(names(&account(&outcome)["keep"]), ids[..3], "{outcome}");
}

#[test]
fn a_refused_plan_is_told() {
    let shop = stocked(&nights());
    let outcome = prune(&shop, &["--keep-last", "1", "--dry-run"]).expect(25);
    let account = account(&outcome);
    assert_eq!(
        (
            names(&account["keep"]).len(),
            names(&account["remove"]).len()
        ),
        (1, 16),
        "{outcome}"
    );
    assert!(
        account["error"]
            .as_str()
            .unwrap()
            .contains("more than half")
    );
}

#[test]
fn a_database_that_is_not_there_is_told_and_leaves_nothing() {
    let shop = stocked(&nights());
    let before = keys(&shop);
    let outcome = prune(&shop, &["-d", "nope", "--keep-last", "1"]).expect(10);
    assert_eq!(outcome.exit_error()["id"], "no_such_database");
    assert_eq!(
        Place::Folder(shop.folder()).keys(),
        before,
        "no record either"
    );
}

/// Flags replace the rules that count, and nothing else of the configuration.
#[test]
fn flags_leave_pre_deploy_backups_alone() {
    let shop = stocked(&nights());
    let kept = "shop-20260103T030000Z-0001";
    fs::write(
        shop.folder().join(format!("shop/{kept}.pre-deploy.json")),
        "{}",
    )
    .unwrap();
    let file = config(
        &shop,
        "    retention: {keep_daily: 7, keep_pre_deploy: 5}\n",
    );
    let run = |more: &[&str]| {
        shop.sandbox
            .pgkeep([&["--json", "-c", &file, "prune"], more].concat())
            .run()
    };
    let outcome = run(&["--keep-last", "1", "--allow-mass-delete"]).expect(0);
    assert_eq!(names(&account(&outcome)["keep"])[1], kept, "{outcome}");
    let two = fs::read_to_string(&file).unwrap().replace(
        "storages:\n",
        "  blog:\n    url: postgresql:///blog\nstorages:\n",
    );
    fs::write(&file, two).unwrap();
    assert_eq!(
        run(&["--keep-last", "1"]).expect(2).exit_error()["id"],
        "database_needed"
    );
}

/// P13: a listing that lacks the backup that was just made is not planned upon.
#[test]
fn p13_a_listing_that_forgets_the_newest_backup_removes_nothing() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    stock(&shop, &bucket(&server), &nights());
    let before = server.keys();
    let file = shop.sandbox.path("pgkeep.yaml");
    let text = format!(
        "databases:\n  shop:\n    url: ${{DATABASE_URL}}\n    retention: {{keep_daily: 10}}\nstorages:\n  s3: {{url: {}, \
         endpoint: {}}}\npostgres: {{bin_dir: {}}}\n",
        Place::Bucket(&server).url(),
        server.endpoint,
        shop.fake.bin().display()
    );
    fs::write(&file, text).unwrap();
    let empty = "<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>";
    // Its own run looked for earlier ones, and found it once; then it is forgotten.
    let listing = Rule::new("GET", Fault::body(empty)).query("list-type=2");
    server.on(listing.skip(2));
    let outcome = shop
        .sandbox
        .pgkeep(["--json", "-c", &file.display().to_string(), "backup"])
        .run()
        .expect(3);
    assert_eq!(outcome.exit_error()["id"], "listing_failed", "{outcome}");
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("is good")
    );
    let keys = server.keys();
    assert!(before.iter().all(|key| keys.contains(key)));
}

/// L1: a storage that never answers holds neither the plan nor its carrying out beyond a stop.
#[test]
fn l1_a_silent_storage_does_not_hold_prune() {
    for more in [&["--dry-run"] as &[&str], &[]] {
        let server = ScriptedS3::start();
        let shop = Shop::with_key(&server);
        stock(&shop, &bucket(&server), &nights());
        server.on(Rule::new("GET", Fault::Hang).query("list-type=2"));
        let flags = Oracle::new(&shop.sandbox, vec![Place::Bucket(&server)]).flags();
        let fixed = ["--json", "-d", "shop", "prune", "--keep-last", "1"];
        let all = fixed
            .iter()
            .chain(more)
            .map(|&word| word.to_owned())
            .chain(flags);
        let running = shop.sandbox.pgkeep(all).start();
        while server.count("GET", "list-type=2") == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let asked = Instant::now();
        running.signal(Signal::TERM);
        let outcome = running.wait().expect(143);
        assert!(asked.elapsed() < Duration::from_secs(10), "{outcome}");
    }
}

/// P22: where no lease can be held, another host's run cannot be seen, and nothing is swept.
#[test]
fn p22_sync_without_a_lease_removes_nothing() {
    let server = ScriptedS3::start();
    server.ignore_conditions();
    let shop = Shop::with_key(&server);
    stock(&shop, &bucket(&server), &nights());
    let orphan = bucket(&server).join("shop/shop-20260105T030000Z-0001.manifest.json");
    fs::remove_file(orphan).unwrap();
    let touched = Command::new("touch")
        .args(["-d", "2 days ago"])
        .arg(bucket(&server).join("shop/shop-20260105T030000Z-0001.sql.gz"))
        .status();
    assert!(touched.unwrap().success());
    let before = server.keys();
    let flags = Oracle::new(&shop.sandbox, vec![Place::Bucket(&server)]).flags();
    let all = ["--json", "-d", "shop", "sync"]
        .map(str::to_owned)
        .into_iter()
        .chain(flags);
    let outcome = shop.sandbox.pgkeep(all).run().expect(25);
    assert_eq!(outcome.exit_error()["id"], "no_lease", "{outcome}");
    let after: Vec<String> = server
        .keys()
        .into_iter()
        .filter(|key| !key.contains("/runs/"))
        .collect();
    assert_eq!(after, before);
}

/// P20: only the storages that took the backup are pruned behind it.
#[test]
fn p20_a_storage_that_did_not_take_the_backup_keeps_all_it_has() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    stock(&shop, &bucket(&server), &nights());
    stock(&shop, &shop.folder(), &nights());
    let before = server.keys();
    server.on(Rule::new("PUT", Fault::status(403, "AccessDenied")).path(".sql.gz"));
    let file = shop.sandbox.path("pgkeep.yaml");
    let text = format!(
        "databases:\n  shop:\n    url: ${{DATABASE_URL}}\n    retention: {{keep_daily: 10}}\nstorages:\n  local: {{url: {}}}\n  \
         s3: {{url: {}, endpoint: {}}}\npostgres: {{bin_dir: {}}}\n",
        shop.folder().display(),
        Place::Bucket(&server).url(),
        server.endpoint,
        shop.fake.bin().display()
    );
    fs::write(&file, text).unwrap();
    let command = ["--json", "-c", &file.display().to_string(), "backup"];
    let outcome = shop.sandbox.pgkeep(command).run().expect(3);
    let summary = outcome.summary();
    let pruned = summary["backups"][0]["prune"]["storages"]
        .as_array()
        .unwrap();
    assert_eq!(pruned.len(), 1, "{outcome}");
    assert_eq!(pruned[0]["name"], "local");
    assert_eq!(ids_with(&shop, ".manifest.json").len(), 10);
    let keys = server.keys();
    assert!(before.iter().all(|key| keys.contains(key)), "{keys:?}");
}

/// L2: a kill at any removal leaves orphans at most; the next run needs no help and ends where the first one would have.
#[test]
fn l2_a_prune_that_is_killed_leaves_nothing_that_points_at_nothing() {
    let traced = Command::new("strace").args(["-qq", "true"]).output();
    if !traced.is_ok_and(|output| output.status.success()) {
        return skip("`strace` is not installed, or may not trace");
    }
    let policy = ["prune", "--keep-daily", "3", "--allow-mass-delete"];
    let mut ids = nights();
    ids.truncate(6);
    for when in 1..=9 {
        let shop = stocked(&ids);
        let folder = shop.folder().display().to_string();
        let inject = format!("inject=unlinkat:signal=SIGKILL:when={when}");
        let fixed = [
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=unlinkat",
            "-e",
            &inject,
        ];
        let pgkeep = [env!("CARGO_BIN_EXE_pgkeep"), "--json"];
        let all = [&fixed[..], &pgkeep, &policy, &["--storage", &folder]].concat();
        shop.sandbox.program("strace", all).run();
        let manifests = ids_with(&shop, ".manifest.json");
        let dumps = ids_with(&shop, ".sql.gz");
        assert!(
            manifests.iter().all(|id| dumps.contains(id)),
            "{when}: {manifests:?} {dumps:?}"
        );
        assert!(manifests.contains(&ids[0]), "{when}");
        shop.over(&policy).run().expect(0);
        let mut kept = [0, 2, 3].map(|at| ids[at].clone());
        kept.sort();
        assert_eq!(ids_with(&shop, ".manifest.json"), kept, "{when}");
        // What was being written when the kill came is for whoever sweeps: a backup or `sync`.
        shop.over(&["sync"]).run().expect(0);
        shop.oracle().assert_tidy();
    }
}

/// A disk that is not mounted stops what is kept there, and nothing else.
#[test]
fn a_database_whose_storages_cannot_be_used_does_not_stop_the_others() {
    let shop = stocked(&nights());
    let file = shop.sandbox.path("pgkeep.yaml");
    let text = format!(
        "databases:\n  blog:\n    url: ${{DATABASE_URL}}\n    storages: [away]\n    retention: {{keep_daily: 10}}\n  \
         shop:\n    url: ${{DATABASE_URL}}\n    storages: [local]\n    retention: {{keep_daily: 10}}\n\
         storages:\n  away: {{url: {}}}\n  local: {{url: {}}}\n",
        shop.sandbox.path("unmounted/backups").display(),
        shop.folder().display()
    );
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    for verb in ["prune", "sync"] {
        let command = ["--json", "-c", &file, verb];
        let outcome = shop.sandbox.pgkeep(command).run().expect(2);
        let error = outcome.exit_error();
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("cannot use the storage `away`"),
            "{outcome}"
        );
        assert!(message.ends_with("; nothing was removed"), "{outcome}");
        let databases = &outcome.json()["databases"];
        assert_eq!(databases[0]["database"], "blog");
        assert_eq!(databases[0]["storages"], json!([]));
        assert_eq!(databases[1]["storages"][0]["name"], "local");
        assert_eq!(ids_with(&shop, ".manifest.json").len(), 10, "{outcome}");
    }
}

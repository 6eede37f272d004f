//! One run at a time (rows L4 to L6, P22): two runs at once, on one host and on two, alive, paused and dead.
//!
//! Two sandboxes are two hosts, for each has a state folder of its own; what they share lies outside of both.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Shop;
use crate::support::sandbox::{Outcome, Run};
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};
use crate::support::{Oracle, Place, S3Server};

/// What runs share.
struct Common {
    files: TempDir,
    server: S3Server,
}

impl Common {
    fn new() -> Self {
        Self {
            files: tempfile::tempdir().unwrap(),
            server: S3Server::start(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.files.path().join("backups")
    }

    /// Makes a host with its own state folder.
    fn host(&self) -> Shop {
        Shop::with_key(&self.server)
    }

    /// Makes a process of the one host whose state folder lies here.
    fn process(&self) -> Shop {
        let mut shop = self.host();
        let state = self.files.path().join("state");
        shop.sandbox.set("PGKEEP_STATE_DIR", state);
        shop
    }

    fn in_folder<'a>(&self, shop: &'a Shop) -> Oracle<'a> {
        Oracle::new(&shop.sandbox, vec![Place::Folder(self.folder())])
    }

    fn in_both<'a>(&'a self, shop: &'a Shop) -> Oracle<'a> {
        let places = vec![Place::Folder(self.folder()), Place::Bucket(&self.server)];
        Oracle::new(&shop.sandbox, places)
    }
}

/// Lets the next dump stand still in its middle for so long, and returns the mark that it makes then.
fn stands_still(shop: &mut Shop, sleeps_ms: u64) -> PathBuf {
    let mark = shop.sandbox.path("reached");
    let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": sleeps_ms, "resumes": true });
    shop.dumps(json!({ "stops_after": stop }));
    mark
}

/// Lets the leases of a run live for so long.
fn living(ttl_ms: u32, run: Run<'_>) -> Run<'_> {
    run.env("PGKEEP_TEST_LEASE_TTL_MS", ttl_ms.to_string())
}

fn warnings(outcome: &Outcome) -> Vec<Value> {
    let backup = outcome.summary()["backups"][0].clone();
    let warnings = backup["warnings"].as_array().unwrap().iter();
    warnings.map(|warning| warning["id"].clone()).collect()
}

#[track_caller]
fn assert_busy(outcome: &Outcome, pid: i32) -> String {
    assert_eq!(outcome.status.code(), Some(11), "{outcome}");
    let error = outcome.exit_error();
    assert_eq!(error["id"], "busy");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("`backup` in process {pid} ")),
        "{message}"
    );
    assert!(message.ends_with("nothing was stored"), "{message}");
    assert!(
        error["hints"].to_string().contains("--lock-timeout"),
        "{error}"
    );
    message.to_owned()
}

#[test]
fn l4_a_second_run_on_the_host_is_told_who_is_at_work() {
    let common = Common::new();
    let (mut first, second) = (common.process(), common.process());
    let mark = stands_still(&mut first, 60_000);
    let oracle = common.in_folder(&first);
    let running = first.run(&oracle, &[]).start();
    running.wait_for_file(&mark);
    let outcome = second.run(&common.in_folder(&second), &[]).run();
    let message = assert_busy(&outcome, running.pid());
    assert!(message.contains("on this host since 2"), "{message}");
    assert_eq!(second.fake.calls("psql").len(), 0, "nothing was begun");
    // One that leaves tables out has the same lock; another database has not.
    let partial = ["--table", "users"];
    let outcome = second.run(&common.in_folder(&second), &partial).run();
    assert_busy(&outcome, running.pid());
    let other = ["--name", "ledger"];
    let outcome = second.run(&common.in_folder(&second), &other).run();
    outcome.expect(0);
    running.signal(Signal::INT);
    let outcome = running.wait().expect(130);
    assert_eq!(oracle.leases(), [""; 0], "{outcome}");
    second.backup_to(&common.in_folder(&second), &[]).expect(0);
}

#[test]
fn l4_a_second_run_waits_if_it_is_told_to() {
    let common = Common::new();
    let (mut first, second) = (common.process(), common.process());
    let mark = stands_still(&mut first, 2_500);
    let of_first = common.in_folder(&first);
    let running = first.run(&of_first, &[]).start();
    running.wait_for_file(&mark);
    let of_second = common.in_folder(&second);
    let waiting = second.run(&of_second, &["--lock-timeout", "10m"]).start();
    let first = running.wait().expect(0);
    let second = waiting.wait().expect(0);
    let manifest = |outcome: &Outcome| -> Value {
        let key = outcome.summary()["backups"][0]["manifest_key"].clone();
        let file = common.folder().join(key.as_str().unwrap());
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    };
    // In whole seconds, as ids are.
    let time = |outcome: &Outcome, at: &str| -> i64 {
        let time = manifest(outcome)[at].as_str().unwrap().parse::<Timestamp>();
        time.unwrap().as_second()
    };
    let (end, start) = (time(&first, "finished_at"), time(&second, "started_at"));
    assert!(end <= start, "{end} {start}: {second}");
    assert_eq!(of_second.manifests(), 2);
    of_second.assert_tidy();
}

#[test]
fn l5_a_second_host_finds_the_lease() {
    let common = Common::new();
    let (mut first, second) = (common.host(), common.host());
    let mark = stands_still(&mut first, 60_000);
    let of_first = common.in_both(&first);
    // It is renewed every two seconds, so the other need not wait for long to see that it is alive.
    let running = living(6_000, first.run(&of_first, &[])).start();
    running.wait_for_file(&mark);
    assert_eq!(of_first.leases().len(), 2, "one in each storage");
    for oracle in [common.in_folder(&second), second.oracle_of(&common.server)] {
        let outcome = living(6_000, second.run(&oracle, &[])).run();
        let message = assert_busy(&outcome, running.pid());
        assert!(message.contains("says its lease in `"), "{message}");
    }
    assert_eq!(second.fake.calls("psql").len(), 0, "nothing was begun");
    running.signal(Signal::TERM);
    running.wait().expect(143);
    assert_eq!(of_first.leases(), [""; 0], "given back in time");
    second.backup_to(&common.in_both(&second), &[]).expect(0);
}

#[test]
fn l6_a_paused_run_that_was_taken_over_stores_nothing() {
    let common = Common::new();
    let (mut first, second) = (common.host(), common.host());
    let mark = stands_still(&mut first, 60_000);
    let of_first = common.in_both(&first);
    let running = living(1_500, first.run(&of_first, &[])).start();
    running.wait_for_file(&mark);
    running.signal(Signal::STOP);

    let of_second = common.in_both(&second);
    let before = of_second.before();
    let outcome = living(1_500, second.run(&of_second, &[])).run();
    of_second.judge_visible(&before, &outcome.expect(0));
    assert_eq!(of_second.leases(), [""; 0]);

    let before = of_first.before();
    running.signal(Signal::CONT);
    let outcome = running.wait().expect(11);
    assert_eq!(outcome.exit_error()["id"], "lock_lost", "{outcome}");
    of_first.judge(&before, &outcome);
    of_first.assert_tidy();
    assert_eq!(of_first.manifests(), 2, "the other's, in each storage");
}

#[test]
fn l6_what_was_taken_over_is_said() {
    let common = Common::new();
    let (mut first, second) = (common.host(), common.host());
    let mark = stands_still(&mut first, 700);
    let of_first = common.in_folder(&first);
    let running = living(1_000, first.run(&of_first, &[])).start();
    running.wait_for_file(&mark);
    let pid = running.pid();
    running.signal(Signal::KILL);
    running.wait();
    assert_eq!(of_first.leases(), ["shop/lease.json"]);
    let of_second = common.in_folder(&second);
    let before = of_second.before();
    let outcome = living(1_000, second.run(&of_second, &[])).run().expect(0);
    of_second.judge(&before, &outcome);
    assert_eq!(warnings(&outcome), ["lease_taken_over"]);
    let said = outcome.summary().to_string();
    assert!(said.contains(&format!("in process {pid} on")), "{said}");
}

/// A lease that changes hands while the dump is made is found out at the latest before the manifest.
#[test]
fn l6_a_lease_that_changed_hands_lets_nothing_be_stored() {
    let common = Common::new();
    let mut shop = common.host();
    let mark = stands_still(&mut shop, 3_000);
    let oracle = common.in_both(&shop);
    // A renewal comes every 20 s only, so it is the last look that finds out.
    let running = shop.run(&oracle, &[]).start();
    running.wait_for_file(&mark);
    let file = common.folder().join("shop/lease.json");
    let lease: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut theirs = lease.clone();
    theirs["holder"] = json!("somebody else");
    theirs["host_name"] = json!("db9");
    fs::write(&file, theirs.to_string()).unwrap();
    let outcome = running.wait().expect(11);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "lock_lost");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("on `db9`"), "{message}");
    assert!(message.ends_with("nothing was stored"), "{message}");
    assert_eq!(oracle.manifests(), 0);
    let is_no_record = |key: &String| !key.contains("/runs/");
    let left: Vec<String> = Place::Folder(common.folder())
        .keys()
        .into_iter()
        .filter(is_no_record)
        .collect();
    assert_eq!(left, ["shop/lease.json"], "theirs, and no dump");
    let left: Vec<String> = common
        .server
        .keys()
        .into_iter()
        .filter(is_no_record)
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn l6_a_lease_that_was_taken_away_is_lost_too() {
    let server = S3Server::start();
    let mut shop = Shop::with_key(&server);
    let mark = stands_still(&mut shop, 3_000);
    let oracle = shop.oracle_of(&server);
    let before = oracle.before();
    let running = shop.run(&oracle, &[]).start();
    running.wait_for_file(&mark);
    fs::remove_file(server.bucket_dir().join("pg/shop/lease.json")).unwrap();
    let outcome = running.wait().expect(11);
    assert_eq!(outcome.exit_error()["id"], "lock_lost");
    oracle.judge(&before, &outcome);
    oracle.assert_tidy();
}

#[test]
fn l2_after_a_kill_the_next_run_needs_no_unlocking() {
    let common = Common::new();
    let mut shop = common.process();
    let mark = stands_still(&mut shop, 700);
    let oracle = common.in_both(&shop);
    let running = shop.run(&oracle, &[]).start();
    running.wait_for_file(&mark);
    running.signal(Signal::KILL);
    running.wait();
    assert_eq!(oracle.leases().len(), 2, "nobody gave them back");
    drop(oracle);
    shop.dumps(json!({}));
    let oracle = common.in_both(&shop);
    let before = oracle.before();
    let next = shop.run(&oracle, &[]).run().expect(0);
    oracle.judge_visible(&before, &next);
    assert_eq!(oracle.leases(), [""; 0], "O4");
    // Waiting for a lease to die is a warning; this one was known to be dead.
    assert_eq!(warnings(&next), [""; 0]);
}

#[test]
fn p22_a_store_that_ignores_conditions_keeps_one_host_apart() {
    let server = ScriptedS3::start();
    server.ignore_conditions();
    let state = tempfile::tempdir().unwrap();
    let process = || {
        let mut shop = Shop::with_key(&server);
        shop.sandbox.set("PGKEEP_STATE_DIR", state.path());
        shop
    };
    let (mut first, second) = (process(), process());
    let mark = stands_still(&mut first, 60_000);
    let of_first = first.oracle_of(&server);
    let running = first.run(&of_first, &[]).start();
    running.wait_for_file(&mark);
    assert_eq!(of_first.leases(), [""; 0], "one without effect is none");
    let outcome = second.run(&second.oracle_of(&server), &[]).run();
    assert_busy(&outcome, running.pid());
    running.signal(Signal::INT);
    running.wait().expect(130);
    let outcome = second.backup_to(&second.oracle_of(&server), &[]).expect(0);
    assert_eq!(warnings(&outcome), ["lease_not_exclusive"]);
}

#[test]
fn p22_a_store_without_conditions_is_noticed_and_said() {
    let ignored = Fault::Answer {
        status: 200,
        headers: vec![("etag", "\"1\"".to_owned())],
        body: String::new(),
    };
    // The first put makes the lease; the second must be refused because it is there, the third because it changed.
    for (fault, skip) in [
        (Fault::status(501, "NotImplemented"), 0),
        (Fault::status(501, "NotImplemented"), 1),
        (Fault::status(501, "NotImplemented"), 2),
        (ignored.clone(), 1),
        (ignored, 2),
    ] {
        let server = ScriptedS3::start();
        let shop = Shop::with_key(&server);
        let rule = Rule::new("PUT", fault.clone()).path("lease.json");
        server.on(rule.skip(skip).times(1));
        let outcome = shop.backup_to(&shop.oracle_of(&server), &[]).expect(0);
        assert_eq!(
            warnings(&outcome),
            ["lease_not_exclusive"],
            "{fault:?} {skip}"
        );
        let said = outcome.summary().to_string();
        assert!(
            said.contains("only runs on this host wait for each other"),
            "{said}"
        );
    }
}

#[test]
fn p12_a_lease_that_is_refused_is_told_and_no_more() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    server.on(Rule::new("PUT", Fault::status(403, "AccessDenied")).path("lease.json"));
    let outcome = shop.backup_to(&shop.oracle_of(&server), &[]).expect(0);
    assert_eq!(warnings(&outcome), ["lease_failed"]);
    server.behave();
    // Who may not remove leaves word that the lease is free, and the next host need not wait.
    server.on(Rule::new("DELETE", Fault::status(403, "AccessDenied")));
    let oracle = shop.oracle_of(&server);
    let outcome = shop.run(&oracle, &[]).run().expect(0);
    assert_eq!(warnings(&outcome), [""; 0]);
    let other = Shop::with_key(&server);
    let outcome = other.run(&other.oracle_of(&server), &[]).run().expect(0);
    assert_eq!(warnings(&outcome), [""; 0]);
}

#[test]
fn a_lease_costs_few_requests() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    shop.run(&shop.oracle_of(&server), &[]).run().expect(0);
    let log = server.log();
    let of_lease = |method: &str| {
        let mine = log.iter().filter(|seen| seen.path.ends_with("/lease.json"));
        mine.filter(|seen| seen.method == method).count()
    };
    // Made, tried twice against the rules and once by them, renewed before the manifest; looked at after each refusal and
    // before it goes.
    assert_eq!(["PUT", "GET", "DELETE", "HEAD"].map(of_lease), [5, 3, 1, 0]);
}

/// cron and containers have no home, or one that cannot be written to (row L13).
#[test]
fn l13_locks_find_a_folder() {
    let shop = Shop::new();
    let run = |set: &[(&str, &Path)]| {
        let oracle = shop.oracle();
        let mut run = shop.run(&oracle, &[]).env("HOME", "/proc/none");
        for (name, path) in set {
            run = run.env(name, path);
        }
        run.run()
    };
    let path = |name: &str| shop.sandbox.path(name);
    let is_used = |folder: PathBuf| folder.join("locks/host").exists();
    let (state, xdg, runtime) = (path("state"), path("xdg"), path("runtime"));
    let user = rustix::process::geteuid().as_raw();
    run(&[]).expect(0);
    assert!(is_used(
        shop.sandbox.root().join(format!("tmp/pgkeep-{user}"))
    ));
    run(&[("XDG_RUNTIME_DIR", &runtime)]).expect(0);
    assert!(is_used(runtime.join("pgkeep")));
    run(&[("XDG_RUNTIME_DIR", &runtime), ("XDG_STATE_HOME", &xdg)]).expect(0);
    assert!(is_used(xdg.join("pgkeep")));
    run(&[("XDG_STATE_HOME", &xdg), ("PGKEEP_STATE_DIR", &state)]).expect(0);
    assert!(is_used(state));
    let file = shop.sandbox.write("file", "x");
    let outcome = run(&[("PGKEEP_STATE_DIR", &file)]).expect(2);
    assert_eq!(outcome.exit_error()["id"], "state_folder");
    // A link planted in a folder of everybody's is not followed.
    let planted = shop
        .sandbox
        .root()
        .join("tmp")
        .join(format!("pgkeep-{user}"));
    fs::remove_dir_all(&planted).unwrap();
    std::os::unix::fs::symlink(path("elsewhere"), &planted).unwrap();
    fs::create_dir(path("elsewhere")).unwrap();
    run(&[]).expect(2);
    assert_eq!(fs::read_dir(path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_time_to_wait_is_read() {
    let shop = Shop::new();
    let oracle = shop.oracle();
    let outcome = shop
        .run(&oracle, &["--lock-timeout", "soon"])
        .run()
        .expect(2);
    assert_eq!(outcome.exit_error()["id"], "bad_duration");
    for time in ["0", "off", "1s", "1d", "999999h"] {
        shop.backup(&["--lock-timeout", time]).expect(0);
    }
}

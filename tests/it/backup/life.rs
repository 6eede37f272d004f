//! The life of the process (rows L): signals at every stage, kills at any time, terminals that are gone.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Real, Shop, answers, facts, while_locked};
use crate::support::sandbox::{Outcome, Running};
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3, Seen};
use crate::support::{Oracle, postgres, skip};

/// A dump that is stored in parts, slowly read or quickly.
const LARGE: u64 = 9_000_000;

/// How long a run may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both signals with their exit codes.
const SIGNALS: [(Signal, i32, &str); 2] = [
    (Signal::INT, 130, "interrupted"),
    (Signal::TERM, 143, "terminated"),
];

/// Where a run stands still.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Connect,
    Dump,
    Upload,
    Complete,
    Manifest,
}

impl Stage {
    /// Makes the next run stand still there.
    fn set(self, shop: &mut Shop, server: &ScriptedS3) {
        let mark = shop.sandbox.path("reached");
        shop.dumps(json!({ "one_line_bytes": LARGE }));
        let hang = |method, part: &str| server.on(Rule::new(method, Fault::Hang).query(part));
        match self {
            Self::Connect => {
                let mut answers = answers(&facts());
                answers[0]["sleeps_ms"] = json!(60_000);
                let script = json!({ "answers": answers, "ignores_sigterm": true });
                shop.fake.script("psql", script);
            }
            Self::Dump => {
                let stop = json!({ "bytes": 7_000_000, "marks": mark, "sleeps_ms": 60_000 });
                let script = json!({ "one_line_bytes": LARGE, "stops_after": stop, "ignores_sigterm": true });
                shop.dumps(script);
            }
            Self::Upload => hang("PUT", "partNumber="),
            Self::Complete => {
                hang("POST", "uploadId=");
                // Giving up takes a second try, which a program that ends at once does not make.
                let stumble = Fault::status(500, "InternalError");
                server.on(Rule::new("DELETE", stumble).query("uploadId=").times(1));
            }
            Self::Manifest => {
                server.on(Rule::new("PUT", Fault::Hang).path("manifest.json"));
            }
        }
    }

    /// Waits until the run stands still there.
    fn wait(self, shop: &Shop, server: &ScriptedS3, running: &Running<'_>) {
        let seen = |method: &str, path: &str, query: &str| {
            let log = server.log();
            log.iter().any(|seen| {
                seen.method == method && seen.path.contains(path) && seen.query.contains(query)
            })
        };
        let is_there = || match self {
            Self::Connect => !shop.fake.calls("psql").is_empty(),
            Self::Dump => shop.sandbox.path("reached").exists(),
            Self::Upload => seen("PUT", "", "partNumber="),
            Self::Complete => seen("POST", "", "uploadId="),
            Self::Manifest => seen("PUT", "manifest.json", ""),
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_there() {
            assert!(
                Instant::now() < deadline,
                "{self:?} never came: {}",
                running.pid()
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

/// Starts a run that stands still at a stage, signals it, and returns how it ended.
fn stop_at(
    stage: Stage,
    signal: Signal,
    judge: impl Fn(&Oracle<'_>, &crate::support::oracle::Before, &Outcome),
) -> Outcome {
    let server = ScriptedS3::start();
    let mut shop = Shop::with_key(&server);
    stage.set(&mut shop, &server);
    let oracle = shop.oracle_of(&server);
    let before = oracle.before();
    let running = shop.run(&oracle, &["--compression", "none"]).start();
    stage.wait(&shop, &server, &running);
    let at = Instant::now();
    running.signal(signal);
    let outcome = running.wait();
    assert!(at.elapsed() < PATIENCE, "{stage:?}: {outcome}");
    server.behave();
    judge(&oracle, &before, &outcome);
    drop(oracle);
    // The next run works, without any unlocking.
    shop.answer(&facts());
    shop.dumps(json!({}));
    let oracle = shop.oracle_of(&server);
    let before = oracle.before();
    let next = shop.run(&oracle, &[]).run().expect(0);
    oracle.judge_visible(&before, &next);
    outcome
}

/// Signals a run that stands still at a stage: it ends in time, and nothing at all is left of it.
#[track_caller]
fn ends_cleanly(stage: Stage, (signal, code, id): (Signal, i32, &str)) {
    let outcome = stop_at(stage, signal, |oracle, before, outcome| {
        oracle.judge(before, outcome);
        oracle.assert_tidy();
    });
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
    let error = outcome.exit_error();
    assert_eq!(error["id"], id);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("nothing was stored"), "{error}");
}

#[test]
fn l1_a_signal_while_it_connects() {
    ends_cleanly(Stage::Connect, SIGNALS[0]);
}

#[test]
fn l1_a_signal_while_it_dumps() {
    ends_cleanly(Stage::Dump, SIGNALS[1]);
}

#[test]
fn l1_a_signal_while_it_uploads() {
    ends_cleanly(Stage::Upload, SIGNALS[0]);
}

#[test]
fn l1_a_signal_while_the_upload_is_put_together() {
    ends_cleanly(Stage::Complete, SIGNALS[1]);
}

#[test]
fn l1_a_signal_while_it_commits() {
    ends_cleanly(Stage::Manifest, SIGNALS[0]);
}

#[test]
fn l1_both_signals_end_a_dump_into_a_folder() {
    for (signal, code, id) in SIGNALS {
        let mut shop = Shop::new();
        shop.backup(&[]).expect(0);
        let mark = shop.sandbox.path("reached");
        let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": 60_000 });
        shop.dumps(json!({ "stops_after": stop, "grandchild_ms": 600_000 }));
        let oracle = shop.oracle();
        let before = oracle.before();
        let running = shop.run(&oracle, &[]).start();
        running.wait_for_file(&mark);
        let at = Instant::now();
        running.signal(signal);
        let outcome = running.wait().expect(code);
        assert!(at.elapsed() < Duration::from_secs(4), "{outcome}");
        oracle.judge(&before, &outcome);
        assert_eq!(outcome.exit_error()["id"], id);
    }
}

/// Three storages, of which some stand still at one place, and none answers to everything any more.
#[derive(Clone, Copy, Debug)]
struct Standstill {
    /// How many stand still; the others get as far as they can.
    count: usize,
    /// Which request never gets an answer there.
    at: (&'static str, &'static str, &'static str),
    /// Which ones get none anywhere, once the run is there.
    silent: &'static [&'static str],
}

/// From the first question about a storage to the commit: behind none of these places may one wait add to another.
const STANDSTILLS: [Standstill; 7] = [
    Standstill {
        count: 3,
        at: ("GET", "", "uploads"),
        silent: &["HEAD", "PUT", "POST", "DELETE"],
    },
    Standstill {
        count: 3,
        at: ("PUT", "", "partNumber="),
        silent: &["DELETE"],
    },
    Standstill {
        count: 3,
        at: ("POST", "", "uploadId="),
        silent: &["DELETE"],
    },
    Standstill {
        count: 3,
        at: ("PUT", "globals", ""),
        silent: &["DELETE"],
    },
    Standstill {
        count: 2,
        at: ("PUT", "globals", ""),
        silent: &["DELETE"],
    },
    Standstill {
        count: 3,
        at: ("PUT", "manifest.json", ""),
        silent: &["GET", "DELETE"],
    },
    // One manifest of the two that are asked for came about, and is to be taken away again.
    Standstill {
        count: 2,
        at: ("PUT", "manifest.json", ""),
        silent: &["GET", "DELETE"],
    },
];

impl Standstill {
    /// Tells whether a server has seen the request, and done what it asks where it does not stand still.
    fn is_at(&self, number: usize, server: &ScriptedS3) -> bool {
        let (method, path, query) = self.at;
        let is_it = |seen: &Seen| {
            seen.method == method && seen.path.contains(path) && seen.query.contains(query)
        };
        let is_done = || server.keys().iter().any(|key| key.contains(path));
        server.log().iter().any(is_it) && (number < self.count || is_done())
    }

    /// Starts a run into the three servers, of which each backup needs two.
    fn start<'a>(&self, shop: &'a Shop, servers: &[ScriptedS3]) -> Running<'a> {
        let mut config = String::from("storages:\n");
        for (number, server) in servers.iter().enumerate() {
            let (url, endpoint) = (format!("s3://{}/pg", server.bucket), &server.endpoint);
            config += &format!("  s{number}: {{url: '{url}', endpoint: '{endpoint}'}}\n");
        }
        config += "databases:\n  shop: {url: '${DATABASE_URL}', compression: none, globals: true, copies: 2}\n";
        config += &format!("postgres: {{bin_dir: {}}}\n", shop.fake.bin().display());
        shop.sandbox.write("pgkeep.yaml", config);
        shop.sandbox.pgkeep(["--json", "backup"]).start()
    }

    /// Runs until the storages stand still, and ends the run there.
    fn end_there(self) {
        let servers = [(); 3].map(|()| ScriptedS3::start());
        let mut shop = Shop::with_key(&servers[0]);
        shop.dumps(json!({ "one_line_bytes": LARGE }));
        let (method, path, query) = self.at;
        for server in &servers[..self.count] {
            server.on(Rule::new(method, Fault::Hang).path(path).query(query));
        }
        let running = self.start(&shop, &servers);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !(0..3).all(|number| self.is_at(number, &servers[number])) {
            assert!(Instant::now() < deadline, "{self:?} never came");
            std::thread::sleep(Duration::from_millis(3));
        }
        for (server, method) in servers
            .iter()
            .flat_map(|server| self.silent.iter().map(move |method| (server, *method)))
        {
            server.on(Rule::new(method, Fault::Hang));
        }
        let at = Instant::now();
        running.signal(Signal::TERM);
        let outcome = running.wait().expect(143);
        assert!(at.elapsed() < PATIENCE, "{self:?}: {outcome}");
        let error = outcome.exit_error();
        assert_eq!(error["id"], "terminated", "{self:?}");
        servers.iter().for_each(|server| server.behave());
        let list = shop
            .sandbox
            .pgkeep(["--json", "list"])
            .run()
            .expect(0)
            .json();
        let is_told = error["message"].as_str().unwrap().contains("may be stored");
        assert!(
            is_told || list["backups"] == json!([]),
            "{self:?}: {outcome}"
        );
    }
}

#[test]
fn l1_storages_that_are_silent_together_are_not_waited_for_one_by_one() {
    std::thread::scope(|scope| {
        for standstill in STANDSTILLS {
            scope.spawn(move || standstill.end_there());
        }
    });
}

/// The manifest is there, but its answer never came: what it points at is taken away only after it.
#[test]
fn l1_a_manifest_of_unknown_fate_points_at_something_or_is_gone() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    server.on(Rule::new("PUT", Fault::LoseAnswer).path("manifest.json"));
    server.on(Rule::new("HEAD", Fault::status(503, "SlowDown"))
        .path("manifest.json")
        .skip(1));
    let oracle = shop.oracle_of(&server);
    let before = oracle.before();
    let running = shop.run(&oracle, &[]).start();
    while !server
        .keys()
        .iter()
        .any(|key| key.ends_with("manifest.json"))
    {
        std::thread::sleep(Duration::from_millis(3));
    }
    running.signal(Signal::TERM);
    let outcome = running.wait();
    server.behave();
    oracle.judge_visible(&before, &outcome);
    let keys = server.keys();
    let has = |end: &str| keys.iter().any(|key| key.ends_with(end));
    assert_eq!(has(".manifest.json"), has(".sql.gz"), "{keys:?}: {outcome}");
}

/// Nobody can tell whether the manifest came about, so nobody says that nothing was stored.
#[test]
fn l1_a_manifest_that_nobody_can_see_may_be_there() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    for method in ["PUT", "GET"] {
        server.on(Rule::new(method, Fault::Hang).path("manifest.json"));
    }
    let oracle = shop.oracle_of(&server);
    let running = shop.run(&oracle, &[]).start();
    Stage::Manifest.wait(&shop, &server, &running);
    let at = Instant::now();
    running.signal(Signal::TERM);
    let outcome = running.wait().expect(143);
    assert!(at.elapsed() < PATIENCE, "{outcome}");
    let error = outcome.exit_error();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("it may be stored as `shop-"), "{message}");
    assert_eq!(oracle.leases(), [""; 0]);
}

#[test]
fn l1_a_run_of_several_databases_stops_as_a_whole() {
    let mut shop = Shop::new();
    let mark = shop.sandbox.path("reached");
    let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": 60_000 });
    shop.dumps(json!({ "stops_after": stop }));
    let config = format!(
        "databases:\n  one: {{url: '${{DATABASE_URL}}'}}\n  two: {{url: '${{DATABASE_URL}}'}}\n\
         storages: {{local: {{url: {}}}}}\npostgres: {{bin_dir: {}}}\n",
        shop.folder().display(),
        shop.fake.bin().display()
    );
    shop.sandbox.write("pgkeep.yaml", config);
    let running = shop.sandbox.pgkeep(["--json", "backup"]).start();
    running.wait_for_file(&mark);
    running.signal(Signal::TERM);
    let outcome = running.wait().expect(143);
    let summary = outcome.summary();
    let codes: Vec<_> = summary["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["failure"]["code"].clone())
        .collect();
    assert_eq!(codes, [143, 143], "the second was not started and says so");
}

#[test]
fn l2_a_killed_run_leaves_nothing_that_can_be_seen() {
    for stage in [Stage::Dump, Stage::Upload, Stage::Complete, Stage::Manifest] {
        stop_killed(stage);
    }
}

fn stop_killed(stage: Stage) {
    let server = ScriptedS3::start();
    let mut shop = Shop::with_key(&server);
    stage.set(&mut shop, &server);
    // What is killed cannot end its child; the child ends by itself, at the next byte it writes.
    let mark = shop.sandbox.path("reached");
    let stop = json!({ "bytes": 7_000_000, "marks": mark, "sleeps_ms": 700, "resumes": true });
    if matches!(stage, Stage::Dump) {
        shop.dumps(json!({ "one_line_bytes": LARGE, "stops_after": stop }));
    }
    let oracle = shop.oracle_of(&server);
    let before = oracle.before();
    let running = shop.run(&oracle, &["--compression", "none"]).start();
    stage.wait(&shop, &server, &running);
    running.signal(Signal::KILL);
    let outcome = running.wait();
    server.behave();
    oracle.judge_killed(&before, &outcome);
    assert_eq!(shop.oracle_of(&server).manifests(), 0, "{stage:?}");
    drop(oracle);
    shop.dumps(json!({}));
    let oracle = shop.oracle_of(&server);
    let before = oracle.before();
    let next = shop.run(&oracle, &[]).run().expect(0);
    oracle.judge_visible(&before, &next);
}

/// Thirty runs killed after 0 to 60 ms, which is from the first instruction to behind the commit.
#[test]
fn l2_kills_at_any_time() {
    let mut shop = Shop::new();
    shop.backup(&[]).expect(0);
    shop.dumps(json!({ "one_line_bytes": 300_000 }));
    let oracle = shop.oracle();
    let mut killed = 0;
    for round in 0..30 {
        let before = oracle.before();
        let running = shop.run(&oracle, &[]).start();
        std::thread::sleep(Duration::from_micros(round * 2_000));
        running.signal(Signal::KILL);
        let outcome = running.wait();
        if outcome.signal() == Some(9) {
            killed += 1;
            oracle.judge_killed(&before, &outcome);
        } else {
            oracle.judge_visible(&before, &outcome);
        }
    }
    assert!(killed > 5, "{killed}: too late to prove anything");
    let before = oracle.before();
    let next = shop.run(&oracle, &[]).run().expect(0);
    oracle.judge_visible(&before, &next);
    oracle.assert_tidy();
}

#[test]
fn l2_a_kill_at_each_rename_and_fsync() {
    if std::process::Command::new("strace")
        .arg("-V")
        .output()
        .is_err()
    {
        skip("`strace` is not installed");
        return;
    }
    for point in ["renameat2", "fsync"] {
        let shop = Shop::new();
        shop.backup(&[]).expect(0);
        let oracle = shop.oracle();
        let before = oracle.before();
        let trace = format!("inject={point}:signal=SIGKILL:when=1");
        let fixed = ["-f", "-qq", "-o", "/dev/null", "-e", &trace];
        let bin = shop.fake.bin().display().to_string();
        let run = [
            env!("CARGO_BIN_EXE_pgkeep"),
            "--json",
            "backup",
            "--bin-dir",
            &bin,
            "--storage",
            "backups",
        ];
        let outcome = shop
            .sandbox
            .program("strace", fixed.iter().chain(&run))
            .run();
        // strace ends as what it traced did.
        oracle.judge_killed(&before, &outcome);
        shop.backup(&[]).expect(0);
    }
}

/// Runs a backup with its outputs as the shell says.
fn with_outputs(shop: &Shop, redirection: &str, flags: &[&str]) -> Outcome {
    let script = format!("\"$@\" {redirection}");
    let bin = shop.fake.bin().display().to_string();
    let folder = shop.folder().display().to_string();
    let pgkeep = env!("CARGO_BIN_EXE_pgkeep");
    let fixed = [
        "-c",
        &script,
        "sh",
        pgkeep,
        "backup",
        "--attempts",
        "1",
        "--bin-dir",
        &bin,
        "--storage",
        &folder,
    ];
    shop.sandbox.program("sh", fixed.iter().chain(flags)).run()
}

#[test]
fn l11_outputs_that_are_gone_change_nothing() {
    for redirection in [
        ">&-",
        "2>&-",
        ">&- 2>&-",
        ">/dev/full",
        "2>/dev/full",
        ">/dev/full 2>/dev/full",
        "<&- >&- 2>&-",
    ] {
        let mut shop = Shop::new();
        shop.dumps(json!({ "stderr": "pg_dump: warning: x\n" }));
        for flags in [&["--json", "-vv"][..], &["--progress", "always"]] {
            let outcome = with_outputs(&shop, redirection, flags);
            assert_eq!(outcome.status.code(), Some(0), "{redirection}: {outcome}");
        }
        let list = shop.over(&["--json", "list"]).run().expect(0).json();
        assert_eq!(
            list["backups"].as_array().unwrap().len(),
            2,
            "{redirection}"
        );
        shop.dumps(json!({ "exit_code": 1 }));
        let outcome = with_outputs(&shop, redirection, &["--json"]);
        assert_eq!(outcome.status.code(), Some(20), "{redirection}: {outcome}");
    }
}

#[test]
fn l11_a_reader_that_leaves_changes_nothing() {
    let shop = Shop::new();
    let outcome = with_outputs(&shop, "| true; exit 0", &["--json"]);
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
    let list = shop.over(&["--json", "list"]).run().expect(0).json();
    assert_eq!(list["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn l13_an_empty_environment_is_enough() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE TABLE t (id int)");
    let real = Real::new(database.socket_url());
    let oracle = real.oracle();
    let before = oracle.before();
    let mut run = real.run(&[
        "--url",
        &database.socket_url(),
        "--bin-dir",
        &server.bin().display().to_string(),
    ]);
    for name in ["HOME", "TMPDIR", "LANG", "PATH", "DATABASE_URL"] {
        run = run.without_env(name);
    }
    let outcome = run.run().expect(0);
    oracle.judge(&before, &outcome);
    let before = oracle.before();
    let outcome = real
        .run(&[])
        .env("LANG", "de_DE.UTF-8")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("TZ", "Asia/Kathmandu")
        .run();
    oracle.judge(&before, &outcome.expect(0));
}

/// `/usr/bin/pg_dump` of Debian is a script that starts the real one.
#[test]
fn l14_a_wrapper_and_what_it_started_end_together() {
    let Some(server) = postgres() else { return };
    let wrapper = std::path::Path::new("/usr/bin/pg_dump").canonicalize();
    if !wrapper.is_ok_and(|path| path.ends_with("postgresql-common/pg_wrapper")) {
        skip("`/usr/bin/pg_dump` is not Debian's wrapper");
        return;
    }
    let database = server.database();
    let real = Real::new(database.socket_url());
    while_locked(&database, || {
        for (signal, code, _) in SIGNALS {
            let oracle = real.oracle();
            let before = oracle.before();
            let running = real.start(&["--bin-dir", "/usr/bin"]);
            real.wait_for_program(&running, "pg_dump");
            running.signal(signal);
            let outcome = running.wait().expect(code);
            assert!(outcome.took < PATIENCE, "{outcome}");
            oracle.judge(&before, &outcome);
        }
    });
    real.backup(&["--bin-dir", "/usr/bin"]).expect(0);
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut shop = Shop::new();
    let mark = shop.sandbox.path("reached");
    let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": 60_000 });
    // Neither it nor its child ends by itself while the test looks for what was left behind.
    let script = json!({ "stops_after": stop, "ignores_sigterm": true, "grandchild_ms": 60_000 });
    shop.dumps(script);
    let oracle = shop.oracle();
    let running = shop.run(&oracle, &[]).start();
    running.wait_for_file(&mark);
    running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    running.signal(Signal::TERM);
    let outcome = running.wait();
    assert_eq!(outcome.status.code(), Some(143), "{outcome}");
    let list: Value = shop.over(&["--json", "list"]).run().expect(0).json();
    assert_eq!(list["backups"], json!([]));
    // Its staging file goes with the next run.
    shop.dumps(json!({}));
    shop.backup(&[]).expect(0);
    assert!(fs::read_dir(shop.folder()).is_ok());
}

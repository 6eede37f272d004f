//! The first hour and three in the morning: what a newcomer types, and what a tired operator must not have to guess.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::backup::{Real, Shop};
use crate::support::sandbox::Outcome;
use crate::support::{Sandbox, postgres};

/// A configuration with a folder that answers, and a bucket that does not.
fn with_bucket(shop: &Shop, endpoint: &str) {
    let config = json!({
        "databases": {"shop": {"url": "postgres://db.invalid/shop"}},
        "storages": {
            "local": {"url": shop.folder()},
            "offsite": {"url": "s3://acme/pg", "endpoint": endpoint, "access_key_id": "k",
                "secret_access_key": "s3cret-key"},
        },
    });
    shop.sandbox.write_secret("pgkeep.yaml", config.to_string());
}

/// An address of this machine where nobody listens.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    format!("http://{port}")
}

#[test]
fn a_storage_that_does_not_answer_is_told_and_given_up() {
    let shop = Shop::new();
    shop.backup(&[]).expect(0);
    with_bucket(&shop, &nobody());
    let started = Instant::now();
    let outcome = shop.sandbox.pgkeep(["list"]).run().expect(3);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}: {outcome}");
    let told = outcome.stderr().to_lowercase();
    assert!(told.contains("`s3://acme/pg` does not answer"), "{outcome}");
    assert!(told.contains("connection refused"), "{outcome}");
    assert!(outcome.stdout().contains("shop-"), "{outcome}");
}

#[test]
fn an_unknown_host_is_not_looked_up_for_minutes() {
    let shop = Shop::new();
    with_bucket(&shop, "https://no-such-host.invalid");
    let started = Instant::now();
    // Alone, so that no other storage ends the patience.
    let flags = [
        "list",
        "--storage",
        "s3://acme/pg",
        "--s3-endpoint",
        "https://no-such-host.invalid",
    ];
    let run = shop.sandbox.pgkeep(flags).env("AWS_ACCESS_KEY_ID", "k");
    let outcome = run
        .env("AWS_SECRET_ACCESS_KEY", "s3cret-key")
        .run()
        .expect(22);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}: {outcome}");
    assert!(
        outcome.stderr().contains("its host is not known"),
        "{outcome}"
    );
}

#[test]
fn check_says_at_once_why_a_storage_does_not_answer() {
    let shop = Shop::new();
    with_bucket(&shop, &nobody());
    let started = Instant::now();
    let outcome = shop
        .sandbox
        .pgkeep(["--json", "check", "--bin-dir", "/nowhere"])
        .run();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}: {outcome}");
    let lines = outcome.json()["checks"].clone();
    let list = lines
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["subject"] == "offsite" && line["check"] == "list");
    let message = list.unwrap()["message"].as_str().unwrap().to_lowercase();
    assert!(message.contains("connection refused"), "{message}");
}

/// Any host can watch, list and fetch; only a backup needs the server.
#[test]
fn what_works_on_storages_needs_no_database_url() {
    let shop = Shop::new();
    shop.backup(&[]).expect(0);
    let config = json!({
        "databases": {"shop": {"url": "${SHOP_URL}", "retention": {"keep_last": 3}}},
        "storages": {"local": {"url": shop.folder()}},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let run = |command: &[&str]| shop.sandbox.pgkeep(command).run();
    for command in [
        &["list"][..],
        &["show"],
        &["status"],
        &["verify"],
        &["prune", "--dry-run"],
        &["sync", "--dry-run"],
        &["get", "-o", "x.sql.gz"],
    ] {
        run(command).expect(0);
    }
    for command in [
        &["backup"][..],
        &["check"],
        &["config", "show"],
        &["guard", "--", "true"],
    ] {
        let outcome = run(command).expect(2);
        assert!(
            outcome.stderr().contains("`${SHOP_URL}` is not set"),
            "{outcome}"
        );
    }
}

/// A run means the same wherever it starts.
#[test]
fn paths_start_at_the_configuration_and_are_told_whole() {
    let shop = Shop::new();
    let config = json!({
        "databases": {"shop": {"url": "postgres://app@db.invalid/shop", "password_file": "./pw"}},
        "storages": {"local": {"url": "./backups"}},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    shop.sandbox.write("conf/pgkeep.yaml", config.to_string());
    shop.sandbox.write_secret("conf/pw", "sesame-password\n");
    let outcome = shop
        .sandbox
        .pgkeep(["-c", "conf/pgkeep.yaml", "--json", "backup"])
        .run()
        .expect(0);
    assert!(shop.sandbox.path("conf/backups/shop").is_dir(), "{outcome}");
    let summary = outcome.summary();
    let url = summary["backups"][0]["storages"][0]["url"]
        .as_str()
        .unwrap();
    assert!(
        url.starts_with('/') && url.ends_with("/conf/backups"),
        "{url}"
    );
    // What a flag says starts where the command does, and is told whole, too.
    let words = ["--json", "list", "--storage", "./conf/backups"];
    let list = shop.sandbox.pgkeep(words).run().expect(0).json();
    assert!(
        list["storages"][0]["url"]
            .as_str()
            .unwrap()
            .starts_with('/'),
        "{list}"
    );
}

#[test]
fn a_database_beside_a_url_is_not_passed_over() {
    let shop = Shop::new();
    for command in ["backup", "check"] {
        let url = ["-d", "shop", command, "--url", "postgres://h/d"];
        let words = [&url[..], &["--storage", "b", "--name", "blog"]].concat();
        let outcome = shop.sandbox.pgkeep(words).run().expect(2);
        assert!(outcome.stderr().contains("`-d shop` names"), "{outcome}");
        // A configuration is meant, and there is none.
        let words = ["-d", "shop", command, "--storage", "b"];
        let run = shop
            .sandbox
            .pgkeep(words)
            .env("DATABASE_URL", "postgres://h/d");
        let outcome = run.run().expect(2);
        assert!(outcome.stderr().contains("`-d shop` names"), "{outcome}");
    }
}

#[test]
fn an_answer_that_is_lost_is_no_success() {
    let shop = Shop::new();
    shop.backup(&[]).expect(0);
    let folder = shop.folder().display().to_string();
    let to_full_disk = |words: &str| {
        let line = format!("{} {words} >/dev/full", env!("CARGO_BIN_EXE_pgkeep"));
        shop.sandbox.program("sh", ["-c", &line]).run()
    };
    for words in [
        "list --json",
        "list",
        "show",
        "show --json",
        "status --json",
    ] {
        let outcome = to_full_disk(&format!("{words} --storage '{folder}'")).expect(1);
        assert!(outcome.stderr().contains("No space left"), "{outcome}");
    }
    to_full_disk("config init -").expect(1);
    to_full_disk("config schema").expect(1);
    // A reader that has left has read enough.
    let line = format!(
        "{} list --json --storage '{folder}' | true",
        env!("CARGO_BIN_EXE_pgkeep")
    );
    shop.sandbox.program("sh", ["-c", &line]).run().expect(0);
}

/// A named pipe may never be written to.
#[test]
fn a_signal_ends_the_wait_for_a_pipe() {
    let sandbox = Sandbox::new();
    sandbox.program("mkfifo", ["pipe"]).run().expect(0);
    let url = "postgres://h/d";
    for words in [
        &["-c", "pipe", "list"][..],
        &[
            "backup",
            "--url",
            url,
            "--storage",
            "b",
            "--password-file",
            "pipe",
        ],
        &["extract", "pipe", "-t", "x", "--format", "csv"],
    ] {
        let running = sandbox.pgkeep(words).start();
        std::thread::sleep(Duration::from_millis(700));
        let started = Instant::now();
        running.signal(Signal::TERM);
        let outcome = running.wait();
        assert_eq!(outcome.code(), 143, "{words:?}: {outcome}");
        assert!(started.elapsed() < Duration::from_secs(8), "{words:?}");
    }
    let outcome = sandbox
        .pgkeep(["restore", "./pipe", "--into", url])
        .run()
        .expect(2);
    assert!(outcome.stderr().contains("pgkeep restore -"), "{outcome}");
}

/// One name that was misspelt once leaves a record of a run behind.
#[test]
fn a_misspelt_database_is_not_stale_for_ever() {
    let shop = Shop::new();
    shop.backup(&[]).expect(0);
    let runs = shop.folder().join("shop/runs");
    let record = fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&record).unwrap();
    let status = || shop.over(&["--json", "status", "--max-age", "1h"]).run();
    let misspelt = |stamp: &str, at: &str| {
        let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
        let id = format!("shpo-{stamp}-0001");
        old["id"] = json!(id);
        old["database"] = json!("shpo");
        old["started_at"] = json!(at);
        old["exit_code"] = json!(20);
        old["backup_id"] = json!(null);
        let folder = shop.folder().join("shpo/runs");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{id}.json")), old.to_string()).unwrap();
    };
    misspelt("20260102T030405Z", "2026-01-02T03:04:05Z");
    let outcome = status().expect(0);
    let databases = outcome.json()["databases"].clone();
    let shpo = databases
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["database"] == "shpo")
        .unwrap_or_else(|| panic!("{outcome}"));
    assert_eq!(shpo["freshness"], "not_judged", "{outcome}");
    assert!(
        shpo["warnings"][0]
            .as_str()
            .unwrap()
            .contains("never had a backup"),
        "{outcome}"
    );
    // One that was named is judged.
    shop.over(&["status", "-d", "shpo", "--max-age", "1h"])
        .run()
        .expect(24);
}

#[test]
fn a_failed_drill_reaches_status_and_nagios() {
    let shop = Shop::new();
    shop.backup(&[]).expect(0);
    let runs = shop.folder().join("shop/runs");
    let record = fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let drill = |code: u8, ago_s: i64| {
        let mut run: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(ago_s);
        let id = format!("shop-{}-00d{}", at.strftime("%Y%m%dT%H%M%SZ"), code % 10);
        run["id"] = json!(id);
        run["verb"] = json!("drill");
        run["started_at"] = json!(at);
        run["exit_code"] = json!(code);
        if code > 0 {
            run["failure"] = json!("2 tables differ from the dump");
            run["failure_id"] = json!("restore_differs");
        }
        fs::write(runs.join(format!("{id}.json")), run.to_string()).unwrap();
    };
    let status = |flags: &[&str]| shop.over(&[&["status"], flags].concat()).run();
    let told = |outcome: &Outcome| {
        assert!(
            outcome.stdout().contains("the last drill failed"),
            "{outcome}"
        );
        assert!(
            outcome.stdout().contains("differ from the dump"),
            "{outcome}"
        );
    };
    drill(23, 3600);
    told(&status(&["--json"]).expect(0));
    let text = status(&[]).expect(0);
    told(&text);
    assert!(text.stdout().contains("FAILED 1 h ago"), "{text}");
    let nagios = status(&["--nagios"]).expect(2);
    told(&nagios);
    assert!(nagios.stdout().starts_with("CRITICAL"), "{nagios}");
    // Where drills are asked for, one that failed is a failure.
    let config = json!({
        "databases": {"shop": {"url": "postgres://db.invalid/shop", "drill": {"max_age": "30d"}}},
        "storages": {"local": {"url": shop.folder()}},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let outcome = shop.sandbox.pgkeep(["--json", "status"]).run().expect(24);
    assert_eq!(outcome.exit_error()["id"], "drill_failed", "{outcome}");
    // One that passed since ends it.
    drill(0, 60);
    let outcome = shop.sandbox.pgkeep(["--json", "status"]).run().expect(0);
    assert!(
        !outcome.stdout().contains("the last drill failed"),
        "{outcome}"
    );
}

#[test]
fn what_turns_letters_around_is_harmless() {
    let shop = Shop::new();
    shop.backup(&["--pin", "good\u{202e}dab"]).expect(0);
    for flags in [
        &["list"][..],
        &["--json", "list"],
        &["show"],
        &["--json", "show"],
        &["status"],
    ] {
        let outcome = shop.over(flags).run().expect(0);
        assert!(!outcome.stdout().contains('\u{202e}'), "{outcome}");
    }
    let outcome = shop
        .sandbox
        .pgkeep(["show", "x\u{202e}y", "--storage", "."])
        .run();
    assert!(!outcome.stderr().contains('\u{202e}'), "{outcome}");
}

const DUMP: &str = "CREATE TABLE public.logs (id int, msg text);\nCOPY public.logs (id, msg) FROM stdin;\n\
    1\tConnection refused\n2\tConnection refused\n\\.\n\
    ALTER TABLE ONLY public.logs ADD CONSTRAINT logs_msg UNIQUE (msg);\n\
    --\n-- PostgreSQL database dump complete\n--\n";

#[test]
fn a_file_says_by_its_name_how_rows_are_written() {
    let sandbox = Sandbox::new();
    sandbox.write("dump.sql", DUMP);
    let extract = |more: &[&str]| {
        let all = [&["extract", "dump.sql", "-t", "logs"], more].concat();
        sandbox.pgkeep(all).run()
    };
    extract(&["-o", "x.csv"]).expect(0);
    assert!(
        fs::read_to_string(sandbox.path("x.csv"))
            .unwrap()
            .contains("1,Connection refused")
    );
    extract(&["-o", "x.jsonl"]).expect(0);
    assert!(
        fs::read_to_string(sandbox.path("x.jsonl"))
            .unwrap()
            .starts_with('{')
    );
    let unsaid = extract(&[]).expect(2);
    assert!(unsaid.stderr().contains("--format sql"), "{unsaid}");
    extract(&["-o", "rows"]).expect(2);
    extract(&["-o", "rows", "--format", "csv"]).expect(0);
}

/// The row of a log table is no word of the server.
#[test]
fn a_failed_statement_is_no_failed_connection() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let sandbox = Sandbox::new();
    sandbox.write("dump.sql", DUMP);
    let into = database.socket_url();
    let words = [
        "--json",
        "restore",
        "./dump.sql",
        "--into",
        &into,
        "--allow-superuser",
    ];
    let outcome = sandbox.pgkeep(words).run();
    let error = outcome.exit_error();
    assert_eq!(error["id"], "restore_sql_failed", "{outcome}");
    assert!(
        error["details"].to_string().contains("Connection refused"),
        "{outcome}"
    );
}

/// Such a dump cannot be restored as a whole, which is found out in the emergency otherwise.
#[test]
fn foreign_keys_into_what_is_left_out_are_told_beforehand() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE orders (id int, user_id int REFERENCES users)");
    let real = Real::new(database.socket_url());
    for left_out in ["structure_only", "exclude_tables"] {
        let config = json!({
            "databases": {"shop": {"url": database.socket_url(), left_out: ["users"], "required_tables": ["orders"]}},
            "storages": {"local": {"url": real.folder()}},
        });
        real.sandbox.write("pgkeep.yaml", config.to_string());
        let made = real.sandbox.pgkeep(["--json", "backup"]).run().expect(0);
        let warnings = made.summary()["backups"][0]["warnings"].to_string();
        assert!(
            warnings.contains("foreign keys refer to it") && warnings.contains("orders"),
            "{made}"
        );
        let checked = real.sandbox.pgkeep(["--json", "check"]).run();
        let checks = checked.json()["checks"].clone();
        let line = checks
            .as_array()
            .unwrap()
            .iter()
            .find(|line| line["check"] == "foreign_keys");
        assert_eq!(
            line.map(|line| &line["verdict"]),
            Some(&json!("warn")),
            "{checked}"
        );
    }
}

/// What is odd is told while the command can still be kept from running.
#[test]
fn guard_warns_before_the_command_runs() {
    let shop = Shop::new();
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}", "exclude_tables": ["orders"]}},
        "storages": {"local": {"url": shop.folder()}},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let run = shop
        .sandbox
        .pgkeep(["guard", "--", "sh", "-c", "echo COMMAND-RAN >&2; exit 7"]);
    let outcome = run
        .env("DATABASE_URL", "postgres://app@db.invalid/shop")
        .run()
        .expect(7);
    let at = |text: &str| {
        outcome
            .stderr()
            .find(text)
            .unwrap_or_else(|| panic!("{text}: {outcome}"))
    };
    assert!(at("would lack the rest") < at("COMMAND-RAN"), "{outcome}");
    assert_eq!(
        outcome.stderr().matches("would lack the rest").count(),
        1,
        "{outcome}"
    );
}

#[test]
fn every_database_is_drilled() {
    let Some(server) = postgres() else { return };
    let (one, two) = (server.database(), server.database());
    for database in [&one, &two] {
        database.sql("CREATE TABLE t AS SELECT generate_series(1, 3) AS id");
    }
    let sandbox = Sandbox::new();
    let configure = |assertions: serde_json::Value| {
        let database = |url: String, assertions| json!({"url": url, "drill": {"url": one.socket_url(), "allow_superuser": true, "assertions": assertions}});
        let config = json!({
            "databases": {
                "bad": database(one.socket_url(), assertions),
                "good": database(two.socket_url(), json!([])),
            },
            "storages": {"local": {"url": "./backups"}},
        });
        sandbox.write("pgkeep.yaml", config.to_string());
    };
    configure(json!([]));
    sandbox.pgkeep(["backup"]).run().expect(0);
    let drill = || sandbox.pgkeep(["--json", "drill", "--all"]).run();
    let passed = |outcome: &Outcome| -> Vec<bool> {
        let lines = outcome.json_lines().into_iter();
        let summaries = lines.filter(|line| line["message_type"] == "summary");
        summaries.map(|line| line["passed"] == true).collect()
    };
    assert_eq!(passed(&drill().expect(0)), [true, true]);
    // One that fails does not stop the others.
    configure(json!([{"name": "never", "sql": "SELECT 1", "expect": "no_rows"}]));
    let outcome = drill().expect(23);
    assert_eq!(passed(&outcome), [false, true], "{outcome}");
    assert_eq!(outcome.exit_error()["id"], "some_drills_failed");
    sandbox.pgkeep(["drill", "--all", "latest"]).run().expect(2);
}

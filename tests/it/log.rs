//! The log: fields that machines rely on, the file and its rotation, secrets, and ends of streams that stop nothing (L11).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::backup::Shop;
use crate::support::secret::percent_encoded;
use crate::support::{CANARY, skip};

/// Reads JSON Lines.
fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn of_stage<'v>(lines: &'v [Value], stage: &str) -> Vec<&'v Value> {
    lines.iter().filter(|line| line["stage"] == stage).collect()
}

#[test]
fn a_machine_finds_each_stage_by_its_fields() {
    let shop = Shop::new();
    let flags = ["--log-format", "json", "--log-file", "pgkeep.log"];
    let outcome = shop.backup(&flags).expect(0);
    let report = &outcome.summary()["backups"][0];
    let log = shop.sandbox.path("pgkeep.log");
    let told = lines(&fs::read_to_string(&log).unwrap());
    for line in &told {
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(
            line["level"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
    for stage in ["connect", "dump", "store"] {
        let [line] = of_stage(&told, stage)[..] else {
            panic!("{stage}: {told:#?}")
        };
        assert_eq!(line["database"], "shop");
        assert!(line["duration_ms"].is_u64(), "{line}");
    }
    let end = of_stage(&told, "backup")[0];
    assert_eq!(end["database"], "shop");
    assert_eq!(end["backup_id"], report["backup_id"]);
    assert_eq!(end["duration_ms"], report["took_ms"]);
    assert_eq!(end["size_bytes"], report["size_bytes"]);
    assert_eq!((&end["code"], &end["level"]), (&json!(0), &json!("INFO")));
    // What only machines want stands in the file; a terminal hears of it with `-v`.
    assert_eq!(outcome.stderr(), "");
    let loud = shop.backup(&["-v", "--log-format", "json"]).expect(0);
    assert_eq!(of_stage(&lines(loud.stderr()), "backup").len(), 1, "{loud}");
}

#[test]
fn a_failure_is_an_object_of_the_log() {
    let mut shop = Shop::new();
    shop.dumps(json!({ "stderr": "pg_dump: error: no luck\n", "exit_code": 1 }));
    let bin = shop.fake.bin().display().to_string();
    let run = |more: &[&str]| {
        let fixed = [
            "backup",
            "--attempts",
            "1",
            "--bin-dir",
            &bin,
            "--log-file",
            "pgkeep.log",
        ];
        shop.over(&[&fixed, more].concat()).run().expect(20)
    };
    let outcome = run(&["--log-format", "json"]);
    let told = lines(outcome.stderr());
    let error = told.last().unwrap();
    assert_eq!(
        (&error["level"], &error["code"]),
        (&json!("ERROR"), &json!(20))
    );
    assert!(
        error["id"].is_string() && error["details"][0].is_string(),
        "{error}"
    );
    assert!(
        !error["message"].as_str().unwrap().contains("error:"),
        "{error}"
    );
    let log = fs::read_to_string(shop.sandbox.path("pgkeep.log")).unwrap();
    assert_eq!(lines(&log).last().unwrap()["id"], error["id"]);
    let end = of_stage(&lines(&log), "backup")[0].clone();
    assert_eq!(end["code"], 20);
    assert!(
        end.get("backup_id").is_none() && end.get("size_bytes").is_none(),
        "{end}"
    );
    // The same for people: the words on standard error stay what they were, and the file has them with the time.
    let outcome = run(&[]);
    assert!(
        outcome
            .stderr()
            .starts_with("error: backup of `shop` failed"),
        "{outcome}"
    );
    let log = fs::read_to_string(shop.sandbox.path("pgkeep.log")).unwrap();
    let last = log.lines().rfind(|line| !line.starts_with(' ')).unwrap();
    assert!(last.contains(" ERROR backup of `shop` failed"), "{log}");
}

#[test]
fn the_configuration_names_the_file_and_its_size() {
    let shop = Shop::new();
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}"}},
        "storages": {"local": {"url": "backups"}},
        "postgres": {"bin_dir": shop.fake.bin()},
        "log": {"file": "logs.txt", "max_size": "64KiB", "keep": 1},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let log = shop.sandbox.path("logs.txt");
    fs::write(&log, "x".repeat(64 * 1024)).unwrap();
    shop.sandbox.pgkeep(["backup"]).run().expect(0);
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains(" INFO backup done ") && !text.contains("xx"),
        "{text}"
    );
    let mode = fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let older = fs::read_to_string(shop.sandbox.path("logs.txt.1")).unwrap();
    assert_eq!(older.len(), 64 * 1024);
    // The command line goes first.
    shop.sandbox
        .pgkeep(["backup", "--log-file", "mine.log"])
        .run()
        .expect(0);
    assert_eq!(fs::read_to_string(&log).unwrap(), text);
    let mine = fs::read_to_string(shop.sandbox.path("mine.log")).unwrap();
    assert!(mine.contains("backup done"), "{mine}");
}

/// The sandbox looks for the canary in the file after each run (S2).
#[test]
fn s2_no_secret_reaches_the_file() {
    let mut shop = Shop::new();
    let encoded = percent_encoded(CANARY);
    let said = format!("pg_dump: error: no {CANARY} at postgresql://app:{encoded}@db.invalid\n");
    shop.dumps(json!({ "stderr": said, "exit_code": 1 }));
    let script = shop.fake.bin().join("fake.json");
    shop.sandbox.may_hold_secret(&script);
    for format in ["text", "json"] {
        let flags = ["-vvv", "--log-format", format, "--log-file", "pgkeep.log"];
        shop.run(&shop.oracle(), &flags)
            .env("PGKEEP_LOG", "trace")
            .run()
            .expect(20);
    }
    let log = fs::read_to_string(shop.sandbox.path("pgkeep.log")).unwrap();
    assert!(log.contains("***"), "{log}");
}

/// What can be wrong with a log: none of it stops a backup, nor changes its code.
#[test]
fn l11_a_log_that_takes_nothing_is_told_once_and_stops_nothing() {
    let shop = Shop::new();
    shop.sandbox.write("closed/x", "");
    for file in [
        "/dev/full",
        "no/such/folder/pgkeep.log",
        "closed/x/pgkeep.log",
        ".",
    ] {
        let outcome = shop
            .backup(&["--log-file", file, "--log-format", "text"])
            .expect(0);
        let warnings = outcome
            .stderr()
            .matches("cannot write the log file")
            .count();
        assert_eq!(warnings, 1, "{outcome}");
    }
}

/// A folder stands where the older file would go. Told once, and every line stands in the file.
#[test]
fn l11_a_log_that_cannot_be_rotated_grows_on() {
    let shop = Shop::new();
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}"}},
        "storages": {"local": {"url": "backups"}},
        "postgres": {"bin_dir": shop.fake.bin()},
        "log": {"file": "logs.txt", "max_size": "64KiB", "keep": 1},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let before = format!("{}\n", "x".repeat(64 * 1024));
    let log = shop.sandbox.write("logs.txt", &before);
    fs::create_dir(shop.sandbox.path("logs.txt.1")).unwrap();
    let outcome = shop.sandbox.pgkeep(["backup", "-v"]).run().expect(0);
    let told = outcome.stderr().matches("cannot rotate the log file");
    assert_eq!(told.count(), 1, "{outcome}");
    let text = fs::read_to_string(log).unwrap();
    let added = text.strip_prefix(&before).unwrap();
    assert!(
        added.contains("dump ended") && added.contains("backup done"),
        "{added}"
    );
}

/// A disk that is full in the middle of the run, for the log alone.
#[test]
fn l11_a_disk_that_fills_up_under_the_log_stops_nothing() {
    let shop = Shop::new();
    let log = shop.sandbox.path("full.log");
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let outcome = shop.backup(&["--log-file", "full.log", "-vv"]).expect(0);
    assert!(outcome.stderr().contains("No space left"), "{outcome}");
    assert!(
        fs::symlink_metadata(&log).unwrap().is_symlink(),
        "a device is not rotated"
    );
}

/// Streams that are closed, or lead into a full disk, in every combination and format.
#[test]
fn l11_streams_that_are_gone_stop_nothing() {
    if !cfg!(target_os = "linux") {
        skip("there is no /dev/full");
        return;
    }
    let mut shop = Shop::new();
    let ends = [
        "1>&-",
        "2>&-",
        "1>&- 2>&-",
        "1>/dev/full",
        "2>/dev/full",
        "1>/dev/full 2>/dev/full",
    ];
    let bin = shop.fake.bin().display().to_string();
    for code in [0, 20] {
        if code == 20 {
            shop.dumps(json!({ "stderr": "pg_dump: error: no luck\n", "exit_code": 1 }));
        }
        for end in ends {
            for format in ["--log-format=json", "--log-format=text"] {
                for json in ["", "--json"] {
                    let line = format!(
                        "exec \"$0\" {json} -vv {format} --log-file pgkeep.log backup --attempts 1 --bin-dir \"$1\" --storage backups {end}"
                    );
                    let arguments = ["-c", &line, env!("CARGO_BIN_EXE_pgkeep"), &bin];
                    shop.sandbox.program("sh", arguments).run().expect(code);
                }
            }
        }
    }
    let list = shop.over(&["--json", "list"]).run().expect(0).json();
    assert_eq!(list["backups"].as_array().unwrap().len(), ends.len() * 4);
}

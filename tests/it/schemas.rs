//! The JSON schemas of the book: each one is a schema, says no where it should, and fits what is stored.
//!
//! What commands print is checked in every test: the sandbox holds each run against them.

use std::fs;

use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::{Leased, lease_key};
use pgkeep_model::lease::{Claim, Lease, TTL};
use pgkeep_model::origin::Origin;
use serde_json::{Value, json};

use crate::support::sandbox::Outcome;
use crate::support::{Sandbox, data, postgres, schema};

const SCRIPTING: &str = include_str!("../../docs/src/scripting.md");

#[test]
fn every_schema_and_every_part_of_one_is_a_schema() {
    for (name, text) in schema::files() {
        assert_eq!(
            text["$schema"], "https://json-schema.org/draft/2020-12/schema",
            "{name}"
        );
        // Its compiler panics where it is none, or where a reference leads nowhere.
        schema::problem(name, &json!({}));
        for part in text["$defs"]
            .as_object()
            .into_iter()
            .flat_map(|parts| parts.keys())
        {
            schema::problem(&format!("{name}#/$defs/{part}"), &json!({}));
        }
    }
    for name in schema::files().keys() {
        let link = format!("(schemas/{name}.json)");
        assert!(
            SCRIPTING.contains(&link),
            "scripting.md does not name {name}.json"
        );
    }
}

#[test]
fn a_schema_says_no() {
    let good = json!({
        "message_type": "exit_error", "code": 21, "id": "dump_empty", "message": "x",
        "details": [], "causes": [], "hints": ["y"],
    });
    assert_eq!(schema::problem("exit-error", &good), None);
    let change = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        schema::problem("exit-error", &value)
    };
    for (what, problem) in [
        ("a field more", change(&|value| value["more"] = json!(1))),
        (
            "a field less",
            change(&|value| drop(value.as_object_mut().unwrap().remove("id"))),
        ),
        ("another type", change(&|value| value["code"] = json!("21"))),
        ("out of range", change(&|value| value["code"] = json!(256))),
        (
            "another constant",
            change(&|value| value["message_type"] = json!("error")),
        ),
        (
            "an item of another type",
            change(&|value| value["hints"] = json!([1])),
        ),
    ] {
        assert!(problem.is_some(), "{what}");
    }
    let listed =
        json!({"backups": [], "unfinished": [], "storages": [{"name": "local", "url": "x"}]});
    assert_eq!(schema::problem("list", &listed), None);
    let mut deep = listed;
    deep["storages"][0]["more"] = json!(1);
    assert!(
        schema::problem("list", &deep).is_some(),
        "a field more, behind a reference"
    );
}

fn panics(arguments: &[&str], stdout: &str, stderr: &str) -> bool {
    let run = || schema::assert_known(arguments, stdout.as_bytes(), stderr.as_bytes());
    std::panic::catch_unwind(run).is_err()
}

#[test]
fn a_run_is_held_against_the_schema_of_its_command() {
    let list = r#"{"backups": [], "unfinished": [], "storages": []}"#;
    let error = |id: &str, code: u8| {
        let object = json!({
            "message_type": "exit_error", "code": code, "id": id, "message": "", "details": [], "causes": [], "hints": [],
        });
        format!("some words\n{object}\n")
    };
    let fine = error("no_such_backup", 10);
    assert!(!panics(&["--json", "list", "--storage", "x"], list, ""));
    assert!(panics(&["--json", "status"], list, ""));
    assert!(panics(&["list", "--json"], "words", ""));
    assert!(!panics(&["list"], "words", ""));
    let checked = |check: &str| {
        let line = json!({"subject": "shop", "check": check, "verdict": "ok", "message": ""});
        json!({"checks": [line], "ok": 1, "warned": 0, "failed": 0, "skipped": 0}).to_string()
    };
    assert!(!panics(&["check", "--json"], &checked("login"), ""));
    assert!(panics(&["check", "--json"], &checked("never_heard_of"), ""));
    assert!(!panics(&["guard", "--json", "--", "list"], "words", ""));
    assert!(!panics(&["--json", "show"], "", &fine));
    assert!(panics(
        &["--json", "show"],
        "",
        &error("never_heard_of", 10)
    ));
    assert!(panics(
        &["--json", "show"],
        "",
        &error("no_such_backup", 11)
    ));
    assert!(
        schema::listed_ids().len() > 100,
        "{:?}",
        schema::listed_ids()
    );
}

#[test]
fn the_book_lists_every_exit_code_in_order() {
    let source = include_str!("../../crates/model/src/failure.rs");
    let arms = source
        .lines()
        .skip_while(|line| !line.contains("fn exit_code"))
        .take_while(|line| *line != "    }");
    let codes = arms.filter_map(|line| {
        line.split("=> ")
            .nth(1)?
            .strip_suffix(',')?
            .parse::<u8>()
            .ok()
    });
    let mut wanted: Vec<u8> = codes.chain([0]).collect();
    wanted.sort_unstable();
    let table = SCRIPTING
        .lines()
        .skip_while(|line| *line != "## Exit codes")
        .skip(1)
        .take_while(|line| !line.starts_with("## "));
    let listed: Vec<u8> = table
        .filter_map(|line| line.split('|').nth(1)?.trim().parse().ok())
        .collect();
    assert!(wanted.len() > 15, "{wanted:?}");
    assert_eq!(listed, wanted);
}

/// Each object below a storage that is JSON of ours, by its ending.
const PARTS: [(&str, &str); 7] = [
    (".manifest.json", "stored#/$defs/manifest"),
    (".pin.json", "stored#/$defs/pin"),
    (".pre-deploy.json", "stored#/$defs/pin"),
    (".guarded.json", "stored#/$defs/pin"),
    (".drill.json", "stored#/$defs/drill_note"),
    (".damaged.json", "stored#/$defs/damage_mark"),
    (".json", "common#/$defs/run_record"),
];

#[test]
fn what_is_stored_is_as_the_book_says() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.load(&data::dump("public/neon-chinook.sql"));
    let mut sandbox = Sandbox::new();
    sandbox.set("SHOP_URL", database.socket_url());
    let config = json!({
        "databases": {"shop": {
            "url": "${SHOP_URL}", "required_tables": ["\"Album\""], "globals": true,
            "retention": {"keep_last": 9, "keep_pre_deploy": 9},
        }},
        "storages": {"local": {"url": "backups"}},
    });
    sandbox.write("pgkeep.yaml", config.to_string());
    let run =
        |arguments: &[&str], code: i32| -> Outcome { sandbox.pgkeep(arguments).run().expect(code) };
    run(&["backup", "--pin", "for the audit"], 0);
    run(&["guard", "--max-age", "1h", "--", "true"], 0);
    run(&["drill"], 0);
    run(&["backup", "--trigger", "pre-deploy"], 0);
    let latest = run(&["--json", "show"], 0).json();
    let dump = sandbox
        .path("backups")
        .join(latest["object"]["key"].as_str().unwrap());
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
    run(&["verify", "latest"], 23);
    let mut seen = Vec::new();
    for folder in ["backups/shop", "backups/shop/runs"] {
        for entry in fs::read_dir(sandbox.path(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let Some((ending, part)) = PARTS.iter().find(|(ending, _)| name.ends_with(ending))
            else {
                continue;
            };
            let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(schema::problem(part, &value), None, "{name}: {value:#}");
            seen.push(*ending);
        }
    }
    for (ending, _) in PARTS {
        assert!(seen.contains(&ending), "{ending}: {seen:?}");
    }
}

/// The sandbox compares what is printed; here every section is in it.
#[test]
fn a_configuration_in_force_is_as_the_book_says() {
    let mut sandbox = Sandbox::new();
    sandbox.set("SHOP_URL", "postgres://app@db.invalid/shop");
    let config = json!({
        "databases": {"shop": {"url": "${SHOP_URL}"}},
        "storages": {"local": {"url": "backups"}},
        "postgres": {"bin_dir": sandbox.bin()},
        "notify": [{"slack": {"url": "https://hooks.invalid/x"}}],
        "log": {"file": "pgkeep.log"},
    });
    sandbox.write("pgkeep.yaml", config.to_string());
    let shown = sandbox
        .pgkeep(["--json", "config", "show"])
        .run()
        .expect(0)
        .json();
    let sections: Vec<&str> = shown
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        sections,
        ["databases", "log", "notify", "postgres", "storages"]
    );
    let made = sandbox
        .pgkeep(["--json", "config", "init", "new.yaml"])
        .run()
        .expect(0)
        .json();
    assert_eq!(made["file"], "new.yaml");
}

/// The next five instants of each schedule, with the zone named and the offset told, beside the configuration.
#[test]
fn config_show_tells_when_schedules_run_next() {
    let sandbox = Sandbox::new();
    let text = "databases:\n  shop:\n    url: postgres://db/shop\n    schedule: '15 3 * * *'\n    \
                timezone: Europe/Berlin\n    spread: 1h\n    drill: {schedule: '@monthly'}\n\
                storages: {local: {url: ./backups}}\n";
    sandbox.write("pgkeep.yaml", text);
    let shown = sandbox.pgkeep(["--json", "config", "show"]).run().expect(0);
    let next = shown.json()["next_runs"].clone();
    assert_eq!(next.as_array().unwrap().len(), 2);
    assert_eq!(
        (&next[0]["verb"], &next[1]["verb"]),
        (&json!("backup"), &json!("drill"))
    );
    assert_eq!(next[0]["timezone"], "Europe/Berlin");
    assert_eq!(next[0]["at"].as_array().unwrap().len(), 5);
    let outcome = sandbox.pgkeep(["config", "show"]).run().expect(0);
    let yaml = outcome.stdout();
    assert!(
        yaml.contains("# backup of shop: `15 3 * * *` on the clock of Europe/Berlin, "),
        "{yaml}"
    );
    assert_eq!(
        yaml.lines().filter(|line| line.starts_with("#   ")).count(),
        10,
        "{yaml}"
    );
    sandbox.write("pgkeep.yaml", yaml);
    sandbox.pgkeep(["config", "show"]).run().expect(0);
}

#[test]
fn a_lease_is_as_the_book_says() {
    let claim = Claim {
        holder: "a".to_owned(),
        host: "b".to_owned(),
        lock: "c".to_owned(),
        host_name: "db1".to_owned(),
        pid: 4711,
        verb: "backup".to_owned(),
        ttl: TTL,
        origin: Origin {
            run: Some("shop-20260102T030405Z-7f3a".parse().unwrap()),
            slot: Some("2026-01-02T03:00:00Z".parse().unwrap()),
            by: Some("ci".to_owned()),
            request_key: None,
        },
    };
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let mut lease = Lease::new(&claim, 1, now);
    let check = |lease: &Lease| {
        let value: Value = serde_json::from_slice(&lease.to_json()).unwrap();
        schema::problem("stored#/$defs/lease", &value)
    };
    assert_eq!(check(&lease), None);
    lease.released_at = Some(now);
    assert_eq!(check(&lease), None);
}

/// Names in the page on the stored format: what a schema knows, the page explains.
#[test]
fn the_page_on_the_stored_format_names_every_field() {
    let page = include_str!("../../docs/src/stored-format.md");
    let stored = &schema::files()["stored"];
    let common = &schema::files()["common"];
    let parts = stored["$defs"].as_object().unwrap().iter();
    let of_runs = [
        "run_record",
        "finding",
        "parent",
        "section",
        "problem",
        "selection",
    ];
    let shared = of_runs.map(|name| (name, &common["$defs"][name]));
    let mut missing = Vec::new();
    for (part, text) in parts
        .map(|(name, text)| (name.as_str(), text))
        .chain(shared)
    {
        for field in text["properties"]
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys())
        {
            if !page.contains(&format!("`{field}`")) {
                missing.push(format!("{part}.{field}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    let name: DatabaseName = "shop".parse().unwrap();
    for leased in [Leased::Backups, Leased::Drill, Leased::Verification] {
        let key = lease_key(&name, leased).replace("shop", "<database>");
        assert!(page.contains(&key), "{key}");
    }
}

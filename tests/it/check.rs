//! `pgkeep check`: each line tells what is wrong and nothing is left behind, against a real server, fakes and faults.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::backup::{Shop, answers, facts};
use crate::prune::{nights, stocked};
use crate::support::postgres::USER;
use crate::support::sandbox::Outcome;
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};
use crate::support::{CANARY, Sandbox, data, postgres};

/// Checks a shop's fakes and folder.
#[track_caller]
fn check(shop: &Shop, flags: &[&str]) -> Outcome {
    let bin = shop.fake.bin().display().to_string();
    let fixed = ["--json", "check", "--bin-dir", &bin];
    shop.over(&[&fixed[..], flags].concat())
        .watching_argv()
        .run()
}

/// The lines of one check.
fn lines(outcome: &Outcome, check: &str) -> Vec<Value> {
    let report = outcome.json();
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().filter(|line| line["check"] == check);
    found.cloned().collect()
}

#[track_caller]
fn verdict(outcome: &Outcome, check: &str) -> String {
    let found = lines(outcome, check);
    assert_eq!(found.len(), 1, "{check}: {outcome}");
    found[0]["verdict"].as_str().unwrap().to_owned()
}

/// A fake server that also tells its clock and limits.
fn with_session(shop: &mut Shop, facts: &Value, limits: Value) {
    let now = jiff::Timestamp::now();
    let session = json!({ "now": now, "limits": limits });
    let mut all = answers(facts);
    let first = json!({ "contains": "pgkeep_session", "text": format!("{session}\n") });
    all.as_array_mut().unwrap().insert(0, first);
    shop.fake.script("psql", json!({ "answers": all }));
}

fn local(shop: &mut Shop) {
    // A socket: no name has to be looked up.
    shop.sandbox
        .set("DATABASE_URL", "postgresql:///shop?host=/tmp");
}

#[test]
fn a_real_set_up_is_fine_and_nothing_is_left() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.load(&data::dump("public/neon-chinook.sql"));
    let mut sandbox = Sandbox::new();
    sandbox.set("DATABASE_URL", server.url_as(USER, CANARY, database.name()));
    let run = |flags: &[&str]| {
        let fixed = [
            "--json",
            "check",
            "--storage",
            "backups",
            "--require",
            "\"Album\"",
        ];
        sandbox
            .pgkeep([&fixed[..], flags].concat())
            .watching_argv()
            .run()
    };
    let outcome = run(&[]).expect(0);
    for check in [
        "programs",
        "login",
        "pooler",
        "rights",
        "row_security",
        "required_tables",
        "time_limits",
        "list",
        "round_trip",
        "conditional_writes",
        "remove",
        "free_space",
        "scratch_server",
    ] {
        assert_eq!(verdict(&outcome, check), "ok", "{check}: {outcome}");
    }
    assert_eq!(verdict(&outcome, "freshness"), "warn");
    let clocks = lines(&outcome, "clock");
    assert!(
        clocks.len() == 2 && clocks.iter().all(|line| line["verdict"] == "ok"),
        "{outcome}"
    );
    assert!(
        !sandbox.path("backups").exists(),
        "the folder was not there before"
    );
    // There is no backup yet, which is a warning.
    assert_eq!(
        run(&["--strict"]).expect(3).exit_error()["id"],
        "check_warned"
    );
    let wrong = run(&["--require", "\"Albun\""]).expect(21);
    let told = lines(&wrong, "required_tables")[0]["details"].to_string();
    assert!(told.contains("Album"), "{told}");
}

#[test]
fn a_role_that_may_not_read_all_is_told_what() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let role = format!("{}_backup", database.name());
    let password = CANARY.replace('\'', "''");
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{password}'; ALTER ROLE {role} SET statement_timeout = '8s';
         CREATE TABLE seen (id int); CREATE TABLE closed (id serial); CREATE TABLE hidden (id int);
         ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; CREATE SCHEMA far; CREATE TABLE far.away (id int);
         GRANT SELECT ON seen, hidden TO {role}"
    ));
    let mut sandbox = Sandbox::new();
    sandbox.set(
        "DATABASE_URL",
        server.url_as(&role, CANARY, database.name()),
    );
    let outcome = sandbox
        .pgkeep(["--json", "check", "--storage", "b"])
        .run()
        .expect(20);
    let rights = &lines(&outcome, "rights")[0];
    let told = rights["details"].to_string();
    for name in ["public.closed\"", "public.closed_id_seq", "far.away"] {
        assert!(told.contains(name), "{name}: {told}");
    }
    assert!(
        !told.contains("seen") && rights["id"] == "permission_denied",
        "{rights}"
    );
    let hidden = &lines(&outcome, "row_security")[0];
    assert_eq!(hidden["details"], json!(["public.hidden"]));
    let limits = lines(&outcome, "time_limits")[0]["message"].to_string();
    assert!(limits.contains("statement_timeout 8000 ms"), "{limits}");
    sandbox.set(
        "DATABASE_URL",
        server.url_as("nobody_here", CANARY, database.name()),
    );
    let outcome = sandbox
        .pgkeep(["--json", "check", "--storage", "b"])
        .run()
        .expect(12);
    assert_eq!(outcome.exit_error()["id"], "login_refused");
    assert_eq!(verdict(&outcome, "rights"), "skipped");
    database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn what_a_server_says_of_itself_is_judged() {
    let mut shop = Shop::new();
    local(&mut shop);
    let mut standby = facts();
    standby["is_standby"] = json!(true);
    let limits = json!({ "max_standby_streaming_delay": 30_000, "transaction_timeout": 5000 });
    with_session(&mut shop, &standby, limits);
    let outcome = check(&shop, &["--require", "users"]).expect(0);
    assert_eq!(verdict(&outcome, "standby"), "warn");
    assert_eq!(verdict(&outcome, "time_limits"), "warn");
    with_session(&mut shop, &facts(), json!({}));
    let outcome = check(&shop, &["--require", "users"]).expect(0);
    assert_eq!(verdict(&outcome, "time_limits"), "ok");
    assert!(lines(&outcome, "standby").is_empty());
    // Client programs are older than the server.
    let mut newer = facts();
    newer["version_num"] = json!(180_001);
    with_session(&mut shop, &newer, json!({}));
    assert_eq!(
        check(&shop, &[]).expect(26).exit_error()["id"],
        "program_missing"
    );
    let said = "psql: error: received invalid response to GSSAPI negotiation: S\n";
    shop.fake.script(
        "psql",
        json!({ "last_stderr": said, "exit_code": 2, "zero_bytes": true }),
    );
    let outcome = check(&shop, &[]).expect(20);
    assert_eq!(outcome.exit_error()["id"], "transaction_pooler");
    let hints = lines(&outcome, "login")[0]["hints"].to_string();
    assert!(hints.contains("session pooler"), "{hints}");
}

/// No older server takes the dumps of a newer one, so no drill of them could start one here.
#[test]
fn only_an_older_server_for_drills_is_told() {
    let Some(server) = postgres() else { return };
    let mut shop = Shop::new();
    local(&mut shop);
    for program in ["initdb", "postgres"] {
        let link = shop.fake.bin().join(program);
        std::os::unix::fs::symlink(server.bin().join(program), link).unwrap();
    }
    let scratch_server = |shop: &Shop| lines(&check(shop, &[]).expect(0), "scratch_server");
    with_session(&mut shop, &facts(), json!({}));
    assert_eq!(scratch_server(&shop)[0]["verdict"], "ok");
    let mut newer = facts();
    newer["version_num"] = json!(990_001);
    with_session(&mut shop, &newer, json!({}));
    shop.dumps(json!({ "version": "99.1" }));
    let line = scratch_server(&shop).remove(0);
    assert_eq!(line["verdict"], "warn", "{line}");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("`shop` (PostgreSQL 99)"), "{line}");
    assert!(
        line["hints"].to_string().contains("postgresql-99`"),
        "{line}"
    );
}

#[test]
fn a_storage_that_refuses_or_overwrites_is_told() {
    let s3 = ScriptedS3::start();
    let mut shop = Shop::with_key(&s3);
    local(&mut shop);
    with_session(&mut shop, &facts(), json!({}));
    let run = |shop: &Shop| {
        let bin = shop.fake.bin().display().to_string();
        let url = format!("s3://{}/pg", s3.bucket);
        let flags = [
            "--json",
            "check",
            "--bin-dir",
            &bin,
            "--storage",
            &url,
            "--s3-endpoint",
            &s3.endpoint,
        ];
        shop.sandbox.pgkeep(flags).run()
    };
    let outcome = run(&shop).expect(0);
    assert_eq!(verdict(&outcome, "round_trip"), "ok", "{outcome}");
    assert_eq!(verdict(&outcome, "free_space"), "skipped");
    assert_eq!(s3.keys(), Vec::<String>::new());
    s3.ignore_conditions();
    assert_eq!(verdict(&run(&shop).expect(0), "conditional_writes"), "warn");
    s3.on(Rule::new("PUT", Fault::status(403, "AccessDenied")));
    let outcome = run(&shop).expect(12);
    assert_eq!(verdict(&outcome, "round_trip"), "fail", "{outcome}");
    assert_eq!(s3.keys(), Vec::<String>::new());
}

#[test]
fn a_configuration_that_others_may_read_and_a_stale_backup_are_told() {
    let mut shop = stocked(&nights());
    local(&mut shop);
    with_session(&mut shop, &facts(), json!({}));
    let config = json!({
        "databases": {"shop": {"url": "postgresql:///shop?host=/tmp", "password": "open-secret-7", "max_age": "1h"}},
        "storages": {"local": {"url": shop.folder()}, "gone": {"url": "no/such/folder/b"}},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    let path = shop.sandbox.write("pgkeep.yaml", config.to_string());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = shop.sandbox.pgkeep(["--json", "check"]).run().expect(2);
    assert_eq!(verdict(&outcome, "configuration"), "warn");
    assert!(!outcome.stdout().contains("open-secret-7"));
    let fresh = &lines(&outcome, "freshness")[0];
    assert_eq!(
        (&fresh["verdict"], &fresh["code"]),
        (&json!("fail"), &json!(24))
    );
    // A storage that cannot be opened keeps nobody from looking at the other.
    let trips = lines(&outcome, "round_trip");
    let of = |name: &str| {
        let found = trips.iter().find(|line| line["subject"] == name);
        found.unwrap()["verdict"].clone()
    };
    assert_eq!((of("local"), of("gone")), (json!("ok"), json!("fail")));
}

/// A role of a backup's own may read every table and still not one large object.
#[test]
fn large_objects_of_others_are_told_before_a_backup_fails_of_them() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let role = format!("{}_backup", database.name());
    let owner = format!("{}_owner", database.name());
    let password = CANARY.replace('\'', "''");
    // What `pg_read_all_data` says of tables, on servers that have no such role, too.
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE ROLE {role} LOGIN PASSWORD '{password}'; CREATE TABLE seen (id int);
         GRANT SELECT ON seen TO {role}; SET ROLE {owner}; SELECT lo_create(7001), lo_create(7002);
         RESET ROLE; SELECT lo_create(7003)"
    ));
    let mut sandbox = Sandbox::new();
    let url = server.url_as(&role, CANARY, database.name());
    sandbox.set("DATABASE_URL", url);
    let run = |words: &[&str]| {
        let fixed = ["--storage", "b", "--require", "seen"];
        sandbox.pgkeep([words, &fixed].concat()).run()
    };
    let check = |code| run(&["--json", "check"]).expect(code);

    let outcome = check(20);
    assert_eq!(verdict(&outcome, "rights"), "ok");
    let line = &lines(&outcome, "large_objects")[0];
    let details = json!([
        format!("2 of `{owner}`, such as 7001"),
        format!("7003 of `{USER}`")
    ]);
    assert_eq!(
        (&line["id"], &line["details"]),
        (&json!("permission_denied"), &details)
    );
    let failed = run(&["--json", "backup", "--attempts", "1"])
        .expect(20)
        .exit_error();
    assert!(
        failed["message"]
            .as_str()
            .unwrap()
            .contains("large object 700"),
        "{failed}"
    );
    assert_eq!(failed["hints"], line["hints"]);

    // With a choice of tables `pg_dump` takes none of them.
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}", "tables": ["seen"]}},
        "storages": {"local": {"url": "chosen"}},
    });
    sandbox.write("chosen.yaml", config.to_string());
    let chosen = |verb: &str| {
        sandbox
            .pgkeep(["--json", "-c", "chosen.yaml", verb])
            .run()
            .expect(0)
    };
    assert_eq!(verdict(&chosen("check"), "large_objects"), "ok");
    chosen("backup");

    let lets = |sql: &str, code| {
        database.sql(sql);
        assert_eq!(
            verdict(&check(code), "large_objects"),
            if code == 0 { "ok" } else { "fail" },
            "{sql}"
        );
        run(&["backup", "--attempts", "1"]).expect(code);
    };
    lets(&format!("GRANT {owner} TO {role}"), 20);
    lets("GRANT SELECT ON LARGE OBJECT 7003 TO PUBLIC", 0);
    lets(&format!("REVOKE {owner} FROM {role}"), 20);
    lets(
        &format!(
            "ALTER DATABASE {} SET lo_compat_privileges = on",
            database.name()
        ),
        0,
    );
    lets(&format!("ALTER DATABASE {} RESET ALL", database.name()), 20);
    lets(
        &format!("GRANT SELECT ON LARGE OBJECT 7001, 7002 TO {role}"),
        0,
    );
    let both = format!("{role}, {owner}");
    database.sql(&format!("DROP OWNED BY {both}; DROP ROLE {both}"));
}

#[test]
fn an_address_that_nobody_needed_is_a_warning() {
    let mut shop = Shop::new();
    with_session(&mut shop, &facts(), json!({}));
    shop.sandbox.set(
        "DATABASE_URL",
        "postgresql://app@gone.invalid,127.0.0.1/shop",
    );
    let outcome = check(&shop, &["--require", "users"]).expect(0);
    let line = &lines(&outcome, "address")[0];
    assert_eq!(
        (&line["verdict"], &line["id"]),
        (&json!("warn"), &json!(null)),
        "{line}"
    );
    let message = line["message"].as_str().unwrap();
    assert!(
        message.contains("`gone.invalid`") && message.contains("the login worked"),
        "{line}"
    );
    // Without a login it is what has to be mended.
    shop.fake.script(
        "psql",
        json!({ "last_stderr": "psql: error: could not translate host name\n", "exit_code": 2 }),
    );
    let outcome = check(&shop, &[]).expect(20);
    assert_eq!(verdict(&outcome, "address"), "fail");
}

/// The newest backup is as large as the room allows, or a little too large: a hole in its file takes none.
#[test]
fn there_is_room_where_a_backup_says_so() {
    let mut shop = stocked(&["shop-20260102T030405Z-0001".to_owned()]);
    local(&mut shop);
    with_session(&mut shop, &facts(), json!({}));
    let path = |suffix: &str| {
        shop.folder()
            .join(format!("shop/shop-20260102T030405Z-0001.{suffix}"))
    };
    let manifest = fs::read_to_string(path("manifest.json")).unwrap();
    let stat = rustix::fs::statvfs(shop.folder()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    for (tenths, judged, code) in [(11, "fail", 22), (14, "warn", 0)] {
        let size = free / tenths * 10;
        fs::File::options()
            .write(true)
            .open(path("sql.gz"))
            .unwrap()
            .set_len(size)
            .unwrap();
        let mut changed: Value = serde_json::from_str(&manifest).unwrap();
        changed["object"]["size_bytes"] = json!(size);
        fs::write(path("manifest.json"), changed.to_string()).unwrap();
        let outcome = check(&shop, &["--require", "users"]).expect(code);
        assert_eq!(verdict(&outcome, "free_space"), judged, "{outcome}");
        let bin = shop.fake.bin().display().to_string();
        shop.over(&["backup", "--bin-dir", &bin, "--no-prune"])
            .run()
            .expect(code);
    }
}

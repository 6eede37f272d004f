//! `pgkeep guard`: no command without a proven backup, the command's own words and code, and the way back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::backup::{Real, Shop};
use crate::prune::{nights, stocked};
use crate::support::sandbox::Outcome;
use crate::support::secret::percent_encoded;
use crate::support::{CANARY, Sandbox, Server, data, postgres};

/// Runs a guard over a shop's fakes and folder.
#[track_caller]
fn guard(shop: &Shop, flags: &[&str], command: &[&str]) -> Outcome {
    over(shop, flags, command).run()
}

fn over<'a>(shop: &'a Shop, flags: &[&str], command: &[&str]) -> crate::support::sandbox::Run<'a> {
    let (bin, folder) = (
        shop.fake.bin().display().to_string(),
        shop.folder().display().to_string(),
    );
    let fixed = [
        "guard",
        "--attempts",
        "1",
        "--bin-dir",
        &bin,
        "--storage",
        &folder,
    ];
    let all = [&fixed[..], flags, &["--"], command].concat();
    shop.sandbox.pgkeep(all).watching_argv()
}

/// The last object on standard error, which is all of it with `--json`.
#[track_caller]
fn last(outcome: &Outcome) -> Value {
    let line = outcome.stderr().lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

fn stored(shop: &Shop, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(shop.folder().join("shop"));
    let names = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(suffix)).collect()
}

fn pin_reason(shop: &Shop) -> String {
    let pins = stored(shop, ".pin.json");
    assert_eq!(pins.len(), 1, "{pins:?}");
    let text = fs::read(shop.folder().join("shop").join(&pins[0])).unwrap();
    let pin: Value = serde_json::from_slice(&text).unwrap();
    pin["reason"].as_str().unwrap().to_owned()
}

#[test]
fn the_command_has_our_input_output_and_environment_and_its_code_is_ours() {
    let shop = Shop::new();
    let script = "cat; echo \"$GREETING $0 $1\"; echo oops >&2; exit 42";
    let outcome = over(&shop, &[], &["sh", "-c", script, "zero", "one two"])
        .stdin("typed\n")
        .env("GREETING", "hello")
        .run()
        .expect(42);
    // Nothing of ours is on standard output.
    assert_eq!(outcome.stdout(), "typed\nhello zero one two\n");
    let said = outcome.stderr();
    assert!(said.contains("oops") && said.contains("error: `sh` exited with status 42"));
    assert!(
        !said.contains("one two"),
        "arguments may hold secrets: {said}"
    );
    // The line stands alone, so that it can be pasted.
    let line = said
        .lines()
        .find(|line| line.contains("pgkeep restore shop-"))
        .unwrap_or_else(|| panic!("{outcome}"));
    let folder = shop.folder().display().to_string();
    assert!(
        line.contains(" --into=\"$DATABASE_URL\" --replace "),
        "{line}"
    );
    assert!(line.contains(&format!("--storage {folder}")), "{line}");
    assert!(pin_reason(&shop).starts_with("pre-deploy"));
    guard(&shop, &["-q"], &["true"]).expect(0);
}

/// The command's own folder is ours, so names in it are meant.
#[test]
fn a_command_beside_us_is_run() {
    let shop = Shop::new();
    let script = shop.sandbox.write("bin/migrate", "echo migrated $1\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["bin/migrate", "./bin/migrate"] {
        let outcome = over(&shop, &[], &[name, "up"]).run().expect(0);
        assert_eq!(outcome.stdout(), "migrated up\n");
    }
}

/// A configuration that leaves something out makes good backups, and no way back.
#[test]
fn what_leaves_something_out_is_no_way_back() {
    let shop = Shop::new();
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}", "exclude_tables": ["orders"], "structure_only": ["users"]}},
        "storages": {"local": {"url": shop.folder()}},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let run = |flags: &[&str]| {
        let all = [&["--json", "guard"], flags, &["--", "touch", "ran"]].concat();
        shop.sandbox.pgkeep(all).run()
    };
    let outcome = run(&["--on-failure", "restore"]).expect(25);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "partial_guard");
    let message = error["message"].as_str().unwrap();
    let what = "all but the tables `orders`, and no rows of `users`";
    assert!(
        message.starts_with("`touch` was not run") && message.contains(what),
        "{message}"
    );
    assert!(!shop.sandbox.path("ran").exists() && stored(&shop, ".manifest.json").is_empty());
    // Without a restore it is said, and the command runs.
    let warnings = last(&run(&[]).expect(0))["warnings"].to_string();
    assert!(warnings.contains(what), "{warnings}");
    assert!(shop.sandbox.path("ran").exists());
}

/// Rows that a limit leaves out would be gone after a rollback.
#[test]
fn what_is_limited_is_no_way_back() {
    let shop = Shop::new();
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}", "limits": {"orders": {"newest": 5, "by": "id"}}}},
        "storages": {"local": {"url": shop.folder()}},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let run = |flags: &[&str]| {
        let all = [&["--json", "guard"], flags, &["--", "touch", "ran"]].concat();
        shop.sandbox.pgkeep(all).run()
    };
    let error = run(&["--on-failure", "restore"]).expect(25).exit_error();
    assert_eq!(error["id"], "partial_guard");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("only some rows of `orders`"), "{message}");
    let error = run(&["--limit", "orders=newest:5:id"])
        .expect(2)
        .exit_error();
    assert_eq!(error["id"], "partial_guard");
    assert!(!shop.sandbox.path("ran").exists() && stored(&shop, ".manifest.json").is_empty());
}

#[test]
fn a_signal_that_ends_the_command_is_told_as_a_shell_does() {
    let shop = Shop::new();
    let outcome = guard(&shop, &["--json"], &["sh", "-c", "kill -KILL $$"]).expect(137);
    let summary = last(&outcome);
    assert_eq!(summary["message_type"], "summary");
    assert_eq!(
        (&summary["command"]["signal"], &summary["command"]["code"]),
        (&json!(9), &json!(137))
    );
}

#[test]
fn without_a_backup_there_is_no_command() {
    let mut shop = Shop::new();
    let mark = shop.sandbox.path("ran");
    let ran = mark.to_str().unwrap();
    shop.dumps(json!({ "no_end_marker": true }));
    let outcome = guard(&shop, &["--json"], &["touch", ran]).expect(21);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "dump_incomplete");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("`touch` was not run: backup of `shop` failed"),
        "{message}"
    );
    assert!(outcome.stdout.is_empty());
    // The summary stands before it and says that nothing ran.
    let lines: Vec<&str> = outcome.stderr().lines().collect();
    let summary: Value = serde_json::from_str(lines[lines.len() - 2]).unwrap();
    assert_eq!(summary["command"], Value::Null);
    shop.dumps(json!({}));
    guard(&shop, &["--require", "nothing"], &["touch", ran]).expect(21);
    shop.dumps(json!({ "exit_code": 1 }));
    guard(&shop, &[], &["touch", ran]).expect(20);
    assert!(!shop.sandbox.path("ran").exists());
    // An older good backup is no reason to go on.
    shop.dumps(json!({}));
    shop.backup(&[]).expect(0);
    shop.dumps(json!({ "exit_code": 1 }));
    guard(&shop, &[], &["touch", ran]).expect(20);
    assert!(!shop.sandbox.path("ran").exists());
}

#[test]
fn a_command_that_is_not_there_is_told_before_a_backup_is_made() {
    let shop = Shop::new();
    let outcome = guard(&shop, &["--json"], &["no-such-command"]).expect(127);
    assert_eq!(outcome.exit_error()["id"], "command_not_found");
    let file = shop.sandbox.write("plain", "x");
    let outcome = guard(&shop, &["--json"], &[file.to_str().unwrap()]).expect(126);
    assert_eq!(outcome.exit_error()["id"], "command_not_executable");
    assert!(shop.fake.calls("pg_dump").is_empty());
    assert!(!shop.folder().join("shop").exists());
    for flags in [
        ["--table", "users"],
        ["--max-age", "soon"],
        ["--on-failure", "cry"],
    ] {
        guard(&shop, &flags, &["true"]).expect(2);
    }
    let help = shop.sandbox.pgkeep(["guard", "--help"]).run().expect(0);
    assert!(help.stdout().contains("--max-age") && !help.stdout().contains("--exclude-table"));
}

#[test]
fn a_young_backup_of_this_database_will_do() {
    let shop = Shop::new();
    let dumps = || {
        let calls = shop.fake.calls("pg_dump");
        let is_dump = |call: &&Value| !call["argv"].to_string().contains("--version");
        calls.iter().filter(is_dump).count()
    };
    shop.backup(&["--require", "users"]).expect(0);
    assert_eq!(dumps(), 1);
    let young = [
        "--json",
        "--max-age",
        "10m",
        "--require",
        "users",
        "--require",
        "orders",
    ];
    let summary = last(&guard(&shop, &young, &["true"]).expect(0));
    let database = &summary["databases"][0];
    assert_eq!(dumps(), 1, "{summary}");
    assert!(database["accepted_age_seconds"].as_i64().is_some());
    assert_eq!(stored(&shop, ".manifest.json").len(), 1);
    assert!(pin_reason(&shop).starts_with("pre-deploy"));
    // More rows than were proven, and a backup without roles: new ones are made.
    for (count, more) in [
        (2, ["--require", "orders=1"]),
        (3, ["--globals", "--globals"]),
    ] {
        let more = if more[0] == more[1] {
            &more[..1]
        } else {
            &more[..]
        };
        let flags = [&["--json", "--max-age", "10m"], more].concat();
        let summary = last(&guard(&shop, &flags, &["true"]).expect(0));
        assert_eq!(dumps(), count, "{summary}");
        assert_eq!(summary["databases"][0]["accepted_age_seconds"], Value::Null);
    }
}

#[test]
fn an_old_or_damaged_backup_or_one_of_another_server_will_not_do() {
    let mut shop = stocked(&nights());
    let made = |shop: &Shop, flags: &[&str]| {
        let flags = [&["--json", "--max-age", "10m"], flags].concat();
        let summary = last(&guard(shop, &flags, &["true"]).expect(0));
        summary["databases"][0]["backup"]["stored"] == json!(true)
    };
    assert!(made(&shop, &[]), "only old ones");
    assert!(!made(&shop, &[]), "the one that was just made");
    let dump = stored(&shop, ".sql.gz");
    let newest = dump.iter().max().unwrap();
    let path = shop.folder().join("shop").join(newest);
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(5)
        .unwrap();
    assert!(made(&shop, &[]), "its dump was cut off");
    assert!(!made(&shop, &[]));
    let mut facts = crate::backup::facts();
    facts["system_identifier"] = json!("8");
    shop.answer(&facts);
    assert!(made(&shop, &[]), "made of another server");
}

#[test]
fn where_pre_deploy_backups_have_a_set_of_their_own_they_are_marked() {
    let mut shop = Shop::new();
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}", "retention": {"keep_daily": 7, "keep_pre_deploy": 3}}},
        "storages": {"local": {"url": shop.folder()}},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    shop.sandbox
        .set("GITHUB_SHA", "0123456789abcdef0123456789abcdef01234567");
    shop.sandbox.pgkeep(["backup"]).run().expect(0);
    assert!(stored(&shop, ".pre-deploy.json").is_empty());
    let run = shop
        .sandbox
        .pgkeep(["--json", "guard", "--max-age", "10m", "--", "false"]);
    let summary = last(&run.run().expect(1));
    assert_eq!(stored(&shop, ".guarded.json").len(), 1, "{summary}");
    assert!(stored(&shop, ".pin.json").is_empty());
    // It is still the backup of its day.
    let prune = ["--json", "prune", "-d", "shop", "--dry-run"];
    let plan = shop
        .sandbox
        .pgkeep(prune)
        .run()
        .expect(0)
        .stdout()
        .to_owned();
    assert!(
        plan.contains("daily") && plan.contains("pre_deploy"),
        "{plan}"
    );
    assert_eq!(
        summary["commit"],
        "0123456789abcdef0123456789abcdef01234567"
    );
    let line = summary["databases"][0]["restore"].as_str().unwrap();
    let config = shop.sandbox.path("pgkeep.yaml").canonicalize().unwrap();
    assert!(
        line.contains(&format!("pgkeep -c {} restore ", config.display())),
        "{line}"
    );
    assert!(
        line.starts_with("cd /") && line.ends_with(" --into=shop --replace"),
        "{line}"
    );
    // The history tells that a command was guarded, and how it ended.
    let status = shop
        .sandbox
        .pgkeep(["--json", "status"])
        .run()
        .expect(0)
        .json();
    let run = &status["databases"][0]["last_runs"][0];
    assert_eq!(
        (&run["verb"], &run["exit_code"]),
        (&json!("guard"), &json!(1)),
        "{status}"
    );
    assert_eq!(
        run["reason"],
        "commit 0123456789abcdef0123456789abcdef01234567"
    );
}

#[test]
fn the_commit_of_the_work_tree_is_in_the_pin() {
    let shop = Shop::new();
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
        let run = shop.sandbox.program("git", [&who, arguments].concat());
        run.run().expect(0).stdout().trim().to_owned()
    };
    git(&["init", "-q", "."]);
    git(&["commit", "-q", "--allow-empty", "-m", "first"]);
    let commit = git(&["rev-parse", "HEAD"]);
    guard(&shop, &[], &["true"]).expect(0);
    assert_eq!(pin_reason(&shop), format!("pre-deploy of commit {commit}"));
}

#[test]
fn a_signal_reaches_the_command_and_its_code_is_passed_on() {
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
        let shop = Shop::new();
        let ready = shop.sandbox.path("ready");
        let script =
            format!("trap 'echo tidied; exit 7' {name}; : > ready; while :; do sleep 0.02; done");
        let running = over(
            &shop,
            &["--json", "--on-failure", "print"],
            &["sh", "-c", &script],
        )
        .start();
        running.wait_for_file(&ready);
        running.signal(signal);
        let outcome = running.wait().expect(7);
        assert_eq!(outcome.stdout(), "tidied\n");
        assert_eq!(last(&outcome)["command"]["interrupted"], true);
    }
}

#[test]
fn a_signal_during_the_backup_ends_the_guard() {
    let mut shop = Shop::new();
    let reached = shop.sandbox.path("reached");
    shop.dumps(json!({ "stops_after": { "bytes": 100, "marks": reached, "sleeps_ms": 60_000 } }));
    let running = over(&shop, &["--json"], &["touch", "ran"]).start();
    running.wait_for_file(&reached);
    running.signal(Signal::TERM);
    let outcome = running.wait().expect(143);
    let message = outcome.exit_error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("`touch` was not run"), "{message}");
    assert!(!shop.sandbox.path("ran").exists());
}

/// A sandbox that guards a real database.
fn real(database: &str, server: &Server, user: &str) -> Real {
    Real::new(server.url_as(user, CANARY, database))
}

fn guarded(real: &Real, flags: &[&str], script: &str) -> Outcome {
    let folder = real.folder().display().to_string();
    let fixed = ["--json", "guard", "--storage", &folder];
    let all = [&fixed[..], flags, &["--", "sh", "-c", script]].concat();
    real.sandbox.pgkeep(all).watching_argv().run()
}

const MIGRATE: &str =
    "psql -X -q -v ON_ERROR_STOP=1 \"$DATABASE_URL\" -c 'DROP TABLE \"Track\" CASCADE' && exit 3";

#[test]
fn a_failed_migration_is_taken_back() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.load(&data::dump("public/neon-chinook.sql"));
    let mut real = real(database.name(), server, crate::support::postgres::USER);
    real.sandbox.set("MIGRATED", database.socket_url());
    let script = MIGRATE.replace("DATABASE_URL", "MIGRATED");
    // What is asked for a restore holds for this one, too, and is asked in front of the command.
    let outcome = guarded(&real, &["--on-failure", "restore"], &script).expect(25);
    assert_eq!(outcome.exit_error()["id"], "superuser_refused", "{outcome}");
    let restores = ["--allow-superuser", "--on-failure", "restore"];
    let outcome = guarded(&real, &restores, &script).expect(3);
    let summary = last(&outcome);
    let restored = &summary["databases"][0]["restored"];
    assert_eq!(restored["restored"], true, "{outcome}");
    assert_eq!(database.sql("SELECT count(*) FROM \"Track\""), "3503");
    let kept = restored["replaced"]["kept_as"].as_str().unwrap();
    let there = server.sql(
        kept,
        "SELECT count(*) FROM pg_class WHERE relname = 'Track'",
    );
    assert_eq!(there, "0", "the migrated one is kept");
    server.sql("template1", &format!("DROP DATABASE \"{kept}\""));
    // By default nothing is changed, and the printed line does it.
    let outcome = guarded(&real, &["--allow-superuser"], &script).expect(3);
    let line = last(&outcome)["databases"][0]["restore"]
        .as_str()
        .unwrap()
        .to_owned();
    let gone = "SELECT count(*) FROM pg_class WHERE relname = 'Track'";
    assert_eq!(database.sql(gone), "0");
    let built = std::path::Path::new(env!("CARGO_BIN_EXE_pgkeep"))
        .parent()
        .unwrap();
    let path = format!("PATH={}:$PATH; cd /; {line} --json", built.display());
    // The shell puts the URL into our own arguments, where the line's reader wants it.
    let url = database.socket_url();
    let run = real
        .sandbox
        .program("sh", ["-c", &path])
        .env("DATABASE_URL", url);
    let replaced = run.run().expect(0).summary()["replaced"]["kept_as"].clone();
    assert_eq!(database.sql("SELECT count(*) FROM \"Track\""), "3503");
    server.sql(
        "template1",
        &format!("DROP DATABASE \"{}\"", replaced.as_str().unwrap()),
    );
}

#[test]
fn where_the_way_back_would_not_work_nothing_runs() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let role = format!("{}_app", database.name());
    let quoted = CANARY.replace('\'', "''");
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{quoted}'; GRANT ALL ON SCHEMA public TO {role}; \
         SET ROLE {role}; CREATE TABLE users (id int)"
    ));
    let real = real(database.name(), server, &role);
    let outcome = guarded(&real, &["--on-failure", "restore"], "touch ran").expect(25);
    let error = outcome.exit_error();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("`sh` was not run: a rollback would not work"),
        "{message}"
    );
    assert!(
        error["details"]
            .to_string()
            .contains("cannot create databases"),
        "{error}"
    );
    assert!(!real.sandbox.path("ran").exists());
    let backups = fs::read_dir(real.folder().join("shop"));
    assert!(backups.is_err(), "told before a backup was made");
    // Without a restore it is a warning, and the command runs.
    let summary = last(&guarded(&real, &[], "touch ran").expect(0));
    let warnings = summary["warnings"].to_string();
    assert!(
        warnings.contains("a rollback would not work at present"),
        "{warnings}"
    );
    assert!(real.sandbox.path("ran").exists());
    database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn several_databases_are_all_guarded_and_one_alone_is_put_back() {
    let shop = Shop::new();
    let url = format!(
        "postgresql://app:{}@db.invalid/shop",
        percent_encoded(CANARY)
    );
    let config = json!({
        "databases": {"a": {"url": "${DATABASE_URL}"}, "b": {"url": "${DATABASE_URL}"}},
        "storages": {"local": {"url": shop.folder()}},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let run = |sandbox: &Sandbox, flags: &[&str]| {
        let all = [&["--json", "guard"], flags, &["--", "true"]].concat();
        sandbox.pgkeep(all).env("DATABASE_URL", &url).run()
    };
    let summary = last(&run(&shop.sandbox, &[]).expect(0));
    let ids: Vec<&str> = summary["databases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["backup_id"].as_str().unwrap())
        .collect();
    assert!(
        ids[0].starts_with("a-") && ids[1].starts_with("b-"),
        "{ids:?}"
    );
    let refused = run(&shop.sandbox, &["--on-failure", "restore"]).expect(2);
    assert_eq!(refused.exit_error()["id"], "database_needed");
}

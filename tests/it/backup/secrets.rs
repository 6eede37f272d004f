//! Secrets (rows S): no password and no key where anybody can see it. The sandbox looks for the canary after every run.

use serde_json::{Value, json};

use super::{Real, Shop};
use crate::support::secret::percent_encoded;
use crate::support::{CANARY, S3Server, postgres, skip};

#[test]
fn s1_no_argv_holds_a_password() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE t AS SELECT g, repeat('x', 500) AS body FROM generate_series(1, 20000) g",
    );
    let real = Real::new(database.url());
    let oracle = real.oracle();
    let before = oracle.before();
    let outcome = real
        .run(&["--globals", "--require", "t=20000"])
        .watching_argv()
        .run()
        .expect(0);
    oracle.judge(&before, &outcome);
}

/// Everything that speaks is asked to say all it knows.
#[test]
fn s2_s4_no_word_holds_a_secret() {
    let server = S3Server::start();
    let mut shop = Shop::with_key(&server);
    // What the fake is told to say.
    shop.sandbox
        .may_hold_secret(&shop.fake.bin().join("fake.json"));
    let forms = [
        CANARY.to_owned(),
        percent_encoded(CANARY),
        json!(CANARY).to_string(),
    ];
    let said: Vec<String> = forms
        .iter()
        .map(|form| format!("pg_dump: error: connection to \"{form}\" failed\n"))
        .collect();
    shop.dumps(json!({ "stderr": said.concat(), "exit_code": 1 }));
    let oracle = shop.oracle_of(&server);
    let loud = |flags: &[&str]| {
        shop.run(&oracle, flags)
            .env("PGKEEP_LOG", "trace")
            .env("RUST_BACKTRACE", "full")
            .run()
    };
    let failed = loud(&["-vvv", "--log-format", "json"]).expect(20);
    assert!(failed.stderr().contains("***"), "{failed}");
    drop(oracle);
    shop.dumps(json!({ "stderr": said.concat() }));
    let oracle = shop.oracle_of(&server);
    let before = oracle.before();
    let good = shop
        .run(&oracle, &["-vvv"])
        .env("PGKEEP_LOG", "trace")
        .env("PGKEEP_LOG_STYLE", "never")
        .run()
        .expect(0);
    oracle.judge_visible(&before, &good);
    // The manifest keeps the warnings; it must not keep what was in them.
    for key in server.keys() {
        let bytes = std::fs::read(server.bucket_dir().join(&key)).unwrap();
        crate::support::secret::assert_absent(CANARY, &key, &bytes);
    }
}

/// A defect speaks too. What it says is known only in debug builds, which can be asked for one.
#[test]
fn s4_a_panic_tells_no_secret_and_is_a_failure_like_any_other() {
    if !cfg!(debug_assertions) {
        skip("a release build cannot be asked to panic");
        return;
    }
    let server = S3Server::start();
    let shop = Shop::with_key(&server);
    let encoded = percent_encoded(CANARY);
    let words = format!(
        "no sense in {CANARY} nor postgresql://app:{encoded}@db.invalid/shop nor {encoded}"
    );
    let oracle = shop.oracle_of(&server);
    let before = oracle.before();
    let json = shop
        .run(&oracle, &[])
        .env("PGKEEP_TEST_PANIC", &words)
        .run()
        .expect(1);
    let error = json.exit_error();
    assert_eq!(error["id"], "panicked");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("no sense in *** nor postgresql://app:***@db.invalid/shop nor ***"),
        "{json}"
    );
    assert!(message.contains("src/cli/panic.rs:"), "{json}");
    assert!(json.stdout.is_empty(), "{json}");
    let flags = oracle.flags();
    let arguments = ["backup".to_owned()].into_iter().chain(flags);
    let text = shop
        .sandbox
        .pgkeep(arguments)
        .env("PGKEEP_TEST_PANIC", &words)
        .env("RUST_BACKTRACE", "full")
        .run()
        .expect(1);
    assert!(text.stderr().contains("is a defect of pgkeep"), "{text}");
    assert!(text.stderr().contains("hint:"), "{text}");
    oracle.assert_unchanged(&before);
}

/// A password that stands in a file, which only the configuration names.
#[test]
fn s4_a_panic_tells_no_secret_of_the_configuration() {
    if !cfg!(debug_assertions) {
        skip("a release build cannot be asked to panic");
        return;
    }
    let sandbox = crate::support::Sandbox::new();
    sandbox.write_secret("password", CANARY);
    let config = "databases:\n  shop: {host: db.invalid, database: shop, password_file: password}\n\
                  storages:\n  local: {url: backups}\n";
    sandbox.write("pgkeep.yaml", config);
    let run = sandbox.pgkeep(["--json", "backup"]);
    let outcome = run.env("PGKEEP_TEST_PANIC", CANARY).run().expect(1);
    let message = outcome.exit_error()["message"].to_string();
    assert!(message.contains(": ***"), "{outcome}");
}

#[test]
fn s2_a_url_that_cannot_be_read_is_not_repeated() {
    let sandbox = crate::support::Sandbox::new();
    for url in [
        format!("postgresql://u:{}@host:notaport/d", percent_encoded(CANARY)),
        format!("postgresql://u:{CANARY}@host/d"),
        format!("mysql://u:{}@host/d", percent_encoded(CANARY)),
        format!(
            "postgresql://u:{}@host/d?nonsense=1",
            percent_encoded(CANARY)
        ),
    ] {
        let run = sandbox
            .pgkeep(["--json", "backup", "--storage", "backups"])
            .env("DATABASE_URL", url);
        run.run().expect(2).exit_error();
    }
    let config = format!(
        "databases:\n  shop:\n    url: 'postgresql://u:{}@h/d'\n    pasword: '{CANARY}'\n",
        percent_encoded(CANARY)
    );
    sandbox.write_secret("pgkeep.yaml", config);
    sandbox.pgkeep(["--json", "backup"]).run().expect(2);
    sandbox.pgkeep(["backup"]).run().expect(2);
}

#[test]
fn s3_programs_get_what_they_need_and_no_more() {
    let server = S3Server::start();
    let mut shop = Shop::with_key(&server);
    shop.sandbox.set("PGKEEP_PASSPHRASE", CANARY);
    shop.sandbox.set("SLACK_URL", "https://hooks.invalid/x");
    shop.backup_to(&shop.oracle_of(&server), &["--globals"])
        .expect(0);
    for program in ["psql", "pg_dump", "pg_dumpall"] {
        let calls = shop.fake.calls(program);
        assert!(!calls.is_empty(), "{program}");
        for call in calls {
            let environment = call["environment"].as_object().unwrap();
            let is_foreign = |name: &&String| {
                ["AWS", "PGKEEP", "SLACK", "DATABASE_URL"]
                    .iter()
                    .any(|word| name.contains(word))
            };
            assert_eq!(environment.keys().find(is_foreign), None, "{program}");
            crate::support::secret::assert_absent(
                CANARY,
                program,
                call["argv"].to_string().as_bytes(),
            );
        }
    }
    let asked = |call: &Value| call["environment"]["PGPASSWORD"] == CANARY;
    assert!(
        shop.fake.calls("pg_dump").iter().any(asked),
        "the password comes by environment"
    );
}

#[test]
fn c1_c3_a_bad_configuration_is_told_whole_and_nothing_runs() {
    let shop = Shop::new();
    let config = "databases:\n  shop:\n    url: ${NOT_SET}\n    retension: {keep_daily: 7}\n    retention: {keep_dayly: 7}\n\
                  storages:\n  local: {url: backups}\n  local: {url: other}\n";
    shop.sandbox.write("pgkeep.yaml", config);
    let error = shop
        .sandbox
        .pgkeep(["--json", "backup"])
        .run()
        .expect(2)
        .exit_error();
    let told = error["details"].to_string();
    for words in [
        "line 3",
        "NOT_SET",
        "line 4",
        "did you mean `retention`?",
        "did you mean `keep_daily`?",
        "line 8",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let one = |config: &str| {
        shop.sandbox.write("pgkeep.yaml", config);
        shop.sandbox
            .pgkeep(["--json", "backup"])
            .run()
            .expect(2)
            .exit_error()["details"]
            .to_string()
    };
    let base = "storages: {local: {url: backups}}\ndatabases:\n  shop:\n    database: d\n";
    for line in [
        "copies: -1",
        "copies: many",
        "lock_wait_timeout: soon",
        "retention: {keep_daily: 0}",
        "compression: {method: gzip, level: 12}",
    ] {
        let told = one(&format!("{base}    {line}\n"));
        assert!(told.contains("line 5"), "{line}: {told}");
    }
    // An anchor bomb ends before it grows.
    let bomb = (1..30)
        .map(|n| format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1))
        .collect::<String>();
    one(&format!("a0: &a0 [x, x]\n{bomb}"));
    assert_eq!(shop.fake.calls("psql").len(), 0);
    assert!(!shop.folder().exists());
}

#[test]
fn c4_a_secret_that_others_may_read_is_warned_of() {
    let shop = Shop::new();
    let config = format!(
        "databases:\n  shop:\n    host: db.invalid\n    user: app\n    database: shop\n    password: '{CANARY}'\n\
         storages: {{local: {{url: {}}}}}\npostgres: {{bin_dir: {}}}\n",
        shop.folder().display(),
        shop.fake.bin().display()
    );
    let path = shop.sandbox.write_secret("pgkeep.yaml", config);
    let oracle = shop.oracle();
    for (mode, is_told) in [("644", true), ("640", true), ("600", false)] {
        shop.sandbox
            .program("chmod", [mode, path.to_str().unwrap()])
            .run()
            .expect(0);
        let before = oracle.before();
        let outcome = shop.sandbox.pgkeep(["--json", "backup"]).run().expect(0);
        oracle.judge(&before, &outcome);
        assert_eq!(
            outcome.stderr().contains("holds a secret"),
            is_told,
            "{mode}: {outcome}"
        );
    }
    shop.sandbox.pgkeep(["config", "show"]).run().expect(0);
}

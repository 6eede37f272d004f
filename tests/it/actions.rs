//! GitHub Actions (row C11): what the runner reads on both streams, the summary and the outputs of a step.

use std::fs;

use serde_json::{Value, json};

use crate::backup::{Shop, answers, facts};
use crate::support::Sandbox;
use crate::support::sandbox::Outcome;

/// A shop on a runner, with a password that may be seen: the runner has to be told it.
fn on_a_runner(password: &str) -> Shop {
    let mut shop = Shop::new();
    let encoded = crate::support::secret::percent_encoded(password);
    shop.sandbox.set(
        "DATABASE_URL",
        format!("postgresql://app:{encoded}@db.invalid/shop"),
    );
    runner(&mut shop.sandbox);
    shop
}

fn runner(sandbox: &mut Sandbox) {
    sandbox.set("GITHUB_ACTIONS", "true");
    for name in ["GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"] {
        let path = sandbox.path(name);
        sandbox.set(name, path);
    }
}

fn read(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(sandbox.path(name)).unwrap_or_default()
}

/// Returns what a runner takes for its commands out of both streams.
fn commands(outcome: &Outcome) -> Vec<&str> {
    let lines = outcome.stdout().lines().chain(outcome.stderr().lines());
    lines
        .filter(|line| line.trim_start().starts_with("::") || line.contains("##["))
        .collect()
}

#[test]
fn c11_a_backup_sets_outputs_and_a_summary() {
    let shop = on_a_runner("pw-of-the-shop");
    fs::write(shop.sandbox.path("GITHUB_OUTPUT"), "earlier=1\n").unwrap();
    let outcome = shop.backup(&[]).expect(0);
    let report = &outcome.summary()["backups"][0];
    let id = report["backup_id"].as_str().unwrap();
    let folder = shop.folder();
    let wanted = format!(
        "earlier=1\nbackup_id={id}\nmanifest={}/{}\nsize_bytes={}\n",
        folder.display(),
        report["manifest_key"].as_str().unwrap(),
        report["size_bytes"]
    );
    assert_eq!(read(&shop.sandbox, "GITHUB_OUTPUT"), wanted);
    let manifest = wanted
        .lines()
        .find_map(|line| line.strip_prefix("manifest="))
        .unwrap();
    assert!(fs::exists(manifest).unwrap(), "{manifest}");
    let summary = read(&shop.sandbox, "GITHUB_STEP_SUMMARY");
    let row = format!("| <code>shop</code> | ✅ done and proven | <code>{id}</code> |");
    assert!(
        summary.contains("### Backups\n\n| database |") && summary.contains(&row),
        "{summary}"
    );
    // Standard output is JSON and nothing else; the only command is the mask.
    assert!(!outcome.json_lines().is_empty());
    assert_eq!(commands(&outcome), ["::add-mask::pw-of-the-shop"]);
}

/// The first line of all tells the runner what to hide, each line of a secret by itself.
#[test]
fn c11_secrets_are_masked_before_anything_is_said() {
    let shop = on_a_runner("100%: x,y");
    let folder = shop.sandbox.write("pw", "from-a-file\n");
    let flags = ["--password-file", folder.to_str().unwrap(), "-vv"];
    let outcome = shop
        .run(&shop.oracle(), &flags)
        .env("PGPASSWORD", "first line\nsecond line")
        .run()
        .expect(0);
    let first: Vec<&str> = outcome.stderr().lines().take(4).collect();
    for mask in ["100%25: x,y", "first line", "second line", "from-a-file"] {
        assert!(
            first.contains(&format!("::add-mask::{mask}").as_str()),
            "{first:?}"
        );
    }
    // Off a runner nobody is told anything.
    let quiet = shop
        .run(&shop.oracle(), &[])
        .env("GITHUB_ACTIONS", "false")
        .run()
        .expect(0);
    assert!(!quiet.stderr().contains("100%"), "{quiet}");
    // A file is no runner, and would keep what it is told.
    let line = "exec \"$0\" --json list --storage backups 2>said";
    let program = shop
        .sandbox
        .program("sh", ["-c", line, env!("CARGO_BIN_EXE_pgkeep")]);
    program.run().expect(0);
    assert_eq!(read(&shop.sandbox, "said"), "");
}

#[test]
fn c11_a_failure_is_one_error_command_and_a_row() {
    let mut shop = on_a_runner("pw-of-the-shop");
    shop.dumps(
        json!({ "stderr": "pg_dump: error: 100% of\n::stop-commands::x\n", "exit_code": 1 }),
    );
    let outcome = shop.backup(&[]).expect(20);
    let commands_of = |outcome: &Outcome| -> Vec<String> {
        let all = commands(outcome).into_iter().map(str::to_owned);
        all.filter(|command| !command.starts_with("::add-mask::"))
            .collect()
    };
    let [error] = &commands_of(&outcome)[..] else {
        panic!("{outcome}")
    };
    let id = outcome.exit_error()["id"].as_str().unwrap().to_owned();
    let start = format!("::error title=pgkeep%3A {id}%2C exit code 20::backup of `shop` failed");
    assert!(error.starts_with(&start), "{error}");
    assert!(
        error.contains("%0A  pg_dump: error: 100%25 of%0A  ::stop-commands::x"),
        "{error}"
    );
    let summary = read(&shop.sandbox, "GITHUB_STEP_SUMMARY");
    assert!(summary.contains("| ❌ failed, exit code 20 |"), "{summary}");
    // Nothing was stored, so later steps get empty values and not those of another run.
    let output = read(&shop.sandbox, "GITHUB_OUTPUT");
    assert_eq!(output, "backup_id=\nmanifest=\nsize_bytes=\n");
    let wrong = shop.sandbox.pgkeep(["backup", "--nope"]).run().expect(2);
    assert!(
        wrong
            .stderr()
            .starts_with("::error title=pgkeep%3A usage%2C exit code 2::"),
        "{wrong}"
    );
}

#[test]
fn c11_a_guarded_command_keeps_its_streams_and_has_a_row() {
    let shop = on_a_runner("pw-of-the-shop");
    let run = |command: &str| {
        let bin = shop.fake.bin().display().to_string();
        let folder = shop.folder().display().to_string();
        let fixed = [
            "guard",
            "--attempts",
            "1",
            "--bin-dir",
            &bin,
            "--storage",
            &folder,
        ];
        let command = ["--", "sh", "-c", command];
        shop.sandbox.pgkeep(fixed.iter().chain(&command)).run()
    };
    let outcome = run("echo ::notice::mine; exit 7").expect(7);
    assert_eq!(outcome.stdout(), "::notice::mine\n", "{outcome}");
    let output = read(&shop.sandbox, "GITHUB_OUTPUT");
    let id = output.strip_prefix("backup_id=shop-").unwrap();
    let summary = read(&shop.sandbox, "GITHUB_STEP_SUMMARY");
    let row = format!(
        "| <code>shop</code> | made | <code>shop-{}</code> | ❌ failed, exit code 7 |",
        id.trim_end()
    );
    assert!(summary.contains(&row), "{summary}");
}

/// What the server calls its tables, and what programs print, is never a command of the runner.
#[test]
fn c11_nothing_from_the_server_is_a_command() {
    let mut shop = on_a_runner("pw-of-the-shop");
    let name = "::error::x|<b>##[error]";
    let sql = format!(
        "-- PostgreSQL database dump\n\nCREATE TABLE public.\"{name}\" (id integer);\n\
         COPY public.\"{name}\" (id) FROM stdin;\n1\n\\.\n\n-- PostgreSQL database dump complete\n"
    );
    let mut server = facts();
    server["tables"][0]["name"] = json!(name);
    server["tables"].as_array_mut().unwrap().truncate(1);
    shop.fake
        .script("psql", json!({ "answers": answers(&server) }));
    shop.prints(sql);
    shop.backup(&[]).expect(0);
    for command in [&["show"][..], &["--json", "show"], &["verify"], &["list"]] {
        let outcome = shop.over(command).run().expect(0);
        assert_eq!(
            commands(&outcome),
            ["::add-mask::pw-of-the-shop"],
            "{outcome}"
        );
    }
    // The JSON says what it said before.
    let manifest = shop.over(&["--json", "show"]).run().expect(0).json();
    let told = manifest.to_string();
    let plain: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(plain["tables"][0]["name"], name);
    let summary = read(&shop.sandbox, "GITHUB_STEP_SUMMARY");
    assert!(
        summary.contains("### Verified backups") && summary.contains("✅ good"),
        "{summary}"
    );
}

/// Files that the runner names and that take nothing are a warning, never a failure.
#[test]
fn c11_a_summary_that_cannot_be_written_changes_no_code() {
    let mut shop = on_a_runner("pw-of-the-shop");
    shop.sandbox.set("GITHUB_STEP_SUMMARY", "/dev/full");
    shop.sandbox
        .set("GITHUB_OUTPUT", shop.sandbox.path("no/such/folder/x"));
    let outcome = shop.backup(&[]).expect(0);
    let warned = |what: &str| {
        outcome
            .stderr()
            .contains(&format!("::warning title=pgkeep::{what}"))
    };
    assert!(
        warned("the summary of the step was not written"),
        "{outcome}"
    );
    assert!(
        warned("the outputs of the step were not written"),
        "{outcome}"
    );
}

//! Wrong command lines: with `--json` every one of them ends standard error with the `exit_error` object, and standard
//! output carries JSON or nothing.

use serde_json::Value;

use crate::support::Sandbox;

/// Command lines that cannot be carried out, with their exit code. `taken.yaml` is there, and nothing else is.
const WRONG: &[(i32, &[&str])] = &[
    (2, &[]),
    (2, &["nosuchcommand"]),
    (2, &["--nope"]),
    (2, &["list", "--log-format", "xml"]),
    (2, &["list", "--progress", "sometimes"]),
    (2, &["inspect"]),
    (2, &["inspect", "--require", "\"open", "-"]),
    (2, &["inspect", "--require", "a.b.c", "-"]),
    (2, &["inspect", "--require", "", "-"]),
    (2, &["inspect", "-", "--requir", "users"]),
    (2, &["inspect", "no-such-file.sql"]),
    (21, &["inspect", "taken.yaml"]),
    (21, &["inspect", "-"]),
    (2, &["backup"]),
    (2, &["backup", "--url", "postgresql:///d"]),
    (2, &["backup", "--url", "nonsense://x", "--storage", "b"]),
    (
        2,
        &["backup", "--url", "postgresql:///a%20b", "--storage", "b"],
    ),
    (
        2,
        &[
            "backup",
            "--url",
            "postgresql:///d",
            "--storage",
            "abfss://b",
        ],
    ),
    (
        2,
        &["backup", "--url", "postgresql:///d", "--storage", "s3://"],
    ),
    (2, &["backup", "--trigger", "mood"]),
    (2, &["backup", "--copies", "many"]),
    (2, &["backup", "--attempts", "-1"]),
    (2, &["show", "latest"]),
    (2, &["show", "latest", "more"]),
    (10, &["show", "nope", "--storage", "."]),
    (10, &["show", "--storage", "no-such-folder"]),
    (10, &["show", "--storage", "."]),
    (2, &["list"]),
    (10, &["list", "--storage", "no-such-folder"]),
    (2, &["list", "--storage", "ftp://x"]),
    (2, &["list", "-d", "a b", "--storage", "."]),
    (2, &["get"]),
    (10, &["get", "nope", "--storage", "."]),
    (10, &["get", "--storage", "."]),
    (2, &["config"]),
    (2, &["config", "nope"]),
    (2, &["config", "show"]),
    (2, &["-c", "no-such-file.yaml", "config", "show"]),
    (2, &["-c", "taken.yaml", "config", "show"]),
    (2, &["-c", "taken.yaml", "backup"]),
    (25, &["config", "init", "taken.yaml"]),
    (2, &["config", "init", "no/such/folder/x.yaml"]),
    (2, &["deploy"]),
    (2, &["deploy", "print", "no-such-file"]),
    (2, &["deploy", "install"]),
    (2, &["deploy", "install", "cron"]),
    (2, &["deploy", "install", "cron", "--drill", "monthly"]),
    (
        25,
        &["deploy", "install", "systemd", "--program", "/no/such/file"],
    ),
    (2, &["demo", "--keep"]),
    (2, &["demo", "more"]),
    (2, &["check", "more"]),
    (2, &["check"]),
    (2, &["check", "--url", "nonsense://x", "--storage", "b"]),
    (2, &["guard"]),
    (2, &["guard", "true"]),
    (2, &["guard", "--max-age", "soon", "--", "true"]),
    (2, &["guard", "--trigger", "mood", "--", "true"]),
    (2, &["guard", "--table", "users", "--", "true"]),
    (2, &["guard", "--", "true"]),
    (127, &["guard", "--", "no-such-command"]),
    (126, &["guard", "--", "./taken.yaml"]),
    (2, &["restore", "--upsert", "--into", "x", "--jobs", "2"]),
];

/// More flags of `backup` that are read by us and not by clap.
const WRONG_BACKUPS: &[&[&str]] = &[
    &["--compression", "lzma"],
    &["--compression", "gzip:11"],
    &["--stall-timeout", "soon"],
    &["--lock-wait-timeout", "-3s"],
    &["--copies", "0"],
    &["--copies", "9"],
    &["--name", "../x"],
    &["--password-file", "no-such-file"],
    &["--require", "\"open"],
    &["--table", "\"open"],
    &["--exclude-table", "a.b.c"],
    &["--structure-only", ""],
    &["--schema", "a.b"],
    &["--exclude-schema", "\""],
];

#[track_caller]
fn assert_refused(sandbox: &Sandbox, code: i32, arguments: &[&str]) {
    let in_front = [&["--json"], arguments].concat();
    let behind = [arguments, &["--json"]].concat();
    // Behind two dashes it would be the guarded command's.
    let ways = if arguments.contains(&"--") {
        vec![in_front]
    } else {
        vec![in_front, behind]
    };
    for all in ways {
        let outcome = sandbox.pgkeep(&all).run();
        assert_eq!(outcome.status.code(), Some(code), "{outcome}");
        let error = outcome.exit_error();
        let message = error["message"].as_str().unwrap();
        assert!(!message.trim().is_empty(), "{outcome}");
        let is_json =
            outcome.stdout.is_empty() || serde_json::from_slice::<Value>(&outcome.stdout).is_ok();
        assert!(is_json, "{outcome}");
    }
}

#[test]
fn every_wrong_command_line_ends_in_an_exit_error() {
    let sandbox = Sandbox::new();
    sandbox.write("taken.yaml", "retension: 3\n");
    for (code, arguments) in WRONG {
        assert_refused(&sandbox, *code, arguments);
    }
    for flags in WRONG_BACKUPS {
        let fixed = ["backup", "--url", "postgresql:///d", "--storage", "b"];
        assert_refused(&sandbox, 2, &[&fixed[..], flags].concat());
    }
}

/// Who forgets `--url` has given the password away to whoever reads the log.
#[test]
fn a_url_in_the_wrong_place_is_told_without_its_password() {
    let sandbox = Sandbox::new();
    let url = "postgresql://app:hunter2secret@db.example/shop";
    for arguments in [["backup", url], ["--json", url], ["--version=1", url]] {
        for runner in ["", "true"] {
            let run = sandbox.pgkeep(arguments).env("GITHUB_ACTIONS", runner);
            let outcome = run.run().expect(2);
            let said = format!("{}{}", outcome.stdout(), outcome.stderr());
            assert!(!said.contains("hunter2secret"), "{outcome}");
            assert!(!said.trim().is_empty());
        }
    }
}

#[test]
fn an_argument_behind_two_dashes_is_no_flag() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .pgkeep(["inspect", "--", "--json", "more"])
        .run()
        .expect(2);
    assert!(outcome.stderr().contains("error:"), "{outcome}");
    assert!(!outcome.stderr().contains("exit_error"), "{outcome}");
}

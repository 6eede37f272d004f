//! Words as people see them: the help of every command and the main errors, committed as text.
//!
//! A change of words changes a file, so it is seen in review. `UPDATE_EXPECT=1 cargo test --test it -- snapshots`
//! writes the files anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use expect_test::expect_file;

use crate::backup::{Real, Shop};
use crate::support::sandbox::{Outcome, Run};
use crate::support::{Sandbox, postgres};

/// Columns of the terminal that help is wrapped for.
const WIDTH: usize = 80;

/// Compares a text with its file; `UPDATE_EXPECT=1` writes the file instead.
fn assert_same(name: &str, text: &str) {
    let lines = text.lines().map(|line| format!("{}\n", line.trim_end()));
    expect_file![format!("{name}.txt")].assert_eq(&lines.collect::<String>());
}

/// A file that nothing is compared with any more is a word that nobody says.
fn assert_all_used(folder: &str, used: &BTreeSet<String>) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots");
    let files = fs::read_dir(place.join(folder)).unwrap();
    let found: BTreeSet<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|name| name.trim_end_matches(".txt").to_owned())
        .collect();
    assert_eq!(&found, used);
}

/// The commands below one, as its help lists them.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_is_as_committed() {
    let mut sandbox = Sandbox::new();
    sandbox.set("COLUMNS", WIDTH.to_string());
    let mut used = BTreeSet::new();
    let mut left: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = left.pop() {
        let name = [&["pgkeep".to_owned()], &command[..]].concat();
        let mut text = String::new();
        for flag in ["-h", "--help"] {
            let arguments = command.iter().map(String::as_str).chain([flag]);
            let outcome = sandbox.pgkeep(arguments).run().expect(0);
            text += &format!("$ {} {flag}\n{}\n", name.join(" "), outcome.stdout());
            if flag == "-h" {
                let below = commands(outcome.stdout()).into_iter();
                left.extend(below.map(|one| [&command[..], &[one]].concat()));
            }
        }
        let long = text.lines().find(|line| line.chars().count() > WIDTH);
        assert_eq!(long, None, "{}", name.join(" "));
        assert!(text.is_ascii(), "{}", name.join(" "));
        assert_same(&format!("help/{}", name.join("-")), &text);
        used.insert(name.join("-"));
    }
    assert!(used.len() > 25, "{used:?}");
    assert_all_used("help", &used);
}

/// What is different at each run: the place, ids, times, ports, digests.
fn constant(text: &str, sandbox: &Sandbox, more: &[(&str, &str)]) -> String {
    let root = sandbox.root().display().to_string();
    let mut text = text
        .replace(&format!("{root}/work"), "<folder>")
        .replace(&root, "<sandbox>")
        .replace(env!("CARGO_BIN_EXE_pgkeep"), "pgkeep");
    for (from, to) in more {
        text = text.replace(from, to);
    }
    for (shape, name) in [
        ("########T######Z-xxxx", "<time>"),
        ("####-##-##T##:##:##Z", "<time>"),
        ("#.# KiB", "<size>"),
        ("#.# s", "<time>"),
        (", # s old", ", <time> old"),
        (&"x".repeat(64)[..], "<SHA-256>"),
        (&"x".repeat(32)[..], "<digest>"),
    ] {
        text = without(&text, shape, name);
    }
    text
}

/// Replaces whatever has a shape: `#` is a digit, `x` a hex digit, all else itself.
fn without(text: &str, shape: &str, name: &str) -> String {
    let fits = |place: &[u8]| {
        place.len() >= shape.len()
            && place.iter().zip(shape.bytes()).all(|(&b, s)| match s {
                b'#' => b.is_ascii_digit(),
                b'x' => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
                _ => b == s,
            })
    };
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if fits(&bytes[at..]) {
            out.extend_from_slice(name.as_bytes());
            at += shape.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn variable_parts_are_replaced() {
    let text = "a 20260102T030405Z-7f3a b 2026-01-02T03:04:05Z";
    let times = without(text, "########T######Z-xxxx", "<time>");
    assert_eq!(times, "a <time> b 2026-01-02T03:04:05Z");
}

/// What the errors of one test were compared with.
struct Errors<'a> {
    sandbox: &'a Sandbox,
    replaced: Vec<(&'a str, &'a str)>,
    names: BTreeSet<String>,
}

impl<'a> Errors<'a> {
    fn of(sandbox: &'a Sandbox) -> Self {
        Self {
            sandbox,
            replaced: Vec::new(),
            names: BTreeSet::new(),
        }
    }

    fn check(&mut self, name: &str, code: i32, arguments: &[&str]) {
        self.run(name, code, arguments, self.sandbox.pgkeep(arguments));
    }

    fn run(&mut self, name: &str, code: i32, arguments: &[&str], run: Run<'_>) {
        let outcome: Outcome = run.run().expect(code);
        let quoted = arguments.iter().map(|argument| {
            if argument.contains(' ') {
                format!("'{argument}'")
            } else {
                (*argument).to_owned()
            }
        });
        let said = format!(
            "$ pgkeep {}\n{}{}exit code {code}\n",
            quoted.collect::<Vec<_>>().join(" "),
            outcome.stdout(),
            outcome.stderr()
        );
        let text = constant(&said, self.sandbox, &self.replaced);
        assert_same(&format!("errors/{name}"), &text);
        self.names.insert(name.to_owned());
    }
}

const CONFIG: &str = "\
databases:
  shop:
    url: postgresql://app@db.invalid/shop
    required_tables: [users
storages:
  local:
    url: ./backups
";

const BAD_CONFIG: &str = "\
databases:
  shop:
    url: ${SHOP_DATABASE_URL}
    retention:
      keep_dayly: 7
    max_age: soon
storages:
  offsite:
    region: eu-central-1
";

const GOOD_CONFIG: &str = "\
databases:
  shop:
    url: postgresql://app@db.invalid/shop
storages:
  local:
    url: ./backups
";

/// Every error of this module, by the test that makes it.
const WITHOUT_SERVER: [&str; 29] = [
    "backup-program-missing",
    "backup-required-table-missing",
    "backup-without-database",
    "backup-without-storage",
    "config-bad",
    "config-file-exists",
    "config-file-missing",
    "config-not-yaml",
    "config-unknown-database",
    "extract-unknown-table",
    "get-file-exists",
    "guard-no-such-command",
    "inspect-incomplete",
    "inspect-no-such-file",
    "list-no-folder",
    "pin-bad-id",
    "prune-without-policy",
    "restore-without-target",
    "retention-without-policy",
    "show-no-backup",
    "show-unknown-id",
    "status-stale",
    "usage-long-list-of-values",
    "usage-missing-argument",
    "usage-no-command",
    "usage-unknown-command",
    "usage-unknown-flag",
    "usage-unknown-value",
    "verify-damaged",
];
const WITH_SERVER: [&str; 6] = [
    "backup-no-such-database",
    "backup-unreachable",
    "backup-wrong-password",
    "guard-command-failed",
    "restore-damaged",
    "restore-target-exists",
];

fn assert_checked(errors: &Errors<'_>, names: &[&str]) {
    let names: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(errors.names, names);
}

#[test]
fn every_snapshot_of_an_error_is_made() {
    let names = WITHOUT_SERVER.iter().chain(&WITH_SERVER);
    assert_all_used("errors", &names.map(|&name| name.to_owned()).collect());
}

#[test]
fn errors_without_a_server_are_as_committed() {
    let mut shop = Shop::new();
    shop.sandbox.set("COLUMNS", WIDTH.to_string());
    shop.backup(&[]).expect(0);
    let sandbox = &shop.sandbox;
    let bin = shop.fake.bin().display().to_string();
    let mut errors = Errors::of(sandbox);

    errors.check("usage-no-command", 2, &["config"]);
    errors.check("usage-unknown-command", 2, &["snapshots"]);
    errors.check("usage-unknown-flag", 2, &["list", "--storages", "x"]);
    errors.check("usage-unknown-value", 2, &["backup", "--trigger", "mood"]);
    errors.check(
        "usage-long-list-of-values",
        2,
        &["deploy", "print", "cronjob"],
    );
    errors.check("usage-missing-argument", 2, &["inspect"]);
    errors.check("restore-without-target", 2, &["restore", "latest"]);

    sandbox.write("bad.yaml", BAD_CONFIG);
    sandbox.write("broken.yaml", CONFIG);
    sandbox.write("pgkeep.yaml", GOOD_CONFIG);
    errors.check("config-bad", 2, &["-c", "bad.yaml", "backup"]);
    errors.check(
        "config-not-yaml",
        2,
        &["-c", "broken.yaml", "config", "show"],
    );
    errors.check("config-file-missing", 2, &["-c", "none.yaml", "list"]);
    errors.check("config-unknown-database", 10, &["-d", "shopp", "backup"]);
    errors.check("config-file-exists", 25, &["config", "init"]);
    errors.check("prune-without-policy", 25, &["prune"]);
    fs::remove_file(sandbox.path("pgkeep.yaml")).unwrap();

    let without_url = sandbox.pgkeep(["backup", "--storage", "b"]);
    let run = without_url.without_env("DATABASE_URL");
    errors.run(
        "backup-without-database",
        2,
        &["backup", "--storage", "b"],
        run,
    );
    errors.check("backup-without-storage", 2, &["backup"]);
    let missing = ["backup", "--storage", "b", "--bin-dir", "/nowhere"];
    errors.check("backup-program-missing", 26, &missing);
    let flags = [
        "backup",
        "--storage",
        "b",
        "--require",
        "nope",
        "--bin-dir",
        &bin,
    ];
    errors.check("backup-required-table-missing", 21, &flags);

    errors.check(
        "list-no-folder",
        10,
        &["list", "--storage", "no-such-folder"],
    );
    sandbox.write("empty/README", "");
    errors.check("show-no-backup", 10, &["show", "--storage", "empty"]);
    let unknown = ["show", "shop-20260102T030405Z-7f3a", "--storage", "backups"];
    errors.check("show-unknown-id", 10, &unknown);
    errors.check(
        "pin-bad-id",
        10,
        &["pin", "shop", "why", "--storage", "backups"],
    );
    errors.check(
        "status-stale",
        24,
        &["status", "--max-age", "26h", "--storage", "empty"],
    );
    let policy = ["retention", "--simulate", "0 3 * * *"];
    errors.check("retention-without-policy", 25, &policy);
    let flags = ["get", "-o", "shop.sql.gz", "--storage", "backups"];
    sandbox.pgkeep(flags).run().expect(0);
    errors.check("get-file-exists", 25, &flags);
    let flags = [
        "extract",
        "latest",
        "--table",
        "nope",
        "--format",
        "csv",
        "--storage",
        "backups",
    ];
    errors.check("extract-unknown-table", 10, &flags);

    errors.check("inspect-no-such-file", 2, &["inspect", "none.sql"]);
    sandbox.write("half.sql", "--\n-- PostgreSQL database dump\n--\n");
    errors.check("inspect-incomplete", 21, &["inspect", "half.sql"]);

    errors.check(
        "guard-no-such-command",
        127,
        &["guard", "--", "no-such-command"],
    );
    damage(&shop.folder().join("shop"));
    errors.check("verify-damaged", 23, &["verify", "--storage", "backups"]);
    assert_checked(&errors, &WITHOUT_SERVER);
}

/// Changes the first byte of the stored dump: where others are depends on how the database is called.
fn damage(folder: &Path) {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut dumps = files.filter(|path| path.to_string_lossy().ends_with(".sql.gz"));
    let path = dumps.next().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 0x20;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn errors_of_a_server_are_as_committed() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE TABLE users (id int)");
    let port = server.port().to_string();
    let real = Real::new(database.url());
    let mut errors = Errors::of(&real.sandbox);
    errors.replaced = vec![(&port, "<port>"), (database.name(), "<database>")];
    let flags = ["backup", "--storage", "b", "--attempts", "1"];
    let with = |url: String| real.sandbox.pgkeep(flags).env("DATABASE_URL", url);
    let run = with(server.url_as("postgres", "wrong", database.name()));
    errors.run("backup-wrong-password", 12, &flags, run);
    let run = with(database.url().replace(database.name(), "no_such_database"));
    errors.run("backup-no-such-database", 20, &flags, run);
    let run = with("postgresql://app@127.0.0.1:1/shop".to_owned());
    errors.run("backup-unreachable", 20, &flags, run);
    real.backup(&["--name", "shop"]).expect(0);
    let flags = ["restore", "--into", database.name(), "--storage", "backups"];
    errors.check("restore-target-exists", 25, &flags);
    let flags = [
        "guard",
        "--storage",
        "backups",
        "--name",
        "shop",
        "--max-age",
        "10m",
        "--",
        "false",
    ];
    errors.check("guard-command-failed", 1, &flags);
    damage(&real.folder().join("shop"));
    let flags = ["restore", "--into", "shop_restored", "--storage", "backups"];
    errors.check("restore-damaged", 23, &flags);
    assert_checked(&errors, &WITH_SERVER);
}

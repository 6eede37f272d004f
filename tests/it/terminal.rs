//! What people see on a terminal: no line of a report is longer than the terminal is wide, whatever databases and tables are
//! called; sizes agree; signs and colours are those that the terminal knows.

use std::ffi::OsStr;

use crate::backup::{Real, Shop};
use crate::support::sandbox::Outcome;
use crate::support::{Sandbox, postgres};

const DATABASE: &str = "customer_orders_of_the_northern_region_2026";
const TABLE: &str = "a_table_with_a_name_that_is_as_long_as_names_may_be_in_postgres";

/// Runs the built binary on a terminal of so many columns. Standard error is none of the report.
fn on_terminal(sandbox: &Sandbox, columns: usize, arguments: &str, more: &str) -> Outcome {
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let shell = format!("stty cols {columns} rows 24; {more} exec {program} {arguments}");
    let run = sandbox.program("script", ["-qec", &shell, "/dev/null"]);
    run.env("SHELL", "/bin/sh").env("TERM", "xterm").run()
}

fn lines(outcome: &Outcome) -> Vec<String> {
    let text = String::from_utf8_lossy(&outcome.stdout).replace('\r', "");
    text.lines().map(str::to_owned).collect()
}

/// `script` of util-linux; the one of BSD has other flags.
fn has_terminal() -> bool {
    let has = cfg!(target_os = "linux") && which::which(OsStr::new("script")).is_ok();
    if !has {
        println!("skipped: there is no `script` of util-linux to open a terminal with");
    }
    has
}

#[test]
fn no_line_of_a_report_is_wider_than_the_terminal() {
    let Some(server) = postgres().filter(|_| has_terminal()) else {
        return;
    };
    let database = server.database();
    database.sql(&format!(
        "CREATE SCHEMA \"a schema with blanks\"; CREATE TABLE {TABLE} (id int PRIMARY KEY); \
         CREATE TABLE \"a schema with blanks\".orders (id int); INSERT INTO {TABLE} SELECT generate_series(1, 100000)"
    ));
    let real = Real::new(database.url());
    let sandbox = &real.sandbox;
    let config = format!(
        "databases:\n  {DATABASE}:\n    url: ${{DATABASE_URL}}\n    max_age: 26h\n    required_tables: [{TABLE}]\n    \
         retention: {{keep_last: 1, keep_daily: 7, keep_weekly: 4, keep_monthly: 12, timezone: America/Argentina/Buenos_Aires}}\n\
         storages:\n  the_local_storage: {{url: ./backups}}\n  the_other_storage: {{url: ./elsewhere}}\n"
    );
    sandbox.write("pgkeep.yaml", config);
    for columns in [80, 76, 200] {
        for command in [
            "--progress never backup --no-prune",
            "--progress never backup --pin 'kept because the migration of March may have to be looked at again' --no-prune",
            "list",
            "show",
            "status",
            "prune --dry-run",
            "check",
            "verify",
            "sync --dry-run",
            "retention --simulate '0 3 * * *' --for 40d",
            "retention --keep-hourly 9 --keep-daily 3 --simulate '0 * * * *' --for 3d",
            "deploy list",
            "get --force -o a-file.sql.gz",
            "inspect a-file.sql.gz",
            "list --storage ./empty",
        ] {
            let outcome = on_terminal(sandbox, columns, command, "exec 2>/dev/null;");
            let lines = lines(&outcome);
            let is_empty = command.ends_with("./empty");
            assert!(is_empty || lines.len() > 1, "{command}: {outcome}");
            for line in &lines {
                let length = line.chars().count();
                // A name that is longer than the line is not broken: half of it could not be copied.
                let is_name = !line.trim().trim_end_matches(" \\").contains(' ');
                let fits = length <= columns || is_name;
                assert!(fits, "{columns}: {command}: {line}\n{outcome}");
                assert_eq!(line.trim_end(), line, "{command}: padded");
            }
        }
    }
    // In a pipe every row is one line.
    let piped = sandbox.pgkeep(["show"]).run().expect(0);
    let is_row = |line: &&str| line.contains(TABLE) && line.contains("100,000");
    let row = piped.stdout().lines().find(is_row);
    assert!(row.is_some_and(|row| row.len() > 80), "{piped}");
}

#[test]
fn a_backup_has_one_size() {
    let shop = Shop::new();
    let bin = shop.fake.bin().display().to_string();
    let more = [
        "--pin",
        "for the test",
        "--storage",
        "backups",
        "--bin-dir",
        &bin,
    ];
    let arguments = [&["backup"], &more[..]].concat();
    let backup = shop.sandbox.pgkeep(arguments).run().expect(0);
    let first = backup.stdout().lines().next().unwrap();
    let (_, rest) = first.split_once(": ").unwrap();
    let (size, _) = rest.split_once(" in ").unwrap();
    let list = shop.over(&["list"]).run().expect(0);
    assert!(
        list.stdout().contains(&format!(" {size} ")),
        "{backup}{list}"
    );
    let status = shop.over(&["status"]).run().expect(0);
    assert!(status.stdout().contains(size), "{backup}{status}");
}

#[test]
fn the_command_that_restores_is_one_when_it_is_pasted() {
    if !has_terminal() {
        return;
    }
    let shop = Shop::new();
    shop.backup(&[]).expect(0);
    let piped = shop.over(&["show"]).run().expect(0);
    let command = piped
        .stdout()
        .lines()
        .find(|line| line.contains("createdb"));
    let shown = on_terminal(&shop.sandbox, 60, "show --storage backups", "");
    let lines = lines(&shown);
    let start = lines
        .iter()
        .position(|line| line.contains("createdb"))
        .unwrap();
    let mut pasted = String::new();
    for line in &lines[start..] {
        let Some(part) = line.strip_suffix('\\') else {
            pasted += line.trim();
            break;
        };
        pasted += &format!("{} ", part.trim());
    }
    assert_eq!(command.map(str::trim), Some(pasted.as_str()), "{shown}");
}

#[test]
fn only_ascii_is_printed_where_the_locale_knows_no_more() {
    let sandbox = Sandbox::new();
    let retention = ["retention", "--keep-daily", "3", "--simulate", "0 3 * * *"];
    let run = |name: &str, value: &str| {
        let run = sandbox.pgkeep(retention).env(name, value);
        run.run().expect(0)
    };
    assert!(run("LC_ALL", "C").stdout().is_ascii());
    assert!(run("LANG", "de_DE.ISO-8859-1").stdout().is_ascii());
    assert!(run("LANG", "de_DE.UTF-8").stdout().contains('·'));
    // JSON is UTF-8 by its own rules.
    for arguments in [&["--help"][..], &["guard", "--", "true"], &["backup"]] {
        let outcome = sandbox.pgkeep(arguments).run();
        let said = [&outcome.stdout[..], &outcome.stderr].concat();
        assert!(said.is_ascii(), "{outcome}");
    }
}

#[test]
fn colours_are_as_the_environment_says() {
    let sandbox = Sandbox::new();
    let has_colours = |bytes: &[u8]| bytes.contains(&0x1b);
    for (variables, expected) in [
        (&[][..], false),
        (&[("CLICOLOR_FORCE", "1")], true),
        (&[("FORCE_COLOR", "1")], true),
        (&[("FORCE_COLOR", "0")], false),
        (&[("FORCE_COLOR", "1"), ("NO_COLOR", "1")], false),
    ] {
        for arguments in [&["list"][..], &["nope"]] {
            let mut run = sandbox.pgkeep(arguments);
            for (name, value) in variables {
                run = run.env(name, value);
            }
            let outcome = run.run().expect(2);
            let found = has_colours(&outcome.stderr);
            assert_eq!(found, expected, "{variables:?}: {outcome}");
        }
    }
    if !has_terminal() {
        return;
    }
    for (more, expected) in [
        ("", true),
        ("TERM=dumb", false),
        ("NO_COLOR=1", false),
        ("CLICOLOR=0", false),
    ] {
        let more = format!("export {more};").replace("export ;", "");
        let outcome = on_terminal(&sandbox, 80, "list", &more);
        assert_eq!(has_colours(&outcome.stdout), expected, "{more}: {outcome}");
    }
}

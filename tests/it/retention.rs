//! `pgkeep retention`, as a user asks what a policy would keep.

use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::support::sandbox::Outcome;

const NOW: [&str; 2] = ["--now", "2026-02-01T12:00:00Z"];

fn retention(sandbox: &Sandbox, arguments: &[&str]) -> Outcome {
    let all = [&["retention"], arguments, &NOW].concat();
    sandbox.pgkeep(all).run()
}

/// The times of one list of the document.
fn times<'a>(document: &'a Value, list: &str) -> Vec<&'a str> {
    let entries = document[list].as_array().unwrap().iter();
    entries
        .map(|entry| entry["time"].as_str().unwrap())
        .collect()
}

#[test]
fn json_has_instants_in_the_order_given_with_all_reasons() {
    let sandbox = Sandbox::new();
    let list = "# nightly\n2026-01-05T03:00:00Z\n2026-01-16T00:30:00+01:00\n\n2026-01-16T03:00:00Z\n\
                2026-01-12T20:00:00-05:00\n2027-01-01T00:00:00Z\n";
    sandbox.write("times.txt", list);
    let policy = ["--keep-daily", "2", "--keep-weekly", "3", "--json"];
    let expected = json!({
        "keep": [
            {"time": "2026-01-05T03:00:00Z", "tiers": ["weekly"],
             "reasons": ["newest of 2026-W02: weekly 2 of 3"]},
            {"time": "2026-01-15T23:30:00Z", "tiers": ["daily"],
             "reasons": ["newest of 2026-01-15: daily 2 of 2"]},
            {"time": "2026-01-16T03:00:00Z", "tiers": ["daily", "weekly"],
             "reasons": ["newest of 2026-01-16: daily 1 of 2", "newest of 2026-W03: weekly 1 of 3", "newest good"]},
            {"time": "2027-01-01T00:00:00Z", "tiers": [], "reasons": ["future start, not counted"]},
        ],
        "remove": [
            {"time": "2026-01-13T01:00:00Z", "tiers": [], "reasons": ["no rule keeps it"]},
        ],
    });
    let from_file = retention(&sandbox, &[&policy[..], &["--from", "times.txt"]].concat());
    assert_eq!(from_file.expect(0).json(), expected);
    let arguments = [&["retention"], &policy[..], &["--from", "-"], &NOW].concat();
    let from_stdin = sandbox.pgkeep(arguments).stdin(list).run().expect(0);
    assert_eq!(from_stdin.json(), expected);
    let words = "warning: 1 time is after 2026-02-01T12:00:00Z and not counted";
    assert!(from_stdin.stderr().contains(words), "{from_stdin}");
}

#[test]
fn zone_decides_what_a_day_is() {
    let sandbox = Sandbox::new();
    sandbox.write("times.txt", "2026-01-15T22:30:00Z\n2026-01-15T23:30:00Z\n");
    for (zone, kept) in [("UTC", 1), ("Europe/Berlin", 2), ("Asia/Kolkata", 1)] {
        let arguments = [
            "--keep-daily",
            "2",
            "--timezone",
            zone,
            "--from",
            "times.txt",
            "--json",
        ];
        let document = retention(&sandbox, &arguments).expect(0).json();
        // With one day only the oldest is kept as well; the reasons tell it from a day of its own.
        let reasons = document["keep"][0]["reasons"].to_string();
        assert_eq!(
            reasons.contains("newest of 2026-01-15"),
            kept == 2,
            "{zone}: {reasons}"
        );
    }
}

#[test]
fn a_schedule_is_simulated_up_to_now() {
    let sandbox = Sandbox::new();
    let arguments = [
        "--keep-daily",
        "7",
        "--keep-weekly",
        "4",
        "--keep-monthly",
        "12",
        "--timezone",
        "Europe/Berlin",
        "--simulate",
        "0 3 * * *",
        "--for",
        "2y",
        "--json",
    ];
    let document = retention(&sandbox, &arguments).expect(0).json();
    let (keep, remove) = (times(&document, "keep"), times(&document, "remove"));
    assert_eq!((keep.len(), remove.len()), (20, 711));
    assert_eq!(keep.last(), Some(&"2026-02-01T02:00:00Z"));
    assert_eq!(remove.first(), Some(&"2024-02-02T02:00:00Z"));
    // 03:00 in Berlin is an hour earlier in summer.
    assert!(keep.contains(&"2025-08-31T01:00:00Z"), "{keep:?}");
}

#[test]
fn a_schedule_runs_once_in_the_night_of_each_change_of_the_clock() {
    let sandbox = Sandbox::new();
    // 02:30 is missing on the 29th of March and comes twice on the 25th of October.
    let arguments = [
        "retention",
        "--keep-last",
        "1000",
        "--timezone",
        "Europe/Berlin",
        "--simulate",
        "30 2 * * *",
        "--for",
        "1y",
        "--now",
        "2026-12-01T00:00:00Z",
        "--json",
    ];
    let document = sandbox.pgkeep(arguments).run().expect(0).json();
    let keep = times(&document, "keep");
    assert_eq!(keep.len(), 365);
    let on = |day: &str| -> Vec<&str> {
        keep.iter()
            .copied()
            .filter(|time| time.starts_with(day))
            .collect()
    };
    assert_eq!(on("2026-03-29").len(), 1, "{:?}", on("2026-03-29"));
    assert_eq!(on("2026-10-25").len(), 1, "{:?}", on("2026-10-25"));
}

#[test]
fn ten_thousand_times_are_one_page() {
    let sandbox = Sandbox::new();
    let arguments = [
        "--keep-daily",
        "7",
        "--keep-weekly",
        "4",
        "--keep-monthly",
        "12",
        "--keep-yearly",
        "10",
        "--simulate",
        "0 */2 * * *",
        "--for",
        "10000h",
    ];
    let run = retention(&sandbox, &arguments).expect(0);
    let said = run.stdout();
    assert!(
        said.lines().count() < 60 && said.lines().all(|line| line.chars().count() < 200),
        "{said}"
    );
    assert!(said.ends_with(" kept, 4,978 removed\n"), "{said}");
    let run = retention(
        &sandbox,
        &[
            "--keep-last",
            "9999",
            "--simulate",
            "0 * * * *",
            "--for",
            "10000h",
        ],
    )
    .expect(0);
    assert!(
        run.stdout()
            .contains("and 9,899 older ones; `--json` lists all\n"),
        "{run}"
    );
    assert!(run.stdout().lines().count() < 150, "{run}");
}

#[test]
fn calendar_shows_what_stays() {
    let sandbox = Sandbox::new();
    let policy = [
        "--keep-daily",
        "3",
        "--keep-weekly",
        "3",
        "--keep-monthly",
        "6",
        "--timezone",
        "Europe/Berlin",
    ];
    // Nothing was backed up from April to August and in half of January.
    let mut list = String::new();
    for (month, days) in [
        ("2025-03", 28..31),
        ("2025-09", 1..31),
        ("2025-10", 1..32),
        ("2025-11", 1..31),
        ("2025-12", 1..32),
        ("2026-01", 16..32),
    ] {
        days.for_each(|day| list += &format!("{month}-{day:02}T04:00:00+01:00\n"));
    }
    sandbox.write("times.txt", list);
    let run = retention(&sandbox, &[&policy[..], &["--from", "times.txt"]].concat()).expect(0);
    let expected = "\
keep 3 daily, 3 weekly, 6 monthly; days are counted in Europe/Berlin

         1       5        10        15        20        25        30
2025-03                                                        . . M
2025-04 to 2025-08: no backups
2025-09  . . . . . . . . . . . . . . . . . . . . . . . . . . . . . M
2025-10  . . . . . . . . . . . . . . . . . . . . . . . . . . . . . . M
2025-11  . . . . . . . . . . . . . . . . . . . . . . . . . . . . . M
2025-12  . . . . . . . . . . . . . . . . . . . . . . . . . . . . . . M
2026-01                                . . W . . . . . . W . . . D D M

M monthly   W weekly   D daily   . removed

day  kept                       because
Sat  2026-01-31T04:00:00+01:00  newest of 2026-01-31: daily 1 of 3, newest of 2026-W05: weekly 1 of 3, newest of 2026-01: monthly 1 of 6, newest good
Fri  2026-01-30T04:00:00+01:00  newest of 2026-01-30: daily 2 of 3
Thu  2026-01-29T04:00:00+01:00  newest of 2026-01-29: daily 3 of 3
Sun  2026-01-25T04:00:00+01:00  newest of 2026-W04: weekly 2 of 3
Sun  2026-01-18T04:00:00+01:00  newest of 2026-W03: weekly 3 of 3
Wed  2025-12-31T04:00:00+01:00  newest of 2025-12: monthly 2 of 6
Sun  2025-11-30T04:00:00+01:00  newest of 2025-11: monthly 3 of 6
Fri  2025-10-31T04:00:00+01:00  newest of 2025-10: monthly 4 of 6
Tue  2025-09-30T05:00:00+02:00  newest of 2025-09: monthly 5 of 6
Sun  2025-03-30T05:00:00+02:00  newest of 2025-03: monthly 6 of 6

10 kept, 131 removed
";
    assert_eq!(run.stdout(), expected);
}

/// The picture in the book is what its command prints.
#[test]
fn the_book_shows_a_real_calendar() {
    const PAGE: &str = include_str!("../../docs/src/retention.md");
    let (_, section) = PAGE.split_once("## Look before you set it\n").unwrap();
    let mut blocks = section.split("```").skip(1).step_by(2);
    let command = blocks.next().unwrap().strip_prefix("sh run\n").unwrap();
    let picture = blocks.next().unwrap().strip_prefix("text\n").unwrap();
    let sandbox = Sandbox::new();
    let flags = command
        .trim()
        .strip_prefix("pgkeep ")
        .unwrap()
        .replace("'0 3 * * *'", "@")
        .replace(" \\\n ", " ");
    let arguments = flags
        .split_whitespace()
        .map(|one| one.replace('@', "0 3 * * *"));
    let utf8 = sandbox.pgkeep(arguments).env("LANG", "C.UTF-8");
    let run = utf8.run().expect(0);
    let (calendar, list) = run.stdout().split_once("\nday  kept ").unwrap();
    let (_, sum) = list.rsplit_once("\n\n").unwrap();
    assert_eq!(picture, format!("{calendar}\n{sum}"));
}

#[test]
fn a_few_days_are_drawn_by_the_hour() {
    let sandbox = Sandbox::new();
    let arguments = [
        "--keep-hourly",
        "5",
        "--keep-last",
        "7",
        "--simulate",
        "30 */6 * * *",
        "--for",
        "3d",
    ];
    let run = retention(&sandbox, &arguments).expect(0);
    let expected = "\
keep 7 last, 5 hourly; days are counted in UTC

                0     3     6     9    12    15    18    21
Thu 2026-01-29                          .           .
Fri 2026-01-30  .           .           .           L
Sat 2026-01-31  L           H           H           H
Sun 2026-02-01  H           H

H hourly   L last   . removed

day  kept                       because
Sun  2026-02-01T06:30:00+00:00  last 1 of 7, newest of 2026-02-01T06: hourly 1 of 5, newest good
Sun  2026-02-01T00:30:00+00:00  last 2 of 7, newest of 2026-02-01T00: hourly 2 of 5
Sat  2026-01-31T18:30:00+00:00  last 3 of 7, newest of 2026-01-31T18: hourly 3 of 5
Sat  2026-01-31T12:30:00+00:00  last 4 of 7, newest of 2026-01-31T12: hourly 4 of 5
Sat  2026-01-31T06:30:00+00:00  last 5 of 7, newest of 2026-01-31T06: hourly 5 of 5
Sat  2026-01-31T00:30:00+00:00  last 6 of 7
Fri  2026-01-30T18:30:00+00:00  last 7 of 7

7 kept, 5 removed
";
    assert_eq!(run.stdout(), expected);
}

#[test]
fn empty_policy_is_refused_with_the_next_move() {
    let sandbox = Sandbox::new();
    for rules in [&[][..], &["--keep-daily", "0"], &["--timezone", "UTC"]] {
        let arguments = [rules, &["--simulate", "0 3 * * *"]].concat();
        let run = retention(&sandbox, &arguments).expect(25);
        assert_eq!(
            run.stderr(),
            "error: will not judge any backup: the retention policy is empty: it has no rule that keeps a backup; \
             nothing was removed\n\
             hint: give at least one rule, such as `--keep-daily 7`, or `retention` in the configuration\n"
        );
        let run = retention(&sandbox, &[&arguments[..], &["--json"]].concat()).expect(25);
        assert_eq!(
            (run.exit_error()["id"].as_str(), run.stdout()),
            (Some("empty_policy"), "")
        );
    }
}

#[test]
fn without_rules_the_configuration_has_the_policy() {
    let sandbox = Sandbox::new();
    let database = |name: &str, rest: &str| {
        format!("  {name}:\n    url: postgres://db/{name}\n    storages: [local]\n{rest}")
    };
    let file =
        |databases: &str| format!("storages: {{local: {{url: ./b}}}}\ndatabases:\n{databases}");
    let shop = database(
        "shop",
        "    retention: {keep_last: 2, timezone: Europe/Berlin}\n",
    );
    sandbox.write("pgkeep.yaml", file(&shop));
    let ask = ["--simulate", "0 3 * * *", "--for", "10d", "--json"];
    let kept = |run: Outcome| times(&run.expect(0).json(), "keep").join(" ");
    assert_eq!(
        kept(retention(&sandbox, &ask)),
        "2026-01-31T02:00:00Z 2026-02-01T02:00:00Z"
    );
    let in_utc = [&["--timezone", "UTC"], &ask[..]].concat();
    assert_eq!(
        kept(retention(&sandbox, &in_utc)),
        "2026-01-31T03:00:00Z 2026-02-01T03:00:00Z"
    );
    // Flags are a policy of their own.
    let flags = [&["--keep-last", "1"], &ask[..]].concat();
    assert_eq!(kept(retention(&sandbox, &flags)), "2026-02-01T03:00:00Z");

    sandbox.write("pgkeep.yaml", file(&(shop + &database("blog", ""))));
    let run = retention(&sandbox, &ask).expect(2);
    assert_eq!(run.exit_error()["id"], "database_needed");
    let of = |name| retention(&sandbox, &[&["-d", name], &ask[..]].concat());
    assert_eq!(
        kept(of("shop")),
        "2026-01-31T02:00:00Z 2026-02-01T02:00:00Z"
    );
    assert_eq!(of("blog").expect(25).exit_error()["id"], "empty_policy");
    assert_eq!(of("shpo").expect(10).exit_error()["id"], "no_such_database");
}

#[test]
fn wrong_input_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.txt", "2026-01-16T03:00:00Z\nyesterday\n\n2026-01-16\n");
    sandbox.write("good.txt", "2026-01-16T03:00:00Z\n");
    let daily = ["--keep-daily", "7"];
    for (arguments, words) in [
        (
            &["--from", "bad.txt"][..],
            "`bad.txt`: line 2: `yesterday` is not an RFC 3339 time",
        ),
        (
            &["--from", "bad.txt"],
            "\n  line 4: `2026-01-16` is not an RFC 3339 time",
        ),
        (
            &["--from", "none.txt"],
            "cannot read the times in `none.txt`: No such file",
        ),
        (
            &["--from", "."],
            "cannot read the times in `.`: Is a directory",
        ),
        (&[], "hint: `--simulate '0 3 * * *' --for 2y`"),
        (
            &["--from", "good.txt", "--simulate", "0 3 * * *"],
            "cannot be used with",
        ),
        (
            &["--simulate", "0 3 * *"],
            "cannot read `--simulate 0 3 * *`: ",
        ),
        (
            &["--simulate", "0 0 3 * * *"],
            "cannot read `--simulate 0 0 3 * * *`: ",
        ),
        (
            &["--simulate", "0 25 * * *"],
            "cannot read `--simulate 0 25 * * *`: ",
        ),
        (
            &["--simulate", "0 3 * * *", "--for", "soon"],
            "cannot read `--for soon`: it must be a length of time",
        ),
        (
            &["--simulate", "0 3 * * *", "--for", "0d"],
            "it must be positive",
        ),
        (
            &["--simulate", "* * * * *", "--for", "20y"],
            "it has more than 1,000,000 times",
        ),
        (
            &["--from", "good.txt", "--timezone", "Berlin"],
            "cannot read `--timezone Berlin`: it must be an IANA name",
        ),
        (
            &["--from", "good.txt", "--keep-within", "soon"],
            "cannot read `--keep-within soon`: it must be a length",
        ),
        (
            &["--from", "good.txt", "--keep-weekly", "few"],
            "invalid value 'few'",
        ),
    ] {
        let run = retention(&sandbox, &[&daily[..], arguments].concat()).expect(2);
        assert!(
            run.stderr().contains(words) && run.stdout().is_empty(),
            "{words}\n{run}"
        );
    }
    let arguments = [
        "retention",
        "--keep-daily",
        "7",
        "--from",
        "good.txt",
        "--now",
        "today",
    ];
    let run = sandbox.pgkeep(arguments).run().expect(2);
    assert!(
        run.stderr()
            .contains("cannot read `--now today`: it is not an RFC 3339 time"),
        "{run}"
    );
}

#[test]
fn nothing_to_judge_is_an_empty_answer() {
    let sandbox = Sandbox::new();
    sandbox.write("none.txt", "# none yet\n");
    let arguments = ["--keep-daily", "7", "--from", "none.txt"];
    let run = retention(&sandbox, &arguments).expect(0);
    assert!(
        run.stdout().ends_with("\nthere are no times to judge\n"),
        "{run}"
    );
    let run = retention(&sandbox, &[&arguments[..], &["--json"]].concat()).expect(0);
    assert_eq!(run.json(), json!({"keep": [], "remove": []}));
}

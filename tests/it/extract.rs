//! `pgkeep extract`: rows come out as they were dumped, from backups and files, and never as good when they are not.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::backup::Shop;
use crate::support::sandbox::Outcome;
use crate::support::scripted_s3::ScriptedS3;
use crate::support::{Sandbox, data, postgres, processes};
use crate::verify::{ROWS, TABLES, dump};

const NASTY: &str = r#"--
-- PostgreSQL database dump
--

SET client_encoding = 'UTF8';

CREATE SCHEMA billing;

CREATE TABLE billing."Invoice Lines" (
    id bigint NOT NULL,
    price numeric(20,4),
    paid boolean DEFAULT false,
    body jsonb,
    raw bytea,
    tags text[],
    "no""te" text
);

CREATE TABLE public.empty (
    id integer
);

CREATE TABLE public.parts (
    id integer
)
PARTITION BY RANGE (id);

COPY billing."Invoice Lines" (id, price, paid, body, raw, tags, "no""te") FROM stdin;
9007199254740993	0.1000	t	{"a": [1, 2.50]}	\\xdeadbeef	{a,"b c"}	tab\there, "quoted"\nline
2	NaN	f	\N	\N	\N	
3	\N	\N	null	\\x	{}	\N
\.

COPY public.empty (id) FROM stdin;
\.

--
-- PostgreSQL database dump complete
--

"#;

const LINES: &str = "billing.\"Invoice Lines\"";

fn stored(text: &str) -> Shop {
    let mut shop = Shop::new();
    shop.prints(text);
    shop.backup(&[]).expect(0);
    shop
}

fn extract(shop: &Shop, table: &str, format: &str, more: &[&str]) -> Outcome {
    let fixed = [
        "--json", "extract", "latest", "--table", table, "--format", format,
    ];
    let all: Vec<&str> = fixed.iter().chain(more).copied().collect();
    shop.over(&all).run()
}

#[test]
fn a_table_comes_out_in_every_format() {
    let shop = stored(NASTY);
    let jsonl = extract(&shop, LINES, "jsonl", &[]).expect(0);
    let first = r#"{"id":9007199254740993,"price":0.1000,"paid":true,"body":{"a": [1, 2.50]},"raw":"\\xdeadbeef","tags":"{a,\"b c\"}","no\"te":"tab\there, \"quoted\"\nline"}"#;
    let second =
        r#"{"id":2,"price":"NaN","paid":false,"body":null,"raw":null,"tags":null,"no\"te":""}"#;
    let third =
        r#"{"id":3,"price":null,"paid":null,"body":null,"raw":"\\x","tags":"{}","no\"te":null}"#;
    assert_eq!(
        jsonl.stdout().lines().collect::<Vec<_>>(),
        [first, second, third]
    );
    let csv = extract(&shop, LINES, "csv", &[]).expect(0);
    let expected = "id,price,paid,body,raw,tags,\"no\"\"te\"\r\n\
        9007199254740993,0.1000,t,\"{\"\"a\"\": [1, 2.50]}\",\\xdeadbeef,\"{a,\"\"b c\"\"}\",\"tab\there, \"\"quoted\"\"\nline\"\r\n\
        2,NaN,f,,,,\"\"\r\n\
        3,,,null,\\x,{},\r\n";
    assert_eq!(csv.stdout(), expected);
    let sql = extract(&shop, LINES, "sql", &[]).expect(0);
    let copy = "COPY \"billing\".\"Invoice Lines\" (\"id\", \"price\", \"paid\", \"body\", \"raw\", \"tags\", \"no\"\"te\") FROM stdin;\n";
    assert!(
        sql.stdout()
            .starts_with("BEGIN;\nSET client_encoding = 'UTF8';\n"),
        "{sql}"
    );
    let rows = sql.stdout().split_once(copy).unwrap().1;
    let dumped = NASTY
        .split_once("FROM stdin;\n")
        .unwrap()
        .1
        .split_once("\\.\n")
        .unwrap()
        .0;
    assert_eq!(rows, format!("{dumped}\\.\nCOMMIT;\n"));
}

#[test]
fn only_the_rows_that_were_asked_for() {
    let shop = stored(NASTY);
    for (more, ids) in [
        (&["--where-column", "id=2"][..], &["2"][..]),
        (&["--where-column", "paid=t"], &["9007199254740993"]),
        (&["--where-column", "\"no\"\"te\"="], &["2"]),
        (&["--where-null", "raw"], &["2"]),
        (
            &["--where-null", "PRICE", "--where-column", "tags={}"],
            &["3"],
        ),
        (&["--where-column", "id=2", "--where-column", "id=3"], &[]),
    ] {
        for format in ["jsonl", "sql"] {
            let outcome = extract(&shop, LINES, format, more).expect(0);
            let rows: Vec<String> = match format {
                "jsonl" => outcome
                    .json_lines()
                    .iter()
                    .map(|row| row["id"].to_string())
                    .collect(),
                _ => {
                    let rows = outcome
                        .stdout()
                        .split_once("FROM stdin;\n")
                        .unwrap()
                        .1
                        .split_once("\\.\n")
                        .unwrap()
                        .0;
                    rows.lines()
                        .map(|row| row.split('\t').next().unwrap().to_owned())
                        .collect()
                }
            };
            assert_eq!(rows, ids, "{more:?}");
        }
    }
    let outcome = extract(&shop, LINES, "csv", &["--where-column", "prise=1"]).expect(2);
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("did you mean `price`"),
        "{outcome}"
    );
    extract(&shop, LINES, "csv", &["--where-column", "price"]).expect(2);
}

#[test]
fn tables_without_rows_and_tables_that_are_none() {
    let shop = stored(NASTY);
    assert_eq!(
        extract(&shop, "empty", "csv", &[]).expect(0).stdout(),
        "id\r\n"
    );
    assert_eq!(
        extract(&shop, "public.empty", "jsonl", &[])
            .expect(0)
            .stdout(),
        ""
    );
    let sql = extract(&shop, "empty", "sql", &[]).expect(0);
    assert!(
        sql.stdout()
            .ends_with("COPY \"public\".\"empty\" (\"id\") FROM stdin;\n\\.\nCOMMIT;\n"),
        "{sql}"
    );
    let parted = extract(&shop, "parts", "csv", &[]).expect(10);
    assert!(
        parted.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("partitioned"),
        "{parted}"
    );
    for (name, near) in [("emty", "public.empty"), ("\"Invoice Lines\"", LINES)] {
        let outcome = extract(&shop, name, "csv", &[]).expect(10);
        let message = outcome.exit_error()["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains(&format!("did you mean `{near}`")),
            "{message}"
        );
        assert!(outcome.stdout.is_empty());
    }
}

fn rows_of(outcome: &Outcome) -> Vec<Value> {
    outcome.json_lines()
}

#[test]
fn a_large_table_is_the_same_from_a_backup_and_from_its_file() {
    for (compression, extension) in [("gzip", ".gz"), ("zstd", ".zst"), ("none", "")] {
        let mut shop = Shop::new();
        shop.prints(dump());
        shop.backup(&["--compression", compression]).expect(0);
        let rows = rows_of(&extract(&shop, TABLES[1], "jsonl", &[]).expect(0));
        assert_eq!(rows.len(), ROWS);
        assert_eq!(rows[7]["id"], 7);
        let files = fs::read_dir(shop.folder().join("shop")).unwrap();
        let is_dump = |path: &PathBuf| {
            path.to_string_lossy()
                .ends_with(&format!(".sql{extension}"))
        };
        let file = files
            .map(|entry| entry.unwrap().path())
            .find(is_dump)
            .unwrap();
        let arguments = [
            "extract",
            file.to_str().unwrap(),
            "--table",
            TABLES[1],
            "--format",
            "jsonl",
        ];
        let from_file = shop.sandbox.pgkeep(arguments).run().expect(0);
        assert_eq!(rows_of(&from_file), rows);
    }
}

#[test]
fn only_the_tables_own_bytes_are_read_from_a_bucket() {
    let server = ScriptedS3::start();
    let mut shop = Shop::with_key(&server);
    shop.prints(dump());
    shop.backup_to(&shop.oracle_of(&server), &[]).expect(0);
    let url = format!("s3://{}/pg", server.bucket);
    let file = shop.sandbox.path("rows.csv");
    let arguments = [
        "--json",
        "extract",
        "latest",
        "-t",
        TABLES[1],
        "--format",
        "csv",
        "-o",
        file.to_str().unwrap(),
        "--storage",
        &url,
        "--s3-endpoint",
        &server.endpoint,
    ];
    let report = shop.sandbox.pgkeep(arguments).run().expect(0).json();
    assert_eq!(
        (&report["ranged"], &report["rows"]),
        (&json!(true), &json!(ROWS))
    );
    let key = server
        .keys()
        .into_iter()
        .find(|key| key.ends_with(".sql.gz"))
        .unwrap();
    let whole = fs::metadata(server.bucket_dir().join(key)).unwrap().len();
    let read = report["read_bytes"].as_u64().unwrap();
    assert!(read * 5 < whole * 2, "{read} of {whole}");
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), ROWS + 1);
}

/// Flips a byte in the middle of the second table, uncompressed, so that only its digest tells.
fn damage_second_table(shop: &Shop) {
    let files = fs::read_dir(shop.folder().join("shop")).unwrap();
    let path = files
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "sql"))
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
    fs::write(path, bytes).unwrap();
}

#[test]
fn rows_that_are_not_those_of_the_manifest_are_never_good() {
    let mut shop = Shop::new();
    shop.prints(dump());
    shop.backup(&["--compression", "none"]).expect(0);
    damage_second_table(&shop);
    for (format, end) in [("csv", "\r\n"), ("jsonl", "}\n"), ("sql", "COMMIT;\n")] {
        let good = extract(&shop, TABLES[0], format, &[]).expect(0);
        assert!(good.stdout().ends_with(end));
        let outcome = extract(&shop, TABLES[1], format, &[]).expect(23);
        let message = outcome.exit_error()["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("do not trust what was printed"),
            "{message}"
        );
        assert!(!outcome.stdout().contains("COMMIT"), "psql would keep it");
        assert!(!outcome.stdout().contains("\\.\n"));
        let file = shop.sandbox.path("out");
        let outcome = extract(&shop, TABLES[1], format, &["-o", file.to_str().unwrap()]).expect(23);
        assert!(
            outcome.exit_error()["message"]
                .as_str()
                .unwrap()
                .contains("nothing was written"),
            "{outcome}"
        );
        assert!(!file.exists());
        assert_eq!(
            fs::read_dir(shop.sandbox.path(""))
                .unwrap()
                .filter(|entry| {
                    entry
                        .as_ref()
                        .unwrap()
                        .file_name()
                        .to_string_lossy()
                        .starts_with(".pgkeep")
                })
                .count(),
            0
        );
    }
}

#[test]
fn without_an_index_the_whole_backup_is_read() {
    let shop = stored(&dump());
    let folder = shop.folder().join("shop");
    let find = |end: &str| {
        let mut files = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files
            .find(|path| path.to_string_lossy().ends_with(end))
            .unwrap()
    };
    let path = find(".manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["chunks"] = json!({"beside": {"count": 9, "sha256": "a".repeat(64)}});
    fs::write(&path, manifest.to_string()).unwrap();
    let outcome = extract(&shop, TABLES[2], "jsonl", &[]).expect(0);
    assert_eq!(rows_of(&outcome).len(), ROWS);
    assert!(
        outcome.stderr().contains("the whole backup was read"),
        "{outcome}"
    );
    let dump = find(".sql.gz");
    let mut bytes = fs::read(&dump).unwrap();
    bytes.push(0);
    fs::write(dump, bytes).unwrap();
    extract(&shop, TABLES[2], "jsonl", &[]).expect(23);
}

#[test]
fn a_file_is_only_replaced_when_told() {
    let shop = stored(NASTY);
    let file = shop.sandbox.write("rows.csv", "precious");
    let path = file.to_str().unwrap();
    extract(&shop, LINES, "csv", &["-o", path]).expect(25);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let report = extract(
        &shop,
        LINES,
        "csv",
        &["-o", path, "--force", "--where-column", "id=3"],
    )
    .expect(0)
    .json();
    assert_eq!(
        (&report["rows"], &report["table_rows"], &report["table"]),
        (&json!(1), &json!(3), &json!(LINES))
    );
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
}

fn from_stdin(text: impl Into<Vec<u8>>, table: &str) -> Outcome {
    let sandbox = Sandbox::new();
    let arguments = [
        "--json", "extract", "-", "--table", table, "--format", "csv",
    ];
    sandbox.pgkeep(arguments).stdin(text).run()
}

#[test]
fn dumps_without_manifest_prove_themselves_or_fail() {
    assert_eq!(
        from_stdin(NASTY, LINES).expect(0).stdout().lines().count(),
        5
    );
    assert_eq!(
        from_stdin(data::gzip(NASTY.as_bytes()), "empty")
            .expect(0)
            .stdout(),
        "id\r\n"
    );
    let cut = &NASTY[..NASTY.len() - 30];
    let outcome = from_stdin(cut, LINES).expect(21);
    assert!(
        outcome.stdout.is_empty(),
        "small tables wait for the proof: {outcome}"
    );
    let cut = &NASTY[..NASTY.find("2\tNaN").unwrap()];
    assert_eq!(
        from_stdin(cut, LINES).expect(21).exit_error()["id"],
        "dump_incomplete"
    );
    let gzip = data::gzip(NASTY.as_bytes());
    from_stdin(&gzip[..gzip.len() - 4], LINES).expect(21);
    from_stdin(NASTY, "absent").expect(10);
    let inserts = NASTY.replace(
        "COPY public.empty (id) FROM stdin;\n\\.\n",
        "INSERT INTO public.empty VALUES (1);\n",
    );
    assert_eq!(
        from_stdin(inserts, "empty").expect(25).exit_error()["id"],
        "rows_are_inserts"
    );
    let odd = NASTY.replace("2\tNaN\tf", "2\tNaN");
    assert_eq!(
        from_stdin(odd, LINES).expect(23).exit_error()["id"],
        "odd_row"
    );
    let sandbox = Sandbox::new();
    let arguments = ["extract", "./absent.sql", "--table", "t", "--format", "csv"];
    sandbox.pgkeep(arguments).run().expect(10);
}

#[test]
fn a_latin1_dump_comes_out_as_utf8_and_its_sql_as_it_was() {
    let text: Vec<u8> = NASTY
        .replace("'UTF8'", "'LATIN1'")
        .replace("\"quoted\"", "gr\u{fc}n")
        .chars()
        .map(|c| u8::try_from(c).unwrap())
        .collect();
    let csv = from_stdin(text.clone(), LINES).expect(0);
    assert!(csv.stdout().contains("gr\u{fc}n"), "{csv}");
    let sandbox = Sandbox::new();
    let arguments = ["extract", "-", "--table", LINES, "--format", "sql"];
    let sql = sandbox.pgkeep(arguments).stdin(text).run().expect(0);
    assert!(sql.stdout.windows(4).any(|bytes| bytes == b"gr\xfcn"));
    assert!(
        sql.stdout
            .starts_with(b"BEGIN;\nSET client_encoding = 'LATIN1';\n")
    );
}

#[test]
fn psql_replays_what_sql_wrote() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let structure = NASTY.split_once("COPY billing").unwrap().0;
    database.sql(structure);
    let shop = stored(NASTY);
    let sql = extract(&shop, LINES, "sql", &[]).expect(0);
    database.load(&sql.stdout);
    let rows = database.sql("SELECT count(*), sum(id), max(length(\"no\"\"te\")), count(raw) FROM billing.\"Invoice Lines\"");
    assert_eq!(rows, "3|9007199254740998|23|2");
}

/// A row is held once, in whatever form it goes out, and only what a long one takes goes beyond the bound of all else.
#[test]
fn a_row_of_32_mib_is_held_once() {
    let value = "5a".repeat(16 << 20);
    let row = format!("1\t\\\\x{value}\n2\t\\N\n");
    let dump = format!(
        "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n\
         CREATE TABLE public.files (\n    id integer,\n    body bytea\n);\n\n\
         COPY public.files (id, body) FROM stdin;\n{row}\\.\n\n\
         --\n-- PostgreSQL database dump complete\n--\n\n"
    );
    let mut shop = Shop::new();
    shop.prints(&dump);
    shop.backup(&["--compression", "zstd"]).expect(0);
    for (format, filter, rows) in [
        ("csv", None, 2),
        ("jsonl", None, 2),
        ("sql", None, 2),
        ("sql", Some("id=1"), 1),
    ] {
        let mut arguments = vec!["--json", "extract", "latest", "--table", "files"];
        arguments.extend(["--format", format, "-o", "rows", "--force"]);
        arguments.extend(filter.iter().flat_map(|filter| ["--where-column", filter]));
        let running = shop.over(&arguments).start();
        let peak = processes::watched_peak_kib(running.pid());
        let outcome = running.wait().expect(0);
        assert_eq!(outcome.json()["rows"], rows, "{format}");
        let written = fs::read_to_string(shop.sandbox.path("rows")).unwrap();
        assert!(written.contains(&value), "{format}");
        if cfg!(target_os = "linux") {
            assert!(peak > 32 * 1024 && peak < 88 * 1024, "{format}: {peak} KiB");
        }
    }
}

//! `inspect` over every dump of `tests/data`, over damaged ones and over files that are no dumps at all.
//!
//! What must be found stands in `truth.json`, which was made from the files and from databases they were loaded into,
//! not by the scanner.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::support::data::{self, Truth};
use crate::support::sandbox::Outcome;

/// A table by database, schema and name.
type Key = (Option<String>, String, String);

/// What is known of a table before anything looks at the file.
#[derive(Debug, Default)]
struct Known {
    /// How the CREATE TABLE begins: `plain`, `unlogged`, `foreign`; none where the file holds only rows.
    keyword: Option<String>,
    rows: Option<u64>,
}

fn inspect(sandbox: &Sandbox, bytes: &[u8]) -> Outcome {
    sandbox
        .pgkeep(["--json", "inspect", "-"])
        .stdin(bytes)
        .run()
}

/// Names resolve as psql would: `"$user"` is no schema of these files, so `"$user", public` means `public`.
fn schema(name: &str) -> String {
    if name == "$user" { "public" } else { name }.to_owned()
}

fn known_tables(truth: &Truth) -> BTreeMap<Key, Known> {
    let mut known: BTreeMap<Key, Known> = BTreeMap::new();
    for table in &truth.tables {
        let key = (table.db.clone(), schema(&table.schema), table.name.clone());
        known.entry(key).or_default().keyword = Some(table.kw.clone());
    }
    for copy in &truth.copy {
        let key = (copy.db.clone(), schema(&copy.schema), copy.name.clone());
        *known.entry(key).or_default().rows.get_or_insert(0) += copy.rows;
    }
    for (table, rows) in &truth.insert_rows {
        let mut parts = table.splitn(3, '|').map(str::to_owned);
        let mut next = || parts.next().expect("a key has three parts");
        let key = (
            Some(next()).filter(|db| !db.is_empty()),
            schema(&next()),
            next(),
        );
        *known.entry(key).or_default().rows.get_or_insert(0) += rows;
    }
    known
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[track_caller]
fn assert_tables(file: &str, document: &Value, truth: &Truth) {
    let mut known = known_tables(truth);
    let tables = document["tables"].as_array().expect("tables is a list");
    for table in tables {
        let key = (
            text(&table["database"]),
            text(&table["schema"]).expect("a table has a schema"),
            text(&table["name"]).expect("a table has a name"),
        );
        let expected = known
            .remove(&key)
            .unwrap_or_else(|| panic!("{file}: {key:?} is not in the file, or is listed twice"));
        let kind = table["kind"].as_str();
        let fits = match expected.keyword.as_deref() {
            None => kind.is_none(),
            Some("plain") => matches!(kind, Some("table" | "partitioned" | "partition")),
            keyword => kind == keyword,
        };
        assert!(fits, "{file}: {key:?} is {kind:?}, made as {expected:?}");
        assert_eq!(table["rows"].as_u64(), expected.rows, "{file}: {key:?}");
    }
    assert!(known.is_empty(), "{file}: not found: {known:?}");
}

#[test]
fn inspect_agrees_with_the_truth_of_every_dump() {
    let sandbox = Sandbox::new();
    let truths = data::truths();
    assert!(truths.len() > 30, "tests/data has been emptied");
    for (file, truth) in truths {
        let run = inspect(&sandbox, &data::dump(&file));
        let document = run.json();
        assert_eq!(document["bytes"], truth.bytes, "{file}");
        assert_eq!(text(&document["server_version"]), truth.server, "{file}");
        assert_eq!(text(&document["pg_dump_version"]), truth.pg_dump, "{file}");
        assert_eq!(document["end_marker"], truth.end_marker, "{file}");
        let is_complete = truth.end_marker || truth.cluster_end_marker;
        assert_eq!(document["complete"], is_complete, "{file}: {run}");
        assert_eq!(run.code(), if is_complete { 0 } else { 21 }, "{file}");
        assert_eq!(warns(&document, "crlf"), truth.crlf, "{file}");
        assert_tables(&file, &document, &truth);
    }
}

fn warns(document: &Value, id: &str) -> bool {
    let warnings = document["warnings"].as_array().expect("warnings is a list");
    warnings.iter().any(|warning| warning["id"] == id)
}

/// Kinds as the catalog of the database has them, which the first word of a statement does not tell.
#[test]
fn partitions_are_told_by_what_attaches_them() {
    let sandbox = Sandbox::new();
    let run = inspect(&sandbox, &data::dump("nasty/nasty-17-plain.sql.gz")).expect(0);
    let document = run.json();
    let field = |schema: &str, name: &str, field: &str| {
        let tables = document["tables"].as_array().expect("tables is a list");
        let found = tables
            .iter()
            .find(|t| t["schema"] == schema && t["name"] == name);
        found.map(|table| table[field].clone()).unwrap_or_default()
    };
    for (schema, name, expected) in [
        ("parts", "ev_2024", "partitioned"),
        ("parts", "ev_2024_eu", "partition"),
        ("app", "ev_2025", "partition"),
        ("parts", "h0", "partition"),
        ("public", "USER", "table"),
    ] {
        assert_eq!(field(schema, name, "kind"), expected, "{schema}.{name}");
    }
    for (schema, name, parent) in [
        ("parts", "ev_2024", "ev"),
        ("parts", "ev_2024_eu", "ev_2024"),
        ("app", "ev_2025", "ev"),
    ] {
        let expected = json!({ "schema": "parts", "name": parent });
        assert_eq!(field(schema, name, "parent"), expected, "{schema}.{name}");
    }
    assert_eq!(field("public", "USER", "parent"), Value::Null);
}

/// The same rows give the same digest, whichever version wrote them and however the dump was made (but for
/// `--quote-all-identifiers`, which quotes the values of `regclass` too).
#[test]
fn digests_depend_on_the_rows_alone() {
    let sandbox = Sandbox::new();
    let digests = |file: &str| {
        let document = inspect(&sandbox, &data::dump(file)).expect(0).json();
        let tables = document["tables"]
            .as_array()
            .expect("tables is a list")
            .clone();
        tables
            .into_iter()
            .filter(|table| !table["digest"].is_null())
            .map(|t| {
                (
                    t["schema"].to_string() + &t["name"].to_string(),
                    t["digest"].clone(),
                )
            })
            // Rows of a partition by hash on an enum move between its leaves: their hash is of the oid.
            .filter(|(name, _)| !name.contains("hash_enum"))
            .collect::<BTreeMap<_, _>>()
    };
    let plain = digests("nasty/nasty-15-plain.sql.gz");
    assert!(plain.len() > 70, "{}", plain.len());
    for file in [
        "nasty/nasty-15-data-only.sql.gz",
        "nasty/nasty-15-verbose.sql.gz",
        "nasty/nasty-15-create-clean.sql.gz",
        "nasty/nasty-17-plain.sql.gz",
    ] {
        assert_eq!(digests(file), plain, "{file}");
    }
    assert!(digests("nasty/nasty-15-inserts.sql.gz").is_empty());
}

#[test]
fn damaged_dumps_are_found_out() {
    let sandbox = Sandbox::new();
    for variant in data::damaged() {
        let (name, why) = (variant.name, variant.why);
        let run = inspect(&sandbox, &variant.bytes);
        let document = run.json();
        assert_eq!(
            document["complete"], variant.is_complete,
            "{name}: {why}: {run}"
        );
        let problems = document["problems"].as_array().expect("problems is a list");
        assert_eq!(problems.is_empty(), variant.is_complete, "{name}: {why}");
        if variant.is_complete {
            assert_eq!(run.code(), 0, "{name}: {why}");
            assert_eq!(run.stderr(), "", "{name}: {why}");
        } else {
            assert_eq!(run.exit_error()["code"], 21, "{name}: {why}");
        }
    }
}

#[test]
fn odd_dumps_are_warned_of() {
    let sandbox = Sandbox::new();
    let variants = data::damaged();
    for (name, warning) in [
        ("crlf.sql", "crlf"),
        ("bom.sql", "byte_order_mark"),
        ("stderr-in-front.sql", "no_sql"),
        ("end-marker-then-more.sql", "text_behind_end_marker"),
    ] {
        let variant = variants.iter().find(|variant| variant.name == name);
        let bytes = &variant.expect("the variant is there").bytes;
        let document = inspect(&sandbox, bytes).expect(0).json();
        assert!(warns(&document, warning), "{name}: {document}");
    }
}

#[test]
fn names_are_decoded_by_the_encoding_of_the_dump() {
    let sandbox = Sandbox::new();
    for (file, name) in [
        ("damaged/latin1.sql", "Größe"),
        ("damaged/eucjp.sql", "\u{8868}"),
    ] {
        let document = inspect(&sandbox, &data::dump(file)).expect(0).json();
        let tables = document["tables"].as_array().expect("tables is a list");
        let names: BTreeSet<_> = tables.iter().map(|table| text(&table["name"])).collect();
        assert!(names.contains(&Some(name.to_owned())), "{file}: {names:?}");
    }
}

/// What people hand over in good faith: each gets its own words, and what to do.
#[test]
fn other_files_get_a_clear_verdict() {
    let sandbox = Sandbox::new();
    let mut tar = vec![0; 1024];
    tar[..7].copy_from_slice(b"toc.dat");
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, words) in [
        (&b""[..], "it is empty"),
        (b"PGDMP\x01\x0e\x00\x04\x08", "custom format"),
        (&tar, "tar archive"),
        (b"<!DOCTYPE html>\n<title>Sign in</title>", "web page"),
        (b"\xff\xfe-\0-\0\r\0\n\0", "UTF-16"),
        (b"\xfd7zXZ\0\0\x04", "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x04\x22\x4d\x18\x64\x40", "lz4"),
        (b"PK\x03\x04\x14\0", "zip archive"),
        (&data::gzip(b"PGDMP\x01\x0e\x00"), "custom format"),
        (&data::gzip(b""), "it is empty"),
    ] {
        let run = inspect(&sandbox, bytes).expect(21);
        assert_eq!(run.exit_error()["id"], "not_a_plain_dump", "{words}: {run}");
        let document = run.json();
        assert_eq!(document["complete"], false, "{words}");
        let message = document["problems"][0]["message"].to_string();
        assert!(message.contains(words), "{words}: {message}");
        let hints = run.exit_error()["hints"].clone();
        assert_eq!(hints.as_array().map(Vec::len), Some(1), "{words}: {run}");
    }
}

/// It may well be a dump, for whoever has the key.
#[test]
fn an_encrypted_file_asks_for_its_key() {
    let sandbox = Sandbox::new();
    for bytes in [
        &b"age-encryption.org/v1\n-> X25519 x"[..],
        b"-----BEGIN AGE ENCRYPTED FILE-----\n",
    ] {
        let error = inspect(&sandbox, bytes).expect(12).exit_error();
        assert_eq!(error["id"], "no_identity", "{error}");
        assert!(error["hints"][0].as_str().unwrap().contains("--identity"));
    }
}

#[test]
fn text_that_is_no_dump_is_not_complete() {
    let sandbox = Sandbox::new();
    for bytes in [
        &b"hello\n"[..],
        b"\0\0\0\0",
        b"-- nothing\n",
        b"{\"error\": \"no such key\"}\n",
        &[0xe9; 4096],
        &data::gzip(&data::gzip(b"-- twice")),
    ] {
        let run = inspect(&sandbox, bytes).expect(21);
        assert_eq!(run.json()["end_marker"], false, "{run}");
        assert_eq!(run.exit_error()["id"], "dump_incomplete", "{run}");
    }
}

#[test]
fn folders_and_missing_files_are_told_with_json_too() {
    let sandbox = Sandbox::new();
    sandbox.write("dump.dir/toc.dat", b"PGDMP");
    fs::create_dir(sandbox.path("plain.dir")).unwrap();
    for (file, code, words) in [
        ("dump.dir", 21, "directory format"),
        ("plain.dir", 21, "it is a folder"),
        ("missing.sql", 2, "No such file"),
    ] {
        let run = sandbox
            .pgkeep(["inspect", "--json", file])
            .run()
            .expect(code);
        assert_eq!(run.json()["complete"], false, "{file}");
        assert_eq!(run.json()["tables"].as_array().map(Vec::len), Some(0));
        let message = run.exit_error()["message"].to_string();
        assert!(message.contains(words), "{file}: {message}");
    }
}

/// The name of a file says nothing: a `.sql` may be gzip, a `.gz` plain text.
#[test]
fn files_are_read_by_content() {
    let sandbox = Sandbox::new();
    let whole = data::whole();
    let gz = data::gzip(&whole);
    let zst = zstd::encode_all(&whole[..], 1).unwrap();
    let frames = [
        zstd::encode_all(&whole[..9_999], 1).unwrap(),
        zstd::encode_all(&whole[9_999..], 1).unwrap(),
    ]
    .concat();
    // What `pzstd` writes begins with a frame that holds no data.
    let skippable = [&b"\x50\x2a\x4d\x18\x04\0\0\0abcd"[..], &zst].concat();
    let mut documents = BTreeSet::new();
    for (name, bytes) in [
        ("a.sql", &whole),
        ("b.gz", &whole),
        ("c.sql", &gz),
        ("d.sql.zst", &gz),
        ("e.dump", &zst),
        ("f.gz", &frames),
        ("g", &skippable),
    ] {
        sandbox.write(name, bytes);
        let run = sandbox.pgkeep(["inspect", "--json", name]).run().expect(0);
        let mut document = run.json();
        assert_eq!(document["file"], name);
        document["file"] = Value::Null;
        documents.insert(document.to_string());
    }
    assert_eq!(documents.len(), 1, "{documents:#?}");
}

#[test]
fn cut_compressed_files_are_damage() {
    let sandbox = Sandbox::new();
    let whole = data::whole();
    let zst = zstd::encode_all(&whole[..], 1).unwrap();
    for bytes in [
        &zst[..zst.len() / 2],
        &zst[..zst.len() - 1],
        &[&zst[..], b"garbage"].concat(),
        &data::gzip(&whole)[..40],
        b"\x1f\x8b",
        b"\x28\xb5\x2f\xfd",
    ] {
        let run = inspect(&sandbox, bytes).expect(21);
        let problems = run.json()["problems"].clone();
        assert_eq!(problems[0]["id"], "compressed_stream_damaged", "{run}");
    }
}

#[test]
fn required_tables_are_looked_for() {
    let sandbox = Sandbox::new();
    sandbox.write("dump.sql", data::whole());
    let run = |required: &[&str]| {
        let mut arguments = vec!["inspect", "--json", "dump.sql"];
        for table in required {
            arguments.extend(["--require", table]);
        }
        sandbox.pgkeep(arguments).run()
    };
    let found = run(&["\"Album\"", "public.\"Artist\"=275", "\"Album\"=1"]).expect(0);
    assert_eq!(found.json()["required_tables"][1]["rows"], 275);
    assert_eq!(found.stderr(), "");

    let missing = run(&["album", "\"Artist\"=276", "\"Genre\"", "other.\"Track\""]).expect(21);
    let error = missing.exit_error();
    assert_eq!(error["id"], "required_table_missing");
    let details = error["details"].to_string();
    for words in ["album", "Album", "276", "other"] {
        assert!(details.contains(words), "{words}: {details}");
    }
    assert!(!details.contains("Genre"), "{details}");
    let document = missing.json();
    assert_eq!(document["complete"], true);
    let flags: Vec<_> = document["required_tables"]
        .as_array()
        .unwrap()
        .clone()
        .iter()
        .map(|t| t["found"].clone())
        .collect();
    assert_eq!(flags, [false, true, true, false]);

    run(&["\"open"]).expect(2);
}

/// Rows and functions full of traps make no required table (row D19).
#[test]
fn traps_make_no_required_table() {
    let sandbox = Sandbox::new();
    for file in [
        "nasty/nasty-15-plain.sql.gz",
        "nasty/nasty-18-inserts.sql.gz",
    ] {
        sandbox.write("nasty.sql", data::dump(file));
        let run = sandbox
            .pgkeep(["inspect", "--json", "nasty.sql", "--require", "users"])
            .run()
            .expect(21);
        assert_eq!(run.exit_error()["id"], "required_table_missing", "{file}");
    }
}

#[test]
fn people_can_read_it() {
    let sandbox = Sandbox::new();
    let whole = data::whole();
    sandbox.write("whole.sql", &whole);
    sandbox.write("cut.sql", &whole[..209_077]);
    let run = sandbox
        .pgkeep(["inspect", "whole.sql", "--require", "\"Album\""])
        .run()
        .expect(0);
    for words in [
        "complete",
        "15.18",
        "Album",
        "347",
        "11 tables",
        "required: ",
    ] {
        assert!(run.stdout().contains(words), "{words}: {run}");
    }
    assert!(!run.stdout().contains("NOT"), "{run}");
    let run = sandbox.pgkeep(["inspect", "cut.sql"]).run().expect(21);
    assert!(run.stdout().contains("NOT complete"), "{run}");
    assert!(
        run.stderr()
            .contains("error: `cut.sql` is not a complete dump"),
        "{run}"
    );
    assert!(run.stderr().contains("in the middle of a row"), "{run}");
}

/// A name of the dump must not move the cursor of a terminal or add a line to the table.
#[test]
fn names_cannot_spoil_the_table() {
    let sandbox = Sandbox::new();
    let dump = "--\n-- PostgreSQL database dump\n--\n\
                CREATE TABLE public.\"a\x1b[2Jb\nc\td\" (x int);\n\
                --\n-- PostgreSQL database dump complete\n--\n";
    let run = sandbox.pgkeep(["inspect", "-"]).stdin(dump).run().expect(0);
    assert!(!run.stdout().contains('\x1b'), "{run}");
    assert!(run.stdout().contains("a\\u{1b}[2Jb\\nc\\td"), "{run}");
}

#[test]
fn a_reader_that_goes_away_changes_no_exit_code() {
    let sandbox = Sandbox::new();
    sandbox.write("whole.sql", data::whole());
    let script = "{ \"$1\" inspect whole.sql; echo $? >code; } | true";
    sandbox
        .program("sh", ["-c", script, "sh", env!("CARGO_BIN_EXE_pgkeep")])
        .run()
        .expect(0);
    assert_eq!(fs::read_to_string(sandbox.path("code")).unwrap(), "0\n");
}

//! `pgkeep verify`: every kind of damage is found, told with its place and marked; a storage that fails marks nothing.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::backup::Shop;
use crate::support::sandbox::Outcome;
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};
use crate::support::{S3Server, data};

/// A dump of three tables with a few chunks each.
pub fn dump() -> String {
    let mut text =
        String::from("--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n");
    for table in TABLES {
        text += &format!(
            "CREATE TABLE public.{table} (\n    id integer NOT NULL,\n    body text\n);\n\n"
        );
    }
    for (nth, table) in TABLES.iter().enumerate() {
        text += &format!("COPY public.{table} (id, body) FROM stdin;\n");
        for row in 0..ROWS {
            let body = (row + nth * ROWS).wrapping_mul(2_654_435_761) % 1_000_000_007;
            text += &format!("{row}\tbody {body} of {table}\n");
        }
        text += "\\.\n\n\n";
    }
    text + "--\n-- PostgreSQL database dump complete\n--\n\n"
}

pub const TABLES: [&str; 3] = ["orders", "payments", "users"];

pub const ROWS: usize = 70_000;

/// A shop with one backup of that dump in its folder.
struct Stored {
    shop: Shop,
    id: String,
}

impl Stored {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(more: &[&str]) -> Self {
        let mut shop = Shop::new();
        shop.prints(dump());
        let id = backed_up(&shop, more);
        Self { shop, id }
    }

    fn again(&self) -> String {
        backed_up(&self.shop, &[])
    }

    fn path_of(&self, id: &str, suffix: &str) -> PathBuf {
        self.shop
            .folder()
            .join("shop")
            .join(format!("{id}{suffix}"))
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.path_of(&self.id, suffix)
    }

    fn mark(&self) -> Option<Value> {
        let bytes = fs::read(self.path(".damaged.json")).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path(".manifest.json")).unwrap()).unwrap()
    }

    fn change_manifest(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest();
        change(&mut manifest);
        fs::write(self.path(".manifest.json"), manifest.to_string()).unwrap();
    }

    fn verify(&self, more: &[&str]) -> Outcome {
        let arguments: Vec<&str> = ["--json", "verify"].iter().chain(more).copied().collect();
        self.shop.over(&arguments).run()
    }

    /// Verifies a copy that must be found damaged, and returns its report.
    #[track_caller]
    fn expect_damage(&self) -> Value {
        let outcome = self.verify(&[&self.id]).expect(23);
        assert_eq!(outcome.exit_error()["id"], "backup_damaged");
        let copy = outcome.summary()["copies"][0].clone();
        assert_eq!(
            (&copy["ok"], &copy["damaged"], &copy["marked"]),
            (&json!(false), &json!(true), &json!(true))
        );
        let mark = self.mark().expect("the copy is marked");
        assert_eq!(mark["problems"], copy["problems"]);
        assert_eq!(mark["id"], *self.id);
        copy
    }
}

#[track_caller]
fn backed_up(shop: &Shop, more: &[&str]) -> String {
    let outcome = shop.backup(more).expect(0);
    outcome.summary()["backups"][0]["backup_id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Changes a file as no writer of backups would.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn stored_place(manifest: &Value, table: usize) -> usize {
    usize::try_from(
        manifest["tables"][table]["blocks"][0]["stored_offset"]
            .as_u64()
            .unwrap(),
    )
    .unwrap()
}

#[test]
fn a_good_copy_is_proven_with_every_compression() {
    for compression in ["gzip", "zstd", "none"] {
        let stored = Stored::with(&["--compression", compression]);
        let outcome = stored.verify(&[]).expect(0);
        let copy = outcome.summary()["copies"][0].clone();
        let (rows, size) = (
            json!(3 * ROWS),
            stored.manifest()["object"]["size_bytes"].clone(),
        );
        assert_eq!(
            (&copy["ok"], &copy["tables"], &copy["rows"], &copy["bytes"]),
            (&json!(true), &json!(3), &rows, &size)
        );
        assert_eq!(copy["problems"], json!([]));
        assert_eq!(outcome.summary()["ok"], true);
        assert!(stored.mark().is_none());
        let text = stored.shop.over(&["verify"]).run().expect(0);
        assert!(
            text.stdout().contains(&format!("{} in ", stored.id)) && text.stdout().contains("good"),
            "{text}"
        );
    }
}

/// cron mails whatever is printed.
#[test]
fn a_quiet_run_prints_only_what_is_damaged() {
    let stored = Stored::new();
    let quiet = |code| stored.shop.over(&["-q", "verify"]).run().expect(code);
    let good = quiet(0);
    assert_eq!((good.stdout(), good.stderr()), ("", ""));
    change(&stored.path(".sql.gz"), |bytes| bytes.truncate(5000));
    let bad = quiet(23);
    assert!(bad.stdout().contains("DAMAGED"), "{bad}");
}

#[test]
fn p15_a_flipped_byte_is_found_wherever_it_is() {
    let stored = Stored::new();
    let manifest = stored.manifest();
    let whole = fs::read(stored.path(".sql.gz")).unwrap();
    let places = [
        ("header", 1, None),
        ("structure", 60, None),
        (
            "first table",
            stored_place(&manifest, 0) + 5000,
            Some("public.orders"),
        ),
        (
            "second table",
            stored_place(&manifest, 1) + 5000,
            Some("public.payments"),
        ),
        (
            "last table",
            stored_place(&manifest, 2) + 5000,
            Some("public.users"),
        ),
        ("checksum", whole.len() - 6, None),
        ("length", whole.len() - 2, None),
    ];
    for (region, at, table) in places {
        change(&stored.path(".sql.gz"), |bytes| bytes[at] ^= 0x10);
        let copy = stored.expect_damage();
        let first = &copy["problems"][0];
        if let Some(table) = table {
            assert_eq!(first["table"], table, "{region}: {copy}");
            let offset = usize::try_from(first["stored_offset"].as_u64().unwrap()).unwrap();
            assert!(offset <= at && at < offset + 2_000_000, "{region}: {copy}");
            assert!(first["dump_offset"].as_u64().is_some(), "{region}: {copy}");
        }
        fs::write(stored.path(".sql.gz"), &whole).unwrap();
        fs::remove_file(stored.path(".damaged.json")).unwrap();
        stored.verify(&[]).expect(0);
    }
}

/// Finds a bit of the second table whose flip leaves a stream of the same length.
fn quiet_flip(whole: &[u8], from: usize) -> usize {
    let inflate = |bytes: &[u8]| {
        let mut out = Vec::new();
        let mut decoder = flate2::read::DeflateDecoder::new(&bytes[10..]);
        std::io::Read::read_to_end(&mut decoder, &mut out).map(|_| out.len())
    };
    let length = inflate(whole).unwrap();
    let mut places = (from + 1000..from + 100_000).step_by(97);
    let found = places.find(|&at| {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1;
        inflate(&flipped).is_ok_and(|flipped| flipped == length)
    });
    found.expect("some bit changes a letter and nothing else")
}

#[test]
fn p15_a_flip_that_only_changes_a_row_names_its_table() {
    let stored = Stored::new();
    let from = stored_place(&stored.manifest(), 1);
    let at = quiet_flip(&fs::read(stored.path(".sql.gz")).unwrap(), from);
    change(&stored.path(".sql.gz"), |bytes| bytes[at] ^= 1);
    let copy = stored.expect_damage();
    let ids: Vec<&str> = copy["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["digest_differs", "stream_damaged", "sha256_differs"]);
    let first = &copy["problems"][0];
    assert_eq!(
        (&first["table"], &first["stored_offset"]),
        (&json!("public.payments"), &json!(from))
    );
}

#[test]
fn p15_r14_cut_lengthened_and_empty_files_are_damaged() {
    let stored = Stored::new();
    let whole = fs::read(stored.path(".sql.gz")).unwrap();
    let cases: [(&str, Vec<u8>); 5] = [
        ("cut in the middle", whole[..whole.len() / 2].to_vec()),
        ("without its last byte", whole[..whole.len() - 1].to_vec()),
        ("one byte longer", [&whole[..], b"x"].concat()),
        (
            "with a second member",
            [&whole[..], &data::gzip(b"-- more\n")].concat(),
        ),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in cases {
        fs::write(stored.path(".sql.gz"), &bytes).unwrap();
        let copy = stored.expect_damage();
        let size = copy["problems"]
            .as_array()
            .unwrap()
            .iter()
            .any(|problem| problem["id"] == "size_differs");
        assert!(size, "{name}: {copy}");
        assert_eq!(stored.mark().unwrap()["stored_bytes"], bytes.len());
        fs::remove_file(stored.path(".damaged.json")).unwrap();
    }
}

#[test]
fn swapped_chunks_are_damaged_even_when_each_is_whole() {
    let stored = Stored::with(&["--compression", "none"]);
    let manifest = stored.manifest();
    let lengths: Vec<usize> = manifest["chunks"]["inline"]["stored"]
        .as_array()
        .unwrap()
        .iter()
        .map(|length| length.as_u64().unwrap() as usize)
        .collect();
    // Two rows of the same length changed places: every length is as it was, and so is the sum of the rows' hashes.
    change(&stored.path(".sql"), |bytes| {
        let start: usize = lengths[..2].iter().sum();
        let text = String::from_utf8(bytes[start..start + lengths[2]].to_vec()).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let same = lines
            .windows(2)
            .position(|two| two[0].len() == two[1].len() && two[0].starts_with('6'))
            .unwrap();
        let at = start + lines[..same].iter().map(|line| line.len()).sum::<usize>();
        let length = lines[same].len();
        let first = bytes[at..at + length].to_vec();
        bytes.copy_within(at + length..at + 2 * length, at);
        bytes[at + length..at + 2 * length].copy_from_slice(&first);
    });
    let copy = stored.expect_damage();
    assert_eq!(copy["problems"][0]["id"], "sha256_differs", "{copy}");
}

#[test]
fn p17_r8_a_manifest_that_was_changed_contradicts() {
    for (pointer, value, problem) in [
        ("/object/sha256", json!("a".repeat(64)), "sha256_differs"),
        ("/object/size_bytes", json!(7), "size_differs"),
        ("/dump/bytes", json!(1_000_000), "stream_damaged"),
        ("/compression/method", json!("lzma"), "manifest_contradicts"),
        (
            "/id",
            json!("shop-20200102T030405Z-7f3a"),
            "manifest_damaged",
        ),
    ] {
        let stored = Stored::new();
        stored.change_manifest(|manifest| *manifest.pointer_mut(pointer).unwrap() = value);
        let copy = stored.expect_damage();
        let ids: Vec<&str> = copy["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["id"].as_str().unwrap())
            .collect();
        assert!(ids.contains(&problem), "{pointer}: {copy}");
    }
}

/// Where size and SHA-256 are right, the dump is whole whatever the manifest says of its content: told, and not marked.
#[test]
fn p17_a_manifest_that_disagrees_with_whole_bytes_marks_nothing() {
    for (pointer, value, problem) in [
        ("/tables/1/digest", json!("0".repeat(32)), "digest_differs"),
        ("/tables/1/rows", json!(1), "rows_differ"),
        ("/tables/1/name", json!("other"), "table_missing"),
        ("/dump/rows", json!(7), "dump_differs"),
    ] {
        let stored = Stored::new();
        stored.change_manifest(|manifest| *manifest.pointer_mut(pointer).unwrap() = value);
        let outcome = stored.verify(&[&stored.id]).expect(23);
        let copy = outcome.summary()["copies"][0].clone();
        assert_eq!(
            (&copy["ok"], &copy["damaged"]),
            (&json!(false), &json!(false)),
            "{outcome}"
        );
        assert_eq!(copy["failure"]["id"], "manifest_disagrees", "{outcome}");
        assert!(
            copy["problems"].to_string().contains(problem),
            "{pointer}: {copy}"
        );
        assert!(stored.mark().is_none());
    }
}

#[test]
fn p17_a_key_in_a_manifest_is_never_followed() {
    let stored = Stored::new();
    let other = stored.again();
    let id = stored.id.clone();
    for key in [
        format!("other/{id}.sql.gz"),
        format!("shop/{id}.sql.zst"),
        format!("/etc/{id}.sql.gz"),
        format!("shop/../{other}/{id}.sql.gz"),
    ] {
        stored.change_manifest(|manifest| manifest["object"]["key"] = key.clone().into());
        let copy = stored.expect_damage();
        assert_eq!(copy["problems"][0]["id"], "manifest_contradicts", "{key}");
        fs::remove_file(stored.path(".damaged.json")).unwrap();
    }
}

#[test]
fn a_dump_that_is_gone_is_damaged_and_the_newest_good_backup_is_named() {
    let stored = Stored::new();
    // Two runs of one second are ordered by their suffix.
    let mut ids = [stored.again(), stored.id.clone()];
    ids.sort();
    let [older, newer] = ids;
    fs::remove_file(stored.path_of(&newer, ".sql.gz")).unwrap();
    let outcome = stored.verify(&["--all"]).expect(23);
    let copies = outcome.summary()["copies"].clone();
    assert_eq!(
        (&copies[0]["id"], &copies[0]["problems"][0]["id"]),
        (&json!(newer), &json!("object_missing"))
    );
    assert_eq!(
        (&copies[1]["id"], &copies[1]["ok"]),
        (&json!(older), &json!(true))
    );
    let hint = outcome.exit_error()["hints"][0]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        hint.contains(&older) && hint.contains("proven just now"),
        "{hint}"
    );
    // It counts for nothing any more.
    assert_eq!(
        stored.verify(&[]).expect(0).summary()["copies"][0]["id"],
        *older
    );
}

#[test]
fn damage_without_any_good_backup_left_says_so() {
    let stored = Stored::new();
    change(&stored.path(".sql.gz"), |bytes| bytes[5000] ^= 1);
    let outcome = stored.shop.over(&["verify"]).run().expect(23);
    assert!(outcome.stdout().contains("DAMAGED"), "{outcome}");
    assert!(
        outcome
            .stderr()
            .contains("no good backup of `shop` is left"),
        "{outcome}"
    );
    // The mark is there, so `latest` is none now.
    stored.verify(&[]).expect(10);
}

#[test]
fn a_good_reading_takes_a_mark_away() {
    let stored = Stored::new();
    let whole = fs::read(stored.path(".sql.gz")).unwrap();
    change(&stored.path(".sql.gz"), |bytes| bytes[5000] ^= 1);
    stored.expect_damage();
    stored.verify(&[&stored.id]).expect(23);
    stored.verify(&[]).expect(10);
    fs::write(stored.path(".sql.gz"), whole).unwrap();
    let copy = stored.verify(&[&stored.id]).expect(0).summary()["copies"][0].clone();
    assert_eq!(
        (&copy["ok"], &copy["marked"]),
        (&json!(true), &json!(false))
    );
    let warning = copy["warnings"][0].as_str().unwrap();
    assert!(warning.contains("the mark was removed"), "{copy}");
    assert!(stored.mark().is_none());
    let copy = stored.verify(&[]).expect(0).summary()["copies"][0].clone();
    assert_eq!(copy["id"], *stored.id);
}

#[test]
fn without_a_usable_index_the_dump_is_read_serially_and_that_is_told() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 5] = [
        ("sums", |chunks| {
            chunks["inline"]["around_rows"]["front"][0] = json!("a".repeat(64));
        }),
        ("lengths", |chunks| chunks["inline"]["raw"][0] = json!(17)),
        ("no chunk", |chunks| {
            chunks["inline"] = json!({"header_bytes": 10, "raw": [], "stored": []})
        }),
        ("missing beside", |chunks| {
            *chunks = json!({"beside": {"count": 9, "sha256": "a".repeat(64)}})
        }),
        ("shifted", |chunks| {
            // The sums are right, so that only reading finds out.
            for (list, step) in [("raw", 1), ("stored", 3)] {
                let lengths = chunks["inline"][list].as_array_mut().unwrap();
                lengths[1] = json!(lengths[1].as_u64().unwrap() + step);
                lengths[2] = json!(lengths[2].as_u64().unwrap() - step);
            }
        }),
    ];
    for (name, change) in changes {
        let stored = Stored::new();
        stored.change_manifest(|manifest| change(&mut manifest["chunks"]));
        let copy = stored.verify(&[]).expect(0).summary()["copies"][0].clone();
        assert_eq!(copy["rows"], 3 * ROWS, "{name}");
        assert!(
            copy["warnings"][0]
                .as_str()
                .unwrap()
                .contains("the chunk index cannot be used"),
            "{name}: {copy}"
        );
        assert!(stored.mark().is_none(), "{name}");
        super::verify::change(&stored.path(".sql.gz"), |bytes| bytes[5000] ^= 1);
        stored.expect_damage();
    }
}

#[test]
fn globals_that_are_damaged_do_not_cost_the_dump() {
    let stored = Stored::with(&["--globals"]);
    stored.verify(&[]).expect(0);
    change(&stored.path(".globals.sql.gz"), |bytes| bytes[12] ^= 1);
    let outcome = stored.verify(&[]).expect(23);
    assert_eq!(outcome.exit_error()["id"], "globals_damaged");
    assert!(stored.mark().is_none());
}

#[test]
fn a_sample_holds_the_newest_and_no_more_than_asked_for() {
    let stored = Stored::new();
    let mut ids: Vec<String> = (0..4).map(|_| stored.again()).collect();
    ids.push(stored.id.clone());
    for _ in 0..4 {
        let copies = stored.verify(&["--sample", "2"]).expect(0).summary()["copies"].clone();
        let read: Vec<&str> = copies
            .as_array()
            .unwrap()
            .iter()
            .map(|copy| copy["id"].as_str().unwrap())
            .collect();
        let newest = ids.iter().max().unwrap();
        assert_eq!((read.len(), read[0]), (3, newest.as_str()));
    }
    assert_eq!(
        stored.verify(&["--sample", "90"]).expect(0).summary()["copies"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    stored.verify(&["--sample", "0"]).expect(2);
    stored.verify(&["--sample", "1", "--all"]).expect(2);
}

#[test]
fn what_is_not_there_is_10() {
    let stored = Stored::new();
    for arguments in [
        &["shop-20200102T030405Z-7f3a"][..],
        &["nonsense"],
        &["-d", "blog", "--all"],
        &["-d", "blog"],
    ] {
        stored.verify(arguments).expect(10);
    }
}

/// Backs up into a bucket, and returns how to run commands over it.
fn bucket_shop(server: &S3Server) -> Shop {
    let mut shop = Shop::with_key(server);
    shop.prints(dump());
    shop.backup_to(&shop.oracle_of(server), &[]).expect(0);
    shop
}

fn over_bucket(shop: &Shop, server: &S3Server, command: &[&str]) -> Outcome {
    let url = format!("s3://{}/pg", server.bucket);
    let more = ["--storage", &url, "--s3-endpoint", &server.endpoint];
    shop.sandbox
        .pgkeep(["--json"].iter().chain(command).chain(&more))
        .run()
}

fn dump_in(server: &S3Server) -> (String, PathBuf) {
    let key = server
        .keys()
        .into_iter()
        .find(|key| key.ends_with(".sql.gz"))
        .unwrap();
    let path = server.bucket_dir().join(&key);
    (key, path)
}

#[test]
fn s3_copies_are_proven_marked_and_never_blamed_for_a_failing_network() {
    let server = ScriptedS3::start();
    let shop = bucket_shop(&server);
    over_bucket(&shop, &server, &["verify"]).expect(0);
    for fault in [
        Fault::status(503, "SlowDown").header("retry-after", "3600"),
        Fault::status(403, "AccessDenied"),
    ] {
        let code = if format!("{fault:?}").contains("403") {
            12
        } else {
            22
        };
        server.on(Rule::new("GET", fault).path(".sql.gz"));
        let outcome = over_bucket(&shop, &server, &["verify"]).expect(code);
        assert_eq!(outcome.summary()["copies"][0]["damaged"], false);
        server.behave();
    }
    let marked = |server: &S3Server| {
        server
            .keys()
            .iter()
            .any(|key| key.ends_with(".damaged.json"))
    };
    assert!(!marked(&server));
    let (_, path) = dump_in(&server);
    change(&path, |bytes| bytes[9000] ^= 4);
    over_bucket(&shop, &server, &["verify"]).expect(23);
    assert!(marked(&server));
}

#[test]
fn each_copy_is_judged_by_itself() {
    let server = S3Server::start();
    let mut shop = Shop::with_key(&server);
    shop.prints(dump());
    let (folder, bucket) = (
        shop.folder().display().to_string(),
        format!("s3://{}/pg", server.bucket),
    );
    let bin = shop.fake.bin().display().to_string();
    let both = [
        "--storage",
        &folder,
        "--storage",
        &bucket,
        "--s3-endpoint",
        &server.endpoint,
    ];
    let backup = ["--json", "backup", "--attempts", "1", "--bin-dir", &bin];
    shop.sandbox
        .pgkeep(backup.iter().chain(&both))
        .run()
        .expect(0);
    let (_, path) = dump_in(&server);
    change(&path, |bytes| bytes.truncate(7000));
    let outcome = shop
        .sandbox
        .pgkeep(["--json", "verify"].iter().chain(&both))
        .run()
        .expect(23);
    let copies = outcome.summary()["copies"].clone();
    assert_eq!(
        (&copies[0]["ok"], &copies[1]["damaged"]),
        (&json!(true), &json!(true))
    );
    // The other storage's copy is the newest good one.
    let hint = outcome.exit_error()["hints"][0]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        hint.contains("proven just now") && hint.contains(&folder),
        "{hint}"
    );
    let damaged = |keys: &[String]| {
        keys.iter()
            .filter(|key| key.ends_with(".damaged.json"))
            .count()
    };
    assert_eq!(damaged(&server.keys()), 1);
    assert!(
        !fs::read_dir(shop.folder().join("shop"))
            .unwrap()
            .any(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .ends_with(".damaged.json")
            })
    );
}

/// Answers once with bytes that nobody stored.
fn answers_once(server: &ScriptedS3, body: &str) {
    let fault = Fault::body(body)
        .header("last-modified", "Wed, 21 Oct 2026 07:28:00 GMT")
        .header("etag", "\"other\"");
    server.on(Rule::new("GET", fault).path(".sql.gz").times(1));
}

#[test]
fn what_a_second_reading_does_not_confirm_is_not_marked() {
    let server = ScriptedS3::start();
    let shop = bucket_shop(&server);
    answers_once(&server, "nothing that was stored");
    let outcome = over_bucket(&shop, &server, &["verify"]).expect(0);
    let copy = outcome.summary()["copies"][0].clone();
    assert_eq!(
        (&copy["ok"], &copy["marked"]),
        (&json!(true), &json!(false))
    );
    assert!(
        copy["warnings"][0]
            .as_str()
            .unwrap()
            .contains("the second did not"),
        "{copy}"
    );
    // Two readings that contradict the manifest and each other prove nothing either.
    answers_once(&server, "one thing");
    answers_once(&server, "another thing");
    let outcome = over_bucket(&shop, &server, &["verify"]).expect(22);
    assert_eq!(outcome.exit_error()["id"], "readings_differ");
    assert!(
        !server
            .keys()
            .iter()
            .any(|key| key.ends_with(".damaged.json"))
    );
}

#[test]
fn l1_a_signal_ends_a_long_reading_and_leaves_nothing() {
    for command in [
        &["verify"][..],
        &[
            "extract", "latest", "-t", TABLES[1], "--format", "csv", "-o", "rows.csv",
        ],
    ] {
        let server = ScriptedS3::start();
        let shop = bucket_shop(&server);
        // At this pace it would take an hour, and the run's own limit is a minute.
        server.on(Rule::new("GET", Fault::SlowAnswer(500)).path(".sql.gz"));
        let url = format!("s3://{}/pg", server.bucket);
        let more = ["--storage", &url, "--s3-endpoint", &server.endpoint];
        let running = shop
            .sandbox
            .pgkeep(["--json"].iter().chain(command).chain(&more))
            .start();
        let is_reading = || {
            server
                .log()
                .iter()
                .any(|seen| seen.method == "GET" && seen.path.contains(".sql.gz"))
        };
        while !is_reading() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        running.signal(rustix::process::Signal::INT);
        let outcome = running.wait().expect(130);
        assert_eq!(outcome.exit_error()["id"], "interrupted");
        let left: Vec<_> = fs::read_dir(shop.sandbox.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| {
                name.to_string_lossy().contains("rows")
                    || name.to_string_lossy().starts_with(".pgkeep")
            })
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A login page or a 404 in the storage's place is no damage, however often it comes: the listing says otherwise.
#[test]
fn an_answer_that_is_not_the_storages_marks_nothing() {
    let page = || {
        Fault::body("<html>please log in</html>")
            .header("last-modified", "Wed, 21 Oct 2026 07:28:00 GMT")
            .header("etag", "\"other\"")
    };
    let gone = || Fault::status(404, "NoSuchKey");
    for rule in [
        Rule::new("GET", page()).path("manifest.json"),
        Rule::new("GET", page()).path(".sql.gz"),
        Rule::new("GET", gone()).path("manifest.json"),
        Rule::new("GET", gone()).path(".sql.gz"),
    ] {
        let what = format!("{rule:?}");
        let server = ScriptedS3::start();
        let shop = bucket_shop(&server);
        server.on(rule);
        let outcome = over_bucket(&shop, &server, &["verify", "--all"]).expect(22);
        assert_eq!(outcome.summary()["copies"][0]["damaged"], false, "{what}");
        server.behave();
        assert!(
            !server
                .keys()
                .iter()
                .any(|key| key.ends_with(".damaged.json")),
            "{what}"
        );
        over_bucket(&shop, &server, &["verify"]).expect(0);
    }
}

/// A backup that retention removes between the listing and the reading is no damage.
#[test]
fn a_backup_that_goes_while_all_are_verified_is_no_damage() {
    let server = ScriptedS3::start();
    let shop = bucket_shop(&server);
    let id = || {
        let (key, _) = dump_in(&server);
        key.rsplit('/')
            .next()
            .unwrap()
            .trim_end_matches(".sql.gz")
            .to_owned()
    };
    let first = id();
    shop.backup_to(&shop.oracle_of(&server), &[]).expect(0);
    let empty = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    // As it looks when the manifest went first, and when the dump went while it was looked for.
    for part in ["manifest.json", "sql.gz"] {
        server
            .on(Rule::new("GET", Fault::status(404, "NoSuchKey")).path(format!("{first}.{part}")));
        server
            .on(Rule::new("GET", Fault::body(empty)).query(format!("prefix=pg%2Fshop%2F{first}")));
        let outcome = over_bucket(&shop, &server, &["verify", "--all"]).expect(0);
        let copies = outcome.summary()["copies"].clone();
        let copy = copies
            .as_array()
            .unwrap()
            .iter()
            .find(|copy| copy["id"] == *first)
            .unwrap();
        assert_eq!(
            (&copy["removed"], &copy["damaged"]),
            (&json!(true), &json!(false)),
            "{part}: {copy}"
        );
        let outcome = over_bucket(&shop, &server, &["verify", &first]);
        assert_ne!(
            outcome.status.code(),
            Some(0),
            "{part}: who asks for one wants to know"
        );
        server.behave();
        assert!(
            !server
                .keys()
                .iter()
                .any(|key| key.ends_with(".damaged.json")),
            "{part}"
        );
    }
}

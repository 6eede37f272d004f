//! The storage side (rows P) as far as `backup`, `list`, `show` and `get` meet it; the storages' own tests lie elsewhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::Shop;
use crate::support::sandbox::{Outcome, assert_private};
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};
use crate::support::{Oracle, Place, S3Server, skip};

/// Longer than one part, so that an upload is a multipart one.
const LARGE: u64 = 9_000_000;

/// What a dump is asked to be, to be stored in parts.
const IN_PARTS: &[&str] = &["--compression", "none"];

/// A script whose dump is stored in parts.
fn large() -> Value {
    json!({ "one_line_bytes": LARGE })
}

/// Runs pgkeep through a shell that sets the scene; `"$@"` is the program with its arguments.
fn in_scene(shop: &Shop, before: &str, more: &[&str]) -> Outcome {
    let folder = shop.folder().display().to_string();
    let bin = shop.fake.bin().display().to_string();
    let script = format!("{before} \"$@\"");
    let pgkeep = env!("CARGO_BIN_EXE_pgkeep");
    let fixed = [
        "-c",
        &script,
        "sh",
        pgkeep,
        "--json",
        "backup",
        "--attempts",
        "1",
        "--bin-dir",
        &bin,
        "--storage",
        &folder,
    ];
    shop.sandbox.program("sh", fixed.iter().chain(more)).run()
}

/// Tells whether this user may have a mount of its own.
fn can_mount() -> bool {
    let mount = ["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    let made = Command::new("unshare").args(mount).output();
    let can = made.is_ok_and(|output| output.status.success());
    if !can {
        skip("no user namespace to mount a small disk in");
    }
    can
}

/// Tells whether system calls can be made to fail.
fn can_inject() -> bool {
    let traced = Command::new("strace")
        .args(["-qq", "-e", "inject=fsync:error=EIO", "true"])
        .output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        skip("`strace` is not installed, or may not trace");
    }
    can
}

/// Backs up into a disk of its own, which is gone with its namespace; `after` sees it last.
fn on_disk(shop: &Shop, options: &str, after: &str) -> Outcome {
    fs::create_dir(shop.folder()).unwrap();
    let folder = shop.folder().display().to_string();
    let mount = format!("mount -t tmpfs -o {options},mode=700 tmpfs {folder}");
    let script = format!("{mount} && {{ \"$@\"; code=$?; {after}; exit $code; }}");
    let bin = shop.fake.bin().display().to_string();
    let pgkeep = env!("CARGO_BIN_EXE_pgkeep");
    let fixed = ["-Urm", "sh", "-c", &script, "sh", pgkeep, "backup"];
    let flags = ["--attempts", "1", "--bin-dir", &bin, "--storage", &folder];
    let run = fixed.iter().chain(&flags).chain(IN_PARTS);
    shop.sandbox.program("unshare", run).run()
}

#[test]
fn p1_a_full_disk_stores_nothing() {
    if !can_mount() {
        return;
    }
    let mut shop = Shop::new();
    shop.dumps(large());
    let outcome = on_disk(
        &shop,
        "size=1m",
        "find . -path '*/runs' -prune -o -type f -printf 'left: %f' >&2; df backups >&2",
    );
    assert_eq!(outcome.status.code(), Some(22), "{outcome}");
    assert!(outcome.stderr().contains("no space left"), "{outcome}");
    assert!(outcome.stderr().contains("nothing was stored"), "{outcome}");
    // The shell looked at the right disk, and found no file on it.
    assert!(outcome.stderr().contains("work/backups"), "{outcome}");
    assert!(!outcome.stderr().contains("left: "), "{outcome}");
}

#[test]
fn p1_a_file_size_limit_stores_nothing() {
    let mut shop = Shop::new();
    shop.backup(&[]).expect(0);
    shop.dumps(large());
    let oracle = shop.oracle();
    let before = oracle.before();
    // In blocks of 512 bytes: enough for what is small.
    let outcome = in_scene(&shop, "ulimit -f 2000; exec", IN_PARTS);
    assert_eq!(outcome.status.code(), Some(22), "{outcome}");
    oracle.judge(&before, &outcome);
    assert!(
        outcome.exit_error().to_string().contains("file size limit"),
        "{outcome}"
    );
}

#[test]
fn p2_p3_a_failing_system_call_stores_nothing() {
    if !can_inject() {
        return;
    }
    for (row, inject, says) in [
        ("P2", "renameat2:error=ENOSPC", "no space left"),
        ("P2", "fsync:error=ENOSPC:when=1", "no space left"),
        ("P3", "fsync:error=EIO:when=1", "input/output error"),
        ("P3", "fsync:error=EIO:when=2", "input/output error"),
    ] {
        let shop = Shop::new();
        shop.backup(&[]).expect(0);
        let oracle = shop.oracle();
        let before = oracle.before();
        let trace =
            format!("exec strace -f -qq -o /dev/null -e trace=fsync,renameat2 -e inject={inject}");
        let outcome = in_scene(&shop, &trace, &[]);
        assert_eq!(outcome.status.code(), Some(22), "{row} {inject}: {outcome}");
        oracle.judge(&before, &outcome);
        let error = outcome.exit_error().to_string();
        assert!(error.contains(says), "{row} {inject}: {error}");
        shop.backup(&[]).expect(0);
    }
}

#[test]
fn p4_a_folder_that_cannot_be_one_is_told_at_the_start() {
    let shop = Shop::new();
    let file = shop.sandbox.write("file", "untouched");
    for path in ["file", "file/below", "missing/parent"] {
        let bin = shop.fake.bin().display().to_string();
        let arguments = ["--json", "backup", "--bin-dir", &bin, "--storage", path];
        let outcome = shop.sandbox.pgkeep(arguments).run().expect(2);
        assert_eq!(outcome.exit_error()["id"], "storage_setup", "{path}");
        assert!(outcome.stdout.is_empty(), "{outcome}");
    }
    assert_eq!(fs::read(file).unwrap(), b"untouched");
    assert_eq!(shop.fake.calls("pg_dump").len(), 0);
}

#[test]
fn p4_a_folder_that_may_not_be_written_to() {
    if !can_mount() {
        return;
    }
    let outcome = on_disk(&Shop::new(), "ro", "true");
    assert_eq!(outcome.status.code(), Some(2), "{outcome}");
    assert!(outcome.stderr().contains("read-only"), "{outcome}");
}

#[test]
fn p5_a_planted_link_is_not_followed() {
    let shop = Shop::new();
    let target = shop.sandbox.write("elsewhere/precious", "untouched");
    fs::create_dir(shop.folder()).unwrap();
    symlink(target.parent().unwrap(), shop.folder().join("shop")).unwrap();
    let bin = shop.fake.bin().display().to_string();
    let arguments = [
        "--json",
        "backup",
        "--attempts",
        "1",
        "--bin-dir",
        &bin,
        "--storage",
        "backups",
    ];
    let outcome = shop.sandbox.pgkeep(arguments).run().expect(2);
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("links are not followed"),
        "{outcome}"
    );
    let files: Vec<_> = fs::read_dir(target.parent().unwrap())
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    assert_eq!(files, ["precious"]);
    assert_eq!(fs::read(target).unwrap(), b"untouched");
}

#[test]
fn p6_modes_are_private_whatever_the_umask() {
    let shop = Shop::new();
    let oracle = shop.oracle();
    let before = oracle.before();
    let outcome = in_scene(&shop, "umask 000; exec", &["--globals"]).expect(0);
    oracle.judge(&before, &outcome);
    assert_private(&shop.folder()).unwrap();
}

/// Runs one backup in parts into a bucket that meets `rules`, judged; a good one follows.
#[track_caller]
fn meet(rules: Vec<Rule>, code: i32) -> (Outcome, ScriptedS3) {
    meet_with(large(), rules, code)
}

/// Runs one backup of this dump into a bucket that meets `rules`, judged, between two good ones.
#[track_caller]
fn meet_with(script: Value, rules: Vec<Rule>, code: i32) -> (Outcome, ScriptedS3) {
    let server = ScriptedS3::start();
    let mut shop = Shop::with_key(&server);
    shop.backup_to(&shop.oracle_of(&server), &[]).expect(0);
    rules.into_iter().for_each(|rule| server.on(rule));
    shop.dumps(script);
    let outcome = shop.backup_to(&shop.oracle_of(&server), IN_PARTS);
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
    server.behave();
    shop.dumps(json!({}));
    shop.backup_to(&shop.oracle_of(&server), &[]).expect(0);
    (outcome, server)
}

#[test]
fn p7_a_store_that_stumbles_is_asked_again() {
    for fault in [
        Fault::status(500, "InternalError"),
        Fault::status(502, ""),
        Fault::status(503, "SlowDown").header("retry-after", "1"),
        Fault::status(429, ""),
        Fault::LoseAnswer,
    ] {
        for path in [".sql", "manifest.json"] {
            let once = Rule::new("PUT", fault.clone()).path(path).times(1);
            let (_, server) = meet_with(json!({}), vec![once], 0);
            let log = server.log().into_iter();
            let puts = log.filter(|seen| seen.method == "PUT" && seen.path.contains(path));
            assert_eq!(puts.count(), 4, "three runs, one of them twice: {fault:?}");
        }
    }
}

#[test]
fn p7_p9_a_part_that_got_lost_is_sent_again() {
    for fault in [
        Fault::status(500, "InternalError"),
        Fault::CutRequest(1_000_000),
    ] {
        let once = Rule::new("PUT", fault).query("partNumber=1").times(1);
        let (_, server) = meet(vec![once], 0);
        assert_eq!(server.count("PUT", "partNumber=1"), 2);
    }
}

#[test]
fn p7_a_store_that_asks_for_too_much_time_fails_the_run() {
    let busy = || Fault::status(503, "SlowDown").header("retry-after", "3600");
    for path in [".sql", "manifest.json"] {
        let (outcome, _) = meet_with(json!({}), vec![Rule::new("PUT", busy()).path(path)], 22);
        let error = outcome.exit_error();
        assert_eq!(error["id"], "storage_failed");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("nothing was stored"),
            "{error}"
        );
    }
}

#[test]
fn p10_an_upload_that_is_not_put_together_is_none() {
    let complete = |fault| Rule::new("POST", fault).query("uploadId=");
    let error = |code: &str| {
        Fault::body(format!(
            "<Error><Code>{code}</Code><Message>x</Message></Error>"
        ))
    };
    meet(vec![complete(error("InternalError")).times(2)], 0);
    meet(vec![complete(Fault::LoseAnswer).times(1)], 0);
    let (outcome, _) = meet(vec![complete(error("InvalidPart"))], 22);
    assert!(
        outcome.exit_error().to_string().contains("InvalidPart"),
        "{outcome}"
    );
}

#[test]
fn p11_what_could_not_be_given_up_changes_nothing_else() {
    let server = ScriptedS3::start();
    let mut shop = Shop::with_key(&server);
    let oracle = shop.oracle_of(&server);
    shop.backup_to(&oracle, &[]).expect(0);
    server.on(Rule::new("DELETE", Fault::status(403, "AccessDenied")));
    let before = oracle.before();
    drop(oracle);
    shop.dumps(json!({ "one_line_bytes": LARGE, "exit_code": 1 }));
    let oracle = shop.oracle_of(&server);
    let outcome = shop.run(&oracle, IN_PARTS).run().expect(20);
    oracle.judge_visible(&before, &outcome);
    assert_eq!(outcome.exit_error()["id"], "program_failed");
    assert_eq!(server.unfinished(), 1, "the abort was refused");
}

#[test]
fn p12_a_refusal_is_told_at_once() {
    for path in [".sql", "manifest.json"] {
        let (outcome, server) = meet_with(
            json!({}),
            vec![Rule::new("PUT", Fault::status(403, "AccessDenied")).path(path)],
            12,
        );
        assert_eq!(outcome.exit_error()["id"], "storage_denied");
        assert!(outcome.took < Duration::from_secs(5));
        drop(server);
    }
    // Who may only write makes good backups all the same.
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    server.on(Rule::new("GET", Fault::status(403, "AccessDenied")));
    let oracle = shop.oracle_of(&server);
    shop.run(&oracle, &[]).run().expect(0);
}

#[test]
fn p14_a_wrong_clock_is_named() {
    let skew =
        Fault::status(403, "RequestTimeTooSkewed").header("date", "Thu, 01 Jan 2026 00:00:00 GMT");
    let (outcome, server) = meet_with(json!({}), vec![Rule::new("PUT", skew)], 22);
    assert!(
        outcome.exit_error().to_string().contains("clock"),
        "{outcome}"
    );
    drop(server);
}

#[test]
fn p15_a_store_that_keeps_less_than_it_took_is_found_out() {
    let complete = |fault| Rule::new("POST", fault).query("uploadId=");
    meet(vec![complete(Fault::Truncate(1_000_000))], 22);
}

/// Makes a backup of the shop and returns the id and the file of its dump.
fn stored(shop: &Shop) -> (String, std::path::PathBuf) {
    let backup = shop.backup(&[]).expect(0).summary()["backups"][0].clone();
    let id = backup["backup_id"].as_str().unwrap().to_owned();
    let file = shop.folder().join(format!("shop/{id}.sql.gz"));
    (id, file)
}

#[test]
fn p15_a_damaged_dump_is_not_handed_out() {
    let shop = Shop::new();
    let (id, file) = stored(&shop);
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for bytes in [
        &whole[..whole.len() - 1],
        &flipped[..],
        &[&whole[..], b"x"].concat(),
        b"",
    ] {
        fs::write(&file, bytes).unwrap();
        let outcome = shop
            .over(&["--json", "get", &id, "-o", "out.sql.gz"])
            .run()
            .expect(23);
        assert_eq!(outcome.exit_error()["id"], "object_damaged", "{outcome}");
        shop.over(&["get", &id, "-o", "-"]).run().expect(23);
        assert_eq!(
            fs::read_dir(shop.sandbox.path(""))
                .unwrap()
                .filter(is_ours)
                .count(),
            0
        );
    }
    fs::remove_file(&file).unwrap();
    // Without its dump it is a damaged one, and said to be.
    shop.over(&["get", &id]).run().expect(23);
    let listed = shop.over(&["--json", "list"]).run().expect(0).json();
    assert_eq!(
        (
            &listed["backups"][0]["good"],
            &listed["backups"][0]["damaged"]
        ),
        (&false.into(), &true.into())
    );
    fs::write(&file, whole).unwrap();
    shop.over(&["get", &id, "-o", "out.sql.gz"]).run().expect(0);
}

fn is_ours(entry: &std::io::Result<fs::DirEntry>) -> bool {
    let name = entry.as_ref().unwrap().file_name();
    name.to_string_lossy().contains("out") || name.to_string_lossy().contains("pgkeep-get")
}

#[test]
fn p16_p17_a_manifest_is_read_with_suspicion() {
    let shop = Shop::new();
    let (id, dump) = stored(&shop);
    let (other, _) = stored(&shop);
    let file = dump.with_file_name(format!("{id}.manifest.json"));
    let text = fs::read_to_string(&file).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut changed = manifest.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed.to_string()
    };
    let cases = [
        ("empty", String::new(), 23),
        ("cut", text[..text.len() / 2].to_owned(), 23),
        ("not JSON", "<html>".to_owned(), 23),
        ("newer", changed("/format", json!(2)), 26),
        (
            "doubled key",
            text.replacen('{', &format!("{{\"id\":\"{other}\","), 1),
            23,
        ),
        ("id", changed("/id", json!(other)), 23),
        ("database", changed("/database", json!("ledger")), 23),
        ("sha256", changed("/object/sha256", json!("../x")), 23),
        (
            "key above",
            changed("/object/key", json!("../../etc/passwd")),
            23,
        ),
        (
            "absolute key",
            changed("/object/key", json!("/etc/passwd")),
            23,
        ),
        (
            "key of another",
            changed("/object/key", json!(format!("shop/{other}.sql.gz"))),
            23,
        ),
        ("nested", "[".repeat(200_000), 23),
    ];
    for (what, bytes, code) in cases {
        fs::write(&file, bytes).unwrap();
        let outcome = shop.over(&["--json", "show", &id]).run();
        assert_eq!(outcome.status.code(), Some(code), "{what}: {outcome}");
        outcome.exit_error();
        assert_eq!(
            shop.over(&["get", &id, "-o", "out"]).run().status.code(),
            Some(code),
            "{what}"
        );
        assert!(!shop.sandbox.path("out").exists(), "{what}");
        // One bad manifest hides no other backup.
        let list = shop.over(&["--json", "list"]).run().expect(0).json();
        assert_eq!(list["backups"].as_array().unwrap().len(), 2, "{what}");
        shop.over(&["show", &other]).run().expect(0);
    }
    for (pointer, value) in [
        ("/object/size_bytes", json!(5)),
        ("/object/sha256", json!("a".repeat(64))),
    ] {
        fs::write(&file, changed(pointer, value)).unwrap();
        shop.over(&["get", &id, "-o", "out"]).run().expect(23);
    }
    let mut more = manifest.clone();
    more["from_the_future"] = json!({ "a": [1] });
    fs::write(&file, more.to_string()).unwrap();
    shop.over(&["get", &id, "-o", "out"]).run().expect(0);
}

#[test]
fn p16_a_huge_manifest_is_not_read() {
    let shop = Shop::new();
    let (id, dump) = stored(&shop);
    let file = dump.with_file_name(format!("{id}.manifest.json"));
    fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    let outcome = shop.over(&["--json", "show", &id]).run().expect(23);
    assert_eq!(outcome.exit_error()["id"], "object_too_large");
    assert!(outcome.took < Duration::from_secs(5), "{outcome}");
    // Sparse, but the sandbox would read it.
    fs::remove_file(&file).unwrap();
}

#[test]
fn p16_a_dump_without_manifest_is_no_backup() {
    let shop = Shop::new();
    let (id, dump) = stored(&shop);
    fs::remove_file(dump.with_file_name(format!("{id}.manifest.json"))).unwrap();
    fs::write(dump.with_file_name("notes.txt"), "foreign").unwrap();
    fs::write(dump.with_file_name("../stray.sql.gz"), "foreign").unwrap();
    let list = shop.over(&["--json", "list"]).run().expect(0).json();
    assert_eq!(
        (&list["backups"], &list["unfinished"]),
        (&json!([]), &json!([id]))
    );
    for command in [
        &["show", &id][..],
        &["get", &id],
        &["show", "latest"],
        &["get"],
    ] {
        shop.over(command).run().expect(10);
    }
    assert!(dump.exists());
}

#[test]
fn p19_a_taken_name_is_never_replaced() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    server.on(Rule::new("PUT", Fault::status(412, "PreconditionFailed")).path(".sql.gz"));
    let oracle = shop.oracle_of(&server);
    let outcome = shop.backup_to(&oracle, &[]);
    assert_eq!(outcome.status.code(), Some(22), "{outcome}");
    assert_eq!(outcome.exit_error()["id"], "object_exists");
    // What has the name belongs to another run.
    let log = server.log().into_iter();
    let mut removed = log.filter(|seen| seen.method == "DELETE");
    assert!(removed.all(|seen| seen.path.ends_with("/lease.json")));
}

#[test]
fn p20_one_of_two_storages_fails() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    let both = || {
        Oracle::new(
            &shop.sandbox,
            vec![Place::Folder(shop.folder()), Place::Bucket(&server)],
        )
    };
    shop.backup_to(&both(), &["--copies", "2"]).expect(0);
    server.on(Rule::new("PUT", Fault::status(403, "AccessDenied")));
    let outcome = shop.backup_to(&both(), &[]).expect(3);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "some_storages_failed");
    assert!(
        error["message"].as_str().unwrap().contains("1 of 2"),
        "{error}"
    );
    let outcome = shop.backup_to(&both(), &["--copies", "2"]).expect(12);
    let message = outcome.exit_error()["message"].clone();
    assert!(
        message.as_str().unwrap().contains("of 2 copies"),
        "{message}"
    );
    server.behave();
    // The last moment: the dump is everywhere, one manifest is not.
    server.on(Rule::new("PUT", Fault::status(403, "AccessDenied")).path("manifest.json"));
    shop.backup_to(&both(), &[]).expect(3);
    server.behave();
    shop.backup_to(&both(), &[]).expect(0);
}

#[test]
fn p20_too_few_copies_at_the_last_moment_are_a_failure() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    let both = Oracle::new(
        &shop.sandbox,
        vec![Place::Folder(shop.folder()), Place::Bucket(&server)],
    );
    server.on(Rule::new("PUT", Fault::status(403, "AccessDenied")).path("manifest.json"));
    let outcome = shop.backup_to(&both, &["--copies", "2"]);
    assert_eq!(outcome.status.code(), Some(12), "{outcome}");
    let message = outcome.exit_error()["message"].clone();
    assert!(
        message.as_str().unwrap().contains("1 of 2 copies"),
        "{message}"
    );
}

/// A manifest that came about, does not count and cannot be taken away makes a backup that can be seen: that is told.
#[test]
fn p20_a_copy_that_is_too_few_and_stays_is_told() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    let refused = |method| Rule::new(method, Fault::status(403, "AccessDenied"));
    server.on(refused("DELETE"));
    // Both storages take the dump, and one the manifest, whichever comes first.
    server.on(refused("PUT").path("manifest.json").skip(1));
    let [one, two] = ["one", "two"].map(|prefix| format!("s3://{}/{prefix}", server.bucket));
    let bin = shop.fake.bin().display().to_string();
    let fixed = ["--json", "backup", "--attempts", "1", "--bin-dir", &bin];
    let storages = [
        "--storage",
        &one,
        "--storage",
        &two,
        "--s3-endpoint",
        &server.endpoint,
    ];
    let all = [&fixed[..], &storages, &["--copies", "2"]].concat();
    let outcome = shop.sandbox.pgkeep(all).run().expect(12);
    let error = outcome.exit_error();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("1 of 2 copies"), "{error}");
    assert!(message.contains("it may be stored as `shop-"), "{error}");
    assert!(!message.contains("nothing was stored"), "{error}");
    let details = error["details"].to_string();
    assert!(details.contains("could not be removed"), "{error}");
    let arguments = [&["--json", "list"][..], &storages].concat();
    let list = shop.sandbox.pgkeep(arguments).run().expect(0).json();
    let id = list["backups"][0]["id"].as_str().unwrap();
    assert!(message.contains(id), "{error}");
}

#[test]
fn p21_no_request_goes_where_it_was_not_sent() {
    let elsewhere = ScriptedS3::start();
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    let away = Fault::status(307, "TemporaryRedirect")
        .header("location", format!("{}/x", elsewhere.endpoint));
    server.on(Rule::new("PUT", away));
    let outcome = shop.backup_to(&shop.oracle_of(&server), &[]).expect(22);
    assert_eq!(elsewhere.log(), []);
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("nothing was stored")
    );
    server.behave();
    let region = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>x</Message><Region>eu-central-1</Region></Error>";
    server.on(Rule::new(
        "PUT",
        Fault::Answer {
            status: 400,
            headers: Vec::new(),
            body: region.to_owned(),
        },
    ));
    let outcome = shop.backup_to(&shop.oracle_of(&server), &[]);
    assert!(
        outcome.exit_error().to_string().contains("eu-central-1"),
        "{outcome}"
    );
}

#[test]
fn p21_tls_is_never_given_up() {
    let server = S3Server::start();
    let shop = Shop::with_key(&server);
    let https = server.endpoint.replace("http://", "https://");
    let bin = shop.fake.bin().display().to_string();
    let storage = format!("s3://{}/pg", server.bucket);
    let arguments = [
        "--json",
        "backup",
        "--attempts",
        "1",
        "--bin-dir",
        &bin,
        "--storage",
        &storage,
        "--s3-endpoint",
        &https,
    ];
    let outcome = shop.sandbox.pgkeep(arguments).run().expect(22);
    assert!(
        outcome
            .exit_error()
            .to_string()
            .contains("plain HTTP was not tried"),
        "{outcome}"
    );
    assert_eq!(server.keys(), [""; 0]);
}

#[test]
fn list_asks_once_per_storage() {
    let (first, second) = (ScriptedS3::start(), ScriptedS3::start());
    let shop = Shop::with_key(&first);
    for server in [&first, &second] {
        let oracle = shop.oracle_of(server);
        shop.backup_to(&oracle, &[]).expect(0);
        shop.backup_to(&oracle, &[]).expect(0);
    }
    let config = format!(
        "databases: {{shop: {{url: '${{DATABASE_URL}}'}}}}\nstorages:\n  a: {{url: s3://{}/pg, endpoint: {}}}\n  \
         b: {{url: s3://{}/pg, endpoint: {}}}\n",
        first.bucket, first.endpoint, second.bucket, second.endpoint
    );
    shop.sandbox.write("pgkeep.yaml", config);
    let before = [&first, &second].map(|server| server.log().len());
    let list = shop
        .sandbox
        .pgkeep(["--json", "list"])
        .run()
        .expect(0)
        .json();
    assert_eq!(list["backups"].as_array().unwrap().len(), 4);
    for (server, before) in [&first, &second].into_iter().zip(before) {
        let seen = server.log().split_off(before);
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(
            seen[0].method == "GET" && seen[0].query.contains("list-type=2"),
            "{seen:?}"
        );
    }
    // One that does not answer hides nothing of the other, and is told.
    second.on(Rule::new("GET", Fault::status(403, "AccessDenied")));
    let outcome = shop.sandbox.pgkeep(["--json", "list"]).run().expect(3);
    assert_eq!(outcome.json()["backups"].as_array().unwrap().len(), 2);
    first.on(Rule::new("GET", Fault::status(403, "AccessDenied")));
    shop.sandbox.pgkeep(["--json", "list"]).run().expect(12);
}

#[test]
fn get_takes_the_good_copy() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    let both = Oracle::new(
        &shop.sandbox,
        vec![Place::Folder(shop.folder()), Place::Bucket(&server)],
    );
    let backup = shop.backup_to(&both, &[]).expect(0).summary()["backups"][0].clone();
    let id = backup["backup_id"].as_str().unwrap();
    let file = shop.folder().join(format!("shop/{id}.sql.gz"));
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let command = ["--json", "get", id, "-o", "out"].map(str::to_owned);
    let outcome = shop
        .sandbox
        .pgkeep(command.into_iter().chain(both.flags()))
        .run()
        .expect(0);
    assert_eq!(outcome.json()["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(fs::read(shop.sandbox.path("out")).unwrap(), whole);
}

#[test]
fn get_replaces_nothing_unasked() {
    let shop = Shop::new();
    let (id, file) = stored(&shop);
    let whole = fs::read(&file).unwrap();
    let out = shop.sandbox.write("out", "precious");
    let outcome = shop
        .over(&["--json", "get", &id, "-o", "out"])
        .run()
        .expect(25);
    assert_eq!(outcome.exit_error()["id"], "file_exists");
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    shop.over(&["get", &id, "-o", "out", "--force"])
        .run()
        .expect(0);
    assert_eq!(fs::read(&out).unwrap(), whole);
    assert_eq!(shop.over(&["get", "-o", "-"]).run().expect(0).stdout, whole);
    shop.over(&["get"]).run().expect(0);
    assert!(Path::new(&shop.sandbox.path(format!("{id}.sql.gz"))).exists());
    let unknown = "shop-20200102T030405Z-0000";
    for id in [unknown, "nonsense", "../../etc/passwd"] {
        let outcome = shop.over(&["--json", "get", id]).run().expect(10);
        assert_eq!(outcome.exit_error()["id"], "no_such_backup");
        shop.over(&["show", id]).run().expect(10);
    }
}

/// A store that answers well and keeps nothing, half or something else of the manifest has no backup.
#[test]
fn b9_a_manifest_that_is_not_kept_is_no_backup() {
    let manifest = |rule: Rule| rule.path("manifest.json");
    for rule in [
        manifest(Rule::new("PUT", Fault::body("").header("etag", "\"x\""))),
        manifest(Rule::new("PUT", Fault::Truncate(700))),
        manifest(Rule::new(
            "GET",
            Fault::body("{}")
                .header("last-modified", "Wed, 21 Oct 2026 07:28:00 GMT")
                .header("etag", "\"other\""),
        )),
    ] {
        let what = format!("{rule:?}");
        let server = ScriptedS3::start();
        let shop = Shop::with_key(&server);
        server.on(rule);
        let outcome = shop.run(&shop.oracle_of(&server), &[]).run().expect(22);
        let error = outcome.exit_error();
        assert_eq!(error["id"], "manifest_not_kept", "{what}: {error}");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("nothing was stored"),
            "{what}: {error}"
        );
        server.behave();
        assert!(
            !server
                .keys()
                .iter()
                .any(|key| key.ends_with("manifest.json")),
            "{what}"
        );
    }
}

/// A backup that is not found again is no way back, also where another storage failed beside it.
#[test]
fn b9_no_command_runs_behind_what_is_not_found_again() {
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    let listing = "prefix=pg%2Fshop%2Fshop-";
    server.on(Rule::new("GET", Fault::status(404, "NoSuchKey")).query(listing));
    let (bin, ran) = (shop.fake.bin(), shop.sandbox.path("ran"));
    let file = shop.sandbox.write("file", "no folder");
    let storages = [
        format!("s3://{}/pg", server.bucket),
        file.join("x").display().to_string(),
    ];
    let flags = [
        "guard",
        "--attempts",
        "1",
        "--bin-dir",
        bin.to_str().unwrap(),
    ];
    let more = [
        "--storage",
        &storages[0],
        "--s3-endpoint",
        &server.endpoint,
        "--storage",
        &storages[1],
        "--",
        "touch",
        ran.to_str().unwrap(),
    ];
    let outcome = shop.sandbox.pgkeep(flags.into_iter().chain(more)).run();
    assert_ne!(outcome.code(), 0, "{outcome}");
    assert!(
        outcome.stderr().contains("no command finds it"),
        "{outcome}"
    );
    assert!(!ran.exists(), "{outcome}");
}

/// What no listing shows no command finds: never "proven".
#[test]
fn b9_what_cannot_be_found_again_is_not_called_proven() {
    let listing = "prefix=pg%2Fshop%2Fshop-";
    let empty = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let server = ScriptedS3::start();
    let shop = Shop::with_key(&server);
    server.on(Rule::new("GET", Fault::body(empty)).query(listing));
    let outcome = shop.run(&shop.oracle_of(&server), &[]).run().expect(22);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "commit_undecided");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("does not list it") && message.contains("it may be stored as"),
        "{error}"
    );
    server.behave();
    server.on(Rule::new("GET", Fault::status(404, "NoSuchKey")).query(listing));
    let bin = shop.fake.bin().display().to_string();
    let url = format!("s3://{}/pg", server.bucket);
    let flags = [
        "backup",
        "--attempts",
        "1",
        "--bin-dir",
        &bin,
        "--storage",
        &url,
        "--s3-endpoint",
        &server.endpoint,
    ];
    let outcome = shop.sandbox.pgkeep(flags).run().expect(3);
    assert!(
        outcome.stdout().contains("stored, but not found again"),
        "{outcome}"
    );
    assert!(!outcome.stdout().contains("proven"), "{outcome}");
    assert!(
        outcome.stderr().contains("no command finds it"),
        "{outcome}"
    );
    server.behave();
    shop.backup_to(&shop.oracle_of(&server), &[]).expect(0);
}

//! Encrypted copies that were changed: told before anything is handed on, and the next copy is read.

use std::fs;

use serde_json::json;

use super::Vault;
use crate::backup::Shop;
use crate::support::oracle::KEY;
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};
use crate::verify::{ROWS, dump};

const CHUNK: usize = 65_536 + 16;

/// Cut by a byte, cut at a chunk's end, chunks swapped, the header of another backup, a changed header.
#[test]
fn every_damage_is_found_with_the_key_and_marked() {
    let foreign = {
        let vault = Vault::new();
        vault.backup(&[]);
        fs::read(vault.file(".sql.gz.age")).unwrap()
    };
    let header =
        |bytes: &[u8]| bytes.windows(5).position(|five| five == b"\n--- ").unwrap() + 49 + 16;
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(&str, Change<'_>); 7] = [
        ("cut by a byte", &|bytes| bytes.truncate(bytes.len() - 1)),
        ("cut at a chunk's end", &|bytes| {
            bytes.truncate(header(bytes) + 2 * CHUNK)
        }),
        ("lengthened", &|bytes| bytes.push(0)),
        ("swapped", &|bytes| {
            let start = header(bytes);
            let (left, right) = bytes.split_at_mut(start + CHUNK);
            left[start..].swap_with_slice(&mut right[..CHUNK]);
        }),
        ("another's header", &|bytes| {
            let end = header(bytes);
            bytes[..end].copy_from_slice(&foreign[..end]);
        }),
        ("a changed header", &|bytes| {
            bytes[60] = if bytes[60] == b'A' { b'B' } else { b'A' };
        }),
        ("a header that nobody can read", &|bytes| bytes[60] = b'@'),
    ];
    for (name, change) in cases {
        let vault = Vault::new();
        vault.backup(&[]);
        vault.change(".sql.gz.age", change);
        let extract = [
            "extract",
            "latest",
            "--table",
            "orders",
            "--format",
            "csv",
            "--identity",
            KEY,
        ];
        let extracted = vault.over(&extract);
        if name != "lengthened" && !name.starts_with("cut") {
            assert!(matches!(extracted.code(), 23 | 12), "{name}: {extracted}");
            let id = extracted.exit_error()["id"].clone();
            assert_ne!(id, "no_identity", "{name}: {extracted}");
        }
        let verified = vault
            .over(&["verify", "--identity", KEY])
            .expect(23)
            .summary();
        assert_eq!(verified["copies"][0]["damaged"], json!(true), "{name}");
        vault.file(".damaged.json");
    }
}

/// Where one copy's header is damaged, the other storage's is read.
#[test]
fn the_next_copy_is_read_where_one_cannot_be_opened() {
    let vault = Vault::new();
    let other = vault.shop.sandbox.path("second").display().to_string();
    vault.backup(&["--storage", &other]);
    let mut found = fs::read_dir(vault.shop.sandbox.path("second/shop")).unwrap();
    let is_dump = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        path.to_string_lossy()
            .ends_with(".sql.gz.age")
            .then_some(path)
    };
    let dump = found.find_map(is_dump).unwrap();
    let mut bytes = fs::read(&dump).unwrap();
    bytes[60] = b'@';
    fs::write(&dump, bytes).unwrap();
    let extract = [
        "extract",
        "latest",
        "--table",
        "users",
        "--format",
        "csv",
        "-o",
        "users.csv",
        "--identity",
        KEY,
        "--storage",
        &other,
    ];
    let report = vault.over(&extract).expect(0).json();
    assert_eq!(report["rows"], ROWS);
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{report}");
}

/// A fault in the last write, when the last chunk of encryption comes: nothing is visible.
#[test]
fn a_storage_that_fails_at_the_very_end_has_no_backup() {
    let server = ScriptedS3::start();
    let mut shop = Shop::with_key(&server);
    shop.prints(dump());
    let recipient = super::generate(&shop.sandbox, KEY);
    server.on(Rule::new("PUT", Fault::status(403, "AccessDenied")).path(".sql.gz.age"));
    server.on(Rule::new("POST", Fault::status(403, "AccessDenied")).path(".sql.gz.age"));
    let oracle = shop.oracle_of(&server);
    let outcome = shop.backup_to(&oracle, &["--recipient", &recipient]);
    assert!(outcome.code() != 0, "{outcome}");
    assert_eq!(oracle.manifests(), 0);
}

//! The canary: a password that must never appear where people or files can see it (oracle O5).
//!
//! It holds characters that URLs, JSON and shells write differently, so every written form is looked for.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The password of every test user and key.
pub const CANARY: &str = "c4n@ry/Pa:ss \"wörd%";

/// Files are searched up to here: manifests, records and messages are far shorter, dumps are data.
const SEARCHED_BYTES: u64 = 4 << 20;

/// Returns the text with everything but unreserved characters as `%XX`.
pub fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Panics when `bytes` hold `secret` in any form.
pub fn assert_absent(secret: &str, place: &str, bytes: &[u8]) {
    for (form, needle) in forms(secret) {
        let is_there = memchr::memmem::find(bytes, &needle).is_some();
        assert!(
            !is_there,
            "{place} holds the secret ({form}):\n{}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(4096)])
        );
    }
}

/// Panics when a file below `folder` holds `secret`, in its name or its bytes; `allowed` files are not read.
pub fn assert_absent_below(secret: &str, folder: &Path, allowed: &[PathBuf]) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        assert_absent(secret, "a file name", entry.file_name().as_encoded_bytes());
        // Files come and go while programs run; one that is gone holds nothing.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            assert_absent_below(secret, &path, allowed);
        } else if kind.is_file() && !allowed.contains(&path) {
            let mut bytes = Vec::new();
            let file = fs::File::open(&path);
            let _ = file.and_then(|file| file.take(SEARCHED_BYTES).read_to_end(&mut bytes));
            assert_absent(secret, &path.display().to_string(), &bytes);
        }
    }
}

fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let json = serde_json::to_string(secret).expect("text is JSON");
    let encoded = percent_encoded(secret);
    vec![
        ("plain", secret.into()),
        ("JSON", json.trim_matches('"').into()),
        ("percent-encoded, lower case", encoded.to_lowercase().into()),
        ("percent-encoded", encoded.into()),
        ("base64", base64(secret.as_bytes()).into()),
    ]
}

/// Standard alphabet without the last group, whose form depends on what follows.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = u32::from(chunk[0]) << 16 | u32::from(chunk[1]) << 8 | u32::from(chunk[2]);
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift & 63) as usize]))
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

#[test]
fn finds_every_form_of_a_secret() {
    let written = [
        CANARY.to_owned(),
        percent_encoded(CANARY),
        percent_encoded(CANARY).to_lowercase(),
        serde_json::json!({ "password": CANARY }).to_string(),
        base64(CANARY.as_bytes()),
    ];
    for text in written {
        let found = std::panic::catch_unwind(|| assert_absent(CANARY, "x", text.as_bytes()));
        assert!(found.is_err(), "not found in {text}");
    }
    assert_absent(CANARY, "x", b"user@host:5432/database");
    assert_eq!(base64(b"pgkeep"), "cGdrZWVw");
}

//! The dumps below `tests/data`, what must be found in them, and damaged variants of a whole one.
//!
//! The damaged variants are derived here rather than stored: each says in one line what happened to the file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;

use super::Server;

/// What must be found in one dump; see `tests/data/README.md`.
#[derive(Debug, Deserialize)]
pub struct Truth {
    /// Size of the plain file.
    pub bytes: u64,
    /// SHA-256 of the plain file, in hex.
    pub sha256: String,
    /// Version of the server, as the dump says it.
    pub server: Option<String>,
    /// Version of pg_dump, as the dump says it.
    pub pg_dump: Option<String>,
    /// Whether lines end in CRLF.
    pub crlf: bool,
    /// Whether there is a `\restrict` line.
    pub restrict: bool,
    /// Whether pg_dump's closing line is there.
    pub end_marker: bool,
    /// Whether pg_dumpall's closing line is there.
    pub cluster_end_marker: bool,
    /// Backslash lines outside of data, in order.
    pub meta_commands: Vec<String>,
    /// CREATE TABLE statements, in order.
    pub tables: Vec<TruthTable>,
    /// COPY blocks, in order.
    pub copy: Vec<TruthCopy>,
    /// Rows written as INSERT, by table.
    pub insert_rows: BTreeMap<String, u64>,
    /// How psql loads it: `full`, `tables-match` or `data-only`.
    pub restores: String,
}

/// One CREATE TABLE statement.
#[derive(Debug, Deserialize)]
pub struct TruthTable {
    /// Database, after a `\connect`.
    pub db: Option<String>,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `plain`, `unlogged`, `foreign`, …
    pub kw: String,
}

/// One COPY block.
#[derive(Debug, Deserialize)]
pub struct TruthCopy {
    /// Database, after a `\connect`.
    pub db: Option<String>,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Rows in the block.
    pub rows: u64,
    /// Whether the block ends in `\.`.
    pub terminated: bool,
    /// SHA-256 of the sorted rows, each with its line feed, in hex.
    pub sorted_sha256: String,
}

/// One damaged variant of a whole dump.
pub struct Damaged {
    /// Short name; ends in `.gz` where the bytes are compressed.
    pub name: &'static str,
    /// What happened to it.
    pub why: &'static str,
    /// Whether a reader must call it complete.
    pub is_complete: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Returns a file below `tests/data`, unpacked where it is a `.gz`.
pub fn dump(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if name.ends_with(".gz") {
        gunzip(&bytes)
    } else {
        bytes
    }
}

/// Returns the nasty database for a server: one that was built without ICU gets its collations from libc, one that lacks
/// the library of `uuid-ossp` another extension, and one before 15 publications as it knows them.
pub fn nasty(server: &Server) -> Vec<u8> {
    let mut text = String::from_utf8(dump("nasty/nasty.sql")).expect("the nasty database is UTF-8");
    if !server.has_icu() {
        for icu in [
            "provider = icu, locale = 'und-u-ks-level2', deterministic = false",
            "provider = icu, locale = 'de-u-co-phonebk'",
        ] {
            assert!(text.contains(icu), "{icu}");
            text = text.replace(icu, "locale = 'C'");
        }
    }
    if server.try_sql("template1", "LOAD 'uuid-ossp'").is_err() {
        text = text.replace(
            "CREATE EXTENSION \"uuid-ossp\"",
            "CREATE EXTENSION pgcrypto",
        );
    }
    if server.major() < 15 {
        for (newer, older) in [
            (" (id, ref) WHERE (id > 10) WITH", " WITH"),
            (
                "CREATE PUBLICATION nasty_schema FOR TABLES IN SCHEMA parts;",
                "",
            ),
        ] {
            assert!(text.contains(newer), "{newer}");
            text = text.replace(newer, older);
        }
    }
    text.into_bytes()
}

/// Returns what must be found in each dump of `tests/data`, by file name.
pub fn truths() -> BTreeMap<String, Truth> {
    let mut truths: BTreeMap<String, Truth> =
        serde_json::from_slice(&dump("truth.json")).expect("truth.json fits `Truth`");
    // It lies with the program, not with the tests.
    truths.remove("pagila.sql.gz");
    truths
}

/// Returns the whole dump that the damaged ones come from: chinook by 15.18, 11 tables.
pub fn whole() -> Vec<u8> {
    dump("damaged/whole.sql.gz")
}

/// Returns every damaged variant, and the odd ones that are complete nevertheless.
pub fn damaged() -> Vec<Damaged> {
    let mut all = cut();
    all.extend(rewritten());
    all.extend(compressed());
    all
}

fn variant(name: &'static str, why: &'static str, is_complete: bool, bytes: Vec<u8>) -> Damaged {
    Damaged {
        name,
        why,
        is_complete,
        bytes,
    }
}

/// Bytes are missing from the end. psql takes most of these for whole.
fn cut() -> Vec<Damaged> {
    let whole = whole();
    let to = |end: usize| whole[..end].to_vec();
    let died = [&to(209_083)[..], b"\\.\n\n"].concat();
    let mut zeroed = to(376_339);
    zeroed.resize(whole.len(), 0);
    vec![
        variant("empty.sql", "zero bytes", false, Vec::new()),
        variant("cut-mid-row.sql", "cut in a COPY row", false, to(209_077)),
        variant(
            "cut-row-boundary.sql",
            "cut after a whole row",
            false,
            to(125_450),
        ),
        variant(
            "cut-last-column.sql",
            "cut in a row's last column",
            false,
            to(125_446),
        ),
        variant(
            "cut-after-data.sql",
            "all rows, no constraint",
            false,
            to(411_585),
        ),
        variant(
            "server-died.sql",
            "pg_dump ends the COPY of a lost connection",
            false,
            died,
        ),
        variant(
            "nul-bytes-tail.sql",
            "tail of NUL bytes, as after a crash",
            false,
            zeroed,
        ),
    ]
}

/// All text is there in another form, or with something added.
fn rewritten() -> Vec<Damaged> {
    let whole = whole();
    let text = String::from_utf8(whole.clone()).expect("chinook is UTF-8");
    let utf16 = std::iter::once(0xFEFF)
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let warnings = "pg_dump: warning: there are circular foreign-key constraints on this table:\n\
                    pg_dump: detail: node\n";
    let added = "\nCREATE TABLE public.added_later (id int);\n";
    let other_key = text.replacen("\\unrestrict ", "\\unrestrict X", 1);
    vec![
        variant("whole.sql", "nothing", true, whole),
        variant(
            "crlf.sql",
            "written through `docker exec -t`",
            true,
            text.replace('\n', "\r\n").into(),
        ),
        variant(
            "bom.sql",
            "byte order mark in front",
            true,
            format!("\u{feff}{text}").into(),
        ),
        variant("utf16.sql", "redirected by PowerShell", false, utf16),
        variant(
            "stderr-in-front.sql",
            "2>&1: whole, though it does not restore",
            true,
            format!("{warnings}{text}").into(),
        ),
        variant(
            "end-marker-then-more.sql",
            "statements after the end marker",
            true,
            format!("{text}{added}").into(),
        ),
        variant(
            "wrong-unrestrict.sql",
            "\\unrestrict has another key",
            false,
            other_key.into(),
        ),
        variant(
            "latin1.sql",
            "LATIN1 bytes, table `Größe`",
            true,
            dump("damaged/latin1.sql"),
        ),
        variant(
            "eucjp.sql",
            "EUC_JP bytes, table U+8868",
            true,
            dump("damaged/eucjp.sql"),
        ),
    ]
}

/// The gzip around it is damaged, or odd.
fn compressed() -> Vec<Damaged> {
    let whole = whole();
    let gz = gzip(&whole);
    let middle = gz.len() / 2;
    let mut flipped = gz.clone();
    flipped[middle] ^= 0x10;
    let two = [gzip(&whole[..100_000]), gzip(&whole[100_000..])].concat();
    vec![
        variant(
            "empty.sql.gz",
            "what `pg_dump | gzip` leaves of a failed login",
            false,
            gzip(b""),
        ),
        variant(
            "cut.sql.gz",
            "gzip stream cut",
            false,
            gz[..middle].to_vec(),
        ),
        variant("bitflip.sql.gz", "one bit flipped", false, flipped),
        variant(
            "no-trailer.sql.gz",
            "gzip's last eight bytes missing",
            false,
            gz[..gz.len() - 8].to_vec(),
        ),
        variant(
            "trailing-garbage.sql.gz",
            "bytes after the member",
            false,
            [&gz[..], b"garbage"].concat(),
        ),
        variant(
            "first-member-only.sql.gz",
            "cut where the second member starts",
            false,
            gzip(&whole[..100_000]),
        ),
        variant("two-members.sql.gz", "two members, valid", true, two),
        variant("whole.sql.gz", "nothing", true, gz),
    ]
}

/// Compresses as gzip does, one member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Unpacks one member.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes)
        .read_to_end(&mut plain)
        .expect("the test's own gzip is whole");
    plain
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

//! Encrypted backups: nobody without a key reads them, whoever has one reads all of them or one table, and a key that
//! was never tried is warned of.

mod damage;
mod keys;
mod real;
mod requests;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::backup::Shop;
use crate::support::Sandbox;
use crate::support::oracle::KEY;
use crate::support::sandbox::Outcome;
use crate::verify::{ROWS, dump};

/// A shop with keys: `key.txt` is of a recipient, `other.txt` of nobody.
struct Vault {
    shop: Shop,
    recipient: String,
    other: String,
}

impl Vault {
    fn new() -> Self {
        let mut shop = Shop::new();
        shop.prints(dump());
        let recipient = generate(&shop.sandbox, KEY);
        let other = generate(&shop.sandbox, "other.txt");
        Self {
            shop,
            recipient,
            other,
        }
    }

    #[track_caller]
    fn backup(&self, more: &[&str]) -> Value {
        let flags = ["--recipient", &self.recipient];
        let all: Vec<&str> = flags.iter().chain(more).copied().collect();
        self.shop.backup(&all).expect(0).summary()["backups"][0].take()
    }

    fn over(&self, command: &[&str]) -> Outcome {
        let json = ["--json"].iter().chain(command).copied();
        self.shop.over(&json.collect::<Vec<_>>()).run()
    }

    /// The only stored file that ends so.
    fn file(&self, end: &str) -> PathBuf {
        let folder = fs::read_dir(self.shop.folder().join("shop")).unwrap();
        let mut found = folder.map(|entry| entry.unwrap().path());
        let is_it = |path: &PathBuf| path.to_string_lossy().ends_with(end);
        found.find(is_it).unwrap_or_else(|| panic!("no `{end}`"))
    }

    fn change(&self, end: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.file(end);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file(".manifest.json")).unwrap()).unwrap()
    }
}

fn generate(sandbox: &Sandbox, file: &str) -> String {
    let command = ["--json", "keys", "generate", "--output", file];
    let made = sandbox.pgkeep(command).run().expect(0).json();
    made["recipient"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_stored_is_an_age_file_whose_recipients_stand_in_manifest_and_listing() {
    let vault = Vault::new();
    let report = vault.backup(&["--recipient", &vault.other]);
    let id = report["backup_id"].as_str().unwrap();
    let both = json!([vault.recipient, vault.other]);
    assert_eq!(report["recipients"], both);
    let bytes = fs::read(vault.file(".sql.gz.age")).unwrap();
    assert!(bytes.starts_with(b"age-encryption.org/v1\n-> X25519 "));
    let manifest = vault.manifest();
    assert_eq!(manifest["encryption"]["recipients"], both);
    let header = manifest["encryption"]["header_bytes"].as_u64().unwrap() as usize;
    let end = bytes.windows(5).position(|five| five == b"\n--- ").unwrap() + 1;
    let line = bytes[end..].iter().position(|b| *b == b'\n').unwrap() + 1;
    assert_eq!(header, end + line);
    let line = manifest["restore"].as_str().unwrap();
    assert!(
        line.contains(&format!("age -d -i KEY {id}.sql.gz.age | gunzip -c |")),
        "{line}"
    );
    let note: Value = serde_json::from_slice(&fs::read(vault.file(".json")).unwrap()).unwrap();
    assert!(note.is_object());
    // A plain backup beside it says so.
    let plain = vault.shop.backup(&[]).expect(0).summary();
    assert_eq!(plain["backups"][0]["recipients"], json!([]));
}

#[test]
fn roles_are_encrypted_too() {
    let mut vault = Vault::new();
    let globals = "--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE app;\n\n--\n-- PostgreSQL database cluster dump complete\n--\n";
    let body = vault.shop.sandbox.write("globals.sql", globals);
    vault
        .shop
        .fake
        .script("pg_dumpall", json!({ "body": body }));
    vault.backup(&["--globals"]);
    let stored = fs::read(vault.file(".globals.sql.gz.age")).unwrap();
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
    vault.over(&["verify", "--identity", KEY]).expect(0);
    let get = [
        "get",
        "latest",
        "--globals",
        "--decrypt",
        "--identity",
        KEY,
        "-o",
        "roles.gz",
    ];
    vault.over(&get).expect(0);
    let roles = fs::read(vault.shop.sandbox.path("roles.gz")).unwrap();
    assert_eq!(crate::support::data::gunzip(&roles), globals.as_bytes());
}

#[test]
fn one_table_comes_out_with_the_key_and_not_without() {
    let vault = Vault::new();
    vault.backup(&[]);
    let extract = ["extract", "latest", "--table", "users", "--format", "csv"];
    let without = vault.over(&extract).expect(12);
    assert_eq!(without.exit_error()["id"], "no_identity");
    assert_eq!(without.exit_error()["details"], json!([vault.recipient]));
    let with_other = [&extract[..], &["--identity", "other.txt"]].concat();
    let wrong = vault.over(&with_other).expect(12);
    assert_eq!(wrong.exit_error()["id"], "wrong_identity");
    assert!(wrong.stdout.is_empty(), "{wrong}");
    let with_both = [
        &extract[..],
        &["--identity", "other.txt", "--identity", KEY],
    ]
    .concat();
    let right = vault.over(&with_both).expect(0);
    assert_eq!(right.stdout().lines().count(), ROWS + 1);
}

/// Every codec, and a dump whose end falls anywhere in a chunk.
#[test]
fn every_codec_is_verified_and_downloaded_with_the_key() {
    let mut vault = Vault::new();
    for compression in ["gzip", "zstd", "none"] {
        let text = dump();
        vault.shop.prints(&text);
        vault.backup(&["--compression", compression]);
        let verified = vault
            .over(&["verify", "--identity", KEY])
            .expect(0)
            .summary();
        assert_eq!(verified["copies"][0]["rows"], 3 * ROWS, "{compression}");
        assert_eq!(verified["copies"][0]["opened"], true);
        let get = [
            "get",
            "latest",
            "--decrypt",
            "--identity",
            KEY,
            "--force",
            "-o",
            "dump",
        ];
        vault.over(&get).expect(0);
        let inspect = ["--json", "inspect", "dump"];
        let inspected = vault.shop.sandbox.pgkeep(inspect).run().expect(0).json();
        assert_eq!(inspected["bytes"], text.len(), "{compression}");
        fs::remove_dir_all(vault.shop.folder()).unwrap();
    }
}

#[test]
fn without_a_key_the_stored_bytes_are_verified() {
    let vault = Vault::new();
    vault.backup(&[]);
    let verified = vault.over(&["verify"]).expect(0).summary();
    let copy = &verified["copies"][0];
    assert_eq!(
        (&copy["ok"], &copy["opened"]),
        (&json!(true), &json!(false))
    );
    vault.change(".sql.gz.age", |bytes| bytes[70_000] ^= 1);
    let verified = vault.over(&["verify"]).expect(23).summary();
    assert_eq!(verified["copies"][0]["problems"][0]["id"], "sha256_differs");
}

#[test]
fn files_are_read_with_a_key() {
    let vault = Vault::new();
    vault.backup(&[]);
    let file = vault.file(".sql.gz.age").display().to_string();
    let run = |command: &[&str]| {
        let all = ["--json"].iter().chain(command).copied();
        vault.shop.sandbox.pgkeep(all).run()
    };
    let inspected = run(&["inspect", &file, "--identity", KEY]).expect(0).json();
    assert_eq!(inspected["complete"], true);
    run(&["inspect", &file]).expect(12);
    run(&["inspect", &file, "--identity", "other.txt"]).expect(12);
    // The environment may name the key, as secrets of a CI job do.
    let by_variable = ["--json", "inspect", &file];
    let environment = vault.shop.sandbox.pgkeep(by_variable);
    environment.env("PGKEEP_IDENTITY_FILE", KEY).run().expect(0);
    let csv = ["extract", &file, "--table", "users", "--format", "csv"];
    assert_eq!(run(&csv).expect(12).exit_error()["id"], "no_identity");
    let restore = ["restore", &file, "--into", "postgresql://h.invalid/d"];
    assert_eq!(run(&restore).expect(12).exit_error()["id"], "no_identity");
    let table = [
        "extract",
        &file,
        "--table",
        "users",
        "--format",
        "csv",
        "--identity",
        KEY,
    ];
    assert_eq!(run(&table).expect(0).stdout().lines().count(), ROWS + 1);
}

/// Encryption that cannot be used means no backup, never one in plain text.
#[test]
fn whoever_cannot_be_encrypted_for_gets_no_backup() {
    let vault = Vault::new();
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKT";
    let cut = &vault.recipient[..50].to_owned();
    let yubikey = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t";
    for (recipient, why) in [
        (ssh, "ssh-to-age"),
        (cut, "no valid recipient"),
        ("hunter2hunter2", "no recipient of age"),
        (yubikey, "age-plugin-yubikey"),
    ] {
        let outcome = vault.shop.backup(&["--recipient", recipient]).expect(2);
        let error = outcome.exit_error();
        assert_eq!(error["id"], "bad_recipient");
        let said = error["message"].as_str().unwrap();
        assert!(said.contains(why) && !said.contains("hunter2"), "{said}");
        assert!(said.ends_with("nothing was stored"), "{said}");
    }
    // The key at hand must open what is written, or be none.
    let flags = ["--recipient", &vault.recipient, "--identity", "other.txt"];
    let outcome = vault.shop.backup(&flags).expect(12);
    assert_eq!(outcome.exit_error()["id"], "wrong_identity");
    vault
        .shop
        .backup(&["--recipient", &vault.recipient, "--identity", KEY])
        .expect(0);
}

#[test]
fn recipients_come_from_files_of_any_editor_and_bad_lines_are_told() {
    let vault = Vault::new();
    let config = |encryption: &str| {
        let text = format!(
            "defaults:\n  encryption: {encryption}\ndatabases:\n  shop: {{url: '${{DATABASE_URL}}'}}\n\
             postgres: {{bin_dir: '{}'}}\nstorages:\n  local: {{url: ./backups}}\n",
            vault.shop.fake.bin().display()
        );
        vault.shop.sandbox.write("pgkeep.yaml", text);
        let command = ["--json", "backup"];
        vault.shop.sandbox.pgkeep(command).run()
    };
    let text = format!(
        "\u{feff}# team\r\n{}\r\n\r\n  {}  \r\n",
        vault.recipient, vault.other
    );
    vault.shop.sandbox.write("team.txt", text);
    let backup = config("{recipients_file: team.txt}").expect(0).summary();
    assert_eq!(
        backup["backups"][0]["recipients"],
        json!([vault.recipient, vault.other])
    );
    vault
        .shop
        .sandbox
        .write("team.txt", format!("{}\n\nhunter2\n", vault.recipient));
    let error = config("{recipients_file: team.txt}").expect(2).exit_error();
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("line 3 of the recipients file"),
        "{error}"
    );
    assert!(!error.to_string().contains("hunter2"));
    vault.shop.sandbox.write("team.txt", "# nobody\n");
    config("{recipients_file: team.txt}").expect(2);
    config("{recipients_file: missing.txt}").expect(2);
    for (encryption, why) in [
        (
            "{passphrase: hunter2}",
            "a passphrase would lie on every host",
        ),
        ("{}", "names nobody who can open"),
        ("{recipients: AGE-SECRET-KEY-1QQQQ}", "private key"),
        ("on", "or be `off`"),
    ] {
        let error = config(encryption).expect(2).exit_error();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let backup = config("off").expect(0).summary();
    assert_eq!(backup["backups"][0]["recipients"], json!([]));
}

/// One database whose recipients cannot be read does not stop the others.
#[test]
fn a_bad_recipients_file_is_one_databases_trouble() {
    let vault = Vault::new();
    let text = format!(
        "databases:\n  bad: {{url: '${{DATABASE_URL}}', encryption: {{recipients_file: missing.txt}}}}\n  \
         good: {{url: '${{DATABASE_URL}}', encryption: {{recipients: {}}}}}\n\
         postgres: {{bin_dir: '{}'}}\nstorages:\n  local: {{url: ./backups}}\n",
        vault.recipient,
        vault.shop.fake.bin().display()
    );
    vault.shop.sandbox.write("pgkeep.yaml", text);
    let summary = vault
        .shop
        .sandbox
        .pgkeep(["--json", "backup"])
        .run()
        .expect(2)
        .summary();
    let stored = |at: usize| summary["backups"][at]["stored"].clone();
    assert_eq!((stored(0), stored(1)), (json!(false), json!(true)));
}

/// A key that others can read is no secret any more.
#[test]
fn an_identity_that_everyone_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let vault = Vault::new();
    vault.backup(&[]);
    let path = vault.shop.sandbox.path(KEY);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = vault
        .over(&["verify", "--identity", KEY])
        .expect(2)
        .exit_error();
    assert_eq!(error["id"], "identity_open_to_all");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    vault.over(&["verify", "--identity", KEY]).expect(0);
    let missing = vault
        .over(&["verify", "--identity", "nowhere.txt"])
        .expect(2);
    assert_eq!(missing.exit_error()["id"], "cannot_read_identity");
    vault.shop.sandbox.write("public.txt", &vault.recipient);
    let public = vault
        .over(&["verify", "--identity", "public.txt"])
        .expect(2);
    assert_eq!(public.exit_error()["id"], "bad_identity");
}

//! `pgkeep keys`, and the warnings that go when a key was seen to open a backup and come back when the recipients change.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::Vault;
use crate::backup::Shop;
use crate::support::oracle::KEY;
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};
use crate::verify::dump;

/// What `status` warns of.
fn warnings(vault: &Vault) -> Vec<String> {
    let status = vault.over(&["status"]).expect(0).json();
    let warnings = status["databases"][0]["warnings"]
        .as_array()
        .unwrap()
        .clone();
    warnings
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_key_is_asked_for_until_it_opened_a_backup_and_again_after_a_change() {
    let vault = Vault::new();
    let second = super::generate(&vault.shop.sandbox, "second.txt");
    let report = vault.backup(&["--recipient", &second]);
    let warned = |report: &Value| {
        let all = report["warnings"].as_array().unwrap().clone();
        all.iter()
            .filter(|one| one["id"] == "key_not_proven")
            .count()
    };
    assert_eq!(warned(&report), 1, "{report}");
    assert!(warnings(&vault)[0].starts_with("no key has ever opened"));
    // A wrong key proves nothing.
    vault
        .over(&["keys", "prove", "--identity", "other.txt"])
        .expect(12);
    assert_eq!(warnings(&vault).len(), 1);
    let proven = vault
        .over(&["keys", "prove", "--identity", "second.txt"])
        .expect(0)
        .json();
    assert_eq!(proven["databases"][0]["opened_by"], json!([second]));
    assert_eq!(warnings(&vault), [""; 0]);
    assert_eq!(warned(&vault.backup(&["--recipient", &second])), 0);
    // Other recipients: nobody knows whether their keys open anything.
    let report = vault.backup(&["--recipient", &vault.other]);
    assert_eq!(warned(&report), 1, "{report}");
    assert!(warnings(&vault)[0].starts_with("the recipients have changed"));
    vault.over(&["verify", "--identity", "other.txt"]).expect(0);
    assert_eq!(warnings(&vault), [""; 0]);
}

#[test]
fn a_single_recipient_is_warned_of() {
    let vault = Vault::new();
    vault.backup(&[]);
    vault.over(&["keys", "prove", "--identity", KEY]).expect(0);
    let warnings = warnings(&vault);
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("only one key"),
        "{warnings:?}"
    );
}

#[test]
fn backups_are_counted_by_the_key_that_they_need() {
    let vault = Vault::new();
    vault.shop.backup(&[]).expect(0);
    vault.backup(&[]);
    vault.backup(&[]);
    vault.shop.backup(&["--recipient", &vault.other]).expect(0);
    let list = vault
        .over(&["keys", "list", "--identity", KEY])
        .expect(0)
        .json();
    let keys = &list["databases"][0];
    assert_eq!(keys["plain"], 1);
    let sets = keys["sets"].as_array().unwrap();
    let told: Vec<(&Value, &Value, &Value)> = sets
        .iter()
        .map(|set| (&set["backups"], &set["recipients"][0], &set["opens"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!(1), &json!(vault.other), &json!(false)),
            (&json!(2), &json!(vault.recipient), &json!(true)),
        ]
    );
    let warnings = keys["warnings"].to_string();
    assert!(
        warnings.contains("2 backups still need another key"),
        "{warnings}"
    );
}

/// After a rotation the new key opens no old backup, and their bytes are compared all the same.
#[test]
fn a_wrong_key_does_not_keep_verify_from_the_bytes() {
    let vault = Vault::new();
    vault.backup(&[]);
    let wrong = ["verify", "--identity", "other.txt"];
    assert_eq!(
        vault.over(&wrong).expect(12).exit_error()["id"],
        "wrong_identity"
    );
    let all = ["verify", "--all", "--identity", "other.txt"];
    let verified = vault.over(&all).expect(0).summary();
    let copy = &verified["copies"][0];
    assert_eq!(
        (&copy["ok"], &copy["opened"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(copy["warnings"].as_array().unwrap().len(), 1, "{verified}");
    vault.change(".sql.gz.age", |bytes| bytes[90_000] ^= 1);
    vault.over(&wrong).expect(23);
}

/// A manifest that names another header fits no file.
#[test]
fn a_header_of_another_length_is_found() {
    for length in [json!(0), json!(u64::MAX), json!(70_000)] {
        let vault = Vault::new();
        vault.backup(&[]);
        let mut manifest = vault.manifest();
        manifest["encryption"]["header_bytes"] = length.clone();
        fs::write(vault.file(".manifest.json"), manifest.to_string()).unwrap();
        let extract = [
            "extract",
            "latest",
            "--table",
            "users",
            "--format",
            "csv",
            "--identity",
            KEY,
        ];
        vault.over(&extract).expect(23);
        vault.over(&["verify", "--identity", KEY]).expect(23);
    }
}

#[test]
fn plain_backups_behind_encrypted_ones_are_told() {
    let vault = Vault::new();
    vault.backup(&[]);
    vault.shop.backup(&[]).expect(0);
    assert!(warnings(&vault)[0].starts_with("the newest backup is not encrypted"));
    // The newest encrypted one is what a key can open.
    vault.over(&["keys", "prove", "--identity", KEY]).expect(0);
}

/// What the environment names may be the key of another database.
#[test]
fn a_key_of_the_environment_stops_no_backup() {
    let mut vault = Vault::new();
    vault.shop.sandbox.set("PGKEEP_IDENTITY_FILE", "other.txt");
    vault.backup(&[]);
    vault.shop.sandbox.set("PGKEEP_IDENTITY_FILE", "");
    vault.over(&["verify"]).expect(0);
    vault.shop.sandbox.set("PGKEEP_IDENTITY_FILE", KEY);
    let verified = vault.over(&["verify"]).expect(0).summary();
    assert_eq!(verified["copies"][0]["opened"], true);
}

/// A record of the future says nothing: a clock was wrong.
#[test]
fn a_proof_from_the_future_is_none() {
    let vault = Vault::new();
    vault.backup(&["--recipient", &vault.other]);
    vault.over(&["keys", "prove", "--identity", KEY]).expect(0);
    let mut records = fs::read_dir(vault.shop.folder().join("shop/keys")).unwrap();
    let path = records.next().unwrap().unwrap().path();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let (fingerprint, _) = name.split_once('.').unwrap();
    let future = format!("{fingerprint}.shop-20990102T030405Z-7f3a.json");
    fs::rename(&path, path.with_file_name(future)).unwrap();
    assert!(warnings(&vault)[0].starts_with("no key has ever opened"));
}

/// The note of the recipients goes with its backup.
#[test]
fn nothing_is_left_of_a_backup_that_is_pruned() {
    let vault = Vault::new();
    let first = vault.backup(&[])["backup_id"].as_str().unwrap().to_owned();
    vault.backup(&[]);
    let text = "databases:\n  shop: {url: 'postgresql://h/d', retention: {keep_last: 1}}\n\
                storages:\n  local: {url: ./backups}\n";
    vault.shop.sandbox.write("pgkeep.yaml", text);
    vault.shop.sandbox.pgkeep(["prune"]).run().expect(0);
    let names = fs::read_dir(vault.shop.folder().join("shop")).unwrap();
    let left = names.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(&first)
    });
    assert_eq!(left.count(), 0);
}

/// A laptop that may only read proves the key all the same, and the host that may write records it.
#[test]
fn who_may_only_read_proves_and_the_writer_records() {
    let server = ScriptedS3::start();
    let mut shop = Shop::with_key(&server);
    shop.prints(dump());
    let recipient = super::generate(&shop.sandbox, KEY);
    let oracle = shop.oracle_of(&server);
    let backup = shop
        .backup_to(&oracle, &["--recipient", &recipient])
        .expect(0);
    let id = backup.summary()["backups"][0]["backup_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let flags = oracle.flags();
    let run = |command: &[&str]| {
        let all = ["--json"].iter().chain(command).map(|&one| one.to_owned());
        shop.sandbox.pgkeep(all.chain(flags.clone())).run()
    };
    server.on(Rule::new("PUT", Fault::status(403, "AccessDenied")));
    let proven = run(&["keys", "prove", "--identity", KEY]).expect(3);
    assert_eq!(proven.exit_error()["id"], "proof_not_recorded");
    assert_eq!(proven.json()["databases"][0]["recorded_in"], json!([]));
    let hint = proven.exit_error()["hints"][0].as_str().unwrap().to_owned();
    assert!(
        hint.contains(&format!("pgkeep keys prove {id} --told")),
        "{hint}"
    );
    server.behave();
    run(&["keys", "prove", "--told"]).expect(2);
    run(&["keys", "prove", "latest", "--told"]).expect(2);
    run(&["keys", "prove", &id, "--told", "--identity", KEY]).expect(2);
    run(&["keys", "prove", &id, "--told"]).expect(0);
    let status = run(&["status"]).expect(0).json();
    assert!(
        status["databases"][0]["keys"][0]["proven_at"].is_string(),
        "{status}"
    );
}

#[test]
fn plain_backups_need_no_key() {
    let vault = Vault::new();
    vault.shop.backup(&[]).expect(0);
    let error = vault
        .over(&["keys", "prove", "--identity", KEY])
        .expect(10)
        .exit_error();
    assert_eq!(error["id"], "not_encrypted");
    let list = vault.over(&["keys", "list"]).expect(0).json();
    assert_eq!(list["databases"][0]["sets"], json!([]));
}

#[test]
fn a_key_is_made_for_its_owner_and_not_beside_backups() {
    let vault = Vault::new();
    let mode = fs::metadata(vault.shop.sandbox.path(KEY))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let generate = |file: &str| {
        let command = ["--json", "keys", "generate", "--output", file];
        vault.shop.sandbox.pgkeep(command).run()
    };
    assert_eq!(generate(KEY).expect(25).exit_error()["id"], "file_exists");
    fs::create_dir_all(vault.shop.folder()).unwrap();
    let text =
        "databases:\n  shop: {url: 'postgresql://h/d'}\nstorages:\n  local: {url: ./backups}\n";
    vault.shop.sandbox.write("pgkeep.yaml", text);
    let beside = generate("backups/key.txt").expect(25);
    assert_eq!(beside.exit_error()["id"], "key_beside_backups");
}

/// `check` proves that backups can be encrypted, and warns of a key on the host that writes.
#[test]
fn check_tells_how_keys_stand() {
    let vault = Vault::new();
    let check = |encryption: &str| {
        let text = format!(
            "databases:\n  shop: {{url: '${{DATABASE_URL}}', encryption: {encryption}}}\n\
             postgres: {{bin_dir: '{}'}}\nstorages:\n  local: {{url: ./backups}}\n",
            vault.shop.fake.bin().display()
        );
        vault.shop.sandbox.write("pgkeep.yaml", text);
        let checked = vault.shop.sandbox.pgkeep(["--json", "check"]).run().json();
        let lines = checked["checks"].as_array().unwrap().clone();
        let is_ours = |line: &&Value| {
            ["encryption", "identity", "key"].contains(&line["check"].as_str().unwrap())
        };
        let told = lines.iter().filter(is_ours);
        told.map(|line| {
            format!(
                "{} {}",
                line["check"].as_str().unwrap(),
                line["verdict"].as_str().unwrap()
            )
        })
        .collect::<Vec<_>>()
    };
    let both = format!("[{}, {}]", vault.recipient, vault.other);
    assert_eq!(check("off"), ["encryption skipped"]);
    assert_eq!(
        check(&format!("{{recipients: {both}}}")),
        ["encryption ok", "key warn"]
    );
    assert_eq!(
        check(&format!("{{recipients: {}}}", vault.recipient)),
        ["encryption ok", "key warn", "key warn"]
    );
    assert_eq!(
        check(&format!("{{recipients: {both}, identity_file: {KEY}}}")),
        ["encryption ok", "identity warn", "key warn"]
    );
    let wrong = format!(
        "{{recipients: {}, identity_file: other.txt}}",
        vault.recipient
    );
    assert_eq!(check(&wrong), ["encryption fail"]);
    // A host that shares its configuration with another need not have the key.
    let absent = format!("{{recipients: {both}, identity_file: elsewhere.txt}}");
    assert_eq!(check(&absent), ["encryption ok", "key warn"]);
}

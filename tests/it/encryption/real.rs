//! With a real server: whole restores, single tables, rows and drills out of encrypted backups, and the stock `age`.

use std::process::Command;

use serde_json::{Value, json};

use super::generate;
use crate::restore::Target;
use crate::support::oracle::KEY;
use crate::support::postgres::{TestDatabase, USER};
use crate::support::sandbox::Outcome;
use crate::support::{CANARY, Sandbox, Server, data, postgres, skip};

/// A backup of the sample database, encrypted, in `backups`.
struct Encrypted<'a> {
    sandbox: Sandbox,
    target: Target<'a>,
    into: String,
}

impl Encrypted<'_> {
    fn run(&self, command: &[&str]) -> Outcome {
        let file = self.sandbox.write_secret("password", CANARY);
        let password = file.display().to_string();
        let fixed = ["--json"].iter().chain(command).copied();
        let more = [
            "--into",
            &self.into,
            "--password-file",
            &password,
            "--storage",
            "backups",
        ];
        self.sandbox.pgkeep(fixed.chain(more)).run()
    }
}

fn encrypted<'a>() -> Option<Encrypted<'a>> {
    let server = postgres()?;
    let database = server.database();
    database.load(&data::dump("../../assets/pagila.sql.gz"));
    Some(encrypted_of(server, &database, "gzip"))
}

fn encrypted_of<'a>(
    server: &'a Server,
    database: &TestDatabase<'a>,
    compression: &str,
) -> Encrypted<'a> {
    let sandbox = Sandbox::new();
    let recipient = generate(&sandbox, KEY);
    generate(&sandbox, "other.txt");
    let command = [
        "--json",
        "backup",
        "--url",
        &database.socket_url(),
        "--storage",
        "backups",
        "--name",
        "shop",
        "--recipient",
        &recipient,
        "--compression",
        compression,
    ];
    sandbox.pgkeep(command).run().expect(0);
    let target = Target::beside(database, server);
    let secret = format!(":{}@", crate::support::secret::percent_encoded(CANARY));
    let into = server
        .url_as(USER, CANARY, &target.name)
        .replacen(&secret, "@", 1);
    Encrypted {
        sandbox,
        target,
        into,
    }
}

#[test]
fn everything_comes_back_with_the_key_and_nothing_is_touched_without() {
    let Some(all) = encrypted() else { return };
    let restore = ["restore", "latest"];
    for (more, id) in [
        (&[][..], "no_identity"),
        (&["--identity", "other.txt"][..], "wrong_identity"),
    ] {
        let refused = all.run(&[&restore[..], more].concat()).expect(12);
        assert_eq!(refused.exit_error()["id"], id);
        assert_eq!(all.target.databases(), [""; 0], "{refused}");
    }
    let key = ["--identity", KEY];
    let jobs = [&restore[..], &key, &["--jobs", "2"]].concat();
    let report = all.run(&jobs).expect(0).summary();
    assert_eq!(
        (&report["compared"], &report["jobs"]),
        (&json!(true), &json!(2)),
        "{report}"
    );
    let replace = [&restore[..], &key, &["--replace"]].concat();
    all.run(&replace).expect(0);
    // One table, with its structure, and then its rows again.
    all.target
        .sql("DROP TABLE public.payment CASCADE; DELETE FROM public.film_actor WHERE actor_id = 1");
    let rows = [
        "restore",
        "latest",
        "--table",
        "film_actor",
        "--upsert",
        "--allow-superuser",
    ];
    let report = all.run(&[&rows[..], &key].concat()).expect(0).summary();
    assert_eq!(report["tables"][0]["insert"], json!(19), "{report}");
}

/// Whatever is damaged ends as damage, and the database that was made for it is gone.
#[test]
fn damage_ends_a_whole_restore_as_damage() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 40000) i");
    for compression in ["gzip", "zstd", "none"] {
        let all = encrypted_of(server, &database, compression);
        let folder = std::fs::read_dir(all.sandbox.path("backups/shop")).unwrap();
        let mut files = folder.map(|entry| entry.unwrap().path());
        let dump = files
            .find(|path| path.to_string_lossy().ends_with(".age"))
            .unwrap();
        let whole = std::fs::read(&dump).unwrap();
        let middle = whole.len() / 2;
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        for (what, bytes) in [
            ("cut by a byte", whole[..whole.len() - 1].to_vec()),
            ("the first chunk", flipped(400)),
            ("the middle", flipped(middle)),
            ("the last byte", flipped(whole.len() - 1)),
        ] {
            std::fs::write(&dump, bytes).unwrap();
            let restore = ["restore", "latest", "--identity", KEY];
            let refused = all.run(&restore).expect(23);
            assert_eq!(
                all.target.databases(),
                [""; 0],
                "{compression}, {what}: {refused}"
            );
        }
    }
}

#[test]
fn a_drill_needs_the_key_and_proves_it() {
    let Some(all) = encrypted() else { return };
    let drill = |more: &[&str]| {
        let fixed = ["--json", "drill", "--storage", "backups"]
            .iter()
            .chain(more)
            .copied();
        all.sandbox.pgkeep(fixed).run()
    };
    assert_eq!(drill(&[]).expect(12).exit_error()["id"], "no_identity");
    drill(&["--identity", KEY]).expect(0);
    let command = ["--json", "status", "--storage", "backups"];
    let status = all.sandbox.pgkeep(command).run().expect(0).json();
    assert!(
        status["databases"][0]["keys"][0]["proven_at"].is_string(),
        "{status}"
    );
}

/// The line of the manifest, by programs that have never heard of pgkeep.
#[test]
fn the_stock_age_tool_opens_it() {
    let Some(all) = encrypted() else { return };
    if Command::new("age").arg("--version").output().is_err() {
        return skip("there is no `age`");
    }
    let folder = std::fs::read_dir(all.sandbox.path("backups/shop")).unwrap();
    let mut files = folder.map(|entry| entry.unwrap().path());
    let path = files
        .find(|path| path.to_string_lossy().ends_with(".manifest.json"))
        .unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let line = manifest["restore"].as_str().unwrap();
    let reading = line
        .split(" && ")
        .nth(1)
        .unwrap()
        .split(" | ")
        .take(2)
        .collect::<Vec<_>>()
        .join(" | ");
    let script = format!(
        "cd backups/shop && {}",
        reading.replace("KEY", &format!("../../{KEY}"))
    );
    let opened = all.sandbox.program("sh", ["-c", &script]).run().expect(0);
    assert!(
        opened
            .stdout()
            .contains("PostgreSQL database dump complete")
    );
    assert!(opened.stdout().contains("COPY public.film "));
}

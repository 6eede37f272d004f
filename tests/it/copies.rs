//! The next storage's copy is taken where one is bad, or its storage fails or denies, and never for what the target says.

use serde_json::json;

use crate::backup::Shop;
use crate::restore::Target;
use crate::support::sandbox::Outcome;
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};
use crate::support::{Server, data, postgres};
use crate::verify::{TABLES, dump};

/// Where both copies lie: the bucket first, the folder behind it.
struct Both {
    shop: Shop,
    bucket: ScriptedS3,
}

impl Both {
    /// Stores what the fake `pg_dump` prints.
    fn of(text: impl AsRef<[u8]>) -> Self {
        let bucket = ScriptedS3::start();
        let mut shop = Shop::with_key(&bucket);
        shop.prints(text);
        let bin = shop.fake.bin().display().to_string();
        let both = Self { shop, bucket };
        let backup = ["backup", "--attempts", "1", "--bin-dir", &bin];
        both.run(&backup).expect(0);
        both
    }

    fn run(&self, command: &[&str]) -> Outcome {
        let folder = self.shop.folder().display().to_string();
        let bucket = format!("s3://{}/pg", self.bucket.bucket);
        let endpoint = &self.bucket.endpoint;
        let storages = [
            "--storage",
            &bucket,
            "--storage",
            &folder,
            "--s3-endpoint",
            endpoint,
        ];
        let command = ["--json"].iter().chain(command).chain(&storages);
        self.shop.sandbox.pgkeep(command).run()
    }

    /// Restores with the real programs.
    fn restore(&self, server: &Server, into: &str, more: &[&str]) -> Outcome {
        let bin = server.bin().display().to_string();
        let fixed = ["restore", "latest", "--bin-dir", &bin, "--into", into];
        self.run(&[&fixed[..], more].concat())
    }

    /// Lets the bucket list, and give manifests, but no dump.
    fn deny(&self) {
        self.bucket
            .on(Rule::new("GET", Fault::status(403, "AccessDenied")).path(".sql.gz"));
    }

    fn folder(&self) -> String {
        self.shop.folder().display().to_string()
    }
}

#[test]
fn a_storage_that_denies_lets_the_next_one_be_read() {
    let both = Both::of(dump());
    both.deny();
    let file = both.shop.sandbox.path("got.sql.gz");
    let report = both
        .run(&["get", "latest", "-o", file.to_str().unwrap()])
        .expect(0)
        .json();
    assert_eq!(report["storage"], both.folder(), "{report}");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{report}");
    // Nothing was printed yet when the bucket said no.
    let printed = both.run(&["get", "latest", "-o", "-"]).expect(0);
    assert!(printed.stderr().contains("AccessDenied"), "{printed}");
    let rows = both.shop.sandbox.path("rows.csv");
    let extract = ["extract", "latest", "-t", TABLES[1], "--format", "csv"];
    let to_file = ["-o", rows.to_str().unwrap()];
    let report = both
        .run(&[&extract[..], &to_file].concat())
        .expect(0)
        .json();
    assert_eq!(report["storage"], both.folder(), "{report}");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{report}");
    let copies = both.run(&["verify"]).expect(12).summary()["copies"].clone();
    assert_eq!(
        (&copies[0]["ok"], &copies[0]["damaged"], &copies[1]["ok"]),
        (&json!(false), &json!(false), &json!(true)),
        "{copies}"
    );
}

#[test]
fn a_storage_that_denies_lets_the_next_one_be_restored() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let both = Both::of(data::dump("public/neon-chinook.sql"));
    both.deny();
    let target = Target::beside(&database, server);
    let empty = server.database();
    let made = database.socket_url().replace(database.name(), &target.name);
    let aside = [
        "-t",
        "\"Album\"",
        "--schema-map",
        "public=aside",
        "--allow-superuser",
    ];
    let ways: [(&str, &[&str]); 4] = [
        (&made, &["--jobs", "1", "--allow-superuser"]),
        (&empty.socket_url(), &["--allow-superuser"]),
        (&made, &aside),
        (&made, &["-t", "\"Album\"", "--upsert", "--allow-superuser"]),
    ];
    for (into, more) in ways {
        let outcome = both.restore(server, into, more).expect(3);
        assert_eq!(outcome.exit_error()["id"], "stored_not_good", "{outcome}");
        let warnings = outcome.summary()["warnings"].to_string();
        assert!(
            warnings.contains("trying another copy") && warnings.contains("AccessDenied"),
            "{outcome}"
        );
    }
    let count = |schema: &str| target.sql(&format!("SELECT count(*) FROM {schema}.\"Album\""));
    assert_eq!(
        (count("public"), count("aside")),
        ("347".into(), "347".into())
    );
}

/// The copies are as they were stored, and the dump changes its own rows behind its data: another copy would do the same.
#[test]
fn what_the_database_differs_in_is_no_copys_fault() {
    let Some(server) = postgres() else { return };
    let text = "--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE public.t (id int, v text);\n\
        COPY public.t (id, v) FROM stdin;\n1\tone\n2\ttwo\n\\.\n\nUPDATE public.t SET v = 'onf' WHERE id = 1;\n\
        --\n-- PostgreSQL database dump complete\n--\n";
    let both = Both::of(text);
    let database = server.database();
    let target = Target::beside(&database, server);
    for into in [
        database.socket_url().replace(database.name(), &target.name),
        database.socket_url(),
    ] {
        let before = both.bucket.log().len();
        let outcome = both
            .restore(server, &into, &["--allow-superuser"])
            .expect(23);
        assert_eq!(outcome.exit_error()["id"], "restore_differs", "{outcome}");
        let warnings = outcome.summary()["warnings"].to_string();
        assert!(!warnings.contains("trying another copy"), "{outcome}");
        let log = both.bucket.log();
        let read = log[before..]
            .iter()
            .filter(|seen| seen.path.ends_with(".sql.gz"));
        assert!(read.count() >= 1, "the bucket's copy is the first");
    }
}

/// A login that the server refuses is no storage's.
#[test]
fn a_login_that_the_server_refuses_tries_no_other_copy() {
    let Some(server) = postgres() else { return };
    let both = Both::of(dump());
    let into = server.url_as("nobody_of_that_name", "", "postgres");
    let outcome = both.restore(server, &into, &[]).expect(12);
    assert!(!outcome.stderr().contains("another copy"), "{outcome}");
}

//! The anomaly gate end to end: a real database whose tables are wiped, renamed and restored.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::postgres::TestDatabase;
use crate::support::receiver::Receiver;
use crate::support::sandbox::Outcome;
use crate::support::{Sandbox, Server, postgres, schema};

/// A shop with real tables, two storages and somebody who wants to hear of it.
struct Shop<'s> {
    sandbox: Sandbox,
    database: TestDatabase<'s>,
    receiver: Receiver,
}

/// The tables: a partitioned one whose parts come and go, and a queue that is not judged.
const TABLES: &str = "
CREATE TABLE orders AS SELECT i AS id, 'order ' || i AS what FROM generate_series(1, 3000) i;
CREATE TABLE users AS SELECT i AS id FROM generate_series(1, 300) i;
CREATE TABLE settings AS SELECT i AS id FROM generate_series(1, 20) i;
CREATE TABLE job_queue AS SELECT i AS id FROM generate_series(1, 5000) i;
CREATE TABLE events (id int, week int) PARTITION BY LIST (week);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2);
CREATE TABLE events_3 PARTITION OF events FOR VALUES IN (3);
CREATE TABLE events_4 PARTITION OF events FOR VALUES IN (4);
INSERT INTO events SELECT i, i % 4 + 1 FROM generate_series(1, 8000) i;
";

impl<'s> Shop<'s> {
    fn new(server: &'s Server, retention: &Value) -> Self {
        let database = server.database();
        database.sql(TABLES);
        let mut sandbox = Sandbox::new();
        sandbox.set("DATABASE_URL", database.url());
        sandbox.set("USER", "eva");
        let receiver = Receiver::start();
        let at = |way: &str| format!("{}/{way}", receiver.address);
        let mut config = json!({
            "databases": {"shop": {
                "url": "${DATABASE_URL}",
                "max_age": "26h",
                "anomaly": {"ignore": ["job_*"]},
            }},
            "storages": {"local": {"url": "backups"}, "mirror": {"url": "mirror"}},
            "postgres": {"bin_dir": server.bin()},
            "notify": [
                {"webhook": {"url": at("hook"), "on": ["failure", "success", "stale"]}},
                {"ping": {"url": at("ping")}},
            ],
        });
        if !retention.is_null() {
            config["databases"]["shop"]["retention"] = retention.clone();
        }
        sandbox.write("pgkeep.yaml", config.to_string());
        Self {
            sandbox,
            database,
            receiver,
        }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.sandbox.pgkeep(arguments).run()
    }

    /// Makes a backup in a second of its own, as its id has no finer time.
    fn backup(&self, flags: &[&str]) -> (Outcome, Value) {
        std::thread::sleep(Duration::from_millis(1050));
        let outcome = self.run(&[&["--json", "backup", "--attempts", "1"], flags].concat());
        let report = outcome.summary()["backups"][0].clone();
        (outcome, report)
    }

    #[track_caller]
    fn good(&self) -> Value {
        let (outcome, report) = self.backup(&[]);
        outcome.expect(0);
        report
    }

    #[track_caller]
    fn held(&self) -> Value {
        let (outcome, report) = self.backup(&[]);
        assert_eq!(outcome.exit_error()["id"], "anomaly", "{outcome}");
        outcome.expect(21);
        assert_eq!(report["stored"], true);
        report
    }

    fn object(&self, storage: &str, id: &Value, end: &str) -> PathBuf {
        let id = id.as_str().unwrap();
        self.sandbox.path(format!("{storage}/shop/{id}.{end}"))
    }

    #[track_caller]
    fn stored(&self, part: &str, id: &Value, end: &str) -> Value {
        let bytes = fs::read(self.object("backups", id, end)).unwrap();
        assert_eq!(bytes, fs::read(self.object("mirror", id, end)).unwrap());
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            schema::problem(&format!("stored#/$defs/{part}"), &value),
            None,
            "{value:#}"
        );
        value
    }

    /// Returns the ids of all backups, newest first, that are or are not held.
    fn listed(&self, is_held: bool) -> Vec<String> {
        let list = self.run(&["--json", "list"]).expect(0).json();
        let all = list["backups"].as_array().unwrap().iter();
        let ids = all.filter(|backup| backup["held"] == is_held);
        ids.map(|backup| backup["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Returns the newest run record of a command.
    fn record(&self, verb: &str) -> Value {
        let files = fs::read_dir(self.sandbox.path("backups/shop/runs")).unwrap();
        let read = |entry: fs::DirEntry| -> Value {
            serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap()
        };
        let mut all: Vec<Value> = files.map(|entry| read(entry.unwrap())).collect();
        all.retain(|record| record["verb"] == verb);
        all.sort_by_key(|record| record["started_at"].to_string());
        all.pop().unwrap()
    }
}

const EMPTY: &str = "`public.orders` is empty; it had 3,000 rows";

#[test]
fn a_wiped_table_is_caught_held_told_and_accepted() {
    let Some(server) = postgres() else { return };
    let shop = Shop::new(server, &json!({"keep_last": 3}));
    for night in 0..3 {
        let report = shop.good();
        assert_eq!(report["anomaly"]["verdict"], "learning", "{night}");
    }
    // A partition goes, another one comes, the queue is empty, and settings are few.
    shop.database.sql(
        "DROP TABLE events_1; CREATE TABLE events_5 PARTITION OF events FOR VALUES IN (5);
         INSERT INTO events SELECT i, 5 FROM generate_series(1, 1500) i;
         TRUNCATE job_queue; DELETE FROM settings WHERE id > 1",
    );
    let fourth = shop.good();
    let anomaly = &fourth["anomaly"];
    assert_eq!(anomaly["verdict"], "passed");
    assert_eq!(anomaly["baseline"].as_array().unwrap().len(), 3);
    assert_eq!(anomaly["seen"], Value::Null, "{anomaly:#}");
    // Compression and encryption do not matter, and retention goes on.
    let (outcome, fifth) = shop.backup(&["--compression", "zstd:9"]);
    outcome.expect(0);
    assert_eq!(fifth["anomaly"]["verdict"], "passed");
    assert_eq!(shop.listed(false).len(), 3);

    shop.receiver.forget();
    shop.database.sql("TRUNCATE orders");
    let caught = shop.held();
    let id = &caught["backup_id"];
    assert_eq!(caught["stage"], "anomaly");
    assert_eq!(caught["prune"]["waits_for"], *id);
    assert_eq!(caught["failure"]["details"][0], EMPTY, "{caught:#}");
    assert_eq!(
        shop.stored("manifest", id, "manifest.json")["anomaly"],
        caught["anomaly"]
    );
    assert_eq!(
        shop.stored("held_mark", id, "held.json")["anomaly"],
        caught["anomaly"]
    );
    let record = shop.record("backup");
    assert_eq!(
        (&record["exit_code"], &record["failure_id"]),
        (&json!(21), &json!("anomaly"))
    );
    assert_eq!(record["anomaly"], caught["anomaly"]);
    let notice = shop.receiver.only("hook").json();
    assert_eq!(
        (&notice["event"], &notice["outcome"]),
        (&json!("failure"), &json!("failed"))
    );
    assert_eq!(
        notice["subject"],
        format!("pgkeep: shop: backup HELD: {EMPTY}")
    );
    assert_eq!(shop.receiver.of("ping/fail").len(), 1);

    // What is held is no baseline: the next night is caught as well.
    let again = shop.held();
    assert_eq!(again["anomaly"]["seen"], caught["anomaly"]["seen"]);
    let baseline = again["anomaly"]["baseline"].as_array().unwrap();
    assert!(
        !baseline.contains(id) && baseline[0] == fifth["backup_id"],
        "{baseline:?}"
    );
    let newest = &again["backup_id"];

    waits(&shop, newest);
    is_told(&shop, newest, &fifth["backup_id"]);
    let guarded = is_guarded(&shop);

    // Only what was named is accepted, by somebody and for a reason.
    let refused = shop.run(&["--json", "accept", "latest", "why", "--table", "users"]);
    assert_eq!(refused.exit_error()["id"], "anomaly_not_named", "{refused}");
    refused.expect(25);
    shop.run(&["accept", "latest", " "]).expect(2);
    waits(&shop, &guarded);
    let accepted = shop
        .run(&[
            "--json",
            "accept",
            "latest",
            "orders were archived",
            "--table",
            "orders",
        ])
        .expect(0)
        .json();
    assert_eq!(
        (&accepted["id"], &accepted["changed"]),
        (&guarded, &json!(true))
    );
    assert_eq!(accepted["still_held"].as_array().unwrap().len(), 3);
    let stored = shop.stored("acceptance", &guarded, "accepted.json");
    assert_eq!(stored["reason"], "orders were archived");
    assert!(stored["accepted_by"].as_str().unwrap().starts_with("eva@"));
    let record = shop.record("accept");
    assert_eq!(record["backup_id"], guarded);
    assert!(
        record["reason"]
            .as_str()
            .unwrap()
            .starts_with("orders were archived (by eva@")
    );
    let again = shop
        .run(&["accept", guarded.as_str().unwrap(), "twice"])
        .expect(0);
    assert!(
        again.stdout().contains("before: orders were archived"),
        "{again}"
    );

    // Prune goes on and counts it; the others stay.
    let pruned = shop.run(&["--json", "prune"]).expect(0).json();
    assert_eq!(pruned["databases"][0].get("waits_for"), None);
    let kept = shop.listed(false);
    // A guard pins what it relied on, so three others stay.
    assert_eq!((kept.len(), &json!(kept[0])), (4, &guarded));
    assert_eq!(shop.listed(true).len(), 3);
    let keep = pruned["databases"][0]["storages"][0]["keep"].to_string();
    assert!(keep.contains("held, not counted"), "{keep}");
    let status = shop.run(&["status"]).expect(0);
    assert!(
        status.stdout().contains("3 older backups are held"),
        "{status}"
    );

    // The new normal: empty orders pass, and empty users do not.
    let report = shop.good();
    assert_eq!(report["anomaly"]["verdict"], "passed");
    assert_eq!(report["anomaly"]["baseline"][0], guarded);
    let removed = &report["prune"]["storages"][0]["remove"];
    assert_eq!(
        (&removed[0]["id"], &removed[0]["removed"]),
        (&json!(kept[3]), &json!(true))
    );
    shop.database.sql("TRUNCATE users");
    let (outcome, report) = shop.backup(&["--allow-anomaly", "a test of users"]);
    outcome.expect(0);
    assert_eq!(report["anomaly"]["verdict"], "held");
    assert_eq!(report["anomaly"]["seen"][0]["table"], "public.users");
    shop.database
        .sql("INSERT INTO users SELECT i FROM generate_series(1, 300) i");
    let report = shop.good();
    assert_eq!(report["anomaly"]["verdict"], "passed");
    assert_eq!(report["prune"].get("waits_for"), None);

    // Whoever has looked at the older ones leaves them to retention.
    let held = shop.listed(true);
    assert_eq!(held.len(), 4);
    let looked = ["--json", "accept", "latest", "looked at", "--older"];
    let accepted = shop.run(&looked).expect(0).json();
    assert_eq!(accepted["older"], json!(held));
    assert_eq!(
        (&accepted["by"], &accepted["still_held"]),
        (&Value::Null, &json!([]))
    );
    assert_eq!(shop.listed(true), [""; 0]);
    let reason = shop.record("accept")["reason"].clone();
    assert!(reason.as_str().unwrap().contains(&held[3]), "{reason}");
    let pruned = shop.run(&["--json", "prune"]).expect(0).json();
    let removed = pruned["databases"][0]["storages"][0]["remove"].to_string();
    assert!(removed.contains(&held[3]), "{removed}");
    assert_eq!(shop.good()["anomaly"]["verdict"], "passed");
}

/// Prune removes nothing, says why, and is no failure.
#[track_caller]
fn waits(shop: &Shop<'_>, newest: &Value) {
    let before = (shop.listed(false), shop.listed(true));
    for flags in [
        &["--json", "prune"][..],
        &["--json", "prune", "--dry-run", "--keep-last", "1"],
    ] {
        let outcome = shop.run(flags).expect(0);
        assert_eq!(outcome.json()["databases"][0]["waits_for"], *newest);
        assert!(
            outcome.stderr().contains("prune waits and removes nothing"),
            "{outcome}"
        );
    }
    assert_eq!((shop.listed(false), shop.listed(true)), before);
}

/// `status`, `list`, `show` and `latest` say that it is held, for which tables, and what is the last that is not.
fn is_told(shop: &Shop<'_>, newest: &Value, last: &Value) {
    let (newest, last) = (newest.as_str().unwrap(), last.as_str().unwrap());
    let status = shop.run(&["--json", "status"]).expect(21);
    assert_eq!(status.exit_error()["id"], "anomaly");
    let shown = &status.json()["databases"][0];
    assert_eq!(
        (&shown["newest_good"]["id"], &shown["freshness"]),
        (&json!(last), &json!("fresh"))
    );
    assert_eq!(shown["held"][0]["id"], newest);
    assert_eq!(shown["held"][0]["seen"], json!([EMPTY]));
    assert!(
        shown["alerts"][0].as_str().unwrap().contains(EMPTY),
        "{shown:#}"
    );
    let text = shop.run(&["status"]).expect(21);
    assert!(
        text.stdout().contains(EMPTY) && text.stdout().contains("HELD"),
        "{text}"
    );
    let nagios = shop.run(&["status", "--nagios"]).expect(2);
    assert!(nagios.stdout().starts_with("CRITICAL - shop: ") && nagios.stdout().contains(EMPTY));
    shop.receiver.forget();
    shop.run(&["status", "--notify"]).expect(21);
    let notice = shop.receiver.only("hook").json();
    assert_eq!(
        (&notice["event"], &notice["exit_code"]),
        (&json!("stale"), &json!(21))
    );
    assert!(
        notice["failure"]["message"]
            .as_str()
            .unwrap()
            .contains(EMPTY),
        "{notice:#}"
    );

    let list = shop.run(&["list"]).expect(0);
    assert_eq!(list.stdout().matches("HELD").count(), 2, "{list}");
    let show = shop.run(&["show", "latest"]).expect(0);
    assert!(show.stdout().contains(&format!("HELD: {EMPTY}")), "{show}");
    let said = format!("`{last}` is the last one that is not held");
    assert!(show.stderr().contains(&said), "{show}");
    // It is whole all the same: `latest` means it.
    assert!(show.stdout().contains(newest), "{show}");
    let get = shop
        .run(&["get", "latest", "-o", "latest.sql.gz"])
        .expect(0);
    assert!(get.stderr().contains(&said), "{get}");
}

/// A guard does not run its command behind a held backup, unless it is told a reason, which is recorded.
fn is_guarded(shop: &Shop<'_>) -> Value {
    let ran = shop.sandbox.path("ran");
    let guard = |flags: &[&str]| {
        std::thread::sleep(Duration::from_millis(1050));
        let start = ["--json", "guard", "--attempts", "1"];
        shop.run(&[&start, flags, &["--", "touch", "ran"]].concat())
    };
    for flags in [&[][..], &["--max-age", "1h"]] {
        let refused = guard(flags);
        let error = refused.exit_error();
        assert_eq!(error["id"], "anomaly", "{refused}");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("`touch` was not run")
        );
        assert!(
            error["hints"].to_string().contains("--allow-anomaly"),
            "{error:#}"
        );
        refused.expect(21);
        assert!(!ran.exists());
    }
    assert_eq!(shop.record("guard")["failure_id"], "anomaly");
    // One of the two is enough for the rest.
    let extra = shop.listed(true)[0].clone();
    for storage in ["backups", "mirror"] {
        for entry in fs::read_dir(shop.sandbox.path(format!("{storage}/shop"))).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(&extra)
            {
                fs::remove_file(path).unwrap();
            }
        }
    }
    guard(&["--allow-anomaly", ""]).expect(2);
    let outcome = guard(&["--allow-anomaly", "orders were moved"]).expect(0);
    assert!(ran.exists());
    let last = outcome.stderr().lines().last().unwrap();
    let summary: Value = serde_json::from_str(last).unwrap();
    let one = &summary["databases"][0];
    assert_eq!(one["allowed_anomaly"], "orders were moved", "{summary:#}");
    let reason = shop.record("guard")["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.ends_with("anomaly allowed: orders were moved"),
        "{reason}"
    );
    let manifest = shop.stored("manifest", &one["backup_id"], "manifest.json");
    assert_eq!(manifest["anomaly"]["allowed"], "orders were moved");
    assert!(
        shop.listed(true)
            .contains(&one["backup_id"].as_str().unwrap().to_owned())
    );
    one["backup_id"].clone()
}

#[test]
fn a_renamed_table_is_gone_marks_are_synced_and_off_is_off() {
    let Some(server) = postgres() else { return };
    let shop = Shop::new(server, &Value::Null);
    for _ in 0..3 {
        shop.good();
    }
    shop.database
        .sql("ALTER TABLE users RENAME TO customers; ALTER TABLE settings RENAME TO options");
    let report = shop.held();
    let details = report["failure"]["details"].to_string();
    for (old, new) in [("users", "customers"), ("settings", "options")] {
        let gone = format!("`public.{old}` is gone");
        let moved = format!("`public.{new}` has exactly these rows");
        assert!(
            details.contains(&gone) && details.contains(&moved),
            "{details}"
        );
    }
    let id = &report["backup_id"];
    let tables = ["--table", "users", "--table", "public.settings"];
    let accept = ["accept", id.as_str().unwrap(), "renamed"];
    shop.run(&[&accept[..], &tables].concat()).expect(0);
    // What one storage lost of it comes back from the other one.
    for end in ["held.json", "accepted.json"] {
        fs::remove_file(shop.object("mirror", id, end)).unwrap();
    }
    let synced = shop.run(&["--json", "sync"]).expect(0).json();
    assert_eq!(
        synced["databases"][0]["copies"][0]["state"], "unmarked",
        "{synced:#}"
    );
    shop.stored("held_mark", id, "held.json");
    shop.stored("acceptance", id, "accepted.json");
    assert_eq!(shop.good()["anomaly"]["verdict"], "passed");

    // A manifest that cannot be read is told and fails nothing.
    let newest = shop.listed(false)[0].clone();
    fs::write(shop.object("backups", &json!(newest), "manifest.json"), "{").unwrap();
    let report = shop.good();
    assert_eq!(report["anomaly"]["verdict"], "passed");
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("anomaly_history") && warnings.contains(&newest),
        "{warnings}"
    );

    let text = fs::read_to_string(shop.sandbox.path("pgkeep.yaml")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["databases"]["shop"]["anomaly"] = json!("off");
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    shop.database.sql("DROP TABLE orders");
    assert_eq!(shop.good()["anomaly"], Value::Null);
    // What one run leaves out on its own counts for nothing and is not judged.
    config["databases"]["shop"]["anomaly"] = json!({"max_loss": "10%"});
    shop.sandbox.write("pgkeep.yaml", config.to_string());
    let (outcome, report) = shop.backup(&["--exclude-table", "customers"]);
    outcome.expect(0);
    assert_eq!(report["anomaly"], Value::Null);
}

//! Rows that several sessions of ours read beside `pg_dump`: the stored dump is the same, and no fault makes it less.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Real, while_locked};
use crate::support::data;
use crate::support::postgres;
use crate::support::postgres::TestDatabase;
use crate::support::processes;
use crate::support::sandbox::Outcome;

/// A backup whose every table with rows is a large one, read page by page.
fn real(database: &TestDatabase<'_>) -> Real {
    let mut real = Real::new(database.socket_url());
    real.sandbox.set("PGKEEP_TEST_LARGE_BYTES", "1");
    real
}

/// Returns the stored dump without the key of its restricted mode, which is another one each time.
fn text(real: &Real, outcome: &Outcome) -> String {
    let manifest = real.manifest(outcome);
    let dump = std::fs::read(
        real.folder()
            .join(manifest["object"]["key"].as_str().unwrap()),
    );
    let bytes = data::gunzip(&dump.unwrap());
    let text = String::from_utf8_lossy(&bytes);
    let is_key = |line: &&str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    let lines = text.split_inclusive('\n');
    lines.filter(|line| !is_key(line)).collect()
}

#[test]
fn every_sample_is_stored_as_pg_dump_writes_it() {
    let Some(server) = postgres() else { return };
    for (sample, is_same_text) in [
        (data::dump("public/neon-chinook.sql"), true),
        (data::dump("public/neon-happiness_index.sql"), true),
        (data::dump("../../assets/pagila.sql.gz"), true),
        // `pg_dump` reads some of its tables itself, and large objects come in front of them.
        (data::nasty(server), false),
    ] {
        let database = server.database();
        database.load(&sample);
        let real = real(&database);
        let one = real.backup(&[]).expect(0);
        for jobs in ["2", "4", "auto"] {
            let several = real.backup(&["--jobs", jobs]).expect(0);
            assert_eq!(holds(&real, &several), holds(&real, &one), "--jobs {jobs}");
            if is_same_text {
                assert!(text(&real, &several) == text(&real, &one), "--jobs {jobs}");
            }
        }
    }
}

/// What a backup holds, by its manifest: each table with its rows, and how long all of it is.
fn holds(real: &Real, outcome: &Outcome) -> Vec<Value> {
    let manifest = real.manifest(outcome);
    let tables = manifest["tables"].as_array().unwrap().iter();
    let mut holds: Vec<Value> = tables
        .map(|t| {
            json!([
                t["schema"],
                t["name"],
                t["kind"],
                t["columns"],
                t["rows"],
                t["bytes"],
                t["digest"]
            ])
        })
        .collect();
    holds.sort_by_key(Value::to_string);
    holds.push(json!([manifest["dump"], manifest["large_objects"]]));
    holds
}

/// `pg_dump` would find a table empty without a word that was truncated behind the snapshot.
#[test]
fn what_truncates_meanwhile_empties_no_table() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE a AS SELECT g AS id, repeat('x', 100) AS pad FROM generate_series(1, 3000) g;
         CREATE TABLE b AS SELECT * FROM a; CREATE TABLE z AS SELECT * FROM a; CREATE TABLE truncated (at int);",
    );
    let real = real(&database);
    let (mut before, mut after, mut refused) = (0, 0, 0);
    let refill = || {
        database.sql(
            "TRUNCATE a, b, z, truncated; INSERT INTO a SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g;
             INSERT INTO b SELECT * FROM a; INSERT INTO z SELECT * FROM a",
        )
    };
    for point in 0..20 {
        let rows = database.sql("SELECT count(*) FROM a");
        assert_eq!(rows, "3000");
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(point * 40));
                database.sql("BEGIN; TRUNCATE a, b, z; INSERT INTO truncated VALUES (1); COMMIT");
            });
            real.backup(&["--jobs", "2"])
        });
        if outcome.code() != 0 {
            // Whoever empties a table waits for us, and `pg_dump` for him: that is another attempt's chance.
            assert_eq!(outcome.exit_error()["id"], "lock_timeout", "{outcome}");
            refused += 1;
            refill();
            continue;
        }
        let manifest = real.manifest(&outcome);
        let rows_of = |name: &str| -> u64 {
            let tables = manifest["tables"].as_array().unwrap();
            let table = tables.iter().find(|table| table["name"] == name).unwrap();
            table["rows"].as_u64().unwrap()
        };
        let all = ["a", "b", "z", "truncated"].map(rows_of);
        match all {
            [3000, 3000, 3000, 0] => before += 1,
            [0, 0, 0, 1] => after += 1,
            mixed => panic!("truncated after {} ms: {mixed:?}", point * 40),
        }
        refill();
    }
    assert!(
        before > 0 && refused < 20,
        "{before} before, {after} after, {refused} refused"
    );
}

/// Returns a table of a few megabytes, and a backup of it that is well under way.
fn large(database: &TestDatabase<'_>) {
    database.sql(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS pad FROM generate_series(1, 200000) g;
         CREATE TABLE small (id int)",
    );
}

/// Counts the manifests in a storage, of whatever database.
fn stored(folder: &Path) -> usize {
    let Ok(files) = std::fs::read_dir(folder) else {
        return 0;
    };
    files
        .map(|file| file.unwrap().path())
        .map(|path| {
            let is_manifest = path.to_string_lossy().ends_with(".manifest.json");
            usize::from(is_manifest) + if path.is_dir() { stored(&path) } else { 0 }
        })
        .sum()
}

#[test]
fn a_session_that_is_ended_ends_all_and_nothing_is_stored() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    large(&database);
    let real = real(&database);
    let running = real.start(&["--jobs", "2"]);
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND query LIKE 'COPY (SELECT id, pad FROM ONLY%'";
    let was_killed = (0..2000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        database.sql(kill) != "0"
    });
    assert!(was_killed, "no session was seen to read");
    let outcome = running.wait().expect(20);
    let failure = outcome.exit_error();
    assert_eq!(failure["id"], "connection_lost", "{outcome}");
    assert_eq!(stored(&real.folder()), 0);
    real.backup(&["--jobs", "2"]).expect(0);
    assert_eq!(stored(&real.folder()), 1);
}

#[test]
fn a_run_that_is_ended_leaves_no_program() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    large(&database);
    let real = real(&database);
    for signal in [Signal::TERM, Signal::INT] {
        let running = real.start(&["--jobs", "3"]);
        let pid = running.pid();
        let reads = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND query LIKE 'COPY (SELECT id, pad FROM ONLY%'";
        while database.sql(reads) == "0" {
            std::thread::sleep(Duration::from_millis(1));
        }
        running.signal(signal);
        let outcome = running.wait();
        assert!([130, 143].contains(&outcome.code()), "{outcome}");
        processes::assert_none_left(Some(pid), real.sandbox.root());
        assert_eq!(stored(&real.folder()), 0);
    }
}

#[test]
fn a_table_that_somebody_holds_is_waited_for_and_then_named() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    large(&database);
    let real = real(&database);
    while_locked(&database, || {
        let outcome = real.backup(&["--jobs", "2", "--lock-wait-timeout", "1s"]);
        let failure = &outcome.expect(20).exit_error();
        assert_eq!(failure["id"], "lock_timeout", "{failure}");
        assert!(
            failure["message"].as_str().unwrap().contains("held"),
            "{failure}"
        );
    });
}

#[test]
fn jobs_are_a_number_or_auto() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    large(&database);
    let real = real(&database);
    let outcome = real.backup(&["--jobs", "0"]).expect(2);
    assert_eq!(outcome.exit_error()["id"], "bad_jobs");
    let outcome = real.backup(&["--jobs", "auto"]).expect(0);
    let rows: Vec<Value> = real.manifest(&outcome)["tables"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(rows[1]["rows"], 200_000);
}

/// Of such tables a dump has what the extension says, and `pg_dump` makes none of them.
#[test]
fn rows_that_an_extension_leaves_to_its_users_stay_with_pg_dump() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    large(&database);
    database.sql(
        "CREATE TABLE conf (id int, is_own bool); INSERT INTO conf SELECT g, g > 10 FROM generate_series(1, 100) g;
         ALTER EXTENSION plpgsql ADD TABLE conf;
         UPDATE pg_extension SET extconfig = ARRAY['conf'::regclass::oid], extcondition = ARRAY['WHERE is_own']
           WHERE extname = 'plpgsql'",
    );
    let real = real(&database);
    let manifest = real.manifest(&real.backup(&["--jobs", "2"]).expect(0));
    let tables = manifest["tables"].as_array().unwrap();
    let conf = tables.iter().find(|table| table["name"] == "conf").unwrap();
    assert_eq!(conf["rows"], 90);
}

/// `pg_dump` locks more than it reads; what holds such a table is waited for as long as somebody says.
#[test]
fn a_table_without_rows_is_waited_for_as_well() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    large(&database);
    let real = real(&database);
    std::thread::scope(|scope| {
        scope.spawn(|| database.sql("BEGIN; LOCK TABLE small; SELECT pg_sleep(3); COMMIT"));
        let is_held = "SELECT count(*) FROM pg_locks WHERE relation = 'small'::regclass AND mode = 'AccessExclusiveLock'";
        while database.sql(is_held) == "0" {
            std::thread::sleep(Duration::from_millis(10));
        }
        let flags = ["--jobs", "2", "--structure-only", "small"];
        real.backup(&flags).expect(0);
    });
}

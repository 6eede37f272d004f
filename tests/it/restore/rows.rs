//! `restore --upsert` and `--data-only`: deleted and changed rows come back, or the target stays as it was.

use serde_json::{Value, json};

use super::{Shelf, loaded};
use crate::support::postgres::TestDatabase;
use crate::support::proxy::{Lost, Proxy};
use crate::support::scripted_s3::ScriptedS3;
use crate::support::{Sandbox, data, postgres};

/// Customers, their orders, lines with a key of two columns, quoted names, identity, generated columns, a trigger.
const SHOP: &str = r#"
CREATE TABLE customers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Full Name" text NOT NULL,
    loud text GENERATED ALWAYS AS (upper("Full Name")) STORED, price numeric, doc json, touched int DEFAULT 0);
CREATE SCHEMA billing;
CREATE TABLE billing."Order s" (id serial PRIMARY KEY, customer int NOT NULL REFERENCES customers, no int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE billing.lines ("order" int REFERENCES billing."Order s", n int, v text, PRIMARY KEY (n, "order"));
CREATE TABLE tags (name text PRIMARY KEY);
CREATE TABLE logs (v text);
INSERT INTO customers ("Full Name", price, doc) SELECT E'c\t' || i, 1.50, '{"a": 1}' FROM generate_series(1, 20) i;
INSERT INTO billing."Order s" (customer) SELECT i FROM generate_series(1, 20) i, generate_series(1, 2);
INSERT INTO billing.lines SELECT o.id, n, 'line ' || n FROM billing."Order s" o, generate_series(1, 3) n;
INSERT INTO tags VALUES ('a'), ('b');
INSERT INTO logs VALUES ('x');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.touched := 99; RETURN NEW; END';
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION touch();
"#;

/// What happened since the backup: customer 3 is gone with all orders, 5 was changed, 21 is new.
const SINCE: &str = r#"
DELETE FROM billing.lines WHERE "order" IN (SELECT id FROM billing."Order s" WHERE customer = 3);
DELETE FROM billing."Order s" WHERE customer = 3;
DELETE FROM customers WHERE id = 3;
UPDATE customers SET "Full Name" = 'other', price = 1.5 WHERE id = 5;
UPDATE billing."Order s" SET no = DEFAULT WHERE id = 9;
DELETE FROM tags WHERE name = 'b';
INSERT INTO customers ("Full Name") VALUES ('new');
"#;

const ALL: &str = r#"SELECT md5(string_agg(x, '|' ORDER BY x)) FROM (SELECT c::text AS x FROM customers c UNION ALL
    SELECT o::text FROM billing."Order s" o UNION ALL SELECT l::text FROM billing.lines l UNION ALL SELECT t::text FROM tags t) y"#;

fn sequences(database: &TestDatabase<'_>) -> String {
    database.sql("SELECT string_agg(sequencename || '=' || coalesce(last_value, 0), ' ' ORDER BY 1) FROM pg_sequences")
}

fn merged<'a>(report: &'a Value, table: &str) -> &'a Value {
    let tables = report["tables"].as_array().unwrap();
    tables
        .iter()
        .find(|merged| merged["table"] == table)
        .unwrap_or_else(|| panic!("no {table} in {report}"))
}

#[test]
fn what_was_deleted_and_changed_comes_back() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, SHOP.as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql(SINCE);
    let (before, places) = (database.sql(ALL), sequences(&database));

    let dry = shelf
        .restore("latest", &database.url(), &["--upsert", "--dry-run"])
        .expect(0)
        .summary();
    assert_eq!(
        (&dry["dry_run"], &dry["merged"], &dry["compared"]),
        (&json!(true), &json!(false), &json!(true))
    );
    assert_eq!(
        (database.sql(ALL), sequences(&database)),
        (before, places),
        "a dry run changes nothing"
    );
    let customers = merged(&dry, "public.customers");
    assert_eq!(
        [
            &customers["insert"],
            &customers["update"],
            &customers["unchanged"]
        ],
        [1, 1, 18]
    );
    assert_eq!(
        (&customers["insert_keys"], &customers["update_keys"]),
        (&json!([["3"]]), &json!([["5"]]))
    );
    let lines = merged(&dry, "billing.lines");
    assert_eq!(
        (&lines["insert"], &lines["key"]),
        (&json!(6), &json!(["n", "order"]))
    );
    assert_eq!(lines["insert_keys"].as_array().unwrap().len(), 5);

    let report = shelf
        .restore("latest", &database.url(), &["--upsert"])
        .expect(0)
        .summary();
    assert_eq!(report["tables"], dry["tables"], "it does what was shown");
    assert!(
        report["warnings"]
            .to_string()
            .contains("`public.logs` is left out: it has no primary key"),
        "{report}"
    );
    assert!(report["warnings"].to_string().contains("touch"), "{report}");
    let row = "SELECT \"Full Name\" = E'c\\t5', loud = E'C\\t5', price::text, touched FROM customers WHERE id = 5";
    assert_eq!(
        database.sql(row),
        "t|t|1.50|0",
        "1.5 is not 1.50, and the trigger did not fire"
    );
    assert_eq!(database.sql("SELECT count(*) FROM billing.lines"), "120");
    assert_eq!(
        database.sql("SELECT no FROM billing.\"Order s\" WHERE id = 9"),
        "9"
    );
    assert_eq!(
        database.sql("SELECT string_agg(name, '' ORDER BY name) FROM tags"),
        "ab"
    );
    assert_eq!(
        database.sql("SELECT count(*) FROM customers"),
        "21",
        "what is not in the backup stays"
    );
    // The trigger fires again, identities are what they were, and sequences lie behind the rows.
    assert_eq!(
        database
            .sql("INSERT INTO customers (\"Full Name\") VALUES ('x') RETURNING touched > 0, id"),
        "t|22"
    );
    assert_eq!(
        database.sql(
            "SELECT string_agg(attidentity::text, '') FROM pg_attribute WHERE attidentity <> ''"
        ),
        "aa"
    );
    let again = shelf
        .restore(
            "latest",
            &database.url(),
            &["--upsert", "--table", "customers"],
        )
        .expect(0)
        .summary();
    assert_eq!(merged(&again, "public.customers")["unchanged"], 20);
}

#[test]
fn a_merge_that_fails_leaves_all_as_it_was() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, SHOP.as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql(SINCE);
    let (before, places) = (database.sql(ALL), sequences(&database));
    let fails = |more: &[&str], code: i32, id: &str, words: &str| {
        let outcome = shelf.restore("latest", &database.url(), more).expect(code);
        assert_eq!(outcome.exit_error()["id"], id, "{outcome}");
        assert!(
            outcome.exit_error().to_string().contains(words),
            "{words}: {outcome}"
        );
        assert_eq!(
            (database.sql(ALL), sequences(&database)),
            (before.clone(), places.clone()),
            "{outcome}"
        );
    };
    // Orders of a customer that is gone: the foreign key speaks, and the hint names the way.
    fails(
        &["--upsert", "--table", "billing.\"Order s\""],
        20,
        "merge_sql_failed",
        "--table",
    );
    fails(
        &["--upsert", "-t", "logs"],
        25,
        "merge_refused",
        "`public.logs`: it has no primary key",
    );
    fails(
        &["--data-only", "-t", "tags"],
        25,
        "merge_refused",
        "`public.tags`: it already has rows",
    );
    fails(
        &["--upsert", "-t", "custmers"],
        10,
        "no_such_table",
        "public.customers",
    );
    fails(
        &["--upsert", "-t", "tags", "--schema-map", "public=nowhere"],
        25,
        "merge_refused",
        "`nowhere.tags`: it is not there",
    );
    fails(&["--table", "tags"], 25, "table_exists", "--upsert");
    fails(&["--dry-run"], 2, "flag_alone", "--data-only");
    // A rule of the target that would run for what is written is told before anything is.
    database.sql("CREATE RULE r AS ON INSERT TO logs DO INSTEAD NOTHING; DELETE FROM logs");
    fails(
        &["--data-only", "-t", "logs"],
        25,
        "merge_refused",
        "`public.logs`: its rule `r` would run",
    );
    database.sql("ALTER TABLE tags DROP COLUMN name");
    let gone = shelf
        .restore("latest", &database.url(), &["--upsert", "-t", "tags"])
        .expect(25);
    assert!(
        gone.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("has no column `name`"),
        "{gone}"
    );
    let id = shelf
        .restore("latest", &database.url(), &["--upsert", "-t", "customers"])
        .expect(0)
        .summary();
    assert_eq!(id["merged"], true);
}

#[test]
fn empty_tables_are_filled_also_under_another_schema() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, SHOP.as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    let all = database.sql(ALL);
    database.sql("CREATE SCHEMA rescued; CREATE TABLE rescued.tags (LIKE tags INCLUDING ALL); TRUNCATE customers, billing.\"Order s\", billing.lines RESTART IDENTITY");
    let tables = [
        "--data-only",
        "-t",
        "billing.lines",
        "-t",
        "billing.\"Order s\"",
        "-t",
        "customers",
    ];
    let report = shelf
        .restore("latest", &database.url(), &tables)
        .expect(0)
        .summary();
    let order: Vec<&str> = report["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["table"].as_str().unwrap())
        .collect();
    assert_eq!(
        order,
        ["public.customers", "billing.\"Order s\"", "billing.lines"],
        "parents come first"
    );
    assert_eq!(database.sql(ALL), all);
    assert_eq!(
        database.sql("INSERT INTO billing.\"Order s\" (customer) VALUES (1) RETURNING id, no"),
        "41|41"
    );
    let mapped = [
        "--data-only",
        "-t",
        "tags",
        "--schema-map",
        "public=rescued",
    ];
    let report = shelf
        .restore("latest", &database.url(), &mapped)
        .expect(0)
        .summary();
    assert_eq!(merged(&report, "public.tags")["into"], "rescued.tags");
    assert_eq!(database.sql("SELECT count(*) FROM rescued.tags"), "2");
}

/// A damaged block is told before anything is committed, and a good one beside it still comes back.
#[test]
fn partitions_and_damage() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("../../assets/pagila.sql.gz"));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let report = shelf
        .restore(
            "latest",
            &database.url(),
            &["--upsert", "-t", "film", "-t", "customer"],
        )
        .expect(0)
        .summary();
    let film = merged(&report, "public.film");
    assert_eq!(
        (&film["insert"], &film["unchanged"]),
        (&json!(0), &json!(1000))
    );
    let whole: u64 = std::fs::read_dir(shelf.folder().join("shop"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".sql.gz"))
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum();
    let read = report["read_bytes"].as_u64().unwrap();
    assert!(read > 0 && read * 2 < whole, "{read} of {whole}");
    database.sql("UPDATE film SET title = title || '!' WHERE film_id = 7");
    shelf.damage(|bytes| {
        bytes
            .iter_mut()
            .skip(200)
            .step_by(97)
            .for_each(|byte| *byte ^= 0x10)
    });
    let outcome = shelf
        .restore("latest", &database.url(), &["--upsert", "-t", "film"])
        .expect(23);
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .ends_with("the target was not changed"),
        "{outcome}"
    );
    assert_eq!(
        database.sql("SELECT title LIKE '%!' FROM film WHERE film_id = 7"),
        "t"
    );
}

/// Foreign keys in a ring that wait for the COMMIT, an equality that takes two texts for one, an identity that is the key.
#[test]
fn odd_tables_are_merged_as_they_were_dumped() {
    let Some(server) = postgres() else { return };
    let (makes, nocase) = if server.has_icu() {
        let collation =
            "COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
        (collation, "text COLLATE nocase")
    } else {
        ("EXTENSION citext", "citext")
    };
    let odd = format!(
        r#"CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, up int REFERENCES b);
        ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE;
        CREATE {makes};
        CREATE TABLE words ("W x" {nocase} PRIMARY KEY, p point);
        CREATE TABLE ids (id int GENERATED ALWAYS AS IDENTITY (INCREMENT -1) PRIMARY KEY);
        CREATE TABLE late (id int PRIMARY KEY DEFERRABLE);
        CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
        BEGIN; INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (2, 1, 3), (3, 1, 2); UPDATE a SET b = 2; COMMIT;
        INSERT INTO words VALUES ('Word', '(1,2)'), ('tab\t', NULL); INSERT INTO ids DEFAULT VALUES; INSERT INTO ids DEFAULT VALUES;
        INSERT INTO late VALUES (1); INSERT INTO parts VALUES (1, 'one'), (11, 'eleven');"#,
    );
    let database = loaded(server, odd.as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql(
        "UPDATE a SET b = NULL; DELETE FROM b; DELETE FROM a; UPDATE words SET \"W x\" = 'WORD' WHERE \"W x\" = 'word'; \
         DELETE FROM ids; ALTER SEQUENCE ids_id_seq RESTART; DELETE FROM parts WHERE id = 11; UPDATE parts SET v = 'x'",
    );
    let tables = [
        "--upsert", "-t", "b", "-t", "a", "-t", "words", "-t", "ids", "-t", "parts",
    ];
    let report = shelf
        .restore("latest", &database.url(), &tables)
        .expect(0)
        .summary();
    assert_eq!(
        database.sql("SELECT b.id, a.b, up FROM b JOIN a ON a.id = b.a ORDER BY 1"),
        "2|2|3\n3|2|2"
    );
    assert_eq!(
        database.sql("SELECT \"W x\", p FROM words WHERE p IS NOT NULL"),
        "Word|(1,2)"
    );
    assert_eq!(merged(&report, "public.words")["update"], 1);
    assert_eq!(
        database.sql("SELECT string_agg(v, ',' ORDER BY id) FROM parts"),
        "one,eleven"
    );
    assert_eq!(merged(&report, "public.parts_2")["insert"], 1);
    assert_eq!(
        database.sql("INSERT INTO ids DEFAULT VALUES RETURNING id"),
        "-3"
    );
    let late = shelf
        .restore("latest", &database.url(), &["--upsert", "-t", "late"])
        .expect(25);
    assert!(
        late.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("deferrable"),
        "{late}"
    );
}

#[test]
fn a_merge_that_waits_can_be_stopped() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, SHOP.as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql(SINCE);
    let before = database.sql(ALL);
    let name = database.name();
    let count = |which: &str| {
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND {which}");
        server.sql("template1", &sql)
    };
    let ours = "application_name LIKE 'pgkeep-restore%'";
    std::thread::scope(|scope| {
        scope.spawn(|| server.try_sql(name, "BEGIN; LOCK TABLE customers; SELECT pg_sleep(77)"));
        let wait = |which: &str| {
            while count(which) == "0" {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        };
        wait("query LIKE '%pg_sleep(77)%' AND wait_event = 'PgSleep'");
        let running = shelf.run("latest", &database.url(), &["--upsert"]).start();
        wait(&format!("{ours} AND wait_event_type = 'Lock'"));
        running.signal(rustix::process::Signal::TERM);
        let outcome = running.wait().expect(143);
        assert!(
            outcome.exit_error()["message"]
                .as_str()
                .unwrap()
                .ends_with("the target was not changed"),
            "{outcome}"
        );
        assert_eq!(count(ours), "0", "the session is gone");
        server.sql(
            "template1",
            &format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ),
        );
    });
    assert_eq!(database.sql(ALL), before);
}

/// Whoever waits for a lock keeps all later writers from the table, so that a merge waits for as long as it may and no longer.
#[test]
fn a_merge_waits_for_locks_as_long_as_it_may() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, SHOP.as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql(SINCE);
    let (before, name) = (database.sql(ALL), database.name());
    let holds = format!(
        "FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE '%(78)%' AND wait_event = 'PgSleep'"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| server.try_sql(name, "BEGIN; LOCK TABLE customers; SELECT pg_sleep(78)"));
        while server.sql("template1", &format!("SELECT count(*) {holds}")) == "0" {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for more in [
            &["--upsert"][..],
            &["--upsert", "--dry-run"],
            &["--data-only", "-t", "customers"],
        ] {
            let more = [more, &["--lock-wait-timeout", "1s"]].concat();
            let outcome = shelf.restore("latest", &database.url(), &more).expect(20);
            let error = outcome.exit_error();
            assert_eq!(error["id"], "lock_timeout", "{outcome}");
            let message = error["message"].as_str().unwrap();
            // Whether a table is empty is asked in front of the session, and the server itself ends that wait.
            let is_watched = !more.contains(&"--data-only");
            let names = message.contains("application psql");
            assert_eq!(names, is_watched, "{outcome}");
            assert!(
                message.ends_with("; the target was not changed"),
                "{outcome}"
            );
        }
        server.sql(
            "template1",
            &format!("SELECT pg_terminate_backend(pid) {holds}"),
        );
    });
    assert_eq!(database.sql(ALL), before);
}

/// A connection may be lost between the COMMIT and its answer: the server knows what became of it.
#[test]
fn a_merge_whose_commit_was_not_answered_says_what_became_of_it() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, SHOP.as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    let all = database.sql(ALL);
    for (is_final, words) in [
        (false, "the rows are in their tables now"),
        (true, "the rows may or may not be in their tables"),
    ] {
        database.sql(SINCE);
        let lost = Lost {
            first: "pgkeep_rows_0",
            last: "COMMIT;",
            is_final,
        };
        let proxy = Proxy::losing(server.port(), lost);
        let url = database.url().replace(
            &format!(":{}/", server.port()),
            &format!(":{}/", proxy.port()),
        );
        let outcome = shelf.restore("latest", &url, &["--upsert"]).expect(20);
        let message = outcome.exit_error()["message"].to_string();
        assert!(message.contains(words), "{outcome}");
        assert!(!message.contains("as it was"), "{outcome}");
        assert_eq!(outcome.summary()["merged"], !is_final, "{outcome}");
        let new = r#"DELETE FROM customers WHERE "Full Name" = 'new'"#;
        database.sql(new);
        assert_eq!(database.sql(ALL), all, "it was committed");
    }
}

/// What was passed over needs somebody to look at it, and each run leaves its record.
#[test]
fn a_merge_out_of_the_second_copy_ends_with_3_and_leaves_a_record() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, SHOP.as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    let good = shelf.folder().parent().unwrap().join("good");
    copy_folder(&shelf.folder(), &good);
    shelf.damage(|bytes| {
        let bytes = bytes.iter_mut().skip(200).step_by(97);
        bytes.for_each(|byte| *byte ^= 0x10);
    });
    database.sql(SINCE);
    let more = ["--upsert", "--storage", good.to_str().unwrap()];
    let outcome = shelf.restore("latest", &database.url(), &more).expect(3);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "stored_not_good", "{outcome}");
    assert!(!error.to_string().contains("as it was"), "{outcome}");
    assert_eq!(outcome.summary()["merged"], true);
    let runs = std::fs::read_dir(shelf.folder().join("shop/runs"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let restores: Vec<Value> = runs
        .map(|text| serde_json::from_str(&text).unwrap())
        .filter(|run: &Value| run["verb"] == "restore")
        .collect();
    assert_eq!(restores.len(), 1, "{restores:?}");
    assert_eq!(restores[0]["exit_code"], 3, "{restores:?}");
}

pub(super) fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// One table out of a bucket: its own bytes are asked for, and not the object.
#[test]
fn only_the_tables_own_bytes_come_out_of_a_bucket() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("../../assets/pagila.sql.gz"));
    let bucket = ScriptedS3::start();
    let mut sandbox = Sandbox::new();
    for (name, value) in bucket.environment() {
        sandbox.set(name, value);
    }
    let (url, from) = (format!("s3://{}/pg", bucket.bucket), database.socket_url());
    let storage = ["--storage", &url, "--s3-endpoint", &bucket.endpoint];
    let backup = ["--json", "backup", "--url", &from, "--name", "shop"];
    sandbox
        .pgkeep(backup.iter().chain(&storage))
        .run()
        .expect(0);
    let before = bucket.log().len();
    let restore = [
        "--json",
        "restore",
        "latest",
        "--into",
        &from,
        "--upsert",
        "-t",
        "customer",
        "--allow-superuser",
    ];
    let report = sandbox
        .pgkeep(restore.iter().chain(&storage))
        .run()
        .expect(0)
        .summary();
    assert_eq!(merged(&report, "public.customer")["unchanged"], 599);
    let key = bucket
        .keys()
        .into_iter()
        .find(|key| key.ends_with(".sql.gz"))
        .unwrap();
    let whole = std::fs::metadata(bucket.bucket_dir().join(&key))
        .unwrap()
        .len();
    let read = report["read_bytes"].as_u64().unwrap();
    assert!(read > 0 && read * 10 < whole, "{read} of {whole}");
    let gets: Vec<_> = bucket
        .log()
        .into_iter()
        .skip(before)
        .filter(|seen| seen.method == "GET" && seen.path.ends_with(".sql.gz"))
        .collect();
    assert_eq!(gets.len(), 1, "one range of the object");
}

/// What the application's own statements find by its path is found by a merge, too; what we write has its schema.
#[test]
fn a_check_finds_functions_by_the_targets_own_path() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE FUNCTION okv(t text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT t <> ''bad''';
         CREATE FUNCTION chk(t text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN okv(t); END';
         CREATE TABLE chkd (id int PRIMARY KEY, v text CHECK (chk(v))); INSERT INTO chkd VALUES (1, 'x'), (2, 'y')",
    );
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql("DELETE FROM chkd WHERE id = 2; INSERT INTO chkd VALUES (3, 'z')");
    let upsert = ["--upsert", "--table", "chkd"];
    shelf.restore("latest", &database.url(), &upsert).expect(0);
    assert_eq!(
        database.sql("SELECT string_agg(v, '' ORDER BY id) FROM chkd"),
        "xyz"
    );
    database.sql("TRUNCATE chkd");
    let append = ["--data-only", "--table", "chkd"];
    shelf.restore("latest", &database.url(), &append).expect(0);
    // A dump is restored with an empty path, where its own function is at fault: that is said.
    let other = server.database();
    let outcome = shelf.restore("latest", &other.url(), &[]);
    assert_ne!(outcome.code(), 0);
    assert!(
        outcome
            .stderr()
            .contains("the dump's own function public.chk(text)"),
        "{outcome}"
    );
    let beside = ["--table", "chkd", "--schema-map", "public=r"];
    let outcome = shelf.restore("latest", &database.url(), &beside);
    assert!(
        outcome.stderr().contains("the dump's own function"),
        "{outcome}"
    );
}

/// Every table that rows can be merged into is meant, and the others are named.
#[test]
fn tables_without_a_usable_key_are_left_out_and_named() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE whole (id int PRIMARY KEY, v text); INSERT INTO whole VALUES (1, 'a'), (2, 'b');
         CREATE TABLE late (id int PRIMARY KEY DEFERRABLE); INSERT INTO late VALUES (1);
         CREATE TABLE bare (id int); INSERT INTO bare VALUES (1)",
    );
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql("DELETE FROM whole WHERE id = 2");
    let report = shelf
        .restore("latest", &database.url(), &["--upsert"])
        .expect(0)
        .summary();
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("late` is left out: its primary key is deferrable"),
        "{warnings}"
    );
    assert!(
        warnings.contains("bare` is left out: it has no primary key"),
        "{warnings}"
    );
    assert_eq!(database.sql("SELECT count(*) FROM whole"), "2");
    shelf
        .restore("latest", &database.url(), &["--upsert", "--table", "late"])
        .expect(25);
}

/// Rules would run for what is merged, and values that rows have exchanged meet one another: both have words.
#[test]
fn rules_and_exchanged_values_are_told() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE items (id int PRIMARY KEY, list int, pos int, UNIQUE (list, pos)); INSERT INTO items VALUES (1, 1, 1), (2, 1, 2), (3, 1, 3);
         CREATE TABLE ruled (id int PRIMARY KEY); CREATE TABLE log (n int); INSERT INTO ruled VALUES (1), (2);
         CREATE RULE r_log AS ON INSERT TO ruled DO ALSO INSERT INTO log VALUES (NEW.id)",
    );
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql("UPDATE items SET pos = 100 + pos; UPDATE items SET pos = CASE id WHEN 1 THEN 3 WHEN 3 THEN 1 ELSE 2 END; DELETE FROM ruled");
    let outcome = shelf.restore("latest", &database.url(), &["--upsert", "--table", "items"]);
    assert_ne!(outcome.code(), 0);
    assert!(
        outcome.exit_error()["hints"]
            .to_string()
            .contains("exchanged their values"),
        "{outcome}"
    );
    for flag in ["--upsert", "--data-only"] {
        let outcome = shelf
            .restore("latest", &database.url(), &[flag, "--table", "ruled"])
            .expect(25);
        assert!(
            outcome.stderr().contains("its rule `r_log` would run"),
            "{outcome}"
        );
    }
    assert_eq!(database.sql("SELECT count(*) FROM log"), "0");
}

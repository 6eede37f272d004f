//! Tables that are dumped in part: what is kept closes over foreign keys, restores, and is on record.

use serde_json::{Value, json};

use super::Real;
use crate::support::data;
use crate::support::postgres::TestDatabase;
use crate::support::sandbox::Outcome;
use crate::support::{Server, postgres};

/// Writes a configuration with these limits of the database `shop`, and makes its backup.
fn configure(database: &TestDatabase<'_>, limits: &Value) -> Real {
    let real = Real::new(database.socket_url());
    let config = json!({
        "databases": {"shop": {"url": database.socket_url(), "limits": limits}},
        "storages": {"near": {"url": real.folder()}},
    });
    real.sandbox.write("pgkeep.yaml", config.to_string());
    real
}

fn backup(real: &Real, more: &[&str]) -> Outcome {
    let fixed = ["--json", "backup", "--attempts", "1"];
    real.sandbox.pgkeep([&fixed[..], more].concat()).run()
}

fn rows_of(manifest: &Value, name: &str) -> u64 {
    let tables = manifest["tables"].as_array().unwrap();
    let table = tables.iter().find(|table| table["name"] == name);
    table.unwrap_or_else(|| panic!("no `{name}`"))["rows"]
        .as_u64()
        .unwrap()
}

/// Restores a backup as anybody would, and returns the database.
fn restored<'a>(server: &'a Server, real: &Real, manifest: &Value) -> TestDatabase<'a> {
    let copy = server.database();
    let dump = real
        .folder()
        .join(manifest["object"]["key"].as_str().unwrap());
    copy.load(&data::gunzip(&std::fs::read(dump).unwrap()));
    copy
}

const SHOP: &str = "
CREATE TABLE users (id int PRIMARY KEY, boss int REFERENCES users, name text, created_at timestamptz);
CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, created_at timestamptz,
  total int, twice int GENERATED ALWAYS AS (total * 2) STORED);
CREATE TABLE items (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders);
CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz, msg text);
INSERT INTO users SELECT g, CASE WHEN g > 1 THEN g / 2 END, 'u' || g, now() - g * interval '1 hour' FROM generate_series(1, 1000) g;
INSERT INTO orders SELECT g, g % 1000 + 1, now() - g * interval '1 hour', g FROM generate_series(1, 5000) g;
INSERT INTO items SELECT g, (g * 7) % 5000 + 1 FROM generate_series(1, 200) g;
INSERT INTO log (at, msg) SELECT CASE WHEN g % 10 > 0 THEN now() - g * interval '1 hour' END, 'm' FROM generate_series(1, 2000) g;
CREATE INDEX ON users (created_at);
";

#[test]
fn limited_tables_keep_what_others_refer_to_and_restore() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(SHOP);
    let real = configure(
        &database,
        &json!({
            "users": {"newest": 10, "by": "created_at"},
            "orders": {"last": "3d", "by": "created_at"},
            "log": {"where": "id % 100 = 0"},
        }),
    );
    let outcome = backup(&real, &[]).expect(0);
    let manifest = real.manifest(&outcome);
    // By hand, in the database itself: the orders first, then the users that they and the newest ones need.
    let kept = "WITH RECURSIVE o AS (SELECT * FROM orders WHERE created_at >= now() - interval '3 days' - interval '1 hour'
          OR id IN (SELECT order_id FROM items)),
        u AS (SELECT * FROM users WHERE id IN (SELECT user_id FROM o) OR id <= 10
          UNION SELECT p.* FROM users p JOIN u ON p.id = u.boss) SELECT count(*) FROM u";
    let users = rows_of(&manifest, "users");
    assert_eq!(users.to_string(), database.sql(kept));
    assert_eq!(rows_of(&manifest, "items"), 200);
    assert_eq!(rows_of(&manifest, "log"), 20);
    let limit = |name: &str| {
        let limits = manifest["limits"].as_array().unwrap();
        limits.iter().find(|limit| limit["name"] == name).unwrap()
    };
    assert_eq!(limit("users")["rows"], users);
    assert_eq!(limit("users")["rows_total"], 1000);
    assert!(limit("users")["cutoff"].is_string() && limit("orders")["cutoff"].is_string());
    assert_eq!(limit("log").get("cutoff"), None);
    let summary = outcome.summary();
    assert_eq!(summary["backups"][0]["limits"], manifest["limits"]);
    let warned: Vec<&str> = summary["backups"][0]["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|warning| warning["id"] == "limit_without_index")
        .map(|warning| warning["message"].as_str().unwrap())
        .collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].contains("CREATE INDEX CONCURRENTLY ON \"public\".\"orders\""),
        "{warned:?}"
    );

    let copy = restored(server, &real, &manifest);
    assert_eq!(copy.sql("SELECT count(*) FROM users"), users.to_string());
    assert_eq!(
        copy.sql("SELECT count(*) FROM orders WHERE twice <> total * 2"),
        "0"
    );
    // A limited backup is a full one when the configuration limits it.
    real.sandbox.pgkeep(["drill"]).run().expect(0);
    let again = real.manifest(&backup(&real, &[]).expect(0));
    let digest = |manifest: &Value| {
        let tables = manifest["tables"].as_array().unwrap();
        tables
            .iter()
            .map(|table| table["digest"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(digest(&again)[0..2], digest(&manifest)[0..2]);

    // What it would take the place of has more rows.
    let into = database.socket_url();
    let refused = real
        .sandbox
        .pgkeep(["--json", "restore", "latest", "--into", &into, "--replace"])
        .run()
        .expect(25);
    assert_eq!(refused.exit_error()["id"], "backup_is_limited", "{refused}");
    let upsert = [
        "restore",
        "latest",
        "--into",
        &into,
        "--upsert",
        "--allow-superuser",
    ];
    real.sandbox.pgkeep(upsert).run().expect(0);
    assert_eq!(database.sql("SELECT count(*) FROM orders"), "5000");
}

#[test]
fn pagila_closes_over_its_foreign_keys() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.load(&data::dump("../../assets/pagila.sql.gz"));
    let real = configure(
        &database,
        &json!({
            "film": {"newest": 5, "by": "film_id"},
            "customer": {"newest": 3, "by": "customer_id"},
            "rental": {"newest": 50, "by": "rental_date"},
            "payment": {"where": "payment_id % 500 = 0"},
            "inventory": {"where": "false"},
            "address": {"where": "false"},
        }),
    );
    let manifest = real.manifest(&backup(&real, &["--jobs", "2"]).expect(0));
    let rows = |name: &str| rows_of(&manifest, name);
    assert!((50..16_000).contains(&rows("rental")), "{}", rows("rental"));
    assert!(
        (1..4_581).contains(&rows("inventory")),
        "{}",
        rows("inventory")
    );
    let copy = restored(server, &real, &manifest);
    assert_eq!(
        copy.sql("SELECT count(*) FROM inventory"),
        rows("inventory").to_string()
    );
    // Every leaf of a partitioned table is limited, and its sum is on record.
    let limits = manifest["limits"].as_array().unwrap();
    let payment = limits
        .iter()
        .find(|limit| limit["name"] == "payment")
        .unwrap();
    assert_eq!(
        copy.sql("SELECT count(*) FROM payment"),
        payment["rows"].to_string()
    );
    assert_eq!(
        database.sql("SELECT count(*) FROM payment"),
        payment["rows_total"].to_string()
    );
}

#[test]
fn what_cannot_be_closed_is_refused_with_both_ways_out() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE a (id int PRIMARY KEY, b int, at date); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, at date);
         INSERT INTO a SELECT g, g % 100 + 1, '2026-01-01'::date + g FROM generate_series(1, 100) g;
         INSERT INTO b SELECT g, (g * 3) % 100 + 1, '2026-01-01'::date + g FROM generate_series(1, 100) g;
         ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b DEFERRABLE;",
    );
    let both = |references: &str| json!({"a": {"newest": 5, "by": "at", "references": references}, "b": {"newest": 5, "by": "at"}});
    let refused = backup(&configure(&database, &both("keep")), &[]).expect(2);
    let failure = refused.exit_error();
    assert_eq!(failure["id"], "limit_refused", "{refused}");
    let message = failure["message"].as_str().unwrap();
    assert!(
        message.contains("`public.a`") && message.contains("`public.b`"),
        "{message}"
    );
    assert!(
        failure["hints"][0]
            .as_str()
            .unwrap()
            .contains("references: drop"),
        "{failure}"
    );

    // Dropped, it restores, and its keys say that they are not valid.
    let real = configure(&database, &both("drop"));
    let manifest = real.manifest(&backup(&real, &[]).expect(0));
    assert_eq!(rows_of(&manifest, "a"), 5);
    let copy = restored(server, &real, &manifest);
    let keys = "SELECT string_agg(conname || ' ' || convalidated, ', ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(copy.sql(keys), "a_b true, b_a_fkey false");
    real.sandbox.pgkeep(["drill"]).run().expect(0);

    for (limits, words) in [
        (
            json!({"nix": {"newest": 5, "by": "at"}}),
            "not among the tables",
        ),
        (json!({"a": {"newest": 5, "by": "nix"}}), "no column `nix`"),
        (json!({"a": {"last": "3d", "by": "id"}}), "no time"),
        (
            json!({"a": {"where": "nix = 3"}}),
            "does not take the condition",
        ),
    ] {
        let refused = backup(&configure(&database, &limits), &[]);
        assert!([2, 21].contains(&refused.code()), "{refused}");
        let error = refused.exit_error();
        let told = format!("{} {}", error["message"], error["details"]);
        assert!(told.contains(words), "{told}");
    }
    let real = configure(&database, &json!({}));
    let flag = backup(&real, &["--limit", "a=newest:3"]).expect(2);
    assert_eq!(flag.exit_error()["id"], "bad_limit");
    let flag = backup(&real, &["--limit", "a=where:true) OR (true"]).expect(2);
    assert_eq!(flag.exit_error()["id"], "bad_limit");
    let partial = backup(&real, &["--limit", "a=newest:3:at"]).expect(0);
    let key = partial.summary()["backups"][0]["manifest_key"].clone();
    assert!(key.as_str().unwrap().contains("/partial/"), "{key}");
}

/// Rows that a policy hides would be missing without a word.
#[test]
fn a_policy_that_hides_rows_is_an_error() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let role = format!("{}_reader", database.name());
    database.sql(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, at date); INSERT INTO t SELECT g, now() FROM generate_series(1, 100) g;
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (id < 10);
         CREATE ROLE {role} LOGIN; GRANT SELECT ON t TO {role};"
    ));
    let real = configure(&database, &json!({}));
    let url = format!("{}&user={role}", database.socket_url());
    let config = json!({
        "databases": {"shop": {"url": url, "limits": {"t": {"newest": 50, "by": "at"}}}},
        "storages": {"near": {"url": real.folder()}},
    });
    real.sandbox.write("pgkeep.yaml", config.to_string());
    let refused = backup(&real, &[]).expect(20);
    assert_eq!(refused.exit_error()["id"], "row_security", "{refused}");
    database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// The newest of a table whose order is not clear are always the same, and a null is never the newest.
#[test]
fn ties_and_nulls_are_settled() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE t (id int PRIMARY KEY, at date); INSERT INTO t SELECT g, CASE WHEN g > 30 THEN NULL ELSE '2026-01-01'::date END
         FROM generate_series(1, 60) g; CREATE TABLE p (id int, at timestamp) PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (50); CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (50) TO (100);
         INSERT INTO p SELECT g, '2026-01-01'::timestamp + g * interval '1 hour' FROM generate_series(1, 99) g;
         CREATE TABLE i (id int, at date); CREATE TABLE i_child () INHERITS (i);
         INSERT INTO i VALUES (1, '2026-01-01'); INSERT INTO i_child VALUES (2, '2026-01-02'), (3, '2026-01-03')",
    );
    let limits = json!({
        "t": {"newest": 10, "by": "at"}, "p": {"newest": 60, "by": "at"}, "i": {"newest": 2, "by": "at"},
    });
    let real = configure(&database, &limits);
    let manifest = real.manifest(&backup(&real, &[]).expect(0));
    let copy = restored(server, &real, &manifest);
    assert_eq!(
        copy.sql("SELECT min(id) || ' ' || max(id) || ' ' || count(*) FROM t"),
        "21 30 10"
    );
    assert_eq!(rows_of(&manifest, "p_1"), 10);
    assert_eq!(rows_of(&manifest, "p_2"), 50);
    assert_eq!(copy.sql("SELECT count(*) FROM ONLY i"), "0");
    assert_eq!(copy.sql("SELECT count(*) FROM i_child"), "2");
}

/// Each of these was a backup once whose restore failed, or that held what nobody wanted in it.
#[test]
fn what_would_leave_a_gap_is_refused() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE p (id int PRIMARY KEY, at date) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (100);
         INSERT INTO p SELECT g, now() FROM generate_series(1, 99) g;
         CREATE TABLE r (id int PRIMARY KEY, p_id int REFERENCES p); INSERT INTO r SELECT g, g FROM generate_series(1, 99) g;
         CREATE TABLE i (id int, at date); CREATE TABLE ic (secret text, r_id int REFERENCES r) INHERITS (i);
         INSERT INTO ic VALUES (1, now(), 'SECRET', 5);",
    );
    for (config, words) in [
        (
            json!({"limits": {"p1": {"newest": 10, "by": "id"}}}),
            "is a partition of",
        ),
        (
            json!({"limits": {"p": {"newest": 10, "by": "id"}}, "structure_only": ["p1"]}),
            "are left out of the backup",
        ),
        (
            json!({"limits": {"i": {"newest": 10, "by": "id"}}, "structure_only": ["ic"]}),
            "are left out of the backup",
        ),
        (
            json!({"limits": {"r": {"newest": 10, "by": "id"}}, "structure_only": ["p1"]}),
            "whose rows are left out",
        ),
        (
            json!({"limits": {"r": {"where": "random() < 0.3"}}}),
            "calls `random`",
        ),
        (
            json!({"limits": {"i": {"newest": 1, "by": "id"}, "r": {"newest": 1, "by": "id"}}}),
            "lacks",
        ),
    ] {
        let real = configure(&database, &json!({}));
        let mut shop = json!({"url": database.socket_url()});
        shop.as_object_mut()
            .unwrap()
            .extend(config.as_object().unwrap().clone());
        let config =
            json!({"databases": {"shop": shop}, "storages": {"near": {"url": real.folder()}}});
        real.sandbox.write("pgkeep.yaml", config.to_string());
        let refused = backup(&real, &[]).expect(2);
        let failure = refused.exit_error();
        assert_eq!(failure["id"], "limit_refused", "{refused}");
        assert!(
            failure["message"].as_str().unwrap().contains(words),
            "{failure}"
        );
    }
}

/// An unlogged table is limited as any other, a condition may name its table, and the hash of an enum counts once.
#[test]
fn odd_tables_are_limited_too() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 1000);
         CREATE UNLOGGED TABLE u (id int PRIMARY KEY, a_id int); INSERT INTO u SELECT g, g FROM generate_series(1, 1000) g;
         CREATE TABLE c (id int PRIMARY KEY, a_id int REFERENCES a); INSERT INTO c SELECT g, g FROM generate_series(1, 1000) g;
         CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
         CREATE TABLE h (m mood, v int) PARTITION BY HASH (m);
         CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO h SELECT (ARRAY['sad', 'ok', 'happy'])[g % 3 + 1]::mood, g FROM generate_series(1, 300) g;",
    );
    let real = configure(
        &database,
        &json!({
            "u": {"newest": 10, "by": "id"}, "a": {"newest": 5, "by": "id"},
            "c": {"where": "c.id % 100 = 0"}, "h": {"newest": 10, "by": "v"},
        }),
    );
    let manifest = real.manifest(&backup(&real, &["--jobs", "3"]).expect(0));
    let limit = |name: &str| {
        let limits = manifest["limits"].as_array().unwrap();
        let found = limits.iter().find(|limit| limit["name"] == name).unwrap();
        (
            found["rows"].as_u64().unwrap(),
            found["rows_total"].as_u64().unwrap(),
        )
    };
    assert_eq!(limit("u"), (10, 1000));
    assert_eq!(limit("c"), (10, 1000));
    assert_eq!(limit("a"), (14, 1000));
    assert_eq!(limit("h"), (10, 300));
    let copy = restored(server, &real, &manifest);
    assert_eq!(copy.sql("SELECT count(*) FROM h"), "10");
    assert_eq!(copy.sql("SELECT count(*) FROM u"), "10");
}

/// What the closure reads stays as it is until it was read: nobody empties a table between the snapshot and then.
#[test]
fn what_refers_to_a_limited_table_cannot_be_emptied_meanwhile() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE z (id int PRIMARY KEY); INSERT INTO z SELECT generate_series(1, 1000);
         CREATE TABLE aaa AS SELECT g AS id, md5(g::text) AS pad FROM generate_series(1, 100000) g;
         CREATE TABLE child (id int, z int REFERENCES z); INSERT INTO child SELECT g, g FROM generate_series(1, 1000) g;",
    );
    let mut real = configure(&database, &json!({"z": {"newest": 10, "by": "id"}}));
    real.sandbox.set("PGKEEP_TEST_LARGE_BYTES", "1000000");
    let (mut whole, mut refused) = (0, 0);
    for point in 0..10 {
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(200 + point * 80));
                database.sql("TRUNCATE child");
            });
            backup(&real, &["--jobs", "2"])
        });
        if outcome.code() == 0 {
            whole += 1;
            let manifest = real.manifest(&outcome);
            let children = rows_of(&manifest, "child");
            let kept = if children == 0 { 10 } else { 1000 };
            assert_eq!(rows_of(&manifest, "z"), kept, "{children} children");
        } else {
            assert_eq!(outcome.exit_error()["id"], "lock_timeout", "{outcome}");
            refused += 1;
        }
        database
            .sql("TRUNCATE child; INSERT INTO child SELECT g, g FROM generate_series(1, 1000) g");
    }
    assert!(whole > 0, "{refused} of 10 were refused");
}

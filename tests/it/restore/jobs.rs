//! `--jobs`: several sessions bring back what one does, and none of them leaves anything behind when one fails.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::support::S3Server;

/// Everything that a dump makes behind the data, and the sequences, in one line each.
const MADE: &str = "SELECT * FROM (
    SELECT 'i ' || indexdef AS made FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
    UNION ALL SELECT 'c ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) || convalidated
        FROM pg_constraint WHERE connamespace <> 'pg_catalog'::regnamespace AND conrelid <> 0
    UNION ALL SELECT 't ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'a ' || inhrelid::regclass || ' ' || inhparent::regclass FROM pg_inherits
    UNION ALL SELECT 'v ' || schemaname || viewname || definition FROM pg_views
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
    UNION ALL SELECT 's ' || schemaname || '.' || sequencename || coalesce(last_value, -1) FROM pg_sequences
    UNION ALL SELECT 'd ' || c.oid::regclass || coalesce(t.spcname, '') || c.relispopulated || c.relhasindex
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
        WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL SELECT 'p ' || tablename || policyname FROM pg_policies
    UNION ALL SELECT 'o ' || oid || md5(lo_get(oid)) FROM pg_largeobject_metadata
    UNION ALL SELECT 'm ' || objoid::regclass || description FROM pg_description
        WHERE classoid = 'pg_class'::regclass AND objoid >= 16384) AS made ORDER BY made COLLATE \"C\"";

#[track_caller]
fn assert_comes_back(server: &Server, database: &TestDatabase<'_>, jobs: &str) {
    let target = Target::beside(database, server);
    let shelf = Shelf::new();
    shelf.backup(database);
    let report = shelf
        .restore("latest", &target.url(), &["--jobs", jobs])
        .expect(0)
        .summary();
    assert_eq!(report["jobs"].to_string(), jobs);
    assert_eq!(report["compared"], true);
    assert_eq!(database.sql(MADE), target.sql(MADE));
}

/// A function in an index may read rows that come later; the small table's come last.
#[test]
fn an_index_that_reads_another_table_is_whole() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE lookup (id int PRIMARY KEY, name text); INSERT INTO lookup SELECT n, 'n' || n FROM generate_series(1, 1000) n;
         CREATE FUNCTION nm(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
           'BEGIN RETURN (SELECT name FROM public.lookup WHERE id = $1); END';
         CREATE TABLE items (id int, lk int); INSERT INTO items SELECT n, n % 1000 + 1 FROM generate_series(1, 60000) n;
         CREATE TABLE big AS SELECT n, repeat('x', 40) FROM generate_series(1, 300000) n;
         CREATE INDEX by_name ON items (nm(lk))",
    );
    assert_comes_back(server, &database, "2");
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    shelf
        .restore("latest", &target.url(), &["--jobs", "2"])
        .expect(0);
    let found = "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM items WHERE nm(lk) = 'n5'";
    assert_eq!(target.sql(found), "60");
}

/// A check reads a table whose rows several sessions bring in later than the dump does.
#[test]
fn an_order_that_several_sessions_cannot_keep_is_kept_by_one() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE a_limits (kind text PRIMARY KEY, top int); INSERT INTO a_limits SELECT 'k' || n, 10 FROM generate_series(1, 10) n;
         CREATE FUNCTION top_of(k text) RETURNS int LANGUAGE sql STABLE AS 'SELECT top FROM public.a_limits WHERE kind = k';
         CREATE TABLE z_orders (id int PRIMARY KEY, kind text, n int, CHECK (n <= coalesce(public.top_of(kind), -1)));
         INSERT INTO z_orders SELECT n, 'k' || (1 + n % 10), 5 FROM generate_series(1, 20000) n;
         CREATE TABLE m_big AS SELECT n, repeat('x', 40) FROM generate_series(1, 400000) n",
    );
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let report = shelf
        .restore("latest", &target.url(), &["--jobs", "2"])
        .expect(0)
        .summary();
    assert_eq!(
        (&report["jobs"], &report["compared"]),
        (&1.into(), &true.into())
    );
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("one session restored it again") && warnings.contains("z_orders"),
        "{warnings}"
    );
    // What fails in the dump's own order, too, is told once, and leaves nothing.
    database.sql("ALTER TABLE z_orders RENAME TO a_first");
    shelf.backup(&database);
    drop(target);
    let target = Target::beside(&database, server);
    let outcome = shelf
        .restore("latest", &target.url(), &["--jobs", "2"])
        .expect(20);
    assert_eq!(outcome.exit_error()["id"], "restore_sql_failed");
    assert_eq!(target.databases(), [""; 0]);
}

/// What a view calls while it is filled changes a sequence: one session and several say so alike.
#[test]
fn a_sequence_that_is_not_as_it_was_is_told_by_one_session_and_by_several() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE SEQUENCE calls; CREATE TABLE a AS SELECT n FROM generate_series(1, 20000) n; CREATE TABLE b AS TABLE a;
         CREATE MATERIALIZED VIEW seen AS SELECT nextval('calls') AS v",
    );
    let shelf = Shelf::new();
    shelf.backup(&database);
    for jobs in ["1", "2"] {
        let target = Target::beside(&database, server);
        let outcome = shelf
            .restore("latest", &target.url(), &["--jobs", jobs])
            .expect(23);
        let error = outcome.exit_error().to_string();
        assert!(
            error.contains("a sequence differs from the dump") && error.contains("calls"),
            "{outcome}"
        );
        assert_eq!(target.databases(), [""; 0]);
    }
}

#[test]
fn samples_come_back_by_several_sessions() {
    let Some(server) = postgres() else { return };
    for sample in [
        pagila(),
        data::nasty(server),
        data::dump("public/neon-chinook.sql"),
    ] {
        assert_comes_back(server, &loaded(server, &sample), "3");
    }
}

/// Partitions with keys of their own, inheritance, keys in a circle, large objects, views that need a primary key.
#[test]
fn what_depends_on_one_another_comes_back_by_several_sessions() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE SCHEMA \"S 1\"; CREATE TABLE \"S 1\".\"a.b\" (id int PRIMARY KEY, \"to\" int UNIQUE);
         CREATE TABLE b (id serial PRIMARY KEY, a int REFERENCES \"S 1\".\"a.b\" (id), again int REFERENCES b);
         INSERT INTO \"S 1\".\"a.b\" SELECT n, n FROM generate_series(1, 3000) n;
         INSERT INTO b (a, again) SELECT n, n FROM generate_series(1, 3000) n;
         ALTER TABLE \"S 1\".\"a.b\" ADD FOREIGN KEY (\"to\") REFERENCES b (id) DEFERRABLE INITIALLY DEFERRED;
         CREATE TABLE part (id int, at int, b int REFERENCES b, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (1000);
         CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (1000) TO (9000) PARTITION BY LIST (at);
         CREATE TABLE part_2_rest PARTITION OF part_2 DEFAULT; CREATE INDEX ON part (b);
         CREATE UNIQUE INDEX only_here ON part_1 (at, id); COMMENT ON INDEX only_here IS 'here';
         ALTER TABLE part_1 ADD CONSTRAINT own FOREIGN KEY (id) REFERENCES b (id);
         INSERT INTO part SELECT n, n, n FROM generate_series(1, 3000) n;
         CREATE TABLE points (id int, at int, FOREIGN KEY (id, at) REFERENCES part);
         INSERT INTO points VALUES (5, 5), (2000, 2000);
         CREATE TABLE child (PRIMARY KEY (id), EXCLUDE USING btree (more WITH =), more int) INHERITS (b);
         INSERT INTO child (id, a, more) SELECT n, n, n FROM generate_series(1, 100) n;
         CREATE VIEW needs_key AS SELECT b.*, count(*) AS n FROM b GROUP BY b.id;
         CREATE MATERIALIZED VIEW kept AS SELECT * FROM needs_key; CREATE UNIQUE INDEX ON kept (id);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not while it is restored''; END';
         CREATE TRIGGER t BEFORE INSERT ON b FOR EACH ROW EXECUTE FUNCTION f();
         ALTER TABLE b REPLICA IDENTITY USING INDEX b_pkey; ALTER TABLE b CLUSTER ON b_pkey;
         CREATE STATISTICS st ON a, again FROM b; CREATE RULE r AS ON DELETE TO b DO INSTEAD NOTHING;
         ALTER TABLE points ADD CONSTRAINT later CHECK (id > 7) NOT VALID;
         SELECT lo_from_bytea(0, 'one'), lo_from_bytea(0, 'two'); SELECT setval('b_id_seq', 77)",
    );
    assert_comes_back(server, &database, "4");
}

#[test]
fn one_session_that_ends_ends_all_and_the_database_goes() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
         'BEGIN IF current_database() ~ ''_copy'' THEN PERFORM pg_sleep(60); END IF; RETURN $1; END';
         CREATE TABLE a AS SELECT 1 AS n, repeat('x', 2000000) AS long;
         CREATE TABLE b AS SELECT 1 AS n, repeat('y', 2000000) AS long;
         CREATE INDEX ON a (slow(n)); CREATE INDEX ON b (slow(n))",
    );
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let busy = format!(
        "FROM pg_stat_activity WHERE starts_with(datname, '{}') AND query LIKE 'CREATE INDEX%'",
        target.name
    );
    let count = || server.sql("template1", &format!("SELECT count(*) {busy}"));
    let is_over = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            // Bounded, so that a restore that never comes to its indexes fails the test instead of holding it.
            for _ in 0..6000 {
                if count() == "2" || is_over.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            let end = format!("SELECT pg_terminate_backend(min(pid)) {busy}");
            server.sql("template1", &end)
        });
        let outcome = shelf.restore("latest", &target.url(), &["--jobs", "2"]);
        is_over.store(true, Ordering::Relaxed);
        outcome
    });
    assert_ne!(outcome.code(), 0, "{outcome}");
    let says = "the database that was made for it was dropped";
    assert!(outcome.stderr().contains(says), "{outcome}");
    assert!(
        outcome.stderr().contains("terminating connection"),
        "{outcome}"
    );
    assert_eq!(target.databases(), [""; 0]);
    assert_eq!(count(), "0");
}

#[test]
fn a_damaged_object_is_never_restored_by_several_sessions() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("public/neon-chinook.sql"));
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let mut whole = Vec::new();
    shelf.damage(|bytes| whole.clone_from(bytes));
    let length = whole.len();
    for at in [20, length / 4, length / 2, length - 5] {
        shelf.damage(|bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 1;
        });
        let outcome = shelf
            .restore("latest", &target.url(), &["--jobs", "2"])
            .expect(23);
        assert_eq!(outcome.exit_error()["id"], "object_damaged");
        assert_eq!(target.databases(), [""; 0], "{at}: {outcome}");
    }
}

/// The ranges are planned by the manifest, so what contradicts it is told and leaves nothing.
#[test]
fn what_is_not_as_the_manifest_tells_is_never_restored() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("public/neon-chinook.sql"));
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let folder = fs::read_dir(shelf.folder().join("shop")).unwrap();
    let manifest = folder
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("manifest.json"))
        .unwrap();
    let whole: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let table = |text: &mut Value, name: &str| -> usize {
        let tables = text["tables"].as_array().unwrap();
        tables
            .iter()
            .position(|table| table["name"] == name)
            .unwrap()
    };
    let spoil: [fn(&mut Value, usize); 5] = [
        |text, at| text["tables"][at]["rows"] = 1.into(),
        |text, at| text["tables"][at]["digest"] = "00000000000000000000000000000001".into(),
        |text, at| drop(text["tables"].as_array_mut().unwrap().remove(at)),
        |text, _| text["object"]["sha256"] = "0".repeat(64).into(),
        |text, _| text["large_objects"] = 3.into(),
    ];
    for (at, spoil) in spoil.into_iter().enumerate() {
        let mut text = whole.clone();
        let album = table(&mut text, "Album");
        spoil(&mut text, album);
        fs::write(&manifest, text.to_string()).unwrap();
        let outcome = shelf.restore("latest", &target.url(), &["--jobs", "2"]);
        assert_eq!(
            outcome.expect(23).exit_error()["id"],
            "object_damaged",
            "{at}"
        );
        assert_eq!(target.databases(), [""; 0], "{at}");
    }
}

/// Nobody has to write the pages of a restored table a second time, neither its first reader nor a vacuum.
#[test]
fn rows_are_frozen_when_they_come_back() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &pagila());
    let shelf = Shelf::new();
    shelf.backup(&database);
    for jobs in ["1", "3"] {
        let target = Target::beside(&database, server);
        shelf
            .restore("latest", &target.url(), &["--jobs", jobs])
            .expect(0);
        // From PostgreSQL 16 on a table has pages in reserve, which hold no row yet.
        let frozen = "SELECT count(*) FILTER (WHERE relallvisible >= (xpath('//n/text()', query_to_xml(
            format('SELECT count(DISTINCT (ctid::text::point)[0]) AS n FROM ONLY %s', oid::regclass), false, false, '')))[1]::text::int),
            count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relpages > 0";
        let counts = target.sql(frozen);
        let (frozen, all) = counts.split_once('|').unwrap();
        assert!(frozen == all && all != "0", "{jobs}: {counts}");
    }
}

/// Where it does not apply one session does it all, and says so in the report.
#[test]
fn files_empty_databases_and_one_job_take_one_session() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("public/neon-chinook.sql"));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    for (what, jobs) in [("latest", "1"), (file.as_str(), "4")] {
        let target = Target::beside(&database, server);
        let report = shelf.restore(what, &target.url(), &["--jobs", jobs]);
        assert_eq!(report.expect(0).summary()["jobs"], 1);
    }
    let empty = server.database();
    let report = shelf.restore("latest", &empty.url(), &["--jobs", "4"]);
    assert_eq!(report.expect(0).summary()["jobs"], 1);
    let usage = shelf.restore("latest", &empty.url(), &["--jobs", "0"]);
    assert_eq!(usage.expect(2).code(), 2);
}

#[test]
fn a_bucket_is_read_by_ranges() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &pagila());
    let bucket = S3Server::start();
    let mut shelf = Shelf::new();
    for (name, value) in bucket.environment() {
        shelf.sandbox.set(name, value);
    }
    let url = format!("s3://{}/pg", bucket.bucket);
    let storage = ["--storage", &url, "--s3-endpoint", &bucket.endpoint];
    let backup = ["backup", "--url", &database.socket_url(), "--name", "shop"];
    shelf
        .sandbox
        .pgkeep(backup.iter().chain(&storage))
        .run()
        .expect(0);
    let target = Target::beside(&database, server);
    let into = server.url_as(USER, "", &target.name).replacen(":@", "@", 1);
    let password = shelf
        .sandbox
        .write_secret("password", CANARY)
        .display()
        .to_string();
    let flags = [
        "--json",
        "restore",
        "--into",
        &into,
        "--jobs",
        "2",
        "--allow-superuser",
    ];
    let restore = flags.iter().chain(&storage);
    let report = shelf
        .sandbox
        .pgkeep(restore.chain(&["--password-file", &password]))
        .run()
        .expect(0)
        .summary();
    assert_eq!(
        (&report["jobs"], &report["compared"]),
        (&2.into(), &true.into())
    );
    assert_eq!(database.sql(MADE), target.sql(MADE));
}

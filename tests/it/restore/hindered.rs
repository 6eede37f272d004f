//! What stands in the way of a restore and not of `psql`: rights of the proof, settings of the target, what a server has not.

use super::*;
use crate::support::secret::percent_encoded;
use serde_json::json;

/// A role of one test that may log in over the socket, and makes databases.
struct Role<'a> {
    server: &'a Server,
    name: String,
}

impl<'a> Role<'a> {
    fn new(server: &'a Server, database: &TestDatabase<'_>, rights: &str) -> Self {
        let name = format!("{}_app", database.name());
        server.sql("template1", &format!("CREATE ROLE {name} LOGIN {rights}"));
        Self { server, name }
    }

    fn url(&self, database: &str) -> String {
        let folder = percent_encoded(&self.server.socket_dir().display().to_string());
        let (name, port) = (&self.name, self.server.port());
        format!("postgresql://{name}@/{database}?host={folder}&port={port}")
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let _ = self
            .server
            .try_sql("template1", format!("DROP ROLE {}", self.name));
    }
}

/// Row-level security that holds for the owner, too, hides the rows from whoever compares: the comparison comes first.
#[test]
fn tables_whose_rows_are_hidden_from_their_owner_come_back_by_him() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let role = Role::new(server, &database, "CREATEDB");
    let owner = &role.name;
    database.sql(&format!(
        "ALTER DATABASE {} OWNER TO {owner}; GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner};
         CREATE TABLE tenants (id int PRIMARY KEY, org text); INSERT INTO tenants SELECT n, 'o' || n % 3 FROM generate_series(1, 90) n;
         ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY p ON tenants USING (org = current_setting('app.org', true))",
        database.name()
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let hidden = "SELECT relrowsecurity, relforcerowsecurity, (SELECT count(*) FROM tenants) FROM pg_class WHERE relname = 'tenants'";
    for jobs in ["1", "2"] {
        let target = Target::beside(&database, server);
        let into = role.url(&target.name);
        let report = shelf.restore("latest", &into, &["--jobs", jobs]).expect(0);
        assert_eq!(report.summary()["compared"], true);
        assert_eq!(target.sql(hidden), "t|t|90");
        shelf.restore("latest", &into, &["--replace"]).expect(0);
        assert_eq!(target.sql(hidden), "t|t|90");
        // Rows cannot be merged into what cannot be seen: that is told before anything is done.
        for flags in [
            ["--upsert", "--table", "tenants"],
            ["--data-only", "--table", "tenants"],
        ] {
            let outcome = shelf.restore("latest", &into, &flags).expect(25);
            assert!(
                outcome
                    .stderr()
                    .contains("row-level security hides some of its rows"),
                "{outcome}"
            );
        }
    }
    let empty = server.database();
    empty.sql(&format!("ALTER DATABASE {} OWNER TO {owner}", empty.name()));
    let report = shelf
        .restore("latest", &role.url(empty.name()), &[])
        .expect(0);
    assert_eq!(report.summary()["compared"], true);
    assert_eq!(empty.sql(hidden), "t|t|90");
    drop((database, empty));
}

/// A view whose source is gone is empty, and takes no row with it.
#[test]
fn a_view_that_cannot_be_filled_takes_no_row_with_it() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE rates (v int); CREATE TABLE kept AS SELECT n FROM generate_series(1, 500) n; INSERT INTO rates VALUES (1);
         CREATE FUNCTION rate() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) FROM public.rates); END';
         CREATE MATERIALIZED VIEW broken AS SELECT rate() AS rate; CREATE MATERIALIZED VIEW whole AS SELECT count(*) AS n FROM kept;
         CREATE UNIQUE INDEX ON whole (n); DROP TABLE rates",
    );
    let shelf = Shelf::new();
    shelf.backup(&database);
    let empty = server.database();
    let target = Target::beside(&database, server);
    for (into, name, jobs) in [
        (target.url(), target.name.as_str(), "1"),
        (target.url(), target.name.as_str(), "2"),
        (empty.url(), empty.name(), "1"),
    ] {
        let _ = server.try_sql(
            "template1",
            format!("DROP DATABASE IF EXISTS {}", target.name),
        );
        let outcome = shelf.restore("latest", &into, &["--jobs", jobs]).expect(3);
        assert_eq!(outcome.exit_error()["id"], "views_not_filled", "{outcome}");
        assert!(
            outcome.exit_error()["details"]
                .to_string()
                .contains("public.broken: "),
            "{outcome}"
        );
        let report = outcome.summary();
        assert_eq!(
            (&report["restored"], &report["compared"]),
            (&true.into(), &true.into())
        );
        assert_eq!(
            server.sql(
                name,
                "SELECT (SELECT count(*) FROM kept), (SELECT n FROM whole)"
            ),
            "500|500"
        );
        assert_eq!(
            server.sql(
                name,
                "SELECT relispopulated FROM pg_class WHERE relname = 'broken'"
            ),
            "f"
        );
    }
    let folder = shelf.folder().display().to_string();
    let drill = ["--json", "drill", "--storage", &folder, "-d", "shop"];
    let outcome = shelf.sandbox.pgkeep(drill).run().expect(3);
    assert_eq!(outcome.summary()["passed"], true, "{outcome}");
}

/// What is left behind by a drill or a failure is dropped although a subscription holds it.
#[test]
fn a_subscription_of_the_dump_keeps_no_database_from_being_dropped() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    let subscribe = "CREATE SUBSCRIPTION \"my sub\" CONNECTION 'host=10.0.0.9 dbname=x' PUBLICATION p WITH (connect = false, slot_name = 's')";
    database.sql(subscribe);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let unsubscribe = |name: &str| {
        for sql in ["DISABLE", "SET (slot_name = NONE)"] {
            server.sql(name, &format!("ALTER SUBSCRIPTION \"my sub\" {sql}"));
        }
        server.sql(name, "DROP SUBSCRIPTION \"my sub\"");
    };
    let target = Target::beside(&database, server);
    let bad = dump(&format!("{SMALL}{subscribe};\nSELECT 1/0;\n"));
    let file = shelf.sandbox.write("bad.sql", bad);
    let outcome = shelf.restore(&file.display().to_string(), &target.url(), &[]);
    assert_ne!(outcome.code(), 0);
    assert!(outcome.stderr().contains("division by zero"), "{outcome}");
    assert!(outcome.stderr().contains("was dropped"), "{outcome}");
    assert_eq!(target.databases(), [""; 0]);
    // A drill on a server of somebody's leaves nothing either.
    let folder = shelf.folder().display().to_string();
    let url = database.socket_url().replace(database.name(), "postgres");
    let drill = [
        "--json",
        "drill",
        "--storage",
        &folder,
        "-d",
        "shop",
        "--allow-superuser",
        "--drill-url",
        &url,
    ];
    shelf.sandbox.pgkeep(drill).run().expect(0);
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'pgkeep\\_drill%' AND datname IN (SELECT d.datname FROM pg_subscription s
        JOIN pg_database d ON d.oid = s.subdbid)";
    assert_eq!(server.sql("template1", left), "0");
    // What stays with a database that is put aside is named; one at work is told before.
    shelf.restore("latest", &target.url(), &[]).expect(0);
    let report = shelf
        .restore("latest", &target.url(), &["--replace"])
        .expect(0)
        .summary();
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("the subscription `my sub` stays with the old database"),
        "{warnings}"
    );
    let kept = report["replaced"]["kept_as"].as_str().unwrap();
    for name in [database.name(), &target.name, kept] {
        unsubscribe(name);
    }
}

#[test]
fn tablespaces_are_left_out_or_missed_beforehand() {
    let Some(server) = postgres() else { return };
    if server.major() < 15 {
        return; // a tablespace without a folder of its own is known from there on
    }
    let database = server.database();
    let space = format!("{}_fast", database.name());
    server.sql(
        "template1",
        &format!("SET allow_in_place_tablespaces = true; CREATE TABLESPACE {space} LOCATION ''"),
    );
    database.sql(&format!(
        "CREATE TABLE t (id int) TABLESPACE {space}; INSERT INTO t VALUES (1); CREATE INDEX i ON t (id) TABLESPACE {space};
         CREATE TABLE plain (id int)"
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql("DROP TABLE t");
    server.sql("template1", &format!("DROP TABLESPACE {space}"));
    let target = Target::beside(&database, server);
    let outcome = shelf.restore("latest", &target.url(), &[]).expect(25);
    assert_eq!(outcome.exit_error()["id"], "tablespace_missing");
    assert!(outcome.stderr().contains("--no-tablespaces"), "{outcome}");
    for jobs in ["1", "2"] {
        let target = Target::beside(&database, server);
        let flags = ["--no-tablespaces", "--jobs", jobs];
        shelf.restore("latest", &target.url(), &flags).expect(0);
        assert_eq!(target.sql("SELECT count(*) FROM t"), "1");
    }
    let into = server.database();
    let table = ["--table", "t"];
    let outcome = shelf.restore("latest", &into.url(), &table);
    assert_ne!(outcome.code(), 0);
    assert!(outcome.stderr().contains("--no-tablespaces"), "{outcome}");
    let flags = ["--table", "t", "--no-tablespaces"];
    shelf.restore("latest", &into.url(), &flags).expect(0);
    let folder = shelf.folder().display().to_string();
    let drill = ["--json", "drill", "--storage", &folder, "-d", "shop"];
    shelf.sandbox.pgkeep(drill).run().expect(0);
}

/// A database that is read-only by its settings takes whatever is brought into it on purpose.
#[test]
fn a_read_only_database_takes_a_restore() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
    );
    let shelf = Shelf::new();
    shelf.backup(&database);
    let into = server.database();
    let read_only = format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        into.name()
    );
    server.sql("template1", &read_only);
    shelf
        .restore("latest", &into.url(), &["--table", "t"])
        .expect(0);
    server.sql(
        "template1",
        &format!(
            "ALTER DATABASE {} RESET default_transaction_read_only",
            into.name()
        ),
    );
    into.sql("DELETE FROM t WHERE id = 2");
    server.sql("template1", &read_only);
    shelf
        .restore("latest", &into.url(), &["--upsert", "--table", "t"])
        .expect(0);
    assert_eq!(into.sql("SELECT count(*) FROM t"), "2");
    let whole = server.database();
    let read_only = format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        whole.name()
    );
    server.sql("template1", &read_only);
    let flags = ["--no-database-settings"];
    shelf.restore("latest", &whole.url(), &flags).expect(0);
    assert_eq!(whole.sql("SELECT count(*) FROM t"), "2");
}

/// The test server has 3,840 locks, and each large object with an owner takes one.
#[test]
fn large_objects_beyond_the_servers_locks_come_back() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("SELECT count(lo_from_bytea(0, 'x')) FROM generate_series(1, 9000)");
    database.sql("CREATE TABLE t (id int)");
    let shelf = Shelf::new();
    shelf.backup(&database);
    let target = Target::beside(&database, server);
    let report = shelf.restore("latest", &target.url(), &[]).expect(0);
    assert_eq!(report.summary()["compared"], true);
    assert_eq!(
        target.sql("SELECT count(*) FROM pg_largeobject_metadata"),
        "9000"
    );
    let empty = server.database();
    let outcome = shelf.restore("latest", &empty.url(), &[]).expect(25);
    assert_eq!(outcome.exit_error()["id"], "too_few_locks", "{outcome}");
}

/// An extension's files may be there, and the role may all the same not make it.
#[test]
fn an_extension_that_the_role_may_not_make_is_told_beforehand() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let role = Role::new(server, &database, "CREATEDB");
    let owner = &role.name;
    database.sql(&format!(
        "ALTER DATABASE {} OWNER TO {owner}; GRANT CREATE ON SCHEMA public TO {owner}; CREATE EXTENSION pageinspect;
         SET ROLE {owner}; CREATE EXTENSION pg_trgm; CREATE TABLE t AS SELECT 1 AS id",
        database.name()
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let target = Target::beside(&database, server);
    let outcome = shelf
        .restore("latest", &role.url(&target.name), &[])
        .expect(25);
    assert_eq!(
        outcome.exit_error()["id"],
        "extension_not_allowed",
        "{outcome}"
    );
    assert!(
        outcome.stderr().contains("--skip-extension pageinspect"),
        "{outcome}"
    );
    let flags = ["--skip-extension", "pageinspect"];
    let report = shelf
        .restore("latest", &role.url(&target.name), &flags)
        .expect(0)
        .summary();
    assert_eq!(report["skipped_extensions"], json!(["pageinspect"]));
    // Where somebody else has made it, it is there for the dump.
    let empty = server.database();
    empty.sql(&format!(
        "CREATE EXTENSION pageinspect; ALTER DATABASE {} OWNER TO {owner}; GRANT ALL ON SCHEMA public TO {owner}",
        empty.name()
    ));
    shelf
        .restore("latest", &role.url(empty.name()), &[])
        .expect(0);
    assert_eq!(empty.sql("SELECT count(*) FROM t"), "1");
    drop((database, empty, target));
}

/// Bytes that have no equivalent in UTF-8 are dumped, compared and brought back as they are.
#[test]
fn a_database_without_an_equivalent_in_utf8_comes_back_in_its_own_encoding() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let name = database.name();
    server.sql("template1", &format!("DROP DATABASE {name}"));
    server.sql("template1", &format!("CREATE DATABASE {name} ENCODING 'WIN1251' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"));
    server
        .try_sql(
            name,
            *b"SET client_encoding = 'WIN1251'; CREATE TABLE \"\xf2\" (id int PRIMARY KEY, s text);
            INSERT INTO \"\xf2\" VALUES (1, E'\\x98abc'), (2, E'\\xcf\\xf0\\xe8')",
        )
        .unwrap();
    let shelf = Shelf::new();
    shelf.backup(&database);
    for jobs in ["1", "2"] {
        let target = Target::beside(&database, server);
        let report = shelf
            .restore("latest", &target.url(), &["--jobs", jobs])
            .expect(0);
        assert_eq!(report.summary()["compared"], true);
        let bytes = "SELECT string_agg(encode(convert_to(s, 'WIN1251'), 'hex'), ',' ORDER BY id) FROM \"т\"";
        assert_eq!(target.sql(bytes), "98616263,cff0e8");
        let table = ["--table", "т", "--schema-map", "public=other"];
        shelf.restore("latest", &target.url(), &table).expect(0);
        server
            .try_sql(&target.name, "DELETE FROM \"т\" WHERE id = 1")
            .unwrap();
        shelf
            .restore("latest", &target.url(), &["--upsert", "--table", "т"])
            .expect(0);
        assert_eq!(target.sql(bytes), "98616263,cff0e8");
    }
}

//! Into a database that is there and empty: proven before the COMMIT, and told truly behind it.

use super::*;

/// What a stop behind the COMMIT leaves undone is told, and nothing says that there are no rows.
#[test]
fn a_stop_behind_the_commit_takes_nothing_back() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let empty = server.database();
    // ANALYZE evaluates it, in a session of another name than the one that restores.
    database.sql(
        "CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
         'BEGIN IF current_setting(''application_name'') = ''pgkeep'' THEN PERFORM pg_sleep(74); END IF; RETURN $1; END';
         CREATE TABLE t AS SELECT n FROM generate_series(1, 3) n; CREATE INDEX ON t (slow(n))",
    );
    database.sql(&format!(
        "COMMENT ON DATABASE {} IS 'dumped'",
        database.name()
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let running = shelf.run("latest", &empty.url(), &[]).start();
    let analyzes = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'ANALYZE%' AND wait_event = 'PgSleep'",
        empty.name()
    );
    while server.sql("template1", &analyzes) == "0" {
        thread::sleep(Duration::from_millis(20));
    }
    running.signal(Signal::INT);
    let outcome = running.wait().expect(3);
    let (error, report) = (outcome.exit_error(), outcome.summary());
    assert_eq!(error["id"], "stopped_after_restore", "{outcome}");
    assert_eq!(
        (&report["restored"], &report["compared"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    let details = error["details"].to_string();
    assert!(
        details.contains("ANALYZE") && details.contains("COMMENT ON DATABASE"),
        "{outcome}"
    );
    assert_eq!(empty.sql("SELECT count(*) FROM t"), "3");
}

/// Owner, rights and settings of a database that was there change only where the report says so.
#[test]
fn what_changes_of_a_database_that_was_there_is_told() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("public/neon-chinook.sql"));
    let role = format!("{}_owner", database.name());
    database.sql(&format!(
        "CREATE ROLE {role}; ALTER DATABASE {0} OWNER TO {role}; REVOKE CONNECT ON DATABASE {0} FROM PUBLIC;
         ALTER DATABASE {0} SET work_mem = '5MB'",
        database.name()
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let properties = "SELECT pg_get_userbyid(datdba), datacl FROM pg_database WHERE datname = current_database()";
    let empty = server.database();
    let before = empty.sql(properties);
    let report = shelf
        .restore("latest", &empty.url(), &["--no-database-settings"])
        .expect(0)
        .summary();
    assert_eq!(report["properties_set"], Value::Array(Vec::new()));
    // Rights that were given for the restore and taken back leave the default ones in writing.
    let default = format!("{before}{{=Tc/{USER},{USER}=CTc/{USER}}}");
    assert_eq!(empty.sql(properties), default);
    let other = server.database();
    let report = shelf
        .restore("latest", &other.url(), &[])
        .expect(0)
        .summary();
    let told = report["properties_set"].to_string();
    for part in ["OWNER TO", "REVOKE ALL", "work_mem"] {
        assert!(told.contains(part), "{report}");
    }
    assert_ne!(other.sql(properties), before);
    // What it has already is not told as a change.
    let same = server.database();
    same.sql(&format!(
        "ALTER DATABASE {0} OWNER TO {role}; REVOKE CONNECT ON DATABASE {0} FROM PUBLIC",
        same.name()
    ));
    let report = shelf
        .restore("latest", &same.url(), &[])
        .expect(0)
        .summary();
    let told = report["properties_set"].to_string();
    assert!(
        !told.contains("OWNER TO") && !told.contains("REVOKE") && told.contains("work_mem"),
        "{report}"
    );
    drop((database, other, same));
    server.sql("template1", &format!("DROP ROLE {role}"));
}

/// Tables without rows, sequences and large objects count like rows, in a database that was there and in one that is
/// made.
#[test]
fn what_has_no_rows_is_compared_too() {
    let Some(server) = postgres() else { return };
    let shelf = Shelf::new();
    let text = format!(
        "{SMALL}CREATE TABLE public.e (id int);\nCREATE SEQUENCE public.\"S s\";\n\
         SELECT pg_catalog.setval('public.\"S s\"', 7, true);\nBEGIN;\nSELECT pg_catalog.lo_create('4711');\nCOMMIT;\n"
    );
    for (change, says) in [
        ("", None),
        ("DROP TABLE public.e", Some("public.e: it is missing")),
        (
            "PERFORM nextval('public.\"S s\"')",
            Some("sequence public.\"S s\": 7 is its last value in the dump, and 8"),
        ),
        (
            "PERFORM lo_unlink(4711)",
            Some("1 large object in the dump, but 0 restored"),
        ),
    ] {
        let change = match change {
            "" => String::new(),
            change => format!(
                "CREATE FUNCTION public.f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {change}; END $$;\nSELECT public.f();\n"
            ),
        };
        let file = shelf
            .sandbox
            .write("a.sql", dump(&format!("{text}{change}")))
            .display()
            .to_string();
        let empty = server.database();
        let target = Target::beside(&empty, server);
        for url in [target.url(), empty.url()] {
            let outcome = shelf.restore(&file, &url, &[]);
            match says {
                None => drop(outcome.expect(0)),
                Some(says) => {
                    let error = outcome.expect(23).exit_error();
                    assert_eq!(error["id"], "restore_differs");
                    let told = error["details"][0].as_str().unwrap();
                    assert!(told.starts_with(says), "{told}");
                }
            }
        }
        let left = empty.sql("SELECT count(*) FROM pg_largeobject_metadata");
        assert_eq!(left == "0", says.is_some());
    }
    let full = server.database();
    full.sql("SELECT lo_create(1)");
    let outcome = shelf.restore("a.sql", &full.url(), &[]).expect(25);
    assert!(
        outcome.stderr().contains("it has 1 large object"),
        "{outcome}"
    );
}

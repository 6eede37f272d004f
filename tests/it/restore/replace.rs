//! `--replace`, and making a database: what is in the way, what the old database keeps, what a stop leaves.

use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{SMALL, Shelf, Target, dump, loaded};
use crate::support::postgres::USER;
use crate::support::proxy::{Lost, Proxy};
use crate::support::{CANARY, Server, postgres};

/// What does not come in this time never will.
const LONGEST: Duration = Duration::from_secs(120);

/// Makes the target, and a role that owns it.
fn owned(target: &Target<'_>) -> String {
    let (name, role) = (&target.name, format!("{}_owner", target.name));
    for sql in [
        format!("CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{CANARY}'"),
        format!("CREATE DATABASE {name} OWNER {role} TEMPLATE template0"),
    ] {
        target.server.sql("template1", &sql);
    }
    role
}

/// Waits until a session of the server is as `which` says.
fn wait_for(server: &Server, which: &str) {
    wait_until(server, which, true);
}

/// Waits until no session of the server is as `which` says.
fn wait_for_none(server: &Server, which: &str) {
    wait_until(server, which, false);
}

fn wait_until(server: &Server, which: &str, is_there: bool) {
    let sql =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {which}");
    let begun = Instant::now();
    while (server.sql("template1", &sql) != "0") != is_there {
        assert!(begun.elapsed() < LONGEST, "never {is_there}: {which}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The owner of a database cannot end a superuser's session: it is waited for.
#[test]
fn a_superusers_session_is_waited_for() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let (name, role) = (&target.name, owned(&target));
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    thread::scope(|scope| {
        scope.spawn(|| server.try_sql(name, "SELECT pg_sleep(72)"));
        wait_for(
            server,
            &format!("datname = '{name}' AND query LIKE '%(72)%'"),
        );
        let running = shelf
            .run(&file, &server.url_as(&role, CANARY, name), &["--replace"])
            .start();
        wait_for(
            server,
            &format!("usename = '{role}' AND query LIKE 'ALTER DATABASE %{name}% RENAME%'"),
        );
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%(72)%' AND pid <> pg_backend_pid()";
        server.sql("template1", end);
        running.wait().expect(0);
    });
    assert_eq!(target.sql("SELECT count(*) FROM t"), "2");
    drop(target);
    server.sql("template1", &format!("DROP ROLE {role}"));
}

/// One that never goes is named with what ends it, within a limit; the old database stays, and no other.
#[test]
fn a_superusers_session_that_stays_is_named() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let (name, role) = (&target.name, owned(&target));
    target.sql("CREATE TABLE precious AS SELECT 7 AS n");
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    thread::scope(|scope| {
        scope.spawn(|| {
            server.try_sql(
                name,
                "SET application_name = 'nightly report'; SELECT pg_sleep(76)",
            )
        });
        let here = format!("datname = '{name}' AND query LIKE '%(76)%' AND wait_event = 'PgSleep'");
        wait_for(server, &here);
        let pid = server.sql(
            "template1",
            &format!("SELECT pid FROM pg_stat_activity WHERE {here}"),
        );
        let url = server.url_as(&role, CANARY, name);
        let outcome = shelf.restore(&file, &url, &["--replace"]).expect(20);
        let error = outcome.exit_error();
        assert_eq!(error["id"], "database_in_use", "{outcome}");
        let message = error["message"].as_str().unwrap();
        for part in [&pid, "nightly report", USER, "the database was not changed"] {
            assert!(message.contains(part), "{part}: {outcome}");
        }
        assert!(
            error["hints"]
                .to_string()
                .contains(&format!("pg_terminate_backend({pid})"))
        );
        server.sql("template1", &format!("SELECT pg_terminate_backend({pid})"));
    });
    assert_eq!(target.databases(), std::slice::from_ref(name));
    assert_eq!(target.sql("SELECT n FROM precious"), "7");
    drop(target);
    server.sql("template1", &format!("DROP ROLE {role}"));
}

/// A plain file tells no properties, and `--no-database-settings` wants none: the old database's are kept.
#[test]
fn the_old_databases_properties_are_kept() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(&format!(
        "CREATE TABLE t (id int); COMMENT ON DATABASE {} IS 'dumped'",
        database.name()
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    let target = Target::beside(&database, server);
    let (name, role) = (&target.name, format!("{}_app", target.name));
    server.sql("template1", &format!("CREATE ROLE {role}"));
    server.sql("template1", &format!("CREATE DATABASE {name} OWNER {role} TEMPLATE template0 CONNECTION LIMIT 7 LC_COLLATE 'C' LC_CTYPE 'C'"));
    let set = format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO pg_monitor;
         COMMENT ON DATABASE {name} IS 'it''s ours'; ALTER DATABASE {name} SET default_transaction_read_only = on;
         ALTER DATABASE {name} SET work_mem = '5MB'; ALTER ROLE {role} IN DATABASE {name} SET search_path = app, public"
    );
    server.sql("template1", &set);
    let properties = format!(
        "SELECT datdba::regrole, datacl, datconnlimit, datcollate, shobj_description(d.oid, 'pg_database'),
           (SELECT array_agg(setconfig::text ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid)
         FROM pg_database d WHERE datname = '{name}'"
    );
    let before = server.sql("template1", &properties);
    for (what, more) in [
        (file.as_str(), ["--replace", "--no-owner"]),
        ("latest", ["--replace", "--no-database-settings"]),
    ] {
        let report = shelf.restore(what, &target.url(), &more).expect(0);
        assert_eq!(server.sql("template1", &properties), before, "{report}");
        assert_eq!(
            report.summary()["warnings"].as_array().map(Vec::len),
            Some(0),
            "{report}"
        );
        let kept = report.summary()["replaced"]["kept_as"].clone();
        let drop = format!("DROP DATABASE \"{}\"", kept.as_str().unwrap());
        server.sql("template1", &drop);
    }
    drop(target);
    server.sql("template1", &format!("DROP ROLE {role}"));
}

/// What the flags leave out of the dump stays as the old database had it, by one session and by several.
#[test]
fn owner_and_rights_are_kept_where_the_dumps_are_not_wanted() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let name = &target.name;
    let (old, new) = (format!("{name}_old"), format!("{name}_new"));
    server.sql(
        "template1",
        &format!(
            "CREATE ROLE {old}; CREATE ROLE {new}; ALTER DATABASE {0} OWNER TO {new};
             GRANT CONNECT ON DATABASE {0} TO pg_read_all_stats; ALTER DATABASE {0} SET work_mem = '7MB'",
            database.name()
        ),
    );
    database.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 9) n");
    let shelf = Shelf::new();
    shelf.backup(&database);
    server.sql(
        "template1",
        &format!("CREATE DATABASE {name} OWNER {old} TEMPLATE template0"),
    );
    let rights = format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC, pg_read_all_stats; GRANT CONNECT ON DATABASE {name} TO pg_monitor"
    );
    let now = |what: &str| {
        let sql = format!("SELECT {what} FROM pg_database d WHERE datname = '{name}'");
        server.sql("template1", &sql)
    };
    for (flag, jobs, owner, kept, granted) in [
        ("--no-owner", "1", &old, "f", "t"),
        ("--no-privileges", "2", &new, "t", "f"),
        ("--no-owner", "2", &old, "f", "t"),
    ] {
        server.sql(
            "template1",
            &format!("ALTER DATABASE {name} OWNER TO {old}; {rights}"),
        );
        let more = ["--replace", flag, "--jobs", jobs];
        let report = shelf
            .restore("latest", &target.url(), &more)
            .expect(0)
            .summary();
        assert_eq!(report["jobs"].to_string(), jobs);
        assert_eq!(report["warnings"], serde_json::json!([]), "{report}");
        assert_eq!(&now("pg_get_userbyid(datdba)"), owner, "{flag}");
        let has = |role: &str| {
            now(&format!(
                "EXISTS (SELECT FROM aclexplode(datacl) a WHERE a.grantee = '{role}'::regrole)"
            ))
        };
        assert_eq!(has("pg_monitor"), kept, "{flag}");
        assert_eq!(has("pg_read_all_stats"), granted, "{flag}");
        assert_eq!(target.sql("SHOW work_mem"), "7MB");
        assert_eq!(target.sql("SELECT count(*) FROM t"), "9");
    }
    drop((target, database));
    server.sql("template1", &format!("DROP ROLE {old}; DROP ROLE {new}"));
}

/// The server goes on making a database when its client is gone: a stop waits for it, and then it is dropped.
#[test]
fn a_stop_while_the_database_is_made_leaves_none() {
    // Held by a lock that stands in the way of every other CREATE DATABASE of the server.
    let Some(server) = Server::private() else {
        return;
    };
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    let lock = "BEGIN; LOCK TABLE pg_database IN SHARE MODE; SELECT pg_sleep(73)";
    let name = "stopped";
    let target = Target {
        server: &server,
        name: name.to_owned(),
    };
    thread::scope(|scope| {
        scope.spawn(|| server.try_sql("template1", lock));
        wait_for(&server, "query LIKE '%(73)%' AND wait_event = 'PgSleep'");
        let running = shelf.run(&file, &target.url(), &[]).start();
        let waits = format!("query LIKE 'CREATE DATABASE %{name}%' AND wait_event_type = 'Lock'");
        wait_for(&server, &waits);
        running.signal(Signal::TERM);
        let outcome = running.wait().expect(143);
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%(73)%' AND pid <> pg_backend_pid()";
        server.sql("postgres", end);
        let error = outcome.exit_error();
        let message = error["message"].as_str().unwrap();
        assert!(message.ends_with("nothing was changed"), "{outcome}");
    });
    assert_eq!(target.databases(), [""; 0]);
}

/// While ours waits, somebody else makes a database of the same name: theirs stays.
#[test]
fn a_database_that_somebody_else_made_meanwhile_stays() {
    let Some(server) = Server::private() else {
        return;
    };
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    let target = Target {
        server: &server,
        name: "wanted".to_owned(),
    };
    // Every copy of template0 waits for this, and those of template1 do not.
    let lock = "BEGIN; COMMENT ON DATABASE template0 IS 'x'; SELECT pg_sleep(74)";
    let make = || {
        server.sql("postgres", "CREATE DATABASE wanted TEMPLATE template1");
        server.sql("wanted", "CREATE TABLE precious AS SELECT 7 AS id");
    };
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%(74)%' AND pid <> pg_backend_pid()";
    let precious = || server.sql("wanted", "SELECT id FROM precious");
    thread::scope(|scope| {
        for (limit, ends_first) in [("5s", false), ("60s", true)] {
            scope.spawn(|| server.try_sql("postgres", lock));
            wait_for(&server, "query LIKE '%(74)%' AND wait_event = 'PgSleep'");
            let running = shelf
                .run(&file, &target.url(), &["--lock-wait-timeout", limit])
                .start();
            wait_for(
                &server,
                "query LIKE 'CREATE DATABASE %wanted%' AND wait_event_type = 'Lock'",
            );
            make();
            if ends_first {
                server.sql("template1", end);
            }
            let outcome = running.wait().expect(20);
            assert_eq!(precious(), "7", "{outcome}");
            let error = outcome.exit_error().to_string();
            let safe = if ends_first {
                "the database that was made for it was dropped"
            } else {
                "nothing was changed"
            };
            assert!(error.contains(safe), "{outcome}");
            assert_eq!(target.databases(), ["wanted"]);
            server.sql("template1", end);
            wait_for_none(&server, "query LIKE '%(74)%'");
            server.sql("postgres", "DROP DATABASE wanted");
        }
    });
}

/// The database has its name already when the answer to the renaming comes late.
#[test]
fn a_stop_behind_the_renaming_leaves_no_database() {
    let Some(server) = Server::private() else {
        return;
    };
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    let target = Target {
        server: &server,
        name: "renamed".to_owned(),
    };
    let (bin, mark) = (server.bin().display(), shelf.sandbox.path("mark"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*) exec {bin}/psql \"$@\";; esac\n\
         sql=$(cat)\nprintf '%s\\n' \"$sql\" | {bin}/psql \"$@\"\ncode=$?\n\
         case \"$sql\" in *'RENAME TO'*) : > {}; sleep 60;; esac\nexit $code\n",
        mark.display()
    );
    for (name, text) in [
        ("psql", script),
        ("pg_dump", format!("#!/bin/sh\nexec {bin}/pg_dump \"$@\"\n")),
    ] {
        let path = shelf.sandbox.write(format!("late/{name}"), text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let late = shelf.sandbox.path("late").display().to_string();
    let running = shelf
        .run(&file, &target.url(), &["--bin-dir", &late])
        .start();
    running.wait_for_file(&mark);
    running.signal(Signal::INT);
    let outcome = running.wait().expect(130);
    let error = outcome.exit_error();
    let message = error["message"].as_str().unwrap();
    assert!(message.ends_with("nothing was changed"), "{outcome}");
    assert_eq!(target.databases(), [""; 0]);
}

/// The answer to the renames is lost, and the server tells nobody any more: both may be done, so nothing is claimed and
/// nothing dropped.
#[test]
fn renames_that_nobody_answered_for_are_not_told_as_undone() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, SMALL.as_bytes());
    let shelf = Shelf::new();
    let file = shelf.sandbox.write("a.sql", dump(SMALL));
    let lost = Lost {
        first: "_before_",
        last: "COMMIT",
        is_final: true,
    };
    let proxy = Proxy::losing(server.port(), lost);
    let url = database.url().replace(
        &format!(":{}/", server.port()),
        &format!(":{}/", proxy.port()),
    );
    let outcome = shelf
        .restore(&file.display().to_string(), &url, &["--replace"])
        .expect(20);
    let error = outcome.exit_error();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("may or may not have been renamed"),
        "{outcome}"
    );
    assert!(!message.contains("was not changed"), "{outcome}");
    let kept = format!("{}_before_", database.name());
    assert!(error["hints"].to_string().contains(&kept), "{outcome}");
    // It was done, and the old one is there as the hint says.
    let like = format!("SELECT datname FROM pg_database WHERE datname LIKE '{kept}%'");
    let old = server.sql("template1", &like);
    assert!(old.starts_with(&kept), "{outcome}");
    server.sql("template1", &format!("DROP DATABASE \"{old}\""));
}

//! A restore that stands still ends by itself; one in which the server works does not.

use std::io::Write;

use super::*;

/// Holds a lock of the database's catalog that every CREATE TABLE needs, until the returned number is ended.
const LOCK: &str = "BEGIN; LOCK TABLE pg_class IN SHARE MODE; SELECT pg_sleep(77)";

#[test]
fn a_lock_of_another_session_is_named() {
    let Some(server) = postgres() else { return };
    let empty = server.database();
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    let holds = format!(
        "FROM pg_stat_activity WHERE datname = '{}' AND query LIKE '%(77)%' AND wait_event = 'PgSleep'",
        empty.name()
    );
    let outcome = thread::scope(|scope| {
        scope.spawn(|| server.try_sql(empty.name(), LOCK));
        while server.sql("template1", &format!("SELECT count(*) {holds}")) == "0" {
            thread::sleep(Duration::from_millis(10));
        }
        let outcome = shelf.restore(&file, &empty.url(), &["--lock-wait-timeout", "1s"]);
        server.sql(
            "template1",
            &format!("SELECT pg_terminate_backend(pid) {holds}"),
        );
        outcome.expect(20)
    });
    let error = outcome.exit_error();
    assert_eq!(error["id"], "lock_timeout", "{outcome}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("(user {USER}, application psql)")),
        "{outcome}"
    );
    assert!(
        message.ends_with("the database is still empty"),
        "{outcome}"
    );
    assert!(
        error["details"][0]
            .as_str()
            .unwrap()
            .contains("CREATE TABLE"),
        "{outcome}"
    );
    shelf.restore(&file, &empty.url(), &[]).expect(0);
}

/// Whoever writes into the pipe stops in the middle and lives on.
#[test]
fn a_pipe_that_gives_nothing_more_is_ended() {
    let Some(server) = postgres() else { return };
    let empty = server.database();
    let shelf = Shelf::new();
    let text = dump(SMALL);
    let fifo = shelf.sandbox.path("fifo");
    let made = shelf.sandbox.program("mkfifo", [&fifo]).run();
    made.expect(0);
    // Both ends are open here, so that nobody meets an end.
    let mut writer = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    writer
        .write_all(&text.as_bytes()[..text.len() / 2])
        .unwrap();
    let into = server.url_as(USER, "", empty.name()).replacen(":@", "@", 1);
    let password = shelf
        .sandbox
        .write_secret("password", CANARY)
        .display()
        .to_string();
    let script = format!(
        "exec {} --json restore - --into '{into}' --password-file {password} --allow-superuser --stall-timeout 1s < {}",
        env!("CARGO_BIN_EXE_pgkeep"),
        fifo.display()
    );
    let outcome = shelf
        .sandbox
        .program("sh", ["-c", &script])
        .run()
        .expect(20);
    assert_eq!(outcome.exit_error()["id"], "restore_stalled", "{outcome}");
    let tables = empty.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
    assert_eq!(tables, "0");
}

/// Nothing moves for longer than the limit, and the server works.
#[test]
fn a_long_statement_is_left_alone() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    let text = dump(&format!("{SMALL}SELECT pg_sleep(3);\n"));
    let file = shelf.sandbox.write("slow.sql", text).display().to_string();
    for url in [target.url(), database.url()] {
        shelf
            .restore(&file, &url, &["--stall-timeout", "1s"])
            .expect(0);
    }
}

/// Making the database waits for others, too.
#[test]
fn a_lock_in_the_way_of_the_database_is_named() {
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
        name: "in_the_way".to_owned(),
    };
    let lock = "BEGIN; LOCK TABLE pg_database IN SHARE MODE; SELECT pg_sleep(78)";
    let holds = "FROM pg_stat_activity WHERE query LIKE '%(78)%' AND wait_event = 'PgSleep'";
    let outcome = thread::scope(|scope| {
        scope.spawn(|| server.try_sql("template1", lock));
        while server.sql("template1", &format!("SELECT count(*) {holds}")) == "0" {
            thread::sleep(Duration::from_millis(10));
        }
        // Nothing that cleans up behind it waits for the same lock.
        let outcome = shelf
            .run(&file, &target.url(), &["--lock-wait-timeout", "1s"])
            .run();
        server.sql(
            "postgres",
            &format!("SELECT pg_terminate_backend(pid) {holds}"),
        );
        outcome.expect(20)
    });
    let error = outcome.exit_error();
    assert_eq!(error["id"], "lock_timeout", "{outcome}");
    assert!(
        error["details"][0]
            .as_str()
            .unwrap()
            .contains("CREATE DATABASE"),
        "{outcome}"
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("application psql"),
        "{outcome}"
    );
    assert_eq!(target.databases(), [""; 0]);
}

/// The header of a dump sets the server's own limits to none. Where others work ours stay, because pgkeep may be killed
/// while it waits.
#[test]
fn the_limit_on_waiting_stays_where_others_work() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    // A dump says how to fill it, behind its header.
    database.sql(
        "CREATE TABLE t (a int); CREATE MATERIALIZED VIEW seen AS
         SELECT current_setting('lock_timeout') AS wait, current_setting('statement_timeout') AS work",
    );
    let (empty, fresh) = (server.database(), Target::beside(&database, server));
    let shelf = Shelf::new();
    shelf.backup(&database);
    for url in [empty.url(), fresh.url()] {
        let limit = ["--lock-wait-timeout", "10s"];
        shelf.restore("latest", &url, &limit).expect(0);
    }
    let seen = "SELECT wait, work FROM seen";
    assert_eq!(
        (empty.sql(seen), fresh.sql(seen)),
        ("20s|0".into(), "0|0".into())
    );
}

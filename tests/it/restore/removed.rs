//! Retention that removes a backup while it is restored.

use super::*;

/// The restore waits for the server to make its database; meanwhile its backup goes, the manifest first.
#[test]
fn a_backup_that_goes_meanwhile_is_told_as_that() {
    let Some(server) = Server::private() else {
        return;
    };
    let database = loaded(&server, &data::dump("public/neon-chinook.sql"));
    let lock = "BEGIN; LOCK TABLE pg_database IN SHARE MODE; SELECT pg_sleep(75)";
    let holds = "FROM pg_stat_activity WHERE query LIKE '%(75)%' AND wait_event = 'PgSleep'";
    let count = |which: &str| server.sql("template1", &format!("SELECT count(*) {which}"));
    for jobs in ["1", "2"] {
        let shelf = Shelf::new();
        let first = shelf.backup(&database);
        let second = shelf.backup(&database);
        let target = Target::beside(&database, &server);
        let outcome = thread::scope(|scope| {
            scope.spawn(|| server.try_sql("template1", lock));
            while count(holds) == "0" {
                thread::sleep(Duration::from_millis(10));
            }
            let running = shelf
                .run("latest", &target.url(), &["--jobs", jobs])
                .start();
            let makes = "FROM pg_stat_activity WHERE query LIKE '%CREATE DATABASE%' AND wait_event_type = 'Lock'";
            while count(makes) == "0" {
                thread::sleep(Duration::from_millis(10));
            }
            for end in ["manifest.json", "sql.gz"] {
                fs::remove_file(shelf.folder().join(format!("shop/{second}.{end}"))).unwrap();
            }
            server.sql(
                "postgres",
                &format!("SELECT pg_terminate_backend(pid) {holds}"),
            );
            running.wait().expect(23)
        });
        let error = outcome.exit_error();
        assert_eq!(error["id"], "backup_removed", "{outcome}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(&second) && message.contains("retention"),
            "{outcome}"
        );
        assert!(message.ends_with("was dropped"), "{outcome}");
        assert!(
            error["hints"][0].as_str().unwrap().contains(&first),
            "{outcome}"
        );
        assert_eq!(target.databases(), [""; 0]);
    }
}

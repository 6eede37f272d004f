//! `pgkeep restore` against real servers: what was dumped comes back row for row, or the target stays as it was.

mod empty;
mod foreign;
mod hindered;
mod jobs;
mod powers;
mod removed;
mod replace;
mod rights;
mod roles;
mod rows;
mod stall;
mod table;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::postgres::{TestDatabase, USER};
use crate::support::sandbox::{Outcome, Run};
use crate::support::{CANARY, Sandbox, Server, data, postgres};

/// A database that a restore may make, with all that it may leave beside it; dropped with the value.
pub(crate) struct Target<'a> {
    server: &'a Server,
    pub(crate) name: String,
}

impl<'a> Target<'a> {
    pub(crate) fn beside(database: &TestDatabase<'a>, server: &'a Server) -> Self {
        Self {
            server,
            name: format!("{}_copy", database.name()),
        }
    }

    fn url(&self) -> String {
        self.server.url_as(USER, CANARY, &self.name)
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }

    /// Databases whose name begins with the target's.
    pub(crate) fn databases(&self) -> Vec<String> {
        let sql = format!(
            "SELECT datname FROM pg_database WHERE starts_with(datname, '{}') ORDER BY 1",
            self.name
        );
        self.server
            .sql("template1", &sql)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        for name in self.databases() {
            let _ = self.server.try_sql(
                "template1",
                format!("DROP DATABASE \"{name}\" WITH (FORCE)"),
            );
        }
    }
}

/// A sandbox with a folder of backups.
struct Shelf {
    sandbox: Sandbox,
}

impl Shelf {
    fn new() -> Self {
        Self {
            sandbox: Sandbox::new(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.sandbox.path("backups")
    }

    fn backup(&self, database: &TestDatabase<'_>) -> String {
        let command = [
            "--json",
            "backup",
            "--url",
            &database.socket_url(),
            "--storage",
            "backups",
            "--name",
            "shop",
        ];
        let outcome = self.sandbox.pgkeep(command).run().expect(0);
        outcome.summary()["backups"][0]["backup_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn run(&self, what: &str, into: &str, more: &[&str]) -> Run<'_> {
        // The password is not for the list of processes.
        let password = self.sandbox.write_secret("password", CANARY);
        let into = into.replacen(
            &format!(":{}@", crate::support::secret::percent_encoded(CANARY)),
            "@",
            1,
        );
        let password = password.display().to_string();
        let fixed = [
            "--json",
            "restore",
            what,
            "--into",
            &into,
            "--storage",
            "backups",
            "--password-file",
            &password,
        ];
        // The tests' tables are a superuser's, to which a role without powers can make no foreign key.
        let is_single =
            |flag: &&str| matches!(*flag, "--table" | "-t" | "--upsert" | "--data-only");
        let is_pipe = what == "-";
        let is_said = more.contains(&"--plain-role") || more.contains(&"--allow-superuser");
        let allow =
            ((is_pipe || more.iter().any(is_single)) && !is_said).then_some("--allow-superuser");
        let more = more.iter().copied().filter(|flag| *flag != "--plain-role");
        self.sandbox
            .pgkeep(fixed.into_iter().chain(more).chain(allow))
    }

    #[track_caller]
    fn restore(&self, what: &str, into: &str, more: &[&str]) -> Outcome {
        self.run(what, into, more).watching_argv().run()
    }

    /// Changes the stored dump.
    fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let file = fs::read_dir(self.folder().join("shop"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let dump = file
            .into_iter()
            .find(|path| path.to_string_lossy().ends_with(".sql.gz"))
            .unwrap();
        let mut bytes = fs::read(&dump).unwrap();
        change(&mut bytes);
        fs::write(&dump, bytes).unwrap();
    }
}

fn loaded<'a>(server: &'a Server, dump: &[u8]) -> TestDatabase<'a> {
    let database = server.database();
    database.load(dump);
    database
}

fn pagila() -> Vec<u8> {
    data::dump("../../assets/pagila.sql.gz")
}

const SMALL: &str = "CREATE TABLE public.t (id int, v text);\n\
    COPY public.t (id, v) FROM stdin;\n1\tone\n2\ttwo\n\\.\n";

const END: &str = "--\n-- PostgreSQL database dump complete\n--\n";

fn dump(text: &str) -> String {
    format!("--\n-- PostgreSQL database dump\n--\n\n{text}\n{END}")
}

/// Every sample comes back; its tables are compared by the restore itself, and their number here.
#[test]
fn databases_come_back_as_they_were() {
    let Some(server) = postgres() else { return };
    for sample in [
        pagila(),
        data::nasty(server),
        data::dump("public/neon-chinook.sql"),
    ] {
        let database = loaded(server, &sample);
        let target = Target::beside(&database, server);
        let shelf = Shelf::new();
        let id = shelf.backup(&database);
        let report = shelf
            .restore("latest", &target.url(), &[])
            .expect(0)
            .summary();
        assert_eq!(report["backup_id"], id.as_str());
        assert_eq!(
            (&report["created"], &report["compared"]),
            (&Value::Bool(true), &Value::Bool(true))
        );
        let count = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                     WHERE relkind IN ('r', 'p', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'";
        assert_eq!(database.sql(count), target.sql(count));
        assert_eq!(
            report["tables"].as_array().unwrap().len().to_string(),
            database.sql(count)
        );
        assert!(
            report["tables"]
                .as_array()
                .unwrap()
                .iter()
                .all(|table| table.get("problem").is_none())
        );
        let objects = "SELECT count(*) FROM pg_largeobject_metadata";
        assert_eq!(database.sql(objects), target.sql(objects));
    }
}

/// What a plain dump leaves out, an extension, an event trigger, row security.
#[test]
fn properties_and_odd_objects_come_back() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let name = database.name();
    database.sql(&format!(
        "CREATE EXTENSION pg_trgm; CREATE TABLE \"T \"\"x\" (id int GENERATED ALWAYS AS IDENTITY, v text, \
         u text GENERATED ALWAYS AS (upper(v)) STORED); INSERT INTO \"T \"\"x\" (v) VALUES ('a'), ('b'); \
         CREATE INDEX ON \"T \"\"x\" USING gin (v gin_trgm_ops); ALTER TABLE \"T \"\"x\" ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY p ON \"T \"\"x\" USING (true); CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS \
         'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION ev(); \
         CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM \"T \"\"x\"; SELECT lo_from_bytea(0, 'large'); \
         ALTER DATABASE {name} SET work_mem = '5MB'; COMMENT ON DATABASE {name} IS 'it''s a shop'; \
         REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; ALTER DATABASE {name} OWNER TO postgres"
    ));
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    shelf.restore("latest", &target.url(), &[]).expect(0);
    let properties = "SELECT pg_get_userbyid(datdba), shobj_description(d.oid, 'pg_database'), setconfig, \
        has_database_privilege('public', d.oid, 'CONNECT') \
        FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = current_database()";
    assert_eq!(
        target.sql(properties),
        "postgres|it's a shop|{work_mem=5MB}|f"
    );
    assert_eq!(target.sql("SELECT u FROM \"T \"\"x\" ORDER BY id"), "A\nB");
    assert_eq!(target.sql("SELECT n FROM m"), "2");
    assert_eq!(target.sql("SELECT count(*) FROM pg_event_trigger"), "1");
    drop(target);
    let target = Target::beside(&database, server);
    let report = shelf
        .restore("latest", &target.url(), &["--no-database-settings"])
        .expect(0);
    assert_eq!(target.sql(properties), format!("{USER}|||t"), "{report}");
}

#[test]
fn an_empty_database_is_filled_and_a_full_one_is_not() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &pagila());
    let shelf = Shelf::new();
    shelf.backup(&database);
    let empty = server.database();
    let report = shelf
        .restore("latest", &empty.url(), &[])
        .expect(0)
        .summary();
    assert_eq!(
        (&report["created"], &report["compared"]),
        (&Value::Bool(false), &Value::Bool(true))
    );
    assert_eq!(empty.sql("SELECT count(*) FROM film"), "1000");
    let again = shelf.restore("latest", &empty.url(), &[]).expect(25);
    assert_eq!(again.exit_error()["id"], "target_not_empty");
    assert!(
        again.exit_error()["hints"][0]
            .as_str()
            .unwrap()
            .contains("--replace")
    );
    let source = shelf.restore("latest", &database.url(), &[]).expect(25);
    assert_eq!(source.exit_error()["id"], "target_is_source");
    let views = server.database();
    views.sql("CREATE VIEW v AS SELECT 1");
    let outcome = shelf.restore("latest", &views.url(), &[]).expect(25);
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("it has 1 view"),
        "{outcome}"
    );
}

#[test]
fn a_database_is_replaced_by_rename_and_kept() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &pagila());
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    server.sql(
        "template1",
        &format!("CREATE DATABASE {} TEMPLATE template0", target.name),
    );
    target.sql("CREATE TABLE precious AS SELECT 7 AS n");
    // A session that would be in the way.
    thread::scope(|scope| {
        scope.spawn(|| server.try_sql(&target.name, "SELECT pg_sleep(60)"));
        while target.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()") != "1" {
            thread::sleep(Duration::from_millis(10));
        }
        let report = shelf
            .restore("latest", &target.url(), &["--replace"])
            .expect(0)
            .summary();
        let kept = report["replaced"]["kept_as"].as_str().unwrap().to_owned();
        assert_eq!(target.databases(), [target.name.clone(), kept.clone()]);
        assert_eq!(server.sql(&kept, "SELECT n FROM precious"), "7");
        assert_eq!(target.sql("SELECT count(*) FROM film"), "1000");
        for statement in report["replaced"]["go_back"].as_array().unwrap() {
            server.sql("template1", statement.as_str().unwrap());
        }
        assert_eq!(target.sql("SELECT n FROM precious"), "7");
    });
}

/// A dump cut anywhere, or changed in one byte, leaves neither a database nor a table.
#[test]
fn a_damaged_object_is_never_restored() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("public/neon-chinook.sql"));
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let mut whole = Vec::new();
    shelf.damage(|bytes| whole.clone_from(bytes));
    let length = whole.len();
    for cut in [
        0,
        10,
        length / 3,
        length / 2,
        length * 9 / 10,
        length - 8,
        length - 1,
    ] {
        shelf.damage(|bytes| *bytes = whole[..cut].to_vec());
        // An empty dump is no good backup, so it is not the latest one either.
        let code = if cut == 0 { 10 } else { 23 };
        let outcome = shelf.restore("latest", &target.url(), &[]).expect(code);
        assert_eq!(target.databases(), [""; 0], "{cut}: {outcome}");
    }
    for at in [length / 4, length / 2, length - 5] {
        shelf.damage(|bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 1;
        });
        let empty = server.database();
        let outcome = shelf.restore("latest", &empty.url(), &[]).expect(23);
        assert_eq!(outcome.exit_error()["id"], "object_damaged");
        assert!(outcome.stderr().contains("still empty"), "{outcome}");
        assert_eq!(
            empty.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"),
            "0"
        );
    }
    shelf.damage(|bytes| {
        *bytes = whole.clone();
        bytes.extend_from_slice(b"garbage");
    });
    shelf.restore("latest", &target.url(), &[]).expect(23);
    let dump = fs::read_dir(shelf.folder().join("shop"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with(".sql.gz"))
        .unwrap();
    fs::remove_file(dump).unwrap();
    let gone = shelf.restore("latest", &target.url(), &[]);
    assert!(matches!(gone.code(), 10 | 23), "{gone}");
    assert_eq!(target.databases(), [""; 0]);
}

/// The same over a pipe, of which nothing is known beforehand: cut at many places of the text.
#[test]
fn a_cut_pipe_is_never_restored() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    let text = dump(&format!(
        "{SMALL}ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (id);\n"
    ));
    for cut in (0..text.len() - END.len() + 30).step_by(31) {
        let run = shelf
            .run("-", &target.url(), &[])
            .stdin(&text.as_bytes()[..cut]);
        let outcome = run.run().expect(23);
        assert_eq!(target.databases(), [""; 0], "{cut}: {outcome}");
        let outcome = shelf
            .run("-", &database.url(), &[])
            .stdin(&text.as_bytes()[..cut])
            .run()
            .expect(23);
        let tables = database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
        assert_eq!(tables, "0", "{cut}: {outcome}");
    }
    let report = shelf
        .run("-", &target.url(), &[])
        .stdin(text)
        .run()
        .expect(0)
        .summary();
    assert_eq!(report["rows"], 2);
}

#[test]
fn files_of_every_kind_are_restored() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let shelf = Shelf::new();
    let text = dump(SMALL);
    let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
    for (name, bytes) in [
        ("a.sql", text.clone().into_bytes()),
        ("a.gz", data::gzip(text.as_bytes())),
        ("a.zst", zstd),
    ] {
        let target = Target::beside(&database, server);
        let file = shelf.sandbox.write(name, bytes).display().to_string();
        shelf.restore(&file, &target.url(), &[]).expect(0);
        assert_eq!(
            target.sql("SELECT string_agg(v, ',' ORDER BY id) FROM t"),
            "one,two"
        );
    }
    let target = Target::beside(&database, server);
    let bare = shelf.sandbox.write("bare.sql", SMALL).display().to_string();
    let refused = shelf.restore(&bare, &target.url(), &[]).expect(23);
    assert!(
        refused.stderr().contains("--accept-no-end-marker"),
        "{refused}"
    );
    shelf
        .restore(&bare, &target.url(), &["--accept-no-end-marker"])
        .expect(0);
    drop(target);
    for (name, bytes, code) in [
        ("empty.sql", "", 23),
        ("custom.dump", "PGDMP\u{1}\u{e}", 21),
    ] {
        let target = Target::beside(&database, server);
        let file = shelf.sandbox.write(name, bytes).display().to_string();
        let outcome = shelf.restore(&file, &target.url(), &[]).expect(code);
        assert_eq!(target.databases(), [""; 0], "{outcome}");
    }
    let target = Target::beside(&database, server);
    shelf.restore("nothing-here", &target.url(), &[]).expect(10);
    shelf
        .restore("./nothing-here", &target.url(), &[])
        .expect(2);
}

/// A dump is data, not a program.
#[test]
fn commands_in_a_dump_are_refused() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    let mark = shelf.sandbox.path("ran").display().to_string();
    for (command, id) in [
        (format!("\\! touch {mark}"), "meta_command_refused"),
        (
            format!("SELECT 1 \\g |touch {mark}"),
            "meta_command_refused",
        ),
        (
            format!("\\unrestrict `touch {mark}`"),
            "meta_command_refused",
        ),
        (
            format!("COPY public.t FROM stdin; \\! touch {mark}\n\\."),
            "copy_refused",
        ),
        (
            format!(
                "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'select 1';\nCOPY public.t FROM stdin;\n\\! touch {mark}\n\\."
            ),
            "routine_refused",
        ),
        (format!("warning \\! touch {mark}"), "no_sql"),
        ("\\connect postgres".to_owned(), "cluster_dump_refused"),
    ] {
        let text = dump(&format!("{SMALL}{command}\n"));
        let file = shelf.sandbox.write("evil.sql", &text).display().to_string();
        let outcome = shelf.restore(&file, &target.url(), &[]).expect(25);
        assert_eq!(outcome.exit_error()["id"], id);
        let outcome = shelf
            .run("-", &database.url(), &[])
            .stdin(text)
            .run()
            .expect(25);
        assert_eq!(outcome.exit_error()["id"], id);
        assert_eq!(target.databases(), [""; 0], "{outcome}");
        assert_eq!(
            database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"),
            "0"
        );
        assert!(!fs::exists(&mark).unwrap(), "{command}");
    }
}

/// Rows that are not as they were dumped: the dump itself changes them behind its data.
#[test]
fn a_table_that_differs_is_named_and_nothing_stays() {
    let Some(server) = postgres() else { return };
    let shelf = Shelf::new();
    for change in [
        "UPDATE public.t SET v = 'onf' WHERE id = 1;",
        "DELETE FROM public.t WHERE id = 2;",
    ] {
        let database = server.database();
        let target = Target::beside(&database, server);
        let file = shelf
            .sandbox
            .write("changed.sql", dump(&format!("{SMALL}{change}\n")))
            .display()
            .to_string();
        for (url, safe) in [
            (target.url(), "was dropped"),
            (database.url(), "still empty"),
        ] {
            let outcome = shelf.restore(&file, &url, &[]).expect(23);
            let error = outcome.exit_error();
            assert_eq!(error["id"], "restore_differs", "{outcome}");
            assert!(
                error["details"][0]
                    .as_str()
                    .unwrap()
                    .starts_with("public.t: "),
                "{outcome}"
            );
            assert!(
                error["message"].as_str().unwrap().contains(safe),
                "{outcome}"
            );
        }
        assert_eq!(target.databases(), [""; 0]);
        assert_eq!(
            database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"),
            "0"
        );
        let report = shelf
            .restore(&file, &target.url(), &["--no-compare"])
            .expect(0)
            .summary();
        assert_eq!(report["compared"], Value::Bool(false));
        assert!(
            report["warnings"][0]
                .as_str()
                .unwrap()
                .contains("not proven")
        );
    }
}

#[test]
fn an_error_of_the_server_leaves_nothing() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("bad.sql", dump(&format!("{SMALL}SELECT 1/0;\n")))
        .display()
        .to_string();
    for url in [target.url(), database.url()] {
        let outcome = shelf.restore(&file, &url, &[]).expect(20);
        assert_eq!(outcome.exit_error()["id"], "restore_sql_failed");
        assert!(
            outcome.exit_error()["details"]
                .to_string()
                .contains("division by zero"),
            "{outcome}"
        );
    }
    assert_eq!(target.databases(), [""; 0]);
    assert_eq!(
        database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"),
        "0"
    );
}

#[test]
fn what_the_server_lacks_is_told_beforehand() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    let role = format!("{}_owner", database.name());
    let statements = format!(
        "CREATE EXTENSION IF NOT EXISTS no_such_extension WITH SCHEMA public;\n{SMALL}ALTER TABLE public.t OWNER TO {role};\n"
    );
    let text = dump(&statements).replace(
        "-- PostgreSQL database dump\n--\n",
        "-- PostgreSQL database dump\n--\n\n-- Dumped from database version 99.1\n",
    );
    let file = shelf.sandbox.write("lacks.sql", text).display().to_string();
    let outcome = shelf.restore(&file, &target.url(), &[]).expect(25);
    let error = outcome.exit_error();
    let details = error["details"].to_string();
    assert_eq!(error["id"], "target_not_ready");
    for part in ["older", "no_such_extension", &role] {
        assert!(details.contains(part), "{part}: {outcome}");
    }
    assert_eq!(target.databases(), [""; 0]);

    let owned = dump(&format!(
        "{SMALL}ALTER TABLE public.t OWNER TO {role};\nGRANT SELECT ON TABLE public.t TO {role};\n"
    ));
    let file = shelf
        .sandbox
        .write("owned.sql", owned)
        .display()
        .to_string();
    let outcome = shelf.restore(&file, &target.url(), &[]).expect(25);
    assert_eq!(outcome.exit_error()["id"], "role_missing");
    shelf
        .restore(&file, &target.url(), &["--no-owner", "--no-privileges"])
        .expect(0);
    assert_eq!(
        target.sql("SELECT tableowner FROM pg_tables WHERE tablename = 't'"),
        USER
    );
    let second = Target {
        server,
        name: format!("{}_second", target.name),
    };
    let report = shelf
        .restore(&file, &second.url(), &["--create-missing-roles"])
        .expect(0)
        .summary();
    assert_eq!(report["created_roles"][0], role.as_str());
    assert_eq!(
        second.sql("SELECT tableowner FROM pg_tables WHERE tablename = 't'"),
        role
    );
    drop(second);
    server.sql("template1", &format!("DROP ROLE {role}"));
    // A restore that fails takes the roles along again.
    let bad = dump(&format!(
        "{SMALL}ALTER TABLE public.t OWNER TO {role};\nSELECT 1/0;\n"
    ));
    let file = shelf.sandbox.write("bad.sql", bad).display().to_string();
    let third = Target {
        server,
        name: format!("{}_third", target.name),
    };
    shelf
        .restore(&file, &third.url(), &["--create-missing-roles"])
        .expect(20);
    assert_eq!(
        server.sql(
            "template1",
            &format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'")
        ),
        "0"
    );
}

#[test]
fn a_wrong_password_is_a_refused_login() {
    let Some(server) = postgres() else { return };
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    let wrong = shelf
        .sandbox
        .write("wrong", "not-the-password")
        .display()
        .to_string();
    let into = format!("postgresql://{USER}@127.0.0.1:{}/nowhere", server.port());
    let outcome = shelf
        .sandbox
        .pgkeep([
            "--json",
            "restore",
            &file,
            "--into",
            &into,
            "--password-file",
            &wrong,
        ])
        .run()
        .expect(12);
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("nothing was changed"),
        "{outcome}"
    );
}

/// Ctrl-C while the server works: nothing is left, and nobody waits for the server's statement.
#[test]
fn a_signal_leaves_nothing() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("slow.sql", dump(&format!("{SMALL}SELECT pg_sleep(55);\n")))
        .display()
        .to_string();
    for (url, name) in [
        (target.url(), target.name.clone()),
        (database.url(), database.name().to_owned()),
    ] {
        let running = shelf.run(&file, &url, &[]).start();
        let sleeps = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, '{name}') AND query LIKE '%pg_sleep(55)%'"
        );
        while server.sql("template1", &sleeps) == "0" {
            thread::sleep(Duration::from_millis(20));
        }
        running.signal(Signal::INT);
        let outcome = running.wait().expect(130);
        assert!(outcome.stderr().contains("stopped by SIGINT"), "{outcome}");
        assert_eq!(server.sql("template1", &sleeps), "0", "the session is gone");
    }
    assert_eq!(target.databases(), [""; 0]);
    assert_eq!(
        database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"),
        "0"
    );
}

/// The next storage's copy is taken where the first is bad, into a database made anew or emptied by its rollback.
#[test]
fn a_bad_copy_is_passed_over() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("public/neon-chinook.sql"));
    let target = Target::beside(&database, server);
    let empty = server.database();
    let shelf = Shelf::new();
    let url = database.socket_url();
    let stores = ["--storage", "backups", "--storage", "second"];
    let backup = ["backup", "--url", &url, "--name", "shop"];
    let outcome = shelf.sandbox.pgkeep(backup.into_iter().chain(stores)).run();
    outcome.expect(0);
    shelf.damage(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    for into in [target.url(), empty.url()] {
        let report = shelf
            .restore("latest", &into, &["--storage", "second"])
            .expect(3);
        assert_eq!(report.exit_error()["id"], "stored_not_good", "{report}");
        let report = report.summary();
        assert_eq!(report["restored"], true);
        assert!(
            report["warnings"][0]
                .as_str()
                .unwrap()
                .contains("trying another copy"),
            "{report}"
        );
    }
    assert_eq!(target.sql("SELECT count(*) FROM \"Album\""), "347");
    assert_eq!(empty.sql("SELECT count(*) FROM \"Album\""), "347");
}

/// A child that got a column from its parent late comes back with its columns in another order; a database in another
/// encoding keeps it.
#[test]
fn other_column_orders_and_encodings_compare() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let target = Target::beside(&database, server);
    let name = format!("{}_latin", target.name);
    server.sql("template1", &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"));
    server.sql(
        &name,
        "CREATE TABLE parent (a int, b text); CREATE TABLE child (c text) INHERITS (parent); \
         ALTER TABLE parent ADD d text; INSERT INTO child VALUES (1, 'ä', 'cc', 'dd'), (2, 'ß', NULL, ''); \
         CREATE TABLE empty (); INSERT INTO empty DEFAULT VALUES",
    );
    let shelf = Shelf::new();
    let url = server.url_as(USER, CANARY, &name);
    shelf
        .sandbox
        .pgkeep(["backup", "--storage", "backups", "--name", "shop"])
        .env("DATABASE_URL", url)
        .run()
        .expect(0);
    let report = shelf
        .restore("latest", &target.url(), &[])
        .expect(0)
        .summary();
    let notes = report["tables"].to_string();
    assert!(
        notes.contains("in the order of the columns as dumped"),
        "{notes}"
    );
    assert_eq!(target.sql("SHOW server_encoding"), "LATIN1");
    let empty = server.database();
    shelf.restore("latest", &empty.url(), &[]).expect(0);
    assert_eq!(empty.sql("SELECT b FROM child ORDER BY a"), "ä\nß");
}

#[test]
fn a_locale_that_the_server_lacks_is_named_or_waived() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("public/neon-chinook.sql"));
    let target = Target::beside(&database, server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let folder = fs::read_dir(shelf.folder().join("shop"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let manifest = folder
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with("manifest.json"))
        .unwrap();
    let mut text: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    text["server"]["properties"]["collate"] = "xx_XX.UTF-8".into();
    fs::write(&manifest, text.to_string()).unwrap();
    let outcome = shelf.restore("latest", &target.url(), &[]).expect(20);
    assert!(
        outcome.exit_error()["hints"]
            .to_string()
            .contains("--force-locale"),
        "{outcome}"
    );
    assert_eq!(target.databases(), [""; 0]);
    let report = shelf
        .restore("latest", &target.url(), &["--force-locale"])
        .expect(0)
        .summary();
    assert!(
        report["warnings"][0].as_str().unwrap().contains("locale"),
        "{report}"
    );
}

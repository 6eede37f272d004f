//! `pgkeep drill` against real servers: what passes, what fails, and that nothing is left behind.

use std::fs;

use serde_json::{Value, json};

use crate::support::postgres::{TestDatabase, USER};
use crate::support::sandbox::Outcome;
use crate::support::{CANARY, Sandbox, Server, data, postgres};

/// A configuration with one database and one folder, and what it says about drills.
struct Drills {
    sandbox: Sandbox,
}

impl Drills {
    fn new(database: &TestDatabase<'_>, drill: &Value) -> Self {
        Self::on(database, "", drill)
    }

    /// With a server that `${DRILL_URL}` names, as a superuser.
    fn on(database: &TestDatabase<'_>, server: &str, drill: &Value) -> Self {
        let mut drill = drill.clone();
        if drill.get("url").is_some() {
            drill["allow_superuser"] = true.into();
        }
        Self::as_is(database, server, &drill)
    }

    fn as_is(database: &TestDatabase<'_>, server: &str, drill: &Value) -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.set("DRILL_URL", server);
        sandbox.set("SHOP_URL", database.socket_url());
        let drills = Self { sandbox };
        drills.configure(drill);
        drills.sandbox.pgkeep(["backup"]).run().expect(0);
        drills
    }

    fn configure(&self, drill: &Value) {
        let config = json!({
            "databases": {"shop": {"url": "${SHOP_URL}", "drill": drill}},
            "storages": {"local": {"url": "backups"}},
        });
        self.sandbox.write("pgkeep.yaml", config.to_string());
    }

    #[track_caller]
    fn drill(&self, more: &[&str]) -> Outcome {
        self.sandbox
            .pgkeep(["--json", "drill"].iter().chain(more))
            .watching_argv()
            .run()
    }

    fn is_noted(&self) -> bool {
        let folder = fs::read_dir(self.sandbox.path("backups/shop")).unwrap();
        folder.into_iter().any(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .ends_with(".drill.json")
        })
    }
}

fn chinook(server: &Server) -> TestDatabase<'_> {
    let database = server.database();
    database.load(&data::dump("public/neon-chinook.sql"));
    database
}

fn scratch_databases(server: &Server) -> String {
    server.sql(
        "template1",
        "SELECT count(*) FROM pg_database WHERE datname LIKE 'pgkeep\\_drill\\_%'",
    )
}

/// Other tests drill on the shared server, too.
fn is_gone(server: &Server, outcome: &Outcome) -> bool {
    let summary = outcome.summary();
    let name = summary["restore"]["target"]
        .as_str()
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    assert!(name.starts_with("pgkeep_drill_"), "{name}");
    let sql = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    server.sql("template1", &sql) == "0"
}

fn server_url(server: &Server) -> String {
    server.url_as(USER, CANARY, "postgres")
}

#[test]
fn a_good_backup_passes_on_a_server_of_its_own() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let role = format!("{}_reader", database.name());
    database.sql(&format!(
        "CREATE ROLE {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let assertions = json!([
        {"name": "albums", "sql": "SELECT count(*) FROM \"Album\"", "expect": "equals 347"},
        {"name": "tracks", "sql": "SELECT count(*) FROM \"Track\"", "expect": "at_least 1000"},
        {"name": "orphans", "sql": "SELECT 1 FROM \"Track\" WHERE \"AlbumId\" IS NULL", "expect": "no_rows"},
        {"name": "the <application>", "command": ["sh", "-c", "test -n \"$DATABASE_URL\" && psql \"$PGKEEP_SCRATCH_URL\" -Xc 'SELECT 1'"]},
    ]);
    let drills = Drills::new(&database, &json!({"assertions": assertions}));
    let report = drills.drill(&["--html", "report.html"]).expect(0).summary();
    assert_eq!(report["passed"], true);
    assert_eq!(report["restore"]["tables"].as_array().unwrap().len(), 11);
    assert!(report["restore"]["restore_ms"].as_u64().is_some());
    assert_eq!(report["assertions"].as_array().unwrap().len(), 4);
    assert_eq!(report["noted_in"], json!(["local"]));
    assert!(drills.is_noted());
    let page = fs::read_to_string(drills.sandbox.path("report.html")).unwrap();
    assert!(page.contains("the &lt;application&gt;") && !page.contains("<application>"));
    assert!(page.contains("public.&quot;Album&quot;"));
    for outside in ["http://", "https://", "<script", "<link", "<img"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let list = drills
        .sandbox
        .pgkeep(["--json", "list"])
        .run()
        .expect(0)
        .json();
    assert_eq!(list["backups"][0]["drilled"], true);
    // A second drill takes the place of the first.
    drills.drill(&[]).expect(0);
    let status = drills
        .sandbox
        .pgkeep(["--json", "status"])
        .run()
        .expect(0)
        .json();
    let runs = status["databases"][0]["last_runs"].as_array().unwrap();
    let verbs: Vec<&str> = runs
        .iter()
        .map(|run| run["verb"].as_str().unwrap())
        .collect();
    assert_eq!(verbs, ["drill", "drill", "backup"], "{status}");
    assert_eq!(runs[0]["backup_id"], list["backups"][0]["id"]);
    server.sql(
        database.name(),
        &format!("DROP OWNED BY {role}; DROP ROLE {role}"),
    );
}

/// pg_dump makes a schema that was chosen by name, and a fresh database has `public` already.
#[test]
fn a_backup_of_chosen_schemas_passes() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let drills = Drills::new(&database, &json!({}));
    let config = json!({
        "databases": {"shop": {"url": "${SHOP_URL}", "schemas": ["public"]}},
        "storages": {"local": {"url": "backups"}},
    });
    drills.sandbox.write("pgkeep.yaml", config.to_string());
    drills.sandbox.pgkeep(["backup"]).run().expect(0);
    let report = drills.drill(&[]).expect(0).summary();
    assert_eq!(report["restore"]["tables"].as_array().unwrap().len(), 11);
}

/// Its roles are not there, and one of them owns an event trigger.
#[test]
fn the_nasty_database_passes_on_a_server_of_its_own() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.load(&data::nasty(server));
    let report = Drills::new(&database, &json!({}))
        .drill(&[])
        .expect(0)
        .summary();
    assert!(
        !report["restore"]["created_roles"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(report["restore"]["tables"].as_array().unwrap().len() > 80);
}

/// Ctrl-C in the middle: server, folder and processes are gone.
#[test]
fn a_signal_leaves_nothing() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let assertions = json!([{"name": "slow", "sql": "SELECT pg_sleep(50)", "expect": "equals x"}]);
    let url = server_url(server);
    let drills = Drills::on(
        &database,
        &url,
        &json!({"url": "${DRILL_URL}", "assertions": assertions}),
    );
    let running = drills.sandbox.pgkeep(["--json", "drill"]).start();
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'pgkeep\\_drill\\_%' AND query LIKE '%pg_sleep(50)%'";
    while server.sql("template1", sleeps) == "0" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    running.signal(rustix::process::Signal::INT);
    let outcome = running.wait().expect(130);
    assert!(is_gone(server, &outcome));
    assert_eq!(server.sql("template1", sleeps), "0");
    assert!(!drills.is_noted());
}

/// A role that may make databases and roles does without a superuser's powers.
#[test]
fn no_drill_uses_powers_and_a_lesser_role_drills() {
    let Some(server) = Server::private() else {
        return;
    };
    let database = chinook(&server);
    database.sql(
        "CREATE ROLE app; CREATE ROLE reader; GRANT SELECT ON \"Track\" TO reader;
         DO $$ DECLARE r record; BEGIN FOR r IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
         EXECUTE format('ALTER TABLE %I OWNER TO app', r.tablename); END LOOP; END $$",
    );
    let config = json!({"url": "${DRILL_URL}"});
    let drills = Drills::as_is(&database, &server_url(&server), &config);
    // For a superuser a role without powers restores, and is gone again.
    drills.drill(&[]).expect(0);
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgkeep\\_restorer\\_%'";
    assert_eq!(server.sql("template1", left), "0");
    drills.drill(&["--allow-superuser"]).expect(0);
    // The roles are the backup's own, so the server must lack them.
    database.sql("DROP OWNED BY reader; DROP ROLE reader; REASSIGN OWNED BY app TO CURRENT_USER; DROP ROLE app");
    // Up to PostgreSQL 15 whoever makes roles may also run programs of the server.
    let number = server.sql("template1", "SHOW server_version_num");
    let is_old = number.parse::<u32>().unwrap() < 160_000;
    let sql = format!("CREATE ROLE driller LOGIN CREATEDB CREATEROLE PASSWORD '{CANARY}'");
    server.sql("template1", &sql);
    let mut sandbox = drills.sandbox;
    sandbox.set("DRILL_URL", server.url_as("driller", CANARY, "postgres"));
    let drills = Drills { sandbox };
    let mut flags: &[&str] = &[];
    if is_old {
        let error = drills.drill(flags).expect(25).exit_error();
        assert_eq!(error["id"], "superuser_refused");
        let hints = error["hints"].to_string();
        assert!(hints.contains("`drill.allow_superuser: true`"), "{error}");
        assert!(
            error["message"].as_str().unwrap().contains("CREATEROLE"),
            "{error}"
        );
        flags = &["--allow-superuser"];
    }
    let report = drills.drill(flags).expect(0).summary();
    assert_eq!(report["warnings"], json!([]));
    assert_eq!(report["restore"]["created_roles"], json!(["app", "reader"]));
    // What the role may not do says nothing of the backup.
    database.sql(
        "CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted()",
    );
    drills.sandbox.pgkeep(["backup"]).run().expect(0);
    let outcome = drills.drill(flags).expect(20);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "restore_hindered", "{outcome}");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("could not judge"),
        "{outcome}"
    );
    let left = "SELECT count(*) FROM pg_roles WHERE rolname IN ('app', 'reader')";
    assert_eq!(server.sql("template1", left), "0");
}

#[test]
fn an_assertion_that_fails_is_named() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let assertions = json!([
        {"name": "albums", "sql": "SELECT count(*) FROM \"Album\"", "expect": "at_least 348"},
        {"name": "typo", "sql": "SELECT count(*) FROM albums", "expect": "at_least 1"},
        {"name": "app", "command": ["sh", "-c", "echo it broke >&2; exit 3"]},
        {"name": "fine", "sql": "SELECT 1", "expect": "equals 1"},
    ]);
    let url = server_url(server);
    let drills = Drills::on(
        &database,
        &url,
        &json!({"url": "${DRILL_URL}", "assertions": assertions}),
    );
    let outcome = drills.drill(&[]).expect(23);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "assertion_failed");
    let details = error["details"].as_array().unwrap();
    assert_eq!(details.len(), 3, "{outcome}");
    assert!(
        details[0].as_str().unwrap().contains("it answered 347"),
        "{outcome}"
    );
    assert!(
        details[1].as_str().unwrap().contains("does not exist"),
        "{outcome}"
    );
    assert!(
        details[2].as_str().unwrap().contains("it broke"),
        "{outcome}"
    );
    assert!(!drills.is_noted());
    assert!(is_gone(server, &outcome));
}

#[test]
fn a_damaged_backup_fails_and_leaves_nothing() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let drills = Drills::on(
        &database,
        &server_url(server),
        &json!({"url": "${DRILL_URL}"}),
    );
    let folder = fs::read_dir(drills.sandbox.path("backups/shop")).unwrap();
    let dump = folder
        .into_iter()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "gz"))
        .unwrap();
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&dump, bytes).unwrap();
    let outcome = drills.drill(&[]).expect(23);
    assert_eq!(outcome.exit_error()["id"], "object_damaged", "{outcome}");
    assert!(!drills.is_noted());
    assert!(is_gone(server, &outcome));
}

#[test]
fn a_missing_extension_is_named_or_left_out() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE EXTENSION pg_trgm; CREATE TABLE t AS SELECT 1 AS id");
    let drills = Drills::on(
        &database,
        &server_url(server),
        &json!({"url": "${DRILL_URL}"}),
    );
    // Nobody can take an extension from the server, so the backup is told to need one more.
    let folder = fs::read_dir(drills.sandbox.path("backups/shop")).unwrap();
    let manifest = folder
        .into_iter()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("manifest.json"))
        .unwrap();
    let mut text: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let extensions = text["server"]["extensions"].as_array_mut().unwrap();
    extensions.push(json!({"name": "vector", "version": "1", "schema": "public"}));
    fs::write(&manifest, text.to_string()).unwrap();
    let outcome = drills.drill(&[]).expect(25);
    assert_eq!(outcome.exit_error()["id"], "extension_missing");
    assert!(
        outcome.exit_error()["hints"]
            .to_string()
            .contains("postgresql-"),
        "{outcome}"
    );
    assert!(
        outcome.exit_error()["hints"]
            .to_string()
            .contains("pgvector"),
        "{outcome}"
    );
    let report = drills
        .drill(&["--skip-extension", "vector"])
        .expect(0)
        .summary();
    assert_eq!(report["skipped_extensions"], json!(["vector"]));
    let words = drills
        .sandbox
        .pgkeep(["drill", "--skip-extension", "vector"])
        .run()
        .expect(0);
    assert!(
        words.stdout().lines().nth(1).unwrap().contains("WITHOUT"),
        "{words}"
    );
    assert!(is_gone(server, &outcome));
}

/// What a killed drill left behind goes after a day, and nothing else does.
#[test]
fn old_scratch_databases_are_swept() {
    let Some(server) = Server::private() else {
        return;
    };
    let database = chinook(&server);
    for (name, comment) in [
        (
            "pgkeep_drill_0123456789abcdef",
            "pgkeep drill since 2020-01-01T00:00:00Z",
        ),
        (
            "pgkeep_drill_fedcba9876543210",
            "pgkeep drill since 2999-01-01T00:00:00Z",
        ),
        (
            "pgkeep_drill_mine",
            "pgkeep drill since 2020-01-01T00:00:00Z",
        ),
        ("pgkeep_drill_00000000000000aa", "somebody's own"),
    ] {
        server.sql(
            "template1",
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        );
        server.sql(
            "template1",
            &format!(
                "COMMENT ON DATABASE {name} IS '{}'",
                comment.replace('\'', "''")
            ),
        );
    }
    let drills = Drills::on(
        &database,
        &server_url(&server),
        &json!({"url": "${DRILL_URL}"}),
    );
    let report = drills.drill(&[]).expect(0).summary();
    assert!(
        report["warnings"]
            .to_string()
            .contains("pgkeep_drill_0123456789abcdef")
    );
    assert_eq!(scratch_databases(&server), "3");
}

#[test]
fn a_login_that_is_refused_is_no_verdict_on_the_backup() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let drills = Drills::on(
        &database,
        &server.url_as(USER, "wrong", "postgres"),
        &json!({"url": "${DRILL_URL}"}),
    );
    drills.drill(&[]).expect(12);
    drills.drill(&["shop-20200101T000000Z-0000"]).expect(10);
}

/// What the drill itself lacks, or loses on the way, is no verdict on the backup.
#[test]
fn trouble_on_the_way_has_a_code_of_its_own() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    // It runs while the scratch database is restored, and nowhere else.
    database.sql(
        "CREATE TABLE t AS SELECT 1 AS n; CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
         'BEGIN RETURN $1; END'; CREATE INDEX ON t (f(n))",
    );
    let url = server_url(server);
    let drilling = |body: &str, assertions: Value| {
        database.sql(&format!(
            "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN
             IF current_database() LIKE 'pgkeep%' THEN {body} END IF; RETURN $1; END $f$"
        ));
        let drill = json!({"url": "${DRILL_URL}", "assertions": assertions});
        Drills::on(&database, &url, &drill)
    };
    let full = "RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file \"base/1/2\": No space left on device';";
    let lost = "PERFORM pg_terminate_backend(pg_backend_pid());";
    for (body, code, id) in [
        (full, 20, "target_disk_full"),
        (lost, 20, "connection_lost"),
        ("RAISE EXCEPTION 'it is broken';", 23, "restore_sql_failed"),
    ] {
        let drills = drilling(body, json!([]));
        let outcome = drills.drill(&[]).expect(code);
        assert_eq!(outcome.exit_error()["id"], id, "{outcome}");
        assert!(is_gone(server, &outcome) && !drills.is_noted(), "{outcome}");
    }
    let ends = json!([{"name": "ends", "sql": "SELECT pg_terminate_backend(pg_backend_pid())", "expect": "equals x"}]);
    let outcome = drilling("", ends).drill(&[]).expect(20);
    assert_eq!(outcome.exit_error()["id"], "connection_lost", "{outcome}");
    let absent = json!([{"name": "absent", "command": ["/nowhere/smoke-test"]}]);
    let outcome = drilling("", absent).drill(&[]).expect(26);
    assert_eq!(
        outcome.exit_error()["id"],
        "program_not_started",
        "{outcome}"
    );
}

/// A throw-away server that does not come about: its programs are missing, or broken.
#[test]
fn a_scratch_server_that_does_not_start_is_no_verdict() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let drills = Drills::new(&database, &json!({}));
    let bin = drills.sandbox.path("broken");
    fs::create_dir_all(&bin).unwrap();
    for program in ["psql", "pg_dump", "pg_dumpall", "postgres"] {
        std::os::unix::fs::symlink(server.bin().join(program), bin.join(program)).unwrap();
    }
    let folder = bin.display().to_string();
    let outcome = drills.drill(&["--bin-dir", &folder]).expect(26);
    assert_eq!(outcome.exit_error()["id"], "program_missing", "{outcome}");
    let initdb = drills
        .sandbox
        .write("broken/initdb", "#!/bin/sh\necho no room >&2\nexit 1\n");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&initdb, fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = drills.drill(&["--bin-dir", &folder]).expect(20);
    assert_eq!(
        outcome.exit_error()["id"],
        "scratch_server_failed",
        "{outcome}"
    );
    assert!(!drills.is_noted());
}

/// A server that is older than the dump's is not even started: it would refuse the dump.
#[test]
fn only_an_older_server_is_told_before_one_is_started() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let drills = Drills::new(&database, &json!({}));
    let files = fs::read_dir(drills.sandbox.path("backups/shop")).unwrap();
    let mut paths = files.map(|entry| entry.unwrap().path());
    let found = paths.find(|path| path.to_string_lossy().ends_with(".manifest.json"));
    let path = found.unwrap();
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["server"]["version_num"] = json!(990_001);
    fs::write(&path, manifest.to_string()).unwrap();
    let outcome = drills.drill(&[]).expect(26);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "program_missing", "{outcome}");
    assert!(
        error["hints"].to_string().contains("postgresql-99`"),
        "{outcome}"
    );
    assert_eq!(outcome.summary()["restore"], Value::Null, "{outcome}");
    assert!(!drills.is_noted());
}

/// As a restore does: a bad copy, or a newer backup that is marked as damaged, is told behind a drill that passed.
#[test]
fn what_a_drill_passes_over_is_told() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let drills = Drills::new(&database, &json!({}));
    let config = json!({
        "databases": {"shop": {"url": "${SHOP_URL}"}},
        "storages": {"local": {"url": "backups"}, "second": {"url": "second"}},
    });
    drills.sandbox.write("pgkeep.yaml", config.to_string());
    // Ids know whole seconds; this one must be the newest.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    drills.sandbox.pgkeep(["backup"]).run().expect(0);
    let list = || {
        drills
            .sandbox
            .pgkeep(["--json", "list"])
            .run()
            .expect(0)
            .json()
    };
    let id = list()["backups"][0]["id"].as_str().unwrap().to_owned();
    let dump = drills.sandbox.path(format!("backups/shop/{id}.sql.gz"));
    let whole = fs::read(&dump).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 4;
    fs::write(&dump, &bytes).unwrap();
    let outcome = drills.drill(&[]).expect(3);
    assert_eq!(outcome.summary()["passed"], true);
    assert_eq!(outcome.summary()["noted_in"], json!(["second"]));
    let error = outcome.exit_error();
    assert_eq!(error["id"], "stored_not_good");
    assert!(
        error["message"].as_str().unwrap().contains(&id),
        "{outcome}"
    );
    // Marked in both storages, it is passed over for the one before.
    for folder in ["backups", "second"] {
        drills
            .sandbox
            .write(format!("{folder}/shop/{id}.damaged.json"), "{}");
    }
    let outcome = drills.drill(&[]).expect(3);
    assert_ne!(outcome.summary()["backup_id"], id.as_str());
    let message = outcome.exit_error()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains(&format!("`{id}` is newer, but marked as damaged")),
        "{outcome}"
    );
    let restored = drills
        .sandbox
        .pgkeep([
            "--json",
            "restore",
            "--allow-superuser",
            "--into",
            "drill_test_target",
        ])
        .run();
    let error = restored.expect(3).exit_error();
    let _ = server.try_sql(
        "template1",
        "DROP DATABASE IF EXISTS drill_test_target WITH (FORCE)",
    );
    assert_eq!(error["id"], "stored_not_good");
}

//! Real databases: what is stored restores with everybody's tools, and the manifest tells the truth about it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use flate2::read::DeflateDecoder;
use serde_json::{Value, json};

use super::Real;
use crate::support::pooler::Pooler;
use crate::support::postgres::{TestDatabase, USER};
use crate::support::secret::percent_encoded;
use crate::support::{CANARY, Oracle, Place, S3Server, Sandbox, Server, data, postgres, skip};

/// Loads one of the sample databases.
fn sample<'a>(server: &'a Server, dump: &[u8]) -> TestDatabase<'a> {
    let database = server.database();
    database.load(dump);
    database
}

fn chinook(server: &Server) -> TestDatabase<'_> {
    sample(server, &data::dump("public/neon-chinook.sql"))
}

fn pagila() -> Vec<u8> {
    data::dump("../../assets/pagila.sql.gz")
}

/// Restores a dump into a fresh database, and compares a second backup of it table by table.
#[track_caller]
fn assert_restores(server: &Server, manifest: &Value, sql: &[u8]) {
    let copy = server.database();
    copy.load(sql);
    let again = Real::new(copy.socket_url());
    let second = again.manifest(&again.backup(&[]).expect(0));
    let rows = |manifest: &Value| -> Vec<Value> {
        let tables = manifest["tables"].as_array().unwrap().iter();
        let mut rows: Vec<Value> = tables
            .map(|t| json!([t["schema"], t["name"], t["kind"], t["rows"], t["digest"]]))
            .collect();
        rows.sort_by_key(Value::to_string);
        rows
    };
    assert_eq!(rows(manifest), rows(&second));
}

#[test]
fn sample_databases_come_back_as_they_were() {
    let Some(server) = postgres() else { return };
    for dump in [data::dump("public/neon-chinook.sql"), pagila()] {
        let database = sample(server, &dump);
        let real = Real::new(database.socket_url());
        let manifest = real.manifest(&real.backup(&[]).expect(0));
        let get = real
            .sandbox
            .pgkeep(["get", "-o", "-", "--storage", "backups"])
            .run()
            .expect(0);
        assert_restores(server, &manifest, &data::gunzip(&get.stdout));
    }
}

/// Its roles stay behind in the cluster, and partitions of hashed enums may land elsewhere: compared by the scanner only.
#[test]
fn the_nasty_database_is_stored_whole() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.load(&data::nasty(server));
    let real = Real::new(database.socket_url());
    let outcome = real
        .backup(&["--require", "\"public.users\"=1", "--require", "\"\\.\"=1"])
        .expect(0);
    let manifest = real.manifest(&outcome);
    let count = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                 WHERE relkind IN ('r', 'p', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'";
    assert_eq!(
        manifest["tables"].as_array().unwrap().len().to_string(),
        database.sql(count)
    );
    assert_eq!(manifest["large_objects"], 3);
    for table in manifest["tables"].as_array().unwrap() {
        let (schema, name) = (
            table["schema"].as_str().unwrap(),
            table["name"].as_str().unwrap(),
        );
        if let Some(rows) = table["rows"].as_u64() {
            let quote = |name: &str| name.replace('"', "\"\"");
            // Rows of partitions by a hash of an enum are dumped through their root.
            let only = if table["kind"] == "partitioned" {
                ""
            } else {
                "ONLY"
            };
            let (schema, name) = (quote(schema), quote(name));
            let count = format!("SELECT count(*) FROM {only} \"{schema}\".\"{name}\"");
            assert_eq!(database.sql(&count), rows.to_string(), "{schema}.{name}");
        }
    }
    real.backup(&["--require", "users"]).expect(21);
}

/// `inspect` counts the rows that the server has, in whatever form this major's pg_dump wrote them.
#[test]
fn inspect_reads_what_pg_dump_prints() {
    let Some(server) = postgres() else { return };
    let database = sample(server, &pagila());
    let count = "SELECT sum((xpath('//n/text()', query_to_xml(format('SELECT count(*) AS n FROM ONLY %s', oid::regclass), \
                 false, false, '')))[1]::text::int) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let rows: u64 = database.sql(count).parse().unwrap();
    let sandbox = Sandbox::new();
    for flags in [
        &[][..],
        &["--clean", "--if-exists", "--create"],
        &["--no-owner", "--no-privileges", "--quote-all-identifiers"],
        &["--rows-per-insert=100"],
    ] {
        let dump = Command::new(server.bin().join("pg_dump"))
            .args(flags)
            .args(["--dbname", &database.socket_url()])
            .output()
            .unwrap();
        assert!(dump.status.success(), "{dump:?}");
        let run = sandbox
            .pgkeep(["--json", "inspect", "-"])
            .stdin(dump.stdout);
        let document = run.run().expect(0).json();
        let tables = document["tables"].as_array().unwrap().iter();
        let found: u64 = tables.filter_map(|table| table["rows"].as_u64()).sum();
        assert_eq!(found, rows, "{flags:?}");
    }
}

#[test]
fn a_folder_a_bucket_and_both_at_once() {
    let Some(server) = postgres() else { return };
    let s3 = S3Server::start();
    let database = chinook(server);
    let mut real = Real::new(database.url());
    for (name, value) in s3.environment() {
        real.sandbox.set(name, value);
    }
    let both = vec![Place::Folder(real.folder()), Place::Bucket(&s3)];
    for places in [vec![Place::Bucket(&s3)], both] {
        let oracle = Oracle::new(&real.sandbox, places);
        let before = oracle.before();
        let command = ["--json", "backup", "--require", "\"Album\"=347"].map(str::to_owned);
        let outcome = real
            .sandbox
            .pgkeep(command.into_iter().chain(oracle.flags()))
            .run()
            .expect(0);
        oracle.judge(&before, &outcome);
    }
}

/// The programs that people have; each must give back the same bytes.
#[test]
fn every_codec_is_read_by_everybodys_tools() {
    let Some(server) = postgres() else { return };
    let database = chinook(server);
    let real = Real::new(database.socket_url());
    let python = "import gzip, sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    let gzip: &[&[&str]] = &[
        &["gunzip", "-c"],
        &["zcat"],
        &["pigz", "-dc"],
        &["python3", "-c", python],
    ];
    let cases: [(&str, &[&[&str]]); 7] = [
        ("gzip", gzip),
        ("gzip:1", gzip),
        ("gzip:6", &gzip[..1]),
        ("gzip:9", gzip),
        ("zstd", &[&["zstd", "-dc"]]),
        ("zstd:19", &[&["zstd", "-dc"]]),
        ("none", &[&["cat"]]),
    ];
    for (codec, tools) in cases {
        let manifest = real.manifest(&real.backup(&["--compression", codec]).expect(0));
        let file = real
            .folder()
            .join(manifest["object"]["key"].as_str().unwrap());
        for tool in tools {
            let Ok(output) = Command::new(tool[0]).args(&tool[1..]).arg(&file).output() else {
                skip(&format!("`{}` is not installed", tool[0]));
                continue;
            };
            assert!(output.status.success(), "{codec} {tool:?}");
            assert_eq!(
                manifest["dump"]["bytes"],
                output.stdout.len(),
                "{codec} {tool:?}"
            );
            let scan = crate::support::oracle::scan(&output.stdout);
            assert!(scan.complete && scan.tables.len() == 11, "{codec} {tool:?}");
        }
    }
}

#[test]
fn each_table_can_be_read_by_itself() {
    let Some(server) = postgres() else { return };
    let database = sample(server, &pagila());
    let real = Real::new(database.socket_url());
    let manifest = real.manifest(&real.backup(&[]).expect(0));
    let stored = fs::read(
        real.folder()
            .join(manifest["object"]["key"].as_str().unwrap()),
    )
    .unwrap();
    let mut read = 0;
    for table in manifest["tables"].as_array().unwrap() {
        for block in table["blocks"].as_array().into_iter().flatten() {
            let number = |name: &str| usize::try_from(block[name].as_u64().unwrap()).unwrap();
            let (start, length) = (number("stored_offset"), number("stored_length"));
            let mut text = Vec::new();
            // The range ends in a full flush, not in a last block, so its reader runs out of input.
            let _ = DeflateDecoder::new(&stored[start..start + length]).read_to_end(&mut text);
            assert!(text.starts_with(b"COPY "), "{}", table["name"]);
            let end = &text[..number("length")];
            assert!(end.ends_with(b"\n\\.\n"), "{}", table["name"]);
            read += 1;
        }
    }
    assert!(read > 10, "{read}");
}

#[test]
fn flags_make_a_partial_backup_and_the_configuration_does_not() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE SCHEMA audit; CREATE TABLE audit.log AS SELECT 1 AS id; CREATE TABLE users AS SELECT 1 AS id; \
         CREATE TABLE ev (id int) PARTITION BY RANGE (id); CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (0) TO (9); \
         INSERT INTO ev VALUES (1), (2)",
    );
    let real = Real::new(database.socket_url());
    let names = |flags: &[&str]| {
        let outcome = real.backup(flags).expect(0);
        let manifest = real.manifest(&outcome);
        let key = manifest["object"]["key"].as_str().unwrap().to_owned();
        let tables: Vec<String> = manifest["tables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| format!("{}={}", t["name"].as_str().unwrap(), t["rows"]))
            .collect();
        (
            key.contains("/partial/"),
            manifest["selection"].clone(),
            tables,
        )
    };
    let (is_partial, selection, whole) = names(&[]);
    assert!(
        !is_partial && selection.is_null() && whole.len() == 4,
        "{whole:?}"
    );
    let latest = || {
        let show = real
            .sandbox
            .pgkeep(["--json", "show", "--storage", "backups"])
            .run()
            .expect(0);
        show.json()["id"].clone()
    };
    let full = latest();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--table", "users"], &["users=1"]),
        (&["--table", "ev"], &["ev=null", "ev_1=2"]),
        (&["--exclude-table", "ev"], &["log=1", "users=1"]),
        (&["--schema", "audit"], &["log=1"]),
        (
            &["--exclude-schema", "audit"],
            &["ev=null", "ev_1=2", "users=1"],
        ),
        (
            &["--structure-only", "ev", "--schema", "public"],
            &["ev=null", "ev_1=null", "users=1"],
        ),
    ];
    for (flags, expected) in cases {
        let (is_partial, selection, mut tables) = names(flags);
        tables.sort();
        assert!(is_partial && selection.is_object(), "{flags:?}");
        assert_eq!(tables, expected, "{flags:?}");
    }
    assert_eq!(latest(), full, "`latest` means a full one");
    let config = "databases:\n  shop:\n    url: ${DATABASE_URL}\n    structure_only: [audit.log]\nstorages:\n  local: {url: backups}\n";
    real.sandbox.write("pgkeep.yaml", config);
    real.sandbox.pgkeep(["backup"]).run().expect(0);
    let manifest = real
        .sandbox
        .pgkeep(["-d", "shop", "--json", "show"])
        .run()
        .expect(0)
        .json();
    assert_eq!(
        manifest["selection"],
        json!({ "structure_only": ["audit.log"] })
    );
    assert!(
        !manifest["object"]["key"]
            .as_str()
            .unwrap()
            .contains("partial")
    );
}

/// Views, sequences, and what an extension owns: `hstore` is given two tables, one with rows of its users.
#[test]
fn everything_that_pg_dump_can_name_can_be_selected() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE EXTENSION hstore; CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY, no serial); INSERT INTO users DEFAULT VALUES; \
         CREATE VIEW shown AS SELECT 1 AS a; CREATE MATERIALIZED VIEW counted AS SELECT 2 AS a; CREATE SEQUENCE free; \
         CREATE TABLE ext_fixed AS SELECT 1 AS a; CREATE TABLE ext_own AS SELECT 2 AS a; \
         ALTER EXTENSION hstore ADD TABLE ext_fixed; ALTER EXTENSION hstore ADD TABLE ext_own; \
         UPDATE pg_extension SET extconfig = ARRAY['ext_own'::regclass::oid], extcondition = ARRAY[''] \
         WHERE extname = 'hstore'",
    );
    let real = Real::new(database.socket_url());
    let sql = |flags: &[&str]| {
        let outcome = real.backup(flags).expect(0);
        let manifest = real.manifest(&outcome);
        let key = manifest["object"]["key"].as_str().unwrap();
        let stored = fs::read(real.folder().join(key)).unwrap();
        let warnings = manifest["warnings"].to_string();
        (String::from_utf8(data::gunzip(&stored)).unwrap(), warnings)
    };
    let marks = [
        "CREATE TABLE public.users",
        "CREATE VIEW public.shown",
        "CREATE MATERIALIZED VIEW public.counted",
        "CREATE SEQUENCE public.free",
        "COPY public.ext_own",
    ];
    let held = |text: &str| marks.map(|mark| text.contains(mark));
    let (whole, _) = sql(&[]);
    assert_eq!(held(&whole), [true; 5]);
    assert!(!whole.contains("ext_fixed"), "{whole}");
    let others = [("shown", 1), ("counted", 2), ("free", 3), ("ext_own", 4)];
    for (name, at) in others {
        let (without, warnings) = sql(&["--exclude-table", name]);
        let expected = [0, 1, 2, 3, 4].map(|mark| mark != at);
        assert_eq!(held(&without), expected, "without {name}");
        assert!(!warnings.contains("changes nothing"), "{name}: {warnings}");
        let (only, _) = sql(&["--table", name]);
        assert_eq!(held(&only), expected.map(|is| !is), "only {name}");
    }
    // What changes nothing is told; the dump is the whole one.
    for (name, why) in [
        ("ext_fixed", "belongs to the extension `hstore`"),
        ("users_id_seq", "a sequence of `public.users`"),
        ("users_no_seq", "a sequence of `public.users`"),
    ] {
        let (without, warnings) = sql(&["--exclude-table", name]);
        assert_eq!(held(&without), [true; 5], "{name}");
        let is_there = without.contains("SEQUENCE NAME public.users_id_seq");
        assert!(is_there && without.contains("CREATE SEQUENCE public.users_no_seq"));
        assert!(warnings.contains(why), "{name}: {warnings}");
    }
    let (rows, warnings) = sql(&["--structure-only", "shown"]);
    assert_eq!(held(&rows), [true; 5]);
    assert!(warnings.contains("is a view"), "{warnings}");
    let (rows, _) = sql(&["--structure-only", "ext_own"]);
    assert_eq!(held(&rows), [true, true, true, true, false]);
    let (serial, _) = sql(&["--table", "users_no_seq"]);
    assert!(serial.contains("CREATE SEQUENCE public.users_no_seq"));
    // What would be a silent gap is refused.
    for (name, why) in [
        ("ext_fixed", "belongs to the extension `hstore`"),
        ("users_id_seq", "the identity sequence of `public.users`"),
    ] {
        let outcome = real
            .backup(&["--table", name, "--table", "free"])
            .expect(21);
        let error = outcome.exit_error();
        assert_eq!(error["id"], "selected_table_not_dumped");
        assert!(error["details"].to_string().contains(why), "{error}");
    }
}

#[test]
fn min_rows_of_a_partitioned_table_are_those_of_its_leaves() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE SCHEMA app; CREATE TABLE ev (id int) PARTITION BY RANGE (id); \
         CREATE TABLE app.ev_1 PARTITION OF ev FOR VALUES FROM (0) TO (9); \
         CREATE TABLE ev_2 PARTITION OF ev DEFAULT PARTITION BY LIST (id); \
         CREATE TABLE ev_2_a PARTITION OF ev_2 DEFAULT; INSERT INTO ev VALUES (1), (2), (11); \
         CREATE TABLE old (id int); CREATE TABLE child () INHERITS (old); INSERT INTO child VALUES (1)",
    );
    let real = Real::new(database.socket_url());
    let outcome = real
        .backup(&["--require", "ev=3", "--require", "ev_2=1"])
        .expect(0);
    let manifest = real.manifest(&outcome);
    let tables = manifest["tables"].as_array().unwrap();
    let parent = |name: &str| {
        let table = tables.iter().find(|table| table["name"] == name);
        table.unwrap()["parent"]["name"].clone()
    };
    let parents = ["ev_1", "ev_2", "ev_2_a", "ev", "child"].map(parent);
    let expected = json!(["ev", "ev", "ev_2", null, null]);
    assert_eq!(json!(parents), expected);
    assert_eq!(manifest["required_tables"][0]["rows"], 3);
    let outcome = real
        .backup(&["--require", "ev=4", "--require", "old=1"])
        .expect(21);
    let details = outcome.exit_error()["details"].to_string();
    assert!(details.contains("`ev` has 3 rows"), "{details}");
    assert!(details.contains("`old` has 0 rows"), "{details}");
}

#[test]
fn globals_come_with_passwords_where_they_may_be_read() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let role = format!("plain_{}", database.name());
    database.sql(&format!(
        "CREATE TABLE t (id int); CREATE ROLE {role} LOGIN; GRANT SELECT ON t TO {role}"
    ));
    let mut real = Real::new(database.socket_url());
    let manifest = real.manifest(&real.backup(&["--globals"]).expect(0));
    assert_eq!(manifest["globals"]["role_passwords"], true);
    let get = ["get", "--globals", "-o", "-", "--storage", "backups"];
    let globals = data::gunzip(&real.sandbox.pgkeep(get).run().expect(0).stdout);
    assert!(String::from_utf8_lossy(&globals).contains(&format!("CREATE ROLE {role};")));
    real.sandbox.set(
        "DATABASE_URL",
        database
            .socket_url()
            .replace("keeper@", &format!("{role}@")),
    );
    let outcome = real.backup(&["--globals"]).expect(0);
    let manifest = real.manifest(&outcome);
    assert_eq!(manifest["globals"]["role_passwords"], false);
    assert!(
        manifest["warnings"].to_string().contains("password"),
        "{}",
        manifest["warnings"]
    );
    database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// A slow client asks long after the first was answered, and must still meet a session of its own.
#[test]
fn a_real_pooler_is_refused_in_transaction_mode_only() {
    let Some(server) = postgres() else { return };
    let one = server.database();
    one.sql("CREATE TABLE t (id int)");
    let real = Real::new(one.socket_url());
    let slow = |name: &str| {
        let program = server.bin().join(name);
        let text = format!(
            "#!/bin/sh\nsleep 0.5\nexec '{}' \"$@\"\n",
            program.display()
        );
        let path = real.sandbox.write(format!("slow/{name}"), text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    slow("pg_dump");
    let folder = slow("psql").parent().unwrap().to_owned();
    let through = |mode: &str| {
        let pooler = Pooler::start(server, mode)?;
        let url = pooler.url(one.name());
        let bin = folder.to_str().unwrap();
        let command = [
            "--json",
            "backup",
            "--storage",
            "backups",
            "--url",
            &url,
            "--bin-dir",
            bin,
        ];
        Some(real.sandbox.pgkeep(command).run())
    };
    let Some(outcome) = through("session") else {
        return;
    };
    outcome.expect(0);
    let outcome = through("transaction")
        .expect("PgBouncer is there")
        .expect(20);
    assert_eq!(outcome.exit_error()["id"], "transaction_pooler");
}

/// Where no configuration has a database of that name, it is what the backups are called, and never passed over.
#[test]
fn a_database_named_beside_a_url_is_the_name_of_its_backups() {
    let Some(server) = postgres() else { return };
    let one = server.database();
    one.sql("CREATE TABLE t (id int)");
    let real = Real::new(one.socket_url());
    let named = |flags: &[&str]| {
        let url = one.socket_url();
        let command = ["--json", "-d", "shop", "backup", "--url", &url];
        real.sandbox.pgkeep(command.iter().chain(flags)).run()
    };
    let outcome = named(&["--storage", "backups"]).expect(0);
    assert_eq!(outcome.summary()["backups"][0]["database"], "shop");
    let outcome = named(&["--storage", "backups", "--name", "blog"]).expect(2);
    assert_eq!(outcome.exit_error()["id"], "two_databases");
    let config = "databases:\n  shop: {url: 'postgresql:///elsewhere'}\nstorages:\n  local: {url: backups}\n";
    real.sandbox.write("pgkeep.yaml", config);
    let outcome = named(&[]).expect(2);
    assert_eq!(outcome.exit_error()["id"], "two_databases");
}

/// Its storage is a file, which no folder can be made of.
#[test]
fn a_database_whose_only_storage_cannot_be_used_never_stops_the_others() {
    let Some(server) = postgres() else { return };
    let one = server.database();
    one.sql("CREATE TABLE t (id int)");
    let real = Real::new(one.socket_url());
    real.sandbox.write("file", "");
    let url = one.socket_url();
    let config = format!(
        "databases:\n  bad: {{url: '{url}', storages: [gone]}}\n  one: {{url: '{url}', storages: [local]}}\n\
         storages:\n  gone: {{url: file/folder}}\n  local: {{url: {}}}\n",
        real.folder().display()
    );
    real.sandbox.write("pgkeep.yaml", config);
    let outcome = real.sandbox.pgkeep(["--json", "backup"]).run().expect(2);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "some_databases_failed", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("1 of 2") && message.contains("`bad`"),
        "{error}"
    );
    assert!(
        error["details"].to_string().contains("file/folder"),
        "{error}"
    );
    assert_eq!(outcome.summary()["backups"][1]["stored"], true);
}

#[test]
fn one_database_failing_never_stops_the_others() {
    let Some(server) = postgres() else { return };
    let (one, two) = (server.database(), server.database());
    one.sql("CREATE TABLE t (id int)");
    two.sql("CREATE TABLE t (id int)");
    let real = Real::new(one.socket_url());
    let config = format!(
        "databases:\n  one: {{url: '{}'}}\n  bad: {{url: '{}', required_tables: [nope]}}\n  two: {{url: '{}'}}\n\
         storages:\n  local: {{url: {}}}\n",
        one.socket_url(),
        two.socket_url(),
        two.socket_url(),
        real.folder().display()
    );
    real.sandbox.write("pgkeep.yaml", config);
    let oracle = real.oracle();
    let before = oracle.before();
    // A database without a backup is a failure of its own kind, whatever the others have.
    let outcome = real.sandbox.pgkeep(["--json", "backup"]).run().expect(21);
    oracle.judge_visible(&before, &outcome);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "some_databases_failed");
    assert!(
        error["message"].as_str().unwrap().contains("`bad`"),
        "{error}"
    );
    let stored: Vec<bool> = outcome.summary()["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["stored"] == true)
        .collect();
    assert_eq!(stored, [true, false, true]);
    // `latest` of several databases needs to know which.
    real.sandbox.pgkeep(["show"]).run().expect(2);
    real.sandbox.pgkeep(["-d", "two", "show"]).run().expect(0);
}

#[test]
fn every_way_to_name_the_database_works() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE TABLE t (id int)");
    let real = Real::new(database.url());
    real.backup(&[]).expect(0);
    let url = format!(
        "postgresql://{USER}@127.0.0.1:{}/{}",
        server.port(),
        database.name()
    );
    let run = |flags: &[&str], variables: &[(&str, &str)]| {
        let oracle = real.oracle();
        let before = oracle.before();
        let plain = real.run(flags).without_env("DATABASE_URL");
        let run = variables
            .iter()
            .fold(plain, |run, (name, value)| run.env(name, value));
        let outcome = run.run();
        oracle.judge(&before, &outcome);
        outcome
    };
    run(&["--url", &database.socket_url()], &[]).expect(0);
    run(&["--url", &url], &[]).expect(12);
    run(&["--url", &url], &[("PGPASSWORD", CANARY)]).expect(0);
    let file = real.sandbox.write_secret("password", format!("{CANARY}\n"));
    run(
        &["--url", &url, "--password-file", file.to_str().unwrap()],
        &[],
    )
    .expect(0);
    let port = server.port().to_string();
    let libpq = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port),
        ("PGUSER", USER),
        ("PGDATABASE", database.name()),
    ];
    run(&[], &[&libpq[..], &[("PGPASSWORD", CANARY)]].concat()).expect(0);
    let line = format!(
        "127.0.0.1:{port}:*:{USER}:{}\n",
        CANARY.replace('\\', "\\\\").replace(':', "\\:")
    );
    let passwords = real.sandbox.write_secret("../home/.pgpass", line);
    // Before PostgreSQL 15 libpq asks the system for the home folder, not `HOME`.
    let by_name = [("PGPASSFILE", passwords.to_str().unwrap())];
    let named = if server.major() < 15 {
        &by_name[..]
    } else {
        &[]
    };
    let run = |flags: &[&str], variables: &[(&str, &str)]| run(flags, &[named, variables].concat());
    run(&["--url", &url], &[]).expect(0);
    let entry = format!(
        "[shop]\nhost=127.0.0.1\nport={port}\nuser={USER}\ndbname={}\n",
        database.name()
    );
    let service = real.sandbox.write("services.conf", entry);
    run(
        &[],
        &[
            ("PGSERVICE", "shop"),
            ("PGSERVICEFILE", service.to_str().unwrap()),
        ],
    )
    .expect(0);
    run(&[], &[]).expect(2);
    let odd = percent_encoded("odd name");
    run(&["--url", &format!("postgresql:///{odd}")], &[]).expect(2);
}

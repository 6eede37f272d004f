//! The dump side (rows D): whatever `pg_dump` or its server does, only a proven dump becomes a backup.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Real, Shop, facts, while_locked};
use crate::support::sandbox::Outcome;
use crate::support::{Oracle, Place, Sandbox, data, postgres, processes};

/// One fault: the script of `pg_dump`, flags, and how the run must end.
struct Fault {
    row: &'static str,
    script: Value,
    flags: &'static [&'static str],
    code: i32,
    id: &'static str,
    says: &'static str,
}

fn fault(
    row: &'static str,
    script: Value,
    code: i32,
    id: &'static str,
    says: &'static str,
) -> Fault {
    Fault {
        row,
        script,
        flags: &[],
        code,
        id,
        says,
    }
}

impl Fault {
    fn flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags = flags;
        self
    }

    /// Meets the fault between two good runs, each of them judged.
    #[track_caller]
    fn meet(self) -> Outcome {
        let mut shop = Shop::new();
        shop.backup(&[]).expect(0);
        shop.dumps(self.script);
        let outcome = shop.backup(self.flags).expect(self.code);
        let error = outcome.exit_error();
        assert_eq!(error["id"], self.id, "{}: {outcome}", self.row);
        assert!(
            error.to_string().contains(self.says),
            "{}: {outcome}",
            self.row
        );
        assert_told_safe(&error);
        shop.dumps(json!({}));
        shop.backup(&[]).expect(0);
        outcome
    }
}

#[track_caller]
fn assert_told_safe(error: &Value) {
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("nothing was stored"), "{message}");
}

#[test]
fn d1_d2_a_program_that_fails_stores_nothing() {
    let noise = "pg_dump: error: query failed: ERROR:  it broke\n";
    let early = json!({ "stops_after": { "bytes": 0, "stderr": noise, "exit_code": 1 } });
    fault("D1", early, 20, "program_failed", "it broke").meet();
    let cut = json!({ "stops_after": { "bytes": 900, "exit_code": 1 } });
    fault("D1", cut, 20, "program_failed", "status 1").meet();
    let late = json!({ "exit_code": 1, "last_stderr": noise });
    fault("D2", late, 20, "program_failed", "it broke").meet();
}

#[test]
fn d3_a_killed_program_stores_nothing() {
    for bytes in [0, 900, 1_000_000] {
        let stop = json!({ "bytes": bytes, "kills_itself": true });
        let script = json!({ "stops_after": stop, "one_line_bytes": 3_000_000 });
        fault("D3", script, 20, "program_killed", "signal 9").meet();
    }
}

#[test]
fn d4_d5_a_program_that_ends_well_is_not_believed() {
    let no_marker = json!({ "no_end_marker": true });
    fault("D4", no_marker, 21, "dump_incomplete", "end marker").meet();
    let nothing = json!({ "zero_bytes": true });
    fault("D5", nothing, 21, "dump_incomplete", "").meet();
    let cut = json!({ "stops_after": { "bytes": 1100, "exit_code": 0 } });
    fault("D4", cut, 21, "dump_incomplete", "").meet();
}

#[test]
fn d4_every_damaged_dump_is_refused() {
    let mut shop = Shop::new();
    for damaged in data::damaged()
        .iter()
        .filter(|one| !one.name.ends_with(".gz"))
    {
        let code = if damaged.is_complete { 0 } else { 21 };
        shop.prints(&damaged.bytes);
        // They are dumps of several databases: one that is complete lacks the tables of another.
        shop.backup(&["--allow-anomaly", "another dump"])
            .expect(code);
    }
}

#[test]
fn d6_warnings_are_listed_and_may_be_strict() {
    let mut shop = Shop::new();
    let line = "pg_dump: warning: there are circular foreign-key constraints on this table:";
    shop.dumps(json!({ "stderr": format!("{line}\n") }));
    let backup = &shop.backup(&[]).expect(0).summary()["backups"][0];
    let listed = |warning: &Value| warning["id"] == "pg_dump" && warning["message"] == line;
    assert!(
        backup["warnings"].as_array().unwrap().iter().any(listed),
        "{backup}"
    );
    let strict = shop.backup(&["--strict-warnings"]).expect(3);
    assert_eq!(strict.exit_error()["id"], "pg_dump_warned");
    assert!(strict.exit_error().to_string().contains("circular"));
}

/// Writes a configuration for the fakes, with quick retries.
fn configure(shop: &Shop) {
    let config = format!(
        "databases:\n  shop:\n    url: ${{DATABASE_URL}}\n    retries: {{attempts: 2, delay: 1s}}\n\
         storages:\n  local: {{url: {}}}\npostgres: {{bin_dir: {}}}\n",
        shop.folder().display(),
        shop.fake.bin().display()
    );
    shop.sandbox.write("pgkeep.yaml", config);
}

#[test]
fn d7_d8_a_lost_connection_is_tried_again_from_the_start() {
    let mut shop = Shop::new();
    configure(&shop);
    let mark = shop.sandbox.path("reached");
    let died = data::damaged()
        .into_iter()
        .find(|one| one.name == "server-died.sql");
    let body = shop.sandbox.write("died.sql", died.unwrap().bytes);
    let lost = "pg_dump: error: Dumping the contents of table \"Track\" failed: PQgetCopyData() failed.\n\
                pg_dump: detail: Error message from server: FATAL:  terminating connection due to administrator command\n";
    let stop = json!({ "bytes": 209_083, "marks": mark, "sleeps_ms": 400, "resumes": true });
    shop.dumps(json!({ "body": body, "stops_after": stop, "last_stderr": lost, "exit_code": 1 }));
    let oracle = Oracle::new(&shop.sandbox, vec![Place::Folder(shop.folder())]);
    let before = oracle.before();
    let running = shop.sandbox.pgkeep(["--json", "backup"]).start();
    running.wait_for_file(&mark);
    shop.fake.script("pg_dump", json!({}));
    let outcome = running.wait().expect(0);
    oracle.judge(&before, &outcome);
    let backup = &outcome.summary()["backups"][0];
    assert_eq!(
        (&backup["attempts"], &backup["rows"]),
        (&json!(2), &json!(5))
    );
    let lines = outcome.json_lines();
    let retry = lines
        .iter()
        .find(|line| line["message_type"] == "retry")
        .unwrap_or_else(|| panic!("no retry is told: {outcome}"));
    assert_eq!((&retry["attempt"], &retry["code"]), (&json!(1), &json!(20)));
    assert_eq!(retry["database"], "shop");
    assert_eq!(retry["id"], "connection_lost");
    assert!(retry["delay_ms"].as_u64().unwrap() >= 1000, "{retry}");
    let message = retry["message"].as_str().unwrap();
    assert!(message.contains("nothing was stored"), "{retry}");
}

#[test]
fn d8_the_last_attempt_decides() {
    let mut shop = Shop::new();
    configure(&shop);
    shop.dumps(
        json!({ "exit_code": 1, "last_stderr": "pg_dump: error: PQgetCopyData() failed.\n" }),
    );
    let oracle = shop.oracle();
    let before = oracle.before();
    let outcome = shop.sandbox.pgkeep(["--json", "backup"]).run().expect(20);
    oracle.judge(&before, &outcome);
    assert_eq!(outcome.exit_error()["id"], "connection_lost");
    assert_eq!(outcome.summary()["backups"][0]["attempts"], 2);
}

#[test]
fn d9_a_dump_that_moves_no_byte_is_ended() {
    let stop = json!({ "bytes": 900, "sleeps_ms": 60_000, "exit_code": 0 });
    let stalls = json!({ "stops_after": stop, "ignores_sigterm": true });
    let stalled = fault("D9", stalls, 20, "program_stalled", "moved no byte");
    let outcome = stalled.flags(&["--stall-timeout", "300ms"]).meet();
    assert!(outcome.took < Duration::from_secs(10), "{outcome}");
}

#[test]
fn d10_a_lock_is_not_waited_for_too_long() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let real = Real::new(database.socket_url());
    while_locked(&database, || {
        let outcome = real.backup(&["--lock-wait-timeout", "200ms"]).expect(20);
        let error = outcome.exit_error();
        assert_eq!(error["id"], "lock_timeout");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("held"), "{error}");
    });
    real.backup(&[]).expect(0);
}

#[test]
fn d11_a_refused_login_is_told_at_once() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    for (user, password) in [("keeper", "wrong"), ("nobody_here", "x"), ("keeper", "")] {
        let real = Real::new(server.url_as(user, password, database.name()));
        let outcome = real.backup(&["--attempts", "3"]).expect(12);
        assert_eq!(outcome.exit_error()["id"], "login_refused");
        assert_eq!(outcome.summary()["backups"][0]["attempts"], 1, "{user}");
        assert!(!outcome.stderr().contains("Password"), "{outcome}");
    }
}

#[test]
fn d12_an_unreachable_server_is_tried_again() {
    let sandbox = Sandbox::new();
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = format!(
        "databases: {{shop: {{host: 127.0.0.1, port: {port}, user: u, database: d, retries: {{attempts: 2, delay: 1s}}}}}}\n\
         storages: {{local: {{url: backups}}}}\n"
    );
    sandbox.write("pgkeep.yaml", config);
    let outcome = sandbox.pgkeep(["--json", "backup"]).run().expect(20);
    assert_eq!(outcome.exit_error()["id"], "server_unreachable");
    assert_eq!(outcome.summary()["backups"][0]["attempts"], 2);
    let real = Real::new("postgresql://u@no-such-host.invalid/d".to_owned());
    let outcome = real.backup(&["--attempts", "1"]).expect(20);
    assert_eq!(outcome.exit_error()["id"], "server_unreachable");
}

#[test]
fn d13_a_missing_database_is_not_tried_again() {
    let Some(server) = postgres() else { return };
    let real = Real::new(server.url_as("keeper", crate::support::CANARY, "never_made"));
    let outcome = real.backup(&["--attempts", "3"]).expect(20);
    assert_eq!(outcome.exit_error()["id"], "database_missing");
    assert_eq!(outcome.summary()["backups"][0]["attempts"], 1);
}

#[test]
fn d14_a_missing_program_is_told_before_anything_is_touched() {
    let shop = Shop::new();
    let empty = shop
        .sandbox
        .write("empty/not-pg_dump", "")
        .parent()
        .unwrap()
        .display()
        .to_string();
    let outcome = shop.run(&shop.oracle(), &[]).run().expect(0);
    let before = shop.oracle().before();
    drop(outcome);
    let arguments = [
        "--json",
        "backup",
        "--storage",
        "backups",
        "--bin-dir",
        &empty,
    ];
    let outcome = shop.sandbox.pgkeep(arguments).run().expect(26);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "program_missing");
    assert!(error["details"].to_string().contains(&empty), "{error}");
    shop.oracle().assert_unchanged(&before);
    shop.sandbox.write("empty/pg_dump", "not executable");
    let outcome = shop.sandbox.pgkeep(arguments).run().expect(26);
    assert_eq!(outcome.exit_error()["id"], "program_missing");
}

#[test]
fn d15_a_server_newer_than_its_programs_is_told_up_front() {
    let mut shop = Shop::new();
    let mut newer = facts();
    newer["version_num"] = json!(170_002);
    shop.answer(&newer);
    let outcome = shop.backup(&[]).expect(26);
    assert!(
        outcome
            .exit_error()
            .to_string()
            .contains("postgresql-client-17"),
        "{outcome}"
    );
    let dumped = |call: &Value| !call["argv"].to_string().contains("--version");
    assert!(
        !shop.fake.calls("pg_dump").iter().any(dumped),
        "pg_dump must not start"
    );
}

#[test]
fn a_transaction_pooler_is_known_by_libpqs_variables_too() {
    let shop = Shop::new();
    let oracle = shop.oracle();
    let before = oracle.before();
    let run = shop.run(&oracle, &[]).without_env("DATABASE_URL");
    let outcome = run
        .env("PGHOST", "aws-0-eu.pooler.supabase.com")
        .env("PGPORT", "6543")
        .env("PGDATABASE", "shop")
        .run()
        .expect(20);
    oracle.judge(&before, &outcome);
    assert_eq!(outcome.exit_error()["id"], "transaction_pooler");
    let asked = shop.fake.calls("psql");
    let is_question = |call: &&Value| !call["argv"].to_string().contains("--version");
    assert_eq!(asked.iter().filter(is_question).count(), 0, "{asked:?}");
}

#[test]
fn d16_an_empty_database_must_be_allowed() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let real = Real::new(database.socket_url());
    let outcome = real.backup(&[]).expect(21);
    assert_eq!(outcome.exit_error()["id"], "dump_empty");
    real.backup(&["--allow-empty"]).expect(0);
    let outcome = real
        .backup(&["--allow-empty", "--require", "users"])
        .expect(21);
    assert_eq!(outcome.exit_error()["id"], "required_table_missing");
}

#[test]
fn d17_required_tables_are_all_named_with_the_nearest() {
    let shop = Shop::new();
    shop.backup(&[]).expect(0);
    let required = [
        "--require",
        "user",
        "--require",
        "\"Users\"",
        "--require",
        "invoices",
    ];
    let more = [
        "--require",
        "public.orders",
        "--require",
        "users=4",
        "--require",
        "app.users",
    ];
    let outcome = shop.backup(&[&required[..], &more].concat()).expect(21);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "required_table_missing");
    let backup = &outcome.summary()["backups"][0];
    let found: Vec<Value> = backup["required_tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| json!([table["table"], table["found"], table["rows"]]))
        .collect();
    assert_eq!(found.len(), 6);
    assert_eq!(found[2], json!(["invoices", false, null]));
    assert_eq!(found[3], json!(["public.orders", true, 2]));
    assert_eq!(found[4], json!(["users", true, 3]));
    let storage = &backup["storages"][0];
    assert_eq!(storage["stored"], false, "{backup}");
    assert_eq!(storage["error"], Value::Null, "{backup}");
    assert!(
        error["message"].as_str().unwrap().contains("5 of 6"),
        "{error}"
    );
    let details: Vec<&str> = error["details"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(
        details,
        [
            "`user` is not in the dump; there is `public.users`",
            "`\"Users\"` is not in the dump; there is `public.users`",
            "`invoices` is not in the dump",
            "`users` has 3 rows, but must have at least 4",
            "`app.users` is not in the dump; there is `public.users`",
        ]
    );
    shop.backup(&["--require", "users=3", "--require", "orders"])
        .expect(0);
}

#[test]
fn d18_a_selected_table_that_is_missing_is_an_error() {
    let shop = Shop::new();
    let error = shop
        .backup(&["--table", "users", "--table", "nope", "--schema", "publik"])
        .expect(21)
        .exit_error();
    assert_eq!(error["id"], "selected_table_missing");
    let told = error["details"].to_string();
    assert!(told.contains("table `nope` does not exist"), "{told}");
    assert!(told.contains("did you mean `public`?"), "{told}");
    for flag in ["--exclude-table", "--structure-only"] {
        let error = shop.backup(&[flag, "user"]).expect(21).exit_error();
        assert!(
            error["details"]
                .to_string()
                .contains("did you mean `public.users`?"),
            "{error}"
        );
    }
}

/// `--strict-names` is what refuses a table that went between our look and the dump.
#[test]
fn d18_a_table_that_went_meanwhile_is_an_error_of_pg_dump() {
    let mut shop = Shop::new();
    shop.dumps(json!({
        "stops_after": { "bytes": 0, "exit_code": 1,
            "stderr": "pg_dump: error: no matching tables were found for pattern \"\"public\".\"users\"\"\n" },
    }));
    let outcome = shop.backup(&["--table", "users"]).expect(21);
    assert_eq!(outcome.exit_error()["id"], "selected_table_missing");
    let call = shop.fake.calls("pg_dump").pop().unwrap();
    assert!(
        call["argv"].to_string().contains("--strict-names"),
        "{call}"
    );
}

#[test]
fn d19_a_name_that_is_no_table_does_not_count() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        r#"CREATE SCHEMA app; CREATE TABLE app.users (id int); CREATE TABLE public."Users" (id int);
        CREATE TABLE traps (t text);
        INSERT INTO traps VALUES (E'\nCREATE TABLE public.users (\n    id integer\n);\n'), ('CREATE TABLE public.users (');
        CREATE VIEW users AS SELECT 1 AS id; COMMENT ON TABLE traps IS E'\nCREATE TABLE public.users (\n';
        CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS E'BEGIN\nCREATE TABLE public.users (\n    id integer\n);\nEND';"#,
    );
    let real = Real::new(database.socket_url());
    let error = real.backup(&["--require", "users"]).expect(21).exit_error();
    assert!(
        error["message"].as_str().unwrap().contains("1 of 1"),
        "{error}"
    );
    real.backup(&["--require", "app.users", "--require", "\"Users\""])
        .expect(0);
}

#[test]
fn d21_rows_that_may_not_be_read_fail_the_run() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let role = format!("reader_{}", database.name());
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN; CREATE TABLE open (id int); CREATE TABLE closed (id int); \
         GRANT SELECT ON open TO {role}"
    ));
    let url = database
        .socket_url()
        .replace("keeper@", &format!("{role}@"));
    let real = Real::new(url);
    let error = real.backup(&[]).expect(20).exit_error();
    assert_eq!(error["id"], "permission_denied");
    assert!(error["details"].to_string().contains("closed"), "{error}");
    database.sql(&format!(
        "GRANT SELECT ON closed TO {role}; ALTER TABLE closed ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY p ON closed USING (id > 1)"
    ));
    let error = real.backup(&[]).expect(20).exit_error();
    assert_eq!(error["id"], "row_security");
    real.backup(&["--exclude-table", "closed"]).expect(0);
    database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn d22_one_line_of_700_mb_fits_into_64_mib() {
    let mut shop = Shop::new();
    let mark = shop.sandbox.path("reached");
    // Just before the end, so that the peak lies behind and the process is still there to be asked.
    let stop = json!({ "bytes": 700_000_000, "marks": mark, "sleeps_ms": 700, "resumes": true });
    shop.dumps(json!({ "one_line_bytes": 700_000_000, "stops_after": stop }));
    let oracle = shop.oracle();
    // gzip keeps within the same bounds, but takes half a minute in a debug build.
    let running = shop.run(&oracle, &["--compression", "zstd"]).start();
    running.wait_for_file(&mark);
    std::thread::sleep(Duration::from_millis(200));
    let peak = processes::peak_kib(running.pid());
    let outcome = running.wait().expect(0);
    assert_eq!(outcome.summary()["backups"][0]["rows"], 6);
    if cfg!(target_os = "linux") {
        let peak = peak.expect("a running process has a peak");
        assert!(peak < 64 * 1024, "{peak} KiB");
    }
}

#[test]
fn d22_a_row_too_large_to_print_names_its_table() {
    let said = "pg_dump: error: Dumping the contents of table \"big\" failed: PQgetResult() failed.\n\
                pg_dump: detail: Error message from server: ERROR:  invalid memory alloc request size 1174405123\n\
                pg_dump: detail: Command was: COPY public.big (body) TO stdout;\n";
    let script = json!({ "stops_after": { "bytes": 900, "stderr": said, "exit_code": 1 } });
    let outcome = fault("D22", script, 20, "field_too_large", "public.big").meet();
    assert!(outcome.exit_error()["hints"].to_string().contains("1 GB"));
}

#[test]
fn d23_bytes_of_no_encoding_are_dumped_as_they_are() {
    let Some(server) = postgres() else { return };
    let name = "sql_ascii_d23";
    server.sql("template1", &format!("DROP DATABASE IF EXISTS {name}"));
    server.sql(
        "template1",
        &format!("CREATE DATABASE {name} ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0"),
    );
    server.sql(name, r"SET client_encoding = 'SQL_ASCII'; CREATE TABLE bytes (t text); INSERT INTO bytes VALUES (E'\xff\xfe')");
    let real = Real::new(server.url_as("keeper", crate::support::CANARY, name));
    real.backup(&["--require", "bytes=1"]).expect(0);
    let manifest = real
        .sandbox
        .pgkeep(["--json", "show", "--storage", "backups"])
        .run()
        .expect(0)
        .json();
    assert_eq!(manifest["dump"]["client_encoding"], "SQL_ASCII");
    let get = ["get", "--storage", "backups", "-o", "-"];
    let dump = data::gunzip(&real.sandbox.pgkeep(get).run().expect(0).stdout);
    assert!(memchr::memmem::find(&dump, b"\n\xff\xfe\n").is_some());
    server.sql("template1", &format!("DROP DATABASE {name} WITH (FORCE)"));
}

/// Names that break what quotes carelessly; each is 63 bytes at most.
const NAMES: &[&str] = &[
    "a*",
    "a?",
    "a.b",
    "a$",
    "-Fc",
    "new\nline",
    "quo\"te",
    "a|b",
    "x;--",
    "../x",
    "$HOME",
    "sp  ace ",
    "😀",
    "ab",
    "aXb",
    "sixty_three_bytes_sixty_three_bytes_sixty_three_bytes_sixty_thr",
];

#[test]
fn d24_d25_names_are_literal() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for name in NAMES {
        database.sql(&format!(
            "CREATE TABLE {} (id int); INSERT INTO {} VALUES (1)",
            quoted(name),
            quoted(name)
        ));
    }
    let real = Real::new(database.socket_url());
    let required: Vec<String> = NAMES
        .iter()
        .flat_map(|name| ["--require".to_owned(), quoted(name)])
        .collect();
    let everything: Vec<&str> = required.iter().map(String::as_str).collect();
    let backup = real.backup(&everything).expect(0);
    assert_eq!(backup.summary()["backups"][0]["tables"], NAMES.len());
    let some = [
        "a*",
        "a?",
        "-Fc",
        "new\nline",
        "quo\"te",
        "x;--",
        "../x",
        "$HOME",
        "😀",
        "a.b",
    ];
    let chosen: Vec<String> = some
        .iter()
        .map(|name| format!("--table={}", quoted(name)))
        .collect();
    let flags: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let backup = real.backup(&flags).expect(0);
    let manifest = real.manifest(&backup);
    let mut found: Vec<&str> = manifest["tables"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|t| t["name"].as_str())
        .collect();
    let mut wanted = some;
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert_eq!(
        manifest["selection"]["tables"].as_array().unwrap().len(),
        some.len()
    );
    // `a*` is a table here; without it the same flag finds nothing instead of everything.
    database.sql("DROP TABLE \"a*\"");
    real.backup(&["--table", "\"a*\""]).expect(21);
    // Nor does an unquoted one ever mean everything.
    let error = real.backup(&["--table", "*"]).expect(21).exit_error();
    assert_eq!(error["id"], "selected_table_missing");
}

#[test]
fn d27_a_flood_of_words_blocks_nothing() {
    let mut shop = Shop::new();
    shop.dumps(json!({ "stderr_flood_bytes": 50_000_000 }));
    let outcome = shop.backup(&[]).expect(0);
    assert!(outcome.stderr.len() < 100_000, "{}", outcome.stderr.len());
    let failing =
        json!({ "stderr_flood_bytes": 5_000_000, "exit_code": 1, "last_stderr": "the reason\n" });
    fault("D27", failing, 20, "program_failed", "the reason").meet();
}

#[test]
fn d28_a_program_that_does_not_end_is_ended() {
    let hangs = json!({ "closes_stdout_then_hangs": true, "ignores_sigterm": true });
    let outcome = fault("D28", hangs, 20, "program_hung", "did not end").meet();
    assert!(outcome.took < Duration::from_secs(20), "{outcome}");
}

/// The sandbox proves that the grandchild is gone.
#[test]
fn d28_a_grandchild_that_holds_the_pipe_holds_up_nothing() {
    let mut shop = Shop::new();
    shop.dumps(json!({ "grandchild_ms": 600_000 }));
    let outcome = shop.backup(&[]).expect(0);
    assert!(outcome.took < Duration::from_secs(10), "{outcome}");
    let failing = json!({ "grandchild_ms": 600_000, "exit_code": 1 });
    fault("D28", failing, 20, "program_failed", "status 1").meet();
}

#[test]
fn d29_a_standby_that_cancels_is_tried_again() {
    let mut shop = Shop::new();
    configure(&shop);
    let said = "pg_dump: error: Dumping the contents of table \"t\" failed: PQgetResult() failed.\n\
                pg_dump: detail: Error message from server: ERROR:  canceling statement due to conflict with recovery\n";
    shop.dumps(json!({ "stops_after": { "bytes": 900, "stderr": said, "exit_code": 1 } }));
    let outcome = shop.sandbox.pgkeep(["--json", "backup"]).run().expect(20);
    assert_eq!(outcome.exit_error()["id"], "recovery_conflict");
    assert_eq!(outcome.summary()["backups"][0]["attempts"], 2);
}

/// The catalog was read before; what is told comes from the dump itself.
#[test]
fn d30_the_dump_itself_says_what_is_in_it() {
    let mut shop = Shop::new();
    let mut stale = facts();
    let gone = json!({ "name": "dropped_meanwhile" });
    stale["tables"][0]["name"] = gone["name"].clone();
    shop.answer(&stale);
    let outcome = shop.backup(&["--require", "orders"]).expect(0);
    assert_eq!(outcome.summary()["backups"][0]["tables"], 2);
    let outcome = shop.backup(&["--require", "dropped_meanwhile"]).expect(21);
    assert_eq!(outcome.exit_error()["id"], "required_table_missing");
}

/// The real `pg_dump`, killed while it waits for a lock, so that it is there to be killed.
#[test]
fn d3_the_real_program_killed_by_somebody_else() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let real = Real::new(database.socket_url());
    while_locked(&database, || {
        let oracle = real.oracle();
        let before = oracle.before();
        let running = real.start(&[]);
        let pid = real.wait_for_program(&running, "pg_dump");
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let outcome = running.wait().expect(20);
        oracle.judge(&before, &outcome);
        assert_eq!(outcome.exit_error()["id"], "program_killed");
    });
}

/// A dump with a row that calls itself UTF-8 and is not: stored, because it is all that there is, and told.
#[test]
fn rows_that_are_no_utf8_are_told_and_the_dump_is_kept() {
    let mut shop = Shop::new();
    let mut bytes = b"--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\
        CREATE TABLE public.users (id integer, s text);\nCOPY public.users (id, s) FROM stdin;\n1\tok\n2\tcaf"
        .to_vec();
    bytes.extend(b"\xe9\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n");
    shop.prints(bytes);
    let outcome = shop.run(&shop.oracle(), &[]).run().expect(3);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "rows_not_utf8");
    let details = error["details"].to_string();
    assert!(
        details.contains("1 row of `public.users`") && details.contains("UTF-8"),
        "{error}"
    );
    let verified = shop.over(&["--json", "verify"]).run().expect(0);
    let warnings = verified.summary()["copies"][0]["warnings"].to_string();
    assert!(warnings.contains("UTF-8"), "{verified}");
}

#[test]
fn rows_of_extensions_that_no_dump_holds_are_told() {
    let mut facts = super::facts();
    let member = |name: &str, own: bool, rows: Value| {
        json!({"schema": "miniq", "name": name, "kind": "r", "extension": "miniq", "has_own_rows": own,
            "holds_rows": true, "can_read": true, "estimated_rows": rows})
    };
    facts["others"] = json!([
        member("meta", true, json!(1)),
        member("q_mail", false, json!(500)),
        member("q_new", false, Value::Null),
        {"schema": "miniq", "name": "q_empty", "kind": "r", "extension": "miniq", "has_own_rows": false},
    ]);
    let mut shop = Shop::new();
    shop.answer(&facts);
    let outcome = shop.backup(&[]).expect(0);
    let warnings = outcome.summary()["backups"][0]["warnings"].clone();
    let finding = warnings
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["id"] == "extension_rows");
    let told = finding.expect("it is told")["message"].to_string();
    for part in [
        "miniq.q_mail",
        "about 500 rows",
        "miniq.q_new",
        "pg_extension_config_dump",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(
        !told.contains("meta") && !told.contains("q_empty"),
        "{told}"
    );
    // Whoever leaves it out knows.
    let outcome = shop.backup(&[
        "--exclude-table",
        "miniq.q_mail",
        "--exclude-table",
        "miniq.q_new",
    ]);
    assert!(
        !outcome
            .expect(0)
            .summary()
            .to_string()
            .contains("extension_rows")
    );
    let outcome = shop
        .run(&shop.oracle(), &["--require", "miniq.q_mail"])
        .run()
        .expect(21);
    let details = outcome.exit_error()["details"].to_string();
    assert!(
        details.contains("belongs to the extension `miniq`"),
        "{details}"
    );
}

#[test]
fn a_servers_clock_that_is_off_is_told() {
    let mut facts = super::facts();
    facts["now"] = json!("2020-01-02T03:04:05.678Z");
    let mut shop = Shop::new();
    shop.answer(&facts);
    let outcome = shop.backup(&[]).expect(0);
    let warnings = outcome.summary()["backups"][0]["warnings"].clone();
    assert_eq!(warnings[0]["id"], "clock", "{warnings}");
    let message = warnings[0]["message"].as_str().unwrap();
    assert!(
        message.contains("the clock of the server is") && message.contains(" behind this machine"),
        "{message}"
    );
}

/// What a plain dump's values look like is said to whoever reads them without pgkeep.
#[test]
fn the_line_says_how_money_is_read() {
    let mut facts = super::facts();
    facts["printed"] =
        json!({"bytea_output": "hex", "lc_monetary": "C", "quote_all_identifiers": false});
    let restore = |facts: &Value| {
        let mut shop = Shop::new();
        shop.answer(facts);
        let outcome = shop.backup(&[]).expect(0);
        let line = outcome.summary()["backups"][0]["restore"]
            .as_str()
            .unwrap()
            .to_owned();
        (
            line,
            shop.over(&["--json", "show"]).run().expect(0).json()["server"]["text_form"].clone(),
        )
    };
    let (line, form) = restore(&facts);
    assert!(!line.contains("PGOPTIONS"), "{line}");
    assert_eq!(
        form,
        json!({"bytea_output": "hex", "quote_all_identifiers": false})
    );
    facts["has_money"] = json!(true);
    let (line, form) = restore(&facts);
    assert!(
        line.contains("| PGOPTIONS='-c lc_monetary=C' psql -X"),
        "{line}"
    );
    assert_eq!(form["lc_monetary"], "C");
}

/// What is known of a table is small, and lists of tables share most of it.
#[test]
fn twenty_thousand_tables_fit_into_96_mib() {
    let mut shop = Shop::new();
    let (mut made, mut rows) = (String::new(), String::new());
    for nth in 0..20_000 {
        let name = format!("tenant_{:03}_orders_{nth:05}", nth % 200);
        made += &format!(
            "CREATE TABLE public.{name} (\n    id bigint NOT NULL,\n    customer_id bigint,\n    state text,\n    \
             created_at timestamp with time zone,\n    total numeric,\n    notes jsonb\n);\n\n"
        );
        rows += &format!(
            "COPY public.{name} (id, customer_id, state, created_at, total, notes) FROM stdin;\n\
             1\t2\tx\t2026-01-02 03:04:05+00\t1.5\t{{}}\n\\.\n\n"
        );
    }
    shop.prints(format!(
        "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n{made}{rows}\
         --\n-- PostgreSQL database dump complete\n--\n\n"
    ));
    let running = shop.run(&shop.oracle(), &["--compression", "zstd"]).start();
    let peak = processes::watched_peak_kib(running.pid());
    let outcome = running.wait().expect(0);
    assert_eq!(outcome.summary()["backups"][0]["tables"], 20_000);
    if cfg!(target_os = "linux") {
        assert!(peak > 0 && peak < 96 * 1024, "{peak} KiB");
    }
}

/// A pooler in transaction mode gives two clients one session. It is found while nobody else uses it, and before anything
/// is set in a session that an application meets next.
#[test]
fn a_pooler_that_mixes_sessions_is_found_before_anything_is_set() {
    let mut shop = Shop::new();
    let answers = json!([
        { "contains": "SET ", "text": "set\n", "exit_code": 99 },
        { "contains": "pg_backend_pid( )", "text": "1\n" },
        { "contains": "pg_backend_pid()", "text": "1\n" },
    ]);
    shop.fake.script("psql", json!({ "answers": answers }));
    let outcome = shop.backup(&[]);
    assert_ne!(outcome.code(), 0);
    assert_eq!(
        outcome.exit_error()["id"],
        "transaction_pooler",
        "{outcome}"
    );
}

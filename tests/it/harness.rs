//! The harness itself: its oracles must fail when they should, or no other test proves anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::proxy::{Fault, Proxy};
use crate::support::sandbox::assert_private;
use crate::support::{CANARY, Fake, Sandbox, Server, data, postgres};

/// Runs `test` and returns the words it panicked with.
fn panic_of(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("this must panic");
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| {
        panic
            .downcast_ref::<&str>()
            .copied()
            .unwrap_or("")
            .to_owned()
    })
}

#[test]
fn sandbox_shows_only_its_own_environment() {
    let mut sandbox = Sandbox::new();
    sandbox.set("LATER", "1");
    let run = sandbox
        .program("env", ["-0"])
        .env("MORE", "2")
        .without_env("TMPDIR")
        .run()
        .expect(0);
    let mut names: Vec<&str> = run
        .stdout()
        .split_terminator('\0')
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "LATER", "MORE", "PATH"]);
}

#[test]
fn runs_the_built_binary() {
    let sandbox = Sandbox::new();
    let run = sandbox.pgkeep(["--version"]).run().expect(0);
    assert_eq!(run.signal(), None);
    assert_eq!(run.stderr(), "");
}

#[test]
fn run_gives_input_and_reads_json() {
    let sandbox = Sandbox::new();
    let run = sandbox
        .program("cat", ["-"])
        .stdin("{\"a\": 1}\n{\"message_type\": \"summary\"}\n")
        .run()
        .expect(0);
    assert_eq!(run.json_lines().len(), 2);
    assert_eq!(run.summary()["message_type"], "summary");
    let run = sandbox.program("echo", ["[1]"]).run();
    assert_eq!(run.json(), json!([1]));
    assert!(run.took < Duration::from_secs(30));
}

#[test]
fn exit_error_must_agree_with_the_exit_code() {
    let sandbox = Sandbox::new();
    let object = |code| json!({ "message_type": "exit_error", "code": code }).to_string();
    let script = "echo first >&2; echo \"$1\" >&2; exit 21";
    let run = |code: i32| {
        sandbox
            .program("sh", ["-c", script, "sh", &object(code)])
            .run()
            .expect(21)
    };
    assert_eq!(run(21).exit_error()["code"], 21);
    assert!(panic_of(|| drop(run(20).exit_error())).contains("20"));
}

#[test]
fn hung_program_is_killed_and_told() {
    let sandbox = Sandbox::new();
    let run = sandbox
        .program("sleep", ["100"])
        .limit(Duration::from_millis(50));
    assert!(panic_of(|| drop(run.run())).contains("hung"));
    sandbox.assert_clean(None);
}

#[test]
fn child_left_behind_is_found() {
    let sandbox = Sandbox::new();
    let leave = "sleep 100 >/dev/null 2>&1 &";
    let said = panic_of(|| drop(sandbox.program("sh", ["-c", leave]).run()));
    assert!(
        said.contains("left behind") && said.contains("sleep"),
        "{said}"
    );
    let hold = "sleep 100 &";
    let said = panic_of(|| drop(sandbox.program("sh", ["-c", hold]).run()));
    assert!(said.contains("stays open"), "{said}");
}

#[test]
fn child_in_another_session_is_found_by_its_environment() {
    let sandbox = Sandbox::new();
    let leave = "setsid --fork sleep 100 >/dev/null 2>&1";
    let said = panic_of(|| drop(sandbox.program("sh", ["-c", leave]).run()));
    assert!(said.contains("left behind"), "{said}");
}

#[test]
fn canary_is_found_in_output_files_and_argv() {
    let sandbox = Sandbox::new();
    let echo = ["-c", "echo \"$SECRET\""];
    let said = panic_of(|| drop(sandbox.program("sh", echo).env("SECRET", CANARY).run()));
    assert!(said.contains("stdout holds the secret"), "{said}");
    // Other tests watch for the canary at the same time.
    let own = "a secret of this test alone";
    let sleep = ["-c", "sleep 0.3; :", own];
    let said = panic_of(|| drop(sandbox.program("sh", sleep).watching_argv_for(own).run()));
    assert!(said.contains("an argv holds the secret"), "{said}");
    sandbox.write_secret("allowed", CANARY);
    sandbox.program("true", [""; 0]).run().expect(0);
    sandbox.write("deep/leak", CANARY);
    let said = panic_of(|| drop(sandbox.program("true", [""; 0]).run()));
    assert!(said.contains("deep/leak holds the secret"), "{said}");
}

#[test]
fn private_means_0600_and_0700() {
    let sandbox = Sandbox::new();
    sandbox.write("private", "");
    assert_private(&sandbox.path("")).unwrap();
    sandbox
        .program("mkdir", ["-m", "755", "open"])
        .run()
        .expect(0);
    assert!(panic_of(|| assert_private(&sandbox.path("")).unwrap()).contains("755"));
}

#[test]
fn fake_prints_a_small_whole_dump_and_records_its_calls() {
    let sandbox = Sandbox::new();
    let fake = Fake::install(&sandbox);
    let version = sandbox
        .program(fake.bin().join("pg_dump"), ["--version"])
        .run()
        .expect(0);
    assert_eq!(version.stdout(), "pg_dump (PostgreSQL) 15.18\n");
    let dump = sandbox
        .program("pg_dump", ["-w"])
        .env("PGPASSWORD", CANARY)
        .run()
        .expect(0);
    assert!(
        dump.stdout()
            .starts_with("--\n-- PostgreSQL database dump\n--\n")
    );
    assert!(
        dump.stdout()
            .ends_with("--\n-- PostgreSQL database dump complete\n--\n\n")
    );
    let calls = fake.calls("pg_dump");
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1]["argv"], json!(["-w"]));
    assert_eq!(calls[1]["environment"]["PGPASSWORD"], CANARY);
}

#[test]
fn fake_fails_as_its_script_says() {
    let sandbox = Sandbox::new();
    let mut fake = Fake::install(&sandbox);
    let mut dump = |script| {
        fake.script("pg_dump", script);
        sandbox.program("pg_dump", [""; 0]).run()
    };
    let whole = dump(json!({}));
    let early =
        dump(json!({ "stops_after": { "bytes": 100, "exit_code": 1, "stderr": "gone\n" } }));
    assert_eq!(
        (early.code(), early.stdout.len(), early.stderr()),
        (1, 100, "gone\n")
    );
    let late = dump(json!({ "exit_code": 1, "last_stderr": "too late\n" }));
    assert_eq!((late.code(), &late.stdout), (1, &whole.stdout));
    let killed = dump(json!({ "stops_after": { "bytes": 300, "kills_itself": true } }));
    assert_eq!((killed.signal(), killed.stdout.len()), (Some(9), 300));
    let slow = dump(json!({ "stops_after": { "bytes": 100, "sleeps_ms": 60, "resumes": true } }));
    assert!(slow.took >= Duration::from_millis(60));
    assert_eq!((slow.code(), &slow.stdout), (0, &whole.stdout));
    let warned = dump(json!({ "stderr": "pg_dump: warning: x\n", "sleeps_ms": 1 }));
    assert_eq!(
        (warned.code(), warned.stderr()),
        (0, "pg_dump: warning: x\n")
    );
    assert!(
        !dump(json!({ "no_end_marker": true }))
            .stdout()
            .contains("complete")
    );
    assert_eq!(
        dump(json!({ "zero_bytes": true })).expect(0).stdout.len(),
        0
    );
    assert_eq!(
        dump(json!({ "stderr_flood_bytes": 300_000 })).stderr.len(),
        300_000
    );
    let big = dump(json!({ "one_line_bytes": 1_000_000 }));
    assert!(big.stdout().lines().any(|line| line.len() == 1_000_000));
    assert!(big.stdout().contains("CREATE TABLE public.big"));
    assert_eq!(dump(json!({ "misspelt": 1 })).code(), 99);
}

#[test]
fn fake_streams_a_file() {
    let sandbox = Sandbox::new();
    let mut fake = Fake::install(&sandbox);
    let body = sandbox.write("body.sql", data::whole());
    fake.script("pg_dump", json!({ "body": body }));
    let dump = sandbox.program("pg_dump", [""; 0]).run().expect(0);
    assert_eq!(dump.stdout, data::whole());
}

#[test]
fn fake_hangs_and_holds_pipes_until_killed() {
    let sandbox = Sandbox::new();
    let mut fake = Fake::install(&sandbox);
    fake.script("pg_dump", json!({ "closes_stdout_then_hangs": true }));
    let hung = sandbox
        .program("pg_dump", [""; 0])
        .limit(Duration::from_millis(300));
    assert!(panic_of(|| drop(hung.run())).contains("hung"));
    fake.script("pg_dump", json!({ "grandchild_ms": 60_000 }));
    let said = panic_of(|| drop(sandbox.program("pg_dump", [""; 0]).run()));
    assert!(said.contains("stays open"), "{said}");
}

#[test]
fn fake_ends_by_sigterm_unless_it_ignores_it() {
    let sandbox = Sandbox::new();
    let mut fake = Fake::install(&sandbox);
    let mark = sandbox.path("reached");
    for (ignores, code) in [(false, None), (true, Some(7))] {
        let stop = json!({ "bytes": 10, "marks": mark, "sleeps_ms": 300, "exit_code": 7 });
        fake.script(
            "pg_dump",
            json!({ "ignores_sigterm": ignores, "stops_after": stop }),
        );
        let running = sandbox.program("pg_dump", [""; 0]).start();
        running.wait_for_file(&mark);
        running.signal(Signal::TERM);
        assert_eq!(running.wait().status.code(), code);
        std::fs::remove_file(&mark).unwrap();
    }
}

#[test]
fn fake_psql_answers_commands_and_sessions() {
    let sandbox = Sandbox::new();
    let mut fake = Fake::install(&sandbox);
    let file = sandbox.write("facts.json", "{\"server\": 15}\n");
    let answers = json!([
        { "contains": "facts", "file": file },
        { "contains": "broken", "stderr": "ERROR:  no\n", "exit_code": 3, "sleeps_ms": 1 },
        { "contains": "", "text": "other\n" },
    ]);
    fake.script("psql", json!({ "answers": answers }));
    let facts = sandbox
        .program("psql", ["-X", "-c", "SELECT facts"])
        .run()
        .expect(0);
    assert_eq!(facts.json()["server"], 15);
    let session = "SELECT\n1;\n\\echo done\nSELECT broken;\nSELECT facts;\n";
    let run = sandbox
        .program("psql", ["-X"])
        .stdin(session)
        .run()
        .expect(3);
    assert_eq!(
        (run.stdout(), run.stderr()),
        ("other\ndone\n", "ERROR:  no\n")
    );
}

#[test]
fn fake_psql_keeps_what_it_is_fed() {
    let sandbox = Sandbox::new();
    let mut fake = Fake::install(&sandbox);
    let fed = sandbox.path("fed.sql");
    fake.script("psql", json!({ "saves_stdin": fed, "exit_code": 3 }));
    sandbox
        .program("psql", ["-X"])
        .stdin("SELECT 1;")
        .run()
        .expect(3);
    assert_eq!(std::fs::read_to_string(fed).unwrap(), "SELECT 1;");
    fake.remove("psql");
    assert!(!sandbox.bin().join("psql").exists());
}

#[test]
fn fake_passes_on_to_the_real_program() {
    let Some(server) = postgres() else { return };
    let sandbox = Sandbox::new();
    let mut fake = Fake::install(&sandbox);
    fake.pass_to_real("pg_dump", server.bin());
    let run = sandbox.program("pg_dump", ["--version"]).run().expect(0);
    assert!(run.stdout().starts_with("pg_dump (PostgreSQL) "), "{run}");
    assert_eq!(fake.calls("pg_dump").len(), 1);
}

#[test]
fn server_takes_the_password_over_tcp_and_trusts_its_socket() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 3)");
    let sandbox = Sandbox::new();
    let psql = |url: &str| {
        let query = ["-X", "-w", "-A", "-t", "-c", "SELECT count(*) FROM t"];
        // A URL in argv is what pgkeep must never do; this shell does not see it there either.
        let script = "exec psql -d \"$URL\" \"$@\"";
        let mut arguments = vec!["-c", script, "sh"];
        arguments.extend(query);
        let server_bin = server.bin().display();
        let path = format!("{server_bin}:/usr/bin:/bin");
        sandbox
            .program("sh", arguments)
            .env("URL", url)
            .env("PATH", path)
            .run()
    };
    assert_eq!(psql(&database.url()).expect(0).stdout(), "3\n");
    assert_eq!(psql(&database.socket_url()).expect(0).stdout(), "3\n");
    let wrong = psql(&server.url_as("keeper", "wrong", database.name())).expect(2);
    assert!(
        wrong.stderr().contains("password authentication failed"),
        "{wrong}"
    );
    assert!(server.major() >= 13);
    assert!(server.port() > 0 && server.socket_dir().is_dir());
}

#[test]
fn proxy_passes_cuts_and_stalls() {
    let Some(server) = postgres() else { return };
    let sandbox = Sandbox::new();
    let psql = |proxy: &Proxy| {
        let query = ["-X", "-A", "-t", "-c", "SELECT repeat('x', 1000000)"];
        sandbox
            .program(server.bin().join("psql"), query)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", proxy.port().to_string())
            .env("PGUSER", "keeper")
            .env("PGPASSWORD", CANARY)
            .env("PGDATABASE", "template1")
    };
    let start = |bytes, fault| Proxy::start(server.port(), bytes, fault);
    let whole = psql(&start(u64::MAX, Fault::Cut)).run().expect(0);
    assert_eq!(whole.stdout.len(), 1_000_001);
    let cut = psql(&start(100_000, Fault::Cut)).run().expect(2);
    assert!(cut.stderr().contains("closed the connection"), "{cut}");
    let proxy = start(100_000, Fault::Stall);
    let stalled = psql(&proxy).limit(Duration::from_millis(500));
    assert!(panic_of(|| drop(stalled.run())).contains("hung"));
}

#[test]
fn databases_are_separate_and_dropped() {
    let Some(server) = postgres() else { return };
    let (one, two) = (server.database(), server.database());
    one.load(&data::whole());
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(
        (one.sql(tables), two.sql(tables)),
        ("11".into(), "0".into())
    );
    let name = two.name().to_owned();
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    assert_eq!(one.sql(&count), "1");
    drop(two);
    assert_eq!(one.sql(&count), "0");
    assert!(
        server
            .try_sql(one.name(), "SELECT 1/0")
            .unwrap_err()
            .contains("division by zero")
    );
    one.terminate_backends();
    assert_eq!(one.server().port(), server.port());
}

#[test]
fn private_server_goes_with_its_value() {
    let Some(server) = Server::private() else {
        return;
    };
    let folder = server.socket_dir().to_owned();
    assert_eq!(server.sql("template1", "SELECT 1"), "1");
    drop(server);
    assert!(!folder.exists(), "{} is still there", folder.display());
}

#[test]
fn data_is_what_truth_says() {
    let truths = data::truths();
    assert!(truths.len() > 30, "{}", truths.len());
    for (name, truth) in truths {
        let bytes = data::dump(&name);
        assert_eq!(bytes.len() as u64, truth.bytes, "{name}");
        assert_eq!(format!("{:x}", HexDigest(&bytes)), truth.sha256, "{name}");
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
        let crlf = memchr::memmem::find_iter(&bytes, "\r\n").count();
        // Data may hold a few; a file of that form has them everywhere.
        assert_eq!(crlf * 2 > lines, truth.crlf, "{name}");
        let says = |version: &Option<String>| {
            version
                .as_ref()
                .is_none_or(|version| contains(&bytes, version))
        };
        assert!(says(&truth.server) && says(&truth.pg_dump), "{name}");
        assert_eq!(contains(&bytes, "\n\\restrict "), truth.restrict, "{name}");
        for copy in &truth.copy {
            assert!(copy.terminated && copy.sorted_sha256.len() == 64, "{name}");
        }
    }
}

#[test]
fn truth_of_chinook_reads_as_its_catalog_did() {
    let truths = data::truths();
    let chinook = &truths["public/neon-chinook.sql"];
    assert_eq!((chinook.tables.len(), chinook.copy.len()), (11, 11));
    assert_eq!(
        (
            chinook.tables[0].schema.as_str(),
            chinook.tables[0].name.as_str()
        ),
        ("public", "Album")
    );
    assert_eq!(
        (chinook.tables[0].kw.as_str(), &chinook.tables[0].db),
        ("plain", &None)
    );
    let album = &chinook.copy[0];
    assert_eq!(
        (album.schema.as_str(), album.name.as_str(), album.rows),
        ("public", "Album", 347)
    );
    assert!(chinook.end_marker && !chinook.cluster_end_marker && chinook.restores == "full");
    let cluster = &truths["public/nx-sample-cluster.sql"];
    assert!(cluster.cluster_end_marker && cluster.meta_commands.len() == 4);
    assert_eq!(cluster.copy[0].db.as_deref(), Some("sample"));
    assert!(
        truths["nasty/nasty-15-inserts.sql.gz"]
            .insert_rows
            .values()
            .sum::<u64>()
            > 1000
    );
}

#[test]
fn damaged_dumps_are_told_apart() {
    let damaged = data::damaged();
    let end = "\n-- PostgreSQL database dump complete\n";
    for one in damaged
        .iter()
        .filter(|one| one.is_complete && !one.name.ends_with(".gz"))
    {
        let text = String::from_utf8_lossy(&one.bytes).replace("\r\n", "\n");
        assert!(text.contains(end), "{}: {}", one.name, one.why);
    }
    let cut = damaged.iter().filter(|one| one.name.starts_with("cut-"));
    for one in cut {
        assert!(
            !one.is_complete && !contains(&one.bytes, end),
            "{}: {}",
            one.name,
            one.why
        );
    }
    assert_eq!(data::gunzip(&data::gzip(b"x")), b"x");
    let names: std::collections::BTreeSet<_> = damaged.iter().map(|one| one.name).collect();
    assert_eq!(names.len(), damaged.len());
}

struct HexDigest<'a>(&'a [u8]);

impl std::fmt::LowerHex for HexDigest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Sha256::digest(self.0)
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

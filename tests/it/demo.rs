//! `pgkeep demo`, as a newcomer runs it: to the end, as JSON, and stopped on the way.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::postgres::free_port;
use crate::support::sandbox::{Run, assert_private};
use crate::support::web::send;
use crate::support::{Sandbox, postgres};

/// It makes a server of its own; a machine that builds beside it takes its time.
const LIMIT: Duration = Duration::from_secs(180);

fn demo<'a>(sandbox: &'a Sandbox, arguments: &[&str]) -> Run<'a> {
    sandbox.pgkeep([&["demo"], arguments].concat()).limit(LIMIT)
}

/// Nothing may be left in the folder for temporary files.
fn assert_nothing_left(sandbox: &Sandbox) {
    let left = std::fs::read_dir(sandbox.root().join("tmp")).unwrap();
    assert_eq!(left.count(), 0, "temporary files are left");
}

/// The sample database and its backups on a page, until it is stopped; then nothing is left.
#[test]
fn serves_what_it_made_until_it_is_stopped() {
    if postgres().is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    // A desktop whose browser notes what it is to show.
    let opened = sandbox.path("opened");
    let script = "#!/bin/sh\nprintf %s \"$1\" >opened.new && mv opened.new opened\n";
    let browser = sandbox.bin().join("xdg-open");
    std::fs::write(&browser, script).unwrap();
    std::fs::set_permissions(&browser, Permissions::from_mode(0o755)).unwrap();
    let running = demo(&sandbox, &["--serve", "--listen", &listen])
        .env("DISPLAY", ":7")
        .start();
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < LIMIT, "it never listened");
        std::thread::sleep(Duration::from_millis(100));
    }
    let page = send(port, "GET", "/databases/pagila", &[], "").expect(200);
    assert!(page.text().contains("Could I restore now?"));
    if cfg!(target_os = "linux") {
        running.wait_for_file(&opened);
        let address = std::fs::read_to_string(&opened).unwrap();
        assert_eq!(address, format!("http://{listen}/"));
    }
    running.signal(Signal::INT);
    let outcome = running.wait().expect(0);
    assert!(
        outcome
            .stderr()
            .contains(&format!("open http://{listen}/ in a browser")),
        "{outcome}"
    );
    assert_nothing_left(&sandbox);
}

#[test]
fn walks_to_the_end_and_leaves_what_was_asked_for() {
    if postgres().is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    let run = demo(&sandbox, &["--keep", "kept"]).run().expect(0);
    let said = run.stdout();
    for words in [
        "proven: pg_dump exited with 0, end marker seen, all 2 required tables found",
        "refused with exit code 21: the gzip stream is cut or damaged",
        "every table is restored, all 46,273 rows",
        "in demo: good, ",
        "drill passed",
        "compared: every table is as dumped",
        "pagila_again",
        "2 kept, 1 removed",
        "pgkeep list --storage kept",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    assert!(
        !said.contains("DIFFERENT") && run.stderr().is_empty(),
        "{run}"
    );
    assert_private(&sandbox.path("kept")).unwrap();
    let list = sandbox
        .pgkeep(["list", "--storage", "kept", "--json"])
        .run()
        .expect(0)
        .json();
    let backups = list["backups"].as_array().unwrap();
    assert_eq!((backups.len(), &backups[1]["drilled"]), (2, &true.into()));
    assert_nothing_left(&sandbox);
    assert_server_gone(said);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    if postgres().is_none() {
        return;
    }
    for (signal, code, name) in [(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM")] {
        let sandbox = Sandbox::new();
        let run = demo(&sandbox, &[]).start();
        // The temporary folder is made before the server is.
        let tmp = sandbox.root().join("tmp");
        let started = Instant::now();
        while std::fs::read_dir(&tmp).unwrap().next().is_none() && started.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Somewhere in initdb.
        std::thread::sleep(Duration::from_millis(300));
        run.signal(signal);
        let run = run.wait().expect(code);
        let said = format!("error: the demo: stopped by {name}; nothing is left behind\n");
        assert_eq!(run.stderr(), said);
        assert_nothing_left(&sandbox);
    }
}

/// The script builds, then runs the demo. What `cargo` would build is there already.
#[test]
fn script_builds_it_and_passes_its_flags_on() {
    if postgres().is_none() {
        return;
    }
    let mut sandbox = Sandbox::new();
    let cargo = sandbox.bin().join("cargo");
    std::fs::write(&cargo, "#!/bin/sh\necho \"$@\" >\"$HOME/built\"\n").unwrap();
    std::fs::set_permissions(&cargo, Permissions::from_mode(0o700)).unwrap();
    let target = sandbox.path("target");
    std::fs::create_dir_all(target.join("release")).unwrap();
    symlink(env!("CARGO_BIN_EXE_pgkeep"), target.join("release/pgkeep")).unwrap();
    sandbox.set("CARGO_TARGET_DIR", &target);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo");
    let run = sandbox
        .program(script, ["--json"])
        .limit(LIMIT)
        .run()
        .expect(0);
    // With `--json` the last line is the one that tells; in front of it stand lines of progress only.
    let lines = run.json_lines();
    let (summary, progress) = lines.split_last().unwrap();
    assert!(
        progress.iter().all(|line| line["message_type"] == "status"),
        "{run}"
    );
    let tables = summary["tables"].as_array().unwrap();
    assert_eq!((summary["rows"].as_u64(), tables.len()), (Some(46_273), 21));
    for table in tables {
        assert!(
            table["source_rows"].is_u64() && table["source_rows"] == table["restored_rows"],
            "{table}"
        );
    }
    let built = std::fs::read_to_string(sandbox.root().join("home/built")).unwrap();
    assert_eq!(built, "build --release --bin pgkeep\n");
    assert_nothing_left(&sandbox);
}

/// The second line names the server's folder.
fn assert_server_gone(said: &str) {
    let line = said
        .lines()
        .find(|line| line.contains("PostgreSQL") && line.contains(" in /"));
    let folder = line.and_then(|line| line.rsplit(" in ").next()).unwrap();
    assert!(folder.contains("pgkeep-scratch-"), "{folder}");
    assert!(!Path::new(folder).exists(), "{folder} is left");
}

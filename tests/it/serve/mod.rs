//! `pgkeep serve`: real processes on a real PostgreSQL, asked over HTTP.

mod api;
mod browser;
mod clock;
mod killed;
mod life;
mod metrics;
mod pages;
#[cfg(feature = "sentry")]
mod sentry;
mod slots;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::postgres::{TestDatabase, free_port};
use crate::support::processes;
use crate::support::sandbox::{Outcome, Running};
use crate::support::web::{Answer, send};
use crate::support::{Sandbox, Server, postgres};

/// The tokens of every server here, by their roles.
const READ: &str = "read-read-read-read";
const OPERATE: &str = "operate-operate-operate";
const RESTORE: &str = "restore-restore-restore";
const CRON: &str = "cron-secret-cron-secret";

/// How long anything here may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A database with rows, a sandbox with a configuration for it, and a port.
struct Shop {
    sandbox: Sandbox,
    server: &'static Server,
    database: TestDatabase<'static>,
    port: u16,
}

impl Shop {
    /// Makes one whose database has `keys` beside its URL, and whose server has tokens.
    fn new(keys: &str) -> Option<Self> {
        Self::with(keys, TOKENS)
    }

    fn with(keys: &str, of_server: &str) -> Option<Self> {
        let server = postgres()?;
        let database = server.database();
        database.sql(
            "CREATE TABLE users (id int PRIMARY KEY, name text); \
             INSERT INTO users SELECT g, 'user ' || g FROM generate_series(1, 1000) g; \
             CREATE TABLE \"<b>x</b>\" (id int); INSERT INTO \"<b>x</b>\" VALUES (1)",
        );
        let mut sandbox = Sandbox::new();
        sandbox.set("PGKEEP_TEST_LEASE_TTL_MS", "2000");
        let shop = Self {
            sandbox,
            server,
            database,
            port: free_port(),
        };
        shop.configure(keys, of_server);
        Some(shop)
    }

    fn configure(&self, keys: &str, of_server: &str) {
        let (url, port) = (self.database.socket_url(), self.port);
        let bin = self.server.bin().display();
        let text = format!(
            "databases:\n  shop:\n    url: {url}\n    retries: {{attempts: 1}}\n{keys}\
             storages:\n  local: {{url: ./backups}}\npostgres: {{bin_dir: {bin}}}\n\
             server:\n  listen: 127.0.0.1:{port}\n{of_server}"
        );
        self.sandbox.write_secret("pgkeep.yaml", text);
    }

    /// Reads all run records of a database and verb.
    fn records(&self, database: &str, verb: &str) -> Vec<Value> {
        let folder = self.sandbox.path(format!("backups/{database}/runs"));
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Vec::new();
        };
        let read = |path| serde_json::from_slice::<Value>(&std::fs::read(path).ok()?).ok();
        let all = entries.filter_map(|entry| read(entry.unwrap().path()));
        all.filter(|record| record["verb"] == verb).collect()
    }

    /// Makes the dump wait for a lock that a session holds, so that a run is under way for as long as the test wants.
    fn hold_table(&self) -> impl Drop + use<> {
        struct Held(std::process::Child);
        impl Drop for Held {
            fn drop(&mut self) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
        let mut session = std::process::Command::new(self.server.bin().join("psql"))
            .args(["-qAtX", "-d", &self.database.socket_url()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = session.stdin.take().unwrap();
        writeln!(
            input,
            "BEGIN; LOCK users IN ACCESS EXCLUSIVE MODE; SELECT 'held';"
        )
        .unwrap();
        let mut said = [0; 4];
        session
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        assert_eq!(&said, b"held");
        session.stdin = Some(input);
        Held(session)
    }

    /// Starts a server and waits until it answers.
    fn serve(&self, flags: &[&str]) -> Serving<'_> {
        self.serve_on(self.port, flags)
    }

    fn serve_on(&self, port: u16, flags: &[&str]) -> Serving<'_> {
        let listen = format!("127.0.0.1:{port}");
        let all = [&["serve", "--listen", &listen], flags].concat();
        let running = self.sandbox.pgkeep(all).limit(LIMIT * 3).start();
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < LIMIT, "the server never listened");
            sleep(Duration::from_millis(20));
        }
        let root = self.sandbox.root().to_owned();
        Serving {
            running,
            port,
            root,
        }
    }
}

/// What every server here has.
const TOKENS: &str = "  tokens:\n    - {name: wall, role: read, token: read-read-read-read}\n    \
    - {name: ci, role: operate, token: operate-operate-operate}\n    \
    - {name: me, role: restore, token: restore-restore-restore}\n  \
    cron: {secret: cron-secret-cron-secret, min_interval: 1h}\n  view_key: wall-view-key-of-16\n";

/// A server that runs.
struct Serving<'a> {
    running: Running<'a>,
    port: u16,
    root: PathBuf,
}

impl Serving<'_> {
    fn ask(&self, method: &str, target: &str, token: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        send(self.port, method, target, &headers, body)
    }

    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, READ, "")
    }

    /// Asks for a run, and returns its id.
    fn start(&self, kind: &str) -> String {
        let target = format!("/api/v1/{kind}");
        let answer = self.ask("POST", &target, OPERATE, r#"{"database": "shop"}"#);
        let asked = answer.expect(202).json();
        asked["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a run has ended, and returns it.
    #[track_caller]
    fn wait_for(&self, id: &str) -> Value {
        self.wait_until(id, |run| {
            !matches!(run["state"].as_str(), Some("queued" | "running"))
        })
    }

    #[track_caller]
    fn wait_until(&self, id: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let run = self.get(&format!("/api/v1/runs/{id}")).expect(200).json();
            if is_it(&run) {
                return run;
            }
            assert!(began.elapsed() < LIMIT, "it never came: {run:#}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Ends the server as a service manager does.
    fn end(self) -> Outcome {
        self.running.signal(Signal::TERM);
        self.running.wait()
    }

    /// Kills it and its programs, as a machine that loses its power does.
    fn kill(self) {
        let children = processes::of_sandbox(Some(self.running.pid()), &self.root);
        self.running.signal(Signal::KILL);
        processes::kill(&children);
        self.running.wait();
    }
}

/// Ends two servers of one sandbox, in which nothing may be left behind.
fn end_both(one: Serving<'_>, other: Serving<'_>) {
    let began = Instant::now();
    for serving in [&one, &other] {
        serving.running.signal(Signal::TERM);
    }
    let is_open = |serving: &Serving<'_>| {
        processes::of_sandbox(Some(serving.running.pid()), &serving.root)
            .iter()
            .any(|process| process.command.contains(" serve"))
    };
    while is_open(&one) || is_open(&other) {
        assert!(began.elapsed() < LIMIT, "a server did not end");
        sleep(Duration::from_millis(20));
    }
    for serving in [one, other] {
        serving.running.wait().expect(0);
    }
}

//! `pgkeep backup` as people run it: the built binary, faults on every side, and the oracle after each run.
//!
//! `shop` is made of fakes and takes tens of milliseconds; what needs PostgreSQL's own behaviour asks the real one.

mod dump;
mod jobs;
mod life;
mod limits;
mod lock;
mod real;
mod secrets;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::postgres::TestDatabase;
use crate::support::processes;
use crate::support::sandbox::{Outcome, Run, Running};
use crate::support::secret::percent_encoded;
use crate::support::{CANARY, Fake, Oracle, Place, S3Server, Sandbox};

/// A sandbox with scripted programs and a database `shop` behind them, reached with the canary as password.
pub struct Shop {
    pub sandbox: Sandbox,
    pub fake: Fake,
}

impl Shop {
    pub fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let url = format!(
            "postgresql://app:{}@db.invalid/shop",
            percent_encoded(CANARY)
        );
        sandbox.set("DATABASE_URL", url);
        let fake = Fake::install(&sandbox);
        let mut shop = Self { sandbox, fake };
        shop.answer(&facts());
        shop
    }

    /// A shop that stores into a bucket: it has the key in its environment.
    pub fn with_key(server: &S3Server) -> Self {
        let mut shop = Self::new();
        for (name, value) in server.environment() {
            shop.sandbox.set(name, value);
        }
        shop
    }

    /// Lets the server tell these facts of itself.
    pub fn answer(&mut self, facts: &Value) {
        self.fake
            .script("psql", json!({ "answers": answers(facts) }));
    }

    /// Scripts the next dumps.
    pub fn dumps(&mut self, script: Value) -> &mut Self {
        self.fake.script("pg_dump", script);
        self
    }

    /// Lets the next dumps print this text.
    pub fn prints(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let body = self.sandbox.write("body.sql", text);
        self.dumps(json!({ "body": body }))
    }

    pub fn folder(&self) -> PathBuf {
        self.sandbox.path("backups")
    }

    pub fn oracle(&self) -> Oracle<'_> {
        Oracle::new(&self.sandbox, vec![Place::Folder(self.folder())])
    }

    pub fn oracle_of<'a>(&'a self, server: &'a S3Server) -> Oracle<'a> {
        Oracle::new(&self.sandbox, vec![Place::Bucket(server)])
    }

    /// Prepares `pgkeep --json backup` with the fakes, tried once.
    pub fn run(&self, oracle: &Oracle<'_>, more: &[&str]) -> Run<'_> {
        let bin = self.fake.bin().display().to_string();
        let fixed = ["--json", "backup", "--attempts", "1", "--bin-dir", &bin];
        let flags = oracle.flags();
        let all = fixed.into_iter().map(str::to_owned).chain(flags);
        self.sandbox
            .pgkeep(all.chain(more.iter().map(|&flag| flag.to_owned())))
    }

    /// Backs up into an oracle's storages, which then judges.
    #[track_caller]
    pub fn backup_to(&self, oracle: &Oracle<'_>, more: &[&str]) -> Outcome {
        let before = oracle.before();
        let outcome = self.run(oracle, more).run();
        oracle.judge(&before, &outcome);
        outcome
    }

    /// Backs up into the folder, judged.
    #[track_caller]
    pub fn backup(&self, more: &[&str]) -> Outcome {
        self.backup_to(&self.oracle(), more)
    }

    /// Runs another command over the folder.
    pub fn over(&self, command: &[&str]) -> Run<'_> {
        let folder = self.folder().display().to_string();
        let arguments = command.iter().copied().chain(["--storage", &folder]);
        self.sandbox.pgkeep(arguments)
    }
}

/// What the fake server tells of itself: 15.18, UTF-8, `public.users` and `public.orders`.
pub fn facts() -> Value {
    let table = |name: &str| {
        json!({
            "schema": "public", "name": name, "kind": "r", "is_unlogged": false, "estimated_rows": 3,
            "estimated_bytes": 8192, "row_security": false, "row_security_forced": false,
            "row_security_applies": false, "can_read": true, "parents": [],
        })
    };
    json!({
        "version": "15.18", "version_num": 150_018, "is_standby": false, "system_identifier": "7", "user": "app",
        "is_superuser": false, "bypasses_row_security": false,
        "database": {
            "name": "shop", "oid": 16_384, "owner": "app", "encoding": "UTF8", "settings": [], "comment": null,
            "collate": "C", "ctype": "C", "locale_provider": "c", "locale": null, "acl": null,
            "connection_limit": -1, "tablespace": "pg_default", "size_bytes": 8_000_000,
        },
        "extensions": [], "schemas": ["public"], "tables": [table("orders"), table("users")],
    })
}

/// The fake `psql`'s answers to the question for facts.
pub fn answers(facts: &Value) -> Value {
    json!([
        { "contains": "jsonb_build_object", "text": format!("{facts}\n") },
        { "contains": "pg_backend_pid()", "text": "1\n" },
    ])
}

#[test]
fn a_shop_is_backed_up() {
    let shop = Shop::new();
    let outcome = shop.backup(&["--require", "users=3"]).expect(0);
    let backup = &outcome.summary()["backups"][0];
    assert_eq!((&backup["rows"], &backup["tables"]), (&json!(5), &json!(2)));
}

/// RFC 3339 in UTC, to the millisecond at most, in every document.
#[test]
fn moments_are_short_and_in_utc() {
    let shop = Shop::new();
    let outcome = shop.backup(&[]).expect(0);
    let list = shop.over(&["--json", "list"]).run().expect(0).json();
    let show = shop.over(&["--json", "show"]).run().expect(0).json();
    for moment in [
        &outcome.summary()["backups"][0]["started_at"],
        &list["backups"][0]["started_at"],
        &show["started_at"],
        &show["finished_at"],
    ] {
        let text = moment.as_str().unwrap();
        let time = text.strip_suffix('Z').unwrap();
        let (_, time) = time.split_once('T').unwrap();
        let digits = time.split_once('.').map_or("", |(_, digits)| digits);
        assert!(digits.len() <= 3 && time.len() >= 8, "{text}");
    }
}

/// A sandbox that backs up a real database into a folder.
pub struct Real {
    pub sandbox: Sandbox,
}

impl Real {
    pub fn new(url: String) -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.set("DATABASE_URL", url);
        Self { sandbox }
    }

    pub fn folder(&self) -> PathBuf {
        self.sandbox.path("backups")
    }

    pub fn oracle(&self) -> Oracle<'_> {
        Oracle::new(&self.sandbox, vec![Place::Folder(self.folder())])
    }

    /// Prepares `pgkeep --json backup` into the folder, tried once unless `more` says otherwise.
    pub fn run(&self, more: &[&str]) -> Run<'_> {
        let flags = self.oracle().flags();
        let mut all = vec!["--json".to_owned(), "backup".to_owned()];
        all.extend(flags);
        all.extend(more.iter().map(|&flag| flag.to_owned()));
        if !more.contains(&"--attempts") {
            all.extend(["--attempts".to_owned(), "1".to_owned()]);
        }
        self.sandbox.pgkeep(all)
    }

    pub fn start(&self, more: &[&str]) -> Running<'_> {
        self.run(more).start()
    }

    /// Backs up into the folder, judged.
    #[track_caller]
    pub fn backup(&self, more: &[&str]) -> Outcome {
        let oracle = self.oracle();
        let before = oracle.before();
        let outcome = self.run(more).run();
        oracle.judge(&before, &outcome);
        outcome
    }

    /// Returns the manifest of the only backup of a run.
    pub fn manifest(&self, outcome: &Outcome) -> Value {
        let key = outcome.summary()["backups"][0]["manifest_key"].clone();
        let path = self.folder().join(key.as_str().unwrap());
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Waits until a program of this name runs for the sandbox, and returns its id.
    pub fn wait_for_program(&self, running: &Running<'_>, name: &str) -> i32 {
        let is_it = |command: &str| {
            let program = command.split(' ').next().unwrap_or_default();
            program.rsplit('/').next() == Some(name) && !command.contains("--version")
        };
        for _ in 0..10_000 {
            let found = processes::of_sandbox(Some(running.pid()), self.sandbox.root());
            if let Some(process) = found.iter().find(|process| is_it(&process.command)) {
                return process.pid;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("`{name}` never ran");
    }
}

/// Makes a table `held`, and runs `test` while another session has it for itself.
pub fn while_locked(database: &TestDatabase<'_>, test: impl FnOnce()) {
    database.sql("CREATE TABLE held (id int)");
    let hold = "BEGIN; LOCK TABLE held IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(30)";
    let is_held = "SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass \
                   AND mode = 'AccessExclusiveLock' AND granted";
    std::thread::scope(|scope| {
        // Ends with its session, below, which is what it says then.
        scope.spawn(|| database.server().try_sql(database.name(), hold));
        while database.sql(is_held) == "0" {
            std::thread::sleep(Duration::from_millis(10));
        }
        test();
        database.terminate_backends();
    });
}

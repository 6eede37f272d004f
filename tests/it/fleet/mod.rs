//! Many databases and workers that share them: real processes on a real PostgreSQL.

mod due;
mod oldest;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::support::postgres::TestDatabase;
use crate::support::{Sandbox, postgres};

/// A sandbox with a configuration of several databases, all of which are one and the same on the server.
struct Fleet {
    sandbox: Sandbox,
    _database: TestDatabase<'static>,
}

impl Fleet {
    /// Makes one of `count` databases `t0`, `t1` and so on, each with `keys`.
    fn new(count: usize, keys: &str) -> Option<Self> {
        let server = postgres()?;
        let database = server.database();
        database
            .sql("CREATE TABLE users (id int); INSERT INTO users SELECT generate_series(1, 50)");
        let mut sandbox = Sandbox::new();
        sandbox.set("PGKEEP_TEST_LEASE_TTL_MS", "2000");
        let (url, bin) = (database.socket_url(), server.bin().display());
        let mut text = format!(
            "postgres: {{bin_dir: {bin}}}\nstorages:\n  local: {{url: ./backups}}\n\
             defaults:\n  retries: {{attempts: 1}}\n  retention: {{keep_last: 3}}\n{keys}databases:\n"
        );
        for number in 0..count {
            writeln!(text, "  t{number}: {{url: '{url}'}}").expect("a text takes a line");
        }
        sandbox.write_secret("pgkeep.yaml", text);
        Some(Self {
            sandbox,
            _database: database,
        })
    }

    /// Counts the records of a verb by database and slot.
    fn slots(&self, verb: &str) -> BTreeMap<(String, String), Vec<Value>> {
        slots(&self.sandbox.path("backups"), verb)
    }
}

fn slots(backups: &Path, verb: &str) -> BTreeMap<(String, String), Vec<Value>> {
    let mut found: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for folder in std::fs::read_dir(backups).into_iter().flatten() {
        let runs = folder.unwrap().path().join("runs");
        for file in std::fs::read_dir(runs).into_iter().flatten() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let record: Value = serde_json::from_slice(&bytes).unwrap();
            if record["verb"] == verb {
                let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
                let of = (text("database"), text("slot"));
                found.entry(of).or_default().push(record);
            }
        }
    }
    found
}

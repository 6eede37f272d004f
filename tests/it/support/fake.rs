//! Scripted stand-ins for PostgreSQL's client programs: `crates/testing/src/bin/fake_pg.rs` under their names, with a script.
//!
//! The keys of a script are the fields of `Script` there; an unknown one fails the run with 99.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Sandbox, program};

/// The names that the fake is put under.
const PROGRAMS: [&str; 4] = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];

/// Version that every program tells unless the script says otherwise.
const VERSION: &str = "15.18";

/// A folder of fakes, the sandbox's `bin`, so that PATH finds them first; `postgres.bin_dir` may point at it too.
pub struct Fake {
    bin: PathBuf,
    record: PathBuf,
    scripts: Map<String, Value>,
}

impl Fake {
    /// Puts fakes into the sandbox: each tells its version and records its calls, `pg_dump` prints a small whole dump.
    pub fn install(sandbox: &Sandbox) -> Self {
        let bin = sandbox.bin();
        for name in PROGRAMS {
            link(&program("fake_pg"), &bin.join(name));
            // Megabytes of our own code: nothing to search after each run.
            sandbox.may_hold_secret(&bin.join(name));
        }
        let record = bin.join("record.jsonl");
        // The password reaches the programs by environment, so the record holds it.
        sandbox.may_hold_secret(&record);
        let mut fake = Self {
            bin,
            record,
            scripts: Map::new(),
        };
        for program in PROGRAMS {
            fake.script(program, json!({}));
        }
        fake
    }

    /// Returns the folder with the programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Sets what a program does, from the next run on: `json!({ "stops_after": { "bytes": 100, "exit_code": 1 } })`.
    pub fn script(&mut self, program: &str, mut script: Value) -> &mut Self {
        let keys = script.as_object_mut().expect("a script is an object");
        keys.entry("version").or_insert(VERSION.into());
        keys.entry("record")
            .or_insert(self.record.to_string_lossy().into());
        self.scripts.insert(program.to_owned(), script);
        let text = serde_json::to_vec_pretty(&self.scripts).expect("a script is JSON");
        // By rename: a program that starts now reads the old one or the new one.
        let draft = self.bin.join("fake.json.new");
        fs::write(&draft, text).expect("the sandbox can be written");
        fs::rename(draft, self.bin.join("fake.json")).expect("the sandbox can be written");
        self
    }

    /// Lets a program run the real one of the same name where no answer of its script matches.
    pub fn pass_to_real(&mut self, program: &str, real_bin: &Path) -> &mut Self {
        let real = real_bin.join(program);
        self.script(program, json!({ "version": null, "proxy": real }))
    }

    /// Returns the calls so far, in order: `program`, `argv`, `environment`, `cwd`, `pid`.
    pub fn calls(&self, program: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.record).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("the fake writes JSON lines"))
            .filter(|call: &Value| call["program"] == program)
            .collect()
    }

    /// Takes a program away, as if it were not installed.
    pub fn remove(&self, program: &str) {
        fs::remove_file(self.bin.join(program)).expect("the fake is there");
    }
}

/// A hard link, not a symbolic one: the program must see its own folder, where its script lies.
fn link(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).expect("the fake can be copied");
    }
}

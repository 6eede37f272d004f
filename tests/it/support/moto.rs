//! A real S3 server as a process that knows versions, object lock and rights, which the one in the test process does not.
//!
//! It is Python's `moto`, which `scripts/test` installs beside the build; a test that lacks it says so and skips.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::{CANARY, skip};

/// Rights of a key that may do everything that pgkeep does.
pub const ALL: &[&str] = &["s3:*"];

/// Rights of a key that may write and read, and not delete.
pub const WITHOUT_DELETE: &[&str] = &["s3:PutObject", "s3:GetObject", "s3:ListBucket"];

/// What a bucket does with what is written and removed.
#[derive(Clone, Copy)]
pub enum Keeps {
    /// The newest version alone.
    Nothing,
    /// Older versions.
    Versions,
    /// Every version, locked for so many days.
    Locked(u32),
}

/// A running server with one bucket and one key. Dropping it ends it.
pub struct Moto {
    /// Where it answers.
    pub endpoint: String,
    /// Id of the key; its secret is the canary.
    pub access_key: String,
    child: Child,
    answers: RefCell<BufReader<ChildStdout>>,
}

impl Moto {
    /// Starts a server whose key has these rights. None where the machine lacks it.
    pub fn start(keeps: Keeps, rights: &[&str]) -> Option<Self> {
        let python = python()?;
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/moto_s3.py");
        let mut command = Command::new(python);
        command.arg(server).env("S3_SECRET", CANARY);
        match keeps {
            Keeps::Nothing => {}
            Keeps::Versions => drop(command.arg("--versions")),
            Keeps::Locked(days) => drop(command.args(["--lock-days", &days.to_string()])),
        }
        for right in rights {
            command.args(["--allow", right]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let started = answer(&mut answers);
        Some(Self {
            endpoint: format!("http://127.0.0.1:{}", started["port"]),
            access_key: started["access_key"].as_str().unwrap().to_owned(),
            child,
            answers: RefCell::new(answers),
        })
    }

    /// Returns every version and delete marker of the bucket.
    pub fn versions(&self) -> Vec<Value> {
        let mut stdin = self.child.stdin.as_ref().unwrap();
        stdin.write_all(b"versions\n").unwrap();
        let found = answer(&mut *self.answers.borrow_mut());
        found.as_array().unwrap().clone()
    }

    /// Returns the keys that a listing shows, sorted.
    pub fn keys(&self) -> Vec<String> {
        let versions = self.versions().into_iter();
        let shown = versions.filter(|one| one["is_latest"] == true && one["is_marker"] != true);
        let mut keys: Vec<String> = shown
            .map(|one| one["key"].as_str().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    }

    /// Returns the section `storages` of a configuration whose bucket this is, with more keys for it.
    pub fn storages(&self, more: &str) -> String {
        format!(
            "storages:\n  offsite:\n    url: s3://acme-backups/pg\n    endpoint: {}\n    access_key_id: {}\n    \
             secret_access_key: ${{S3_SECRET}}\n{more}",
            self.endpoint, self.access_key
        )
    }
}

fn answer(answers: &mut impl BufRead) -> Value {
    let mut line = String::new();
    answers.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It ends with its standard input; this is for one that does not.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the Python that has `moto`: `scripts/test` makes it beside the build.
fn python() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_pgkeep")).ancestors().nth(2)?;
    let python = target.join("tools/moto/bin/python3");
    if !python.is_file() {
        skip("there is no S3 server with versions and locks: `scripts/test` installs moto");
        return None;
    }
    Some(python)
}

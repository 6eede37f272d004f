//! A clock of its own for the programs of a sandbox, which can be set while they run: Debian's libfaketime.
//!
//! Only the wall clock is another one. Monotonic time goes on as it does, as on a machine whose clock is set. PostgreSQL's
//! server runs outside and goes by the machine's.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use tempfile::TempDir;

use super::{Sandbox, skip};

/// A clock. Its file must outlive the programs that go by it.
pub struct Clock {
    library: PathBuf,
    folder: TempDir,
}

impl Clock {
    /// Makes one that shows `now`; none where libfaketime is missing.
    pub fn showing(now: Timestamp) -> Option<Self> {
        let Some(library) = library() else {
            skip("libfaketime is not there; scripts/test installs it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let clock = Self { library, folder };
        clock.set(now);
        Some(clock)
    }

    /// Gives it to every later program of a sandbox.
    pub fn give(&self, sandbox: &mut Sandbox) {
        sandbox.set("LD_PRELOAD", &self.library);
        sandbox.set("FAKETIME_TIMESTAMP_FILE", self.file());
        // Otherwise the file is read every ten seconds.
        sandbox.set("FAKETIME_NO_CACHE", "1");
        sandbox.set("DONT_FAKE_MONOTONIC", "1");
        // Files have the times of the machine, and go on having them.
        sandbox.set("NO_FAKE_STAT", "1");
    }

    /// Sets it. It goes on from there.
    pub fn set(&self, now: Timestamp) {
        let ahead = now.duration_since(Timestamp::now()).as_secs_f64();
        let next = self.folder.path().join("next");
        fs::write(&next, format!("{ahead:+.3}\n")).unwrap();
        // No program reads half of it.
        fs::rename(next, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }
}

/// Finds the variant for programs with threads, in the folder of whichever architecture this is.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut paths = folders.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.is_file())
}

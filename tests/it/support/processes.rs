//! Which processes a run left behind, and what stood in their argv (oracles O5 and O6), read from `/proc`.
//!
//! Elsewhere than on Linux both answers are empty.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// A killed child needs a moment to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// One process that belongs to a sandbox.
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its argv, joined with spaces.
    pub command: String,
}

/// Prints as `ps` would: pid and argv.
impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.command)
    }
}

/// Returns the processes of a sandbox: of the session, or with the folder in their argv, environment, cwd or program.
///
/// A child may change its process group, its cwd or its environment; it will hardly change all of them.
pub fn of_sandbox(session: Option<i32>, folder: &Path) -> Vec<Process> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let me = std::process::id().cast_signed();
    all()
        .filter(|pid| *pid != me)
        .filter_map(|pid| {
            let stat = Stat::read(pid)?;
            let belongs = stat.is_alive && (session == Some(stat.session) || mentions(pid, needle));
            belongs.then(|| Process {
                pid,
                command: command(pid),
            })
        })
        .collect()
}

/// Panics when processes of the sandbox outlive their run.
pub fn assert_none_left(session: Option<i32>, folder: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = of_sandbox(session, folder);
        if left.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            kill(&left);
            panic!("processes were left behind: {left:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills what is left of a run, so that one failed test does not disturb the others.
pub fn kill(processes: &[Process]) {
    for process in processes {
        if let Some(pid) = rustix::process::Pid::from_raw(process.pid) {
            // Already gone is as good.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Returns every argv that can be read at this moment, as any user of the machine sees them.
pub fn every_argv() -> Vec<Vec<u8>> {
    all()
        .filter_map(|pid| fs::read(file(pid, "cmdline")).ok())
        .collect()
}

struct Stat {
    session: i32,
    is_alive: bool,
}

impl Stat {
    /// Fields as in proc_pid_stat(5); the name in parentheses may hold anything, so it is skipped from its end.
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(file(pid, "stat")).ok()?;
        let rest = text.rsplit_once(')')?.1;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        Some(Self {
            session: fields.nth(2)?.parse().ok()?,
            is_alive: state != "Z" && state != "X",
        })
    }
}

fn all() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn mentions(pid: i32, needle: &[u8]) -> bool {
    let texts = ["environ", "cmdline"].map(|name| fs::read(file(pid, name)).unwrap_or_default());
    let links = ["cwd", "exe"].map(|name| fs::read_link(file(pid, name)).unwrap_or_default());
    texts
        .iter()
        .map(Vec::as_slice)
        .chain(links.iter().map(|link| link.as_os_str().as_encoded_bytes()))
        .any(|bytes| memchr::memmem::find(bytes, needle).is_some())
}

fn command(pid: i32) -> String {
    let argv = fs::read(file(pid, "cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&argv).replace('\0', " ")
}

fn file(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// Reads the peak resident size of a process that still runs, in KiB.
pub fn peak_kib(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Watches a process to its end, and returns its peak resident size in KiB.
pub fn watched_peak_kib(pid: i32) -> u64 {
    let mut peak = 0;
    while let Some(now) = peak_kib(pid) {
        peak = now;
        thread::sleep(Duration::from_millis(2));
    }
    peak
}

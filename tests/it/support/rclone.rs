//! The real rclone, and real SFTP servers for it to talk to: OpenSSH's `sshd`, run as whoever runs the tests.
//!
//! `scripts/test` installs both; a test that lacks them says so and skips.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::postgres::free_port;
use super::skip;

/// A cold machine that builds beside the tests takes its time.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Returns the program, or tells why there is none (the test then returns).
pub fn rclone() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_BIN_EXE_pgkeep"));
    let target = built
        .ancestors()
        .nth(2)
        .expect("programs lie in the target folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = [target.join("tools/rclone")]
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("rclone"))
        .find(|program| program.is_file());
    if found.is_none() {
        skip("`rclone` is not installed (`scripts/test` installs it)");
    }
    found
}

/// A running server, which knows one key. Dropping it ends it and every session of it.
pub struct Sshd {
    port: u16,
    folder: TempDir,
    server: Child,
}

impl Sshd {
    /// Starts one, or tells why there is none.
    pub fn start() -> Option<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.is_file() {
            skip("`sshd` is not installed (`scripts/test` installs it)");
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("pgkeep-sshd-")
            .tempdir()
            .unwrap();
        let here = |name: &str| folder.path().join(name);
        for name in ["host", "user", "other"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(here(name))
                .status();
            assert!(made.unwrap().success());
        }
        fs::copy(here("user.pub"), here("authorized")).unwrap();
        let port = free_port();
        let host_key = fs::read_to_string(here("host.pub")).unwrap();
        fs::write(here("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n\
             Subsystem sftp internal-sftp\n",
            here("host").display(),
            here("authorized").display(),
        );
        fs::write(here("config"), config).unwrap();
        fs::create_dir(here("files")).unwrap();
        if rustix::process::geteuid().is_root() {
            // As an ordinary user it needs none.
            fs::create_dir_all("/run/sshd").unwrap();
            fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
        }
        let log = fs::File::create(here("log")).unwrap();
        // Ended with its sessions by `Drop`.
        let server = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(here("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let sshd = Self {
            port,
            folder,
            server,
        };
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(sshd.folder.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "sshd did not start: {log}");
            thread::sleep(Duration::from_millis(20));
        }
        Some(sshd)
    }

    /// Returns the settings that lead here, but for the key.
    pub fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("host", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("user", user()),
            ("known_hosts_file", self.file("known")),
            ("shell_type", "none".to_owned()),
        ]
    }

    /// Returns a remote that needs no configuration file, with its files below [`Sshd::files`].
    pub fn remote(&self) -> String {
        self.remote_with("user")
    }

    /// The same with a key that the server does not know.
    pub fn stranger(&self) -> String {
        self.remote_with("other")
    }

    fn remote_with(&self, key: &str) -> String {
        let settings = self
            .settings()
            .map(|(name, value)| format!("{name}={value}"))
            .join(",");
        format!(
            ":sftp,{settings},key_file={}:{}",
            self.file(key),
            self.files().display()
        )
    }

    /// Returns the file of the key that it knows.
    pub fn key_file(&self) -> String {
        self.file("user")
    }

    /// Returns the folder that the remote is.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Sends a signal to the server and all its sessions, which are groups of their own.
    pub fn signal(&self, signal: Signal) {
        let mut all = vec![self.server.id().cast_signed()];
        let pairs = parents();
        let mut at = 0;
        while at < all.len() {
            let children = pairs.iter().filter(|(_, parent)| *parent == all[at]);
            all.extend(children.map(|(pid, _)| *pid).collect::<Vec<_>>());
            at += 1;
        }
        for pid in all {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), signal); // one may have ended meanwhile
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.server.wait(); // it was just killed
    }
}

/// Returns every process with its parent.
fn parents() -> Vec<(i32, i32)> {
    let output = Command::new("ps")
        .args(["-A", "-o", "pid=,ppid="])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pair = |line: &str| {
        let mut words = line.split_whitespace().map(|word| word.parse().unwrap());
        (words.next().unwrap(), words.next().unwrap())
    };
    text.lines().map(pair).collect()
}

/// Returns the name of whoever runs the tests.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

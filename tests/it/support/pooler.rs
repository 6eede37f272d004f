//! A real PgBouncer in front of a server, which ends with the test.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin};
use std::thread;
use std::time::{Duration, Instant};

use super::postgres::{Owner, Server, USER, free_port, guarded};
use super::skip;

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running pooler that lets everybody in as the server's superuser.
pub struct Pooler {
    port: u16,
    guard: Child,
    /// Its end is the guard's signal.
    alive: Option<ChildStdin>,
}

impl Pooler {
    /// Starts one in this mode, `session` or `transaction`; `None` after telling why there is none.
    pub fn start(server: &Server, mode: &str) -> Option<Self> {
        let Some(program) = program() else {
            skip("PgBouncer is not installed (`scripts/test` installs it)");
            return None;
        };
        let folder = tempfile::Builder::new()
            .prefix("pgkeep-pooler-")
            .tempdir_in("/tmp")
            .expect("/tmp can be written")
            .keep();
        let (owner, port) = (Owner::find(), free_port());
        let settings = format!(
            "[databases]\n* = host={} port={} user={USER}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\n",
            server.socket_dir().display(),
            server.port()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings).expect("the folder is ours");
        owner.give(&folder);
        owner.give(&file);
        let mut command = guarded(&folder, "TERM", &owner);
        command.arg(program).arg("-q").arg(&file);
        let mut guard = command.spawn().expect("sh can be started");
        let alive = guard.stdin.take();
        let pooler = Self { port, guard, alive };
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not start");
            thread::sleep(Duration::from_millis(10));
        }
        Some(pooler)
    }

    /// Returns a URL that leads through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{USER}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.alive.take();
        let _ = self.guard.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
}

//! Real throw-away PostgreSQL servers: one shared by all tests of a process, private ones for tests that break theirs.
//!
//! A guard process owns each server and stops it when the pipe to this process closes, so that none outlives its
//! tests, however they end. Trusts its unix socket; wants the password (the canary) over TCP.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::secret::{CANARY, percent_encoded};
use super::skip;

/// Superuser of the servers. Not `postgres`, so that nothing works by that name alone.
pub const USER: &str = "keeper";

/// A cold machine that builds beside the tests takes its time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Stops the server when its stdin ends, then removes the folder. Arguments: folder, log, signal, then the server's argv.
const GUARD: &str = r#"
folder=$1 log=$2 signal=$3
shift 3
"$@" >"$log" 2>&1 &
server=$!
read -r _
kill -s "$signal" "$server" 2>/dev/null
wait "$server"
cd /
rm -rf -- "$folder"
"#;

/// Makes it quick to start and to write; durability is nobody's concern here.
const SETTINGS: [&str; 8] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "max_connections=60",
    "shared_buffers=64MB",
    "wal_level=minimal",
    "max_wal_senders=0",
];

static SHARED: OnceLock<Option<Server>> = OnceLock::new();

/// Returns the shared server, or tells why there is none (the test then returns).
pub fn postgres() -> Option<&'static Server> {
    let shared = SHARED.get_or_init(Server::start).as_ref();
    if shared.is_none() {
        skip("PostgreSQL's server programs are not installed (`scripts/test` installs them)");
    }
    shared
}

/// A running server. Dropping it stops it at once, as a crash would (row D7).
pub struct Server {
    folder: PathBuf,
    port: u16,
    bin: PathBuf,
    guard: Child,
    /// Its end is the guard's signal.
    alive: Option<ChildStdin>,
}

impl Server {
    /// Starts a server of the test's own, to stop or to break; `None` after telling why.
    pub fn private() -> Option<Self> {
        let server = Self::start();
        if server.is_none() {
            skip("PostgreSQL's server programs are not installed (`scripts/test` installs them)");
        }
        server
    }

    fn start() -> Option<Self> {
        let bin = bin_dir()?;
        let owner = Owner::find();
        // Another process may take the port between the look and the start; then the next one will do.
        let server = (0..3).find_map(|_| Self::try_start(&bin, &owner));
        Some(server.expect("PostgreSQL starts"))
    }

    fn try_start(bin: &Path, owner: &Owner) -> Option<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pgkeep-server-")
            .tempdir_in("/tmp")
            .expect("/tmp can be written")
            .keep();
        owner.give(&folder);
        initialise(bin, &folder, owner);
        let port = free_port();
        let mut guard = guard(bin, &folder, port, owner)
            .spawn()
            .expect("sh can be started");
        let server = Self {
            folder,
            port,
            bin: bin.to_owned(),
            alive: guard.stdin.take(),
            guard,
        };
        let is_ready = server.is_ready();
        if !is_ready {
            eprintln!("PostgreSQL did not start: {}", log_of(&server.folder));
        }
        is_ready.then(|| {
            // Owner in most public dumps, which would not load without it; nobody can log in as it.
            server.sql("template1", "CREATE ROLE postgres NOLOGIN");
            server
        })
    }

    fn is_ready(&self) -> bool {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            let log = log_of(&self.folder);
            if log.contains("FATAL") {
                return false;
            }
            if log.contains("ready to accept connections") {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Creates an empty database, dropped again with the returned value.
    pub fn database(&self) -> TestDatabase<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql(
            "template1",
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        );
        TestDatabase { server: self, name }
    }

    /// Returns the folder of the server's own programs, all of one version.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Returns the TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder of the unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.folder
    }

    /// Returns the server's major version, such as 15.
    pub fn major(&self) -> u32 {
        let number: u32 = self
            .sql("template1", "SHOW server_version_num")
            .parse()
            .expect("server_version_num is a number");
        number / 10_000
    }

    /// Tells whether it was built with ICU, as distributions do and not everybody.
    pub fn has_icu(&self) -> bool {
        // `unicode` is there from 16 on in any build; these only initdb finds.
        let sql = "SELECT count(*) > 0 FROM pg_collation WHERE collname LIKE '%-x-icu'";
        self.sql("template1", sql) == "t"
    }

    /// Returns a TCP URL with any user and password: `postgresql://user:password@127.0.0.1:port/database`.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!(
            "postgresql://{}:{}@127.0.0.1:{}/{}",
            percent_encoded(user),
            percent_encoded(password),
            self.port,
            percent_encoded(database)
        )
    }

    /// Runs SQL in a database as superuser, and returns unaligned rows; panics with the server's words.
    #[track_caller]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql)
            .unwrap_or_else(|error| panic!("{error}\nin: {}", &sql[..sql.len().min(500)]))
    }

    /// Runs SQL as superuser; the error is psql's stderr.
    pub fn try_sql(&self, database: &str, sql: impl AsRef<[u8]> + Send) -> Result<String, String> {
        self.psql(database, sql, "ON_ERROR_STOP=1")
    }

    /// Runs what of some SQL can be run; psql's exit code says nothing about the rest.
    pub fn load_what_loads(&self, database: &str, sql: &[u8]) {
        self.psql(database, sql, "ON_ERROR_STOP=0")
            .expect("psql reads to the end");
    }

    fn psql(
        &self,
        database: &str,
        sql: impl AsRef<[u8]> + Send,
        setting: &str,
    ) -> Result<String, String> {
        let mut child = Command::new(self.bin.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", setting])
            .env_clear()
            .env("PGHOST", &self.folder)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", USER)
            .env("PGDATABASE", database)
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql can be started");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let output = thread::scope(|scope| {
            // psql stops reading at the first error; its exit code tells.
            scope.spawn(move || stdin.write_all(sql.as_ref()));
            child.wait_with_output().expect("psql can be waited for")
        });
        if output.status.success() {
            let rows = String::from_utf8_lossy(&output.stdout);
            Ok(rows.trim_end_matches('\n').to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.alive.take());
        // A guard that was killed has nothing more to say.
        let _ = self.guard.wait();
    }
}

/// A database of one test.
pub struct TestDatabase<'a> {
    server: &'a Server,
    name: String,
}

impl TestDatabase<'_> {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its server.
    pub fn server(&self) -> &Server {
        self.server
    }

    /// Returns a TCP URL for the superuser, password (the canary) and all.
    pub fn url(&self) -> String {
        self.server.url_as(USER, CANARY, &self.name)
    }

    /// Returns a URL over the unix socket, without a password.
    pub fn socket_url(&self) -> String {
        format!(
            "postgresql://{USER}@/{}?host={}&port={}",
            self.name,
            percent_encoded(&self.server.folder.display().to_string()),
            self.server.port
        )
    }

    /// Runs SQL, and returns unaligned rows.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }

    /// Loads a dump that must load without an error.
    #[track_caller]
    pub fn load(&self, dump: &[u8]) {
        self.server
            .try_sql(&self.name, dump)
            .unwrap_or_else(|error| panic!("the dump does not load: {error}"));
    }

    /// Ends every other session in it (row D8).
    pub fn terminate_backends(&self) {
        self.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
    }
}

/// Keeps the server small over hundreds of tests; a server that was stopped has nothing to drop.
impl Drop for TestDatabase<'_> {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = self.server.try_sql("template1", drop);
    }
}

/// Returns the folder with the newest server programs, PATH first.
fn bin_dir() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).collect::<Vec<_>>();
    in_path.into_iter().chain(usual_dirs()).find(|dir| {
        // In Debian's PATH stands only a wrapper of the client programs: all four must lie together.
        ["initdb", "postgres", "psql", "pg_dump"]
            .iter()
            .all(|program| dir.join(program).is_file())
    })
}

/// Returns the folders where packages put them, the highest version first.
fn usual_dirs() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for (parent, prefix, suffix) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
    ] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name
                .strip_prefix(prefix)
                .and_then(|version| version.parse::<f32>().ok());
            if let Some(version) = version {
                dirs.push((version, entry.path().join(suffix)));
            }
        }
    }
    dirs.sort_by(|a, b| b.0.total_cmp(&a.0));
    dirs.into_iter().map(|(_, dir)| dir).collect()
}

/// Prepares the guard of a server in `folder`.
fn guard(bin: &Path, folder: &Path, port: u16, owner: &Owner) -> Command {
    // PostgreSQL's immediate shutdown: nothing here is worth a checkpoint.
    let mut command = guarded(folder, "QUIT", owner);
    command
        .arg(bin.join("postgres"))
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1"])
        .arg("-c")
        .arg(format!("unix_socket_directories={}", folder.display()));
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
}

/// Prepares the guard of a program whose argv follows: it ends the program by a signal and removes the folder.
pub fn guarded(folder: &Path, signal: &str, owner: &Owner) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", GUARD, "pgkeep-test-guard"])
        .args([folder, &folder.join("log")])
        .arg(signal);
    owner.run_as(&mut command);
    // Its own group: Ctrl-C at the terminal ends the tests, and their end ends the server, in this order.
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn initialise(bin: &Path, folder: &Path, owner: &Owner) {
    let password = folder.join("password");
    fs::write(&password, CANARY).expect("the folder is ours");
    owner.give(&password);
    let mut command = Command::new(bin.join("initdb"));
    command
        .arg("-D")
        .arg(folder.join("data"))
        .arg(format!("--pwfile={}", password.display()))
        .args(["--username", USER, "--encoding=UTF8", "--locale=C"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .args(["--no-sync", "--no-instructions"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null());
    let output = owner
        .run_as(&mut command)
        .output()
        .expect("initdb can be started");
    assert!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::remove_file(password).expect("the folder is ours");
}

/// Whom the server runs as: PostgreSQL refuses to be root.
pub struct Owner(Option<(u32, u32)>);

impl Owner {
    /// Finds an account that is not root.
    pub fn find() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self(None);
        }
        let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
        let ids = ["postgres", "nobody"].iter().find_map(|name| {
            let line = users
                .lines()
                .find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        Self(Some(ids.expect("there is a user `postgres` or `nobody`")))
    }

    fn run_as<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.current_dir("/");
        match self.0 {
            Some((user, group)) => command.uid(user).gid(group),
            None => command,
        }
    }

    /// Makes it that account's.
    pub fn give(&self, path: &Path) {
        if let Some((user, group)) = self.0 {
            std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root may give away");
        }
    }
}

/// Returns a port that nobody listens to.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn log_of(folder: &Path) -> String {
    File::open(folder.join("log"))
        .and_then(std::io::read_to_string)
        .unwrap_or_default()
}

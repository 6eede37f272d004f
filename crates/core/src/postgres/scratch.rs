//! A throw-away server: for drills, the demo and tests.
//!
//! It lives in a private folder, has a superuser of its own and no network unless asked, never runs as root, and is
//! gone with its handle; what a killed process left behind is swept by the next one. Nothing in it is durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Gid, Mode, OFlags, Uid, chownat, fchown, flock, open, openat,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::error::{Error, Reason};
use super::process::{Program, Running, Stop, Stopper};
use super::programs::{Search, Version, is_executable};
use pgkeep_model::connection::Connection;

/// How folders of throw-away servers are called; the sweep touches no others.
const PREFIX: &str = "pgkeep-scratch-";

/// Held locked by the process that owns the folder.
const LOCK: &str = "owner.lock";

/// initdb takes one or two seconds; a busy machine a few times that.
const INIT_TIMEOUT: Duration = Duration::from_secs(120);

/// A fresh server starts in a fraction of a second.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a shutdown may take before the next, ruder one.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// An immediate shutdown writes nothing, so it is over at once.
const QUIT_GRACE: Duration = Duration::from_secs(2);

/// Longest path of a Unix socket on Linux (108 bytes with the NUL; macOS has 104).
const MAX_SOCKET_PATH: usize = 103;

/// The port that names the socket; several servers may use it, each in its own folder.
const SOCKET_PORT: u16 = 5432;

/// Another process may take a free port before the server does.
const PORT_ATTEMPTS: usize = 3;

/// Settings for speed: the server's data is not worth a single fsync.
const FAST: &[&str] = &[
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=4GB",
    "checkpoint_timeout=1h",
    "autovacuum=off",
    "shared_buffers=256MB",
    "maintenance_work_mem=256MB",
    // In the data folder, so that it goes with it; /dev/shm is tiny in containers.
    "dynamic_shared_memory_type=mmap",
    "logging_collector=off",
    "log_destination=stderr",
    "lc_messages=C",
];

/// What kind of server is wanted.
#[derive(Clone, Debug)]
pub struct ScratchOptions {
    /// Where the server's programs are looked for.
    pub search: Search,
    /// The lowest major version that would do, which is preferred to newer ones; the newest found where `None`.
    pub major: Option<u32>,
    /// Name of the superuser. Never `postgres`: dumps of whole clusters take that role's rights away.
    pub superuser: String,
    /// The superuser's password; with one, every login needs it (SCRAM).
    pub password: Option<SecretString>,
    /// Whether it listens on 127.0.0.1, too, on a free port. Needs a password.
    pub tcp: bool,
    /// Encoding of its databases.
    pub encoding: String,
    /// Further settings, `name=value` each.
    pub settings: Vec<String>,
    /// Libraries that it loads at its start, those of them that are installed.
    pub preload: Vec<String>,
    /// Where its folder is made. `/tmp` by default: a socket's path must be short.
    pub parent: PathBuf,
}

impl ScratchOptions {
    /// Returns a server on a socket only, with a superuser called `pgkeep` and no password.
    pub fn new(search: Search) -> Self {
        Self {
            search,
            major: None,
            superuser: "pgkeep".into(),
            password: None,
            tcp: false,
            encoding: "UTF8".into(),
            settings: Vec::new(),
            preload: Vec::new(),
            parent: "/tmp".into(),
        }
    }
}

/// What a throw-away server would have here.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Folder of its programs.
    pub programs: PathBuf,
    /// Their version.
    pub version: Version,
    /// Bytes that are free where it would live.
    pub free_bytes: u64,
}

/// Looks whether a server could be made here, and makes none.
pub async fn survey(
    options: &ScratchOptions,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<Survey, Error> {
    check(options)?;
    let (programs, version) = find_server(options, environment, cancel).await?;
    let maker = named_user().map_err(|error| failed(WHOM, &error))?;
    let parent = &options.parent;
    // Gone at once; it tells whether a folder can be made there.
    let made = tempfile::Builder::new()
        .prefix("pgkeep-check-")
        .tempdir_in(parent);
    let folder = made.map_err(|error| failed("its folder", &error))?;
    if maker.is_some() {
        // Where root has few accounts, as in a container without privileges, it may not have this one.
        let given = nobodys_user().and_then(|user| give_away(folder.path(), user));
        given.map_err(|error| failed(WHOM, &error))?;
    }
    folder
        .close()
        .map_err(|error| failed("its folder", &error))?;
    let found = rustix::fs::statvfs(parent.as_path())
        .map_err(|error| failed("the space for it", &error.into()))?;
    Ok(Survey {
        programs,
        version,
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// A running throw-away server. Dropping it stops the server and removes its folder.
pub struct ScratchServer {
    // The order is the order of dropping: the server goes before its folder, and the lock goes last.
    running: Running,
    folder: TempDir,
    connection: Connection,
    version: Version,
    _lock: File,
}

impl ScratchServer {
    /// Makes and starts a server.
    pub async fn start(
        options: &ScratchOptions,
        environment: &Environment,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        check(options)?;
        let parent = options.parent.clone();
        let swept = tokio::task::spawn_blocking(move || sweep(&parent));
        swept.await.expect("sweeping does not panic");
        let (bin, version) = find_server(options, environment, cancel).await?;
        let place = Place::make(options).map_err(|error| failed("its folder", &error))?;
        place.init(&bin, options, environment, cancel).await?;
        let mut attempt = 1;
        let mut options = options.clone();
        options.preload.retain(|library| has_library(&bin, library));
        let options = &mut options;
        loop {
            match place.launch(&bin, options, environment, cancel).await {
                Ok((running, port)) => {
                    return Ok(Self {
                        running,
                        connection: place.connection(options, port)?,
                        version,
                        folder: place.folder,
                        _lock: place.lock,
                    });
                }
                Err(error) if attempt < PORT_ATTEMPTS && options.tcp && port_is_taken(&error) => {
                    attempt += 1;
                }
                // What it cannot load it does without: the restore says what that is needed for.
                Err(error) if !options.preload.is_empty() && !cancel.is_cancelled() => {
                    let libraries = options.preload.join(", ");
                    tracing::warn!(libraries, %error, "the server did not start with these, and is started without");
                    options.preload.clear();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the connection of the superuser to the database `postgres`.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns the version of the server.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the server's private folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the last lines of the server's log.
    pub fn log_tail(&self) -> Vec<String> {
        log_tail(self.folder.path())
    }

    /// Stops the server, sessions or not, and removes its folder.
    pub async fn stop(self) -> Result<(), Error> {
        let stopper = self.running.stopper();
        let stopped = tokio::task::spawn_blocking(move || {
            stopper.signal_and_wait(Signal::INT, STOP_GRACE)
                || stopper.signal_and_wait(Signal::QUIT, QUIT_GRACE)
        });
        if !stopped.await.expect("waiting does not panic") {
            self.running.stopper().stop(Stop::Hung).await;
        }
        let folder = self.folder.path().to_owned();
        // Thousands of files: a second or a minute.
        let removed = tokio::task::spawn_blocking(move || remove(&folder)).await;
        removed
            .expect("removing does not panic")
            .map_err(|error| failed("removing its folder", &error))
    }
}

impl Drop for ScratchServer {
    fn drop(&mut self) {
        let stopper: Stopper = self.running.stopper();
        stopper.signal_and_wait(Signal::QUIT, QUIT_GRACE);
    }
}

/// The folder of a server that does not run yet.
struct Place {
    folder: TempDir,
    lock: File,
    /// Who makes the data: `initdb` wants an account with a name.
    maker: Option<(u32, u32)>,
    /// Who runs the server: an account that owns nothing else.
    user: Option<(u32, u32)>,
}

impl Place {
    fn make(options: &ScratchOptions) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&options.parent)?;
        let lock = make_lock(folder.path())?;
        let maker = named_user()?;
        if let Some((uid, gid)) = maker {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let user = match maker {
            Some(_) => Some(nobodys_user()?),
            None => None,
        };
        Ok(Self {
            folder,
            lock,
            maker,
            user,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the server carries out may read its environment, so there is nothing in it that it does not need.
    fn program(user: Option<(u32, u32)>, path: PathBuf, environment: &Environment) -> Program {
        let environment = &environment.clone().without_connection();
        let program = Program::new(path, environment);
        match user {
            Some((uid, gid)) => program.user(uid, gid),
            None => program,
        }
    }

    async fn init(
        &self,
        bin: &Path,
        options: &ScratchOptions,
        environment: &Environment,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let auth = match options.password {
            Some(_) => "scram-sha-256",
            None => "trust",
        };
        let mut arguments = vec![
            format!("--pgdata={}", self.path("data").display()),
            format!("--username={}", options.superuser),
            format!("--encoding={}", options.encoding),
            format!("--auth={auth}"),
            "--no-locale".into(),
            "--no-sync".into(),
        ];
        if let Some(password) = &options.password {
            let file = self.path("password");
            self.write_password(&file, password)
                .map_err(|error| failed("its password file", &error))?;
            arguments.push(format!("--pwfile={}", file.display()));
        }
        let run = Self::program(self.maker, bin.join("initdb"), environment).args(arguments);
        let answer = run.run(cancel, INIT_TIMEOUT, 1 << 20).await;
        // Wherever initdb stopped, the password has served its purpose; the folder goes as a whole if this fails.
        let _ = fs::remove_file(self.path("password"));
        answer.map_err(|error| scratch_error("`initdb` failed", error))?;
        match self.user {
            Some(user) => give_away(self.folder.path(), user).map_err(|error| failed(WHOM, &error)),
            None => Ok(()),
        }
    }

    fn write_password(&self, file: &Path, password: &SecretString) -> io::Result<()> {
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        writeln!(out, "{}", password.expose_secret())?;
        match self.maker {
            Some((uid, gid)) => chown(file, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    async fn launch(
        &self,
        bin: &Path,
        options: &ScratchOptions,
        environment: &Environment,
        cancel: &CancellationToken,
    ) -> Result<(Running, u16), Error> {
        let port = if options.tcp {
            free_port()?
        } else {
            SOCKET_PORT
        };
        let log = open_log(&self.path("log")).map_err(|error| failed("its log", &error))?;
        let listen = if options.tcp { "127.0.0.1" } else { "" };
        let folder = self.folder.path().display();
        let own = [
            format!("listen_addresses={listen}"),
            format!("port={port}"),
            format!("unix_socket_directories={folder}"),
        ];
        let fast = FAST.iter().map(|setting| (*setting).to_owned());
        let preload = (!options.preload.is_empty())
            .then(|| format!("shared_preload_libraries={}", options.preload.join(",")));
        let settings = fast
            .chain(own)
            .chain(preload)
            .chain(options.settings.iter().cloned());
        let running = Self::program(self.user, bin.join("postgres"), environment)
            .args(["-D".into(), self.path("data").display().to_string()])
            .args(settings.flat_map(|setting| ["-c".to_owned(), setting]))
            .log_to(log)
            // It lives as long as its handle, which outlives a cancelled drill by the time that cleaning up takes.
            .spawn(&CancellationToken::new())?;
        self.wait_ready(&running, cancel).await?;
        Ok((running, port))
    }

    /// Waits for `ready` in postmaster.pid, which is what `pg_ctl --wait` reads.
    async fn wait_ready(&self, running: &Running, cancel: &CancellationToken) -> Result<(), Error> {
        let give_up_at = Instant::now() + START_TIMEOUT;
        loop {
            let status = fs::read_to_string(self.path("data/postmaster.pid")).unwrap_or_default();
            if status
                .lines()
                .nth(7)
                .is_some_and(|line| line.trim() == "ready")
            {
                return Ok(());
            }
            tokio::select! {
                _ = running.wait() => return Err(self.not_ready("it ended at once")),
                () = cancel.cancelled() => return Err(Error::new(Reason::Stopped(Stop::Interrupted))),
                () = sleep(Duration::from_millis(10)) => {}
            }
            if Instant::now() > give_up_at {
                return Err(self.not_ready("it was not ready in time"));
            }
        }
    }

    fn not_ready(&self, what: &str) -> Error {
        Error {
            program: "postgres".into(),
            reason: Reason::Scratch(what.into()),
            stderr: log_tail(self.folder.path()),
        }
    }

    fn connection(&self, options: &ScratchOptions, port: u16) -> Result<Connection, Error> {
        let host = if options.tcp {
            "127.0.0.1".to_owned()
        } else {
            self.folder.path().display().to_string()
        };
        let parameters = [
            ("host", host),
            ("port", port.to_string()),
            ("user", options.superuser.clone()),
            ("dbname", "postgres".to_owned()),
        ];
        let without_password = Connection::from_parameters(parameters);
        let connection = match &options.password {
            Some(password) => without_password.and_then(|c| c.with_password(password.clone())),
            None => without_password,
        };
        connection.map_err(|error| Error::new(Reason::Connection(error)))
    }
}

/// Removes servers and folders whose owner is dead; returns the folders.
///
/// Nothing is touched whose lock is held, or that belongs to another user than those we run servers as.
pub fn sweep(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .filter(|folder| is_ours(folder) && sweep_one(folder).unwrap_or(false))
        .collect()
}

fn sweep_one(folder: &Path) -> io::Result<bool> {
    // Without a lock the folder is a moment old, or its owner died in that moment; it holds nothing but itself then.
    let lock = match File::open(folder.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    end_server_of(folder);
    remove(folder)?;
    Ok(true)
}

/// Removes a server's folder, its lock last: what is left by a process that dies meanwhile is swept later.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir_all(folder)
}

/// Ends a server whose owner is dead, if the process of that number still is the server of this folder.
fn end_server_of(folder: &Path) {
    let data = folder.join("data");
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let Some(pid) = text
        .lines()
        .next()
        .and_then(|line| Pid::from_raw(line.trim().parse().ok()?))
    else {
        return;
    };
    for signal in [Signal::QUIT, Signal::KILL] {
        for _ in 0..200 {
            if !is_server_of(pid, &data) {
                return;
            }
            // It may end between the two lines; then there is nothing left to signal.
            let _ = kill_process(pid, signal);
            std::thread::sleep(QUIT_GRACE / 200);
        }
    }
}

fn is_server_of(pid: Pid, data: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let wanted = format!("-D\0{}\0", data.display());
    memchr::memmem::find(&arguments, wanted.as_bytes()).is_some()
}

fn is_ours(folder: &Path) -> bool {
    let owner = match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => found.uid(),
        _ => return false,
    };
    let made = named_user().ok().flatten();
    owner == geteuid().as_raw()
        || made.is_some_and(|(uid, _)| owner == uid)
        || geteuid().is_root() && OWNERLESS.contains(&owner) && has_lock_of_ours(folder)
}

/// Only we can have made a file in it that belongs to us.
fn has_lock_of_ours(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(LOCK)).is_ok_and(|lock| lock.uid() == geteuid().as_raw())
}

/// Makes the lock under another name first: whoever sees it by its own name sees it locked.
fn make_lock(folder: &Path) -> io::Result<File> {
    let made = folder.join("owner.new");
    let lock = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&made)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(made, folder.join(LOCK))?;
    Ok(lock)
}

/// What is missing where no account can run a server.
const WHOM: &str = "an account without a name to run it as (run pgkeep as another user than root, or drill on a server of yours)";

/// Numbers that systemd gives to services for as long as they run, and nobody else uses.
const OWNERLESS: std::ops::RangeInclusive<u32> = 61184..=65519;

/// Returns who makes a server's data where we are root, which PostgreSQL refuses to be. It runs nothing of a dump.
fn named_user() -> io::Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let nobody = users.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let is_wanted = fields.first() == Some(&"nobody");
        is_wanted.then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))?
    });
    let missing = || io::Error::other("no user `nobody` to make its data as");
    nobody.map(Some).ok_or_else(missing)
}

/// Returns an account that has no name, owns no file and runs no program, so that nothing but the server's own is within
/// reach of what runs in it: never `postgres`, who may own a server with data in it.
fn nobodys_user() -> io::Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let named = users
        .lines()
        .filter_map(|line| line.split(':').nth(2)?.parse().ok());
    let mut taken: std::collections::HashSet<u32> = named.collect();
    for process in fs::read_dir("/proc")?.flatten() {
        if let Ok(found) = process.metadata() {
            taken.insert(found.uid());
        }
    }
    // Two servers that start at once may take the same number, which lets them see each other and no more; they rarely do.
    let first = std::process::id() % (OWNERLESS.end() - OWNERLESS.start());
    let all = OWNERLESS.skip(first as usize).chain(OWNERLESS);
    let mut free = all.filter(|number| !taken.contains(number));
    let number = free
        .next()
        .ok_or_else(|| io::Error::other("no account is free to run it as"))?;
    Ok((number, number))
}

/// Gives a folder of ours with all in it to another account, but for the lock.
///
/// Whoever owns it meanwhile may put a link in the place of a folder, so each one is opened and never found again by its
/// path.
fn give_away(folder: &Path, user: (u32, u32)) -> io::Result<()> {
    let opened = open(folder, FOLDER, Mode::empty())?;
    let user = (Uid::from_raw(user.0), Gid::from_raw(user.1));
    give_away_opened(&opened, user)
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn give_away_opened(folder: &OwnedFd, user: (Uid, Gid)) -> io::Result<()> {
    let (uid, gid) = (Some(user.0), Some(user.1));
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || name.to_bytes() == LOCK.as_bytes() {
            continue;
        }
        match openat(folder, name, FOLDER, Mode::empty()) {
            Ok(inner) => give_away_opened(&inner, user)?,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fchown(folder, uid, gid)?)
}

fn check(options: &ScratchOptions) -> Result<(), Error> {
    let refuse = |what: &str| Err(Error::new(Reason::Scratch(what.into())));
    // mkdtemp adds six characters, the socket is `/.s.PGSQL.65535`.
    let socket =
        options.parent.as_os_str().len() + 1 + PREFIX.len() + 6 + ".s.PGSQL.65535".len() + 1;
    if options.superuser == "postgres" {
        refuse("its superuser must not be called `postgres`")
    } else if options.tcp && options.password.is_none() {
        refuse("listening on a port needs a password")
    } else if socket > MAX_SOCKET_PATH {
        refuse("the path of its folder is too long for a socket")
    } else {
        Ok(())
    }
}

async fn find_server(
    options: &ScratchOptions,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<(PathBuf, Version), Error> {
    let (mut found, mut told) = (Vec::new(), Vec::new());
    for folder in options.search.existing_folders() {
        if !is_executable(&folder, "initdb") || !is_executable(&folder, "postgres") {
            continue;
        }
        let answer = Program::new(folder.join("postgres"), environment)
            .args(["--version"])
            .run(cancel, Duration::from_secs(5), 4096)
            .await;
        let version = answer
            .ok()
            .and_then(|a| Version::parse(&String::from_utf8_lossy(&a.stdout)));
        if let Some(version) = version {
            told.push(format!("{} ({version})", folder.join("postgres").display()));
            found.push((version, folder));
        }
    }
    // An older server refuses what a newer one dumps.
    found.retain(|(version, _)| options.major.is_none_or(|major| version.major >= major));
    let is_wanted = |version: &Version| options.major == Some(version.major);
    let best = found
        .into_iter()
        .max_by_key(|(version, _)| (is_wanted(version), *version));
    best.map(|(version, folder)| (folder, version))
        .ok_or_else(|| {
            Error::new(Reason::ProgramMissing {
                program: "initdb",
                wanted_major: options.major,
                searched: options.search.existing_folders(),
                found: told,
            })
        })
}

/// Folders of a server's libraries, seen from its programs: as Debian, Fedora and builds of one's own have them.
const LIBRARIES: &[&str] = &[
    "../lib",
    "../lib/postgresql",
    "../lib64",
    "../lib64/pgsql",
    "../lib/pgsql",
];

fn has_library(bin: &Path, library: &str) -> bool {
    let places = LIBRARIES.iter().map(|folder| bin.join(folder));
    let mut files = places.flat_map(|folder| {
        ["so", "dylib"].map(|extension| folder.join(format!("{library}.{extension}")))
    });
    files.any(|file| file.is_file())
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address
        .map_err(|error| failed("a free port", &error))?
        .port())
}

fn port_is_taken(error: &Error) -> bool {
    error
        .stderr
        .iter()
        .any(|line| line.contains("Address already in use"))
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Returns the last 20 lines of the last 16 KiB of the log.
fn log_tail(folder: &Path) -> Vec<String> {
    let mut text = Vec::new();
    let read = File::open(folder.join("log")).and_then(|mut log| {
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
        log.read_to_end(&mut text)
    });
    if let Err(error) = read {
        return vec![format!("(its log cannot be read: {error})")];
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(20)..].to_vec()
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::new(Reason::Scratch(format!("{what}: {error}")))
}

/// Keeps what a program said, and an interruption what it is.
fn scratch_error(what: &str, error: Error) -> Error {
    match error.reason {
        Reason::Stopped(_) | Reason::NotStarted { .. } => error,
        _ => Error {
            reason: Reason::Scratch(what.into()),
            ..error
        },
    }
}

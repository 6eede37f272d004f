//! A sealed place to run programs in: own folder, own environment, a limit on every wait.
//!
//! A program sees PATH, HOME, TMPDIR, LANG and what the test gives it, nothing of the developer's machine. After each
//! run the sandbox proves that no process and no trace of the canary is left (oracles O5 and O6), and that JSON outputs
//! are as the book says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::processes;
use super::schema;
use super::secret::{self, CANARY};

/// Longest run unless a test says otherwise: generous, since two cores build and test at once.
const LIMIT: Duration = Duration::from_secs(60);

/// How long output may stay open after its program ended.
const OUTPUT_LIMIT: Duration = Duration::from_secs(2);

/// The sealed place. Dropping it removes its folder.
pub struct Sandbox {
    root: TempDir,
    environment: BTreeMap<OsString, OsString>,
    /// Files that may hold the canary: the test itself wrote it there.
    secret_files: RefCell<Vec<PathBuf>>,
}

impl Sandbox {
    /// Makes an empty sandbox with `home`, `tmp`, `bin` and `work`, the folder that programs start in.
    pub fn new() -> Self {
        // Not below TMPDIR: a socket's path must stay under 107 bytes, and macOS has long ones.
        let root = tempfile::Builder::new()
            .prefix("pgkeep-sandbox-")
            .tempdir_in("/tmp")
            .expect("/tmp can be written");
        let folder = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir(&path).expect("a new folder can be made");
            path
        };
        let mut path = vec![folder("bin")];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").expect("PATH is set"),
        ));
        let environment = [
            (
                "PATH",
                std::env::join_paths(path).expect("PATH can be joined"),
            ),
            ("HOME", folder("home").into()),
            ("TMPDIR", folder("tmp").into()),
            ("LANG", "C".into()),
        ];
        folder("work");
        Self {
            environment: environment.map(|(key, value)| (key.into(), value)).into(),
            root,
            secret_files: RefCell::default(),
        }
    }

    /// Returns the sandbox's own folder.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Returns a path below `work`.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root().join("work").join(relative)
    }

    /// Returns the folder that stands first in PATH.
    pub fn bin(&self) -> PathBuf {
        self.root().join("bin")
    }

    /// Writes a file below `work`, with its folders, for its owner only.
    pub fn write(&self, relative: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        let parent = path.parent().expect("a file lies in a folder");
        fs::create_dir_all(parent).expect("a folder can be made");
        fs::write(&path, bytes).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        path
    }

    /// Writes a file that may hold the canary, such as a password file.
    pub fn write_secret(&self, relative: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(relative, bytes);
        self.may_hold_secret(&path);
        path
    }

    /// Excuses a file from the search for the canary.
    pub fn may_hold_secret(&self, path: &Path) {
        self.secret_files.borrow_mut().push(path.to_owned());
    }

    /// Sets a variable for every later run.
    pub fn set(&mut self, key: impl Into<OsString>, value: impl Into<OsString>) {
        self.environment.insert(key.into(), value.into());
    }

    /// Prepares a run of pgkeep.
    pub fn pgkeep<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run<'_> {
        self.program(env!("CARGO_BIN_EXE_pgkeep"), arguments)
    }

    /// Prepares a run of any program.
    pub fn program<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Run<'_> {
        let mut command = in_own_session(program.as_ref());
        command
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.path(""));
        Run {
            sandbox: self,
            command,
            stdin: Vec::new(),
            limit: LIMIT,
            watched: None,
        }
    }

    /// Panics when the canary or a process is left; runs call it by themselves.
    pub fn assert_clean(&self, session: Option<i32>) {
        processes::assert_none_left(session, self.root());
        secret::assert_absent_below(CANARY, self.root(), &self.secret_files.borrow());
    }
}

/// `setsid` puts the program into a session of its own, under its own pid: what it leaves behind is found by it.
fn in_own_session(program: &OsStr) -> Command {
    if cfg!(target_os = "linux") {
        let mut command = Command::new("/usr/bin/setsid");
        command.arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// A run being prepared.
#[must_use]
pub struct Run<'a> {
    sandbox: &'a Sandbox,
    command: Command,
    stdin: Vec<u8>,
    limit: Duration,
    watched: Option<&'static str>,
}

impl<'a> Run<'a> {
    /// Sets a variable for this run.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Takes a variable away for this run.
    pub fn without_env(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Gives the program its standard input; without, it is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Sets after how long the run counts as hung.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Looks for the canary in every argv of the machine while the program runs (row S1).
    pub fn watching_argv(mut self) -> Self {
        self.watched = Some(CANARY);
        self
    }

    /// The same for another secret, which no other test looks for.
    pub fn watching_argv_for(mut self, secret: &'static str) -> Self {
        self.watched = Some(secret);
        self
    }

    /// Runs to the end.
    pub fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Starts and returns at once.
    pub fn start(mut self) -> Running<'a> {
        let started_at = Instant::now();
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.command));
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = std::mem::take(&mut self.stdin);
        // Ends with the input or with its reader; a program that reads nothing is no error.
        thread::spawn(move || stdin.write_all(&input));
        Running {
            stdout: collect(child.stdout.take().expect("stdout is piped")),
            stderr: collect(child.stderr.take().expect("stderr is piped")),
            watch: self.watched.map(ArgvWatch::start),
            command: format!("{:?}", self.command),
            arguments: arguments_of(&self.command),
            sandbox: self.sandbox,
            deadline: started_at + self.limit,
            started_at,
            child,
        }
    }
}

/// Returns what pgkeep was asked; nothing where another program runs.
fn arguments_of(command: &Command) -> Vec<String> {
    let words: Vec<String> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let is_pgkeep = |word: &String| word == env!("CARGO_BIN_EXE_pgkeep");
    let begin = words.iter().position(is_pgkeep);
    begin.map_or_else(Vec::new, |at| words[at + 1..].to_vec())
}

/// Reads to the end in a thread, which ends when the last writer closes.
fn collect(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still evidence.
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// A program that runs.
pub struct Running<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    watch: Option<ArgvWatch>,
    command: String,
    arguments: Vec<String>,
    started_at: Instant,
    deadline: Instant,
}

impl Running<'_> {
    /// Returns its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a process id is not zero");
        kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// Waits until the file is there, such as the mark of a fake that reached its point.
    pub fn wait_for_file(&self, path: &Path) {
        while !path.exists() {
            assert!(
                Instant::now() < self.deadline,
                "{} never came while this ran: {}",
                path.display(),
                self.command
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end, and proves that nothing is left behind.
    pub fn wait(mut self) -> Outcome {
        let session = Some(self.pid());
        let status = self.wait_for_exit();
        let took = self.started_at.elapsed();
        let outcome = Outcome {
            status,
            stdout: self.take_output(&self.stdout),
            stderr: self.take_output(&self.stderr),
            took,
            command: self.command.clone(),
        };
        secret::assert_absent(CANARY, "stdout", &outcome.stdout);
        secret::assert_absent(CANARY, "stderr", &outcome.stderr);
        // What was killed may have stopped in the middle of a line.
        if outcome.signal().is_none() {
            let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
            schema::assert_known(&arguments, &outcome.stdout, &outcome.stderr);
        }
        if let Some(watch) = self.watch.take() {
            watch.finish();
        }
        self.sandbox.assert_clean(session);
        outcome
    }

    fn wait_for_exit(&mut self) -> ExitStatus {
        loop {
            let status = self
                .child
                .try_wait()
                .expect("our own child can be waited for");
            if let Some(status) = status {
                return status;
            }
            if Instant::now() > self.deadline {
                self.give_up();
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn give_up(&mut self) -> ! {
        let session = Some(self.pid());
        let left = processes::of_sandbox(session, self.sandbox.root());
        processes::kill(&left);
        self.child.kill().expect("our own child can be killed");
        let stderr = self.take_output(&self.stderr);
        panic!(
            "hung: {}\nprocesses: {left:#?}\nstderr: {}",
            self.command,
            String::from_utf8_lossy(&stderr)
        );
    }

    /// The program ended, so its output ends now, unless a child of it holds the pipe.
    fn take_output(&self, output: &Receiver<Vec<u8>>) -> Vec<u8> {
        output.recv_timeout(OUTPUT_LIMIT).unwrap_or_else(|_| {
            let left = processes::of_sandbox(Some(self.pid()), self.sandbox.root());
            processes::kill(&left);
            panic!(
                "{} ended, but its output stays open: {left:?}",
                self.command
            )
        })
    }
}

/// Samples every argv about each millisecond; `finish` tells what was seen.
struct ArgvWatch {
    is_over: Arc<AtomicBool>,
    sampler: JoinHandle<u64>,
}

impl ArgvWatch {
    fn start(secret: &'static str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let sampler = thread::spawn(move || {
            let mut samples = 0;
            // A run may be over before this thread begins; one look is always taken.
            loop {
                for argv in processes::every_argv() {
                    secret::assert_absent(secret, "an argv", &argv);
                    samples += 1;
                }
                if flag.load(Ordering::Relaxed) {
                    return samples;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { is_over, sampler }
    }

    fn finish(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let samples = self
            .sampler
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(
            samples > 0 || cfg!(not(target_os = "linux")),
            "no argv could be read"
        );
    }
}

/// How a run ended and what it said.
pub struct Outcome {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Everything on stdout.
    pub stdout: Vec<u8>,
    /// Everything on stderr.
    pub stderr: Vec<u8>,
    /// Wall time.
    pub took: Duration,
    command: String,
}

impl Outcome {
    /// Returns the exit code; panics when a signal ended it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal: {self}"))
    }

    /// Returns the signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Panics with everything that was said unless the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Returns stdout as text.
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is UTF-8")
    }

    /// Returns stderr as text.
    pub fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).expect("stderr is UTF-8")
    }

    /// Returns stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Returns stdout as JSON lines.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self}"))
        };
        self.stdout().lines().map(parse).collect()
    }

    /// Returns the last line of stdout, the `summary` of long work.
    #[track_caller]
    pub fn summary(&self) -> Value {
        let summary = self.json_lines().pop();
        summary.unwrap_or_else(|| panic!("no summary: {self}"))
    }

    /// Returns the `exit_error` object that ends stderr under `--json`.
    #[track_caller]
    pub fn exit_error(&self) -> Value {
        let last = self.stderr().lines().last().unwrap_or_default();
        let object: Value =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self}"));
        assert_eq!(object["message_type"], "exit_error", "{self}");
        assert_eq!(
            object["code"].as_i64(),
            self.status.code().map(i64::from),
            "{self}"
        );
        object
    }
}

/// For the messages of failed assertions.
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} after {:?}: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.took,
            self.command,
            String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(8192)]),
            String::from_utf8_lossy(&self.stderr),
        )
    }
}

/// Tells whether everyone but the owner is shut out of everything below `folder`: files 0600, folders 0700 (row P6).
pub fn assert_private(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let mode = metadata.permissions().mode() & 0o7777;
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, wanted, "{}: {mode:o}", path.display());
        if metadata.is_dir() {
            assert_private(&path)?;
        }
    }
    Ok(())
}

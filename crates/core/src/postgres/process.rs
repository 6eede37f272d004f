//! One running program: its process group, its pipes, its last words and its end.
//!
//! End of output is a promise: a reader sees it only when the program exited with 0. Every program is reaped, and
//! its whole group ends with it, with the handle that is dropped, or with the cancelled token; nothing here retries.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use super::ended::{Ended, Stop};
use super::environment::Environment;
use super::error::Error;
use super::tail::Tail;
use pgkeep_model::redact::Redactor;

/// How long a program may take to end after a polite signal.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How long a program may live on after it closed its output; `pg_dump` needs milliseconds.
const EOF_GRACE: Duration = Duration::from_secs(10);

/// How long the last words are waited for once the program is gone: a process that left the group may hold the pipe.
const STDERR_GRACE: Duration = Duration::from_secs(1);

/// Size asked for the output pipe. Linux's 64 KiB cost a context switch each; 1 MiB is what a user may have.
#[cfg(target_os = "linux")]
const PIPE_SIZE: usize = 1 << 20;

/// Smallest pipe that may be left to fill for [`GATHER`] without making its writer wait.
const GATHERING_PIPE: usize = 512 * 1024;

/// How long a pipe that gave little is left to fill. `pg_dump` writes 4 KiB at a time, and a reader that wakes up for
/// each of them takes a tenth of the machine away from it; at 250 MB/s a millisecond is a quarter of the pipe.
const GATHER: Duration = Duration::from_millis(1);

/// Every program that may still run, for [`kill_all`].
static RUNNING: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Kills every program of this process with its group, at once and without waiting: for a process that is about to end
/// without unwinding, which would leave them behind.
pub fn kill_all() {
    let programs = std::mem::take(&mut *running());
    for program in programs.iter().filter_map(Weak::upgrade) {
        program.signal(Signal::KILL, Stop::Interrupted);
    }
}

fn running() -> MutexGuard<'static, Vec<Weak<Shared>>> {
    // A list of weak handles is whole at every moment.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a program's stdin comes from.
enum Input {
    Null,
    Bytes(Vec<u8>),
    Pipe,
}

/// A program that is about to run.
pub struct Program {
    command: Command,
    name: String,
    input: Input,
    log: Option<File>,
    redactor: Redactor,
    eof_grace: Duration,
}

/// A running program. Dropping it kills the program's group.
pub struct Running {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
    output: Option<Output>,
    input: Option<PipeWriter>,
}

/// A program's output, for a plain thread. `Ok(0)` means that the program exited with 0.
pub struct Output {
    pipe: PipeReader,
    shared: Arc<Shared>,
    eof_grace: Duration,
    is_finished: bool,
    pipe_size: usize,
    /// Whether the last read took so little that waiting for more is worth it.
    gave_little: bool,
    /// How long it is waited for.
    gather: Duration,
}

/// Ends a program from elsewhere: a watchdog, a signal handler.
#[derive(Clone)]
pub struct Stopper {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

impl Ended {
    /// Returns the end as a result: its stderr, which then holds warnings, or the classified error.
    pub fn into_result(self) -> Result<Vec<String>, Error> {
        if self.is_success() {
            Ok(self.stderr)
        } else {
            Err(Error::from_ended(self))
        }
    }
}

struct Shared {
    pid: Pid,
    name: String,
    state: Mutex<State>,
    changed: Condvar,
    /// Reads as hung up once the program is gone.
    gone: PipeReader,
    tail: Arc<Mutex<Tail>>,
    redactor: Redactor,
    /// Whether KILL was sent.
    killed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    status: Option<ExitStatus>,
    stop: Option<Stop>,
}

impl Program {
    /// Makes a program with nothing but this environment.
    pub fn new(path: impl Into<PathBuf>, environment: &Environment) -> Self {
        let path = path.into();
        let name = path.file_name().map_or_else(
            || path.display().to_string(),
            |n| n.to_string_lossy().into_owned(),
        );
        let mut command = Command::new(path);
        command
            .env_clear()
            .envs(environment.iter())
            .process_group(0);
        Self {
            command,
            name,
            input: Input::Null,
            log: None,
            redactor: environment.redactor(),
            eof_grace: EOF_GRACE,
        }
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments.into_iter().map(Into::into));
        self
    }

    /// Gives the program these bytes on stdin and then end of input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Gives the program a pipe on stdin, for [`Running::take_input`].
    pub fn piped_input(mut self) -> Self {
        self.input = Input::Pipe;
        self
    }

    /// Lets the program run as another user, without supplementary groups, in `/`.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid).current_dir("/");
        self
    }

    /// Sends stdout and stderr to a file instead of the pipes.
    pub fn log_to(mut self, file: File) -> Self {
        self.log = Some(file);
        self
    }

    /// Takes these secrets out of what the program says, besides its own password.
    pub fn redact(mut self, redactor: &Redactor) -> Self {
        self.redactor = self.redactor.merge(redactor);
        self
    }

    /// Changes how long the program may live on after it closed its output.
    pub fn eof_grace(mut self, grace: Duration) -> Self {
        self.eof_grace = grace;
        self
    }

    /// Starts the program. Needs a Tokio runtime, which watches `cancel`.
    pub fn spawn(self, cancel: &CancellationToken) -> Result<Running, Error> {
        let (name, path) = (self.name.clone(), PathBuf::from(self.command.get_program()));
        self.start(cancel)
            .map_err(|source| Error::not_started(name, path, source))
    }

    /// Runs the program to its end and returns what it printed, at most `limit` bytes.
    pub async fn run(
        self,
        cancel: &CancellationToken,
        timeout: Duration,
        limit: usize,
    ) -> Result<Captured, Error> {
        let mut running = self.spawn(cancel)?;
        let mut output = running.take_output();
        let stopper = running.stopper();
        // Ends with the program, and the program with `running`.
        let reader = tokio::task::spawn_blocking(move || output.capture(limit, &stopper));
        if tokio::time::timeout(timeout, running.ended())
            .await
            .is_err()
        {
            running.stopper().stop(Stop::TimedOut).await;
        }
        let stdout = reader.await.expect("reading a pipe does not panic");
        let stderr = running.wait().await.into_result()?;
        Ok(Captured { stdout, stderr })
    }

    fn start(mut self, cancel: &CancellationToken) -> io::Result<Running> {
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        let (gone, gone_end) = io::pipe()?;
        let pipe_size = enlarge(&stdout);
        match &self.log {
            Some(log) => self
                .command
                .stdout(log.try_clone()?)
                .stderr(log.try_clone()?),
            None => self.command.stdout(stdout_end).stderr(stderr_end),
        };
        let input = self.connect_input()?;
        let tail = Arc::new(Mutex::new(Tail::default()));
        // Both threads start before the program, so that no program can run without them. They end with it:
        // the reaper joins the drain, and nobody joins the reaper, which owns nothing that outlives the program.
        let drain = start_drain(stderr, gone.try_clone()?, Arc::clone(&tail))?;
        let (to_reaper, reaper_inbox) = mpsc::channel();
        let (ended_sender, ended) = watch::channel(false);
        start_thread("reap", move || {
            if let Ok((shared, child)) = reaper_inbox.recv() {
                let shared: Arc<Shared> = shared;
                reap(&shared, child, gone_end, drain);
                // Nobody listens any more where the handle was dropped.
                let _ = ended_sender.send(true);
            }
        })?;
        let child = self.command.spawn()?;
        let shared = Arc::new(Shared {
            pid: Pid::from_child(&child),
            name: self.name,
            state: Mutex::default(),
            changed: Condvar::new(),
            gone,
            tail,
            redactor: self.redactor,
            killed: watch::Sender::new(false),
        });
        shared.register();
        to_reaper
            .send((Arc::clone(&shared), child))
            .expect("the reaper waits for its one message");
        let running = Running {
            output: Some(Output {
                pipe: stdout,
                shared: Arc::clone(&shared),
                eof_grace: self.eof_grace,
                is_finished: false,
                pipe_size,
                gave_little: false,
                gather: GATHER,
            }),
            shared,
            ended,
            input: None,
        };
        running.watch(cancel.clone());
        running.feed(self.input, input)
    }

    fn connect_input(&mut self) -> io::Result<Option<PipeWriter>> {
        if matches!(self.input, Input::Null) {
            self.command.stdin(Stdio::null());
            return Ok(None);
        }
        let (end, writer) = io::pipe()?;
        enlarge(&end);
        self.command.stdin(end);
        Ok(Some(writer))
    }
}

/// How long a program that was killed may take to go; all but one that hangs in the kernel are gone in milliseconds.
const KILL_GRACE: Duration = Duration::from_secs(3);

/// What a program printed before it ended with exit code 0.
#[derive(Debug)]
pub struct Captured {
    /// Its output.
    pub stdout: Vec<u8>,
    /// Its last lines on stderr: warnings.
    pub stderr: Vec<String>,
}

impl Running {
    /// Returns the program's output, once.
    pub fn take_output(&mut self) -> Output {
        self.output.take().expect("the output is taken once")
    }

    /// Returns the program's stdin, once, where it was asked for. Dropping it is the program's end of input.
    pub fn take_input(&mut self) -> Option<PipeWriter> {
        self.input.take()
    }

    /// Returns a handle that ends the program from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            shared: Arc::clone(&self.shared),
            ended: self.ended.clone(),
        }
    }

    /// Returns the process id, for messages and tests.
    pub fn pid(&self) -> i32 {
        self.shared.pid.as_raw_nonzero().get()
    }

    /// Waits for the program's end, however it comes. Dropping the future changes nothing.
    pub async fn wait(&self) -> Ended {
        self.ended().await;
        let (status, stop) = {
            let state = self.shared.lock();
            (state.status.unwrap_or_else(unknown_end), state.stop)
        };
        Ended {
            program: self.shared.name.clone(),
            code: status.code(),
            signal: status.signal(),
            stop,
            stderr: self.shared.stderr(),
        }
    }

    /// Returns the last lines on stderr so far, without secrets.
    pub fn stderr(&self) -> Vec<String> {
        self.shared.stderr()
    }

    async fn ended(&self) {
        self.shared.wait_gone(self.ended.clone()).await;
    }

    /// Ends the program when the token is cancelled, even if all that runs is a blocking reader.
    fn watch(&self, cancel: CancellationToken) {
        let stopper = self.stopper();
        // Nobody awaits it: it ends with the program, and the program with its handle.
        tokio::spawn(
            async move {
                tokio::select! {
                    () = cancel.cancelled() => stopper.stop(Stop::Interrupted).await,
                    () = wait_ended(stopper.ended.clone()) => {}
                }
            }
            .in_current_span(),
        );
    }

    fn feed(mut self, input: Input, writer: Option<PipeWriter>) -> io::Result<Self> {
        match (input, writer) {
            (Input::Bytes(bytes), Some(mut writer)) => {
                // Ends when the program has read all of it or is gone. One that ends without reading says why on
                // stderr, and its status counts.
                start_thread("feed", move || drop(writer.write_all(&bytes)))?;
            }
            (_, writer) => self.input = writer,
        }
        Ok(self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.signal(Signal::KILL, Stop::Interrupted);
    }
}

impl Stopper {
    /// Ends the program: TERM to its group, then KILL after two seconds. Returns when it is reaped.
    ///
    /// The first reason given is the one that is told. A program that has ended already stays as it is.
    pub async fn stop(&self, why: Stop) {
        self.shared.signal(Signal::TERM, why);
        let ended = wait_ended(self.ended.clone());
        if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
            self.shared.signal(Signal::KILL, why);
            self.shared.wait_gone(self.ended.clone()).await;
        }
    }

    /// Sends one signal to the program's group and waits at most `grace` for the end; `true` if it came.
    pub(super) fn signal_and_wait(&self, signal: Signal, grace: Duration) -> bool {
        self.shared.signal(signal, Stop::Interrupted);
        self.shared.wait_status(grace).is_some()
    }
}

impl Output {
    fn capture(&mut self, limit: usize, stopper: &Stopper) -> Vec<u8> {
        let mut bytes = Vec::new();
        let more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        // How the program ended is told by `wait`, with its last words.
        let _ = self.by_ref().take(more).read_to_end(&mut bytes);
        if bytes.len() > limit {
            stopper.shared.signal(Signal::KILL, Stop::TooMuch);
        }
        bytes
    }

    /// Forgets that the last read gave little: more is about to come, because more was asked for.
    pub(super) fn await_more(&mut self) {
        self.gave_little = false;
    }

    /// Changes how long a pipe that gave little is left to fill: whoever asks one thing after the other waits at each end.
    pub(super) fn gather_for(mut self, gather: Duration) -> Self {
        self.gather = gather;
        self
    }

    /// Waits for the exit status behind the last byte and tells it.
    fn finish(&mut self) -> io::Result<usize> {
        let Some((status, stop)) = self.shared.wait_status(self.eof_grace) else {
            self.shared.signal(Signal::KILL, Stop::Hung);
            return Err(self.broken("closed its output and did not end"));
        };
        if status.success() && stop.is_none() {
            self.is_finished = true;
            return Ok(0);
        }
        Err(match (stop, status.code()) {
            (Some(_), _) => self.broken("was stopped"),
            (None, Some(code)) => self.broken(&format!("exited with status {code}")),
            (None, None) => self.broken("was ended by a signal"),
        })
    }

    fn broken(&self, what: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::BrokenPipe,
            format!("`{}` {what}", self.shared.name),
        )
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_finished || buffer.is_empty() {
            return Ok(0);
        }
        if self.gave_little {
            thread::sleep(self.gather);
        }
        if wait_readable(&self.pipe, &self.shared.gone)? {
            let count = self.pipe.read(buffer)?;
            self.gave_little = self.pipe_size >= GATHERING_PIPE && count < self.pipe_size / 8;
            if count > 0 {
                return Ok(count);
            }
        }
        self.finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics with the state locked")
    }

    fn register(self: &Arc<Self>) {
        let mut running = running();
        running.retain(|program| program.upgrade().is_some_and(|program| !program.is_gone()));
        running.push(Arc::downgrade(self));
    }

    fn is_gone(&self) -> bool {
        self.lock().status.is_some()
    }

    /// Signals the group while its leader is unreaped, so that the number cannot belong to anybody else.
    fn signal(&self, signal: Signal, why: Stop) {
        let mut state = self.lock();
        if state.status.is_none() {
            state.stop.get_or_insert(why);
            // The leader may be gone and only wait for the reaper, which needs no signal.
            let _ = kill_process_group(self.pid, signal);
            if signal == Signal::KILL {
                self.killed.send_replace(true);
            }
        }
    }

    /// Waits for the end. One that is stuck in a system call, as on a disk that is gone, is not waited for when it was
    /// killed: the system ends it when it can.
    async fn wait_gone(&self, ended: watch::Receiver<bool>) {
        let mut killed = self.killed.subscribe();
        let stuck = async {
            // The sender lives as long as we do.
            let _ = killed.wait_for(|killed| *killed).await;
            tokio::time::sleep(KILL_GRACE).await;
        };
        tokio::select! {
            () = wait_ended(ended) => {}
            () = stuck => {}
        }
    }

    fn wait_status(&self, grace: Duration) -> Option<(ExitStatus, Option<Stop>)> {
        let state = self.lock();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, grace, |state| state.status.is_none())
            .expect("no thread panics with the state locked");
        state.status.map(|status| (status, state.stop))
    }

    fn stderr(&self) -> Vec<String> {
        let tail = self
            .tail
            .lock()
            .expect("no thread panics with the tail locked");
        tail.lines(&self.redactor)
    }
}

async fn wait_ended(mut ended: watch::Receiver<bool>) {
    // An error means that the reaper is gone, and with it the program.
    let _ = ended.wait_for(|ended| *ended).await;
}

fn start_thread<T: Send + 'static>(
    what: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new()
        .name(format!("pgkeep-{what}"))
        .spawn(run)
}

/// Waits for the leader's end, ends what is left of its group, reaps it and tells everybody.
fn reap(shared: &Shared, mut child: Child, gone: PipeWriter, drain: thread::JoinHandle<()>) {
    // Without reaping: the number stays ours, so the rest of the group can be signalled safely.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(
        waitid(WaitId::Pid(shared.pid), options),
        Err(rustix::io::Errno::INTR)
    ) {}
    let mut state = shared.lock();
    let _ = kill_process_group(shared.pid, Signal::KILL);
    state.status = Some(child.wait().unwrap_or_else(|_| unknown_end()));
    drop(state);
    drop(gone);
    shared.changed.notify_all();
    // The drain only empties the pipe now, and gives up after its own grace.
    let _ = drain.join();
}

/// Stands for an end that nobody saw, which is impossible for a child of ours, and must never look like success.
fn unknown_end() -> ExitStatus {
    ExitStatus::from_raw(1 << 8)
}

/// Waits until the pipe can be read; `false` when the program is gone and the pipe is empty.
fn wait_readable(pipe: &PipeReader, gone: &PipeReader) -> io::Result<bool> {
    loop {
        let is_gone = match poll_both(pipe, gone, None)? {
            (true, _) => return Ok(true),
            (false, is_gone) => is_gone,
        };
        if is_gone {
            // All that the program wrote is in the pipe. Whoever else holds the other end is not waited for.
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            return Ok(poll_both(pipe, gone, Some(now))?.0);
        }
    }
}

fn poll_both(
    pipe: &PipeReader,
    gone: &PipeReader,
    timeout: Option<Timespec>,
) -> io::Result<(bool, bool)> {
    let mut fds = [
        PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(gone.as_fd(), PollFlags::IN),
    ];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok((false, false)),
        Err(error) => Err(error.into()),
    }
}

fn start_drain(
    mut pipe: PipeReader,
    gone: PipeReader,
    tail: Arc<Mutex<Tail>>,
) -> io::Result<thread::JoinHandle<()>> {
    start_thread("stderr", move || {
        let mut buffer = vec![0; 64 << 10];
        let mut give_up_at = None;
        while let Ok(true) = wait_readable(&pipe, &gone) {
            match pipe.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => tail
                    .lock()
                    .expect("no thread panics with the tail locked")
                    .push(&buffer[..count]),
            }
            let is_gone = matches!(
                poll_both(&pipe, &gone, Some(Timespec::default())),
                Ok((_, true))
            );
            if is_gone
                && *give_up_at.get_or_insert_with(|| Instant::now() + STDERR_GRACE) < Instant::now()
            {
                break;
            }
        }
    })
}

/// Enlarges a pipe where that is allowed, and returns its size; a smaller one is only slower.
fn enlarge(pipe: &PipeReader) -> usize {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_SIZE);
        rustix::pipe::fcntl_getpipe_size(pipe).unwrap_or(0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pipe;
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::error::Reason;
    use crate::postgres::tail::{LINE_HELD, LINE_SHOWN, TAIL_LINES};
    use secrecy::SecretString;

    /// A shell script as the program.
    fn script(text: &str) -> Program {
        let environment = Environment::new([("PATH".into(), "/usr/bin:/bin".into())]);
        Program::new("/bin/sh", &environment).args(["-c", text])
    }

    async fn read_all(mut output: Output) -> io::Result<Vec<u8>> {
        tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            output.read_to_end(&mut bytes).map(|_| bytes)
        })
        .await
        .unwrap()
    }

    fn start(text: &str) -> Running {
        script(text).spawn(&CancellationToken::new()).unwrap()
    }

    fn is_alive(pid: i32) -> bool {
        // A zombie of another parent counts as gone.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
    }

    async fn until_gone(pid: i32) {
        for _ in 0..200 {
            if !is_alive(pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("process {pid} lives on");
    }

    #[tokio::test]
    async fn end_of_output_means_exit_0() {
        let mut good = start("echo data; echo careful >&2");
        assert_eq!(read_all(good.take_output()).await.unwrap(), b"data\n");
        assert_eq!(good.wait().await.into_result().unwrap(), ["careful"]);

        let mut bad = start("echo data; sleep 0.1; exit 3");
        let error = read_all(bad.take_output()).await.unwrap_err();
        assert_eq!(error.to_string(), "`sh` exited with status 3");
        assert_eq!(
            bad.wait().await.into_result().unwrap_err().reason,
            Reason::Other { code: 3 }
        );

        let mut killed = start("echo data; kill -9 $$");
        assert!(read_all(killed.take_output()).await.is_err());
        assert_eq!(
            killed.wait().await.into_result().unwrap_err().reason,
            Reason::Killed(9)
        );
    }

    #[tokio::test]
    async fn a_flood_on_stderr_neither_blocks_nor_grows() {
        // No newline at all, far more than a pipe or the tail holds.
        let mut one_line = start("head -c 200000000 /dev/zero | tr '\\0' x >&2; echo done");
        assert_eq!(read_all(one_line.take_output()).await.unwrap(), b"done\n");
        let ended = one_line.wait().await;
        assert_eq!(ended.stderr.len(), 1);
        assert_eq!(ended.stderr[0].len(), LINE_SHOWN + "…".len());
        let held: usize = {
            let tail = one_line.shared.tail.lock().unwrap();
            tail.lines
                .iter()
                .chain([&tail.open])
                .map(Vec::capacity)
                .sum()
        };
        assert!(held <= 2 * LINE_HELD * (TAIL_LINES + 1), "{held}");

        let many = start("seq 1 300000 >&2");
        let lines = many.wait().await.stderr;
        assert_eq!((lines.len(), lines[19].as_str()), (20, "300000"));
    }

    #[tokio::test]
    async fn a_program_that_hangs_behind_its_output_is_ended() {
        let mut running = script("echo data; exec >&-; sleep 60")
            .eof_grace(Duration::from_millis(200))
            .spawn(&CancellationToken::new())
            .unwrap();
        let started = Instant::now();
        let error = read_all(running.take_output()).await.unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert_eq!(running.wait().await.stop, Some(Stop::Hung));
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    /// A system call on a disk that is gone holds a program whatever it is sent.
    #[tokio::test]
    async fn a_program_that_does_not_go_when_it_is_killed_is_left() {
        let running = start("sleep 60");
        let (_never, ended) = watch::channel(false);
        let waiting = running.shared.wait_gone(ended.clone());
        let early = tokio::time::timeout(Duration::from_millis(100), waiting).await;
        assert!(early.is_err(), "nobody killed it");
        running.shared.signal(Signal::KILL, Stop::Interrupted);
        let started = Instant::now();
        running.shared.wait_gone(ended).await;
        assert!(started.elapsed() >= KILL_GRACE);
    }

    #[tokio::test]
    async fn a_grandchild_that_keeps_the_pipes_does_not_hold_us() {
        // In the group: ended with the leader. With a session of its own: not waited for.
        for how in ["sleep 60 &", "setsid sleep 8 &"] {
            let mut running = start(&format!("{how} echo data"));
            let started = Instant::now();
            assert_eq!(
                read_all(running.take_output()).await.unwrap(),
                b"data\n",
                "{how}"
            );
            assert!(running.wait().await.is_success(), "{how}");
            assert!(started.elapsed() < Duration::from_secs(4), "{how}");
        }
    }

    #[tokio::test]
    async fn cancelling_ends_a_program_that_ignores_term_and_its_children() {
        let cancel = CancellationToken::new();
        let mut running = script("trap '' TERM; sleep 61 & echo $!; while :; do sleep 1; done")
            .spawn(&cancel)
            .unwrap();
        let mut output = running.take_output();
        let mut buffer = [0; 32];
        let count = output.read(&mut buffer).unwrap();
        let child: i32 = str::from_utf8(&buffer[..count])
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        cancel.cancel();
        assert!(read_all(output).await.is_err());
        let ended = running.wait().await;
        assert_eq!(
            (ended.stop, ended.signal),
            (Some(Stop::Interrupted), Some(9))
        );
        until_gone(child).await;
        assert!(!is_alive(running.pid()));
    }

    #[tokio::test]
    async fn dropping_ends_the_group_at_once() {
        let running = start("sleep 62 & wait");
        let pid = running.pid();
        assert!(is_alive(pid));
        drop(running);
        until_gone(pid).await;
    }

    #[tokio::test]
    async fn stdin_is_null_bytes_or_a_pipe() {
        let run = |program: Program| async {
            let cancel = CancellationToken::new();
            program
                .run(&cancel, Duration::from_secs(10), 1 << 20)
                .await
                .unwrap()
                .stdout
        };
        assert_eq!(run(script("cat")).await, b"");
        let large = vec![b'x'; 1 << 20];
        assert_eq!(run(script("cat").input(large.clone())).await, large);
        let mut running = script("cat")
            .piped_input()
            .spawn(&CancellationToken::new())
            .unwrap();
        let output = running.take_output();
        let mut input = running.take_input().unwrap();
        input.write_all(b"piped").unwrap();
        drop(input);
        assert_eq!(read_all(output).await.unwrap(), b"piped");
    }

    #[tokio::test]
    async fn runs_have_limits() {
        let cancel = CancellationToken::new();
        let slow = script("sleep 60")
            .run(&cancel, Duration::from_millis(50), 100)
            .await;
        assert_eq!(slow.unwrap_err().reason, Reason::Stopped(Stop::TimedOut));
        let much = script("yes")
            .run(&cancel, Duration::from_secs(10), 1000)
            .await;
        assert_eq!(much.unwrap_err().reason, Reason::Stopped(Stop::TooMuch));
        let missing = Program::new("/no/such", &Environment::new([])).spawn(&cancel);
        let Reason::NotStarted { path, .. } = missing.err().unwrap().reason else {
            panic!("it started");
        };
        assert_eq!(path, PathBuf::from("/no/such"));
    }

    #[tokio::test]
    async fn last_words_hold_no_secret() {
        let mut environment = Environment::new([("PATH".into(), "/usr/bin:/bin".into())]);
        environment.set("PGPASSWORD", "s3cretpw");
        let other = Redactor::new([&SecretString::from("other-secret")]);
        // The secret lies across the cut of a long line.
        let text = "printf '%01996d' 0 >&2; echo $PGPASSWORD >&2; echo x other-secret >&2; exit 1";
        let running = Program::new("/bin/sh", &environment)
            .args(["-c", text])
            .redact(&other)
            .spawn(&CancellationToken::new())
            .unwrap();
        let lines = running.wait().await.stderr;
        assert!(lines[0].ends_with("0***"), "{lines:?}");
        assert_eq!(lines[1], "x ***");
    }

    #[test]
    fn a_tail_does_not_depend_on_how_bytes_are_cut() {
        let text: Vec<u8> = (0..30)
            .flat_map(|n| format!("line {n}\r\n").into_bytes())
            .collect();
        let (mut whole, mut cut) = (Tail::default(), Tail::default());
        whole.push(&text);
        text.chunks(3).for_each(|piece| cut.push(piece));
        let redactor = Redactor::default();
        assert_eq!(whole.lines(&redactor), cut.lines(&redactor));
        assert_eq!(whole.lines(&redactor)[0], "line 10");
    }
}

//! One run of rclone: started without a shell in a process group of its own, its words kept short, ended when it stands
//! still or when its handle goes.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pgkeep_model::redact::Redactor;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::fault;
use super::options::RcloneOptions;
use crate::haste::{self, ANSWER_LIMIT};
use crate::{Error, Result};

/// How much of what rclone says is kept: the end, where the reason stands.
const WORDS_BYTES: usize = 4096;

/// How much is read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// How much longer a move may say nothing: many services copy what they rename, and tell nothing meanwhile.
const MOVE_FACTOR: u32 = 10;

/// What every run is told: never to ask anybody, when a connection that moves nothing is dead, and to do a thing once.
/// Single requests are tried again all the same; a whole run that is repeated would print twice, or miss what it moved.
const ALWAYS: [&str; 4] = [
    "--ask-password=false",
    "--contimeout=20s",
    "--timeout=60s",
    "--retries=1",
];

/// How runs of one storage are started.
#[derive(Clone)]
pub(super) struct Program {
    options: RcloneOptions,
    redactor: Arc<Redactor>,
}

impl Program {
    pub(super) fn new(options: &RcloneOptions) -> Self {
        Self {
            redactor: Arc::new(options.redactor()),
            options: options.clone(),
        }
    }

    /// Starts a verb: its flags, and then what it is about, which is never taken for a flag.
    pub(super) fn start(&self, verb: &[&str], places: &[&str], input: Input) -> Result<Run> {
        let mut command = Command::new(&self.options.program);
        command
            .args(verb)
            .args(ALWAYS)
            .arg("--")
            .args(places)
            .env_clear()
            .envs(self.options.environment())
            .stdin(match input {
                Input::Nothing => Stdio::null(),
                Input::Bytes => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // Ended by `Run`'s drop at the latest, together with what it has started itself.
        let mut child = command
            .spawn()
            .map_err(|error| fault::not_started(&self.options.program, &error))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let stderr = child.stderr.take();
        // Ends with rclone, whose standard error it drains.
        let words = tokio::spawn(words(stderr).in_current_span());
        Ok(Run {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            child,
            group,
            words: Some(words),
            redactor: Arc::clone(&self.redactor),
            stall_timeout: match verb {
                ["moveto", ..] => self.options.stall_timeout * MOVE_FACTOR,
                _ => self.options.stall_timeout,
            },
            verb: verb.first().copied().unwrap_or_default().to_owned(),
            is_over: false,
        })
    }

    /// Runs a verb to its end and returns what it printed, at most `limit` bytes.
    pub(super) async fn output(
        &self,
        verb: &[&str],
        places: &[&str],
        limit: usize,
    ) -> std::result::Result<Bytes, Ended> {
        let in_haste = async {
            haste::begun().await;
            tokio::time::sleep(ANSWER_LIMIT).await;
        };
        tokio::select! {
            printed = self.printed(verb, places, limit) => printed,
            () = in_haste => Err(Ended::Error(Error::failed(format!(
                "`rclone {}` has not answered for {} s",
                verb.first().copied().unwrap_or_default(),
                ANSWER_LIMIT.as_secs()
            )))),
        }
    }

    async fn printed(
        &self,
        verb: &[&str],
        places: &[&str],
        limit: usize,
    ) -> std::result::Result<Bytes, Ended> {
        let mut run = self
            .start(verb, places, Input::Nothing)
            .map_err(Ended::Error)?;
        let mut printed = BytesMut::new();
        while let Some(piece) = run.piece().await.map_err(Ended::Error)? {
            printed.extend_from_slice(&piece);
            if printed.len() > limit {
                return Err(Ended::Error(Error::failed(format!(
                    "`rclone {}` printed more than {limit} bytes",
                    run.verb
                ))));
            }
        }
        run.end().await?;
        Ok(printed.freeze())
    }
}

/// What a run gets on its standard input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Nothing,
    Bytes,
}

/// Why a run did not end well.
#[derive(Debug)]
pub(super) enum Ended {
    /// It said so: its exit code and its last words.
    Code(i32, String),
    /// It did not come so far.
    Error(Error),
}

impl Ended {
    /// Makes an error of it; `what` is what was being done.
    pub(super) fn error(self, what: &str) -> Error {
        match self {
            Self::Code(code, words) => fault::of_words(what, code, &words),
            Self::Error(error) => error,
        }
    }
}

/// A run of rclone. Dropping it kills rclone before its input ends, because it takes the end of its input for success.
pub(super) struct Run {
    child: Child,
    group: Option<Pid>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    words: Option<JoinHandle<String>>,
    redactor: Arc<Redactor>,
    stall_timeout: Duration,
    verb: String,
    is_over: bool,
}

impl Run {
    /// Returns the next piece of what it prints; none at the end of its output, which does not yet mean success.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>> {
        let Some(stdout) = &mut self.stdout else {
            return Ok(None);
        };
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        match within(self.stall_timeout, stdout.read_buf(&mut piece)).await {
            Some(Ok(0)) => Ok(None),
            Some(Ok(_)) => Ok(Some(piece.freeze())),
            Some(Err(error)) => Err(Error::failed(format!(
                "reading from rclone failed: {error}"
            ))),
            None => Err(self.stalled()),
        }
    }

    /// Hands it bytes. Where it takes none it has ended, and [`Run::end`] says why.
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Err(Error::failed("rclone takes no more"));
        };
        while !bytes.is_empty() {
            // Each write that goes through is a sign of life.
            let take = bytes.len().min(PIECE_BYTES);
            match within(self.stall_timeout, stdin.write_all(&bytes.split_to(take))).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    return Err(Error::failed(format!("rclone took no more bytes: {error}")));
                }
                None => return Err(self.stalled()),
            }
        }
        Ok(())
    }

    /// Ends its input, which tells it that everything was given.
    pub(super) fn end_input(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits for its end. Only exit status 0 is one.
    pub(super) async fn end(mut self) -> std::result::Result<(), Ended> {
        let status = match within(self.stall_timeout, self.child.wait()).await {
            Some(Ok(status)) => status,
            Some(Err(error)) => {
                return Err(Ended::Error(Error::failed(format!(
                    "waiting for rclone failed: {error}"
                ))));
            }
            None => return Err(Ended::Error(self.stalled())),
        };
        self.is_over = true;
        if status.success() {
            return Ok(());
        }
        let words = self.last_words().await;
        Err(Ended::Code(code_of(status), words))
    }

    /// Returns how it ended, where it has, or does in a moment.
    pub(super) async fn ended_by_itself(&mut self) -> Option<Ended> {
        let waited = within(Duration::from_secs(2), self.child.wait()).await?;
        self.is_over = true;
        let status = waited.ok()?;
        let words = self.last_words().await;
        Some(Ended::Code(code_of(status), words))
    }

    /// Ends it now, whatever it has not yet taken, and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        self.kill_group();
        let _ = self.child.wait().await; // a killed child has nothing more to say
        self.is_over = true;
    }

    fn kill_group(&self) {
        if let (false, Some(group)) = (self.is_over, self.group) {
            let _ = kill_process_group(group, Signal::KILL); // it may have ended by itself
        }
    }

    async fn last_words(&mut self) -> String {
        let Some(words) = self.words.take() else {
            return String::new();
        };
        // A grandchild may hold the pipe.
        let waited = tokio::time::timeout(Duration::from_secs(2), words).await;
        let said = waited
            .ok()
            .and_then(std::result::Result::ok)
            .unwrap_or_default();
        self.redactor.redact(&said).into_owned()
    }

    fn stalled(&self) -> Error {
        self.kill_group();
        Error::failed(format!(
            "`rclone {}` moved nothing for {} s, and was ended",
            self.verb,
            self.stall_timeout.as_secs()
        ))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Before the fields go, and with them its input.
        self.kill_group();
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

fn code_of(status: ExitStatus) -> i32 {
    // A signal has no code; no code of rclone's is negative.
    status.code().unwrap_or(-1)
}

/// Drains standard error and keeps its end.
async fn words(stderr: Option<ChildStderr>) -> String {
    let mut kept = Vec::new();
    if let Some(stderr) = stderr {
        // What was read before an error is still worth telling.
        let _ = drain(stderr, &mut kept).await;
    }
    String::from_utf8_lossy(&kept).into_owned()
}

async fn drain(mut stderr: impl AsyncRead + Unpin, kept: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 4096];
    loop {
        let count = stderr.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        kept.extend_from_slice(&piece[..count]);
        let excess = kept.len().saturating_sub(WORDS_BYTES);
        kept.drain(..excess);
    }
}

/// Joins a remote and a key.
pub(super) fn place(remote: &str, key: &str) -> String {
    let is_whole = key.is_empty() || remote.ends_with([':', '/']);
    if is_whole {
        format!("{remote}{key}")
    } else {
        format!("{remote}/{key}")
    }
}

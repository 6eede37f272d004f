//! A scripted stand-in for `pg_dump`, `pg_dumpall`, `pg_restore` and `psql`: produces on demand what real ones rarely do.
//!
//! Its name is the program it plays, its behaviour comes from `fake.json` beside the executable (never from the
//! environment, which pgkeep clears for its children). Keys it does not know end it with 99: a misspelt fault would
//! otherwise make a test that cannot fail. `tests/it/support/fake.rs` writes that file.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Signal, getpid, kill_process};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a fake that was set up wrongly.
const MISUSED: i32 = 99;

/// Longer than any test waits.
const FOREVER: Duration = Duration::from_secs(3600);

/// First argument of the grandchild that only holds its inherited pipes open.
const HOLD: &str = "--fake-hold-pipes";

/// What one program does, step by step in the order of the fields.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Script {
    /// Answer to `--version`; nothing else happens then.
    version: Option<String>,
    /// Appends one JSON line with program, argv, environment, cwd and pid to this file, `--version` included.
    record: Option<PathBuf>,
    /// Survives SIGTERM and SIGINT.
    ignores_sigterm: bool,
    /// Starts a grandchild that keeps stdout and stderr open for so long.
    grandchild_ms: Option<u64>,
    /// Sleeps before the first byte.
    sleeps_ms: u64,
    /// Printed to stderr first: warnings.
    stderr: String,
    /// Bytes of noise on stderr, before any output.
    stderr_flood_bytes: u64,
    /// Answers to queries (`psql`), the first match wins.
    answers: Vec<Answer>,
    /// A real program that takes over when no answer matches.
    proxy: Option<PathBuf>,
    /// Reads stdin to its end into this file, as `psql` at a restore.
    saves_stdin: Option<PathBuf>,
    /// Output: a file, or else a small whole dump (`pg_dump`), or globals (`pg_dumpall`).
    body: Option<PathBuf>,
    /// Adds a table with one row of so many bytes to the small dump.
    one_line_bytes: u64,
    /// Leaves the end marker of the small dump out.
    no_end_marker: bool,
    /// Writes no output at all.
    zero_bytes: bool,
    /// Stops in the output after so many bytes and does what is said.
    stops_after: Option<Stop>,
    /// Closes stdout after the output and hangs.
    closes_stdout_then_hangs: bool,
    /// Printed to stderr last.
    last_stderr: String,
    /// Exit code after everything else, the end marker included.
    exit_code: i32,
}

/// What happens after the n-th byte of output. Fields left out do nothing; then the program exits.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Stop {
    bytes: u64,
    /// Creates this file, so that a test knows that the point was reached.
    marks: Option<PathBuf>,
    sleeps_ms: u64,
    /// Goes on with the output after the sleep.
    resumes: bool,
    kills_itself: bool,
    stderr: String,
    exit_code: i32,
}

/// Output for a query that contains a text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// Empty matches every query.
    contains: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    file: Option<PathBuf>,
    #[serde(default)]
    stderr: String,
    #[serde(default)]
    sleeps_ms: u64,
    /// Ends the program.
    #[serde(default)]
    exit_code: Option<i32>,
}

fn main() {
    if env::args().nth(1).as_deref() == Some(HOLD) {
        let ms = env::args().nth(2).and_then(|ms| ms.parse().ok());
        thread::sleep(ms.map_or(FOREVER, Duration::from_millis));
        return;
    }
    let code = match play() {
        Ok(code) => code,
        // The reader went away: what a real program notices as SIGPIPE.
        Err(error) if is_broken_pipe(&error) => 141,
        Err(error) => {
            eprintln!("fake: {error:#}");
            MISUSED
        }
    };
    exit(code);
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn play() -> anyhow::Result<i32> {
    let program = program_name()?;
    let script = read_script(&program)?;
    if let Some(file) = &script.record {
        record(&program, file)?;
    }
    if let Some(version) = &script.version
        && env::args().any(|argument| argument == "--version" || argument == "-V")
    {
        println!("{program} (PostgreSQL) {version}");
        return Ok(0);
    }
    let _handlers = script.ignores_sigterm.then(ignore_signals).transpose()?;
    misbehave_first(&script)?;
    if let Some(code) = answer(&script)? {
        return Ok(code);
    }
    if let Some(file) = &script.saves_stdin {
        io::copy(&mut io::stdin().lock(), &mut fs::File::create(file)?)?;
    }
    if let Some(code) = write_output(&program, &script)? {
        return Ok(code);
    }
    finish(&script)
}

/// The name that the program was called by may be a bare name; where the executable lies is what counts.
fn program_name() -> anyhow::Result<String> {
    let program = env::args().next().context("no argv[0]")?;
    let name = Path::new(&program)
        .file_name()
        .context("argv[0] is empty")?;
    Ok(name.to_string_lossy().into_owned())
}

fn read_script(program: &str) -> anyhow::Result<Script> {
    let file = env::current_exe()?.with_file_name("fake.json");
    let text = fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let mut scripts: BTreeMap<String, Script> = serde_json::from_slice(&text)?;
    Ok(scripts.remove(program).unwrap_or_default())
}

fn record(program: &str, file: &Path) -> anyhow::Result<()> {
    let environment: BTreeMap<String, String> = env::vars_os()
        .map(|(key, value)| {
            (
                key.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    let line = serde_json::json!({
        "program": program,
        "argv": env::args().skip(1).collect::<Vec<_>>(),
        "environment": environment,
        "cwd": env::current_dir()?,
        "pid": std::process::id(),
    });
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    // One write, so that lines of parallel programs do not mix.
    file.write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}

/// Handlers stay installed for the life of the process; nobody reads them.
fn ignore_signals() -> anyhow::Result<impl Sized> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let signals = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    Ok((signals, runtime))
}

fn misbehave_first(script: &Script) -> anyhow::Result<()> {
    if let Some(ms) = script.grandchild_ms {
        // Outlives this process on purpose; it ends by itself or with its process group.
        Command::new(env::current_exe()?)
            .args([HOLD, &ms.to_string()])
            .spawn()?;
    }
    thread::sleep(Duration::from_millis(script.sleeps_ms));
    eprint!("{}", script.stderr);
    let noise = "pg_dump: warning: the same line again and again, to fill any pipe there is\n";
    let mut stderr = io::stderr().lock();
    let mut left = script.stderr_flood_bytes;
    while left > 0 {
        let some = noise.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        stderr.write_all(&noise.as_bytes()[..some])?;
        left -= some as u64;
    }
    Ok(())
}

/// Answers the query of `-c`, or statement after statement from stdin until its end.
fn answer(script: &Script) -> anyhow::Result<Option<i32>> {
    if script.answers.is_empty() && script.proxy.is_none() {
        return Ok(None);
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has_command = arguments.iter().any(|argument| {
        (argument.starts_with("-c") && !argument.starts_with("-c="))
            || argument.starts_with("--command")
    });
    if has_command || script.answers.is_empty() {
        return match find(script, &arguments.join(" ")) {
            Some(found) => give(found).map(|code| Some(code.unwrap_or(0))),
            None => pass_on(script, &arguments),
        };
    }
    answer_stdin(script)
}

fn find<'a>(script: &'a Script, query: &str) -> Option<&'a Answer> {
    script
        .answers
        .iter()
        .find(|answer| query.contains(&answer.contains))
}

fn give(answer: &Answer) -> anyhow::Result<Option<i32>> {
    thread::sleep(Duration::from_millis(answer.sleeps_ms));
    eprint!("{}", answer.stderr);
    let mut stdout = io::stdout().lock();
    if let Some(file) = &answer.file {
        stdout.write_all(&fs::read(file)?)?;
    }
    stdout.write_all(answer.text.as_bytes())?;
    stdout.flush()?;
    Ok(answer.exit_code)
}

fn pass_on(script: &Script, arguments: &[String]) -> anyhow::Result<Option<i32>> {
    let Some(real) = &script.proxy else {
        anyhow::bail!("no answer for: {}", arguments.join(" "));
    };
    let error = Command::new(real).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run `{}`", real.display()))
}

/// A session held open by its writer: each line that ends a statement is answered at once.
fn answer_stdin(script: &Script) -> anyhow::Result<Option<i32>> {
    let mut statement = String::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        if let Some(text) = line.strip_prefix("\\echo ") {
            println!("{text}");
            io::stdout().flush()?;
            continue;
        }
        if line.starts_with("\\q") {
            break;
        }
        statement.push_str(&line);
        statement.push('\n');
        let is_whole = line.trim_end().ends_with(';') || line.contains("\\g");
        if is_whole {
            if let Some(found) = find(script, &statement)
                && let Some(code) = give(found)?
            {
                return Ok(Some(code));
            }
            statement.clear();
        }
    }
    Ok(Some(script.exit_code))
}

/// Writes the output; returns a code when it stops on the way.
fn write_output(program: &str, script: &Script) -> anyhow::Result<Option<i32>> {
    if script.zero_bytes {
        return Ok(None);
    }
    let mut output = Output {
        stdout: io::stdout().lock(),
        stop: script.stops_after.as_ref(),
        written: 0,
    };
    let stopped = match &script.body {
        Some(file) => output.write(&fs::read(file).with_context(|| file.display().to_string())?)?,
        None if program == "pg_dumpall" => output.write(GLOBALS.as_bytes())?,
        None if program.starts_with("pg_dump") => small_dump(&mut output, script)?,
        None => None,
    };
    output.stdout.flush()?;
    Ok(stopped)
}

struct Output<'a> {
    stdout: io::StdoutLock<'static>,
    stop: Option<&'a Stop>,
    written: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<Option<i32>> {
        let end = self.written + bytes.len() as u64;
        let stop = self.stop.filter(|stop| stop.bytes <= end);
        let Some(stop) = stop else {
            self.written = end;
            self.stdout.write_all(bytes)?;
            return Ok(None);
        };
        let (now, later) = bytes.split_at(usize::try_from(stop.bytes - self.written)?);
        self.stdout.write_all(now)?;
        self.stdout.flush()?;
        self.stop = None;
        self.written = stop.bytes;
        if let Some(code) = carry_out(stop)? {
            return Ok(Some(code));
        }
        self.write(later)
    }
}

/// Does what was asked for at this byte; `None` goes on with the output.
fn carry_out(stop: &Stop) -> anyhow::Result<Option<i32>> {
    eprint!("{}", stop.stderr);
    if let Some(file) = &stop.marks {
        fs::write(file, "")?;
    }
    thread::sleep(Duration::from_millis(stop.sleeps_ms));
    if stop.kills_itself {
        kill_process(getpid(), Signal::KILL)?;
    }
    Ok((!stop.resumes).then_some(stop.exit_code))
}

/// A whole dump with two tables, `public.users` (3 rows) and `public.orders` (2), in pg_dump's own form.
fn small_dump(output: &mut Output<'_>, script: &Script) -> anyhow::Result<Option<i32>> {
    let mut parts: Vec<&[u8]> = vec![HEAD.as_bytes(), TABLES.as_bytes()];
    if script.one_line_bytes > 0 {
        parts.push(BIG_TABLE.as_bytes());
    }
    parts.push(ROWS.as_bytes());
    for part in parts {
        if let Some(code) = output.write(part)? {
            return Ok(Some(code));
        }
    }
    if script.one_line_bytes > 0
        && let Some(code) = big_row(output, script.one_line_bytes)?
    {
        return Ok(Some(code));
    }
    if script.no_end_marker {
        return Ok(None);
    }
    output.write(END_MARKER.as_bytes())
}

fn big_row(output: &mut Output<'_>, bytes: u64) -> anyhow::Result<Option<i32>> {
    let block = [b'x'; 65536];
    output.write(b"COPY public.big (body) FROM stdin;\n")?;
    let mut left = bytes;
    while left > 0 {
        let some = block.len().min(usize::try_from(left)?);
        if let Some(code) = output.write(&block[..some])? {
            return Ok(Some(code));
        }
        left -= some as u64;
    }
    output.write(b"\n\\.\n\n")
}

fn finish(script: &Script) -> anyhow::Result<i32> {
    if script.closes_stdout_then_hangs {
        // Standard output cannot be closed in safe Rust; a pipe's reader sees the same when it is put over by another file.
        rustix::stdio::dup2_stdout(fs::File::open("/dev/null")?)?;
        thread::sleep(FOREVER);
    }
    eprint!("{}", script.last_stderr);
    Ok(script.exit_code)
}

const HEAD: &str = "--
-- PostgreSQL database dump
--

-- Dumped from database version 15.18
-- Dumped by pg_dump version 15.18

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

";

const TABLES: &str = "--
-- Name: orders; Type: TABLE; Schema: public; Owner: keeper
--

CREATE TABLE public.orders (
    id integer NOT NULL,
    user_id integer
);


--
-- Name: users; Type: TABLE; Schema: public; Owner: keeper
--

CREATE TABLE public.users (
    id integer NOT NULL,
    name text
);


";

const BIG_TABLE: &str = "--
-- Name: big; Type: TABLE; Schema: public; Owner: keeper
--

CREATE TABLE public.big (
    body text
);


";

const ROWS: &str = "--
-- Data for Name: orders; Type: TABLE DATA; Schema: public; Owner: keeper
--

COPY public.orders (id, user_id) FROM stdin;
1\t1
2\t3
\\.


--
-- Data for Name: users; Type: TABLE DATA; Schema: public; Owner: keeper
--

COPY public.users (id, name) FROM stdin;
1\tAda
2\tGrace
3\t\\N
\\.


";

/// What `pg_dumpall --globals-only` writes.
const GLOBALS: &str = "--
-- PostgreSQL database cluster dump
--

SET default_transaction_read_only = off;

CREATE ROLE keeper;
ALTER ROLE keeper WITH SUPERUSER LOGIN;

--
-- PostgreSQL database cluster dump complete
--

";

const END_MARKER: &str = "--
-- PostgreSQL database dump complete
--

";

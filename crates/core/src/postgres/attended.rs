//! The command behind a guard: it has our own standard input, output, error and environment, and gets our signals.
//!
//! Unlike every other program it is not ours to end: it is waited for as long as it takes, and a kill of ours leaves it
//! alone. No shell reads it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedReceiver;

use pgkeep_model::failure::Kind;

/// A command of the user's own.
#[derive(Clone, Debug)]
pub struct Attended {
    program: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

/// Why there is no command to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Nothing of this name is in the PATH, or at its place.
    Missing,
    /// It is there and may not be executed.
    NotExecutable,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether we were signalled meanwhile.
    pub is_interrupted: bool,
}

impl Left {
    /// Returns the code as a shell tells it: 128 and its number for a signal.
    pub fn exit_code(&self) -> u8 {
        let code = self
            .code
            .or(self.signal.map(|signal| 128 + signal))
            .unwrap_or(1);
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

impl Attended {
    /// Looks a command up as a shell does: in `path`, or where its name says if it holds a slash.
    pub fn find(command: &[OsString], path: Option<&OsStr>) -> Result<Self, Unfit> {
        let (name, arguments) = command.split_first().ok_or(Unfit::Missing)?;
        let has_place = name.as_encoded_bytes().contains(&b'/');
        let found = if has_place {
            Some(PathBuf::from(name)).filter(|file| is_executable(file))
        } else {
            which::which_in_global(name, path)
                .ok()
                .and_then(|mut found| found.next())
        };
        match found {
            Some(program) => Ok(Self {
                program,
                name: name.clone(),
                arguments: arguments.to_vec(),
            }),
            None if has_place && Path::new(name).exists() => Err(Unfit::NotExecutable),
            None => Err(Unfit::Missing),
        }
    }

    /// Returns the command's name without its folder and its arguments, which may hold secrets.
    pub fn label(&self) -> String {
        let name = Path::new(&self.name).file_name().unwrap_or(&self.name);
        name.to_string_lossy().into_owned()
    }

    /// Starts it. What is no program that the system knows is a script without a first line that names its shell, and `sh`
    /// reads it, as every shell does. <https://pubs.opengroup.org/onlinepubs/9799919799/functions/execvp.html>
    fn spawn(&self) -> io::Result<Child> {
        let started = Command::new(&self.program)
            .arg0(&self.name)
            .args(&self.arguments)
            .spawn();
        match started {
            Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
                Command::new("/bin/sh")
                    .arg(&self.program)
                    .args(&self.arguments)
                    .spawn()
            }
            started => started,
        }
    }

    /// Runs it to its end, and passes on what comes out of `signals`.
    ///
    /// It stays in our process group, so that the terminal's job control is the user's. It lives on where this future is
    /// dropped.
    pub async fn run(&self, signals: &mut UnboundedReceiver<Kind>) -> io::Result<Left> {
        let mut child = self.spawn()?;
        let mut is_interrupted = false;
        loop {
            let signal = tokio::select! {
                status = child.wait() => return Ok(left(status?, is_interrupted)),
                Some(signal) = signals.recv() => signal,
            };
            is_interrupted = true;
            pass_on(signal, &child);
        }
    }
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, Access::EXEC_OK).is_ok()
}

fn left(status: ExitStatus, is_interrupted: bool) -> Left {
    Left {
        code: status.code(),
        signal: status.signal(),
        is_interrupted,
    }
}

fn pass_on(kind: Kind, child: &Child) {
    let pid = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let signal = match kind {
        Kind::Terminated => Signal::TERM,
        // Ctrl-C goes to the whole group: the command has it already, and takes a second one for impatience.
        _ if is_in_foreground() => return,
        _ => Signal::INT,
    };
    if let Some(pid) = pid {
        // It is not reaped yet, so the number is its own; one that ends at this moment needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// Tells whether our group is the one that the terminal's keys signal.
fn is_in_foreground() -> bool {
    let terminal = File::open("/dev/tty");
    terminal.is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn find(command: &[&str]) -> Result<Attended, Unfit> {
        let command: Vec<OsString> = command.iter().map(Into::into).collect();
        Attended::find(&command, Some(OsStr::new("/usr/bin:/bin")))
    }

    #[test]
    fn a_command_is_looked_up_as_a_shell_does() {
        let command = find(&["sh", "-c", "secret"]).unwrap();
        assert_eq!(command.label(), "sh");
        assert_eq!(find(&["/bin/sh"]).unwrap().label(), "sh");
        assert_eq!(find(&[]).unwrap_err(), Unfit::Missing);
        assert_eq!(find(&["no-such-command"]).unwrap_err(), Unfit::Missing);
        assert_eq!(find(&["./no-such-command"]).unwrap_err(), Unfit::Missing);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        assert_eq!(find(&[&path]).unwrap_err(), Unfit::NotExecutable);
        assert_eq!(find(&["/usr"]).unwrap_err(), Unfit::NotExecutable);
        // A name with a slash is taken from here, and the PATH has no part in it.
        assert_eq!(find(&["./Cargo.toml"]).unwrap_err(), Unfit::NotExecutable);
        assert_eq!(find(&["../../scripts/test"]).unwrap().label(), "test");
        assert_eq!(find(&["./../../scripts/test"]).unwrap().label(), "test");
    }

    #[tokio::test]
    async fn a_script_that_names_no_shell_is_read_by_sh() {
        let (_sender, mut signals) = mpsc::unbounded_channel();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("migrate");
        std::fs::write(&file, "exit $1\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).unwrap();
        let command = find(&[file.to_str().unwrap(), "9"]).unwrap();
        assert_eq!(command.run(&mut signals).await.unwrap().exit_code(), 9);
    }

    #[tokio::test]
    async fn its_end_is_told_as_a_shell_tells_it() {
        let (_sender, mut signals) = mpsc::unbounded_channel();
        for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143)] {
            let command = find(&["sh", "-c", script]).unwrap();
            let left = command.run(&mut signals).await.unwrap();
            assert_eq!((left.exit_code(), left.is_interrupted), (code, false));
        }
    }

    #[tokio::test]
    async fn a_signal_is_passed_on_and_its_end_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let script = format!(
            "trap 'exit 7' TERM; : > {}; while :; do sleep 0.01; done",
            ready.display()
        );
        let command = find(&["sh", "-c", &script]).unwrap();
        let (sender, mut signals) = mpsc::unbounded_channel();
        let signal = async {
            while !ready.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            sender.send(Kind::Terminated).unwrap();
        };
        let (left, ()) = tokio::join!(command.run(&mut signals), signal);
        let left = left.unwrap();
        assert_eq!((left.exit_code(), left.is_interrupted), (7, true));
    }
}

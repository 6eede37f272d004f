//! Small files that somebody names: a configuration, a password. Read in bounded time and memory, whatever stands there.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Longest file that is read: a configuration of 1000 databases has 300 KiB.
const MAX_BYTES: u64 = 2 << 20;

/// How often somebody is asked whether to go on waiting.
const PATIENCE: Duration = Duration::from_millis(50);

/// Reads a text. A named pipe without a writer is waited for until `is_stopped`.
pub(super) fn read_text(path: &Path, is_stopped: &dyn Fn() -> bool) -> io::Result<String> {
    let (sender, receiver) = channel();
    let path = path.to_owned();
    // Opening and reading may block for ever. What is not waited for any more ends with the program.
    std::thread::spawn(move || {
        let _ = sender.send(read(&path)); // nobody waits any more
    });
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(read) => return read,
            Err(RecvTimeoutError::Timeout) if !is_stopped() => {}
            Err(_) => return Err(io::Error::from(io::ErrorKind::Interrupted)),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        let why = format!("it is longer than {} MiB", MAX_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn what_has_no_end_is_refused() {
        let error = read_text(Path::new("/dev/zero"), &|| false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let pipe: PathBuf = folder.path().join("pipe");
        let path = rustix::fs::CWD;
        rustix::fs::mknodat(
            path,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o600),
            0,
        )
        .unwrap();
        let error = read_text(&pipe, &|| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}

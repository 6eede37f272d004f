//! Where rows go: standard output, or a file that appears whole or not at all. The last rows wait for the proof.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Output;
use crate::stream::beside::Beside;
use pgkeep_model::failure::{Failure, Kind, Result};

/// Bytes that are gathered before they are written. As many are held back, so that whoever reads standard output
/// meets no end before the proof, and small tables are printed only when they are proven.
const BUFFER_BYTES: usize = 64 * 1024;

/// A target that is open.
pub(super) struct Target {
    kind: Kinds,
    /// Rows that wait for the proof.
    held: Vec<u8>,
    /// Rows that are gathered.
    out: Vec<u8>,
    /// How writing ended, until whoever wrote is told.
    ended: Option<Ended>,
    /// Whether anything went out that cannot be taken back.
    pub is_begun: bool,
}

enum Kinds {
    Stdout,
    File(Beside),
}

/// How writing ended early.
pub(super) enum Ended {
    /// Nobody reads any more, as behind `head`.
    Left,
    /// The target failed.
    Failed(Failure),
}

/// Refuses to replace a file, before anything is read.
pub(super) fn check(output: &Output) -> Result<()> {
    match output {
        Output::File { path, replace } => Beside::check(path, *replace),
        Output::Stdout => Ok(()),
    }
}

impl Target {
    pub(super) fn open(output: &Output) -> Result<Self> {
        let kind = match output {
            Output::Stdout => Kinds::Stdout,
            Output::File { path, replace } => {
                Kinds::File(Beside::start(path, *replace, "extract")?)
            }
        };
        Ok(Self {
            kind,
            held: Vec::new(),
            out: Vec::new(),
            ended: None,
            is_begun: false,
        })
    }

    /// Takes what `write` writes. However long it is, no more than two buffers wait here.
    pub(super) fn put(
        &mut self,
        write: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> std::result::Result<(), Ended> {
        write(self).map_err(|error| {
            let failed = || Ended::Failed(self.kind.cannot_write(&error));
            self.ended.take().unwrap_or_else(failed)
        })
    }

    /// Puts the last bytes behind what waits for the proof.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes what is held when enough is gathered behind it.
    fn pass(&mut self) -> std::result::Result<(), Ended> {
        if self.out.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.write_held()?;
        std::mem::swap(&mut self.held, &mut self.out);
        Ok(())
    }

    fn write_held(&mut self) -> std::result::Result<(), Ended> {
        let written = match &self.kind {
            Kinds::Stdout => {
                self.is_begun |= !self.held.is_empty();
                io::stdout().lock().write_all(&self.held)
            }
            Kinds::File(beside) => beside.file().write_all(&self.held),
        };
        self.held.clear();
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ended::Left,
            _ => Ended::Failed(self.kind.cannot_write(&error)),
        })
    }

    /// Writes the rest: the rows are proven. Returns the file.
    pub(super) fn finish(mut self) -> Result<Option<PathBuf>> {
        let mut write = || {
            self.write_held()?;
            self.held = std::mem::take(&mut self.out);
            self.write_held()
        };
        match write() {
            Ok(()) | Err(Ended::Left) => {}
            Err(Ended::Failed(failure)) => return Err(failure),
        }
        match self.kind {
            Kinds::Stdout => match io::stdout().lock().flush() {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(Kinds::Stdout.cannot_write(&error))
                }
                _ => Ok(None),
            },
            Kinds::File(beside) => beside.finish().map(Some),
        }
    }
}

impl Kinds {
    fn cannot_write(&self, error: &io::Error) -> Failure {
        match self {
            Self::Stdout => {
                let message = format!("cannot write standard output: {error}");
                Failure::new(Kind::Storage, "cannot_write", message)
            }
            Self::File(beside) => beside.cannot_write(error),
        }
    }
}

impl Write for Target {
    /// Takes a long value in pieces, so that it goes out while it is written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BUFFER_BYTES);
        self.out.extend_from_slice(&bytes[..taken]);
        self.pass().map(|()| taken).map_err(|ended| {
            self.ended = Some(ended);
            io::Error::other("writing ended")
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

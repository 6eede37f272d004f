//! Where rows go: standard output, or a file that appears whole or not at all. The last rows wait for the proof.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Output;
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
    pub out: Vec<u8>,
    /// Whether anything went out that cannot be taken back.
    pub is_begun: bool,
    what: String,
}

enum Kinds {
    Stdout,
    File {
        file: File,
        staged: NamedTempFile,
        path: PathBuf,
        replace: bool,
    },
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
        Output::File { path, replace } if !replace && path.exists() => Err(exists(path)),
        _ => Ok(()),
    }
}

fn exists(path: &Path) -> Failure {
    let message = format!("will not replace `{}`; nothing was written", path.display());
    Failure::new(Kind::Refused, "file_exists", message).hint("`--force` replaces it")
}

impl Target {
    pub(super) fn open(output: &Output) -> Result<Self> {
        let (kind, what) = match output {
            Output::Stdout => (Kinds::Stdout, "standard output".to_owned()),
            Output::File { path, replace } => {
                let what = format!("`{}`", path.display());
                let folder = path
                    .parent()
                    .filter(|folder| !folder.as_os_str().is_empty())
                    .unwrap_or(Path::new("."));
                let staged = tempfile::Builder::new()
                    .prefix(".pgkeep-extract-")
                    .tempfile_in(folder);
                let opened = staged.and_then(|staged| Ok((staged.as_file().try_clone()?, staged)));
                let (file, staged) = opened.map_err(|error| cannot_write(&what, &error))?;
                let kind = Kinds::File {
                    file,
                    staged,
                    path: path.clone(),
                    replace: *replace,
                };
                (kind, what)
            }
        };
        Ok(Self {
            kind,
            held: Vec::new(),
            out: Vec::new(),
            is_begun: false,
            what,
        })
    }

    /// Writes what is held when enough is gathered behind it.
    pub(super) fn pass(&mut self) -> std::result::Result<(), Ended> {
        if self.out.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.write_held()?;
        std::mem::swap(&mut self.held, &mut self.out);
        Ok(())
    }

    fn write_held(&mut self) -> std::result::Result<(), Ended> {
        let written = match &mut self.kind {
            Kinds::Stdout => {
                self.is_begun |= !self.held.is_empty();
                io::stdout().lock().write_all(&self.held)
            }
            Kinds::File { file, .. } => file.write_all(&self.held),
        };
        self.held.clear();
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ended::Left,
            _ => Ended::Failed(cannot_write(&self.what, &error)),
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
        let failed = |error: io::Error| cannot_write(&self.what, &error);
        match self.kind {
            Kinds::Stdout => match io::stdout().lock().flush() {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
                _ => Ok(None),
            },
            Kinds::File {
                file,
                staged,
                path,
                replace,
            } => {
                file.sync_all().map_err(failed)?;
                let persisted = if replace {
                    staged.persist(&path)
                } else {
                    staged.persist_noclobber(&path)
                };
                match persisted {
                    Ok(_) => Ok(Some(path)),
                    Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                        Err(exists(&path))
                    }
                    Err(error) => Err(failed(error.error)),
                }
            }
        }
    }
}

fn cannot_write(what: &str, error: &io::Error) -> Failure {
    Failure::new(
        Kind::Storage,
        "cannot_write",
        format!("cannot write {what}: {error}"),
    )
}

//! Writes a file beside its place and renames it when it is whole, so that no one meets half of one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use pgkeep_model::failure::{Failure, Kind, Result};

/// A file under way. Dropping it removes what was written.
pub(crate) struct Beside {
    staged: NamedTempFile,
    path: PathBuf,
    /// Whether a file that is in its place may be replaced.
    replace: bool,
}

impl Beside {
    /// Refuses to replace a file, before anything is read.
    pub(crate) fn check(path: &Path, replace: bool) -> Result<()> {
        if !replace && path.exists() {
            return Err(exists(path));
        }
        Ok(())
    }

    /// Makes an empty file in the folder of `path`; `verb` is part of its name, for whoever finds it after a crash.
    pub(crate) fn start(path: &Path, replace: bool, verb: &str) -> Result<Self> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let staged = tempfile::Builder::new()
            .prefix(&format!(".pgkeep-{verb}-"))
            .tempfile_in(folder)
            .map_err(|error| cannot_write(path, &error))?;
        Ok(Self {
            staged,
            path: path.to_owned(),
            replace,
        })
    }

    /// Returns the file to write into.
    pub(crate) fn file(&self) -> &File {
        self.staged.as_file()
    }

    /// Returns the failure of a write.
    pub(crate) fn cannot_write(&self, error: &io::Error) -> Failure {
        cannot_write(&self.path, error)
    }

    /// Brings what was written to disk, puts the file into its place, and returns that. It blocks.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        let Self {
            staged,
            path,
            replace,
        } = self;
        let synced = staged.as_file().sync_all();
        synced.map_err(|error| cannot_write(&path, &error))?;
        let renamed = if replace {
            staged.persist(&path)
        } else {
            staged.persist_noclobber(&path)
        };
        match renamed {
            Ok(_) => Ok(path),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&path)),
            Err(error) => Err(cannot_write(&path, &error.error)),
        }
    }
}

fn exists(path: &Path) -> Failure {
    let message = format!("will not replace `{}`; nothing was written", path.display());
    Failure::new(Kind::Refused, "file_exists", message).hint("`--force` replaces it")
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot write `{}`: {error}", path.display());
    Failure::new(Kind::Storage, "cannot_write", message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let names = || fs::read_dir(folder.path()).unwrap().count();

        let left = Beside::start(&path, false, "test").unwrap();
        left.file().write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(left);
        assert_eq!(names(), 0);

        let kept = Beside::start(&path, false, "test").unwrap();
        kept.file().write_all(b"whole").unwrap();
        assert_eq!(kept.finish().unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(), 1);
    }

    #[test]
    fn a_file_that_came_meanwhile_is_only_replaced_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        for (replace, id) in [(false, Some("file_exists")), (true, None)] {
            let beside = Beside::start(&path, replace, "test").unwrap();
            fs::write(&path, "somebody else's").unwrap();
            let ended = beside.finish();
            assert_eq!(ended.err().map(|failure| failure.id), id);
        }
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert_eq!(Beside::check(&path, false).unwrap_err().id, "file_exists");
        assert!(Beside::check(&path, true).is_ok());
    }
}

//! A log file that is rotated by size: `pgkeep.log`, then `pgkeep.log.1` and so on, the highest the oldest.
//!
//! Several runs may write to one file at once: each line is one write at its end, and a run that finds the file moved
//! by another one follows. A line is lost where the disk refuses it; nothing else ever is, and nothing waits. A file that
//! cannot be moved aside grows on.
//!
//! No crate does this: those that rotate by size take it that they are alone, and go on writing into a file that
//! another process has renamed or removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// What is wrong with a log file.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The line is lost.
    NotWritten(io::Error),
    /// The line stands there, in a file that is past its limit. Told once, until somebody moves the file.
    NotRotated(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::NotWritten(error)
    }
}

/// A log file, opened by its first line.
pub(super) struct Rotated {
    path: PathBuf,
    max_size: u64,
    keep: u32,
    file: Option<File>,
    /// Whether the last line may stand there in part.
    is_torn: bool,
    /// Whether it could not be rotated. It is not tried again with each line: that would move the older ones on each time.
    is_stuck: bool,
}

impl Rotated {
    /// Names a log file that grows to `max_size` bytes, and keeps so many older ones.
    pub(super) fn new(path: PathBuf, max_size: u64, keep: u32) -> Self {
        Self {
            path,
            max_size,
            keep,
            file: None,
            is_torn: false,
            is_stuck: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what the file may grow to, and how many older ones are kept.
    pub(super) fn limit(&mut self, max_size: u64, keep: u32) {
        self.max_size = max_size;
        self.keep = keep;
    }

    /// Writes one line, its end included.
    pub(super) fn write(&mut self, line: &str) -> Result<(), Trouble> {
        if self.is_moved() {
            self.file = None;
            self.is_stuck = false;
        }
        let is_full = self.size()? + line.len() as u64 > self.max_size;
        let rotated = if is_full && !self.is_stuck && self.may_rotate()? {
            self.rotate()
        } else {
            Ok(())
        };
        if rotated.is_err() {
            self.is_stuck = true;
            // Opened again without the lock, so that another run may do it.
            self.file = None;
        }
        self.append(line)?;
        rotated.map_err(Trouble::NotRotated)
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let is_torn = std::mem::take(&mut self.is_torn);
        let line = if is_torn {
            format!("\n{line}")
        } else {
            line.to_owned()
        };
        let written = self.open()?.write_all(line.as_bytes());
        self.is_torn = written.is_err();
        written
    }

    /// Returns the file, opened for its owner alone where it has to be made.
    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            // A pipe that nobody reads would hold the run up; so it is an error instead.
            let no_wait = OFlags::NONBLOCK.bits().cast_signed();
            let options = options
                .create(true)
                .append(true)
                .mode(0o600)
                .custom_flags(no_wait);
            self.file = Some(options.open(&self.path)?);
        }
        self.file
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn size(&mut self) -> io::Result<u64> {
        Ok(self.open()?.metadata()?.len())
    }

    /// Tells whether another run, or an operator, has put another file or none into the place of ours.
    fn is_moved(&self) -> bool {
        let Some(ours) = self.file.as_ref().and_then(|file| file.metadata().ok()) else {
            return false;
        };
        fs::metadata(&self.path).map_or(true, |there| {
            (there.ino(), there.dev()) != (ours.ino(), ours.dev())
        })
    }

    /// Tells whether the file is one to rename, has lines, and nobody else renames it right now. The lock is the
    /// file's own and goes with it.
    fn may_rotate(&mut self) -> io::Result<bool> {
        let file = self.open()?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() == 0 || file.try_lock().is_err() {
            return Ok(false);
        }
        // Between the look and the lock it may have been renamed.
        Ok(!self.is_moved())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        }
        for number in (1..self.keep).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep > 0 {
            fs::rename(&self.path, numbered(1))?;
        }
        self.file = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn numbered(folder: &Path, number: u32) -> PathBuf {
        folder.join(format!("log.{number}"))
    }

    #[test]
    fn grows_to_its_limit_and_keeps_so_many_older_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Rotated::new(path.clone(), 20, 2);
        assert!(!path.exists(), "nothing is made before the first line");
        for number in 1..=9 {
            log.write(&format!("line {number:02}\n")).unwrap();
        }
        assert_eq!(lines(&path), ["line 09"]);
        assert_eq!(lines(&numbered(folder.path(), 1)), ["line 07", "line 08"]);
        assert_eq!(lines(&numbered(folder.path(), 2)), ["line 05", "line 06"]);
        assert!(!numbered(folder.path(), 3).exists());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_line_longer_than_the_limit_is_written_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Rotated::new(path.clone(), 10, 1);
        let long = "x".repeat(50);
        for text in ["short", &long, "last"] {
            log.write(&format!("{text}\n")).unwrap();
        }
        assert_eq!(lines(&path), ["last"]);
        assert_eq!(lines(&numbered(folder.path(), 1)), [long]);
    }

    #[test]
    fn nothing_older_is_kept_where_none_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Rotated::new(path.clone(), 10, 0);
        for number in 1..=3 {
            log.write(&format!("line {number}\n")).unwrap();
        }
        assert_eq!(lines(&path), ["line 3"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn follows_a_file_that_somebody_moved_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Rotated::new(path.clone(), 1000, 2);
        log.write("one\n").unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        log.write("two\n").unwrap();
        assert_eq!(lines(&path), ["two"]);
        fs::remove_file(&path).unwrap();
        log.write("three\n").unwrap();
        assert_eq!(lines(&path), ["three"]);
    }

    #[test]
    fn writers_side_by_side_lose_no_line_and_tear_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let mut log = Rotated::new(path.clone(), 2000, 100);
                thread::spawn(move || {
                    for number in 0..200 {
                        log.write(&format!("{writer} {number:03}\n")).unwrap();
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        let files = fs::read_dir(folder.path()).unwrap();
        let mut all: Vec<String> = files
            .flat_map(|file| lines(&file.unwrap().path()))
            .collect();
        all.sort();
        let wanted =
            (0..4).flat_map(|writer| (0..200).map(move |number| format!("{writer} {number:03}")));
        assert_eq!(all, wanted.collect::<Vec<_>>());
    }

    /// A folder in the way, which stands for one that lets nobody rename: root may do that everywhere.
    #[test]
    fn a_file_that_cannot_be_rotated_is_told_once_and_takes_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let in_the_way = numbered(folder.path(), 1);
        fs::create_dir(&in_the_way).unwrap();
        let mut log = Rotated::new(path.clone(), 10, 1);
        log.write("line 1\n").unwrap();
        let told = log.write("line 2\n").unwrap_err();
        assert!(matches!(told, Trouble::NotRotated(_)), "{told:?}");
        log.write("line 3\n").unwrap();
        assert_eq!(lines(&path), ["line 1", "line 2", "line 3"]);
        // Once somebody has moved it, it is rotated again.
        fs::rename(&path, folder.path().join("moved")).unwrap();
        fs::remove_dir(&in_the_way).unwrap();
        log.write("line 4\n").unwrap();
        log.write("line 5\n").unwrap();
        assert_eq!(
            (lines(&path), lines(&in_the_way)),
            (vec!["line 5".into()], vec!["line 4".into()])
        );
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        assert!(
            Rotated::new(pipe, 10, 1).write("x\n").is_err(),
            "nobody reads it"
        );
        let missing = folder.path().join("no/such/log");
        assert!(Rotated::new(missing, 10, 1).write("x\n").is_err());
        let mut full = Rotated::new("/dev/full".into(), 10, 1);
        assert!(full.write("x\n").is_err() && full.write("y\n").is_err());
        assert!(Path::new("/dev/full").exists(), "a device is never renamed");
    }
}

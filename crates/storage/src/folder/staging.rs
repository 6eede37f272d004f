//! Files on their way: written under a random hidden name, locked by the writer, and given their key only when durable.
//!
//! The lock lives as long as the writer does, so a staging file whose lock can be taken belongs to nobody. It never
//! replaces a file that has the key already.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Advice, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::fault;
use super::tree::{Entry, Tree, is_file, set_mode, sync_folder};
use crate::{Error, Result, Swept, key};

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How much is written before the disk is asked to take it. Left to itself the kernel begins after half a minute, and
/// the last fsync of a backup would wait for all of it. The pages are given back at once, so that the next ones are
/// still in the processor's caches: with 1 GB of dump on two cores this saves 5 % of the whole, 32 MiB at a time 2 %.
const SYNC_BYTES: usize = 8 * 1024 * 1024;

/// A name is lost only to a sweep that comes between making and locking it; twice in a row is unheard of.
const CREATE_TRIES: usize = 4;

const STAGING_PREFIX: &str = ".pgkeep-";
const STAGING_SUFFIX: &str = ".part";

/// A file being written beside its final name. Dropping it takes the staged name away, published or not.
pub(super) struct Staging {
    folder: OwnedFd,
    staged_name: String,
    file: File,
    /// Bytes written since the disk was last asked to take them.
    unsynced: usize,
    key: String,
    label: String,
}

impl Staging {
    /// Starts a file for `key`, unless the key is taken.
    pub(super) fn create(tree: &Tree, key: &str) -> Result<Self> {
        let (path, name) = key::split(key);
        let explain = |errno: Errno| fault::writing(&tree.label, key, errno);
        let folder = tree.make_folder(path).map_err(explain)?;
        match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Error::Exists(key.to_owned())),
            Err(Errno::NOENT) => Self::beside(tree, key, folder),
            Err(errno) => Err(explain(errno)),
        }
    }

    /// Starts a file beside whatever has the key, in the folder that the key lies in.
    pub(super) fn beside(tree: &Tree, key: &str, folder: OwnedFd) -> Result<Self> {
        let explain = |errno: Errno| fault::writing(&tree.label, key, errno);
        let mut tries = (0..CREATE_TRIES).map(|_| create_locked(&folder));
        let made = tries
            .find_map(rustix::io::Result::transpose)
            .unwrap_or(Err(Errno::BUSY));
        let (staged_name, file) = made.map_err(explain)?;
        Ok(Self {
            folder,
            staged_name,
            file,
            unsynced: 0,
            key: key.to_owned(),
            label: tree.label.clone(),
        })
    }

    /// Appends bytes, and now and then makes those before durable.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut written = self.file.write_all(bytes);
        self.unsynced += bytes.len();
        if written.is_ok() && self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            written = self.file.sync_data();
            // What is on disk need not push the database's own pages out of memory. Advice that is refused changes
            // nothing.
            let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
        }
        written.map_err(|error| fault::writing(&self.label, &self.key, error))
    }

    /// Makes the bytes durable, then the name, and returns the size that the file system tells.
    ///
    /// A failed fsync is final: the kernel may have dropped the pages and forgotten the error, so a second one that
    /// succeeds proves nothing. <https://wiki.postgresql.org/wiki/Fsync_Errors>
    pub(super) fn publish(self) -> Result<u64> {
        let (_, name) = key::split(&self.key);
        let name = name.to_owned();
        self.file
            .sync_all()
            .map_err(|error| fault::writing(&self.label, &self.key, error))?;
        match self.give_name(&name) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists(self.key.clone())),
            Err(errno) => return Err(fault::writing(&self.label, &self.key, errno)),
        }
        self.prove(&name).inspect_err(|_| {
            // Not known to be durable or not ours: the name must not stay. Its removal failing leaves an object
            // without manifest, which counts for nothing.
            let _ = rustix::fs::unlinkat(&self.folder, &name, AtFlags::empty());
        })
    }

    /// Gives the file its final name, without replacing anything.
    fn give_name(&self, name: &str) -> rustix::io::Result<()> {
        let (folder, staged) = (&self.folder, self.staged_name.as_str());
        match rustix::fs::renameat_with(folder, staged, folder, name, RenameFlags::NOREPLACE) {
            // NFS and some FUSE file systems know no flags; a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(folder, staged, folder, name, AtFlags::empty())
            }
            renamed => renamed,
        }
    }

    /// Gives the file its name unless the name is taken; neither need survive a power failure.
    ///
    /// A hard link never replaces, and network file systems know it too.
    pub(super) fn link(&self) -> rustix::io::Result<()> {
        let (_, name) = key::split(&self.key);
        let (folder, staged) = (&self.folder, self.staged_name.as_str());
        match rustix::fs::linkat(folder, staged, folder, name, AtFlags::empty()) {
            // A file system without hard links.
            Err(Errno::PERM | Errno::NOTSUP | Errno::MLINK) => self.give_name(name),
            linked => linked,
        }
    }

    /// Gives the file its name, over the file that has it.
    pub(super) fn replace(&self) -> rustix::io::Result<()> {
        let (_, name) = key::split(&self.key);
        rustix::fs::renameat(&self.folder, &self.staged_name, &self.folder, name)
    }

    /// Syncs the folder and checks that the name leads to the very file that was written.
    fn prove(&self, name: &str) -> Result<u64> {
        let explain = |errno: Errno| fault::writing(&self.label, &self.key, errno);
        sync_folder(&self.folder).map_err(explain)?;
        let written = rustix::fs::fstat(&self.file).map_err(explain)?;
        let named =
            rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(explain)?;
        if (written.st_dev, written.st_ino) != (named.st_dev, named.st_ino) {
            return Err(Error::failed(format!(
                "writing `{}` to `{}` failed: another program replaced the file meanwhile",
                self.key, self.label
            )));
        }
        Ok(u64::try_from(named.st_size).unwrap_or(0))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A rename has taken the name along already. Failing otherwise leaves a file whose lock is about to be
        // released; the next sweep takes it.
        let _ = rustix::fs::unlinkat(&self.folder, &self.staged_name, AtFlags::empty());
    }
}

/// Removes the staging files of dead writers below the folder that `prefix` names.
pub(super) fn sweep(tree: &Tree, prefix: &str) -> Result<Swept> {
    let mut swept = Swept::default();
    tree.walk(prefix, |entry| {
        if is_staging(entry.name) && is_file(entry.stat) {
            match remove_dead(&entry) {
                Ok(is_removed) => swept.removed += u64::from(is_removed),
                Err(error) => swept.warnings.push(format!(
                    "`{}{}` in `{}` could not be removed: {}",
                    entry.path,
                    entry.name,
                    tree.label,
                    fault::plain(&error)
                )),
            }
        }
        Ok(())
    })?;
    Ok(swept)
}

/// Creates a staging file and takes its lock; `None` if a sweep of another process was faster.
fn create_locked(folder: &OwnedFd) -> rustix::io::Result<Option<(String, File)>> {
    let random = rand::random::<u64>();
    let name = format!("{STAGING_PREFIX}{random:016x}{STAGING_SUFFIX}");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, &name, flags, FILE_MODE) {
        Err(Errno::EXIST) => return Ok(None),
        opened => File::from(opened?),
    };
    set_mode(&file, FILE_MODE)?;
    // Where the file system knows no locks, the file stays unlocked and no sweep can take the lock either.
    let is_taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    let is_gone = rustix::fs::fstat(&file)?.st_nlink == 0;
    Ok((!is_taken && !is_gone).then_some((name, file)))
}

/// Removes one staging file if its writer is dead.
fn remove_dead(entry: &Entry<'_>) -> io::Result<bool> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(entry.folder, entry.name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(false),
        opened => File::from(opened?),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    rustix::fs::unlinkat(entry.folder, entry.name, AtFlags::empty())?;
    Ok(true)
}

fn is_staging(name: &str) -> bool {
    name.starts_with(STAGING_PREFIX) && name.ends_with(STAGING_SUFFIX)
}

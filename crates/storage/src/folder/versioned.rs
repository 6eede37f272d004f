//! Small objects with a version, of which the hash of their bytes is good enough: every writer writes something new.
//!
//! Two processes of one host, or of one network file system, never both replace the same version: the file that is to
//! go is locked while it is compared and its successor gets its name. Nothing here waits for a disk.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use pgkeep_model::words::hex;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::fault;
use super::staging::Staging;
use super::tree::{Tree, is_file};
use crate::{Error, Result, Version, key};

/// How often the lock of a file is tried for, and the pause in between: anyone who has it renames one file.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Longest object that is compared.
const MAX_BYTES: u64 = 1024 * 1024;

/// Returns the version of an object with these bytes.
pub(super) fn version_of(bytes: &[u8]) -> Version {
    Version::of(hex(&Sha256::digest(bytes)))
}

/// Makes an object unless the key is taken.
pub(super) fn create(tree: &Tree, key: &str, bytes: &[u8]) -> Result<Version> {
    let mut staging = Staging::create(tree, key)?;
    staging.write(bytes)?;
    match staging.link() {
        Ok(()) => Ok(version_of(bytes)),
        Err(Errno::EXIST) => Err(Error::Exists(key.to_owned())),
        Err(errno) => Err(fault::writing(&tree.label, key, errno)),
    }
}

/// Puts an object in the place of the one that has this version.
pub(super) fn replace(tree: &Tree, key: &str, bytes: &[u8], version: &Version) -> Result<Version> {
    let (path, _) = key::split(key);
    let changed = || Error::Changed(key.to_owned());
    let folder = match tree.folder(path) {
        Err(Errno::NOENT) => return Err(changed()),
        opened => opened.map_err(|errno| fault::writing(&tree.label, key, errno))?,
    };
    // Held until the successor has the name; dropping it gives the lock back.
    let Some(current) = lock_current(tree, key, &folder)? else {
        return Err(changed());
    };
    if &current_version(tree, key, &current)? != version {
        return Err(changed());
    }
    let mut staging = Staging::beside(tree, key, folder)?;
    staging.write(bytes)?;
    match staging.replace() {
        Ok(()) => Ok(version_of(bytes)),
        Err(errno) => Err(fault::writing(&tree.label, key, errno)),
    }
}

/// Opens and locks the file that has the key; none if there is none.
fn lock_current(tree: &Tree, key: &str, folder: &OwnedFd) -> Result<Option<File>> {
    let (_, name) = key::split(key);
    let explain = |errno: Errno| fault::writing(&tree.label, key, errno);
    // Network file systems lock only what is open for writing; a planted pipe must not hold anybody.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => File::from(opened.map_err(explain)?),
        };
        let opened = rustix::fs::fstat(&file).map_err(explain)?;
        if !is_file(&opened) {
            return Err(fault::in_the_way(&tree.label, key));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::Unconditional(format!(
                    "the file system of `{}` does not support locks: {}",
                    tree.label,
                    fault::plain(&error)
                )));
            }
        }
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) => {
                return Ok(Some(file));
            }
            // Replaced or removed before the lock was ours.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(explain(errno)),
        }
    }
    Err(Error::failed(format!(
        "writing `{key}` to `{}` failed: another process keeps it locked",
        tree.label
    )))
}

fn current_version(tree: &Tree, key: &str, file: &File) -> Result<Version> {
    let mut bytes = Vec::new();
    // What is longer is none of ours, and so has another version whatever follows.
    let read = file.take(MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| fault::reading(&tree.label, key, error))?;
    Ok(version_of(&bytes))
}

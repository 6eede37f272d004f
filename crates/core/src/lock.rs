//! The lock of this host: one file for each thing to lock, held by the kernel, so that it dies with its process.
//!
//! The files lie in a folder of ours that nobody else may write to. A file is gone when its lock is given back, and one
//! that a killed process left is as good as none. It knows no storage: what a lock stands for is a name to it.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pgkeep_model::words::hex;
use rustix::fs::{Access, AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Folder of the locks below the state folder: made by us, so its owner and mode can be insisted on.
const LOCKS: &str = "locks";

/// File with the folder's random identity.
const HOST: &str = "host";

/// Longest text that is read from a file of ours: it has some 100 bytes.
const MAX_TEXT: u64 = 4096;

/// A name is lost to another process that gives its lock back in the same moment; so often in a row is unheard of.
const TRIES: usize = 16;

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const FOLDER_MODE: Mode = Mode::RWXU;

const OPEN_FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A folder that may take the locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it lies among the files of others, as below `/tmp`: it must be our own then, and no link.
    pub is_shared: bool,
}

/// Why a lock was not taken.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process has it.
    #[error("another process has the lock")]
    Busy(Option<Holder>),
    /// There is no folder to keep locks in.
    #[error("{0}")]
    Unusable(String),
}

/// Who has a lock, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// What it does.
    pub verb: String,
    /// When it took the lock.
    pub since: Timestamp,
}

/// A folder for locks, opened and checked.
pub struct LockFolder {
    folder: OwnedFd,
    path: PathBuf,
    identity: String,
}

/// Locks that are held. Dropping it gives them back.
#[derive(Debug)]
pub struct HostLock {
    folder: OwnedFd,
    held: Vec<(String, File)>,
}

/// Names the lock for something that `parts` identify together.
pub fn name_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // With its length in front no two lists of parts read alike.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16])
}

/// Returns 128 random bits as text.
pub fn token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Returns the name that this host has for itself.
pub fn host_name() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

impl LockFolder {
    /// Opens the first of `candidates` that can be used, and makes it (0700) where it is missing.
    pub fn open(candidates: &[StateFolder]) -> Result<Self, Error> {
        let mut refused = Vec::new();
        for candidate in candidates {
            match open_one(candidate) {
                Ok(folder) => return Ok(folder),
                Err(why) => refused.push(format!("`{}`: {why}", candidate.path.display())),
            }
        }
        Err(Error::Unusable(refused.join(", ")))
    }

    /// Returns the folder's random identity, the same for every process of this host that uses it.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Takes all of `names`, in order, or none of them, without waiting.
    pub fn take(&self, names: &BTreeSet<String>, holder: &Holder) -> Result<HostLock, Error> {
        let unusable = |error: io::Error| {
            Error::Unusable(format!("`{}`: {}", self.path.display(), plain(&error)))
        };
        let mut lock = HostLock {
            folder: self.folder.try_clone().map_err(unusable)?,
            held: Vec::new(),
        };
        for name in names {
            let file_name = format!("{name}.lock");
            match self.lock_one(&file_name).map_err(unusable)? {
                Locked::Ours(mut file) => {
                    // For the words of anyone who meets the lock: a disk that is full does not matter.
                    let _ = write_holder(&mut file, holder);
                    lock.held.push((file_name, file));
                }
                Locked::Theirs(holder) => return Err(Error::Busy(holder)),
            }
        }
        Ok(lock)
    }

    fn lock_one(&self, name: &str) -> io::Result<Locked> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..TRIES {
            let fd = rustix::fs::openat(&self.folder, name, flags, FILE_MODE)?;
            let mut file = File::from(fd);
            match file.try_lock() {
                // A file that was given back in between leads nowhere; the lock is on its successor.
                Ok(()) if !is_named(&self.folder, name, &file)? => {}
                Ok(()) => return Ok(Locked::Ours(file)),
                Err(TryLockError::WouldBlock) => {
                    return Ok(Locked::Theirs(read_holder(&mut file)));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(Errno::BUSY.into())
    }
}

enum Locked {
    Ours(File),
    Theirs(Option<Holder>),
}

impl Drop for HostLock {
    fn drop(&mut self) {
        for (name, _) in &self.held {
            // Before the lock goes with its file; anyone who waits for this file sees that its name is gone. A name
            // that stays does no harm.
            let _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
        }
    }
}

fn open_one(candidate: &StateFolder) -> Result<LockFolder, String> {
    let state = open_state(candidate)?;
    let say = |errno: Errno| plain(&errno.into());
    match rustix::fs::mkdirat(&state, LOCKS, FOLDER_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(say(errno)),
    }
    let flags = OPEN_FOLDER | OFlags::NOFOLLOW;
    let folder = rustix::fs::openat(&state, LOCKS, flags, Mode::empty()).map_err(say)?;
    check_ours(&rustix::fs::fstat(&folder).map_err(say)?)?;
    let may = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(&folder, ".", may, AtFlags::empty()).map_err(say)?;
    let identity = identity(&folder).map_err(|error| plain(&error))?;
    Ok(LockFolder {
        folder,
        path: candidate.path.clone(),
        identity,
    })
}

/// Opens the state folder. A link is followed where the operator, and nobody else, can have put it.
fn open_state(candidate: &StateFolder) -> Result<OwnedFd, String> {
    let path = candidate.path.as_path();
    let link = if candidate.is_shared {
        OFlags::NOFOLLOW
    } else {
        OFlags::empty()
    };
    let open = || rustix::fs::open(path, OPEN_FOLDER | link, Mode::empty());
    let opened = match open() {
        Err(Errno::NOENT) => {
            make(path).map_err(|error| plain(&error))?;
            open()
        }
        opened => opened,
    };
    let state = opened.map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => "it is not a folder".to_owned(),
        errno => plain(&errno.into()),
    })?;
    let stat = rustix::fs::fstat(&state).map_err(|errno| plain(&errno.into()))?;
    if candidate.is_shared {
        check_ours(&stat)?;
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.contains(Mode::WOTH) && !mode.contains(Mode::SVTX) {
        return Err("any user can write to it".to_owned());
    }
    Ok(state)
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Anyone who may write to the folder could hold every backup up, or let two run at once.
fn check_ours(stat: &Stat) -> Result<(), String> {
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".to_owned());
    }
    let open = Mode::WGRP.union(Mode::WOTH);
    if Mode::from_raw_mode(stat.st_mode).intersects(open) {
        return Err("other users can write to it".to_owned());
    }
    Ok(())
}

/// Reads the folder's identity, and makes it the first time.
///
/// A folder on a file system without locks is found out here, because the file is locked for reading.
fn identity(folder: &OwnedFd) -> io::Result<String> {
    for _ in 0..TRIES {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(folder, HOST, flags, Mode::empty()) {
            Ok(fd) => {
                let mut file = File::from(fd);
                if let Err(TryLockError::Error(error)) = file.try_lock_shared() {
                    return Err(error);
                }
                let text = read_text(&mut file)?;
                if is_token(&text) {
                    return Ok(text);
                }
                // Cut short by a crash: nobody can have used it.
                rustix::fs::unlinkat(folder, HOST, AtFlags::empty())?;
            }
            Err(Errno::NOENT) => make_identity(folder)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::BUSY.into())
}

/// Writes a new identity aside and gives it its name, unless another process was faster.
fn make_identity(folder: &OwnedFd) -> io::Result<()> {
    let draft = format!(".{HOST}-{}", token());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(folder, &draft, flags, FILE_MODE)?);
    let written = file.write_all(token().as_bytes());
    let named = written.and_then(|()| {
        match rustix::fs::linkat(folder, &draft, folder, HOST, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            // A file system without hard links. Two first runs in the same moment may then end up with two identities,
            // and one of them waits for a lease that it could have taken at once.
            Err(Errno::PERM | Errno::NOTSUP | Errno::MLINK) => {
                Ok(rustix::fs::renameat(folder, &draft, folder, HOST)?)
            }
            Err(errno) => Err(errno.into()),
        }
    });
    // After a rename it is gone already.
    let _ = rustix::fs::unlinkat(folder, &draft, AtFlags::empty());
    named
}

fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn read_text(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

fn write_holder(file: &mut File, holder: &Holder) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    serde_json::to_writer(file, holder).map_err(io::Error::from)
}

/// Nobody is named where the holder has not written yet.
fn read_holder(file: &mut File) -> Option<Holder> {
    serde_json::from_str(&read_text(file).ok()?).ok()
}

/// Tells whether the name still leads to the very file.
fn is_named(folder: impl AsFd, name: &str, file: &File) -> io::Result<bool> {
    let ours = rustix::fs::fstat(file)?;
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Says the error in the system's words without Rust's `(os error 28)`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    words.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn folder(path: &Path) -> LockFolder {
        try_folder(path, false).unwrap()
    }

    fn try_folder(path: &Path, is_shared: bool) -> Result<LockFolder, Error> {
        LockFolder::open(&[StateFolder {
            path: path.to_owned(),
            is_shared,
        }])
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| name_of(&[name])).collect()
    }

    fn holder() -> Holder {
        Holder {
            pid: 4711,
            verb: "backup".to_owned(),
            since: "2026-01-02T03:04:05Z".parse().unwrap(),
        }
    }

    fn entries(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped_and_says_by_whom() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = folder(temporary.path());
        let held = folder.take(&names(&["a", "b"]), &holder()).unwrap();
        for wanted in [&["a"][..], &["b", "c"]] {
            match folder.take(&names(wanted), &holder()) {
                Err(Error::Busy(Some(found))) => assert_eq!(found, holder()),
                other => panic!("{wanted:?}: {other:?}"),
            }
        }
        // Anyone who got only one of two gave it back, and what is free is free.
        let other = folder.take(&names(&["c"]), &holder()).unwrap();
        drop((held, other));
        assert_eq!(
            entries(&temporary.path().join(LOCKS)),
            [HOST],
            "no lock is left lying about"
        );
        folder.take(&names(&["a", "b", "c"]), &holder()).unwrap();
    }

    #[test]
    fn one_at_a_time_however_many_try() {
        let temporary = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let folder = folder(temporary.path());
                    let mut taken = 0;
                    while taken < 50 {
                        let Ok(lock) = folder.take(&names(&["a"]), &holder()) else {
                            std::thread::yield_now();
                            continue;
                        };
                        taken += 1;
                        use std::sync::atomic::Ordering::SeqCst;
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }

    #[test]
    fn the_identity_is_made_once() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let first = folder(path).identity().to_owned();
        assert!(is_token(&first));
        assert_eq!(folder(path).identity(), first);
        std::fs::write(path.join(LOCKS).join(HOST), &first[..7]).unwrap();
        let second = folder(path).identity().to_owned();
        assert!(is_token(&second) && second != first);
        let elsewhere = tempfile::tempdir().unwrap();
        assert_ne!(folder(elsewhere.path()).identity(), second);
    }

    #[test]
    fn what_a_killed_process_left_is_none() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = folder(temporary.path());
        let left = temporary
            .path()
            .join(LOCKS)
            .join(format!("{}.lock", name_of(&["a"])));
        std::fs::write(&left, "half a hol").unwrap();
        let held = folder.take(&names(&["a"]), &holder()).unwrap();
        assert!(left.exists());
        drop(held);
        assert!(!left.exists());
    }

    #[test]
    fn modes_are_private() {
        let temporary = tempfile::tempdir().unwrap();
        let state = temporary.path().join("a/state");
        let folder = folder(&state);
        let _held = folder.take(&names(&["a"]), &holder()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let locks = state.join(LOCKS);
        for made in [&temporary.path().join("a"), &state, &locks] {
            assert_eq!(mode(made), 0o700, "{}", made.display());
        }
        for name in entries(&locks) {
            assert_eq!(mode(&locks.join(&name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_folder_that_is_not_ours_alone_is_passed_over() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        for name in ["open", "real", "wide"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let set = |path: PathBuf, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        set(at("open"), 0o777);
        std::fs::create_dir(at("wide/locks")).unwrap();
        set(at("wide/locks"), 0o770);
        std::fs::write(at("file"), "x").unwrap();
        symlink(at("real"), at("link")).unwrap();
        for (name, is_shared, says) in [
            ("open", false, "any user can write to it"),
            ("wide", false, "other users can write to it"),
            ("file", false, "not a folder"),
            ("file/below", false, "not a"),
            ("link", true, "not a folder"),
        ] {
            let error = try_folder(&at(name), is_shared).err().unwrap().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        assert!(
            entries(&at("real")).is_empty(),
            "nothing was made behind the link"
        );
        try_folder(&at("link"), false).unwrap();
        let candidates = ["open", "next"].map(|name| StateFolder {
            path: at(name),
            is_shared: false,
        });
        LockFolder::open(&candidates).unwrap();
        assert!(at("next/locks/host").exists());
    }

    #[test]
    fn names_do_not_run_together() {
        assert_ne!(name_of(&["ab", "c"]), name_of(&["a", "bc"]));
        assert_eq!(name_of(&["a", "b"]), name_of(&["a", "b"]));
        assert!(is_token(&name_of(&["s3://bucket/../x", "shop"])));
    }
}

//! The opened root and everything below it: walked part by part, never through a link, never above the root.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::fault;
use crate::{Error, Object, Result, key};

/// Folders are for their owner only.
const FOLDER_MODE: Mode = Mode::RWXU;

const OPEN_FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How many objects of a listing are sent at once.
const BATCH: usize = 1000;

/// An opened root.
pub(super) struct Tree {
    root: OwnedFd,
    pub(super) label: String,
}

/// One entry met on a walk.
pub(super) struct Entry<'a> {
    /// The folder it lies in.
    pub(super) folder: &'a OwnedFd,
    /// That folder's path below the root, empty or ended by a slash.
    pub(super) path: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    /// What it is; links are not followed.
    pub(super) stat: &'a Stat,
}

impl Tree {
    /// Opens the root, making it if only its last part is missing.
    pub(super) fn open(path: &Path, label: &str) -> Result<Self> {
        let opened = match open_root(path) {
            Err(Errno::NOENT) => {
                make_root(path, label)?;
                open_root(path)
            }
            opened => opened,
        };
        let root = opened.map_err(|errno| unusable(label, errno))?;
        let stat = rustix::fs::fstat(&root).map_err(|errno| unusable(label, errno))?;
        check_owner(label, &stat)?;
        Ok(Self {
            root,
            label: label.to_owned(),
        })
    }

    /// Returns the root's place in its file system, which does not depend on the path that led to it.
    pub(super) fn identity(&self) -> String {
        match rustix::fs::fstat(&self.root) {
            Ok(stat) => format!("folder {} {}", stat.st_dev, stat.st_ino),
            Err(_) => format!("folder {}", self.label),
        }
    }

    /// Opens a folder below the root; `path` is a key or empty.
    pub(super) fn folder(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let mut folder = rustix::fs::openat(&self.root, ".", OPEN_FOLDER, Mode::empty())?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            folder = rustix::fs::openat(&folder, name, OPEN_FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    /// Opens a folder below the root, making what is missing on the way, durably.
    pub(super) fn make_folder(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let mut folder = self.folder("")?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            folder = match rustix::fs::openat(&folder, name, OPEN_FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => make_one(&folder, name)?,
                opened => opened?,
            };
        }
        Ok(folder)
    }

    /// Opens an object for reading and tells what it is.
    pub(super) fn open_file(&self, key: &str) -> Result<(File, Object)> {
        let (path, name) = key::split(key);
        // Without O_NONBLOCK a planted named pipe would hold the reader for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = self
            .folder(path)
            .and_then(|folder| rustix::fs::openat(&folder, name, flags, Mode::empty()))
            .and_then(|file| rustix::fs::fstat(&file).map(|stat| (file, stat)));
        let (file, stat) = opened.map_err(|errno| fault::reading(&self.label, key, errno))?;
        if !is_file(&stat) {
            return Err(fault::in_the_way(&self.label, key));
        }
        Ok((File::from(file), to_object(key.to_owned(), &stat)))
    }

    /// Lists every object whose key starts with `prefix`.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        self.visit_objects(prefix, |object| {
            objects.push(object);
            Ok(())
        })?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Sends what [`Self::list`] returns, some at a time and in any order, as long as somebody takes it.
    pub(super) fn send_all(&self, prefix: &str, batches: &mpsc::Sender<Vec<Object>>) -> Result<()> {
        let given_up = |_| Error::failed("nobody waits for the listing any more".to_owned());
        let mut batch = Vec::new();
        self.visit_objects(prefix, |object| {
            batch.push(object);
            if batch.len() < BATCH {
                return Ok(());
            }
            let full = std::mem::take(&mut batch);
            batches.blocking_send(full).map_err(given_up)
        })?;
        batches.blocking_send(batch).map_err(given_up)
    }

    fn visit_objects(
        &self,
        prefix: &str,
        mut visit: impl FnMut(Object) -> Result<()>,
    ) -> Result<()> {
        self.walk(prefix, |entry| {
            let key = format!("{}{}", entry.path, entry.name);
            if is_file(entry.stat) && key::is_key(&key) && key.starts_with(prefix) {
                visit(to_object(key, entry.stat))?;
            }
            Ok(())
        })
    }

    /// Removes an object durably, so that what is removed next is never gone before it.
    pub(super) fn remove(&self, key: &str) -> Result<()> {
        let (path, name) = key::split(key);
        let removed = self.folder(path).and_then(|folder| {
            rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
            sync_folder(&folder)
        });
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(fault::reading(&self.label, key, errno)),
        }
    }

    /// Returns what an unprivileged writer may still use.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(&self.root).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }

    /// Visits everything that is no folder below the folder that `prefix` names. Staging files are visited too.
    pub(super) fn walk(
        &self,
        prefix: &str,
        mut visit: impl FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        self.check_still_there()?;
        let (start, _) = key::split(prefix);
        let folder = match self.folder(start) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(|errno| fault::reading(&self.label, start, errno))?,
        };
        let path = match start {
            "" => String::new(),
            start => format!("{start}/"),
        };
        self.walk_folder(&folder, &path, &mut visit)
    }

    fn walk_folder(
        &self,
        folder: &OwnedFd,
        path: &str,
        visit: &mut dyn FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let explain = |errno| fault::reading(&self.label, path, errno);
        for entry in Dir::read_from(folder).map_err(explain)? {
            let entry = entry.map_err(explain)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                // Removed since the folder was read: no longer there to be listed.
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(explain)?,
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                visit(Entry {
                    folder,
                    path,
                    name,
                    stat: &stat,
                })?;
            } else if key::is_segment(name) {
                self.walk_below(folder, path, name, visit)?;
            }
        }
        Ok(())
    }

    fn walk_below(
        &self,
        folder: &OwnedFd,
        path: &str,
        name: &str,
        visit: &mut dyn FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let below = format!("{path}{name}/");
        match rustix::fs::openat(folder, name, OPEN_FOLDER, Mode::empty()) {
            Err(Errno::NOENT) => Ok(()),
            opened => {
                let opened = opened.map_err(|errno| fault::reading(&self.label, &below, errno))?;
                self.walk_folder(&opened, &below, visit)
            }
        }
    }

    /// Refuses to list a root that was removed while open: it reads as empty, which would be a lie.
    fn check_still_there(&self) -> Result<()> {
        match rustix::fs::fstat(&self.root) {
            Ok(stat) if stat.st_nlink > 0 => Ok(()),
            Ok(_) => Err(Error::failed(format!("`{}` was removed", self.label))),
            Err(errno) => Err(fault::reading(&self.label, "", errno)),
        }
    }
}

/// Opens the root. Here a link is followed: the operator chose it.
fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn make_root(path: &Path, label: &str) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    match made {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::setup(
                format!("the folder above `{label}` does not exist"),
                format!("make it first: `mkdir -p {label}`; is the volume mounted?"),
            ));
        }
        Err(error) => {
            return Err(Error::setup(
                format!("cannot make the folder `{label}`: {}", fault::plain(&error)),
                "make it yourself, or choose a folder that this user may write to",
            ));
        }
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    open_root(path)
        .and_then(|root| set_mode(&root, FOLDER_MODE))
        .and_then(|()| open_root(parent))
        .and_then(|parent| sync_folder(&parent))
        .map_err(|errno| unusable(label, errno))
}

/// Makes one folder and its entry durable, with its mode whatever the umask.
fn make_one(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let is_ours = match rustix::fs::mkdirat(parent, name, FOLDER_MODE) {
        Err(Errno::EXIST) => false,
        made => made.map(|()| true)?,
    };
    let folder = rustix::fs::openat(parent, name, OPEN_FOLDER, Mode::empty())?;
    if is_ours {
        set_mode(&folder, FOLDER_MODE)?;
        sync_folder(parent)?;
    }
    Ok(folder)
}

fn check_owner(label: &str, stat: &Stat) -> Result<()> {
    let is_foreign = stat.st_uid != rustix::process::geteuid().as_raw();
    let is_open = Mode::from_raw_mode(stat.st_mode).contains(Mode::WOTH);
    if is_foreign && is_open {
        return Err(Error::setup(
            format!("`{label}` belongs to another user and any user can write to it"),
            format!("use a folder of your own, for instance `{label}/backups`"),
        ));
    }
    Ok(())
}

fn unusable(label: &str, errno: Errno) -> Error {
    let why = match errno {
        Errno::NOTDIR => "it is not a folder".to_owned(),
        errno => fault::plain(&errno.into()),
    };
    Error::setup(
        format!("cannot use `{label}` as storage: {why}"),
        "give a folder that this user may read and write",
    )
}

/// Sets the mode of something just made, whatever the umask left of it.
///
/// Its owner may always do that, so a refusal means a file system that has no modes (FAT, some network mounts).
pub(super) fn set_mode(made: impl AsFd, mode: Mode) -> rustix::io::Result<()> {
    match rustix::fs::fchmod(made, mode) {
        Ok(()) | Err(Errno::PERM | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Makes a folder's entries durable. File systems that cannot sync folders say EINVAL and keep them in order
/// themselves.
pub(super) fn sync_folder(folder: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::fsync(folder) {
        Err(Errno::INVAL) => Ok(()),
        synced => synced,
    }
}

/// Tells a regular file from links, pipes and devices.
pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn to_object(key: String, stat: &Stat) -> Object {
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Object {
        key,
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        modified_at: Timestamp::new(stat.st_mtime, nanos).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

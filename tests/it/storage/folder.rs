//! A folder as storage: links, modes, leftovers and a full disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use jiff::Timestamp;
use pgkeep_storage::{Error, Folder, Storage};
use tempfile::TempDir;

use super::{LARGE, conforms, contests, eventually, keys, pattern, store, upload};
use crate::support::skip;

/// Tells a test that runs in a process of its own where its disk is.
const DISK: &str = "PGKEEP_TEST_DISK";

fn folder() -> (TempDir, PathBuf, Folder) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("backups");
    let folder = Folder::open(&path).unwrap();
    (parent, path, folder)
}

/// Returns every file and link below a folder, hidden ones too.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn folder_conforms_and_leaves_no_file() {
    let (_parent, path, folder) = folder();
    conforms(&folder).await;
    contests(&folder).await;
    assert!(
        eventually(|| files(&path).is_empty()).await,
        "{:?}",
        files(&path)
    );
    assert!(folder.free_bytes().await.unwrap() > 0);
}

#[tokio::test]
async fn modes_are_private_whatever_the_umask() {
    for umask in [0o000, 0o077] {
        // The umask belongs to the whole process; no other test depends on it.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let (_parent, path, folder) = folder();
        folder.put("shop/runs/a", "x".into()).await.unwrap();
        let upload = upload(&folder, "shop/b", &pattern(10)).await.unwrap();
        rustix::process::umask(before);
        let found = files(&path);
        assert_eq!(found.len(), 2, "one stored, one staged");
        for file in found {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        for made in [&path, &path.join("shop"), &path.join("shop/runs")] {
            assert_eq!(mode(made), 0o700, "{}", made.display());
        }
        upload.abort().await.unwrap();
    }
}

#[test]
fn a_root_must_be_a_folder_with_a_parent() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [
        parent.path().join("a/b"),
        file.clone(),
        file.join("x"),
        PathBuf::new(),
    ] {
        let error = Folder::open(&path).err().unwrap();
        assert!(
            matches!(error, Error::Setup { .. }),
            "{}: {error}",
            path.display()
        );
        assert!(error.hint().is_some());
    }
    assert!(!parent.path().join("a").exists());
    assert_eq!(fs::read(file).unwrap(), b"x");
}

#[test]
fn somebody_elses_open_folder_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let open = if is_root() {
        let path = parent.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        path
    } else {
        PathBuf::from("/tmp")
    };
    let error = Folder::open(&open).err().unwrap();
    assert!(
        error.to_string().contains("belongs to another user"),
        "{error}"
    );
}

#[tokio::test]
async fn links_are_not_followed() {
    let (parent, path, folder) = folder();
    let outside = parent.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "untouched").unwrap();
    symlink(&outside, path.join("linked")).unwrap();
    symlink(outside.join("secret"), path.join("final")).unwrap();
    symlink(outside.join("missing"), path.join("dangling")).unwrap();

    let put = folder.put("linked/new", "x".into()).await;
    assert!(matches!(put, Err(Error::Setup { .. })), "{put:?}");
    for key in ["linked/secret", "final"] {
        let get = folder.get(key, 99).await;
        assert!(matches!(get, Err(Error::Setup { .. })), "{get:?}");
        assert!(matches!(folder.head(key).await, Err(Error::Setup { .. })));
    }
    for key in ["final", "dangling"] {
        let put = folder.put(key, "x".into()).await;
        assert!(matches!(put, Err(Error::Exists(_))), "{put:?}");
        assert!(matches!(
            store(&folder, key, &"x".into()).await,
            Err(Error::Exists(_))
        ));
    }
    assert!(matches!(
        folder.remove("linked/secret").await,
        Err(Error::Setup { .. })
    ));
    assert_eq!(keys(&folder, "").await, [""; 0]);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"untouched");
    assert_eq!(files(&outside).len(), 1);
}

#[tokio::test]
async fn a_version_is_not_compared_through_a_link() {
    let (parent, path, folder) = folder();
    let outside = parent.path().join("outside");
    fs::write(&outside, "untouched").unwrap();
    symlink(&outside, path.join("lease")).unwrap();
    let version = folder.create("other", "untouched".into()).await.unwrap();
    let replaced = folder.replace("lease", "x".into(), &version).await;
    assert!(matches!(replaced, Err(Error::Setup { .. })), "{replaced:?}");
    let made = folder.create("lease", "x".into()).await;
    assert!(matches!(made, Err(Error::Exists(_))), "{made:?}");
    assert_eq!(fs::read(outside).unwrap(), b"untouched");
}

/// Two processes would do the same: each opens the root for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_is_replaced_once_whoever_tries() {
    let (_parent, path, folder) = folder();
    let mut version = folder.create("lease", "0".into()).await.unwrap();
    for round in 1..50 {
        let tries: Vec<_> = (0..4)
            .map(|who| {
                let folder = Folder::open(&path).unwrap();
                let version = version.clone();
                let bytes = Bytes::from(format!("{round} {who}"));
                tokio::spawn(async move { folder.replace("lease", bytes, &version).await })
            })
            .collect();
        let mut won = Vec::new();
        for end in tries {
            match end.await.unwrap() {
                Ok(version) => won.push(version),
                Err(Error::Changed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        version = won.remove(0);
    }
    assert_eq!(files(&path), [path.join("lease")]);
}

#[tokio::test]
async fn a_folder_is_the_same_by_any_path() {
    let (parent, path, folder) = folder();
    let link = parent.path().join("link");
    symlink(&path, &link).unwrap();
    let same = Folder::open(&link.join("../backups")).unwrap();
    assert_ne!(folder.label(), same.label());
    assert_eq!(folder.identity(), same.identity());
    let other = Folder::open(parent.path()).unwrap();
    assert_ne!(folder.identity(), other.identity());
}

#[tokio::test]
async fn a_planted_pipe_does_not_hold_the_reader() {
    let (_parent, path, folder) = folder();
    let made = Command::new("mkfifo")
        .arg(path.join("pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    let get = folder.get("pipe", 9).await;
    assert!(matches!(get, Err(Error::Setup { .. })), "{get:?}");
    assert_eq!(keys(&folder, "").await, [""; 0]);
}

#[tokio::test]
async fn foreign_files_are_not_listed() {
    let (_parent, path, folder) = folder();
    folder.put("shop/a", "x".into()).await.unwrap();
    for name in [".DS_Store", "my file.txt", "shop/.a.swp", ".git"] {
        fs::write(path.join(name), "x").unwrap();
    }
    fs::create_dir(path.join(".snapshots")).unwrap();
    fs::write(path.join(".snapshots/b"), "x").unwrap();
    assert_eq!(keys(&folder, "").await, ["shop/a"]);
}

#[tokio::test]
async fn a_root_that_is_gone_is_no_empty_storage() {
    let (_parent, path, folder) = folder();
    folder.put("a", "x".into()).await.unwrap();
    fs::remove_dir_all(&path).unwrap();
    let list = folder.list("").await;
    assert!(list.unwrap_err().to_string().contains("was removed"));
}

#[tokio::test]
async fn sweep_takes_the_leftovers_of_dead_writers_only() {
    let (_parent, path, folder) = folder();
    let live = upload(&folder, "shop/live", &pattern(10)).await.unwrap();
    let leftover = path.join("shop/.pgkeep-0123456789abcdef.part");
    fs::write(&leftover, "half").unwrap();
    let foreign = path.join("shop/.somebody-elses.part");
    fs::write(&foreign, "x").unwrap();
    symlink(&foreign, path.join("shop/.pgkeep-link.part")).unwrap();

    // Age does not matter: this one is younger than any limit.
    let swept = folder.sweep("", Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((swept.removed, swept.warnings), (1, Vec::new()));
    assert!(!leftover.exists() && foreign.exists());
    live.finish().await.unwrap();
    assert_eq!(keys(&folder, "").await, ["shop/live"]);
}

#[tokio::test]
async fn sweep_stays_below_its_prefix() {
    let (_parent, path, folder) = folder();
    for name in ["shop", "zoo"] {
        fs::create_dir(path.join(name)).unwrap();
        fs::write(path.join(name).join(".pgkeep-1.part"), "x").unwrap();
    }
    let swept = folder.sweep("shop/", Timestamp::now()).await.unwrap();
    assert_eq!(swept.removed, 1);
    assert!(path.join("zoo/.pgkeep-1.part").exists());
}

#[tokio::test]
async fn a_swept_staging_file_is_an_error_not_an_object() {
    let (_parent, path, folder) = folder();
    let upload = upload(&folder, "a", &pattern(10)).await.unwrap();
    for file in files(&path) {
        fs::remove_file(file).unwrap();
    }
    assert!(upload.finish().await.is_err());
    assert_eq!(keys(&folder, "").await, [""; 0]);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let parent = tempfile::tempdir().unwrap();
    on_tmpfs(parent.path(), "size=1m", "on_a_small_disk");
}

#[test]
fn a_read_only_disk_is_told_and_can_be_read() {
    let parent = tempfile::tempdir().unwrap();
    on_tmpfs(parent.path(), "ro", "on_a_read_only_disk");
}

/// Runs one of the tests below in a process of its own that sees a tmpfs at `path`.
fn on_tmpfs(path: &Path, mount_options: &str, test: &str) {
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c"])
        .arg("mount -t tmpfs -o \"$1\" tmpfs \"$2\" && shift 2 && exec \"$@\"")
        .args(["sh", mount_options])
        .arg(path)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("storage::folder::{test}")])
        .env(DISK, path)
        .output();
    match output {
        // The test harness always prints; silence means that the mount was not allowed.
        Ok(output) if !output.stdout.is_empty() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "{output:?}");
        }
        other => skip(&format!("no user namespaces with tmpfs here: {other:?}")),
    }
}

/// Returns the disk of a test that another one runs in a process of its own; none in an ordinary run, where such a
/// test has nothing to do.
fn disk() -> Option<PathBuf> {
    std::env::var_os(DISK).map(PathBuf::from)
}

/// The folder is on a file system of 1 MiB.
#[tokio::test]
async fn on_a_small_disk() {
    let Some(disk) = disk() else { return };
    let path = disk.join("backups");
    let folder = Folder::open(&path).unwrap();
    folder.put("shop/before", "x".into()).await.unwrap();

    let failed = store(&folder, "shop/large", &pattern(LARGE))
        .await
        .unwrap_err();
    assert!(failed.to_string().contains("no space left"), "{failed}");
    assert!(failed.hint().is_some());
    let failed = folder.put("shop/put", Bytes::from(vec![1; 2 << 20])).await;
    assert!(failed.unwrap_err().to_string().contains("no space left"));

    assert_eq!(files(&path), [path.join("shop/before")]);
    folder.put("shop/after", "x".into()).await.unwrap();
    assert_eq!(keys(&folder, "").await, ["shop/after", "shop/before"]);
}

/// The folder is the root of an empty, read-only file system.
#[tokio::test]
async fn on_a_read_only_disk() {
    let Some(disk) = disk() else { return };
    let folder = Folder::open(&disk).unwrap();
    assert_eq!(keys(&folder, "").await, [""; 0]);
    for key in ["a", "shop/a"] {
        let put = folder.put(key, "x".into()).await;
        assert!(matches!(put, Err(Error::Setup { .. })), "{put:?}");
        let upload = folder.start_upload(key, None).await;
        assert!(matches!(upload, Err(Error::Setup { .. })));
    }
    assert!(Folder::open(&disk.join("new")).is_err());
}

#[tokio::test]
async fn a_failing_disk_is_a_failure_and_shows_nothing() {
    let cases = [
        // A second fsync that succeeds would prove nothing, so the first one's word is final.
        (&["fsync:error=EIO:when=1"][..], "input/output error", 0),
        // The folder's: the name is there, and not known to stay.
        (&["fsync:error=EIO:when=2"], "input/output error", 0),
        (&["fsync:error=ENOSPC"], "no space left", 0),
        (&["renameat2:error=EDQUOT"], "no space left", 0),
        (
            &["renameat2:error=EINVAL", "linkat:error=EIO"],
            "input/output error",
            0,
        ),
        (&["renameat2:error=EINVAL"], "1 passed", 0),
        (&["renameat2:signal=SIGKILL"], "", 1),
        (&["fsync:signal=SIGKILL"], "", 1),
    ];
    for (faults, expected, leftovers) in cases {
        let (_parent, path, folder) = folder();
        folder.put("before", "x".into()).await.unwrap();
        let Some(said) = put_under_strace(&path, faults) else {
            skip("no strace here that may trace");
            return;
        };
        assert!(said.contains(expected), "{faults:?}: {said}");
        let shown = match expected {
            "1 passed" => vec!["before", "new"],
            _ => vec!["before"],
        };
        assert_eq!(keys(&folder, "").await, shown, "{faults:?}");
        assert_eq!(files(&path).len(), shown.len() + leftovers, "{faults:?}");
        let swept = folder.sweep("", Timestamp::now()).await.unwrap();
        assert_eq!(swept.removed, leftovers as u64, "{faults:?}");
        folder.put("again", "x".into()).await.unwrap();
    }
}

/// Runs `put_one` in a process whose system calls fail as told; returns what it said.
fn put_under_strace(path: &Path, faults: &[&str]) -> Option<String> {
    let can_trace = Command::new("strace").args(["-qq", "true"]).output();
    if !can_trace.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut command = Command::new("strace");
    // Without `--seccomp-bpf` every system call stops the program, which takes ten times as long.
    command.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"]);
    for fault in faults {
        command.arg("-e").arg(format!("inject={fault}"));
    }
    let output = command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "storage::folder::put_one"])
        .env(DISK, path)
        .output()
        .unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Stores one object; what it says is read by the test that runs it.
#[tokio::test]
async fn put_one() {
    let Some(disk) = disk() else { return };
    let folder = Folder::open(&disk).unwrap();
    if let Err(error) = folder.put("new", "x".into()).await {
        panic!("{error}");
    }
}

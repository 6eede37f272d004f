//! rclone as storage: the suite over a folder and over a real SFTP server, then what only a program in between can break.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use pgkeep_storage::{Error, Rclone, RcloneOptions, Storage, Version};
use rustix::process::Signal;
use serde_json::json;

use super::{LARGE, conforms_without_conditions, eventually, keys, pattern, read, store, upload};
use crate::backup::Shop;
use crate::restore::Target;
use crate::support::rclone::{Sshd, rclone};
use crate::support::sandbox::{Outcome, Run};
use crate::support::{data, postgres, processes};

/// Options with the real program, and nothing of the developer's own configuration.
fn options(home: &Path) -> Option<RcloneOptions> {
    options_with(home, &[])
}

fn options_with(home: &Path, more: &[(&str, &str)]) -> Option<RcloneOptions> {
    let program = rclone()?;
    let own =
        [("HOME", home.display().to_string())].map(|(name, value)| (name, OsString::from(value)));
    let more = more
        .iter()
        .map(|(name, value)| (*name, OsString::from(value)));
    let variables = own.into_iter().chain(more);
    let all = variables.map(|(name, value)| (name.into(), value));
    let mut options = RcloneOptions::new(all);
    options.program = program;
    options.stall_timeout = Duration::from_secs(60);
    Some(options)
}

/// Everything below a folder, hidden files too.
fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return names;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(files(&path));
        } else {
            names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    names
}

#[tokio::test]
async fn a_folder_behind_rclone_conforms() {
    let root = tempfile::tempdir().unwrap();
    let Some(options) = options(root.path()) else {
        return;
    };
    let remote = format!(":local:{}/backups", root.path().display());
    let storage = Rclone::open(&remote, &options).unwrap();
    assert_eq!(storage.label(), format!("rclone:{remote}"));
    conforms_without_conditions(&storage).await;
    assert!(eventually(|| files(&root.path().join("backups")).is_empty()).await);
}

#[tokio::test]
async fn a_server_of_sftp_conforms() {
    let home = tempfile::tempdir().unwrap();
    let Some((options, sshd)) = options(home.path()).zip(Sshd::start()) else {
        return;
    };
    let storage = Rclone::open(&sshd.remote(), &options).unwrap();
    conforms_without_conditions(&storage).await;
    assert!(eventually(|| files(&sshd.files()).is_empty()).await);
}

/// What a login needs may stand in the environment; no file of rclone's is needed for a remote with a name either.
#[tokio::test]
async fn settings_come_from_the_environment() {
    let home = tempfile::tempdir().unwrap();
    let Some(sshd) = Sshd::start() else { return };
    let names = sshd
        .settings()
        .map(|(name, value)| (format!("RCLONE_CONFIG_NAS_{}", name.to_uppercase()), value));
    let mut variables: BTreeMap<String, String> = names.into();
    variables.insert("RCLONE_CONFIG_NAS_TYPE".to_owned(), "sftp".to_owned());
    variables.insert("RCLONE_CONFIG_NAS_KEY_FILE".to_owned(), sshd.key_file());
    let more: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let Some(options) = options_with(home.path(), &more) else {
        return;
    };
    let storage = Rclone::open(&format!("nas:{}", sshd.files().display()), &options).unwrap();
    storage.put("shop/a", "x".into()).await.unwrap();
    assert_eq!(files(&sshd.files()), ["a"]);
    let unknown = Rclone::open("elsewhere:x", &options).unwrap();
    let error = unknown.put("shop/a", "x".into()).await.unwrap_err();
    assert!(matches!(error, Error::Setup { .. }), "{error}");
}

/// Nothing is promised that rclone cannot keep.
#[tokio::test]
async fn writes_know_no_conditions() {
    let root = tempfile::tempdir().unwrap();
    let Some(options) = options(root.path()) else {
        return;
    };
    let storage = Rclone::open(&format!(":local:{}", root.path().display()), &options).unwrap();
    let create = storage.create("lease", "x".into()).await;
    assert!(matches!(create, Err(Error::Unconditional(_))), "{create:?}");
    let replace = storage
        .replace("lease", "x".into(), &Version::never())
        .await;
    assert!(
        matches!(replace, Err(Error::Unconditional(_))),
        "{replace:?}"
    );
    assert!(files(root.path()).is_empty());
}

/// The server dies at some byte: the upload fails, and no name that counts is there.
#[tokio::test]
async fn a_failure_at_any_byte_leaves_nothing_visible() {
    let home = tempfile::tempdir().unwrap();
    // One try is enough for a server that is gone.
    let once = [("RCLONE_LOW_LEVEL_RETRIES", "1")];
    for written in [0, 100, 200_000, 6_000_000, LARGE] {
        let Some((mut options, sshd)) = options_with(home.path(), &once).zip(Sshd::start()) else {
            return;
        };
        options.stall_timeout = Duration::from_secs(20);
        let storage = Rclone::open(&sshd.remote(), &options).unwrap();
        let bytes = pattern(LARGE);
        let mut going = storage.start_upload("shop/a", None).await.unwrap();
        going.write(bytes.slice(..written)).await.unwrap();
        if written > 1_000_000 {
            assert!(eventually(|| !files(&sshd.files()).is_empty()).await);
        }
        sshd.signal(Signal::KILL);
        let ended = match going.write(bytes.slice(written..)).await {
            Ok(()) => going.finish().await.map(drop),
            Err(error) => Err(error),
        };
        assert!(ended.is_err(), "{written}");
        let names = files(&sshd.files());
        assert!(
            names.iter().all(|name| name.starts_with('.')),
            "{written}: {names:?}"
        );
    }
}

/// rclone takes the end of its input for success; it must not come to see it.
#[tokio::test]
async fn rclone_is_killed_before_its_input_ends() {
    let root = tempfile::tempdir().unwrap();
    let Some(options) = options(root.path()) else {
        return;
    };
    let folder = root.path().join("backups");
    let storage = Rclone::open(&format!(":local:{}", folder.display()), &options).unwrap();
    let bytes = pattern(LARGE);
    for is_dropped in [true, false] {
        let going = upload(&storage, "shop/a", &bytes).await.unwrap();
        assert!(eventually(|| !files(&folder).is_empty()).await);
        if is_dropped {
            drop(going);
        } else {
            going.abort().await.unwrap();
            assert!(files(&folder).is_empty(), "removed when `abort` returns");
        }
        assert!(
            eventually(|| files(&folder).is_empty()).await,
            "{:?}",
            files(&folder)
        );
        assert_eq!(keys(&storage, "").await, [""; 0]);
    }
}

/// A connection that moves nothing is ended, and nothing waits for ever.
#[tokio::test]
async fn a_server_that_stands_still_is_given_up() {
    let home = tempfile::tempdir().unwrap();
    let Some((mut options, sshd)) = options(home.path()).zip(Sshd::start()) else {
        return;
    };
    options.stall_timeout = Duration::from_secs(2);
    let storage = Rclone::open(&sshd.remote(), &options).unwrap();
    store(&storage, "shop/b", &pattern(LARGE)).await.unwrap();
    let mut going = storage.start_upload("shop/a", None).await.unwrap();
    going.write(pattern(100)).await.unwrap();
    sshd.signal(Signal::STOP);
    let started = Instant::now();
    let ended = match going.write(pattern(8 * LARGE)).await {
        Ok(()) => going.finish().await.map(drop),
        Err(error) => Err(error),
    };
    let error = ended.unwrap_err();
    assert!(
        error.to_string().contains("moved nothing for 2 s"),
        "{error}"
    );
    let listing = storage.list("").await.unwrap_err();
    assert!(
        listing.to_string().contains("moved nothing for 2 s"),
        "{listing}"
    );
    assert!(started.elapsed() < Duration::from_secs(30));
    sshd.signal(Signal::CONT);
    assert_eq!(keys(&storage, "").await, ["shop/b"]);
}

#[tokio::test]
async fn a_remote_that_cannot_stream_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let Some(options) = options(home.path()) else {
        return;
    };
    // WebDAV without a vendor takes no stream of unknown length; this is known without asking the server.
    let storage = Rclone::open(":webdav,url='http://127.0.0.1:9':", &options).unwrap();
    for ended in [
        storage.put("shop/a", "x".into()).await,
        storage.start_upload("shop/a", None).await.map(drop),
    ] {
        let error = ended.unwrap_err();
        assert!(matches!(error, Error::Setup { .. }), "{error}");
        assert!(
            error.to_string().contains("cannot take a stream"),
            "{error}"
        );
    }
}

/// A remote that can neither rename nor copy gets each object under its own name, and its size is looked at. None of
/// those that do without a network is like that, so a script takes these two away from one.
#[tokio::test]
async fn a_remote_that_cannot_rename_is_written_directly() {
    let root = tempfile::tempdir().unwrap();
    let Some(mut options) = options(root.path()) else {
        return;
    };
    let real = options.program.display().to_string();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = backend ]; then '{real}' \"$@\" | sed -E 's/\"(Move|Copy)\": true/\"\\1\": false/'\n\
         else exec '{real}' \"$@\"\nfi\n"
    );
    options.program = root.path().join("rclone");
    fs::write(&options.program, script).unwrap();
    fs::set_permissions(&options.program, fs::Permissions::from_mode(0o700)).unwrap();
    let folder = root.path().join("backups");
    let storage = Rclone::open(&format!(":local:{}", folder.display()), &options).unwrap();
    let bytes = pattern(LARGE);
    assert_eq!(
        store(&storage, "shop/a", &bytes).await.unwrap(),
        LARGE as u64
    );
    assert!(read(&storage, "shop/a", None).await.unwrap() == bytes);
    storage.put("shop/b", "x".into()).await.unwrap();
    assert_eq!(files(&folder).len(), 2);
    upload(&storage, "shop/c", &bytes)
        .await
        .unwrap()
        .abort()
        .await
        .unwrap();
    assert_eq!(keys(&storage, "").await, ["shop/a", "shop/b"]);
}

#[tokio::test]
async fn what_dead_runs_left_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let Some(options) = options(root.path()) else {
        return;
    };
    let storage = Rclone::open(
        &format!(":local:{}", root.path().join("b").display()),
        &options,
    )
    .unwrap();
    let shop = root.path().join("b/shop");
    fs::create_dir_all(&shop).unwrap();
    for name in [".a.0123abcd.partial", ".notes.partial", "a", ".hidden"] {
        fs::write(shop.join(name), "x").unwrap();
    }
    assert_eq!(keys(&storage, "").await, ["shop/a"]);
    let yesterday = Timestamp::now() - SignedDuration::from_hours(24);
    assert_eq!(storage.sweep("shop/", yesterday).await.unwrap().removed, 0);
    let soon = Timestamp::now() + SignedDuration::from_secs(60);
    assert_eq!(storage.sweep("shop/", soon).await.unwrap().removed, 1);
    let mut left = files(&shop);
    left.sort();
    assert_eq!(left, [".hidden", ".notes.partial", "a"]);
}

#[tokio::test]
async fn a_program_that_is_missing_is_told() {
    let mut options = RcloneOptions::default();
    options.program = "/nowhere/rclone".into();
    let storage = Rclone::open("nas:x", &options).unwrap();
    let error = storage.list("").await.unwrap_err();
    assert!(matches!(error, Error::Program { .. }), "{error}");
    assert!(error.hint().unwrap().contains("install rclone"), "{error}");
}

/// pgkeep with the real rclone in its PATH.
struct Behind {
    shop: Shop,
    sshd: Sshd,
    url: String,
}

impl Behind {
    fn start() -> Option<Self> {
        let (program, sshd) = rclone().zip(Sshd::start())?;
        let mut shop = Shop::new();
        let folder = program.parent().unwrap().display().to_string();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
        shop.sandbox.set("PATH", path);
        let url = format!("rclone:{}", sshd.remote());
        Some(Self { shop, sshd, url })
    }

    fn run(&self, command: &[&str]) -> Run<'_> {
        let all = [&["--json"], command, &["--storage", &self.url]].concat();
        self.shop.sandbox.pgkeep(all)
    }

    fn backup(&self) -> Outcome {
        let bin = self.shop.fake.bin().display().to_string();
        self.run(&["backup", "--attempts", "1", "--bin-dir", &bin])
            .run()
    }
}

fn id_of(outcome: &Outcome) -> String {
    outcome.summary()["backups"][0]["backup_id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The whole life of a backup over SFTP, without a configuration of rclone.
#[test]
fn backups_live_behind_rclone() {
    let Some(behind) = Behind::start() else {
        return;
    };
    let ids: Vec<String> = (0..3).map(|_| id_of(&behind.backup().expect(0))).collect();
    let list = behind.run(&["list"]).run().expect(0).json();
    assert_eq!(list["backups"].as_array().unwrap().len(), 3);
    let verify = behind.run(&["verify", "--all"]).run().expect(0).summary();
    assert_eq!(verify["copies"].as_array().unwrap().len(), 3);
    let rows = [
        "extract",
        "latest",
        "-t",
        "users",
        "--format",
        "csv",
        "-o",
        "users.csv",
    ];
    behind.run(&rows).run().expect(0);
    behind.run(&["pin", &ids[0], "audit"]).run().expect(0);
    let prune = behind
        .run(&["prune", "--keep-last", "1"])
        .run()
        .expect(0)
        .json();
    let removed = &prune["databases"][0]["storages"][0]["remove"];
    assert_eq!(removed.as_array().unwrap().len(), 1, "{prune}");
    let check = behind.run(&["check"]).run();
    assert!(
        check
            .stdout()
            .contains("does not support conditional writes"),
        "{check}"
    );
    // Moving in: another storage's backups come here, though no lease can be held.
    let folder = behind.shop.folder().display().to_string();
    let sync = behind
        .run(&["sync", "--storage", &folder])
        .run()
        .expect(0)
        .json();
    assert_eq!(
        sync["databases"][0]["copies"].as_array().unwrap().len(),
        2,
        "{sync}"
    );
    let names = files(&behind.sshd.files());
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
}

#[test]
fn a_backup_behind_rclone_is_restored() {
    let (Some(server), Some(mut behind)) = (postgres(), Behind::start()) else {
        return;
    };
    behind.shop.prints(data::dump("public/neon-chinook.sql"));
    behind.backup().expect(0);
    let database = server.database();
    let target = Target::beside(&database, server);
    let into = database.socket_url().replace(database.name(), &target.name);
    let bin = server.bin().display().to_string();
    let restore = [
        "restore",
        "latest",
        "--bin-dir",
        &bin,
        "--into",
        &into,
        "--allow-superuser",
    ];
    behind.run(&restore).run().expect(0);
    assert_eq!(target.sql("SELECT count(*) FROM \"Album\""), "347");
}

/// What is wrong is told by its kind: no program, a login that is refused, a secret that everyone could read.
#[test]
fn what_is_wrong_with_a_remote_is_told() {
    let Some(behind) = Behind::start() else {
        return;
    };
    let stranger = format!("rclone:{}", behind.sshd.stranger());
    let list = |url: &str| {
        behind
            .shop
            .sandbox
            .pgkeep(["--json", "list", "--storage", url])
    };
    let denied = list(&stranger).run().expect(12);
    assert_eq!(denied.exit_error()["id"], "storage_denied", "{denied}");
    let secret = list("rclone::sftp,host=nas,pass=hunter2hunter2:x")
        .run()
        .expect(2);
    let error = secret.exit_error();
    assert_eq!(error["id"], "bad_storage", "{secret}");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("RCLONE_SFTP_PASS"),
        "{secret}"
    );
    assert!(!secret.stderr().contains("hunter2"), "{secret}");
    let bin = behind.shop.sandbox.bin().display().to_string();
    let missing = list(&behind.url)
        .env("PATH", format!("{bin}:/nowhere"))
        .run()
        .expect(26);
    let error = missing.exit_error();
    assert_eq!(error["id"], "program_missing", "{missing}");
    assert!(
        error["hints"].to_string().contains("install rclone"),
        "{missing}"
    );
}

/// A killed run closes the input that rclone takes for whole; what comes of it has no name that counts.
#[test]
fn a_run_that_is_killed_leaves_nothing_visible() {
    let Some(mut behind) = Behind::start() else {
        return;
    };
    let mark = behind.shop.sandbox.path("at-it");
    let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": 3000, "resumes": true });
    behind.shop.dumps(json!({ "stops_after": stop }));
    for signal in [Signal::KILL, Signal::TERM] {
        let _ = fs::remove_file(&mark); // the second round writes it again
        let bin = behind.shop.fake.bin().display().to_string();
        let running = behind
            .run(&["backup", "--attempts", "1", "--bin-dir", &bin])
            .start();
        running.wait_for_file(&mark);
        let asked = Instant::now();
        let session = running.pid();
        running.signal(signal);
        if signal == Signal::KILL {
            // What it started sees its pipes closed.
            let is_any = || {
                let left = processes::of_sandbox(Some(session), behind.shop.sandbox.root());
                left.iter()
                    .any(|one| one.command.contains("rclone") || one.command.contains("pg_dump"))
            };
            while is_any() && asked.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let outcome = running.wait();
        assert!(asked.elapsed() < Duration::from_secs(30), "{outcome}");
        if signal == Signal::TERM {
            assert_eq!(outcome.code(), 143, "{outcome}");
            assert!(asked.elapsed() < Duration::from_secs(10), "{outcome}");
        }
        let list = behind.run(&["list"]).run().expect(0).json();
        assert_eq!(list["backups"], json!([]), "{outcome}");
        assert_eq!(list["unfinished"], json!([]), "{outcome}");
    }
}

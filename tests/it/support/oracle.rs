//! The oracle: what must hold after every `pgkeep backup`, whatever was done to it.
//!
//! A run that ends with 0 or 3 has left backups that are whole; any other has left nothing that can be seen; no run
//! touches what was there before; summary, last error and exit code say the same (O1, O3, O4, O7 of the fault list).
//! O5 and O6, secrets and processes left behind, come with the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pgkeep_core::encryption::Identities;
use pgkeep_core::stream::read::read_dump;
use pgkeep_model::scan::{Scan, Scanner};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::sandbox::Outcome;
use super::{S3Server, Sandbox};

/// Prefix of every bucket's URL in these tests.
const PREFIX: &str = "pg";

/// How the name of a manifest ends.
const MANIFEST: &str = ".manifest.json";

/// A storage as the file system shows it.
pub enum Place<'a> {
    /// A folder.
    Folder(PathBuf),
    /// A bucket, below the prefix `pg`.
    Bucket(&'a S3Server),
}

/// Watches the storages of one test.
pub struct Oracle<'a> {
    sandbox: &'a Sandbox,
    places: Vec<Place<'a>>,
}

/// What lay in each storage: keys with the SHA-256 of their bytes.
pub struct Before(Vec<BTreeMap<String, String>>);

impl Place<'_> {
    /// Returns the value of `--storage`.
    pub fn url(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Bucket(server) => format!("s3://{}/{PREFIX}", server.bucket),
        }
    }

    /// Returns the file of a key.
    pub fn file(&self, key: &str) -> PathBuf {
        self.root().join(key)
    }

    /// Returns every key below it, hidden files included.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        collect(&self.root(), "", &mut keys);
        keys.sort();
        keys
    }

    fn root(&self) -> PathBuf {
        match self {
            Self::Folder(path) => path.clone(),
            Self::Bucket(server) => server.bucket_dir().join(PREFIX),
        }
    }
}

impl<'a> Oracle<'a> {
    /// Watches storages, in the order in which the run gets them.
    pub fn new(sandbox: &'a Sandbox, places: Vec<Place<'a>>) -> Self {
        Self { sandbox, places }
    }

    /// Returns the flags that name all storages.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        for place in &self.places {
            flags.extend(["--storage".to_owned(), place.url()]);
            if let Place::Bucket(server) = place {
                flags.extend(["--s3-endpoint".to_owned(), server.endpoint.clone()]);
            }
        }
        flags
    }

    /// Looks at what is there, before a run.
    pub fn before(&self) -> Before {
        let hash = |place: &Place<'_>| {
            let hashes = place.keys().into_iter().map(|key| {
                let bytes = fs::read(place.file(&key)).unwrap();
                (key, sha256(&bytes))
            });
            hashes.collect()
        };
        Before(self.places.iter().map(hash).collect())
    }

    /// Judges a run that ended by itself: every promise holds, and a failure has left nothing at all.
    #[track_caller]
    pub fn judge(&self, before: &Before, outcome: &Outcome) {
        self.judge_visible(before, outcome);
        self.assert_recorded(before, outcome);
        let after = self.new_keys(before);
        let is_stored = matches!(outcome.code(), 0 | 3);
        assert!(
            is_stored || after.concat().is_empty(),
            "{after:?}: {outcome}"
        );
        let hidden = self.staging();
        assert!(hidden.is_empty(), "O4: {hidden:?}: {outcome}");
        if outcome.code() == 0 {
            self.assert_tidy();
        }
    }

    /// Judges a run that may have left an object without manifest, which is no backup.
    #[track_caller]
    pub fn judge_visible(&self, before: &Before, outcome: &Outcome) {
        self.assert_kept(before);
        let backups = agreed(outcome);
        let mut committed: Vec<BTreeSet<String>> = vec![BTreeSet::new(); self.places.len()];
        for backup in backups.iter().filter(|backup| backup["stored"] == true) {
            for (at, place) in self.places.iter().enumerate() {
                let state = &backup["storages"][at];
                assert_eq!(state["url"], place.url(), "{outcome}");
                if state["stored"] == true {
                    committed[at].insert(prove(place, backup));
                }
            }
        }
        let manifests = self.new_manifests(before);
        assert_eq!(
            manifests, committed,
            "O1: manifests and report differ: {outcome}"
        );
        self.assert_listed();
    }

    /// Judges a run that was killed: nothing new can be seen, whatever lies about.
    #[track_caller]
    pub fn judge_killed(&self, before: &Before, outcome: &Outcome) {
        assert_eq!(outcome.signal(), Some(9), "{outcome}");
        self.assert_kept(before);
        // A kill behind the commit leaves a backup, which then must be whole; `list` sees the same as we do.
        for (place, new) in self.places.iter().zip(self.new_manifests(before)) {
            for key in new {
                prove_manifest(place, &key);
            }
        }
        self.assert_listed();
    }

    /// Nothing came, went or changed, the record of a run aside.
    #[track_caller]
    pub fn assert_unchanged(&self, before: &Before) {
        assert_eq!(self.new_keys(before).concat(), [""; 0]);
        self.assert_kept(before);
    }

    /// Nothing is staged, no upload is open, and no lease is left (O4).
    #[track_caller]
    pub fn assert_tidy(&self) {
        assert_eq!(self.staging(), [""; 0], "O4: staging files");
        assert_eq!(self.leases(), [""; 0], "O4: leases");
        for place in &self.places {
            if let Place::Bucket(server) = place {
                assert_eq!(server.unfinished(), 0, "O4: open uploads");
            }
        }
    }

    /// Everything that was there is there, unchanged (O3). What a dead run staged may go, and so may its lease.
    #[track_caller]
    fn assert_kept(&self, before: &Before) {
        for (place, then) in self.places.iter().zip(&before.0) {
            let is_kept = |key: &str| !is_staging(key) && !is_lease(key);
            for (key, hash) in then.iter().filter(|(key, _)| is_kept(key)) {
                let now = fs::read(place.file(key)).map(|bytes| sha256(&bytes));
                assert_eq!(now.ok().as_ref(), Some(hash), "O3: `{key}` changed");
            }
        }
    }

    /// `list` shows exactly the manifests that have their dump.
    #[track_caller]
    fn assert_listed(&self) {
        let mut expected = BTreeSet::new();
        for place in &self.places {
            let keys = place.keys();
            let ids = keys.iter().filter_map(|key| id_of(key, MANIFEST));
            expected.extend(ids.filter(|id| {
                let dump = format!("/{id}.sql");
                keys.iter().any(|key| key.contains(&dump))
            }));
        }
        let arguments = [vec!["--json".to_owned(), "list".to_owned()], self.flags()].concat();
        let list = self.sandbox.pgkeep(arguments).run().expect(0).json();
        let listed: BTreeSet<String> = list["backups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|backup| backup["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(listed, expected, "O1: what `list` shows");
    }

    /// Returns how many manifests there are.
    pub fn manifests(&self) -> usize {
        let keys = self.places.iter().flat_map(Place::keys);
        keys.filter(|key| key.ends_with(MANIFEST)).count()
    }

    /// Returns the new keys of each place, records of runs aside.
    fn new_keys(&self, before: &Before) -> Vec<Vec<String>> {
        let places = self.places.iter().zip(&before.0);
        let new = places.map(|(place, then)| {
            let mut keys = place.keys();
            keys.retain(|key| !then.contains_key(key) && !is_record(key));
            keys
        });
        new.collect()
    }

    /// A run that began leaves one record in every place that takes it, which agrees with its exit code (O7).
    #[track_caller]
    fn assert_recorded(&self, before: &Before, outcome: &Outcome) {
        let backups = agreed(outcome);
        for (place, then) in self.places.iter().zip(&before.0) {
            let keys = place.keys().into_iter();
            let read = |key: String| -> Value {
                serde_json::from_slice(&fs::read(place.file(&key)).unwrap()).unwrap()
            };
            // That of a run that died is left by whoever takes its lease over.
            let new: Vec<Value> = keys
                .filter(|key| is_record(key) && !then.contains_key(key))
                .map(read)
                .filter(|record| record["failure_id"] != "run_interrupted")
                .collect();
            assert!(new.len() <= backups.len(), "O7: {new:?}: {outcome}");
            for record in new {
                let found = backups.iter().find(|backup| {
                    let failure = &backup["failure"];
                    let code = if failure.is_null() {
                        0
                    } else {
                        failure["code"].as_u64().unwrap()
                    };
                    backup["database"] == record["database"] && record["exit_code"] == code
                });
                let backup = found.unwrap_or_else(|| panic!("O7: {record}: {outcome}"));
                assert_eq!(record["verb"], "backup");
                assert_eq!(record["backup_id"], backup["backup_id"], "O7: {outcome}");
            }
        }
    }

    fn new_manifests(&self, before: &Before) -> Vec<BTreeSet<String>> {
        let is_manifest = |key: &String| key.ends_with(MANIFEST);
        let new = self.new_keys(before).into_iter();
        new.map(|keys| keys.into_iter().filter(is_manifest).collect())
            .collect()
    }

    /// Returns the leases that are there.
    pub fn leases(&self) -> Vec<String> {
        let keys = self.places.iter().flat_map(Place::keys);
        keys.filter(|key| is_lease(key)).collect()
    }

    fn staging(&self) -> Vec<String> {
        let keys = self.places.iter().flat_map(Place::keys);
        keys.filter(|key| is_staging(key)).collect()
    }
}

/// Summary, `exit_error` and exit code tell one story (O7); returns the reports of the summary.
#[track_caller]
fn agreed(outcome: &Outcome) -> Vec<Value> {
    let code = outcome.code();
    if code == 0 {
        assert!(!outcome.stderr().contains("exit_error"), "{outcome}");
    } else {
        outcome.exit_error();
    }
    if outcome.stdout.is_empty() {
        assert_eq!(
            code, 2,
            "O7: only a run that never began has no summary: {outcome}"
        );
        return Vec::new();
    }
    let summary = outcome.summary();
    assert_eq!(summary["message_type"], "summary", "{outcome}");
    let backups = summary["backups"].as_array().unwrap().clone();
    let is_any = |is: fn(&Value) -> bool| backups.iter().any(is);
    assert_eq!(
        is_any(|b| !b["failure"].is_null()),
        code != 0,
        "O7: {outcome}"
    );
    // One database without a backup is a failure, whatever the others have.
    assert_eq!(
        !backups.is_empty() && !is_any(|b| b["stored"] != true),
        matches!(code, 0 | 3),
        "O7: {outcome}"
    );
    if let [backup] = &backups[..]
        && code != 0
    {
        assert_eq!(backup["failure"], outcome.exit_error(), "O7: {outcome}");
    }
    backups
}

/// Proves one stored backup against its report; returns the manifest's key.
#[track_caller]
fn prove(place: &Place<'_>, backup: &Value) -> String {
    let key = backup["manifest_key"].as_str().unwrap();
    let manifest = prove_manifest(place, key);
    assert_eq!(manifest["id"], backup["backup_id"]);
    assert_eq!(manifest["object"]["sha256"], backup["sha256"]);
    assert_eq!(manifest["object"]["size_bytes"], backup["size_bytes"]);
    assert_eq!(manifest["dump"]["rows"], backup["rows"]);
    assert_eq!(manifest["restore"], backup["restore"]);
    key.to_owned()
}

/// Proves a stored backup: size and hash are those of its manifest, and the scanner finds it whole, with the same tables.
#[track_caller]
pub fn prove_manifest(place: &Place<'_>, key: &str) -> Value {
    let manifest: Value = serde_json::from_slice(&fs::read(place.file(key)).unwrap()).unwrap();
    let object = manifest["object"]["key"].as_str().unwrap();
    let bytes = fs::read(place.file(object)).unwrap();
    assert_eq!(manifest["object"]["size_bytes"], bytes.len(), "O1: {key}");
    assert_eq!(manifest["object"]["sha256"], sha256(&bytes), "O1: {key}");
    let identities = key_beside(place);
    let recipients = manifest["encryption"]["recipients"].to_string();
    let mut ours = identities.recipients().iter();
    if manifest["encryption"].is_object() && !ours.any(|one| recipients.contains(one)) {
        // Whoever encrypts for somebody else proves the rest.
        return manifest;
    }
    let scan = scan_with(&bytes, &identities);
    assert!(scan.complete, "O1: {key}: {:?}", scan.problems);
    assert_eq!(manifest["dump"]["bytes"], scan.bytes, "O1: {key}");
    let tables = manifest["tables"].as_array().unwrap();
    let recorded = tables
        .iter()
        .map(|t| (&t["schema"], &t["name"], &t["rows"], &t["digest"]));
    let scanned = serde_json::to_value(&scan.tables).unwrap();
    let found = scanned
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (&t["schema"], &t["name"], &t["rows"], &t["digest"]));
    assert!(recorded.eq(found), "O1: {key}: tables differ");
    manifest
}

/// Name of the file beside a folder of backups that holds the key to them.
pub const KEY: &str = "key.txt";

fn key_beside(place: &Place<'_>) -> Identities {
    let mut identities = Identities::default();
    if let Place::Folder(folder) = place
        && let Ok(text) = fs::read_to_string(folder.with_file_name(KEY))
    {
        identities.add(&text.into()).unwrap();
    }
    identities
}

/// Scans a dump, compressed or not.
pub fn scan(bytes: &[u8]) -> Scan {
    scan_with(bytes, &Identities::default())
}

fn scan_with(bytes: &[u8], identities: &Identities) -> Scan {
    let mut scanner = Scanner::new();
    read_dump(bytes, identities, &mut |piece| scanner.push(piece)).unwrap();
    scanner.finish()
}

/// Returns the SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id_of(key: &str, suffix: &str) -> Option<String> {
    let name = key.strip_suffix(suffix)?;
    Some(name.rsplit('/').next()?.to_owned())
}

fn is_staging(key: &str) -> bool {
    key.rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with('.'))
}

fn is_record(key: &str) -> bool {
    key.contains("/runs/")
}

fn is_lease(key: &str) -> bool {
    key.ends_with("/lease.json")
}

fn collect(folder: &Path, prefix: &str, keys: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{key}/"), keys);
        } else {
            keys.push(key);
        }
    }
}

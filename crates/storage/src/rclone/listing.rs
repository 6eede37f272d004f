//! What `rclone lsjson` prints, and the names under which uploads wait for their end.

use jiff::Timestamp;
use serde::Deserialize;

use crate::key::{is_key, is_segment, split};
use crate::{Error, Object, Result};

/// How the name of an object that is not yet whole ends. Together with the dot in front no listing shows it.
const UNFINISHED: &str = ".partial";

/// One entry.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    #[serde(default)]
    pub path: String,
    pub size: i64,
    pub mod_time: Timestamp,
    #[serde(default)]
    pub is_dir: bool,
}

impl Entry {
    /// Makes an object of it. A remote that does not know its sizes is none to keep backups in.
    pub(super) fn object(&self, key: &str) -> Result<Object> {
        let size_bytes = u64::try_from(self.size)
            .map_err(|_| Error::failed(format!("the remote does not tell the size of `{key}`")))?;
        Ok(Object {
            key: key.to_owned(),
            size_bytes,
            modified_at: self.mod_time,
        })
    }
}

/// Returns the folder that holds everything below a prefix.
pub(super) fn folder_of(prefix: &str) -> &str {
    split(prefix).0
}

/// Returns the objects among the entries of a folder whose keys start with `prefix`, sorted by key.
pub(super) fn objects(entries: &[Entry], folder: &str, prefix: &str) -> Result<Vec<Object>> {
    let keys = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .map(|entry| (entry, joined(folder, &entry.path)));
    let ours = keys.filter(|(_, key)| is_key(key) && key.starts_with(prefix));
    let mut objects: Vec<Object> = ours
        .map(|(entry, key)| entry.object(&key))
        .collect::<Result<_>>()?;
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    // Some remotes hold two files of one name.
    objects.dedup_by(|a, b| a.key == b.key);
    Ok(objects)
}

/// Returns the names of unfinished uploads that nobody has written to since `older_than`.
pub(super) fn leftovers(
    entries: &[Entry],
    folder: &str,
    prefix: &str,
    older_than: Timestamp,
) -> Vec<String> {
    let files = entries
        .iter()
        .filter(|entry| !entry.is_dir && entry.mod_time < older_than);
    let names = files.map(|entry| joined(folder, &entry.path));
    names
        .filter(|name| finished_key(name).is_some_and(|key| key.starts_with(prefix)))
        .collect()
}

/// Returns the name under which an upload waits for its end.
pub(super) fn unfinished(key: &str, token: u32) -> String {
    let (folder, name) = split(key);
    joined(folder, &format!(".{name}.{token:08x}{UNFINISHED}"))
}

/// Reads the key out of such a name.
fn finished_key(name: &str) -> Option<String> {
    let (folder, file) = split(name);
    let inner = file.strip_prefix('.')?.strip_suffix(UNFINISHED)?;
    let (key, token) = inner.rsplit_once('.')?;
    let is_token = token.len() == 8 && token.bytes().all(|b| b.is_ascii_hexdigit());
    (is_token && is_segment(key)).then(|| joined(folder, key))
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let json = r#"[
            {"Path":"b","Name":"b","Size":3,"ModTime":"2026-11-30T16:59:04.953863844Z","IsDir":false},
            {"Path":"runs/r.json","Name":"r.json","Size":1,"ModTime":"2026-11-30T16:59:04+01:00","IsDir":false},
            {"Path":"runs","Name":"runs","Size":-1,"ModTime":"2026-11-30T16:59:04Z","IsDir":true},
            {"Path":".b.0123abcd.partial","Name":"","Size":9,"ModTime":"2026-11-29T16:59:04Z","IsDir":false},
            {"Path":".c.0123abcd.partial","Name":"","Size":9,"ModTime":"2026-11-30T16:59:04Z","IsDir":false},
            {"Path":".hidden","Name":"","Size":9,"ModTime":"2026-11-29T16:59:04Z","IsDir":false},
            {"Path":"a b","Name":"","Size":9,"ModTime":"2026-11-29T16:59:04Z","IsDir":false}
        ]"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn lists_keys_alone() {
        let keys = |prefix: &str| -> Vec<String> {
            let objects = objects(&entries(), "shop", prefix).unwrap();
            objects.into_iter().map(|object| object.key).collect()
        };
        assert_eq!(keys("shop/"), ["shop/b", "shop/runs/r.json"]);
        assert_eq!(keys("shop/b"), ["shop/b"]);
        assert_eq!(keys("shop/x"), [""; 0]);
    }

    #[test]
    fn old_unfinished_uploads_are_leftovers() {
        let before = "2026-11-30T00:00:00Z".parse().unwrap();
        assert_eq!(
            leftovers(&entries(), "shop", "shop/", before),
            ["shop/.b.0123abcd.partial"]
        );
        assert_eq!(leftovers(&entries(), "shop", "shop/c", before), [""; 0]);
        let name = unfinished("shop/x.sql.gz", 7);
        assert_eq!(name, "shop/.x.sql.gz.00000007.partial");
        assert_eq!(finished_key(&name).unwrap(), "shop/x.sql.gz");
    }

    #[test]
    fn a_size_that_is_not_known_is_an_error() {
        let json = r#"[{"Path":"doc","Size":-1,"ModTime":"2026-11-30T16:59:04Z","IsDir":false}]"#;
        let entries: Vec<Entry> = serde_json::from_str(json).unwrap();
        assert!(objects(&entries, "", "").is_err());
    }
}

//! The mark of a damaged copy: the JSON beside a backup whose stored bytes contradict its manifest.
//!
//! Its presence is what counts; its content tells people what was found. It is written once; a reading that finds the copy good takes it away.

use jiff::Timestamp;
use serde::Serialize;

use super::id::BackupId;
use super::proof::Problem;

/// What was found, when and where.
#[derive(Debug, Serialize)]
pub struct DamageMark<'a> {
    /// Always 1.
    pub format: u64,
    /// The backup.
    pub id: &'a BackupId,
    /// When the second reading confirmed it.
    pub found_at: Timestamp,
    /// Name of the storage in the configuration.
    pub storage: &'a str,
    /// Where that is.
    pub url: &'a str,
    /// Key of the stored dump.
    pub key: &'a str,
    /// Length of what was read; none where there was nothing to read.
    pub stored_bytes: Option<u64>,
    /// Its SHA-256 in hex.
    pub sha256: Option<&'a str>,
    /// What contradicts the manifest, the first bad place first.
    pub problems: &'a [Problem],
}

impl DamageMark<'_> {
    /// Renders the mark as it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("a mark holds only JSON's own types");
        bytes.push(b'\n');
        bytes
    }
}

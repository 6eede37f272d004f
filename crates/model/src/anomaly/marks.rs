//! The two objects that stand beside a backup: that it is held, and that someone accepted it.
//!
//! Their presence is what counts; their content says why, for people. Both are written once and never changed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::AnomalyRecord;
use crate::id::BackupId;
use crate::pin::tidy;

/// Largest of them that is read: a hundred signs with the longest names have 60 KiB.
pub const MAX_MARK_BYTES: u64 = 256 * 1024;

/// Says that a backup is held. It is there from the backup's first moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldMark {
    /// Always 1.
    pub format: u64,
    /// The backup.
    pub id: BackupId,
    /// When it was judged.
    pub held_at: Timestamp,
    /// The verdict, as the manifest has it.
    pub anomaly: AnomalyRecord,
}

/// Says that a backup that was held is the new normal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Always 1.
    pub format: u64,
    /// The backup.
    pub id: BackupId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Who accepted it, such as `eva@web1`.
    pub accepted_by: String,
    /// Why.
    pub reason: String,
    /// The tables that were named; none where all that was seen was accepted unnamed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
}

impl HeldMark {
    /// Makes the mark.
    pub fn new(id: BackupId, held_at: Timestamp, anomaly: AnomalyRecord) -> Self {
        Self {
            format: 1,
            id,
            held_at,
            anomaly,
        }
    }

    /// Renders it as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads the verdict; none when the object says none that can be read, for it holds all the same.
    pub fn record_in(bytes: &[u8]) -> Option<AnomalyRecord> {
        let mark: Self = serde_json::from_slice(bytes).ok()?;
        Some(mark.anomaly)
    }
}

impl Acceptance {
    /// Accepts a backup. Control characters of the texts become spaces, and very long ones are cut.
    pub fn new(id: BackupId, accepted_at: Timestamp, accepted_by: &str, reason: &str) -> Self {
        Self {
            format: 1,
            id,
            accepted_at,
            accepted_by: tidy(accepted_by),
            reason: tidy(reason),
            tables: Vec::new(),
        }
    }

    /// Renders it as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads who accepted a backup, when and why; none when that cannot be read, for it is accepted all the same.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let read: Self = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            accepted_by: tidy(&read.accepted_by),
            reason: tidy(&read.reason),
            ..read
        })
    }
}

fn to_json(mark: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(mark).expect("a mark holds only JSON's own types");
    bytes.push(b'\n');
    bytes
}

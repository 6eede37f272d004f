//! What is known of a database's drills and backups, as several pages show it.

use jiff::Timestamp;

use crate::snapshot::Snapshot;
use pgkeep_core::op::status::{self, Status};
use pgkeep_core::op::stored::StoredBackup;
use pgkeep_model::freshness::Freshness;

/// A backup by its age and size.
#[derive(Clone, Debug)]
pub struct Newest {
    /// Its id.
    pub id: String,
    /// When its run began.
    pub at: Timestamp,
    /// Its size in one storage.
    pub size_bytes: u64,
}

/// How the drills of a database stand.
#[derive(Clone, Debug, Default)]
pub struct DrillCell {
    /// When the last one passed.
    pub passed_at: Option<Timestamp>,
    /// When one failed since, and why.
    pub failed: Option<(Timestamp, String)>,
    /// Whether one is overdue.
    pub is_stale: bool,
    /// The recovery time of the last one that passed, in milliseconds.
    pub recovery_ms: Option<u64>,
    /// What it should be at most.
    pub target_ms: Option<u64>,
}

/// How the drills of a database stand.
pub(super) fn drill(snapshot: &Snapshot, status: &Status) -> DrillCell {
    let Some(drill) = &status.drill else {
        return DrillCell {
            target_ms: target(snapshot, &status.database),
            ..DrillCell::default()
        };
    };
    DrillCell {
        passed_at: drill.passed_at,
        failed: drill
            .failed
            .as_ref()
            .map(|failed| (failed.at, failed.why.clone())),
        is_stale: drill.freshness == Freshness::Stale,
        recovery_ms: last_recovery(snapshot, &status.database),
        target_ms: target(snapshot, &status.database),
    }
}

/// The recovery time of the last drill that passed.
pub(super) fn last_recovery(snapshot: &Snapshot, name: &str) -> Option<u64> {
    let name = name.parse().ok()?;
    let drills = snapshot.drills.get(&name)?;
    drills.last().map(|drill| drill.recovery_ms)
}

/// What the recovery time should be at most.
pub(super) fn target(snapshot: &Snapshot, name: &str) -> Option<u64> {
    let name = name.parse().ok()?;
    let target = snapshot.recovery_targets.get(&name)?;
    u64::try_from(target.as_millis()).ok()
}

/// What a backup is marked as, in words.
pub(super) fn marks(backup: &StoredBackup) -> Vec<&'static str> {
    [
        (!backup.is_good(), "damaged"),
        (backup.is_held(), "held"),
        (backup.is_accepted(), "accepted"),
        (backup.is_pinned(), "pinned"),
        (backup.is_drilled(), "drilled"),
        (backup.is_pre_deploy(), "pre-deploy"),
        (backup.is_encrypted(), "encrypted"),
        (backup.place.is_partial, "partial"),
    ]
    .into_iter()
    .filter_map(|(is, word)| is.then_some(word))
    .collect()
}

impl From<&status::Newest> for Newest {
    fn from(newest: &status::Newest) -> Self {
        Self {
            id: newest.id.clone(),
            at: newest.started_at,
            size_bytes: newest.size_bytes,
        }
    }
}

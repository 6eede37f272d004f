//! What a backup run reports: the exit code, the summary and the notice all come from this value.

use jiff::Timestamp;
use serde::Serialize;

use crate::notify::Delivery;
use crate::op::prune;
use pgkeep_model::anomaly::AnomalyRecord;
use pgkeep_model::failure::Failure;
use pgkeep_model::limits::LimitRecord;
use pgkeep_model::manifest::Manifest;
use pgkeep_model::required::RequiredOutcome;
use pgkeep_model::scan::Finding;

/// Id of the failure of a backup that a storage took and does not show again.
pub const NOT_FOUND_AGAIN: &str = "backup_not_found_again";

/// Id of the warning about rows of extensions that no dump holds.
pub const EXTENSION_ROWS: &str = "extension_rows";

/// How a run ended. The exit code, the summary and everything else that speaks of it come from this value.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The database.
    pub database: String,
    /// The backup's id; none when no attempt came so far.
    pub backup_id: Option<String>,
    /// Whether the backup is stored and proven.
    pub stored: bool,
    /// When the run began.
    pub started_at: Timestamp,
    /// How long it took.
    pub took_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Rows of all tables.
    pub rows: u64,
    /// Number of tables.
    pub tables: usize,
    /// Length of the uncompressed dump.
    pub dump_bytes: u64,
    /// Size of the stored dump.
    pub size_bytes: u64,
    /// Size of all objects of the backup in one storage, as a listing counts it.
    #[serde(skip)]
    pub stored_bytes: u64,
    /// SHA-256 of the stored dump.
    pub sha256: Option<String>,
    /// Whom it is encrypted for; empty where it is not.
    pub recipients: Vec<String>,
    /// Key of the manifest below each storage.
    pub manifest_key: Option<String>,
    /// What each storage made of it.
    pub storages: Vec<StorageOutcome>,
    /// What was pruned behind it; none where nothing was to be.
    pub prune: Option<prune::Report>,
    /// What was required and what was found; empty where no dump came to its end.
    pub required_tables: Vec<RequiredOutcome>,
    /// Which tables were not dumped whole, and what was kept of them.
    pub limits: Vec<LimitRecord>,
    /// What was odd.
    pub warnings: Vec<Finding>,
    /// What the anomaly gate said; none where it was not asked.
    pub anomaly: Option<AnomalyRecord>,
    /// The shell line that restores the backup without pgkeep.
    pub restore: Option<String>,
    /// How far it came, where it failed: `lock`, `connect`, `dump`, `proof`, `store`,
    /// `anomaly`, `prune`.
    pub stage: Option<&'static str>,
    /// Who was told, and whether it arrived.
    pub notices: Vec<Delivery>,
    /// Why the run failed, or what failed after the backup was good.
    pub failure: Option<Failure>,
    /// The manifest of a stored backup.
    #[serde(skip)]
    pub manifest: Option<Manifest>,
}

/// What one storage made of a backup.
#[derive(Clone, Debug, Serialize)]
pub struct StorageOutcome {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Whether the backup is there.
    pub stored: bool,
    /// Why not, where it is the storage's own fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it did not show again what it took; none where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

impl Report {
    /// Tells whether a storage has the backup and shows it, so that commands find it.
    pub fn is_findable(&self) -> bool {
        let mut storages = self.storages.iter();
        storages.any(|outcome| outcome.stored && outcome.doubt.is_none())
    }
}

//! How a run ended.

use serde_json::Value;

use pgkeep_model::failure::Failure;

/// How a run ended.
pub(super) struct Outcome {
    pub(super) failure: Option<Failure>,
    /// Whether what it made is good all the same, or nothing was to be made.
    pub(super) is_good: bool,
    pub(super) backup_id: Option<String>,
    pub(super) size_bytes: Option<u64>,
    pub(super) rows: Option<u64>,
    pub(super) report: Option<Value>,
}

impl Outcome {
    pub(super) fn of(failure: Failure) -> Self {
        Self {
            failure: Some(failure),
            is_good: false,
            backup_id: None,
            size_bytes: None,
            rows: None,
            report: None,
        }
    }
}

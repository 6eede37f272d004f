//! How a run ended.

use serde_json::Value;

use pgkeep_model::failure::Failure;

/// How a run ended.
pub(super) struct Outcome {
    pub(super) failure: Option<Failure>,
    pub(super) backup_id: Option<String>,
    pub(super) size_bytes: Option<u64>,
    pub(super) rows: Option<u64>,
    pub(super) report: Option<Value>,
}

impl Outcome {
    pub(super) fn of(failure: Failure) -> Self {
        Self {
            failure: Some(failure),
            backup_id: None,
            size_bytes: None,
            rows: None,
            report: None,
        }
    }
}

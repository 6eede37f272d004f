//! What `pin` and `unpin` are to do.

use super::{Setup, StorageOverrides};
use crate::copies::listing::Wanted;
use crate::op::pin::Request;
use pgkeep_model::failure::{Failure, Kind, Result};

/// Which backup, and where to look.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of the backup; the latest where nobody says.
    pub id: Option<String>,
    /// Where to look.
    pub storage: StorageOverrides,
}

/// Returns the request to pin a backup for a reason.
pub fn request(overrides: &Overrides, reason: &str, setup: &Setup) -> Result<Request> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(reason_needed());
    }
    request_with(overrides, Some(reason.to_owned()), setup)
}

/// Returns the request to leave a backup to retention again.
pub fn request_to_unpin(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    request_with(overrides, None, setup)
}

fn request_with(overrides: &Overrides, reason: Option<String>, setup: &Setup) -> Result<Request> {
    Ok(Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database: setup.database_name()?,
        wanted: Wanted::parse(overrides.id.as_deref().unwrap_or("latest"))?,
        reason,
    })
}

pub(super) fn reason_needed() -> Failure {
    let message = "a pin needs a reason, for anyone who finds it later";
    Failure::new(Kind::Usage, "reason_needed", message)
        .hint("`pgkeep pin ID 'before the move to v2.3'`")
}

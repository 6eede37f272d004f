//! What `sync` is to do.

use super::flags::duration_or_off;
use super::prune::{Opened, only_database};
use super::{Setup, StorageOverrides};
use crate::op::lock::LockSettings;
use crate::op::prune::SAFE;
use crate::op::sync::Request;
use pgkeep_model::failure::Result;

/// Where is copied and swept, and how.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Change nothing.
    pub dry_run: bool,
    /// Read every copy.
    pub verify: bool,
    /// How long to wait for another run of the same database.
    pub lock_timeout: Option<String>,
    /// The storages.
    pub storage: StorageOverrides,
}

/// Returns how the runs lock.
pub fn lock(overrides: &Overrides, setup: &Setup) -> Result<LockSettings> {
    let wait = duration_or_off("--lock-timeout", overrides.lock_timeout.as_deref())?;
    setup.lock_as_configured(wait.unwrap_or_default())
}

/// With `--storage` the one database there, otherwise every database of the configuration, or the one of `-d`.
pub async fn requests(overrides: &Overrides, setup: &Setup) -> Result<Vec<Opened<Request>>> {
    let (dry_run, verify) = (overrides.dry_run, overrides.verify);
    if !overrides.storage.storages.is_empty() {
        let storages = setup.storages_to_read(&overrides.storage)?;
        let database = only_database(setup, &storages).await?;
        let policy = if setup.names_a_database() {
            setup.retention().ok().flatten()
        } else {
            None
        };
        let is_partial = setup.knows_more_storages(&database, &storages);
        return Ok(vec![Ok(Request {
            database,
            storages,
            is_partial,
            policy,
            verify,
            dry_run,
        })]);
    }
    let config = setup.config_or_fail()?;
    let mut requests = Vec::new();
    for (database, section) in setup.sections(config)? {
        requests.push(match setup.open_named(config, &section.storages) {
            Ok(storages) => Ok(Request {
                database,
                is_partial: false,
                storages,
                policy: section.retention,
                verify,
                dry_run,
            }),
            Err(failure) => Err((database, failure.and_safe(SAFE))),
        });
    }
    Ok(requests)
}

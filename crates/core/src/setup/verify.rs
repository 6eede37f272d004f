//! What `verify` is to do.

use super::{Setup, StorageOverrides};
use crate::copies::listing::Wanted;
use crate::op::verify::{Request, Which};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::origin::Origin;

/// Which backups are read back, and where.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of the backup; the latest where nobody says.
    pub id: Option<String>,
    /// Every backup.
    pub all: bool,
    /// So many by chance, and the newest of each database besides.
    pub sample: Option<usize>,
    /// Where to look.
    pub storage: StorageOverrides,
}

/// Returns the request to verify.
pub fn request(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    Ok(Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database: setup.database_name()?,
        which: which(overrides)?,
        origin: Origin::default(),
        lock: None,
    })
}

fn which(overrides: &Overrides) -> Result<Which> {
    match (&overrides.id, overrides.all, overrides.sample) {
        (_, true, _) => Ok(Which::All),
        (_, _, Some(0)) => {
            let message = "cannot use `--sample 0`: it must be at least 1";
            Err(Failure::new(Kind::Usage, "bad_sample", message))
        }
        (_, _, Some(count)) => Ok(Which::Sample(count)),
        (id, ..) => Wanted::parse(id.as_deref().unwrap_or("latest")).map(Which::One),
    }
}

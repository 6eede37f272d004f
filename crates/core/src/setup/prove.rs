//! What the commands about keys are to do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{Setup, StorageOverrides};
use crate::copies::listing::{Listing, NamedStorage, Wanted};
use crate::op::keys::{generate, list, prove};
use pgkeep_model::config::StorageUrl;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::{BackupId, DatabaseName};

/// Which key, and where backups are.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of the backup to open; the latest of each database where nobody says.
    pub id: Option<String>,
    /// Another host has opened it.
    pub is_told: bool,
    /// Where to look, and the files of private keys.
    pub storage: StorageOverrides,
}

/// Returns the requests to prove keys: for one backup, or for the latest of each database that has encrypted ones.
pub async fn prove(
    overrides: &Overrides,
    setup: &Setup,
    now: Timestamp,
) -> Result<Vec<prove::Request>> {
    let storages = setup.storages_to_read(&overrides.storage)?;
    let named = overrides.id.as_deref().filter(|id| *id != "latest");
    if overrides.is_told && named.is_none() {
        let message = "`--told` needs the id of the backup that was opened";
        return Err(Failure::new(Kind::Usage, "id_needed", message)
            .hint("`pgkeep keys prove` prints it, where the private key is"));
    }
    let request = |wanted| prove::Request {
        storages: storages.clone(),
        wanted,
        is_told: overrides.is_told,
    };
    if let Some(id) = named {
        return Ok(vec![request(Wanted::parse(id)?)]);
    }
    let newest = encrypted(&storages, setup.database_name()?.as_ref(), now).await?;
    Ok(newest.into_iter().map(Wanted::Id).map(request).collect())
}

/// Returns the newest encrypted backup of each database, or of this one.
async fn encrypted(
    storages: &[NamedStorage],
    database: Option<&DatabaseName>,
    now: Timestamp,
) -> Result<Vec<BackupId>> {
    let listing = Listing::read(storages.to_vec(), database, now).await?;
    let mut newest: BTreeMap<&DatabaseName, &BackupId> = BTreeMap::new();
    for backup in &listing.backups {
        let id = &backup.place.id;
        let counts = backup.is_good() && !backup.place.is_partial && !listing.is_ahead(backup);
        if counts && backup.is_encrypted() {
            newest.insert(id.database(), id);
        }
    }
    if newest.is_empty() {
        let message = "there is no encrypted backup";
        return Err(Failure::new(Kind::NotFound, "not_encrypted", message)
            .hint("`encryption.recipients` in the configuration encrypts the next backups"));
    }
    Ok(newest.into_values().cloned().collect())
}

/// Returns the request to list which backups need which key.
pub fn list(overrides: &Overrides, setup: &Setup, now: Timestamp) -> Result<list::Request> {
    Ok(list::Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database: setup.database_name()?,
        now,
    })
}

/// Returns the request to make a key. It is not put where backups are.
pub fn generate(file: PathBuf, setup: &Setup) -> Result<generate::Request> {
    if file.as_os_str() == "-" {
        let message = "a private key is not printed: name a file";
        return Err(Failure::new(Kind::Usage, "file_needed", message));
    }
    // A key can be made before there is a configuration, and beside a broken one.
    let config = setup.config().ok().flatten();
    let storages = config.iter().flat_map(|config| &config.storages);
    let folders = storages.filter_map(|(_, storage)| match &storage.url {
        StorageUrl::Folder(path) => Some(setup.expand_home(path)),
        _ => None,
    });
    Ok(generate::Request {
        file,
        folders: folders.collect(),
    })
}

//! What the commands about keys are to do.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{Setup, StorageOverrides};
use crate::copies::listing::{Listing, NamedStorage, Wanted};
use crate::op::keys::{generate, list, prove};
use pgkeep_model::config::StorageUrl;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;

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
    if overrides.is_told && overrides.id.is_none() {
        let message = "`--told` needs the id of the backup that was opened";
        return Err(Failure::new(Kind::Usage, "id_needed", message)
            .hint("`pgkeep keys prove` prints it, where the private key is"));
    }
    let request = |database, wanted| prove::Request {
        storages: storages.clone(),
        database,
        wanted,
        is_told: overrides.is_told,
    };
    let named = overrides.id.as_deref().filter(|id| *id != "latest");
    if let Some(id) = named {
        return Ok(vec![request(None, Wanted::parse(id)?)]);
    }
    let names = match setup.database_name()? {
        Some(name) => vec![name],
        None => encrypted(&storages, now).await?,
    };
    let of = |name| request(Some(name), Wanted::Latest);
    Ok(names.into_iter().map(of).collect())
}

/// Returns the databases whose newest backup is encrypted.
async fn encrypted(storages: &[NamedStorage], now: Timestamp) -> Result<Vec<DatabaseName>> {
    let listing = Listing::read(storages.to_vec(), None, now).await?;
    let mut names: Vec<DatabaseName> = listing
        .backups
        .iter()
        .filter(|backup| backup.is_good() && backup.is_encrypted() && !backup.place.is_partial)
        .map(|backup| backup.place.id.database().clone())
        .collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        let message = "there is no encrypted backup";
        return Err(Failure::new(Kind::NotFound, "not_encrypted", message)
            .hint("`encryption.recipients` in the configuration encrypts the next backups"));
    }
    Ok(names)
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

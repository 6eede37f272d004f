//! What `drill` is to do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::restore::configured_limits;
use super::{Setup, StorageOverrides};
use crate::copies::listing::{Listing, Wanted};
use crate::op::drill::Request;
use pgkeep_model::config::{Config, DrillConfig};
use pgkeep_model::connection::{Connection, ConnectionError};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::origin::Origin;

/// Which backup is drilled, where, and how.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of the backup; the latest where nobody says.
    pub id: Option<String>,
    /// The latest backup of every database.
    pub all: bool,
    /// Server to restore into.
    pub drill_url: Option<String>,
    /// Extensions that the server may lack, beside those of the configuration.
    pub skip_extensions: Vec<String>,
    /// Restore on that server as a superuser.
    pub allow_superuser: bool,
    /// Folder of the PostgreSQL programs.
    pub bin_dir: Option<PathBuf>,
    /// Where to look.
    pub storage: StorageOverrides,
}

/// Returns the requests to drill: one, or with [`Overrides::all`] one for each database of the configuration, or of the
/// storages that are named.
pub async fn requests(
    overrides: &Overrides,
    setup: &Setup,
    now: Timestamp,
) -> Result<Vec<Request>> {
    if !overrides.all {
        return Ok(vec![request(overrides, setup)?]);
    }
    let names: BTreeSet<String> = if overrides.storage.storages.is_empty() {
        let config = setup.config_or_fail()?;
        let sections = setup.sections(config)?.into_iter();
        sections.map(|(name, _)| name.to_string()).collect()
    } else {
        let storages = setup.storages_to_read(&overrides.storage)?;
        let listing = Listing::read(storages, setup.database_name()?.as_ref(), now).await?;
        let backups = listing.backups.iter().filter(|one| one.is_committed());
        let names: BTreeSet<String> = backups
            .map(|backup| backup.place.id.database().to_string())
            .collect();
        if names.is_empty() {
            return Err(listing.nothing_there());
        }
        names
    };
    let of = |name| {
        let mut one = setup.clone();
        one.database = Some(name);
        request(overrides, &one)
    };
    names.into_iter().map(of).collect()
}

/// Returns the request to drill.
pub fn request(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    let wanted = Wanted::parse(overrides.id.as_deref().unwrap_or("latest"))?;
    let database = setup.database_name()?;
    let config = setup.config()?;
    let name = match &wanted {
        Wanted::Id(id) => Some(id.database().to_string()),
        Wanted::Latest => database.as_ref().map(ToString::to_string),
    };
    let DrillConfig {
        url,
        allow_superuser,
        mut skip_extensions,
        assertions,
        ..
    } = config
        .as_ref()
        .map(|config| drill_config(config, name.as_deref()))
        .unwrap_or_default();
    if overrides.drill_url.is_none() {
        setup.check_drills()?;
    }
    skip_extensions.extend(overrides.skip_extensions.iter().cloned());
    let url = overrides
        .drill_url
        .clone()
        .or_else(|| url.map(|url| url.expose_secret().to_owned()));
    let bad = |error: ConnectionError| {
        let message = format!("cannot read the drill's server: {error}");
        Failure::new(Kind::Usage, "bad_connection", message)
    };
    let server = url
        .map(|url| url.parse::<Connection>())
        .transpose()
        .map_err(bad)?;
    let limits = configured_limits(config, name.as_deref());
    Ok(Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database,
        wanted,
        server,
        limits,
        allow_superuser: allow_superuser || overrides.allow_superuser,
        search: setup.search(overrides.bin_dir.as_deref())?,
        environment: setup.program_environment(),
        skip_extensions,
        assertions,
        origin: Origin::default(),
        lock: None,
    })
}

/// The section of the database that is meant; of the only one where nobody said which.
fn drill_config(config: &Config, name: Option<&str>) -> DrillConfig {
    let found = match (name, config.databases.as_slice()) {
        (Some(name), _) => config.database(name),
        (None, [(_, only)]) => Some(only),
        (None, _) => None,
    };
    found.map_or_else(
        || config.defaults.drill.clone(),
        |database| database.drill.clone(),
    )
}

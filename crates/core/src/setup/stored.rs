//! What `list`, `show` and `get` are to do.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{Setup, StorageOverrides};
use crate::copies::listing::Wanted;
use crate::op::{get, list, show};
use pgkeep_model::failure::Result;

/// Which backup, and where to look.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of the backup; the latest where nobody says.
    pub id: Option<String>,
    /// Where to look.
    pub storage: StorageOverrides,
    /// File to write; `-` is standard output, none the object's own name in the current folder.
    pub output: Option<PathBuf>,
    /// Roles and tablespaces instead of the dump.
    pub globals: bool,
    /// Replace a file that is there.
    pub force: bool,
    /// Decrypt what is encrypted.
    pub decrypt: bool,
}

impl Overrides {
    fn wanted(&self) -> Result<Wanted> {
        Wanted::parse(self.id.as_deref().unwrap_or("latest"))
    }
}

/// Returns the request to list what is stored.
pub fn list(overrides: &Overrides, setup: &Setup, now: Timestamp) -> Result<list::Request> {
    Ok(list::Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database: setup.database_name()?,
        now,
    })
}

/// Returns the request to show a manifest.
pub fn show(overrides: &Overrides, setup: &Setup, now: Timestamp) -> Result<show::Request> {
    Ok(show::Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database: setup.database_name()?,
        wanted: overrides.wanted()?,
        now,
    })
}

/// Returns the request to download a backup.
pub fn get(overrides: &Overrides, setup: &Setup) -> Result<get::Request> {
    let output = match &overrides.output {
        Some(path) if path.as_os_str() == "-" => get::Output::Stdout,
        path => get::Output::File {
            path: path.clone(),
            replace: overrides.force,
        },
    };
    Ok(get::Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database: setup.database_name()?,
        wanted: overrides.wanted()?,
        globals: overrides.globals,
        decrypt: overrides.decrypt,
        output,
    })
}

//! `show`: one backup's manifest.

use jiff::Timestamp;

use super::accept;
use super::stored::{Listing, NamedStorage, Wanted, database_of, doubtful, read_manifest};
use pgkeep_model::anomaly::Acceptance;
use pgkeep_model::failure::{Failure, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::manifest::Manifest;

/// Which manifest to show.
pub struct Request {
    /// Where to look.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// Which backup.
    pub wanted: Wanted,
    /// The present moment.
    pub now: Timestamp,
}

/// A manifest and where its backup lies.
pub struct Report {
    /// The manifest.
    pub manifest: Manifest,
    /// Names of the storages that have the backup.
    pub storages: Vec<String>,
    /// Where the manifest was read from.
    pub url: String,
    /// Whether it is held, and nobody has accepted it.
    pub is_held: bool,
    /// Who accepted it, when and why.
    pub accepted: Option<Acceptance>,
    /// What is odd of the choice of this backup.
    pub warnings: Vec<String>,
    /// A storage that did not answer while others did: the newest backup there may be another.
    pub failure: Option<Failure>,
}

/// Reads a manifest.
pub async fn run(request: Request) -> Result<Report> {
    let database = database_of(&request.wanted, request.database);
    let listing = Listing::read(request.storages, database.as_ref(), request.now).await?;
    let backup = listing.find(&request.wanted)?;
    let (manifest, at) = read_manifest(&listing, backup).await?;
    let storages = backup
        .readable_from()
        .iter()
        .map(|&at| listing.storages[at].name.clone())
        .collect();
    Ok(Report {
        manifest,
        storages,
        is_held: backup.is_held(),
        accepted: accept::read(&listing, backup).await,
        warnings: listing.passed_over(&request.wanted),
        failure: doubtful(&request.wanted, &listing),
        url: listing.states[at].url.clone(),
    })
}

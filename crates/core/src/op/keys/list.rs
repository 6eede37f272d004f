//! `keys list`: which backups need which private key.

use jiff::Timestamp;
use serde::Serialize;

use super::sets;
use crate::copies::listing::{Listing, NamedStorage, StorageState};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::key_sets::{KeySet, warnings};

/// Where to look.
pub struct Request {
    /// The storages, and the keys at hand.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// The present moment.
    pub now: Timestamp,
}

/// Which keys are needed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One for each database that has backups.
    pub databases: Vec<Keys>,
    /// Where was looked.
    pub storages: Vec<StorageState>,
    /// A storage that did not answer while others did.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// Which keys the backups of one database need.
#[derive(Debug, Serialize)]
pub struct Keys {
    /// The database.
    pub database: String,
    /// Backups by their recipients, those of the newest first.
    pub sets: Vec<Set>,
    /// How many backups are not encrypted.
    pub plain: u64,
    /// What is to be warned of.
    pub warnings: Vec<String>,
}

/// Backups with the same recipients.
#[derive(Debug, Serialize)]
pub struct Set {
    /// Which ones.
    #[serde(flatten)]
    pub set: KeySet,
    /// Whether a key at hand opens them; none where there is no key at hand, or nobody can tell.
    pub opens: Option<bool>,
}

/// Lists them.
pub async fn run(request: Request) -> Result<Report> {
    let listing = Listing::read(request.storages, request.database.as_ref(), request.now).await?;
    let committed = listing
        .backups
        .iter()
        .filter(|backup| backup.is_committed() && !backup.place.is_partial);
    let mut names: Vec<DatabaseName> = committed
        .clone()
        .map(|backup| backup.place.id.database().clone())
        .collect();
    names.sort();
    names.dedup();
    if let (Some(database), true) = (&request.database, names.is_empty()) {
        let message = format!("there is no backup of `{database}`");
        return Err(listing.partial_failure().unwrap_or_else(|| {
            Failure::new(Kind::NotFound, "no_such_backup", message)
                .hint("`pgkeep list` shows what is there")
        }));
    }
    let mut databases = Vec::new();
    for name in names {
        let all = sets(&listing, &name).await;
        let plain = committed
            .clone()
            .filter(|backup| backup.place.id.database() == &name && !backup.is_encrypted());
        databases.push(Keys {
            database: name.to_string(),
            plain: plain.count() as u64,
            warnings: warnings(&all, request.now),
            sets: all
                .sets
                .into_iter()
                .map(|set| opened(set, &listing))
                .collect(),
        });
    }
    Ok(Report {
        databases,
        failure: listing.partial_failure(),
        storages: listing.states,
    })
}

fn opened(set: KeySet, listing: &Listing) -> Set {
    let mine: Vec<&String> = listing
        .storages
        .iter()
        .flat_map(|named| named.identities.recipients())
        .collect();
    let opens = match &set.recipients {
        Some(recipients) if !mine.is_empty() => {
            Some(recipients.iter().any(|one| mine.contains(&one)))
        }
        _ => None,
    };
    Set { set, opens }
}

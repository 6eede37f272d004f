//! `diff`: what differs between two backups, or between a backup and what the database holds now.
//!
//! Manifests tell most of it; of a backup the structure is read by range, and no row ever is. Nothing is changed anywhere.

mod live;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::stored::{NamedStorage, Wanted};
use crate::context::Context;
use crate::copies::Stored;
use crate::postgres::environment::Environment;
use crate::postgres::programs::Search;
use crate::stream::pipeline::Progress;
use pgkeep_model::connection::Connection;
use pgkeep_model::diff::{Difference, Side, compare, counts, unified};
use pgkeep_model::failure::{Failure, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::manifest::Manifest;

/// What to compare.
pub struct Request {
    /// Where to look for backups.
    pub storages: Vec<NamedStorage>,
    /// The database that `latest` means.
    pub database: Option<DatabaseName>,
    /// One side.
    pub one: Wanted,
    /// The other.
    pub other: Other,
    /// Whether the structure is wanted as unified SQL: without it that is a failure.
    pub with_sql: bool,
    /// Whether no difference is an answer that somebody relies on: what could not be compared makes it none.
    pub must_tell: bool,
}

/// What a backup is compared with.
pub enum Other {
    /// Another backup.
    Backup(Wanted),
    /// What a database holds now.
    Live(Live),
}

/// A database that is looked at.
pub struct Live {
    /// Where it is.
    pub connection: Connection,
    /// Where to look for client programs.
    pub search: Search,
    /// What programs may see of the environment.
    pub environment: Environment,
    /// How long each lock is waited for.
    pub lock_wait_timeout: Duration,
    /// Whether all rows are read, and not only counted.
    pub reads_rows: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The older side.
    pub from: SideReport,
    /// The newer side.
    pub to: SideReport,
    /// What differs.
    #[serde(flatten)]
    pub difference: Difference,
    /// Whether the structures were compared; they are not where nobody can read one.
    pub structure_compared: bool,
    /// What differs of the structure as unified SQL, where that was asked for.
    pub sql: Option<String>,
    /// Stored bytes that were read, manifests and listings apart.
    pub read_bytes: u64,
    /// What was odd.
    pub warnings: Vec<String>,
    /// A storage that did not answer while others did: the newest backup there may be another.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// One side of the comparison.
#[derive(Debug, Serialize)]
pub struct SideReport {
    /// The backup; none for a database as it is now.
    pub backup_id: Option<String>,
    /// The database's name in the configuration.
    pub database: String,
    /// When the backup was begun, or the database looked at.
    pub at: Timestamp,
    /// Where the database is, without secrets; none for a backup.
    pub connection: Option<String>,
    /// The server's version in its own words.
    pub server_version: String,
    /// Size of the stored dump; none for a database as it is now.
    pub stored_bytes: Option<u64>,
}

impl SideReport {
    fn of(manifest: &Manifest) -> Self {
        Self {
            backup_id: Some(manifest.id.to_string()),
            database: manifest.database.to_string(),
            at: manifest.started_at,
            connection: None,
            server_version: manifest.server.version.clone(),
            stored_bytes: Some(manifest.object.size_bytes),
        }
    }

    /// Returns what the side is called in unified SQL.
    fn label(&self) -> &str {
        self.backup_id.as_deref().unwrap_or("now")
    }
}

/// What is known of one side.
struct Known {
    report: SideReport,
    side: Side,
}

impl Known {
    fn of(stored: Stored) -> Self {
        Self {
            report: SideReport::of(&stored.manifest),
            side: Side::from(&stored.manifest),
        }
    }
}

/// Compares; `progress` counts the rows of a database that are read.
pub async fn run(request: &Request, context: &Context, progress: &Arc<Progress>) -> Result<Report> {
    match &request.other {
        Other::Backup(other) => backups(request, other, context).await,
        Other::Live(live) => with_live(request, live, context, progress).await,
    }
}

/// Opens a backup. `latest` beside an id is that of the id's database.
async fn open(
    request: &Request,
    wanted: &Wanted,
    beside: Option<&Wanted>,
    context: &Context,
) -> Result<Stored> {
    let of_other = match beside {
        Some(Wanted::Id(id)) => Some(id.database().clone()),
        _ => None,
    };
    let database = request.database.clone().or(of_other);
    Stored::open(&request.storages, database, wanted, context.clock.now()).await
}

async fn backups(request: &Request, other: &Wanted, context: &Context) -> Result<Report> {
    let (one, other) = tokio::join!(
        open(request, &request.one, Some(other), context),
        open(request, other, Some(&request.one), context)
    );
    let (one, other) = (one?, other?);
    // Ids know whole seconds.
    let time = |stored: &Stored| (stored.manifest.started_at, stored.manifest.finished_at);
    let (older, newer) = if time(&one) <= time(&other) {
        (one, other)
    } else {
        (other, one)
    };
    let what = format!(
        "cannot compare `{}` with `{}`",
        older.manifest.id, newer.manifest.id
    );
    let mut found = Found::default();
    found.note(&older);
    found.note(&newer);
    let is_same = older.manifest.object.sha256 == newer.manifest.object.sha256;
    let read = if is_same {
        None
    } else {
        let (first, second) = tokio::join!(
            stored::structure(&older, &what, context),
            stored::structure(&newer, &what, context)
        );
        let first = found.take(first, request, &what)?;
        first.zip(found.take(second, request, &what)?)
    };
    found.is_compared = is_same || read.is_some();
    // Of tens of thousands of tables nothing is held twice: neither manifest, nor what the scanner knows.
    let (mut older, mut newer) = (Known::of(older), Known::of(newer));
    if let Some((before, now)) = read {
        older.side = older.side.with_structure(before.objects().await);
        newer.side = newer.side.with_structure(now.objects().await);
    }
    found.report(request, older, newer)
}

async fn with_live(
    request: &Request,
    live: &Live,
    context: &Context,
    progress: &Arc<Progress>,
) -> Result<Report> {
    let stored = open(request, &request.one, None, context).await?;
    let place = live.connection.to_string();
    let what = format!("cannot compare `{}` with `{place}`", stored.manifest.id);
    let mut found = Found::default();
    found.note(&stored);
    let read = stored::structure(&stored, &what, context).await;
    let structure = found.take(read, request, &what)?;
    let mut now = live::side(live, &stored.manifest, &what, context, progress).await?;
    found.warnings.append(&mut now.warnings);
    let mut older = Known::of(stored);
    if let Some(structure) = structure {
        older.side = older.side.with_structure(structure.objects().await);
        found.is_compared = true;
    }
    let report = SideReport {
        backup_id: None,
        database: older.report.database.clone(),
        at: context.clock.now(),
        connection: Some(place),
        server_version: now.side.server.version.clone(),
        stored_bytes: None,
    };
    let newer = Known {
        report,
        side: now.side,
    };
    found.report(request, older, newer)
}

/// What comes up on the way.
#[derive(Default)]
struct Found {
    read_bytes: u64,
    warnings: Vec<String>,
    failure: Option<Failure>,
    is_compared: bool,
    /// Why the structure of an encrypted backup was not read.
    locked: Option<Failure>,
}

impl Found {
    fn note(&mut self, stored: &Stored) {
        for warning in stored.warnings() {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        self.failure = self.failure.take().or_else(|| stored.doubt());
    }

    /// Takes a structure. Of a backup that nobody here can open there is none, and what the manifests have is compared.
    fn take(
        &mut self,
        read: Result<stored::Read>,
        request: &Request,
        what: &str,
    ) -> Result<Option<stored::Read>> {
        match read {
            Ok(mut read) => {
                self.read_bytes += read.read_bytes;
                self.warnings.append(&mut read.warnings);
                Ok(Some(read))
            }
            Err(failure)
                if !request.with_sql && matches!(failure.id, "no_identity" | "wrong_identity") =>
            {
                let message = failure.message.as_str();
                let why = message
                    .strip_prefix(what)
                    .unwrap_or(message)
                    .trim_start_matches([':', ' ']);
                let warning =
                    format!("the structure was not compared, only what the manifests tell: {why}");
                if self.locked.is_none() {
                    self.warnings.push(warning);
                }
                self.locked = Some(failure);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    fn report(self, request: &Request, older: Known, newer: Known) -> Result<Report> {
        let difference = compare(&older.side, &newer.side);
        let must_tell = request.must_tell && !difference.different;
        if let Some(locked) = self.locked.filter(|_| must_tell) {
            return Err(locked);
        }
        let structures = older
            .side
            .structure
            .as_ref()
            .zip(newer.side.structure.as_ref());
        let sql = request.with_sql.then(|| {
            structures.map_or(String::new(), |(before, now)| {
                unified(
                    (older.report.label(), before),
                    (newer.report.label(), now),
                    |key| counts(key, &older.side, &newer.side),
                )
            })
        });
        Ok(Report {
            from: older.report,
            to: newer.report,
            difference,
            structure_compared: self.is_compared,
            sql,
            read_bytes: self.read_bytes,
            warnings: self.warnings,
            failure: self.failure,
        })
    }
}

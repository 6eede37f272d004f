//! `accept`: makes a backup that is held the new normal, on record: who, when and why.
//!
//! The acceptance is an object beside the backup in each storage, written once. From then on retention counts the backup,
//! and the next ones are judged by it. Takes no lock, as `pin` takes none.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::history;
use super::stored::{Listing, NamedStorage, StoredBackup, Wanted, read_manifest, storage_failure};
use crate::context::Context;
use pgkeep_model::anomaly::{Acceptance, AnomalyRecord, HeldMark, MAX_MARK_BYTES, Seen, Severity};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::{Listed, Part};
use pgkeep_model::name::TableName;
use pgkeep_model::pin::tidy;
use pgkeep_model::words::count;
use pgkeep_storage::Error;

/// What is safe to say where nothing was accepted.
const SAFE: &str = "it is still held";

/// What to accept.
pub struct Request {
    /// Where to look.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// Which backup.
    pub wanted: Wanted,
    /// Who accepts it, such as `eva@web1`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The tables that it may be held for, and no other; none accepts whatever it is.
    pub tables: Vec<TableName>,
    /// Whether every older backup of the database that is held is accepted, too.
    pub and_older: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup.
    pub id: String,
    /// Whether it counts now: it is not held, or is so no longer.
    pub accepted: bool,
    /// Whether anything changed.
    pub changed: bool,
    /// Who accepted it; none where it was never held.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// What it was held for, in words.
    pub seen: Vec<String>,
    /// Older ones that were accepted with it, newest first.
    pub older: Vec<String>,
    /// Backups of the database that are still held, newest first.
    pub still_held: Vec<String>,
    /// Whether it was this run that accepted it, and not only older ones.
    #[serde(skip)]
    pub is_own_new: bool,
    /// The storages whose copies were looked at.
    pub storages: Vec<String>,
    /// What is odd of the choice of this backup.
    pub warnings: Vec<String>,
    /// Storages where it failed while it went well in others.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// Accepts every copy of a backup, and of older ones where that is asked for.
pub async fn run(request: Request, context: &Context) -> Result<Report> {
    let started_at = context.clock.now();
    let database = match &request.wanted {
        Wanted::Id(id) => Some(id.database().clone()),
        Wanted::Latest => request.database.clone(),
    };
    let listing = Listing::read(request.storages.clone(), database.as_ref(), started_at).await?;
    let backup = listing.find(&request.wanted)?;
    let mut report = Report::new(&listing, backup);
    let own = needs_it(backup).then_some(backup);
    let (older, still_held): (Vec<&StoredBackup>, Vec<_>) = others_held(&listing, backup)
        .partition(|other| request.and_older && other.place < backup.place);
    report.still_held = ids(&still_held);
    report.is_own_new = own.is_some();
    if own.is_some() {
        let record = held_for(&listing, backup).await;
        check_tables(&backup.place.id, record.as_ref(), &request.tables)?;
        report.seen = record.map(|record| record.reasons()).unwrap_or_default();
        (report.by, report.reason) = (Some(request.by.clone()), Some(tidy(&request.reason)));
    } else if let Some(before) = read(&listing, backup).await {
        (report.by, report.reason) = (Some(before.accepted_by), Some(before.reason));
    }
    if own.is_none() && older.is_empty() {
        return Ok(report);
    }
    report.older = ids(&older);
    let mut puts = Vec::new();
    for target in own.into_iter().chain(older) {
        let is_own = target.place == backup.place;
        let tables = if is_own { &request.tables[..] } else { &[] };
        puts.extend(put_all(&listing, target, &request, tables, started_at).await);
    }
    let failed = report.settle(puts);
    let id = &backup.place.id;
    let run = history::run_id(id.database(), started_at, context);
    let failure = failed.as_ref().or(report.failure.as_ref());
    let mut kept = history::record(run, "accept", started_at, failure, context);
    kept.backup_id = Some(report.id.clone());
    kept.reason = Some(report.on_record(&request));
    history::keep_record(&listing.storages, kept, context).await;
    failed.map_or(Ok(report), Err)
}

impl Report {
    fn new(listing: &Listing, backup: &StoredBackup) -> Self {
        let at = backup.readable_from().into_iter();
        Self {
            id: backup.place.id.to_string(),
            accepted: true,
            changed: false,
            by: None,
            reason: None,
            seen: Vec::new(),
            older: Vec::new(),
            still_held: Vec::new(),
            is_own_new: false,
            storages: at.map(|at| listing.storages[at].name.clone()).collect(),
            warnings: Vec::new(),
            failure: listing.partial_failure(),
        }
    }

    /// Takes over what came of each copy, and returns the failure where none went well.
    fn settle(&mut self, puts: Vec<Result<bool>>) -> Option<Failure> {
        let copies = puts.len();
        let mut failures = Vec::new();
        for put in puts {
            match put {
                Ok(is_new) => self.changed |= is_new,
                Err(failure) => failures.push(failure),
            }
        }
        let all_failed = failures.len() == copies;
        let first = failures.into_iter().next()?;
        if all_failed {
            return Some(first);
        }
        let kind = Kind::AfterGood;
        self.failure = Some(Failure { kind, ..first });
        None
    }

    /// Says in the run's record why, who, and which older ones.
    fn on_record(&self, request: &Request) -> String {
        let older = match self.older.as_slice() {
            [] => String::new(),
            ids => format!("; and the older {}", ids.join(", ")),
        };
        format!("{} (by {}){older}", tidy(&request.reason), request.by)
    }
}

fn ids(backups: &[&StoredBackup]) -> Vec<String> {
    let ids = backups.iter().map(|backup| backup.place.id.to_string());
    ids.collect()
}

/// Tells whether some copy of it is held and not accepted: one that was accepted in some storages may have to be in others.
fn needs_it(backup: &StoredBackup) -> bool {
    let was_held = backup.copies.values().any(Listed::was_held);
    let at = backup.readable_from();
    was_held && !at.iter().all(|at| backup.copies[at].is_accepted())
}

/// Returns the other backups of the database that are held, newest first.
fn others_held<'l>(
    listing: &'l Listing,
    backup: &'l StoredBackup,
) -> impl Iterator<Item = &'l StoredBackup> {
    let database = backup.place.id.database();
    let others = listing.backups.iter().rev();
    others.filter(move |other| {
        let place = &other.place;
        let is_another = place != &backup.place && place.id.database() == database;
        is_another && other.is_committed() && other.is_held()
    })
}

/// Accepts every copy of one backup.
async fn put_all(
    listing: &Listing,
    backup: &StoredBackup,
    request: &Request,
    tables: &[TableName],
    now: Timestamp,
) -> Vec<Result<bool>> {
    let id = backup.place.id.clone();
    let mut acceptance = Acceptance::new(id, now, &request.by, &request.reason);
    acceptance.tables = tables.iter().map(ToString::to_string).collect();
    let at = backup.readable_from();
    let puts = at
        .iter()
        .map(|&at| put(&listing.storages[at], backup, &acceptance));
    join_all(puts).await
}

/// Refuses where the backup is held for something that was not named, or not for what was named.
fn check_tables(
    id: &impl std::fmt::Display,
    record: Option<&AnomalyRecord>,
    tables: &[TableName],
) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let refused = |why: String| {
        let message = format!("`{id}` was not accepted: {why}; {SAFE}");
        Failure::new(Kind::Refused, "anomaly_not_named", message)
    };
    let Some(record) = record.filter(|record| record.more == 0) else {
        let why = "not all that it is held for is known by name".to_owned();
        return Err(refused(why).hint("without `--table` all of it is accepted"));
    };
    let parts = |name: &TableName| (name.schema_or_public().to_owned(), name.name.clone());
    let named: BTreeSet<_> = tables.iter().map(parts).collect();
    let of_table = |seen: &'_ Seen| {
        let table: TableName = seen.table.as_ref()?.parse().ok()?;
        Some((parts(&table), seen.in_words()))
    };
    let failed: Vec<_> = record.of(Severity::Fail).filter_map(of_table).collect();
    let others: Vec<String> = failed
        .iter()
        .filter(|(table, _)| !named.contains(table))
        .map(|(_, words)| words.clone())
        .collect();
    if !others.is_empty() {
        let why = format!(
            "it is held for {} that no `--table` names",
            count(others.len() as u64, "table")
        );
        return Err(refused(why)
            .with_details(others)
            .hint("name them too if they are as they should be"));
    }
    let is_failed = |table: &&TableName| failed.iter().any(|(name, _)| *name == parts(table));
    match tables.iter().find(|table| !is_failed(table)) {
        Some(table) => Err(refused(format!("it is not held for `{table}`"))
            .hint(format!("`pgkeep show {id}` says what it is held for"))),
        None => Ok(()),
    }
}

/// Reads what a backup is held for: out of its mark, else out of its manifest.
pub(super) async fn held_for(listing: &Listing, backup: &StoredBackup) -> Option<AnomalyRecord> {
    let key = backup.place.key(Part::Held, "");
    let marked = backup.copies.iter().filter(|(_, copy)| copy.was_held());
    for (&at, _) in marked {
        if let Ok(bytes) = listing.storages[at].storage.get(&key, MAX_MARK_BYTES).await
            && let Some(record) = HeldMark::record_in(&bytes)
        {
            return Some(record);
        }
    }
    read_manifest(listing, backup).await.ok()?.0.anomaly
}

/// Reads who accepted a backup; none where nobody did, or where that cannot be read.
pub(super) async fn read(listing: &Listing, backup: &StoredBackup) -> Option<Acceptance> {
    let key = backup.place.key(Part::Accepted, "");
    let accepted = backup.copies.iter().filter(|(_, copy)| copy.is_accepted());
    for (&at, _) in accepted {
        if let Ok(bytes) = listing.storages[at].storage.get(&key, MAX_MARK_BYTES).await
            && let Some(read) = Acceptance::read(&bytes)
        {
            return Some(read);
        }
    }
    None
}

/// Puts the acceptance beside one copy, and tells whether there was none.
async fn put(named: &NamedStorage, backup: &StoredBackup, acceptance: &Acceptance) -> Result<bool> {
    let id = &backup.place.id;
    let storage = named.storage.as_ref();
    let key = backup.place.key(Part::Accepted, "");
    let failed = |error| {
        let what = format!("cannot accept `{id}` in `{}`", named.name);
        storage_failure(&what, &error).and_safe(&format!("{SAFE} there"))
    };
    match storage.put(&key, Bytes::from(acceptance.to_json())).await {
        Ok(()) => {}
        Err(Error::Exists(_)) => return Ok(false),
        Err(error) => return Err(failed(error)),
    }
    // Nothing prunes what is held, but a hand may have removed it meanwhile.
    match storage.head(&backup.place.key(Part::Manifest, "")).await {
        Err(Error::NotFound(_)) => {
            storage.remove(&key).await.map_err(failed)?;
            let message = format!(
                "`{id}` was not accepted in `{}`: it was just removed there",
                named.name
            );
            let failure = Failure::new(Kind::NotFound, "no_such_backup", message);
            Err(failure.hint("`pgkeep list` shows the backups"))
        }
        // Who may not look has seen it in the listing.
        _ => Ok(true),
    }
}

/// Says who accepts, from the user's name and the host's.
pub fn by(user: Option<&str>, host: &str) -> String {
    tidy(&format!("{}@{host}", user.unwrap_or("unknown")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::anomaly::{Sign, Verdict};

    #[test]
    fn only_what_was_named_is_accepted() {
        let seen = |table: Option<&str>| Seen {
            sign: Sign::TableEmpty,
            severity: Severity::Fail,
            table: table.map(str::to_owned),
            median: Some(500),
            found: Some(0),
            bar: None,
            instead: None,
        };
        let mut record = AnomalyRecord::new(Verdict::Held);
        record.seen = vec![
            seen(Some("public.orders")),
            seen(Some("audit.log")),
            seen(None),
        ];
        let check = |record: Option<&AnomalyRecord>, tables: &[&str]| {
            let tables: Vec<TableName> = tables.iter().map(|name| name.parse().unwrap()).collect();
            check_tables(&"shop-1", record, &tables).map_err(|failure| failure.to_string())
        };
        let record = Some(&record);
        assert!(check(record, &[]).is_ok() && check(None, &[]).is_ok());
        assert!(check(record, &["orders", "audit.log"]).is_ok());
        let refused = check(record, &["orders"]).unwrap_err();
        assert!(refused.contains("`audit.log` is empty"), "{refused}");
        let refused = check(record, &["orders", "audit.log", "users"]).unwrap_err();
        assert!(refused.contains("not held for `users`"), "{refused}");
        assert!(check(None, &["orders"]).is_err());
        assert_eq!(by(Some("eva"), "web1"), "eva@web1");
    }
}

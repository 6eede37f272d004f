//! `verify`: reads stored backups back and proves that they are still what their manifests say.
//!
//! A copy is marked as damaged only when two readings found the same wrong bytes; a storage that cannot be read proves
//! nothing and marks nothing. Stored bytes are never changed.

mod copy;
mod look;
mod notice;
pub(crate) mod report;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde::Serialize;

use super::event::{Event, Observer};
use super::history;
use super::keys::proof::Opened;
use super::lock::{LockRequest, LockSettings};
use super::notices;
use super::slot;
use super::stored::{Listing, NamedStorage, StorageState, StoredBackup, Wanted, read_manifest};
use crate::clock::Clock;
use crate::context::Context;
use crate::copies::listing::database_of;
use crate::notify::Delivery;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::Leased;
use pgkeep_model::origin::Origin;
use pgkeep_model::proof::Problem;
use pgkeep_model::words::number;

pub use report::CopyReport;

/// What the run is called in leases and records.
const VERB: &str = "verify";

/// What to verify.
pub struct Request {
    /// Where to look; each copy there is read.
    pub storages: Vec<NamedStorage>,
    /// Only this database.
    pub database: Option<DatabaseName>,
    /// Which backups.
    pub which: Which,
    /// Where the run comes from. One that has an id leaves a record.
    pub origin: Origin,
    /// How it keeps other verifications of the database away; a command lets others verify beside it.
    pub lock: Option<LockSettings>,
}

/// Which backups to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// One.
    One(Wanted),
    /// All that are committed.
    All,
    /// So many of all by chance, and the newest of each database besides.
    Sample(usize),
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether every copy was read and found good.
    pub ok: bool,
    /// Every copy, newest backup first.
    pub copies: Vec<CopyReport>,
    /// Where was looked.
    pub storages: Vec<StorageState>,
    /// Who was notified of damage, and whether it arrived.
    pub notices: Vec<Delivery>,
    /// Why it is not good; none when it is.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

impl Report {
    /// Ends with a failure of the run itself, but for damage that was found: that is certain.
    fn unless_damaged(self, failure: Failure) -> Result<Self> {
        if self.copies.iter().any(|copy| copy.damaged) {
            Ok(self)
        } else {
            Err(failure)
        }
    }
}

/// Verifies backups, one copy after another; each is read on all cores.
pub async fn run(request: Request, context: &Context, observer: &dyn Observer) -> Result<Report> {
    let (Some(database), Some(settings)) = (request.database.clone(), request.lock.clone()) else {
        return verify(request, context, observer).await;
    };
    let (origin, storages) = (request.origin.clone(), request.storages.clone());
    let lock = LockRequest {
        database: &database,
        storages: &storages,
        verb: VERB,
        leased: Leased::Verification,
        origin: &origin,
        safe: "no backup was changed",
        settings: &settings,
        on_wait: &|text| observer.note(Event::Waiting { text }),
    };
    let started_at = context.clock.now();
    let done = match slot::acquire(&lock, context).await {
        Ok(hold) => {
            let sooner = context.stop.or(&hold.lost());
            let within = context.stopped_by(&sooner);
            let mut done = verify(request, &within, observer).await;
            if let Some(loss) = hold.loss_now().await {
                done = match done {
                    Ok(report) => report.unless_damaged(loss),
                    Err(_) => Err(loss),
                };
            }
            for odd in hold.release().await {
                tracing::info!("{}", odd.message);
            }
            done
        }
        Err(failure) => Err(failure),
    };
    let failure = match &done {
        Ok(report) => report.failure.as_ref(),
        Err(failure) => Some(failure),
    };
    if slot::is_left_to_others(&origin, failure) {
        return done;
    }
    if let Some(run) = origin.run.clone() {
        let ended = history::record(run, VERB, started_at, failure, context);
        let mut record = ended.from(&origin);
        let first = done.as_ref().ok().and_then(|report| report.copies.first());
        record.backup_id = first.map(|copy| copy.id.clone());
        history::keep_record(&storages, record, context).await;
    }
    done
}

async fn verify(request: Request, context: &Context, observer: &dyn Observer) -> Result<Report> {
    let database = match &request.which {
        Which::One(wanted) => database_of(wanted, request.database.clone()),
        Which::All | Which::Sample(_) => request.database.clone(),
    };
    let now = context.clock.now();
    let listing = Listing::read(request.storages.clone(), database.as_ref(), now).await?;
    let chosen = choose(&listing, &request.which, context.clock.as_ref())?;
    let mut copies = Vec::new();
    for backup in chosen {
        for at in backup.readable_from() {
            let mut report = copy::verify(&listing, backup, at, context, observer).await;
            match &request.which {
                Which::One(wanted) => report.warnings.extend(listing.passed_over(wanted)),
                // Of many, some may go their way; who asks for one wants to know.
                Which::All | Which::Sample(_) if report.removed => {
                    let gone = report.failure.take();
                    report.warnings.extend(gone.map(|failure| failure.message));
                }
                Which::All | Which::Sample(_) => {}
            }
            if let Some(locked) = report
                .locked
                .take()
                .filter(|_| report.failure.is_none() && report.ok)
            {
                match &request.which {
                    Which::One(_) => {
                        report.ok = false;
                        report.failure = Some(locked);
                    }
                    // Of many, some may need a key that is kept elsewhere.
                    Which::All | Which::Sample(_) => report.warnings.push(locked.message),
                }
            }
            observer.note(Event::Verified(&report));
            copies.push(report);
        }
    }
    leave_proofs(&listing, &copies, context).await;
    let failure = judge(&listing, &copies);
    let notices = tell(&listing, &copies, context).await;
    Ok(Report {
        ok: failure.is_none(),
        copies,
        failure,
        notices,
        storages: listing.states,
    })
}

/// Leaves a record for the newest backup of each database that a key opened and that is good.
async fn leave_proofs(listing: &Listing, copies: &[CopyReport], context: &Context) {
    let mut seen = BTreeSet::new();
    for copy in copies.iter().filter(|copy| copy.ok && copy.opened) {
        let mut backups = listing.backups.iter();
        let found = backups.find(|backup| backup.place.id.to_string() == copy.id);
        let is_full = |backup: &&StoredBackup| backup.is_encrypted() && !backup.place.is_partial;
        let Some(backup) = found.filter(is_full) else {
            continue;
        };
        if !seen.insert(backup.place.id.database()) {
            continue;
        }
        let read = read_manifest(listing, backup).await;
        if let Some(encryption) = read.ok().and_then(|(manifest, _)| manifest.encryption) {
            let opened = Opened {
                listing,
                backup: &backup.place.id,
                recipients: &encryption.recipients,
                verb: "verify",
            };
            opened.leave_if_due(context).await;
        }
    }
}

/// Tells of damage, of all databases at once so that no notice waits for another.
async fn tell(listing: &Listing, copies: &[CopyReport], context: &Context) -> Vec<Delivery> {
    let mut damaged: BTreeMap<&str, Vec<&CopyReport>> = BTreeMap::new();
    for copy in copies.iter().filter(|copy| copy.damaged) {
        damaged.entry(&copy.database).or_default().push(copy);
    }
    let now = context.clock.now();
    let told = damaged.iter().map(|(database, damaged)| async move {
        let failure = damage(listing, copies, damaged).with_details(reasons(damaged));
        let notice = notice::of_damage(database, damaged, &failure, now);
        notices::tell(&notice, context).await
    });
    join_all(told).await.concat()
}

/// Returns the backups to read, newest first.
fn choose<'a>(
    listing: &'a Listing,
    which: &Which,
    clock: &dyn Clock,
) -> Result<Vec<&'a StoredBackup>> {
    if let Which::One(wanted) = which {
        return Ok(vec![listing.find(wanted)?]);
    }
    let mut all: Vec<&StoredBackup> = listing
        .backups
        .iter()
        .filter(|backup| backup.is_committed())
        .collect();
    all.sort_by_key(|backup| Reverse((backup.place.id.started_at(), &backup.place)));
    if all.is_empty() {
        return Err(match listing.failures().first() {
            Some(failure) => failure.clone(),
            None => listing.nothing_there(),
        });
    }
    if let Which::Sample(count) = which {
        let kept = sample(&all, *count, clock);
        all = kept.into_iter().map(|at| all[at]).collect();
    }
    Ok(all)
}

/// Draws `count` positions by chance, and adds the newest backup of each database, the one that is needed first.
fn sample(all: &[&StoredBackup], count: usize, clock: &dyn Clock) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut kept: BTreeSet<usize> = (0..all.len())
        .filter(|&at| seen.insert(all[at].place.id.database()))
        .collect();
    let mut left: Vec<usize> = (0..all.len()).filter(|at| !kept.contains(at)).collect();
    for _ in 0..count.min(left.len()) {
        let dice = usize::from(clock.suffix()) << 16 | usize::from(clock.suffix());
        kept.insert(left.swap_remove(dice % left.len()));
    }
    kept
}

/// Damage goes before what could not be read, because it is certain.
fn judge(listing: &Listing, copies: &[CopyReport]) -> Option<Failure> {
    let damaged: Vec<&CopyReport> = copies.iter().filter(|copy| copy.damaged).collect();
    if !damaged.is_empty() {
        return Some(damage(listing, copies, &damaged));
    }
    let mut unread: Vec<&Failure> = copies
        .iter()
        .filter_map(|copy| copy.failure.as_ref())
        .chain(listing.failures())
        .collect();
    unread.sort_by_key(|failure| failure.kind != Kind::Damaged);
    let mut failure = (*unread.first()?).clone();
    let others = unread[1..].iter().map(|failure| failure.message.clone());
    failure.details.extend(others);
    Some(failure)
}

/// Says what is damaged. The reasons stand in each copy's report, which is shown before.
fn damage(listing: &Listing, copies: &[CopyReport], damaged: &[&CopyReport]) -> Failure {
    let what = |copy: &&CopyReport| format!("`{}` in `{}`", copy.id, copy.storage);
    let message = match damaged {
        [only] => format!("{} is damaged", what(only)),
        all => {
            let names: Vec<String> = all.iter().map(what).collect();
            format!(
                "{} of {} copies are damaged: {}",
                all.len(),
                copies.len(),
                names.join(", ")
            )
        }
    };
    let mut failure = Failure::new(Kind::Damaged, "backup_damaged", message);
    let databases: BTreeSet<&str> = damaged.iter().map(|copy| copy.database.as_str()).collect();
    for database in databases {
        failure = failure.hint(newest_good(listing, copies, database));
    }
    failure
}

/// Says what is wrong with each copy, for who does not see the reports.
fn reasons(damaged: &[&CopyReport]) -> Vec<String> {
    let of_one = |copy: &&CopyReport| {
        let words = |problem| {
            format!(
                "`{}` in `{}`: {}",
                copy.id,
                copy.storage,
                place_in_words(problem)
            )
        };
        copy.problems.iter().map(words).collect::<Vec<_>>()
    };
    damaged.iter().flat_map(of_one).collect()
}

/// Says what a problem is and where.
pub fn place_in_words(problem: &Problem) -> String {
    let mut text = problem.message.clone();
    let mut places = Vec::new();
    if let Some(offset) = problem.stored_offset {
        places.push(format!(
            "from byte {} of the stored file on",
            number(offset)
        ));
    }
    if let Some(offset) = problem.dump_offset {
        places.push(format!("byte {} of the dump", number(offset)));
    }
    match &problem.table {
        Some(table) if !text.contains(&format!("`{table}`")) => {
            places.push(format!("in the rows of `{table}`"));
        }
        _ => {}
    }
    if !places.is_empty() {
        text += &format!(" ({})", places.join(", "));
    }
    text
}

/// Names the newest backup of a database that has a copy nobody knows to be damaged, and whether it was just proven.
fn newest_good(listing: &Listing, copies: &[CopyReport], database: &str) -> String {
    let read: BTreeMap<(&str, &str), &CopyReport> = copies
        .iter()
        .map(|copy| ((copy.id.as_str(), copy.storage.as_str()), copy))
        .collect();
    let mut newest_first = listing.backups.iter().rev();
    let found = newest_first.find_map(|backup| {
        if backup.place.is_partial || backup.place.id.database().as_str() != database {
            return None;
        }
        let id = backup.place.id.to_string();
        let good = backup.copies.iter().filter(|(_, listed)| listed.is_good());
        let names = good.map(|(&at, _)| listing.storages[at].name.as_str());
        let states: Vec<_> = names
            .map(|name| (name, read.get(&(id.as_str(), name))))
            .filter(|(_, copy)| copy.is_none_or(|copy| !copy.damaged))
            .collect();
        let proven = states
            .iter()
            .find(|(_, copy)| copy.is_some_and(|copy| copy.ok));
        let (name, copy) = proven.or(states.first())?;
        let (storage, is_proven) = ((*name).to_owned(), copy.is_some_and(|copy| copy.ok));
        Some((backup.place.id.to_string(), storage, is_proven))
    });
    match found {
        Some((id, storage, true)) => {
            format!(
                "the newest good backup of `{database}` is `{id}`, proven just now in `{storage}`"
            )
        }
        Some((id, storage, false)) => format!(
            "the newest backup of `{database}` that is not known to be damaged is `{id}` in `{storage}`: \
             `pgkeep verify {id}` proves it"
        ),
        None => format!("no good backup of `{database}` is left: `pgkeep backup` makes one"),
    }
}

#[cfg(test)]
mod tests;

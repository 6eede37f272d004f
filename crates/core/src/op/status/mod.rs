//! `status`: fresh or stale, sizes, how the last runs went. Reads storage only, so any host can watch.

pub(crate) mod drills;
mod held;
mod later;
mod notice;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use crate::context::Context;
use crate::copies::listing::in_the_future;
use crate::notify::Delivery;
use crate::op::history::Records;
use crate::op::keys::sets;
use crate::op::notices;
use crate::op::stored::{Listing, NamedStorage, StorageState, StoredBackup, read_manifest};
use pgkeep_model::anomaly::ANOMALY;
use pgkeep_model::config::Retention;
use pgkeep_model::drill::DEFAULT_MAX_AGE;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::freshness::{Freshness, Growth, Success, age, growth, judge, success};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::key_sets::{self, KeySet, KeySets};
use pgkeep_model::keys::Listed;
use pgkeep_model::notice::Notice;
use pgkeep_model::retention::{Candidate, plan};
use pgkeep_model::runs::RunRecord;

pub use drills::note as drill_note;
pub use later::later;

/// How many of a database's newest run records are read: a month of nightly runs, or four days of half-hourly ones.
const RUNS_READ: usize = 200;

/// How many manifests are read to find a newest good backup that can be read.
const MANIFESTS_READ: usize = 5;

/// How many of them are reported.
const RUNS_TOLD: usize = 10;

/// A database without any backup counts as one as long as somebody has tried to make one for so short a time.
const LAST_TRY: SignedDuration = SignedDuration::from_hours(48);

/// How far back the success rate and the growth look.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What to look at.
pub struct Request {
    /// Where to look.
    pub storages: Vec<NamedStorage>,
    /// The databases to judge; none for every one that has anything stored.
    pub databases: Option<Vec<Watched>>,
    /// How old the newest good backup may be where the database says nothing.
    pub max_age: Option<Duration>,
    /// The present moment.
    pub now: Timestamp,
}

/// One database to judge.
#[derive(Clone)]
pub struct Watched {
    /// Its name in storage.
    pub name: DatabaseName,
    /// How old its newest good backup may be.
    pub max_age: Option<Duration>,
    /// Its policy, by which its backups are counted.
    pub retention: Option<Retention>,
    /// Names of the storages that should hold its backups.
    pub storages: Vec<String>,
    /// How many of them must; none where one is enough.
    pub copies: Option<usize>,
    /// Whether nobody named it: something of this name was stored, be it by mistake.
    pub is_found: bool,
    /// Whether drills are expected.
    pub is_drill_expected: bool,
    /// How old the last drill that passed may be, where somebody said so; none in it for `off`.
    pub drill_max_age: Option<Option<Duration>>,
}

/// How every database stands.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One for each.
    pub databases: Vec<Status>,
    /// Where was looked.
    pub storages: Vec<StorageState>,
    /// Who was notified, and whether it arrived.
    pub notices: Vec<Delivery>,
    /// What is wrong; the worst decides the exit code.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// How one database stands.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub database: String,
    /// Fresh, stale or not judged.
    pub freshness: Freshness,
    /// How old the newest good backup may be.
    pub max_age_seconds: Option<u64>,
    /// The newest good backup.
    pub newest_good: Option<Newest>,
    /// The newest one that passed a drill.
    pub newest_drilled: Option<Newest>,
    /// How the last drill stands; none where none is expected and none ever passed.
    pub drill: Option<LastDrill>,
    /// Number of backups, one-off partial ones aside.
    pub backups: u64,
    /// How many of them the policy keeps; all where there is none.
    pub kept: u64,
    /// How many of those that are kept have fewer good copies than the database asks for.
    pub few_copies: u64,
    /// How many copies it asks for; none where one is enough.
    #[serde(skip)]
    copies_wanted: Option<usize>,
    /// Those that are held, newest first: they lost what the ones before them had, and nobody has accepted them.
    pub held: Vec<Held>,
    /// Whether the newest good one of all is among them.
    #[serde(skip)]
    is_newest_held: bool,
    /// How many of them are damaged.
    pub damaged: u64,
    /// How many are pinned.
    pub pinned: u64,
    /// Size of all of them in one storage each.
    pub size_bytes: u64,
    /// Number and size by tier; a backup that counts for several is in each.
    pub tiers: BTreeMap<String, Share>,
    /// How each storage stands.
    pub storages: Vec<Copies>,
    /// The last runs, newest first.
    #[serde(serialize_with = "as_records")]
    pub last_runs: Vec<Arc<RunRecord>>,
    /// Runs of `backup` since [`Status::success_since`].
    pub success: Success,
    /// From when on runs are counted: 30 days ago, or later where there are very many records.
    pub success_since: Timestamp,
    /// How the backups have grown in about 30 days.
    pub growth: Option<Growth>,
    /// Which private keys the encrypted backups need, those of the newest first.
    pub keys: Vec<KeySet>,
    /// The same with all that is judged of them.
    #[serde(skip)]
    key_sets: KeySets,
    /// What of [`Status::warnings`] is about keys.
    #[serde(skip)]
    pub of_keys: Vec<String>,
    /// What is odd and does not change with time: it stands first in [`Status::warnings`].
    #[serde(skip)]
    doubts: Vec<String>,
    /// Storages that did not answer, in words.
    #[serde(skip)]
    silent: Vec<String>,
    /// What is odd, in words.
    pub warnings: Vec<String>,
    /// What somebody should be told: stale, damaged, lacking copies, not drilled for long.
    pub alerts: Vec<String>,
}

/// The last drill that passed, and the one that failed since.
#[derive(Clone, Debug, Serialize)]
pub struct LastDrill {
    /// Fresh, stale or not judged.
    pub freshness: Freshness,
    /// When it passed; none where none ever did.
    pub passed_at: Option<Timestamp>,
    /// How old it is.
    pub age_seconds: Option<i64>,
    /// How old it may be.
    pub max_age_seconds: Option<u64>,
    /// The last drill, where it failed after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedDrill>,
    /// Whether somebody said how old, so that more is a failure and not only a warning.
    #[serde(skip)]
    pub is_asked_for: bool,
}

/// A drill that failed, or came to no verdict.
#[derive(Clone, Debug, Serialize)]
pub struct FailedDrill {
    /// When it began.
    pub at: Timestamp,
    /// How long ago that was.
    pub age_seconds: i64,
    /// Its exit code: 23 says that the backup could not be restored.
    pub exit_code: u8,
    /// The backup that it was about.
    pub backup_id: Option<String>,
    /// Why.
    pub why: String,
}

/// A backup with its age.
#[derive(Clone, Debug, Serialize)]
pub struct Newest {
    /// Its id.
    pub id: String,
    /// When its run started.
    pub started_at: Timestamp,
    /// How old it is; negative when it is stamped in the future.
    pub age_seconds: i64,
    /// Its size in one storage.
    pub size_bytes: u64,
}

/// A backup that is held.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// Its id.
    pub id: String,
    /// When its run started.
    pub started_at: Timestamp,
    /// How old it is.
    pub age_seconds: i64,
    /// What it is held for, in words; empty where that was not read, of many.
    pub seen: Vec<String>,
}

/// Number and size of some backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many.
    pub backups: u64,
    /// Their size.
    pub size_bytes: u64,
}

/// One storage's copies.
#[derive(Clone, Debug, Serialize)]
pub struct Copies {
    /// The storage's name in the configuration.
    pub name: String,
    /// Number of backups there.
    pub backups: u64,
    /// Their size.
    pub size_bytes: u64,
    /// Number of backups that the policy keeps and that are good elsewhere, but not there.
    pub missing: u64,
    /// Id of the newest good one there.
    pub newest_good: Option<String>,
    /// Whether the newest good one of all storages is there; what is newer there may be damaged, or from the future.
    #[serde(skip)]
    has_newest: bool,
}

/// Judges every database.
pub async fn run(request: Request) -> Result<Report> {
    let only = match request.databases.as_deref() {
        Some([one]) => Some(&one.name),
        _ => None,
    };
    let listing = Listing::read(request.storages.clone(), only, request.now).await?;
    let mut records = Records::new(RUNS_READ);
    let Request {
        databases,
        max_age,
        now,
        ..
    } = request;
    Ok(of(&listing, databases, max_age, now, &mut records).await)
}

/// Judges databases by a listing that is there already: those that are named, or every one that has anything stored.
pub async fn of(
    listing: &Listing,
    databases: Option<Vec<Watched>>,
    max_age: Option<Duration>,
    now: Timestamp,
    records: &mut Records,
) -> Report {
    let watched = databases.unwrap_or_else(|| found(listing));
    let mut databases = Vec::new();
    for one in &watched {
        databases.push(status(one, listing, max_age, now, records).await);
    }
    let failure = sum_up(&databases, listing);
    Report {
        databases,
        failure,
        notices: Vec::new(),
        storages: listing.states.clone(),
    }
}

/// Judges every database, and tells of each that needs somebody. Where no storage answered it is not known, and that is
/// told, too. The report and its exit code are those of [`run`].
pub async fn run_and_tell(request: Request, context: &Context) -> Result<Report> {
    let now = request.now;
    let watched: Vec<DatabaseName> = request
        .databases
        .iter()
        .flatten()
        .map(|one| one.name.clone())
        .collect();
    match run(request).await {
        Ok(mut report) => {
            let databases = report.databases.iter();
            let failure = report.failure.as_ref();
            let all: Vec<Notice> = databases
                .filter_map(|status| notice::of(status, failure, now))
                .collect();
            report.notices = tell_all(&all, context).await;
            Ok(report)
        }
        Err(failure) => Err(tell_unknown(&watched, failure, now, context).await),
    }
}

/// Tells that it is not known how these databases stand, and returns the failure with what did not arrive.
pub async fn tell_unknown(
    watched: &[DatabaseName],
    failure: Failure,
    now: Timestamp,
    context: &Context,
) -> Failure {
    let names = watched.iter().map(DatabaseName::as_str);
    let all: Vec<Notice> = names
        .map(|name| notice::of_no_status(name, &failure, now))
        .collect();
    let undelivered = notices::undelivered(&tell_all(&all, context).await);
    failure.with_details(undelivered)
}

/// Tells of one database of a report, where it needs somebody.
pub async fn tell(
    status: &Status,
    report: &Report,
    now: Timestamp,
    context: &Context,
) -> Vec<Delivery> {
    let notice = notice::of(status, report.failure.as_ref(), now);
    tell_all(notice.as_slice(), context).await
}

async fn tell_all(all: &[Notice], context: &Context) -> Vec<Delivery> {
    let told = all.iter().map(|notice| notices::tell(notice, context));
    join_all(told).await.concat()
}

/// Every database that has anything stored, be it only the record of a run that failed.
fn found(listing: &Listing) -> Vec<Watched> {
    let of_backups = listing.backups.iter().map(|backup| &backup.place.id);
    let names: BTreeSet<&DatabaseName> = of_backups
        .chain(listing.runs.keys())
        .map(BackupId::database)
        .collect();
    let watched = |name: &DatabaseName| Watched {
        name: name.clone(),
        max_age: None,
        retention: None,
        storages: Vec::new(),
        copies: None,
        is_found: true,
        is_drill_expected: false,
        drill_max_age: None,
    };
    names.into_iter().map(watched).collect()
}

async fn status(
    watched: &Watched,
    listing: &Listing,
    max_age: Option<Duration>,
    now: Timestamp,
    records: &mut Records,
) -> Status {
    let backups: Vec<&StoredBackup> = listing
        .backups
        .iter()
        .filter(|backup| {
            let place = &backup.place;
            place.id.database() == &watched.name && !place.is_partial && backup.is_committed()
        })
        .collect();
    let max_age = watched.max_age.or(max_age);
    let held = held::of(listing, &backups, now).await;
    let is_newest_held = held::is_newest_held(listing, &backups);
    // What is held counts for nothing: neither as fresh nor as the newest good one.
    let counted: Vec<&StoredBackup> = backups
        .iter()
        .copied()
        .filter(|backup| !backup.is_held())
        .collect();
    let (newest_good, mut doubts) = newest_good(listing, &counted, now).await;
    let drilled = backups
        .iter()
        .rfind(|backup| backup.is_good() && backup.is_drilled() && !listing.is_ahead(backup));
    let runs_read = records.of_one();
    let runs = records.newest(listing, &watched.name).await;
    let drill = last_drill(watched, listing, &backups, runs, now).await;
    let since = runs.last().map_or(now, |run| run.started_at);
    let kept = kept(watched, &backups, now);
    let sizes: Vec<(Timestamp, u64)> = counted
        .iter()
        .filter(|backup| backup.is_good() && !listing.is_ahead(backup))
        .map(|backup| (backup.place.id.started_at(), backup.size_bytes()))
        .collect();
    let key_sets = sets(listing, &watched.name).await;
    let mut status = Status {
        database: watched.name.to_string(),
        freshness: judge(
            newest_good.as_ref().map(|newest| newest.started_at),
            max_age,
            now,
        ),
        max_age_seconds: max_age.map(|age| age.as_secs()),
        newest_drilled: drilled.map(|backup| Newest::of(backup, now)),
        drill,
        backups: backups.len() as u64,
        kept: kept.len() as u64,
        few_copies: few_copies(watched, listing, &kept),
        copies_wanted: watched.copies,
        held,
        is_newest_held,
        damaged: backups.iter().filter(|backup| !backup.is_good()).count() as u64,
        pinned: backups.iter().filter(|backup| backup.is_pinned()).count() as u64,
        size_bytes: backups.iter().map(|backup| backup.size_bytes()).sum(),
        tiers: tiers(watched, &backups, now),
        storages: copies(watched, listing, &backups, &kept, newest_good.as_ref()),
        newest_good,
        success: success(runs.iter().map(Arc::as_ref), now - LOOK_BACK),
        success_since: if runs.len() < runs_read {
            now - LOOK_BACK
        } else {
            since.max(now - LOOK_BACK)
        },
        last_runs: runs.iter().take(RUNS_TOLD).cloned().collect(),
        growth: growth(&sizes, LOOK_BACK),
        keys: key_sets.sets.clone(),
        key_sets,
        of_keys: Vec::new(),
        doubts: Vec::new(),
        silent: silent(watched, listing),
        warnings: Vec::new(),
        alerts: Vec::new(),
    };
    if let Some(doubt) = unlikely(&status, watched, now) {
        status.freshness = Freshness::NotJudged;
        doubts.push(doubt);
    }
    status.doubts = doubts;
    status.put_into_words(now);
    status
}

/// Says why a database that nobody named is not judged: it never had a backup, and nobody has tried for long. A name
/// that was misspelt once leaves that behind.
fn unlikely(status: &Status, watched: &Watched, now: Timestamp) -> Option<String> {
    if !watched.is_found || status.backups > 0 {
        return None;
    }
    let last = status.last_runs.first();
    let is_recent = |run: &Arc<RunRecord>| now.duration_since(run.started_at) <= LAST_TRY;
    if last.is_some_and(is_recent) {
        return None;
    }
    let tried = last.map_or_else(String::new, |run| {
        let seconds = now.as_second() - run.started_at.as_second();
        format!(", and the last run was {} ago", age(seconds))
    });
    Some(format!(
        "it never had a backup{tried}: not judged; if the name is a mistake, remove what is stored under it, or \
         name the databases to judge with `-d` or in the configuration"
    ))
}

/// Says what needs attention, the worst first.
fn alerts(status: &Status) -> Vec<String> {
    let stale = (status.freshness == Freshness::Stale).then(|| age_in_words(status));
    let all = held::alert(status)
        .into_iter()
        .chain(stale)
        .chain(damaged(status))
        .chain(lacking(status))
        .chain(short_of_copies(status));
    let drill = status.drill.iter().flat_map(LastDrill::problems);
    all.chain(status.silent.iter().cloned())
        .chain(drill)
        .collect()
}

/// Names the storages that did not answer, of those that should hold a database's backups.
fn silent(watched: &Watched, listing: &Listing) -> Vec<String> {
    let silent = meant(watched, listing).filter(|(_, state)| state.error.is_some());
    silent
        .map(|(_, state)| format!("`{}` did not answer", state.name))
        .collect()
}

fn damaged(status: &Status) -> Option<String> {
    (status.damaged > 0).then(|| {
        let verb = if status.damaged == 1 { "is" } else { "are" };
        format!(
            "{} of {} backups {verb} damaged",
            status.damaged, status.backups
        )
    })
}

/// Says how many backups have fewer copies than the database asks for.
fn short_of_copies(status: &Status) -> Option<String> {
    let wanted = status.copies_wanted.filter(|_| status.few_copies > 0)?;
    let verb = if status.few_copies == 1 {
        "has"
    } else {
        "have"
    };
    let (few, kept) = (status.few_copies, status.kept);
    Some(format!(
        "{few} of {kept} kept backups {verb} fewer than {wanted} good copies; `pgkeep sync` brings what another storage has"
    ))
}

/// Names the storages that lack the newest good backup.
fn lacking(status: &Status) -> Vec<String> {
    if status.newest_good.is_none() {
        return Vec::new();
    }
    let words = status.storages.iter().filter(|copies| !copies.has_newest);
    words
        .map(|copies| format!("the newest good backup is not in `{}`", copies.name))
        .collect()
}

fn age_in_words(status: &Status) -> String {
    match &status.newest_good {
        Some(newest) => format!(
            "the newest good backup is `{}`, {} old; the limit is {}",
            newest.id,
            age(newest.age_seconds),
            age(i64::try_from(status.max_age_seconds.unwrap_or_default()).unwrap_or(i64::MAX))
        ),
        None => "there is no good backup".to_owned(),
    }
}

/// Finds when a drill passed last: by the notes beside the newest backups that have one, and by the records of runs,
/// because an older backup may have been drilled since.
async fn last_drill(
    watched: &Watched,
    listing: &Listing,
    backups: &[&StoredBackup],
    runs: &[Arc<RunRecord>],
    now: Timestamp,
) -> Option<LastDrill> {
    let is_passed = |run: &&Arc<RunRecord>| run.verb == "drill" && run.is_success();
    let mut passed_at = runs.iter().find(is_passed).map(|run| run.started_at);
    passed_at = passed_at.max(drills::passed_at(listing, backups).await);
    let failed = failed_drill(runs, passed_at, now);
    if passed_at.is_none() && failed.is_none() && !watched.is_drill_expected {
        return None;
    }
    let asked = watched.drill_max_age;
    let max_age = asked.unwrap_or(Some(DEFAULT_MAX_AGE));
    let freshness = match max_age {
        None => Freshness::NotJudged,
        // Without a drill that passed, one that failed says all.
        Some(_) if passed_at.is_none() && failed.is_some() && !watched.is_drill_expected => {
            Freshness::NotJudged
        }
        Some(_) => judge(passed_at, max_age, now),
    };
    Some(LastDrill {
        failed,
        freshness,
        passed_at,
        age_seconds: passed_at.map(|at| now.as_second() - at.as_second()),
        max_age_seconds: max_age.map(|age| age.as_secs()),
        is_asked_for: asked.is_some(),
    })
}

/// Finds the last drill in the newest runs, which begin with the newest, where it failed after the last that passed.
/// One that was interrupted or gave way to another run says nothing.
fn failed_drill(
    runs: &[Arc<RunRecord>],
    passed_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<FailedDrill> {
    const SAYS_NOTHING: [Kind; 3] = [Kind::Interrupted, Kind::Terminated, Kind::Busy];
    let is_told = |run: &&Arc<RunRecord>| {
        run.verb == "drill" && !SAYS_NOTHING.map(Kind::exit_code).contains(&run.exit_code)
    };
    let last = runs.iter().find(is_told)?;
    let is_after = passed_at.is_none_or(|passed_at| last.started_at > passed_at);
    (is_after && !last.is_success()).then(|| FailedDrill {
        at: last.started_at,
        age_seconds: now.as_second() - last.started_at.as_second(),
        exit_code: last.exit_code,
        backup_id: last.backup_id.clone(),
        why: last
            .failure
            .clone()
            .unwrap_or_else(|| format!("exit code {}", last.exit_code)),
    })
}

impl LastDrill {
    /// Says what is wrong; nothing where the last one passed and is young enough.
    fn problems(&self) -> Vec<String> {
        let failed = self.failed.as_ref().map(|failed| {
            format!(
                "the last drill failed {} ago: {}",
                age(failed.age_seconds.max(0)),
                failed.why
            )
        });
        failed.into_iter().chain(self.too_old()).collect()
    }

    fn too_old(&self) -> Option<String> {
        if self.freshness != Freshness::Stale {
            return None;
        }
        let allowed =
            age(i64::try_from(self.max_age_seconds.unwrap_or_default()).unwrap_or(i64::MAX));
        Some(match self.age_seconds {
            Some(seconds) => format!(
                "the last drill that passed is {} old; the limit is {allowed}",
                age(seconds)
            ),
            None => format!("no drill has ever passed; one is due every {allowed}"),
        })
    }
}

/// Finds the newest good backup that retention counts too: one that is not stamped in the future, and whose manifest
/// can be read and fits the listing. Says why newer ones were skipped.
async fn newest_good(
    listing: &Listing,
    backups: &[&StoredBackup],
    now: Timestamp,
) -> (Option<Newest>, Vec<String>) {
    let mut doubts = Vec::new();
    let is_good = |backup: &&&StoredBackup| backup.is_good();
    let mut read = 0;
    for backup in backups.iter().rev().filter(is_good) {
        let id = &backup.place.id;
        if listing.is_ahead(backup) {
            doubts.push(in_the_future(id));
            continue;
        }
        read += 1;
        match read_manifest(listing, backup).await {
            Err(failure) if failure.kind == Kind::Damaged && read < MANIFESTS_READ => {
                doubts.push(failure.message);
            }
            Ok((manifest, at)) if read < MANIFESTS_READ => {
                match backup.copies[&at].contradiction(&manifest) {
                    Some(problem) => doubts.push(format!("`{id}` is not whole: {problem}")),
                    None => return (Some(Newest::of(backup, now)), doubts),
                }
            }
            _ => return (Some(Newest::of(backup, now)), doubts),
        }
    }
    (None, doubts)
}

impl Status {
    /// Tells whether the newest good backup of all is held.
    pub fn is_newest_held(&self) -> bool {
        self.is_newest_held
    }

    /// Says what needs attention and what is odd, as of `now`.
    fn put_into_words(&mut self, now: Timestamp) {
        let mut alerts = alerts(self);
        alerts.extend(key_sets::alert(&self.key_sets, now));
        self.alerts = alerts;
        self.of_keys = key_sets::warnings(&self.key_sets, now);
        let mut all = self.doubts.clone();
        all.extend(warnings(self));
        all.extend(self.of_keys.iter().cloned());
        self.warnings = all;
    }
}

impl Newest {
    fn of(backup: &StoredBackup, now: Timestamp) -> Self {
        let id = &backup.place.id;
        Self {
            id: id.to_string(),
            started_at: id.started_at(),
            age_seconds: now.as_second() - id.started_at().as_second(),
            size_bytes: backup.size_bytes(),
        }
    }
}

/// Counts the backups by what the policy keeps them for.
fn tiers(watched: &Watched, backups: &[&StoredBackup], now: Timestamp) -> BTreeMap<String, Share> {
    let candidate =
        |backup: &&StoredBackup| Candidate::stored(backup.place.id.started_at(), backup.marks());
    let candidates: Vec<Candidate> = backups.iter().map(candidate).collect();
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    let plan = watched
        .retention
        .as_ref()
        .and_then(|policy| plan(policy, &candidates, now).ok());
    let Some(plan) = plan else {
        return shares;
    };
    for (backup, verdict) in backups.iter().zip(plan.verdicts) {
        for tier in verdict.tiers() {
            let share = shares.entry(tier.to_string()).or_default();
            share.backups += 1;
            share.size_bytes += backup.size_bytes();
        }
    }
    shares
}

/// Returns the storages that should hold a database's backups, with their positions.
fn meant<'a>(
    watched: &'a Watched,
    listing: &'a Listing,
) -> impl Iterator<Item = (usize, &'a StorageState)> {
    let is_meant = |name: &String| watched.storages.is_empty() || watched.storages.contains(name);
    let states = listing.states.iter().enumerate();
    states.filter(move |(_, state)| is_meant(&state.name))
}

/// Returns the backups that the policy keeps; all where there is none.
fn kept<'a>(
    watched: &Watched,
    backups: &[&'a StoredBackup],
    now: Timestamp,
) -> Vec<&'a StoredBackup> {
    let candidate =
        |backup: &&StoredBackup| Candidate::stored(backup.place.id.started_at(), backup.marks());
    let candidates: Vec<Candidate> = backups.iter().map(candidate).collect();
    let policy = watched.retention.as_ref();
    let Some(plan) = policy.and_then(|policy| plan(policy, &candidates, now).ok()) else {
        return backups.to_vec();
    };
    let kept = backups
        .iter()
        .zip(plan.verdicts)
        .filter(|(_, verdict)| verdict.keep);
    kept.map(|(backup, _)| *backup).collect()
}

/// Counts the backups that have fewer good copies than the database asks for. A storage that did not answer may have one.
fn few_copies(watched: &Watched, listing: &Listing, kept: &[&StoredBackup]) -> u64 {
    let Some(wanted) = watched.copies else {
        return 0;
    };
    let has_few = |backup: &&&StoredBackup| {
        let may_have = |(at, state): &(usize, &StorageState)| {
            state.error.is_some() || backup.copies.get(at).is_some_and(Listed::is_good)
        };
        meant(watched, listing).filter(may_have).count() < wanted
    };
    kept.iter().filter(has_few).count() as u64
}

fn copies(
    watched: &Watched,
    listing: &Listing,
    backups: &[&StoredBackup],
    kept: &[&StoredBackup],
    newest: Option<&Newest>,
) -> Vec<Copies> {
    let meant = meant(watched, listing).filter(|(_, state)| state.error.is_none());
    meant
        .map(|(at, state)| {
            let is_missing = |backup: &&&StoredBackup| {
                backup.is_good() && !backup.copies.get(&at).is_some_and(Listed::is_good)
            };
            let here: Vec<_> = backups
                .iter()
                .filter_map(|backup| {
                    let copy = backup.copies.get(&at)?;
                    copy.is_committed().then_some((*backup, copy))
                })
                .collect();
            Copies {
                name: state.name.clone(),
                backups: here.len() as u64,
                size_bytes: here.iter().map(|(_, copy)| copy.size_bytes()).sum(),
                missing: kept.iter().filter(is_missing).count() as u64,
                has_newest: here.iter().any(|(backup, copy)| {
                    copy.is_good()
                        && newest.is_some_and(|newest| newest.id == backup.place.id.to_string())
                }),
                newest_good: here
                    .iter()
                    .rfind(|(backup, copy)| {
                        copy.is_good() && !backup.is_held() && !listing.is_ahead(backup)
                    })
                    .map(|(backup, _)| backup.place.id.to_string()),
            }
        })
        .collect()
}

fn as_records<S: Serializer>(
    records: &[Arc<RunRecord>],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(records.iter().map(Arc::as_ref))
}

fn warnings(status: &Status) -> Vec<String> {
    let mut warnings = held::warnings(status);
    warnings.extend(damaged(status));
    warnings.extend(status.drill.iter().flat_map(LastDrill::problems));
    let last = status.last_runs.iter().find(|run| run.verb == "backup");
    // A backup that is held was told already.
    let is_told = |run: &RunRecord| run.failure_id.as_deref() == Some(ANOMALY);
    if let Some(last) = last.filter(|run| !run.is_success() && !is_told(run)) {
        let why = last.failure.as_deref().unwrap_or("the cause is not known");
        warnings.push(format!("the last backup run failed: {why}"));
    }
    warnings.extend(lacking(status));
    warnings.extend(short_of_copies(status));
    warnings
}

/// A drill that did not come, or failed, is a failure where somebody said how old one may be.
fn drills_stale(databases: &[Status]) -> Option<Failure> {
    let asked = databases.iter().filter_map(|status| {
        let drill = status.drill.as_ref().filter(|drill| drill.is_asked_for)?;
        Some((status.database.as_str(), drill))
    });
    let told: Vec<(&str, &LastDrill)> = asked
        .filter(|(_, drill)| !drill.problems().is_empty())
        .collect();
    if told.is_empty() {
        return None;
    }
    let names_of = |is_meant: &dyn Fn(&LastDrill) -> bool| -> String {
        let meant = told.iter().filter(|(_, drill)| is_meant(drill));
        let quoted: Vec<String> = meant.map(|(name, _)| format!("`{name}`")).collect();
        quoted.join(", ")
    };
    // One that only is too old stands in the details.
    let failed = names_of(&|drill| drill.failed.is_some());
    let (id, message) = if failed.is_empty() {
        let names = names_of(&|_| true);
        (
            "drill_stale",
            format!("no drill has passed recently enough: {names}"),
        )
    } else {
        ("drill_failed", format!("the last drill failed: {failed}"))
    };
    let details = told.iter().flat_map(|(name, drill)| {
        let problems = drill.problems().into_iter();
        problems.map(move |why| format!("{name}: {why}"))
    });
    let failure =
        Failure::new(Kind::Stale, id, message).with_details(details.collect::<Vec<String>>());
    Some(failure.hint("`pgkeep drill` restores the newest backup for a test"))
}

/// Stale is worse than a storage that did not answer: fresh means that some storage proved it.
fn sum_up(databases: &[Status], listing: &Listing) -> Option<Failure> {
    let stale: Vec<&Status> = databases
        .iter()
        .filter(|status| status.freshness == Freshness::Stale)
        .collect();
    let is_any = databases.iter().any(|status| status.newest_good.is_some());
    if stale.is_empty() && is_any {
        let held = held::failure(databases);
        return held
            .or_else(|| drills_stale(databases))
            .or_else(|| listing.partial_failure());
    }
    if stale.is_empty() {
        let failure = Failure::new(Kind::Stale, "stale", "no good backup is stored");
        return Some(failure.hint("`pgkeep backup` makes one"));
    }
    let names: Vec<String> = stale
        .iter()
        .map(|status| format!("`{}`", status.database))
        .collect();
    let message = format!("no good backup is recent enough: {}", names.join(", "));
    let details: Vec<String> = stale
        .iter()
        .map(|status| format!("{}: {}", status.database, age_in_words(status)))
        .chain(listing.unanswered())
        .collect();
    let failure = Failure::new(Kind::Stale, "stale", message).with_details(details);
    Some(failure.hint("`pgkeep status` shows the last runs; `pgkeep backup` makes a new backup"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_that_failed_is_told_until_one_passes() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let run = |verb: &str, started: &str, code: u8| {
            let id = "shop-20260102T030405Z-7f3a".parse().unwrap();
            let run = RunRecord::new(id, verb, at(started), 5);
            Arc::new(if code == 0 {
                run
            } else {
                run.failed(code, "x", "it differs")
            })
        };
        let now = at("2026-01-05T00:00:00Z");
        let failed = |runs: &[Arc<RunRecord>], passed: Option<&str>| {
            failed_drill(runs, passed.map(at), now).map(|failed| failed.exit_code)
        };
        let bad = run("drill", "2026-01-04T00:00:00Z", 23);
        assert_eq!(
            failed(
                &[run("backup", "2026-01-04T01:00:00Z", 0), bad.clone()],
                Some("2026-01-03T00:00:00Z")
            ),
            Some(23)
        );
        assert_eq!(
            failed(
                &[run("drill", "2026-01-04T01:00:00Z", 130), bad.clone()],
                None
            ),
            Some(23)
        );
        // One that passed since, by its record or by the note beside a backup.
        assert_eq!(
            failed(
                &[run("drill", "2026-01-04T01:00:00Z", 3), bad.clone()],
                None
            ),
            None
        );
        assert_eq!(failed(&[bad], Some("2026-01-04T02:00:00Z")), None);
        assert_eq!(
            failed(&[run("backup", "2026-01-04T01:00:00Z", 20)], None),
            None
        );
    }
}

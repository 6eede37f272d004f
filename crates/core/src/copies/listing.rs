//! What is stored where: listings of several storages seen as one, and the way from `latest` or an id to a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use litemap::LiteMap;
use serde::Serialize;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until};

use crate::encryption::Identities;
use pgkeep_model::encryption::Fingerprint;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::keys::{
    Gathering, Listed, Marks, Part, Place, databases, is_lease, key_proof_of_key, run_of_key,
};
use pgkeep_model::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError};
use pgkeep_model::retention::is_ahead;
use pgkeep_storage::{ANSWER_LIMIT, Haste, Object, Storage};

/// Id of the failure that says that a key is taken.
pub const OBJECT_EXISTS: &str = "object_exists";

/// Id of the failure of a backup that was removed while it was read.
pub(crate) const BACKUP_REMOVED: &str = "backup_removed";

/// How many bytes a storage must have free for a backup behind one of this size: databases grow.
pub(crate) fn room_behind(last_bytes: u64) -> u64 {
    last_bytes.saturating_add(last_bytes / 5)
}

/// A storage with its name in the configuration.
#[derive(Clone)]
pub struct NamedStorage {
    /// Its name.
    pub name: String,
    /// The storage.
    pub storage: Arc<dyn Storage>,
    /// What opens encrypted backups there.
    pub identities: Arc<Identities>,
}

/// One storage's part in a listing.
#[derive(Clone, Debug, Serialize)]
pub struct StorageState {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Why it could not be listed; none when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One backup and the storages that have it.
#[derive(Clone, Debug)]
pub struct StoredBackup {
    /// Which one.
    pub place: Place,
    /// What each storage has of it, by the storage's position.
    pub copies: LiteMap<usize, Listed>,
}

/// Positions of storages; few, so that they need no memory of their own.
pub type Positions = SmallVec<[usize; 2]>;

/// Listings of all storages, seen as one.
pub struct Listing {
    /// The storages, in the order of the configuration.
    pub storages: Vec<NamedStorage>,
    /// How each of them answered.
    pub states: Vec<StorageState>,
    /// All backups, committed or not, oldest first.
    pub backups: Vec<StoredBackup>,
    /// All run records, oldest first, and the positions of the storages that have each.
    pub runs: BTreeMap<BackupId, Positions>,
    /// The runs in which a private key opened a backup, by whom that was encrypted for.
    pub proofs: BTreeMap<(DatabaseName, Fingerprint), BTreeSet<BackupId>>,
    /// Keys of leases, and the positions of the storages that have each.
    pub leases: BTreeMap<String, Vec<usize>>,
    failures: Vec<Failure>,
    /// The present moment: what is stamped behind it counts for nothing.
    now: Timestamp,
}

/// Which backup is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest good one.
    Latest,
    /// This one.
    Id(BackupId),
}

impl Wanted {
    /// Reads `latest` or an id.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let bad = |error| {
            Failure::new(
                Kind::NotFound,
                "no_such_backup",
                format!("no such backup: {error}"),
            )
        };
        text.parse()
            .map(Self::Id)
            .map_err(bad)
            .map_err(|failure| failure.hint("`pgkeep list` shows the ids"))
    }
}

impl StoredBackup {
    /// Returns what retention has to know of it over all storages.
    pub fn marks(&self) -> Marks {
        Marks {
            is_pinned: self.is_pinned(),
            is_pre_deploy: self.is_pre_deploy(),
            is_guarded: self.copies.values().any(Listed::is_guarded),
            is_damaged: !self.is_good(),
            is_drilled: self.is_drilled(),
            is_held: self.is_held(),
        }
    }

    /// Tells whether it is held in some storage, and accepted in none.
    pub fn is_held(&self) -> bool {
        self.copies.values().any(Listed::was_held) && !self.is_accepted()
    }

    /// Tells whether somebody accepted it after it was held.
    pub fn is_accepted(&self) -> bool {
        self.copies.values().any(Listed::is_accepted)
    }

    /// Tells whether some storage has it whole and not known to be damaged.
    pub fn is_good(&self) -> bool {
        self.copies.values().any(Listed::is_good)
    }

    /// Tells whether its dump is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.copies.values().any(Listed::is_encrypted)
    }

    /// Tells whether it is pinned in some storage.
    pub fn is_pinned(&self) -> bool {
        self.copies.values().any(Listed::is_pinned)
    }

    /// Tells whether it was made before a deploy.
    pub fn is_pre_deploy(&self) -> bool {
        self.copies.values().any(Listed::is_pre_deploy)
    }

    /// Tells whether a drill of it passed.
    pub fn is_drilled(&self) -> bool {
        self.copies.values().any(Listed::is_drilled)
    }

    /// Returns the size of all its objects in the storage that has most of it.
    pub fn size_bytes(&self) -> u64 {
        self.copies
            .values()
            .map(Listed::size_bytes)
            .max()
            .unwrap_or(0)
    }

    /// Tells whether some storage has it with its manifest.
    pub fn is_committed(&self) -> bool {
        self.copies.values().any(Listed::is_committed)
    }

    /// Returns the positions of the storages to read it from, good copies first.
    pub fn readable_from(&self) -> Vec<usize> {
        let mut from: Vec<usize> = self
            .copies
            .iter()
            .filter(|(_, copy)| copy.is_committed())
            .map(|(&at, _)| at)
            .collect();
        from.sort_by_key(|at| (self.copies[at].is_damaged(), *at));
        from
    }
}

impl Listing {
    /// Lists all `storages` at once, with one LIST each; `database` narrows it to one. `now` decides which backups are
    /// stamped in the future.
    ///
    /// It fails only when no storage answered.
    pub async fn read(
        storages: Vec<NamedStorage>,
        database: Option<&DatabaseName>,
        now: Timestamp,
    ) -> Result<Self> {
        let prefix = database.map(|name| format!("{name}/")).unwrap_or_default();
        let answers = answers(&storages, &prefix).await;
        let mut states = Vec::new();
        let mut failures = Vec::new();
        let mut found: BTreeMap<Place, StoredBackup> = BTreeMap::new();
        let mut runs: BTreeMap<BackupId, Positions> = BTreeMap::new();
        let mut proofs: BTreeMap<_, BTreeSet<BackupId>> = BTreeMap::new();
        let mut leases: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, (named, answer)) in storages.iter().zip(answers).enumerate() {
            let url = named.storage.label().to_owned();
            let mut state = StorageState {
                name: named.name.clone(),
                url,
                error: None,
            };
            match answer {
                Ok(told) => {
                    for run in told.runs {
                        runs.entry(run).or_default().push(at);
                    }
                    for (recipients, run) in told.proofs {
                        let of = (run.database().clone(), recipients);
                        proofs.entry(of).or_default().insert(run);
                    }
                    for key in told.leases {
                        leases.entry(key).or_default().push(at);
                    }
                    for listed in told.backups.finish() {
                        let place = listed.place.clone();
                        let entry = found.entry(place.clone());
                        let backup = entry.or_insert_with(|| StoredBackup {
                            place,
                            copies: LiteMap::with_capacity(1),
                        });
                        backup.copies.insert(at, listed);
                    }
                }
                Err(error) => {
                    state.error = Some(error.to_string());
                    let what = if named.name == state.url {
                        format!("cannot list `{}`", state.url)
                    } else {
                        format!("cannot list `{}` at `{}`", named.name, state.url)
                    };
                    failures.push(storage_failure(&what, &error));
                }
            }
            states.push(state);
        }
        if failures.len() == storages.len()
            && let Some(failure) = failures.pop()
        {
            return Err(failure);
        }
        Ok(Self {
            storages,
            states,
            backups: found.into_values().collect(),
            runs,
            proofs,
            leases,
            failures,
            now,
        })
    }

    /// Returns what is known before any storage has answered, and `why` that is so: nothing.
    pub fn unread(storages: Vec<NamedStorage>, why: &str, now: Timestamp) -> Self {
        let state = |named: &NamedStorage| StorageState {
            name: named.name.clone(),
            url: named.storage.label().to_owned(),
            error: Some(why.to_owned()),
        };
        Self {
            states: storages.iter().map(state).collect(),
            storages,
            backups: Vec::new(),
            runs: BTreeMap::new(),
            proofs: BTreeMap::new(),
            leases: BTreeMap::new(),
            failures: Vec::new(),
            now,
        }
    }

    /// Returns why storages did not answer, while others did.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Returns the failure of a storage that did not answer while others did.
    pub fn partial_failure(&self) -> Option<Failure> {
        let first = self.failures.first()?.clone();
        Some(Failure {
            kind: Kind::AfterGood,
            ..first
        })
    }

    /// Says of each storage that did not answer why.
    pub fn unanswered(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|failure| failure.message.clone())
    }

    /// Narrows the listing to its only database; several are a failure that names them.
    pub fn only_database(&self) -> Result<DatabaseName> {
        let mut names = databases(self.backups.iter().map(|backup| &backup.place));
        match (names.pop(), names.is_empty()) {
            (Some(name), true) => Ok(name),
            (None, _) => Err(self.nothing_there()),
            (Some(last), false) => {
                names.push(last);
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                let message = format!(
                    "there are backups of {} databases: {}",
                    names.len(),
                    names.join(", ")
                );
                Err(Failure::new(Kind::Usage, "database_needed", message)
                    .hint("choose one with `-d NAME`"))
            }
        }
    }

    /// Finds the backup that is meant.
    pub fn find(&self, wanted: &Wanted) -> Result<&StoredBackup> {
        match wanted {
            Wanted::Latest => {
                self.only_database()?;
                let newest = self.newest_good().ok_or_else(|| self.nothing_there())?;
                Ok(newest)
            }
            Wanted::Id(id) => {
                let found = self
                    .backups
                    .iter()
                    .find(|backup| &backup.place.id == id && backup.is_committed());
                // Where a storage did not answer, nobody knows that the backup is not there.
                if let (None, Some(failure)) = (found, self.failures.first()) {
                    return Err(failure.clone());
                }
                found.ok_or_else(|| {
                    let message = format!("no backup `{id}` in {}", self.names());
                    Failure::new(Kind::NotFound, "no_such_backup", message)
                        .hint("`pgkeep list` shows the ids")
                })
            }
        }
    }

    /// Returns the newest good backup: whole somewhere, and not stamped in the future.
    pub fn newest_good(&self) -> Option<&StoredBackup> {
        let mut newest_first = self.backups.iter().rev();
        newest_first.find(|backup| self.counts(backup))
    }

    /// Tells whether a backup is whole, good and of the past: only such a one is anybody's latest.
    pub(crate) fn counts(&self, backup: &StoredBackup) -> bool {
        !backup.place.is_partial && backup.is_good() && !self.is_ahead(backup)
    }

    /// Returns the newest good backup of a database that is not held: what retention and freshness count.
    pub fn newest_counted(&self, database: &DatabaseName) -> Option<&StoredBackup> {
        let mut newest_first = self.backups.iter().rev();
        newest_first.find(|backup| {
            backup.place.id.database() == database && self.counts(backup) && !backup.is_held()
        })
    }

    /// Says what is odd of the backup that was chosen as `latest`: which ones it skipped because they are stamped in the
    /// future, and that it is held itself.
    pub fn passed_over(&self, wanted: &Wanted) -> Vec<String> {
        if matches!(wanted, Wanted::Id(_)) {
            return Vec::new();
        }
        let held = self
            .newest_good()
            .filter(|newest| newest.is_held())
            .map(|newest| self.held_in_words(newest));
        self.ahead().map(in_the_future).chain(held).collect()
    }

    /// Says that the latest backup is held, and which one is the last that is not.
    fn held_in_words(&self, backup: &StoredBackup) -> String {
        let id = &backup.place.id;
        let last = match self.newest_counted(id.database()) {
            Some(last) => format!("`{}` is the last one that is not held", last.place.id),
            None => "there is no other good one".to_owned(),
        };
        format!(
            "the latest backup `{id}` is held: it lost what the ones before it had; {last}; `pgkeep show {id}` says more"
        )
    }

    /// Tells whether a backup is stamped so far in the future that it counts for nothing.
    pub fn is_ahead(&self, backup: &StoredBackup) -> bool {
        is_ahead(backup.place.id.started_at(), self.now)
    }

    /// Tells whether a run is stamped so far in the future that it counts for nothing.
    pub(crate) fn is_in_the_future(&self, run: &BackupId) -> bool {
        is_ahead(run.started_at(), self.now)
    }

    /// Returns the good backups that count for nothing because they are stamped in the future.
    fn ahead(&self) -> impl Iterator<Item = &BackupId> {
        let ahead = self
            .backups
            .iter()
            .filter(|backup| !backup.place.is_partial && backup.is_good() && self.is_ahead(backup));
        ahead.map(|backup| &backup.place.id)
    }

    /// Returns the ids of the backups that are newer than this one and damaged in every storage, oldest first.
    pub fn damaged_behind(&self, backup: &StoredBackup) -> Vec<String> {
        let behind = self
            .backups
            .iter()
            .skip_while(|other| other.place != backup.place);
        let damaged = behind.skip(1).filter(|other| {
            let (place, database) = (&other.place, backup.place.id.database());
            place.id.database() == database
                && !place.is_partial
                && other.is_committed()
                && !other.is_good()
        });
        damaged.map(|other| other.place.id.to_string()).collect()
    }

    pub(crate) fn nothing_there(&self) -> Failure {
        let ahead: Vec<String> = self.ahead().map(in_the_future).collect();
        let message = format!("there is no good backup in {}", self.names());
        let failure = Failure::new(Kind::NotFound, "no_such_backup", message);
        if ahead.is_empty() {
            return failure.hint("`pgkeep backup` makes one; `--storage` says where to look");
        }
        let message = format!(
            "every good backup in {} has a start time in the future; this machine's clock says {}",
            self.names(),
            self.now.strftime("%Y-%m-%d %H:%M UTC")
        );
        Failure { message, ..failure }
            .with_details(ahead)
            .hint("correct the wrong clock; a backup that you name by its id can be read anyway")
    }

    fn names(&self) -> String {
        let names: Vec<String> = self
            .states
            .iter()
            .map(|state| format!("`{}`", state.url))
            .collect();
        names.join(", ")
    }
}

/// Says of a backup that is skipped why.
pub(crate) fn in_the_future(id: &BackupId) -> String {
    format!("`{id}` has a start time in the future and was skipped: a clock is or was wrong")
}

/// What one storage lists. It is taken in object by object, because a list of all keys takes many times its memory.
#[derive(Default)]
struct Told {
    backups: Gathering,
    runs: Vec<BackupId>,
    proofs: Vec<(Fingerprint, BackupId)>,
    leases: Vec<String>,
}

impl Told {
    async fn by(storage: &dyn Storage, prefix: &str) -> pgkeep_storage::Result<Self> {
        let mut told = Self::default();
        let mut name = None;
        let mut take = |object: &Object| told.take(object, &mut name);
        storage.list_each(prefix, &mut take).await?;
        Ok(told)
    }

    fn take(&mut self, object: &Object, name: &mut Option<DatabaseName>) {
        let key = object.key.as_str();
        if let Some(mut run) = run_of_key(key) {
            run.share_name(name);
            self.runs.push(run);
        } else if let Some((recipients, run)) = key_proof_of_key(key) {
            self.proofs.push((recipients, run));
        } else if is_lease(key) {
            self.leases.push(key.to_owned());
        } else {
            self.backups.take(key, object.size_bytes);
        }
    }
}

/// Lists all storages at once. Once one has answered, the others have [`ANSWER_LIMIT`] in all: people wait for it, and
/// what one storage knows is mostly what they ask for.
async fn answers(storages: &[NamedStorage], prefix: &str) -> Vec<pgkeep_storage::Result<Told>> {
    let (started, haste) = (Instant::now(), Haste::default());
    let mut asked: FuturesUnordered<_> = storages
        .iter()
        .enumerate()
        .map(|(at, named)| {
            let listing = haste.within(Told::by(named.storage.as_ref(), prefix));
            async move { (at, listing.await) }
        })
        .collect();
    let mut answers: Vec<Option<pgkeep_storage::Result<_>>> =
        storages.iter().map(|_| None).collect();
    loop {
        let is_any = answers.iter().flatten().any(|answer| answer.is_ok());
        tokio::select! {
            biased;
            answer = asked.next() => match answer {
                Some((at, answer)) => answers[at] = Some(answer),
                None => break,
            },
            () = sleep_until(started + ANSWER_LIMIT), if is_any => {
                haste.begin();
                while let Some((at, answer)) = asked.next().await {
                    answers[at] = Some(answer);
                }
            }
        }
    }
    answers.into_iter().flatten().collect()
}

/// `latest` is only the latest of what answered.
pub(crate) fn doubtful(wanted: &Wanted, listing: &Listing) -> Option<Failure> {
    if *wanted != Wanted::Latest {
        return None;
    }
    let mut failure = listing.partial_failure()?;
    failure.message = format!(
        "this is the latest backup of the storages that answered: {}",
        failure.message
    );
    Some(failure)
}

/// An id names its database by itself.
pub(crate) fn database_of(wanted: &Wanted, database: Option<DatabaseName>) -> Option<DatabaseName> {
    match wanted {
        Wanted::Id(id) => Some(id.database().clone()),
        Wanted::Latest => database,
    }
}

/// Reads the manifest of a backup from the first storage that has a readable one.
///
/// Returns it with the storage's position.
pub async fn read_manifest(listing: &Listing, backup: &StoredBackup) -> Result<(Manifest, usize)> {
    let id = &backup.place.id;
    let mut last = None;
    for at in backup.readable_from() {
        let named = &listing.storages[at];
        let what = format!("cannot read the manifest of `{id}` in `{}`", named.name);
        last = match manifest_of_copy(named.storage.as_ref(), &backup.place).await {
            Ok((_, Ok(manifest))) => return Ok((manifest, at)),
            Ok((_, Err(error))) => Some(manifest_failure(&what, &error)),
            Err(error) => Some(storage_failure(&what, &error)),
        };
    }
    let Some(last) = last else {
        let message = format!("`{id}` has no manifest: it was never finished");
        return Err(Failure::new(Kind::NotFound, "no_such_backup", message));
    };
    let what = format!("cannot read the manifest of `{id}`");
    Err(unless_removed(listing, backup, &what, last).await)
}

/// Reads the manifest that one storage has of a backup: its bytes, and what they are.
pub(crate) async fn manifest_of_copy(
    storage: &dyn Storage,
    place: &Place,
) -> pgkeep_storage::Result<(Bytes, std::result::Result<Manifest, ManifestError>)> {
    let key = place.key(Part::Manifest, "");
    let bytes = storage.get(&key, MAX_MANIFEST_BYTES).await?;
    let manifest = Manifest::read(&bytes, &place.id);
    Ok((bytes, manifest))
}

/// Says of a reading that failed that the backup was removed meanwhile, where that is so, and what to take instead;
/// else returns the failure as it is. Anyone who removes a backup takes its manifest first.
pub(crate) async fn unless_removed(
    listing: &Listing,
    backup: &StoredBackup,
    what: &str,
    failure: Failure,
) -> Failure {
    let id = &backup.place.id;
    if !failure.is_of_copy() || failure.id == BACKUP_REMOVED {
        return failure;
    }
    let key = backup.place.key(Part::Manifest, "");
    for &at in backup.copies.keys() {
        let named = &listing.storages[at];
        match named.storage.get(&key, MAX_MANIFEST_BYTES).await {
            Err(pgkeep_storage::Error::NotFound(_)) => {}
            _ => return with_next_good(failure, listing, backup),
        }
    }
    let now = Listing::read(listing.storages.clone(), Some(id.database()), listing.now).await;
    // What is listed is there, whatever else answers in the storage's place.
    let is_listed = |now: &Listing| {
        let mut backups = now.backups.iter();
        backups.any(|other| other.place == backup.place && other.is_committed())
    };
    if now.as_ref().is_ok_and(is_listed) {
        return with_next_good(failure, listing, backup);
    }
    let message =
        format!("{what}: `{id}` was removed while it was being read, for instance by retention");
    let removed =
        Failure::new(Kind::Damaged, BACKUP_REMOVED, message).with_details([failure.message]);
    let newest = now.ok().and_then(|now| {
        let newest = now.newest_good()?;
        Some(newest.place.id.to_string())
    });
    match newest {
        Some(newest) => removed.hint(format!("use `{newest}`, the newest good backup now")),
        None => removed.hint("no good backup is left there; `pgkeep list` shows the others"),
    }
}

/// Names the backup to take instead of one that is damaged: the newest good one before it, else the newest of all.
fn with_next_good(failure: Failure, listing: &Listing, backup: &StoredBackup) -> Failure {
    if failure.kind != Kind::Damaged {
        return failure;
    }
    let (place, database) = (&backup.place, backup.place.id.database());
    let is_another = |other: &&StoredBackup| {
        other.place != *place && other.place.id.database() == database && listing.counts(other)
    };
    let others = || listing.backups.iter().filter(is_another);
    let started_at = place.id.started_at();
    let before = others().rfind(|other| other.place.id.started_at() <= started_at);
    match before.or_else(|| others().next_back()) {
        Some(other) => failure.hint(format!(
            "`{}` is the next good backup of `{database}`",
            other.place.id
        )),
        None => failure.hint(format!("there is no other good backup of `{database}`")),
    }
}

pub(crate) fn manifest_failure(what: &str, error: &ManifestError) -> Failure {
    let message = format!("{what}: {error}");
    match error {
        ManifestError::Newer { .. } => Failure::new(Kind::Program, "manifest_too_new", message)
            .hint("a newer pgkeep wrote it; install that version here"),
        _ => Failure::new(Kind::Damaged, "manifest_damaged", message)
            .of_copy()
            .hint("the dump beside it may be good: `pgkeep inspect` can prove it"),
    }
}

/// Turns a storage's error into a failure of `what`.
pub fn storage_failure(what: &str, error: &pgkeep_storage::Error) -> Failure {
    let (kind, id, hint) = match error {
        pgkeep_storage::Error::NotFound(_) => (Kind::Damaged, "object_missing", None),
        pgkeep_storage::Error::Exists(_) => (Kind::Storage, OBJECT_EXISTS, None),
        pgkeep_storage::Error::Changed(_) => (Kind::Storage, "object_changed", None),
        pgkeep_storage::Error::Unconditional(_) => (Kind::Storage, "storage_unconditional", None),
        pgkeep_storage::Error::Denied { hint, .. } => (Kind::Login, "storage_denied", hint.clone()),
        pgkeep_storage::Error::Retained { hint, .. } => {
            (Kind::Refused, "object_retained", hint.clone())
        }
        pgkeep_storage::Error::TooLarge { .. } => (Kind::Damaged, "object_too_large", None),
        pgkeep_storage::Error::Program { hint, .. } => {
            (Kind::Program, "program_missing", Some(hint.clone()))
        }
        pgkeep_storage::Error::Setup { hint, .. } => (Kind::Usage, "storage_setup", hint.clone()),
        pgkeep_storage::Error::Failed { hint, .. } => {
            (Kind::Storage, "storage_failed", hint.clone())
        }
    };
    let failure = Failure::new(kind, id, format!("{what}: {error}")).of_copy();
    let explained = match std::error::Error::source(error) {
        Some(source) => failure.caused_by(source),
        None => failure,
    };
    match hint {
        Some(hint) => explained.hint(hint),
        None => explained,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_storage::Memory;

    /// A backup that goes while it is read is no damaged one; one that is there stays what it is.
    #[tokio::test]
    async fn a_backup_that_was_removed_meanwhile_is_told_as_that() {
        let memory = Arc::new(Memory::new());
        let (old, new) = ("shop-20260102T000000Z-0002", "shop-20260103T000000Z-0003");
        for id in [old, new] {
            for end in ["sql.gz", "manifest.json"] {
                let key = format!("shop/{id}.{end}");
                memory.put(&key, "x".into()).await.unwrap();
            }
        }
        let storage: Arc<dyn Storage> = memory.clone();
        let name = "here".to_owned();
        let here = NamedStorage {
            name,
            storage,
            identities: Arc::default(),
        };
        let now = "2026-01-04T00:00:00Z".parse().unwrap();
        let listing = Listing::read(vec![here], None, now).await.unwrap();
        let backup = listing.find(&Wanted::parse(old).unwrap()).unwrap();
        let missing = || Failure::new(Kind::Damaged, "object_missing", "it is not there").of_copy();
        let told = unless_removed(&listing, backup, "restore", missing()).await;
        assert_eq!(told.id, "object_missing");
        // What is damaged names what is not.
        assert!(told.hints[0].contains(new), "{told}");
        let key = format!("shop/{old}.manifest.json");
        memory.remove(&key).await.unwrap();
        let told = unless_removed(&listing, backup, "restore", missing()).await;
        assert_eq!((told.id, told.kind.exit_code()), ("backup_removed", 23));
        assert!(told.hints[0].contains(new), "{told}");
        let refused = Failure::new(Kind::Refused, "x", "y");
        assert_eq!(
            unless_removed(&listing, backup, "restore", refused)
                .await
                .id,
            "x"
        );
        let told = read_manifest(&listing, backup).await.unwrap_err();
        assert_eq!(told.id, "backup_removed");
    }
}

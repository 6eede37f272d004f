//! `prune`: carries out retention, storage by storage, each on its own account.
//!
//! First the plan, from one LIST, then the deeds. While the newest backup is held there is no plan, and nothing goes. It removes only what the plan names, proves before each removal that
//! the lock is still held, that nobody pinned the backup meanwhile and that its manifest can be read, and takes the
//! manifest before the objects, so that a crash leaves an orphan and never a manifest that points at nothing.
//!
//! A storage that keeps what it was told to remove is no failure where it does so on purpose: what a lock retains is
//! noted, and so is what is hidden only because older versions are kept.

mod carry_out;
mod plan;
mod refused;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::history::{self, keep_record};
use super::lock::{self, Hold, LockRequest, LockSettings};
use super::removal::Right;
use super::stored::NamedStorage;
use crate::context::Context;
use pgkeep_model::config::Retention;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::keys::Leased;
use pgkeep_model::keys::Listed;
use pgkeep_model::origin::Origin;
use pgkeep_model::runs::RunRecord;
use pgkeep_model::scan::Finding;

/// What is safe to say of a prune that did not begin.
pub(crate) const SAFE: &str = "nothing was removed";

/// How many refused removals a record names. A name has at most 150 bytes, and a record at most 256 KiB.
const MAX_REFUSED: usize = 1000;

/// Whose backups are pruned, and by which policy.
pub struct Request {
    /// The database.
    pub database: DatabaseName,
    /// The storages, each of which keeps its own account.
    pub storages: Vec<NamedStorage>,
    /// The policy.
    pub policy: Retention,
    /// How old a run's record becomes.
    pub keep_runs: Duration,
    /// Whether a plan that removes more than half of more than ten is carried out.
    pub allow_mass_delete: bool,
    /// Whether the plan is only told.
    pub dry_run: bool,
    /// Whether a database that has nothing stored is a failure.
    pub must_exist: bool,
}

/// What was kept, what was removed, and why.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The database.
    pub database: String,
    /// Whether nothing was to be removed.
    pub dry_run: bool,
    /// The newest backup, where it is held and nothing is removed for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Each storage's account; none where it waits.
    pub storages: Vec<Account>,
    /// What was odd.
    pub warnings: Vec<Finding>,
    /// How it failed.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// One storage's account.
#[derive(Debug, Default, Serialize)]
pub struct Account {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Backups that stay, newest first.
    pub keep: Vec<Line>,
    /// Backups that go, newest first, which is the order in which they are removed.
    pub remove: Vec<Line>,
    /// Objects that are left alone, with the reason.
    pub left: Vec<Left>,
    /// How many records of old runs go.
    pub old_runs: u64,
    /// Whether nothing is removed here, because the configuration says so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub append_only: bool,
    /// Bytes of removed backups that the storage keeps as older versions, until its lifecycle frees them.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden_bytes: u64,
    /// What the storage made of removals, in words; none of it is a failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why nothing was removed here, or why removing ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether there is no object of the database at all, a lease aside.
    #[serde(skip)]
    is_empty: bool,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// The verdict on one backup.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its id.
    pub id: String,
    /// When its run started.
    pub started_at: Timestamp,
    /// Size of all its objects.
    pub size_bytes: u64,
    /// What retention counts it as.
    pub tiers: Vec<String>,
    /// Every reason.
    pub reasons: Vec<String>,
    /// Whether it was removed; absent where it was not to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<bool>,
    /// Whether its bytes are still there though it was removed: the storage keeps older versions, or a lock keeps them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Whether the storage's lock or retention policy kept it: it stays whole and is tried again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retained: bool,
    /// Until when, where the storage tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained_until: Option<Timestamp>,
    /// Why it was not removed though it was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the storage refused to remove it.
    #[serde(skip)]
    is_refused: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An object that is left alone.
#[derive(Clone, Debug, Serialize)]
pub struct Left {
    /// Its key.
    pub key: String,
    /// Why.
    pub why: String,
}

/// The backup that the run made which prunes behind it.
pub(super) struct Made {
    /// Its id.
    pub id: BackupId,
    /// Which of the storages took it; the others keep all they have.
    pub stored: Vec<bool>,
}

/// What is to be done in one storage.
struct Task {
    account: Account,
    /// Backups to remove, newest first, in the order of the account's lines.
    removals: Vec<Listed>,
    old_runs: Vec<String>,
}

impl Task {
    /// Removes nothing, as the configuration of the storage says.
    fn left_alone(mut self) -> Account {
        for line in &mut self.account.remove {
            line.removed = Some(false);
        }
        self.account
    }
}

/// Plans and carries out under a lock of its own; a dry run only plans and takes none.
pub async fn run(request: &Request, settings: &LockSettings, context: &Context) -> Report {
    if request.dry_run {
        return prune(request, None, None, context).await;
    }
    let started_at = context.clock.now();
    let lock = LockRequest {
        database: &request.database,
        storages: &request.storages,
        verb: "prune",
        leased: Leased::Backups,
        origin: &Origin::default(),
        safe: SAFE,
        settings,
        on_wait: &|text| tracing::warn!("{text}"),
    };
    let report = match lock::acquire(&lock, context).await {
        Ok(hold) => {
            let mut report = prune(request, Some(&hold), None, context).await;
            report.warnings.extend(hold.warnings.iter().cloned());
            report.warnings.extend(hold.release().await);
            report
        }
        Err(failure) => Report::failed(&request.database, request.dry_run, failure),
    };
    // The record would be the only object of a database that is not there.
    if !report.is_nowhere() {
        let run = history::run_id(&request.database, started_at, context);
        let record = report.record(run, started_at, context);
        keep_record(&request.storages, record, context).await;
    }
    report
}

/// Plans and carries out under a lock that is held already.
pub(super) async fn prune(
    request: &Request,
    hold: Option<&Hold>,
    made: Option<&Made>,
    context: &Context,
) -> Report {
    let now = context.clock.now();
    let is_meant = |at: usize| made.is_none_or(|made| made.stored.get(at) == Some(&true));
    let storages = request.storages.iter().enumerate();
    let meant: Vec<(usize, &NamedStorage)> = storages.filter(|(at, _)| is_meant(*at)).collect();
    let listing = |(at, named): (usize, &'_ NamedStorage)| {
        let named = named.clone();
        async move {
            let what = what(request, &named);
            let right = right(hold, at, context, &what);
            wait::list(request, &named, &right).await
        }
    };
    let listed = join_all(meant.iter().copied().map(listing)).await;
    if let Some(held) = wait::held_newest(listed.iter().flatten(), now) {
        let failures = listed.into_iter().filter_map(std::result::Result::err);
        return Report {
            failure: worst(failures.collect()),
            warnings: vec![wait::waits(&held)],
            waits_for: Some(held.to_string()),
            ..Report::new(&request.database, request.dry_run)
        };
    }
    let one = |((at, named), objects): ((usize, &'_ NamedStorage), _)| {
        let named = named.clone();
        async move {
            let what = what(request, &named);
            let right = right(hold, at, context, &what);
            let task = match objects {
                Ok(objects) => plan::task(request, &named, objects, made, &right, now).await,
                Err(failure) => Err(failure),
            };
            match task {
                Ok(task) if request.dry_run || task.account.failure.is_some() => task.account,
                Ok(task) if task.account.append_only => task.left_alone(),
                Ok(task) => carry_out::carry_out(task, &named, &right).await,
                Err(failure) => Account::refused(&named, failure),
            }
        }
    };
    let mut accounts = join_all(meant.into_iter().zip(listed).map(one)).await;
    let failures = accounts
        .iter_mut()
        .filter_map(|account| account.failure.take());
    let failure = worst(failures.collect());
    let mut report = Report {
        failure,
        storages: accounts,
        ..Report::new(&request.database, request.dry_run)
    };
    if report.failure.is_none() && request.must_exist && report.is_nowhere() {
        let message = format!(
            "there is no backup of `{}` to prune; {SAFE}",
            request.database
        );
        let failure = Failure::new(Kind::NotFound, "no_such_database", message);
        report.failure = Some(failure.hint("`pgkeep list` shows the backups"));
    }
    report
}

fn what(request: &Request, named: &NamedStorage) -> String {
    format!("prune of `{}` in `{}`", request.database, named.name)
}

fn right<'a>(hold: Option<&'a Hold>, at: usize, context: &'a Context, what: &'a str) -> Right<'a> {
    Right {
        hold,
        at,
        context,
        what,
    }
}

/// Refuses a policy without any rule.
pub fn empty_policy(what: &str) -> Failure {
    let message = format!("{what} refused: no retention rule is set; {SAFE}");
    Failure::new(Kind::Refused, "empty_policy", message)
        .hint("give `retention` in the configuration, or rules such as `--keep-daily 7`")
}

/// One failure never hides another: the worst decides the exit code, and all are reported.
pub fn worst(mut failures: Vec<Failure>) -> Option<Failure> {
    let rank = |failure: &Failure| match failure.kind {
        Kind::Interrupted | Kind::Terminated => 0,
        Kind::Busy => 1,
        Kind::Refused => 2,
        Kind::AfterGood => 4,
        _ => 3,
    };
    failures.sort_by_key(rank);
    let mut rest = failures.into_iter();
    let first = rest.next()?;
    Some(first.with_details(rest.map(|failure| failure.message)))
}

impl Account {
    fn new(named: &NamedStorage) -> Self {
        Self {
            name: named.name.clone(),
            url: named.storage.label().to_owned(),
            ..Self::default()
        }
    }

    fn refused(named: &NamedStorage, failure: Failure) -> Self {
        let mut account = Self::new(named);
        account.fail(failure);
        account
    }

    fn fail(&mut self, failure: Failure) {
        self.error = Some(failure.message.clone());
        self.failure = Some(failure);
    }
}

impl Report {
    fn new(database: &DatabaseName, dry_run: bool) -> Self {
        Self {
            database: database.to_string(),
            dry_run,
            waits_for: None,
            storages: Vec::new(),
            warnings: Vec::new(),
            failure: None,
        }
    }

    /// Reports a prune that did not begin.
    pub fn failed(database: &DatabaseName, dry_run: bool, failure: Failure) -> Self {
        Self {
            failure: Some(failure),
            ..Self::new(database, dry_run)
        }
    }

    /// Tells whether every storage answered that it has nothing of the database.
    fn is_nowhere(&self) -> bool {
        !self.storages.is_empty() && self.storages.iter().all(|account| account.is_empty)
    }

    /// Returns how many copies were removed.
    pub fn removed(&self) -> u64 {
        let lines = self.storages.iter().flat_map(|account| &account.remove);
        lines.filter(|line| line.removed == Some(true)).count() as u64
    }

    /// Returns the ids of backups that each storage refused to remove, by its name.
    pub(super) fn refused(&self) -> BTreeMap<String, Vec<String>> {
        let most = MAX_REFUSED / self.storages.len().max(1);
        let mut refused = BTreeMap::new();
        for account in &self.storages {
            let lines = account.remove.iter().filter(|line| line.is_refused);
            let ids: BTreeSet<&String> = lines.map(|line| &line.id).collect();
            if !ids.is_empty() {
                let newest = ids.into_iter().rev().take(most).cloned();
                refused.insert(account.name.clone(), newest.collect());
            }
        }
        refused
    }

    fn record(&self, run: BackupId, started_at: Timestamp, context: &Context) -> RunRecord {
        let mut record = history::record(run, "prune", started_at, self.failure.as_ref(), context);
        record.removed = Some(self.removed());
        record.refused = self.refused();
        record.reason = (self.waits_for.as_ref()).map(|held| format!("waits: `{held}` is held"));
        record
    }
}

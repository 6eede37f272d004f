//! `prune`: carries out retention, storage by storage, each on its own account.
//!
//! First the plan, from one LIST, then the deeds. It removes only what the plan names, proves before each removal that
//! the lock is still held, that nobody pinned the backup meanwhile and that its manifest can be read, and takes the
//! manifest before the objects, so that a crash leaves an orphan and never a manifest that points at nothing.

mod carry_out;

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::history::{self, keep_record};
use super::lock::{self, Hold, LockRequest, LockSettings};
use super::stored::{NamedStorage, storage_failure};
use crate::context::Context;
use crate::failure::{Failure, Kind, Result};
use crate::model::config::Retention;
use crate::model::id::{BackupId, DatabaseName};
use crate::model::keys::{Listed, Part, gather, is_ours, run_of_key};
use crate::model::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::model::retention::{Candidate, Plan, Refusal, Verdict, plan};
use crate::model::runs::RunRecord;
use crate::model::scan::Finding;
use crate::storage;

/// What is safe to say of a prune that did not begin.
pub(super) const SAFE: &str = "nothing was removed";

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
}

/// What was kept, what was removed, and why.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The database.
    pub database: String,
    /// Whether nothing was to be removed.
    pub dry_run: bool,
    /// Each storage's account.
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
    /// Why nothing was removed here, or why removing ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
    /// Why it was not removed though it was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
        Err(failure) => Report::failed(request, failure),
    };
    let run = history::run_id(&request.database, started_at, context);
    keep_record(
        &request.storages,
        report.record(run, started_at, context),
        context,
    )
    .await;
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
    let one = |(at, named)| async move {
        match task(request, named, made, now).await {
            Ok(task) if request.dry_run => task.account,
            Ok(task) => carry_out::carry_out(task, named, at, hold, context).await,
            Err(failure) => Account::refused(named, failure),
        }
    };
    let is_meant = |at: usize| made.is_none_or(|made| made.stored.get(at) == Some(&true));
    let storages = request.storages.iter().enumerate();
    let mut accounts = join_all(storages.filter(|(at, _)| is_meant(*at)).map(one)).await;
    let failures: Vec<Failure> = accounts
        .iter_mut()
        .filter_map(|account| account.failure.take())
        .collect();
    Report {
        database: request.database.to_string(),
        dry_run: request.dry_run,
        storages: accounts,
        warnings: Vec::new(),
        failure: sum_up(failures),
    }
}

/// Looks at one storage and decides what is to be done there.
async fn task(
    request: &Request,
    named: &NamedStorage,
    made: Option<&Made>,
    now: Timestamp,
) -> Result<Task> {
    let what = format!("prune of `{}` in `{}`", request.database, named.name);
    let objects = named
        .storage
        .list(&format!("{}/", request.database))
        .await
        .map_err(|error| {
            let cause = storage_failure(&format!("{what} refused: cannot list it"), &error);
            Failure {
                kind: Kind::Refused,
                id: "listing_failed",
                message: format!("{}; {SAFE} there", cause.message),
                ..cause
            }
        })?;
    let listed = gather(objects.iter().map(|o| (o.key.as_str(), o.size_bytes)));
    let backups: Vec<Listed> = listed
        .into_iter()
        .rev()
        .filter(|backup| backup.is_committed() && !backup.place.is_partial)
        .collect();
    let mut candidates: Vec<Candidate> = backups.iter().map(|one| candidate(one, made)).collect();
    if !request.dry_run {
        prove_newest(&what, named, &backups, &mut candidates).await?;
    }
    let plan = plan(&request.policy, &candidates, now)
        .map_err(|Refusal::EmptyPolicy| empty_policy(&what))?;
    if plan.removes_too_much() && !request.allow_mass_delete {
        return Err(mass_delete(&what, &plan));
    }
    let oldest_run =
        now - SignedDuration::try_from(request.keep_runs).unwrap_or(SignedDuration::MAX);
    let mut account = Account::new(named);
    let mut removals = Vec::new();
    for (backup, verdict) in backups.into_iter().zip(plan.verdicts) {
        let line = line(&backup, &verdict);
        if verdict.keep {
            account.keep.push(line);
        } else {
            account.remove.push(line);
            removals.push(backup);
        }
    }
    let foreign = objects.iter().filter(|object| !is_ours(&object.key));
    account.left = foreign
        .map(|object| Left {
            key: object.key.clone(),
            why: "pgkeep did not write it".to_owned(),
        })
        .collect();
    let old_runs: Vec<String> = objects
        .iter()
        .filter(|object| run_of_key(&object.key).is_some_and(|run| run.started_at() < oldest_run))
        .map(|object| object.key.clone())
        .collect();
    account.old_runs = old_runs.len() as u64;
    Ok(Task {
        account,
        removals,
        old_runs,
    })
}

/// Makes sure that the newest good backup can be read, because older ones go for its sake. One that cannot is kept, and
/// counts for nothing; the next one takes its place.
async fn prove_newest(
    what: &str,
    named: &NamedStorage,
    backups: &[Listed],
    candidates: &mut [Candidate],
) -> Result<()> {
    let good = backups.iter().zip(candidates);
    for (backup, candidate) in good.filter(|(backup, _)| backup.is_good()) {
        let key = backup.place.key(Part::Manifest, "");
        let why = match named.storage.get(&key, MAX_MANIFEST_BYTES).await {
            Ok(bytes) => match Manifest::read(&bytes, &backup.place.id) {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            },
            Err(error @ storage::Error::TooLarge { .. }) => error.to_string(),
            Err(error) => {
                let what = format!("{what} refused: cannot read the newest manifest; {SAFE} there");
                return Err(storage_failure(&what, &error));
            }
        };
        candidate.unreadable = Some(format!("its manifest: {why}"));
    }
    Ok(())
}

fn candidate(backup: &Listed, made: Option<&Made>) -> Candidate {
    Candidate {
        pinned: backup.is_pinned().then(String::new),
        is_pre_deploy: backup.is_pre_deploy(),
        is_damaged: backup.is_damaged(),
        is_drilled: backup.is_drilled(),
        is_made_by_this_run: made.is_some_and(|made| made.id == backup.place.id),
        ..Candidate::new(backup.place.id.started_at())
    }
}

fn line(backup: &Listed, verdict: &Verdict) -> Line {
    Line {
        id: backup.place.id.to_string(),
        started_at: backup.place.id.started_at(),
        size_bytes: backup.size_bytes(),
        tiers: verdict.tiers().iter().map(ToString::to_string).collect(),
        reasons: verdict.reasons.iter().map(ToString::to_string).collect(),
        removed: None,
        error: None,
    }
}

/// Refuses a policy without any rule.
pub fn empty_policy(what: &str) -> Failure {
    let message = format!("{what} refused: the policy has no rule that keeps a backup; {SAFE}");
    Failure::new(Kind::Refused, "empty_policy", message)
        .hint("give `retention` in the configuration, or rules such as `--keep-daily 7`")
}

fn mass_delete(what: &str, plan: &Plan) -> Failure {
    let message = format!(
        "{what} refused: it would remove {} of {} backups, more than half; {SAFE} there",
        plan.removed(),
        plan.verdicts.len()
    );
    Failure::new(Kind::Refused, "mass_delete", message)
        .hint("`--dry-run` shows the plan; `--allow-mass-delete` carries it out")
}

/// One storage's failure never hides another's: the worst decides the exit code, and all are told.
fn sum_up(failures: Vec<Failure>) -> Option<Failure> {
    let rank = |failure: &Failure| match failure.kind {
        Kind::Interrupted | Kind::Terminated => 0,
        Kind::Busy => 1,
        Kind::Refused => 2,
        _ => 3,
    };
    let mut failures = failures;
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
        Self {
            error: Some(failure.message.clone()),
            failure: Some(failure),
            ..Self::new(named)
        }
    }
}

impl Report {
    /// Reports a prune that did not begin.
    pub fn failed(request: &Request, failure: Failure) -> Self {
        Self {
            database: request.database.to_string(),
            dry_run: request.dry_run,
            storages: Vec::new(),
            warnings: Vec::new(),
            failure: Some(failure),
        }
    }

    /// Returns how many copies were removed.
    pub fn removed(&self) -> u64 {
        let lines = self.storages.iter().flat_map(|account| &account.remove);
        lines.filter(|line| line.removed == Some(true)).count() as u64
    }

    fn record(&self, run: BackupId, started_at: Timestamp, context: &Context) -> RunRecord {
        let mut record = history::record(run, "prune", started_at, self.failure.as_ref(), context);
        record.removed = Some(self.removed());
        record
    }
}

//! Carries a plan out in one storage.

use super::{Account, SAFE, Task};
use crate::context::Context;
use crate::failure::{Failure, Kind, Result};
use crate::model::keys::{Listed, Part};
use crate::model::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::op::lock::Hold;
use crate::op::stored::NamedStorage;
use crate::storage::{self, Storage};

/// What became of one removal.
enum Outcome {
    Removed,
    /// It is no longer what the plan saw, and stays.
    Left(String),
    Failed(String),
}

/// Removes what the task names, newest first, and goes on after a removal that failed.
///
/// `at` is the storage's position in `hold`. A lock that is lost, or a stop, ends it: what was not reached stays.
pub(super) async fn carry_out(
    task: Task,
    named: &NamedStorage,
    at: usize,
    hold: Option<&Hold>,
    context: &Context,
) -> Account {
    let Task {
        mut account,
        removals,
        old_runs,
    } = task;
    let mut failed = 0;
    for (line, backup) in account.remove.iter_mut().zip(&removals) {
        line.removed = Some(false);
        if account.failure.is_some() {
            continue;
        }
        if let Err(failure) = still_ours(at, hold, context).await {
            account.failure = Some(failure);
            continue;
        }
        match remove(named.storage.as_ref(), backup).await {
            Outcome::Removed => line.removed = Some(true),
            Outcome::Left(why) => line.error = Some(why),
            Outcome::Failed(why) => {
                line.error = Some(why);
                failed += 1;
            }
        }
    }
    if account.failure.is_none() {
        failed += remove_runs(named, &old_runs, at, hold, context).await;
    }
    let planned = removals.len() + old_runs.len();
    if account.failure.is_none() && failed > 0 {
        let message = format!(
            "prune in `{}`: {failed} of {planned} removals failed; what could not be removed is still there",
            named.name
        );
        let details: Vec<String> = account
            .remove
            .iter()
            .filter_map(|line| Some(format!("{}: {}", line.id, line.error.as_ref()?)))
            .collect();
        let failure = Failure::new(Kind::AfterGood, "prune_incomplete", message);
        account.failure = Some(failure.with_details(details));
    }
    account.error = account
        .failure
        .as_ref()
        .map(|failure| failure.message.clone());
    account
}

/// Proves that this run may still remove something.
async fn still_ours(at: usize, hold: Option<&Hold>, context: &Context) -> Result<()> {
    if context.stop.is_requested() {
        let mut failure = context.stop.failure("prune");
        let told = "the backups not yet removed are still there";
        failure.message = failure.message.replace("nothing was stored", told);
        return Err(failure);
    }
    match hold {
        Some(hold) => hold.fence(at).await.map_err(|mut failure| {
            let told = "what was not yet removed is still there";
            failure.message = failure.message.replace(SAFE, told);
            failure
        }),
        None => Ok(()),
    }
}

/// Removes one backup, if it is still what the plan saw.
async fn remove(storage: &dyn Storage, backup: &Listed) -> Outcome {
    match storage.head(&backup.place.key(Part::Pin, "")).await {
        Err(storage::Error::NotFound(_)) => {}
        Ok(_) => return Outcome::Left("it was pinned meanwhile".to_owned()),
        Err(error) => return Outcome::Failed(format!("cannot tell whether it is pinned: {error}")),
    }
    let manifest = backup.place.key(Part::Manifest, "");
    match storage.get(&manifest, MAX_MANIFEST_BYTES).await {
        Ok(bytes) => {
            if let Err(error) = Manifest::read(&bytes, &backup.place.id) {
                return Outcome::Left(format!("its manifest cannot be read, so it stays: {error}"));
            }
        }
        Err(storage::Error::NotFound(_)) => {
            return Outcome::Left("somebody else removed it meanwhile".to_owned());
        }
        Err(error @ storage::Error::TooLarge { .. }) => {
            return Outcome::Left(format!("its manifest cannot be read, so it stays: {error}"));
        }
        Err(error) => return Outcome::Failed(format!("cannot read its manifest: {error}")),
    }
    if let Err(error) = storage.remove(&manifest).await {
        return Outcome::Failed(format!("cannot remove its manifest: {error}"));
    }
    let objects = backup
        .parts
        .iter()
        .filter(|(part, _)| **part != Part::Manifest)
        .flat_map(|(_, objects)| objects);
    let mut failures = Vec::new();
    for (key, _) in objects {
        if let Err(error) = storage.remove(key).await {
            failures.push(format!("`{key}`: {error}"));
        }
    }
    match failures.is_empty() {
        true => Outcome::Removed,
        false => Outcome::Failed(format!(
            "its manifest is removed, and these objects are left behind: {}; `pgkeep sync` sweeps them after a day",
            failures.join(", ")
        )),
    }
}

/// Removes the records of old runs; returns how many could not be.
async fn remove_runs(
    named: &NamedStorage,
    keys: &[String],
    at: usize,
    hold: Option<&Hold>,
    context: &Context,
) -> usize {
    let mut failed = 0;
    for key in keys {
        if still_ours(at, hold, context).await.is_err() {
            break;
        }
        if let Err(error) = named.storage.remove(key).await {
            tracing::warn!(storage = %named.name, key, %error, "an old run's record could not be removed");
            failed += 1;
        }
    }
    failed
}

//! Carries a plan out in one storage.

use super::{Account, Task};
use crate::op::removal::Right;
use crate::op::stored::{NamedStorage, manifest_of_copy};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::keys::{Listed, Part};
use pgkeep_storage::Storage;

/// What became of one removal.
enum Outcome {
    Removed,
    /// It is no longer what the plan saw, and stays.
    Left(String),
    Failed(String),
}

/// Removes what the task names, newest first, and goes on after a removal that failed.
///
/// A lock that is lost, or a stop, ends it: what was not reached stays.
pub(super) async fn carry_out(task: Task, named: &NamedStorage, right: &Right<'_>) -> Account {
    let Task {
        mut account,
        removals,
        old_runs,
    } = task;
    let planned = removals.len() + old_runs.len();
    match remove_all(&mut account, &removals, &old_runs, named, right).await {
        Ok(0) => {}
        Ok(failed) => {
            let message = format!(
                "{}: {failed} of {planned} removals failed; what could not be removed is still there",
                right.what
            );
            let lines = account.remove.iter();
            let details =
                lines.filter_map(|line| Some(format!("{}: {}", line.id, line.error.as_ref()?)));
            let failure = Failure::new(Kind::AfterGood, "prune_incomplete", message)
                .with_details(details.collect::<Vec<_>>());
            account.fail(failure);
        }
        Err(failure) => account.fail(failure),
    }
    account
}

/// Returns how many removals failed.
async fn remove_all(
    account: &mut Account,
    removals: &[Listed],
    old_runs: &[String],
    named: &NamedStorage,
    right: &Right<'_>,
) -> Result<usize> {
    let mut failed = 0;
    for line in &mut account.remove {
        line.removed = Some(false);
    }
    for (line, backup) in account.remove.iter_mut().zip(removals) {
        right.prove().await?;
        match remove(named.storage.as_ref(), backup, right).await? {
            Outcome::Removed => line.removed = Some(true),
            Outcome::Left(why) => line.error = Some(why),
            Outcome::Failed(why) => {
                line.error = Some(why);
                failed += 1;
            }
        }
    }
    for key in old_runs {
        right.prove().await?;
        if let Err(error) = right.remove(named.storage.as_ref(), key).await {
            tracing::warn!(storage = %named.name, key, %error, "an old run's record could not be removed");
            failed += 1;
        }
    }
    Ok(failed)
}

/// Removes one backup, if it is still what the plan saw.
async fn remove(storage: &dyn Storage, backup: &Listed, right: &Right<'_>) -> Result<Outcome> {
    let pin = backup.place.key(Part::Pin, "");
    match right.ask(storage.head(&pin)).await? {
        Err(pgkeep_storage::Error::NotFound(_)) => {}
        Ok(_) => return Ok(Outcome::Left("it was pinned meanwhile".to_owned())),
        Err(error) => {
            return Ok(Outcome::Failed(format!(
                "cannot tell whether it is pinned: {error}"
            )));
        }
    }
    let key = backup.place.key(Part::Manifest, "");
    let reading = manifest_of_copy(storage, &backup.place);
    let (bytes, manifest) = match right.ask(reading).await? {
        Ok(found) => found,
        Err(pgkeep_storage::Error::NotFound(_)) => {
            return Ok(Outcome::Left("another run removed it meanwhile".to_owned()));
        }
        Err(error @ pgkeep_storage::Error::TooLarge { .. }) => return Ok(unreadable(&error)),
        Err(error) => {
            return Ok(Outcome::Failed(format!(
                "cannot read its manifest: {error}"
            )));
        }
    };
    if let Err(error) = manifest {
        return Ok(unreadable(&error));
    }
    if let Err(error) = right.remove(storage, &key).await {
        return Ok(Outcome::Failed(format!(
            "cannot remove its manifest: {error}"
        )));
    }
    // Anyone who pins looks for the manifest behind it, as this looks for the pin behind the manifest: one of both sees
    // the other.
    let why = match right.look(storage, &pin).await {
        Err(pgkeep_storage::Error::NotFound(_)) => None,
        Ok(_) => Some("it was pinned meanwhile".to_owned()),
        Err(error) => Some(format!(
            "cannot tell whether it was pinned meanwhile: {error}"
        )),
    };
    if let Some(why) = why {
        return Ok(match right.put(storage, &key, bytes).await {
            Ok(()) => Outcome::Left(why),
            Err(error) => Outcome::Failed(format!(
                "{why}, but its manifest could not be written back: {error}"
            )),
        });
    }
    Ok(remove_objects(storage, backup, right).await)
}

fn unreadable(error: &dyn std::error::Error) -> Outcome {
    Outcome::Left(format!("its manifest cannot be read, so it stays: {error}"))
}

async fn remove_objects(storage: &dyn Storage, backup: &Listed, right: &Right<'_>) -> Outcome {
    let objects = backup
        .parts
        .iter()
        .filter(|(part, _)| **part != Part::Manifest)
        .flat_map(|(_, objects)| objects);
    let mut failures = Vec::new();
    for (key, _) in objects {
        if let Err(error) = right.remove(storage, key).await {
            failures.push(format!("`{key}`: {error}"));
        }
    }
    if failures.is_empty() {
        Outcome::Removed
    } else {
        Outcome::Failed(format!(
            "its manifest is removed, and these objects are left behind: {}; `pgkeep sync` removes them after a day",
            failures.join(", ")
        ))
    }
}

//! Carries a plan out in one storage.

use jiff::Timestamp;

use super::{Account, Task};
use crate::op::removal::Right;
use crate::op::stored::{NamedStorage, manifest_of_copy};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::keys::{Listed, Part};
use pgkeep_model::lease::whole_seconds;
use pgkeep_model::words::{bytes, count};
use pgkeep_storage::{Removed, Storage};

/// So many refused removals, and none that came about, tell that the storage refuses them all.
const ENOUGH_REFUSALS: usize = 3;

/// What became of one removal.
enum Outcome {
    Removed(Freed),
    /// It is no longer what the plan saw, and stays.
    Left(String),
    /// A lock keeps it, until then.
    Retained(Option<Timestamp>),
    /// The key may not remove it.
    Denied(String),
    Failed(String),
}

/// What became of the bytes of a removed backup.
enum Freed {
    All,
    /// They are hidden: the storage keeps older versions.
    None,
    /// A lock keeps some of them, until then.
    Later(Option<Timestamp>),
}

/// How removing went.
#[derive(Default)]
struct Tally {
    removed: usize,
    denied: usize,
    failed: usize,
}

impl Tally {
    /// Counts a removal that the storage refused, or would refuse.
    fn deny(&mut self) {
        self.denied += 1;
        self.failed += 1;
    }

    /// Tells whether asking on makes no sense.
    fn is_refused(&self) -> bool {
        self.removed == 0 && self.denied >= ENOUGH_REFUSALS
    }
}

/// Removes what the task names, newest first, and goes on after a removal that failed.
///
/// A lock that is lost, or a stop, ends it: what was not reached stays. So does a storage that refuses one removal after
/// the other.
pub(super) async fn carry_out(task: Task, named: &NamedStorage, right: &Right<'_>) -> Account {
    let Task {
        mut account,
        removals,
        old_runs,
    } = task;
    let planned = removals.len() + old_runs.len();
    let ended = remove_all(&mut account, &removals, &old_runs, named, right).await;
    note_hidden(&mut account);
    note_retained(&mut account);
    match ended {
        Ok(Tally { failed: 0, .. }) => {}
        Ok(tally) => account.fail(incomplete(&account, &tally, planned, right)),
        Err(failure) => account.fail(failure),
    }
    account
}

fn incomplete(account: &Account, tally: &Tally, planned: usize, right: &Right<'_>) -> Failure {
    let (what, failed) = (right.what, tally.failed);
    let message = if tally.removed == 0 && tally.denied == failed {
        format!(
            "{what}: the storage refuses deletes, so {failed} of {planned} removals did not come about; what could not be \
             removed is still there"
        )
    } else {
        format!(
            "{what}: {failed} of {planned} removals failed; what could not be removed is still there"
        )
    };
    let lines = account.remove.iter();
    let details = lines.filter_map(|line| Some(format!("{}: {}", line.id, line.error.as_ref()?)));
    let failure = Failure::new(Kind::AfterGood, "prune_incomplete", message)
        .with_details(details.collect::<Vec<_>>());
    if tally.denied == 0 {
        return failure;
    }
    failure.hint(
        "set `append_only: true` for this storage if its key is not to delete (the bucket's lifecycle then frees the \
         space), or prune with a key that may",
    )
}

/// Tells what a bucket with versions keeps.
fn note_hidden(account: &mut Account) {
    let hidden = account.remove.iter().filter(|line| line.hidden);
    let (amount, size) = hidden.fold((0, 0), |(amount, size), line| {
        (amount + 1, size + line.size_bytes)
    });
    if amount > 0 {
        account.hidden_bytes = size;
        account.notes.push(format!(
            "{} hidden, not freed: {} are freed only by the bucket's lifecycle, because it keeps what is removed",
            count(amount, "backup"),
            bytes(size)
        ));
    }
}

/// Tells what a lock keeps.
fn note_retained(account: &mut Account) {
    let retained = account.remove.iter().filter(|line| line.retained);
    let until: Vec<Option<Timestamp>> = retained.map(|line| line.retained_until).collect();
    let Some(latest) = until.iter().max() else {
        return;
    };
    let (backups, verb) = match until.len() {
        1 => ("1 backup".to_owned(), "stays"),
        amount => (count(amount as u64, "backup"), "stay"),
    };
    let words = match (latest, until.len()) {
        (Some(latest), 1) => format!("retained until {}", whole_seconds(*latest)),
        (Some(latest), _) => format!("retained until {} at the latest", whole_seconds(*latest)),
        (None, _) => "retained by the storage's lock".to_owned(),
    };
    account.notes.push(format!(
        "{backups} beyond retention {verb} whole and listed: {words}; prune tries again in its next run"
    ));
}

/// Counts how removing went; an error ends it.
async fn remove_all(
    account: &mut Account,
    removals: &[Listed],
    old_runs: &[String],
    named: &NamedStorage,
    right: &Right<'_>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    for line in &mut account.remove {
        line.removed = Some(false);
    }
    for (line, backup) in account.remove.iter_mut().zip(removals) {
        if tally.is_refused() {
            line.error = Some("not tried: the storage refuses deletes".to_owned());
            line.is_refused = true;
            tally.deny();
            continue;
        }
        right.prove().await?;
        match remove(named.storage.as_ref(), backup, right).await? {
            Outcome::Removed(freed) => {
                line.removed = Some(true);
                tally.removed += 1;
                match freed {
                    Freed::All => {}
                    Freed::None => line.hidden = true,
                    Freed::Later(until) => (line.hidden, line.retained_until) = (true, until),
                }
            }
            Outcome::Left(why) => line.error = Some(why),
            Outcome::Retained(until) => {
                (line.retained, line.retained_until) = (true, until);
                line.is_refused = true;
            }
            Outcome::Denied(why) => {
                line.error = Some(why);
                line.is_refused = true;
                tally.deny();
            }
            Outcome::Failed(why) => {
                line.error = Some(why);
                tally.failed += 1;
            }
        }
    }
    for key in old_runs {
        if tally.is_refused() {
            tally.deny();
            continue;
        }
        right.prove().await?;
        match right.remove(named.storage.as_ref(), key).await {
            Ok(_) => {}
            // A record has a few hundred bytes: it goes when its lock ends.
            Err(pgkeep_storage::Error::Retained { .. }) => {}
            Err(error) => {
                tracing::warn!(storage = %named.name, key, %error, "an old run's record could not be removed");
                tally.denied += usize::from(is_denied(&error));
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

fn is_denied(error: &pgkeep_storage::Error) -> bool {
    matches!(error, pgkeep_storage::Error::Denied { .. })
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
    let manifest = match right.remove(storage, &key).await {
        Ok(removed) => removed,
        Err(pgkeep_storage::Error::Retained { until, .. }) => {
            return Ok(Outcome::Retained(until));
        }
        Err(error) => {
            let why = format!("cannot remove its manifest: {error}");
            return Ok(if is_denied(&error) {
                Outcome::Denied(why)
            } else {
                Outcome::Failed(why)
            });
        }
    };
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
    Ok(remove_objects(storage, backup, manifest, right).await)
}

fn unreadable(error: &dyn std::error::Error) -> Outcome {
    Outcome::Left(format!("its manifest cannot be read, so it stays: {error}"))
}

/// Removes what the manifest, which is removed already, spoke for.
async fn remove_objects(
    storage: &dyn Storage,
    backup: &Listed,
    manifest: Removed,
    right: &Right<'_>,
) -> Outcome {
    let objects = backup
        .objects()
        .filter(|(part, ..)| *part != Part::Manifest);
    let mut is_hidden = manifest == Removed::Hidden;
    let mut retained: Option<Option<Timestamp>> = None;
    let mut failures = Vec::new();
    for (_, key, _) in objects {
        match right.remove(storage, &key).await {
            Ok(removed) => is_hidden |= removed == Removed::Hidden,
            Err(pgkeep_storage::Error::Retained { until, .. }) => {
                retained = Some(retained.flatten().max(until));
            }
            Err(error) => failures.push(format!("`{key}`: {error}")),
        }
    }
    if !failures.is_empty() {
        return Outcome::Failed(format!(
            "its manifest is removed, and these objects are left behind: {}; `pgkeep sync` removes them after a day",
            failures.join(", ")
        ));
    }
    Outcome::Removed(match (retained, is_hidden) {
        (Some(until), _) => Freed::Later(until),
        (None, true) => Freed::None,
        (None, false) => Freed::All,
    })
}

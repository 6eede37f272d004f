//! What is to be done in one storage, decided from one LIST and the manifests of what is to stay.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Account, Left, Line, Made, Request, SAFE, Task, empty_policy, refused};
use crate::op::removal::Right;
use crate::op::stored::{NamedStorage, manifest_of_copy, storage_failure};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::keys::{Listed, Part, gather, is_lease, is_ours, run_of_key};
use pgkeep_model::retention::{Candidate, MAX_AHEAD, Plan, Refusal, Verdict, plan};
use pgkeep_model::words::{bytes, count};
use pgkeep_storage::Object;

/// Looks at what one storage has and decides what is to be done there.
pub(super) async fn task(
    request: &Request,
    named: &NamedStorage,
    objects: Vec<Object>,
    made: Option<&Made>,
    right: &Right<'_>,
    now: Timestamp,
) -> Result<Task> {
    let what = right.what;
    let backups: Vec<Listed> = gather(objects.iter().map(|o| (o.key.as_str(), o.size_bytes)))
        .into_iter()
        .rev()
        .filter(|backup| backup.is_committed() && !backup.place.is_partial)
        .collect();
    if let Some(made) = made {
        check_made(what, made, &objects, &backups, now)?;
    }
    let mut candidates: Vec<Candidate> = backups.iter().map(|one| candidate(one, made)).collect();
    let decide = |candidates: &[Candidate]| {
        plan(&request.policy, candidates, now).map_err(|Refusal::EmptyPolicy| empty_policy(what))
    };
    let mut decided = decide(&candidates)?;
    let is_append_only = named.storage.is_append_only();
    if !request.dry_run && !is_append_only {
        let mut proven = BTreeSet::new();
        while prove_kept(
            named,
            right,
            &backups,
            &decided,
            &mut proven,
            &mut candidates,
        )
        .await?
        {
            decided = decide(&candidates)?;
        }
    }
    let mut task = sort(request, named, &objects, backups, &decided, now);
    if is_append_only {
        task.keep_all();
    } else if decided.removes_too_much() && !request.allow_mass_delete {
        // What the storage would not let go lately is no slip in the policy of today.
        let known = refused::lately(named, &objects, right).await?;
        let ids = task.account.remove.iter();
        let is_known = ids.filter(|line| known.contains(&line.id)).count();
        if decided.removes_too_much_besides(is_known) {
            task.account.fail(mass_delete(what, &decided));
        }
    }
    Ok(task)
}

pub(super) fn listing_failed(what: &str, error: &pgkeep_storage::Error) -> Failure {
    let cause = storage_failure(&format!("{what} refused: cannot list it"), error);
    Failure {
        kind: Kind::Refused,
        id: "listing_failed",
        ..cause
    }
    .and_safe(&format!("{SAFE} there"))
}

/// A listing that lacks what this run has just put there is no listing to remove by; and where the storage's clock and
/// ours differ, nobody knows which backup is how old.
fn check_made(
    what: &str,
    made: &Made,
    objects: &[Object],
    backups: &[Listed],
    now: Timestamp,
) -> Result<()> {
    let refused = |id, why: String| {
        let message = format!("{what} refused: {why}; {SAFE} there");
        Err(Failure::new(Kind::Refused, id, message))
    };
    let Some(ours) = backups.iter().find(|backup| backup.place.id == made.id) else {
        let why = "its listing lacks the backup that was just made".to_owned();
        return refused("listing_failed", why);
    };
    let manifest = ours.place.key(Part::Manifest, "");
    let written = objects.iter().find(|object| object.key == manifest);
    let apart = written.map_or(SignedDuration::ZERO, |object| {
        now.duration_since(object.modified_at)
    });
    // Retention allows as much.
    if apart.abs() > MAX_AHEAD {
        let why = format!(
            "its clock and this machine's are {} s apart",
            apart.abs().as_secs()
        );
        return refused("clock_wrong", why);
    }
    Ok(())
}

/// Reads the manifests of what the plan keeps by a rule, because others go for its sake. One that cannot be read, or
/// that the listing contradicts, is kept and counts for nothing; then the plan is to be made anew.
///
/// What is pinned, held, in the future or damaged counts for nothing anyway.
async fn prove_kept(
    named: &NamedStorage,
    right: &Right<'_>,
    backups: &[Listed],
    plan: &Plan,
    proven: &mut BTreeSet<usize>,
    candidates: &mut [Candidate],
) -> Result<bool> {
    if plan.removed() == 0 {
        return Ok(false);
    }
    let mut is_changed = false;
    for (at, backup) in backups.iter().enumerate() {
        let verdict = &plan.verdicts[at];
        let counts = verdict.keep && backup.is_good() && candidates[at].unreadable.is_none();
        if !counts || backup.is_pinned() || backup.is_held() || !proven.insert(at) {
            continue;
        }
        let reading = manifest_of_copy(named.storage.as_ref(), &backup.place);
        let problem = match right.ask(reading).await? {
            Ok((_, Ok(manifest))) => backup.contradiction(&manifest),
            Ok((_, Err(error))) => Some(format!("its manifest: {error}")),
            Err(
                error @ (pgkeep_storage::Error::TooLarge { .. }
                | pgkeep_storage::Error::NotFound(_)),
            ) => Some(format!("its manifest: {error}")),
            Err(error) => {
                let key = backup.place.key(Part::Manifest, "");
                let what = format!("{} refused: cannot read `{key}`", right.what);
                let failure = storage_failure(&what, &error);
                return Err(failure.and_safe(&format!("{SAFE} there")));
            }
        };
        if problem.is_some() {
            candidates[at].unreadable = problem;
            is_changed = true;
        }
    }
    Ok(is_changed)
}

fn candidate(backup: &Listed, made: Option<&Made>) -> Candidate {
    Candidate {
        is_made_by_this_run: made.is_some_and(|made| made.id == backup.place.id),
        ..Candidate::stored(backup.place.id.started_at(), backup.marks())
    }
}

fn sort(
    request: &Request,
    named: &NamedStorage,
    objects: &[Object],
    backups: Vec<Listed>,
    plan: &Plan,
    now: Timestamp,
) -> Task {
    let mut account = Account::new(named);
    account.is_empty = objects.iter().all(|object| is_lease(&object.key));
    let mut removals = Vec::new();
    for (backup, verdict) in backups.into_iter().zip(&plan.verdicts) {
        let line = line(&backup, verdict);
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
    let age = SignedDuration::try_from(request.keep_runs).unwrap_or(SignedDuration::MAX);
    let is_old =
        |key: &str| run_of_key(key).is_some_and(|run| now.duration_since(run.started_at()) > age);
    let old_runs: Vec<String> = objects
        .iter()
        .map(|object| object.key.clone())
        .filter(|key| is_old(key))
        .collect();
    account.old_runs = old_runs.len() as u64;
    Task {
        account,
        removals,
        old_runs,
    }
}

impl Task {
    /// Plans to remove nothing from a storage that is only written to, and says what its lifecycle is to free.
    fn keep_all(&mut self) {
        self.removals.clear();
        self.old_runs.clear();
        self.account.old_runs = 0;
        self.account.append_only = true;
        let lines = &self.account.remove;
        let size: u64 = lines.iter().map(|line| line.size_bytes).sum();
        let note = match lines.len() {
            0 => return,
            amount => format!(
                "`append_only`: pgkeep removes nothing here; {} ({}) beyond retention {} left to the bucket's lifecycle",
                count(amount as u64, "backup"),
                bytes(size),
                if amount == 1 { "is" } else { "are" }
            ),
        };
        self.account.notes.push(note);
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
        hidden: false,
        retained: false,
        retained_until: None,
        error: None,
        is_refused: false,
    }
}

fn mass_delete(what: &str, plan: &Plan) -> Failure {
    let message = format!(
        "{what} refused: it would remove {} of {} backups, more than half; {SAFE} there",
        plan.removed(),
        plan.verdicts.len()
    );
    Failure::new(Kind::Refused, "mass_delete", message)
        .hint("`pgkeep prune --dry-run` shows the plan; `--allow-mass-delete` carries it out")
}

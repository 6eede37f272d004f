//! Sweeps what dead runs left behind: objects that no manifest speaks for, and unfinished uploads.
//!
//! It touches nothing younger than a day and nothing while another run holds the database, so what a live run has
//! stored and not yet committed is safe twice over.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Request, SAFE};
use crate::context::Context;
use crate::op::lock::Hold;
use crate::op::removal::Right;
use crate::op::stored::{NamedStorage, storage_failure};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::keys::{Listed, Part, Place, gather};
use pgkeep_model::words::count;
use pgkeep_storage::Object;

/// Anything younger may belong to a run that is still alive somewhere: no dump takes a day without its lease renewed.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_hours(24);

/// What one storage had.
#[derive(Debug, Default, Serialize)]
pub struct Swept {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Backups without a manifest that are older than a day.
    pub orphans: Vec<Orphan>,
    /// The same, younger than a day: runs under way or cut off lately. They stay.
    pub young: Vec<String>,
    /// Unfinished uploads and staging files that were removed; a dry run does not look for them.
    pub unfinished: u64,
    /// What else was odd.
    pub warnings: Vec<String>,
    /// Why the storage was not swept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip)]
    pub(super) failure: Option<Failure>,
}

/// Objects that no manifest speaks for.
#[derive(Debug, Serialize)]
pub struct Orphan {
    /// The id of the backup that they would have become.
    pub id: String,
    /// Size of all of them.
    pub size_bytes: u64,
    /// Their keys.
    pub keys: Vec<String>,
    /// Whether all are removed.
    pub removed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is swept, and what is not.
pub(super) struct Sweep<'a> {
    pub request: &'a Request,
    /// What is left alone: a copy of a backup that another storage has, and that will be one again.
    pub spared: &'a BTreeSet<Place>,
    /// Why it is not known what other storages have; no orphan is removed then.
    pub unseen: Option<&'a str>,
}

impl Sweep<'_> {
    /// Sweeps every storage at once; without a hold it only tells.
    pub(super) async fn all(&self, hold: Option<&Hold>, context: &Context) -> Vec<Swept> {
        let one = |(at, named): (usize, &NamedStorage)| {
            let named = named.clone();
            async move {
                let what = format!("sync of `{}` in `{}`", self.request.database, named.name);
                let right = Right {
                    hold,
                    at,
                    context,
                    what: &what,
                };
                let mut swept = Swept {
                    name: named.name.clone(),
                    url: named.storage.label().to_owned(),
                    ..Swept::default()
                };
                if let Err(failure) = sweep(&mut swept, self, &named, &right).await {
                    swept.error = Some(failure.message.clone());
                    swept.failure = Some(failure);
                }
                swept
            }
        };
        join_all(self.request.storages.iter().enumerate().map(one)).await
    }
}

async fn sweep(
    swept: &mut Swept,
    about: &Sweep<'_>,
    named: &NamedStorage,
    right: &Right<'_>,
) -> Result<()> {
    let Sweep {
        request,
        spared,
        unseen,
    } = about;
    let prefix = format!("{}/", request.database);
    let before = right.context.clock.now() - ORPHAN_AGE;
    let objects = right
        .ask(named.storage.list(&prefix))
        .await?
        .map_err(|error| {
            storage_failure(&format!("{} failed: cannot list it", right.what), &error)
                .and_safe(&format!("{SAFE} there"))
        })?;
    let (old, young) = orphans(&objects, spared, before);
    swept.young = young;
    swept.orphans = old.iter().map(Orphan::new).collect();
    let Some(hold) = right.hold else {
        return Ok(());
    };
    if !old.is_empty() && !hold.is_leased(right.at) {
        return Err(no_lease(right));
    }
    let mut failed = 0;
    for (orphan, listed) in swept.orphans.iter_mut().zip(&old) {
        if let Some(why) = unseen {
            orphan.error = Some((*why).to_owned());
            continue;
        }
        right.prove().await?;
        let left = remove(named, listed, right).await?;
        orphan.removed = left.is_none();
        // What a lock keeps is no failure: it goes when it may.
        failed += usize::from(left.as_ref().is_some_and(|left| !left.is_retained));
        orphan.error = left.map(|left| left.why);
    }
    right.prove().await?;
    let unfinished = match right.ask(named.storage.sweep(&prefix, before)).await? {
        Ok(done) => {
            swept.unfinished = done.removed;
            failed += done.warnings.len();
            swept.warnings = done.warnings;
            None
        }
        Err(error) => Some(format!("; unfinished uploads were not looked for: {error}")),
    };
    if failed == 0 && unfinished.is_none() {
        return Ok(());
    }
    let message = format!(
        "{}: {} could not be removed{}",
        right.what,
        count(failed as u64, "leftover"),
        unfinished.unwrap_or_default()
    );
    Err(Failure::new(Kind::AfterGood, "sync_incomplete", message))
}

/// Without a lease nobody knows whether another host is about to commit what looks like an orphan.
fn no_lease(right: &Right<'_>) -> Failure {
    let message = format!(
        "{} refused: it holds no lease, so a run of another host cannot be seen; {SAFE} there",
        right.what
    );
    Failure::new(Kind::Refused, "no_lease", message)
        .hint("the warnings say why; `--dry-run` shows the orphans, which can be removed by hand")
}

/// Splits what no manifest speaks for into the old and the ids of the young.
fn orphans(
    objects: &[Object],
    spared: &BTreeSet<Place>,
    before: Timestamp,
) -> (Vec<Listed>, Vec<String>) {
    let listed = gather(objects.iter().map(|o| (o.key.as_str(), o.size_bytes)));
    let is_old = |orphan: &Listed| {
        let is_written_long_ago = objects
            .iter()
            .filter(|object| orphan.size_of(&object.key).is_some())
            .all(|object| object.modified_at < before);
        orphan.place.id.started_at() < before && is_written_long_ago
    };
    let (old, young): (Vec<Listed>, Vec<Listed>) = listed
        .into_iter()
        .filter(|backup| !backup.is_committed() && !spared.contains(&backup.place))
        .partition(is_old);
    let young = young.iter().map(|orphan| orphan.place.id.to_string());
    (old, young.collect())
}

/// Why something of an orphan is still there.
struct Left {
    why: String,
    /// Whether the storage keeps it on purpose, for a while.
    is_retained: bool,
}

impl Left {
    fn failed(why: String) -> Self {
        Self {
            why,
            is_retained: false,
        }
    }
}

/// Removes the objects of an orphan, unless a manifest has come about. Returns why it did not.
async fn remove(named: &NamedStorage, orphan: &Listed, right: &Right<'_>) -> Result<Option<Left>> {
    let manifest = orphan.place.key(Part::Manifest, "");
    match right.ask(named.storage.head(&manifest)).await? {
        Err(pgkeep_storage::Error::NotFound(_)) => {}
        Ok(_) => return Ok(Some(Left::failed("it has a manifest by now".to_owned()))),
        Err(error) => {
            let why = format!("cannot look for its manifest: {error}");
            return Ok(Some(Left::failed(why)));
        }
    }
    let (mut failures, mut is_retained) = (Vec::new(), true);
    for (_, key, _) in orphan.objects() {
        if let Err(error) = right.remove(named.storage.as_ref(), &key).await {
            is_retained &= matches!(error, pgkeep_storage::Error::Retained { .. });
            failures.push(format!("`{key}`: {error}"));
        }
    }
    Ok((!failures.is_empty()).then(|| Left {
        why: failures.join("; "),
        is_retained,
    }))
}

impl Orphan {
    fn new(listed: &Listed) -> Self {
        Self {
            id: listed.place.id.to_string(),
            size_bytes: listed.size_bytes(),
            keys: listed.objects().map(|(_, key, _)| key).collect(),
            removed: false,
            error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_objects_without_a_manifest_are_orphans() {
        let now: Timestamp = "2026-03-10T12:00:00Z".parse().unwrap();
        let object = |key: &str, hours_ago: i64| Object {
            key: key.to_owned(),
            size_bytes: 5,
            modified_at: now - SignedDuration::from_hours(hours_ago),
        };
        let objects = [
            // Committed.
            object("shop/shop-20260301T000000Z-0001.sql.gz", 200),
            object("shop/shop-20260301T000000Z-0001.manifest.json", 200),
            // Its manifest is gone.
            object("shop/shop-20260302T000000Z-0001.sql.gz", 200),
            object("shop/shop-20260302T000000Z-0001.pin.json", 200),
            // Written a moment ago, whatever its id says.
            object("shop/shop-20260303T000000Z-0001.sql.gz", 1),
            // Stamped a moment ago, whatever the storage's clock says.
            object("shop/shop-20260310T110000Z-0001.sql.gz", 200),
            object("shop/partial/shop-20260304T000000Z-0001.sql.gz", 100),
            object("shop/notes.txt", 900),
            object("shop/lease.json", 900),
            object("shop/runs/shop-20260301T000000Z-0001.json", 900),
        ];
        let spared = BTreeSet::new();
        let (old, young) = orphans(&objects, &spared, now - ORPHAN_AGE);
        let old: Vec<String> = old
            .iter()
            .map(|orphan| orphan.place.id.to_string())
            .collect();
        assert_eq!(
            old,
            ["shop-20260302T000000Z-0001", "shop-20260304T000000Z-0001"]
        );
        assert_eq!(
            young,
            ["shop-20260303T000000Z-0001", "shop-20260310T110000Z-0001"]
        );
        // A copy that lost its manifest is no leftover where another storage has the backup.
        let spared = [Place {
            id: "shop-20260302T000000Z-0001".parse().unwrap(),
            is_partial: false,
        }];
        let (old, _) = orphans(&objects, &spared.into(), now - ORPHAN_AGE);
        assert_eq!(old.len(), 1);
    }
}

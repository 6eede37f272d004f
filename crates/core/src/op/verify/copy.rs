//! One copy of a backup: looked at, looked at again where something is wrong, and marked when both agree.

use bytes::Bytes;

use super::look::{BACKUP_GONE, Look, Seen};
use super::report::CopyReport;
use crate::context::Context;
use crate::op::event::Observer;
use crate::op::stored::{BACKUP_REMOVED, Listing, StoredBackup, unless_removed};
use pgkeep_model::damage::DamageMark;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::keys::Part;

/// Verifies the copy in the storage at position `at`.
pub(super) async fn verify(
    listing: &Listing,
    backup: &StoredBackup,
    at: usize,
    context: &Context,
    observer: &dyn Observer,
) -> CopyReport {
    let (named, started) = (&listing.storages[at], context.clock.monotonic());
    let marked = backup.copies[&at].has_part(Part::Damaged);
    let mut report = CopyReport {
        id: backup.place.id.to_string(),
        database: backup.place.id.database().to_string(),
        storage: named.name.clone(),
        url: named.storage.label().to_owned(),
        ok: false,
        damaged: false,
        marked,
        removed: false,
        opened: false,
        locked: None,
        bytes: 0,
        tables: 0,
        rows: 0,
        took_ms: 0,
        problems: Vec::new(),
        warnings: Vec::new(),
        failure: None,
    };
    let look = Look {
        named,
        backup,
        context,
        observer,
    };
    match read(&look, &mut report).await {
        Ok(Some(seen)) if !seen.is_wrong_in_bytes() => {
            report.problems = seen.problems.clone();
            report.failure = Some(disagreeing(&look));
        }
        Ok(Some(seen)) => match look.listed_as(&seen).await {
            Ok(true) => {
                report.damaged = true;
                report.problems = seen.problems.clone();
                if !report.marked {
                    mark(&look, &seen, &mut report).await;
                }
            }
            Ok(false) => {
                report.warnings.push(not_as_listed(&seen));
                report.failure = Some(unsteady(&look));
            }
            Err(failure) => report.failure = Some(failure),
        },
        Ok(None) => {
            report.ok = report.problems.is_empty();
            if marked && report.ok {
                lift_mark(&look, &mut report).await;
            }
        }
        Err(failure) => report.failure = Some(failure),
    }
    if let Some(failure) = report.failure.take() {
        report.removed = failure.id == BACKUP_GONE;
        let failure = unless_removed(listing, backup, &look.what(), failure).await;
        report.removed |= failure.id == BACKUP_REMOVED;
        report.failure = Some(failure);
    }
    report.took_ms = context.clock.millis_since(started);
    report
}

/// Tells that the storage lists something else than it gave: whatever gave it, it is not what is stored.
fn not_as_listed(seen: &Seen) -> String {
    let read = match seen.stored_bytes {
        Some(bytes) => format!("{bytes} bytes were read"),
        None => "it was not found".to_owned(),
    };
    format!(
        "`{}`: {read}, but the storage's listing says otherwise: something in between answered, such as a proxy or \
         a network's login page",
        seen.key
    )
}

/// Reads once, and once more when something is wrong; returns what is wrong when both readings saw the same.
async fn read(look: &Look<'_>, report: &mut CopyReport) -> Result<Option<Seen>, Failure> {
    let first = look.once(false).await?;
    let last = if first.problems.is_empty() {
        first
    } else {
        let second = look.once(true).await?;
        let is_same = first.is_same_bytes(&second);
        if !second.problems.is_empty() && is_same {
            note(&second, report);
            return Ok(Some(second));
        }
        if !second.problems.is_empty() {
            return Err(unsteady(look));
        }
        report.warnings.push(format!(
            "the first reading found a problem ({}), the second did not: nothing was marked, but something between \
             here and the storage changes bytes",
            first.problems[0].message
        ));
        second
    };
    note(&last, report);
    if last.minor.is_empty() {
        return Ok(None);
    }
    // The dump is whole, so the backup stays one; what lies beside it is not.
    let why = last.minor.join("; ");
    let message = format!("{}: {why}; the dump itself is whole", look.what());
    Err(Failure::new(Kind::Damaged, "globals_damaged", message).of_copy())
}

fn note(seen: &Seen, report: &mut CopyReport) {
    report.bytes = seen.stored_bytes.unwrap_or(0);
    report.locked.clone_from(&seen.locked);
    report.opened = seen.opened;
    report.tables = seen.tables;
    report.rows = seen.rows;
    report.warnings.extend(seen.warnings.iter().cloned());
}

fn unsteady(look: &Look<'_>) -> Failure {
    let message = format!(
        "{}: two readings gave different bytes, or not those that the storage lists, so it is not known what is \
         stored; nothing was marked",
        look.what()
    );
    Failure::new(Kind::Storage, "readings_differ", message)
        .of_copy()
        .hint(
            "look at the disk, the memory and the network of this machine, and verify from another",
        )
}

/// The bytes are those that were stored, so it is the manifest that is wrong, or the two versions of pgkeep that read
/// the dump then and now. No reading would ever lift a mark for that, so none is made.
fn disagreeing(look: &Look<'_>) -> Failure {
    let message = format!(
        "{}: its bytes are unchanged since the backup, but the manifest describes other content; nothing was marked",
        look.what()
    );
    Failure::new(Kind::Damaged, "manifest_disagrees", message)
        .hint("was the manifest changed, or written by another version of pgkeep? `pgkeep inspect` shows what the \
            dump holds")
}

/// Takes the mark away: every byte is the one that was stored, whatever was read when the mark was made.
async fn lift_mark(look: &Look<'_>, report: &mut CopyReport) {
    let key = look.backup.place.key(Part::Damaged, "");
    let warning = match look.named.storage.remove(&key).await {
        Ok(_) => {
            report.marked = false;
            "it was marked as damaged and is good: the mark was removed, and the copy counts again"
                .to_owned()
        }
        Err(error) => format!(
            "it is marked as damaged and is good, but the mark `{key}` could not be removed: {error}"
        ),
    };
    report.warnings.push(warning);
}

/// Marks the copy, so that it counts for nothing and is never chosen as the latest.
async fn mark(look: &Look<'_>, seen: &Seen, report: &mut CopyReport) {
    let place = &look.backup.place;
    let mark = DamageMark {
        format: 1,
        id: &place.id,
        found_at: look.context.clock.now(),
        storage: &look.named.name,
        url: look.named.storage.label(),
        key: &seen.key,
        stored_bytes: seen.stored_bytes,
        sha256: seen.sha256.as_deref(),
        problems: &seen.problems,
    };
    let key = place.key(Part::Damaged, "");
    match look
        .named
        .storage
        .put(&key, Bytes::from(mark.to_json()))
        .await
    {
        Ok(()) | Err(pgkeep_storage::Error::Exists(_)) => report.marked = true,
        Err(error) => report.warnings.push(format!(
            "the damaged copy could not be marked, so it still counts: {error}"
        )),
    }
}

//! `keys prove`: shows that a private key opens what is stored, from the first 64 KiB of a backup, and leaves a record.

use std::io::Read;

use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use serde::Serialize;

use super::proof::Opened;
use super::sets;
use crate::context::Context;
use crate::copies::listing::{NamedStorage, Wanted, storage_failure};
use crate::copies::{Front, Stored};
use crate::op::history::{keep_record, record, run_id};
use pgkeep_model::encryption::EncryptionRecord;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::format::Format;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::key_sets::KeySet;

/// How much of a backup is read at most.
const READ_BYTES: u64 = 128 * 1024;

/// Which backup is opened.
pub struct Request {
    /// Where it is, and what opens it.
    pub storages: Vec<NamedStorage>,
    /// Which one.
    pub wanted: Wanted,
    /// Whether another host has opened it, and this one only records that.
    pub is_told: bool,
}

/// What was opened.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The database.
    pub database: String,
    /// The backup.
    pub backup_id: String,
    /// Whom it is encrypted for.
    pub recipients: Vec<String>,
    /// Those of them whose private key is at hand, as far as that is known.
    pub opened_by: Vec<String>,
    /// The storage whose copy was opened; none where that was told.
    pub storage: Option<String>,
    /// Storages that have the record.
    pub recorded_in: Vec<String>,
    /// Storages that have it not, and why.
    pub not_recorded: Vec<String>,
    /// Backups of this database that need another key, by their recipients.
    pub others: Vec<KeySet>,
    /// Copies that were tried before and found bad.
    pub warnings: Vec<String>,
    /// Why it is not wholly good.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// Opens the first bytes of a backup with the keys at hand.
pub async fn run(request: Request, context: &Context) -> Result<Report> {
    let started_at = context.clock.now();
    let stored = Stored::open(&request.storages, None, &request.wanted, started_at).await?;
    let id = stored.manifest.id.clone();
    let what = format!("cannot prove a key with `{id}`");
    let Some(encryption) = &stored.manifest.encryption else {
        let message = format!("{what}: it is not encrypted, so it needs no key");
        return Err(Failure::new(Kind::NotFound, "not_encrypted", message)
            .hint("`encryption.recipients` in the configuration encrypts the next backups"));
    };
    let mut warnings = stored.warnings();
    let storage = if request.is_told {
        None
    } else {
        stored.unlock(&what, &context.stop).await?;
        let open_at = async |at| {
            open(&stored, at, encryption, &what)
                .await
                .map(|()| stored.storage_name(at).to_owned())
        };
        let opened = stored.try_copies(&what, &mut warnings, open_at).await;
        match opened {
            Ok(storage) => Some(storage),
            Err(failure) => return Err(stored.unless_removed(&what, failure).await),
        }
    };
    let proof = Opened {
        listing: &stored.listing,
        backup: &id,
        recipients: &encryption.recipients,
        verb: if request.is_told {
            "told"
        } else {
            "keys prove"
        },
    };
    let left = proof.leave(context).await;
    let mine = stored
        .listing
        .storages
        .iter()
        .flat_map(|named| named.identities.recipients());
    let mut opened_by: Vec<String> = mine
        .filter(|recipient| encryption.recipients.contains(recipient) && storage.is_some())
        .cloned()
        .collect();
    opened_by.sort();
    opened_by.dedup();
    let fingerprint = encryption.fingerprint();
    let mut others = sets(&stored.listing, id.database()).await.sets;
    others.retain(|set| set.fingerprint != fingerprint);
    let (recorded, failed): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|one| one.error.is_none());
    let not_recorded: Vec<String> = failed
        .into_iter()
        .map(|left| format!("{}: {}", left.storage, left.error.unwrap_or_default()))
        .collect();
    let report = Report {
        database: id.database().to_string(),
        backup_id: id.to_string(),
        recipients: encryption.recipients.clone(),
        opened_by,
        storage,
        recorded_in: recorded.into_iter().map(|left| left.storage).collect(),
        failure: not_left(&id.to_string(), request.is_told, &not_recorded),
        not_recorded,
        others,
        warnings,
    };
    note(&request.storages, &report, started_at, context).await;
    Ok(report)
}

/// Who may only read a storage proves a key all the same; the host that may write has to be told.
fn not_left(id: &str, is_told: bool, not_recorded: &[String]) -> Option<Failure> {
    if not_recorded.is_empty() {
        return None;
    }
    let message = if is_told {
        format!("that a key opened `{id}` could not be recorded in every storage")
    } else {
        format!("the key opens `{id}`, but this could not be recorded in every storage")
    };
    let failure = Failure::new(Kind::AfterGood, "proof_not_recorded", message)
        .with_details(not_recorded.iter().cloned());
    let database = id.rsplitn(3, '-').nth(2).unwrap_or(id);
    let allow = format!("allow writing below `{database}/keys/`");
    Some(if is_told {
        failure.hint(allow)
    } else {
        failure.hint(format!(
            "`pgkeep keys prove {id} --told`, on a host that may write there, records it; or {allow}"
        ))
    })
}

async fn note(
    storages: &[NamedStorage],
    report: &Report,
    started_at: Timestamp,
    context: &Context,
) {
    let Ok(database) = report.database.parse::<DatabaseName>() else {
        return;
    };
    let run = run_id(&database, started_at, context);
    let mut record = record(
        run,
        "keys prove",
        started_at,
        report.failure.as_ref(),
        context,
    );
    record.backup_id = Some(report.backup_id.clone());
    record.reason = Some(match &report.storage {
        Some(_) => format!("opened by {}", report.opened_by.join(", ")),
        None => "opened on another host".to_owned(),
    });
    keep_record(storages, record, context).await;
}

/// Opens header and first chunk of one copy, and looks whether what comes out is what was dumped.
async fn open(stored: &Stored, at: usize, encryption: &EncryptionRecord, what: &str) -> Result<()> {
    let named = &stored.listing.storages[at];
    let object = &stored.manifest.object;
    let key = stored.key(pgkeep_model::keys::Part::Dump, &object.key, what)?;
    let front = Front {
        named,
        key: &key,
        encryption,
        object_bytes: object.size_bytes,
        what,
    };
    // A wrong key is told before anything more is read.
    front.open().await?;
    let part = encryption.places().part(0..1, object.size_bytes);
    let end = part.range.end.min(READ_BYTES + encryption.header_bytes);
    let failed = |error| storage_failure(what, &error).of_copy();
    let stream = named
        .storage
        .stream(&key, Some(0..end))
        .await
        .map_err(failed)?;
    let pieces: Vec<Bytes> = stream.try_collect().await.map_err(failed)?;
    let bytes = pieces.concat();
    let damaged = |why: String| {
        let message = format!("{what}: the copy in `{}` is damaged: {why}", named.name);
        Failure::new(Kind::Damaged, "object_damaged", message)
            .of_copy()
            .hint("`pgkeep verify` reports what is damaged")
    };
    let found = named.identities.open(&bytes[..]);
    let mut opened = found.map_err(|error| damaged(error.to_string()))?;
    let mut head = [0; 512];
    let count = opened
        .read(&mut head)
        .map_err(|error| damaged(format!("its first chunk: {error}")))?;
    match Format::detect(&head[..count]) {
        Format::Foreign(foreign) => Err(damaged(foreign.description().to_owned())),
        Format::Plain | Format::Gzip | Format::Zstd => Ok(()),
    }
}

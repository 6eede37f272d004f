//! The record that a private key opened a backup, which `status` and `check` ask for.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::json;

use super::sets::proven;
use crate::context::Context;
use crate::copies::Stored;
use crate::copies::listing::{Listing, NamedStorage};
use crate::op::history::run_id;
use pgkeep_model::encryption::Fingerprint;
use pgkeep_model::id::BackupId;
use pgkeep_model::keys::key_proof_key;

/// How long writing a record may take.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// A proof that is younger needs no other.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

/// A backup that a private key opened.
pub(crate) struct Opened<'a> {
    pub listing: &'a Listing,
    pub backup: &'a BackupId,
    /// Whom it is encrypted for.
    pub recipients: &'a [String],
    /// What was done.
    pub verb: &'static str,
}

/// What became of the record in one storage.
pub(crate) struct Left {
    pub storage: String,
    /// Why it was not written.
    pub error: Option<String>,
}

/// Leaves a record that a key opened a stored backup, where it is encrypted and the last record is older than a day.
pub(crate) async fn leave(stored: &Stored, verb: &'static str, context: &Context) {
    if let Some(encryption) = &stored.manifest.encryption {
        let opened = Opened {
            listing: &stored.listing,
            backup: &stored.manifest.id,
            recipients: &encryption.recipients,
            verb,
        };
        opened.leave_if_due(context).await;
    }
}

impl Opened<'_> {
    /// Leaves a record where the last one is older than a day. That it cannot be written is of no weight here.
    pub(crate) async fn leave_if_due(&self, context: &Context) {
        let recipients = Fingerprint::of(self.recipients);
        let last = proven(self.listing, self.backup.database(), &recipients);
        let is_fresh =
            last.is_some_and(|run| context.clock.now().duration_since(run.started_at()) < FRESH);
        if !is_fresh {
            for left in self.leave(context).await {
                if let Some(why) = left.error {
                    tracing::info!(storage = %left.storage, why, "that a key opened a backup was not recorded");
                }
            }
        }
    }

    /// Leaves a record in every storage, and removes those that it replaces.
    pub(crate) async fn leave(&self, context: &Context) -> Vec<Left> {
        let recipients = Fingerprint::of(self.recipients);
        let now = context.clock.now();
        let run = run_id(self.backup.database(), now, context);
        let key = key_proof_key(&recipients, &run);
        let record = json!({
            "format": 1,
            "opened_at": now,
            "backup_id": self.backup.to_string(),
            "recipients": self.recipients,
            "verb": self.verb,
            "pgkeep": env!("CARGO_PKG_VERSION"),
        });
        let bytes = Bytes::from(format!("{record:#}\n"));
        let of = (self.backup.database().clone(), recipients);
        let replaced: Vec<String> = self
            .listing
            .proofs
            .get(&of)
            .into_iter()
            .flatten()
            .map(|run| key_proof_key(&recipients, run))
            .collect();
        let put = |named: &NamedStorage| {
            let (named, key, bytes) = (named.clone(), key.clone(), bytes.clone());
            let replaced = &replaced;
            async move {
                let put = tokio::time::timeout(WRITE_LIMIT, named.storage.put(&key, bytes)).await;
                let error = match put {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some("it took too long".to_owned()),
                };
                if error.is_none() {
                    remove(&named, replaced).await;
                }
                Left {
                    storage: named.name.clone(),
                    error,
                }
            }
        };
        join_all(self.listing.storages.iter().map(put)).await
    }
}

/// Removes older records. Where nothing may be removed they stay, which harms nobody.
async fn remove(named: &NamedStorage, keys: &[String]) {
    for key in keys {
        let removed = tokio::time::timeout(WRITE_LIMIT, named.storage.remove(key)).await;
        if !matches!(removed, Ok(Ok(_))) {
            tracing::debug!(storage = %named.name, key, "an older record of a key was left");
            return;
        }
    }
}

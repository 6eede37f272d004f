//! Whether the keys at hand open a backup, known from its first bytes, before anything else is read or touched.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::listing::{NamedStorage, storage_failure};
use super::stored::Stored;
use crate::context::Stop;
use crate::encryption::CannotOpen;
use pgkeep_model::encryption::EncryptionRecord;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::keys::Part;
use pgkeep_model::words::number;

impl Stored {
    /// Makes sure that the keys at hand open the backup. Of one that is not encrypted nothing is read.
    ///
    /// A key in hardware may wait for a finger: a wish to stop ends that.
    pub(crate) async fn unlock(&self, what: &str, stop: &Stop) -> Result<()> {
        if self.manifest.encryption.is_none() {
            return Ok(());
        }
        let mut bad = Vec::new();
        let unlock = async |at| self.front(at, what).await.map(drop);
        tokio::select! {
            unlocked = self.try_copies(what, &mut bad, unlock) => unlocked,
            () = stop.token().cancelled() => Err(stop.failure(what)),
        }
    }

    /// Returns header and nonce of an encrypted copy, which the keys at hand open. They are fetched once.
    pub(super) async fn front(&self, at: usize, what: &str) -> Result<Option<Bytes>> {
        let Some(encryption) = &self.manifest.encryption else {
            return Ok(None);
        };
        if let Some(front) = self.known_front(at) {
            return Ok(Some(front));
        }
        let key = self.key(Part::Dump, &self.manifest.object.key, what)?;
        self.check_length(at, &key, what)?;
        let begin = Front {
            named: &self.listing.storages[at],
            key: &key,
            encryption,
            object_bytes: self.manifest.object.size_bytes,
            what,
        };
        let front = begin.open().await?;
        self.keep_front(at, &front);
        Ok(Some(front))
    }
}

impl Stored {
    /// A copy that is listed with another length than the manifest says is damaged, whatever a part of it would be.
    fn check_length(&self, at: usize, key: &str, what: &str) -> Result<()> {
        let copy = self.backup.copies.get(&at);
        let listed = copy.and_then(|copy| copy.size_of(key));
        let wanted = self.manifest.object.size_bytes;
        match listed {
            Some(size) if size != wanted => {
                let message = format!(
                    "{what}: the copy in `{}` is damaged: it has {} bytes, but the manifest says {}",
                    self.storage_name(at),
                    number(size),
                    number(wanted)
                );
                Err(Failure::new(Kind::Damaged, "object_damaged", message)
                    .of_copy()
                    .hint("`pgkeep verify` reports what is damaged"))
            }
            _ => Ok(()),
        }
    }
}

/// The first bytes of an encrypted copy.
pub(crate) struct Front<'a> {
    pub(crate) named: &'a NamedStorage,
    pub(crate) key: &'a str,
    pub(crate) encryption: &'a EncryptionRecord,
    pub(crate) object_bytes: u64,
    /// What is being done.
    pub(crate) what: &'a str,
}

impl Front<'_> {
    /// Fetches them and opens them with the storage's keys.
    pub(crate) async fn open(&self) -> Result<Bytes> {
        let identities = &self.named.identities;
        if identities.is_empty() {
            let recipients = &self.encryption.recipients;
            return Err(no_identity(self.what, recipients, &identities.missing()));
        }
        let front = self.fetch().await?;
        let (keys, bytes) = (Arc::clone(identities), front.clone());
        // Awaited here; a plugin may block for as long as nobody touches its key.
        let opening = tokio::task::spawn_blocking(move || keys.open(&bytes[..]).map(drop));
        match opening.await {
            Ok(Ok(())) => Ok(front),
            Ok(Err(error)) => Err(self.locked(&error)),
            Err(error) => Err(self.locked(&CannotOpen::Plugin(error.to_string()))),
        }
    }

    async fn fetch(&self) -> Result<Bytes> {
        let length = self.encryption.places().first_chunk();
        if length > self.object_bytes {
            let why = "the manifest names a header that cannot be one";
            let message = format!("{}: {why}", self.what);
            return Err(Failure::new(Kind::Damaged, "manifest_contradicts", message).of_copy());
        }
        let failed = |error| storage_failure(self.what, &error).of_copy();
        let stream = self.named.storage.stream(self.key, Some(0..length));
        let pieces: Vec<Bytes> = stream
            .await
            .map_err(failed)?
            .try_collect()
            .await
            .map_err(failed)?;
        Ok(pieces.concat().into())
    }

    /// Returns the failure of a backup that cannot be opened. One that should open, because the key is one of its
    /// recipients', is damaged.
    fn locked(&self, error: &CannotOpen) -> Failure {
        let (what, recipients) = (self.what, &self.encryption.recipients);
        let damaged = |why: &str| {
            let message = format!(
                "{what}: the copy in `{}` is damaged: {why}",
                self.named.name
            );
            Failure::new(Kind::Damaged, "object_damaged", message)
                .of_copy()
                .hint("`pgkeep verify` reports what is damaged")
        };
        let mut ours = self.named.identities.recipients().iter();
        match error {
            CannotOpen::Damaged(why) => damaged(why),
            CannotOpen::WrongIdentity if ours.any(|recipient| recipients.contains(recipient)) => {
                damaged("the key that it was encrypted for does not open its header")
            }
            CannotOpen::NoIdentity => {
                no_identity(what, recipients, &self.named.identities.missing())
            }
            CannotOpen::WrongIdentity => {
                let message = format!(
                    "{what}: the backup is encrypted, and {error}; {}",
                    opens(recipients)
                );
                with_recipients(
                    Failure::new(Kind::Login, "wrong_identity", message),
                    recipients,
                )
                .hint("`--identity FILE` names the file of a private key; several can be given")
            }
            CannotOpen::Passphrase => {
                damaged("it is encrypted with a passphrase, and not for recipients")
            }
            CannotOpen::Plugin(_) => {
                let message = format!("{what}: the backup is encrypted, and {error}");
                with_recipients(
                    Failure::new(Kind::Login, "wrong_identity", message),
                    recipients,
                )
            }
        }
    }
}

/// Returns the failure of somebody who has no key at all.
fn no_identity(what: &str, recipients: &[String], missing: &[String]) -> Failure {
    let message = format!(
        "{what}: the backup is encrypted, and no identity was given; {}",
        opens(recipients)
    );
    with_recipients(Failure::new(Kind::Login, "no_identity", message), recipients)
        .with_details(missing.iter().cloned())
        .hint("`--identity FILE` names the file of the private key, or `encryption.identity_file` in the configuration")
}

fn opens(recipients: &[String]) -> &'static str {
    match recipients.len() {
        0 => "whose key opens it is not recorded",
        1 => "the private key of this recipient opens it",
        _ => "the private key of any of these recipients opens it",
    }
}

fn with_recipients(failure: Failure, recipients: &[String]) -> Failure {
    failure.with_details(recipients.iter().cloned())
}

//! Proves before a backup that it can be encrypted, and opened again where a key is at hand. There is no backup in plain
//! text where an encrypted one was asked for.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::SAFE;
use super::{Report, Request};
use crate::context::Context;
use crate::context::Stop;
use crate::copies::listing::Listing;
use crate::encryption::{CannotOpen, CannotUse};
use crate::op::keys::sets;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::key_sets::{self, KeySets};
use pgkeep_model::scan::Finding;

/// How long looking for the proofs of keys may take behind a backup.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Warns behind a good backup that nobody knows whether it can ever be opened. A listing that fails or takes too long
/// is no matter of this run.
pub(super) async fn warn_of_keys(request: &Request, report: &mut Report, context: &Context) {
    if request.form.recipients.is_none() || !report.stored || context.stop.is_requested() {
        return;
    }
    let now = context.clock.now();
    let looking = async {
        let listing = Listing::read(request.storages.clone(), Some(&request.name), now).await;
        match listing {
            Ok(listing) => sets(&listing, &request.name).await,
            Err(_) => KeySets::default(),
        }
    };
    let sets = tokio::select! {
        sets = tokio::time::timeout(LOOK_LIMIT, looking) => sets.unwrap_or_default(),
        () = context.stop.token().cancelled() => return,
    };
    let warnings = key_sets::warnings(&sets, now);
    let finding = |text| Finding::new("key_not_proven", text, None);
    report.warnings.extend(warnings.into_iter().map(finding));
}

/// Says of files that should hold a key why they do not.
pub(super) fn missing_keys(request: &Request) -> Vec<Finding> {
    let unusable = request.probe_keys.unusable();
    let finding = |why: &String| Finding::new("identity_unusable", why.clone(), None);
    unusable
        .iter()
        .filter(|_| request.form.recipients.is_some())
        .map(finding)
        .collect()
}

/// Encrypts a probe, and opens it with the keys at hand.
pub(crate) async fn prove(request: &Request, stop: &Stop) -> Result<()> {
    let what = format!("backup of `{}` failed", request.name);
    if let Some(failure) = &request.refused {
        let message = format!("{what}: {}", failure.message);
        return Err(Failure {
            message,
            ..failure.clone()
        }
        .and_safe(SAFE));
    }
    let Some(recipients) = &request.form.recipients else {
        return Ok(());
    };
    let (recipients, keys) = (Arc::clone(recipients), Arc::clone(&request.probe_keys));
    let texts = recipients.texts().to_vec();
    // Awaited here; a plugin may block for as long as nobody touches its key.
    let proving = tokio::task::spawn_blocking(move || recipients.prove(&keys));
    let proven = tokio::select! {
        proven = proving => proven,
        () = stop.token().cancelled() => return Err(stop.failure(&what).and_safe(SAFE)),
    };
    let outcome = proven.unwrap_or_else(|error| Err(CannotUse::Sealing(error.to_string())));
    let failure = match outcome {
        Ok(()) => return Ok(()),
        Err(CannotUse::Sealing(why)) => {
            let message = format!("{what}: nothing can be encrypted to its recipients: {why}");
            Failure::new(Kind::Usage, "cannot_encrypt", message)
                .hint("`encryption.recipients` says whom it is encrypted for")
        }
        Err(CannotUse::Opening(CannotOpen::Plugin(why))) => {
            let message = format!("{what}: the key at hand could not open a probe: {why}");
            Failure::new(Kind::Login, "wrong_identity", message)
        }
        Err(CannotUse::Opening(error)) => {
            let message = format!(
                "{what}: what is encrypted to its recipients could not be opened with the key at hand: {error}"
            );
            Failure::new(Kind::Login, "wrong_identity", message)
                .with_details(texts)
                .hint("name the private key of one of these recipients in `encryption.identity_file`, or none at all: \
                      a host that only makes backups needs none")
        }
    };
    Err(failure.and_safe(SAFE))
}

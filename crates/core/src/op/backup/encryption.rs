//! Proves before a backup that it can be encrypted, and opened again where a key is at hand. There is no backup in plain
//! text where an encrypted one was asked for.

use std::time::Duration;

use super::attempt::SAFE;
use super::{Report, Request};
use crate::context::Context;
use crate::copies::listing::Listing;
use crate::encryption::{CannotOpen, CannotUse, Identities};
use crate::op::keys::sets;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::key_sets;
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
            Err(_) => Vec::new(),
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
    let mut storages = request.storages.iter();
    let missing = storages
        .next()
        .map_or(&[][..], |named| named.identities.missing());
    let finding = |why: &String| Finding::new("identity_unusable", why.clone(), None);
    missing
        .iter()
        .filter(|_| request.form.recipients.is_some())
        .map(finding)
        .collect()
}

/// Encrypts a probe, and opens it with the keys at hand.
pub(crate) fn prove(request: &Request) -> Result<()> {
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
    let none = Identities::default();
    let mut storages = request.storages.iter();
    let identities = storages
        .next()
        .map_or(&none, |named| named.identities.as_ref());
    let failure = match recipients.prove(identities) {
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
                .with_details(recipients.texts().iter().cloned())
                .hint("name the private key of one of these recipients in `encryption.identity_file`, or none at all: \
                      a host that only makes backups needs none")
        }
    };
    Err(failure.and_safe(SAFE))
}

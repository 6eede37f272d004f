//! A part of a stored dump, as a download that broke off goes on with it.

use std::ops::Range;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::Request;
use crate::copies::Stored;
use crate::copies::listing::storage_failure;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::keys::Part;

/// Starts reading the bytes `range` of the stored dump, from the next storage where one does not begin.
///
/// No checksum covers a part: what the manifest says can be checked only of the whole. The output of the request is not
/// looked at.
pub async fn part(
    request: Request,
    range: Range<u64>,
    now: Timestamp,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let stored = Stored::open(&request.storages, request.database, &request.wanted, now).await?;
    let what = format!("cannot get a part of `{}`", stored.manifest.id);
    let object = &stored.manifest.object;
    let mut bad = Vec::new();
    let begun = stored
        .try_copies(&what, &mut bad, async |at| {
            let key = stored.key(Part::Dump, &object.key, &what)?;
            let copy = stored.backup.copies.get(&at);
            let listed = copy.and_then(|copy| copy.size_of(&key));
            if listed.is_some_and(|size| size != object.size_bytes) {
                let message = format!("{what}: the stored object has another length");
                return Err(Failure::new(Kind::Damaged, "object_damaged", message).of_copy());
            }
            let storage = &stored.listing.storages[at].storage;
            let stream = storage.stream(&key, Some(range.clone())).await;
            stream.map_err(|error| storage_failure(&what, &error).of_copy())
        })
        .await;
    match begun {
        Ok(stream) => {
            let failed = move |error| storage_failure(&what, &error);
            Ok(stream.map(move |piece| piece.map_err(&failed)).boxed())
        }
        Err(failure) => Err(stored.unless_removed(&what, failure).await),
    }
}

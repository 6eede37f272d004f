//! Where a stored object lies and how it is cut: its key and its chunk index.

use std::sync::Arc;

use super::listing::{NamedStorage, StoredBackup};
use crate::stream::compress::Codec;
use crate::stream::digest::sha256;
use pgkeep_model::chunks::ChunkIndex;
use pgkeep_model::encryption::{EXTENSION, METHOD};
use pgkeep_model::keys::Part;
use pgkeep_model::manifest::{Chunks, Manifest};
use pgkeep_storage::Error;

/// Largest index that is read: the one of a dump of about 3 TB.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// Returns the codec of a backup and the key of its dump, built from its id and the compression that the manifest
/// names, never taken from it.
pub(crate) fn dump_key(
    backup: &StoredBackup,
    manifest: &Manifest,
) -> Result<(Codec, String), String> {
    let codec = codec_of(manifest)?;
    let key = key_of(backup, manifest, Part::Dump, &manifest.object.key)?;
    Ok((codec, key))
}

/// Returns the key of a part of a backup, built in the same way, where the manifest names that one.
pub(super) fn key_of(
    backup: &StoredBackup,
    manifest: &Manifest,
    part: Part,
    named: &str,
) -> Result<String, String> {
    let key = backup.place.key(part, &extension(manifest)?);
    if named == key {
        return Ok(key);
    }
    Err(format!(
        "the manifest names the key `{named}`, but the backup's key is `{key}`"
    ))
}

/// Returns what compression and encryption add to `.sql` in keys.
pub(crate) fn extension(manifest: &Manifest) -> Result<String, String> {
    let codec = codec_of(manifest)?;
    let Some(encryption) = &manifest.encryption else {
        return Ok(codec.extension().to_owned());
    };
    if encryption.method != METHOD {
        return Err(format!(
            "the manifest names the encryption `{}`, which this pgkeep does not know",
            encryption.method
        ));
    }
    Ok(format!("{}{EXTENSION}", codec.extension()))
}

/// Returns the length of the compressed dump; none where the manifest contradicts itself.
fn compressed_bytes(manifest: &Manifest) -> Option<u64> {
    let stored = manifest.object.size_bytes;
    match &manifest.encryption {
        None => Some(stored),
        Some(encryption) => encryption.places().text_bytes(stored),
    }
}

fn codec_of(manifest: &Manifest) -> Result<Codec, String> {
    let method = &manifest.compression.method;
    let known = Codec::of_method(method);
    known.ok_or_else(|| {
        format!("the manifest names the compression `{method}`, which this pgkeep does not know")
    })
}

/// Reads the chunk index of a backup; says why there is none that fits.
///
/// The outer error is a storage that failed, the inner one an index that cannot be used.
pub(crate) async fn chunk_index(
    named: &NamedStorage,
    backup: &StoredBackup,
    manifest: &Manifest,
    codec: Codec,
) -> Result<Result<Arc<ChunkIndex>, String>, Error> {
    let index = match &manifest.chunks {
        Chunks::Inline(index) => index.clone(),
        Chunks::Beside { sha256: wanted, .. } => {
            let key = backup.place.key(Part::Index, "");
            let bytes = match named.storage.get(&key, MAX_INDEX_BYTES).await {
                Ok(bytes) => bytes,
                Err(Error::NotFound(_)) => return Ok(Err(format!("`{key}` is missing"))),
                Err(error @ Error::TooLarge { .. }) => return Ok(Err(error.to_string())),
                Err(error) => return Err(error),
            };
            if &sha256(&bytes) != wanted {
                return Ok(Err(format!(
                    "`{key}` is not the object that the manifest describes"
                )));
            }
            match serde_json::from_slice(&bytes) {
                Ok(index) => index,
                Err(error) => return Ok(Err(format!("`{key}` cannot be read: {error}"))),
            }
        }
    };
    let raw = manifest.dump.bytes;
    let Some(stored) = compressed_bytes(manifest) else {
        let why = "the manifest names a size that no encrypted file has".to_owned();
        return Ok(Err(why));
    };
    Ok(
        match index.contradiction(raw, stored, codec.trailer_bytes()) {
            Some(why) => Err(why),
            None => Ok(Arc::new(index)),
        },
    )
}

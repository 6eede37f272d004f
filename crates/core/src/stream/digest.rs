//! The SHA-256 of bytes, as manifests write it.

use pgkeep_model::words::hex;
use sha2::{Digest, Sha256};

/// Returns the SHA-256 of bytes in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

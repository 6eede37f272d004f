//! The pin: the object that keeps its backup until somebody takes it away.
//!
//! Its presence is what counts; its content says why, for people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::BackupId;

/// Largest pin that is read.
pub const MAX_PIN_BYTES: u64 = 64 * 1024;

/// Longest reason that is kept, in characters.
pub const MAX_REASON_CHARS: usize = 500;

/// Reason of a backup that was made before a deploy and got no other.
pub const PRE_DEPLOY: &str = "pre-deploy";

/// Why a backup is pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Always 1.
    pub format: u64,
    /// The backup.
    pub id: BackupId,
    /// When it was pinned.
    pub pinned_at: Timestamp,
    /// Why.
    pub reason: String,
}

impl Pin {
    /// Pins a backup. Control characters of the reason become spaces, and a very long one is cut.
    pub fn new(id: BackupId, pinned_at: Timestamp, reason: &str) -> Self {
        Self {
            format: 1,
            id,
            pinned_at,
            reason: tidy(reason),
        }
    }

    /// Renders the pin as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a pin holds only JSON's own types");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the reason; empty when the object says none that can be read, for it pins all the same.
    pub fn reason_in(bytes: &[u8]) -> String {
        serde_json::from_slice::<Self>(bytes)
            .map(|pin| tidy(&pin.reason))
            .unwrap_or_default()
    }
}

/// Makes a text of somebody harmless: control characters become spaces, and a very long one is cut.
pub fn tidy(reason: &str) -> String {
    let spaced = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    let cut: String = spaced.take(MAX_REASON_CHARS).collect();
    cut.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reason_reads_back_without_control_characters() {
        let id: BackupId = "shop-20260102T030405Z-7f3a".parse().unwrap();
        let pin = Pin::new(id.clone(), id.started_at(), " before v2.3\n\u{1b}[31mred ");
        assert_eq!(Pin::reason_in(&pin.to_json()), "before v2.3  [31mred");
        let long = Pin::new(id.clone(), id.started_at(), &"x".repeat(9999));
        assert_eq!(long.reason.len(), MAX_REASON_CHARS);
        assert_eq!(Pin::reason_in(b""), "");
        assert_eq!(Pin::reason_in(b"{\"reason\": 5}"), "");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            Pin::reason_in(&bytes);
        }
    }
}

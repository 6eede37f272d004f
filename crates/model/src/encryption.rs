//! What is known of an encrypted backup without any key: its recipients, and where each byte of its text lies.
//!
//! The format is age's, version 1: <https://age-encryption.org/v1>. A header that names the recipients, a nonce, then
//! chunks of 64 KiB, each with a tag of its own, so that a part can be read and proven alone.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

/// The method that a manifest names.
pub const METHOD: &str = "age";

/// What encryption adds to a key.
pub const EXTENSION: &str = ".age";

/// Largest header that is read: one recipient takes about 100 bytes, a post-quantum one about 1.6 KB.
pub const MAX_HEADER_BYTES: u64 = 64 * 1024;

/// Bytes of text in a chunk.
const CHUNK_BYTES: u64 = 64 * 1024;

/// Bytes that a chunk's tag adds.
const TAG_BYTES: u64 = 16;

/// Bytes between the header and the first chunk.
pub const NONCE_BYTES: u64 = 16;

/// What a manifest says of the encryption of its objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionRecord {
    /// Always [`METHOD`].
    pub method: String,
    /// The public keys that it was encrypted to, as they were configured.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Length of the dump's header, behind which the nonce and the first chunk follow.
    #[serde(default)]
    pub header_bytes: u64,
}

impl EncryptionRecord {
    /// Refuses what no age file has.
    pub fn check(&self) -> Result<(), String> {
        if self.header_bytes > MAX_HEADER_BYTES - NONCE_BYTES {
            return Err("its header of encryption is longer than one can be".to_owned());
        }
        if !are_words(&self.recipients) {
            return Err("a recipient in it is no word".to_owned());
        }
        Ok(())
    }

    /// Returns the fingerprint of its recipients.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.recipients)
    }

    /// Returns where the text of the dump lies in its object.
    pub fn places(&self) -> Places {
        Places {
            header_bytes: self.header_bytes,
        }
    }
}

/// Tells whether each recipient is one word of printable letters, so that none of them can forge a line of a report.
pub fn are_words(recipients: &[String]) -> bool {
    let is_word = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    recipients.iter().all(is_word)
}

/// Where the text of an age file lies, by the length of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    header_bytes: u64,
}

/// Which bytes of an object a part of its text needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The bytes to fetch: whole chunks.
    pub range: Range<u64>,
    /// How far into the text the first of these chunks begins.
    pub text_start: u64,
}

impl Places {
    /// Describes a file whose header has this length.
    pub fn new(header_bytes: u64) -> Self {
        Self { header_bytes }
    }

    /// Returns where the first chunk begins.
    pub fn first_chunk(self) -> u64 {
        self.header_bytes.saturating_add(NONCE_BYTES)
    }

    /// Returns how many bytes of text an object of this size holds; none where no object can have that size.
    pub fn text_bytes(self, object_bytes: u64) -> Option<u64> {
        let chunks_bytes = object_bytes.checked_sub(self.first_chunk())?;
        let chunks = chunks_bytes.div_ceil(CHUNK_BYTES + TAG_BYTES);
        let text_bytes = chunks_bytes.checked_sub(chunks * TAG_BYTES)?;
        // An empty text has one chunk without text; any other has none such.
        let last = chunks_bytes - chunks.checked_sub(1)? * (CHUNK_BYTES + TAG_BYTES);
        (last > TAG_BYTES || chunks == 1).then_some(text_bytes)
    }

    /// Returns which bytes of an object of this size hold a part of its text.
    pub fn part(self, text: Range<u64>, object_bytes: u64) -> Part {
        let begin = begin(text.start);
        let first = begin / CHUNK_BYTES;
        let behind = text.end.max(begin + 1).div_ceil(CHUNK_BYTES);
        let place =
            |chunk: u64| (self.first_chunk() + chunk * (CHUNK_BYTES + TAG_BYTES)).min(object_bytes);
        Part {
            range: place(first)..place(behind),
            text_start: first * CHUNK_BYTES,
        }
    }
}

/// Returns where reading has to begin for text from `start` on to be read.
///
/// That is the byte before where `start` is a chunk's first: there age's reader would ask for the end of the file.
pub fn begin(start: u64) -> u64 {
    if start.is_multiple_of(CHUNK_BYTES) {
        start.saturating_sub(1)
    } else {
        start
    }
}

/// Tells one set of recipients from others, whatever their order: 16 digits of a hash, not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Returns the fingerprint of a set of recipients.
    pub fn of(recipients: &[String]) -> Self {
        let set: BTreeSet<&str> = recipients.iter().map(String::as_str).collect();
        let text: Vec<&str> = set.into_iter().collect();
        Self(xxhash_rust::xxh3::xxh3_64(text.join("\n").as_bytes()))
    }

    /// Reads one out of a key; none where it is no fingerprint.
    pub fn parse(text: &str) -> Option<Self> {
        let is_one =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let hash = u64::from_str_radix(text, 16).ok().filter(|_| is_one);
        hash.map(Self)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Why a text is no recipient. The text itself may be a private key, so it is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotRecipient {
    /// A private key.
    #[error(
        "is a private key, which belongs in `identity_file`; anyone who has seen it can read the backups"
    )]
    PrivateKey,
    /// A key of SSH.
    #[error("is an SSH key; `ssh-to-age` turns an ed25519 one into a recipient")]
    Ssh,
    /// A hybrid key of age's Go program.
    #[error(
        "is a post-quantum recipient of a kind that pgkeep cannot encrypt to; one that begins with `age1tagpq1` or `age1` works"
    )]
    Hybrid,
    /// A recipient, and more.
    #[error(
        "has something behind the recipient, which stands alone: put a comment (`#`) on a line of its own"
    )]
    More,
    /// Something else.
    #[error(
        "is no recipient of age; one looks like `age1…`, and `age-keygen` or `pgkeep keys generate` makes one"
    )]
    Other,
}

/// What kind of recipient a text is, by its looks; whether it is a valid one is for age to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientKind {
    /// An ordinary one.
    X25519,
    /// A hardware key, which a plugin opens.
    Tag,
    /// The same, post-quantum.
    TagPq,
    /// Of a plugin, which encrypts too.
    Plugin,
}

/// Tells what kind of recipient a text is.
pub fn recipient_kind(text: &str) -> Result<RecipientKind, NotRecipient> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("age-secret-key-") || lower.starts_with("age-plugin-") {
        return Err(NotRecipient::PrivateKey);
    }
    if lower.starts_with("ssh-") || lower.starts_with("ecdsa-") || lower.starts_with("sk-") {
        return Err(NotRecipient::Ssh);
    }
    if lower.starts_with("age1") && lower.contains(char::is_whitespace) {
        return Err(NotRecipient::More);
    }
    // In bech32 the last 1 ends the name.
    let name = match lower.rsplit_once('1') {
        Some((name, rest)) if name.starts_with("age") && !rest.is_empty() => name,
        _ => return Err(NotRecipient::Other),
    };
    match name {
        "age" => Ok(RecipientKind::X25519),
        "age1tag" => Ok(RecipientKind::Tag),
        "age1tagpq" => Ok(RecipientKind::TagPq),
        "age1pq" => Err(NotRecipient::Hybrid),
        name if name.starts_with("age1") => Ok(RecipientKind::Plugin),
        _ => Err(NotRecipient::Other),
    }
}

/// Reads a file of recipients: one a line, with empty lines and comments (`#`). A byte order mark and carriage returns,
/// as editors of Windows write them, are no part of a line. Each comes with the number of its line.
pub fn lines_of_recipients(text: &str) -> Vec<(usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate();
    lines
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn recipients_are_told_by_their_looks() {
        for (text, kind) in [
            (
                "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z",
                Ok(RecipientKind::X25519),
            ),
            (
                "age1tag1qwe0kafsjrar4txm6heqnhpfuggzr0gvznz7fvygxrlq90u5mq2pysxtw6h",
                Ok(RecipientKind::Tag),
            ),
            ("age1tagpq1qqq", Ok(RecipientKind::TagPq)),
            (
                "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t",
                Ok(RecipientKind::Plugin),
            ),
            ("age1pq1qqq", Err(NotRecipient::Hybrid)),
            (
                "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33",
                Err(NotRecipient::PrivateKey),
            ),
            ("AGE-PLUGIN-YUBIKEY-1XYZ", Err(NotRecipient::PrivateKey)),
            ("ssh-ed25519 AAAAC3Nza", Err(NotRecipient::Ssh)),
            ("age1lvyvwawkr0 # mine", Err(NotRecipient::More)),
            ("hunter2", Err(NotRecipient::Other)),
            ("age", Err(NotRecipient::Other)),
            ("", Err(NotRecipient::Other)),
        ] {
            assert_eq!(recipient_kind(text), kind, "{text}");
        }
    }

    #[test]
    fn a_file_of_recipients_may_come_from_anywhere() {
        let text = "\u{feff}# team\r\n\r\nage1a\r\n  age1b  \n#age1c\nage1d";
        assert_eq!(
            lines_of_recipients(text),
            [(3, "age1a"), (4, "age1b"), (6, "age1d")]
        );
        assert_eq!(lines_of_recipients(""), []);
    }

    #[test]
    fn a_set_of_recipients_has_one_fingerprint() {
        let of = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Fingerprint::of(&texts)
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
        assert_ne!(of(&["a"]), of(&["b"]));
        let one = of(&["a"]);
        assert_eq!(Fingerprint::parse(&one.to_string()), Some(one));
        for text in [
            "",
            "0123456789abcde",
            "0123456789ABCDEF",
            "../../../../../../",
        ] {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn no_object_ends_within_a_tag() {
        let places = Places::new(200);
        assert_eq!(places.text_bytes(215), None);
        assert_eq!(places.text_bytes(216), None);
        assert_eq!(places.text_bytes(231), None);
        assert_eq!(places.text_bytes(232), Some(0));
        assert_eq!(places.text_bytes(233), Some(1));
        assert_eq!(places.text_bytes(216 + 65_552), Some(65_536));
        // A last chunk without text, behind one that has some.
        assert_eq!(places.text_bytes(216 + 65_552 + 16), None);
        assert_eq!(places.text_bytes(216 + 65_552 + 17), Some(65_537));
    }

    /// How long an age file of this text is.
    fn object_bytes(text_bytes: u64, header_bytes: u64) -> u64 {
        let chunks = text_bytes.div_ceil(CHUNK_BYTES).max(1);
        header_bytes + NONCE_BYTES + text_bytes + chunks * TAG_BYTES
    }

    proptest! {
        #[test]
        fn sizes_read_back(text in 0..10 * CHUNK_BYTES, header in 0u64..5000) {
            let size = object_bytes(text, header);
            prop_assert_eq!(Places::new(header).text_bytes(size), Some(text));
        }

        #[test]
        fn a_part_holds_its_text_and_little_else(
            text in 1..10 * CHUNK_BYTES,
            a in 0..10 * CHUNK_BYTES,
            b in 0..10 * CHUNK_BYTES,
        ) {
            let (start, end) = (a.min(b).min(text), a.max(b).min(text));
            let size = object_bytes(text, 300);
            let part = Places::new(300).part(start..end, size);
            prop_assert!(part.text_start < start.max(1));
            prop_assert!(part.text_start.is_multiple_of(CHUNK_BYTES));
            prop_assert!(part.range.end <= size);
            let chunk = (part.range.start - 316) / (CHUNK_BYTES + TAG_BYTES);
            prop_assert_eq!(chunk * CHUNK_BYTES, part.text_start);
            // All of its text is there, whatever tags stand between.
            let tags = (part.range.end - part.range.start).div_ceil(CHUNK_BYTES + TAG_BYTES);
            let text_end = part.text_start + (part.range.end - part.range.start) - tags * TAG_BYTES;
            prop_assert!(text_end >= end, "{} < {}", text_end, end);
            prop_assert!(part.range.end - part.range.start <= (end - start) + 2 * (CHUNK_BYTES + TAG_BYTES) + tags * TAG_BYTES + 1);
        }
    }
}

//! The row digest: one number for a set of rows, whatever their order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// Sums the XXH3-128 hashes of a table's COPY lines modulo 2^128.
///
/// It survives dump, restore and dump again, because neither row order nor cuts of the stream matter. It is proof
/// against accidents, not against somebody who wants two tables to look alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowDigest(u128);

impl RowDigest {
    /// Adds one row: the COPY line without its newline.
    pub fn add_row(&mut self, line: &[u8]) {
        self.add_hash(xxh3_128(line));
    }

    /// Adds a row by the XXH3-128 hash of its line.
    pub fn add_hash(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }

    /// Adds all rows of another digest.
    pub fn add(&mut self, other: Self) {
        self.add_hash(other.0);
    }
}

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RowDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_hex
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten();
        number
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a row digest of 32 hex digits"))
    }
}

impl TryFrom<String> for RowDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RowDigest> for String {
    fn from(digest: RowDigest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_but_rows_and_their_number_do() {
        let digest = |rows: &[&str]| {
            let mut digest = RowDigest::default();
            rows.iter().for_each(|row| digest.add_row(row.as_bytes()));
            digest
        };
        assert_eq!(digest(&["1\ta", "2\tb"]), digest(&["2\tb", "1\ta"]));
        assert_ne!(digest(&["1\ta", "2\tb"]), digest(&["1\ta", "2\tc"]));
        assert_ne!(digest(&["1"]), digest(&["1", "1"]));
        assert_ne!(digest(&[""]), digest(&[]));
    }

    #[test]
    fn text_form_reads_back() {
        let mut digest = RowDigest::default();
        digest.add_row(b"x");
        assert_eq!(digest.to_string().parse::<RowDigest>().unwrap(), digest);
        assert!("zz".parse::<RowDigest>().is_err());
        assert!(
            "+0000000000000000000000000000001"
                .parse::<RowDigest>()
                .is_err()
        );
    }
}

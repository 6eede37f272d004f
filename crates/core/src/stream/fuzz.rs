//! What the fuzzer calls.

use std::io::Read;

use bytes::Bytes;

use super::read::read_dump;
use crate::encryption::{Identities, PartReader, Recipients, begin_at};
use pgkeep_model::encryption::{Places, lines_of_recipients, recipient_kind};

/// Reads any bytes as an age file, whole and from the middle, with a fixed key; for the fuzzer.
///
/// Whatever comes out has gone in, so there is no more of it.
pub fn encrypted(bytes: &[u8]) {
    // The key of no backup: age's own tests have it.
    const KEY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
    let mut identities = Identities::default();
    let _ = identities.add(&KEY.to_owned().into());
    let mut taken = 0;
    let read = read_dump(bytes, &identities, &mut |piece| taken += piece.len());
    assert!(read.is_err() || taken as u64 == read.unwrap_or_default());
    let header_bytes = bytes.iter().take(3).map(|byte| u64::from(*byte)).sum();
    let places = Places::new(header_bytes);
    let size = bytes.len() as u64;
    let _ = places.text_bytes(size);
    let part = places.part(size / 3..size / 2, size);
    let front = Bytes::copy_from_slice(&bytes[..bytes.len().min(places.first_chunk() as usize)]);
    let stretch = &bytes[part.range.start.min(size) as usize..part.range.end.min(size) as usize];
    if let Ok(mut opened) = identities.open(PartReader::new(front, part.range.start, stretch)) {
        let mut text = Vec::new();
        let _ = begin_at(&mut opened, size / 3).and_then(|()| opened.read_to_end(&mut text));
    }
    let text = String::from_utf8_lossy(bytes);
    for (_, line) in lines_of_recipients(&text) {
        let _ = recipient_kind(line);
    }
    let _ = Recipients::parse(&[text.into_owned()]);
    let _ = Identities::default().add(&String::from_utf8_lossy(bytes).into_owned().into());
}

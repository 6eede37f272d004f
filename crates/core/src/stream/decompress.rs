//! Decompresses single chunks of a stored dump, each into exactly the length that the index tells.
//!
//! A chunk that wants more room, gives less, or does not end where its stored bytes end is damaged; nothing is ever
//! grown, so a bomb costs no more memory than a chunk.

use zlib_rs::{Inflate, InflateFlush, Status};

use super::compress::{Codec, DEFLATE_END};

/// Largest window of deflate, in bits.
const WINDOW_BITS: u8 = 15;

/// Decompresses one chunk after another; every thread has its own.
pub(super) struct Decoder(Kind);

enum Kind {
    Gzip(Box<Inflate>),
    Zstd(Box<zstd::bulk::Decompressor<'static>>),
    None,
}

impl Decoder {
    /// Prepares a decoder.
    pub(super) fn new(codec: Codec) -> Result<Self, String> {
        Ok(Self(match codec {
            Codec::Gzip { .. } => Kind::Gzip(Box::new(Inflate::new(false, WINDOW_BITS))),
            Codec::Zstd { .. } => {
                let decompressor = zstd::bulk::Decompressor::new();
                Kind::Zstd(Box::new(decompressor.map_err(|error| error.to_string())?))
            }
            Codec::None => Kind::None,
        }))
    }

    /// Decompresses `stored` so that it fills `raw`, and returns the checksum that the codec's trailer holds.
    pub(super) fn decode(
        &mut self,
        stored: &[u8],
        raw: &mut [u8],
    ) -> Result<Option<crc32fast::Hasher>, String> {
        match &mut self.0 {
            Kind::Gzip(inflate) => {
                fill(inflate, stored, raw)?;
                let mut crc = crc32fast::Hasher::new();
                crc.update(raw);
                Ok(Some(crc))
            }
            Kind::Zstd(decompressor) => {
                let count = decompressor
                    .decompress_to_buffer(stored, raw)
                    .map_err(|error| format!("zstd: {error}"))?;
                check_length(count as u64, raw.len())?;
                Ok(None)
            }
            Kind::None => {
                check_length(stored.len() as u64, raw.len())?;
                raw.copy_from_slice(stored);
                Ok(None)
            }
        }
    }
}

/// Inflates a chunk that ends in a full flush.
///
/// That it ends there is proven by the end of a stream put behind it: a decoder that still waits for something, or
/// still has something to give, does not take it for an end.
fn fill(inflate: &mut Inflate, stored: &[u8], raw: &mut [u8]) -> Result<(), String> {
    inflate.reset(false);
    let status = inflate
        .decompress(stored, raw, InflateFlush::NoFlush)
        .map_err(|error| format!("deflate: {}", error.as_str()))?;
    check_length(inflate.total_out(), raw.len())?;
    if status == Status::StreamEnd {
        return Err("the compressed stream ends in it".to_owned());
    }
    if inflate.total_in() != stored.len() as u64 {
        return Err(longer(raw.len()));
    }
    let mut room = [0];
    let ends = inflate.decompress(DEFLATE_END, &mut room, InflateFlush::NoFlush);
    let is_end = ends == Ok(Status::StreamEnd) && inflate.total_out() == raw.len() as u64;
    if is_end {
        Ok(())
    } else {
        Err("it does not end where its stored bytes end".to_owned())
    }
}

fn check_length(found: u64, expected: usize) -> Result<(), String> {
    if found == expected as u64 {
        return Ok(());
    }
    Err(format!("it holds {found} bytes, not {expected}"))
}

fn longer(expected: usize) -> String {
    format!("it holds more than {expected} bytes")
}

#[cfg(test)]
mod tests {
    use super::super::compress::Encoder;
    use super::*;

    const CODECS: [Codec; 3] = [
        Codec::Gzip { level: None },
        Codec::Zstd { level: 1 },
        Codec::None,
    ];

    fn text() -> Vec<u8> {
        (0..9000u32)
            .flat_map(|n| format!("{n}\t{}\n", n * 7919).into_bytes())
            .collect()
    }

    fn decode(codec: Codec, stored: &[u8], length: usize) -> Result<Vec<u8>, String> {
        let mut raw = vec![0; length];
        Decoder::new(codec).unwrap().decode(stored, &mut raw)?;
        Ok(raw)
    }

    #[test]
    fn gives_back_what_was_encoded() {
        let noise: Vec<u8> = (0..300_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for codec in CODECS {
            for raw in [text(), noise.clone(), b"x".to_vec()] {
                let stored = Encoder::new(codec).unwrap().encode(&raw).unwrap().bytes;
                assert!(decode(codec, &stored, raw.len()).unwrap() == raw);
            }
        }
    }

    #[test]
    fn another_length_is_damage() {
        for codec in CODECS {
            let raw = text();
            let stored = Encoder::new(codec).unwrap().encode(&raw).unwrap().bytes;
            for length in [0, 1, raw.len() - 1, raw.len() + 1, raw.len() * 2] {
                assert!(
                    decode(codec, &stored, length).is_err(),
                    "{codec:?} {length}"
                );
            }
            for cut in [0, 1, stored.len() / 2, stored.len() - 1] {
                assert!(
                    decode(codec, &stored[..cut], raw.len()).is_err(),
                    "{codec:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_gets_no_more_than_its_chunk() {
        let bomb = Encoder::new(CODECS[0])
            .unwrap()
            .encode(&vec![0; 64 << 20])
            .unwrap()
            .bytes;
        assert!(
            decode(CODECS[0], &bomb, 1 << 20)
                .unwrap_err()
                .contains("more than")
        );
        let bomb = zstd::encode_all(&vec![0; 64 << 20][..], 1).unwrap();
        assert!(decode(CODECS[1], &bomb, 1 << 20).is_err());
    }

    #[test]
    fn a_stream_that_ends_or_goes_on_is_no_chunk() {
        let raw = text();
        let stored = Encoder::new(CODECS[0]).unwrap().encode(&raw).unwrap().bytes;
        let ended = [&stored[..], DEFLATE_END].concat();
        let without_flush = &stored[..stored.len() - 4];
        for odd in [&ended[..], without_flush, &[&stored[..], b"x"].concat()] {
            assert!(decode(CODECS[0], odd, raw.len()).is_err());
        }
    }
}

//! Compresses chunks so that each can be read alone and all together are an ordinary file.
//!
//! gzip: one member whose deflate blocks end in a full flush at every chunk (RFC 1951 section 3.2.4; the zlib manual
//! on `Z_FULL_FLUSH`). A row of members would be read as whole after the first by careless decoders. zstd: one frame
//! per chunk (RFC 8878), as the zstd tools read them.

use std::io;

use bytes::Bytes;

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Method, Status, Strategy};

use super::literal::{self, Repeats};

/// How a dump is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// gzip, level 1 to 9.
    Gzip {
        /// Level as zlib counts it; none for the one that suits each chunk.
        level: Option<u32>,
    },
    /// zstd, level 1 to 19.
    Zstd {
        /// Level as zstd counts it.
        level: i32,
    },
    /// Not at all.
    None,
}

/// gzip header (RFC 1952): deflate, no flags, no time, so that equal dumps make equal files; system unknown.
const GZIP_HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty last block with fixed codes, which ends the deflate stream behind the last full flush.
pub(super) const DEFLATE_END: &[u8] = &[0x03, 0x00];

/// Level of a chunk where nobody asked for one: it keeps up with `pg_dump` on two cores (`scripts/bench`).
const LEVEL: u32 = 3;

/// Level of a chunk full of repeats, such as JSON: a search that finds them soon is a short one, so that two levels
/// more cost a third of its time there and save five percent.
const LEVEL_OF_MANY_REPEATS: u32 = 5;

/// Most memory that zlib knows: twice its default, for blocks twice as long. Two percent faster and a little smaller.
const MEMORY_LEVEL: i32 = 9;

/// Room that a flush marker and stored blocks need beside incompressible data.
const SLACK_BYTES: usize = 1024;

impl Codec {
    /// Returns what is added to `.sql` in keys.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Gzip { .. } => ".gz",
            Self::Zstd { .. } => ".zst",
            Self::None => "",
        }
    }

    /// Finds the codec by the method that a manifest names; none for one that is not known.
    pub fn of_method(method: &str) -> Option<Self> {
        match method {
            "gzip" => Some(Self::Gzip { level: None }),
            "zstd" => Some(Self::Zstd { level: 1 }),
            "none" => Some(Self::None),
            _ => None,
        }
    }

    /// Returns the length of what stands behind the last chunk.
    pub fn trailer_bytes(self) -> u64 {
        match self {
            Self::Gzip { .. } => DEFLATE_END.len() as u64 + 8,
            Self::Zstd { .. } | Self::None => 0,
        }
    }
}

/// A compressed chunk.
pub struct Encoded {
    /// Stored bytes.
    pub bytes: Vec<u8>,
    /// Length before compression.
    pub raw_bytes: usize,
    /// Checksum of the uncompressed bytes where the codec's trailer needs it.
    crc: Option<crc32fast::Hasher>,
}

/// Compresses one chunk after another; every thread has its own.
pub struct Encoder(Kind);

enum Kind {
    Gzip(Box<Gzip>),
    Zstd(zstd::bulk::Compressor<'static>),
    None,
}

impl Encoder {
    /// Prepares an encoder.
    pub fn new(codec: Codec) -> io::Result<Self> {
        Ok(Self(match codec {
            Codec::Gzip { level } => Kind::Gzip(Box::new(Gzip::new(level))),
            Codec::Zstd { level } => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                compressor.include_checksum(true)?;
                Kind::Zstd(compressor)
            }
            Codec::None => Kind::None,
        }))
    }

    /// Compresses a chunk.
    pub fn encode(&mut self, raw: &[u8]) -> io::Result<Encoded> {
        let (bytes, crc) = match &mut self.0 {
            Kind::Gzip(gzip) => {
                let mut crc = crc32fast::Hasher::new();
                crc.update(raw);
                (gzip.deflate(raw)?, Some(crc))
            }
            Kind::Zstd(compressor) => (compressor.compress(raw)?, None),
            Kind::None => (raw.to_vec(), None),
        };
        Ok(Encoded {
            bytes,
            raw_bytes: raw.len(),
            crc,
        })
    }
}

/// Deflates chunks, each at the level that suits it.
struct Gzip {
    usual: Deflate,
    /// For chunks with many repeats; none where somebody chose the level.
    of_many_repeats: Option<Deflate>,
    /// Room for one compressed chunk, so that none is ever grown or moved.
    room: Vec<u8>,
}

impl Gzip {
    fn new(level: Option<u32>) -> Self {
        let deflate = |level: u32| {
            Deflate::new_with_config(DeflateConfig {
                level: level.min(9) as i32,
                method: Method::Deflated,
                // Negative: without a header of its own.
                window_bits: -15,
                mem_level: MEMORY_LEVEL,
                strategy: Strategy::Default,
            })
        };
        Self {
            usual: deflate(level.unwrap_or(LEVEL)),
            of_many_repeats: level.is_none().then(|| deflate(LEVEL_OF_MANY_REPEATS)),
            room: Vec::new(),
        }
    }

    fn deflate(&mut self, raw: &[u8]) -> io::Result<Vec<u8>> {
        let deflate = match (Repeats::look_for(raw), &mut self.of_many_repeats) {
            (Repeats::Few, _) => {
                let mut out = Vec::new();
                literal::deflate(raw, &mut out);
                return Ok(out);
            }
            (Repeats::Many, Some(deflate)) => deflate,
            (Repeats::Many | Repeats::Some, _) => &mut self.usual,
        };
        deflate.reset();
        let bound = zlib_rs::compress_bound(raw.len()) + SLACK_BYTES;
        if self.room.len() < bound {
            self.room.resize(bound, 0);
        }
        let status = deflate.compress(raw, &mut self.room, DeflateFlush::FullFlush);
        let written = usize::try_from(deflate.total_out()).map_err(io::Error::other)?;
        // A flush that fills the room to its last byte might not be whole.
        let is_whole = deflate.total_in() == raw.len() as u64 && written < self.room.len();
        match status {
            // Without input there is nothing to flush, which zlib calls an error.
            Ok(Status::Ok | Status::BufError) if is_whole => Ok(self.room[..written].to_vec()),
            Err(_) if raw.is_empty() => Ok(Vec::new()),
            Ok(status) => Err(io::Error::other(format!("deflate stopped: {status:?}"))),
            Err(error) => Err(io::Error::other(error.as_str())),
        }
    }
}

/// What stands around the chunks to make them a file.
pub struct Frame {
    codec: Codec,
    crc: crc32fast::Hasher,
    raw_bytes: u64,
}

impl Frame {
    /// Starts a file.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            crc: crc32fast::Hasher::new(),
            raw_bytes: 0,
        }
    }

    /// Returns what stands in front of the first chunk.
    pub fn header(&self) -> Bytes {
        match self.codec {
            Codec::Gzip { .. } => Bytes::from_static(GZIP_HEADER),
            Codec::Zstd { .. } | Codec::None => Bytes::new(),
        }
    }

    /// Takes note of a chunk.
    pub fn add(&mut self, chunk: &Encoded) {
        self.add_chunk(chunk.raw_bytes, chunk.crc.as_ref());
    }

    /// Takes note of a chunk of so many uncompressed bytes, with their checksum where the trailer holds one.
    pub(super) fn add_chunk(&mut self, raw_bytes: usize, crc: Option<&crc32fast::Hasher>) {
        self.raw_bytes += raw_bytes as u64;
        if let Some(crc) = crc {
            self.crc.combine(crc);
        }
    }

    /// Returns what stands behind the last chunk.
    pub fn trailer(self) -> Bytes {
        match self.codec {
            Codec::Gzip { .. } => {
                let mut trailer = DEFLATE_END.to_vec();
                trailer.extend_from_slice(&self.crc.finalize().to_le_bytes());
                trailer.extend_from_slice(&((self.raw_bytes & 0xffff_ffff) as u32).to_le_bytes());
                trailer.into()
            }
            Codec::Zstd { .. } | Codec::None => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn file(codec: Codec, chunks: &[Vec<u8>]) -> Vec<u8> {
        let (mut encoder, mut frame) = (Encoder::new(codec).unwrap(), Frame::new(codec));
        let mut out = frame.header().to_vec();
        for chunk in chunks {
            let encoded = encoder.encode(chunk).unwrap();
            frame.add(&encoded);
            out.extend_from_slice(&encoded.bytes);
        }
        out.extend_from_slice(&frame.trailer());
        out
    }

    #[test]
    fn gzip_is_one_member_that_any_reader_takes() {
        let noise: Vec<u8> = (0..300_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let chunks = [b"hello\n".repeat(10_000), noise, Vec::new(), b"x".to_vec()];
        for level in [None].into_iter().chain((1..=9).map(Some)) {
            let bytes = file(Codec::Gzip { level }, &chunks);
            let mut out = Vec::new();
            // `GzDecoder` stops after one member.
            flate2::read::GzDecoder::new(&bytes[..])
                .read_to_end(&mut out)
                .unwrap();
            assert!(out == chunks.concat(), "level {level:?}");
        }
    }

    #[test]
    fn a_chunk_can_be_read_alone() {
        let codec = Codec::Gzip { level: Some(2) };
        let mut encoder = Encoder::new(codec).unwrap();
        encoder.encode(&b"first ".repeat(5000)).unwrap();
        let second = encoder.encode(&b"first second ".repeat(5000)).unwrap();
        let mut out = Vec::with_capacity(100_000);
        let mut inflate = flate2::Decompress::new(false);
        inflate
            .decompress_vec(&second.bytes, &mut out, flate2::FlushDecompress::Sync)
            .unwrap();
        assert!(out == b"first second ".repeat(5000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_codec_gives_back_what_it_took(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..5000), 1..6),
            level in 1u32..10,
        ) {
            let whole = chunks.concat();
            let mut out = Vec::new();
            let gzip = file(Codec::Gzip { level: Some(level) }, &chunks);
            flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut out).unwrap();
            prop_assert_eq!(&out, &whole);
            let zstd = file(Codec::Zstd { level: level as i32 }, &chunks);
            prop_assert_eq!(&zstd::decode_all(&zstd[..]).unwrap(), &whole);
            prop_assert_eq!(&file(Codec::None, &chunks), &whole);
        }
    }
}

//! Reads a dump from a file or a pipe, decrypted and decompressed by its content, piece by piece.
//!
//! Decompression runs on a thread of its own beside anyone who takes the pieces. A stream that is cut or damaged is an
//! error behind its last good piece, never an early end.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use age::armor::ArmoredReader;
use flate2::read::MultiGzDecoder;
use thiserror::Error;

use crate::encryption::{CannotOpen, Identities};
use pgkeep_model::format::{Foreign, Format, HEAD_BYTES};

/// Size of a piece. It fits the second-level cache of a core, so that the reader's bytes are still there when the
/// scanner takes them.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces under way between the decompressing thread and the scanner.
const PIECES_IN_FLIGHT: usize = 4;

/// Why a dump cannot be read to its end.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The bytes are something else than a plain dump.
    #[error("{}", .0.description())]
    Foreign(Foreign),
    /// The compressed stream is cut, damaged or followed by something else.
    #[error("the {format} stream is cut or damaged after byte {at} of the dump: {source}")]
    Damaged {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// How many good bytes of the dump came before.
        at: u64,
        /// What the decompressor said.
        source: io::Error,
    },
    /// It is encrypted, and no key opens it.
    #[error("it is encrypted with age: {0}")]
    Locked(CannotOpen),
    /// The file or pipe itself failed.
    #[error("cannot read on: {0}")]
    Io(#[from] io::Error),
}

/// Feeds the dump in `input` to `take`, piece by piece, and returns its length.
///
/// gzip (any number of members) and zstd are recognised by their content, and age, which `identities` open.
pub fn read_dump(
    input: impl Read + Send,
    identities: &Identities,
    take: &mut dyn FnMut(&[u8]),
) -> Result<u64, ReadError> {
    let (head, input) = look_ahead(input)?;
    match Format::detect(&head) {
        Format::Foreign(Foreign::Age) => {
            let buffered = BufReader::with_capacity(PIECE_BYTES, ArmoredReader::new(input));
            let opened = identities.open_buffered(buffered);
            let decrypted = Decrypted(opened.map_err(ReadError::Locked)?);
            let undecryptable = |error| ReadError::Damaged {
                format: "encrypted",
                at: 0,
                source: error,
            };
            let (inner, input) = look_ahead(decrypted).map_err(undecryptable)?;
            // The file itself is read by whoever knows when that fails.
            match read_format(Format::detect(&inner), input, take) {
                Err(ReadError::Io(error)) => Err(undecryptable(error)),
                read => read,
            }
        }
        format => read_format(format, input, take),
    }
}

/// Says of what cannot be decrypted that this is the matter, whatever reads it.
struct Decrypted<R>(R);

impl<R: Read> Read for Decrypted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, format!("it cannot be decrypted: {error}")),
        })
    }
}

fn read_format(
    format: Format,
    input: impl Read + Send,
    take: &mut dyn FnMut(&[u8]),
) -> Result<u64, ReadError> {
    match format {
        Format::Plain => read_plain(input, take),
        Format::Gzip => read_compressed("gzip", MultiGzDecoder::new(input), take),
        Format::Zstd => read_compressed("zstd", zstd::stream::read::Decoder::new(input)?, take),
        Format::Foreign(foreign) => Err(ReadError::Foreign(foreign)),
    }
}

/// Reads the first bytes and puts them back in front.
fn look_ahead<R: Read>(mut input: R) -> io::Result<(Vec<u8>, impl Read)> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    input
        .by_ref()
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)?;
    Ok((head.clone(), io::Cursor::new(head).chain(input)))
}

fn read_plain(mut input: impl Read, take: &mut dyn FnMut(&[u8])) -> Result<u64, ReadError> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut total = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                take(&buffer[..count]);
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_compressed(
    format: &'static str,
    decoder: impl Read + Send,
    take: &mut dyn FnMut(&[u8]),
) -> Result<u64, ReadError> {
    let (full, pieces) = sync_channel::<io::Result<Vec<u8>>>(PIECES_IN_FLIGHT);
    let (give_back, empty) = sync_channel::<Vec<u8>>(PIECES_IN_FLIGHT + 1);
    // The scope waits for the decompressing thread, which ends when its decoder does or when `pieces` is dropped.
    thread::scope(|scope| {
        scope.spawn(move || decompress(decoder, &full, &empty));
        let mut total = 0;
        for piece in pieces {
            let piece = piece.map_err(|source| ReadError::Damaged {
                format,
                at: total,
                source,
            })?;
            if total == 0
                && let Format::Foreign(foreign) =
                    Format::detect(&piece[..piece.len().min(HEAD_BYTES)])
            {
                return Err(ReadError::Foreign(foreign));
            }
            take(&piece);
            total += piece.len() as u64;
            let _ = give_back.try_send(piece); // a full or closed return path only costs an allocation
        }
        if total == 0 {
            Err(ReadError::Foreign(Foreign::Empty))
        } else {
            Ok(total)
        }
    })
}

/// Sends whole pieces (only the last is shorter) until the stream or the receiver ends.
fn decompress(
    mut decoder: impl Read,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) {
    loop {
        let mut piece = empty.try_recv().unwrap_or_default();
        piece.resize(PIECE_BYTES, 0);
        let (count, error) = fill(&mut decoder, &mut piece);
        piece.truncate(count);
        let is_last = count < PIECE_BYTES || error.is_some();
        if count > 0 && full.send(Ok(piece)).is_err() {
            return;
        }
        if let Some(error) = error {
            let _ = full.send(Err(error)); // nobody is left to hear it only when the reader gave up already
        }
        if is_last {
            return;
        }
    }
}

fn fill(decoder: &mut impl Read, piece: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut count = 0;
    while count < piece.len() {
        match decoder.read(&mut piece[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (count, Some(error)),
        }
    }
    (count, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> (Vec<u8>, Result<u64, ReadError>) {
        let mut out = Vec::new();
        let result = read_dump(bytes, &Identities::default(), &mut |piece| {
            out.extend_from_slice(piece)
        });
        (out, result)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn text() -> Vec<u8> {
        (0..200_000u32)
            .flat_map(|n| format!("{n}\t{}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
            .collect()
    }

    #[test]
    fn reads_plain_gzip_and_zstd_alike() {
        let text = text();
        let two_members = [gzip(&text[..1000]), gzip(&text[1000..])].concat();
        for bytes in [
            text.clone(),
            gzip(&text),
            two_members,
            zstd::encode_all(&text[..], 3).unwrap(),
        ] {
            let (out, result) = read(&bytes);
            assert_eq!(result.unwrap(), text.len() as u64);
            assert!(out == text);
        }
    }

    #[test]
    fn damage_is_an_error_behind_the_good_bytes() {
        let text = text();
        let whole = gzip(&text);
        let mut garbage = whole.clone();
        garbage.extend_from_slice(b"garbage");
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        for bytes in [
            &whole[..whole.len() / 2],
            &whole[..whole.len() - 8],
            &garbage,
            &zstd[..zstd.len() / 2],
        ] {
            let (out, result) = read(bytes);
            assert!(
                matches!(result, Err(ReadError::Damaged { .. })),
                "{result:?}"
            );
            assert!(text.starts_with(&out));
        }
    }

    #[test]
    fn nothing_inside_gzip_is_nothing() {
        assert!(matches!(
            read(&gzip(b"")).1,
            Err(ReadError::Foreign(Foreign::Empty))
        ));
        assert!(matches!(
            read(&gzip(b"PGDMP\x01")).1,
            Err(ReadError::Foreign(Foreign::Custom))
        ));
        assert!(matches!(
            read(b"").1,
            Err(ReadError::Foreign(Foreign::Empty))
        ));
    }
}

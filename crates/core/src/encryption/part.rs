//! Reads a part of an age file out of its header and of the chunks that hold the part.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;

use super::Opened;
use pgkeep_model::encryption;

/// A file of which only the front and one stretch are there: age's reader jumps from one to the other and knows no
/// better.
pub(crate) struct PartReader<R> {
    front: Bytes,
    /// Where the stretch begins.
    start: u64,
    stretch: R,
    position: u64,
}

impl<R: Read> PartReader<R> {
    /// `front` is header and nonce; `stretch` gives the bytes from `start` on.
    pub(crate) fn new(front: Bytes, start: u64, stretch: R) -> Self {
        Self {
            front,
            start,
            stretch,
            position: 0,
        }
    }
}

impl<R: Read> Read for PartReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let in_front = usize::try_from(self.position)
            .ok()
            .and_then(|at| self.front.get(at..))
            .filter(|rest| !rest.is_empty());
        let count = match in_front {
            Some(rest) => {
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                count
            }
            None if self.position >= self.start => self.stretch.read(buffer)?,
            None => return Err(io::Error::other("this part of the file was not fetched")),
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read> Seek for PartReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => to,
            SeekFrom::Current(0) => self.position,
            SeekFrom::Current(_) | SeekFrom::End(_) => {
                return Err(io::Error::other("the end of the file was not fetched"));
            }
        };
        if to != self.position {
            // The stretch is read once, from its start.
            let is_untouched = self.position <= self.front.len() as u64;
            if to != self.start || !is_untouched {
                return Err(io::Error::other("this part of the file was not fetched"));
            }
            self.position = to;
        }
        Ok(to)
    }
}

/// Brings the reader of a part to where its text begins.
pub(crate) fn begin_at<R: Read>(opened: &mut Opened<PartReader<R>>, start: u64) -> io::Result<()> {
    let begin = encryption::begin(start);
    opened.seek(SeekFrom::Start(begin))?;
    if begin < start {
        opened.read_exact(&mut [0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::{Identities, Recipients};
    use super::*;
    use pgkeep_model::encryption::Places;

    /// A text of four chunks and a bit, encrypted, with its header's length and the key.
    fn file(text: &[u8]) -> (Vec<u8>, u64, Identities) {
        let key = age::x25519::Identity::generate();
        let recipients = Recipients::parse(&[key.to_public().to_string()]).unwrap();
        let mut sealed = recipients.seal(Vec::new()).unwrap();
        sealed.write_all(text).unwrap();
        let sealed = sealed.finish().unwrap();
        let header = sealed
            .windows(5)
            .position(|five| five == b"\n--- ")
            .unwrap();
        let end = sealed[header + 1..]
            .iter()
            .position(|b| *b == b'\n')
            .unwrap();
        let mut identities = Identities::default();
        identities.add(&key.to_string()).unwrap();
        (sealed, (header + 1 + end + 1) as u64, identities)
    }

    fn read_part(file: &(Vec<u8>, u64, Identities), start: u64, end: u64) -> io::Result<Vec<u8>> {
        let (sealed, header, identities) = file;
        let places = Places::new(*header);
        let part = places.part(start..end, sealed.len() as u64);
        let front = Bytes::copy_from_slice(&sealed[..places.first_chunk() as usize]);
        let stretch = &sealed[part.range.start as usize..part.range.end as usize];
        let reader = PartReader::new(front, part.range.start, stretch);
        let mut opened = identities.open(reader).map_err(io::Error::other)?;
        let mut text = vec![0; (end - start) as usize];
        begin_at(&mut opened, start)?;
        opened.read_exact(&mut text)?;
        Ok(text)
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length)
            .map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_part_reads_as_the_whole_does(
            length in prop::sample::select(vec![1usize, 65_535, 65_536, 65_537, 131_072, 300_000]),
            a in prop::sample::select(vec![0u64, 1, 65_535, 65_536, 65_537, 131_071, 131_072, 196_608, 262_143, 299_999]),
            span in prop::sample::select(vec![1u64, 2, 65_536, 65_537, 400_000]),
        ) {
            let text = text(length);
            let file = file(&text);
            let start = a.min(length as u64 - 1);
            let end = (start + span).min(length as u64);
            let read = read_part(&file, start, end).unwrap();
            prop_assert!(read == text[start as usize..end as usize]);
        }
    }

    #[test]
    fn chunks_that_were_swapped_or_changed_are_an_error() {
        let mut file = file(&text(300_000));
        let first = Places::new(file.1).first_chunk() as usize;
        let (a, b) = (first + 65_552, first + 2 * 65_552);
        let (left, right) = file.0.split_at_mut(b);
        left[a..].swap_with_slice(&mut right[..65_552]);
        assert!(read_part(&file, 0, 60_000).is_ok());
        assert!(read_part(&file, 70_000, 70_001).is_err());
        assert!(read_part(&file, 140_000, 140_001).is_err());
        assert!(read_part(&file, 290_000, 300_000).is_ok());
        file.0[first] ^= 1;
        assert!(read_part(&file, 0, 1).is_err());
    }
}

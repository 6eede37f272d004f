//! Whole, cut, flipped, swapped, lengthened: each is told, with its place, and nothing else is.

use super::super::digest::sha256;
use super::*;
use crate::encryption::Recipients;
use crate::stream::compress::Encoder;
use pgkeep_model::encryption::Places;
use proptest::prelude::*;
use std::sync::Arc;

const CODECS: [Codec; 3] = [
    Codec::Gzip { level: None },
    Codec::Zstd { level: 1 },
    Codec::None,
];

fn chunks() -> Vec<Vec<u8>> {
    (0..20u32)
        .map(|chunk| {
            (0..2000 + chunk * 100)
                .flat_map(|n| format!("{chunk}\t{}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
                .collect()
        })
        .collect()
}

fn store(codec: Codec, chunks: &[Vec<u8>]) -> (Vec<u8>, ChunkIndex) {
    let (mut encoder, mut frame) = (Encoder::new(codec).unwrap(), Frame::new(codec));
    let mut out = frame.header().to_vec();
    let mut index = ChunkIndex {
        header_bytes: out.len() as u64,
        ..ChunkIndex::default()
    };
    for chunk in chunks {
        let encoded = encoder.encode(chunk).unwrap();
        frame.add(&encoded);
        index.push(chunk.len() as u32, encoded.bytes.len() as u32);
        out.extend_from_slice(&encoded.bytes);
    }
    out.extend_from_slice(&frame.trailer());
    (out, index)
}

fn pieces(bytes: &[u8], size: usize) -> impl Iterator<Item = Result<Bytes, String>> + Send {
    let pieces: Vec<_> = bytes
        .chunks(size)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    pieces.into_iter()
}

fn read(bytes: &[u8], layout: &Layout<'_>, size: usize) -> (Vec<u8>, Outcome) {
    let mut out = Vec::new();
    let mut take = |piece: &[u8]| {
        out.extend_from_slice(piece);
        Ok(())
    };
    let outcome = read_chunks(
        pieces(bytes, size),
        Access::Plain,
        layout,
        3,
        &Progress::default(),
        &mut take,
    )
    .unwrap();
    (out, outcome)
}

#[test]
fn what_was_stored_reads_back_with_and_without_an_index() {
    let chunks = chunks();
    for codec in CODECS {
        let (bytes, index) = store(codec, &chunks);
        for size in [1000, 70_000, 10_000_000] {
            let (out, outcome) = read(&bytes, &Layout::whole(codec, &index), size);
            assert_eq!(outcome.fault, None, "{codec:?}");
            assert!(out == chunks.concat());
            assert_eq!(
                (outcome.stored_bytes, &outcome.sha256),
                (bytes.len() as u64, &sha256(&bytes))
            );
        }
        let mut out = Vec::new();
        let mut take = |piece: &[u8]| {
            out.extend_from_slice(piece);
            Ok(())
        };
        let limit = chunks.concat().len() as u64;
        let outcome = read_serially(
            pieces(&bytes, 5000),
            &Identities::default(),
            limit,
            &Progress::default(),
            &mut take,
        )
        .unwrap();
        assert_eq!(
            (outcome.fault, outcome.sha256),
            (None, sha256(&bytes)),
            "{codec:?}"
        );
        assert!(out == chunks.concat());
    }
}

#[test]
fn a_part_is_read_alone() {
    let chunks = chunks();
    for codec in CODECS {
        let (bytes, index) = store(codec, &chunks);
        let range = index.start_of(5).0 as usize..index.start_of(9).0 as usize;
        let (out, outcome) = read(&bytes[range], &Layout::part(codec, &index, 5..9), 999);
        assert_eq!(outcome.fault, None, "{codec:?}");
        assert!(out == chunks[5..9].concat());
    }
}

#[test]
fn each_damage_is_told_with_its_place() {
    let chunks = chunks();
    let codec = Codec::Gzip { level: None };
    let (bytes, index) = store(codec, &chunks);
    let (fifth, at) = index.start_of(5);
    let end = bytes.len() - 10;
    let mut flipped = bytes.clone();
    flipped[fifth as usize + 3] ^= 0x55;
    let mut swapped = bytes[..fifth as usize].to_vec();
    let (six, seven) = (index.start_of(6).0 as usize, index.start_of(7).0 as usize);
    swapped.extend_from_slice(&bytes[six..seven]);
    swapped.extend_from_slice(&bytes[fifth as usize..six]);
    swapped.extend_from_slice(&bytes[seven..]);
    let mut checksum = bytes.clone();
    checksum[end + 3] ^= 1;
    let mut header = bytes.clone();
    header[1] ^= 1;
    for (name, damaged, place) in [
        ("flipped", flipped, (fifth, at)),
        ("swapped", swapped, (fifth, at)),
        (
            "cut in a chunk",
            bytes[..fifth as usize + 10].to_vec(),
            (fifth, at),
        ),
        (
            "cut trailer",
            bytes[..end + 4].to_vec(),
            (end as u64, chunks.concat().len() as u64),
        ),
        (
            "appended",
            [&bytes[..], b"x"].concat(),
            (end as u64, chunks.concat().len() as u64),
        ),
        (
            "second member",
            [&bytes[..], &bytes[..]].concat(),
            (end as u64, chunks.concat().len() as u64),
        ),
        (
            "checksum",
            checksum,
            (end as u64, chunks.concat().len() as u64),
        ),
        ("header", header, (0, 0)),
        ("empty", Vec::new(), (0, 0)),
    ] {
        let (out, outcome) = read(&damaged, &Layout::whole(codec, &index), 4096);
        let fault = outcome
            .fault
            .unwrap_or_else(|| panic!("{name} was not seen"));
        assert_eq!(
            (fault.stored_offset, fault.dump_offset),
            (Some(place.0), place.1),
            "{name}"
        );
        assert!(chunks.concat().starts_with(&out), "{name}");
        assert_eq!(
            (outcome.stored_bytes, outcome.sha256),
            (damaged.len() as u64, sha256(&damaged)),
            "{name}"
        );
    }
}

/// A chunk of gzip has no checksum of its own: some bits of it can change and it is still a chunk, of another text.
#[test]
fn text_with_a_known_sum_is_read_as_it_was_or_not_at_all() {
    let text =
        b"CREATE TABLE t (\n    a text DEFAULT 'abc'::text,\n    b int DEFAULT 17\n);\n".to_vec();
    let (bytes, bare) = store(
        Codec::Gzip { level: Some(6) },
        &[text.clone(), vec![b'1'; 9]],
    );
    let mut index = bare.clone();
    index.set_around_rows(vec![Some(sha256(&text)), None]);
    let range = index.start_of(0).0 as usize..index.start_of(1).0 as usize;
    let mut unseen = 0;
    for bit in 0..range.len() * 8 {
        let mut flipped = bytes[range.clone()].to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let part = |index| {
            read(
                &flipped,
                &Layout::part(Codec::Gzip { level: None }, index, 0..1),
                99,
            )
        };
        let (out, outcome) = part(&bare);
        unseen += usize::from(outcome.fault.is_none() && out != text);
        let (out, outcome) = part(&index);
        assert!(outcome.fault.is_some() || out == text, "bit {bit}");
    }
    assert!(unseen > 0, "no bit of it shows what the sum is for");
    let (out, outcome) = read(
        &bytes,
        &Layout::whole(Codec::Gzip { level: None }, &index),
        99,
    );
    assert_eq!((outcome.fault, out.len()), (None, text.len() + 9));
}

#[test]
fn a_bomb_without_index_ends_at_its_limit() {
    let (bomb, _) = store(CODECS[0], &vec![vec![0; 1 << 20]; 64]);
    let mut most = 0;
    let mut take = |piece: &[u8]| {
        most += piece.len();
        Ok(())
    };
    let outcome = read_serially(
        pieces(&bomb, 4096),
        &Identities::default(),
        1 << 20,
        &Progress::default(),
        &mut take,
    )
    .unwrap();
    assert!(
        outcome
            .fault
            .unwrap()
            .message
            .contains("more than 1048576 bytes")
    );
    assert_eq!(outcome.sha256, sha256(&bomb));
    assert!(most <= 1 << 20);
}

#[test]
fn an_error_of_the_source_is_no_damage() {
    let (bytes, index) = store(CODECS[0], &chunks());
    let broken = || pieces(&bytes[..10_000], 1000).chain([Err("cut".to_owned())]);
    let mut take = |_: &[u8]| Ok(());
    let layout = Layout::whole(CODECS[0], &index);
    let progress = Progress::default();
    let read = read_chunks(broken(), Access::Plain, &layout, 2, &progress, &mut take);
    assert_eq!(read.unwrap_err(), "cut");
    assert_eq!(
        read_serially(
            broken(),
            &Identities::default(),
            u64::MAX,
            &progress,
            &mut take
        )
        .unwrap_err(),
        "cut"
    );
}

#[test]
fn a_consumer_that_leaves_ends_the_reading() {
    let (bytes, index) = store(CODECS[2], &vec![vec![b'x'; 100_000]; 200]);
    for is_serial in [false, true] {
        let mut count = 0;
        let mut take = |_: &[u8]| {
            count += 1;
            if count > 2 { Err(Closed) } else { Ok(()) }
        };
        let layout = Layout::whole(CODECS[2], &index);
        let progress = Progress::default();
        let read = if is_serial {
            read_serially(
                pieces(&bytes, 4096),
                &Identities::default(),
                u64::MAX,
                &progress,
                &mut take,
            )
        } else {
            read_chunks(
                pieces(&bytes, 4096),
                Access::Plain,
                &layout,
                2,
                &progress,
                &mut take,
            )
        };
        let outcome = read.unwrap();
        assert!(
            outcome.is_left && outcome.stored_bytes < bytes.len() as u64,
            "{outcome:?}"
        );
        assert_eq!(count, 3);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn no_flipped_bit_goes_unseen(place in any::<prop::sample::Index>(), bit in 0u32..8, codec in 0usize..3) {
        let chunks = &chunks()[..4];
        let (bytes, index) = store(CODECS[codec], chunks);
        let mut flipped = bytes.clone();
        let at = place.index(bytes.len());
        flipped[at] ^= 1 << bit;
        let (out, outcome) = read(&flipped, &Layout::whole(CODECS[codec], &index), 7777);
        prop_assert!(outcome.sha256 != sha256(&bytes));
        // Plain text has no checksum of its own, and zstd has bits that mean nothing.
        let is_harmless = codec == 2 || (codec == 1 && out == chunks.concat());
        prop_assert!(outcome.fault.is_some() || is_harmless, "byte {} bit {}", at, bit);
    }
}

/// A key, and everything that it opens.
struct Key {
    identities: Arc<Identities>,
    recipients: Recipients,
}

fn key() -> Key {
    let key = age::x25519::Identity::generate();
    let mut identities = Identities::default();
    identities.add(&key.to_string()).unwrap();
    Key {
        identities: Arc::new(identities),
        recipients: Recipients::parse(&[key.to_public().to_string()]).unwrap(),
    }
}

fn read_sealed(bytes: &[u8], key: &Key, layout: &Layout<'_>) -> (Vec<u8>, Outcome) {
    let mut out = Vec::new();
    let mut take = |piece: &[u8]| {
        out.extend_from_slice(piece);
        Ok(())
    };
    let access = Access::Whole(Arc::clone(&key.identities));
    let progress = Progress::default();
    let read = read_chunks(pieces(bytes, 5000), access, layout, 3, &progress, &mut take);
    (out, read.unwrap())
}

#[test]
fn what_was_encrypted_reads_back_with_its_key_alone() {
    let (chunks, key, other) = (chunks(), key(), key());
    for codec in CODECS {
        let (plain, index) = store(codec, &chunks);
        let bytes = key.recipients.seal_all(&plain).unwrap();
        let layout = Layout::whole(codec, &index);
        let (out, outcome) = read_sealed(&bytes, &key, &layout);
        assert_eq!(outcome.fault, None, "{codec:?}");
        assert!(out == chunks.concat());
        // What is hashed is what is stored.
        let stored = (outcome.stored_bytes, outcome.sha256);
        assert_eq!(stored, (bytes.len() as u64, sha256(&bytes)));
        let (out, outcome) = read_sealed(&bytes, &other, &layout);
        assert!(out.is_empty() && outcome.fault.is_some());
        assert_eq!(outcome.sha256, sha256(&bytes));
        let mut out = Vec::new();
        let mut take = |piece: &[u8]| {
            out.extend_from_slice(piece);
            Ok(())
        };
        let (limit, progress) = (chunks.concat().len() as u64, Progress::default());
        let serially = pieces(&bytes, 5000);
        let read = read_serially(serially, &key.identities, limit, &progress, &mut take);
        assert_eq!(read.unwrap().fault, None, "{codec:?}");
        assert!(out == chunks.concat());
    }
}

#[test]
fn an_encrypted_part_is_read_alone() {
    let (chunks, key) = (chunks(), key());
    for codec in CODECS {
        let (plain, index) = store(codec, &chunks);
        let bytes = key.recipients.seal_all(&plain).unwrap();
        let front_bytes = bytes.len() - plain.len() - 16 * plain.len().div_ceil(65_536);
        let places = Places::new(front_bytes as u64 - 16);
        for (from, to) in [(0, 1), (5, 9), (19, 20), (0, 20)] {
            let wanted = index.start_of(from).0..index.start_of(to).0;
            let part = places.part(wanted.clone(), bytes.len() as u64);
            let access = Access::Part {
                identities: Arc::clone(&key.identities),
                front: Bytes::copy_from_slice(&bytes[..front_bytes]),
                start: part.range.start,
                wanted,
            };
            let stretch = &bytes[part.range.start as usize..part.range.end as usize];
            let mut out = Vec::new();
            let mut take = |piece: &[u8]| {
                out.extend_from_slice(piece);
                Ok(())
            };
            let (layout, progress) = (Layout::part(codec, &index, from..to), Progress::default());
            let read = read_chunks(
                pieces(stretch, 999),
                access,
                &layout,
                2,
                &progress,
                &mut take,
            );
            assert_eq!(read.unwrap().fault, None, "{codec:?} {from}..{to}");
            assert!(out == chunks[from..to].concat());
        }
    }
}

/// Cut by a byte or at a chunk's end, lengthened, chunks swapped, the header of another file.
#[test]
fn each_damage_of_an_encrypted_file_is_told() {
    let (chunks, key) = (chunks(), key());
    let codec = Codec::Gzip { level: None };
    let (plain, index) = store(codec, &chunks);
    let bytes = key.recipients.seal_all(&plain).unwrap();
    let other = key.recipients.seal_all(&plain).unwrap();
    let chunks_from = bytes.len() - plain.len() - 16 * plain.len().div_ceil(65_536);
    let whole_chunk = 65_536 + 16;
    let mut swapped = bytes.clone();
    let (left, right) = swapped.split_at_mut(chunks_from + whole_chunk);
    left[chunks_from..].swap_with_slice(&mut right[..whole_chunk]);
    let longer = [&bytes[..], b"x"].concat();
    let foreign = [&other[..chunks_from], &bytes[chunks_from..]].concat();
    let damaged: [(&str, &[u8]); 8] = [
        ("cut by a byte", &bytes[..bytes.len() - 1]),
        (
            "cut at a chunk's end",
            &bytes[..chunks_from + 2 * whole_chunk],
        ),
        ("cut behind the nonce", &bytes[..chunks_from]),
        ("cut in the header", &bytes[..50]),
        ("nothing", b""),
        ("lengthened", &longer),
        ("swapped", &swapped),
        ("another's header", &foreign),
    ];
    for (name, damaged) in damaged {
        let layout = Layout::whole(codec, &index);
        let (out, outcome) = read_sealed(damaged, &key, &layout);
        assert!(outcome.fault.is_some(), "{name}");
        assert!(chunks.concat().starts_with(&out), "{name}");
        assert_eq!(outcome.sha256, sha256(damaged), "{name}");
        let mut take = |_: &[u8]| Ok(());
        let progress = Progress::default();
        let serially = pieces(damaged, 5000);
        let read = read_serially(serially, &key.identities, u64::MAX, &progress, &mut take);
        assert!(read.unwrap().fault.is_some(), "{name}");
    }
}

/// The last chunk of a text of a multiple of 64 KiB is as long as the others.
#[test]
fn a_text_of_whole_chunks_reads_back() {
    let key = key();
    for count in [1, 2, 5] {
        let chunks = vec![vec![b'x'; 65_536]; count];
        let (plain, index) = store(Codec::None, &chunks);
        let bytes = key.recipients.seal_all(&plain).unwrap();
        let layout = Layout::whole(Codec::None, &index);
        let (out, outcome) = read_sealed(&bytes, &key, &layout);
        assert_eq!((outcome.fault, out.len()), (None, plain.len()));
        let (_, outcome) = read_sealed(&bytes[..bytes.len() - 1], &key, &layout);
        assert!(outcome.fault.is_some());
    }
}

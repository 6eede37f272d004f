//! How much a search for repeats would find, and deflate without one, for data that has none: bytea in hex, random keys.
//!
//! On such data the search takes four fifths of the time and makes the result larger, because the short repeats that
//! it finds by chance cost more than the letters they stand for. Blocks with dynamic codes and literals only are
//! ordinary deflate (RFC 1951 section 3.2.7), read by every decoder.

/// How much one set of codes stands for. Its description takes 140 bytes.
const BLOCK_BYTES: usize = 256 * 1024;

/// Literals and the end-of-block symbol.
const SYMBOLS: usize = 257;

/// End of block.
const END: usize = 256;

/// Longest code that deflate knows.
const MAX_CODE_BITS: u8 = 15;

/// Pieces of a chunk that are looked at.
const PROBES: usize = 4;

/// Length of such a piece; repeats are looked for inside it.
const PROBE_BYTES: usize = 16 * 1024;

/// The low six bytes of a word: the shortest repeat that is certainly worth more than its letters.
const REPEAT_MASK: u64 = (1 << 48) - 1;

/// A slot for each position of a probe.
const SLOT_BITS: u32 = 14;
const SLOTS: usize = 1 << SLOT_BITS;

/// Share of positions with a repeat, in percent, below which a search is not worth its time. Text, JSON and rows of
/// numbers have more than thirty, random hex digits less than one.
const FEW_PERCENT: usize = 3;

/// Share above which a search finds repeats at nearly every position: JSON has sixty, text thirty-five, rows of numbers
/// less than fifty.
const MANY_PERCENT: usize = 55;

/// What a search for repeats in a chunk would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    /// Next to nothing.
    Few,
    /// What text usually has.
    Some,
    /// One nearly everywhere.
    Many,
}

impl Repeats {
    /// Looks at a few pieces of `raw`. A short chunk counts as usual.
    pub(super) fn look_for(raw: &[u8]) -> Self {
        if raw.len() < PROBES * PROBE_BYTES {
            return Self::Some;
        }
        let stride = (raw.len() - PROBE_BYTES) / (PROBES - 1);
        let mut seen = Box::new([0; SLOTS]);
        let found: usize = (0..PROBES)
            .map(|at| count_repeats(&raw[at * stride..][..PROBE_BYTES], &mut seen))
            .sum();
        match found * 100 / (PROBES * PROBE_BYTES) {
            0..FEW_PERCENT => Self::Few,
            MANY_PERCENT.. => Self::Many,
            _ => Self::Some,
        }
    }
}

/// Counts the positions whose letters were seen before. A table that keeps the last letters of each slot forgets a few,
/// which the limits allow for.
fn count_repeats(probe: &[u8], seen: &mut [u64; SLOTS]) -> usize {
    seen.fill(0);
    let mut found = 0;
    for window in probe.windows(size_of::<u64>()) {
        let letters = window.try_into().map_or(0, u64::from_le_bytes) & REPEAT_MASK;
        let slot = (letters.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOT_BITS)) as usize;
        found += usize::from(std::mem::replace(&mut seen[slot], letters) == letters);
    }
    found
}

/// Appends `raw` as blocks of literals, ended by a full flush.
pub(super) fn deflate(raw: &[u8], out: &mut Vec<u8>) {
    let mut bits = BitWriter {
        out,
        held: 0,
        count: 0,
    };
    for block in raw.chunks(BLOCK_BYTES) {
        write_block(block, &mut bits);
    }
    // A stored block of length zero, which is what a flush looks like.
    bits.put(0, 3);
    bits.pad();
    bits.out.extend_from_slice(&[0x00, 0x00, 0xff, 0xff]);
}

fn write_block(block: &[u8], bits: &mut BitWriter<'_>) {
    let lengths = code_lengths(&count(block));
    write_header(&lengths, bits);
    let codes = codes(&lengths);
    bits.out.reserve(block.len() / 2);
    let mut quads = block.chunks_exact(4);
    for quad in &mut quads {
        // Four codes have at most 60 bits, and at most 3 are held: they fit one word.
        let (mut joined, mut length) = (0u64, 0);
        for &byte in quad {
            let (code, code_bits) = codes[usize::from(byte)];
            joined |= u64::from(code) << length;
            length += u32::from(code_bits);
        }
        bits.put_many(joined, length);
    }
    for symbol in quads
        .remainder()
        .iter()
        .map(|&byte| usize::from(byte))
        .chain([END])
    {
        let (code, code_bits) = codes[symbol];
        bits.put(u64::from(code), u32::from(code_bits));
    }
}

fn count(block: &[u8]) -> [u32; SYMBOLS] {
    let mut counts = [0; SYMBOLS];
    block
        .iter()
        .for_each(|&byte| counts[usize::from(byte)] += 1);
    counts[END] = 1;
    counts
}

/// Lengths of a Huffman code. Counts are flattened until no code is longer than deflate allows, which real data never
/// needs.
fn code_lengths(counts: &[u32; SYMBOLS]) -> [u8; SYMBOLS] {
    let mut counts = *counts;
    loop {
        let lengths = huffman(&counts);
        if lengths.iter().all(|&length| length <= MAX_CODE_BITS) {
            return lengths;
        }
        counts
            .iter_mut()
            .filter(|count| **count > 0)
            .for_each(|count| *count = *count / 2 + 1);
    }
}

/// Joins the two rarest trees until one is left; a symbol's code is as long as its leaf is deep.
fn huffman(counts: &[u32; SYMBOLS]) -> [u8; SYMBOLS] {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    let used = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let mut trees: BinaryHeap<Reverse<(u32, usize)>> = used
        .map(|(symbol, &count)| Reverse((count, symbol)))
        .collect();
    let mut parents = vec![0usize; SYMBOLS * 2];
    let mut next = SYMBOLS;
    while let (Some(Reverse((one, left))), Some(Reverse((other, right)))) =
        (trees.pop(), trees.pop())
    {
        (parents[left], parents[right]) = (next, next);
        trees.push(Reverse((one + other, next)));
        next += 1;
        if trees.len() == 1 {
            break;
        }
    }
    let root = next - 1;
    let mut lengths = [0; SYMBOLS];
    for (symbol, length) in lengths
        .iter_mut()
        .enumerate()
        .filter(|(symbol, _)| counts[*symbol] > 0)
    {
        let mut at = symbol;
        while at != root {
            at = parents[at];
            *length += 1;
        }
    }
    lengths
}

/// Canonical codes, with their bits in the order in which deflate writes them.
fn codes(lengths: &[u8; SYMBOLS]) -> [(u16, u8); SYMBOLS] {
    let mut codes = [(0, 0); SYMBOLS];
    let mut code = 0u16;
    for length in 1..=MAX_CODE_BITS {
        for (symbol, &its) in lengths.iter().enumerate() {
            if its == length {
                codes[symbol] = (code.reverse_bits() >> (16 - u32::from(length)), length);
                code += 1;
            }
        }
        code <<= 1;
    }
    codes
}

/// The block's header: every code length in four bits, without run lengths, and two distance codes that nothing uses,
/// because some decoders want a complete set.
fn write_header(lengths: &[u8; SYMBOLS], bits: &mut BitWriter<'_>) {
    /// Order in which deflate lists the lengths of the code-length code.
    const ORDER: [u8; 19] = [
        16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
    ];
    bits.put(0b100, 3); // not the last block, dynamic codes
    bits.put(0, 5); // 257 literal and length codes
    bits.put(1, 5); // 2 distance codes
    bits.put(15, 4); // 19 lengths of the code-length code
    for symbol in ORDER {
        bits.put(if symbol < 16 { 4 } else { 0 }, 3);
    }
    // Sixteen codes of four bits each are the numbers themselves, written from their high bit on.
    for &length in lengths.iter().chain(&[1, 1]) {
        bits.put(u64::from(length.reverse_bits() >> 4), 4);
    }
}

/// Writes bits from the low end of each byte on.
struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl BitWriter<'_> {
    /// Takes at most 48 bits.
    fn put(&mut self, bits: u64, count: u32) {
        self.held |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// Takes at most 60 bits.
    fn put_many(&mut self, bits: u64, count: u32) {
        let joined = u128::from(bits) << self.count | u128::from(self.held);
        let total = self.count + count;
        let whole = (total / 8) as usize;
        self.out.extend_from_slice(&joined.to_le_bytes()[..whole]);
        self.held = (joined >> (whole * 8)) as u64;
        self.count = total % 8;
    }

    fn pad(&mut self) {
        self.put(0, (8 - self.count) % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inflate(deflated: &[u8], length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 1);
        let mut inflate = flate2::Decompress::new(false);
        inflate
            .decompress_vec(deflated, &mut out, flate2::FlushDecompress::Sync)
            .unwrap();
        assert_eq!(
            inflate.total_in() as usize,
            deflated.len(),
            "the flush was read"
        );
        out
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn hex(length: usize) -> Vec<u8> {
        noise(length / 2)
            .iter()
            .flat_map(|byte| format!("{byte:02x}").into_bytes())
            .collect()
    }

    #[test]
    fn random_hex_takes_half_its_size() {
        let hex = hex(1 << 20);
        assert_eq!(Repeats::look_for(&hex), Repeats::Few);
        let mut out = Vec::new();
        deflate(&hex, &mut out);
        assert!(
            out.len() < hex.len() * 51 / 100,
            "{} of {}",
            out.len(),
            hex.len()
        );
        assert!(inflate(&out, hex.len()) == hex);
    }

    #[test]
    fn text_has_repeats() {
        let rows: Vec<u8> = (0..40_000u32)
            .flat_map(|n| format!("{n}\t{}\tuser\n", n % 977).into_bytes())
            .collect();
        let json: Vec<u8> = (0..9_000u32)
            .flat_map(|n| format!("{{\"id\": {n}, \"kind\": \"click\"}}\n").into_bytes())
            .collect();
        assert_eq!(Repeats::look_for(&rows), Repeats::Some);
        assert_eq!(Repeats::look_for(&json), Repeats::Many);
        assert_eq!(Repeats::look_for(b"short"), Repeats::Some);
    }

    #[test]
    fn lopsided_counts_stay_within_deflates_limits() {
        // Fibonacci counts make the deepest trees.
        let mut counts = [0; SYMBOLS];
        let (mut one, mut two) = (1u32, 1u32);
        for count in counts.iter_mut().take(40) {
            *count = one;
            (one, two) = (two, one + two);
        }
        counts[END] = 1;
        let lengths = code_lengths(&counts);
        assert!(lengths.iter().all(|&length| length <= MAX_CODE_BITS));
        let used: f64 = lengths
            .iter()
            .filter(|&&length| length > 0)
            .map(|&length| 0.5f64.powi(length.into()))
            .sum();
        assert!((used - 1.0).abs() < 1e-9, "the code is complete: {used}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn every_block_reads_back(
            bytes in prop::collection::vec(any::<u8>(), 1..3000),
            letters in prop::collection::vec(b'a'..b'd', 0..3000),
            times in 1usize..200,
        ) {
            for raw in [bytes, letters.repeat(times)] {
                let mut out = Vec::new();
                deflate(&raw, &mut out);
                prop_assert!(inflate(&out, raw.len()) == raw);
            }
        }
    }
}

//! Sizes of the parts of a multipart upload: small while the object is small, large enough that no object runs out of parts.
//!
//! S3 takes at most 10,000 parts of 5 MiB to 5 GiB (the last may be smaller) and objects up to 5 TiB. Sizes are all
//! equal while the expectation holds, because Cloudflare R2 refuses parts of unequal length; they never depend on
//! anything but the expectation and the bytes sent so far.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>

/// Smallest part that S3 takes, the last one excepted.
pub const MIN_PART_BYTES: u64 = 5 * MIB;
/// Largest part that S3 takes.
pub const MAX_PART_BYTES: u64 = 5 * 1024 * MIB;
/// Most parts that one upload may have.
pub const MAX_PARTS: u32 = 10_000;
/// Largest object that S3 takes.
pub const MAX_OBJECT_BYTES: u64 = 5 * 1024 * 1024 * MIB;

const MIB: u64 = 1024 * 1024;

/// Part size of small objects: two parts in flight and one filling stay at 21 MiB.
const SMALL_PART_BYTES: u64 = 7 * MIB;

/// Part size that may be used below [`MODEST_OBJECT_BYTES`]: one in flight and one filling stay at 28 MiB.
const MODEST_PART_BYTES: u64 = 14 * MIB;

/// Up to here parts stay at [`MODEST_PART_BYTES`], so that memory is bounded for all but the largest databases.
const MODEST_OBJECT_BYTES: u64 = 100_000_000_000;

/// Taken as expected when nobody knows better; covers most databases with equal parts.
const LEAST_EXPECTED_BYTES: u64 = 16 * 1024 * MIB;

/// Parts that may be used up by what was expected and by the stretch to [`MODEST_OBJECT_BYTES`]. The 2,000 left carry
/// any object to 5 TiB: at a growth of 1/400 it takes 1,230 of them to come from 100 GB to parts of 5 GiB, and the
/// other 770 hold 4.1 TB.
const PLANNED_PARTS: u64 = 8_000;

/// Share of the bytes sent so far that a part may have once the expectation is passed.
const GROWTH_DIVISOR: u64 = 400;

/// What a store takes at most in one upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most parts.
    pub max_parts: u32,
    /// Largest part, in bytes.
    pub max_part_bytes: u64,
}

impl Limits {
    /// Those of S3 and GCS.
    /// <https://cloud.google.com/storage/quotas#requests>
    pub const S3: Self = Self {
        max_parts: MAX_PARTS,
        max_part_bytes: MAX_PART_BYTES,
    };

    /// Those of Azure's block blobs. What its smaller parts cost at the end, its larger number of parts gives back.
    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs>
    pub const AZURE: Self = Self {
        max_parts: 50_000,
        max_part_bytes: 4_000 * MIB,
    };

    /// Returns a part's size as far as the store takes it.
    pub fn cap(self, part_bytes: u64) -> u64 {
        part_bytes.min(self.max_part_bytes)
    }
}

/// Tells how large the next part of an upload is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSizes {
    base_bytes: u64,
    expected_bytes: u64,
    is_equal: bool,
}

impl PartSizes {
    /// Plans for an object of about `expected_stored_bytes`; a wrong or missing guess costs memory, never correctness.
    pub fn new(expected_stored_bytes: Option<u64>) -> Self {
        let guess = expected_stored_bytes.unwrap_or(0);
        // A sixteenth more, so that a database that grew a little since the guess was made keeps equal parts.
        let expected_bytes = guess
            .saturating_add(guess / 16)
            .clamp(LEAST_EXPECTED_BYTES, MAX_OBJECT_BYTES);
        Self {
            base_bytes: smallest_base(expected_bytes),
            expected_bytes,
            is_equal: false,
        }
    }

    /// Makes all parts `part_bytes` long, as configured; `None` where S3 does not take parts of that size.
    pub fn equal(part_bytes: u64) -> Option<Self> {
        (MIN_PART_BYTES..=MAX_PART_BYTES)
            .contains(&part_bytes)
            .then_some(Self {
                base_bytes: part_bytes,
                expected_bytes: part_bytes.saturating_mul(u64::from(MAX_PARTS)),
                is_equal: true,
            })
    }

    /// Returns the size of the part that follows `bytes_so_far` bytes in full parts.
    pub fn size_of(&self, bytes_so_far: u64) -> u64 {
        if self.is_equal || bytes_so_far < self.expected_bytes {
            return self.base_bytes;
        }
        let modest = self.base_bytes.max(MODEST_PART_BYTES);
        if bytes_so_far < MODEST_OBJECT_BYTES {
            return modest;
        }
        let grown = (bytes_so_far / GROWTH_DIVISOR).next_multiple_of(MIB);
        grown.clamp(modest, MAX_PART_BYTES)
    }

    /// Returns how many parts of `part_bytes` may be on their way while the next one fills.
    pub fn in_flight(part_bytes: u64) -> usize {
        if part_bytes <= SMALL_PART_BYTES { 2 } else { 1 }
    }
}

/// Finds the smallest equal size, in whole MiB, that leaves enough parts for an object larger than expected.
fn smallest_base(expected_bytes: u64) -> u64 {
    let rest = MODEST_OBJECT_BYTES.saturating_sub(expected_bytes);
    let left = PLANNED_PARTS - rest.div_ceil(MODEST_PART_BYTES);
    expected_bytes
        .div_ceil(left)
        .next_multiple_of(MIB)
        .max(SMALL_PART_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1024 * MIB;

    /// Cuts an object of `total` bytes and returns its parts.
    fn cut(sizes: PartSizes, total: u64) -> Vec<u64> {
        let (mut parts, mut sent) = (Vec::new(), 0);
        while sent < total {
            let part = sizes.size_of(sent).min(total - sent);
            parts.push(part);
            sent += part;
        }
        parts
    }

    fn is_uniform(parts: &[u64]) -> bool {
        parts[..parts.len() - 1]
            .iter()
            .all(|part| *part == parts[0])
            && parts.last() <= parts.first()
    }

    #[test]
    fn small_and_unknown_objects_have_parts_of_7_mib() {
        assert_eq!(
            cut(PartSizes::new(None), 20 * MIB),
            [7 * MIB, 7 * MIB, 6 * MIB]
        );
        assert!(is_uniform(&cut(PartSizes::new(None), 16 * GIB)));
        assert!(is_uniform(&cut(PartSizes::new(Some(1)), 16 * GIB)));
    }

    #[test]
    fn the_largest_object_fits_whatever_was_expected() {
        for expected in [
            0,
            1,
            16 * GIB,
            66_000_000_000,
            99_999_999_999,
            100_000_000_000,
        ] {
            for expected in [expected, expected * 3, expected * 10, expected * 30] {
                let parts = cut(PartSizes::new(Some(expected)), MAX_OBJECT_BYTES).len();
                assert!(parts <= MAX_PARTS as usize, "{expected}: {parts} parts");
            }
        }
    }

    #[test]
    fn a_store_with_smaller_parts_takes_the_largest_object_too() {
        for expected in [0, 16 * GIB, 100_000_000_000, MAX_OBJECT_BYTES] {
            let sizes = PartSizes::new(Some(expected));
            let (mut parts, mut sent) = (0, 0);
            while sent < 2 * MAX_OBJECT_BYTES {
                sent += Limits::AZURE.cap(sizes.size_of(sent));
                parts += 1;
            }
            assert!(parts <= Limits::AZURE.max_parts, "{expected}: {parts}");
        }
        assert_eq!(Limits::S3.cap(MAX_PART_BYTES), MAX_PART_BYTES);
        assert!(Limits::AZURE.cap(MAX_PART_BYTES) < MAX_PART_BYTES);
    }

    #[test]
    fn configured_sizes_are_checked_and_equal() {
        assert_eq!(PartSizes::equal(MIN_PART_BYTES - 1), None);
        assert_eq!(PartSizes::equal(MAX_PART_BYTES + 1), None);
        let parts = cut(PartSizes::equal(6 * MIB).unwrap(), 200_000 * MIB);
        assert!(is_uniform(&parts));
    }

    #[test]
    fn buffers_stay_within_32_mib_up_to_100_gb() {
        for part in [SMALL_PART_BYTES, MODEST_PART_BYTES] {
            let buffered = part * (PartSizes::in_flight(part) as u64 + 1);
            assert!(buffered <= 32 * MIB);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_object_fits(
            expected in proptest::option::of(0..=MAX_OBJECT_BYTES),
            total in 1..=MAX_OBJECT_BYTES,
        ) {
            let parts = cut(PartSizes::new(expected), total);
            prop_assert!(parts.len() <= MAX_PARTS as usize);
            prop_assert!(parts[..parts.len() - 1].iter().all(|part| *part >= MIN_PART_BYTES));
            prop_assert!(parts.iter().all(|part| *part <= MAX_PART_BYTES));
        }

        #[test]
        fn a_right_guess_makes_equal_parts(total in 1..=MAX_OBJECT_BYTES) {
            prop_assert!(is_uniform(&cut(PartSizes::new(Some(total)), total)));
        }

        #[test]
        fn parts_are_modest_up_to_100_gb(expected in 0..=93_000_000_000u64, sent in 0..MODEST_OBJECT_BYTES) {
            prop_assert!(PartSizes::new(Some(expected)).size_of(sent) <= MODEST_PART_BYTES);
        }

        #[test]
        fn a_right_guess_below_100_gb_is_modest(total in 1..=MODEST_OBJECT_BYTES) {
            prop_assert!(cut(PartSizes::new(Some(total)), total)[0] <= MODEST_PART_BYTES);
        }
    }
}

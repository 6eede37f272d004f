//! Any bytes, cut anywhere: the scanner never panics, and its answer does not depend on the cuts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_model::scan::{Scan, Scanner};

/// Pieces of a prime length up to this one: their ends fall everywhere.
const STEPS: [usize; 5] = [1, 2, 7, 31, 127];

fn scan(bytes: &[u8], step: usize) -> (Scan, Vec<u64>) {
    let mut scanner = Scanner::new();
    let mut cuts = Vec::new();
    for piece in bytes.chunks(step) {
        scanner.push(piece);
        cuts.extend(scanner.take_found().cuts);
        assert!(scanner.settled_until() <= scanner.position());
    }
    (scanner.finish(), cuts)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = scan(bytes, bytes.len().max(1));
    let step = STEPS[bytes.len() % STEPS.len()];
    assert_eq!(scan(bytes, step), whole, "in pieces of {step}");
    assert_eq!(whole.0.complete, whole.0.problems.is_empty());
});

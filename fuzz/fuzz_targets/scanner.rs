//! Any bytes, cut anywhere: the scanner never panics, and its answer does not depend on the cuts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep::model::scan::Scanner;

fuzz_target!(|input: (Vec<u8>, u16)| {
    let (bytes, step) = input;
    let mut whole = Scanner::new();
    whole.push(&bytes);
    let mut pieces = Scanner::new();
    for piece in bytes.chunks(usize::from(step).max(1)) {
        pieces.push(piece);
    }
    assert_eq!(
        format!("{:?}", whole.finish()),
        format!("{:?}", pieces.finish())
    );
});

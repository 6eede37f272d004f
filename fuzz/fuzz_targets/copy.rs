//! Any bytes as COPY rows: cut and decoded without a panic, and where they are cut makes no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_model::copy::{Line, Lines, Row};
use pgkeep_model::scan::TextEncoding;

fn rows(pieces: &[&[u8]], encoding: TextEncoding) -> Vec<Vec<Option<Vec<u8>>>> {
    let (mut lines, mut row, mut out) = (Lines::default(), Row::default(), Vec::new());
    let mut take = |line: Line<'_>| {
        row.read(line, 2, encoding);
        row.unescape(encoding);
        out.push((0..row.len()).map(|at| row.field(at).map(<[u8]>::to_vec)).collect());
        Ok::<(), ()>(())
    };
    for piece in pieces {
        lines.push(piece, &mut take).expect("the taker never fails");
    }
    out
}

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.first().map_or(0, |&byte| usize::from(byte) % bytes.len());
    for encoding in [TextEncoding::Utf8, TextEncoding::named("SJIS")] {
        assert_eq!(rows(&[bytes], encoding), rows(&[&bytes[..cut], &bytes[cut..]], encoding));
    }
});

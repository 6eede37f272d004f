//! Any bytes as the structure of a dump: read into objects without a panic, and compared with itself it is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_model::diff::{Objects, Side, compare, unified};
use pgkeep_model::scan::TextEncoding;

fuzz_target!(|bytes: &[u8]| {
    for encoding in [TextEncoding::Utf8, TextEncoding::named("SJIS")] {
        let objects = Objects::read(bytes, encoding);
        let changes = unified(("a", &objects), ("b", &Objects::default()), |_| true);
        assert!(changes.lines().all(|line| line.starts_with(['-', '+', '@', ' ', '\\'])));
        let side = Side::default().with_structure(objects);
        assert!(!compare(&side, &side).different);
    }
});

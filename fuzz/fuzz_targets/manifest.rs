//! Any bytes as a manifest: read or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep::model::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let _ = Manifest::read(bytes);
});

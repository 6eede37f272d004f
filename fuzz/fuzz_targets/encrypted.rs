//! Any bytes as an encrypted dump, whole and in parts: read or refused, never a panic, never endless.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_core::stream::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::encrypted(bytes));

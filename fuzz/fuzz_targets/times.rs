//! Any bytes as a list of times: read or refused, never a panic, and what was read reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_model::retention;

fuzz_target!(|bytes: &[u8]| retention::fuzz_times(bytes));

//! Any bytes as a configuration: read or refused, never a panic, never endless.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_model::config;

fuzz_target!(|bytes: &[u8]| config::fuzz(bytes));

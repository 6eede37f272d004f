//! Any text as a row limit: read or refused, never a panic, and a condition that is taken stays within its parentheses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_model::limits::{Limit, condition};

fuzz_target!(|text: &str| {
    let _ = text.parse::<Limit>();
    if let Ok(taken) = condition(text) {
        assert!(condition(&format!("({taken}\n)")).is_ok());
    }
});

//! Any text as a configuration, with a variable set and one not: read or refused, never a panic, never endless.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep::model::config;

fuzz_target!(|text: &str| {
    let env = |name: &str| (name == "SET").then(|| "value".to_owned());
    let _ = config::parse(text, env);
});

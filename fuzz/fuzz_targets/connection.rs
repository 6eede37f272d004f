//! Any text as a connection: read or refused, never a panic; what prints of it never holds the password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep::model::connection::Connection;

/// Long and odd enough not to be in a host or user by chance.
const SECRET: &str = "fuzzed-secret-7Qz";

fuzz_target!(|text: &str| {
    let _ = Connection::parse(text);
    let with_password = format!("postgresql://user:{SECRET}@{text}");
    if let Ok(connection) = Connection::parse(&with_password) {
        assert!(!format!("{connection} {connection:?}").contains(SECRET));
    }
});

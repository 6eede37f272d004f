//! Any text as a connection: read or refused, never a panic; what prints of it never holds the password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_model::connection::Connection;

/// Long and odd enough not to be in a host or user by chance.
const SECRET: &str = "fuzzed-secret-7Qz";

fuzz_target!(|text: &str| {
    let _ = text.parse::<Connection>();
    if text.contains(SECRET) {
        return;
    }
    for with_password in [
        format!("postgresql://user:{SECRET}@{text}"),
        format!("host=h password={SECRET} {text}"),
    ] {
        match with_password.parse::<Connection>() {
            Ok(connection) => {
                assert!(!format!("{connection} {connection:?}").contains(SECRET));
                assert!(!connection.label().contains(SECRET));
            }
            Err(error) => assert!(!format!("{error} {error:?}").contains(SECRET)),
        }
    }
});

//! What the integration tests share: sandbox, real PostgreSQL, scripted programs, dumps.
//!
//! Every run has a time limit, and after every run no child process and no secret may be left (oracles O5 and O6).

pub mod data;
pub mod fake;
pub mod postgres;
pub mod processes;
pub mod sandbox;
pub mod secret;

pub use fake::Fake;
pub use postgres::{Server, postgres};
pub use sandbox::Sandbox;
pub use secret::CANARY;

use std::io::Write;

/// Tells why a test does nothing; fails it where everything must run.
///
/// Written past the test runner's capture, which would swallow the reason of a passed test.
pub fn skip(reason: &str) {
    let test = std::thread::current();
    let test = test.name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("PGKEEP_TEST_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test} must not be skipped here: {reason}"
    );
    writeln!(std::io::stderr(), "skipped {test}: {reason}").expect("stderr takes a line");
}

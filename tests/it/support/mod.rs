//! What the integration tests share: sandbox, real PostgreSQL, scripted programs, dumps.
//!
//! Every run has a time limit, and after every run no child process and no secret may be left (oracles O5 and O6).

pub mod data;
pub mod fake;
pub mod mail;
pub mod oracle;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod receiver;
pub mod s3;
pub mod sandbox;
pub mod scripted_s3;
pub mod secret;

pub use fake::Fake;
pub use oracle::{Oracle, Place};
pub use postgres::{Server, postgres};
pub use s3::S3Server;
pub use sandbox::Sandbox;
pub use secret::CANARY;

use std::io::Write;
use std::path::{Path, PathBuf};

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

/// Returns a program of `tests/servers`: an example, so that `cargo install` leaves it out.
pub fn example(name: &str) -> PathBuf {
    let pgkeep = Path::new(env!("CARGO_BIN_EXE_pgkeep"));
    let path = pgkeep.with_file_name("examples").join(name);
    assert!(
        path.is_file(),
        "`{}` is not built; `cargo test` does it, `cargo test --test it` needs `cargo build --examples` first",
        path.display()
    );
    path
}

//! What the integration tests share: sandbox, real PostgreSQL, scripted programs, dumps.
//!
//! Every run has a time limit, and after every run no child process and no secret may be left (oracles O5 and O6).

pub mod azurite;
pub mod browser;
pub mod clock;
pub mod data;
#[cfg(feature = "sentry")]
pub mod envelope;
pub mod fake;
pub mod gcs;
pub mod mail;
pub mod moto;
pub mod oracle;
pub mod pooler;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod rclone;
pub mod receiver;
pub mod s3;
pub mod sandbox;
pub mod schema;
pub mod scripted_s3;
pub mod secret;
pub mod web;

pub use fake::Fake;
pub use oracle::{Oracle, Place};
pub use postgres::{Server, postgres};
pub use s3::S3Server;
pub use sandbox::Sandbox;
pub use secret::CANARY;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Tells why a test does nothing; fails it where everything must run.
///
/// Written past the test runner's capture, which would swallow the reason of a passed test.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("PGKEEP_TEST_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test} must not be skipped here: {reason}"
    );
    writeln!(std::io::stderr(), "skipped {test}: {reason}").expect("stderr takes a line");
}

/// Returns a program of `crates/testing`: `cargo test --workspace` builds them, and where they are missing this does.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let pgkeep = Path::new(env!("CARGO_BIN_EXE_pgkeep"));
    let path = pgkeep.with_file_name(name);
    BUILT.get_or_init(|| {
        if !path.is_file() {
            build_programs(pgkeep);
        }
    });
    path
}

/// Builds the programs of the tests beside `pgkeep`, in the profile of its folder.
fn build_programs(pgkeep: &Path) {
    let folder = pgkeep.parent().expect("a program lies in a folder");
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "pgkeep-testing",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(folder.parent().expect("profiles lie in the target folder"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(
        built.success(),
        "the programs of `crates/testing` were not built"
    );
}

//! The programs do at least this: they start, and say what they are. Having this test makes `cargo test` build them.

use std::process::{Command, Output};

use tempfile::TempDir;

fn output(command: &mut Command) -> Output {
    command
        .output()
        .expect("the program was built for this test")
}

#[test]
fn the_s3_server_says_how_it_is_used() {
    let output = output(&mut Command::new(env!("CARGO_BIN_EXE_s3_server")));
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("usage: S3_SECRET=… s3_server ROOT PORT KEY")
    );
}

#[test]
fn a_stand_in_without_a_script_ends_as_misused() {
    let folder = TempDir::new().unwrap();
    let pg_dump = folder.path().join("pg_dump");
    std::fs::copy(env!("CARGO_BIN_EXE_fake_pg"), &pg_dump).unwrap();
    let output = output(&mut Command::new(pg_dump));
    assert_eq!(output.status.code(), Some(99), "{output:?}");
}

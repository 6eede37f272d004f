//! Dumps and programs of other versions and settings than ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{SMALL, Shelf, Target, dump};
use crate::support::{Server, postgres};

/// Puts a `psql` in front of the real one that tells another version and keeps what it is fed.
fn old_psql(shelf: &Shelf, server: &Server, version: &str) -> PathBuf {
    let bin = shelf.sandbox.path("old-bin");
    fs::create_dir_all(&bin).unwrap();
    for program in ["pg_dump", "pg_dumpall"] {
        let _ = std::os::unix::fs::symlink(server.bin().join(program), bin.join(program));
    }
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n  --version) echo 'psql (PostgreSQL) {version}' ;;\n  *) tee -a {} | {} \"$@\" ;;\nesac\n",
        shelf.sandbox.path("fed.sql").display(),
        server.bin().join("psql").display(),
    );
    fs::write(bin.join("psql"), script).unwrap();
    fs::set_permissions(bin.join("psql"), fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

#[test]
fn an_old_psql_sees_nothing_that_it_does_not_know() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let restricted = format!("\\restrict aB3\n\nSET transaction_timeout = 0;\n{SMALL}");
    let text = dump(&restricted) + "\n\\unrestrict aB3\n\n";
    for (version, restricts) in [("15.13", false), ("15.14", true)] {
        let target = Target::beside(&database, server);
        let shelf = Shelf::new();
        let bin = old_psql(&shelf, server, version).display().to_string();
        let file = shelf.sandbox.write("new.sql", &text).display().to_string();
        shelf
            .restore(&file, &target.url(), &["--bin-dir", &bin])
            .expect(0);
        let fed = fs::read_to_string(shelf.sandbox.path("fed.sql")).unwrap();
        assert!(
            !fed.contains("aB3"),
            "the dump's own key never reaches psql"
        );
        assert_eq!(fed.contains("\\restrict "), restricts, "{version}");
        assert_eq!(fed.contains("transaction_timeout"), server.major() >= 17);
        assert!(fed.contains("\nBEGIN;\n") || !fed.contains("\nCOMMIT;\n"));
    }
}

/// The same moment is another text in another time zone.
#[test]
fn a_plain_dump_compares_in_its_own_time_zone() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let shelf = Shelf::new();
    let text = dump(
        "CREATE TABLE public.t (at timestamp with time zone);\nCOPY public.t (at) FROM stdin;\n2026-01-01 12:00:00+01\n\\.\n",
    );
    let file = shelf
        .sandbox
        .write("berlin.sql", text)
        .display()
        .to_string();
    let target = Target::beside(&database, server);
    for url in [target.url(), database.url()] {
        let outcome = shelf.restore(&file, &url, &[]).expect(23);
        assert!(
            outcome.exit_error()["hints"]
                .to_string()
                .contains("--dump-time-zone"),
            "{outcome}"
        );
        shelf
            .restore(&file, &url, &["--dump-time-zone", "Europe/Berlin"])
            .expect(0);
    }
}

//! Dumps and programs of other versions and settings than ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{SMALL, Shelf, Target, dump};
use crate::support::postgres::USER;
use crate::support::proxy::Proxy;
use crate::support::{CANARY, Server, postgres};

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

/// Bytes in the other form, and names of relations that are all quoted: equal values stay equal.
#[test]
fn a_plain_dump_compares_in_its_own_text_form() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let shelf = Shelf::new();
    let escape = dump(
        "CREATE TABLE public.t (id integer, b bytea);\nCOPY public.t (id, b) FROM stdin;\n1\t\\\\000ff\n2\tabc\n3\t\\N\n\\.\n",
    );
    let quoted = dump(
        "CREATE TABLE \"public\".\"t\" (\n    \"id\" integer,\n    \"r\" \"regclass\"\n);\n\
         COPY \"public\".\"t\" (\"id\", \"r\") FROM stdin;\n1\t\"public\".\"t\"\n\\.\n",
    );
    for (name, text) in [("escape", escape), ("quoted", quoted)] {
        let path = shelf.sandbox.write(format!("{name}.sql"), &text);
        let file = path.display().to_string();
        let target = Target::beside(&database, server);
        shelf.restore(&file, &target.url(), &[]).expect(0);
        let other = server.database();
        shelf
            .restore(&file, &other.url(), &["--table", "t"])
            .expect(0);
        let piped = server.database();
        let run = shelf.run("-", &piped.url(), &[]).stdin(text.as_str()).run();
        assert_eq!(run.status.code(), Some(0), "{name}: {run}");
    }
}

/// A pooler that refuses settings leaves values in the form of the database: that form is compared, not another.
#[test]
fn a_backup_in_another_text_form_compares_in_that_one() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let name = database.name();
    database.sql(&format!(
        "ALTER DATABASE {name} SET bytea_output = 'escape'; CREATE TABLE t (id int PRIMARY KEY, b bytea, m money);
         INSERT INTO t VALUES (1, '\\x00ff', 1.5::numeric::money), (2, 'abc', NULL)"
    ));
    let proxy = Proxy::refusing_options(server.port());
    let direct = server.url_as(USER, CANARY, name);
    let url = direct.replacen(&server.port().to_string(), &proxy.port().to_string(), 1);
    let shelf = Shelf::new();
    let flags = ["--json", "backup", "--storage", "backups", "--name", "shop"];
    let run = shelf.sandbox.pgkeep(flags).env("DATABASE_URL", url);
    let backup = run.run().expect(0).summary();
    assert!(
        backup.to_string().contains("text_form_not_fixed"),
        "{backup}"
    );
    let show = ["--json", "show", "--storage", "backups"];
    let manifest = shelf.sandbox.pgkeep(show).run().expect(0).json();
    let form = &manifest["server"]["text_form"];
    assert_eq!(
        (&form["bytea_output"], &form["lc_monetary"]),
        (&"escape".into(), &"C".into())
    );
    let line = manifest["restore"].as_str().unwrap();
    assert!(
        line.ends_with(" -c \"SET lc_monetary = 'C'\" -f -"),
        "{line}"
    );
    let target = Target::beside(&database, server);
    shelf.restore("latest", &target.url(), &[]).expect(0);
    let other = server.database();
    shelf
        .restore("latest", &other.url(), &["--table", "t"])
        .expect(0);
    shelf
        .restore("latest", &other.url(), &["--table", "t", "--upsert"])
        .expect(0);
    for jobs in ["1", "3"] {
        let target = Target {
            name: format!("{}_{jobs}", target.name),
            ..Target::beside(&database, server)
        };
        shelf
            .restore("latest", &target.url(), &["--jobs", jobs])
            .expect(0);
    }
}

/// The server checks no byte of a COPY that is said to be of no known encoding, so nothing of ours says that.
#[test]
fn bytes_of_no_known_encoding_get_into_no_utf8_database() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let name = format!("{}_ascii", database.name());
    server.sql(
        "template1",
        &format!("CREATE DATABASE {name} ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0"),
    );
    let own = Target {
        server,
        name: name.clone(),
    };
    let filled = r"SET client_encoding = 'SQL_ASCII'; CREATE TABLE bad (id int PRIMARY KEY, s text);
        INSERT INTO bad VALUES (1, E'\xe9t\xe9'); CREATE TABLE good (id int PRIMARY KEY, s text); INSERT INTO good VALUES (1, 'été')";
    own.sql(filled);
    let shelf = Shelf::new();
    let backup = ["backup", "--storage", "backups", "--name", "shop"];
    let url = server.url_as(USER, CANARY, &name);
    shelf
        .sandbox
        .pgkeep(backup)
        .env("DATABASE_URL", url)
        .run()
        .expect(0);
    let get = ["get", "--storage", "backups", "-o", "dump.sql.gz"];
    shelf.sandbox.pgkeep(get).run().expect(0);
    let empty = server.database();
    for (what, more) in [
        ("latest", &[][..]),
        ("latest", &["--jobs", "1"]),
        ("latest", &["--table", "bad"]),
        ("dump.sql.gz", &["--table", "bad"]),
    ] {
        let outcome = shelf.restore(what, &empty.url(), more);
        assert_eq!(outcome.status.code(), Some(20), "{more:?}: {outcome}");
        assert_eq!(
            empty.sql("SELECT count(*) FROM pg_class WHERE relname = 'bad'"),
            "0",
            "{more:?}"
        );
    }
    let merged = server.database();
    merged.sql("CREATE TABLE bad (id int PRIMARY KEY, s text)");
    for mode in ["--upsert", "--data-only"] {
        let outcome = shelf.restore("latest", &merged.url(), &["--table", "bad", mode]);
        assert_ne!(outcome.status.code(), Some(0), "{mode}: {outcome}");
        assert_eq!(merged.sql("SELECT count(*) FROM bad"), "0", "{mode}");
    }
    let extract = [
        "extract",
        "latest",
        "--storage",
        "backups",
        "--table",
        "bad",
        "--format",
        "sql",
    ];
    let sql = shelf.sandbox.pgkeep(extract).run().expect(0).stdout;
    assert!(server.try_sql(merged.name(), sql).is_err());
    assert_eq!(merged.sql("SELECT count(*) FROM bad"), "0");
    // What is UTF-8 all the same is welcome, and so is everything where it came from.
    shelf
        .restore("latest", &empty.url(), &["--table", "good"])
        .expect(0);
    assert_eq!(empty.sql("SELECT s FROM good"), "été");
    let target = Target::beside(&database, server);
    shelf.restore("latest", &target.url(), &[]).expect(0);
    assert_eq!(target.sql("SHOW server_encoding"), "SQL_ASCII");
}

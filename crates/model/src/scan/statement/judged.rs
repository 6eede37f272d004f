//! Says what of a statement a restore has to judge: owners, rights, transactions, and what `psql` reads otherwise.

use super::meaning::Cursor;
use super::{Kind, Statement};
use crate::scan::judged::JudgedKind;

/// First words of statements that may be left out; sorted. Until such a statement ends, it must not be passed on.
const JUDGED: &[&str] = &[
    "abort",
    "alter",
    "begin",
    "commit",
    "copy",
    "end",
    "grant",
    "prepare",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "set",
    "start",
];

/// Tells whether the statement under way may be one that is judged at its end.
///
/// Of those that make or describe something only the ones about extensions and schemas are, so that a long function is
/// not held.
pub(super) fn may_be_judged(statement: &Statement) -> bool {
    let mut cursor = Cursor::new(statement);
    match cursor.next_word() {
        Some(b"create" | b"comment") => {
            cursor.word("on");
            cursor.is_at_end() || cursor.word("extension") || cursor.word("schema")
        }
        Some(word) => {
            std::str::from_utf8(word).is_ok_and(|word| JUDGED.binary_search(&word).is_ok())
        }
        None => false,
    }
}

/// Looks at a whole statement.
pub(super) fn judged(statement: &Statement) -> Option<JudgedKind> {
    let mut cursor = Cursor::new(statement);
    match cursor.next_word()? {
        b"grant" | b"revoke" => Some(JudgedKind::Privileges),
        b"alter" | b"create" | b"drop" if is_of_cluster(Cursor::new(statement)) => {
            Some(JudgedKind::Cluster)
        }
        b"alter" => alter(cursor),
        b"begin" => Some(JudgedKind::Begin),
        b"start" => Some(JudgedKind::Begin).filter(|_| cursor.word("transaction")),
        b"commit" | b"end" if !cursor.word("prepared") => Some(JudgedKind::Commit),
        b"commit" | b"abort" | b"rollback" | b"savepoint" | b"release" => {
            Some(JudgedKind::Transaction)
        }
        b"prepare" => Some(JudgedKind::Transaction).filter(|_| cursor.word("transaction")),
        b"set" => set(cursor),
        b"reset" => authorization(&mut cursor).then_some(JudgedKind::Owner),
        b"copy" => copy(cursor),
        b"create" if statement.begins != statement.bodies => Some(JudgedKind::OpenRoutine),
        b"create" if is_public(Cursor::new(statement)) => Some(JudgedKind::SchemaPublic),
        b"create" => extension(cursor),
        b"comment" => extension(cursor),
        _ => None,
    }
}

/// `ALTER <kind> <name> OWNER TO <role>`, which nothing may follow. `RENAME owner TO x` is none.
fn alter(mut cursor: Cursor<'_>) -> Option<JudgedKind> {
    if cursor.words(&["default", "privileges"]) {
        return Some(JudgedKind::Privileges);
    }
    if renames(cursor.statement()) {
        return None;
    }
    let found = cursor.seek(&["owner", "to"]) && cursor.identifier().is_some();
    (found && cursor.is_at_end()).then_some(JudgedKind::Owner)
}

/// Tells `ALTER TABLE t RENAME owner TO x` from `ALTER TABLE public.rename OWNER TO x`.
fn renames(statement: &Statement) -> bool {
    for words in [
        &["rename", "owner", "to"][..],
        &["rename", "column", "owner", "to"],
    ] {
        let mut cursor = Cursor::new(statement);
        if cursor.seek(words) {
            let at = cursor.position() - words.len();
            // Behind the kind or a dot it is the name of what changes its owner.
            let is_name = at < 3 || statement.stored[at - 1].kind == Kind::Punct(b'.');
            return !is_name;
        }
    }
    false
}

/// pg_dump writes none of these into the dump of one database. A user mapping is the database's own.
fn is_of_cluster(mut cursor: Cursor<'_>) -> bool {
    cursor.next_word();
    match cursor.next_word() {
        Some(b"database" | b"role" | b"group" | b"tablespace" | b"system") => true,
        Some(b"user") => !cursor.word("mapping"),
        _ => false,
    }
}

fn set(mut cursor: Cursor<'_>) -> Option<JudgedKind> {
    if authorization(&mut cursor) {
        return Some(JudgedKind::Owner);
    }
    while cursor.word("session") || cursor.word("local") {}
    cursor
        .word("transaction_timeout")
        .then_some(JudgedKind::TransactionTimeout)
}

fn authorization(cursor: &mut Cursor<'_>) -> bool {
    cursor.words(&["session", "authorization"])
}

/// `CREATE SCHEMA public`, which pg_dump writes where the schema was chosen by name.
fn is_public(mut cursor: Cursor<'_>) -> bool {
    cursor.words(&["create", "schema"])
        && cursor.identifier() == Some(b"public")
        && cursor.is_at_end()
}

/// `CREATE EXTENSION [IF NOT EXISTS] x`, `COMMENT ON EXTENSION x`.
fn extension(mut cursor: Cursor<'_>) -> Option<JudgedKind> {
    cursor.word("on");
    if !cursor.word("extension") {
        return None;
    }
    cursor.words(&["if", "not", "exists"]);
    let name = cursor.identifier()?;
    Some(JudgedKind::Extension(
        String::from_utf8_lossy(name).into_owned(),
    ))
}

/// pg_dump writes nothing behind `stdin`; a format or a delimiter there changes where the rows end.
fn copy(mut cursor: Cursor<'_>) -> Option<JudgedKind> {
    let seeks = |words| Cursor::new(cursor.statement()).seek(words);
    if seeks(&["from", "program"]) || seeks(&["to", "program"]) {
        return Some(JudgedKind::Program);
    }
    let from_stdin = cursor.seek(&["from", "stdin"]);
    (from_stdin && !cursor.is_at_end()).then_some(JudgedKind::CopyWithOptions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Scanner;

    fn kinds(sql: &str) -> Vec<JudgedKind> {
        let mut scanner = Scanner::judging();
        scanner.push(sql.as_bytes());
        let kinds = scanner.take_judged().into_iter().map(|judged| judged.kind);
        let is_rows = |kind: &JudgedKind| matches!(kind, JudgedKind::Rows(..));
        kinds.filter(|kind| !is_rows(kind)).collect()
    }

    #[test]
    fn tells_what_must_be_judged() {
        use JudgedKind::{
            Begin, Cluster, Commit, CopyWithOptions, Extension, OpenRoutine, Owner, Privileges,
            Program, SchemaPublic, Transaction, TransactionTimeout,
        };
        assert!(JUDGED.is_sorted());
        for (sql, kind) in [
            ("ALTER TABLE public.\"T x\" OWNER TO \"My Role\";", Owner),
            (
                "ALTER FUNCTION public.f(a text, b int) OWNER TO app;",
                Owner,
            ),
            ("ALTER TABLE public.rename OWNER TO app;", Owner),
            ("ALTER SCHEMA rename OWNER TO app;", Owner),
            ("ALTER LARGE OBJECT 12 OWNER TO app;", Owner),
            (
                "ALTER OPERATOR public.@#@ (bigint, NONE) OWNER TO app;",
                Owner,
            ),
            ("SET SESSION AUTHORIZATION 'app';", Owner),
            ("RESET SESSION AUTHORIZATION;", Owner),
            ("GRANT ALL ON TABLE public.t TO app;", Privileges),
            ("REVOKE USAGE ON SCHEMA public FROM PUBLIC;", Privileges),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES TO b;",
                Privileges,
            ),
            (
                "CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;",
                Extension("pg_trgm".into()),
            ),
            (
                "COMMENT ON EXTENSION \"uuid-ossp\" IS 'x';",
                Extension("uuid-ossp".into()),
            ),
            ("CREATE SCHEMA public;", SchemaPublic),
            ("CREATE SCHEMA \"public\";", SchemaPublic),
            ("CREATE ROLE x SUPERUSER;", Cluster),
            ("ALTER USER app PASSWORD 'x';", Cluster),
            ("DROP DATABASE IF EXISTS prod;", Cluster),
            ("ALTER SYSTEM SET fsync = off;", Cluster),
            ("COPY t FROM PROGRAM 'touch /tmp/x';", Program),
            ("COPY (SELECT 1) TO PROGRAM 'cat';", Program),
            ("BEGIN;", Begin),
            ("START TRANSACTION;", Begin),
            ("COMMIT;", Commit),
            ("END;", Commit),
            ("ROLLBACK;", Transaction),
            ("PREPARE TRANSACTION 'x';", Transaction),
            ("COMMIT PREPARED 'x';", Transaction),
            ("SET transaction_timeout = 0;", TransactionTimeout),
            ("COPY t FROM stdin WITH (FORMAT csv);", CopyWithOptions),
            (
                "CREATE FUNCTION public.begin() RETURNS int LANGUAGE sql AS 'select 1';",
                OpenRoutine,
            ),
        ] {
            assert_eq!(kinds(sql), [kind], "{sql}");
        }
    }

    #[test]
    fn leaves_all_else_alone() {
        for sql in [
            "ALTER TABLE t RENAME COLUMN owner TO x;",
            "ALTER TABLE t RENAME owner TO x;",
            "ALTER TABLE ONLY t ALTER COLUMN c SET DEFAULT 'x OWNER TO y';",
            "ALTER TABLE ONLY owner ADD CONSTRAINT \"to\" PRIMARY KEY (id);",
            "COPY public.t (a, b) FROM stdin;\n1\tGRANT ALL ON t TO x;\n\\.\n",
            "INSERT INTO t VALUES ('BEGIN;\nCOMMIT;\n\\! ls');",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END;",
            "CREATE TRIGGER begin BEFORE INSERT ON t EXECUTE FUNCTION f();",
            "SET lock_timeout = 0;",
            "CREATE SCHEMA publications;",
            "CREATE SCHEMA \"Public\";",
            "PREPARE p AS SELECT 1;",
            "CREATE USER MAPPING FOR app SERVER s;",
            "CREATE TABLE role (program text);",
            "COPY public.program (a) FROM stdin;\n1\n\\.\n",
            "-- \\! ls\n",
            "/* BEGIN; \\! ls */",
        ] {
            assert_eq!(kinds(sql), [], "{sql}");
        }
    }
}

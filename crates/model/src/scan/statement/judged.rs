//! Says what of a statement a restore has to judge: owners, rights, transactions, and what `psql` reads otherwise.

use super::grammar::{Action, Alter, Said, Setting, Target, Thing};
use super::tokens::Kind;
use super::tokens::{Cursor, Tokens};
use crate::scan::judged::JudgedKind;

/// First words of statements that may be left out; sorted. Until such a statement ends, it must not be passed on.
const JUDGED: &[&str] = &[
    "abort",
    "alter",
    "begin",
    "call",
    "commit",
    "copy",
    "do",
    "end",
    "grant",
    "prepare",
    "refresh",
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
pub(super) fn may_be_judged(tokens: &Tokens) -> bool {
    let mut cursor = Cursor::new(tokens);
    match cursor.next_word() {
        Some(b"create" | b"comment") => {
            cursor.word("on");
            cursor.is_at_end() || cursor.any(&["event", "extension", "schema"])
        }
        Some(word) => {
            std::str::from_utf8(word).is_ok_and(|word| JUDGED.binary_search(&word).is_ok())
        }
        None => false,
    }
}

/// Says what of a whole statement is judged; `is_open_routine` where psql does not find its end.
pub(super) fn judged(said: &Said<'_>, is_open_routine: bool) -> Option<JudgedKind> {
    match said {
        // Membership in a role, rights on a database or a setting.
        Said::Rights(rights) if rights.is_of_cluster => Some(JudgedKind::Cluster),
        Said::Rights(_) | Said::DefaultPrivileges(_) => Some(JudgedKind::Privileges),
        Said::Code => Some(JudgedKind::Code),
        Said::Cluster => Some(JudgedKind::Cluster),
        Said::Alter(alter) if alter.is_of_cluster => Some(JudgedKind::Cluster),
        Said::Alter(Alter {
            on: Some(Target::EventTrigger(_)),
            is_owner_change,
            ..
        }) => Some(JudgedKind::EventTrigger {
            is_owner_change: *is_owner_change,
        }),
        Said::CreateEventTrigger { .. } | Said::Comment(Target::EventTrigger(_)) => {
            Some(JudgedKind::EventTrigger {
                is_owner_change: false,
            })
        }
        Said::Alter(Alter {
            on: Some(Target::Thing(Thing::Table, table)),
            action: Action::RowSecurity { is_forced: true },
            ..
        }) if table.schema().is_some() => Some(JudgedKind::ForceRowSecurity),
        Said::Alter(alter) => alter.is_owner_change.then_some(JudgedKind::Owner),
        Said::Begin => Some(JudgedKind::Begin),
        Said::Commit => Some(JudgedKind::Commit),
        Said::Transaction => Some(JudgedKind::Transaction),
        Said::Authorization { .. } => Some(JudgedKind::Owner),
        Said::Set(setting) => set(setting),
        Said::Refresh(view) if view.schema().is_some() => Some(JudgedKind::Refresh),
        Said::Copy(copy) if copy.runs_program => Some(JudgedKind::Program),
        Said::Copy(copy) => copy.has_options.then_some(JudgedKind::CopyWithOptions),
        _ if is_open_routine => Some(JudgedKind::OpenRoutine),
        Said::CreateSchema {
            name: b"public",
            is_bare: true,
        } => Some(JudgedKind::SchemaPublic),
        Said::CreateExtension(name) | Said::Comment(Target::Extension(name)) => Some(
            JudgedKind::Extension(String::from_utf8_lossy(name).into_owned()),
        ),
        _ => None,
    }
}

fn set(setting: &Setting<'_>) -> Option<JudgedKind> {
    match setting.name {
        b"transaction_timeout" => Some(JudgedKind::TransactionTimeout),
        b"lock_timeout" | b"statement_timeout" => Some(JudgedKind::Limit),
        b"client_encoding" | b"names" => {
            let (_, name) = setting.values.first()?;
            let name = String::from_utf8_lossy(name).into_owned();
            Some(JudgedKind::ClientEncoding(name))
        }
        b"default_tablespace" => tablespace(setting).map(JudgedKind::Tablespace),
        _ => None,
    }
}

/// Returns the tablespace that a setting names; none where it names that of the database.
pub(super) fn tablespace(setting: &Setting<'_>) -> Option<String> {
    let is_it = setting.name == b"default_tablespace" && setting.is_assigned;
    let (kind, name) = setting.values.first().filter(|_| is_it)?;
    let is_named = matches!(kind, Kind::Word | Kind::Quoted | Kind::Literal)
        && !name.is_empty()
        && !(*kind == Kind::Word && *name == b"default");
    is_named.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Notes, Scanner};

    fn kinds(sql: &str) -> Vec<JudgedKind> {
        let mut scanner = Scanner::noting(Notes::Judged { with_about: false });
        scanner.push(sql.as_bytes());
        let kinds = scanner
            .take_found()
            .judged
            .into_iter()
            .map(|judged| judged.kind);
        let is_rows = |kind: &JudgedKind| matches!(kind, JudgedKind::Rows(..));
        kinds.filter(|kind| !is_rows(kind)).collect()
    }

    #[test]
    fn tells_what_must_be_judged() {
        use JudgedKind::{
            Begin, ClientEncoding, Cluster, Code, Commit, CopyWithOptions, EventTrigger, Extension,
            ForceRowSecurity, Limit, OpenRoutine, Owner, Privileges, Program, Refresh,
            SchemaPublic, Tablespace, Transaction, TransactionTimeout,
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
            ("GRANT pg_execute_server_program TO app;", Cluster),
            ("REVOKE a, \"b\" FROM c;", Cluster),
            ("GRANT SET ON PARAMETER log_statement TO app;", Cluster),
            ("GRANT ALL ON DATABASE d TO app;", Cluster),
            ("GRANT CREATE ON TABLESPACE s TO app;", Cluster),
            ("GRANT USAGE ON FOREIGN SERVER s TO app;", Privileges),
            ("GRANT ALL ON LARGE OBJECT 7 TO app;", Privileges),
            (
                "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f();",
                EventTrigger {
                    is_owner_change: false,
                },
            ),
            (
                "ALTER EVENT TRIGGER e OWNER TO app;",
                EventTrigger {
                    is_owner_change: true,
                },
            ),
            (
                "COMMENT ON EVENT TRIGGER e IS 'x';",
                EventTrigger {
                    is_owner_change: false,
                },
            ),
            ("DO $$ begin end $$;", Code),
            ("DO LANGUAGE plpgsql 'x';", Code),
            ("CALL public.p();", Code),
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
            ("SET lock_timeout = 0;", Limit),
            ("SET statement_timeout = 0;", Limit),
            (
                "SET client_encoding = 'SQL_ASCII';",
                ClientEncoding("SQL_ASCII".into()),
            ),
            ("SET NAMES 'UTF8';", ClientEncoding("UTF8".into())),
            ("SET default_tablespace = fast;", Tablespace("fast".into())),
            (
                "SET default_tablespace = \"My Disk\";",
                Tablespace("My Disk".into()),
            ),
            ("REFRESH MATERIALIZED VIEW public.v;", Refresh),
            (
                "ALTER TABLE ONLY public.t FORCE ROW LEVEL SECURITY;",
                ForceRowSecurity,
            ),
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
            "SET idle_in_transaction_session_timeout = 0;",
            "SET default_tablespace = '';",
            "SET default_tablespace = DEFAULT;",
            "REFRESH MATERIALIZED VIEW v;",
            "REFRESH MATERIALIZED VIEW public.v WITH NO DATA;",
            "ALTER TABLE ONLY public.t NO FORCE ROW LEVEL SECURITY;",
            "ALTER TABLE public.t ENABLE ROW LEVEL SECURITY;",
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

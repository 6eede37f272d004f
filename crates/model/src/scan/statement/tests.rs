//! Tables of single statements and what they mean.

use super::super::lexer::Lexer;
use super::*;

fn meaning(sql: &str) -> Meaning<'static> {
    let (mut lexer, mut statement) = (Lexer::new(), Statement::new());
    let mut rest = sql.as_bytes();
    while !rest.is_empty() {
        lexer.keep_strings = statement.wants_literals();
        let (taken, token) = lexer.next(rest);
        rest = &rest[taken..];
        if token.is_some_and(|(start, token)| statement.take(token, start) == Step::Ended) {
            assert!(
                rest.trim_ascii().is_empty(),
                "ended early in {sql:?}: {:?} is left",
                String::from_utf8_lossy(rest)
            );
            return Box::leak(Box::new(statement)).read().meaning();
        }
    }
    panic!("{sql:?} has no end");
}

fn raw(schema: &'static str, name: &'static str) -> RawName<'static> {
    RawName {
        schema: Some(schema.as_bytes()),
        name: name.as_bytes(),
    }
}

#[test]
fn commands_are_sorted_for_the_search() {
    assert!(COMMANDS.is_sorted());
}

#[test]
fn knows_every_way_to_make_a_table() {
    let t = || raw("public", "t");
    for (sql, made) in [
        ("CREATE TABLE public.t (a int);", Made::Ordinary),
        (
            "CREATE TABLE IF NOT EXISTS \"public\".\"t\" (a int);",
            Made::Ordinary,
        ),
        ("CREATE TABLE public.t ();", Made::Ordinary),
        (
            "CREATE TABLE public.t (a int)\nINHERITS (public.p)\nWITH (fillfactor='70');",
            Made::Ordinary,
        ),
        (
            "CREATE TABLE public.t (c text DEFAULT 'partition by') ;",
            Made::Ordinary,
        ),
        ("CREATE UNLOGGED TABLE public.t (a int);", Made::Unlogged),
        (
            "CREATE FOREIGN TABLE public.t (a int)\nSERVER s;",
            Made::Foreign,
        ),
        (
            "CREATE TABLE public.t (a int)\nPARTITION BY RANGE (lower(a));",
            Made::Partitioned,
        ),
        (
            "CREATE TABLE public.t PARTITION OF public.p FOR VALUES FROM (1) TO (2);",
            Made::Partition,
        ),
        (
            "CREATE TABLE public.t PARTITION OF public.p DEFAULT\nPARTITION BY LIST (b);",
            Made::Partitioned,
        ),
        (
            "CREATE TABLE public.t OF public.pair (PRIMARY KEY (x));",
            Made::Ordinary,
        ),
    ] {
        let Meaning::CreateTable {
            name, made: how, ..
        } = meaning(sql)
        else {
            panic!("{sql} makes no table");
        };
        assert_eq!((name, how), (t(), made), "{sql}");
    }
}

#[test]
fn takes_no_other_thing_for_a_table() {
    for sql in [
        "CREATE VIEW public.users AS SELECT 1;",
        "CREATE MATERIALIZED VIEW public.users AS SELECT 1;",
        "CREATE TEMPORARY TABLE users (a int);",
        "CREATE TYPE public.users AS (a int);",
        "COMMENT ON TABLE public.users IS 'CREATE TABLE public.users (';",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;",
        "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END;",
        "INSERT INTO t SELECT 1;",
    ] {
        assert_eq!(meaning(sql), Meaning::Other, "{sql}");
    }
    assert_eq!(
        meaning(
            "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2););"
        ),
        Meaning::PostData
    );
}

#[test]
fn reads_copy_with_its_columns() {
    let columns = vec![&b"id"[..], b"a b"];
    assert_eq!(
        meaning("COPY app.\"X y\" (id, \"a b\") FROM stdin;"),
        Meaning::CopyFromStdin {
            name: raw("app", "X y"),
            columns,
            is_all_quoted: false,
        }
    );
    assert_eq!(
        meaning("COPY public.z  FROM stdin;"),
        Meaning::CopyFromStdin {
            name: raw("public", "z"),
            columns: vec![],
            is_all_quoted: false,
        }
    );
    assert_eq!(meaning("COPY (SELECT 1) TO STDOUT;"), Meaning::Other);
}

#[test]
fn counts_inserted_rows() {
    for (sql, rows) in [
        ("INSERT INTO s.t VALUES (1, 'a)(', f(2));", 1),
        ("INSERT INTO s.t (a, b) VALUES (1, 2), (3, 4),\n(5, 6);", 3),
        ("INSERT INTO s.t DEFAULT VALUES;", 1),
        (
            "INSERT INTO s.t (a) OVERRIDING SYSTEM VALUE VALUES (1), (2);",
            2,
        ),
        (
            "INSERT INTO s.t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = (2);",
            1,
        ),
        ("INSERT INTO s.t (\"values\") VALUES ('on'), ('x');", 2),
    ] {
        assert_eq!(meaning(sql), Meaning::Insert(raw("s", "t"), rows), "{sql}");
    }
}

#[test]
fn follows_settings() {
    let path =
        |parts: &[&str]| Meaning::SearchPath(parts.iter().map(|p| p.as_bytes().to_vec()).collect());
    assert_eq!(
        meaning("SET search_path = public, pg_catalog;"),
        path(&["public", "pg_catalog"])
    );
    assert_eq!(
        meaning("SET search_path TO \"$user\", \"My Schema\";"),
        path(&["$user", "My Schema"])
    );
    assert_eq!(
        meaning("SELECT pg_catalog.set_config('search_path', '', false);"),
        path(&[])
    );
    assert_eq!(
        meaning("SELECT set_config('search_path', 'a, \"B\"', false);"),
        path(&["a", "B"])
    );
    assert_eq!(
        meaning("SET standard_conforming_strings = off;"),
        Meaning::StandardStrings(false)
    );
    assert_eq!(
        meaning("SET client_encoding = 'LATIN1';"),
        Meaning::ClientEncoding(b"LATIN1")
    );
}

#[test]
fn gathers_roles() {
    let roles =
        |names: &[&'static str]| Meaning::Roles(names.iter().map(|n| n.as_bytes()).collect());
    assert_eq!(
        meaning("ALTER TABLE public.t OWNER TO \"A b\";"),
        roles(&["A b"])
    );
    assert_eq!(
        meaning("ALTER FUNCTION f(owner text) OWNER TO bob;"),
        roles(&["bob"])
    );
    assert_eq!(
        meaning("GRANT SELECT(a) ON TABLE t TO PUBLIC, x WITH GRANT OPTION;"),
        roles(&["x"])
    );
    assert_eq!(meaning("REVOKE ALL ON SCHEMA s FROM y;"), roles(&["y"]));
    assert_eq!(
        meaning("ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT ALL ON TABLES TO b;"),
        roles(&["a", "b"])
    );
    assert_eq!(
        meaning("CREATE POLICY p ON t TO c USING (true);"),
        roles(&["c"])
    );
}

#[test]
fn knows_partitions_and_views_made_afterwards() {
    assert_eq!(
        meaning(
            "ALTER TABLE ONLY parts.ev ATTACH PARTITION app.\"E\" FOR VALUES FROM ('a') TO ('b');"
        ),
        Meaning::AttachPartition {
            name: raw("app", "E"),
            parent: raw("parts", "ev")
        }
    );
    for (sql, parent) in [
        (
            "CREATE TABLE a.t PARTITION OF b.p DEFAULT\nPARTITION BY LIST (b);",
            Some(raw("b", "p")),
        ),
        (
            "CREATE FOREIGN TABLE a.t PARTITION OF b.p FOR VALUES IN (1)\nSERVER s;",
            Some(raw("b", "p")),
        ),
        ("CREATE TABLE a.t (x int)\nINHERITS (b.p);", None),
        ("CREATE TABLE a.t (x int)\nPARTITION BY LIST (x);", None),
    ] {
        let Meaning::CreateTable { parent: found, .. } = meaning(sql) else {
            panic!("{sql} makes no table");
        };
        assert_eq!(found, parent, "{sql}");
    }
    assert_eq!(
        meaning("CREATE RULE \"_RETURN\" AS\n    ON SELECT TO public.v DO INSTEAD SELECT 1;"),
        Meaning::BecomesView(raw("public", "v"))
    );
    assert_eq!(
        meaning("DROP TABLE IF EXISTS a.b, c.d CASCADE;"),
        Meaning::DropTables(vec![raw("a", "b"), raw("c", "d")])
    );
}

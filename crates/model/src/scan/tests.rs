//! Tables of small dumps and what the scanner must say of them; whole real dumps are in `tests/it/corpus.rs`.

use super::*;
use proptest::prelude::*;

fn scan(text: impl AsRef<[u8]>) -> Scan {
    let mut scanner = Scanner::new();
    scanner.push(text.as_ref());
    scanner.finish()
}

const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\n";
const END: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n";

fn dump(body: &str) -> Scan {
    scan(format!("{HEAD}{body}{END}"))
}

fn names(scan: &Scan) -> Vec<String> {
    scan.tables
        .iter()
        .map(|table| table.full_name().to_string())
        .collect()
}

fn ids(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.id.as_str()).collect()
}

#[test]
fn a_whole_dump_is_complete() {
    let scan = dump("CREATE TABLE public.t (a int);\nCOPY public.t (a) FROM stdin;\n1\n2\n\\.\n");
    assert!(scan.complete && scan.end_marker, "{:?}", scan.problems);
    assert_eq!((scan.tables[0].rows, scan.tables[0].bytes), (Some(2), 4));
    assert!(scan.warnings.is_empty());
}

#[test]
fn a_cut_dump_is_never_complete() {
    let restricted = format!(
        "{HEAD}SET x = 1;\n\\restrict abc\nCREATE TABLE public.t (a text);\nCOPY public.t (a) FROM stdin;\n{}\\.\n\
         COMMENT ON TABLE public.t IS '\n-- PostgreSQL database dump complete\n';{END}",
        "-- PostgreSQL database dump complete\n".repeat(3)
    );
    let whole = format!("{restricted}\\unrestrict abc\n\n");
    assert!(scan(&whole).complete, "{:?}", scan(&whole).problems);
    let last = whole.find("\\unrestrict abc").unwrap() + "\\unrestrict abc".len();
    for cut in 0..last {
        let found = scan(&whole[..cut]);
        assert!(
            !found.complete,
            "cut at {cut} passes for whole: ...{:?}",
            &whole[cut.saturating_sub(40)..cut]
        );
        assert!(!found.problems.is_empty());
    }
}

#[test]
fn only_real_statements_make_tables() {
    let traps = [
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $body$\nCREATE TABLE public.users (\n$body$;\n",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT ''\nCREATE TABLE public.users (id int);''';\n",
        "/*\nCREATE TABLE public.users (id int);\n*/\n",
        "-- CREATE TABLE public.users (id int);\n",
        "COMMENT ON SCHEMA public IS 'x\nCREATE TABLE public.users (id int);\n';\n",
        "CREATE VIEW public.users AS\n SELECT 1;\n",
        "COPY public.x (a) FROM stdin;\nCREATE TABLE public.users (\n\\.\n",
        "INSERT INTO public.x VALUES ('\nCREATE TABLE public.users (id int);\n');\n",
        "CREATE TABLE public.\"Users\" (id int);\nCREATE TABLE app.users (id int);\n",
    ];
    for trap in traps {
        let found = dump(trap);
        assert!(found.table(&"users".parse().unwrap()).is_none(), "{trap}");
        assert!(found.complete, "{trap}: {:?}", found.problems);
    }
    assert!(
        dump("CREATE TABLE public.users (id int);\n")
            .table(&"users".parse().unwrap())
            .is_some()
    );
}

#[test]
fn end_markers_inside_other_things_are_none() {
    for body in [
        "COPY public.x (a) FROM stdin;\n-- PostgreSQL database dump complete\n",
        "INSERT INTO x VALUES ('\n-- PostgreSQL database dump complete\n",
        "CREATE FUNCTION f() AS $$\n-- PostgreSQL database dump complete\n",
        "/*\n-- PostgreSQL database dump complete\n",
        "SELECT 1 -- PostgreSQL database dump complete\n;\n",
        "SELECT\n-- PostgreSQL database dump complete\n1;\n",
        "  -- PostgreSQL database dump complete\n",
        "-- PostgreSQL database dump completed\n",
    ] {
        let found = scan(format!("{HEAD}{body}"));
        assert!(!found.complete && !found.end_marker, "{body}");
    }
}

#[test]
fn names_are_resolved_and_unquoted() {
    let found = dump(
        "SET search_path = app, pg_catalog;\nCREATE TABLE t (a int);\nCREATE TABLE \"A.b\".\"c\"\"\nd\" (a int);\n\
         SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE u (a int);\n",
    );
    assert_eq!(names(&found), ["app.t", "\"A.b\".\"c\"\"\nd\"", "public.u"]);
}

#[test]
fn names_are_decoded_by_the_client_encoding() {
    let mut text =
        format!("{HEAD}SET client_encoding = 'LATIN1';\nCREATE TABLE public.\"Gr").into_bytes();
    text.extend_from_slice(b"\xf6\xdfe\" (a int);\n");
    text.extend_from_slice(END.as_bytes());
    assert_eq!(scan(text).tables[0].name, "Größe");
}

#[test]
fn kinds_are_told_apart() {
    let found = dump(
        "CREATE TABLE a (x int)\nPARTITION BY LIST (x);\nCREATE TABLE b (x int);\nCREATE UNLOGGED TABLE c (x int);\n\
         CREATE FOREIGN TABLE d (x int)\nSERVER s;\nCREATE TABLE e (x int);\nCREATE TABLE v (x int);\n\
         ALTER TABLE ONLY a ATTACH PARTITION b DEFAULT;\nALTER TABLE ONLY a ATTACH PARTITION c FOR VALUES IN (1);\n\
         CREATE RULE \"_RETURN\" AS ON SELECT TO v DO INSTEAD SELECT 1;\n",
    );
    let kinds: Vec<_> = found
        .tables
        .iter()
        .map(|t| (t.name.as_str(), t.kind.unwrap().as_str()))
        .collect();
    let expected = [
        ("a", "partitioned"),
        ("b", "partition"),
        ("c", "unlogged"),
        ("d", "foreign"),
        ("e", "table"),
    ];
    assert_eq!(kinds, expected);
    assert!(
        found
            .tables
            .iter()
            .all(|table| table.rows.is_none() && table.digest.is_none())
    );
}

#[test]
fn rows_alone_have_no_kind() {
    let found = dump(
        "COPY s.t (a) FROM stdin;\n1\n\\.\nCOPY s.t (a) FROM stdin;\n2\n\\.\nINSERT INTO u VALUES (1);\n",
    );
    assert_eq!(
        (found.tables[0].kind, found.tables[0].rows),
        (None, Some(2))
    );
    assert_eq!(found.tables[0].blocks.len(), 2);
    assert!(found.tables[0].digest.is_some());
    assert_eq!(
        (
            found.tables[1].kind,
            found.tables[1].rows,
            found.tables[1].digest
        ),
        (None, Some(1), None)
    );
}

#[test]
fn clean_dumps_drop_before_they_make() {
    let found =
        dump("DROP TABLE public.t;\nDROP TABLE public.gone;\nCREATE TABLE public.t (a int);\n");
    assert_eq!(names(&found), ["public.t"]);
}

#[test]
fn oddities_are_warnings() {
    let table = "CREATE TABLE public.t (a int);\n";
    for (text, warning) in [
        (format!("\u{feff}{HEAD}{table}{END}"), "byte_order_mark"),
        (format!("{HEAD}{table}{END}").replace('\n', "\r\n"), "crlf"),
        (
            format!("pg_dump: warning: it's circular\npg_dump: hint: don't\n{HEAD}{table}{END}"),
            "no_sql",
        ),
        (
            format!("{HEAD}{table}{END}INSERT INTO m VALUES ('1'),\n('2');\n"),
            "text_behind_end_marker",
        ),
        (
            format!("{HEAD}{table}{END}{HEAD}{table}{END}"),
            "several_dumps",
        ),
        (format!("{HEAD}\\! true\n{table}{END}"), "backslash_command"),
        (
            format!("SET a = 1;\n{HEAD}{table}{END}"),
            "text_before_header",
        ),
        (
            format!("--\n-- PostgreSQL database dump\n\nSET a = 1;\n{HEAD}{table}{END}"),
            "text_before_header",
        ),
    ] {
        let found = scan(&text);
        assert!(
            found.complete && found.end_marker,
            "{warning}: {:?}",
            found.problems
        );
        assert!(
            ids(&found.warnings).contains(&warning),
            "{warning}: {:?}",
            found.warnings
        );
        assert!(found.table(&"t".parse().unwrap()).is_some(), "{warning}");
    }
}

#[test]
fn what_is_cut_behind_the_end_marker_counts() {
    for tail in [
        "INSERT INTO m VALUES ('1'),\n('2'",
        "INSERT INTO m VALUES (1)",
        "--\n-- PostgreSQL database dump\n--\nSET x = 1;\n",
        "--\n-- PostgreSQL database dump\n--\n",
        "--\n-- PostgreSQL database dump\n",
        "COPY m (a) FROM stdin;\n1\n",
    ] {
        assert!(!dump("").problems.iter().any(|p| p.id == "cut_in_statement"));
        assert!(!scan(format!("{HEAD}{END}{tail}")).complete, "{tail}");
    }
}

#[test]
fn restrict_keys_must_match() {
    let with = |tail: &str| scan(format!("{HEAD}\\restrict abc\nSET x = 1;{END}{tail}"));
    assert!(with("\\unrestrict abc\n").complete);
    assert!(with("\\unrestrict abc").complete);
    assert_eq!(
        ids(&with("\\unrestrict abd\n").problems),
        ["restrict_key_mismatch"]
    );
    assert_eq!(ids(&with("").problems), ["unrestrict_missing"]);
}

#[test]
fn cluster_dumps_name_their_databases() {
    let cluster = |body: &str| {
        let head = "--\n-- PostgreSQL database cluster dump\n--\n\\restrict k\nCREATE ROLE a;\n\\unrestrict k\n";
        scan(format!(
            "{head}{body}--\n-- PostgreSQL database cluster dump complete\n--\n"
        ))
    };
    let globals = cluster("");
    assert!(globals.complete && !globals.end_marker && globals.cluster);
    let body = |name: &str| {
        format!(
            "\\connect {name}\n{HEAD}CREATE TABLE public.t (a int);\nCOPY public.t (a) FROM stdin;\n1\n\\.\n{END}"
        )
    };
    let both = cluster(&(body("one") + &body("two")));
    assert!(both.complete && both.end_marker);
    let databases: Vec<_> = both
        .tables
        .iter()
        .map(|table| table.database.as_deref())
        .collect();
    assert_eq!(databases, [Some("one"), Some("two")]);
    assert!(
        !cluster(&format!(
            "{}\\connect two\n{HEAD}CREATE TABLE t (a int);\n",
            body("one")
        ))
        .complete
    );
}

#[test]
fn what_is_odd_a_thousand_times_is_told_a_few_times() {
    let odd = "\\! true\n\\unrestrict x\nno sql\n".repeat(1000);
    let found = scan(format!("{HEAD}{odd}{END}"));
    assert_eq!(ids(&found.problems), ["restrict_key_mismatch"; 5]);
    let [commands, noise] = ["backslash_command", "no_sql"]
        .map(|id| ids(&found.warnings).iter().filter(|&&i| i == id).count());
    assert_eq!((commands, noise), (5, 5));
}

#[test]
fn a_nul_byte_is_damage() {
    assert_eq!(
        ids(&scan(format!("{HEAD}{END}\0\0")).problems),
        ["nul_byte"]
    );
}

#[test]
fn nothing_is_no_dump() {
    for text in [
        "",
        "\n",
        "-- hello\n",
        "<html><body>404</body></html>\n",
        "garbage\n",
    ] {
        let found = scan(text);
        assert!(!found.complete && !found.end_marker, "{text:?}");
    }
}

#[test]
fn old_strings_with_backslashes() {
    let found = dump(
        "SET standard_conforming_strings = off;\nINSERT INTO t VALUES ('a\\'; CREATE TABLE x (a int);');\n",
    );
    assert_eq!(names(&found), ["public.t"]);
    assert!(found.complete);
}

#[test]
fn cuts_lie_around_every_copy_block() {
    let text = format!(
        "{HEAD}CREATE TABLE t (a int);\nCOPY t (a) FROM stdin;\n1\n\\.\n\n\nCOPY t (a) FROM stdin;\n\\.\n{END}"
    );
    let mut scanner = Scanner::new();
    scanner.push(text.as_bytes());
    let cuts = scanner.take_found().cuts;
    let blocks: Vec<&str> = cuts
        .chunks(2)
        .map(|pair| &text[pair[0] as usize..pair[1] as usize])
        .collect();
    assert_eq!(
        blocks,
        [
            "COPY t (a) FROM stdin;\n1\n\\.\n",
            "COPY t (a) FROM stdin;\n\\.\n"
        ]
    );
    let found = scanner.finish();
    assert_eq!(found.tables[0].blocks[0].offset, cuts[0]);
    let sections: Vec<_> = found
        .sections
        .iter()
        .map(|s| (s.name, s.block.offset, s.block.length))
        .collect();
    assert_eq!(sections[1], (SectionName::Data, cuts[0], cuts[3] - cuts[0]));
    assert_eq!(sections.iter().map(|s| s.2).sum::<u64>(), text.len() as u64);
}

fn pieces() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "CREATE TABLE public.t (a int);\n",
        "CREATE UNLOGGED TABLE \"A b\".\"c\"\"d\" (a text DEFAULT 'x;y')\nPARTITION BY LIST (a);\n",
        "COPY public.t (a) FROM stdin;\n1\ta\n\\N\n\\\\.\n\\.\n",
        "COPY public.t (a) FROM stdin;\r\n1\r\n\\.\r\n",
        "INSERT INTO u VALUES (1.5e3, -2,NULL, ''\n, 7), (3)\nON CONFLICT DO NOTHING;\n",
        "INSERT INTO public.u VALUES (1, 'it''s\n\\.\n'), (2, E'\\'');\n",
        "\\connect other\n",
        "\\restrict k\n",
        "\\unrestrict k\n",
        "--\n-- PostgreSQL database dump\n--\n",
        "--\n-- PostgreSQL database dump complete\n--\n",
        "--\n-- PostgreSQL database cluster dump\n--\n",
        "SET search_path = app;\n",
        "SET standard_conforming_strings = off;\n",
        "SET client_encoding = 'SJIS';\n",
        "$a$ x $b$ ; $a$",
        "/* a /* b */ c */",
        "'",
        "\"",
        "\u{feff}",
        "é",
        "\n",
        ";",
        "(",
        ")",
        "pg_dump: warning: it's\n",
        "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; END;\n",
    ]);
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cuts_of_the_stream_do_not_matter(
        text in pieces(),
        seeds in prop::collection::vec(any::<prop::sample::Index>(), 0..16),
    ) {
        let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut scanner = Scanner::new();
        let mut found = Vec::new();
        for pair in cuts.windows(2) {
            scanner.push(&text.as_bytes()[pair[0]..pair[1]]);
            let fresh = scanner.take_found().cuts;
            found.extend(fresh);
        }
        let mut whole = Scanner::new();
        whole.push(text.as_bytes());
        prop_assert_eq!(found, whole.take_found().cuts);
        prop_assert_eq!(scanner.finish(), whole.finish());
    }

    #[test]
    fn cuts_never_come_from_settled_text(text in pieces(), step in 1usize..40) {
        let mut scanner = Scanner::new();
        let mut settled = 0;
        for piece in text.as_bytes().chunks(step) {
            scanner.push(piece);
            for cut in scanner.take_found().cuts {
                prop_assert!(cut >= settled, "a cut at {} behind {}", cut, settled);
            }
            prop_assert!(scanner.settled_until() >= settled);
            settled = scanner.settled_until();
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let found = scan(bytes);
        prop_assert!(found.complete == found.problems.is_empty());
    }
}

#[test]
fn sequence_values_are_read_where_they_are_written_out() {
    let scan = scan(
        "SET search_path = \"My schema\", pg_catalog;
         SELECT pg_catalog.setval('public.\"S ''x\"', 7, true);
         SELECT setval('Old', -3, false);
         SELECT setval('public.t', 1); SELECT setval('public.t', 2);
         SELECT setval('public.u', (SELECT max(id) FROM u)); SELECT setval('public.v', 1, true) FROM w;\n",
    );
    let told: Vec<String> = scan
        .sequences
        .iter()
        .map(|s| format!("{} {} {}", s.name, s.value, s.is_called))
        .collect();
    assert_eq!(
        told,
        [
            "\"My schema\".old -3 false",
            "public.\"S 'x\" 7 true",
            "public.t 2 true"
        ]
    );
}

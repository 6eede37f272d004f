//! Tables of cases and properties of the comparison.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::manifest::Extension;
use crate::scan::TextEncoding;

fn read(text: &str) -> Objects {
    Objects::read(text.as_bytes(), TextEncoding::Utf8)
}

fn header(name: &str, kind: &str, schema: &str) -> String {
    format!("--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: app\n--\n\n")
}

fn object(name: &str, kind: &str, schema: &str, sql: &str) -> String {
    format!("{}{sql}\n\n", header(name, kind, schema))
}

const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET client_encoding = 'UTF8';\n\
    SELECT pg_catalog.set_config('search_path', '', false);\n\n";

fn keys(objects: &Objects) -> Vec<String> {
    objects.by_key.keys().map(ToString::to_string).collect()
}

#[test]
fn a_structure_is_its_objects() {
    let function = "CREATE FUNCTION public.f() RETURNS void\n    LANGUAGE plpgsql\n    AS $$\nBEGIN\n\
        -- Name: users; Type: TABLE; Schema: public; Owner: mallory\nEND$$;\n\n\n\
        ALTER FUNCTION public.f() OWNER TO app;";
    let text = [
        HEAD.to_owned(),
        object("f()", "FUNCTION", "public", function),
        "SET default_tablespace = '';\n\nSET default_table_access_method = heap;\n\n".to_owned(),
        object(
            "t",
            "TABLE",
            "public",
            "CREATE TABLE public.t (\n    a integer\n);",
        ),
        "--\n-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: app\n--\n\n".to_owned(),
        object(
            "s",
            "SEQUENCE SET",
            "public",
            "SELECT pg_catalog.setval('public.s', 7, true);",
        ),
        object(
            "16400",
            "BLOB",
            "-",
            "SELECT pg_catalog.lo_create('16400');",
        ),
        object(
            "public",
            "SCHEMA",
            "-",
            "-- *not* creating schema, since initdb creates it",
        ),
        "--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n".to_owned(),
    ]
    .concat();
    let objects = read(&text);
    assert_eq!(
        keys(&objects),
        ["SCHEMA public", "FUNCTION public.f()", "TABLE public.t"]
    );
    let found = &objects.by_key[objects.by_key.keys().nth(1).unwrap()];
    assert!(found.sql.starts_with("CREATE FUNCTION"), "{}", found.sql);
    assert!(
        found
            .sql
            .ends_with("END$$;\nALTER FUNCTION public.f() OWNER TO app;\n"),
        "{}",
        found.sql
    );
    assert_eq!(objects.sequences[0].value, 7);
    assert_eq!(objects.tables[0].name, "t");
}

/// Large objects follow the rows, and a dump of anything else than `pg_dump` has no comments.
#[test]
fn what_no_comment_announces_is_an_object_too_and_data_is_none() {
    let data = "--\n-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -\n--\n\nBEGIN;\n\n\
        SELECT pg_catalog.lo_open('16400', 131072);\nSELECT pg_catalog.lowrite(0, '\\x61');\nCOMMIT;\n\n";
    let text = format!(
        "{HEAD}CREATE TABLE public.t (\n    a integer\n);\n\n{data}{}",
        object(
            "i",
            "INDEX",
            "public",
            "CREATE INDEX i ON public.t USING btree (a);"
        )
    );
    assert_eq!(
        keys(&read(&text)),
        ["STATEMENT CREATE TABLE public.t (", "INDEX public.i"]
    );
    let other = read(&text.replace("a integer", "a bigint"));
    let found = compare(
        &side(Vec::new()).with_structure(read(&text)),
        &side(Vec::new()).with_structure(other),
    );
    assert_eq!(
        (found.objects.len(), found.objects[0].change),
        (1, Change::Changed)
    );
}

#[test]
fn names_are_read_from_the_end() {
    let odd = object(
        "a; Type: x; Schema: y; Owner: z",
        "TABLE",
        "S \"q",
        "CREATE TABLE a.b (x int);",
    );
    let with_space = "--\n-- Name: t; Type: TABLE; Schema: public; Owner: app; Tablespace: fast\n--\n\nCREATE TABLE public.t (x int);\n";
    let objects = read(&(odd + with_space));
    assert_eq!(
        keys(&objects),
        [
            "TABLE S \"q.a; Type: x; Schema: y; Owner: z",
            "TABLE public.t"
        ]
    );
    let table = objects.by_key.values().last().unwrap();
    assert_eq!(
        table.sql,
        "SET default_tablespace = fast;\nCREATE TABLE public.t (x int);\n"
    );
}

#[test]
fn storage_that_a_setting_says_is_part_of_the_table() {
    let table = object("t", "TABLE", "public", "CREATE TABLE public.t (x int);");
    let view = object("v", "VIEW", "public", "CREATE VIEW public.v AS SELECT 1;");
    let text = format!("SET default_table_access_method = columnar;\n\n{table}{view}");
    let objects = read(&text);
    let sql: Vec<&str> = objects
        .by_key
        .values()
        .map(|object| object.sql.as_str())
        .collect();
    assert_eq!(
        sql[0],
        "SET default_table_access_method = columnar;\nCREATE TABLE public.t (x int);\n"
    );
    assert_eq!(sql[1], "CREATE VIEW public.v AS SELECT 1;\n");
}

#[test]
fn the_order_of_rights_says_nothing() {
    let rights = |lines: &[&str]| read(&object("TABLE t", "ACL", "public", &lines.join("\n")));
    let (revoke, to_a, to_b) = (
        "REVOKE ALL ON TABLE public.t FROM app;",
        "GRANT SELECT ON TABLE public.t TO a;",
        "GRANT ALL ON TABLE public.t TO b;",
    );
    assert_eq!(rights(&[revoke, to_a, to_b]), rights(&[revoke, to_b, to_a]));
    assert_ne!(rights(&[revoke, to_a, to_b]), rights(&[revoke, to_a]));
    // Behind a change of the user, who gives what depends on it.
    let user = "SET SESSION AUTHORIZATION c;";
    assert_ne!(rights(&[to_a, user, to_b]), rights(&[to_b, user, to_a]));
}

#[test]
fn the_order_of_objects_of_one_name_says_nothing() {
    let rights = |owners: &[&str]| {
        let of = |owner: &&str| {
            let sql =
                format!("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT ALL ON TABLES TO x;");
            object("DEFAULT PRIVILEGES FOR TABLES", "DEFAULT ACL", "-", &sql)
        };
        read(&owners.iter().map(of).collect::<String>())
    };
    let all = rights(&["a", "b", "c"]);
    assert_eq!(all.by_key.len(), 1);
    for owners in [["a", "c", "b"], ["c", "b", "a"], ["b", "c", "a"]] {
        assert_eq!(rights(&owners), all);
    }
    assert_ne!(rights(&["a", "b"]), all);
}

#[test]
fn columns_have_definitions() {
    let sql = "CREATE TABLE public.\"T\" (\n    id integer NOT NULL,\n    \"check\" numeric(10,2) DEFAULT 1.5,\n    \
        tags text[] DEFAULT '{a,b}'::text[],\n    note text DEFAULT ')'::text COLLATE \"C\",\n    \
        double integer GENERATED ALWAYS AS ((id * 2)) STORED,\n    CONSTRAINT c CHECK ((id > 0)),\n    \
        CONSTRAINT d UNIQUE (id, note)\n)\nPARTITION BY RANGE (id, note);";
    let objects = read(&object("T", "TABLE", "public", sql));
    let found = objects.columns_of(&TableName::new("public", "T")).unwrap();
    let columns: Vec<(&str, &str)> = found
        .iter()
        .map(|column| (column.name.as_str(), column.definition.as_str()))
        .collect();
    let expected = [
        ("id", "integer NOT NULL"),
        ("check", "numeric(10,2) DEFAULT 1.5"),
        ("tags", "text[] DEFAULT '{a,b}'::text[]"),
        ("note", "text DEFAULT ')'::text COLLATE \"C\""),
        ("double", "integer GENERATED ALWAYS AS ((id * 2)) STORED"),
    ];
    assert_eq!(columns, expected);
    let empty = read(&object(
        "e",
        "TABLE",
        "public",
        "CREATE TABLE public.e (\n);",
    ));
    assert_eq!(empty.columns_of(&"e".parse().unwrap()), Some(&[][..]));
    assert_eq!(empty.columns_of(&"f".parse().unwrap()), None);
}

fn held(name: &str, rows: Option<u64>, digest: u128) -> Held {
    let mut sum = RowDigest::default();
    if digest > 0 {
        sum = format!("{digest:032x}").parse().unwrap();
    }
    Held {
        name: TableName::new("public", name),
        kind: Some(TableKind::Table),
        parent: None,
        columns: Some(["a".to_owned()].into_iter().collect()),
        rows,
        bytes: rows,
        digest: rows.map(|_| sum),
    }
}

fn side(tables: Vec<Held>) -> Side {
    Side {
        tables,
        server: Server {
            fixed_text_form: true,
            ..Server::default()
        },
        ..Side::default()
    }
}

fn of_table(before: Option<Held>, now: Option<Held>) -> Difference {
    compare(
        &side(before.into_iter().collect()),
        &side(now.into_iter().collect()),
    )
}

#[test]
fn rows_are_the_same_or_others() {
    let one = || held("t", Some(3), 7);
    for (now, expected) in [
        (held("t", Some(3), 7), None),
        (held("t", Some(3), 8), Some(RowsAre::Other)),
        (held("t", Some(4), 9), Some(RowsAre::Other)),
        (held("t", Some(0), 0), Some(RowsAre::Other)),
    ] {
        let found = of_table(Some(one()), Some(now.clone()));
        assert_eq!(
            found.tables.first().map(|table| table.rows_are),
            expected,
            "{now:?}"
        );
        assert_eq!(found.different, expected.is_some());
    }
    let gone = of_table(Some(one()), None);
    assert_eq!(
        (gone.tables[0].change, gone.different),
        (Change::Removed, true)
    );
    let new = of_table(None, Some(one()));
    assert_eq!(
        (new.tables[0].change, new.tables[0].rows),
        (Change::Added, Pair::new(None, 3))
    );
}

/// Digests are sums over text: where that may look otherwise, other sums say nothing, and the same ones still do.
#[test]
fn digests_of_two_forms_are_not_compared() {
    let before = side(vec![held("t", Some(3), 7), held("u", Some(3), 7)]);
    let mut now = side(vec![held("t", Some(3), 8), held("u", Some(4), 8)]);
    now.server.text_form = Some(TextForm {
        bytea_output: "escape".to_owned(),
        ..TextForm::default()
    });
    let found = compare(&before, &now);
    let names: Vec<&str> = found
        .tables
        .iter()
        .map(|table| table.table.as_str())
        .collect();
    assert_eq!(names, ["public.u"]);
    assert!(
        found.remarks[0].contains("text forms"),
        "{:?}",
        found.remarks
    );
    now.server.text_form = None;
    now.encoding = Some("LATIN1".to_owned());
    assert_eq!(compare(&before, &now).tables.len(), 1);
    // Other columns make other lines of the same values.
    let mut other = held("t", Some(3), 8);
    other.columns = Some(["b".to_owned()].into_iter().collect());
    let found = of_table(Some(held("t", Some(3), 7)), Some(other));
    assert_eq!(found.tables[0].rows_are, RowsAre::Unknown);
    assert_eq!(found.tables[0].columns.len(), 2);
}

#[test]
fn rows_that_one_side_does_not_have_are_not_compared() {
    let found = of_table(Some(held("t", None, 0)), Some(held("t", Some(3), 7)));
    assert!(!found.different && found.tables.is_empty());
    assert_eq!(
        found.not_compared[0].why,
        "the older one does not have its rows"
    );
    let neither = of_table(Some(held("t", None, 0)), Some(held("t", None, 0)));
    assert!(neither.not_compared.is_empty());
}

#[test]
fn what_a_selection_leaves_out_is_not_gone() {
    let leaf = |name: &str| Held {
        parent: Some(TableName::new("public", "p")),
        ..held(name, Some(1), 1)
    };
    let tables = || {
        vec![
            held("p", None, 0),
            leaf("p1"),
            held("t", Some(1), 1),
            held("u", Some(1), 1),
        ]
    };
    let whole = side(tables());
    let names = |found: &Difference| -> (Vec<String>, Vec<String>) {
        (
            found
                .tables
                .iter()
                .map(|table| table.table.clone())
                .collect(),
            found
                .not_compared
                .iter()
                .map(|table| table.table.clone())
                .collect(),
        )
    };
    for (selection, gone, left) in [
        (
            SelectionRecord {
                exclude_tables: vec!["p".to_owned()],
                ..SelectionRecord::default()
            },
            &["public.t", "public.u"][..],
            &["public.p", "public.p1"][..],
        ),
        (
            SelectionRecord {
                tables: vec!["t".to_owned()],
                ..SelectionRecord::default()
            },
            &["public.t"],
            &["public.p", "public.p1", "public.u"],
        ),
        (
            SelectionRecord {
                schemas: vec!["public".to_owned()],
                ..SelectionRecord::default()
            },
            &["public.p", "public.p1", "public.t", "public.u"],
            &[],
        ),
        (
            SelectionRecord {
                exclude_schemas: vec!["public".to_owned()],
                ..SelectionRecord::default()
            },
            &[],
            &["public.p", "public.p1", "public.t", "public.u"],
        ),
    ] {
        let part = Side {
            selection: Some(selection),
            ..side(Vec::new())
        };
        let found = compare(&whole, &part);
        let (changed, skipped) = names(&found);
        assert_eq!(
            (changed, skipped),
            (
                gone.iter().map(ToString::to_string).collect(),
                left.iter().map(ToString::to_string).collect()
            )
        );
        assert!(found.remarks[0].starts_with("the selections differ: the whole database → "));
    }
}

#[test]
fn objects_of_one_side_count_only_under_one_selection() {
    let table = object("t", "TABLE", "public", "CREATE TABLE public.t (x int);");
    let index = object(
        "i",
        "INDEX",
        "public",
        "CREATE INDEX i ON public.t USING btree (x);",
    );
    let other = object("t", "TABLE", "public", "CREATE TABLE public.t (x bigint);");
    let before = side(Vec::new()).with_structure(read(&(table + &index)));
    let now = side(Vec::new()).with_structure(read(&other));
    let found = compare(&before, &now);
    let changes: Vec<Change> = found.objects.iter().map(|object| object.change).collect();
    assert_eq!(changes, [Change::Removed, Change::Changed]);
    let part = Side {
        selection: Some(SelectionRecord {
            exclude_tables: vec!["x".to_owned()],
            ..SelectionRecord::default()
        }),
        ..now
    };
    let found = compare(&before, &part);
    assert_eq!(found.objects.len(), 1);
    assert!(
        found.remarks[1].starts_with("1 object of one side alone was not compared"),
        "{:?}",
        found.remarks
    );
}

#[test]
fn what_a_dump_leaves_out_is_compared() {
    let server = |properties| Server {
        encoding: "UTF8".to_owned(),
        properties,
        size_bytes: 7,
        ..Server::default()
    };
    let before = server(
        json!({"owner": "a", "comment": null, "acl": ["b=c/a", "=T/a"],
        "settings": [{"role": null, "settings": ["work_mem=4MB", "app.key=***"]}]}),
    );
    let now = server(
        json!({"owner": "b", "comment": "x", "acl": ["=T/a", "b=c/a"],
        "settings": [{"role": null, "settings": ["work_mem=8MB", "app.key=***"]}, {"role": "r", "settings": ["x=1"]}]}),
    );
    let changes: Vec<_> = settings::settings(&before, &now)
        .into_iter()
        .map(|change| (change.name, change.from, change.to))
        .collect();
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        ("comment".to_owned(), None, text("x")),
        ("owner".to_owned(), text("a"), text("b")),
        ("setting work_mem".to_owned(), text("4MB"), text("8MB")),
        ("setting x of role r".to_owned(), None, text("1")),
    ];
    assert_eq!(changes, expected);
    let extension = |version: &str, schema: &str| Extension {
        name: "pg_trgm".to_owned(),
        version: version.to_owned(),
        schema: schema.to_owned(),
    };
    let found = settings::extensions(&[extension("1.5", "public")], &[extension("1.6", "ext")]);
    assert_eq!(
        (found[0].from.as_deref(), found[0].to.as_deref()),
        (Some("1.5"), Some("1.6 in ext"))
    );
}

/// Sizes on the server, versions and programs are no content of the database.
#[test]
fn what_is_around_a_database_is_no_difference() {
    let mut now = side(Vec::new());
    now.server.size_bytes = 9;
    now.server.version = "17.2".to_owned();
    now.server.database = "other".to_owned();
    now.preset = Some("supabase".to_owned());
    now.pg_dump = "17.2".to_owned();
    let found = compare(&side(Vec::new()), &now);
    assert!(!found.different);
    assert_eq!(found.remarks.len(), 4, "{:?}", found.remarks);
    // A minor version writes nothing otherwise.
    let older = Side {
        pg_dump: "17.1".to_owned(),
        ..now.clone()
    };
    assert!(compare(&older, &now).remarks.is_empty());
}

#[test]
fn unified_sql_is_that_of_diff() {
    let lines = |last: &str| -> String {
        let body: String = (1..9).map(|n| format!("    c{n} integer,\n")).collect();
        format!("CREATE TABLE public.t (\n{body}    z {last}\n);")
    };
    let before = read(&object("t", "TABLE", "public", &lines("integer")));
    let now = read(&object("t", "TABLE", "public", &lines("bigint\u{1b}[31m")));
    let text = unified(("a", &before), ("b", &now), |_| true);
    let expected = "--- a: TABLE public.t\n+++ b: TABLE public.t\n@@ -7,5 +7,5 @@\n     c6 integer,\n     c7 integer,\n     \
        c8 integer,\n-    z integer\n+    z bigint\\u{1b}[31m\n );\n";
    assert_eq!(text, expected);
    assert_eq!(unified(("a", &before), ("b", &now), |_| false), "");
    assert_eq!(unified(("a", &before), ("b", &before), |_| true), "");
    let gone = unified(("a", &before), ("b", &Objects::default()), |_| true);
    assert!(
        gone.starts_with("--- a: TABLE public.t\n+++ /dev/null\n@@ -1,11 +0,0 @@\n-CREATE"),
        "{gone}"
    );
}

/// Two long texts without a common line would take hours to align.
#[test]
fn long_objects_are_not_aligned() {
    let function = |word: &str| {
        let body: String = (0..20_001).map(|n| format!("{word} {n}\n")).collect();
        let sql = format!("CREATE FUNCTION public.f() RETURNS void LANGUAGE sql AS $$\n{body}$$;");
        read(&object("f()", "FUNCTION", "public", &sql))
    };
    let text = unified(("a", &function("x")), ("b", &function("y")), |_| true);
    assert!(text.starts_with(
        "--- a: FUNCTION public.f()\n+++ b: FUNCTION public.f()\n@@ -1,20003 +1,20003 @@\n-CREATE"
    ));
    assert_eq!(text.lines().count(), 3 + 2 * 20_003);
}

prop_compose! {
    /// Objects as a dump has them: names that hold anything, and SQL of some lines.
    fn some_objects()(names in prop::collection::btree_map("[a-c; :\"]{1,6}", "[a-z0-9 ]{0,12}", 0..8)) -> Vec<String> {
        names.into_iter().map(|(name, body)| {
            let sql = format!("CREATE VIEW public.x AS\n SELECT '{body}';\n\nALTER VIEW public.x OWNER TO app;");
            object(&name, "VIEW", "public", &sql)
        }).collect()
    }
}

proptest! {
    #[test]
    fn the_order_of_objects_says_nothing(objects in some_objects(), turn in 0usize..8) {
        let mut turned = objects.clone();
        let by = turn.min(turned.len());
        turned.rotate_left(by);
        let (one, other) = (read(&(HEAD.to_owned() + &objects.concat())), read(&(HEAD.to_owned() + &turned.concat())));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.by_key.len(), objects.len());
        prop_assert_eq!(unified(("a", &one), ("b", &other), |_| true), "");
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let objects = Objects::read(&bytes, TextEncoding::Utf8);
        let same = side(Vec::new()).with_structure(objects);
        prop_assert!(!compare(&same, &same).different);
    }

    /// What looks like a dump and is none.
    #[test]
    fn any_pieces_of_a_dump_are_read(pieces in prop::collection::vec(prop::sample::select(vec![
        "-- Name: t; Type: TABLE; Schema: public; Owner: a\n", "-- Name: ", "; Type: ", "; Schema: ", "; Owner: ", "\n",
        "CREATE TABLE t (a int, b text", ");\n", "(", ")", ",", ";", "'", "\"", "$$", "COPY t (a) FROM stdin;\n", "\\.\n",
        "SET default_table_access_method", " = x;\n", "GRANT ALL ON t TO a;\n", "-- Data for Name: ", "/*", "*/", "\\restrict x\n",
    ]), 0..30)) {
        let text = pieces.concat();
        let objects = read(&text);
        let one = side(Vec::new()).with_structure(objects.clone());
        prop_assert!(!compare(&one, &one).different);
        let nothing = side(Vec::new()).with_structure(Objects::default());
        let found = compare(&one, &nothing);
        prop_assert_eq!(found.objects.len(), objects.by_key.len());
        let _ = unified(("a", &objects), ("b", &Objects::default()), |_| true);
    }

    /// Turned around, a difference is the same one from the other side.
    #[test]
    fn a_difference_can_be_turned_around(
        before in prop::collection::btree_map("[a-d]", (prop::option::of(0u64..4), 1u128..3), 0..4),
        now in prop::collection::btree_map("[a-d]", (prop::option::of(0u64..4), 1u128..3), 0..4),
    ) {
        let tables = |all: &std::collections::BTreeMap<String, (Option<u64>, u128)>| {
            side(all.iter().map(|(name, (rows, digest))| held(name, *rows, *digest)).collect())
        };
        let (there, back) = (compare(&tables(&before), &tables(&now)), compare(&tables(&now), &tables(&before)));
        prop_assert_eq!(there.different, back.different);
        prop_assert_eq!(there.tables.len(), back.tables.len());
        for (one, other) in there.tables.iter().zip(&back.tables) {
            prop_assert_eq!((one.rows.from, one.rows.to), (other.rows.to, other.rows.from));
        }
        prop_assert_eq!(there.different, before.iter().any(|(name, value)| {
            now.get(name).is_none_or(|other| value.0.zip(other.0).is_some() && value != other)
        }) || now.keys().any(|name| !before.contains_key(name)));
    }
}

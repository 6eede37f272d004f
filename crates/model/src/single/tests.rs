//! Which statements belong to a table, and what they say under another schema.

use proptest::prelude::*;

use super::*;
use crate::name::{TableName, quote};

const DUMP: &str = r#"SET standard_conforming_strings = on;
SET lock_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);
CREATE TYPE public.mood AS ENUM ('CREATE TABLE public.t (a int);');
CREATE TYPE public.unused AS ENUM ('a');
CREATE FUNCTION public.f(a int) RETURNS int LANGUAGE sql AS $$ SELECT count(*) FROM public.t; $$;
CREATE FUNCTION public.mood() RETURNS int LANGUAGE sql AS 'select 1';
CREATE TABLE public.t (a integer DEFAULT public.f(1) NOT NULL, m public.mood);
ALTER TABLE public.t OWNER TO app;
CREATE TABLE public.other (t public.t);
CREATE SEQUENCE public.t_a_seq;
ALTER SEQUENCE public.t_a_seq OWNED BY public.t.a;
ALTER TABLE ONLY public.t ALTER COLUMN a SET DEFAULT nextval('public.t_a_seq'::regclass);
SELECT pg_catalog.setval('public.t_a_seq', 7, true);
SELECT pg_catalog.setval('public.lonely', 7, true);
ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (a);
CREATE INDEX i ON public.t USING btree (public.t(a));
COMMENT ON INDEX public.i IS 'public.t';
ALTER TABLE ONLY public.other ADD CONSTRAINT o FOREIGN KEY (a) REFERENCES public.t(a);
ALTER TABLE ONLY public.t ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES public.other(a);
COMMENT ON CONSTRAINT k ON public.t IS 'x';
CREATE TRIGGER g BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION ext.g();
GRANT SELECT ON TABLE public.t TO app;
SET SESSION AUTHORIZATION boss;
GRANT SELECT ON TABLE public.t TO b;
RESET SESSION AUTHORIZATION;
GRANT SELECT ON TABLE public.t TO c;
"#;

const PARTED: &str = r#"CREATE TABLE public.root (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE public.mid (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE public.leaf (a int, b int);
ALTER TABLE ONLY public.root ATTACH PARTITION public.mid FOR VALUES FROM (1) TO (9);
ALTER TABLE ONLY public.mid ATTACH PARTITION public.leaf FOR VALUES FROM (1) TO (5);
ALTER TABLE ONLY public.root ADD CONSTRAINT root_pkey PRIMARY KEY (a);
ALTER TABLE ONLY public.leaf ADD CONSTRAINT leaf_pkey PRIMARY KEY (a);
ALTER TABLE public.root ADD CONSTRAINT later CHECK ((b > 1)) NOT VALID;
COMMENT ON CONSTRAINT later ON public.root IS 'x';
CREATE TRIGGER g BEFORE INSERT ON public.root FOR EACH ROW EXECUTE FUNCTION public.f();
COMMENT ON TRIGGER g ON public.root IS 'x';
ALTER TABLE public.mid ADD CONSTRAINT k FOREIGN KEY (b) REFERENCES public.other(b);
ALTER TABLE public.other ADD CONSTRAINT o FOREIGN KEY (b) REFERENCES public.root(b);
"#;

#[test]
fn a_partition_alone_loses_what_only_its_ancestors_had() {
    let structure = Structure::read(PARTED.as_bytes().to_vec(), PARTED.len());
    let left_out = |table: &str, there: &[&str]| -> Vec<String> {
        let selection = Selection::new(&structure, &[TableName::new("public", table)], &[]);
        let found = there.iter().map(|&name| Found {
            is_powerful: false,
            schema: "public".to_owned(),
            name: name.to_owned(),
            relation: true,
            is_type: false,
            routine: false,
            other: false,
        });
        let there = There::new(["public".to_owned()], found.collect());
        let left_out = selection.plan(&there).left_out.into_iter();
        left_out
            .map(|left| format!("{}: {}", left.table, left.what))
            .collect()
    };
    let lost = [
        "public.leaf: being a partition of public.mid",
        "public.leaf: constraint later of public.root",
        "public.leaf: trigger g of public.root",
        "public.leaf: constraint k of public.mid",
    ];
    assert_eq!(left_out("leaf", &[]), lost);
    assert_eq!(left_out("leaf", &["mid", "root"]), [""; 0]);
    let lost = [
        "public.mid: being a partition of public.root",
        "public.mid: constraint later of public.root",
        "public.mid: trigger g of public.root",
    ];
    assert_eq!(left_out("mid", &["other"]), lost);
}

fn planned(map: &[(&str, &str)]) -> (Plan, String) {
    let behind = DUMP.find("SELECT pg_catalog.setval").unwrap();
    let structure = Structure::read(DUMP.as_bytes().to_vec(), behind);
    let map: Vec<(String, String)> = map
        .iter()
        .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
        .collect();
    let selection = Selection::new(&structure, &[TableName::new("public", "t")], &map);
    let there = There::new(["public".to_owned()], Vec::new());
    assert_eq!(selection.problems(&there), []);
    let plan = selection.plan(&there);
    let text = String::from_utf8([&plan.before[..], b"--rows\n", &plan.behind].concat()).unwrap();
    (plan, text)
}

#[test]
fn a_table_has_its_own_statements_and_what_they_need() {
    let (plan, text) = planned(&[]);
    let left: Vec<&str> = plan
        .left_out
        .iter()
        .map(|left| left.what.as_str())
        .collect();
    assert_eq!(left, ["constraint k", "trigger g"]);
    assert!(
        !text.contains("lock_timeout"),
        "how long to wait is not the dump's to say: {text}"
    );
    assert_eq!(plan.besides, ["function public.f", "type public.mood"]);
    for without in [
        "public.unused",
        "public.other",
        "lonely",
        "public.mood()",
        "IS 'x'",
    ] {
        assert!(!text.contains(without), "{without}: {text}");
    }
    for with in [
        "CREATE TYPE public.mood",
        "setval('public.t_a_seq'",
        "t_pkey",
        "IS 'public.t'",
    ] {
        assert!(text.contains(with), "{with}: {text}");
    }
    // The rights of another grantor, and the session back behind them.
    let behind = "SET SESSION AUTHORIZATION boss;\nGRANT SELECT ON TABLE public.t TO b;\nRESET SESSION AUTHORIZATION;\n\
        GRANT SELECT ON TABLE public.t TO c;\n";
    assert!(text.ends_with(behind), "{text}");
}

#[test]
fn another_schema_changes_names_and_nothing_else() {
    let (plan, text) = planned(&[("public", "new S")]);
    assert_eq!(plan.besides[0], "schema new S");
    for with in [
        "CREATE TABLE \"new S\".t (a integer DEFAULT public.f(1) NOT NULL, m public.mood);",
        "OWNED BY \"new S\".t.a;",
        "nextval('\"new S\".\"t_a_seq\"'::regclass)",
        "setval('\"new S\".\"t_a_seq\"', 7, true)",
        "ON \"new S\".t USING btree (public.t(a))",
        "COMMENT ON INDEX \"new S\".i IS 'public.t';",
        "$$ SELECT count(*) FROM public.t; $$",
    ] {
        assert!(text.contains(with), "{with}: {text}");
    }
}

proptest! {
    /// A table of any name, among text that looks like statements about it, is found and moved, and nothing else is.
    #[test]
    fn names_are_names_and_text_is_text(
        schema in "[a-z\"'. ;\n$-]{1,8}",
        name in "[a-zA-Z\"'. ;\n$-]{1,8}",
        noise in "[a-z'.; \n]{0,12}",
        to in "[a-z\"' ]{1,5}",
    ) {
        let full = format!("{}.{}", quote(&schema), quote(&name));
        let text = format!("{full} {noise}").replace('\'', "''");
        let dump = format!(
            "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE SCHEMA {s};\nCREATE TABLE {full} (a int, b text DEFAULT 'x{text}');\n\
             CREATE TABLE {s}.{o} (a int);\nCOMMENT ON TABLE {s}.{o} IS '{text}';\nCOMMENT ON TABLE {full} IS '{text}';\n",
            s = quote(&schema), o = quote(&format!("{name}x")),
        );
        let structure = Structure::read(dump.clone().into_bytes(), dump.len());
        let table = TableName::new(&*schema, &*name);
        let map = [(schema.clone(), to.clone())];
        let there = There::new([schema.clone(), to.clone()], Vec::new());
        for map in [&map[..], &[]] {
            let selection = Selection::new(&structure, std::slice::from_ref(&table), map);
            prop_assert_eq!(selection.tables(), vec![table.clone()]);
            let plan = String::from_utf8(selection.plan(&there).before).unwrap();
            let target = selection.target(&table);
            let full = format!("{}.{}", quote(target.schema_or_public()), quote(&name));
            let expected = format!(
                "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE {full} (a int, b text DEFAULT 'x{text}');\n\
                 COMMENT ON TABLE {full} IS '{text}';\n"
            );
            prop_assert_eq!(plan, expected);
        }
    }
}

const OWNED: &str = r#"SELECT pg_catalog.set_config('search_path', '', false);
CREATE SCHEMA shut;
ALTER SCHEMA shut OWNER TO boss;
CREATE FUNCTION public.g() RETURNS trigger LANGUAGE plperl AS 'x';
CREATE TABLE public.t (a int);
ALTER TABLE public.t OWNER TO "My App";
CREATE TABLE public.u (a int);
ALTER TABLE public.u OWNER TO other;
CREATE TABLE shut.s (a int);
ALTER TABLE shut.s OWNER TO boss;
CREATE TRIGGER g BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.g();
GRANT USAGE ON SCHEMA shut TO app;
"#;

#[test]
fn a_schema_that_is_made_for_a_copy_has_owner_and_rights() {
    let structure = Structure::read(OWNED.as_bytes().to_vec(), OWNED.len());
    let before = |tables: &[TableName], from: &str| {
        let map = [(from.to_owned(), "r".to_owned())];
        let selection = Selection::new(&structure, tables, &map);
        let there = There::new(["public".to_owned(), "shut".to_owned()], Vec::new());
        String::from_utf8(selection.plan(&there).before).unwrap()
    };
    let name = TableName::new;
    let public = before(&[name("public", "t"), name("public", "u")], "public");
    let made = "CREATE SCHEMA \"r\";\nGRANT USAGE ON SCHEMA \"r\" TO PUBLIC;\nALTER SCHEMA \"r\" OWNER TO \"My App\";\n\
        GRANT USAGE, CREATE ON SCHEMA \"r\" TO \"other\";\n";
    assert!(public.contains(made), "{public}");
    let shut = before(&[name("shut", "s")], "shut");
    let made = "CREATE SCHEMA \"r\";\nALTER SCHEMA \"r\" OWNER TO boss;\nGRANT USAGE ON SCHEMA \"r\" TO app;\n";
    assert!(shut.contains(made), "{shut}");
}

#[test]
fn a_trigger_in_a_language_that_is_not_there_is_left_out() {
    let structure = Structure::read(OWNED.as_bytes().to_vec(), OWNED.len());
    let selection = Selection::new(&structure, &[TableName::new("public", "t")], &[]);
    let mut there = There::new(["public".to_owned()], Vec::new());
    let plan = |languages: &[&str], there: &mut There| {
        there.languages = Some(languages.iter().map(|&name| name.to_owned()).collect());
        selection.plan(there)
    };
    let with = plan(&["sql", "plperl"], &mut there);
    assert!(with.left_out.is_empty() && with.besides == ["function public.g"]);
    let without = plan(&["sql"], &mut there);
    assert_eq!(without.left_out[0].what, "trigger g");
    assert!(without.besides.is_empty(), "{:?}", without.besides);
    let text = String::from_utf8([without.before, without.behind].concat()).unwrap();
    assert!(!text.contains("public.g"), "{text}");
}

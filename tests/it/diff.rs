//! `pgkeep diff`: what changed is told, nothing that did not change is, and no row is read for it.

use std::fs;

use serde_json::{Value, json};

use crate::backup::{Real, Shop, while_locked};
use crate::support::oracle::KEY;
use crate::support::postgres::TestDatabase;
use crate::support::sandbox::Outcome;
use crate::support::{CANARY, Sandbox, data, postgres};

const BEFORE: &str = r#"
    CREATE SCHEMA billing;
    CREATE TABLE users (id serial PRIMARY KEY, name text, age int, old text);
    INSERT INTO users (name, age) SELECT 'u' || n, n FROM generate_series(1, 100) n;
    CREATE TABLE logs (x int);
    INSERT INTO logs SELECT generate_series(1, 50);
    CREATE TABLE same (x int);
    INSERT INTO same VALUES (1);
    CREATE TABLE shifted (x int);
    INSERT INTO shifted VALUES (1), (2);
    CREATE TABLE billing."Invoice Lines" (id int, price numeric);
    CREATE TABLE p (id int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
    INSERT INTO p VALUES (1), (11);
    CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS $$
-- Name: users; Type: TABLE; Schema: public; Owner: nobody
select 1$$;
    CREATE VIEW v AS SELECT id FROM users;
"#;

/// Everything that a database may become otherwise.
const CHANGES: &str = r#"
    ALTER TABLE users ADD COLUMN email text DEFAULT 'x' NOT NULL, DROP COLUMN old, ALTER COLUMN age TYPE bigint;
    INSERT INTO users (name) VALUES ('z');
    DROP TABLE logs;
    CREATE TABLE fresh (a int, b text);
    INSERT INTO fresh VALUES (1, 'a');
    UPDATE shifted SET x = 3 WHERE x = 2;
    ALTER TABLE billing."Invoice Lines" RENAME TO "Lines";
    ALTER TABLE p DETACH PARTITION p2;
    CREATE OR REPLACE FUNCTION f(a int) RETURNS int LANGUAGE sql AS $$
-- Name: users; Type: TABLE; Schema: public; Owner: nobody
select 2$$;
    CREATE INDEX ON users (email);
"#;

struct Pair<'a> {
    real: Real,
    database: TestDatabase<'a>,
}

impl<'a> Pair<'a> {
    fn new() -> Option<Self> {
        let database = postgres()?.database();
        database.sql(BEFORE);
        Some(Self {
            real: Real::new(database.url()),
            database,
        })
    }

    fn change(&self) {
        self.database.sql(CHANGES);
        let name = self.database.name();
        self.database.sql(&format!(
            "ALTER DATABASE {name} SET work_mem = '8MB'; COMMENT ON DATABASE {name} IS 'hello'; SELECT lo_create(0);"
        ));
    }

    /// Makes a backup and returns its id.
    #[track_caller]
    fn backup(&self, more: &[&str]) -> String {
        let outcome = self.real.backup(more).expect(0);
        let id = &outcome.summary()["backups"][0]["backup_id"];
        id.as_str().unwrap().to_owned()
    }

    fn diff(&self, more: &[&str]) -> Outcome {
        let folder = self.real.folder().display().to_string();
        let fixed = ["diff", "--storage", &folder];
        let all: Vec<&str> = fixed.iter().chain(more).copied().collect();
        self.real.sandbox.pgkeep(all).run()
    }

    fn json(&self, more: &[&str]) -> Value {
        let all: Vec<&str> = ["--json"].iter().chain(more).copied().collect();
        self.diff(&all).expect(0).json()
    }
}

/// The tables that differ with what became of them, rows before and now.
fn tables(report: &Value) -> Value {
    let changes = report["tables"].as_array().unwrap().iter();
    changes
        .map(|change| {
            json!([
                change["table"],
                change["change"],
                change["rows"]["from"],
                change["rows"]["to"],
                change["rows_are"]
            ])
        })
        .collect()
}

fn objects(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let changes = report["objects"].as_array().unwrap().iter();
    changes
        .map(|object| {
            let parts = ["change", "type", "schema", "name"].map(|part| text(&object[part]));
            parts.join(" ")
        })
        .collect()
}

/// What the changes do to the structure, in the order of names.
const OBJECTS: [&str; 8] = [
    "removed TABLE billing Invoice Lines",
    "added TABLE billing Lines",
    "changed FUNCTION public f(integer)",
    "added TABLE public fresh",
    "removed TABLE public logs",
    "removed TABLE ATTACH public p2",
    "changed TABLE public users",
    "added INDEX public users_email_idx",
];

#[test]
fn two_backups_differ_by_what_was_changed_and_by_nothing_else() {
    let Some(pair) = Pair::new() else { return };
    let older = pair.backup(&[]);
    pair.change();
    let newer = pair.backup(&["--compression", "zstd"]);
    // The order in which they are named says nothing.
    let report = pair.json(&[&newer, &older]);
    assert_eq!(
        (
            &report["from"]["backup_id"],
            &report["to"]["backup_id"],
            &report["different"]
        ),
        (&json!(older), &json!(newer), &json!(true))
    );
    let expected = json!([
        ["billing.\"Invoice Lines\"", "removed", 0, null, "unknown"],
        ["billing.\"Lines\"", "added", null, 0, "unknown"],
        ["public.fresh", "added", null, 1, "unknown"],
        ["public.logs", "removed", 50, null, "unknown"],
        ["public.p2", "changed", 1, 1, "same"],
        ["public.shifted", "changed", 2, 2, "other"],
        ["public.users", "changed", 100, 101, "other"],
    ]);
    assert_eq!(tables(&report), expected, "{report:#}");
    let users = &report["tables"][6];
    let columns = json!([
        {"column": "age", "change": "changed", "from": "integer", "to": "bigint"},
        {"column": "old", "change": "removed", "from": "text", "to": null},
        {"column": "email", "change": "added", "from": null, "to": "text DEFAULT 'x'::text NOT NULL"},
    ]);
    assert_eq!(users["columns"], columns);
    let notes = report["tables"][4]["notes"].as_array().unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    let objects = objects(&report);
    assert_eq!(objects, OBJECTS);
    assert_eq!(report["sequences"][0]["sequence"], "public.users_id_seq");
    assert_eq!(
        report["sequences"][0]["to"],
        json!({"value": 101, "is_called": true})
    );
    let settings = json!([
        {"name": "comment", "from": null, "to": "hello"},
        {"name": "setting work_mem", "from": null, "to": "8MB"},
    ]);
    assert_eq!(report["settings"], settings);
    assert_eq!(
        report["totals"]["large_objects"],
        json!({"from": 0, "to": 1})
    );
    assert_eq!(report["structure_compared"], true);
    assert_eq!(
        (&report["remarks"], &report["sql"]),
        (&json!([]), &Value::Null)
    );
    // People read the same.
    let text = pair.diff(&[&older, &newer]).expect(0);
    for words in [
        "public.logs",
        "REMOVED",
        "100 -> 101",
        "age: integer -> bigint",
        "other rows",
        "+ INDEX public.users_email_idx",
    ] {
        assert!(text.stdout().contains(words), "{words}: {text}");
    }
    assert!(!text.stdout().contains("same"), "{text}");
}

#[test]
fn the_structure_comes_as_unified_sql() {
    let Some(pair) = Pair::new() else { return };
    let older = pair.backup(&[]);
    pair.change();
    let newer = pair.backup(&[]);
    let text = pair.diff(&[&older, &newer, "--sql"]).expect(0);
    let users = format!(
        "--- {older}: TABLE public.users\n+++ {newer}: TABLE public.users\n@@ -1,7 +1,7 @@\n CREATE TABLE public.users (\n     \
         id integer NOT NULL,\n     name text,\n-    age integer,\n-    old text\n+    age bigint,\n+    email text DEFAULT \
         'x'::text NOT NULL\n );\n"
    );
    assert!(text.stdout().contains(&users), "{text}");
    assert!(
        text.stdout()
            .contains(&format!("--- /dev/null\n+++ {newer}: TABLE public.fresh\n")),
        "{text}"
    );
    // What runs by chance or by the clock is no difference.
    for noise in ["restrict", "Dumped", "setval", "SET default"] {
        assert!(!text.stdout().contains(noise), "{noise}: {text}");
    }
    let report = pair.json(&[&older, &newer, "--sql"]);
    assert_eq!(report["sql"], text.stdout());
}

#[test]
fn exit_codes_are_those_of_git() {
    let Some(pair) = Pair::new() else { return };
    let older = pair.backup(&[]);
    let again = pair.backup(&["--compression", "none"]);
    pair.database.sql("INSERT INTO same VALUES (2)");
    let newer = pair.backup(&[]);
    let same = pair.diff(&[&older, &again, "--exit-code"]).expect(0);
    assert!(same.stdout().contains("no differences: "), "{same}");
    assert_eq!(pair.json(&[&older, &older])["different"], false);
    pair.diff(&[&older, &newer, "--exit-code"]).expect(1);
    pair.diff(&[&older, &newer]).expect(0);
    pair.diff(&[&older, "latest", "--exit-code"]).expect(1);
    let missing = pair
        .diff(&["--json", &older, "shop-20260102T030405Z-7f3a"])
        .expect(10);
    assert_eq!(missing.exit_error()["id"], "no_such_backup");
    pair.diff(&[&older, "nonsense"]).expect(10);
    pair.diff(&[&older]).expect(2);
    pair.diff(&[&older, &newer, "--live"]).expect(2);
}

#[test]
fn a_database_is_compared_as_it_is_now() {
    let Some(pair) = Pair::new() else { return };
    let older = pair.backup(&[]);
    let now = pair.diff(&[&older, "--live", "--exit-code"]).expect(0);
    assert!(now.stdout().contains("no differences: "), "{now}");
    pair.change();
    let report = pair.json(&["latest", "--live", "--sql"]);
    assert_eq!(report["to"]["backup_id"], Value::Null);
    assert!(
        report["to"]["connection"]
            .as_str()
            .unwrap()
            .contains("127.0.0.1"),
        "{report:#}"
    );
    // An update that keeps the number of rows is not seen, which the help says.
    let expected = json!([
        ["billing.\"Invoice Lines\"", "removed", 0, null, "unknown"],
        ["billing.\"Lines\"", "added", null, 0, "unknown"],
        ["public.fresh", "added", null, 1, "unknown"],
        ["public.logs", "removed", 50, null, "unknown"],
        ["public.p2", "changed", 1, 1, "unknown"],
        ["public.users", "changed", 100, 101, "other"],
    ]);
    assert_eq!(tables(&report), expected, "{report:#}");
    assert!(
        report["sql"]
            .as_str()
            .unwrap()
            .contains("+++ now: TABLE public.fresh\n")
    );
    // A backup made now says the same of the structure.
    let newer = pair.backup(&[]);
    let backups = pair.json(&[&older, &newer]);
    for part in ["objects", "sequences", "settings", "roles", "extensions"] {
        assert_eq!(report[part], backups[part], "{part}");
    }
    let url = pair.database.url();
    let none = pair.diff(&[&newer, "--url", &url, "--exit-code"]).expect(0);
    assert!(none.stdout().contains("by their number"), "{none}");
}

/// What `pg_dump` writes is read as it writes it: a database differs neither from its backup nor from a copy of it.
#[test]
fn real_databases_do_not_differ_from_their_backups() {
    let Some(server) = postgres() else { return };
    for (name, text) in [
        ("nasty", data::nasty(server)),
        ("chinook", data::dump("public/neon-chinook.sql")),
        ("danbooru", data::dump("public/danbooru-structure.sql")),
        ("pagila", data::dump("../../assets/pagila.sql.gz")),
    ] {
        let database = server.database();
        server.load_what_loads(database.name(), &text);
        let pair = Pair {
            real: Real::new(database.url()),
            database,
        };
        pair.backup(&["--allow-empty"]);
        let report = pair.json(&["latest", "--live", "--rows"]);
        assert_eq!(report["different"], false, "{name}: {report:#}");
        let objects = report["totals"]["objects"]["to"].as_u64().unwrap();
        assert!(objects > 20, "{name}: {objects}");
    }
}

#[test]
fn rows_of_a_database_are_read_where_that_is_wanted() {
    let Some(pair) = Pair::new() else { return };
    let id = pair.backup(&[]);
    let read = ["--live", "--rows", "--exit-code"];
    let with = |more: &[&str]| {
        let all: Vec<&str> = [id.as_str()]
            .iter()
            .chain(&read)
            .chain(more)
            .copied()
            .collect();
        pair.diff(&all)
    };
    let none = with(&[]).expect(0);
    assert!(!none.stdout().contains("by their number"), "{none}");
    pair.database.sql("UPDATE shifted SET x = 3 WHERE x = 2");
    pair.diff(&[&id, "--live", "--exit-code"]).expect(0);
    let report = with(&["--json"]).expect(1).json();
    assert_eq!(
        tables(&report),
        json!([["public.shifted", "changed", 2, 2, "other"]]),
        "{report:#}"
    );
    assert_eq!(report["tables"][0]["bytes"], json!({"from": 4, "to": 4}));
    pair.diff(&[&id, &id, "--rows"]).expect(2);
}

/// The database is the backup's own, and what it is called decides nothing else.
#[test]
fn the_configuration_says_where_the_database_is() {
    let Some(pair) = Pair::new() else { return };
    let other = pair.database.server().database();
    let mut sandbox = Sandbox::new();
    sandbox.set("SHOP_URL", pair.database.url());
    sandbox.set("BLOG_URL", other.url());
    let config = json!({
        "databases": {"shop": {"url": "${SHOP_URL}", "lock_wait_timeout": "1s"}, "blog": {"url": "${BLOG_URL}", "allow_empty": true}},
        "storages": {"local": {"url": "backups"}},
    });
    sandbox.write("pgkeep.yaml", config.to_string());
    let run = |arguments: &[&str]| sandbox.pgkeep(arguments).run();
    run(&["backup"]).expect(0);
    pair.database.sql("DROP TABLE logs");
    let which = run(&["--json", "diff", "latest", "--live"]).expect(2);
    assert_eq!(which.exit_error()["id"], "database_needed");
    run(&["-d", "blog", "diff", "latest", "--live", "--exit-code"]).expect(0);
    let shop = run(&["-d", "shop", "--json", "diff", "latest", "--live"])
        .expect(0)
        .json();
    let id = shop["from"]["backup_id"].as_str().unwrap();
    let by_id = run(&["--json", "diff", id, "--live"]).expect(0).json();
    assert_eq!(
        (&by_id["tables"], by_id["tables"][0]["change"].as_str()),
        (&shop["tables"], Some("removed"))
    );
    // Two databases can be compared, too.
    let list = run(&["-d", "blog", "--json", "list"]).expect(0).json();
    let blog = list["backups"][0]["id"].as_str().unwrap();
    let both = run(&["--json", "diff", id, blog]).expect(0).json();
    assert!(
        both["remarks"][0]
            .as_str()
            .unwrap()
            .starts_with("the databases differ"),
        "{both:#}"
    );
    while_locked(&pair.database, || {
        let locked = run(&["--json", "diff", id, "--live"]).expect(20);
        assert_eq!(locked.exit_error()["id"], "lock_timeout", "{locked}");
    });
}

#[test]
fn a_login_that_is_refused_ends_the_comparison() {
    let Some(pair) = Pair::new() else { return };
    let id = pair.backup(&[]);
    let server = pair.database.server();
    let name = pair.database.name();
    server.sql(name, "CREATE ROLE diff_reader LOGIN PASSWORD 'right'");
    let url = server.url_as("diff_reader", CANARY, name);
    let refused = pair.diff(&["--json", &id, "--url", &url]).expect(12);
    assert_eq!(refused.exit_error()["id"], "login_refused");
    let message = refused.exit_error()["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("nothing was changed"), "{message}");
    // One that may log in and read nothing is told what it lacks.
    server.sql(name, &format!("ALTER ROLE diff_reader PASSWORD '{CANARY}'"));
    let unable = pair.diff(&["--json", &id, "--url", &url]).expect(20);
    assert_eq!(unable.exit_error()["id"], "permission_denied");
    server.sql(name, "DROP ROLE diff_reader");
}

#[test]
fn what_a_selection_leaves_out_is_no_difference() {
    let Some(pair) = Pair::new() else { return };
    let whole = pair.backup(&[]);
    let part = pair.backup(&[
        "--exclude-table",
        "logs",
        "--exclude-table",
        "p",
        "--structure-only",
        "users",
    ]);
    let report = pair.json(&[&whole, &part]);
    assert_eq!(report["different"], false, "{report:#}");
    let left = report["not_compared"].as_array().unwrap().iter();
    let skipped: Vec<&str> = left.map(|one| one["table"].as_str().unwrap()).collect();
    assert_eq!(
        skipped,
        [
            "public.logs",
            "public.p",
            "public.p1",
            "public.p2",
            "public.users"
        ]
    );
    let remark = report["remarks"][0].as_str().unwrap();
    assert!(remark.contains("all but the tables `logs`"), "{remark}");
    // The database is read as the backup was.
    pair.database
        .sql("DROP TABLE logs; INSERT INTO users (name) VALUES ('z')");
    let live = pair.json(&[&part, "--live"]);
    assert_eq!(tables(&live), json!([]), "{live:#}");
    assert_eq!(live["remarks"], json!([]), "{live:#}");
    let chosen = pair.backup(&["--table", "same", "--table", "shifted"]);
    pair.database
        .sql("DROP TABLE same; INSERT INTO shifted VALUES (7)");
    let live = pair.json(&[&chosen, "--live"]);
    let expected = json!([
        ["public.same", "removed", 1, null, "unknown"],
        ["public.shifted", "changed", 2, 3, "other"],
    ]);
    assert_eq!(tables(&live), expected, "{live:#}");
    pair.database.sql("DROP TABLE shifted");
    let gone = pair.json(&[&chosen, "--live"]);
    assert_eq!(gone["tables"].as_array().unwrap().len(), 2, "{gone:#}");
}

#[test]
fn an_encrypted_backup_gives_its_structure_with_a_key_only() {
    let Some(pair) = Pair::new() else { return };
    let generate = ["--json", "keys", "generate", "--output", KEY];
    let made = pair.real.sandbox.pgkeep(generate).run().expect(0).json();
    let recipient = made["recipient"].as_str().unwrap().to_owned();
    let older = pair.backup(&["--recipient", &recipient]);
    let again = pair.backup(&["--recipient", &recipient]);
    pair.change();
    let newer = pair.backup(&["--recipient", &recipient]);
    let without = pair.json(&[&older, &newer]);
    assert_eq!(without["structure_compared"], false);
    assert!(
        without["warnings"][0]
            .as_str()
            .unwrap()
            .contains("no identity was given"),
        "{without:#}"
    );
    // The manifests know rows and the names of columns.
    let users = &without["tables"].as_array().unwrap().last().unwrap()["columns"];
    let expected = json!([
        {"column": "old", "change": "removed", "from": null, "to": null},
        {"column": "email", "change": "added", "from": null, "to": null},
    ]);
    assert_eq!(users, &expected);
    // One that opens nothing is as good as none.
    let other = ["--json", "keys", "generate", "--output", "other.txt"];
    pair.real.sandbox.pgkeep(other).run().expect(0);
    let wrong = pair.json(&[&older, &newer, "--identity", "other.txt"]);
    assert_eq!(wrong["tables"], without["tables"]);
    assert_eq!(wrong["structure_compared"], false);
    let key = ["--identity", KEY];
    let with = |more: &[&str]| {
        let all: Vec<&str> = more.iter().chain(&key).copied().collect();
        pair.diff(&all)
    };
    let report = with(&["--json", &older, &newer]).expect(0).json();
    assert_eq!(
        (&report["structure_compared"], &report["warnings"]),
        (&json!(true), &json!([]))
    );
    assert!(objects(&report).contains(&"added INDEX public users_email_idx".to_owned()));
    let sql = pair.diff(&["--json", &older, &newer, "--sql"]).expect(12);
    assert_eq!(sql.exit_error()["id"], "no_identity");
    assert!(sql.stdout().is_empty(), "{sql}");
    // Nothing that differs, and nothing that could be read, is no answer.
    let untold = pair
        .diff(&["--json", &older, &again, "--exit-code"])
        .expect(12);
    assert_eq!(untold.exit_error()["id"], "no_identity");
    pair.diff(&[&older, &newer, "--exit-code"]).expect(1);
    with(&[&older, &again, "--exit-code"]).expect(0);
}

/// The rows of a table are never fetched: the structure lies around them.
#[test]
fn no_row_is_read() {
    let mut shop = Shop::new();
    let mut ids = Vec::new();
    for column in ["a", "b"] {
        shop.prints(crate::verify::dump().replace(
            "CREATE TABLE",
            &format!("CREATE VIEW {column} AS SELECT 1;\n\nCREATE TABLE"),
        ));
        let summary = shop.backup(&["--compression", "none"]).expect(0).summary();
        ids.push(
            summary["backups"][0]["backup_id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let report = shop
        .over(&["--json", "diff", &ids[0], &ids[1]])
        .run()
        .expect(0)
        .json();
    let stored: u64 = ["from", "to"]
        .iter()
        .map(|side| report[side]["stored_bytes"].as_u64().unwrap())
        .sum();
    let read = report["read_bytes"].as_u64().unwrap();
    assert!(read > 0 && read * 10 < stored, "{read} of {stored}");
}

const HEADER: &str = "--\n-- Name: users; Type: TABLE; Schema: public; Owner: app\n--\n\n";

/// A structure that is not what was stored is no structure, and the next copy is read instead.
#[test]
fn a_damaged_structure_is_not_compared() {
    let mut shop = Shop::new();
    let second = shop.sandbox.path("second");
    let both = [
        "--compression",
        "none",
        "--storage",
        second.to_str().unwrap(),
    ];
    let mut ids = Vec::new();
    for column in ["a", "b"] {
        let text = crate::verify::dump()
            .replace("body text", &format!("{column} text"))
            .replace(
                "CREATE TABLE public.users",
                &format!("{HEADER}CREATE TABLE public.users"),
            );
        shop.prints(text);
        let summary = shop.backup(&both).expect(0).summary();
        ids.push(
            summary["backups"][0]["backup_id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let path = shop.folder().join(format!("shop/{}.sql", ids[1]));
    let text = fs::read(&path).unwrap();
    let at = text.windows(6).position(|six| six == b"b text").unwrap();
    let mut damaged = text;
    damaged[at] = b'c';
    fs::write(&path, damaged).unwrap();
    let alone = shop
        .over(&["--json", "diff", &ids[0], &ids[1]])
        .run()
        .expect(23);
    assert_eq!(alone.exit_error()["id"], "rows_damaged", "{alone}");
    let with_both = [
        "--json",
        "diff",
        &ids[0],
        &ids[1],
        "--storage",
        second.to_str().unwrap(),
    ];
    let report = shop.over(&with_both).run().expect(0).json();
    assert_eq!(
        report["tables"][0]["columns"][0]["column"], "a",
        "{report:#}"
    );
    assert_eq!(report["tables"][0]["columns"][1]["column"], "b");
    assert_eq!(
        objects(&report)[0],
        "changed STATEMENT - CREATE TABLE public.orders ("
    );
}

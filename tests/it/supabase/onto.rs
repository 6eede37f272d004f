//! Onto a plain server, onto another project, and what stands against it.

use std::path::Path;

use serde_json::{Value, json};

use super::{Platform, Project, rows, texts};
use crate::docs::text_of;
use crate::support::postgres::USER;
use crate::support::{Sandbox, Server, data};

/// The newest of the platform's dumps that came from a project in use.
pub(super) const DUMP: &str = "supabase/supabase-initial-14.sql";

/// How the superuser of a plain server reaches a database.
pub(super) fn socket_url(server: &Server, database: &str) -> String {
    let folder = server.socket_dir().display();
    format!(
        "postgresql://{USER}@/{database}?host={folder}&port={}",
        server.port()
    )
}

#[test]
fn a_plain_server_gets_policies_that_work() {
    let (Some(platform), Some(plain)) = (Platform::new(), Server::private()) else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let into = socket_url(&plain, "copy");
    let command = ["restore", "latest", "--into", &into, "--allow-superuser"];
    let restored = project.run(&[&command[..], &["--jobs", "3"]].concat());
    let report = restored.expect(0).summary();
    assert_eq!(report["jobs"], 3, "{report}");
    assert_eq!(rows(&report, "auth.users"), 50);
    let skipped = texts(&report["skipped_extensions"]);
    assert_eq!(
        skipped, [""; 0],
        "of what the platform lacks nothing is dumped"
    );
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role', \
                 'authenticator') AND NOT rolcanlogin AND NOT rolsuper";
    assert_eq!(plain.sql("copy", roles), "4");
    let see = "SET ROLE authenticated; SET request.jwt.claim.sub = '";
    let own = "'; SELECT count(*) FROM public.posts";
    let user = plain.sql("copy", "SELECT id FROM auth.users LIMIT 1");
    assert_eq!(plain.sql("copy", &format!("{see}{user}{own}")), "1");
    let nobody = "00000000-0000-0000-0000-000000000000";
    assert_eq!(plain.sql("copy", &format!("{see}{nobody}{own}")), "0");
    // What it makes is a project's: its triggers fire.
    plain.sql(
        "copy",
        "INSERT INTO auth.users (id, raw_user_meta_data) VALUES (extensions.uuid_generate_v4(), '{\"name\": \"new\"}')",
    );
    let profiles = plain.sql("copy", "SELECT count(*) FROM public.profiles");
    assert_eq!(profiles, "51");
}

#[test]
fn the_platforms_extensions_and_event_triggers_are_left_out() {
    let (Some(platform), Some(plain)) = (Platform::new(), Server::private()) else {
        return;
    };
    let database = platform.project("supabase/supabase-initial-13.sql");
    database.sql(
        "CREATE FUNCTION extensions.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
         DROP EVENT TRIGGER IF EXISTS pgrst_ddl_watch;
         CREATE EVENT TRIGGER pgrst_ddl_watch ON ddl_command_end EXECUTE FUNCTION extensions.watch();
         CREATE FUNCTION public.mine() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
         CREATE EVENT TRIGGER own_watch ON ddl_command_end EXECUTE FUNCTION public.mine();",
    );
    database.sql(&format!(
        "SET ROLE postgres; {}",
        include_str!("project.sql")
    ));
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let into = socket_url(&plain, "copy");
    let restored = project.run(&["restore", "latest", "--into", &into, "--allow-superuser"]);
    let report = restored.expect(0).summary();
    assert_eq!(rows(&report, "public.posts"), 50);
    let triggers = plain.sql("copy", "SELECT evtname FROM pg_event_trigger");
    assert_eq!(triggers, "own_watch");
}

/// Extensions and schemas that its tables refer to are not in such a dump.
#[test]
fn a_choice_of_schemas_stands_on_stand_ins() {
    let Some(platform) = Platform::new() else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let url = platform.url(database.name());
    let project = Project::new(&url, &json!({"schemas": ["public", "billing"]}));
    let manifest = project.backup();
    assert!(!manifest.to_string().contains("\"auth\""), "{manifest}");
    let sql = "SELECT count(*) || ' ' || count(*) FILTER (WHERE NOT convalidated) FROM pg_constraint \
               WHERE contype = 'f' AND confrelid = 'auth.users'::regclass";
    let assertions = json!([
        {"name": "keys", "sql": sql, "expect": "equals 2 2"},
        {"name": "policies", "sql": "SELECT count(*) FROM pg_policy", "expect": "equals 3"},
        {"name": "users", "sql": "SELECT * FROM auth.users", "expect": "no_rows"},
        {"name": "nobody", "sql": "SELECT 1 WHERE auth.uid() IS NOT NULL", "expect": "no_rows"},
    ]);
    let drilling = Project::new(
        &url,
        &json!({"schemas": ["public", "billing"], "drill": {"assertions": assertions}}),
    );
    drilling.backup();
    let drill = drilling.run(&["drill"]).summary();
    assert_eq!(drill["passed"], true, "{drill}");
    let restore = &drill["restore"];
    assert_eq!(rows(restore, "public.posts"), 50);
    assert_eq!(rows(restore, "billing.invoices"), 7);
    let told = texts(&restore["stand_ins"]).join("\n");
    for part in [
        "an empty table `users`",
        "NOT VALID",
        "http_request()",
        "extension `uuid-ossp`",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let text = drilling.sandbox.pgkeep(["drill"]).run();
    let second = text.stdout().lines().nth(1).unwrap_or_default();
    assert!(
        second.contains("stand-in for a part of the platform"),
        "{}",
        text.stdout()
    );
}

#[test]
fn another_project_takes_what_is_the_projects_own() {
    let (Some(platform), Some(other)) = (Platform::new(), Platform::new()) else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let target = other.project(DUMP);
    let before = target.sql("SELECT count(*) FROM auth.schema_migrations");
    let into = other.url(target.name());
    let restore = ["restore", "latest", "--into", &into];
    let report = project.run(&restore).expect(0).summary();
    for (table, expected) in [
        ("auth.users", 50),
        ("public.profiles", 50),
        ("public.visits_2026", 50),
        ("storage.objects", 9),
    ] {
        assert_eq!(rows(&report, table), expected, "{table}");
    }
    assert_eq!(texts(&report["created_roles"]), [""; 0]);
    assert_eq!(texts(&report["stand_ins"]), [""; 0]);
    let after = target.sql("SELECT count(*) FROM auth.schema_migrations");
    assert_eq!(after, before, "how far the platform is, is its own");
    let mine = "SELECT (SELECT count(*) FROM pg_policy WHERE polname = 'own files'), \
                (SELECT count(*) FROM pg_trigger WHERE tgname IN ('on_user', 'on_post') AND tgenabled = 'O'), \
                (SELECT count(*) FROM pg_publication_tables WHERE pubname = 'supabase_realtime')";
    assert_eq!(target.sql(mine), "1|2|1");
    // Now it has something of its own.
    let failed = project.run(&restore).expect(25).exit_error();
    assert_eq!(failed["id"], "target_not_empty", "{failed}");
    assert!(
        failed["hints"].to_string().contains("another project"),
        "{failed}"
    );
    let swap = project
        .run(&[&restore[..], &["--replace"]].concat())
        .expect(25);
    assert_eq!(swap.exit_error()["id"], "platform_database", "{swap}");
}

/// The platform's tables are there and may have rows: nothing of them may be lost or doubled.
#[test]
fn a_project_with_the_same_user_stays_as_it_was() {
    let Some(platform) = Platform::new() else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let target = platform.project(DUMP);
    target.sql("INSERT INTO auth.users (id, email) SELECT md5('1')::uuid, 'before@example.com'");
    let into = platform.url(target.name());
    let failed = project.run(&["restore", "latest", "--into", &into]);
    assert_ne!(failed.code(), 0, "{}", failed.stdout());
    assert_eq!(
        target.sql("SELECT email FROM auth.users"),
        "before@example.com"
    );
    assert_eq!(
        target.sql("SELECT to_regclass('public.posts') IS NULL"),
        "t"
    );
}

/// The same schemas on a server that is not the platform's are somebody's own.
#[test]
fn a_role_of_that_name_makes_no_platform() {
    let (Some(platform), Some(plain)) = (Platform::new(), Server::private()) else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    plain.sql(
        "template1",
        "CREATE ROLE supabase_admin NOLOGIN; CREATE DATABASE other",
    );
    plain.sql(
        "other",
        "CREATE SCHEMA auth; CREATE TABLE auth.users (id uuid)",
    );
    let into = socket_url(&plain, "other");
    let failed = project
        .run(&["restore", "latest", "--into", &into, "--allow-superuser"])
        .expect(25)
        .exit_error();
    assert_eq!(failed["id"], "target_not_empty", "{failed}");
}

/// `supabase db dump` names roles, schemas and extensions that it does not make.
#[test]
fn a_dump_of_the_platforms_own_tool_is_restored() {
    let Some(plain) = Server::private() else {
        return;
    };
    let sandbox = Sandbox::new();
    let dump = data::dump("supabase/supabase-fmt-simple.sql");
    let into = socket_url(&plain, "copy");
    let run = |dump: &[u8]| {
        let file = sandbox.write("project.sql", dump).display().to_string();
        let more = [
            "--accept-no-end-marker",
            "--preset",
            "supabase",
            "--allow-superuser",
        ];
        let command = ["--json", "restore", &file, "--into", &into];
        sandbox.pgkeep(command.iter().chain(&more)).run()
    };
    // PostGIS is nobody's platform: tables may need it.
    let failed = run(&dump).expect(25).exit_error();
    assert_eq!(failed["id"], "extension_missing", "{failed}");
    let dump = String::from_utf8(dump).unwrap();
    let (before, after) = dump
        .split_once("CREATE EXTENSION IF NOT EXISTS \"postgis\"")
        .unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    let restored = run(format!("{before}{after}").as_bytes()).expect(0);
    let report = restored.summary();
    assert_eq!(report["database"], "copy", "{report}");
    assert_eq!(
        texts(&report["skipped_extensions"]),
        ["pgsodium", "pg_graphql", "pgjwt", "supabase_vault"]
    );
    let there = "SELECT string_agg(extname, ' ' ORDER BY extname) FROM pg_extension WHERE extname <> 'plpgsql'";
    let expected = "pg_stat_statements pgcrypto uuid-ossp";
    assert_eq!(plain.sql("copy", there), expected);
    let rights = "SELECT has_table_privilege('anon', 'public.countries', 'INSERT')";
    assert_eq!(plain.sql("copy", rights), "t");
}

/// Nobody left anything out of these: event triggers and rights on what the server lacks are in them.
#[test]
fn whole_dumps_of_the_platform_are_restored() {
    let Some(plain) = Server::private() else {
        return;
    };
    let sandbox = Sandbox::new();
    for (name, dump) in [
        ("one", "supabase/supabase-initial-13.sql"),
        ("two", "supabase/supabase-initial-14.sql"),
    ] {
        let text = data::dump(dump);
        // Somebody added to the second what no pg_dump writes.
        let end = memchr::memmem::find(&text, b"DROP EXTENSION pg_graphql;").unwrap_or(text.len());
        let file = sandbox.write(dump, &text[..end]).display().to_string();
        let into = socket_url(&plain, name);
        let command = ["--json", "restore", &file, "--into", &into];
        let more = ["--preset", "supabase", "--allow-superuser"];
        let run = sandbox.pgkeep(command.iter().chain(&more)).run();
        let report = run.expect(0).summary();
        // Rows that came by INSERT are counted.
        for table in report["tables"].as_array().unwrap() {
            assert!(table["problem"].is_null(), "{table}");
            let rows = table["rows"].as_u64().unwrap_or(0);
            assert_eq!(table["found_rows"], rows, "{table}");
        }
        assert!(report["rows"].as_u64() > Some(60), "{report}");
        assert!(texts(&report["skipped_extensions"]).contains(&"pgjwt"));
        let triggers = plain.sql(name, "SELECT count(*) FROM pg_event_trigger");
        assert_eq!(triggers, "0", "{dump}");
    }
}

#[test]
fn what_the_role_may_not_read_is_told() {
    let Some(platform) = Platform::new() else {
        return;
    };
    let database = platform.lived_in(DUMP);
    database.sql(
        "CREATE TABLE auth.new_feature (id integer); ALTER TABLE auth.new_feature OWNER TO supabase_admin;
         REVOKE ALL ON auth.new_feature FROM postgres, public",
    );
    let project = Project::new(&platform.url(database.name()), &json!({}));
    let summary = project.run(&["backup"]).summary();
    let warnings = summary["backups"][0]["warnings"].to_string();
    assert!(
        warnings.contains("`auth.new_feature` is left out"),
        "{summary}"
    );
    let manifest = project.run(&["show", "latest"]).expect(0).json();
    assert!(!manifest["tables"].to_string().contains("new_feature"));
    // Without its users no backup of a project is worth the name.
    database.sql("REVOKE ALL ON auth.users FROM postgres, public, dashboard_user");
    let failed = project.run(&["backup"]);
    assert_ne!(failed.code(), 0);
    assert!(
        failed.stdout().contains("auth.users"),
        "{}",
        failed.stdout()
    );
}

/// The book's own commands, as a role that is not a superuser anywhere.
#[test]
fn the_commands_of_the_text_run() {
    const PAGE: &str = "docs/src/supabase.md";
    let (Some(platform), Some(other), Some(plain)) =
        (Platform::new(), Platform::new(), Server::private())
    else {
        return;
    };
    plain.sql(
        "template1",
        "CREATE ROLE restorer LOGIN CREATEDB CREATEROLE; GRANT postgres TO restorer",
    );
    let database = platform.lived_in(DUMP);
    let target = other.project(DUMP);
    let mut sandbox = Sandbox::new();
    sandbox.write("supabase.yaml", text_of(PAGE, "yaml supabase.yaml"));
    let own = std::env::var_os("PATH").unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_pgkeep")).parent().unwrap();
    let first = [built.to_owned(), plain.bin().to_owned()].into_iter();
    let path = std::env::join_paths(first.chain(std::env::split_paths(&own)));
    sandbox.set("PATH", path.unwrap());
    sandbox.set("SUPABASE_URL", platform.url(database.name()));
    sandbox.set("NEW_PROJECT_URL", other.url(target.name()));
    let url = socket_url(&plain, "app").replace(USER, "restorer");
    sandbox.set("PLAIN_SERVER_URL", url);
    let commands = text_of(PAGE, "sh run supabase");
    assert_eq!(commands.lines().count(), 5, "{commands}");
    let run = sandbox.program("sh", ["-euc", &commands]).run();
    run.expect(0);
    for table in ["auth.users", "public.posts", "billing.invoices"] {
        let count = format!("SELECT count(*) FROM {table}");
        let there = database.sql(&count);
        assert_eq!(target.sql(&count), there, "{table}");
        assert_eq!(plain.sql("app", &count), there, "{table}");
    }
}

/// The flag says for one run what the key says for all; both are one backup to `guard` and to a restore.
#[test]
fn the_flag_is_the_key() {
    let (Some(platform), Some(plain)) = (Platform::new(), Server::private()) else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let mut sandbox = Sandbox::new();
    sandbox.set("DATABASE_URL", platform.url(database.name()));
    let from = ["--storage", "backups"];
    let run = |command: &[&str], more: &[&str]| {
        let arguments = command.iter().chain(&from).chain(more);
        sandbox.pgkeep(["--json"].iter().chain(arguments)).run()
    };
    let preset = ["--preset", "supabase", "--name", "app"];
    run(&["backup"], &preset).expect(0);
    let tables = |outcome: &Value| -> usize {
        let tables = outcome["tables"].as_array().unwrap();
        tables
            .iter()
            .filter(|table| table["schema"] == "_realtime")
            .count()
    };
    let shown = run(&["show", "latest"], &[]).expect(0).json();
    assert_eq!(tables(&shown), 0, "{shown}");
    let checked = run(&["check"], &preset);
    assert!([0, 3].contains(&checked.code()), "{}", checked.stdout());
    // The manifest says it to a restore.
    let into = socket_url(&plain, "copy");
    let report = run(
        &["restore", "latest"],
        &["--into", &into, "--allow-superuser"],
    )
    .expect(0)
    .summary();
    assert_eq!(rows(&report, "auth.users"), 50);
}

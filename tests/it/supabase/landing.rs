//! What a project gets besides its rows: rights, event triggers, and what stands in for the platform's own.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::onto::socket_url;
use super::{Platform, Project, texts};
use crate::support::postgres::USER;
use crate::support::{Sandbox, Server};

/// The newest of the platform's dumps that came from a project in use.
const DUMP: &str = "supabase/supabase-initial-14.sql";

/// All rights on the project's own.
const RIGHTS: &str = "
SELECT c.oid::regclass::text, relacl::text FROM pg_class c
  WHERE relnamespace IN ('public'::regnamespace, 'billing'::regnamespace) AND relkind IN ('r', 'v', 'S', 'p')
UNION ALL SELECT p.oid::regprocedure::text, proacl::text FROM pg_proc p WHERE pronamespace = 'public'::regnamespace
ORDER BY 1";

/// Every project gives all that `postgres` makes in `public` to the interfaces' roles.
#[test]
fn what_was_shut_is_shut_in_another_project() {
    let (Some(platform), Some(other)) = (Platform::new(), Platform::new()) else {
        return;
    };
    let (database, target) = (platform.lived_in(DUMP), other.project(DUMP));
    let give = "SET ROLE postgres;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;";
    target.sql(give);
    database.sql(give);
    database.sql(
        "SET ROLE postgres; CREATE TABLE public.secrets (id serial);
         REVOKE ALL ON public.secrets, public.secrets_id_seq FROM anon, authenticated;
         CREATE FUNCTION public.shut() RETURNS int LANGUAGE sql AS 'SELECT 1';
         REVOKE ALL ON FUNCTION public.shut() FROM PUBLIC, anon, authenticated",
    );
    let defaults = "SELECT pg_get_userbyid(defaclrole), defaclnamespace::regnamespace, defaclobjtype,
         (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(defaclacl) a) FROM pg_default_acl ORDER BY 1, 2, 3";
    let before = target.sql(defaults);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let into = other.url(target.name());
    project
        .run(&["restore", "latest", "--into", &into])
        .expect(0);
    assert_eq!(target.sql(RIGHTS), database.sql(RIGHTS));
    assert_eq!(target.sql(defaults), before);
    for sql in ["SELECT * FROM public.secrets", "SELECT public.shut()"] {
        let sql = format!("SET ROLE anon; {sql}");
        let said = other.server.try_sql(target.name(), &sql);
        assert!(said.unwrap_err().contains("permission denied"), "{sql}");
    }
}

/// The platform gives rights by event triggers, and the interface for HTTP hears by one that there is something new.
#[test]
fn another_projects_event_triggers_fire() {
    let Some(platform) = Platform::new() else {
        return;
    };
    let (database, target) = (platform.lived_in(DUMP), platform.project(DUMP));
    target.sql(
        "DROP EVENT TRIGGER IF EXISTS pgrst_ddl_watch;
         CREATE TABLE extensions.seen (tag text, role text);
         CREATE FUNCTION extensions.see() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN INSERT INTO extensions.seen VALUES (tg_tag, current_setting('session_replication_role')); END $$;
         CREATE EVENT TRIGGER see ON ddl_command_end EXECUTE FUNCTION extensions.see();
         CREATE FUNCTION extensions.fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it fired'; END $$;
         CREATE TRIGGER fired AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION extensions.fired();",
    );
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let into = platform.url(target.name());
    // It hears what was told once its own statement ends, which is when the tables are there.
    let wait = "LISTEN pgrst; DO $$ BEGIN FOR i IN 1..3000 LOOP EXIT WHEN EXISTS (SELECT FROM pg_class WHERE relname = 'posts'); PERFORM pg_sleep(0.02); END LOOP; END $$";
    let listens = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'DO %pg_sleep%'",
        target.name()
    );
    thread::scope(|scope| {
        let heard = scope.spawn(|| target.sql(wait));
        while platform.server.sql("template1", &listens) == "0" {
            thread::sleep(Duration::from_millis(20));
        }
        project
            .run(&["restore", "latest", "--into", &into])
            .expect(0);
        let heard = heard.join().unwrap();
        assert!(heard.contains("\"reload schema\""), "{heard}");
    });
    let seen = |tag: &str| {
        let sql = format!(
            "SELECT string_agg(DISTINCT role, ' ') FROM extensions.seen WHERE tag = '{tag}'"
        );
        target.sql(&sql)
    };
    for tag in ["CREATE TABLE", "CREATE POLICY", "CREATE TRIGGER", "GRANT"] {
        assert_eq!(seen(tag), "origin", "{tag}");
    }
    assert_eq!(target.sql("SELECT count(*) FROM auth.users"), "50");
}

/// Somebody's own functions may bear the names of the platform's.
#[test]
fn what_a_database_has_of_its_own_is_not_replaced() {
    let (Some(platform), Some(plain)) = (Platform::new(), Server::private()) else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let chosen = json!({"schemas": ["public", "billing"]});
    let project = Project::new(&platform.url(database.name()), &chosen);
    project.backup();
    let own = plain.database();
    own.sql(
        "CREATE SCHEMA auth; CREATE SCHEMA extensions;
         CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT '00000000-0000-0000-0000-000000000007'::uuid $$",
    );
    let state = "SELECT pg_get_functiondef('auth.uid()'::regprocedure), string_agg(nspname || coalesce(nspacl::text, '-'), ' '
         ORDER BY nspname) FROM pg_namespace WHERE nspname IN ('auth', 'extensions')";
    let before = own.sql(state);
    let into = socket_url(&plain, own.name());
    let restore = ["restore", "latest", "--into", &into, "--allow-superuser"];
    let report = project.run(&restore).expect(0).summary();
    assert_eq!(own.sql(state), before);
    let told = texts(&report["stand_ins"]).join("\n");
    assert!(
        told.contains("the functions role(), email(), jwt();"),
        "{told}"
    );
    assert!(!told.contains("schema `extensions`"), "{told}");
}

/// What such a dump brings is known only when it was read, and a pipe can be read only once.
#[test]
fn a_project_comes_out_of_a_file_and_not_out_of_a_pipe() {
    let Some(plain) = Server::private() else {
        return;
    };
    let sandbox = Sandbox::new();
    let dump = "--\n-- PostgreSQL database dump\n--\n\nCREATE SCHEMA auth;\n\
        CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS $$ SELECT NULL::uuid $$;\n\
        CREATE TABLE public.t (id uuid DEFAULT auth.uid());\nCOPY public.t (id) FROM stdin;\n\\N\n\\.\n\n\
        --\n-- PostgreSQL database dump complete\n--\n";
    let file = sandbox.write("project.sql", dump).display().to_string();
    let into = socket_url(&plain, "copy");
    let run = |what: &str| {
        let command = ["--json", "restore", what, "--into", &into];
        let more = ["--preset", "supabase", "--allow-superuser"];
        sandbox.pgkeep(command.iter().chain(&more))
    };
    let refused = run("-").stdin(dump).run().expect(2);
    let error = refused.exit_error();
    assert_eq!(error["id"], "pipe_is_read_once", "{error}");
    assert!(
        error["hints"].to_string().contains("into a file"),
        "{error}"
    );
    // Its schema `auth` has no table, and is its own.
    let report = run(&file).run().expect(0).summary();
    assert!(
        !texts(&report["stand_ins"]).join(" ").contains("auth"),
        "{report}"
    );
    assert_eq!(plain.sql("copy", "SELECT count(*) FROM t"), "1");
}

/// The interfaces log in as one role and change to another, one of which stands above the policies.
#[test]
fn roles_are_made_as_the_platform_has_them() {
    let (Some(platform), Some(plain)) = (Platform::new(), Server::private()) else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let into = socket_url(&plain, "copy");
    let restore = ["restore", "latest", "--into", &into, "--allow-superuser"];
    let report = project.run(&restore).expect(0).summary();
    let told = texts(&report["stand_ins"]).join("\n");
    assert!(!told.contains("role"), "{told}");
    let change = "SET SESSION AUTHORIZATION authenticator; SET ROLE ";
    let see = |role: &str| {
        plain.sql(
            "copy",
            &format!("{change}{role}; SELECT count(*) FROM public.posts"),
        )
    };
    assert_eq!(
        (see("anon"), see("service_role")),
        ("0".to_owned(), "50".to_owned())
    );
    let itself = "SET SESSION AUTHORIZATION authenticator; SELECT count(*) FROM public.posts";
    let said = plain.try_sql("copy", itself);
    assert!(
        said.unwrap_err().contains("permission denied"),
        "it inherits nothing"
    );
    // Who may not give that says so.
    let Some(other) = Server::private() else {
        return;
    };
    other.sql(
        "template1",
        "CREATE ROLE restorer LOGIN CREATEDB CREATEROLE; GRANT postgres TO restorer",
    );
    let into = socket_url(&other, "copy").replace(USER, "restorer");
    let restore = [
        "restore",
        "latest",
        "--into",
        &into,
        "--allow-superuser",
        "--no-owner",
    ];
    let report = project.run(&restore).expect(0).summary();
    let told = texts(&report["stand_ins"]).join("\n");
    assert!(told.contains("`service_role` without BYPASSRLS"), "{told}");
    let member = "SELECT pg_has_role('authenticator', 'service_role', 'MEMBER'), rolbypassrls FROM pg_roles WHERE rolname = 'service_role'";
    assert_eq!(other.sql("copy", member), "t|f");
}

//! A schema is the platform's by its owner, not by its name.

use serde_json::json;

use super::onto::{DUMP, socket_url};
use super::{Platform, Project, rows, texts};
use crate::support::{Sandbox, Server};

/// Schemas called as some of the platform's, on a server with a login superuser called `supabase_admin`.
#[test]
fn a_database_with_rows_in_auth_is_no_empty_one() {
    let Some(server) = Server::private() else {
        return;
    };
    server.sql(
        "template1",
        "CREATE ROLE supabase_admin SUPERUSER LOGIN; CREATE DATABASE source; CREATE DATABASE live",
    );
    server.sql(
        "source",
        "CREATE TABLE public.goods AS SELECT generate_series(1, 9) AS id",
    );
    server.sql(
        "live",
        "CREATE SCHEMA auth; CREATE SCHEMA storage; CREATE TABLE auth.accounts AS SELECT generate_series(1, 500) AS id",
    );
    let mut sandbox = Sandbox::new();
    sandbox.set("DATABASE_URL", socket_url(&server, "source"));
    let run = |arguments: &[&str]| {
        let common = ["--json"].iter().chain(arguments);
        sandbox
            .pgkeep(common.chain(&["--storage", "backups"]))
            .run()
    };
    run(&["backup", "--name", "source"]).expect(0);
    let into = socket_url(&server, "live");
    let restore = ["restore", "latest", "--into", &into, "--allow-superuser"];
    for more in [&[][..], &["--preset", "supabase"]] {
        let failed = run(&[&restore[..], more].concat()).expect(25).exit_error();
        assert_eq!(failed["id"], "target_not_empty", "{failed}");
        assert_eq!(
            server.sql("live", "SELECT count(*) FROM auth.accounts"),
            "500"
        );
    }
    // It is nobody's platform, so it can be swapped.
    run(&[&restore[..], &["--replace"]].concat()).expect(0);
    assert_eq!(server.sql("live", "SELECT count(*) FROM public.goods"), "9");
}

/// What a project keeps beside, in schemas that share their names with the platform's or lie in them.
const LODGING: &str = "
CREATE SCHEMA etl AUTHORIZATION postgres;
CREATE SCHEMA supabase_migrations AUTHORIZATION postgres;
CREATE SCHEMA pgmq AUTHORIZATION supabase_admin;
GRANT USAGE, CREATE ON SCHEMA pgmq TO postgres;
CREATE TABLE realtime.messages (topic text);
ALTER TABLE realtime.messages OWNER TO supabase_admin;
CREATE POLICY \"own messages\" ON realtime.messages TO authenticated USING (true);
-- As pg_cron has it: an extension's table whose rows are the user's.
CREATE SCHEMA cron AUTHORIZATION supabase_admin;
CREATE TABLE cron.job AS SELECT 1 AS jobid;
ALTER EXTENSION \"uuid-ossp\" ADD TABLE cron.job;
UPDATE pg_extension SET extconfig = ARRAY['cron.job'::regclass::oid], extcondition = ARRAY['']
  WHERE extname = 'uuid-ossp';
SET ROLE postgres;
CREATE TABLE etl.state AS SELECT generate_series(1, 1000) AS id;
CREATE FUNCTION etl.step() RETURNS integer LANGUAGE sql AS 'SELECT 1';
GRANT USAGE ON SCHEMA etl TO anon;
CREATE TABLE supabase_migrations.schema_migrations AS SELECT '20260101000000' AS version;
CREATE TABLE pgmq.q_mail AS SELECT 1 AS msg_id;
CREATE TABLE pgmq.q_empty (msg_id bigint);
ANALYZE pgmq.q_mail;
";

#[test]
fn what_is_the_projects_own_is_kept_or_told() {
    let (Some(platform), Some(other), Some(plain)) =
        (Platform::new(), Platform::new(), Server::private())
    else {
        return;
    };
    let database = platform.lived_in(DUMP);
    database.sql(LODGING);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    let summary = project.run(&["backup"]).summary();
    let warnings = summary["backups"][0]["warnings"].to_string();
    for part in [
        "`pgmq.q_mail`: about 1 row",
        "`cron.job`: its rows",
        "`realtime.messages`: policy `own messages`",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    for part in ["q_empty", "etl", "_realtime"] {
        assert!(!warnings.contains(part), "{part}: {warnings}");
    }
    // Who deploys has to know it, too.
    for more in [&[][..], &["--max-age", "1h"]] {
        let guard = [&["guard"][..], more, &["--", "true"]].concat();
        let guarded = project.run(&guard).expect(0);
        let out = format!("{}{}", guarded.stdout(), guarded.stderr());
        assert!(out.contains("pgmq.q_mail"), "{out}");
    }
    let onto_plain = socket_url(&plain, "copy");
    let target = other.project(DUMP);
    for (into, more) in [
        (onto_plain, &["--allow-superuser"][..]),
        (other.url(target.name()), &[]),
    ] {
        let restore = ["restore", "latest", "--into", &into];
        let report = project
            .run(&[&restore[..], more].concat())
            .expect(0)
            .summary();
        assert_eq!(rows(&report, "etl.state"), 1000);
        assert_eq!(rows(&report, "supabase_migrations.schema_migrations"), 1);
        assert!(
            !texts(&report["stand_ins"]).join("\n").contains("etl"),
            "{report}"
        );
    }
    let right = "SELECT has_schema_privilege('anon', 'etl', 'USAGE'), etl.step()";
    assert_eq!(target.sql(right), "t|1");
    assert_eq!(plain.sql("copy", right), "t|1");
}

/// What a project adds to the platform's own tables and schemas.
const ADDED: &str = "
CREATE ROLE reporting;
GRANT SELECT ON auth.users TO reporting;
CREATE FUNCTION auth.is_admin() RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE INDEX own_idx ON storage.objects (created_at);
ALTER TABLE auth.users ADD CONSTRAINT own_key UNIQUE (id, created_at);
CREATE TRIGGER webhook AFTER INSERT ON storage.objects FOR EACH ROW
  EXECUTE FUNCTION supabase_functions.http_request('http://localhost', 'POST', '{}', '{}', '1000');
CREATE FUNCTION extensions.moddatetime() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON auth.users FOR EACH ROW EXECUTE FUNCTION extensions.moddatetime('updated_at');
";

#[test]
fn what_was_added_to_the_platforms_own_comes_or_is_told() {
    let (Some(platform), Some(other)) = (Platform::new(), Platform::new()) else {
        return;
    };
    let database = platform.lived_in(DUMP);
    database.sql(ADDED);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let target = other.project(DUMP);
    let into = other.url(target.name());
    let restored = project.run(&["restore", "latest", "--into", &into]);
    let report = restored.expect(0).summary();
    let mut told = texts(&report["left_out"]);
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "constraint own_key on auth.users",
            "function auth.is_admin",
            "index own_idx on storage.objects",
            "right of reporting on auth.users",
            "trigger touched on auth.users",
        ]
    );
    let webhook = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'webhook'";
    assert_eq!(target.sql(webhook), "O");
}

/// Only who may speak for a role sets what others get of what it makes.
#[test]
fn default_privileges_are_kept_or_told() {
    let (Some(platform), Some(plain)) = (Platform::new(), Server::private()) else {
        return;
    };
    let database = platform.lived_in(DUMP);
    let project = Project::new(&platform.url(database.name()), &json!({}));
    project.backup();
    let of_postgres = "SELECT count(*) > 0 FROM pg_default_acl \
                       WHERE pg_get_userbyid(defaclrole) = 'postgres' AND defaclnamespace = 'public'::regnamespace";
    let into = socket_url(&plain, "kept");
    let common = ["--no-owner", "--allow-superuser"];
    let restore = ["restore", "latest", "--into", &into];
    let report = project
        .run(&[&restore[..], &common].concat())
        .expect(0)
        .summary();
    assert_eq!(texts(&report["left_out"]), [""; 0]);
    assert_eq!(plain.sql("kept", of_postgres), "t");
    plain.sql(
        "template1",
        "CREATE ROLE restorer LOGIN CREATEDB CREATEROLE",
    );
    for jobs in ["1", "3"] {
        let name = format!("told{jobs}");
        let into = socket_url(&plain, &name).replace(crate::support::postgres::USER, "restorer");
        let restore = ["restore", "latest", "--into", &into, "--jobs", jobs];
        let report = project
            .run(&[&restore[..], &common].concat())
            .expect(0)
            .summary();
        let told = texts(&report["left_out"]);
        let expected = "default privileges of role `postgres` in schema `public`";
        assert!(told.contains(&expected), "{told:?}");
        assert_eq!(plain.sql(&name, of_postgres), "f");
    }
}

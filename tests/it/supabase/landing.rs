//! What a project gets besides its rows: rights, event triggers, and what stands in for the platform's own.

use serde_json::json;

use super::{Platform, Project};

/// The newest of the platform's dumps that came from a project in use.
const DUMP: &str = "supabase-initial-14.sql";

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

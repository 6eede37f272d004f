//! `preset: supabase` against real servers: projects made of the platform's own dumps come back row for row, on a plain
//! server and on another project.

mod landing;
mod onto;
mod whose;

use serde_json::{Value, json};

use crate::support::postgres::TestDatabase;
use crate::support::sandbox::Outcome;
use crate::support::secret::percent_encoded;
use crate::support::{Sandbox, Server, data};

/// Dumps of the platform's own schemas, as old and newer projects have them.
const PLATFORMS: [&str; 4] = [
    "supabase/supabase-initial-13.sql",
    "supabase/supabase-initial-14.sql",
    "supabase/supabase-pg-schema-15.sql",
    "supabase/supabase-pg-schema-16.sql",
];

/// What a hosted project's role may do, and what the dumps of some versions lack because an extension makes it.
const RIGHTS: &str = "
ALTER ROLE postgres LOGIN CREATEROLE CREATEDB BYPASSRLS;
GRANT anon, authenticated, service_role, supabase_storage_admin TO postgres;
REVOKE supabase_auth_admin, supabase_functions_admin FROM postgres;
GRANT SET ON PARAMETER session_replication_role TO postgres;
-- What the platform's supautils forbids whoever has CREATEROLE: https://github.com/supabase/supautils
ALTER ROLE postgres SET supautils.reserved_memberships = 'pg_read_server_files, pg_write_server_files, pg_execute_server_program';
";
const PLATFORM_RIGHTS: &str = "
CREATE SCHEMA IF NOT EXISTS supabase_functions;
CREATE OR REPLACE FUNCTION supabase_functions.http_request() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RETURN NEW; END $$;
CREATE OR REPLACE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT '{}'::jsonb $$;
GRANT USAGE ON SCHEMA auth, storage, extensions, supabase_functions TO postgres, anon, authenticated, service_role;
GRANT ALL ON ALL TABLES IN SCHEMA auth, storage TO postgres;
GRANT ALL ON ALL SEQUENCES IN SCHEMA auth, storage TO postgres;
GRANT ALL ON SCHEMA public TO postgres;
GRANT EXECUTE ON FUNCTION supabase_functions.http_request() TO postgres;
ALTER TABLE IF EXISTS public.schema_migrations OWNER TO postgres;
ALTER TABLE storage.objects OWNER TO supabase_storage_admin;
ALTER PUBLICATION supabase_realtime OWNER TO postgres;
-- Some of the dumps were made without owners.
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT nspname FROM pg_namespace WHERE nspowner = current_user::regrole
    AND nspname IN ('auth', 'extensions', 'graphql', 'graphql_public', 'pgbouncer', 'pgsodium', 'realtime', 'storage',
      'supabase_functions', 'vault') LOOP
    EXECUTE format('ALTER SCHEMA %I OWNER TO %I', name,
      CASE name WHEN 'extensions' THEN 'postgres' WHEN 'pgbouncer' THEN 'pgbouncer' ELSE 'supabase_admin' END);
  END LOOP;
END $$;
";

/// A server as the platform runs it.
struct Platform {
    server: Server,
}

impl Platform {
    fn new() -> Option<Self> {
        let server = Server::private()?;
        let globals = data::dump("supabase/supabase-globals.sql");
        // Some of its roles and parameters are made by extensions.
        server.load_what_loads("template1", &globals);
        server.sql("template1", RIGHTS);
        Some(Self { server })
    }

    /// A project without anything of its own. Of the platform's dump as much is loaded as a server without the
    /// platform's extensions takes.
    fn project(&self, dump: &str) -> TestDatabase<'_> {
        let database = self.server.database();
        // The dumps come from clusters whose database this is.
        database.sql(&format!(
            "ALTER DATABASE {} OWNER TO postgres",
            database.name()
        ));
        self.server
            .load_what_loads(database.name(), &data::dump(dump));
        database.sql(PLATFORM_RIGHTS);
        database
    }

    /// One that somebody has built something on.
    fn lived_in(&self, dump: &str) -> TestDatabase<'_> {
        let database = self.project(dump);
        let project = format!("SET ROLE postgres;\n{}", include_str!("project.sql"));
        database.sql(&project);
        database
    }

    /// How the project's own role reaches a database.
    fn url(&self, database: &str) -> String {
        let folder = self.server.socket_dir().display().to_string();
        format!(
            "postgresql://postgres@/{database}?host={}&port={}",
            percent_encoded(&folder),
            self.server.port()
        )
    }
}

/// A configuration with the preset, and a folder of backups.
struct Project {
    sandbox: Sandbox,
}

impl Project {
    fn new(url: &str, more: &Value) -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.set("SUPABASE_URL", url);
        let mut database = json!({"url": "${SUPABASE_URL}", "preset": "supabase"});
        let keys = database.as_object_mut().unwrap();
        keys.extend(more.as_object().unwrap().clone());
        let config = json!({
            "databases": {"app": database},
            "storages": {"local": {"url": "backups"}},
        });
        sandbox.write("pgkeep.yaml", config.to_string());
        Self { sandbox }
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Outcome {
        let arguments = ["--json"].iter().chain(arguments);
        self.sandbox.pgkeep(arguments).run()
    }

    #[track_caller]
    fn backup(&self) -> Value {
        self.run(&["backup"]).expect(0);
        let show = self.run(&["show", "latest"]).expect(0);
        show.json()
    }
}

/// Says how many rows of a table were compared, all of them equal.
#[track_caller]
fn rows(report: &Value, table: &str) -> u64 {
    let tables = report["tables"].as_array().unwrap();
    for outcome in tables {
        assert!(outcome["problem"].is_null(), "{outcome}");
        assert_eq!(outcome["digest"], outcome["found_digest"], "{outcome}");
    }
    let it = tables
        .iter()
        .find(|outcome| outcome["table"] == table)
        .unwrap_or_else(|| panic!("{table} was not compared: {report}"));
    it["found_rows"].as_u64().unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    let values = value.as_array().unwrap();
    values.iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn projects_of_every_version_pass_a_drill() {
    let Some(platform) = Platform::new() else {
        return;
    };
    for dump in PLATFORMS {
        let database = platform.lived_in(dump);
        let url = platform.url(database.name());
        let project = Project::new(
            &url,
            &json!({"required_tables": ["public.posts", "auth.users"]}),
        );
        let manifest = project.backup();
        assert_eq!(manifest["preset"], "supabase", "{manifest}");
        let drill = project.run(&["drill"]).summary();
        assert_eq!(drill["passed"], true, "{dump}: {drill}");
        let restore = &drill["restore"];
        for (table, expected) in [
            ("auth.users", 50),
            ("public.profiles", 50),
            ("public.posts", 50),
            ("public.visits_2026", 50),
            ("billing.invoices", 7),
            ("storage.buckets", 1),
            ("storage.objects", 9),
        ] {
            assert_eq!(rows(restore, table), expected, "{dump}: {table}");
        }
        let compared = restore["tables"].as_array().unwrap();
        for outcome in compared {
            let name = outcome["table"].as_str().unwrap();
            assert!(!name.ends_with("auth.schema_migrations"), "{name}");
            assert!(!name.starts_with("_realtime."), "{name}");
        }
        let roles = texts(&restore["created_roles"]);
        for role in ["anon", "authenticated", "service_role", "authenticator"] {
            assert!(roles.contains(&role), "{dump}: {roles:?}");
        }
        let told = texts(&restore["stand_ins"]).join("\n");
        assert!(told.contains("schema `extensions`"), "{dump}: {told}");
        assert!(told.contains("http_request()"), "{dump}: {told}");
        assert!(!told.contains("`auth`"), "{dump}: {told}");
    }
}

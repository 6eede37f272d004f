//! How the dump of a Supabase project goes onto a server: what of it is left out, and what has to stand there before.
//!
//! Onto a plain server come stand-ins for what the platform brings and the dump does not. Onto another project comes
//! what is the project's own: the platform's tables are there already and only take rows.

use super::{API_ROLES, EVENT_TRIGGERS, is_left_out, is_managed, is_platform_role};
use crate::name::quote;
use crate::scan::{About, What};

/// The project adds its tables to the platform's publication. Names of others of the platform begin so, too.
const PUBLICATION: &str = "supabase_realtime";

/// Roles of every project whose rights on the platform's own are the platform's matter.
const USUAL_ROLES: &[&str] = &["dashboard_user", "postgres", "public"];

/// What kind of server the dump goes onto.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Onto {
    /// One that has nothing of the platform.
    #[default]
    Plain,
    /// A project's own database.
    Project,
}

/// What happens to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is carried out.
    Kept,
    /// It is left out.
    LeftOut,
    /// The foreign key is made without looking at the rows that are there.
    NotValid,
}

/// The rules by which a dump of a project is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Where to.
    pub onto: Onto,
    /// Schemas that are called as some of the platform's and are the project's own.
    pub own_schemas: Vec<String>,
    /// Schemas that were made beforehand.
    pub made_schemas: Vec<String>,
    /// Whether `auth.users` is a stand-in without rows.
    pub has_no_users: bool,
    /// Whether the platform's publication was made beforehand.
    pub has_publication: bool,
    /// Roles for which the restoring one may set default privileges; `None` for all.
    pub speaks_for: Option<Vec<String>>,
    /// What the platform's schemas of the target hold, and what triggers may be made of it.
    pub there: Vec<String>,
}

impl Platform {
    /// Decides about one statement.
    pub fn place(&self, about: &About) -> Place {
        if is_event_trigger(&about.what) {
            return Place::LeftOut;
        }
        match self.onto {
            Onto::Plain => self.on_plain_server(about),
            Onto::Project if self.is_of_platform(about) => Place::LeftOut,
            Onto::Project => Place::Kept,
        }
    }

    /// Says what is lost where a statement is left out; `None` where it is the platform's own or there.
    pub fn lost_with(&self, about: &About) -> Option<String> {
        match (&about.what, self.onto) {
            (What::DefaultPrivileges { role, schema }, Onto::Plain) => {
                Some(match schema.as_str() {
                    "" => format!("default privileges of role `{role}`"),
                    schema => format!("default privileges of role `{role}` in schema `{schema}`"),
                })
            }
            (_, Onto::Plain) | (What::EventTrigger { .. }, _) => None,
            (_, Onto::Project) => {
                let object = about.object.as_ref()?;
                let role = object
                    .strip_prefix("right of ")
                    .and_then(|rest| rest.split(" on ").next());
                let is_known = role.is_some_and(|role| {
                    is_platform_role(role)
                        || API_ROLES.contains(&role)
                        || USUAL_ROLES.contains(&role)
                });
                let is_told = !is_known && !self.there.contains(object);
                is_told.then(|| object.clone())
            }
        }
    }

    /// A trigger that calls what its table's schema does not hold is the project's: a webhook, an extension's function.
    fn makes_trigger(&self, about: &About, on: &str, calls: &str) -> bool {
        let is_there = |object: String| self.there.contains(&object);
        !about.object.clone().is_some_and(is_there)
            && is_there(format!("may call {calls}"))
            && is_there(format!("may trigger {on}"))
    }

    fn on_plain_server(&self, about: &About) -> Place {
        match &about.what {
            What::Schema { name, is_made } if *is_made && self.made_schemas.contains(name) => {
                Place::LeftOut
            }
            What::Publication {
                name,
                is_about_tables: false,
            } if self.has_publication && is_platform_publication(name) => Place::LeftOut,
            // A dump tells the rights on what an extension made, wherever that lies, and the extension may be left out.
            What::Right { schema } if is_left_out(schema) && self.is_managed(schema) => {
                Place::LeftOut
            }
            What::DefaultPrivileges { role, .. } if !self.may_speak_for(role) => Place::LeftOut,
            What::ForeignKey { to, is_only, .. } if self.has_no_users && to == "auth" => {
                // That of a partitioned table cannot be made without a look at the rows.
                if *is_only {
                    Place::NotValid
                } else {
                    Place::LeftOut
                }
            }
            _ => Place::Kept,
        }
    }

    /// Who is no member of a role may not speak for it; without a role a statement speaks for who carries it out.
    fn may_speak_for(&self, role: &str) -> bool {
        let roles = self.speaks_for.as_ref();
        roles.is_none_or(|roles| role.is_empty() || roles.iter().any(|one| one == role))
    }

    /// Tells whether a project has it already, or its role may not do it.
    ///
    /// Policies and the project's own triggers on the platform's tables are the project's.
    fn is_of_platform(&self, about: &About) -> bool {
        if about.owner.as_deref().is_some_and(is_platform_role) {
            return true;
        }
        match &about.what {
            What::Schema { name, .. } => self.is_managed(name),
            What::Object { schema } | What::Right { schema } | What::ForeignKey { schema, .. } => {
                self.is_managed(schema)
            }
            What::Trigger {
                schema,
                routine,
                on,
                calls,
            } => {
                let is_of_table = schema == routine || !self.makes_trigger(about, on, calls);
                self.is_managed(schema) && self.is_managed(routine) && is_of_table
            }

            What::Publication {
                name,
                is_about_tables,
            } => is_platform_publication(name) && !is_about_tables,
            What::DefaultPrivileges { role, schema } => {
                is_platform_role(role) || self.is_managed(schema)
            }
            // Only a superuser becomes another role so; what was granted by another is granted by the owner then.
            What::Extension | What::Authorization => true,
            What::EventTrigger { .. } | What::Policy | What::SequenceValue { .. } => false,
        }
    }

    /// Tells whether a schema is called as one of the platform's and is not the project's own.
    fn is_managed(&self, schema: &str) -> bool {
        is_managed(schema) && !self.own_schemas.iter().any(|own| own == schema)
    }
}

/// The platform's event triggers belong to its own superuser and call functions that no backup holds.
fn is_event_trigger(what: &What) -> bool {
    match what {
        What::EventTrigger { name, routine } => {
            EVENT_TRIGGERS.contains(&name.as_str()) || routine.as_deref().is_some_and(is_managed)
        }
        _ => false,
    }
}

fn is_platform_publication(name: &str) -> bool {
    name.starts_with(PUBLICATION)
}

/// What a dump holds, as far as stand-ins are about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Schemas of its tables.
    pub schemas: Vec<String>,
    /// Schemas that it is known to make, whatever lies in them.
    pub made: Vec<String>,
    /// Managed schemas that were left out of it; none where nobody wrote that down.
    pub left_out: Option<Vec<String>>,
    /// The project's extensions and their schemas, where they will be or can be made on the server.
    pub extensions: Vec<(String, String)>,
    /// Whether the dump makes them.
    pub makes_extensions: bool,
    /// Whether it may add tables to the platform's publication without making it, as `supabase db dump` does.
    pub lacks_publication: bool,
}

/// What a database has of its own that something could stand in for. It stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct There {
    /// Schemas.
    pub schemas: Vec<String>,
    /// Routines without parameters, as `auth.uid`.
    pub routines: Vec<String>,
}

/// What is made before the dump comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stubs {
    /// SQL that makes it.
    pub sql: String,
    /// What it is, in words.
    pub told: Vec<String>,
    /// Schemas that it makes.
    pub schemas: Vec<String>,
    /// Whether `auth.users` is among it.
    pub has_users: bool,
    /// Whether the platform's publication is among it.
    pub has_publication: bool,
}

impl Stubs {
    /// Returns what a plain server lacks.
    pub fn new(brought: &Brought, there: &There) -> Self {
        let mut stubs = Self::default();
        stubs.add_extensions(brought, there);
        let lies_in = |schema: &str| brought.schemas.iter().any(|name| name == schema);
        let is_brought = |schema: &str| match &brought.left_out {
            Some(left_out) => !left_out.iter().any(|name| name == schema),
            None => lies_in(schema) || brought.made.iter().any(|name| name == schema),
        };
        if !is_brought("auth") {
            stubs.add_auth(there);
        }
        if !is_brought("supabase_functions") {
            stubs.add_schema("supabase_functions", there);
            if stubs.add_routine("supabase_functions.http_request", WEBHOOK, there) {
                stubs.told.push(
                    "function `supabase_functions.http_request()` for triggers, which sends nothing"
                        .to_owned(),
                );
            }
        }
        if brought.lacks_publication {
            stubs.sql += &publication();
            stubs.has_publication = true;
            stubs.told.push(format!("publication `{PUBLICATION}`"));
        }
        stubs
    }

    fn add_auth(&mut self, there: &There) {
        let place = if self.add_schema("auth", there) {
            "schema `auth` with"
        } else {
            "in your schema `auth`"
        };
        self.sql += USERS;
        self.has_users = true;
        let mut made = Vec::new();
        for (name, sql) in AUTH {
            if self.add_routine(&format!("auth.{name}"), sql, there) {
                made.push(format!("{name}()"));
            }
        }
        let functions = if made.is_empty() {
            String::new()
        } else {
            format!(" and the functions {}", made.join(", "))
        };
        self.told.push(format!(
            "{place} an empty table `users`{functions}; foreign keys to it do not check the rows that \
             exist (NOT VALID), and those of partitioned tables are left out"
        ));
    }

    /// A dump that leaves a schema out still says that an extension lies in it.
    fn add_extensions(&mut self, brought: &Brought, there: &There) {
        let of_platform: Vec<_> = brought
            .extensions
            .iter()
            .filter(|(_, schema)| is_managed(schema) && !brought.schemas.contains(schema))
            .collect();
        for (_, schema) in &of_platform {
            if !self.schemas.contains(schema) && self.add_schema(schema, there) {
                self.told.push(format!("schema `{schema}` for extensions"));
            }
        }
        if brought.makes_extensions {
            return;
        }
        for (name, schema) in of_platform {
            self.sql += &format!(
                "CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA {};\n",
                quote(name),
                quote(schema)
            );
            self.told.push(format!("extension `{name}`"));
        }
    }

    /// Makes a schema for everybody, and tells whether it had to; who may use one that is there is not for us to say.
    fn add_schema(&mut self, schema: &str, there: &There) -> bool {
        let is_made = !there.schemas.iter().any(|name| name == schema);
        if is_made {
            let name = quote(schema);
            self.sql +=
                &format!("CREATE SCHEMA {name};\nGRANT USAGE ON SCHEMA {name} TO PUBLIC;\n");
        }
        self.schemas.push(schema.to_owned());
        is_made
    }

    /// Makes a routine, and tells whether it had to.
    fn add_routine(&mut self, name: &str, sql: &str, there: &There) -> bool {
        let is_made = !there.routines.iter().any(|routine| routine == name);
        if is_made {
            self.sql += &format!("CREATE FUNCTION {name}() RETURNS {sql};\n");
        }
        is_made
    }
}

/// Returns SQL that makes the platform's publication where there is none.
fn publication() -> String {
    format!(
        "DO $pgkeep$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = '{PUBLICATION}') THEN\n\
         CREATE PUBLICATION {PUBLICATION}; END IF; END $pgkeep$;\n"
    )
}

/// Of the users only what others commonly refer to is there.
const USERS: &str = "CREATE TABLE IF NOT EXISTS auth.users (id uuid PRIMARY KEY, aud varchar(255), role varchar(255),
  email varchar(255), phone text, raw_app_meta_data jsonb, raw_user_meta_data jsonb, created_at timestamptz,
  updated_at timestamptz, last_sign_in_at timestamptz, email_confirmed_at timestamptz, deleted_at timestamptz);
";

/// The functions answer as the platform's do (supabase/cli, `initial_schemas/14.sql`).
const AUTH: &[(&str, &str)] = &[
    (
        "uid",
        r"uuid LANGUAGE sql STABLE AS $pgkeep$
  SELECT coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $pgkeep$",
    ),
    (
        "role",
        r"text LANGUAGE sql STABLE AS $pgkeep$
  SELECT coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role') $pgkeep$",
    ),
    (
        "email",
        r"text LANGUAGE sql STABLE AS $pgkeep$
  SELECT coalesce(nullif(current_setting('request.jwt.claim.email', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email') $pgkeep$",
    ),
    (
        "jwt",
        r"jsonb LANGUAGE sql STABLE AS $pgkeep$
  SELECT coalesce(nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), ''))::jsonb $pgkeep$",
    ),
];

/// Database webhooks are triggers that call it.
const WEBHOOK: &str = "trigger LANGUAGE plpgsql AS $pgkeep$\n\
    BEGIN RETURN coalesce(NEW, OLD); END $pgkeep$";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Notes, Scanner};

    fn about(sql: &str) -> Option<About> {
        let mut scanner = Scanner::noting(Notes::Judged { with_about: true });
        scanner.push(sql.as_bytes());
        let mut judged = scanner.take_found().judged.into_iter();
        judged.find_map(|judged| judged.about)
    }

    fn place(sql: &str, platform: &Platform) -> Place {
        about(sql).map_or(Place::Kept, |about| platform.place(&about))
    }

    #[test]
    fn a_project_takes_what_is_the_projects_own() {
        let project = Platform {
            onto: Onto::Project,
            ..Platform::default()
        };
        for sql in [
            "CREATE SCHEMA auth;",
            "ALTER SCHEMA storage OWNER TO supabase_admin;",
            "CREATE TABLE auth.users (id uuid);",
            "CREATE UNIQUE INDEX i ON auth.users USING btree (id);",
            "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS $$ SELECT 1; $$;",
            "CREATE TYPE auth.aal_level AS ENUM ('a');",
            "CREATE TRIGGER t BEFORE UPDATE ON storage.objects FOR EACH ROW EXECUTE FUNCTION storage.touch();",
            "ALTER TABLE ONLY auth.users ADD CONSTRAINT p PRIMARY KEY (id);",
            "ALTER TABLE ONLY auth.identities ADD CONSTRAINT f FOREIGN KEY (u) REFERENCES auth.users(id);",
            "ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;",
            "ALTER TABLE public.x OWNER TO supabase_admin;",
            "COMMENT ON COLUMN auth.users.is_sso_user IS 'x';",
            "COMMENT ON EXTENSION pgcrypto IS 'x';",
            "GRANT ALL ON TABLE auth.users TO postgres;",
            "REVOKE ALL ON FUNCTION auth.uid() FROM postgres;",
            "GRANT USAGE ON SCHEMA storage TO anon;",
            "ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON TABLES TO anon;",
            "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA storage GRANT ALL ON TABLES TO anon;",
            "CREATE PUBLICATION supabase_realtime WITH (publish = 'insert');",
            "ALTER PUBLICATION supabase_realtime OWNER TO postgres;",
            "CREATE EVENT TRIGGER x ON sql_drop EXECUTE FUNCTION extensions.set_graphql_placeholder();",
            "ALTER EVENT TRIGGER pgrst_ddl_watch OWNER TO supabase_admin;",
            "SET SESSION AUTHORIZATION supabase_admin;",
            "RESET SESSION AUTHORIZATION;",
        ] {
            assert_eq!(place(sql, &project), Place::LeftOut, "{sql}");
        }
        for sql in [
            "CREATE SCHEMA billing;",
            "CREATE TABLE public.auth (users text);",
            "CREATE TRIGGER t AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.new_user();",
            "CREATE TRIGGER t AFTER INSERT ON public.x FOR EACH ROW EXECUTE FUNCTION supabase_functions.http_request('a');",
            "CREATE POLICY p ON storage.objects FOR SELECT TO authenticated USING ((auth.uid() = owner));",
            "ALTER TABLE ONLY public.x ADD CONSTRAINT f FOREIGN KEY (u) REFERENCES auth.users(id);",
            "ALTER PUBLICATION supabase_realtime ADD TABLE ONLY public.x;",
            "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES TO anon;",
            "CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA extensions;",
            "GRANT ALL ON TABLE public.x TO anon;",
            "ALTER TABLE public.x OWNER TO postgres;",
            "CREATE EVENT TRIGGER mine ON sql_drop EXECUTE FUNCTION public.f();",
            "SELECT pg_catalog.setval('auth.refresh_tokens_id_seq', 1, true);",
            "COPY auth.users (id) FROM stdin;\n\\.\n",
        ] {
            assert_eq!(place(sql, &project), Place::Kept, "{sql}");
        }
    }

    #[test]
    fn a_plain_server_takes_all_but_what_cannot_work() {
        let plain = Platform {
            made_schemas: vec!["extensions".into()],
            has_no_users: true,
            has_publication: true,
            ..Platform::default()
        };
        for (sql, expected) in [
            (
                "CREATE EVENT TRIGGER x ON sql_drop EXECUTE FUNCTION extensions.f();",
                Place::LeftOut,
            ),
            (
                "COMMENT ON EVENT TRIGGER pgrst_drop_watch IS 'x';",
                Place::LeftOut,
            ),
            ("CREATE SCHEMA extensions;", Place::LeftOut),
            (
                "CREATE PUBLICATION supabase_realtime_messages_publication;",
                Place::LeftOut,
            ),
            (
                "ALTER PUBLICATION supabase_realtime ADD TABLE ONLY public.x;",
                Place::Kept,
            ),
            ("CREATE PUBLICATION mine FOR ALL TABLES;", Place::Kept),
            ("ALTER SCHEMA extensions OWNER TO postgres;", Place::Kept),
            ("CREATE SCHEMA auth;", Place::Kept),
            (
                "GRANT ALL ON FUNCTION extensions.pg_stat_statements(showtext boolean) TO x;",
                Place::LeftOut,
            ),
            ("GRANT USAGE ON SCHEMA net TO postgres;", Place::LeftOut),
            ("GRANT ALL ON TABLE auth.users TO postgres;", Place::Kept),
            (
                "REVOKE ALL ON FUNCTION public.net() FROM PUBLIC;",
                Place::Kept,
            ),
            ("GRANT USAGE ON SCHEMA public TO anon;", Place::Kept),
            (
                "ALTER TABLE ONLY public.x ADD CONSTRAINT f FOREIGN KEY (u) REFERENCES auth.users(id) ON DELETE CASCADE;",
                Place::NotValid,
            ),
            (
                "ALTER TABLE public.x ADD CONSTRAINT f FOREIGN KEY (u) REFERENCES auth.users(id);",
                Place::LeftOut,
            ),
            (
                "ALTER TABLE ONLY public.x ADD CONSTRAINT f FOREIGN KEY (u) REFERENCES public.users(id);",
                Place::Kept,
            ),
            ("ALTER TABLE public.x OWNER TO supabase_admin;", Place::Kept),
            ("SET SESSION AUTHORIZATION supabase_admin;", Place::Kept),
        ] {
            assert_eq!(place(sql, &plain), expected, "{sql}");
        }
        let defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES TO anon;";
        assert_eq!(place(defaults, &plain), Place::Kept);
        let owned = Platform {
            speaks_for: Some(vec!["me".to_owned()]),
            ..plain
        };
        assert_eq!(place(defaults, &owned), Place::LeftOut);
    }

    #[test]
    fn what_a_project_lacks_is_made_or_told() {
        let project = Platform {
            onto: Onto::Project,
            there: [
                "function auth.uid",
                "table auth.users",
                "may call supabase_functions.http_request",
                "may trigger storage.objects",
            ]
            .map(str::to_owned)
            .to_vec(),
            own_schemas: vec!["etl".into()],
            ..Platform::default()
        };
        for (sql, expected, told) in [
            (
                "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS $$ SELECT 1 $$;",
                Place::LeftOut,
                None,
            ),
            ("CREATE TABLE auth.users (id uuid);", Place::LeftOut, None),
            (
                "CREATE FUNCTION auth.\"Is admin\"() RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;",
                Place::LeftOut,
                Some("function auth.Is admin"),
            ),
            (
                "CREATE UNIQUE INDEX i ON storage.objects USING btree (id);",
                Place::LeftOut,
                Some("index i on storage.objects"),
            ),
            (
                "ALTER TABLE ONLY auth.users ADD CONSTRAINT k UNIQUE (id);",
                Place::LeftOut,
                Some("constraint k on auth.users"),
            ),
            (
                "GRANT SELECT ON TABLE auth.users TO r;",
                Place::LeftOut,
                Some("right of r on auth.users"),
            ),
            (
                "GRANT SELECT ON TABLE auth.users TO anon;",
                Place::LeftOut,
                None,
            ),
            (
                "CREATE TRIGGER w AFTER INSERT ON storage.objects FOR EACH ROW EXECUTE FUNCTION \
                 supabase_functions.http_request('x');",
                Place::Kept,
                None,
            ),
            (
                "CREATE TRIGGER w AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION \
                 supabase_functions.http_request('x');",
                Place::LeftOut,
                Some("trigger w on auth.users"),
            ),
            ("CREATE SCHEMA etl;", Place::Kept, None),
            ("CREATE TABLE etl.state (id integer);", Place::Kept, None),
            ("GRANT USAGE ON SCHEMA etl TO anon;", Place::Kept, None),
        ] {
            let about = about(sql).unwrap();
            assert_eq!(project.place(&about), expected, "{sql}");
            if expected == Place::LeftOut {
                assert_eq!(project.lost_with(&about).as_deref(), told, "{sql}");
            }
        }
    }

    #[test]
    fn stand_ins_are_made_for_what_the_dump_lacks_only() {
        let whole = Brought {
            schemas: vec!["public".into(), "auth".into(), "storage".into()],
            made: Vec::new(),
            left_out: Some(vec!["extensions".into(), "realtime".into()]),
            extensions: vec![
                ("pgcrypto".into(), "extensions".into()),
                ("citext".into(), "public".into()),
            ],
            makes_extensions: true,
            lacks_publication: false,
        };
        let stubs = Stubs::new(&whole, &There::default());
        assert!(!stubs.sql.contains("PUBLICATION"));
        assert_eq!(stubs.schemas, ["extensions"]);
        assert!(
            !stubs.has_users && !stubs.sql.contains("EXTENSION"),
            "{}",
            stubs.sql
        );
        let chosen = Brought {
            schemas: vec!["public".into()],
            left_out: None,
            makes_extensions: false,
            ..whole
        };
        let stubs = Stubs::new(&chosen, &There::default());
        assert_eq!(stubs.schemas, ["extensions", "auth", "supabase_functions"]);
        assert!(stubs.has_users);
        assert!(
            stubs
                .sql
                .contains("CREATE EXTENSION IF NOT EXISTS \"pgcrypto\" WITH SCHEMA \"extensions\"")
        );
        assert!(!stubs.sql.contains("citext"));
    }

    #[test]
    fn what_a_database_has_of_its_own_stays() {
        let there = There {
            schemas: vec!["auth".into(), "public".into()],
            routines: vec!["auth.uid".into(), "auth.jwt".into()],
        };
        let stubs = Stubs::new(&Brought::default(), &there);
        assert!(!stubs.sql.contains("auth.uid") && !stubs.sql.contains("auth.jwt"));
        assert!(!stubs.sql.contains("SCHEMA \"auth\""), "{}", stubs.sql);
        assert!(stubs.sql.contains("CREATE FUNCTION auth.role()"));
        let told = stubs.told.join("\n");
        assert!(told.contains("the functions role(), email();"), "{told}");
        assert!(
            stubs.schemas.contains(&"auth".to_owned()),
            "the dump's own is left out"
        );
        assert!(!stubs.sql.contains("OR REPLACE"));
    }

    #[test]
    fn a_schema_without_tables_is_brought_too() {
        let brought = Brought {
            schemas: vec!["public".into()],
            made: vec!["auth".into(), "supabase_functions".into()],
            ..Brought::default()
        };
        assert_eq!(Stubs::new(&brought, &There::default()), Stubs::default());
        let whole = Brought {
            schemas: vec!["public".into()],
            left_out: Some(vec!["supabase_functions".into()]),
            ..Brought::default()
        };
        let stubs = Stubs::new(&whole, &There::default());
        assert_eq!(stubs.schemas, ["supabase_functions"]);
    }
}

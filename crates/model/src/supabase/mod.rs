//! What Supabase manages in a project's database: what a backup of the project leaves out, and what a restore does
//! with what it holds.
//!
//! The lists follow the Supabase CLI's `db dump` of June 2026 (`pkg/migration/dump.go`: schemas left out of its schema
//! run, tables left out of its data run). Unlike the CLI's schema run, a backup keeps `auth` and `storage` whole: users
//! and the index of stored files are the project's own, as are its triggers and policies on these tables. It keeps
//! `supabase_migrations`, too: without it the CLI's next push would carry out every migration again.

mod owner;
mod place;

pub use owner::{Lodger, SchemaOwner, is_platform_database, platform_schemas};
pub use place::{Brought, Onto, Place, Platform, Stubs, There};

/// Schemas of the platform, where it also owns them; sorted.
pub const MANAGED_SCHEMAS: &[&str] = &[
    "_analytics",
    "_realtime",
    "_supavisor",
    "auth",
    "cron",
    "dbdev",
    "etl",
    "extensions",
    "graphql",
    "graphql_public",
    "net",
    "pgbouncer",
    "pgmq",
    "pgsodium",
    "pgsodium_masks",
    "pgtle",
    "realtime",
    "repack",
    "storage",
    "supabase_functions",
    "tiger",
    "tiger_data",
    "timescaledb_experimental",
    "timescaledb_information",
    "topology",
    "vault",
];

/// Those among them that hold rows of the project, and are dumped.
pub const KEPT_SCHEMAS: &[&str] = &["auth", "storage"];

/// Tables in the kept schemas by which the platform knows how far it has migrated them: every project has its own.
pub const PLATFORM_TABLES: &[(&str, &str)] =
    &[("auth", "schema_migrations"), ("storage", "migrations")];

/// Tables in the kept schemas without which a backup is not worth the name.
const ESSENTIAL_TABLES: &[(&str, &str)] = &[
    ("auth", "identities"),
    ("auth", "users"),
    ("storage", "buckets"),
    ("storage", "objects"),
];

/// Extensions that only the platform brings. Where a server lacks them they are left out.
pub const PLATFORM_EXTENSIONS: &[&str] = &[
    "hypopg",
    "index_advisor",
    "pg_cron",
    "pg_graphql",
    "pg_jsonschema",
    "pg_net",
    "pg_tle",
    "pgjwt",
    "pgmq",
    "pgsodium",
    "supabase_vault",
    "wrappers",
];

/// Roles that the project's interfaces log in as or change to. Policies and functions may name them anywhere.
pub const API_ROLES: &[&str] = &["anon", "authenticated", "authenticator", "service_role"];

/// Roles that a session of the interfaces changes to.
const CHANGED_TO: &[&str] = &["anon", "authenticated", "service_role"];

/// Roles that may change to those.
const CHANGING: &[&str] = &["authenticator", "postgres", "supabase_storage_admin"];

/// Roles that row-level security does not hold for.
const ABOVE_POLICIES: &[&str] = &["postgres", "service_role", "supabase_read_only_user"];

/// What the platform gives to a role of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRight {
    /// SQL that gives it.
    pub sql: String,
    /// What is to be told where the server refuses.
    pub lacks: String,
}

/// Returns what the platform gives to these roles, which were just made, beside their names. Passwords, logins and time
/// limits are its own affair.
///
/// The source is the platform's own dump of its globals (supabase/cli, `internal/utils/templates/globals.sql`).
pub fn rights_of_roles(made: &[String]) -> Vec<RoleRight> {
    let right = |sql: String, what: &str| RoleRight {
        lacks: format!("{what}; as a superuser: `{sql}`"),
        sql,
    };
    let is_made = |role: &&&str| made.iter().any(|name| name == **role);
    // A grant to a role says whether it inherits by what the role is at that time.
    let bare = API_ROLES.iter().filter(is_made).map(|role| {
        let sql = format!("ALTER ROLE {role} NOINHERIT");
        right(sql, &format!("role `{role}` without NOINHERIT"))
    });
    let above = ABOVE_POLICIES.iter().filter(is_made).map(|role| {
        let sql = format!("ALTER ROLE {role} BYPASSRLS");
        let what = format!("role `{role}` without BYPASSRLS, so that policies hold for it, too");
        right(sql, &what)
    });
    let members = CHANGING.iter().filter(is_made).map(|role| {
        let sql = format!("GRANT {} TO {role}", CHANGED_TO.join(", "));
        let what = format!("role `{role}` without the roles that it changes to");
        right(sql, &what)
    });
    bare.chain(above).chain(members).collect()
}

/// Event triggers of the platform, whose owner no project's role can become.
const EVENT_TRIGGERS: &[&str] = &[
    "issue_graphql_placeholder",
    "issue_pg_cron_access",
    "issue_pg_graphql_access",
    "issue_pg_net_access",
    "pgrst_ddl_watch",
    "pgrst_drop_watch",
];

/// Tells whether a schema is called as one of the platform's. Whose it is says [`SchemaOwner::is_of_platform`].
pub fn is_managed(schema: &str) -> bool {
    MANAGED_SCHEMAS.binary_search(&schema).is_ok()
}

/// Returns those among `schemas` that a backup leaves out.
pub fn left_out(schemas: &[SchemaOwner]) -> Vec<String> {
    let mut names = platform_schemas(schemas);
    names.retain(|name| is_left_out(name));
    names
}

/// Returns the schemas that a dump holds although they are called as some of the platform's: nobody left them out of it.
pub fn brought_as_own(left_out: &[String]) -> Vec<String> {
    let names = MANAGED_SCHEMAS
        .iter()
        .filter(|name| is_left_out(name))
        .map(|&name| name.to_owned());
    names.filter(|name| !left_out.contains(name)).collect()
}

/// Tells whether a backup leaves a schema out.
fn is_left_out(schema: &str) -> bool {
    is_managed(schema) && !KEPT_SCHEMAS.contains(&schema)
}

/// Tells whether a table of a kept schema is left out: the platform's own bookkeeping always, and what the role may not
/// read where the backup is whole without it.
pub fn leaves_table_out(schema: &str, name: &str, is_readable: bool) -> bool {
    if PLATFORM_TABLES.contains(&(schema, name)) {
        return true;
    }
    let is_kept = KEPT_SCHEMAS.contains(&schema);
    is_kept && !is_readable && !ESSENTIAL_TABLES.contains(&(schema, name))
}

/// Tells whether a role is one that the platform keeps for itself.
fn is_platform_role(role: &str) -> bool {
    role.starts_with("supabase_") || role == "pgbouncer"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_only_the_platforms_schemas() {
        assert!(MANAGED_SCHEMAS.is_sorted());
        let of = |name: &str, owner: &str| SchemaOwner {
            name: name.to_owned(),
            owner: owner.to_owned(),
            ..SchemaOwner::default()
        };
        let mut there = ["auth", "public", "realtime", "storage", "authors"]
            .map(|name| of(name, "supabase_admin"))
            .to_vec();
        there.push(of("etl", "postgres"));
        assert_eq!(platform_schemas(&there), ["auth", "realtime", "storage"]);
        let left = left_out(&there);
        assert_eq!(left, ["realtime"]);
        let own = brought_as_own(&left);
        assert!(own.contains(&"etl".to_owned()) && !own.contains(&"auth".to_owned()));
        assert!(!own.contains(&"realtime".to_owned()));
        assert!(KEPT_SCHEMAS.iter().all(|name| is_managed(name)));
    }

    #[test]
    fn only_roles_that_were_made_are_given_something() {
        assert_eq!(rights_of_roles(&["app".to_owned()]), []);
        let made = ["app", "authenticator", "service_role"].map(str::to_owned);
        let rights = rights_of_roles(&made);
        let sql: Vec<_> = rights.iter().map(|right| right.sql.as_str()).collect();
        assert_eq!(
            sql,
            [
                "ALTER ROLE authenticator NOINHERIT",
                "ALTER ROLE service_role NOINHERIT",
                "ALTER ROLE service_role BYPASSRLS",
                "GRANT anon, authenticated, service_role TO authenticator",
            ]
        );
        assert!(rights[2].lacks.contains("without BYPASSRLS"));
    }

    #[test]
    fn only_what_a_backup_can_do_without_is_left_out() {
        for (schema, name, is_readable, expected) in [
            ("auth", "schema_migrations", true, true),
            ("auth", "users", true, false),
            ("auth", "users", false, false),
            ("auth", "new_table", false, true),
            ("storage", "migrations", false, true),
            ("public", "schema_migrations", true, false),
            ("public", "secret", false, false),
        ] {
            let found = leaves_table_out(schema, name, is_readable);
            assert_eq!(found, expected, "{schema}.{name}");
        }
    }
}

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
    let names = MANAGED_SCHEMAS.iter().filter(|name| is_left_out(name));
    let names = names.map(|&name| name.to_owned());
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

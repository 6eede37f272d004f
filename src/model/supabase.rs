//! What Supabase manages in a project's database, and what a backup of the project therefore leaves out.
//!
//! The list is that of the Supabase CLI's `db dump` (schemas excluded from its schema run, June 2026). Those schemas
//! belong to the platform, which makes them anew in every project; the project's own role may not even read some.

/// Schemas of the platform.
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
    "supabase_migrations",
    "tiger",
    "tiger_data",
    "timescaledb_experimental",
    "timescaledb_information",
    "topology",
    "vault",
];

/// Returns the managed ones among `schemas`.
pub fn managed<'a>(schemas: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    schemas
        .into_iter()
        .filter(|name| MANAGED_SCHEMAS.binary_search(&name.as_str()).is_ok())
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_only_the_platforms_schemas() {
        assert!(MANAGED_SCHEMAS.is_sorted());
        let there = ["auth", "public", "storage", "authors"].map(str::to_owned);
        assert_eq!(managed(&there), ["auth", "storage"]);
    }
}

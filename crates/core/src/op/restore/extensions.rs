//! Extensions of a dump: which of them the target can make, and what goes with one that is left out.
//!
//! That a server has an extension's files does not mean that it can be made: some need a superuser, some must be loaded
//! when the server starts, and one lives in a single database only.

use super::Options;
use crate::postgres::target::TargetFacts;
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::filter::Without;

/// Extensions whose library refuses to be loaded later than the server's start, so that they cannot be made without it.
const PRELOADED: &[&str] = &[
    "citus",
    "documentdb",
    "orioledb",
    "pg_cron",
    "pg_duckdb",
    "pg_net",
    "pg_squeeze",
    "pg_tle",
    "pgaudit",
    "pglogical",
    "spock",
    "timescaledb",
    "vchord",
    "vectors",
];

/// The extension that can be made in one database of the server only, which `cron.database_name` names.
const OF_ONE_DATABASE: &str = "pg_cron";

/// Schemas that extensions make for themselves, and that no CREATE SCHEMA of a dump makes.
const OWN_SCHEMAS: &[(&str, &[&str])] = &[
    ("pg_cron", &["cron"]),
    ("pg_net", &["net"]),
    ("pg_squeeze", &["squeeze"]),
    ("pg_tle", &["pgtle"]),
    ("pgmq", &["pgmq"]),
    ("pgsodium", &["pgsodium", "pgsodium_masks"]),
    ("postgis_tiger_geocoder", &["tiger", "tiger_data"]),
    ("postgis_topology", &["topology"]),
    ("supabase_vault", &["vault"]),
    (
        "timescaledb",
        &[
            "_timescaledb_cache",
            "_timescaledb_catalog",
            "_timescaledb_config",
            "_timescaledb_internal",
        ],
    ),
];

/// Tables of extensions in schemas that are others', too, and whose rows a dump holds.
const OWN_TABLES: &[(&str, &[&str])] = &[("postgis", &["spatial_ref_sys"])];

/// Where extensions' own tables may lie whatever the extension is: nobody else makes tables there.
const SYSTEM: &str = "pg_catalog";

/// What a dump says of its extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Homes {
    /// Each extension with the schema that it lies in.
    extensions: Vec<(String, String)>,
    /// Schemas in which the dump makes tables.
    schemas: Vec<String>,
    /// Tables whose rows the dump holds and that it does not make.
    borrowed: Vec<TableName>,
}

impl Homes {
    pub(crate) fn of_manifest(manifest: &Manifest) -> Self {
        let extensions = manifest.server.extensions.iter();
        let tables = || manifest.tables.iter();
        let made = tables().filter(|table| table.kind.is_some());
        let mut schemas: Vec<String> = made.map(|table| table.schema.clone()).collect();
        schemas.sort();
        schemas.dedup();
        let borrowed = tables().filter(|table| table.kind.is_none());
        Self {
            extensions: extensions
                .map(|extension| (extension.name.clone(), extension.schema.clone()))
                .collect(),
            schemas,
            borrowed: borrowed
                .map(|table| TableName::new(&*table.schema, &*table.name))
                .collect(),
        }
    }

    /// Returns what is not there without these extensions.
    pub(crate) fn without(&self, skipped: &[String]) -> Without {
        let is_skipped = |name: &String| skipped.contains(name);
        let mut schemas: Vec<String> = Vec::new();
        for (name, home) in &self.extensions {
            if !is_skipped(name) {
                continue;
            }
            schemas.extend(own(OWN_SCHEMAS, name));
            let is_shared = matches!(home.as_str(), "public" | SYSTEM)
                || self.schemas.contains(home)
                || self
                    .extensions
                    .iter()
                    .any(|(other, of)| of == home && !is_skipped(other));
            if !is_shared
                && self
                    .borrowed
                    .iter()
                    .any(|table| table.schema_or_public() == home)
            {
                schemas.push(home.clone());
            }
        }
        let gone: Vec<String> = skipped
            .iter()
            .flat_map(|name| own(OWN_TABLES, name))
            .collect();
        let goes = |table: &&TableName| {
            let schema = table.schema_or_public();
            schemas.iter().any(|gone| gone == schema) || gone.contains(&table.name)
        };
        let tables = self.borrowed.iter().filter(goes).cloned().collect();
        Without { schemas, tables }
    }
}

fn own(list: &[(&str, &[&str])], extension: &str) -> Vec<String> {
    let found = list.iter().filter(|(name, _)| *name == extension);
    let names = found.flat_map(|(_, names)| names.iter());
    names.map(|&name| name.to_owned()).collect()
}

/// Returns the libraries that a server of our own must load at its start, for these extensions.
pub(crate) fn to_preload(extensions: &[String], skipped: &[String]) -> Vec<String> {
    let needed = extensions
        .iter()
        .filter(|name| PRELOADED.contains(&name.as_str()) && !skipped.contains(name));
    needed.cloned().collect()
}

/// Where a dump goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The name of the database at that time.
    pub name: &'a str,
    /// Whether it is there, so that its extensions may be, too.
    pub is_there: bool,
    /// Whether it is a copy that takes the place of another later.
    pub is_copy: bool,
}

/// Why an extension cannot be made.
#[derive(Debug)]
pub(crate) struct Unusable {
    /// Stable name of the refusal.
    pub id: &'static str,
    /// Why, as a clause.
    pub text: String,
    /// The next move.
    pub hint: String,
}

/// Names the extensions that the server has and that cannot be made where the dump goes.
pub(crate) fn unusable(
    extensions: &[String],
    facts: &TargetFacts,
    place: Place<'_>,
    options: &Options,
) -> Vec<Unusable> {
    let is_made = |name: &String| place.is_there && facts.installed_extensions.contains(name);
    let wanted: Vec<&str> = extensions
        .iter()
        .filter(|name| facts.extensions.contains(name))
        .filter(|name| !options.leaves_out(name) && !is_made(name))
        .map(String::as_str)
        .collect();
    let of_those = |is_meant: &dyn Fn(&str) -> bool| -> Vec<&str> {
        wanted
            .iter()
            .copied()
            .filter(|name| is_meant(name))
            .collect()
    };
    let mut all = Vec::new();
    let denied = of_those(&|name| contains(&facts.extensions_of_superusers, name));
    if !denied.is_empty() {
        all.push(Unusable {
            id: "extension_not_allowed",
            text: format!(
                "`{}` cannot create {}: only a superuser can",
                facts.user,
                named(&denied)
            ),
            hint: format!(
                "let a superuser make an empty database that has them, and restore into it; {}",
                skip(&denied)
            ),
        });
    }
    let is_loaded = |name: &str| {
        let loaded = facts.preloaded.as_ref();
        loaded.is_none_or(|loaded| contains(loaded, name))
    };
    let not_loaded = of_those(&|name| PRELOADED.contains(&name) && !is_loaded(name));
    if !not_loaded.is_empty() {
        all.push(Unusable {
            id: "extension_not_loaded",
            text: format!(
                "its server does not load {} at its start, so they cannot be created",
                named(&not_loaded)
            ),
            hint: format!(
                "add them to `shared_preload_libraries` and restart the server; {}",
                skip(&not_loaded)
            ),
        });
    }
    let elsewhere = facts
        .cron_database
        .as_ref()
        .filter(|home| *home != place.name);
    if let (true, Some(home)) = (wanted.contains(&OF_ONE_DATABASE), elsewhere) {
        let why = if place.is_copy {
            "and the copy that takes its place has another name until then"
        } else {
            "and this is another"
        };
        all.push(Unusable {
            id: "extension_of_other_database",
            text: format!(
                "`{OF_ONE_DATABASE}` can be created in the database `{home}` only, as `cron.database_name` says, {why}"
            ),
            hint: skip(&[OF_ONE_DATABASE]),
        });
    }
    all
}

fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|one| one == name)
}

fn named(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn skip(names: &[&str]) -> String {
    let flags: Vec<String> = names
        .iter()
        .map(|name| format!("--skip-extension {name}"))
        .collect();
    format!("`{}` restores without", flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn facts() -> TargetFacts {
        TargetFacts {
            user: "app".into(),
            extensions: names(&["pg_cron", "pgaudit", "pg_trgm", "postgis"]),
            preloaded: Some(names(&["pg_cron"])),
            cron_database: Some("shop".into()),
            ..TargetFacts::default()
        }
    }

    fn ids(
        wanted: &[&str],
        facts: &TargetFacts,
        place: Place<'_>,
        skip: &[&str],
    ) -> Vec<&'static str> {
        let options = Options {
            skip_extensions: names(skip),
            ..Options::default()
        };
        let all = unusable(&names(wanted), facts, place, &options);
        all.iter().map(|one| one.id).collect()
    }

    #[test]
    fn what_is_available_may_be_unusable() {
        let place = |name| Place {
            name,
            is_there: false,
            is_copy: false,
        };
        let there = Place {
            is_there: true,
            ..place("shop")
        };
        let all = ["pg_cron", "pgaudit", "pg_trgm", "missing"];
        let told = ids(&all, &facts(), place("shop_restoring_1"), &[]);
        assert_eq!(
            told,
            ["extension_not_loaded", "extension_of_other_database"]
        );
        assert_eq!(ids(&all, &facts(), there, &["pgaudit"]), [""; 0]);
        assert_eq!(
            ids(&all, &facts(), place("x"), &["pg_cron", "pgaudit"]),
            [""; 0]
        );
        let mut poor = facts();
        poor.preloaded = None;
        poor.extensions_of_superusers = names(&["postgis"]);
        assert_eq!(
            ids(&["postgis"], &poor, place("x"), &[]),
            ["extension_not_allowed"]
        );
        poor.installed_extensions = names(&["postgis"]);
        assert_eq!(ids(&["postgis"], &poor, there, &[]), [""; 0]);
        assert_eq!(
            ids(&["postgis"], &poor, place("x"), &[]),
            ["extension_not_allowed"]
        );
    }

    #[test]
    fn rows_of_an_extension_go_with_it() {
        let homes = Homes {
            extensions: [
                ("pg_cron", SYSTEM),
                ("postgis", "public"),
                ("pg_trgm", "public"),
                ("e", "own"),
            ]
            .map(|(name, home)| (name.to_owned(), home.to_owned()))
            .to_vec(),
            schemas: names(&["public"]),
            borrowed: vec![
                TableName::new("cron", "job"),
                TableName::new("public", "spatial_ref_sys"),
                TableName::new("own", "config"),
            ],
        };
        let without = |skipped: &[&str]| {
            let Without { schemas, tables } = homes.without(&names(skipped));
            let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
            (schemas, tables)
        };
        assert_eq!(
            without(&["pg_cron"]),
            (names(&["cron"]), names(&["cron.job"]))
        );
        assert_eq!(
            without(&["postgis"]),
            (names(&[]), names(&["public.spatial_ref_sys"]))
        );
        assert_eq!(without(&["e"]), (names(&["own"]), names(&["own.config"])));
        assert_eq!(without(&["pg_trgm"]), (names(&[]), names(&[])));
        assert_eq!(
            to_preload(&names(&["pg_cron", "pg_trgm", "citus"]), &names(&["citus"])),
            ["pg_cron"]
        );
    }
}

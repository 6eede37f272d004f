//! Decides before anything is touched how a target takes a dump, or tells all problems at once.

use std::fmt::Display;

use super::Options;
use super::extensions::{self, Homes, Place, Unusable};
use crate::postgres::programs::Version;
use crate::postgres::target::TargetFacts;
use pgkeep_model::config::Preset;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::name::TableName;
use pgkeep_model::name::quote;
use pgkeep_model::restore::properties::Properties;
use pgkeep_model::scan::Scan;
use pgkeep_model::supabase;
use pgkeep_model::text_form::TextForm;
use pgkeep_model::words::bytes;

/// Extensions that are in every database and are never created by a dump.
pub(crate) const ALWAYS_THERE: &str = "plpgsql";

/// Id of the refusal to run a dump's SQL with a superuser's powers.
const SUPERUSER_REFUSED: &str = "superuser_refused";

/// How the target takes the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The database is made.
    Create,
    /// The database is there and empty.
    Fill,
    /// A fresh database is made beside it and takes its place.
    Replace,
}

/// What a dump asks of its target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// The server's major version, with its own words.
    pub version: Option<(u32, String)>,
    /// Extensions that it creates.
    pub extensions: Vec<String>,
    /// Where they and their tables are.
    pub homes: Homes,
    /// How many tables it makes.
    pub tables: u64,
    /// How many large objects it makes.
    pub large_objects: u64,
    /// Tablespaces that it puts things into.
    pub tablespaces: Vec<String>,
    /// Roles that it refers to.
    pub roles: Vec<String>,
    /// System identifier and object id of the database that it came from.
    pub origin: Option<(String, u64)>,
    /// Size of the database that it came from.
    pub size_bytes: u64,
    /// The database's encoding.
    pub encoding: String,
    /// Text form of its values.
    pub form: TextForm,
    /// The encoding of the dump's text, where it says so.
    pub client_encoding: Option<String>,
    /// What a plain dump leaves out.
    pub properties: Properties,
    /// Tables of which it holds only some rows.
    pub limited: Vec<String>,
    /// Whether those are what a replaced database is to have, whatever the flags say of the dump's.
    pub keeps_properties: bool,
}

/// The target as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The database's name.
    pub name: String,
    /// Whether it is there.
    pub exists: bool,
    /// What the server says: of the database, or of one beside it.
    pub facts: TargetFacts,
    /// Bytes that are free on the server's disk, where it is this machine's.
    pub free_bytes: Option<u64>,
}

/// One thing that prevents a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub id: &'static str,
    pub text: String,
    pub hint: Option<String>,
}

impl From<Unusable> for Problem {
    fn from(unusable: Unusable) -> Self {
        problem(unusable.id, unusable.text, Some(&unusable.hint))
    }
}

impl Needs {
    pub(crate) fn of_manifest(manifest: &Manifest) -> Self {
        let server = &manifest.server;
        // A choice of tables or schemas leaves the extensions out of the dump.
        let has_extensions = manifest
            .selection
            .as_ref()
            .is_none_or(|selection| selection.tables.is_empty() && selection.schemas.is_empty());
        let extensions = server.extensions.iter().filter(|_| has_extensions);
        Self {
            version: Some((server.version_num / 10_000, server.version.clone())),
            extensions: extensions.map(|extension| extension.name.clone()).collect(),
            homes: Homes::of_manifest(manifest),
            tables: manifest.tables.len() as u64,
            large_objects: manifest.large_objects,
            tablespaces: manifest.tablespaces.clone(),
            roles: manifest.roles.clone(),
            origin: server.system_identifier.clone().zip(server.database_oid),
            size_bytes: server.size_bytes,
            encoding: server.encoding.clone(),
            form: server.text_form(),
            client_encoding: manifest.dump.client_encoding.clone(),
            properties: Properties::read(&server.properties),
            limited: (manifest.limits.iter())
                .map(|limit| format!("`{}`", TableName::new(&limit.schema, &limit.name)))
                .collect(),
            keeps_properties: false,
        }
    }

    pub(crate) fn of_scan(scan: &Scan) -> Self {
        let version = scan.server_version.clone();
        let encoding = scan
            .client_encoding
            .clone()
            .filter(|name| name == "SQL_ASCII");
        Self {
            version: version.and_then(|text| Some((Version::parse(&text)?.major, text))),
            extensions: scan.extensions.clone(),
            homes: Homes::default(),
            tables: scan.tables.len() as u64,
            large_objects: scan.large_objects,
            tablespaces: scan.tablespaces.clone(),
            roles: scan.roles.clone(),
            origin: None,
            size_bytes: scan.bytes,
            encoding: encoding.unwrap_or_else(|| "UTF8".to_owned()),
            form: scan.text_form.clone().unwrap_or_else(TextForm::foreign),
            client_encoding: scan.client_encoding.clone(),
            properties: Properties::default(),
            limited: Vec::new(),
            keeps_properties: false,
        }
    }

    /// Returns the encoding that rows are read back in, so that they compare.
    pub(crate) fn text_encoding(&self) -> &str {
        let dumped = self.client_encoding.as_deref();
        match dumped.filter(|name| is_word(name)) {
            Some(name) => name,
            None if self.encoding == "SQL_ASCII" => "SQL_ASCII",
            None => "UTF8",
        }
    }

    /// Where a database is replaced, what the dump does not tell of its properties, or what of it nobody wants, is kept
    /// from the old one.
    pub(crate) fn keep_properties(&mut self, facts: &TargetFacts, options: &Options) {
        if !options.no_database_settings && self.properties != Properties::default() {
            let (new, old) = (&mut self.properties, &facts.properties);
            if options.no_owner {
                new.owner.clone_from(&old.owner);
            }
            if options.no_privileges {
                new.acl.clone_from(&old.acl);
            }
            self.keeps_properties = true;
            return;
        }
        let dumped = std::mem::replace(&mut self.properties, facts.properties.clone());
        self.keeps_properties = true;
        // A locale fits its own encoding, and the dump's encoding is the one that its rows fit into.
        if facts.encoding != self.encoding {
            self.properties.collate = dumped.collate;
            self.properties.ctype = dumped.ctype;
            self.properties.locale_provider = dumped.locale_provider;
            self.properties.locale = dumped.locale;
            self.properties.icu_rules = dumped.icu_rules;
        }
    }

    /// Returns the roles that the server lacks.
    pub(crate) fn missing_roles(&self, facts: &TargetFacts) -> Vec<String> {
        missing(&self.roles, &facts.roles)
    }

    /// Returns the extensions that the server lacks.
    pub(crate) fn missing_extensions(&self, facts: &TargetFacts) -> Vec<String> {
        let mut names = missing(&self.extensions, &facts.extensions);
        names.retain(|name| name != ALWAYS_THERE);
        names
    }
}

/// Tells whether the name of an encoding is one that a statement may hold.
pub(crate) fn is_word(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.is_empty() && name.bytes().all(is_plain)
}

fn missing(wanted: &[String], there: &[String]) -> Vec<String> {
    wanted
        .iter()
        .filter(|name| !there.contains(name))
        .cloned()
        .collect()
}

/// Decides.
pub(crate) fn plan(
    needs: &Needs,
    target: &Target,
    options: &Options,
) -> Result<Plan, Vec<Problem>> {
    let plan = match (target.exists, options.replace) {
        (false, _) => Plan::Create,
        (true, false) => Plan::Fill,
        (true, true) => Plan::Replace,
    };
    let mut problems = Vec::new();
    problems.extend(place(needs, target, plan, options));
    problems.extend(limited(needs, plan, options));
    problems.extend(powers_of(needs, target, options));
    problems.extend(version(needs, &target.facts, options));
    problems.extend(extensions(needs, &target.facts, options));
    // A copy that takes a place has another name until then.
    let to = Place {
        name: match plan {
            Plan::Replace => "",
            Plan::Create | Plan::Fill => &target.name,
        },
        is_there: plan == Plan::Fill,
        is_copy: plan == Plan::Replace,
    };
    let unusable = extensions::unusable(&needs.extensions, &target.facts, to, options);
    problems.extend(unusable.into_iter().map(Problem::from));
    problems.extend(tablespaces(needs, &target.facts, options));
    problems.extend(locks(needs, &target.facts, plan, options));
    problems.extend(holders(&target.facts, plan));
    problems.extend(roles(needs, &target.facts, options));
    problems.extend(rights(target, plan));
    problems.extend(space(needs, target));
    if problems.is_empty() {
        Ok(plan)
    } else {
        Err(problems)
    }
}

/// Turns everything that prevents a restore into one failure.
pub(crate) fn failure(
    into: &Connection,
    name: &str,
    exists: bool,
    problems: Vec<Problem>,
) -> Failure {
    let safe = if exists {
        "the database was not changed"
    } else {
        "nothing was changed"
    };
    let place = match into.database_name() {
        Some(_) => into.label(),
        None => format!("{}/{name}", into.label()),
    };
    let what = format!("will not restore into `{place}`");
    let failure = match problems.as_slice() {
        [one] => Failure::new(
            Kind::Refused,
            one.id,
            format!("{what}: {}; {safe}", one.text),
        ),
        all => {
            let message = format!("{what}: {} problems; {safe}", all.len());
            let texts = all.iter().map(|problem| problem.text.clone());
            Failure::new(Kind::Refused, "target_not_ready", message).with_details(texts)
        }
    };
    problems
        .into_iter()
        .filter_map(|problem| problem.hint)
        .fold(failure, Failure::hint)
}

pub(crate) fn problem(id: &'static str, text: impl Into<String>, hint: Option<&str>) -> Problem {
    Problem {
        id,
        text: text.into(),
        hint: hint.map(str::to_owned),
    }
}

/// What to do on Supabase, where a database is a project's.
const ANOTHER_PROJECT: &str = "restore into another project, whose database counts as empty while it has nothing but the platform's schemas, or \
     into a server of yours";

/// Rows that the database has and the backup does not would be gone.
fn limited(needs: &Needs, plan: Plan, options: &Options) -> Option<Problem> {
    let is_refused = plan == Plan::Replace && !needs.limited.is_empty() && !options.accept_limited;
    is_refused.then(|| {
        let text = format!(
            "the backup holds only some rows of {}, and would take the place of all of them",
            needs.limited.join(", ")
        );
        let hint = "`--upsert` merges its rows into the database; `--accept-limited` replaces the database all the same";
        problem("backup_is_limited", text, Some(hint))
    })
}

/// The database itself: not the one that the dump came from, and empty.
fn place(needs: &Needs, target: &Target, plan: Plan, options: &Options) -> Option<Problem> {
    let facts = &target.facts;
    if facts.is_standby {
        return Some(problem(
            "target_is_standby",
            "its server is a standby, which accepts no writes",
            None,
        ));
    }
    // A superuser can end the services' sessions, and has to say that they are to go.
    let is_held = facts.is_supabase() && !facts.is_superuser;
    let aside = if is_held {
        ANOTHER_PROJECT.to_owned()
    } else {
        format!(
            "use `--into {}_restored`, or `--replace` to swap the restored copy in",
            target.name
        )
    };
    if plan == Plan::Replace && is_held {
        let text =
            "Supabase's own services keep it in use, so no other database can take its place";
        return Some(problem("platform_database", text, Some(&aside)));
    }
    if plan != Plan::Fill {
        return None;
    }
    let here = facts
        .system_identifier
        .clone()
        .zip(Some(facts.database_oid));
    if here.is_some() && here == needs.origin {
        let text = "it is the database that the backup was made from";
        return Some(problem("target_is_source", text, Some(&aside)));
    }
    let platforms = match options.preset {
        Some(Preset::Supabase) if facts.is_supabase() => {
            supabase::platform_schemas(&facts.schema_owners)
        }
        _ => Vec::new(),
    };
    let own = facts
        .schemas
        .iter()
        .filter(|schema| !platforms.contains(&schema.name));
    let (tables, relations) = own.fold((0, 0), |(tables, relations), schema| {
        (tables + schema.tables, relations + schema.relations)
    });
    let text = match (tables, relations) {
        (_, 0) if facts.large_objects == 0 => return None,
        (_, 0) => format!(
            "it has {}",
            count(facts.large_objects, "large object", "large objects")
        ),
        (0, relations) => format!(
            "it has {}",
            count(relations, "view or sequence", "views and sequences")
        ),
        (tables, _) => format!("it has {}", count(tables, "table", "tables")),
    };
    Some(problem("target_not_empty", text, Some(&aside)))
}

/// [`powers`] of a whole dump's target.
pub(crate) fn powers_of(needs: &Needs, target: &Target, options: &Options) -> Option<Problem> {
    let own = if target.exists {
        format!(
            "; `ALTER DATABASE {} OWNER TO restorer`",
            quote(&target.name)
        )
    } else {
        String::new()
    };
    powers(needs, &target.facts, &own, options)
}

/// A dump is SQL that somebody else may have written, or anyone who could write to the database that it is of:
/// functions of indexes and checks run while it is restored, and can do whatever the restoring role can.
///
/// `rights` are the statements, each behind "; ", that let a role of its own work in the target.
pub(crate) fn powers(
    needs: &Needs,
    facts: &TargetFacts,
    rights: &str,
    options: &Options,
) -> Option<Problem> {
    let role = facts.powers.first().filter(|_| !options.allow_superuser)?;
    let user = &facts.user;
    let what = match role == user {
        true if facts.is_superuser => format!("`{user}` is a superuser"),
        // Up to PostgreSQL 15 it may make itself a member of `pg_execute_server_program`.
        true => format!(
            "`{user}` has CREATEROLE, which on this server leads to every power but a superuser's own"
        ),
        false if facts.powers.iter().any(|role| role.starts_with("pg_")) => {
            format!("`{user}` has the powers of `{role}` over the server")
        }
        false => format!("`{user}` may become `{role}`, a role with powers over the server"),
    };
    let text = format!("{what}, and all SQL of the dump would run with those powers");
    let owners = if needs.roles.is_empty() {
        String::new()
    } else {
        "; `GRANT <each owner in the dump> TO restorer`".to_owned()
    };
    let makes_roles = options.create_missing_roles && !needs.missing_roles(facts).is_empty();
    let makes_roles_itself = makes_roles && facts.major() >= 16;
    let more = if makes_roles_itself {
        " CREATEROLE"
    } else {
        ""
    };
    let roles = if makes_roles && !makes_roles_itself {
        "; let a superuser create the missing roles, because CREATEROLE is such a power up to PostgreSQL 15"
    } else {
        ""
    };
    let hint = format!(
        "if you trust the dump as you trust the server, `--allow-superuser` restores anyway; or make a role for it: \
         `CREATE ROLE restorer LOGIN CREATEDB{more}`{rights}{owners}{roles}"
    );
    Some(problem(SUPERUSER_REFUSED, text, Some(&hint)))
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

pub(crate) fn version(needs: &Needs, facts: &TargetFacts, options: &Options) -> Option<Problem> {
    let (major, text) = needs.version.as_ref()?;
    if *major <= facts.major() || options.force_version {
        return None;
    }
    let text = format!(
        "its server is older than the dump's: {} and {text}",
        facts.version
    );
    let hint = "restore into a server of the same major version or a newer one; `--force-version` tries it anyway";
    Some(problem("target_older", text, Some(hint)))
}

fn extensions(needs: &Needs, facts: &TargetFacts, options: &Options) -> Option<Problem> {
    let mut names = needs.missing_extensions(facts);
    names
        .retain(|name| !options.leaves_out(name) && !options.dispensable_extensions.contains(name));
    if names.is_empty() {
        return None;
    }
    let text = format!(
        "its server lacks {}: {}",
        count(names.len() as u64, "extension", "extensions"),
        list(&names)
    );
    let packages: Vec<String> = names
        .iter()
        .map(|name| package(name, facts.major()))
        .collect();
    let flags: Vec<String> = names
        .iter()
        .map(|name| format!("--skip-extension {name}"))
        .collect();
    let hint = format!(
        "install them on the server; on Debian: `apt install {}`; `{}` restores without",
        packages.join(" "),
        flags.join(" ")
    );
    Some(problem("extension_missing", text, Some(&hint)))
}

/// Tablespaces that the server lacks, or that the role may put nothing into.
pub(crate) fn tablespaces(
    needs: &Needs,
    facts: &TargetFacts,
    options: &Options,
) -> Option<Problem> {
    let names = missing(&needs.tablespaces, &facts.tablespaces);
    if names.is_empty() || options.no_tablespaces {
        return None;
    }
    let text = format!(
        "its server lacks {} that `{}` may use: {}",
        count(names.len() as u64, "tablespace", "tablespaces"),
        facts.user,
        list(&names)
    );
    let hint = "`--no-tablespaces` puts everything into the database's own tablespace";
    Some(problem("tablespace_missing", text, Some(hint)))
}

/// The server's table of locks: in a database that is there all is one transaction, and each table and large object
/// takes a lock or more until its end; to compare, `pg_dump` locks every table at once.
fn locks(needs: &Needs, facts: &TargetFacts, plan: Plan, options: &Options) -> Option<Problem> {
    let compares = !options.no_compare;
    let needed = match plan {
        Plan::Fill => needs.tables + needs.large_objects,
        Plan::Create | Plan::Replace if compares => needs.tables,
        Plan::Create | Plan::Replace => 0,
    };
    let room = facts.locks.filter(|room| *room < needed)?;
    let text = format!("its server has room for {room} locks, and this takes more than {needed}");
    let each = needed * 2 / (room / facts.locks_per_transaction.max(1)).max(1) + 1;
    let elsewhere = match plan {
        Plan::Fill => "; a database that does not exist yet takes fewer",
        Plan::Create | Plan::Replace => "",
    };
    let hint =
        format!("set `max_locks_per_transaction` to {each} and restart the server{elsewhere}");
    Some(problem("too_few_locks", text, Some(&hint)))
}

/// What keeps a database from being renamed, and no session of anybody's that could be ended.
fn holders(facts: &TargetFacts, plan: Plan) -> Vec<Problem> {
    if plan != Plan::Replace {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for subscription in facts.subscriptions.iter().filter(|one| one.is_active) {
        let name = &subscription.name;
        let text = format!("its subscription `{name}` is enabled, whose worker holds the database");
        let hint = format!("`ALTER SUBSCRIPTION {} DISABLE` in it first", quote(name));
        problems.push(problem("database_held", text, Some(&hint)));
    }
    for slot in facts.slots.iter().filter(|one| one.is_active) {
        let name = &slot.name;
        let text = format!("its replication slot `{name}` is in use, which holds the database");
        let hint = format!("stop the subscriber of `{name}` first");
        problems.push(problem("database_held", text, Some(&hint)));
    }
    problems
}

/// Extensions whose Debian package is not called after them.
const PACKAGES: &[(&str, &str)] = &[
    ("pg_cron", "cron"),
    ("pg_partman", "partman"),
    ("pg_repack", "repack"),
    ("postgis", "postgis-3"),
    ("postgis_raster", "postgis-3"),
    ("postgis_tiger_geocoder", "postgis-3"),
    ("postgis_topology", "postgis-3"),
    ("vector", "pgvector"),
];

/// Languages, whose packages have the version at their end.
const LANGUAGES: &[(&str, &str)] = &[
    ("plperl", "plperl"),
    ("plperlu", "plperl"),
    ("plpython3u", "plpython3"),
    ("pltcl", "pltcl"),
    ("pltclu", "pltcl"),
];

/// Names the package as Debian and PGDG call it: `postgresql-15-pgvector`, `postgresql-plpython3-15`.
fn package(extension: &str, major: u32) -> String {
    let find = |list: &[(&str, &'static str)]| {
        let found = list.iter().find(|(name, _)| *name == extension);
        found.map(|(_, package)| *package)
    };
    match (find(LANGUAGES), find(PACKAGES)) {
        (Some(language), _) => format!("postgresql-{language}-{major}"),
        (None, Some(package)) => format!("postgresql-{major}-{package}"),
        (None, None) => format!("postgresql-{major}-{}", extension.replace('_', "-")),
    }
}

pub(crate) fn roles(needs: &Needs, facts: &TargetFacts, options: &Options) -> Option<Problem> {
    let names = needs.missing_roles(facts);
    // Policies name roles, too; where one of those is missing the server says so, and nothing is changed.
    let is_waived = options.no_owner && options.no_privileges;
    if names.is_empty() || (is_waived && !options.create_missing_roles) {
        return None;
    }
    if options.create_missing_roles {
        let text = format!(
            "`{}` cannot create the missing roles {}",
            facts.user,
            list(&names)
        );
        return (!facts.may_create_roles).then(|| problem("rights_missing", text, None));
    }
    let text = format!(
        "its server lacks {}: {}",
        count(names.len() as u64, "role", "roles"),
        list(&names)
    );
    let hint = "`--create-missing-roles` makes them without login; `--no-owner --no-privileges` leaves owners and rights out";
    Some(problem("role_missing", text, Some(hint)))
}

fn rights(target: &Target, plan: Plan) -> Vec<Problem> {
    let facts = &target.facts;
    let user = &facts.user;
    let mut problems = Vec::new();
    let mut lacks = |is_missing: bool, what: String, hint: &str| {
        if is_missing {
            problems.push(problem("rights_missing", what, Some(hint)));
        }
    };
    let creates = matches!(plan, Plan::Create | Plan::Replace);
    lacks(
        creates && !facts.may_create_databases,
        format!("`{user}` cannot create databases"),
        "`ALTER ROLE … CREATEDB`, or create an empty database yourself and restore into it",
    );
    lacks(
        plan == Plan::Replace && !(facts.owns_database || facts.is_superuser),
        format!("`{user}` does not own the database, so it cannot rename it"),
        "restore as its owner or as a superuser",
    );
    lacks(
        plan == Plan::Fill && !facts.may_create_schemas,
        format!("`{user}` cannot create anything in it"),
        "restore as its owner, or grant CREATE on the database",
    );
    problems
}

fn space(needs: &Needs, target: &Target) -> Option<Problem> {
    let free = target.free_bytes?;
    let text = format!(
        "its server's disk has {} free, but the database had {}",
        bytes(free),
        bytes(needs.size_bytes)
    );
    (free < needs.size_bytes).then(|| problem("no_space", text, None))
}

/// Names things, each as it is to be read.
pub(crate) fn list(names: &[impl Display]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::target::SchemaFacts;
    use pgkeep_model::supabase::SchemaOwner;

    fn target() -> Target {
        Target {
            name: "shop".into(),
            exists: true,
            facts: TargetFacts {
                version: "15.18".into(),
                version_num: 150_018,
                system_identifier: Some("7".into()),
                user: "app".into(),
                may_create_databases: true,
                owns_database: true,
                may_create_schemas: true,
                database_oid: 5,
                roles: vec!["app".into()],
                extensions: vec!["pg_trgm".into()],
                ..TargetFacts::default()
            },
            free_bytes: None,
        }
    }

    fn needs() -> Needs {
        Needs {
            version: Some((15, "15.18".into())),
            extensions: vec!["plpgsql".into(), "pg_trgm".into()],
            roles: vec!["app".into()],
            origin: Some(("8".into(), 5)),
            size_bytes: 1000,
            ..Needs::default()
        }
    }

    #[test]
    fn a_replaced_database_keeps_what_the_dump_does_not_tell() {
        let mut facts = target().facts;
        facts.encoding = "UTF8".into();
        facts.properties.owner = Some("old".into());
        facts.properties.collate = Some("de_DE.UTF-8".into());
        let of = |encoding: &str, dumped: Option<&str>, no_database_settings| {
            let mut needs = Needs {
                encoding: encoding.into(),
                ..Needs::default()
            };
            needs.properties.owner = dumped.map(str::to_owned);
            needs.properties.collate = dumped.map(|_| "fr_FR".to_owned());
            let options = Options {
                no_database_settings,
                ..Options::default()
            };
            needs.keep_properties(&facts, &options);
            let Properties { owner, collate, .. } = needs.properties;
            (needs.keeps_properties, owner, collate)
        };
        let some = |text: &str| Some(text.to_owned());
        let own = (true, some("old"), some("de_DE.UTF-8"));
        assert_eq!(of("UTF8", None, false), own);
        assert_eq!(of("UTF8", Some("new"), true), own);
        let dumped = (true, some("new"), some("fr_FR"));
        assert_eq!(of("UTF8", Some("new"), false), dumped);
        assert_eq!(of("LATIN1", None, false), (true, some("old"), None));
        let mixed = (true, some("old"), some("fr_FR"));
        assert_eq!(of("LATIN1", Some("new"), true), mixed);
    }

    fn ids(needs: &Needs, target: &Target, options: &Options) -> Vec<&'static str> {
        match plan(needs, target, options) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(|problem| problem.id).collect(),
        }
    }

    #[test]
    fn chooses_the_way() {
        let replace = Options {
            replace: true,
            ..Options::default()
        };
        let absent = Target {
            exists: false,
            ..target()
        };
        assert_eq!(
            plan(&needs(), &target(), &Options::default()),
            Ok(Plan::Fill)
        );
        assert_eq!(plan(&needs(), &target(), &replace), Ok(Plan::Replace));
        assert_eq!(plan(&needs(), &absent, &replace), Ok(Plan::Create));
    }

    #[test]
    fn tells_everything_at_once() {
        let mut there = target();
        there.facts.schemas = vec![SchemaFacts {
            name: "public".into(),
            tables: 42,
            relations: 50,
        }];
        there.free_bytes = Some(10);
        let wants = Needs {
            version: Some((17, "17.2".into())),
            extensions: vec!["postgis".into()],
            roles: vec!["anon".into()],
            ..needs()
        };
        let all = [
            "target_not_empty",
            "target_older",
            "extension_missing",
            "role_missing",
            "no_space",
        ];
        assert_eq!(ids(&wants, &there, &Options::default()), all);
        let problems = plan(&wants, &there, &Options::default()).unwrap_err();
        let told = failure(
            &"postgres://app@db/shop".parse().unwrap(),
            "shop",
            true,
            problems,
        );
        assert_eq!(told.kind.exit_code(), 25);
        assert!(
            told.message
                .ends_with("5 problems; the database was not changed"),
            "{}",
            told.message
        );
        assert!(told.details.iter().any(|line| line == "it has 42 tables"));
    }

    #[test]
    fn never_onto_its_source_unless_it_is_replaced() {
        let from_here = Needs {
            origin: Some(("7".into(), 5)),
            ..needs()
        };
        assert_eq!(
            ids(&from_here, &target(), &Options::default()),
            ["target_is_source"]
        );
        assert_eq!(
            ids(
                &from_here,
                &target(),
                &Options {
                    replace: true,
                    ..Options::default()
                }
            ),
            [""; 0]
        );
    }

    #[test]
    fn rights_are_asked_for_beforehand() {
        let mut poor = target();
        poor.facts.may_create_databases = false;
        poor.facts.owns_database = false;
        poor.facts.may_create_schemas = false;
        let replace = Options {
            replace: true,
            ..Options::default()
        };
        assert_eq!(
            ids(&needs(), &poor, &replace),
            ["rights_missing", "rights_missing"]
        );
        assert_eq!(
            ids(&needs(), &poor, &Options::default()),
            ["rights_missing"]
        );
        let wants = Needs {
            roles: vec!["anon".into()],
            ..needs()
        };
        let make = Options {
            create_missing_roles: true,
            ..Options::default()
        };
        assert_eq!(ids(&wants, &target(), &make), ["rights_missing"]);
        let none = Options {
            no_owner: true,
            no_privileges: true,
            ..Options::default()
        };
        assert_eq!(ids(&wants, &target(), &none), [""; 0]);
    }

    #[test]
    fn a_superusers_powers_are_asked_for() {
        let allowed = Options {
            allow_superuser: true,
            ..Options::default()
        };
        for (is_superuser, powers, says) in [
            (true, ["app"], "`app` is a superuser"),
            (false, ["app"], "`app` has CREATEROLE"),
            (false, ["boss"], "`app` may become `boss`"),
            (
                false,
                ["pg_execute_server_program"],
                "`app` has the powers of",
            ),
        ] {
            let mut strong = target();
            strong.facts.is_superuser = is_superuser;
            strong.facts.powers = powers.map(str::to_owned).to_vec();
            let problems = plan(&needs(), &strong, &Options::default()).unwrap_err();
            assert_eq!(problems[0].id, "superuser_refused");
            assert!(problems[0].text.starts_with(says), "{}", problems[0].text);
            let hint = problems[0].hint.as_deref().unwrap();
            assert!(hint.contains("--allow-superuser") && hint.contains("\"shop\" OWNER TO"));
            assert_eq!(ids(&needs(), &strong, &allowed), [""; 0]);
        }
    }

    #[test]
    fn the_platforms_own_schemas_do_not_count() {
        let mut there = target();
        there.facts.schemas = vec![SchemaFacts {
            name: "auth".into(),
            tables: 20,
            relations: 20,
        }];
        assert_eq!(
            ids(&needs(), &there, &Options::default()),
            ["target_not_empty"]
        );
        let owner = |name: &str, owner: &str| SchemaOwner {
            name: name.into(),
            owner: owner.into(),
            can_login: true,
            is_of_extension: false,
        };
        let preset = Options {
            preset: Some(Preset::Supabase),
            ..Options::default()
        };
        let replace = Options {
            replace: true,
            ..Options::default()
        };
        // Somebody's own schema, on a server that has such a role.
        there.facts.roles.push("supabase_admin".into());
        there.facts.schema_owners = vec![owner("auth", "app")];
        for options in [&Options::default(), &preset] {
            assert_eq!(ids(&needs(), &there, options), ["target_not_empty"]);
        }
        assert_eq!(ids(&needs(), &there, &replace), [""; 0]);
        there.facts.schema_owners = ["auth", "storage"]
            .map(|name| owner(name, "supabase_admin"))
            .to_vec();
        assert_eq!(
            ids(&needs(), &there, &Options::default()),
            ["target_not_empty"]
        );
        assert_eq!(ids(&needs(), &there, &preset), [""; 0]);
        assert_eq!(ids(&needs(), &there, &replace), ["platform_database"]);
        there.facts.is_superuser = true;
        assert_eq!(ids(&needs(), &there, &replace), [""; 0]);
    }
}

//! The whole config out of its tree: storages, then databases over their defaults, then who is told.
//!
//! Promises to go on after every problem, so that one reading shows them all.

use super::expand::Env;
use super::keys::{Key, Kind, key};
use super::reader::{Field, Fields, Reader};
use super::setting::{Group, Setting};
use super::tree::Node;
use super::types::{Config, Connection, DatabaseConfig, ROOT, SECTIONS, StorageConfig};
use super::{Problem, Unset, buckets, check};
use crate::id::DatabaseName;

/// Stands for the whole file.
static FILE: Key = key("", Kind::Section(&ROOT), "");

/// Reads all but what only servers need, which is told beside it where it is not there.
pub(super) fn config(root: &Node, env: &dyn Env) -> Result<(Config, Unset), Vec<Problem>> {
    let mut reader = Reader::new(env, SECTIONS, Connection::KEYS);
    let config = read_root(&mut reader, root);
    let (problems, unset) = reader.finish();
    match config {
        Some(config) if problems.is_empty() => Ok((config, unset)),
        _ => Err(unset.and(problems)),
    }
}

fn read_root(reader: &mut Reader, root: &Node) -> Option<Config> {
    let fields = reader.open(&Field::root(&FILE, root))?;
    let mut config = Config::default();
    (config.storages, reader.storages) = read_storages(reader, &fields);
    config.defaults.storages = reader.storages.clone();
    let defaults = fields.find("defaults");
    if let Some(fields) = defaults.and_then(|field| reader.open(field)) {
        read_database(reader, &fields, &mut config.defaults);
    }
    config.databases = read_databases(reader, &fields, &config.defaults);
    let names = config.databases.iter().map(|(name, _)| name.to_string());
    reader.databases = names.collect();
    config.postgres = Setting::read(reader, &fields, "postgres").unwrap_or_default();
    config.notify = Setting::read(reader, &fields, "notify").unwrap_or_default();
    config.sentry = Setting::read(reader, &fields, "sentry").unwrap_or_default();
    config.log = Setting::read(reader, &fields, "log").unwrap_or_default();
    config.lock = Setting::read(reader, &fields, "lock").unwrap_or_default();
    config.server = Setting::read(reader, &fields, "server").unwrap_or_default();
    Some(config)
}

// Databases.

fn read_databases(
    reader: &mut Reader,
    root: &Fields,
    defaults: &DatabaseConfig,
) -> Vec<(DatabaseName, DatabaseConfig)> {
    let mut databases = Vec::new();
    for field in named(reader, root, "databases") {
        let name = database_name(reader, &field);
        let Some(fields) = reader.open(&field) else {
            continue;
        };
        let mut database = defaults.clone();
        read_database(reader, &fields, &mut database);
        check::database(reader, &fields, &database);
        databases.extend(name.map(|name| (name, database)));
    }
    databases
}

fn database_name(reader: &mut Reader, field: &Field) -> Option<DatabaseName> {
    let name = field.name.parse();
    if name.is_err() {
        note_bad_name(reader, field);
    }
    name.ok()
}

/// Reads the keys that are given over those of `database`. A section or list replaces the whole of the other.
fn read_database(reader: &mut Reader, fields: &Fields, database: &mut DatabaseConfig) {
    check::settle_connection(reader, fields, &mut database.connection);
    database.read_all(reader, fields);
    check::settle_password(reader, fields, &mut database.connection);
}

// Storages.

/// Reads the storages that are good, and the names of all that are written.
fn read_storages(
    reader: &mut Reader,
    root: &Fields,
) -> (Vec<(String, StorageConfig)>, Vec<String>) {
    let mut storages = Vec::new();
    let mut names = Vec::new();
    for field in named(reader, root, "storages") {
        let name = field.name.to_owned();
        // The same grammar as for databases: both become parts of paths and messages.
        if name.parse::<DatabaseName>().is_err() {
            note_bad_name(reader, &field);
        }
        names.push(name.clone());
        if let Some(fields) = reader.open(&field) {
            let storage = StorageConfig::read_new(reader, &fields);
            buckets::check(&storage, reader, &fields);
            storages.push((name, storage));
        }
    }
    (storages, names)
}

/// Opens a mapping of free names, of which there must be one at least.
fn named<'n>(reader: &mut Reader, root: &Fields<'n>, key: &str) -> Vec<Field<'n>> {
    let Some(field) = root.find(key) else {
        reader.note_missing(root, key);
        return Vec::new();
    };
    let entries = reader.entries(field);
    if entries.as_ref().is_some_and(Vec::is_empty) {
        reader.refuse(field, "is empty");
    }
    entries.unwrap_or_default()
}

fn note_bad_name(reader: &mut Reader, field: &Field) {
    let rule = "a name has letters, digits, `_` and `-`, at most 128, and does not start with `-`";
    reader.refuse(field, format!("is not a good name: {rule}"));
}

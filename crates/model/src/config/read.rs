//! The meaning of each section: from keys to the typed config, and what keys demand of one another.
//!
//! Promises to go on after every problem, so that one reading shows them all. Takes names and limits from the
//! table of keys alone.

use secrecy::{ExposeSecret, SecretString};

use super::expand::Env;
use super::keys::{
    COMPRESSION, DATABASE, LOG, POSTGRES, REQUIRED_TABLE, RETENTION, RETRIES, ROOT, STORAGE,
};
use super::reader::{Field, Fields, Reader, join, shown};
use super::tree::{Node, Value};
use super::types::{
    Compression, CompressionMethod, Config, Connection, DatabaseConfig, LogConfig, PostgresConfig,
    Preset, RequiredTable, Retention, Retries, StorageConfig, StorageUrl,
};
use super::{Problem, drill, notify, url};
use crate::id::DatabaseName;
use crate::name::TableName;
use crate::nearest::did_you_mean;

/// Keys that say where a server is and that `url` says too.
const PARTS_OF_URL: [&str; 5] = ["host", "port", "user", "database", "service"];

/// Rules that keep ordinary backups; `keep_pre_deploy` keeps none of those.
const RULES_OF_RETENTION: [&str; 7] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within",
];

/// Reads the whole config out of its tree.
pub(super) fn config(root: &Node, env: &dyn Env) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::new(env);
    let config = read_root(&mut reader, root);
    let problems = reader.finish();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

fn read_root(reader: &mut Reader, root: &Node) -> Option<Config> {
    let fields = reader.open(root, root.line, "", &ROOT)?;
    let (storages, names) = read_storages(reader, &fields);
    let base = DatabaseConfig {
        storages: names.clone(),
        ..DatabaseConfig::default()
    };
    let defaults = match fields.find("defaults") {
        Some(field) => reader
            .open(field.node, field.line, &field.path, &DATABASE)
            .map(|fields| read_database(reader, &fields, base.clone(), &names))
            .unwrap_or(base),
        None => base,
    };
    let databases = read_databases(reader, &fields, &defaults, &names);
    let postgres = read_postgres(reader, &fields);
    let known: Vec<&str> = databases.iter().map(|(name, _)| name.as_str()).collect();
    let notify = notify::read(reader, &fields, &known);
    let log = read_log(reader, &fields);
    Some(Config {
        databases,
        storages,
        postgres,
        log,
        defaults,
        notify,
    })
}

fn read_postgres(reader: &mut Reader, root: &Fields) -> PostgresConfig {
    let fields = root
        .find("postgres")
        .and_then(|field| reader.open(field.node, field.line, &field.path, &POSTGRES));
    PostgresConfig {
        bin_dir: fields.and_then(|fields| reader.path(&fields, "bin_dir")),
    }
}

fn read_log(reader: &mut Reader, root: &Fields) -> LogConfig {
    let mut log = LogConfig::default();
    let fields = root
        .find("log")
        .and_then(|field| reader.open(field.node, field.line, &field.path, &LOG));
    if let Some(fields) = fields {
        log.file = reader.path(&fields, "file");
        set(&mut log.max_size_bytes, reader.size(&fields, "max_size"));
        set(&mut log.keep, reader.count(&fields, "keep"));
    }
    log
}

// Databases.

fn read_databases(
    reader: &mut Reader,
    root: &Fields,
    defaults: &DatabaseConfig,
    storages: &[String],
) -> Vec<(DatabaseName, DatabaseConfig)> {
    let mut databases = Vec::new();
    for field in named(reader, root, "databases") {
        let name = database_name(reader, &field);
        let Some(fields) = reader.open(field.node, field.line, &field.path, &DATABASE) else {
            continue;
        };
        let database = read_database(reader, &fields, defaults.clone(), storages);
        check_database(reader, &fields, &database);
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
fn read_database(
    reader: &mut Reader,
    fields: &Fields,
    mut database: DatabaseConfig,
    storages: &[String],
) -> DatabaseConfig {
    database.connection = read_connection(reader, fields, database.connection);
    read_selection(reader, fields, &mut database);
    read_limits(reader, fields, &mut database);
    set_some(
        &mut database.preset,
        reader.choice(fields, "preset").map(|_| Preset::Supabase),
    );
    set(
        &mut database.storages,
        read_storage_names(reader, fields, storages),
    );
    set_some(&mut database.copies, reader.count(fields, "copies"));
    set(&mut database.compression, read_compression(reader, fields));
    set(&mut database.retries, read_retries(reader, fields));
    set_some(&mut database.retention, read_retention(reader, fields));
    set(&mut database.drill, drill::read(reader, fields));
    database
}

fn read_selection(reader: &mut Reader, fields: &Fields, database: &mut DatabaseConfig) {
    set(
        &mut database.required_tables,
        read_required_tables(reader, fields),
    );
    set(&mut database.tables, reader.tables(fields, "tables"));
    set(
        &mut database.exclude_tables,
        reader.tables(fields, "exclude_tables"),
    );
    set(&mut database.schemas, reader.schemas(fields, "schemas"));
    set(
        &mut database.exclude_schemas,
        reader.schemas(fields, "exclude_schemas"),
    );
    set(
        &mut database.structure_only,
        reader.tables(fields, "structure_only"),
    );
    set(&mut database.globals, reader.flag(fields, "globals"));
    set(
        &mut database.allow_empty,
        reader.flag(fields, "allow_empty"),
    );
    set(
        &mut database.strict_warnings,
        reader.flag(fields, "strict_warnings"),
    );
}

fn read_limits(reader: &mut Reader, fields: &Fields, database: &mut DatabaseConfig) {
    set(
        &mut database.keep_runs,
        reader.duration(fields, "keep_runs"),
    );
    set(
        &mut database.lock_timeout,
        reader.duration_or_off(fields, "lock_timeout"),
    );
    set(
        &mut database.lock_wait_timeout,
        reader.duration(fields, "lock_wait_timeout"),
    );
    set(
        &mut database.stall_timeout,
        reader.duration_or_off(fields, "stall_timeout"),
    );
    set(
        &mut database.connect_timeout,
        reader.duration(fields, "connect_timeout"),
    );
    set_some(&mut database.max_age, reader.duration(fields, "max_age"));
}

/// Reads a connection over that of the defaults. A URL hides the parts that the defaults give, and parts hide
/// their URL, so that the server is always the one that the database itself names.
fn read_connection(reader: &mut Reader, fields: &Fields, base: Connection) -> Connection {
    let gives_url = fields.has("url") || fields.has("url_file");
    let gives_part = PARTS_OF_URL.iter().any(|part| fields.has(part));
    if gives_url {
        note_parts_beside_url(reader, fields);
    }
    let mut connection = match (gives_url, gives_part) {
        (true, _) => Connection {
            password: base.password,
            passfile: base.passfile,
            sslmode: base.sslmode,
            sslrootcert: base.sslrootcert,
            ..Connection::default()
        },
        (false, true) => Connection { url: None, ..base },
        (false, false) => base,
    };
    set_some(
        &mut connection.url,
        reader.secret(fields, "url", url::check_postgres),
    );
    set_some(&mut connection.host, reader.text(fields, "host"));
    set_some(&mut connection.port, reader.count(fields, "port"));
    set_some(&mut connection.user, reader.text(fields, "user"));
    set_some(&mut connection.database, reader.text(fields, "database"));
    set_some(
        &mut connection.password,
        reader.secret(fields, "password", |_| Ok(())),
    );
    set_some(&mut connection.passfile, reader.path(fields, "passfile"));
    set_some(&mut connection.service, reader.text(fields, "service"));
    set_some(
        &mut connection.sslmode,
        reader.choice(fields, "sslmode").map(str::to_owned),
    );
    set_some(
        &mut connection.sslrootcert,
        reader.path(fields, "sslrootcert"),
    );
    settle_password(reader, fields, &mut connection);
    connection
}

fn note_parts_beside_url(reader: &mut Reader, fields: &Fields) {
    for field in PARTS_OF_URL.iter().filter_map(|part| fields.find(part)) {
        reader.note(
            field.line,
            format!("`{}` cannot stand beside `url`", field.path),
        );
    }
}

/// Leaves one password at most: two in one section are a problem, and the URL's hides that of the defaults.
fn settle_password(reader: &mut Reader, fields: &Fields, connection: &mut Connection) {
    let url_has_one = connection
        .url
        .as_ref()
        .is_some_and(|url| url::has_password(url.expose_secret()));
    if !url_has_one {
        return;
    }
    match fields
        .find("password")
        .or_else(|| fields.find("password_file"))
    {
        Some(field) => reader.note(
            field.line,
            format!(
                "`{}` cannot stand beside a `url` with a password",
                field.path
            ),
        ),
        None => connection.password = None,
    }
}

fn read_required_tables(reader: &mut Reader, fields: &Fields) -> Option<Vec<RequiredTable>> {
    let field = fields.find("required_tables")?;
    reader.list(&field, |reader, item| match &item.value {
        Value::Map(_) => read_required_table(reader, item, &field.path),
        _ => reader
            .table(item, item.line, &field.path)
            .map(|table| RequiredTable {
                table,
                min_rows: None,
            }),
    })
}

fn read_required_table(reader: &mut Reader, item: &Node, path: &str) -> Option<RequiredTable> {
    let fields = reader.open(item, item.line, path, &REQUIRED_TABLE)?;
    let min_rows = reader.count(&fields, "min_rows");
    let Some(name) = fields.find("name") else {
        reader.note(item.line, format!("`{path}.name` is missing"));
        return None;
    };
    let table = reader.table(name.node, name.line, &name.path)?;
    Some(RequiredTable { table, min_rows })
}

fn read_storage_names(
    reader: &mut Reader,
    fields: &Fields,
    known: &[String],
) -> Option<Vec<String>> {
    let field = fields.find("storages")?;
    if matches!(&field.node.value, Value::List(items) if items.is_empty()) {
        reader.note(field.line, format!("`{}` names no storage", field.path));
    }
    let named = reader.list(&field, |reader, item| {
        let name = reader.value(item, item.line, &field.path, false, |text| {
            check_known(text, known)
        })?;
        Some((name, item.line))
    })?;
    let mut names: Vec<String> = Vec::new();
    for (name, line) in named {
        if names.contains(&name) {
            reader.note(
                line,
                format!("`{}` names `{}` twice", field.path, shown(&name)),
            );
        } else {
            names.push(name);
        }
    }
    Some(names)
}

/// Where the storages themselves are missing, that is the problem, and not each name.
fn check_known(name: &str, known: &[String]) -> Result<String, String> {
    if known.is_empty() || known.iter().any(|known| known == name) {
        return Ok(name.to_owned());
    }
    let advice = did_you_mean(name, known.iter().map(String::as_str));
    Err(format!("is not a storage of this file{advice}"))
}

fn read_compression(reader: &mut Reader, fields: &Fields) -> Option<Compression> {
    let field = fields.find("compression")?;
    if let Value::Text(_) = field.node.value {
        let method = method_of(reader.choice(fields, "compression")?);
        return Some(Compression {
            method,
            level: None,
        });
    }
    let fields = reader.open(field.node, field.line, &field.path, &COMPRESSION)?;
    let method = if fields.has("method") {
        method_of(reader.choice(&fields, "method")?)
    } else {
        CompressionMethod::default()
    };
    let level = reader.count::<u8>(&fields, "level");
    if level.is_some_and(|level| method.max_level().is_none_or(|max| level > max)) {
        let path = join(&fields.path, "level");
        let limit = method.max_level().map_or("has no levels".into(), |max| {
            format!("has levels from 1 to {max}")
        });
        reader.note(
            fields.line_of("level"),
            format!("`{path}` does not fit: `{}` {limit}", method.as_str()),
        );
    }
    Some(Compression { method, level })
}

fn method_of(name: &str) -> CompressionMethod {
    match name {
        "zstd" => CompressionMethod::Zstd,
        "none" => CompressionMethod::None,
        _ => CompressionMethod::Gzip,
    }
}

fn read_retries(reader: &mut Reader, fields: &Fields) -> Option<Retries> {
    let field = fields.find("retries")?;
    let fields = reader.open(field.node, field.line, &field.path, &RETRIES)?;
    let mut retries = Retries::default();
    set(&mut retries.attempts, reader.count(&fields, "attempts"));
    set(&mut retries.delay, reader.duration(&fields, "delay"));
    match reader.duration(&fields, "max_delay") {
        Some(max) if max < retries.delay => {
            let path = join(&fields.path, "max_delay");
            reader.note(
                fields.line_of("max_delay"),
                format!("`{path}` is shorter than `delay`"),
            );
        }
        Some(max) => retries.max_delay = max,
        // A long first wait alone moves the limit along.
        None => retries.max_delay = retries.max_delay.max(retries.delay),
    }
    Some(retries)
}

fn read_retention(reader: &mut Reader, fields: &Fields) -> Option<Retention> {
    let field = fields.find("retention")?;
    let fields = reader.open(field.node, field.line, &field.path, &RETENTION)?;
    if !RULES_OF_RETENTION.iter().any(|rule| fields.has(rule)) {
        let advice =
            "give at least one rule such as `keep_daily: 7`, or leave `retention` out to keep all";
        reader.note(
            field.line,
            format!("`{}` keeps nothing; {advice}", field.path),
        );
    }
    let mut retention = Retention {
        keep_last: reader.count(&fields, "keep_last"),
        keep_hourly: reader.count(&fields, "keep_hourly"),
        keep_daily: reader.count(&fields, "keep_daily"),
        keep_weekly: reader.count(&fields, "keep_weekly"),
        keep_monthly: reader.count(&fields, "keep_monthly"),
        keep_yearly: reader.count(&fields, "keep_yearly"),
        keep_within: reader.span(&fields, "keep_within"),
        keep_pre_deploy: reader.count_or_span(&fields, "keep_pre_deploy"),
        ..Retention::default()
    };
    set(
        &mut retention.timezone,
        reader.timezone(&fields, "timezone"),
    );
    Some(retention)
}

/// Checks what only the finished database shows.
fn check_database(reader: &mut Reader, fields: &Fields, database: &DatabaseConfig) {
    let c = &database.connection;
    let names_server =
        c.url.is_some() || c.host.is_some() || c.service.is_some() || c.database.is_some();
    let tried = ["url", "url_file", "host", "service", "database"]
        .iter()
        .any(|key| fields.has(key));
    if !names_server && !tried {
        let path = &fields.path;
        reader.note(
            fields.line,
            format!("`{path}` names no server: give `url`, or `host` and `database`, or `service`"),
        );
    }
    let storages = database.storages.len();
    if let Some(copies) = database
        .copies
        .filter(|copies| storages > 0 && *copies > storages)
    {
        let message = format!(
            "`{}` asks for {copies} copies and has {storages} storages",
            fields.path
        );
        reader.note(fields.line_of("copies"), message);
    }
    for required in &database.required_tables {
        check_required(reader, fields, database, &required.table);
    }
}

/// A required table that the selection leaves out would fail every run, and only at the end of it.
fn check_required(
    reader: &mut Reader,
    fields: &Fields,
    database: &DatabaseConfig,
    table: &TableName,
) {
    let is_same = |other: &TableName| {
        other.name == table.name && other.schema_or_public() == table.schema_or_public()
    };
    let schema = table.schema_or_public();
    let left_out_by = if database.exclude_tables.iter().any(is_same) {
        "exclude_tables"
    } else if database.exclude_schemas.iter().any(|other| other == schema) {
        "exclude_schemas"
    } else {
        return;
    };
    let path = join(&fields.path, "required_tables");
    // The names may come from the environment, which messages do not show.
    reader.note(
        fields.line_of(left_out_by),
        format!("`{path}` holds a table that `{left_out_by}` leaves out"),
    );
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
        let fields = reader.open(field.node, field.line, &field.path, &STORAGE);
        let storage = fields.and_then(|fields| read_storage(reader, &fields));
        storages.extend(storage.map(|storage| (name, storage)));
    }
    (storages, names)
}

fn read_storage(reader: &mut Reader, fields: &Fields) -> Option<StorageConfig> {
    let url = read_storage_url(reader, fields);
    if let Some(StorageUrl::Folder(_)) = url {
        note_keys_of_s3(reader, fields);
    }
    let mut storage = StorageConfig::new(url.clone().unwrap_or(StorageUrl::Folder("".into())));
    storage.endpoint = read_endpoint(reader, fields);
    storage.region = reader.text(fields, "region");
    storage.path_style = reader.flag(fields, "path_style");
    storage.access_key_id = reader.secret(fields, "access_key_id", |_| Ok(()));
    storage.secret_access_key = reader.secret(fields, "secret_access_key", |_| Ok(()));
    storage.session_token = reader.secret(fields, "session_token", |_| Ok(()));
    storage.credential_command = read_command(reader, fields).unwrap_or_default();
    storage.part_size_bytes = reader.size(fields, "part_size");
    storage.ca_certificate = reader.path(fields, "ca_certificate");
    check_credentials(reader, fields);
    url.map(|_| storage)
}

fn read_storage_url(reader: &mut Reader, fields: &Fields) -> Option<StorageUrl> {
    if !fields.has("url") {
        reader.note(
            fields.line,
            format!("`{}` is missing", join(&fields.path, "url")),
        );
    }
    let text = reader.text(fields, "url")?;
    match text.parse() {
        Ok(url) => Some(url),
        Err(why) => {
            reader.note(
                fields.line_of("url"),
                format!("`{}` {why}", join(&fields.path, "url")),
            );
            None
        }
    }
}

fn note_keys_of_s3(reader: &mut Reader, fields: &Fields) {
    for field in STORAGE
        .keys
        .iter()
        .filter(|key| key.name != "url")
        .filter_map(|key| fields.find(key.name))
    {
        reader.note(
            field.line,
            format!("`{}` is only for `s3://` storages", field.path),
        );
    }
}

fn read_endpoint(reader: &mut Reader, fields: &Fields) -> Option<String> {
    let text = reader.text(fields, "endpoint")?;
    match url::check_endpoint(&text) {
        Ok(()) => Some(text),
        Err(why) => {
            reader.note(
                fields.line_of("endpoint"),
                format!("`{}` {why}", join(&fields.path, "endpoint")),
            );
            None
        }
    }
}

fn read_command(reader: &mut Reader, fields: &Fields) -> Option<Vec<SecretString>> {
    let field = fields.find("credential_command")?;
    match &field.node.value {
        Value::List(items) if !items.is_empty() => {
            let texts = reader.texts(&field)?;
            Some(texts.into_iter().map(SecretString::from).collect())
        }
        _ => {
            let form = "a list of a program and its arguments, such as `[aws-vault, print]`; no shell reads it";
            reader.note(field.line, format!("`{}` must be {form}", field.path));
            None
        }
    }
}

/// Credentials come from one place, and whole.
fn check_credentials(reader: &mut Reader, fields: &Fields) {
    let given = |name: &str| {
        fields
            .find(name)
            .or_else(|| fields.find(&format!("{name}_file")))
    };
    let id = given("access_key_id");
    let secret = given("secret_access_key");
    if let (Some(field), None) | (None, Some(field)) = (&id, &secret) {
        let other = if id.is_some() {
            "secret_access_key"
        } else {
            "access_key_id"
        };
        reader.note(
            field.line,
            format!("`{}` needs `{other}` beside it", field.path),
        );
    }
    if let (Some(token), None, None) = (given("session_token"), &id, &secret) {
        reader.note(
            token.line,
            format!("`{}` needs `access_key_id` beside it", token.path),
        );
    }
    if let (Some(command), Some(_)) = (fields.find("credential_command"), id.or(secret)) {
        reader.note(
            command.line,
            format!("`{}` cannot stand beside an access key", command.path),
        );
    }
}

// Parts of several sections.

/// Opens a mapping of free names, of which there must be one at least.
fn named<'n>(reader: &mut Reader, root: &Fields<'n>, key: &str) -> Vec<Field<'n>> {
    let Some(field) = root.find(key) else {
        reader.note(root.line, format!("`{key}` is missing"));
        return Vec::new();
    };
    let Some(entries) = reader.entries(field.node, field.line, &field.path) else {
        return Vec::new();
    };
    if entries.is_empty() {
        reader.note(field.line, format!("`{key}` is empty"));
    }
    let fields = entries.into_iter().map(|entry| Field {
        key: field.key,
        name: &entry.key,
        path: join(&field.path, &entry.key),
        line: entry.line,
        node: &entry.node,
    });
    fields.collect()
}

fn note_bad_name(reader: &mut Reader, field: &Field) {
    let rule = "a name has letters, digits, `_` and `-`, at most 128, and does not start with `-`";
    reader.note(
        field.line,
        format!("`{}` is not a good name: {rule}", field.path),
    );
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn set_some<T>(place: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *place = value;
    }
}

//! The effective config: what is in force after defaults and variables, for people (YAML) and programs (JSON).
//!
//! Promises that no secret is shown: passwords and keys are `***`, URLs lose theirs, and of a credential command
//! only the program is shown. The YAML reads back as the same config.

use jiff::Span;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::notify;
use super::reader::show_duration;
use super::shown::{HIDDEN, Keys, Shown};
use super::types::{
    Compression, Config, Connection, DatabaseConfig, DrillConfig, KeepPreDeploy, RequiredTable,
    Retention, Retries, StorageConfig,
};
use super::url::redact;
use crate::drill::{Assertion, Question};
use crate::name::{TableName, quote_if_needed};

impl Config {
    /// Returns the effective config as JSON, without secrets.
    pub fn effective(&self) -> Value {
        config(self).to_json()
    }

    /// Returns the effective config as YAML, without secrets and with the keys in the order of the example.
    pub fn effective_yaml(&self) -> String {
        let mut yaml = String::new();
        config(self).write_yaml(&mut yaml, 0);
        yaml
    }
}

fn config(config: &Config) -> Shown {
    let mut databases = Keys::default();
    for (name, database) in &config.databases {
        databases.put(name.as_str(), show_database(database));
    }
    let mut storages = Keys::default();
    for (name, storage) in &config.storages {
        storages.put(name, show_storage(storage));
    }
    let mut keys = Keys::default();
    keys.put("databases", databases);
    keys.put("storages", storages);
    if let Some(bin_dir) = &config.postgres.bin_dir {
        let mut postgres = Keys::default();
        postgres.put("bin_dir", bin_dir.display().to_string());
        keys.put("postgres", postgres);
    }
    keys.put_list("notify", &config.notify, notify::show);
    if let Some(file) = &config.log.file {
        let mut log = Keys::default();
        log.put("file", file.display().to_string());
        log.put("max_size", show_size(config.log.max_size_bytes));
        log.put("keep", u64::from(config.log.keep));
        keys.put("log", log);
    }
    keys.into()
}

fn show_database(database: &DatabaseConfig) -> Keys {
    let mut keys = Keys::default();
    put_connection(&mut keys, &database.connection);
    keys.put_some(
        "preset",
        database.preset.map(|preset| preset.as_str().to_owned()),
    );
    keys.put_list("required_tables", &database.required_tables, show_required);
    keys.put_list("storages", &database.storages, |name| name.clone().into());
    keys.put_some("copies", database.copies.map(|copies| copies as u64));
    keys.put_list("tables", &database.tables, show_table);
    keys.put_list("exclude_tables", &database.exclude_tables, show_table);
    keys.put_list("schemas", &database.schemas, |name| {
        quote_if_needed(name).into()
    });
    keys.put_list("exclude_schemas", &database.exclude_schemas, |name| {
        quote_if_needed(name).into()
    });
    keys.put_list("structure_only", &database.structure_only, show_table);
    keys.put("compression", show_compression(database.compression));
    keys.put("globals", database.globals);
    keys.put("keep_runs", show_duration(database.keep_runs));
    keys.put(
        "lock_timeout",
        database.lock_timeout.map_or("off".into(), show_duration),
    );
    keys.put(
        "lock_wait_timeout",
        show_duration(database.lock_wait_timeout),
    );
    keys.put(
        "stall_timeout",
        database.stall_timeout.map_or("off".into(), show_duration),
    );
    keys.put("connect_timeout", show_duration(database.connect_timeout));
    keys.put("retries", show_retries(database.retries));
    keys.put("allow_empty", database.allow_empty);
    keys.put("strict_warnings", database.strict_warnings);
    keys.put_some("max_age", database.max_age.map(show_duration));
    keys.put_some("retention", database.retention.as_ref().map(show_retention));
    let drill = show_drill(&database.drill);
    keys.put_some("drill", (!drill.is_empty()).then_some(drill));
    keys
}

fn show_drill(drill: &DrillConfig) -> Keys {
    let mut keys = Keys::default();
    let url = drill.url.as_ref();
    keys.put_some("url", url.map(|url| redact(url.expose_secret())));
    if drill.allow_superuser {
        keys.put("allow_superuser", true);
    }
    keys.put_list("skip_extensions", &drill.skip_extensions, |name| {
        name.clone().into()
    });
    let max_age = drill.max_age;
    keys.put_some(
        "max_age",
        max_age.map(|age| age.map_or("off".into(), show_duration)),
    );
    keys.put_list("assertions", &drill.assertions, show_assertion);
    keys
}

fn show_assertion(assertion: &Assertion) -> Shown {
    let mut keys = Keys::default();
    keys.put("name", assertion.name.clone());
    match &assertion.question {
        Question::Sql { sql, expect } => {
            keys.put("sql", sql.clone());
            keys.put("expect", expect.to_string());
        }
        // Arguments may hold a secret; the program says enough.
        Question::Command(command) => {
            let shown: Vec<&str> = command.iter().enumerate().map(hide_arguments).collect();
            keys.put_list("command", &shown, |text| (*text).to_owned().into());
        }
    }
    keys.into()
}

fn put_connection(keys: &mut Keys, connection: &Connection) {
    keys.put_some(
        "url",
        connection
            .url
            .as_ref()
            .map(|url| redact(url.expose_secret())),
    );
    keys.put_some("host", connection.host.clone());
    keys.put_some("port", connection.port.map(u64::from));
    keys.put_some("user", connection.user.clone());
    keys.put_some("database", connection.database.clone());
    keys.put_secret("password", &connection.password);
    keys.put_some(
        "passfile",
        connection
            .passfile
            .as_ref()
            .map(|path| path.display().to_string()),
    );
    keys.put_some("service", connection.service.clone());
    keys.put_some("sslmode", connection.sslmode.clone());
    keys.put_some(
        "sslrootcert",
        connection
            .sslrootcert
            .as_ref()
            .map(|path| path.display().to_string()),
    );
}

fn show_table(table: &TableName) -> Shown {
    table.to_string().into()
}

fn show_required(required: &RequiredTable) -> Shown {
    let Some(min_rows) = required.min_rows else {
        return show_table(&required.table);
    };
    let mut keys = Keys::default();
    keys.put("name", show_table(&required.table));
    keys.put("min_rows", min_rows);
    keys.into()
}

fn show_compression(compression: Compression) -> Keys {
    let mut keys = Keys::default();
    keys.put("method", compression.method.as_str().to_owned());
    keys.put_some("level", compression.level_in_force().map(u64::from));
    keys
}

fn show_retries(retries: Retries) -> Keys {
    let mut keys = Keys::default();
    keys.put("attempts", u64::from(retries.attempts));
    keys.put("delay", show_duration(retries.delay));
    keys.put("max_delay", show_duration(retries.max_delay));
    keys
}

fn show_retention(retention: &Retention) -> Keys {
    let mut keys = Keys::default();
    for (key, count) in [
        ("keep_last", retention.keep_last),
        ("keep_hourly", retention.keep_hourly),
        ("keep_daily", retention.keep_daily),
        ("keep_weekly", retention.keep_weekly),
        ("keep_monthly", retention.keep_monthly),
        ("keep_yearly", retention.keep_yearly),
    ] {
        keys.put_some(key, count.map(u64::from));
    }
    keys.put_some("keep_within", retention.keep_within.map(show_span));
    keys.put_some(
        "keep_pre_deploy",
        retention.keep_pre_deploy.as_ref().map(show_pre_deploy),
    );
    let zone = retention.timezone.iana_name().unwrap_or("UTC");
    keys.put("timezone", zone.to_owned());
    keys
}

fn show_pre_deploy(keep: &KeepPreDeploy) -> Shown {
    match keep {
        KeepPreDeploy::Last(count) => u64::from(*count).into(),
        KeepPreDeploy::Within(span) => show_span(*span).into(),
    }
}

fn show_span(span: Span) -> String {
    format!("{span:#}")
}

fn show_storage(storage: &StorageConfig) -> Keys {
    let mut keys = Keys::default();
    keys.put("url", storage.url.to_string());
    // The other keys are refused for a folder.
    if let super::StorageUrl::Folder(_) = storage.url {
        return keys;
    }
    keys.put_some("endpoint", storage.endpoint.clone());
    keys.put_some("region", storage.region.clone());
    keys.put_some("path_style", storage.path_style);
    keys.put_secret("access_key_id", &storage.access_key_id);
    keys.put_secret("secret_access_key", &storage.secret_access_key);
    keys.put_secret("session_token", &storage.session_token);
    // Arguments may hold a secret; the program says enough.
    let command: Vec<&str> = storage
        .credential_command
        .iter()
        .enumerate()
        .map(hide_arguments)
        .collect();
    keys.put_list("credential_command", &command, |text| {
        (*text).to_owned().into()
    });
    keys.put_some("part_size", storage.part_size_bytes.map(show_size));
    keys.put_some(
        "ca_certificate",
        storage
            .ca_certificate
            .as_ref()
            .map(|path| path.display().to_string()),
    );
    keys
}

fn hide_arguments((at, text): (usize, &SecretString)) -> &str {
    if at == 0 {
        text.expose_secret()
    } else {
        HIDDEN
    }
}

/// Writes a size without rounding it.
fn show_size(bytes: u64) -> String {
    match (bytes % (1 << 20), bytes % (1 << 10)) {
        (0, _) => format!("{}MiB", bytes >> 20),
        (_, 0) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

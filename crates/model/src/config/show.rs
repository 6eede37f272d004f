//! The effective config: what is in force after defaults and variables, for people (YAML) and programs (JSON).
//!
//! Promises that no secret is shown: passwords and keys are `***`, URLs lose theirs, and of a credential command
//! only the program is shown. The YAML reads back as the same config.

use serde_json::Value;

use super::setting::{Group, Item};
use super::shown::{Keys, Shown};
use super::types::{Config, SentryConfig, ServerConfig};

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
        databases.put(name.as_str(), database.shown());
    }
    let mut storages = Keys::default();
    for (name, storage) in &config.storages {
        storages.put(name, storage.shown());
    }
    let shown = |keys: Keys| Shown::from(keys).to_json();
    let mut keys = Keys::default();
    keys.put("databases", databases);
    keys.put("storages", storages);
    let postgres = config.postgres.shown();
    keys.put_some("postgres", (!postgres.is_empty()).then_some(postgres));
    keys.put_list("notify", &config.notify, Item::show);
    let is_usual = shown(config.sentry.shown()) == shown(SentryConfig::default().shown());
    keys.put_some("sentry", (!is_usual).then(|| config.sentry.shown()));
    let is_logged = config.log.file.is_some();
    keys.put_some("log", is_logged.then(|| config.log.shown()));
    let is_placed = config.lock.storage.is_some();
    keys.put_some("lock", is_placed.then(|| config.lock.shown()));
    let is_usual = shown(config.server.shown()) == shown(ServerConfig::default().shown());
    keys.put_some("server", (!is_usual).then(|| config.server.shown()));
    keys.into()
}

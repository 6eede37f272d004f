//! Secrets of the environment and of the configuration, found so that they can be hidden.

use std::collections::HashMap;
use std::ffi::OsString;

use secrecy::{ExposeSecret, SecretString};

use crate::notify::secret_forms;
use pgkeep_model::config::Config;
use pgkeep_model::connection::Connection;

/// Variables whose values are secrets, whoever set them.
const SECRET_VARIABLES: [&str; 3] = ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Parts of the names of variables that hold secrets. What is hidden too much does no harm.
const SECRET_NAMES: [&str; 6] = ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"];

/// Returns the secrets of the environment, the passwords of its URLs among them, and every value that may be one by the
/// name of its variable.
pub(super) fn secrets_of_environment(
    environment: &HashMap<OsString, OsString>,
) -> (Vec<SecretString>, Vec<SecretString>) {
    let (mut known, mut guessed) = (Vec::new(), Vec::new());
    for (name, value) in environment {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        let upper = name.to_uppercase();
        if SECRET_VARIABLES.contains(&name) {
            known.push(value.into());
        } else if SECRET_NAMES.iter().any(|part| upper.contains(part)) {
            guessed.push(value.into());
        } else if value.contains("://") {
            let connection = value.parse::<Connection>().ok();
            known.extend(connection.and_then(|connection| connection.password().cloned()));
        }
    }
    (known, guessed)
}

/// Every secret that stands in the configuration.
pub(super) fn secrets(config: &Config) -> Vec<String> {
    let databases = config
        .databases
        .iter()
        .map(|(_, database)| &database.connection);
    let passwords = databases.filter_map(|keys| {
        let in_url = keys
            .url
            .as_ref()
            .and_then(|url| url.expose_secret().parse::<Connection>().ok());
        in_url
            .and_then(|connection| connection.password().cloned())
            .or_else(|| keys.password.clone())
    });
    let keys = config.storages.iter().flat_map(|(_, storage)| {
        [
            storage.secret_access_key.clone(),
            storage.session_token.clone(),
        ]
        .into_iter()
        .flatten()
    });
    let notifiers = config.notify.iter().flat_map(secret_forms);
    let drills = config.databases.iter().filter_map(|(_, database)| {
        let url = database.drill.url.as_ref()?;
        let connection = url.expose_secret().parse::<Connection>().ok()?;
        connection.password().cloned()
    });
    passwords
        .chain(keys)
        .chain(notifiers)
        .chain(drills)
        .map(|secret| secret.expose_secret().to_owned())
        .filter(|secret| !secret.is_empty())
        .collect()
}

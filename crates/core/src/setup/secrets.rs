//! Secrets of the environment and of the configuration, found so that they can be hidden.

use std::collections::HashMap;
use std::ffi::OsString;

use secrecy::{ExposeSecret, SecretString};

use crate::notify::secret_forms;
use pgkeep_model::config::Config;
use pgkeep_model::connection::Connection;
use pgkeep_model::redact::percent_decoded;

/// Variables whose values are secrets, whoever set them.
const SECRET_VARIABLES: [&str; 14] = [
    "PGPASSWORD",
    "SENTRY_DSN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
];

/// Variables that name a file with a secret in it. Its place is said where it cannot be read.
const NAMES_OF_FILES: [&str; 3] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// Parts of the names of variables that hold secrets. What is hidden too much does no harm.
const SECRET_NAMES: [&str; 6] = ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"];

/// What is secret in the JSON of a login for Google Cloud.
const SECRETS_OF_LOGINS: [&str; 3] = ["private_key", "client_secret", "refresh_token"];

/// Shorter lines of a private key would match by accident.
const MIN_LINE: usize = 16;

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
            known.extend(forms_of(value).map(SecretString::from));
            known.extend(key_of_dsn(value).map(SecretString::from));
        } else if NAMES_OF_FILES.contains(&name) {
            continue;
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
        let all = [
            &storage.secret_access_key,
            &storage.session_token,
            &storage.service_account,
            &storage.account_key,
            &storage.sas_token,
            &storage.access_token,
            &storage.client_secret,
        ];
        let given = all.into_iter().flatten();
        given.flat_map(|secret| forms_of(secret.expose_secret()).map(SecretString::from))
    });
    let notifiers = config.notify.iter().flat_map(secret_forms);
    let drills = config.databases.iter().filter_map(|(_, database)| {
        let url = database.drill.url.as_ref()?;
        let connection = url.expose_secret().parse::<Connection>().ok()?;
        connection.password().cloned()
    });
    let dsn = config.sentry.dsn.iter();
    let tracked = dsn.flat_map(|dsn| {
        let key = key_of_dsn(dsn.expose_secret()).map(SecretString::from);
        key.into_iter().chain([dsn.clone()])
    });
    let server = &config.server;
    let tokens = server.tokens.iter().map(|token| &token.token);
    let others = [&server.view_key, &server.cron.secret];
    let served = tokens.chain(others.into_iter().flatten()).cloned();
    passwords
        .chain(keys)
        .chain(served)
        .chain(tracked)
        .chain(notifiers)
        .chain(drills)
        .map(|secret| secret.expose_secret().to_owned())
        .filter(|secret| !secret.is_empty())
        .collect()
}

/// Returns the key in a DSN of Sentry, which is sent without the rest; what is too short would match by accident.
fn key_of_dsn(text: &str) -> Option<String> {
    let (_, behind) = text.split_once("://")?;
    let (key, _) = behind.split_once('@')?;
    (key.len() >= MIN_LINE).then(|| key.to_owned())
}

/// Returns a secret and what in it is one by itself: the signature of a SAS token, which a URL may hold without the rest,
/// and what is secret in the JSON of a login.
pub(super) fn forms_of(secret: &str) -> impl Iterator<Item = String> {
    let pairs = secret.split(['?', '&']);
    let signatures = pairs
        .filter_map(|pair| pair.strip_prefix("sig="))
        .flat_map(|signature| [signature.to_owned(), percent_decoded(signature)]);
    let json = serde_json::from_str::<serde_json::Value>(secret).unwrap_or_default();
    let held = SECRETS_OF_LOGINS.iter().filter_map(|name| json.get(name));
    let keys: Vec<String> = held
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect();
    let lines: Vec<String> = keys
        .iter()
        .flat_map(|key| key.lines())
        .filter(|line| line.len() >= MIN_LINE && !line.starts_with("-----"))
        .map(str::to_owned)
        .collect();
    let parts: Vec<String> = signatures.chain(keys.clone()).chain(lines).collect();
    parts.into_iter().chain([secret.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_in_a_secret_is_found() {
        let sas = "?sv=2023&sp=r&sig=ab%2Fcd%3D";
        let forms: Vec<String> = forms_of(sas).collect();
        assert_eq!(forms, ["ab%2Fcd%3D", "ab/cd=", sas]);
        let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC";
        let json = format!(
            r#"{{"private_key": "-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n"}}"#
        );
        assert!(forms_of(&json).any(|form| form == line));
        assert_eq!(forms_of("plain").collect::<Vec<_>>(), ["plain"]);
    }

    #[test]
    fn the_key_of_a_dsn_is_hidden_by_itself() {
        let dsn = "https://0123456789abcdef0123456789abcdef@o1.ingest.sentry.io/42";
        let key = key_of_dsn(dsn).unwrap();
        assert_eq!(key, "0123456789abcdef0123456789abcdef");
        assert_eq!(key_of_dsn("https://sentry.example/42"), None);
        assert_eq!(key_of_dsn("https://key@sentry.example/42"), None);
    }

    #[test]
    fn a_file_with_a_secret_may_be_named() {
        let variables = [
            ("GOOGLE_APPLICATION_CREDENTIALS", "/run/key.json"),
            ("AZURE_STORAGE_SAS_TOKEN", "sv=x&sig=y1234"),
        ];
        let environment = variables.map(|(name, value)| (name.into(), value.into()));
        let (known, guessed) = secrets_of_environment(&HashMap::from(environment));
        let known: Vec<&str> = known.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(
            (known, guessed.len()),
            (vec!["y1234", "y1234", "sv=x&sig=y1234"], 0)
        );
    }
}

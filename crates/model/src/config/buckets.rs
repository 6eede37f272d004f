//! The keys of a storage as a whole: which kind of storage each is for, and that a login comes from one place and is whole.

use super::reader::{Fields, Reader};
use super::setting::Group;
use super::types::{StorageConfig, StorageUrl};

/// Keys of a storage of any kind.
const KEYS_OF_ALL: [&str; 2] = ["url", "append_only"];

const ALL: &[&str] = &["s3", "gs", "az"];
const S3: &[&str] = &["s3"];
const GCS: &[&str] = &["gs"];
const AZURE: &[&str] = &["az"];
const TOKENS: &[&str] = &["gs", "az"];

/// Returns the schemes of the storages that a key is for.
fn schemes(key: &str) -> &'static [&'static str] {
    match key.strip_suffix("_file").unwrap_or(key) {
        "region" | "path_style" | "access_key_id" | "secret_access_key" | "session_token" => S3,
        "service_account" => GCS,
        "access_token" | "anonymous" => TOKENS,
        "account" | "account_key" | "sas_token" | "client_id" | "client_secret" | "tenant_id"
        | "federated_token" | "authority_host" | "use_azure_cli" => AZURE,
        _ => ALL,
    }
}

/// Checks a storage as a whole.
pub(super) fn check(storage: &StorageConfig, reader: &mut Reader, fields: &Fields) {
    // An empty one stands for a `url` that is no good, which is a problem of its own.
    let is_known = !matches!(&storage.url, StorageUrl::Folder(path) if path.as_os_str().is_empty());
    if is_known {
        note_keys_of_others(storage.url.scheme(), reader, fields);
    }
    keys_of_s3(reader, fields);
    application(reader, fields);
    one_login(storage, reader, fields);
}

fn note_keys_of_others(scheme: &str, reader: &mut Reader, fields: &Fields) {
    for field in StorageConfig::KEYS
        .iter()
        .filter(|key| !KEYS_OF_ALL.contains(&key.name))
        .filter_map(|key| fields.find(key.name))
    {
        let schemes = schemes(field.key.name);
        if !schemes.contains(&scheme) {
            reader.refuse(field, format!("is only for {} storages", list(schemes)));
        }
    }
}

fn list(schemes: &[&str]) -> String {
    let named: Vec<String> = schemes.iter().map(|one| format!("`{one}://`")).collect();
    match named.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => named.concat(),
    }
}

/// An access key is whole.
fn keys_of_s3(reader: &mut Reader, fields: &Fields) {
    let given = |name| fields.find_or_file(name);
    let id = given("access_key_id");
    let secret = given("secret_access_key");
    if let (Some(field), None) | (None, Some(field)) = (&id, &secret) {
        let other = if id.is_some() {
            "secret_access_key"
        } else {
            "access_key_id"
        };
        reader.refuse(field, format!("needs `{other}` as well"));
    }
    if let (Some(token), None, None) = (given("session_token"), &id, &secret) {
        reader.refuse(token, "needs `access_key_id` as well");
    }
    if let (Some(command), Some(_)) = (fields.find("credential_command"), id.or(secret)) {
        reader.refuse(command, "cannot be combined with an access key");
    }
}

/// An application of Azure is whole: by itself an id is a managed identity.
fn application(reader: &mut Reader, fields: &Fields) {
    let secret = fields.find_or_file("client_secret");
    let file = fields.find("federated_token_file");
    if let (Some(_), Some(file)) = (secret, file) {
        reader.refuse(file, "cannot be combined with `client_secret`");
    }
    if let Some(field) = secret.or(file) {
        for needed in ["client_id", "tenant_id"] {
            if !fields.has(needed) {
                reader.refuse(field, format!("needs `{needed}` as well"));
            }
        }
    } else if let Some(tenant) = fields.find("tenant_id") {
        let why = "needs `client_secret` or `federated_token_file` as well";
        reader.refuse(tenant, why);
    }
}

/// Of several ways to log in nobody would know which one is used.
fn one_login(storage: &StorageConfig, reader: &mut Reader, fields: &Fields) {
    let flag = |name, is_on: Option<bool>| fields.find(name).filter(|_| is_on == Some(true));
    let ways = [
        fields.find_or_file("service_account"),
        fields.find_or_file("account_key"),
        fields.find_or_file("sas_token"),
        fields.find_or_file("access_token"),
        fields.find("client_id"),
        flag("use_azure_cli", storage.use_azure_cli),
        flag("anonymous", storage.anonymous),
        fields.find("credential_command"),
    ];
    let mut given = ways.into_iter().flatten();
    let Some(first) = given.next() else { return };
    for other in given {
        let why = format!("cannot be combined with `{}`", first.key.name);
        reader.refuse(other, why);
    }
}

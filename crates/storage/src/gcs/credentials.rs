//! Who signs requests to GCS: what the configuration says, else the environment, `gcloud`'s own login, or the machine's.
//!
//! Files with logins are read here and judged by their kind, because messages of others would quote what is in them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::cloud::environment::CloudEnvironment;
use crate::cloud::source::{CredentialSource, Printed, SourceProvider, parse_token};
use crate::{Error, Result};

/// Where the credentials of a GCS storage come from.
#[derive(Clone, Debug, Default)]
pub enum GcsCredentials {
    /// The variables that start with `GOOGLE_`, the login that `gcloud auth application-default login` leaves, or the
    /// metadata server of the machine.
    #[default]
    Environment,
    /// The JSON of a service account's key.
    ServiceAccount(SecretString),
    /// A bearer token, which is never renewed.
    Token(SecretString),
    /// Whatever token this source prints.
    Source(Arc<dyn CredentialSource>),
    /// Nobody: requests are not signed.
    Anonymous,
}

/// Who signs, found.
pub(super) struct Login {
    kind: Kind,
    words: String,
}

enum Kind {
    ServiceAccount(ServiceAccount),
    /// The login of a person, in a file that object_store reads.
    Person(PathBuf),
    Token(SecretString),
    Source(Arc<dyn CredentialSource>),
    Metadata,
    Anonymous,
}

struct ServiceAccount {
    json: SecretString,
    /// The address of an emulator, which takes any login.
    emulator: Option<String>,
}

/// Files of logins by their variables, the most specific one first.
const FILES: [&str; 3] = [
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// Where `gcloud auth application-default login` leaves a login, below its folder.
const USUAL_FILE: &str = "application_default_credentials.json";

impl GcsCredentials {
    /// Names the files that may hold the login, as the environment says; they need not be there.
    pub fn files(environment: &CloudEnvironment) -> Vec<PathBuf> {
        let named = FILES.iter().filter_map(|name| environment.get(name));
        named
            .map(PathBuf::from)
            .chain(usual_file(environment))
            .collect()
    }

    /// Finds out who signs; reads the file that holds the login, if it is one.
    pub(super) fn resolve(&self, environment: &CloudEnvironment) -> Result<Login> {
        let login = |kind, words: &str| Login {
            kind,
            words: words.to_owned(),
        };
        Ok(match self {
            Self::Environment => return in_environment(environment),
            Self::ServiceAccount(json) => {
                let name = "`service_account` of the configuration";
                return parse(json, name, None);
            }
            Self::Token(token) => login(
                Kind::Token(token.clone()),
                "`access_token` of the configuration",
            ),
            Self::Source(source) => login(Kind::Source(Arc::clone(source)), source.words()),
            Self::Anonymous => login(Kind::Anonymous, "nobody: requests are not signed"),
        })
    }
}

fn in_environment(environment: &CloudEnvironment) -> Result<Login> {
    let login = |kind, words: String| Ok(Login { kind, words });
    if let Some((name, token)) = environment.first(&["GOOGLE_BEARER_TOKEN"]) {
        return login(Kind::Token(token.into()), format!("the token in `{name}`"));
    }
    if let Some((name, json)) = environment.first(&["GOOGLE_SERVICE_ACCOUNT_KEY"]) {
        return parse(&json.into(), &format!("`{name}`"), None);
    }
    if environment.is_on("GOOGLE_SKIP_SIGNATURE") {
        let words = "nobody: `GOOGLE_SKIP_SIGNATURE` is set";
        return login(Kind::Anonymous, words.to_owned());
    }
    if let Some((name, path)) = environment.first(&FILES) {
        return read(Path::new(path), &format!("`{name}`"));
    }
    let usual = usual_file(environment).filter(|path| path.is_file());
    match usual {
        Some(path) => read(&path, "gcloud's application default login"),
        None => login(
            Kind::Metadata,
            "the machine's service account, which its metadata server tells".to_owned(),
        ),
    }
}

fn usual_file(environment: &CloudEnvironment) -> Option<PathBuf> {
    let folder = match environment.get("CLOUDSDK_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(environment.get("HOME")?).join(".config/gcloud"),
    };
    Some(folder.join(USUAL_FILE))
}

/// Reads a file with a login; `name` says who names it.
fn read(path: &Path, name: &str) -> Result<Login> {
    let name = format!("{name} (`{}`)", path.display());
    let json = std::fs::read_to_string(path).map_err(|error| {
        let told = error.to_string();
        let words = told.split(" (os error").next().unwrap_or_default();
        Error::setup(
            format!("the login in {name} cannot be read: {words}"),
            "it is a JSON file that Google or `gcloud` made",
        )
    })?;
    parse(&json.into(), &name, Some(path))
}

/// Takes the JSON of a login, if it is of a kind that is known. Nothing of it is quoted.
fn parse(json: &SecretString, name: &str, path: Option<&Path>) -> Result<Login> {
    const NO_KEY: &str = "use the JSON key of a service account, or a token: `access_token`, `credential_command: [gcloud, auth, \
                          print-access-token]` or GOOGLE_BEARER_TOKEN";
    let refuse =
        |why: &str| Error::setup(format!("the login in {name} cannot be used: {why}"), NO_KEY);
    let parsed: Value = serde_json::from_str(json.expose_secret())
        .map_err(|_| refuse("it is not the JSON of a login"))?;
    let text = |key: &str| parsed.get(key).and_then(Value::as_str);
    match (text("type").unwrap_or("service_account"), path) {
        ("service_account", _) => {}
        ("authorized_user", Some(path)) => {
            return Ok(Login {
                kind: Kind::Person(path.to_owned()),
                words: format!("the person who logged in, in {name}"),
            });
        }
        ("authorized_user", None) => {
            return Err(refuse(
                "it is the login of a person; name its file in GOOGLE_APPLICATION_CREDENTIALS",
            ));
        }
        ("external_account", _) => {
            return Err(refuse(
                "it is a workload identity federation (`external_account`), which pgkeep cannot exchange for a token itself",
            ));
        }
        _ => return Err(refuse("it is of a kind that pgkeep does not know")),
    }
    for key in ["client_email", "private_key", "private_key_id"] {
        if text(key).is_none() {
            return Err(refuse(&format!("`{key}` is missing")));
        }
    }
    let is_emulated = parsed.get("disable_oauth") == Some(&Value::Bool(true));
    let words = match text("client_email") {
        Some(email) if !email.is_empty() => {
            format!("the service account `{}` in {name}", email.escape_debug())
        }
        _ => format!("the service account in {name}"),
    };
    let emulator = text("gcs_base_url").filter(|_| is_emulated);
    Ok(Login {
        kind: Kind::ServiceAccount(ServiceAccount {
            json: json.clone(),
            emulator: emulator.map(str::to_owned),
        }),
        words,
    })
}

impl Login {
    /// Says who signs.
    pub(super) fn words(&self) -> &str {
        &self.words
    }

    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.kind, Kind::Anonymous)
    }

    /// Returns the address of the emulator that the login is for.
    pub(super) fn emulator(&self) -> Option<&str> {
        match &self.kind {
            Kind::ServiceAccount(account) => account.emulator.as_deref(),
            _ => None,
        }
    }

    /// Gives the login to a client's settings.
    pub(super) fn sign(self, builder: GoogleCloudStorageBuilder) -> GoogleCloudStorageBuilder {
        match self.kind {
            Kind::ServiceAccount(account) => {
                builder.with_service_account_key(account.json.expose_secret())
            }
            Kind::Person(path) => builder.with_application_credentials(path.display().to_string()),
            Kind::Token(token) => builder.with_bearer_token(token.expose_secret().trim()),
            Kind::Source(source) => {
                builder.with_credentials(Arc::new(SourceProvider::<GcpCredential>::new(source)))
            }
            Kind::Metadata => builder,
            // An empty token, because some of object_store's requests ask for one all the same.
            Kind::Anonymous => builder.with_bearer_token("").with_skip_signature(true),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.words)
    }
}

impl Printed for GcpCredential {
    fn parse(text: &str) -> std::result::Result<(Self, Option<Timestamp>), String> {
        let (bearer, end) = parse_token(text, Timestamp::now())?;
        Ok((Self { bearer }, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"type": "service_account", "client_email": "pgkeep@acme.iam.gserviceaccount.com",
                          "private_key": "hunter2", "private_key_id": "hunter2"}"#;

    fn environment(variables: &[(&str, &str)]) -> CloudEnvironment {
        let pairs = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        CloudEnvironment::new(pairs)
    }

    fn words(variables: &[(&str, &str)]) -> String {
        let login = GcsCredentials::Environment.resolve(&environment(variables));
        login.unwrap().words
    }

    #[test]
    fn the_environment_is_asked_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let home = folder.path().display().to_string();
        assert!(words(&[("HOME", &home)]).contains("metadata server"));
        let usual = file(
            ".config/gcloud/application_default_credentials.json",
            r#"{"type": "authorized_user", "client_id": "x", "client_secret": "hunter2", "refresh_token": "hunter2"}"#,
        );
        let told = words(&[("HOME", &home)]);
        assert_eq!(
            told,
            format!("the person who logged in, in gcloud's application default login (`{usual}`)")
        );
        let key = file("key.json", KEY);
        let adc = ("GOOGLE_APPLICATION_CREDENTIALS", key.as_str());
        let account = "the service account `pgkeep@acme.iam.gserviceaccount.com` in";
        let told = words(&[("HOME", &home), adc]);
        assert_eq!(
            told,
            format!("{account} `GOOGLE_APPLICATION_CREDENTIALS` (`{key}`)")
        );
        let told = words(&[adc, ("GOOGLE_SERVICE_ACCOUNT", &key)]);
        assert_eq!(
            told,
            format!("{account} `GOOGLE_SERVICE_ACCOUNT` (`{key}`)")
        );
        let told = words(&[adc, ("GOOGLE_SERVICE_ACCOUNT_PATH", &key)]);
        assert_eq!(
            told,
            format!("{account} `GOOGLE_SERVICE_ACCOUNT_PATH` (`{key}`)")
        );
        let inline = ("GOOGLE_SERVICE_ACCOUNT_KEY", KEY);
        assert_eq!(
            words(&[adc, inline]),
            format!("{account} `GOOGLE_SERVICE_ACCOUNT_KEY`")
        );
        let token = ("GOOGLE_BEARER_TOKEN", "hunter2");
        assert_eq!(
            words(&[adc, inline, token]),
            "the token in `GOOGLE_BEARER_TOKEN`"
        );
        let nobody = words(&[("GOOGLE_SKIP_SIGNATURE", "true")]);
        assert!(nobody.starts_with("nobody"), "{nobody}");
    }

    #[test]
    fn what_cannot_be_used_is_told_with_a_way_out_and_without_a_secret() {
        for (json, why) in [
            ("hunter2", "not the JSON of a login"),
            (
                r#"{"type": "external_account", "token_url": "hunter2"}"#,
                "`external_account`",
            ),
            (
                r#"{"type": "authorized_user", "refresh_token": "hunter2"}"#,
                "GOOGLE_APPLICATION_CREDENTIALS",
            ),
            (
                r#"{"type": "impersonated_service_account", "x": "hunter2"}"#,
                "does not know",
            ),
            (
                r#"{"type": "service_account", "client_email": "x", "private_key_id": "hunter2"}"#,
                "`private_key` is missing",
            ),
        ] {
            let credentials = GcsCredentials::ServiceAccount(json.into());
            let error = credentials.resolve(&environment(&[])).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert!(error.hint().unwrap().contains("access_token"));
            assert!(
                !format!("{error:?} {credentials:?}").contains("hunter2"),
                "{error:?}"
            );
        }
        let missing = environment(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")]);
        let error = GcsCredentials::Environment.resolve(&missing).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[test]
    fn a_key_that_is_none_is_refused_when_the_storage_is_opened() {
        let options = super::super::GcsOptions {
            credentials: GcsCredentials::ServiceAccount(KEY.into()),
            ..super::super::GcsOptions::default()
        };
        let error = super::super::Gcs::open("acme", "", &options).err().unwrap();
        assert!(matches!(error, Error::Setup { .. }), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

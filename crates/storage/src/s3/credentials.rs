//! Who signs: keys of the configuration, the environment, or a program that prints them.
//!
//! Secrets live in types that do not print themselves.

use std::sync::Arc;

use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::cloud::source::{CredentialSource, Printed};

/// Where the credentials of an S3 storage come from.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// `AWS_ACCESS_KEY_ID` and its relatives, a web identity token, or what ECS, EKS or EC2 hand out.
    #[default]
    Environment,
    /// Keys of the configuration.
    Keys {
        /// The key's id, which is not secret.
        access_key_id: String,
        /// The key itself.
        secret_access_key: SecretString,
        /// Goes with short-lived keys.
        session_token: Option<SecretString>,
    },
    /// Whatever this source prints.
    Source(Arc<dyn CredentialSource>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    version: u32,
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    expiration: Option<Timestamp>,
}

impl Printed for AwsCredential {
    fn parse(text: &str) -> std::result::Result<(Self, Option<Timestamp>), String> {
        // serde's own words may quote a value, so only the place is passed on.
        let printed: Keys = serde_json::from_str(text).map_err(|error| {
            format!(
                "its output is not the JSON of a `credential_process` (line {}, column {})",
                error.line(),
                error.column()
            )
        })?;
        if printed.version != 1 {
            return Err(format!("its output has version {}, not 1", printed.version));
        }
        let credential = Self {
            key_id: printed.access_key_id,
            secret_key: printed.secret_access_key.expose_secret().to_owned(),
            token: printed.session_token.map(|t| t.expose_secret().to_owned()),
        };
        Ok((credential, printed.expiration))
    }
}

/// Says who signs, as object_store will find it in the environment.
pub(super) fn words(credentials: &Credentials, environment: &AmazonS3Builder) -> String {
    let is_set = |key| environment.get_config_value(&key).is_some();
    let words = match credentials {
        Credentials::Keys { .. } => "an access key of the configuration",
        Credentials::Source(source) => source.words(),
        Credentials::Environment if is_set(AmazonS3ConfigKey::AccessKeyId) => {
            "the access key in `AWS_ACCESS_KEY_ID`"
        }
        Credentials::Environment if is_set(AmazonS3ConfigKey::WebIdentityTokenFile) => {
            "the web identity in `AWS_WEB_IDENTITY_TOKEN_FILE`"
        }
        Credentials::Environment
            if is_set(AmazonS3ConfigKey::ContainerCredentialsRelativeUri)
                || is_set(AmazonS3ConfigKey::ContainerCredentialsFullUri) =>
        {
            "the container's role"
        }
        Credentials::Environment => "the machine's role, which its metadata service tells",
    };
    words.to_owned()
}

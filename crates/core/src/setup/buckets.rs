//! What the configuration and the environment say about a bucket, as its storage takes it.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::Setup;
use super::credentials::CredentialCommand;
use super::secrets::forms_of;
use pgkeep_model::config::{StorageConfig, StorageUrl};
use pgkeep_storage::{
    AzureCredentials, AzureOptions, CloudEnvironment, CloudOptions, CredentialSource, Credentials,
    GcsCredentials, GcsOptions, Options, RcloneOptions, S3Options,
};

/// How long a check sends a request again.
const CHECK_BUDGET: Duration = Duration::from_secs(1);

impl Setup {
    /// Returns what is set about the kind of storage that the URL names; the other kinds stay as they come.
    pub(super) fn bucket_options(&self, config: &StorageConfig) -> Options {
        let mut options = Options::default();
        match &config.url {
            StorageUrl::Folder(_) => {}
            StorageUrl::S3 { .. } => options.s3 = self.s3_options(config),
            StorageUrl::Gcs { .. } => options.gcs = self.gcs_options(config),
            StorageUrl::Azure { .. } => options.azure = self.azure_options(config),
            StorageUrl::Rclone { .. } => options.rclone = RcloneOptions::new(self.variables()),
        }
        options
    }

    fn cloud_options(&self, config: &StorageConfig) -> CloudOptions {
        let default = CloudOptions::default();
        CloudOptions {
            // Anyone who checks wants to hear what is wrong now.
            retry_budget: if self.is_check {
                CHECK_BUDGET
            } else {
                default.retry_budget
            },
            environment: CloudEnvironment::new(self.environment.as_ref().clone()),
            endpoint: config.endpoint.clone(),
            part_size_bytes: config.part_size_bytes,
            allow_http: config
                .endpoint
                .as_ref()
                .is_some_and(|endpoint| endpoint.starts_with("http://")),
            ca_certificate: config.ca_certificate.clone(),
            ..default
        }
    }

    /// Returns the program that prints credentials, where one is set.
    fn source(&self, config: &StorageConfig) -> Option<Arc<dyn CredentialSource>> {
        if config.credential_command.is_empty() {
            return None;
        }
        let command = config.credential_command.clone();
        Some(Arc::new(CredentialCommand::new(command, self.variables())))
    }

    fn variables(&self) -> Vec<(OsString, OsString)> {
        self.environment.as_ref().clone().into_iter().collect()
    }

    fn s3_options(&self, config: &StorageConfig) -> S3Options {
        let keys = config
            .access_key_id
            .as_ref()
            .zip(config.secret_access_key.as_ref());
        let credentials = match (keys, self.source(config)) {
            (Some((id, secret)), _) => Credentials::Keys {
                access_key_id: id.expose_secret().to_owned(),
                secret_access_key: secret.clone(),
                session_token: config.session_token.clone(),
            },
            (None, Some(source)) => Credentials::Source(source),
            (None, None) => Credentials::Environment,
        };
        S3Options {
            cloud: self.cloud_options(config),
            region: config.region.clone(),
            path_style: config.path_style,
            credentials,
        }
    }

    fn gcs_options(&self, config: &StorageConfig) -> GcsOptions {
        let is_anonymous = config.anonymous == Some(true);
        let credentials = match (&config.service_account, &config.access_token) {
            (Some(json), _) => GcsCredentials::ServiceAccount(json.clone()),
            (None, Some(token)) => GcsCredentials::Token(token.clone()),
            (None, None) if is_anonymous => GcsCredentials::Anonymous,
            (None, None) => match self.source(config) {
                Some(source) => GcsCredentials::Source(source),
                None => {
                    self.hide_logins_of_google();
                    GcsCredentials::Environment
                }
            },
        };
        GcsOptions {
            cloud: self.cloud_options(config),
            credentials,
        }
    }

    /// The files that may hold the login are read by the storage; what is secret in them is known from here on.
    fn hide_logins_of_google(&self) {
        let environment = CloudEnvironment::new(self.environment.as_ref().clone());
        for path in GcsCredentials::files(&environment) {
            // One that cannot be read is told of when it is used.
            if let Ok(text) = self.read_text(&path) {
                for secret in forms_of(&text) {
                    self.hide(Some(&secret.into()));
                }
            }
        }
    }

    fn azure_options(&self, config: &StorageConfig) -> AzureOptions {
        let in_configuration = azure_secret(config).or_else(|| azure_application(config));
        let is_told = |name| {
            self.var(name)
                .is_some_and(|value| matches!(&*value, "1" | "true" | "yes"))
        };
        let credentials = match (in_configuration, self.source(config)) {
            (Some(credentials), _) => credentials,
            (None, Some(source)) => AzureCredentials::Source(source),
            (None, None) if config.anonymous == Some(true) => AzureCredentials::Anonymous,
            (None, None)
                if config
                    .use_azure_cli
                    .unwrap_or_else(|| is_told("AZURE_USE_AZURE_CLI")) =>
            {
                let command = CredentialCommand::azure_cli(self.variables());
                AzureCredentials::Source(Arc::new(command))
            }
            (None, None) => AzureCredentials::Environment,
        };
        AzureOptions {
            cloud: self.cloud_options(config),
            account: config.account.clone(),
            authority_host: config.authority_host.clone(),
            credentials,
        }
    }
}

fn azure_secret(config: &StorageConfig) -> Option<AzureCredentials> {
    type Make = fn(SecretString) -> AzureCredentials;
    let ways: [(&Option<SecretString>, Make); 3] = [
        (&config.account_key, AzureCredentials::Key),
        (&config.sas_token, AzureCredentials::Sas),
        (&config.access_token, AzureCredentials::Token),
    ];
    let mut given = ways.into_iter();
    given.find_map(|(secret, make)| secret.clone().map(make))
}

/// An application with its secret or with a token that its tenant trusts; an id alone is a managed identity.
fn azure_application(config: &StorageConfig) -> Option<AzureCredentials> {
    let client_id = config.client_id.clone()?;
    let Some(tenant_id) = config.tenant_id.clone() else {
        return Some(AzureCredentials::Identity { client_id });
    };
    match (&config.client_secret, &config.federated_token_file) {
        (Some(secret), _) => Some(AzureCredentials::Client {
            client_id,
            client_secret: secret.clone(),
            tenant_id,
        }),
        (None, Some(file)) => Some(AzureCredentials::Federated {
            client_id,
            tenant_id,
            token_file: file.clone(),
        }),
        (None, None) => Some(AzureCredentials::Identity { client_id }),
    }
}

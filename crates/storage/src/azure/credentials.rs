//! Who signs requests to Azure: what the configuration says, else the environment, or the machine's identity.
//!
//! One way is chosen here and told in words; object_store is given that one alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use object_store::azure::{AzureConfigKey, AzureCredential, MicrosoftAzureBuilder, split_sas};
use secrecy::{ExposeSecret, SecretString};

use super::target::Target;
use crate::cloud::environment::CloudEnvironment;
use crate::cloud::source::{CredentialSource, Printed, SourceProvider, parse_token};
use crate::{Error, Result};

/// The key of every emulator, which is no secret.
/// <https://learn.microsoft.com/en-us/azure/storage/common/storage-use-azurite#well-known-storage-account-and-key>
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Where the credentials of an Azure storage come from.
#[derive(Clone, Debug, Default)]
pub enum AzureCredentials {
    /// The variables that start with `AZURE_`, or the managed identity of the machine.
    #[default]
    Environment,
    /// A key of the account.
    Key(SecretString),
    /// A shared access signature.
    Sas(SecretString),
    /// A bearer token, which is never renewed.
    Token(SecretString),
    /// An application and its secret.
    Client {
        /// The application.
        client_id: String,
        /// Its secret.
        client_secret: SecretString,
        /// Where it is registered.
        tenant_id: String,
    },
    /// An application, and a file with a token of somebody whom its tenant trusts, such as Kubernetes.
    Federated {
        /// The application.
        client_id: String,
        /// Where it is registered.
        tenant_id: String,
        /// Read anew for each login.
        token_file: PathBuf,
    },
    /// A managed identity of this machine, where it has several.
    Identity {
        /// Which one.
        client_id: String,
    },
    /// Whatever token this source prints.
    Source(Arc<dyn CredentialSource>),
    /// Nobody: requests are not signed.
    Anonymous,
}

/// Who signs, found.
pub(super) struct Login {
    builder: MicrosoftAzureBuilder,
    words: String,
    is_anonymous: bool,
}

impl Login {
    fn new(builder: MicrosoftAzureBuilder, kind: &str, words: impl Into<String>) -> Self {
        Self {
            builder: builder.with_credential_type(kind),
            words: words.into(),
            is_anonymous: false,
        }
    }

    fn anonymous(words: &str) -> Self {
        Self {
            builder: MicrosoftAzureBuilder::new(),
            words: words.to_owned(),
            is_anonymous: true,
        }
    }

    /// Says who signs.
    pub(super) fn words(&self) -> &str {
        &self.words
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.is_anonymous
    }

    /// Returns a client's settings with the login in them.
    pub(super) fn builder(self) -> MicrosoftAzureBuilder {
        self.builder
    }
}

impl AzureCredentials {
    /// Finds out who signs.
    pub(super) fn resolve(&self, environment: &CloudEnvironment, target: &Target) -> Result<Login> {
        let blank = || match &target.authority_host {
            Some(host) => MicrosoftAzureBuilder::new().with_authority_host(host),
            None => MicrosoftAzureBuilder::new(),
        };
        Ok(match self {
            Self::Environment => {
                return in_environment(environment, target, blank());
            }
            Self::Key(key) => with_key(blank(), key, "`account_key` of the configuration"),
            Self::Sas(token) => with_sas(blank(), token, "`sas_token` of the configuration")?,
            Self::Token(token) => with_token(blank(), token, "`access_token` of the configuration"),
            Self::Client {
                client_id,
                client_secret,
                tenant_id,
            } => with_client(
                blank(),
                client_id,
                client_secret,
                tenant_id,
                "the configuration",
            ),
            Self::Federated {
                client_id,
                tenant_id,
                token_file,
            } => with_file(blank(), client_id, tenant_id, token_file)?,
            Self::Identity { client_id } => {
                let words = format!("the managed identity `{}`", client_id.escape_debug());
                let builder = with_endpoint(blank(), environment);
                Login::new(builder.with_client_id(client_id), "managed_identity", words)
            }
            Self::Source(source) => Login {
                builder: blank().with_credentials(Arc::new(
                    SourceProvider::<AzureCredential>::new(Arc::clone(source)),
                )),
                words: source.words().to_owned(),
                is_anonymous: false,
            },
            Self::Anonymous => Login::anonymous("nobody: requests are not signed"),
        })
    }
}

fn in_environment(
    environment: &CloudEnvironment,
    target: &Target,
    blank: MicrosoftAzureBuilder,
) -> Result<Login> {
    // object_store knows the names, a few apart that `az` has.
    let known = environment
        .with_prefix("AZURE_")
        .filter_map(|(name, value)| {
            let key: AzureConfigKey = match name {
                "AZURE_STORAGE_KEY" => AzureConfigKey::AccessKey,
                _ => name.to_ascii_lowercase().parse().ok()?,
            };
            Some((key, value))
        });
    let told = known.fold(MicrosoftAzureBuilder::new(), |builder, (key, value)| {
        builder.with_config(key, value)
    });
    let get = |key| told.get_config_value(&key).filter(|text| !text.is_empty());
    let secret = |key| get(key).map(SecretString::from);
    if environment.is_on("AZURE_SKIP_SIGNATURE") {
        return Ok(Login::anonymous("nobody: `AZURE_SKIP_SIGNATURE` is set"));
    }
    if let Some(token) = secret(AzureConfigKey::Token) {
        return Ok(with_token(blank, &token, "`AZURE_STORAGE_TOKEN`"));
    }
    if let Some(key) = secret(AzureConfigKey::AccessKey) {
        return Ok(with_key(
            blank,
            &key,
            "the key in the environment (`AZURE_STORAGE_ACCOUNT_KEY`)",
        ));
    }
    let application = get(AzureConfigKey::ClientId).zip(get(AzureConfigKey::AuthorityId));
    if let Some((client, tenant)) = application {
        if let Some(file) = get(AzureConfigKey::FederatedTokenFile) {
            return with_file(blank, &client, &tenant, Path::new(&file));
        }
        if let Some(secret) = secret(AzureConfigKey::ClientSecret) {
            return Ok(with_client(
                blank,
                &client,
                &secret,
                &tenant,
                "the environment",
            ));
        }
    }
    if let Some(token) = secret(AzureConfigKey::SasKey) {
        return with_sas(
            blank,
            &token,
            "the SAS token in the environment (`AZURE_STORAGE_SAS_TOKEN`)",
        );
    }
    if target.is_emulator {
        return Ok(with_key(blank, &EMULATOR_KEY.into(), "the emulator's key"));
    }
    let chosen = [
        AzureConfigKey::ClientId,
        AzureConfigKey::ObjectId,
        AzureConfigKey::MsiResourceId,
    ];
    let builder =
        chosen.into_iter().fold(
            with_endpoint(blank, environment),
            |builder, key| match get(key) {
                Some(value) => builder.with_config(key, value),
                None => builder,
            },
        );
    let words = "the machine's managed identity, which its metadata service tells";
    Ok(Login::new(builder, "managed_identity", words))
}

/// App Service tells where its identities are asked for.
fn with_endpoint(
    builder: MicrosoftAzureBuilder,
    environment: &CloudEnvironment,
) -> MicrosoftAzureBuilder {
    let told = [
        "AZURE_MSI_ENDPOINT",
        "AZURE_IDENTITY_ENDPOINT",
        "IDENTITY_ENDPOINT",
    ];
    match environment.first(&told) {
        Some((_, url)) => builder.with_msi_endpoint(url),
        None => builder,
    }
}

fn with_key(builder: MicrosoftAzureBuilder, key: &SecretString, words: &str) -> Login {
    let builder = builder.with_access_key(key.expose_secret().trim());
    Login::new(builder, "access_key", words)
}

fn with_token(builder: MicrosoftAzureBuilder, token: &SecretString, words: &str) -> Login {
    let builder = builder.with_bearer_token_authorization(token.expose_secret().trim());
    Login::new(builder, "bearer_token", words)
}

fn with_sas(builder: MicrosoftAzureBuilder, token: &SecretString, words: &str) -> Result<Login> {
    let pairs = split_sas(token.expose_secret().trim()).unwrap_or_default();
    if !pairs.iter().any(|(name, _)| name == "sig") {
        return Err(Error::setup(
            format!("{words} is not usable: it has no signature"),
            "a SAS token looks like `sv=…&sig=…`; it is what stands behind `?` in a SAS URL",
        ));
    }
    let builder = builder.with_sas_authorization(pairs);
    Ok(Login::new(builder, "sas_token", words))
}

fn with_client(
    builder: MicrosoftAzureBuilder,
    client: &str,
    secret: &SecretString,
    tenant: &str,
    place: &str,
) -> Login {
    let builder = builder.with_client_secret_authorization(client, secret.expose_secret(), tenant);
    let words = format!("the application `{}` in {place}", client.escape_debug());
    Login::new(builder, "client_secret", words)
}

fn with_file(
    builder: MicrosoftAzureBuilder,
    client: &str,
    tenant: &str,
    file: &Path,
) -> Result<Login> {
    // object_store does not tell later why there is no token.
    if let Err(error) = std::fs::File::open(file) {
        let told = error.to_string();
        let words = told.split(" (os error").next().unwrap_or_default();
        return Err(Error::setup(
            format!(
                "the federated token in `{}` cannot be read: {words}",
                file.display()
            ),
            "set `federated_token_file`, or AZURE_FEDERATED_TOKEN_FILE; AKS puts it there for a service account with the label \
             `azure.workload.identity/use`",
        ));
    }
    let builder = builder
        .with_client_id(client)
        .with_tenant_id(tenant)
        .with_federated_token_file(file.display().to_string());
    let words = format!(
        "the workload identity `{}` with the token in `{}`",
        client.escape_debug(),
        file.display()
    );
    Ok(Login::new(builder, "workload_identity", words))
}

impl Printed for AzureCredential {
    fn parse(text: &str) -> std::result::Result<(Self, Option<Timestamp>), String> {
        let (token, end) = parse_token(text, Timestamp::now())?;
        Ok((Self::BearerToken(token), end))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Azure, AzureOptions};
    use super::*;
    use crate::cloud::options::CloudOptions;

    fn login(credentials: AzureCredentials, variables: &[(&str, &str)]) -> Result<Login> {
        let pairs = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let cloud = CloudOptions {
            environment: CloudEnvironment::new(pairs),
            ..CloudOptions::default()
        };
        let options = AzureOptions {
            cloud,
            account: Some("acme".to_owned()),
            credentials,
            ..AzureOptions::default()
        };
        let login = options
            .credentials
            .resolve(&options.cloud.environment, &options.target()?)?;
        // What is refused later is refused here, too.
        Azure::open("c", "", &options)?;
        Ok(login)
    }

    fn told(variables: &[(&str, &str)]) -> String {
        login(AzureCredentials::Environment, variables)
            .unwrap()
            .words
    }

    #[test]
    fn the_environment_is_asked_in_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        let sas = (
            "AZURE_STORAGE_SAS_TOKEN",
            "?sv=2023-11-03&sp=rl&sig=aHVudGVyMg%3D%3D",
        );
        let application = [("AZURE_CLIENT_ID", "app"), ("AZURE_TENANT_ID", "t")];
        let secret = ("AZURE_CLIENT_SECRET", "hunter2");
        let federated = ("AZURE_FEDERATED_TOKEN_FILE", path.as_str());
        let key = ("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMg==");
        let token = ("AZURE_STORAGE_TOKEN", "hunter2");
        assert!(told(&[]).contains("managed identity"));
        assert!(told(&application).contains("managed identity"));
        assert!(told(&[sas]).contains("AZURE_STORAGE_SAS_TOKEN"));
        let mut all = vec![sas];
        all.extend(application);
        all.push(secret);
        assert_eq!(told(&all), "the application `app` in the environment");
        all.push(federated);
        assert_eq!(
            told(&all),
            format!("the workload identity `app` with the token in `{path}`")
        );
        all.push(key);
        assert!(told(&all).contains("AZURE_STORAGE_ACCOUNT_KEY"));
        assert_eq!(told(&[("AZURE_STORAGE_KEY", "aHVudGVyMg==")]), told(&[key]));
        all.push(token);
        assert_eq!(told(&all), "`AZURE_STORAGE_TOKEN`");
        all.push(("AZURE_SKIP_SIGNATURE", "true"));
        assert!(told(&all).starts_with("nobody"));
    }

    #[test]
    fn what_cannot_be_used_is_told_without_a_secret() {
        let application = [("AZURE_CLIENT_ID", "app"), ("AZURE_TENANT_ID", "t")];
        let federated = ("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token");
        let all = [application[0], application[1], federated];
        let error = login(AzureCredentials::Environment, &all).err().unwrap();
        assert!(error.to_string().contains("`/nowhere/token`"), "{error}");
        for credentials in [
            AzureCredentials::Key("hunter2 is no base64".into()),
            AzureCredentials::Sas("hunter2".into()),
            AzureCredentials::Sas("sv=hunter2".into()),
        ] {
            let told = format!("{credentials:?}");
            let error = login(credentials, &[]).err().unwrap();
            assert!(matches!(error, Error::Setup { .. }), "{error}");
            assert!(
                !format!("{error:?} {told}").contains("hunter2"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn the_configuration_wins() {
        let key = ("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMg==");
        for (credentials, words) in [
            (AzureCredentials::Sas("sv=x&sig=y".into()), "`sas_token`"),
            (AzureCredentials::Token("x".into()), "`access_token`"),
            (
                AzureCredentials::Identity {
                    client_id: "app".to_owned(),
                },
                "managed identity `app`",
            ),
            (AzureCredentials::Anonymous, "nobody"),
        ] {
            let words_of = login(credentials, &[key]).unwrap().words;
            assert!(words_of.contains(words), "{words_of}");
        }
    }
}

//! What can be set about a container of Azure, and where its requests go.

use url::Url;

use super::credentials::AzureCredentials;
use super::target::Target;
use crate::cloud::environment::CloudEnvironment;
use crate::cloud::options::CloudOptions;
use crate::{Error, Result};

/// Account of every emulator.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";

/// Where an emulator answers if nobody says otherwise.
const EMULATOR_URL: &str = "http://127.0.0.1:10000";

/// Settings of an Azure storage beyond its URL.
#[derive(Clone, Debug, Default)]
pub struct AzureOptions {
    /// What every bucket has. No endpoint means `AZURE_STORAGE_ENDPOINT` or the account's own address in the public
    /// cloud.
    pub cloud: CloudOptions,
    /// The storage account; `None` means `AZURE_STORAGE_ACCOUNT_NAME` or `AZURE_STORAGE_ACCOUNT`.
    pub account: Option<String>,
    /// Who hands out tokens, in clouds other than the public one; `None` means `AZURE_AUTHORITY_HOST` or
    /// `https://login.microsoftonline.com`.
    pub authority_host: Option<String>,
    /// Who signs the requests.
    pub credentials: AzureCredentials,
}

impl AzureOptions {
    /// Works out where requests go, with the environment filling in what is not set.
    pub(super) fn target(&self) -> Result<Target> {
        let environment = &self.cloud.environment;
        let is_named = self.account.is_some() || self.cloud.endpoint.is_some();
        let is_emulator = !is_named && environment.is_on("AZURE_STORAGE_USE_EMULATOR");
        let account = self.named_account(environment, is_emulator)?;
        let mut cloud = self.cloud.clone();
        cloud.allow_http |= is_emulator;
        let told = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"];
        let endpoint = match (&cloud.endpoint, environment.first(&told)) {
            (Some(endpoint), _) => endpoint.clone(),
            _ if is_emulator => {
                let told = environment.get("AZURITE_BLOB_STORAGE_URL");
                let url = told.unwrap_or(EMULATOR_URL);
                format!("{}/{account}", url.trim_end_matches('/'))
            }
            (None, Some((_, endpoint))) => endpoint.to_owned(),
            (None, None) => format!("https://{account}.blob.core.windows.net"),
        };
        Ok(Target {
            endpoint: cloud.check_endpoint(&endpoint, "the configuration")?,
            authority_host: self.authority(environment)?,
            account,
            is_emulator,
        })
    }

    fn named_account(&self, environment: &CloudEnvironment, is_emulator: bool) -> Result<String> {
        let told = environment.first(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]);
        let account = match (&self.account, told) {
            (Some(account), _) => account,
            (None, Some((_, account))) => account,
            (None, None) if is_emulator => EMULATOR_ACCOUNT,
            (None, None) => {
                return Err(Error::setup(
                    "no storage account is named",
                    "set the storage's `account`, or AZURE_STORAGE_ACCOUNT_NAME",
                ));
            }
        };
        // It becomes part of a host name, and nothing else may hide in it.
        let is_account = !account.is_empty()
            && account.len() <= 63
            && account
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_account {
            return Ok(account.to_owned());
        }
        Err(Error::setup(
            "the storage account has a name that cannot exist",
            "`account` is the name alone, such as `acmebackups`",
        ))
    }

    /// A secret goes there, so it is encrypted or on this machine.
    fn authority(&self, environment: &CloudEnvironment) -> Result<Option<String>> {
        let told = ["AZURE_AUTHORITY_HOST", "AZURE_STORAGE_AUTHORITY_HOST"];
        let named = self.authority_host.as_deref();
        let Some(host) = named.or_else(|| Some(environment.first(&told)?.1)) else {
            return Ok(None);
        };
        let is_fine = Url::parse(host).is_ok_and(|url| {
            let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            url.scheme() == "https" || url.scheme() == "http" && is_here
        });
        if is_fine {
            return Ok(Some(host.trim_end_matches('/').to_owned()));
        }
        Err(Error::setup(
            "the authority host is not an `https://` address",
            "it looks like `https://login.microsoftonline.com`",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> AzureOptions {
        let pairs = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let cloud = CloudOptions {
            environment: CloudEnvironment::new(pairs),
            ..CloudOptions::default()
        };
        AzureOptions {
            cloud,
            ..AzureOptions::default()
        }
    }

    fn target(options: &AzureOptions) -> (String, String) {
        let target = options.target().unwrap();
        (target.endpoint.to_string(), target.account)
    }

    #[test]
    fn an_account_has_its_own_address() {
        let mut named = options(&[("AZURE_STORAGE_ACCOUNT_NAME", "other")]);
        let (url, account) = target(&named);
        assert_eq!(
            (url.as_str(), account.as_str()),
            ("https://other.blob.core.windows.net/", "other")
        );
        named.account = Some("acme".to_owned());
        assert_eq!(target(&named).0, "https://acme.blob.core.windows.net/");
        let china = "https://acme.blob.core.chinacloudapi.cn";
        named.cloud.endpoint = Some(china.to_owned());
        assert_eq!(target(&named).0, format!("{china}/"));
        assert_eq!(
            target(&options(&[("AZURE_STORAGE_ACCOUNT", "acme")])).1,
            "acme"
        );
    }

    #[test]
    fn an_emulator_is_where_the_environment_says() {
        let on = ("AZURE_STORAGE_USE_EMULATOR", "true");
        let (url, account) = target(&options(&[on]));
        assert_eq!(
            (url.as_str(), account.as_str()),
            (
                "http://127.0.0.1:10000/devstoreaccount1",
                "devstoreaccount1"
            )
        );
        let (url, _) = target(&options(&[
            on,
            ("AZURITE_BLOB_STORAGE_URL", "http://azurite:9000/"),
        ]));
        assert_eq!(url, "http://azurite:9000/devstoreaccount1");
    }

    #[test]
    fn what_is_missing_or_open_is_refused() {
        let error = |options: &AzureOptions| options.target().err().unwrap();
        assert!(error(&options(&[])).hint().unwrap().contains("`account`"));
        let odd = ("AZURE_STORAGE_ACCOUNT_NAME", "evil.example/hunter2");
        assert!(!format!("{:?}", error(&options(&[odd]))).contains("hunter2"));
        let account = ("AZURE_STORAGE_ACCOUNT_NAME", "acme");
        for variable in [
            ("AZURE_STORAGE_ENDPOINT", "http://acme.example"),
            ("AZURE_AUTHORITY_HOST", "http://login.example"),
        ] {
            error(&options(&[account, variable]));
        }
        let fine = options(&[
            account,
            ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
        ]);
        let authority = fine.target().unwrap().authority_host;
        assert_eq!(
            authority.as_deref(),
            Some("https://login.microsoftonline.us")
        );
    }
}

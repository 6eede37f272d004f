//! Requests to a container: object_store's, and those of our own, signed alike.

use async_trait::async_trait;
use object_store::azure::{AzureAuthorizer, MicrosoftAzure};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse};
use object_store::path::Path;
use object_store::{ClientOptions, HeaderMap};
use reqwest::Method;
use reqwest::header::HeaderValue;
use url::Url;

use super::credentials::Login;
use super::target::Target;
use crate::cloud::client::Store;
use crate::cloud::options::no_retries;
use crate::cloud::pages::{generic, text_of};
use crate::cloud::transport::Connector;
use crate::{Error, Result};

/// The version that object_store speaks, which an unsigned request names as well.
const API_VERSION: &str = "2023-11-03";

/// A container, and who signs requests to it.
pub(crate) struct AzureStore {
    objects: MicrosoftAzure,
    http: HttpClient,
    container: Url,
    account: String,
    is_anonymous: bool,
}

impl AzureStore {
    pub(super) fn open(
        container: &str,
        target: &Target,
        login: Login,
        connector: &Connector,
    ) -> Result<Self> {
        let endpoint = target.endpoint.as_str().trim_end_matches('/');
        let is_plain_http = target.endpoint.scheme() == "http";
        let is_anonymous = login.is_anonymous();
        let words = login.words().to_owned();
        let builder = login.builder();
        let built = builder
            .with_account(&target.account)
            .with_container_name(container)
            .with_endpoint(endpoint.to_owned())
            .with_client_options(ClientOptions::new().with_allow_http(is_plain_http))
            .with_http_connector(connector.clone())
            .with_retry(no_retries())
            // Accounts with folders refuse tags.
            .with_disable_tagging(true)
            .with_skip_signature(is_anonymous)
            .build();
        // Its own words may quote a key.
        let objects = built.map_err(|_| {
            Error::setup(
                format!("`az://{container}` cannot be used: {words} is not usable"),
                "an account's key is base64, and a SAS token looks like `sv=…&sig=…`",
            )
        })?;
        let mut url = target.endpoint.clone();
        url.set_path(&format!("{}/{container}", url.path().trim_end_matches('/')));
        Ok(Self {
            objects,
            http: connector.http().clone(),
            container: url,
            account: target.account.clone(),
            is_anonymous,
        })
    }

    /// Returns where the container is.
    pub(super) fn url(&self) -> &Url {
        &self.container
    }

    /// Asks the container itself, and returns the answer.
    pub(super) async fn ask(&self, query: &[(&str, &str)]) -> object_store::Result<String> {
        let mut url = self.container.clone();
        url.query_pairs_mut().extend_pairs(query);
        text_of(self.send(Method::GET, &url).await?).await
    }

    /// Asks what the container is, which its answer's headers tell.
    pub(super) async fn container_properties(&self) -> object_store::Result<HeaderMap> {
        let mut url = self.container.clone();
        url.query_pairs_mut().append_pair("restype", "container");
        let answer = self.send(Method::GET, &url).await?;
        Ok(answer.headers().clone())
    }

    /// Asks what the account's blobs are subject to.
    pub(super) async fn service_properties(&self) -> object_store::Result<String> {
        let mut url = self.container.clone();
        let (account, _) = url.path().rsplit_once('/').unwrap_or_default();
        let account = format!("{account}/");
        url.set_path(&account);
        url.query_pairs_mut()
            .extend_pairs([("restype", "service"), ("comp", "properties")]);
        text_of(self.send(Method::GET, &url).await?).await
    }

    async fn send(&self, method: Method, url: &Url) -> object_store::Result<HttpResponse> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(generic)?;
        if self.is_anonymous {
            let version = HeaderValue::from_static(API_VERSION);
            request.headers_mut().insert("x-ms-version", version);
        } else {
            let credential = self.objects.credentials().get_credential().await?;
            AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        }
        self.http.execute(request).await.map_err(generic)
    }
}

#[async_trait]
impl Store for AzureStore {
    type Objects = MicrosoftAzure;

    fn objects(&self) -> &MicrosoftAzure {
        &self.objects
    }

    /// object_store removes by batches only, whose answer hides why a single one is refused, and which SAS tokens of a
    /// container may not send.
    async fn delete(&self, path: &Path) -> object_store::Result<()> {
        let mut url = self.container.clone();
        url.path_segments_mut()
            .expect("an endpoint has a host and so a path")
            .extend(path.as_ref().split('/'));
        self.send(Method::DELETE, &url).await.map(drop)
    }
}

//! A storage in a bucket of Google Cloud Storage: what `cloud` does over its XML API, with options and credentials of GCS.
//!
//! Generations tell one state of an object from another. What is retained or held is told as that. It never follows a redirect and
//! keeps no data on disk.

mod credentials;
mod options;
mod protection;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use url::Url;

use crate::cloud;
use crate::cloud::client::{Client, Store, check_prefix};
use crate::cloud::codes;
use crate::cloud::compared::Compared;
use crate::cloud::options::no_retries;
use crate::cloud::pages::{self, Paged, generic, text_of};
use crate::cloud::retry::Patience;
use crate::cloud::transport::Connector;
use crate::{Error, Object, Protection, Result, Swept, Take};
pub use credentials::GcsCredentials;
pub use options::GcsOptions;
use pgkeep_model::part_sizes::Limits;

/// Keeps objects in a bucket, below a prefix. Clones share connections and credentials.
#[derive(Clone)]
pub struct Gcs {
    client: Arc<Client<GoogleCloudStorage>>,
    /// For the requests that object_store has no verb for.
    http: HttpClient,
    url: Url,
    is_anonymous: bool,
}

impl Store for GoogleCloudStorage {
    type Objects = Self;

    fn objects(&self) -> &Self {
        self
    }
}

impl Gcs {
    /// Prepares a storage; nothing is sent until the first verb.
    ///
    /// `prefix` may be empty. [`Error::Setup`] if the options contradict each other, or a file with a login is no good.
    pub fn open(bucket: &str, prefix: &str, options: &GcsOptions) -> Result<Self> {
        if bucket.is_empty() {
            return Err(Error::setup(
                "the storage's URL names no bucket",
                "it looks like `gs://bucket/prefix`",
            ));
        }
        let cloud = &options.cloud;
        let login = options.credentials.resolve(&cloud.environment)?;
        let endpoint = options.endpoint(&login)?;
        let connector = Connector::new(&endpoint, cloud.certificates()?, cloud.stall_timeout)?;
        let base_url = endpoint.as_str().trim_end_matches('/').to_owned();
        let is_plain_http = endpoint.scheme() == "http";
        let label = format!("gs://{bucket}/{}", prefix.trim_matches('/'))
            .trim_end_matches('/')
            .to_owned();
        let builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(bucket)
            .with_base_url(&base_url)
            .with_client_options(ClientOptions::new().with_allow_http(is_plain_http))
            .with_http_connector(connector.clone())
            .with_retry(no_retries());
        let is_anonymous = login.is_anonymous();
        let words = login.words().to_owned();
        // Its own words may quote a key.
        let store = login.sign(builder).build().map_err(|_| {
            Error::setup(
                format!("`{label}` cannot be used: {words} is not usable"),
                "a service account's key is the JSON file that Google made, unchanged",
            )
        })?;
        let client = Client {
            store,
            patience: Patience::new(cloud.retry_budget, &label),
            label,
            prefix: check_prefix(prefix)?,
            part_sizes: cloud.part_sizes()?,
            limits: Limits::S3,
            compared: Compared::Generation,
            dialect: &codes::GCS,
            login: words,
        };
        let mut url = endpoint;
        url.set_path(&format!("{}/{bucket}", url.path().trim_end_matches('/')));
        Ok(Self {
            client: Arc::new(client),
            http: connector.http().clone(),
            url,
            is_anonymous,
        })
    }
}

#[async_trait]
impl cloud::Bucket for Gcs {
    type Store = GoogleCloudStorage;

    fn client(&self) -> &Arc<Client<GoogleCloudStorage>> {
        &self.client
    }

    fn identity(&self) -> String {
        format!("gs {} {}", self.url, self.client.prefix)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        pages::list(self, prefix).await
    }

    async fn list_each(&self, prefix: &str, take: Take<'_>) -> Result<()> {
        pages::list_each(self, prefix, take).await
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<Swept> {
        pages::sweep(self, prefix, older_than).await
    }

    async fn protection(&self) -> Option<Protection> {
        Some(protection::of_bucket(self).await)
    }
}

impl Gcs {
    /// Asks the JSON API what the bucket is.
    async fn resource(&self) -> object_store::Result<String> {
        let mut url = self.url.clone();
        let (path, bucket) = url.path().rsplit_once('/').unwrap_or_default();
        let path = format!("{path}/storage/v1/b/{bucket}");
        url.set_path(&path);
        url.query_pairs_mut().append_pair(
            "fields",
            "versioning,retentionPolicy,objectRetention,softDeletePolicy",
        );
        self.get(&url).await
    }

    async fn get(&self, url: &Url) -> object_store::Result<String> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse().map_err(generic)?;
        if !self.is_anonymous {
            let credentials = self.client.store.credentials();
            let credential = credentials.get_credential().await?;
            let bearer = format!("Bearer {}", credential.bearer);
            let mut value = HeaderValue::from_str(&bearer).map_err(generic)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        text_of(self.http.execute(request).await.map_err(generic)?).await
    }
}

#[async_trait]
impl Paged for Gcs {
    async fn ask(&self, query: &[(&str, &str)]) -> object_store::Result<String> {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(query);
        self.get(&url).await
    }
}

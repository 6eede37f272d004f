//! A bucket of S3: how it is opened, and what its own requests need besides.

use std::sync::Arc;

use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::client::HttpClient;
use secrecy::ExposeSecret;
use url::Url;

use super::credentials::{self, Credentials};
use super::options::{S3Options, Target, builder_of};
use crate::cloud::client::{Client, Store, check_prefix};
use crate::cloud::codes;
use crate::cloud::compared::Compared;
use crate::cloud::options::no_retries;
use crate::cloud::retry::Patience;
use crate::cloud::source::SourceProvider;
use crate::cloud::transport::Connector;
use crate::{Error, Result};
use pgkeep_model::part_sizes::Limits;

impl Store for AmazonS3 {
    type Objects = Self;

    fn objects(&self) -> &Self {
        self
    }
}

/// A bucket and a prefix. Clones share connections and credentials.
#[derive(Clone)]
pub(super) struct Bucket {
    pub(super) client: Arc<Client<AmazonS3>>,
    /// For the requests that object_store has no verb for.
    pub(super) http: HttpClient,
    pub(super) url: Url,
    pub(super) region: String,
}

impl Bucket {
    pub(super) fn open(bucket: &str, prefix: &str, options: &S3Options) -> Result<Self> {
        if bucket.is_empty() {
            return Err(Error::setup(
                "the storage's URL names no bucket",
                "it looks like `s3://bucket/prefix`",
            ));
        }
        let environment = builder_of(&options.cloud.environment);
        let target = options.target(bucket, &environment)?;
        let cloud = &options.cloud;
        let connector = Connector::new(
            &target.bucket_url,
            cloud.certificates()?,
            cloud.stall_timeout,
        )?;
        let login = credentials::words(&options.credentials, &environment);
        let store = build(bucket, options, environment, &target, connector.clone())?;
        let prefix = check_prefix(prefix)?;
        let label = format!("s3://{bucket}/{prefix}")
            .trim_end_matches('/')
            .to_owned();
        let client = Client {
            store,
            patience: Patience::new(cloud.retry_budget, &label),
            label,
            prefix,
            part_sizes: cloud.part_sizes()?,
            limits: Limits::S3,
            compared: Compared::ETag,
            dialect: &codes::S3,
            login,
        };
        Ok(Self {
            client: Arc::new(client),
            http: connector.http().clone(),
            url: target.bucket_url,
            region: target.region,
        })
    }
}

fn build(
    bucket: &str,
    options: &S3Options,
    environment: AmazonS3Builder,
    target: &Target,
    connector: Connector,
) -> Result<AmazonS3> {
    let signing = match &options.credentials {
        Credentials::Environment => environment,
        Credentials::Keys {
            access_key_id,
            secret_access_key,
            session_token,
        } => {
            let builder = AmazonS3Builder::new()
                .with_access_key_id(access_key_id)
                .with_secret_access_key(secret_access_key.expose_secret());
            match session_token {
                Some(token) => builder.with_token(token.expose_secret()),
                None => builder,
            }
        }
        Credentials::Source(source) => AmazonS3Builder::new()
            .with_credentials(Arc::new(SourceProvider::new(Arc::clone(source)))),
    };
    let mut builder = signing
        .with_bucket_name(bucket)
        .with_region(&target.region)
        // The bucket is in the URL already, wherever it belongs; virtual-hosted means to leave it alone. This key
        // wins over whatever endpoint the environment names.
        .with_config(
            AmazonS3ConfigKey::S3Endpoint,
            target.bucket_url.as_str().trim_end_matches('/'),
        )
        .with_virtual_hosted_style_request(true)
        .with_client_options(
            ClientOptions::new().with_allow_http(target.bucket_url.scheme() == "http"),
        )
        .with_http_connector(connector)
        .with_retry(no_retries())
        .with_skip_signature(false)
        // One DELETE per object is understood everywhere, and needs no second permission.
        .with_disable_bulk_delete(true);
    if target.is_aws {
        // Every request's bytes are signed and so checked on arrival anyway; AWS stores this checksum besides, while
        // some other stores refuse a request that has one.
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    builder.build().map_err(|error| Error::Setup {
        message: format!("`s3://{bucket}` cannot be used: {error}"),
        hint: None,
    })
}

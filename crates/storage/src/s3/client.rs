//! One bucket as pgkeep uses it: every request goes through here, with its retries and its words.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::client::HttpClient;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectMeta, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use object_store::{ObjectStore, PutOptions};
use secrecy::ExposeSecret;

use super::credentials::{Credentials, SourceProvider};
use super::fault::Trouble;
use super::options::{S3Options, Target};
use super::retry::Patience;
use super::transport::Connector;
use crate::{Error, Object, Result};
use pgkeep_model::part_sizes::PartSizes;

/// A bucket and a prefix, with what it takes to talk to them.
pub(super) struct Client {
    pub(super) store: AmazonS3,
    /// For the requests that object_store has no verb for.
    pub(super) http: HttpClient,
    pub(super) bucket_url: String,
    pub(super) region: String,
    /// Empty, or path segments ended by a slash.
    pub(super) prefix: String,
    pub(super) label: String,
    pub(super) patience: Patience,
    /// Set where the configuration fixes the size of parts.
    pub(super) part_sizes: Option<PartSizes>,
}

impl Client {
    pub(super) fn new(bucket: &str, prefix: &str, options: &S3Options) -> Result<Self> {
        if bucket.is_empty() {
            return Err(Error::setup(
                "the storage's URL names no bucket",
                "it looks like `s3://bucket/prefix`",
            ));
        }
        let environment = options.environment.builder();
        let target = options.target(bucket, &environment)?;
        let certificates = load_certificates(options.ca_certificate.as_deref())?;
        let connector = Connector::new(target.is_plain_http, certificates, options.stall_timeout)?;
        let store = build(bucket, options, environment, &target, connector.clone())?;
        let prefix = check_prefix(prefix)?;
        Ok(Self {
            store,
            http: connector.store().clone(),
            bucket_url: target.bucket_url,
            region: target.region,
            label: format!("s3://{bucket}/{prefix}")
                .trim_end_matches('/')
                .to_owned(),
            prefix,
            patience: Patience::new(options.retry_budget),
            part_sizes: options.part_sizes()?,
        })
    }

    /// Returns where in the bucket a key lies.
    pub(super) fn path(&self, key: &str) -> Path {
        Path::parse(format!("{}{key}", self.prefix)).expect("prefix and key were both checked")
    }

    /// Says in words what went wrong.
    pub(super) fn explain(&self, trouble: Trouble, verb: &str, key: &str) -> Error {
        trouble.explain(&self.label, &what(verb, key))
    }

    /// Says in words why something could not be read.
    pub(super) fn explain_reading(&self, trouble: Trouble, key: &str) -> Error {
        if trouble.is_missing() {
            return Error::NotFound(key.to_owned());
        }
        self.explain(trouble, "reading", key)
    }

    /// Looks an object up.
    pub(super) async fn find(&self, key: &str) -> std::result::Result<Object, Trouble> {
        let path = self.path(key);
        let meta = self.patience.persist(|| self.store.head(&path)).await?;
        Ok(to_object(key, &meta))
    }

    /// Returns size and time of an object.
    pub(super) async fn head(&self, key: &str) -> Result<Object> {
        let found = self.find(key).await;
        found.map_err(|trouble| self.explain_reading(trouble, key))
    }

    /// Fails if the key is taken.
    ///
    /// Whoever may write but not list is answered 403 for a key that is free, so a refusal passes: the write that
    /// follows tells.
    pub(super) async fn check_absent(&self, key: &str) -> Result<()> {
        match self.find(key).await {
            Ok(_) => Err(Error::Exists(key.to_owned())),
            Err(trouble) if matches!(trouble.status(), Some(403 | 404)) => Ok(()),
            Err(trouble) => Err(self.explain(trouble, "looking up", key)),
        }
    }

    /// Writes an object in one request, unless the key is taken.
    ///
    /// The key is looked up first because some stores take `If-None-Match` and overwrite all the same.
    pub(super) async fn create(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.check_absent(key).await?;
        let trouble = match self.put(key, &bytes, PutMode::Create).await {
            Ok(()) => return Ok(()),
            Err(trouble) => trouble,
        };
        if trouble.is_unknown_request() {
            // The store knows no `If-None-Match`; the look-up must do.
            let put = self.put(key, &bytes, PutMode::Overwrite).await;
            return put.map_err(|trouble| self.explain(trouble, "writing", key));
        }
        // It was free a moment ago: either somebody else was faster, or the answer to our own first try got lost.
        let is_conflict = matches!(trouble.status(), Some(409 | 412));
        match is_conflict {
            true if self.holds(key, &bytes).await => Ok(()),
            true => Err(Error::Exists(key.to_owned())),
            false => Err(self.explain(trouble, "writing", key)),
        }
    }

    async fn put(
        &self,
        key: &str,
        bytes: &Bytes,
        mode: PutMode,
    ) -> std::result::Result<(), Trouble> {
        let path = self.path(key);
        let put = self.patience.persist(|| {
            let options = PutOptions::from(mode.clone());
            let payload = PutPayload::from(bytes.clone());
            self.store.put_opts(&path, payload, options)
        });
        put.await.map(drop)
    }

    /// Tells whether an object has exactly these bytes.
    async fn holds(&self, key: &str, bytes: &Bytes) -> bool {
        let path = self.path(key);
        let read = self.patience.persist(|| async {
            let found = self.store.get(&path).await?;
            if found.meta.size != bytes.len() as u64 {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        });
        matches!(read.await, Ok(Some(found)) if found == *bytes)
    }

    /// Removes an object; one that is gone is fine.
    pub(super) async fn remove(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        match self.patience.persist(|| self.store.delete(&path)).await {
            Ok(()) => Ok(()),
            Err(trouble) if trouble.is_missing() => Ok(()),
            Err(trouble) => Err(self.explain(trouble, "removing", key)),
        }
    }

    /// Compares what the store has with what was sent, and takes away what differs.
    pub(super) async fn check_size(&self, key: &str, sent_bytes: u64) -> Result<u64> {
        let found = self.head(key).await?.size_bytes;
        if found == sent_bytes {
            return Ok(found);
        }
        let after = match self.remove(key).await {
            Ok(()) => "it was removed again".to_owned(),
            Err(error) => format!("it is still there: {error}"),
        };
        Err(Error::failed(format!(
            "writing `{key}` in `{}` failed: {sent_bytes} bytes were sent and {found} are stored; {after}",
            self.label
        )))
    }
}

/// Says what was being done; everything in a bucket, as a listing of all databases, has no name.
pub(super) fn what(verb: &str, key: &str) -> String {
    match key {
        "" => verb.to_owned(),
        key => format!("{verb} `{key}`"),
    }
}

/// Turns what object_store knows of an object into ours.
pub(super) fn to_object(key: &str, meta: &ObjectMeta) -> Object {
    let written = meta.last_modified;
    let nanos = written.timestamp_subsec_nanos().cast_signed();
    Object {
        key: key.to_owned(),
        size_bytes: meta.size,
        modified_at: Timestamp::new(written.timestamp(), nanos).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

fn build(
    bucket: &str,
    options: &S3Options,
    environment: AmazonS3Builder,
    target: &Target,
    connector: Connector,
) -> Result<AmazonS3> {
    let builder = match &options.credentials {
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
    let mut builder = builder
        .with_bucket_name(bucket)
        .with_region(&target.region)
        // The bucket is in the URL already, wherever it belongs; virtual-hosted means to leave it alone. This key
        // wins over whatever endpoint the environment names.
        .with_config(AmazonS3ConfigKey::S3Endpoint, &target.bucket_url)
        .with_virtual_hosted_style_request(true)
        .with_client_options(ClientOptions::new().with_allow_http(target.is_plain_http))
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

/// Turns off object_store's own retries: they neither sign anew nor know `Retry-After`.
fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        ..RetryConfig::default()
    }
}

fn load_certificates(path: Option<&FilePath>) -> Result<Vec<reqwest::Certificate>> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let refuse = |why: String| {
        Error::setup(
            format!(
                "the CA certificate `{}` cannot be used: {why}",
                path.display()
            ),
            "`ca_certificate` is the path of a PEM file",
        )
    };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let found =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| refuse(error.to_string()))?;
    if found.is_empty() {
        return Err(refuse("it holds no certificate".to_owned()));
    }
    Ok(found)
}

/// Returns the prefix with a slash at its end, or empty.
fn check_prefix(prefix: &str) -> Result<String> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }
    match Path::parse(prefix) {
        Ok(path) if path.as_ref() == prefix => Ok(format!("{prefix}/")),
        _ => Err(Error::Setup {
            message: format!("`{}` is not a prefix for keys", prefix.escape_debug()),
            hint: None,
        }),
    }
}

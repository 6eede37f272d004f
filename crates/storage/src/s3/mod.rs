//! A storage in a bucket of S3 or of a store that speaks its protocol.
//!
//! An object becomes visible by one request at the end and is measured afterwards; listings are read to their last
//! page or are an error. It never follows a redirect, never falls back to plain HTTP, and keeps no data on disk.

mod client;
mod credentials;
mod fault;
mod listing;
mod options;
mod reading;
mod retry;
mod transport;
mod upload;
mod versioned;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::{Object, Result, Storage, Swept, Upload, Version, key, read};
use client::Client;
pub use credentials::{CredentialSource, Credentials};
pub use options::{S3Environment, S3Options};
use upload::S3Upload;

/// Keeps objects in a bucket, below a prefix. Clones share connections and credentials.
#[derive(Clone)]
pub struct S3 {
    client: Arc<Client>,
}

impl S3 {
    /// Prepares a storage; nothing is sent until the first verb.
    ///
    /// `prefix` may be empty. [`Error::Setup`](super::Error::Setup) if the options contradict each other.
    pub fn open(bucket: &str, prefix: &str, options: &S3Options) -> Result<Self> {
        let client = Arc::new(Client::new(bucket, prefix, options)?);
        Ok(Self { client })
    }
}

#[async_trait]
impl Storage for S3 {
    fn label(&self) -> &str {
        &self.client.label
    }

    fn identity(&self) -> String {
        format!("s3 {} {}", self.client.bucket_url, self.client.prefix)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        key::check(key)?;
        self.client.create(key, bytes).await
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<Version> {
        key::check(key)?;
        versioned::create(&self.client, key, bytes).await
    }

    async fn get_versioned(&self, key: &str, limit: u64) -> Result<(Bytes, Version)> {
        key::check_readable(key)?;
        versioned::get(&self.client, key, limit).await
    }

    async fn replace(&self, key: &str, bytes: Bytes, version: &Version) -> Result<Version> {
        key::check(key)?;
        versioned::replace(&self.client, key, bytes, version).await
    }

    async fn start_upload(
        &self,
        key: &str,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn Upload>> {
        key::check(key)?;
        self.client.check_absent(key).await?;
        let client = Arc::clone(&self.client);
        Ok(Box::new(S3Upload::start(client, key, expected_bytes)))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes> {
        key::check_readable(key)?;
        let (object, stream) = reading::open(&self.client, key, None).await?;
        read::check_limit(key, object.size_bytes, limit)?;
        read::gather(object.size_bytes, stream).await
    }

    async fn stream(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        key::check_readable(key)?;
        let (_, stream) = reading::open(&self.client, key, range).await?;
        Ok(stream)
    }

    async fn head(&self, key: &str) -> Result<Object> {
        key::check_readable(key)?;
        self.client.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        key::check_prefix(prefix)?;
        listing::list(&self.client, prefix).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        key::check(key)?;
        self.client.remove(key).await
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<Swept> {
        key::check_prefix(prefix)?;
        listing::sweep(&self.client, prefix, older_than).await
    }
}

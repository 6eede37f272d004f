//! A storage in a bucket of S3 or of a store that speaks its protocol: what `cloud` does, with options, credentials and listings of S3.
//!
//! An object becomes visible by one request at the end and is measured afterwards; listings are read to their last
//! page or are an error. It never follows a redirect, never falls back to plain HTTP, and keeps no data on disk.

mod ask;
mod bucket;
mod credentials;
mod options;
mod protection;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use object_store::aws::AmazonS3;

use crate::cloud;
use crate::cloud::client::Client;
use crate::cloud::pages::{self, Paged};
use crate::{Error, Object, Protection, Result, Swept, Take};
use bucket::Bucket;
pub use credentials::Credentials;
pub use options::S3Options;

/// Keeps objects in a bucket, below a prefix. Clones share connections and credentials.
#[derive(Clone)]
pub struct S3 {
    bucket: Bucket,
}

impl S3 {
    /// Prepares a storage; nothing is sent until the first verb.
    ///
    /// `prefix` may be empty. [`Error::Setup`](super::Error::Setup) if the options contradict each other.
    pub fn open(bucket: &str, prefix: &str, options: &S3Options) -> Result<Self> {
        let bucket = Bucket::open(bucket, prefix, options)?;
        Ok(Self { bucket })
    }
}

#[async_trait]
impl cloud::Bucket for S3 {
    type Store = AmazonS3;

    fn client(&self) -> &Arc<Client<AmazonS3>> {
        &self.bucket.client
    }

    fn identity(&self) -> String {
        let url = self.bucket.url.as_str().trim_end_matches('/');
        format!("s3 {url} {}", self.bucket.client.prefix)
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
        Some(protection::of_bucket(&self.bucket).await)
    }

    async fn why_kept(&self, key: &str, refused: Error) -> Error {
        protection::why_kept(&self.bucket, key, refused).await
    }
}

#[async_trait]
impl Paged for S3 {
    async fn ask(&self, query: &[(&str, &str)]) -> object_store::Result<String> {
        ask::get(&self.bucket, None, query).await
    }
}

//! A storage in a bucket of S3 or of a store that speaks its protocol: what `cloud` does, with options, credentials and listings of S3.
//!
//! An object becomes visible by one request at the end and is measured afterwards; listings are read to their last
//! page or are an error. It never follows a redirect, never falls back to plain HTTP, and keeps no data on disk.

mod bucket;
mod credentials;
mod listing;
mod options;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use object_store::aws::AmazonS3;

use crate::cloud::{self, client::Client};
use crate::{Object, Result, Swept};
use bucket::Bucket;
pub use credentials::{CredentialSource, Credentials};
pub use options::{S3Environment, S3Options};

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
        format!("s3 {} {}", self.bucket.url, self.bucket.client.prefix)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        listing::list(&self.bucket, prefix).await
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<Swept> {
        listing::sweep(&self.bucket, prefix, older_than).await
    }
}

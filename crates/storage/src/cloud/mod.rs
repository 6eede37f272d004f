//! What all object stores have in common, over `object_store`'s traits: requests and their retries, faults, uploads, reading.
//!
//! A store brings a [`Bucket`], its options, its credentials and its listings, and is a [`Storage`] by that. It sees to it that every
//! request goes through [`transport`], which knows what a store's refusals and outages mean.

pub(crate) mod client;
pub(crate) mod codes;
pub(crate) mod compared;
pub(crate) mod environment;
pub(crate) mod fault;
mod hiding;
pub(crate) mod options;
mod pace;
pub(crate) mod pages;
mod reading;
pub(crate) mod retry;
pub(crate) mod source;
mod sums;
pub(crate) mod transport;
mod upload;
mod versioned;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use crate::{
    Error, Object, Protection, Removed, Result, Storage, Swept, Take, Upload, Version, key, read,
};
use client::{Client, Store};
use upload::CloudUpload;

/// What differs from store to store.
#[async_trait]
pub(crate) trait Bucket: Send + Sync {
    /// What requests are made with.
    type Store: Store;

    /// Returns the connection to the bucket.
    fn client(&self) -> &Arc<Client<Self::Store>>;

    /// See [`Storage::identity`].
    fn identity(&self) -> String;

    /// See [`Storage::list`]; the prefix was checked.
    async fn list(&self, prefix: &str) -> Result<Vec<Object>>;

    /// See [`Storage::list_each`]; the prefix was checked.
    async fn list_each(&self, prefix: &str, take: Take<'_>) -> Result<()> {
        Bucket::list(self, prefix).await?.iter().for_each(take);
        Ok(())
    }

    /// See [`Storage::sweep`]; the prefix was checked.
    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<Swept>;

    /// See [`Storage::protection`].
    async fn protection(&self) -> Option<Protection> {
        None
    }

    /// Finds out more about a removal that was refused: whether the object is locked, and until when.
    async fn why_kept(&self, _key: &str, refused: Error) -> Error {
        refused
    }
}

#[async_trait]
impl<B: Bucket + 'static> Storage for B {
    fn label(&self) -> &str {
        &self.client().label
    }

    fn identity(&self) -> String {
        Bucket::identity(self)
    }

    fn login(&self) -> Option<&str> {
        Some(&self.client().login)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        key::check(key)?;
        self.client().create(key, bytes).await
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<Version> {
        key::check(key)?;
        versioned::create(self.client(), key, bytes).await
    }

    async fn get_versioned(&self, key: &str, limit: u64) -> Result<(Bytes, Version)> {
        key::check_readable(key)?;
        versioned::get(self.client(), key, limit).await
    }

    async fn replace(&self, key: &str, bytes: Bytes, version: &Version) -> Result<Version> {
        key::check(key)?;
        versioned::replace(self.client(), key, bytes, version).await
    }

    async fn start_upload(
        &self,
        key: &str,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn Upload>> {
        key::check(key)?;
        self.client().check_absent(key).await?;
        let client = Arc::clone(self.client());
        Ok(Box::new(CloudUpload::start(client, key, expected_bytes)))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes> {
        key::check_readable(key)?;
        let (object, stream) = reading::open(self.client(), key, None).await?;
        read::check_limit(key, object.size_bytes, limit)?;
        read::gather(object.size_bytes, stream).await
    }

    async fn stream(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        key::check_readable(key)?;
        let (_, stream) = reading::open(self.client(), key, range).await?;
        Ok(stream)
    }

    async fn head(&self, key: &str) -> Result<Object> {
        key::check_readable(key)?;
        self.client().head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        key::check_prefix(prefix)?;
        Bucket::list(self, prefix).await
    }

    async fn list_each(&self, prefix: &str, take: Take<'_>) -> Result<()> {
        key::check_prefix(prefix)?;
        Bucket::list_each(self, prefix, take).await
    }

    async fn remove(&self, key: &str) -> Result<Removed> {
        key::check(key)?;
        match self.client().remove(key).await {
            Err(refused @ (Error::Denied { .. } | Error::Retained { .. })) => {
                Err(self.why_kept(key, refused).await)
            }
            removed => removed,
        }
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<Swept> {
        key::check_prefix(prefix)?;
        Bucket::sweep(self, prefix, older_than).await
    }

    async fn protection(&self) -> Option<Protection> {
        Bucket::protection(self).await
    }
}

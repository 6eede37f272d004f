//! A storage that takes new objects and gives none up, because its owner said so: no removal is even asked for.
//!
//! For a key without the right to delete, and for a bucket whose own lifecycle frees the space.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::{Error, Object, Protection, Removed, Result, Storage, Swept, Take, Upload, Version};

/// Passes everything on but removals.
pub struct AppendOnly {
    inner: Arc<dyn Storage>,
}

impl AppendOnly {
    /// Puts itself in front of a storage.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl Storage for AppendOnly {
    fn label(&self) -> &str {
        self.inner.label()
    }

    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn login(&self) -> Option<&str> {
        self.inner.login()
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.inner.put(key, bytes).await
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<Version> {
        self.inner.create(key, bytes).await
    }

    async fn get_versioned(&self, key: &str, limit: u64) -> Result<(Bytes, Version)> {
        self.inner.get_versioned(key, limit).await
    }

    async fn replace(&self, key: &str, bytes: Bytes, version: &Version) -> Result<Version> {
        self.inner.replace(key, bytes, version).await
    }

    async fn start_upload(
        &self,
        key: &str,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn Upload>> {
        self.inner.start_upload(key, expected_bytes).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes> {
        self.inner.get(key, limit).await
    }

    async fn stream(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.inner.stream(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Object> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        self.inner.list(prefix).await
    }

    async fn list_each(&self, prefix: &str, take: Take<'_>) -> Result<()> {
        self.inner.list_each(prefix, take).await
    }

    /// Looks whether there is anything to remove, and refuses if there is.
    async fn remove(&self, key: &str) -> Result<Removed> {
        match self.inner.head(key).await {
            Err(Error::NotFound(_)) => Ok(Removed::Freed),
            Err(error @ Error::Failed { .. }) => Err(error),
            _ => Err(Error::Retained {
                message: format!(
                    "removing `{key}` in `{}` was not tried: the storage is `append_only`",
                    self.label()
                ),
                until: None,
                hint: None,
            }),
        }
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<Swept> {
        self.inner.sweep(prefix, older_than).await
    }

    async fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes().await
    }

    async fn protection(&self) -> Option<Protection> {
        self.inner.protection().await
    }

    fn is_append_only(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, Verb};

    #[tokio::test]
    async fn nothing_is_removed_or_even_asked_for() {
        let memory = Memory::new();
        memory.fail(Verb::Remove, || Error::failed("asked"));
        let storage = AppendOnly::new(Arc::new(memory.clone()));
        storage.put("a", Bytes::new()).await.unwrap();
        let refused = storage.remove("a").await.unwrap_err();
        assert!(matches!(refused, Error::Retained { .. }), "{refused}");
        assert_eq!(storage.remove("b").await.unwrap(), Removed::Freed);
        assert_eq!(memory.keys(), ["a"]);
        assert!(storage.is_append_only() && !memory.is_append_only());
    }
}

//! A storage that is read through a memory: small objects that are written once need not be fetched again.
//!
//! Leases and the note of the last drill change, and are always asked for. What is removed is found by a listing, never
//! here: nobody asks for an object that is not listed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use pgkeep_model::keys::{Part, Place};
use pgkeep_storage::{
    Error, Object, Protection, Removed, Result, Storage, Swept, Take, Upload, Version,
};

/// Larger objects, such as manifests of thousands of tables, are fetched each time.
const MAX_OBJECT_BYTES: usize = 16 * 1024;

/// How much is kept of one storage.
const MAX_BYTES: usize = 16 << 20;

/// The memory of one storage: two generations, so that what is not asked for any more is forgotten.
#[derive(Default)]
struct Memory {
    young: HashMap<String, Bytes>,
    old: HashMap<String, Bytes>,
    young_bytes: usize,
}

impl Memory {
    fn find(&mut self, key: &str) -> Option<Bytes> {
        if let Some(bytes) = self.young.get(key) {
            return Some(bytes.clone());
        }
        let bytes = self.old.remove(key)?;
        self.keep(key, bytes.clone());
        Some(bytes)
    }

    fn keep(&mut self, key: &str, bytes: Bytes) {
        let size = key.len() + bytes.len();
        if self.young_bytes + size > MAX_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += size;
        self.young.insert(key.to_owned(), bytes);
    }

    fn forget(&mut self, key: &str) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

/// A storage and what is remembered of it.
pub struct Remembering {
    inner: Arc<dyn Storage>,
    memory: Mutex<Memory>,
}

impl Remembering {
    /// Reads `inner` through a memory of its own.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            memory: Mutex::default(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        // A map is whole at every moment.
        work(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tells whether the object under a key never changes.
fn is_written_once(key: &str) -> bool {
    matches!(Place::of_key(key), Some((_, Part::Manifest)))
}

#[async_trait]
impl Storage for Remembering {
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

    async fn start_upload(
        &self,
        key: &str,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn Upload>> {
        self.inner.start_upload(key, expected_bytes).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes> {
        if !is_written_once(key) {
            return self.inner.get(key, limit).await;
        }
        if let Some(bytes) = self.with(|memory| memory.find(key)) {
            return if bytes.len() as u64 > limit {
                Err(Error::TooLarge {
                    key: key.to_owned(),
                    limit,
                })
            } else {
                Ok(bytes)
            };
        }
        let bytes = self.inner.get(key, limit).await?;
        if bytes.len() <= MAX_OBJECT_BYTES {
            // A copy, so that no larger buffer stays behind it.
            let own = Bytes::copy_from_slice(&bytes);
            self.with(|memory| memory.keep(key, own));
        }
        Ok(bytes)
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

    async fn remove(&self, key: &str) -> Result<Removed> {
        self.with(|memory| memory.forget(key));
        self.inner.remove(key).await
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
        self.inner.is_append_only()
    }
}

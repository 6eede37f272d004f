//! A storage that cannot be used: it answers every verb with the reason, so that the others beside it go on.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::{Error, Object, Removed, Result, Storage, Swept, Upload, Version};

/// Stands for a storage that could not be opened.
pub struct Absent {
    label: String,
    message: String,
    hint: Option<String>,
}

impl Absent {
    /// Makes it out of what went wrong.
    pub fn new(label: impl Into<String>, error: &Error) -> Self {
        Self {
            label: label.into(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }

    fn error<T>(&self) -> Result<T> {
        Err(Error::Setup {
            message: self.message.clone(),
            hint: self.hint.clone(),
        })
    }
}

#[async_trait]
impl Storage for Absent {
    fn label(&self) -> &str {
        &self.label
    }

    fn identity(&self) -> String {
        self.label.clone()
    }

    async fn put(&self, _: &str, _: Bytes) -> Result<()> {
        self.error()
    }

    async fn create(&self, _: &str, _: Bytes) -> Result<Version> {
        self.error()
    }

    async fn get_versioned(&self, _: &str, _: u64) -> Result<(Bytes, Version)> {
        self.error()
    }

    async fn replace(&self, _: &str, _: Bytes, _: &Version) -> Result<Version> {
        self.error()
    }

    async fn start_upload(&self, _: &str, _: Option<u64>) -> Result<Box<dyn Upload>> {
        self.error()
    }

    async fn get(&self, _: &str, _: u64) -> Result<Bytes> {
        self.error()
    }

    async fn stream(
        &self,
        _: &str,
        _: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.error()
    }

    async fn head(&self, _: &str) -> Result<Object> {
        self.error()
    }

    async fn list(&self, _: &str) -> Result<Vec<Object>> {
        self.error()
    }

    async fn remove(&self, _: &str) -> Result<Removed> {
        self.error()
    }

    async fn sweep(&self, _: &str, _: Timestamp) -> Result<Swept> {
        self.error()
    }
}

//! Where backups live: a few verbs over keys, the same for a folder, a bucket of S3, GCS or Azure, what rclone reaches, and
//! memory.
//!
//! An object becomes visible whole or not at all. Listings are complete or an error, never cut short in silence.

mod absent;
mod append_only;
mod azure;
mod cloud;
mod folder;
mod gcs;
mod haste;
pub mod key;
mod memory;
mod open;
mod protection;
mod rclone;
mod read;
mod s3;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use thiserror::Error;

pub use absent::Absent;
pub use append_only::AppendOnly;
pub use azure::{Azure, AzureCredentials, AzureOptions};
pub use cloud::environment::CloudEnvironment;
pub use cloud::options::CloudOptions;
pub use cloud::source::CredentialSource;
pub use folder::Folder;
pub use gcs::{Gcs, GcsCredentials, GcsOptions};
pub use haste::{ANSWER_LIMIT, Haste};
pub use memory::{Memory, Verb};
pub use open::{Options, open};
pub use protection::{Answer, Lock, Period, Protection, Versions};
pub use rclone::{Rclone, RcloneOptions};
pub use s3::{Credentials, S3, S3Options};

/// What a storage says when a verb fails.
#[derive(Debug, Error)]
pub enum Error {
    /// No object has this key.
    #[error("no object `{0}`")]
    NotFound(String),
    /// An object with this key is already there.
    #[error("`{0}` already exists")]
    Exists(String),
    /// The object is not, or no longer, the one that was to be replaced.
    #[error("`{0}` was changed by another program")]
    Changed(String),
    /// The storage knows no writes that depend on what is there.
    #[error("{0}")]
    Unconditional(String),
    /// Login or permission refused; trying again does not help.
    #[error("{message}")]
    Denied {
        /// What was refused, in words.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The object is there to stay: a lock, a retention policy or a hold forbids to remove or to replace it.
    #[error("{message}")]
    Retained {
        /// What was refused, in words.
        message: String,
        /// Until when, where the storage tells.
        until: Option<Timestamp>,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The object is larger than the reader allows.
    #[error("`{key}` is larger than {limit} bytes")]
    TooLarge {
        /// Which object.
        key: String,
        /// What was allowed.
        limit: u64,
    },
    /// The storage is set up wrongly: not a folder, a planted link, a bad URL.
    #[error("{message}")]
    Setup {
        /// What is wrong, in words.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A program that reaches it is missing, or too old.
    #[error("{message}")]
    Program {
        /// What is wrong, in words.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// Anything else: full, unreachable, broken.
    #[error("{message}")]
    Failed {
        /// What failed, in words.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// The deeper cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Error {
    /// Makes an [`Error::Failed`] without hint or cause.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// Makes an [`Error::Setup`] with its next move.
    pub fn setup(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Setup {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// Returns the next move, where one is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Setup { hint, .. }
            | Self::Denied { hint, .. }
            | Self::Retained { hint, .. }
            | Self::Failed { hint, .. } => hint.as_deref(),
            Self::Program { hint, .. } => Some(hint),
            _ => None,
        }
    }
}

/// What became of a removed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone, and its bytes are free; or it was not there.
    Freed,
    /// Nobody sees it any more, and its bytes are kept: the storage keeps versions or deleted objects for a while.
    Hidden,
}

/// Result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

/// One listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Key below the storage's prefix, parts separated by `/`.
    pub key: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was last written, by the storage's own clock; [`Storage::head`] may know it to the second only.
    pub modified_at: Timestamp,
}

/// Takes one object of a listing after the other.
pub type Take<'t> = &'t mut (dyn FnMut(&Object) + Send);

/// One state of a small object; a storage gives it out and compares it, nobody else reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Tells one content from another: an entity tag, a hash.
    tag: String,
    /// The number of the write, where the store compares that.
    generation: Option<String>,
}

impl Version {
    /// Returns a version that no object ever has.
    pub fn never() -> Self {
        // With its quotes it is an entity tag too.
        Self {
            tag: format!("\"{}\"", "0".repeat(32)),
            // GCS takes 0 for "there is none".
            generation: Some("1".to_owned()),
        }
    }

    /// Makes a version that its tag alone tells from others.
    fn of(tag: String) -> Self {
        Self {
            tag,
            generation: None,
        }
    }
}

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Unfinished writes that were removed.
    pub removed: u64,
    /// What could not be removed, in words.
    pub warnings: Vec<String>,
}

/// Holds backups under keys.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Returns where it is, for people and without secrets: `./backups`, `s3://bucket/prefix`.
    fn label(&self) -> &str;

    /// Returns what tells this storage from all others, also where two ways of writing its name differ.
    fn identity(&self) -> String;

    /// Returns as whom it is used, in words and without secrets; `None` where nobody logs in.
    fn login(&self) -> Option<&str> {
        None
    }

    /// Writes a small object unless the key exists ([`Error::Exists`]).
    ///
    /// Where the storage cannot refuse by itself (it ignores conditional puts), the key is looked up first.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()>;

    /// Starts a large object of unknown size; nothing is visible until [`Upload::finish`].
    ///
    /// `expected_bytes` is a guess that sets part sizes; a wrong one costs memory, never correctness.
    async fn start_upload(&self, key: &str, expected_bytes: Option<u64>)
    -> Result<Box<dyn Upload>>;

    /// Reads an object of at most `limit` bytes ([`Error::TooLarge`] otherwise).
    async fn get(&self, key: &str, limit: u64) -> Result<Bytes>;

    /// Writes a small object unless the key exists ([`Error::Exists`]), and returns its version.
    ///
    /// Unlike [`Storage::put`] it relies on the storage alone: of two writers one loses, or the storage says that it
    /// knows no such condition ([`Error::Unconditional`]). One that ignores conditions overwrites, which anyone who
    /// relies on them has to find out. The object need not survive a power failure.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<Version>;

    /// Reads an object of at most `limit` bytes, and its version.
    async fn get_versioned(&self, key: &str, limit: u64) -> Result<(Bytes, Version)>;

    /// Writes a small object over the one of this version ([`Error::Changed`] if there is another or none), and returns
    /// the new version. The same is promised as by [`Storage::create`].
    async fn replace(&self, key: &str, bytes: Bytes, version: &Version) -> Result<Version>;

    /// Streams an object, or a byte range of it.
    ///
    /// The stream ends only after the last byte; a range that is not wholly inside the object is an error.
    async fn stream(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// Returns size and time of one object.
    async fn head(&self, key: &str) -> Result<Object>;

    /// Lists every object whose key starts with `prefix`, sorted by key.
    async fn list(&self, prefix: &str) -> Result<Vec<Object>>;

    /// Hands out what [`list`](Self::list) returns, in any order, without holding all of it at once where the storage can
    /// do so. After an error, what was handed out is not all there is.
    async fn list_each(&self, prefix: &str, take: Take<'_>) -> Result<()> {
        self.list(prefix).await?.iter().for_each(take);
        Ok(())
    }

    /// Removes an object; one that is already gone is not an error, and one that must stay is [`Error::Retained`].
    async fn remove(&self, key: &str) -> Result<Removed>;

    /// Removes unfinished writes under `prefix` that no live run can own: staging files whose writer is dead,
    /// multipart uploads started before `older_than`.
    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<Swept>;

    /// Returns how many bytes can still be written, where the storage can tell.
    async fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Returns what keeps objects from being destroyed, as far as the storage tells; none where it has nothing of the kind.
    async fn protection(&self) -> Option<Protection> {
        None
    }

    /// Tells whether nothing is to be removed here, so that asking for it makes no sense.
    fn is_append_only(&self) -> bool {
        false
    }
}

/// A large object on its way. Dropping it without [`Upload::finish`] leaves nothing visible.
///
/// After an error of [`Upload::write`] or [`Upload::finish`] what was written is removed already.
#[async_trait]
pub trait Upload: Send {
    /// Takes the next bytes, in order.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes the object visible and durable, and returns its size as the storage tells it.
    async fn finish(self: Box<Self>) -> Result<u64>;

    /// Gives up and removes what was written.
    async fn abort(self: Box<Self>) -> Result<()>;
}

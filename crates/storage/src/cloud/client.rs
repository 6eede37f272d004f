//! One bucket as pgkeep uses it, whatever store it lies in: every request goes through here, with its retries and its words.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::codes::Dialect;
use super::compared::Compared;
use super::fault::Trouble;
use super::hiding;
use super::retry::Patience;
use crate::{Error, Object, Removed, Result};
use pgkeep_model::part_sizes::{Limits, PartSizes};

/// What a store has to offer: objects, and uploads in parts.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// What object_store knows the store as.
    type Objects: ObjectStore + MultipartStore;

    /// Returns it.
    fn objects(&self) -> &Self::Objects;

    /// Removes one object.
    async fn delete(&self, path: &Path) -> object_store::Result<()> {
        self.objects().delete(path).await
    }
}

/// A bucket and a prefix, with what it takes to talk to them.
pub(crate) struct Client<S> {
    pub(crate) store: S,
    /// Empty, or path segments ended by a slash.
    pub(crate) prefix: String,
    pub(crate) label: String,
    pub(crate) patience: Patience,
    /// Set where the configuration fixes the size of parts.
    pub(crate) part_sizes: Option<PartSizes>,
    pub(crate) limits: Limits,
    pub(crate) compared: Compared,
    pub(crate) dialect: &'static Dialect,
    /// Who signs, in words.
    pub(crate) login: String,
}

impl<S: Store> Client<S> {
    /// Returns where in the bucket a key lies.
    pub(crate) fn path(&self, key: &str) -> Path {
        Path::parse(format!("{}{key}", self.prefix)).expect("prefix and key were both checked")
    }

    /// Says in words what went wrong.
    pub(crate) fn explain(&self, trouble: Trouble, verb: &str, key: &str) -> Error {
        trouble.explain(self.dialect, &self.label, &what(verb, key))
    }

    /// Says in words why something could not be read.
    pub(crate) fn explain_reading(&self, trouble: Trouble, key: &str) -> Error {
        if trouble.is_missing() {
            return Error::NotFound(key.to_owned());
        }
        self.explain(trouble, "reading", key)
    }

    /// Looks an object up.
    pub(crate) async fn find(&self, key: &str) -> std::result::Result<Object, Trouble> {
        let path = self.path(key);
        let meta = self
            .patience
            .persist(|| self.store.objects().head(&path))
            .await?;
        Ok(to_object(key, &meta))
    }

    /// Returns size and time of an object.
    pub(crate) async fn head(&self, key: &str) -> Result<Object> {
        let found = self.find(key).await;
        found.map_err(|trouble| self.explain_reading(trouble, key))
    }

    /// Fails if the key is taken.
    ///
    /// Whoever may write but not list is answered 403 for a key that is free, so a refusal passes: the write that
    /// follows tells.
    pub(crate) async fn check_absent(&self, key: &str) -> Result<()> {
        match self.find(key).await {
            Ok(_) => Err(Error::Exists(key.to_owned())),
            Err(trouble) if matches!(trouble.status(), Some(403 | 404)) => Ok(()),
            Err(trouble) => Err(self.explain(trouble, "looking up", key)),
        }
    }

    /// Writes an object in one request, unless the key is taken.
    ///
    /// The key is looked up first because some stores take `If-None-Match` and overwrite all the same.
    pub(crate) async fn create(&self, key: &str, bytes: Bytes) -> Result<()> {
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
        // A locked object may be refused before the condition is looked at.
        match trouble.is_conflict() || trouble.is_retained() {
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
        let put = self.patience.persist_slowly(|| {
            let options = PutOptions::from(mode.clone());
            let payload = PutPayload::from(bytes.clone());
            self.store.objects().put_opts(&path, payload, options)
        });
        put.await.map(drop)
    }

    /// Tells whether an object has exactly these bytes.
    async fn holds(&self, key: &str, bytes: &Bytes) -> bool {
        let path = self.path(key);
        let read = self.patience.persist(|| async {
            let found = self.store.objects().get(&path).await?;
            if found.meta.size != bytes.len() as u64 {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        });
        matches!(read.await, Ok(Some(found)) if found == *bytes)
    }

    /// Removes an object; one that is gone is fine.
    pub(crate) async fn remove(&self, key: &str) -> Result<Removed> {
        let path = self.path(key);
        let removal = self.patience.persist(|| self.store.delete(&path));
        match hiding::watched(removal).await {
            (Ok(()), removed) => Ok(removed),
            (Err(trouble), _) if trouble.is_missing() => Ok(Removed::Freed),
            (Err(trouble), _) => Err(self.explain(trouble, "removing", key)),
        }
    }

    /// Compares what the store has with what was sent, and takes away what differs.
    pub(crate) async fn check_size(&self, key: &str, sent_bytes: u64) -> Result<u64> {
        let found = self.head(key).await?.size_bytes;
        if found == sent_bytes {
            return Ok(found);
        }
        let after = match self.remove(key).await {
            Ok(_) => "it was removed again".to_owned(),
            Err(error) => format!("it is still there: {error}"),
        };
        Err(Error::failed(format!(
            "writing `{key}` in `{}` failed: {sent_bytes} bytes were sent and {found} are stored; {after}",
            self.label
        )))
    }
}

/// Says what was being done; everything in a bucket, as a listing of all databases, has no name.
pub(crate) fn what(verb: &str, key: &str) -> String {
    match key {
        "" => verb.to_owned(),
        key => format!("{verb} `{key}`"),
    }
}

/// Turns what object_store knows of an object into ours.
pub(crate) fn to_object(key: &str, meta: &ObjectMeta) -> Object {
    let written = meta.last_modified;
    let nanos = written.timestamp_subsec_nanos().cast_signed();
    Object {
        key: key.to_owned(),
        size_bytes: meta.size,
        modified_at: Timestamp::new(written.timestamp(), nanos).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// Returns the prefix with a slash at its end, or empty.
pub(crate) fn check_prefix(prefix: &str) -> Result<String> {
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

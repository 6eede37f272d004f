//! A storage in memory: honest about every promise of the trait, and able to fail on demand.
//!
//! It keeps nothing beyond its own life. Operations are tested against it; no configuration can choose it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;

use super::{Error, Object, Removed, Result, Storage, Swept, Upload, Version, key, read};

/// Streams hand out pieces of this size, so that readers meet more than one.
const PIECE_BYTES: usize = 64 * 1024;

/// A verb of [`Storage`] that can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// [`Storage::put`].
    Put,
    /// [`Storage::create`].
    Create,
    /// [`Storage::replace`].
    Replace,
    /// [`Storage::start_upload`].
    StartUpload,
    /// [`Upload::write`].
    Write,
    /// [`Upload::finish`].
    Finish,
    /// [`Storage::get`] and [`Storage::get_versioned`].
    Get,
    /// [`Storage::stream`].
    Stream,
    /// [`Storage::head`].
    Head,
    /// [`Storage::list`].
    List,
    /// [`Storage::remove`].
    Remove,
    /// [`Storage::sweep`].
    Sweep,
}

/// Holds objects in memory; clones share them.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

type Fault = Arc<dyn Fn() -> Error + Send + Sync>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    faults: HashMap<Verb, Fault>,
    unfinished: u64,
    /// Writes so far, which are the versions.
    writes: u64,
    ignores_conditions: bool,
    /// Until when objects stay as they are; none where they may change.
    locked_until: Option<Option<Timestamp>>,
}

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    modified_at: Timestamp,
    version: Version,
}

impl State {
    /// Fails where an object is there and locked.
    fn check_unlocked(&self, key: &str) -> Result<()> {
        match self.locked_until {
            Some(until) if self.objects.contains_key(key) => Err(Error::Retained {
                message: format!("`{key}` is retained"),
                until,
                hint: None,
            }),
            _ => Ok(()),
        }
    }

    fn write(&mut self, key: &str, bytes: Bytes, modified_at: Timestamp) -> Version {
        self.writes += 1;
        let version = Version::of(self.writes.to_string());
        let stored = Stored {
            bytes,
            modified_at,
            version: version.clone(),
        };
        self.objects.insert(key.to_owned(), stored);
        version
    }
}

impl Memory {
    /// Makes an empty storage.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `verb` fail with `fault`'s error until [`Memory::heal`].
    pub fn fail(&self, verb: Verb, fault: impl Fn() -> Error + Send + Sync + 'static) {
        self.lock().faults.insert(verb, Arc::new(fault));
    }

    /// Makes `verb` work again.
    pub fn heal(&self, verb: Verb) {
        self.lock().faults.remove(&verb);
    }

    /// Sets an object as if written at `modified_at`, over whatever is there: for old and for damaged objects.
    pub fn set(&self, key: &str, bytes: impl Into<Bytes>, modified_at: Timestamp) {
        self.lock().write(key, bytes.into(), modified_at);
    }

    /// Lets [`Storage::create`] and [`Storage::replace`] overwrite whatever is there, as some stores do.
    pub fn ignore_conditions(&self) {
        self.lock().ignores_conditions = true;
    }

    /// Keeps every object as it is, as a bucket with a lock does; it says until when if that is given.
    pub fn lock_objects(&self, until: Option<Timestamp>) {
        self.lock().locked_until = Some(until);
    }

    /// Lets objects be replaced and removed again.
    pub fn unlock_objects(&self) {
        self.lock().locked_until = None;
    }

    /// Returns all keys, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Returns how many uploads are neither finished, aborted nor dropped.
    pub fn unfinished(&self) -> u64 {
        self.lock().unfinished
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while holding the lock has failed already; the map itself is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if `verb` was told to.
    fn enter(&self, verb: Verb) -> Result<()> {
        let fault = self.lock().faults.get(&verb).cloned();
        fault.map_or(Ok(()), |fault| Err(fault()))
    }

    fn find(&self, key: &str) -> Result<Stored> {
        key::check_readable(key)?;
        let found = self.lock().objects.get(key).cloned();
        found.ok_or_else(|| Error::NotFound(key.to_owned()))
    }

    fn insert(&self, key: &str, bytes: Bytes) -> Result<()> {
        let mut state = self.lock();
        if state.objects.contains_key(key) {
            return Err(Error::Exists(key.to_owned()));
        }
        state.write(key, bytes, Timestamp::now());
        Ok(())
    }
}

#[async_trait]
impl Storage for Memory {
    fn label(&self) -> &str {
        "memory"
    }

    fn identity(&self) -> String {
        // The same for clones, which share their objects.
        format!("memory {:p}", Arc::as_ptr(&self.state))
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.enter(Verb::Put)?;
        key::check(key)?;
        self.insert(key, bytes)
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<Version> {
        self.enter(Verb::Create)?;
        key::check(key)?;
        let mut state = self.lock();
        if state.objects.contains_key(key) && !state.ignores_conditions {
            return Err(Error::Exists(key.to_owned()));
        }
        Ok(state.write(key, bytes, Timestamp::now()))
    }

    async fn get_versioned(&self, key: &str, limit: u64) -> Result<(Bytes, Version)> {
        self.enter(Verb::Get)?;
        let stored = self.find(key)?;
        read::check_limit(key, stored.bytes.len() as u64, limit)?;
        Ok((stored.bytes, stored.version))
    }

    async fn replace(&self, key: &str, bytes: Bytes, version: &Version) -> Result<Version> {
        self.enter(Verb::Replace)?;
        key::check(key)?;
        let mut state = self.lock();
        let is_it = state
            .objects
            .get(key)
            .is_some_and(|stored| &stored.version == version);
        if !is_it && !state.ignores_conditions {
            return Err(Error::Changed(key.to_owned()));
        }
        state.check_unlocked(key)?;
        Ok(state.write(key, bytes, Timestamp::now()))
    }

    async fn start_upload(
        &self,
        key: &str,
        _expected_bytes: Option<u64>,
    ) -> Result<Box<dyn Upload>> {
        self.enter(Verb::StartUpload)?;
        key::check(key)?;
        let mut state = self.lock();
        if state.objects.contains_key(key) {
            return Err(Error::Exists(key.to_owned()));
        }
        state.unfinished += 1;
        Ok(Box::new(MemoryUpload {
            memory: self.clone(),
            key: key.to_owned(),
            bytes: Vec::new(),
        }))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes> {
        self.enter(Verb::Get)?;
        let stored = self.find(key)?;
        read::check_limit(key, stored.bytes.len() as u64, limit)?;
        Ok(stored.bytes)
    }

    async fn stream(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.enter(Verb::Stream)?;
        let bytes = self.find(key)?.bytes;
        let range = read::check_range(key, bytes.len() as u64, range)?;
        let mut rest = bytes.slice(range.start as usize..range.end as usize);
        let pieces = std::iter::from_fn(move || {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        Ok(stream::iter(pieces).boxed())
    }

    async fn head(&self, key: &str) -> Result<Object> {
        self.enter(Verb::Head)?;
        let stored = self.find(key)?;
        Ok(stored.to_object(key))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        self.enter(Verb::List)?;
        key::check_prefix(prefix)?;
        let state = self.lock();
        let objects = state.objects.iter();
        let matching = objects.filter(|(key, _)| key.starts_with(prefix));
        Ok(matching
            .map(|(key, stored)| stored.to_object(key))
            .collect())
    }

    async fn remove(&self, key: &str) -> Result<Removed> {
        self.enter(Verb::Remove)?;
        key::check(key)?;
        let mut state = self.lock();
        state.check_unlocked(key)?;
        state.objects.remove(key);
        Ok(Removed::Freed)
    }

    async fn sweep(&self, prefix: &str, _older_than: Timestamp) -> Result<Swept> {
        self.enter(Verb::Sweep)?;
        key::check_prefix(prefix)?;
        Ok(Swept::default())
    }
}

impl Stored {
    fn to_object(&self, key: &str) -> Object {
        Object {
            key: key.to_owned(),
            size_bytes: self.bytes.len() as u64,
            modified_at: self.modified_at,
        }
    }
}

struct MemoryUpload {
    memory: Memory,
    key: String,
    bytes: Vec<u8>,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.memory.enter(Verb::Write)?;
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<u64> {
        self.memory.enter(Verb::Finish)?;
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let size = bytes.len() as u64;
        self.memory.insert(&self.key, bytes)?;
        Ok(size)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for MemoryUpload {
    fn drop(&mut self) {
        self.memory.lock().unfinished -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fails_only_what_it_was_told_to() {
        let memory = Memory::new();
        memory.fail(Verb::Put, || Error::failed("disk full"));
        let refused = memory.put("a", Bytes::new()).await.unwrap_err();
        assert_eq!(refused.to_string(), "disk full");
        assert!(memory.list("").await.unwrap().is_empty());
        memory.heal(Verb::Put);
        memory.put("a", Bytes::new()).await.unwrap();
        assert_eq!(memory.keys(), ["a"]);
    }

    #[tokio::test]
    async fn counts_uploads_until_they_end() {
        let memory = Memory::new();
        let kept = memory.start_upload("a", None).await.unwrap();
        let dropped = memory.start_upload("b", None).await.unwrap();
        assert_eq!(memory.unfinished(), 2);
        drop(dropped);
        assert_eq!(memory.unfinished(), 1);
        kept.finish().await.unwrap();
        assert_eq!(memory.unfinished(), 0);
        assert_eq!(memory.keys(), ["a"]);
    }
}

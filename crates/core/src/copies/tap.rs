//! Counts and hashes bytes while somebody else reads them, and lets the reader end early.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use pgkeep_model::words::hex;

/// Counts and hashes what is read, and ends the reading when it is told to.
pub(crate) struct Tap<R> {
    inner: R,
    hash: Option<Sha256>,
    seen: Arc<Seen>,
}

/// What a [`Tap`] saw, and the wish that it ends.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    bytes: AtomicU64,
    is_given_up: AtomicBool,
    sha256: OnceLock<String>,
    failed: OnceLock<String>,
}

impl Seen {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the SHA-256 of an object that was read to its end.
    pub(crate) fn sha256(&self) -> Option<&str> {
        self.sha256.get().map(String::as_str)
    }

    /// Returns why the bytes could not be read, where it was not for what they are.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Lets the next read fail.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}

impl<R: Read> Tap<R> {
    pub(crate) fn new(inner: R, is_hashed: bool) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let tap = Self {
            inner,
            hash: is_hashed.then(Sha256::new),
            seen: Arc::clone(&seen),
        };
        (tap, seen)
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.seen.is_given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was given up"));
        }
        let count = self.inner.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                let _ = self.seen.failed.set(error.to_string()); // the first reason is the one to tell
            }
        })?;
        self.seen.bytes.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        if count == 0
            && !buffer.is_empty()
            && let Some(hash) = self.hash.take()
        {
            let _ = self.seen.sha256.set(hex(&hash.finalize())); // read past the end once more, nothing changes
        }
        Ok(count)
    }
}

//! What `prune` and `sync` share: the proof before each removal, and questions that end with a stop.

use std::time::Duration;

use bytes::Bytes;

use super::lock::Hold;
use crate::context::Context;
use pgkeep_model::failure::{Failure, Result};
use pgkeep_storage::{Object, Removed, Storage};

/// What is safe to say when removing ended before its end.
const REST: &str = "what was not yet removed is still there";

/// How long a removal that was asked for may still take after a stop.
const REMOVE_GRACE: Duration = Duration::from_secs(2);

/// The right to remove something from one storage.
pub(super) struct Right<'a> {
    /// What is held; none where only the plan is told.
    pub hold: Option<&'a Hold>,
    /// The storage's position in what is held.
    pub at: usize,
    /// The wish to stop.
    pub context: &'a Context,
    /// What is being done, to begin a failure's message with.
    pub what: &'a str,
}

impl Right<'_> {
    /// Proves that this run may still remove something.
    pub(super) async fn prove(&self) -> Result<()> {
        if self.context.stop.is_requested() {
            return Err(self.stopped());
        }
        let Some(hold) = self.hold else { return Ok(()) };
        match hold.fence(self.at).await {
            Ok(()) => Ok(()),
            Err(_) if self.context.stop.is_requested() => Err(self.stopped()),
            Err(failure) => {
                let told = failure
                    .message
                    .strip_suffix(hold.safe())
                    .unwrap_or(&failure.message)
                    .trim_end_matches("; ");
                let message = format!("{} ended: {told}; {REST}", self.what);
                Err(Failure { message, ..failure })
            }
        }
    }

    /// Asks a storage something; a stop ends the question.
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = pgkeep_storage::Result<T>>,
    ) -> Result<pgkeep_storage::Result<T>> {
        tokio::select! {
            answer = question => Ok(answer),
            () = self.context.stop.token().cancelled() => Err(self.stopped()),
        }
    }

    /// Removes an object. After a stop it has a moment to come about.
    pub(super) async fn remove(
        &self,
        storage: &dyn Storage,
        key: &str,
    ) -> pgkeep_storage::Result<Removed> {
        self.soon(storage.remove(key)).await
    }

    /// Looks for an object; after a stop it has a moment.
    pub(super) async fn look(
        &self,
        storage: &dyn Storage,
        key: &str,
    ) -> pgkeep_storage::Result<Object> {
        self.soon(storage.head(key)).await
    }

    /// Puts back what was removed; after a stop it has a moment.
    pub(super) async fn put(
        &self,
        storage: &dyn Storage,
        key: &str,
        bytes: Bytes,
    ) -> pgkeep_storage::Result<()> {
        self.soon(storage.put(key, bytes)).await
    }

    async fn soon<T>(
        &self,
        work: impl Future<Output = pgkeep_storage::Result<T>>,
    ) -> pgkeep_storage::Result<T> {
        tokio::select! {
            done = work => done,
            () = self.context.stop.overdue(REMOVE_GRACE) => {
                Err(pgkeep_storage::Error::failed("it took too long after a stop"))
            }
        }
    }

    fn stopped(&self) -> Failure {
        self.context.stop.failure(self.what).and_safe(REST)
    }
}

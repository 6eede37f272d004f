//! A large object on its way through `rclone rcat`.
//!
//! It waits under a hidden name until it is whole. Whatever goes wrong, rclone is killed before its input ends, and what
//! it has written is removed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tracing::Instrument as _;

use super::Remote;
use super::process::{Ended, Run};
use crate::{Error, Result, Upload};

/// How long removing what was written may take: whatever is left has a name that no listing shows, and a sweep finds it.
const TIDY_LIMIT: Duration = Duration::from_secs(5);

async fn tidy(remote: &Remote, name: &str) -> Result<()> {
    match tokio::time::timeout(TIDY_LIMIT, remote.remove(name)).await {
        Ok(removed) => removed,
        Err(_) => Err(Error::failed(format!("removing `{name}` took too long"))),
    }
}

/// Hands bytes to a run of rclone.
pub(super) struct RcloneUpload {
    remote: Arc<Remote>,
    key: String,
    /// Under which name it waits; its own where the remote can neither rename nor copy.
    name: String,
    /// None once it is over.
    run: Option<Run>,
    size_bytes: u64,
    /// Whether something of ours may lie under the name.
    is_left: bool,
}

impl RcloneUpload {
    pub(super) fn new(remote: Arc<Remote>, key: &str, name: String, run: Run) -> Self {
        Self {
            remote,
            key: key.to_owned(),
            name,
            run: Some(run),
            size_bytes: 0,
            is_left: true,
        }
    }

    fn what(&self) -> String {
        format!("writing `{}`", self.key)
    }

    /// Ends rclone and removes what it has written.
    async fn give_up(&mut self) -> Result<()> {
        if let Some(mut run) = self.run.take() {
            run.kill().await;
        }
        self.is_left = false;
        tidy(&self.remote, &self.name).await
    }

    async fn finished(&mut self) -> Result<u64> {
        let Some(mut run) = self.run.take() else {
            return Err(Error::failed("the upload was stopped before its end"));
        };
        run.end_input();
        run.end().await.map_err(|ended| ended.error(&self.what()))?;
        let object = self.remote.head(&self.name).await?;
        if object.size_bytes != self.size_bytes {
            return Err(Error::failed(format!(
                "{} failed: the remote has {} bytes of it, and {} were written",
                self.what(),
                object.size_bytes,
                self.size_bytes
            )));
        }
        if self.name == self.key {
            return Ok(object.size_bytes);
        }
        self.remote.must_be_free(&self.key).await?;
        self.remote.rename(&self.name, &self.key).await?;
        Ok(self.remote.head(&self.key).await?.size_bytes)
    }
}

#[async_trait]
impl Upload for RcloneUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(run) = &mut self.run else {
            return Err(Error::failed("the upload was stopped before its end"));
        };
        let count = bytes.len() as u64;
        let Err(error) = run.write(bytes).await else {
            self.size_bytes += count;
            return Ok(());
        };
        // One that takes no more may have ended by itself, and then it has said why.
        let why = match run.ended_by_itself().await {
            Some(Ended::Code(code @ 0.., words)) => Ended::Code(code, words).error(&self.what()),
            _ => error,
        };
        // The first error is the one that counts; a sweep finds what is left.
        let _ = self.give_up().await;
        Err(why)
    }

    async fn finish(mut self: Box<Self>) -> Result<u64> {
        match self.finished().await {
            Ok(size_bytes) => {
                self.is_left = false;
                Ok(size_bytes)
            }
            Err(error) => {
                // The same: the first error counts.
                let _ = self.give_up().await;
                Err(error)
            }
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.give_up().await
    }
}

impl Drop for RcloneUpload {
    fn drop(&mut self) {
        let run = self.run.take();
        if !self.is_left {
            return;
        }
        let (remote, name) = (Arc::clone(&self.remote), std::mem::take(&mut self.name));
        let tidy = async move {
            if let Some(mut run) = run {
                run.kill().await;
            }
            if let Err(error) = tidy(&remote, &name).await {
                tracing::info!(%error, "an unfinished upload was left behind");
            }
        };
        // Without a runtime the run is killed all the same, and a sweep finds what it left. It ends with its two steps.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(tidy.in_current_span());
        }
    }
}

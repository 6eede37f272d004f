//! A large file on its way: a thread of its own writes what it is handed, so that a slow disk never holds up the
//! runtime.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::staging::Staging;
use super::{fault, patience};
use crate::{Error, Result, Upload};

/// Buffers that may wait for the disk; with one being written and one being made this bounds the memory.
const WAITING_BUFFERS: usize = 2;

enum Order {
    Write(Bytes),
    Publish,
}

/// Hands bytes to the writing thread. Dropping it makes the thread remove the staging file and end.
pub(super) struct FolderUpload {
    orders: mpsc::Sender<Order>,
    /// `None` once the thread's outcome was taken.
    writer: Option<JoinHandle<Result<u64>>>,
    label: String,
}

impl FolderUpload {
    /// Starts the writing thread.
    pub(super) fn start(staging: Staging, label: &str) -> Self {
        let (orders, incoming) = mpsc::channel(WAITING_BUFFERS);
        // Awaited by `outcome`; ends after publishing, at the first error, or when the sender is dropped.
        let writer = tokio::task::spawn_blocking(move || write(staging, incoming));
        Self {
            orders,
            writer: Some(writer),
            label: label.to_owned(),
        }
    }

    /// Waits for the thread and returns what it came to.
    async fn outcome(&mut self) -> Result<u64> {
        match self.writer.take() {
            None => Err(abandoned()),
            Some(writer) => match patience::wait_for_bytes(&self.label, writer).await? {
                Ok(outcome) => outcome,
                Err(_) => Err(fault::died("the staging file")),
            },
        }
    }
}

#[async_trait]
impl Upload for FolderUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let sent = self.orders.send(Order::Write(bytes));
        if patience::wait_for_bytes(&self.label, sent).await?.is_ok() {
            return Ok(());
        }
        // The thread has ended, and before an order to publish only an error ends it.
        self.outcome().await.and(Err(abandoned()))
    }

    async fn finish(mut self: Box<Self>) -> Result<u64> {
        // Refused only by a thread that has failed already, and `outcome` says why.
        let sent = self.orders.send(Order::Publish);
        let _ = patience::wait_for_bytes(&self.label, sent).await?;
        self.outcome().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self {
            orders,
            writer,
            label,
        } = *self;
        drop(orders);
        match writer {
            // Its result is that the upload was given up, which is what was asked for.
            Some(writer) => patience::wait_for_bytes(&label, writer).await.map(drop),
            None => Ok(()),
        }
    }
}

fn write(mut staging: Staging, mut orders: mpsc::Receiver<Order>) -> Result<u64> {
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Write(bytes) => staging.write(&bytes)?,
            Order::Publish => return staging.publish(),
        }
    }
    Err(abandoned())
}

fn abandoned() -> Error {
    Error::failed("the upload was stopped before its end")
}

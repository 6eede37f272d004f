//! A large object on its way to a bucket, part by part, in bounded memory.
//!
//! Nothing is visible before the last request, and what is visible then was measured. Whatever goes wrong, the parts
//! are given up, also when the upload is dropped; should that fail too, a later sweep finds them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use object_store::PutPayload;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::client::{Client, Store};
use super::fault::Trouble;
use crate::{Error, Result, Upload};
use pgkeep_model::part_sizes::PartSizes;

/// Room that a new buffer takes at once; larger parts let it grow, so that a part of GiBs is not paid for in advance.
const FIRST_ROOM_BYTES: u64 = 16 * 1024 * 1024;

/// A part's place, what became of it, and its bytes, whose buffer is used again.
type SentPart = (usize, std::result::Result<PartId, Trouble>, Bytes);

/// Gathers bytes into parts and sends them.
pub(crate) struct CloudUpload<S: Store> {
    client: Arc<Client<S>>,
    key: String,
    path: Path,
    sizes: PartSizes,
    /// The part being filled.
    buffer: BytesMut,
    /// Buffers of sent parts. Allocating each part anew leaves the heap in pieces that are never given back.
    spare: Vec<BytesMut>,
    /// Bytes in the parts before it.
    cut_bytes: u64,
    /// Set once the first part is full: an object smaller than one part needs no multipart upload.
    upload_id: Option<String>,
    in_flight: JoinSet<SentPart>,
    parts: Vec<Option<PartId>>,
}

impl<S: Store> CloudUpload<S> {
    /// Starts an upload; nothing is sent before the first part is full.
    pub(crate) fn start(client: Arc<Client<S>>, key: &str, expected_bytes: Option<u64>) -> Self {
        let sizes = client
            .part_sizes
            .unwrap_or_else(|| PartSizes::new(expected_bytes));
        Self {
            path: client.path(key),
            client,
            key: key.to_owned(),
            sizes,
            buffer: BytesMut::new(),
            spare: Vec::new(),
            cut_bytes: 0,
            upload_id: None,
            in_flight: JoinSet::new(),
            parts: Vec::new(),
        }
    }

    /// Fills parts, and sends each full one.
    async fn take(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let part_bytes = self.client.limits.cap(self.sizes.size_of(self.cut_bytes));
            if self.buffer.capacity() == 0 {
                self.buffer = self.spare.pop().unwrap_or_default();
                self.buffer
                    .reserve(to_usize(part_bytes.min(FIRST_ROOM_BYTES)));
            }
            let room = to_usize(part_bytes) - self.buffer.len();
            self.buffer
                .extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.buffer.len() == to_usize(part_bytes) {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Sends the buffer as the next part, as soon as memory allows for another one.
    async fn send_part(&mut self) -> Result<()> {
        let id = self.upload_id().await?;
        let index = self.parts.len();
        if index >= self.client.limits.max_parts as usize {
            return Err(self.too_many_parts());
        }
        let bytes = std::mem::take(&mut self.buffer).freeze();
        while self.in_flight.len() >= PartSizes::in_flight(bytes.len() as u64) {
            self.await_part().await?;
        }
        self.parts.push(None);
        self.cut_bytes += bytes.len() as u64;
        let (client, path) = (Arc::clone(&self.client), self.path.clone());
        // Awaited by `await_part`; the set ends it when the upload is given up or dropped.
        self.in_flight.spawn(
            async move {
                let (store, path, id) = (client.store.objects(), &path, &id);
                let sent = client
                    .patience
                    .persist_slowly(|| {
                        store.put_part(path, id, index, PutPayload::from(bytes.clone()))
                    })
                    .await;
                (index, sent, bytes)
            }
            .in_current_span(),
        );
        Ok(())
    }

    /// Returns the id under which parts are sent, asking for it the first time.
    async fn upload_id(&mut self) -> Result<String> {
        if let Some(id) = &self.upload_id {
            return Ok(id.clone());
        }
        let (store, path) = (self.client.store.objects(), &self.path);
        let started = self
            .client
            .patience
            .persist(|| store.create_multipart(path));
        let id = started.await.map_err(|trouble| self.explain(trouble))?;
        self.upload_id = Some(id.clone());
        Ok(id)
    }

    async fn await_part(&mut self) -> Result<()> {
        match self.in_flight.join_next().await {
            None => Ok(()),
            Some(Ok((index, Ok(part), bytes))) => {
                self.parts[index] = Some(part);
                // The client may hold on to the bytes for a moment; then they are simply freed.
                // Fewer are needed once parts grow.
                let part_bytes = self.client.limits.cap(self.sizes.size_of(self.cut_bytes));
                let held = self.spare.len() + self.in_flight.len();
                if held < PartSizes::in_flight(part_bytes)
                    && let Ok(mut buffer) = bytes.try_into_mut()
                {
                    buffer.clear();
                    self.spare.push(buffer);
                }
                Ok(())
            }
            Some(Ok((_, Err(trouble), _))) => Err(self.explain(trouble)),
            // A panic was reported where it happened; its text may hold a secret and stays out of here.
            Some(Err(_)) => Err(Error::failed(format!(
                "writing `{}` failed: a part's task ended early",
                self.key
            ))),
        }
    }

    /// Sends what is left and makes the object visible.
    async fn complete(&mut self) -> Result<u64> {
        let total_bytes = self.cut_bytes + self.buffer.len() as u64;
        if self.upload_id.is_none() {
            let whole = std::mem::take(&mut self.buffer).freeze();
            self.client.create(&self.key, whole).await?;
            return self.client.check_size(&self.key, total_bytes).await;
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        while !self.in_flight.is_empty() {
            self.await_part().await?;
        }
        // No store is asked to refuse this by itself, so look as late as possible.
        self.client.check_absent(&self.key).await?;
        self.put_together(total_bytes).await
    }

    /// Asks the store to put the parts together, and believes what it then shows rather than what it answered.
    async fn put_together(&mut self, total_bytes: u64) -> Result<u64> {
        let id = self.upload_id().await?;
        let awaited: Option<Vec<PartId>> = self.parts.iter().cloned().collect();
        let parts = awaited.expect("every part was awaited");
        let (store, path) = (self.client.store.objects(), &self.path);
        let completed = self
            .client
            .patience
            .persist_slowly(|| store.complete_multipart(path, &id, parts.clone()));
        if let Err(trouble) = completed.await {
            // The request may have done its work all the same: an answer got lost, or a second try found nothing left
            // to do. The key was free before, so an object of this size is ours.
            match self.client.find(&self.key).await {
                Ok(found) if found.size_bytes == total_bytes => {}
                _ => return Err(self.explain(trouble)),
            }
        }
        self.upload_id = None;
        self.client.check_size(&self.key, total_bytes).await
    }

    /// Gives up all parts, so that nobody pays for them.
    async fn discard(&mut self) -> Result<()> {
        self.in_flight.shutdown().await;
        self.buffer = BytesMut::new();
        self.spare.clear();
        match self.upload_id.take() {
            Some(id) => abort(&self.client, &self.key, &self.path, id).await,
            None => Ok(()),
        }
    }

    /// Gives up after an error, which stays the one that is reported.
    async fn fail(&mut self, error: Error) -> Error {
        if let Err(second) = self.discard().await {
            tracing::warn!(key = self.key, error = %second, "unfinished upload left for the next sweep");
        }
        error
    }

    fn explain(&self, trouble: Trouble) -> Error {
        self.client.explain(trouble, "writing", &self.key)
    }

    fn too_many_parts(&self) -> Error {
        Error::Failed {
            message: format!(
                "writing `{}` in `{}` failed: it needs more than {} parts",
                self.key, self.client.label, self.client.limits.max_parts
            ),
            hint: Some("set a larger `part_size`, or none".to_owned()),
            source: None,
        }
    }
}

#[async_trait]
impl<S: Store> Upload for CloudUpload<S> {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self.take(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(error).await),
        }
    }

    async fn finish(mut self: Box<Self>) -> Result<u64> {
        match self.complete().await {
            Ok(size) => Ok(size),
            Err(error) => Err(self.fail(error).await),
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.discard().await
    }
}

impl<S: Store> Drop for CloudUpload<S> {
    fn drop(&mut self) {
        let Some(id) = self.upload_id.take() else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut in_flight = std::mem::take(&mut self.in_flight);
        let (client, path) = (Arc::clone(&self.client), self.path.clone());
        let key = std::mem::take(&mut self.key);
        // Awaited by nobody and ended by the runtime: a sweep takes what is left then.
        runtime.spawn(
            async move {
                in_flight.shutdown().await;
                let _ = abort(&client, &key, &path, id).await;
            }
            .in_current_span(),
        );
    }
}

async fn abort<S: Store>(client: &Client<S>, key: &str, path: &Path, id: String) -> Result<()> {
    let store = client.store.objects();
    let patience = client.patience.brief();
    let aborted = patience.persist(|| store.abort_multipart(path, &id));
    match aborted.await {
        Ok(()) => Ok(()),
        // Completed or given up already.
        Err(trouble) if trouble.is_missing() => Ok(()),
        Err(trouble) => Err(client.explain(trouble, "giving up", key)),
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("parts are at most 5 GiB and pgkeep runs on 64 bits")
}

//! A storage in a folder: one file per object, visible under its name only when whole and durable.
//!
//! Every path is walked from the opened root without following a link; files are 0600 and folders 0700 whatever the
//! umask. It never replaces a file but by [`Storage::replace`], and never removes what another live process is writing.

mod fault;
mod patience;
mod staging;
mod tree;
mod upload;
mod versioned;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Error, Object, Removed, Result, Storage, Swept, Take, Upload, Version, key, read};
use staging::Staging;
use tree::Tree;
use upload::FolderUpload;

/// How much is read at once: large enough for full disk speed, small enough for three of them to be nothing.
const PIECE_BYTES: usize = 256 * 1024;

/// Keeps objects as files below one folder. Clones share the opened root.
#[derive(Clone)]
pub struct Folder {
    label: String,
    tree: Arc<Tree>,
}

impl Folder {
    /// Opens the folder, and makes it (0700) if only its last part is missing.
    ///
    /// [`Error::Setup`] if its parent is missing, if it is not a folder, or if it belongs to somebody else and any
    /// user can write to it. A folder that cannot be written to opens and can be read; writing is then [`Error::Setup`].
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        let tree = Arc::new(Tree::open(path, &label)?);
        Ok(Self { label, tree })
    }

    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let tree = Arc::clone(&self.tree);
        // Awaited here; a caller that goes away leaves one system call's worth of work to end by itself.
        let working = tokio::task::spawn_blocking(move || work(&tree));
        match patience::wait(&self.label, working).await? {
            Ok(done) => done,
            Err(_) => Err(fault::died(&self.label)),
        }
    }
}

#[async_trait]
impl Storage for Folder {
    fn label(&self) -> &str {
        &self.label
    }

    /// The folder itself, however it was named: two paths may lead to it.
    fn identity(&self) -> String {
        self.tree.identity()
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        key::check(key)?;
        let key = key.to_owned();
        self.blocking(move |tree| {
            let mut staging = Staging::create(tree, &key)?;
            staging.write(&bytes)?;
            staging.publish().map(drop)
        })
        .await
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<Version> {
        key::check(key)?;
        let key = key.to_owned();
        self.blocking(move |tree| versioned::create(tree, &key, &bytes))
            .await
    }

    async fn get_versioned(&self, key: &str, limit: u64) -> Result<(Bytes, Version)> {
        let bytes = self.get(key, limit).await?;
        let version = versioned::version_of(&bytes);
        Ok((bytes, version))
    }

    async fn replace(&self, key: &str, bytes: Bytes, version: &Version) -> Result<Version> {
        key::check(key)?;
        let (key, version) = (key.to_owned(), version.clone());
        self.blocking(move |tree| versioned::replace(tree, &key, &bytes, &version))
            .await
    }

    async fn start_upload(
        &self,
        key: &str,
        _expected_bytes: Option<u64>,
    ) -> Result<Box<dyn Upload>> {
        key::check(key)?;
        let wanted = key.to_owned();
        let staging = self
            .blocking(move |tree| Staging::create(tree, &wanted))
            .await?;
        Ok(Box::new(FolderUpload::start(staging, &self.label)))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes> {
        key::check_readable(key)?;
        let wanted = key.to_owned();
        let (file, object) = self.blocking(move |tree| tree.open_file(&wanted)).await?;
        read::check_limit(key, object.size_bytes, limit)?;
        let stream = pieces(key, file, 0..object.size_bytes);
        read::gather(object.size_bytes, stream).await
    }

    async fn stream(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        key::check_readable(key)?;
        let wanted = key.to_owned();
        let (file, object) = self.blocking(move |tree| tree.open_file(&wanted)).await?;
        let range = read::check_range(key, object.size_bytes, range)?;
        Ok(pieces(key, file, range))
    }

    async fn head(&self, key: &str) -> Result<Object> {
        key::check_readable(key)?;
        let wanted = key.to_owned();
        self.blocking(move |tree| Ok(tree.open_file(&wanted)?.1))
            .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        key::check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.blocking(move |tree| tree.list(&prefix)).await
    }

    async fn list_each(&self, prefix: &str, take: Take<'_>) -> Result<()> {
        key::check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        let (sender, mut batches) = mpsc::channel(2);
        let walk = self.blocking(move |tree| tree.send_all(&prefix, &sender));
        let receive = async {
            while let Some(batch) = batches.recv().await {
                batch.iter().for_each(&mut *take);
            }
        };
        let (walked, ()) = tokio::join!(walk, receive);
        walked
    }

    async fn remove(&self, key: &str) -> Result<Removed> {
        key::check(key)?;
        let key = key.to_owned();
        self.blocking(move |tree| tree.remove(&key)).await?;
        Ok(Removed::Freed)
    }

    /// Removes staging files below the folder that `prefix` names; their age does not matter, only whether the
    /// writer's lock is gone.
    async fn sweep(&self, prefix: &str, _older_than: Timestamp) -> Result<Swept> {
        key::check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.blocking(move |tree| staging::sweep(tree, &prefix))
            .await
    }

    async fn free_bytes(&self) -> Option<u64> {
        self.blocking(|tree| Ok(tree.free_bytes()))
            .await
            .ok()
            .flatten()
    }
}

/// Reads a range of an open file piece by piece.
fn pieces(key: &str, file: File, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(2);
    let expected = range.end - range.start;
    let name = key.to_owned();
    // Ends at the range's end, at the first error, or when the reader drops the stream. Nobody awaits it: should it
    // die, `exactly` sees that bytes are missing.
    tokio::task::spawn_blocking(move || {
        let mut at = range.start;
        while at < range.end {
            let piece = read_piece(&name, &file, at, range.end);
            let is_last = !matches!(&piece, Ok(bytes) if !bytes.is_empty());
            at += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
            if sender.blocking_send(piece).is_err() || is_last {
                break;
            }
        }
    });
    let received = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    read::exactly(key, expected, received.boxed())
}

fn read_piece(key: &str, file: &File, at: u64, end: u64) -> Result<Bytes> {
    let size = usize::try_from(end - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
    let mut buffer = vec![0; size];
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer.into());
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Error::Failed {
                    message: format!("reading `{key}` failed at byte {at}"),
                    hint: None,
                    source: Some(Box::new(error)),
                });
            }
        }
    }
}

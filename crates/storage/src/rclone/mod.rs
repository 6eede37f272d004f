//! A storage behind the program rclone: SFTP, WebDAV, Dropbox, Drive and whatever else it reaches.
//!
//! An object is uploaded under a hidden name and gets its own when it is whole, where the remote can rename or copy. rclone
//! takes the end of its input for success, so it is killed before that on every failure. It knows no conditional writes:
//! there is no lease, and whoever writes looks first.

mod fault;
mod listing;
mod options;
mod process;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::{Error, Object, Removed, Result, Storage, Swept, Upload, Version, key, read};
use listing::{Entry, folder_of, leftovers, objects, unfinished};
pub use options::RcloneOptions;
use process::{Ended, Input, Program, Run, place};
use upload::RcloneUpload;

/// Most that is read of a listing: 200,000 objects.
const LISTING_BYTES: usize = 64 * 1024 * 1024;

/// Most that is read of what a remote can do.
const FEATURES_BYTES: usize = 1024 * 1024;

/// What is told of a remote about writes that depend on what is there.
const UNCONDITIONAL: &str = "rclone knows no writes that depend on what is there";

/// Flags of a listing: no more than names, sizes and times.
const LIST: [&str; 4] = ["lsjson", "-R", "--files-only", "--no-mimetype"];

/// Keeps objects wherever rclone can.
#[derive(Clone)]
pub struct Rclone {
    remote: Arc<Remote>,
}

/// A remote and how it is reached.
struct Remote {
    label: String,
    /// With its path, as rclone takes it.
    root: String,
    program: Program,
    features: OnceCell<Features>,
}

/// What of a remote's features counts here.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Features {
    put_stream: bool,
    r#move: bool,
    copy: bool,
}

/// What `backend features` prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct About {
    features: Features,
}

impl Rclone {
    /// Opens the remote: `remote:path`, or `:backend,setting=value:path`. Starts nothing yet.
    ///
    /// [`Error::Setup`] if it names no remote, or holds a secret, which everyone on the machine could read.
    pub fn open(remote: &str, options: &RcloneOptions) -> Result<Self> {
        pgkeep_model::remote::check(remote).map_err(|why| {
            Error::setup(
                format!("the storage's URL {why}"),
                "it looks like `rclone:remote:path`",
            )
        })?;
        let root = remote.trim_end_matches('/').to_owned();
        Ok(Self {
            remote: Arc::new(Remote {
                label: format!("rclone:{root}"),
                root,
                program: Program::new(options),
                features: OnceCell::new(),
            }),
        })
    }
}

impl Remote {
    fn place(&self, key: &str) -> String {
        place(&self.root, key)
    }

    /// Asks, once, what the remote can do, and refuses one that cannot take a stream.
    async fn features(&self) -> Result<Features> {
        let ask = || async {
            let printed = self
                .program
                .output(&["backend", "features"], &[&self.root], FEATURES_BYTES)
                .await
                .map_err(|ended| ended.error(&format!("reaching `{}`", self.label)))?;
            let about: About = serde_json::from_slice(&printed).map_err(|_| {
                fault::too_old("rclone does not tell what the remote can do".to_owned())
            })?;
            Ok(about.features)
        };
        let features = *self.features.get_or_try_init(ask).await?;
        if features.put_stream {
            return Ok(features);
        }
        Err(Error::setup(
            format!(
                "`{}` cannot take a stream of unknown length, and a dump is one",
                self.label
            ),
            "rclone would gather the whole dump on the disk of this host first; use another kind of remote",
        ))
    }

    async fn entries(&self, folder: &str) -> Result<Vec<Entry>> {
        let listed = self
            .program
            .output(&LIST, &[&self.place(folder)], LISTING_BYTES)
            .await;
        let printed = match listed {
            Ok(printed) => printed,
            // A folder that is not there holds nothing; one of which a part could not be read tells the same code.
            Err(Ended::Code(code, words)) if fault::is_absent(code, &words) => {
                if self.is_absent(folder).await? {
                    return Ok(Vec::new());
                }
                let what = format!("listing `{}`", self.label);
                return Err(Ended::Code(code, words).error(&what));
            }
            Err(ended) => return Err(ended.error(&format!("listing `{}`", self.label))),
        };
        serde_json::from_slice(&printed).map_err(|error| {
            Error::failed(format!(
                "rclone listed `{}` in a way that cannot be read: {error}",
                self.label
            ))
        })
    }

    /// Tells whether a folder itself is not there.
    async fn is_absent(&self, folder: &str) -> Result<bool> {
        let verb = ["lsjson", "--stat", "--no-mimetype"];
        let looked = self
            .program
            .output(&verb, &[&self.place(folder)], 64 * 1024)
            .await;
        match looked {
            Ok(printed) => Ok(printed.trim_ascii() == b"null"),
            Err(Ended::Code(code, words)) if fault::is_absent(code, &words) => Ok(true),
            Err(ended) => Err(ended.error(&format!("looking for `{}`", self.label))),
        }
    }

    async fn head(&self, key: &str) -> Result<Object> {
        let verb = ["lsjson", "--stat", "--no-mimetype"];
        let looked = self
            .program
            .output(&verb, &[&self.place(key)], 64 * 1024)
            .await;
        let printed = match looked {
            Ok(printed) => printed,
            Err(Ended::Code(code, words)) if fault::is_absent(code, &words) => {
                return Err(Error::NotFound(key.to_owned()));
            }
            Err(ended) => return Err(ended.error(&format!("looking for `{key}`"))),
        };
        let entry: Option<Entry> = serde_json::from_slice(&printed).map_err(|error| {
            Error::failed(format!(
                "rclone tells of `{key}` in a way that cannot be read: {error}"
            ))
        })?;
        match entry {
            Some(entry) if !entry.is_dir => entry.object(key),
            _ => Err(Error::NotFound(key.to_owned())),
        }
    }

    /// Fails where an object of this key is there.
    async fn must_be_free(&self, key: &str) -> Result<()> {
        match self.head(key).await {
            Err(Error::NotFound(_)) => Ok(()),
            Ok(_) => Err(Error::Exists(key.to_owned())),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let removed = self
            .program
            .output(&["deletefile"], &[&self.place(key)], 4096)
            .await;
        match removed {
            Ok(_) => Ok(()),
            Err(Ended::Code(code, words)) if fault::is_absent(code, &words) => Ok(()),
            Err(ended) => Err(ended.error(&format!("removing `{key}`"))),
        }
    }

    /// Gives a whole object its own name.
    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let places = [self.place(from), self.place(to)];
        let moved = self
            .program
            .output(&["moveto"], &[&places[0], &places[1]], 4096)
            .await;
        moved
            .map(drop)
            .map_err(|ended| ended.error(&format!("renaming `{from}`")))
    }
}

/// Reads on from a run, whose end counts only with its exit status.
async fn next_piece(run: Option<Run>) -> Result<Option<(Bytes, Option<Run>)>> {
    let Some(mut run) = run else { return Ok(None) };
    if let Some(piece) = run.piece().await? {
        return Ok(Some((piece, Some(run))));
    }
    run.end().await.map_err(|ended| ended.error("reading"))?;
    Ok(None)
}

#[async_trait]
impl Storage for Rclone {
    fn label(&self) -> &str {
        &self.remote.label
    }

    fn identity(&self) -> String {
        self.remote.label.clone()
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let mut upload = self.start_upload(key, Some(bytes.len() as u64)).await?;
        upload.write(bytes).await?;
        upload.finish().await.map(drop)
    }

    async fn start_upload(
        &self,
        key: &str,
        _expected_bytes: Option<u64>,
    ) -> Result<Box<dyn Upload>> {
        key::check(key)?;
        let features = self.remote.features().await?;
        self.remote.must_be_free(key).await?;
        let name = if features.r#move || features.copy {
            unfinished(key, rand::random())
        } else {
            key.to_owned()
        };
        let run =
            self.remote
                .program
                .start(&["rcat"], &[&self.remote.place(&name)], Input::Bytes)?;
        Ok(Box::new(RcloneUpload::new(
            Arc::clone(&self.remote),
            key,
            name,
            run,
        )))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes> {
        key::check_readable(key)?;
        let object = self.remote.head(key).await?;
        read::check_limit(key, object.size_bytes, limit)?;
        let stream = self.read(key, object.size_bytes, 0..object.size_bytes)?;
        read::gather(object.size_bytes, stream).await
    }

    async fn create(&self, key: &str, _: Bytes) -> Result<Version> {
        key::check(key)?;
        Err(Error::Unconditional(UNCONDITIONAL.to_owned()))
    }

    async fn get_versioned(&self, key: &str, limit: u64) -> Result<(Bytes, Version)> {
        let bytes = self.get(key, limit).await?;
        let hash = pgkeep_model::words::hex(&Sha256::digest(&bytes));
        Ok((bytes, Version::of(hash)))
    }

    async fn replace(&self, key: &str, _: Bytes, _: &Version) -> Result<Version> {
        key::check(key)?;
        Err(Error::Unconditional(UNCONDITIONAL.to_owned()))
    }

    async fn stream(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        key::check_readable(key)?;
        let object = self.remote.head(key).await?;
        let range = read::check_range(key, object.size_bytes, range)?;
        self.read(key, object.size_bytes, range)
    }

    async fn head(&self, key: &str) -> Result<Object> {
        key::check_readable(key)?;
        self.remote.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        key::check_prefix(prefix)?;
        let folder = folder_of(prefix);
        let entries = self.remote.entries(folder).await?;
        objects(&entries, folder, prefix)
    }

    /// What a service behind rclone keeps of a removed file is not told.
    async fn remove(&self, key: &str) -> Result<Removed> {
        key::check(key)?;
        self.remote.remove(key).await.map(|()| Removed::Freed)
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<Swept> {
        key::check_prefix(prefix)?;
        let folder = folder_of(prefix);
        let entries = self.remote.entries(folder).await?;
        let mut swept = Swept::default();
        for name in leftovers(&entries, folder, prefix, older_than) {
            match self.remote.remove(&name).await {
                Ok(()) => swept.removed += 1,
                Err(error) => swept.warnings.push(error.to_string()),
            }
        }
        Ok(swept)
    }
}

impl Rclone {
    /// Starts reading a range that lies inside of the object.
    fn read(
        &self,
        key: &str,
        size_bytes: u64,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let expected = range.end - range.start;
        if expected == 0 {
            return Ok(stream::empty().boxed());
        }
        let (offset, count) = (range.start.to_string(), expected.to_string());
        let part = ["cat", "--offset", &offset, "--count", &count];
        let verb = if expected == size_bytes {
            &part[..1]
        } else {
            &part[..]
        };
        let run = self
            .remote
            .program
            .start(verb, &[&self.remote.place(key)], Input::Nothing)?;
        let pieces = stream::try_unfold(Some(run), next_piece).boxed();
        Ok(read::exactly(key, expected, pieces))
    }
}

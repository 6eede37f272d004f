//! Small objects whose version is the store's own entity tag, written with `If-None-Match` and `If-Match` alone.
//!
//! Nothing is looked up first: the store decides, in one request. An answer that got lost is told from a refusal by
//! what the store then shows. <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::client::Client;
use super::fault::Trouble;
use crate::{Error, Result, Version, read};

/// Makes an object unless the key is taken.
pub(super) async fn create(client: &Client, key: &str, bytes: Bytes) -> Result<Version> {
    match put(client, key, &bytes, PutMode::Create).await {
        Ok(version) => version,
        Err(trouble) if matches!(trouble.status(), Some(409 | 412)) => {
            let ours = ours(client, key, &bytes).await;
            ours.ok_or_else(|| Error::Exists(key.to_owned()))
        }
        Err(trouble) => Err(explain(client, key, trouble)),
    }
}

/// Puts an object in the place of the one that has this version.
pub(super) async fn replace(
    client: &Client,
    key: &str,
    bytes: Bytes,
    version: &Version,
) -> Result<Version> {
    let mode = PutMode::Update(UpdateVersion {
        e_tag: Some(version.0.clone()),
        version: None,
    });
    match put(client, key, &bytes, mode).await {
        Ok(version) => version,
        // AWS says 404 where there is nothing to replace, and 409 where somebody else is about to.
        Err(trouble) if is_changed(&trouble) => {
            let ours = ours(client, key, &bytes).await;
            ours.ok_or_else(|| Error::Changed(key.to_owned()))
        }
        Err(trouble) => Err(explain(client, key, trouble)),
    }
}

/// Reads an object and its version.
pub(super) async fn get(client: &Client, key: &str, limit: u64) -> Result<(Bytes, Version)> {
    let path = client.path(key);
    let read = client.patience.persist(|| async {
        let found = client.store.get(&path).await?;
        let meta = found.meta.clone();
        // What is too large is not read at all.
        let bytes = if meta.size <= limit {
            found.bytes().await?
        } else {
            Bytes::new()
        };
        Ok((meta, bytes))
    });
    let (meta, bytes) = read
        .await
        .map_err(|trouble| client.explain_reading(trouble, key))?;
    read::check_limit(key, meta.size, limit)?;
    Ok((bytes, to_version(client, key, meta.e_tag)?))
}

async fn put(
    client: &Client,
    key: &str,
    bytes: &Bytes,
    mode: PutMode,
) -> std::result::Result<Result<Version>, Trouble> {
    let path = client.path(key);
    let put = client.patience.persist(|| {
        let options = PutOptions::from(mode.clone());
        let payload = PutPayload::from(bytes.clone());
        client.store.put_opts(&path, payload, options)
    });
    Ok(to_version(client, key, put.await?.e_tag))
}

/// Returns the version of an object that has exactly our bytes: the request that was refused was a second try, and the
/// answer to the first had got lost.
async fn ours(client: &Client, key: &str, bytes: &Bytes) -> Option<Version> {
    let (found, version) = get(client, key, bytes.len() as u64).await.ok()?;
    (found == *bytes).then_some(version)
}

fn is_changed(trouble: &Trouble) -> bool {
    trouble.is_missing() || matches!(trouble.status(), Some(409 | 412))
}

fn explain(client: &Client, key: &str, trouble: Trouble) -> Error {
    if trouble.is_unknown_request() {
        let label = &client.label;
        return Error::Unconditional(format!("`{label}` knows no conditional writes: {trouble}"));
    }
    client.explain(trouble, "writing", key)
}

/// A weak tag cannot be asked for with `If-Match`.
fn to_version(client: &Client, key: &str, e_tag: Option<String>) -> Result<Version> {
    let strong = e_tag.filter(|tag| !tag.is_empty() && !tag.starts_with("W/"));
    strong.map(Version).ok_or_else(|| {
        let label = &client.label;
        Error::Unconditional(format!("`{label}` gives `{key}` no entity tag to compare"))
    })
}

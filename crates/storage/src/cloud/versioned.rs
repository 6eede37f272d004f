//! Small objects whose version is the store's own, written with its conditions alone (`If-None-Match`, `If-Match` or a
//! generation).
//!
//! Nothing is looked up first: the store decides, in one request. An answer that got lost is told from a refusal by
//! what the store then shows. <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>

use bytes::Bytes;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use super::client::{Client, Store};
use super::fault::Trouble;
use crate::{Error, Result, Version, read};

/// Makes an object unless the key is taken.
pub(crate) async fn create<S: Store>(
    client: &Client<S>,
    key: &str,
    bytes: Bytes,
) -> Result<Version> {
    match put(client, key, &bytes, PutMode::Create).await {
        Ok(version) => version,
        // A locked object may be refused before the condition is looked at.
        Err(trouble) if trouble.is_conflict() || trouble.is_retained() => {
            let ours = ours(client, key, &bytes).await;
            ours.ok_or_else(|| Error::Exists(key.to_owned()))
        }
        Err(trouble) => Err(explain(client, key, trouble)),
    }
}

/// Puts an object in the place of the one that has this version.
pub(crate) async fn replace<S: Store>(
    client: &Client<S>,
    key: &str,
    bytes: Bytes,
    version: &Version,
) -> Result<Version> {
    let mode = PutMode::Update(client.compared.asked_for(version));
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
pub(crate) async fn get<S: Store>(
    client: &Client<S>,
    key: &str,
    limit: u64,
) -> Result<(Bytes, Version)> {
    let path = client.path(key);
    let read = client.patience.persist(|| async {
        let found = client.store.objects().get(&path).await?;
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
    Ok((bytes, to_version(client, key, meta.e_tag, meta.version)?))
}

async fn put<S: Store>(
    client: &Client<S>,
    key: &str,
    bytes: &Bytes,
    mode: PutMode,
) -> std::result::Result<Result<Version>, Trouble> {
    let path = client.path(key);
    let put = client.patience.persist(|| {
        let options = PutOptions::from(mode.clone());
        let payload = PutPayload::from(bytes.clone());
        client.store.objects().put_opts(&path, payload, options)
    });
    let done = put.await?;
    Ok(to_version(client, key, done.e_tag, done.version))
}

/// Returns the version of an object that has exactly our bytes: the request that was refused was a second try, and the
/// answer to the first had got lost.
async fn ours<S: Store>(client: &Client<S>, key: &str, bytes: &Bytes) -> Option<Version> {
    let (found, version) = get(client, key, bytes.len() as u64).await.ok()?;
    (found == *bytes).then_some(version)
}

fn is_changed(trouble: &Trouble) -> bool {
    trouble.is_missing() || trouble.is_conflict()
}

fn explain<S: Store>(client: &Client<S>, key: &str, trouble: Trouble) -> Error {
    if trouble.is_unknown_request() {
        let label = &client.label;
        return Error::Unconditional(format!(
            "`{label}` does not support conditional writes: {trouble}"
        ));
    }
    client.explain(trouble, "writing", key)
}

fn to_version<S: Store>(
    client: &Client<S>,
    key: &str,
    e_tag: Option<String>,
    generation: Option<String>,
) -> Result<Version> {
    let version = client.compared.version(e_tag, generation);
    version.ok_or_else(|| {
        let (label, what) = (&client.label, client.compared.words());
        Error::Unconditional(format!("`{label}` returns no {what} of `{key}` to compare"))
    })
}

//! Listings of S3 and GCS, which share their words, read page by page to the last one: objects, and uploads that nobody
//! finished.
//!
//! object_store stops in silence where a store says that there is more but not where, takes any XML for an empty list,
//! and has no verb for unfinished uploads; so both listings are asked for and read here.

use async_trait::async_trait;
use jiff::Timestamp;
use object_store::client::HttpResponse;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Bucket;
use super::client::{Client, Store, what};
use super::fault::{Trouble, root_name, without_mark};
use crate::{Error, Object, Result, Swept, Take, key};

/// A bucket whose listings are asked for in S3's words.
#[async_trait]
pub(crate) trait Paged: Bucket {
    /// Asks the bucket itself, and returns the answer.
    async fn ask(&self, query: &[(&str, &str)]) -> object_store::Result<String>;
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectPage {
    #[serde(default)]
    contents: Vec<ListedObject>,
    #[serde(default)]
    is_truncated: bool,
    next_continuation_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedObject {
    key: String,
    size: u64,
    last_modified: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadPage {
    #[serde(default, rename = "Upload")]
    uploads: Vec<ListedUpload>,
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedUpload {
    key: String,
    upload_id: String,
    initiated: Timestamp,
}

/// Lists every object whose key starts with `prefix`.
pub(crate) async fn list(bucket: &impl Paged, prefix: &str) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    list_each(bucket, prefix, &mut |object| objects.push(object.clone())).await?;
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(objects)
}

/// Hands out every object whose key starts with `prefix`, page by page.
pub(crate) async fn list_each(bucket: &impl Paged, prefix: &str, take: Take<'_>) -> Result<()> {
    let client = bucket.client().as_ref();
    let full_prefix = format!("{}{prefix}", client.prefix);
    let mut token: Option<String> = None;
    loop {
        let mut query = vec![("list-type", "2"), ("prefix", full_prefix.as_str())];
        if let Some(token) = &token {
            query.push(("continuation-token", token));
        }
        let page: ObjectPage = page(client, || bucket.ask(&query), "ListBucketResult")
            .await
            .map_err(|fault| fault.explain(client, prefix))?;
        let listed = page.contents.into_iter();
        for object in listed.filter_map(|listed| to_object(client, listed)) {
            take(&object);
        }
        if !page.is_truncated {
            return Ok(());
        }
        let next = page.next_continuation_token.filter(|next| !next.is_empty());
        if next.is_none() || next == token {
            return Err(cut_short(client, prefix));
        }
        token = next;
    }
}

/// Aborts uploads under `prefix` that were started before `older_than`.
///
/// A store that cannot list them keeps them out of reach of everybody, so there is nothing to do.
pub(crate) async fn sweep(
    bucket: &impl Paged,
    prefix: &str,
    older_than: Timestamp,
) -> Result<Swept> {
    let client = bucket.client().as_ref();
    let mut swept = Swept::default();
    let uploads = match unfinished(bucket, prefix).await {
        Ok(uploads) => uploads,
        Err(Fault::Trouble(trouble)) if trouble.is_unknown_request() || trouble.is_missing() => {
            return Ok(swept);
        }
        Err(fault) => match fault.explain(client, prefix) {
            Error::Denied { message, .. } => {
                swept.warnings.push(message);
                return Ok(swept);
            }
            error => return Err(error),
        },
    };
    for upload in uploads {
        if upload.initiated < older_than && own_key(client, &upload.key).is_some() {
            abort(client, &upload, &mut swept).await;
        }
    }
    Ok(swept)
}

async fn abort<S: Store>(client: &Client<S>, upload: &ListedUpload, swept: &mut Swept) {
    let Ok(path) = Path::parse(&upload.key) else {
        return;
    };
    let id = &upload.upload_id;
    let store = client.store.objects();
    let aborted = client.patience.persist(|| store.abort_multipart(&path, id));
    match aborted.await {
        Ok(()) => swept.removed += 1,
        // Somebody else was faster.
        Err(trouble) if trouble.is_missing() => {}
        Err(trouble) => {
            let what = "giving up the unfinished upload of";
            let error = client.explain(trouble, what, &upload.key);
            swept.warnings.push(error.to_string());
        }
    }
}

async fn unfinished(
    bucket: &impl Paged,
    prefix: &str,
) -> std::result::Result<Vec<ListedUpload>, Fault> {
    let client = bucket.client().as_ref();
    let full_prefix = format!("{}{prefix}", client.prefix);
    let mut uploads = Vec::new();
    let mut markers: Option<(String, String)> = None;
    loop {
        let mut query = vec![("uploads", ""), ("prefix", full_prefix.as_str())];
        if let Some((key, id)) = &markers {
            query.extend([("key-marker", key.as_str()), ("upload-id-marker", id)]);
        }
        let page: UploadPage =
            page(client, || bucket.ask(&query), "ListMultipartUploadsResult").await?;
        uploads.extend(page.uploads);
        if !page.is_truncated {
            return Ok(uploads);
        }
        let next_key = page.next_key_marker.filter(|key| !key.is_empty());
        let next = next_key.map(|key| (key, page.next_upload_id_marker.unwrap_or_default()));
        if next.is_none() || next == markers {
            return Err(Fault::Told(cut_short(client, prefix)));
        }
        markers = next;
    }
}

/// Why a page did not come.
pub(crate) enum Fault {
    Trouble(Trouble),
    Told(Error),
}

impl Fault {
    /// Says it in words.
    pub(crate) fn explain<S: Store>(self, client: &Client<S>, prefix: &str) -> Error {
        match self {
            Self::Trouble(trouble) => client.explain(trouble, "listing", prefix),
            Self::Told(error) => error,
        }
    }
}

/// Asks for one page until it comes, and reads it if it is what was asked for.
pub(crate) async fn page<T, S, F>(
    client: &Client<S>,
    ask: impl FnMut() -> F,
    root: &str,
) -> std::result::Result<T, Fault>
where
    T: DeserializeOwned,
    S: Store,
    F: Future<Output = object_store::Result<String>>,
{
    let asked = client.patience.persist(ask).await;
    let answer = asked.map_err(Fault::Trouble)?;
    let text = without_mark(&answer);
    let unreadable = || {
        Fault::Told(Error::failed(format!(
            "listing in `{}` failed: the answer is not a list",
            client.label
        )))
    };
    // Deserializing alone would read an error page as a list without entries.
    if root_name(text).as_deref() != Some(root) {
        return Err(unreadable());
    }
    quick_xml::de::from_str(text).map_err(|_| unreadable())
}

/// Reads an answer to its end.
pub(crate) async fn text_of(answer: HttpResponse) -> object_store::Result<String> {
    let bytes = answer.into_body().bytes().await.map_err(generic)?;
    String::from_utf8(bytes.into()).map_err(generic)
}

/// Makes an error that is sorted out as those of object_store are.
pub(crate) fn generic(
    error: impl std::error::Error + Send + Sync + 'static,
) -> object_store::Error {
    object_store::Error::Generic {
        store: "cloud",
        source: Box::new(error),
    }
}

/// Takes the storage's prefix off; what is not a key of ours is somebody else's.
pub(crate) fn own_key<'n, S: Store>(client: &Client<S>, name: &'n str) -> Option<&'n str> {
    let key = name.strip_prefix(&client.prefix)?;
    key::is_key(key).then_some(key)
}

fn to_object<S: Store>(client: &Client<S>, listed: ListedObject) -> Option<Object> {
    let key = own_key(client, &listed.key)?.to_owned();
    Some(Object {
        key,
        size_bytes: listed.size,
        modified_at: listed.last_modified,
    })
}

/// Says that a listing has no end.
pub(crate) fn cut_short<S: Store>(client: &Client<S>, prefix: &str) -> Error {
    Error::failed(format!(
        "{} in `{}` failed: the store says that there is more, but not where",
        what("listing", prefix),
        client.label
    ))
}

//! Listings, read page by page to the last one: objects, and uploads that nobody finished.
//!
//! object_store stops in silence where a store says that there is more but not where, takes any XML for an empty list,
//! and has no verb for unfinished uploads; so both listings are asked for and read here.

use jiff::Timestamp;
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::bucket::Bucket;
use crate::cloud::client::what;
use crate::cloud::fault::{Trouble, root_name};
use crate::{Error, Object, Result, Swept, key};

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
pub(super) async fn list(bucket: &Bucket, prefix: &str) -> Result<Vec<Object>> {
    let full_prefix = format!("{}{prefix}", bucket.client.prefix);
    let mut objects = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut query = vec![("list-type", "2"), ("prefix", full_prefix.as_str())];
        if let Some(token) = &token {
            query.push(("continuation-token", token));
        }
        let page: ObjectPage = page(bucket, &query, "ListBucketResult")
            .await
            .map_err(|fault| fault.explain(bucket, prefix))?;
        objects.extend(
            page.contents
                .into_iter()
                .filter_map(|o| to_object(bucket, o)),
        );
        if !page.is_truncated {
            break;
        }
        let next = page.next_continuation_token.filter(|next| !next.is_empty());
        if next.is_none() || next == token {
            return Err(cut_short(bucket, prefix));
        }
        token = next;
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(objects)
}

/// Aborts uploads under `prefix` that were started before `older_than`.
///
/// A store that cannot list them keeps them out of reach of everybody, so there is nothing to do.
pub(super) async fn sweep(bucket: &Bucket, prefix: &str, older_than: Timestamp) -> Result<Swept> {
    let mut swept = Swept::default();
    let uploads = match unfinished(bucket, prefix).await {
        Ok(uploads) => uploads,
        Err(Fault::Trouble(trouble)) if trouble.is_unknown_request() || trouble.is_missing() => {
            return Ok(swept);
        }
        Err(fault) => match fault.explain(bucket, prefix) {
            Error::Denied { message } => {
                swept.warnings.push(message);
                return Ok(swept);
            }
            error => return Err(error),
        },
    };
    for upload in uploads {
        if upload.initiated < older_than && is_ours(bucket, &upload.key) {
            abort(bucket, &upload, &mut swept).await;
        }
    }
    Ok(swept)
}

async fn abort(bucket: &Bucket, upload: &ListedUpload, swept: &mut Swept) {
    let Ok(path) = Path::parse(&upload.key) else {
        return;
    };
    let id = &upload.upload_id;
    let store = &bucket.client.store;
    let aborted = bucket
        .client
        .patience
        .persist(|| store.abort_multipart(&path, id));
    match aborted.await {
        Ok(()) => swept.removed += 1,
        // Somebody else was faster.
        Err(trouble) if trouble.is_missing() => {}
        Err(trouble) => {
            let error =
                bucket
                    .client
                    .explain(trouble, "giving up the unfinished upload of", &upload.key);
            swept.warnings.push(error.to_string());
        }
    }
}

async fn unfinished(
    bucket: &Bucket,
    prefix: &str,
) -> std::result::Result<Vec<ListedUpload>, Fault> {
    let full_prefix = format!("{}{prefix}", bucket.client.prefix);
    let mut uploads = Vec::new();
    let mut markers: Option<(String, String)> = None;
    loop {
        let mut query = vec![("uploads", ""), ("prefix", full_prefix.as_str())];
        if let Some((key, id)) = &markers {
            query.extend([("key-marker", key.as_str()), ("upload-id-marker", id)]);
        }
        let page: UploadPage = page(bucket, &query, "ListMultipartUploadsResult").await?;
        uploads.extend(page.uploads);
        if !page.is_truncated {
            return Ok(uploads);
        }
        let next_key = page.next_key_marker.filter(|key| !key.is_empty());
        let next = next_key.map(|key| (key, page.next_upload_id_marker.unwrap_or_default()));
        if next.is_none() || next == markers {
            return Err(Fault::Told(cut_short(bucket, prefix)));
        }
        markers = next;
    }
}

/// Why a page did not come.
enum Fault {
    Trouble(Trouble),
    Told(Error),
}

impl Fault {
    fn explain(self, bucket: &Bucket, prefix: &str) -> Error {
        match self {
            Self::Trouble(trouble) => bucket.client.explain(trouble, "listing", prefix),
            Self::Told(error) => error,
        }
    }
}

/// Asks for one page and reads it, if it is what was asked for.
async fn page<T: DeserializeOwned>(
    bucket: &Bucket,
    query: &[(&str, &str)],
    root: &str,
) -> std::result::Result<T, Fault> {
    let answer = bucket
        .client
        .patience
        .persist(|| signed_get(bucket, query))
        .await;
    let text = answer.map_err(Fault::Trouble)?;
    let unreadable = || {
        Fault::Told(Error::failed(format!(
            "listing in `{}` failed: the answer is not a list",
            bucket.client.label
        )))
    };
    // Deserializing alone would read an error page as a list without entries.
    if root_name(&text).as_deref() != Some(root) {
        return Err(unreadable());
    }
    quick_xml::de::from_str(&text).map_err(|_| unreadable())
}

async fn signed_get(bucket: &Bucket, query: &[(&str, &str)]) -> object_store::Result<String> {
    let credential = bucket.client.store.credentials().get_credential().await?;
    let mut url = Url::parse(&bucket.url).expect("the bucket's URL was built from a URL");
    url.query_pairs_mut().extend_pairs(query);
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = url.as_str().parse().map_err(generic)?;
    AwsAuthorizer::new(&credential, "s3", &bucket.region).try_authorize(&mut request, None)?;
    let response = bucket.http.execute(request).await.map_err(generic)?;
    let body = response.into_body().bytes().await.map_err(generic)?;
    String::from_utf8(body.into()).map_err(generic)
}

fn generic(error: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic {
        store: "S3",
        source: Box::new(error),
    }
}

/// Takes the storage's prefix off; what is not a key of ours is somebody else's.
fn to_object(bucket: &Bucket, listed: ListedObject) -> Option<Object> {
    let key = listed.key.strip_prefix(&bucket.client.prefix)?;
    key::is_key(key).then(|| Object {
        key: key.to_owned(),
        size_bytes: listed.size,
        modified_at: listed.last_modified,
    })
}

fn is_ours(bucket: &Bucket, full_key: &str) -> bool {
    full_key
        .strip_prefix(&bucket.client.prefix)
        .is_some_and(key::is_key)
}

fn cut_short(bucket: &Bucket, prefix: &str) -> Error {
    Error::failed(format!(
        "{} in `{}` failed: the store says that there is more, but not where",
        what("listing", prefix),
        bucket.client.label
    ))
}

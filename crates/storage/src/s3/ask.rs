//! Signed questions that object_store has no verb for: listings, and what a bucket says of itself and of one object.

use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};

use super::bucket::Bucket;
use crate::cloud::pages::{generic, text_of};

/// Asks about the bucket, or about one object of it, and returns the answer's text.
pub(super) async fn get(
    bucket: &Bucket,
    key: Option<&str>,
    query: &[(&str, &str)],
) -> object_store::Result<String> {
    let credentials = bucket.client.store.credentials();
    let credential = credentials.get_credential().await?;
    let mut url = bucket.url.clone();
    if let Some(key) = key {
        let full = bucket.client.path(key);
        let mut path = url
            .path_segments_mut()
            .expect("the bucket's URL has a host, so it has a path");
        // A bucket in the host name leaves one empty segment.
        path.pop_if_empty();
        path.extend(full.as_ref().split('/'));
    }
    url.query_pairs_mut().extend_pairs(query);
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = url.as_str().parse().map_err(generic)?;
    AwsAuthorizer::new(&credential, "s3", &bucket.region).try_authorize(&mut request, None)?;
    text_of(bucket.http.execute(request).await.map_err(generic)?).await
}

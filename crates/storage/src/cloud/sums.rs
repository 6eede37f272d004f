//! The checksum of a request's body, for buckets that lock what is written and take nothing without one.
//!
//! Of all checksums only this one is understood by every store, whether or not it is signed; some refuse a request that
//! has a newer one. <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html>

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body::Body;
use md5::{Digest as _, Md5};
use object_store::client::{HttpRequest, HttpRequestBody};

/// Says over what the body of a request is; a body that is not all there yet goes without.
pub(super) fn add(request: &mut HttpRequest) {
    let sum = md5_of(request.body().clone());
    let value = sum.and_then(|sum| STANDARD.encode(sum).parse().ok());
    if let Some(value) = value {
        request.headers_mut().insert("content-md5", value);
    }
}

fn md5_of(mut body: HttpRequestBody) -> Option<[u8; 16]> {
    let mut sum = Md5::new();
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => sum.update(frame.data_ref()?),
            Poll::Ready(None) => return Some(sum.finalize().into()),
            Poll::Ready(Some(Err(_))) | Poll::Pending => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use object_store::PutPayload;

    #[test]
    fn a_body_is_summed_whole_and_stays() {
        let payload: PutPayload = [Bytes::from("hello "), Bytes::from("world")]
            .into_iter()
            .collect();
        let mut request = HttpRequest::new(payload.into());
        add(&mut request);
        // `printf 'hello world' | openssl md5 -binary | base64`
        assert_eq!(request.headers()["content-md5"], "XrY7u+Ae7tCTyyK7j1rNww==");
        assert_eq!(request.body().content_length(), 11);
    }
}

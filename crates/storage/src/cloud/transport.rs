//! How requests reach the store: refusals and outages become typed errors, and a request that stands still is ended.
//!
//! It never follows a redirect (credentials would go along) and has no limit on a request's whole length, only on how
//! long nothing moves. Trying again is not its business.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::Body;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use object_store::ClientConfigKey;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, HeaderMap};
use reqwest::{Method, StatusCode};

use super::fault::{NoCredentials, Outage, OutageKind, Refusal, XmlError, into_http_error};
use super::pace::{CountedBody, Pace, PacedBody, standstill};
use crate::{Error, Result};

/// Longest error document that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where there is no metadata service, nothing answers at all; where there is one, it is on the same host.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Hands object_store its connections: one kind for the store, one for the cloud's metadata service.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    store: HttpClient,
    metadata: HttpClient,
    is_plain_http: bool,
}

impl Connector {
    /// Prepares connections. `certificates` are trusted besides the system's.
    pub(crate) fn new(
        is_plain_http: bool,
        certificates: Vec<reqwest::Certificate>,
        stall_timeout: Duration,
    ) -> Result<Self> {
        let store = builder()
            .https_only(!is_plain_http)
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_certs_merge(certificates);
        // Answers on a link-local address, in plain HTTP by design, and never through a proxy.
        let metadata = builder()
            .no_proxy()
            .connect_timeout(METADATA_CONNECT_TIMEOUT);
        Ok(Self {
            store: connect(store, stall_timeout, false)?,
            metadata: connect(metadata, METADATA_CONNECT_TIMEOUT * 5, true)?,
            is_plain_http,
        })
    }

    /// Returns the connections to the store.
    pub(crate) fn store(&self) -> &HttpClient {
        &self.store
    }
}

impl HttpConnector for Connector {
    /// object_store asks for plain HTTP only for metadata services, or for an endpoint that says so itself.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let wants_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let is_metadata = !self.is_plain_http && wants_http.as_deref() == Some("true");
        let client = if is_metadata {
            &self.metadata
        } else {
            &self.store
        };
        Ok(client.clone())
    }
}

fn builder() -> reqwest::ClientBuilder {
    pgkeep_https::client()
        // Several parts at once want connections of their own, not one shared window.
        .http1_only()
}

fn connect(
    builder: reqwest::ClientBuilder,
    stall_timeout: Duration,
    is_metadata: bool,
) -> Result<HttpClient> {
    let client = builder.build().map_err(|error| Error::Failed {
        message: "cannot prepare HTTPS connections".to_owned(),
        hint: None,
        source: Some(Box::new(error)),
    })?;
    Ok(HttpClient::new(Transport {
        client,
        stall_timeout,
        is_metadata,
    }))
}

#[derive(Debug)]
struct Transport {
    client: reqwest::Client,
    stall_timeout: Duration,
    is_metadata: bool,
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let progress = Arc::new(AtomicU64::new(0));
        let request = to_reqwest(request, &progress)?;
        let is_post = request.method() == Method::POST;
        let response = tokio::select! {
            answer = self.client.execute(request) => answer
                .map_err(|error| into_http_error(Outage::of(error, self.is_metadata)))?,
            () = standstill(&progress, self.stall_timeout) => {
                return Err(into_http_error(self.stall()));
            }
        };
        let status = response.status();
        if !status.is_success() && self.is_metadata {
            // Its 404 is about credentials, and must not be taken for a missing object.
            let why = format!(
                "the metadata service answered with status {}",
                status.as_u16()
            );
            return Err(into_http_error(NoCredentials(why)));
        }
        if !status.is_success() {
            return Err(self.refused(response).await);
        }
        if is_post {
            return unmask(status, self.paced(response, Pace::WhileItWorks)).await;
        }
        Ok(self.paced(response, Pace::Steady))
    }
}

impl Transport {
    /// What a request that stands still fails with.
    fn stall(&self) -> Outage {
        Outage {
            kind: OutageKind::Stalled,
            why: format!("nothing moved for {} s", self.stall_timeout.as_secs_f64()),
            is_metadata: self.is_metadata,
        }
    }

    /// Wraps the body so that it fails when it stands still.
    fn paced(&self, response: reqwest::Response, pace: Pace) -> HttpResponse {
        let (mut parts, _) = HttpResponse::new(Bytes::new().into()).into_parts();
        parts.status = response.status();
        parts.headers = response.headers().clone();
        let body = PacedBody::new(response.into(), self.stall_timeout, pace, self.stall());
        HttpResponse::from_parts(parts, HttpResponseBody::new(body))
    }

    async fn refused(&self, response: reqwest::Response) -> HttpError {
        let status = response.status();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        let mut response = response;
        // A refusal whose explanation is cut off or slow is still a refusal.
        let read = async {
            while let Ok(Some(bytes)) = response.chunk().await {
                body.extend_from_slice(&bytes);
                if body.len() > MAX_ERROR_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(self.stall_timeout, read).await;
        into_http_error(refusal(status, &headers, &body))
    }
}

/// Builds what reqwest sends, with a body that reports how far it got.
fn to_reqwest(
    request: HttpRequest,
    progress: &Arc<AtomicU64>,
) -> std::result::Result<reqwest::Request, HttpError> {
    let (parts, body) = request.into_parts();
    let url = parts
        .uri
        .to_string()
        .parse::<url::Url>()
        .map_err(into_http_error)?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    if !body.is_end_stream() {
        let body = CountedBody::new(body, Arc::clone(progress));
        *request.body_mut() = Some(reqwest::Body::wrap(body));
    }
    Ok(request)
}

/// S3 answers 200 before it has put the parts together, so a success may carry an error document.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>
async fn unmask(
    status: StatusCode,
    response: HttpResponse,
) -> std::result::Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let bytes = body.bytes().await?;
    if XmlError::parse(&bytes).is_some() {
        return Err(into_http_error(refusal(status, &parts.headers, &bytes)));
    }
    Ok(HttpResponse::from_parts(parts, bytes.into()))
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let date = header("date").and_then(|text| DateTimeParser::new().parse_timestamp(text).ok());
    let document = XmlError::parse(body).unwrap_or_default();
    Refusal {
        status: status.as_u16(),
        code: document.code,
        message: document.message,
        region: header("x-amz-bucket-region")
            .map(str::to_owned)
            .or(document.region),
        retry_after: header("retry-after").and_then(|text| parse_retry_after(text, date)),
        clock_ahead: date.map(|date| Timestamp::now().duration_since(date)),
    }
}

/// Reads seconds or a date (RFC 9110, 10.2.3); a date counts from the server's own clock.
fn parse_retry_after(text: &str, server_now: Option<Timestamp>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    let now = server_now.unwrap_or_else(Timestamp::now);
    Duration::try_from(until.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let read = |text| parse_retry_after(text, Some(now));
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        let date = "Fri, 02 Jan 2026 03:05:05 GMT";
        assert_eq!(read(date), Some(Duration::from_secs(60)));
        assert_eq!(read("Fri, 02 Jan 2026 03:00:00 GMT"), None);
        assert_eq!(read("soon"), None);
    }
}

//! How requests reach the store: refusals and outages become typed errors, and a request that stands still is ended.
//!
//! It never follows a redirect (credentials would go along) and has no limit on a request's whole length, only on how
//! long nothing moves. Trying again is not its business, but for a write that a store wants a checksum of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::Body;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, HeaderMap};
use reqwest::{Method, StatusCode};
use url::Url;

use super::fault::{
    NoCredentials, Outage, OutageKind, Refusal, XmlError, first_line, into_http_error, shortened,
};
use super::hiding;
use super::pace::{CountedBody, Pace, PacedBody, standstill};
use super::sums;
use crate::{Error, Result};

/// Longest error document that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// How far apart clocks may be, with Azure as with S3.
/// <https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key#specifying-the-date-header>
const LARGEST_SKEW: SignedDuration = SignedDuration::from_mins(15);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where there is no metadata service, nothing answers at all; where there is one, it is on the same host.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Hands object_store its connections.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    http: HttpClient,
}

impl Connector {
    /// Prepares connections to the store at `url`, to whoever hands out tokens, and to the cloud's metadata service.
    /// `certificates` are trusted besides the system's.
    pub(crate) fn new(
        url: &Url,
        certificates: Vec<reqwest::Certificate>,
        stall_timeout: Duration,
    ) -> Result<Self> {
        let store = builder()
            .https_only(url.scheme() != "http")
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_certs_merge(certificates);
        // Answers on a link-local address, in plain HTTP by design, and never through a proxy.
        let metadata = builder()
            .no_proxy()
            .connect_timeout(METADATA_CONNECT_TIMEOUT);
        let transport = Transport {
            store: build(store)?,
            metadata: build(metadata)?,
            store_authority: url.authority().to_owned(),
            stall_timeout,
            is_summed: AtomicBool::new(false),
        };
        Ok(Self {
            http: HttpClient::new(transport),
        })
    }

    /// Returns the connections, for requests that object_store has no verb for.
    pub(crate) fn http(&self) -> &HttpClient {
        &self.http
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.http.clone())
    }
}

fn builder() -> reqwest::ClientBuilder {
    pgkeep_https::client()
        // Several parts at once want connections of their own, not one shared window.
        .http1_only()
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client> {
    builder.build().map_err(|error| Error::Failed {
        message: "cannot prepare HTTPS connections".to_owned(),
        hint: None,
        source: Some(Box::new(error)),
    })
}

/// Whom a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Store,
    /// Who hands out tokens for a login.
    Tokens,
    /// The cloud's metadata service, or another one on this machine.
    Metadata,
}

#[derive(Debug)]
struct Transport {
    store: reqwest::Client,
    metadata: reqwest::Client,
    /// Host and port of the store, as URLs write them.
    store_authority: String,
    stall_timeout: Duration,
    /// Whether the store wants a checksum of what is written, as it turned out.
    is_summed: AtomicBool,
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, mut request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        if request.method() != Method::PUT || self.whom(&request) != Whom::Store {
            return self.send(request).await;
        }
        if self.is_summed.load(Ordering::Relaxed) {
            sums::add(&mut request);
            return self.send(request).await;
        }
        // The bytes are shared, not copied.
        let mut again = request.clone();
        match self.send(request).await {
            Err(error) if Refusal::behind(&error).is_some_and(Refusal::wants_checksum) => {
                self.is_summed.store(true, Ordering::Relaxed);
                sums::add(&mut again);
                self.send(again).await
            }
            answered => answered,
        }
    }
}

impl Transport {
    async fn send(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let whom = self.whom(&request);
        let host = request.uri().host().unwrap_or_default().to_owned();
        let is_metadata = whom == Whom::Metadata;
        let (client, stall_timeout) = match whom {
            Whom::Store | Whom::Tokens => (&self.store, self.stall_timeout),
            Whom::Metadata => (&self.metadata, METADATA_CONNECT_TIMEOUT * 5),
        };
        let stall = Outage {
            kind: OutageKind::Stalled,
            why: format!("nothing moved for {} s", stall_timeout.as_secs_f64()),
            is_metadata,
        };
        let progress = Arc::new(AtomicU64::new(0));
        let request = to_reqwest(request, &progress)?;
        let is_post = request.method() == Method::POST;
        let is_delete = request.method() == Method::DELETE;
        let outage = |outage: Outage| {
            // The store is not to blame for those that it trusts.
            let why = match whom {
                Whom::Tokens => format!("`{host}`, which hands out the login: {}", outage.why),
                _ => outage.why,
            };
            into_http_error(Outage { why, ..outage })
        };
        let response = tokio::select! {
            answer = client.execute(request) => {
                answer.map_err(|error| outage(Outage::of(error, is_metadata)))?
            }
            () = standstill(&progress, stall_timeout) => return Err(outage(stall)),
        };
        let status = response.status();
        if !status.is_success() && is_metadata {
            // Its 404 is about credentials, and must not be taken for a missing object.
            let why = format!(
                "the metadata service answered with status {}",
                status.as_u16()
            );
            return Err(into_http_error(NoCredentials(why)));
        }
        if !status.is_success() {
            let (refusal, body) = refused(response, stall_timeout).await;
            return Err(match whom {
                // Neither must the 404 of a tenant that does not exist.
                Whom::Tokens if !refusal.is_passing() => {
                    let words = login_words(status, &body);
                    into_http_error(NoCredentials(format!(
                        "`{host}` refuses the login: {words}"
                    )))
                }
                _ => into_http_error(refusal),
            });
        }
        if is_delete {
            hiding::note(response.headers());
        }
        let pace = if is_post {
            Pace::WhileItWorks
        } else {
            Pace::Steady
        };
        let answer = paced(response, stall_timeout, pace, stall);
        if is_post {
            return unmask(status, answer).await;
        }
        Ok(answer)
    }

    fn whom(&self, request: &HttpRequest) -> Whom {
        let uri = request.uri();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.eq_ignore_ascii_case(&self.store_authority) {
            Whom::Store
        } else if uri.scheme_str() == Some("http") {
            Whom::Metadata
        } else {
            Whom::Tokens
        }
    }
}

/// Wraps the body so that it fails when it stands still.
fn paced(
    response: reqwest::Response,
    stall_timeout: Duration,
    pace: Pace,
    stall: Outage,
) -> HttpResponse {
    let (mut parts, _) = HttpResponse::new(Bytes::new().into()).into_parts();
    parts.status = response.status();
    parts.headers = response.headers().clone();
    let body = PacedBody::new(response.into(), stall_timeout, pace, stall);
    HttpResponse::from_parts(parts, HttpResponseBody::new(body))
}

/// Reads why a request was refused.
async fn refused(mut response: reqwest::Response, stall_timeout: Duration) -> (Refusal, Vec<u8>) {
    let status = response.status();
    let headers = response.headers().clone();
    let mut body = Vec::new();
    // A refusal whose explanation is cut off or slow is still a refusal.
    let read = async {
        while let Ok(Some(bytes)) = response.chunk().await {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_ERROR_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(stall_timeout, read).await;
    (refusal(status, &headers, &body), body)
}

/// Says why a login was refused, in the words of OAuth (RFC 6749, 5.2) as far as there are any.
fn login_words(status: StatusCode, body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |pointer| json.pointer(pointer).and_then(serde_json::Value::as_str);
    let code = text("/error").or_else(|| text("/error/status"));
    let message = text("/error_description").or_else(|| text("/error/message"));
    let words = [code, message.map(first_line)].into_iter().flatten();
    let told = words.fold(format!("status {}", status.as_u16()), |all, word| {
        format!("{all} {word}")
    });
    shortened(told)
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
    let clock_ahead = date.map(|date| Timestamp::now().duration_since(date));
    // Azure tells it in a header, too, which answers to HEAD have.
    let told = if document.code.is_empty() {
        header("x-ms-error-code").unwrap_or_default().to_owned()
    } else {
        document.code
    };
    let is_skewed = clock_ahead.is_some_and(|ahead| ahead.abs() > LARGEST_SKEW);
    let code = match told.as_str() {
        // Azure's word for a wrong clock as for a wrong key.
        "AuthenticationFailed" if is_skewed => "RequestTimeTooSkewed".to_owned(),
        _ => told,
    };
    Refusal {
        status: status.as_u16(),
        code,
        message: document.message,
        region: header("x-amz-bucket-region")
            .map(str::to_owned)
            .or(document.region),
        retry_after: header("retry-after").and_then(|text| parse_retry_after(text, date)),
        clock_ahead,
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
    use object_store::client::HttpRequestBody;

    #[test]
    fn whoever_is_not_the_store_hands_out_credentials() {
        let url = Url::parse("https://acme.blob.core.windows.net/").unwrap();
        let transport = Transport {
            store: pgkeep_https::client().build().unwrap(),
            metadata: pgkeep_https::client().build().unwrap(),
            store_authority: url.authority().to_owned(),
            stall_timeout: Duration::from_secs(1),
            is_summed: AtomicBool::new(false),
        };
        for (uri, expected) in [
            ("https://acme.blob.core.windows.net/c/k", Whom::Store),
            ("https://ACME.blob.core.windows.net/c/k?x=y", Whom::Store),
            ("https://acme.blob.core.windows.net.evil/c", Whom::Tokens),
            ("https://login.microsoftonline.com/t/oauth2", Whom::Tokens),
            ("http://169.254.169.254/metadata", Whom::Metadata),
        ] {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.uri_mut() = uri.parse().unwrap();
            assert_eq!(transport.whom(&request), expected, "{uri}");
        }
    }

    #[test]
    fn a_refused_login_is_told_in_its_own_words() {
        let status = StatusCode::UNAUTHORIZED;
        for (body, words) in [
            ("", "status 401"),
            ("<html>", "status 401"),
            (
                r#"{"error": "invalid_grant", "error_description": "Bad Request"}"#,
                "status 401 invalid_grant Bad Request",
            ),
            (
                r#"{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret.\r\nTrace ID: x"}"#,
                "status 401 invalid_client AADSTS7000215: Invalid client secret.",
            ),
            (
                r#"{"error": {"status": "PERMISSION_DENIED", "message": "no"}}"#,
                "status 401 PERMISSION_DENIED no",
            ),
        ] {
            assert_eq!(login_words(status, body.as_bytes()), words);
        }
    }

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

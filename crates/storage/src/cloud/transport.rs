//! How requests reach the store: refusals and outages become typed errors, and a request that stands still is ended.
//!
//! It never follows a redirect (credentials would go along) and has no limit on a request's whole length, only on how
//! long nothing moves. Trying again is not its business.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use object_store::ClientConfigKey;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, HeaderMap};
use reqwest::{Method, StatusCode};
use tokio::time::Sleep;

use super::fault::{NoCredentials, Outage, OutageKind, Refusal, XmlError};
use crate::{Error, Result};

/// Moving less than this within the stall timeout counts as standing still: a byte a second is not progress.
const LEAST_PROGRESS_BYTES: u64 = 1024;

/// An answer that a store gives while it still works comes a space at a time, each a sign of life; such a request may take so many
/// stall timeouts as a whole (20 minutes as it comes). Putting parts together "could take several minutes", says AWS.
const LONGEST_WORK: u32 = 10;

/// Bodies go out in pieces of this size, so that progress can be seen on a slow link.
const PIECE_BYTES: usize = 64 * 1024;

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
            answer = self.client.execute(request) => answer.map_err(|error| self.broken(error))?,
            () = standstill(&progress, self.stall_timeout) => return Err(self.stalled()),
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
    fn stalled(&self) -> HttpError {
        self.outage(OutageKind::Stalled, self.stall_words())
    }

    fn stall_words(&self) -> String {
        format!("nothing moved for {} s", self.stall_timeout.as_secs_f64())
    }

    fn broken(&self, error: reqwest::Error) -> HttpError {
        let (kind, why) = diagnose(error);
        self.outage(kind, why)
    }

    fn outage(&self, kind: OutageKind, why: String) -> HttpError {
        into_http_error(Outage {
            kind,
            why,
            is_metadata: self.is_metadata,
        })
    }

    /// Wraps the body so that it fails when it stands still.
    fn paced(&self, response: reqwest::Response, pace: Pace) -> HttpResponse {
        let (mut parts, _) = HttpResponse::new(Bytes::new().into()).into_parts();
        parts.status = response.status();
        parts.headers = response.headers().clone();
        let stall = Outage {
            kind: OutageKind::Stalled,
            why: self.stall_words(),
            is_metadata: self.is_metadata,
        };
        let body = PacedBody::new(response.into(), self.stall_timeout, pace, stall);
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
        .parse()
        .map_err(|error: url::ParseError| into_http_error(error))?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    if !body.is_end_stream() {
        *request.body_mut() = Some(reqwest::Body::wrap(CountedBody {
            inner: body,
            rest: Bytes::new(),
            progress: Arc::clone(progress),
        }));
    }
    Ok(request)
}

/// Returns once too little was sent within one stall timeout; dropped when the answer arrives.
async fn standstill(progress: &AtomicU64, stall_timeout: Duration) {
    let mut before = 0;
    loop {
        tokio::time::sleep(stall_timeout).await;
        let now = progress.load(Ordering::Relaxed);
        if now - before < LEAST_PROGRESS_BYTES {
            return;
        }
        before = now;
    }
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

/// Finds out what went wrong and says it in the innermost error's words.
fn diagnose(error: reqwest::Error) -> (OutageKind, String) {
    // The URL goes: a part's holds the upload's id, and the message names the key anyway.
    let error = error.without_url();
    let mut chain = vec![error.to_string()];
    let mut next = error.source();
    while let Some(inner) = next {
        chain.push(inner.to_string());
        next = inner.source();
    }
    // rustls is not a dependency of ours, so its errors are known by their words.
    let is_tls = chain.iter().any(|text| {
        text.contains("certificate") || text.contains("corrupt message") || text.contains("alert")
    });
    let kind = match () {
        () if is_tls => OutageKind::Tls,
        // A connection that takes too long to make is both; nobody being there explains more.
        () if error.is_connect() => OutageKind::Unreachable,
        () if error.is_timeout() => OutageKind::Stalled,
        () => OutageKind::Cut,
    };
    let innermost = chain.pop().expect("the chain starts with the error itself");
    let words = innermost.split(" (os error").next().unwrap_or_default();
    (kind, words.to_owned())
}

fn into_http_error(error: impl StdError + Send + Sync + 'static) -> HttpError {
    // `Unknown` is the kind that object_store never retries: `retry.rs` decides that.
    HttpError::new(HttpErrorKind::Unknown, error)
}

/// A request body in pieces that counts what was taken.
struct CountedBody {
    inner: HttpRequestBody,
    rest: Bytes,
    progress: Arc<AtomicU64>,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
        while self.rest.is_empty() {
            match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.rest = frame.into_data().unwrap_or_default();
                }
                other => return other,
            }
        }
        let size = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(size);
        self.progress.fetch_add(size as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.inner.size_hint().lower() + self.rest.len() as u64;
        SizeHint::with_exact(left)
    }
}

/// What counts as progress of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// So many bytes that the whole arrives one day.
    Steady,
    /// Any byte: the store says no more than that it is at work. The whole has a limit instead.
    WhileItWorks,
}

/// A response body that fails when it stands still while somebody waits for it.
struct PacedBody {
    inner: reqwest::Body,
    stall_timeout: Duration,
    least_progress_bytes: u64,
    /// The end of the whole, where it has one.
    deadline: Option<Pin<Box<Sleep>>>,
    waiting: Option<Pin<Box<Sleep>>>,
    moved: u64,
    stall: Outage,
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.moved += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                if self.moved >= self.least_progress_bytes {
                    self.moved = 0;
                    self.waiting = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let (kind, why) = diagnose(error);
                let is_metadata = self.stall.is_metadata;
                Poll::Ready(Some(Err(into_http_error(Outage {
                    kind,
                    why,
                    is_metadata,
                }))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_stall(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl PacedBody {
    fn new(inner: reqwest::Body, stall_timeout: Duration, pace: Pace, stall: Outage) -> Self {
        let (least_progress_bytes, deadline) = match pace {
            Pace::Steady => (LEAST_PROGRESS_BYTES, None),
            Pace::WhileItWorks => {
                let whole = tokio::time::sleep(stall_timeout * LONGEST_WORK);
                (1, Some(Box::pin(whole)))
            }
        };
        Self {
            inner,
            stall_timeout,
            least_progress_bytes,
            deadline,
            waiting: None,
            moved: 0,
            stall,
        }
    }

    fn poll_stall(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            let why = format!(
                "no answer within {} s",
                (self.stall_timeout * LONGEST_WORK).as_secs_f64()
            );
            let late = Outage {
                why,
                ..self.stall.clone()
            };
            return Poll::Ready(Some(Err(into_http_error(late))));
        }
        let limit = self.stall_timeout;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(into_http_error(self.stall.clone())))),
            Poll::Pending => Poll::Pending,
        }
    }
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

    /// Sends a space at a time, and `<x/>` at the end.
    struct Spaces {
        left: u32,
        every: Duration,
        pause: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Spaces {
        type Data = Bytes;
        type Error = HttpError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            let every = self.every;
            let pause = self
                .pause
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
            self.left -= 1;
            let text = if self.left == 0 { "<x/>" } else { " " };
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
        }
    }

    /// Reads an answer of so many spaces, one every `every_s` seconds, by the clock of the tests.
    async fn read(
        pace: Pace,
        spaces: u32,
        every_s: u64,
    ) -> (std::result::Result<Bytes, HttpError>, u64) {
        let start = tokio::time::Instant::now();
        let inner = reqwest::Body::wrap(Spaces {
            left: spaces,
            every: Duration::from_secs(every_s),
            pause: None,
        });
        let stall = Outage {
            kind: OutageKind::Stalled,
            why: "nothing moved".to_owned(),
            is_metadata: false,
        };
        let body = PacedBody::new(inner, Duration::from_secs(120), pace, stall);
        let read = HttpResponseBody::new(body).bytes().await;
        (read, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_space_is_a_sign_of_life_of_a_store_at_work() {
        let (read_all, took_s) = read(Pace::WhileItWorks, 19, 60).await;
        assert_eq!(read_all.unwrap().trim_ascii(), b"<x/>");
        assert_eq!(took_s, 19 * 60);
        let (silent, took_s) = read(Pace::WhileItWorks, 2, 121).await;
        assert!(silent.is_err());
        assert_eq!(took_s, 120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_works_without_end_is_left() {
        let (read_all, took_s) = read(Pace::WhileItWorks, 1000, 60).await;
        let why = read_all.unwrap_err().source().unwrap().to_string();
        assert_eq!(why, "no answer within 1200 s");
        assert_eq!(took_s, 1200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_space_is_no_progress_of_an_object() {
        let (read_all, took_s) = read(Pace::Steady, 19, 60).await;
        assert!(read_all.is_err());
        assert_eq!(took_s, 120);
    }
}

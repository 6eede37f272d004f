//! What can go wrong between here and a bucket, as types, and the words for it.
//!
//! Decides what is worth another try. Messages hold the store's code and message, never a header, a URL's query or a key.

use std::error::Error as StdError;
use std::time::Duration;

use jiff::SignedDuration;
use object_store::client::{HttpError, HttpErrorKind};
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Deserialize;

use super::codes::{self, Dialect};
use crate::Error;

/// Longest message of a store that is passed on.
const MAX_MESSAGE: usize = 300;

/// The store answered, and the answer is no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The store's code such as `AccessDenied`; empty where the answer had none.
    pub(crate) code: String,
    pub(crate) message: String,
    /// Region of the bucket, where the store tells.
    pub(crate) region: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// How far this machine's clock is ahead of the store's.
    pub(crate) clock_ahead: Option<SignedDuration>,
}

/// There was no whole answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Outage {
    pub(crate) kind: OutageKind,
    pub(crate) why: String,
    /// Whether it was the cloud's metadata service that did not answer, not the store.
    pub(crate) is_metadata: bool,
}

/// How an answer failed to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutageKind {
    /// Nobody there: refused, no route.
    Unreachable,
    /// No resolver knows the name.
    UnknownHost,
    /// The encrypted connection could not be made.
    Tls,
    /// Too little moved for too long.
    Stalled,
    /// The connection ended before the answer did.
    Cut,
}

/// Tells that there is nothing to sign with.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoCredentials(pub(crate) String);

/// One request's end, sorted out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Outage(Outage),
    #[error(transparent)]
    NoCredentials(NoCredentials),
    #[error("{0}")]
    Other(object_store::Error),
}

/// The error document of S3, which GCS and Azure have taken over.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct XmlError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) region: Option<String>,
    /// What GCS has to say besides, such as which right is missing.
    details: Option<String>,
    /// The same of Azure.
    authentication_error_detail: Option<String>,
}

impl XmlError {
    /// Reads an error document; `None` if it is something else.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let text = without_mark(std::str::from_utf8(body).ok()?);
        if root_name(text)? != "Error" {
            return None;
        }
        let mut document: Self = quick_xml::de::from_str(text).ok()?;
        document.message = document.words();
        Some(document)
    }

    /// Joins what is said in several places. Azure ends its message with lines about the request.
    fn words(&self) -> String {
        let told = self.authentication_error_detail.as_deref();
        // Else it is what the signature was made of.
        let detail = told.filter(|text| !text.to_ascii_lowercase().contains("signature d"));
        let more = [self.details.as_deref(), detail].into_iter().flatten();
        let mut words = first_line(&self.message).to_owned();
        for text in more.map(first_line).filter(|text| !text.is_empty()) {
            words = format!("{words} {text}");
        }
        shortened(words)
    }
}

/// Returns as much of a foreign message as is passed on.
pub(super) fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_MESSAGE) {
        text.truncate(end);
    }
    text
}

/// Returns a text up to its first line end.
pub(super) fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

/// Takes off the byte order mark that Azure's documents begin with.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Returns the name of a document's root element. Deserializing alone takes any document for the expected one.
pub(crate) fn root_name(text: &str) -> Option<String> {
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event().ok()? {
            Event::Start(root) | Event::Empty(root) => {
                let name = root.local_name();
                return Some(String::from_utf8_lossy(name.as_ref()).into_owned());
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// Returns an error and all that lies behind it.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Makes an error that object_store hands on as it is.
pub(super) fn into_http_error(error: impl StdError + Send + Sync + 'static) -> HttpError {
    // `Unknown` is the kind that object_store never retries: `retry.rs` decides that.
    HttpError::new(HttpErrorKind::Unknown, error)
}

impl Outage {
    /// Finds out what went wrong and says it in the innermost error's words.
    pub(super) fn of(error: reqwest::Error, is_metadata: bool) -> Self {
        // The URL goes: a part's holds the upload's id, and the message names the key anyway.
        let error = error.without_url();
        let texts: Vec<String> = chain(&error).map(ToString::to_string).collect();
        // rustls is not a dependency of ours, so its errors are known by their words.
        let is_tls = texts.iter().any(|text| {
            text.contains("certificate")
                || text.contains("corrupt message")
                || text.contains("alert")
        });
        let is_unknown = texts.iter().any(|text| {
            text.contains("dns error") || text.contains("failed to lookup address information")
        });
        let kind = if is_tls {
            OutageKind::Tls
        } else if is_unknown {
            OutageKind::UnknownHost
        } else if error.is_connect() {
            // A connection that takes too long to make is both; nobody being there explains more.
            OutageKind::Unreachable
        } else if error.is_timeout() {
            OutageKind::Stalled
        } else {
            OutageKind::Cut
        };
        let innermost = texts.last().map_or("", String::as_str);
        let words = innermost.split(" (os error").next().unwrap_or_default();
        Self {
            kind,
            why: words.to_owned(),
            is_metadata,
        }
    }
}

impl From<object_store::Error> for Trouble {
    fn from(error: object_store::Error) -> Self {
        for inner in chain(&error) {
            if let Some(refusal) = inner.downcast_ref::<Refusal>() {
                return Self::Refused(refusal.clone());
            }
            if let Some(outage) = inner.downcast_ref::<Outage>() {
                return Self::Outage(outage.clone());
            }
            if let Some(missing) = inner.downcast_ref::<NoCredentials>() {
                return Self::NoCredentials(missing.clone());
            }
        }
        Self::Other(error)
    }
}

impl Trouble {
    /// Tells whether the same request may succeed in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_passing(),
            Self::Outage(outage) => !outage.is_metadata && outage.kind != OutageKind::Tls,
            Self::NoCredentials(_) | Self::Other(_) => false,
        }
    }

    /// Tells whether no resolver knows the store's name.
    pub(crate) fn is_unknown_host(&self) -> bool {
        matches!(self, Self::Outage(outage) if outage.kind == OutageKind::UnknownHost)
    }

    /// Returns how long the store asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// Returns the status that the store answered with.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// Tells whether the store does not know this kind of request.
    pub(crate) fn is_unknown_request(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                matches!(refusal.status, 405 | 501) || refusal.code == "NotImplemented"
            }
            _ => false,
        }
    }

    /// Tells whether there is no such thing, in a bucket that is there.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status == 404 && !codes::is_no_bucket(&refusal.code),
            _ => false,
        }
    }

    /// Tells whether a condition of the request was not met: the key is taken, or holds something else.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                let is_conflict = matches!(refusal.status, 409 | 412);
                is_conflict && !self.is_retained() || codes::is_taken(&refusal.code)
            }
            _ => false,
        }
    }

    /// Tells whether a lock or a retention policy of the store forbids to remove or to overwrite an object.
    pub(crate) fn is_retained(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_retained())
    }

    /// Says it in words; `what` is what was being done to which thing.
    pub(crate) fn explain(self, dialect: &Dialect, label: &str, what: &str) -> Error {
        match self {
            Self::Refused(refusal) => refusal.explain(dialect, label, what),
            Self::Outage(outage) => outage.explain(dialect, label, what),
            Self::NoCredentials(missing) => Error::Denied {
                message: format!("{what} in `{label}` failed: {missing}"),
                hint: Some(dialect.login.to_owned()),
            },
            Self::Other(error) => failed(
                format!("{what} in `{label}` failed: the answer was not understood"),
                None,
                error,
            ),
        }
    }
}

impl Refusal {
    /// Finds the refusal that lies behind an error.
    pub(super) fn behind<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        chain(error).find_map(|inner| inner.downcast_ref())
    }

    /// Tells whether a write was refused because a bucket with object lock wants a checksum: each store says it in its
    /// own way.
    pub(super) fn wants_checksum(&self) -> bool {
        let is_said = self.message.to_ascii_lowercase().contains("content-md5");
        self.status == 400 && (is_said || self.code == "MissingContentMD5")
    }

    pub(super) fn is_passing(&self) -> bool {
        codes::is_passing(&self.code) || matches!(self.status, 408 | 429 | 500 | 502..=599)
    }

    /// Tells whether a lock or a retention policy forbids to remove or to overwrite the object.
    fn is_retained(&self) -> bool {
        codes::is_retained(self.status, &self.code, &self.message)
    }

    fn explain(self, dialect: &Dialect, label: &str, what: &str) -> Error {
        let what = format!("{what} in `{label}` failed");
        if self.is_retained() {
            return Error::Retained {
                message: format!("{what}: it is retained: {}", self.words()),
                until: None,
                hint: Some(codes::RETAINED.to_owned()),
            };
        }
        match (self.status, self.code.as_str()) {
            (_, code) if codes::is_no_bucket(code) => Error::setup(
                format!("{what}: the {} does not exist", dialect.place),
                dialect.no_place,
            ),
            (_, "RequestTimeTooSkewed") => {
                let message = format!("{what}: {}", self.skew());
                failed(message, Some("set the clock, for instance with NTP"), self)
            }
            (300..=399, _)
            | (_, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                self.elsewhere(&what)
            }
            (401 | 403, _) | (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
                Error::Denied {
                    message: format!("{what}: refused with {}", self.words()),
                    hint: (dialect.denied)(self.status, &self.code).map(str::to_owned),
                }
            }
            _ => failed(format!("{what}: answered {}", self.words()), None, self),
        }
    }

    /// Explains an answer of a store that knows the bucket to be somewhere else.
    fn elsewhere(self, what: &str) -> Error {
        let message = format!(
            "{what}: sent elsewhere with {}; redirects are not followed",
            self.words()
        );
        let hint = match &self.region {
            Some(region) => format!("set the storage's `region` to `{region}`"),
            None => "correct the storage's `region` or `endpoint`".to_owned(),
        };
        failed(message, Some(&hint), self)
    }

    fn words(&self) -> String {
        match (self.code.is_empty(), self.message.is_empty()) {
            (true, _) => format!("status {}", self.status),
            (false, true) => format!("{} {}", self.status, self.code),
            (false, false) => format!("{} {}: {}", self.status, self.code, self.message),
        }
    }

    fn skew(&self) -> String {
        match self.clock_ahead {
            Some(ahead) => format!(
                "this machine's clock is {:#} {} the storage's",
                SignedDuration::from_secs(ahead.as_secs().abs()),
                if ahead.is_negative() {
                    "behind"
                } else {
                    "ahead of"
                },
            ),
            None => "this machine's clock and the storage's are too far apart".to_owned(),
        }
    }
}

impl Outage {
    fn explain(self, dialect: &Dialect, label: &str, what: &str) -> Error {
        if self.is_metadata {
            return Error::Denied {
                message: format!(
                    "{what} in `{label}` failed: there are no credentials: none in the configuration, none in the \
                     environment, and no metadata service answers"
                ),
                hint: Some(dialect.login.to_owned()),
            };
        }
        let (message, hint) = match self.kind {
            OutageKind::Unreachable => (
                format!("cannot be reached: {self}"),
                "check the storage's `endpoint`, the network and the proxy settings",
            ),
            OutageKind::UnknownHost => (
                format!("its host is not known: {self}"),
                dialect.unknown_host,
            ),
            OutageKind::Tls => (
                format!("no encrypted connection: {self}; plain HTTP was not tried"),
                "set `ca_certificate` if the store's certificate is signed by your own authority",
            ),
            OutageKind::Stalled => (
                format!("no progress: {self}"),
                "check the network, and the store's own state",
            ),
            OutageKind::Cut => (
                format!("the connection broke: {self}"),
                "check the network, and the store's own state",
            ),
        };
        failed(
            format!("{what} in `{label}` failed: {message}"),
            Some(hint),
            self,
        )
    }
}

fn failed(
    message: String,
    hint: Option<&str>,
    source: impl StdError + Send + Sync + 'static,
) -> Error {
    Error::Failed {
        message,
        hint: hint.map(str::to_owned),
        source: Some(Box::new(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str) -> Refusal {
        Refusal {
            status,
            code: code.to_owned(),
            message: String::new(),
            region: None,
            retry_after: None,
            clock_ahead: None,
        }
    }

    #[test]
    fn tries_again_only_what_may_pass() {
        for (status, code) in [
            (500, ""),
            (503, "SlowDown"),
            (502, ""),
            (429, ""),
            (408, ""),
            (400, "RequestTimeout"),
            (200, "InternalError"),
        ] {
            assert!(refusal(status, code).is_passing(), "{status} {code}");
        }
        for (status, code) in [
            (403, "AccessDenied"),
            (403, "RequestTimeTooSkewed"),
            (501, "NotImplemented"),
            (404, ""),
            (409, ""),
            (412, ""),
            (301, ""),
            (400, "InvalidPart"),
        ] {
            assert!(!refusal(status, code).is_passing(), "{status} {code}");
        }
    }

    #[test]
    fn what_a_lock_keeps_is_told_from_a_missing_right() {
        let explained = |status, code: &str, message: &str| {
            let mut refusal = refusal(status, code);
            refusal.message = message.to_owned();
            refusal.explain(&codes::S3, "s3://b", "removing `k`")
        };
        let is_retained = |error: &Error| matches!(error, Error::Retained { until: None, .. });
        for (status, code, message) in [
            (409, "ObjectLockedByBucketPolicy", ""),
            (403, "RetentionPolicyNotMet", ""),
            (403, "ObjectUnderActiveHold", ""),
            (409, "BlobImmutableDueToPolicy", ""),
            (409, "BlobImmutableDueToLegalHold", ""),
            (
                400,
                "InvalidRequest",
                "Object is WORM protected and cannot be overwritten",
            ),
            (
                403,
                "AccessDenied",
                "Access Denied because object protected by object lock.",
            ),
        ] {
            let error = explained(status, code, message);
            assert!(is_retained(&error), "{error:?}");
        }
        let denied = explained(403, "AccessDenied", "Access Denied");
        assert!(matches!(denied, Error::Denied { .. }), "{denied:?}");
        let missing = explained(
            404,
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist",
        );
        assert!(!is_retained(&missing), "{missing:?}");
    }

    #[test]
    fn a_wrong_clock_is_said_in_words() {
        let mut skewed = refusal(403, "RequestTimeTooSkewed");
        skewed.clock_ahead = Some(SignedDuration::from_mins(-125));
        let error = skewed.explain(&codes::S3, "s3://b", "writing `k`");
        assert!(matches!(error, Error::Failed { .. }));
        assert!(
            error
                .to_string()
                .contains("clock is 2h 5m behind the storage's"),
            "{error}"
        );
    }

    #[test]
    fn what_the_clouds_say_besides_is_passed_on() {
        let gcs = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>Access denied.</Message>\
                   <Details>x@y.iam.gserviceaccount.com does not have storage.objects.create access.</Details></Error>";
        let azure = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthenticationFailed</Code><Message>\
                     Server failed to authenticate the request.\nRequestId:1-2\nTime:2026</Message><AuthenticationErrorDetail>\
                     Signature not valid in the specified time frame: Expiry [x]</AuthenticationErrorDetail></Error>";
        let signed = azure.replace(
            "Signature not valid in",
            "Signature did not match. String to sign used was",
        );
        for (body, message) in [
            (
                gcs,
                "Access denied. x@y.iam.gserviceaccount.com does not have storage.objects.create access.",
            ),
            (
                azure,
                "Server failed to authenticate the request. Signature not valid in the specified time frame: Expiry [x]",
            ),
            (&signed, "Server failed to authenticate the request."),
        ] {
            assert_eq!(XmlError::parse(body.as_bytes()).unwrap().message, message);
        }
    }

    #[test]
    fn a_retained_object_is_no_conflict() {
        let trouble = |status, code| Trouble::Refused(refusal(status, code));
        for (status, code) in [
            (409, "BlobImmutableDueToPolicy"),
            (403, "RetentionPolicyNotMet"),
            (403, "ObjectUnderActiveHold"),
            (412, "retentionPolicyNotMet"),
        ] {
            let trouble = trouble(status, code);
            assert!(trouble.is_retained() && !trouble.is_conflict(), "{code}");
            let error = trouble.explain(&codes::GCS, "gs://b", "removing `k`");
            assert!(error.to_string().contains("it is retained"), "{error}");
            assert!(matches!(error, Error::Retained { .. }), "{error:?}");
        }
        for (status, code) in [
            (409, "BlobAlreadyExists"),
            (412, ""),
            (403, "UnauthorizedBlobOverwrite"),
        ] {
            assert!(trouble(status, code).is_conflict(), "{code}");
        }
        assert!(!trouble(404, "ContainerNotFound").is_missing());
        assert!(trouble(404, "BlobNotFound").is_missing());
    }

    #[test]
    fn only_an_error_document_is_one() {
        let found = XmlError::parse(
            b"<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>m</Message></Error>",
        );
        assert_eq!(found.unwrap().code, "SlowDown");
        for other in [
            "",
            "<html/>",
            "<ListBucketResult><Code>x</Code></ListBucketResult>",
            "no",
        ] {
            assert!(XmlError::parse(other.as_bytes()).is_none(), "{other}");
        }
    }
}

//! Failures as HTTP tells them: RFC 9457, with the stable id of the failure as its type.
//!
//! Source: <https://www.rfc-editor.org/rfc/rfc9457>

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use pgkeep_model::failure::{Failure, Kind};

/// A failure on its way to a client.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The status of the response.
    pub status: StatusCode,
    /// What failed.
    pub failure: Box<Failure>,
}

/// The body: `application/problem+json`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct Body {
    /// `urn:pgkeep:` and the stable id of the failure.
    r#type: String,
    /// The stable id.
    id: &'static str,
    /// What failed and why.
    title: String,
    /// The status of the response.
    status: u16,
    /// The code that the command would have ended with.
    exit_code: u8,
    /// Lines that say more.
    details: Vec<String>,
    /// Next moves.
    hints: Vec<String>,
}

/// A result of a handler.
pub type Result<T> = std::result::Result<T, Problem>;

/// How many seconds a client waits before it asks again for what another run holds, or what was asked for too often.
const RETRY_AFTER: u32 = 60;

impl Problem {
    /// Makes the problem of a failure, with the status that its kind has.
    pub fn new(failure: Failure) -> Self {
        Self {
            status: status_of(failure.kind),
            failure: Box::new(failure),
        }
    }

    /// Says that it is not known who asks.
    pub fn unauthorized() -> Self {
        let message = "this needs a token, and none that is known was given";
        Self {
            status: StatusCode::UNAUTHORIZED,
            failure: Box::new(
                Failure::new(Kind::Login, "token_needed", message)
                    .hint("send `Authorization: Bearer TOKEN`, or sign in on the page"),
            ),
        }
    }

    /// Says that the role of the client does not suffice.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            failure: Box::new(Failure::new(Kind::Refused, "forbidden", message)),
        }
    }

    /// Says that tokens are guessed.
    pub fn too_many() -> Self {
        let message = "too many wrong tokens from this address";
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            failure: Box::new(
                Failure::new(Kind::Login, "too_many_attempts", message)
                    .hint("wait a minute; the right token is taken at once"),
            ),
        }
    }

    /// Says that something of this size has none of the bytes of a range.
    pub fn out_of_range(size: u64) -> Self {
        let message = format!("it has {size} bytes, and none of those that were asked for");
        Self {
            status: StatusCode::RANGE_NOT_SATISFIABLE,
            failure: Box::new(Failure::new(Kind::Usage, "out_of_range", message)),
        }
    }

    /// Says that a request did not come in time.
    pub fn too_slow() -> Self {
        let message = "the body of the request did not come within ten seconds";
        Self {
            status: StatusCode::REQUEST_TIMEOUT,
            failure: Box::new(Failure::new(Kind::Usage, "request_too_slow", message)),
        }
    }

    /// Says that the key of a request was given to another one before.
    pub fn key_reused() -> Self {
        let message = "this `Idempotency-Key` was given to another request within the last day";
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            failure: Box::new(
                Failure::new(Kind::Usage, "request_key_reused", message)
                    .hint("nothing was started; send another key with another request"),
            ),
        }
    }

    /// Says that there is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Failure::new(Kind::NotFound, "not_found", message))
    }

    /// Returns what stands in the body.
    pub fn body(&self) -> Body {
        Body {
            r#type: format!("urn:pgkeep:{}", self.failure.id),
            id: self.failure.id,
            title: self.failure.message.clone(),
            status: self.status.as_u16(),
            exit_code: self.failure.kind.exit_code(),
            details: [&self.failure.details[..], &self.failure.causes].concat(),
            hints: self.failure.hints.clone(),
        }
    }

    /// Adds what a status asks for in the headers.
    pub fn headed(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, bearer);
        }
        let waits = matches!(
            self.status,
            StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS
        );
        if waits {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        response
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        self.headed(response)
    }
}

/// What a failure is in HTTP. What lies behind us, such as a storage or a server, is a bad gateway.
fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Usage => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Busy => StatusCode::CONFLICT,
        Kind::Login | Kind::Source | Kind::Storage => StatusCode::BAD_GATEWAY,
        Kind::Proof | Kind::Damaged | Kind::AfterGood => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Refused => StatusCode::CONFLICT,
        Kind::Stale | Kind::Interrupted | Kind::Terminated => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Unexpected | Kind::Program | Kind::NotRunnable | Kind::NoCommand => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_id_and_what_its_status_asks_for() {
        let busy = Failure::new(Kind::Busy, "busy", "another run has the lock");
        let response = Problem::new(busy).into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()[header::RETRY_AFTER], "60");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let response = Problem::unauthorized().into_response();
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let body = Problem::unauthorized().body();
        assert_eq!(body.r#type, "urn:pgkeep:token_needed");
    }
}

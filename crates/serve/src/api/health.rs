//! Whether the server lives, whether it can work, and what its API is.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

use crate::app::{App, Reader};
use crate::snapshot::Snapshot;

/// Whether the process and its scheduler live. Needs no token and says nothing else.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It lives"), (status = 503, description = "The scheduler hangs")))]
pub(crate) async fn healthz(State(app): State<App>) -> Response {
    if app.heart.is_alive(app.context.clock.now()) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the scheduler hangs\n").into_response()
    }
}

/// Whether the storages answered at the last look, and that was lately. Needs no token and says nothing else.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "All storages answered"), (status = 503, description = "A storage did not answer")))]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    if is_ready(&app.known(), app.context.clock.now()) {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "a storage does not answer, or the last look is too old\n",
        )
            .into_response()
    }
}

/// Tells whether every storage answered, and lately.
fn is_ready(known: &Snapshot, now: Timestamp) -> bool {
    let is_silent = known.report.storages.iter().any(|one| one.error.is_some());
    known.doubt(now).is_none() && !is_silent
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1", body = Value), (status = 401, body = crate::problem::Body, content_type = "application/problem+json")))]
pub(crate) async fn openapi(_: Reader, State(app): State<App>) -> Json<Value> {
    let described: OpenApi = super::routes().into_openapi();
    let mut document = serde_json::to_value(described).unwrap_or_default();
    document["servers"] = json!([{ "url": format!("{}/", app.settings.base) }]);
    Json(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::fixture::{Fixture, now};
    use jiff::SignedDuration;
    use pgkeep_model::failure::{Failure, Kind};

    #[test]
    fn a_server_that_looked_long_ago_is_not_ready() {
        let known = Fixture::new().snapshot;
        assert!(is_ready(&known, now()));
        assert!(is_ready(&known, now() + SignedDuration::from_mins(14)));
        assert!(!is_ready(&known, now() + SignedDuration::from_mins(16)));
        let failure = Failure::new(Kind::Storage, "storage_unreachable", "no route to host");
        assert!(!is_ready(
            &known.but(|next| next.failure = Some(failure)),
            now()
        ));
    }
}

//! The server: routes, headers of every response, and its life from the first look to the last byte.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::net::TcpListener;

use crate::api;
use crate::app::App;
use crate::connections::{self, LIMITS, MAX_BODY};
use crate::page::POLICY;
use crate::pages;
use pgkeep_core::context::Context;

/// How long responses may still take when a stop was asked for.
const DRAIN: Duration = Duration::from_secs(4);

/// Returns all routes, below the base path.
pub fn router(app: App) -> Router {
    let (api, _) = api::routes().split_for_parts();
    let all = api
        .merge(pages::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(connections::in_time))
        .layer(middleware::from_fn_with_state(app.clone(), headed))
        .with_state(app.clone());
    if app.settings.base.is_empty() {
        all
    } else {
        Router::new().nest_service(&app.settings.base, all)
    }
}

/// What a request is called in the log and in its answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest name of a request that is taken from a client.
const MAX_REQUEST_ID: usize = 64;

/// Puts on each response what keeps browsers and caches in bounds, and logs it under the name that the client gave the
/// request, or a new one.
async fn headed(State(app): State<App>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_good =
        |id: &&str| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.chars().all(is_plain);
    let header = request.headers().get(REQUEST_ID);
    let given = header.and_then(|id| id.to_str().ok()).filter(is_good);
    let id = given.map_or_else(|| app.context.clock.hex(4), str::to_owned);
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    // Without the query: a secret may stand there.
    tracing::debug!(target: "pgkeep", %method, path, status, request = id, "answered");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Answers until a stop is asked for; then ends what streams, and waits a little for the rest.
pub async fn answer(listener: TcpListener, app: App, context: &Context) {
    let streams = app.streams.clone();
    let stop = context.stop.token().clone();
    let late = async {
        stop.cancelled().await;
        streams.cancel();
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = connections::answer(listener, router(app), LIMITS, stop.clone()) => {}
        () = late => {}
    }
}

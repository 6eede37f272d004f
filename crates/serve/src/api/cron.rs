//! One address that cron services call: it starts a backup, at most one within a time, and answers at once.

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::act::{Asked, start, told};
use super::{database_name, is_within};
use crate::app::App;
use crate::auth::{Role, Who};
use crate::problem::{Body, Problem, Result};
use crate::runs::Started;
use crate::snapshot::Verb;
use pgkeep_model::id::DatabaseName;

/// Whoever asks, with a token, a secret of the cron route, or neither yet.
pub(crate) struct Caller {
    who: Option<Who>,
    is_secret_given: bool,
    parts: Parts,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &App,
    ) -> std::result::Result<Self, Problem> {
        let header = parts.headers.get("authorization");
        let text = header.and_then(|value| value.to_str().ok());
        let bearer = text.and_then(|text| text.split_once(' '));
        let by_header = bearer.is_some_and(|(_, secret)| is_secret(app, secret.trim()));
        let query = parts.uri.query().unwrap_or_default();
        let by_query = app.settings.is_query_secret_allowed
            && in_query(query).is_some_and(|text| is_secret(app, &text));
        let is_secret_given = by_header || by_query;
        // Not by a session: a link that somebody follows must start nothing.
        let who = if is_secret_given || bearer.is_none() {
            None
        } else {
            app.who(parts)?
        };
        Ok(Self {
            who,
            is_secret_given,
            parts: parts.clone(),
        })
    }
}

/// Compares hashes, in constant time.
fn is_secret(app: &App, given: &str) -> bool {
    let Some(secret) = &app.settings.cron_secret else {
        return false;
    };
    let hash = |text: &str| Sha256::digest(text.as_bytes());
    let (ours, theirs) = (hash(secret.expose_secret()), hash(given));
    bool::from(ours.as_slice().ct_eq(theirs.as_slice()))
}

fn in_query(query: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.find(|(key, _)| key == "secret")?;
    Some(value.into_owned())
}

fn in_body(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    Some(json.get("secret")?.as_str()?.to_owned())
}

/// Starts a backup, as a cron service asks for it. `HEAD` starts nothing.
#[utoipa::path(get, path = "/api/v1/cron/{database}", tag = "cron",
    params(("database" = String, Path, description = "Name in the configuration")),
    responses((status = 202, body = Asked), (status = 200, body = Asked, description = "One was made lately, or is under way"),
        (status = 401, body = Body, content_type = "application/problem+json"), (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn trigger_by_get(
    caller: Caller,
    state: State<App>,
    path: Path<String>,
) -> Result<Response> {
    // axum hands HEAD to the handler of GET.
    if caller.parts.method == Method::HEAD {
        allowed(&caller, &state, &[])?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    trigger(caller, state, path, Bytes::new()).await
}

/// Starts a backup, as a cron service asks for it; any body is taken.
#[utoipa::path(post, path = "/api/v1/cron/{database}", tag = "cron", request_body = Option<Value>,
    params(("database" = String, Path, description = "Name in the configuration")),
    responses((status = 202, body = Asked), (status = 200, body = Asked, description = "One was made lately, or is under way"),
        (status = 401, body = Body, content_type = "application/problem+json"), (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn trigger(
    caller: Caller,
    State(app): State<App>,
    Path(database): Path<String>,
    body: Bytes,
) -> Result<Response> {
    let who = allowed(&caller, &app, &body)?;
    let database = database_name(&database)?;
    app.setup_for(&database)?;
    if let Some(lately) = lately(&app, &database) {
        return Ok(told(&app, lately).await);
    }
    let headers: &HeaderMap = &caller.parts.headers;
    let started = start(&app, &who, Verb::Backup, &database, None, headers)?;
    Ok(told(&app, started).await)
}

fn allowed(caller: &Caller, app: &App, body: &[u8]) -> Result<Who> {
    let by_body = || {
        app.settings.is_body_secret_allowed
            && in_body(body).is_some_and(|secret| is_secret(app, &secret))
    };
    if caller.is_secret_given || by_body() {
        return Ok(Who {
            name: Some("cron".to_owned()),
            role: Role::Operate,
            is_session: false,
        });
    }
    match &caller.who {
        Some(who) if who.role >= Role::Operate => Ok(who.clone()),
        Some(_) => Err(Problem::forbidden("this needs the role `operate`")),
        None => {
            let address = app.address(&caller.parts);
            let is_guessed = !body.is_empty() || caller.parts.uri.query().is_some();
            if is_guessed && app.auth.failed(address, std::time::Instant::now()) {
                return Err(Problem::too_many());
            }
            Err(Problem::unauthorized())
        }
    }
}

/// Finds a backup that went well so lately that no other is made.
fn lately(app: &App, database: &DatabaseName) -> Option<Started> {
    let within = app.settings.min_interval.as_secs();
    let clock = app.context.clock.as_ref();
    let mut own = app.runs.all().into_iter();
    let is_lately = |at| is_within(at, within, clock);
    let by_us = own.find(|view| {
        view.verb == "backup"
            && view.database == database.as_str()
            && view.exit_code.is_some_and(|code| matches!(code, 0 | 3))
            && is_lately(view.queued_at)
    });
    let known = app.known();
    let mut records = known.records.get(database).into_iter().flatten();
    let recorded = || {
        let found = records.find(|record| {
            record.verb == "backup" && record.is_success() && is_lately(record.started_at)
        })?;
        Some(found.run.as_ref().unwrap_or(&found.id).clone())
    };
    let id = by_us.map(|view| view.id).or_else(recorded)?;
    Some(Started {
        id,
        is_joined: true,
    })
}

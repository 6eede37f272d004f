//! One address that cron services call: it starts a backup, at most one within a time, and answers at once.

use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::act::{Asked, start, told};
use super::{bad_request, database_name, is_within};
use crate::app::{App, bearer};
use crate::auth::{Role, Who};
use crate::connections::MAX_BODY;
use crate::problem::{self, Problem, Result};
use crate::runs::Started;
use crate::snapshot::Verb;
use pgkeep_model::id::DatabaseName;

/// Who asks, by a token or by the secret of the cron route; neither yet where the secret may be in the body.
///
/// A session of a browser does not count, and neither does a server without tokens: a link that is followed, or a
/// picture on another site, must start nothing.
pub(crate) struct Caller {
    who: Option<Who>,
    is_guess: bool,
    parts: Parts,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &App,
    ) -> std::result::Result<Self, Problem> {
        let sent = bearer(&parts.headers);
        let given = in_query(parts.uri.query().unwrap_or_default());
        let by_query = app.settings.is_query_secret_allowed
            && given.as_deref().is_some_and(|text| is_secret(app, text));
        let who = if by_query || sent.is_some_and(|secret| is_secret(app, secret)) {
            Some(cron())
        } else {
            sent.and_then(|token| app.auth.by_token(token))
        };
        Ok(Self {
            who,
            is_guess: sent.is_some() || given.is_some(),
            parts: parts.clone(),
        })
    }
}

/// Who knows the secret of the cron route.
fn cron() -> Who {
    Who {
        name: Some("cron".to_owned()),
        role: Role::Operate,
        is_session: false,
    }
}

fn is_secret(app: &App, given: &str) -> bool {
    let secret = app.settings.cron_secret.as_ref();
    secret.is_some_and(|secret| secret.opens(given))
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
        (status = 401, body = problem::Body, content_type = "application/problem+json"), (status = 404, body = problem::Body, content_type = "application/problem+json")))]
pub(crate) async fn trigger_by_get(
    caller: Caller,
    state: State<App>,
    path: Path<String>,
) -> Result<Response> {
    // axum hands HEAD to the handler of GET.
    if caller.parts.method == Method::HEAD {
        allowed(caller, &state, Body::empty()).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    trigger(caller, state, path, Body::empty()).await
}

/// Starts a backup, as a cron service asks for it; any body is taken.
#[utoipa::path(post, path = "/api/v1/cron/{database}", tag = "cron", request_body = Option<Value>,
    params(("database" = String, Path, description = "Name in the configuration")),
    responses((status = 202, body = Asked), (status = 200, body = Asked, description = "One was made lately, or is under way"),
        (status = 401, body = problem::Body, content_type = "application/problem+json"), (status = 404, body = problem::Body, content_type = "application/problem+json")))]
pub(crate) async fn trigger(
    caller: Caller,
    State(app): State<App>,
    Path(database): Path<String>,
    body: Body,
) -> Result<Response> {
    let headers = caller.parts.headers.clone();
    let who = allowed(caller, &app, body).await?;
    let database = database_name(&database)?;
    app.setup_for(&database)?;
    if let Some(lately) = lately(&app, &database) {
        return Ok(told(&app, lately).await);
    }
    let started = start(&app, &who, Verb::Backup, &database, None, &headers).await?;
    Ok(told(&app, started).await)
}

/// Finds who asks. A body is read only where the secret may be in it, and nothing before it told who asks.
async fn allowed(caller: Caller, app: &App, body: Body) -> Result<Who> {
    let mut is_guess = caller.is_guess;
    let mut who = caller.who;
    if who.is_none() && app.settings.is_body_secret_allowed {
        let read = to_bytes(body, MAX_BODY).await;
        let given = in_body(&read.map_err(|error| bad_request(&format!("the body: {error}")))?);
        is_guess |= given.is_some();
        let is_it = given.is_some_and(|given| is_secret(app, &given));
        who = is_it.then(cron);
    }
    match who {
        Some(who) if who.role >= Role::Operate => Ok(who),
        Some(_) => Err(Problem::forbidden("this needs the role `operate`")),
        None if is_guess && app.auth.failed(app.address(&caller.parts), Instant::now()) => {
            Err(Problem::too_many())
        }
        None => Err(Problem::unauthorized()),
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

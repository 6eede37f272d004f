//! What is started or changed on request.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{bad_request, database_name, id_of, query};
use crate::apart::apart;
use crate::app::{App, Operator, Restorer};
use crate::auth::Who;
use crate::elsewhere;
use crate::history;
use crate::problem::{Body, Problem, Result};
use crate::runs::{Ask, KeyReused, Started, State as Stands};
use crate::snapshot::Verb;
use pgkeep_core::op;
use pgkeep_core::setup::{accept, pin};
use pgkeep_model::config::parse_duration;
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::origin::MAX_REQUEST_KEY;

/// Longest time that an answer waits for the end of a run.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What is to be run.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Wanted {
    /// The database, by its name in the configuration.
    database: String,
    /// Which backup is drilled or verified; the latest where none is named.
    backup: Option<String>,
}

/// A run that was asked for.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Asked {
    /// Its id.
    id: String,
    /// Where it stands.
    state: Stands,
    /// Whether it was there already.
    joined: bool,
    /// Where more is told.
    links: Links,
}

/// Where more is told of a run.
#[derive(Serialize, utoipa::ToSchema)]
struct Links {
    run: String,
    events: String,
    page: String,
}

/// Reads a body of JSON, or says what is wrong with it as any other problem.
pub(crate) fn body<T>(body: std::result::Result<Json<T>, JsonRejection>) -> Result<T> {
    body.map(|Json(body)| body)
        .map_err(|error| bad_request(&error.body_text()))
}

/// Reads the key of a request. One that cannot be kept is refused: the client relies on it.
fn request_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(header) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match header.to_str().map(str::trim) {
        Ok(key) if (1..=MAX_REQUEST_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(bad_request(
            "`Idempotency-Key` has 1 to 128 characters of ASCII",
        )),
    }
}

/// Asks for a run: joins one that does the same, here or elsewhere, or one that was asked for under the same key.
pub(crate) async fn start(
    app: &App,
    who: &Who,
    verb: Verb,
    database: &DatabaseName,
    backup: Option<BackupId>,
    headers: &HeaderMap,
) -> Result<Started> {
    app.may_act()?;
    app.setup_for(database)?;
    let ask = Ask {
        verb,
        database: database.clone(),
        backup,
        rows: None,
        by: who.name.clone(),
        slot: None,
        request_key: request_key(headers)?,
    };
    let reused = |_: KeyReused| Problem::key_reused();
    if let Some(known) = app.runs.by_key(&ask) {
        return known.map_err(reused);
    }
    let (known, now) = (app.known(), app.context.clock.now());
    let held = elsewhere::read(&known, database, verb, now).await;
    if let Some(found) = history::by_request_key(&known, &held, &ask, now) {
        return found.map(Started::joined).map_err(reused);
    }
    // One of another process: its own lease tells its id, but not which backup it is about.
    let mut alike = held.iter().filter(|held| held.verb == verb.as_str());
    let alive = alike.find(|held| held.is_alive(now) && ask.backup.is_none());
    if let Some(run) = alive.and_then(|held| held.run.clone())
        && app.runs.find(&run).is_none_or(|entry| !entry.is_ended())
    {
        return Ok(Started::joined(run));
    }
    app.runs.start(ask).map_err(reused)
}

/// Tells of a run that was asked for: 202 where it is new, 200 where it was there.
pub(crate) async fn told(app: &App, started: Started) -> Response {
    let base = &app.settings.base;
    let run = format!("{base}/api/v1/runs/{}", started.id);
    let state = match super::runs::find(app, &started.id).await {
        Ok(view) => view.state,
        Err(_) => Stands::Running,
    };
    let status = if started.is_joined {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let asked = Asked {
        id: started.id.to_string(),
        state,
        joined: started.is_joined,
        links: Links {
            events: format!("{run}/events"),
            page: format!("{base}/runs/{}", started.id),
            run: run.clone(),
        },
    };
    (status, [(header::LOCATION, run)], Json(asked)).into_response()
}

async fn start_one(
    app: &App,
    who: &Who,
    verb: Verb,
    wanted: std::result::Result<Json<Wanted>, JsonRejection>,
    headers: &HeaderMap,
    wait: std::result::Result<Query<Wait>, QueryRejection>,
) -> Result<Response> {
    let patience = query(wait)?.patience()?;
    let wanted = body(wanted)?;
    let database = database_name(&wanted.database)?;
    let backup = wanted.backup.as_deref().map(id_of).transpose()?;
    let started = start(app, who, verb, &database, backup, headers).await?;
    if let Some(entry) = app.runs.find(&started.id) {
        let mut changes = entry.changes();
        let ended = changes.wait_for(|_| entry.is_ended());
        let _ = tokio::time::timeout(patience, ended).await; // it goes on, and is told so
    }
    Ok(told(app, started).await)
}

/// How long an answer may wait for the end of the run.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wait {
    /// Waits for so long for the end of the run, such as `25s`; at most a minute, by default not at all.
    wait: Option<String>,
}

impl Wait {
    fn patience(&self) -> Result<Duration> {
        let Some(text) = &self.wait else {
            return Ok(Duration::ZERO);
        };
        let wait = parse_duration(text, &(Duration::ZERO..=MAX_WAIT));
        wait.map_err(|why| bad_request(&format!("`wait` {why}")))
    }
}

/// Makes a backup. A run of the same database that is under way is joined.
#[utoipa::path(post, path = "/api/v1/backups", tag = "backups", request_body = Wanted,
    params(Wait, ("Idempotency-Key" = Option<String>, Header, description = "Asking twice under one key is asking once, for a day")),
    responses((status = 202, body = Asked), (status = 200, body = Asked, description = "It was there already"),
        (status = 401, body = Body, content_type = "application/problem+json"), (status = 403, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json"),
        (status = 422, body = Body, content_type = "application/problem+json", description = "The key was given to another request")))]
pub(crate) async fn start_backup(
    Operator(who): Operator,
    State(app): State<App>,
    headers: HeaderMap,
    wait: std::result::Result<Query<Wait>, QueryRejection>,
    wanted: std::result::Result<Json<Wanted>, JsonRejection>,
) -> Result<Response> {
    start_one(&app, &who, Verb::Backup, wanted, &headers, wait).await
}

/// Restores a backup for a test, compares it, and drops it.
#[utoipa::path(post, path = "/api/v1/drills", tag = "backups", request_body = Wanted,
    params(Wait, ("Idempotency-Key" = Option<String>, Header, description = "Asking twice under one key is asking once, for a day")),
    responses((status = 202, body = Asked), (status = 200, body = Asked, description = "It was there already"),
        (status = 401, body = Body, content_type = "application/problem+json"), (status = 403, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json"),
        (status = 422, body = Body, content_type = "application/problem+json", description = "The key was given to another request")))]
pub(crate) async fn start_drill(
    Operator(who): Operator,
    State(app): State<App>,
    headers: HeaderMap,
    wait: std::result::Result<Query<Wait>, QueryRejection>,
    wanted: std::result::Result<Json<Wanted>, JsonRejection>,
) -> Result<Response> {
    start_one(&app, &who, Verb::Drill, wanted, &headers, wait).await
}

/// Reads the stored copies of a backup, and proves that every byte is unchanged.
#[utoipa::path(post, path = "/api/v1/verifications", tag = "backups", request_body = Wanted,
    params(Wait, ("Idempotency-Key" = Option<String>, Header, description = "Asking twice under one key is asking once, for a day")),
    responses((status = 202, body = Asked), (status = 200, body = Asked, description = "It was there already"),
        (status = 401, body = Body, content_type = "application/problem+json"), (status = 403, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json"),
        (status = 422, body = Body, content_type = "application/problem+json", description = "The key was given to another request")))]
pub(crate) async fn start_verification(
    Operator(who): Operator,
    State(app): State<App>,
    headers: HeaderMap,
    wait: std::result::Result<Query<Wait>, QueryRejection>,
    wanted: std::result::Result<Json<Wanted>, JsonRejection>,
) -> Result<Response> {
    start_one(&app, &who, Verb::Verify, wanted, &headers, wait).await
}

/// Why something is done.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Reason {
    /// For anyone who finds it later.
    reason: String,
}

/// Keeps a backup until it is unpinned.
#[utoipa::path(put, path = "/api/v1/backups/{id}/pin", tag = "backups", request_body = Reason,
    params(("id" = String, Path, description = "Id of the backup")),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 403, body = Body, content_type = "application/problem+json"), (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn pin(
    Operator(who): Operator,
    State(app): State<App>,
    Path(id): Path<String>,
    reason: std::result::Result<Json<Reason>, JsonRejection>,
) -> Result<Json<Value>> {
    let reason = body(reason)?.reason;
    set_pin(&app, &who, &id_of(&id)?, Some(&reason))
        .await
        .map(Json)
}

/// Lets the retention policy decide about a backup again.
#[utoipa::path(delete, path = "/api/v1/backups/{id}/pin", tag = "backups",
    params(("id" = String, Path, description = "Id of the backup")),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 403, body = Body, content_type = "application/problem+json"), (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn unpin(
    Operator(who): Operator,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    set_pin(&app, &who, &id_of(&id)?, None).await.map(Json)
}

/// Pins a backup for a reason, or unpins it.
pub(crate) async fn set_pin(
    app: &App,
    who: &Who,
    id: &BackupId,
    reason: Option<&str>,
) -> Result<Value> {
    app.may_act()?;
    let setup = app.setup_for(id.database())?;
    let overrides = pin::Overrides {
        id: Some(id.to_string()),
        ..pin::Overrides::default()
    };
    let request = match reason {
        Some(reason) => pin::request(&overrides, &signed(reason, who), &setup)?,
        None => pin::request_to_unpin(&overrides, &setup)?,
    };
    let context = app.context.clone();
    let report = apart(async move || op::pin::run(request, &context).await).await??;
    app.looked_again().await;
    Ok(serde_json::to_value(report).unwrap_or_default())
}

/// Says in a reason who gave it.
fn signed(reason: &str, who: &Who) -> String {
    match &who.name {
        Some(name) if !reason.trim().is_empty() => format!("{} (by {name})", reason.trim()),
        _ => reason.to_owned(),
    }
}

/// What is accepted, and why.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Acceptance {
    /// For anyone who finds it later.
    reason: String,
    /// The tables that it may be held for; none accepts whatever it is.
    #[serde(default)]
    tables: Vec<String>,
}

/// Makes a backup that is held the new normal.
#[utoipa::path(post, path = "/api/v1/backups/{id}/accept", tag = "backups", request_body = Acceptance,
    params(("id" = String, Path, description = "Id of the backup")),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 403, body = Body, content_type = "application/problem+json"), (status = 404, body = Body, content_type = "application/problem+json"),
        (status = 409, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn accept(
    Restorer(who): Restorer,
    State(app): State<App>,
    Path(id): Path<String>,
    wanted: std::result::Result<Json<Acceptance>, JsonRejection>,
) -> Result<Json<Value>> {
    let wanted = body(wanted)?;
    accept_one(&app, &who, &id_of(&id)?, &wanted.reason, wanted.tables)
        .await
        .map(Json)
}

/// Accepts a backup that is held.
pub(crate) async fn accept_one(
    app: &App,
    who: &Who,
    id: &BackupId,
    reason: &str,
    tables: Vec<String>,
) -> Result<Value> {
    app.may_act()?;
    let setup = app.setup_for(id.database())?;
    let overrides = accept::Overrides {
        id: id.to_string(),
        reason: reason.to_owned(),
        tables,
        ..accept::Overrides::default()
    };
    let mut request = accept::request(&overrides, &setup)?;
    if let Some(name) = &who.name {
        request.by.clone_from(name);
    }
    let context = app.context.clone();
    let report = apart(async move || op::accept::run(request, &context).await).await??;
    app.looked_again().await;
    Ok(serde_json::to_value(report).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_key_that_cannot_be_kept_is_refused() {
        let with = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.insert("idempotency-key", value);
            request_key(&headers)
        };
        assert_eq!(request_key(&HeaderMap::new()).unwrap(), None);
        assert_eq!(with(b"deploy-7").unwrap().as_deref(), Some("deploy-7"));
        for bad in ["", "  ", "d\u{e9}ploy", &"x".repeat(129)] {
            let problem = with(bad.as_bytes()).unwrap_err();
            assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }
}

//! Runs: what goes on, how it ended, and the events of one under way.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use serde_json::Value;

use super::{Part, id_of, query};
use crate::app::{App, Reader};
use crate::history;
use crate::problem::{Body, Problem, Result};
use crate::runs::{RunView, State as Stands};
use pgkeep_model::id::BackupId;

/// How often a run under way is told anew; its steps are told at once.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// How often a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a browser asks again when a stream broke.
const RECONNECT: Duration = Duration::from_secs(3);

/// A part of the history.
#[derive(Serialize)]
struct Runs {
    runs: Vec<RunView>,
    /// Where the next part begins; none at the end.
    next: Option<BackupId>,
}

/// Runs of one database or all, newest first: those under way, those that died, and those with a record.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(Part),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn list(
    _: Reader,
    State(app): State<App>,
    part: std::result::Result<Query<Part>, QueryRejection>,
) -> Result<Response> {
    let part = query(part)?;
    let (database, before) = (part.database()?, part.before()?);
    let asked = history::Asked {
        database: database.as_ref(),
        before: before.as_ref(),
        limit: part.limit(),
        ..history::Asked::default()
    };
    let found = history::find(&app.known(), &app.runs, &asked).await;
    let (runs, next) = (found.runs, found.next);
    Ok(Json(Runs { runs, next }).into_response())
}

/// One run, whether it goes on here, is known by its lease, or has a record.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", params(("id" = String, Path, description = "Id of the run")),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn show(
    _: Reader,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let id = id_of(&id)?;
    let view = find(&app, &id).await?;
    Ok(Json(serde_json::to_value(view).unwrap_or_default()))
}

/// Finds a run by its id.
pub(crate) async fn find(app: &App, id: &BackupId) -> Result<RunView> {
    let found = match app.runs.view(id) {
        Some(view) => Some(view),
        None => history::one(&app.known(), id).await,
    };
    found.ok_or_else(|| Problem::not_found(format!("there is no run `{id}`")))
}

/// The events of a run: `progress` with the run as `GET /api/v1/runs/{id}` tells it, and `done` at its end.
#[utoipa::path(get, path = "/api/v1/runs/{id}/events", tag = "runs",
    params(("id" = String, Path, description = "Id of the run")),
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String),
        (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn events(
    _: Reader,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response> {
    let id = id_of(&id)?;
    let first = find(&app, &id).await?;
    let sse = Sse::new(follow(app, id, first)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = sse.into_response();
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    response
        .headers_mut()
        .insert(unbuffered, HeaderValue::from_static("no"));
    Ok(response)
}

/// What is told next of a run.
enum Next {
    /// This.
    Tell(Box<RunView>),
    /// What changes.
    Wait,
    /// That it ended.
    End(Box<RunView>),
    /// Nothing more.
    Over,
}

fn follow(
    app: App,
    id: BackupId,
    first: RunView,
) -> impl Stream<Item = std::result::Result<Event, Infallible>> {
    let entry = app.runs.find(&id);
    let changes = entry.as_ref().map(|entry| entry.changes());
    let begin = (Next::Tell(Box::new(first)), changes, entry);
    stream::unfold(begin, move |(mut next, mut changes, entry)| {
        let streams = app.streams.clone();
        async move {
            if matches!(next, Next::Wait) {
                let (changed, of) = (changes.as_mut()?, entry.as_ref()?);
                next = tokio::select! {
                    () = streams.cancelled() => Next::Over,
                    _ = changed.changed() => Next::Tell(Box::new(of.view())),
                    () = tokio::time::sleep(EVENT_INTERVAL) => Next::Tell(Box::new(of.view())),
                };
            }
            match next {
                Next::Over | Next::Wait => None,
                Next::End(view) => Some((Ok(event("done", &view)), (Next::Over, changes, entry))),
                Next::Tell(view) => {
                    let told = event("progress", &view);
                    let is_over = !matches!(view.state, Stands::Queued | Stands::Running);
                    // What goes on elsewhere is asked for again.
                    let then = match (&entry, is_over) {
                        (Some(_), false) => Next::Wait,
                        (None, false) => Next::Over,
                        (_, true) => Next::End(view),
                    };
                    Some((Ok(told), (then, changes, entry)))
                }
            }
        }
    })
}

fn event(name: &str, view: &RunView) -> Event {
    let sequence = view.lines.last().map_or(0, |line| line.sequence);
    let event = Event::default()
        .event(name)
        .id(sequence.to_string())
        .retry(RECONNECT);
    // A run is made of what JSON has.
    event.json_data(view).unwrap_or_default()
}

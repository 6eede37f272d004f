//! What the page shows, out of what is known. Only a backup's own page reads its manifest.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::session::Head;
use super::{Shown, Trouble, Visit, chrome};
use crate::api::backups::{Two, differences, shown};
use crate::api::{database_name, id_of};
use crate::app::App;
use crate::page::view::{self, Filter};
use crate::page::{self, drill::Drill};
use crate::problem::Problem;
use crate::snapshot::Snapshot;
use pgkeep_core::op::list;
use pgkeep_model::id::BackupId;
use pgkeep_model::manifest::Manifest;

pub(crate) async fn overview(visit: Visit, State(app): State<App>) -> Response {
    let (known, now) = (app.known(), visit.chrome.now);
    let view = view::overview(&known, &app.runs.all(), now);
    page::overview::render(&visit.chrome, &view).into_response()
}

pub(crate) async fn database(
    visit: Visit,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Shown {
    let name = visit.take(database_name(&database))?;
    let found = view::database(&app.known(), &app.runs.all(), &name, visit.chrome.now);
    let view = visit.find(found, &format!("database `{name}`"))?;
    Ok(page::database::render(&visit.chrome, &view).into_response())
}

/// What the history's form asks for.
#[derive(Default, Deserialize)]
pub(crate) struct Wanted {
    verb: Option<String>,
    result: Option<String>,
    before: Option<String>,
}

pub(crate) async fn history(
    visit: Visit,
    State(app): State<App>,
    Path(database): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Shown {
    let name = visit.take(database_name(&database))?;
    let wanted = visit.query(wanted)?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let filter = Filter {
        verb: given(wanted.verb),
        result: given(wanted.result),
        before: given(wanted.before),
    };
    let known = app.known();
    let records = crate::history::page(&known, &name, &filter).await;
    let view = view::history(&known, &app.runs.all(), &name, filter, Some(&records));
    Ok(page::history::render(&visit.chrome, &view).into_response())
}

pub(crate) async fn calendar(
    visit: Visit,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Shown {
    let name = visit.take(database_name(&database))?;
    let found = view::calendar(&app.known(), &name, visit.chrome.now);
    let view = visit.find(found, &format!("database `{name}`"))?;
    Ok(page::calendar::render(&visit.chrome, &view).into_response())
}

pub(crate) async fn restore(
    visit: Visit,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Shown {
    let name = visit.take(database_name(&database))?;
    let known = app.known();
    let mut all = known.report.databases.iter();
    let status = all.find(|status| status.database == name.as_str());
    let newest = status.and_then(|status| status.newest_good.as_ref()?.id.parse().ok());
    let manifest = match newest {
        Some(id) => manifest_of(&app, &id).await,
        None => None,
    };
    let found = view::restore(&known, &name, manifest.as_deref(), visit.chrome.now);
    let view = visit.find(found, &format!("database `{name}`"))?;
    Ok(page::restore::render(&visit.chrome, &view).into_response())
}

async fn manifest_of(app: &App, id: &BackupId) -> Option<Arc<Manifest>> {
    let report = shown(app, id).await.ok()?;
    Some(Arc::new(report.manifest))
}

/// Which tables are shown.
#[derive(Default, Deserialize)]
pub(crate) struct Tables {
    q: Option<String>,
}

pub(crate) async fn backup(
    visit: Visit,
    State(app): State<App>,
    Path(id): Path<String>,
    tables: Result<Query<Tables>, QueryRejection>,
) -> Shown {
    let (id, tables) = (visit.take(id_of(&id))?, visit.query(tables)?);
    let report = visit.take(shown(&app, &id).await)?;
    let known = app.known();
    let previous = match before(&known, &id) {
        Some(previous) => manifest_of(&app, &previous).await,
        None => None,
    };
    let pinned = pin_reason(&known, &id).await;
    let manifest = Arc::new(report.manifest);
    let now = visit.chrome.now;
    let found = view::backup(
        &known,
        &id,
        manifest,
        previous,
        pinned,
        report.accepted,
        now,
    );
    // It may be newer than the last look.
    let mut view = visit.find(found, &format!("backup `{id}` that was seen yet"))?;
    view.filter = tables.q.filter(|text| !text.is_empty());
    Ok(page::backup::render(&visit.chrome, &view).into_response())
}

/// Finds the backup before this one.
fn before(known: &Snapshot, id: &BackupId) -> Option<BackupId> {
    let all = known.listing.backups.iter().rev();
    let mut earlier = all.filter(|other| {
        other.place.id.database() == id.database()
            && other.place.id.started_at() < id.started_at()
            && other.is_good()
            && !other.place.is_partial
    });
    earlier.next().map(|other| other.place.id.clone())
}

async fn pin_reason(known: &Snapshot, id: &BackupId) -> Option<String> {
    let mut all = known.listing.backups.iter();
    let backup = all.find(|backup| &backup.place.id == id && backup.is_pinned())?;
    list::pin_reason(&known.listing, backup).await
}

pub(crate) async fn run(visit: Visit, State(app): State<App>, Path(id): Path<String>) -> Shown {
    let id = visit.take(id_of(&id))?;
    let view = visit.take(crate::api::runs::find(&app, &id).await)?;
    Ok(page::run::render(&visit.chrome, &view).into_response())
}

pub(crate) async fn drill(visit: Visit, State(app): State<App>, Path(id): Path<String>) -> Shown {
    let id = visit.take(id_of(&id))?;
    let view = visit.take(crate::api::runs::find(&app, &id).await)?;
    let known = app.known();
    let target = known.recovery_targets.get(id.database());
    let note = match view.backup_id.as_deref().and_then(|id| id.parse().ok()) {
        Some(backup) => crate::history::drill_note(&known, &backup).await,
        None => None,
    };
    let shown = Drill {
        run: view::of_live(&view),
        report: view.report,
        note,
        target_ms: target.map(|target| u64::try_from(target.as_millis()).unwrap_or(u64::MAX)),
    };
    Ok(page::drill::render(&visit.chrome, &shown).into_response())
}

pub(crate) async fn diff(
    visit: Visit,
    State(app): State<App>,
    two: Result<Query<Two>, QueryRejection>,
) -> Shown {
    let two = visit.query(two)?;
    let (one, other) = (visit.take(id_of(&two.a))?, visit.take(id_of(&two.b))?);
    let report = visit.take(differences(&app, &one, &other).await)?;
    Ok(page::diff::render(&visit.chrome, &report).into_response())
}

/// What opens the wall view and badges.
#[derive(Default, Deserialize)]
pub(crate) struct Key {
    #[serde(default)]
    key: String,
}

/// Tells whether the key of a request opens. A wrong one is a guess, and an address has few of them.
fn is_open(
    app: &App,
    head: &Head,
    key: Result<Query<Key>, QueryRejection>,
) -> Result<bool, Problem> {
    let given = key.map(|Query(key)| key.key).unwrap_or_default();
    let opens = app.settings.view_key.as_ref();
    if given.is_empty() {
        return Ok(false);
    }
    if opens.is_some_and(|key| key.opens(&given)) {
        return Ok(true);
    }
    if app.auth.failed(app.address(&head.0), Instant::now()) {
        return Err(Problem::too_many());
    }
    Ok(false)
}

pub(crate) async fn wall(
    State(app): State<App>,
    head: Head,
    visit: Result<Visit, Trouble>,
    key: Result<Query<Key>, QueryRejection>,
) -> Shown {
    let frame = match visit {
        Ok(visit) => visit.chrome,
        Err(trouble) => {
            let frame = chrome(&app, None);
            match is_open(&app, &head, key) {
                Ok(true) => frame,
                Ok(false) => return Err(trouble),
                Err(problem) => return Err(Trouble::new(problem, &frame)),
            }
        }
    };
    let view = view::overview(&app.known(), &app.runs.all(), frame.now);
    Ok(page::wall::render(&frame, &view).into_response())
}

pub(crate) async fn badge(
    State(app): State<App>,
    Path(file): Path<String>,
    head: Head,
    visit: Result<Visit, Trouble>,
    key: Result<Query<Key>, QueryRejection>,
) -> Response {
    let opened = match visit {
        Ok(_) => Ok(true),
        Err(_) => is_open(&app, &head, key),
    };
    let is_open = matches!(opened, Ok(true));
    let name = file.strip_suffix(".svg").and_then(|name| name.parse().ok());
    let known = app.known();
    // Without a key nothing is told, not even which databases there are.
    let asked = name.filter(|_| is_open);
    let light = asked.and_then(|name| {
        let (light, words) = view::badge(&known, &name, app.context.clock.now())?;
        Some(page::badge::render(name.as_str(), light, &words))
    });
    let (status, markup) = match (light, opened) {
        (Some(markup), _) => (StatusCode::OK, markup),
        (None, Ok(true)) => (StatusCode::NOT_FOUND, page::badge::unknown()),
        (None, Ok(false)) => (StatusCode::UNAUTHORIZED, page::badge::unknown()),
        (None, Err(problem)) => (problem.status, page::badge::unknown()),
    };
    let kind = [(header::CONTENT_TYPE, "image/svg+xml")];
    (status, kind, markup.into_string()).into_response()
}

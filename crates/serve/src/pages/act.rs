//! What the page's forms do. Each answers with a redirect, so that a reload repeats nothing.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::HeaderMap;
use serde::Deserialize;

use super::{Shown, Visit};
use crate::api::act::{accept_one, set_pin, start};
use crate::api::{database_name, id_of};
use crate::app::App;
use crate::auth::Role;
use crate::snapshot::Verb;

/// Why something is done.
#[derive(Deserialize)]
pub(crate) struct Reason {
    #[serde(default)]
    reason: String,
}

async fn begin(visit: &Visit, app: &App, verb: Verb, database: &str) -> Shown {
    visit.needs(Role::Operate)?;
    let name = visit.take(database_name(database))?;
    let headers = HeaderMap::new();
    let started = visit.take(start(app, &visit.who, verb, &name, None, &headers).await)?;
    Ok(visit.go(&format!("/runs/{}", started.id)))
}

pub(crate) async fn backup(
    visit: Visit,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Shown {
    begin(&visit, &app, Verb::Backup, &database).await
}

pub(crate) async fn drill(
    visit: Visit,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Shown {
    begin(&visit, &app, Verb::Drill, &database).await
}

pub(crate) async fn verify(
    visit: Visit,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Shown {
    begin(&visit, &app, Verb::Verify, &database).await
}

pub(crate) async fn pin(
    visit: Visit,
    State(app): State<App>,
    Path(id): Path<String>,
    form: Result<Form<Reason>, FormRejection>,
) -> Shown {
    visit.needs(Role::Operate)?;
    let (id, form) = (visit.take(id_of(&id))?, visit.form(form)?);
    visit.take(set_pin(&app, &visit.who, &id, Some(&form.reason)).await)?;
    Ok(visit.go(&format!("/backups/{id}")))
}

pub(crate) async fn unpin(visit: Visit, State(app): State<App>, Path(id): Path<String>) -> Shown {
    visit.needs(Role::Operate)?;
    let id = visit.take(id_of(&id))?;
    visit.take(set_pin(&app, &visit.who, &id, None).await)?;
    Ok(visit.go(&format!("/backups/{id}")))
}

pub(crate) async fn accept(
    visit: Visit,
    State(app): State<App>,
    Path(id): Path<String>,
    form: Result<Form<Reason>, FormRejection>,
) -> Shown {
    visit.needs(Role::Restore)?;
    let (id, form) = (visit.take(id_of(&id))?, visit.form(form)?);
    let accepted = accept_one(&app, &visit.who, &id, &form.reason, Vec::new()).await;
    visit.take(accepted)?;
    Ok(visit.go(&format!("/backups/{id}")))
}

//! Files: what pages load, and what is taken away.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Shown, Visit};
use crate::api::backups::{As, send_dump, send_rows};
use crate::api::id_of;
use crate::app::App;
use crate::auth::Role;
use crate::page::assets::assets;

/// The name of a file holds its digest, so it never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    match assets().iter().find(|(known, ..)| known == &name) {
        Some((_, kind, bytes)) => {
            let headers = [
                (header::CONTENT_TYPE, *kind),
                (header::CACHE_CONTROL, FOR_EVER),
            ];
            (headers, *bytes).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

pub(crate) async fn dump(
    visit: Visit,
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Shown {
    visit.needs(Role::Restore)?;
    let id = visit.take(id_of(&id))?;
    visit.take(send_dump(&app, &id, &headers).await)
}

pub(crate) async fn rows(
    visit: Visit,
    State(app): State<App>,
    Path((id, table)): Path<(String, String)>,
    format: Result<Query<As>, QueryRejection>,
) -> Shown {
    visit.needs(Role::Restore)?;
    let (id, format) = (visit.take(id_of(&id))?, visit.query(format)?);
    visit.take(send_rows(&app, &id, &table, format.format.as_deref()).await)
}

//! What is stored, and the way to take it away.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Body as Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;

use super::ranges::{self, Extent};
use super::{Part, bad_request, id_of, query};
use crate::apart::apart;
use crate::app::{App, Reader, Restorer};
use crate::problem::{Body, Problem, Result};
use pgkeep_core::op;
use pgkeep_core::op::extract::{Output, RowFormat};
use pgkeep_core::setup::{diff, extract, stored};
use pgkeep_core::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::id::BackupId;

/// How much of a download waits for the client.
const PIPE_BYTES: usize = 256 * 1024;

/// Largest piece of a download.
const PIECE_BYTES: usize = 64 * 1024;

/// A part of what is stored.
#[derive(Serialize)]
struct Backups {
    backups: Vec<op::list::Entry>,
    /// Where the next part begins; none at the end.
    next: Option<String>,
}

/// Stored backups, newest first: the entries that `pgkeep list --json` prints, as of the last look at the storages.
#[utoipa::path(get, path = "/api/v1/backups", tag = "backups", params(Part),
    responses((status = 200, body = Value), (status = 304, description = "Nothing changed since the `ETag` of `If-None-Match`"),
        (status = 401, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn list(
    _: Reader,
    State(app): State<App>,
    headers: HeaderMap,
    part: std::result::Result<Query<Part>, QueryRejection>,
) -> Result<Response> {
    let part = query(part)?;
    let (database, before) = (part.database()?, part.before()?);
    let known = app.known();
    let tag = format!("\"{}\"", known.at.as_millisecond());
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|given| given == tag.as_str())
    {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let report = op::list::of(&known.listing, database.as_ref(), app.context.clock.now()).await;
    let mut entries = report.backups;
    entries.sort_by(|a, b| (b.started_at, &b.id).cmp(&(a.started_at, &a.id)));
    if let Some(before) = before {
        let bar = (before.started_at(), before.to_string());
        entries.retain(|entry| (entry.started_at, entry.id.clone()) < bar);
    }
    let limit = part.limit();
    let is_cut = entries.len() > limit;
    entries.truncate(limit);
    let next = entries
        .last()
        .filter(|_| is_cut)
        .map(|entry| entry.id.clone());
    let backups = Backups {
        backups: entries,
        next,
    };
    let mut response = Json(backups).into_response();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// One backup: its manifest, where it is, and whether it is held.
#[utoipa::path(get, path = "/api/v1/backups/{id}", tag = "backups", params(("id" = String, Path, description = "Id of the backup")),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn show(
    _: Reader,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let report = shown(&app, &id_of(&id)?).await?;
    Ok(Json(json!({
        "manifest": report.manifest,
        "storages": report.storages,
        "held": report.is_held,
        "accepted": report.accepted,
        "warnings": report.warnings,
    })))
}

/// Reads one backup's manifest.
pub(crate) async fn shown(app: &App, id: &BackupId) -> Result<op::show::Report> {
    let setup = app.setup_for(id.database())?;
    let overrides = stored::Overrides {
        id: Some(id.to_string()),
        ..stored::Overrides::default()
    };
    let request = stored::show(&overrides, &setup, app.context.clock.now())?;
    Ok(apart(move || op::show::run(request)).await??)
}

/// The dump as it is stored, checked on the way: where the checksum is not that of the manifest, the connection breaks off
/// before the last bytes. Of a range only the length is checked, because the checksum is that of the whole; the `ETag` is
/// the SHA-256.
#[utoipa::path(get, path = "/api/v1/backups/{id}/download", tag = "backups", params(("id" = String, Path, description = "Id of the backup"),
    ("Range" = Option<String>, Header, description = "One range of bytes, to go on with a download that broke off"),
    ("If-Range" = Option<String>, Header, description = "The `ETag` of what was read before; the whole is sent if it is another")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>, description = "The bytes of `Range`"),
        (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 403, body = Body, content_type = "application/problem+json"), (status = 404, body = Body, content_type = "application/problem+json"),
        (status = 416, body = Body, content_type = "application/problem+json", description = "The dump has no such bytes")))]
pub(crate) async fn download(
    _: Restorer,
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    send_dump(&app, &id_of(&id)?, &headers).await
}

/// Sends the stored dump of a backup, or the part of it that `asked` names.
pub(crate) async fn send_dump(app: &App, id: &BackupId, asked: &HeaderMap) -> Result<Response> {
    let manifest = shown(app, id).await?.manifest;
    let (size, tag) = (
        manifest.object.size_bytes,
        format!("\"{}\"", manifest.object.sha256),
    );
    let extent = ranges::wanted(asked, size, &tag);
    let name = manifest.object.key.rsplit('/').next().unwrap_or("dump");
    let mut headers = attachment("application/octet-stream", name);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    for (name, text) in [
        (header::ETAG, Some(tag)),
        (header::CONTENT_RANGE, content_range(&extent, size)),
    ] {
        if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    let setup = app.setup_for(id.database())?;
    let overrides = stored::Overrides {
        id: Some(id.to_string()),
        ..stored::Overrides::default()
    };
    let mut request = stored::get(&overrides, &setup)?;
    let context = app.context.clone();
    match extent {
        Extent::Whole => {
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            request.output = op::get::Output::Pipe(Mutex::new(ours));
            // It ends with its reader: the pipe is broken then.
            let get = async move || op::get::run(request, &context).await.map(drop);
            let work = tokio::spawn(async move { apart(get).await.and_then(|done| done) });
            headers.insert(header::CONTENT_LENGTH, size.into());
            Ok((headers, proven(theirs, work)).into_response())
        }
        Extent::Part(range) => {
            headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
            let get = async move || op::get::part(request, range, context.clock.now()).await;
            let stored = apart(get).await??;
            let body = Bytes::from_stream(stored.map_err(|failure| broken_off(&failure)));
            Ok((StatusCode::PARTIAL_CONTENT, headers, body).into_response())
        }
        Extent::Beyond => {
            let mut response = Problem::out_of_range(size).into_response();
            let keep = [header::CONTENT_RANGE, header::ACCEPT_RANGES];
            for name in keep {
                if let Some(value) = headers.remove(&name) {
                    response.headers_mut().insert(name, value);
                }
            }
            Ok(response)
        }
    }
}

fn content_range(extent: &Extent, size: u64) -> Option<String> {
    match extent {
        Extent::Whole => None,
        Extent::Part(range) => Some(format!("bytes {}-{}/{size}", range.start, range.end - 1)),
        Extent::Beyond => Some(format!("bytes */{size}")),
    }
}

fn attachment(kind: &'static str, name: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Names are built of ids and of what is cleaned: they hold no quote.
    if let Ok(text) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, text);
    }
    headers
}

/// A body that ends only if the work behind it succeeded: a failure breaks the connection off.
fn proven(
    pipe: tokio::io::DuplexStream,
    work: JoinHandle<std::result::Result<(), Failure>>,
) -> Bytes {
    let body = stream::try_unfold(Some((pipe, work)), |state| async move {
        let Some((mut pipe, work)) = state else {
            return Ok::<_, io::Error>(None);
        };
        let mut piece = vec![0; PIECE_BYTES];
        let count = pipe.read(&mut piece).await?;
        if count > 0 {
            piece.truncate(count);
            return Ok(Some((piece, Some((pipe, work)))));
        }
        match work.await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(failure)) => Err(broken_off(&failure)),
            Err(error) => Err(io::Error::other(error)),
        }
    });
    Bytes::from_stream(body)
}

/// Logs why a download ends before its end, which the client sees as a connection that breaks off.
fn broken_off(failure: &Failure) -> io::Error {
    let message = &failure.message;
    tracing::warn!(id = failure.id, "a download was broken off: {message}");
    io::Error::other(message.clone())
}

/// How the rows of a table are sent.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct As {
    /// `csv`, `jsonl` or `sql`.
    pub(crate) format: Option<String>,
}

/// The rows of one table, read by ranges. They are sent only after they were proven.
#[utoipa::path(get, path = "/api/v1/backups/{id}/tables/{table}", tag = "backups",
    params(("id" = String, Path, description = "Id of the backup"), ("table" = String, Path, description = "Name of the table, with its schema where that is not `public`"), As),
    responses((status = 200, content_type = "text/csv", body = String), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 403, body = Body, content_type = "application/problem+json"), (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn rows(
    _: Restorer,
    State(app): State<App>,
    Path((id, table)): Path<(String, String)>,
    format: std::result::Result<Query<As>, QueryRejection>,
) -> Result<Response> {
    let format = query(format)?;
    send_rows(&app, &id_of(&id)?, &table, format.format.as_deref()).await
}

/// Sends the rows of one table.
pub(crate) async fn send_rows(
    app: &App,
    id: &BackupId,
    table: &str,
    format: Option<&str>,
) -> Result<Response> {
    let (format, kind, ending) = match format.unwrap_or("csv") {
        "csv" => (RowFormat::Csv, "text/csv; charset=utf-8", "csv"),
        "jsonl" => (
            RowFormat::Jsonl,
            "application/jsonl; charset=utf-8",
            "jsonl",
        ),
        "sql" => (RowFormat::Sql, "application/sql; charset=utf-8", "sql"),
        other => {
            return Err(bad_request(&format!(
                "`{other}` is no format: csv, jsonl or sql"
            )));
        }
    };
    let setup = app.setup_for(id.database())?;
    let folder = tempfile::Builder::new().prefix("pgkeep-rows-").tempdir();
    let no_room = |error: io::Error| {
        let message = format!("there is no folder for the rows: {error}");
        Failure::new(Kind::Unexpected, "no_temporary_folder", message)
    };
    let folder = folder.map_err(no_room)?;
    let path = folder.path().join("rows");
    let overrides = extract::Overrides {
        source: id.to_string(),
        table: table.to_owned(),
        format: Some(format),
        output: Some(path.clone()),
        ..extract::Overrides::default()
    };
    let mut request = extract::request(&overrides, &setup)?;
    request.output = Output::File {
        path: path.clone(),
        replace: true,
    };
    let context = app.context.clone();
    let extract =
        async move || op::extract::run(request, &context, &Arc::new(Progress::default())).await;
    let report = apart(extract).await??;
    let file = tokio::fs::File::open(&path).await.map_err(no_room)?;
    let size = file.metadata().await.map_err(no_room)?.len();
    // An open file outlives its name.
    drop(folder);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = report.table.chars().map(plain).collect();
    let mut headers = attachment(kind, &format!("{id}.{name}.{ending}"));
    headers.insert(header::CONTENT_LENGTH, size.into());
    Ok((headers, Bytes::from_stream(ReaderStream::new(file))).into_response())
}

/// Two backups.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Two {
    /// Id of one.
    pub(crate) a: String,
    /// Id of the other.
    pub(crate) b: String,
}

/// What differs between two backups: what `pgkeep diff --json` prints.
#[utoipa::path(get, path = "/api/v1/diff", tag = "backups", params(Two),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn diff(
    _: Reader,
    State(app): State<App>,
    two: std::result::Result<Query<Two>, QueryRejection>,
) -> Result<Json<Value>> {
    let two = query(two)?;
    let report = differences(&app, &id_of(&two.a)?, &id_of(&two.b)?).await?;
    Ok(Json(serde_json::to_value(report).unwrap_or_default()))
}

/// Compares two backups.
pub(crate) async fn differences(
    app: &App,
    one: &BackupId,
    other: &BackupId,
) -> Result<op::diff::Report> {
    let setup = app.setup_for(one.database())?;
    let overrides = diff::Overrides {
        one: one.to_string(),
        other: Some(other.to_string()),
        ..diff::Overrides::default()
    };
    let request = diff::request(&overrides, &setup)?;
    let context = app.context.clone();
    let diff =
        async move || op::diff::run(&request, &context, &Arc::new(Progress::default())).await;
    Ok(apart(diff).await??)
}

//! How databases stand.

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::database_name;
use crate::apart::apart;
use crate::app::{App, Operator, Reader};
use crate::history::under_way;
use crate::problem::{Body, Problem, Result};
use pgkeep_core::op;
use pgkeep_core::setup::prune;
use pgkeep_model::failure::Failure;

/// How every database stands: what `pgkeep status --json` prints, as of the last look at the storages.
#[utoipa::path(get, path = "/api/v1/databases", tag = "databases",
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn list(_: Reader, State(app): State<App>) -> Json<Value> {
    let known = app.known();
    Json(json!({
        "looked_at": known.looked_at(),
        "databases": known.report.databases,
        "storages": known.report.storages,
        "failure": known.failure,
    }))
}

/// How one database stands, what is running, what it runs next, and which slots nobody ran. `failure` says why the storages
/// were not listed the last time.
#[utoipa::path(get, path = "/api/v1/databases/{database}", tag = "databases",
    params(("database" = String, Path, description = "Name in the configuration")),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn show(
    _: Reader,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Result<Json<Value>> {
    let name = database_name(&database)?;
    let known = app.known();
    let mut all = known.report.databases.iter();
    let status = all
        .find(|status| status.database == name.as_str())
        .ok_or_else(|| Problem::not_found(format!("there is no database `{name}`")))?;
    let plans = known.plans.iter().filter(|plan| plan.database == name);
    let next: Vec<Value> = plans
        .map(|plan| {
            json!({
                "verb": plan.verb.as_str(),
                "schedule": plan.schedule,
                "timezone": plan.zone,
                "offset_seconds": plan.offset.as_secs(),
                "next": plan.next,
            })
        })
        .collect();
    let of_name = known.missed.iter().filter(|missed| missed.database == name);
    let missed: Vec<Value> = of_name
        .map(|missed| json!({ "verb": missed.verb.as_str(), "slot": missed.slot }))
        .collect();
    Ok(Json(json!({
        "looked_at": known.looked_at(),
        "failure": known.failure,
        "status": status,
        "running": under_way(&known, &app.runs, &name),
        "schedules": next,
        "missed": missed,
    })))
}

/// The size of a backup.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Size {
    /// The backup.
    id: String,
    /// When its run began.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// All its objects in one storage.
    size_bytes: u64,
    /// Rows of all tables, where the record of its run is known.
    rows: Option<u64>,
    /// How long its run took.
    took_ms: Option<u64>,
}

/// How the backups of a database have grown, newest first.
#[utoipa::path(get, path = "/api/v1/databases/{database}/sizes", tag = "databases",
    params(("database" = String, Path, description = "Name in the configuration")),
    responses((status = 200, body = Vec<Size>), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn sizes(
    _: Reader,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Result<Json<Vec<Size>>> {
    let name = database_name(&database)?;
    app.setup_for(&name)?;
    let known = app.known();
    let records = known.records.get(&name);
    let backups = known.listing.backups.iter().rev();
    let of = backups.filter(|backup| {
        backup.place.id.database() == &name && backup.is_committed() && !backup.place.is_partial
    });
    let size = |backup: &op::stored::StoredBackup| {
        let id = backup.place.id.to_string();
        let mut all = records.into_iter().flatten();
        let record = all.find(|one| one.verb == "backup" && one.backup_id.as_ref() == Some(&id));
        Size {
            started_at: backup.place.id.started_at(),
            size_bytes: backup.size_bytes(),
            rows: record.and_then(|record| record.rows),
            took_ms: record.map(|record| record.took_ms),
            id,
        }
    };
    Ok(Json(of.map(size).collect()))
}

/// What `pgkeep prune --dry-run` would remove now, and why it keeps the rest.
#[utoipa::path(get, path = "/api/v1/databases/{database}/prune", tag = "databases",
    params(("database" = String, Path, description = "Name in the configuration")),
    responses((status = 200, body = Value), (status = 401, body = Body, content_type = "application/problem+json"),
        (status = 404, body = Body, content_type = "application/problem+json")))]
pub(crate) async fn prune_plan(
    _: Operator,
    State(app): State<App>,
    Path(database): Path<String>,
) -> Result<Json<Value>> {
    let name = database_name(&database)?;
    let setup = app.setup_for(&name)?;
    let overrides = prune::Overrides {
        dry_run: true,
        ..prune::Overrides::default()
    };
    let context = app.context.clone();
    let plan = async move || {
        let planned = prune::requests(&overrides, &setup).await?;
        let mut reports = Vec::new();
        for request in &planned.requests {
            reports.push(match request {
                Ok((request, lock)) => op::prune::run(request, lock, &context).await,
                Err((database, failure)) => {
                    op::prune::Report::failed(database, true, failure.clone())
                }
            });
        }
        Ok::<_, Failure>(json!({ "databases": reports, "notes": planned.notes }))
    };
    Ok(Json(apart(plan).await??))
}

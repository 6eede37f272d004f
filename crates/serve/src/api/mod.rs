//! The HTTP API under `/api/v1`.

pub(crate) mod act;
pub(crate) mod backups;
mod cron;
mod databases;
mod health;
mod ranges;
pub(crate) mod runs;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::metrics;
use crate::problem::{Body, Problem, Result};
use pgkeep_core::clock::Clock;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::id::{BackupId, DatabaseName};

/// How many entries a page of a list has at most, and by default.
const MAX_LIMIT: usize = 500;
const DEFAULT_LIMIT: usize = 100;

/// Which part of a list: those before an id, the newest first.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// Only this database.
    pub(crate) database: Option<String>,
    /// Only what is older than this id.
    pub(crate) before: Option<String>,
    /// How many, at most 500.
    pub(crate) limit: Option<usize>,
}

impl Part {
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
    }

    pub(crate) fn database(&self) -> Result<Option<DatabaseName>> {
        self.database.as_deref().map(database_name).transpose()
    }

    pub(crate) fn before(&self) -> Result<Option<BackupId>> {
        self.before.as_deref().map(id_of).transpose()
    }
}

/// Takes a query apart, or says what is wrong with it as any other problem.
pub(crate) fn query<T>(query: std::result::Result<Query<T>, QueryRejection>) -> Result<T> {
    query
        .map(|Query(query)| query)
        .map_err(|error| bad_request(&error.to_string()))
}

pub(crate) fn bad_request(why: &str) -> Problem {
    Problem::new(Failure::new(Kind::Usage, "bad_request", why))
}

/// Reads the name of a database out of an address.
pub(crate) fn database_name(text: &str) -> Result<DatabaseName> {
    text.parse()
        .map_err(|_| Problem::not_found(format!("there is no database `{text}`")))
}

/// Reads an id out of an address.
pub(crate) fn id_of(text: &str) -> Result<BackupId> {
    text.parse()
        .map_err(|_| Problem::not_found(format!("`{text}` is no id")))
}

/// Tells whether a moment is within a span before now.
pub(crate) fn is_within(at: Timestamp, seconds: u64, clock: &dyn Clock) -> bool {
    let age = clock.now().as_second() - at.as_second();
    u64::try_from(age).is_ok_and(|age| age < seconds)
}

/// The document without its routes, which bring themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "pgkeep",
        description = "Backups of PostgreSQL that come with proof. Sizes are in bytes, times are RFC 3339 in UTC, \
                       durations are in milliseconds. Errors are `application/problem+json` with a stable `id`."
    ),
    components(schemas(Body)),
    security(("token" = []))
)]
struct Document;

/// Returns the routes of the API with the document that describes them.
pub(crate) fn routes() -> OpenApiRouter<App> {
    let mut document = Document::openapi();
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", scheme);
    OpenApiRouter::with_openapi(document)
        .routes(routes!(databases::list))
        .routes(routes!(databases::show))
        .routes(routes!(databases::sizes))
        .routes(routes!(databases::prune_plan))
        .routes(routes!(backups::list, act::start_backup))
        .routes(routes!(backups::show))
        .routes(routes!(backups::download))
        .routes(routes!(backups::rows))
        .routes(routes!(backups::diff))
        .routes(routes!(act::pin, act::unpin))
        .routes(routes!(act::accept))
        .routes(routes!(act::start_drill))
        .routes(routes!(act::start_verification))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::events))
        .routes(routes!(cron::trigger_by_get, cron::trigger))
        .routes(routes!(health::openapi))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
}

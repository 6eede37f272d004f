//! What `diff` is to compare.

use std::path::PathBuf;

use super::{Setup, StorageOverrides, Target};
use crate::copies::listing::Wanted;
use crate::op::diff::{Live, Other, Request};
use pgkeep_model::connection::ConnectionError;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;

/// What is compared with what.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of a backup, or `latest`.
    pub one: String,
    /// Id of the other, or `latest`; none where it is compared with a database.
    pub other: Option<String>,
    /// Connection to the database that it is compared with.
    pub url: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Folder of the PostgreSQL programs.
    pub bin_dir: Option<PathBuf>,
    /// The structure as unified SQL.
    pub with_sql: bool,
    /// Read all rows of the database, and do not only count them.
    pub reads_rows: bool,
    /// Whether somebody relies on the answer that nothing differs.
    pub must_tell: bool,
    /// Where to look.
    pub storage: StorageOverrides,
}

/// Returns the request to compare.
pub fn request(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    let one = Wanted::parse(&overrides.one)?;
    let mut database = setup.database_name()?;
    let other = match &overrides.other {
        Some(other) => Other::Backup(Wanted::parse(other)?),
        None => {
            let name = match &one {
                Wanted::Id(id) => Some(id.database().clone()),
                Wanted::Latest => database.clone(),
            };
            let target = target(overrides, setup, name.as_ref())?;
            // The only database of the configuration is the one whose latest backup is meant.
            if overrides.url.is_none() && database.is_none() {
                database = name.or_else(|| configured_alone(setup));
            }
            Other::Live(live(overrides, setup, target)?)
        }
    };
    Ok(Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database,
        one,
        other,
        with_sql: overrides.with_sql,
        must_tell: overrides.must_tell,
    })
}

fn configured_alone(setup: &Setup) -> Option<DatabaseName> {
    let config = setup.config().ok().flatten()?;
    match config.databases.as_slice() {
        [(name, _)] => Some(name.clone()),
        _ => None,
    }
}

/// Returns the database to look at: the one of the URL, the backup's own of the configuration, or the environment's.
fn target(overrides: &Overrides, setup: &Setup, name: Option<&DatabaseName>) -> Result<Target> {
    // What it is called in storage says nothing here, but every target has a name.
    let called = name.map_or("latest", DatabaseName::as_str);
    let is_complete = overrides.url.is_some() && !overrides.storage.storages.is_empty();
    let config = if is_complete { None } else { setup.config()? };
    let defaults = config
        .map(|config| config.defaults.clone())
        .unwrap_or_default();
    if overrides.url.is_some() {
        return setup.one_off(overrides.url.as_deref(), Some(called), defaults);
    }
    let mut targets = config.map_or(Ok(Vec::new()), |config| setup.configured(config))?;
    let count = targets.len();
    targets.retain(|target| name.is_none_or(|name| target.name == *name));
    match (targets.pop(), targets.is_empty()) {
        (Some(target), true) => Ok(target),
        (Some(_), false) => {
            let message = format!("the configuration has {count} databases");
            Err(Failure::new(Kind::Usage, "database_needed", message)
                .hint("choose one with `-d NAME`"))
        }
        (None, _) if count == 0 && setup.environment_names_a_database() => {
            setup.one_off(None, Some(called), defaults)
        }
        (None, _) => {
            let message = match name {
                Some(name) if count > 0 => {
                    format!("the configuration has no database `{name}`, of which the backup is")
                }
                _ => "no database was given to compare the backup with".to_owned(),
            };
            Err(Failure::new(Kind::Usage, "no_database", message)
                .hint("`--url URL` names the database"))
        }
    }
}

fn live(overrides: &Overrides, setup: &Setup, target: Target) -> Result<Live> {
    let bad =
        |error: ConnectionError| Failure::new(Kind::Usage, "bad_connection", error.to_string());
    let connection = match &overrides.password_file {
        Some(path) => target
            .connection
            .with_password(setup.password_from(path)?)
            .map_err(bad)?,
        None => target.connection,
    };
    Ok(Live {
        connection,
        search: setup.search(overrides.bin_dir.as_deref())?,
        environment: setup.program_environment(),
        lock_wait_timeout: target.config.lock_wait_timeout,
        reads_rows: overrides.reads_rows,
    })
}

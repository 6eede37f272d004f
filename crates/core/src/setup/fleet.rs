//! What workers that share many databases are to do.

use serde::Serialize;

use super::{Setup, StorageOverrides, connection_of};
use crate::copies::listing::NamedStorage;
use crate::op::fleet::Scheduled;
use pgkeep_model::config::DatabaseConfig;
use pgkeep_model::due::Plan;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::shard::Shard;

/// Where Kubernetes tells a pod of an indexed Job which one it is, from 0 on.
/// <https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode>
const INDEX: &str = "JOB_COMPLETION_INDEX";

/// What a worker looks after.
pub struct Fleet {
    /// The databases of its part.
    pub databases: Vec<DatabaseName>,
    /// Those of them that have a schedule for the verb.
    pub scheduled: Vec<Scheduled>,
    /// All storages of the configuration.
    pub storages: Vec<NamedStorage>,
}

/// A database as the configuration has it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name in the storages.
    pub name: String,
    /// Where its server is; none where only libpq knows.
    pub server: Option<String>,
    /// When its backups are due.
    pub schedule: Option<String>,
    /// The zone in which that is read.
    pub timezone: String,
}

/// Returns the databases of the configuration, or those of a part. A connection that cannot be read is no problem.
pub fn list(shard: Option<&str>, setup: &Setup) -> Result<Vec<Listed>> {
    let listed = |(name, database): (DatabaseName, DatabaseConfig)| {
        let connection = connection_of(&database);
        let place = connection.as_ref().and_then(|found| {
            let (host, port) = *found.hosts().first()?;
            Some(format!("{host}:{port}"))
        });
        Listed {
            name: name.to_string(),
            server: place,
            schedule: database.schedule.as_ref().map(ToString::to_string),
            timezone: database.timezone.iana_name().unwrap_or("UTC").to_owned(),
        }
    };
    Ok(part(shard, setup)?.into_iter().map(listed).collect())
}

/// Returns the sections of a part of the databases, of all where none is named.
fn part(shard: Option<&str>, setup: &Setup) -> Result<Vec<(DatabaseName, DatabaseConfig)>> {
    let config = setup.config_or_fail()?;
    let read = |text: &str| {
        Shard::read(text, setup.var(INDEX).as_deref()).map_err(|why| {
            let message = format!("cannot read `--shard {text}`: {why}");
            Failure::new(Kind::Usage, "bad_shard", message)
        })
    };
    let shard = shard.map(read).transpose()?;
    let sections = setup.sections(config)?.into_iter();
    let ours = sections.filter(|(name, _)| shard.is_none_or(|shard| shard.has(name)));
    Ok(ours.collect())
}

/// Returns what a worker looks after: all databases of the configuration, or those of a part such as `2/8`, or `8` in a pod
/// of an indexed Job.
pub fn fleet(verb: &str, shard: Option<&str>, setup: &Setup) -> Result<Fleet> {
    let ours = part(shard, setup)?;
    let schedules = ours.iter().filter_map(|(name, database)| {
        let schedule = match verb {
            "drill" => &database.drill.schedule,
            "verify" => &database.verify.schedule,
            _ => &database.schedule,
        };
        let plan = Plan::of(name, database, schedule.as_ref()?);
        let database = name.clone();
        Some(Scheduled { database, plan })
    });
    Ok(Fleet {
        scheduled: schedules.collect(),
        databases: ours.iter().map(|(name, _)| name.clone()).collect(),
        storages: setup.storages_to_read(&StorageOverrides::default())?,
    })
}

/// Says that no database has a schedule, where one is needed.
pub fn no_schedule(verb: &str) -> Failure {
    let key = match verb {
        "verify" => "verify.schedule",
        _ => "schedule",
    };
    let message = format!("nothing can be due: no database has a `{key}`");
    Failure::new(Kind::Usage, "no_schedule", message).hint(format!(
        "write `{key}: \"15 3 * * *\"` at a database, or below `defaults`"
    ))
}

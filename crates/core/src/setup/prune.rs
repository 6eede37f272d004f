//! What `prune` is to do: one plan's request for each database that is meant.

use std::time::Duration;

use jiff::Timestamp;

use super::flags::duration_or_off;
use super::retention::{PolicyOverrides, flags, set_zone};
use super::{Setup, StorageOverrides};
use crate::copies::listing::{Listing, NamedStorage};
use crate::op::lock::LockSettings;
use crate::op::prune::{Request, SAFE, empty_policy};
use pgkeep_model::config::{DatabaseConfig, Retention};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;

/// Where is pruned, by what policy, and how.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Remove nothing.
    pub dry_run: bool,
    /// Carry out a plan that removes much.
    pub allow_mass_delete: bool,
    /// How long to wait for another run of the same database.
    pub lock_timeout: Option<String>,
    /// The rules; none at all means the policy of the configuration.
    pub policy: PolicyOverrides,
    /// Where to prune.
    pub storage: StorageOverrides,
}

/// What is to be pruned.
pub struct Planned {
    /// One request for each database, and how its run locks; or why nothing can be done for this one.
    pub requests: Vec<Opened<(Request, LockSettings)>>,
    /// What is to be said of databases that are skipped.
    pub notes: Vec<String>,
}

/// What is to be done for one database, or why none of its storages can be used: the others' are pruned all the same.
pub type Opened<T> = std::result::Result<T, (DatabaseName, Failure)>;

/// Returns one request for each database that is meant.
pub async fn requests(overrides: &Overrides, setup: &Setup) -> Result<Planned> {
    let mut notes = Vec::new();
    let requests = unlocked(overrides, setup, &mut notes).await?;
    let wait = duration_or_off("--lock-timeout", overrides.lock_timeout.as_deref())?;
    let locked = requests.into_iter().map(|opened| {
        let (request, config_wait) = match opened {
            Ok(found) => found,
            Err(unusable) => return Ok(Err(unusable)),
        };
        let lock = setup.lock_as_configured(wait.or(config_wait).unwrap_or_default())?;
        Ok(Ok((request, lock)))
    });
    Ok(Planned {
        requests: locked.collect::<Result<_>>()?,
        notes,
    })
}

type Unlocked = (Request, Option<Duration>);

/// With `--storage` the one database there, otherwise every database of the configuration, or the one of `-d`.
async fn unlocked(
    overrides: &Overrides,
    setup: &Setup,
    notes: &mut Vec<String>,
) -> Result<Vec<Opened<Unlocked>>> {
    let flags = flags(&overrides.policy)?;
    let is_elsewhere = !overrides.storage.storages.is_empty();
    let request = |database, storages, config: &DatabaseConfig, policy| Request {
        database,
        storages,
        policy,
        keep_runs: config.keep_runs,
        allow_mass_delete: overrides.allow_mass_delete,
        dry_run: overrides.dry_run,
        must_exist: is_elsewhere,
    };
    if is_elsewhere {
        let config = if setup.names_a_database() {
            setup.retention().ok().flatten()
        } else {
            None
        };
        let policy = policy(flags, config, overrides)?.ok_or_else(|| empty_policy("prune"))?;
        let storages = setup.storages_to_read(&overrides.storage)?;
        let database = only_database(setup, &storages).await?;
        let one = request(database, storages, &DatabaseConfig::default(), policy);
        return Ok(vec![Ok((one, None))]);
    }
    let config = setup.config_or_fail()?;
    let is_one = setup.names_a_database() || config.databases.len() == 1;
    if flags.is_some() && !is_one {
        let message = "a policy by flags is for one database, and the configuration has several";
        return Err(
            Failure::new(Kind::Usage, "database_needed", message).hint("choose one with `-d NAME`")
        );
    }
    let mut requests = Vec::new();
    for (name, section) in setup.sections(config)? {
        let Some(policy) = policy(flags.clone(), section.retention.clone(), overrides)? else {
            if is_one {
                return Err(empty_policy(&format!("prune of `{name}`")));
            }
            notes.push(format!(
                "`{name}` has no `retention`: all its backups are kept"
            ));
            continue;
        };
        let wait = section.lock_timeout;
        requests.push(match setup.open_named(config, &section.storages) {
            Ok(storages) => Ok((request(name, storages, &section, policy), wait)),
            Err(failure) => Err((name, failure.and_safe(SAFE))),
        });
    }
    Ok(requests)
}

/// Flags replace the rules that count backups. The zone, and what is said of pre-deploy backups, stay those of the
/// configuration: these are not pinned because they are a set of their own.
fn policy(
    flags: Option<Retention>,
    config: Option<Retention>,
    overrides: &Overrides,
) -> Result<Option<Retention>> {
    let mut policy = match (flags, config) {
        (Some(flags), Some(config)) => Retention {
            keep_pre_deploy: config.keep_pre_deploy,
            timezone: config.timezone,
            ..flags
        },
        (Some(policy), None) | (None, Some(policy)) => policy,
        (None, None) => return Ok(None),
    };
    set_zone(&mut policy, &overrides.policy)?;
    Ok(Some(policy))
}

pub(super) async fn only_database(
    setup: &Setup,
    storages: &[NamedStorage],
) -> Result<DatabaseName> {
    match setup.database_name()? {
        Some(name) => Ok(name),
        // Which databases there are does not depend on the time.
        None => Listing::read(storages.to_vec(), None, Timestamp::MAX)
            .await?
            .only_database(),
    }
}

//! What `backup` is to do: overrides before the configuration, the configuration before the defaults.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use super::flags::{duration, duration_or_off, required_tables};
use super::pin::reason_needed;
use super::{Setup, StorageOverrides, Target};
use crate::copies::listing::NamedStorage;
use crate::op::backup::{Reading, Request};
use crate::op::lock::LockSettings;
use crate::postgres::dump::Selection;
use crate::postgres::programs::Search;
use crate::stream::compress::Codec;
use crate::stream::pipeline::Form;
use pgkeep_model::config::{
    Compression, CompressionMethod, DatabaseConfig, Jobs, Limits, Preset, Retention,
};
use pgkeep_model::connection::{Connection, ConnectionError};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::limits::{Limit, LimitError};
use pgkeep_model::manifest::Trigger;
use pgkeep_model::name::{TableName, parse_schema};
use pgkeep_model::origin::Origin;
use pgkeep_model::pin::{PRE_DEPLOY, tidy};
use pgkeep_model::required::RequiredTable;

/// Only for tests: how many bytes make a table a large one, which is then read page by page.
const TEST_LARGE_BYTES: &str = "PGKEEP_TEST_LARGE_BYTES";

/// What somebody wants otherwise for one run.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Connection to the database.
    pub url: Option<String>,
    /// What it is called in storage.
    pub name: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Where to store.
    pub storage: StorageOverrides,
    /// How many storages must take the backup.
    pub copies: Option<usize>,
    /// Tables that must be in the dump, each with `=N` behind it for a least number of rows.
    pub required: Vec<String>,
    /// Rules of a hosting service.
    pub preset: Option<Preset>,
    /// Only these tables.
    pub tables: Vec<String>,
    /// All but these tables.
    pub exclude_tables: Vec<String>,
    /// Only these schemas.
    pub schemas: Vec<String>,
    /// All but these schemas.
    pub exclude_schemas: Vec<String>,
    /// These tables without their rows.
    pub structure_only: Vec<String>,
    /// `gzip`, `zstd` or `none`, with a level such as `gzip:6`.
    pub compression: Option<String>,
    /// Which rows of tables are kept, such as `events=newest:10000:created_at`.
    pub limits: Vec<String>,
    /// How many sessions read large tables at once, or `auto`.
    pub jobs: Option<String>,
    /// Public keys of age to encrypt to, instead of those of the configuration.
    pub recipients: Vec<String>,
    /// Store roles and tablespaces, too.
    pub globals: bool,
    /// Accept a database without any table.
    pub allow_empty: bool,
    /// A warning of `pg_dump` fails the run.
    pub strict_warnings: bool,
    /// How long `pg_dump` waits for a lock.
    pub lock_wait_timeout: Option<String>,
    /// How long to wait for another run of the same database.
    pub lock_timeout: Option<String>,
    /// How long a dump may move no byte.
    pub stall_timeout: Option<String>,
    /// How often a run is tried.
    pub attempts: Option<u32>,
    /// Folder of the PostgreSQL programs.
    pub bin_dir: Option<PathBuf>,
    /// Why the run happens; by hand where nobody says.
    pub trigger: Option<Trigger>,
    /// Why the backup is pinned.
    pub pin: Option<String>,
    /// Why the run goes on where the backup is held.
    pub allow_anomaly: Option<String>,
    /// Remove nothing behind the backup.
    pub no_prune: bool,
}

impl Overrides {
    /// Names a flag that leaves something out of the backup; none where it is whole.
    pub fn gap(&self) -> Option<&'static str> {
        let gaps = [
            ("--table", &self.tables),
            ("--exclude-table", &self.exclude_tables),
            ("--schema", &self.schemas),
            ("--exclude-schema", &self.exclude_schemas),
            ("--structure-only", &self.structure_only),
            ("--limit", &self.limits),
        ];
        let mut given = gaps.iter().filter(|(_, names)| !names.is_empty());
        given.next().map(|(flag, _)| *flag)
    }
}

/// Returns the request for the database that [`Setup::database`] names.
pub fn request_of_one(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    let (requests, _) = requests(overrides, setup)?;
    let mut all = requests.into_iter();
    let one = all.next();
    Ok(one.expect("a database that is named gives a request or a failure"))
}

/// Returns one request for each database that is meant, and whether the configuration has a part in them.
pub fn requests(overrides: &Overrides, setup: &Setup) -> Result<(Vec<Request>, bool)> {
    let trigger = overrides.trigger.unwrap_or(Trigger::Manual);
    let is_complete = overrides.url.is_some() && !overrides.storage.storages.is_empty();
    let config = if is_complete { None } else { setup.config()? };
    let is_one_off = overrides.url.is_some()
        || config
            .as_ref()
            .is_none_or(|config| config.databases.is_empty());
    let targets = match &config {
        Some(config) if !is_one_off => setup.configured(config)?,
        _ => {
            if overrides.url.is_none() && !setup.environment_names_a_database() {
                return Err(no_database());
            }
            // Where nothing else is called so, it says what the backups are called.
            let name = match (&setup.database, &overrides.name) {
                (None, name) => name.as_deref(),
                (Some(database), None) if config.is_none() && overrides.url.is_some() => {
                    Some(database.as_str())
                }
                (Some(database), _) => {
                    return Err(two_databases(database, overrides.url.is_some()));
                }
            };
            let defaults = config
                .as_ref()
                .map(|config| config.defaults.clone())
                .unwrap_or_default();
            vec![setup.one_off(overrides.url.as_deref(), name, defaults)?]
        }
    };
    let bin_dir = overrides.bin_dir.clone().or_else(|| {
        config
            .as_ref()
            .and_then(|config| config.postgres.bin_dir.clone())
    });
    let is_one_of_several = targets.len() > 1;
    let requests: Result<Vec<Request>> = targets
        .into_iter()
        .map(|target| {
            let names = &target.config.storages;
            let storages = match &config {
                Some(config) if overrides.storage.storages.is_empty() && !names.is_empty() => {
                    if is_one_of_several {
                        setup.open_for_one_of_several(config, names)?
                    } else {
                        setup.open_named(config, names)?
                    }
                }
                _ => setup.storages(&overrides.storage)?,
            };
            let search = Search::new(bin_dir.clone(), setup.path());
            request(overrides, trigger, setup, target, storages, search)
        })
        .collect();
    Ok((requests?, config.is_some()))
}

/// A name that would be skipped in silence is a mistake that somebody relies on.
fn two_databases(database: &str, has_url: bool) -> Failure {
    let message = if has_url {
        format!(
            "`-d {database}` names a database of the configuration, but `--url` names another one"
        )
    } else {
        format!(
            "`-d {database}` names a database of a configuration, but there is no configuration"
        )
    };
    Failure::new(Kind::Usage, "two_databases", message).hint(format!(
        "leave one of them out; `--name {database}` says what the backups are called"
    ))
}

fn no_database() -> Failure {
    Failure::new(Kind::Usage, "no_database", "no database was given")
        .hint("set DATABASE_URL or libpq's own variables, give `--url`, or write a configuration (`pgkeep config \
            init`)")
}

fn request(
    overrides: &Overrides,
    trigger: Trigger,
    setup: &Setup,
    target: Target,
    storages: Vec<NamedStorage>,
    search: Search,
) -> Result<Request> {
    let Target {
        name,
        config,
        connection,
    } = target;
    let connection = match &overrides.password_file {
        Some(path) => {
            let bad = |error: ConnectionError| {
                Failure::new(Kind::Usage, "bad_connection", error.to_string())
            };
            connection
                .with_password(setup.password_from(path)?)
                .map_err(bad)?
        }
        None => connection,
    };
    let (recipients, refused) =
        match setup.recipients(&overrides.recipients, config.encryption.as_ref()) {
            Ok(recipients) => (recipients, None),
            // The databases beside it are backed up all the same.
            Err(failure) => (None, Some(failure)),
        };
    let storages = setup.with_identities(storages, &overrides.storage.identities)?;
    let (selection, is_selected) = selection(overrides, &config)?;
    let is_partial = is_selected || !overrides.limits.is_empty();
    let mut required: Vec<_> = config.required_tables.clone();
    RequiredTable::add(&mut required, required_tables(&overrides.required)?);
    let wanted = overrides.copies.or(config.copies).unwrap_or(1);
    let copies = NonZeroUsize::new(wanted)
        .filter(|copies| copies.get() <= storages.len())
        .ok_or_else(|| {
            let message = format!(
                "`copies` is {wanted}, and there are {} storages",
                storages.len()
            );
            Failure::new(Kind::Usage, "bad_copies", message)
        })?;
    let pin = pin(overrides, trigger, config.retention.as_ref())?;
    let mut retries = config.retries;
    retries.attempts = overrides.attempts.unwrap_or(retries.attempts).max(1);
    Ok(Request {
        name,
        connection,
        search,
        environment: setup.program_environment(),
        storages,
        copies,
        form: Form {
            codec: codec(overrides.compression.as_deref(), config.compression)?,
            recipients,
        },
        probe_keys: setup.probe_keys(&overrides.storage.identities, config.encryption.as_ref())?,
        refused,
        required,
        selection,
        limits: limits(&overrides.limits, &config.limits)?,
        is_partial,
        preset: overrides.preset.or(config.preset),
        globals: overrides.globals || config.globals,
        allow_empty: overrides.allow_empty || config.allow_empty,
        strict_warnings: overrides.strict_warnings || config.strict_warnings,
        lock_wait_timeout: duration(
            "--lock-wait-timeout",
            overrides.lock_wait_timeout.as_deref(),
        )?
        .unwrap_or(config.lock_wait_timeout),
        stall_timeout: match duration_or_off("--stall-timeout", overrides.stall_timeout.as_deref())?
        {
            Some(Duration::ZERO) => None,
            Some(timeout) => Some(timeout),
            None => config.stall_timeout,
        },
        retries,
        trigger,
        pin,
        anomaly: config.anomaly,
        allow_anomaly: allowed(overrides.allow_anomaly.as_deref())?,
        retention: config.retention.filter(|_| !overrides.no_prune),
        keep_runs: config.keep_runs,
        threads: available_parallelism().map_or(1, NonZeroUsize::get),
        reading: reading(overrides.jobs.as_deref(), config.jobs, setup)?,
        lock: setup.lock(
            duration_or_off("--lock-timeout", overrides.lock_timeout.as_deref())?
                .or(config.lock_timeout)
                .unwrap_or_default(),
        )?,
        origin: Origin::default(),
    })
}

/// Who lets a run go on says why.
fn allowed(reason: Option<&str>) -> Result<Option<String>> {
    let Some(reason) = reason.map(tidy) else {
        return Ok(None);
    };
    if reason.is_empty() {
        let message = "`--allow-anomaly` needs a reason, for anyone who finds it later";
        return Err(Failure::new(Kind::Usage, "reason_needed", message)
            .hint("`--allow-anomaly 'the old events were removed on purpose'`"));
    }
    Ok(Some(reason))
}

/// A backup before a deploy is pinned, unless the policy keeps such ones in a set of their own.
fn pin(
    overrides: &Overrides,
    trigger: Trigger,
    retention: Option<&Retention>,
) -> Result<Option<String>> {
    if let Some(reason) = &overrides.pin {
        let reason = reason.trim();
        return if reason.is_empty() {
            Err(reason_needed())
        } else {
            Ok(Some(reason.to_owned()))
        };
    }
    let has_own_set = retention.is_some_and(|policy| policy.keep_pre_deploy.is_some());
    let is_pinned = trigger == Trigger::PreDeploy && !has_own_set;
    Ok(is_pinned.then(|| PRE_DEPLOY.to_owned()))
}

/// A request with the documented defaults, from the newest programs into nowhere.
pub fn defaults(name: DatabaseName, setup: &Setup, lock: LockSettings) -> Request {
    let config = DatabaseConfig::default();
    Request {
        name,
        connection: Connection::default(),
        search: Search::new(None, setup.path()),
        environment: setup.program_environment(),
        storages: Vec::new(),
        copies: NonZeroUsize::MIN,
        form: Form {
            codec: default_codec(config.compression),
            recipients: None,
        },
        probe_keys: Arc::default(),
        refused: None,
        required: Vec::new(),
        selection: Selection::default(),
        limits: Vec::new(),
        is_partial: false,
        preset: None,
        globals: config.globals,
        allow_empty: config.allow_empty,
        strict_warnings: config.strict_warnings,
        lock_wait_timeout: config.lock_wait_timeout,
        stall_timeout: config.stall_timeout,
        retries: config.retries,
        trigger: Trigger::Manual,
        pin: None,
        anomaly: config.anomaly,
        allow_anomaly: None,
        retention: None,
        keep_runs: config.keep_runs,
        threads: available_parallelism().map_or(1, NonZeroUsize::get),
        reading: Reading::default(),
        lock,
        origin: Origin::default(),
    }
}

/// Flags replace the limits of the configuration.
fn limits(flags: &[String], config: &Limits) -> Result<Vec<Limit>> {
    if flags.is_empty() {
        return Ok(config.0.clone());
    }
    let read = |text: &String| {
        text.parse().map_err(|error: LimitError| {
            let message = format!("cannot read `--limit {text}`: {error}");
            Failure::new(Kind::Usage, "bad_limit", message)
        })
    };
    flags.iter().map(read).collect()
}

/// Reads `4` or `auto`; the configuration's where the flag is not there.
fn reading(flag: Option<&str>, config: Jobs, setup: &Setup) -> Result<Reading> {
    let jobs = match flag {
        Some(text) => text.parse().map_err(|why: String| {
            Failure::new(
                Kind::Usage,
                "bad_jobs",
                format!("cannot read `--jobs {text}`: {why}"),
            )
        })?,
        None => config,
    };
    let mut reading = Reading {
        jobs,
        ..Reading::default()
    };
    if let Some(text) = setup.var(TEST_LARGE_BYTES) {
        reading.large_bytes = text.parse().map_err(|_| {
            let message = format!("`{TEST_LARGE_BYTES}` is not a number of bytes");
            Failure::new(Kind::Usage, "bad_environment", message)
        })?;
        reading.range_bytes = 1;
    }
    Ok(reading)
}

/// Overrides replace the configuration's selection; what they leave out makes the backup a partial one.
fn selection(overrides: &Overrides, config: &DatabaseConfig) -> Result<(Selection, bool)> {
    let from_flags = Selection {
        tables: tables("--table", &overrides.tables)?,
        exclude_tables: tables("--exclude-table", &overrides.exclude_tables)?,
        structure_only: tables("--structure-only", &overrides.structure_only)?,
        schemas: schemas("--schema", &overrides.schemas)?,
        exclude_schemas: schemas("--exclude-schema", &overrides.exclude_schemas)?,
    };
    if from_flags != Selection::default() {
        return Ok((from_flags, true));
    }
    let selection = Selection {
        tables: config.tables.clone(),
        exclude_tables: config.exclude_tables.clone(),
        structure_only: config.structure_only.clone(),
        schemas: config.schemas.clone(),
        exclude_schemas: config.exclude_schemas.clone(),
    };
    Ok((selection, false))
}

fn tables(flag: &str, texts: &[String]) -> Result<Vec<TableName>> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|error| bad_name(flag, &error)))
        .collect()
}

fn schemas(flag: &str, texts: &[String]) -> Result<Vec<String>> {
    texts
        .iter()
        .map(|text| parse_schema(text).map_err(|error| bad_name(flag, &error)))
        .collect()
}

pub(super) fn bad_name(flag: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Kind::Usage,
        "bad_table_name",
        format!("cannot read `{flag}`: {error}"),
    )
}

/// Reads `zstd`, `gzip:6`, `none`; the configuration's where the flag is not there.
fn codec(flag: Option<&str>, config: Compression) -> Result<Codec> {
    let compression = match flag {
        Some(text) => compression(text)?,
        None => config,
    };
    Ok(default_codec(compression))
}

fn default_codec(compression: Compression) -> Codec {
    let level = compression.level_in_force();
    match compression.method {
        CompressionMethod::Gzip => Codec::Gzip {
            level: level.map(u32::from),
        },
        CompressionMethod::Zstd => Codec::Zstd {
            level: level.unwrap_or_default().into(),
        },
        CompressionMethod::None => Codec::None,
    }
}

fn compression(text: &str) -> Result<Compression> {
    let bad = || {
        let message = format!(
            "cannot read `--compression {text}`: it is `gzip`, `zstd` or `none`, with a level after a colon (gzip 1 \
             to 9, zstd 1 to 19)"
        );
        Failure::new(Kind::Usage, "bad_compression", message)
    };
    let (name, level) = match text.split_once(':') {
        Some((name, level)) => (name, Some(level.parse::<u8>().map_err(|_| bad())?)),
        None => (text, None),
    };
    let methods = [
        CompressionMethod::Gzip,
        CompressionMethod::Zstd,
        CompressionMethod::None,
    ];
    let method = methods
        .into_iter()
        .find(|method| method.as_str() == name)
        .ok_or_else(bad)?;
    let fits = level.is_none_or(|level| {
        method
            .max_level()
            .is_some_and(|max| (1..=max).contains(&level))
    });
    if fits {
        Ok(Compression { method, level })
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_compression() {
        let read = |text| codec(Some(text), Compression::default()).ok();
        assert_eq!(read("gzip"), Some(Codec::Gzip { level: None }));
        assert_eq!(read("gzip:9"), Some(Codec::Gzip { level: Some(9) }));
        assert_eq!(read("zstd"), Some(Codec::Zstd { level: 1 }));
        assert_eq!(read("zstd:19"), Some(Codec::Zstd { level: 19 }));
        assert_eq!(read("none"), Some(Codec::None));
        for text in [
            "", "gz", "gzip:0", "gzip:10", "zstd:20", "none:1", "gzip:", "gzip:x",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

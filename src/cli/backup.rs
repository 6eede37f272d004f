//! `pgkeep backup` on the terminal.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::thread::available_parallelism;
use std::time::Duration;

use serde::Serialize;

use super::args::{BackupArgs, TriggerArg};
use super::inspect::required_tables;
use super::log::{self, Ended};
use super::output::{Output, bytes, number};
use super::progress::Shown;
use super::steps;
use super::stored::reason_needed;
use pgkeep_core::context::Context;
use pgkeep_core::op::backup::{Report, Request, not_started, overall, run as backup};
use pgkeep_core::op::lock::LockSettings;
use pgkeep_core::op::stored::NamedStorage;
use pgkeep_core::postgres::dump::Selection;
use pgkeep_core::postgres::programs::Search;
use pgkeep_core::setup::Target;
use pgkeep_core::setup::{Setup, StorageOverrides};
use pgkeep_core::stream::compress::Codec;
use pgkeep_model::config::{Compression, CompressionMethod, DatabaseConfig, Preset, Retention};
use pgkeep_model::config::{parse_duration, parse_duration_or_off};
use pgkeep_model::connection::{Connection, ConnectionError};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::manifest::Trigger;
use pgkeep_model::name::{TableName, parse_schema};
use pgkeep_model::pin::PRE_DEPLOY;

pub(super) async fn run(
    args: &BackupArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let (requests, is_configured) = requests(args, TriggerArg::Manual, setup)?;
    let context = &if is_configured {
        setup.telling(context, &StorageOverrides::default())?
    } else {
        context.clone()
    };
    #[cfg(debug_assertions)]
    super::panic::provoke(setup.var("PGKEEP_TEST_PANIC")).await;
    let mut reports = Vec::new();
    for request in &requests {
        if context.stop.is_requested() {
            reports.push(not_started(request, context).await);
            continue;
        }
        let shown = Shown::new(request.name.as_str(), output);
        let report = backup(request, context, &shown).await;
        shown.finish();
        print(&report, output, requests.len() > 1);
        log_end(&report);
        reports.push(report);
    }
    output.step_summary(|| steps::of_backups(&reports));
    output.step_outputs(&steps::outputs_of_backups(&reports));
    if output.json {
        output.json_line(&Summary {
            message_type: "summary",
            backups: &reports,
        });
    }
    match overall(&reports) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn log_end(report: &Report) {
    log::ended(&Ended {
        stage: "backup",
        database: Some(&report.database),
        backup_id: report.backup_id.as_deref().filter(|_| report.stored),
        duration_ms: report.took_ms,
        size_bytes: report.stored.then_some(report.size_bytes),
        failure: report.failure.as_ref(),
    });
}

#[derive(Serialize)]
struct Summary<'a> {
    message_type: &'static str,
    backups: &'a [Report],
}

/// Returns one request for each database that is meant, and whether the configuration has a part in them; `trigger` is
/// why the run happens where no flag says.
pub(super) fn requests(
    args: &BackupArgs,
    trigger: TriggerArg,
    setup: &Setup,
) -> Result<(Vec<Request>, bool)> {
    let trigger = args.trigger.unwrap_or(trigger).into();
    let is_complete = args.url.is_some() && !args.storage.storages.is_empty();
    let config = if is_complete { None } else { setup.config()? };
    let is_one_off = args.url.is_some()
        || config
            .as_ref()
            .is_none_or(|config| config.databases.is_empty());
    let targets = match &config {
        Some(config) if !is_one_off => setup.configured(config)?,
        _ => {
            if args.url.is_none() && !setup.environment_names_a_database() {
                return Err(no_database());
            }
            let defaults = config
                .as_ref()
                .map(|config| config.defaults.clone())
                .unwrap_or_default();
            vec![setup.one_off(args.url.as_deref(), args.name.as_deref(), defaults)?]
        }
    };
    let bin_dir = args.bin_dir.clone().or_else(|| {
        config
            .as_ref()
            .and_then(|config| config.postgres.bin_dir.clone())
    });
    let requests: Result<Vec<Request>> = targets
        .into_iter()
        .map(|target| {
            let storages = match &config {
                Some(config)
                    if args.storage.storages.is_empty() && !target.config.storages.is_empty() =>
                {
                    setup.open_named(config, &target.config.storages)?
                }
                _ => setup.storages(&(&args.storage).into())?,
            };
            let search = Search::new(bin_dir.clone(), setup.path());
            request(args, trigger, setup, target, storages, search)
        })
        .collect();
    Ok((requests?, config.is_some()))
}

fn no_database() -> Failure {
    Failure::new(Kind::Usage, "no_database", "nobody said which database to back up")
        .hint("set DATABASE_URL or libpq's own variables, give `--url`, or write a configuration (`pgkeep config init`)")
}

fn request(
    args: &BackupArgs,
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
    let connection = match &args.password_file {
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
    let (selection, is_partial) = selection(args, &config)?;
    let mut required: Vec<_> = config.required_tables.clone();
    required.extend(required_tables(&args.required)?);
    let copies = args.copies.or(config.copies).unwrap_or(1);
    let copies = NonZeroUsize::new(copies)
        .filter(|copies| copies.get() <= storages.len())
        .ok_or_else(|| {
            let message = format!(
                "`copies` is {copies}, and there are {} storages",
                storages.len()
            );
            Failure::new(Kind::Usage, "bad_copies", message)
        })?;
    let pin = pin(args, trigger, config.retention.as_ref())?;
    let mut retries = config.retries;
    retries.attempts = args.attempts.unwrap_or(retries.attempts).max(1);
    Ok(Request {
        name,
        connection,
        search,
        environment: setup.program_environment(),
        storages,
        copies,
        codec: codec(args.compression.as_deref(), config.compression)?,
        required,
        selection,
        is_partial,
        preset: args.preset.map(Preset::from).or(config.preset),
        globals: args.globals || config.globals,
        allow_empty: args.allow_empty || config.allow_empty,
        strict_warnings: args.strict_warnings || config.strict_warnings,
        lock_wait_timeout: duration("--lock-wait-timeout", args.lock_wait_timeout.as_deref())?
            .unwrap_or(config.lock_wait_timeout),
        stall_timeout: match duration_or_off("--stall-timeout", args.stall_timeout.as_deref())? {
            Some(Duration::ZERO) => None,
            Some(timeout) => Some(timeout),
            None => config.stall_timeout,
        },
        retries,
        trigger,
        pin,
        retention: config.retention.filter(|_| !args.no_prune),
        keep_runs: config.keep_runs,
        threads: available_parallelism().map_or(1, NonZeroUsize::get),
        lock: setup.lock(
            duration_or_off("--lock-timeout", args.lock_timeout.as_deref())?
                .or(config.lock_timeout)
                .unwrap_or_default(),
        )?,
    })
}

impl From<TriggerArg> for Trigger {
    fn from(trigger: TriggerArg) -> Self {
        match trigger {
            TriggerArg::Manual => Self::Manual,
            TriggerArg::Schedule => Self::Schedule,
            TriggerArg::PreDeploy => Self::PreDeploy,
        }
    }
}

/// A backup before a deploy is pinned, unless the policy keeps such ones in a set of their own.
fn pin(
    args: &BackupArgs,
    trigger: Trigger,
    retention: Option<&Retention>,
) -> Result<Option<String>> {
    if let Some(reason) = &args.pin {
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
pub(super) fn defaults(name: DatabaseName, setup: &Setup, lock: LockSettings) -> Request {
    let config = DatabaseConfig::default();
    Request {
        name,
        connection: Connection::default(),
        search: Search::new(None, setup.path()),
        environment: setup.program_environment(),
        storages: Vec::new(),
        copies: NonZeroUsize::MIN,
        codec: default_codec(config.compression),
        required: Vec::new(),
        selection: Selection::default(),
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
        retention: None,
        keep_runs: config.keep_runs,
        threads: available_parallelism().map_or(1, NonZeroUsize::get),
        lock,
    }
}

/// Flags replace the configuration's selection; what they leave out makes the backup a partial one.
fn selection(args: &BackupArgs, config: &DatabaseConfig) -> Result<(Selection, bool)> {
    let from_flags = Selection {
        tables: tables("--table", &args.tables)?,
        exclude_tables: tables("--exclude-table", &args.exclude_tables)?,
        structure_only: tables("--structure-only", &args.structure_only)?,
        schemas: schemas("--schema", &args.schemas)?,
        exclude_schemas: schemas("--exclude-schema", &args.exclude_schemas)?,
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

fn bad_name(flag: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Kind::Usage,
        "bad_table_name",
        format!("cannot read `{flag}`: {error}"),
    )
}

/// A flag is given for one run, so no length is a slip of the pen.
const ANY_LENGTH: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

/// Reads a length of time as the configuration takes it; `0` is none at all.
pub(super) fn duration(flag: &str, text: Option<&str>) -> Result<Option<Duration>> {
    let read = |text| match text {
        "0" => Ok(Duration::ZERO),
        _ => parse_duration(text, &ANY_LENGTH),
    };
    text.map(|text| read(text).map_err(|_| bad_duration(flag, text)))
        .transpose()
}

/// The same, where `off` means none at all too.
pub(super) fn duration_or_off(flag: &str, text: Option<&str>) -> Result<Option<Duration>> {
    let read = |text| parse_duration_or_off(text, &ANY_LENGTH).map(Option::unwrap_or_default);
    text.map(|text| read(text).map_err(|_| bad_duration(flag, text)))
        .transpose()
}

fn bad_duration(flag: &str, text: &str) -> Failure {
    let message =
        format!("cannot read `{flag} {text}`: it is no time such as `90s`, `10m` or `1h 30m`");
    Failure::new(Kind::Usage, "bad_duration", message)
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
            "cannot read `--compression {text}`: it is `gzip`, `zstd` or `none`, with a level behind \
                               a colon (gzip 1 to 9, zstd 1 to 19)"
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

fn print(report: &Report, output: &Output, is_one_of_many: bool) {
    if output.json {
        return;
    }
    for warning in &report.warnings {
        output.warning(&format!("{}: {}", report.database, warning.message));
    }
    if report.stored && !output.quiet {
        output.data(&text(report));
    }
    if is_one_of_many && let Some(failure) = &report.failure {
        output.error(failure);
    }
}

pub(super) fn text(report: &Report) -> String {
    let id = report.backup_id.as_deref().unwrap_or_default();
    let seconds = report.took_ms as f64 / 1000.0;
    let mut out = format!(
        "{id}: {} tables, {} rows, {} of SQL stored as {} in {seconds:.1} s\n",
        number(report.tables as u64),
        number(report.rows),
        bytes(report.dump_bytes),
        bytes(report.size_bytes),
    );
    for storage in &report.storages {
        let state = if storage.stored { "stored" } else { "FAILED" };
        out += &format!("  {state} in {}\n", storage.url);
    }
    for account in report.prune.iter().flat_map(|prune| &prune.storages) {
        let removed = account
            .remove
            .iter()
            .filter(|line| line.removed == Some(true));
        for line in removed {
            out += &format!(
                "  pruned {} in {}: {}\n",
                line.id,
                account.url,
                line.reasons.join(", ")
            );
        }
    }
    let required = report.required_tables.len();
    let required = match required {
        0 => String::new(),
        1 => ", the required table found".to_owned(),
        _ => format!(", all {required} required tables found"),
    };
    let sha256 = report.sha256.as_deref().unwrap_or_default();
    out +=
        &format!("  proven: pg_dump exited with 0, end marker seen{required}, SHA-256 {sha256}\n");
    out += &format!(
        "  restore: {}\n",
        report.restore.as_deref().unwrap_or_default()
    );
    out
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

    #[test]
    fn reads_durations() {
        let read = |text| duration("--x", Some(text)).ok().flatten();
        assert_eq!(read("90s"), Some(Duration::from_secs(90)));
        assert_eq!(read("1h 30m"), Some(Duration::from_secs(5400)));
        // Days too, as in the configuration.
        assert_eq!(read("2d"), Some(Duration::from_secs(2 * 86_400)));
        assert_eq!(read("off"), None);
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read("-5s"), None);
        assert_eq!(read("soon"), None);
        let or_off = |text| duration_or_off("--x", Some(text)).ok().flatten();
        for off in ["off", "0"] {
            assert_eq!(or_off(off), Some(Duration::ZERO));
        }
        assert_eq!(or_off("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(or_off("soon"), None);
    }
}

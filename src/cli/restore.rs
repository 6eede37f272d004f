//! `pgkeep restore` on the terminal.

use std::path::PathBuf;

use super::args::RestoreArgs;
use super::backup::{duration, duration_or_off};
use super::log::{self, Ended};
use super::output::{Output, bytes, number};
use super::progress::Shown;
use super::settings::Settings;
use super::steps;
use pgkeep_core::context::Context;
use pgkeep_core::op::restore::{Limits, Options, Report, Request, Source, run as restore};
use pgkeep_core::op::stored::Wanted;
use pgkeep_core::postgres::programs::Search;
use pgkeep_model::config::{Config, Preset};
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::BackupId;
use pgkeep_model::name::printable;

pub(super) async fn run(
    args: &RestoreArgs,
    settings: &Settings<'_>,
    output: &Output,
    context: &Context,
) -> Result<()> {
    if super::single::is_meant(args) {
        return super::single::run(args, settings, output, context).await;
    }
    if super::merge::is_meant(args)? {
        return super::merge::run(args, settings, output, context).await;
    }
    let request = request(args, settings)?;
    let context = &settings.telling(context, &args.storage)?;
    let shown = Shown::new("restore", output);
    let report = restore(&request, context, &shown).await;
    log::ended(&Ended {
        stage: "restore",
        database: report.database.as_deref(),
        backup_id: report.backup_id.as_deref(),
        duration_ms: report.took_ms,
        failure: report.failure.as_ref(),
        ..Ended::default()
    });
    output.step_summary(|| steps::of_restore(&report));
    output.summary(&report, &report.warnings, || {
        report.restored.then(|| text(&report))
    });
    report.failure.map_or(Ok(()), Err)
}

fn request(args: &RestoreArgs, settings: &Settings<'_>) -> Result<Request> {
    let source = source(args, settings)?;
    let database = match &source {
        Source::Stored {
            wanted: Wanted::Id(id),
            ..
        } => Some(id.database().to_string()),
        Source::Stored { database, .. } => database.as_ref().map(ToString::to_string),
        Source::File(_) | Source::Stdin => settings.database_name()?.map(|name| name.to_string()),
    };
    let into = settings.into(&args.into, database.as_deref())?;
    let into = with_password(into, args, settings)?;
    Ok(Request {
        source,
        into,
        search: search(args, settings)?,
        environment: settings.program_environment(),
        options: Options {
            replace: args.replace,
            accept_no_end_marker: args.accept_no_end_marker,
            allow_superuser: args.allow_superuser,
            force_version: args.force_version,
            force_locale: args.force_locale,
            no_owner: args.no_owner,
            no_privileges: args.no_privileges,
            create_missing_roles: args.create_missing_roles,
            no_database_settings: args.no_database_settings,
            no_compare: args.no_compare,
            limits: limits(args, database.as_deref(), settings)?,
            preset: args.preset.map(Preset::from),
            jobs: args.jobs.map(|jobs| usize::from(jobs.get())),
            dump_time_zone: args.dump_time_zone.clone(),
            ..Options::default()
        },
    })
}

/// How long it may stand still: as the flags say, else as the database's backups may.
pub(super) fn limits(
    args: &RestoreArgs,
    database: Option<&str>,
    settings: &Settings<'_>,
) -> Result<Limits> {
    let config = settings.config()?;
    let mut limits = configured_limits(config.as_ref(), database);
    if let Some(stall) = duration_or_off("--stall-timeout", args.stall_timeout.as_deref())? {
        limits.stall = Some(stall).filter(|stall| !stall.is_zero());
    }
    if let Some(wait) = duration("--lock-wait-timeout", args.lock_wait_timeout.as_deref())? {
        limits.lock_wait = wait;
    }
    Ok(limits)
}

/// The limits of a configured database, or of the defaults.
pub(super) fn configured_limits(config: Option<&Config>, database: Option<&str>) -> Limits {
    let Some(config) = config else {
        return Limits::default();
    };
    let found = match (database, config.databases.as_slice()) {
        (Some(name), _) => config.database(name),
        (None, [(_, only)]) => Some(only),
        (None, _) => None,
    };
    let database = found.unwrap_or(&config.defaults);
    Limits {
        stall: database.stall_timeout,
        lock_wait: database.lock_wait_timeout,
    }
}

/// Where the client programs are looked for.
pub(super) fn search(args: &RestoreArgs, settings: &Settings<'_>) -> Result<Search> {
    let bin_dir = match &args.bin_dir {
        Some(folder) => Some(folder.clone()),
        None => settings
            .config()?
            .and_then(|config| config.postgres.bin_dir),
    };
    Ok(Search::new(bin_dir, settings.path()))
}

pub(super) fn with_password(
    into: Connection,
    args: &RestoreArgs,
    settings: &Settings<'_>,
) -> Result<Connection> {
    let Some(path) = &args.password_file else {
        return Ok(into);
    };
    into.with_password(settings.password_from(path)?)
        .map_err(|error| Failure::new(Kind::Usage, "bad_connection", error.to_string()))
}

/// An id or `latest` is a backup, anything else a file; a file that is called like one is meant by `./latest`.
pub(super) fn source(args: &RestoreArgs, settings: &Settings<'_>) -> Result<Source> {
    let what = args.what.as_str();
    if what == "-" {
        return Ok(Source::Stdin);
    }
    if what == "latest" || what.parse::<BackupId>().is_ok() {
        return Ok(Source::Stored {
            storages: settings.storages_to_read(&args.storage)?,
            database: settings.database_name()?,
            wanted: Wanted::parse(what)?,
        });
    }
    let path = PathBuf::from(what);
    if path.exists() || what.contains(['/', '.']) {
        return Ok(Source::File(path));
    }
    let message = format!(
        "`{}` is neither the id of a backup nor a file",
        printable(what)
    );
    Err(Failure::new(Kind::NotFound, "no_such_backup", message).hint("`pgkeep list` shows the ids"))
}

pub(super) fn text(report: &Report) -> String {
    let what = report.backup_id.as_deref().unwrap_or(&report.source);
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let mut out = format!(
        "{what}: restored into {}: {} rows, {} of SQL in {:.1} s\n",
        report.target,
        number(report.rows),
        bytes(report.dump_bytes),
        seconds(report.restore_ms),
    );
    out += &left_to_the_platform(report);
    if report.created {
        out += "  the database was created\n";
    }
    if !report.created && report.replaced.is_none() && !report.properties_set.is_empty() {
        out += "  changed of the database that was there, to what the backup says:\n";
        for statement in &report.properties_set {
            out += &format!("    {statement};\n");
        }
    }
    if !report.created_roles.is_empty() {
        out += &format!(
            "  roles made, without login: {}\n",
            report.created_roles.join(", ")
        );
    }
    out += &if report.compared {
        format!(
            "  compared: {} tables are as they were dumped, in {:.1} s\n",
            number(report.tables.len() as u64),
            seconds(report.compare_ms)
        )
    } else {
        "  NOT compared\n".to_owned()
    };
    if let Some(replaced) = &report.replaced {
        out += &format!(
            "  the old database is kept as {}\n  to go back, from another database:\n",
            replaced.kept_as
        );
        for statement in &replaced.go_back {
            out += &format!("    {statement}\n");
        }
    }
    out
}

/// What is not there, or not as it was where the dump came from: the first thing to know.
pub(super) fn left_to_the_platform(report: &Report) -> String {
    let mut out = String::new();
    if !report.skipped_extensions.is_empty() {
        out += &format!(
            "  WITHOUT extensions that the server lacks: {}\n",
            report.skipped_extensions.join(", ")
        );
    }
    for stand_in in &report.stand_ins {
        out += &format!("  stands in for the platform's own: {stand_in}\n");
    }
    for left_out in &report.left_out {
        out += &format!("  LEFT OUT, and not there: {left_out}\n");
    }
    out
}

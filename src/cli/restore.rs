//! `pgkeep restore` on the terminal: a whole dump, single tables, or rows of single tables.

use std::path::PathBuf;

use super::args::RestoreArgs;
use super::backup::{duration, duration_or_off};
use super::log::{self, Ended};
use super::output::Output;
use super::progress::Shown;
use super::{restored, steps};
use pgkeep_core::context::Context;
use pgkeep_core::op::restore::{
    Chosen, Goal, Limits, Options, Outcome, Request, Source, run as restore,
};
use pgkeep_core::op::stored::Wanted;
use pgkeep_core::postgres::programs::Search;
use pgkeep_core::setup::Setup;
use pgkeep_model::config::{Config, Preset};
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::BackupId;
use pgkeep_model::merge::Mode;
use pgkeep_model::name::{TableName, parse_schema, printable};

pub(super) async fn run(
    args: &RestoreArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(args, setup)?;
    let context = &setup.telling(context, &(&args.storage).into())?;
    let shown = Shown::new("restore", output);
    let outcome = restore(&request, context, &shown).await;
    let ended = match &outcome {
        Outcome::Whole(report) => Ended {
            database: report.database.as_deref(),
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
        Outcome::Tables(report) => Ended {
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
        Outcome::Rows(report) => Ended {
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
    };
    log::ended(&Ended {
        stage: "restore",
        failure: outcome.failure(),
        ..ended
    });
    output.step_summary(|| steps::of_restored(&outcome));
    output.summary(&outcome, outcome.warnings(), || restored::of(&outcome));
    outcome.failure().cloned().map_or(Ok(()), Err)
}

fn request(args: &RestoreArgs, setup: &Setup) -> Result<Request> {
    let goal = goal(args)?;
    let source = source(args, setup)?;
    let request_name = match &source {
        Source::Stored {
            wanted: Wanted::Id(id),
            ..
        } => Some(id.database().to_string()),
        Source::Stored { database, .. } => database.as_ref().map(ToString::to_string),
        Source::File(_) | Source::Stdin => setup.database_name()?.map(|name| name.to_string()),
    };
    goal.takes(&source)?;
    let database = request_name.as_deref();
    let into = setup.into(&args.into, database)?;
    let into = with_password(into, args, setup)?;
    Ok(Request {
        source,
        into,
        search: search(args, setup)?,
        environment: setup.program_environment(),
        goal,
        options: Options {
            dry_run: args.dry_run,
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
            limits: limits(args, database, setup)?,
            preset: args.preset.map(Preset::from),
            jobs: args.jobs.map(|jobs| usize::from(jobs.get())),
            dump_time_zone: args.dump_time_zone.clone(),
            ..Options::default()
        },
    })
}

/// Returns what of the dump is meant.
fn goal(args: &RestoreArgs) -> Result<Goal> {
    let is_rows = args.upsert || args.data_only;
    if !is_rows && args.tables.is_empty() {
        refuse_flags_alone(args)?;
        return Ok(Goal::Whole);
    }
    if !is_rows {
        refuse_what_is_of_databases(args)?;
    }
    let tables = args.tables.iter().map(|text| table(text));
    let schema_map = args.schema_map.iter().map(|text| mapping(text));
    let chosen = Chosen {
        tables: tables.collect::<Result<_>>()?,
        schema_map: schema_map.collect::<Result<_>>()?,
    };
    Ok(match (args.upsert, args.data_only) {
        (true, _) => Goal::Rows(Mode::Upsert, chosen),
        (false, true) => Goal::Rows(Mode::Append, chosen),
        (false, false) => Goal::Tables(chosen),
    })
}

/// Some flags say nothing about a whole dump.
fn refuse_flags_alone(args: &RestoreArgs) -> Result<()> {
    let alone = [
        ("--schema-map", !args.schema_map.is_empty()),
        ("--dry-run", args.dry_run),
    ];
    match alone.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((flag, _)) => {
            let message = format!(
                "`{flag}` wants `--table`, `--upsert` or `--data-only` with it; nothing was changed"
            );
            Err(Failure::new(Kind::Usage, "flag_alone", message).hint(
                "`--table` brings single tables back; `--upsert` merges rows into tables that are there; `--data-only` fills empty ones",
            ))
        }
    }
}

/// Flags about a whole database say nothing here, and whoever gives one means something else.
fn refuse_what_is_of_databases(args: &RestoreArgs) -> Result<()> {
    let flags = [
        ("--replace", args.replace),
        ("--no-database-setup", args.no_database_settings),
        ("--jobs", args.jobs.is_some()),
    ];
    match flags.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((flag, _)) => {
            let message = format!("`{flag}` is for a whole database; nothing was changed");
            Err(Failure::new(Kind::Usage, "flag_of_databases", message)
                .hint("leave it out, or leave `--table` out"))
        }
    }
}

/// How long it may stand still: as the flags say, else as the database's backups may.
pub(super) fn limits(args: &RestoreArgs, database: Option<&str>, setup: &Setup) -> Result<Limits> {
    let config = setup.config()?;
    let mut limits = configured_limits(config, database);
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
pub(super) fn search(args: &RestoreArgs, setup: &Setup) -> Result<Search> {
    let bin_dir = match &args.bin_dir {
        Some(folder) => Some(folder.clone()),
        None => setup
            .config()?
            .and_then(|config| config.postgres.bin_dir.clone()),
    };
    Ok(Search::new(bin_dir, setup.path()))
}

pub(super) fn with_password(
    into: Connection,
    args: &RestoreArgs,
    setup: &Setup,
) -> Result<Connection> {
    let Some(path) = &args.password_file else {
        return Ok(into);
    };
    into.with_password(setup.password_from(path)?)
        .map_err(|error| Failure::new(Kind::Usage, "bad_connection", error.to_string()))
}

/// An id or `latest` is a backup, anything else a file; a file that is called like one is meant by `./latest`.
pub(super) fn source(args: &RestoreArgs, setup: &Setup) -> Result<Source> {
    let what = args.what.as_str();
    if what == "-" {
        return Ok(Source::Stdin);
    }
    if what == "latest" || what.parse::<BackupId>().is_ok() {
        return Ok(Source::Stored {
            storages: setup.storages_to_read(&(&args.storage).into())?,
            database: setup.database_name()?,
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

pub(super) fn table(text: &str) -> Result<TableName> {
    text.parse()
        .map_err(|error| bad("--table", text, &format!("{error}")))
}

/// An equals sign in a schema's name stands in quotes, which no part may leave open.
pub(super) fn mapping(text: &str) -> Result<(String, String)> {
    let places = text.match_indices('=').map(|(at, _)| at);
    let read = |at: usize| {
        Some((
            parse_schema(&text[..at]).ok()?,
            parse_schema(&text[at + 1..]).ok()?,
        ))
    };
    let found = places.filter_map(read).next();
    found.ok_or_else(|| bad("--schema-map", text, "it is not FROM=TO"))
}

fn bad(flag: &str, text: &str, why: &str) -> Failure {
    let message = format!("`{flag} {}`: {why}; nothing was changed", printable(text));
    Failure::new(Kind::Usage, "bad_name", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_mapped_by_name() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(mapping("public=Rescued").ok(), pair("public", "rescued"));
        assert_eq!(mapping("\"a=b\"=\"C d\"").ok(), pair("a=b", "C d"));
        for text in ["public", "=x", "a.b=c", "\"a=b"] {
            assert_eq!(mapping(text).unwrap_err().kind, Kind::Usage, "{text}");
        }
    }
}

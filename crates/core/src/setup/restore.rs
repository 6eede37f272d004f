//! What `restore` is to do.

use std::num::NonZeroU8;
use std::path::PathBuf;

use super::flags::{duration, duration_or_off};
use super::{Setup, StorageOverrides};
use crate::copies::listing::Wanted;
use crate::op::restore::{Chosen, Goal, Limits, Options, Request, Source};
use pgkeep_model::config::{Config, Preset};
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::BackupId;
use pgkeep_model::merge::Mode;
use pgkeep_model::name::{TableName, parse_schema, printable};

/// What is restored, into what, and how.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of the backup, `latest`, a plain dump, or `-` for standard input.
    pub what: String,
    /// Database to restore into: a URL, or a name on the server of the configured database.
    pub into: String,
    /// File that holds its password.
    pub password_file: Option<PathBuf>,
    /// Restore beside the database and put the copy into its place.
    pub replace: bool,
    /// Do so also with a backup that holds only some rows.
    pub accept_limited: bool,
    /// Merge rows into tables that are there.
    pub upsert: bool,
    /// Bring rows into tables that are there and empty.
    pub data_only: bool,
    /// Only these tables.
    pub tables: Vec<String>,
    /// Schemas that are called otherwise in the target: `FROM=TO`.
    pub schema_map: Vec<String>,
    /// Do all of it and roll it back.
    pub dry_run: bool,
    /// Restore as a superuser.
    pub allow_superuser: bool,
    /// Leave owners out.
    pub no_owner: bool,
    /// Leave rights out.
    pub no_privileges: bool,
    /// Make roles that the server lacks.
    pub create_missing_roles: bool,
    /// Extensions that are left out.
    pub skip_extensions: Vec<String>,
    /// Put everything into the database's own tablespace.
    pub no_tablespaces: bool,
    /// Leave the database's own properties as they are.
    pub no_database_settings: bool,
    /// Restore into a server that is older than the dump's.
    pub force_version: bool,
    /// Create the database in locale `C` where the server lacks that of the dump.
    pub force_locale: bool,
    /// Rules of a hosting service.
    pub preset: Option<Preset>,
    /// Accept a dump without an end marker.
    pub accept_no_end_marker: bool,
    /// Do not compare afterwards.
    pub no_compare: bool,
    /// Sessions that restore at once.
    pub jobs: Option<NonZeroU8>,
    /// How long the restore may stand still.
    pub stall_timeout: Option<String>,
    /// How long it waits for another session's lock.
    pub lock_wait_timeout: Option<String>,
    /// Time zone that a plain dump was written in.
    pub dump_time_zone: Option<String>,
    /// Folder of the PostgreSQL programs.
    pub bin_dir: Option<PathBuf>,
    /// Where to look.
    pub storage: StorageOverrides,
}

/// Returns the request to restore.
pub fn request(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    let goal = goal(overrides)?;
    let source = source(overrides, setup)?;
    let request_name = match &source {
        Source::Stored {
            wanted: Wanted::Id(id),
            ..
        } => Some(id.database().to_string()),
        Source::Stored { database, .. } => database.as_ref().map(ToString::to_string),
        Source::File(_) | Source::Stdin => None,
    };
    goal.takes(&source)?;
    // `-d` says whose server is meant, also where the backup is another database's.
    let named = setup.database_name()?.map(|name| name.to_string());
    let request_name = named.or(request_name);
    let database = request_name.as_deref();
    let (into, home) = setup.into(&overrides.into, database)?;
    let into = with_password(into, overrides, setup)?;
    Ok(Request {
        source,
        into,
        search: setup.search(overrides.bin_dir.as_deref())?,
        environment: setup.program_environment(),
        identities: setup.identities(&overrides.storage.identities)?,
        goal,
        options: Options {
            dry_run: overrides.dry_run,
            replace: overrides.replace,
            accept_limited: overrides.accept_limited,
            accept_no_end_marker: overrides.accept_no_end_marker,
            allow_superuser: overrides.allow_superuser,
            force_version: overrides.force_version,
            force_locale: overrides.force_locale,
            no_owner: overrides.no_owner,
            no_privileges: overrides.no_privileges,
            create_missing_roles: overrides.create_missing_roles,
            skip_extensions: overrides.skip_extensions.clone(),
            no_tablespaces: overrides.no_tablespaces,
            no_database_settings: overrides.no_database_settings,
            no_compare: overrides.no_compare,
            limits: limits(overrides, database, setup)?,
            preset: overrides.preset,
            jobs: overrides.jobs.map(|jobs| usize::from(jobs.get())),
            dump_time_zone: overrides.dump_time_zone.clone(),
            home,
            ..Options::default()
        },
    })
}

/// Returns what of the dump is meant.
fn goal(overrides: &Overrides) -> Result<Goal> {
    let is_rows = overrides.upsert || overrides.data_only;
    if !is_rows && overrides.tables.is_empty() {
        refuse_flags_alone(overrides)?;
        return Ok(Goal::Whole);
    }
    if !is_rows {
        refuse_what_is_of_databases(overrides)?;
    }
    let tables = overrides.tables.iter().map(|text| table(text));
    let schema_map = overrides.schema_map.iter().map(|text| mapping(text));
    let chosen = Chosen {
        tables: tables.collect::<Result<_>>()?,
        schema_map: schema_map.collect::<Result<_>>()?,
    };
    Ok(match (overrides.upsert, overrides.data_only) {
        (true, _) => Goal::Rows(Mode::Upsert, chosen),
        (false, true) => Goal::Rows(Mode::Append, chosen),
        (false, false) => Goal::Tables(chosen),
    })
}

/// Some flags say nothing about a whole dump.
fn refuse_flags_alone(overrides: &Overrides) -> Result<()> {
    let alone = [
        ("--schema-map", !overrides.schema_map.is_empty()),
        ("--dry-run", overrides.dry_run),
    ];
    match alone.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((flag, _)) => {
            let message = format!(
                "`{flag}` needs `--table`, `--upsert` or `--data-only` with it; nothing was changed"
            );
            Err(Failure::new(Kind::Usage, "flag_alone", message).hint(
                "`--table` restores single tables; `--upsert` merges rows into existing tables; `--data-only` fills \
                 empty ones",
            ))
        }
    }
}

/// Flags about a whole database say nothing here, and anyone who gives one means something else.
fn refuse_what_is_of_databases(overrides: &Overrides) -> Result<()> {
    let flags = [
        ("--replace", overrides.replace),
        ("--no-database-setup", overrides.no_database_settings),
        ("--jobs", overrides.jobs.is_some()),
        ("--skip-extension", !overrides.skip_extensions.is_empty()),
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
fn limits(overrides: &Overrides, database: Option<&str>, setup: &Setup) -> Result<Limits> {
    let config = setup.config()?;
    let mut limits = configured_limits(config, database);
    if let Some(stall) = duration_or_off("--stall-timeout", overrides.stall_timeout.as_deref())? {
        limits.stall = Some(stall).filter(|stall| !stall.is_zero());
    }
    if let Some(wait) = duration(
        "--lock-wait-timeout",
        overrides.lock_wait_timeout.as_deref(),
    )? {
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

fn with_password(into: Connection, overrides: &Overrides, setup: &Setup) -> Result<Connection> {
    let Some(path) = &overrides.password_file else {
        return Ok(into);
    };
    into.with_password(setup.password_from(path)?)
        .map_err(|error| Failure::new(Kind::Usage, "bad_connection", error.to_string()))
}

/// An id or `latest` is a backup, anything else a file; a file that is called like one is meant by `./latest`.
fn source(overrides: &Overrides, setup: &Setup) -> Result<Source> {
    let what = overrides.what.as_str();
    if what == "-" {
        return Ok(Source::Stdin);
    }
    if what == "latest" || what.parse::<BackupId>().is_ok() {
        return Ok(Source::Stored {
            storages: setup.storages_to_read(&overrides.storage)?,
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

fn table(text: &str) -> Result<TableName> {
    text.parse()
        .map_err(|error| bad("--table", text, &format!("{error}")))
}

/// An equals sign in a schema's name stands in quotes, which no part may leave open.
fn mapping(text: &str) -> Result<(String, String)> {
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

//! The databases that the configuration, overrides and the environment describe.

use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::Setup;
use pgkeep_model::config::{Config, DatabaseConfig, Retention};
use pgkeep_model::connection::{Connection, ConnectionError};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::nearest::did_you_mean;

/// Variables by which libpq alone knows the database.
const LIBPQ_PLACES: &[&str] = &["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"];

/// A database to back up, as overrides or the configuration say.
pub struct Target {
    /// What it is called in storage.
    pub name: DatabaseName,
    /// Its section, or the defaults.
    pub config: DatabaseConfig,
    /// Where it is.
    pub connection: Connection,
}

impl Setup {
    /// Returns the one database that flags and environment describe, with `defaults`.
    pub fn one_off(
        &self,
        url: Option<&str>,
        name: Option<&str>,
        defaults: DatabaseConfig,
    ) -> Result<Target> {
        let url = url.map(str::to_owned).or_else(|| self.var("DATABASE_URL"));
        let connection = match &url {
            Some(url) => url
                .parse::<Connection>()
                .map_err(|error| bad_connection("the connection", &error))?,
            None => Connection::default(),
        };
        self.hide(connection.password());
        let name = self.name_of(&connection, name)?;
        Ok(Target {
            name,
            config: defaults,
            connection,
        })
    }

    /// Tells whether the environment describes a database.
    pub fn environment_names_a_database(&self) -> bool {
        self.var("DATABASE_URL").is_some()
            || LIBPQ_PLACES.iter().any(|name| self.var(name).is_some())
    }

    fn name_of(&self, connection: &Connection, name: Option<&str>) -> Result<DatabaseName> {
        let from_server = || {
            connection
                .database_name()
                .map(str::to_owned)
                .or_else(|| self.var("PGDATABASE"))
        };
        let (text, is_given) = match name {
            Some(name) => (name.to_owned(), true),
            None => (
                from_server()
                    .or_else(|| self.var("PGSERVICE"))
                    .unwrap_or_default(),
                false,
            ),
        };
        text.parse().map_err(|error| {
            let message = if is_given {
                format!("cannot use `--name`: {error}")
            } else if text.is_empty() {
                "the connection names no database to call the backup after".to_owned()
            } else {
                format!("the database's name cannot be used in keys: {error}")
            };
            Failure::new(Kind::Usage, "name_needed", message)
                .hint("`--name NAME` says what to call it in storage")
        })
    }

    /// Returns the databases of the configuration, or the one that `-d` names, each with the way to its server.
    pub fn configured(&self, config: &Config) -> Result<Vec<Target>> {
        let sections = self.sections(config)?;
        self.check_servers()?;
        let target = |(name, config): (DatabaseName, DatabaseConfig)| {
            let what = format!("the connection of `{name}`");
            let connection = connection(&config).map_err(|error| bad_connection(&what, &error))?;
            Ok(Target {
                name,
                config,
                connection,
            })
        };
        sections.into_iter().map(target).collect()
    }

    /// Returns the sections of the databases, or of the one that `-d` names, for anyone who needs no server.
    pub fn sections(&self, config: &Config) -> Result<Vec<(DatabaseName, DatabaseConfig)>> {
        if let Some(wanted) = &self.database {
            database_config(config, wanted)?;
        }
        let is_meant = |name: &DatabaseName| {
            let wanted = self.database.as_deref();
            wanted.is_none_or(|wanted| name.as_str() == wanted)
        };
        let all = config.databases.iter();
        Ok(all.filter(|(name, _)| is_meant(name)).cloned().collect())
    }

    /// Tells whether `-d` names a database.
    pub fn names_a_database(&self) -> bool {
        self.database.is_some()
    }

    /// Returns the retention policy of the database that `-d` names, or of the only one; none without a configuration
    /// or without a policy in it.
    pub fn retention(&self) -> Result<Option<Retention>> {
        let Some(wanted) = &self.database else {
            let Some(config) = self.config()? else {
                return Ok(None);
            };
            let [(_, database)] = config.databases.as_slice() else {
                let message = "the configuration has several databases";
                return Err(Failure::new(Kind::Usage, "database_needed", message)
                    .hint("choose one with `-d NAME`"));
            };
            return Ok(database.retention.clone());
        };
        let config = self.config_or_fail()?;
        Ok(database_config(config, wanted)?.retention.clone())
    }

    /// Returns the connection to restore into: a URL or `keyword=value` pairs, or the bare name of a database on the
    /// server that `database` of the configuration, or the environment, names. Beside it stands the database that is
    /// known on that server.
    pub fn into(&self, text: &str, database: Option<&str>) -> Result<(Connection, Option<String>)> {
        if text.contains([':', '/', '=']) {
            let bad = |error| bad_connection("`--into`", &error);
            let connection = text.parse::<Connection>().map_err(bad)?;
            self.hide(connection.password());
            return Ok((connection, None));
        }
        let config = self.config()?;
        let targets = config
            .as_ref()
            .map_or(Ok(Vec::new()), |config| self.configured(config))?;
        let is_meant = |target: &&Target| database.is_none_or(|name| target.name.as_str() == name);
        let mut meant = targets.iter().filter(is_meant);
        let server = match (
            meant.next(),
            meant.next(),
            self.environment_names_a_database(),
        ) {
            (Some(target), None, _) => target.connection.clone(),
            (None, _, true) => match self.var("DATABASE_URL") {
                Some(url) => url
                    .parse::<Connection>()
                    .map_err(|error| bad_connection("`DATABASE_URL`", &error))?,
                None => Connection::default(),
            },
            _ => {
                return Err(no_server(text, database, &targets));
            }
        };
        let home = server.database_name().map(str::to_owned);
        let into = server.with_database(text);
        into.map(|into| (into, home))
            .map_err(|error| bad_connection("`--into`", &error))
    }

    /// Returns the database that `-d` names, as a key's part.
    pub fn database_name(&self) -> Result<Option<DatabaseName>> {
        let bad = |error| {
            Failure::new(
                Kind::Usage,
                "bad_database",
                format!("cannot use `-d`: {error}"),
            )
        };
        self.database
            .as_ref()
            .map(|name| name.parse().map_err(bad))
            .transpose()
    }
}

/// A bare name is on the server of the database that the backup is of, which the configuration may not know.
fn no_server(text: &str, database: Option<&str>, targets: &[Target]) -> Failure {
    let names: Vec<String> = targets
        .iter()
        .map(|target| format!("`{}`", target.name))
        .collect();
    let message = match database {
        Some(database) if !names.is_empty() => format!(
            "no server was given for `{text}`: the backup is of `{database}`, and the configuration has {}",
            names.join(", ")
        ),
        _ => format!("no server was given for `{text}`"),
    };
    let failure = Failure::new(Kind::Usage, "no_server", message)
        .hint("`--into` takes a URL, too: `--into postgres://user@host/database`");
    if names.is_empty() {
        failure
    } else {
        failure.hint(format!(
            "`-d NAME` means the server of that database: {}",
            names.join(", ")
        ))
    }
}

pub(super) fn database_config<'c>(config: &'c Config, name: &str) -> Result<&'c DatabaseConfig> {
    config.database(name).ok_or_else(|| {
        let known = config.databases.iter().map(|(name, _)| name.as_str());
        let message = format!(
            "the configuration has no database `{name}`{}",
            did_you_mean(name, known)
        );
        Failure::new(Kind::NotFound, "no_such_database", message)
    })
}

fn bad_connection(what: &str, error: &ConnectionError) -> Failure {
    let failure = Failure::new(
        Kind::Usage,
        "bad_connection",
        format!("cannot read {what}: {error}"),
    );
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Returns the way to a database's server; none where a value of it is not there.
pub fn connection_of(config: &DatabaseConfig) -> Option<Connection> {
    connection(config).ok()
}

/// Builds the connection out of its keys.
fn connection(config: &DatabaseConfig) -> std::result::Result<Connection, ConnectionError> {
    let keys = &config.connection;
    let mut connection = match &keys.url {
        Some(url) => url.expose_secret().parse::<Connection>()?,
        None => Connection::default(),
    };
    let text = |path: &PathBuf| path.display().to_string();
    let parameters = [
        ("host", keys.host.clone()),
        ("port", keys.port.map(|port| port.to_string())),
        ("user", keys.user.clone()),
        ("dbname", keys.database.clone()),
        ("service", keys.service.clone()),
        ("passfile", keys.passfile.as_ref().map(text)),
        ("sslmode", keys.sslmode.clone()),
        ("sslrootcert", keys.sslrootcert.as_ref().map(text)),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            connection = connection.with_parameter(name, value)?;
        }
    }
    if connection.get("connect_timeout").is_none() {
        connection = connection.with_parameter(
            "connect_timeout",
            config.connect_timeout.as_secs().max(1).to_string(),
        )?;
    }
    match &keys.password {
        Some(password) => connection.with_password(password.clone()),
        None => Ok(connection),
    }
}

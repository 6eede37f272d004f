//! From flags, configuration and environment to what operations need. The only reader of the environment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::actions::Actions;
use super::args::{Global, StorageArgs};
use super::credentials::CredentialCommand;
use super::output::Output;
use pgkeep_core::context::Context;
use pgkeep_core::lock::{StateFolder, host_name};
use pgkeep_core::notify::{Notifiers, secret_forms};
use pgkeep_core::op::lock::LockSettings;
use pgkeep_core::op::stored::{NamedStorage, storage_failure};
use pgkeep_core::postgres::environment::Environment;
use pgkeep_model::config::{
    self, Config, DatabaseConfig, Env, Retention, StorageConfig, StorageUrl,
};
use pgkeep_model::connection::{Connection, ConnectionError};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::lease;
use pgkeep_model::nearest::did_you_mean;
use pgkeep_storage::{Absent, Credentials, S3Environment, S3Options, Storage};

/// Where a configuration is looked for when none is named.
const USUAL_FILES: &[&str] = &["pgkeep.yaml", "/etc/pgkeep/pgkeep.yaml"];

/// Variables by which libpq alone knows the database.
const LIBPQ_PLACES: &[&str] = &["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"];

/// Only for tests: how many milliseconds a lease lives, so that they need not wait for one to die. Runs that share a
/// storage may differ in it, because every lease says how long it lives.
const TEST_LEASE_TTL_MS: &str = "PGKEEP_TEST_LEASE_TTL_MS";

/// Everything a command gets from outside.
pub(super) struct Settings<'a> {
    global: &'a Global,
    output: &'a Output,
    environment: HashMap<OsString, OsString>,
    /// What is to be told of a configuration that others may read; it may be read more than once.
    open_config: OnceLock<String>,
    /// Whether what cannot be used is reported by the operation, and stops nothing before it.
    pub is_check: bool,
}

/// A database to back up, as flags or the configuration say.
pub(super) struct Target {
    pub name: DatabaseName,
    pub config: DatabaseConfig,
    pub connection: Connection,
}

/// The process's own environment and files, for the configuration's `${…}`.
struct ProcessEnv<'a>(&'a HashMap<OsString, OsString>);

impl Env for ProcessEnv<'_> {
    fn var(&self, name: &str) -> Option<String> {
        self.0
            .get(&OsString::from(name))
            .and_then(|value| value.to_str().map(str::to_owned))
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }
}

impl<'a> Settings<'a> {
    pub(super) fn new(global: &'a Global, output: &'a Output) -> Self {
        let environment: HashMap<OsString, OsString> = std::env::vars_os().collect();
        let (known, guessed) = secrets_of_environment(&environment);
        output.log.hide_guessed(&guessed);
        output.log.hide(&known);
        Self {
            global,
            output,
            environment,
            open_config: OnceLock::new(),
            is_check: false,
        }
    }

    /// Returns what a test wants a run to panic with.
    #[cfg(debug_assertions)]
    pub(super) fn words_to_panic_with(&self) -> Option<String> {
        self.var("PGKEEP_TEST_PANIC")
    }

    /// Returns a variable that is set and not empty.
    pub(super) fn var(&self, name: &str) -> Option<String> {
        ProcessEnv(&self.environment)
            .var(name)
            .filter(|value| !value.is_empty())
    }

    /// Returns what client programs may see of the environment.
    pub(super) fn program_environment(&self) -> Environment {
        Environment::new(self.environment.clone())
    }

    /// Returns the PATH.
    pub(super) fn path(&self) -> Option<OsString> {
        self.environment.get(&OsString::from("PATH")).cloned()
    }

    /// Returns how runs lock that wait for each other as long as `wait` says.
    pub(super) fn lock(&self, wait: Duration) -> Result<LockSettings> {
        let ttl = match self.var(TEST_LEASE_TTL_MS) {
            Some(text) => Duration::from_millis(text.parse().map_err(|_| {
                let message = format!("`{TEST_LEASE_TTL_MS}` is no number of milliseconds");
                Failure::new(Kind::Usage, "bad_environment", message)
            })?),
            None => lease::TTL,
        };
        Ok(LockSettings {
            folders: self.state_folders(),
            ttl,
            wait,
        })
    }

    /// Names the folders that may hold the locks of this host, best first. cron, containers and `env -i` have no HOME,
    /// or one that cannot be written to.
    fn state_folders(&self) -> Vec<StateFolder> {
        let own = |path: PathBuf| StateFolder {
            path,
            is_shared: false,
        };
        if let Some(path) = self.path_var("PGKEEP_STATE_DIR") {
            return vec![own(path)];
        }
        // What is not absolute is to be ignored. <https://specifications.freedesktop.org/basedir-spec/latest/>
        let absolute = |name| self.path_var(name).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        let homes = [state, absolute("XDG_RUNTIME_DIR")].into_iter().flatten();
        let user = rustix::process::geteuid().as_raw();
        let temporary = absolute("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"));
        let shared = StateFolder {
            path: temporary.join(format!("pgkeep-{user}")),
            is_shared: true,
        };
        homes
            .map(|home| own(home.join("pgkeep")))
            .chain([shared])
            .collect()
    }

    fn path_var(&self, name: &str) -> Option<PathBuf> {
        let value = self.environment.get(&OsString::from(name))?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    }

    /// Reads the configuration: the named one, or the first of the usual places. None when there is none.
    pub(super) fn config(&self) -> Result<Option<Config>> {
        let path = self.config_path();
        path.map(|path| self.read_config(path)).transpose()
    }

    /// Returns which file is the configuration.
    pub(super) fn config_path(&self) -> Option<&Path> {
        let mut usual = USUAL_FILES.iter().map(Path::new);
        let named = self.global.config.as_deref();
        named.or_else(|| usual.find(|path| path.is_file()))
    }

    /// Reads the configuration, which must be there.
    pub(super) fn config_or_fail(&self) -> Result<Config> {
        self.config()?.ok_or_else(|| {
            let message = "there is no configuration: neither `pgkeep.yaml` here nor `/etc/pgkeep/pgkeep.yaml`";
            Failure::new(Kind::Usage, "no_config", message)
                .hint("`pgkeep config init` writes one; `-c FILE` names another")
        })
    }

    fn read_config(&self, path: &Path) -> Result<Config> {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::new(
                Kind::Usage,
                "cannot_read_config",
                format!("cannot read the configuration `{name}`: {error}"),
            )
        })?;
        let config = config::parse(&text, &ProcessEnv(&self.environment)).map_err(|problems| {
            let count = problems.len();
            let noun = if count == 1 { "problem" } else { "problems" };
            Failure::new(
                Kind::Usage,
                "bad_config",
                format!("{count} {noun} in `{name}`"),
            )
            .with_details(problems.iter().map(ToString::to_string))
        })?;
        let found: Vec<SecretString> = secrets(&config).into_iter().map(Into::into).collect();
        self.output.log.hide(&found);
        self.output.log.configure(&config.log);
        self.warn_of_open_secrets(path, &text, &config);
        Ok(config)
    }

    fn warn_of_open_secrets(&self, path: &Path, text: &str, config: &Config) {
        let mode = fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode());
        if mode & 0o044 == 0
            || !secrets(config)
                .iter()
                .any(|secret| text.contains(secret.as_str()))
        {
            return;
        }
        let name = path.display();
        let text = format!(
            "`{name}` holds a secret and others may read it (mode {:03o}); `chmod 600 {name}`, or put the secret into \
             `password_file` or an environment variable",
            mode & 0o777
        );
        if self.open_config.set(text.clone()).is_ok() && !self.is_check {
            self.output.warning(&text);
        }
    }

    /// Returns what is wrong with who may read the configuration, once it was read.
    pub(super) fn open_config(&self) -> Option<&str> {
        self.open_config.get().map(String::as_str)
    }

    /// Returns the folders of storages that are not there yet: opening one makes it.
    pub(super) fn missing_folders(&self, flags: &StorageArgs) -> Result<Vec<PathBuf>> {
        let config = self.config()?;
        let configured = config.iter().flat_map(|config| &config.storages);
        let configured = configured.map(|(_, storage)| storage.url.clone());
        let named = flags.storages.iter().filter_map(|url| url.parse().ok());
        let folders = named.chain(configured).filter_map(|url| match url {
            StorageUrl::Folder(path) => Some(self.expand_home(&path)),
            StorageUrl::S3 { .. } => None,
        });
        Ok(folders.filter(|path| !path.exists()).collect())
    }

    /// Returns the context with the notifiers of the configuration. Where flags alone say what to do, nobody is told.
    pub(super) fn telling(&self, context: &Context, flags: &StorageArgs) -> Result<Context> {
        if !flags.storages.is_empty() && self.global.config.is_none() {
            return Ok(context.clone());
        }
        let notifiers = self.notifiers(context)?;
        Ok(notifiers.map_or_else(|| context.clone(), |all| context.telling(Arc::new(all))))
    }

    /// Returns the notifiers of the configuration; none where it names none.
    pub(super) fn notifiers(&self, context: &Context) -> Result<Option<Notifiers>> {
        let Some(config) = self.config()?.filter(|config| !config.notify.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Notifiers::new(
            &config.notify,
            &self.output.log.redactor(),
            host_name(),
            Arc::clone(&context.clock),
        )))
    }

    /// Opens the storages that `flags` name, or those of the configuration; `-d` narrows the latter.
    pub(super) fn storages(&self, flags: &StorageArgs) -> Result<Vec<NamedStorage>> {
        if !flags.storages.is_empty() {
            let opened: Result<Vec<Opened>> = flags
                .storages
                .iter()
                .map(|url| self.open_flag(url, flags))
                .collect();
            return self.usable(opened?);
        }
        let config = self.config()?.ok_or_else(no_storage)?;
        let names: Vec<String> = match &self.global.database {
            Some(database) => database_config(&config, database)?.storages.clone(),
            None => config
                .storages
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
        };
        self.open_named(&config, &names)
    }

    /// Opens storages to read from: a folder that is not there is not made.
    pub(super) fn storages_to_read(&self, flags: &StorageArgs) -> Result<Vec<NamedStorage>> {
        let folders = flags.storages.iter().filter(|url| !url.contains("://"));
        for folder in folders {
            let path = self.expand_home(Path::new(folder));
            if flags.storages.len() == 1 && !path.exists() {
                let message = format!("there is no folder `{}`", path.display());
                return Err(Failure::new(Kind::NotFound, "no_such_storage", message));
            }
        }
        self.storages(flags)
    }

    /// Opens storages of the configuration by their names.
    pub(super) fn open_named(
        &self,
        config: &Config,
        names: &[String],
    ) -> Result<Vec<NamedStorage>> {
        if names.is_empty() {
            return Err(no_storage());
        }
        let find = |name: &String| {
            let storage = config
                .storage(name)
                .expect("the configuration was checked for unknown storages");
            self.open(name, storage)
        };
        let opened: Result<Vec<Opened>> = names.iter().map(find).collect();
        self.usable(opened?)
    }

    /// One storage that cannot be used does not stop the others: it says why whenever it is asked. None at all is a failure.
    fn usable(&self, opened: Vec<Opened>) -> Result<Vec<NamedStorage>> {
        let is_any = self.is_check || opened.iter().any(|one| one.opened.is_ok());
        let mut storages = Vec::new();
        for Opened { name, url, opened } in opened {
            let storage = match opened {
                Ok(storage) => storage,
                Err(error) if is_any => Arc::new(Absent::new(url, &error)),
                Err(error) => {
                    return Err(storage_failure(
                        &format!("cannot use the storage `{name}`"),
                        &error,
                    ));
                }
            };
            storages.push(NamedStorage { name, storage });
        }
        Ok(storages)
    }

    fn open_flag(&self, url: &str, flags: &StorageArgs) -> Result<Opened> {
        let bad = |error| {
            Failure::new(
                Kind::Usage,
                "bad_storage",
                format!("cannot use `--storage`: {error}"),
            )
        };
        let mut storage = StorageConfig::new(url.parse::<StorageUrl>().map_err(bad)?);
        storage.endpoint.clone_from(&flags.s3_endpoint);
        storage.region.clone_from(&flags.s3_region);
        let label = storage.url.to_string();
        self.open(&label, &storage)
    }

    fn open(&self, name: &str, config: &StorageConfig) -> Result<Opened> {
        let url = match &config.url {
            StorageUrl::Folder(path) => self.expand_home(path).display().to_string(),
            s3 @ StorageUrl::S3 { .. } => s3.to_string(),
        };
        let opened = pgkeep_storage::open(&url, &self.s3_options(config));
        Ok(Opened {
            name: name.to_owned(),
            url,
            opened,
        })
    }

    fn expand_home(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), self.var("HOME")) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => path.to_owned(),
        }
    }

    fn s3_options(&self, config: &StorageConfig) -> S3Options {
        let credentials = match (&config.access_key_id, &config.secret_access_key) {
            (Some(id), Some(secret)) => Credentials::Keys {
                access_key_id: id.expose_secret().to_owned(),
                secret_access_key: secret.clone(),
                session_token: config.session_token.clone(),
            },
            _ if !config.credential_command.is_empty() => {
                let environment = self.environment.clone().into_iter().collect();
                Credentials::Source(Arc::new(CredentialCommand::new(
                    config.credential_command.clone(),
                    environment,
                )))
            }
            _ => Credentials::Environment,
        };
        S3Options {
            environment: S3Environment::new(self.environment.clone()),
            endpoint: config.endpoint.clone(),
            region: config.region.clone(),
            path_style: config.path_style,
            credentials,
            part_size_bytes: config.part_size_bytes,
            allow_http: config
                .endpoint
                .as_ref()
                .is_some_and(|endpoint| endpoint.starts_with("http://")),
            ca_certificate: config.ca_certificate.clone(),
            ..S3Options::default()
        }
    }

    /// Returns the one database that flags and environment describe, with `defaults`.
    pub(super) fn one_off(
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
        self.output.log.hide(connection.password());
        let name = self.name_of(&connection, name)?;
        Ok(Target {
            name,
            config: defaults,
            connection,
        })
    }

    /// Tells whether the environment describes a database.
    pub(super) fn environment_names_a_database(&self) -> bool {
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
                format!("the database's name cannot stand in keys: {error}")
            };
            Failure::new(Kind::Usage, "name_needed", message)
                .hint("`--name NAME` says what to call it in storage")
        })
    }

    /// Returns the databases of the configuration, or the one that `-d` names.
    pub(super) fn configured(&self, config: &Config) -> Result<Vec<Target>> {
        let all = config
            .databases
            .iter()
            .map(|(name, database)| (name.clone(), database.clone()));
        let chosen: Vec<_> = match &self.global.database {
            Some(wanted) => {
                database_config(config, wanted)?;
                all.filter(|(name, _)| name.as_str() == wanted).collect()
            }
            None => all.collect(),
        };
        chosen
            .into_iter()
            .map(|(name, config)| {
                let what = format!("the connection of `{name}`");
                let connection =
                    connection(&config).map_err(|error| bad_connection(&what, &error))?;
                Ok(Target {
                    name,
                    config,
                    connection,
                })
            })
            .collect()
    }

    /// Tells whether `-d` names a database.
    pub(super) fn names_a_database(&self) -> bool {
        self.global.database.is_some()
    }

    /// Returns the retention policy of the database that `-d` names, or of the only one; none without a configuration
    /// or without a policy in it.
    pub(super) fn retention(&self) -> Result<Option<Retention>> {
        let Some(wanted) = &self.global.database else {
            let Some(config) = self.config()? else {
                return Ok(None);
            };
            let [(_, database)] = config.databases.as_slice() else {
                let message = "the configuration has several databases";
                return Err(Failure::new(Kind::Usage, "database_needed", message)
                    .hint("`-d NAME` says whose retention is meant"));
            };
            return Ok(database.retention.clone());
        };
        let config = self.config_or_fail()?;
        Ok(database_config(&config, wanted)?.retention.clone())
    }

    /// Returns the connection to restore into: a URL or `keyword=value` pairs, or the bare name of a database on the
    /// server that `database` of the configuration, or the environment, names.
    pub(super) fn into(&self, text: &str, database: Option<&str>) -> Result<Connection> {
        if text.contains([':', '/', '=']) {
            let bad = |error| bad_connection("`--into`", &error);
            let connection = text.parse::<Connection>().map_err(bad)?;
            self.output.log.hide(connection.password());
            return Ok(connection);
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
                let message = format!("nobody said on which server `{text}` is");
                return Err(Failure::new(Kind::Usage, "no_server", message).hint(
                    "`--into` takes a URL, too; `-d NAME` names a database of the configuration",
                ));
            }
        };
        server
            .with_database(text)
            .map_err(|error| bad_connection("`--into`", &error))
    }

    /// Reads a password from a file.
    pub(super) fn password_from(&self, path: &Path) -> Result<SecretString> {
        let text = fs::read_to_string(path).map_err(|error| {
            let message = format!(
                "cannot read the password file `{}`: {error}",
                path.display()
            );
            Failure::new(Kind::Usage, "cannot_read_password", message)
        })?;
        let password: SecretString = text.trim_end_matches(['\r', '\n']).to_owned().into();
        self.output.log.hide([&password]);
        Ok(password)
    }

    /// Returns the database that `-d` names, as a key's part.
    pub(super) fn database_name(&self) -> Result<Option<DatabaseName>> {
        let bad = |error| {
            Failure::new(
                Kind::Usage,
                "bad_database",
                format!("cannot use `-d`: {error}"),
            )
        };
        self.global
            .database
            .as_ref()
            .map(|name| name.parse().map_err(bad))
            .transpose()
    }
}

fn database_config<'c>(config: &'c Config, name: &str) -> Result<&'c DatabaseConfig> {
    config.database(name).ok_or_else(|| {
        let known = config.databases.iter().map(|(name, _)| name.as_str());
        let message = format!(
            "the configuration has no database `{name}`{}",
            did_you_mean(name, known)
        );
        Failure::new(Kind::NotFound, "no_such_database", message)
    })
}

/// A storage as it was opened.
struct Opened {
    name: String,
    url: String,
    opened: pgkeep_storage::Result<Arc<dyn Storage>>,
}

fn no_storage() -> Failure {
    Failure::new(Kind::Usage, "no_storage", "nobody said where backups are stored")
        .hint("`--storage ./backups` or `--storage s3://bucket/prefix`, or a configuration (`pgkeep config init`)")
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

/// Variables whose values are secrets, whoever set them.
const SECRET_VARIABLES: [&str; 3] = ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Parts of the names of variables that hold secrets. What is hidden too much does no harm.
const SECRET_NAMES: [&str; 6] = ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"];

/// Returns the secrets of the environment, the passwords of its URLs among them, and every value that may be one by the
/// name of its variable.
fn secrets_of_environment(
    environment: &HashMap<OsString, OsString>,
) -> (Vec<SecretString>, Vec<SecretString>) {
    let (mut known, mut guessed) = (Vec::new(), Vec::new());
    for (name, value) in environment {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        let upper = name.to_uppercase();
        if SECRET_VARIABLES.contains(&name) {
            known.push(value.into());
        } else if SECRET_NAMES.iter().any(|part| upper.contains(part)) {
            guessed.push(value.into());
        } else if value.contains("://") {
            let connection = value.parse::<Connection>().ok();
            known.extend(connection.and_then(|connection| connection.password().cloned()));
        }
    }
    (known, guessed)
}

/// Looks whether GitHub's runner reads along.
pub(super) fn actions() -> Option<Actions> {
    Actions::find(|name| std::env::var_os(name))
}

/// Every secret that stands in the configuration.
fn secrets(config: &Config) -> Vec<String> {
    let databases = config
        .databases
        .iter()
        .map(|(_, database)| &database.connection);
    let passwords = databases.filter_map(|keys| {
        let in_url = keys
            .url
            .as_ref()
            .and_then(|url| url.expose_secret().parse::<Connection>().ok());
        in_url
            .and_then(|connection| connection.password().cloned())
            .or_else(|| keys.password.clone())
    });
    let keys = config.storages.iter().flat_map(|(_, storage)| {
        [
            storage.secret_access_key.clone(),
            storage.session_token.clone(),
        ]
        .into_iter()
        .flatten()
    });
    let notifiers = config.notify.iter().flat_map(secret_forms);
    let drills = config.databases.iter().filter_map(|(_, database)| {
        let url = database.drill.url.as_ref()?;
        let connection = url.expose_secret().parse::<Connection>().ok()?;
        connection.password().cloned()
    });
    passwords
        .chain(keys)
        .chain(notifiers)
        .chain(drills)
        .map(|secret| secret.expose_secret().to_owned())
        .filter(|secret| !secret.is_empty())
        .collect()
}

//! Requests out of the configuration, overrides and the environment: what every front door does before it calls an
//! operation.
//!
//! A front door makes a [`Setup`] once and fills the overrides of a verb; the verb's module makes its request of both.
//! Nothing here prints or reads the process's own environment; what comes to light is handed to the [`Door`].

pub mod accept;
pub mod backup;
mod buckets;
pub mod check;
mod credentials;
mod databases;
pub mod diff;
pub mod drill;
pub mod extract;
mod files;
pub mod flags;
pub mod fleet;
pub mod guard;
pub mod inspect;
mod keys;
pub mod pin;
pub mod prove;
pub mod prune;
pub mod restore;
pub mod retention;
mod secrets;
pub mod status;
mod storages;
pub mod stored;
pub mod sync;
pub mod verify;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::SecretString;

use crate::context::Context;
use crate::lock::{StateFolder, host_name};
use crate::notify::Notifiers;
use crate::op::lock::{Leases, LockSettings};
use crate::postgres::environment::Environment;
use crate::postgres::programs::Search;
use pgkeep_model::config::{self, Config, Env, LeasePlace, Problem};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::lease;
use pgkeep_model::redact::Redactor;

pub use databases::{Target, connection_of};
use secrets::{secrets, secrets_of_environment};
pub use storages::StorageOverrides;

/// Where a configuration is looked for when none is named.
const USUAL_FILES: &[&str] = &["pgkeep.yaml", "/etc/pgkeep/pgkeep.yaml"];

/// Only for tests: how many milliseconds a lease lives, so that they need not wait for one to die. Runs that share a
/// storage may differ in it, because every lease says how long it lives.
const TEST_LEASE_TTL_MS: &str = "PGKEEP_TEST_LEASE_TTL_MS";

/// What a front door does with what comes to light while its settings are read.
pub trait Door: Send + Sync {
    /// Keeps secrets out of every text from now on.
    fn hide(&self, secrets: &[SecretString]);

    /// The same for values that may be secrets by the names they stand under.
    fn hide_guessed(&self, secrets: &[SecretString]);

    /// Returns what takes every secret that is known by now out of a text.
    fn redactor(&self) -> Redactor;

    /// Returns the wish to stop as a failure, where there is one: a named pipe may never be written to.
    fn stopped(&self) -> Option<Failure> {
        None
    }

    /// Is told of the configuration once it is read, and of what is to be warned of in it.
    fn configured(&self, config: &Config, warning: Option<&str>);
}

/// Everything that requests are made of, besides a verb's own overrides.
#[derive(Clone)]
pub struct Setup {
    /// The file that somebody names as the configuration.
    pub named_config: Option<PathBuf>,
    /// The database of the configuration that is meant; all of them where none is named.
    pub database: Option<String>,
    /// The running program, where a shell would not find it as `pgkeep`.
    pub program: Option<PathBuf>,
    /// Whether a storage that cannot be used is reported by the operation, and stops nothing before it.
    pub is_check: bool,
    environment: Arc<HashMap<OsString, OsString>>,
    door: Arc<dyn Door>,
    /// The configuration, read when it is first asked for: many runs need none, and a bad one must not stop them.
    config: Arc<OnceLock<Result<Option<Configured>>>>,
}

/// A configuration as it was read.
#[derive(Clone)]
struct Configured {
    config: Config,
    /// Why nobody can connect to a database of it, or to a drill's server; none where all is there.
    servers: Option<Failure>,
    drills: Option<Failure>,
    /// What is to be told of a configuration that others may read.
    warning: Option<String>,
}

/// An environment and this machine's files, for the configuration's `${…}`.
struct ProcessEnv<'a> {
    variables: &'a HashMap<OsString, OsString>,
    /// Where relative paths of the configuration start.
    folder: PathBuf,
    door: &'a dyn Door,
}

impl Env for ProcessEnv<'_> {
    fn place(&self, path: &Path) -> PathBuf {
        config::placed(path, &self.folder)
    }

    fn var(&self, name: &str) -> Option<String> {
        self.variables
            .get(&OsString::from(name))
            .and_then(|value| value.to_str().map(str::to_owned))
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        files::read_text(path, &|| self.door.stopped().is_some())
    }
}

impl Setup {
    /// Takes the environment and hides its secrets; `door` is told of those that come later, too.
    pub fn new(environment: HashMap<OsString, OsString>, door: Arc<dyn Door>) -> Self {
        let (known, guessed) = secrets_of_environment(&environment);
        door.hide_guessed(&guessed);
        door.hide(&known);
        Self {
            named_config: None,
            database: None,
            program: None,
            is_check: false,
            environment: Arc::new(environment),
            door,
            config: Arc::default(),
        }
    }

    /// Returns the same with another file as its configuration, which is read anew.
    pub fn with_config(&self, path: PathBuf) -> Self {
        Self {
            named_config: Some(path),
            config: Arc::default(),
            ..self.clone()
        }
    }

    /// Returns a variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<String> {
        let value = self.environment.get(&OsString::from(name))?.to_str()?;
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// Returns what client programs may see of the environment.
    pub fn program_environment(&self) -> Environment {
        Environment::new(self.environment.as_ref().clone())
    }

    /// Returns the PATH.
    pub fn path(&self) -> Option<OsString> {
        self.environment.get(&OsString::from("PATH")).cloned()
    }

    /// Returns where programs are looked for: in `bin_dir`, or where the configuration says.
    pub fn search(&self, bin_dir: Option<&Path>) -> Result<Search> {
        let bin_dir = match bin_dir {
            Some(folder) => Some(folder.to_owned()),
            None => self
                .config()?
                .and_then(|config| config.postgres.bin_dir.clone()),
        };
        Ok(Search::new(bin_dir, self.path()))
    }

    /// Returns how runs lock that wait for each other as long as `wait` says.
    pub fn lock(&self, wait: Duration) -> Result<LockSettings> {
        let ttl = match self.var(TEST_LEASE_TTL_MS) {
            Some(text) => Duration::from_millis(text.parse().map_err(|_| {
                let message = format!("`{TEST_LEASE_TTL_MS}` is not a number of milliseconds");
                Failure::new(Kind::Usage, "bad_environment", message)
            })?),
            None => lease::TTL,
        };
        Ok(LockSettings {
            folders: self.state_folders(),
            ttl,
            wait,
            leases: self.leases()?,
        })
    }

    /// The same for a verb that changes what others back up: it locks as the configuration says, also where flags say
    /// everything else. One that cannot be read stops nothing.
    pub fn lock_as_configured(&self, wait: Duration) -> Result<LockSettings> {
        let _ = self.config(); // once it is read, `leases` goes by it
        self.lock(wait)
    }

    /// Returns where leases live: as the configuration says, if it was read. A run that needs none is not stopped by it.
    pub(super) fn leases(&self) -> Result<Leases> {
        let Some(Ok(Some(Configured { config, .. }))) = self.config.get() else {
            return Ok(Leases::Each);
        };
        Ok(match config.lease_place() {
            LeasePlace::EachStorage => Leases::Each,
            LeasePlace::ThisHost => Leases::ThisHost,
            LeasePlace::Storage(name) => Leases::In(self.open_one(config, &name)?),
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

    /// Returns the configuration: the named one, or the first of the usual places. None when there is none.
    pub fn config(&self) -> Result<Option<&Config>> {
        Ok(self.configured_once()?.map(|read| &read.config))
    }

    /// Reads the configuration once: all that a run does goes by one and the same.
    fn configured_once(&self) -> Result<Option<&Configured>> {
        let read = || {
            let path = self.config_path();
            path.map(|path| self.read_config(path)).transpose()
        };
        match self.config.get_or_init(read) {
            Ok(read) => Ok(read.as_ref()),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// Returns which file is the configuration.
    pub fn config_path(&self) -> Option<&Path> {
        let mut usual = USUAL_FILES.iter().map(Path::new);
        let named = self.named_config.as_deref();
        named.or_else(|| usual.find(|path| path.is_file()))
    }

    /// Reads the configuration, which must be there.
    pub fn config_or_fail(&self) -> Result<&Config> {
        self.config()?.ok_or_else(|| {
            let message = "there is no configuration: neither `pgkeep.yaml` here nor `/etc/pgkeep/pgkeep.yaml`";
            Failure::new(Kind::Usage, "no_config", message)
                .hint("`pgkeep config init` writes one; `-c FILE` names another")
        })
    }

    fn read_config(&self, path: &Path) -> Result<Configured> {
        let name = path.display();
        let text = self.read_text(path).map_err(|error| {
            let message = format!("cannot read the configuration `{name}`: {error}");
            self.unread("cannot_read_config", message)
        })?;
        let folder = self.folder_of(path);
        let environment = ProcessEnv {
            variables: &self.environment,
            folder: folder.clone(),
            door: self.door.as_ref(),
        };
        let bad = |problems: Vec<Problem>| {
            let count = problems.len();
            let noun = if count == 1 { "problem" } else { "problems" };
            let message = format!("{count} {noun} in `{name}`");
            Failure::new(Kind::Usage, "bad_config", message)
                .with_details(problems.iter().map(ToString::to_string))
        };
        let read = config::parse_for_storages(&text, &environment);
        let (config, unset) = read.map_err(bad)?;
        let config = config.placed_in(&folder);
        let found: Vec<SecretString> = secrets(&config).into_iter().map(Into::into).collect();
        self.door.hide(&found);
        let warning = warning_of_open_secrets(path, &text, &config);
        self.door.configured(&config, warning.as_deref());
        let bad = |problems: Vec<Problem>| (!problems.is_empty()).then(|| bad(problems));
        Ok(Configured {
            config,
            servers: bad(unset.servers),
            drills: bad(unset.drills),
            warning,
        })
    }

    /// Returns the folder that relative paths of a configuration start in: its own. For one that comes out of a pipe,
    /// and for the read-only copy that systemd makes (`LoadCredential=`), it is the one that we are in.
    fn folder_of(&self, path: &Path) -> PathBuf {
        let credentials = self.path_var("CREDENTIALS_DIRECTORY");
        let folder = path
            .parent()
            .filter(|folder| path.is_file() && !folder.as_os_str().is_empty())
            .filter(|folder| credentials.as_deref() != Some(*folder))
            .unwrap_or(Path::new("."));
        std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
    }

    /// Fails where a database of the configuration cannot be connected to, because a value of its connection is not
    /// there. What works on storages alone does not ask.
    pub fn check_servers(&self) -> Result<()> {
        let read = self.configured_once()?;
        read.and_then(|read| read.servers.clone())
            .map_or(Ok(()), Err)
    }

    /// The same of the servers of drills.
    pub fn check_drills(&self) -> Result<()> {
        let read = self.configured_once()?;
        read.and_then(|read| read.drills.clone())
            .map_or(Ok(()), Err)
    }

    /// Returns what is wrong with who may read the configuration, where it was read.
    pub fn open_config(&self) -> Option<&str> {
        let read = self.config.get()?.as_ref().ok()?.as_ref()?;
        read.warning.as_deref()
    }

    /// Returns the context with the notifiers of the configuration. Where overrides alone say what to do, no notice is
    /// sent.
    pub fn telling(&self, context: &Context, places: &StorageOverrides) -> Result<Context> {
        if !places.storages.is_empty() && self.named_config.is_none() {
            return Ok(context.clone());
        }
        let notifiers = self.notifiers(context)?;
        Ok(notifiers.map_or_else(|| context.clone(), |all| context.telling(Arc::new(all))))
    }

    /// Returns the notifiers of the configuration; none where it names none.
    pub fn notifiers(&self, context: &Context) -> Result<Option<Notifiers>> {
        let Some(config) = self.config()?.filter(|config| !config.notify.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Notifiers::new(
            &config.notify,
            &self.door.redactor(),
            host_name(),
            Arc::clone(&context.clock),
        )))
    }

    /// Reads a password from a file.
    pub fn password_from(&self, path: &Path) -> Result<SecretString> {
        let text = self.read_text(path).map_err(|error| {
            let message = format!(
                "cannot read the password file `{}`: {error}",
                path.display()
            );
            self.unread("cannot_read_password", message)
        })?;
        let password: SecretString = text.trim_end_matches(['\r', '\n']).to_owned().into();
        self.hide(Some(&password));
        Ok(password)
    }

    fn read_text(&self, path: &Path) -> io::Result<String> {
        files::read_text(path, &|| self.door.stopped().is_some())
    }

    /// Makes the failure of a file that could not be read; of one that nobody wanted to wait for, the wish to stop.
    fn unread(&self, id: &'static str, message: String) -> Failure {
        let stopped = self.door.stopped();
        stopped.unwrap_or_else(|| Failure::new(Kind::Usage, id, message))
    }

    /// Keeps a secret out of every text from now on.
    fn hide(&self, secret: Option<&SecretString>) {
        if let Some(secret) = secret {
            self.door.hide(std::slice::from_ref(secret));
        }
    }
}

/// Says what is to be warned of where others may read a secret in the configuration.
fn warning_of_open_secrets(path: &Path, text: &str, config: &Config) -> Option<String> {
    let mode = fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode());
    let holds_secret = || config::holds_any(text, &secrets(config));
    if mode & 0o044 == 0 || !holds_secret() {
        return None;
    }
    let name = path.display();
    Some(format!(
        "`{name}` holds a secret, and other users can read it (mode {:03o}); `chmod 600 {name}`, or put the secret \
         into \
         `password_file` or an environment variable",
        mode & 0o777
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use secrecy::ExposeSecret;

    use super::*;

    /// A front door without a terminal.
    #[derive(Default)]
    struct Page(Mutex<Vec<String>>);

    impl Door for Page {
        fn hide(&self, secrets: &[SecretString]) {
            let secrets = secrets
                .iter()
                .map(|secret| secret.expose_secret().to_owned());
            self.0.lock().unwrap().extend(secrets);
        }

        fn hide_guessed(&self, secrets: &[SecretString]) {
            self.hide(secrets);
        }

        fn redactor(&self) -> Redactor {
            Redactor::default()
        }

        fn configured(&self, _: &Config, _: Option<&str>) {}
    }

    fn requests(page: &Arc<Page>, url: &str, folder: &Path) -> Vec<crate::op::backup::Request> {
        let setup = Setup::new(HashMap::new(), Arc::clone(page) as Arc<dyn Door>);
        let overrides = backup::Overrides {
            url: Some(url.to_owned()),
            storage: StorageOverrides {
                storages: vec![folder.display().to_string()],
                ..StorageOverrides::default()
            },
            stall_timeout: Some("0".to_owned()),
            ..backup::Overrides::default()
        };
        backup::requests(&overrides, &setup).unwrap().0
    }

    #[test]
    fn two_set_ups_in_one_process_do_not_mix() {
        let (one, other) = (Arc::new(Page::default()), Arc::new(Page::default()));
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shop = requests(&one, "postgresql://app:sesame@db/shop", here.path());
        let blog = requests(&other, "postgresql://app:mellon@db/blog", there.path());
        assert_eq!(shop[0].name.as_str(), "shop");
        assert_eq!(blog[0].name.as_str(), "blog");
        assert_eq!(shop[0].stall_timeout, None);
        let hidden = |page: &Page| page.0.lock().unwrap().join(" ");
        assert!(hidden(&one).contains("sesame") && !hidden(&one).contains("mellon"));
        assert!(hidden(&other).contains("mellon") && !hidden(&other).contains("sesame"));
    }
}

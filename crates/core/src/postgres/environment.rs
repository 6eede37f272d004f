//! The environment that PostgreSQL's programs get: an allow list, the connection, and our own settings.
//!
//! A program never gets a variable that it does not need: no S3 key, no encryption key, nothing by accident.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

use secrecy::SecretString;

use pgkeep_model::connection::{self, Connection, Value};
use pgkeep_model::redact::Redactor;

/// What programs may see of our own environment, besides libpq's variables.
///
/// The dynamic linker's are for client programs unpacked into a folder of their own.
const ALLOWED: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PGSYSCONFDIR",
    "PGSERVICEFILE",
    // The old way to ask for encryption; dropping it would be a downgrade.
    "PGREQUIRESSL",
];

/// Where programs are looked for if nobody says: some of them are scripts that need their interpreter.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Session settings that change how values are printed, and that `pg_dump` does not set itself.
///
/// Without them two dumps of equal rows differ and their digests with them.
const SESSION_SETTINGS: &str = "-c bytea_output=hex -c lc_monetary=C -c quote_all_identifiers=off";

/// Variables for a program; its `Debug` shows names only.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Picks what programs may see out of our own environment, which the caller hands in.
    pub fn new(own: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut variables: BTreeMap<_, _> = own
            .into_iter()
            .filter(|(name, _)| is_allowed(name))
            .collect();
        variables
            .entry("PATH".into())
            .or_insert_with(|| DEFAULT_PATH.into());
        // Errors are told apart by their words, so the words must be PostgreSQL's own.
        for name in ["LANG", "LC_ALL", "LC_MESSAGES"] {
            variables.insert(name.into(), "C".into());
        }
        Self { variables }
    }

    /// Returns the environment for one connection.
    ///
    /// What the connection names wins. A place that it names also turns an ambient `PGSERVICE` and `PGHOSTADDR`
    /// off: libpq lets a service file win over the environment, and would connect somewhere else.
    pub fn for_connection(&self, connection: &Connection) -> Self {
        let mut environment = self.clone();
        if connection.names_a_place() {
            for name in ["PGSERVICE", "PGHOSTADDR"] {
                environment.variables.remove(OsStr::new(name));
            }
        }
        for (name, value) in connection.environment() {
            environment.set(name, value.expose());
        }
        environment.set_default("PGAPPNAME", "pgkeep");
        // Without a limit libpq waits for the system's own, which is minutes per address.
        environment.set_default("PGCONNECT_TIMEOUT", "15");
        // Never the ambient one, which is not among those allowed; only a caller who compares a foreign dump sets another.
        environment.set_default("PGTZ", "UTC");
        environment
    }

    /// Adds the session settings that make dumps comparable; a transaction pooler refuses them.
    pub fn with_session_settings(mut self) -> Self {
        let mut options = self
            .variables
            .remove(OsStr::new("PGOPTIONS"))
            .unwrap_or_default();
        options.push(if options.is_empty() { "" } else { " " });
        options.push(SESSION_SETTINGS);
        self.variables.insert("PGOPTIONS".into(), options);
        self
    }

    /// Returns the environment without session settings of any kind, for servers that refuse them.
    pub fn without_session_settings(mut self) -> Self {
        self.variables.remove(OsStr::new("PGOPTIONS"));
        self
    }

    /// Returns the environment without all that is about a connection: for programs that make none.
    pub fn without_connection(mut self) -> Self {
        self.variables.retain(|name, _| {
            let is_language = name == "LANG" || name.to_string_lossy().starts_with("LC_");
            is_language || ALLOWED.iter().any(|allowed| name == *allowed)
        });
        self
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.into(), value.into());
    }

    /// Returns a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
    }

    /// Returns every variable.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Returns a redactor for the password in this environment.
    pub fn redactor(&self) -> Redactor {
        let password = self
            .get("PGPASSWORD")
            .map(|password| SecretString::from(password.to_string_lossy().into_owned()));
        Redactor::new(password.as_ref())
    }

    fn set_default(&mut self, name: &str, value: &str) {
        self.variables
            .entry(name.into())
            .or_insert_with(|| value.into());
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Returns the redactor for a connection's own password.
pub fn redactor(connection: &Connection) -> Redactor {
    Redactor::new(
        connection
            .environment()
            .iter()
            .filter_map(|(_, value)| match value {
                Value::Secret(secret) => Some(secret),
                Value::Plain(_) => None,
            }),
    )
}

fn is_allowed(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    ALLOWED.contains(&name)
        || name.starts_with("KRB5")
        || connection::variables().any(|variable| variable == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(
            pairs
                .iter()
                .map(|(n, v)| (OsString::from(n), OsString::from(v))),
        )
    }

    #[test]
    fn programs_see_only_what_they_need() {
        let environment = own(&[
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("PGKEEP_PASSPHRASE", "x"),
            ("PG_COLOR", "always"),
            ("PGDATESTYLE", "german"),
            ("PGCLIENTENCODING", "LATIN1"),
            ("PGSSLROOTCERT", "/ca"),
            ("KRB5CCNAME", "/tmp/cc"),
            ("LANG", "de_DE.UTF-8"),
            ("LANGUAGE", "de"),
        ]);
        let names: Vec<_> = environment
            .iter()
            .map(|(n, _)| n.to_str().unwrap())
            .collect();
        let expected = [
            "HOME",
            "KRB5CCNAME",
            "LANG",
            "LC_ALL",
            "LC_MESSAGES",
            "PATH",
            "PGSSLROOTCERT",
        ];
        assert_eq!(names, expected);
        assert_eq!(environment.get("LANG"), Some(OsStr::new("C")));
    }

    #[test]
    fn an_empty_environment_still_finds_programs() {
        assert_eq!(own(&[]).get("PATH"), Some(OsStr::new(DEFAULT_PATH)));
    }

    #[test]
    fn a_connection_wins_over_the_ambient_one() {
        let ambient = own(&[
            ("PGSERVICE", "other"),
            ("PGHOST", "other"),
            ("PGPASSWORD", "ambient-pw"),
        ]);
        let connection: Connection = "postgres://u:own-pw@h/d".parse().unwrap();
        let environment = ambient.for_connection(&connection);
        let get = |name: &str| environment.get(name).and_then(OsStr::to_str);
        assert_eq!(get("PGSERVICE"), None);
        assert_eq!(get("PGHOST"), Some("h"));
        assert_eq!(get("PGPASSWORD"), Some("own-pw"));
        assert_eq!(get("PGAPPNAME"), Some("pgkeep"));
        assert_eq!(environment.redactor().redact("x own-pw"), "x ***");
        assert_eq!(redactor(&connection).redact("x own-pw"), "x ***");
        assert!(!format!("{environment:?}").contains("own-pw"));
        let nowhere: Connection = "dbname=d".parse().unwrap();
        assert_eq!(
            ambient.for_connection(&nowhere).get("PGSERVICE"),
            Some(OsStr::new("other"))
        );
    }

    #[test]
    fn session_settings_come_behind_the_users_own() {
        let connection: Connection = "options='-c x=1'".parse().unwrap();
        let environment = own(&[]).for_connection(&connection).with_session_settings();
        let options = environment.get("PGOPTIONS").unwrap().to_str().unwrap();
        assert_eq!(options, format!("-c x=1 {SESSION_SETTINGS}"));
        assert_eq!(
            environment.without_session_settings().get("PGOPTIONS"),
            None
        );
    }
}

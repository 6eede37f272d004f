//! Where runs are told of, and as what: the configuration, and the variables that stand in for what it leaves out.

use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};
use sentry_types::Dsn;
use sentry_types::protocol::v7::MonitorConfig;

use crate::monitor;
use pgkeep_model::config::Config;

/// What the environment says; each counts where the configuration has no such key.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// `SENTRY_DSN`.
    pub dsn: Option<SecretString>,
    /// `SENTRY_ENVIRONMENT`.
    pub environment: Option<String>,
}

/// A project of Sentry, and what is told with everything.
pub(crate) struct Target {
    pub(crate) dsn: Dsn,
    pub(crate) environment: Option<String>,
    pub(crate) release: String,
    /// The schedules of the configuration, by database and verb.
    monitors: HashMap<(String, &'static str), MonitorConfig>,
}

impl Target {
    /// Puts the target together; none where nothing names one. The error says why a DSN is none, without showing it.
    pub(crate) fn new(
        config: Option<&Config>,
        variables: &Variables,
    ) -> Result<Option<Self>, String> {
        let keys = config.map(|config| &config.sentry);
        let given = keys.and_then(|keys| keys.dsn.as_ref());
        let (dsn, named) = match (given, &variables.dsn) {
            (Some(dsn), _) => (dsn, "`sentry.dsn`"),
            (None, Some(dsn)) => (dsn, "`SENTRY_DSN`"),
            (None, None) => return Ok(None),
        };
        let dsn = dsn.expose_secret().parse::<Dsn>();
        let environment = keys.and_then(|keys| keys.environment.clone());
        let release = keys.and_then(|keys| keys.release.clone());
        Ok(Some(Self {
            dsn: dsn.map_err(|error| format!("{named} is not a DSN of Sentry: {error}"))?,
            environment: environment.or_else(|| variables.environment.clone()),
            release: release.unwrap_or_else(|| format!("pgkeep@{}", env!("CARGO_PKG_VERSION"))),
            monitors: config.map(monitor::all).unwrap_or_default(),
        }))
    }

    /// Returns the schedule that a run belongs to.
    pub(crate) fn monitor(&self, database: &str, verb: &str) -> Option<&MonitorConfig> {
        let found = self
            .monitors
            .iter()
            .find(|((name, of), _)| name == database && *of == verb);
        found.map(|(_, monitor)| monitor)
    }

    /// Names the project without its key.
    pub(crate) fn label(&self) -> String {
        format!("project {} at {}", self.dsn.project_id(), self.dsn.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dsn: &str) -> Result<Option<Target>, String> {
        let variables = Variables {
            dsn: Some(dsn.into()),
            environment: Some("staging".to_owned()),
        };
        Target::new(None, &variables)
    }

    #[test]
    fn a_dsn_of_the_environment_is_taken() {
        let found = target("https://public@sentry.example/42").unwrap().unwrap();
        assert_eq!(found.label(), "project 42 at sentry.example");
        assert_eq!(found.environment.as_deref(), Some("staging"));
        assert!(found.release.starts_with("pgkeep@"), "{}", found.release);
        assert!(Target::new(None, &Variables::default()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_dsn_is_not_shown() {
        for bad in [
            "sesame",
            "https://sentry.example/42",
            "https://sesame@sentry.example/",
            "ftp://sesame@sentry.example/42",
        ] {
            let why = target(bad).err().unwrap();
            assert!(why.starts_with("`SENTRY_DSN` is not a DSN"), "{why}");
            assert!(!why.contains("sesame"), "{why}");
        }
    }
}

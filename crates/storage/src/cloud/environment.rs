//! What the environment says about clouds, in the variables that their own tools read. Read by the front door, handed in.

use std::ffi::OsString;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// What the names of the variables begin with.
const PREFIXES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// Further ones: where the login of `gcloud` lies, and how App Service and Azurite tell their addresses.
const NAMES: [&str; 4] = [
    "AZURITE_BLOB_STORAGE_URL",
    "CLOUDSDK_CONFIG",
    "HOME",
    "IDENTITY_ENDPOINT",
];

/// Variables about clouds. Its `Debug` shows names only.
#[derive(Clone, Default)]
pub struct CloudEnvironment {
    variables: Vec<(String, SecretString)>,
}

impl CloudEnvironment {
    /// Picks the variables of clouds out of an environment, which the caller hands in. An empty one counts as not set.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let pick = |(name, value): (OsString, OsString)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let is_ours = PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || NAMES.contains(&name.as_str());
            (is_ours && !value.is_empty()).then(|| (name, value.into()))
        };
        let mut variables: Vec<_> = variables.into_iter().filter_map(pick).collect();
        // Some have two names; the same one must win each time.
        variables.sort_by(|(a, _): &(String, SecretString), (b, _)| a.cmp(b));
        Self { variables }
    }

    /// Returns a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.expose_secret())
    }

    /// Returns the first of these variables that is set, and its name.
    pub(crate) fn first<'a>(&'a self, names: &[&'a str]) -> Option<(&'a str, &'a str)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// Tells whether a variable says yes.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes")
        })
    }

    /// Returns the variables with this prefix, in the order of their names.
    pub(crate) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.variables
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.expose_secret()))
    }
}

impl fmt::Debug for CloudEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.variables.iter().map(|(name, _)| name);
        f.debug_set().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_what_is_about_clouds_and_shows_no_value() {
        let variables = [
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "hunter2"),
            ("GOOGLE_BEARER_TOKEN", "hunter2"),
            ("AWS_SESSION_TOKEN", ""),
            ("HOME", "/root"),
            ("PATH", "/bin"),
        ];
        let environment =
            CloudEnvironment::new(variables.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(environment.variables.len(), 4);
        assert_eq!(environment.get("GOOGLE_BEARER_TOKEN"), Some("hunter2"));
        assert_eq!(environment.get("PATH"), None);
        assert_eq!(environment.get("AWS_SESSION_TOKEN"), None);
        assert!(!format!("{environment:?}").contains("hunter2"));
    }
}

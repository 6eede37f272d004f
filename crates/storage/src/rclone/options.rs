//! What a storage of rclone is started with: the program, its environment, and how long it may stand still.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pgkeep_model::redact::Redactor;
use secrecy::SecretString;

/// What rclone may see of our own environment beside its own variables: where things are, who we are, proxies,
/// certificates, the agent that holds SSH keys.
const ALLOWED: [&str; 20] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TZ",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "LD_LIBRARY_PATH",
];

/// What the names of rclone's own variables begin with.
const PREFIX: &str = "RCLONE_";

/// Settings of rclone that would hide objects or keep a command from doing what it is asked to, without [`PREFIX`]. See
/// <https://rclone.org/filtering/>.
const UNWANTED: [&str; 23] = [
    "BACKUP_DIR",
    "DRY_RUN",
    "EXCLUDE",
    "EXCLUDE_FROM",
    "EXCLUDE_IF_PRESENT",
    "FILES_FROM",
    "FILES_FROM_RAW",
    "FILTER",
    "FILTER_FROM",
    "HASH_FILTER",
    "IGNORE_CASE",
    "IGNORE_EXISTING",
    "INCLUDE",
    "INCLUDE_FROM",
    "INTERACTIVE",
    "LOG_FILE",
    "MAX_AGE",
    "MAX_DEPTH",
    "MAX_SIZE",
    "MAX_TRANSFER",
    "MIN_AGE",
    "MIN_SIZE",
    "SUFFIX",
];

/// Where the program is looked for if nobody says.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How long rclone may move nothing. It gives up a dead connection by itself after a minute, and tries again.
const STALL_TIMEOUT: Duration = Duration::from_secs(180);

/// How a storage of rclone is reached. Its `Debug` shows names of variables only.
#[derive(Clone)]
pub struct RcloneOptions {
    /// The program; looked for in the PATH of the environment.
    pub program: PathBuf,
    /// How long it may move nothing before it is ended.
    pub stall_timeout: Duration,
    environment: Vec<(OsString, OsString)>,
}

impl Default for RcloneOptions {
    fn default() -> Self {
        Self::new([])
    }
}

impl RcloneOptions {
    /// Picks what rclone may see out of our own environment, which the caller hands in.
    pub fn new(own: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let is_allowed = |name: &OsStr| {
            let shown = name.to_string_lossy();
            match shown.strip_prefix(PREFIX) {
                Some(setting) => !UNWANTED.contains(&setting),
                None => ALLOWED.iter().any(|allowed| name == *allowed),
            }
        };
        let mut environment: Vec<(OsString, OsString)> = own
            .into_iter()
            .filter(|(name, _)| is_allowed(name))
            .collect();
        if !environment.iter().any(|(name, _)| name == "PATH") {
            environment.push(("PATH".into(), DEFAULT_PATH.into()));
        }
        environment.sort();
        Self {
            program: "rclone".into(),
            stall_timeout: STALL_TIMEOUT,
            environment,
        }
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.environment
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Makes a redactor for what may be a secret in rclone's own variables.
    pub(super) fn redactor(&self) -> Redactor {
        const SECRET: [&str; 4] = ["PASS", "SECRET", "TOKEN", "KEY"];
        let is_secret = |name: &str| {
            name.starts_with(PREFIX)
                && SECRET.iter().any(|part| name.contains(part))
                && !name.ends_with("_FILE")
        };
        let secrets: Vec<SecretString> = self
            .environment
            .iter()
            .filter(|(name, _)| is_secret(&name.to_string_lossy()))
            .map(|(_, value)| value.to_string_lossy().into_owned().into())
            .collect();
        Redactor::new(&secrets)
    }
}

impl fmt::Debug for RcloneOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.environment.iter().map(|(name, _)| name);
        f.debug_set().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_what_rclone_needs_and_shows_no_value() {
        let own = [
            ("RCLONE_SFTP_PASS", "hunter2"),
            ("RCLONE_CONFIG", "/etc/rclone.conf"),
            ("RCLONE_MAX_DEPTH", "1"),
            ("RCLONE_EXCLUDE", "*.json"),
            ("HOME", "/root"),
            ("PGPASSWORD", "hunter2"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ];
        let options = RcloneOptions::new(own.map(|(name, value)| (name.into(), value.into())));
        let names: Vec<_> = options.environment().map(|(name, _)| name).collect();
        assert_eq!(names, ["HOME", "PATH", "RCLONE_CONFIG", "RCLONE_SFTP_PASS"]);
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(options.redactor().redact("got hunter2"), "got ***");
    }
}

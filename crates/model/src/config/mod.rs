//! The config file: its grammar, its meaning, and what it looks like to editors and operators.
//!
//! Promises that a file is taken whole or refused with all of its problems at once, each with its line; nothing
//! is guessed and no unset variable becomes an empty value. Reads no file and no environment by itself.

mod anomaly;
mod buckets;
mod callers;
mod check;
mod drill;
mod expand;
mod jobs;
mod keys;
mod limits;
mod notify;
mod placed;
mod read;
mod reader;
mod schema;
mod section;
mod server;
mod setting;
mod show;
mod shown;
#[cfg(test)]
mod tests;
mod tree;
mod types;
mod url;
mod values;

use std::fmt;

use crate::redact::percent_decoded;

pub use callers::{Network, ServerRole};
pub use expand::{Env, NoEnv};
pub use jobs::Jobs;
pub use limits::Limits;
pub use placed::placed;
pub use reader::{parse_duration, parse_duration_or_off, parse_span, parse_timezone};
pub use schema::config_schema;
pub use types::{
    Anomaly, Compression, CompressionMethod, Config, Connection, CronConfig, DatabaseConfig,
    DrillConfig, Encryption, KeepPreDeploy, LeasePlace, LockConfig, LogConfig, PostgresConfig,
    Preset, RequiredTable, Retention, Retries, SentryConfig, ServerConfig, StorageConfig,
    StorageUrl, TableBars, TokenConfig, VerifyConfig,
};
pub use url::redact as redact_connection_url;

/// The commented config with every key, as `pgkeep config init` writes it.
pub const EXAMPLE: &str = include_str!("../../../../config.example.yaml");

/// One thing that is wrong with a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, from 1.
    pub line: u64,
    /// What is wrong: lower case, no full stop, never with the value of a variable or secret file in it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// Reads a config, or tells all that is wrong with it in the order of its lines.
///
/// Text that is no YAML gives its first problem alone, for what stands behind it cannot be told. The list of
/// problems is never empty.
pub fn parse(text: &str, env: &dyn Env) -> Result<Config, Vec<Problem>> {
    let (config, unset) = parse_for_storages(text, env)?;
    match unset.and(Vec::new()) {
        problems if problems.is_empty() => Ok(config),
        problems => Err(problems),
    }
}

/// Reads a config for somebody who may need no server: a value of a connection that is not there is no problem until
/// somebody connects. Everything else is as in [`parse`].
pub fn parse_for_storages(text: &str, env: &dyn Env) -> Result<(Config, Unset), Vec<Problem>> {
    let root = tree::parse(text).map_err(|problem| vec![problem])?;
    read::config(&root, env)
}

/// Tells whether one of these secrets stands in the text itself, as it is or as a URL spells it.
pub fn holds_any(text: &str, secrets: &[String]) -> bool {
    tree::parse(text).is_ok_and(|root| {
        root.holds(&|scalar| {
            let spelt = percent_decoded(scalar);
            let mut secrets = secrets.iter();
            secrets.any(|secret| scalar.contains(secret) || spelt.contains(secret))
        })
    })
}

/// Values of connections that are not there: variables that are not set, files that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unset {
    /// Of databases.
    pub servers: Vec<Problem>,
    /// Of the servers of drills.
    pub drills: Vec<Problem>,
}

impl Unset {
    /// Puts them among other problems, in the order of their lines.
    fn and(self, mut problems: Vec<Problem>) -> Vec<Problem> {
        problems.extend(self.servers);
        problems.extend(self.drills);
        problems.sort_by_key(|problem| problem.line);
        problems
    }
}

/// Entry for a fuzzer: reads any bytes with an empty environment and checks what [`parse`] promises.
///
/// Panics where a promise is broken.
pub fn fuzz(data: &[u8]) {
    match parse(&String::from_utf8_lossy(data), &NoEnv) {
        Ok(config) => {
            let shown = config.effective_yaml();
            let again = parse(&shown, &NoEnv).expect("what is shown can be read");
            assert_eq!(
                again.effective(),
                config.effective(),
                "what is shown means the same"
            );
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal has a reason");
            assert!(
                problems.is_sorted_by_key(|problem| problem.line),
                "problems are in order"
            );
            assert!(
                problems.iter().all(|problem| problem.line > 0),
                "every problem has a line"
            );
        }
    }
}

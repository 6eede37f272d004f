//! What `check` is to look at.

use std::path::PathBuf;

use async_trait::async_trait;

use super::backup::{self, requests};
use super::{Setup, StorageOverrides};
use crate::context::Context;
use crate::notify::{NOT_TRIED, Notifiers};
use crate::op::check::{Checked, Line, Probe, Request, Verdict};
use crate::tracker::Place;
use pgkeep_model::config::Preset;
use pgkeep_model::failure::Result;

/// Id of the failure that says that no database is named.
const NO_DATABASE: &str = "no_database";

/// What is to be said where the configuration names a DSN in vain, and how to get a binary that can use it.
pub const NOT_BUILT: &str =
    "`sentry` in the configuration has no effect: this pgkeep was built without it";
const HOW_TO_BUILD: &str =
    "released binaries have it; `cargo build --features sentry` builds one that has";

/// Where to look for a good DSN.
const DSN: &str =
    "Sentry shows it under Settings, Projects, Client Keys: `https://KEY@HOST/PROJECT`";

/// What is looked at, and how.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// A warning fails the run.
    pub strict: bool,
    /// Write a small object also where it will have to stay.
    pub write: bool,
    /// Send a test to everyone whom the configuration tells of runs.
    pub send_test: bool,
    /// Connection to the database.
    pub url: Option<String>,
    /// What it is called in storage.
    pub name: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Rules of a hosting service.
    pub preset: Option<Preset>,
    /// Tables that must be there.
    pub required: Vec<String>,
    /// Folder of the PostgreSQL programs.
    pub bin_dir: Option<PathBuf>,
    /// Where backups go.
    pub storage: StorageOverrides,
}

/// Returns the request to look.
pub fn request(overrides: &Overrides, setup: &Setup, context: &Context) -> Result<Request> {
    let config = setup.config()?;
    let backup = backup::Overrides {
        url: overrides.url.clone(),
        name: overrides.name.clone(),
        password_file: overrides.password_file.clone(),
        required: overrides.required.clone(),
        preset: overrides.preset,
        bin_dir: overrides.bin_dir.clone(),
        storage: overrides.storage.clone(),
        ..backup::Overrides::default()
    };
    let backups = match requests(&backup, setup) {
        // Storages alone can be looked at, too.
        Err(failure) if failure.id == NO_DATABASE && !overrides.storage.storages.is_empty() => {
            Vec::new()
        }
        other => other?.0,
    };
    let database = |backup: crate::op::backup::Request| {
        let own = config.as_ref().map(|config| {
            let found = config.database(backup.name.as_str());
            found.unwrap_or(&config.defaults)
        });
        Checked {
            max_age: own.and_then(|own| own.max_age),
            has_drill_server: own.is_some_and(|own| own.drill.url.is_some()),
            backup,
        }
    };
    Ok(Request {
        databases: backups.into_iter().map(database).collect(),
        storages: setup.storages(&overrides.storage)?,
        known: configuration(setup),
        probes: vec![
            Box::new(Told {
                names: config
                    .iter()
                    .flat_map(|config| &config.notify)
                    .map(|one| one.kind().to_owned())
                    .collect(),
                notifiers: setup.notifiers(context)?.filter(|_| overrides.send_test),
            }),
            Box::new(Errors {
                is_configured: config.is_some_and(|config| config.sentry.dsn.is_some()),
                send_test: overrides.send_test,
            }),
        ],
        search: setup.search(overrides.bin_dir.as_deref())?,
        environment: setup.program_environment(),
        strict: overrides.strict,
        write: overrides.write,
        leases: setup.leases()?,
    })
}

/// Whom the configuration tells of runs.
struct Told {
    names: Vec<String>,
    /// Where a test is to be sent.
    notifiers: Option<Notifiers>,
}

#[async_trait]
impl Probe for Told {
    async fn look(&self, context: &Context) -> Vec<Line> {
        let line =
            |subject: &str, verdict, message: &str| Line::new(subject, "notice", verdict, message);
        if self.names.is_empty() {
            let message = "no notices are configured";
            let hint =
                "`notify:` in the configuration names e-mail, Slack, Discord, a webhook or a ping";
            return vec![line("notices", Verdict::Skipped, message).hint(hint)];
        }
        let Some(notifiers) = &self.notifiers else {
            let message = format!("not tried: {}", self.names.join(", "));
            let hint = "`--send-test` sends a test to each";
            return vec![line("notices", Verdict::Skipped, &message).hint(hint)];
        };
        let sent = notifiers.send_test(&context.stop).await;
        let lines = sent
            .into_iter()
            .map(|sent| match (sent.delivered, sent.error) {
                (true, None) => line(&sent.notifier, Verdict::Ok, "it accepted a test notice"),
                (true, Some(why)) => {
                    let why = format!("a test notice did not reach every recipient: {why}");
                    line(&sent.notifier, Verdict::Warn, &why)
                }
                (false, Some(why)) if why.starts_with(NOT_TRIED) => {
                    line(&sent.notifier, Verdict::Skipped, &why)
                }
                (false, why) => {
                    let why = why.unwrap_or_default();
                    line(
                        &sent.notifier,
                        Verdict::Warn,
                        &format!("a test notice did not arrive: {why}"),
                    )
                }
            });
        lines.collect()
    }
}

/// Where errors are tracked, as far as anybody wants that.
struct Errors {
    is_configured: bool,
    send_test: bool,
}

#[async_trait]
impl Probe for Errors {
    async fn look(&self, context: &Context) -> Vec<Line> {
        let line = |verdict, message: &str| Line::new("sentry", "notice", verdict, message);
        let label = match context.tracker.place() {
            Place::NotBuilt if self.is_configured => {
                return vec![line(Verdict::Warn, NOT_BUILT).hint(HOW_TO_BUILD)];
            }
            Place::NotBuilt | Place::Nowhere => return Vec::new(),
            Place::Bad(why) => {
                let message = format!("nothing is sent: {why}");
                return vec![line(Verdict::Warn, &message).hint(DSN)];
            }
            Place::At(label) => label,
        };
        if !self.send_test {
            let message = format!("not tried: {label}");
            return vec![line(Verdict::Skipped, &message).hint("`--send-test` sends a test event")];
        }
        vec![match context.tracker.test().await {
            Ok(()) => line(Verdict::Ok, &format!("{label} accepted a test event")),
            Err(why) => {
                let message = format!("a test event did not arrive: {why}");
                line(Verdict::Warn, &message).hint(DSN)
            }
        }]
    }
}

/// What was found out by reading the configuration.
fn configuration(setup: &Setup) -> Vec<Line> {
    let line =
        |verdict, message: &str| Line::new("configuration", "configuration", verdict, message);
    let Some(path) = setup.config_path() else {
        return vec![line(Verdict::Skipped, "there is none")];
    };
    vec![match setup.open_config() {
        Some(text) => line(Verdict::Warn, text),
        None => line(Verdict::Ok, &format!("`{}`", path.display())),
    }]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn what_this_program_cannot_track_is_a_warning_where_it_is_wanted() {
        let context = Context::new(Arc::new(SystemClock));
        for (is_configured, count) in [(true, 1), (false, 0)] {
            let errors = Errors {
                is_configured,
                send_test: true,
            };
            let lines = errors.look(&context).await;
            assert_eq!(lines.len(), count);
            assert!(lines.iter().all(|line| line.verdict == Verdict::Warn));
        }
    }
}

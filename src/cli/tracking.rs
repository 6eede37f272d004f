//! Who tracks the runs of this process: Sentry, where pgkeep was built with it, and else nobody.
//!
//! The only place that knows of the feature. A run that failed is told by the command that knows its database; what
//! failed before there was such a run is told here, once, at the end.

use std::sync::Arc;

use super::commands::Command;
use pgkeep_core::clock::Clock;
use pgkeep_core::context::Context;
use pgkeep_core::log::Secrets;
use pgkeep_core::op::slot;
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::check::NOT_BUILT;
use pgkeep_core::tracker::{Place, Tracked, Tracker};
use pgkeep_model::config::Config;
use pgkeep_model::failure::Failure;
use pgkeep_model::id::BackupId;

#[cfg(feature = "sentry")]
pub(super) use with_sentry::Tracking;
#[cfg(not(feature = "sentry"))]
pub(super) use without::Tracking;

#[cfg(feature = "sentry")]
mod with_sentry {
    use super::{Arc, Clock, Config, Secrets, Tracker};
    use pgkeep_sentry::{Sentry, Variables};

    /// Sentry; clones are the same.
    #[derive(Clone)]
    pub(in crate::cli) struct Tracking(Arc<Sentry>);

    impl Tracking {
        /// Goes by the environment, which `var` reads, until a configuration is known.
        pub fn new(
            secrets: Secrets,
            clock: &Arc<dyn Clock>,
            var: impl Fn(&str) -> Option<String>,
        ) -> Self {
            let variables = Variables {
                dsn: var("SENTRY_DSN").map(Into::into),
                environment: var("SENTRY_ENVIRONMENT"),
            };
            Self(Arc::new(Sentry::new(secrets, Arc::clone(clock), variables)))
        }

        /// Goes by a configuration.
        pub fn configure(&self, config: &Config) {
            self.0.configure(config);
        }

        /// Returns who tracks runs.
        pub fn tracker(&self) -> Arc<dyn Tracker> {
            Arc::<Sentry>::clone(&self.0)
        }
    }
}

#[cfg(not(feature = "sentry"))]
mod without {
    use super::{Arc, Clock, Config, Secrets, Tracker};
    use pgkeep_core::tracker::Untracked;

    /// Nobody.
    #[derive(Clone)]
    pub(in crate::cli) struct Tracking;

    impl Tracking {
        /// Has no use for any of it.
        pub fn new(_: Secrets, _: &Arc<dyn Clock>, _: impl Fn(&str) -> Option<String>) -> Self {
            Self
        }

        /// Does nothing.
        pub fn configure(&self, _: &Config) {}

        /// Returns who tracks runs.
        pub fn tracker(&self) -> Arc<dyn Tracker> {
            Arc::new(Untracked)
        }
    }
}

/// Says what keeps runs from being tracked as the configuration wants; none where all is well.
pub(super) fn warning(tracker: &dyn Tracker, config: &Config) -> Option<String> {
    match tracker.place() {
        Place::NotBuilt if config.sentry.dsn.is_some() => Some(NOT_BUILT.to_owned()),
        Place::Bad(why) => Some(format!("Sentry hears of nothing: {why}")),
        Place::NotBuilt | Place::Nowhere | Place::At(_) => None,
    }
}

/// Tells of a failure that no run has told of: the set-up was wrong, or pgkeep itself.
pub(super) async fn tell_rest(
    command: &Command,
    failure: &Failure,
    setup: &Setup,
    context: &Context,
) {
    let Some((verb, what)) = command.tracked() else {
        return;
    };
    if context.tracker.heard_of_failure() {
        return;
    }
    let backup = what.and_then(|what| what.parse::<BackupId>().ok());
    let of_backup = backup.as_ref().map(|id| id.database().to_string());
    let database = of_backup
        .or_else(|| setup.database.clone())
        .or_else(|| only_database(setup));
    let backup_id = backup.map(|id| id.to_string());
    let tracked = Tracked {
        verb,
        database: database.as_deref(),
        backup_id: backup_id.as_deref(),
        is_scheduled: false,
        slot: None,
    };
    slot::tell_end(&tracked, Some(failure), context).await;
}

/// Returns the database that is meant where the configuration has no other.
fn only_database(setup: &Setup) -> Option<String> {
    match setup.config().ok()??.databases.as_slice() {
        [(name, _)] => Some(name.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_core::tracker::Untracked;

    #[test]
    fn a_configuration_that_wants_what_is_not_there_is_warned_of() {
        let mut config = Config::default();
        assert_eq!(warning(&Untracked, &config), None);
        config.sentry.dsn = Some("https://key@sentry.example/42".into());
        assert_eq!(warning(&Untracked, &config).as_deref(), Some(NOT_BUILT));
    }
}

//! What `status` is to look at, and whom it tells.

use jiff::Timestamp;

use super::flags::duration;
use super::{Setup, StorageOverrides};
use crate::context::Context;
use crate::op::status::{Request, Watched};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::notice::Event;

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// How old the newest good backup may be.
    pub max_age: Option<String>,
    /// Where to look.
    pub storage: StorageOverrides,
}

/// Returns the names of the configured databases that are meant.
pub fn names(setup: &Setup) -> Result<Vec<DatabaseName>> {
    let targets = match setup.config()? {
        Some(config) => setup.sections(config)?,
        None => Vec::new(),
    };
    Ok(targets.into_iter().map(|(name, _)| name).collect())
}

/// Returns the context with whom to tell; somebody must want to hear of it.
pub fn telling(overrides: &Overrides, setup: &Setup, context: &Context) -> Result<Context> {
    let context_of_config = setup.telling(context, &overrides.storage)?;
    let is_anybody = setup
        .notifiers(context)?
        .is_some_and(|all| all.hears(Event::Stale));
    if is_anybody {
        return Ok(context_of_config);
    }
    let message = "cannot use `--notify`: no notifier of the configuration asks for `stale`";
    Err(Failure::new(Kind::Usage, "nobody_to_tell", message)
        .hint("`on: [failure, stale]` in an entry of `notify` asks for it"))
}

/// Returns the request to judge at a time.
pub fn request(overrides: &Overrides, setup: &Setup, now: Timestamp) -> Result<Request> {
    let max_age = duration("--max-age", overrides.max_age.as_deref())?;
    let config = if overrides.storage.storages.is_empty() {
        setup.config()?
    } else {
        None
    };
    let databases = match config {
        Some(config) => {
            let sections = setup.sections(config)?.into_iter();
            let watched = sections.map(|(name, section)| Watched {
                name,
                // A flag says what is wanted now.
                max_age: max_age.or(section.max_age),
                retention: section.retention,
                storages: section.storages,
                copies: section.copies,
                is_found: false,
                is_drill_expected: section.drill.is_set(),
                drill_max_age: section.drill.max_age,
            });
            Some(watched.collect())
        }
        None => setup.database_name()?.map(|name| {
            vec![Watched {
                name,
                max_age,
                retention: None,
                storages: Vec::new(),
                copies: None,
                is_found: false,
                is_drill_expected: false,
                drill_max_age: None,
            }]
        }),
    };
    Ok(Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        databases,
        max_age,
        now,
    })
}

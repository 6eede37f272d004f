//! What `accept` is to do.

use super::backup::bad_name;
use super::{Setup, StorageOverrides};
use crate::copies::listing::Wanted;
use crate::lock::host_name;
use crate::op::accept::{Request, by};
use pgkeep_model::failure::{Failure, Kind, Result};

/// Variables that tell who is logged in: those of `sudo` first, for the person behind it.
const USER_VARIABLES: [&str; 3] = ["SUDO_USER", "USER", "LOGNAME"];

/// Which backup, for whom, and where to look.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of the backup, or `latest`.
    pub id: String,
    /// Why it is the new normal.
    pub reason: String,
    /// The tables that it may be held for; none accepts whatever it is.
    pub tables: Vec<String>,
    /// Accept every older backup of the database that is held, too.
    pub and_older: bool,
    /// Where to look.
    pub storage: StorageOverrides,
}

/// Returns the request to accept a backup.
pub fn request(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    let reason = overrides.reason.trim();
    if reason.is_empty() {
        let message = "accepting a backup needs a reason, for anyone who finds it later";
        return Err(Failure::new(Kind::Usage, "reason_needed", message)
            .hint("`pgkeep accept ID 'the old orders were archived'`"));
    }
    let table = |text: &String| text.parse().map_err(|error| bad_name("--table", &error));
    let user = USER_VARIABLES.iter().find_map(|name| setup.var(name));
    Ok(Request {
        storages: setup.storages_to_read(&overrides.storage)?,
        database: setup.database_name()?,
        wanted: Wanted::parse(&overrides.id)?,
        by: by(user.as_deref(), &host_name()),
        reason: reason.to_owned(),
        and_older: overrides.and_older,
        tables: overrides.tables.iter().map(table).collect::<Result<_>>()?,
    })
}

//! What happens during an operation, for the one who shows it: a terminal now, another front door as well.
//!
//! One event type and one observer serve every operation. An event only borrows, so watching costs a run nothing.

use std::sync::Arc;
use std::time::Duration;

use super::backup::report::Report as BackupReport;
use super::verify::report::CopyReport;
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::Failure;
use pgkeep_model::id::BackupId;

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Another run of the database has the lock.
    Waiting {
        /// Whom the run waits for, in words.
        text: &'a str,
    },
    /// An attempt to make a backup begins.
    Connecting,
    /// The dump begins.
    Dumping {
        /// How far it has come, from now on.
        progress: &'a Arc<Progress>,
        /// The server's own estimate of the bytes of all tables.
        estimated_bytes: u64,
        /// Tables that have rows of their own.
        tables: u64,
    },
    /// The dump is proven; the storages finish.
    Storing,
    /// The attempt failed, and another follows.
    Retrying {
        /// How many attempts failed until now.
        attempt: u32,
        /// Why.
        failure: &'a Failure,
        /// When.
        delay: Duration,
    },
    /// A dump is read once to prove it, before anything is touched.
    Reading {
        /// How far it has come.
        progress: &'a Arc<Progress>,
    },
    /// The dump goes to the server.
    Restoring {
        /// How far it has come.
        progress: &'a Arc<Progress>,
        /// Length of the dump, where it is known.
        bytes: u64,
        /// Tables with rows, where it is known.
        tables: u64,
    },
    /// The restored database is read again and compared.
    Comparing {
        /// How far it has come.
        progress: &'a Arc<Progress>,
        /// Length of the dump.
        bytes: u64,
        /// Tables with rows.
        tables: u64,
    },
    /// Copies go from storage to storage.
    Copying {
        /// How far they have come.
        progress: &'a Arc<Progress>,
        /// How many bytes they have in all.
        bytes: u64,
    },
    /// A stage of a restore, or of a sync, ended.
    Ended,
    /// A stored copy is read to verify it.
    Verifying {
        /// The backup.
        id: &'a BackupId,
        /// The storage.
        storage: &'a str,
        /// Size that the copy should have.
        size_bytes: u64,
        /// How far it has come, from now on.
        progress: &'a Arc<Progress>,
        /// Whether it is read once more because the first reading found something.
        is_again: bool,
    },
    /// A copy is verified.
    Verified(&'a CopyReport),
    /// No existing backup of a guarded database will do, so one is made.
    Making {
        /// The database.
        database: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A guarded database has its backup.
    Ready {
        /// The database.
        database: &'a str,
        /// The backup.
        id: &'a str,
        /// The run that made it; none where an existing one is accepted.
        made: Option<&'a BackupReport>,
        /// The age of the backup that is accepted.
        accepted_age_seconds: Option<i64>,
        /// Why it is pinned; none where it is not.
        pin: Option<&'a str>,
    },
    /// Something is odd, and is told before the guarded command begins.
    Warned {
        /// What, in words.
        warning: &'a str,
    },
    /// The guarded command begins.
    Running {
        /// Its name.
        command: &'a str,
    },
    /// The guarded command failed, and a restore begins.
    RollingBack {
        /// How the command ended, in words.
        why: &'a str,
        /// The backup that is restored.
        id: &'a str,
    },
    /// An event of one of several databases.
    Of {
        /// The database.
        database: &'a str,
        /// What happens there.
        event: &'a Event<'a>,
    },
}

/// Watches an operation.
pub trait Observer: Send + Sync {
    /// Takes note of an event.
    fn note(&self, event: Event<'_>);
}

/// Shows nothing.
pub struct Silent;

impl Observer for Silent {
    fn note(&self, _: Event<'_>) {}
}

/// Adds the database to each event, for an operation that runs others of several databases.
pub struct Named<'a> {
    database: &'a str,
    observer: &'a dyn Observer,
}

impl<'a> Named<'a> {
    /// Passes the events of `database` on to `observer`.
    pub fn new(database: &'a str, observer: &'a dyn Observer) -> Self {
        Self { database, observer }
    }
}

impl Observer for Named<'_> {
    fn note(&self, event: Event<'_>) {
        self.observer.note(Event::Of {
            database: self.database,
            event: &event,
        });
    }
}

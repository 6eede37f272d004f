//! Who or what started a run, and under which id: what leases and records say of it.

use jiff::Timestamp;

use super::id::BackupId;

/// Longest key of a request that is taken and kept, in bytes.
pub const MAX_REQUEST_KEY: usize = 128;

/// Where a run comes from. A command has nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The run's id, which its caller knows before it begins. The first attempt of a backup takes it.
    pub run: Option<BackupId>,
    /// The slot of a schedule that it is for: the schedule's instant, in whole seconds. A slot is run once.
    pub slot: Option<Timestamp>,
    /// The name of the token that started it.
    pub by: Option<String>,
    /// What the client calls its request, so that asking twice is asking once.
    pub request_key: Option<String>,
}

impl Origin {
    /// Returns why a run happens that has no other reason: a schedule, or a request.
    pub fn trigger(&self) -> Option<&'static str> {
        match (&self.slot, &self.run) {
            (Some(_), _) => Some("schedule"),
            (None, Some(_)) => Some("manual"),
            (None, None) => None,
        }
    }
}

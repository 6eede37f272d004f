//! What all pages have in common: where they are, who looks at them, what time it is.

use jiff::Timestamp;

use super::words::encoded;
use crate::auth::Role;

/// The frame of a page.
#[derive(Clone, Debug)]
pub struct Chrome {
    /// The path before all others, without a slash at its end: empty, or `/backups`.
    pub base: String,
    /// What the session may do. Buttons stand only where they would work.
    pub role: Role,
    /// The name of the token; none where there is no sign-in.
    pub who: Option<String>,
    /// Whether nothing is started or changed from here.
    pub is_watch_only: bool,
    /// Why what is known of the storages may no longer be so.
    pub doubt: Option<String>,
    /// The present moment.
    pub now: Timestamp,
    /// Which clock the times are on, in words: `Times are UTC; schedules name their zone.`
    pub zone_note: String,
}

impl Chrome {
    /// Makes a link; `path` begins with a slash, and what it holds of names is encoded already.
    pub fn link(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Makes the link of a database.
    pub fn database(&self, name: &str) -> String {
        self.link(&format!("/databases/{}", encoded(name)))
    }

    /// Makes the link of a backup.
    pub fn backup(&self, id: &str) -> String {
        self.link(&format!("/backups/{}", encoded(id)))
    }

    /// Makes the link of a run.
    pub fn run(&self, id: &str) -> String {
        self.link(&format!("/runs/{}", encoded(id)))
    }

    /// Tells whether something can be started from here by this session.
    pub fn may_start(&self) -> bool {
        self.role >= Role::Operate && !self.is_watch_only
    }

    /// Tells whether the session may set and take away pins.
    pub fn may_pin(&self) -> bool {
        self.role >= Role::Operate && !self.is_watch_only
    }

    /// Tells whether the session may accept held backups.
    pub fn may_accept(&self) -> bool {
        self.role >= Role::Restore && !self.is_watch_only
    }

    /// Tells whether the session may take data away: rows and dumps.
    pub fn may_download(&self) -> bool {
        self.role >= Role::Restore
    }

    /// Tells whether the session may put rows back.
    pub fn may_restore(&self) -> bool {
        self.role >= Role::Restore && !self.is_watch_only
    }
}

//! Operations, one per command: each takes a request value and returns a report value.
//!
//! They never print, never read the environment and know nothing of the command line.

pub mod accept;
pub mod backup;
pub mod check;
pub mod diff;
pub mod drill;
pub mod event;
pub mod extract;
pub mod fleet;
pub mod get;
pub mod guard;
pub mod history;
pub mod inspect;
pub mod keys;
pub mod list;
pub mod lock;
pub mod notices;
pub mod pin;
pub mod prune;
mod removal;
pub mod restore;
pub mod retention;
pub mod show;
pub mod slot;
pub mod status;
pub mod sync;
pub mod verify;

pub use crate::copies::listing as stored;

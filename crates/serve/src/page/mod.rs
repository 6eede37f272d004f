//! The page: pure functions from what is known to HTML. No function here asks a storage, a clock or the environment.
//!
//! [`view`] makes the values that are shown out of a snapshot; every other module renders one page of them. Text is escaped
//! by `maud`. No page has a script, a style or a handler of its own, so the strictest policy for content holds.

pub mod assets;
pub mod backup;
pub mod badge;
pub mod calendar;
pub mod chart;
pub mod chrome;
pub mod database;
pub mod diff;
pub mod drill;
pub mod error;
pub mod history;
mod layout;
pub mod login;
pub mod overview;
mod parts;
pub mod restore;
pub mod run;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;
pub mod view;
pub mod wall;
pub mod words;

pub use chrome::Chrome;

/// What every page is answered with: nothing but its own files is loaded, nothing inline is run, no other page frames it.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

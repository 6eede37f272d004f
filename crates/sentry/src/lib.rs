//! What Sentry hears of pgkeep's runs: one event for a run that failed, and check-ins for those that a schedule wants.
//!
//! Events and check-ins are built with Sentry's own types, and sent by pgkeep's own HTTPS client. Promises that no known
//! secret is in what is sent, and that a Sentry that does not answer fails no run and costs it two seconds at most.

mod event;
mod monitor;
mod send;
mod target;
mod tracker;

pub use target::Variables;
pub use tracker::Sentry;

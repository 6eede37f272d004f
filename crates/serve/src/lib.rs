//! The second front door of pgkeep: schedules, an HTTP API, a page and metrics, over the same operations as the terminal.
//!
//! Nothing is stored here. What is shown is derived from the storages, the configuration and the runs of this process.

mod apart;
mod api;
pub mod app;
pub mod auth;
mod connections;
mod elsewhere;
mod history;
mod leases;
mod metrics;
pub mod page;
mod pages;
mod plans;
mod problem;
pub mod proxies;
mod remember;
pub mod runs;
mod scheduler;
mod serve;
mod server;
pub mod snapshot;
mod stale;
mod tasks;
mod watcher;

pub use pages::ROUTES as PAGE_ROUTES;
pub use serve::{Options, run};

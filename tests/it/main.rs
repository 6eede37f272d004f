//! The integration tests: one binary, a sealed environment, real and scripted programs.
//!
//! `support` holds what the modules share; a test that needs something the machine lacks says so and skips, and
//! fails instead under `PGKEEP_TEST_REQUIRE_ALL=1`.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod actions;
mod anomaly;
mod backup;
mod check;
mod circles;
mod clouds;
mod copies;
mod corpus;
mod demo;
mod dependencies;
mod deploy;
mod diff;
mod docs;
mod drill;
mod encryption;
mod extract;
mod fleet;
mod guard;
mod harness;
mod hours;
mod immutable;
mod links;
mod log;
mod notices;
mod pages;
mod postgres;
mod prune;
mod restore;
mod retention;
mod scheduled;
mod schemas;
#[cfg(feature = "sentry")]
mod sentry;
mod serve;
mod snapshots;
mod status;
mod storage;
mod supabase;
mod support;
mod sync;
mod terminal;
mod tidy;
mod usage;
mod verify;
#[cfg(not(feature = "sentry"))]
mod without_sentry;

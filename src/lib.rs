//! pgkeep on the terminal: arguments, words and progress around the operations of `pgkeep-core`.
//!
//! `ARCHITECTURE.md` has the map of the crates.

pub mod cli;

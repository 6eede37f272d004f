//! pgkeep: logical PostgreSQL backups that come with proof.
//!
//! Two layers and their edge: [`model`] is pure (no files, processes, clock or environment), [`op`] holds one
//! operation per command, and [`postgres`], [`storage`] and [`stream`] carry the effects. `ARCHITECTURE.md`
//! has the map; `tests/it/tidy.rs` holds the layers apart.

pub mod cli;
pub mod clock;
pub mod context;
pub mod failure;
pub mod lock;
pub mod model;
pub mod notify;
pub mod op;
pub mod postgres;
pub mod storage;
pub mod stream;

//! PostgreSQL's own programs: the only place that spawns a process.
//!
//! What a program prints is handed on only with its exit status known; every program ends with us, and none of
//! them ever sees a secret in its arguments or a variable that it does not need.

pub mod activity;
pub mod address;
pub mod attended;
mod catalog;
mod conversation;
pub mod counts;
pub mod databases;
pub mod dump;
mod ended;
pub mod environment;
pub mod error;
pub mod feed;
pub mod globals;
pub(crate) mod place;
pub mod pooler;
pub mod present;
pub mod process;
pub mod programs;
pub mod psql;
pub mod rows;
mod said;
pub mod scratch;
pub mod server;
pub mod session;
pub mod snapshot;
pub mod tables;
mod tail;
pub mod target;

pub use error::{Error, Reason};

//! Private keys and what they open: which backups need which, and the proof that one does.
//!
//! A listing tells both: beside each encrypted backup lies an object whose key names its recipients, and each proof is
//! an object of its own.

pub mod generate;
pub mod list;
pub(crate) mod proof;
pub mod prove;
mod sets;

pub(crate) use sets::sets;

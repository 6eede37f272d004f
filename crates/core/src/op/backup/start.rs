//! What the programs of a dump are started with, and why they may not be.

use tokio_util::sync::CancellationToken;

use super::Request;
use super::selected::Source;
use crate::postgres::error::Error;
use pgkeep_model::failure::Failure;

/// What a dump is made of, and what ends it.
pub(super) struct Start<'a> {
    pub(super) request: &'a Request,
    pub(super) source: &'a Source,
    pub(super) stop: &'a CancellationToken,
}

/// Why the programs were not started.
pub(super) enum NotStarted {
    /// One of them failed.
    Program(Error),
    /// What is asked for cannot be done.
    Refused(Box<Failure>),
}

impl From<Error> for NotStarted {
    fn from(error: Error) -> Self {
        Self::Program(error)
    }
}

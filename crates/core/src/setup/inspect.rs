//! What `inspect` is to do.

use std::path::PathBuf;

use super::Setup;
use super::flags::required_tables;
use crate::op::inspect::{Request, Source};
use pgkeep_model::failure::Result;

/// Which dump is inspected, and what must be in it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The dump; `-` is standard input.
    pub file: PathBuf,
    /// Files of private keys that open an encrypted one.
    pub identities: Vec<PathBuf>,
    /// Tables that must be in it.
    pub required: Vec<String>,
}

/// Returns the request to inspect a dump.
pub fn request(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    let source = if overrides.file.as_os_str() == "-" {
        Source::Stdin
    } else {
        Source::File(overrides.file.clone())
    };
    Ok(Request {
        source,
        identities: setup.identities_of(&overrides.identities)?,
        required: required_tables(&overrides.required)?,
    })
}

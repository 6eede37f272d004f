//! What `inspect` is to do.

use std::path::PathBuf;

use super::flags::required_tables;
use crate::op::inspect::{Request, Source};
use pgkeep_model::failure::Result;

/// Which dump is inspected, and what must be in it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The dump; `-` is standard input.
    pub file: PathBuf,
    /// Tables that must be in it.
    pub required: Vec<String>,
}

/// Returns the request to inspect a dump.
pub fn request(overrides: &Overrides) -> Result<Request> {
    let source = if overrides.file.as_os_str() == "-" {
        Source::Stdin
    } else {
        Source::File(overrides.file.clone())
    };
    Ok(Request {
        source,
        required: required_tables(&overrides.required)?,
    })
}

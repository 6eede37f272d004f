//! The stages that a dump passes on its way: read, scan, cut into chunks, compress, encrypt, hash; and the file it ends in.
//!
//! Data flows one way. End of stream is a promise: a stage reports it only when everything in front of it is known
//! to be good, so that no consumer can take a cut-off stream for a whole one.

pub(crate) mod beside;
pub mod compress;
mod decompress;
pub(crate) mod digest;
#[cfg(test)]
mod drip;
#[doc(hidden)]
pub mod fuzz;
mod held;
pub(crate) mod inlet;
mod literal;
pub mod not_valid;
mod outlet;
pub mod pipeline;
mod progress;
pub mod read;
pub mod splice;
pub mod stored;

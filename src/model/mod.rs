//! The pure model: what pgkeep knows and decides, without files, processes, clock, environment or logging.
//!
//! Time and randomness are arguments. Everything here is tested with tables of input and expected output.

pub mod id;
pub mod name;

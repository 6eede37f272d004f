//! The one way to read what is stored: listings, the key and the chunk index of a dump, whole and ranged reads, and the
//! next copy where one is bad.
//!
//! Operations read through it and it knows none of them.

mod bridge;
mod dump;
pub mod listing;
mod ranged;
mod stored;
mod structure;
mod tap;
mod unlock;

pub(crate) use bridge::{Pieces, threads, with_pieces};
pub(crate) use dump::{chunk_index, dump_key, extension};
pub(crate) use ranged::{Fault, Ranged};
pub(crate) use stored::Stored;
pub(crate) use structure::{MAX_STRUCTURE, STRUCTURE_TOO_LONG, StructureText, too_long};
pub(crate) use tap::{Seen, Tap};
pub(crate) use unlock::Front;

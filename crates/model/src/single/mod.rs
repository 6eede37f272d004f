//! Single tables out of a dump: which of its statements make them, and what these say under another schema.
//!
//! It works on the scanner's statements and their tokens, never on a search in text. It decides and never does: what
//! the target holds is an argument, and the plan is SQL with what was left out and why.

mod names;
mod plan;
mod select;
mod structure;
mod subject;

pub use names::{Moved, rewritten};
pub use plan::{LeftOut, Plan, Refused};
pub use select::{Found, Selection, There};
pub use structure::Structure;
pub use subject::{Deed, Object, Part, Subject, relation_literal, subject};

#[cfg(test)]
mod tests;

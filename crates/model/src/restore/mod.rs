//! What a restore decides: what of a dump reaches `psql`, whether the target was not changed dumped, what is put back.

pub mod compare;
pub mod defaults;
pub mod filter;
pub mod order;
pub mod properties;
pub mod script;

//! The anomaly gate: whether a backup lost what the ones before it had.
//!
//! A dump can be whole and proven and still hold a database that someone emptied. The gate judges rows, tables and raw
//! bytes against the median of the last good backups, never the stored size: neither compression nor encryption changes a
//! verdict. A loss counts only where it passes a relative and an absolute bar. Growth never fails.
//!
//! A backup that fails is held: it counts for nothing until someone accepts it, and no held backup ever becomes part of
//! what is normal. Asks neither clock nor storage.

mod baseline;
mod judge;
mod marks;
mod read;
pub mod record;
mod rules;
mod sample;
#[cfg(test)]
mod tests;

pub use baseline::{BACKUPS, Baseline, LEARNING};
pub use judge::judge;
pub use marks::{Acceptance, HeldMark, MAX_MARK_BYTES};
pub use read::{Alike, Earlier, major};
pub use record::{AnomalyRecord, Seen, Severity, Sign, Verdict};
pub use sample::{Amounts, Sample};

/// Id of the failure of a backup that is stored and held.
pub const ANOMALY: &str = "anomaly";

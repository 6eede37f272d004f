//! What was found in one copy of a backup.

use serde::Serialize;

use pgkeep_model::failure::Failure;
use pgkeep_model::proof::Problem;

/// One storage's copy of one backup.
#[derive(Clone, Debug, Serialize)]
pub struct CopyReport {
    /// The backup.
    pub id: String,
    /// Its database.
    pub database: String,
    /// The storage.
    pub storage: String,
    /// Where that is.
    pub url: String,
    /// Whether it was read and found good.
    pub ok: bool,
    /// Whether two readings contradict the manifest.
    pub damaged: bool,
    /// Whether it carries the mark of a damaged copy, from now on or from before.
    pub marked: bool,
    /// Whether it was removed while it was read, as retention does: nothing is wrong with that.
    pub removed: bool,
    /// Whether what it holds was read, and not its stored bytes alone, as of an encrypted one without a key.
    pub opened: bool,
    /// Why a key that was given does not open it; its bytes were compared all the same.
    #[serde(skip)]
    pub locked: Option<Failure>,
    /// Stored bytes of the dump that were read.
    pub bytes: u64,
    /// Tables found.
    pub tables: u64,
    /// Rows found.
    pub rows: u64,
    /// How long it took.
    pub took_ms: u64,
    /// What contradicts the manifest, the first bad place first.
    pub problems: Vec<Problem>,
    /// What is odd and makes it no worse.
    pub warnings: Vec<String>,
    /// Why it could not be read; none when it could.
    pub failure: Option<Failure>,
}

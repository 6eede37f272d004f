//! Run records: one small object per run of a verb that matters, failed ones too. History and audit log.
//!
//! They tell `status` how runs went. One thing is decided by them: what a storage refused to remove lately is no news in a
//! plan. So one that cannot be read is merely left out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::anomaly::{ANOMALY, AnomalyRecord};
use super::failure::Kind;
use super::id::{BackupId, DatabaseName};
use super::lease::{Lease, shown, whole_seconds};
use super::origin::{MAX_REQUEST_KEY, Origin};

/// The newest format that this program writes.
pub const FORMAT: u64 = 1;

/// Largest record that is read. One has a few hundred bytes, and its longest parts are cut when it is written.
pub const MAX_RECORD_BYTES: u64 = 256 * 1024;

/// Longest message that is kept. Names of a thousand tables would not help a reader of the history.
const MAX_MESSAGE_CHARS: usize = 2000;

/// Id of the failure of a run that died: the run that took its lease over wrote its record.
pub const INTERRUPTED: &str = "run_interrupted";

/// Id of the failure of a run that another one kept away: it did nothing.
pub const BUSY: &str = "busy";

/// The exit code of a process that was killed, as a shell tells it.
const KILLED: u8 = 137;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it went well.
    Good,
    /// What it made is good, and something behind it is not.
    Warned,
    /// It failed.
    Failed,
    /// It was stopped or died before it had made anything: it says nothing of the database or the backup.
    Interrupted,
}

/// What one run did and how it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Always [`FORMAT`].
    pub format: u64,
    /// The run's id; a backup's run has the id of its backup.
    pub id: BackupId,
    /// The database.
    pub database: DatabaseName,
    /// The command: `backup`, `restore`, `drill`, `verify`, `prune`, `sync`, `pin`, `unpin`, `accept`.
    pub verb: String,
    /// The id under which it was asked for, where that is not [`RunRecord::id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<BackupId>,
    /// The slot of a schedule that it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Timestamp>,
    /// The name of the token that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What the client called its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_key: Option<String>,
    /// Why the run happened, where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub took_ms: u64,
    /// The exit code that it alone would have ended with.
    pub exit_code: u8,
    /// The failure's stable id; none when it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_id: Option<String>,
    /// The failure in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The backup that it made or was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// Size of the stored dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Rows of all tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How long a drill took until the data was there again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_ms: Option<u64>,
    /// Number of tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// How many backups it removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
    /// How many copies it brought to a storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<u64>,
    /// Ids of backups that retention lets go and that a storage refused to remove, by the storage's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, Vec<String>>,
    /// What there is to say of it: the reason of a pin, where a restore went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the anomaly gate said of the backup that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<AnomalyRecord>,
    /// Notices of it that did not arrive, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undelivered: Vec<String>,
    /// Version of pgkeep.
    pub pgkeep: String,
}

/// Tells how a run ended: by its command, its exit code, the id of its failure, and the backup that it names. Whatever
/// tells of runs asks here, so that no two places tell it differently.
///
/// A run of `backup` names a backup only when it is stored, while others name the one that they were about.
pub fn end_of(verb: &str, exit_code: u8, failure: Option<&str>, backup: Option<&str>) -> End {
    let stops = [Kind::Interrupted, Kind::Terminated].map(Kind::exit_code);
    let is_cut_short =
        failure == Some(INTERRUPTED) || exit_code == KILLED || stops.contains(&exit_code);
    let is_stored = verb == "backup" && backup.is_some();
    match exit_code {
        0 => End::Good,
        3 => End::Warned,
        _ if is_stored && failure != Some(ANOMALY) => End::Warned,
        _ if is_cut_short && !is_stored => End::Interrupted,
        _ => End::Failed,
    }
}

impl RunRecord {
    /// Starts the record of a run that went well so far.
    pub fn new(id: BackupId, verb: &str, started_at: Timestamp, took_ms: u64) -> Self {
        Self {
            format: FORMAT,
            database: id.database().clone(),
            id,
            verb: verb.to_owned(),
            run: None,
            slot: None,
            by: None,
            request_key: None,
            trigger: None,
            started_at,
            took_ms,
            exit_code: 0,
            failure_id: None,
            failure: None,
            backup_id: None,
            size_bytes: None,
            rows: None,
            recovery_ms: None,
            tables: None,
            removed: None,
            copied: None,
            refused: BTreeMap::new(),
            reason: None,
            anomaly: None,
            undelivered: Vec::new(),
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Notes where the run comes from.
    pub fn from(mut self, origin: &Origin) -> Self {
        self.run = origin.run.clone().filter(|run| run != &self.id);
        self.slot = origin.slot;
        self.by.clone_from(&origin.by);
        self.request_key.clone_from(&origin.request_key);
        self.trigger = origin.trigger().map(str::to_owned);
        self
    }

    /// Tells of a run that died with its lease.
    pub fn interrupted(id: BackupId, lease: &Lease) -> Self {
        let took = lease.renewed_at.duration_since(lease.taken_at).as_millis();
        let mut record = Self::new(
            id,
            &shown(&lease.verb),
            lease.taken_at,
            u64::try_from(took).unwrap_or(0),
        );
        record.slot = lease.slot;
        record.by = lease.by.as_deref().map(shown);
        let is_key = |key: &&String| key.len() <= MAX_REQUEST_KEY;
        record.request_key = lease.request_key.as_ref().filter(is_key).cloned();
        record.trigger = lease.trigger.as_deref().map(shown);
        let message = format!(
            "it ended without a word: {lease} gave its last sign of life at {}",
            whole_seconds(lease.renewed_at)
        );
        record.failed(KILLED, INTERRUPTED, &message)
    }

    /// Tells how it ended.
    pub fn end(&self) -> End {
        end_of(
            &self.verb,
            self.exit_code,
            self.failure_id.as_deref(),
            self.backup_id.as_deref(),
        )
    }

    /// Tells whether it is the record of a run that was stopped or died before it had made anything.
    pub fn is_interrupted(&self) -> bool {
        self.end() == End::Interrupted
    }

    /// Tells whether it gave way to another run, and did nothing itself.
    pub fn gave_way(&self) -> bool {
        self.failure_id.as_deref() == Some(BUSY)
    }

    /// Notes how it failed; a long message is cut.
    pub fn failed(mut self, exit_code: u8, id: &str, message: &str) -> Self {
        self.exit_code = exit_code;
        self.failure_id = Some(id.to_owned());
        self.failure = Some(message.chars().take(MAX_MESSAGE_CHARS).collect());
        self
    }

    /// Tells whether what it made is good, though something behind it may not be. A backup that is held is not good.
    pub fn is_success(&self) -> bool {
        matches!(self.end(), End::Good | End::Warned)
    }

    /// Renders the record as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("a record holds only JSON's own types");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a record that lies under the key of `id`; none when it is damaged, of another run or of a newer format.
    pub fn read(bytes: &[u8], id: &BackupId) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (record.format <= FORMAT && &record.id == id && &record.database == id.database())
            .then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> BackupId {
        "shop-20260102T030405Z-7f3a".parse().unwrap()
    }

    #[test]
    fn a_record_reads_back() {
        let mut record = RunRecord::new(id(), "backup", id().started_at(), 1500);
        record.rows = Some(7);
        assert!(record.is_success());
        let record = record.failed(21, "required_table_missing", &"ä".repeat(3000));
        assert!(!record.is_success());
        assert_eq!(record.failure.as_ref().unwrap().chars().count(), 2000);
        let bytes = record.to_json();
        assert_eq!(RunRecord::read(&bytes, &id()), Some(record));
    }

    #[test]
    fn what_is_foreign_or_newer_is_left_out() {
        let record = RunRecord::new(id(), "backup", id().started_at(), 1);
        let other: BackupId = "shop-20260102T030405Z-0000".parse().unwrap();
        assert_eq!(RunRecord::read(&record.to_json(), &other), None);
        let newer = RunRecord {
            format: FORMAT + 1,
            ..record.clone()
        };
        assert_eq!(RunRecord::read(&newer.to_json(), &id()), None);
        let more = String::from_utf8(record.to_json())
            .unwrap()
            .replacen('{', "{\"new\": 1,", 1);
        assert_eq!(RunRecord::read(more.as_bytes(), &id()), Some(record));
    }

    #[test]
    fn each_end_is_told_by_one_rule() {
        let end = |verb: &str, code: u8, failure: &str, backup: bool| {
            let mut record = RunRecord::new(id(), verb, id().started_at(), 1);
            if code != 0 {
                record = record.failed(code, failure, "why");
            }
            record.backup_id = backup.then(|| id().to_string());
            assert_eq!(record.is_interrupted(), record.end() == End::Interrupted);
            record.end()
        };
        for (verb, code, failure, backup, expected) in [
            ("backup", 0, "", true, End::Good),
            ("drill", 0, "", true, End::Good),
            ("backup", 3, "prune_incomplete", true, End::Warned),
            ("backup", 20, "dump_failed", false, End::Failed),
            ("backup", 11, BUSY, false, End::Failed),
            // Stopped, killed, or told by its lease alone.
            ("backup", 130, "interrupted", false, End::Interrupted),
            ("backup", 143, "terminated", false, End::Interrupted),
            ("backup", 137, INTERRUPTED, false, End::Interrupted),
            // A drill names the backup that it is about.
            ("drill", 143, "terminated", true, End::Interrupted),
            ("verify", 137, INTERRUPTED, true, End::Interrupted),
            // The backup was stored before the stop came.
            ("backup", 143, "terminated", true, End::Warned),
            ("backup", 137, INTERRUPTED, true, End::Warned),
            ("backup", 21, ANOMALY, true, End::Failed),
        ] {
            let found = end(verb, code, failure, backup);
            assert_eq!(found, expected, "{verb} {code} {failure} {backup}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(RunRecord::read(&bytes, &id()), None);
        }
    }
}

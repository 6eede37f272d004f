//! The anomaly gate of a run: behind the proof and before the commit it reads what was normal, and has the backup judged.
//!
//! A history that cannot be read never fails a backup; the run says so. A backup that is held is stored like any other,
//! with the mark beside it from its first moment on, and the run ends with a failure of its own.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::timeout;

use super::attempt::Attempt;
use crate::op::stored::NamedStorage;
use pgkeep_model::anomaly::{
    ANOMALY, Alike, AnomalyRecord, Baseline, Earlier, HeldMark, Sample, Severity, Verdict, judge,
    major,
};
use pgkeep_model::config::Anomaly;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::BackupId;
use pgkeep_model::keys::{Listed, Part, gather};
use pgkeep_model::manifest::{MAX_MANIFEST_BYTES, Manifest};
use pgkeep_model::name::printable;
use pgkeep_model::retention::is_ahead;
use pgkeep_model::scan::Finding;

/// Most manifests that are read to find those that count: some may be of another selection or server.
const MANIFESTS_READ: usize = 14;

/// How long the history of one storage may take: the dump is stored, and only its commit waits.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(60);

/// Most signs that become warnings of the run.
const MAX_WARNINGS: usize = 20;

/// Why a history tells nothing, or not all.
#[derive(Default)]
struct Doubts {
    words: Vec<String>,
    /// Whether all of it is that the key may not read: who may only write makes good backups all the same.
    is_denied_alone: bool,
}

impl Attempt<'_> {
    /// Judges a backup that is about to be committed; none where nobody asks, or where it counts for nothing anyway.
    pub(super) async fn judge_history(&mut self, manifest: &Manifest) -> Option<AnomalyRecord> {
        let rules = self.request.anomaly.as_ref()?;
        if self.request.is_partial {
            return None;
        }
        let alike = Alike {
            selection: manifest.selection.clone(),
            preset: manifest.preset.clone(),
            server_major: major(manifest.server.version_num),
        };
        let (baseline, doubts) = tokio::select! {
            history = self.history(rules, &alike, manifest.finished_at) => history,
            // The commit finds out by itself.
            () = self.stop().cancelled() => return None,
        };
        let mut record = judge(&Sample::of(manifest), &baseline);
        if baseline.is_learning() && !doubts.words.is_empty() {
            record = AnomalyRecord::new(Verdict::NotJudged);
        }
        record.why = (!doubts.words.is_empty()).then(|| doubts.words.join("; "));
        if record.is_held() {
            record.allowed.clone_from(&self.request.allow_anomaly);
        }
        self.warn_of(&record, &doubts);
        Some(record)
    }

    fn warn_of(&mut self, record: &AnomalyRecord, doubts: &Doubts) {
        let warnings = &mut self.report.warnings;
        if let Some(why) = record.why.as_ref().filter(|_| !doubts.is_denied_alone) {
            let text = match record.verdict {
                Verdict::NotJudged => {
                    format!("the backup was not compared with earlier ones: {why}")
                }
                _ => format!("some earlier backups were not compared with this one: {why}"),
            };
            warnings.push(Finding::new("anomaly_history", text, None));
        }
        let warned = record.of(Severity::Warn).take(MAX_WARNINGS);
        warnings.extend(warned.map(|seen| Finding::new("anomaly", seen.in_words(), None)));
        if let Some(reason) = &record.allowed {
            let text = format!(
                "the backup is held: {}; the run goes on, because: {}",
                record.in_a_line(),
                printable(reason)
            );
            warnings.push(Finding::new("anomaly_allowed", text, None));
        }
    }

    /// Returns the mark of a backup that is held.
    pub(super) fn held_mark(&self, manifest: &Manifest) -> Option<(String, Bytes)> {
        let record = manifest
            .anomaly
            .as_ref()
            .filter(|record| record.is_held())?;
        let mark = HeldMark::new(manifest.id.clone(), manifest.finished_at, record.clone());
        let key = self.place.key(Part::Held, "");
        Some((key, Bytes::from(mark.to_json())))
    }

    /// Makes the failure of a backup that is stored and held, unless someone allowed it; what else is not good of it
    /// stands in its details.
    pub(super) fn settle_anomaly(&mut self, stored: Result<()>) -> Result<()> {
        let manifest = self.report.manifest.as_ref();
        self.report.anomaly = manifest.and_then(|manifest| manifest.anomaly.clone());
        let record = self.report.anomaly.as_ref();
        let held = record.filter(|record| record.is_held() && record.allowed.is_none());
        let Some(record) = held else {
            return stored;
        };
        let id = &self.place.id;
        let message = format!(
            "backup `{id}` is stored, but held: it lost what the ones before it had: {}; earlier backups are unchanged, \
             and `prune` waits",
            record.in_a_line()
        );
        let mut failure =
            Failure::new(Kind::Proof, ANOMALY, message).with_details(record.reasons());
        if let Err(other) = stored {
            failure.details.push(other.message);
            failure.details.extend(other.details);
        }
        Err(failure
            .hint(format!(
                "if it is as it should be: `pgkeep accept {id} 'REASON'` makes it the new normal"
            ))
            .hint("if not: `pgkeep list` shows the backups before it; `anomaly` in the configuration sets the bars"))
    }

    /// Reads what was normal from the first storage that tells it: the copies of all are alike.
    async fn history<'r>(
        &self,
        rules: &'r Anomaly,
        alike: &Alike,
        now: Timestamp,
    ) -> (Baseline<'r>, Doubts) {
        let mut doubts = Doubts {
            is_denied_alone: true,
            ..Doubts::default()
        };
        for named in &self.request.storages {
            let mut baseline = Baseline::new(rules, alike.clone());
            let mut here = Doubts {
                is_denied_alone: true,
                ..Doubts::default()
            };
            let reading = self.read(named, &mut baseline, &mut here, now);
            let is_read = match timeout(HISTORY_TIMEOUT, reading).await {
                Ok(is_listed) => is_listed,
                Err(_) => {
                    let seconds = HISTORY_TIMEOUT.as_secs();
                    here.words
                        .push(format!("`{}` took longer than {seconds} s", named.name));
                    here.is_denied_alone = false;
                    false
                }
            };
            // What it told is enough, or all that there is.
            if !baseline.is_learning() || (is_read && here.words.is_empty()) {
                return (baseline, here);
            }
            doubts.is_denied_alone &= here.is_denied_alone;
            doubts.words.append(&mut here.words);
        }
        (Baseline::new(rules, alike.clone()), doubts)
    }

    /// Reads the newest backups of one storage, one manifest at a time, and tells whether it could be listed.
    async fn read(
        &self,
        named: &NamedStorage,
        baseline: &mut Baseline<'_>,
        doubts: &mut Doubts,
        now: Timestamp,
    ) -> bool {
        let (storage, name) = (named.storage.as_ref(), &named.name);
        let objects = match storage.list(&format!("{}/", self.request.name)).await {
            Ok(objects) => objects,
            Err(error) => {
                doubts.add(format!("cannot list `{name}`: {error}"), &error);
                return false;
            }
        };
        let listed = gather(objects.iter().map(|o| (o.key.as_str(), o.size_bytes)));
        let counts = |backup: &&Listed| {
            let place = &backup.place;
            let is_past = !is_ahead(place.id.started_at(), now) && place.id != self.place.id;
            !place.is_partial && backup.is_good() && !backup.is_held() && is_past
        };
        for backup in listed.iter().rev().filter(counts).take(MANIFESTS_READ) {
            if baseline.is_full() {
                break;
            }
            let id = &backup.place.id;
            let key = backup.place.key(Part::Manifest, "");
            let unread = |why: &dyn std::fmt::Display| {
                format!("cannot read the manifest of `{id}` in `{name}`: {why}")
            };
            match storage.get(&key, MAX_MANIFEST_BYTES).await {
                Ok(bytes) => match parse(bytes, id.clone()).await {
                    Ok(earlier) => {
                        baseline.add(id, earlier, backup.is_accepted());
                    }
                    Err(why) => {
                        doubts.words.push(unread(&why));
                        doubts.is_denied_alone = false;
                    }
                },
                // Retention of another host may have been faster.
                Err(pgkeep_storage::Error::NotFound(_)) => {}
                Err(error) => doubts.add(unread(&error), &error),
            }
        }
        true
    }
}

impl Doubts {
    fn add(&mut self, words: String, error: &pgkeep_storage::Error) {
        self.words.push(words);
        self.is_denied_alone &= matches!(error, pgkeep_storage::Error::Denied { .. });
    }
}

/// Reads a manifest on a thread that may block: one of 64 MiB takes a while.
async fn parse(bytes: Bytes, id: BackupId) -> std::result::Result<Earlier, String> {
    let parsed = tokio::task::spawn_blocking(move || Earlier::read(&bytes, &id)).await;
    match parsed {
        Ok(read) => read,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

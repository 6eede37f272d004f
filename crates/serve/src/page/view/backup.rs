//! One backup: its proof, where it lies, what holds it.

use std::sync::Arc;

use jiff::Timestamp;

use super::calendar::{CalendarRow, calendar};
use super::known::marks;
use crate::snapshot::Snapshot;
use pgkeep_model::anomaly::Acceptance;
use pgkeep_model::id::BackupId;
use pgkeep_model::manifest::Manifest;

/// What the page of a backup shows.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// The manifest of the backup before it, which it is compared with.
    pub previous: Option<Arc<Manifest>>,
    /// What each storage has of it.
    pub copies: Vec<CopyState>,
    /// What it is marked as.
    pub marks: Vec<&'static str>,
    /// Why it is pinned; empty where that is not known, none where it is not pinned.
    pub pinned: Option<String>,
    /// Whether it is held.
    pub is_held: bool,
    /// Who accepted it, when and why.
    pub accepted: Option<Acceptance>,
    /// What holds it, and when it goes.
    pub fate: Option<CalendarRow>,
    /// When the last drill of it passed, and the recovery time in milliseconds.
    pub drilled: Option<(Timestamp, u64)>,
    /// Whether the backup can be opened here: it is not encrypted, or there is a private key.
    pub can_open: bool,
    /// Other backups of the database to compare with, newest first.
    pub others: Vec<String>,
    /// Only tables with this in their name.
    pub filter: Option<String>,
}

/// One storage's copy.
#[derive(Clone, Debug)]
pub struct CopyState {
    /// The storage.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// How it stands, in a word: `whole`, `damaged`, `missing`, or why the storage did not answer.
    pub words: String,
    /// Whether it is whole.
    pub is_good: bool,
    /// Its size.
    pub size_bytes: Option<u64>,
}

/// Looks at a backup. Manifests, pin and acceptance are read by the caller.
pub fn backup(
    snapshot: &Snapshot,
    id: &BackupId,
    manifest: Arc<Manifest>,
    previous: Option<Arc<Manifest>>,
    pinned: Option<String>,
    accepted: Option<Acceptance>,
    now: Timestamp,
) -> Option<Backup> {
    let text = id.to_string();
    let stored = super::stored(snapshot, &text)?;
    let name = id.database().as_str();
    let states = snapshot
        .listing
        .states
        .iter()
        .enumerate()
        .filter(|(at, state)| {
            stored.copies.contains_key(at) || super::is_meant(snapshot, name, &state.name)
        });
    let copies = states.map(|(at, state)| {
        let copy = stored.copies.get(&at);
        let is_good = copy.is_some_and(|copy| copy.is_good());
        let words = match (&state.error, copy) {
            (Some(error), _) => error.clone(),
            (None, None) => "missing".to_owned(),
            (None, Some(copy)) if copy.is_damaged() => "damaged".to_owned(),
            (None, Some(copy)) if copy.is_good() => "whole".to_owned(),
            (None, Some(_)) => "not whole".to_owned(),
        };
        CopyState {
            name: state.name.clone(),
            url: state.url.clone(),
            words,
            is_good,
            size_bytes: copy.map(|copy| copy.size_bytes()),
        }
    });
    let newest_first = snapshot.listing.backups.iter().rev();
    let others = newest_first.filter(|other| {
        other.place.id.database() == id.database() && other.place.id != *id && other.is_committed()
    });
    let drills = snapshot
        .drills
        .get(id.database())
        .map(Vec::as_slice)
        .unwrap_or_default();
    let drilled = drills.iter().rfind(|drill| &drill.backup == id);
    let fate = calendar(snapshot, id.database(), now);
    Some(Backup {
        manifest,
        previous,
        copies: copies.collect(),
        marks: marks(stored),
        pinned: pinned.or_else(|| stored.is_pinned().then(String::new)),
        is_held: stored.is_held(),
        accepted,
        fate: fate.and_then(|calendar| calendar.rows.into_iter().find(|row| row.id == text)),
        drilled: drilled.map(|drill| (drill.passed_at, drill.recovery_ms)),
        can_open: !stored.is_encrypted() || snapshot.can_open,
        others: others
            .take(60)
            .map(|other| other.place.id.to_string())
            .collect(),
        filter: None,
    })
}

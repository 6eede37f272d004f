//! What is needed to restore a database now.

use jiff::Timestamp;

use super::fate::{Answer, answer};
use super::known::{DrillCell, Newest, drill};
use crate::snapshot::Snapshot;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::manifest::Manifest;

/// What the page says about a restore.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The database.
    pub name: String,
    /// Whether it could be restored, and what that rests on.
    pub answer: Answer,
    /// The newest good backup.
    pub newest: Option<Newest>,
    /// The newest one that passed a drill.
    pub drilled: Option<Newest>,
    /// The drills.
    pub drill: DrillCell,
    /// The storages that have the newest good one whole: name and place.
    pub places: Vec<(String, String)>,
    /// Commands: what each does, and the command.
    pub commands: Vec<(&'static str, String)>,
    /// The shell line without pgkeep, as the manifest has it.
    pub without: Option<String>,
    /// Storages that did not answer, and why.
    pub silent: Vec<(String, String)>,
}

/// Looks at what a restore needs. `manifest` is that of the newest good backup, where it could be read.
pub fn restore(
    snapshot: &Snapshot,
    name: &DatabaseName,
    manifest: Option<&Manifest>,
    now: Timestamp,
) -> Option<Restore> {
    let status = super::status(snapshot, name)?;
    let newest = status.newest_good.as_ref().map(Newest::from);
    let found = newest
        .as_ref()
        .and_then(|newest| super::stored(snapshot, &newest.id));
    let places = found.map(|backup| {
        let good = backup.copies.iter().filter(|(_, copy)| copy.is_good());
        let states = good.filter_map(|(&at, _)| snapshot.listing.states.get(at));
        states
            .map(|state| (state.name.clone(), state.url.clone()))
            .collect()
    });
    let silent = snapshot
        .listing
        .states
        .iter()
        .filter_map(|state| Some((state.name.clone(), state.error.clone()?)));
    Some(Restore {
        name: name.to_string(),
        answer: answer(snapshot, status, now),
        drilled: status.newest_drilled.as_ref().map(Newest::from),
        drill: drill(snapshot, status),
        places: places.unwrap_or_default(),
        commands: newest
            .as_ref()
            .map(|newest| commands(name, &newest.id))
            .unwrap_or_default(),
        without: manifest.map(|manifest| manifest.restore.clone()),
        silent: silent.collect(),
        newest,
    })
}

fn commands(name: &DatabaseName, id: &str) -> Vec<(&'static str, String)> {
    vec![
        (
            "Into a database that does not exist yet; every table is compared",
            format!("pgkeep restore {id} --into postgres://USER@HOST/{name}_restored"),
        ),
        (
            "One table, as SQL",
            format!("pgkeep extract {id} --table TABLE --format sql -o table.sql"),
        ),
        (
            "For a test, into a throw-away server",
            format!("pgkeep drill {id}"),
        ),
        ("The stored file alone, checked", format!("pgkeep get {id}")),
    ]
}

//! What a badge says.

use jiff::Timestamp;

use super::fate::{Light, light};
use crate::snapshot::Snapshot;
use pgkeep_model::freshness::age;
use pgkeep_model::id::DatabaseName;

/// Returns the light of a database and a few words for a badge; none where there is no such database.
pub fn badge(snapshot: &Snapshot, name: &DatabaseName, now: Timestamp) -> Option<(Light, String)> {
    let status = super::status(snapshot, name)?;
    let (light, _) = light(snapshot, status, now);
    let words = match &status.newest_good {
        _ if snapshot.looked_at().is_none() => "not known".to_owned(),
        Some(newest) if snapshot.doubt(now).is_some() => format!(
            "{} old when last seen",
            age(super::age_of(newest.started_at, snapshot.at))
        ),
        Some(newest) => format!("{} old", age(super::age_of(newest.started_at, now))),
        None => "no backup".to_owned(),
    };
    Some((light, words))
}

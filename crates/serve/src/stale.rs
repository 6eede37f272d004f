//! Tells by itself of databases without a fresh backup, as `status --notify` does.
//!
//! Nothing is remembered beyond the process: after a restart somebody who is still to be told is told once more.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::snapshot::Snapshot;
use pgkeep_core::context::Context;
use pgkeep_core::op::status;

/// How long it is silent about what was told.
const SILENCE: SignedDuration = SignedDuration::from_hours(24);

/// Tells until a stop is asked for.
pub async fn run(mut snapshot: watch::Receiver<Arc<Snapshot>>, context: Context) {
    let mut told: HashMap<String, Timestamp> = HashMap::new();
    loop {
        let known = Arc::clone(&snapshot.borrow_and_update());
        let now = context.clock.now();
        let databases = known.report.databases.iter();
        let bad: Vec<&status::Status> = databases.filter(|one| !one.alerts.is_empty()).collect();
        told.retain(|name, at| {
            let is_bad = bad.iter().any(|status| &status.database == name);
            is_bad && now.duration_since(*at) < SILENCE
        });
        for status in bad {
            if !told.contains_key(&status.database) {
                told.insert(status.database.clone(), now);
                status::tell(status, &known.report, now, &context).await;
            }
        }
        tokio::select! {
            () = context.stop.token().cancelled() => return,
            changed = snapshot.changed() => if changed.is_err() { return },
        }
    }
}
